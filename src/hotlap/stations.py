"""The stations of many tracks in one array, as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hotlap.simulator import Start
from hotlap.track import Track
from hotlap.types import Array, Float32, Int32

__all__ = ["StationTable"]


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

    def place(self, start: Start) -> dict[str, Array]:
        """Turn starts into the fields of resting or rolling cars, float32 arrays (M,)."""
        spacing, segments = self.spacing[start.track], self.segments[start.track]
        at = start.s / spacing
        station = np.clip(np.floor(at), 0, segments - 1).astype(np.int32)
        t = (at - station).astype(np.float32)
        table = self.stations
        here = table[self.first[start.track] + station].astype(np.float64)
        there = table[self.first[start.track] + station + 1].astype(np.float64)
        mixed = here + t[:, None] * (there - here)
        size = np.hypot(mixed[:, 2], mixed[:, 3])
        heading = np.arctan2(mixed[:, 3], mixed[:, 2]) + start.heading_error
        placed = {
            "x": mixed[:, 0] - start.n * mixed[:, 3] / size,
            "y": mixed[:, 1] + start.n * mixed[:, 2] / size,
            "yaw": (heading + np.pi) % (2 * np.pi) - np.pi,
            "vx": start.speed,
            "reference": start.speed,
            "s": start.s,
            "n": start.n,
            "heading_error": start.heading_error,
            "curvature": mixed[:, 4],
            "left": mixed[:, 5],
            "right": mixed[:, 6],
            "zero": np.zeros(len(t)),
        }
        return {k: v.astype(np.float32) for k, v in placed.items()} | {"station": station}
