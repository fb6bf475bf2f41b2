"""A folder that asks for a race of two models: what it says counts, and every name is answered."""

import pytest

from drivers import command as hotlap
from drivers import saved
from hotlap.deepracer.files.folder import read_folder
from hotlap.deepracer.files.head_to_model import read_head_to_model
from hotlap.errors import ConfigError, TrackError

GIVEN = {
    "DR_RACE_TYPE": "HEAD_TO_MODEL",
    "DR_LOCAL_S3_MODEL_PREFIX": "mine",
    "DR_EVAL_OPP_S3_MODEL_PREFIX": "theirs",
}


@pytest.fixture
def write(tmp_path):
    saved(tmp_path / "mine", 1.2, lane=0.25)
    saved(tmp_path / "theirs", 1.9, lane=-0.25)
    folder = tmp_path / "folder"
    folder.mkdir()

    def writing(changes=None, **files):
        variables = {k: v for k, v in (GIVEN | (changes or {})).items() if v is not None}
        text = "".join(f"{name}={value}\n" for name, value in variables.items())
        (folder / "run.env").write_text(text)
        for name, content in files.items():
            (folder / f"{name}.yaml").write_text(content)
        return folder

    return writing


def test_without_more_it_is_the_race_that_deepracer_runs(write, tmp_path):
    plan = read_head_to_model(write())

    assert plan.runs == (tmp_path / "mine", tmp_path / "theirs")
    assert (plan.track, plan.laps, plan.trials, plan.checkpoint) == (None, 3, 1, "last")
    assert plan.penalties == {"resets": 100, "off_track": 5.0, "collision": 5.0}


def test_what_is_given_counts(write):
    plan = read_head_to_model(
        write(
            {
                "DR_WORLD_NAME": "oval",
                "DR_EVAL_NUMBER_OF_TRIALS": "5",
                "DR_EVAL_MAX_RESETS": "7",
                "DR_EVAL_OFF_TRACK_PENALTY": "3.0",
                "DR_EVAL_COLLISION_PENALTY": "2.5",
                "DR_EVAL_CHECKPOINT": "best",
            }
        )
    )

    assert (plan.track, plan.laps, plan.trials, plan.checkpoint) == ("oval", 5, 1, "best")
    assert plan.penalties == {"resets": 7, "off_track": 3.0, "collision": 2.5}


def test_not_continuous_means_races_of_a_lap(write):
    plan = read_head_to_model(
        write({"DR_EVAL_NUMBER_OF_TRIALS": "5", "DR_EVAL_IS_CONTINUOUS": "False"})
    )

    assert (plan.laps, plan.trials) == (1, 5)


def test_the_file_that_the_simulator_is_given_wins(write, tmp_path):
    plan = read_head_to_model(
        write(
            eval_params="MODEL_S3_PREFIX: ['theirs', 'mine']\nRACE_TYPE: HEAD_TO_MODEL\n"
            "NUMBER_OF_TRIALS: '2'\nNUMBER_OF_RESETS: '0'\nIS_CONTINUOUS: 'True'\n"
        )
    )

    assert plan.runs == (tmp_path / "theirs", tmp_path / "mine")
    assert (plan.laps, plan.penalties["resets"]) == (2, 0)
    assert any("mine has no effect: eval_params.yaml says" in note for note in plan.notes)


def test_every_name_is_answered(write):
    more = {
        "DR_EVAL_SAVE_MP4": "True",
        "DR_EVAL_REVERSE_DIRECTION": "True",
        "DR_EVAL_RESET_BEHIND_DIST": "1.0",
        "DR_EVAL_OPP_CAR_NAME": "FasterCar",
        "DR_CAR_COLOR": "Red",
        "DR_TRAIN_CHANGE_START_POSITION": "True",
        "DR_EVAL_COLISION_PENALTY": "9",
        "DR_WORLD_NAME": "oval",
    }

    notes = read_head_to_model(write(more), track="hard").notes

    for name in (*GIVEN, *more):
        if name != "DR_RACE_TYPE":
            assert any(name in note for note in notes), name
    assert "did you mean DR_EVAL_COLLISION_PENALTY" in notes[-1]
    assert any("the track hard was asked for" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"DR_RACE_TYPE": "TIME_TRIAL"},
            "run.env:1: DR_RACE_TYPE: TIME_TRIAL is no race",
        ),
        ({"DR_RACE_TYPE": None}, "no DR_RACE_TYPE is given"),
        ({"DR_EVAL_OPP_S3_MODEL_PREFIX": None}, "got 1 of them"),
        ({"DR_EVAL_OPP_S3_MODEL_PREFIX": "gone"}, "run.env:3: .*no Run called gone"),
        ({"DR_EVAL_MAX_RESETS": "-1"}, "run.env:4: DR_EVAL_MAX_RESETS: must be 0 to"),
        ({"DR_EVAL_OFF_TRACK_PENALTY": "long"}, "must be 0 to 1000"),
        ({"DR_EVAL_CHECKPOINT": "first"}, "choose from best, last"),
        ({"DR_EVAL_IS_CONTINUOUS": "perhaps"}, "must be True or False"),
    ],
)
def test_a_mistake_names_file_and_line(changes, said, write):
    with pytest.raises(ConfigError, match=said):
        read_head_to_model(write(changes))


def test_a_world_that_is_not_known_is_said(write):
    with pytest.raises(TrackError, match=r"run\.env:4"):
        read_head_to_model(write({"DR_WORLD_NAME": "no_such_world"}))


def test_the_command_races_what_the_folder_says_and_its_options_win(write):
    folder = write({"DR_EVAL_NUMBER_OF_TRIALS": "2", "DR_WORLD_NAME": "oval"})

    status, out, err = hotlap("race", folder)

    first, head, *rows = out.splitlines()
    assert status == 0
    assert first == "oval: 1 race of 2 laps"
    assert head.split()[-2:] == ["penalties", "s"]
    assert {row.split()[1] for row in rows} == {"mine", "theirs"}
    assert "run.env: DR_EVAL_NUMBER_OF_TRIALS = 2: --laps 2" in err
    assert "keeps no logs of DeepRacer's" in err
    status, out, _ = hotlap("race", folder, "--laps", 1, "--trials", 3)
    assert (status, out.splitlines()[0]) == (0, "oval: 3 races of 1 lap")


def test_a_training_sends_you_to_the_race(write, tmp_path):
    folder = write()
    (folder / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")

    with pytest.raises(ConfigError, match="hotlap race FOLDER"):
        read_folder(folder)

    write({"DR_RACE_TYPE": "TIME_TRIAL", "DR_WORLD_NAME": "oval"})
    notes = read_folder(folder).notes
    assert any("DR_EVAL_OPP_S3_MODEL_PREFIX has no effect: it is of a race" in n for n in notes)
