"""CONFORMANCE 7.2 E-O1 and 7.5, Part B 2.1: captions and images, in runs over captioned pictures."""

import random
import sys

import pytest
from actors import actor, calls, captions, digits, hooks
from bulkhead.testing import load, run_hook
from conftest import ROOT
from runs import DATA, plugin

TEXTS = {path.stem: path.read_text().strip() for path in (DATA / "captions").glob("*.txt")}


def shipped(name, **given):
    return load(str(ROOT / "plugins" / f"{name}.py"), **given)


def changed(caption, name, path="x.jpg", **given):
    """What a shipped plugin makes of a caption."""
    return run_hook(shipped(name, **given), "transform_caption", caption=caption, path=path).value


def appending(language, text):
    return actor(language, text, [f"append transform_caption * * {text}"])


# ----- E-O1: the chain -----


@pytest.mark.parametrize("first, second, texts", [
    ("python", "python", "ab"), ("native", "native", "ba"), ("python", "native", "ab"), ("python", "native", "ba"),
])  # fmt: skip
def test_E_O1_captions_go_through_the_plugins_in_list_order(runs, first, second, texts):
    plugins = [appending(first, texts[0]), appending(second, texts[1]), actor("python", "last")]
    run = runs.finish(captions(plugins))
    came = {line["path"]: line["caption"] for line in calls(run, "last", hook="transform_caption")}
    assert len(came) == len(TEXTS) == 10
    for path, text in came.items():
        assert text == TEXTS[path.rpartition("/")[2].partition(".")[0]] + texts


def test_E_O1_the_shipped_plugin_too():
    chained = [changed(changed("x", "caption_append", text=first), "caption_append", text=second)
               for first, second in ("ab", "ba")]  # fmt: skip
    assert chained == ["xab", "xba"]


def test_E_2_1_all_images_of_a_batch_come_before_its_captions_and_those_before_its_samples(runs, place):
    language, ranks = place
    run = runs.finish(captions([actor(language, prefetch=0)]), ranks)
    seen = []
    for rank in range(ranks):
        lines = [line for line in calls(run, rank=rank) if "sample" in line]
        batches = len(lines) // 6
        assert [line["hook"] for line in lines] == [
            "transform_image", "transform_image", "transform_caption", "transform_caption", "transform_sample",
            "transform_sample",
        ] * batches  # fmt: skip
        for first in range(0, len(lines), 6):
            pairs = [[line["sample"] for line in lines[at : at + 2]] for at in range(first, first + 6, 2)]
            assert pairs[0] == pairs[1] == pairs[2]
            seen += pairs[0]
    assert len(seen) == len(set(seen)) == 10 // (2 * ranks) * 2 * ranks, "each picture once, on one rank"


def test_E_2_1_validation_data_is_not_changed(runs, language):
    data = {**captions([])["data"], "validation_fraction": 0.4}
    run = runs.finish(captions([actor(language)], data=data))
    trained = {line["path"] for line in calls(run, hook="transform_caption")}
    assert len(trained) == 6 and "on_validate_step_end" in hooks(run)


def test_E_2_1_sample_hooks_are_not_called_where_there_are_no_samples(runs, language):
    run = runs.finish(digits([actor(language)]))
    assert run.summary["status"] == "completed"
    of_samples = {"transform_image", "transform_caption", "transform_sample"}
    assert not of_samples & set(hooks(run))
    log = (run.directory / "logs" / "worker-0.log").read_text()
    assert all(f"actor has {hook}, which is never called" in log for hook in of_samples)


# ----- 7.5: the values of the shipped caption plugins -----


def test_E_caption_tags_are_joined_behind_the_caption():
    assert changed("hello world, one, two, three", "caption_shuffle", keep=3) == "hello world, one, two, three"


def test_E_caption_keep_keeps_tags_in_place():
    """Ours: in the original `min(keep, 0)` makes keep 0, 2 and 5 shuffle alike."""
    shuffled = sys.modules[type(shipped("caption_shuffle")).__module__].shuffled
    tags = ["one", "two", "three", "four"]
    assert shuffled(tags, 0, random.Random(555)) == ["three", "one", "four", "two"]
    assert shuffled(tags, 2, random.Random(555))[:2] == ["one", "two"]
    assert shuffled(tags, 5, random.Random(555)) == tags


@pytest.mark.parametrize("text, csv, left", [
    ("a red car , parked.", "red", "a car, parked."),
    ("red, a redder car", "red", ", a redder car"),
    ("a big red dog!", "big,red", "a dog!"),
], ids=["a-word", "no-part-of-a-word", "two-words"])  # fmt: skip
def test_E_caption_remove_using_csv(text, csv, left):
    assert changed(text, "caption_remove", csv=csv) == left


def test_E_caption_hint_from_the_folder():
    told = changed("Write a description.", "caption_hint", path="/pictures/Peru/x.jpg", source="leaf_directory")
    assert told == "Hint: Peru\nWrite a description."


def test_E_caption_hint_from_the_filename():
    """Ours: the original fails on an undefined name."""
    assert changed("b", "caption_hint", path="/pictures/Peru/Lima.jpg", source="filename") == "Hint: Lima\nb"


def test_E_caption_plugins_in_a_run(runs):
    plugins = [plugin("caption_remove", given={"csv": "a,the"}), plugin("caption_hint"), actor("native", "last")]
    run = runs.finish(captions(plugins))
    for line in calls(run, "last", hook="transform_caption"):
        assert line["caption"].startswith("Hint: captions\n")
        assert not {"a", "the"} & set(line["caption"].replace(",", " ").split())
