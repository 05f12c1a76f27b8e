"""Plugins that make conversations of rows: gsm8k_rows; alpaca_rows and self_cognition with CONFORMANCE 7.10."""

import json
import pathlib

from shipped_plugins import PLUGINS, make

from bulkhead.testing import load, run_hook

GSM8K = pathlib.Path(__file__).resolve().parents[2] / "data" / "gsm8k" / "train.jsonl"


def made(plugin, **columns):
    """(what the user says, what the assistant says) of each row."""
    value = run_hook(plugin, "preprocess", rows=columns).value
    assert list(value) == ["messages"]
    assert all([turn["role"] for turn in messages] == ["user", "assistant"] for messages in value["messages"])
    return [tuple(turn["content"] for turn in messages) for messages in value["messages"]]


def test_gsm8k_rows_makes_a_conversation_of_each_problem():
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    columns = {name: [row[name] for row in rows] for name in ("question", "answer")}
    pairs = made(make("gsm8k_rows"), **columns)
    assert pairs == list(zip(columns["question"], columns["answer"])) and len(pairs) == 300
    assert "<<48/2=24>>" in pairs[0][1]
    plain = made(make("gsm8k_rows", calculator=False), **columns)
    assert plain[0][1].startswith("Natalia sold 48/2 = 24 clips in May.\n") and "<<" not in str(plain)


def test_gsm8k_rows_leaves_out_rows_without_both():
    plugin = make("gsm8k_rows", question="q", answer="a")
    assert made(plugin, q=["x", "", "y", None], a=["1", "2", None, "3"]) == [("x", "1")]
    assert run_hook(plugin, "preprocess", rows={"other": ["x"]}).value == {}


def test_alpaca_rows_puts_the_input_below_the_instruction():
    pairs = made(
        make("alpaca_rows"), instruction=["instruction", "alone"], input=["input", ""], output=["out", None]
    )  # fmt: skip
    assert pairs == [("instruction\ninput", "out"), ("alone", "")]
    assert made(make("alpaca_rows"), instruction=["x"], output=["y"]) == [("x", "y")]


def test_self_cognition_fills_in_name_and_author():
    plugin = load(str(PLUGINS / "self_cognition.py"), name="twinkle模型", author="twinkle团队")
    assert made(plugin, query=["What is {{NAME}}?"], response=["I am {{NAME}}, by {{AUTHOR}}."]) == [
        ("What is twinkle模型?", "I am twinkle模型, by twinkle团队.")
    ]
