"""Mirrors images left to right, each with a probability.

    plugins:
      - use: image_flip
        with: {probability: 0.5}
"""

import random

from bulkhead import Plugin


class ImageFlip(Plugin):
    stateless = True

    def __init__(self, probability: float = 0.5):
        """probability: that an image is mirrored, from 0 to 1."""
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, not {probability}")
        self.probability = probability

    def transform_image(self, image, ctx):
        return image[:, ::-1] if random.random() < self.probability else image
