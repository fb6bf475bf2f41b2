"""What a driver looks at is shown as it saw it, in the film and in the plots of its run."""

import numpy as np
import pytest

import hotlap.film
from drivers import command, follower, saved
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.config import resolve, to_toml
from hotlap.evaluate import evaluate
from hotlap.gaze import Gaze, coloured
from hotlap.outcome import film_run, plot_run
from hotlap.plan import TrainConfig
from hotlap.plot import attention_picture
from hotlap.runs import Run
from hotlap.sim.camera import Camera
from hotlap.tasks.actions import Actions, ContinuousActions, ListActions
from hotlap.track import load_track

SEES = {
    "track": "oval",
    "observation.actor": ["camera", "state"],
    "observation.camera.width": 40,
    "observation.camera.height": 30,
    "evaluation.trials": 3,
    "evaluation.laps": 1,
}
LIST = ListActions(list=((0.0, 1.0), (30.0, 0.5), (-30.0, 2.0), (30.0, 1.5)))


def with_camera(settings=SEES):
    """The driver that follows the centre, with a camera that it hardly minds: bright is left."""
    description, arrays = follower(2.0, settings=settings)
    plan = description["plan"] | {
        "images": {
            "camera": {
                "shape": (30, 40, 1),
                "scale": 1 / 255,
                "offset": 0.0,
                "conv": ((1, 6, 4),),
                "dense": (),
            }
        },
        "activation": "relu",
    }
    places = 7 * 9
    arrays = arrays | {
        "camera.conv0.weight": np.full((1, 1, 6, 6), 1 / 36, np.float32),
        "camera.conv0.bias": np.zeros(1, np.float32),
        "head.weight": np.concatenate(
            [np.tile(np.array([[1e-5], [0]], np.float32), places), arrays["head.weight"]], axis=1
        ),
    }
    return description | {"plan": plan}, arrays


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "sees"
    with Run.create(path, to_toml(resolve(TrainConfig, SEES)), {"seed": 0}) as made:
        made.write_checkpoint(1, policy=with_camera(), state=({}, {}), best=True)
    return path


def chooser(*logits, worths=False, size=(12, 16)):
    """A driver of choices whose logits are what is said, whatever it sees."""
    plan = {
        "images": {
            "camera": {
                "shape": (*size, 1),
                "scale": 1 / 255,
                "offset": 0.0,
                "conv": ((1, 4, 4),),
                "dense": (),
            }
        },
        "vectors": {},
        "hidden": (),
        "activation": "relu",
        "outputs": len(logits),
    }
    places = size[0] * size[1] // 16
    arrays = {
        "camera.conv0.weight": np.full((1, 1, 4, 4), 1 / 16),
        "camera.conv0.bias": np.zeros(1),
        "head.weight": np.full((len(logits), places), 1e-6),
        "head.bias": np.array(logits),
    }
    said = {"format": 1, "action": "discrete", "plan": plan, "worths": worths}
    return NumpyPolicy(said, arrays)


def watched(policy, picture, actions=LIST, row=0):
    gaze = Gaze(row, 100, Actions(actions))
    gaze(policy, {"camera": picture})
    return gaze


def test_the_watched_pictures_are_those_of_the_trial(run):
    """Trial 1 starts a third of the lap on; rendered anew from where its car was."""
    gaze = Gaze(1, 40, Actions(ContinuousActions()))

    report = evaluate(run, trials=3, laps=1, witness=gaze)

    trace = report.traces[1]
    seen = resolve(TrainConfig, SEES)
    eye = Camera(seen.observation.camera, (load_track("oval"),), (seen.look,))
    x, y, yaw = (np.ascontiguousarray(trace[name][:40]) for name in ("x", "y", "yaw"))
    zero = np.zeros(40, np.int32)
    frames = eye.render(x, y, yaw, zero, zero)
    assert len(gaze) == 40
    for k in range(40):
        np.testing.assert_array_equal(gaze.picture(k)[:, :, 0], frames[k, :, :, 0])
        command = trace["command_steering"][k + 1]
        assert gaze.spans(k)[0, 1] == pytest.approx(np.degrees(command), abs=1e-4)


def test_watching_changes_nothing(run):
    gaze = Gaze(0, 10, Actions(ContinuousActions()))

    seen, alone = (evaluate(run, trials=2, laps=1, witness=who) for who in (gaze, None))

    assert seen.as_dict() == alone.as_dict()


def test_choices_stand_from_left_to_right_and_slow_before_fast():
    picture = np.full((1, 12, 16, 1), 100, np.uint8)

    gaze = watched(chooser(*np.log([0.1, 0.2, 0.3, 0.4])), picture)

    shares, chosen = gaze.shares(0)
    # 30 left at 0.5 and at 1.5 m/s, straight, 30 right
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.1, 0.3], atol=1e-5)
    assert chosen == 1
    words = [gaze.label(k) for k in gaze.order]
    assert words == [
        "30° left, 0.5 m/s", "30° left, 1.5 m/s", "straight, 1.0 m/s", "30° right, 2.0 m/s"
    ]  # fmt: skip


def test_worths_are_shown_from_the_worst_to_the_best():
    gaze = watched(chooser(-3.0, 1.0, -1.0, 0.0, worths=True), np.zeros((1, 12, 16, 1), np.uint8))

    np.testing.assert_allclose(gaze.shares(0)[0], [1.0, 0.75, 0.0, 0.5], atol=1e-6)


def test_continuous_actions_are_spans_in_degrees_and_metres_a_second(run):
    policy = NumpyPolicy(*with_camera())  # deviations are exp(-1) of half the range
    state = np.zeros((2, policy.description.plan.vectors["state"]), np.float32)
    actions = Actions(ContinuousActions(speed_low=0.5, speed_high=4.0))
    gaze = Gaze(1, 9, actions)

    gaze(policy, {"camera": np.zeros((2, 30, 40, 1), np.uint8), "state": state})

    off = 30 * np.exp(-1)
    np.testing.assert_allclose(gaze.spans(0)[0], [-off, 0, off], atol=1e-4)
    off = 1.75 * np.exp(-1)
    np.testing.assert_allclose(gaze.spans(0)[1], [2 - off, 2, 2 + off], atol=1e-4)
    np.testing.assert_allclose(gaze.ranges, [[-30, 30], [0.5, 4]], atol=1e-5)


def test_what_is_hot_is_painted_and_what_is_cold_is_left():
    picture = np.zeros((1, 12, 16, 1), np.uint8)
    picture[0, 4:8, 8:12] = 250  # one place of the last convolution sees all of it

    gaze = watched(chooser(0.0, 0.0, 0.0, 1.0), picture)

    heat, painted = gaze.heat(0), gaze.painted(0)
    # its middle is (5.5, 9.5), and the middles of the places beside it are 4 pixels away
    assert heat[5, 9] == heat[6, 10] == pytest.approx(0.875**2)
    assert heat[0].max() == 0
    np.testing.assert_array_equal(painted[0], 0)
    # the root of 0.766 is 0.875, of which 0.8 is 0.7: so much of the colour, the rest is there
    np.testing.assert_allclose(painted[5, 9], 0.7 * coloured(0.875**2) + 0.3 * 250, atol=0.51)


def test_a_picture_that_hardly_matters_is_colder():
    gaze = Gaze(0, 9, Actions(LIST))
    for bright in (200, 200, 200, 4):  # two hundredths of the others', a tenth of a fifth
        picture = np.zeros((1, 12, 16, 1), np.uint8)
        picture[0, 4:8, 8:12] = bright
        gaze(chooser(0.0, 0.0, 0.0, 1.0), {"camera": picture})

    assert gaze.heat(0).max() == pytest.approx(1, abs=0.5)
    assert gaze.heat(3).max() == pytest.approx(0.1 * gaze.heat(0).max(), rel=1e-4)


def test_of_a_pair_of_cameras_the_left_picture_is_shown():
    policy = NumpyPolicy(*with_camera())
    gaze = Gaze(0, 1, Actions(LIST))
    gaze._name = "camera"
    pair = np.stack([np.full((3, 4), 7), np.full((3, 4), 9)], axis=2).astype(np.uint8)

    shown = gaze._shown(pair)

    assert policy.names[0] == "camera"
    np.testing.assert_array_equal(shown, np.full((3, 4, 3), 7))


def strip(gaze, trace, track):
    """The lowest part of the film's panel, of one frame."""
    frames = hotlap.film._frames(track, trace, None, 15, "", None, gaze)
    return next(frames)[16 + 170 + 266 :, 720 + 16 : 960 - 16].astype(int)


def trace_of(track, rows=3):
    t = np.arange(rows, dtype=np.float32) / 15
    ones = np.ones(rows, np.float32)
    s = 0.1 * np.arange(rows, dtype=np.float32)
    xy = track.locate(s.astype(float), np.zeros(rows))
    lap = np.zeros(rows, np.int32)
    columns = {"t": t, "s": s, "speed": ones, "steering": 0 * ones, "yaw": 0 * ones, "lap": lap}
    return columns | {"x": xy[:, 0].astype(np.float32), "y": xy[:, 1].astype(np.float32)}


@pytest.mark.parametrize("best", range(4))
def test_the_film_s_orange_bar_is_the_choice(best):
    track = load_track("oval")
    logits = np.zeros(4)
    logits[best] = 1
    gaze = watched(chooser(*logits), np.zeros((1, 12, 16, 1), np.uint8))

    seen = strip(gaze, trace_of(track), track)

    orange = (np.abs(seen - (230, 92, 30)) < 40).all(axis=2)
    columns = np.flatnonzero(orange.any(axis=0))
    # four bars share 208 pixels; from the left: choices 1, 3, 0, 2
    assert columns.min() // 52 == columns.max() // 52 == [1, 3, 0, 2].index(best)
    # its height is its probability: e / (e + 3) of 56 pixels, and the floor
    assert np.ptp(np.flatnonzero(orange.any(axis=1))) == pytest.approx(56 * 0.4754, abs=1)


def test_a_film_with_attention_is_another_file(run):
    plain, looking = film_run(run), film_run(run, attention="hirescam")

    assert (plain.stem, looking.stem) == ("evaluation", "attention")
    assert plain.parent == looking.parent
    assert looking.stat().st_size > 10_000


def test_the_plots_of_a_camera_driver_show_its_attention(run, tmp_path):
    state = saved(tmp_path / "blind", 2.0)

    assert plot_run(run)["attention"].name == "attention.png"
    assert "attention" not in plot_run(state)


def test_the_picture_shows_five_moments_of_the_last_whole_lap(run):
    gaze = Gaze(0, 40, Actions(ContinuousActions()))
    report = evaluate(run, trials=1, laps=1, witness=gaze)
    trace = report.traces[0] | {"lap": (np.arange(len(report.traces[0]["t"])) // 16).astype(int)}

    figure = attention_picture({"a": gaze, "b": gaze}, trace, "sees")

    # rows 0 to 39 are laps of 16: the last whole one is rows 16 to 31
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    moments = [float(title.split(" m")[0]) for title in titles]
    assert len(moments) == 5
    assert moments[0] == pytest.approx(trace["s"][16], abs=0.051)
    assert moments[-1] == pytest.approx(trace["s"][16 + 12], abs=0.051)  # four fifths of 15
    assert [axes.get_ylabel() for axes in figure.axes if axes.images] == [
        *("a", "", "", "", ""),
        *("b", "", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--heat", "hirescam"), "--heat: says how --attention finds what is looked at; give that"),
        (("--attention", "--heat", "jet"), "--heat: choose gradcam or hirescam (got jet)"),
    ],
)
def test_a_wrong_heat_is_one_sentence(run, words, said):
    status, _, error = command("film", run, *words)

    assert status == 2
    assert error.startswith(f"hotlap: {said}")


def test_a_driver_without_a_picture_is_refused(tmp_path):
    path = saved(tmp_path / "blind", 2.0)

    status, out, said = command("film", path, "--attention")

    assert (status, out) == (2, "")
    assert said == (
        f"hotlap: --attention: the driver of {path} sees state and no picture; choose a run whose "
        "observation.actor has one of camera, depth, segmentation\n"
    )
