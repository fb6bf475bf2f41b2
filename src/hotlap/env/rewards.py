"""Rewards as an environment calls them: over arrays, or a user's file for all cars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hotlap.deepracer.params import Params
from hotlap.deepracer.rewards.batch import RewardBatch, prepared_file
from hotlap.env.settings import EnvSettings
from hotlap.limit import fastest_lap
from hotlap.simulator import Command, State
from hotlap.tasks.rewards import (
    ArrayReward,
    FileReward,
    FunctionReward,
    LimitReward,
    limit_reward,
)
from hotlap.tasks.rewards import array_reward as load_array_reward
from hotlap.tasks.rules import Ended
from hotlap.track import Track
from hotlap.types import Array, Float32
from hotlap.vehicle import load_vehicle

__all__ = ["Reward", "make_reward"]

_PLACES = 4096
"""Places of a track at which the fastest lap is looked up."""


class Reward(Protocol):
    """What pays for a step of all cars; it may remember."""

    def begin(self, rows: Array, state: State) -> None:
        """Forget what it remembers of rows whose episodes begin."""

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        """Return the reward (N,) of a step."""

    def save(self) -> dict[str, Array]:
        """Return what it remembers, by name."""

    def restore(self, arrays: dict[str, Array]) -> None:
        """Go on from what `save` returned."""


class _ArrayReward:
    """A reward over arrays; it has no memory."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def begin(self, rows: Array, state: State) -> None:
        """Nothing to remember."""

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        reward: Float32 = self._function(before, command, after, ended)
        return reward

    def save(self) -> dict[str, Array]:
        return {}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Nothing to remember."""


class _FileReward:
    """A user's DeepRacer function, for all cars."""

    def __init__(
        self, settings: FileReward, tracks: Sequence[Track], dt: float, others: int, threads: int
    ) -> None:
        self._params = Params(tracks, dt=dt)
        self._late = settings.timing == "deepracer"
        prepared = prepared_file(
            settings.path, tracks[0], allow=settings.allow, cars=others, compiled=settings.compiled
        )
        self._function = RewardBatch(prepared, self._params, threads)

    def begin(self, rows: Array, state: State) -> None:
        self._params.begin(rows, state)

    def __call__(self, before: State, command: Command, after: State, ended: Ended) -> Float32:
        seen = before if self._late else after
        # DeepRacer's first step only puts the car down: its function first sees step 2.
        steps = (before.steps if self._late else after.steps) + int(self._late)
        columns = self._params.compute(seen, command, steps)
        wanted = steps >= 2 if self._late else None
        return self._function(columns, wanted).astype(np.float32)

    def save(self) -> dict[str, Array]:
        return self._params.save() | self._function.save()

    def restore(self, arrays: dict[str, Array]) -> None:
        self._params.restore(arrays)
        self._function.restore(arrays)


def make_reward(
    settings: EnvSettings, tracks: Sequence[Track], dt: float, threads: int
) -> tuple[Reward, bool]:
    """Return the reward and whether it is paid one step late."""
    reward = settings.reward
    if isinstance(reward, FileReward):
        others = settings.traffic.bots + settings.traffic.obstacles + settings.traffic.cars - 1
        return _FileReward(reward, tracks, dt, others, threads), reward.timing == "deepracer"
    if isinstance(reward, FunctionReward):
        return _ArrayReward(load_array_reward(reward)), False
    if isinstance(reward, LimitReward):
        return _ArrayReward(_against_the_limit(reward, settings, tracks)), False
    return _ArrayReward(reward), False


def _against_the_limit(
    reward: LimitReward, settings: EnvSettings, tracks: Sequence[Track]
) -> ArrayReward:
    """Find the fastest laps, where they are not kept from before; some seconds for each track."""
    rule, car = settings.rules.off_track, load_vehicle(settings.vehicle)
    when, beside = [], []
    for track in tracks:
        limit = fastest_lap(track, car, rule="all_wheels" if rule == "never" else rule)
        seconds, offset = limit.passing(np.linspace(0, track.length, _PLACES))
        when.append(seconds)
        beside.append(offset)
    return limit_reward(
        reward,
        np.array(when, np.float32),
        np.array(beside, np.float32),
        np.array([track.length for track in tracks], np.float32),
        np.array([track.closed for track in tracks]),
    )
