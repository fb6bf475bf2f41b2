"""The state observation: geometry by hand on a straight, and on a circle."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Start, Surroundings
from hotlap.tasks.observation import StateObservation, StateSettings
from hotlap.track import Track, load_track
from hotlap.vehicle import VEHICLES

RADIUS = 3.0
OWN = 11


@cache
def lane():
    """An open track: 6 m along +x, 0.4 m of road to the left and 0.6 m to the right."""
    x = np.linspace(0, 6, 31)
    rows = [np.stack([x, 0 * x + y], 1) for y in (0.0, 0.4, -0.6)]
    return Track.from_waypoints(np.hstack(rows), name="lane")


@cache
def circle(turn=1):
    """A loop of radius 3 m from (3, 0), counter-clockwise; or its mirror image in the x axis."""
    angle = turn * np.linspace(0, 2 * np.pi, 201)
    unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    rows = [RADIUS * unit, (RADIUS - 0.4) * unit, (RADIUS + 0.4) * unit]
    track = Track.from_waypoints(np.hstack(rows), name="circle")
    assert track.length == pytest.approx(2 * np.pi * RADIUS, rel=1e-5)
    return track


def features(track, state, lookahead=(0.5, 1.0), rows=None, **options):
    observe = StateObservation(StateSettings(lookahead=lookahead, **options), [track])
    seen = observe(state, rows)
    assert (seen.dtype, seen.shape[1]) == (np.float32, observe.size)
    return seen[:, :OWN], seen[:, OWN:].reshape(len(seen), -1, 2)


def test_a_car_on_a_straight_sees_itself_and_the_line_ahead(state):
    # at (1, 0.1), turned 90 degrees to the left of a road along +x, 2 m/s: points 1 and 2 m on
    car = state(
        x=1, y=0.1, yaw=np.pi / 2, vx=2, vy=-0.3, yaw_rate=0.7, steering=0.2, reference=2.5,
        s=1, n=0.1, heading_error=np.pi / 2, curvature=0.25, left=0.4, right=0.6,
    )  # fmt: skip

    own, ahead = features(lane(), car)

    np.testing.assert_allclose(
        own[0], [2, -0.3, 0.7, 0.2, 2.5, 0.1, 1, 0, 0.3, 0.7, 0.25], atol=1e-6
    )
    # forward is +y, left is -x; over the distance: (-0.1, -1) / 1 and (-0.1, -2) / 2
    np.testing.assert_allclose(ahead[0], [[-0.1, -1], [-0.05, -1]], atol=1e-5)


def test_the_points_lie_as_many_seconds_ahead_at_any_speed(state):
    # on the line, aligned: the point is straight ahead, wherever it is
    speeds = np.float32([1, 2, 4])
    car = state(3, x=0.5, s=0.5, y=-0.2, n=-0.2, vx=speeds)

    _, ahead = features(lane(), car, lookahead=(0.5,))

    np.testing.assert_allclose(ahead[:, 0, 0], 1, atol=1e-5)
    np.testing.assert_allclose(ahead[:, 0, 1], 0.2 / (0.5 * speeds), rtol=1e-5)


def test_slow_and_reversing_cars_look_as_far_as_speed_min_reaches(state):
    car = state(3, x=0.5, s=0.5, y=0.1, n=0.1, vx=[0.0, -2.0, 1.9])

    _, ahead = features(lane(), car, lookahead=(1.0,), speed_min=2.0)

    np.testing.assert_allclose(ahead[:, 0], [[1, -0.05]] * 3, atol=1e-5)


def test_on_a_circle_the_points_ahead_are_chords(state):
    # an arc of a metres turns by a / R: forward R sin(a / R), left R (1 - cos(a / R))
    car = state(x=RADIUS, yaw=np.pi / 2, vx=2, curvature=1 / RADIUS)

    _, ahead = features(circle(), car, lookahead=(0.5, 1.0, 3.0))

    arc = np.array([1.0, 2.0, 6.0])
    turn = arc / RADIUS
    expected = RADIUS * np.stack([np.sin(turn), 1 - np.cos(turn)], 1) / arc[:, None]
    np.testing.assert_allclose(ahead[0], expected, atol=2e-4)


def test_the_view_does_not_jump_at_the_start_line(state):
    # by symmetry every place of the circle sees the same
    place = np.array([-0.5, -1e-4, 0.0, 1e-4, 2.0]) % (2 * np.pi)
    cars = state(
        5,
        x=RADIUS * np.cos(place),
        y=RADIUS * np.sin(place),
        yaw=place + np.pi / 2,
        s=place * RADIUS,
        vx=2,
    )

    _, ahead = features(circle(), cars, lookahead=(0.01, 0.5, 1.0, 9.0, 20.0))

    np.testing.assert_allclose(ahead, np.broadcast_to(ahead[-1], ahead.shape), atol=2e-3)


def test_an_open_track_ends_in_its_last_point(state):
    # at x = 5, 2 m/s: 0.5 s ahead is the end at 6, and so are 1 s and 100 s
    car = state(x=5, s=5, vx=2, y=0.3, n=0.3)

    _, ahead = features(lane(), car, lookahead=(0.25, 0.5, 1.0, 100.0))

    points = ahead[0] * 2 * np.array([[0.25], [0.5], [1.0], [100.0]])
    np.testing.assert_allclose(points, [[0.5, -0.3], [1, -0.3], [1, -0.3], [1, -0.3]], atol=1e-4)


def test_mirrored_driving_on_a_mirrored_track_looks_mirrored(state):
    odd = ("y", "yaw", "vy", "yaw_rate", "steering", "n", "heading_error", "curvature")
    car = state(
        x=RADIUS + 0.1, y=0.05, yaw=1.8, vx=1.7, vy=0.2, yaw_rate=0.4, steering=-0.1, reference=2,
        s=0.05, n=-0.1, heading_error=0.23, curvature=0.33, left=0.4, right=0.5,
    )  # fmt: skip
    mirrored = replace(
        car, left=car.right, right=car.left, **{name: -getattr(car, name) for name in odd}
    )

    own, ahead = features(circle(), car)
    own_mirrored, ahead_mirrored = features(circle(-1), mirrored)

    signs = np.array([1, -1, -1, -1, 1, -1, -1, 1, 1, 1, -1])
    swapped = own_mirrored[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 8, 10]]
    np.testing.assert_allclose(own, swapped * signs, atol=1e-6)
    np.testing.assert_allclose(ahead, ahead_mirrored * [1, -1], atol=1e-5)
    assert np.abs(ahead[..., 1]).min() > 0.04


def test_some_rows_see_what_all_rows_see_in_the_order_asked_for():
    tracks = [load_track("oval"), lane(), circle()]
    sim = NativeSimulator(tracks, VEHICLES["deepracer"], rows=9)
    start = Start.on_line(9, s=1.5)
    moved = replace(
        start,
        track=np.arange(9, dtype=np.int32) % 3,
        speed=np.linspace(0, 3, 9).astype(np.float32),
        n=np.linspace(-0.2, 0.2, 9).astype(np.float32),
    )
    state = sim.reset(np.arange(9), moved)
    observe = StateObservation(StateSettings(), tracks)
    rows = np.array([7, 0, 4, 5])

    some, everyone = observe(state, rows), observe(state)

    np.testing.assert_array_equal(some, everyone[rows])
    assert len(np.unique(everyone, axis=0)) == 9
    assert observe(state, np.empty(0, np.int64)).shape == (0, observe.size)


def test_threads_change_nothing(state):
    rows = 3000
    place = np.linspace(0, 6, rows, dtype=np.float32)
    cars = state(rows, x=place, s=place, vx=1 + place)

    one, two = (
        StateObservation(StateSettings(), [lane()], threads=threads)(cars) for threads in (1, 2)
    )

    np.testing.assert_array_equal(one, two)
    assert np.isfinite(one).all()


def test_the_default_has_two_numbers_for_each_time_besides_its_own_eleven():
    assert StateObservation(StateSettings(), [lane()]).size == 11 + 2 * 8


def around(state, s, n, speed, half_width=0.2):
    """Boxes at arc lengths `s` around each car."""
    s, n, speed = (np.asarray(a, np.float32).reshape(len(state.x), -1) for a in (s, n, speed))
    boxes = np.zeros((*s.shape, 8), np.float32)
    boxes[:, :, 5], boxes[:, :, 6] = half_width, 0.2
    contact = np.full(len(s), -1, np.int32)
    return replace(state, around=Surroundings(boxes, s, n, speed, contact))


def objects(track, state, count=2, sight=5.0):
    settings = StateSettings(lookahead=(), objects=count, objects_range=sight)
    observe = StateObservation(settings, [track], shared=True)
    return observe(state)[:, OWN:].reshape(len(state.x), count, 4)


def test_the_next_objects_are_seen_in_their_order(state):
    # at s = 2: one 3 m ahead, one 1.5 m ahead, one 0.5 m behind (still beside), one far behind
    car = around(
        state(s=2, n=0.1, vx=1.5), s=[5, 3.5, 1.5, 0.2], n=[0.3, -0.2, 0.1, 0], speed=[1, 0, 2, 0]
    )

    seen = objects(lane(), car, count=4)

    np.testing.assert_allclose(
        seen[0],
        [
            [-0.5, 0.0, 0.5, 0.2],  # ahead, to the left, faster, half width
            [1.5, -0.3, -1.5, 0.2],
            [3.0, 0.2, -0.5, 0.2],
            [5.0, 0.0, 0.0, 0.0],  # nothing more in sight
        ],
        atol=1e-6,
    )


def test_objects_are_seen_across_the_start_line_and_only_in_range(state):
    length = circle().length
    car = around(state(s=length - 1), s=[0.5, 3.0], n=[0, 0], speed=[0, 0])

    seen = objects(circle(), car, sight=3.5)

    # 1 m to the line and 0.5 m beyond it; 4 m are out of range
    np.testing.assert_allclose(seen[0, :, 0], [1.5, 3.5], atol=1e-4)


def test_an_object_just_behind_the_start_line_is_beside_a_car_just_beyond_it(state):
    car = around(state(s=0.2), s=[circle().length - 0.3], n=[0], speed=[0])

    assert objects(circle(), car, count=1)[0, 0, 0] == pytest.approx(-0.5, abs=1e-4)


def test_neighbours_in_a_batch_change_no_bit(state):
    # 70 cars: two passes of 32 and a rest of 6, on two tracks
    draws = np.random.default_rng(0)
    fields = {
        name: draws.uniform(-0.3, 0.3, 70)
        for name in ("y", "yaw", "vy", "n", "heading_error", "steering")
    }
    cars = state(70, x=draws.uniform(0, 6, 70), s=draws.uniform(0, 6, 70),
                 vx=draws.uniform(-1, 4, 70), track=np.arange(70) % 2, **fields)  # fmt: skip
    observe = StateObservation(StateSettings(), [lane(), circle()], threads=1)

    together = observe(cars)

    for rows in (np.arange(69, 70), np.arange(70)[::-1], np.array([3, 33, 64, 5])):
        np.testing.assert_array_equal(observe(cars, rows), together[rows])


def test_a_car_that_is_nowhere_reads_no_station_outside_of_its_track(state):
    # that a state is not finite is found later; until then nothing may crash or touch others
    cars = state(3, x=1, s=[1, np.nan, 1e30], vx=2)

    seen = StateObservation(StateSettings(), [lane()])(cars)

    alone = StateObservation(StateSettings(), [lane()])(cars, np.array([0]))
    np.testing.assert_array_equal(seen[:1], alone)
    assert np.isfinite(seen[2]).all()
