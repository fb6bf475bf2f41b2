"""PPO with a memory: the driver, and where it needs one the critic, remember the episode so far.

A sequence is what a row drove between two updates. Minibatches are whole sequences; where an
episode ends inside of one, what the units had reached is forgotten, as it was when it was driven.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.batch import Batch, below
from hotlap.algorithms.networks import forward, recall
from hotlap.algorithms.peers import Layout
from hotlap.algorithms.recurrent import Recurrent, as_input, carried_on
from hotlap.algorithms.tensors import TensorScales
from hotlap.algorithms.torch_ppo import TorchPPO
from hotlap.types import Array, Float32

__all__ = ["RecurrentPPO", "actions_before"]

Network = Literal["actor", "critic"]


@dataclass(frozen=True, eq=False)
class _Sequences:
    """How the N sequences of a batch begin, and where episodes begin inside of them."""

    begun: Mapping[str, Tensor]
    """By network, (N, H): what its units had reached before the first step."""
    fresh: Tensor
    """(T, N) bool."""


class RecurrentPPO(Recurrent, TorchPPO):
    """PPO whose driver carries numbers from one step of an episode to the next; see `TorchPPO`."""

    _scales: TensorScales
    _free = (*TorchPPO._free, "memory.actor", "memory.critic")
    _best = TorchPPO._best
    _critic_now: Float32 = np.zeros((0, 0), np.float32)
    """(N, H): the units of the critic, as the last update left them."""
    _begun: tuple[Float32, Float32] | None = None
    """What actor and critic carried into the first `act` since the last update."""
    _sequences: _Sequences
    """Of the batch that is learned from."""

    # --- driving ---

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Sample actions for N rows, and remember what they saw; see `Learner.act`."""
        fresh = np.zeros(len(uniform), bool) if fresh is None else np.asarray(fresh)
        carried = carried_on(self._now, fresh, self._actor.carried)
        if self._begun is None:
            self._critic_now = carried_on(self._critic_now, fresh, self._critic.state)
            self._begun = carried, self._critic_now
        output, hidden = self._advance(observation, carried)
        with torch.no_grad():
            action, log_prob = self._sample(output, uniform)
        self._now = self._with_action(hidden, action)
        return action, log_prob

    def value(self, observation: Mapping[str, Array]) -> Float32:
        """Return the critic's estimate for N rows whose episodes begin, in units of reward."""
        rows = len(observation[self._critic.names[0]])
        inputs = self._scales.inputs(observation, self._critic.names)
        if self._critic.previous_action:
            inputs["previous_action"] = torch.zeros(rows, self._action.size, device=self._device)
        nothing = torch.zeros(rows, self._critic.state, device=self._device)
        found = self._through("critic", inputs, nothing, None)[0]
        return np.asarray(found[:, 0].cpu().numpy() * np.float32(self._scales.reward))

    def _step(self, inputs: Mapping[str, Tensor], hidden_NH: Tensor) -> tuple[Tensor, Tensor]:
        return self._through("actor", inputs, hidden_NH, None)

    # --- learning ---

    def _remembered(self, batch: Batch) -> dict[str, Tensor]:
        begun, self._begun = self._begun, None
        if begun is None or len(begun[0]) != batch.rows:
            driven = 0 if begun is None else len(begun[0])
            raise ValueError(
                f"update() was given {batch.rows} rows, and act() drove {driven} since the last "
                "one; a memory learns from what it drove itself"
            )
        carried, critic = begun
        units, tensor = self._actor.state, self._scales.tensor
        fresh = np.zeros(batch.ended.shape, bool)
        fresh[1:] = batch.ended[:-1]
        self._sequences = _Sequences(
            {"actor": tensor(carried[:, :units]), "critic": tensor(critic)}, tensor(fresh)
        )
        if not self._actor.previous_action:
            return {}
        before = actions_before(batch, carried[:, units:], self._action.size)
        return {"previous_action": tensor(before.reshape(-1, before.shape[2]))}

    def _advantages(self, batch: Batch, inputs: Mapping[str, Tensor]) -> tuple[Float32, Float32]:
        units = self._critic.memory
        if not units and not self._critic.previous_action:
            return super()._advantages(batch, inputs)
        sequences = self._sequences
        value, hidden = self._through("critic", inputs, sequences.begun["critic"],
                                      sequences.fresh)  # fmt: skip
        hidden_TNH = np.array(hidden.cpu().numpy())
        self._critic_now = hidden_TNH[-1].copy()
        done = as_input(batch.action, self._action.size)
        ended = batch.ended

        def after(seen: Mapping[str, Array], hidden_BH: Array, done_BA: Array) -> Float32:
            given = self._scales.inputs(seen, self._critic.names)
            if self._critic.previous_action:
                given["previous_action"] = self._scales.tensor(done_BA)
            found = self._through("critic", given, self._scales.tensor(hidden_BH), None)[0]
            return np.array(found[:, 0].cpu().numpy())

        following = after(batch.last_observation, hidden_TNH[-1], done[-1])
        # What an ended step reached belongs to its own episode, and so to its memory.
        reached = np.zeros(0, np.float32)
        if ended.any():
            reached = after(batch.reached, hidden_TNH[ended], done[ended])
        value_TN = np.array(value.cpu().numpy()).reshape(batch.reward.shape)
        return value_TN, self._gae(batch, value_TN, following, reached)

    def _minibatches(
        self, rng: np.random.Generator, steps: int, layout: Layout
    ) -> Iterator[tuple[Array, Sequence[Tensor]]]:
        """Yield whole sequences, the rows of their first steps before those of their second."""
        order = rng.permutation(layout.rows)
        parts = min(layout.rows, -(-layout.count // self.settings.minibatch))
        rows, time = self._sequences.fresh.shape[1], np.arange(steps)[:, None]
        for part in np.array_split(order, parts):
            everyone = (time * layout.rows + part).ravel()
            own = part - layout.first
            mine = own[(own >= 0) & (own < rows)]
            together = self._together(steps)
            shards = [mine[k : k + together] for k in range(0, max(len(mine), 1), together)]
            yield (
                everyone,
                [
                    torch.from_numpy((time * rows + shard).ravel()).to(self._device)
                    for shard in shards
                ],
            )

    def _answers(self, seen: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        sequences = self._sequences
        rows = index.reshape(len(sequences.fresh), -1)[0]
        fresh = sequences.fresh[:, rows]
        output, value = (
            self._one(network, seen, sequences.begun[network][rows], fresh)[0]
            for network in _NETWORKS
        )
        return output, value[:, 0]

    def _together(self, steps: int) -> int:
        """Return how many sequences make a shard."""
        return max(1, self._shard // steps)

    def _through(
        self,
        network: Network,
        inputs: Mapping[str, Tensor],
        hidden_NH: Tensor,
        fresh_TN: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run a network over all sequences without gradients, shard by shard.

        Returns:
            (T N, outputs), and what its units reached, (T, N, H).
        """
        steps, rows = 1 if fresh_TN is None else len(fresh_TN), len(hidden_NH)
        names = self._names(network)

        def run(at: slice) -> tuple[Tensor, Tensor]:
            part = {}
            for name in names:
                x = inputs[name]
                part[name] = x.reshape(steps, rows, *x.shape[1:])[:, at].flatten(0, 1)
            fresh = None if fresh_TN is None else fresh_TN[:, at]
            with torch.no_grad():  # is a thread's own
                output, hidden = self._one(network, part, hidden_NH[at], fresh)
            return output.reshape(steps, -1, output.shape[1]), hidden

        size = self._together(steps)
        parts = self._shards.map(run, [slice(k, k + size) for k in range(0, max(rows, 1), size)])
        output = torch.cat([part[0] for part in parts], dim=1)
        return output.flatten(0, 1), torch.cat([part[1] for part in parts], dim=1)

    def _one(
        self,
        network: Network,
        inputs: Mapping[str, Tensor],
        hidden_BH: Tensor,
        fresh_TB: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        plan = self._actor if network == "actor" else self._critic
        weights = below(self._weights, f"{network}.")
        if not plan.memory:
            output = forward(plan, weights, inputs, bfloat16=self._bfloat16)
            steps = 1 if fresh_TB is None else len(fresh_TB)
            return output, hidden_BH.expand(steps, *hidden_BH.shape)
        hidden = recall(plan, weights, inputs, hidden_BH, fresh_TB, bfloat16=self._bfloat16)
        flat = hidden.flatten(0, 1)[:, : plan.memory]
        return functional.linear(flat, weights["head.weight"], weights["head.bias"]), hidden

    def _names(self, network: Network) -> tuple[str, ...]:
        plan = self._actor if network == "actor" else self._critic
        return (*plan.names, "previous_action") if plan.previous_action else plan.names

    # --- saved and restored ---

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself: a JSON-able dictionary, and arrays by name."""
        meta, arrays = super().save()
        memory = {"memory.actor": self._now.copy(), "memory.critic": self._critic_now.copy()}
        return meta, arrays | memory

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        super().restore(meta, arrays)
        self._now = np.array(arrays["memory.actor"], np.float32)
        self._critic_now = np.array(arrays["memory.critic"], np.float32)
        self._begun = self._watched = None


_NETWORKS: tuple[Network, Network] = ("actor", "critic")


def actions_before(batch: Batch, first_NA: Float32, size: int) -> Float32:
    """Return the action before each step, (T, N, A) as a network reads it; 0 in a new episode.

    Args:
        batch: what was driven.
        first_NA: the actions before its first step.
        size: numbers, or choices, of an action.
    """
    done = as_input(batch.action, size)
    later = np.where(batch.ended[:-1, :, None], np.float32(0), done[:-1])
    return np.concatenate([first_NA[None], later])
