"""The server of a distributed training: where workers meet, and the weights that all share.

Pure asyncio and NumPy; the team makes a Ray actor of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hotlap.types import Array, Float32, Float64

__all__ = ["News", "Server", "Traffic"]


@dataclass
class Traffic:
    """What has passed through a server."""

    messages: int = 0
    received: int = 0
    """Bytes of arrays."""
    sent: int = 0
    """Bytes of arrays; what lies in shared memory counts once."""
    exchanges: int = 0
    """Gradients, or changes of weights, that were given,"""
    exchanged: int = 0
    """and their bytes."""
    dropped: int = 0
    """Changes that came too late to count."""


@dataclass(frozen=True, eq=False)
class News:
    """What a worker is told that does not wait for others."""

    version: int
    weights: Any
    """As `hand_out` made it."""
    others: list[Mapping[str, Float64]]
    """Moments of what they saw."""


@dataclass
class _Meeting:
    """What has been laid on the table in one place of a round."""

    laid: dict[int, Array] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    found: Any = None


class Server:
    """Sums what workers give, or gathers it, once all have given theirs; and keeps weights.

    A round has members; one that is lost or has ended its round is not waited for. Where workers do
    not wait for each other, the server applies each change of the weights to the newest version.

    Args:
        hand_out: turns a large array into what many are given, such as a reference to one copy in
            shared memory.
    """

    def __init__(self, hand_out: Callable[[Array], Any] = lambda array: array) -> None:
        self._hand_out = hand_out
        self._members: set[int] = set()
        self._meetings: dict[tuple[int, int], _Meeting] = {}
        self._round = -1
        self.traffic = Traffic()
        self._version = 0
        self._weights: Float32 | None = None
        self._given: Any = None
        self._seen: list[tuple[int, Mapping[str, Float64]]] = []
        self._known: dict[int, int] = {}
        self._forgotten = 0

    # --- rounds ---

    def begin(self, number: int, members: Iterable[int]) -> None:
        """Begin a round of these members; whoever still waits in an older one goes home."""
        for meeting in self._meetings.values():
            if not meeting.over.is_set():
                meeting.laid.clear()
                meeting.over.set()
        self._meetings = {}
        self._round, self._members = number, set(members)

    def leave(self, number: int, place: int) -> None:
        """Wait for a member no more in this round; of a round that is over it means nothing."""
        if number != self._round:
            return
        self._members.discard(place)
        for meeting in self._meetings.values():
            self._close(meeting)

    async def meet(
        self, number: int, step: int, place: int, own: Array, what: Literal["sum", "gather"]
    ) -> Any:
        """Give an array at a step of a round; return the sum of all, or by place what each gave.

        None: the round is over, and this member was not waited for.
        """
        if number != self._round or place not in self._members:
            return None
        meeting = self._meetings.setdefault((number, step), _Meeting())
        meeting.laid[place] = own
        self._note(own, exchange=what == "sum")
        self._close(meeting)
        await meeting.over.wait()
        if not meeting.laid:
            return None
        if meeting.found is None:
            # In the order of places, so that the last bit does not tell who was first.
            given = [meeting.laid[at] for at in sorted(meeting.laid)]
            if what == "sum":
                total = np.zeros_like(given[0])
                for one in given:
                    total += one
                meeting.found = self._shared(total)
            else:
                meeting.found = dict(sorted(meeting.laid.items()))
                self.traffic.sent += sum(one.nbytes for one in given)
        return meeting.found

    def _close(self, meeting: _Meeting) -> None:
        if self._members <= meeting.laid.keys():
            meeting.over.set()

    def _note(self, array: Array, *, exchange: bool) -> None:
        self.traffic.messages += 1
        self.traffic.received += array.nbytes
        if exchange:
            self.traffic.exchanges += 1
            self.traffic.exchanged += array.nbytes

    def _shared(self, array: Array) -> Any:
        self.traffic.sent += array.nbytes
        return self._hand_out(array)

    # --- weights ---

    def keep(self, weights: Float32) -> int:
        """Take weights as the present ones; return their version."""
        self._weights = np.array(weights, np.float32)
        self._version += 1
        self._given = None
        return self._version

    def pull(self, place: int) -> News:
        """Return the newest weights, and what others have seen since this place was told last."""
        if self._weights is None:
            raise LookupError("the server has no weights: it began anew")
        if self._given is None:
            self._given = self._shared(self._weights.copy())
        known = self._known.get(place, self._forgotten + len(self._seen))
        others = [seen for who, seen in self._seen[known - self._forgotten :] if who != place]
        self._known[place] = self._forgotten + len(self._seen)
        old = min(self._known.values()) - self._forgotten
        del self._seen[:old]
        self._forgotten += old
        return News(self._version, self._given, others)

    def push(
        self,
        place: int,
        version: int,
        change: Float32,
        seen: Mapping[str, Float64],
        share: float,
        staleness: int,
    ) -> News:
        """Apply a change to the newest weights; return what is new.

        Args:
            place: who gives it.
            version: that the change was learned from.
            change: by which weights moved.
            seen: moments of what was seen meanwhile, by name; they count in any case.
            share: of the change that counts.
            staleness: versions by which it may be behind; a change that is more does not count.
        """
        if self._weights is None:
            raise LookupError("the server has no weights: it began anew")
        self._note(change, exchange=True)
        self._seen.append((place, seen))
        if self._version - version <= staleness:
            self._weights += np.float32(share) * change
            self._version += 1
            self._given = None
        else:
            self.traffic.dropped += 1
        return self.pull(place)

    def forget(self, place: int) -> None:
        """Keep nothing for a member that is lost."""
        self._known.pop(place, None)

    def seen(self) -> dict[str, int]:
        """Return what has passed."""
        return dict(vars(self.traffic))
