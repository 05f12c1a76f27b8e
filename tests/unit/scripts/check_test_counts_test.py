"""check_test_counts.py on a hand-written ctest tree."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import check_test_counts  # noqa: E402


@pytest.fixture
def build(tmp_path):
    lines = []
    for name, label in (("a", "unit"), ("b", "unit"), ("c", "fault")):
        lines += [f'add_test({name} "true")', f'set_tests_properties({name} PROPERTIES LABELS "{label}")']
    (tmp_path / "CTestTestfile.cmake").write_text("\n".join(lines))
    return tmp_path


def check(build, text, *options):
    expected = build / "expected.txt"
    if text is not None:
        expected.write_text(text)
    return check_test_counts.main([str(build), str(expected), *options])


def test_accepts_as_many_tests_as_expected_or_more(build, capsys):
    assert check(build, "# fewest\nunit 2\nfault 0  # on some machines\n") == 0
    assert capsys.readouterr().out == "tests: fault 1, unit 2\n"


def test_names_each_label_that_lost_tests(build, capsys):
    assert check(build, "unit 3\nfault 1\ncontract 4\n") == 1
    assert capsys.readouterr().out.splitlines() == ["label contract: 0 tests, at least 4 expected",
                                                    "label unit: 2 tests, at least 3 expected"]


def test_update_writes_the_counts(build):
    assert check(build, None, "--update") == 0
    assert check_test_counts.read_expected(build / "expected.txt") == {"unit": 2, "fault": 1}


def test_refuses_a_malformed_line_and_a_missing_file(build):
    with pytest.raises(SystemExit, match=r"expected.txt:2: a line is `label count`, not 'unit two'"):
        check(build, "fault 1\nunit two\n")
    with pytest.raises(SystemExit, match="is missing; --update writes it"):
        check_test_counts.main([str(build), str(build / "absent.txt")])
