"""The data set stage and collate: rows handed to the plugin as columns, one at a time, or as token samples.

Rows travel as JSON texts, token samples as lists of numbers with their ends (protocol/README.md).  What a hook gives is
checked at once, so that its own line is in the traceback.  Pure but for the plugin's own code.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from bulkhead import samples, wire
from bulkhead.batch import Batch
from bulkhead.context import Context

NOT_LEARNED = -100  # a label that the loss leaves out
_LARGEST_ID = 2**31 - 1

Rows = List[dict]
Columns = Dict[str, list]


# ----- Rows and columns -----


def columns_of(rows: Sequence[dict]) -> Columns:
    """Every key of any row with its list of values, None where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def rows_of(columns: Any) -> Rows:
    """The other way.  TypeError or ValueError, beginning with "preprocess returned", for what is no columns."""
    if not isinstance(columns, dict):
        raise TypeError(f"preprocess returned {wire.a(type(columns))}; it must return nothing or a dict of lists")
    lists = {}
    for name, column in columns.items():
        if not isinstance(name, str):
            raise TypeError(f"preprocess returned the column {name!r:.64}; a column's name is a str")
        if isinstance(column, (str, bytes, dict)) or not hasattr(column, "__len__"):
            raise TypeError(f'preprocess returned {wire.a(type(column))} as column "{name}"; a column is a list')
        lists[name] = list(column)
    lengths = {name: len(column) for name, column in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"preprocess returned columns of different lengths: {told}")
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


def text_of(row: dict) -> str:
    """A row as it travels.  TypeError for a value that JSON does not have."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
        text.encode()
    except (TypeError, ValueError) as error:  # a lone surrogate is a ValueError as well
        raise TypeError(f"preprocess returned a row that JSON cannot carry ({error}): {row!a:.200}") from None
    return text


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays among the values."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{wire.a(type(value))} is no JSON value")


def batch_of(rows: Sequence[dict], numbers: Sequence[int]) -> Batch:
    """A chunk as the rank sends it."""
    batch = Batch()
    samples.put_texts(batch, "rows", [json.dumps(row, ensure_ascii=False) for row in rows])
    batch["sample"] = np.asarray(numbers, np.int64)
    return batch


# ----- Token samples -----


def lists_of(batch: Batch, name: str) -> List[np.ndarray]:
    """The lists of numbers under `name`, read-only.  ValueError when they do not fit together."""
    values, ends = batch[name], batch[f"{name}.ends"].tolist()
    if any(not begin <= end <= len(values) for begin, end in zip([0, *ends], ends)):
        raise ValueError(f'the lists "{name}" end where there is nothing')
    return [values[begin:end] for begin, end in zip([0, *ends], ends)]


def put_lists(batch: Batch, name: str, lists: Sequence[np.ndarray]) -> None:
    batch[name] = np.concatenate([np.zeros(0, np.int64), *lists])
    batch[f"{name}.ends"] = np.cumsum([len(one) for one in lists], dtype=np.int64)


def token_batch_of(token_samples: Sequence[dict], numbers: Sequence[int]) -> Batch:
    """A micro-batch as collate gets it."""
    batch = Batch()
    for name in ("input_ids", "labels"):
        put_lists(batch, name, [np.asarray(sample[name], np.int64) for sample in token_samples])
    batch["sample"] = np.asarray(numbers, np.int64)
    return batch


def as_tokens(given: Any) -> Tuple[np.ndarray, np.ndarray]:
    """(input_ids, labels) of what encode returned, of equal length.  TypeError or ValueError, beginning with
    "encode returned"."""
    if not isinstance(given, dict) or "input_ids" not in given:
        found = "a dict without input_ids" if isinstance(given, dict) else wire.a(type(given))
        raise TypeError(f"encode returned {found}; it must return a dict with input_ids and, at will, labels")
    unknown = [name for name in given if name not in ("input_ids", "labels")]
    if unknown:
        raise TypeError(f"encode returned {unknown[0]!r}; a sample has input_ids and labels")
    ids = _numbers(given["input_ids"], "input_ids", 0)
    labels = ids if given.get("labels") is None else _numbers(given["labels"], "labels", NOT_LEARNED)
    if len(ids) != len(labels):
        raise ValueError(f"encode returned {len(ids)} input_ids and {len(labels)} labels; there must be as many")
    return ids, labels


def _numbers(value: Any, name: str, lowest: int) -> np.ndarray:
    if type(value).__module__.split(".")[0] == "torch":
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"encode returned {name} as {_told(value, array)}; it must be a list of whole numbers")
    wrong = array[(array > _LARGEST_ID) | ((array < 0) & (array != lowest))]
    if wrong.size:
        also = f", {NOT_LEARNED} is not learned" if lowest else ""
        raise ValueError(f"encode returned {wrong[0]} among its {name}; ids are 0 or more{also}")
    return array.astype(np.int64)


def _told(value: Any, array: np.ndarray) -> str:
    if array.dtype == object or array.ndim == 0:
        return wire.a(type(value))
    return f"an array of type {array.dtype} with {array.ndim} dimension{'s' if array.ndim != 1 else ''}"


# ----- One hook over one chunk or micro-batch -----


def run(hook: str, given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> Batch:
    """What `hook` makes of what the rank sent; `seed()` before each row."""
    return {"preprocess": _preprocess, "keep": _keep, "encode": _encode, "collate": _collate}[hook](
        given, method, ctx, seed
    )


def _preprocess(given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> Batch:
    columns = columns_of([json.loads(text) for text in samples.texts_of(given, "rows")])
    seed()
    returned = method(columns, ctx)
    batch = Batch()
    samples.put_texts(batch, "rows", [text_of(row) for row in rows_of(columns if returned is None else returned)])
    return batch


def _each_row(given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> List[Any]:
    returned = []
    for number, text in zip(given["sample"].tolist(), samples.texts_of(given, "rows")):
        ctx.begin_sample(number, "")
        seed()
        returned.append(method(json.loads(text), ctx))
    return returned


def _keep(given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> Batch:
    def verdict(row: dict, ctx: Context) -> bool:
        kept = method(row, ctx)
        if not isinstance(kept, (bool, np.bool_)):
            found = "nothing" if kept is None else wire.a(type(kept))
            raise TypeError(f"keep returned {found}; it must return True or False")
        return bool(kept)

    batch = Batch()
    batch["keep"] = np.array(_each_row(given, verdict, ctx, seed), np.bool_)
    return batch


def _encode(given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> Batch:
    tokens = _each_row(given, lambda row, ctx: as_tokens(method(row, ctx)), ctx, seed)
    batch = Batch()
    put_lists(batch, "input_ids", [ids for ids, _ in tokens])
    put_lists(batch, "labels", [labels for _, labels in tokens])
    return batch


def _collate(given: Batch, method: Callable, ctx: Context, seed: Callable[[], None]) -> Batch:
    pairs = zip(lists_of(given, "input_ids"), lists_of(given, "labels"))
    seed()
    returned = method([{"input_ids": ids, "labels": labels} for ids, labels in pairs], ctx)
    if not isinstance(returned, (dict, Batch)):
        found = "nothing" if returned is None else wire.a(type(returned))
        raise TypeError(f"collate returned {found}; it must return a dict of arrays, the batch")
    batch = Batch()
    batch.update(returned)
    return batch
