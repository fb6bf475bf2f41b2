"""Clusters: a few points that stand for many, the same ones every time."""

from __future__ import annotations

import numpy as np

from hotlap.types import Float64

__all__ = ["distinct", "k_means"]

_ROUNDS = 100
_SAME = 3
"""Points that agree to so many decimals count as one."""


def distinct(points: Float64) -> int:
    """Return how many points there are that differ by more than a thousandth."""
    return len(np.unique(np.round(points, _SAME), axis=0))


def k_means(points: Float64, count: int, weights: Float64 | None = None) -> Float64:
    """Return the centres of so many clusters of weighted points.

    Begun at the point with the least last coordinate and then at those furthest from all before,
    so that there is nothing to draw.

    Args:
        points: (M, D), scaled so that distances mean the same in each direction.
        count: how many; at most `distinct(points)`.
        weights: (M,) how much each counts, not negative; all alike if None.

    Returns:
        (count, D) centres.

    Source: Lloyd 1982, "Least squares quantization in PCM"; its beginning is the farthest-first
    traversal of Gonzalez 1985.
    """
    weights = np.ones(len(points)) if weights is None else weights
    chosen = [int(np.argmin(points[:, -1]))]
    for _ in range(count - 1):
        away = ((points[:, None] - points[chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(away)))
    centres = points[chosen]
    for _ in range(_ROUNDS):
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        moved = centres.copy()
        for k in range(count):
            own = nearest == k
            if weights[own].sum() > 0:
                moved[k] = np.average(points[own], axis=0, weights=weights[own])
        if np.allclose(moved, centres, atol=1e-9):
            break
        centres = moved
    return centres
