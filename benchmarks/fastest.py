"""How near a driver comes to the fastest lap that physics allows, after some minutes of training.

    python benchmarks/fastest.py [CONFIG] [--tracks reinvent_like hard] [--seeds 0 1 2]

Runs the real command, one fresh process a track and seed, and appends one JSON line each to
benchmarks/results/fastest.jsonl. What counts is the training's own report, of the saved driver: the
best of its laps over the bound (`hotlap tracks limit`), and only if every trial finished every lap.
A training without that is kept, with null.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from first_laps import hotlap, last_line, median

from hotlap.bench import append
from hotlap.machine import machine, stamp

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fastest.jsonl"
REPORTED = ("limit_s", "best_lap_s", "mean_lap_s", "completion", "limit_ratio")


def measure(words: list[str]) -> dict[str, Any]:
    """Train once in a fresh process; return what its report says."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        call = [*hotlap(), "train", *words, "--out", str(run), "--plain"]
        ended = subprocess.run(call, cwd=ROOT, capture_output=True)
        found: dict[str, Any] = dict.fromkeys(("steps", *REPORTED, "ratio"))
        if ended.returncode:
            return found | {"outcome": f"failed: {last_line(ended.stderr.decode())}"}
        metrics = (run / "metrics.jsonl").read_text().splitlines()
        report = json.loads((run / "report.json").read_text())
    found |= {name: report[name] for name in REPORTED} | {"steps": json.loads(metrics[-1])["steps"]}
    if report["completion"] != 1:
        return found | {"outcome": "the saved driver does not finish every lap"}
    return found | {"ratio": report["limit_ratio"], "outcome": "clean"}


def line(row: Mapping[str, Any]) -> str:
    """Say in a line how one training went."""
    ratio = "none" if row["ratio"] is None else f"{row['ratio']:.3f}"
    steps = "no" if row["steps"] is None else f"{row['steps']:,}"
    return f"{row['track']} seed {row['seed']}: {row['outcome']}, ratio {ratio}, {steps} steps"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default="configs/fast_state.toml")
    parser.add_argument("--tracks", nargs="+", default=["reinvent_like", "hard"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=120, help="budget of one training")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    facts = {k: v for k, v in machine().items() if k != "kernels"}
    begun = stamp()
    if warning := begun["conditions"]["warning"]:
        print(warning, file=sys.stderr)
    for track in asked.tracks:
        rows = []
        for seed in asked.seeds:
            words = [asked.config, f"train.seconds={asked.seconds:g}", "--track", track]
            words += ["--seed", str(seed)]
            row = {
                "kind": "fastest",
                "config": asked.config,
                "track": track,
                "seed": seed,
                "session": begun["date"],
                **stamp(),
                "conditions": begun["conditions"],  # our own trainings are the load of later ones
                "command": " ".join(["hotlap train", *words]),
                "machine": facts,
                **measure(words),
            }
            append(asked.out, row)
            rows.append(row)
            print(line(row), flush=True)
        middle = median([row["ratio"] for row in rows])
        print(
            f"{track}: median of {len(rows)} seeds {'none' if middle is None else f'{middle:.3f}'}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
