"""Grain: its distribution, its independence, and what it depends on."""

import numpy as np
import pytest
from scipy.stats import kurtosis, norm

from hotlap.draws import Purpose, keys
from hotlap.grain import add_grain


def grains(images=40, size=20_000, deviation=8.0, level=128, episode=0):
    zero, row = np.zeros(images, int), np.arange(images)
    key = keys(3, row, zero + episode, zero, Purpose.NOISE)
    flat = np.full(images * size, level, np.uint8)
    table = np.full(256, deviation, np.float32)
    add_grain(0, images, flat, size, key, table)
    return flat.reshape(images, size).astype(float) - level


def test_grain_is_the_sum_of_four_even_bytes():
    z = grains(deviation=30.0).ravel() / 30

    # The sum of four even numbers: excess kurtosis -1.2 / 4; rounding to levels adds 1/12 / 30^2.
    assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(z.size))
    assert z.std() == pytest.approx(1, abs=0.004)
    assert kurtosis(z) == pytest.approx(-0.3, abs=0.02)
    edges = np.arange(-3, 3.1, 0.5)
    shares = np.array([(z <= edge).mean() for edge in edges])
    assert abs(shares - norm.cdf(edges + 0.5 / 30)).max() < 0.008


def test_grain_has_no_pattern_in_an_image_or_between_images():
    z = grains()

    limit = 4.5 / np.sqrt(z.shape[1])
    for lag in (1, 2, 3, 16, 160):
        assert abs(np.mean(z[:, lag:] * z[:, :-lag], axis=1) / 64).max() < limit
    between = np.corrcoef(np.vstack([z, grains(episode=1)]))
    assert abs(between - np.eye(80)).max() < 5 / np.sqrt(z.shape[1])


def test_grain_of_an_image_depends_on_its_key_alone_and_follows_the_table():
    alone, many = grains(images=1), grains(images=3)
    np.testing.assert_array_equal(alone[0], many[0])

    flat = np.repeat(np.array([10, 200], np.uint8), 5000)
    table = np.zeros(256, np.float32)
    table[200] = 5
    add_grain(0, 1, flat, 10_000, np.array([7], np.uint64), table)
    assert (flat[:5000] == 10).all()
    assert flat[5000:].std() == pytest.approx(5, rel=0.05)
