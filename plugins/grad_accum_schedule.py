"""Grows the gradient accumulation from epoch to epoch, on a straight line (EveryDream2's Accumulator).

    plugins:
      - use: grad_accum_schedule
        with: {begin_epoch: 3, begin_grad_accum: 1, end_epoch: 10, end_grad_accum: 100}

gives the epochs from 0 on 1, 1, 1, 1, 18, 34, 50, 67, 84 and 100 micro-batches per rank and optimizer step; later
epochs keep what epoch 9 had, which is said once in the log.  Epoch 0 is part of the run's configuration: the resolved
run.yaml shows `train.accumulate` as the table has it.
"""

from bulkhead import Plugin


def linear(begin: int, end: int, count: int) -> list:
    """`count` whole numbers evenly spaced from `begin` to `end`, a half rounded to the even neighbour."""
    if count == 1:
        return [begin]
    return [round(begin + (end - begin) * i / (count - 1)) for i in range(count)]


class GradAccumSchedule(Plugin):
    def __init__(
        self,
        end_epoch: int,
        end_grad_accum: int,
        begin_epoch: int = 0,
        begin_grad_accum: int = 1,
        curve: str = "linear",
    ):
        """end_epoch: the first epoch behind the schedule, > begin_epoch; epoch end_epoch − 1 has end_grad_accum.

        end_grad_accum, begin_grad_accum: micro-batches per rank and optimizer step, ≥ 1.
        begin_epoch: until here begin_grad_accum holds; epochs count from 0.
        curve: "linear".  NotImplementedError for another one, ValueError for numbers out of range.
        """
        if curve != "linear":
            raise NotImplementedError(f'curve must be "linear", not "{curve}"')
        if begin_epoch < 0:
            raise ValueError(f"begin_epoch must be at least 0, not {begin_epoch}")
        if end_epoch <= begin_epoch:
            raise ValueError(f"end_epoch must be greater than begin_epoch ({begin_epoch}), not {end_epoch}")
        for name, value in (("begin_grad_accum", begin_grad_accum), ("end_grad_accum", end_grad_accum)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.table = [begin_grad_accum] * begin_epoch
        self.table += linear(begin_grad_accum, end_grad_accum, end_epoch - begin_epoch)
        self.warned = False

    def configure(self, config, ctx):
        given = config.get("train", {}).get("accumulate", 1)
        return {} if given == self.table[0] else {"train.accumulate": self.table[0]}

    def on_epoch_start(self, ctx):
        if ctx.epoch == 0:  # as configured
            return
        if ctx.epoch < len(self.table):
            ctx.set("grad_accum", self.table[ctx.epoch])
        elif not self.warned:
            self.warned = True
            if ctx.is_main:
                ctx.log(f"grad_accum_schedule has nothing for epoch {ctx.epoch}: grad_accum stays as it is")
