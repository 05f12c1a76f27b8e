"""Changes the brightness and the contrast of images at random.

    plugins:
      - use: image_jitter
        with: {brightness: 0.2, contrast: 0.2}

The formulas are those of torchvision's ColorJitter, brightness first: pixels times a factor, then their distance from
the image's mean grey (ITU-R 601: 0.299 R + 0.587 G + 0.114 B) times another one.
"""

import random

import numpy as np

from bulkhead import Plugin

GREY = np.array([0.299, 0.587, 0.114], np.float32)


def jittered(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """uint8 [H,W,3] with both factors applied, rounded and cut to 0–255; factors 1 and 1 leave it as it is."""
    pixels = np.clip(image.astype(np.float32) * brightness, 0, 255)
    mean = float((pixels @ GREY).mean())
    return np.clip(np.rint((pixels - mean) * contrast + mean), 0, 255).astype(np.uint8)


class ImageJitter(Plugin):
    stateless = True

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2):
        """Each factor is drawn evenly from 1 − value to 1 + value; values from 0 (no change) to 1."""
        for name, value in (("brightness", brightness), ("contrast", contrast)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {value}")
        self.brightness, self.contrast = brightness, contrast

    def transform_image(self, image, ctx):
        brightness = 1 + self.brightness * random.uniform(-1, 1)
        return jittered(image, brightness, 1 + self.contrast * random.uniform(-1, 1))
