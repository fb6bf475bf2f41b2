"""Seconds from process start to the first driver that laps cleanly from every start.

    python benchmarks/first_laps.py TASK [--seeds 0 1 2] [--seconds N]

Runs the real command, one fresh process a seed, kernels compiled and torch's files read before
(`first`: compiled, but no file read since the machine started), and appends one JSON line a seed to
benchmarks/results/first_laps.jsonl. The time is taken from outside: it ends when the training's
`clean_laps` event can be read in its events.jsonl. It counts only if the saved driver then finishes
every lap of the run's own report and of a second evaluation in another process, from other starts.
A seed without it is kept, with null.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hotlap.bench import append
from hotlap.machine import machine, stamp
from hotlap.threads import available

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "first_laps.jsonl"
TASKS = {
    "state": "configs/state.toml",
    "first": "configs/state.toml",
    "camera": "configs/camera.toml",
    "deepracer": "examples/deepracer",
    "distill": "configs/distill.toml",
    "distill_deepracer": "configs/distill_deepracer.toml",
    "sac": "configs/sac.toml",
    "td3": "configs/td3.toml",
    "dqn": "configs/dqn.toml",
    "pqn": "configs/pqn.toml",
    "rdpg": "configs/rdpg.toml",
    "cookbook": "configs/cookbook.toml",
    "transfer": "configs/cookbook.toml",
}
BEFORE = {"transfer": ["train.seconds=60", "--track", "easy", "--seed", "1000"]}
"""What a Run is trained with beforehand, whose time does not count, and which the others take."""
CACHES = Path("/proc/sys/vm/drop_caches")
"""Where Linux lets root forget what it read of the disk."""
POLL = 0.005
"""Seconds between two looks at events.jsonl."""
HONEST = 0.5
"""Most seconds that the run's own clock may differ from ours."""
OTHERS = 0.2
"""Share of the cores that other processes may take before a time is not worth keeping."""
TRIALS = 5
OTHER_STARTS = 1000
"""Seed of the second evaluation's starts, which training has not seen."""


def hotlap() -> list[str]:
    """Return the installed command."""
    beside = Path(sys.executable).with_name("hotlap")
    found = str(beside) if beside.exists() else shutil.which("hotlap")
    if found is None:
        sys.exit("hotlap is not installed for this Python: pip install -e '.[train,video]'")
    return [found]


def words(
    task: str, seed: int, run: str, seconds: float | None, before: str | None = None
) -> list[str]:
    """Return the command line of one training, without `hotlap`; `before`: what it begins with."""
    budget = [] if seconds is None else [f"train.seconds={seconds:g}"]
    taken = [] if before is None else ["--from", before]
    return ["train", TASKS[task], *budget, *taken, "--seed", str(seed), "--out", run, "--plain"]


def train_before(task: str, folder: str) -> str | None:
    """Train the Run that a task begins with, if it does; return where it is."""
    if task not in BEFORE:
        return None
    run = str(Path(folder) / "before")
    call = [*hotlap(), "train", TASKS[task], *BEFORE[task], "--out", run, "--plain"]
    ended = subprocess.run(call, cwd=ROOT, capture_output=True)
    if ended.returncode:
        sys.exit(f"{' '.join(call)}: {last_line(ended.stderr.decode(errors='replace'))}")
    return run


def measure(
    task: str, seed: int, seconds: float | None, limit: float, before: str | None = None
) -> dict[str, Any]:
    """Train once in a fresh process, watched from outside; then let another one drive."""
    program = hotlap()
    with tempfile.TemporaryDirectory() as folder:
        run, said = Path(folder) / "run", Path(folder) / "said.txt"
        call = [*program, *words(task, seed, str(run), seconds, before)]
        if task == "first":
            forget_files()
        seen, load = None, used()
        with said.open("wb") as output:
            start = time.monotonic()
            process = subprocess.Popen(
                call, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            try:
                while process.poll() is None and time.monotonic() - start < limit:
                    if seen is None and clean_laps(run) is not None:
                        seen = time.monotonic() - start
                    time.sleep(POLL)
            finally:
                late = process.poll() is None
                process.kill()
                process.wait()
            wall = time.monotonic() - start
        event = clean_laps(run)
        if event is not None and seen is None:
            seen = wall  # between the last look and the end
        found: dict[str, Any] = {
            "seconds": None,
            "seen_seconds": seen and round(seen, 3),
            "event_seconds": event and event["seconds"],
            "honest": event and seen and abs(event["seconds"] - seen) <= HONEST,
            "steps": event and event["steps"],
            "first_mean_lap_s": event and event["mean_lap_s"],
            "wall_seconds": round(wall, 3),
            "others": share_of_others(load, used(), wall),
            "report": None,
            "second_completion": None,
        }
        if late:
            return found | {"outcome": f"ended at the limit of {limit:g} s"}
        if process.returncode:
            return found | {"outcome": f"failed: {last_line(said.read_text(errors='replace'))}"}
        report = json.loads((run / "report.json").read_text())
        found["report"] = {
            name: report[name]
            for name in ("track", "completion", "best_lap_s", "mean_lap_s", "lap_times_s")
        }
        check = ["evaluate", str(run), "--trials", str(TRIALS), "--seed", str(OTHER_STARTS)]
        second = subprocess.run([*program, *check, "--json"], cwd=ROOT, capture_output=True)
        if second.returncode:
            why = last_line(second.stderr.decode(errors="replace"))
            return found | {"outcome": f"the second evaluation failed: {why}"}
        found["second_completion"] = json.loads(second.stdout)["completion"]
    if event is None:
        return found | {"outcome": "no clean laps"}
    if report["completion"] != 1 or found["second_completion"] != 1:
        return found | {"outcome": "the saved driver does not finish every lap"}
    return found | {"seconds": found["seen_seconds"], "outcome": "clean"}


def forget_files() -> None:
    """Let the next process read every file from the disk, as after the machine's start."""
    os.sync()
    try:
        CACHES.write_text("3")
    except OSError as error:
        sys.exit(f"the task 'first' needs root and Linux, to forget files that were read: {error}")


def clean_laps(run: Path) -> dict[str, Any] | None:
    """Return the run's first `clean_laps` event, if it is completely written."""
    try:
        lines = (run / "events.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    events = (json.loads(line) for line in lines if b"clean_laps" in line)
    return next((event for event in events if event["kind"] == "clean_laps"), None)


def used() -> tuple[float, float] | None:
    """Return the CPU seconds of the whole machine since its start, and those of ours so far.

    What the host of a virtual machine takes away counts as the machine's. None where the system
    does not say.
    """
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
    except (OSError, ValueError):
        return None
    _, _, _, idle, waiting, *_ = ticks
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(one.ru_utime + one.ru_stime for one in spent)
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK"), own


def share_of_others(
    before: tuple[float, float] | None, after: tuple[float, float] | None, seconds: float
) -> float | None:
    """Return the share of the cores that other processes had meanwhile."""
    if before is None or after is None:
        return None
    others = (after[0] - before[0]) - (after[1] - before[1])
    return round(max(0.0, others) / (seconds * available()), 3)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def median(values: Sequence[float | None]) -> float | None:
    """Return the median where None is longer than anything; None if that is the median."""
    middle = statistics.median(math.inf if value is None else value for value in values)
    return middle if math.isfinite(middle) else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="budget; the configuration's own if left out")
    parser.add_argument("--limit", type=float, default=900, help="most seconds of one training")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    if not (ROOT / TASKS[asked.task]).exists():
        parser.error(f"{TASKS[asked.task]}: no such file or folder")

    facts = {k: v for k, v in machine().items() if k != "kernels"}
    subprocess.run([sys.executable, "-c", "import torch, hotlap.train"], cwd=ROOT, check=True)
    begun = stamp()
    if warning := begun["conditions"]["warning"]:
        print(warning, file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        before = train_before(asked.task, folder)
        for seed in asked.seeds:
            row = {
                "kind": "first_laps",
                "task": asked.task,
                "seed": seed,
                "seeds": asked.seeds,
                "session": begun["date"],
                **stamp(),
                "conditions": begun["conditions"],  # our own trainings are the load of later seeds
                "command": " ".join(
                    ["hotlap", *words(asked.task, seed, "RUN", asked.seconds, before and "BEFORE")]
                ),
                "script": reproduce(asked.task, asked.seeds, asked.seconds),
                "machine": facts,
                **measure(asked.task, seed, asked.seconds, asked.limit, before),
            }
            append(asked.out, row)
            rows.append(row)
            print(line(row), flush=True)
    first = median([row["seconds"] for row in rows])
    laps = [row["report"] and row["report"]["best_lap_s"] for row in rows]
    print(
        f"median of {len(rows)} seeds: {shown(first)} to clean laps, best lap {shown(median(laps))}"
    )
    return 0 if all(row["outcome"] == "clean" for row in rows) else 1


def reproduce(task: str, seeds: Sequence[int], seconds: float | None) -> str:
    """Return the command line of this script."""
    budget = "" if seconds is None else f" --seconds {seconds:g}"
    return f"python benchmarks/first_laps.py {task} --seeds {' '.join(map(str, seeds))}{budget}"


def line(row: dict[str, Any]) -> str:
    """Say in a line how one seed went."""
    text = f"{row['task']} seed {row['seed']}: {row['outcome']}, {shown(row['seen_seconds'])}"
    if row["steps"] is not None:
        text += f", {row['steps']:,} steps"
    if row["report"] is not None:
        text += f", best lap {shown(row['report']['best_lap_s'], 'none')}"
    text += f", whole process {shown(row['wall_seconds'])}"
    if (row["others"] or 0) > OTHERS:
        text += f"; other processes had {row['others']:.0%} of the cores: do not trust it"
    if row["honest"] is False:
        text += f"; the run's own clock says {row['event_seconds']:.2f} s: do not trust it"
    return text


def shown(seconds: float | None, none: str = "never") -> str:
    return none if seconds is None else f"{seconds:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
