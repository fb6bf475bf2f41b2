"""The built-in courses: the certificate that each must hold."""

import numpy as np
import pytest
from shapely import LinearRing, LineString, Polygon

from hotlap.track import load_track
from hotlap.track.courses import COURSES, check, draw

CLOSED = [name for name, course in COURSES.items() if course.closed]
ASKED = {  # length, width, least radius of the centre line [m]
    "oval": (16.0, 0.80, 1.2),
    "easy": (22.0, 0.90, 1.2),
    "medium": (24.0, 0.50, 0.7),
    "reinvent_like": (17.6, 0.76, 0.5),
    "hairpins": (34.0, 0.70, 0.55),
    "kart": (45.0, 1.07, 0.8),
    "hard": (42.0, 0.44, 0.55),
    "straight": (12.0, 0.80, 1e6),
}


def test_every_course_has_a_certificate():
    assert set(ASKED) == set(COURSES)


@pytest.mark.parametrize("name", ASKED)
def test_a_course_has_its_length_its_width_and_no_bend_too_tight(name):
    length, width, radius = ASKED[name]

    track = load_track(name)

    stations = track.stations
    assert track.length == pytest.approx(length, abs=1e-3)
    np.testing.assert_allclose(stations.left, width / 2, rtol=0.01)
    np.testing.assert_allclose(stations.right, width / 2, rtol=0.01)
    tightest = np.abs(stations.curvature).max()
    assert tightest < 1 / radius
    assert tightest * width / 2 < 0.9


@pytest.mark.parametrize("name", ASKED)
def test_a_course_starts_on_a_straight_of_a_metre(name):
    stations = load_track(name).stations

    ahead = int(1.0 / stations.spacing)
    behind = int(0.2 / stations.spacing) if stations.closed else 0
    around = np.arange(-behind, ahead + 1)
    assert np.abs(stations.curvature[around]).max() < 0.02


@pytest.mark.parametrize("name", ASKED)
def test_a_course_passes_the_checks_that_a_users_track_must_pass(name):
    rows = draw(COURSES[name])

    kept, closed = check(rows, name)

    assert closed == COURSES[name].closed
    assert len(kept) == len(rows) - closed


@pytest.mark.parametrize("name", CLOSED)
def test_the_ribbon_of_a_course_never_meets_itself(name):
    track = load_track(name)

    inner, outer = Polygon(track.inner), Polygon(track.outer)
    centre = Polygon(track.centre)
    assert inner.is_valid
    assert outer.is_valid
    assert outer.contains(centre)
    assert centre.contains(inner)
    # Two legs that touch would hide road, whose area is length times width.
    road = outer.difference(inner).area
    assert road == pytest.approx(track.length * COURSES[name].width, rel=0.002)
    # A kerb's width of 5 cm stays free between any two legs.
    around = LineString(track.waypoints[:, :2]).buffer(COURSES[name].width / 2 + 0.025)
    assert len(around.interiors) == 1


def test_reinvent_like_has_a_long_straight_and_one_bend_much_tighter_than_the_others():
    stations = load_track("reinvent_like").stations

    turning = np.abs(stations.curvature) > 0.1
    straight = int(turning.argmax()) * stations.spacing
    assert straight > 4.0
    assert 0.5 <= 1 / np.abs(stations.curvature).max() <= 0.6


def test_one_course_is_driven_clockwise():
    clockwise = [name for name in CLOSED if not LinearRing(load_track(name).centre).is_ccw]

    assert clockwise == ["hairpins"]


def test_hard_bends_about_thirty_times_and_both_ways():
    stations = load_track("hard").stations

    turning = np.where(np.abs(stations.curvature) > 0.7, np.sign(stations.curvature), 0)
    starts = turning[(turning != np.roll(turning, 1)) & (turning != 0)]
    total = np.abs(stations.curvature).sum() * stations.spacing
    assert min((starts > 0).sum(), (starts < 0).sum()) >= 8
    # Thirty bends of 60 degrees turn the car by 1800 degrees in all.
    assert np.degrees(total) > 1800
