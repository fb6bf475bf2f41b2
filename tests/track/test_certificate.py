"""What a certificate measures, against rings and roads whose answers are sums by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hotlap.track import Track, load_track
from hotlap.track.certificate import certify, speed_profile
from hotlap.vehicle import GRAVITY, VEHICLES

CAR = VEHICLES["deepracer"]


def ring(radius=2.0, width=0.8):
    angle = np.linspace(0, 2 * np.pi, 241)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    unit[-1] = unit[0]
    rows = np.hstack([r * unit for r in (radius, radius - width / 2, radius + width / 2)])
    return Track.from_waypoints(rows, name="ring")


def test_a_ring_is_measured_by_hand():
    found = certify(ring(radius=1.0, width=0.6), CAR)

    # v^2 / r = mu g, so v = sqrt(0.7 * 9.81 * 1) = 2.62 m/s; a lap is 2 pi / v.
    speed = math.sqrt(0.7 * 9.81)
    assert found.lap == pytest.approx(2 * math.pi / speed, rel=2e-3)
    assert found.pace == pytest.approx(speed / 4, rel=2e-3)
    assert found.label == "hard"  # bends cost 34 % of the speed
    assert found.radius_min == pytest.approx(1.0, rel=2e-3)
    assert found.border_radius_min == pytest.approx(0.7, rel=5e-3)
    assert found.start_straight == 0
    assert any("start is not straight: 0.00 m, 0.97 m are 3 cars" in p for p in found.problems)


def test_across_a_ring_the_borders_are_an_inner_diameter_apart():
    found = certify(ring(radius=2.0, width=0.8), CAR)

    # Places count as two legs from half of a circle of width 0.8 + 0.196 m on, an arc of 1.564 m;
    # on this ring that is a chord of 2 * 2 sin(1.564 / 4) = 1.526 m, less 0.8 m of road.
    assert found.gap_min == pytest.approx(1.526 - 0.8, abs=0.04)


def test_a_straight_is_run_from_rest_by_the_law_of_constant_acceleration():
    track = load_track("straight")

    speed = speed_profile(track, CAR)

    s = np.arange(len(speed)) * track.stations.spacing
    expected = np.minimum(np.sqrt(2 * CAR.drive_max * s), CAR.speed_max)
    np.testing.assert_allclose(speed, expected, atol=1e-6)


def test_a_lap_never_asks_for_more_than_friction():
    track = load_track("hard")
    grip = CAR.friction * GRAVITY

    speed = speed_profile(track, CAR)

    following = np.roll(speed, -1)
    forward = (following**2 - speed**2) / (2 * track.stations.spacing)
    sideways = speed**2 * np.abs(track.stations.curvature)
    assert sideways.max() <= grip * (1 + 1e-9)
    assert np.abs(forward).max() <= CAR.drive_max + 1e-6
    # Where it accelerates, the circle of friction holds at the station it starts from.
    gains = forward > 0
    assert (np.hypot(forward, sideways)[gains] <= grip * (1 + 1e-9)).all()


def test_the_pace_falls_from_easy_courses_to_hard_ones():
    paces = [certify(load_track(name), CAR).pace for name in ("oval", "medium", "hard")]

    assert all(a > b + 0.05 for a, b in pairwise(paces))


@pytest.mark.parametrize("difficulty", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_generated_course_has_no_problem(difficulty):
    for seed in range(8):
        found = certify(load_track(f"generated:seed={seed}:difficulty={difficulty}"), CAR)

        assert found.problems == ()


def test_the_dial_goes_from_easy_to_hard():
    labels = {
        difficulty: [
            certify(load_track(f"generated:seed={seed}:difficulty={difficulty}"), CAR).label
            for seed in range(10)
        ]
        for difficulty in (0.0, 1.0)
    }

    assert set(labels[0.0]) == {"easy"}
    assert "easy" not in labels[1.0]
    assert "hard" in labels[1.0]


@pytest.mark.parametrize(
    ("track", "sentence"),
    [
        (ring(width=0.15), "too narrow: 0.150 m wide at its narrowest, the car is 0.196 m"),
        (ring(radius=0.8, width=0.8), "too tight for turning along the inside"),
        (ring(radius=0.5, width=0.95), "a border folds: the road takes 95%"),
    ],
)
def test_what_a_car_cannot_drive_is_said_in_a_sentence(track, sentence):
    problems = certify(track, CAR).problems

    assert any(sentence in problem for problem in problems)


def test_legs_that_nearly_touch_are_a_problem():
    track = load_track("hairpins")

    found = certify(track, CAR, gap=0.8)

    # The file's straights lie 1.3 of its units apart; scaled to 34 m that is below 1.5 m, less a
    # road of 0.7 m: closer than 0.8 m.
    assert any("two legs come within 0." in problem for problem in found.problems)


def test_the_optimiser_is_asked_and_doubted():
    track = load_track("oval")

    fast, slow = (certify(track, CAR, optimum=lambda *_, t=t: t) for t in (4.0, 9.0))

    assert fast.optimum == 4.0
    assert fast.problems == ()
    assert any("no lap better than the centre line's" in p for p in slow.problems)


def test_numbers_that_json_does_not_know_become_none():
    found = certify(load_track("straight"), CAR).as_dict()

    assert found["radius_min"] is None
    assert found["turns"] == 0
