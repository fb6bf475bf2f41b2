"""What DeepRacer's logs cost a training: processor seconds, and bytes a row.

    python benchmarks/logs.py [TASK ...] [--rounds 3]

Trains each task with `log.deepracer=true`, once more than it counts, for some steps and without
evaluations on the way. Seconds are those of the processor: of the training's own loop, and of what
in it follows cars and writes logs. Other programs hardly change their ratio, where they make two
trainings differ by more than logs cost. Appends one JSON line a task to
benchmarks/results/logs.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hotlap import runner
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


class Clock:
    """Counts the processor seconds of the calls that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same call, counted."""

        def counted(*args: Any, **more: Any) -> Any:
            begun = time.thread_time()
            try:
                return call(*args, **more)
            finally:
                self.seconds += time.thread_time() - begun

        return counted


def train(config: TrainConfig, place: Path) -> tuple[float, float]:
    """Train once; return the processor seconds of the loop, and those of the logs in it."""
    training = Training(config, time.perf_counter(), Progress(0, 0, quiet=True))
    clock, simtrace = Clock(), training.practice.simtrace
    assert simtrace is not None
    for name in ("open", "collected", "evaluated", "checkpoint"):
        setattr(simtrace, name, clock.timed(getattr(simtrace, name)))
    follow = runner.note_step
    runner.note_step = clock.timed(follow)
    try:
        with (
            closing(training.practice),
            Run.create(place, to_toml(config), {"seed": config.seed}) as run,
        ):
            begun = time.process_time()
            training.loop(run)
            return time.process_time() - begun, clock.seconds
    finally:
        runner.note_step = follow


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
    what, steps = TASKS[task]
    changes = {"train.steps": steps, "train.seconds": 0, "train.checkpoint_seconds": 1e6,
               "evaluation.every": 1_000_000, "log.deepracer": True}  # fmt: skip
    config = read_config(ROOT / what, changes).config
    compile_for(config)
    with tempfile.TemporaryDirectory() as folder:
        spent = [train(config, Path(folder) / str(turn)) for turn in range(rounds + 1)][1:]
        count, table, lines = rows_of(Path(folder) / "1")
    cars, followed = config.train.cars, config.log.cars
    return {
        "task": task,
        "steps": steps,
        "cars": cars,
        "followed": followed,
        "loop_s": [round(loop, 3) for loop, _ in spent],
        "logs_s": [round(logs, 3) for _, logs in spent],
        "cost": round(statistics.median(logs / (loop - logs) for loop, logs in spent), 4),
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
            f"{task}: logs take {row['cost']:.1%} of what all else does; a row has "
            f"{row['bytes_a_row_csv']:.0f} bytes as CSV, {row['bytes_a_row_lines']:.0f} as a line; "
            f"{row['bytes_a_thousand_steps'] / 1000:.0f} kB for a thousand steps with "
            f"{row['followed']} of {row['cars']} cars",
            flush=True,
        )


if __name__ == "__main__":
    main()
