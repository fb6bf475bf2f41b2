"""PPO whose networks run in torch: cameras, wide layers, and any device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below, shard_rows
from hotlap.algorithms.networks import Adam, forward, initial_weights, uses_bfloat16
from hotlap.algorithms.peers import Layout
from hotlap.algorithms.policy import Plan, choose
from hotlap.algorithms.ppo import PPO
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.shards import Shards
from hotlap.algorithms.tensors import JoiningTensors, TensorScales, numpy_of, summed
from hotlap.draws import normal_quantile
from hotlap.types import Array, Float32

__all__ = ["TorchPPO", "clipped_objective", "value_error"]


class TorchPPO(JoiningTensors, PPO):
    """PPO with networks in torch; see `PPO`.

    Args:
        device: torch's name for where to compute.
    """

    def __init__(
        self,
        settings: PPOSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        critic: tuple[str, ...],
        *,
        seed: int,
        device: str = "cpu",
        where: str = "algorithm",
    ) -> None:
        self._device = torch.device(device)
        self._shards = Shards(self._device, settings.threads)
        super().__init__(settings, observation, action, actor, critic, seed=seed, where=where)

    @staticmethod
    def _drawn(plan: Plan, gain: float, rng: np.random.Generator) -> dict[str, Float32]:
        return initial_weights(plan, gain, rng)

    def _begin(self, weights: Mapping[str, Float32], read: Mapping[str, ObservationSpec]) -> None:
        settings = self.settings
        self._scales = TensorScales(settings, read, self._device)
        self._weights = {k: self._scales.tensor(v).requires_grad_() for k, v in weights.items()}
        for name in self._frozen:
            self._weights[name].requires_grad_(False)
        self._learned = {k: w for k, w in self._weights.items() if k not in self._frozen}
        self._actor_adam, self._critic_adam = (
            Adam(
                [w for k, w in self._learned.items() if k.startswith(part)],
                epsilon=settings.adam_epsilon,
            )
            for part in ("actor.", "critic.")
        )
        plans = (self._actor, self._critic)
        images = [math.prod(i.shape) for plan in plans for i in plan.images.values()]
        self._bfloat16 = uses_bfloat16(settings.precision, self._device, *plans)
        self._shard = shard_rows(images)
        if self._device.type != "cpu":
            self._shard = settings.minibatch

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Sample actions for N rows; see `PPO.act`."""
        with torch.no_grad():
            return self._sample(
                self._run("actor", self._scales.inputs(observation, self._actor.names)), uniform
            )

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""
        with torch.no_grad():
            output = self._run("actor", self._scales.inputs(observation, self._actor.names))
        return self._best(output)

    def value(self, observation: Mapping[str, Array]) -> Float32:
        """Return the critic's estimate of the discounted return of N rows, in units of reward."""
        with torch.no_grad():
            found = self._run("critic", self._scales.inputs(observation, self._critic.names))[:, 0]
        return numpy_of(found) * np.float32(self._scales.reward)

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        seen = {name: _rows(values) for name, values in batch.observation.items()}
        names = dict.fromkeys((*self._actor.names, *self._critic.names))
        return self._scales.inputs(seen, names) | self._remembered(batch)

    def _hold(self, values_TN: Array) -> Tensor:
        return self._scales.tensor(_rows(values_TN))

    def _held(self) -> dict[str, Float32]:
        return {name: numpy_of(weight) for name, weight in self._weights.items()}

    def _moments(self) -> dict[str, Float32]:
        return {name: numpy_of(moment) for name, moment in self._remembered_by_adam().items()}

    def _take(self, arrays: Mapping[str, Array], adam_steps: Sequence[int]) -> None:
        with torch.no_grad():
            for name, tensor in (self._weights | self._remembered_by_adam()).items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._actor_adam.steps, self._critic_adam.steps = adam_steps

    def _adam_steps(self) -> list[int]:
        return [self._actor_adam.steps, self._critic_adam.steps]

    def _std(self) -> float:
        return float(self._weights["actor.log_std"].detach().exp().mean())

    def _sample(self, output: Tensor, uniform: Array) -> tuple[Array, Float32]:
        """Return actions and their log-probabilities, decided by uniform numbers."""
        if self._action.kind == "discrete":
            logits = self._mixed(output).cpu().numpy()
            action = torch.from_numpy(choose(logits, uniform)).to(self._device)
        else:
            noise = torch.from_numpy(normal_quantile(uniform).astype(np.float32))
            std = self._weights["actor.log_std"].exp()
            action = output + std * noise.to(self._device)
        log_prob, _ = self._log_prob(output, action)
        return action.cpu().numpy(), log_prob.cpu().numpy()

    def _best(self, output: Tensor) -> Array:
        """Return the best action."""
        found = output.cpu().numpy()
        if self._action.kind == "discrete":
            return np.asarray(found.argmax(axis=1))
        return np.asarray(np.clip(found, np.float32(-1.0), np.float32(1.0)))

    def _remembered(self, batch: Batch) -> dict[str, Tensor]:
        """Return what networks read besides observations, as rows; a memory has such."""
        return {}

    def _minibatches(
        self, rng: np.random.Generator, steps: int, layout: Layout
    ) -> Iterator[tuple[Array, Sequence[Tensor]]]:
        """Yield them with ours in shards."""
        order = rng.permutation(layout.count)
        for part in np.array_split(order, -(-len(order) // self.settings.minibatch)):
            mine = torch.from_numpy(layout.own(part)).to(self._device)
            yield part, torch.split(mine, self._shard)

    def _answers(self, seen: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Run both networks on a shard, with a graph: (B, A) outputs and (B,) values."""
        return self._forward("actor", seen), self._forward("critic", seen)[:, 0]

    def _advantages(self, batch: Batch, inputs: Mapping[str, Tensor]) -> tuple[Float32, Float32]:
        names, inputs_of = self._critic.names, self._scales.inputs
        with torch.no_grad():
            value_TN = numpy_of(self._run("critic", inputs)).reshape(batch.reward.shape)
            last_N = numpy_of(self._run("critic", inputs_of(batch.last_observation, names)))
            reached = np.zeros(0, np.float32)
            if batch.ended.any():
                reached = numpy_of(self._run("critic", inputs_of(batch.reached, names)))[:, 0]
        return value_TN, self._gae(batch, value_TN, last_N[:, 0], reached)

    def _minibatch(
        self,
        inputs: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        mine: Sequence[Tensor],
        count: int,
        centre: tuple[float, float],
    ) -> dict[str, float]:
        settings = self.settings

        def gradients(index: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            seen = {name: values.index_select(0, index) for name, values in inputs.items()}
            held = {name: values.index_select(0, index) for name, values in rows.items()}
            advantage_B = (held["advantage"] - centre[0]) / centre[1]
            output, value = self._answers(seen, index)
            log_prob, entropy_B = self._log_prob(output, held["action"])
            log_ratio = log_prob - held["log_prob"]
            objective, clipped = clipped_objective(log_ratio, advantage_B, settings.clip)
            error = value_error(value - held["target"], settings.value_loss)
            if settings.value_clip is not None:
                near = (value - held["value"]).clamp(-settings.value_clip, settings.value_clip)
                moved = value_error(held["value"] + near - held["target"], settings.value_loss)
                error = torch.maximum(error, moved)
            policy_loss, value_loss, entropy = -objective.sum(), error.sum(), entropy_B.sum()
            loss = policy_loss + settings.value_coef * value_loss - settings.entropy * entropy
            found = torch.autograd.grad(loss / count, list(self._learned.values()))
            with torch.no_grad():
                # unbiased, never negative: Schulman 2020, "Approximating KL divergence", k3
                kl = (log_ratio.exp() - 1.0 - log_ratio).sum()
                sums = torch.stack([policy_loss, value_loss, entropy, kl, clipped.sum()])
            return found, sums / count

        results = self._shards.map(gradients, mine)
        total, sums = list(results[0][0]), results[0][1]
        for found, more in results[1:]:  # in the order of the shards, whoever was first
            torch._foreach_add_(total, found)
            sums = sums + more
        *total, sums = summed(self._peers, [*total, sums])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(total)))
        shorten = ((norm + 1e-6) / settings.max_grad_norm).clamp(min=1.0)
        actors = len(self._actor_adam.means)
        actor_rate, critic_rate = self._rates()
        self._actor_adam.step(total[:actors], actor_rate, shorten)
        self._critic_adam.step(total[actors:], critic_rate, shorten)
        if "actor.log_std" in self._learned:
            lowest, highest = math.log(settings.min_std), math.log(settings.max_std)
            with torch.no_grad():
                self._weights["actor.log_std"].clamp_(lowest, highest)
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        return dict(zip(names, sums.tolist(), strict=True)) | {"grad_norm": float(norm)}

    def _log_prob(self, output: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B,) and entropies (B,)."""
        if self._action.kind == "discrete":
            log_prob = torch.log_softmax(self._mixed(output), dim=1)
            entropy = -(log_prob.exp() * log_prob).sum(dim=1)
            return log_prob.gather(1, action[:, None])[:, 0], entropy
        log_std = self._weights["actor.log_std"]
        z = (action - output) * torch.exp(-log_std)
        constant = 0.5 * math.log(2.0 * math.pi)
        log_prob = (-0.5 * z.square() - log_std - constant).sum(dim=1)
        return log_prob, (log_std + 0.5 + constant).sum().expand(len(output))

    def _mixed(self, logits: Tensor) -> Tensor:
        """Return the logits of what drives: the policy, or now and then any action.

        The mixture itself is what PPO improves, so that its ratios are of what was driven.
        """
        epsilon = self._epsilon
        if not epsilon:
            return logits
        share = epsilon / logits.shape[1]
        return torch.log((1.0 - epsilon) * torch.softmax(logits, dim=1) + share)

    def _run(self, network: Literal["actor", "critic"], inputs: Mapping[str, Tensor]) -> Tensor:
        """Run a network without gradients, shard by shard."""
        names = (self._actor if network == "actor" else self._critic).names
        rows = len(inputs[names[0]])
        shards = [
            {name: inputs[name][start : start + self._shard] for name in names}
            for start in range(0, max(rows, 1), self._shard)
        ]

        def run(shard: Mapping[str, Tensor]) -> Tensor:
            with torch.no_grad():  # is a thread's own, so that the pool's threads need it too
                return self._forward(network, shard)

        return torch.cat(self._shards.map(run, shards))

    def _forward(self, network: Literal["actor", "critic"], inputs: Mapping[str, Tensor]) -> Tensor:
        plan: Plan = self._actor if network == "actor" else self._critic
        weights = below(self._weights, f"{network}.")
        return forward(plan, weights, inputs, bfloat16=self._bfloat16)

    def _remembered_by_adam(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for adam, kind in ((self._actor_adam, "actor."), (self._critic_adam, "critic.")):
            names = [name for name in self._learned if name.startswith(kind)]
            found |= {f"adam.mean.{k}": v for k, v in zip(names, adam.means, strict=True)}
            found |= {f"adam.square.{k}": v for k, v in zip(names, adam.squares, strict=True)}
        return found


def clipped_objective(log_ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return PPO's objective (B,), to be maximised, and which ratios lie outside the clip (B,).

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return torch.minimum(ratio * advantage, clipped * advantage), (ratio - 1.0).abs() > clip


def value_error(difference: Tensor, kind: Literal["mse", "huber"]) -> Tensor:
    """Return the loss (B,) of value estimates that are off by `difference`."""
    if kind == "mse":
        return difference.square()
    return functional.huber_loss(difference, torch.zeros_like(difference), reduction="none")


def _rows(values_TN: Array) -> Array:
    return values_TN.reshape(-1, *values_TN.shape[2:])
