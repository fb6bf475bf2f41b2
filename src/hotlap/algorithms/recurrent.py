"""Recurrent: what a driver with a memory carries from one step of an episode to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.tensors import TensorScales, numpy_of
from hotlap.types import Array, Float32

__all__ = ["Recurrent", "as_input", "carried_on"]


class Recurrent(ABC):
    """The side of a learner that drives with a memory; the other side is a learner without one."""

    _actor: Plan
    _action: ActionSpec
    _scales: TensorScales
    _remembers = True
    _now: Float32 = np.zeros((0, 0), np.float32)
    """(N, carried): what the driver carries into the next `act`."""
    _watched: Float32 | None = None
    """What `greedy` carries: a trial of its own, which is no part of the training."""

    @abstractmethod
    def _step(self, inputs: Mapping[str, Tensor], hidden_NH: Tensor) -> tuple[Tensor, Tensor]:
        """Run the actor by a step: its output (N, outputs), and what its units reach (1, N, H)."""

    @abstractmethod
    def _best(self, output: Tensor) -> Array:
        """Return the best action."""

    def begin(self, rows: Array | None = None) -> None:
        """Forget what `greedy` remembers of some rows, whose episodes begin; None: of all."""
        if rows is None or self._watched is None:
            self._watched = None
        else:
            self._watched[rows] = 0.0

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows, and remember what they saw, apart from `act`."""
        if self._watched is None:
            rows = len(observation[self._actor.names[0]])
            self._watched = np.zeros((rows, self._actor.carried), np.float32)
        output, hidden = self._advance(observation, self._watched)
        action = self._best(output)
        self._watched = self._with_action(hidden, action)
        return action

    def _advance(
        self, observation: Mapping[str, Array], carried: Float32
    ) -> tuple[Tensor, Float32]:
        """Run the actor by a step: its output, and what its units reach, (N, H)."""
        units = self._actor.state
        with torch.no_grad():
            inputs = self._scales.inputs(observation, self._actor.names)
            if self._actor.previous_action:
                inputs["previous_action"] = self._scales.tensor(carried[:, units:])
            output, hidden = self._step(inputs, self._scales.tensor(carried[:, :units]))
            return output, numpy_of(hidden[0])

    def _with_action(self, hidden: Float32, action: Array) -> Float32:
        """Return what to carry on: what the units reached, and where it is seen the action."""
        if not self._actor.previous_action:
            return hidden
        return np.concatenate([hidden, as_input(action, self._action.size)], axis=1)


def carried_on(before: Float32, fresh: Array, size: int) -> Float32:
    """Return what N rows carry into a step, (N, size): 0 where episodes begin.

    If `before` is of another number of rows, all of them begin.
    """
    if len(before) != len(fresh):
        return np.zeros((len(fresh), size), np.float32)
    return np.where(fresh[:, None], np.float32(0), before)


def as_input(action: Array, size: int) -> Float32:
    """Turn actions into what a network reads: numbers inside [-1, 1], or one-hot choices."""
    if np.issubdtype(action.dtype, np.integer):
        return np.eye(size, dtype=np.float32)[action]
    return np.clip(action, np.float32(-1.0), np.float32(1.0))
