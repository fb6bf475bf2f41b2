"""Traces: what an evaluation wrote down of a car, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hotlap.types import Array, Float64

__all__ = ["lap_times"]


def lap_times(trace: Mapping[str, Array], length: float | None) -> Float64:
    """Return the times [s] of the laps that a trace completes, exact between its rows.

    Args:
        trace: (T,) arrays t [s], s [m] and lap, the number of laps completed so far.
        length: of the closed track [m]; None for an open one, whose end is not passed.
    """
    t, lap = trace["t"].astype(np.float64), np.maximum.accumulate(trace["lap"].astype(np.int64))
    before = np.flatnonzero(np.diff(lap) > 0)
    part = np.ones(len(before))
    if length is not None:  # a lap ends where the trace began, somewhere between two rows
        gone = (trace["s"].astype(np.float64) - float(trace["s"][0])) % length
        missing = length - gone[before]
        part = missing / (missing + gone[before + 1])
    ends = t[before] + part * (t[before + 1] - t[before])
    return np.diff(ends, prepend=t[:1])
