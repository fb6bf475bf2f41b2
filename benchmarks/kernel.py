"""How fast the native world steps, beside a fixed kernel measured in the same minutes.

    python benchmarks/kernel.py

Machines differ and a busy one drifts, so the number to compare is the ratio: control steps for each
evaluation of the reference, a chain of 64 dependent multiply-adds on one float32 in a plain Numba
loop. Both are timed in turn, and the best round of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numba import njit

from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.threads import available, spread
from hotlap.track import load_track
from hotlap.vehicle import load_vehicle

ROWS = (1, 256, 16384)
ROUNDS = 9
SECONDS = 0.1


@njit(nogil=True, fastmath=False)
def reference(start, stop, values):
    """Evaluate x = 0.5 x + 1 sixty-four times on every value."""
    for i in range(start, stop):
        x = values[i]
        for _ in range(64):
            x = np.float32(0.5) * x + np.float32(1)
        values[i] = x


def drive(rows: int, threads: int) -> Callable[[], object]:
    """Return a call that advances `rows` cars, spread over a track, by one control step."""
    track = load_track("reinvent_like")
    sim = NativeSimulator([track], load_vehicle("deepracer"), rows=rows, threads=threads)
    random = np.random.default_rng(0)
    start = Start(
        track=np.zeros(rows, np.int32),
        s=random.uniform(0, track.length, rows).astype(np.float32),
        n=np.zeros(rows, np.float32),
        heading_error=np.zeros(rows, np.float32),
        speed=np.full(rows, 1.5, np.float32),
    )
    sim.reset(np.arange(rows), start)
    command = Command(
        steering=random.uniform(-0.5, 0.5, rows).astype(np.float32),
        speed=random.uniform(0.5, 4.0, rows).astype(np.float32),
    )
    return lambda: sim.step(command)


def rate(call: Callable[[], object]) -> float:
    """Return calls a second of wall clock."""
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        call()
        count += 1
    return count / seconds


def main() -> None:
    """Print one line for each number of cars and threads."""
    values = np.ones(16384, np.float32)
    print("   cars  threads     steps/s      ns/car  steps a reference evaluation")
    for rows in ROWS:
        for threads in sorted({1, min(2, available())}):
            step = drive(rows, threads)
            chain = lambda n=threads: spread(reference, 16384, values, block=64, threads=n)  # noqa: E731
            step(), chain()
            rounds = [(rate(step) * rows, rate(chain) * 16384) for _ in range(ROUNDS)]
            steps, evaluations = np.max(rounds, axis=0)
            print(
                f"{rows:7d}  {threads:7d}  {steps:10,.0f}  {1e9 / steps:10.1f}"
                f"  {steps / evaluations:10.4f}"
            )


if __name__ == "__main__":
    main()
