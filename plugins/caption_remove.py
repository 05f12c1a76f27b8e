"""Removes whole words from captions: with "red", "a red car , parked." becomes "a car, parked.".

    plugins:
      - use: caption_remove
        with: {csv: "photo of,blurry"}

EveryDream2's remove_using_csv.  "red" does not touch "redder"; the spaces that are left over go, also before , . ! ? ;.
"""

import re
from typing import Iterable

from bulkhead import Plugin


def without(text: str, words: Iterable[str]) -> str:
    """`text` without any of `words`, one after the other; case counts."""
    for word in words:
        # Not \b, which would never match at the end of "C++".
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", text)
        text = re.sub(r"\s{2,}", " ", text)
        text = re.sub(r"\s([,.!?;])", r"\1", text).strip()
    return text


class CaptionRemove(Plugin):
    stateless = True

    def __init__(self, csv: str):
        """csv: words or phrases with commas between them; spaces around each do not count.  ValueError for none."""
        self.words = [word.strip() for word in csv.split(",") if word.strip()]
        if not self.words:
            raise ValueError(f'csv must hold a word to remove, not "{csv}"')

    def transform_caption(self, caption, ctx):
        return without(caption, self.words)
