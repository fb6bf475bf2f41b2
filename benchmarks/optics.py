"""What lenses, optics and colour bands cost: python benchmarks/optics.py [--out FILE]

Microseconds of the wall's clock for a picture, beside drawing it; the best of many rounds, as
others share the machine. Pillow's JPEG stands beside ours.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from hotlap.draws import Purpose, add_grain, keys, normal
from hotlap.sim.bands import ColorBandsSettings, color_bands
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.optics import Optics, OpticsRanges, OpticsSettings
from hotlap.threads import available
from hotlap.track import load_track

ROWS, SECONDS = 64, 0.4
SIZES = ((160, 120, "grey"), (160, 120, "rgb"), (48, 32, "grey"))
LENSES = {
    "pinhole": {},
    "pinhole, rolled": {"roll_deg": 1.5},
    "pinhole, distorted": {"distortion": (-0.18, 0.02), "fov_deg": 90},
    "fisheye, 120 degrees": {"lens": "fisheye", "fov_deg": 120},
    "fisheye, 180 degrees": {"lens": "fisheye", "fov_deg": 180},
}
FLAWS = {
    "tones": {"exposure": 1.2, "gamma": 1.2, "contrast": 0.9},
    "vignetting": {"vignetting": 0.3},
    "noise": {"noise": 5},
    "blur": {"blur": 0.8},
    "shutter": {"shutter": 0.02},
    "JPEG": {"quality": 60},
    "everything": {"exposure": 1.2, "vignetting": 0.3, "noise": 5, "blur": 0.8, "shutter": 0.02,
                   "quality": 60},
}  # fmt: skip


def cost(call: Callable[[], object], pictures: int = ROWS) -> float:
    """Microseconds a picture, the best of several rounds."""
    call()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / pictures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="append the results as one line of JSON")
    arguments = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    track = load_track("reinvent_like")
    line, which = track.stations, (np.arange(ROWS) * 5) % track.stations.count
    zero, row = np.zeros(ROWS, np.int32), np.arange(ROWS)
    place = line.x[which], line.y[which], line.heading[which] + 0.2, zero, zero

    def note(name: str, threads: int, value: float) -> None:
        print(f"{name:45s} {threads} threads {value:9.1f} us  {1e6 / value:9,.0f} a second")
        rows.append({"name": name, "threads": threads, "value": value, "unit": "us"})

    def size(width: int, height: int, color: str, **more: object) -> CameraSettings:
        given = {"width": width, "height": height, "color": color, **more}
        return CameraSettings.model_validate(given)

    for threads in range(1, available() + 1):
        for shape in SIZES:
            label = "{}x{} {}".format(*shape)
            for name, given in LENSES.items():
                camera = Camera(size(*shape, **given), [track], threads=threads)
                note(f"{label}, {name}", threads, cost(partial(camera.render, *place)))
                if shape[2] == "grey":
                    call = partial(camera.depth, *place, range_max=10.0)
                    note(f"{label}, {name}, depth", threads, cost(call))
                    call = partial(camera.segmentation, *place)
                    note(f"{label}, {name}, segmentation", threads, cost(call))
            pictures = Camera(size(*shape), [track]).render(*place)
            for name, given in FLAWS.items():
                optics = Optics(OpticsSettings(**given), OpticsRanges(), ROWS, pictures.shape[1:],
                                focal=126, threads=threads)  # fmt: skip
                call = partial(optics.develop, pictures, row, seed=0, ids=row, episode=zero,
                               steps=zero, yaw_rate=np.full(ROWS, 2, np.float32))  # fmt: skip
                note(f"{label}, {name}", threads, cost(call))
        camera = Camera(
            size(128, 80, "rgb", fov_deg=71.95, pitch_deg=11, mount_height=0.068),
            [track],
            threads=threads,
        )
        pictures, bands = camera.render(*place), ColorBandsSettings()
        call = partial(color_bands, pictures, bands, threads=threads)
        note("128x80 rgb, colour bands", threads, cost(call))
        call = lambda: color_bands(camera.render(*place), bands, threads=threads)  # noqa: B023, E731
        note("128x80 rgb, drawn, colour bands", threads, cost(call))
    pictures = Camera(size(160, 120, "grey"), [track]).render(*place)
    one, flat = Image.fromarray(pictures[0, :, :, 0]), pictures.reshape(-1)

    def pillow() -> None:
        file = io.BytesIO()
        one.save(file, "JPEG", quality=60)
        np.asarray(Image.open(file))

    note("160x120 grey, Pillow's JPEG", 1, cost(pillow, 1))
    which = (0, row, zero, zero, Purpose.NOISE)
    note("160x120, normal draws", 1, cost(partial(normal, *which, 19200)))
    table, key = np.full(256, 5, np.float32), keys(*which)
    note("160x120, grain", 1, cost(partial(add_grain, 0, ROWS, flat, 19200, key, table)))
    if arguments.out:
        root = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, text=True,
                                capture_output=True).stdout.strip()  # fmt: skip
        record = {"kind": "optics", "date": datetime.now(UTC).isoformat(timespec="seconds"),
                  "commit": commit, "load_before": load, "cores": available(),
                  "rows": rows}  # fmt: skip
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
