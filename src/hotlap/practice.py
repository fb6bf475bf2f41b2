"""Practice: a driver, the cars it drives to learn, and one round of both after the other.

`Practice` does it in this process; the team of a distributed training answers to the same calls.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hotlap.algorithms import footprint
from hotlap.algorithms.batch import ObservationSpec, below
from hotlap.algorithms.learner import (
    Learner,
    Phase,
    Phased,
    learns_compiled,
    make_learner,
)
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.settings import PPOSettings, check_capacity
from hotlap.crew import Driver
from hotlap.env import Episodes, VectorEnv
from hotlap.env.drivers import driver_task
from hotlap.env.settings import PICTURES
from hotlap.errors import ConfigError, MissingExtraError
from hotlap.opponents import SELF
from hotlap.plan import TrainConfig
from hotlap.runner import Runner, action_spec, observation_specs
from hotlap.runs import Run
from hotlap.simtrace import Simtrace, is_logged
from hotlap.types import Array

__all__ = [
    "Kept",
    "Memory",
    "Practice",
    "Practising",
    "Round",
    "admit_itself",
    "device_for",
    "learner_for",
    "needs_torch",
    "next_phase",
]


_USUAL = 32
"""About so many numbers say the state of a car."""


@dataclass(frozen=True, eq=False)
class Round:
    """What came of collecting and learning once."""

    phase: Phase
    """What was wanted."""
    steps: int
    """Control steps of all cars."""
    episodes: Episodes
    """Those that ended."""
    metrics: Mapping[str, float]
    """What the learner says."""
    collecting: float
    """Seconds."""
    learning: float
    """Seconds."""
    fastest: float
    """Of all laps in episodes that are under way [s]; inf: there is none."""
    breadth: float
    """Of the randomisation, 0 to 1."""
    admitted: tuple[str, ...] = ()
    """Past versions of the driver among the opponents, where one has joined them just now."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What a checkpoint holds of a practice."""

    state: Mapping[str, Any]
    arrays: Mapping[str, Array]
    segments: tuple[int, ...] = ()
    """Pieces of what is remembered, which the Run has by now."""


class Practising(Protocol):
    """What a training asks of a practice, in this process or in many."""

    learner: Learner
    """Whose driver is evaluated and saved; up to date after `catch_up`."""
    env: VectorEnv
    """For what is the same in every row; its rows may be few, and stand still."""
    simtrace: Simtrace | None
    """What writes DeepRacer's logs, where they are wanted."""
    device: str
    """Torch's name for where this process learns."""

    def open(self, run: Run) -> None:
        """Begin to write what is written besides checkpoints into a new Run."""

    @property
    def phase(self) -> Phase:
        """What the learner wants to be collected next."""

    def round(self, steps: int, progress: float) -> Round:
        """Collect and learn once.

        Args:
            steps: of all cars so far.
            progress: share of the budget that is spent, 0 to 1.

        Raises:
            DivergedError: gradients are no numbers; call `renew` and `restore`.
        """

    def catch_up(self) -> None:
        """Bring `learner` up to date."""

    def keep(self, run: Run) -> Kept:
        """Write what is remembered into a Run; return what else its checkpoint needs."""

    def renew(self, config: TrainConfig) -> None:
        """Begin anew with other settings of the learner."""

    def restore(self, run: Run, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[str]:
        """Continue from what `keep` returned; return what is to be said about it."""

    def traffic(self) -> Mapping[str, int]:
        """Return what has passed between processes so far; empty if there is but one."""

    def close(self) -> None:
        """Let go of every process."""


class Practice:
    """A practice in this process.

    Args:
        config: what is trained.
        rivals: saved opponents by name, where they need not be read from their Runs.
    """

    def __init__(self, config: TrainConfig, rivals: Mapping[str, Driver] | None = None) -> None:
        self.config = config
        try:
            self.env = VectorEnv(
                config, config.train.cars, seed=config.seed, desynchronize=True, rivals=rivals
            )
        except MemoryError:
            raise ConfigError(
                f"train.cars: {config.train.cars:,} cars do not fit into the memory of this "
                "machine; let fewer drive at once"
            ) from None
        names = (*config.observation.actor, *config.observation.critic)
        self.device = device_for(config, self.env)
        footprint.check(
            config.algorithm, observation_specs(self.env), names, config.train.cars, self.device
        )
        check_capacity(config.algorithm, self.env.rows)
        self.learner = learner_for(config, self.env, self.device)
        self.simtrace = Simtrace(config, self.env) if is_logged(config) else None
        recorder = None if self.simtrace is None else self.simtrace.recorder
        self.runner = Runner(self.env, seed=config.seed, recorder=recorder)
        self._memory = Memory()

    def open(self, run: Run) -> None:
        """Begin to write DeepRacer's logs into a new Run, where they are wanted."""
        if self.simtrace is not None:
            self.simtrace.open(run)

    @property
    def phase(self) -> Phase:
        """What the learner wants to be collected next."""
        return next_phase(self.learner, self.config, self.env)

    def round(self, steps: int, progress: float) -> Round:
        """Collect and learn once; see `Practising`."""
        start = time.perf_counter()
        admitted = admit_itself(self.env, self.learner, steps)
        phase = self.phase
        self.env.margin = phase.margin
        batch, episodes = self.runner.collect(
            self.learner, phase.steps, phase.names, phase.episodes
        )
        collected = time.perf_counter()
        try:
            metrics = self.learner.update(batch, progress=progress)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # of torch, which may not be there
                raise
            raise ConfigError(
                "algorithm.minibatch: the memory of the GPU is full; lower it, or train.cars, or "
                "choose train.device=cpu. What was saved is kept: --from begins with its driver"
            ) from None
        return Round(
            phase=phase,
            steps=batch.reward.size,
            episodes=episodes,
            metrics=metrics,
            collecting=collected - start,
            learning=time.perf_counter() - collected,
            fastest=self.env.lap_best,
            breadth=self.env.breadth,
            admitted=admitted,
        )

    def catch_up(self) -> None:
        """Do nothing: the learner is the one that learns."""

    def keep(self, run: Run) -> Kept:
        """Write what is remembered into a Run; return what else its checkpoint needs."""
        meta, arrays = self.learner.save()
        state: dict[str, Any] = {"learner": meta}
        packed = {f"learner.{k}": v for k, v in arrays.items()}
        packed |= {f"runner.{k}": v for k, v in self.runner.save().items()}
        if self.simtrace is not None:
            packed |= {f"simtrace.{k}": v for k, v in self.simtrace.arrays().items()}
        if self.learner.replay is not None:
            state["replay"], arrays = self._memory.write(run, self.learner.replay)
            packed |= {f"replay.{k}": v for k, v in arrays.items()}
        return Kept(state, packed, tuple(self._memory.segments))

    def renew(self, config: TrainConfig) -> None:
        """Begin anew with other settings of the learner."""
        self.config = config
        del self.learner  # its memory may be needed for the next
        self.learner = learner_for(config, self.env, self.device)

    def restore(self, run: Run, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[str]:
        """Continue from what `keep` returned, here or by several workers."""
        self.learner.restore(state["learner"], below(arrays, "learner."))
        notes = []
        replay = self.learner.replay
        if "members" in state:
            notes.append(
                "the checkpoint was written by several workers: the driver learns on here, and the "
                "cars begin new episodes" + (", its replay anew" if replay is not None else "")
            )
        else:
            self.runner.restore(below(arrays, "runner."))
            if replay is not None:
                self._memory.restore(run, state, below(arrays, "replay."), replay)
        if self.simtrace is not None and "simtrace" in state:
            self.simtrace.restore(run, state["simtrace"], below(arrays, "simtrace."))
        elif self.simtrace is not None:  # a run of a version that kept no such logs
            self.simtrace.open(run)
        return notes

    def traffic(self) -> Mapping[str, int]:
        """Return nothing: there is no other process."""
        return {}

    def close(self) -> None:
        """Do nothing: there is no other process."""


class Memory:
    """The pieces of a replay that a Run has."""

    def __init__(self) -> None:
        self.segments: list[int] = []
        """By the number of their first step."""
        self._written = 0

    def write(self, run: Run, replay: Replay) -> tuple[dict[str, Any], dict[str, Array]]:
        """Write what the replay took in since the last time; return what else it consists of."""
        first = max(self._written, replay.oldest)
        if replay.head > first:
            run.write_segment(first, replay.segment(first))
            self.segments.append(first)
            self._written = replay.head
        ends = [*self.segments[1:], self._written]
        pairs = zip(self.segments, ends, strict=True)
        self.segments = [first for first, end in pairs if end > replay.oldest]
        return replay.save()

    def restore(
        self, run: Run, state: Mapping[str, Any], own: Mapping[str, Array], replay: Replay
    ) -> None:
        """Let a replay hold what a Run has of it."""
        self.segments, self._written = state.get("segments", []), state["replay"]["head"]
        pieces = ((first, run.read_segment(first)) for first in self.segments)
        replay.restore(state["replay"], own, pieces)


def learner_for(config: TrainConfig, env: VectorEnv, device: str) -> Learner:
    """Make the learner of a training."""
    return make_learner(
        config.algorithm,
        observation_specs(env),
        action_spec(env),
        config.observation.actor,
        config.observation.critic,
        seed=config.seed,
        device=device,
    )


def needs_torch(config: TrainConfig) -> bool:
    """Say whether a training will need torch, before there is an environment to ask.

    Where more numbers are seen than is usual it may after all.
    """
    seen, camera = config.observation, config.observation.camera
    pictures = dict.fromkeys(PICTURES, (camera.height, camera.width, 1))
    pictures["camera"] = camera.shape
    specs: dict[str, ObservationSpec] = {
        name: ObservationSpec(pictures.get(name, (_USUAL,)), "float32")
        for name in {*seen.actor, *seen.critic}
    }
    return not learns_compiled(config.algorithm, specs, seen.actor, seen.critic)


def device_for(config: TrainConfig, env: VectorEnv) -> str:
    """Return torch's name for where this process learns.

    Torch is not imported where no GPU is asked for and nothing needs torch.

    Raises:
        ConfigError: there is no such device.
        MissingExtraError: torch is needed, and not installed.
    """
    wanted, seen = config.train.device, config.observation
    specs, actions = observation_specs(env), action_spec(env).size
    if wanted != "cuda" and learns_compiled(
        config.algorithm, specs, seen.actor, seen.critic, actions
    ):
        return "cpu"
    try:
        import torch
    except ImportError as error:
        if "torch" not in str(error):
            raise
        raise MissingExtraError("hotlap train", "torch", "train") from None

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError(
            "train.device: cuda was asked for, but torch finds no GPU here; choose cpu or auto"
        )
    return "cuda" if there and wanted != "cpu" else "cpu"


def next_phase(learner: Learner, config: TrainConfig, env: VectorEnv) -> Phase:
    """Return what a learner wants to be collected next."""
    if isinstance(learner, Phased):
        return learner.phase
    algorithm = config.algorithm
    if isinstance(algorithm, PPOSettings) and algorithm.episodes:
        most = max(1, algorithm.batch_max // config.train.cars)
        return Phase("", most, env.names, episodes=algorithm.episodes)
    return Phase("", algorithm.horizon, env.names)


def admit_itself(env: VectorEnv, learner: Learner, steps: int) -> tuple[str, ...]:
    """Let the present driver join the opponents, where its time has come; return who is there."""
    opponents = env.opponents
    if opponents is None or not opponents.due(steps):
        return ()
    task, name = driver_task(env.settings), f"{SELF}@{steps}"
    opponents.admit(Driver(name, task, *learner.policy_state()), steps)
    return tuple(driver.name for driver in opponents.versions)
