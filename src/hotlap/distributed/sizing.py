"""Sizing: how fast a cluster would train, from what was measured here; needs neither Ray nor torch.

Every way of sharing is simulated as the team does it: who waits for whom, queues at the server's
line and processor, calls of the driver, workers of whom some are slower than others.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hotlap.draws import generator
from hotlap.errors import ConfigError
from hotlap.types import Float64

__all__ = [
    "PARTS",
    "Exchange",
    "Forecast",
    "Layout",
    "Link",
    "Network",
    "Rates",
    "Share",
    "Work",
    "forecast",
    "read_network",
    "read_sizes",
]

Share = Literal["gradients", "weights", "experience"]

INLINE = 100 * 1024
"""Bytes up to which Ray sends an argument inside of a call; a larger one is asked for, which is one
more round trip. Source: `max_direct_call_object_size` of Ray 2.60."""

SHARED = 1 << 20
"""Bytes from which a vector to be summed does not travel in pieces inside of a call, and its sum is
handed out by reference: a round trip more for each."""

ROUNDS = 24
"""That are simulated."""

PARTS = {
    "collecting": "driving the cars",
    "learning": "computing gradients",
    "stragglers": "waiting for the slowest",
    "latency": "round trips of the network",
    "line": "the line of a node, the server or the learner",
    "server": "the processor of the server",
    "calls": "calls and copies outside of the server",
}
"""What a round's time can go to; in each is said what would be saved if it cost nothing."""

_UNITS = {"bit": 1 / 8, "kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Network:
    """What lies between the nodes."""

    bandwidth: float = math.inf
    """Of each node's line, in each direction [bytes/s]."""
    ping: float = 0.0
    """A round trip [s]."""


@dataclass(frozen=True)
class Exchange:
    """What a worker gives the server at some points of a round, and gets for it."""

    what: Literal["sum", "gather", "ring"]
    """`sum`: the server gives the sum of what all give; `gather`: what each gives; `ring`: they sum
    among themselves."""
    size: int
    """Bytes that a worker gives."""
    count: int
    """How often in a round."""


@dataclass(frozen=True)
class Work:
    """What a worker of so many has to do in a round."""

    workers: int
    rows: int
    """Its cars; those of the one that has most."""
    steps: int
    """Control steps of all cars in a round."""
    collecting: float
    """Seconds, alone on its cores."""
    learning: float
    """Seconds; of the learner where it learns from experience."""
    exchanges: tuple[Exchange, ...]
    batch: int
    """Bytes of experience that it sends."""
    weights: int
    """Bytes of a driver."""
    memory: int
    """Bytes of its process, a replay apart."""
    replay: int
    """Bytes of its replay when that is full; of the learner's where it learns from experience."""


@dataclass(frozen=True)
class Link:
    """What messages cost beside the network."""

    sizes: tuple[int, ...]
    """Bytes of an array, rising;"""
    alone: tuple[float, ...]
    """seconds until it is answered where nobody else asks;"""
    server: tuple[float, ...]
    """seconds that the server's processor is busy with it."""
    call: float
    """Seconds of an empty call of a worker, there and back."""
    routing: float
    """Seconds that it takes of the process that calls."""
    joining: float
    """Seconds a byte to put experience together."""
    ring: tuple[float, ...] = ()
    """Seconds until two on one machine have summed an array; none where they cannot."""

    def around(self, size: float, members: int) -> float:
        """Return how long a sum in a ring takes beside the network.

        Each gives an n-th of the vector to the next 2 (n - 1) times, as each of two gives half of
        it twice. Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms.
        """
        return (members - 1) * _along(2 * size / members, self.sizes, self.ring)

    def seconds(self, size: float) -> float:
        """Return how long an exchange takes that is alone."""
        return _along(size, self.sizes, self.alone)

    def service(self, size: float) -> float:
        """Return how long the server's processor is busy with one message."""
        return _along(size, self.sizes, self.server)


@dataclass(frozen=True)
class Layout:
    """The cluster, and how messages run in it."""

    network: Network = Network()
    per_node: int = 1
    """Workers on a node, which share its line and hinder each other."""
    threads: int = 1
    """Cores of a worker."""
    cores: int = 1
    """Of a node."""
    crowding: float = 1.0
    """How much longer work takes where all cores of a node work."""
    spread: float = 0.0
    """Standard deviation of a worker's time, as a share of it; log-normal, anew each round."""
    staleness: int = 8
    """Versions by which a change may be behind, where workers do not wait for each other."""
    servers: int = 1
    """Servers that each sum a piece of the vector. Training has one: more are for comparison."""
    branches: int = 0
    """Workers for each of the servers below the one at the root of a tree; 0: no tree, as it is."""
    ring: bool = True
    """Whether what workers can sum among themselves is summed so, and not by the server."""

    def slowed(self) -> float:
        """Return how much longer a worker's work takes than alone on a node."""
        full = max(1, self.cores // self.threads)
        crowd = min(1.0, (self.per_node - 1) / (full - 1)) if full > 1 else 0.0
        return (1 + (self.crowding - 1) * crowd) * max(1.0, self.per_node / full)


@dataclass(frozen=True)
class Rates:
    """What comes of a simulation."""

    seconds: float
    """In which every car has driven its steps of a round."""
    late: float = 0.0
    """Share of the changes that came too late to count."""


@dataclass(frozen=True)
class Forecast:
    """What a cluster of some size would do."""

    share: Share
    workers: int
    rows: int
    steps_per_second: float
    saved: Mapping[str, float]
    """By part: the share of the time that would be saved if it cost nothing."""
    late: float
    """Share of the changes that come too late to count."""
    exchange: int
    """Bytes that a worker gives at once where it gives most."""
    exchanges: int
    """That a worker makes in a round."""
    received: float
    """By the server, or the learner [bytes/s],"""
    sent: float
    """and what it sends."""
    worker: float
    """Bytes/s over each worker's part of its line, there and back."""
    memory: Mapping[str, int]
    """Bytes: of a node with workers, of the server, of the learner, and of replays in these."""

    @property
    def bottleneck(self) -> str:
        """What costs most."""
        return max(self.saved, key=lambda part: self.saved[part])


def forecast(
    share: Share,
    work: Work,
    link: Link,
    layout: Layout,
    *,
    synchronous: bool = True,
    server: int = 0,
    learner: int = 0,
) -> Forecast:
    """Return what would come of a training.

    Args:
        share: what travels.
        work: of each worker, at this size.
        link: what messages cost.
        layout: of the cluster.
        synchronous: whether all wait for the slowest.
        server: bytes of the server's process before it has anything,
        learner: and of the process that started the training.
    """
    found = _simulated(share, work, link, layout, synchronous)
    n = work.workers
    without = {
        "collecting": (replace(work, collecting=0.0), link, layout),
        "learning": (replace(work, learning=0.0), link, layout),
        "stragglers": (work, link, replace(layout, spread=0.0)),
        "latency": (work, link, replace(layout, network=replace(layout.network, ping=0.0))),
        "line": (work, link, replace(layout, network=replace(layout.network, bandwidth=math.inf))),
        "server": (work, _idle(link), layout),
        "calls": (work, _instant(link), layout),
    }
    saved = {}
    for part, changed in without.items():
        other = _simulated(share, *changed, synchronous)
        saved[part] = max(0.0, 1.0 - other.seconds / found.seconds)
    passed = 0.0
    if share == "experience":
        given, taken, largest, count = work.batch, work.weights, work.batch, 1
    else:
        served = [e for e in work.exchanges if e.what != "ring" or not layout.ring]
        given = sum(e.size * e.count for e in served)
        taken = sum(e.count * e.size * (n if e.what == "gather" else 1) for e in served)
        whole = sum(e.size * e.count for e in work.exchanges if e not in served)
        passed = 2 * (n - 1) / n * whole
        largest = max((e.size for e in work.exchanges), default=0)
        count = sum(e.count for e in work.exchanges)
    kept = {
        "worker": work.memory * layout.per_node,
        "server": server + (largest * (n + 2) if share != "experience" else 0),
        "learner": learner + (2 * n * work.batch if share == "experience" else 0),
        "replay": work.replay * (1 if share == "experience" else layout.per_node),
    }
    return Forecast(
        share=share,
        workers=n,
        rows=work.rows,
        steps_per_second=work.steps / found.seconds,
        saved=saved,
        late=found.late,
        exchange=largest,
        exchanges=count,
        received=n * given / found.seconds,
        sent=n * taken / found.seconds,
        worker=(given + taken + 2 * passed) / found.seconds,
        memory=kept,
    )


def _simulated(share: Share, work: Work, link: Link, layout: Layout, synchronous: bool) -> Rates:
    if share == "experience":
        return _experience(work, link, layout, ahead=not synchronous)
    if share == "weights" and not synchronous:
        return _apart(work, link, layout)
    return _together(work, link, layout)


# --- the three ways ---


def _together(work: Work, link: Link, layout: Layout) -> Rates:
    """All collect, then learn and meet at every exchange, and wait for the slowest."""
    n, slow = work.workers, layout.slowed()
    factor_RN = _factors(n, layout.spread) * slow
    trip = link.call / 2 + layout.network.ping / 2
    start_N = trip + link.routing * np.arange(1.0, n + 1)
    back = queue(start_N + work.collecting * factor_RN + trip, link.routing).max(axis=1)
    began = back + link.call + layout.network.ping  # the server is told who is there
    pieces = sum(e.count for e in work.exchanges) + 1
    now_RN = began[:, None] + start_N + work.learning / pieces * factor_RN
    free: dict[int, Float64] = {}
    for exchange in work.exchanges:
        for _ in range(exchange.count):
            now_RN = _met(now_RN, exchange, link, layout, free) + work.learning / pieces * factor_RN
    end = queue(now_RN + trip, link.routing).max(axis=1)
    return Rates(float(end.mean()))


def _met(
    arrival_RN: Float64,
    exchange: Exchange,
    link: Link,
    layout: Layout,
    free: dict[int, Float64],
    which: int = 0,
) -> Float64:
    """Return when each worker of each round has what a meeting found.

    Args:
        arrival_RN: when each of them gives its part.
        exchange: what.
        link: what messages cost.
        layout: of the cluster.
        free: by server, since when its processor has nothing to do; changed here.
        which: server of these.
    """
    n = arrival_RN.shape[1]
    if exchange.what == "ring" and layout.ring:
        end_R1 = arrival_RN.max(axis=1, keepdims=True) + _around(exchange.size, n, link, layout)
        return np.repeat(end_R1, n, axis=1)
    exchange = replace(exchange, what="sum") if exchange.what == "ring" else exchange
    if layout.branches and exchange.what == "sum" and n > layout.branches:
        flat = replace(layout, branches=0)
        # What a branch needs to hand out the sum is counted before the root's, instead of after.
        groups = [
            _met(arrival_RN[:, at : at + layout.branches], exchange, link, flat, free, at + 1)
            for at in range(0, n, layout.branches)
        ]
        below = np.stack([group.max(axis=1) for group in groups], axis=1)
        above = _met(below, exchange, link, flat, free)
        return np.repeat(above, layout.branches, axis=1)[:, :n]
    # Several servers work at once, each on its piece; a worker sends one piece after the other.
    pieces = layout.servers if exchange.what == "sum" else 1
    given = exchange.size / pieces
    taken = given * (n if exchange.what == "gather" else 1)
    busy = (link.service(given) + link.service(taken)) / 2
    own = max(0.0, link.seconds(given) - link.service(given)) / 2 * pieces
    network = layout.network
    there = network.ping * (
        0.5 + (given > INLINE if exchange.what == "gather" else given >= SHARED)
    )
    by_reference = exchange.what == "sum" and given >= SHARED
    back = network.ping * (0.5 + (taken > INLINE if exchange.what == "gather" else by_reference))
    came = queue(arrival_RN + own + there, given / network.bandwidth)
    # It has one processor, which hands out what was asked for before.
    waiting = np.maximum(came, free.get(which, 0.0))
    all_came = queue(waiting, busy / 2).max(axis=1)
    ready = all_came[:, None] + busy / 2 * np.arange(1, n + 1)
    free[which] = ready[:, -1:]
    # What lies in shared memory travels to a node once.
    fetched = math.ceil(n / layout.per_node) / n if by_reference else 1.0
    return queue(ready, taken * fetched / network.bandwidth) + back + own


def _around(size: int, members: int, link: Link, layout: Layout) -> float:
    """Return how long a sum in a ring takes, from when the last one is there."""
    found = link.around(size, members)
    if members > layout.per_node:  # neighbours are on one node, so that its line has one of them
        network = layout.network
        found += 2 * (members - 1) * (network.ping / 2 + size / members / network.bandwidth)
    return found


def _apart(work: Work, link: Link, layout: Layout) -> Rates:
    """Each collects, learns and gives its change, and goes on from what the server has."""
    n, network = work.workers, layout.network
    factor_NR = (_factors(n, layout.spread) * layout.slowed()).T
    own = work.collecting + work.learning
    size = max((e.size for e in work.exchanges), default=work.weights)
    busy = link.service(size)
    asking = max(0.0, link.seconds(size) - busy) / 2
    there = asking + network.ping * (0.5 + (size > INLINE))
    back = asking + network.ping * (0.5 + (size > INLINE))
    trip = link.call / 2 + network.ping / 2
    passing = size / network.bandwidth
    done, version, known = [0] * n, 0, [0] * n
    free = {"in": 0.0, "server": 0.0, "out": 0.0, "driver": 0.0}
    end, late = [0.0] * n, 0

    def through(what: str, at: float, seconds: float) -> float:
        free[what] = max(free[what], at) + seconds
        return free[what]

    # By when it reaches the server, so that who comes first is served first.
    first = [through("driver", 0.0, link.routing) + trip for _ in range(n)]
    coming = [(first[i] + own * factor_NR[i, 0] + there, i) for i in range(n)]
    heapq.heapify(coming)
    while coming:
        at, i = heapq.heappop(coming)
        at = through("server", through("in", at, passing), busy)
        if version - known[i] <= layout.staleness:
            version += 1
        else:
            late += 1
        known[i] = version
        at = through("out", at, passing) + back
        # The driver hears of it, and sends the worker on.
        at = through("driver", at + trip, 2 * link.routing) + trip
        done[i] += 1
        if done[i] < ROUNDS:
            heapq.heappush(coming, (at + own * factor_NR[i, done[i]] + there, i))
        else:
            end[i] = at
    rounds = sum(ROUNDS / one for one in end) / n
    return Rates(1.0 / rounds, late / (n * ROUNDS))


def _experience(work: Work, link: Link, layout: Layout, *, ahead: bool) -> Rates:
    """All collect and send what they saw to one learner, which sends weights back."""
    n, network = work.workers, layout.network
    factor_RN = _factors(n, layout.spread) * layout.slowed()
    trip = link.call / 2 + network.ping / 2
    asked = network.ping * (work.weights > INLINE)
    nodes = math.ceil(n / layout.per_node) / n
    sent_N = queue(link.routing * np.arange(1.0, n + 1), work.weights * nodes / network.bandwidth)
    there_N = sent_N + trip + asked
    copied = max(0.0, link.seconds(work.batch) - link.service(work.batch)) / 2
    back = trip + copied + network.ping * (work.batch > INLINE)
    passing, taking = work.batch / network.bandwidth, link.routing + link.joining * work.batch
    learnt = 0.0
    sent = [0.0]
    for factor_N in factor_RN:
        came = queue(sent[-1] + there_N + work.collecting * factor_N + back, passing)
        # The learner takes them in when it has time, all of them before it goes on.
        got = float(queue(np.maximum(came, learnt), taking).max())
        learnt = got + work.learning + (n * link.routing if ahead else 0.0)
        sent.append(got if ahead else learnt)
    return Rates(learnt / len(factor_RN))


# --- queues, draws, curves ---


def queue(arrival: Float64, service: float) -> Float64:
    """Return when each is served, first come first served, by one who takes `service` seconds.

    Args:
        arrival: when each comes [s]; along the last axis, in any order.
        service: seconds for one.

    Source: Lindley 1952, The theory of queues with a single server, as a running maximum.

    >>> queue(np.array([0.0, 0.0, 5.0]), 2.0)
    array([2., 4., 7.])
    """
    if not service:
        return arrival
    order = np.argsort(arrival, axis=-1, kind="stable")
    place = np.arange(arrival.shape[-1])
    sorted_ = np.take_along_axis(arrival, order, axis=-1)
    served = np.maximum.accumulate(sorted_ - service * place, axis=-1) + service * (place + 1)
    found: Float64 = np.empty_like(served)
    np.put_along_axis(found, order, served, axis=-1)
    return found


def _factors(workers: int, spread: float) -> Float64:
    """Return (rounds, workers) by which work takes longer; of each worker 1 in the mean.

    The first workers' are the same however many there are.
    """
    if not spread:
        return np.ones((ROUNDS, workers))
    sigma = math.sqrt(math.log1p(spread**2))
    drawn = np.exp(sigma * generator(0).standard_normal((workers, ROUNDS)))
    found: Float64 = (drawn / drawn.mean(axis=1, keepdims=True)).T
    return found


def _along(size: float, sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return seconds at a size by straight lines between, and as the last one beyond."""
    if size > sizes[-1]:
        slope = 0.0
        if len(sizes) > 1:
            slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        return seconds[-1] + max(0.0, slope) * (size - sizes[-1])
    return float(np.interp(size, sizes, seconds))


def _idle(link: Link) -> Link:
    """Return a link whose server costs nothing; what lies outside of it costs the same."""
    outside = [max(0.0, a - s) for a, s in zip(link.alone, link.server, strict=True)]
    return replace(link, server=(0.0,) * len(link.sizes), alone=tuple(outside))


def _instant(link: Link) -> Link:
    """Return a link where all but the server costs nothing."""
    ring = (0.0,) * len(link.ring)
    return replace(link, alone=link.server, call=0.0, routing=0.0, joining=0.0, ring=ring)


# --- what a user writes ---


def read_network(words: str) -> Network:
    """Return the network that `1Gbit,0.5ms` says: each node's line, and a round trip; or `local`.

    Raises:
        ConfigError: it is something else.
    """
    if words.strip().lower() == "local":
        return Network()
    bandwidth = ping = None
    for word in words.replace(" ", "").split(","):
        low = word.lower().removesuffix("/s")
        number = low.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = low[len(number) :]
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if unit in _UNITS and value > 0 and bandwidth is None:
            bandwidth = value * _UNITS[unit]
        elif unit in _TIMES and value >= 0 and ping is None:
            ping = value * _TIMES[unit]
        else:
            raise _wrong_network(words)
    if bandwidth is None or ping is None or not math.isfinite(bandwidth + ping):
        raise _wrong_network(words)
    return Network(bandwidth, ping)


def _wrong_network(words: str) -> ConfigError:
    return ConfigError(
        f"--network: {words!r} is not understood; give each node's line and a round trip as ping "
        "shows it, such as 1Gbit,0.5ms (units: Kbit Mbit Gbit, us ms s); or local: one machine"
    )


def read_sizes(words: str) -> list[int]:
    """Return numbers of workers: `8`, `1,2,6`, or `1..64`, which doubles from the first on.

    Raises:
        ConfigError: it is none of these.
    """
    found: set[int] = set()
    for word in words.replace(" ", "").split(","):
        first, dots, last = word.partition("..")
        ends = (first, last) if dots else (first, first)
        if not all(end.isascii() and end.isdigit() and 1 <= int(end) <= 4096 for end in ends):
            raise _wrong_sizes(words)
        low, high = map(int, ends)
        if low > high:
            raise _wrong_sizes(words)
        found |= {high}
        while low < high:
            found.add(low)
            low *= 2
    return sorted(found)


def _wrong_sizes(words: str) -> ConfigError:
    return ConfigError(
        f"--workers: {words!r} is not understood; give one number from 1 to 4096, several as "
        "1,2,8, or a range as 1..64, which doubles from the first on"
    )
