"""Tracks: the centre line against SciPy and Shapely, (s, n) and back, files good and bad."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from shapely import LineString, distance, points

from hotlap.errors import TrackError
from hotlap.track import Track, load_track, track_names
from hotlap.track.collection import add_track, add_tracks
from hotlap.track.courses import COURSES

REAL = Path(__file__).parents[3] / "shared/data/tracks"
MEASURED = {  # length and width [m] by rows: reference/deepracer.md, section 6.2
    "2022_reinvent_champ_ccw": (33.28, 0.950),
    "2022_summit_speedway": (25.17, 1.067),
    "Albert": (51.39, 1.067),
    "Bowtie_track": (17.43, 0.724),
    "Oval_track": (19.55, 0.666),
    "Straight_track": (5.71, 0.610),
    "reInvent2019_track": (23.12, 1.067),
    "reinvent_base": (17.71, 0.762),
}


def ring(radius=2.0, half=0.3, rows=60, *, clockwise=False):
    """A circle about the origin; inner is the border with the smaller radius."""
    turn = np.linspace(0, 2 * np.pi, rows + 1) * (-1 if clockwise else 1)
    turn[-1] = 0  # so that the last row repeats the first exactly
    unit = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.hstack([radius * unit, (radius - half) * unit, (radius + half) * unit])


def strip(xy, half=0.3):
    """A road along a polyline, its borders beside the rows; inner is to the left."""
    step = np.gradient(np.array(xy, float), axis=0)
    left = step[:, ::-1] * [-1, 1] / np.hypot(*step.T)[:, None] * half
    return np.hstack([xy, xy + left, xy - left])


def scattered(track, many, seed=0, within=0.95):
    """Arc lengths and offsets of points inside the road."""
    draws = np.random.default_rng(seed)
    s = draws.uniform(0, track.length, many)
    k = (s / track.stations.spacing).astype(int) % track.stations.count
    half = np.minimum(track.stations.left[k], track.stations.right[k])
    return s, draws.uniform(-within, within, many) * half, k


def apart(track, one, other):
    """The distance between arc lengths, around a loop."""
    gap = np.abs(np.asarray(one) - other)
    return np.minimum(gap, track.length - gap) if track.closed else gap


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "tracks"


def saved(path, array):
    np.save(path, array)
    return path


# --- the centre line ---------------------------------------------------------------------------


@pytest.mark.parametrize(("clockwise", "sign"), [(False, 1), (True, -1)])
def test_a_circle_has_its_length_its_curvature_and_its_borders(clockwise, sign):
    track = Track.from_waypoints(ring(2.0, 0.3, clockwise=clockwise), name="ring")

    stations = track.stations
    inside, outside = (stations.left, stations.right)[::sign]
    assert track.length == pytest.approx(2 * np.pi * 2.0, rel=1e-5)
    assert stations.count * stations.spacing == pytest.approx(track.length)
    np.testing.assert_allclose(stations.curvature, sign / 2.0, rtol=2e-3)
    np.testing.assert_allclose(np.hypot(stations.x, stations.y), 2.0, atol=1e-4)
    # 60 chords of a circle of radius r lie up to r (1 - cos 3 deg) inside it: 2.3 and 3.2 mm
    np.testing.assert_allclose(inside, 0.3, atol=2.4e-3)
    np.testing.assert_allclose(outside, 0.3, atol=3.3e-3)


@pytest.mark.parametrize("closed", [True, False])
def test_the_centre_line_is_the_spline_that_scipy_fits(closed):
    draws = np.random.default_rng(3)
    turn = np.sort(np.linspace(0, 6.0, 40) + draws.uniform(0, 0.1, 40))  # uneven on purpose
    radius = 5 + np.sin(3 * turn)
    xy = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    rows = strip(np.vstack([xy, xy[:1]]) if closed else xy)
    rows[-1] = rows[0] if closed else rows[-1]

    track = Track.from_waypoints(rows, name="wobble")

    knots = rows[:, :2]
    u = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    spline = CubicSpline(u, knots, bc_type="periodic" if closed else "natural")
    fine = np.linspace(0, u[-1], 200_001)
    speed = np.hypot(*spline(fine, 1).T)
    arc = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(fine))])
    at = np.interp(np.arange(track.stations.count) * track.stations.spacing, arc, fine)
    (x1, y1), (x2, y2) = spline(at, 1).T, spline(at, 2).T
    assert track.closed == closed
    assert track.length == pytest.approx(arc[-1], rel=1e-8)
    np.testing.assert_allclose(track._frame[:, :2], spline(at), atol=1e-7)
    np.testing.assert_allclose(track.stations.heading, np.arctan2(y1, x1), atol=1e-5)
    bend = (x1 * y2 - y1 * x2) / np.hypot(x1, y1) ** 3
    np.testing.assert_allclose(track.stations.curvature, bend, atol=1e-4)


def test_repeated_rows_change_nothing():
    rows = ring()

    doubled = Track.from_waypoints(np.repeat(rows, 2, axis=0), name="ring")

    assert doubled.fingerprint == Track.from_waypoints(rows, name="ring").fingerprint


def test_the_kernels_arrays_are_read_only_contiguous_and_single():
    track = load_track("oval")

    for name in ("x", "y", "tx", "ty", "heading", "curvature", "left", "right"):
        array = getattr(track.stations, name)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.shape == (track.stations.count,)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_inside_of_a_pinched_bend_is_no_wider_than_the_road():
    # The inner border comes to a point that the rays of nearby stations miss.
    turn = np.radians(np.arange(-90, 91, 30))
    bend = np.stack([np.cos(turn), np.sin(turn)], axis=1) * 0.6
    xy = np.vstack([[-3, -0.6], [-2, -0.6], [-1, -0.6], bend, [-1, 0.6], [-2, 0.6], [-3, 0.6]])
    rows = strip(xy, 0.5)
    rows[3:10, 2:4] = [-0.25, 0.0] + 1e-3 * bend

    track = Track.from_waypoints(rows, name="pinched")

    assert track.stations.left.max() < 1.0  # 0.85 from the far side of the bend to the point


# --- (s, n) and back ---------------------------------------------------------------------------


def test_on_a_straight_s_is_x_and_n_is_y():
    track = Track.from_waypoints(strip([[x, 0.0] for x in range(6)]), name="lane")

    s, n = track.project([[1.25, 0.2], [3.5, -0.1], [-1.0, 0.1], [7.0, 0.1]])

    np.testing.assert_allclose(s, [1.25, 3.5, 0.0, 5.0], atol=1e-12)  # clamped at both ends
    np.testing.assert_allclose(n, [0.2, -0.1, 0.1, 0.1], atol=1e-12)
    np.testing.assert_allclose(track.locate([2.0, 9.0], [-0.2, 0.2]), [[2, -0.2], [5, 0.2]])


def test_on_a_circle_n_is_the_way_towards_its_middle():
    track = Track.from_waypoints(ring(2.0), name="ring")

    xy = track.locate(np.pi, 0.25)  # a quarter of 2 pi 2

    np.testing.assert_allclose(xy, [0.0, 1.75], atol=2e-4)


@pytest.mark.parametrize("name", COURSES)
def test_project_undoes_locate(name):
    track = load_track(name)

    @settings(max_examples=60, deadline=None)
    @given(st.floats(0, 1, exclude_max=True), st.floats(-0.99, 0.99))
    def round_trip(along, across):
        s = along * track.length
        k = int(s / track.stations.spacing) % track.stations.count
        n = across * float(min(track.stations.left[k], track.stations.right[k]))
        for near in (None, [k]):
            s_back, n_back = track.project(track.locate([s], [n]), near=near)
            assert apart(track, s_back, s) < 1e-9
            assert abs(n_back - n) < 1e-9
            assert 0 <= s_back < track.length or not track.closed

    round_trip()


@pytest.mark.parametrize("name", COURSES)
def test_locate_undoes_project(name):
    track = load_track(name)
    low, high = track.centre.min(axis=0) - 1, track.centre.max(axis=0) + 1
    xy = np.random.default_rng(5).uniform(low, high, (3000, 2))
    on_road = distance(LineString(track.centre), points(xy)) < 0.45 * track.width
    xy = xy[on_road & (np.abs(xy[:, 0] - 6) < 5.5)]  # away from the ends of the straight

    back = track.locate(*track.project(xy))

    assert len(xy) > 100
    np.testing.assert_allclose(back, xy, atol=1e-9)


def test_projection_is_continuous_across_the_start_line():
    track = load_track("oval")

    s, n = track.project(track.locate([-1e-4, 0.0, 1e-4], [0.1, 0.1, 0.1]))

    np.testing.assert_allclose(s, [track.length - 1e-4, 0.0, 1e-4], atol=1e-9)
    np.testing.assert_allclose(n, 0.1, atol=1e-9)


def test_a_car_far_off_the_road_does_not_hop_to_the_other_leg_of_a_hairpin():
    track = load_track("hairpins")
    legs = LineString(track.centre)
    s = np.arange(0.5, track.length, 0.25)
    k = (s / track.stations.spacing).astype(int)
    beyond = [track.locate(s, np.full(len(s), side * 0.9)) for side in (1, -1)]

    hopped = 0
    for xy, n in zip(beyond, (0.9, -0.9), strict=True):
        straight = np.abs(track.stations.curvature[k]) < 1e-3
        closer = distance(legs, points(xy)) < 0.7  # another leg is nearer than the car's own
        rows = straight & closer
        s_free, _ = track.project(xy[rows])
        s_near, n_near = track.project(xy[rows], near=k[rows])
        hopped += np.count_nonzero(apart(track, s_free, s[rows]) > 1)
        np.testing.assert_allclose(s_near, s[rows], atol=1e-9)
        np.testing.assert_allclose(n_near, n, atol=1e-9)
    assert hopped > 20  # else the course could not have told


def test_near_finds_the_car_that_moved_on_since():
    track = load_track("kart")
    s, n, k = scattered(track, 200)

    s_back, n_back = track.project(track.locate(s, n), near=k - 12)  # 12 stations: 0.85 m

    assert apart(track, s_back, s).max() < 1e-9
    np.testing.assert_allclose(n_back, n, atol=1e-9)


def there_and_back_beside(half_out, half_back):
    """An open U: out along y = 0 from x = 0, back along y = 1.6 to x = -2."""
    turn = np.radians(np.arange(-90, 91, 15))
    bend = [6, 0.8] + 0.8 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    xy = np.vstack([[[x, 0.0] for x in range(6)], bend, [[x, 1.6] for x in range(5, -3, -1)]])
    half = np.where(np.arange(len(xy)) < 6, half_out, half_back)
    return Track.from_waypoints(strip(xy, half[:, None]), name="U")


def test_a_point_belongs_to_the_road_it_lies_on_before_the_nearer_centre_line():
    track = there_and_back_beside(half_out=1.1, half_back=0.2)

    s, n = track.project([[3.0, 1.0]])  # 1.0 from the line out, 0.6 from the line back

    np.testing.assert_allclose(s, 3.0, atol=1e-2)
    np.testing.assert_allclose(n, 1.0, atol=1e-2)


def test_a_point_before_the_start_of_an_open_track_stays_at_its_start():
    track = there_and_back_beside(half_out=0.3, half_back=0.3)

    s, n = track.project([[-0.5, 0.1]])  # the leg back passes 1.5 away, the start is 0.51 away

    np.testing.assert_allclose(s, 0.0, atol=1e-9)
    np.testing.assert_allclose(n, 0.1, atol=1e-2)


def test_a_large_batch_keeps_each_point_with_its_own_station():
    track = load_track("hairpins")
    s, n, k = scattered(track, 12_000)  # two blocks of windows

    s_back, _ = track.project(track.locate(s, n), near=k)

    assert apart(track, s_back, s).max() < 1e-9


def test_the_points_of_a_large_batch_do_not_depend_on_each_other():
    track = load_track("hard")
    s, n, _ = scattered(track, 700)  # more than one block of 2**18 entries
    xy = track.locate(s, n)

    together, alone = track.project(xy), [track.project(p[None]) for p in xy[::50]]

    np.testing.assert_array_equal(together[0][::50], np.concatenate([a[0] for a in alone]))
    np.testing.assert_array_equal(together[1][::50], np.concatenate([a[1] for a in alone]))


@pytest.mark.parametrize("name", ["reinvent_like", "hairpins", "straight"])
def test_driven_the_other_way_left_is_right_and_the_end_the_start(name):
    track = load_track(name)
    back = track.reversed()
    s, n, _ = scattered(track, 100)

    s_back, n_back = back.project(track.locate(s, n))

    assert back.reverse_direction
    assert not back.reversed().reverse_direction
    assert back.reversed().fingerprint == track.fingerprint != back.fingerprint
    assert back.length == pytest.approx(track.length, rel=1e-12)
    # The stations of both lie half a segment apart, which moves the strips a little.
    assert apart(track, s_back, track.length - s).max() < 5e-3
    np.testing.assert_allclose(n_back, -n, atol=2e-3)
    if track.closed:
        np.testing.assert_array_equal(back.inner[0], track.inner[0])
        np.testing.assert_array_equal(back.inner[1], track.inner[-1])


def test_a_track_is_equal_to_itself_only_and_may_key_a_table():
    one, two = (Track.from_waypoints(ring(), name="ring") for _ in range(2))

    assert one != two
    assert len({one, two, one}) == 2
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != Track.from_waypoints(ring(half=0.31), name="ring").fingerprint


# --- arrays and files that are no track --------------------------------------------------------


def figure_of_eight():
    turn = np.linspace(0, 2 * np.pi, 81)
    rows = strip(np.stack([3 * np.sin(turn), 2 * np.sin(2 * turn)], axis=1), 0.2)
    rows[-1] = rows[0]
    return rows


def changed(change):
    rows = ring()
    change(rows)
    return rows


def poke_nan(rows):
    rows[7, 4] = np.nan


def pinch(rows):
    rows[9, 2:4] = rows[9, :2]


def border_over_centre(rows):
    rows[15, 2:4] *= 2.2 / 1.7


def same_side(rows):
    rows[:, 4:] = rows[:, 2:4] * 0.9


def spike(rows):
    rows[20] = rows[17]


def there_and_back():
    x = np.array([0, 1, 2, 3, 4, 5, 6, 5.2, 4.1], float)
    return np.stack([x, 0 * x, x, 0 * x + 0.3, x, 0 * x - 0.3], axis=1)


BAD = {
    "flat": (np.zeros(12), r"shape \(12,\).*\(N, 6\)"),
    "two columns": (ring()[:, :2], r"shape \(61, 2\).*\(N, 6\)"),
    "empty": (np.zeros((0, 6)), "0 distinct rows.*at least 4"),
    "one point": (np.ones((50, 6)), "1 distinct rows.*at least 4"),
    "three rows": (ring(rows=3), "3 distinct rows.*at least 4"),
    "words": (np.full((9, 6), "a"), "values.*real numbers"),
    "complex": (ring() * 1j, "complex128 values"),
    "nan": (changed(poke_nan), "1 of 366 values.*row 7, column 4"),
    "all nan": (np.full((40, 6), np.nan), "240 of 240 values"),
    "infinite": (np.full((40, 6), np.inf), "240 of 240 values are not finite"),
    "astronomic": (ring() * 1e12, "metres below 1e9"),
    "far away": (ring() + 4e6, "Subtract the mean"),
    "no width": (changed(pinch), r"inner border touches.*\(1.18, 1.62\), row 9"),
    "same side": (changed(same_side), "same side"),
    "border": (
        changed(border_over_centre),
        r"inner border crosses the centre line near.*0\.\d\d, ",
    ),
    "eight": (
        figure_of_eight(),
        r"centre line crosses itself near \(x, y\) = \(-?0\.\d\d, -?0\.\d",
    ),
    "spike": (changed(spike), "turns back on itself.*row|crosses itself"),
    "there and back": (there_and_back(), "turns back on itself at .*row 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_array_is_refused_in_one_sentence_that_names_it(case, tmp_path):
    array, message = BAD[case]
    path = saved(tmp_path / "mine.npy", array)

    with pytest.raises(TrackError, match=message) as caught:
        load_track(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def write_truncated(path):
    saved(path, ring())
    path.write_bytes(path.read_bytes()[:-100])


def write_half_a_header(path):
    saved(path, ring())
    path.write_bytes(path.read_bytes()[:40])


def write_a_boast(path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999, 6), }"
    header = header.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


FILES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "text": (lambda path: path.write_text("x,y\n1,2\n"), "not a .npy file"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "pickles.*not read"),
    "objects": (
        lambda path: np.save(path, np.array([{}, 1], object), allow_pickle=True),
        "pickled Python objects, which are never loaded",
    ),
    "truncated": (write_truncated, "truncated or damaged"),
    "half a header": (write_half_a_header, "truncated or damaged"),
    "a boast": (write_a_boast, "truncated or damaged"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(case, tmp_path):
    write, message = FILES[case]
    path = tmp_path / "mine.npy"
    write(path)

    with pytest.raises(TrackError, match=message) as caught:
        load_track(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(TrackError, match="track 'ragged': has rows of unequal length"):
        Track.from_waypoints([[1, 2, 3], [4, 5]], name="ragged")


def test_whole_numbers_and_centimetres_are_fine():
    rows = (ring() * 100).round().astype(np.int64)

    track = Track.from_waypoints(rows, name="centimetres")

    assert track.length == pytest.approx(2 * np.pi * 200, rel=1e-3)


# --- names and the user's own tracks -----------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_nearest_and_how_to_list(home):
    with pytest.raises(TrackError, match=r"'ovall'; did you mean oval\?.*hotlap tracks list"):
        load_track("ovall")


def test_an_added_track_is_loaded_by_name_with_its_attribution(home, tmp_path):
    path = saved(tmp_path / "garage.npy", ring())

    added = add_track(path, attribution="A. Driver, CC0")
    path.unlink()

    track = load_track("garage")
    assert track_names() == [*COURSES, "garage"]
    assert (track.name, track.attribution) == ("garage", "A. Driver, CC0")
    assert track.fingerprint == added.fingerprint
    assert json.loads((home / "garage.json").read_text())["fingerprint"] == added.fingerprint
    assert sorted(p.name for p in home.iterdir()) == ["garage.json", "garage.npy"]  # no drafts


def test_another_track_does_not_take_a_name_that_is_in_use(home, tmp_path):
    path = saved(tmp_path / "garage.npy", ring())
    first = add_track(path)

    add_track(path)  # the same again is no conflict
    saved(path, ring(half=0.4))
    with pytest.raises(TrackError, match=r"another track called 'garage'.*choose another name"):
        add_track(path)
    with pytest.raises(TrackError, match="'oval' is a built-in track"):
        add_track(path, name="oval")

    assert load_track("garage").fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "a/b"])
def test_a_name_that_is_no_file_name_is_refused(home, tmp_path, name):
    path = saved(tmp_path / "garage.npy", ring())

    with pytest.raises(TrackError, match="cannot be the name of a track"):
        add_track(path, name=name)

    assert not home.exists()


def test_a_folder_is_added_file_by_file_and_the_bad_ones_are_reported(home, tmp_path):
    saved(tmp_path / "good.npy", ring())
    saved(tmp_path / "wide.npy", ring(half=0.5))
    saved(tmp_path / "bad.npy", np.zeros(3))

    added, refused = add_tracks(tmp_path)

    assert added == ["good", "wide"]
    assert [path.name for path, _ in refused] == ["bad.npy"]
    assert "shape (3,)" in str(refused[0][1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrackError, match="has no track in it"):
        add_tracks(tmp_path / "empty")


def test_a_collection_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "file"))

    with pytest.raises(TrackError, match=r"cannot be written.*HOTLAP_HOME"):
        add_track(saved(tmp_path / "garage.npy", ring()))


def test_a_copy_that_fails_leaves_nothing_behind(home, tmp_path, monkeypatch):
    path = saved(tmp_path / "garage.npy", ring())

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TrackError, match="No space left on device"):
        add_track(path)

    assert list(home.iterdir()) == []


def test_a_broken_note_beside_a_track_does_not_hide_the_track(home, tmp_path):
    add_track(saved(tmp_path / "garage.npy", ring()))
    (home / "garage.json").write_text("[1")

    assert load_track("garage").attribution == ""


def test_loading_a_course_imports_nothing_slow():
    code = (
        "import sys, hotlap.track as t; t.load_track('oval').project([[0, 0]]);"
        "slow = {'scipy', 'shapely', 'numba', 'torch', 'pydantic', 'numpy.ma', 'matplotlib'};"
        "sys.exit(', '.join(slow & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.strip() == ""


# --- DeepRacer's own files ---------------------------------------------------------------------

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no DeepRacer track files in {REAL}")


@needs_real
@pytest.mark.parametrize("name", MEASURED)
def test_a_deepracer_track_has_its_published_length_and_width(name):
    track = load_track(REAL / f"{name}.npy")

    length, width = MEASURED[name]
    across = np.hypot(*(track.inner - track.outer).T)
    assert track.closed == (name != "Straight_track")
    assert track.length == pytest.approx(length, rel=0.01)
    assert np.median(across) == pytest.approx(width, rel=0.01)
    # Rows that run askew make the published width too large for three tracks, never too small.
    assert 0.8 * width < track.width < 1.01 * width


@needs_real
@pytest.mark.parametrize("name", MEASURED)
def test_the_offset_on_a_deepracer_track_is_shapelys_distance(name):
    track = load_track(REAL / f"{name}.npy")
    s, n, _ = scattered(track, 1000, within=0.9)
    xy = track.locate(s, n)

    _, offset = track.project(xy)

    knots = track.waypoints[:, :2]
    u = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    fit = CubicSpline(u, knots, bc_type="periodic" if track.closed else "natural")
    fine = fit(np.linspace(0, u[-1], 8_000))
    smooth, rough = LineString(fine), LineString(knots)
    off_smooth = np.abs(np.abs(offset) - distance(smooth, points(xy)))
    off_rough = np.abs(np.abs(offset) - distance(rough, points(xy)))
    assert off_smooth.max() < 0.002
    # The file's polyline cuts its bends; the offset differs from it by no more than that.
    assert off_rough.max() < distance(rough, points(fine)).max() + 0.002


@needs_real
@pytest.mark.parametrize("name", MEASURED)
def test_the_borders_of_a_deepracer_track_are_where_shapely_finds_them(name):
    track = load_track(REAL / f"{name}.npy")

    stations = track.stations
    step = 3 if track.closed else stations.count - 1  # the ends of an open border are its rows
    here = points(np.stack([stations.x, stations.y], axis=1)[::step])
    rows = track.waypoints
    borders = [distance(LineString(rows[:, i : i + 2]), here) for i in (2, 4)]
    measured = np.sort([stations.left[::step], stations.right[::step]], axis=0)
    # Along the normal a border is no nearer than its nearest point, and not much farther.
    assert (measured >= np.sort(borders, axis=0) - 1e-6).all()
    assert (measured <= 1.06 * np.sort(borders, axis=0)).all()
