"""PPO: proximal policy optimisation, with an actor and a critic apart.

What it does with a batch, whatever runs its networks: `compiled_ppo.py` where they are small,
`torch_ppo.py` for all others, and `recurrent_ppo.py` with a memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.algorithms.compiled import fits
from hotlap.algorithms.peers import Joining, Layout
from hotlap.algorithms.plans import make_plans
from hotlap.algorithms.returns import gae
from hotlap.algorithms.scales import match
from hotlap.algorithms.settings import PPOSettings
from hotlap.algorithms.transfer import Saved, Transfer, begin_with, frozen_weights
from hotlap.draws import generator
from hotlap.errors import ConfigError, DivergedError, RunError
from hotlap.types import Array, Float32

__all__ = ["PPO", "is_compiled", "make_ppo"]


def make_ppo(
    settings: PPOSettings,
    observation: Mapping[str, ObservationSpec],
    action: ActionSpec,
    actor: tuple[str, ...],
    critic: tuple[str, ...],
    *,
    seed: int,
    device: str = "cpu",
    where: str = "algorithm",
) -> PPO:
    """Make the PPO whose networks run fastest here; see `PPO`. `device` is torch's name."""
    given = (settings, observation, action, actor, critic)
    if settings.network.memory or settings.network.previous_action:
        from hotlap.algorithms.recurrent_ppo import RecurrentPPO

        return RecurrentPPO(*given, seed=seed, device=device, where=where)
    if device == "cpu" and is_compiled(settings, observation, actor, critic, action.size):
        from hotlap.algorithms.compiled_ppo import CompiledPPO

        return CompiledPPO(*given, seed=seed, where=where)
    from hotlap.algorithms.torch_ppo import TorchPPO

    return TorchPPO(*given, seed=seed, device=device, where=where)


def is_compiled(
    settings: PPOSettings,
    observation: Mapping[str, ObservationSpec],
    actor: Sequence[str],
    critic: Sequence[str],
    actions: int,
) -> bool:
    """Return whether the networks are such that they learn without torch; see `compiled.fits`."""
    network = settings.network
    if network.memory or network.previous_action or settings.precision == "bfloat16":
        return False
    return all(map(fits, make_plans(network, observation, actor, critic, (actions, 1))))


class PPO(Joining, ABC):
    """Learns a policy from batches; owns weights, optimisers and normalisers.

    Only its owner, the training loop, may call it; it is not safe between threads.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations the policy sees.
        critic: names of the observations the value estimate sees, often more.
        seed: of the first weights and of the shuffles.
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
        size = action.size
        self._actor, self._critic = make_plans(
            settings.network, observation, actor, critic, (size, 1),
            actions=size if self._remembers else None,
        )  # fmt: skip
        self._updates = self._transitions = 0
        self._learning_rate = settings.learning_rate
        first = self._first_weights(generator(seed))
        self._frozen = frozen_weights(settings.freeze, first, f"{where}.freeze")
        read = {name: observation[name] for name in (*self._actor.names, *self._critic.names)}
        self._begin(first, read)

    def _first_weights(self, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw the weights of both networks, by name."""
        weights = {f"actor.{k}": v for k, v in self._drawn(self._actor, 0.01, rng).items()}
        if self._action.kind == "continuous":
            log_std = np.full(self._action.size, math.log(self.settings.initial_std), np.float32)
            weights["actor.log_std"] = log_std
        return weights | {f"critic.{k}": v for k, v in self._drawn(self._critic, 1.0, rng).items()}

    # --- what runs the networks ---

    @staticmethod
    @abstractmethod
    def _drawn(plan: Any, gain: float, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw the first weights of a network; see `plans.draw_weights`."""

    @abstractmethod
    def _begin(self, weights: Mapping[str, Float32], read: Mapping[str, ObservationSpec]) -> None:
        """Take over the first weights; `_frozen` says which of them stay."""

    @abstractmethod
    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """Return what the networks see of a batch, a row a step of a car."""

    @abstractmethod
    def _hold(self, values_TN: Array) -> Any:
        """Return numbers of a batch where the networks run, a row a step of a car."""

    @abstractmethod
    def _minibatches(
        self, rng: np.random.Generator, steps: int, layout: Layout
    ) -> Iterator[tuple[Array, Any]]:
        """Yield the steps of each gradient step of an epoch: everybody's, and ours."""

    @abstractmethod
    def _minibatch(
        self,
        inputs: Mapping[str, Any],
        rows: Mapping[str, Any],
        mine: Any,
        count: int,
        centre: tuple[float, float],
    ) -> dict[str, float]:
        """Take one gradient step over `count` steps of all peers; return what it saw.

        Advantages are taken relative to `centre`, a mean and a deviation.
        """

    @abstractmethod
    def _advantages(self, batch: Batch, inputs: Mapping[str, Any]) -> tuple[Float32, Float32]:
        """Return values (T, N) and advantages (T, N), both in units of scaled reward."""

    @abstractmethod
    def _held(self) -> dict[str, Float32]:
        """Return copies of all weights, by name."""

    @abstractmethod
    def _moments(self) -> dict[str, Float32]:
        """Return copies of what Adam remembers of all weights that move: `adam.mean.NAME`, ..."""

    @abstractmethod
    def _take(self, arrays: Mapping[str, Array], adam_steps: Sequence[int]) -> None:
        """Become what `_held` and `_moments` returned, after Adam's steps of actor and critic."""

    @abstractmethod
    def _adam_steps(self) -> list[int]:
        """Return how many steps Adam took, of actor and critic."""

    @abstractmethod
    def _std(self) -> float:
        """Return the mean deviation of continuous actions."""

    # --- learning ---

    def counters(self) -> dict[str, Any]:
        """Return what it counts."""
        return {"updates": self._updates, "transitions": self._transitions}

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""
        self._updates = int(counted["updates"])
        self._transitions = int(counted.get("transitions", 0))  # version 0.1 lacks it

    @abstractmethod
    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Sample actions for N rows.

        Args:
            observation: by name, (N, ...).
            uniform: numbers in (0, 1) that decide the sample: (N, A) for continuous actions,
                (N, 1 or more) for discrete ones.
            fresh: (N,) bool, the rows that begin an episode; for who remembers.

        Returns:
            Actions and their log-probability (N,). Continuous actions (N, A) are *not* clipped, and
            the log-probability is theirs; the task clips. Discrete actions are (N,) int64.
        """

    @abstractmethod
    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""

    @abstractmethod
    def value(self, observation: Mapping[str, Array]) -> Float32:
        """Return the critic's estimate of the discounted return of N rows, in units of reward."""

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
        inputs = self._inputs(batch)
        value_TN, advantage_TN = self._advantages(batch, inputs)

        rows = {
            "action": self._hold(batch.action),
            "log_prob": self._hold(batch.log_prob),
            "value": self._hold(value_TN),
            "target": self._hold(value_TN + advantage_TN),
            "advantage": self._hold(advantage_TN),
        }
        layout = Layout({"value": value_TN, "advantage": advantage_TN}, self._peers)
        value, advantage = layout.whole["value"], layout.whole["advantage"]
        history: list[dict[str, float]] = []
        for epoch in range(settings.epochs):
            rng = generator(self._seed, self._updates << 16 | epoch)
            for everyone, mine in self._minibatches(rng, batch.steps, layout):
                centre = _centre(advantage[everyone]) if settings.normalize_advantages else (0, 1)
                metrics = self._minibatch(inputs, rows, mine, len(everyone), centre)
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
            found["std"] = self._std()
        if epsilon:
            found["epsilon"] = epsilon
        return found

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

    def _rates(self) -> tuple[float, float]:
        """Return the step sizes of actor and critic."""
        settings = self.settings
        if settings.critic_learning_rate is None:
            return self._learning_rate, self._learning_rate
        critic = settings.critic_learning_rate
        if settings.schedule == "linear":
            critic *= self._learning_rate / settings.learning_rate
        return self._learning_rate, critic

    def _adapt(self, kl: float) -> None:
        """Slow down when the policy moved too far, hurry when it hardly moved."""
        if kl > 2.0 * self.settings.target_kl:
            self._learning_rate = max(self._learning_rate / 1.5, self.settings.learning_rate / 100)
        elif kl < 0.5 * self.settings.target_kl:
            # Never above the start: the critic shares the step size, and does not bear 1e-2.
            self._learning_rate = min(self._learning_rate * 1.5, self.settings.learning_rate)

    @property
    def _epsilon(self) -> float:
        """The share of random actions, the same from one update to the next."""
        settings = self.settings
        share = min(1.0, self._transitions / settings.epsilon_steps)
        return settings.epsilon_start + share * (settings.epsilon_end - settings.epsilon_start)

    # --- saved and restored ---

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself: a JSON-able dictionary, and arrays by name."""
        meta = {
            "format": 1,
            "kind": "ppo",
            **self.counters(),
            "gamma": self.settings.gamma,
            "learning_rate": self._learning_rate,
            "of_learning_rate": self.settings.learning_rate,
            "adam_steps": self._adam_steps(),
            "plans": {
                "actor": self._actor.model_dump(mode="json"),
                "critic": self._critic.model_dump(mode="json"),
            },
        }
        return meta, self._held() | self._moments() | self._scales.save()

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        known = self.save()[1]
        match("ppo", known, meta, arrays, free=self._free)
        if more := [k for k in arrays if k.startswith(("actor.", "critic.")) and k not in known]:
            raise RunError(
                f"the checkpoint also has {more[0]}, which this network lacks; keep the settings "
                "and observations it was trained with"
            )
        self._take(arrays, [int(steps) for steps in meta["adam_steps"]])
        self._scales.restore(arrays)
        self.count(meta)
        self._learning_rate, full = float(meta["learning_rate"]), self.settings.learning_rate
        if (before := meta.get("of_learning_rate", full)) != full:  # it was halved: see training
            self._learning_rate *= full / before
        self._learning_rate = min(self._learning_rate, full)

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved; see `Learner.adopt`."""
        saved, names = (meta, arrays), list(self._held())
        return begin_with(self, saved, weights=names, frozen=self._frozen, driver=driver)

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""
        description = {
            "format": 1,
            "plan": self._actor.model_dump(mode="json"),
            "action": self._action.kind,
        }
        arrays = below(self._held(), "actor.")
        for name in self._actor.vectors:
            arrays[f"normalizer.{name}.mean"] = self._scales.normalizers[name].mean
            arrays[f"normalizer.{name}.std"] = self._scales.normalizers[name].std
        return description, arrays


def _centre(advantage: Float32) -> tuple[float, float]:
    """Return mean and deviation of the advantages of a minibatch; of one alone 0 and 1."""
    if len(advantage) < 2:
        return 0.0, 1.0
    wide = advantage.astype(np.float64)
    return float(wide.mean()), float(wide.std(ddof=1)) + 1e-8
