"""Member: a worker's part of a training, which is some of its cars and a copy of its driver.

Nothing here knows Ray: a member reaches the others by a function that it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from hotlap.algorithms.batch import Batch, below
from hotlap.algorithms.learner import Divisible, Learner
from hotlap.algorithms.peers import Peers
from hotlap.crew import Driver
from hotlap.distributed.ring import Circle, Ring
from hotlap.distributed.server import News
from hotlap.env import Episodes, VectorEnv
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig
from hotlap.practice import admit_itself, learner_for, next_phase
from hotlap.runner import Runner
from hotlap.types import Array, Float32, Float64

__all__ = [
    "Collected",
    "Copy",
    "Keepsake",
    "Learned",
    "LeftOutError",
    "Member",
    "Part",
    "become",
    "copied",
    "divisible",
    "part_settings",
    "shared_out",
]

Meet = Callable[[int, int, int, Array, Literal["sum", "gather"]], Any]
"""(round, step, place, array, what) to what all members gave at this step; see `Server.meet`."""


class LeftOutError(Exception):
    """The round went on without this member: its weights are those of nobody else."""


@dataclass(frozen=True)
class Part:
    """Which of all cars a member has."""

    place: int
    """Of the member among all, from 0."""
    first: int
    """Number of its first car."""
    rows: int
    """How many."""
    total: int
    """How many there are."""
    members: int
    """How many share them."""


@dataclass(frozen=True, eq=False)
class Copy:
    """What makes another learner drive, and learn on, as this one does."""

    weights: Float32
    """All in one vector."""
    scales: Mapping[str, Array]
    counters: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Collected:
    """What a member's cars did in a round."""

    steps: int
    episodes: Episodes
    fastest: float
    breadth: float
    admitted: tuple[str, ...]
    seconds: float
    batch: Batch | None = None
    """What they saw and did, where another process learns from it."""
    world: Mapping[str, Array] | None = None
    """Where the cars are afterwards, if so."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of a member's learning in a round."""

    metrics: Mapping[str, float]
    seconds: float
    met: int
    """How often it met the others: as often as they did, or it has not learned what they have."""
    sums: int
    """How many vectors were summed in a ring,"""
    bytes: int
    """and of how many bytes together."""


Push = Callable[[int, int, Float32, Mapping[str, Float64]], News]
"""(place, version, change, moments) to what is new; see `Server.push`."""


def shared_out(cars: int, members: int, together: int) -> list[Part]:
    """Share cars out among members as evenly as can be; `together` of them share a track.

    Raises:
        ConfigError: there are fewer cars, or groups of them, than members.
    """
    groups = cars // together
    if groups < members:
        raise ConfigError(
            f"distributed.workers: {members} workers cannot share {groups} "
            f"{'cars' if together == 1 else f'groups of {together} cars'}; "
            f"give train.cars at least {members * together}, or ask for fewer workers"
        )
    ends = [groups * i // members * together for i in range(members + 1)]
    return [
        Part(place, first, end - first, cars, members)
        for place, (first, end) in enumerate(pairwise(ends))
    ]


def part_settings(config: TrainConfig, members: int) -> TrainConfig:
    """Return the settings of a member that learns from its own cars as if there were no others.

    A step of all cars is `members` of its own: it takes as many gradient steps as one learner of
    all would, each on its share of the samples.
    """
    algorithm = config.algorithm
    changed: dict[str, Any] = {}
    for name in ("minibatch", "warmup", "epsilon_steps", "capacity"):
        if (value := getattr(algorithm, name, None)) is not None:
            changed[name] = max(1, round(value / members))
    if (ratio := getattr(algorithm, "update_ratio", None)) is not None:
        changed["update_ratio"] = ratio * members
    return config.model_copy(update={"algorithm": algorithm.model_copy(update=changed)})


class _Linked(Peers):
    """Peers in other processes, met step by step."""

    def __init__(self, part: Part, meet: Meet, host: str) -> None:
        super().__init__(part.first, part.total)
        self._part, self._meet, self._host = part, meet, host
        self.number = self.met = self.sums = self.bytes = 0
        self.circle: Circle | None = None
        self.ring: Ring | None = None

    def begin(self, number: int, circle: Circle | None = None) -> None:
        """Begin a round, in which sums are made in a circle, or by the server."""
        self.number, self.met, self.circle = number, 0, circle
        self.sums = self.bytes = 0
        if self.ring is not None and self.ring.circle != circle:
            self.ring = None

    def gather(self, own: Array) -> tuple[list[Array], int]:
        """Return what every member gives at this point, by place, and where ours is."""
        found = self._met(own, "gather")
        return list(found.values()), list(found).index(self._part.place)

    def sum(self, own: Float32) -> Float32:
        """Return the sum of what every member gives at this point."""
        if self.circle is None:
            total: Float32 = self._met(own, "sum")
            return total
        try:
            if self.ring is None:
                given = self._part.place, self._host
                self.ring = Ring(self.circle, *given, lambda one: self._met(one, "gather"))
            self.met, self.sums, self.bytes = self.met + 1, self.sums + 1, self.bytes + own.nbytes
            return self.ring.sum(own)
        except (RuntimeError, KeyError) as error:
            self.ring = None  # others who still wait hear of it by that
            raise LeftOutError(str(error)) from None

    def _met(self, own: Array, what: Literal["sum", "gather"]) -> Any:
        self.met += 1
        if self._part.members == 1:
            return own if what == "sum" else {self._part.place: own}
        found = self._meet(self.number, self.met, self._part.place, own, what)
        if found is None:
            raise LeftOutError
        return found


@dataclass(frozen=True, eq=False)
class Keepsake:
    """What a checkpoint holds of one member."""

    meta: Mapping[str, Any]
    """Of its learner."""
    arrays: Mapping[str, Array]
    replay: Mapping[str, Any] | None = None
    first: int = 0
    """Number of the first step of"""
    segment: Mapping[str, Array] | None = None
    """what its replay took in since the last time,"""
    oldest: int = 0
    """and of the oldest step that it still needs."""


class Member:
    """Some cars of a training, and a copy of its driver.

    Args:
        config: of the training.
        part: which cars.
        meet: how to meet the others.
        rivals: saved opponents by name.
        host: address of this machine, at which the others reach it.
        chance: 0, or what lets the cars of one that begins anew drive otherwise than before.
    """

    def __init__(
        self,
        config: TrainConfig,
        part: Part,
        meet: Meet,
        *,
        rivals: Mapping[str, Driver] | None = None,
        host: str = "127.0.0.1",
        chance: int = 0,
    ) -> None:
        self.part = part
        self.share = config.distributed.share
        self.env = VectorEnv(
            config,
            part.rows,
            seed=config.seed + (chance << 32),
            first_row=part.first,
            total_rows=part.total,
            desynchronize=True,
            rivals=rivals,
        )
        self.runner = Runner(self.env, seed=config.seed + (chance << 32))
        self._link = _Linked(part, meet, host)
        self._batch: Batch | None = None
        self._version = 0
        self.renew(config)

    def renew(self, config: TrainConfig) -> None:
        """Begin anew with other settings of the learner."""
        if self.share == "weights":
            config = part_settings(config, self.part.members)
        self.config = config
        self.learner = learner_for(config, self.env, "cpu")
        if self.share == "gradients":
            self.learner.join(self._link)
        elif self.share == "experience":
            self.learner.join(Peers(self.part.first, self.part.total))

    # --- a round ---

    def collect(
        self, steps: int, breadth: float | None = None, driver: Copy | None = None
    ) -> Collected:
        """Let the cars drive; keep what they saw, or return it where another process learns.

        Args:
            steps: of all cars so far.
            breadth: of the randomisation; None: as it is.
            driver: who drives from now on; None: who did.
        """
        start = time.perf_counter()
        if driver is not None:
            take(self.learner, driver)
        if breadth is not None:
            self.env.breadth = breadth
        admitted = admit_itself(self.env, self.learner, steps)
        phase = next_phase(self.learner, self.config, self.env)
        self.env.margin = phase.margin
        episodes = -(-phase.episodes // self.part.members)
        batch, over = self.runner.collect(self.learner, phase.steps, phase.names, episodes)
        away = self.share == "experience"
        self._batch = None if away else batch
        return Collected(
            steps=batch.reward.size,
            episodes=over,
            fastest=self.env.lap_best,
            breadth=self.env.breadth,
            admitted=admitted,
            seconds=time.perf_counter() - start,
            batch=batch if away else None,
            world=self.world() if away else None,
        )

    def learn(self, number: int, progress: float, circle: Circle | None = None) -> Learned:
        """Learn from what was collected, together with the others.

        Args:
            number: of the round, the same for all.
            progress: share of the budget that is spent.
            circle: who sums gradients among themselves; None: the server does.

        Raises:
            LeftOutError: the others went on without us.
        """
        start = time.perf_counter()
        assert self._batch is not None
        self._link.begin(number, circle)
        if self.share == "weights":
            metrics = self._learn_apart(progress)
        else:
            metrics = self.learner.update(self._batch, progress=progress)
        self._batch = None
        return Learned(
            metrics=metrics,
            seconds=time.perf_counter() - start,
            met=self._link.met,
            sums=self._link.sums,
            bytes=self._link.bytes,
        )

    def _learn_apart(self, progress: float) -> dict[str, float]:
        """Learn alone, then go on from the mean of what all have learned."""
        assert self._batch is not None
        learner = divisible(self.learner)
        before, scales = learner.vector(), learner.scales.save()
        metrics = self.learner.update(self._batch, progress=progress)
        total = self._link.sum((learner.vector() - before) / np.float32(self.part.members))
        seen = learner.scales.since(scales)
        flat = np.concatenate([seen[name].ravel() for name in sorted(seen)])
        parts, _ = self._link.gather(flat)
        learner.assign(before + total)
        learner.scales.become(scales, [_unpacked(part, seen) for part in parts])
        return metrics

    def learn_on(self, progress: float, push: Push) -> tuple[dict[str, float], float]:
        """Learn alone, and go on from what the parameter server makes of it."""
        start = time.perf_counter()
        assert self._batch is not None
        learner = divisible(self.learner)
        before, scales = learner.vector(), learner.scales.save()
        metrics = self.learner.update(self._batch, progress=progress)
        self._batch = None
        seen = learner.scales.since(scales)
        news = push(self.part.place, self._version, learner.vector() - before, seen)
        self._version = news.version
        learner.assign(news.weights)
        learner.scales.become(scales, [seen, *news.others])
        return metrics, time.perf_counter() - start

    # --- what others need of it ---

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what the learner has in common with its peers."""
        meta, arrays = self.learner.save()
        return meta, {name: array for name, array in arrays.items() if not _is_own(name)}

    def become(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Learn on as another member; what is of its own cars stays."""
        become(self.learner, meta, arrays)

    def take(self, driver: Copy, version: int) -> None:
        """Learn on as another, from this version of what the parameter server has."""
        take(self.learner, driver)
        self._version = version

    def copy(self) -> Copy:
        """Return what makes another drive, and learn on, as this one."""
        return copied(self.learner)

    def world(self) -> dict[str, Array]:
        """Return where the cars are, and what the learner remembers of each."""
        found = {f"runner.{k}": v for k, v in self.runner.save().items()}
        if self._remembers:
            own = self.learner.save()[1]
            found |= {f"own.{name}": array for name, array in own.items() if _is_own(name)}
        return found

    def put(self, world: Mapping[str, Array]) -> None:
        """Put the cars where `world` said they were."""
        self.runner.restore(below(world, "runner."))
        if own := below(world, "own."):
            meta, arrays = self.learner.save()
            self.learner.restore(meta, {**arrays, **own})

    def keep(self, written: int) -> Keepsake:
        """Return what a checkpoint needs of this member alone.

        Args:
            written: steps of its replay that the Run has already.
        """
        meta, arrays = self.learner.save()
        if self.share == "gradients":  # the rest is that of every member
            arrays = {name: array for name, array in arrays.items() if _is_own(name)}
        found = {f"learner.{k}": v for k, v in arrays.items()}
        found |= {f"runner.{k}": v for k, v in self.runner.save().items()}
        replay = self.learner.replay
        if replay is None:
            return Keepsake(meta, found)
        remembered, last = replay.save()
        found |= {f"replay.{k}": v for k, v in last.items()}
        first = max(written, replay.oldest)
        return Keepsake(meta, found, remembered, first, replay.segment(first), replay.oldest)

    def restore(
        self,
        common: tuple[Mapping[str, Any], Mapping[str, Array]],
        kept: Keepsake,
        pieces: Sequence[tuple[int, Mapping[str, Array]]],
    ) -> None:
        """Continue exactly from what all have in common, what `keep` returned, and the replay."""
        meta, arrays = common
        if self.share == "weights":
            meta = kept.meta
        self.learner.restore(meta, {**arrays, **below(kept.arrays, "learner.")})
        self.runner.restore(below(kept.arrays, "runner."))
        if self.learner.replay is not None and kept.replay is not None:
            self.learner.replay.restore(kept.replay, below(kept.arrays, "replay."), pieces)

    @property
    def _remembers(self) -> bool:
        algorithm = self.config.algorithm
        walks = getattr(algorithm, "noise", None) == "ornstein_uhlenbeck"
        return walks or algorithm.kind == "rdpg"


def _is_own(name: str) -> bool:
    """Whether an array of a learner speaks of its own cars, and is of no use to a peer."""
    return name.startswith("memory.") or name == "walk" or name.endswith("reward.return")


def become(learner: Learner, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Let a learner learn on as another; what is of its own cars stays."""
    own = {name: array for name, array in learner.save()[1].items() if _is_own(name)}
    learner.restore(meta, {**arrays, **own})


def divisible(learner: Learner) -> Divisible:
    """Return a learner as one that can be copied.

    Raises:
        ConfigError: its algorithm cannot.
    """
    if not isinstance(learner, Divisible):
        raise ConfigError(
            "distributed.share: algorithm distill can only share gradients; choose "
            "distributed.share=gradients"
        )
    return learner


def copied(learner: Learner) -> Copy:
    """Return what makes another learner drive as this one."""
    mine = divisible(learner)
    return Copy(mine.vector(), mine.scales.save(), mine.counters())


def take(learner: Learner, driver: Copy) -> None:
    """Let a learner drive, and learn on, as another; what is of its own cars stays."""
    mine = divisible(learner)
    mine.assign(driver.weights)
    mine.scales.become(driver.scales, [])
    mine.count(driver.counters)


def _unpacked(flat: Float64, like: Mapping[str, Float64]) -> dict[str, Float64]:
    found, at = {}, 0
    for name in sorted(like):
        size = like[name].size
        found[name] = flat[at : at + size].reshape(like[name].shape)
        at += size
    return found
