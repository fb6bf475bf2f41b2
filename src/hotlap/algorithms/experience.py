"""Experience: what a learner from a replay remembers, and the scales on which networks learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.algorithms.footprint import AT_ONCE
from hotlap.algorithms.normalizer import ReturnScaler, RunningNormalizer, moments, normalize
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.replay import Replay, Windows
from hotlap.algorithms.settings import PPOSettings, PQNSettings, ReplaySettings
from hotlap.draws import generator
from hotlap.errors import RunError, SimulationError
from hotlap.types import Array, Float64

__all__ = ["Experience", "Minibatch", "Scales", "match"]


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


class Scales:
    """Running scales of observations and rewards, and the way from arrays to tensors.

    Args:
        settings: what is to be normalised.
        observation: what a network reads, by name.
        device: where tensors go.
    """

    def __init__(
        self,
        settings: PPOSettings | ReplaySettings | PQNSettings,
        observation: Mapping[str, ObservationSpec],
        device: torch.device,
    ) -> None:
        self._settings, self._device = settings, device
        self.normalizers = {
            name: RunningNormalizer(int(np.prod(spec.shape)))
            for name, spec in observation.items()
            if not spec.is_image
        }
        self._returns = ReturnScaler(settings.gamma)

    def update(self, batch: Batch, peers: Peers = ALONE) -> int:
        """Take in a batch, and those of all peers; return how many steps they have together.

        Raises:
            SimulationError: rewards are not finite.
        """
        broken = int((~np.isfinite(batch.reward)).sum())
        found = [np.array([[batch.reward.size], [broken], [0.0]])]
        if self._settings.normalize_observations:
            for name in self.normalizers:
                values = batch.observation[name]
                found.append(moments(values.reshape(batch.reward.size, -1)))
        if self._settings.normalize_rewards and not broken:
            found.append(self._returns.follow(batch.reward, batch.ended))
        parts, _ = peers.gather(np.concatenate(found, axis=1))
        count, broken = (int(sum(part[i, 0] for part in parts)) for i in (0, 1))
        if broken:
            raise SimulationError(
                f"{broken} of {count} rewards are not finite numbers; "
                "nothing can be learned from them, look into the reward function"
            )
        ends = np.cumsum([one.shape[1] for one in found])
        for part in parts:
            columns = iter(np.split(part, ends, axis=1)[1:])
            if self._settings.normalize_observations:
                for normalizer in self.normalizers.values():
                    normalizer.merge(next(columns))
            if self._settings.normalize_rewards:
                self._returns.merge(next(columns))
        return count

    def since(self, before: Mapping[str, Array]) -> dict[str, Float64]:
        """Return the `moments` of what was taken in since `save` returned `before`, by name."""
        found = {"reward": self._returns.statistics.since(below(before, "reward."))}
        for name, normalizer in self.normalizers.items():
            found[name] = normalizer.since(below(before, f"normalizer.{name}."))
        return found

    def become(self, before: Mapping[str, Array], parts: Sequence[Mapping[str, Float64]]) -> None:
        """Be what `save` returned, and what others have taken in since; our own cars drive on."""
        self._returns.statistics.restore(below(before, "reward."))
        for name, normalizer in self.normalizers.items():
            normalizer.restore(below(before, f"normalizer.{name}."))
        for part in parts:
            self._returns.merge(part["reward"])
            for name, normalizer in self.normalizers.items():
                normalizer.merge(part[name])

    @property
    def reward(self) -> float:
        """What rewards are divided by."""
        return self._returns.scale if self._settings.normalize_rewards else 1.0

    def inputs(
        self, observation: Mapping[str, Array], names: Sequence[str] | Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Normalise vectors, leave images as they are, and move both to the device."""
        found = {}
        for name in names:
            values = observation[name]
            if name in self.normalizers:
                normalizer = self.normalizers[name]  # mean 0 and deviation 1 if never updated
                values = values.reshape(len(values), -1)
                values = normalize(values, normalizer.mean, normalizer.std)
            found[name] = self.tensor(values)
        return found

    def tensor(self, values: Array) -> Tensor:
        """Copy an array to the device.

        In torch's own memory its alignment, and so the last bit of a sum, is always the same.
        """
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, copy=True)

    def save(self) -> dict[str, Array]:
        """Return everything it knows as arrays."""
        arrays = {f"reward.{k}": v for k, v in self._returns.save().items()}
        for name, normalizer in self.normalizers.items():
            arrays |= {f"normalizer.{name}.{k}": v for k, v in normalizer.save().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array], *, anew: bool = False) -> None:
        """Continue from what `save` returned; `anew` with rows that begin their episodes."""
        for name, normalizer in self.normalizers.items():
            normalizer.restore(below(arrays, f"normalizer.{name}."))
        rewards = below(arrays, "reward.")
        self._returns.restore({**rewards, "return": np.zeros(0)} if anew else rewards)


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
        scales: Scales,
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
            parts * size, rng, steps=settings.n_step, gamma=settings.gamma, beta=beta
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


def match(
    kind: str,
    mine: Mapping[str, Array],
    meta: Mapping[str, Any],
    arrays: Mapping[str, Array],
    free: Sequence[str] = (),
) -> None:
    """Check that what was saved fits what is there.

    Args:
        kind: of the algorithm that is to continue.
        mine: what it would save itself.
        meta: what was saved.
        arrays: what was saved.
        free: names of arrays that may have any shape.

    Raises:
        RunError: it was saved by another algorithm, version, network or observation.
    """
    if (meta.get("kind"), meta.get("format")) != (kind, 1):
        raise RunError(
            f"the checkpoint is of kind {meta.get('kind')!r}, format {meta.get('format')!r}; "
            f"this is {kind}, format 1"
        )
    for name, array in mine.items():
        if name not in arrays:
            raise RunError(f"the checkpoint lacks {name}; it was saved with another network")
        if name not in free and arrays[name].shape != array.shape:
            raise RunError(
                f"the checkpoint's {name} has shape {arrays[name].shape}, this network needs "
                f"{array.shape}; keep the settings and observations it was trained with"
            )
