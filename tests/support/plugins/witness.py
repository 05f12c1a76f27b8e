"""Writes down every call with all that ctx says, in RUN/witness/NAME-RANK.jsonl."""

import json
import os

import bulkhead
from bulkhead import Plugin

FIELDS = (
    "rank local_rank node_rank world_size local_world_size is_distributed is_main device map_loc generation scope "
    "epoch global_step step_in_epoch epoch_length max_steps max_epochs micro_batch lr grad_norm metrics best_metric "
    "project run_dir call_id replaying"
).split()


class Witness(Plugin):
    def _see(self, hook, ctx, **more):
        folder = os.path.join(ctx.run_dir, "witness")
        os.makedirs(folder, exist_ok=True)
        line = {"hook": hook, **{name: getattr(ctx, name) for name in FIELDS}, "draw": ctx.rng.uniform(), **more}
        line["metrics"], line["map_loc"] = dict(line["metrics"]), dict(line["map_loc"])
        with open(os.path.join(folder, f"{bulkhead.facts().plugin}-{ctx.rank}.jsonl"), "a") as file:
            file.write(json.dumps(line) + "\n")

    def transform_train_batch(self, batch, ctx):
        self._see("transform_train_batch", ctx)

    def transform_validate_batch(self, batch, ctx):
        self._see("transform_validate_batch", ctx)

    def transform_test_batch(self, batch, ctx):
        self._see("transform_test_batch", ctx)

    def should_stop(self, ctx):
        self._see("should_stop", ctx)
        return False

    def state_dict(self, ctx):
        self._see("state_dict", ctx)
        return {}

    def load_state_dict(self, state, ctx):
        self._see("load_state_dict", ctx)


def _sees(hook):
    return lambda self, ctx: self._see(hook, ctx)


for _hook in (
    "setup on_train_start on_train_end on_epoch_start on_epoch_end on_step_start on_backward_end on_substep_end "
    "on_optimizer_step_start on_optimizer_step_end on_step_end on_log on_validate_start on_validate_step_end "
    "on_validate_end on_test_start on_test_step_end on_test_end on_save_start on_save_end on_load"
).split():
    setattr(Witness, _hook, _sees(_hook))
