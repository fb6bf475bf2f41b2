"""The recorder's episodes are what the cars did, with DeepRacer's timing."""

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.deepracer.logs import FIELDS, PREPARE
from hotlap.deepracer.recorder import Recorder
from hotlap.env import EnvSettings, VectorEnv
from hotlap.runner import Runner
from hotlap.tasks.rules import Status

REWARD = """
def reward_function(params):
    return params["x"] + 100 * params["steps"]
"""
AT = {name: k for k, name in enumerate(FIELDS)}


class Always:
    """Chooses the same action for ever."""

    def __init__(self, action):
        self.action = action

    def act(self, observation, uniform, fresh):
        return np.full(len(fresh), self.action), np.zeros(len(fresh), np.float32)


class Follower:
    """Steers left or not at all, and so follows the oval."""

    def __init__(self, env):
        self.env = env

    def act(self, observation, uniform, fresh):
        state = self.env.state
        turn = -2 * state.n - 1.5 * np.sin(state.heading_error) + 0.3 * state.curvature
        return (turn > 0.05).astype(int), np.zeros(len(fresh), np.float32)


def recorded(tmp_path, timing, *, action=1, cars=(0, 2), rows=3):
    """Return a runner of three cars that steer left, and its recorder."""
    (tmp_path / "reward_function.py").write_text(REWARD)
    settings = resolve(
        EnvSettings,
        {
            "track": "oval",
            "actions.kind": "list",
            "actions.list": [[0.0, 1.0], [30.0, 1.0], [0.0, 0.0]],
            "reward.kind": "file",
            "reward.path": str(tmp_path / "reward_function.py"),
            "reward.timing": timing,
            "start.kind": "round_robin",
            "rules.laps": 1,
        },
    )
    env = VectorEnv(settings, rows, seed=1)
    late = timing == "deepracer"
    recorder = Recorder(env.simulator.tracks, np.array(cars), dt=env.dt, late=late)
    return Runner(env, seed=1, recorder=recorder), Always(action)


@pytest.mark.parametrize("timing", ["deepracer", "modern"])
def test_an_episode_begins_with_prepare_and_ends_off_the_track(tmp_path, timing):
    runner, driver = recorded(tmp_path, timing)
    runner.collect(driver, 100)

    episodes = runner.recorder.episodes()

    assert {one.car for one in episodes} == {0, 2}
    for one in episodes:
        status = one.rows[:, AT["episode_status"]]
        assert status[0] == PREPARE
        assert status[-1] == Status.OFF_TRACK
        assert (status[1:-1] == Status.IN_PROGRESS).all()
        steps = one.rows[:, AT["steps"]]
        np.testing.assert_array_equal(steps, np.arange(1, len(steps) + 1))


@pytest.mark.parametrize("timing", ["deepracer", "modern"])
def test_a_row_holds_the_reward_of_its_own_state(tmp_path, timing):
    runner, driver = recorded(tmp_path, timing)
    runner.collect(driver, 100)

    rows = runner.recorder.episodes()[0].rows

    # the reward function adds its x to 100 times the number of the step that it was told of
    told = (rows[:, AT["reward"]] - rows[:, AT["X"]])[1:] / 100
    first = 2 if timing == "deepracer" else 1
    np.testing.assert_allclose(told, first + np.arange(len(told)), atol=1e-4)
    assert rows[0, AT["reward"]] == 0


def test_rewards_of_all_rows_are_the_episodes_reward(tmp_path):
    runner, driver = recorded(tmp_path, "deepracer", cars=(0, 1, 2))
    _, ended = runner.collect(driver, 100)

    episodes = runner.recorder.episodes()

    assert len(episodes) == len(ended.rows)
    for one, row, reward in zip(episodes, ended.rows, ended.reward, strict=True):
        assert one.car == row
        np.testing.assert_allclose(one.rows[:, AT["reward"]].sum(), reward, rtol=1e-5)


def test_a_lap_ends_at_exactly_a_hundred_percent(tmp_path):
    runner, _ = recorded(tmp_path, "deepracer", cars=(0,), rows=1)

    runner.collect(Follower(runner.env), 700)

    laps = [one.rows for one in runner.recorder.episodes()
            if one.rows[-1, AT["episode_status"]] == Status.LAP_COMPLETE]  # fmt: skip
    assert laps
    assert laps[0][-1, AT["progress"]] == 100.0
    assert (laps[0][:-1, AT["progress"]] < 100).all()


@pytest.mark.parametrize("timing", ["deepracer", "modern"])
def test_a_recorder_that_was_restored_hands_over_the_same(tmp_path, timing):
    runner, driver = recorded(tmp_path, timing)
    runner.collect(driver, 8)  # in the middle of episodes
    runner.recorder.episodes()
    saved = runner.save()
    other, _ = recorded(tmp_path, timing)
    runner.collect(driver, 60)
    other.restore(saved)
    other.collect(driver, 60)

    pairs = list(zip(runner.recorder.episodes(), other.recorder.episodes(), strict=True))

    assert pairs
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.rows[:, :-1], theirs.rows[:, :-1])  # but for the clock


def test_one_that_begins_midway_waits_for_the_next_episodes(tmp_path):
    runner, driver = recorded(tmp_path, "deepracer")
    plain, recorder = runner.env.save(), runner.recorder
    runner.collect(driver, 8)
    runner.restore(plain)  # as of a run that did not record
    runner.collect(driver, 100)

    episodes = recorder.episodes()

    starts = [one.rows[0, AT["tstamp"]] for one in episodes]
    assert min(starts) > 10 / 15
    assert all(one.rows[0, AT["steps"]] == 1 for one in episodes)


def test_an_episode_of_several_laps_is_cut_at_the_line(tmp_path):
    runner, _ = recorded(tmp_path, "deepracer", cars=(0,), rows=1)
    env = VectorEnv(runner.env.settings.model_copy(update={"rules": resolve(
        EnvSettings, {"rules.laps": 2}).rules}), 1, seed=1)  # fmt: skip
    recorder = Recorder(env.simulator.tracks, np.array([0]), dt=env.dt, late=True)
    runner = Runner(env, seed=1, recorder=recorder)
    found = []
    for _ in range(20):
        runner.collect(Follower(env), 50)
        found += recorder.episodes()

    first, second = (one.rows for one in found[:2])
    np.testing.assert_array_equal(second[0, [AT["X"], AT["Y"], AT["tstamp"]]],
                                  first[-1, [AT["X"], AT["Y"], AT["tstamp"]]])  # fmt: skip
    for lap in (first, second):
        assert lap[0, AT["episode_status"]] == PREPARE
        assert lap[-1, AT["episode_status"]] == Status.LAP_COMPLETE
        assert lap[-1, AT["progress"]] == 100
        np.testing.assert_array_equal(lap[:, AT["steps"]], np.arange(1, len(lap) + 1))
    assert (second[:-1, AT["progress"]] < 100).all()
