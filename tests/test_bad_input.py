"""Whatever is wrong, there is one clear sentence, the right exit status, and nothing is harmed."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hotlap.cli import main
from hotlap.config import overrides
from hotlap.track import load_track

REWARD = "def reward_function(params):\n    return 1.0\n"
SHORT = ["train.seconds=0", "train.steps=64", "train.cars=4", "algorithm.network.mlp=[4]"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HOTLAP_DEBUG", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def hotlap(monkeypatch, capsys):
    """Run a whole command in this process; return status, output and what was said."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hotlap", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def refused(result, *fragments):
    status, out, err = result
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert "internal error" not in err
    said = err.splitlines()[-1]
    for fragment in fragments:
        assert fragment in said
    assert not Path("runs").exists()  # no Run was begun


def waypoints():
    return load_track("oval").waypoints.copy()


def truncated(path):
    np.save(path, waypoints())
    path.write_bytes(path.read_bytes()[:700])


def nan_filled(path):
    rows = waypoints()
    rows[7, 3] = np.nan
    np.save(path, rows)


def self_crossing(path):
    t = np.linspace(0, 2 * np.pi, 80)
    x, y = 4 * np.sin(t), 2 * np.sin(2 * t)
    np.save(path, np.stack([x, y, x, y - 0.3, x, y + 0.3], axis=1))


TRACKS = {
    "missing": (lambda path: None, "own.npy"),
    "empty": (lambda path: path.write_bytes(b""), "own.npy"),
    "truncated": (truncated, "own.npy"),
    "text": (lambda path: path.write_text("not an array"), "own.npy"),
    "NaN-filled": (nan_filled, "row 7"),
    "self-crossing": (self_crossing, "cross"),
    "wrong shape": (lambda path: np.save(path, np.zeros((30, 4))), "6"),
    "three rows": (lambda path: np.save(path, waypoints()[:3]), "3"),
    "words": (lambda path: np.save(path, np.full((30, 6), "x")), "own.npy"),
    "objects": (lambda path: np.save(path, np.full((30, 6), None), allow_pickle=True), "own.npy"),
    "zeros": (lambda path: np.save(path, np.zeros((30, 6))), "own.npy"),
    "folder": (lambda path: path.mkdir(), "own.npy"),
}


@pytest.mark.parametrize("kind", TRACKS)
@pytest.mark.parametrize("verb", [("train", "--track"), ("tracks", "show"), ("tracks", "add")])
def test_a_wrong_track_array_is_refused(kind, verb, hotlap, tmp_path):
    write, fragment = TRACKS[kind]
    write(tmp_path / "own.npy")
    if (kind, verb[1]) == ("folder", "add"):
        pytest.skip("a folder of tracks may be added")

    refused(hotlap(*verb, tmp_path / "own.npy"), "own.npy", fragment)


SETTINGS = {
    "trak=oval": ("trak", "did you mean track?"),
    "algorithm.learning_rte=1": ("algorithm.learning_rte", "did you mean learning_rate?"),
    "algorithm.clip=2": ("algorithm.clip", "less than 1"),
    "algorithm.kind=pppo": ("algorithm.kind", "ppo"),
    "observation.actor=['sonar']": ("observation.actor", "'state', 'camera', 'lidar'", "sonar"),
    "observation.actor=[]": ("observation.actor", "at least 1"),
    "actions=wheel": ("actions.kind", "choose from", "wheel"),
    "actions.speed_high=-1": ("actions", "speed_high"),
    "actions.steering_low_deg=nan": ("actions.steering_low_deg",),
    "reward=fastest": ("reward.kind", "choose from", "fastest"),
    "reward=no_such.py": ("no_such.py", "no such file"),
    "reward=no_such:thing": ("no_such",),
    "vehicle=deepracr": ("vehicle", "choose from deepracer"),
    "track=generated:seed=4,width=1": ("unknown track 'width=1'", "generated:seed=1:width=1"),
    "track=ovall": ("unknown track 'ovall'", "did you mean oval"),
    "track=": ("track",),
    "seed=-1": ("seed", "0"),
    "train.cars=0": ("train.cars", "greater than 0"),
    "train.cars=many": ("train.cars", "many"),
    "train.device=foo": ("train.device", "'auto', 'cpu' or 'cuda'"),
    "algorithm.network.memory=8 algorithm.horizon=1": ("algorithm", "horizon: of a single step"),
    "algorithm=rdpg algorithm.sequence=1 algorithm.burn_in=0": ("algorithm", "of a single step"),
    "actions=grid algorithm=dqn algorithm.dueling=true algorithm.network.mlp=[]": (
        "algorithm.dueling",
        "network.mlp",
    ),
    "rules.margin=1": ("rules.margin", "less than 1"),
    "evaluation.laps=0": ("evaluation.laps", "greater than 0"),
    "rules.time_limit=0": ("rules.time_limit", "greater than 0"),
    "observation.camera.width=2 observation.actor=['camera']": ("width",),
    "confgs/state.toml": ("confgs/state.toml", "no such file", "did you mean configs/state.toml?"),
    "configs/state.toml examples": ("one configuration file", "configs/state.toml"),
}


@pytest.mark.parametrize("words", SETTINGS)
def test_a_wrong_setting_is_refused(words, hotlap):
    Path("configs").mkdir()
    Path("configs/state.toml").write_text("track = 'oval'")

    refused(hotlap("train", *words.split()), *SETTINGS[words])


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("track = oval", "not valid TOML"),
        ("[train]\nsecnds = 3", "did you mean seconds?"),
        ("train = 3", "train"),
        ("\xff", "config.toml"),
    ],
)
def test_a_wrong_configuration_file_is_refused(text, fragment, hotlap):
    Path("config.toml").write_bytes(text.encode("latin-1"))

    refused(hotlap("train", "config.toml"), fragment)


METADATA = {"action_space": [{"steering_angle": 0, "speed": 1}], "sensor": ["FRONT_FACING_CAMERA"]}
FILES = {
    "broken JSON": ("model_metadata.json", "{'a': 1", "model_metadata.json"),
    "not an object": ("model_metadata.json", "[1]", "model_metadata.json"),
    "unknown sensor": (
        "model_metadata.json",
        json.dumps(METADATA | {"sensor": ["SONAR"]}),
        "SONAR",
    ),
    "no actions": ("model_metadata.json", json.dumps(METADATA | {"action_space": []}), "action"),
    "impossible action": (
        "model_metadata.json",
        json.dumps(METADATA | {"action_space": [{"steering_angle": "left", "speed": 1}]}),
        "steering_angle",
    ),
    "a range upside down": (
        "model_metadata.json",
        json.dumps(
            METADATA
            | {
                "action_space_type": "continuous",
                "action_space": {
                    "steering_angle": {"low": 30, "high": -30},
                    "speed": {"low": 1, "high": 2},
                },
            }
        ),
        "steering_angle",
    ),
    "broken hyperparameters": ("hyperparameters.json", "{", "hyperparameters.json"),
    "impossible discount": ("hyperparameters.json", '{"discount_factor": 2}', "discount_factor"),
    "unknown world": ("run.env", "DR_WORLD_NAME=atlantis", "atlantis"),
    "no reward file": ("reward_function.py", None, "reward_function.py"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_wrong_deepracer_folder_is_refused(kind, hotlap):
    name, text, fragment = FILES[kind]
    Path("racer").mkdir()
    Path("racer/reward_function.py").write_text(REWARD)
    if text is None:
        Path("racer", name).unlink()
    else:
        Path("racer", name).write_text(text)

    refused(hotlap("train", "racer"), name, fragment)


REWARDS = {
    "missing function": ("def reward(params):\n    return 1.0\n", 1, "reward_function"),
    "wrong arity": ("\ndef reward_function(a, b):\n    return 1.0\n", 2, "2 parameters"),
    "exception": ("def reward_function(params):\n    return params['spede']\n", 2, "'speed'"),
    "NaN": ("def reward_function(params):\n    return float('nan')\n", 1, "finite"),
    "non-float": ("def reward_function(params):\n    return 'fast'\n", 1, "one number"),
    "None": ("def reward_function(params):\n    pass\n", 1, "lacks `return`"),
    "out of range": ("def reward_function(params):\n    return 1e9\n", 1, "100000"),
    "syntax": ("def reward_function(params)\n    return 1.0\n", 1, "not valid Python"),
    "import": ("\n\nimport no_such_package\n", 3, "no_such_package"),
    "exit": ("import sys\nsys.exit(0)\n", 2, "SystemExit"),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_wrong_reward_file_is_refused_by_file_and_line(kind, hotlap):
    text, line, fragment = REWARDS[kind]
    Path("mine.py").write_text(text)

    result = hotlap("train", "reward=mine.py")

    refused(result, f"mine.py:{line}", fragment)


def test_a_reward_that_fails_in_mid_run_fails_the_run(hotlap):
    # The check calls a copy of its own some 400 times; each iteration is 4 x 16 = 64 calls.
    Path("mine.py").write_text(
        "calls = 0\n"
        "def reward_function(params):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls > 900:\n"
        "        raise ValueError('tired')\n"
        "    return 1.0\n"
    )

    status, out, err = hotlap("train", "reward=mine.py", "-q", *SHORT, "train.steps=6400")

    assert status == 1
    assert out == ""
    first, second = err.splitlines()
    assert f"{Path('mine.py').absolute()}:6" in first
    assert "ValueError: tired" in first
    assert second.startswith("hotlap: Continue from its checkpoint of ")
    assert second.endswith("hotlap train --resume runs/reinvent_like-ppo-1")
    assert list(Path("runs/reinvent_like-ppo-1/checkpoints").glob("*/policy.safetensors"))


@pytest.fixture
def run(monkeypatch):
    module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_outcome", lambda run: {})
        return module.train(None, overrides(["track=oval", *SHORT]), out="run").path


def test_a_run_that_is_not_one_is_refused(hotlap):
    Path("folder").mkdir()
    Path("file").write_text("")
    for verb in (["evaluate"], ["film"], ["plot"], ["train", "--resume"], ["train", "--from"]):
        refused(hotlap(*verb, "nowhere"), "nowhere", "no such directory")
        refused(hotlap(*verb, "folder"), "folder is not a Run")
        refused(hotlap(*verb, "file"), "file is a file")


def test_a_run_that_is_damaged_is_refused(run, hotlap):
    newest = max((run / "checkpoints").glob("0*"))
    weights = (newest / "policy.safetensors").read_bytes()
    (newest / "policy.safetensors").write_bytes(weights[:100])
    refused(hotlap("evaluate", run), "is damaged")
    (newest / "policy.safetensors").write_bytes(weights)

    (run / "meta.json").write_text("{")
    refused(hotlap("evaluate", run), "meta.json", "damaged")
    refused(hotlap("train", "--resume", run, "train.steps=128"), "meta.json", "damaged")


def test_a_run_in_the_place_of_a_configuration_says_which_option_is_meant(run, hotlap):
    refused(hotlap("train", run), "--resume run", "--from run")


def test_a_directory_that_holds_something_is_not_written(run, hotlap):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    refused(hotlap("train", "track=oval", "--out", run, *SHORT), "run is not empty", "--out")

    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_driver_of_which_no_layer_fits_says_so(run, hotlap):
    smaller = ("algorithm.network.mlp=[8]", "actions=grid", "observation.state.lookahead=[0.5]")
    critic = ("observation.critic=state", "algorithm=pqn")

    result = hotlap("train", "track=oval", *critic, *smaller, "--from", run, "-q", *SHORT)

    refused(result, "--from run: none of its layers fits here", "algorithm.teacher=run")


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        ("camera.conv*", "'camera.conv*' matches no weight of the network; there are hidden0"),
        ("*", "'*' would freeze all of the actor"),
        ("hidden0,head,log_std", "would freeze all of the actor"),
    ],
)
def test_freezing_what_is_not_there_or_everything_is_refused(freeze, said, hotlap):
    result = hotlap("train", "track=oval", f"algorithm.freeze={freeze}", "-q", *SHORT)

    refused(result, "algorithm.freeze:", said)


def test_a_replay_that_cannot_hold_its_sequences_is_refused_before_anything_is_driven(hotlap):
    small = ("algorithm=rdpg", "algorithm.capacity=100", "algorithm.burn_in=8", "train.cars=4")

    result = hotlap("train", "track=oval", *small, "algorithm.sequence=16", "-q", "train.steps=64")

    # (8 + 16 + 2) steps of 4 cars
    refused(result, "algorithm.capacity: ", "need 104 transitions (got 100)")
