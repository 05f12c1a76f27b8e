"""Plugins that end a run: early_stop and graceful_exit."""

import os
import signal

import pytest
from shipped_plugins import assert_refused, make, restarted

from bulkhead.testing import run_hook

# ----- early_stop -----


def stops_after(plugin, values, metric="loss"):
    """After how many validations it stops, and why; 0: never."""
    for count, value in enumerate(values, 1):
        asked = run_hook(plugin, "on_validate_end", metrics={} if value is None else {metric: value}).control
        if asked:
            return count, asked.reason
    return 0, ""


def test_early_stop_stops_when_the_loss_no_longer_improves():
    for given, losses, count in (
        ({"patience": 2}, [3, 2, 1, 0.5], 0),
        ({"patience": 2}, [3, 2, 2.5, 2.1], 4),
        ({"patience": 2}, [3, 3, 3], 3),
        ({"patience": 2}, [3, 4, 2, 4, 1], 0),
        ({"patience": 1, "min_delta": 0.1}, [3, 2.95], 2),
        ({"patience": 1, "min_delta": 0.1}, [3, 2.85, 2.7], 0),
        ({"patience": 2}, [float("nan"), float("nan")], 2),
        ({"patience": 1}, [None, None, None], 0),
    ):
        assert stops_after(make("early_stop", **given), losses)[0] == count


def test_early_stop_takes_any_metric_of_which_more_may_be_better():
    given = {"metric": "accuracy", "greater": True, "patience": 2, "min_delta": 0.01}
    values = [0.5, 0.6, 0.605, 0.6]
    assert stops_after(make("early_stop", **given), values, "accuracy") == (
        4, "no better accuracy in 2 validations (best 0.6)",
    )  # fmt: skip


def test_early_stop_says_why():
    assert stops_after(make("early_stop", patience=2), [1.5, 2, 3])[1] == "no better loss in 2 validations (best 1.5)"


def test_early_stop_goes_on_counting_from_its_state():
    first = make("early_stop", patience=2)
    assert stops_after(first, [1, 2])[0] == 0
    assert stops_after(restarted(first, "early_stop", patience=2), [2])[0] == 1


def saves(plugin, values):
    """The save, from 1, at which it stops, with a validation before each; 0: never."""
    for count, value in enumerate(values, 1):
        assert not run_hook(plugin, "on_validate_end", metrics={"accuracy": value}).control
        if run_hook(plugin, "on_save_end").control.stop:
            return count
    return 0


def test_early_stop_on_saves_stops_at_the_fifth_of_conformance_7_9():
    given = {"when": "save", "patience": 3, "metric": "accuracy", "greater": True}
    assert saves(make("early_stop", **given), [0.5, 0.6, 0.6, 0.6, 0.6]) == 5
    # The best so far counts, not the last: a worse validation before a save changes nothing.
    assert saves(make("early_stop", **given), [0.5, 0.6, 0.1, 0.2, 0.3]) == 5
    assert saves(make("early_stop", **given), [0.5, 0.6, 0.6, 0.6, 0.7, 0.7]) == 0


def test_early_stop_without_its_metric_never_stops_and_says_so_once():
    plugin = make("early_stop", metric="bleu", patience=1)
    results = [run_hook(plugin, "on_validate_end", metrics={"loss": 1, "accuracy": 0}) for _ in range(5)]
    assert not any(result.control for result in results)
    assert [result.logs for result in results[:2]] == [
        ['early_stop has no "bleu" to judge by: a validation reports accuracy, loss'], [],
    ]  # fmt: skip
    on_saves = make("early_stop", when="save", patience=1)
    results = [run_hook(on_saves, "on_save_end") for _ in range(5)]
    assert not any(result.control for result in results)
    assert [len(result.logs) for result in results] == [1, 0, 0, 0, 0]


def test_early_stop_refuses_what_makes_no_sense():
    for given in ({"patience": 0}, {"min_delta": -0.1}, {"min_delta": float("nan")}, {"when": "epoch"}):
        assert_refused("early_stop", f"{next(iter(given))} must be", **given)


def test_early_stop_needs_a_process_that_hears_of_a_validation_once():
    with pytest.raises(ValueError, match="needs scope rank or job, not node"):
        run_hook(make("early_stop"), "setup", scope="node")


# ----- graceful_exit -----


@pytest.fixture
def handlers():
    """Puts back the handlers of the signals that these tests take."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_graceful_exit_asks_all_ranks_to_save_and_stop_when_its_file_is_there(tmp_path):
    plugin, there = make("graceful_exit", signals=[]), {"run_dir": str(tmp_path), "rank": 1}
    assert not run_hook(plugin, "on_step_start", **there).control
    (tmp_path / "stop").write_text("making\nroom ")
    asked = run_hook(plugin, "on_step_start", **there).control
    assert asked.stop and asked.save and asked.reason == "making room"


def test_graceful_exit_needs_no_reason(tmp_path):
    (tmp_path / "end").touch()
    asked = run_hook(make("graceful_exit", file="end", signals=[]), "on_step_start", run_dir=str(tmp_path)).control
    assert asked.stop and asked.reason == f"{tmp_path}/end is there"


def test_graceful_exit_takes_a_signal_that_outlives_its_process(tmp_path, handlers):
    plugin = make("graceful_exit", signals=["SIGUSR1", "SIGUSR2"])
    run_hook(plugin, "setup", run_dir=str(tmp_path))
    os.kill(os.getpid(), signal.SIGUSR2)
    asked = run_hook(restarted(plugin, "graceful_exit"), "on_step_start", run_dir=str(tmp_path)).control
    assert asked.stop and asked.reason == f"SIGUSR2 to process {os.getpid()}"


def test_graceful_exit_removes_its_file_with_the_last_checkpoint_only(tmp_path):
    plugin, there = make("graceful_exit", signals=[]), {"run_dir": str(tmp_path)}
    (tmp_path / "stop").touch()
    run_hook(plugin, "on_save_end", **there)
    assert (tmp_path / "stop").exists()
    run_hook(plugin, "on_train_end", **there)
    plugin = restarted(plugin, "graceful_exit", signals=[])
    for _ in range(2):  # two ranks
        run_hook(plugin, "on_save_end", **there)
    assert not (tmp_path / "stop").exists()


def test_graceful_exit_refuses_what_cannot_be_a_request():
    for given, words in (
        ({"signals": ["SIGUSR9"]}, 'there is no "SIGUSR9"; there are .*SIGUSR1'),
        ({"signals": ["SIG_IGN"]}, 'there is no "SIG_IGN"'),
        ({"signals": ["SIGKILL"]}, "SIGKILL cannot be caught"),
        ({"signals": ["SIGTERM"]}, "by SIGTERM the coordinator ends this process"),
        ({"file": ""}, "file must be a path"),
    ):
        assert_refused("graceful_exit", words, **given)
