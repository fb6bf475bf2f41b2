"""Starts: where episodes begin, against roads whose width is known."""

import numpy as np
import pytest

from hotlap.starts import Starts, StartSettings
from hotlap.track import Track


def lane(near, far, name):
    """Return 6 m of straight road: its left half widens from `near` to `far`, its right is 0.9."""
    x = np.linspace(0, 6, 61)
    borders = np.linspace(near, far, 61), np.full(61, -0.9)
    return Track.from_waypoints(
        np.hstack([np.stack([x, y], 1) for y in (0 * x, *borders)]), name=name
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_half_road_of_a_start_is_the_narrower_half_where_it_lies_on_its_own_track(kind):
    starts = Starts(StartSettings(), [lane(0.2, 0.8, "a"), lane(0.5, 0.5, "b")], cars=1, rows=5)

    half = starts.half_road(np.int32([0, 1, 0, 0, 1]), np.array([0, 0.3, 0.5, 1, 1], kind))

    # of a: 0.2 at its start, 0.5 in the middle and 0.8 at its end; of b: 0.5 everywhere
    np.testing.assert_allclose(half, [0.2, 0.5, 0.5, 0.8, 0.5], atol=0.01)
    assert half.dtype == np.float32
