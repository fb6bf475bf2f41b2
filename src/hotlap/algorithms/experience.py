"""Experience: what a learner from a replay remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.footprint import AT_ONCE
from hotlap.algorithms.peers import ALONE
from hotlap.algorithms.replay import Replay, Windows
from hotlap.algorithms.settings import ReplaySettings
from hotlap.algorithms.tensors import TensorScales
from hotlap.draws import generator
from hotlap.types import Array

__all__ = ["Experience", "Minibatch"]


@dataclass(frozen=True, eq=False)
class Minibatch:
    """B transitions as tensors, normalised, and the chance that its gradient step may use."""

    index: Array
    """(B,) by which the replay knows them."""
    observation: Mapping[str, Tensor]
    """By name, (B, ...)."""
    action: Tensor
    """(B, A) float32 or (B,) int64."""
    reward: Tensor
    """(B,) in units of scaled reward."""
    discount: Tensor
    """(B,) of the value of what was reached."""
    reached: Mapping[str, Tensor]
    """By name, (B, ...)."""
    weight: Tensor
    """(B,) in the loss."""
    noise: Tensor
    """(2, B, A) standard normal numbers."""

    def part(self, some: slice) -> Minibatch:
        """Return some of its rows."""
        return Minibatch(
            index=self.index[some],
            observation={name: values[some] for name, values in self.observation.items()},
            action=self.action[some],
            reward=self.reward[some],
            discount=self.discount[some],
            reached={name: values[some] for name, values in self.reached.items()},
            weight=self.weight[some],
            noise=self.noise[:, some],
        )


class Experience:
    """Remembers transitions, and says how many gradient steps are due.

    Args:
        settings: how much to keep and how often to learn from it.
        observation: what the networks read, by name; no more is kept.
        action: what rows answer.
        scales: of observations and rewards.
        alpha: power of the priorities; 0: none.
        seed: of what is drawn.
    """

    def __init__(
        self,
        settings: ReplaySettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        scales: TensorScales,
        *,
        alpha: float,
        seed: int,
    ) -> None:
        self.settings, self.scales = settings, scales
        self.replay = Replay(observation, action, capacity=settings.capacity, alpha=alpha)
        self._seed = seed
        self._noises = action.size if action.kind == "continuous" else 0
        self.peers = ALONE
        self.transitions = 0
        """Taken in so far, by this learner."""
        self.gradient_steps = 0
        """Taken so far, by this learner."""

    @property
    def warming_up(self) -> bool:
        """Whether cars still drive at random."""
        return self.transitions < self.settings.warmup

    def add(self, batch: Batch) -> None:
        """Take in a batch, and let the scales know it and those of all peers."""
        self.transitions += self.scales.update(batch, self.peers)
        self.replay.add(batch)

    def minibatches(self, beta: float = 1.0) -> Iterator[Minibatch]:
        """Yield what to learn from: one minibatch for each gradient step that is due."""
        due = self._due
        while due > 0:
            parts = min(due, AT_ONCE)
            yield from self._draw(parts, beta)
            due -= parts

    def windows(self, count: int, length: int) -> Iterator[Windows]:
        """Yield stretches of steps: `count` for each gradient step that is due, once there are."""
        for _ in range(self._due if self.replay.head - self.replay.oldest > length else 0):
            rng = self._rng()
            self.gradient_steps += 1
            yield self.replay.windows(count, rng, length)

    @property
    def _due(self) -> int:
        """Gradient steps that are to be taken now."""
        learnable = max(0, self.transitions - self.settings.warmup)
        return int(self.settings.update_ratio * learnable + 1e-6) - self.gradient_steps

    def _draw(self, parts: int, beta: float) -> Iterator[Minibatch]:
        settings, size = self.settings, self.peers.share(self.settings.minibatch, self.replay.rows)
        rng = self._rng()
        drawn = self.replay.draw(
            parts * size, rng, steps=settings.n_step, gamma=settings.gamma, beta=beta, parts=parts
        )
        scales, shape = self.scales, (parts, 2, size, self._noises)
        noise = scales.tensor(rng.standard_normal(shape, dtype=np.float32))
        seen = scales.inputs(drawn.observation, drawn.observation)
        reached = scales.inputs(drawn.reached, drawn.reached)
        action = scales.tensor(drawn.action)
        reward = scales.tensor(drawn.reward / np.float32(scales.reward))
        discount, weight = scales.tensor(drawn.discount), scales.tensor(drawn.weight)
        for i in range(parts):
            part = slice(i * size, (i + 1) * size)
            self.gradient_steps += 1
            yield Minibatch(
                index=drawn.index[part],
                observation={name: values[part] for name, values in seen.items()},
                action=action[part],
                reward=reward[part],
                discount=discount[part],
                reached={name: values[part] for name, values in reached.items()},
                weight=weight[part],
                noise=noise[i],
            )

    def _rng(self) -> np.random.Generator:
        """Return where the chance of the next gradient steps comes from; every peer has its own."""
        return generator(self._seed + (self.peers.first << 32), self.gradient_steps)

    def save(self) -> dict[str, Any]:
        """Return the counters; the replay and the scales save themselves."""
        return {"transitions": self.transitions, "gradient_steps": self.gradient_steps}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Continue from what `save` returned."""
        self.transitions = int(meta["transitions"])
        self.gradient_steps = int(meta["gradient_steps"])
