"""Leaderboards of time trials: what a trial is worth, who may enter, and what the command says."""

import json

import pytest

from drivers import command, saved
from hotlap.errors import ConfigError
from hotlap.racing.leaderboard import laps_score
from hotlap.racing.league import League

LAPS = [9.0, 6.0, 5.0, 7.0, 4.0]


@pytest.mark.parametrize(
    ("score", "laps", "seconds"),
    [
        ("total", 3, 20.0),  # 9 + 6 + 5: from the standing start
        ("total", 5, 31.0),
        ("average", 3, 16 / 3),  # (5 + 7 + 4) / 3; the others are 20 / 3 and 18 / 3
        ("average", 2, 5.5),  # (6 + 5) / 2 and (7 + 4) / 2
        ("average", 5, 6.2),
        ("best", 3, 4.0),
        ("best", 6, None),
        ("total", 6, None),
    ],
)
def test_a_trial_is_worth_its_total_average_or_best(score, laps, seconds):
    found = laps_score(LAPS, score, laps)

    assert found == (None if seconds is None else pytest.approx(seconds))


def report(*trials, resets=None, tracks=None):
    return {
        "vehicle": "deepracer",
        "tracks": tracks or ["oval"] * len(trials),
        "lap_times_s": trials,
        "finished": [True] * len(trials),
        "trial_resets": resets or [0] * len(trials),
        "laps_per_trial": 3,
    }


def league(tmp_path, **drivers):
    board = League(tmp_path / "league.jsonl")
    for name, said in drivers.items():
        board.add_trials(said, name=name, fingerprint=name * 8)
    return board


def ranks(board, *args, **settings):
    (found,) = board.boards(*args, **settings)
    return [(entry.name, entry.seconds) for entry in found.entries]


def test_the_three_scores_rank_differently(tmp_path):
    board = league(
        tmp_path,
        a=report((8.0, 5.0, 5.0)),  # total 18, average of two 5, best 5
        b=report((9.0, 4.9, 5.3)),  # 19.2, 5.1, 4.9
        c=report((6.0, 5.5, 5.4)),  # 16.9, 5.45, 5.4
    )

    assert [name for name, _ in ranks(board, "total", 3)] == ["c", "a", "b"]
    assert [name for name, _ in ranks(board, "average", 2)] == ["a", "b", "c"]
    assert [name for name, _ in ranks(board, "best", 1)] == ["b", "a", "c"]


def test_a_driver_s_best_trial_counts_and_too_many_resets_do_not(tmp_path):
    board = league(
        tmp_path,
        a=report((8.0, 8.0), (5.0, 5.0), (6.0, 6.0), resets=[0, 4, 1]),
        b=report((7.0, 7.0), (3.0,)),
    )

    assert ranks(board, laps=2) == [("a", 10.0), ("b", 14.0)]
    assert ranks(board, laps=2, resets=1) == [("a", 12.0), ("b", 14.0)]
    assert ranks(board, laps=2, resets=0) == [("b", 14.0), ("a", 16.0)]
    (found,) = board.boards(laps=2, resets=0)
    assert [(entry.trials, entry.tried) for entry in found.entries] == [(1, 2), (1, 3)]


def test_who_has_no_trial_that_counts_comes_last_without_a_score(tmp_path):
    board = league(tmp_path, a=report((3.0,)), b=report((9.0, 9.0, 9.0)))

    assert ranks(board) == [("b", 27.0), ("a", None)]


def test_of_equal_scores_fewer_resets_win_then_who_was_first(tmp_path):
    board = league(
        tmp_path,
        a=report((5.0,), resets=[2]),
        b=report((5.0,), resets=[1]),
        c=report((5.0,), resets=[1]),
    )

    assert [name for name, _ in ranks(board, laps=1)] == ["b", "c", "a"]


def test_tracks_directions_and_penalties_are_boards_of_their_own(tmp_path):
    board = league(tmp_path, a=report((5.0,), (6.0,), tracks=["oval", "hard"]))
    board.add_trials(report((4.0,)), name="a", fingerprint="a", direction="reversed")
    costs = {"off_track": 5.0, "collision": 5.0, "stuck": 2.0}
    board.add_trials(report((3.0,)), name="a", fingerprint="a", penalties=costs)

    found = board.boards(laps=1)

    assert [(one.track, one.direction, one.penalties) for one in found] == [
        ("oval", "forward", None),
        ("hard", "forward", None),
        ("oval", "reversed", None),
        ("oval", "forward", costs),
    ]
    assert [one.entries[0].seconds for one in found] == [5.0, 6.0, 4.0, 3.0]


def test_a_driver_that_enters_twice_has_one_place(tmp_path):
    board = league(tmp_path, a=report((5.0,)))
    board.add_trials(report((4.0,)), name="new name", fingerprint="a" * 8)

    assert ranks(board, laps=1) == [("new name", 4.0)]
    (found,) = board.boards(laps=1)
    assert found.entries[0].tried == 2


@pytest.mark.parametrize(
    "change",
    [
        {"driver": {"name": "a", "vehicle": "deepracer"}},
        {"driver": "a"},
        {"penalties": 5},
        {"direction": None},
        {"trials": [{"track": "oval", "lap_times_s": [-1.0], "resets": 0}]},
        {"trials": [{"track": "oval", "lap_times_s": [float("nan")], "resets": 0}]},
        {"trials": [{"track": "oval", "lap_times_s": [float("inf")], "resets": 0}]},
        {"trials": [{"track": "oval", "lap_times_s": "fast", "resets": 0}]},
        {"trials": [{"track": "oval", "lap_times_s": [5.0], "resets": -1}]},
        {"trials": 3},
    ],
)
def test_a_line_of_trials_that_was_changed_by_hand_is_named(change, tmp_path):
    board = league(tmp_path, a=report((5.0,)), b=report((6.0,)))
    first, second = board.path.read_text().splitlines()
    board.path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")

    with pytest.raises(ConfigError, match=r"line 2 of .* has been changed"):
        League(board.path)


def test_a_driver_enters_by_its_evaluation(tmp_path):
    """The trials of the report are those on the board; a race's table stands beside it."""
    run, file = saved(tmp_path / "mild", 2.0), tmp_path / "league.jsonl"

    status, out, _ = command("evaluate", run, "--trials", 2, "--league", file, "--json")

    assert status == 0
    said = json.loads(out)
    (board,) = said["boards"]
    (entry,) = board["entries"]
    totals = [sum(laps) for laps in said["lap_times_s"]]
    assert entry["seconds"] == pytest.approx(min(totals))
    assert (board["track"], board["penalties"], entry["trials"]) == ("oval", None, 2)
    status, out, _ = command("race", "--league", file, "--score", "best", "--over", 1, "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["league"] == []
    assert facts["boards"][0]["entries"][0]["seconds"] == pytest.approx(said["best_lap_s"])


def test_penalties_are_part_of_the_score_and_resets_are_counted(tmp_path):
    """One car drives into the grass at once, waits 5 s and drives on: no clean lap of its own."""
    settings = {"evaluation.penalties.resets": 3}
    run = saved(tmp_path / "wild", 2.0, lane=1.2, settings=settings)
    file = tmp_path / "league.jsonl"

    status, out, _ = command(
        "evaluate", run, "--trials", 1, "--laps", 1, "--deepracer", "--league", file
    )

    assert status == 0
    (board,) = League(file).boards(laps=1)
    assert board.penalties == {
        "resets": 3, "off_track": 5.0, "collision": 5.0, "stuck": 2.0, "behind": 1.0,
        "mercy": False, "mercy_after": 3, "ahead": 1.0,
    }  # fmt: skip
    (row,) = League(file).trials()
    assert row["trials"][0]["resets"] == 3
    assert board.entries[0].seconds is None
    assert "penalties 5 s off track, 5 s crash, 2 s stuck" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("race", "--score", "best"), "--score: ranks the time trials of a league"),
        (("race", "--resets", "1"), "--resets: ranks the time trials of a league"),
        (("race", "--league", "l", "--score", "fast"), "--score: choose total, average or best"),
        (("evaluate", "nowhere", "--league", "l", "--randomized"), "--league: cars that differ"),
    ],
)
def test_wrong_words_are_one_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    status, _, error = command(*words)

    assert status == 2
    assert error.startswith(f"hotlap: {said}")
    assert not (tmp_path / "l").exists()


def test_a_league_that_is_none_is_told_before_the_drive(tmp_path):
    run, file = saved(tmp_path / "mild", 2.0), tmp_path / "notes.txt"
    file.write_text("a shopping list\n")

    status, out, error = command("evaluate", run, "--league", file)

    assert (status, out) == (2, "")
    assert "holds something else" in error
