"""Batch: T steps of N cars, as every learner eats it; and the shapes a policy sees and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from hotlap.types import Array, Float32

__all__ = ["ActionSpec", "Batch", "ObservationSpec", "below", "shard_rows", "side_by_side"]

X = TypeVar("X")

_LARGE_IMAGE = 8192
"""Numbers of an image from which fewer are computed together."""


def below(named: Mapping[str, X], prefix: str) -> dict[str, X]:
    """Return what is named below a prefix, by the rest of its name."""
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def shard_rows(images: Sequence[int]) -> int:
    """Return how many rows of a minibatch are computed together, given the numbers of each image.

    Fixed, so that sums do not depend on the threads; small for images, whose activations must stay
    in the core's cache.
    """
    if not images:
        return 1024
    return 128 if max(images) < _LARGE_IMAGE else 64


@dataclass(frozen=True)
class ObservationSpec:
    """What one row of one observation looks like."""

    shape: tuple[int, ...]
    """Without the row axis: (O,) for numbers, (H, W, C) for an image."""
    dtype: str
    """NumPy's name: `float32`, or `uint8` for a camera."""
    high: float = 255.0
    """Greatest number of an image; networks scale by it."""

    @property
    def is_image(self) -> bool:
        """Whether it goes through convolutions."""
        return len(self.shape) == 3


@dataclass(frozen=True)
class ActionSpec:
    """What a policy answers."""

    kind: Literal["discrete", "continuous"]
    """`discrete`: the index of a choice. `continuous`: numbers that the task clips to [-1, 1]."""
    size: int
    """How many choices, or how many numbers."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Experience of N rows over T steps, all NumPy.

    Rows restart within a step: where `terminated` or `truncated`, the next observation already
    belongs to a new episode, and what the old one reached is in `reached`.
    """

    observation: Mapping[str, Array]
    """By name, (T, N, ...): what the policy saw before each action."""
    last_observation: Mapping[str, Array]
    """By name, (N, ...): after the last step, after resets."""
    action: Array
    """(T, N, A) float32, not clipped, or (T, N) int64."""
    log_prob: Float32
    """(T, N) of the action under the policy that took it."""
    reward: Float32
    """(T, N)."""
    terminated: Array
    """(T, N) bool: the episode ended in a state worth nothing afterwards."""
    truncated: Array
    """(T, N) bool: the clock, or we, cut the episode off."""
    reached: Mapping[str, Array]
    """By name, (K, ...): seen by the K ended steps before their reset, in the row-major order of
    `np.nonzero(terminated | truncated)`."""
    failed: Array | None = None
    """(T, N) bool: where it terminated before its task was done; None: wherever it terminated."""

    def __post_init__(self) -> None:
        ended = int(np.count_nonzero(self.terminated | self.truncated))
        for name, seen in self.reached.items():
            if len(seen) != ended:
                raise ValueError(
                    f"reached[{name!r}] has {len(seen)} rows, but {ended} steps ended an episode; "
                    "give one row for each"
                )
        shape = self.reward.shape
        for field in ("log_prob", "terminated", "truncated"):
            if getattr(self, field).shape != shape:
                raise ValueError(
                    f"{field} has shape {getattr(self, field).shape}, reward has {shape}; "
                    "both must be (T, N)"
                )

    @property
    def steps(self) -> int:
        """T."""
        return int(self.reward.shape[0])

    @property
    def rows(self) -> int:
        """N."""
        return int(self.reward.shape[1])

    @property
    def ended(self) -> Array:
        """(T, N) bool: after this step the row began a new episode."""
        return np.asarray(self.terminated | self.truncated)


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Put the rows of several batches, each of as many steps, into one."""
    ended = np.concatenate([one.ended for one in batches], axis=1)
    # What ended steps reached stands step by step, over all rows.
    at, first = [], 0
    for one in batches:
        t, row = np.nonzero(one.ended)
        at.append(t * ended.shape[1] + row + first)
        first += one.rows
    order = np.argsort(np.concatenate(at), kind="stable")

    def side(name: str) -> Array:
        return np.concatenate([getattr(one, name) for one in batches], axis=1)

    first_one = batches[0]
    return replace(
        first_one,
        observation={
            name: np.concatenate([one.observation[name] for one in batches], axis=1)
            for name in first_one.observation
        },
        last_observation={
            name: np.concatenate([one.last_observation[name] for one in batches])
            for name in first_one.last_observation
        },
        action=side("action"),
        log_prob=side("log_prob"),
        reward=side("reward"),
        terminated=side("terminated"),
        truncated=side("truncated"),
        reached={
            name: np.concatenate([one.reached[name] for one in batches])[order]
            for name in first_one.reached
        },
        failed=side("failed"),
    )
