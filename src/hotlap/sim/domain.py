"""Domain randomisation: cars and looks that differ a little from episode to episode.

A driver that has met many cars and lights drives one it has not met. What an episode draws is a
function of seed, row, episode and level: see `draws`.
"""

from __future__ import annotations

import colorsys
import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from hotlap import vehicle
from hotlap.config import Settings
from hotlap.draws import Purpose, uniform
from hotlap.sim.lens import MountingRanges
from hotlap.sim.look import Colour, Look
from hotlap.sim.optics import OpticsRanges
from hotlap.types import Array, Float32

__all__ = ["Domain", "RandomizeSettings", "random_looks"]

Range = tuple[PositiveFloat, PositiveFloat]
"""Least and greatest factor."""

CAR = ("friction", "drive", "inertia", "peak_slip", "steering_lag", "speed_gain")
"""Factors on a car's parameters, in the order of their draws; the trim comes after them."""
LOOK = ("brightness", "contrast", "line_width")
FLOOR = ("wear", "light", "shade")
_MOUNTING = 5
"""Place of its draws among those of `Purpose.DOMAIN`; `optics` and `lens` have 3 and 4."""
_WIDEN = 1 / 400
"""What an episode that ended well adds to the breadth."""


class RandomizeSettings(Settings):
    """What differs from episode to episode. As it stands, nothing does."""

    friction: Range = (1.0, 1.0)
    """Factor on the grip of the tyres. A carpet against a waxed floor: 0.6,1.3."""
    drive: Range = (1.0, 1.0)
    """Factor on the greatest acceleration by the motor. Battery and load: 0.8,1.2."""
    inertia: Range = (1.0, 1.0)
    """Factor on the moment of inertia about the vertical axis: 0.8,1.2."""
    peak_slip: Range = (1.0, 1.0)
    """Factor on the tangent of the slip angles of the greatest cornering force: 0.7,1.3."""
    steering_lag: Range = (1.0, 1.0)
    """Factor on the time constant of the servo: 0.5,1.5."""
    speed_gain: Range = (1.0, 1.0)
    """Factor on the speed that the car settles at. A sagging battery: 0.85,1."""
    steering_trim_deg: NonNegativeFloat = Field(0.0, le=10)
    """Greatest error of straight ahead [degrees]: 2."""
    looks: NonNegativeInt = Field(0, le=4096)
    """How many looks to draw; each episode takes one of them. 0: the look as it is."""
    brightness: Range = (1.0, 1.0)
    """Factor on all colours: 0.5,1.8."""
    contrast: Range = (1.0, 1.0)
    """Factor on the distance of all colours from middle grey: 0.6,1.4."""
    line_width: Range = (1.0, 1.0)
    """Factor on the widths of border lines and dashes: 0.7,1.4."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Greatest turn of each colour's hue, as a share of the circle: 0.1."""
    white_balance: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Greatest relative error of red, green and blue: 0.15."""
    wear: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Greatest wear of the lines: each look has its own, from that of `look` to this: 0.6."""
    light: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Greatest strength of reflections on the floor, likewise: 0.4."""
    shade: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Greatest strength of shadows on the floor, likewise: 0.5."""
    mounting: MountingRanges = MountingRanges()
    """How the cameras are mounted."""
    optics: OpticsRanges = OpticsRanges()
    """How the cameras differ."""
    success: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of episodes that should end well: the ranges begin narrow and widen while more of them
    do. 0: the whole ranges from the beginning."""

    @model_validator(mode="after")
    def _check(self) -> RandomizeSettings:
        for name in (*CAR, *LOOK):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first is the smaller one (got {low:g}, {high:g})")
        of_looks = [n for n in LOOK if getattr(self, n) != (1, 1)]
        of_looks += [n for n in ("hue", "white_balance", *FLOOR) if getattr(self, n)]
        if of_looks and not self.looks:
            raise ValueError(f"{', '.join(of_looks)} need looks to differ in: looks=64")
        return self

    def widen(self, breadth: float, good: int, bad: int) -> float:
        """Return the breadth after episodes that ended well and others.

        It grows by each good one and shrinks by each other one, in such a proportion that it rests
        where the share `success` ends well.
        """
        if not self.success:
            return 1.0
        change = good - bad * self.success / (1 - self.success)
        return min(max(breadth + _WIDEN * change, 0.0), 1.0)

    @property
    def cars(self) -> bool:
        """Whether cars differ."""
        return bool(self.steering_trim_deg) or any(getattr(self, n) != (1, 1) for n in CAR)


class Domain:
    """The cars of a world, a little different in each episode.

    Args:
        settings: how different.
        nominal: (N, PARAMETERS) float32, `Vehicle.parameters` of each row.
    """

    def __init__(self, settings: RandomizeSettings, nominal: Float32) -> None:
        self.settings = settings
        self.cars = settings.cars
        """Whether cars differ."""
        self.drawn = np.ones((len(nominal), len(CAR) + 1), np.float32)
        """(N, 7) factors by `CAR`, and the trim [rad]: what the running episodes have."""
        self.drawn[:, -1] = 0
        self._nominal = nominal

    @property
    def trim(self) -> Float32:
        """(N,) angle that each car adds to its steering [rad]."""
        return self.drawn[:, -1]

    def begin(self, rows: Array, seed: int, ids: Array, episode: Array, breadth: float) -> Float32:
        """Draw the cars of new episodes; return (M, PARAMETERS) of them.

        Args:
            rows: (M,) which rows.
            seed: the run's seed.
            ids: (M,) global ids of the rows.
            episode: (M,) their episodes.
            breadth: share of the ranges that is drawn from, in [0, 1].
        """
        step = np.zeros(len(rows), np.int64)
        draws = uniform(seed, ids, episode, step, Purpose.DOMAIN, len(CAR) + 2)
        drawn = self.drawn.copy()
        for k, name in enumerate(CAR):
            # Evenly in the logarithm: half and twice are equally far from one.
            low, high = (breadth * math.log(bound) for bound in getattr(self.settings, name))
            drawn[rows, k] = np.exp(low + (high - low) * draws[:, k])
        most = breadth * math.radians(self.settings.steering_trim_deg)
        drawn[rows, -1] = most * (2 * draws[:, len(CAR)] - 1)
        self.drawn = drawn
        return self.parameters(rows)

    def parameters(self, rows: Array) -> Float32:
        """Return (M, PARAMETERS) of the cars as they are."""
        friction, drive, inertia, slip, lag, speed = self.drawn[rows, :-1].T
        found = self._nominal[rows].copy()
        found[:, [vehicle.GRIP_FRONT, vehicle.GRIP_REAR, vehicle.GRIP_SHIFT]] *= friction[:, None]
        found[:, vehicle.DRIVE_MAX] *= drive
        found[:, vehicle.MOTOR_GAIN] /= drive  # it is given over the greatest acceleration
        found[:, [vehicle.LF_INERTIA, vehicle.LR_INERTIA]] /= inertia[:, None]
        found[:, [vehicle.STIFF_FRONT, vehicle.STIFF_REAR]] /= slip[:, None]
        found[:, vehicle.STEERING_LAG_INVERSE] /= lag
        found[:, vehicle.SPEED_GAIN] *= speed
        return found

    def look(self, seed: int, ids: Array, episode: Array, breadth: float) -> Array:
        """Choose looks for new episodes: (M,) int32."""
        step = np.ones(len(ids), np.int64)
        draws = uniform(seed, ids, episode, step, Purpose.DOMAIN, 1)[:, 0]
        return (draws * (1 + breadth * (self.settings.looks - 1))).astype(np.int32)

    def mounting(self, seed: int, ids: Array, episode: Array, breadth: float) -> Array:
        """Choose mountings for new episodes: (M,) int32."""
        step = np.full(len(ids), _MOUNTING, np.int64)
        draws = uniform(seed, ids, episode, step, Purpose.DOMAIN, 1)[:, 0]
        return (draws * (1 + breadth * (self.settings.mounting.stock - 1))).astype(np.int32)


def random_looks(base: Look, settings: RandomizeSettings, seed: int) -> tuple[Look, ...]:
    """Draw `settings.looks` variations of a look; the first is the look as it is."""
    if not settings.looks:
        return (base,)
    looks = [base]
    colours = [name for name, field in Look.model_fields.items() if _is_colour(field)]
    widths = ("border_width", "dash_width", "kerb_width")
    for index in range(1, settings.looks):
        one = np.array([index])
        count = 6 + len(colours) + len(base.bands) + len(FLOOR)
        draws = uniform(seed, one, one * 0, one * 0 + 2, Purpose.DOMAIN, count)[0]
        brightness, contrast, width = (
            float(np.exp(math.log(low) + (math.log(high) - math.log(low)) * draw))
            for (low, high), draw in zip((getattr(settings, n) for n in LOOK), draws, strict=False)
        )
        balance = brightness * (1 + settings.white_balance * (2 * draws[3:6].astype(float) - 1))
        hues = [settings.hue * (2 * float(draw) - 1) for draw in draws[6:]]
        changes: dict[str, Any] = {name: getattr(base, name) * width for name in widths}
        for name, turn in zip(colours, hues, strict=False):
            changes[name] = _tinted(getattr(base, name), turn, contrast, balance)
        changes["bands"] = tuple(
            (start, stop, _tinted(colour, turn, contrast, balance))
            for (start, stop, colour), turn in zip(base.bands, hues[len(colours) :], strict=False)
        )
        for name, draw in zip(FLOOR, draws[-len(FLOOR) :], strict=True):
            least = getattr(base, name)
            changes[name] = max(least, least + float(draw) * (getattr(settings, name) - least))
        if any(getattr(settings, name) for name in FLOOR):
            changes["pattern"] = base.pattern + index
        looks.append(base.model_copy(update=changes))
    return tuple(looks)


def _tinted(colour: Colour, turn: float, contrast: float, balance: Array) -> Colour:
    """Turn a colour's hue by a share of the circle, stretch its contrast and light it."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    turned = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    light = 127.5 + contrast * (255 * np.array(turned) - 127.5)
    red, green, blue = (round(float(c)) for c in np.clip(light * balance, 0, 255))
    return red, green, blue


def _is_colour(field: Any) -> bool:
    return bool(field.annotation == Colour)
