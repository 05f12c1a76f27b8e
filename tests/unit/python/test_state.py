"""States: what comes back is what was there, and what cannot be carried is named."""

import collections
import pathlib
import random

import numpy as np
import pytest

from bulkhead import Plugin, state

VALUES = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    2**64,
    -(10**30),
    1.5,
    float("inf"),
    complex(1, -2),
    "ü\n",
    b"\x00\xff",
    bytearray(b"ab"),
    [],
    (1, (2, [3])),
    {1: "a", "b": (2,), (3, 4): None, None: 0, 2.5: 1},
    {1, 2, 3},
    frozenset({"a", ("b", 1)}),
    collections.deque([1, 2], maxlen=2),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("hello"),
    collections.defaultdict(list, {"a": [1]}),
    pathlib.Path("a/b"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_with_their_types(value):
    back = state.unpack(state.pack({"x": [value]}))["x"][0]
    assert back == value and type(back) is type(value)


def test_containers_come_back_whole():
    assert state.unpack(state.pack(collections.deque([1], maxlen=3))).maxlen == 3
    assert state.unpack(state.pack(collections.defaultdict(list)))["new"] == []
    assert list(state.unpack(state.pack({"b": 1, "a": 2}))) == ["b", "a"]
    bytes_back = state.unpack(state.pack(bytearray(b"x")))
    bytes_back.append(1)


DTYPES = ["bool", "uint8", "int16", ">i4", "uint64", "float16", "float64", "complex64", "U3", "M8[s]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_come_back_writable(dtype, shape):
    array = np.zeros(shape, dtype=dtype)
    back = state.unpack(state.pack(array))
    assert back.dtype == array.dtype and back.shape == shape and back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_arrays_of_any_layout_keep_their_values():
    array = np.arange(6).reshape(2, 3).T
    assert np.array_equal(state.unpack(state.pack(array)), array)


def test_numpy_scalars_stay_numpy_scalars():
    for value in (np.float32(0.1), np.int64(-1), np.bool_(True), np.float64(0.1)):
        back = state.unpack(state.pack(value))
        assert back == value and type(back) is type(value)


def test_generators_go_on_where_they_were():
    for generator in (random.Random(3), np.random.default_rng(3), np.random.RandomState(3)):
        generator.random()
        back = state.unpack(state.pack(generator))
        assert back.random() == generator.random() and type(back) is type(generator)
    normal = np.random.RandomState(3)
    normal.randn()  # a second one waits
    assert state.unpack(state.pack(normal)).randn() == normal.randn()


def test_equal_sets_give_equal_bytes():
    names = [f"name{i}" for i in range(50)]
    assert state.pack(set(names)) == state.pack(set(reversed(names)))


class Sub(dict):
    pass


def cycle():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value, why",
    [
        (object(), "an object"),
        ([{"a": lambda: 0}], "a function"),
        (Sub(), f"a {__name__}.Sub"),
        (np.array([object()]), "a numpy array of type object"),
        (collections.defaultdict(lambda: 0), "a defaultdict whose default is not a built-in type"),
        (cycle(), "something that refers to itself or is nested too deeply"),
        ("\udcff", "a string that is not valid Unicode"),
    ],
    ids=["object", "function", "subclass", "array", "defaultdict", "cycle", "surrogate"],
)
def test_what_cannot_be_carried_is_named(value, why):
    with pytest.raises(state.NotCarried) as caught:
        state.pack({"x": value})
    assert str(caught.value) == why


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc7\x01\x63\x00", b"\xc7\x03\x15\x91\xa1x", b"\x81"])
def test_foreign_bytes_are_refused(data):
    with pytest.raises(ValueError, match="the state is not one that this host can read"):
        state.unpack(data)


class Keeper(Plugin):
    transient = {"cache"}

    def __init__(self):
        self.best, self.seen, self.cache, self.lock = 3.0, [1], {"a": 1}, object()


def test_the_default_state_is_every_attribute_that_can_be_carried():
    keeper = Keeper()
    assert keeper.state_dict() == {"best": 3.0, "seen": [1]}
    assert state.left_out(keeper) == [("lock", "an object")]


def test_the_default_restores_exactly_and_leaves_the_rest_alone():
    old = Keeper()
    old.later = "x"
    del old.seen
    new = Keeper()
    lock = new.lock
    new.since = 1
    new.load_state_dict(state.unpack(state.pack(old.state_dict())))
    assert vars(new) == {"best": 3.0, "cache": {"a": 1}, "lock": lock, "later": "x"}


def test_slots_are_attributes_too():
    class Slotted(Plugin):
        __slots__ = ("a", "b")

    slotted = Slotted()
    slotted.a = 1
    assert slotted.state_dict() == {"a": 1}


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="needs load_state_dict"):
        Keeper().load_state_dict([1])


def test_torch_tensors_and_generators_come_back():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64):
        tensor = torch.ones(2, 3, dtype=torch.float32).to(dtype).T
        back = state.unpack(state.pack(tensor))
        assert back.dtype == dtype and torch.equal(back, tensor)
    assert state.unpack(state.pack(torch.tensor(1.5, requires_grad=True))).requires_grad
    assert state.unpack(state.pack(torch.empty(0, 2))).shape == (0, 2)
    generator = torch.Generator().manual_seed(5)
    back = state.unpack(state.pack(generator))
    assert torch.equal(torch.rand(3, generator=back), torch.rand(3, generator=generator))
    with pytest.raises(state.NotCarried):
        state.pack(torch.nn.Linear(1, 1))
