"""model_metadata.json: what is assumed, and one sentence for every mistake."""

import json

import pytest

from hotlap.deepracer.files.metadata import Continuous, Metadata
from hotlap.errors import ConfigError

TWO = [{"steering_angle": -30, "speed": 0.6, "index": 0}, {"steering_angle": "15.5", "speed": 1}]
RANGES = {"steering_angle": {"low": -20, "high": 30}, "speed": {"low": 0.5, "high": 4}}


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "model_metadata.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Metadata.read(path)

    return read


def test_a_file_of_the_first_version_holds_only_actions(read):
    assert read({"action_space": TWO}) == Metadata(
        actions=((-30.0, 0.6), (15.5, 1.0)),
        sensors=("observation",),
        network="DEEP_CONVOLUTIONAL_NETWORK_SHALLOW",
        algorithm="clipped_ppo",
        version=1,
    )


def test_sensors_without_a_version_mean_version_2(read):
    found = read({"action_space": TWO, "sensor": ["STEREO_CAMERAS", "LIDAR"]})

    assert (found.version, found.sensors) == (2, ("STEREO_CAMERAS", "LIDAR"))


@pytest.mark.parametrize("version", ["6", 6, "6.0", 6.0])
def test_a_version_may_be_text_or_number(read, version):
    assert read({"action_space": TWO, "version": version}).version == 6


def test_a_complete_file_with_ranges(read):
    found = read(
        {
            "action_space": RANGES,
            "action_space_type": " Continuous ",
            "sensor": ["FRONT_FACING_CAMERA"],
            "neural_network": "DEEP_CONVOLUTIONAL_NETWORK_DEEP",
            "training_algorithm": "SAC",
            "version": "4",
            "comment": "mine",
        }
    )

    assert found == Metadata(
        actions=Continuous(steering_low=-20, steering_high=30, speed_low=0.5, speed_high=4),
        sensors=("FRONT_FACING_CAMERA",),
        network="DEEP_CONVOLUTIONAL_NETWORK_DEEP",
        algorithm="sac",
        version=4,
        unknown=("comment",),
    )


def test_equal_actions_are_kept_because_their_number_counts(read):
    assert read({"action_space": [TWO[0], TWO[0]]}).actions == ((-30.0, 0.6),) * 2


def _action(**change):
    return {"action_space": [{**TWO[0], **change}]}


def _with(**more):
    return {"action_space": TWO, **more}


def _range(name, **ends):
    return {"action_space": {**RANGES, name: ends}}


MISTAKES = {
    "not JSON": (
        '{"action_space": [\n 1,,\n]}',
        "json:2: not valid JSON: Expecting value (column 4)",
    ),
    "not an object": ("[1]", "must hold a JSON object, {...}, not [1]"),
    "nothing": ({}, "action_space: is missing; give a list"),
    "empty": ({"action_space": []}, "action_space: is empty"),
    "a word": ({"action_space": "all"}, 'action_space: must be a list or an object, not "all"'),
    "not an action": ({"action_space": [3]}, "action_space[0]: must be {"),
    "no speed": ({"action_space": [{"steering_angle": 1}]}, "action_space[0]: lacks speed"),
    "no number": (_action(speed="fast"), 'action_space[0].speed: must be a number (got "fast")'),
    "a truth": (_action(speed=True), "action_space[0].speed: must be a number (got true)"),
    "NaN": (
        '{"action_space": [{"steering_angle": NaN, "speed": 1}]}',
        "must be a number (got NaN)",
    ),
    "backwards": (_action(speed=-0.1), "must be 0 to 10 m/s (got -0.1)"),
    "rocket": (_action(speed=10.1), "must be 0 to 10 m/s (got 10.1)"),
    "lock": (_action(steering_angle=61), "must be -60 to 60 degrees (got 61)"),
    "order": (
        _range("speed", low=2, high=2),
        "action_space.speed: low must be less than high (got 2",
    ),
    "no high": (_range("steering_angle", low=2), "action_space.steering_angle: lacks high"),
    "range of lock": (_range("steering_angle", low=-61, high=0), "steering_angle.low: must be -60"),
    "range of speed": (_range("speed", low=-1, high=2), "action_space.speed.low: must be 0 to 10"),
    "no range": ({"action_space": {"speed": RANGES["speed"]}}, 'must be {"low": ..., "high": ...}'),
    "type": (
        _with(action_space_type="continuous"),
        "is 'continuous', but action_space is discrete",
    ),
    "kind": (_with(action_space_type="discreet"), "(did you mean discrete?)"),
    "sensor": (_with(sensor=["FRONT_FACING"]), "(did you mean FRONT_FACING_CAMERA?)"),
    "no camera": (_with(sensor=["LIDAR"]), "sensor: must name exactly one camera of"),
    "two cameras": (_with(sensor=["LEFT_CAMERA", "observation"]), "camera of observation, "),
    "two lidars": (_with(sensor=["observation", "LIDAR", "SECTOR_LIDAR"]), "at most one LIDAR"),
    "sectors": (_with(lidar_config={"num_sectors": 6}), "num_sectors: must be 1, 2, 4, 8"),
    "clip": (_with(lidar_config={"clipping_dist": 13}), "clipping_dist: must be 0.15 to 12 m"),
    "lidar": (_with(lidar_config=3), "lidar_config: must be an object (got 3)"),
    "network": (_with(neural_network="CNN"), "neural_network: "),
    "algorithm": (_with(training_algorithm="ppo"), "is unknown; choose from clipped_ppo, sac"),
    "version": (_with(version=7), "version: must be 1 to 6 (got 7)"),
    "half a version": (_with(version="5.5"), 'must be 1 to 6 (got "5.5")'),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_key(read, mistake):
    content, said = MISTAKES[mistake]

    with pytest.raises(ConfigError) as caught:
        read(content)

    assert said in str(caught.value)
    assert "model_metadata.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing.json: no such file"):
        Metadata.read(tmp_path / "nothing.json")
