"""Rewards over arrays: by name, or a user's `module:function`.

A reward is a function (before, command, after, ended) -> (N,) float32 of the step that `command`
drove from `before` to `after`, and of how the episodes then stand.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, NonNegativeFloat

from hotlap.config import Settings
from hotlap.errors import RewardError
from hotlap.simulator import Command, State
from hotlap.tasks.rules import Ended
from hotlap.types import Array, Float32

__all__ = [
    "ArrayReward",
    "CentreReward",
    "FileReward",
    "FunctionReward",
    "LimitReward",
    "ProgressReward",
    "RacingReward",
    "RewardSettings",
    "array_reward",
    "limit_reward",
]

ArrayReward: TypeAlias = Callable[[State, Command, State, Ended], Float32]


class _Reward(Settings):
    @classmethod
    def from_word(cls, word: str) -> dict[str, str]:
        """Read `reward=WORD`: a name, a file of DeepRacer's, or module:function."""
        if word.endswith(".py"):
            return {"kind": "file", "path": word}
        if ":" in word:
            return {"kind": "function", "function": word}
        return {"kind": word}


class ProgressReward(_Reward):
    """Metres of centre line won, less a fine for leaving the road."""

    kind: Literal["progress"] = "progress"
    """Which reward."""
    off_track_fine: NonNegativeFloat = 1.0
    """Taken off when the episode ends off the track, reversed, standing or in a crash [m]."""

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        """Reward N steps."""
        return np.asarray(after.advance - self.off_track_fine * _failed(ended), np.float32)


class CentreReward(_Reward):
    """1 on the centre line down to 0 at the border, for cars that move forward."""

    kind: Literal["centre"] = "centre"
    """Which reward."""
    off_track_fine: NonNegativeFloat = 1.0
    """Taken off when the episode ends off the track, reversed, standing or in a crash."""

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        """Reward N steps."""
        room = np.where(after.n > 0, after.left, after.right)
        near = np.clip(1 - np.abs(after.n) / room, 0, 1) * (after.advance > 0)
        return np.asarray(near - self.off_track_fine * _failed(ended), np.float32)


class RacingReward(_Reward):
    """Progress, less fines that make fast driving safe and smooth."""

    kind: Literal["racing"] = "racing"
    """Which reward."""
    off_track_fine: NonNegativeFloat = 1.0
    """Taken off when the episode ends off the track, reversed, standing or in a crash [m]."""
    speed_fine: NonNegativeFloat = 0.15
    """Further fine for leaving the road, by the square of the speed [m/(m/s)^2]."""
    jerk_fine: NonNegativeFloat = 0.02
    """Fine for turning the wheel, by the change of its angle [m/rad]."""

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        """Reward N steps."""
        fine = self.off_track_fine + self.speed_fine * (after.vx**2 + after.vy**2)
        turned = np.abs(after.steering - before.steering)
        return np.asarray(
            after.advance - fine * _failed(ended) - self.jerk_fine * turned, np.float32
        )


class LimitReward(_Reward):
    """Seconds of the fastest possible lap won.

    A metre of a hairpin counts for more than one of a straight, and a car that loses nothing to
    that lap earns the length of its steps. Needs CasADi, and some seconds for each new track.
    """

    kind: Literal["limit"] = "limit"
    """Which reward."""
    off_track_fine: NonNegativeFloat = 0.3
    """Taken off when the episode ends off the track, reversed, standing or in a crash [s]."""
    line_fine: NonNegativeFloat = 0.0
    """Fine for being beside the line of that lap, by the distance [s/m]."""


def _parts(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class FileReward(_Reward):
    """A user's DeepRacer file with `reward_function(params)`, or the older positional form."""

    kind: Literal["file"] = "file"
    """Which reward."""
    path: str
    """The Python file; it is executed."""
    timing: Literal["deepracer", "modern"] = "deepracer"
    """deepracer: the reward of a step is read before the car moves, and the episode's last state is
    rewarded one step later, as AWS DeepRacer did. modern: it is read after the car moved."""
    allow: Annotated[
        tuple[Literal["write", "network", "processes"], ...], BeforeValidator(_parts)
    ] = ()
    """What the file's code may do besides computing and reading: `write` files, use the `network`,
    start `processes` and threads; several with commas between."""
    compiled: bool = True
    """Whether the function is compiled where that is proven to give the same rewards."""


class FunctionReward(_Reward):
    """A user's function over arrays."""

    kind: Literal["function"] = "function"
    """Which reward."""
    function: str = Field(pattern=r"^[^:]+:[A-Za-z_]\w*$")
    """`module:function` or `file.py:function`; it is executed."""


RewardSettings: TypeAlias = Annotated[
    ProgressReward | CentreReward | RacingReward | LimitReward | FileReward | FunctionReward,
    Field(discriminator="kind"),
]


_SERIAL = itertools.count()


def _failed(ended: Ended) -> Float32:
    return np.asarray(ended.failed, np.float32)


def limit_reward(
    settings: LimitReward, when: Float32, beside: Float32, length: Float32, closed: Array
) -> ArrayReward:
    """Make the reward that compares with the fastest lap of each of K tracks.

    Args:
        settings: the fines.
        when: (K, P) when that lap passes P places at even distances along the centre line, the
            first at its start and the last at its end [s]; grows along it.
        beside: (K, P) how far to the left of the centre line it is there [m].
        length: (K,) of the centre lines [m].
        closed: (K,) whether the last place is the first one again.
    """
    last = when.shape[1] - 1
    lap = np.where(closed, when[:, -1] - when[:, 0], 0)

    def read(table: Float32, state: State) -> Array:
        at = np.clip(state.s / length[state.track], 0, 1) * last
        place = np.minimum(at.astype(np.int64), last - 1)
        here, there = table[state.track, place], table[state.track, place + 1]
        return np.asarray(here + (at - place) * (there - here))

    def reward(before: State, command: Command, after: State, ended: Ended) -> Float32:
        won = read(when, after) - read(when, before)
        around = lap[after.track]  # a step across the line has won the rest of one lap
        won += np.where(won < -around / 2, around, 0) - np.where(won > around / 2, around, 0)
        if settings.line_fine:
            won -= settings.line_fine * np.abs(after.n - read(beside, after))
        return np.asarray(won - settings.off_track_fine * _failed(ended), np.float32)

    return reward


def array_reward(settings: FunctionReward) -> ArrayReward:
    """Load a user's reward over arrays.

    Raises:
        RewardError: no such module, file or function, or the module fails while it is loaded.
    """
    place, _, name = settings.function.rpartition(":")
    try:
        if place.endswith(".py"):
            label = f"hotlap_reward_{next(_SERIAL)}"  # hides no module, not even an earlier load
            spec = importlib.util.spec_from_file_location(label, place)
            if spec is None or spec.loader is None or not Path(place).is_file():
                raise RewardError(f"reward.function: no file {place}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look for their module by name
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            try:
                module = importlib.import_module(place)
            finally:
                sys.path.pop(0)
    except RewardError:
        raise
    except (Exception, SystemExit) as error:
        raise RewardError(
            f"reward.function: {place} cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    function: Any = getattr(module, name, None)
    if not callable(function):
        raise RewardError(
            f"reward.function: {place} has no function {name}; write "
            f"def {name}(before, command, after, ended) that returns one float32 for each car"
        )

    def checked(before: State, command: Command, after: State, ended: Ended) -> Float32:
        try:
            value = np.asarray(function(before, command, after, ended))
        except (Exception, SystemExit) as error:
            raise RewardError(f"{settings.function}: {type(error).__name__}: {error}") from error
        if value.shape != after.x.shape or value.dtype.kind not in "fiu":
            raise RewardError(
                f"{settings.function} returned {value.dtype} of shape {value.shape}; "
                f"it must return one number for each of the {len(after.x)} cars"
            )
        with np.errstate(over="ignore"):
            reward = value.astype(np.float32)
        if not np.isfinite(reward).all():
            row = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise RewardError(
                f"{settings.function} returned {value[row]} for car {row}; "
                "it must return finite numbers that float32 can hold"
            )
        return reward

    return checked
