"""The pictures show the numbers they were given, whatever is missing."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hotlap.errors import RunError
from hotlap.plot import (
    axes_picture,
    learning_curves,
    line_and_speed,
    reward_and_completion,
    save,
    track_picture,
)
from hotlap.track import load_track

ROWS = [
    {
        "iteration": i,
        "steps": 20_000 * i,
        "seconds": 2.0 * i,
        "reward": float(i),
        "completion": min(1.0, i / 40),
        "lap_time": None if i < 10 else 20.0 - i / 10,
        "best_lap": None if i < 10 else 19.5 - i / 10,
        **({"evaluation/completion": 0.5} if i == 50 else {}),
    }
    for i in range(1, 101)
]


def trace_on(track, laps=2.5, speed=2.0, dt=1 / 15, start=0.0):
    t = np.arange(round(laps * track.length / speed / dt)) * dt
    far = speed * t
    s = (start + far) % track.length
    xy = track.locate(s, np.zeros_like(s))
    arrays = {"t": t, "x": xy[:, 0], "y": xy[:, 1], "speed": speed + 0 * t, "s": s}
    trace = {name: array.astype(np.float32) for name, array in arrays.items()}
    return trace | {"lap": (far // track.length).astype(np.int32)}


def test_a_training_is_drawn_in_three_panels_with_units():
    top, middle, bottom = reward_and_completion(ROWS, "oval-ppo-1").axes

    assert bottom.get_xlabel() == "environment steps [millions]"
    assert middle.get_ylabel() == "completion [%]"
    assert bottom.get_ylabel() == "lap time [s]"
    assert top.get_lines()[0].get_xdata()[-1] == pytest.approx(2.0)  # 100 x 20 000
    np.testing.assert_array_equal(top.get_lines()[0].get_ydata(), np.arange(1.0, 101.0))
    assert middle.get_lines()[0].get_ydata()[19] == pytest.approx(50.0)  # 20 / 40
    assert [text.get_text() for text in bottom.texts] == ["9.50 s"]  # 19.5 - 10


def test_the_smooth_curve_is_the_running_mean():
    # 100 rows: 4 on either side. The mean of a straight line is the line; at its ends, where only
    # 0..4 are there, it is their mean: (1 + 2 + 3 + 4 + 5) / 5.
    top = reward_and_completion(ROWS).axes[0]

    smooth = top.get_lines()[1].get_ydata()

    np.testing.assert_allclose(smooth[4:-4], np.arange(5.0, 97.0))
    assert smooth[0] == pytest.approx(3.0)


def test_the_seconds_stand_above_the_steps_they_were_reached_at():
    figure = reward_and_completion(ROWS)
    figure.canvas.draw()
    above = figure.axes[0].child_axes[0]
    labels = zip(above.get_xticklabels(), above.get_xticks(), strict=True)

    ticks = {label.get_text(): x for label, x in labels}

    assert ticks["120"] == pytest.approx(1.2)  # iteration 60, 1.2 M steps


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:1],
        ROWS[:5],  # no lap yet
        [{"steps": 10, "reward": None}, {"steps": 20}],
        [{"steps": 0, "seconds": 0.0, "reward": 1.0}],
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_missing_is_left_out(rows, tmp_path):
    path = save(reward_and_completion(rows), tmp_path / "training.png")

    with Image.open(path) as picture:
        assert picture.size == (1200, 700)


def test_nothing_to_draw_is_said():
    with pytest.raises(RunError, match="no metrics to draw yet"):
        reward_and_completion([])
    with pytest.raises(RunError, match="no metrics to draw yet"):
        learning_curves({"a": [ROWS, []]})


def straight(slope, steps=100, lapped=None):
    """Rows whose reward grows by `slope` a step; its laps begin at the step `lapped`."""
    return [
        {"steps": x, "reward": slope * x, "lap_time": 9.0 if lapped and x >= lapped else None}
        for x in range(0, steps + 1, 10)
    ]


def test_each_group_has_its_line_and_name():
    runs = {f"group {i}": [straight(i)] for i in range(8)}

    axes = learning_curves(runs).axes[0]

    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(runs)
    assert len(looks) == 8


def test_trials_stand_over_each_setting_with_the_median_of_those_alike():
    rates = [1e-2, 1e-4, 1e-4, 1e-2]
    rows = [
        {"values": {"track": "b" if i % 2 else "a", "rate": rate}, "value": float(i)}
        for i, rate in enumerate(rates)
    ]

    left, right = axes_picture(rows, ["track", "rate"], "lap").axes

    def line(axes, name):
        (found,) = (one for one in axes.get_lines() if one.get_label() == name)
        return [list(column) for column in found.get_data()]

    # a has 0 and 2, b has 1 and 3; 1e-4 has 1 and 2, 1e-2 has 0 and 3
    assert line(left, "median") == [[0, 1], [1.0, 2.0]]
    assert line(right, "median") == [[1e-4, 1e-2], [1.5, 1.5]]
    assert line(right, "best") == [[1e-2], [0.0]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["a", "b"]
    assert (left.get_xscale(), right.get_xscale()) == ("linear", "log")


def test_a_group_is_its_median_in_a_band_as_far_as_its_shortest():
    axes = learning_curves({"a": [straight(1), straight(2), straight(6, steps=50)]}).axes[0]

    (median,) = (line for line in axes.get_lines() if line.get_label() == "a")
    (band,) = axes.collections
    x, y = median.get_data()
    corners = band.get_paths()[0].vertices
    assert x[-1] == 50
    np.testing.assert_allclose(y, 2 * x)
    assert y[-1] == 100
    assert corners[corners[:, 0] == 50][:, 1].min() == 50  # 1 * 50
    assert corners[:, 1].max() == 300  # 6 * 50
    alone = [line for line in axes.get_lines() if line.get_label() != "a"]
    assert sorted(line.get_xdata()[-1] for line in alone) == [50, 100, 100]


def test_from_four_on_the_middle_half_is_darker():
    # Slopes 1, 2, 4, 8: a quarter of the way in, at 0.75 of three steps, is 1.75; at the other end
    # 4 + 0.25 * 4 = 5; the median is 3.
    axes = learning_curves({"a": [straight(k) for k in (8, 1, 4, 2)]}).axes[0]

    ends = [band.get_paths()[0].vertices for band in axes.collections]
    (median,) = (line for line in axes.get_lines() if line.get_label() == "a")
    tops = [float(corners[:, 1].max()) for corners in ends]
    lows = [float(corners[corners[:, 0] == 100][:, 1].min()) for corners in ends]
    assert (tops, lows) == ([800, 500], [100, 175])
    assert median.get_ydata()[-1] == 300


def test_a_lap_time_is_that_of_the_median_once_half_have_lapped():
    group = [straight(1, lapped=20), straight(1, lapped=60), straight(1)]

    axes = learning_curves({"a": group}).axes[2]

    (median,) = (line for line in axes.get_lines() if line.get_label() == "a")
    assert median.get_xdata()[0] == pytest.approx(60, abs=0.5)
    assert set(median.get_ydata()) == {9.0}


def test_the_driven_line_is_coloured_by_speed_and_the_lap_is_named(tmp_path):
    track = load_track("reinvent_like")
    trace = trace_on(track)
    trace["speed"] = np.linspace(1.0, 3.0, len(trace["t"])).astype(np.float32)

    figure = track_picture(track, trace)

    axes, bar = figure.axes
    assert axes.get_title(loc="left") == "reinvent_like · 17.6 m · best of 2 laps 8.80 s"
    assert axes.get_aspect() == 1
    assert bar.get_ylabel() == "speed [m/s]"
    faint, front = axes.collections[-2:]
    assert front.get_array().min() >= 1.0
    assert len(faint.get_segments()) + len(front.get_segments()) == len(trace["t"]) - 1
    assert save(figure, tmp_path / "track.png").stat().st_size > 10_000


def test_obstacles_are_drawn_where_they_stand_and_cars_are_not():
    track = load_track("reinvent_like")
    trace = trace_on(track)
    boxes = np.zeros((len(trace["t"]), 2, 8), np.float32)
    boxes[:, 0] = [3.0, 2.0, 0, 1, 0.5, 0.25, 0.3, 0]
    boxes[:, 1] = [1.0, 2.0, 1, 0, 0.5, 0.25, 0.3, 1]

    axes = track_picture(track, trace | {"boxes": boxes}).axes[0]

    (drawn,) = [c for c in axes.collections if c.get_zorder() == 5]
    (path,) = drawn.get_paths()
    np.testing.assert_allclose(path.vertices.min(axis=0), [2.75, 1.5], atol=1e-6)
    np.testing.assert_allclose(path.vertices.max(axis=0), [3.25, 2.5], atol=1e-6)


@pytest.mark.parametrize("name", ["oval", "straight"])
def test_the_speed_of_a_lap_stands_below_its_line_over_the_same_way(name, tmp_path):
    track = load_track(name)
    trace = trace_on(track, laps=1.0, speed=2.0)
    trace["speed"] = 2 + np.sin(np.arange(len(trace["t"])) / 9).astype(np.float32)
    trace["travelled"] = 2.0 * trace["t"]
    before = 0.1 if track.closed else 0.0  # it may begin just before the start line
    trace["s"] = (trace["travelled"] - before) % track.length

    figure = line_and_speed(track, trace, "the title")

    above, below = figure.axes[:2]
    assert above.get_title(loc="left") == "the title"
    x, y = below.lines[0].get_data()
    np.testing.assert_allclose(x, trace["travelled"] - before, atol=1e-5)
    np.testing.assert_array_equal(y, trace["speed"])
    with Image.open(save(figure, tmp_path / "a.png")) as picture:
        assert picture.size[0] == 1200


def test_a_car_that_was_put_back_draws_no_line_on_the_way():
    track = load_track("reinvent_like")
    trace = trace_on(track, laps=0.5)
    trace["x"][20:] += 3.0

    axes = track_picture(track, trace).axes[0]

    longest = max(np.ptp(s, axis=0).max() for s in axes.collections[-1].get_segments())
    assert longest < 0.2  # 2 m/s for a fifteenth of a second


def test_the_arrow_points_where_one_drives():
    for track in (load_track("oval"), load_track("oval").reversed()):
        arrow, _ = track_picture(track).axes[0].texts
        towards = np.array(arrow.xy) - np.array(arrow.xyann)

        assert towards @ (track.centre[1] - track.centre[0]) > 0


@pytest.mark.parametrize("name", ["straight", "hard"])
def test_a_track_without_a_trace_has_borders_and_no_bar(name, tmp_path):
    figure = track_picture(load_track(name))

    assert len(figure.axes) == 1
    assert save(figure, tmp_path / "track.png").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no/track\.png: the picture cannot be written"):
        save(reward_and_completion(ROWS), tmp_path / "no" / "track.png")


def test_matplotlib_is_loaded_late_and_without_pyplot():
    code = """if True:
        import sys
        from hotlap.plot import reward_and_completion
        assert "matplotlib" not in sys.modules
        reward_and_completion([{"steps": 1, "reward": 1.0}])
        assert "matplotlib.pyplot" not in sys.modules
    """

    subprocess.run([sys.executable, "-c", code], check=True)
