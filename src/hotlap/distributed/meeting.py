"""Meeting: the server as a Ray actor, and how others speak with it.

It imports little, so that a server that is lost is soon replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import ray
from ray.actor import ActorHandle

from hotlap.distributed.server import News, Server
from hotlap.types import Array, Float32

__all__ = ["fetched", "laid", "open_server", "own_address", "received"]

_PIECE = 88 * 1024
"""Bytes of an array that Ray sends within a call; what has more than 100 KB it puts aside first,
which takes longer than the call."""
_LARGE = 1 << 20
"""Bytes from which an array goes through shared memory, once, and not to each apart."""


def open_server() -> ActorHandle[Any]:
    """Start the server; Ray starts it anew, empty, if it dies."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 10_000}
    server: Any = ray.remote(**options)(Meeting)
    handle: ActorHandle[Any] = server.remote()
    return handle


class Meeting:
    """The server, on Ray's event loop."""

    def __init__(self) -> None:
        self._server = Server(_hand_out)

    async def begin(self, number: int, members: Sequence[int]) -> None:
        self._server.begin(number, members)

    async def leave(self, number: int, place: int) -> None:
        self._server.leave(number, place)

    async def forget(self, place: int) -> None:
        self._server.forget(place)

    async def meet(
        self, what: Literal["sum", "gather"], number: int, step: int, place: int, *own: Array
    ) -> Any:
        """Give an array, in one piece or several; return as many."""
        whole = np.concatenate(own) if len(own) > 1 else own[0]
        found = await self._server.meet(number, step, place, whole, what)
        if len(own) == 1:
            return found
        return _pieces(found, len(own)) if isinstance(found, np.ndarray) else [found] * len(own)

    async def keep(self, weights: Float32) -> int:
        return self._server.keep(weights)

    async def pull(self, place: int) -> News:
        return self._server.pull(place)

    async def push(self, *given: Any) -> News:
        return self._server.push(*given)

    async def seen(self) -> dict[str, int]:
        return self._server.seen()

    async def process(self) -> int:
        return os.getpid()

    async def spent(self) -> float:
        return time.process_time()


def _hand_out(array: Array) -> Any:
    """Put a large array into shared memory; what is given to each is where it lies."""
    return [ray.put(array)] if array.nbytes >= _LARGE else array


def _pieces(array: Array, count: int) -> list[Array]:
    return [np.ascontiguousarray(piece) for piece in np.array_split(array, count)]


def laid(
    server: ActorHandle[Any],
    number: int,
    step: int,
    place: int,
    own: Array,
    what: Literal["sum", "gather"],
) -> Any:
    """Give an array at a meeting; return where `received` finds what comes of it."""
    count = -(-own.nbytes // _PIECE) if what == "sum" and own.nbytes < _LARGE else 1
    if count <= 1:
        return server.meet.remote(what, number, step, place, own)
    meet: Any = server.meet.options(num_returns=count)
    return meet.remote(what, number, step, place, *_pieces(own, count))


def received(references: Any) -> Any:
    """Wait for what comes of a meeting."""
    if not isinstance(references, list):
        return fetched(ray.get(references))
    found = ray.get(references)
    return None if found[0] is None else np.concatenate(found)


def fetched(given: Any) -> Any:
    """Return the array that a server handed out."""
    return ray.get(given[0]) if isinstance(given, list) else given


def own_address() -> str:
    """Return where other nodes of the cluster reach this one."""
    address: Any = ray.util.get_node_ip_address
    return str(address())
