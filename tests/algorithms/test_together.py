"""Learners that learn together: n of them are one with the n-fold batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.learner import Learner, make_learner
from hotlap.algorithms.normalizer import RunningNormalizer, moments
from hotlap.algorithms.peers import ALONE, Layout, Peers
from hotlap.algorithms.settings import (
    DQNSettings,
    NetworkSettings,
    PPOSettings,
    PQNSettings,
    SACSettings,
)
from hotlap.types import Array, Float32

ROWS, STEPS = 12, 8
SEEN = {"state": ObservationSpec((5,), "float32")}
NETWORK = NetworkSettings(mlp=(16,))


@dataclass
class Table:
    """Where threads lay what they have, and take it when all have."""

    size: int
    laid: dict[int, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size)

    def exchange(self, place: int, own: Array) -> list[Array]:
        self.barrier.wait(30)
        self.laid[place] = own
        self.barrier.wait(30)
        return [self.laid[i] for i in range(self.size)]


class Neighbours(Peers):
    def __init__(self, table: Table, place: int, first: int, total: int) -> None:
        super().__init__(first, total)
        self._table, self._place = table, place

    def gather(self, own: Array) -> tuple[list[Array], int]:
        return self._table.exchange(self._place, own), self._place

    def sum(self, own: Float32) -> Float32:
        return np.sum(self._table.exchange(self._place, own), axis=0, dtype=np.float32)


def experience(seed: int, *, discrete: bool, log_prob: Float32 | None = None) -> Batch:
    rng = np.random.default_rng(seed)
    shape = (STEPS, ROWS)
    ended = rng.random(shape) < 0.1
    cut = ended & (rng.random(shape) < 0.5)
    seen = rng.standard_normal((*shape, 5)).astype(np.float32) * 3 + 1
    action = rng.integers(0, 3, shape) if discrete else rng.standard_normal((*shape, 2))
    return Batch(
        observation={"state": seen},
        last_observation={"state": rng.standard_normal((ROWS, 5)).astype(np.float32)},
        action=action if discrete else action.astype(np.float32),
        log_prob=np.full(shape, -1.5, np.float32),
        reward=rng.standard_normal(shape).astype(np.float32),
        terminated=ended & ~cut,
        truncated=cut,
        reached={"state": rng.standard_normal((int(ended.sum()), 5)).astype(np.float32)},
    )


def part(batch: Batch, first: int, count: int) -> Batch:
    """Return some rows of a batch."""
    own = slice(first, first + count)
    rows = np.nonzero(batch.ended)[1]
    mine = (rows >= first) & (rows < first + count)
    return Batch(
        observation={k: v[:, own] for k, v in batch.observation.items()},
        last_observation={k: v[own] for k, v in batch.last_observation.items()},
        action=batch.action[:, own],
        log_prob=batch.log_prob[:, own],
        reward=batch.reward[:, own],
        terminated=batch.terminated[:, own],
        truncated=batch.truncated[:, own],
        reached={k: v[mine] for k, v in batch.reached.items()},
    )


def learner(settings: object, *, discrete: bool) -> Learner:
    action = ActionSpec("discrete", 3) if discrete else ActionSpec("continuous", 2)
    return make_learner(
        settings, SEEN, action, ("state",), ("state",), seed=3, device="cpu"
    )  # fmt: skip


def side_by_side(works: list[Callable[[], None]]) -> None:
    wrong: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if wrong:
        raise wrong[0]


def drive(one: Learner, rows: int) -> None:
    """Let one that remembers see the begin of the batch that it is given."""
    seen = {"state": np.ones((rows, 5), np.float32)}
    one.act(seen, np.full((rows, 2), 0.5), np.ones(rows, bool))


def together(settings: object, sizes: tuple[int, ...], *, discrete: bool) -> list[Learner]:
    """Let learners with so many rows each learn from three batches."""
    table, firsts = Table(len(sizes)), np.cumsum([0, *sizes])
    learners = [learner(settings, discrete=discrete) for _ in sizes]

    def work(place: int) -> Callable[[], None]:
        def learn() -> None:
            first = int(firsts[place])
            learners[place].join(Neighbours(table, place, first, ROWS))
            for seed in range(3):
                whole = experience(seed, discrete=discrete)
                drive(learners[place], sizes[place])
                learners[place].update(part(whole, first, sizes[place]), progress=0.1 * seed)

        return learn

    side_by_side([work(place) for place in range(len(sizes))])
    return learners


SETTINGS = {
    "ppo": (PPOSettings(network=NETWORK, minibatch=32, epochs=2), False),
    "ppo_choices": (PPOSettings(network=NETWORK, minibatch=40, epochs=2), True),
    "ppo_memory": (
        PPOSettings(network=NETWORK.model_copy(update={"memory": 4}), minibatch=32, epochs=2),
        False,
    ),
    "pqn": (PQNSettings(network=NETWORK, minibatch=32), True),
}


@pytest.mark.parametrize("sizes", [(6, 6), (3, 4, 5)])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_peers_learn_what_one_learns_from_all_rows(name: str, sizes: tuple[int, ...]) -> None:
    settings, discrete = SETTINGS[name]
    alone = learner(settings, discrete=discrete)
    for seed in range(3):
        drive(alone, ROWS)
        alone.update(experience(seed, discrete=discrete), progress=0.1 * seed)
    wanted = alone.save()[1]
    for one in together(settings, sizes, discrete=discrete):
        found = one.save()[1]
        for key, value in wanted.items():
            if key not in ("reward.return", "memory.actor", "memory.critic"):  # of its own rows
                np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_peers_with_a_replay_of_their_own_stay_the_same(name: str) -> None:
    settings, discrete = {
        "dqn": (DQNSettings(network=NETWORK, minibatch=24, warmup=96, update_ratio=0.05), True),
        "sac": (SACSettings(network=NETWORK, minibatch=24, warmup=96, update_ratio=0.05), False),
    }[name]
    first, second, third = together(settings, (4, 4, 4), discrete=discrete)
    wanted, counted = first.save()[1], first.save()[0]
    assert counted["transitions"] == 3 * ROWS * STEPS
    assert counted["gradient_steps"] == round(0.05 * 2 * ROWS * STEPS - 0.5)
    for one in (second, third):
        found, counters = one.save()[1], one.save()[0]
        assert counters == counted
        for key, value in wanted.items():
            if key not in ("reward.return", "walk"):
                np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).standard_normal((100, 4)) * 5 + 100
    normalizer = RunningNormalizer(4)
    for piece in np.array_split(values, [0, 7, 60]):
        normalizer.merge(moments(piece))
    np.testing.assert_allclose(normalizer.variance, values.var(axis=0), rtol=1e-12)


def test_what_was_seen_since_has_its_own_moments() -> None:
    values = np.random.default_rng(0).standard_normal((100, 4)) * 5 + np.arange(100)[:, None]
    normalizer = RunningNormalizer(4)
    normalizer.update(values[:30])
    before = normalizer.save()
    normalizer.update(values[30:])
    np.testing.assert_allclose(normalizer.since(before), moments(values[30:]), rtol=1e-10)


def test_a_layout_counts_the_steps_of_all_rows_in_time() -> None:
    own = {"number": np.arange(6, dtype=np.float32).reshape(2, 3)}
    alone = Layout(own, ALONE)
    assert alone.count == 6
    np.testing.assert_array_equal(alone.own(np.array([4, 0])), [4, 0])

    whole = np.arange(20, dtype=np.float32).reshape(4, 5)  # what all have seen, step by step
    table, found = Table(2), {}

    def look(place: int, first: int, count: int) -> Callable[[], None]:
        def work() -> None:
            mine = {"number": whole[:, first : first + count]}
            found[place] = Layout(mine, Neighbours(table, place, first, 5))

        return work

    side_by_side([look(0, 0, 2), look(1, 2, 3)])
    for layout in found.values():
        np.testing.assert_array_equal(layout.whole["number"], whole.ravel())
    # step 1 of row 1 is number 6 of all, and number 3 of the first two rows
    np.testing.assert_array_equal(found[0].own(np.array([6, 7])), [3])
    np.testing.assert_array_equal(found[1].own(np.array([6, 7])), [3])
