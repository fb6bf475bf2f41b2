"""Team: a practice of many processes, which may be on many machines, and may be lost.

What travels is said by `distributed.share`; see docs/distributed.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from hotlap.algorithms.batch import Batch, below
from hotlap.algorithms.learner import Phase
from hotlap.algorithms.settings import DistillSettings
from hotlap.crew import Driver
from hotlap.distributed.cluster import connected
from hotlap.distributed.member import (
    Collected,
    Copy,
    Keepsake,
    LeftOutError,
    Part,
    assign,
    become,
    copied,
    divisible,
    shared_out,
)
from hotlap.distributed.worker import fetched, open_server, open_worker
from hotlap.env import Episodes, VectorEnv
from hotlap.errors import ConfigError, HotlapError, RunError
from hotlap.plan import TrainConfig
from hotlap.practice import Kept, Memory, Round, learner_for, next_phase
from hotlap.runner import joined_episodes
from hotlap.runs import Run
from hotlap.simtrace import Simtrace
from hotlap.threads import available
from hotlap.types import Array

__all__ = ["Team", "chosen_share"]

_DRIVER = -1
"""The place of this process among those whom the server tells what is new."""
_RETURN = 120.0
"""Seconds to wait for a worker where nobody is left to go on without it."""


def chosen_share(config: TrainConfig) -> TrainConfig:
    """Return the settings with what travels decided, and checked.

    Raises:
        ConfigError: the algorithm cannot share in that way.
    """
    given, algorithm = config.distributed, config.algorithm
    pictures = {"camera", "stereo", "depth", "segmentation"}
    seen = {*config.observation.actor, *config.observation.critic}
    replay, share = hasattr(algorithm, "capacity"), given.share
    distill = isinstance(algorithm, DistillSettings)
    memory = bool(getattr(getattr(algorithm, "network", None), "memory", 0))
    if share == "auto":
        share = "experience" if replay and not distill and not seen & pictures else "gradients"
        if not given.synchronous and share == "gradients":
            share = "weights"
    if distill and share != "gradients":
        raise ConfigError(
            f"distributed.share={share}: algorithm distill can only share gradients, as the "
            "frames it learns from stay where they were seen; choose gradients or auto"
        )
    if share == "experience" and memory and not replay:
        raise ConfigError(
            "distributed.share=experience: what a driver with a memory remembered is needed where "
            "it learns; choose gradients or weights"
        )
    if share == "gradients" and not given.synchronous:
        raise ConfigError(
            "distributed.synchronous=false: gradients are summed over all workers, who wait for "
            "each other; choose distributed.share=weights, or experience with a replay"
        )
    episodes = getattr(algorithm, "episodes", 0)
    if episodes and episodes % given.workers:
        raise ConfigError(
            f"algorithm.episodes: {episodes} episodes an update cannot be shared evenly by "
            f"{given.workers} workers; choose a multiple of {given.workers}"
        )
    if episodes and (memory or share == "experience"):
        raise ConfigError(
            "algorithm.episodes: workers end their shares of the episodes at different steps, "
            "which a memory, or a learner of experience, cannot put together; leave it 0"
        )
    minibatch = getattr(algorithm, "minibatch", given.workers)
    if minibatch < given.workers:
        raise ConfigError(
            f"algorithm.minibatch: {minibatch} samples are too few for {given.workers} workers"
        )
    return config.model_copy(update={"distributed": given.model_copy(update={"share": share})})


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
    written: int = 0
    """Steps of its replay that the Run has."""
    flying: Any = None
    """What it does at present, where nobody waits for it."""


class Team:
    """A practice of many processes; see `Practising`.

    Args:
        config: what is trained; `distributed` says by whom.
        device: torch's name for where this process evaluates, and learns from experience.
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
        device: str,
        rivals: Mapping[str, Driver] | None = None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> None:
        self.config = chosen_share(config)
        given = self.config.distributed
        self._tell, self._device, self._rivals = tell, device, rivals
        parts = shared_out(config.train.cars, given.workers, config.traffic.cars)
        self.env = VectorEnv(config, parts[0].rows, seed=config.seed, rivals=rivals)
        self.learner = learner_for(config, self.env, device)
        if given.share != "gradients":
            divisible(self.learner)
        self._memory = Memory()
        self._pieces: dict[int, dict[int, tuple[int, int]]] = {}
        self._number = 0
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
            self._server = open_server()
            self._seats = [
                _Seat(
                    part,
                    open_worker(self.config, part, self._server, rivals, threads=threads),
                )
                for part in parts
            ]
            self._get([seat.actor.hello.remote() for seat in self._seats])
            self._align()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _cores(workers: int, address: str) -> int:
        return 1 if address else max(1, available() // workers)

    # --- what a training asks ---

    def open(self, run: Run) -> None:
        """Do nothing: there are no logs besides the Run's own."""

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
        self.learner = learner_for(config, self.env, self._device)
        words = self.config.model_dump(mode="json", exclude_none=True)
        self._land()
        self._each("renew", lambda seat: (words,))

    def restore(self, run: Run, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[str]:
        """Continue from what `keep` returned, here or where there was one process alone."""
        common = state["learner"], below(arrays, "learner.")
        members, share = state.get("members", []), self.config.distributed.share
        alike = len(members) == len(self._seats) and state.get("share") == share
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
                    seat.world = below(arrays, f"member.{seat.part.place}.")
                    self._get(seat.actor.put.remote(seat.world))
                return []
            return self._begun_anew()
        self._align()
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
        self._seats = []
        self._stack.close()

    def traffic(self) -> dict[str, int]:
        """Return what has passed through the server since it began; of a lost one nothing."""
        try:
            found: dict[str, int] = self._get(self._server.seen.remote())
        except RayActorError:
            return {}
        return found

    # --- rounds in which all wait for all ---

    def _round_together(self, steps: int, progress: float) -> Round:
        self._welcome()
        start = time.perf_counter()
        phase = self.phase
        found = self._each("collect", lambda seat: (steps, self._breadth))
        collected = time.perf_counter()
        places = [seat.part.place for seat in self._present() if seat.part.place in found]
        learnt: dict[int, tuple[dict[str, float], float]] = {}
        if self._begin(places):
            number = self._number
            learnt = self._each("learn", lambda seat: (number, progress), places=places, leave=True)
        apart = [place for place in places if place not in learnt and self._is_here(place)]
        if apart:
            self._realign(next(iter(learnt), apart[0]))
        metrics = next(iter(learnt.values()))[0] if learnt else {}
        return self._noted(phase, list(found.values()), metrics, start, collected)

    def _begin(self, places: Sequence[int]) -> bool:
        """Let the server begin a round; False: it has just died."""
        try:
            self._get(self._server.begin.remote(self._number, list(places)))
        except RayActorError:
            self._tell("the server is lost, and begins anew")
            return False
        return True

    def _realign(self, place: int) -> None:
        """Let everybody learn on as one of them does."""
        with self._forgiving(self._seats[place]):
            if self.config.distributed.share == "weights":
                driver = ray.put(self._get(self._seats[place].actor.copy.remote()))
                self._each("follow", lambda seat: (driver, 0))
            else:
                state = ray.put(self._get(self._seats[place].actor.state.remote()))
                self._each("become", lambda seat: (state,))

    def _align(self) -> None:
        """Let everybody learn on as the learner of this process would."""
        share = self.config.distributed.share
        if share == "experience":
            return
        if share == "gradients":
            state = ray.put(self._common())
            self._each("become", lambda seat: (state,))
            return
        version = 0
        if not self.config.distributed.synchronous:
            version = self._get(self._server.keep.remote(copied(self.learner).weights))
            self._get(self._server.pull.remote(_DRIVER))
        driver = ray.put(copied(self.learner))
        self._land()
        self._each("follow", lambda seat: (driver, version))

    def _common(self) -> tuple[dict[str, Any], dict[str, Array]]:
        meta, arrays = self.learner.save()
        return meta, {k: v for k, v in arrays.items() if not k.startswith("memory.")}

    # --- rounds in which this process learns ---

    def _round_of_experience(self, steps: int, progress: float, *, ahead: bool) -> Round:
        start = time.perf_counter()
        phase = self.phase
        if not any(seat.flying for seat in self._seats):
            self._send(steps)
        found = [self._returned(seat, steps) for seat in self._seats]
        if ahead:
            self._send(steps + sum(one.steps for one in found))
        batch = _joined([one.batch for one in found if one.batch is not None])
        collected = time.perf_counter()
        metrics = self.learner.update(batch, progress=progress)
        for seat, one in zip(self._seats, found, strict=True):
            seat.world = one.world
        return self._noted(phase, found, metrics, start, collected)

    def _send(self, steps: int) -> None:
        """Let all collect with the present driver."""
        driver = ray.put(copied(self.learner))
        for seat in self._seats:
            seat.flying = seat.actor.collect.remote(steps, self._breadth, driver)

    def _returned(self, seat: _Seat, steps: int) -> Collected:
        """Wait for what a worker collected; one that is lost does it once more, from its start."""
        driver: Copy | None = None
        until = time.perf_counter() + _RETURN
        while True:
            try:
                found: Collected = self._get(seat.flying)
                seat.flying = None
                if seat.lost:
                    self._tell(self._back(seat))
                return found
            except RayActorError:
                self._lose(seat)
                if time.perf_counter() > until:
                    raise RunError(
                        f"worker {seat.part.place} has been lost for {_RETURN:.0f} s, and learning "
                        "from experience cannot go on without its cars. Add a node and continue "
                        "with --resume, or resume with fewer workers"
                    ) from None
                time.sleep(0.2)
                driver = driver or copied(self.learner)
                seat.actor.hello.options(max_task_retries=-1).remote()
                if seat.world is not None:
                    seat.actor.put.remote(seat.world)
                seat.flying = seat.actor.collect.remote(steps, self._breadth, driver)

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
            done, _ = ray.wait(list(flying), num_returns=1, timeout=0.5)
            if not done and time.perf_counter() > until:
                raise self._nobody()
            for ref in done:
                seat = flying[ref]
                seat.flying = None
                try:
                    collected, metrics, seconds = self._get(ref)
                except RayActorError:
                    self._lose(seat)
                except LeftOutError:
                    self._reseed(seat)
                else:
                    ended = time.perf_counter() - seconds
                    return self._noted(phase, [collected], metrics, start, max(start, ended))

    def _reseed(self, seat: _Seat) -> None:
        """Give a server that began anew the weights of a worker."""
        with self._forgiving(seat):
            driver = self._get(seat.actor.copy.remote())
            try:
                version = self._get(self._server.keep.remote(driver.weights))
                self._get(self._server.pull.remote(_DRIVER))
                self._get(seat.actor.follow.remote(driver, version))
                self._tell("the server was lost, and goes on from a worker's weights")
            except LookupError:
                return

    def _pull(self) -> None:
        try:
            news = self._get(self._server.pull.remote(_DRIVER))
        except (RayActorError, LookupError):  # a worker will give it weights in a moment
            return
        mine = divisible(self.learner)
        assign(mine, fetched(news.weights))
        mine.scales.become(mine.scales.save(), news.others)

    def _land(self) -> None:
        """Wait for all that is under way, and forget it."""
        for seat in self._seats:
            if seat.flying is not None:
                with self._forgiving(seat):
                    self._get(seat.flying)
                seat.flying = None

    # --- who is there ---

    def _present(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.hello is None]

    def _is_here(self, place: int) -> bool:
        return self._seats[place].hello is None

    def _lose(self, seat: _Seat) -> None:
        """Note that a worker is lost, and await it."""
        if not seat.lost:
            seat.lost = time.perf_counter()
            self._tell(f"worker {seat.part.place} is lost; Ray starts it anew")
        if self.config.distributed.share != "experience":
            seat.hello = seat.actor.hello.options(max_task_retries=-1).remote()
            self._server.leave.remote(seat.part.place)

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
                elif time.perf_counter() - seat.lost > _RETURN and not here:
                    raise self._nobody()
            if self._present() or not wait:
                return

    def _take_in(self, seat: _Seat) -> None:
        """Give one that has come back what the others have learned."""
        share, synchronous = self.config.distributed.share, self.config.distributed.synchronous
        try:
            self._get(seat.hello)
            if share == "gradients":
                state = self._ask_any("state") if self._present() else self._common()
                self._get(seat.actor.become.remote(state))
            elif synchronous:
                driver = self._ask_any("copy") if self._present() else copied(self.learner)
                self._get(seat.actor.follow.remote(driver, 0))
            else:
                self._pull()
                news = self._get(self._server.pull.remote(seat.part.place))
                self._get(seat.actor.follow.remote(copied(self.learner), news.version))
        except (RayActorError, LookupError):
            seat.hello = seat.actor.hello.options(max_task_retries=-1).remote()
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
                    continue
                except RayActorError:
                    self._lose(seat)
                except LeftOutError:
                    pass
                except HotlapError as error:
                    problem = error
                if leave:
                    self._server.leave.remote(seat.part.place)
        if problem is not None:
            raise problem
        return dict(sorted(found.items()))

    def _ask_any(self, method: str) -> Any:
        """Return what the first worker that is here answers."""
        while True:
            self._welcome()
            seat = self._present()[0]
            try:
                return self._get(getattr(seat.actor, method).remote())
            except RayActorError:
                self._lose(seat)

    def _take(self, driver: Copy) -> None:
        mine = divisible(self.learner)
        assign(mine, driver.weights)
        mine.scales.become(driver.scales, [])
        mine.count(driver.counters)

    @staticmethod
    def _get(refs: Any) -> Any:
        """Return what was asked for; what a worker raised is raised as it was there."""
        try:
            return ray.get(refs)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, HotlapError | LeftOutError | LookupError | RayActorError):
                raise cause from None
            raise
        except GetTimeoutError:
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
        if not found:
            nothing = Episodes(*(np.zeros(0, np.float32) for _ in range(6)))
            return Round(phase, 0, nothing, {}, 0.0, 0.0, np.inf, 0.0)
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
        if isinstance(error, RayActorError):
            self._team._lose(self._seat)
            return True
        return isinstance(error, LeftOutError)


def _joined(batches: Sequence[Batch]) -> Batch:
    """Put the rows of several batches side by side."""
    ended = np.concatenate([one.ended for one in batches], axis=1)
    # What ended steps reached stands step by step, over all rows.
    at, first = [], 0
    for one in batches:
        t, row = np.nonzero(one.ended)
        at.append(t * ended.shape[1] + row + first)
        first += one.rows
    order = np.argsort(np.concatenate(at), kind="stable")

    def side(name: str) -> Array:
        return np.concatenate([getattr(one, name) for one in batches], axis=1)

    first_one = batches[0]
    return replace(
        first_one,
        observation={
            name: np.concatenate([one.observation[name] for one in batches], axis=1)
            for name in first_one.observation
        },
        last_observation={
            name: np.concatenate([one.last_observation[name] for one in batches])
            for name in first_one.last_observation
        },
        action=side("action"),
        log_prob=side("log_prob"),
        reward=side("reward"),
        terminated=side("terminated"),
        truncated=side("truncated"),
        reached={
            name: np.concatenate([one.reached[name] for one in batches])[order]
            for name in first_one.reached
        },
        failed=side("failed"),
    )


def _pair(entry: Sequence[Any]) -> tuple[int, tuple[int, int]]:
    return int(entry[0]), (int(entry[1][0]), int(entry[1][1]))
