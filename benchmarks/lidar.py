"""LIDAR scans per second and their error: python benchmarks/lidar.py [--out FILE]

Beside ours stands the usual way, marching through a field of distances in cells of 2.5 cm, here
with all beams of a scan in lock-step and at most 24 steps, without boxes. Both are compared with
every segment tested in float64.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from hotlap.sim.lidar import Lidar, RangeLidar, track_walls
from hotlap.threads import available, spread
from hotlap.track import Track, load_track

SCANS, SECONDS, CELL, STEPS = 4096, 0.4, 0.025, 24
TRACKS = ("reinvent_like", "oval", "hairpins", "kart", "hard")


def scene(track: Track) -> tuple[np.ndarray, ...]:
    """Poses on the road, and four boxes 0.5 to 4 m ahead of each: x, y, yaw, track, boxes."""
    draws = np.random.default_rng(0)
    s = draws.uniform(0, track.length, SCANS)
    x, y = track.locate(s, draws.uniform(-0.15, 0.15, SCANS)).T
    station = np.minimum((s / track.stations.spacing).astype(int), track.stations.count - 1)
    yaw = track.stations.heading[station] + draws.uniform(-0.5, 0.5, SCANS)
    boxes = np.zeros((SCANS, 4, 8), np.float32)
    ahead = (s[:, None] + draws.uniform(0.5, 4, (SCANS, 4))).ravel()
    boxes[..., :2] = track.locate(ahead, draws.uniform(-0.15, 0.15, 4 * SCANS)).reshape(-1, 4, 2)
    turn = draws.uniform(-np.pi, np.pi, (SCANS, 4))
    boxes[..., 2], boxes[..., 3] = np.cos(turn), np.sin(turn)
    boxes[..., 4:7] = 0.2, 0.15, 0.25
    return x, y, yaw, np.zeros(SCANS, np.int32), boxes


def exact(track: Track, x: np.ndarray, y: np.ndarray, angle: np.ndarray, reach: float):
    """Distances (M, K) by testing every segment in float64."""
    walls = track_walls(track)
    p = np.concatenate([wall[:-1] for wall in walls])
    e = np.concatenate([np.diff(wall, axis=0) for wall in walls])
    found = np.full(angle.shape, reach)
    for i in range(len(x)):
        d = np.stack([np.cos(angle[i]), np.sin(angle[i])], axis=1)[:, None]
        to = p - [x[i], y[i]]
        slant = d[..., 0] * e[:, 1] - d[..., 1] * e[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (to[:, 0] * e[:, 1] - to[:, 1] * e[:, 0]) / slant
            u = (to[:, 0] * d[..., 1] - to[:, 1] * d[..., 0]) / slant
        t = np.where((t >= 0) & (u >= 0) & (u <= 1), t, reach)
        found[i] = np.minimum(t.min(axis=1), reach)
    return found


def field(track: Track) -> tuple[np.ndarray, np.ndarray]:
    points = []
    for wall in track_walls(track):
        for a, b in pairwise(wall):
            parts = max(2, int(np.hypot(*(b - a)) / (CELL / 4)))
            points.append(a + np.linspace(0, 1, parts)[:, None] * (b - a))
    cloud = np.concatenate(points)
    low = cloud.min(axis=0) - 0.5
    columns, rows = (int(n) for n in np.ceil((cloud.max(axis=0) + 0.5 - low) / CELL))
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) + 0.5
    distance = cKDTree(cloud).query(low + CELL * grid.reshape(-1, 2))[0]
    return distance.reshape(rows, columns).astype(np.float32), low.astype(np.float32)


@njit(nogil=True, fastmath=True, error_model="numpy")
def march(start, stop, out, x, y, yaw, angles, grid, low, cell, reach, steps):
    rows, columns = grid.shape
    inverse = np.float32(1) / cell
    dx, dy = np.empty(len(angles), np.float32), np.empty(len(angles), np.float32)
    flat, zero = grid.reshape(-1), np.float32(0)
    for i in range(start, stop):
        for k in range(len(angles)):
            dx[k], dy[k] = math.cos(yaw[i] + angles[k]), math.sin(yaw[i] + angles[k])
            out[i, k] = 0
        for _ in range(steps):
            for k in range(len(angles)):
                u = (x[i] + out[i, k] * dx[k] - low[0]) * inverse
                v = (y[i] + out[i, k] * dy[k] - low[1]) * inverse
                u = min(max(u, np.float32(0)), np.float32(columns - 1))
                v = min(max(v, np.float32(0)), np.float32(rows - 1))
                gap = flat[np.uint64(np.int32(v) * np.int32(columns) + np.int32(u))]
                # what the middle of the cell is farther away than its corner is not walked
                out[i, k] = min(out[i, k] + max(gap - np.float32(0.7) * cell, zero), reach)


def rate(call) -> tuple[float, float, float]:
    """Median, least and most scans a second."""
    call()
    rates, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(rates) < 5:
        start = time.perf_counter()
        call()
        rates.append(SCANS / (time.perf_counter() - start))
    return float(np.median(rates)), min(rates), max(rates)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="append the results as one line of JSON")
    arguments = parser.parse_args()
    rows = []

    def note(name: str, found: tuple[float, float, float], threads: int, **more: object) -> None:
        value, low, high = found
        print(f"{name:40s} {threads} threads {value:10,.0f} scans/s ({low:,.0f} to {high:,.0f})")
        rows.append({"name": name, "threads": threads, "value": value, "unit": "scans/s",
                     "spread": [low, high], **more})  # fmt: skip

    load = os.getloadavg()[0]
    settings = RangeLidar(beams=64, fov_deg=270, range_max=10)
    for name in TRACKS:
        track = load_track(name)
        x, y, yaw, index, boxes = scene(track)
        single = tuple(a.astype(np.float32) for a in (x, y, yaw))
        few = slice(0, 256)
        for threads in range(1, available() + 1):
            lidar = Lidar(settings, [track], threads=threads)
            for label, around in (("walls", boxes[:, :0]), ("walls and 4 boxes", boxes)):
                found = rate(partial(lidar.scan, x, y, yaw, index, around))
                note(f"{name}, {label}", found, threads)
        angles = lidar.angles
        true = exact(track, *(a[few].astype(float) for a in single[:2]),
                     single[2][few, None].astype(float) + angles, 10.0)  # fmt: skip
        error = np.abs(lidar.scan(*single, index)[few] - np.maximum(true, settings.range_min))
        grid, low = field(track)
        out = np.empty((SCANS, 64), np.float32)
        for threads in range(1, available() + 1):
            given = (angles.astype(np.float32), grid, low, np.float32(CELL), np.float32(10), STEPS)
            call = partial(spread, march, SCANS, out, *single, *given, block=16, threads=threads)
            note(f"{name}, walls, marching a field", rate(call), threads)
        marched = np.abs(out[few] - true)
        for label, one in (("exact", error), ("field", marched)):
            parts = [float(v) for v in np.quantile(one, (0.5, 0.99, 0.999, 1))]
            print(f"{name:20s} {label}: error median {parts[0]:.1e} m, 99 % {parts[1]:.1e}, "
                  f"99.9 % {parts[2]:.1e}, worst {parts[3]:.1e}")  # fmt: skip
            rows.append({"name": f"{name}, error of {label}", "unit": "m",
                         "quantiles": {"0.5": parts[0], "0.99": parts[1], "0.999": parts[2],
                                       "1": parts[3]}})  # fmt: skip
    if arguments.out:
        root = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, text=True,
                                capture_output=True).stdout.strip()  # fmt: skip
        record = {"kind": "lidar", "date": datetime.now(UTC).isoformat(timespec="seconds"),
                  "commit": commit, "load_before": load, "cores": available(),
                  "beams": 64, "scans": SCANS, "rows": rows}  # fmt: skip
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
