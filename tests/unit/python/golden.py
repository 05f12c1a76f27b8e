"""The recorded bytes of each message type, which the C++ codec is held to as well: tests/unit/protocol/golden."""

import pathlib

_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "protocol" / "golden"


def _frames(text):
    """Lines of hexadecimal bytes; an empty line ends a frame, a line that begins with # is for people."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [bytes.fromhex(frame) for frame in "\n".join(lines).split("\n\n") if frame.strip()]


FRAMES = {path.stem: _frames(path.read_text()) for path in sorted(_FOLDER.glob("*.hex"))}
