"""What a reply holds, against what it may hold: a result for the table, and sentences for what is wrong.

The rules are those by which a rank takes or refuses a reply (protocol/README.md).  Pure functions.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from bulkhead import samples, wire
from bulkhead.batch import Batch
from bulkhead.hooks import COLLATE, HOOKS, ROWS, SAMPLE, TRANSFORM

Schema = Dict[str, Tuple[str, Tuple[int, ...]]]  # name → (type, shape)
_FLAGS = ("stop", "stop_epoch", "save", "validate", "log")


def schema_of(batch: Mapping[str, Any]) -> Schema:
    return {name: (wire.name_of(batch[name].dtype), tuple(batch[name].shape)) for name in batch}


def result_of(reply: dict) -> str:
    """A few words for the table."""
    control, words = reply["control"], []
    words += [flag for flag in _FLAGS if control[flag]]
    words += [f"{one['name']}={_number(one['value'])}" for one in control["settings"]]
    if HOOKS[reply["hook"]] in (TRANSFORM, SAMPLE):
        made = [*reply["batch"], *reply["pieces"]]
        changed = [tensor["name"] for tensor in made if not tensor["name"].endswith(".ends")]
        words.append(f"changes {', '.join(changed)}" if changed else "keeps the batch")
    elif HOOKS[reply["hook"]] in (ROWS, COLLATE):
        words.append(_made(reply))
    elif reply["batch"]:
        words.append(f"loads {len(reply['batch'])} weights")
    if reply["hook"] == "state_dict":
        words.append(f"{reply['state']['bytes']} bytes" if reply["has_state"] else "no state")
    return " + ".join(words) or "ok"


def problems_of(reply: dict, data: List[bytes], given: Schema, last: Schema, loadable: Schema) -> List[str]:
    """What the rank would refuse.  `given`: the input's schema; `last`: that of the last good output, or empty."""
    hook = reply["hook"]
    found = {tensor["name"]: (tensor["dtype"], tuple(tensor["shape"])) for tensor in reply["batch"]}
    if HOOKS[hook] == TRANSFORM:
        return _compare(hook, output_schema(reply, given), given, last)
    if HOOKS[hook] == SAMPLE:
        return _sample_problems(reply, data, given)
    if HOOKS[hook] == COLLATE:
        return _batch_problems(found, given["sample"][1][0])
    if HOOKS[hook] == ROWS:
        return []  # the host lets nothing else through
    problems = []
    for name, what in found.items():
        if name not in loadable:
            problems.append(f'gives weights for "{name}", which the model does not have')
        elif loadable[name] != what:
            problems.append(f'gives "{name}" as {_shown(what)}; the parameter is {_shown(loadable[name])}')
    return problems


def _made(reply: dict) -> str:
    """Of rows or token samples."""
    shapes = {tensor["name"]: tensor["shape"] for tensor in reply["batch"]}
    if reply["hook"] == "collate":
        return f"makes {', '.join(shapes) or 'nothing'}"
    if reply["hook"] == "keep":
        return f"judges {shapes['keep'][0]} rows"
    return f"{shapes['rows.ends'][0]} rows" if reply["hook"] == "preprocess" else f"{shapes['labels.ends'][0]} samples"


def _batch_problems(found: Schema, count: int) -> List[str]:
    problems = [f'gives no "{name}"' for name in ("input_ids", "labels") if name not in found]
    if problems:
        return problems
    ids, labels = found["input_ids"], found["labels"]
    for name, what in (("input_ids", ids), ("labels", labels)):
        if what[0] != "int64" or len(what[1]) != 2:
            problems.append(f'gives "{name}" as {_shown(what)}; it must be int64 [N,T]')
    if not problems and (ids[1] != labels[1] or ids[1][0] != count):
        problems.append(f"gives {_shown(ids)} and labels {_shown(labels)} for {count} samples")
    return problems


def output_schema(reply: dict, given: Schema) -> Schema:
    """Of the batch that the reply puts together."""
    kept = {name: given[name] for name in reply["kept"] if name in given}
    made = [*reply["batch"], *reply["pieces"]]
    return {**kept, **{tensor["name"]: (tensor["dtype"], tuple(tensor["shape"])) for tensor in made}}


def not_finite(reply: dict, data: List[bytes]) -> List[str]:
    """Names of the changed tensors that hold NaN or Inf."""
    names = []
    for tensor, piece in zip(reply["batch"], data):
        kind = wire.DTYPES[tensor["dtype"]]
        if kind.kind == "f" and not np.isfinite(np.frombuffer(piece, kind)).all():
            names.append(tensor["name"])
    return names


def _compare(hook: str, output: Schema, given: Schema, last: Schema) -> List[str]:
    problems = [f'takes "{name}" out of the batch' for name in given if name not in output]
    problems += [f'adds "{name}" to the batch, which had no such tensor' for name in output if name not in given]
    for name in output:
        if name not in given:
            continue
        if output[name][0] != given[name][0]:
            problems.append(f'makes "{name}" {output[name][0]}; it must stay {given[name][0]}')
        elif last and output[name] != last[name]:
            problems.append(f'gives "{name}" as {_shown(output[name])}; the batch before had {_shown(last[name])}')
    return problems


def _sample_problems(reply: dict, data: List[bytes], given: Schema) -> List[str]:
    problems = []
    pieces = {tensor["name"]: (tensor, piece) for tensor, piece in zip(reply["batch"], data)}
    for name in pieces:
        if name not in ("images", "captions", "captions.ends"):
            problems.append(f'changes "{name}"; of a sample only image and caption can change')
    for name in given:
        if name not in pieces and name not in reply["kept"]:
            problems.append(f'takes "{name}" out of the batch')
    images = output_schema(reply, given).get("images")
    if images is not None and images != given["images"]:
        problems.append(f"gives images as {_shown(images)}; they were {_shown(given['images'])}")
    if "captions" in pieces and "captions.ends" in pieces:
        problems += _caption_problems(pieces, given["captions.ends"][1][0])
    return problems


def _caption_problems(pieces: Dict[str, Tuple[dict, bytes]], count: int) -> List[str]:
    batch = Batch([
        (name, pieces[name][0]["dtype"], tuple(pieces[name][0]["shape"]), pieces[name][1])
        for name in ("captions", "captions.ends")
    ])  # fmt: skip
    try:
        ends = batch["captions.ends"]
        if ends.shape != (count,):
            return [f"gives {ends.size} captions for {count} samples"]
        samples.texts_of(batch, "captions")
        batch["captions"].tobytes().decode()
    except UnicodeDecodeError:
        return ["gives a caption that is not valid UTF-8"]
    except ValueError as error:
        return [f"gives captions of which {error}"]
    return []


def _shown(what: Tuple[str, Tuple[int, ...]]) -> str:
    return f"{what[0]} {list(what[1])}"


def _number(value: Any) -> str:
    return "schedule" if value is None else f"{value:g}"
