"""Kills in the middle of a training: how soon it goes on, and whether it still counts right.

    python benchmarks/faults.py [--ways gradients experience ...] [--kills 20] [--seed 0]

A Ray cluster on this machine's loopback, its head and two nodes with a CPU each, and on it the
training of `configs/state.toml` by two workers, as `hotlap train` starts it. At random moments one
of its processes is killed (SIGKILL): a worker, the server, a node with all that is on it (another
one comes three seconds later), or the driver (then `hotlap train --resume`). A kill is recovered
from when a round that began after it is in the metrics. After the last the training is resumed with
a budget, ends, and its driver laps from starts that it has not seen. Linux only: it reads /proc.

Appends a JSON line a way to benchmarks/results/faults.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="faults-", dir="/tmp")  # sockets: a short path
os.environ |= {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

from ray.cluster_utils import Cluster

from hotlap.bench import append
from hotlap.distributed.cluster import HEALTH
from hotlap.evaluate import evaluate
from hotlap.machine import machine, stamp
from hotlap.runs import Run

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "faults.jsonl"
WAYS = {
    "gradients": ["distributed.share=gradients"],
    "experience": ["distributed.share=experience"],
    "experience, nobody waits": ["distributed.share=experience", "distributed.synchronous=false"],
    "weights": ["distributed.share=weights"],
    "weights, nobody waits": ["distributed.share=weights", "distributed.synchronous=false"],
}
CHANCES = {"worker": 8, "server": 4, "node": 4, "driver": 4}
CARS, HORIZON = 64, 16
NODE = {
    "object_store_memory": 210 * 2**20,
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
}
LIMIT = 120.0
"""Seconds after which a kill counts as not recovered from."""


class Training:
    """A training by the command line, which may be killed and resumed."""

    def __init__(self, out: Path, words: list[str]) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        self.start(["configs/state.toml", "--out", str(out), *words])

    def close(self) -> None:
        """End its driver, if there is one."""
        self.driver.kill()
        self.driver.wait()

    def said(self) -> str:
        """Return what it wrote on the terminal."""
        return self.log.read_text()

    def start(self, words: list[str]) -> None:
        """Start its driver."""
        program = [sys.executable, "-c", "from hotlap.cli import main; main()", "train"]
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [*program, "--plain", *words], cwd=HERE.parent, stdout=log, stderr=log
            )

    def resume(self, *words: str) -> None:
        """Continue from its last checkpoint."""
        self.start(["--resume", str(self.out), *words])

    @property
    def count(self) -> int:
        """How many rows of metrics it has written, those of lost pasts included."""
        try:
            return (self.out / "metrics.jsonl").read_bytes().count(b"\n")
        except OSError:
            return 0

    def wait(self, rows: int) -> float:
        """Wait for so many rows; return when they were there, infinite if they never are."""
        until = time.monotonic() + LIMIT
        while self.count < rows:
            if time.monotonic() > until or self.driver.poll() is not None:
                return float("inf")
            time.sleep(0.02)
        return time.monotonic()


class Place:
    """The cluster, and who of it may be killed."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.nodes = [self.add(), self.add()]

    def add(self) -> Any:
        """Add a node of one CPU."""
        node = self.cluster.add_node(num_cpus=1, **NODE)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # Ray's waits for half a minute
        return node

    def actors(self, kind: str) -> list[int]:
        """Return the processes of an actor's class, of this cluster alone."""
        found = []
        for node in [self.cluster.head_node, *self.nodes]:
            raylet = node.all_processes["raylet"][0].process.pid
            for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
                try:
                    title = Path(f"/proc/{child}/cmdline").read_text()
                except OSError:
                    continue
                if title.startswith(f"ray::{kind}"):
                    found.append(int(child))
        return found


@contextmanager
def place() -> Iterator[Place]:
    """Start a cluster on the loopback, and end it."""
    head = {"num_cpus": 0, "_system_config": dict(HEALTH), **NODE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Place(cluster)
    finally:
        cluster.shutdown()


def kill(what: str, training: Training, there: Place, rng: random.Random) -> float:
    """Kill something; return when it was dead, or 0 where nobody of the kind was there."""
    if what in ("worker", "server"):
        actors = there.actors("Worker" if what == "worker" else "Meeting")
        if not actors:
            return 0.0
        os.kill(rng.choice(actors), signal.SIGKILL)
        return time.monotonic()
    if what == "driver":
        training.close()
        start = time.monotonic()
        training.resume()
        return start
    node = rng.choice(there.nodes)
    there.nodes.remove(node)
    start = time.monotonic()
    there.cluster.remove_node(node, allow_graceful=False)
    time.sleep(3.0)
    there.nodes.append(there.add())
    return start


def accounted(run: Run, share: int) -> list[str]:
    """Return what is wrong with the count of iterations, steps and episodes."""
    rows, wrong = run.metrics_rows(), []
    for before, row in zip(
        [{"iteration": 0, "steps": 0, "episodes": 0}, *rows], rows, strict=False
    ):
        name = f"row {row['iteration']}"
        if row["iteration"] != before["iteration"] + 1:
            wrong.append(f"{name} follows {before['iteration']}")
        more = row["steps"] - before["steps"]
        if more <= 0 or more % share or more > CARS * HORIZON:
            wrong.append(f"{name} counts {more} steps")
        if row["episodes"] < before["episodes"]:
            wrong.append(f"{name} counts {row['episodes'] - before['episodes']} episodes")
    by_steps = {row["steps"]: row for row in rows}
    for number in run.checkpoints():
        state, _ = run.read_state(number)
        row = by_steps.get(number)
        if row is None or any(state[name] != row[name] for name in ("iteration", "episodes")):
            wrong.append(f"the checkpoint of {number} steps is not that of a row")
    return wrong


def measure(way: str, kills: int, seed: int, pause: float, last: int) -> dict[str, Any]:
    """Train in one way under kills; return what came of it."""
    rng = random.Random(seed)
    kinds = [kind for kind, weight in CHANCES.items() for _ in range(weight)]
    rng.shuffle(kinds)
    plan = [kinds[i % len(kinds)] for i in range(kills)]
    recoveries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, place() as there:
        budget = ["train.seconds=0", f"train.cars={CARS}", f"algorithm.horizon={HORIZON}"]
        budget += ["train.checkpoint_seconds=5", "distributed.workers=2", "distributed.threads=1"]
        address = there.cluster.address
        out = Path(folder, "run")
        training = Training(out, [f"distributed.address={address}", *budget, *WAYS[way]])
        with explained(training):
            training.wait(5)
            for what in plan:
                time.sleep(rng.uniform(0.2, 2 * pause))
                start = kill(what, training, there, rng)
                if not start:
                    continue
                recovered = training.wait(training.count + 2)  # the first may have been under way
                took = recovered - start
                recoveries.append({"what": what, "seconds": round(took, 2)})
                print(f"{way:<26} {what:<8} {took:6.1f} s", flush=True)
                if took == float("inf"):
                    sys.exit("it did not go on")
            training.close()
            steps = Run.open(out).metrics_rows()[-1]["steps"] + last
            training.resume(f"train.steps={steps}")
            training.driver.wait(600)
            if training.driver.returncode:
                sys.exit("it did not end")
        said = training.said()
        run = Run.open(out)
        report = evaluate(run, trials=10, seed=1000)
        wrong = accounted(run, CARS // 2 * HORIZON)
        return {
            "benchmark": "faults",
            "way": way,
            "seed": seed,
            "kills": recoveries,
            "slowest_s": max(one["seconds"] for one in recoveries),
            "workers_back_s": [
                float(line.rsplit(" ", 2)[-2])
                for line in said.splitlines()
                if "is back after" in line
            ],
            "steps": run.metrics_rows()[-1]["steps"],
            "iterations": len(run.metrics_rows()),
            "wrong": wrong,
            "completion": report.completion,
            "mean_lap_s": report.mean_lap_s,
        }


@contextmanager
def explained(training: Training) -> Iterator[None]:
    """End a training; where that is too soon, print what it said."""
    try:
        yield
    except BaseException:
        print(training.said()[-4000:], file=sys.stderr, flush=True)
        raise
    finally:
        training.close()


def main() -> None:
    """Measure every way that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between two kills")
    parser.add_argument("--last", type=int, default=400_000, help="steps after the last kill")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    here = machine()  # compiles what is not yet compiled
    try:
        for way in given.ways:
            found = measure(way, given.kills, given.seed, given.pause, given.last)
            print(json.dumps(found))
            append(given.out, {**stamp(), **here, **found})
    finally:
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    main()
