"""A shipped plugin whose host dies again and again does to the run what it would have done anyway.

One stream of calls, as protocol/README.md orders them, is run twice: undisturbed, and with a new host after every few
calls, which gets the last snapshot and the calls since as replays.
"""

from pathlib import Path

import numpy as np
from shipped_plugins import make

from bulkhead import state
from bulkhead.testing import run_hook

EPOCHS, STEPS, CALLS_OF_A_HOST = 4, 4, 3
PLUGINS = {
    "csv_log": {},
    "early_stop": {"patience": 2},
    "ema": {"decay": 0.5, "every": 2, "load": True},
    "example_logging": {},
    "graceful_exit": {"signals": []},
    "grad_accum_schedule": {"end_epoch": 3, "end_grad_accum": 8},
    "lr_monitor": {"every": 3},
    "neon": {"load": True},
    "repeat_first_n": {"n_epochs": 2},
    "rolling_checkpoint": {"every_n_epochs": 0.5},
    "swa": {"start_epoch": 1, "load": True},
}


def weights(step):
    return {"w": np.sin(np.arange(6, dtype=np.float32) + step).reshape(2, 3)}


def stream():
    """(hook, what the call says): a run of EPOCHS epochs with a validation and a save at the end of each."""
    done = 0

    def call(hook, epoch, **about):
        about = {"metrics": {"loss": 1 / (1 + min(done, 7)), "accuracy": 0.5}, "lr": 0.1 / (1 + done), **about}
        return hook, {"global_step": done, "epoch": epoch, "max_epochs": EPOCHS, "epoch_length": STEPS, **about}

    yield call("on_train_start", 0)
    for epoch in range(EPOCHS):
        yield call("on_epoch_start", epoch)
        for step in range(STEPS):
            yield call("on_step_start", epoch, step_in_epoch=step)
            yield call("on_step_end", epoch, step_in_epoch=step, grad_norm=float(done % 4))
            done += 1
        for hook in ("on_validate_end", "on_save_start", "state_dict", "on_save_end", "on_epoch_end"):
            yield call(hook, epoch)
    for hook in ("on_train_end", "on_save_start", "state_dict", "on_save_end"):
        yield call(hook, EPOCHS)


class Host:
    """The processes of one plugin, one after the other."""

    def __init__(self, name, run_dir):
        run_dir.mkdir()
        self.name, self.run_dir, self.journal = name, str(run_dir), []
        self._start()
        self.snapshot = self._hook("state_dict").value

    def restart(self):
        self._start()
        self._hook("load_state_dict", state=self.snapshot)
        for hook, about in self.journal:
            self._hook(hook, **about, replaying=True)

    def call(self, hook, about):
        """What the run sees of it."""
        result = self._hook(hook, **about)
        self.journal.append((hook, about))
        if hook == "state_dict":
            self.snapshot, self.journal = result.value, []
        loaded = {name: array.tobytes() for name, array in result.weights.items()}
        return hook, result.control, result.logs, result.metrics, loaded

    def _start(self):
        self.plugin = make(self.name, **PLUGINS[self.name])
        self._hook("configure", config={"train": {"max_epochs": EPOCHS}})
        self._hook("setup")

    def _hook(self, hook, **about):
        return run_hook(self.plugin, hook, run_dir=self.run_dir, weights=weights(about.get("global_step", 0)), **about)


def test_restarts_change_nothing(tmp_path):
    calls = list(stream())
    for name in PLUGINS:
        undisturbed = Host(name, tmp_path / f"{name}-once")
        expected = [undisturbed.call(*call) for call in calls]
        host = Host(name, tmp_path / f"{name}-again-and-again")
        for number, call in enumerate(calls):
            if number % CALLS_OF_A_HOST == 0:
                host.restart()
            assert host.call(*call) == expected[number], (name, number)
        assert state.pack(host.snapshot) == state.pack(undisturbed.snapshot), name
        assert files_of(host) == files_of(undisturbed), name


def files_of(host):
    return {file.name: file.read_bytes() for file in Path(host.run_dir).iterdir()}
