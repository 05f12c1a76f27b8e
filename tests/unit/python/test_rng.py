"""ctx.rng and the seeds of calls against what the C++ ones give."""

import hashlib
import random

import numpy as np
import pytest

from bulkhead.rng import GlobalSeeds, Rng, call_key, sample_key

# What protocol/src/rng.cpp gave for run seed -5, plugin "early", rank 1, hook "on_step_end", step 70000, micro-batch 2.
KEY = (8993379190039345955, 14567444168866717576)
RAW = [
    17090364277674773553,
    3183368892829316816,
    10951924316757310441,
    10877914212786613011,
    4413231854440252799,
    10241169328207132988,
]
UNIFORM = [0.75742248032499238, 0.53760412235541699]  # the next two
BELOW = [(10, 0), (1000003, 377155)]  # the next two


def test_the_key_of_a_call_is_that_of_cpp():
    assert call_key(-5, "early", 1, "on_step_end", 70000, 2) == KEY


def test_the_key_of_a_sample_is_that_of_cpp():
    # The numbers of tests/unit/protocol/rng_test.cpp, which were computed by hand with msgpack and hashlib.
    assert sample_key(1, "flip", "transform_image", 0, 0) == (0xDCEE860A2BE6C42C, 0x16AF2F1B8AFA1D5B)
    assert sample_key(-7, "näher", "transform_caption", 3, 10_000_000_000) == (0xAA224233FA11A6A9, 0x52BF2C1CDC595D71)


def test_the_key_of_a_sample_is_the_hash_of_its_five_fields_spelled_out():
    packed = b"\x95\x07\xa4plug\xb1transform_caption\x02\xcd\x01\x2c"  # [7, "plug", "transform_caption", 2, 300]
    digest = hashlib.sha256(packed).digest()
    expected = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    assert sample_key(7, "plug", "transform_caption", 2, 300) == expected


def test_draws_what_cpp_draws():
    rng = Rng.of_key(KEY)
    assert [rng.next_u64() for _ in RAW] == RAW
    assert [rng.uniform() for _ in UNIFORM] == UNIFORM
    assert [(bound, rng.below(bound)) for bound, _ in BELOW] == BELOW


def test_below_refuses_what_is_no_bound():
    with pytest.raises(ValueError):
        Rng.of_key((1, 2)).below(0)


def test_numpys_global_generator_is_the_philox_of_the_key():
    GlobalSeeds().seed(KEY)
    assert [int(np.random.randint(0, 2**64, dtype=np.uint64)) for _ in RAW] == RAW


def test_equal_keys_give_equal_draws_whatever_was_drawn_between():
    seeds = GlobalSeeds()

    def draws():
        seeds.seed((3, 4))
        return random.random(), np.random.rand(), np.random.randn(), np.random.permutation(9).tolist()

    first = draws()
    np.random.randn()  # leaves a second normal number behind
    np.random.seed(1)
    random.seed(1)
    assert draws() == first
    seeds.seed((3, 5))
    assert (random.random(), np.random.rand()) != first[:2]


def test_torch_is_seeded_once_it_is_imported():
    torch = pytest.importorskip("torch")
    seeds = GlobalSeeds()
    seeds.seed((2**64 - 1, 0))
    first = torch.rand(3).tolist()
    torch.manual_seed(0)
    seeds.seed((2**64 - 1, 0))
    assert torch.rand(3).tolist() == first
