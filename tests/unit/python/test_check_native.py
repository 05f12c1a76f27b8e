"""``python -m bulkhead.check`` on a native plugin: the same messages, another host.  Needs the host to be built."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, native_hosts, table
from test_check import environment, rows

SDK = ROOT / "plugin-host" / "sdk" / "include"
HOSTS = native_hosts()
SECONDS = 120

pytestmark = pytest.mark.skipif(not HOSTS or not shutil.which("c++"), reason="the native host was not built")

SOURCE = """
#include <csignal>
#include <stdexcept>
#include <string>
#include "bulkhead/plugin.h"
struct Everything : bulkhead::Plugin {
  explicit Everything(const bulkhead::Options& with) : how_(with.get<std::string>("how", "")) {}
  bulkhead::Changes configure(const bulkhead::Config&, bulkhead::Context&) override { return {{"train.seed", 5}}; }
  void on_step_end(bulkhead::Context& ctx) override {
    if (ctx.all_gather("mine").size() != 2) throw std::runtime_error("two ranks were expected");
    if (how_ == "throw") throw std::runtime_error("no good");
    if (how_ == "segv") std::raise(SIGSEGV);
    if (how_ == "hang") for (;;) {}
    if (how_ == "exit") std::exit(4);
  }
  void on_epoch_end(bulkhead::Context& ctx) override {
    bulkhead::Batch& weights = ctx.weights();
    const auto bias = weights.mutable_view<float>("head.bias").flat();
    for (float& value : bias) value = 1;
    ctx.load_weights(weights);
    ctx.set("lr", 0.5);
  }
  std::string transform_caption(std::string caption, bulkhead::Context& ctx) override {
    return caption + " " + std::to_string(ctx.sample.value_or(-1));
  }
  void transform_image(bulkhead::Image& image, bulkhead::Context&) override { image.mutable_view()(0, 0, 0) = 7; }
  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context&) override {
    if (how_ == "remove") batch.remove("input_ids");
  }
  std::string state_dict() override { return "state"; }
  void load_state_dict(std::string_view state) override {
    if (state != "state") throw std::runtime_error("another state");
  }
  std::string how_;
};
BULKHEAD_PLUGIN(Everything)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    (folder / "all.cpp").write_text(SOURCE)
    subprocess.run(["c++", "-std=c++20", "-shared", "-fPIC", "-I", SDK, folder / "all.cpp", "-o", folder / "all.so"],
                   check=True, timeout=SECONDS)  # fmt: skip
    return folder / "all.so"


def check(library, how="", *arguments):
    command = [sys.executable, "-m", "bulkhead.check", str(library), "--native-host", str(HOSTS[-1]), "--with",
               f'{{"how": "{how}"}}', "--deadline", "5", *arguments]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


def test_every_kind_of_hook_is_called_and_every_question_answered(library):
    status, out, err = check(library)
    assert (status, err) == (0, "") and f"{library}: Everything, c++" in out
    table = rows(out)
    assert table["configure"] == (2, "changes train.seed") and table["on_step_end"] == (5, "ok")
    assert table["on_epoch_end"] == (2, "lr=0.5 + loads 1 weights")
    assert table["transform_caption"] == (10, "changes captions")
    assert table["transform_image"] == (10, "changes images")
    assert table["state_dict"][1] == "5 bytes" and table["load_state_dict"] == (1, "ok")


@table(
    "how, words",
    [
        ("throw", "on_step_end: raised std::runtime_error: no good (5 times)"),
        ("segv", "on_step_end: its process died of SIGSEGV (call 1, step 0); it is not called again"),
        ("hang", "on_step_end: nothing came within the deadline of 5 s (call 1, step 0); it is not called again"),
        ("exit", "on_step_end: its process ended with status 4 (call 1, step 0); it is not called again"),
        ("remove", 'transform_train_batch: takes "input_ids" out of the batch (10 times)'),
    ],
)
def test_what_a_native_plugin_does_wrong_is_said_as_for_python(library, how, words):
    status, out, _ = check(library, how)
    assert status == 1 and f"\n{words}\n" in out and rows(out)["on_epoch_end"][0] == 2


def test_a_wrong_argument_is_refused_and_a_foreign_file_misbehaves(library, tmp_path):
    status, out, err = check(library, "", "--with", '{"hwo": "x"}')
    assert status == 2 and out == "" and 'did you mean "how"?' in err
    (tmp_path / "foreign.so").write_bytes(b"\x7fELF")
    status, out, err = check(tmp_path / "foreign.so")
    assert status == 1 and out == "" and "foreign.so is truncated" in err
