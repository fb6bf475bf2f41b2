"""Peers: learners that learn one driver together, each from rows of its own.

All hold the same weights, draw the same shuffles and take the same gradient steps: what a step
needs from all rows goes through `gather` and `sum`. Alone, both give back what they were given, so
that a learner is written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from hotlap.types import Array, Float32

if TYPE_CHECKING:
    from hotlap.algorithms.scales import Scales

__all__ = ["ALONE", "Joining", "Layout", "Peers"]

Number = TypeVar("Number", bound=np.generic)


class Peers:
    """Nobody else; those of a distributed training override everything here.

    Args:
        first: which row of all is the first of ours.
        total: how many rows all have; None: ours are all.
    """

    def __init__(self, first: int = 0, total: int | None = None) -> None:
        self.first, self.total = first, total

    def spread(self, whole: npt.NDArray[Number], rows: int) -> npt.NDArray[Number]:
        """Return our part of what has a number for each row of all, given how many are ours."""
        return whole[self.first : self.first + rows]

    def all(self, rows: int) -> int:
        """Return how many rows there are, given how many are ours."""
        return rows if self.total is None else self.total

    def share(self, size: int, rows: int) -> int:
        """Return how many of `size` samples are for us to draw, given how many rows are ours."""
        if self.total is None:
            return size
        ends = [round(size * at / self.total) for at in (self.first, self.first + rows)]
        return ends[1] - ends[0]

    def gather(self, own: Array) -> tuple[list[Array], int]:
        """Return what every peer gives at this point, by the order of their rows, and our place."""
        return [own], 0

    def sum(self, own: Float32) -> Float32:
        """Return the sum of what every peer gives at this point: vectors of one length."""
        return own


ALONE = Peers()
"""The peers of a learner that has none."""


class Joining:
    """The side of a learner that others learn along with, or drive and learn on as copies of."""

    _scales: Scales
    _peers: Peers = ALONE

    def join(self, peers: Peers) -> None:
        """Learn together with others from now on; see `Learner.join`."""
        self._peers = peers

    @property
    def scales(self) -> Scales:
        """The running scales of what it sees and of its rewards."""
        return self._scales


class Layout:
    """Where our (T, N) steps stand among those of all peers, which are counted step by step.

    Args:
        own: by name, (T, N) float32; each peer may have another T.
        peers: who else.
    """

    def __init__(self, own: Mapping[str, Float32], peers: Peers) -> None:
        names = list(own)
        parts, mine = peers.gather(np.stack([own[name] for name in names]))
        ends = np.cumsum([part.shape[2] for part in parts])
        self.rows = int(ends[-1])
        """Of all peers that are there,"""
        self.first = int(ends[mine]) - parts[mine].shape[2]
        """and which of them is the first of ours."""
        flat = np.concatenate([part.reshape(len(names), -1) for part in parts], axis=1)
        self._own: Array | None = None
        if len(parts) > 1:
            at = [
                np.arange(part.shape[1])[:, None] * self.rows + np.arange(end - part.shape[2], end)
                for part, end in zip(parts, ends, strict=True)
            ]
            order = np.argsort(np.concatenate([one.ravel() for one in at]), kind="stable")
            flat = flat[:, order]
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            before, size = sum(one.size for one in at[:mine]), at[mine].size
            self._own = np.full(len(order), -1, np.int64)
            self._own[place[before : before + size]] = np.arange(size)
        self.whole = dict(zip(names, flat, strict=True))
        """By name, (B,): what all peers gave, step by step."""
        self.count = flat.shape[1]
        """B, the steps of all peers."""

    def own(self, part: Array) -> Array:
        """Return which of our steps are among some of all, in their order."""
        if self._own is None:
            return part
        found = self._own[part]
        return found[found >= 0]
