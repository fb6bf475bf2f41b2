"""A student whose network runs in torch: large cameras, any device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec, shard_rows
from hotlap.algorithms.networks import Adam, forward, initial_weights, uses_bfloat16
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.shards import Shards, cut
from hotlap.algorithms.student import LONGEST, Student
from hotlap.algorithms.tensors import numpy_of, summed
from hotlap.types import Array, Float32

__all__ = ["TorchStudent", "imitation_error"]


class TorchStudent(Student):
    """A student in torch; see `Student`.

    Args:
        device: torch's name for where to compute.
    """

    def __init__(
        self,
        settings: PPOSettings,
        plan: Plan,
        action: ActionSpec,
        averaging: float,
        freeze: tuple[str, ...],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        super().__init__(settings, plan, action, averaging, freeze, seed)

    @staticmethod
    def _drawn(plan: Plan, rng: np.random.Generator) -> dict[str, Float32]:
        return initial_weights(plan, 0.01, rng)

    def _begin(self, settings: PPOSettings, weights: Mapping[str, Float32]) -> None:
        self._weights = {k: torch.tensor(v, device=self._device) for k, v in weights.items()}
        self._learned = {k: w for k, w in self._weights.items() if k not in self.frozen}
        for weight in self._learned.values():
            weight.requires_grad_()
        self._driving = {name: w.detach().clone() for name, w in self._weights.items()}
        self._adam = Adam(list(self._learned.values()))
        images = [math.prod(image.shape) for image in self._plan.images.values()]
        self._bfloat16 = uses_bfloat16(settings.precision, self._device, self._plan)
        self._most = shard_rows(images) if self._device.type == "cpu" else 0
        self._shards = Shards(self._device, settings.threads)

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self._adam.steps

    def output(self, observation: Mapping[str, Array]) -> Float32:
        """Run the network: (N, A) means that are not clipped, or logits."""
        inputs = self._inputs(observation)
        rows = len(next(iter(inputs.values())))

        def run(some: slice) -> Tensor:
            with torch.no_grad():  # is a thread's own
                part = {name: x[some] for name, x in inputs.items()}
                return forward(self._plan, self._driving, part, bfloat16=self._bfloat16)

        parts = self._shards.map(run, cut(rows, self._most))
        return np.array(torch.cat(parts).cpu().numpy())

    def learn(
        self,
        frames: Mapping[str, Array],
        label_BA: Float32,
        learning_rate: float,
        peers: Peers = ALONE,
        share: float = 1.0,
    ) -> dict[str, float]:
        """Take one gradient step towards the labels; see `Student.learn`."""
        inputs = self._inputs(frames)
        label = torch.from_numpy(np.ascontiguousarray(label_BA)).to(self._device)
        count = len(label)

        def gradients(some: slice) -> tuple[tuple[Tensor, ...], float]:
            part = {name: x[some] for name, x in inputs.items()}
            output = forward(self._plan, self._weights, part, bfloat16=self._bfloat16)
            error_B = imitation_error(output, label[some], self._action)
            loss = error_B.sum() / count
            return torch.autograd.grad(loss, list(self._learned.values())), float(loss.detach())

        results = self._shards.map(gradients, cut(count, self._most))
        total, loss = list(results[0][0]), results[0][1]
        for more, also in results[1:]:  # in the order of the shards, whoever was first
            torch._foreach_add_(total, more)
            loss += also
        total = summed(peers, total, share)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(total)))
        self._refuse(float(norm))
        self._adam.step(total, learning_rate, ((norm + 1e-6) / LONGEST).clamp(min=1.0))
        with torch.no_grad():
            weights = [weight.detach() for weight in self._weights.values()]
            torch._foreach_lerp_(list(self._driving.values()), weights, 1 - self._kept)
        return {"imitation_loss": loss, "grad_norm": float(norm)}

    def _average(self) -> dict[str, Float32]:
        return {name: numpy_of(weight) for name, weight in self._driving.items()}

    def _last(self) -> dict[str, Float32]:
        return {name: numpy_of(tensor) for name, tensor in self._learning().items()}

    def _take(self, arrays: Mapping[str, Array], steps: int) -> None:
        with torch.no_grad():
            for name, tensor in (self._driving | self._learning()).items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._adam.steps = steps

    def _learning(self) -> dict[str, Tensor]:
        found = {f"last.{name}": weight for name, weight in self._weights.items()}
        names = list(self._learned)
        found |= {f"adam.mean.{k}": v for k, v in zip(names, self._adam.means, strict=True)}
        found |= {f"adam.square.{k}": v for k, v in zip(names, self._adam.squares, strict=True)}
        return found

    def _inputs(self, observation: Mapping[str, Array]) -> dict[str, Tensor]:
        # copies in torch's own memory: their alignment, and so the last bit, is always the same
        return {
            name: torch.from_numpy(np.ascontiguousarray(values)).to(self._device, copy=True)
            for name, values in self._normalized(observation).items()
        }


def imitation_error(output_BA: Tensor, label_BA: Tensor, action: ActionSpec) -> Tensor:
    """Return how far answers are from their labels, (B,).

    Continuous actions: the mean square over the numbers of an action. Discrete ones: the
    cross-entropy of the label's probabilities and the answered logits [nat].
    """
    if action.kind == "discrete":
        return -(label_BA * torch.log_softmax(output_BA, dim=1)).sum(dim=1)
    return (output_BA - label_BA).square().mean(dim=1)
