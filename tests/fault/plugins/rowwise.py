"""Plugins that make a data set of rows: each draws, remembers, and may die once at a chosen place."""

import os
import signal

import numpy as np

import bulkhead
from bulkhead import Plugin


class Mortal(Plugin):
    """Dies `times` times at `hook` of `chunk` (collate: of step `chunk`), or raises there."""

    def __init__(self, hook: str = "", chunk: int = 0, times: int = 1, how: str = "kill"):
        self.hook, self.chunk, self.times, self.how = hook, chunk, times, how
        self.seen = 0  # calls of the stage: state

    def _visit(self, hook, ctx, place=None):
        self.seen += 1
        if hook != self.hook or (ctx.micro_batch if place is None else place) != self.chunk:
            return
        if self.how == "raise":
            raise LookupError("as foreseen")
        folder = os.path.join(ctx.run_dir, "deaths")
        os.makedirs(folder, exist_ok=True)
        for turn in range(self.times):
            mark = os.path.join(folder, f"{bulkhead.facts().plugin}-{hook}-{turn}")
            if not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)


class Prepares(Mortal):
    """Conversations of questions and answers, each answer with a draw and a number that only its state knows."""

    def preprocess(self, rows, ctx):
        self._visit("preprocess", ctx)
        pairs = zip(rows["question"], rows["answer"])
        return {
            "messages": [
                [
                    {"role": "user", "content": question[:30]},
                    {"role": "assistant", "content": f"{answer[:20]} {ctx.rng.below(10)} {self.seen}"},
                ]
                for question, answer in pairs
            ]
        }

    def keep(self, row, ctx):
        self._visit("keep", ctx)
        return ctx.rng.uniform() < 0.9


class Counts(Mortal):
    """Its state, which the stage has changed, is in every batch."""

    def keep(self, row, ctx):
        self._visit("keep", ctx)
        return len(row["messages"][0]["content"]) % 7 != 0

    def transform_train_batch(self, batch, ctx):
        labels = batch.mutable("labels")
        labels[:, -1] = np.where(labels[:, -1] < 0, labels[:, -1], self.seen % 5)


class Encodes(Mortal):
    """Bytes as tokens; the user's are not learned."""

    def encode(self, conversation, ctx):
        self._visit("encode", ctx)
        ids, labels = [], []
        for turn in conversation["messages"]:
            part = list(turn["content"].encode())
            ids += part
            labels += part if turn["role"] == "assistant" else [-100] * len(part)
        if ctx.rng.uniform() < 0.1:
            ids, labels = ids[1:], labels[1:]
        return {"input_ids": ids, "labels": labels}


class Collates(Mortal):
    """Pads on the right to a multiple of 8, and writes down what it saw."""

    def collate(self, samples, ctx):
        self._visit("collate", ctx, place=ctx.global_step)
        longest = -(-max(len(sample["input_ids"]) for sample in samples) // 8) * 8
        ids, labels = np.zeros((len(samples), longest), np.int64), np.full((len(samples), longest), -100)
        for i, sample in enumerate(samples):
            ids[i, : len(sample["input_ids"])] = sample["input_ids"]
            labels[i, : len(sample["labels"])] = sample["labels"]
        ids[:, 0] = (ids[:, 0] + self.seen) % 32  # state, in every batch
        return {"input_ids": ids, "labels": labels}


class Spoils(Collates):
    """A batch that no model can take, at one step."""

    def collate(self, samples, ctx):
        batch = super().collate(samples, ctx)
        if ctx.global_step == self.chunk:
            batch["labels"][0, 0] = 10**6
        return batch


class Waits(Plugin):
    """Stands in its first chunk until it is told to go on; an exception to the rule that nothing waits for a file."""

    def __init__(self, pipe: str):
        self.pipe = pipe

    def keep(self, row, ctx):
        if ctx.sample == 0:
            with open(self.pipe, "rb") as pipe:
                pipe.read(1)
        return True
