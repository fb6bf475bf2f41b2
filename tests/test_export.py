"""A driver in another program's file answers as it does here."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

import hotlap
from drivers import saved
from hotlap.cli import main
from hotlap.errors import ConfigError, RunError
from hotlap.export import export
from random_drivers import CAR, FIVE, LIDAR, STEREO, frames, random_run

SMALL = {"observation.camera.width": 64, "observation.camera.height": 48}
CASES = {
    "a LIDAR with layers of its own": {
        **LIDAR, "algorithm.network.cnn": "small", "algorithm.network.beside": [9, 7],
    },
    "state": {},
    "choices": FIVE,
    "camera": {"observation.actor": ["camera"], **SMALL, **FIVE},
    "colour and numbers": {
        "observation.actor": ["camera", "state"], "observation.camera.color": "rgb", **SMALL,
    },
    "shallow": {**CAR, **FIVE},
    "deep": {**CAR, "algorithm.network.cnn": "deepracer_deep"},
    "stereo": {**STEREO, **FIVE},
    "lidar": LIDAR,
    "padded and pooled": {
        "observation.actor": ["camera"], "algorithm.network.cnn": "airsim", **SMALL,
    },
    "remembers": {"algorithm.network.memory": 5},
    "remembers by cells": {
        **FIVE,
        "algorithm.network.memory": 4,
        "algorithm.network.memory_cell": "lstm",
        "algorithm.network.previous_action": True,
    },
    "remembers its choice": {
        **FIVE, "algorithm.network.memory": 4, "algorithm.network.previous_action": True,
    },
    "sees its action": {"algorithm.network.previous_action": True},
}  # fmt: skip
WAYS = {
    "tangent": ({}, {"squash": "mean"}, None),
    "half of them deviations": ({}, {"squash": "sample"}, 4),
    "logits of worth": (FIVE, {"atoms": (-2.0, 3.0, 7), "worths": True}, 35),
    "normalised layers": ({}, {"plan": {"layer_norm": True, "activation": "relu"}}, None),
}


def ask(file, seen):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    given = {name: value for name, value in seen.items() if name in wanted}
    return dict(zip(names, session.run(None, given), strict=True))


def commanded(run, action):
    """Return steering [rad] and speed [m/s] as the task reads an action, by its own formula."""
    settings = hotlap.evaluate.__globals__["env_settings"](hotlap.Run.open(run))
    if np.ndim(action) == 1:
        table = np.array(settings.actions.list)
        return np.stack([np.radians(table[action, 0]), table[action, 1]], axis=1)
    # default ranges: 30 degrees to either side, 0.5 to 4 m/s
    return np.stack([np.radians(30) * action[:, 0], 2.25 + 1.75 * action[:, 1]], axis=1)


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_drives_as_the_driver_does(tmp_path, name):
    run = random_run(tmp_path / name, CASES[name])
    policy = hotlap.load_policy(run)

    file = export(run, "onnx", out=tmp_path / "driver.onnx")

    memory = np.zeros((6, policy.memory), np.float32)
    for step in range(3):  # what it remembers of the first decides the others
        seen = {k: np.roll(v, step, axis=0) for k, v in frames(run).items()}
        expected = policy.act(seen)
        found = ask(file, {**seen, "memory": memory})
        np.testing.assert_allclose(found["action"], expected, atol=1e-5)
        np.testing.assert_allclose(found["command"], commanded(run, expected), atol=2e-5)
        memory = found.get("memory_next", memory)


@pytest.mark.parametrize("name", WAYS)
def test_every_kind_of_answer_becomes_an_action(tmp_path, name):
    settings, extra, outputs = WAYS[name]
    run = random_run(tmp_path / name, settings, extra=extra, outputs=outputs)
    seen = frames(run, rows=40)

    file = export(run, "onnx", out=tmp_path / "driver.onnx")

    expected = hotlap.load_policy(run).act(seen)
    assert len(np.unique(np.round(expected, 3))) > 2  # a constant would be easy
    np.testing.assert_allclose(ask(file, seen)["action"], expected, atol=1e-5)


def test_a_file_takes_any_number_of_rows(tmp_path):
    run = random_run(tmp_path / "run", {})
    file = export(run, "onnx", out=tmp_path / "driver.onnx")

    one = ask(file, {k: v[:1] for k, v in frames(run).items()})["action"]
    all_ = ask(file, frames(run))["action"]

    assert one.shape == (1, 2)
    np.testing.assert_allclose(one[0], all_[0], atol=1e-6)


def test_the_same_driver_is_the_same_file(tmp_path):
    run = random_run(tmp_path / "run", {**CAR, **FIVE})

    files = [export(run, to, out=tmp_path / f"{i}{end}") for i in "ab"
             for to, end in (("onnx", ".onnx"), ("deepracer", ".tar.gz"))]  # fmt: skip

    assert files[0].read_bytes() == files[2].read_bytes()
    assert files[1].read_bytes() == files[3].read_bytes()


MISFITS = {
    "state": ({}, {}, "sees state"),
    "no camera": ({"observation.actor": ["lidar"]}, {}, "sees lidar"),
    "two kinds": ({**CAR, "observation.actor": ["camera", "imu"]}, {}, "sees camera, imu"),
    "small": ({**CAR, **SMALL}, {}, "images of 64x48"),
    "colour": ({**CAR, "observation.camera.color": "rgb"}, {}, "sees rgb images"),
    "another LIDAR": (
        {**LIDAR, "observation.lidar.kind": "deepracer_discretized"}, {}, "deepracer_discretized",
    ),
    "fewer beams": ({**LIDAR, "observation.lidar.beams": 32}, {}, "with 32 numbers"),
    "further": ({**LIDAR, "observation.lidar.clip": 2.0}, {}, "64 numbers up to 2 m"),
    "memory": ({**CAR, "algorithm.network.memory": 4}, {}, "has a memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_the_car_cannot_feed_is_refused_in_a_sentence(tmp_path, name):
    settings, extra, said = MISFITS[name]
    run = random_run(tmp_path / "run", settings, extra=extra)

    with pytest.raises(ConfigError, match=said) as error:
        export(run, "deepracer", out=tmp_path / "model.tar.gz")

    assert "train with" in str(error.value) or "--to onnx" in str(error.value)
    assert not (tmp_path / "model.tar.gz").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "tensorrt"], "--to: choose from onnx, tflite, deepracer (got tensorrt)"),
        (["--to", "onnx", "--out", "a.pb"], "--out: end its name in .onnx (got a.pb)"),
        (["--to", "onnx", "--out", "no/a.onnx"], "--out: no is no folder; make it first"),
        (["--to", "onnx", "--checkpoint", "first"], "--checkpoint: choose from best, last"),
        (["--to", "onnx", "--python", "python3"], "only --to tflite needs TensorFlow"),
        (["--to", "tflite"], "Install it with: pip install 'hotlap[tensorflow]'"),
        (["--to", "tflite", "--python", "no/python"], "no/python cannot be run"),
        (["--to", "tflite", "--python", sys.executable], "has no TensorFlow; install it there"),
        (["--to", "deepracer"], "sees state, and the car has one grey camera"),
    ],
)
def test_a_wrong_word_is_answered_with_a_sentence(tmp_path, monkeypatch, capsys, words, said):
    run = saved(tmp_path / "run", 2.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hotlap", "export", str(run), *words])

    with pytest.raises(SystemExit) as stop:
        main()

    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_the_file_has_the_name_of_the_run_where_one_works(tmp_path, monkeypatch):
    run = saved(tmp_path / "quick", 2.0)
    monkeypatch.chdir(tmp_path)

    file = export(run, "onnx")

    assert str(file) == "quick.onnx"
    assert (tmp_path / "quick.onnx").is_file()


def test_a_missing_checkpoint_is_said(tmp_path):
    run = tmp_path / "run"
    with hotlap.Run.create(run, 'track = "oval"\n', {"seed": 0}):
        pass

    with pytest.raises(RunError, match="has no checkpoint yet"):
        export(run, "onnx", out=tmp_path / "a.onnx")


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    run = saved(tmp_path / "run", 2.0)
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(ImportError, match=r"pip install 'hotlap\[export\]'"):
        export(run, "onnx", out=tmp_path / "a.onnx")


def test_exporting_needs_no_torch(tmp_path):
    run = random_run(tmp_path / "run", {**CAR, **FIVE})
    code = (
        "import json, sys; from hotlap.export import export;"
        f"[export({str(run)!r}, to, out={str(tmp_path)!r} + '/m' + end) for to, end in "
        "(('onnx', '.onnx'), ('deepracer', '.tar.gz'))];"
        "print(json.dumps([m for m in ('torch', 'tensorflow') if m in sys.modules]))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert json.loads(done.stdout) == [], done.stderr
