"""Team: a practice of many processes, which may be on many machines, and may be lost.

What travels is said by `distributed.share`; see docs/distributed.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
)

from hotlap.algorithms.batch import below, side_by_side
from hotlap.algorithms.learner import Phase
from hotlap.crew import Driver
from hotlap.distributed import ring
from hotlap.distributed.cluster import connected
from hotlap.distributed.meeting import fetched, open_server
from hotlap.distributed.member import (
    Collected,
    Copy,
    Keepsake,
    Learned,
    LeftOutError,
    Part,
    become,
    copied,
    divisible,
    shared_out,
)
from hotlap.distributed.ring import Circle
from hotlap.distributed.share import chosen_share
from hotlap.distributed.worker import BegunAnewError, open_worker
from hotlap.env import VectorEnv
from hotlap.errors import ClusterError, DivergedError, HotlapError, RunError
from hotlap.plan import TrainConfig
from hotlap.practice import Kept, Memory, Round, device_for, learner_for, next_phase
from hotlap.runner import joined_episodes
from hotlap.runs import Run
from hotlap.simtrace import Simtrace
from hotlap.threads import available
from hotlap.types import Array

__all__ = ["Team"]

_DRIVER = -1
"""The place of this process among those whom the server tells what is new."""
_RETURN = 120.0
"""Seconds to wait for a worker where nobody is left to go on without it."""
_START = 600.0
"""Seconds to wait for all workers at the beginning: they may have to compile first."""
_GONE = (RayActorError, ObjectLostError, NodeDiedError, BegunAnewError)
"""What a call to a worker raises that is lost, or whose answer is, or that is another by now."""


@dataclass
class _Seat:
    """A worker's place in the team."""

    part: Part
    actor: ActorHandle[Any]
    hello: Any = None
    """Where it is awaited: what it will answer when it is back."""
    lost: float = 0.0
    """Since when, by time.perf_counter()."""
    world: Mapping[str, Array] | None = None
    """Where its cars were after the last round that counted, if they can be put back."""
    astray: bool = False
    """Whether they may be elsewhere, and have to be."""
    written: int = 0
    """Steps of its replay that the Run has."""
    flying: Any = None
    """What it does at present, where nobody waits for it."""


class Team:
    """A practice of many processes; see `Practising`.

    Args:
        config: what is trained; `distributed` says by whom.
        rivals: saved opponents by name, where they need not be read from their Runs.
        tell: called with a sentence about whatever happens.

    Raises:
        ConfigError: the cars or the algorithm cannot be shared out so.
        ClusterError: Ray cannot be reached, or has no room.
    """

    simtrace: Simtrace | None = None
    """DeepRacer's logs are written by trainings in one process."""

    def __init__(
        self,
        config: TrainConfig,
        rivals: Mapping[str, Driver] | None = None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> None:
        self.config = chosen_share(config)
        given = self.config.distributed
        self._tell = tell
        parts = shared_out(config.train.cars, given.workers, config.traffic.cars)
        self.env = VectorEnv(config, parts[0].rows, seed=config.seed, rivals=rivals)
        self.device = device_for(config, self.env)
        """Where this process evaluates, and learns from experience."""
        self.learner = learner_for(config, self.env, self.device)
        if given.share != "gradients":
            divisible(self.learner)
        self._seats: list[_Seat] = []
        self._server: Any = None
        self._memory = Memory()
        self._pieces: dict[int, dict[int, tuple[int, int]]] = {}
        self._number = self._circle = 0
        self._sums = self._bytes = 0
        self._breadth: float | None = None
        self._stack = ExitStack()
        threads = given.threads or self._cores(given.workers, given.address)
        try:
            cluster = self._stack.enter_context(
                connected(given.address, workers=given.workers, threads=threads)
            )
            for warning in cluster.warnings:
                tell(warning)
            tell(
                f"{given.workers} {'worker' if given.workers == 1 else 'workers'} share "
                f"{given.share}, with {threads} {'core' if threads == 1 else 'cores'} each, on "
                f"{'this machine' if cluster.started else cluster.address}"
            )
            if self.device != "cpu" and given.share != "experience":
                tell(
                    "workers learn on processors; with distributed.share=experience this process "
                    "learns on its GPU"
                )
            self._server = open_server()
            self._seats = [
                _Seat(
                    part,
                    open_worker(self.config, part, self._server, rivals, threads=threads),
                )
                for part in parts
            ]
            self._greet()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _cores(workers: int, address: str) -> int:
        elsewhere = address or os.environ.get("RAY_ADDRESS", "")
        return 1 if elsewhere else max(1, available() // workers)

    def _greet(self) -> None:
        """Wait until all are ready; one that is lost meanwhile is started anew."""
        hellos = [self._hello(seat) for seat in self._seats]
        ready, missing = ray.wait(hellos, num_returns=len(hellos), timeout=_START)
        self._get(ready)  # says what keeps one of them from it
        if missing:
            raise ClusterError(
                f"{len(missing)} of {len(hellos)} workers have not been ready for {_START:.0f} s; "
                "look at the nodes with ray status"
            )

    # --- what a training asks ---

    def open(self, run: Run) -> None:
        """Let everybody begin as `learner`, which may have been given a driver or a teacher."""
        self._align()

    @property
    def phase(self) -> Phase:
        """What the learner wants to be collected next, as far as is known here."""
        return next_phase(self.learner, self.config, self.env)

    def round(self, steps: int, progress: float) -> Round:
        """Collect and learn once; see `Practising`. A worker that is lost is left out."""
        self._number += 1
        share, synchronous = self.config.distributed.share, self.config.distributed.synchronous
        if share == "experience":
            return self._round_of_experience(steps, progress, ahead=not synchronous)
        if not synchronous:
            return self._next_cycle(steps, progress)
        return self._round_together(steps, progress)

    def catch_up(self) -> None:
        """Bring `learner` up to date with what the workers have learned."""
        share = self.config.distributed.share
        if share == "gradients":
            become(self.learner, *self._ask_any("state"))
        elif share == "weights" and self.config.distributed.synchronous:
            self._take(self._ask_any("copy"))
        elif share == "weights":
            self._pull()

    def keep(self, run: Run) -> Kept:
        """Write what is remembered into a Run; return what else its checkpoint needs."""
        meta, arrays = self.learner.save()
        packed = {f"learner.{k}": v for k, v in arrays.items()}
        state: dict[str, Any] = {"learner": meta, "share": self.config.distributed.share}
        state["breadth"] = self._breadth
        if self.config.distributed.share == "experience":
            for seat in self._seats:
                world = seat.world or {}
                packed |= {f"member.{seat.part.place}.{k}": v for k, v in world.items()}
            state["members"] = [{} for _ in self._seats]
            if self.learner.replay is not None:
                state["replay"], last = self._memory.write(run, self.learner.replay)
                packed |= {f"replay.{k}": v for k, v in last.items()}
            return Kept(state, packed, tuple(self._memory.segments))
        kept = self._each("keep", lambda seat: (seat.written,))
        members: list[dict[str, Any]] = [{} for _ in self._seats]
        piece: dict[str, Array] = {}
        at: dict[int, tuple[int, int]] = {}
        for place, one in kept.items():
            members[place] = {"learner": one.meta, "replay": one.replay}
            packed |= {f"member.{place}.{k}": v for k, v in one.arrays.items()}
            if one.replay is not None and one.segment is not None:
                end = int(one.replay["head"])
                if end > one.first:
                    piece |= {f"{place}.{k}": v for k, v in one.segment.items()}
                    at[place] = one.first, end
                self._seats[place].written = end
        if piece:
            number = max(self._pieces, default=-1) + 1
            run.write_segment(number, piece)
            self._pieces[number] = at
        oldest = {place: one.oldest for place, one in kept.items()}
        self._pieces = {
            number: ends
            for number, ends in self._pieces.items()
            if any(end > oldest.get(place, 0) for place, (_, end) in ends.items())
        }
        state["members"] = members
        state["pieces"] = [[number, list(at.items())] for number, at in self._pieces.items()]
        return Kept(state, packed, tuple(self._pieces))

    def renew(self, config: TrainConfig) -> None:
        """Begin anew with other settings of the learner."""
        self.config = chosen_share(config)
        self.learner = learner_for(config, self.env, self.device)
        words = self.config.model_dump(mode="json", exclude_none=True)
        self._land()
        self._each("renew", lambda seat: (words,))

    def restore(self, run: Run, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[str]:
        """Continue from what `keep` returned, here or where there was one process alone."""
        common = state["learner"], below(arrays, "learner.")
        members, share = state.get("members", []), self.config.distributed.share
        alike = len(members) == len(self._seats) and state.get("share") == share
        self._breadth = state.get("breadth")
        if share != "experience" or not alike:
            become(self.learner, *common)
        if share == "experience":
            replay = self.learner.replay
            if alike:
                self.learner.restore(*common)
                if replay is not None:
                    self._memory.restore(run, state, below(arrays, "replay."), replay)
                self._land()
                for seat in self._seats:
                    seat.world = below(arrays, f"member.{seat.part.place}.") or None
                    seat.astray = True
                return []
            return self._begun_anew()
        self._align()
        for seat in self._seats:
            seat.written = 0
        if not alike:
            return self._begun_anew()
        self._pieces = {number: dict(map(_pair, at)) for number, at in state.get("pieces", [])}
        for seat in self._seats:
            place, found = seat.part.place, members[seat.part.place]
            if not found:  # it was lost when this was written
                continue
            pieces = []
            for number, at in self._pieces.items():
                if place in at:
                    piece = below(run.read_segment(number), f"{place}.")
                    pieces.append((at[place][0], piece))
            if found["replay"]:
                seat.written = int(found["replay"]["head"])
            own = Keepsake(found["learner"], below(arrays, f"member.{place}."), found["replay"])
            with self._forgiving(seat):
                self._get(seat.actor.restore.remote(common, own, pieces))
        return []

    def _begun_anew(self) -> list[str]:
        return [
            "the checkpoint was written with other workers: the driver learns on, and the cars "
            "begin new episodes" + (", its replay anew" if self._remembers else "")
        ]

    @property
    def _remembers(self) -> bool:
        return hasattr(self.config.algorithm, "capacity")

    def close(self) -> None:
        """End every worker, and Ray if it was started for this."""
        actors = [seat.actor for seat in self._seats]
        actors += [] if self._server is None else [self._server]
        self._seats, self._server = [], None
        for actor in actors if ray.is_initialized() else []:
            ray.kill(actor)
        self._stack.close()

    def traffic(self) -> dict[str, int]:
        """Return what was exchanged; of a server that was lost, nothing."""
        try:
            found: dict[str, int] = self._get(self._server.seen.remote())
        except RayActorError:
            return {}
        found["exchanges"] += self._sums
        found["exchanged"] += self._bytes
        return found

    # --- rounds in which all wait for all ---

    def _round_together(self, steps: int, progress: float) -> Round:
        start = time.perf_counter()
        phase = self.phase
        found: dict[int, Collected] = {}
        while not found:
            self._welcome()
            found = self._each("collect", lambda seat: (steps, self._breadth))
        collected = time.perf_counter()
        places, number = list(found), self._number
        self._serve("begin", number, places)
        circle = None
        if self.config.distributed.share == "gradients" and len(places) > 1 and ring.available():
            circle = Circle(self._circle, tuple(places))
        learnt: dict[int, Learned]
        given = number, progress, circle
        learnt = self._each("learn", lambda seat: given, places=places, leave=True)
        most = max((one.met for one in learnt.values()), default=0)
        alike = [place for place in learnt if learnt[place].met == most and self._is_here(place)]
        apart = [place for place in places if place not in alike and self._is_here(place)]
        self._sums += sum(one.sums for one in learnt.values())
        self._bytes += sum(one.bytes for one in learnt.values())
        if apart:
            self._circle += 1
            if not learnt and all(map(self._is_here, places)):
                self._tell("the server was lost, and has begun anew; nothing is learned this time")
            self._realign([*alike, *apart])
        metrics = learnt[alike[0]].metrics if alike else {}
        return self._noted(phase, list(found.values()), metrics, start, collected)

    def _realign(self, places: Sequence[int]) -> None:
        """Let everybody learn on as the first of these that is still here."""
        weights = self.config.distributed.share == "weights"
        for place in places:
            seat = self._seats[place]
            with self._forgiving(seat):
                ask: Any = seat.actor.copy if weights else seat.actor.state
                given: tuple[Any, ...] = (ray.put(self._get(ask.remote())),)
                given = (*given, 0) if weights else given
                self._tell_all("follow" if weights else "become", *given)
                return

    def _align(self) -> None:
        """Let everybody learn on as the learner of this process would."""
        share = self.config.distributed.share
        if share == "experience":
            return
        self._land()
        self._tell_all("become", ray.put(self._common()))
        if not self.config.distributed.synchronous:
            driver = copied(self.learner)
            version = self._give(driver)
            self._tell_all("follow", ray.put(driver), version)

    def _common(self) -> tuple[dict[str, Any], dict[str, Array]]:
        meta, arrays = self.learner.save()
        return meta, {k: v for k, v in arrays.items() if not k.startswith("memory.")}

    # --- rounds in which this process learns ---

    def _round_of_experience(self, steps: int, progress: float, *, ahead: bool) -> Round:
        start = time.perf_counter()
        phase = self.phase
        self._send(steps)
        found = [self._returned(seat, steps) for seat in self._seats]
        if ahead:
            self._send(steps + sum(one.steps for one in found))
        batch = side_by_side([one.batch for one in found if one.batch is not None])
        collected = time.perf_counter()
        metrics = self.learner.update(batch, progress=progress)
        return self._noted(phase, found, metrics, start, collected)

    def _send(self, steps: int) -> None:
        """Let all who are here, and are not at it already, collect with the present driver."""
        idle = [seat for seat in self._present() if seat.flying is None]
        driver = ray.put(copied(self.learner)) if idle else None
        for seat in idle:
            self._fly(seat, steps, driver)

    def _fly(self, seat: _Seat, steps: int, driver: Any) -> None:
        if seat.astray:
            given = (seat.world, steps, self._breadth, driver)
            seat.flying = seat.actor.collect_from.remote(*given)
        else:
            seat.flying = seat.actor.collect.remote(steps, self._breadth, driver)

    def _returned(self, seat: _Seat, steps: int) -> Collected:
        """Wait for what a worker collected; one that is lost does it once more, from its start."""
        while True:
            try:
                if seat.flying is None:
                    self._await(seat)
                    self._fly(seat, steps, ray.put(copied(self.learner)))
                found: Collected = self._get(seat.flying)
            except _GONE:
                self._lose(seat)
                continue
            seat.flying, seat.world, seat.astray = None, found.world, False
            if seat.lost:
                self._tell(self._back(seat))
            return found

    def _await(self, seat: _Seat) -> None:
        """Wait for one that is lost, and without whom it cannot go on."""
        if seat.hello is None:
            return
        done, _ = ray.wait([seat.hello], timeout=max(0.0, self._left(seat)))
        if not done or self._left(seat) <= 0:
            raise RunError(
                f"worker {seat.part.place} has been lost for {_RETURN:.0f} s, and learning "
                "from experience cannot go on without its cars. Add a node and continue "
                "with --resume, or resume with fewer workers"
            )
        hello, seat.hello = seat.hello, None
        self._get(hello)

    @staticmethod
    def _left(seat: _Seat) -> float:
        """Return for how long one that is lost may still be waited for [s]."""
        return seat.lost + _RETURN - time.perf_counter()

    # --- rounds in which nobody waits ---

    def _next_cycle(self, steps: int, progress: float) -> Round:
        """Return what the next worker to finish has done, and send it on."""
        start = time.perf_counter()
        phase = self.phase
        until = start + _RETURN
        while True:
            self._welcome(wait=False)
            for seat in self._present():
                if seat.flying is None:
                    seat.flying = seat.actor.cycle.remote(steps, self._breadth, progress)
            flying = {seat.flying: seat for seat in self._present()}
            if not flying:
                if time.perf_counter() > until:
                    raise self._nobody()
                continue
            done, _ = ray.wait(list(flying), num_returns=1, timeout=0.5)
            for ref in done:
                seat = flying[ref]
                seat.flying = None
                try:
                    collected, metrics, seconds = self._get(ref)
                except _GONE:
                    self._lose(seat)
                except LeftOutError:
                    self._reseed(seat)
                else:
                    ended = time.perf_counter() - seconds
                    return self._noted(phase, [collected], metrics, start, max(start, ended))

    def _reseed(self, seat: _Seat) -> None:
        """Give a server that began anew the weights of a worker, who was left out for that."""
        with self._forgiving(seat):
            driver = self._get(seat.actor.copy.remote())
            try:
                news = self._serve("pull", seat.part.place)
                driver = replace(driver, weights=np.array(fetched(news.weights)))
                version = news.version
            except LookupError:
                version = self._give(driver)
                self._tell("the server was lost, and goes on from a worker's weights")
            except ObjectLostError:  # it is lost once more; the worker will be left out again
                return
            self._get(seat.actor.follow.remote(driver, version))

    def _give(self, driver: Copy) -> int:
        """Let the server go on from these weights; return their version."""
        version: int = self._serve("keep", driver.weights)
        self._serve("pull", _DRIVER)  # it is told of what others see from now on
        return version

    def _pull(self) -> bool:
        """Take in what the server has; False: it has nothing."""
        try:
            news = self._serve("pull", _DRIVER)
            weights = fetched(news.weights)
        except (LookupError, ObjectLostError):  # a worker will give it weights in a moment
            return False
        mine = divisible(self.learner)
        mine.assign(weights)
        mine.scales.become(mine.scales.save(), news.others)
        return True

    def _land(self) -> None:
        """Wait for all that is under way, and forget it."""
        for seat in self._seats:
            flying, seat.flying = seat.flying, None
            if flying is not None:
                with self._forgiving(seat), suppress(DivergedError):
                    self._get(flying)

    # --- who is there ---

    def _present(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.hello is None]

    def _is_here(self, place: int) -> bool:
        return self._seats[place].hello is None

    @staticmethod
    def _hello(seat: _Seat) -> Any:
        """Call a worker until it is there to answer."""
        return seat.actor.hello.options(max_task_retries=-1).remote()

    def _lose(self, seat: _Seat) -> None:
        """Note that a worker is lost, and await it."""
        if not seat.lost:
            seat.lost = time.perf_counter()
            self._tell(f"worker {seat.part.place} is lost; Ray starts it anew")
        seat.flying, seat.astray = None, True
        self._circle += 1
        seat.hello = self._hello(seat)
        self._server.leave.remote(self._number, seat.part.place)
        self._server.forget.remote(seat.part.place)

    def _back(self, seat: _Seat) -> str:
        seconds, seat.lost = time.perf_counter() - seat.lost, 0.0
        return f"worker {seat.part.place} is back after {seconds:.1f} s"

    def _welcome(self, *, wait: bool = True) -> None:
        """Take in who has come back; with nobody here, wait for the first."""
        while True:
            here = self._present()
            for seat in self._seats:
                if seat.hello is None:
                    continue
                done, _ = ray.wait([seat.hello], timeout=0.0 if here else 0.5)
                if done:
                    self._take_in(seat)
                if not self._present() and self._left(seat) <= 0:
                    raise self._nobody()
            if self._present() or not wait:
                return

    def _take_in(self, seat: _Seat) -> None:
        """Give one that has come back what the others have learned."""
        share, synchronous = self.config.distributed.share, self.config.distributed.synchronous
        try:
            self._get(seat.hello)
            if share != "experience" and synchronous:
                state = self._asked("state") or self._common()
                self._get(seat.actor.become.remote(state))
            elif share == "weights":
                if not self._pull() and not self._present():  # nobody else can give it weights
                    self._give(copied(self.learner))
                news = self._serve("pull", seat.part.place)
                self._get(seat.actor.follow.remote(copied(self.learner), news.version))
        except (*_GONE, LookupError):
            time.sleep(0.1)
            seat.hello = self._hello(seat)
            return
        seat.hello, seat.written = None, 0
        for at in self._pieces.values():
            at.pop(seat.part.place, None)
        self._tell(self._back(seat))

    def _nobody(self) -> RunError:
        return RunError(
            f"no worker has answered for {_RETURN:.0f} s. Look at the nodes with ray status, and "
            "continue with --resume"
        )

    # --- calls ---

    def _each(
        self,
        method: str,
        given: Callable[[_Seat], tuple[Any, ...]],
        *,
        places: Sequence[int] | None = None,
        leave: bool = False,
    ) -> dict[int, Any]:
        """Call a method of each worker that is here; return by place what those said that live.

        With `leave` the others wait for each other, and not for one that is lost.
        """
        chosen = [s for s in self._present() if places is None or s.part.place in places]
        flying = {getattr(seat.actor, method).remote(*given(seat)): seat for seat in chosen}
        found: dict[int, Any] = {}
        problem: Exception | None = None
        while flying:
            done, _ = ray.wait(list(flying), num_returns=1)
            for ref in done:
                seat = flying.pop(ref)
                try:
                    found[seat.part.place] = self._get(ref)
                except _GONE:
                    self._lose(seat)
                except LeftOutError:
                    pass
                except HotlapError as error:
                    problem = error
                if leave:  # whatever it said: the others may need longer
                    self._server.leave.remote(self._number, seat.part.place)
        if problem is not None:
            raise problem
        return dict(sorted(found.items()))

    def _tell_all(self, method: str, *given: Any) -> None:
        """Call a method of each worker that is here with the same arguments."""
        self._each(method, lambda seat: given)

    def _ask_any(self, method: str) -> Any:
        """Return what the first worker that is here answers."""
        while True:
            self._welcome()
            if (found := self._asked(method)) is not None:
                return found

    def _asked(self, method: str) -> Any:
        """Return what the first worker that is here answers; None: nobody is."""
        for seat in self._present():
            try:
                return self._get(getattr(seat.actor, method).remote())
            except _GONE:
                self._lose(seat)
        return None

    def _serve(self, method: str, *given: Any) -> Any:
        """Return what the server answers, which may have to start anew for it."""
        asked = getattr(self._server, method).options(max_task_retries=-1).remote(*given)
        try:
            return self._get(asked, _RETURN)
        except (GetTimeoutError, RayActorError) as error:
            raise ClusterError(
                f"the server of the training has not answered for {_RETURN:.0f} s. Look at the "
                "nodes with ray status, and continue with --resume"
            ) from error

    def _take(self, driver: Copy) -> None:
        mine = divisible(self.learner)
        mine.assign(driver.weights)
        mine.scales.become(driver.scales, [])
        mine.count(driver.counters)

    @staticmethod
    def _get(refs: Any, timeout: float | None = None) -> Any:
        """Return what was asked for; what a worker raised is raised as it was there."""
        try:
            return ray.get(refs, timeout=timeout)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, (HotlapError, LeftOutError, LookupError, *_GONE)):
                raise cause from None
            raise

    def _forgiving(self, seat: _Seat) -> _Forgiving:
        return _Forgiving(self, seat)

    def _noted(
        self,
        phase: Phase,
        found: Sequence[Collected],
        metrics: Mapping[str, float],
        start: float,
        collected: float,
    ) -> Round:
        if self.config.randomize.success:
            rows = [one.steps for one in found]
            self._breadth = float(np.average([one.breadth for one in found], weights=rows))
        now = time.perf_counter()
        return Round(
            phase=phase,
            steps=sum(one.steps for one in found),
            episodes=joined_episodes([one.episodes for one in found]),
            metrics=metrics,
            collecting=collected - start,
            learning=now - collected,
            fastest=min(one.fastest for one in found),
            breadth=found[0].breadth if self._breadth is None else self._breadth,
            admitted=found[0].admitted,
        )


class _Forgiving:
    """Notes a worker as lost where a call to it fails for that."""

    def __init__(self, team: Team, seat: _Seat) -> None:
        self._team, self._seat = team, seat

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, _GONE):
            self._team._lose(self._seat)
            return True
        return isinstance(error, LeftOutError)


def _pair(entry: Sequence[Any]) -> tuple[int, tuple[int, int]]:
    return int(entry[0]), (int(entry[1][0]), int(entry[1][1]))
