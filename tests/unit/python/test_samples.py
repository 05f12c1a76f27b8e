"""Sample hooks: one call a micro-batch, one plugin call a sample; seeds, what may come back, what is refused."""

import random
import types

import numpy as np
import pytest

from bulkhead import Plugin, Sample, samples
from bulkhead.batch import Batch
from bulkhead.rng import Rng, sample_key
from bulkhead.testing import run_hook

IMAGES = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]


class Caption(Plugin):
    """What it is told to give."""

    transient = {"give"}

    def __init__(self, give):
        self.give = give

    def transform_caption(self, caption, ctx):
        return self.give(caption, ctx)


class Image(Plugin):
    transient = {"give"}

    def __init__(self, give):
        self.give = give

    def transform_image(self, image, ctx):
        return self.give(image, ctx)


def test_each_caption_is_handed_over_with_its_number_and_path():
    plugin = Caption(lambda caption, ctx: f"{caption} {ctx.sample} {ctx.path}")
    result = run_hook(plugin, "transform_caption", caption=["é", "", "c"], path=["a.jpg", "b.jpg", "ü"], sample=[7, 3, 9])
    assert result.value == ["é 7 a.jpg", " 3 b.jpg", "c 9 ü"]
    assert result.changed == ["captions", "captions.ends"]


def test_only_what_changed_is_sent_back():
    plugin = Caption(lambda caption, ctx: None if ctx.sample else caption)
    result = run_hook(plugin, "transform_caption", caption=["a", "b"])
    assert result.changed == [] and result.value == ["a", "b"]
    one_of_two = run_hook(Image(lambda image, ctx: image + 1 if ctx.sample else None), "transform_image", image=IMAGES)
    assert one_of_two.changed == ["images"]
    assert [image[0, 0, 0] for image in one_of_two.value] == [10, 21, 31]


def test_seeds_depend_on_epoch_and_sample_but_not_on_rank_step_or_neighbours():
    def draw(caption, ctx):
        return f"{ctx.rng.next_u64()} {random.random()} {np.random.rand()}"

    def drawn(**about):
        return run_hook(Caption(draw), "transform_caption", **about).value

    alone = drawn(caption="x", sample=5, epoch=2, rank=0, global_step=1)
    among = drawn(caption=["x", "y"], sample=[4, 5], epoch=2, rank=1, global_step=9, micro_batch=3)
    assert among[1] == alone and among[0] != alone
    assert drawn(caption="x", sample=5, epoch=3) != alone
    key = sample_key(1, "plugin", "transform_caption", 2, 5)
    assert alone.split()[0] == str(Rng.of_key(key).next_u64())


def test_a_class_that_is_not_seeded_is_left_alone_and_has_ctx_rng():
    class P(Plugin):
        seeded = False

        def transform_caption(self, caption, ctx):
            return f"{random.random()} {ctx.rng.next_u64()}"

    random.seed(5)
    value = run_hook(P(), "transform_caption", caption="x", sample=2).value
    assert value.split()[0] == str(random.Random(5).random())
    assert value.split()[1] == str(Rng.of_key(sample_key(1, "plugin", "transform_caption", 0, 2)).next_u64())


def test_anything_with_the_array_interface_is_an_image():
    class LikePil:
        def __init__(self, array):
            self.__array_interface__ = array.__array_interface__
            self.kept = array

    def flip(image, ctx):
        return LikePil(np.ascontiguousarray(image[:, ::-1]))

    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert run_hook(Image(flip), "transform_image", image=image).value.tolist() == image[:, ::-1].tolist()


def test_the_image_that_came_cannot_be_damaged():
    def scribble(image, ctx):
        image[0, 0, 0] = 1

    failure = run_hook(Image(scribble), "transform_image", image=IMAGES[0], raise_errors=False).failure
    assert failure["type"] == "ValueError" and "read-only" in failure["message"]
    with pytest.raises(ValueError):
        run_hook(Image(lambda image, ctx: image.setflags(write=True)), "transform_image", image=IMAGES[0])


@pytest.mark.parametrize(
    "give, kind, message",
    [
        (lambda i, c: i.astype(float), TypeError,
         "transform_image returned an array of type float64; an image is uint8 [2, 3, 3], like the one that came"),
        (lambda i, c: i[:1], ValueError,
         "transform_image returned an array of shape [1, 3, 3]; it must keep the shape [2, 3, 3] that came"),
        (lambda i, c: object(), TypeError,
         "transform_image returned an object; an image is uint8 [2, 3, 3], like the one that came"),
    ],
)  # fmt: skip
def test_an_image_of_another_kind_is_refused_with_a_sentence(give, kind, message):
    with pytest.raises(kind) as caught:
        run_hook(Image(give), "transform_image", image=IMAGES[0])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "give, kind, message",
    [
        (3, TypeError, "transform_caption returned an int; a caption is a str"),
        (b"x", TypeError, "transform_caption returned a bytes; a caption is a str"),
        ("\udcff", ValueError, "transform_caption returned text that is not valid Unicode: '\\udcff'"),
        ("é" * 40000, ValueError, "transform_caption returned a caption of 80000 bytes; at most 65536 are carried"),
    ],
)
def test_a_caption_that_is_none_is_refused_with_a_sentence(give, kind, message):
    with pytest.raises(kind) as caught:
        run_hook(Caption(lambda caption, ctx: give), "transform_caption", caption="x")
    assert str(caught.value) == message


def test_one_exception_fails_the_whole_micro_batch():
    def third(caption, ctx):
        if ctx.sample == 2:
            raise LookupError("no third")
        return "changed"

    result = run_hook(Caption(third), "transform_caption", caption=["a", "b", "c"], raise_errors=False)
    assert result.failure["message"] == "no third" and result.batch == {} and not result.fatal


@pytest.mark.parametrize("how", ["assign", "return it", "return a dict"])
def test_a_sample_has_image_and_caption_together(how):
    class P(Plugin):
        def transform_sample(self, sample, ctx):
            assert (sample.index, sample.path) == (ctx.sample, ctx.path) == (4, "p.jpg")
            image, caption = sample.image + 1, sample.caption.upper()
            if how == "return a dict":
                return {"image": image, "caption": caption}
            sample.image, sample.caption = image, caption
            return sample if how == "return it" else None

    result = run_hook(P(), "transform_sample", image=IMAGES[0], caption="x", path="p.jpg", sample=4)
    assert result.value["caption"] == "X" and result.value["image"].tolist() == (IMAGES[0] + 1).tolist()


@pytest.mark.parametrize(
    "give, message",
    [
        (lambda s: {"path": "x"}, "transform_sample returned 'path'; of a sample only image and caption can change"),
        (lambda s: [s], "transform_sample returned a list; it must return nothing, the sample, or a dict of both"),
        (lambda s: setattr(s, "caption", 5), "sample.caption is an int; a caption is a str"),
        (lambda s: setattr(s, "image", s.image.astype("f4")),
         "sample.image is an array of type float32; an image is uint8 [2, 3, 3], like the one that came"),
    ],
)  # fmt: skip
def test_what_is_no_sample_is_refused_with_a_sentence(give, message):
    class P(Plugin):
        def transform_sample(self, sample, ctx):
            return give(sample)

    with pytest.raises(TypeError) as caught:
        run_hook(P(), "transform_sample", image=IMAGES[0], caption="x")
    assert str(caught.value) == message


def test_number_and_path_of_a_sample_are_facts():
    sample = Sample(IMAGES[0], "c", "p", 3)
    for name in ("index", "path", "colour"):
        with pytest.raises(AttributeError):
            setattr(sample, name, 1)
    assert repr(sample) == "Sample(3, 'p', 'c', image [2, 3, 3])"


def test_captions_of_a_data_set_without_images_are_enough_for_captions():
    class Mute(Plugin):
        def transform_caption(self, caption, ctx):
            return caption + "!"

    batch = samples.batch_of(None, ["a"], ["p"], [0])
    ctx = types.SimpleNamespace(begin_sample=lambda index, path: None)
    samples.Samples(batch).run("transform_caption", Mute().transform_caption, ctx, lambda: None)
    assert samples.texts_of(batch, "captions") == ["a!"]


@pytest.mark.parametrize("ends", [[3], [2, 1], [-1]])
def test_texts_that_end_nowhere_are_refused(ends):
    batch = Batch()
    batch["t"], batch["t.ends"] = np.frombuffer(b"ab", np.uint8), np.int64(ends)
    with pytest.raises(ValueError, match='the texts "t" end where there is nothing'):
        samples.texts_of(batch, "t")
