"""Scales: what networks learn on, and whether what was saved on them fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotlap.algorithms.batch import Batch, ObservationSpec, below
from hotlap.algorithms.normalizer import ReturnScaler, RunningNormalizer, moments, normalize
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.settings import PPOSettings, PQNSettings, ReplaySettings
from hotlap.errors import RunError, SimulationError
from hotlap.types import Array, Float64

__all__ = ["Scales", "match"]


class Scales:
    """Running scales of observations and rewards.

    Args:
        settings: what is to be normalised.
        observation: what a network reads, by name.
    """

    def __init__(
        self,
        settings: PPOSettings | ReplaySettings | PQNSettings,
        observation: Mapping[str, ObservationSpec],
    ) -> None:
        self._settings = settings
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

    def normalized(
        self, observation: Mapping[str, Array], names: Sequence[str] | Mapping[str, Any]
    ) -> dict[str, Array]:
        """Normalise vectors, (B, size) float32, and leave images as they are."""
        found = {}
        for name in names:
            values = observation[name]
            if name in self.normalizers:
                normalizer = self.normalizers[name]  # mean 0 and deviation 1 if never updated
                values = values.reshape(len(values), -1)
                values = normalize(values, normalizer.mean, normalizer.std)
            found[name] = values
        return found

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
