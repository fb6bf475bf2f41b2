"""Generated courses: turns and straights drawn by seed, closed by least squares, and checked.

A course is named like any other track, and its name holds all that drawing it needs:
`generated:seed=7:difficulty=0.6`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from hotlap.config import Settings, overrides, resolve
from hotlap.draws import Purpose, uniform
from hotlap.errors import ConfigError, TrackError
from hotlap.types import Float64

__all__ = ["GeneratorSettings", "anchored", "generate", "names_of", "parse"]

_SEEDS_MAX = 10_000
"""How many tracks one name may stand for."""
_RAMP = 0.3
"""Share of a turn in which its curvature rises, and again in which it falls."""
_BATCH, _ROUNDS = 24, 120
"""Candidates that are drawn at once, and how often, before a setting counts as impossible."""
_ROOM_ROUNDS = 4
"""Batches that are tried in a room at each length."""
_PATIENCE = 5
"""After so many rounds in vain a course gets a turn less."""
_ANGLE_MIN, _ANGLE_MAX = math.radians(20), math.radians(200)
_ROWS_PER_WIDTH = 8
_FINER = 4
"""Points of the drawn line for each waypoint."""
_COARSE = 8
"""Every how many points of the line its legs are compared."""
_FOLD = 0.9
"""Largest share of the centre line's radius that half a road may take."""


class GeneratorSettings(Settings):
    """What a generated course shall be like. The lengths suit a car of DeepRacer's size."""

    seed: int = Field(0, ge=0)
    """Which course; a range such as 0-99 names a hundred of them."""
    difficulty: tuple[float, float] = (0.5, 0.5)
    """From 0 (wide, few and gentle bends) to 1 (narrow, many and sharp ones); a range such as
    0.2-0.8 lets each seed draw its own."""
    length: PositiveFloat | None = None
    """Length of the centre line [m]; by the difficulty if not given, from 22 to 42."""
    width: PositiveFloat | None = None
    """Distance between the borders [m]; by the difficulty if not given, from 1.07 to 0.45."""
    radius: PositiveFloat = 0.5
    """Least radius of the inner border [m]; 0.5 is 1.2 times DeepRacer's tightest turn."""
    gap: NonNegativeFloat = 0.25
    """Least distance between the borders of two legs [m]; more than a car's width keeps them
    apart."""
    room: str = ""
    """Floor that the road must lie on: 6x4 in metres, or a .json or .csv file with the corners x, y
    of a polygon. Without a length, the longest course found is taken."""
    margin: NonNegativeFloat = 0.1
    """Least distance of the road to the walls of the room [m]."""

    @field_validator("difficulty", mode="before")
    @classmethod
    def _range(cls, value: object) -> object:
        if isinstance(value, str) and (found := re.fullmatch(r"([\d.]+)-([\d.]+)", value)):
            value = tuple(map(float, found.groups()))
        elif isinstance(value, int | float):
            value = (float(value), float(value))
        if not (isinstance(value, tuple) and 0 <= value[0] <= value[1] <= 1):
            raise ValueError("write a number from 0 to 1, or a range such as 0.2-0.8")
        return value


@dataclass(frozen=True)
class _Shape:
    """A loop: n straights, each followed by a turn; the start line lies on the first straight."""

    straight: Float64
    """(n,) lengths [m]."""
    turn: Float64
    """(n,) angles [rad], positive to the left; they sum to 2 pi."""
    radius: Float64
    """(n,) least radius of the centre line in each turn [m]."""


@dataclass(frozen=True)
class _Dials:
    """The numbers that the difficulty turns."""

    difficulty: float
    length: float
    width: float
    radius: float
    """Least radius of the centre line [m]."""
    radius_span: float
    """Largest radius over the least."""
    straight: float
    """Straight ahead of the start line [m]."""
    turns: int
    counter: float
    """Share of the turns that go against the course's direction."""
    legs: float
    """Least distance of the centre lines of two legs [m]."""


def names_of(name: str) -> list[str]:
    """Return the names of the single courses that a name with a range of seeds stands for.

    >>> names_of("generated:seed=3-5:difficulty=0.2")[-1]
    'generated:seed=5:difficulty=0.2'

    Raises:
        ConfigError: the range is empty or longer than ten thousand.
    """
    words = name.split(":")
    words = [f"seed=0-{int(w) - 1}" if w.isdecimal() else w for w in words]
    for i, word in enumerate(words):
        if found := re.fullmatch(r"seed=(\d+)-(-?\d+)", word):
            first, last = map(int, found.groups())
            if not first <= last < first + _SEEDS_MAX:
                raise ConfigError(
                    f"track {name!r}: seed={first}-{last} names {max(0, last - first + 1)} "
                    f"courses; a range goes upwards and holds 1 to {_SEEDS_MAX}."
                )
            return [
                ":".join([*words[:i], f"seed={seed}", *words[i + 1 :]])
                for seed in range(first, last + 1)
            ]
    return [":".join(words)]


def anchored(name: str) -> str:
    """Return the name of a generated course with the file of its room by its whole path."""
    words = name.split(":")
    for i, word in enumerate(words):
        key, _, value = word.partition("=")
        if key == "room" and Path(value).is_file():
            words[i] = f"room={Path(value).resolve()}"
    return ":".join(words)


def parse(name: str) -> GeneratorSettings:
    """Read the settings in the name of one generated course.

    Raises:
        ConfigError: a word of the name is no setting, or its value is out of range.
    """
    known = ", ".join(GeneratorSettings.model_fields)
    words = name.split(":")[1:]
    for word in words:
        if not word.partition("=")[2]:
            raise ConfigError(
                f"track {name!r}: {word!r} is no setting of a generated course. Write "
                f"generated:seed=7:difficulty=0.6; known: {known}; generated:100 is the first "
                "hundred seeds."
            )
    values: dict[str, Any] = overrides(words)
    try:
        return resolve(GeneratorSettings, values)
    except ConfigError as error:
        raise ConfigError(f"track {name!r}: {error}") from None


def generate(settings: GeneratorSettings) -> Float64:
    """Draw a closed course; the same settings give the same one.

    Curvature is continuous: each turn ramps it up over 30 % of its length, holds it, and ramps it
    down. The inner border bends no tighter than asked, legs stay `gap` apart, and a straight of
    three cars, or two widths, lies ahead of the first row.

    Returns:
        (N, 6) waypoints as a track has them, eight for each width of the road, the last row
        repeating the first.

    Raises:
        TrackError: no course can be like that; the message says which setting forbids it.
    """
    low, high = settings.difficulty
    draws = _draws(settings.seed, 0, 0, 4)
    dials = _dial(settings, low + (high - low) * float(draws[0]))
    if settings.room:
        return _ribbon(_in_room(settings, dials), dials.width, clockwise=False)
    _possible(settings, dials)
    clockwise = draws[1] < 0.5
    for trial in range(_ROUNDS):
        for candidate in _candidates(settings.seed, dials, trial):
            line = _line(candidate, dials.width / _ROWS_PER_WIDTH / _FINER)
            points = line[:-1:_COARSE]
            if _apart(points[::3], dials) and _apart(points, dials):
                return _ribbon(line, dials.width, clockwise=bool(clockwise))
    raise TrackError(
        f"generated course: none of {_BATCH * _ROUNDS} drawn ones keeps its legs apart with "
        f"length={dials.length:g}, width={dials.width:g}, radius={settings.radius:g}, "
        f"gap={settings.gap:g}, difficulty={dials.difficulty:g}; lower the difficulty, the width "
        "or the gap, or choose another seed."
    )


def _draws(seed: int, trial: int, what: int, count: int) -> Float64:
    row, episode, step = (np.array([number]) for number in (trial, what, 0))
    drawn = uniform(seed, row, episode, step, Purpose.COURSE, count)
    return np.asarray(drawn[0], np.float64)


def _dial(settings: GeneratorSettings, difficulty: float) -> _Dials:
    """Turn the difficulty into numbers; what the user gave stays as it is."""

    def between(easy: float, hard: float) -> float:
        return easy + (hard - easy) * difficulty

    width = settings.width or between(1.07, 0.45)
    least = 1.03 * max(settings.radius + width / 2, width / 2 / _FOLD)  # a spline bends a bit more
    radius = least * between(1.2, 1.0)
    length = settings.length or between(22.0, 42.0)
    straight = max(1.0, 2 * width)
    span = between(1.9, 1.5)
    # A mean turn takes 60 degrees of a radius in the middle of the span.
    turn_length = math.pi / 3 * radius * math.sqrt(span) / (1 - _RAMP)
    turns = round((length - straight) * between(0.55, 0.68) / turn_length)
    return _Dials(
        difficulty=difficulty,
        length=length,
        width=width,
        radius=radius,
        radius_span=span,
        straight=straight,
        turns=max(4, turns),
        counter=between(0.1, 0.42),
        legs=width + settings.gap,
    )


def _possible(settings: GeneratorSettings, dials: _Dials) -> None:
    """Refuse settings whose simplest loop is longer than the course may be."""
    # Four right angles of least radius and the starting straight twice; opposite sides apart.
    least = 2 * math.pi * dials.radius / (1 - _RAMP) + 2 * 1.3 * dials.straight
    least = max(least, 1.05 * math.pi * dials.legs)
    if dials.length < least:
        raise TrackError(
            f"generated course: length={dials.length:g} is too short; with width={dials.width:g}, "
            f"radius={settings.radius:g}, gap={settings.gap:g} and difficulty={dials.difficulty:g} "
            f"a loop takes at least {least:.1f} m. Make it longer, or the others smaller."
        )


def _candidates(seed: int, dials: _Dials, trial: int) -> list[_Shape]:
    """Draw a batch of shapes and close them; return those that closed."""
    batch, n = _BATCH, max(4, dials.turns - trial // _PATIENCE)
    u = _draws(seed, trial, 1, batch * n * 4).reshape(4, batch, n)
    hairpin = u[0] < 0.12 + 0.1 * dials.difficulty
    size = np.where(hairpin, 2.4 + 0.9 * u[1], 0.6 + 1.3 * u[1])
    rank = np.argsort(np.argsort(u[2], axis=1), axis=1)
    sign = np.where(rank < round(dials.counter * n), -1.0, 1.0)
    left, right = (np.where(sign == s, size, 0.0).sum(axis=1) for s in (1, -1))
    # Left turns and right ones give way alike until the whole is one round.
    ratio = (np.sqrt(math.pi**2 + left * right) + math.pi) / np.maximum(left, 1e-9)
    turn = np.where(sign > 0, size * ratio[:, None], -size / ratio[:, None])
    radius = dials.radius * dials.radius_span ** u[3]
    radius = np.maximum(radius, np.where(np.abs(turn) > 2.4, 0.52 * dials.legs, 0.0))
    straight = -np.log(_draws(seed, trial, 2, batch * n)).reshape(batch, n) + 0.1
    ahead = (np.argmax(straight, axis=1)[:, None] + np.arange(n)) % n  # the longest comes first
    straight, turn, radius = (np.take_along_axis(a, ahead, 1) for a in (straight, turn, radius))
    return _close(straight, turn, radius, dials)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
"""Gauss-Legendre rule along a turn, as shares of its length."""


def _heading(share: Float64) -> Float64:
    """Return the share of a turn's angle that is turned at a share of its length, less a half."""
    u = np.minimum(share, 1 - share)
    ramp = np.where(u < _RAMP, u * u / (2 * _RAMP), u - _RAMP / 2) / (1 - _RAMP)
    return np.asarray(np.where(share < 0.5, ramp, 1 - ramp) - 0.5)


def _close(straight: Float64, turn: Float64, radius: Float64, dials: _Dials) -> list[_Shape]:
    """Change angles and straights as little as closes each loop of a batch at the asked length.

    Newton's method on four equations (x, y, heading and length); of all steps that solve them the
    one is taken that has the least sum of squares, a straight counting by its length and an angle
    by 0.25 rad. Straights stay at least as long as allowed, turns keep their sign and stay below
    200 degrees; a loop that cannot close so is left out.
    """
    sign, least = np.sign(turn), np.full(straight.shape, 0.1 * dials.width)
    least[:, 0] = 1.3 * dials.straight
    room = dials.length - (np.abs(turn) * radius).sum(axis=1) / (1 - _RAMP)
    kept = room > 1.2 * least.sum(axis=1)
    straight, turn, radius, sign, least, room = (
        a[kept] for a in (straight, turn, radius, sign, least, room)
    )
    straight = straight * (room / straight.sum(axis=1))[:, None]
    weight = np.concatenate([np.maximum(straight, least) ** 2, np.full_like(turn, 0.25**2)], axis=1)
    n, bent = turn.shape[1], _heading(_NODES)
    error = np.empty((len(turn), 4))
    for _ in range(10):
        before = np.cumsum(turn, axis=1) - turn
        along, middle = np.exp(1j * before), np.exp(1j * (before + turn / 2))
        # The chord of a turn: its length times the mean of cos(heading - the middle one).
        swing = turn[..., None] * bent
        mean, slope = np.cos(swing) @ _WEIGHTS, -(np.sin(swing) * bent) @ _WEIGHTS
        size = np.abs(turn) * radius / (1 - _RAMP)
        chord = size * mean * middle
        piece = straight * along + chord
        rest = piece.sum(axis=1, keepdims=True) - np.cumsum(piece, axis=1)
        bend = radius * sign / (1 - _RAMP)
        by_turn = (bend * mean + size * slope) * middle + 0.5j * chord + 1j * rest
        by = np.concatenate([along, by_turn], axis=1)
        flat = np.ones_like(turn)
        matrix = np.stack(
            [
                by.real,
                by.imag,
                np.concatenate([0 * flat, flat], axis=1),
                np.concatenate([flat, bend], axis=1),
            ],
            axis=1,
        )
        error = np.stack(
            [
                piece.sum(axis=1).real,
                piece.sum(axis=1).imag,
                turn.sum(axis=1) - 2 * math.pi,
                (straight + size).sum(axis=1) - dials.length,
            ],
            axis=1,
        )
        square = np.einsum("bik,bk,bjk->bij", matrix, weight, matrix)
        step = np.linalg.solve(square + 1e-12 * np.eye(4), -error[..., None])[..., 0]
        change = weight * np.einsum("bik,bi->bk", matrix, step)
        straight = np.maximum(straight + change[:, :n], least)
        turn = sign * np.clip(np.abs(turn + change[:, n:]), _ANGLE_MIN, _ANGLE_MAX)
    good = np.abs(error).max(axis=1) < 1e-6
    return [_Shape(*parts) for parts in zip(straight[good], turn[good], radius[good], strict=True)]


def _line(shape: _Shape, spacing: float) -> Float64:
    """Return points of the centre line, (M, 2), the last one on the first.

    Chords follow the arc between two points, so the line closes to a hair; what remains is spread.
    """
    size = np.abs(shape.turn) * shape.radius / (1 - _RAMP)
    ends = np.cumsum(np.stack([shape.straight, size], axis=1).ravel())
    count = round(ends[-1] / spacing / _COARSE) * _COARSE
    # The start line lies where three quarters of the first straight are still ahead.
    arc = np.arange(count + 1) / count * ends[-1] + 0.25 * shape.straight[0]
    lap, place = np.divmod(arc, ends[-1])
    i = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
    begin, which = ends[i] - np.diff(ends, prepend=0.0)[i], i // 2
    share = (place - begin) / np.where(i % 2, size[which], 1.0)
    turned = np.cumsum(shape.turn) - shape.turn
    bent = np.where(i % 2, _heading(np.clip(share, 0, 1)) + 0.5, 0.0)
    heading = 2 * math.pi * lap + turned[which] + shape.turn[which] * bent
    half = np.diff(heading) / 2
    chord = ends[-1] / count * np.sinc(half / math.pi) * np.exp(1j * (heading[:-1] + half))
    chord -= chord.mean()
    line = np.concatenate([[0.0], np.cumsum(chord)])
    line[-1] = 0.0
    return np.stack([line.real, line.imag], axis=1)


def _apart(points: Float64, dials: _Dials) -> bool:
    """Say whether legs keep their distance: places far apart along the line are so across it."""
    place, count = points[:, 0] + 1j * points[:, 1], len(points)
    # Half a circle that is just wide enough is the nearest that two places may come.
    reach = math.ceil(math.pi / 2 * dials.legs / dials.length * count)
    ahead = np.arange(reach + 1, count // 2 + 1)[:, None]
    # Points that pass each other half a spacing apart are 1 % farther than their lines.
    away = place[(np.arange(count) + ahead) % count] - place
    return bool((away.real**2 + away.imag**2).min(initial=math.inf) >= (1.01 * dials.legs) ** 2)


def _ribbon(line: Float64, width: float, *, clockwise: bool) -> Float64:
    """Return waypoints (N, 6) of a road of one width along a fine closed line."""
    if clockwise:
        line = line * [1.0, -1.0]
    ahead = np.roll(line[:-1], -1, axis=0) - np.roll(line[:-1], 1, axis=0)
    ahead /= np.hypot(*ahead.T)[:, None]
    off = ahead[::_FINER, ::-1] * [-1.0, 1.0] * (width / 2)
    centre = line[:-1:_FINER]
    left, right = centre + off, centre - off
    rows = np.hstack([centre, right, left] if clockwise else [centre, left, right])
    return np.vstack([rows, rows[:1]])


def _room(text: str) -> Float64:
    """Return the corners (K, 2) of a floor."""
    if found := re.fullmatch(r"([\d.]+)x([\d.]+)", text):
        wide, deep = map(float, found.groups())
        return np.array([(0.0, 0.0), (wide, 0.0), (wide, deep), (0.0, deep)])
    try:
        written = Path(text).read_text(encoding="utf-8")
        if text.lower().endswith(".json"):
            corners = np.array(json.loads(written), np.float64)
        else:
            corners = np.loadtxt(written.splitlines(), delimiter=",", ndmin=2)
    except (OSError, ValueError, TypeError) as error:
        raise TrackError(
            f"room {text!r}: cannot be read ({str(error).splitlines()[0]}); give its size, such as "
            "6x4, or a .json or .csv file with the corners x, y of its floor."
        ) from None
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise TrackError(
            f"room {text!r}: has the shape {corners.shape}; give 3 corners x, y or more."
        )
    return corners


def _in_room(settings: GeneratorSettings, dials: _Dials) -> Float64:
    """Return the line of the longest course found that lies in the room, in the room's axes."""
    corners = _room(settings.room)
    x, y = corners.T
    area = abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
    length = settings.length or min(2 * dials.length, 0.8 * area / dials.legs)
    tried = 0
    while True:
        sized = settings.model_copy(update={"length": length, "width": dials.width})
        now = _dial(sized, dials.difficulty)
        try:
            _possible(sized, now)
        except TrackError as error:
            if settings.length or not tried:
                raise TrackError(f"room {settings.room!r}: {error}") from None
            break
        for trial in range(_ROOM_ROUNDS):
            for candidate in _candidates(settings.seed, now, trial):
                line = _line(candidate, now.width / _ROWS_PER_WIDTH / _FINER)
                tried += 1
                if not _apart(line[:-1:_COARSE], now):
                    continue
                if (moved := _fit(line, corners, now.width / 2 + settings.margin)) is not None:
                    return moved
        if settings.length:
            break
        length *= 0.93
    raise TrackError(
        f"room {settings.room!r}: none of {tried} drawn courses fits with width={dials.width:g}, "
        f"radius={settings.radius:g}, margin={settings.margin:g}, "
        f"difficulty={dials.difficulty:g}; make the width or the difficulty smaller."
    )


def _fit(line: Float64, corners: Float64, reach: float) -> Float64 | None:
    """Return a line turned and moved so that it stays `reach` away from a polygon's sides."""
    place, wall = line[:, 0] + 1j * line[:, 1], corners[:, 0] + 1j * corners[:, 1]
    few = place[: -1 : 2 * _COARSE]
    side = np.roll(wall, -1) - wall
    low, high = corners.min(axis=0) + reach, corners.max(axis=0) - reach
    for angle in np.arange(0, 2 * math.pi, math.pi / 12):
        turned = few * np.exp(1j * angle)
        west, east = low[0] - turned.real.min(), high[0] - turned.real.max()
        south, north = low[1] - turned.imag.min(), high[1] - turned.imag.max()
        if west > east or south > north:
            continue
        for shift in (np.linspace(west, east, 5) + 1j * np.linspace(south, north, 5)[:, None]).flat:
            from_wall = (turned + shift)[:, None] - wall
            along = np.clip((from_wall * side.conj()).real / np.abs(side) ** 2, 0, 1)
            away = np.abs(from_wall - along * side).min()
            ahead = np.roll(from_wall, -1, axis=1)
            # The angles to the corners add up to a whole turn inside of them, and to none outside.
            winding = np.angle(ahead * from_wall.conj()).sum(axis=1)
            if away >= reach and (np.abs(winding) > 3).all():
                moved = place * np.exp(1j * angle) + shift
                return np.stack([moved.real, moved.imag], axis=1)
    return None
