"""A student whose network is small: compiled kernels, and no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hotlap.algorithms.compiled import (
    BLOCK,
    cost_of,
    net_of,
    orthonormal,
    outputs,
    read,
    threads_for,
)
from hotlap.algorithms.compiled_steps import LANES, Weights, adam_step, add_up, imitation_gradients
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.plans import draw_weights
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.student import LONGEST, Student
from hotlap.threads import available, spread
from hotlap.types import Array, Float32

__all__ = ["CompiledStudent"]


class CompiledStudent(Student):
    """A student with a small network, on the processor; see `Student` and `compiled.fits`."""

    @staticmethod
    def _drawn(plan: Plan, rng: np.random.Generator) -> dict[str, Float32]:
        return draw_weights(plan, 0.01, rng, orthonormal)

    def _begin(self, settings: PPOSettings, weights: Mapping[str, Float32]) -> None:
        self._net, where, length = net_of(self._plan, 0)
        self._cost = cost_of(self._net)
        self._weights = Weights(weights, where, length, self.frozen)
        self._driving = self._weights.theta.copy()
        self._count = 0
        self._threads = settings.threads or available()

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self._count

    def output(self, observation: Mapping[str, Array]) -> Float32:
        """Run the network: (N, A) means that are not clipped, or logits."""
        pixels, numbers = read(self._plan, self._normalized(observation))
        out = np.empty((len(numbers), self._action.size), np.float32)
        spread(
            outputs, len(out), out, self._driving, self._net, pixels, numbers,
            block=BLOCK, threads=threads_for(len(out) * self._cost, self._threads),
        )  # fmt: skip
        return out

    def learn(
        self,
        frames: Mapping[str, Array],
        label_BA: Float32,
        learning_rate: float,
        peers: Peers = ALONE,
        share: float = 1.0,
    ) -> dict[str, float]:
        """Take one gradient step towards the labels; see `Student.learn`."""
        weights, count = self._weights, len(label_BA)
        found, sums = np.empty((LANES, len(weights.theta)), np.float32), np.empty(LANES)
        spread(
            imitation_gradients, LANES, found, sums, weights.theta, self._net,
            *read(self._plan, self._normalized(frames)),
            np.ascontiguousarray(label_BA, np.float32), self._action.kind == "discrete",
            block=1, threads=threads_for(3 * count * self._cost, self._threads),
        )  # fmt: skip
        gradient = np.empty_like(weights.theta)
        add_up(gradient, found, weights.still)
        if peers is not ALONE:
            gradient[weights.moves] = peers.sum(gradient[weights.moves] * np.float32(share))
        steps, rates = np.array([self._count + 1]), np.array([learning_rate])
        norm = adam_step(
            weights.theta, gradient, weights.mean, weights.square, np.array([len(gradient)]),
            rates, steps, 1e-5, LONGEST,
        )  # fmt: skip
        self._refuse(norm)
        self._count += 1
        self._driving += np.float32(1 - self._kept) * (weights.theta - self._driving)
        return {"imitation_loss": float(sums.sum()) / count, "grad_norm": norm}

    def _average(self) -> dict[str, Float32]:
        return self._weights.named(self._driving)

    def _last(self) -> dict[str, Float32]:
        last = self._weights.named(self._weights.theta)
        return {f"last.{k}": v for k, v in last.items()} | self._weights.moments()

    def _take(self, arrays: Mapping[str, Array], steps: int) -> None:
        last = {k.removeprefix("last."): v for k, v in arrays.items() if k.startswith("last.")}
        self._weights.take(last | {k: v for k, v in arrays.items() if k.startswith("adam.")})
        self._driving[:] = self._weights.flat(arrays)
        self._count = steps
