"""Rewards: the named ones by hand, and what a user's own function may do wrong."""

import sys

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import RewardError
from hotlap.simulator import Command
from hotlap.tasks.rewards import (
    CentreReward,
    FunctionReward,
    LimitReward,
    ProgressReward,
    RacingReward,
    array_reward,
    limit_reward,
)
from hotlap.tasks.rules import Ended, Status

EVERY = list(Status)
FAILED = [Status.OFF_TRACK, Status.IMMOBILIZED, Status.REVERSED, Status.CRASHED]


def ended(*status):
    return Ended(np.array(status, np.int32))


def command(rows):
    return Command(steering=np.zeros(rows, np.float32), speed=np.ones(rows, np.float32))


def paid(reward, before, after, how):
    value = reward(before, command(len(after.x)), after, how)
    assert value.dtype == np.float32
    return value


# --- by name ---


def test_progress_pays_metres_and_fines_failures_alone(state):
    after = state(7, advance=[0.1, 0.2, 0.3, 0.0, -0.1, 0.5, 0.6])

    value = paid(ProgressReward(off_track_fine=2), state(7), after, ended(*EVERY))

    # in progress, lap complete, off track, standing, reversed, time up, crashed
    np.testing.assert_allclose(value, [0.1, 0.2, 0.3 - 2, -2, -0.1 - 2, 0.5, 0.6 - 2], rtol=1e-6)


def test_centre_pays_by_the_share_of_the_half_road_that_is_left(state):
    # 0.4 m to the left, 0.5 m to the right
    n = [0.0, 0.1, -0.25, 0.4, -0.6, 0.0, 0.0]
    advance = [0.1, 0.1, 0.1, 0.1, 0.1, 0.0, -0.1]
    after = state(7, n=n, advance=advance, left=0.4, right=0.5)

    value = paid(CentreReward(), state(7), after, ended(0, 0, 0, 0, Status.OFF_TRACK, 0, 0))

    # the last two do not move forward
    np.testing.assert_allclose(value, [1, 0.75, 0.5, 0, -1, 0, 0], atol=1e-6)


def test_the_limit_pays_the_seconds_that_the_fastest_lap_needs(state):
    """On a loop of 8 m, driven at 4 m/s for 4 m and at 2 m/s for 4 m: 3 s a lap, 0.1 m left."""
    when, beside = np.array([[0, 0.5, 1, 2, 3]], "f4"), np.full((1, 5), 0.1, "f4")
    loop = np.array([8], "f4"), np.array([True])
    reward = limit_reward(LimitReward(off_track_fine=5), when, beside, *loop)

    # a fast metre, a slow one, over the line, back over it, back, nothing, and off the road
    before = state(7, s=[1, 5, 7, 1, 3, 2, 5])
    after = state(7, s=[2, 6, 1, 7, 2, 2, 6])
    value = paid(reward, before, after, ended(0, 0, 0, 0, 0, 0, Status.OFF_TRACK))

    np.testing.assert_allclose(value, [0.25, 0.5, 0.75, -0.75, -0.25, 0, 0.5 - 5], atol=1e-6)

    aside = limit_reward(LimitReward(line_fine=2), when, beside, *loop)
    after = state(2, s=[2, 2], n=[0.1, -0.2])
    value = paid(aside, state(2, s=[1, 1]), after, ended(0, 0))
    np.testing.assert_allclose(value, [0.25, 0.25 - 2 * 0.3], atol=1e-6)


def test_each_car_is_paid_by_its_own_track_and_an_open_one_has_no_lap(state):
    when = np.array([[0, 1, 2], [0, 6, 9]], "f4")
    reward = limit_reward(
        LimitReward(),
        when,
        np.zeros((2, 3), "f4"),
        np.array([4, 6], "f4"),
        np.array([True, False]),
    )

    before, after = state(2, s=[0, 0], track=[0, 1]), state(2, s=[1, 6], track=[0, 1])
    value = paid(reward, before, after, ended(0, 0))

    np.testing.assert_allclose(value, [0.5, 9.0], atol=1e-6)


def test_a_lap_of_any_driver_earns_the_limit_of_the_lap():
    """What is paid is a difference of one function of the place: a lap's sum is the lap."""
    pytest.importorskip("casadi")
    env = VectorEnv(resolve(EnvSettings, {"track": "oval", "reward": "limit"}), 1)
    env.begin()
    earned, t = 0.0, None
    for _ in range(400):
        n, error = float(env.state.n[0]), float(env.state.heading_error[0])
        steering = np.clip(-2 * n - 1.5 * error + 0.3 * env.state.curvature[0] * 2, -1, 1)
        t = env.advance(np.array([[steering, -0.8]], np.float32))
        earned += float(t.reward[0])
        if env.state.travelled[0] >= env.lengths[0] or len(t.ended):
            break

    assert t is not None
    assert not len(t.ended)
    # 3.853 s by tests/limit; the last step goes a little over the line
    assert earned == pytest.approx(3.853, abs=0.05)


def test_racing_fines_speed_off_the_road_and_turns_of_the_wheel(state):
    before = state(3, steering=[0.1, -0.2, 0.3])
    after = state(3, steering=[0.3, -0.1, 0.3], advance=0.2, vx=[2, 3, 1], vy=[0, 4, 1])
    reward = RacingReward(off_track_fine=1, speed_fine=0.1, jerk_fine=0.5)

    value = paid(reward, before, after, ended(0, Status.OFF_TRACK, Status.LAP_COMPLETE))

    # 0.2 - 0.5 * 0.2;  0.2 - (1 + 0.1 * 25) - 0.5 * 0.1;  0.2
    np.testing.assert_allclose(value, [0.1, -3.35, 0.2], rtol=1e-6)


@pytest.mark.parametrize("reward", [ProgressReward(), CentreReward(), RacingReward()])
def test_a_complete_lap_and_the_clock_are_never_fined(reward, state):
    after = state(7, left=1, right=1, advance=0.1)

    value = paid(reward, state(7), after, ended(*EVERY))

    fined = {s for s, v in zip(EVERY, value, strict=True) if v < value[0]}
    assert fined == set(FAILED)


# --- a user's function ---

FINE = "def fast(before, command, after, ended):\n    return after.vx * command.speed\n"


def write(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return f"{path}:fast"


def load(function):
    return array_reward(FunctionReward(function=function))


def test_a_function_from_a_file_is_paid_over_arrays(tmp_path, state):
    reward = load(write(tmp_path, FINE))

    value = paid(reward, state(2), state(2, vx=[2, 3]), ended(0, 0))

    np.testing.assert_array_equal(value, [2, 3])


def test_a_function_from_a_module_of_the_working_folder_is_found(tmp_path, state, monkeypatch):
    write(tmp_path, FINE, "hotlap_test_module.py")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)

    reward = load("hotlap_test_module:fast")
    monkeypatch.delitem(sys.modules, "hotlap_test_module")

    np.testing.assert_array_equal(paid(reward, state(1), state(1, vx=2), ended(0)), [2])
    assert sys.path == path


def test_two_files_of_one_name_stay_apart(tmp_path, state):
    (tmp_path / "other").mkdir()
    first = load(write(tmp_path, FINE))
    second = load(write(tmp_path / "other", FINE.replace("vx", "vy")))

    after = state(1, vx=2, vy=5)

    assert paid(first, after, after, ended(0))[0] == 2
    assert paid(second, after, after, ended(0))[0] == 5


def test_a_file_may_define_dataclasses(tmp_path, state):
    head = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Gain:\n    gain: float = 1.0\n"
    )

    reward = load(write(tmp_path, head + FINE))

    assert paid(reward, state(1), state(1, vx=2), ended(0))[0] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"has no function fast; write def fast\(before, command, after, ended\)"),
        ("fast = 3", "has no function fast"),
        ("def fast(:", "cannot be loaded: SyntaxError"),
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError"),
        ("import sys; sys.exit(0)", "cannot be loaded: SystemExit"),
    ],
)
def test_a_file_without_a_usable_function_is_told(tmp_path, text, message):
    with pytest.raises(RewardError, match=message):
        load(write(tmp_path, text))


def test_a_missing_file_and_a_missing_module_are_told(tmp_path):
    with pytest.raises(RewardError, match=r"no file .*none\.py"):
        load(f"{tmp_path}/none.py:fast")
    with pytest.raises(RewardError, match="no_such_place cannot be loaded: ModuleNotFound"):
        load("no_such_place:fast")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1.0", r"returned float64 of shape \(\); .* for each of the 2 cars"),
        ("return after.vx[:1]", r"returned float32 of shape \(1,\)"),
        ("return after.vx[:, None]", r"returned float32 of shape \(2, 1\)"),
        ("return None", "returned object of shape"),
        ("return ['a', 'b']", "returned <U1 of shape"),
        ("return after.vx * 1j", "returned complex64 of shape"),
        ("return [1.0, float('nan')]", "returned nan for car 1; it must return finite numbers"),
        ("return [float('inf'), 0]", "returned inf for car 0"),
        ("return [0, 1e39]", r"returned 1e\+39 for car 1"),
        ("return after.speed", "AttributeError: .*speed"),
        ("return [1 // 0, 0]", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_function_that_fails_is_told_with_its_name(tmp_path, state, body, message):
    name = write(tmp_path, f"def fast(before, command, after, ended):\n    {body}\n")
    reward = load(name)

    with pytest.raises(RewardError, match=message) as caught:
        reward(state(2), command(2), state(2), ended(0, 0))

    assert str(caught.value).startswith(name)


def test_whole_numbers_are_numbers(tmp_path, state):
    text = "import numpy as np\ndef fast(b, c, after, e):\n    return np.arange(len(after.x))\n"

    value = paid(load(write(tmp_path, text)), state(3), state(3), ended(0, 0, 0))

    np.testing.assert_array_equal(value, [0, 1, 2])


def test_the_environment_pays_what_the_function_returns(tmp_path):
    text = "def fast(before, command, after, ended):\n    return after.steps + 10 * ended.status\n"
    settings = resolve(EnvSettings, {"reward": write(tmp_path, text), "rules.time_limit": 0.2})
    env = VectorEnv(settings, 2)
    env.begin()

    rewards = [env.advance(np.zeros((2, 2))).reward.tolist() for _ in range(4)]

    # three steps of 1/15 s: the third is cut off by the clock, whose status is 5
    assert rewards == [[1, 1], [2, 2], [53, 53], [1, 1]]
