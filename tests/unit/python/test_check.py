"""``python -m bulkhead.check`` on real processes: clean plugins, and every way to misbehave."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest
from conftest import ROOT, table

from bulkhead import hooks

HEAD = "import os, sys, time\nimport msgpack\nimport numpy as np\nfrom bulkhead import Plugin, host, register\n"
SECONDS = 60


def command(*arguments):
    return [sys.executable, "-m", "bulkhead.check", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT / "plugin-host" / "python")}


@pytest.fixture
def check(tmp_path):
    """Checks the class P with this body, or a file; (exit status, stdout, stderr)."""

    def run(body, *arguments, file=None):
        path = tmp_path / "p.py"
        if file is None:
            path.write_text(HEAD + "class P(Plugin):\n" + textwrap.indent(textwrap.dedent(body), "    "))
        done = subprocess.run(command(file or path, *arguments), env=environment(), capture_output=True, text=True,
                              timeout=SECONDS)  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def rows(out):
    """hook → (calls, result) of the table."""
    found = re.findall(r"^  (\w+) +(\d+)  (.*)$", out, re.MULTILINE)
    return {name: (int(calls), re.split(r" {2,}", rest.strip())[-1]) for name, calls, rest in found}


def gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


# ----- Clean -----


def test_every_hook_is_called_in_the_order_of_a_run_and_timed(check, tmp_path):
    order = tmp_path / "order"
    body = f"def __init__(self): self.log = open({str(order)!r}, 'a', buffering=1)\ntransient = {{'log'}}\n"
    for hook, kind in hooks.HOOKS.items():
        if hook == "load_state_dict":
            body += "def load_state_dict(self, state): self.log.write('load_state_dict\\n')\n"
        else:
            ids = "numpy.zeros((4, 8), 'i8')"
            result = {
                "state_dict": "return {'n': 1}", "keep": "return True", "encode": "return {'input_ids': [1, 2]}",
                "collate": f"import numpy; return {{'input_ids': {ids}, 'labels': {ids}}}",
            }.get(hook, "return None")  # fmt: skip
            body += f"def {hook}(self, *a): self.log.write('{hook}\\n'); {result}\n"
    status, out, err = check(body)
    assert (status, err) == (0, "") and out.endswith("\nclean\n")
    table = rows(out)
    assert list(table) == list(hooks.HOOKS) and all(calls for calls, _ in table.values())
    assert list(dict.fromkeys(order.read_text().split())) == [
        "configure", "setup", "state_dict", "preprocess", "keep", "encode", "on_train_start", "on_epoch_start",
        "on_step_start", "transform_image", "transform_caption", "transform_sample", "collate",
        "transform_train_batch", "on_backward_end", "on_substep_end",
        "on_optimizer_step_start", "on_optimizer_step_end", "on_step_end", "should_stop", "on_log",
        "on_validate_start", "transform_validate_batch", "on_validate_step_end", "on_validate_end", "on_save_start",
        "on_save_end", "on_epoch_end", "load_state_dict", "on_load", "on_train_end", "on_test_start",
        "transform_test_batch", "on_test_step_end", "on_test_end", "on_exception"]  # fmt: skip


def test_what_a_plugin_asks_for_is_in_the_table(check):
    body = """
        def __init__(self, limit: float): self.limit = limit
        def on_step_end(self, ctx):
            if ctx.metrics["loss"] < self.limit: ctx.control.stop("low")
        def on_epoch_start(self, ctx): ctx.set("grad_accum", 2)
        def on_epoch_end(self, ctx):
            weights = ctx.weights()
            assert ctx.all_gather(ctx.rank) == [0, 0]
            ctx.load_weights({"head.bias": weights["head.bias"] + 1})
        def configure(self, config, ctx): return {"train.accumulate": 2}
    """
    status, out, _ = check(body, "--with", '{"limit": 3.3}', "--steps", 4)
    assert status == 0
    table = rows(out)
    assert table["on_step_end"] == (5, "ok ×2, stop ×3")
    assert table["on_epoch_start"] == (2, "grad_accum=2")
    assert table["on_epoch_end"] == (2, "loads 1 weights") and table["configure"][1] == "changes train.accumulate"


def test_hooks_of_rows_are_called_with_rows_and_samples(check):
    body = """
        def preprocess(self, rows, ctx): return {name: column * 2 for name, column in rows.items()}
        def keep(self, row, ctx): return ctx.sample % 2 == 0 and bool(row["messages"])
        def encode(self, conversation, ctx): return {"input_ids": [1, 2, 3]}
        def collate(self, samples, ctx):
            import numpy as np
            ids = np.stack([sample["input_ids"][:5] for sample in samples])
            return {"input_ids": ids, "labels": ids[:, :4] if ctx.global_step == 2 else ids}
        def transform_train_batch(self, batch, ctx): assert -100 in batch["labels"]
    """
    status, out, _ = check(body)
    table = rows(out)
    assert table["preprocess"] == (2, "8 rows") and table["keep"] == (2, "judges 4 rows")
    assert table["encode"] == (2, "4 samples") and table["collate"][1] == "makes input_ids, labels"
    assert status == 1
    assert "collate: gives int64 [4, 5] and labels int64 [4, 4] for 4 samples (" in out


@table(
    "data, names", [("text", "input_ids labels"), ("mnist", "images labels"), ("csv", "features labels"),
                    ("captions", "images input_ids"), ("rows", "input_ids labels")]
)  # fmt: skip
def test_batches_have_the_form_of_the_data_set(check, data, names):
    body = f"""
        def transform_train_batch(self, batch, ctx):
            assert list(batch) == {names.split()}
            batch.mutable(list(batch)[0])
    """
    status, out, _ = check(body, "--data", data)
    assert status == 0 and rows(out)["transform_train_batch"] == (10, f"changes {names.split()[0]}")


def test_a_caption_plugin_needs_no_options(check):
    body = """
        def transform_caption(self, caption, ctx): return caption.upper()
        def transform_train_batch(self, batch, ctx): assert "images" in batch
    """
    status, out, _ = check(body)
    assert status == 0 and rows(out)["transform_caption"] == (10, "changes captions")


def test_a_class_is_named_behind_a_colon(check, tmp_path):
    (tmp_path / "two.py").write_text(HEAD + "@register('one')\nclass A(Plugin): pass\nclass B(Plugin): pass\n")
    assert check("", file=f"{tmp_path}/two.py:one")[1].startswith(f"{tmp_path}/two.py:one: A, python 3.")
    assert check("", file=f"{tmp_path}/two.py:B")[0] == 0
    status, _, err = check("", file=f"{tmp_path}/two.py")
    assert status == 2 and "has several plugins (A, B)" in err


# ----- Misbehaviour -----


def test_an_exception_is_shown_once_with_its_traceback(check):
    status, out, _ = check("def on_step_end(self, ctx): raise ValueError('no good')\ndef on_log(self, ctx): pass")
    assert status == 1 and out.endswith("\nthe plugin misbehaved\n")
    assert "\non_step_end: raised ValueError: no good (5 times)\n" in out and out.count("Traceback") == 1
    assert rows(out)["on_step_end"] == (5, "raised ValueError") and rows(out)["on_log"] == (5, "ok")


@table(
    "death, words",
    [
        ("os.kill(os.getpid(), 11)", "its process died of SIGSEGV (call 1, step 0); it is not called again"),
        ("os.abort()", "its process died of SIGABRT"),
        ("os._exit(0)", "its process ended with status 0"),
        ("sys.exit(3)", "its process ended with status 3"),
        ("time.sleep(3600)", "nothing came within the deadline of 2 s"),
        ("host.current().data_socket.send(b'\\xc1')\n    time.sleep(3600)", "it talks garbage: not an envelope"),
        ("host.current().data_socket.send(msgpack.packb({'type': 'reply'}))\n    time.sleep(3600)",
         'it talks garbage: its reply has no "seq", or one of another type'),
    ],
)  # fmt: skip
def test_a_hook_that_ends_the_process_is_named_and_the_others_are_still_called(check, death, words):
    body = f"def on_step_end(self, ctx):\n    {death}\ndef on_log(self, ctx): pass\ndef on_epoch_end(self, ctx): pass"
    status, out, _ = check(body, "--deadline", 2)
    assert status == 1 and f"\non_step_end: {words}" in out
    assert rows(out)["on_log"][0] == 5 and rows(out)["on_epoch_end"][0] == 2


def test_state_survives_the_death_of_another_hook(check):
    body = """
        def __init__(self): self.n = 0
        def on_epoch_start(self, ctx): self.n += 1
        def on_step_end(self, ctx):
            if ctx.global_step == 3: os._exit(1)
        def on_load(self, ctx): ctx.log(self.n); assert self.n == 1, self.n
    """
    status, out, _ = check(body)
    assert status == 1 and "on_load: raised" not in out and rows(out)["on_load"] == (1, "ok")


@table(
    "do, words",
    [
        ("del batch['labels']", 'takes "labels" out of the batch'),
        ("batch['more'] = [1]", 'adds "more" to the batch, which had no such tensor'),
        ("batch['labels'] = batch['labels'].astype('f4')", 'makes "labels" float32; it must stay int64'),
        ("batch['labels'] = batch['labels'][: 1 + ctx.global_step % 2]",
         'gives "labels" as int64 [2, 32]; the batch before had int64 [1, 32]'),
        ("return 5", "raised TypeError: transform_train_batch returned an int; it must return nothing"),
        ("batch['labels'][0] = 1", "raised ValueError: assignment destination is read-only"),
    ],
)  # fmt: skip
def test_a_batch_that_a_rank_would_refuse_is_said(check, do, words):
    status, out, _ = check(f"def transform_train_batch(self, batch, ctx): {do}")
    assert status == 1 and f"\ntransform_train_batch: {words}" in out


def test_weights_that_the_model_does_not_have_are_said(check):
    body = "def on_epoch_end(self, ctx): ctx.load_weights({'x': np.ones(2, 'f4'), 'head.bias': np.ones(2, 'f4')})"
    status, out, _ = check(body)
    assert status == 1 and 'gives weights for "x", which the model does not have' in out
    assert 'gives "head.bias" as float32 [2]; the parameter is float32 [65]' in out


def test_nan_is_a_note(check):
    body = "def transform_train_batch(self, batch, ctx): batch.mutable('features')[0] = np.nan"
    status, out, _ = check(body, "--data", "csv")
    assert status == 0 and 'note: transform_train_batch gives "features" with NaN or Inf in it' in out


def test_a_state_that_cannot_be_carried_is_said(check):
    status, out, _ = check("def state_dict(self): return {'a': object()}")
    assert status == 1 and "state_dict: raised TypeError: state_dict returned an object, which cannot be carried" in out
    status, out, _ = check("def __init__(self): self.lock = object()")
    assert status == 0 and "note: P.lock holds an object, which its state cannot carry" in out


def test_a_plugin_that_prints_for_ever_neither_fills_the_disk_nor_stands_still(check):
    status, out, _ = check("def on_step_end(self, ctx):\n  for _ in range(40): print('x' * (1 << 20))")
    assert status == 0 and re.search(r"note: it printed 1\d\d MiB, which a run keeps in its logs", out)


def test_recursion_for_ever_is_one_finding(check):
    status, out, _ = check("def on_step_end(self, ctx): self.on_step_end(ctx)")
    assert status == 1 and "on_step_end: raised RecursionError" in out


def test_a_failing_start_refuses_the_run(check):
    status, out, _ = check("def setup(self, ctx): raise OSError('no disk')\ndef on_log(self, ctx): pass")
    assert status == 1 and "setup: raised OSError: no disk (which refuses the run)" in out
    assert rows(out)["on_log"] == (0, "not called")
    status, out, _ = check("def configure(self, config, ctx): return 3")
    assert status == 1 and "configure: raised TypeError: configure returned an int" in out
    status, out, _ = check("def __init__(self): os._exit(5)")
    assert status == 1 and "loading it: its process ended with status 5" in out
    status, out, _ = check("def __init__(self): time.sleep(3600)", "--deadline", "0.1")
    assert status == 1 and "loading it: nothing came within the deadline" in out


@table(
    "body, words",
    [
        ("def on_step_ned(self, ctx): pass", 'there is no hook "on_step_ned"; did you mean "on_step_end"?'),
        ("def transform_caption(self, caption): pass", "must take (self, caption, ctx)"),
        ("def __init__(self): raise OSError('bad')", "the constructor of P raised OSError: bad"),
        ("import no_such_module", "importing p.py raised ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_no_run_would_load_misbehaves(check, body, words):
    status, out, err = check(body)
    assert status == 1 and out == "" and err.startswith("bulkhead plugin check: ") and words in err


# ----- Refusals -----


@table(
    "arguments, words",
    [
        (["--with", "{"], "--with is not JSON: "),
        (["--with", "[1]"], '--with must be a JSON object, as in {"patience": 3}'),
        (["--with", '{"limt": 3}'], 'with.limt: P has no argument "limt"; did you mean "limit"?'),
        (["--with", '{"limit": "x"}'], 'with.limit must be an integer, not "x"'),
        (["--steps", "0"], "--steps must be 1 or more, not 0"),
        (["--deadline", "-1"], "--deadline must be above 0 and at most 3600 seconds, not -1"),
        (["--deadline", "nan"], "--deadline must be above 0 and at most 3600 seconds, not nan"),
        (["--data", "sounds"], "invalid choice: 'sounds'"),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(check, arguments, words):
    status, out, err = check("def __init__(self, limit: int = 1): pass", *arguments)
    assert status == 2 and out == "" and words in err and "Traceback" not in err


def test_arguments_that_the_constructor_does_not_want_are_refused(check):
    status, out, err = check("def __init__(self, n: int = 0):\n  if n < 1: raise ValueError('n must be at least 1')")
    assert (status, out) == (2, "")
    assert err == (
        "bulkhead plugin check: the constructor of P raised ValueError: n must be at least 1; arguments are given by "
        "--with JSON\n"
    )


def test_wrong_files_are_refused_with_a_sentence(check, tmp_path):
    library = tmp_path / "p.so"
    library.write_bytes(b"")
    for arguments, words in (
        (["no.py"], "no.py does not exist"),
        ([library], "a native plugin needs --native-host PATH"),
        ([library, "--native-host", "/no/such"], "--native-host: /no/such is not a program"),
        ([f"{library}:P", "--native-host", "/bin/true"], 'a native plugin has one class, so ":P" says nothing'),
    ):
        status, out, err = check("", *arguments[1:], file=arguments[0])
        assert status == 2 and out == "" and words in err


def test_a_program_that_is_no_host_is_not_waited_for(check, tmp_path):
    (tmp_path / "p.so").write_bytes(b"")
    status, out, _ = check("", "--native-host", "/bin/true", file=tmp_path / "p.so")
    assert status == 1 and "loading it: its process ended with status 0" in out


# ----- Nothing is left behind -----


def test_processes_that_a_plugin_leaves_are_ended(check, tmp_path):
    body = f"""
        def setup(self, ctx):
            import subprocess
            child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
            with open({str(tmp_path / "pids")!r}, "a") as file: file.write(f"{{child.pid}} {{os.getpid()}} ")
    """
    assert check(body)[0] == 0
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 4 and all(gone(int(pid)) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_host_ends_with_the_tool(tmp_path, how):
    pid_file = tmp_path / "pid"
    (tmp_path / "p.py").write_text(
        HEAD + f"class P(Plugin):\n  def setup(self, ctx):\n    with open({str(pid_file)!r}, 'w') as file: "
        "print(os.getpid(), file=file)\n    time.sleep(3600)\n"
    )
    short = tempfile.mkdtemp()  # what a killed tool cannot clean up
    surroundings = {**environment(), "XDG_RUNTIME_DIR": short, "TMPDIR": short}
    with subprocess.Popen(command(tmp_path / "p.py"), env=surroundings, stderr=subprocess.DEVNULL) as tool:
        deadline = time.monotonic() + SECONDS
        while not (pid_file.exists() and pid_file.read_text().endswith("\n")) and time.monotonic() < deadline:
            time.sleep(0.01)
        tool.send_signal(how)
        assert tool.wait(SECONDS) == (-how if how == signal.SIGKILL else 130)
    assert gone(int(pid_file.read_text()))
    assert how == signal.SIGKILL or os.listdir(short) == []
    shutil.rmtree(short)
