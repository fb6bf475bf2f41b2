"""What DeepRacer's logs cost a training: processor seconds, and bytes a row.

    python benchmarks/logs.py [TASK ...] [--rounds 3]

Trains each task with `log.deepracer=true` and with `false`, in turns, for as many steps and without
evaluations on the way; once before, which does not count. Seconds are those of the processor in the
training's own loop, so that other programs hardly matter. Appends one JSON line a task to
benchmarks/results/logs.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from hotlap.bench import append
from hotlap.config import to_toml
from hotlap.kernels import compile_for
from hotlap.machine import machine, stamp
from hotlap.plan import TrainConfig, read_config
from hotlap.progress import Progress
from hotlap.runs import Run
from hotlap.training import Training

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "logs.jsonl"
TASKS = {"state": ("configs/state.toml", 60_000), "deepracer": ("examples/deepracer", 1_024)}
"""What is trained, and for how many steps of all cars."""
TOKEN = "SIM_TRACE_LOG:"


def configured(task: str, logged: bool) -> TrainConfig:
    """Return a training of a task that does not evaluate on its way."""
    what, steps = TASKS[task]
    changes = {"train.steps": steps, "train.seconds": 0, "train.checkpoint_seconds": 1e6,
               "evaluation.every": 1_000_000, "log.deepracer": logged}  # fmt: skip
    return read_config(ROOT / what, changes).config


def train(config: TrainConfig, place: Path) -> float:
    """Train once; return the processor seconds of the loop."""
    training = Training(config, time.perf_counter(), Progress(0, 0, quiet=True))
    with (
        closing(training.practice),
        Run.create(place, to_toml(config), {"seed": config.seed}) as run,
    ):
        begun = time.process_time()
        training.loop(run)
        return time.process_time() - begun


def rows_of(run: Path) -> tuple[int, int, int]:
    """Return how many rows a run logged, and their bytes as CSV and as lines."""
    files = sorted((run / "deepracer").rglob("training-simtrace/*-iteration.csv"))
    rows = [row for file in files for row in file.read_text().splitlines(keepends=True)[1:]]
    texts = (run / "deepracer" / "logs" / "training").glob("*.log")
    lines = [line for file in texts for line in file.read_text().splitlines(keepends=True)]
    traced = [line for line in lines if TOKEN in line]
    return len(rows), sum(map(len, rows)), sum(map(len, traced))


def measure(task: str, rounds: int) -> dict[str, Any]:
    """Return what the logs of a task cost."""
    configs = {logged: configured(task, logged) for logged in (False, True)}
    compile_for(configs[True])
    spent: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        train(configs[True], Path(folder) / "before")
        for turn in range(rounds):
            for logged in (False, True) if turn % 2 == 0 else (True, False):
                place = Path(folder) / f"{turn}-{logged}"
                spent[logged].append(train(configs[logged], place))
        count, table, lines = rows_of(Path(folder) / "0-True")
    with_logs, without = (statistics.median(spent[logged]) for logged in (True, False))
    steps, cars, followed = TASKS[task][1], configs[True].train.cars, configs[True].log.cars
    return {
        "task": task,
        "steps": steps,
        "cars": cars,
        "followed": followed,
        "with_s": [round(s, 2) for s in spent[True]],
        "without_s": [round(s, 2) for s in spent[False]],
        "cost": round(with_logs / without - 1, 4),
        "rows": count,
        "bytes_a_row_csv": round(table / count, 1),
        "bytes_a_row_lines": round(lines / count, 1),
        "bytes_a_thousand_steps": round(1000 * followed / cars * (table + lines) / count),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("--rounds: give at least 1")
    if unknown := [task for task in asked.tasks if task not in TASKS]:
        parser.error(f"{unknown[0]}: choose from {', '.join(TASKS)}")
    facts = {k: v for k, v in machine().items() if k != "kernels"}
    for task in asked.tasks or TASKS:
        row = measure(task, asked.rounds)
        about = {"kind": "logs", **row, **stamp(), "machine": facts}
        append(asked.out, about | {"command": " ".join(sys.argv)})
        print(
            f"{task}: {row['cost']:+.1%} processor seconds; a row has "
            f"{row['bytes_a_row_csv']:.0f} bytes as CSV, {row['bytes_a_row_lines']:.0f} as a line; "
            f"{row['bytes_a_thousand_steps'] / 1000:.0f} kB for a thousand steps with "
            f"{row['followed']} of {row['cars']} cars",
            flush=True,
        )


if __name__ == "__main__":
    main()
