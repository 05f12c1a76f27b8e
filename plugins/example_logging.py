"""Prints every hook as it is called: read it to learn the hooks, run it to see their order.

    plugins:
      - use: example_logging

The lines are in logs/host-example_logging-RANK.log, one for each call: its number, the hook, what `ctx` says there.
It changes nothing and asks for nothing; as every batch travels to it and back, it costs time.
(EveryDream2's ExampleLoggingPlugin.)
"""

from bulkhead import Plugin


class ExampleLogging(Plugin):
    def __init__(self):
        self.calls = 0  # an attribute is state: it survives a crash and a resume

    # ----- Start: before anything is built, then once per process -----

    def configure(self, config, ctx):
        self._print("configure", ctx, f"the run is {config.get('name', '')!r}")
        return {}  # e.g. {"optimizer.lr": 1e-3}

    def setup(self, ctx):
        self._print("setup", ctx, f"{ctx.scope} scope on {ctx.device}, {ctx.world_size} ranks, files in {ctx.run_dir}")

    # ----- The run: the ranks wait for each of these -----

    def on_train_start(self, ctx):
        self._print("on_train_start", ctx, f"up to {ctx.max_epochs} epochs, {ctx.max_steps} steps (0: no limit)")

    def on_train_end(self, ctx):
        self._print("on_train_end", ctx, _numbers(ctx))

    def on_epoch_start(self, ctx):
        self._print("on_epoch_start", ctx, f"of {ctx.epoch_length} steps")

    def on_epoch_end(self, ctx):
        self._print("on_epoch_end", ctx, _numbers(ctx))

    def on_exception(self, ctx):
        self._print("on_exception", ctx, ctx.exception)

    # ----- A step: nobody waits -----

    def on_step_start(self, ctx):
        self._print("on_step_start", ctx, f"step {ctx.step_in_epoch} of its epoch")

    def on_backward_end(self, ctx):
        self._print("on_backward_end", ctx, f"micro-batch {ctx.micro_batch}: {_numbers(ctx)}")

    def on_substep_end(self, ctx):
        self._print("on_substep_end", ctx, f"micro-batch {ctx.micro_batch}: {_numbers(ctx)}")

    def on_optimizer_step_start(self, ctx):
        self._print("on_optimizer_step_start", ctx, f"lr {ctx.lr:g}, gradient norm {ctx.grad_norm:g}")

    def on_optimizer_step_end(self, ctx):
        self._print("on_optimizer_step_end", ctx, f"lr {ctx.lr:g}, gradient norm {ctx.grad_norm:g}")

    def on_step_end(self, ctx):
        self._print("on_step_end", ctx, _numbers(ctx))

    def should_stop(self, ctx):
        self._print("should_stop", ctx, "no")
        return False

    def on_log(self, ctx):
        self._print("on_log", ctx, _numbers(ctx))

    # ----- Validation and test -----

    def on_validate_start(self, ctx):
        self._print("on_validate_start", ctx)

    def on_validate_step_end(self, ctx):
        self._print("on_validate_step_end", ctx, f"batch {ctx.micro_batch}: {_numbers(ctx)}")

    def on_validate_end(self, ctx):
        self._print("on_validate_end", ctx, f"{_numbers(ctx)}; best loss {ctx.best_metric}")

    def on_test_start(self, ctx):
        self._print("on_test_start", ctx)

    def on_test_step_end(self, ctx):
        self._print("on_test_step_end", ctx, f"batch {ctx.micro_batch}: {_numbers(ctx)}")

    def on_test_end(self, ctx):
        self._print("on_test_end", ctx, _numbers(ctx))

    # ----- Checkpoints -----

    def on_save_start(self, ctx):
        self._print("on_save_start", ctx)

    def on_save_end(self, ctx):
        self._print("on_save_end", ctx)

    def on_load(self, ctx):
        self._print("on_load", ctx)

    # ----- The data set, of data.type rows: once, on rank 0; encode and collate are a single plugin's -----

    def preprocess(self, rows, ctx):
        self._print("preprocess", ctx, f"chunk {ctx.micro_batch}: columns {', '.join(rows) or 'none'}")

    def keep(self, row, ctx):
        self._print("keep", ctx, f"row {ctx.sample}: {', '.join(row) or 'nothing'}")
        return True

    # ----- Data: some steps ahead of the training that uses it -----

    def transform_image(self, image, ctx):
        self._print("transform_image", ctx, f"sample {ctx.sample}, {ctx.path}: {image.dtype} {list(image.shape)}")
        return image

    def transform_caption(self, caption, ctx):
        self._print("transform_caption", ctx, f"sample {ctx.sample}: {caption!r}")
        return caption

    def transform_sample(self, sample, ctx):
        self._print("transform_sample", ctx, sample)
        return sample

    def transform_train_batch(self, batch, ctx):
        self._print("transform_train_batch", ctx, f"micro-batch {ctx.micro_batch}: {batch}")

    def transform_validate_batch(self, batch, ctx):
        self._print("transform_validate_batch", ctx, f"batch {ctx.micro_batch}: {batch}")

    def transform_test_batch(self, batch, ctx):
        self._print("transform_test_batch", ctx, f"batch {ctx.micro_batch}: {batch}")

    # ----- State: what must survive the end of this process -----

    def state_dict(self, ctx):  # these two only print: left out, every attribute is kept all the same
        self._print("state_dict", ctx)
        return {"calls": self.calls}

    def load_state_dict(self, state, ctx):
        self.calls = state["calls"]
        self._print("load_state_dict", ctx)

    def _print(self, hook, ctx, what=""):
        self.calls += not hook.endswith("state_dict")
        again = ", replayed" if ctx.replaying else ""
        text = f"{self.calls} {hook}: rank {ctx.rank}, epoch {ctx.epoch}, step {ctx.global_step}{again}"
        print(f"{text}: {what}" if what != "" else text, flush=True)


def _numbers(ctx):
    return ", ".join(f"{name} {value:g}" for name, value in ctx.metrics.items()) or "no metrics"
