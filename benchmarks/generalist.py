"""One driver for roads, cars, cameras and light that it has not met: how often does it lap?

    python benchmarks/generalist.py [--sees camera] [--seeds 0 1 2] [--seconds 600]

Trains configs/generalist.toml once a seed and lets the best driver lap each of 50 generated tracks
of other seeds, once with the nominal car and look and once with others in every trial. With `--sees
lidar` or `--sees state` the driver sees that instead of the camera, as late. Appends one JSON line
a seed to results/generalist.jsonl; no seed is dropped.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from hotlap.bench import append
from hotlap.evaluate import evaluate
from hotlap.machine import machine, stamp
from hotlap.train import train

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "generalist.toml"
RESULTS = ROOT / "benchmarks" / "results" / "generalist.jsonl"
UNSEEN = "generated:seed=1000-1049:difficulty="
"""Training has seeds 0 to 255."""
LATE = {"latency": 0.04, "jitter": 0.08}
"""As the camera of the configuration."""
SEES: dict[str, dict[str, Any]] = {
    "camera": {},
    "lidar": {"observation.actor": ["lidar"], "observation.lidar.clock": LATE},
    # It needs no teacher, who would keep a margin: as careful as configs/camera.toml.
    "state": {
        "observation.actor": ["state"],
        "observation.state.clock": LATE,
        "algorithm": "ppo",
        "algorithm.gamma": 0.98,
        "algorithm.horizon": 32,
        "algorithm.minibatch": 1024,
        "rules.margin": 0.2,
        "reward.off_track_fine": 5.0,
    },
}
"""What differs from the configuration, by what the driver sees."""


def measure(sees: str, seed: int, seconds: float | None) -> dict[str, Any]:
    """Train one driver; return how many laps of unseen tracks it completes."""
    changes: dict[str, Any] = SEES[sees] | {"seed": seed}
    if seconds is not None:
        changes["train.seconds"] = seconds
    found: dict[str, Any] = {"kind": "generalist", "sees": sees, "seed": seed, "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        run = train(CONFIG, changes, out=Path(folder) / "run")
        row = run.metrics_rows()[-1]
        found |= {"steps": row["steps"], "trained_s": row["seconds"]}
        for difficulty in ("0-0.5", "0.5", "1"):
            for randomized in (True, False):
                report = evaluate(run, track=UNSEEN + difficulty, laps=1, randomized=randomized)
                kind = "randomized" if randomized else "nominal"
                found[f"{kind} {difficulty}"] = report.completion
                found[f"{kind} {difficulty} lap"] = report.mean_lap_s
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sees", choices=SEES, default="camera")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="budget; that of the configuration if absent")
    asked = parser.parse_args()
    for seed in asked.seeds:
        found = measure(asked.sees, seed, asked.seconds) | {"machine": machine(), **stamp()}
        append(RESULTS, found)
        wanted = ("randomized 0-0.5", "nominal 0-0.5")
        shares = {name: found[name] for name in wanted}
        print(f"{asked.sees}, seed {seed}, {found['steps']:,} steps: {shares}", flush=True)


if __name__ == "__main__":
    main()
