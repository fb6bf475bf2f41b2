"""`hotlap race`: what it prints and writes, and what it says of mistakes."""

import importlib
import json

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import hotlap as package
from drivers import command as hotlap
from drivers import driver, saved
from hotlap.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    saved(folder / "slow", 1.2, lane=0.25)
    saved(folder / "fast", 1.9, lane=-0.25)
    return folder / "slow", folder / "fast"


def test_it_prints_the_standings_and_keeps_the_league(runs, tmp_path):
    words = ("race", *runs, "--laps", 1, "--trials", 2, "--league", tmp_path / "league.jsonl")

    status, out, err = hotlap(*words)

    assert (status, err) == (0, "")
    first, head, *rows = out.splitlines()
    assert first == "oval: 2 races of 1 lap"
    assert head.split()[:3] == ["driver", "place", "wins"]
    assert rows[0].split()[:4] == ["1", "fast", "1.00", "2"]
    assert rows[1].split()[:4] == ["2", "slow", "2.00", "0"]
    assert [row.split()[1] for row in rows[3:]] == ["fast", "slow"]
    status, again, _ = hotlap("race", "--league", tmp_path / "league.jsonl")
    assert status == 0
    assert again.splitlines() == rows[2:]
    assert len((tmp_path / "league.jsonl").read_text().splitlines()) == 1


def test_json_is_one_document(runs, tmp_path):
    status, out, _ = hotlap(
        "race", *runs, "--laps", 1, "--trials", 2, "--json",
        "--league", tmp_path / "l.jsonl", "--film", tmp_path / "race.gif",
    )  # fmt: skip

    found = json.loads(out)
    assert status == 0
    assert [racer["name"] for racer in found["racers"]] == ["fast", "slow"]
    assert found["beaten"] == [[0, 2], [0, 0]]
    assert found["league"][0]["name"] == "fast"
    assert (tmp_path / "race.gif").stat().st_size > 10_000
    assert found["film"] == str(tmp_path / "race.gif")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "2 to 32 drivers"),
        (["--trials", "3", "both"], "try 4"),
        (["--checkpoint", "first", "both"], "choose from best, last"),
        (["--film", "race.png", "both"], "end its name in .mp4 or .gif"),
        (["--film", "no/race.mp4", "both"], "make it first"),
        (["--film", "race.mp4", "--league", "league.jsonl"], "name the runs"),
        (["--laps", "3", "--league", "league.jsonl"], "--laps: speaks of a race; name the runs"),
        (["--seed", "0", "--league", "league.jsonl"], "--seed: speaks of a race; name the runs"),
        (["--league", "no/league.jsonl", "both"], "make it first"),
        (["--track", "nope", "both"], "unknown track"),
        (["no/run", "no/other"], "no such directory"),
    ],
)
def test_a_mistake_is_a_sentence_before_anybody_drives(words, said, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [word for word in words if word != "both"] + [*(runs if "both" in words else [])]

    status, out, err = hotlap("race", *given)

    assert (status, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_standings_are_printed_whatever_becomes_of_the_files(runs, tmp_path, monkeypatch):
    def full(*args, **named):
        raise RunError("the disk is full")

    monkeypatch.setattr(importlib.import_module("hotlap.racing.league").League, "add", full)
    monkeypatch.setattr(importlib.import_module("hotlap.racing.film"), "film_race", full)

    status, out, err = hotlap(
        "race", *runs, "--laps", 1, "--trials", 2,
        "--league", tmp_path / "l.jsonl", "--film", tmp_path / "race.gif",
    )  # fmt: skip

    assert status == 2  # that of the error
    assert " fast " in out
    assert err.count("the disk is full") == 2


def test_a_saved_driver_is_an_opponent_in_gymnasium(runs):
    env = gymnasium.make(
        "hotlap/HeadToModel-v0", track="oval", **{"opponents.drivers": str(runs[1])}
    )

    check_env(env.unwrapped)

    env.reset(seed=0)
    inner = env.unwrapped._env
    assert inner.rows == 1
    assert len(inner.opponents.everyone.x) == 2
    for _ in range(30):
        env.step(np.float32([0, -1]))
    assert inner.opponents.crew.drivers[0].fingerprint == driver("x", 1.9, lane=-0.25).fingerprint
    assert package.Standings.__name__ == "Standings"


@pytest.mark.parametrize("drivers", [None, "self"])
def test_gymnasium_wants_a_driver_that_exists(drivers):
    named = {} if drivers is None else {"opponents.drivers": drivers}

    with pytest.raises(ConfigError, match=r"opponents\.drivers: name the runs"):
        gymnasium.make("hotlap/HeadToModel-v0", track="oval", **named)


def test_deepracers_rules_take_the_first_runs_penalties(tmp_path):
    """Both cars are on one line, the fast one behind: it runs into the slow one."""
    costly = {"evaluation.penalties.collision": 20.0}
    saved(tmp_path / "slow", 1.0, settings=costly)
    saved(tmp_path / "fast", 1.6)
    words = ("race", tmp_path / "slow", tmp_path / "fast", "--deepracer", "--laps", 1, "--json")

    status, out, err = hotlap(*words)

    found = json.loads(out)
    assert (status, found["rules"], found["trials"]) == (0, "deepracer", 1)
    last = found["racers"][1]
    assert (last["name"], last["ran_into"]) == ("fast", last["resets"])
    assert last["penalties_s"] == 20.0 * last["resets"] > 0
    assert "keeps no logs of DeepRacer's" in err
    status, _, err = hotlap("race", "--deepracer", "--league", tmp_path / "league.jsonl")
    assert status == 2
    assert "--deepracer: speaks of a race" in err
