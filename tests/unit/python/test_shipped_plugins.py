"""What all shipped Python plugins have in common, and whether plugins/README.md tells the truth about them."""

import ast
import inspect
import re

import yaml
from shipped_plugins import PLUGINS

from bulkhead.loader import find_class
from bulkhead.testing import load, run_hook

README = (PLUGINS / "README.md").read_text()
NAMES = sorted(file.stem for file in PLUGINS.glob("[!_]*.py"))
ARGUMENTS = dict(re.findall(r"^\| `(\w+)` .*\| `(\{.*\})` \|$", README, re.MULTILINE))
ELSEWHERE = {"saboteur", "tensorboard"}  # described in its own file; needs its own environment


def first_line(name):
    return ast.get_docstring(ast.parse((PLUGINS / f"{name}.py").read_text())).splitlines()[0]


def defaults(name):
    """Argument → default of a plugin's constructor, None where there is none."""
    cls = find_class({"file": str(PLUGINS / f"{name}.py"), "module": "", "class_name": ""})
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    values = {one.name: None if one.default is one.empty else one.default for one in parameters}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def test_each_plugin_says_in_one_sentence_what_it_does():
    for name in NAMES:
        assert first_line(name).endswith(".") and len(first_line(name)) < 120, name


def test_the_readme_has_the_arguments_of_each_plugin():
    for name in sorted(set(NAMES) - ELSEWHERE):
        told = yaml.safe_load(ARGUMENTS[name])
        assert (name, list(told.items())) == (name, list(defaults(name).items()))


def test_the_readme_names_every_plugin_and_no_other():
    told = set(re.findall(r"^\| `(\w+)`", README, re.MULTILINE))
    assert told == set(NAMES) | {"token_noise"}


def test_the_readmes_example_does_what_its_test_says(tmp_path, monkeypatch):
    code, test = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "guard.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(test, scope)
    scope["test_three_large_norms_halve_the_rate"]()
    guard = load("guard.py")
    assert run_hook(guard, "configure", config={}).value == {"optimizer.grad_clip": 10.0}
    assert run_hook(guard, "on_epoch_end", weights={"w": [1.0, -3.0]}).metrics == {"largest_weight": 3.0}
    assert run_hook(guard, "on_epoch_end", weights={"w": [float("nan")]}, raise_errors=False).fatal
