"""A DeepRacer folder: everything that is read is applied, or said to have no effect."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hotlap.algorithms.settings import SACSettings
from hotlap.deepracer.files.folder import read_folder
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.errors import ConfigError, RewardError, TrackError
from hotlap.plan import read_config
from hotlap.track import load_track
from hotlap.trials import Trials

EXAMPLE = Path(__file__).parents[2] / "examples" / "deepracer"
REWARD = "def reward_function(params):\n    return 1.0\n"


@pytest.fixture
def folder(tmp_path):
    """Write a folder from texts by file name; a reward function comes with it."""

    def write(**files):
        (tmp_path / "reward_function.py").write_text(REWARD)
        for name, content in files.items():
            suffix = ".env" if name == "run" else ".json"
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name}{suffix}").write_text(text)
        return tmp_path

    return write


def note(plan, word):
    found = [text for text in plan.notes if re.search(rf"\b{re.escape(word)}\b", text)]
    assert len(found) == 1, (word, plan.notes)
    return found[0]


def test_a_lone_reward_function_gets_deepracers_defaults(folder):
    path = folder()

    plan = read_folder(path)

    assert plan.settings == {
        "vehicle": "deepracer",
        "actions.kind": "list",
        "actions.list": [[-30, 0.6], [-15, 0.6], [0, 0.6], [15, 0.6], [30, 0.6]],
        "observation.actor": ["camera"],
        "observation.camera.width": 160,
        "observation.camera.height": 120,
        "observation.camera.color": "grey",
        "algorithm.network.cnn": "deepracer_shallow",
        "reward.kind": "file",
        "reward.path": str(path / "reward_function.py"),
        "reward.timing": "deepracer",
        "rules.off_track": "all_wheels",
        "rules.reversed_steps": 15,
        "rules.immobilized_steps": 15,
        "rules.laps": 1,
        "train.cars": 32,
        "train.seconds": 180,
        "rules.time_limit": 666.7,
        "start.kind": "round_robin",
        "start.direction": "forward",
        "start.offset": 0.0,
        "start.advance": 0.05,
    }
    absent = [text.partition(" is absent")[0] for text in plan.notes if " is absent" in text]
    assert absent == ["model_metadata.json", "hyperparameters.json", "run.env"]


def test_the_example_is_read_and_its_reward_is_sound():
    plan = read_folder(EXAMPLE)

    assert plan.settings["track"] == "reinvent_like"
    assert plan.settings["actions.list"][3] == [0.0, 1.6]
    assert len(plan.settings["actions.list"]) == 7
    assert plan.settings["algorithm.minibatch"] == 128
    reward = RewardFile(plan.settings["reward.path"])
    assert reward.check(load_track("reinvent_like")) == []


def test_the_example_prefers_the_middle_the_aim_and_the_speed():
    reward = RewardFile(EXAMPLE / "reward_function.py")
    # a circle of radius 2 around the origin, driven counter-clockwise from (2, 0)
    angles = np.linspace(0, 2 * np.pi, 41)
    good = {
        "waypoints": [(2 * np.cos(a), 2 * np.sin(a)) for a in angles],
        "closest_waypoints": [0, 1],
        "x": 2.0,
        "y": 0.0,
        "heading": 110.0,
        "speed": 1.0,
        "track_width": 0.8,
        "distance_from_center": 0.0,
        "is_offtrack": False,
    }

    best = reward(dict(good))

    assert best > 1
    for worse in (
        {"distance_from_center": 0.3},
        {"heading": 70.0},
        {"speed": 0.8},
        {"is_offtrack": True},
    ):
        assert reward({**good, **worse}) < best


def test_every_hyperparameter_is_applied_or_said(folder):
    plan = read_folder(
        folder(
            hyperparameters={
                "batch_size": "128",
                "lr": 0.001,
                "num_epochs": 3,
                "discount_factor": 0.9,
                "beta_entropy": 0.02,
                "loss_type": "mean squared error",
                "term_cond_max_episodes": 500.0,
                "exploration_type": "e-greedy",
                "num_episodes_between_training": 20,
                "term_cond_avg_score": "900",
                "stack_size": 1,
                "e_greedy_value": 0.05,
                "my_own": 1,
            }
        )
    )

    expected = {
        "algorithm.minibatch": 128,
        "algorithm.learning_rate": 0.001,
        "algorithm.schedule": "constant",
        "algorithm.epochs": 3,
        "algorithm.gamma": 0.9,
        "algorithm.entropy": 0.02,
        "algorithm.value_loss": "mse",
        "train.episodes": 500,
        "train.target_reward": 900,
        "algorithm.episodes": 20,
        "algorithm.epsilon_start": 1,
        "algorithm.epsilon_end": 0.05,
        "algorithm.epsilon_steps": 10_000,  # what DeepRacer assumes
    }
    assert {k: v for k, v in plan.settings.items() if k in expected} == expected
    assert 'algorithm.schedule = "constant"' in note(plan, "lr")
    assert "algorithm.epsilon_end = 0.05" in note(plan, "e-greedy")
    for key in ("stack_size", "my_own"):
        assert "has no effect" in note(plan, key)


def test_without_e_greedy_its_numbers_have_no_effect(folder):
    numbers = {"exploration_type": "Categorical", "e_greedy_value": 0.1, "epsilon_steps": 100}
    ranges = {"steering_angle": {"low": -20, "high": 35}, "speed": {"low": 1, "high": 2}}

    plan = read_folder(folder(hyperparameters=numbers))
    wide = read_folder(
        folder(
            hyperparameters=numbers | {"exploration_type": "e-greedy"},
            model_metadata={"action_space": ranges, "action_space_type": "continuous"},
        )
    )

    for found in (plan, wide):
        assert not [name for name in found.settings if "epsilon" in name]
        for word in ("e_greedy_value", "epsilon_steps"):
            assert "has no effect" in note(found, word)
    assert "action_space has ranges" in note(wide, "exploration_type")


def test_the_template_s_average_score_ends_no_training(folder):
    plan = read_folder(folder(hyperparameters={"term_cond_avg_score": 350.0}))

    assert "train.target_reward" not in plan.settings
    assert "DeepRacer never acts on it" in note(plan, "term_cond_avg_score")


@pytest.mark.parametrize(
    ("loss", "ours"),
    [
        ("mean squared error", "mse"),
        ("mean_squared_error", "mse"),
        ("huber", "huber"),
        ("Huber", "huber"),
    ],
)
def test_both_spellings_of_the_loss(folder, loss, ours):
    plan = read_folder(folder(hyperparameters={"loss_type": loss}))

    assert plan.settings["algorithm.value_loss"] == ours


RUN = """
# a comment with "one quote
export DR_WORLD_NAME="oval"   # the track
DR_RACE_TYPE='TIME_TRIAL'

DR_TRAIN_CHANGE_START_POSITION=False
DR_TRAIN_START_POSITION_OFFSET=0.25
ROUND_ROBIN_ADVANCE_DIST=0.1
DR_TRAIN_ALTERNATE_DRIVING_DIRECTION=true
DR_TRAIN_MIN_EVAL_TRIALS=7
DR_TRAIN_BEST_MODEL_METRIC=laptime
DR_WORKERS=3
DR_TRAIN_RTF=
DR_LOCAL_S3_MODEL_METADATA_KEY=$DR_LOCAL_S3_CUSTOM_FILES_PREFIX/model_metadata.json
DR_OA_OBJECT_POSITIONS="0.23,-1;0.46,1"
DR_EVAL_NUMBER_OF_TRIALS=3
DR_CAR_COLOR=#ff0000
DR_SOMETHING=x
"""


def test_every_line_of_run_env_is_applied_or_said(folder):
    plan = read_folder(folder(run=RUN))

    expected = {
        "track": "oval",
        "start.kind": "line",
        "start.direction": "alternate",
        "start.offset": 0.25,
        "start.advance": 0.1,
        "evaluation.trials": 7,
        "evaluation.best_by": "lap_time",
    }
    assert {k: v for k, v in plan.settings.items() if k in expected} == expected
    for word in re.findall(r"^(?:export )?(\w+)=", RUN, re.MULTILINE):
        assert note(plan, word)
    for word, why in {
        "DR_WORKERS": "log.workers",
        "DR_TRAIN_RTF": "no effect: empty",
        "DR_LOCAL_S3_MODEL_METADATA_KEY": "no effect: that file is not in this folder",
        "DR_OA_OBJECT_POSITIONS": "0.23,-1;0.46,1 has no effect: the race is TIME_TRIAL",
        "DR_EVAL_NUMBER_OF_TRIALS": "hotlap evaluate RUN --trials N",
        "DR_CAR_COLOR": "it only changes what is displayed",
        "DR_SOMETHING": "it is not known",
    }.items():
        assert why in note(plan, word)


@pytest.mark.parametrize(
    ("line", "direction"),
    [
        ("DR_TRAIN_REVERSE_DIRECTION=True", "reversed"),
        ("REVERSE_DIR=True", "reversed"),
        ("DR_TRAIN_REVERSE_DIRECTION=False", "forward"),
    ],
)
def test_the_direction(folder, line, direction):
    assert read_folder(folder(run=line)).settings["start.direction"] == direction


def test_ranges_and_a_deeper_network(folder):
    ranges = {"steering_angle": {"low": -20, "high": 35}, "speed": {"low": 1, "high": 2}}
    plan = read_folder(
        folder(
            model_metadata={
                "action_space": ranges,
                "action_space_type": "continuous",
                "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_DEEP",
                "sensor": ["STEREO_CAMERAS", "SECTOR_LIDAR"],
                "training_algorithm": "sac",
                "version": "3",
                "comment": "",
            }
        )
    )

    assert {k: v for k, v in plan.settings.items() if k.startswith(("actions", "algorithm"))} == {
        "actions.kind": "continuous",
        "actions.steering_low_deg": -20,
        "actions.steering_high_deg": 35,
        "actions.speed_low": 1,
        "actions.speed_high": 2,
        "algorithm.network.cnn": "deepracer_stereo",
        "algorithm.network.joint": [256, 128, 256],  # two after all inputs, one in SAC's head
        "algorithm.network.beside": [256, 256],
        "algorithm.kind": "sac",
        "algorithm.capacity": 50_000,  # 160x120 bytes each: 1 GB
        "algorithm.update_ratio": 0.125,
    }
    assert plan.settings["observation.camera.stereo_baseline"] == 0.06
    assert "a pair of grey cameras" in note(plan, "STEREO_CAMERAS")
    assert "training_algorithm = sac: SAC;" in note(plan, "sac")
    for word in ("version = 3", "comment"):
        assert "has no effect" in note(plan, word)
    assert any("obeys -30 to 30 degrees" in text for text in plan.notes)


def test_a_folder_that_asks_for_sac_trains_by_sac_with_its_own_hyperparameters(folder):
    numbers = {"lr": 0.0005, "batch_size": 32, "sac_alpha": 0.3, "num_epochs": 5}
    choices = [{"steering_angle": angle, "speed": 1} for angle in (-20, 0, 20)]
    place = folder(
        model_metadata={"action_space": choices, "training_algorithm": "SAC"},
        hyperparameters=numbers | {"discount_factor": 0.98, "loss_type": "huber"},
    )

    plan = read_folder(place)

    algorithm = read_config(place).config.algorithm
    assert isinstance(algorithm, SACSettings)
    assert (algorithm.learning_rate, algorithm.critic_learning_rate) == (0.0005, 0.0005)
    assert (algorithm.minibatch, algorithm.gamma, algorithm.temperature) == (32, 0.98, 0.3)
    assert algorithm.network.cnn == "deepracer_shallow"
    assert "among choices, which DeepRacer cannot" in note(plan, "sac")
    for word in ("num_epochs", "loss_type"):
        assert "has no effect: it is of PPO" in note(plan, word)


def test_sac_s_hyperparameter_has_no_effect_on_ppo(folder):
    plan = read_folder(folder(hyperparameters={"sac_alpha": 0.2}))

    assert "it is of SAC, and training_algorithm asks for PPO" in note(plan, "sac_alpha")
    assert "algorithm.temperature" not in plan.settings


def test_a_lidar_is_what_the_driver_sees_beside_its_camera(folder):
    config = {"num_sectors": 4, "num_values_per_sector": 5, "clipping_dist": 3}
    data = {
        "action_space": [{"steering_angle": 0, "speed": 1}],
        "sensor": ["FRONT_FACING_CAMERA", "DISCRETIZED_SECTOR_LIDAR"],
        "lidar_config": config,
    }

    one_hot = read_folder(folder(model_metadata=data)).settings
    data["sensor"] = ["FRONT_FACING_CAMERA", "SECTOR_LIDAR"]
    binary = read_folder(folder(model_metadata=data))

    assert {k: v for k, v in one_hot.items() if "lidar" in k} == {
        "observation.lidar.kind": "deepracer_discretized",
        "observation.lidar.sectors": 4,
        "observation.lidar.steps": 5,
        "observation.lidar.clip": 3,
    }
    assert one_hot["observation.actor"] == ["camera", "lidar"]
    assert binary.settings["observation.lidar.kind"] == "deepracer_sectors"
    assert "has no effect" in note(binary, "lidar_config")


def test_files_may_lie_in_custom_files(folder, tmp_path):
    path = folder(model_metadata={"action_space": [{"steering_angle": 0, "speed": 1}]})
    (path / "custom_files").mkdir()
    for name in ("reward_function.py", "model_metadata.json"):
        (path / name).rename(path / "custom_files" / name)

    plan = read_folder(path)

    assert plan.settings["reward.path"] == str(tmp_path / "custom_files" / "reward_function.py")
    assert plan.settings["actions.list"] == [[0, 1]]


@pytest.mark.parametrize("place", [".", "tracks"])
def test_a_world_beside_the_files_is_used(folder, place):
    path = folder(run="DR_WORLD_NAME=my_town")
    (path / place).mkdir(exist_ok=True)
    np.save(path / place / "my_town.npy", load_track("oval").waypoints)

    track = load_track(read_folder(path).settings["track"])

    assert track.name == "my_town"


def test_an_unknown_world_says_how_to_add_it(folder):
    with pytest.raises(
        TrackError, match=r"run.env:1: DR_WORLD_NAME: unknown track 'nowhere'.*put nowhere.npy into"
    ):
        read_folder(folder(run="DR_WORLD_NAME=nowhere"))


def test_a_track_asked_for_elsewhere_wins(folder):
    plan = read_folder(folder(run="DR_WORLD_NAME=nowhere"), track="oval")

    assert plan.settings["track"] == "oval"
    assert "has no effect: the track oval was asked for" in note(plan, "DR_WORLD_NAME")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"run": "DR_RACE_TYPE=HEAD_TO_MODEL"},
            "run.env:1: DR_RACE_TYPE: HEAD_TO_MODEL is no race to train for",
        ),
        (
            {"run": "DR_RACE_TYPE=HEAD_TO_MODEL"},
            "HEAD_TO_MODEL is no race to train for; two drivers race",
        ),
        ({"run": "A=1\nDR_WORLD_NAME = oval"}, "run.env:2: must be KEY=VALUE"),
        ({"run": 'A="b'}, "run.env:1: must be KEY=VALUE"),
        ({"run": "A=b c"}, "run.env:1: must be KEY=VALUE"),
        ({"run": "DR_TRAIN_MIN_EVAL_TRIALS=many"}, "DR_TRAIN_MIN_EVAL_TRIALS: must be 1 to"),
        ({"run": "DR_TRAIN_MIN_EVAL_TRIALS=1.5"}, "must be a whole number"),
        ({"run": "DR_TRAIN_BEST_MODEL_METRIC=speed"}, "choose from progress, reward, laptime"),
        ({"run": "DR_TRAIN_REVERSE_DIRECTION=maybe"}, "must be True or False"),
        ({"run": "DR_TRAIN_START_POSITION_OFFSET=1"}, "OFFSET: must be 0 to less than 1 (got"),
        ({"hyperparameters": "{"}, "hyperparameters.json:1: not valid JSON"),
        (
            {"hyperparameters": {"lr": 0}},
            "hyperparameters.json:1: lr: must be more than 0 to 1 (got 0)",
        ),
        ({"hyperparameters": {"lr": None}}, "lr: must be more than 0 to 1 (got null)"),
        ({"hyperparameters": {"batch_size": 0}}, "batch_size: must be 1 to"),
        ({"hyperparameters": {"discount_factor": 1}}, "discount_factor: must be 0 to less than 1"),
        ({"hyperparameters": {"loss_type": "l1"}}, "loss_type: choose from mean squared error"),
        (
            {"hyperparameters": {"exploration_type": "none"}},
            "exploration_type: choose from categor",
        ),
        ({"model_metadata": {}}, "model_metadata.json: action_space: is missing"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(folder, files, said):
    with pytest.raises(ConfigError) as caught:
        read_folder(folder(**files))

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_reward_function(tmp_path):
    with pytest.raises(RewardError, match=r"has no reward_function.py, nor has its custom_files/"):
        read_folder(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("word", "ours"), [("progress", "progress"), ("Reward", "reward"), ("laptime", "lap_time")]
)
def test_a_folder_says_what_makes_a_driver_the_best(word, ours, folder):
    place = folder(run=f"DR_WORLD_NAME=oval\nDR_TRAIN_BEST_MODEL_METRIC={word}\n")
    evaluation = read_config(place).config.evaluation
    slow = SimpleNamespace(trials=2, completion=1, progress=1, mean_lap_s=20.0, mean_reward=50.0)
    fast = SimpleNamespace(trials=2, completion=1, progress=1, mean_lap_s=10.0, mean_reward=20.0)
    half = SimpleNamespace(trials=2, completion=0, progress=0.5, mean_lap_s=None, mean_reward=90.0)
    judge = Trials.__new__(Trials)
    judge._settings = evaluation

    scores = {name: judge._score(one) for name, one in
              {"slow": slow, "fast": fast, "half": half}.items()}  # fmt: skip

    assert evaluation.best_by == ours
    best = max(scores, key=lambda name: scores[name])
    assert best in {"progress": {"slow", "fast"}, "reward": {"half"}, "lap_time": {"fast"}}[ours]
    assert (scores["slow"] == scores["fast"]) == (ours == "progress")
