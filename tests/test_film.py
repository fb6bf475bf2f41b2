"""A film shows the car where it was, in real time, in a file that plays everywhere."""

import sys
import time

import numpy as np
import pytest
from PIL import Image

import hotlap.film
from drivers import saved
from hotlap.errors import ConfigError, RunError
from hotlap.film import write_film
from hotlap.outcome import film_run
from hotlap.track import load_track

# By count of the pixels near it: the car's orange is no other thing's colour but the steering's.
ORANGE = np.array([230, 92, 30])


@pytest.fixture(scope="module")
def track():
    return load_track("reinvent_like")


def drive(track, seconds, *, speed=2.0, dt=1 / 15, steering=0.0):
    t = np.arange(1, round(seconds / dt) + 1) * dt
    far = speed * (t - t[0])
    s = far % track.length
    xy = track.locate(s, np.zeros_like(s))
    step = track.locate((s + 0.01) % track.length, np.zeros_like(s)) - xy
    arrays = {
        "t": t,
        "x": xy[:, 0],
        "y": xy[:, 1],
        "yaw": np.arctan2(step[:, 1], step[:, 0]),
        "speed": np.full_like(t, speed),
        "steering": np.full_like(t, steering),
        "s": s,
        "lap": far // track.length,
    }
    return {k: v.astype(np.int32 if k == "lap" else np.float32) for k, v in arrays.items()}


def frames_of(track, trace, camera=None, fps=15):
    return [f.copy() for f in hotlap.film._frames(track, trace, camera, fps, "")]


def test_obstacles_and_other_cars_stand_where_they_are(track):
    """A box of 1 x 0.5 m by the start, and a car without height, which is none."""
    trace = drive(track, 1.0)
    x, y = 3.0, 2.0  # in the infield
    boxes = np.zeros((len(trace["t"]), 2, 8), np.float32)
    boxes[:, 0] = [x, y, 0, 1, 0.5, 0.25, 0.3, 0]
    boxes[:, 1] = [x, y, 1, 0, 2.0, 2.0, 0.0, 1]

    bare, shown = frames_of(track, trace)[-1], frames_of(track, trace | {"boxes": boxes})[-1]

    rows, columns = np.nonzero((bare != shown).any(axis=2))
    border = np.concatenate([track.inner, track.outer])
    span = border.max(axis=0) - border.min(axis=0)
    scale = min((720 - 48) / span[0], (540 - 48 - 26) / span[1])
    assert np.ptp(rows) + 1 == pytest.approx(1.0 * scale, abs=2)  # it lies along y
    assert np.ptp(columns) + 1 == pytest.approx(0.5 * scale, abs=2)
    middle = shown[round(rows.mean()), round(columns.mean())]
    np.testing.assert_array_equal(middle, (196, 154, 98))


def orange(frame, part):
    rows, columns = np.nonzero((np.abs(frame[:, part].astype(int) - ORANGE) < 40).all(axis=2))
    return columns, rows


def test_an_mp4_plays_in_browsers_and_in_real_time(track, tmp_path):
    av = pytest.importorskip("av")

    path = write_film(tmp_path / "lap.mp4", track, drive(track, 4.0))

    assert path == tmp_path / "lap.mp4"
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (960, 540)
        assert float(stream.average_rate) == 15
    assert len(shown) == 60
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first
    assert [entry.name for entry in tmp_path.iterdir()] == ["lap.mp4"]
    assert len(orange(shown[30], slice(0, 720))[0]) > 50


@pytest.mark.parametrize("fps", [5, 15, 30])
def test_the_frames_a_second_do_not_change_how_long_it_lasts(track, fps):
    frames = frames_of(track, drive(track, 2.0), fps=fps)

    # 30 rows, from 1/15 s to 2 s: 29/15 s of driving and the frame it begins with.
    assert len(frames) == round(29 / 15 * fps) + 1


def test_a_frame_shows_the_row_nearest_in_time(track):
    trace = drive(track, 1.0)
    camera = np.broadcast_to(np.arange(15, dtype=np.uint8)[:, None, None, None], (15, 30, 40, 1))

    shown = [int(frame[90, 840, 0]) for frame in frames_of(track, trace, camera, fps=40)]

    # Frame k is at k/40 s, which is 15 k / 40 rows: 0, 0.375, 0.75, 1.125, ...
    assert shown[:4] == [0, 0, 1, 1]
    assert shown[-1] == 14


def test_the_car_moves_as_on_the_map_with_y_upwards(track):
    trace = drive(track, 8.0)
    frames = frames_of(track, trace)

    seen = np.array([[np.mean(axis) for axis in orange(f, slice(0, 720))] for f in frames])

    # One scale and one shift map metres to pixels, y turned over: fit them and look at the rest.
    x, y = np.polyfit(trace["x"], seen[:, 0], 1), np.polyfit(trace["y"], seen[:, 1], 1)
    assert x[0] > 0
    assert y[0] == pytest.approx(-x[0], rel=0.01)
    np.testing.assert_allclose(np.polyval(x, trace["x"]), seen[:, 0], atol=1.5)
    np.testing.assert_allclose(np.polyval(y, trace["y"]), seen[:, 1], atol=1.5)


def test_the_car_points_where_it_drives(track):
    trace = {name: array[:2] for name, array in drive(track, 1.0).items()}
    trace["yaw"] = np.array([0.0, np.pi / 2], np.float32)

    along_x, along_y = (np.ptp(orange(f, slice(0, 720)), axis=1) for f in frames_of(track, trace))

    assert along_x[0] > 1.4 * along_x[1]  # long in x when it points along x
    assert along_y[1] > 1.4 * along_y[0]


def test_a_car_that_was_put_back_leaves_no_trail_on_the_way(track):
    trace = drive(track, 2.0)
    trace["x"][15:] += 2.0  # farther than any car drives in a step

    bare, jumped = (frames_of(track, t)[-1] for t in (drive(track, 0.1), trace))
    start, end = (
        np.array([np.mean(axis) for axis in orange(frames_of(track, trace)[i], slice(0, 720))])
        for i in (14, 15)
    )
    middle = np.round((start + end) / 2).astype(int)

    near = np.s_[middle[1] - 4 : middle[1] + 4, middle[0] - 4 : middle[0] + 4]
    np.testing.assert_array_equal(bare[near], jumped[near])


def test_steering_left_goes_left_on_the_gauge(track):
    left, right = (
        orange(frames_of(track, drive(track, 0.2, steering=angle))[-1], slice(720, 960))[0].mean()
        for angle in (0.3, -0.3)
    )

    assert left < 120 < right


def test_the_camera_shows_the_picture_of_the_moment(track):
    trace = drive(track, 1.0)
    camera = np.zeros((15, 30, 40, 1), np.uint8)
    camera[7:] = 255

    frames = frames_of(track, trace, camera)

    assert frames[6][30:150, 750:930].max() == 0
    assert frames[7][30:150, 750:930].min() == 255
    coloured = frames_of(track, trace, np.full((15, 30, 40, 3), [200, 10, 30], np.uint8))
    np.testing.assert_array_equal(coloured[0][90, 840], [200, 10, 30])


def test_without_pyav_there_is_an_animated_gif(track, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)

    path = write_film(tmp_path / "lap.mp4", track, drive(track, 2.0))

    assert path == tmp_path / "lap.gif"
    with Image.open(path) as film:
        assert film.n_frames > 15
        assert film.size == (640, 360)
        assert film.info["duration"] == 100
    assert [entry.name for entry in tmp_path.iterdir()] == ["lap.gif"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("yaw"), "lacks yaw"),
        (lambda t: t.update({k: v[:0] for k, v in t.items()}), "is empty"),
        (lambda t: t.update(camera=np.zeros((15, 3, 4), np.uint8)), r"not \(15, 3, 4\)"),
    ],
)
def test_what_cannot_be_filmed_is_named(track, tmp_path, change, says):
    trace = drive(track, 1.0)
    change(trace)

    with pytest.raises(RunError, match=says):
        write_film(tmp_path / "lap.mp4", track, trace)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(track, tmp_path):
    with pytest.raises(RunError, match=r"lap\.mp4: the film cannot be written"):
        write_film(tmp_path / "no" / "lap.mp4", track, drive(track, 0.5))


def test_a_frame_is_cheap(track):
    trace = drive(track, 10.0)
    frames_of(track, trace)

    start = time.process_time()
    count = sum(1 for _ in hotlap.film._frames(track, trace, None, 15, ""))

    # 1.7 ms here, on a busy machine; drawing all anew took 8.
    assert (time.process_time() - start) / count < 0.006


def test_the_ghost_of_a_drive_is_never_apart_from_it(track):
    """The laps take 8.8 s, 2 m/s on 17.6 m; the flying one is driven along with itself."""
    trace = drive(track, 20.0)
    ghost = hotlap.film._Ghost(track, trace, float(trace["s"][0]))
    start = track.length / 2.0

    for row in (140, 170, 200):
        clock = row / 15 - start
        place, yaw = ghost.at(clock)
        assert place == pytest.approx([trace["x"][row], trace["y"][row]], abs=0.02)
        assert np.cos(yaw - trace["yaw"][row]) > 0.999
        assert ghost.gap(clock, float(trace["s"][row])) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_the_gap_to_a_ghost_is_the_time_that_it_is_ahead(track, start):
    """From anywhere: at 3 m/s it is 6 m on after 2 s, which a car at 2 m/s needs 3 s for."""
    ghost = hotlap.film._Ghost(track, drive(track, 13.0, speed=3.0), start)

    place, _ = ghost.at(2.0)

    s, _ = track.project(place[None])
    assert s[0] == pytest.approx((start + 6.0) % track.length, abs=0.05)
    assert ghost.gap(3.0, start + 6.0) == pytest.approx(1.0, abs=0.02)
    assert ghost.gap(1.0, start + 6.0) == pytest.approx(-1.0, abs=0.02)
    # a lap ends where it began: its last moments count as late, not as a lap early
    assert ghost.gap(8.8, start + 17.59) == pytest.approx(8.8 - 17.59 / 3, abs=0.02)
    assert ghost.gap(0.02, start - 0.01) == pytest.approx(0.02, abs=0.03)


def test_the_ghost_drives_in_flying_laps_alone(track):
    trace = drive(track, 11.0)
    ghost = hotlap.film._Ghost(track, drive(track, 13.0, speed=3.0), 0.0)

    plain = frames_of(track, trace)
    with_ghost = [
        f.copy() for f in hotlap.film._frames(track, trace, None, 15, "", ghost)
    ]  # fmt: skip

    differs = [bool((a != b).any()) for a, b in zip(plain, with_ghost, strict=True)]
    first = int(np.flatnonzero(trace["lap"] == 1)[0])
    assert not any(differs[:first])
    assert all(differs[first:])


def test_a_ghost_without_a_whole_lap_is_refused(track, tmp_path):
    with pytest.raises(RunError, match="holds no whole lap"):
        write_film(tmp_path / "a.gif", track, drive(track, 1.0), ghost=drive(track, 2.0))


def test_a_ghost_that_drives_the_other_way_is_refused(tmp_path):
    run = saved(tmp_path / "a", 2.0)
    other = saved(tmp_path / "b", 2.0, settings={"start.direction": "reversed"})

    with pytest.raises(ConfigError, match=r"learned to drive reversed, and that of .* forward"):
        film_run(run, other)
