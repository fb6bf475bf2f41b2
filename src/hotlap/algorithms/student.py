"""Student: a network that learns by gradient steps to answer as labels say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec, ObservationSpec, shard_rows
from hotlap.algorithms.networks import (
    Adam,
    forward,
    initial_weights,
    uses_bfloat16,
)
from hotlap.algorithms.normalizer import RunningNormalizer, moments, normalize
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.shards import Shards
from hotlap.algorithms.tensors import numpy_of, summed
from hotlap.algorithms.transfer import frozen_weights
from hotlap.draws import generator
from hotlap.errors import DivergedError, RunError
from hotlap.types import Array, Float32

__all__ = ["Student", "imitation_error", "shifted"]

_LONGEST = 1.0
"""Longer gradients are shortened to this."""


class Student:
    """A network, its optimiser and its normalisers.

    Args:
        settings: its layers, arithmetic and threads; the rest of them is not read.
        observation: what there is to see, by name.
        action: what to answer.
        names: of the observations it sees.
        averaging: share of the running average of its weights, which drives, that a gradient step
            keeps.
        freeze: patterns of the names of layers that do not move.
        seed: of the first weights.
        device: torch's name for where to compute.

    Raises:
        ConfigError: a name is not observed, an image is too small, or nothing is left to learn.
    """

    def __init__(
        self,
        settings: PPOSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        names: tuple[str, ...],
        *,
        averaging: float,
        freeze: tuple[str, ...] = (),
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._action = action
        self._averaging = averaging
        self._device = torch.device(device)
        self._plan = make_plan(settings.network, observation, names, action.size)
        first = initial_weights(self._plan, 0.01, generator(seed))
        self._weights = {k: torch.tensor(v, device=self._device) for k, v in first.items()}
        self.frozen = frozen_weights(freeze, self._weights)
        """Weights that do not move."""
        self._learned = {k: w for k, w in self._weights.items() if k not in self.frozen}
        for weight in self._learned.values():
            weight.requires_grad_()
        self._average = {name: w.detach().clone() for name, w in self._weights.items()}
        self._adam = Adam(list(self._learned.values()))
        self._normalizers = {k: RunningNormalizer(n) for k, n in self._plan.vectors.items()}
        images = [math.prod(image.shape) for image in self._plan.images.values()]
        self._bfloat16 = uses_bfloat16(settings.precision, self._device, self._plan)
        self._shard = shard_rows(images)
        if self._device.type != "cpu":
            self._shard = 1 << 20
        self._shards = Shards(self._device, settings.threads)

    def output(self, observation: Mapping[str, Array]) -> Float32:
        """Run the network: (N, A) means that are not clipped, or logits."""
        inputs = self._inputs(observation)
        rows = len(next(iter(inputs.values())))

        def run(start: int) -> Tensor:
            with torch.no_grad():  # is a thread's own
                part = {name: x[start : start + self._shard] for name, x in inputs.items()}
                return forward(self._plan, self._average, part, bfloat16=self._bfloat16)

        starts = range(0, max(rows, 1), self._shard)
        parts = self._shards.map(run, starts)
        return np.array(torch.cat(parts).cpu().numpy())

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
        inputs = self._inputs(frames)
        label = torch.from_numpy(np.ascontiguousarray(label_BA)).to(self._device)
        count = len(label)

        def gradients(start: int) -> tuple[tuple[Tensor, ...], float]:
            part = {name: x[start : start + self._shard] for name, x in inputs.items()}
            output = forward(self._plan, self._weights, part, bfloat16=self._bfloat16)
            error_B = imitation_error(output, label[start : start + self._shard], self._action)
            loss = error_B.sum() / count
            return torch.autograd.grad(loss, list(self._learned.values())), float(loss.detach())

        starts = range(0, count, self._shard)
        results = self._shards.map(gradients, starts)
        total, loss = list(results[0][0]), results[0][1]
        for more, also in results[1:]:  # in the order of the shards, whoever was first
            torch._foreach_add_(total, more)
            loss += also
        total = summed(peers, total, share)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(total)))
        if not math.isfinite(float(norm)):
            raise DivergedError(
                f"the gradients of the student's minibatch {self._adam.steps + 1} are not finite; "
                "look for broken observations, or lower algorithm.learning_rate"
            )
        self._adam.step(total, learning_rate, ((norm + 1e-6) / _LONGEST).clamp(min=1.0))
        with torch.no_grad():
            keep = min(self._averaging, self.steps / (self.steps + 9))
            weights = [weight.detach() for weight in self._weights.values()]
            torch._foreach_lerp_(list(self._average.values()), weights, 1 - keep)
        return {"imitation_loss": loss, "grad_norm": float(norm)}

    def see(self, observation: Mapping[str, Array], peers: Peers = ALONE) -> None:
        """Take B rows into the means and deviations that numbers (not images) are scaled by."""
        for name, normalizer in self._normalizers.items():
            own = moments(observation[name].reshape(len(observation[name]), -1))
            for part in peers.gather(own)[0]:
                normalizer.merge(part)

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of its weights."""
        return tuple(self._weights)

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self._adam.steps

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        plan = self._plan.model_dump(mode="json")
        description = {"format": 1, "plan": plan, "action": self._action.kind}
        arrays = {name: numpy_of(weight) for name, weight in self._average.items()}
        if self._action.kind == "continuous":
            arrays["log_std"] = np.zeros(self._action.size, np.float32)
        for name, normalizer in self._normalizers.items():
            arrays[f"normalizer.{name}.mean"] = normalizer.mean
            arrays[f"normalizer.{name}.std"] = normalizer.std
        return description, arrays

    def save(self) -> dict[str, Array]:
        """Return everything but the number of steps: weights, optimiser, normalisers."""
        arrays = {name: numpy_of(tensor) for name, tensor in self._tensors().items()}
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
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        for name, normalizer in self._normalizers.items():
            prefix = f"normalizer.{name}."
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            normalizer.restore(own)
        self._adam.steps = steps

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"last.{name}": weight for name, weight in self._weights.items()}
        found |= self._average
        names = list(self._learned)
        found |= {f"adam.mean.{k}": v for k, v in zip(names, self._adam.means, strict=True)}
        found |= {f"adam.square.{k}": v for k, v in zip(names, self._adam.squares, strict=True)}
        return found

    def _inputs(self, observation: Mapping[str, Array]) -> dict[str, Tensor]:
        found = {}
        for name in self._plan.names:
            values = observation[name]
            if name in self._normalizers:
                normalizer = self._normalizers[name]
                flat = values.reshape(len(values), -1)
                values = normalize(flat, normalizer.mean, normalizer.std)
            # a copy in torch's own memory: its alignment, and so the last bit, is always the same
            found[name] = torch.from_numpy(np.ascontiguousarray(values)).to(self._device, copy=True)
        return found


def imitation_error(output_BA: Tensor, label_BA: Tensor, action: ActionSpec) -> Tensor:
    """Return how far answers are from their labels, (B,).

    Continuous actions: the mean square over the numbers of an action. Discrete ones: the
    cross-entropy of the label's probabilities and the answered logits [nat].
    """
    if action.kind == "discrete":
        return -(label_BA * torch.log_softmax(output_BA, dim=1)).sum(dim=1)
    return (output_BA - label_BA).square().mean(dim=1)


def shifted(image_BHWC: Array, down_B: Array, right_B: Array) -> Array:
    """Return images moved down and right by whole pixels; what enters repeats the border.

    Source: Kostrikov, Yarats and Fergus 2021, arXiv:2004.13649, sec. 3 (random shifts).
    """
    height, width = image_BHWC.shape[1:3]
    row = np.clip(np.arange(height) - down_B[:, None], 0, height - 1)
    column = np.clip(np.arange(width) - right_B[:, None], 0, width - 1)
    each = np.arange(len(image_BHWC))[:, None, None]
    return np.asarray(image_BHWC[each, row[:, :, None], column[:, None, :]])
