"""DDPG, TD3, SAC and QR-SAC: actors that climb critics, which learn from a replay.

One family. They differ in how an action is chosen (`act`, `_reach`), in what a target takes off
(`_target`) and in what the actor climbs (`_actor_step`); the rest is common. SAC also chooses among
discrete actions: its critics then say what every choice is worth, and expectations over the choices
stand where samples were (Christodoulou 2019, arXiv:1910.07207).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.algorithms.critics import Critics, quantile_huber, squared_error
from hotlap.algorithms.experience import Experience, Minibatch
from hotlap.algorithms.networks import (
    Adam,
    forward,
    initial_weights,
    uses_bfloat16,
)
from hotlap.algorithms.peers import Peers
from hotlap.algorithms.plans import joined, make_plans
from hotlap.algorithms.policy import LOG_STD, Plan, choose
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.scales import match
from hotlap.algorithms.settings import (
    DDPGSettings,
    QRSACSettings,
    RDPGSettings,
    SACSettings,
    TD3Settings,
    check_actions,
)
from hotlap.algorithms.shards import settle
from hotlap.algorithms.tensors import JoiningTensors, TensorScales, numpy_of, summed
from hotlap.algorithms.transfer import Saved, Transfer, begin_with, frozen_weights
from hotlap.draws import generator, normal_quantile
from hotlap.errors import DivergedError
from hotlap.types import Array, Float32

__all__ = ["ActorCritic", "squashed_log_prob"]

SHARE = 0.5
"""Share of the greatest entropy that choices hold; with the paper's 0.98 they are nearly alike."""

AnySettings: TypeAlias = DDPGSettings | TD3Settings | RDPGSettings | SACSettings | QRSACSettings


class ActorCritic(JoiningTensors):
    """Learns a deterministic, a squashed normal or a discrete policy from what it remembers.

    Only its owner, the training loop, may call it; it is not safe between threads.

    Args:
        settings: how to learn; their kind says which of the four.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations the policy sees.
        critic: names of the observations the critics see, often more.
        seed: of the first weights and of every draw.
        device: torch's name for where to compute.

    Raises:
        ConfigError: actions are discrete and it is not SAC, a name is not observed, an image is too
            small, or nothing is left to learn.
    """

    _free: tuple[str, ...] = ("walk", "reward.return")
    """Arrays of a checkpoint that have the length of the last batch, whatever it was."""
    _remembers = False
    """Whether its networks may have a memory."""

    def __init__(
        self,
        settings: AnySettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        critic: tuple[str, ...],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        check_actions(settings, discrete=action.kind == "discrete")
        self._choices = action.kind == "discrete"
        self.settings = settings
        self._action = action
        self._device = torch.device(device)
        if self._device.type == "cpu":
            settle()
        self._soft = isinstance(settings, SACSettings | QRSACSettings)
        self._actor, plan = self._plans(observation, actor, critic)
        self._bfloat16 = uses_bfloat16(settings.precision, self._device, self._actor, plan)
        self._critics = self._make_critics(plan)
        read = {name: observation[name] for name in (*self._actor.names, *plan.names)}
        self._read = tuple(read)
        self._scales = TensorScales(settings, read, self._device)
        self._experience = Experience(settings, read, action, self._scales, alpha=0.0, seed=seed)
        rng = generator(seed)
        first = {f"actor.{k}": v for k, v in initial_weights(self._actor, 0.01, rng).items()}
        if isinstance(settings, SACSettings | QRSACSettings) and not self._choices:
            first["actor.head.bias"][action.size :] = math.log(settings.initial_std)
        first |= {f"critic.{k}": v for k, v in self._critics.initial(rng).items()}
        self._weights = {k: self._scales.tensor(v).requires_grad_() for k, v in first.items()}
        followed = "critic." if self._soft else ""
        self._targets = {
            k: self._scales.tensor(v) for k, v in first.items() if k.startswith(followed)
        }
        self._frozen = frozen_weights(settings.freeze, self._weights)
        for name in self._frozen:
            self._weights[name].requires_grad_(False)
        self._learned = {
            part: {
                k: w
                for k, w in self._weights.items()
                if k.startswith(f"{part}.") and k not in self._frozen
            }
            for part in ("actor", "critic")
        }
        self._adams = {part: Adam(list(own.values())) for part, own in self._learned.items()}
        self._log_temperature: Tensor | None = None
        if isinstance(settings, SACSettings | QRSACSettings) and settings.temperature is None:
            start = np.full(1, math.log(settings.initial_temperature), np.float32)
            self._log_temperature = self._scales.tensor(start).requires_grad_()
            self._adams["temperature"] = Adam([self._log_temperature])
        self._walk: Float32 = np.zeros((0, action.size), np.float32)
        self._adopted = False
        self._share = 1.0  # of the samples of a gradient step, those that are ours

    def _plans(
        self,
        observation: Mapping[str, ObservationSpec],
        actor: tuple[str, ...],
        critic: tuple[str, ...],
    ) -> tuple[Plan, Plan]:
        """Lay out the actor and what a critic sees."""
        settings, size = self.settings, self._action.size
        outputs = size * (2 if self._soft and not self._choices else 1)
        quantiles = settings.quantiles if isinstance(settings, QRSACSettings) else 1
        said = size if self._choices else quantiles
        return make_plans(
            settings.network, observation, actor, critic, (outputs, said),
            actions=size if self._remembers else None,
        )  # fmt: skip

    def _make_critics(self, plan: Plan) -> Critics:
        settings = self.settings
        return Critics(
            plan.model_copy(update={"activation": "relu"}),
            0 if self._choices else self._action.size,
            settings.critics,
            joint=() if self._choices or plan.images else joined(settings.network),
            layer_norm=settings.layer_norm,
            bfloat16=self._bfloat16,
        )

    def _judges(self) -> Plan:
        """Return the layers of the critics that a transfer compares."""
        return self._critics.plan

    def join(self, peers: Peers) -> None:
        """Learn together with others from now on; see `Learner.join`."""
        super().join(peers)
        self._experience.peers = peers

    def weights(self) -> dict[str, Tensor]:
        """Return all of its weights, by name, and what weighs entropy if that is found."""
        found = super().weights()
        if self._log_temperature is not None:
            found["log_temperature"] = self._log_temperature
        return found

    def counters(self) -> dict[str, Any]:
        """Return what it counts."""
        return {**self._experience.save(), "adopted": self._adopted}

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""
        self._experience.restore(counted)
        self._adopted = bool(counted["adopted"])

    @property
    def replay(self) -> Replay:
        """What it remembers, which a training keeps apart from its checkpoints."""
        return self._experience.replay

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Choose actions to learn from; see `Learner.act`.

        At random until the replay is warm. Log-probabilities are not used, and are 0.
        """
        unused = np.zeros(len(uniform), np.float32)
        random = self._experience.warming_up and not self._adopted
        if self._choices:
            flat = np.zeros((len(uniform), self._action.size), np.float32)  # all alike
            return choose(flat if random else self._output(observation), uniform), unused
        if random:
            return np.asarray(2.0 * uniform - 1.0, np.float32), unused
        noise = normal_quantile(uniform).astype(np.float32)
        output = self._output(observation)
        settings = self.settings
        if isinstance(settings, SACSettings | QRSACSettings):
            mean, log_std = np.split(output, 2, axis=1)
            return np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD)) * noise), unused
        return self._explored(np.tanh(output), noise, fresh), unused

    def _explored(self, action: Float32, noise: Float32, fresh: Array) -> Float32:
        """Add noise, of another size for each row, or a walk that is driven by it."""
        settings, rows = self.settings, len(noise)
        assert isinstance(settings, DDPGSettings | TD3Settings | RDPGSettings)
        low, high = settings.noise_min, settings.noise_max
        everybody: Float32 = np.linspace(low, high, self._peers.all(rows), dtype=np.float32)
        deviation_N = self._peers.spread(everybody, rows)
        if settings.noise == "ornstein_uhlenbeck":
            # dx = -theta x dt + sigma dW with a step of 1, from 0 at every start
            walk = self._walk if len(self._walk) == rows else np.zeros_like(noise)
            walk = np.where(np.asarray(fresh)[:, None], np.float32(0), walk)
            noise = self._walk = walk * np.float32(1.0 - settings.ou_theta) + noise
        action = action + deviation_N[:, None] * noise
        return np.clip(action, np.float32(-1.0), np.float32(1.0))

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""
        if self._choices:
            return np.asarray(self._output(observation).argmax(axis=1))
        return np.tanh(self._output(observation)[:, : self._action.size])

    def value(self, observation: Mapping[str, Array], action: Array) -> Float32:
        """Return the most pessimistic estimate of what actions are worth, in units of reward.

        For SAC this counts the entropy that is still to come.
        """
        with torch.no_grad():
            inputs = self._scales.inputs(observation, self._critics.plan.names)
            worth = self._worth(self._weights, inputs, self._scales.tensor(action))
            found = worth.mean(dim=2).min(dim=0).values
        return numpy_of(found) * np.float32(self._scales.reward)

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Remember a batch, and take the gradient steps that are then due.

        Args:
            batch: what `act` led to since the last update.
            progress: not used; nothing here follows a schedule.

        Returns:
            Metrics: means over the gradient steps, but `replay` and `gradient_steps`, as they are
            after; without gradient steps only these two.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite.
        """
        self._experience.add(batch)
        history: dict[str, list[Tensor]] = {}
        first = self._experience.gradient_steps
        self._share = self._peers.share(self._samples, batch.rows) / self._samples
        for step, minibatch in enumerate(self._minibatches(), first + 1):
            seen = self._critic_step(minibatch)
            if step % self.settings.actor_delay == 0:
                seen |= self._actor_step(minibatch)
            self._follow()
            for name, value in seen.items():
                history.setdefault(name, []).append(value)
        found = {name: float(torch.stack(values).mean()) for name, values in history.items()}
        if not all(map(math.isfinite, found.values())):
            raise DivergedError(
                f"the gradients of step {self._experience.gradient_steps} are not finite; look "
                "for broken observations, or lower algorithm.critic_learning_rate"
            )
        found["replay"] = float(len(self.replay))
        found["gradient_steps"] = float(self._experience.gradient_steps)
        return found

    @property
    def _samples(self) -> int:
        """How many samples a gradient step has."""
        return self.settings.minibatch

    def _minibatches(self) -> Iterable[Any]:
        """Yield what to learn from: one minibatch for each gradient step that is due."""
        return self._experience.minibatches()

    # --- the losses ---

    def _critic_step(self, minibatch: Minibatch) -> dict[str, Tensor]:
        """Bring the critics nearer to their targets."""
        with torch.no_grad():
            target = self._target(minibatch)
        value = self._worth(self._weights, minibatch.observation, minibatch.action)
        error = quantile_huber if isinstance(self.settings, QRSACSettings) else squared_error
        loss, surprise = error(value, target, minibatch.weight)
        norm = self._descend("critic", loss, self.settings.critic_learning_rate)
        return {
            "critic_loss": loss.detach(),
            "critic_grad_norm": norm,
            "td_error": surprise.mean(),
            "value": value.detach().mean(),
        }

    def _target(self, minibatch: Minibatch) -> Tensor:
        """Return what the critics shall say: (B, K) samples of the return.

        y = r + discount (min over critics of Q'(s', a') - temperature log pi(a'|s')); the second
        term only for the soft ones, and for quantile critics of the critic whose mean is least.
        """
        reached = minibatch.reached
        if self._choices:
            value_B = self._expected(reached, self._worths(self._targets, reached))[0]
            return (minibatch.reward + minibatch.discount * value_B)[:, None]
        action, log_prob = self._reach(reached, minibatch.noise[1])
        worth = self._worth(self._targets, reached, action)  # (E, B, K)
        least = worth.mean(dim=2).argmin(dim=0)
        worst = worth[least, torch.arange(len(least), device=least.device)]
        if log_prob is not None:
            worst = worst - self._temperature() * log_prob[:, None]
        return minibatch.reward[:, None] + minibatch.discount[:, None] * worst

    def _reach(self, seen: Mapping[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the action that a target is computed for, and its log-probability if soft."""
        settings = self.settings
        if self._soft:
            return self._sample(seen, noise)
        weights = below(self._targets, "actor.")
        action = forward(self._actor, weights, seen, bfloat16=self._bfloat16).tanh()
        if isinstance(settings, TD3Settings):
            limit = settings.target_noise_clip
            blur = (settings.target_noise * noise).clamp(-limit, limit)
            action = (action + blur).clamp(-1.0, 1.0)
        return action, None

    def _actor_step(self, minibatch: Minibatch) -> dict[str, Tensor]:
        """Let the actor climb: the first critic, or the most pessimistic one and the entropy."""
        seen = minibatch.observation
        settings = self.settings
        if not self._soft:
            weights = below(self._weights, "actor.")
            action = forward(self._actor, weights, seen, bfloat16=self._bfloat16).tanh()
            loss = -self._worth(self._weights, seen, action, first=1).mean()
            norm = self._descend("actor", loss, settings.learning_rate)
            return {"actor_loss": loss.detach(), "actor_grad_norm": norm}
        temperature = self._temperature()
        if self._choices:
            with torch.no_grad():
                worth_EBA = self._worths(self._weights, seen)
            value_B, entropy_B = self._expected(seen, worth_EBA)
            loss, entropy = -value_B.mean(), entropy_B.detach().mean()
        else:
            action, log_prob = self._sample(seen, minibatch.noise[0])
            worth = self._worth(self._weights, seen, action).mean(dim=2).min(dim=0).values
            loss, entropy = (temperature * log_prob - worth).mean(), -log_prob.detach().mean()
        norm = self._descend("actor", loss, settings.learning_rate)
        if self._log_temperature is not None:
            assert isinstance(settings, SACSettings | QRSACSettings)
            wanted = settings.target_entropy
            if wanted is None:
                numbers = self._action.size
                wanted = SHARE * math.log(numbers) if self._choices else -float(numbers)
            # too little entropy makes it dearer; the logarithm's gradient, as published code has it
            lack = summed(self._peers, [(entropy - wanted).reshape(1)], self._share)
            self._adams["temperature"].step(lack, settings.learning_rate)
        return {
            "actor_loss": loss.detach(),
            "actor_grad_norm": norm,
            "entropy": entropy,
            "temperature": torch.as_tensor(temperature).squeeze(),
        }

    # --- the parts ---

    def _sample(self, seen: Mapping[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return squashed normal actions (B, A) and their log-probabilities (B,)."""
        weights = below(self._weights, "actor.")
        output = forward(self._actor, weights, seen, bfloat16=self._bfloat16)
        mean, log_std = output.chunk(2, dim=1)
        log_std = log_std.clamp(*LOG_STD)
        raw = mean + log_std.exp() * noise
        return raw.tanh(), squashed_log_prob(raw, log_std, noise)

    def _worth(
        self,
        weights: Mapping[str, Tensor],
        seen: Mapping[str, Tensor],
        action: Tensor,
        *,
        first: int = 0,
    ) -> Tensor:
        """Return what the critics say of an action, (E, B, K)."""
        if self._choices:
            worth_EBA = self._worths(weights, seen)
            return worth_EBA.gather(2, action[None, :, None].expand(len(worth_EBA), -1, 1))
        mine = below(weights, "critic.")
        return self._critics(mine, self._critics.encode(mine, seen), action, first=first)

    def _worths(self, weights: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Tensor:
        """Return what the critics say of every choice, (E, B, A)."""
        mine = below(weights, "critic.")
        features = self._critics.encode(mine, seen)
        return self._critics(mine, features, features[:, :0])

    def _expected(self, seen: Mapping[str, Tensor], worth_EBA: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a state is worth (B,), its entropy counted, and that entropy (B,).

        V(s) = sum over a of pi(a|s) (min over critics of Q(s, a) - temperature log pi(a|s)).

        Source: Christodoulou 2019, arXiv:1910.07207, eqs. 10 and 12.
        """
        output = forward(self._actor, below(self._weights, "actor."), seen, bfloat16=self._bfloat16)
        log_prob_BA = torch.log_softmax(output, dim=1)
        entropy_B = -(log_prob_BA.exp() * log_prob_BA).sum(dim=1)
        least_BA = worth_EBA.min(dim=0).values
        value_B = (log_prob_BA.exp() * least_BA).sum(dim=1)
        return value_B + self._temperature() * entropy_B, entropy_B

    def _temperature(self) -> Tensor | float:
        if self._log_temperature is not None:
            return self._log_temperature.detach().exp()
        assert isinstance(self.settings, SACSettings | QRSACSettings)
        return self.settings.temperature or 0.0

    def _descend(self, part: str, loss: Tensor, learning_rate: float) -> Tensor:
        """Take one step of Adam down a loss; return the length of the gradient."""
        own = torch.autograd.grad(loss, list(self._learned[part].values()))
        gradients = summed(self._peers, own, self._share)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        shorten = ((norm + 1e-6) / self.settings.max_grad_norm).clamp(min=1.0)
        self._adams[part].step(gradients, learning_rate, shorten)
        return norm

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the targets follow by a share of the way."""
        mine = [self._weights[name] for name in self._targets]
        torch._foreach_lerp_(list(self._targets.values()), mine, self.settings.tau)

    def _output(self, observation: Mapping[str, Array]) -> Float32:
        with torch.no_grad():
            inputs = self._scales.inputs(observation, self._actor.names)
            weights = below(self._weights, "actor.")
            return numpy_of(forward(self._actor, weights, inputs, bfloat16=self._bfloat16))

    # --- saved and restored ---

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself but the replay: a JSON-able dictionary, and arrays by name."""
        meta = {
            "format": 1,
            "kind": self.settings.kind,
            "adam_steps": {part: adam.steps for part, adam in self._adams.items()},
            "plans": {"critic": self._judges().model_dump(mode="json")},
            **self.counters(),
        }
        arrays = {name: numpy_of(tensor) for name, tensor in self._tensors().items()}
        arrays |= {**self._scales.save(), "walk": self._walk.copy()}
        return meta, arrays

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        match(self.settings.kind, self.save()[1], meta, arrays, free=self._free)
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name])))
        self._scales.restore(arrays)
        self.count(meta)
        self._walk = np.array(arrays["walk"])
        for part, adam in self._adams.items():
            adam.steps = int(meta["adam_steps"][part])

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved; see `Learner.adopt`.

        The replay begins empty. Where the whole driver was taken, it drives the `warmup`
        transitions, and explores, instead of driving at random.
        """
        saved, frozen = (meta, arrays), self._frozen
        return begin_with(self, saved, weights=self._weights, frozen=frozen, driver=driver)

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        plan: Plan = self._actor
        description = {
            "format": 1,
            "plan": plan.model_dump(mode="json"),
            "action": self._action.kind,
            "squash": "none" if self._choices else "sample" if self._soft else "mean",
        }
        arrays = {k: numpy_of(v) for k, v in below(self._weights, "actor.").items()}
        settings = self.settings
        if isinstance(settings, DDPGSettings | TD3Settings | RDPGSettings):
            deviation = max(1e-9, (settings.noise_min + settings.noise_max) / 2)
            arrays["log_std"] = np.full(self._action.size, math.log(deviation), np.float32)
        for name in plan.vectors:
            normalizer = self._scales.normalizers[name]
            arrays[f"normalizer.{name}.mean"] = normalizer.mean
            arrays[f"normalizer.{name}.std"] = normalizer.std
        return description, arrays

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor that learns or remembers, by name."""
        found = dict(self._weights)
        found |= {f"target.{k}": v for k, v in self._targets.items()}
        if self._log_temperature is not None:
            found["log_temperature"] = self._log_temperature
        for part, adam in self._adams.items():
            names = self._learned.get(part, {part: None})
            found |= {f"adam.mean.{k}": v for k, v in zip(names, adam.means, strict=True)}
            found |= {f"adam.square.{k}": v for k, v in zip(names, adam.squares, strict=True)}
        return found


def squashed_log_prob(raw_BA: Tensor, log_std_BA: Tensor, noise_BA: Tensor) -> Tensor:
    """Return the log-probability (B,) of tanh(raw), where raw = mean + std noise.

    log N(raw) - log(1 - tanh^2 raw), with log(1 - tanh^2 x) = 2 (log 2 - x - softplus(-2x)),
    which does not lose its digits far out.

    Source: Haarnoja et al. 2018, arXiv:1812.05905, eq. 26 (appendix C).
    """
    normal = -0.5 * noise_BA.square() - log_std_BA - 0.5 * math.log(2.0 * math.pi)
    steep = 2.0 * (math.log(2.0) - raw_BA - torch.nn.functional.softplus(-2.0 * raw_BA))
    return (normal - steep).sum(dim=1)
