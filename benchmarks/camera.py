"""Camera frames per second: python benchmarks/camera.py"""

from __future__ import annotations

import os
import time

import numpy as np

from hotlap.sim.camera import Camera, CameraSettings
from hotlap.threads import available
from hotlap.track import load_track

ROWS = 256
SECONDS = 0.25
SIZES = ((160, 120, "grey"), (160, 120, "rgb"), (64, 48, "grey"), (64, 48, "rgb"), (48, 32, "grey"))


def rate(camera: Camera, *call: np.ndarray) -> float:
    """Best of several rounds, in frames per second of the wall's clock."""
    out = camera.render(*call)
    best, end = 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        camera.render(*call, out)
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


if __name__ == "__main__":
    main()
