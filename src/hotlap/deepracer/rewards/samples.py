"""Sampled states, on which a user's reward function is tried before a training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hotlap.deepracer.params import Columns, Params
from hotlap.draws import Purpose, uniform
from hotlap.simulator import BOX_FIELDS, ROW_FIELDS, Command, State, Surroundings
from hotlap.track import Track

__all__ = ["sample_columns"]

CHECK_STATES = 400


def sample_columns(
    track: Track, obstacles: int, cars: int, states: int = CHECK_STATES
) -> tuple[Columns, Params]:
    """Return params of cars all over a track: on the line, beside it, off it, both ways round."""
    courses = track, track.reversed()
    rows = np.arange(states)
    draws = uniform(0, rows, 0 * rows, 0 * rows, Purpose.CHECK, 6).astype(np.float64).T
    course = rows % 2
    aside = np.where(
        rows % 5 == 0, 0.0, 2.8 * draws[1] - 1.4
    )  # 1: the border; beyond: off the track
    poses = np.empty((states, 3))
    for row in rows:
        line, border = courses[course[row]].centre, courses[course[row]].inner
        i = int(draws[0, row] * (len(line) - 1))
        poses[row, :2] = line[i] + aside[row] * (border[i] - line[i])
        toward = line[i + 1] - line[i]
        poses[row, 2] = math.atan2(toward[1], toward[0])
    turned = np.where(rows % 7 == 6, math.pi, 1.0 * draws[2] - 0.5)
    poses[:, 2] = (poses[:, 2] + turned + math.pi) % (2 * math.pi) - math.pi
    values: dict[str, Any] = {name: np.zeros(states) for name in ROW_FIELDS}
    x, y, yaw = poses.T.astype(np.float32, order="C")
    values |= {"x": x, "y": y, "yaw": yaw, "track": course.astype(np.int32)}
    if obstacles + cars:
        values["around"] = _objects(track, obstacles, cars, states)
    state = State(**values)  # Params reads nothing else of it
    steering = np.where(rows % 4 == 0, 0.0, np.radians(60 * draws[3] - 30))
    command = Command(steering.astype(np.float32), (0.1 + 3.9 * draws[4]).astype(np.float32))
    params = Params(courses)
    params.begin(rows, state)
    moment = rows // 2 % 4  # 0: the first step, 1: the end of the lap, else on the way
    steps = np.where(moment == 0, 2, 3 + (500 * draws[5]).astype(np.int64))
    columns = params.compute(state, command, steps)
    driven = np.where(moment == 1, 100.0, 100.0 * draws[5])
    return replace(columns, progress=np.where(moment > 0, driven, columns.progress)), params


def _objects(track: Track, obstacles: int, cars: int, states: int) -> Surroundings:
    """Put obstacles and cars evenly round a track, left and right in turn, for every sample."""
    count, line = obstacles + cars, track.stations
    place = np.arange(count) * line.count // count
    side = np.where(np.arange(count) % 2, -0.5 * line.right[place], 0.5 * line.left[place])
    boxes = np.empty((count, len(BOX_FIELDS)), np.float32)
    boxes[:, 0] = line.x[place] - side * line.ty[place]
    boxes[:, 1] = line.y[place] + side * line.tx[place]
    boxes[:, 2], boxes[:, 3] = line.tx[place], line.ty[place]
    boxes[:, 4:7] = 0.15, 0.1, 0.2
    boxes[:, 7] = np.arange(count) >= obstacles
    every = np.ones((states, 1), np.float32)
    return Surroundings(
        boxes=every[:, :, None] * boxes,
        s=every * place * line.spacing,
        n=every * side,
        speed=every * np.where(boxes[:, 7] == 1, 0.5, 0).astype(np.float32),
        contact=np.where(np.arange(states) % 9 == 4, 0, -1).astype(np.int32),
    )
