"""A race type puts onto the road what DeepRacer's settings say, and every name is answered."""

import pytest

from hotlap.config import resolve
from hotlap.deepracer.environment import Variable, plain_name
from hotlap.deepracer.findings import Findings
from hotlap.deepracer.folder import read_folder
from hotlap.deepracer.race import read_race
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError

OF_LEARNING = ("train", "algorithm", "evaluation")


def race(inner_is_left=True, **given):
    found = {
        plain_name(key): Variable(f"DR_{key}", value, "run.env", f"run.env:1: DR_{key}")
        for key, value in given.items()
    }
    findings = Findings()
    read_race(found, findings, lambda: inner_is_left)
    assert not found
    for key in given:
        assert any(f"DR_{key} = " in note for note in findings.notes), key
    return findings.settings, findings.notes


def test_alone_nothing_is_on_the_road():
    assert race() == ({}, [])
    settings, notes = race(RACE_TYPE="TIME_TRIAL", OA_NUMBER_OF_OBSTACLES="4")
    assert settings == {}
    assert "one car a world" in notes[0]
    assert "has no effect: the race is TIME_TRIAL" in notes[1]


def test_object_avoidance_by_default():
    settings, _ = race(RACE_TYPE="OBJECT_AVOIDANCE")

    assert settings == {"traffic.obstacles": 6, "traffic.place": "even"}


def test_object_avoidance_as_asked():
    settings, notes = race(
        RACE_TYPE="object_avoidance",
        OA_NUMBER_OF_OBSTACLES="4",
        OA_MIN_DISTANCE_BETWEEN_OBSTACLES="1.5",
        OA_RANDOMIZE_OBSTACLE_LOCATIONS="True",
        OA_OBSTACLE_TYPE="box_obstacle",
        OA_OBJECT_POSITIONS="",
    )

    assert settings == {
        "traffic.obstacles": 4,
        "traffic.gap": 1.5,
        "traffic.place": "random",
    }
    assert any("DR_OA_NUMBER_OF_OBSTACLES = 4: traffic.obstacles = 4" in note for note in notes)


@pytest.mark.parametrize(("inner_is_left", "sign"), [(True, 1), (False, -1)])
def test_positions_say_how_many_and_on_which_lane(inner_is_left, sign):
    settings, _ = race(
        inner_is_left,
        RACE_TYPE="OBJECT_AVOIDANCE",
        OA_OBJECT_POSITIONS="0.23,-1;0.46,1",
        OA_NUMBER_OF_OBSTACLES="6",
    )

    assert settings["traffic.obstacles"] == 2
    assert settings["traffic.positions"] == [[0.23, -0.5 * sign], [0.46, 0.5 * sign]]


def test_obstacles_that_are_parked_cars():
    settings, _ = race(RACE_TYPE="OBJECT_AVOIDANCE", OA_IS_OBSTACLE_BOT_CAR="True")

    assert settings["traffic.bots"] == 6
    assert settings["traffic.bot_speed"] == [0.0, 0.0]
    assert "traffic.obstacles" not in settings


def test_head_to_bot():
    settings, _ = race(RACE_TYPE="HEAD_TO_BOT")
    assert settings == {
        "traffic.bots": 3,
        "traffic.bot_speed": [0.2, 0.2],
        "traffic.place": "even",
    }

    settings, _ = race(
        RACE_TYPE="HEAD_TO_BOT",
        H2B_NUMBER_OF_BOT_CARS="2",
        H2B_BOT_CAR_SPEED="0.5",
        H2B_IS_LANE_CHANGE="True",
        H2B_LOWER_LANE_CHANGE_TIME="2",
        H2B_UPPER_LANE_CHANGE_TIME="4",
        H2B_LANE_CHANGE_DISTANCE="1.2",
        H2B_MIN_DISTANCE_BETWEEN_BOT_CARS="3",
        H2B_BOT_CAR_PENALTY="5.0",
    )
    assert settings == {
        "traffic.bots": 2,
        "traffic.bot_speed": [0.5, 0.5],
        "traffic.place": "even",
        "traffic.lane_change": [2.0, 4.0],
        "traffic.lane_change_distance": 1.2,
        "traffic.gap": 3.0,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RACE_TYPE": "HEAD_TO_MODEL"}, "hotlap race RUN RUN"),
        ({"RACE_TYPE": "RALLY"}, "choose from TIME_TRIAL, OBJECT_AVOIDANCE, HEAD_TO_BOT"),
        ({"OA_OBJECT_POSITIONS": "0.2"}, r'such as "0.23,-1;0.46,1" \(got 0.2\)'),
        ({"OA_OBJECT_POSITIONS": "1.2,1"}, "must be 0 to less than 1"),
        ({"OA_NUMBER_OF_OBSTACLES": "many"}, "DR_OA_NUMBER_OF_OBSTACLES: must be"),
        ({"OA_NUMBER_OF_OBSTACLES": "99"}, "must be 0 to 32"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(given, said):
    with pytest.raises(ConfigError, match=said):
        race(**({"RACE_TYPE": "OBJECT_AVOIDANCE"} | given))


def test_a_folder_with_obstacles_has_them_where_it_says(tmp_path):
    """On the oval, driven counter-clockwise: the inner lane is the left one."""
    (tmp_path / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
    (tmp_path / "run.env").write_text(
        "DR_WORLD_NAME=oval\nDR_RACE_TYPE=OBJECT_AVOIDANCE\nDR_ENABLE_DOMAIN_RANDOMIZATION=True\n"
        'DR_OA_OBJECT_POSITIONS="0.25,1;0.5,-1"\n'
    )
    plan = read_folder(tmp_path)
    assert plan.settings["randomize.looks"] == 256
    of_the_world = {k: v for k, v in plan.settings.items() if k.split(".")[0] not in OF_LEARNING}
    settings = resolve(EnvSettings, of_the_world)

    env = VectorEnv(settings, 2)
    env.begin()

    around, track = env.state.around, settings.tracks()[0]
    assert around.s[0] == pytest.approx([0.25 * track.length, 0.5 * track.length], abs=0.1)
    half = track.width / 2
    assert around.n[0] == pytest.approx([0.5 * half, -0.5 * half], rel=0.1)
