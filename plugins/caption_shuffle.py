"""Shuffles the tags of a caption: "a cat, fluffy, on a sofa" may become "a cat, on a sofa, fluffy".

    plugins:
      - use: caption_shuffle
        with: {keep: 1, separator: ","}

As in EveryDream2 what stands before the first separator is the caption proper and stays in front.  Unlike there, `keep`
works: so many tags behind it stay in place too.  A sample's order is new in each epoch and the same in each repetition
of the run, whichever rank or process draws it.
"""

import random
from typing import List, Sequence

from bulkhead import Plugin


def shuffled(tags: Sequence[str], keep: int, generator: random.Random) -> List[str]:
    """`tags` with all behind the first `keep` in random order; `generator` may be the module `random`."""
    first, rest = list(tags[:keep]), list(tags[keep:])
    generator.shuffle(rest)
    return first + rest


class CaptionShuffle(Plugin):
    stateless = True

    def __init__(self, keep: int = 0, separator: str = ",", prompt: bool = True):
        """keep: tags that stay in place, ≥ 0.

        separator: between tags; spaces around it do not count, and one is put behind it.
        prompt: the part before the first separator is no tag and stays in front; false: it is shuffled like the rest.
        """
        if keep < 0:
            raise ValueError(f"keep must be at least 0, not {keep}")
        if not separator.strip():
            raise ValueError("separator must be a visible character, not empty")
        self.keep, self.separator, self.prompt = keep, separator.strip(), prompt

    def transform_caption(self, caption, ctx):
        parts = [part.strip() for part in caption.split(self.separator)]
        parts = [part for part in parts if part]
        # `random` has this sample's own seed (DESIGN §6.5).
        return f"{self.separator} ".join(shuffled(parts, self.keep + self.prompt, random))
