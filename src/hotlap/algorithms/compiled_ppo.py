"""PPO whose networks are small: compiled kernels, and no torch.

Loading torch takes longer than learning the first laps; calling it, longer than what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hotlap.algorithms.batch import Batch, ObservationSpec
from hotlap.algorithms.compiled import (
    BLOCK,
    cost_of,
    net_of,
    orthonormal,
    outputs,
    read,
    threads_for,
)
from hotlap.algorithms.compiled_steps import LANES, SUMS, Weights, adam_step, add_up, ppo_gradients
from hotlap.algorithms.peers import ALONE, Layout
from hotlap.algorithms.plans import draw_weights
from hotlap.algorithms.policy import Plan, choose
from hotlap.algorithms.ppo import PPO
from hotlap.algorithms.scales import Scales
from hotlap.draws import normal_quantile
from hotlap.threads import available, spread
from hotlap.types import Array, Float32

__all__ = ["CompiledPPO"]


class CompiledPPO(PPO):
    """PPO with small networks, on the processor; see `PPO` and `compiled.fits`."""

    @staticmethod
    def _drawn(plan: Plan, gain: float, rng: np.random.Generator) -> dict[str, Float32]:
        return draw_weights(plan, gain, rng, orthonormal)

    def _begin(self, weights: Mapping[str, Float32], read: Mapping[str, ObservationSpec]) -> None:
        self._scales = Scales(self.settings, read)
        # One vector: the actor, deviations of its actions, the critic.
        actor, where, spot = net_of(self._actor, 0)
        places = {f"actor.{name}": place for name, place in where.items()}
        end = spot
        if "actor.log_std" in weights:
            end += self._action.size
            places["actor.log_std"] = np.arange(spot, end)
        critic, where, length = net_of(self._critic, end)
        places |= {f"critic.{name}": place for name, place in where.items()}
        self._weights = Weights(weights, places, length, self._frozen)
        self._log_std = self._weights.theta[spot:end]
        self._spot, self._ends = spot, np.array([end, length])
        self._steps = np.zeros(2, np.int64)
        self._nets = {"actor": actor, "critic": critic}
        self._costs = {name: cost_of(net) for name, net in self._nets.items()}
        self._threads = self.settings.threads or available()

    # --- driving ---

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Sample actions for N rows; see `PPO.act`."""
        output = self._run("actor", self._seen(observation, self._actor))
        if self._action.kind == "discrete":
            shares = self._shares(output)
            # choose() reads logits, and of these only the differences
            action = choose(np.log(np.maximum(shares, np.float32(1e-38))), uniform)
            return action, np.log(shares[np.arange(len(action)), action])
        log_std = self._log_std
        noise = normal_quantile(uniform).astype(np.float32)
        constant = np.float32(0.5 * math.log(2.0 * math.pi))
        log_prob = -(np.float32(0.5) * noise * noise + log_std + constant).sum(axis=1)
        return output + np.exp(log_std) * noise, log_prob

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""
        found = self._run("actor", self._seen(observation, self._actor))
        if self._action.kind == "discrete":
            return np.asarray(found.argmax(axis=1))
        return np.asarray(np.clip(found, np.float32(-1.0), np.float32(1.0)))

    def value(self, observation: Mapping[str, Array]) -> Float32:
        """Return the critic's estimate of the discounted return of N rows, in units of reward."""
        found = self._run("critic", self._seen(observation, self._critic))[:, 0]
        return found * np.float32(self._scales.reward)

    def _seen(self, observation: Mapping[str, Array], plan: Plan) -> tuple[Array, Float32]:
        """Return what a network reads: pixels and numbers."""
        return read(plan, self._scales.normalized(observation, plan.names))

    def _run(self, network: Literal["actor", "critic"], seen: tuple[Array, Float32]) -> Float32:
        net, rows = self._nets[network], len(seen[1])
        out = np.empty((rows, net.outputs), np.float32)
        threads = threads_for(rows * self._costs[network], self._threads)
        spread(outputs, rows, out, self._weights.theta, net, *seen, block=BLOCK, threads=threads)
        return out

    def _shares(self, logits: Float32) -> Float32:
        """Return the probability of each choice: of the policy's, or now and then any."""
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = weight / weight.sum(axis=1, keepdims=True)
        epsilon = np.float32(self._epsilon)
        return np.asarray((np.float32(1.0) - epsilon) * shares + epsilon / shares.shape[1])

    def _std(self) -> float:
        return float(np.exp(self._log_std).mean())

    # --- learning ---

    def _inputs(self, batch: Batch) -> dict[str, tuple[Array, Float32]]:
        flat = {name: _rows(values) for name, values in batch.observation.items()}
        seen = self._seen(flat, self._actor)
        alike = self._actor.names == self._critic.names
        return {"actor": seen, "critic": seen if alike else self._seen(flat, self._critic)}

    def _hold(self, values_TN: Array) -> Array:
        return np.ascontiguousarray(_rows(values_TN))

    def _advantages(self, batch: Batch, inputs: Mapping[str, Any]) -> tuple[Float32, Float32]:
        value_TN = self._run("critic", inputs["critic"]).reshape(batch.reward.shape)
        last_N = self._run("critic", self._seen(batch.last_observation, self._critic))[:, 0]
        reached = np.zeros(0, np.float32)
        if batch.ended.any():
            reached = self._run("critic", self._seen(batch.reached, self._critic))[:, 0]
        return value_TN, self._gae(batch, value_TN, last_N, reached)

    def _minibatches(
        self, rng: np.random.Generator, steps: int, layout: Layout
    ) -> Iterator[tuple[Array, Array]]:
        order = rng.permutation(layout.count)
        for part in np.array_split(order, -(-len(order) // self.settings.minibatch)):
            part.sort()  # a sum hardly minds, and memory is read forwards
            yield part, layout.own(part)

    def _minibatch(
        self,
        inputs: Mapping[str, Any],
        rows: Mapping[str, Array],
        mine: Array,
        count: int,
        centre: tuple[float, float],
    ) -> dict[str, float]:
        settings, weights = self.settings, self._weights
        found = np.empty((LANES, len(weights.theta)), np.float32)
        sums = np.empty((LANES, SUMS))
        discrete = self._action.kind == "discrete"
        action, choice = np.empty((0, 0), np.float32), np.empty(0, np.int64)
        spread(
            ppo_gradients, LANES, found, sums, self._weights.theta,
            self._nets["actor"], self._nets["critic"], inputs["actor"], inputs["critic"],
            self._spot,
            action if discrete else rows["action"], rows["action"] if discrete else choice,
            rows["log_prob"], rows["value"], rows["target"], rows["advantage"], mine,
            *map(float, centre), settings.clip, settings.value_coef, settings.entropy,
            settings.value_loss == "huber", float(settings.value_clip or math.inf),
            float(self._epsilon), count,
            block=1, threads=threads_for(3 * len(mine) * sum(self._costs.values()), self._threads),
        )  # fmt: skip
        gradient, whole = np.empty_like(weights.theta), sums.sum(axis=0) / count
        add_up(gradient, found, weights.still)
        if self._peers is not ALONE:
            own = np.concatenate([gradient[weights.moves], whole.astype(np.float32)])
            total = self._peers.sum(own)
            gradient[weights.moves], whole = total[:-SUMS], total[-SUMS:].astype(np.float64)
        self._steps += 1
        rates = np.array(self._rates())
        norm = adam_step(
            weights.theta, gradient, weights.mean, weights.square, self._ends, rates, self._steps,
            settings.adam_epsilon, settings.max_grad_norm,
        )  # fmt: skip
        if "actor.log_std" not in self._frozen:
            bounds = math.log(settings.min_std), math.log(settings.max_std)
            np.clip(self._log_std, *bounds, out=self._log_std)
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        return dict(zip(names, whole.tolist(), strict=True)) | {"grad_norm": norm}

    # --- saved, restored and shared ---

    def _held(self) -> dict[str, Float32]:
        return self._weights.named(self._weights.theta)

    def _moments(self) -> dict[str, Float32]:
        return self._weights.moments()

    def _take(self, arrays: Mapping[str, Array], adam_steps: Sequence[int]) -> None:
        self._weights.take(arrays)
        self._steps[:] = adam_steps

    def _adam_steps(self) -> list[int]:
        return [int(steps) for steps in self._steps]

    def vector(self) -> Float32:
        """Return all of its weights as one vector."""
        return np.asarray(self._weights.theta[self._weights.places])

    def assign(self, values: Float32) -> None:
        """Set all of its weights to a vector's values."""
        self._weights.theta[self._weights.places] = values


def _rows(values_TN: Array) -> Any:
    return values_TN.reshape(-1, *values_TN.shape[2:])
