"""Rules: when an episode ends, and whether it truly ends or the clock only cuts it off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from hotlap.config import Settings
from hotlap.simulator import State
from hotlap.threads import spread
from hotlap.types import Array, Float32, Int32

__all__ = ["Ended", "Rules", "RulesSettings", "Status"]

_STEPS_MAX = int(np.iinfo(np.int32).max)
_SHARE = 16_384
"""Fewer rows are judged before another thread has woken up."""
_NOBODY: Int32 = np.zeros(0, np.int32)
_f4, _i4 = np.float32, np.int32


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
    margin: float = Field(0.0, ge=0, lt=1)
    """Share of each half of the road, next to its border, that is closed to the car's middle while
    it learns: a driver that keeps away from the border fails less often, and laps slower.
    Evaluations and races open the whole road."""
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
    def rows(self) -> Array:
        """(K,) the rows whose episode ended, in order."""
        over: Array = self.status.nonzero()[0]
        return over

    @property
    def terminated(self) -> Array:
        """(N,) True where the task itself ended: nothing follows."""
        return _TERMINATED.take(self.status)

    @property
    def failed(self) -> Array:
        """(N,) True where the task ended before it was done."""
        return _FAILED.take(self.status)

    @property
    def truncated(self) -> Array:
        """(N,) True where only the clock ended it: what the car reached keeps its value."""
        return np.equal(self.status, _TIME_UP)


_TERMINATED = np.array([s not in (Status.IN_PROGRESS, Status.TIME_UP) for s in Status])
_FAILED: Array = _TERMINATED & (np.arange(len(Status)) != Status.LAP_COMPLETE)


class Rules:
    """The rules of N rows; remembers how long each has stood still or gone back."""

    def __init__(
        self,
        settings: RulesSettings,
        lengths: Float32,
        closed: Array,
        *,
        rows: int,
        dt: float,
        threads: int = 1,
    ) -> None:
        self.settings = settings
        self.margin = settings.margin
        """Share of each half of the road that is closed to the car's middle, next to its border."""
        goal = np.where(settings.laps, settings.laps * lengths, np.inf)
        self._goals = np.stack([goal, np.where(closed, np.inf, 0.9999 * lengths)]).astype(_f4)
        self._threads = threads
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

    def forgive(self, rows: Array) -> None:
        """Forget how long the given rows have stood still or gone back."""
        self._still[rows] = 0
        self._back[rows] = 0

    def judge(self, before: State, after: State) -> Ended:
        """Apply every rule to the step from `before` to `after`."""
        rules, around = self.settings, after.around
        contact = _NOBODY if around is None or not rules.crash else around.contact
        never = _STEPS_MAX
        wheels = {"all_wheels": 4, "any_wheel": 1}.get(rules.off_track, never)
        # The share of each half of the road that the middle of the car may use; above 1: any.
        road = _f4(1 if rules.off_track == "centre" else 2)
        if self.margin:
            road = min(road, _f4(1 - self.margin))
        status = np.empty(len(after.x), np.int32)
        spread(
            _judge, len(status), status, self._still, self._back, self._deadline,
            _f4(rules.immobilized_distance), rules.immobilized_steps or never,
            rules.reversed_steps or never, self._goals, wheels, road, contact,
            before.x, before.y, after.x, after.y, after.advance, after.travelled, after.steps,
            after.track, after.s, after.n, after.left, after.right, after.wheels_off,
            block=_SHARE, threads=self._threads,
        )  # fmt: skip
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


_TIME_UP, _LAP, _OFF, _STILL, _BACK, _CRASHED = (
    _i4(status)
    for status in (
        Status.TIME_UP,
        Status.LAP_COMPLETE,
        Status.OFF_TRACK,
        Status.IMMOBILIZED,
        Status.REVERSED,
        Status.CRASHED,
    )
)


@njit(cache=True, nogil=True, error_model="numpy")
def _judge(  # type: ignore[no-untyped-def]
    start, stop, status, still, back, deadline, distance, still_most, back_most, goals, wheels,
    road, contact, x_before, y_before, x, y, advance, travelled, steps, track, s, n, left, right,
    wheels_off,
):  # fmt: skip
    """Apply the rules in turn: the later of two reasons counts."""
    for j in range(start, stop):
        i = np.uint64(j)
        dx, dy = x[i] - x_before[i], y[i] - y_before[i]
        moved = math.sqrt(dx * dx + dy * dy)
        stood = _i4(still[i] + 1) if moved <= distance else _i4(0)
        lost = _i4(back[i] + 1) if advance[i] < 0 else _i4(0)
        still[i], back[i] = stood, lost
        which = np.uint64(track[i])
        found = _TIME_UP if steps[i] >= deadline[i] else _i4(0)
        found = _STILL if stood >= still_most else found
        found = _BACK if lost >= back_most else found
        # Nothing follows the end of an open track, wherever on it the episode began.
        done = (travelled[i] >= goals[0, which]) | (s[i] >= goals[1, which])
        found = _LAP if done else found
        beside = (n[i] > road * left[i]) | (-n[i] > road * right[i])
        found = _OFF if (beside & (road <= _f4(1))) | (wheels_off[i] >= wheels) else found
        if len(contact):
            found = _CRASHED if contact[i] >= 0 else found
        status[i] = found
