"""Plugins that change images: image_flip and image_jitter."""

import numpy as np
from shipped_plugins import assert_refused, make, module_of

from bulkhead.testing import run_hook

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def image_of(plugin, image=IMAGE, **about):
    return run_hook(plugin, "transform_image", image=image, **about).value


def test_image_flip_mirrors_left_to_right():
    assert image_of(make("image_flip", probability=1)).tolist() == IMAGE[:, ::-1].tolist()
    assert run_hook(make("image_flip", probability=0), "transform_image", image=IMAGE).changed == []


def test_image_flip_mirrors_a_share_that_belongs_to_the_samples():
    def flipped(**about):
        found = run_hook(make("image_flip"), "transform_image", image=[IMAGE] * 400, sample=0, **about).value
        return [not np.array_equal(image, IMAGE) for image in found]

    assert flipped() == flipped(rank=1, global_step=3) != flipped(epoch=1)
    assert 160 < sum(flipped()) < 240


def test_image_jitter_scales_the_brightness_and_cuts_at_white():
    jittered = module_of(make("image_jitter")).jittered
    assert jittered(IMAGE, 1, 1).tolist() == IMAGE.tolist()
    assert jittered(IMAGE, 2, 1).tolist() == np.minimum(IMAGE.astype(int) * 2, 255).tolist()


def test_image_jitter_scales_the_distance_from_the_mean_grey():
    jittered = module_of(make("image_jitter")).jittered
    image = np.uint8([[[100, 100, 100], [200, 200, 200]]])
    assert jittered(image, 1, 0.5)[0, :, 0].tolist() == [125, 175]
    assert jittered(image, 1, 0).tolist() == np.full((1, 2, 3), 150).tolist()
    green = np.uint8([[[0, 100, 0]]])  # its grey is 58.7
    assert jittered(green, 1, 0).tolist() == [[[59, 59, 59]]]


def test_image_jitter_draws_both_factors_within_their_ranges():
    grey = np.full((4, 4, 3), 100, np.uint8)
    found = [int(image_of(make("image_jitter", contrast=0), grey, sample=sample)[0, 0, 0]) for sample in range(200)]
    assert 80 <= min(found) < 85 and 115 < max(found) <= 120
    assert image_of(make("image_jitter", brightness=0, contrast=0)).tolist() == IMAGE.tolist()


def test_image_plugins_refuse_what_makes_no_sense():
    assert_refused("image_flip", "probability must be from 0 to 1, not -0.1", probability=-0.1)
    assert_refused("image_jitter", "brightness must be from 0 to 1, not 2.0", brightness=2)
    assert_refused("image_jitter", "contrast must be from 0 to 1, not -1.0", contrast=-1)
