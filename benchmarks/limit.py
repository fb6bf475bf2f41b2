"""The physical limit of every track: both models, what they cost, and the replay of the second.

    python benchmarks/limit.py [TRACK ...] [--point] [--out FILE]

Prints one JSON object a track: laps [s], the solver's seconds, how far half as many gates are off,
and how far from its line [m] the single track's drive is after one second of its commands in the
simulator, the worst over all gates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from hotlap.errors import HotlapError
from hotlap.limit import Limit, fastest_lap
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.track import Track, load_track
from hotlap.track.courses import COURSES
from hotlap.vehicle import Vehicle, load_vehicle

MOTION = ("x", "y", "yaw", "vx", "vy", "yaw_rate", "steering", "reference")


def drift(track: Track, vehicle: Vehicle, limit: Limit, seconds: float = 1.0) -> float:
    """Return the greatest distance from the line [m] within windows that begin at each gate."""
    begin = limit.t[:-1]

    def at(name: str, t: np.ndarray) -> np.ndarray:
        lap, within = np.divmod(t, limit.lap_s)
        column = getattr(limit, name)
        return np.interp(within, limit.t, column) + lap * (name == "yaw") * (column[-1] - column[0])

    sim = NativeSimulator([track], vehicle, rows=len(begin), dt=1 / 120)
    zero = np.zeros(len(begin), np.float32)
    s, n = (column[:-1].astype(np.float32) for column in (limit.s, limit.n))
    sim.reset(np.arange(len(begin)), Start(zero.astype(np.int32), s % track.length, n, zero, zero))
    arrays = sim.save()
    for row, name in enumerate(MOTION):
        arrays["floats"][row] = at(name, begin)
    sim.restore(arrays)
    worst = 0.0
    for step in range(round(seconds / sim.dt)):
        asked = (
            at(k, begin + (step + 0.5) * sim.dt) for k in ("command_steering", "command_speed")
        )
        state = sim.step(Command(*(column.astype(np.float32) for column in asked)))
        end = begin + (step + 1) * sim.dt
        apart = np.hypot(state.x - at("x", end), state.y - at("y", end))
        worst = max(worst, float(apart.max()))
    return worst


def measure(name: str, *, single: bool) -> dict[str, object]:
    """Measure one track without the cache."""
    track, vehicle = load_track(name), load_vehicle("deepracer")
    began = time.perf_counter()
    point = fastest_lap(track, vehicle, cache=False)
    row: dict[str, object] = {
        "track": track.name,
        "length_m": round(track.length, 1),
        "point_s": round(point.lap_s, 3),
        "point_coarse": round(point.coarse_s / point.lap_s - 1, 5),
        "point_took": round(time.perf_counter() - began, 2),
    }
    if not single or not track.closed:
        return row
    began = time.perf_counter()
    try:
        drive = fastest_lap(track, vehicle, model="single", cache=False)
    except HotlapError as error:
        return row | {"single": str(error), "single_took": round(time.perf_counter() - began, 1)}
    return row | {
        "single_s": round(drive.lap_s, 3),
        "ratio": round(drive.lap_s / point.lap_s, 4),
        "single_coarse": round(drive.coarse_s / drive.lap_s - 1, 5),
        "single_took": round(time.perf_counter() - began, 1),
        "replay_m": round(drift(track, vehicle, drive), 4),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tracks", nargs="*", default=list(COURSES))
    parser.add_argument("--point", action="store_true", help="only the point mass")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    words = parser.parse_args()
    for name in words.tracks:
        line = json.dumps(measure(name, single=not words.point))
        print(line, flush=True)
        if words.out:
            with words.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
