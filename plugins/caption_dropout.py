"""Now and then trains an image without its caption, so that a model learns to do without (conditional dropout).

    plugins:
      - use: caption_dropout
        with: {probability: 0.05}

Whether a sample loses its caption is a function of the run's seed, the epoch and the sample.  Put it last among the
caption plugins: what stands behind it would add to the empty caption.
"""

import random

from bulkhead import Plugin


class CaptionDropout(Plugin):
    stateless = True

    def __init__(self, probability: float = 0.05, replacement: str = ""):
        """probability: that a caption is dropped, from 0 to 1.

        replacement: what the sample gets instead, e.g. EveryDream2's " ".
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {probability}")
        self.probability, self.replacement = probability, replacement

    def transform_caption(self, caption, ctx):
        return self.replacement if random.random() < self.probability else caption
