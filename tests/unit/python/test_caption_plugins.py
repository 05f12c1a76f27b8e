"""Plugins that change captions: exact strings of CONFORMANCE 7.5, and draws that belong to the sample."""

import json
import random

import pytest
from shipped_plugins import assert_refused, make, module_of

from bulkhead.testing import run_hook


def caption_of(plugin, caption, **about):
    return run_hook(plugin, "transform_caption", caption=caption, **about).value


def chain(plugins, caption):
    for plugin in plugins:
        caption = caption_of(plugin, caption)
    return caption


# ----- caption_append (E-O1) -----


def test_captions_are_chained_in_list_order():
    a, b = make("caption_append", text="a"), make("caption_append", text="b")
    assert chain([a, b], "x") == "xab"
    assert chain([b, a], "x") == "xba"


def test_caption_append_can_go_in_front():
    assert caption_of(make("caption_append", text="photo: ", front=True), "x") == "photo: x"


# ----- caption_shuffle -----

TAGS = ["one", "two", "three", "four"]


def test_caption_shuffle_keeps_the_first_tags_in_place():
    shuffled = module_of(make("caption_shuffle")).shuffled
    for keep, expected in (
        (0, ["three", "one", "four", "two"]),  # EveryDream2's, for any keep: its keep does nothing
        (2, ["one", "two", "four", "three"]),
        (4, TAGS),
        (5, TAGS),
    ):
        assert shuffled(TAGS, keep, random.Random(555)) == expected
    assert TAGS == ["one", "two", "three", "four"]


def test_caption_shuffle_leaves_the_prompt_in_front():
    assert caption_of(make("caption_shuffle", keep=3), "hello world, one, two, three") == "hello world, one, two, three"
    found = {caption_of(make("caption_shuffle"), "hello world, one, two", sample=sample) for sample in range(20)}
    assert found == {"hello world, one, two", "hello world, two, one"}
    found = {caption_of(make("caption_shuffle", prompt=False), "a, b", sample=sample) for sample in range(20)}
    assert found == {"a, b", "b, a"}


def test_caption_shuffle_takes_other_separators():
    assert caption_of(make("caption_shuffle", separator=" | ", keep=9), "a|b |  c|") == "a| b| c"
    assert caption_of(make("caption_shuffle"), "no tags here") == "no tags here"
    assert caption_of(make("caption_shuffle"), "") == ""


def test_caption_shuffle_draws_by_seed_epoch_and_sample_alone():
    text = ", ".join(["x", *"abcdefgh"])
    at = {"epoch": 2, "sample": 7, "run_seed": 3}
    first = caption_of(make("caption_shuffle"), text, **at)
    assert caption_of(make("caption_shuffle"), text, **at, rank=1, global_step=9, micro_batch=1) == first
    for change in ({"epoch": 3}, {"sample": 8}, {"run_seed": 4}):
        assert caption_of(make("caption_shuffle"), text, **{**at, **change}) != first
    batch = run_hook(make("caption_shuffle"), "transform_caption", caption=[text] * 3, sample=[5, 7, 9], path="x",
                     epoch=2, run_seed=3).value  # fmt: skip
    assert batch[1] == first


# ----- caption_remove -----


def test_caption_remove_takes_whole_words_out():
    for caption, csv, expected in (
        ("a red car , parked.", "red", "a car, parked."),
        ("red, a redder car", "red", ", a redder car"),
        ("a big red dog!", "big,red", "a dog!"),
        ("a big red dog!", " big , red,", "a dog!"),
        ("a photo of a photo of a cat", "photo of a", "a cat"),
        ("C++ and C", "C++", "and C"),
        ("Red", "red", "Red"),
        ("an old, old (c) house", "(c)", "an old, old house"),
    ):
        assert caption_of(make("caption_remove", csv=csv), caption) == expected


# ----- caption_hint -----


def test_caption_hint_tells_where_the_image_lies():
    for source, path, caption, expected in (
        ("leaf_directory", "/data/Peru/x.jpg", "Write a description.", "Hint: Peru\nWrite a description."),
        ("filename", "/data/Peru/old town.v2.jpg", "Describe.", "Hint: old town.v2\nDescribe."),
        ("leaf_directory", "/data/Peru/x.jpg", "In {hint}, near {hint}.", "In Peru, near Peru."),
        ("leaf_directory", "x.jpg", "Describe.", "Describe."),
    ):
        assert caption_of(make("caption_hint", source=source), caption, path=path) == expected


def test_caption_hint_reads_what_lies_beside_the_image(tmp_path):
    cases = (
        ("folder_tags", {"tags": ["old", "stone "]}, "tags: old, stone"),
        ("folder_tags", {"tags": "old,stone"}, "tags: old, stone"),
        ("folder_title_and_tags", {"title": " Cusco", "tags": ["old"]}, "title: Cusco, tags: old"),
        ("folder_title_and_tags", {"tags": ["old"]}, "tags: old"),
        ("image_title_and_tags", {"title": "Cusco"}, "title: Cusco"),
        ("folder_metadata", {"a": [1]}, 'metadata: {\n  "a": [\n    1\n  ]\n}'),
        ("folder_tags", {"title": "x"}, ""),
        ("image_title_and_tags", None, ""),
    )
    for number, (source, known, hint) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        if known is not None:
            (folder / ("x.json" if source.startswith("image") else "metadata.json")).write_text(json.dumps(known))
        expected = f"Hint: {hint}\nDescribe." if hint else "Describe."
        assert caption_of(make("caption_hint", source=source), "Describe.", path=str(folder / "x.jpg")) == expected


def test_caption_hint_names_the_file_that_is_wrong(tmp_path):
    for text, words in (("{", "is no JSON"), ("[1]", "must hold a map, not list")):
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(ValueError, match=f"{tmp_path}/metadata.json {words}"):
            caption_of(make("caption_hint", source="folder_tags"), "x", path=str(tmp_path / "x.jpg"))


# ----- caption_dropout -----


def test_caption_dropout_drops_a_share_of_the_captions():
    plugin = make("caption_dropout", probability=0.25)
    captions = run_hook(plugin, "transform_caption", caption=["x"] * 2000, path="p", sample=0).value
    assert set(captions) == {"", "x"}
    assert abs(captions.count("") / 2000 - 0.25) < 0.03


def test_caption_dropout_at_its_ends_drops_none_and_all():
    assert caption_of(make("caption_dropout", probability=0), "x") == "x"
    assert caption_of(make("caption_dropout", probability=1, replacement=" "), "x") == " "


def test_caption_dropout_drops_the_same_samples_on_every_rank():
    def dropped(**about):
        plugin = make("caption_dropout", probability=0.5)
        return [caption_of(plugin, "x", sample=sample, **about) for sample in range(64)]

    assert dropped(rank=0) == dropped(rank=1, global_step=5) != dropped(epoch=1)


def test_caption_plugins_refuse_what_makes_no_sense():
    for name, given, words in (
        ("caption_shuffle", {"keep": -1}, "keep must be at least 0, not -1"),
        ("caption_shuffle", {"separator": " "}, "separator must be a visible character"),
        ("caption_remove", {"csv": " , "}, 'csv must hold a word to remove, not " , "'),
        ("caption_hint", {"source": "folder"}, 'source must be one of leaf_directory, filename, .*, not "folder"'),
        ("caption_dropout", {"probability": 1.5}, "probability must be from 0 to 1, not 1.5"),
        ("caption_append", {}, "with.text is missing"),
    ):
        assert_refused(name, words, **given)
