"""Rules: when an episode ends, and whether it truly ends or the clock only cuts it off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from hotlap.config import Settings
from hotlap.simulator import State
from hotlap.types import Array, Float32, Int32

__all__ = ["Ended", "Rules", "RulesSettings", "Status"]

_STEPS_MAX = int(np.iinfo(np.int32).max)


class Status(IntEnum):
    """How an episode stands."""

    IN_PROGRESS = 0
    LAP_COMPLETE = 1
    OFF_TRACK = 2
    IMMOBILIZED = 3
    REVERSED = 4
    TIME_UP = 5
    CRASHED = 6


class RulesSettings(Settings):
    """What ends an episode; 0 switches a rule off."""

    off_track: Literal["all_wheels", "any_wheel", "centre", "never"] = "all_wheels"
    """What has to leave the road: all four wheels (DeepRacer's rule), one of them, or the car's
    middle."""
    crash: bool = True
    """Ends when the car touches an obstacle or another car; otherwise they push each other away."""
    reversed_steps: NonNegativeInt = 15
    """Ends after so many steps in a row that lose progress."""
    immobilized_steps: NonNegativeInt = 15
    """Ends after so many steps in a row that move less than `immobilized_distance`."""
    immobilized_distance: NonNegativeFloat = 0.0003
    """Metres in a control step below which a car counts as standing."""
    laps: NonNegativeInt = 0
    """Ends when so many laps are complete; 0: drives on until the time limit."""
    time_limit: PositiveFloat = Field(60.0)
    """Seconds after which the clock cuts the episode off."""


@dataclass(frozen=True, eq=False)
class Ended:
    """How N episodes stand after a step."""

    status: Int32
    """(N,) Status."""

    @property
    def terminated(self) -> Array:
        """(N,) True where the task itself ended: nothing follows."""
        running = (self.status == Status.IN_PROGRESS) | (self.status == Status.TIME_UP)
        return np.asarray(~running)

    @property
    def failed(self) -> Array:
        """(N,) True where the task ended before it was done."""
        return np.asarray(self.terminated & (self.status != Status.LAP_COMPLETE))

    @property
    def truncated(self) -> Array:
        """(N,) True where only the clock ended it: what the car reached keeps its value."""
        return np.equal(self.status, Status.TIME_UP)


class Rules:
    """The rules of N rows; remembers how long each has stood still or gone back."""

    def __init__(
        self, settings: RulesSettings, lengths: Float32, closed: Array, *, rows: int, dt: float
    ) -> None:
        self.settings = settings
        self.margin = 0.0
        """Share of each half of the road that is closed to the car's middle, next to its border."""
        self._ends = np.where(closed, np.inf, 0.9999 * lengths)
        self._lengths = lengths
        self._steps_max = min(max(1, round(settings.time_limit / dt)), _STEPS_MAX)
        self._deadline = np.full(rows, self._steps_max, np.int32)
        self._still = np.zeros(rows, np.int32)
        self._back = np.zeros(rows, np.int32)

    def begin(self, rows: Array, *, clock: Float32 | None = None) -> None:
        """Start new episodes; `clock` (M,) in [0, 1) says how much of the time is already over."""
        self._still[rows] = 0
        self._back[rows] = 0
        left = 1.0 if clock is None else 1.0 - clock
        self._deadline[rows] = np.maximum(1, np.ceil(self._steps_max * left))

    def judge(self, before: State, after: State) -> Ended:
        """Apply every rule to the step from `before` to `after`."""
        rules = self.settings
        moved = np.hypot(after.x - before.x, after.y - before.y)
        self._still = (self._still + 1) * (moved <= rules.immobilized_distance)
        self._back = (self._back + 1) * (after.advance < 0)
        # The later of two reasons counts.
        status = np.zeros(len(moved), np.int32)
        status[after.steps >= self._deadline] = Status.TIME_UP
        if rules.immobilized_steps:
            status[self._still >= rules.immobilized_steps] = Status.IMMOBILIZED
        if rules.reversed_steps:
            status[self._back >= rules.reversed_steps] = Status.REVERSED
        if rules.laps:
            goal = rules.laps * self._lengths[after.track]
            status[after.travelled >= goal] = Status.LAP_COMPLETE
        # Nothing follows the end of an open track, wherever on it the episode began.
        status[after.s >= self._ends[after.track]] = Status.LAP_COMPLETE
        if rules.off_track == "centre":
            status[(after.n > after.left) | (-after.n > after.right)] = Status.OFF_TRACK
        elif rules.off_track != "never":
            most = 4 if rules.off_track == "all_wheels" else 1
            status[after.wheels_off >= most] = Status.OFF_TRACK
        if self.margin:
            open_share = np.float32(1 - self.margin)
            beside = (after.n > open_share * after.left) | (-after.n > open_share * after.right)
            status[beside] = Status.OFF_TRACK
        if rules.crash and after.around is not None:
            status[after.around.contact >= 0] = Status.CRASHED
        return Ended(status)

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly."""
        return {
            "deadline": self._deadline.copy(),
            "still": self._still.copy(),
            "back": self._back.copy(),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._deadline, self._still, self._back = (
            arrays[name].copy() for name in ("deadline", "still", "back")
        )
