"""The table of hooks against the C++ one, and what counts as a misspelt hook."""

import re

import pytest
from conftest import ROOT

from bulkhead import Plugin, hooks


def test_the_table_is_that_of_cpp():
    source = (ROOT / "protocol" / "src" / "hooks.cpp").read_text()
    table = re.findall(r'HookInfo\{"(\w+)",\s*(?:HookKind::)?k(\w+),', source)
    assert table, "hooks.cpp has another form than this test reads"
    assert {name: kind.lower() for name, kind in table} == hooks.HOOKS
    assert [name for name, _ in table] == list(hooks.HOOKS)


def test_who_waits_for_what_is_as_in_cpp():
    source = (ROOT / "protocol" / "src" / "hooks.cpp").read_text()
    paces = dict(re.findall(r'HookInfo\{"(\w+)",\s*kNotify,\s*k(\w+),', source))
    for pace, names in (("Start", hooks.START), ("Step", hooks.STEP), ("Waited", hooks.WAITED)):
        assert sorted(names) == sorted(name for name in paces if paces[name] == pace)


def test_every_hook_is_a_documented_method_that_does_nothing():
    for hook in hooks.HOOKS:
        assert getattr(Plugin, hook).__doc__
    assert vars(Plugin()) == {}


def test_public_names_of_plugin_are_hooks_and_class_attributes_only():
    public = {name for name in vars(Plugin) if not name.startswith("_")}
    assert public - set(hooks.HOOKS) == {"claims", "steers", "transient", "stateless", "seeded", "raises"}


@pytest.mark.parametrize(
    "name, meant",
    [
        ("setpu", "setup"),
        ("set_up", "setup"),
        ("state_dcit", "state_dict"),
        ("load_statedict", "load_state_dict"),
        ("shuold_stop", "should_stop"),
        ("step", ""),
        ("reset", ""),
        ("_setup", ""),
        ("setup", ""),
        ("state", ""),
        ("configuer", "configure"),
        ("confgure", "configure"),
        ("config", ""),
        ("transfrom_caption", "transform_caption"),
        ("no_log", "on_log"),
        ("transform", ""),
    ],
)
def test_a_slip_of_the_fingers_is_noticed_and_honest_names_are_not(name, meant):
    assert hooks.mistaken_hook(name) == meant


def test_the_nearest_name_is_found_as_in_cpp():
    assert hooks.nearest("on_step_stop", hooks.HOOKS) == "on_step_start"
    assert hooks.nearest("patiense", ["patience", "min_delta"]) == "patience"
    assert hooks.nearest("zzzz", ["patience"]) == ""
