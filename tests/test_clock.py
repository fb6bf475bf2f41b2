"""The clock of a sensor by its laws: delays, losses, rates and noise."""

import numpy as np
import pytest

from hotlap.clock import Clock, ClockSettings
from hotlap.errors import ConfigError

DT = 0.1


class World:
    """N cars whose sensor reads (row, episode, step); it notes which rows it was asked for."""

    def __init__(self, rows=3, *, seed=0, ids=None, shape=(), dtype=np.float32, **given):
        self.clock = Clock(ClockSettings(**given), rows, dt=DT)
        self.rows, self.seed = rows, seed
        self.ids = np.arange(rows) if ids is None else np.asarray(ids)
        self.episode, self.steps = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        self.shape, self.dtype = shape, dtype
        self.drawn = []

    def read(self, rows):
        self.drawn.append(rows.tolist())
        value = 1000 * self.episode[rows] + self.steps[rows]
        return np.broadcast_to(
            value.reshape(-1, *[1] * len(self.shape)), (len(rows), *self.shape)
        ).astype(self.dtype)

    def see(self, rows=None):
        rows = np.arange(self.rows) if rows is None else np.asarray(rows)
        return self.clock.see(
            self.read, rows, seed=self.seed, row=self.ids[rows],
            episode=self.episode[rows], steps=self.steps[rows],
        )  # fmt: skip

    def drive(self, steps):
        """See at once, then after each of `steps` steps: (1 + steps, N)."""
        found = [self.see()]
        for _ in range(steps):
            self.steps += 1
            found.append(self.see())
        return np.array(found)


@pytest.mark.parametrize("late", [0, 1, 3, 7])
def test_latency_gives_exactly_the_reading_of_so_many_steps_ago(late):
    seen = World(latency=late * DT).drive(20)

    np.testing.assert_array_equal(seen[:, 0], np.maximum(np.arange(21) - late, 0))


def test_latency_is_rounded_up_to_whole_steps():
    seen = World(latency=0.21).drive(10)

    np.testing.assert_array_equal(seen[:, 0], np.maximum(np.arange(11) - 3, 0))


def test_a_sensor_that_loses_everything_shows_its_first_reading_for_ever():
    world = World(drop=1)

    seen = world.drive(50)

    assert (seen == 0).all()
    assert world.drawn == [[0, 1, 2]]


def test_a_slow_sensor_reads_at_its_own_rate_and_nothing_is_drawn_in_between():
    world = World(rate=4)  # one reading in 2.5 steps: at 0, 2.5 -> 3, 5, 7.5 -> 8, 10

    seen = world.drive(10)

    np.testing.assert_array_equal(seen[:, 0], [0, 0, 0, 3, 3, 5, 5, 5, 8, 8, 10])
    assert len(world.drawn) == 5


def test_a_fast_sensor_reads_at_every_step():
    np.testing.assert_array_equal(World(rate=1000).drive(5)[:, 0], np.arange(6))


def test_rate_and_latency_together():
    seen = World(rate=5, latency=0.3).drive(9)  # taken at 0, 2, 4, 6; seen 3 steps later

    np.testing.assert_array_equal(seen[:, 0], [0, 0, 0, 0, 0, 2, 2, 4, 4, 6])


def test_jitter_delays_within_its_bounds_and_never_goes_back_in_time():
    world = World(rows=200, latency=0.2, jitter=0.3)

    seen = world.drive(60)

    age = np.arange(61)[:, None] - seen
    assert (np.diff(seen, axis=0) >= 0).all()
    # A reading is 3 to 5 steps under way (2 only if it draws 0), so the newest is that old.
    assert set(np.unique(age[10:])) == {3, 4, 5}
    # The newest is 3 steps old if its own delay was at most 1 step: one in three.
    assert (age[10:] == 3).mean() == pytest.approx(1 / 3, abs=0.02)


def test_the_share_that_is_lost_is_the_one_asked_for():
    world = World(rows=500, drop=0.3)

    world.drive(40)

    taken = sum(len(rows) for rows in world.drawn[1:])
    # 20,000 chances: the share is known to 0.3 %
    assert taken / 20000 == pytest.approx(0.7, abs=0.015)


def test_noise_has_its_size_and_grows_with_the_reading():
    world = World(rows=300, shape=(40,), noise=0.3, noise_share=0.1)
    world.steps += 4

    error = world.see() - 4

    # 12,000 draws: sqrt(0.3^2 + 0.4^2) = 0.5, known to 0.003
    assert error.std() == pytest.approx(0.5, abs=0.015)
    assert abs(error.mean()) < 0.02


def test_noise_on_images_stays_inside_the_bytes():
    world = World(rows=4, shape=(12, 16, 1), dtype=np.uint8, noise=40)

    found = world.see()

    assert (found.dtype, found.shape) == (np.uint8, (4, 12, 16, 1))
    assert found.min() == 0  # half of the draws lie below 0 and are not wrapped around
    assert (found == 0).mean() == pytest.approx(0.5, abs=0.06)
    assert found.max() < 200


def test_rows_alone_see_what_they_see_together():
    given = {"latency": 0.1, "jitter": 0.4, "drop": 0.3, "noise": 0.1, "rate": 7}
    together = World(rows=5, seed=4, **given).drive(30)

    alone = [World(rows=1, ids=[i], seed=4, **given).drive(30)[:, 0] for i in range(5)]

    np.testing.assert_array_equal(together.T, alone)
    assert (World(rows=5, seed=5, **given).drive(30) != together).any()


def test_a_reset_forgets_and_leaves_the_other_rows_alone():
    world = World(latency=0.3)
    world.drive(5)

    world.see([1])  # as an env does: what the row reached, then its first observation
    world.episode[1], world.steps[1] = 1, 0
    after = world.see()
    world.steps += 1
    later = world.see()

    assert after.tolist() == [2, 1000, 2]
    assert later.tolist() == [3, 1000, 3]


def test_asked_twice_it_answers_the_same_and_draws_nothing():
    world = World(jitter=0.5, drop=0.2, noise=1.0)
    world.drive(9)
    drawn = len(world.drawn)

    first, again = world.see([2, 0]), world.see([2, 0])

    np.testing.assert_array_equal(first, again)
    assert len(world.drawn) == drawn


def test_what_is_saved_continues_exactly():
    given = {"latency": 0.2, "jitter": 0.3, "drop": 0.2, "noise": 0.5}
    one, two = World(**given), World(**given)
    one.drive(7)
    two.clock.restore(one.clock.save())
    two.steps += 7

    np.testing.assert_array_equal(one.drive(8)[1:], two.drive(8)[1:])


def test_a_delay_of_hours_is_refused():
    with pytest.raises(ConfigError, match="at most 1000 are remembered"):
        World(latency=3600)


def test_a_clock_is_perfect_unless_asked_otherwise():
    assert ClockSettings().perfect
    assert not ClockSettings(rate=10).perfect
