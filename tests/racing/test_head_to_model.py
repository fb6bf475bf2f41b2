"""Races by DeepRacer's rules: who pays for a stumble, where it waits, and what is logged."""

from dataclasses import replace

import numpy as np
import pytest

from drivers import driver
from hotlap.config import resolve
from hotlap.crew import Driver
from hotlap.deepracer import logs
from hotlap.deepracer.logs import FIELDS, PAUSED
from hotlap.env.drivers import driver_task
from hotlap.errors import ConfigError
from hotlap.penalties import PenaltySettings
from hotlap.plan import TrainConfig
from hotlap.racing.head_to_model import HeadToModel
from hotlap.racing.race import race_drivers
from hotlap.sim.native import NativeSimulator
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import Command, Start
from hotlap.tasks.rules import Status
from hotlap.track import Track, load_track
from hotlap.vehicle import load_vehicle

OVAL = load_track("oval")
AT = {name: k for k, name in enumerate(FIELDS)}
SLOW, BLIND = driver("slow", 1.0), driver("blind", 1.6)


def race(drivers, penalties=None, *, laps=1, trials=None, track=OVAL, **how):
    penalties = PenaltySettings() if penalties is None else penalties
    return race_drivers(drivers, track, laps=laps, trials=trials, penalties=penalties, **how)


def contest(drivers, *, trials=1, track=OVAL, penalties=None):
    penalties = PenaltySettings() if penalties is None else penalties
    return HeadToModel(drivers, track, 1, trials, 0, 1, penalties)


def by_name(standings):
    return {racer.name: racer for racer in standings.racers}


def rows_of(standings, name):
    index = [racer.name for racer in standings.racers].index(name)
    return [one.rows for one in standings.episodes[index]]


def trace_of(standings, name, trial=0):
    index = [racer.name for racer in standings.racers].index(name)
    trace = standings.traces[trial]
    return {key: value[:, index] for key, value in trace.items() if key != "t"}


# --- the grid ---


@pytest.mark.parametrize("track", [OVAL, OVAL.reversed()], ids=["forward", "reversed"])
def test_the_first_starts_on_the_line_outside_the_second_three_quarters_behind_inside(track):
    state = contest([SLOW, BLIND], track=track)._world.state

    start = np.where(state.s > track.length / 2, state.s - track.length, state.s)
    np.testing.assert_allclose(start, [0, -0.75], atol=1e-4)
    spots = np.stack([state.x, state.y], axis=1)
    to_inner, to_outer = (
        np.hypot(*(spots[:, None] - border[None]).transpose(2, 0, 1)).min(axis=1)
        for border in (track.inner, track.outer)
    )
    assert to_outer[0] < to_inner[0]
    assert to_inner[1] < to_outer[1]
    # DeepRacer's lanes run halfway between the centre line and a border
    half = np.where(state.n > 0, state.left, state.right)
    np.testing.assert_allclose(abs(state.n), half / 2, rtol=3e-3)


def test_one_race_is_run_and_in_further_ones_the_drivers_change_places():
    assert race([BLIND, SLOW]).trials == 1
    found = race([BLIND, SLOW], trials=3)

    assert found.rules == "deepracer"
    ahead = [trace["distance"][0] for trace in found.traces]
    first = [found.racers[int(np.argmax(row))].name for row in ahead]
    assert first == ["blind", "slow", "blind"]


def test_on_an_open_track_both_stand_on_the_road_and_drive_to_its_end():
    x = np.linspace(0, 12, 61)
    centre = np.stack([x, 0 * x], axis=1)
    across = np.array([0, 0.55])
    straight = Track.from_waypoints(
        np.concatenate([centre, centre - across, centre + across], axis=1), name="drag"
    )

    state = contest([SLOW, BLIND], track=straight)._world.state
    found = race([SLOW, BLIND], track=straight, laps=3)

    np.testing.assert_allclose(state.s, [0.75, 0], atol=1e-4)
    assert found.laps == 1
    for racer in found.racers:
        (rows,) = rows_of(found, racer.name)
        entry = logs.evaluation_entry(rows, 1)
        assert (entry["episode_status"], entry["completion_percentage"]) == ("Lap complete", 100)


# --- who pays for a contact ---


@pytest.mark.parametrize(
    ("s", "n", "pays"),
    [
        ([5.00, 5.25], [0, 0], [0]),  # nose to tail
        (
            [5.00, 5.02],
            [0.1, -0.05],
            [0],
        ),  # side by side: DeepRacer asks who, not how far
        ([5.02, 5.00], [0.1, -0.05], [1]),
        ([0.1, -0.1], [0, 0], [1]),  # over the line: the one behind has the greater progress
        ([5.00, 5.25], [0.15, -0.15], []),  # 0.3 m apart, and they are 0.2 m wide
        ([5.00, 5.40], [0, 0], []),  # 0.4 m apart, and they are 0.32 m long
    ],
)
def test_of_two_that_touch_it_is_the_one_behind(s, n, pays):
    one = contest([SLOW, BLIND])
    rows, s = np.arange(2), np.array(s) % OVAL.length
    one._world.put(rows, s, np.array(n, float), np.zeros(2))

    found = one._touch(1, one._world.state, np.ones(2, bool))

    assert np.flatnonzero(found).tolist() == pays
    assert one._counts["contacts"].tolist() == [bool(pays)] * 2


def test_a_corner_in_the_other_car_is_enough_whichever_car_it_belongs_to():
    """A car across the road is met in its side: no corner of it is in the other one."""
    one = contest([SLOW, BLIND])
    rows, s, zero = np.arange(2), np.array([5.0, 5.2]), np.zeros(2)
    one._world.put(rows, s, zero, zero, np.array([0, np.pi / 2]))  # 0.162 + 0.098 > 0.2

    assert one._touch(1, one._world.state, np.ones(2, bool)).tolist() == [True, False]
    assert not one._touch(2, one._world.state, np.array([True, False])).any()  # the other waits


def test_a_contact_is_paid_by_the_one_behind_and_the_one_ahead_notices_nothing():
    found, alone = race([SLOW, BLIND]), race([SLOW, driver("last", 0.6)])

    slow, blind = by_name(found)["slow"], by_name(found)["blind"]
    assert blind.contacts == slow.contacts == blind.ran_into == blind.resets > 0
    assert (slow.ran_into, slow.resets, slow.penalties_s) == (0, 0, 0)
    assert blind.penalties_s == 5.0 * blind.resets
    # nobody is pushed: the one ahead drives to the bit what it drives where nobody touches it
    driven, wanted = trace_of(found, "slow"), trace_of(alone, "slow")
    steps = round(slow.race_times_s[0] * 15)
    for key in ("x", "y", "yaw", "speed"):
        np.testing.assert_array_equal(driven[key][:steps], wanted[key][:steps])


def test_after_a_contact_it_waits_exactly_where_it_is_and_is_seen():
    class Watched(HeadToModel):
        heights = ()

        def _remember(self, state):
            super()._remember(state)
            if self._fines.waiting[1]:
                self.heights = (*self.heights, float(self._world.state.around.boxes[0, 0, 6]))

    contest = Watched([SLOW, BLIND], OVAL, 1, 1, 0, 1, PenaltySettings(collision=2.0))
    found = contest.standings()
    rows = rows_of(found, "blind")[0]
    crash = int(np.flatnonzero(rows[:, AT["episode_status"]] == Status.CRASHED)[0])
    wait = rows[crash + 1 : crash + 31]

    assert (wait[:, AT["episode_status"]] == PAUSED).all()
    assert rows[crash + 31, AT["episode_status"]] == Status.IN_PROGRESS
    np.testing.assert_allclose(wait[:, AT["pause_duration"]], 2.0, atol=1e-6)
    moved = np.abs(
        wait[:, [AT["X"], AT["Y"], AT["yaw"]]] - rows[crash, [AT["X"], AT["Y"], AT["yaw"]]]
    )
    # a control step of 0.1 m/s, the slowest that this car drives, before it is held again
    assert moved[:, :2].max() < 0.01
    assert moved[:, 2].max() < 0.2
    assert contest.heights
    assert min(contest.heights) > 0


def test_a_faded_car_is_seen_and_nobody_touches_it():
    traffic = TrafficSettings(cars=2, gap=0.1)
    world = NativeSimulator((OVAL,), load_vehicle("deepracer"), rows=2, traffic=traffic)
    rows, zero = np.arange(2), np.zeros(2)
    world.reset(rows, replace(Start.on_line(2), s=np.array([5, 6], np.float32)))
    world.put(rows, np.array([5.0, 5.2]), zero, zero)
    assert world.state.around.contact.tolist() == [0, 0]

    world.fade(np.array([1]), True)
    around, x = world.state.around, world.state.x.copy()
    world.step(Command(np.zeros(2, np.float32), np.zeros(2, np.float32)))

    assert around.contact.tolist() == [-1, -1]
    assert (around.boxes[:, 0, 6] > 0).all()
    assert abs(world.state.x - x).max() < 0.02  # 12 cm of overlap would push them apart
    world.fade(rows, False)
    assert world.state.around.contact.tolist() == [0, 0]


# --- other stumbles ---


def test_who_leaves_the_road_stands_in_the_middle_of_the_half_it_left():
    lost = driver("lost", 1.5, lane=-0.8)  # makes for a line beside the road, on its right

    found = race([driver("mid", 1.5), lost], PenaltySettings(off_track=3.0, resets=1))

    rows, trace = rows_of(found, "lost")[0], trace_of(found, "lost")
    status = rows[:, AT["episode_status"]]
    fell = np.flatnonzero(status == Status.OFF_TRACK)
    assert len(fell) == 2  # once put back, and the last one ends it
    assert fell[1] == len(rows) - 1
    assert (status == PAUSED).sum() == 45  # 3 s
    place = np.flatnonzero(status == PAUSED)[1:]
    _, n = OVAL.project(np.stack([trace["x"][place], trace["y"][place]], axis=1))
    np.testing.assert_allclose(n, -OVAL.stations.right[0] / 2, atol=0.02)
    assert by_name(found)["lost"].off_tracks == 2
    assert by_name(found)["lost"].resets == 1
    assert by_name(found)["lost"].race_times_s == (None,)
    assert by_name(found)["mid"].finished == 1  # whoever gives up, the other one drives on


def test_penalties_are_seconds_of_the_race():
    drivers = [driver("lost", 1.5, lane=-0.8), driver("mid", 0.8)]
    short, long = (
        by_name(race(drivers, PenaltySettings(off_track=seconds)))["lost"] for seconds in (1.0, 5.0)
    )

    assert short.resets == long.resets > 2
    # the same drive, and for each stumble four more seconds of standing
    gained = long.race_times_s[0] - short.race_times_s[0]
    assert gained == pytest.approx(4.0 * long.resets, abs=1e-3)
    assert long.penalties_s - short.penalties_s == pytest.approx(4.0 * long.resets)


def test_who_stands_still_is_put_back_and_then_out():
    # DeepRacer's car creeps at 0.1 m/s at least; this one can stand
    still = driver("still", 0.0, settings={"actions.speed_low": 0.0, "vehicle": "f1tenth"})

    found = race([still, driver("mid", 1.5, lane=0.3)], PenaltySettings(resets=3, stuck=1.0))

    last = by_name(found)["still"]
    assert last.places == (2,)
    assert (last.stuck, last.resets, last.penalties_s) == (4, 3, 3.0)
    entry = logs.evaluation_entry(rows_of(found, "still")[0], 1)
    assert entry["episode_status"] == "Immobilized"
    assert entry["immobilized_count"] == entry["reset_count"] == 4


def test_a_stumble_that_costs_nothing_is_still_counted_once():
    still = driver("still", 0.0, settings={"actions.speed_low": 0.0, "vehicle": "f1tenth"})
    free = PenaltySettings(resets=3, stuck=0.0)

    found = race([still, driver("mid", 1.5, lane=0.3)], free)

    rows = rows_of(found, "still")[0]
    # it counts as standing after 15 steps, and each time anew
    stuck = np.flatnonzero(rows[:, AT["episode_status"]] == Status.IMMOBILIZED)
    assert len(stuck) == 4
    assert np.diff(stuck).min() >= 15


def test_the_clock_ends_what_nobody_finishes():
    # 30 s, or 2 s a metre: at 0.3 m/s nobody drives 15 m in it
    slowest = {"actions.speed_low": 0.0}
    drivers = [driver(name, 0.3, settings=slowest) for name in "ab"]

    found = race(drivers, PenaltySettings(resets=0))

    assert [racer.finished for racer in found.racers] == [0, 0]
    for name in "ab":
        assert rows_of(found, name)[0][-1, AT["episode_status"]] == Status.TIME_UP


# --- what is logged ---


def test_laps_are_logged_from_the_line_one_by_one():
    found = race([SLOW, BLIND], laps=2)

    for racer in found.racers:
        laps = rows_of(found, racer.name)
        entries = [logs.evaluation_entry(rows, k + 1) for k, rows in enumerate(laps)]
        assert [entry["episode_status"] for entry in entries] == ["Lap complete"] * 2
        assert [entry["completion_percentage"] for entry in entries] == [100, 100]
        assert sum(entry["crash_count"] for entry in entries) == racer.ran_into
        total = sum(entry["elapsed_time_in_milliseconds"] for entry in entries)
        # a lap is over in the first step that has crossed the line, up to 1/15 s later
        assert 0 <= total / 1000 - racer.race_times_s[0] <= 1 / 15 + 1e-3
        assert entries[0]["start_time"] == 0
        assert entries[1]["start_time"] == entries[0]["metric_time"]
    # the nose is 0.14 m ahead of the car's middle: the first one begins a little beyond the line
    first, second = (rows_of(found, name)[0][0, AT["progress"]] for name in ("slow", "blind"))
    assert first == pytest.approx(100 * 0.14 / OVAL.length, abs=0.2)
    assert second == pytest.approx(100 * (0.14 - 0.75) / OVAL.length, abs=0.2)


def test_numbered_actions_are_logged_by_their_numbers():
    grid = {"actions.kind": "list", "actions.list": [[-15.0, 1.0], [0.0, 1.0], [15.0, 1.0]]}
    one = driver("mid", 1.0)
    arrays = dict(one.arrays)
    arrays.pop("log_std")
    weight = np.zeros((3, arrays["head.weight"].shape[1]), np.float32)
    weight[[0, 2]] = -arrays["head.weight"][0], arrays["head.weight"][0]
    arrays |= {"head.weight": weight, "head.bias": np.array([0, 0.1, 0], np.float32)}
    description = {**one.description, "action": "discrete"}
    description["plan"] = {**description["plan"], "outputs": 3}
    task = driver_task(resolve(TrainConfig, grid))
    found = race([Driver("three", task, description, arrays), BLIND])

    numbers = rows_of(found, "three")[0][:, AT["action"]]
    assert set(numbers) <= {0, 1, 2}
    assert len(set(numbers)) > 1
    steering = rows_of(found, "three")[0][:, AT["steer"]]
    np.testing.assert_allclose(steering, (numbers - 1) * 15, atol=1e-3)
    assert (rows_of(found, "blind")[0][:, AT["action"]] == -1).all()


def test_the_same_race_gives_the_same_result_on_any_number_of_threads():
    once, again = (race([SLOW, BLIND], trials=4, seed=3, threads=k) for k in (1, 2))

    assert once == again
    for one, other in zip(once.episodes, again.episodes, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.rows[:, :-1], b.rows[:, :-1])  # but the wall clock
    assert once.as_dict()["racers"][0]["penalties_s"] == once.racers[0].penalties_s


def test_an_impossible_number_of_races_is_a_sentence():
    with pytest.raises(ConfigError, match="one race at least"):
        race([SLOW, BLIND], trials=0)
