"""Sample hooks that write down what they saw and drew."""

import hashlib
import json
import os

import bulkhead
from bulkhead import Plugin


class Draws(Plugin):
    """Changes images and captions by its draws; writes down each sample."""

    def _see(self, ctx, hook, **fields):
        folder = os.path.join(ctx.run_dir, "pictures")
        os.makedirs(folder, exist_ok=True)
        line = {"hook": hook, "epoch": ctx.epoch, "sample": ctx.sample, "path": os.path.basename(ctx.path), **fields}
        with open(os.path.join(folder, f"{bulkhead.facts().plugin}-{ctx.rank}.jsonl"), "a") as file:
            file.write(json.dumps(line) + "\n")

    def transform_image(self, image, ctx):
        shade = int(ctx.rng.uniform() * 50)
        out = image // 2 + shade
        self._see(ctx, "image", shade=shade, form=[str(image.dtype), *image.shape],
                  sha=hashlib.sha256(out.tobytes()).hexdigest()[:12])  # fmt: skip
        return out.astype("uint8")

    def transform_caption(self, caption, ctx):
        words = caption.split()
        order = sorted(range(len(words)), key=lambda _: ctx.rng.uniform())
        text = " ".join(words[i] for i in order)
        self._see(ctx, "caption", was=caption, text=text)
        return text


class Marks(Plugin):
    """Puts a letter behind each caption."""

    def __init__(self, letter):
        self.letter = letter

    def transform_caption(self, caption, ctx):
        return caption + self.letter


class Reads(Plugin):
    """Writes down the captions as the chain has left them."""

    stateless = True

    def transform_sample(self, sample, ctx):
        folder = os.path.join(ctx.run_dir, "pictures")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"read-{ctx.rank}.jsonl"), "a") as file:
            file.write(json.dumps({"sample": sample.index, "caption": sample.caption}) + "\n")


class Spoils(Plugin):
    """Gives back what is no picture, for one sample."""

    def transform_image(self, image, ctx):
        return image[:-1] if ctx.sample == 3 and ctx.epoch == 0 else None
