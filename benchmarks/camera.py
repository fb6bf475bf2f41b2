"""Camera frames per second: python benchmarks/camera.py"""

from __future__ import annotations

import os
import time

import numpy as np

from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import Look, RobotiniLook
from hotlap.simulator import BOX_FIELDS
from hotlap.threads import available
from hotlap.track import load_track

ROWS = 256
SECONDS = 0.25
SIZES = ((160, 120, "grey"), (160, 120, "rgb"), (64, 48, "grey"), (64, 48, "rgb"), (48, 32, "grey"))


def rate(camera: Camera, *call: np.ndarray, boxes: np.ndarray | None = None) -> float:
    """Best of several rounds, in frames per second of the wall's clock."""
    out = camera.render(*call, boxes=boxes)
    best, end = 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        camera.render(*call, out, boxes=boxes)
        best = max(best, len(out) / (time.perf_counter() - start))
    return best


def main() -> None:
    track = load_track("reinvent_like")
    draws = np.random.default_rng(0)
    s, n = draws.uniform(0, track.length, ROWS), draws.uniform(-0.25, 0.25, ROWS)
    x, y = track.locate(s, n).T
    heading = np.interp(
        s / track.stations.spacing,
        np.arange(track.stations.count),
        np.unwrap(track.stations.heading),
    )
    yaw = heading + draws.uniform(-0.4, 0.4, ROWS)
    zero = np.zeros(ROWS, np.int32)
    start = time.perf_counter()
    Camera(CameraSettings(), [track]).render(x[:1], y[:1], yaw[:1], zero[:1], zero[:1])
    print(f"first frame, with what had to be compiled: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    Camera(CameraSettings(), [track])
    print(f"survey of {track.length:.1f} m: {1e3 * (time.perf_counter() - start):.1f} ms")
    print(f"{ROWS} rows, load {os.getloadavg()[0]:.1f}, frames/s by threads")
    for width, height, color in SIZES:
        settings = CameraSettings(width=width, height=height, color=color)
        rates = [
            f"{rate(Camera(settings, [track], threads=threads), x, y, yaw, zero, zero):10,.0f}"
            for threads in range(1, available() + 1)
        ]
        print(f"{width:4d} x {height:3d} {color:4s}", *rates)
    boxes = np.zeros((ROWS, 4, len(BOX_FIELDS)), np.float32)
    for k, ahead in enumerate((0.6, 1.4, 2.5, 4.0)):
        place = track.locate((s + ahead) % track.length, draws.uniform(-0.25, 0.25, ROWS))
        boxes[:, k] = np.column_stack([place, np.tile([1, 0, 0.15, 0.1, 0.2, 0], (ROWS, 1))])
    call = x, y, yaw, zero, zero
    for name, look, around in (
        ("4 boxes", Look(), boxes),
        ("walls", Look(wall_height=0.3), None),
        ("walls, 4 boxes", Look(wall_height=0.3), boxes),
        ("low walls", Look(wall_height=0.08), None),
        ("robotini", RobotiniLook(), None),
        ("wear, light, shade", Look(wear=0.5, light=0.5, shade=0.5), None),
    ):
        found = [
            rate(Camera(CameraSettings(), [track], [look], threads=threads), *call, boxes=around)
            for threads in range(1, available() + 1)
        ]
        print(f"160 x 120 grey, {name:18s}", *(f"{one:10,.0f}" for one in found))


if __name__ == "__main__":
    main()
