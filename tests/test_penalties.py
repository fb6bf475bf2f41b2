"""A stumble costs seconds of the race, and the car drives on from where DeepRacer would put it."""

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.deepracer import logs
from hotlap.deepracer.logs import FIELDS, PAUSED
from hotlap.env import EnvSettings
from hotlap.evaluate import evaluate_policy, evaluation_env
from hotlap.penalties import PenaltySettings
from hotlap.tasks.rules import Status

RATE = 15
AT = {name: k for k, name in enumerate(FIELDS)}
BASE = {"track": "oval", "actions.speed_low": 0.5, "actions.speed_high": 1.5}


class Driver:
    """Follows a line beside the centre, but drives straight on in the first steps of its trial."""

    def __init__(self, env, *, straight=0, lane=0.0, learns=False):
        self.env, self.straight, self.lane, self.learns = env, straight, lane, learns
        self.steps = 0

    def __call__(self, observation):
        state = self.env.state
        self.steps += 1
        if self.learns and (self.env.penalties.status == PAUSED).any():
            self.lane = float(state.n[0])  # stays on the half on which it was put back
        turn = -2 * (state.n - self.lane) - 1.5 * np.sin(state.heading_error)
        turn = (turn + 0.2 * state.curvature) / np.radians(30)
        if self.steps <= self.straight:
            turn[:] = 0
        return np.stack([np.clip(turn, -1, 1), np.ones(len(turn))], axis=1).astype(np.float32)


def drive(penalties, *, laps=1, trials=1, settings=None, **how):
    settings = resolve(EnvSettings, BASE | (settings or {}))
    env = evaluation_env(settings, trials=trials, laps=laps, penalties=penalties)
    return evaluate_policy(env, Driver(env, **how), recorded=True)


def test_without_penalties_a_stumble_ends_the_trial():
    report = drive(None, straight=10_000)

    assert (report.off_tracks, report.resets, report.penalties_s) == (1, 0, 0)
    assert report.completion == 0


def test_the_last_stumble_ends_the_trial():
    report = drive(PenaltySettings(resets=2, off_track=1.0), straight=10_000)

    assert report.off_tracks == 3
    assert report.resets == 2
    assert report.penalties_s == 2.0
    assert report.completion == 0
    status = report.episodes[0].rows[:, AT["episode_status"]]
    assert (status == PAUSED).sum() == 2 * RATE
    assert (status == Status.OFF_TRACK).sum() == 3


def test_none_are_left_if_there_are_none():
    report = drive(PenaltySettings(resets=0), straight=10_000)

    assert (report.off_tracks, report.resets) == (1, 0)


def test_a_penalty_is_part_of_the_lap_time():
    clean = drive(PenaltySettings())
    short, long = (drive(PenaltySettings(off_track=s), straight=60) for s in (1.0, 5.0))

    assert (clean.resets, short.resets, long.resets) == (0, 1, 1)
    assert clean.completion == short.completion == long.completion == 1
    # the same drive but for four more seconds of standing
    assert long.best_lap_s - short.best_lap_s == pytest.approx(4.0, abs=1e-4)
    assert short.best_lap_s > clean.best_lap_s + 1.0
    assert long.penalties_s == 5.0


def test_it_waits_where_it_left_the_road_on_the_nearer_half():
    report = drive(PenaltySettings(off_track=2.0), straight=60)
    rows, trace = report.episodes[0].rows, report.traces[0]

    paused = np.flatnonzero(rows[:, AT["episode_status"]] == PAUSED)
    fell = paused[0] - 1

    assert rows[fell, AT["episode_status"]] == Status.OFF_TRACK
    assert len(paused) == 2 * RATE
    assert rows[paused, AT["pause_duration"]] == pytest.approx(2.0)
    np.testing.assert_allclose(trace["s"][paused], trace["s"][fell], atol=0.01)
    off = trace["n"][fell]
    assert abs(off) > abs(trace["n"][paused]).max()
    assert (np.sign(trace["n"][paused]) == np.sign(off)).all()
    assert trace["speed"][paused].max() < 0.1  # the slowest that this car drives
    assert trace["speed"][paused[-1] + 5] > 0.3


def test_after_a_crash_it_stands_a_metre_behind_on_the_other_half():
    obstacle = {"traffic.obstacles": 1, "traffic.positions": [[0.25, 0.5]]}
    penalties = PenaltySettings(collision=3.0, behind=1.0, resets=2)

    report = drive(penalties, settings=obstacle, lane=0.25, trials=1)

    assert report.crashes >= 1
    rows, trace = report.episodes[0].rows, report.traces[0]
    first = int(np.flatnonzero(rows[:, AT["episode_status"]] == PAUSED)[0])
    assert rows[first - 1, AT["episode_status"]] == Status.CRASHED
    length = rows[0, AT["track_len"]]
    assert trace["s"][first] == pytest.approx(0.25 * length - 1.0, abs=0.1)
    assert trace["n"][first] < -0.1  # the box stands on the left half
    assert rows[first, AT["obstacle_crash_counter"]] == 1
    counted = logs.evaluation_entry(rows, 1)
    assert counted["crash_count"] == report.crashes
    assert counted["reset_count"] == report.resets + 1  # the one that ended the trial


@pytest.mark.parametrize("speed", [0.0, 0.3])
def test_a_bot_that_was_run_into_is_passed_on_the_other_half(speed):
    bot = {"traffic.bots": 1, "traffic.positions": [[0.25, 0.5]], "traffic.bot_speed": [speed] * 2}

    report = drive(PenaltySettings(collision=3.0), settings=bot, lane=0.25, learns=True)

    assert report.crashes == 1
    assert report.completion == 1
    assert report.penalties_s == 3.0


def test_standing_still_has_a_penalty_of_its_own():
    slow = {"rules.immobilized_distance": 10.0}  # no car moves ten metres in a step

    report = drive(PenaltySettings(resets=3, stuck=1.0, off_track=9.0), settings=slow)

    assert report.immobilized == 4
    assert report.resets == 3
    assert report.penalties_s == 3.0


def test_a_penalty_of_no_seconds_puts_back_at_once():
    report = drive(PenaltySettings(off_track=0.0), straight=60)

    assert report.completion == 1
    assert report.resets >= 1
    assert report.penalties_s == 0.0


def test_trials_do_not_disturb_each_other():
    alone = drive(PenaltySettings(resets=1, off_track=1.0), straight=40)
    many = drive(PenaltySettings(resets=1, off_track=1.0), straight=40, trials=3)

    for name, column in alone.traces[0].items():
        np.testing.assert_array_equal(many.traces[0][name][: len(column)], column, err_msg=name)


def test_laps_go_on_after_a_penalty():
    report = drive(PenaltySettings(off_track=2.0), straight=60, laps=2)

    first, second = report.lap_times_s[0]
    assert report.completion == 1
    assert first > second + 2.0
    entries = [logs.evaluation_entry(one.rows, k + 1) for k, one in enumerate(report.episodes)]
    assert [entry["off_track_count"] for entry in entries] == [1, 0]
    assert [entry["episode_status"] for entry in entries] == ["Lap complete"] * 2
    times = [entry["elapsed_time_in_milliseconds"] / 1000 for entry in entries]
    assert times == pytest.approx([first, second], abs=0.15)  # theirs are of whole steps


BOX = {"traffic.obstacles": 1, "traffic.positions": [[0.25, 0.5]]}


class Butter(Driver):
    """Follows the left half, where the box is, however often it runs into it."""

    def __call__(self, observation):
        self.lane = 0.25
        return super().__call__(observation)


class Grazer(Driver):
    """Swings off the road to the right as it comes near the box."""

    def __call__(self, observation):
        self.lane = -0.2
        action = super().__call__(observation)
        far = 0.25 * self.env.simulator.tracks[0].length - self.env.state.s
        action[(far > -0.3) & (far < 0.5), 0] = -1.0
        return action


def put_back(driver, penalties, settings):
    """Drive a trial; return its report and (s, n) of each place where it was put back."""
    settings = resolve(EnvSettings, BASE | settings)
    env = evaluation_env(settings, trials=1, laps=1, penalties=penalties)
    report = evaluate_policy(env, driver(env), recorded=True)
    rows, trace = report.episodes[0].rows, report.traces[0]
    status = rows[:, AT["episode_status"]]
    begins = np.flatnonzero((status[1:] == PAUSED) & (status[:-1] != PAUSED)) + 1
    return report, [(float(trace["s"][k]), float(trace["n"][k])) for k in begins]


def test_mercy_puts_it_ahead_at_the_third_stumble_at_the_same_obstacle():
    """It is put on the right half and drives back to the left one, into the box, each time."""
    length = evaluation_env(resolve(EnvSettings, BASE), trials=1, laps=1).simulator.tracks[0].length
    costs = {"collision": 1.0, "behind": 1.5, "ahead": 0.8, "resets": 7}

    stubborn, places = put_back(Butter, PenaltySettings(**costs), BOX)
    spared, mercy = put_back(Butter, PenaltySettings(**costs, mercy=True), BOX)

    box = 0.25 * length
    assert stubborn.completion == 0
    assert [s for s, _ in places] == pytest.approx([box - 1.5] * 7, abs=0.02)
    assert spared.completion == 1
    assert [s for s, _ in mercy] == pytest.approx([box - 1.5, box - 1.5, box + 0.8], abs=0.02)
    assert all(n < -0.1 for _, n in mercy)  # the half that the box is not on
    assert (spared.resets, spared.penalties_s) == (3, 3.0)


def test_how_often_is_a_setting():
    _, places = put_back(
        Butter, PenaltySettings(collision=1.0, behind=1.5, mercy=True, mercy_after=1), BOX
    )

    assert len(places) == 1


def test_another_obstacle_begins_the_count_anew():
    two = {"traffic.obstacles": 2, "traffic.positions": [[0.25, 0.5], [0.75, 0.5]]}

    report, places = put_back(
        Butter, PenaltySettings(collision=1.0, behind=1.5, mercy=True, mercy_after=2), two
    )

    # twice at each: behind, then ahead
    assert report.completion == 1
    first, second, third, fourth = (s for s, _ in places)
    assert second - first == pytest.approx(2.5, abs=0.02)
    assert fourth - third == pytest.approx(2.5, abs=0.02)


def test_leaving_the_road_by_an_obstacle_puts_it_behind_that_on_the_other_half():
    report, places = put_back(Grazer, PenaltySettings(off_track=1.0, behind=1.2, resets=2), BOX)

    s, n = places[0]
    assert report.off_tracks >= 1
    assert report.crashes == 0
    length = evaluation_env(resolve(EnvSettings, BASE), trials=1, laps=1).simulator.tracks[0].length
    assert s == pytest.approx(0.25 * length - 1.2, abs=0.02)
    assert n < -0.1


def test_leaving_the_road_far_from_an_obstacle_has_nothing_to_do_with_it():
    away = {"traffic.obstacles": 1, "traffic.positions": [[0.75, 0.5]]}

    report, places = put_back(Grazer, PenaltySettings(off_track=1.0, resets=2), away)

    length = evaluation_env(resolve(EnvSettings, BASE), trials=1, laps=1).simulator.tracks[0].length
    assert report.off_tracks >= 1
    assert places[0][0] == pytest.approx(0.25 * length, abs=1.0)
