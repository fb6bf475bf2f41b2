"""TorchRL's PPO and SAC in our environment, for `peers.py`.

    pip install torchrl

Collector, networks, advantages, losses and buffers are TorchRL's, put together as in its own
examples. The scales of what is seen and paid are not: its VecNorm shifts rewards, and knows no
returns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import AddStateIndependentNormalScale, NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import (
    Binary,
    Bounded,
    Composite,
    LazyTensorStorage,
    TensorDictReplayBuffer,
    Unbounded,
)
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, IndependentNormal, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss, SACLoss, SoftUpdate
from torchrl.objectives.value import GAE

from hotlap.algorithms.normalizer import ReturnScaler, RunningNormalizer
from hotlap.algorithms.settings import PPOSettings, SACSettings
from hotlap.env import VectorEnv

if TYPE_CHECKING:
    from peers import Act

ENDS = ("done", "terminated", "truncated")

logging.getLogger("torchrl").setLevel(logging.WARNING)  # a line for each buffer


class Scales:
    """Running scales of what is seen and paid, as those of Stable-Baselines3's VecNormalize."""

    def __init__(self, size: int, gamma: float) -> None:
        self._seen, self._returns = RunningNormalizer(size), ReturnScaler(gamma)
        self._mean, self._std = torch.zeros(size), torch.ones(size)

    def see(self, seen: np.ndarray) -> None:
        """Take in what N rows see."""
        self._seen.update(seen)
        self._mean, self._std = map(torch.from_numpy, (self._seen.mean, self._seen.std))

    def earn(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Take in what N rows are paid."""
        self._returns.update(reward[None], ended[None])

    def observation(self, seen: Tensor) -> Tensor:
        """Bring observations to mean 0 and deviation 1."""
        return ((seen - self._mean) / self._std).clamp(-10, 10)

    def reward(self, reward: Tensor) -> Tensor:
        """Divide rewards by the deviation of the return."""
        return (reward / self._returns.scale).clamp(-10, 10)

    def remembered(self, minibatch: TensorDictBase) -> TensorDictBase:
        """Scale what a replay has kept as it was, by what is known now."""
        for part in (minibatch, minibatch["next"]):
            part["observation"] = self.observation(part["observation"])
        minibatch["next", "reward"] = self.reward(minibatch["next", "reward"])
        return minibatch


class Cars(EnvBase):
    """Our rows as TorchRL wants them, with scales that learn along.

    Our rows restart within a step and TorchRL's after it: `_step` returns what ended rows reached,
    `_reset` what they see since.

    Args:
        env: our rows.
        scales: of what is seen and paid.
        scaled: whether to return scaled numbers; a replay keeps them as they are.
    """

    def __init__(self, env: VectorEnv, scales: Scales, *, scaled: bool) -> None:
        rows = env.rows
        super().__init__(batch_size=[rows])
        self._env, self._scales, self._scaled = env, scales, scaled
        seen = Unbounded((rows, *env.single_observation_space.shape))
        self.observation_spec = Composite(observation=seen, shape=(rows,))
        self.action_spec = Bounded(-1, 1, (rows, env.actions.size), dtype=torch.float32)
        self.reward_spec = Unbounded((rows, 1))
        ends = {name: Binary(1, (rows, 1), dtype=torch.bool) for name in ENDS}
        self.done_spec = Composite(ends, shape=(rows,))

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDict:
        if tensordict is None or tensordict.get("_reset", None) is None:
            seen = self._env.begin()["state"]
            self._scales.see(seen)
            self._now = self._shown(seen)
        return TensorDict(
            {"observation": self._now}, self.batch_size
        )  # it takes those of ended rows

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        t = self._env.advance(tensordict["action"].numpy())
        ended = t.terminated | t.truncated
        self._scales.see(t.observation["state"])
        self._scales.earn(t.reward, ended)
        reached = self._now = self._shown(t.observation["state"])
        if len(t.ended):
            reached = reached.clone()
            reached[t.ended] = self._shown(t.reached["state"])
        reward = torch.from_numpy(t.reward[:, None])
        found = {
            "observation": reached,
            "reward": self._scales.reward(reward) if self._scaled else reward,
        }
        for name, which in zip(ENDS, (ended, t.terminated, t.truncated), strict=True):
            found[name] = torch.from_numpy(which[:, None])
        return TensorDict(found, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        """Do nothing: our rows have their seed."""

    def _shown(self, seen: np.ndarray) -> Tensor:
        given = torch.from_numpy(seen)
        return self._scales.observation(given) if self._scaled else given


def train(
    env: VectorEnv, settings: PPOSettings | SACSettings, seed: int, steps: int
) -> tuple[Act, float]:
    """Train TorchRL's; return the greedy driver and the seconds that it took."""
    torch.manual_seed(seed)
    scales = Scales(env.single_observation_space.shape[0], settings.gamma)
    if isinstance(settings, PPOSettings):
        actor, learn = ppo(env, settings, scales, steps)
    else:
        actor, learn = sac(env, settings, scales, steps)
    begun = time.perf_counter()
    learn()
    seconds = time.perf_counter() - begun

    def act(seen: Mapping[str, np.ndarray]) -> np.ndarray:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action = _choose(actor, scales.observation(torch.from_numpy(seen["state"])))
        return np.asarray(action.clamp(-1, 1).numpy(), np.float32)

    return act, seconds


def ppo(
    cars: VectorEnv, mine: PPOSettings, scales: Scales, steps: int
) -> tuple[nn.Module, Callable[[], None]]:
    """Return an actor, and what trains it by PPO."""
    env = Cars(cars, scales, scaled=True)
    size, numbers = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    layers = {"num_cells": mine.network.mlp, "activation_class": nn.Tanh}
    deviation = AddStateIndependentNormalScale(numbers, init_value=float(np.log(mine.initial_std)))
    net = nn.Sequential(MLP(size, numbers, **layers), deviation)
    actor = _actor(net, env, IndependentNormal, return_log_prob=True)
    critic = ValueOperator(MLP(size, 1, **layers), in_keys=["observation"])
    batch = mine.horizon * cars.rows
    collector = _collector(env, actor, batch, steps)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(batch),
        sampler=SamplerWithoutReplacement(),
        batch_size=mine.minibatch,
    )
    advantages = GAE(gamma=mine.gamma, lmbda=mine.lam, value_network=critic)
    loss = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=mine.clip,
        entropy_bonus=mine.entropy > 0,
        entropy_coeff=mine.entropy,
        critic_coeff=mine.value_coef,
        loss_critic_type="l2",
        normalize_advantage=True,
    )
    weights = list(loss.parameters())
    adam = torch.optim.Adam(weights, mine.learning_rate, eps=mine.adam_epsilon)

    def learn() -> None:
        for driven in collector:
            advantages(driven)
            buffer.extend(driven.reshape(-1))
            for _ in range(mine.epochs):
                for minibatch in buffer:
                    found = loss(minibatch)
                    adam.zero_grad()
                    sum(v for name, v in found.items() if name.startswith("loss_")).backward()
                    nn.utils.clip_grad_norm_(weights, mine.max_grad_norm)
                    adam.step()

    return actor, learn


def sac(
    cars: VectorEnv, mine: SACSettings, scales: Scales, steps: int
) -> tuple[nn.Module, Callable[[], None]]:
    """Return an actor, and what trains it by SAC."""
    env = Cars(cars, scales, scaled=False)
    size, numbers = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    layers = {"num_cells": mine.network.mlp, "activation_class": nn.ReLU}
    net = nn.Sequential(MLP(size, 2 * numbers, **layers), NormalParamExtractor())
    actor = _actor(net, env, TanhNormal)
    critic = ValueOperator(MLP(size + numbers, 1, **layers), in_keys=["observation", "action"])
    explorer = TensorDictModule(
        lambda seen: _choose(actor, scales.observation(seen)), ["observation"], ["action"]
    )
    batch = mine.horizon * cars.rows
    collector = _collector(env, explorer, batch, steps, init_random_frames=mine.warmup)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(mine.capacity), batch_size=mine.minibatch
    )
    buffer.append_transform(scales.remembered)
    loss = SACLoss(
        actor,
        critic,
        num_qvalue_nets=mine.critics,
        loss_function="l2",
        target_entropy=-float(numbers),
    )
    loss.make_value_estimator(gamma=mine.gamma)
    targets = SoftUpdate(loss, tau=mine.tau)
    adam = torch.optim.Adam(loss.parameters(), mine.learning_rate)

    def learn() -> None:
        taken = 0
        for driven in collector:
            buffer.extend(driven.reshape(-1))
            taken += driven.numel()
            for _ in range(int(batch * mine.update_ratio) if taken > mine.warmup else 0):
                found = loss(buffer.sample())
                adam.zero_grad()
                (found["loss_actor"] + found["loss_qvalue"] + found["loss_alpha"]).backward()
                adam.step()
                targets.step()

    return actor, learn


def _actor(net: nn.Module, env: EnvBase, distribution: type, **options: bool) -> nn.Module:
    """Return an actor whose network answers with the middle and the deviation of its actions."""
    return ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=env.action_spec_unbatched,
        distribution_class=distribution,
        default_interaction_type=ExplorationType.RANDOM,
        **options,
    )


def _collector(
    env: EnvBase, policy: nn.Module, batch: int, steps: int, **options: int
) -> Collector:
    """Return what drives whole batches until there are `steps`."""
    return Collector(
        env,
        policy,
        frames_per_batch=batch,
        total_frames=-(-steps // batch) * batch,
        auto_register_policy_transforms=False,  # this one remembers nothing
        **options,
    )


def _choose(actor: nn.Module, observation: Tensor) -> Tensor:
    """Return an actor's actions for N scaled observations."""
    with torch.no_grad():
        return actor(TensorDict({"observation": observation}, observation.shape[:1]))["action"]
