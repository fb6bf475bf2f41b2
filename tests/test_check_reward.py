"""Rewards are tried before a training, on the road that the training has."""

import pytest

from drivers import saved
from hotlap.config import resolve
from hotlap.errors import RewardError
from hotlap.plan import TrainConfig, check_reward

ARRAYS = """
def reward(before, command, after, ended):
    return after.advance
"""
NEEDS_OTHERS = """
def reward_function(params):
    return params["objects_speed"][params["closest_objects"][1]]
"""


@pytest.mark.parametrize("cars", [1, 2, 3])
def test_a_function_of_arrays_is_tried_on_worlds_of_any_number_of_cars(cars, tmp_path):
    file = tmp_path / "arrays.py"
    file.write_text(ARRAYS)
    given = {"track": "oval", "reward": f"{file}:reward", "traffic.cars": cars}

    notes = check_reward(resolve(TrainConfig, given))

    assert notes == [f"reward: {file}:reward is executed"]


def test_a_reward_file_is_tried_with_the_opponents_that_it_will_be_told_of(tmp_path):
    file = tmp_path / "reward_function.py"
    file.write_text(NEEDS_OTHERS)
    alone = {"track": "oval", "reward": {"kind": "file", "path": str(file)}}
    opponent = {"opponents.drivers": [str(saved(tmp_path / "a", 2.0))]}

    with pytest.raises(RewardError, match="IndexError"):
        check_reward(resolve(TrainConfig, alone))
    notes = check_reward(resolve(TrainConfig, alone, opponent))

    assert notes[0] == f"reward: {file} is executed, and passed its check"


@pytest.mark.parametrize("changes", [{"opponents.share": 0.5}, {"opponents.drivers": "self"}])
def test_a_reward_file_is_tried_with_the_empty_places_that_there_will_be(changes, tmp_path):
    file = tmp_path / "reward_function.py"
    file.write_text(NEEDS_OTHERS)
    given = {"track": "oval", "reward": {"kind": "file", "path": str(file)}}
    opponent = {"opponents.drivers": [str(saved(tmp_path / "a", 2.0))]}

    with pytest.raises(RewardError, match="IndexError"):
        check_reward(resolve(TrainConfig, given, opponent | changes))
