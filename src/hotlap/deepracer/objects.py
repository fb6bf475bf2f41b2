"""The `params` of DeepRacer that speak of objects: boxes, bots and other cars.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/track_geom/track_data.py and
bundle/markov/cameras/frustum.py, read for the facts. Headings are in radians, although its
documentation says degrees, and of boxes they are 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotlap.simulator import State, Surroundings
from hotlap.types import Array

__all__ = ["Around", "ObjectColumns", "object_columns"]

_AHEAD, _UP, _PITCH = 0.14529379, 0.13032555, 0.2618
"""The camera that `object_in_camera` means, whatever camera the driver has: [m], [m], [rad]."""
_ACROSS = math.tan(1.13 / 2)
_TALL = 0.75 * _ACROSS
_NEAR, _FAR = 0.2, 300.0


@dataclass(frozen=True, eq=False)
class ObjectColumns:
    """What N cars are told of K objects each, in DeepRacer's units."""

    there: Array
    """(N, K) which of the objects exist; the others are left out."""
    location: Array
    """(N, K, 2) centre [m]."""
    distance: Array
    """(N, K) arc length of the raw centre line [m]."""
    distance_from_center: Array
    left_of_center: Array
    heading: Array
    """(N, K) [rad]; 0 for all where none of them is a car."""
    speed: Array
    """(N, K) [m/s]."""
    in_camera: Array
    """(N, K) whether a corner or the middle of its floor is in the camera's picture."""
    crashed: Array
    """(N,) whether the car touches one."""

    def keys(self, i: int, place: float) -> dict[str, Any]:
        """Return the keys of one car, fresh, whose own arc length is `place` [m]."""
        there = np.flatnonzero(self.there[i])
        if not len(there):
            return {}
        distance = self.distance[i, there]
        order = np.argsort(distance, kind="stable")
        # the first beyond the car, and the one before it, around the loop
        after = int(np.searchsorted(distance[order], place, side="right"))
        behind, ahead = int(order[after - 1]), int(order[after % len(order)])
        return {
            "closest_objects": [behind, ahead],
            "is_crashed": bool(self.crashed[i]),
            "object_in_camera": bool(self.in_camera[i, there[ahead]]),
            "objects_distance": distance.tolist(),
            "objects_distance_from_center": self.distance_from_center[i, there].tolist(),
            "objects_heading": self.heading[i, there].tolist(),
            "objects_left_of_center": self.left_of_center[i, there].tolist(),
            "objects_location": self.location[i, there].tolist(),
            "objects_speed": self.speed[i, there].tolist(),
        }


@dataclass(frozen=True, eq=False)
class Around:
    """The keys of objects for N cars as plain arrays, in which objects that exist come first."""

    count: Array
    """(N,) how many exist."""
    most: int
    """Columns K of the arrays."""
    closest_objects: Array
    """(N, 2) behind and ahead."""
    is_crashed: Array
    object_in_camera: Array
    objects_distance: Array
    """(N, K), and so the next."""
    objects_distance_from_center: Array
    objects_heading: Array
    objects_left_of_center: Array
    objects_location: Array
    """(N, K, 2)."""
    objects_speed: Array

    @staticmethod
    def nothing(cars: int) -> Around:
        """Return the keys of cars that have the road for themselves."""
        none, no = np.zeros((cars, 0)), np.zeros(cars, bool)
        pair, count = np.zeros((cars, 2), np.int64), np.zeros(cars, np.int64)
        return Around(count, 0, pair, no, no, none, none, none, none, np.zeros((cars, 0, 2)), none)

    @staticmethod
    def of(objects: ObjectColumns, place: Array) -> Around:
        """Return the keys of cars whose own arc lengths are `place` [m]; as `keys` says them."""
        first = np.argsort(~objects.there, axis=1, kind="stable")
        count = objects.there.sum(axis=1)
        cars, most = first.shape
        exists = np.arange(most) < count[:, None]
        distance = np.take_along_axis(objects.distance, first, 1)
        order = np.argsort(np.where(exists, distance, np.inf), axis=1, kind="stable")
        after = (exists & (distance <= place[:, None])).sum(axis=1)
        some = count > 0
        full = np.maximum(count, 1)
        row = np.arange(cars)
        pair = np.stack([order[row, (after - 1) % full], order[row, after % full]], axis=1)
        seen = np.take_along_axis(objects.in_camera, first, 1)[row, pair[:, 1]]
        return Around(
            count.astype(np.int64),
            most,
            np.where(some[:, None], pair, 0).astype(np.int64),
            objects.crashed & some,
            seen & some,
            distance,
            np.take_along_axis(objects.distance_from_center, first, 1),
            np.take_along_axis(objects.heading, first, 1),
            np.take_along_axis(objects.left_of_center, first, 1),
            np.take_along_axis(objects.location, first[:, :, None], 1),
            np.take_along_axis(objects.speed, first, 1),
        )


def object_columns(
    state: State, around: Surroundings, distance: Array, beside: Array, left: Array
) -> ObjectColumns:
    """Say what N cars are told of what is around them.

    Args:
        state: the cars.
        around: what there is.
        distance: (N, K) where the objects are along the raw centre line [m].
        beside: (N, K) how far from it [m].
        left: (N, K) whether they are left of it.
    """
    boxes = around.boxes.astype(np.float64)
    there, is_car = boxes[:, :, 6] > 0, boxes[:, :, 7] == 1
    heading = np.arctan2(boxes[:, :, 3], boxes[:, :, 2])
    with_cars = (there & is_car).any(axis=1, keepdims=True)
    return ObjectColumns(
        there=there,
        location=boxes[:, :, :2],
        distance=distance,
        distance_from_center=beside,
        left_of_center=left,
        heading=np.where(with_cars, heading, 0.0),
        speed=np.round(around.speed.astype(np.float64), 6),
        in_camera=_in_camera(state, boxes),
        crashed=around.contact >= 0,
    )


def _in_camera(state: State, boxes: Array) -> Array:
    """Tell (N, K) which boxes have a corner or the middle of their floor in the picture."""
    corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1), (0, 0)])
    along = corners[:, 0] * boxes[:, :, 4:5]
    across = corners[:, 1] * boxes[:, :, 5:6]
    c, s = boxes[:, :, 2:3], boxes[:, :, 3:4]
    x = boxes[:, :, 0:1] + c * along - s * across - state.x[:, None, None]
    y = boxes[:, :, 1:2] + s * along + c * across - state.y[:, None, None]
    yaw = state.yaw.astype(np.float64)[:, None, None]
    forward = np.cos(yaw) * x + np.sin(yaw) * y - _AHEAD
    aside = np.cos(yaw) * y - np.sin(yaw) * x
    depth = math.cos(_PITCH) * forward + math.sin(_PITCH) * _UP
    rise = math.sin(_PITCH) * forward - math.cos(_PITCH) * _UP
    seen = (depth > _NEAR) & (depth < _FAR)
    seen &= (np.abs(aside) < _ACROSS * depth) & (np.abs(rise) < _TALL * depth)
    return np.asarray(seen.any(axis=2))
