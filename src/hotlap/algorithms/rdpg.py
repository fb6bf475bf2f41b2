"""RDPG: deterministic policy gradients through a memory, from stretches of what was driven.

The units begin each stretch at zero; some steps, the burn-in, only bring them to where they were.
Where an episode begins inside of a stretch they are at zero as they were when it was driven.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.actor_critic import ActorCritic
from hotlap.algorithms.batch import Batch, below
from hotlap.algorithms.critics import Critics, squared_error
from hotlap.algorithms.networks import initial_weights, recall
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.recurrent import Recurrent, carried_on
from hotlap.algorithms.replay import Windows
from hotlap.algorithms.returns import n_step
from hotlap.algorithms.settings import RDPGSettings, check_capacity
from hotlap.algorithms.tensors import TensorScales, numpy_of
from hotlap.draws import normal_quantile
from hotlap.types import Array, Float32

__all__ = ["RDPG"]


@dataclass(frozen=True, eq=False)
class _Stretch:
    """B stretches of L steps as tensors, normalised; time first."""

    seen: Mapping[str, Tensor]
    """By name, ((L + 1) B, ...): before each step, and after the last."""
    fresh: Tensor
    """(L + 1, B) bool: where an episode begins."""
    action: Tensor
    """(L, B, A)."""
    reward: Tensor
    """(L, B) in units of scaled reward."""
    terminated: Tensor
    """(L, B) bool."""
    ended: Tensor
    """(L, B) bool."""
    reached: Mapping[str, Tensor]
    """By name, (K, ...): seen by the K ended steps before their reset."""

    def part(self, start: int, stop: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return what was seen in some of the steps, and where episodes begin in them."""
        rows = self.fresh.shape[1]
        part = {name: values[start * rows : stop * rows] for name, values in self.seen.items()}
        return part, self.fresh[start:stop]


class _RecurrentCritics(Critics):
    """Critics that share recurrent units; an action joins after them."""

    def __init__(
        self, plan: Plan, actions: int, count: int, *, layer_norm: bool, bfloat16: bool
    ) -> None:
        self.trunk = plan
        alone = Plan(
            images={}, vectors={"memory": plan.memory}, hidden=plan.hidden[-1:],
            activation="relu", outputs=1,
        )  # fmt: skip
        super().__init__(alone, actions, count, layer_norm=layer_norm, bfloat16=bfloat16)

    def initial(self, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw first weights: those of the units and before them, then each critic's own."""
        drawn = initial_weights(self.trunk, 1.0, rng)
        found = {k: v for k, v in drawn.items() if not k.startswith("head.")}
        return found | super().initial(rng)

    def __call__(
        self, weights: Mapping[str, Tensor], features: Tensor, action: Tensor, *, first: int = 0
    ) -> Tensor:
        """Return (E, B, K) estimates; of what the units carry they see what these reach."""
        return super().__call__(weights, features[:, : self.trunk.memory], action, first=first)


class RDPG(Recurrent, ActorCritic):
    """DDPG whose actor, and where it needs one the critic, remember the episode so far.

    Args and what it raises are those of `ActorCritic`.
    """

    settings: RDPGSettings
    _scales: TensorScales
    _free = (*ActorCritic._free, "memory.actor")
    _judge: Plan
    """What the critics see, and the units that they share, if any."""

    def _make_critics(self, plan: Plan) -> Critics:
        self._judge = plan
        if not plan.memory:
            return super()._make_critics(plan)
        return _RecurrentCritics(
            plan,
            self._action.size,
            self.settings.critics,
            layer_norm=self.settings.layer_norm,
            bfloat16=self._bfloat16,
        )

    def _judges(self) -> Plan:
        return self._judge if self._judge.memory else super()._judges()

    # --- driving ---

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Choose actions to learn from, and remember what was seen; see `Learner.act`.

        At random until the replay is warm. Log-probabilities are not used, and are 0.
        """
        rows, fresh = len(uniform), np.asarray(fresh)
        carried = carried_on(self._now, fresh, self._actor.carried)
        output, hidden = self._advance(observation, carried)
        if self._experience.warming_up and not self._adopted:
            action = np.asarray(2.0 * uniform - 1.0, np.float32)
        else:
            noise = normal_quantile(uniform).astype(np.float32)
            action = self._explored(self._best(output), noise, fresh)
        self._now = self._with_action(hidden, action)
        return action, np.zeros(rows, np.float32)

    def value(self, observation: Mapping[str, Array], action: Array) -> Float32:
        """Return the most pessimistic estimate of actions in N rows whose episodes begin."""
        rows = len(action)
        nothing = torch.zeros(rows, self._action.size, device=self._device)
        with torch.no_grad():
            inputs = self._scales.inputs(observation, self._judge.names)
            inputs["previous_action"] = nothing
            features = self._features(self._weights, inputs, None, begun=self._nothing(rows))
            worth = self._least(self._weights, features, self._scales.tensor(action))
        return numpy_of(worth) * np.float32(self._scales.reward)

    def _step(self, inputs: Mapping[str, Tensor], hidden_NH: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self._recall(self._weights, inputs, hidden_NH, None)
        return self._answer(self._weights, hidden), hidden

    def _best(self, output: Tensor) -> Array:
        return numpy_of(output)

    # --- learning ---

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Remember a batch, and take the gradient steps that are then due; see `ActorCritic`."""
        check_capacity(self.settings, batch.rows)
        return super().update(batch, progress=progress)

    @property
    def _samples(self) -> int:
        return max(1, self.settings.minibatch // self.settings.sequence)

    def _minibatches(self) -> Iterator[_Stretch]:
        settings = self.settings
        count = self._peers.share(self._samples, self.replay.rows)
        for drawn in self._experience.windows(count, settings.burn_in + settings.sequence):
            yield self._stretch(drawn)

    def _stretch(self, drawn: Windows) -> _Stretch:
        """Normalise, and lay out what was done before each step."""
        scales, names = self._scales, self._read
        steps, count = drawn.reward.shape
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in drawn.observation.items()}
        seen = scales.inputs(flat, names)
        reached = scales.inputs(drawn.reached, names if drawn.ended.any() else ())
        fresh = np.concatenate([drawn.begins[None], drawn.ended])
        before = np.concatenate([drawn.before[None], drawn.action])
        before = np.where(fresh[..., None], np.float32(0), before)
        seen["previous_action"] = scales.tensor(before.reshape((steps + 1) * count, -1))
        reached["previous_action"] = scales.tensor(drawn.action[drawn.ended])
        return _Stretch(
            seen=seen,
            fresh=scales.tensor(fresh),
            action=scales.tensor(drawn.action),
            reward=scales.tensor(drawn.reward / np.float32(scales.reward)),
            terminated=scales.tensor(drawn.terminated),
            ended=scales.tensor(drawn.ended),
            reached=reached,
        )

    def _critic_step(self, stretch: _Stretch) -> dict[str, Tensor]:  # type: ignore[override]
        """Bring the critics nearer to their targets, at the steps after the burn-in."""
        first, steps = self.settings.burn_in, len(stretch.reward)
        with torch.no_grad():
            target = self._target(stretch)[first:].reshape(-1, 1)
        features = self._after_burn_in(stretch).flatten(0, 1)
        action = stretch.action[first:steps].flatten(0, 1)
        value = self._critics(below(self._weights, "critic."), features, action)
        loss, surprise = squared_error(value, target, torch.ones_like(target[:, 0]))
        norm = self._descend("critic", loss, self.settings.critic_learning_rate)
        return {
            "critic_loss": loss.detach(),
            "critic_grad_norm": norm,
            "td_error": surprise.mean(),
            "value": value.detach().mean(),
        }

    def _target(self, stretch: _Stretch) -> Tensor:  # type: ignore[override]
        """Return what the critics shall say, (L, B): rewards of some steps, then the least Q'."""
        settings, targets = self.settings, self._targets
        ended, count = stretch.ended, stretch.fresh.shape[1]
        hidden = self._recall(targets, stretch.seen, None, stretch.fresh)
        features = self._features(targets, stretch.seen, stretch.fresh, begun=self._nothing(count))
        following = self._least(targets, features[1:], self._answer(targets, hidden[1:]))
        following = following.reshape(stretch.reward.shape)
        if ended.any():
            # What an ended step reached belongs to its own episode, and so to its memory.
            state = self._recall(targets, stretch.reached, hidden[:-1][ended], None)
            judged = features[:-1][ended] if self._judge.memory else self._nothing(len(state[0]))
            last = self._features(targets, stretch.reached, None, begun=judged)
            following[ended] = self._least(targets, last, self._answer(targets, state))
        found: Tensor = n_step(
            stretch.reward, following, stretch.terminated, ended,
            steps=settings.n_step, gamma=settings.gamma,
        )  # fmt: skip
        return found

    def _actor_step(self, stretch: _Stretch) -> dict[str, Tensor]:  # type: ignore[override]
        """Let the actor climb the first critic, through what it remembers."""
        first, steps = self.settings.burn_in, len(stretch.reward)
        begun = None
        if first:
            with torch.no_grad():
                seen, fresh = stretch.part(0, first)
                begun = self._recall(self._weights, seen, None, fresh)[-1]
        seen, fresh = stretch.part(first, steps)
        action = self._answer(self._weights, self._recall(self._weights, seen, begun, fresh))
        with torch.no_grad():
            features = self._after_burn_in(stretch).flatten(0, 1)
        mine = below(self._weights, "critic.")
        loss = -self._critics(mine, features, action, first=1).mean()
        norm = self._descend("actor", loss, self.settings.learning_rate)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm}

    def _after_burn_in(self, stretch: _Stretch) -> Tensor:
        """Return what the critics see at the steps after the burn-in, (S, B, features)."""
        first, steps = self.settings.burn_in, len(stretch.reward)
        begun = self._nothing(stretch.fresh.shape[1])
        if first and self._judge.memory:
            with torch.no_grad():
                seen, fresh = stretch.part(0, first)
                begun = self._features(self._weights, seen, fresh, begun=begun)[-1]
        return self._features(self._weights, *stretch.part(first, steps), begun=begun)

    # --- the parts ---

    def _nothing(self, rows: int) -> Tensor:
        """Return the critic's units before anything was seen."""
        return torch.zeros(rows, self._judge.state, device=self._device)

    def _recall(
        self,
        weights: Mapping[str, Tensor],
        seen: Mapping[str, Tensor],
        hidden: Tensor | None,
        fresh: Tensor | None,
    ) -> Tensor:
        """Return what the actor's units reach, (T, B, H); from nothing if `hidden` is None."""
        if hidden is None:
            assert fresh is not None
            hidden = torch.zeros(fresh.shape[1], self._actor.state, device=self._device)
        mine = below(weights, "actor.")
        return recall(self._actor, mine, seen, hidden, fresh, bfloat16=self._bfloat16)

    def _answer(self, weights: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        """Return the actor's actions, (T B, A)."""
        head = weights["actor.head.weight"], weights["actor.head.bias"]
        return functional.linear(hidden.flatten(0, 1)[:, : self._actor.memory], *head).tanh()

    def _features(
        self,
        weights: Mapping[str, Tensor],
        seen: Mapping[str, Tensor],
        fresh: Tensor | None,
        *,
        begun: Tensor,
    ) -> Tensor:
        """Return what the critics see, (T, B, features); with a memory it is what units reach."""
        mine = below(weights, "critic.")
        if self._judge.memory:
            return recall(self._judge, mine, seen, begun, fresh, bfloat16=self._bfloat16)
        steps = 1 if fresh is None else len(fresh)
        return self._critics.encode(mine, seen).reshape(steps, len(begun), -1)

    def _least(self, weights: Mapping[str, Tensor], features: Tensor, action: Tensor) -> Tensor:
        """Return what the most pessimistic critic says, (T B,)."""
        worth = self._critics(below(weights, "critic."), features.flatten(0, 1), action)
        return worth[..., 0].min(dim=0).values

    # --- saved and restored ---

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself but the replay: a JSON-able dictionary, and arrays by name."""
        meta, arrays = super().save()
        return meta, arrays | {"memory.actor": self._now.copy()}

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        super().restore(meta, arrays)
        self._now = np.array(arrays["memory.actor"], np.float32)
        self._watched = None
