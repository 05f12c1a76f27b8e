"""Recorded inputs: batches of each data set's shape, parameters, and the context of each place in a run.

Everything is a function of the step, so two checks of a plugin are the same.  Pure functions.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

from bulkhead import messages, rows, samples
from bulkhead.batch import Batch

DATA = ("text", "mnist", "csv", "captions", "rows")
SAMPLES = 4  # of a micro-batch
_TOKENS, _SIDE = 32, 16
_STAGE = ("preprocess", "keep", "encode")
_OF_CAPTIONS, _OF_WEIGHTS = 4, 99  # keys of their generators
_CAPTIONS = ("an orange cat, photo, close up", "a clock on a wall, old", "", "två hästar, ängen, sommar")


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.uint64([1, sum(n << (16 * i) for i, n in enumerate(numbers))])))


def batch(data: str, number: int) -> Dict[str, np.ndarray]:
    """The arrays that a batch transform gets; `number` tells batches apart."""
    rng = _generator(DATA.index(data), number)
    ids = rng.integers(0, 65, (SAMPLES, _TOKENS + 1))
    labels = rng.integers(0, 10, SAMPLES)
    if data == "text":
        return {"input_ids": ids[:, :-1].copy(), "labels": ids[:, 1:].copy()}
    if data == "rows":
        return {"input_ids": ids[:, :-1].copy(), "labels": np.where(ids[:, 1:] % 3 == 0, rows.NOT_LEARNED, ids[:, 1:])}
    if data == "mnist":
        return {"images": rng.random((SAMPLES, 1, 28, 28), np.float32), "labels": labels}
    if data == "csv":
        return {"features": rng.standard_normal((SAMPLES, 8), np.float32), "labels": labels}
    return {"images": rng.standard_normal((SAMPLES, 3, _SIDE, _SIDE), np.float32), "input_ids": ids[:, :-1].copy()}


def sample_batch(number: int) -> Batch:
    """What sample hooks get."""
    rng = _generator(_OF_CAPTIONS, number)
    images = rng.integers(0, 256, (SAMPLES, _SIDE, _SIDE, 3)).astype(np.uint8)
    indices = [number * SAMPLES + i for i in range(SAMPLES)]
    paths = [f"/data/animals/{index}.jpg" for index in indices]
    return samples.batch_of(images, list(_CAPTIONS), paths, indices)


def row_batch(number: int) -> Batch:
    """What preprocess, keep and encode get: rows with a text, a question and messages."""
    made = []
    for index in range(number * SAMPLES, (number + 1) * SAMPLES):
        question, answer = f"What is {index} + {index}?", f"It is {2 * index}."
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        made.append({"text": f"{question} {answer}", "question": question, "answer": answer, "messages": turns})
    return rows.batch_of(made, range(number * SAMPLES, (number + 1) * SAMPLES))


def token_batch(number: int) -> Batch:
    """What collate gets: samples of unequal lengths."""
    whole = batch("rows", number)
    lengths = range(_TOKENS - SAMPLES + 1, _TOKENS + 1)
    cut = [{name: whole[name][i][:length] for name in whole} for i, length in enumerate(lengths)]
    return rows.token_batch_of(cut, range(number * SAMPLES, (number + 1) * SAMPLES))


def weights() -> Dict[str, np.ndarray]:
    rng = _generator(_OF_WEIGHTS)
    return {
        "embed.weight": rng.standard_normal((65, 16), np.float32),
        "head.weight": rng.standard_normal((65, 16), np.float32),
        "head.bias": np.zeros(65, np.float32),
    }


def wire_form(arrays: Any) -> Tuple[List[dict], List[Any]]:
    """(descriptors, bytes) of a mapping of arrays or a Batch."""
    batch_of = arrays if isinstance(arrays, Batch) else Batch()
    if batch_of is not arrays:
        batch_of.update(arrays)
    changed, _, payloads = batch_of.output()
    return changed, payloads


def context(hook: str, step: int, steps: int, length: int, micro: int = 0) -> dict:
    """The facts of a call in step `step` of a run of `steps` steps, `length` to an epoch."""
    loss = 4.0 * 0.9**step
    return {
        **messages.default_context(), "epoch": step // length, "global_step": step, "step_in_epoch": step % length,
        "epoch_length": length, "max_steps": steps, "max_epochs": -(-steps // length), "micro_batch": micro,
        "lr": 3e-4, "grad_norm": 1.0 / (step + 1),
        "metrics": {} if hook in ("on_train_start", *_STAGE) else {"loss": loss, "accuracy": 1 - loss / 8},
        "best_metric": loss if "validate" in hook and step else None, "call_id": f"check/{hook}/{step}/{micro}",
        "exception": "check: RuntimeError: the run fails" if hook == "on_exception" else "",
    }  # fmt: skip


CONFIGURATION = {
    "name": "check", "model": {"type": "gpt", "layers": 6, "heads": 6, "width": 384, "context": 256},
    "data": {"type": "text", "path": "/data", "tokenizer": "char", "batch_size": 16, "validation_fraction": 0.1},
    "optimizer": {"type": "adamw", "lr": 3e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
                  "grad_clip": 1.0},
    "schedule": {"type": "constant", "warmup_steps": 0, "min_lr": 0.0},
    "train": {"max_steps": 100, "max_epochs": 0, "precision": "fp32", "accumulate": 1, "seed": 1, "validate_every": 0,
              "log_every": 10, "deterministic": True, "device": "cpu"},
    "checkpoint": {"every": 0, "keep": 3}, "plugins": [{"use": "check", "name": "check"}],
}  # fmt: skip
