"""What ``bulkhead plugin new`` writes.  @NAME@, @CLASS@ and @SDK@ are filled in."""

PYTHON = '''"""Stops training when the loss has been too high for some steps.

    plugins:
      - use: @NAME@.py
        with: {limit: 10.0, patience: 3}
"""

import math

from bulkhead import Plugin


class @CLASS@(Plugin):
    def __init__(self, limit: float = 10.0, patience: int = 3):
        """limit: the highest loss that is still fine.

        patience: steps in a row above it before training stops, at least 1.
        """
        if patience < 1:
            raise ValueError(f"patience must be at least 1, not {patience}")
        self.limit, self.patience = limit, patience
        self.high = 0  # steps in a row; plain attributes survive crashes and resumes

    def on_step_end(self, ctx):
        loss = ctx.metrics.get("loss", math.nan)
        self.high = 0 if loss <= self.limit else self.high + 1  # NaN is never fine
        ctx.log_metrics({"high": self.high})
        if self.high >= self.patience:
            ctx.control.stop(f"the loss was above {self.limit:g} for {self.high} steps")
'''

PYTHON_TEST = '''"""Tests of @NAME@.py, without a run."""

import math
import pathlib

import pytest
from bulkhead.loader import Refusal
from bulkhead.testing import load, run_hook

FILE = str(pathlib.Path(__file__).with_name("@NAME@.py"))


def step(plugin, loss):
    return run_hook(plugin, "on_step_end", metrics={"loss": loss})


def test_it_stops_when_the_loss_stays_high():
    plugin = load(FILE, limit=2.0, patience=2)
    assert not step(plugin, 3.0).control
    result = step(plugin, math.nan)
    assert result.control.stop and result.control.reason == "the loss was above 2 for 2 steps"
    assert result.metrics == {"high": 2}


def test_one_good_step_is_enough_to_go_on():
    plugin = load(FILE, limit=2.0, patience=2)
    assert not any(step(plugin, loss).control for loss in (3.0, 1.0, 3.0, 2.0))


def test_it_goes_on_counting_after_a_crash():
    first, second = load(FILE, limit=2.0, patience=2), load(FILE, limit=2.0, patience=2)
    step(first, 3.0)
    run_hook(second, "load_state_dict", state=run_hook(first, "state_dict").value)
    assert step(second, 3.0).control.stop


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(Refusal, match="patience must be at least 1, not 0"):
        load(FILE, patience=0)
'''

CPP = """// @CLASS@: stops training when the loss is too high, or not a number.
//
//   plugins: [{use: @NAME@.so, with: {limit: 10.0}}]
//
// Built by test_@NAME@.sh, or among bulkhead's own plugins by this line in
// plugins/CMakeLists.txt:  bulkhead_plugin(@NAME@ @NAME@.cpp)
#include <string>

#include "bulkhead/plugin.h"

struct @CLASS@ : bulkhead::Plugin {
  // Every attribute is a constant after the constructor.
  static constexpr bool stateless = true;

  // limit: the highest loss that is still fine, above 0.
  explicit @CLASS@(const bulkhead::Options& with) : limit_(with.get("limit", 10.0)) {
    if (!(limit_ > 0)) with.reject("limit", "must be above 0");
  }

  void on_step_end(bulkhead::Context& ctx) override {
    const auto loss = ctx.metrics.find("loss");
    if (loss == ctx.metrics.end() || loss->second <= limit_) return;  // NaN is never fine
    ctx.control.stop("the loss is " + std::to_string(loss->second));
  }

 private:
  double limit_;
};

BULKHEAD_PLUGIN(@CLASS@)
"""

CPP_TEST = """#!/usr/bin/env bash
# Builds @NAME@.so and has every hook of it called, in a process of its own.
#   BULKHEAD   the bulkhead program (default: the one in PATH)
#   CXX        a compiler that knows C++20 (default c++)
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")"
sdk=${BULKHEAD_SDK:-@SDK@}
bulkhead=${BULKHEAD:-bulkhead}
[ -f "$sdk/bulkhead/plugin.h" ] || { echo "test_@NAME@: no bulkhead/plugin.h in $sdk; set BULKHEAD_SDK" >&2; exit 2; }
command -v "$bulkhead" >/dev/null || { echo "test_@NAME@: no program $bulkhead; set BULKHEAD" >&2; exit 2; }

"${CXX:-c++}" -std=c++20 -O2 -Wall -Wextra -shared -fPIC -I "$sdk" @NAME@.cpp -o @NAME@.so

report=$("$bulkhead" plugin check ./@NAME@.so --with '{"limit": 3.8}')
echo "$report"
# The losses of a check fall from 4 on: the first is too high, a later one is not.
grep -Eq '^  on_step_end +[0-9].*stop' <<<"$report" || { echo "test_@NAME@: it never stopped" >&2; exit 1; }
grep -Eq '^  on_step_end +[0-9].*ok' <<<"$report" || { echo "test_@NAME@: it always stopped" >&2; exit 1; }
"""
