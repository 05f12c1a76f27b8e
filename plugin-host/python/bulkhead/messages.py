"""The messages of a host's life: what it reads (checked against a schema) and what it writes.

Mirrors protocol/messages.h: same names, order, types and defaults.  A message is a dict of its fields.  Pure
functions.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from bulkhead import wire
from bulkhead.memory import Memory
from bulkhead.wire import Malformed

MAGIC = "bulkhead"
VERSION = 1  # the only one this package speaks

Reader = Callable[[Any], Any]
_ABSENT = object()


# ----- Readers: a msgpack value → the field's value, or Malformed -----


def _int(value: Any) -> int:
    if type(value) is not int or value >= 2**63:  # msgpack has nothing below -2**63
        raise Malformed("must be a 64-bit signed integer")
    return value


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:  # a peer may shorten a whole number
        return float(value)
    raise Malformed("must be a number")


def _exactly(kind: type, name: str) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise Malformed(f"must be {name}")
        return value

    return read


_bool = _exactly(bool, "a boolean")
_str = _exactly(str, "a string")
_object = _exactly(dict, "a map")


def _any(value: Any) -> Any:
    return value


def _optional(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _list_of(reader: Reader) -> Reader:
    def read(value: Any) -> list:
        if type(value) is not list:
            raise Malformed("must be an array")
        return [reader(item) for item in value]

    return read


def _map_of(reader: Reader) -> Reader:
    def read(value: Any) -> dict:
        if type(value) is not dict:
            raise Malformed("must be a map")
        return {key: reader(item) for key, item in value.items()}

    return read


_EXACT = {_int: int, _float: float, _bool: bool, _str: str, _object: dict}  # whose reader checks the type alone


def _struct(**fields: Tuple[Reader, Any]) -> Reader:
    """Known fields only, in order; an absent one keeps its default: an older peer does not know it."""
    table = tuple((name, reader, default) for name, (reader, default) in fields.items())
    names = tuple(fields)
    exact = tuple(name for name, reader, _ in table if reader in _EXACT)
    types = tuple(_EXACT[reader] for _, reader, _ in table if reader in _EXACT)
    integers = tuple(name for name, reader, _ in table if reader is _int)
    others = tuple((name, reader) for name, reader, _ in table if reader not in _EXACT)

    def read(value: Any) -> dict:
        if type(value) is not dict:
            raise Malformed("must be a map")
        if tuple(value) == names and _as_they_should_be(value):
            for name, reader in others:
                found = value[name]
                try:
                    value[name] = reader(found)
                except Malformed as error:
                    raise Malformed(f"{name} {error}") from None
            return value
        out: Dict[str, Any] = {}
        for name, reader, default in table:
            found = value.get(name, _ABSENT)
            if found is _ABSENT:
                out[name] = default() if callable(default) else default
                continue
            try:
                out[name] = reader(found)
            except Malformed as error:
                raise Malformed(f"{name} {error}") from None
        return out

    def _as_they_should_be(value: dict) -> bool:
        """Whether each field that needs only a look at its type has it: what a peer of this version sends."""
        if tuple([type(value[name]) for name in exact]) != types:
            return False
        return not integers or max([value[name] for name in integers]) < 2**63

    return read


_place = _struct(segment=(_int, 0), offset=(_int, 0))

_tensor = _struct(
    name=(_str, ""), dtype=(_str, ""), shape=(_list_of(_int), list), place=(_optional(_place), None),
    strides=(_optional(_list_of(_int)), None),
)  # fmt: skip


def _batch(value: Any) -> list:
    if type(value) is list and len(value) > wire.MAX_TENSORS:
        raise Malformed("holds too many tensors")
    return _list_of(_tensor)(value)


def _state(value: Any) -> int:
    """Its size in bytes."""
    if type(value) is not dict or "bytes" not in value:
        raise Malformed('has no "bytes"')
    size = _int(value["bytes"])
    if size < 0:
        raise Malformed("has a negative size")
    return size


# ----- What a host reads -----

_facts = _struct(
    rank=(_int, 0), local_rank=(_int, 0), node_rank=(_int, 0), world_size=(_int, 1), local_world_size=(_int, 1),
    is_distributed=(_bool, False), is_main=(_bool, True), device=(_str, "cpu"), map_loc=(_map_of(_str), dict),
    scope=(_str, "rank"), project=(_str, ""), run_dir=(_str, ""), run_seed=(_int, 1), plugin=(_str, ""),
)  # fmt: skip

# Of the run file's entry a host uses only what finds and constructs the class.
_config = _struct(
    use=(_str, ""), name=(_str, ""), **{"with": (_object, dict)}, language=(_str, ""), file=(_str, ""),
    module=(_str, ""), class_name=(_str, ""), device=(_str, "cpu"),
    spin_us=(_int, 0),
)  # fmt: skip

_piece = _struct(
    name=(_str, ""), of=(_str, ""), offset=(_int, 0), dtype=(_str, ""), shape=(_list_of(_int), list),
    strides=(_list_of(_int), list),
)  # fmt: skip

_region = _struct(
    segment=(_int, 0), bytes=(_int, 0), memory=(_str, ""), ready=(_str, ""), tensors=(_list_of(_piece), list),
)  # fmt: skip

_context = _struct(
    epoch=(_int, 0), global_step=(_int, 0), step_in_epoch=(_int, 0), epoch_length=(_int, 0), max_steps=(_int, 0),
    max_epochs=(_int, 0), micro_batch=(_int, 0), lr=(_float, 0.0), grad_norm=(_float, 0.0),
    metrics=(_map_of(_float), dict), best_metric=(_optional(_float), None), call_id=(_str, ""),
    replaying=(_bool, False), exception=(_str, ""), rank=(_optional(_int), None), local_rank=(_optional(_int), None),
    device=(_str, ""),
)  # fmt: skip

_failure = _struct(type=(_str, ""), message=(_str, ""), traceback=(_str, ""))

_READERS: Dict[str, Reader] = {
    "welcome": _struct(generation=(_int, 0), version=(_int, VERSION), capabilities=(_list_of(_str), list)),
    "refuse": _struct(generation=(_int, 0), reason=(_str, "")),
    "load": _struct(generation=(_int, 0), config=(_config, lambda: _config({})), facts=(_facts, lambda: _facts({}))),
    "configure": _struct(generation=(_int, 0), config=(_any, None)),
    "attach": _struct(generation=(_int, 0), endpoint=(_str, ""), worker_generation=(_int, 0)),
    "call": _struct(
        generation=(_int, 0), seq=(_int, 0), hook=(_str, ""), deadline_ms=(_int, 0), seed_rank=(_int, 0),
        context=(_context, lambda: _context({})), batch=(_batch, list), state=(_state, 0),
        writable=(_list_of(_str), list), region=(_optional(_region), None),
    ),
    "answer": _struct(
        generation=(_int, 0), seq=(_int, 0), number=(_int, 0), failure=(_optional(_failure), None),
        batch=(_batch, list),
    ),
    "memory_news": _struct(generation=(_int, 0), unused=(_list_of(_place), list), gone=(_list_of(_int), list)),
    "stop": _struct(generation=(_int, 0), reason=(_str, "")),
}  # fmt: skip


def default_facts() -> dict:
    return _facts({})


def default_context() -> dict:
    return _context({})


def decode(frames: Sequence[bytes], memory: Optional[Memory] = None) -> Tuple[str, dict]:
    """(type, fields).  A batch (of a call, of an answer) is [(name, dtype, shape, data)], a call's state bytes.

    `data` is bytes, or a view of `memory` where the tensor lies there; behind it come strides, in elements, where the
    tensor is not dense.

    Fields are empty but for the generation when the type is none that a host reads.  Malformed when the message
    breaks the protocol.
    """
    envelope = wire.unpack(frames)
    kind = envelope.pop("type")
    reader = _READERS.get(kind)
    if reader is None:
        return kind, {"generation": _int(envelope.get("generation", 0))}
    fields = reader(envelope)
    if kind in ("call", "answer"):
        _take_bytes(fields, frames, memory)
    elif len(frames) > 1:
        raise Malformed("frames are left over")
    return kind, fields


def _take_bytes(fields: dict, frames: Sequence[bytes], memory: Optional[Memory]) -> None:
    size = fields.pop("state", None)  # a call's
    if len(frames) == 1 and not fields["batch"] and not size:
        if size is not None:
            fields["state"] = b""
        return
    rest = wire.Bytes(frames)
    tensors = []
    for tensor in fields["batch"]:
        name, dtype, shape = tensor["name"], tensor["dtype"], tensor["shape"]
        try:
            size_here = wire.tensor_size(dtype, shape)
            if tensor["place"] is None:
                data = rest.take(size_here)
            elif memory is None:
                raise Malformed("names shared memory, of which there is none here")
            else:
                place, strides = tensor["place"], tensor["strides"]
                if strides is not None:
                    size_here = wire.span(dtype, shape, strides)
                data = memory.find((place["segment"], place["offset"]), size_here, wire.DTYPES[dtype].itemsize)
                if strides is not None and size_here > 0:
                    tensors.append((name, dtype, tuple(shape), data, tuple(strides)))
                    continue
            tensors.append((name, dtype, tuple(shape), data))
        except Malformed as error:
            raise Malformed(f'batch "{name[:64]}" {error}') from None
    fields["batch"] = tensors
    if size is not None:
        fields["state"] = rest.take(size)
    rest.finish()


# ----- What a host writes -----


def hello(generation: int, rank: int, plugin: int, pid: int, secret: str, capabilities: Sequence[str] = ()) -> dict:
    return {
        "type": "hello", "generation": generation, "magic": MAGIC, "version_min": VERSION, "version_max": VERSION,
        "role": "host", "rank": rank, "plugin": plugin, "pid": pid, "secret": secret,
        "capabilities": list(capabilities),
    }  # fmt: skip


def loaded(generation: int, traits: dict) -> dict:
    return {"type": "loaded", "generation": generation, "traits": traits}


def load_failed(generation: int, stage: str, key: str, failure: dict) -> dict:
    return {"type": "load_failed", "generation": generation, "stage": stage, "key": key, "failure": failure}


def configured(generation: int, changes: dict, failure: Optional[dict]) -> dict:
    return {"type": "configured", "generation": generation, "changes": changes, "failure": failure}


def heartbeat(generation: int) -> dict:
    return {"type": "heartbeat", "generation": generation, "step": 0}


def progress(generation: int, seq: int, detail: Any) -> dict:
    return {"type": "progress", "generation": generation, "seq": seq, "detail": detail}


def note(generation: int, seq: int, text: str, metrics: dict) -> dict:
    return {"type": "note", "generation": generation, "seq": seq, "text": text, "metrics": metrics}


def ask(generation: int, seq: int, number: int, what: str, batch: Sequence[dict]) -> dict:
    """The bytes of `batch` are the caller's to send after it."""
    return {"type": "ask", "generation": generation, "seq": seq, "number": number, "what": what, "batch": list(batch)}


def setting(name: str, value: Optional[float]) -> dict:
    """The worker fills in who said so."""
    return {"name": name, "value": None if value is None else float(value), "plugin": 0, "rank": 0}


def control(asked: Dict[str, Any]) -> dict:
    get = asked.get
    return {
        "stop": get("stop", False), "stop_epoch": get("stop_epoch", False), "save": get("save", False),
        "validate": get("validate", False), "log": get("log", False), "reason": get("reason", ""),
        "settings": list(get("settings", ())),
    }  # fmt: skip


NO_CONTROL = control({})


def reply(
    generation: int,
    seq: int,
    hook: str,
    seconds: float,
    *,
    failure: Optional[dict] = None,
    fatal: bool = False,
    asked: dict = NO_CONTROL,
    batch: Sequence[dict] = (),
    kept: Sequence[str] = (),
    state: Optional[bytes] = None,
    held: Sequence[dict] = (),
    pieces: Sequence[dict] = (),
    in_region: Sequence[dict] = (),
) -> dict:
    """Its bytes (those of `batch`, then the state) are the caller's to send after it."""
    return {
        "type": "reply", "generation": generation, "seq": seq, "hook": hook, "failure": failure, "fatal": fatal,
        "control": asked, "batch": list(batch), "kept": list(kept),
        "state": {"bytes": len(state) if state is not None else 0},
        "has_state": state is not None, "seconds": seconds, "held": list(held),
        "pieces": list(pieces), "in_region": list(in_region),
    }  # fmt: skip


def memory_news(generation: int, unused: Sequence[dict], gone: Sequence[int]) -> dict:
    return {"type": "memory_news", "generation": generation, "unused": list(unused), "gone": list(gone)}


def place(segment: int, offset: int) -> dict:
    return {"segment": segment, "offset": offset}


def tensor(name: str, dtype: str, shape: Sequence[int], place: Optional[dict] = None) -> dict:
    found = {"name": name, "dtype": dtype, "shape": list(shape)}
    if place is not None:
        found["place"] = place
    return found


def piece(name: str, of: str, offset: int, dtype: str, shape: Sequence[int], strides: Sequence[int]) -> dict:
    """A tensor that is a piece of the input `of`, or lies in the region; `offset` in bytes, strides in elements."""
    return {
        "name": name, "of": of, "offset": offset, "dtype": dtype, "shape": list(shape), "strides": list(strides),
    }  # fmt: skip


def frames_of(envelope: dict, payloads: Sequence[Any] = ()) -> List[Any]:
    """The message as it is sent: the envelope, then each payload in pieces."""
    frames: List[Any] = [wire.pack(envelope)]
    for payload in payloads:
        frames.extend(wire.chunks(payload))
    return frames
