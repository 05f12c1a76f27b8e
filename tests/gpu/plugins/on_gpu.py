"""Transforms of batches on the rank's GPU, and ways in which a GPU fails who uses it badly."""

import os
import pathlib
import signal
from typing import List

import torch
from bulkhead import Plugin


class Brighten(Plugin):
    """Changes features in place: the same arithmetic on a CPU and on a GPU.  Says where they were."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        features = batch.torch().mutable("features")
        features.mul_(0.5).add_(0.25)
        if ctx.global_step == 3:
            ctx.log(f"features on {features.device} for {ctx.device}, labels on {batch.torch()['labels'].device}")


class Replace(Plugin):
    """Gives tensors of every kind back: new ones, a permutation, integers, one that lies elsewhere on the GPU."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        tensors = batch.torch()
        kind = ctx.global_step % 4
        if kind == 0:
            tensors["features"] = tensors["features"] * 0.5 + 0.25
        elif kind == 1:
            tensors["features"] = (tensors["features"].T.contiguous() * 0.5 + 0.25).T
        elif kind == 2:
            tensors["labels"] = tensors["labels"].clone()
            tensors["features"] = (tensors["features"] * 0.5 + 0.25).cpu().numpy()
        else:
            tensors.mutable("features").mul_(0.5).add_(0.25)


class AddOne(Plugin):
    """What add_one_gpu.cu does."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        batch.torch().mutable("features").add_(1)


class Keeper(Plugin):
    """Goes on looking at the input of the call before, which stays as it was."""

    stateless = True

    def __init__(self):
        self.kept = None

    def transform_train_batch(self, batch, ctx):
        if self.kept is not None:
            tensor, total = self.kept
            assert tensor.double().sum().item() == total
        features = batch.torch()["features"]
        self.kept = (features, features.double().sum().item())


class Fails(Plugin):
    """Fails in `how` at steps `steps`, `times` times each in all its incarnations."""

    stateless = True

    def __init__(self, how: str, marks: str, steps: List[int], times: int = 1):
        self.how, self.marks, self.steps, self.times = how, pathlib.Path(marks), steps, times

    def transform_train_batch(self, batch, ctx):
        features = batch.torch().mutable("features")
        features.add_(1)
        if ctx.global_step in self.steps:
            done = self.marks / f"{self.how}-{ctx.global_step}"
            before = int(done.read_text()) if done.exists() else 0
            if before < self.times:
                done.write_text(str(before + 1))
                getattr(self, f"_{self.how}")(features)
        features.sub_(1)

    def _illegal(self, features):
        """Writes to an address that nobody has: far behind a tensor that claims to be larger than it is."""
        class Claim:
            __cuda_array_interface__ = {"shape": (1 << 42,), "typestr": "|u1", "version": 3, "strides": None,
                                        "data": (features.data_ptr(), False)}  # fmt: skip

        torch.as_tensor(Claim(), device=features.device)[1 << 41 :].narrow(0, 0, 1 << 20).fill_(1)

    def _assertion(self, features):
        torch.zeros(4, device=features.device)[torch.tensor([1 << 30], device=features.device)].add_(1)

    def _memory(self, features):
        taken = []
        while True:
            taken.append(torch.empty(1 << 30, dtype=torch.uint8, device=features.device))

    def _kill(self, features):
        features.fill_(float("nan"))
        os.kill(os.getpid(), signal.SIGKILL)

    def _segv(self, features):
        features.fill_(float("nan"))
        os.kill(os.getpid(), signal.SIGSEGV)

    def _scribble(self, features):
        """Writes all over what it was lent, in the middle of a kernel, and dies."""
        whole = features.as_strided((features.numel(),), (1,))
        for _ in range(1000):
            whole.fill_(float("nan"))
        os.kill(os.getpid(), signal.SIGKILL)


class Raises(Plugin):
    """An exception of its own is an answer: the process lives."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        if ctx.global_step == 4:
            raise ValueError("step 4 is not for me")
        batch.torch()["features"].sum()
