"""Loading: good plugins in every form, and one sentence for each thing that can be wrong."""

import textwrap

import pytest

from bulkhead import loader

HEAD = "from bulkhead import Plugin\nfrom typing import *\n"


def load(config, scope="rank"):
    return loader.construct(loader.find_class(config), config, scope)


def refusal(config, scope="rank"):
    with pytest.raises(loader.Refusal) as caught:
        load(config, scope)
    found = caught.value
    assert found.failure["message"] == str(found)
    return found.stage, found.key, str(found)


def body(text):
    return HEAD + "class P(Plugin):\n" + textwrap.indent(textwrap.dedent(text), "    ")


# ----- Finding -----


def test_the_only_plugin_of_a_file_is_found_and_its_traits_are_told(plugin_file):
    config = plugin_file(body("def on_step_end(self, ctx): pass\nclaims = {'should_stop'}\nseeded = False"))
    traits = load(config).traits
    assert traits["hooks"] == ["on_step_end"] and traits["claims"] == ["should_stop"] and traits["class_name"] == "P"
    assert (traits["steers"], traits["stateless"], traits["seeded"], traits["stateful"]) == (True, False, False, True)
    assert traits["language"].startswith("python 3.") and len(traits["checksum"]) == 64


def test_a_class_is_picked_by_name_among_several(plugin_file):
    text = HEAD + "class Base(Plugin):\n  def setup(self, ctx): pass\nclass Child(Base): pass\n"
    assert load(plugin_file(text, class_name="Child")).hooks == ["setup"]
    assert refusal(plugin_file(text)) == (
        "find", "use", "plug.py has several plugins (Base, Child); name one: plug.py:Base")  # fmt: skip


def test_a_file_may_be_named_like_a_module_of_the_standard_library(plugin_file):
    text = body("def __init__(self): import json; json.dumps({})")
    assert load(plugin_file(text, name="json.py")).traits["class_name"] == "P"


def test_modules_beside_the_file_can_be_imported(plugin_file, tmp_path):
    (tmp_path / "helper_of_plug.py").write_text("VALUE = 3")
    assert load(plugin_file("import helper_of_plug\n" + body("value = helper_of_plug.VALUE"))).plugin.value == 3


def test_a_package_folder_with_relative_imports_and_re_exports(plugin_file, tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "inner.py").write_text(body("from .numbers_of_it import N"))
    (folder / "numbers_of_it.py").write_text("N = 4")
    config = plugin_file("from .inner import P", name="pack/__init__.py")
    assert load(config).plugin.N == 4
    assert load({**config, "class_name": "P"}).plugin.N == 4


def test_a_module_of_the_environment(plugin_file, tmp_path, monkeypatch):
    (tmp_path / "some_module_of_mine.py").write_text(body("pass"))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"module": "some_module_of_mine", "file": "", "class_name": "P", "with": {}}
    assert load(config).traits["class_name"] == "P"


def test_what_is_not_there_is_named(plugin_file, tmp_path):
    config = plugin_file(HEAD + "class EarlyStop(Plugin): pass\nother = 3\n", class_name="EarlyStp")
    assert refusal(config) == ("find", "use", 'plug.py has no class "EarlyStp"; did you mean "EarlyStop"?')
    assert refusal({**config, "class_name": "other"}) == (
        "check", "use", '"other" in plug.py is not a class derived from bulkhead.Plugin')  # fmt: skip
    missing = str(tmp_path / "no.py")
    assert refusal({**config, "file": missing}) == ("find", "use", f"{missing} does not exist")
    assert refusal({**config, "file": str(tmp_path)}) == (
        "find", "use", f"{tmp_path} is a folder without __init__.py, so it is not a Python package")  # fmt: skip
    assert refusal(plugin_file("x = 1")) == ("find", "use", "plug.py has no class derived from bulkhead.Plugin")
    stage, key, message = refusal({**config, "file": "", "module": "no_such_pkg.mod"})
    assert (stage, key) == ("find", "use") and message.startswith('there is no module "no_such_pkg" in ')


# ----- Short names -----

NAMED = """from bulkhead import Plugin, register
@register("ema")
class MovingAverage(Plugin): pass
class Other(Plugin): pass
"""


def test_a_class_is_found_by_its_short_name_and_by_its_own(plugin_file):
    assert load(plugin_file(NAMED, class_name="ema")).traits["class_name"] == "MovingAverage"
    assert load(plugin_file(NAMED, class_name="MovingAverage")).traits["class_name"] == "MovingAverage"
    assert load(plugin_file(NAMED, class_name="Other")).traits["class_name"] == "Other"


@pytest.mark.parametrize("wrong, right", [("emma", "ema"), ("MovingAvrage", "MovingAverage"), ("other", "Other")])
def test_the_nearest_name_is_one_of_either_kind(plugin_file, wrong, right):
    message = f'plug.py has no class "{wrong}"; did you mean "{right}"?'
    assert refusal(plugin_file(NAMED, class_name=wrong)) == ("find", "use", message)


@pytest.mark.parametrize(
    "text, message",
    [
        ('@register("ema")\nclass A(Plugin): pass\n@register("ema")\nclass B(Plugin): pass',
         'plug.py has two plugins named "ema": B (plug.py:5) and A (plug.py:3); rename one'),
        ('@register("B")\nclass A(Plugin): pass\nclass B(Plugin): pass',
         'plug.py has two plugins named "B": A (plug.py:3) and B (plug.py:5); rename one'),
        ("class A(Plugin): pass\n\nclass A(Plugin): pass",
         'plug.py has two plugins named "A", on lines 3 and 5; rename one'),
    ],
)  # fmt: skip
def test_two_classes_of_one_name_are_refused_with_both_places(plugin_file, text, message):
    config = plugin_file(f"from bulkhead import Plugin, register\n\n{text}\n", class_name="A")
    stage, key, found = refusal(config)
    assert (stage, key) == ("check", "use") and found == message


def test_helpers_of_one_name_are_nobodys_business(plugin_file):
    text = HEAD + "class H: pass\nclass H: pass\nclass P(Plugin): pass\n"
    assert load(plugin_file(text)).traits["class_name"] == "P"


@pytest.mark.parametrize(
    "decorated, message",
    [
        ("@register\nclass P(Plugin): pass", 'TypeError: register needs a name, as in @register("ema"), not <class'),
        ("@register('a:b')\nclass P(Plugin): pass", "ValueError: register: 'a:b' cannot be written in `use: FILE:NAME`"),
        ("@register('')\nclass P(Plugin): pass", "ValueError: register: '' cannot be written in `use: FILE:NAME`"),
        ("@register('x')\nclass P: pass", 'TypeError: @register("x") is for classes derived from bulkhead.Plugin, not'),
        ("@register('x')\n@register('y')\nclass P(Plugin): pass",
         'ValueError: P is registered as "y" already, so it cannot be "x" too'),
    ],
)  # fmt: skip
def test_what_is_no_name_or_no_plugin_cannot_be_registered(plugin_file, decorated, message):
    stage, _, found = refusal(plugin_file("from bulkhead import Plugin, register\n" + decorated))
    assert stage == "import" and message in found


def test_two_files_of_one_basename_are_two_plugins(plugin_file):
    text = "from bulkhead import Plugin, register\n@register('it')\nclass P(Plugin):\n  side = "
    left, right = plugin_file(text + "'left'", name="a/plug.py"), plugin_file(text + "'right'", name="b/plug.py")
    for config, side in ((left, "left"), (right, "right"), (left, "left")):
        loaded = load({**config, "class_name": "it"})
        assert loaded.plugin.side == side
    assert load(left).traits["checksum"] != load(right).traits["checksum"]


@pytest.mark.parametrize("use", ["", "Inner", "inner", "Alias"])
def test_a_class_from_a_sub_module_can_be_re_exported_by_a_file(plugin_file, tmp_path, use):
    folder = tmp_path / f"sub_of_{use or 'none'}"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "deep.py").write_text(
        "from bulkhead import Plugin, register\n@register('inner')\nclass Inner(Plugin):\n  def setup(self, ctx): pass\n"
    )
    name = "Inner as Alias" if use == "Alias" else "Inner"
    config = plugin_file(f"from {folder.name}.deep import {name}\n", name=f"re_{use}.py", class_name=use)
    loaded = load(config)
    assert (loaded.traits["class_name"], loaded.hooks) == ("Inner", ["setup"])


# ----- Importing and constructing -----


def test_what_an_import_raises_is_told_with_a_traceback(plugin_file):
    config = plugin_file("import no_such_thing\n")
    assert refusal(config) == (
        "import", "use", "importing plug.py raised ModuleNotFoundError: No module named 'no_such_thing'")  # fmt: skip
    with pytest.raises(loader.Refusal) as caught:
        load(config)
    failure = caught.value.failure
    assert failure["type"] == "ModuleNotFoundError"
    assert "plug.py" in failure["traceback"] and "bulkhead/" not in failure["traceback"]
    stage, key, message = refusal(plugin_file("def f(:\n"))
    assert (stage, key) == ("import", "use") and message.startswith("plug.py:1: ")


def test_what_a_constructor_raises_is_told(plugin_file):
    config = plugin_file(body("def __init__(self): raise ValueError('no good')"))
    assert refusal(config) == ("constructor", "", "the constructor of P raised ValueError: no good")


def test_a_constructor_that_ends_the_process_does_so(plugin_file):
    with pytest.raises(SystemExit):
        load(plugin_file(body("def __init__(self): raise SystemExit(3)")))


def test_attributes_that_will_not_survive_are_warned_about(plugin_file, capsys):
    text = "def __init__(self): self.file, self.lock, self.n = open(__file__), object(), 1\ntransient = {'lock'}"
    load(plugin_file(body(text)))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: P.file holds a _io.TextIOWrapper, which its state cannot carry")
    assert "lock" not in warning and warning.count("\n") == 1


# ----- Checking -----


@pytest.mark.parametrize(
    "text, message",
    [
        ("def on_step_ned(self, ctx): pass",
         'P.on_step_ned: there is no hook "on_step_ned"; did you mean "on_step_end"?'),
        ("def transform_batch(self, batch, ctx): pass",
         'P.transform_batch: there is no hook "transform_batch"; did you mean "transform_test_batch"?'),
        ("def should_save(self, ctx): pass",
         'P.should_save: there is no hook "should_save"; did you mean "should_stop"?'),
        ("def setpu(self, ctx): pass",
         'P.setpu is no hook but is named almost like one: did you mean "setup"? '
         "If not, begin its name with an underscore"),
        ("def configuer(self, config, ctx): pass",
         'P.configuer is no hook but is named almost like one: did you mean "configure"? '
         "If not, begin its name with an underscore"),
        ("def configure(self, config): pass", "P.configure must take (self, config, ctx), not (self, config)"),
        ("def transform_caption(self, caption): pass",
         "P.transform_caption must take (self, caption, ctx), not (self, caption)"),
        ("def transform_image(self): pass", "P.transform_image must take (self, image, ctx), not (self)"),
        ("def transform_sample(self, ctx): pass", "P.transform_sample must take (self, sample, ctx), not (self, ctx)"),
        ("def on_model_save(self, ctx): pass",
         'P.on_model_save: there is no hook "on_model_save"; did you mean "on_save_end"?'),
        ("steers = False\ndef transform_caption(self, caption, ctx): pass",
         "P says `steers = False`, so it cannot have transform_caption: it only watches"),
        ("setup = 3", "P.setup is a hook and must be a method, not 3"),
        ("def on_step_end(self): pass", "P.on_step_end must take (self, ctx), not (self)"),
        ("def transform_train_batch(self, batch): pass",
         "P.transform_train_batch must take (self, batch, ctx), not (self, batch)"),
        ("def load_state_dict(self): pass", "P.load_state_dict must take (self, state), not (self)"),
        ("async def on_step_end(self, ctx): pass",
         "P.on_step_end must be a plain method: a coroutine or generator is never run"),
        ("claims = {'train_bach'}", 'P.claims: there is no claim "train_bach"; did you mean "train_batch"?'),
        ("claims = 'train_batch'", "P.claims must be a set of names, not 'train_batch'"),
        ("steers = 0", "P.steers must be True or False, not 0"),
        ("raises = (3,)", "P.raises must be a tuple of exception types, not (3,)"),
        ("steers = False\ndef transform_train_batch(self, batch, ctx): pass",
         "P says `steers = False`, so it cannot have transform_train_batch: it only watches"),
    ],
)  # fmt: skip
def test_a_wrong_class_is_refused_with_a_sentence(plugin_file, text, message):
    assert refusal(plugin_file(body(text))) == ("check", "use", message)


@pytest.mark.parametrize("hook", ["transform_train_batch", "transform_test_batch", "transform_image"])
@pytest.mark.parametrize("scope", ["job", "node"])
def test_a_transform_in_a_shared_process_must_be_stateless(plugin_file, hook, scope):
    text = body(f"def {hook}(self, it, ctx): pass")
    assert refusal(plugin_file(text), scope) == (
        "check", "use",
        f"P has {hook} and scope {scope}, so it must say `stateless = True`; use scope rank to keep state")  # fmt: skip
    assert load(plugin_file(text + "\n    stateless = True\n"), scope).traits["stateful"] is False


def test_all_forms_of_methods_are_accepted(plugin_file):
    text = """
        @staticmethod
        def setup(ctx): pass
        @classmethod
        def on_load(cls, ctx): pass
        def on_step_end(self, ctx, extra=1): pass
        def on_epoch_end(self, *args): pass
        def state_dict(self, ctx): pass
        def load_state_dict(self, state, ctx): pass
        on_colour = "blue"
        def helper(self): pass
    """
    assert load(plugin_file(body(text))).hooks == [
        "setup", "on_epoch_end", "on_step_end", "on_load", "state_dict", "load_state_dict"]  # fmt: skip


# ----- Arguments -----

SIGNATURE = body(
    """
    def __init__(self, a: int, b: float = 1.5, c: bool = False, d: str = "x", e: Optional[int] = None,
                 f: List[int] = (), g: Union[int, List[int]] = 0, h: Literal["x", "y"] = "x",
                 i: "Tuple[int, ...]" = (), j=None):
        self.given = (a, b, c, d, e, f, g, h, i, j)
    """
)


def test_arguments_arrive_as_their_annotations_say(plugin_file):
    plugin = load(plugin_file(SIGNATURE, a=1, b=2, c=True, e=None, f=[1], g=[2], h="y", i=[3], j={"k": 1})).plugin
    assert plugin.given == (1, 2.0, True, "x", None, [1], [2], "y", (3,), {"k": 1})
    assert type(plugin.given[1]) is float


@pytest.mark.parametrize(
    "given, key, message",
    [
        ({}, "with.a", "with.a is missing: P needs it"),
        ({"a": 1, "bb": 2}, "with.bb", 'with.bb: P has no argument "bb"; did you mean "b"?'),
        ({"a": 1, "colour": 2}, "with.colour",
         'with.colour: P has no argument "colour"; it has a, b, c, d, e, f, g, h, i, j'),
        ({"a": "one"}, "with.a", 'with.a must be an integer, not "one"'),
        ({"a": True}, "with.a", "with.a must be an integer, not true"),
        ({"a": 1.5}, "with.a", "with.a must be an integer, not 1.5"),
        ({"a": 1, "b": "x"}, "with.b", 'with.b must be a number, not "x"'),
        ({"a": 1, "c": 1}, "with.c", "with.c must be a boolean, not 1"),
        ({"a": 1, "d": 1}, "with.d", "with.d must be a string, not 1"),
        ({"a": 1, "e": "x"}, "with.e", 'with.e must be an integer or null, not "x"'),
        ({"a": 1, "f": ["x"]}, "with.f", "with.f must be a list of integers, not ['x']"),
        ({"a": 1, "g": "x"}, "with.g", 'with.g must be an integer or a list of integers, not "x"'),
        ({"a": 1, "h": "z"}, "with.h", 'with.h must be one of "x", "y", not "z"'),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_their_key(plugin_file, given, key, message):
    assert refusal(plugin_file(SIGNATURE, **given)) == ("arguments", key, message)


def test_a_class_without_a_constructor_takes_no_arguments(plugin_file):
    assert refusal(plugin_file(body("pass"), a=1)) == ("arguments", "with.a", "with.a: P takes no arguments")


def test_keywords_of_any_name_are_accepted_where_the_constructor_does(plugin_file):
    text = body("def __init__(self, **rest): self.rest = rest")
    assert load(plugin_file(text, a=1, b="x")).plugin.rest == {"a": 1, "b": "x"}
