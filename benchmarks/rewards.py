"""User's reward calls per second, compiled and in plain Python.

    python benchmarks/rewards.py [--out FILE]

The cars stand all over a track; a call is one car's reward, from arrays of params to the number, so
the plain rows include building each car's dict. What the world needs to find the params is not
counted: `hotlap bench` has the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hotlap.deepracer.rewards.batch import Prepared, RewardBatch, prepare
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.deepracer.rewards.samples import sample_columns
from hotlap.threads import available
from hotlap.track import load_track

CARS, SECONDS = 16384, 1.0
SAMPLE = '''
def reward_function(params):
    """DeepRacer's sample: three bands around the centre line, and less for steering far."""
    width, away = params["track_width"], params["distance_from_center"]
    if away <= 0.1 * width:
        reward = 1.0
    elif away <= 0.25 * width:
        reward = 0.5
    elif away <= 0.5 * width:
        reward = 0.1
    else:
        reward = 1e-3
    if abs(params["steering_angle"]) > 15:
        reward *= 0.8
    return float(reward)
'''
TYPICAL = '''
import math


def reward_function(params):
    """Forty lines: bands, course between waypoints, speed, steering, progress."""
    width, away = params["track_width"], params["distance_from_center"]
    speed, steering = params["speed"], abs(params["steering_angle"])
    waypoints, closest = params["waypoints"], params["closest_waypoints"]
    if away <= 0.1 * width:
        reward = 1
    elif away <= 0.25 * width:
        reward = 0.5
    elif away <= 0.5 * width:
        reward = 0.1
    else:
        reward = 1e-3
    ahead, behind = waypoints[closest[1]], waypoints[closest[0]]
    course = math.degrees(math.atan2(ahead[1] - behind[1], ahead[0] - behind[0]))
    turn = abs(course - params["heading"])
    if turn > 180:
        turn = 360 - turn
    if turn > 10.0:
        reward *= 0.5
    if not params["all_wheels_on_track"]:
        reward = 1e-3
    elif speed < 2.0:
        reward *= 0.8
    if steering > 20:
        reward *= 0.8
    if params["steps"] > 0:
        reward += params["progress"] / params["steps"]
    return float(reward)
'''
STATE = '''
before = 0.0


def reward_function(params):
    """The change of steering since the last step, remembered for each car."""
    global before
    change, before = abs(params["steering_angle"] - before), params["steering_angle"]
    return 1.0 / (1.0 + change) + 0.1 * params["speed"]
'''
TABLE = '''
import math

LINE = [[3 * math.cos(0.0021 * i), 2 * math.sin(0.0021 * i), 2.5] for i in range(3000)]


def reward_function(params):
    """The nearest of 3000 points of a racing line."""
    x, y, best, found = params["x"], params["y"], 1e9, 0
    for i in range(len(LINE)):
        gap = (LINE[i][0] - x) ** 2 + (LINE[i][1] - y) ** 2
        if gap < best:
            best, found = gap, i
    return max(1e-3, 1 - best) - abs(params["speed"] - LINE[found][2]) / 4
'''
FUNCTIONS = {"sample": SAMPLE, "typical": TYPICAL, "state": STATE, "line of 3000": TABLE}


def rate(batch: RewardBatch, cars: int) -> tuple[float, float, float]:
    """Median, least and most calls a second."""
    columns = sample_columns(load_track("oval"), 0, 0, cars)[0]
    batch(columns)
    rates, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter()
        batch(columns)
        rates.append(cars / (time.perf_counter() - start))
    return float(np.median(rates)), min(rates), max(rates)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="append the results as one line of JSON")
    parser.add_argument("--only", nargs="*", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    arguments = parser.parse_args()
    load, track, rows = os.getloadavg()[0], load_track("oval"), []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            path = Path(folder) / f"{name.replace(' ', '_')}.py"
            path.write_text(FUNCTIONS[name], encoding="utf-8")
            start = time.perf_counter()
            prepared = prepare(RewardFile(path), track)
            seconds = time.perf_counter() - start
            assert prepared.translation is not None, prepared.why
            slow = CARS // (64 if "line" in name else 4)
            for label, how, cars, threads in (
                ("plain Python", Prepared(prepared.file, None, ""), slow, 1),
                *(("compiled", prepared, CARS, n) for n in range(1, available() + 1)),
            ):
                params = sample_columns(track, 0, 0, cars)[1]
                value, low, high = rate(RewardBatch(how, params, threads), cars)
                print(f"{name:14s} {label:13s} {threads} threads {value:12,.0f} calls/s "
                      f"({low:,.0f} to {high:,.0f})", flush=True)  # fmt: skip
                rows.append({"name": name, "how": label, "threads": threads, "cars": cars,
                             "value": value, "unit": "calls/s", "spread": [low, high],
                             "prepare_s": seconds})  # fmt: skip
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], text=True,
                                cwd=Path(__file__).parent, capture_output=True).stdout  # fmt: skip
        record = {"kind": "rewards", "date": datetime.now(UTC).isoformat(timespec="seconds"),
                  "commit": commit.strip(), "load_before": load, "cores": available(),
                  "rows": rows}  # fmt: skip
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
