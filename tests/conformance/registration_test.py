"""CONFORMANCE 7.1: names, claims, conflicts, and what is refused before anything starts."""

import pytest
from actors import EPOCH, actor, calls, digits, hooks, steps_of
from runs import native, plugin

CLAIMS = ["train_batch", "validate_batch", "test_batch", "should_stop"]


def source(body, name="Empty", head=""):
    return f"import bulkhead\nfrom bulkhead import Plugin\n{head}\nclass {name}(Plugin):\n    {body}\n"


def written(runs, text, name="plug.py", class_name="Empty", entry=None, **keys):
    """A plugin of this source, in a folder of its own where `name` has one."""
    path = runs.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return plugin(f"{path}:{class_name}", entry, **keys)


def claiming(runs, language, claim, entry):
    if language == "native":
        return plugin(native(f"claims_{claim}"), entry)
    hook = claim if claim == "should_stop" else f"transform_{claim}"
    arguments = "self, ctx" if claim == "should_stop" else "self, batch, ctx"
    body = f"claims = {{'{claim}'}}\n    def {hook}({arguments}): pass"
    return written(runs, source(body), f"{entry}.py", entry=entry)


def refused(runs, config, *words, ranks=1):
    """One sentence with these words, exit status 2, and no run that anybody could resume."""
    run = runs.start(config, ranks).wait(2)
    told = run.errors.strip()
    assert told and told.count("\n") == 0 and "Traceback" not in told, told
    for word in words:
        assert word in told, f"{word!r} is not in: {told}"
    assert list(run.run_dir.glob("*/summary.json")) == []
    return told


# ----- Helios -----


def test_HelioS_R1_a_second_plugin_of_one_name_is_refused(runs):
    empty = written(runs, source("pass"), entry="empty")
    assert [entry["name"] for entry in runs.finish(digits([empty])).summary["plugins"]] == ["empty"]
    refused(runs, digits([empty, actor("native", "empty")]), "empty", "name")


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("base, dup", [("python", "python"), ("native", "native"), ("python", "native")])
def test_HelioS_R2_two_owners_of_one_hook_are_refused(runs, claim, base, dup):
    config = digits([claiming(runs, base, claim, "base"), claiming(runs, dup, claim, "dup")])
    refused(runs, config, '"base"', '"dup"', claim)


def test_HelioS_R2_owners_of_different_hooks_and_plugins_without_any_are_fine(runs, language):
    owners = [claiming(runs, language, claim, f"of_{claim}") for claim in CLAIMS]
    run = runs.finish(digits([*owners, written(runs, source("pass"), "empty.py", entry="empty")]))
    assert [entry["name"] for entry in run.summary["plugins"]] == [*(f"of_{claim}" for claim in CLAIMS), "empty"]
    assert [run.of_plugin(entry["name"])["errors"] for entry in run.summary["plugins"]] == [0] * 5


def test_HelioS_R3_an_owner_and_one_who_overrides_without_owning_are_refused(runs, language):
    """Helios 1.x took both and called the first only."""
    config = digits([claiming(runs, language, "train_batch", "base"), actor(language, "also")])
    refused(runs, config, '"base"', '"also"', "train_batch")


def test_HelioS_R4_a_transform_without_a_claim_is_called(runs, language, ranks):
    run = runs.finish(digits([actor(language, script=["scale transform_train_batch * * 2"])], ranks), ranks)
    plain = runs.finish(digits([], ranks), ranks)
    for rank in range(ranks):
        assert sorted(steps_of(run, "transform_train_batch", rank=rank)) == [*range(2 * EPOCH)]
    assert run.weights != plain.weights


@pytest.mark.parametrize("raised", ["RuntimeError", "ValueError", "TypeError", "OSError"])
def test_HelioS_R5_exceptions_are_appended_to_the_list(runs, raised):
    text = source(
        "raises = (RuntimeError,)\n    raises += (ValueError, TypeError)\n"
        "    assert raises == (RuntimeError, ValueError, TypeError)\n"
        f"    def on_step_end(self, ctx):\n        if ctx.global_step == 2: raise {raised}('so')"
    )
    run = runs.start(digits([written(runs, text)])).wait(0 if raised == "OSError" else 1)
    assert run.summary["status"] == ("completed" if raised == "OSError" else "failed")
    if raised != "OSError":
        assert run.summary["reason"] == f"Empty: {raised}: so"


def test_HelioS_R6_configure_is_called_once_without_the_users_help(runs, language, ranks):
    """configure_trainer and configure_model are one hook; what it changes is applied, and listed in run.yaml."""
    run = runs.finish(digits([actor(language, script=["change configure * * optimizer.lr=0.25"])], ranks), ranks)
    for rank in range(ranks):
        called = hooks(run, rank=rank)
        assert called.count("configure") == 1 and called.index("configure") < called.index("setup")
        assert {line["lr"] for line in calls(run, rank=rank, hook="on_step_end")} == {0.25}
    resolved = (run.directory / "run.yaml").read_text()
    assert "configured:" in resolved and "optimizer.lr" in resolved


# ----- Twinkle -----


def test_T_R1_an_unknown_plugin_is_refused_with_the_nearest_name(runs):
    refused(runs, digits([plugin("early_stopp")]), "early_stopp", '"early_stop"')


def test_T_R2_code_from_a_hub_is_refused_before_any_download(runs):
    for hub in ("hf", "ms"):
        refused(runs, digits([plugin(f"{hub}://somebody/something")]), f"{hub}://somebody/something",
                "BULKHEAD_TRUST_REMOTE_CODE")  # fmt: skip


def test_T_R3_a_folder_without_an_init_is_refused(runs):
    (runs.folder / "pack").mkdir()
    refused(runs, digits([plugin(f"{runs.folder}/pack/:Empty")]), "pack", "__init__.py")


def test_T_R4_a_file_without_a_plugin_is_refused(runs):
    (runs.folder / "none.py").write_text("class Empty:\n    pass\n")
    refused(runs, digits([plugin(f"{runs.folder}/none.py")]), "none.py", "Plugin")


def test_T_R5_the_folder_of_a_plugin_is_on_the_path_of_its_own_process_only(runs):
    entries = []
    for name in ("a", "b"):
        (runs.folder / name).mkdir()
        (runs.folder / name / "helper.py").write_text(f"NAME = '{name}'\n")
        text = source("def on_train_start(self, ctx): ctx.log_metrics({'is_' + helper.NAME: 1})", head="import helper")
        entries.append(written(runs, text, f"{name}/plug.py", entry=name))
    (line,) = [line for line in runs.finish(digits(entries)).metrics() if line.get("step") == 1]
    assert {key for key in line if "is_" in key} == {"is_a", "is_b"}, line


def test_T_R6_two_files_and_two_classes_of_one_name_are_two_plugins(runs):
    entries = [
        written(runs, source(f"def on_train_start(self, ctx): ctx.log_metrics({{'is_{name}': 1}})"), f"{name}/plug.py",
                entry=name) for name in ("a", "b")
    ]  # fmt: skip
    (line,) = [line for line in runs.finish(digits(entries)).metrics() if line.get("step") == 1]
    assert {key for key in line if "is_" in key} == {"is_a", "is_b"}, line


def test_T_R8_what_is_no_plugin_is_refused_at_once(runs):
    refused(runs, digits([{"use": 123}]), "123")
    refused(runs, digits([123]), "123")


def test_T_R8_a_plugin_is_named_by_class_file_folder_module_or_library(runs):
    path = runs.folder / "some_package"
    written(runs, source("pass"), "some_package/__init__.py")
    written(runs, source("pass"), "single.py")
    uses = [f"{path}/:Empty", f"{runs.folder}/single.py", f"{runs.folder}/single.py:Empty", "some_package:Empty",
            "some_package.Empty", "lr_monitor", native("claims_should_stop")]  # fmt: skip
    config = digits([plugin(use, f"p{number}") for number, use in enumerate(uses)])
    (runs.folder / "run0").mkdir()
    (runs.folder / "run0" / "some_package").symlink_to(path)  # modules are looked for beside the run file
    run = runs.finish(config)
    assert [entry["name"] for entry in run.summary["plugins"]] == [f"p{number}" for number in range(len(uses))]


# ----- AIMM and ms-swift: one key, two owners -----


def test_A_R1_one_short_name_for_two_classes_is_refused_with_both(runs):
    text = "".join(source("pass", name, "@bulkhead.register('mine')") for name in ("First", "Second"))
    refused(runs, digits([written(runs, text, class_name="mine")]), '"mine"', "First", "Second")


def test_A_R1_a_name_that_nobody_registered_is_refused_with_the_nearest(runs):
    text = source("pass", "First", "@bulkhead.register('ema')")
    refused(runs, digits([written(runs, text, class_name="emma")]), '"emma"', '"ema"')


def test_S_R1_two_files_that_give_the_same_name_are_refused(runs):
    """ms-swift overwrites the first in silence."""
    text = source("pass", "First", "@bulkhead.register('mine')")
    entries = [written(runs, text, f"{folder}/plug.py", class_name="mine") for folder in ("a", "b")]
    refused(runs, digits(entries), "mine", "name")


# ----- EveryDream2 -----


def test_E_R1_a_class_that_is_no_plugin_is_refused(runs):
    (runs.folder / "plug.py").write_text("class Empty:\n    def on_step_end(self, ctx): pass\n")
    refused(runs, digits([plugin(f"{runs.folder}/plug.py:Empty")]), '"Empty"', "not a class derived from")


@pytest.mark.parametrize("hook, nearest", [("on_model_save", ""), ("on_steps_end", "on_step_end")])
def test_E_R2_an_unknown_hook_is_refused(runs, hook, nearest):
    """EveryDream2's TextualInversion overrides on_model_save, which nobody calls."""
    told = refused(runs, digits([written(runs, source(f"def {hook}(self, ctx): pass"))]), hook)
    assert nearest in told


def test_E_2_2_plugins_may_be_a_list_of_class_names(runs):
    """EveryDream2's "plugins": ["pkg.mod.Class"]."""
    (runs.folder / "run0").mkdir()
    written(runs, source("def on_train_start(self, ctx): ctx.log_metrics({'was_here': 1})"), "run0/mine.py")
    run = runs.finish(digits(["mine.Empty"]))
    assert [entry["name"] for entry in run.summary["plugins"]] == ["Empty"]
    assert any("was_here" in key for line in run.metrics() for key in line)
