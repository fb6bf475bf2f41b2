"""Control steps a second of a whole training loop by PPO: python benchmarks/loop.py [--out FILE]

What `hotlap train` does between evaluations: every car drives `horizon` steps, and the learner goes
through them in four epochs. Nothing is written. Every round gives each configuration its turn; a
figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from hotlap.bench import append
from hotlap.kernels import compile_for
from hotlap.machine import machine, stamp
from hotlap.plan import read_config
from hotlap.practice import Practice
from hotlap.threads import available

ROOT = Path(__file__).parents[1]
MANY: dict[str, Any] = {"train.cars": 2048, "algorithm.minibatch": 16384}
MOST: dict[str, Any] = {
    "train.cars": 8192,
    "algorithm.horizon": 8,
    "algorithm.minibatch": 32768,
    "algorithm.network.mlp": [32, 32],
}
# name, configuration, settings that differ from it
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("state, as it ships", "configs/state.toml", {}),
    ("state, 2,048 cars", "configs/state.toml", MANY),
    ("state, 8,192 cars, layers of 32", "configs/state.toml", MOST),
    ("camera, as it ships", "configs/camera.toml", {}),
)


def turn(practice: Practice, seconds: float) -> tuple[float, float]:
    """Let it drive and learn for so long; return its steps a second, and the share of learning."""
    start, steps, learning = time.perf_counter(), 0, 0.0
    while (spent := time.perf_counter() - start) < seconds:
        done = practice.round(steps, 0.0)
        steps += done.steps
        learning += done.learning
    return steps / spent, learning / spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one figure in one round")
    parser.add_argument("--out", type=Path, help="append the results as one line of JSON")
    asked = parser.parse_args()
    begun = stamp()
    practices = {}
    for name, config, change in CASES:
        settings = read_config(ROOT / config, change).config
        compile_for(settings)
        practices[name] = Practice(settings, None)
        turn(practices[name], asked.seconds / 3)  # so that cars no longer fail at once
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in practices}
    for _ in range(asked.rounds):
        for name, practice in practices.items():
            found[name].append(turn(practice, asked.seconds))
    rows = []
    for name, values in found.items():
        rates, shares = zip(*values, strict=True)
        rate, share = statistics.median(rates), statistics.median(shares)
        spread = [round(min(rates)), round(max(rates))]
        rows.append({
            "name": name, "value": round(rate), "spread": spread, "learning": round(share, 3),
            "unit": "steps/s",
        })  # fmt: skip
        print(f"{name:34s}{rate:12,.0f} steps/s, {share:.0%} of the time it learns")
    if asked.out:
        facts: dict[str, Any] = {"kind": "loop", **begun, "threads": available()}
        append(asked.out, {**facts, "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
