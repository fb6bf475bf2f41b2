"""Training with workers beside training without: steps a second, and what travels.

    python benchmarks/distributed.py [--configs state camera] [--seconds 20] [--repeats 3]

For each configuration, in turn, several times over: no workers on one core and on all; one worker
of one core and of all; as many workers of one core as there are cores, in two ways. The rate is
the median over the rounds after the first tenth, without evaluations and start-up.
Ratios: one worker against none, with the same cores; all workers against one, of one core each.

    python benchmarks/distributed.py server [--seeds 0 1 2] [--seconds 400]

The cookbook's lesson (camera, five steering actions, DQN): three agents and one server, by gradient
and by weight, beside the local learner: steps and seconds until three clean laps in a row from
every start.

Appends JSON lines to benchmarks/results/distributed.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from hotlap.bench import append
from hotlap.machine import machine, stamp
from hotlap.threads import available

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "distributed.jsonl"


def train(config: str, words: list[str], threads: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """Train by the command line; return the rows of its metrics, and its events."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        program = [sys.executable, "-c", "from hotlap.cli import main; main()"]
        command = [*program, "train", f"configs/{config}.toml", "--quiet"]
        done = subprocess.run(
            [*command, "--out", str(out), *words],
            cwd=HERE.parent,
            env={**os.environ, "HOTLAP_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        rows, events = (
            [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
            for name in ("metrics", "events")
        )
    return rows, events


def rate(config: str, workers: int, threads: int, share: str, seconds: float) -> dict[str, Any]:
    """Return the steps a second of a training, and what an exchange weighs."""
    words = [f"train.seconds={seconds + (12 if workers else 4)}", "evaluation.share=0.02"]
    if workers:
        words += [f"distributed.workers={workers}", f"distributed.threads={threads}"]
        words += [f"distributed.share={share}"]
    rows, events = train(config, words, threads * max(workers, 1))
    rows = rows[len(rows) // 10 :]
    found: dict[str, Any] = {"steps_per_second": median(r["steps_per_second"] for r in rows)}
    for event in events:
        if event["kind"] == "traffic" and event["exchanges"]:
            found["bytes_per_exchange"] = event["exchanged"] / event["exchanges"]
    return found


def compare(config: str, seconds: float, repeats: int) -> None:
    """Print and keep the rates of one configuration."""
    cores = available()
    cases = {
        "none, one core": (0, 1, ""),
        "one worker, one core": (1, 1, "gradients"),
        f"none, {cores} cores": (0, cores, ""),
        f"one worker, {cores} cores": (1, cores, "gradients"),
        f"{cores} workers, gradients": (cores, 1, "gradients"),
        f"{cores} workers, weights": (cores, 1, "weights"),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    exchange = None
    for _ in range(repeats):
        for name, case in cases.items():
            found = rate(config, *case, seconds)
            rates[name].append(found["steps_per_second"])
            exchange = found.get("bytes_per_exchange", exchange)
    middle = {name: median(values) for name, values in rates.items()}
    none, one, none_all, one_all, gradients, weights = middle.values()
    ratios = {
        "one_against_none": one / none,
        "one_against_none_all_cores": one_all / none_all,
        "many_against_one_gradients": gradients / one,
        "many_against_one_weights": weights / one,
    }
    for name, value in middle.items():
        print(f"{config:>10}  {name:<28} {value:>10,.0f} steps/s")
    for name, value in ratios.items():
        print(f"{config:>10}  {name:<28} {value:>10.2f}")
    row = {
        "benchmark": "workers",
        "config": config,
        "seconds": seconds,
        "repeats": repeats,
        "steps_per_second": middle,
        **ratios,
        "bytes_per_exchange": exchange,
    }
    append(RESULTS, {**stamp(), "machine": machine(), **row})


def server(seeds: list[int], seconds: float) -> None:
    """Print and keep how soon three agents and a server lap, beside the local learner."""
    ways = {
        "local": [],
        "gradients": ["distributed.workers=3", "distributed.share=gradients"],
        "weights": ["distributed.workers=3", "distributed.share=weights"],
    }
    for seed in seeds:
        for name, words in ways.items():
            rows, events = train(
                "cookbook", [f"train.seconds={seconds}", f"seed={seed}", *words], available()
            )
            clean = next((event for event in events if event["kind"] == "clean_laps"), None)
            row = {
                "benchmark": "parameter server",
                "way": name,
                "seed": seed,
                "clean_after_s": clean and clean["seconds"],
                "clean_after_steps": clean and clean["steps"],
                "steps": rows[-1]["steps"],
            }
            print(row)
            append(RESULTS, {**stamp(), "machine": machine(), **row})


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["workers", "server"], default="workers")
    parser.add_argument("--configs", nargs="+", default=["state", "camera"])
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if given.what == "server":
        server(given.seeds, given.seconds or 400)
    else:
        for config in given.configs:
            compare(config, given.seconds or 20, given.repeats)


if __name__ == "__main__":
    main()
