"""The environment: what it promises to learners, to Gymnasium and to DeepRacer's users."""

import json
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import hotlap  # noqa: F401, registers the environments
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError, HotlapError, MissingFieldError
from hotlap.gym import SingleEnv, make_env, make_vector_env
from hotlap.sim.native import NativeSimulator
from hotlap.tasks.rules import Status
from hotlap.track import load_track
from hotlap.vehicle import VEHICLES

DEEPRACER = Path(__file__).parents[1] / "examples" / "deepracer" / "reward_function.py"
FREE = {"rules.off_track": "never", "rules.reversed_steps": 0, "rules.immobilized_steps": 0}
"""Only the clock ends an episode."""
FREE_KEYS = {name.replace(".", "__"): value for name, value in FREE.items()}
SMALL = {"observation.camera.width": 32, "observation.camera.height": 24}


@cache
def course(name):
    return load_track(name)


def settings(**given):
    named = {name.replace("__", "."): value for name, value in given.items()}
    return resolve(EnvSettings, {"track": "oval"}, named)


def actions(steps, rows, *, first_row=0, seed=0):
    """Draw wild actions that depend on the global row alone."""
    drawn = [
        np.random.default_rng([seed, first_row + row]).uniform(-1.2, 1.2, (steps, 2))
        for row in range(rows)
    ]
    return np.stack(drawn, axis=1).astype(np.float32)


def follow(env, speed):
    """Keep all cars near the centre line at one speed [m/s], as continuous actions."""
    state, ranges = env.state, env.settings.actions
    angle = np.degrees(0.2 * state.curvature - 1.2 * state.n - 0.8 * state.heading_error)
    steering = angle / ranges.steering_high_deg
    middle = (ranges.speed_high + ranges.speed_low) / 2
    share = (speed - middle) / (ranges.speed_high - middle)
    return np.stack([np.clip(steering, -1, 1), np.full(env.rows, share)], axis=1)


def record(env, drive):
    """Drive, and return everything that came of it as one long list of arrays."""
    found = []
    for action in drive:
        t = env.advance(action)
        found += [*t.observation.values(), t.reward, t.terminated, t.truncated, t.ended]
        found += [*t.reached.values(), *vars(t.episodes).values()]
    return found


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


# --- Gymnasium ---


@pytest.mark.parametrize("seen", ["state", "camera", ["state", "camera"]], ids=str)
@pytest.mark.parametrize("how", ["continuous", "grid"])
def test_gymnasium_finds_nothing_wrong_with_one_car(seen, how):
    env = gymnasium.make(
        "hotlap/TimeTrial-v0",
        track="oval",
        observation=seen,
        actions=how,
        render_mode="rgb_array",
    )

    check_env(env.unwrapped)  # warnings are errors here


def test_one_car_is_made_by_its_id_and_driven():
    env = gymnasium.make("hotlap/TimeTrial-v0", track="oval", **{"rules.time_limit": 0.3})

    observation, info = env.reset(seed=1)
    steps = [env.step(env.action_space.sample()) for _ in range(5)]

    assert observation in env.observation_space
    assert set(info) == {"s", "n", "speed", "travelled"}
    # 0.3 s at 15 Hz are 4.5 steps, rounded to 4
    assert [step[3] for step in steps[:4]] == [False, False, False, True]
    assert steps[3][4]["status"] == "time_up"
    assert not any(step[2] for step in steps[:4])


def test_many_cars_are_made_by_their_id():
    envs = gymnasium.make_vec("hotlap/TimeTrial-v0", num_envs=3, track="oval", seed=5)

    observation, info = envs.reset()

    assert isinstance(envs.unwrapped, VectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert observation.shape == (3, envs.single_observation_space.shape[0])
    assert observation in envs.observation_space
    assert envs.step(envs.action_space.sample())[1].shape == (3,)
    assert info == {}
    np.testing.assert_array_equal(observation, VectorEnv(settings(), 3, seed=5).begin()["state"])


def test_gymnasiums_time_trial_is_over_three_laps_unless_said_otherwise():
    assert make_vector_env(1, track="oval").settings.rules.laps == 3
    assert make_vector_env(1, track="oval", **{"rules.laps": 0}).settings.rules.laps == 0


@pytest.mark.parametrize(
    ("seen", "names"),
    [("state", ["state"]), ("camera", ["camera"]), (("camera", "state"), ["state", "camera"])],
)
def test_an_observation_has_the_parts_asked_for(seen, names):
    env = make_vector_env(2, track="oval", observation=seen)

    observation, _ = env.reset()

    parts = observation if len(names) > 1 else {names[0]: observation}
    shapes = {"state": (2, 27), "camera": (2, 120, 160, 1)}
    assert {name: part.shape for name, part in parts.items()} == {n: shapes[n] for n in names}
    assert observation in env.observation_space


def test_what_only_the_critic_sees_is_there_too():
    env = VectorEnv(settings(observation__actor=["camera"], **SMALL), 1)

    assert list(env.begin()) == ["state", "camera"]
    assert env.begin()["camera"].shape == (1, 24, 32, 1)


def test_ended_rows_keep_what_they_saw_and_start_anew_in_the_same_step():
    # The same cars with more time: what they see at the step that cuts the others off
    steps, rows = 8, 5
    short = make_vector_env(rows, 3, track="oval", **FREE, **{"rules.time_limit": steps / 15})
    long = make_vector_env(rows, 3, track="oval", **FREE)
    short.reset()
    long.reset()
    drive = actions(steps, rows)

    for action in drive[:-1]:
        *_, truncated, info = short.step(action)
        long.step(action)
        assert not truncated.any()
        assert info == {}
    fresh, _, terminated, truncated, info = short.step(drive[-1])
    reached, *_ = long.step(drive[-1])

    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(np.stack(info["final_obs"]), reached)
    assert (short.state.steps == 0).all()
    assert (short.state.episode == 1).all()
    np.testing.assert_array_equal(fresh, short.observe()["state"])
    assert np.abs(fresh - reached).max() > 0.1


def test_rows_that_drive_on_are_not_in_the_final_infos():
    env = make_vector_env(40, 0, track="oval", **{"start.kind": "random"})
    twin = VectorEnv(env.settings, 40)
    env.reset()
    twin.begin()

    for action in actions(60, 40):
        observation, reward, terminated, truncated, info = env.step(action)
        t = twin.advance(action)
        if 0 < len(t.ended) < 40:
            break

    assert np.flatnonzero(info["_final_obs"]).tolist() == t.ended.tolist()
    assert [row for row, seen in enumerate(info["final_obs"]) if seen is not None] == list(t.ended)
    for k, row in enumerate(t.ended):
        np.testing.assert_array_equal(info["final_obs"][row], t.reached["state"][k])
    assert (terminated | truncated).nonzero()[0].tolist() == t.ended.tolist()
    episode = info["final_info"]["episode"]
    np.testing.assert_array_equal(episode["_r"], info["_final_info"])
    np.testing.assert_array_equal(episode["r"][t.ended], t.episodes.reward)
    np.testing.assert_array_equal(episode["l"][t.ended], t.episodes.steps)
    np.testing.assert_array_equal(observation, t.observation["state"])
    np.testing.assert_array_equal(reward, t.reward)


def test_a_render_is_the_cars_picture_and_only_when_asked_for():
    env = SingleEnv(settings(), render_mode="rgb_array")
    env.reset(seed=0)

    picture = env.render()

    assert (picture.shape, picture.dtype) == ((120, 160, 3), np.uint8)
    assert len(np.unique(picture)) > 5
    assert SingleEnv(settings()).render() is None


# --- repeatability ---


def test_the_same_seed_brings_the_same_bytes_and_another_one_others():
    drive = actions(60, 8)

    def run(seed):
        env = VectorEnv(settings(), 8, seed=seed)
        return [*env.begin().values(), *record(env, drive)]

    assert_same(run(1), run(1))
    assert np.abs(run(1)[0] - run(2)[0]).max() > 0.1


def test_a_seeded_reset_forgets_all_that_was_driven():
    env = VectorEnv(settings(), 4, seed=1)
    first, _ = env.reset(seed=7)
    before = [env.step(a)[0] for a in actions(40, 4)]

    again, _ = env.reset(seed=7)
    after = [env.step(a)[0] for a in actions(40, 4)]
    unseeded, _ = env.reset()

    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(before, after)
    assert np.abs(unseeded - again).max() > 0.1
    assert_same([first], list(VectorEnv(settings(), 4, seed=7).begin().values()))


def test_a_seeded_reset_also_forgets_what_a_reward_file_remembers(tmp_path):
    path = tmp_path / "clock.py"
    path.write_text("def reward_function(params):\n    return params['sim_time']\n")
    env = VectorEnv(settings(reward=str(path)), 2)

    def run():
        env.reset(seed=3)
        return [env.step(a)[1] for a in actions(20, 2)]

    np.testing.assert_array_equal(run(), run())


def test_a_seed_given_to_reset_is_saved_too():
    given = settings(rules__time_limit=0.5)
    first, second = VectorEnv(given, 3, seed=1), VectorEnv(given, 3, seed=1)
    first.reset(seed=9)
    second.begin()

    second.restore(first.save())

    drive = actions(20, 3)
    assert_same(record(first, drive), record(second, drive))


@pytest.mark.parametrize("kind", ["random", "round_robin", "line"])
def test_a_row_drives_alone_as_it_does_among_others(kind):
    rows, steps = 7, 80
    given = settings(
        track="oval,easy", start={"kind": kind, "direction": "alternate"}, rules__time_limit=2
    )
    everyone = VectorEnv(given, rows, seed=4, desynchronize=True)
    few = VectorEnv(given, 2, seed=4, first_row=3, desynchronize=True)

    seen = [(everyone.begin()["state"][3:5], few.begin()["state"])]
    ended = 0
    for all_, some in zip(actions(steps, rows), actions(steps, 2, first_row=3), strict=True):
        big, small = everyone.advance(all_), few.advance(some)
        seen += [(big.observation["state"][3:5], small.observation["state"])]
        seen += [(big.reward[3:5], small.reward), (big.terminated[3:5], small.terminated)]
        ended += len(small.ended)

    for one, other in seen:
        np.testing.assert_array_equal(one, other)
    assert ended >= 4


def test_threads_change_nothing():
    rows = 2200
    drive = actions(8, rows)

    def run(threads):
        env = VectorEnv(settings(rules__time_limit=0.3), rows, threads=threads)
        return [*env.begin().values(), *record(env, drive)]

    assert_same(run(1), run(2))


@pytest.mark.parametrize("reward", ["racing", "example", "own"])
def test_what_was_saved_continues_to_the_bit(reward, tmp_path):
    own = tmp_path / "own.py"  # reads all that the params remember
    own.write_text(
        "def reward_function(p):\n    return p['progress'] + p['steps'] + p['sim_time']\n"
    )
    reward = {"example": str(DEEPRACER), "own": str(own)}.get(reward, reward)
    # the first goes on before the second takes over: nothing it saved may change under it
    given = settings(
        reward=reward,
        rules={"time_limit": 1.5, "laps": 1},
        start={"kind": "random", "direction": "alternate"},
    )
    rows = 12
    drive = actions(90, rows)
    first = VectorEnv(given, rows, seed=2, desynchronize=True)
    first.begin()
    record(first, drive[:40])

    saved = first.save()
    ahead = record(first, drive[40:])
    second = VectorEnv(given, rows, seed=2)
    second.begin()
    second.restore(saved)
    again = record(second, drive[40:])

    assert_same(ahead, again)
    assert sum(len(np.atleast_1d(a)) for a in ahead[4::12]) > rows  # episodes ended meanwhile


# --- DeepRacer's timing ---

RECORDER = """
import json
from pathlib import Path

LOG = Path(__file__).with_suffix(".jsonl")

def reward_function(params):
    params.pop("waypoints")
    with LOG.open("a") as log:
        log.write(json.dumps(params) + "\\n")
    return 100.0 + params["steps"]
"""


@pytest.fixture
def recorded(tmp_path):
    """Settings with a reward function that writes down its params, and a way to read them."""
    path = tmp_path / "recorder.py"
    path.write_text(RECORDER)

    def build(timing="deepracer", **given):
        return settings(
            reward={"kind": "file", "path": str(path), "timing": timing, "allow": ["write"]},
            actions={"kind": "list", "list": [[0, 1.0], [10, 2.0], [-20, 0.5], [0, 4.0]]},
            start__kind="line",
            **given,
        )

    def calls():
        return [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]

    return build, calls


def nose(state):
    """Where DeepRacer says that the car is: 14 cm ahead of its middle."""
    return [
        float(state.x[0] + 0.14 * np.cos(state.yaw[0])),
        float(state.y[0] + 0.14 * np.sin(state.yaw[0])),
    ]


def drive_off(env):
    """Straight on at full speed until the episode ends: what was before and after each step."""
    env.begin()
    before, after, transitions = [], [], []
    for _ in range(100):
        before.append(env.state)
        transitions.append(env.advance(np.array([3])))
        after.append(env.previous)
        if len(transitions[-1].ended):
            return before, after, transitions
    raise AssertionError("it never left the road")


def test_deepracers_reward_sees_the_pose_before_the_action_and_the_action(recorded):
    build, calls = recorded
    env = VectorEnv(build(), 1)
    env.begin()

    before, rewards = [], []
    for action in (3, 1, 2, 0):
        before.append(env.state)
        rewards.append(float(env.advance(np.array([action])).reward[0]))

    # the first step only puts the car down; the function first sees step 2
    seen = calls()
    assert [call["steps"] for call in seen] == [2, 3, 4]
    assert rewards == [0, 102, 103, 104]
    assert [(call["steering_angle"], call["speed"]) for call in seen] == [
        (10, 2),
        (-20, 0.5),
        (0, 1),
    ]
    for call, state in zip(seen, before[1:], strict=True):
        np.testing.assert_allclose([call["x"], call["y"]], nose(state), atol=1e-5)
    assert seen[1]["x"] > seen[0]["x"] + 0.01


def test_deepracers_off_track_state_is_paid_one_step_later_with_its_end(recorded):
    build, calls = recorded
    env = VectorEnv(build(), 1)

    before, after, transitions = drive_off(env)

    # the wheels leave in the step before the last; only the last pays for it and ends
    assert [state.wheels_off[0] == 4 for state in after[-2:]] == [True, True]
    assert after[-3].wheels_off[0] < 4
    assert [bool(t.terminated[0]) for t in transitions[-2:]] == [False, True]
    assert [call["is_offtrack"] for call in calls()[-2:]] == [False, True]
    assert calls()[-1]["steps"] == len(transitions)
    assert transitions[-1].reward[0] == 100 + len(transitions)
    assert transitions[-1].episodes.status.tolist() == [Status.OFF_TRACK]
    np.testing.assert_allclose([calls()[-1]["x"], calls()[-1]["y"]], nose(before[-1]), atol=1e-5)


def test_deepracers_time_limit_truncates_one_step_later(recorded):
    build, _ = recorded
    env = VectorEnv(build(rules__time_limit=5 / 15), 1)
    env.begin()

    ends = [env.advance(np.array([0])) for _ in range(6)]

    assert [bool(t.truncated[0]) for t in ends] == [False] * 5 + [True]
    assert not any(t.terminated[0] for t in ends)
    assert env.state.steps[0] == 0


def test_the_modern_timing_sees_the_pose_after_the_action_and_ends_at_once(recorded):
    build, calls = recorded
    env = VectorEnv(build("modern"), 1)

    _, after, transitions = drive_off(env)

    seen = calls()
    assert [call["steps"] for call in seen] == list(range(1, len(transitions) + 1))
    for call, state in zip(seen, after, strict=True):
        np.testing.assert_allclose([call["x"], call["y"]], nose(state), atol=1e-5)
    assert [state.wheels_off[0] == 4 for state in after[-2:]] == [False, True]
    assert [call["is_offtrack"] for call in seen[-2:]] == [False, True]
    assert [bool(t.terminated[0]) for t in transitions[-2:]] == [False, True]


def test_the_direction_alternates_and_is_reversed_follows(recorded):
    build, calls = recorded
    env = VectorEnv(build(rules__time_limit=3 / 15, start__direction="alternate"), 1)
    env.begin()

    directions = []
    for _ in range(12):
        directions.append(env.simulator.tracks[int(env.state.track[0])].reverse_direction)
        env.advance(np.array([0]))

    # an episode takes 3 steps and the one that pays for its end; calls are made from step 2 on
    assert directions == [False] * 4 + [True] * 4 + [False] * 4
    assert [call["is_reversed"] for call in calls()] == [False] * 3 + [True] * 3 + [False] * 3
    steps = [call["steps"] for call in calls()]
    assert steps == [2, 3, 4] * 3


# --- starts ---


def places(env, episodes):
    """Where each row starts, over some episodes that last one step: (episodes, rows) shares."""
    env.begin()
    found = []
    for _ in range(episodes):
        found.append(env.state.s / env.lengths[env.state.track])
        env.advance(np.zeros((env.rows, 2)))
    return np.array(found)


def test_round_robin_goes_on_by_a_twentieth_of_the_lap():
    env = VectorEnv(settings(start__kind="round_robin", rules__time_limit=1e-3), 2)

    found = places(env, 22)

    turns = np.arange(22)[:, None] + np.arange(2)
    np.testing.assert_allclose(found, turns * 0.05 % 1, atol=2e-6)
    assert (env.state.vx == 0).all()
    assert (env.state.n == 0).all()


def test_the_start_line_may_be_moved_and_the_advance_chosen():
    start = {"kind": "round_robin", "offset": 0.4, "advance": 0.25}
    env = VectorEnv(settings(start=start, rules__time_limit=1e-3), 1)

    np.testing.assert_allclose(places(env, 4)[:, 0], [0.4, 0.65, 0.9, 0.15], atol=2e-6)


def test_random_starts_fill_their_ranges_and_not_more():
    env = VectorEnv(
        settings(start={"lateral": 0.25, "heading_deg": 10, "speed": 3, "kind": "random"}), 4000
    )
    env.begin()
    state = env.state

    # the half road of the oval is 0.4 m
    for value, most in ((state.n, 0.1), (state.heading_error, np.radians(10))):
        assert np.abs(value).max() == pytest.approx(most, rel=0.03)
        assert np.abs(value).max() <= most * 1.01
        assert abs(value.mean()) < 0.05 * most
    assert 2.9 < state.vx.max() <= 3
    assert np.mean(state.vx == 0) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(
        np.quantile(state.s / env.lengths[0], [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03
    )


def test_spread_cars_stand_evenly_and_the_first_one_on_the_line():
    env = VectorEnv(settings(start__kind="spread"), 8)
    env.begin()

    np.testing.assert_allclose(env.state.s / env.lengths[0], np.arange(8) / 8, atol=2e-6)
    assert (env.state.n[0], env.state.heading_error[0]) == (0, pytest.approx(0, abs=1e-6))
    assert (np.abs(env.state.n[1:]) > 0).all()
    assert np.abs(env.state.n).max() <= 0.2 * 0.4 * 1.01


def test_tracks_take_turns_over_the_cars():
    env = VectorEnv(settings(track="oval, straight,"), 5)
    env.begin()

    assert env.state.track.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_allclose(env.lengths, [course("oval").length, course("straight").length])


def test_a_reversed_start_turns_every_track():
    env = VectorEnv(settings(start__direction="reversed", start__kind="line"), 1)
    env.begin()

    assert [t.reverse_direction for t in env.simulator.tracks] == [True]
    forward = VectorEnv(settings(start__kind="line"), 1)
    forward.begin()
    assert np.cos(env.state.yaw - forward.state.yaw) == pytest.approx(-1, abs=1e-3)


def test_one_car_starts_where_a_row_of_many_would():
    # a reset after an end takes the episode that the ending step has begun
    start = {"kind": "round_robin", "direction": "alternate"}
    env = SingleEnv(settings(start=start, rules__time_limit=3 / 15))

    found = []
    for _ in range(4):
        _, info = env.reset()
        found.append((round(info["s"] / course("oval").length, 4), int(env.state.track[0])))
        while not env.step(np.zeros(2))[3]:
            pass

    assert found == [(0.0, 0), (0.05, 1), (0.1, 0), (0.15, 1)]


def test_a_reset_sees_what_is_there_although_the_end_was_not_heeded():
    env = SingleEnv(settings(rules__time_limit=3 / 15))
    env.reset()
    for _ in range(5):
        seen = env.step(np.ones(2))[0]

    fresh, info = env.reset()

    assert fresh[0] == pytest.approx(info["speed"], abs=1e-6)
    assert fresh[5] == pytest.approx(info["n"], abs=1e-6)
    assert info["travelled"] == 0
    assert np.abs(fresh - seen).max() > 0.01


def test_the_last_infos_and_state_are_those_that_the_episode_reached():
    env = SingleEnv(settings(start__kind="line", rules__time_limit=1.0))
    env.reset()

    infos = [env.step(np.array([0.0, 0.5]))[4] for _ in range(15)]

    assert infos[-1]["status"] == "time_up"
    assert infos[-1]["s"] > infos[-2]["s"] > 0.5
    assert infos[-1]["speed"] > 1.5
    assert env.state.s[0] == pytest.approx(infos[-1]["s"])
    _, info = env.reset()
    assert (info["s"], info["speed"], info["travelled"]) == (0, 0, 0)


# --- laps and clocks ---


def test_a_lap_takes_its_length_over_the_speed():
    env = VectorEnv(settings(rules__laps=2, start__kind="line"), 1)
    env.begin()
    length = course("oval").length

    speeds, ended = [], False
    while not ended:  # the first lap is slow, the second one counts
        t = env.advance(follow(env, 0.8 if env.state.travelled[0] < length - 1 else 1.0))
        ended = len(t.ended) == 1
        speeds.append(float(np.hypot(env.previous.vx, env.previous.vy)[0]))

    speed = np.mean(speeds[-200:])
    assert 0.95 < speed < 1.05
    assert t.episodes.lap_time[0] == pytest.approx(length / speed, rel=0.01)
    assert t.episodes.status.tolist() == [Status.LAP_COMPLETE]
    assert t.episodes.completion.tolist() == [1.0]
    assert t.episodes.steps[0] == len(speeds)
    assert (t.terminated[0], t.truncated[0]) == (True, False)
    assert env.previous.travelled[0] == pytest.approx(2 * length, abs=0.1)


def test_a_lap_that_was_under_way_when_saved_gets_its_own_time():
    given = settings(rules__laps=3, start__kind="line", rules__time_limit=100)
    first, second = VectorEnv(given, 1), VectorEnv(given, 1)
    first.begin()
    second.begin()
    laps = 0.0
    while laps < 1.5:
        first.advance(follow(first, 1.5))
        laps = float(first.state.travelled[0] / first.lengths[0])

    saved = first.save()
    ends = []
    for env in (first, second):
        if env is second:
            second.restore(saved)
        t = env.advance(follow(env, 0.9))
        while not len(t.ended):
            t = env.advance(follow(env, 0.9))
        ends.append(t.episodes)

    # the first lap was the fastest one
    assert ends[0].lap_time[0] == pytest.approx(16 / 1.5, rel=0.05)
    for name, values in vars(ends[0]).items():
        np.testing.assert_array_equal(values, getattr(ends[1], name))


def test_the_first_of_two_laps_includes_getting_under_way():
    env = VectorEnv(settings(rules__laps=1, start__kind="line"), 1)
    env.begin()

    steps, ended = 0, False
    while not ended:
        t = env.advance(follow(env, 2.0))
        ended, steps = bool(len(t.ended)), steps + 1

    # crossed within the last step
    assert (steps - 1) / 15 <= t.episodes.lap_time[0] <= steps / 15


def test_an_unfinished_lap_has_no_time_and_is_a_share_of_the_lap():
    env = VectorEnv(settings(rules__time_limit=2.0, start__kind="line", **FREE_KEYS), 1)
    env.begin()

    for _ in range(30):
        t = env.advance(follow(env, 2.0))

    assert t.episodes.lap_time.tolist() == [np.inf]
    assert t.episodes.status.tolist() == [Status.TIME_UP]
    share = env.previous.travelled[0] / course("oval").length
    assert t.episodes.completion[0] == pytest.approx(share, rel=1e-6)
    assert 0.1 < share < 0.3
    assert (t.terminated[0], t.truncated[0]) == (False, True)


def first_ends(desynchronize):
    env = VectorEnv(settings(rules__time_limit=2.0, **FREE_KEYS), 64, desynchronize=desynchronize)
    env.begin()
    ends = [[], []]
    for _ in range(60):
        t = env.advance(np.zeros((64, 2)))
        for row, steps in zip(t.ended, t.episodes.steps, strict=True):
            ends[0 if env.state.episode[row] == 1 else 1].append(int(steps))
    return ends


def test_first_clocks_are_spread_in_training_and_second_ones_are_whole():
    first, second = first_ends(True)

    # uniform over 1..30 steps
    assert len(first) == 64
    assert len(set(first)) > 20
    assert np.mean(first) == pytest.approx(15.5, abs=4)
    assert set(second) == {30}


def test_without_spreading_all_clocks_run_together():
    first, second = first_ends(False)

    assert first == [30] * 64
    assert second == [30] * 64


def test_the_sum_of_the_rewards_is_the_episodes_return():
    env = VectorEnv(settings(rules__time_limit=1.0), 6)
    env.begin()

    sums, checked = np.zeros(6), 0
    for action in actions(60, 6):
        t = env.advance(action)
        sums += t.reward
        np.testing.assert_allclose(t.episodes.reward, sums[t.ended], atol=1e-5)
        sums[t.ended] = 0
        checked += len(t.ended)

    assert checked > 10


# --- wrong use ---


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: settings(track=",").tracks(), ConfigError, "track: no track given"),
        (lambda: VectorEnv(settings(track="ovall"), 1), HotlapError, "did you mean|oval"),
        (lambda: VectorEnv(settings(), 2).reset(seed=[1, 2]), ConfigError, "one integer seeds all"),
        (lambda: SingleEnv(settings(), render_mode="human"), ConfigError, "render_mode: choose"),
        (lambda: make_env(trak="oval"), ConfigError, "did you mean track"),
        (lambda: VectorEnv(settings(vehicle="truck"), 1), ConfigError, "truck"),
    ],
)
def test_wrong_use_is_told_before_work_starts(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_world_without_the_sensor_asked_for_is_refused():
    blind = NativeSimulator([course("oval")], VEHICLES["deepracer"], rows=1)

    with pytest.raises(MissingFieldError, match="the task reads camera; this simulator fills only"):
        VectorEnv(settings(observation__actor=["camera"]), 1, simulator=blind)


# --- Stable-Baselines3 ---


@pytest.fixture
def sb3():
    return pytest.importorskip("stable_baselines3")


@pytest.mark.sb3
@pytest.mark.filterwarnings("ignore")  # theirs
def test_stable_baselines_checks_our_environment(sb3):
    from stable_baselines3.common.env_checker import check_env as check

    for seen in ("state", "camera"):
        check(gymnasium.make("hotlap/TimeTrial-v0", track="oval", observation=seen).unwrapped)


@pytest.mark.sb3
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("copies", [1, 4])
def test_stable_baselines_trains_on_it_unchanged(sb3, copies):
    from stable_baselines3.common.env_util import make_vec_env

    limits = {"track": "oval", "rules.time_limit": 2.0}
    env = (
        gymnasium.make("hotlap/TimeTrial-v0", **limits)
        if copies == 1
        else make_vec_env("hotlap/TimeTrial-v0", n_envs=copies, seed=0, env_kwargs=limits)
    )

    learner = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=2, device="cpu")
    learner.learn(256)

    episodes = [episode["r"] for episode in learner.ep_info_buffer]
    assert learner.num_timesteps == 256
    assert len(episodes) >= 2
    assert np.isfinite(episodes).all()
