"""The table in README.md names every test here, and no other."""

import ast
import re

from conftest import HERE


def test_the_table_of_cases_names_each_test_once():
    named = re.findall(r"`(test_\w+)`", (HERE / "README.md").read_text())
    defined = [
        node.name
        for path in HERE.glob("*_test.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and path.stem != "readme_test"
    ]
    assert sorted(named) == sorted(defined)
