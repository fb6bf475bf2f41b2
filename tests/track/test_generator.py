"""Generated courses: every one must hold what its settings promise."""

import json

import numpy as np
import pytest
from shapely import LinearRing, LineString, Polygon

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError, TrackError
from hotlap.track import load_track, split_names, whole_names
from hotlap.track.courses import check
from hotlap.track.generator import GeneratorSettings, generate, names_of, parse
from hotlap.vehicle import VEHICLES

DIFFICULTIES = (0.0, 0.3, 0.6, 1.0)
CAR = VEHICLES["deepracer"]


@pytest.fixture(scope="module", params=DIFFICULTIES)
def some(request):
    """Eight courses of one difficulty."""
    return [load_track(f"generated:seed={seed}:difficulty={request.param}") for seed in range(8)]


def bends(track):
    """Count the turns: stretches that bend by more than a radius of five metres."""
    turning = np.abs(track.stations.curvature) > 0.2
    sign = np.where(turning, np.sign(track.stations.curvature), 0)
    return int(((sign != np.roll(sign, 1)) & (sign != 0)).sum())


def test_a_generated_course_passes_the_checks_of_a_users_file(some):
    for track in some:
        rows, closed = check(track.waypoints, track.name)

        assert closed
        assert len(rows) == len(track.centre)


def test_borders_neither_fold_nor_cross_and_legs_keep_a_cars_width_apart(some):
    for track in some:
        inner, outer, width = Polygon(track.inner), Polygon(track.outer), track.width

        assert inner.is_valid
        assert outer.is_valid
        assert outer.contains(inner)
        # Two legs that touch would hide road, whose area is length times width.
        assert outer.difference(inner).area == pytest.approx(track.length * width, rel=0.003)
        # A road wider by a car is still a ring, on the inside as on the outside.
        around = LineString(track.waypoints[:, :2]).buffer(width / 2 + CAR.body_width / 2)
        assert len(around.interiors) == 1


def test_the_inner_border_bends_no_tighter_than_a_car_can_turn(some):
    for track in some:
        tight = np.abs(track.stations.curvature).max()

        assert 1 / tight - track.width / 2 > 1.19 * CAR.radius_min  # the spline rounds by 1 %
        assert tight * track.width / 2 < 0.9


def test_curvature_is_continuous(some):
    for track in some:
        jump = np.abs(np.diff(track.stations.curvature))

        # A ramp takes 0.3 of a turn of 20 degrees at least: 0.3 r 0.35 / 0.7 = 0.15 r, so its
        # slope is below 1 / (0.15 r r), with r above 0.7.
        assert jump.max() < 1.3 * track.stations.spacing / (0.15 * 0.7**2)


def test_three_cars_of_straight_lie_ahead_of_the_start(some):
    for track in some:
        ahead = int(3 * CAR.body_length / track.stations.spacing)

        assert np.abs(track.stations.curvature[:ahead]).max() < 0.02
        assert np.abs(track.stations.curvature[-3:]).max() < 0.02


def test_the_difficulty_brings_more_bends_that_are_sharper_on_a_narrower_road():
    measured = []
    for difficulty in DIFFICULTIES:
        tracks = [load_track(f"generated:seed={s}:difficulty={difficulty}") for s in range(8)]
        tightest = np.mean([1 / np.abs(t.stations.curvature).max() for t in tracks])
        measured.append((np.mean([bends(t) for t in tracks]), -tightest, -tracks[0].width))

    assert (np.diff(measured, axis=0) > 0).all()


def test_length_and_width_are_what_was_asked():
    track = load_track("generated:seed=3:length=31.5:width=0.7")

    assert track.length == pytest.approx(31.5, abs=0.01)
    np.testing.assert_allclose(track.stations.left, 0.35, rtol=0.01)
    np.testing.assert_allclose(track.stations.right, 0.35, rtol=0.01)


def test_the_same_seed_is_the_same_course_and_another_is_another():
    one, again, other = (generate(GeneratorSettings(seed=s)) for s in (4, 4, 5))

    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or np.abs(one - other).max() > 0.5


def test_courses_go_both_ways_round():
    ways = {LinearRing(load_track(f"generated:seed={s}").centre).is_ccw for s in range(8)}

    assert ways == {True, False}


def test_a_range_of_difficulty_gives_each_seed_its_own_width():
    widths = [load_track(f"generated:seed={s}:difficulty=0.2-0.8").width for s in range(8)]

    assert len({round(width, 4) for width in widths}) == 8
    # 1.07 at 0 and 0.45 at 1, so 0.946 at 0.2 and 0.574 at 0.8.
    assert max(widths) < 0.947
    assert min(widths) > 0.573


def test_a_range_of_seeds_names_its_courses_one_by_one():
    assert names_of("generated:3:difficulty=0.1") == [
        "generated:seed=0:difficulty=0.1",
        "generated:seed=1:difficulty=0.1",
        "generated:seed=2:difficulty=0.1",
    ]
    assert split_names("oval, generated:seed=7-8,") == [
        "oval",
        "generated:seed=7",
        "generated:seed=8",
    ]


def test_a_hundred_courses_share_one_environment():
    env = VectorEnv(resolve(EnvSettings, {"track": "generated:6:length=24:width=1"}), 6)

    env.reset(seed=0)

    lengths = {track.fingerprint for track in env.simulator.tracks}
    assert len(lengths) == 6
    np.testing.assert_array_equal(env.simulator.state.track, np.arange(6))


def test_a_run_keeps_the_short_name_of_many_courses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floor.csv").write_text("0,0\n9,0\n9,9\n")

    assert whole_names("oval,generated:100") == "oval,generated:100"
    assert whole_names("generated:room=floor.csv") == f"generated:room={tmp_path}/floor.csv"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("generated:difficulty=1.5", "difficulty: write a number from 0 to 1"),
        ("generated:difficulty=x", "difficulty: write a number from 0 to 1"),
        ("generated:seed=-1", "seed: .*greater than or equal to 0"),
        ("generated:hard", "'hard' is no setting of a generated course"),
        ("generated:sed=1", r"sed: unknown setting \(did you mean seed\?\)"),
        ("generated:0", "names 0 courses"),
        ("generated:seed=9-3", "a range goes upwards"),
        ("generated:seed=0-99999", "1 to 10000"),
        ("generated:width=0", "width: .*greater than 0"),
    ],
)
def test_a_name_that_is_wrong_is_answered_with_what_is_allowed(name, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_track(name)


def test_one_course_is_needed_where_a_range_is_given():
    with pytest.raises(TrackError, match="names 5 tracks, where one is needed"):
        load_track("generated:5")


def test_a_course_that_cannot_be_says_which_settings_forbid_it():
    with pytest.raises(TrackError, match=r"length=8 is too short.*at least \d+\.\d m"):
        load_track("generated:length=8")
    with pytest.raises(TrackError, match=r"keeps its legs apart with length=40.*gap=11"):
        load_track("generated:length=40:gap=11")


def test_settings_are_read_from_a_name():
    found = parse("generated:seed=12:difficulty=0.25:radius=0.4")

    assert found == GeneratorSettings(seed=12, difficulty=(0.25, 0.25), radius=0.4)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_course_stays_off_the_walls_of_its_room(tmp_path, seed):
    floor = [[0, 0], [9, 0], [9, 4], [5, 4], [5, 8], [0, 8]]  # an L
    file = tmp_path / "floor.json"
    file.write_text(json.dumps(floor))

    track = load_track(f"generated:seed={seed}:width=0.5:margin=0.2:room={file}")

    road = Polygon(track.outer)
    assert Polygon(floor).buffer(-0.19).contains(road)
    assert track.length > 12


def test_a_room_may_be_given_by_its_size():
    track = load_track("generated:width=0.5:room=7x5")

    assert track.outer.min() > 0
    assert (track.outer.max(axis=0) < [7, 5]).all()


@pytest.mark.parametrize(
    ("room", "sentence"),
    [
        ("2x2", "room '2x2': generated course: length=.* is too short"),
        ("4x", "room '4x': cannot be read .*such as 6x4"),
        ("30x1.2", "room '30x1.2': .*"),
    ],
)
def test_a_room_that_holds_no_course_is_answered_with_a_sentence(room, sentence):
    with pytest.raises(TrackError, match=sentence):
        load_track(f"generated:width=0.5:room={room}")
