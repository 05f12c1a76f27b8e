"""Tests of a plugin without a run: ``run_hook(plugin, "on_step_end", metrics={"loss": 1.0}, global_step=3)``.

The hook runs behind the very code that the host answers calls with: seeded, checked, its values carried as on the wire.
Only the rank is missing, whose answers to ``ctx.all_gather`` and ``ctx.weights`` are given.

    from bulkhead.testing import load, run_hook

    def test_it_stops_at_a_high_loss():
        plugin = load("guard.py:Guard", limit=2.0)
        result = run_hook(plugin, "on_step_end", metrics={"loss": 3.0}, global_step=7)
        assert result.control.stop and result.control.reason == "the loss is 3"

random, numpy's global generator and ``bulkhead.facts()`` are put back afterwards.  For one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Type, Union

import numpy as np

from bulkhead import context as context_module
from bulkhead import loader, messages, samples, state, wire
from bulkhead import rows as row_module
from bulkhead.batch import Batch
from bulkhead.context import Facts
from bulkhead.hooks import COLLATE, HOOKS, ROWS, SAMPLE, STATE, TRANSFORM, did_you_mean
from bulkhead.lone_rank import Gather, LoneRank, tensors_of
from bulkhead.pieces import array_of
from bulkhead.plugin import Plugin
from bulkhead.rng import GlobalSeeds, call_key


@dataclass
class Asked:
    """What a hook asked of the run: ``ctx.control`` and ``ctx.set``."""

    stop: bool = False
    stop_epoch: bool = False
    save: bool = False
    validate: bool = False
    log: bool = False
    reason: str = ""
    settings: Dict[str, Optional[float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it asked for anything."""
        return self != Asked()


@dataclass
class HookResult:
    """What came of one call."""

    hook: str
    control: Asked = field(default_factory=Asked)
    logs: List[str] = field(default_factory=list)
    """Lines of ctx.log."""
    metrics: Dict[str, float] = field(default_factory=dict)
    """Of ctx.log_metrics, a later value over an earlier one."""
    progress: List[Any] = field(default_factory=list)
    """Details of ctx.progress."""
    batch: Dict[str, np.ndarray] = field(default_factory=dict)
    """Transforms and collate: every tensor as it came out, bfloat16 as uint16."""
    changed: List[str] = field(default_factory=list)
    """Transforms: names of the tensors that the plugin changed or added."""
    value: Any = None
    """transform_caption: the text; transform_image: the array; transform_sample: {"image", "caption"}; a list of these
    where lists were given.  preprocess: the columns; keep: the verdict; encode: {"input_ids", "labels"}; again a list
    for a list.  state_dict: the state as load_state_dict gets it.  configure: the changes."""
    weights: Dict[str, np.ndarray] = field(default_factory=dict)
    """Of ctx.load_weights."""
    failure: Optional[dict] = None
    """{type, message, traceback} when it raised and run_hook was told not to."""
    fatal: bool = False
    """… an exception of the class's `raises`."""


def load(plugin: Union[str, Type[Plugin]], /, *, facts: Optional[Mapping[str, Any]] = None, **given: Any) -> Plugin:
    """A plugin constructed as the host does it: checked, its arguments fitted, seeded.

    `plugin`: a class, or as in the run file: "file.py", "file.py:Class", "folder:Class".  `given`: its arguments.
    `facts`: what ``bulkhead.facts()`` shall say in the constructor, e.g. {"rank": 1}.  bulkhead.loader.Refusal, one
    sentence, when the host would refuse it.
    """
    known = _facts(facts or {})
    with _borrowed_globals(known):
        if isinstance(plugin, str):
            file, _, name = plugin.partition(":")
            config = {"file": os.path.abspath(file), "module": "", "class_name": name, "with": given}
            cls = loader.find_class(config)
        else:
            cls, config = plugin, {"with": given}
        if cls.seeded:
            GlobalSeeds().seed(call_key(known.run_seed, known.plugin, known.rank, "__init__", 0, 0))
        return loader.construct(cls, config, known.scope).plugin


def run_hook(
    plugin: Plugin,
    hook: str,
    /,
    *,
    batch: Optional[Mapping[str, Any]] = None,
    image: Any = None,
    caption: Any = None,
    path: Any = "image.jpg",
    sample: Any = 0,
    rows: Any = None,
    config: Optional[dict] = None,
    state: Any = None,
    gather: Optional[Gather] = None,
    weights: Optional[Mapping[str, Any]] = None,
    raise_errors: bool = True,
    **about: Any,
) -> HookResult:
    """Calls one hook of `plugin`, an instance, and says what came of it.

    `batch`         transform_*_batch: name → array
    `image`, `caption`, `path`, `sample`   sample hooks: one sample, or lists of equal length for a micro-batch
    `rows`          preprocess: columns, name → list; keep, encode: a row or a list of rows, `sample` is the (first)
                    number; collate: a list of samples, {"input_ids", "labels"} each
    `config`        configure: the run's map; `state`: load_state_dict: what state_dict gave
    `gather`        what ctx.all_gather gives: the values of all ranks (this rank's own is put in its place), or a
                    function from this rank's value to the list.  Without it every rank gives what this one does
    `weights`       what ctx.weights gives: name → array
    `raise_errors`  False: an exception of the hook is `result.failure` instead of being raised here
    `about`         facts of the process (rank, world_size, scope, run_dir, run_seed, plugin, …) and of the call
                    (global_step, epoch, metrics, lr, micro_batch, best_metric, exception, replaying, …)

    TypeError for a name that is none of these; bulkhead.loader.Refusal when the host would refuse the class.
    """
    if hook not in HOOKS:
        raise ValueError(f'there is no hook "{hook}"{did_you_mean(hook, HOOKS)}')
    facts, call_context = _split(about)
    if isinstance(gather, Sequence) and "world_size" not in about:
        facts["world_size"] = len(gather)
    known = _facts(facts)
    call = {
        "seq": 1, "hook": hook, "seed_rank": known.rank, "context": call_context, "batch": [], "state": b"",
    }  # fmt: skip
    many = _put_inputs(call, hook, batch, image, caption, path, sample, state)
    if HOOKS[hook] in (ROWS, COLLATE):
        blank = [] if hook == "collate" else {}
        many = _put_rows(call, hook, blank if rows is None else rows, sample)
    with _borrowed_globals(known):
        rank = LoneRank(plugin, known, gather, weights)
        rank.call(call, config)
    if rank.error is not None and raise_errors:
        raise rank.error
    return _result(hook, call, rank, many)


# ----- Facts and inputs -----


def _split(about: Dict[str, Any]) -> tuple:
    """(facts of the process, context of the call)."""
    call, known = messages.default_context(), messages.default_facts()
    facts = {}
    for name, value in about.items():
        if name in known:
            facts[name] = value
        elif name in call:
            call[name] = value
        else:
            raise TypeError(f'run_hook has no argument "{name}"{did_you_mean(name, [*known, *call])}')
    call["metrics"] = {name: float(value) for name, value in call["metrics"].items()}
    return facts, call


def _facts(given: Mapping[str, Any]) -> Facts:
    facts = {"plugin": "plugin", "run_dir": os.getcwd(), **given}
    facts.setdefault("is_main", facts.get("rank", 0) == 0)
    facts.setdefault("world_size", facts.get("rank", 0) + 1)
    facts.setdefault("is_distributed", facts["world_size"] > 1)
    return Facts(1, **facts)


def _put_inputs(
    call: dict, hook: str, batch: Any, image: Any, caption: Any, path: Any, sample: Any, carried: Any
) -> bool:
    """Fills in the call; True when lists of samples were given."""
    if hook == "load_state_dict":
        call["state"] = state.pack(carried)
    if HOOKS[hook] == TRANSFORM:
        call["batch"] = tensors_of({} if batch is None else batch)
    if HOOKS[hook] != SAMPLE:
        return False
    many = isinstance(caption, (list, tuple)) or isinstance(image, (list, tuple))
    listed = {"image": image, "caption": caption, "path": path, "sample": sample}
    count = max(len(value) if isinstance(value, (list, tuple)) else 1 for value in listed.values())
    numbers = list(range(sample, sample + count)) if isinstance(sample, int) else list(sample)
    images, captions, paths = (
        list(listed[name]) if isinstance(listed[name], (list, tuple)) else [listed[name]] * count
        for name in ("image", "caption", "path")
    )
    blank = np.zeros((4, 4, 3), np.uint8)
    stacked = np.stack([blank if one is None else np.asarray(one) for one in images])
    texts = ["" if one is None else one for one in captions]
    call["batch"] = tensors_of(samples.batch_of(stacked, texts, [str(one) for one in paths], numbers))
    return many


def _put_rows(call: dict, hook: str, given: Any, first: int) -> bool:
    """Fills in the call; True when a list was given."""
    many = isinstance(given, (list, tuple))
    listed = row_module.rows_of(given) if hook == "preprocess" else list(given) if many else [given]
    numbers = range(first, first + len(listed))
    make = row_module.token_batch_of if hook == "collate" else row_module.batch_of
    call["batch"] = tensors_of(make(listed, numbers))
    return many


@contextlib.contextmanager
def _borrowed_globals(known: Facts) -> Iterator[None]:
    """The host seeds global generators and has facts; a test process gets its own back."""
    bits, numpy_state = np.random.get_bit_generator(), np.random.get_state(legacy=False)
    python_state = random.getstate()
    facts_before = context_module.known_facts()
    context_module.set_facts(known)
    try:
        yield
    finally:
        context_module.set_facts(facts_before)
        np.random.set_bit_generator(bits)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


# ----- What came of it -----


def _result(hook: str, call: dict, rank: LoneRank, many: bool) -> HookResult:
    reply, result = rank.reply, HookResult(hook)
    result.failure, result.fatal = reply["failure"], reply.get("fatal", False)
    for message in rank.sent:
        if message["type"] == "progress":
            result.progress.append(message["detail"])
        elif message["text"]:
            result.logs.append(message["text"])
        else:
            result.metrics.update(message["metrics"])
    if hook == "configure":
        result.value = reply["changes"]
        return result
    asked = dict(reply["control"])
    asked["settings"] = {setting["name"]: setting["value"] for setting in asked["settings"]}
    result.control = Asked(**asked)
    if HOOKS[hook] == STATE:
        result.value = state.unpack(rank.bytes[0]) if reply["has_state"] else None
        return result
    changed = {
        tensor["name"]: np.frombuffer(data, wire.DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for tensor, data in zip(reply["batch"], rank.bytes)
    }
    if HOOKS[hook] not in (TRANSFORM, SAMPLE, ROWS, COLLATE):
        result.weights = changed
        return result
    if HOOKS[hook] == ROWS and result.failure is None:
        result.value = _made_of_rows(hook, changed, many)
    elif result.failure is None:
        given = Batch(call["batch"])
        for piece in reply["pieces"]:
            changed[piece["name"]] = array_of(piece, given[piece["of"]])
        result.changed = list(changed)
        result.batch = {**{name: given[name] for name in reply["kept"]}, **changed}
        result.value = _samples(hook, result.batch, many) if HOOKS[hook] == SAMPLE else None
    return result


def _samples(hook: str, arrays: Dict[str, np.ndarray], many: bool) -> Any:
    batch = Batch(tensors_of(arrays))
    images, captions = list(batch["images"]), samples.texts_of(batch, "captions")
    values = {
        "transform_image": images,
        "transform_caption": captions,
        "transform_sample": [{"image": i, "caption": c} for i, c in zip(images, captions)],
    }[hook]
    return values if many else values[0]


def _made_of_rows(hook: str, arrays: Dict[str, np.ndarray], many: bool) -> Any:
    batch = Batch(tensors_of(arrays))
    if hook == "preprocess":
        return row_module.columns_of([json.loads(text) for text in samples.texts_of(batch, "rows")])
    if hook == "keep":
        values = batch["keep"].tolist()
    else:
        pairs = zip(row_module.lists_of(batch, "input_ids"), row_module.lists_of(batch, "labels"))
        values = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in pairs]
    return values if many else values[0]
