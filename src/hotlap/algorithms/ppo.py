"""PPO: proximal policy optimisation, with an actor and a critic apart.

Feed-forward here; with a memory in `recurrent_ppo.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below, shard_rows
from hotlap.algorithms.experience import Scales, match
from hotlap.algorithms.networks import (
    Adam,
    forward,
    initial_weights,
    make_plans,
    numpy_of,
    uses_bfloat16,
)
from hotlap.algorithms.peers import Joining, Layout, summed
from hotlap.algorithms.policy import Plan, choose, normal_quantile
from hotlap.algorithms.returns import gae
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.shards import Shards
from hotlap.algorithms.transfer import Saved, Transfer, begin_with, frozen_weights
from hotlap.draws import generator
from hotlap.errors import ConfigError, DivergedError, RunError
from hotlap.types import Array, Float32

__all__ = ["PPO", "clipped_objective", "value_error"]


class PPO(Joining):
    """Learns a policy from batches; owns weights, optimisers and normalisers.

    Only its owner, the training loop, may call it; it is not safe between threads.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations the policy sees.
        critic: names of the observations the value estimate sees, often more.
        seed: of the first weights and of the shuffles.
        device: torch's name for where to compute.
        where: where the settings were given, for messages.

    Raises:
        ConfigError: a name is not observed, an image is too small, the deviations cross, continuous
            actions are to be drawn from all alike, or nothing is left to learn.
    """

    replay: None = None
    """It learns from the present batch alone."""

    _free: tuple[str, ...] = ("reward.return",)
    """Arrays of a checkpoint that have the length of the last batch, whatever it was."""
    _remembers = False
    """Whether its networks may have a memory."""

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
        if not settings.min_std <= settings.initial_std <= settings.max_std:
            raise ConfigError(
                f"{where}.initial_std: must lie between min_std ({settings.min_std}) and "
                f"max_std ({settings.max_std}) (got {settings.initial_std})"
            )
        if action.kind != "discrete" and max(settings.epsilon_start, settings.epsilon_end) > 0:
            raise ConfigError(
                f"{where}.epsilon_start and epsilon_end: only discrete actions are drawn from all "
                "alike, and these are continuous, which explore by their deviation; leave both 0"
            )
        self.settings = settings
        self._action = action
        self._seed = seed
        self._device = torch.device(device)
        self._shards = Shards(self._device, settings.threads)
        size = action.size
        self._actor, self._critic = make_plans(
            settings.network, observation, actor, critic, (size, 1),
            actions=size if self._remembers else None,
        )  # fmt: skip
        rng = generator(seed)
        weights = {f"actor.{k}": v for k, v in initial_weights(self._actor, 0.01, rng).items()}
        if action.kind == "continuous":
            log_std = np.full(action.size, math.log(settings.initial_std), np.float32)
            weights["actor.log_std"] = log_std
        weights |= {f"critic.{k}": v for k, v in initial_weights(self._critic, 1.0, rng).items()}
        read = {name: observation[name] for name in (*self._actor.names, *self._critic.names)}
        self._scales = Scales(settings, read, self._device)
        self._weights = {k: self._scales.tensor(v).requires_grad_() for k, v in weights.items()}
        self._frozen = frozen_weights(settings.freeze, self._weights, f"{where}.freeze")
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
        self._updates = self._transitions = 0
        self._learning_rate = settings.learning_rate

        plans = (self._actor, self._critic)
        images = [math.prod(i.shape) for plan in plans for i in plan.images.values()]
        self._bfloat16 = uses_bfloat16(settings.precision, self._device, *plans)
        self._shard = shard_rows(images)
        if self._device.type != "cpu":
            self._shard = settings.minibatch

    def counters(self) -> dict[str, Any]:
        """Return what it counts."""
        return {"updates": self._updates, "transitions": self._transitions}

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""
        self._updates = int(counted["updates"])
        self._transitions = int(counted.get("transitions", 0))  # version 0.1 lacks it

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Sample actions for N rows.

        Args:
            observation: by name, (N, ...).
            uniform: numbers in (0, 1) that decide the sample: (N, A) for continuous actions,
                (N, 1 or more) for discrete ones.
            fresh: not used, as it remembers nothing between steps.

        Returns:
            Actions and their log-probability (N,). Continuous actions (N, A) are *not* clipped, and
            the log-probability is theirs; the task clips. Discrete actions are (N,) int64.
        """
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

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Improve the policy from one batch.

        Args:
            batch: experience of the present policy.
            progress: share of the budget that is spent, 0 to 1; the linear schedule reads it.

        Returns:
            Metrics: means over the minibatches, but `learning_rate` and `std` as they are after,
            and `epsilon` as it was driven with.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite.
        """
        settings = self.settings
        # Before the update, so that the networks learn on the scales they will be used with.
        count = self._scales.update(batch, self._peers)
        if settings.schedule == "linear":
            self._learning_rate = settings.learning_rate * (1.0 - min(max(progress, 0.0), 1.0))
        seen = {name: _rows(values) for name, values in batch.observation.items()}
        inputs = self._scales.inputs(seen, dict.fromkeys((*self._actor.names, *self._critic.names)))
        inputs |= self._remembered(batch)
        value_TN, advantage_TN = self._advantages(batch, inputs)

        rows = {
            "action": self._scales.tensor(_rows(batch.action)),
            "log_prob": self._scales.tensor(_rows(batch.log_prob)),
            "value": self._scales.tensor(_rows(value_TN)),
            "target": self._scales.tensor(_rows(value_TN + advantage_TN)),
            "advantage": self._scales.tensor(_rows(advantage_TN)),
        }
        layout = Layout({"value": value_TN, "advantage": advantage_TN}, self._peers)
        value, advantage = layout.whole["value"], layout.whole["advantage"]
        history: list[dict[str, float]] = []
        for epoch in range(settings.epochs):
            rng = generator(self._seed, self._updates << 16 | epoch)
            for everyone, shards in self._minibatches(rng, batch.steps, layout):
                centre = _centre(advantage[everyone]) if settings.normalize_advantages else (0, 1)
                metrics = self._minibatch(inputs, rows, shards, len(everyone), centre)
                # The first minibatch has seen no change of the policy yet: its KL says nothing.
                if settings.schedule == "kl" and history:
                    self._adapt(metrics["kl"])
                history.append(metrics)
        epsilon = self._epsilon
        self._updates += 1
        self._transitions += count
        found = {name: float(np.mean([m[name] for m in history])) for name in history[0]}
        if not math.isfinite(found["grad_norm"]):
            raise DivergedError(
                f"the gradients of update {self._updates} are not finite; look for broken "
                "observations, or lower algorithm.learning_rate"
            )
        spread = float(np.var(value + advantage))
        found["explained_variance"] = 1.0 - float(np.var(advantage)) / spread if spread else 0.0
        found["learning_rate"] = self._learning_rate
        if self._action.kind == "continuous":
            found["std"] = float(self._weights["actor.log_std"].detach().exp().mean())
        if epsilon:
            found["epsilon"] = epsilon
        return found

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself: a JSON-able dictionary, and arrays by name."""
        meta = {
            "format": 1,
            "kind": "ppo",
            **self.counters(),
            "learning_rate": self._learning_rate,
            "of_learning_rate": self.settings.learning_rate,
            "adam_steps": [self._actor_adam.steps, self._critic_adam.steps],
            "plans": {
                "actor": self._actor.model_dump(mode="json"),
                "critic": self._critic.model_dump(mode="json"),
            },
        }
        arrays = {name: numpy_of(tensor) for name, tensor in self._tensors().items()}
        return meta, arrays | self._scales.save()

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        match("ppo", self.save()[1], meta, arrays, free=self._free)
        known = self._weights
        if more := [k for k in arrays if k.startswith(("actor.", "critic.")) and k not in known]:
            raise RunError(
                f"the checkpoint also has {more[0]}, which this network lacks; keep the settings "
                "and observations it was trained with"
            )
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._scales.restore(arrays)
        self.count(meta)
        self._learning_rate, full = float(meta["learning_rate"]), self.settings.learning_rate
        if (before := meta.get("of_learning_rate", full)) != full:  # it was halved: see training
            self._learning_rate *= full / before
        self._learning_rate = min(self._learning_rate, full)
        self._actor_adam.steps, self._critic_adam.steps = map(int, meta["adam_steps"])

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved; see `Learner.adopt`."""
        saved, frozen = (meta, arrays), self._frozen
        return begin_with(self, saved, weights=self._weights, frozen=frozen, driver=driver)

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        description = {
            "format": 1,
            "plan": self._actor.model_dump(mode="json"),
            "action": self._action.kind,
        }
        arrays = {k: numpy_of(v) for k, v in below(self._weights, "actor.").items()}
        for name in self._actor.vectors:
            arrays[f"normalizer.{name}.mean"] = self._scales.normalizers[name].mean
            arrays[f"normalizer.{name}.std"] = self._scales.normalizers[name].std
        return description, arrays

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
        """Yield the steps of each gradient step of an epoch: everybody's, and ours in shards."""
        order = rng.permutation(layout.count)
        for part in np.array_split(order, -(-len(order) // self.settings.minibatch)):
            mine = torch.from_numpy(layout.own(part)).to(self._device)
            yield part, torch.split(mine, self._shard)

    def _answers(self, seen: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Run both networks on a shard, with a graph: (B, A) outputs and (B,) values."""
        return self._forward("actor", seen), self._forward("critic", seen)[:, 0]

    def _advantages(self, batch: Batch, inputs: Mapping[str, Tensor]) -> tuple[Float32, Float32]:
        """Return values (T, N) and advantages (T, N), both in units of scaled reward."""
        names, inputs_of = self._critic.names, self._scales.inputs
        with torch.no_grad():
            value_TN = numpy_of(self._run("critic", inputs)).reshape(batch.reward.shape)
            last_N = numpy_of(self._run("critic", inputs_of(batch.last_observation, names)))
            reached = np.zeros(0, np.float32)
            if batch.ended.any():
                reached = numpy_of(self._run("critic", inputs_of(batch.reached, names)))[:, 0]
        return value_TN, self._gae(batch, value_TN, last_N[:, 0], reached)

    def _gae(self, batch: Batch, value_TN: Float32, last_N: Float32, reached: Float32) -> Float32:
        """Return advantages (T, N) from the values of what was seen, comes next and was reached."""
        next_TN = np.concatenate([value_TN[1:], last_N[None]])
        # An ended step reached its own last state, not the first one of the next episode.
        next_TN[batch.ended] = reached
        return gae(
            batch.reward / np.float32(self._scales.reward),
            value_TN,
            next_TN,
            batch.terminated,
            batch.truncated,
            gamma=self.settings.gamma,
            lam=self.settings.lam,
        )

    def _minibatch(
        self,
        inputs: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        shards: Sequence[Tensor],
        count: int,
        centre: tuple[float, float],
    ) -> dict[str, float]:
        """Take one gradient step over `count` steps of all peers; return what it saw.

        Advantages are taken relative to `centre`, a mean and a deviation.
        """
        settings = self.settings

        def gradients(index: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            seen = {name: values.index_select(0, index) for name, values in inputs.items()}
            mine = {name: values.index_select(0, index) for name, values in rows.items()}
            advantage_B = (mine["advantage"] - centre[0]) / centre[1]
            output, value = self._answers(seen, index)
            log_prob, entropy_B = self._log_prob(output, mine["action"])
            log_ratio = log_prob - mine["log_prob"]
            objective, clipped = clipped_objective(log_ratio, advantage_B, settings.clip)
            error = value_error(value - mine["target"], settings.value_loss)
            if settings.value_clip is not None:
                near = (value - mine["value"]).clamp(-settings.value_clip, settings.value_clip)
                moved = value_error(mine["value"] + near - mine["target"], settings.value_loss)
                error = torch.maximum(error, moved)
            policy_loss, value_loss, entropy = -objective.sum(), error.sum(), entropy_B.sum()
            loss = policy_loss + settings.value_coef * value_loss - settings.entropy * entropy
            found = torch.autograd.grad(loss / count, list(self._learned.values()))
            with torch.no_grad():
                # unbiased, never negative: Schulman 2020, "Approximating KL divergence", k3
                kl = (log_ratio.exp() - 1.0 - log_ratio).sum()
                sums = torch.stack([policy_loss, value_loss, entropy, kl, clipped.sum()])
            return found, sums / count

        results = self._shards.map(gradients, shards)
        total, sums = list(results[0][0]), results[0][1]
        for found, more in results[1:]:  # in the order of the shards, whoever was first
            torch._foreach_add_(total, found)
            sums = sums + more
        *total, sums = summed(self._peers, [*total, sums])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(total)))
        shorten = ((norm + 1e-6) / settings.max_grad_norm).clamp(min=1.0)
        actors = len(self._actor_adam.means)
        critic_rate = self._learning_rate
        if settings.critic_learning_rate is not None:
            critic_rate = settings.critic_learning_rate
            if settings.schedule == "linear":
                critic_rate *= self._learning_rate / settings.learning_rate
        self._actor_adam.step(total[:actors], self._learning_rate, shorten)
        self._critic_adam.step(total[actors:], critic_rate, shorten)
        if "actor.log_std" in self._learned:
            lowest, highest = math.log(settings.min_std), math.log(settings.max_std)
            with torch.no_grad():
                self._weights["actor.log_std"].clamp_(lowest, highest)
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        return dict(zip(names, sums.tolist(), strict=True)) | {"grad_norm": float(norm)}

    def _adapt(self, kl: float) -> None:
        """Slow down when the policy moved too far, hurry when it hardly moved."""
        if kl > 2.0 * self.settings.target_kl:
            self._learning_rate = max(self._learning_rate / 1.5, self.settings.learning_rate / 100)
        elif kl < 0.5 * self.settings.target_kl:
            # Never above the start: the critic shares the step size, and does not bear 1e-2.
            self._learning_rate = min(self._learning_rate * 1.5, self.settings.learning_rate)

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

    @property
    def _epsilon(self) -> float:
        """The share of random actions, the same from one update to the next."""
        settings = self.settings
        share = min(1.0, self._transitions / settings.epsilon_steps)
        return settings.epsilon_start + share * (settings.epsilon_end - settings.epsilon_start)

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

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor that learns or remembers, by name."""
        found = dict(self._weights)
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


def _centre(advantage: Float32) -> tuple[float, float]:
    """Return mean and deviation of the advantages of a minibatch; of one alone 0 and 1."""
    if len(advantage) < 2:
        return 0.0, 1.0
    given = torch.from_numpy(advantage)
    return float(given.mean()), float(given.std()) + 1e-8


def _rows(values_TN: Array) -> Array:
    return values_TN.reshape(-1, *values_TN.shape[2:])
