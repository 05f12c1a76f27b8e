"""Says in a file which call is begun, so that it is known after this process has died in it (protocol/README.md).

Where the worker made no such file it does nothing.  Used on the host's one thread.
"""

import os
import struct

_SCHEME = "ipc://"


class CallMark:
    """The file beside the socket of an ipc:// endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._file = -1
        if endpoint.startswith(_SCHEME):
            try:
                self._file = os.open(endpoint[len(_SCHEME) :] + ".call", os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                pass  # nobody asks

    def begin(self, seq: int) -> None:
        """This call begins now."""
        if self._file < 0:
            return
        try:
            os.pwrite(self._file, struct.pack("<q", seq), 0)
        except OSError:
            self.close()  # a full disk: the hint is missing, no more

    def close(self) -> None:
        """No more calls; again is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
