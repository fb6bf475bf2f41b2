"""Series against the C library in float64, over all that they are said to hold for."""

import math

import numpy as np
import pytest
from numba import njit

from hotlap import series


@njit
def each(values, out, which):
    for i in range(len(values)):
        v = values[i]
        if which == 0:
            out[i] = series.sin_quarter(v)
        elif which == 1:
            out[i] = series.cos_small(v)
        elif which == 2:
            out[i] = series.sin_cos(v)[0]
        elif which == 3:
            out[i] = series.sin_cos(v)[1]
        elif which == 4:
            out[i] = series.atan_positive(v)
        elif which == 5:
            out[i] = series.root(v)
        elif which == 7:
            out[i] = series.tanh(v)
        else:
            out[i] = series.wrap(v)


@pytest.mark.parametrize(
    ("which", "low", "high", "exact", "error"),
    [
        (0, -math.pi / 2, math.pi / 2, np.sin, 2e-7),
        (1, -1.3, 1.3, np.cos, 2e-7),
        (2, -math.pi, math.pi, np.sin, 3e-7),
        (3, -math.pi, math.pi, np.cos, 3e-7),
        (4, 0, 1, np.arctan, 6e-7),
        (4, 1, 1e4, np.arctan, 6e-7),
        (7, -12, 12, np.tanh, 3e-7),
        (6, -9, 9, lambda v: v - 2 * np.pi * np.floor(v / (2 * np.pi) + 0.5), 2e-6),
    ],
)
def test_the_stated_errors_hold_over_the_stated_ranges(which, low, high, exact, error):
    values = np.linspace(low, high, 200_001).astype(np.float32)[1:-1]
    found = np.empty_like(values)

    each(values, found, which)

    wrong = np.abs(found - exact(values.astype(np.float64)))
    if which == 6:  # next to +-pi either end is right
        wrong = np.minimum(wrong, np.abs(wrong - 2 * np.pi))
    assert wrong.max() < error


def test_roots_are_right_to_seven_digits_from_tiny_to_huge():
    values = np.logspace(-20, 29, 10_001).astype(np.float32)
    found = np.empty_like(values)

    each(values, found, 5)

    np.testing.assert_allclose(found, np.sqrt(values.astype(np.float64)), rtol=3e-7)


def test_the_tangent_of_no_number_is_none():
    given = np.array([np.nan, np.inf, -np.inf], np.float32)
    out = np.empty_like(given)

    each(given, out, 7)

    np.testing.assert_allclose(out, [np.nan, 1.0, -1.0], atol=1e-6)
