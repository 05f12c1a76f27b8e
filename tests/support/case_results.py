"""What became of each pytest case, for ctest entries that share one run of their file.

As a plugin (``-p case_results``, CASE_RESULTS names a file) it writes a JSON object a line: {case, outcome, text}.  As a
program, ``case_results.py FILE CASE``, it prints what the case left and exits as a run of that case alone would: 0 when it
passed or was skipped, else 1; a case without a result has not been run, or ended the process.
"""

import json
import os
import sys


def pytest_configure(config):
    open(os.environ["CASE_RESULTS"], "w", encoding="utf-8").close()


def pytest_runtest_logreport(report):
    if report.when != "call" and report.outcome == "passed":
        return  # set-up and tear-down count where they fail or skip
    text = "" if report.outcome == "passed" else report.longreprtext or str(report.longrepr)
    sections = "".join(f"\n--- {name}\n{content}" for name, content in report.sections)
    line = {"case": report.nodeid, "outcome": report.outcome, "text": text + (sections if text else "")}
    with open(os.environ["CASE_RESULTS"], "a", encoding="utf-8") as results:
        results.write(json.dumps(line) + "\n")


def main():
    path, case = sys.argv[1:]
    try:
        with open(path, encoding="utf-8") as results:
            lines = [line for line in map(json.loads, results) if line["case"] == case]
    except FileNotFoundError:
        lines = []
    for line in lines:
        print(line["outcome"], line["text"])
    if not lines:
        print(f"{case}: no result: its file was not run, or the process ended in it")
    return 0 if lines and all(line["outcome"] in ("passed", "skipped") for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
