"""Rehearsal: a worker's part of a training, done here and timed against echoes of the others."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
from ray.actor import ActorHandle

from hotlap.algorithms import footprint
from hotlap.algorithms.batch import Batch
from hotlap.algorithms.learner import Divisible
from hotlap.distributed import ring
from hotlap.distributed.calibration import Calibration, as_measured
from hotlap.distributed.cluster import connected
from hotlap.distributed.meeting import laid, open_server, own_address, received
from hotlap.distributed.member import Member, Part, copied, shared_out
from hotlap.distributed.share import chosen_share
from hotlap.distributed.sizing import Exchange, Link, Share, Work
from hotlap.errors import ConfigError
from hotlap.machine import cpu
from hotlap.plan import TrainConfig
from hotlap.practice import device_for, learner_for
from hotlap.runner import observation_specs
from hotlap.threads import available
from hotlap.types import Array

__all__ = ["calibrated", "rehearsed"]

_KiB = 1024
SIZES = (4, 16 * _KiB, 80 * _KiB, 256 * _KiB, 1000 * _KiB, 1024 * _KiB, 4096 * _KiB)
"""Bytes of arrays whose exchange is timed: in one call, in pieces, and through shared memory."""

TOGETHER = 4
"""Workers whose messages the server gets at once where its processor is timed."""

_REPEATS = 25
"""Of a sum in a ring, whose two have to repeat it equally often."""


def calibrated(
    config: TrainConfig,
    shares: Sequence[Share],
    sizes: Sequence[int],
    *,
    each: int = 0,
    seconds: float = 0.3,
    tell: Callable[[str], None] = lambda said: None,
) -> Calibration:
    """Measure what a plan needs, with a Ray that is started here for it.

    Args:
        config: what is to be trained.
        shares: ways of sharing.
        sizes: numbers of workers.
        each: cars of every worker; 0: `train.cars` are shared out.
        seconds: for each figure.
        tell: called with a sentence about what is measured.

    Raises:
        ConfigError: no way can be shared by any number.
        MissingExtraError: Ray is not installed.
    """
    threads = config.distributed.threads or 1
    full = max(1, min(16, available() // threads))
    asked, refused = _possible(config, shares, sizes, each)
    works: dict[Share, dict[int, Work]] = {share: {} for share in asked}
    with connected(workers=full, threads=threads):
        actors = [_open(threads) for _ in range(full)]
        ray.get([actor.nothing.remote() for actor in actors])
        tell("measuring messages")
        link, server = _link(actors[0], actors[1] if full > 1 else _open(0), seconds)
        spreads: list[float] = []
        for share, by_size in asked.items():
            # From few cars to many: the most memory that a process had is that of the last.
            for n in sorted(by_size, reverse=True):
                tell(f"measuring {share} at {n} worker{'s' if n > 1 else ''}")
                given = (_words(by_size[n]), share, n, seconds)
                work, spread = _got(actors[0].rehearse.remote(*given))
                works[share][n] = work
                spreads.append(spread)
        crowding = 1.0
        if full > 1:
            tell(f"measuring {full} workers at once")
            crowding = _crowding(actors, asked, works, seconds)
    joining = 0.0
    for n, settings in asked.get("experience", {}).items():
        tell(f"measuring the learner of {n} worker{'s' if n > 1 else ''}")
        if each or not joining:
            learning, joining, replay = _learner(settings, seconds)
        works["experience"][n] = _with(works["experience"][n], learning=learning, replay=replay)
    return Calibration(
        format=2,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=cpu(),
        cores=available(),
        settings=as_measured(config, each),
        each=each,
        threads=threads,
        link=_with(link, joining=joining),
        crowding=crowding,
        spread=statistics.median(spreads),
        server=server,
        learner=_resident(os.getpid()),
        works={share: dict(sorted(by_size.items())) for share, by_size in works.items()},
        refused=refused,
    )


def _possible(
    config: TrainConfig, shares: Sequence[Share], sizes: Sequence[int], each: int
) -> tuple[dict[Share, dict[int, TrainConfig]], dict[str, str]]:
    """Return the settings by way and size, and why others are not possible."""
    asked: dict[Share, dict[int, TrainConfig]] = {}
    refused: dict[str, str] = {}
    for share in shares:
        for n in sizes:
            try:
                settings = _settings(config, share, n, each)
                shared_out(settings.train.cars, n, config.traffic.cars)
                settings = chosen_share(settings)
            except ConfigError as error:
                refused[f"{share} at {n}"] = str(error)
            else:
                asked.setdefault(share, {})[n] = settings
    if not asked:
        raise ConfigError(next(iter(refused.values())))
    return asked, refused


def _settings(config: TrainConfig, share: Share, n: int, each: int) -> TrainConfig:
    changed = {"workers": n, "share": share}
    words: dict[str, Any] = {"distributed": config.distributed.model_copy(update=changed)}
    if each:
        words["train"] = config.train.model_copy(update={"cars": each * n})
    return config.model_copy(update=words)


def _words(config: TrainConfig) -> dict[str, Any]:
    words: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    return words


def _with(record: Any, **changed: Any) -> Any:
    return type(record)(**({f.name: getattr(record, f.name) for f in fields(record)} | changed))


# --- one worker ---


class _Echo:
    """Answers a member as if the others had given what it gives."""

    def __init__(self, members: int) -> None:
        self._members = members
        self.heard: Counter[tuple[str, int]] = Counter()

    def __call__(
        self, number: int, step: int, place: int, own: Array, what: Literal["sum", "gather"]
    ) -> Any:
        self.heard[what, own.nbytes] += 1
        if what == "sum":
            return own * np.asarray(self._members, own.dtype)
        return dict.fromkeys(range(self._members), own)


def rehearsed(
    config: TrainConfig, share: Share, workers: int, seconds: float
) -> tuple[Work, float]:
    """Let one worker of many collect and learn; return what it costs, and how that spreads.

    What it learns is of no use: the others are its echoes.
    """
    echo = _Echo(workers)
    part = max(
        shared_out(config.train.cars, workers, config.traffic.cars), key=lambda one: one.rows
    )
    config = _soon(config)
    member = Member(config, part, echo)
    rounds = _Rounds(member, share)
    for _ in range(100):  # till it learns; and once more, as what comes first costs more
        if rounds.again():
            break
    rounds.again()
    echo.heard.clear()
    found: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < until:
        rounds.again()
        found.append(rounds.last)
    collecting, learning = (statistics.median(part) for part in zip(*found, strict=True))
    whole = np.array(found).sum(axis=1)
    low, middle, high = np.quantile(whole, [0.25, 0.5, 0.75])
    observed = (*config.observation.actor, *config.observation.critic)
    parts = footprint.footprint(
        member.config.algorithm, observation_specs(member.env), observed, part.rows
    )
    away = share == "experience"
    work = Work(
        workers=workers,
        rows=part.rows,
        steps=rounds.steps * part.total // part.rows,
        collecting=collecting,
        learning=0.0 if away else learning,
        exchanges=() if away else tuple(_exchanges(echo.heard, len(found), share)),
        batch=rounds.bytes if away else 0,
        weights=_weights(member),
        memory=_resident(os.getpid()),
        replay=int(parts.get("algorithm.capacity", 0.0) + parts.get("algorithm.memory", 0.0)),
    )
    return work, float((high - low) / 1.349 / middle)


class _Rounds:
    """Rounds of a member alone."""

    def __init__(self, member: Member, share: Share) -> None:
        self._member, self._share, self._number = member, share, 0
        self.last = (0.0, 0.0)
        self.steps = self.bytes = 0

    def again(self) -> bool:
        """Collect and learn once; return whether it has learned."""
        self._number += 1
        start = time.perf_counter()
        collected = self._member.collect(self._number * self.steps)
        middle = time.perf_counter()
        metrics: Mapping[str, float] = {"learned": 1.0}
        if self._share != "experience":
            metrics = self._member.learn(self._number, 0.0).metrics
        self.last = middle - start, time.perf_counter() - middle
        self.steps = collected.steps
        if collected.batch is not None:
            world = collected.world or {}
            self.bytes = _bytes_of(collected.batch) + sum(a.nbytes for a in world.values())
        return bool(metrics) and metrics.get("gradient_steps", 1.0) > 0


def _soon(config: TrainConfig) -> TrainConfig:
    """Return settings that learn from the beginning."""
    if not hasattr(config.algorithm, "warmup"):
        return config
    algorithm = config.algorithm.model_copy(update={"warmup": 1})
    return config.model_copy(update={"algorithm": algorithm})


def _exchanges(
    heard: Mapping[tuple[str, int], int], rounds: int, share: Share
) -> Iterator[Exchange]:
    around = share == "gradients" and ring.available()
    gathered = {size: count for (what, size), count in heard.items() if what == "gather"}
    if total := sum(gathered.values()):
        mean = sum(size * count for size, count in gathered.items()) / total
        yield Exchange("gather", round(mean), max(1, round(total / rounds)))
    for (what, size), count in sorted(heard.items()):
        if what == "sum":
            yield Exchange("ring" if around else "sum", size, max(1, round(count / rounds)))


def _weights(member: Member) -> int:
    learner = member.learner
    if not isinstance(learner, Divisible):
        return 0
    scales = copied(learner).scales
    return learner.vector().nbytes + sum(array.nbytes for array in scales.values())


def _bytes_of(batch: Batch) -> int:
    found = 0
    for field in fields(batch):
        value = getattr(batch, field.name)
        arrays = value.values() if isinstance(value, Mapping) else [value]
        found += sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    return found


def _resident(process: int) -> int:
    """Return the most memory that a process had [bytes]; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] * 1024 if found else 0


def _learner(config: TrainConfig, seconds: float) -> tuple[float, float, int]:
    """Return a round of the learner [s], what joining takes [s/byte], and its replay [bytes]."""
    config = _soon(config)
    total = config.train.cars
    member = Member(config, Part(0, 0, total, total, 1), _Echo(1))
    learner = learner_for(config, member.env, device_for(config, member.env))
    times: list[float] = []
    until, joining, ready = np.inf, 0.0, False
    while len(times) < 3 or time.perf_counter() < until:
        batch = member.collect(0).batch
        assert batch is not None
        start = time.perf_counter()
        seen = [np.concatenate([one, one], axis=1) for one in batch.observation.values()]
        joining = (time.perf_counter() - start) / sum(one.nbytes for one in seen)
        start = time.perf_counter()
        metrics = learner.update(batch, progress=0.0)
        took = time.perf_counter() - start
        if ready:
            times.append(took)
        elif metrics and metrics.get("gradient_steps", 1.0) > 0:
            ready, until = True, time.perf_counter() + seconds
    observed = (*config.observation.actor, *config.observation.critic)
    parts = footprint.footprint(config.algorithm, observation_specs(member.env), observed, total)
    return statistics.median(times), joining, int(parts.get("algorithm.capacity", 0.0))


# --- Ray ---


def _got(reference: Any) -> Any:
    return ray.get(reference)


def _open(threads: int) -> ActorHandle[Any]:
    actor: Any = ray.remote(num_cpus=threads)(_Stand)
    handle: ActorHandle[Any] = actor.remote([path for path in sys.path if path], threads)
    return handle


class _Stand:
    """A worker's process, in which pieces of its work are timed."""

    def __init__(self, folders: Sequence[str], threads: int) -> None:
        os.environ["HOTLAP_THREADS"] = str(threads)
        sys.path.extend(folder for folder in folders if folder not in sys.path)

    def nothing(self) -> None:
        return None

    def rehearse(
        self, words: Mapping[str, Any], share: Share, workers: int, seconds: float
    ) -> tuple[Work, float]:
        return rehearsed(TrainConfig.model_validate(dict(words)), share, workers, seconds)

    def exchange(
        self, server: ActorHandle[Any], number: int, size: int, members: int, seconds: float
    ) -> list[float]:
        """Meet again and again, as so many members at once; return how long each took [s]."""
        own = np.ones(max(1, size // 4), np.float32)
        ray.get(server.begin.remote(number, list(range(members))))
        found: list[float] = []
        until = time.perf_counter() + seconds
        while len(found) < 5 or time.perf_counter() < until:
            start = time.perf_counter()
            step = len(found)
            given = [laid(server, number, step, at, own, "sum") for at in range(members)]
            for one in given:
                received(one)
            found.append(time.perf_counter() - start)
        return found

    def around(self, server: ActorHandle[Any], number: int, place: int) -> list[float]:
        """Sum in a ring of two; return how long each of `SIZES` took [s]."""
        pair = ring.Ring(
            ring.Circle(number, (0, 1)),
            place,
            own_address(),
            lambda own: received(laid(server, number, 0, place, own, "gather")),
        )
        found = []
        for size in SIZES:
            own, times = np.ones(max(1, size // 4), np.float32), []
            for _ in range(_REPEATS):
                start = time.perf_counter()
                pair.sum(own)
                times.append(time.perf_counter() - start)
            found.append(statistics.median(times))
        return found


def _link(stand: ActorHandle[Any], other: ActorHandle[Any], seconds: float) -> tuple[Link, int]:
    """Return what messages cost, and the bytes of the server's process."""
    server = open_server()
    process = _got(server.process.remote())
    alone, busy = [], []
    for number, size in enumerate(SIZES):
        first = ray.get(stand.exchange.remote(server, 2 * number, size, 1, seconds / 2))
        before = ray.get(server.spent.remote())
        many = ray.get(stand.exchange.remote(server, 2 * number + 1, size, TOGETHER, seconds))
        spent = ray.get(server.spent.remote()) - before
        alone.append(statistics.median(first))
        # No message keeps the server busy for longer than its answer takes.
        busy.append(min(alone[-1], spent / (TOGETHER * len(many))))
    calls = []
    for _ in range(50):
        start = time.perf_counter()
        ray.get(stand.nothing.remote())
        calls.append(time.perf_counter() - start)
    before, count = time.process_time(), 300
    ray.get([stand.nothing.remote() for _ in range(count)])
    routing = (time.process_time() - before) / count
    memory = _resident(process)
    times = (0.0,) * len(SIZES)
    if ring.available():
        ray.get(server.begin.remote(2 * len(SIZES), (0, 1)))
        given = server, 2 * len(SIZES)
        pair = [one.around.remote(*given, place) for place, one in enumerate((stand, other))]
        times = ray.get(pair)[0]
    ray.kill(server)
    rising = np.maximum.accumulate
    found = Link(
        sizes=SIZES,
        alone=tuple(map(float, rising(alone))),
        server=tuple(map(float, rising(busy))),
        call=statistics.median(calls),
        routing=routing,
        joining=0.0,
        ring=tuple(map(float, rising(times))),
    )
    return found, memory


def _crowding(
    actors: Sequence[ActorHandle[Any]],
    asked: Mapping[Share, Mapping[int, TrainConfig]],
    works: Mapping[Share, Mapping[int, Work]],
    seconds: float,
) -> float:
    """Return how much longer the work takes where every core of this machine does it."""
    share = next((one for one in asked if one != "experience"), next(iter(asked)))
    n = min(works[share], key=lambda size: abs(size - len(actors)))
    given = (_words(asked[share][n]), share, n)
    ray.get([actor.rehearse.remote(*given, 0.0) for actor in actors])  # each of them is warm
    ratios: list[float] = []
    for _ in range(3):  # in turns, so that a machine that slows down slows both
        alone, _ = _got(actors[0].rehearse.remote(*given, seconds))
        crowd = ray.get([actor.rehearse.remote(*given, seconds) for actor in actors])
        times = [work.collecting + work.learning for work, _ in crowd]
        ratios.append(statistics.median(times) / (alone.collecting + alone.learning))
    return max(1.0, statistics.median(ratios))
