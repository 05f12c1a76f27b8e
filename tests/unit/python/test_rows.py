"""The data set stage and collate: rows as columns, one at a time, as tokens; seeds, what may come back, refusals."""

import random

import numpy as np
import pytest
from conftest import table

from bulkhead import Plugin, rows
from bulkhead.batch import Batch
from bulkhead.rng import Rng, sample_key
from bulkhead.testing import run_hook


def of(**methods):
    """An instance of a plugin with these hooks."""
    return type("P", (Plugin,), methods)()


def columns_made(give, columns, **about):
    return run_hook(of(preprocess=lambda self, rows, ctx: give(rows, ctx)), "preprocess", rows=columns, **about).value


# ----- preprocess -----


def test_columns_may_change_in_place_or_be_new_and_so_may_the_number_of_rows():
    def in_place(columns, ctx):
        columns["text"] = [text.upper() for text in columns["text"]]

    assert columns_made(in_place, {"text": ["a", "é"], "n": [1, None]}) == {"text": ["A", "É"], "n": [1, None]}
    twice = columns_made(lambda columns, ctx: {"t": columns["text"] * 2}, {"text": ["a", "b"]})
    assert twice == {"t": ["a", "b", "a", "b"]}
    assert columns_made(lambda columns, ctx: {"text": []}, {"text": ["a"]}) == {}


def test_rows_without_a_key_have_none_there():
    seen = []
    plugin = of(preprocess=lambda self, rows, ctx: seen.append(rows))
    batch = rows.batch_of([{"a": 1}, {"b": [2, {"c": "x"}]}], [0, 1])
    from bulkhead.lone_rank import tensors_of

    call = {"batch": tensors_of(batch)}
    made = rows.run("preprocess", Batch(call["batch"]), plugin.preprocess, None, lambda: None)
    assert seen == [{"a": [1, None], "b": [None, [2, {"c": "x"}]]}]
    assert rows.samples.texts_of(made, "rows") == ['{"a": 1, "b": null}', '{"a": null, "b": [2, {"c": "x"}]}']


def test_numpy_values_and_tuples_become_json():
    def give(columns, ctx):
        return {"n": np.arange(2), "x": (np.float32(0.5), np.array([1, 2])), "t": np.array(["a", "b"])}

    assert columns_made(give, {"t": ["", ""]}) == {"n": [0, 1], "x": [0.5, [1, 2]], "t": ["a", "b"]}


def test_a_chunk_is_seeded_by_its_number_alone():
    def draw(columns, ctx):
        return {"drawn": [ctx.rng.next_u64(), random.getrandbits(32), int(np.random.randint(1 << 30))]}

    first = columns_made(draw, {"a": [1]}, micro_batch=3, rank=0)
    assert columns_made(draw, {"a": [1, 2]}, micro_batch=3, rank=1, global_step=5) == first
    assert columns_made(draw, {"a": [1]}, micro_batch=4) != first
    assert first["drawn"][0] == Rng.of_key(sample_key(1, "plugin", "preprocess", 0, 3)).next_u64()


@table(
    "give, kind, message",
    [
        (lambda c: [{"a": 1}], TypeError, "preprocess returned a list; it must return nothing or a dict of lists"),
        (lambda c: {"a": [1], "b": [1, 2]}, ValueError,
         "preprocess returned columns of different lengths: a has 1, b has 2"),
        (lambda c: {"a": "text"}, TypeError, 'preprocess returned a str as column "a"; a column is a list'),
        (lambda c: {"a": 5}, TypeError, 'preprocess returned an int as column "a"; a column is a list'),
        (lambda c: {5: [1]}, TypeError, "preprocess returned the column 5; a column's name is a str"),
        (lambda c: {"a": [object]}, TypeError, "preprocess returned a row that JSON cannot carry (a type is no JSON"),
        (lambda c: {"a": [float("nan")]}, TypeError, "preprocess returned a row that JSON cannot carry (Out of range"),
        (lambda c: {"a": ["\udcff"]}, TypeError, "preprocess returned a row that JSON cannot carry ('utf-8' codec"),
    ],
)  # fmt: skip
def test_what_is_no_columns_is_refused_with_a_sentence(give, kind, message):
    with pytest.raises(kind) as caught:
        columns_made(lambda columns, ctx: give(columns), {"a": [1]})
    assert str(caught.value).startswith(message)


# ----- keep -----


def test_each_row_is_judged_with_its_number():
    plugin = of(keep=lambda self, row, ctx: row["n"] > 1 and ctx.sample != 12)
    assert run_hook(plugin, "keep", rows=[{"n": 1}, {"n": 2}, {"n": 3}], sample=10).value == [False, True, False]
    assert run_hook(plugin, "keep", rows={"n": 2}).value is True


def test_a_row_is_seeded_by_its_number_whatever_its_neighbours():
    drawn = {}

    def keep(self, row, ctx):
        drawn.setdefault(ctx.sample, []).append((ctx.rng.next_u64(), random.random(), np.random.rand()))
        return True

    plugin = of(keep=keep)
    plugin.transient = set()
    run_hook(plugin, "keep", rows=[{}, {}], sample=4)
    run_hook(plugin, "keep", rows={}, sample=5, micro_batch=7, rank=1, global_step=3)
    assert drawn[5][0] == drawn[5][1] != drawn[4][0]
    assert drawn[4][0][0] == Rng.of_key(sample_key(1, "plugin", "keep", 0, 4)).next_u64()


@table("give, found", [(None, "nothing"), (1, "an int"), ("yes", "a str")])
def test_a_verdict_is_true_or_false(give, found):
    with pytest.raises(TypeError) as caught:
        run_hook(of(keep=lambda self, row, ctx: give), "keep", rows={})
    assert str(caught.value) == f"keep returned {found}; it must return True or False"
    assert run_hook(of(keep=lambda self, row, ctx: np.bool_(False)), "keep", rows={}).value is False


# ----- encode -----


def test_a_row_becomes_tokens_and_labels():
    def encode(self, conversation, ctx):
        ids = [ord(letter) for letter in conversation["text"]]
        return {"input_ids": ids, "labels": np.array([-100, *ids[1:]])} if ids else {"input_ids": []}

    plugin = of(encode=encode)
    assert run_hook(plugin, "encode", rows=[{"text": "ab"}, {"text": ""}]).value == [
        {"input_ids": [97, 98], "labels": [-100, 98]}, {"input_ids": [], "labels": []},
    ]  # fmt: skip
    no_labels = of(encode=lambda self, row, ctx: {"input_ids": np.arange(3, dtype=np.uint8)})
    assert run_hook(no_labels, "encode", rows={}).value == {"input_ids": [0, 1, 2], "labels": [0, 1, 2]}


@table(
    "give, message",
    [
        (None, "encode returned a NoneType; it must return a dict with input_ids and, at will, labels"),
        ({"labels": [1]}, "encode returned a dict without input_ids; it must return a dict with input_ids and"),
        ({"input_ids": [1], "mask": [1]}, "encode returned 'mask'; a sample has input_ids and labels"),
        ({"input_ids": [1, 2], "labels": [1]}, "encode returned 2 input_ids and 1 labels; there must be as many"),
        ({"input_ids": [-100]}, "encode returned -100 among its input_ids; ids are 0 or more"),
        ({"input_ids": [1], "labels": [-1]}, "encode returned -1 among its labels; ids are 0 or more, -100 is not"),
        ({"input_ids": [1 << 31]}, "encode returned 2147483648 among its input_ids; ids are 0 or more"),
        ({"input_ids": [0.5]}, "encode returned input_ids as an array of type float64 with 1 dimension; it must be a"),
        ({"input_ids": [[1]]}, "encode returned input_ids as an array of type int64 with 2 dimensions; it must be a"),
        ({"input_ids": "abc"}, "encode returned input_ids as a str; it must be a list of whole numbers"),
    ],
)
def test_what_is_no_tokens_is_refused_with_a_sentence(give, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        run_hook(of(encode=lambda self, row, ctx: give), "encode", rows={})
    assert str(caught.value).startswith(message)


# ----- collate -----

SAMPLES = [{"input_ids": [1], "labels": [2]}, {"input_ids": [3, 4], "labels": [-100, 5]}]


def test_samples_become_a_batch():
    def collate(self, samples, ctx):
        assert all(sample["labels"].dtype == np.int64 for sample in samples)
        longest = max(len(sample["input_ids"]) for sample in samples)
        ids, labels = np.zeros((len(samples), longest), int), np.full((len(samples), longest), -100)
        for i, sample in enumerate(samples):
            ids[i, : len(sample["input_ids"])] = sample["input_ids"]
            labels[i, : len(sample["labels"])] = sample["labels"]
        return {"input_ids": ids, "labels": labels}

    result = run_hook(of(collate=collate), "collate", rows=SAMPLES)
    assert result.batch["input_ids"].tolist() == [[1, 0], [3, 4]]
    assert result.batch["labels"].tolist() == [[2, -100], [-100, 5]]
    assert result.changed == ["input_ids", "labels"]


def test_samples_are_read_only_and_a_batch_is_needed():
    def scribble(self, samples, ctx):
        samples[0]["input_ids"][0] = 9

    failure = run_hook(of(collate=scribble), "collate", rows=SAMPLES, raise_errors=False).failure
    assert failure["type"] == "ValueError" and "read-only" in failure["message"]
    with pytest.raises(TypeError, match="collate returned nothing; it must return a dict of arrays, the batch"):
        run_hook(of(collate=lambda self, samples, ctx: None), "collate", rows=SAMPLES)


@table("ends", [[3], [2, 1], [-1]])
def test_lists_that_end_nowhere_are_refused(ends):
    batch = Batch()
    batch["x"], batch["x.ends"] = np.int64([1, 2]), np.int64(ends)
    with pytest.raises(ValueError, match='the lists "x" end where there is nothing'):
        rows.lists_of(batch, "x")
