"""Variables: every file that has some is read, the nearer one wins, and every name is answered."""

import json

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.deepracer.files.documents import Document
from hotlap.deepracer.files.environment import plain_name, read_environment
from hotlap.deepracer.files.findings import Findings
from hotlap.deepracer.files.folder import read_folder
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig
from hotlap.track import load_track

# deepracer-for-cloud's prepare-config.py writes all values in quotes, below a line of dashes.
YAML = """---
'ALTERNATE_DRIVING_DIRECTION': 'true'
'AWS_REGION': 'us-east-1'
'BODY_SHELL_TYPE': 'deepracer'
'CAR_COLOR': 'Red'
'CHANGE_START_POSITION': 'true'
'DISPLAY_NAME': 'racer1'
'ENABLE_DOMAIN_RANDOMIZATION': 'false'
'JOB_TYPE': 'TRAINING'
'KINESIS_VIDEO_STREAM_NAME': 'my-kinesis-stream'
'METRICS_S3_BUCKET': 'bucket'
'METRICS_S3_OBJECT_KEY': 'prefix/TrainingMetrics.json'
'MIN_DISTANCE_BETWEEN_OBSTACLES': '1.5'
'MIN_EVAL_TRIALS': '4'
'MODEL_METADATA_FILE_S3_KEY': 'custom_files/model_metadata.json'
'NUMBER_OF_OBSTACLES': '2'
'NUM_WORKERS': '1'
'OBJECT_POSITIONS':
- '0.25,-1'
- '0.5,1'
'RACER_NAME': 'racer1'
'RACE_TYPE': 'OBJECT_AVOIDANCE'
'REWARD_FILE_S3_KEY': 'custom_files/reward_function.py'
'ROBOMAKER_SIMULATION_JOB_ACCOUNT_ID': 'Dummy'
'ROUND_ROBIN_ADVANCE_DIST': '0.02'
'SAGEMAKER_SHARED_S3_BUCKET': 'bucket'
'SAGEMAKER_SHARED_S3_PREFIX': 'my-model'
'SIMTRACE_S3_BUCKET': 'bucket'
'SIMTRACE_S3_PREFIX': 'my-model'
'START_POSITION_OFFSET': '0.00'
'TRAINING_JOB_ARN': 'arn:Dummy'
'WORLD_NAME': 'oval'
"""


@pytest.fixture
def folder(tmp_path):
    """Write files by name; a reward function comes with them."""

    def write(**files):
        place = tmp_path / "racer"
        place.mkdir(exist_ok=True)
        (place / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
        for name, text in files.items():
            file, _, ending = name.rpartition("__")
            path = place / f"{file.replace('__', '/').replace('worker_', 'worker-')}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return place

    return write


def notes_of(plan, word):
    return [note for note in plan.notes if word in note]


def test_training_params_yaml_is_read_like_run_env(folder):
    plan = read_folder(folder(training_params__yaml=YAML))

    expected = {
        "track": "oval",
        "start.direction": "alternate",
        "start.advance": 0.02,
        "evaluation.trials": 4,
        "traffic.obstacles": 2,
        "traffic.gap": 1.5,
    }
    assert {key: plan.settings[key] for key in expected} == expected
    # the oval is driven counter-clockwise: its inner lane, 1, is the left one
    assert plan.settings["traffic.positions"] == [[0.25, -0.5], [0.5, 0.5]]
    assert plan.name == "my-model"
    for word in Document.of_yaml(folder() / "training_params.yaml").values:
        assert notes_of(plan, word), word
    assert not notes_of(plan, "not known")


def test_yaml_without_quotes_means_the_same(folder):
    text = "WORLD_NAME: oval\nCHANGE_START_POSITION: false\nREVERSE_DIR: yes\nMIN_EVAL_TRIALS: 3\n"

    settings = read_folder(folder(training_params__yaml=text)).settings

    assert settings["start.kind"] == "line"
    assert settings["start.direction"] == "reversed"
    assert settings["evaluation.trials"] == 3


def test_run_env_wins_over_system_env_and_both_over_what_was_written_from_them(folder):
    place = folder(
        run__env="DR_WORLD_NAME=oval",
        system__env="DR_TRAIN_MIN_EVAL_TRIALS=2\nDR_WORLD_NAME=hard",
        training_params__yaml="WORLD_NAME: easy\nMIN_EVAL_TRIALS: '2'\nSTART_POSITION_OFFSET: 0.5",
    )

    plan = read_folder(place)

    assert plan.settings["track"] == "oval"
    assert plan.settings["evaluation.trials"] == 2
    assert plan.settings["start.offset"] == 0.5
    assert notes_of(plan, "system.env: DR_WORLD_NAME = hard has no effect: run.env says oval")
    assert notes_of(plan, "training_params.yaml: WORLD_NAME = easy has no effect: run.env says")
    assert not notes_of(plan, "yaml: MIN_EVAL_TRIALS")  # it says the same


def test_variables_of_above_are_put_in_but_not_in_single_quotes(tmp_path):
    path = tmp_path / "run.env"
    path.write_text("A=custom\nB=$A/x\nC=\"${B}/y\"\nD='$A'\nE=$UNKNOWN/$A\n")

    values = Document.of_variables(path).values

    assert values["B"] == "custom/x"
    assert values["C"] == "custom/x/y"
    assert values["D"] == "$A"
    assert values["E"] == "$UNKNOWN/custom"


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("DR_TRAIN_MIN_EVAL_TRIALS", "MIN_EVAL_TRIALS"),
        ("DR_CHANGE_START_POSITION", "CHANGE_START_POSITION"),  # as older files have it
        ("DR_OA_NUMBER_OF_OBSTACLES", "NUMBER_OF_OBSTACLES"),
        ("DR_H2B_BOT_CAR_PENALTY", "BOT_CAR_PENALTY"),
        ("PENALTY_SECONDS", "BOT_CAR_PENALTY"),  # what prepare-config.py calls it
        ("NUM_WORKERS", "WORKERS"),
        ("MODEL_S3_PREFIX", "LOCAL_S3_MODEL_PREFIX"),
    ],
)
def test_a_name_is_the_same_in_every_file(word, plain):
    assert plain_name(word) == plain


WORKERS = "DR_WORLD_NAME=oval\nDR_TRAIN_MULTI_CONFIG=True\nDR_WORKERS=3\nDR_RACE_TYPE=TIME_TRIAL\n"


def test_each_worker_brings_its_track_and_only_that(folder):
    second = "DR_WORLD_NAME=easy\nDR_RACE_TYPE=OBJECT_AVOIDANCE\nDR_CAR_COLOR=Blue\n"
    third = "DR_WORLD_NAME=oval\nDR_RACE_TYPE=TIME_TRIAL\nDR_MISTAKE=1\n"

    plan = read_folder(folder(run__env=WORKERS, worker_2__env=second, worker_3__env=third))

    # a worker's share of the cars stays its share, so that a track may come twice
    assert plan.settings["track"] == "oval,easy,oval"
    assert "traffic.obstacles" not in plan.settings
    (said,) = notes_of(plan, "worker-2.env: DR_RACE_TYPE")
    assert "only the track can differ by worker, and run.env says TIME_TRIAL" in said
    assert notes_of(plan, "worker-2.env: DR_CAR_COLOR has no effect")
    assert notes_of(plan, "worker-3.env: as in run.env: DR_RACE_TYPE")
    assert notes_of(plan, "worker-3.env: DR_MISTAKE = 1 has no effect: it is not known")


def test_a_worker_without_a_file_or_a_world_drives_as_the_first(folder):
    plan = read_folder(folder(run__env=WORKERS, worker_3__env="DR_CAR_COLOR=Red\n"))

    assert plan.settings["track"] == "oval,oval"
    assert notes_of(plan, "worker-2.env is absent: that worker would drive as the first")


def test_without_multi_config_worker_files_have_no_effect(folder):
    text = "DR_WORLD_NAME=oval\nDR_TRAIN_MULTI_CONFIG=False\nDR_WORKERS=2\n"

    plan = read_folder(folder(run__env=text, worker_2__env="DR_WORLD_NAME=nowhere\n"))

    assert plan.settings["track"] == "oval"
    assert notes_of(plan, "worker-2.env has no effect: DR_TRAIN_MULTI_CONFIG is not True")


def test_more_worker_files_than_workers_are_left(folder):
    text = "DR_WORLD_NAME=oval\nDR_TRAIN_MULTI_CONFIG=True\nDR_WORKERS=1\n"

    plan = read_folder(folder(run__env=text, worker_2__env="DR_WORLD_NAME=easy\n"))

    assert plan.settings["track"] == "oval"
    assert notes_of(plan, "worker-2.env has no effect: run.env: DR_WORKERS = 1")


def test_the_numbered_files_of_a_bucket_are_its_workers(folder):
    plan = read_folder(
        folder(
            training_params__yaml="WORLD_NAME: oval",
            training_params_1__yaml="WORLD_NAME: oval",
            training_params_2__yaml="WORLD_NAME: easy",
        )
    )

    assert plan.settings["track"] == "oval,easy"


def test_a_bucket_keeps_its_files_elsewhere(folder):
    place = folder(
        training_params__yaml="WORLD_NAME: oval", ip__hyperparameters__json='{"lr": 1e-4}'
    )
    (place / "model").mkdir()
    space = {"action_space": [{"steering_angle": 5, "speed": 1}]}
    (place / "model" / "model_metadata.json").write_text(json.dumps(space))

    settings = read_folder(place).settings

    assert settings["algorithm.learning_rate"] == 1e-4
    assert settings["actions.list"] == [[5, 1]]


def test_a_variable_may_name_another_file(folder):
    place = folder(
        run__env="DR_WORLD_NAME=oval\nDR_LOCAL_S3_HYPERPARAMETERS_KEY=custom_files/fast.json\n"
        "DR_LOCAL_S3_MODEL_METADATA_KEY=custom_files/gone.json",
        custom_files__fast__json='{"lr": 0.0007}',
        hyperparameters__json='{"lr": 0.1}',
    )

    plan = read_folder(place)

    assert plan.settings["algorithm.learning_rate"] == 0.0007
    assert notes_of(plan, "DR_LOCAL_S3_MODEL_METADATA_KEY = custom_files/gone.json has no effect")


def test_a_variable_names_no_file_outside_of_the_folder(folder, tmp_path):
    (tmp_path / "other.json").write_text('{"lr": 0.0007}')

    plan = read_folder(folder(run__env="DR_LOCAL_S3_HYPERPARAMETERS_KEY=../other.json"))

    assert "algorithm.learning_rate" not in plan.settings
    assert notes_of(plan, "that file is not in this folder")


def test_an_evaluation_s_settings_become_the_command_that_evaluates(folder):
    text = "JOB_TYPE: EVALUATION\nWORLD_NAME: easy\nNUMBER_OF_TRIALS: '3'\nEVAL_CHECKPOINT: best\n"

    plan = read_folder(folder(run__env="DR_WORLD_NAME=oval", eval_params__yaml=text))

    assert plan.settings["track"] == "oval"
    (said,) = notes_of(plan, "eval_params.yaml")
    assert said.endswith("hotlap evaluate RUN --track easy --trials 3 --checkpoint best")


ROBOMAKER = {
    "simulation": [
        {"launchFile": "evaluation.launch", "environmentVariables": {"WORLD_NAME": "hard_track"}},
        {
            "launchFile": "local_training.launch",
            "environmentVariables": {
                "MARKOV_PRESET_FILE": "deepracer.py",
                "MODEL_S3_BUCKET": "awsrobomaker-bundles",
                "MODEL_S3_PREFIX": "model-store",
                "ROS_AWS_REGION": "us-west-2",
                "WORLD_NAME": "easy_track",
            },
        },
    ]
}


def test_a_robomaker_sample_s_settings_are_those_of_its_training(folder):
    place = folder(roboMakerSettings__json=json.dumps(ROBOMAKER))

    plan = read_folder(place)

    assert plan.settings["track"] == "easy"
    assert notes_of(plan, "easy_track")[0].endswith("a course of hotlap's own of that difficulty")
    assert plan.name == "model-store"
    for word in ROBOMAKER["simulation"][1]["environmentVariables"]:
        assert notes_of(plan, word), word


def test_a_robomaker_sample_listens_to_the_process_s_environment(folder, monkeypatch):
    place = folder()
    monkeypatch.setenv("WORLD_NAME", "medium_track")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    alone = read_folder(place)
    (place / "simulation_ws").mkdir()

    plan = read_folder(place)

    assert "track" not in alone.settings
    assert plan.settings["track"] == "medium"
    assert notes_of(plan, "environment: WORLD_NAME = medium_track")
    assert not notes_of(plan, "hush")


def test_a_robomaker_sample_s_own_track_of_that_name_comes_first(folder):
    place = folder(roboMakerSettings__json=json.dumps(ROBOMAKER))
    np.save(place / "easy_track.npy", load_track("oval").waypoints)

    assert read_folder(place).settings["track"] == str(place.resolve() / "easy_track.npy")


def test_secrets_are_not_repeated(folder):
    text = "AWS_SECRET_ACCESS_KEY=hush\nAWS_SESSION_TOKEN=hush\nDR_MY_PASSWORD=hush\n"

    plan = read_folder(folder(run__env=text))

    assert notes_of(plan, "DR_MY_PASSWORD")
    assert not notes_of(plan, "hush")


def test_a_score_to_reach_ends_the_training(folder):
    assert (
        read_folder(folder(run__env="DR_TARGET_REWARD_SCORE=500")).settings["train.target_reward"]
        == 500
    )
    plan = read_folder(folder(run__env="DR_TARGET_REWARD_SCORE=None"))
    assert "train.target_reward" not in plan.settings


def test_steps_of_an_iteration_limit_its_episodes(folder):
    place = folder(run__env="DR_TRAIN_MAX_STEPS_PER_ITERATION=3000")
    alone = read_folder(place)
    (place / "hyperparameters.json").write_text('{"num_episodes_between_training": 10}')

    together = read_folder(place)

    assert "algorithm.batch_max" not in alone.settings
    assert together.settings["algorithm.batch_max"] == 3000
    assert together.settings["algorithm.episodes"] == 10


PRETRAINED = "DR_LOCAL_S3_PRETRAINED=True\nDR_LOCAL_S3_PRETRAINED_PREFIX=models/first\n"


def test_a_pretrained_model_is_the_run_of_that_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = folder(run__env=PRETRAINED + "DR_LOCAL_S3_MODEL_PREFIX=models/second\n")
    absent = read_folder(place)
    (tmp_path / "runs" / "models-first").mkdir(parents=True)
    (tmp_path / "runs" / "models-first" / "meta.json").write_text("{}")

    plan = read_folder(place)
    (place / "run.env").write_text(PRETRAINED + "DR_LOCAL_S3_PRETRAINED_CHECKPOINT=best\n")

    assert absent.weights_from is None
    assert "hotlap import MODEL --out RUN, then hotlap train FOLDER --from RUN" in absent.notes[-1]
    assert str(plan.weights_from) == "runs/models-first"
    assert (plan.name, plan.checkpoint) == ("models-second", "last")
    assert read_folder(place).checkpoint == "best"


def test_penalties_and_workers_are_those_of_evaluations_and_logs(folder):
    given = {
        "DR_EVAL_MAX_RESETS=0": ("penalties.resets", 0),
        "DR_EVAL_OFF_TRACK_PENALTY=3.5": ("penalties.off_track", 3.5),
        "DR_EVAL_COLLISION_PENALTY=4": ("penalties.collision", 4),
        "DR_EVAL_RESET_BEHIND_DIST=0.7": ("penalties.behind", 0.7),
        "ENABLE_MERCY_RESET=True": ("penalties.mercy", True),
        "MAX_RESETS_AFTER_CRASH=4": ("penalties.mercy_after", 4),
        "RESET_AHEAD_DIST=0.9": ("penalties.ahead", 0.9),
    }

    plan = read_folder(folder(run__env="\n".join([*given, "DR_WORKERS=30"])))

    for name, value in given.values():
        assert plan.settings[f"evaluation.{name}"] == value
    assert plan.settings["log.workers"] == 10  # as many as readers can tell apart
    settings = resolve(TrainConfig, plan.settings)
    assert (settings.evaluation.penalties.resets, settings.log.workers) == (0, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DR_LOCAL_S3_PRETRAINED=True", "PRETRAINED: True, but DR_LOCAL_S3_PRETRAINED_PREFIX does"),
        (
            PRETRAINED + "DR_LOCAL_S3_PRETRAINED_CHECKPOINT=bets",
            r"run.env:3: .*\(did you mean best",
        ),
        ("DR_LOCAL_S3_PRETRAINED=maybe", "must be True or False"),
    ],
)
def test_a_pretrained_model_that_is_not_said_clearly_is_refused(text, said, folder):
    with pytest.raises(ConfigError, match=said):
        read_folder(folder(run__env=text))


def test_the_environment_of_a_plain_folder_is_not_the_process_s(folder):
    findings = Findings()

    found = read_environment(folder(run__env="A=1"), findings, {"WORLD_NAME": "oval"})

    assert set(found.variables) == {"A"}
