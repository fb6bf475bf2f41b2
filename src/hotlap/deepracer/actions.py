"""Action spaces for DeepRacer: grids, and the actions that suit a racing line.

A racing line asks for a steering angle and a speed at each of its places. The actions chosen for it
are those that leave no place far from an action. Angles are in degrees, positive left, as in a
`model_metadata.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hotlap.clusters import distinct, k_means
from hotlap.deepracer.files.documents import Document, brief
from hotlap.deepracer.files.metadata import CAMERAS, NETWORKS, Metadata
from hotlap.errors import ConfigError
from hotlap.files import explained, replace
from hotlap.types import Array, Float64
from hotlap.vehicle import GRAVITY, Vehicle

__all__ = [
    "ACTIONS_MOST",
    "Coverage",
    "Needs",
    "coverage",
    "grid",
    "line_actions",
    "line_needs",
    "read_line",
    "scale",
    "speed_profile",
    "speed_scale",
    "steering_limit",
    "steering_scale",
    "write_metadata",
]

ACTIONS_MOST = 100
"""DeepRacer's own services took 2 to 30; a policy that is to tell more apart learns slowly."""

STEERING_MOST, SPEED_LEAST, SPEED_MOST = 30.0, 0.1, 4.0
"""What DeepRacer's car obeys [degrees, m/s]; a distance between actions is in shares of these."""

_LINE_LEAST = 8
_LINE_MOST = 200_000
_GAP = 3.0
"""A line is a loop if its ends are no further apart than so many of its usual steps."""


def scale(low: float, high: float, interval: float) -> tuple[float, ...]:
    """Return low, low + interval ... up to high, as DeepRacer's Custom Framework counts.

    `high` itself belongs to it only if it lies on the scale.

    Raises:
        ConfigError: the interval is not positive, the ends are in the wrong order, or there would
            be more than 100 values.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ConfigError(f"the least value must not be above the greatest (got {low:g}, {high:g})")
    if not (math.isfinite(interval) and interval > 0):
        raise ConfigError(f"the interval must be above 0 (got {interval:g})")
    steps = (high - low) / interval + 1e-9
    if steps >= ACTIONS_MOST:
        raise ConfigError(
            f"from {low:g} to {high:g} by {interval:g} are more than {ACTIONS_MOST} values; "
            "widen the interval"
        )
    return tuple(round(low + interval * i, 6) for i in range(int(steps) + 1))


def steering_scale(most: float, granularity: int) -> tuple[float, ...]:
    """Return so many angles evenly from -most to most, as DeepRacer's console offered them.

    Raises:
        ConfigError: there are fewer than 2, or more than 100.
    """
    _check_count("steering granularity", granularity, 2)
    return tuple(round(-most + 2 * most * i / (granularity - 1), 3) for i in range(granularity))


def speed_scale(most: float, granularity: int) -> tuple[float, ...]:
    """Return so many speeds evenly up to `most`, without 0, as DeepRacer's console offered them.

    Raises:
        ConfigError: there are fewer than 1, or more than 100.
    """
    _check_count("speed granularity", granularity, 1)
    return tuple(round(most * (i + 1) / granularity, 3) for i in range(granularity))


def steering_limit(speed: ArrayLike, vehicle: Vehicle, *, share: float = 1.0) -> Float64:
    """Return the greatest useful steering at some speeds [degrees]: beyond it the car only slides.

    A circle of radius R takes v^2 / R of sideways acceleration, and wheels without slip need
    atan(L / R); so the limit is atan(L share mu g / v^2), and never more than the car steers.

    Args:
        speed: [m/s]
        vehicle: gives wheelbase, friction and the greatest angle.
        share: how much of the friction may be used; above 1 leaves room for slip.
    """
    v = np.maximum(np.asarray(speed, np.float64), 1e-6)
    wheelbase = vehicle.front_axle + vehicle.rear_axle
    angle = np.arctan(wheelbase * share * vehicle.friction * GRAVITY / v**2)
    return np.asarray(np.degrees(np.minimum(angle, vehicle.steering_max)))


def grid(
    steering: Sequence[float],
    speeds: Sequence[float],
    limit: Callable[[float], float] | None = None,
) -> tuple[tuple[float, float], ...]:
    """Return every combination of angles and speeds, slowest first and from right to left.

    Args:
        steering: angles [degrees].
        speeds: [m/s]
        limit: greatest angle at a speed; the angles of that speed are drawn together to fit into
            it, so that there are as many at each speed.

    Raises:
        ConfigError: fewer than 2 actions, more than 100, or values that a car cannot have.
    """
    found: list[tuple[float, float]] = []
    most = max((abs(angle) for angle in steering), default=0.0)
    for speed in speeds:
        squeeze = 1.0
        if limit is not None and most > 0:
            squeeze = min(1.0, limit(speed) / most)
        found += [(round(squeeze * angle, 2), round(speed, 4)) for angle in steering]
    return check(tuple(found))


def check(actions: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Return actions that a `model_metadata.json` may hold, or say why they may not.

    Raises:
        ConfigError: none, more than 100, twice the same, or values that no car has.
    """
    if not 1 <= len(actions) <= ACTIONS_MOST:
        raise ConfigError(f"actions: must be 1 to {ACTIONS_MOST} (got {len(actions)})")
    for angle, speed in actions:
        if not abs(angle) <= STEERING_MOST:
            bounds = f"-{STEERING_MOST:g} to {STEERING_MOST:g} degrees"
            raise ConfigError(f"steering: must be {bounds}, which the car obeys (got {angle:g})")
        if not SPEED_LEAST <= speed <= SPEED_MOST:
            bounds = f"{SPEED_LEAST:g} to {SPEED_MOST:g} m/s"
            raise ConfigError(f"speed: must be {bounds}, which the car obeys (got {speed:g})")
    if len(set(actions)) < len(actions):
        raise ConfigError("actions: some are the same twice; ask for fewer, or for a wider scale")
    return actions


@dataclass(frozen=True, eq=False)
class Needs:
    """What a racing line asks of a car at M places."""

    steering: Float64
    """(M,) angle of the front wheels [degrees], positive left."""
    speed: Float64
    """(M,) that is commanded [m/s]."""
    seconds: Float64
    """(M,) that are spent there; how much a place counts."""

    @property
    def points(self) -> Float64:
        """(M, 2) steering and speed in shares of what DeepRacer's car can do."""
        return np.stack([self.steering / STEERING_MOST, self.speed / SPEED_MOST], axis=1)


def line_needs(
    line: Array,
    speed: Array,
    vehicle: Vehicle,
    *,
    closed: bool,
    margin: float = 0.0,
    pace: float = 1.0,
) -> Needs:
    """Return what a racing line asks for: atan(L kappa), and its speed.

    Args:
        line: (M, 2) x and y [m] in driving order; a loop's first point is not repeated.
        speed: (M,) [m/s]
        vehicle: gives the wheelbase L, what it reaches of a commanded speed, and its limits.
        closed: whether the last point is followed by the first.
        margin: share by which more steering is asked for than the line's own, for a car that has to
            come back to it.
        pace: share of the speed that is asked for.

    Raises:
        ConfigError: the margin or the pace is not allowed.
    """
    if not 0 <= margin <= 2:
        raise ConfigError(f"margin: must be 0 to 2 (got {margin:g})")
    if not 0 < pace <= 1:
        raise ConfigError(f"pace: must be above 0 and at most 1 (got {pace:g})")
    wheelbase = vehicle.front_axle + vehicle.rear_axle
    bend, step = _curvature(line, closed)
    angle = (1 + margin) * np.degrees(np.arctan(wheelbase * bend))
    most = min(STEERING_MOST, math.degrees(vehicle.steering_max))
    driven = pace * np.asarray(speed, np.float64)
    asked = driven / vehicle.speed_gain
    return Needs(
        steering=np.clip(angle, -most, most),
        speed=np.clip(asked, SPEED_LEAST, min(SPEED_MOST, vehicle.speed_max)),
        seconds=step / np.maximum(driven, SPEED_LEAST),
    )


def speed_profile(line: Array, vehicle: Vehicle, *, closed: bool, share: float = 1.0) -> Float64:
    """Return how fast a line can be driven with a share of the friction [m/s].

    Sideways and forward acceleration together stay within the friction, and the motor's part within
    its own; air and rolling resistance are left out.

    Args:
        line: (M, 2) x and y [m] in driving order; a loop's first point is not repeated.
        vehicle: gives friction, motor and greatest speed.
        closed: whether the last point is followed by the first; an open line begins at rest.
        share: how much of the friction may be used, in (0, 1].

    Source: the forward and the backward pass along a given line of Kapania, Subosits and Gerdes
    2016, "A sequential two-step algorithm for fast generation of vehicle racing trajectories".
    """
    most = share * vehicle.friction * GRAVITY
    bend, _ = _curvature(line, closed)
    bend = np.abs(bend)
    ahead = np.hypot(*(np.roll(line, -1, axis=0) - line).T)
    top = vehicle.speed_max * vehicle.speed_gain
    v = np.minimum(np.sqrt(most / np.maximum(bend, 1e-9)), top)
    if not closed:
        v[0] = 0.0

    def reach(before: int, after: int, way: float) -> None:
        sideways = min(1.0, v[before] ** 2 * bend[before] / most)
        pull = min(most * math.sqrt(1 - sideways**2), vehicle.drive_max)
        v[after] = min(v[after], math.sqrt(v[before] ** 2 + 2 * pull * way))

    count = len(line)
    rounds = range(2 * count if closed else count - 1)  # a loop twice: its start is not at rest
    for i in rounds:
        reach(i % count, (i + 1) % count, ahead[i % count])
    for i in reversed(rounds):
        reach((i + 1) % count, i % count, ahead[i % count])
    return np.asarray(v)


def line_actions(
    needs: Needs, count: int, *, mirrored: bool = False
) -> tuple[tuple[float, float], ...]:
    """Return the actions that stand best for what a line asks: the centres of its clusters.

    Angles are rounded to 0.1 degrees, speeds to 0.01 m/s; slowest first, from right to left. Those
    that become the same are one.

    Args:
        needs: what the line asks for; each place counts by its seconds.
        count: how many actions.
        mirrored: as many to the left as to the right, so that they suit the track both ways round;
            an odd number has one action straight ahead.

    Raises:
        ConfigError: there are not so many places that differ.
    """
    points = needs.points * [1.0, 1.0]
    if mirrored:
        points[:, 0] = np.abs(points[:, 0])
    clusters = (count + 1) // 2 if mirrored else count
    different = distinct(points)
    most = min((2 if mirrored else 1) * different, ACTIONS_MOST)
    if not 1 <= count <= most:
        raise ConfigError(f"actions: must be 1 to {most} on this line (got {count})")
    centres = k_means(points, clusters, needs.seconds)
    found = centres * [STEERING_MOST, SPEED_MOST]
    if mirrored:
        found = found[np.argsort(found[:, 0])]
        straight = found[: count % 2] * [0.0, 1.0]
        turns = found[count % 2 :]
        found = np.concatenate([straight, turns, turns * [-1.0, 1.0]])
    listed = {(round(float(a), 1) + 0.0, round(float(v), 2)) for a, v in found}
    return check(tuple(sorted(listed, key=lambda action: (action[1], action[0]))))


@dataclass(frozen=True)
class Coverage:
    """How far what a line asks for lies from the nearest action."""

    worst: float
    """Greatest distance; 1 is the whole steering of one side, or the top speed of 4 m/s."""
    mean: float
    """Mean over the time of the lap."""
    steering: float
    """The worst place's distance in steering alone [degrees]."""
    speed: float
    """and in speed alone [m/s]."""
    shares: tuple[float, ...]
    """Of the lap's time, for each action: where it is the nearest."""


def coverage(needs: Needs, actions: Sequence[tuple[float, float]]) -> Coverage:
    """Measure how well some actions cover what a line asks for."""
    centres = np.array(actions, np.float64) / [STEERING_MOST, SPEED_MOST]
    away = np.sqrt(((needs.points[:, None] - centres) ** 2).sum(-1))
    nearest, least = away.argmin(1), away.min(1)
    worst = int(least.argmax())
    seconds = needs.seconds / needs.seconds.sum()
    angle, speed = actions[int(nearest[worst])]
    return Coverage(
        worst=float(least[worst]),
        mean=float((least * seconds).sum()),
        steering=abs(float(needs.steering[worst]) - angle),
        speed=abs(float(needs.speed[worst]) - speed),
        shares=tuple(float(seconds[nearest == k].sum()) for k in range(len(actions))),
    )


def read_line(path: str | Path) -> tuple[Float64, Float64 | None, bool]:
    """Read a racing line: rows of x, y and, if there is one, speed; more columns are passed over.

    Args:
        path: a `.npy` array, or text with commas, semicolons or blanks between the numbers; a first
            line of words is passed over.

    Returns:
        (M, 2) points [m], without the first one again; (M,) speeds [m/s], or None; and whether it
        is a loop.

    Raises:
        ConfigError: the file is missing, or does not hold a line.
    """
    path = Path(path)
    rows = _rows(path)
    if rows.ndim != 2 or not 2 <= rows.shape[1] <= 5:
        shape = " x ".join(map(str, rows.shape))
        track = "; a track's array has 6 columns, and is named in place of --line"
        raise ConfigError(
            f"{path}: must have 2 to 5 columns: x, y and perhaps speed (got {shape})"
            f"{track if rows.ndim == 2 and rows.shape[1] == 6 else ''}"
        )
    if not _LINE_LEAST <= len(rows) <= _LINE_MOST:
        raise ConfigError(f"{path}: must have {_LINE_LEAST} to {_LINE_MOST} rows (got {len(rows)})")
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ConfigError(f"{path}: row {row} holds a value that is no finite number")
    step = np.hypot(*np.diff(rows[:, :2], axis=0).T)
    rows = rows[np.append(True, step > 1e-9)]  # the same point twice has no direction
    if len(rows) < _LINE_LEAST:
        raise ConfigError(f"{path}: only {len(rows)} of its points differ")
    end = float(np.hypot(*(rows[-1, :2] - rows[0, :2])))
    closed = end <= _GAP * float(np.median(step))
    if end <= 1e-9:
        rows = rows[:-1]
    speed = rows[:, 2] if rows.shape[1] > 2 else None
    if speed is not None and not (speed > 0).all():
        row = int(np.flatnonzero(speed <= 0)[0])
        raise ConfigError(f"{path}: row {row}: a speed must be above 0 (got {speed[row]:g})")
    return np.ascontiguousarray(rows[:, :2]), speed, closed


def _rows(path: Path) -> Float64:
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), np.float64)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        table = [line.replace(",", " ").replace(";", " ").split() for line in lines]
        table = [words for words in table if words and not words[0].startswith("#")]
        if table and not _is_number(table[0][0]):
            table = table[1:]
        return np.array(table, np.float64)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path}: is no table of numbers, x, y and perhaps speed ({said})"
        ) from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def write_metadata(
    path: str | Path,
    actions: Sequence[tuple[float, float]],
    *,
    again: bool = False,
) -> Path:
    """Write actions as a `model_metadata.json` of version 5, with a front camera and PPO.

    Args:
        path: the file.
        actions: (steering [degrees], speed [m/s]).
        again: whether a file that is there may be changed: it gets the actions and keeps whatever
            else it says.

    Raises:
        ConfigError: the file is there and `again` is not said, or it is there and broken.
        RunError: it cannot be written.
    """
    path = Path(path)
    kept: Mapping[str, Any] = {}
    if path.exists():
        if not again:
            raise ConfigError(
                f"{path} is there already; --replace puts the new actions into it and keeps the "
                "rest, or choose another file with --out"
            )
        Metadata.read(path)  # what it says wrong is said now
        kept = dict(Document.of_json(path).values)
        if str(kept.get("training_algorithm", "")).strip().lower() == "sac":
            raise ConfigError(
                f"{path}: training_algorithm is {brief(kept['training_algorithm'])}, whose actions "
                "DeepRacer has as ranges; set it to clipped_ppo first"
            )
    document = {
        "sensor": [CAMERAS[1]],
        "neural_network": NETWORKS[0],
        "training_algorithm": "clipped_ppo",
        "version": "5",
        **kept,
        "action_space_type": "discrete",
        "action_space": [
            {"steering_angle": angle, "speed": speed, "index": i}
            for i, (angle, speed) in enumerate(check(tuple(actions)))
        ],
    }
    with explained(path):
        replace(path, (json.dumps(document, indent=2) + "\n").encode())
    return path


def _curvature(line: Array, closed: bool) -> tuple[Float64, Float64]:
    """Return a line's curvature at each point [1/m], positive left, and half of both steps [m].

    Source: Menger's curvature, four times the area of a triangle over its sides' product.
    """
    line = np.asarray(line, np.float64)
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    across = before + after
    back, ahead, wide = (np.hypot(*side.T) for side in (before, after, across))
    twice = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    bend = 2 * twice / np.maximum(back * ahead * wide, 1e-12)
    step = (back + ahead) / 2
    if not closed:
        bend[0], bend[-1] = bend[1], bend[-2]
        step[0], step[-1] = ahead[0] / 2, back[-1] / 2
    return bend, step


def _check_count(what: str, count: int, least: int) -> None:
    if not least <= count <= ACTIONS_MOST:
        raise ConfigError(f"{what}: must be {least} to {ACTIONS_MOST} (got {count})")
