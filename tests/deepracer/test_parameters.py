"""Each of the Framework's parameters is applied, or refused: none is passed over in silence."""

import json

import pytest

from hotlap.deepracer.files.metadata import Metadata
from hotlap.deepracer.parameters import DEFAULTS, GRID, TRACKS, read_params
from hotlap.errors import ConfigError
from hotlap.plan import read_config
from hotlap.track import load_track
from hotlap.track.collection import save_track

REWARD = "def reward_function(params):\n    return 1.0\n"
GRIDDED = {
    "custom_action_space": True,
    "min_speed": 1,
    "max_speed": 2,
    "min_steering_angle": -20,
    "max_steering_angle": 20,
    "steering_angle_interval": 20,
}


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REWARD)
    actions = [{"steering_angle": 0, "speed": 1.5}, {"steering_angle": 9, "speed": 1}]
    (tmp_path / "meta.json").write_text(json.dumps({"action_space": actions, "version": 5}))
    (tmp_path / "env.toml").write_text('vehicle = "deepracer-v4"\n[rules]\nlaps = 3\n')
    (tmp_path / "presets.json").write_text(json.dumps({"gae_lambda": 0.5, "lr": 1e-4}))
    (tmp_path / "presets.toml").write_text("[algorithm]\nnetwork.cnn = 'small'\nclip = 0.1\n")


def read(tmp_path, **params):
    """Return what a training with these parameters would be, and the job."""
    job = read_params({"job_name": "a", **params})
    folder = job.write(tmp_path / "files")
    return read_config(folder, job.settings).config, job


def setting(config, name):
    for word in name.split("."):
        config = getattr(config, word)
    return config


# parameter, another value, our setting, what it is by default, what it is then
APPLIED = [
    ("instance_pool_count", 3, "train.cars", 32, 96),
    ("job_duration", 90, "train.seconds", 3600, 90),
    ("track_name", "Oval_track", "track", "reinvent_like", "oval"),
    ("racetrack_env", "env.toml", "vehicle", "deepracer", "deepracer-v4"),
    ("presets", "presets.json", "algorithm.lam", 0.95, 0.5),
    ("presets", "presets.toml", "algorithm.clip", 0.2, 0.1),
    ("learning_rate", 1e-3, "algorithm.learning_rate", 3e-4, 1e-3),
    ("batch_size", 256, "algorithm.minibatch", 64, 256),
    ("optimizer_epsilon", 1e-3, "algorithm.adam_epsilon", 1e-5, 1e-3),
    ("optimization_epochs", 3, "algorithm.epochs", 10, 3),
    ("discount_factor", 0.9, "algorithm.gamma", 0.999, 0.9),
    ("beta_entropy", 0.05, "algorithm.entropy", 0.01, 0.05),
    ("evaluation_trials", 2, "evaluation.trials", 5, 2),
]


@pytest.mark.parametrize(("name", "value", "ours", "before", "after"), APPLIED)
def test_a_parameter_changes_the_training(tmp_path, name, value, ours, before, after):
    plain, _ = read(tmp_path)
    changed, job = read(tmp_path, **{name: value})

    assert setting(plain, ours) == before
    assert setting(changed, ours) == after
    assert any(note.startswith(f"{name} = {value}") for note in job.notes)


def test_the_other_parameters_change_the_files_the_threads_and_the_actions(tmp_path):
    _, plain = read(tmp_path)
    _, one = read(tmp_path, instance_type="ml.m5.large")
    _, all_ = read(tmp_path, instance_type="local")
    _, rewarded = read(tmp_path, reward_policy="mine.py")
    acting, _ = read(tmp_path, meta_file="meta.json")

    assert (plain.threads, one.threads, all_.threads) == (8, 2, None)  # a c4.2xlarge has 8
    assert rewarded.files["reward_function.py"] == REWARD != plain.files["reward_function.py"]
    assert acting.actions.list == ((0.0, 1.5), (9.0, 1.0))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("min_speed", 2, {2.0}),
        ("max_speed", 3, {1.0, 2.0, 3.0}),
        ("speed_interval", 0.5, {1.0, 1.5, 2.0}),
        ("min_steering_angle", 0, {0.0, 20.0}),
        ("max_steering_angle", 0, {-20.0, 0.0}),
        ("steering_angle_interval", 10, {-20.0, -10.0, 0.0, 10.0, 20.0}),
        ("custom_action_space", False, {0.4, 0.8}),
    ],
)
def test_each_parameter_of_the_grid_changes_the_actions(tmp_path, name, value, expected):
    params = GRIDDED | {name: value} if name != "custom_action_space" else {name: value}
    before, _ = read(tmp_path, **GRIDDED)

    config, _ = read(tmp_path, **params)

    column = 0 if "steering" in name else 1
    assert {pair[column] for pair in config.actions.list} == expected
    assert {pair[column] for pair in before.actions.list} != expected


def test_every_parameter_is_in_one_of_these_tests():
    tested = {row[0] for row in APPLIED}
    tested |= {"instance_type", "reward_policy", "meta_file", "custom_action_space"}

    assert tested == set(DEFAULTS)
    # deepracer.md 8.1
    assert (DEFAULTS["instance_type"], DEFAULTS["job_duration"]) == ("ml.c4.2xlarge", 3600)
    assert (GRID["speed_interval"], GRID["steering_angle_interval"]) == (1, 5)


def test_the_default_actions_are_the_frameworks_ten(tmp_path):
    config, job = read(tmp_path)

    angles, speeds = (-30, -15, 0, 15, 30), (0.4, 0.8)
    assert set(config.actions.list) == {(a, v) for a in angles for v in speeds}
    assert config.observation.actor == ("camera",)
    assert config.algorithm.network.cnn == "deepracer_shallow"
    job.write(tmp_path / "again")
    assert Metadata.read(tmp_path / "again/model_metadata.json").version == 5


def test_a_file_says_what_no_parameter_says_and_no_more(tmp_path):
    (tmp_path / "env.toml").write_text('track = "oval"\n[train]\nseconds = 7\n')
    quiet, _ = read(tmp_path, racetrack_env="env.toml")
    said, _ = read(
        tmp_path, racetrack_env="env.toml", track_name="AWS_track", presets="presets.json"
    )
    learnt, _ = read(tmp_path, learning_rate=1e-2, presets="presets.json")

    assert quiet.track == "oval"
    assert said.track == TRACKS["AWS_track"]
    assert said.algorithm.learning_rate == 1e-4  # of presets.json
    assert learnt.algorithm.learning_rate == 1e-2


@pytest.mark.parametrize("name", TRACKS)
def test_what_stands_in_for_a_track_is_one_and_is_said(tmp_path, name):
    config, job = read(tmp_path, track_name=name)

    assert load_track(config.track).length > 5
    assert any("stands in" in note and name in note for note in job.notes)


def test_a_users_own_array_comes_before_what_stands_in(tmp_path):
    save_track(load_track("medium"), tmp_path / "Oval_track.npy", "medium")

    config, job = read(tmp_path, track_name="Oval_track")

    assert config.track == str(tmp_path / "Oval_track.npy")
    assert not any("stands in" in note for note in job.notes)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"job_name": None}, "job_name: must be given"),
        ({"job_name": "../up"}, "job_name: must be given"),
        ({"batchsize": 64}, r"batchsize: is no parameter \(did you mean batch_size\?\)"),
        ({"batch_size": "many"}, "batch_size: must be 1 to"),
        ({"batch_size": 0}, "batch_size: must be"),
        ({"learning_rate": 0}, "learning_rate: must be more than 0"),
        ({"discount_factor": 1}, "discount_factor: must be 0 to less than 1"),
        ({"evaluation_trials": 2.5}, "evaluation_trials: must be a whole number"),
        ({"job_duration": -1}, "job_duration: must be 1"),
        ({"instance_type": "laptop"}, "instance_type: must be one of SageMaker's"),
        ({"instance_pool_count": 0}, "instance_pool_count: must be"),
        ({"track_name": "Oval_trak"}, r"track_name: Oval_trak is not known .*Oval_track\?"),
        ({"reward_policy": "none.py"}, "reward_policy: none.py: No such file"),
        ({"meta_file": "none.json"}, "none.json: no such file"),
        ({"racetrack_env": "my_env.py"}, "racetrack_env: must be a .toml of settings"),
        ({"presets": "my_preset.py"}, "presets: must be a .toml .*, or a .json"),
        ({"min_speed": 1}, "min_speed: is of the custom action space"),
        ({"custom_action_space": True, "min_speed": 1}, "also needs max_speed, min_steering_angle"),
        ({**GRIDDED, "max_speed": 0.5}, "min_speed: must not be above max_speed"),
        ({**GRIDDED, "max_speed": 5}, "max_speed: must be 0.1 to 4"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_name(params, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read_params({"job_name": "a", **params})

    assert "\n" not in str(caught.value)


def test_an_unknown_preset_and_a_setting_of_another_algorithm_are_refused(tmp_path):
    (tmp_path / "presets.json").write_text('{"momentum": 0.9}')
    with pytest.raises(ConfigError, match="momentum: is not known"):
        read(tmp_path, presets="presets.json")

    (tmp_path / "presets.toml").write_text('[algorithm]\nkind = "sac"\n')
    assert read(tmp_path, presets="presets.toml")[0].algorithm.kind == "sac"
    with pytest.raises(ConfigError, match="epochs"):  # SAC has none
        read(tmp_path, presets="presets.toml", optimization_epochs=3)
