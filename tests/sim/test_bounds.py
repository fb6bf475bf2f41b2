"""Compiled loops stay inside their arrays: what lies outside would be somebody else's memory."""

import os
import subprocess
import sys

import pytest

DRIVE = """
import numpy as np
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv

BASE = {
    "track": "oval,hard", "start.kind": "random", "traffic.obstacles": 4, "traffic.bots": 2,
    "observation.actor": ["camera", "state", "lidar"], "observation.camera.width": 50,
    "observation.camera.height": 34, "rules.off_track": "never",
}
for more in (
    {},
    {"observation.camera.color": "rgb", "look": "robotini", "traffic.cars": 2},
    {"look.wall_height": 0.3, "observation.camera.color": "rgb", "randomize.looks": 8,
     "randomize.wear": 0.5, "randomize.light": 0.4, "randomize.shade": 0.5},
    {"look.wall_height": 0.05, "observation.camera.optics.blur": 1.0,
     "observation.camera.optics.noise": 5.0, "observation.camera.lens": "fisheye"},
):
    env = VectorEnv(resolve(EnvSettings, BASE, more), 12, threads=1)
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        env.advance(rng.uniform(-1, 1, (env.rows, 2)).astype(np.float32))
print("inside")
"""


@pytest.mark.slow
def test_everything_that_is_seen_and_judged_stays_inside_its_arrays(tmp_path):
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", DRIVE],
        env=os.environ | checked, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines()[-1:] == ["inside"], done.stderr[-2000:]
