"""Random draws by counter: pinned values, independence, uniformity."""

from statistics import NormalDist

import numpy as np
import pytest

from hotlap.draws import Purpose, generator, normal, normal_quantile, uniform


def draw(seed=1, rows=5, episode=0, step=0, purpose=Purpose.ACTION, count=3):
    row = np.arange(rows)
    return uniform(seed, row, np.full(rows, episode), np.full(rows, step), purpose, count)


def test_the_mixing_function_is_the_published_one():
    # SplitMix64 with seed 0 starts 0xE220A8397B1DCDAF (Vigna's splitmix64.c); mix() is one step.
    def mix(key):
        mask = 2**64 - 1
        key = (key + 0x9E3779B97F4A7C15) & mask
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & mask
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & mask
        return key ^ (key >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((7 + golden) % 2**64)
    for part in (12, 3, 45, int(Purpose.START)):
        key = mix(key ^ part)
    expected = [((mix((key + golden * i) % 2**64) >> 41) + 0.5) / 2**23 for i in (1, 2)]

    assert mix(0) == 0xE220A8397B1DCDAF
    one = [np.array([v]) for v in (12, 3, 45)]
    np.testing.assert_array_equal(uniform(7, *one, Purpose.START, 2)[0], np.float32(expected))


def test_a_row_draws_the_same_in_any_company_and_any_order():
    few, many = draw(rows=3), draw(rows=50)
    shuffled = uniform(1, np.array([2, 0, 1]), np.zeros(3, int), np.zeros(3, int), 1, 3)

    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(shuffled, few[[2, 0, 1]])


def test_a_longer_draw_begins_like_a_shorter_one():
    np.testing.assert_array_equal(draw(count=7)[:, :3], draw(count=3))


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"episode": 1}, {"step": 1}, {"purpose": Purpose.START}]
)
def test_each_part_of_the_key_changes_every_number(other):
    assert (draw() != draw(**other)).all()


def test_parts_of_the_key_do_not_stand_in_for_each_other():
    assert (draw(episode=1, step=2) != draw(episode=2, step=1)).all()


def test_negative_and_huge_seeds_are_seeds():
    assert (draw(seed=-1) != draw(seed=2**63)).all()
    np.testing.assert_array_equal(draw(seed=-1), draw(seed=2**64 - 1))


def test_draws_are_uniform_and_open_at_both_ends():
    numbers = draw(rows=100_000, count=4)

    assert numbers.dtype == np.float32
    assert numbers.min() > 0
    assert numbers.max() < 1
    # 400,000 draws in 20 bins: chi-squared with 19 degrees of freedom exceeds 43.8 once in 1000.
    seen = np.histogram(numbers, 20, (0, 1))[0]
    assert ((seen - 20_000.0) ** 2 / 20_000).sum() < 43.8
    # Neighbours in row and in index are unrelated: r has a deviation of 1 / sqrt(100,000) = 0.003.
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.013
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.013


def test_no_purpose_shares_its_number_with_another():
    assert len({int(p) for p in Purpose}) == len(Purpose.__members__)


def test_normal_numbers_have_the_moments_of_the_bell():
    row, zero = np.arange(20000), np.zeros(20000, int)

    found = normal(3, row, zero, zero, Purpose.SENSOR, 3)

    # 20,000 draws a column: mean to 0.007, deviation to 0.005, kurtosis to 0.035 (one sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=0.02)
    np.testing.assert_allclose((found**4).mean(axis=0), 3, atol=0.2)
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(3), atol=0.03)


@pytest.mark.parametrize("seed", [0, -1, 2**63 + 1, 2**64])
def test_any_seed_has_streams_that_differ_and_begin_anew(seed):
    drawn = [generator(seed, count).random() for count in (None, 0, 1, None, 0, 1)]

    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3


def test_the_streams_of_great_seeds_are_not_their_neighbours():
    drawn = [generator(seed, 5).random() for seed in (2**63, 2**63 + 1, -1, -2)]

    assert len(set(drawn)) == 4


def test_the_quantile_is_the_standard_library_s():
    p = np.concatenate([10.0 ** -np.arange(1, 16), np.linspace(0.001, 0.999, 99), [1 - 1e-9]])

    found = normal_quantile(p)

    np.testing.assert_allclose(found, [NormalDist().inv_cdf(x) for x in p], rtol=1e-13, atol=1e-15)
