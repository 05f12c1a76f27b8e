"""saboteur.py at every hook of the table; its C++ twin has the same tests in shipped_plugins_test.cpp."""

from pathlib import Path

import numpy as np
import pytest

from bulkhead.hooks import EXCLUSIVE, HOOKS, SAMPLE, STATE, TRANSFORM
from bulkhead.loader import Refusal
from bulkhead.testing import load, run_hook

FILE = str(Path(__file__).resolve().parents[3] / "plugins" / "saboteur.py")
PLACES = [hook for hook in HOOKS if hook not in EXCLUSIVE]
OF_MICRO_BATCH = [hook for hook, kind in HOOKS.items() if kind in (TRANSFORM, SAMPLE)] + [
    "preprocess", "keep", "on_backward_end", "on_substep_end", "on_validate_step_end", "on_test_step_end",
]  # fmt: skip


def saboteur(run_dir, **given):
    return load(FILE, facts={"run_dir": str(run_dir)}, **{"how": "raise", **given})


def strikes(plugin, hook, run_dir, **about):
    batch = {"x": np.zeros(2, np.float32)} if HOOKS[hook] == TRANSFORM else None
    state = {"seen": 0} if hook == "load_state_dict" else None
    result = run_hook(plugin, hook, batch=batch, state=state, run_dir=str(run_dir), raise_errors=False, **about)
    return result.failure is not None


@pytest.mark.parametrize("hook", PLACES)
def test_it_strikes_once_at_any_hook_of_the_table(tmp_path, hook):
    plugin = saboteur(tmp_path, hook=hook)
    assert [strikes(plugin, hook, tmp_path) for _ in range(2)] == [True, False]
    if HOOKS[hook] != STATE and hook != "configure":
        assert not strikes(plugin, hook, tmp_path, global_step=1)


@pytest.mark.parametrize("hook", OF_MICRO_BATCH)
def test_it_strikes_once_at_the_chosen_micro_batch(tmp_path, hook):
    def struck(**given):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        plugin = saboteur(folder, hook=hook, **given)
        return [micro for micro in (1, 0, 2, 0) if strikes(plugin, hook, folder, micro_batch=micro)]

    assert struck() == [0]
    assert struck(micro=2) == [2]
    assert struck(micro=-1) == [1]


def test_it_asks_on_every_rank_and_strikes_on_one(tmp_path):
    about = {"run_dir": str(tmp_path), "gather": [1, 2], "raise_errors": False}
    plugin = saboteur(tmp_path, ask=True)
    assert run_hook(plugin, "on_step_end", **about).failure is not None
    assert plugin.seen == 3
    assert run_hook(plugin, "on_step_end", **about).failure is None
    bystander = saboteur(tmp_path, ask=True, rank=1)
    assert run_hook(bystander, "on_step_end", **about).failure is None
    assert bystander.seen == 3 + 1


def test_it_asks_only_where_all_ranks_call_together(tmp_path):
    with pytest.raises(Refusal, match="ask: true needs a hook that all ranks call together, not transform_image"):
        saboteur(tmp_path, ask=True, hook="transform_image")


@pytest.mark.parametrize("hook", EXCLUSIVE)
def test_it_leaves_the_hooks_of_a_single_plugin_alone(tmp_path, hook):
    with pytest.raises(Refusal, match=f'not "{hook}"'):
        saboteur(tmp_path, hook=hook)
