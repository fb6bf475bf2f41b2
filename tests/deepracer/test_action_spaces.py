"""Action spaces: grids by hand, and the actions that a racing line needs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hotlap import clusters
from hotlap.cli import app
from hotlap.deepracer.actions import (
    Needs,
    coverage,
    grid,
    line_actions,
    line_needs,
    read_line,
    scale,
    speed_profile,
    speed_scale,
    steering_limit,
    steering_scale,
    write_metadata,
)
from hotlap.deepracer.files.metadata import Metadata
from hotlap.errors import ConfigError, HotlapError
from hotlap.limit.point_mass import grip
from hotlap.vehicle import load_vehicle

CAR = load_vehicle("deepracer")
WHEELBASE = CAR.front_axle + CAR.rear_axle
TRACKS = Path(__file__).parents[2].parent / "shared" / "data" / "tracks"


def circle(radius, points=120, turn=1):
    angle = np.linspace(0, turn * math.tau, points, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def needs(*rows):
    steering, speed, seconds = np.array(rows, float).T
    return Needs(steering, speed, seconds)


def real_line(name):
    """Return the centre line of a real track; its corners have every radius that there is."""
    file = TRACKS / f"{name}.npy"
    if not file.exists():
        pytest.skip("needs DeepRacer's own track arrays beside the repository")
    return read_line_of(np.load(file)[:-1, :2])


def read_line_of(points):
    return points[np.append(True, np.hypot(*np.diff(points, axis=0).T) > 1e-9)]


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def hotlap(*words):
    done = CliRunner().invoke(app, ["deepracer", "actions", *map(str, words)])
    if isinstance(done.exception, HotlapError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_the_consoles_ten_actions():
    # DeepRacer's console began with 5 angles x {0.4, 0.8} m/s.
    found = grid(steering_scale(30, 5), speed_scale(0.8, 2))

    angles = (-30.0, -15.0, 0.0, 15.0, 30.0)
    assert found == tuple((angle, speed) for speed in (0.4, 0.8) for angle in angles)


@pytest.mark.parametrize(
    ("ends", "interval", "expected"),
    [
        ((-30, 30), 15, (-30, -15, 0, 15, 30)),
        ((-30, 30), 25, (-30, -5, 20)),  # 30 is not on the scale
        ((1, 3), 1, (1, 2, 3)),
        ((0.1, 0.4), 0.1, (0.1, 0.2, 0.3, 0.4)),  # floating point loses no end
        ((2, 2), 1, (2,)),
    ],
)
def test_a_scale_begins_at_the_least_and_ends_at_or_below_the_greatest(ends, interval, expected):
    assert scale(*ends, interval) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [(1, 0, 1), (0, 1, 0), (0, 1, -1), (0, 1, 1e-6), (0, math.inf, 1)])
def test_scales_that_cannot_be_are_refused(bad):
    with pytest.raises(ConfigError, match=r"got|widen"):
        scale(*bad)


def test_steering_shrinks_with_the_square_of_the_speed():
    # R = v^2 / (mu g) = 16 / 6.867 = 2.33 m at 4 m/s; atan(0.24 / 2.33) = 5.88 degrees
    found = steering_limit([0.5, 4.0], CAR)

    np.testing.assert_allclose(found, [30.0, 5.88], atol=0.01)
    half = steering_limit([4.0], CAR, share=0.5)
    np.testing.assert_allclose(half, [math.degrees(math.atan(0.24 * 0.5 * 6.867 / 16))], rtol=1e-3)


def test_a_grid_is_drawn_together_to_what_the_tyres_can_follow():
    found = grid((-30, 0, 30), (1.0, 4.0), lambda speed: 30.0 if speed < 2 else 6.0)

    assert found == ((-30, 1), (0, 1), (30, 1), (-6, 4), (0, 4), (6, 4))


@pytest.mark.parametrize(
    "bad", [[(31.0, 1.0)], [(0.0, 4.5)], [(0.0, 0.0)], [(1.0, 1.0), (1.0, 1.0)], []]
)
def test_actions_that_no_car_obeys_are_not_written(bad, tmp_path):
    with pytest.raises(ConfigError, match=r"got|twice"):
        write_metadata(tmp_path / "model_metadata.json", bad)

    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(("turn", "sign"), [(1, 1), (-1, -1)])
def test_a_circle_needs_one_action(turn, sign):
    # atan(L / R) = atan(0.24 / 1.2) = 11.31 degrees; sqrt(mu g R) = sqrt(0.7 x 9.81 x 1.2)
    line = circle(1.2, turn=turn)
    speed = speed_profile(line, CAR, closed=True)

    asked = line_needs(line, speed, CAR, closed=True)
    ((steering, commanded),) = line_actions(asked, 1)

    assert steering == pytest.approx(sign * math.degrees(math.atan(WHEELBASE / 1.2)), abs=0.05)
    assert commanded == pytest.approx(math.sqrt(0.7 * 9.81 * 1.2) / CAR.speed_gain, abs=0.005)
    assert coverage(asked, [(steering, commanded)]).worst < 0.003  # what rounding loses
    assert asked.seconds.sum() == pytest.approx(math.tau * 1.2 / speed[0], rel=1e-3)
    with pytest.raises(ConfigError, match="must be 1 to 1 on this line"):
        line_actions(asked, 2)


def test_margin_and_pace_ask_for_more_steering_and_less_speed():
    line = circle(1.2)

    plain = line_needs(line, np.full(120, 2.0), CAR, closed=True)
    eased = line_needs(line, np.full(120, 2.0), CAR, closed=True, margin=0.5, pace=0.5)

    np.testing.assert_allclose(eased.steering, 1.5 * plain.steering)
    np.testing.assert_allclose(eased.speed, 0.5 * plain.speed)
    np.testing.assert_allclose(eased.seconds, 2 * plain.seconds)


def test_what_the_car_cannot_do_is_not_asked_for():
    tight = line_needs(circle(0.2), np.full(120, 9.0), CAR, closed=True)

    np.testing.assert_allclose(tight.steering, 30.0)
    np.testing.assert_allclose(tight.speed, 4.0)


def test_from_rest_a_straight_is_driven_with_constant_acceleration():
    line = np.stack([np.linspace(0, 1, 101), np.zeros(101)], axis=1)

    speed = speed_profile(line, CAR, closed=False)

    pull = min(CAR.drive_max, 0.7 * 9.81)
    np.testing.assert_allclose(speed, np.sqrt(2 * pull * line[:, 0]), atol=1e-6)


def test_a_car_brakes_before_a_corner_and_not_in_it():
    straight = np.stack([np.linspace(0, 6, 301), np.zeros(301)], axis=1)
    angle = np.linspace(0, math.pi, 160)[1:]
    arc = np.stack([6 + 0.5 * np.sin(angle), 0.5 - 0.5 * np.cos(angle)], axis=1)
    line = np.concatenate([straight, arc])

    speed = speed_profile(line, CAR, closed=False)

    corner = math.sqrt(0.7 * 9.81 * 0.5)
    assert speed[300 + 20 : -20] == pytest.approx(corner, rel=0.01)
    assert speed[290] > corner  # it is still braking there
    slowing = np.diff(speed[250:300] ** 2) / 2 / 0.02
    assert slowing.min() >= -min(CAR.drive_max, 0.7 * 9.81) - 1e-6


def test_one_action_for_two_places_lies_between_them_by_their_time():
    # three seconds at 0 degrees and one at 12: the mean is 3, and 9 remain: 9 / 30 = 0.3
    asked = needs((0, 1.0, 3.0), (12, 1.0, 1.0))

    found = line_actions(asked, 1)

    assert found == ((3.0, 1.0),)
    covered = coverage(asked, found)
    assert covered.worst == pytest.approx(0.3)
    assert (covered.steering, covered.speed) == (9.0, 0.0)
    assert covered.mean == pytest.approx((3 * 3 + 9) / 4 / 30)
    assert covered.shares == (1.0,)


def test_mirrored_actions_come_in_pairs_and_an_odd_one_goes_straight():
    asked = needs((0.2, 3.0, 1.0), (20, 1.0, 1.0), (12, 2.0, 1.0), (-12, 2.0, 1.0))

    odd, even = line_actions(asked, 5, mirrored=True), line_actions(asked, 4, mirrored=True)

    assert odd == ((-20, 1), (20, 1), (-12, 2), (12, 2), (0, 3))
    assert {(-angle, speed) for angle, speed in even} == set(even)
    assert len(even) == 4


@pytest.mark.parametrize("name", ["reinvent_base", "Albert", "2022_summit_speedway"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_more_actions_cover_a_real_track_better(name, mirrored):
    line = real_line(name)
    asked = line_needs(line, speed_profile(line, CAR, closed=True), CAR, closed=True, margin=0.1)

    found = [coverage(asked, line_actions(asked, k, mirrored=mirrored)) for k in (3, 6, 12, 24)]

    worst, mean = [one.worst for one in found], [one.mean for one in found]
    assert worst == sorted(worst, reverse=True)
    assert mean == sorted(mean, reverse=True)
    assert worst[-1] < 0.4 * worst[0]
    assert all(sum(one.shares) == pytest.approx(1) for one in found)


def test_clusters_are_the_middles_of_what_is_apart():
    points = np.array([[0, 0], [0, 0.2], [5, 5], [5, 5.2], [9, 0], [9, 0.2]], float)

    found = clusters.k_means(points, 3, np.array([1, 1, 1, 3, 1, 1.0]))

    np.testing.assert_allclose(sorted(found.tolist()), [[0, 0.1], [5, 5.15], [9, 0.1]])
    assert clusters.distinct(np.array([[0, 0], [0, 1e-5], [0, 1.0]])) == 2


def test_a_written_space_reads_back():
    out = write_metadata("model_metadata.json", ((-12.5, 1.25), (0.0, 3.0)))

    found = Metadata.read(out)
    assert found == Metadata(actions=((-12.5, 1.25), (0.0, 3.0)), version=5)
    listed = json.loads(out.read_text())
    assert listed["action_space"][1] == {"steering_angle": 0.0, "speed": 3.0, "index": 1}
    assert listed["version"] == "5"


def test_a_file_that_is_there_keeps_the_rest_and_only_if_asked():
    out = Path("model_metadata.json")
    before = {"action_space": {"steering_angle": {"low": -30, "high": 30},
                               "speed": {"low": 1, "high": 2}},
              "action_space_type": "continuous", "sensor": ["STEREO_CAMERAS"], "version": 4,
              "mine": "kept"}  # fmt: skip
    out.write_text(json.dumps(before))

    with pytest.raises(ConfigError, match="is there already; --replace"):
        write_metadata(out, ((0.0, 1.0),))
    assert json.loads(out.read_text()) == before
    write_metadata(out, ((0.0, 1.0),), again=True)

    found = Metadata.read(out)
    assert found.actions == ((0.0, 1.0),)
    assert (found.sensors, found.version, found.unknown) == (("STEREO_CAMERAS",), 4, ("mine",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n0,zero\n", "no table of numbers"),
        ("", "2 to 5 columns"),
        ("1,2\n" * 20, "only 1 of its points differ"),
        ("1,2\n3,4\n", "8 to 200000 rows"),
        ("\n".join(f"{i},0,nan" for i in range(9)), "row 0 holds a value that is no finite"),
        ("\n".join(f"{i},0,{i}" for i in range(9)), "row 0: a speed must be above 0"),
        ("\n".join(f"{i},0,1,1,1,1" for i in range(9)), "a track's array has 6 columns"),
    ],
)
def test_a_line_that_is_none_is_refused_in_a_sentence(text, said, tmp_path):
    file = tmp_path / "line.csv"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said):
        read_line(file)


@pytest.mark.parametrize("ending", ["npy", "csv"])
def test_a_line_is_read_from_arrays_and_tables(ending, tmp_path):
    line = np.concatenate([circle(1.0, 40), circle(1.0, 40)[:1]])
    rows = np.column_stack([line, np.full(41, 1.5)])
    file = tmp_path / f"line.{ending}"
    if ending == "npy":
        np.save(file, rows)
    else:
        text = "\r\n".join(["x;y;speed", *(";".join(map(repr, row)) for row in rows.tolist())])
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())

    points, speed, closed = read_line(file)

    np.testing.assert_allclose(points, circle(1.0, 40))
    np.testing.assert_allclose(speed, 1.5)
    assert closed
    assert not read_line_of_half(tmp_path, line)[2]


def read_line_of_half(folder, line):
    np.save(folder / "half.npy", line[:20])
    return read_line(folder / "half.npy")


def test_the_grid_command_writes_what_it_prints():
    said, warned = hotlap("grid", "--speed-max", 0.8, "--plot", "grid.png")

    assert Metadata.read("model_metadata.json").actions == grid(
        steering_scale(30, 5), speed_scale(0.8, 2)
    )
    assert said.splitlines()[1].split() == ["0", "-30.0", "0.40"]
    assert not warned  # at 0.8 m/s the tyres follow 30 degrees
    assert Path("grid.png").read_bytes().startswith(b"\x89PNG")


def test_the_grid_command_says_what_the_tyres_cannot_follow():
    _, warned = hotlap("grid", "--speed-max", 4, "--speed-granularity", 1, "--out", "a.json")
    said, quiet = hotlap(
        "grid", "--speed-max", 4, "--speed-granularity", 1, "--grip", 1, "--json", "--out", "b.json"
    )

    assert "4 of them steer more" in warned
    assert not quiet
    angles = [action["steering_angle"] for action in json.loads(said)["actions"]]
    np.testing.assert_allclose(angles, [-5.88, -2.94, 0, 2.94, 5.88], atol=0.01)


def test_the_grid_command_counts_as_the_custom_framework():
    # min_speed 1, max_speed 3, speed_interval 1; angles -30 to 30 by 30
    hotlap("grid", "--speed-min", 1, "--speed-max", 3, "--speed-interval", 1,
           "--steering-interval", 30)  # fmt: skip

    expected = [(angle, speed) for speed in (1, 2, 3) for angle in (-30, 0, 30)]
    assert list(Metadata.read("model_metadata.json").actions) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grid", "--steering-max", 45), "steering: must be -30 to 30 degrees"),
        (("grid", "--speed-max", 5), "speed: must be 0.1 to 4 m/s"),
        (("grid", "--speed-granularity", 0), "speed granularity: must be 1 to 100"),
        (("grid", "--speed-granularity", 3, "--speed-interval", 1), "one of them"),
        (("grid", "--speed-min", 1), "--speed-min: needs --speed-interval"),
        (("grid", "--steering-min", -5), "--steering-min: needs --steering-interval"),
        (("grid", "--grip", 0), "--grip: must be above 0"),
        (("grid", "--plot", "a.jpg"), "--plot: end its name in .png"),
        (("grid", "--out", "no/such/a.json"), "is no folder"),
        (("line",), "name a track, or a racing line"),
        (("line", "--line", "none.csv"), "none.csv: no such file"),
        (("line", "oval", "--line", "none.csv"), "one of them"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(words, said):
    with pytest.raises(ConfigError, match=said):
        hotlap(*words)

    assert not list(Path().glob("*.json"))


def test_the_line_command_takes_a_line_of_your_own():
    np.save("mine.npy", np.column_stack([circle(1.2), np.full(120, 2.0)]))

    said, _ = hotlap("line", "--line", "mine.npy", "--count", 1, "--margin", 0, "--pace", 1,
                     "--json", "--plot", "line.png")  # fmt: skip

    found = json.loads(said)
    (action,) = found["actions"]
    # 2 m/s are driven if 2 / 1.0275 are commanded, say
    assert action["speed"] == pytest.approx(2 / CAR.speed_gain, abs=0.006)
    assert action["steering_angle"] == 11.3
    assert found["coverage"]["shares"] == [1.0]
    assert Path("line.png").stat().st_size > 5000
    backwards, _ = hotlap("line", "--line", "mine.npy", "--count", 1, "--margin", 0, "--reverse",
                          "--json", "--out", "back.json")  # fmt: skip
    assert json.loads(backwards)["actions"][0]["steering_angle"] == -11.3


def test_the_line_command_takes_the_fastest_line_of_a_track():
    pytest.importorskip("casadi")

    said, _ = hotlap("line", "oval", "--count", 5)

    actions = Metadata.read("model_metadata.json").actions
    assert len(actions) == 5
    assert "furthest from an action" in said
    assert min(angle for angle, _ in actions) > -1  # the oval turns left
    assert max(angle for angle, _ in actions) > 5
    for angle, speed in actions:  # v^2 kappa <= mu g, at the line's own speed and steering
        driven, bend = speed * CAR.speed_gain / 0.9, math.tan(math.radians(angle / 1.1)) / WHEELBASE
        assert driven**2 * bend < 1.02 * grip(CAR)
