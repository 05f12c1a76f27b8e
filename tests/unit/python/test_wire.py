"""The codec against the recorded bytes of every message, and against malformed input."""

import random
import struct

import golden
import msgpack
import numpy as np
import pytest

from bulkhead import messages, wire
from bulkhead.wire import Malformed


READ = ("answer", "attach", "call", "configure", "load", "memory_news", "refuse", "stop", "welcome")  # by a host
WRITTEN = ("ask", "configured", "heartbeat", "hello", "load_failed", "loaded", "memory_news", "note", "progress", "reply")
NOT_READ = {  # what only the coordinator needs of a plugin's entry in the run file
    f"load.config.{name}"
    for name in ("scope", "prefetch", "deadline_seconds", "deadline_given", "on_failure", "on_poison", "check_finite",
                 "limits", "affinity", "transport", "standby", "python")
}  # fmt: skip


def envelope_of(name):
    return wire.unpack(golden.FRAMES[name])


def sizes_in(value):
    """Of the tensors and states that an envelope names, in order."""
    if type(value) is dict and value.keys() == {"name", "dtype", "shape"}:
        return [wire.tensor_size(value["dtype"], value["shape"])]
    if type(value) is dict and value.keys() == {"bytes"}:
        return [value["bytes"]]
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    return [size for item in items for size in sizes_in(item)]


def payloads_of(name):
    """The bytes after the envelope, cut as its tensors and its states say."""
    rest = wire.Bytes(golden.FRAMES[name])
    payloads = [rest.take(size) for size in sizes_in(envelope_of(name))]
    rest.finish()
    return payloads


def sent(envelope, payloads=()):
    return [bytes(frame) for frame in messages.frames_of(envelope, payloads)]


def test_every_message_of_a_host_has_recorded_bytes():
    assert set(READ) | set(WRITTEN) <= set(golden.FRAMES)


@pytest.mark.parametrize("name", sorted(golden.FRAMES))
def test_recorded_bytes_survive_decoding_and_encoding(name):
    assert envelope_of(name)["type"] == name
    assert sent(envelope_of(name), payloads_of(name)) == golden.FRAMES[name]


def differences(path, read, recorded):
    """Paths of the recorded fields that were not read as they were recorded; each of them differs from its
    default, so that one that was not read shows."""
    if type(recorded) is dict and type(read) is dict and not read.keys() - recorded.keys():
        return set().union(*(differences(f"{path}.{key}", read.get(key), recorded[key]) for key in recorded))
    return set() if type(read) is type(recorded) and read == recorded else {path}


@pytest.mark.parametrize("name", READ)
def test_reads_every_field_that_cpp_writes(name):
    kind, fields = messages.decode(golden.FRAMES[name])
    assert kind == name
    expected = envelope_of(name)
    assert expected.pop("type") == name
    for key in {"call": ("batch", "state"), "answer": ("batch",)}.get(name, ()):  # those have bytes: below
        del fields[key], expected[key]
    assert differences(name, fields, expected) == (NOT_READ if name == "load" else set())


@pytest.mark.parametrize("name", ["call", "answer"])
def test_reads_the_bytes_of_a_message(name):
    _, fields = messages.decode(golden.FRAMES[name])
    arrays = {
        name: np.frombuffer(data, wire.DTYPES[dtype]).reshape(shape) for name, dtype, shape, data in fields["batch"]
    }
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "input_ids": ("int64", [[1, 2]]), "weight": ("float32", 1.0), "none": ("bool", [])}  # fmt: skip
    assert arrays["none"].shape == (0, 4)
    assert fields.get("state") == (b"bytes of state" if name == "call" else None)


# What this package always says the same way, where the recorded message has every field set.
FIXED = {"hello": ("version_min", "version_max", "role", "capabilities"), "heartbeat": ("step",)}


def built(name):
    """The recorded message as the package builds it, of the values that its functions take, and its payloads."""
    e = envelope_of(name)
    arrays = [np.array([[1, 2]]), np.float32(1.0), np.empty((0, 4), dtype=bool)]
    tensors = [messages.tensor(key, array.dtype.name, array.shape)
               for key, array in zip(("input_ids", "weight", "none"), arrays)]  # fmt: skip
    state = b"bytes of state"
    build = {
        "hello": lambda: messages.hello(e["generation"], e["rank"], e["plugin"], e["pid"], e["secret"]),
        "ask": lambda: messages.ask(e["generation"], e["seq"], e["number"], e["what"], tensors),
        "configured": lambda: messages.configured(e["generation"], e["changes"], e["failure"]),
        "heartbeat": lambda: messages.heartbeat(e["generation"]),
        "loaded": lambda: messages.loaded(e["generation"], e["traits"]),
        "load_failed": lambda: messages.load_failed(e["generation"], e["stage"], e["key"], e["failure"]),
        "progress": lambda: messages.progress(e["generation"], e["seq"], e["detail"]),
        "note": lambda: messages.note(e["generation"], e["seq"], e["text"], e["metrics"]),
        "reply": lambda: messages.reply(e["generation"], e["seq"], e["hook"], e["seconds"], failure=e["failure"],
                                        fatal=e["fatal"], asked=messages.control(e["control"]), batch=tensors,
                                        kept=e["kept"], state=state, held=e["held"],
                                        pieces=[messages.piece(**piece) for piece in e["pieces"]],
                                        in_region=[messages.piece(**piece) for piece in e["in_region"]]),
        "memory_news": lambda: messages.memory_news(e["generation"], e["unused"], e["gone"]),
    }  # fmt: skip
    message = build[name]()
    message.update({key: e[key] for key in FIXED.get(name, ())})
    return message, {"reply": [*arrays, state], "ask": arrays}.get(name, [])


@pytest.mark.parametrize("name", WRITTEN)
def test_builds_the_bytes_that_cpp_writes(name):
    assert sent(*built(name)) == golden.FRAMES[name]


def test_what_a_reply_does_not_have_is_nil_empty_or_false():
    envelope = wire.unpack(sent(messages.reply(4, 300, "setup", 0.5)))
    assert (envelope["failure"], envelope["batch"], envelope["kept"]) == (None, [], [])
    assert (envelope["state"], envelope["has_state"]) == ({"bytes": 0}, False)
    assert not any(envelope["control"].values())


@pytest.mark.parametrize("number", [1.0, -0.0, 1e19, float("inf"), 5e-324])
def test_a_float_is_eight_bytes_and_keeps_them(number):
    recorded = b"\xcb" + struct.pack(">d", number)
    assert recorded in sent(messages.note(4, 1, "t", {"a": number}))[0]
    _, call = messages.decode([call_with(context={"lr": number})])
    assert struct.pack(">d", call["context"]["lr"]) == recorded[1:]


def test_a_whole_number_is_read_where_a_float_belongs():
    _, call = messages.decode([call_with(context={"lr": 1, "metrics": {"a": -2}})])
    context = call["context"]
    assert (context["lr"], context["metrics"]) == (1.0, {"a": -2.0})
    assert type(context["lr"]) is float and type(context["metrics"]["a"]) is float


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
        ([call_with(batch=[TENSOR] * 4097)], "batch holds too many tensors"),
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
        frames = [bytearray(frame) for frame in golden.FRAMES[dice.choice(READ)]]
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
