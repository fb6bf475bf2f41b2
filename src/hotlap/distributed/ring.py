"""Ring: sums that workers make among themselves, without the server, by PyTorch's Gloo.

Each sends to the next, so that none of them sees more than twice the vector, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed

from hotlap.types import Array, Float32

__all__ = ["Circle", "Ring", "available"]

Gather = Callable[[Array], Mapping[int, Array]]
"""What this member gives at a meeting to what each gives there, by place."""

SILENCE = 15.0
"""Seconds after which one that says nothing is taken for lost; one that dies is missed at once."""


@dataclass(frozen=True)
class Circle:
    """Who sums among themselves."""

    number: int
    """Another one where somebody may be another process by now."""
    places: tuple[int, ...]
    """Of the members, rising."""


def available() -> bool:
    """Tell whether this PyTorch can do it."""
    return distributed.is_available() and distributed.is_gloo_available()


class Ring:
    """A way from each of some members to the next.

    Args:
        circle: who they are.
        place: which of them this is.
        host: address of this machine at which the others reach it.
        gather: gives the others what each needs to find us; returns by place what they gave.

    Raises:
        RuntimeError: one of them is not there.
    """

    def __init__(
        self,
        circle: Circle,
        place: int,
        host: str,
        gather: Gather,
    ) -> None:
        self.circle = circle
        gloo: Any = distributed.ProcessGroupGloo
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=host)]
        options._timeout = timedelta(seconds=SILENCE)
        options._threads = 1
        board = _Board(gather, circle.places)
        size, rank = len(circle.places), circle.places.index(place)
        self._group = gloo(board, rank, size, options)

    def sum(self, own: Float32) -> Float32:
        """Return the sum of what all give at this point, the same to the bit for each.

        Raises:
            RuntimeError: one of them is lost; the ring is of no use any more.
        """
        total = np.array(own, np.float32)
        self._group.allreduce([torch.from_numpy(total)]).wait()
        return total


class _Board(distributed.Store):  # type: ignore[name-defined,misc]
    """Where Gloo, which wants a store, reads what the others gave at one meeting."""

    def __init__(self, gather: Gather, places: Sequence[int]) -> None:
        super().__init__()
        self._gather, self._places = gather, places
        self._own = np.empty(0, np.uint8)
        self._found: Mapping[int, Array] | None = None

    def set(self, key: str, value: bytes) -> None:
        self._own = np.frombuffer(value, np.uint8)

    def wait(self, keys: Sequence[str], timeout: timedelta = timedelta(0)) -> None:
        if self._found is None:
            self._found = self._gather(self._own)

    def get(self, key: str) -> bytes:
        assert self._found is not None
        return self._found[self._places[int(key.rpartition("/")[2])]].tobytes()
