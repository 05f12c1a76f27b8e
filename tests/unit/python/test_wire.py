"""The codec against bytes of the C++ one, and against malformed input."""

import random

import golden
import msgpack
import numpy as np
import pytest

from bulkhead import messages, wire
from bulkhead.wire import Malformed


def decoded(name):
    kind, fields = messages.decode(golden.FRAMES[name])
    assert kind == name
    return fields


def test_reads_what_cpp_writes():
    assert decoded("welcome") == {"generation": 7, "version": 1}
    assert decoded("refuse") == {"generation": 7, "reason": "no"}
    assert decoded("stop") == {"generation": 7, "reason": "bye"}
    assert decoded("attach") == {"generation": 7, "endpoint": "ipc:///x/y", "worker_generation": 9}


def test_reads_a_load_of_cpp():
    load = decoded("load")
    assert load["config"] == {"use": "early_stop", "name": "early",
                              "with": {"delta": 0.5, "patience": 3}, "language": "python", "file": "/x/early_stop.py",
                              "module": "", "class_name": ""}  # fmt: skip
    assert load["facts"]["run_seed"] == -5 and load["facts"]["map_loc"] == {"cuda:0": "cpu"}
    assert load["facts"]["is_distributed"] is True and load["facts"]["is_main"] is False


def test_reads_a_call_of_cpp_with_its_bytes():
    call = decoded("call")
    assert (call["seq"], call["hook"], call["seed_rank"]) == (300, "transform_train_batch", 1)
    context = call["context"]
    assert context["lr"] == 1.0 and type(context["lr"]) is float  # packed as the integer 1
    assert context["best_metric"] == 1e19 and context["metrics"] == {"loss": 2.5} and context["replaying"] is True
    (name, dtype, shape, data), = call["batch"]
    assert (name, dtype, shape) == ("x", "int16", (2, 2))
    assert np.frombuffer(data, "<i2").tolist() == [1, 2, 3, -1]
    assert call["state"] == b"abc"


def written():
    tensor = np.array([[1, 2], [3, -1]], dtype=np.int16)
    traits = {"hooks": ["setup"], "claims": [], "steers": True, "stateless": False, "seeded": True, "stateful": True,
              "class_name": "X", "checksum": "", "language": "python 3.11.7", "pid": 9}  # fmt: skip
    reply = messages.reply(4, 300, "transform_train_batch", 0.5, kept=["y"],
                           batch=[messages.tensor("x", "int16", (2, 2))])  # fmt: skip
    failure = {"type": "Refused", "message": "m", "traceback": ""}
    return {
        "hello": (messages.hello(4, 1, 2, 1234, "s"), ()),
        "reply": (reply, (tensor,)),
        "heartbeat": (messages.heartbeat(4), ()),
        "loaded": (messages.loaded(4, traits), ()),
        "load_failed": (messages.load_failed(4, "find", "use", failure), ()),
        "progress": (messages.progress(4, 1, {"done": 3}), ()),
        "note": (messages.note(4, 1, "t", {"a": 0.5}), ()),
    }


@pytest.mark.parametrize("name", sorted(written()))
def test_writes_the_bytes_that_cpp_writes(name):
    envelope, payloads = written()[name]
    assert [bytes(frame) for frame in messages.frames_of(envelope, payloads)] == golden.FRAMES[name]


def test_absent_fields_keep_their_defaults_and_unknown_ones_are_ignored():
    packed = msgpack.packb({"type": "call", "generation": 3, "hook": "setup", "colour": {"a": [1]}})
    kind, call = messages.decode([packed])
    assert call["context"]["epoch"] == 0 and call["batch"] == [] and call["state"] == b""


def call_with(**fields):
    return msgpack.packb({"type": "call", "generation": 1, "seq": 1, "hook": "x", **fields})


TENSOR = {"name": "x", "dtype": "float32", "shape": [2]}


@pytest.mark.parametrize(
    "frames, reason",
    [
        ([], "no frame"),
        ([b""], "not an envelope"),
        ([b"\xc1"], "not an envelope"),
        ([msgpack.packb([1])], "the envelope is not a map"),
        ([msgpack.packb({"a": 1})], "the envelope has no type"),
        ([msgpack.packb({1: 1})], "not an envelope"),
        ([msgpack.packb({"type": "stop"}) + b"x"], "not an envelope"),
        ([b"\x82\xa4type\xa4stop\xa6reason\xa2\xff\xfe"], "not an envelope"),
        ([call_with(seq="1")], "seq must be a 64-bit signed integer"),
        ([call_with(seq=2**63)], "seq must be a 64-bit signed integer"),
        ([call_with(seq=True)], "seq must be a 64-bit signed integer"),
        ([call_with(context={"lr": "fast"})], "context lr must be a number"),
        ([call_with(context={"metrics": {"a": None}})], "context metrics must be a number"),
        ([call_with(batch=[TENSOR])], 'batch "x" has fewer frames than its size says'),
        ([call_with(batch=[TENSOR]), b"1234"], 'batch "x" has frames of another size than its shape says'),
        ([call_with(batch=[TENSOR]), b"12345678", b"1"], "frames are left over"),
        ([call_with(), b"1"], "frames are left over"),
        ([call_with(batch=[{**TENSOR, "shape": [-1]}])], 'batch "x" has a negative extent'),
        ([call_with(batch=[{**TENSOR, "shape": [2**40, 2**40]}])], 'batch "x" is too large'),
        ([call_with(batch=[{**TENSOR, "shape": [1] * 9}])], 'batch "x" has too many dimensions'),
        ([call_with(batch=[{**TENSOR, "dtype": "int4"}])], 'batch "x" "int4" is not a tensor type'),
        ([call_with(batch=[TENSOR] * 257)], "batch holds too many tensors"),
        ([call_with(state={"bytes": -1})], "state has a negative size"),
        ([call_with(state={})], 'state has no "bytes"'),
        ([msgpack.packb({"type": "stop", "reason": "x" * (2 << 20)})], "not an envelope"),
        ([b"\x00" * (5 << 20)], "a frame is too large"),
    ],
)
def test_malformed_input_is_named_and_nothing_else_is_raised(frames, reason):
    with pytest.raises(Malformed) as caught:
        messages.decode(frames)
    assert str(caught.value).startswith(reason)


def test_random_damage_never_raises_anything_but_malformed():
    dice = random.Random(20240607)
    for _ in range(5000):
        frames = [bytearray(frame) for frame in golden.FRAMES[dice.choice(["call", "load", "attach", "stop"])]]
        for _ in range(dice.randint(1, 6)):
            frame = dice.choice(frames)
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        if dice.random() < 0.3:
            frames[0] = frames[0][: dice.randrange(len(frames[0]))]
        try:
            messages.decode([bytes(frame) for frame in frames])
        except Malformed:
            pass


def test_large_bytes_travel_in_pieces_of_a_mebibyte():
    data = bytes(2 * wire.CHUNK + 5)
    assert [len(piece) for piece in wire.chunks(data)] == [wire.CHUNK, wire.CHUNK, 5]
    assert wire.chunks(b"") == [] and wire.chunks(np.empty((0, 3))) == [] and len(wire.chunks(np.array(1.5))) == 1
    packed = call_with(state={"bytes": len(data)})
    assert messages.decode([packed, *map(bytes, wire.chunks(data))])[1]["state"] == data


def test_values_of_plugins_become_plain_ones():
    value = {"a": np.float32(0.5), "b": [np.int64(3), True, None, "x"], "c": (1, 2)}
    assert wire.to_value(value, "v") == {"a": 0.5, "b": [3, True, None, "x"], "c": [1, 2]}
    assert type(wire.to_value(np.bool_(True), "v")) is bool


@pytest.mark.parametrize(
    "value, sentence",
    [
        (object(), "v: an object cannot be sent; use numbers, strings, lists and dicts"),
        ({1: 2}, "v: the key 1 is not a string"),
        (2**63, "v: 9223372036854775808 does not fit in 64 bits"),
        ([0] * 65537, "v holds 65537 items; at most 65536 can be sent"),
    ],
)
def test_values_that_cannot_be_sent_are_refused_with_a_sentence(value, sentence):
    with pytest.raises((TypeError, ValueError)) as caught:
        wire.to_value(value, "v")
    assert str(caught.value) == sentence


def test_text_is_made_sendable():
    assert wire.clean_text("a\udcff", 10) == "a?"
    assert wire.clean_text("abcdef", 4) == "abc…"
