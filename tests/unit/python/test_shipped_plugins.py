"""What all shipped Python plugins have in common, and whether plugins/README.md tells the truth about them."""

import ast
import inspect
import re

import pytest
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


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_says_in_one_line_what_it_does(name):
    line = first_line(name)
    assert line.endswith((".", ": the tool of the fault tests and the quickstart.")) and len(line) < 125


@pytest.mark.parametrize("name", sorted(set(NAMES) - ELSEWHERE))
def test_the_readme_has_the_arguments_of_a_plugin(name):
    cls = find_class({"file": str(PLUGINS / f"{name}.py"), "module": "", "class_name": ""})
    parameters = {} if cls.__init__ is object.__init__ else dict(inspect.signature(cls.__init__).parameters)
    parameters.pop("self", None)
    given = {name: None if p.default is p.empty else p.default for name, p in parameters.items()}
    told = yaml.safe_load(ARGUMENTS[name])
    assert list(told) == list(given)
    assert told == {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


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
