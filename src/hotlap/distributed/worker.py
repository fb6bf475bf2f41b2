"""Worker: a member as a Ray actor, in a process of its own."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError

from hotlap.crew import Driver
from hotlap.distributed.meeting import fetched, laid, own_address, received
from hotlap.distributed.member import (
    Collected,
    Copy,
    Keepsake,
    Learned,
    LeftOutError,
    Member,
    Part,
)
from hotlap.distributed.ring import Circle
from hotlap.distributed.server import News
from hotlap.errors import ClusterError
from hotlap.inputs import fingerprints
from hotlap.plan import TrainConfig
from hotlap.types import Array, Float32, Float64

__all__ = [
    "BegunAnewError",
    "Worker",
    "open_worker",
]


class BegunAnewError(Exception):
    """The process was lost, and another one has its place, which has not said hello yet."""


def open_worker(
    config: TrainConfig,
    part: Part,
    server: ActorHandle[Any],
    rivals: Mapping[str, Driver] | None,
    *,
    threads: int,
) -> ActorHandle[Any]:
    """Start a worker; Ray starts it anew, on a node that lives, if it dies.

    Args:
        config: of the training.
        part: which cars it has.
        server: where it meets the others.
        rivals: saved opponents by name.
        threads: processor cores.
    """
    options: dict[str, Any] = {
        "num_cpus": threads,
        "max_restarts": -1,
        "max_task_retries": 0,  # a round is not collected twice
        "scheduling_strategy": "SPREAD",
    }
    worker: Any = ray.remote(**options)(Worker)
    words = config.model_dump(mode="json", exclude_none=True)
    inputs = fingerprints(config)
    handle: ActorHandle[Any] = worker.remote(words, inputs, part, server, rivals, sys.path, threads)
    return handle


class Worker:
    """A member in a process of its own."""

    def __init__(
        self,
        words: Mapping[str, Any],
        inputs: Mapping[str, str],
        part: Part,
        server: ActorHandle[Any],
        rivals: Mapping[str, Driver] | None,
        folders: Sequence[str],
        threads: int,
    ) -> None:
        # Not by a runtime environment: for that Ray would begin a process that it has ready anew.
        os.environ["HOTLAP_THREADS"] = str(threads)
        # where the user's own files find what they import, on a machine that has it
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        self._words, self._inputs, self._rivals = dict(words), inputs, rivals
        self._part, self._server = part, server
        self._bound = int(self._words["distributed"]["staleness"])
        self._share = 1.0 / part.members
        self._made: Member | None = None

    def hello(self) -> int:
        """Get ready, and return the number of this process.

        Raises:
            HotlapError: a file that the training names is missing here, or another one.
        """
        if self._made is None:
            config = TrainConfig.model_validate(self._words)
            self._compare(fingerprints(config))
            anew = ray.get_runtime_context().was_current_actor_reconstructed
            anew &= config.distributed.share != "experience"  # where cars are put back
            # Who begins anew shall not drive what it has driven already.
            chance = int.from_bytes(os.urandom(4), "little") if anew else 0
            self._made = Member(
                config,
                self._part,
                self._meet,
                rivals=self._rivals,
                host=own_address(),
                chance=chance,
            )
        return os.getpid()

    def _compare(self, here: Mapping[str, str]) -> None:
        other = [name for name, mark in self._inputs.items() if here.get(name) != mark]
        if other:
            raise ClusterError(
                f"worker {self._part.place} on {socket.gethostname()} has another "
                f"{', '.join(other)} than the machine where the training was started: copy it to "
                "every node, or keep it in a folder that all nodes share"
            )

    @property
    def _member(self) -> Member:
        if self._made is None:
            raise BegunAnewError
        return self._made

    def collect(
        self, steps: int, breadth: float | None = None, driver: Copy | None = None
    ) -> Collected:
        """Let the cars drive; see `Member.collect`."""
        return self._member.collect(steps, breadth, driver)

    def collect_from(
        self, world: Mapping[str, Array] | None, steps: int, breadth: float | None, driver: Copy
    ) -> Collected:
        """Let the cars drive from where `world` says they were; None: from their start.

        In one call, so that no other comes between, in whichever process it is.
        """
        if world is None:
            self._made = None
        self.hello()
        if world is not None:
            self._member.put(world)
        return self._member.collect(steps, breadth, driver)

    def learn(self, number: int, progress: float, circle: Circle | None) -> Learned:
        """Learn with the others; see `Member.learn`."""
        return self._member.learn(number, progress, circle)

    def cycle(
        self, steps: int, breadth: float | None, progress: float
    ) -> tuple[Collected, dict[str, float], float]:
        """Collect, and learn without waiting for others."""
        collected = self._member.collect(steps, breadth)
        return (collected, *self._member.learn_on(progress, self._push))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what the learner has in common with its peers."""
        return self._member.state()

    def become(self, state: tuple[dict[str, Any], dict[str, Array]]) -> None:
        """Learn on as another member does."""
        self._member.become(*state)

    def copy(self) -> Copy:
        """Return what makes another drive as this one."""
        return self._member.copy()

    def follow(self, driver: Copy, version: int) -> None:
        """Learn on as another, from a version that the server has."""
        self._member.take(driver, version)

    def world(self) -> dict[str, Array]:
        """Return where the cars are."""
        return self._member.world()

    def keep(self, written: int) -> Keepsake:
        """Return what a checkpoint needs of this member alone."""
        return self._member.keep(written)

    def restore(self, *given: Any) -> None:
        """Continue exactly; see `Member.restore`."""
        self._member.restore(*given)

    def renew(self, words: Mapping[str, Any]) -> None:
        """Begin anew with other settings of the learner."""
        self._member.renew(TrainConfig.model_validate(dict(words)))

    def _meet(
        self, number: int, step: int, place: int, own: Array, what: Literal["sum", "gather"]
    ) -> Any:
        return self._asked(lambda: received(laid(self._server, number, step, place, own, what)))

    def _push(self, place: int, version: int, change: Float32, seen: Mapping[str, Float64]) -> News:
        given = (place, version, change, seen, self._share, self._bound)

        def ask() -> News:
            asked: Any = self._server.push.remote(*given)
            news: Any = ray.get(asked)
            return News(news.version, np.array(fetched(news.weights)), news.others)

        found: News = self._asked(ask)
        return found

    @staticmethod
    def _asked(ask: Callable[[], Any]) -> Any:
        """Ask the server; without an answer this round is lost."""
        try:
            return ask()
        except (RayActorError, ObjectLostError, LookupError) as error:
            time.sleep(0.05)  # it may be about to start anew
            raise LeftOutError(str(error)) from None
