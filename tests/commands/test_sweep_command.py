"""`hotlap sweep`: what a user types, and what comes back."""

import json

import pytest
from typer.testing import CliRunner

from hotlap.cli import app
from hotlap.commands.console import print_sweep
from hotlap.distributed import sweep as verbs
from hotlap.errors import HotlapError


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verbs, "compile_for", lambda config: None)


def hotlap(*words):
    done = CliRunner().invoke(app, ["sweep", *words])
    if isinstance(done.exception, HotlapError):
        raise done.exception
    return done.stdout, done.stderr


def test_dry_run_lists_the_trials_and_makes_nothing(tmp_path):
    said, noted = hotlap("track=oval", "seed=0..1", "algorithm.clip=0.1,0.2", "--dry-run")

    assert said.splitlines() == [
        "trial0  seed=0 algorithm.clip=0.1",
        "trial1  seed=0 algorithm.clip=0.2",
        "trial2  seed=1 algorithm.clip=0.1",
        "trial3  seed=1 algorithm.clip=0.2",
    ]
    assert "4 trials" in noted
    assert list(tmp_path.iterdir()) == []


def test_dry_run_speaks_json():
    said, _ = hotlap(
        "track=oval", "algorithm.clip=0.1..0.2", "--trials", "7", "--dry-run", "--json"
    )

    facts = json.loads(said)
    assert (facts["search"], facts["trials"], facts["mode"]) == ("random", 7, "max")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.toml", "b.toml", "seed=1,2"], r"b\.toml: one configuration file or folder is enough"),
        (["nowhere.toml", "seed=1,2"], r"nowhere\.toml: no such file or folder"),
        (["--resume", "s", "seed=1,2"], "--resume goes on with a sweep as it is"),
        (["--resume", "s", "--trials", "3"], "--resume goes on with a sweep as it is"),
        (["--resume", "s"], r"s is no sweep: it has no sweep\.toml"),
        (["track=oval", "seed=1,2", "--from", "lost"], "lost: no such directory"),
    ],
)
def test_a_wrong_command_is_said_in_words(words, said):
    with pytest.raises(HotlapError, match=said) as caught:
        hotlap(*words)

    assert caught.value.exit_code == 2


def test_the_table_has_the_axes_and_stars_the_best(capsys):
    row = {"run": "s/trial0", "state": "done", "value": 4.25, "completion": 1.0, "best_lap_s": 4.25}
    row |= {"mean_lap_s": 4.5, "first_clean_s": None, "lineage": ["trial1"], "failures": []}
    rows = [
        row | {"trial": "trial0", "values": {"algorithm.clip": 0.25, "seed": 3}},
        row | {"trial": "trial1", "values": {"algorithm.clip": 0.1, "seed": 3}, "run": None}
        | {"value": None, "state": "failed", "failures": ["it fell", "it broke"], "lineage": []},
    ]  # fmt: skip
    facts = {"metric": "best_lap_s", "axes": ["algorithm.clip", "seed"], "trials": rows}

    print_sweep(facts | {"sweep": "s", "run": "s/trial0"}, as_json=False)

    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0][:3] == ["clip", "seed", "best_lap_s"]
    assert lines[1] == ["trial0", "*", "done", "0.25", "3", "4.250", "4.500", "100%", "-"]
    assert lines[2][:5] == ["trial1", "failed", "0.1", "3", "-"]
    assert "trial0 began with the driver of trial1" in said.out
    assert said.out.splitlines()[-1] == "run: s/trial0"
    assert "trial1 failed 2 times and was given up: it broke" in said.err
