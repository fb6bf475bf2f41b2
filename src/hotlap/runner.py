"""Runner: drives a VectorEnv with a policy and hands over what happened as a Batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Protocol

import numpy as np

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.deepracer.recorder import Recorder
from hotlap.draws import Purpose, uniform
from hotlap.env import Episodes, Transition, VectorEnv
from hotlap.simulator import State
from hotlap.tasks.rules import Ended
from hotlap.types import Array, Float32

__all__ = [
    "Runner",
    "Sampler",
    "action_spec",
    "joined_episodes",
    "note_step",
    "observation_specs",
]


class Sampler(Protocol):
    """What a Runner needs of a policy: the learner itself, in training."""

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Sample actions and their log-probabilities, decided by uniform numbers (N, A).

        `fresh` (N,) says which rows begin an episode.
        """


class Runner:
    """Collects experience from one VectorEnv, step after step, across calls.

    The draws of the policy depend on the row, its episode and its step alone: two runners with half
    the rows each collect what one with all rows would.

    Args:
        env: the world and the task.
        seed: of the policy's draws.
        recorder: notes what some of the rows do.
    """

    def __init__(self, env: VectorEnv, *, seed: int, recorder: Recorder | None = None) -> None:
        self.env = env
        self.recorder = recorder
        self._seed = seed
        self._observation = env.begin()
        if recorder is not None:
            recorder.begin(env.state)

    def collect(
        self,
        policy: Sampler,
        steps: int,
        names: Collection[str] | None = None,
        episodes: int = 0,
    ) -> tuple[Batch, Episodes]:
        """Drive every row for `steps` steps; return the experience and the episodes that ended.

        Of what there is to see, only `names` is observed; None: all. With `episodes`, it is over
        sooner, when so many have ended.
        """
        env = self.env
        wanted = env.names if names is None else names
        if set(self._observation) != set(wanted):
            env.watch(wanted)
            self._observation = env.observe()
        draws = 1 if env.actions.discrete else env.actions.size
        seen = {
            name: np.empty((steps, *first.shape), first.dtype)
            for name, first in self._observation.items()
        }
        action: Array | None = None
        shape = (steps, env.rows)
        log_prob, reward = np.empty(shape, np.float32), np.empty(shape, np.float32)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        failed = np.zeros(shape, bool)
        reached: list[dict[str, Array]] = []
        over: list[Episodes] = []
        ended = 0
        for t in range(steps):
            for name, array in seen.items():
                array[t] = self._observation[name]
            state = env.state
            chance = uniform(
                self._seed, state.row, state.episode, state.steps, Purpose.ACTION, draws
            )
            chosen, log_prob[t] = policy.act(self._observation, chance, state.steps == 0)
            if action is None:
                action = np.empty((steps, *chosen.shape), chosen.dtype)
            action[t] = chosen
            transition = env.advance(chosen)
            if self.recorder is not None:
                note_step(self.recorder, env, state, chosen, transition)
            reward[t] = transition.reward
            terminated[t], truncated[t] = transition.terminated, transition.truncated
            if len(transition.ended):
                reached.append(transition.reached)
                failed[t, transition.ended] = Ended(transition.episodes.status).failed
            if len(transition.ended) or not over:  # an empty one says of which kind they are
                over.append(transition.episodes)
            self._observation = transition.observation
            ended += len(transition.ended)
            if episodes and ended >= episodes:
                break
        assert action is not None
        driven = t + 1
        seen = {name: array[:driven] for name, array in seen.items()}
        batch = Batch(
            observation=seen,
            last_observation=self._observation,
            action=action[:driven],
            log_prob=log_prob[:driven],
            reward=reward[:driven],
            terminated=terminated[:driven],
            truncated=truncated[:driven],
            reached={
                name: np.concatenate([one[name] for one in reached])
                if reached
                else np.empty((0, *array.shape[2:]), array.dtype)
                for name, array in seen.items()
            },
            failed=failed[:driven],
        )
        return batch, joined_episodes(over)

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly."""
        if self.recorder is None:
            return self.env.save()
        noted = {f"recorder.{name}": array for name, array in self.recorder.save().items()}
        return self.env.save() | noted

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""
        self.env.restore(arrays)
        if self.recorder is not None:
            noted = below(arrays, "recorder.")
            if noted:
                self.recorder.restore(noted)
            else:  # a run of a version that did not record
                self.recorder.begin(self.env.state, midway=True)
        self._observation = {}  # observed when it is known what is wanted


def note_step(
    recorder: Recorder,
    env: VectorEnv,
    before: State,
    action: Array,
    transition: Transition,
    *,
    rewarded: bool = True,
) -> None:
    """Let a recorder note the step that an environment has just made from `before`.

    Unless `rewarded`, rewards are noted as 0.
    """
    status, over = np.zeros((2, env.rows), np.int32)
    if env.penalties is not None:
        status[:] = env.penalties.status
    status[transition.ended], over[transition.ended] = transition.episodes.status, 1
    command = env.decode(action)
    reward = transition.reward if rewarded else np.zeros(env.rows, np.float32)
    pauses = None if env.penalties is None else env.penalties.pauses
    recorder.take(
        before, command, action, env.previous, reward, status, over > 0, env.state, pauses=pauses
    )


def joined_episodes(episodes: Sequence[Episodes]) -> Episodes:
    """Put the episodes of several steps into one record."""
    names = [field.name for field in fields(Episodes)]
    return Episodes(
        **{name: np.concatenate([getattr(one, name) for one in episodes]) for name in names}
    )


def observation_specs(env: VectorEnv) -> dict[str, ObservationSpec]:
    """Say what one row of each observation of an environment looks like."""
    return {
        name: ObservationSpec(tuple(space.shape), str(space.dtype), float(space.high.max()))
        for name, space in env.spaces.items()
    }


def action_spec(env: VectorEnv) -> ActionSpec:
    """Say what a policy for this environment answers."""
    return ActionSpec("discrete" if env.actions.discrete else "continuous", env.actions.size)
