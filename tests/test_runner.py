"""The runner: a Batch says what was driven, however the rows are dealt out."""

from pathlib import Path

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.runner import Runner, action_spec, observation_specs

REWARD = Path(__file__).parents[1] / "examples" / "deepracer" / "reward_function.py"
SMALL = {"observation.camera.width": 32, "observation.camera.height": 24}


class Wild:
    """Drives forwards and steers by the draws and by the road; no two cars do the same."""

    def __init__(self, discrete=0):
        self.discrete = discrete

    def act(self, observation, uniform, fresh):
        log_prob = uniform.sum(axis=1)
        if self.discrete:
            return (uniform[:, 0] * self.discrete).astype(np.int64), log_prob
        assert uniform.shape == (len(observation["state"]), 2)
        return (2 * uniform - 1 + 0.1 * observation["state"][:, 5:7]).astype(np.float32), log_prob


def runner(rows, *, first_row=0, seed=3, **given):
    named = {"track": "oval,easy", "rules.time_limit": 1.2} | {
        name.replace("__", "."): value for name, value in given.items()
    }
    settings = resolve(EnvSettings, named)
    env = VectorEnv(settings, rows, seed=seed, first_row=first_row, desynchronize=True)
    return Runner(env, seed=seed)


def parts(batch):
    """Everything of a batch that has a row axis, by name."""
    found = {f"observation.{name}": seen for name, seen in batch.observation.items()}
    found |= {f"last.{name}": seen[None] for name, seen in batch.last_observation.items()}
    names = ("action", "log_prob", "reward", "terminated", "truncated")
    return found | {name: getattr(batch, name) for name in names}


def test_a_batch_has_a_row_for_each_car_and_a_step_for_each_step():
    one = runner(5, observation__actor=["state", "camera"], **SMALL)

    batch, _ = one.collect(Wild(), 7)

    shapes = {name: (array.shape, array.dtype) for name, array in parts(batch).items()}
    assert shapes == {
        "observation.state": ((7, 5, 27), np.float32),
        "observation.camera": ((7, 5, 24, 32, 1), np.uint8),
        "last.state": ((1, 5, 27), np.float32),
        "last.camera": ((1, 5, 24, 32, 1), np.uint8),
        "action": ((7, 5, 2), np.float32),
        "log_prob": ((7, 5), np.float32),
        "reward": ((7, 5), np.float32),
        "terminated": ((7, 5), bool),
        "truncated": ((7, 5), bool),
    }
    specs = observation_specs(one.env)
    assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == {
        "state": ((27,), "float32"),
        "camera": ((24, 32, 1), "uint8"),
    }
    assert (action_spec(one.env).kind, action_spec(one.env).size) == ("continuous", 2)


def test_discrete_actions_are_whole_numbers():
    one = runner(3, actions={"kind": "list", "list": [[0, 1], [10, 1], [-10, 1]]})

    batch, _ = one.collect(Wild(3), 20)

    assert (batch.action.shape, batch.action.dtype) == ((20, 3), np.int64)
    assert set(np.unique(batch.action)) == {0, 1, 2}
    assert (action_spec(one.env).kind, action_spec(one.env).size) == ("discrete", 3)


def test_a_batch_tells_the_story_that_the_environment_tells():
    # drive a second environment by the batch's actions, and compare step by step
    one, twin = runner(6), runner(6).env

    batch, episodes = one.collect(Wild(), 60)

    seen, ended = twin.observe()["state"], []
    reached = iter(batch.reached["state"])
    for t in range(60):
        np.testing.assert_array_equal(batch.observation["state"][t], seen)
        step = twin.advance(batch.action[t])
        np.testing.assert_array_equal(batch.reward[t], step.reward)
        np.testing.assert_array_equal(batch.terminated[t], step.terminated)
        np.testing.assert_array_equal(batch.truncated[t], step.truncated)
        for what in step.reached["state"]:
            np.testing.assert_array_equal(next(reached), what)
        ended += [(t, row) for row in step.ended]
        seen = step.observation["state"]
    np.testing.assert_array_equal(batch.last_observation["state"], seen)
    assert next(reached, None) is None
    assert ended == list(zip(*np.nonzero(batch.ended), strict=True))
    assert episodes.rows.tolist() == [row for _, row in ended]
    assert len(ended) > 12


def test_the_next_batch_begins_where_the_last_one_stopped():
    whole, halves = runner(4), runner(4)

    batch, episodes = whole.collect(Wild(), 50)
    first, second = halves.collect(Wild(), 20), halves.collect(Wild(), 30)

    for name, array in parts(batch).items():
        if not name.startswith("last."):
            both = np.concatenate([parts(first[0])[name], parts(second[0])[name]])
            np.testing.assert_array_equal(array, both)
    np.testing.assert_array_equal(
        first[0].last_observation["state"], second[0].observation["state"][0]
    )
    np.testing.assert_array_equal(
        episodes.reward, np.concatenate([first[1].reward, second[1].reward])
    )


def test_the_rewards_add_up_to_the_episodes_returns():
    one = runner(6)

    batch, episodes = one.collect(Wild(), 80)

    returns, running = [], np.zeros(6)
    for t in range(80):
        running += batch.reward[t]
        for row in np.flatnonzero(batch.ended[t]):
            returns.append(running[row])
            running[row] = 0
    np.testing.assert_allclose(episodes.reward, returns, atol=1e-5)
    assert len(returns) > 12
    still_open = one.env.save()["return"]
    assert episodes.reward.sum() + still_open.sum() == pytest.approx(batch.reward.sum(), abs=1e-3)


@pytest.mark.parametrize("reward", ["racing", str(REWARD)], ids=["named", "file"])
def test_two_runners_with_half_the_rows_collect_what_one_with_all_does(reward):
    given = {"reward": reward, "start.direction": "alternate"}
    together = runner(6, **given)
    halves = [runner(3, first_row=first, **given) for first in (0, 3)]

    batch, episodes = together.collect(Wild(), 60)
    apart = [half.collect(Wild(), 60) for half in halves]

    for name, array in parts(batch).items():
        both = np.concatenate([parts(half)[name] for half, _ in apart], axis=1)
        np.testing.assert_array_equal(array, both)
    row = np.nonzero(batch.ended)[1]
    for chosen, (half, ended) in zip((row < 3, row >= 3), apart, strict=True):
        np.testing.assert_array_equal(batch.reached["state"][chosen], half.reached["state"])
        np.testing.assert_array_equal(episodes.status[chosen], ended.status)
        assert chosen.sum() > 6


@pytest.mark.parametrize("reward", ["racing", str(REWARD)], ids=["named", "file"])
def test_what_was_saved_collects_the_same_in_a_new_runner(reward):
    first = runner(6, reward=reward)
    first.collect(Wild(), 25)

    saved = first.save()
    ahead, ended_ahead = first.collect(Wild(), 50)
    second = runner(6, reward=reward)
    second.restore(saved)
    again, ended_again = second.collect(Wild(), 50)

    for name, array in parts(ahead).items():
        np.testing.assert_array_equal(array, parts(again)[name])
    np.testing.assert_array_equal(ahead.reached["state"], again.reached["state"])
    for name, values in vars(ended_ahead).items():
        np.testing.assert_array_equal(values, getattr(ended_again, name))
    assert len(ended_ahead.rows) > 6


def test_draws_depend_on_the_seed_and_differ_between_cars_and_steps():
    one, other = (runner(4, seed=seed).collect(Wild(), 10)[0] for seed in (1, 2))

    assert len(np.unique(one.log_prob)) == 40
    assert not np.isin(one.log_prob, other.log_prob).any()


def test_a_batch_without_an_end_has_empty_records_of_the_right_kind():
    batch, episodes = runner(2, rules__time_limit=60).collect(Wild(), 1)

    assert batch.reached["state"].shape == (0, 27)
    assert {name: len(values) for name, values in vars(episodes).items()} == dict.fromkeys(
        vars(episodes), 0
    )
    assert np.zeros(2)[episodes.rows].shape == (0,)


def test_the_policy_is_told_which_rows_begin_an_episode():
    class Listening(Wild):
        told = []  # noqa: RUF012

        def act(self, observation, uniform, fresh):
            self.told.append(fresh.copy())
            return super().act(observation, uniform, fresh)

    policy, one = Listening(), runner(6)

    first, _ = one.collect(policy, 30)
    second, _ = one.collect(policy, 30)

    ended = np.concatenate([first.ended, second.ended])
    assert ended.any()
    told = np.stack(policy.told)
    assert told[0].all()
    assert np.array_equal(told[1:], ended[:-1])


def test_only_what_is_asked_for_is_observed():
    one, other = (runner(6, observation__actor=["state", "camera"], **SMALL) for _ in range(2))

    some, _ = one.collect(Wild(), 30, names=("state",))
    every, _ = other.collect(Wild(), 30)

    assert some.reached["state"].shape[0] == some.ended.sum() > 0
    for seen in (some.observation, some.last_observation, some.reached):
        assert list(seen) == ["state"]
    np.testing.assert_array_equal(some.observation["state"], every.observation["state"])


def test_a_camera_that_was_not_watched_shows_the_present_at_once():
    # 0.2 s are 3 steps: an image of the time before the gap would be shown for 3 steps.
    late = {"observation__actor": ["camera"], "observation.camera.clock.latency": 0.2, **SMALL}
    one = runner(6, rules__time_limit=60.0, **late)
    one.collect(Wild(), 5, names=("camera", "state"))

    one.collect(Wild(), 9, names=("state",))
    batch, _ = one.collect(Wild(), 1)

    now = runner(6, rules__time_limit=60.0, observation__actor=["camera"], **SMALL)
    now.collect(Wild(), 14)
    np.testing.assert_array_equal(
        batch.observation["camera"][0], now.collect(Wild(), 1)[0].observation["camera"][0]
    )


def test_a_change_of_what_is_watched_survives_a_restart():
    late = {"observation__actor": ["camera"], "observation.camera.clock.latency": 0.2, **SMALL}
    one, other = (runner(6, **late) for _ in range(2))
    one.collect(Wild(), 5, names=("state",))

    other.restore(one.save())

    for _ in range(2):
        pair = [r.collect(Wild(), 3, names=("state", "camera"))[0] for r in (one, other)]
        for name, seen in pair[0].observation.items():
            np.testing.assert_array_equal(seen, pair[1].observation[name])


def test_a_batch_tells_failing_from_the_clock():
    batch, episodes = runner(64, rules__time_limit=1.2).collect(Wild(), 60)

    assert batch.failed.sum() == np.isin(episodes.status, (2, 3, 4, 6)).sum() > 0
    assert batch.truncated.sum() == (episodes.status == 5).sum() > 0
    assert not (batch.failed & batch.truncated).any()


def test_a_batch_of_episodes_ends_with_the_episode_that_makes_them_enough():
    one, other = runner(6), runner(6)
    whole, ended = other.collect(Wild(), 60)
    count = np.cumsum((whole.terminated | whole.truncated).sum(axis=1))
    assert len(ended.rows) > 9

    batch, episodes = one.collect(Wild(), 60, episodes=5)
    again, _ = one.collect(Wild(), 60, episodes=4)

    steps = int(np.argmax(count >= 5)) + 1
    assert batch.steps == steps
    assert len(episodes.rows) == count[steps - 1]
    # the next one begins to count anew, and goes on where the first one ended
    further = int(np.argmax(count >= count[steps - 1] + 4)) + 1
    assert again.steps == further - steps
    for name, array in parts(whole).items():
        if not name.startswith("last."):
            both = np.concatenate([parts(batch)[name], parts(again)[name]])
            np.testing.assert_array_equal(both, array[:further], err_msg=name)


def test_a_batch_of_episodes_has_no_more_than_its_steps():
    batch, episodes = runner(3).collect(Wild(), 4, episodes=1000)

    assert batch.steps == 4
    assert len(episodes.rows) < 1000
