"""Tells in a caption where its image lies: ".../Peru/x.jpg" adds "Hint: Peru" as a line before it.

    plugins:
      - use: caption_hint
        with: {source: leaf_directory}

EveryDream2's from_leaf_directory and hint_from_filename.  A caption that holds `{hint}` has it put there instead.
"""

import os

from bulkhead import Plugin

SOURCES = {
    "leaf_directory": lambda path: os.path.basename(os.path.dirname(path)),
    "filename": lambda path: os.path.splitext(os.path.basename(path))[0],
}


def add_hint(hint: str, caption: str) -> str:
    if "{hint}" in caption:
        return caption.replace("{hint}", hint)
    return f"Hint: {hint}\n{caption}" if hint else caption


class CaptionHint(Plugin):
    stateless = True

    def __init__(self, source: str = "leaf_directory"):
        """source: "leaf_directory", the name of the folder that holds the image; "filename", the image's name without
        its ending."""
        if source not in SOURCES:
            raise ValueError(f'source must be {" or ".join(SOURCES)}, not "{source}"')
        self.source = source

    def transform_caption(self, caption, ctx):
        return add_hint(SOURCES[self.source](ctx.path), caption)
