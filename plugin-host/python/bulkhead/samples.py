"""Sample hooks: a micro-batch of images and captions, handed to the plugin one sample at a time.

Texts travel as two tensors (protocol/README.md): all bytes behind one another, and where each text ends.  What a hook
gives is checked at once, so that its own line is in the traceback.  Pure but for the plugin's own code.
"""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Sequence

import numpy as np

from bulkhead import wire
from bulkhead.batch import Batch
from bulkhead.context import Context

MAX_CAPTION = 64 << 10  # bytes of UTF-8
_OF_SAMPLE = ("image", "caption")  # what transform_sample may change


class Sample:
    """What transform_sample gets: `image` and `caption` can be assigned, `path` and `index` are facts."""

    __slots__ = ("_image", "_caption", "_path", "_index", "_first")

    def __init__(self, image: np.ndarray, caption: str, path: str, index: int) -> None:
        self._image, self._caption, self._path, self._index = image, caption, path, index
        self._first = image

    @property
    def image(self) -> np.ndarray:
        """uint8 [H,W,3], read-only as long as it is the input; assign another of the same shape, or a PIL image."""
        return self._image

    @image.setter
    def image(self, value: Any) -> None:
        self._image = as_image(value, self._first, "sample.image is")

    @property
    def caption(self) -> str:
        """Its text; assign another of at most 64 KiB."""
        return self._caption

    @caption.setter
    def caption(self, value: Any) -> None:
        self._caption = as_caption(value, "sample.caption is")

    @property
    def path(self) -> str:
        """Of the image."""
        return self._path

    @property
    def index(self) -> int:
        """The sample's number in the data set."""
        return self._index

    def __repr__(self) -> str:
        return f"Sample({self._index}, {self._path!r}, {self._caption!r:.64}, image {list(self._image.shape)})"


# ----- What a hook gave -----


def as_image(value: Any, like: np.ndarray, what: str) -> np.ndarray:
    """`value` (array, torch tensor, PIL image) as uint8 of `like`'s shape; TypeError or ValueError, beginning with
    `what`."""
    if value is like:
        return like
    if type(value).__module__.split(".")[0] == "torch":
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype != np.uint8:
        found = wire.a(type(value)) if array.dtype == object else f"an array of type {array.dtype}"
        raise TypeError(f"{what} {found}; an image is uint8 {list(like.shape)}, like the one that came")
    if array.shape != like.shape:
        raise ValueError(f"{what} an array of shape {list(array.shape)}; it must keep the shape {list(like.shape)} that came")
    return array


def as_caption(value: Any, what: str) -> str:
    """`value` as it can be sent; TypeError or ValueError, beginning with `what`."""
    if not isinstance(value, str):
        raise TypeError(f"{what} {wire.a(type(value))}; a caption is a str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} text that is not valid Unicode: {value!a:.64}") from None
    if size > MAX_CAPTION:
        raise ValueError(f"{what} a caption of {size} bytes; at most {MAX_CAPTION} are carried")
    return str(value)


# ----- The wire -----


def texts_of(batch: Batch, name: str) -> List[str]:
    """The list of texts that `batch` holds under `name`.  ValueError when it is none."""
    data, ends = batch[name].tobytes(), batch[f"{name}.ends"].tolist()
    texts, start = [], 0
    for end in ends:
        if not start <= end <= len(data):
            raise ValueError(f'the texts "{name}" end where there is nothing')
        texts.append(data[start:end].decode("utf-8", "replace"))
        start = end
    return texts


def put_texts(batch: Batch, name: str, texts: Sequence[str]) -> None:
    encoded = [text.encode() for text in texts]
    batch[name] = np.frombuffer(b"".join(encoded), np.uint8)
    batch[f"{name}.ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)


# ----- One hook over one micro-batch -----


class Samples:
    """The samples of a batch, and what has become of them; those that nobody changed stay the input's bytes."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.indices = batch["sample"].tolist()
        self.paths = texts_of(batch, "paths")
        self.captions = texts_of(batch, "captions") if "captions" in batch else []
        self.images = list(batch["images"]) if "images" in batch else []
        self._changed_captions = False

    def run(self, hook: str, method: Callable, ctx: Context, seed: Callable[[], None]) -> None:
        """Calls `method` for each sample, with `seed()` before it."""
        one = {
            "transform_image": self._image, "transform_caption": self._caption, "transform_sample": self._sample,
        }[hook]  # fmt: skip
        for place, (index, path) in enumerate(zip(self.indices, self.paths)):
            ctx.begin_sample(index, path)
            seed()
            one(place, method, ctx)
        if self._changed_captions:
            put_texts(self._batch, "captions", self.captions)

    def _image(self, place: int, method: Callable, ctx: Context) -> None:
        image = self.images[place]
        given = method(image, ctx)
        if given is not None:
            self._set_image(place, as_image(given, image, "transform_image returned"))

    def _caption(self, place: int, method: Callable, ctx: Context) -> None:
        given = method(self.captions[place], ctx)
        if given is not None:
            self._set_caption(place, as_caption(given, "transform_caption returned"))

    def _sample(self, place: int, method: Callable, ctx: Context) -> None:
        sample = Sample(self.images[place], self.captions[place], ctx.path, ctx.sample)
        given = method(sample, ctx)
        if isinstance(given, dict):
            for name, value in given.items():
                if name not in _OF_SAMPLE:
                    raise TypeError(f"transform_sample returned {name!r}; of a sample only image and caption can change")
                setattr(sample, name, value)
        elif given is not None and given is not sample:
            found = wire.a(type(given))
            raise TypeError(f"transform_sample returned {found}; it must return nothing, the sample, or a dict of both")
        self._set_image(place, sample.image)
        self._set_caption(place, sample.caption)

    def _set_image(self, place: int, image: np.ndarray) -> None:
        if image is not self.images[place]:
            self._batch.mutable("images")[place] = image

    def _set_caption(self, place: int, caption: str) -> None:
        if caption != self.captions[place]:
            self.captions[place] = caption
            self._changed_captions = True


def batch_of(
    images: Optional[np.ndarray], captions: Sequence[str], paths: Sequence[str], indices: Sequence[int]
) -> Batch:
    """A micro-batch as the rank sends it."""
    batch = Batch()
    if images is not None:
        batch["images"] = np.ascontiguousarray(images, np.uint8)
    put_texts(batch, "captions", captions)
    put_texts(batch, "paths", paths)
    batch["sample"] = np.asarray(indices, np.int64)
    return batch
