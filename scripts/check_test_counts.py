#!/usr/bin/env python3
"""Fails if fewer tests than expected carry a label: a test that silently stopped running is worse than a failing one.

The expectations are lines `label count`; `#` begins a comment.  --update writes the counts of the build there.
"""

import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path


def count_labels(build_dir):
    """label -> number of ctest entries.  Discovers the tests, so the build must be complete."""
    shown = subprocess.run(["ctest", "--test-dir", str(build_dir), "--show-only=json-v1"],
                           capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    counts = collections.Counter()
    for test in json.loads(shown.stdout)["tests"]:
        for item in test.get("properties", []):
            if item["name"] == "LABELS":
                counts.update(item["value"])
    return counts


def read_expected(path):
    expected = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdigit():
            sys.exit(f"{path}:{number}: a line is `label count`, not {line!r}")
        expected[words[0]] = int(words[1])
    return expected


def too_few(expected, counts):
    return [f"label {label}: {counts.get(label, 0)} tests, at least {least} expected"
            for label, least in sorted(expected.items()) if counts.get(label, 0) < least]


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build_dir", type=Path)
    parser.add_argument("expected", type=Path)
    parser.add_argument("--update", action="store_true", help="write the counts of this build")
    options = parser.parse_args(arguments)
    try:
        counts = count_labels(options.build_dir)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"check_test_counts: ctest cannot list the tests of {options.build_dir}: {error}")
    if options.update:
        lines = ["# Fewest tests under each label (scripts/check_test_counts.py).\n"]
        lines += [f"{label} {counts[label]}\n" for label in sorted(counts)]
        options.expected.write_text("".join(lines), encoding="utf-8")
    if not options.expected.is_file():
        sys.exit(f"check_test_counts: {options.expected} is missing; --update writes it")
    lines = too_few(read_expected(options.expected), counts)
    print("\n".join(lines) or "tests: " + ", ".join(f"{label} {counts[label]}" for label in sorted(counts)))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
