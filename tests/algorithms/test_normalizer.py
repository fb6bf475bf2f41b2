import numpy as np
import pytest

from hotlap.algorithms.normalizer import ReturnScaler, RunningNormalizer, normalize


def test_merging_in_pieces_is_the_mean_and_variance_of_the_whole():
    data = np.random.default_rng(0).standard_normal((1000, 3)) * [1.0, 50.0, 0.1] + [0.0, 1e4, -3.0]
    normalizer = RunningNormalizer(3)

    for piece in np.split(data, [1, 7, 500]):
        normalizer.update(piece)

    np.testing.assert_allclose(normalizer.mean, data.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.variance, np.var(data, axis=0), rtol=1e-9)


def test_no_rows_change_nothing():
    normalizer = RunningNormalizer(2)
    normalizer.update(np.array([[1.0, 2.0], [3.0, 6.0]]))
    normalizer.update(np.zeros((0, 2)))

    np.testing.assert_allclose(normalizer.mean, [2.0, 4.0])
    np.testing.assert_allclose(normalizer.std, [1.0, 2.0])


def test_a_constant_feature_is_centred_but_not_blown_up():
    normalizer = RunningNormalizer(1)
    normalizer.update(np.full((10, 1), 0.3, np.float32))

    np.testing.assert_allclose(normalizer.std, [1.0])


def test_normalised_numbers_stay_inside_ten():
    value = np.array([[1.0, 1e9, -1e9]], np.float32)

    found = normalize(value, np.zeros(3, np.float32), np.full(3, 2.0, np.float32))

    np.testing.assert_array_equal(found, [[0.5, 10.0, -10.0]])


def test_what_is_no_number_stays_none():
    value = np.array([[np.nan, np.inf, 1.0]], np.float32)

    found = normalize(value, np.zeros(3, np.float32), np.ones(3, np.float32))

    np.testing.assert_array_equal(found, [[np.nan, 10.0, 1.0]])


@pytest.mark.parametrize("width", [2, 4])
def test_a_mean_for_each_column_is_needed(width):
    three = np.ones(3, np.float32)

    with pytest.raises(ValueError, match="means"):
        normalize(np.zeros((5, width), np.float32), three, three)


def test_saved_statistics_continue_where_they_were():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 50, 4))
    ours = RunningNormalizer(4)
    ours.update(first)
    copy = RunningNormalizer(4)
    copy.restore(ours.save())

    for normalizer in (ours, copy):
        normalizer.update(second)

    np.testing.assert_array_equal(copy.variance, ours.variance)


def test_the_return_starts_anew_after_an_end():
    # gamma 0.5, rewards 1 2 4: returns 1, 2.5, and after the end 4 -> deviation of (1, 2.5, 4)
    scaler = ReturnScaler(0.5)
    reward = np.array([[1.0], [2.0], [4.0]], np.float32)

    scaler.update(reward, np.array([[False], [True], [False]]))

    assert scaler.scale == pytest.approx(np.std([1.0, 2.5, 4.0]))


def test_returns_go_on_from_batch_to_batch():
    rng = np.random.default_rng(2)
    reward = rng.standard_normal((20, 3)).astype(np.float32)
    ended = rng.random((20, 3)) < 0.2
    whole, halves = ReturnScaler(0.9), ReturnScaler(0.9)

    whole.update(reward, ended)
    for piece in (slice(0, 10), slice(10, 20)):
        halves.update(reward[piece], ended[piece])

    assert halves.scale == pytest.approx(whole.scale, rel=1e-9)


def test_equal_returns_are_not_divided_by_nothing():
    scaler = ReturnScaler(0.9)
    scaler.update(np.zeros((5, 2), np.float32), np.zeros((5, 2), bool))

    assert scaler.scale == 1.0
