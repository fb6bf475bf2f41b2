"""Actions: numbers by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.tasks.actions import Actions, ContinuousActions, GridActions, ListActions

METADATA = Path(__file__).parents[2] / "examples" / "deepracer" / "model_metadata.json"


def commands(actions, action):
    command = actions.decode(np.asarray(action))
    assert command.steering.dtype == command.speed.dtype == np.float32
    return np.degrees(command.steering), command.speed


def test_a_grid_has_every_steering_with_every_speed():
    grid = GridActions(
        steering_low_deg=-20, steering_high_deg=20, steering_interval_deg=20,
        speed_low=1, speed_high=2, speed_interval=0.5,
    )  # fmt: skip

    assert grid.pairs == (
        (-20, 1), (-20, 1.5), (-20, 2),
        (0, 1), (0, 1.5), (0, 2),
        (20, 1), (20, 1.5), (20, 2),
    )  # fmt: skip
    assert grid.size == 9


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (20, (-30, -10, 10, 30)),
        (25, (-30, -5, 20, 30)),  # the last step is shorter
        (60, (-30, 30)),
        (1000, (-30, 30)),
    ],
)
def test_both_ends_belong_to_a_grid(interval, expected):
    grid = GridActions(steering_interval_deg=interval, speed_low=1, speed_high=2, speed_interval=1)

    assert tuple(angle for angle, speed in grid.pairs if speed == 1) == expected
    assert grid.size == 2 * len(expected)


def test_decimal_intervals_give_no_action_twice():
    # 0.1 is not a binary fraction: 0.1 + 0.1 + 0.1 is more than 0.3
    grid = GridActions(steering_interval_deg=60, speed_low=0.1, speed_high=0.7, speed_interval=0.1)

    speeds = [speed for angle, speed in grid.pairs if angle == 30]
    np.testing.assert_allclose(speeds, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert speeds[-1] == 0.7


def test_a_discrete_action_is_the_entry_of_its_number():
    actions = Actions(ListActions(list=((10.0, 1.5), (-5.0, 0.5), (0.0, 3.0))))

    steering, speed = commands(actions, [2, 0, 0, 1])

    np.testing.assert_allclose(steering, [0, 10, 10, -5], rtol=1e-6)
    np.testing.assert_allclose(speed, [3.0, 1.5, 1.5, 0.5])
    assert (actions.discrete, actions.size) == (True, 3)


def test_continuous_actions_are_stretched_over_their_ranges_and_clipped():
    actions = Actions(
        ContinuousActions(steering_low_deg=-10, steering_high_deg=30, speed_low=1, speed_high=3)
    )

    steering, speed = commands(actions, [[-1, 1], [0, 0], [1, -1], [0.5, -0.5], [-7, 9]])

    # middle 10, half 20 degrees; middle 2, half 1 m/s
    np.testing.assert_allclose(steering, [-10, 10, 30, 20, -10], rtol=1e-6)
    np.testing.assert_allclose(speed, [3, 2, 1, 1.5, 3], rtol=1e-6)
    assert (actions.discrete, actions.size) == (False, 2)


def test_positive_steering_is_left_and_the_ends_are_met_exactly():
    actions = Actions(ContinuousActions())

    steering, speed = commands(actions, [[1, 1], [-1, -1]])

    np.testing.assert_allclose(steering, [30, -30], rtol=1e-6)
    np.testing.assert_array_equal(speed, np.float32([4.0, 0.5]))


def test_a_metadata_file_gives_its_actions_in_its_order():
    listed = json.loads(METADATA.read_text())["action_space"]

    env = VectorEnv(
        resolve(EnvSettings, {"actions": {"kind": "metadata", "path": METADATA.as_posix()}}), 1
    )
    steering, speed = commands(env.actions, np.arange(len(listed)))

    np.testing.assert_allclose(steering, [a["steering_angle"] for a in listed], rtol=1e-6)
    np.testing.assert_allclose(speed, [a["speed"] for a in listed], rtol=1e-6)
    assert env.single_action_space.n == len(listed) == 7


def test_a_metadata_file_of_ranges_gives_continuous_actions(tmp_path):
    path = tmp_path / "model_metadata.json"
    space = {"steering_angle": {"low": -20, "high": 20}, "speed": {"low": 1, "high": 2}}
    path.write_text(json.dumps({"action_space": space, "action_space_type": "continuous"}))

    env = VectorEnv(resolve(EnvSettings, {"actions": {"kind": "metadata", "path": str(path)}}), 1)
    steering, speed = commands(env.actions, [[1, -1], [-0.5, 1]])

    np.testing.assert_allclose(steering, [20, -10], rtol=1e-6)
    np.testing.assert_allclose(speed, [1, 2], rtol=1e-6)


def test_a_missing_metadata_file_is_named():
    settings = resolve(EnvSettings, {"actions": {"kind": "metadata", "path": "none.json"}})

    with pytest.raises(ConfigError, match=r"none\.json: no such file"):
        VectorEnv(settings, 1)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"steering_low_deg": 10, "steering_high_deg": 5}, "steering_low_deg 10 must lie below 5"),
        ({"speed_low": 2, "speed_high": 2}, "speed_low 2 must lie below 2"),
        ({"steering_low_deg": -61}, "actions.steering_low_deg: should be greater than or equal"),
        ({"speed_low": -1}, "actions.speed_low: should be greater than or equal to 0"),
        ({"kind": "grid", "speed_interval": 0}, "actions.speed_interval: should be greater than 0"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(ranges, message):
    with pytest.raises(ConfigError, match=message):
        resolve(EnvSettings, {"actions": ranges})


@pytest.mark.parametrize("interval", [0.05, 1e-9, 5e-324])
def test_a_grid_too_fine_is_refused_before_it_is_built(interval):
    grid = GridActions(steering_interval_deg=interval)

    with pytest.raises(ConfigError, match=r"at most 1000 are allowed\. Widen steering_interval"):
        Actions(grid)


def test_a_thousand_actions_are_allowed_and_one_more_is_not():
    pair = (0.0, 1.0)

    assert Actions(ListActions(list=(pair,) * 1000)).size == 1000
    with pytest.raises(ConfigError, match=r"1001 actions; at most 1000 are allowed\. List"):
        Actions(ListActions(list=(pair,) * 1001))
