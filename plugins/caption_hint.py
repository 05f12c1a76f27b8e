"""Tells in a caption what is known of its image: ".../Peru/x.jpg" adds "Hint: Peru" as a line before it.

    plugins:
      - use: caption_hint
        with: {source: leaf_directory}

EveryDream2's hint plugins.  A caption that holds `{hint}` has it put there instead; where nothing is known it stays as
it is.  The JSON files hold {"title": "…", "tags": ["…", …]}, tags also as one text with commas, and whatever else.

| source | hint |
| --- | --- |
| leaf_directory | the name of the folder that holds the image |
| filename | the image's name without its ending |
| folder_tags | "tags: a, b", from metadata.json beside the image |
| folder_title_and_tags | "title: t, tags: a, b", from metadata.json beside the image |
| image_title_and_tags | the same from x.json beside x.jpg |
| folder_metadata | "metadata: " and all of metadata.json |
"""

import functools
import json
import os

from bulkhead import Plugin


@functools.lru_cache(maxsize=4096)
def read(path: str) -> dict:
    """A JSON file's map; empty when there is no file.  ValueError, one sentence, when it holds something else."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:  # of the text's encoding, too
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a map, not {type(found).__name__}")
    return found


def of_folder(path: str) -> dict:
    return read(os.path.join(os.path.dirname(path), "metadata.json"))


def of_image(path: str) -> dict:
    return read(f"{os.path.splitext(path)[0]}.json")


def title(known: dict) -> str:
    text = str(known.get("title") or "").strip()
    return f"title: {text}" if text else ""


def tags(known: dict) -> str:
    found = known.get("tags") or []
    parts = found.split(",") if isinstance(found, str) else map(str, found)
    listed = ", ".join(part.strip() for part in parts if part.strip())
    return f"tags: {listed}" if listed else ""


def title_and_tags(known: dict) -> str:
    return ", ".join(part for part in (title(known), tags(known)) if part)


def everything(known: dict) -> str:
    return f"metadata: {json.dumps(known, indent=2, ensure_ascii=False)}" if known else ""


SOURCES = {
    "leaf_directory": lambda path: os.path.basename(os.path.dirname(path)),
    "filename": lambda path: os.path.splitext(os.path.basename(path))[0],
    "folder_tags": lambda path: tags(of_folder(path)),
    "folder_title_and_tags": lambda path: title_and_tags(of_folder(path)),
    "image_title_and_tags": lambda path: title_and_tags(of_image(path)),
    "folder_metadata": lambda path: everything(of_folder(path)),
}


def add_hint(hint: str, caption: str) -> str:
    if "{hint}" in caption:
        return caption.replace("{hint}", hint)
    return f"Hint: {hint}\n{caption}" if hint else caption


class CaptionHint(Plugin):
    stateless = True

    def __init__(self, source: str = "leaf_directory"):
        """source: one of the table above."""
        if source not in SOURCES:
            raise ValueError(f'source must be one of {", ".join(SOURCES)}, not "{source}"')
        self.source = source

    def transform_caption(self, caption, ctx):
        return add_hint(SOURCES[self.source](ctx.path), caption)
