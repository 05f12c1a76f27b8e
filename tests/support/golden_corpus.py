#!/usr/bin/env python3
"""Makes fuzz_codec's seeds from the golden files: golden_corpus.py GOLDEN_DIR CORPUS_DIR.

A seed is the frames one after the other, each behind its length as two little-endian bytes.
"""

import sys
from pathlib import Path


def frames_of(text):
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for frame in "\n".join(lines).split("\n\n"):
        if frame.strip():
            yield bytes.fromhex(frame)


def main(golden, corpus):
    corpus.mkdir(parents=True, exist_ok=True)
    for path in sorted(golden.glob("*.hex")):
        frames = frames_of(path.read_text())
        (corpus / path.stem).write_bytes(b"".join(len(frame).to_bytes(2, "little") + frame for frame in frames))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
