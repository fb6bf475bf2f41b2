"""Races of saved drivers: who comes in before whom, and that nobody profits from its place."""

import json

import numpy as np
import pytest

import hotlap
from drivers import driver, saved
from hotlap.config import resolve
from hotlap.crew import Driver
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.drivers import driver_task
from hotlap.errors import ConfigError, RunError, TrackError
from hotlap.racing.race import PENALTY, race, race_drivers
from hotlap.simulator import Start
from hotlap.starts import GRID
from hotlap.track import Track, load_track

OVAL = load_track("oval")


def by_name(standings):
    return {racer.name: racer for racer in standings.racers}


def test_the_stronger_driver_wins_from_every_place_of_the_grid():
    # each in its own lane, so that the one behind can pass
    drivers = [driver("slow", 1.2, lane=0.25), driver("fast", 1.9, lane=-0.25)]

    for order in (drivers, drivers[::-1]):
        standings = race_drivers(order, OVAL, laps=2, trials=8)

        assert [racer.name for racer in standings.racers] == ["fast", "slow"]
        assert [racer.places for racer in standings.racers] == [(1,) * 8, (2,) * 8]
        assert standings.beaten == ((0, 8), (0, 0))
        fast, slow = standings.racers
        assert fast.wins == fast.finished == slow.finished == 8
        # it starts behind in every second race, and passes the other one in it
        assert (fast.overtakes, slow.overtaken) == (4, 4)
        assert slow.overtakes == fast.overtaken == fast.contacts == 0


def test_two_equal_drivers_draw():
    """They are the same driver: what one wins from a place the other wins from it as well."""
    standings = race_drivers([driver("a", 1.5), driver("b", 1.5)], OVAL, laps=1, trials=12)

    one, other = standings.racers
    assert standings.beaten == ((0, 6), (6, 0))
    assert one.wins == other.wins == 6
    assert sorted(one.race_times_s) == pytest.approx(sorted(other.race_times_s), abs=1e-3)
    # every race from other starts: six different times, not one six times
    assert len(np.unique(np.round(one.race_times_s, 3))) > 6


def test_a_lap_in_a_race_takes_what_it_takes_alone():
    # behind the slow one, in its own lane, the fast one drives the lap that it drives alone
    fast, slow = driver("fast", 1.8, lane=-0.25), driver("slow", 0.9, lane=0.25)

    standings = race_drivers([fast, slow], OVAL, laps=2, trials=2)

    settings = {"rules.off_track": "never", "track": "oval"}
    alone = VectorEnv(resolve(EnvSettings, settings), 1)
    alone.begin()
    start = Start.on_line(1, s=OVAL.length - 1e-3)
    alone.simulator.reset(np.array([0]), start)
    steps, crossed = 0, []
    while len(crossed) < 2:
        before = alone.state.travelled[0]
        alone.advance(fast.act(alone.observe()))
        steps += 1
        goal = (len(crossed) + 1) * OVAL.length
        if alone.state.travelled[0] >= goal:
            part = (goal - before) / (alone.state.travelled[0] - before)
            crossed.append((steps - 1 + part) / 15)
    assert by_name(standings)["fast"].best_lap_s == pytest.approx(crossed[1] - crossed[0], abs=0.02)
    assert standings.traces[0]["distance"][0].tolist() == pytest.approx([0, -GRID], abs=1e-3)
    assert standings.traces[1]["distance"][0].tolist() == pytest.approx([-GRID, 0], abs=1e-3)


def test_the_car_behind_pays_for_a_contact():
    standings = race_drivers([driver("slow", 1.0), driver("blind", 1.6)], OVAL, laps=1, trials=2)

    slow, blind = by_name(standings)["slow"], by_name(standings)["blind"]
    # it stands behind in the first race alone, and sees nobody
    assert blind.contacts == slow.contacts == blind.ran_into > 0
    assert slow.ran_into == slow.off_tracks == blind.off_tracks == blind.overtakes == 0
    assert slow.race_times_s[0] < blind.race_times_s[0]
    trace = standings.traces[0]
    column = [racer.name for racer in standings.racers].index("blind")
    away = (~trace["present"][:, column]) & (trace["lap"][:, column] == 0)
    assert away.sum() / 15 >= PENALTY * blind.ran_into


def test_who_leaves_the_road_is_put_back_where_it_left_it():
    # it makes for a line beside the road
    standings = race_drivers(
        [driver("lost", 1.5, lane=-0.8), driver("mid", 1.5)], OVAL, laps=1, trials=2
    )

    lost, mid = by_name(standings)["lost"], by_name(standings)["mid"]
    assert lost.off_tracks > 2
    assert mid.off_tracks == 0
    assert mid.places == (1, 1)
    column = [racer.name for racer in standings.racers].index("lost")
    for trace in standings.traces:
        gone = trace["distance"][:, column]
        present = trace["present"][:, column]
        assert (np.diff(gone)[~present[1:] & ~present[:-1]] == 0).all()
        assert (np.diff(gone) < 4 / 15).all()  # nobody is put back further ahead


def test_a_driver_that_does_not_move_comes_last_and_has_no_time():
    still = driver("still", 0.0, settings={"actions.speed_low": 0.0})

    standings = race_drivers([still, driver("mid", 1.5, lane=-0.3)], OVAL, laps=1, trials=2)

    last = by_name(standings)["still"]
    assert last.places == (2, 2)
    assert last.race_times_s == last.gaps_s == (None, None)
    assert last.best_lap_s is None
    assert last.finished == 0


def test_each_drives_its_own_car_with_its_own_senses_and_actions(tmp_path):
    """Camera and a grid of actions in a DeepRacer car, against state in an F1TENTH."""
    camera = {
        "observation.actor": ["camera"],
        "observation.camera.width": 16,
        "observation.camera.height": 12,
        "actions": "grid",
        "vehicle": "deepracer-v4",
    }
    settings = resolve(EnvSettings, camera)
    size = VectorEnv(settings, 1).actions.size
    plan = {
        "images": {
            "camera": {
                "shape": [12, 16, 1], "scale": 1 / 255, "offset": 0.0, "conv": [], "dense": []
            }
        },
        "vectors": {}, "hidden": [], "activation": "relu", "outputs": size,
    }  # fmt: skip
    head = np.random.default_rng(1).normal(size=(size, 192)).astype(np.float32)
    arrays = {"head.weight": head, "head.bias": np.zeros(size, np.float32)}
    looks = Driver(
        "camera", driver_task(settings), {"format": 1, "plan": plan, "action": "discrete"}, arrays
    )
    other = driver("f1", 1.5, settings={"vehicle": "f1tenth"})

    standings = race_drivers([looks, other], OVAL, laps=1, trials=2)

    assert by_name(standings)["camera"].vehicle == "deepracer-v4"
    assert by_name(standings)["f1"].vehicle == "f1tenth"
    assert by_name(standings)["f1"].finished == 2


def test_an_open_track_is_raced_once_to_its_end():
    x = np.linspace(0, 12, 61)
    centre = np.stack([x, 0 * x], axis=1)
    side = np.array([0, 0.55])
    rows = np.concatenate([centre, centre - side, centre + side], axis=1)
    straight = Track.from_waypoints(rows, name="drag")
    assert not straight.closed

    standings = race_drivers(
        [driver("slow", 1.2, lane=0.25), driver("fast", 1.8, lane=-0.25)], straight, trials=2
    )

    assert standings.laps == 1
    assert [racer.name for racer in standings.racers] == ["fast", "slow"]
    assert all(racer.finished == 2 for racer in standings.racers)


def test_the_verb_reads_runs_and_is_the_same_twice(tmp_path):
    runs = [saved(tmp_path / "a", 1.2, lane=0.25), saved(tmp_path / "b", 1.8, lane=-0.25)]

    once, again = hotlap.race(runs, laps=1, seed=3), race(runs, laps=1, seed=3, threads=1)

    assert once == again
    assert once.track == "oval"
    assert once.trials == 4
    assert json.loads(json.dumps(once.as_dict()))["racers"][0]["name"] == "b"
    assert race(runs, laps=1, seed=4) != once


def test_a_run_may_race_against_itself_and_is_told_apart(tmp_path):
    run = saved(tmp_path / "a", 1.5)

    standings = race([run, run], laps=1, trials=2)

    assert sorted(racer.name for racer in standings.racers) == ["a", "a (2)"]


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (["a"], {}, "2 to 32 drivers"),
        (["a", "b"], {"trials": 3}, "try 4"),
        (["a", "b"], {"track": "oval,reinvent_like"}, "one track"),
        (["a", "b"], {"track": "nope"}, "unknown track"),
        (["a", "b"], {"laps": 0}, "one lap at least"),
        (["a", "none"], {}, "no such directory"),
        (["a", "fast"], {}, "15 and 30 times a second"),
        (["a", *["b"] * 20], {}, "race fewer"),
    ],
)
def test_what_cannot_race_is_said(names, changes, said, tmp_path):
    saved(tmp_path / "a", 1.5)
    saved(tmp_path / "b", 1.5)
    saved(tmp_path / "fast", 1.5, settings={"control_rate": 30.0})

    with pytest.raises((ConfigError, RunError, TrackError), match=said):
        race([tmp_path / name for name in names], **changes)
