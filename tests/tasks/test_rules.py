"""Rules: each one by a sequence of states, and which of them comes first."""

from itertools import pairwise

import numpy as np
import pytest

from hotlap.simulator import Surroundings
from hotlap.tasks.rules import Ended, Rules, RulesSettings, Status

DT = 0.1
LENGTHS = np.float32([10.0, 20.0])
CLOSED = np.array([True, True])
AWAY = {"off_track": "never", "reversed_steps": 0, "immobilized_steps": 0}
"""Rules that are switched off; the clock remains."""


def rules(rows=1, **given):
    made = Rules(RulesSettings(**(AWAY | given)), LENGTHS, CLOSED, rows=rows, dt=DT)
    made.begin(np.arange(rows))
    return made


def verdicts(judge, states):
    return [judge.judge(*pair).status.tolist() for pair in pairwise(states)]


def test_a_driving_car_drives_on(state):
    judge = Rules(RulesSettings(), LENGTHS, CLOSED, rows=1, dt=DT)
    judge.begin(np.arange(1))
    drive = [state(x=0.1 * t, advance=0.1, travelled=0.1 * t, steps=t) for t in range(100)]

    assert verdicts(judge, drive) == [[Status.IN_PROGRESS]] * 99


# --- off the road ---


@pytest.mark.parametrize(
    ("rule", "ended"),
    [
        ("all_wheels", [False, False, False, False, True]),
        ("any_wheel", [False, True, True, True, True]),
        ("never", [False] * 5),
    ],
)
def test_a_rule_says_how_many_wheels_must_be_off(state, rule, ended):
    after = state(5, x=1, wheels_off=np.arange(5), steps=1)

    status = rules(5, off_track=rule).judge(state(5), after).status

    np.testing.assert_array_equal(status, np.where(ended, Status.OFF_TRACK, Status.IN_PROGRESS))


def test_the_middle_of_the_car_counts_on_either_side(state):
    # 0.3 m to the left border, 0.5 m to the right one
    n = [0.29, 0.31, -0.49, -0.51, 0.0]
    after = state(5, x=1, n=n, left=0.3, right=0.5, wheels_off=4)

    status = rules(5, off_track="centre").judge(state(5), after).status

    assert status.tolist() == [0, Status.OFF_TRACK, 0, Status.OFF_TRACK, 0]


# --- standing and going back ---


def test_a_standing_car_is_stopped_when_the_count_is_full(state):
    judge = rules(immobilized_steps=3, immobilized_distance=0.01)

    x = [0.0, 0.005, 0.010, 0.015]

    assert verdicts(judge, [state(x=x_) for x_ in x]) == [[0], [0], [Status.IMMOBILIZED]]


def test_a_step_that_moves_starts_the_count_anew(state):
    judge = rules(immobilized_steps=3, immobilized_distance=0.01)

    # two short steps, one of 5 cm along y, two short ones again
    y = [0.0, 0.005, 0.010, 0.060, 0.065, 0.070]

    assert verdicts(judge, [state(y=y_) for y_ in y]) == [[0]] * 5


def test_a_car_that_goes_back_is_stopped_when_the_count_is_full(state):
    judge = rules(reversed_steps=3)

    advance = [0.0, -0.1, -0.1, 0.1, -0.1, -0.1, -0.1]
    drive = [state(x=t, advance=a) for t, a in enumerate(advance)]

    assert verdicts(judge, drive) == [[0]] * 5 + [[Status.REVERSED]]


def test_standing_still_is_not_going_back(state):
    judge = rules(reversed_steps=1)

    assert verdicts(judge, [state()] * 4) == [[0]] * 3


@pytest.mark.parametrize(
    ("rule", "status"),
    [("immobilized_steps", Status.IMMOBILIZED), ("reversed_steps", Status.REVERSED)],
)
def test_a_new_episode_counts_anew_and_leaves_the_other_rows_alone(state, rule, status):
    judge = rules(2, **{rule: 3})
    back = state(2, advance=-0.1)
    for _ in range(2):
        judge.judge(back, back)

    judge.begin(np.array([1]))

    assert judge.judge(back, back).status.tolist() == [status, 0]


# --- laps ---


def test_laps_are_counted_in_the_length_of_the_cars_own_track(state):
    judge = rules(4, laps=2)
    after = state(4, x=1, track=[0, 0, 1, 1], travelled=[19.9, 20.0, 39.9, 40.0])

    done = Status.LAP_COMPLETE
    assert judge.judge(state(4), after).status.tolist() == [0, done, 0, done]


def test_without_a_number_of_laps_a_car_drives_on(state):
    assert rules().judge(state(), state(x=1, travelled=1e6)).status.tolist() == [0]


# --- the clock ---


def test_the_clock_cuts_off_at_the_time_limit(state):
    judge = rules(time_limit=0.5)  # 5 steps of 0.1 s

    drive = [state(x=t, steps=t) for t in range(6)]

    assert verdicts(judge, drive) == [[0]] * 4 + [[Status.TIME_UP]]


def test_a_clock_that_has_run_leaves_the_rest_of_the_time_once(state):
    judge = rules(4, time_limit=1.0)  # 10 steps
    judge.begin(np.arange(4), clock=np.float32([0.0, 0.55, 0.9999, 0.25]))

    ends = []
    for row in range(4):
        t = 1
        while not judge.judge(state(4), state(4, x=1, steps=t)).truncated[row]:
            t += 1
        ends.append(t)

    # what is left: 10, 4.5, 0.001, 7.5 steps, rounded up
    assert ends == [10, 5, 1, 8]
    judge.begin(np.array([1]))
    assert not judge.judge(state(4), state(4, x=1, steps=9)).truncated[1]


@pytest.mark.parametrize("limit", [1e9, 1e300])
def test_a_time_limit_beyond_all_clocks_means_none(state, limit):
    judge = rules(time_limit=limit)

    assert judge.judge(state(), state(x=1, steps=2**30)).status.tolist() == [0]


def test_a_time_limit_shorter_than_a_step_is_one_step(state):
    judge = rules(time_limit=1e-6)

    assert judge.judge(state(), state(x=1, steps=1)).status.tolist() == [Status.TIME_UP]


# --- together ---


def test_the_graver_reason_comes_first(state):
    judge = rules(
        5, off_track="all_wheels", reversed_steps=1, immobilized_steps=1, laps=1, time_limit=DT
    )
    # Row by row one reason less: off, complete, back, still, late. All are late and all stand.
    after = state(
        5,
        wheels_off=[4, 0, 0, 0, 0],
        travelled=[10, 10, 0, 0, 0],
        advance=[-1, -1, -1, 0, 0],
        x=[0, 0, 0, 0, 1],
        steps=1,
    )

    assert judge.judge(state(5), after).status.tolist() == [
        Status.OFF_TRACK,
        Status.LAP_COMPLETE,
        Status.REVERSED,
        Status.IMMOBILIZED,
        Status.TIME_UP,
    ]


def test_only_the_clock_truncates_and_everything_else_terminates():
    ended = Ended(np.array(list(Status), np.int32))

    terminated = {s.name for s, there in zip(Status, ended.terminated, strict=True) if there}
    truncated = {s.name for s, there in zip(Status, ended.truncated, strict=True) if there}

    assert terminated == {"LAP_COMPLETE", "OFF_TRACK", "IMMOBILIZED", "REVERSED", "CRASHED"}
    assert truncated == {"TIME_UP"}


def test_what_was_saved_continues_the_same_even_after_the_first_went_on(state):
    options = {"immobilized_steps": 4, "reversed_steps": 5, "time_limit": 1.0}
    first, second = rules(3, **options), rules(3, **options)
    first.begin(np.arange(3), clock=np.float32([0.0, 0.0, 0.5]))
    before, after = state(3), {"advance": [-0.1, 0.0, 0.1], "x": [1, 0, 1]}
    first.judge(before, state(3, steps=1, **after))

    saved = first.save()
    ahead = [first.judge(before, state(3, steps=t, **after)).status for t in range(2, 6)]
    first.begin(np.arange(3))
    second.restore(saved)
    again = [second.judge(before, state(3, steps=t, **after)).status for t in range(2, 6)]

    np.testing.assert_array_equal(again, ahead)
    # the fifth step back; the fourth of standing, and one more; half of the 10 steps of the clock
    still = Status.IMMOBILIZED
    assert np.array(ahead).T.tolist() == [
        [0, 0, 0, Status.REVERSED],
        [0, 0, still, still],
        [0, 0, 0, Status.TIME_UP],
    ]


def test_touching_something_ends_the_episode_unless_cars_may_push(state):
    none = np.zeros((3, 1), np.float32)
    contact = np.array([-1, 0, -1], np.int32)
    around = Surroundings(np.zeros((3, 1, 8), np.float32), none, none, none, contact)
    after = state(3, around=around, s=1)

    strict, rough = (
        Rules(
            RulesSettings(crash=crash, immobilized_steps=0),
            np.array([10.0], np.float32), np.array([True]), rows=3, dt=0.1,
        )
        for crash in (True, False)
    )  # fmt: skip
    for rules in (strict, rough):
        rules.begin(np.arange(3))

    assert strict.judge(after, after).status.tolist() == [0, Status.CRASHED, 0]
    assert rough.judge(after, after).status.tolist() == [0, 0, 0]


def test_a_margin_closes_a_share_of_each_half_of_the_road(state):
    # 0.5 m to the left and 0.4 m to the right, a quarter closed: 0.375 m and 0.3 m remain
    n = [0.37, 0.38, -0.29, -0.31]
    after = state(4, x=1, n=n, left=0.5, right=0.4)
    judge = rules(4)
    judge.margin = 0.25

    assert judge.judge(state(4), after).status.tolist() == [0, Status.OFF_TRACK] * 2
    judge.margin = 0.0
    assert judge.judge(state(4), after).status.tolist() == [0] * 4
    asked = rules(4, margin=0.25).judge(state(4), after)
    assert asked.status.tolist() == [0, Status.OFF_TRACK] * 2
