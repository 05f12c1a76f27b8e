"""Says in a file which call is begun, so that it is known after this process has died in it (protocol/README.md).

Where the worker made no such file it does nothing.  Used on the host's one thread.
"""

import os
import struct

_SCHEME = "ipc://"


class CallMark:
    """The file beside the socket of an ipc:// endpoint."""

    def __init__(self, endpoint: str) -> None:
        """Opens nothing yet: only at the first call it is certain that the worker has made it."""
        self._path = endpoint[len(_SCHEME) :] + ".call" if endpoint.startswith(_SCHEME) else ""
        self._file = -1

    def begin(self, seq: int) -> None:
        """This call begins now."""
        try:
            if self._path:
                path, self._path = self._path, ""
                self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            if self._file < 0:
                return
            os.pwrite(self._file, struct.pack("<q", seq), 0)
        except OSError:
            self.close()  # no file, a full disk: the hint is missing, no more

    def close(self) -> None:
        """No more calls; again is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
