"""DQN and what grew from it, and PQN: learners that estimate what each choice is worth."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, shard_rows
from hotlap.algorithms.critics import quantile_huber
from hotlap.algorithms.experience import Experience, Minibatch
from hotlap.algorithms.networks import (
    Adam,
    forward,
    initial_weights,
    uses_bfloat16,
)
from hotlap.algorithms.normalizer import RunningNormalizer
from hotlap.algorithms.peers import Layout, Peers
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.returns import q_lambda
from hotlap.algorithms.scales import match
from hotlap.algorithms.settings import DQNSettings, PQNSettings, check_actions
from hotlap.algorithms.shards import Shards, cut, settle
from hotlap.algorithms.tensors import JoiningTensors, TensorScales, numpy_of, summed
from hotlap.algorithms.transfer import Saved, Transfer, begin_with, frozen_weights
from hotlap.draws import generator
from hotlap.errors import ConfigError, DivergedError
from hotlap.types import Array, Float32

__all__ = ["DQN", "PQN", "QNetwork", "c51_projection", "explore"]


class QNetwork:
    """Layers that say of each choice what it is worth, by K numbers.

    A dueling network is one whose last layer is twice as wide: one half says what the state is
    worth, the other what each choice adds. Its head is put together from both, so that it drives
    as any other network does.
    """

    def __init__(
        self,
        settings: DQNSettings | PQNSettings,
        observation: Mapping[str, ObservationSpec],
        names: tuple[str, ...],
        choices: int,
        device: torch.device,
    ) -> None:
        self.choices = choices
        self.dueling = isinstance(settings, DQNSettings) and settings.dueling
        self.head = settings.head if isinstance(settings, DQNSettings) else "mean"
        self.parts = 1
        if isinstance(settings, DQNSettings) and self.head != "mean":
            self.parts = settings.atoms
        self.range = (-1.0, 1.0)
        if isinstance(settings, DQNSettings):
            self.range = (settings.value_low, settings.value_high)
        plan = make_plan(settings.network, observation, names, choices * self.parts)
        hidden = plan.hidden
        if self.dueling:
            if not hidden:
                raise ConfigError(
                    "algorithm.dueling: two streams need a layer to part in, and the network has "
                    "none; give algorithm.network.mlp one, or choose dueling=false"
                )
            hidden = (*hidden[:-1], 2 * hidden[-1])
        change = {"activation": "relu", "layer_norm": settings.layer_norm, "hidden": hidden}
        self.plan: Plan = plan.model_copy(update=change)
        self._bfloat16 = uses_bfloat16(settings.precision, device, plan)
        self.support = torch.linspace(*self.range, self.parts, device=device)

    def initial(self, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw first weights; all choices begin nearly alike."""
        found = initial_weights(self.plan, 0.01, rng)
        if self.dueling:
            half = found["head.weight"].shape[1] // 2
            found["advantage.weight"] = found.pop("head.weight")[:, half:].copy()
            found["advantage.bias"] = found.pop("head.bias")
            found["value.weight"] = np.zeros((self.parts, half), np.float32)
            found["value.bias"] = np.zeros(self.parts, np.float32)
        return found

    def plain(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights with one head.

        Q = V + A - mean of A, which is linear (Wang et al. 2016, eq. 9).
        """
        if not self.dueling:
            return dict(weights)
        heads = ("advantage.", "value.")
        found = {k: v for k, v in weights.items() if not k.startswith(heads)}
        shape = (self.choices, self.parts, -1)

        def centred(values: Tensor) -> Tensor:
            values = values.reshape(shape)
            return values - values.mean(dim=0)

        advantage, value = centred(weights["advantage.weight"]), weights["value.weight"]
        joined = torch.cat([value.expand_as(advantage), advantage], dim=2)
        found["head.weight"] = joined.flatten(0, 1)
        bias = centred(weights["advantage.bias"]) + weights["value.bias"][:, None]
        found["head.bias"] = bias.flatten()
        return found

    def __call__(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return (B, A, K): means, logits of the values in `support`, or quantiles."""
        output = forward(self.plan, self.plain(weights), inputs, bfloat16=self._bfloat16)
        return output.reshape(len(output), self.choices, self.parts)

    def mean(self, output_BAK: Tensor) -> Tensor:
        """Return what each choice is worth on average, (B, A)."""
        if self.head == "c51":
            return torch.softmax(output_BAK, dim=2) @ self.support
        return output_BAK.mean(dim=2)

    def policy_state(
        self, weights: Mapping[str, Tensor], normalizers: Mapping[str, RunningNormalizer]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `NumpyPolicy` drives from: one head, and quantiles as their mean."""
        plan, atoms = self.plan, None
        arrays = {k: numpy_of(v) for k, v in self.plain(weights).items()}
        if self.head == "c51":
            atoms = [*self.range, self.parts]
        elif self.parts > 1:
            shape = (self.choices, self.parts, -1)
            arrays["head.weight"] = arrays["head.weight"].reshape(shape).mean(axis=1)
            arrays["head.bias"] = arrays["head.bias"].reshape(shape).mean(axis=(1, 2))
            plan = plan.model_copy(update={"outputs": self.choices})
        for name in plan.vectors:
            arrays[f"normalizer.{name}.mean"] = normalizers[name].mean
            arrays[f"normalizer.{name}.std"] = normalizers[name].std
        description = {
            "format": 1,
            "plan": plan.model_dump(mode="json"),
            "action": "discrete",
            "atoms": atoms,
            "worths": True,
        }
        return description, arrays


def explore(best_N: Array, choices: int, epsilon_N: Array, uniform_N1: Array) -> Array:
    """Return the best choice, or with probability epsilon any of them; one number decides both."""
    share = uniform_N1[:, 0] / np.maximum(epsilon_N, 1e-12)
    chance = np.minimum((share * choices).astype(np.int64), choices - 1)
    return np.asarray(np.where(share < 1.0, chance, best_N))


def _epsilon(
    settings: DQNSettings | PQNSettings,
    transitions: int,
    rows: int,
    peers: Peers,
    *,
    adopted: bool,
) -> Array:
    """Return how often each row explores; with another's driver as little as at the end."""
    if settings.epsilon_ladder:
        # Horgan et al. 2018: epsilon^(1 + alpha i / (N - 1)) with epsilon 0.4 and alpha 7
        return peers.spread(0.4 ** np.linspace(1.0, 8.0, peers.all(rows)), rows)
    if adopted:
        return np.full(rows, settings.epsilon_end)
    share = min(1.0, transitions / settings.epsilon_steps)
    fall = settings.epsilon_start - settings.epsilon_end
    return np.full(rows, settings.epsilon_start - share * fall)


def c51_projection(
    probability_BK: Tensor, reward_B: Tensor, discount_B: Tensor, support_K: Tensor
) -> Tensor:
    """Return (B, K): the distribution of r + discount Z on the values that there are.

    Each value's probability goes to its two neighbours, the more the nearer.

    Source: Bellemare et al. 2017, arXiv:1707.06887, eq. 7.
    """
    low, high, gap = support_K[0], support_K[-1], support_K[1] - support_K[0]
    moved_BK = (reward_B[:, None] + discount_B[:, None] * support_K).clamp(low, high)
    near_BKJ = 1.0 - (moved_BK[:, None, :] - support_K[:, None]).abs() / gap
    return (near_BKJ.clamp(min=0.0) @ probability_BK[:, :, None])[:, :, 0]


class _QLearner(JoiningTensors, ABC):
    """What DQN and PQN share: a network that drives, and how it is kept."""

    def __init__(
        self,
        settings: DQNSettings | PQNSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        *,
        seed: int,
        device: str,
    ) -> None:
        check_actions(settings, discrete=action.kind == "discrete")
        self._kind = settings.kind
        self._choices = action.size
        self._seed = seed
        self._device = torch.device(device)
        if self._device.type == "cpu":
            settle()
        self._network = QNetwork(settings, observation, actor, action.size, self._device)
        self._read = {name: observation[name] for name in self._network.plan.names}
        self._scales = TensorScales(settings, self._read, self._device)
        rng = generator(seed)
        first = self._network.initial(rng)
        self._weights = {k: self._scales.tensor(v).requires_grad_() for k, v in first.items()}
        self._frozen = frozen_weights(settings.freeze, self._weights)
        for name in self._frozen:
            self._weights[name].requires_grad_(False)
        self._learned = {k: w for k, w in self._weights.items() if k not in self._frozen}
        self._adam = Adam(list(self._learned.values()))

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best choice for N rows: (N,) int64."""
        return np.asarray(self.worth(observation).argmax(axis=1))

    def worth(self, observation: Mapping[str, Array]) -> Float32:
        """Return what each choice is worth, (N, A), in units of reward."""
        with torch.no_grad():
            inputs = self._scales.inputs(observation, self._read)
            found = self._network.mean(self._network(self._weights, inputs))
        return numpy_of(found) * np.float32(self._scales.reward)

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        return self._network.policy_state(self._weights, self._scales.normalizers)

    def _descend(
        self, own: Sequence[Tensor], learning_rate: float, longest: float, share: float = 1.0
    ) -> Tensor:
        """Take one step of Adam against a gradient; return its length.

        It is that of a mean over our `share` of the samples that all peers have.
        """
        gradients = summed(self._peers, own, share)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._adam.step(gradients, learning_rate, ((norm + 1e-6) / longest).clamp(min=1.0))
        return norm

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor that learns or remembers, by name."""
        found = dict(self._weights)
        found |= dict(zip((f"adam.mean.{k}" for k in self._learned), self._adam.means, strict=True))
        squares = self._adam.squares
        return found | dict(zip((f"adam.square.{k}" for k in self._learned), squares, strict=True))

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself but a replay: a JSON-able dictionary, and arrays by name."""
        meta = {"format": 1, "kind": self._kind, "adam_steps": self._adam.steps}
        arrays = {name: numpy_of(tensor) for name, tensor in self._tensors().items()}
        return meta | self.counters(), arrays | self._scales.save()

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        match(self._kind, self.save()[1], meta, arrays, free=("reward.return",))
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._scales.restore(arrays)
        self._adam.steps = int(meta["adam_steps"])
        self.count(meta)

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved; see `Learner.adopt`.

        A replay begins empty. Where the whole driver was taken, it explores as little as at the end
        from the first step on.
        """
        saved, frozen = (meta, arrays), self._frozen
        return begin_with(self, saved, weights=self._weights, frozen=frozen, driver=driver)

    @abstractmethod
    def counters(self) -> dict[str, Any]:
        """Return what it counts, beside weights and optimiser."""

    @abstractmethod
    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""


class DQN(_QLearner):
    """Learns what choices are worth from transitions it remembers.

    Only its owner, the training loop, may call it; it is not safe between threads.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations the network sees; it is critic and driver in one.
        critic: not used.
        seed: of the first weights and of every draw.
        device: torch's name for where to compute.

    Raises:
        ConfigError: actions are continuous, a name is not observed, an image is too small, or the
            range of returns is empty.
    """

    def __init__(
        self,
        settings: DQNSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        critic: tuple[str, ...],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        if settings.value_low >= settings.value_high:
            raise ConfigError(
                f"algorithm.value_low: must lie below value_high ({settings.value_high}) "
                f"(got {settings.value_low})"
            )
        super().__init__(settings, observation, action, actor, seed=seed, device=device)
        self.settings = settings
        self._experience = Experience(
            settings, self._read, action, self._scales, alpha=settings.priority, seed=seed
        )
        self._targets = {k: v.detach().clone() for k, v in self._weights.items()}
        self._adopted = False
        images = [math.prod(image.shape) for image in self._network.plan.images.values()]
        self._most = shard_rows(images) if images and self._device.type == "cpu" else 0
        self._shards = Shards(self._device, 0)

    def join(self, peers: Peers) -> None:
        """Learn together with others from now on; see `Learner.join`."""
        super().join(peers)
        self._experience.peers = peers

    @property
    def replay(self) -> Replay:
        """What it remembers, which a training keeps apart from its checkpoints."""
        return self._experience.replay

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Choose the best, or with probability epsilon any; at random until the replay is warm."""
        rows = len(uniform)
        epsilon = self._epsilon(rows)
        best = np.zeros(rows, np.int64) if epsilon.min() >= 1 else self.greedy(observation)
        return explore(best, self._choices, epsilon, uniform), np.zeros(rows, np.float32)

    def _epsilon(self, rows: int) -> Array:
        if self._experience.warming_up and not self._adopted:
            return np.ones(rows)
        learnable = max(0, self._experience.transitions - self.settings.warmup)
        return _epsilon(self.settings, learnable, rows, self._peers, adopted=self._adopted)

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Remember a batch, and take the gradient steps that are then due.

        Args:
            batch: what `act` led to since the last update.
            progress: share of the budget that is spent; `priority_beta` grows with it.

        Returns:
            Metrics: means over the gradient steps, but `replay`, `gradient_steps` and `epsilon`, as
            they are after; without gradient steps only these three.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite.
        """
        settings = self.settings
        self._experience.add(batch)
        beta = settings.priority_beta + (1.0 - settings.priority_beta) * progress
        history: dict[str, list[Tensor]] = {}
        surprises: list[tuple[Array, Tensor]] = []
        for step, minibatch in enumerate(
            self._experience.minibatches(beta), self._experience.gradient_steps + 1
        ):
            gradients, loss, seen = self._gradients(minibatch)
            share = len(minibatch.index) / settings.minibatch
            norm = self._descend(gradients, settings.learning_rate, settings.max_grad_norm, share)
            means = {"q_loss": loss, "grad_norm": norm}
            means |= {"td_error": seen["td_error"].mean(), "value": seen["value"].mean()}
            for name, value in means.items():
                history.setdefault(name, []).append(value)
            surprises.append((minibatch.index, seen["td_error"]))
            if step % settings.target_every == 0:
                with torch.no_grad():
                    torch._foreach_copy_(list(self._targets.values()), list(self._weights.values()))
        if settings.priority and surprises:
            index = np.concatenate([one for one, _ in surprises])
            surprise = numpy_of(torch.cat([error for _, error in surprises]))
            self.replay.prioritize(index, surprise + np.float32(1e-3))
        found = {name: float(torch.stack(values).mean()) for name, values in history.items()}
        if not all(map(math.isfinite, found.values())):
            raise DivergedError(
                f"the gradients of step {self._experience.gradient_steps} are not finite; look "
                "for broken observations, or lower algorithm.learning_rate"
            )
        found["replay"] = float(len(self.replay))
        found["gradient_steps"] = float(self._experience.gradient_steps)
        found["epsilon"] = float(self._epsilon(batch.rows).mean())
        return found

    def _gradients(
        self, minibatch: Minibatch
    ) -> tuple[Sequence[Tensor], Tensor, dict[str, Tensor]]:
        """Return the gradients of the loss, the loss, and by row what `_loss` says besides.

        Rows that see pictures are computed in parts, side by side.
        """
        rows, learned = len(minibatch.index), list(self._learned.values())

        def of(some: slice) -> tuple[Sequence[Tensor], Tensor, dict[str, Tensor]]:
            loss, seen = self._loss(minibatch.part(some))
            loss = loss * ((some.stop - some.start) / max(1, rows))
            return torch.autograd.grad(loss, learned), loss.detach(), seen

        parts = cut(rows, self._most)
        if len(parts) == 1:
            return of(parts[0])
        gradients, losses, seen = zip(*self._shards.map(of, parts), strict=True)
        total = list(gradients[0])
        for more in gradients[1:]:  # in the order of the parts, whoever was first
            torch._foreach_add_(total, more)
        joined = {name: torch.cat([one[name] for one in seen]) for name in seen[0]}
        return total, torch.stack(losses).sum(), joined

    def _loss(self, minibatch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and by row how far off the network is and what it says."""
        network, rows = self._network, torch.arange(len(minibatch.reward), device=self._device)
        with torch.no_grad():
            ahead = network(self._targets, minibatch.reached)
            judge = network(self._weights, minibatch.reached) if self.settings.double else ahead
            best = network.mean(judge).argmax(dim=1)
            next_BK = ahead[rows, best]
        said_BK = network(self._weights, minibatch.observation)[rows, minibatch.action]
        reward, discount = minibatch.reward, minibatch.discount
        with torch.no_grad():
            value = network.mean(said_BK[:, None])[:, 0]
            moved = reward + discount * network.mean(next_BK[:, None])[:, 0]
            seen = {"td_error": (moved - value).abs(), "value": value}
        if network.head == "c51":
            chance = torch.softmax(next_BK, dim=1)
            target = c51_projection(chance, reward, discount, network.support)
            by_row = -(target * torch.log_softmax(said_BK, dim=1)).sum(dim=1)
            return (minibatch.weight * by_row).mean(), seen
        target = reward[:, None] + discount[:, None] * next_BK
        if network.head == "quantile":
            return quantile_huber(said_BK[None], target, minibatch.weight)[0], seen
        by_row = functional.huber_loss(said_BK[:, 0], target[:, 0], reduction="none")
        return (minibatch.weight * by_row).mean(), seen

    def _tensors(self) -> dict[str, Tensor]:
        return super()._tensors() | {f"target.{k}": v for k, v in self._targets.items()}

    def counters(self) -> dict[str, Any]:
        """Return what it counts."""
        return {**self._experience.save(), "adopted": self._adopted}

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""
        self._experience.restore(counted)
        self._adopted = bool(counted["adopted"])


class PQN(_QLearner):
    """Learns what choices are worth from the present batch alone, without a target network.

    Only its owner, the training loop, may call it; it is not safe between threads. Arguments and
    errors are those of `DQN`.
    """

    replay: None = None
    """It learns from the present batch alone."""

    def __init__(
        self,
        settings: PQNSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        critic: tuple[str, ...],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        super().__init__(settings, observation, action, actor, seed=seed, device=device)
        self.settings = settings
        self._transitions = self._updates = 0
        self._adopted = False

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Choose the best, or with probability epsilon any."""
        chosen = explore(
            self.greedy(observation), self._choices, self._epsilon(len(uniform)), uniform
        )
        return chosen, np.zeros(len(uniform), np.float32)

    def _epsilon(self, rows: int) -> Array:
        return _epsilon(self.settings, self._transitions, rows, self._peers, adopted=self._adopted)

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Learn from a batch.

        Args:
            batch: experience of the present policy.
            progress: share of the budget that is spent; the linear schedule reads it.

        Returns:
            Metrics: means over the minibatches, besides `learning_rate` and `epsilon`.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite.
        """
        settings, network = self.settings, self._network
        count = self._scales.update(batch, self._peers)
        rate = settings.learning_rate
        if settings.schedule == "linear":
            rate *= 1.0 - min(max(progress, 0.0), 1.0)
        own = batch.reward.size
        inputs = self._scales.inputs(
            {k: v.reshape(own, *v.shape[2:]) for k, v in batch.observation.items()}, self._read
        )
        action = self._scales.tensor(batch.action.reshape(own))
        target_TN = self._returns(batch, inputs)
        layout = Layout({"target": target_TN}, self._peers)
        target = self._scales.tensor(target_TN.reshape(own))
        history: list[Tensor] = []
        parts = -(-layout.count // settings.minibatch)
        for epoch in range(settings.epochs):
            rng = generator(self._seed, self._updates << 16 | epoch)
            for part in np.array_split(rng.permutation(layout.count), parts):
                index = torch.from_numpy(layout.own(part)).to(self._device)
                seen = {name: values.index_select(0, index) for name, values in inputs.items()}
                output = network(self._weights, seen)[:, :, 0]
                said = output.gather(1, action[index, None])[:, 0]
                error = said - target[index]
                loss = 0.5 * error.square().sum() / len(part)
                slopes = torch.autograd.grad(loss, list(self._learned.values()))
                norm = self._descend(slopes, rate, settings.max_grad_norm)
                sums = [loss.detach() * len(part), error.detach().abs().sum(), said.detach().sum()]
                history.append(torch.stack([norm, *(one / max(1, len(index)) for one in sums)]))
        self._updates += 1
        self._transitions += count
        means = torch.stack(history).mean(dim=0).tolist()
        found = dict(zip(("grad_norm", "q_loss", "td_error", "value"), means, strict=True))
        if not all(map(math.isfinite, found.values())):
            raise DivergedError(
                f"the gradients of update {self._updates} are not finite; look for broken "
                "observations, or lower algorithm.learning_rate"
            )
        found["learning_rate"] = rate
        found["epsilon"] = float(self._epsilon(batch.rows).mean())
        return found

    def _returns(self, batch: Batch, inputs: Mapping[str, Tensor]) -> Float32:
        """Return the targets (T, N), in units of scaled reward."""
        shape = batch.reward.shape
        with torch.no_grad():
            best = self._network(self._weights, inputs).amax(dim=(1, 2))
            best_TN = numpy_of(best).reshape(shape)
            last = self._scales.inputs(batch.last_observation, self._read)
            last_N = numpy_of(self._network(self._weights, last).amax(dim=(1, 2)))
            next_TN = np.concatenate([best_TN[1:], last_N[None]])
            if batch.ended.any():
                reached = self._scales.inputs(batch.reached, self._read)
                next_TN[batch.ended] = numpy_of(
                    self._network(self._weights, reached).amax(dim=(1, 2))
                )
        return q_lambda(
            batch.reward / np.float32(self._scales.reward),
            next_TN,
            batch.terminated,
            batch.truncated,
            gamma=self.settings.gamma,
            lam=self.settings.lam,
        )

    def counters(self) -> dict[str, Any]:
        """Return what it counts."""
        found = {"transitions": self._transitions, "updates": self._updates}
        return found | {"adopted": self._adopted}

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""
        self._transitions, self._updates = int(counted["transitions"]), int(counted["updates"])
        self._adopted = bool(counted["adopted"])
