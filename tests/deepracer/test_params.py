"""DeepRacer's params against shapely, which DeepRacer uses, and against sums by hand."""

import bisect
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely import LinearRing, LineString, Point, Polygon

from hotlap.deepracer.params import KEYS, Params
from hotlap.simulator import ROW_FIELDS, Command, State
from hotlap.track import Track, load_track, track_names

FILES = sorted((Path(__file__).parents[3] / "shared" / "data" / "tracks").glob("*.npy"))
COURSES = [*track_names(), *FILES]
WHEELS = [(0.082311, 0.0795), (0.082311, -0.0795), (-0.081663, 0.081), (-0.081663, -0.081)]


def state(x, y, yaw=0.0, track=0) -> State:
    values = {name: np.zeros(len(x), np.float32) for name in ROW_FIELDS}
    values |= {
        "x": np.asarray(x, np.float32),
        "y": np.asarray(y, np.float32),
        "yaw": np.full(len(x), yaw, np.float32),
        "track": np.full(len(x), track, np.int32),
    }
    return State(**values)


def still(count: int) -> Command:
    return Command(np.zeros(count, np.float32), np.ones(count, np.float32))


def square(side: float = 4.0, half: float = 0.5, *, ccw: bool = True) -> Track:
    """A square with its corner at the origin, points every half metre, first side along x or y."""
    steps = np.arange(0, 4 * side + 0.1, 0.5)
    cx = np.interp(steps, np.arange(5) * side, [0, side, side, 0, 0])
    cy = np.interp(steps, np.arange(5) * side, [0, 0, side, side, 0])
    middle = side / 2
    rows = []
    for x, y in zip(cx, cy, strict=True):
        grow = [(v - middle) / middle for v in (x, y)]
        out = [v + half * g for v, g in zip((x, y), grow, strict=True)]
        into = [v - half * g for v, g in zip((x, y), grow, strict=True)]
        rows.append([x, y, *into, *out])
    rows = np.array(rows)
    return Track.from_waypoints(rows if ccw else rows[::-1], name="square")


def straight() -> Track:
    x = np.arange(0, 5.1, 0.5)
    one = np.ones_like(x)
    return Track.from_waypoints(
        np.stack([x, 1 * one, x, 1.4 * one, x, 0.6 * one], axis=1), name="straight"
    )


def poses(track: Track, count: int):
    """On the road, astride its borders, and far away."""
    random = np.random.default_rng(5)
    low, high = track.outer.min(0) - 1.0, track.outer.max(0) + 1.0
    xy = random.uniform(low, high, (count, 2))
    i, share = random.integers(0, len(track.centre), count), random.uniform(-0.2, 1.2, (count, 1))
    across = track.inner[i] + share * (track.outer[i] - track.inner[i])
    most = 3 * count // 4
    xy[:most] = (across + random.normal(0, 0.1, (count, 2)))[:most]
    yaw = random.uniform(-math.pi, math.pi, count)
    yaw[:4] = np.pi / 2 * np.arange(-2, 2)
    return state(*xy.T, 0.0), yaw


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("course", COURSES, ids=lambda c: getattr(c, "stem", c))
def test_every_key_is_what_shapely_says(course, reverse):
    track = load_track(str(course))
    track = track.reversed() if reverse else track
    ring = LinearRing if track.closed else LineString
    centre, inner, outer = (ring(line) for line in (track.centre, track.inner, track.outer))
    if track.closed:
        road, leftward = Polygon(track.outer, [track.inner]), centre.is_ccw
    else:
        road, leftward = Polygon(np.r_[track.outer, track.inner[::-1]]), not reverse
    places = [centre.project(Point(p), normalized=True) for p in centre.coords[:-1]] + [1.0]
    base, yaw = poses(track, 160)
    at = State(**{**vars(base), "yaw": yaw.astype(np.float32)})
    params = Params([track])
    params.begin(np.arange(160), at)

    rows = list(params.rows(params.compute(at, still(160), np.full(160, 2))))

    for i, got in enumerate(rows):
        x, y, heading = float(at.x[i]), float(at.y[i]), float(at.yaw[i])
        c, s = math.cos(heading), math.sin(heading)
        nose = Point(x + 0.14 * c, y + 0.14 * s)
        place = centre.project(nose, normalized=True)
        ahead = bisect.bisect_right(places, place)
        foot = centre.interpolate(place, normalized=True)
        on_inner = inner.interpolate(inner.project(foot))
        on_outer = outer.interpolate(outer.project(foot))
        on = [road.contains(Point(x + a * c - b * s, y + a * s + b * c)) for a, b in WHEELS]
        start = centre.project(Point(x, y), normalized=True)
        progress = 100 * (place - start)
        assert got["closest_waypoints"] == [ahead - 1, ahead % len(places)]
        assert got["is_left_of_center"] == (
            (on_inner.distance(nose) < on_outer.distance(nose)) ^ (not leftward)
        )
        assert got["all_wheels_on_track"] == all(on)
        assert got["is_offtrack"] == (not any(on))
        assert got["waypoints"] == list(centre.coords)
        assert got["progress"] == pytest.approx((progress + 50) % 100 - 50, abs=1e-6)
        for key, value in {
            "x": nose.x,
            "y": nose.y,
            "heading": math.degrees(heading),
            "distance_from_center": centre.distance(nose),
            "projection_distance": place * centre.length,
            "track_width": on_inner.distance(on_outer),
            "track_length": centre.length,
        }.items():
            assert got[key] == pytest.approx(value, abs=1e-5), key


def test_a_square_by_hand():
    # origin (1, 0.1) heading 0, so the nose is at (1.14, 0.1): 0.1 left of the first side,
    # waypoints every 0.5 m: between number 2 (1.0) and 3 (1.5)
    params = Params([square()])
    at = state([1.0], [0.1])
    params.begin(np.array([0]), at)
    command = Command(np.radians([15]).astype(np.float32), np.array([0.6], np.float32))

    row = params.row(params.compute(at, command, np.array([2])), 0)

    assert set(row) == set(KEYS)
    assert row.pop("waypoints")[:3] == [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)]
    rounded = {k: round(v, 5) if type(v) is float else v for k, v in row.items()}
    assert rounded == {
        "all_wheels_on_track": True,
        "closest_objects": [0, 0],
        "closest_waypoints": [2, 3],
        "distance_from_center": 0.1,
        "heading": 0.0,
        "is_crashed": False,
        "is_left_of_center": True,
        "is_offtrack": False,
        "is_reversed": False,
        "object_in_camera": False,
        "objects_distance": [],
        "objects_distance_from_center": [],
        "objects_heading": [],
        "objects_left_of_center": [],
        "objects_location": [],
        "objects_speed": [],
        "progress": 0.875,  # 0.14 m of 16
        "projection_distance": 1.14,
        "sim_time": round(1 / 15, 5),
        "speed": 0.6,
        "steering_angle": 15.0,
        "steps": 2.0,
        "track_length": 16.0,
        "track_width": 1.0,
        "x": 1.14,
        "y": 0.1,
    }


def test_commands_come_back_as_the_numbers_of_the_action_list():
    # users write `steering_angle == 15` and `speed == 0.6`, and these pass through float32 radians
    degrees, speeds = [-30.0, -22.5, 15.0, 0.1, 30.0], [0.6, 1.1, 3.3, 4.0, 0.1]
    command = Command(np.radians(degrees).astype(np.float32), np.array(speeds, np.float32))
    params = Params([square()])
    at = state([1.0] * 5, [0.0] * 5)
    params.begin(np.arange(5), at)

    columns = params.compute(at, command, np.full(5, 2))

    assert columns.steering_angle.tolist() == degrees
    assert columns.speed.tolist() == speeds


@pytest.mark.parametrize(
    ("y", "on", "wholly_off"), [(0.4, True, False), (0.5, False, False), (0.6, False, True)]
)
def test_wheels_count_against_the_border_at_half_a_metre(y, on, wholly_off):
    # wheels are about 0.08 to either side: 0.48 is on, 0.42 and 0.58 astride, 0.52 off
    params = Params([square()])
    at = state([2.0], [-y])
    params.begin(np.array([0]), at)

    row = params.row(params.compute(at, still(1), np.array([2])), 0)

    assert (row["all_wheels_on_track"], row["is_offtrack"]) == (on, wholly_off)


def test_reversed_keeps_the_first_waypoint_and_turns_left_into_right():
    params = Params([square().reversed()])
    at = state([1.0], [0.1], np.pi)
    params.begin(np.array([0]), at)

    row = params.row(params.compute(at, still(1), np.array([2])), 0)

    assert row["is_reversed"] is True
    assert row["is_left_of_center"] is False
    assert row["waypoints"][:2] == [(0.0, 0.0), (0.0, 0.5)]
    assert row["waypoints"][0] == row["waypoints"][-1]
    assert row["projection_distance"] == pytest.approx(16 - 0.86)


def test_an_open_track_ends():
    params = Params([straight()])
    at = state([0.0, 6.0], [1.1, 0.9])
    params.begin(np.arange(2), at)

    first, last = params.rows(params.compute(at, still(2), np.full(2, 2)))

    assert (first["is_left_of_center"], last["is_left_of_center"]) == (True, False)
    assert first["waypoints"][-1] == (5.0, 1.0)
    assert first["closest_waypoints"] == [0, 1]
    assert last["closest_waypoints"] == [10, 0]  # past the end DeepRacer's index wraps
    assert last["projection_distance"] == 5.0
    assert first["track_width"] == pytest.approx(0.8)


def drive(params: Params, metres: list[float], *, start: float) -> list[float]:
    """Progress of a car whose nose stands at these distances around the square, on the line."""

    def at(s):  # heading along the side; the nose is 0.14 ahead of the origin
        side, along = divmod(s % 16, 4)
        x, y, yaw = [
            (along, 0, 0),
            (4, along, np.pi / 2),
            (4 - along, 4, np.pi),
            (0, 4 - along, -np.pi / 2),
        ][int(side)]
        return x, y, yaw

    x, y, yaw = at(start)
    params.begin(np.array([0]), state([x], [y], yaw))
    found, travelled, nose = [], -0.14, start
    for s in metres:
        x, y, yaw = at(s)
        travelled += (s - nose + 8) % 16 - 8  # the way of the origin, round the corner or back
        nose = s
        here = state([x - 0.14 * math.cos(yaw)], [y - 0.14 * math.sin(yaw)], yaw)
        here = replace(here, travelled=np.float32([travelled]))
        found.append(float(params.compute(here, still(1), np.array([2])).progress[0]))
    return found


def test_progress_by_hand():
    # 16 m a lap, 1 m is 6.25 percent. From 2 m: at the start, ahead, back behind the start, ...
    progress = drive(Params([square()]), [2, 3, 1.5, 1, 2.5, 7, 12, 15.5, 0.5, 1.9], start=2)

    expected = [0, 6.25, -3.125, -6.25, 3.125, 31.25, 62.5, 84.375, 90.625, 99.375]
    np.testing.assert_allclose(progress, expected, atol=1e-4)


def test_progress_stops_at_100_and_begins_anew():
    # at 2.1 m only the nose is over the line at 2: not yet. The cap: 2.5 m is 3.125 percent past
    # the finish; then the second lap counts from zero
    progress = drive(Params([square()]), [6, 11, 15, 1, 2.1, 2.5, 3, 6], start=2)

    np.testing.assert_allclose(progress, [25, 56.25, 81.25, 93.75, 100, 100, 6.25, 25], atol=1e-4)
    assert progress[4] < 100
    assert progress[5] == 100


def test_an_episode_that_begins_in_one_row_leaves_the_others_alone():
    params = Params([square()])
    at = state([1.0, 1.0], [0.0, 0.0])
    params.begin(np.arange(2), at)
    later = state([2.0, 2.0], [0.0, 0.0])
    params.compute(later, still(2), np.full(2, 3))

    params.begin(np.array([1]), later)
    columns = params.compute(later, still(2), np.array([4, 2]))

    np.testing.assert_allclose(columns.progress, [100 * 1.14 / 16, 100 * 0.14 / 16], atol=1e-5)


def test_a_new_episode_forgets_the_progress_of_the_last():
    params = Params([square()])
    drive(params, [5, 9, 13, 14.8], start=2)  # 80 percent

    # without forgetting, 0 after 80 would read as over the finish line: 100
    assert drive(params, [2, 3], start=2) == pytest.approx([0, 6.25], abs=1e-4)


def test_each_row_has_its_own_track():
    params = Params([straight(), square(half=0.45)])  # borders off the lines of the search grid
    at = state([1.0, 1.0, 2.0, 2.0], [1.1, 0.1, 0.45, 1.1])
    at = State(**{**vars(at), "track": np.array([0, 1, 1, 0], np.int32)})
    params.begin(np.arange(4), at)

    first, second, astride, on = params.rows(params.compute(at, still(4), np.full(4, 2)))

    assert (first["track_length"], second["track_length"]) == (5.0, 16.0)
    assert (len(first["waypoints"]), len(second["waypoints"])) == (11, 33)
    assert first["distance_from_center"] == pytest.approx(0.1)
    assert (astride["all_wheels_on_track"], astride["is_offtrack"]) == (False, False)
    assert (on["all_wheels_on_track"], on["is_offtrack"]) == (True, False)


def test_outside_the_corner_where_the_loop_closes_the_place_is_zero_not_the_length():
    params = Params([square()])
    at = state([-0.24], [-0.1])  # the nose is at (-0.1, -0.1), nearest to (0, 0)
    params.begin(np.array([0]), at)

    row = params.row(params.compute(at, still(1), np.array([2])), 0)

    assert row["projection_distance"] == 0.0
    assert row["closest_waypoints"] == [0, 1]


def test_a_user_may_change_what_it_is_given():
    params = Params([square()])
    at = state([1.0, 1.0], [0.0, 0.0])
    params.begin(np.arange(2), at)
    columns = params.compute(at, still(2), np.full(2, 2))
    untouched = pickle.dumps(params.row(columns, 1))
    rows = params.rows(columns)

    for key, value in next(rows).items():
        if isinstance(value, list):
            value.clear() if key != "closest_waypoints" else value.append(7)

    assert pickle.dumps(next(rows)) == untouched
    assert pickle.dumps(params.row(columns, 1)) == untouched


def test_restored_params_continue_exactly():
    one, other = Params([square()]), Params([square()])
    at = state([1.0], [0.0])
    one.begin(np.array([0]), at)
    one.compute(at, still(1), np.array([2]))

    other.restore(one.save())

    later = state([0.5], [0.0])
    a, b = (p.compute(later, still(1), np.array([3])) for p in (one, other))
    assert a.progress == b.progress < 0
    assert a.sim_time == b.sim_time == pytest.approx(2 / 15)
