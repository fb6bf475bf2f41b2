"""The replay against slow twins that keep every step in lists."""

import json

import numpy as np
import pytest

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.replay import Replay, SumTree
from hotlap.errors import ConfigError, RunError

SEEN = {"camera": ObservationSpec((2, 3, 1), "uint8"), "state": ObservationSpec((2,), "float32")}


class World:
    """Rows whose every observation is told apart: its episode, its step and its row."""

    def __init__(self, rows, seed=0, ends=0.2):
        self.rows, self.ends, self.rng = rows, ends, np.random.default_rng(seed)
        self.now = [self.fresh() for _ in range(rows)]
        self.lists = [[] for _ in range(rows)]  # a row's steps: seen, action, reward, ends, reached

    def fresh(self):
        return self.rng.integers(0, 200, (2, 3, 1)).astype(np.uint8), self.rng.normal(size=2)

    def batch(self, steps):
        parts, reached = [], []
        for _ in range(steps):
            for row in range(self.rows):
                over, cut = self.rng.random(2) < self.ends / 2
                after = self.fresh()
                step = (self.now[row], self.rng.normal(size=1), self.rng.normal(), over, cut, after)
                self.lists[row].append(step)
                self.now[row] = self.fresh() if over or cut else after
                parts.append(step)
                if over or cut:
                    reached.append(after)
        return Batch(
            observation=stack([p[0] for p in parts], (steps, self.rows)),
            last_observation=stack(self.now, (self.rows,)),
            action=np.array([p[1] for p in parts], np.float32).reshape(steps, self.rows, 1),
            log_prob=np.zeros((steps, self.rows), np.float32),
            reward=np.array([p[2] for p in parts], np.float32).reshape(steps, self.rows),
            terminated=np.array([p[3] for p in parts]).reshape(steps, self.rows),
            truncated=np.array([p[4] for p in parts]).reshape(steps, self.rows),
            reached=stack(reached, (len(reached),)),
        )

    def transition(self, step, row, steps, gamma):
        """The slow twin: walk on until the episode, the memory or n ends."""
        total, factor = 0.0, 1.0
        for _, _, reward, over, cut, after in self.lists[row][step : step + steps]:  # noqa: B007
            total, factor = total + factor * reward, factor * gamma
            if over or cut:
                break
        return total, 0.0 if over else factor, after


def stack(seen, shape):
    camera = np.array([s[0] for s in seen], np.uint8).reshape(*shape, 2, 3, 1)
    return {
        "camera": camera,
        "state": np.array([s[1] for s in seen], np.float32).reshape(*shape, 2),
    }


def replay(capacity=60, alpha=0.0):
    return Replay(SEEN, ActionSpec("continuous", 1), capacity=capacity, alpha=alpha)


def draw(memory, count=150, seed=0, steps=3, gamma=0.9, **more):
    return memory.draw(count, np.random.default_rng(seed), steps=steps, gamma=gamma, **more)


def assert_same(one, other):
    for name in ("index", "action", "reward", "discount", "weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in SEEN:
        np.testing.assert_array_equal(one.observation[name], other.observation[name])
        np.testing.assert_array_equal(one.reached[name], other.reached[name])


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("lengths", [[4], [9] * 6, [3, 50]])
@pytest.mark.parametrize("ends", [0.0, 0.2, 1.0])
def test_what_is_drawn_is_what_happened(alpha, steps, lengths, ends):
    world, memory = World(4, ends=ends), replay(alpha=alpha)
    for length in lengths:
        memory.add(world.batch(length))

    drawn = draw(memory, steps=steps)

    total = sum(lengths)
    assert len(memory) == 4 * min(total, 15)
    for i, (step, row) in enumerate(zip(*np.divmod(drawn.index, 4), strict=True)):
        assert max(0, total - 15) <= step < total
        seen, action, *_ = world.lists[row][step]
        reward, discount, reached = world.transition(step, row, steps, 0.9)
        np.testing.assert_array_equal(drawn.observation["camera"][i], seen[0])
        np.testing.assert_array_equal(drawn.observation["state"][i], seen[1].astype(np.float32))
        np.testing.assert_array_equal(drawn.action[i], action.astype(np.float32))
        np.testing.assert_allclose(drawn.reward[i], reward, atol=1e-5)
        np.testing.assert_allclose(drawn.discount[i], discount, rtol=1e-5)
        np.testing.assert_array_equal(drawn.reached["camera"][i], reached[0])
        np.testing.assert_array_equal(drawn.reached["state"][i], reached[1].astype(np.float32))
    assert len(np.unique(drawn.index)) > 0.85 * len(memory)


def test_a_crash_ends_the_return_and_the_clock_only_the_rewards():
    # rewards 1, 2, 4, then the end: from the first step over three 1 + 2 / 2 + 4 / 4 = 3
    memory = Replay({"s": ObservationSpec((1,), "float32")}, ActionSpec("discrete", 2), capacity=99)
    memory.add(
        Batch(
            observation={"s": np.zeros((4, 2, 1), np.float32)},
            last_observation={"s": np.zeros((2, 1), np.float32)},
            action=np.zeros((4, 2), np.int64),
            log_prob=np.zeros((4, 2), np.float32),
            reward=np.array([[1, 1], [2, 2], [4, 4], [8, 8]], np.float32),
            terminated=np.array([[0, 0], [0, 0], [1, 0], [0, 0]], bool),
            truncated=np.array([[0, 0], [0, 0], [0, 1], [0, 0]], bool),
            reached={"s": np.array([[5], [6]], np.float32)},
        )
    )

    drawn = memory.draw(100, np.random.default_rng(0), steps=5, gamma=0.5)

    crash, clock = (np.flatnonzero(drawn.index == row)[0] for row in (0, 1))
    np.testing.assert_allclose(drawn.reward[[crash, clock]], [3.0, 3.0])
    np.testing.assert_allclose(drawn.discount[[crash, clock]], [0.0, 0.125])
    np.testing.assert_array_equal(drawn.reached["s"][[crash, clock], 0], [5.0, 6.0])


def test_every_transition_is_drawn_alike():
    world, memory = World(3), replay(capacity=12)
    memory.add(world.batch(9))

    counts = np.unique(draw(memory, 24_000).index, return_counts=True)[1]

    # 12 bins of 2000: five deviations of a binomial are 5 * sqrt(2000 * 11 / 12) = 214
    assert len(counts) == 12
    assert np.abs(counts - 2000).max() < 214


def test_priorities_decide_how_often_and_weights_make_up_for_it():
    world, memory = World(2), replay(capacity=8, alpha=0.5)
    memory.add(world.batch(4))
    index = np.arange(8)

    memory.prioritize(index, np.array([1.0, 4, 9, 16, 25, 36, 49, 64]))
    drawn = draw(memory, 36_000, beta=1.0)

    # priority^0.5 = 1 .. 8, whose sum is 36
    counts = np.unique(drawn.index, return_counts=True)[1]
    np.testing.assert_allclose(counts, 1000 * (index + 1), rtol=0.01)
    # (N P)^-1 / max = (1/8 36/k) / (36/8) = 1/k
    np.testing.assert_allclose(drawn.weight, 1.0 / (drawn.index + 1), rtol=1e-5)


def test_each_minibatch_of_a_draw_is_drawn_from_all_over_the_memory():
    world, memory = World(2), replay(capacity=80, alpha=0.5)
    memory.add(world.batch(32))

    drawn = draw(memory, 64, parts=4)

    # equal priorities: the k-th of the 64 parts of the memory is the k-th transition
    np.testing.assert_array_equal(np.sort(drawn.index), np.arange(64))
    for minibatch in drawn.index.reshape(4, 16):
        np.testing.assert_array_equal(minibatch // 4, np.arange(16))


def test_new_transitions_are_as_urgent_as_the_most_urgent_before():
    world, memory = World(2), replay(capacity=40, alpha=1.0)
    memory.add(world.batch(2))
    memory.prioritize(np.arange(4), np.array([1.0, 1, 1, 5]))
    memory.add(world.batch(1))

    counts = np.unique(draw(memory, 18_000).index, return_counts=True)[1]

    np.testing.assert_allclose(counts, [1000, 1000, 1000, 5000, 5000, 5000], rtol=0.01)


def test_priorities_of_what_fell_out_are_passed_over():
    world, memory = World(2), replay(capacity=6, alpha=1.0)
    memory.add(world.batch(3))
    old = np.arange(6)
    memory.add(world.batch(2))

    memory.prioritize(old, np.full(6, 1e-9))

    counts = dict(zip(*np.unique(draw(memory, 3000).index, return_counts=True), strict=True))
    assert sorted(counts) == [6, 7, 8, 9]  # 4 and 5 are kept, and so unlikely that none was drawn


def test_the_sum_tree_draws_what_a_search_through_all_sums_draws():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 64, 100):
        tree, weights = SumTree(size), np.zeros(size)
        for _ in range(20):
            index = rng.permutation(size)[: rng.integers(1, size + 1)]
            weights[index] = rng.integers(0, 5, len(index)) + (index == 0)
            weights[0] += 1
            tree.set(index, weights[index])
            tree.set(np.array([0]), weights[:1])
            share = rng.random(50)

            leaf, part = tree.draw(share)

            total = weights.sum()
            target = (np.arange(50) + share) / 50 * total
            np.testing.assert_array_equal(
                leaf, np.searchsorted(np.cumsum(weights), target, "right")
            )
            np.testing.assert_allclose(part, weights[leaf] / total)
            assert tree.total == total


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("cuts", [[1], [2, 3], [3, 1, 1, 4], [30]])
def test_restored_from_its_segments_it_draws_the_same(alpha, cuts):
    world, memory = World(4), replay(alpha=alpha)
    segments, written = [], 0
    for length in cuts:
        for _ in range(length):
            memory.add(world.batch(3))
            if alpha:
                drawn = draw(memory, 20)
                memory.prioritize(drawn.index, np.abs(drawn.reward) + 0.01)
        first = max(written, memory.oldest)
        segments.append((first, memory.segment(first)))
        written = memory.head
    meta, arrays = memory.save()
    needed = [s for s in segments if s[0] + len(s[1]["step.reward"]) > memory.oldest]

    other = replay(alpha=alpha)
    other.restore(json.loads(json.dumps(meta)), arrays, needed)

    more = World(4, seed=5).batch(4)
    for one in (memory, other):
        assert_same(draw(memory), draw(one))
    for one in (memory, other):
        one.add(more)
    assert_same(draw(memory), draw(other))


def test_segments_hold_an_observation_once():
    world, memory = World(4), replay(capacity=4000)
    memory.add(world.batch(500))

    size = sum(array.nbytes for array in memory.segment(0).values())

    # a step: 6 + 8 of observation, 4 + 4 + 1 + 1; and what about a fifth of them reached, 14
    assert size < 500 * 4 * (24 + 0.25 * 14)


def test_nothing_kept_is_saved_and_restored():
    memory = replay()
    meta, arrays = memory.save()

    other = replay()
    other.restore(meta, arrays, [])

    assert len(other) == 0


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_segment_is_told(lost):
    world, memory = World(4), replay()
    segments = []
    for _ in range(3):
        first = memory.head
        memory.add(world.batch(4))
        segments.append((first, memory.segment(first)))
    meta, arrays = memory.save()
    del segments[lost]

    with pytest.raises(RunError, match="incomplete: it needs its steps 0 to 12"):
        replay().restore(meta, arrays, segments)


def test_another_number_of_rows_is_refused():
    memory = replay()
    memory.add(World(4).batch(2))

    with pytest.raises(ConfigError, match=r"of 4 cars, but was given 3; keep train\.cars"):
        memory.add(World(3).batch(2))
