#!/usr/bin/env python3
"""Two runs side by side, from their run directories: the end of scripts/quickstart.

    compare_runs.py UNDISTURBED DISTURBED

Exit status 0 when the weights are the same bits, 1 when not.
"""

import json
import pathlib
import sys


def load(run):
    run = pathlib.Path(run)
    summary = json.loads((run / "summary.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return summary, losses


def rows(summary, losses):
    deaths = [crash for plugin in summary["plugins"] for crash in plugin["crashes"]]
    restarts = sum(plugin["starts"] - 1 for plugin in summary["plugins"])
    batches = summary["batches"]
    return {
        "steps": summary["steps"],
        "loss, first to last step": f"{losses[0]:.3f} → {losses[-1]:.3f}",
        "validation loss": f"{summary['validation']['loss']:.4f}",
        "seconds": f"{summary['seconds']:.1f}",
        "tokens/s": f"{summary['tokens_per_second']:,.0f}",
        "waiting for plugins": f"{100 * summary['plugin_overhead']:.1f} %",
        "plugin processes that died": len(deaths),
        "… restarted": restarts,
        "ranks restarted": sum(rank["restarts"] for rank in summary["ranks"]),
        "batches trained / lost / twice": f"{batches['trained']} / {batches['lost']} / {batches['duplicated']}",
        "weights (sha256)": summary["params_sha256"][:16],
    }


def main(first, second):
    runs = [load(first), load(second)]
    columns = [rows(*run) for run in runs]
    width = max(len(name) for name in columns[0])
    print(f"{'':{width}}  {'undisturbed':>18}  {'disturbed':>18}")
    for name in columns[0]:
        print(f"{name:{width}}  {columns[0][name]!s:>18}  {columns[1][name]!s:>18}")
    print()
    for plugin in runs[1][0]["plugins"]:
        for crash in plugin["crashes"]:
            rank = "" if plugin["rank"] is None else f" of rank {plugin['rank']}"
            how = crash.get("signal") or crash.get("reason") or f"exit {crash.get('exit')}"
            print(f"killed: {plugin['name']}{rank} by {how} in {crash['hook']} at step {crash['step']}")
    same = runs[0][0]["params_sha256"] == runs[1][0]["params_sha256"]
    print()
    if same:
        print("The final weights are equal to the last bit: the deaths left no trace in the training.")
    else:
        print("The final weights DIFFER: the deaths left a trace in the training. Please report this.")
    return 0 if same else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
