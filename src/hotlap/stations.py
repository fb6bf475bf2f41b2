"""The stations of many tracks in one array, as the kernels read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from hotlap.simulator import Start
from hotlap.track import Track
from hotlap.types import Float32, Int32

__all__ = ["PLACED", "StationTable"]

PLACED = (
    "x", "y", "yaw", "vx", "reference", "s", "n", "heading_error", "curvature", "left", "right",
)  # fmt: skip
"""The fields of a State that a start determines; the other float32 ones are 0."""


class StationTable:
    """Stations of `tracks`, one track after the other.

    A row holds x, y, tangent x, tangent y, curvature, left, right, and a zero that fills the cache
    line. A closed track repeats its first station at the end, so that a kernel reads station k + 1
    without asking. Station k of track i is row `first[i] + k`.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        tables, first, count = [], [], 0
        for track in tracks:
            st = track.stations
            table = np.stack(
                [st.x, st.y, st.tx, st.ty, st.curvature, st.left, st.right, 0 * st.x], axis=1
            )
            if st.closed:
                table = np.concatenate([table, table[:1]])
            tables.append(table)
            first.append(count)
            count += len(table)
        self.stations: Float32 = np.concatenate(tables).astype(np.float32)
        self.first: Int32 = np.array(first, np.int32)
        self.segments: Int32 = np.array([len(t) - 1 for t in tables], np.int32)
        self.spacing: Float32 = np.array([t.stations.spacing for t in tracks], np.float32)
        self.closed: Int32 = np.array([t.stations.closed for t in tracks], np.int32)

    def place(self, start: Start) -> tuple[Float32, Int32]:
        """Put resting or rolling cars on the road: (11, M) fields by `PLACED`, (M,) stations."""
        given = (start.s, start.n, start.heading_error, start.speed)
        s, n, heading_error, speed = (np.ascontiguousarray(one, np.float32) for one in given)
        fields = np.empty((len(PLACED), len(s)), np.float32)
        station = np.empty(len(s), np.int32)
        _place(
            fields, station, s, n, heading_error, speed, self.stations, self.first[start.track],
            self.segments[start.track], self.spacing[start.track],
        )  # fmt: skip
        return fields, station


@njit(cache=True, nogil=True, error_model="numpy")
def _place(  # type: ignore[no-untyped-def]
    fields, station, s, n, heading_error, speed, stations, first, segments, spacing
):
    for i in range(len(s)):
        at = s[i] / spacing[i]
        k = min(max(np.int32(math.floor(at)), 0), segments[i] - 1)
        t = np.float64(np.float32(at - k))
        here, there = stations[first[i] + k], stations[first[i] + k + 1]
        x, y = _between(here, there, t, 0), _between(here, there, t, 1)
        tx, ty = _between(here, there, t, 2), _between(here, there, t, 3)
        size = math.hypot(tx, ty)
        yaw = (math.atan2(ty, tx) + heading_error[i] + math.pi) % (2 * math.pi) - math.pi
        station[i] = k
        fields[0, i], fields[1, i] = x - n[i] * ty / size, y + n[i] * tx / size
        fields[2, i], fields[3, i], fields[4, i] = yaw, speed[i], speed[i]
        fields[5, i], fields[6, i], fields[7, i] = s[i], n[i], heading_error[i]
        for column in range(4, 7):
            fields[4 + column, i] = _between(here, there, t, column)


@njit(error_model="numpy", forceinline=True)
def _between(here, there, t, column):  # type: ignore[no-untyped-def]
    """Interpolate in float64, so that float32 holds the place to its last digit."""
    before = np.float64(here[column])
    return before + t * (np.float64(there[column]) - before)
