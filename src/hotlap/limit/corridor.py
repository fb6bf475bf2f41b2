"""Where a rule lets the car's middle be, and the gates across it that an optimiser drives through.

The corridor is wider than the road where a rule lets wheels leave it. Its gates stand on a smoothed
centre line, because the normals of a tight corner cross each other inside of the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from hotlap.errors import ConfigError
from hotlap.track import Track
from hotlap.types import Array, Float64
from hotlap.vehicle import Vehicle

__all__ = ["RULES", "Gates", "Rule", "corridor", "gates"]

Rule: TypeAlias = Literal["all_wheels", "any_wheel", "centre"]
RULES: tuple[Rule, ...] = ("all_wheels", "any_wheel", "centre")

_YAWS = np.radians(np.arange(0.0, 360.0, 2.0))
_BEND = 0.7
"""Gates may turn by so much of what would let them cross at the corridor's edge."""


@dataclass(frozen=True, eq=False)
class Gates:
    """G cross-sections of a corridor in driving order; on a loop the last is followed by the first.

    A place on gate i is `at[i] + w * across[i]`, with w in [low[i], high[i]].
    """

    at: Float64
    """(G, 2) a point of each gate [m]."""
    across: Float64
    """(G, 2) unit vectors to the left."""
    low: Float64
    """(G,) the right end [m], below `high`."""
    high: Float64
    """(G,) the left end [m]."""
    s: Float64
    """(G,) arc length of the track's centre line where the gate stands [m]."""
    closed: bool

    @property
    def count(self) -> int:
        """How many gates there are."""
        return len(self.at)

    @property
    def curvature(self) -> Float64:
        """(G,) of the line the gates stand on [1/m]."""
        turn = _turn(self.across, self.closed)
        return np.asarray(turn / _step(self.at, self.closed))


def corridor(track: Track, vehicle: Vehicle, rule: Rule) -> tuple[Float64, Float64]:
    """Return how far to the right and to the left of each station the car's middle may be.

    (S,) and (S,) [m], both positive. Whatever its yaw, a car further out breaks the rule: the
    widest of all headings counts. The wheels are placed as the simulator places them, on the circle
    of curvature, and the border is straight on both sides of the station.

    Raises:
        ConfigError: there is no such rule.
    """
    if rule not in RULES:
        raise ConfigError(
            f"rule: choose from {', '.join(RULES)} (got {rule}); without a rule that keeps the car "
            "on the road there is no fastest lap"
        )
    st = track.stations
    left, right = st.left.astype(np.float64), st.right.astype(np.float64)
    if rule == "centre":
        return right, left
    bend = st.curvature.astype(np.float64)
    return (
        _reach(right, -bend, st.spacing, st.closed, vehicle, rule),
        _reach(left, bend, st.spacing, st.closed, vehicle, rule),
    )


def _reach(
    border: Float64, bend: Float64, spacing: float, closed: bool, vehicle: Vehicle, rule: Rule
) -> Float64:
    """Return how far out the middle may be on the side where `bend` is positive."""
    change = np.roll(border, -1) - border
    slopes = [change / spacing, np.roll(change, 1) / spacing]
    if not closed:
        slopes[0][-1] = slopes[0][-2]
        slopes[1][0] = slopes[1][1]
    best = np.full(len(border), -np.inf)
    for slope in slopes:
        rooms = []
        for ahead in (vehicle.wheel_front, vehicle.wheel_rear):
            for side in (vehicle.wheel_side, -vehicle.wheel_side):
                along = (ahead * np.cos(_YAWS) - side * np.sin(_YAWS))[:, None]
                out = (ahead * np.sin(_YAWS) + side * np.cos(_YAWS))[:, None]
                edge = border + slope * along
                # A wheel that touches the border; the circle of curvature through the foot point.
                fall = 0.5 * bend * along**2 / np.maximum(1 - bend * edge, 0.1)
                rooms.append(edge - out + fall)
        stacked = np.stack(rooms)
        kept = stacked.max(0) if rule == "all_wheels" else stacked.min(0)
        best = np.maximum(best, kept.max(0))
    return best


def gates(track: Track, vehicle: Vehicle, rule: Rule, spacing: float) -> Gates:
    """Return gates about every `spacing` metres of the centre line."""
    right, left = corridor(track, vehicle, rule)
    st = track.stations
    fine: Float64 = st.spacing * np.arange(st.count, dtype=np.float64)
    edges = [track.locate(fine, left), track.locate(fine, -right)]
    count = max(16, round(track.length / spacing))
    step = track.length / (count if track.closed else count - 1)
    s: Float64 = step * np.arange(count, dtype=np.float64)
    widest = float(max(left.max(), right.max()))
    centre = np.stack([st.x, st.y], axis=1).astype(np.float64)
    for _ in range(12):
        at, across, bend = _line(centre, st.spacing, fine, s, track.closed)
        if float(np.abs(bend).max()) * widest < _BEND:
            break
        centre = _smooth(centre, 0.3 * track.width / st.spacing, track.closed)
    high, low = (
        _hit(at, sign * across, edge, s, fine, 1.6 * widest, track)
        for sign, edge in ((1.0, edges[0]), (-1.0, edges[1]))
    )
    return Gates(at=at, across=across, low=-low, high=high, s=s, closed=track.closed)


def _line(
    centre: Float64, spacing: float, fine: Float64, s: Float64, closed: bool
) -> tuple[Float64, Float64, Float64]:
    """Return points and left normals at `s`, and the curvature everywhere, of a dense line."""
    if closed:
        step = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    else:
        step = np.gradient(centre, axis=0) * 2
    tangent = step / np.hypot(*step.T)[:, None]
    bend = _turn(tangent, closed) / (0.5 * np.hypot(*step.T))
    period = spacing * len(fine) if closed else None
    columns = [np.interp(s, fine, column, period=period) for column in (*centre.T, *tangent.T)]
    x, y, tx, ty = columns
    size = np.hypot(tx, ty)
    return np.stack([x, y], 1), np.stack([-ty / size, tx / size], 1), bend


def _smooth(line: Float64, deviation: float, closed: bool) -> Float64:
    """Blur a line along itself; the ends of an open one stay where they are."""
    half = min(round(3 * deviation), (len(line) - 1) // 2)
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / deviation) ** 2)
    weights /= weights.sum()
    if closed:
        padded = np.concatenate([line[-half:], line, line[:half]])
    else:  # turned about its ends
        before, after = 2 * line[0] - line[half:0:-1], 2 * line[-1] - line[-2 : -half - 2 : -1]
        padded = np.concatenate([before, line, after])
    return np.stack([np.convolve(column, weights, "valid") for column in padded.T], axis=1)


def _hit(
    at: Float64,
    ray: Float64,
    edge: Float64,
    s: Float64,
    fine: Float64,
    furthest: float,
    track: Track,
) -> Float64:
    """Return how far along each ray its last meeting with an edge nearby is.

    The last one, because an edge may fold in a tight corner, and the corridor holds all of it.
    """
    joined = np.concatenate([edge, edge[:1]]) if track.closed else edge
    begin, piece = joined[:-1], np.diff(joined, axis=0)
    gap = np.abs(s[:, None] - fine[None, : len(begin)])
    if track.closed:
        gap = np.minimum(gap, track.length - gap)
    dx, dy = (begin[None, :, k] - at[:, None, k] for k in (0, 1))
    rx, ry = ray[:, :1], ray[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        slant = rx * piece[:, 1] - ry * piece[:, 0]
        far = (dx * piece[:, 1] - dy * piece[:, 0]) / slant
        u = (dx * ry - dy * rx) / slant
    here = gap < 2 * furthest
    near = here & (np.abs(far) < furthest) & (u >= -1e-9) & (u <= 1 + 1e-9)
    found = np.where(near, far, -np.inf).max(axis=1)
    # A ray that misses, as at the ends of an open track: the station's own distance to the edge.
    station = np.argmin(gap, axis=1)
    found = np.where(np.isfinite(found), found, np.hypot(*(edge[station] - at).T))
    # The tip of a fold lies between two gates: the nearest one takes it in.
    beside = np.abs(dx * ry - dy * rx)
    out = dx * rx + dy * ry
    gate = np.argmin(np.where(here & (np.abs(out) < furthest), beside, np.inf), axis=0)
    np.maximum.at(found, gate, out[gate, np.arange(len(begin))])
    return np.asarray(found)


def _turn(direction: Float64, closed: bool) -> Array:
    """Return by how much unit vectors turn from half a step before to half a step after [rad]."""
    if closed:
        before, after = np.roll(direction, 1, axis=0), np.roll(direction, -1, axis=0)
    else:
        padded = np.concatenate([direction[:1], direction, direction[-1:]])
        before, after = padded[:-2], padded[2:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.asarray(np.arctan2(cross, (before * after).sum(1)) / 2)


def _step(at: Float64, closed: bool) -> Array:
    """Return how far apart points are, on average to both sides."""
    length = np.hypot(*(np.roll(at, -1, axis=0) - at).T)
    if not closed:
        length[-1] = length[-2]
        return np.asarray((length + np.concatenate([length[:1], length[:-1]])) / 2)
    return np.asarray((length + np.roll(length, 1)) / 2)
