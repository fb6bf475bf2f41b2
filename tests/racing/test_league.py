"""A league: facts that are only ever appended, and the ratings that follow from them."""

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq

from hotlap.errors import ConfigError, RunError
from hotlap.racing.league import League, ratings

RACER = {
    "vehicle": "deepracer", "finished": 2, "laps_completed": 6, "mean_lap_s": 5.0, "overtakes": 1,
    "contacts": 0, "ran_into": 0, "off_tracks": 0, "stuck": 0, "places": [1, 1],
}  # fmt: skip


def races(beaten, track="oval", trials=2, names="abc", laps=(4.0, 5.0, None)):
    """Return what a Standings says of itself."""
    return {
        "track": track,
        "laps": 3,
        "trials": trials,
        "beaten": beaten,
        "racers": [
            RACER | {"name": name, "fingerprint": name * 8, "wins": int(won[0]), "best_lap_s": lap}
            for name, won, lap in zip(names, ((2,), (0,), (0,)), laps, strict=True)
        ],
    }


EVEN = [[0, 2, 2], [0, 0, 1], [0, 1, 0]]


def test_two_drivers_are_rated_as_likely_as_their_results():
    # b and its mirror image: p_a = 1 / p_b = p. Likelihood of 9 wins to 3, and of a draw of each
    # against one of strength 1: its logarithm has no slope where, with x = log p,
    # 9 (1 - q) - 3 q + 0.5 - r = 0, q = 1 / (1 + exp(-2 x)), r = 1 / (1 + exp(-x))
    def slope(x):
        return 9 - 12 / (1 + np.exp(-2 * x)) + 0.5 - 1 / (1 + np.exp(-x))

    found = ratings([[0, 9], [3, 0]])

    expected = 400 / np.log(10) * brentq(slope, -5, 5)
    np.testing.assert_allclose(found, [1500 + expected, 1500 - expected], rtol=1e-9)
    # without the draws it would be odds of three to one: 400 log10(3) = 190.8 points apart
    assert 150 < found[0] - found[1] < 190.8
    np.testing.assert_allclose(ratings([[0, 9e6], [3e6, 0]]) @ [1, -1], 190.85, atol=0.01)


def test_ratings_do_not_depend_on_the_order_and_are_finite():
    beaten = np.array([[0, 5, 5], [0, 0, 5], [0, 0, 0.0]])
    turn = [2, 0, 1]

    found = ratings(beaten)

    assert np.isfinite(found).all()
    assert found[0] > found[1] > found[2]
    np.testing.assert_allclose(ratings(beaten[np.ix_(turn, turn)]), found[turn], atol=1e-6)
    np.testing.assert_allclose(ratings(np.zeros((2, 2))), 1500)
    assert ratings(np.zeros((0, 0))).shape == (0,)


def test_the_table_adds_up_what_was_appended(tmp_path):
    league = League(tmp_path / "league.jsonl")
    assert league.table() == []

    league.add(races(EVEN))
    league.add(races(EVEN, track="hard", laps=(3.0, None, None)))
    league.add(races(EVEN, laps=(4.5, 4.75, 9.0)))

    first, *others = League(tmp_path / "league.jsonl").table()
    assert (first.name, first.races, first.wins, first.finished) == ("a", 6, 6, 6)
    assert first.best_laps_s == {"oval": 4.0, "hard": 3.0}
    assert {entry.name: entry.best_laps_s for entry in others} == {
        "b": {"oval": 4.75},
        "c": {"oval": 9.0},
    }
    assert first.rating > others[0].rating == pytest.approx(others[1].rating, abs=1e-6)
    before = (tmp_path / "league.jsonl").read_bytes()
    league.add(races(EVEN))
    assert (tmp_path / "league.jsonl").read_bytes().startswith(before)


def _write(path, name):
    for _ in range(100):
        League(path).add(races(EVEN, names=(name, "y", "z")))


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "league.jsonl"
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(path, name)) for name in "ab"]

    for process in both:
        process.start()
    for process in both:
        process.join(60)

    assert [process.exitcode for process in both] == [0, 0]
    found = {entry.name: entry.races for entry in League(path).table()}
    assert found == {"a": 200, "b": 200, "y": 400, "z": 400}


def test_a_line_that_a_killed_writer_left_half_done_harms_nothing(tmp_path):
    path = tmp_path / "league.jsonl"
    league = League(path)
    league.add(races(EVEN))
    with path.open("ab") as file:
        file.write(b'{"league": 1, "track": "ov')

    assert league.table()[0].races == 2
    league.add(races(EVEN))

    assert League(path).table()[0].races == 4


FULL = """
import json, resource, signal, sys
from hotlap.racing.league import League
from hotlap.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
league = League(sys.argv[1])
size = len(open(sys.argv[1], "rb").read())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
try:
    league.add(json.loads(sys.argv[2]))
except RunError as error:
    print(error.exit_code, error)
"""


def test_a_full_disk_leaves_the_league_as_it_was(tmp_path):
    path = tmp_path / "league.jsonl"
    League(path).add(races(EVEN))
    before = path.read_bytes()

    said = subprocess.run(
        [sys.executable, "-c", FULL, str(path), json.dumps(races(EVEN))],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip

    assert said.startswith("1 ")
    assert "The races are not in the league" in said
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed = 1\n", "holds something else"),
        ('{"league": 99}\n', "newer hotlap"),
        ('{"steps": 1}\n', "holds something else"),
    ],
)
def test_what_is_no_league_is_left_alone(content, said, tmp_path):
    path = tmp_path / "file"
    path.write_text(content)

    with pytest.raises(ConfigError, match=said):
        League(path)

    assert path.read_text() == content


def _without(name):
    return lambda row: row.pop(name)


def _racer(name, value):
    return lambda row: row["racers"][1].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        *(_without(name) for name in ("racers", "beaten", "trials", "track")),
        *(_racer(name, None) for name in ("fingerprint", "name", "vehicle", "wins", "finished")),
        _racer("best_lap_s", "fast"),
        lambda row: row["beaten"].pop(),
        lambda row: row.update(racers=3),
    ],
)
def test_a_line_that_was_changed_by_hand_is_named(change, tmp_path):
    path = tmp_path / "league.jsonl"
    League(path).add(races(EVEN))
    row = json.loads(path.read_text())
    change(row)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")

    with pytest.raises(ConfigError, match=r"line 2 of .* has been changed"):
        League(path)


def test_a_folder_and_a_missing_folder_are_said(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        League(tmp_path)
    with pytest.raises(ConfigError, match="make it first"):
        League(tmp_path / "no" / "league.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "league.jsonl"
    League(path).add(races(EVEN))
    path.chmod(0o400)

    with pytest.raises(RunError, match="cannot be written"):
        League(path).add(races(EVEN))
