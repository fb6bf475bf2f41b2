"""Sweeps that really train: by Ray Tune, stopped, killed, cut, and with drivers handed on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeps import SMALL, kinds

import hotlap
from hotlap.distributed.sweep_folder import Sweep
from hotlap.runs import Run

ray = pytest.importorskip("ray")

SHORT = {**SMALL, "train.steps": 1600}
LONG = {**SMALL, "train.seconds": 20, "train.checkpoint_seconds": 0.5}


def waited(condition, seconds=90.0):
    """Return what a condition comes to, once it comes to something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited for nothing")


def kill_training(run):
    """Kill the process that trains a Run once it has a checkpoint."""

    def act():
        waited((run / "checkpoints" / "last").exists)
        os.kill(int((run / "lock").read_text()), signal.SIGKILL)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def before(trials, run):
    """Return what had been spent on the driver of a Run before."""
    made = {one.run: one.before for trial in trials for one in trial.generations}
    return made[run]


def test_each_trial_is_a_run_of_its_settings_and_the_best_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    made = hotlap.sweep(
        None, {**SHORT, "seed": [3, 4]}, together=2, out="s", quiet=False, plain=True
    )

    found = made.results()
    assert [(row["state"], row["steps"]) for row in found["trials"]] == [("done", 1600)] * 2
    scores = [row["value"] for row in found["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert found["run"] == found["trials"][0]["run"]
    for row in found["trials"]:
        run = Run.open(row["run"])
        assert f"seed = {row['values']['seed']}\n" in run.config_toml
        assert run.is_reported
        report = run.report()
        assert row["completion"] == report["completion"]
    assert json.loads((made.path / "results.json").read_text()) == found
    assert (made.path / "learning.png").stat().st_size > 10_000
    assert "trial1 is done: score" in capsys.readouterr().err
    assert not ray.is_initialized()
    with pytest.raises(hotlap.HotlapError, match="all 2 trials came to their end"):
        hotlap.sweep(resume="s")


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_its_checkpoint_and_is_told(tmp_path, capsys):
    killer = kill_training(tmp_path / "s" / "trial0")

    made = hotlap.sweep(
        None, {**LONG, "seed": [0, 1]}, together=2, out=tmp_path / "s", quiet=False, plain=True
    )
    killer.join()

    assert {row["state"] for row in made.results()["trials"]} == {"done"}
    assert made.trial("trial0").failures == ("its process was killed (SIGKILL)",)
    assert "resumed" in kinds(made.path / "trial0")
    assert "resumed" not in kinds(made.path / "trial1")
    said = capsys.readouterr().err
    assert "trial0 failed: its process was killed (SIGKILL). It goes on from its checkpoint" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_stopped_or_killed_goes_on(tmp_path, number):
    words = [f"{name}={json.dumps(value)}" for name, value in LONG.items()]
    command = [sys.executable, "-c", "from hotlap.cli import main; main()", "sweep", *words]
    where = tmp_path / "s"
    command += ["seed=0..2", "--together", "2", "--out", str(where), "--plain"]
    leader = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    waited(lambda: (where / "trial0" / "checkpoints" / "last").exists(), 180)
    time.sleep(2)

    leader.send_signal(number)
    said, complaint = leader.communicate(timeout=120)

    if number == signal.SIGINT:
        assert leader.returncode == 130
        assert f"Continue with: hotlap sweep --resume {where}" in complaint
        assert f"sweep: {where}" in said
        run = Run.open(where / "trial0")  # nothing was lost
        assert run.checkpoints()[-1] == run.metrics_rows()[-1]["steps"]
    made = hotlap.sweep(resume=where)
    rows = made.results()["trials"]
    assert {row["trial"]: row["state"] for row in rows} == {f"trial{i}": "done" for i in range(3)}
    resumed = [row["trial"] for row in rows if "resumed" in kinds(Path(row["run"]))]
    assert "trial0" in resumed
    assert "trial2" not in resumed  # it had not begun


@pytest.mark.slow
def test_who_falls_behind_in_a_population_begins_with_the_driver_of_another(tmp_path):
    # Of these step sizes one cannot learn: 1e-9 of nothing stays nothing.
    made = hotlap.sweep(
        None,
        {
            **SMALL,
            "train.cars": 32,
            "train.steps": 40_000,
            "train.checkpoint_seconds": 0.3,
            "algorithm.learning_rate": [3e-3, 1e-9],
        },
        search="random",
        scheduler="pbt",
        trials=4,
        seed=1,
        part=0.2,
        together=4,
        metric="reward",
        out=tmp_path / "s",
    )

    trials = [made.trial(name) for name in made.book()]
    handed = [one for trial in trials for one in trial.generations if one.parent]
    assert handed
    for one in handed:
        event = next(
            e for e in Run.open(made.path / one.run).events() if e["kind"] == "weights_from"
        )
        assert event["run"] == str(made.path / one.snapshot)
        origin = Run.open(made.path / one.snapshot)
        assert origin.meta["run"] == str(made.path / one.parent)
        assert origin.checkpoints() == [one.steps]
        assert one.before == pytest.approx(one.steps / 40_000 + before(trials, one.parent))
        left = f"steps = {max(1, round(40_000 * (1 - one.before)))}\n"
        assert left in Run.open(made.path / one.run).config_toml
    kept = {folder.name for folder in (made.path / "lineage").iterdir()}
    assert kept == {Path(one.snapshot).name for one in handed}


@pytest.mark.slow
def test_what_falls_behind_is_cut_and_a_wrong_metric_ends_the_sweep(tmp_path):
    made = hotlap.sweep(
        None,
        {**LONG, "train.cars": 32, "algorithm.learning_rate": [3e-3, 1e-3, 1e-9, 2e-9]},
        scheduler="asha",
        part=0.3,
        together=2,
        metric="reward",
        out=tmp_path / "s",
    )

    states = [row["state"] for row in made.results()["trials"]]
    assert "cut" in states
    assert states[0] == "done"

    with pytest.raises(hotlap.HotlapError, match="--metric nonsense: trial0 came to its end"):
        hotlap.sweep(
            None,
            {**SHORT, "seed": [0, 1, 2, 3]},
            metric="nonsense",
            mode="min",
            together=1,
            out=tmp_path / "t",
        )
    assert sum(s["state"] == "done" for s in Sweep.open(tmp_path / "t").book().values()) < 4


@pytest.mark.slow
def test_optuna_suggests_from_both_kinds_of_axes(tmp_path):
    made = hotlap.sweep(
        None,
        {**SHORT, "algorithm.learning_rate": "1e-4..1e-2:log", "algorithm": ["ppo", "sac"]},
        search="optuna",
        trials=3,
        together=2,
        out=tmp_path / "s",
    )

    rows = made.results()["trials"]
    assert [row["state"] for row in rows] == ["done"] * 3
    rates = {row["values"]["algorithm.learning_rate"] for row in rows}
    assert len(rates) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
