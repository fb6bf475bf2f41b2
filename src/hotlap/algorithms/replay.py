"""Replay: the last steps of N rows, drawn at random as transitions of one or more steps.

An observation is kept once: what a step reached is what the next one saw, and only where an episode
ended is it kept apart. On disk the memory is a chain of segments, each written once, so that a
checkpoint writes what came since the one before and not the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.errors import ConfigError, RunError
from hotlap.types import Array, Float32, Float64

__all__ = ["Replay", "Sample", "SumTree", "Windows"]

Segment = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Sample:
    """B transitions: what was seen and done, and what came of it after one or more steps."""

    index: Array
    """(B,) int64, by which `Replay.prioritize` knows them."""
    observation: Mapping[str, Array]
    """By name, (B, ...)."""
    action: Array
    """(B, A) float32 or (B,) int64."""
    reward: Float32
    """(B,) discounted sum of the rewards up to what was reached."""
    discount: Float32
    """(B,) of the value of what was reached: 0 where nothing follows it."""
    reached: Mapping[str, Array]
    """By name, (B, ...): seen after the last of those steps, before any reset."""
    weight: Float32
    """(B,) of each in the loss; 1 where all are equally likely."""


@dataclass(frozen=True, eq=False)
class Windows:
    """B stretches of L steps, each of one row and in the order in which they were driven."""

    observation: Mapping[str, Array]
    """By name, (L + 1, B, ...): seen before each step, and after the last; after any reset."""
    begins: Array
    """(B,) bool: the first step begins an episode."""
    before: Array
    """(B, A) or (B,): the action before the first step; of another episode where it begins one."""
    action: Array
    """(L, B, A) float32 or (L, B) int64."""
    reward: Float32
    """(L, B)."""
    terminated: Array
    """(L, B) bool."""
    ended: Array
    """(L, B) bool: after this step the row began a new episode."""
    reached: Mapping[str, Array]
    """By name, (K, ...): seen by the K ended steps before their reset, in the order of
    `np.nonzero(ended)`."""


class Replay:
    """The last `capacity` transitions of N rows, in a ring of steps.

    Room is taken when the first batch says how many rows there are; the system fills it page by
    page.

    Args:
        observation: what rows see, by name.
        action: what they answer.
        capacity: transitions, over all rows; at least two steps of every row are kept.
        alpha: 0 draws all transitions alike; above it by priority to this power (Schaul et al.
            2016, arXiv:1511.05952, eq. 1).
    """

    def __init__(
        self,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        *,
        capacity: int,
        alpha: float = 0.0,
    ) -> None:
        self._specs, self._action, self._capacity = dict(observation), action, capacity
        self._alpha = alpha
        self._rows = 0
        self.head = 0
        """Steps taken in so far, of every row."""
        self._seen: dict[str, Array] = {}

    @property
    def rows(self) -> int:
        """Return N; 0 before the first batch."""
        return self._rows

    @property
    def oldest(self) -> int:
        """Number of the oldest step that is kept."""
        return max(0, self.head - self._slots + 1) if self._rows else 0

    def __len__(self) -> int:
        """Return how many transitions can be drawn."""
        return (self.head - self.oldest) * self._rows

    def _allocate(self, rows: int) -> None:
        # One slot more than steps: what the last step reached is kept like all that was seen.
        self._rows, self._slots = rows, max(2, self._capacity // rows) + 1
        shape = (self._slots, rows)
        self._seen = {k: np.zeros((*shape, *s.shape), s.dtype) for k, s in self._specs.items()}
        continuous = self._action.kind == "continuous"
        self._steps: dict[str, Array] = {
            "action": np.zeros((*shape, self._action.size), np.float32)
            if continuous
            else np.zeros(shape, np.int64),
            "reward": np.zeros(shape, np.float32),
            "terminated": np.zeros(shape, bool),
            "ended": np.zeros(shape, bool),
        }
        # All ends are numbered: an ended step knows its number, and a ring what each reached.
        self._end = np.zeros(shape, np.int64)
        self._ends_before = np.zeros(self._slots, np.int64)
        self._ends = 0
        self._reached = {k: np.zeros((rows, *s.shape), s.dtype) for k, s in self._specs.items()}
        self._tree = SumTree(self._slots * rows) if self._alpha else None
        self._highest = 1.0

    def add(self, batch: Batch) -> None:
        """Take in a batch that begins where the one before ended; the oldest steps fall out.

        Raises:
            ConfigError: it has another number of rows than the first.
        """
        if not self._rows:
            self._allocate(batch.rows)
        if batch.rows != self._rows:
            raise ConfigError(
                f"the replay holds steps of {self._rows} cars, but was given {batch.rows}; "
                "keep train.cars as it was"
            )
        steps = {
            "action": batch.action,
            "reward": batch.reward,
            "terminated": batch.terminated,
            "ended": batch.ended,
        }
        self._put(batch.observation, steps, batch.reached)
        self._follow(batch.last_observation)

    def _put(self, seen: Segment, steps: Segment, reached: Segment) -> None:
        """Append steps, without what follows the last of them."""
        ended = steps["ended"]
        count = len(ended)
        self._make_room(int(ended.sum()), self.head + count)
        number = self._ends + np.cumsum(ended).reshape(ended.shape) - ended
        kept = slice(max(0, count - self._slots), None)  # of a batch longer than the ring
        at = np.arange(self.head, self.head + count)[kept] % self._slots
        for mine, given in ((self._seen, seen), (self._steps, steps)):
            for name, array in mine.items():
                array[at] = given[name][kept]
        self._end[at], self._ends_before[at] = number[kept], number[kept, 0]
        fresh = np.arange(self._ends, self._ends + int(ended.sum()))
        for name, array in self._reached.items():
            array[fresh % len(array)] = reached[name]
        self._ends += len(fresh)
        self.head += count
        if self._tree is not None:
            spots = (at[:, None] * self._rows + np.arange(self._rows)).ravel()
            self._tree.set(spots, np.full(len(spots), self._highest**self._alpha))

    def _make_room(self, fresh: int, head: int) -> None:
        """Let the ring of what ended episodes reached hold those still kept, and fresh ones."""
        oldest = max(0, head - self._slots + 1)
        living = 0
        if oldest < self.head:
            living = self._ends - int(self._ends_before[oldest % self._slots])
        for name, array in self._reached.items():
            if living + fresh > len(array):
                grown = np.zeros(
                    (max(2 * len(array), living + fresh), *array.shape[1:]), array.dtype
                )
                old = np.arange(self._ends - living, self._ends)
                grown[old % len(grown)] = array[old % len(array)]
                self._reached[name] = grown

    def _follow(self, last: Segment) -> None:
        """Keep what follows the last step; it cannot be drawn before it was acted on."""
        slot = self.head % self._slots
        for name, array in self._seen.items():
            array[slot] = last[name]
        if self._tree is not None:
            spots = slot * self._rows + np.arange(self._rows)
            self._tree.set(spots, np.zeros(self._rows))

    def draw(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        steps: int,
        gamma: float,
        beta: float = 1.0,
        parts: int = 1,
    ) -> Sample:
        """Draw transitions, each as likely as any or by priority, with replacement.

        A transition goes over `steps` steps, or fewer where its episode ends before, or where the
        memory does. An episode that the clock cut off keeps the value of what it reached.

        Args:
            count: B.
            rng: where chance comes from.
            steps: n of n-step returns.
            gamma: discount of one step.
            beta: how far the weights make up for priorities, 0 to 1.
            parts: minibatches that the B will be cut into, one after the other.

        Source: Sutton and Barto 2018, eq. 7.1 (n-step return); Schaul et al. 2016, sec. 3.4
        (weights, divided by the greatest of the B).
        """
        weight = np.ones(count, np.float32)
        if self._tree is None:
            step = rng.integers(self.oldest, self.head, count)
            row = rng.integers(0, self._rows, count)
        else:
            # Drawn in the order of the memory: each minibatch takes some from all over it.
            dealt = np.arange(count).reshape(-1, parts).T.reshape(-1)
            spot, share = (one[dealt] for one in self._tree.draw(rng.random(count)))
            slot, row = np.divmod(spot, self._rows)
            step = self.head - 1 - (self.head - 1 - slot) % self._slots
            weight = ((len(self) * share) ** -beta).astype(np.float32)
            weight /= weight.max()
        return self._transitions(step, row, weight, steps, np.float32(gamma))

    def windows(self, count: int, rng: np.random.Generator, length: int) -> Windows:
        """Draw stretches of `length` steps, each as likely as any, with replacement.

        They may go over the ends of episodes. There must be `length + 1` steps.
        """
        # Before the oldest step nobody knows what was done, but that it began the training.
        first = self.oldest + (self.oldest > 0)
        start = rng.integers(first, self.head - length + 1, count)
        row = rng.integers(0, self._rows, count)
        at = (start + np.arange(length + 1)[:, None]) % self._slots * self._rows + row
        driven = at[:-1]
        last = (start - 1) % self._slots * self._rows + row
        flat = {name: _flat(array) for name, array in self._steps.items()}
        ended = flat["ended"][driven]
        number = _flat(self._end)[driven[ended]]
        return Windows(
            observation={name: _flat(array)[at] for name, array in self._seen.items()},
            begins=flat["ended"][last] | (start == 0),
            before=flat["action"][last],
            action=flat["action"][driven],
            reward=flat["reward"][driven],
            terminated=flat["terminated"][driven],
            ended=ended,
            reached={k: array[number % len(array)] for k, array in self._reached.items()},
        )

    def _transitions(
        self, step: Array, row: Array, weight: Float32, steps: int, gamma: np.float32
    ) -> Sample:
        flat = {name: _flat(array) for name, array in self._steps.items()}
        start = last = (step % self._slots) * self._rows + row
        reward, discount = flat["reward"][start], np.full(len(step), gamma)
        for k in range(1, steps):
            on = ~flat["ended"][last] & (step + k < self.head)
            last = np.where(on, ((step + k) % self._slots) * self._rows + row, last)
            reward += np.where(on, discount * flat["reward"][last], np.float32(0))
            discount = np.where(on, discount * gamma, discount)
        after = (last + self._rows) % (self._slots * self._rows)
        ended = np.flatnonzero(flat["ended"][last])
        number = _flat(self._end)[last[ended]]
        reached = {name: _flat(array)[after] for name, array in self._seen.items()}
        for name, array in self._reached.items():
            reached[name][ended] = array[number % len(array)]
        return Sample(
            index=step * self._rows + row,
            observation={name: _flat(array)[start] for name, array in self._seen.items()},
            action=flat["action"][start],
            reward=reward,
            discount=np.where(flat["terminated"][last], np.float32(0), discount),
            reached=reached,
            weight=weight,
        )

    def prioritize(self, index: Array, priority: Array) -> None:
        """Say how surprising transitions were; those that have fallen out are passed over.

        Args:
            index: of a `Sample`.
            priority: above 0, such as the size of the error.
        """
        if self._tree is None:
            return
        step, row = np.divmod(index, self._rows)
        kept = step >= self.oldest
        # Of one drawn twice the last counts, on every machine.
        _, final = np.unique(index[kept][::-1], return_index=True)
        value = priority[kept][::-1][final].astype(np.float64)
        spots = ((step[kept] % self._slots) * self._rows + row[kept])[::-1][final]
        self._tree.set(spots, value**self._alpha)
        self._highest = max(self._highest, float(priority.max()))

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what continuing needs besides the steps, which `segment` returns."""
        meta = {"rows": self._rows, "head": self.head}
        arrays: dict[str, Array] = {}
        if self._rows:
            slot = self.head % self._slots
            arrays = {f"last.{name}": array[slot].copy() for name, array in self._seen.items()}
            if self._tree is not None:
                arrays["priority"] = self._tree.leaves
                arrays["highest"] = np.array(self._highest)
        return meta, arrays

    def segment(self, first: int) -> dict[str, Array]:
        """Return all steps from number `first` on, and what their episodes reached."""
        at = np.arange(first, self.head) % self._slots
        arrays = {f"seen.{name}": array[at] for name, array in self._seen.items()}
        arrays |= {f"step.{name}": array[at] for name, array in self._steps.items()}
        number = np.arange(int(self._ends_before[at[0]]) if len(at) else self._ends, self._ends)
        for name, array in self._reached.items():
            arrays[f"reached.{name}"] = array[number % len(array)]
        return arrays

    def restore(
        self,
        meta: Mapping[str, Any],
        arrays: Mapping[str, Array],
        segments: Iterable[tuple[int, Segment]],
    ) -> None:
        """Continue exactly from what `save` and `segment` returned.

        Args:
            meta: of `save`.
            arrays: of `save`.
            segments: number of the first step and steps of each, in order, without gaps.

        Raises:
            RunError: the segments do not hold what the checkpoint needs.
        """
        self._rows = 0
        if not meta["rows"]:
            return
        self._allocate(int(meta["rows"]))
        wanted = int(meta["head"])
        oldest = max(0, wanted - self._slots + 1)
        self.head = oldest
        for first, steps in segments:
            count = len(steps["step.reward"])
            if first > self.head or first + count > wanted:
                break
            skip = min(count, self.head - first)
            ends = int(steps["step.ended"][:skip].sum())
            self._put(
                {k: v[skip:] for k, v in below(steps, "seen.").items()},
                {k: v[skip:] for k, v in below(steps, "step.").items()},
                {k: v[ends:] for k, v in below(steps, "reached.").items()},
            )
        if self.head != wanted:
            raise RunError(
                f"the memory of the training is incomplete: it needs its steps {oldest:,} to "
                f"{wanted:,}, and the files end at {self.head:,}; start anew with --from"
            )
        self._follow(below(arrays, "last."))
        if self._tree is not None:
            self._tree.set(np.arange(self._slots * self._rows), arrays["priority"])
            self._highest = float(arrays["highest"])


class SumTree:
    """Weights of `size` leaves, of which one is drawn in proportion in a logarithm of steps.

    Source: Schaul et al. 2016, arXiv:1511.05952, appendix B.2.1.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._first = 1 << max(1, size - 1).bit_length()
        self._sums: Float64 = np.zeros(2 * self._first)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._sums[1])

    @property
    def leaves(self) -> Float64:
        """A copy of all weights."""
        return self._sums[self._first : self._first + self._size].copy()

    def set(self, index: Array, weight: Array) -> None:
        """Give some leaves other weights; no index twice."""
        node = self._first + np.asarray(index)
        self._sums[node] = weight
        while len(node) and node[0] > 1:
            node = np.unique(node >> 1)
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]

    def draw(self, share: Array) -> tuple[Array, Float64]:
        """Return the leaf at each share (0 to 1) of the total, and its part of the total.

        The shares are spread: the k-th of B is taken inside of the k-th B-th part.
        """
        sums, count = self._sums, len(share)
        left_over = (np.arange(count) + share) / count * sums[1]
        node = np.ones(count, np.int64)
        while node[0] < self._first:
            node = 2 * node
            # Rounding may ask for more than there is: a leaf of weight 0 is never drawn.
            right = (left_over >= sums[node]) & (sums[node + 1] > 0)
            left_over = np.where(right, left_over - sums[node], left_over)
            node = node + right
        return node - self._first, sums[node] / sums[1]


def _flat(values: Array) -> Array:
    """See (slots, N, ...) as (slots N, ...), without copying."""
    return values.reshape(-1, *values.shape[2:])
