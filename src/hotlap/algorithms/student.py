"""Student: a network that learns by gradient steps to answer as labels say.

What it keeps and saves, whatever runs its network: `compiled_student.py` where it is small,
`torch_student.py` for all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.compiled import fits
from hotlap.algorithms.normalizer import RunningNormalizer, moments, normalize
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.transfer import frozen_weights
from hotlap.draws import generator
from hotlap.errors import DivergedError, RunError
from hotlap.types import Array, Float32

__all__ = ["LONGEST", "Student", "make_student", "shifted"]

LONGEST = 1.0
"""Longer gradients are shortened to this."""


def make_student(
    settings: PPOSettings,
    observation: Mapping[str, ObservationSpec],
    action: ActionSpec,
    names: tuple[str, ...],
    *,
    averaging: float,
    freeze: tuple[str, ...] = (),
    seed: int,
    device: str = "cpu",
) -> Student:
    """Make the student whose network runs fastest here; see `Student`. `device` is torch's name."""
    plan = make_plan(settings.network, observation, names, action.size)
    given = (settings, plan, action, averaging, freeze, seed)
    if device == "cpu" and settings.precision != "bfloat16" and fits(plan):
        from hotlap.algorithms.compiled_student import CompiledStudent

        return CompiledStudent(*given)
    from hotlap.algorithms.torch_student import TorchStudent

    return TorchStudent(*given, device)


class Student(ABC):
    """A network, its optimiser and its normalisers.

    Args:
        settings: its arithmetic and threads; the rest of them is not read.
        plan: its layers.
        action: what to answer.
        averaging: share of the running average of its weights, which drives, that a gradient step
            keeps.
        freeze: patterns of the names of layers that do not move.
        seed: of the first weights.

    Raises:
        ConfigError: nothing is left to learn.
    """

    def __init__(
        self,
        settings: PPOSettings,
        plan: Plan,
        action: ActionSpec,
        averaging: float,
        freeze: tuple[str, ...],
        seed: int,
    ) -> None:
        self._plan, self._action = plan, action
        self._averaging = averaging
        self._normalizers = {k: RunningNormalizer(n) for k, n in plan.vectors.items()}
        first = self._drawn(plan, generator(seed))
        self.weights = tuple(first)
        """Names of its weights,"""
        self.frozen = frozen_weights(freeze, first)
        """and those that do not move."""
        self._begin(settings, first)

    # --- what runs the network ---

    @staticmethod
    @abstractmethod
    def _drawn(plan: Plan, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw the first weights."""

    @abstractmethod
    def _begin(self, settings: PPOSettings, weights: Mapping[str, Float32]) -> None:
        """Take over the first weights."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Gradient steps so far."""

    @abstractmethod
    def output(self, observation: Mapping[str, Array]) -> Float32:
        """Run the network: (N, A) means that are not clipped, or logits."""

    @abstractmethod
    def learn(
        self,
        frames: Mapping[str, Array],
        label_BA: Float32,
        learning_rate: float,
        peers: Peers = ALONE,
        share: float = 1.0,
    ) -> dict[str, float]:
        """Take one gradient step towards the labels; return `imitation_loss` and `grad_norm`.

        Args:
            frames: by name, (B, ...).
            label_BA: actions inside [-1, 1], or probabilities of the choices.
            learning_rate: step size of Adam.
            peers: who takes the same step, with frames of their own.
            share: part of the frames of all that these are.

        Raises:
            DivergedError: the gradients are not finite.
        """

    @abstractmethod
    def _average(self) -> dict[str, Float32]:
        """Return copies of the weights that drive, by name."""

    @abstractmethod
    def _last(self) -> dict[str, Float32]:
        """Return copies of the weights that learn, and of what Adam remembers of those that move.

        By name: `last.NAME`, `adam.mean.NAME`, `adam.square.NAME`.
        """

    @abstractmethod
    def _take(self, arrays: Mapping[str, Array], steps: int) -> None:
        """Become what `_average` and `_last` returned after so many steps."""

    # --- what is the same for all ---

    @property
    def _kept(self) -> float:
        """The share of the running average that this step keeps: little at the start."""
        return min(self._averaging, self.steps / (self.steps + 9))

    def _refuse(self, norm: float) -> None:
        """Stop before gradients that are no numbers do harm."""
        if not np.isfinite(norm):
            raise DivergedError(
                f"the gradients of the student's minibatch {self.steps + 1} are not finite; "
                "look for broken observations, or lower algorithm.learning_rate"
            )

    def _normalized(self, observation: Mapping[str, Array]) -> dict[str, Array]:
        found = {}
        for name in self._plan.names:
            values = observation[name]
            if name in self._normalizers:
                normalizer = self._normalizers[name]
                flat = values.reshape(len(values), -1)
                values = normalize(flat, normalizer.mean, normalizer.std)
            found[name] = values
        return found

    def see(self, observation: Mapping[str, Array], peers: Peers = ALONE) -> None:
        """Take B rows into the means and deviations that numbers (not images) are scaled by."""
        for name, normalizer in self._normalizers.items():
            own = moments(observation[name].reshape(len(observation[name]), -1))
            for part in peers.gather(own)[0]:
                normalizer.merge(part)

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        plan = self._plan.model_dump(mode="json")
        description = {"format": 1, "plan": plan, "action": self._action.kind}
        arrays: dict[str, Array] = {**self._average()}
        if self._action.kind == "continuous":
            arrays["log_std"] = np.zeros(self._action.size, np.float32)
        for name, normalizer in self._normalizers.items():
            arrays[f"normalizer.{name}.mean"] = normalizer.mean
            arrays[f"normalizer.{name}.std"] = normalizer.std
        return description, arrays

    def save(self) -> dict[str, Array]:
        """Return everything but the number of steps: weights, optimiser, normalisers."""
        arrays: dict[str, Array] = {**self._average(), **self._last()}
        for name, normalizer in self._normalizers.items():
            arrays |= {f"normalizer.{name}.{k}": v for k, v in normalizer.save().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array], steps: int) -> None:
        """Continue from what `save` returned.

        Raises:
            RunError: it was saved with another network or observation.
        """
        for name, mine in self.save().items():
            if name not in arrays or arrays[name].shape != mine.shape:
                there = arrays[name].shape if name in arrays else "nothing"
                raise RunError(
                    f"the checkpoint's {name} of the student has shape {there}, this network needs "
                    f"{mine.shape}; keep the settings and observations it was trained with"
                )
        self._take(arrays, steps)
        for name, normalizer in self._normalizers.items():
            prefix = f"normalizer.{name}."
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            normalizer.restore(own)


def shifted(image_BHWC: Array, down_B: Array, right_B: Array) -> Array:
    """Return images moved down and right by whole pixels; what enters repeats the border.

    Source: Kostrikov, Yarats and Fergus 2021, arXiv:2004.13649, sec. 3 (random shifts).
    """
    height, width = image_BHWC.shape[1:3]
    row = np.clip(np.arange(height) - down_B[:, None], 0, height - 1)
    column = np.clip(np.arange(width) - right_B[:, None], 0, width - 1)
    each = np.arange(len(image_BHWC))[:, None, None]
    return np.asarray(image_BHWC[each, row[:, :, None], column[:, None, :]])
