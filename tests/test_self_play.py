"""Training against past versions of itself, and against saved drivers."""

import importlib
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from drivers import saved
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.errors import ConfigError, RunError
from hotlap.runs import Run

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
train = module.train

TINY = {
    "track": "oval",
    "algorithm.network.mlp": [8],
    "train.cars": 16,  # of 16 steps each: 256 steps an iteration
    "train.seconds": 0,
    "evaluation.every": 5,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
    "opponents.drivers": ["self"],
    "opponents.every": 600,
    "opponents.keep": 3,
    "opponents.share": 0.8,
    "opponents.leaves": "weakest",
    "rules.time_limit": 3.0,
}


@pytest.fixture(autouse=True)
def no_outcome(monkeypatch):
    """Leave plots and film away: they are tested where they are made."""
    monkeypatch.setattr(module, "write_outcome", lambda run: {})


def same_end(one: Run, other: Run) -> None:
    for read in ("read_policy", "read_state"):
        (_, arrays), (_, expected) = (getattr(run, read)("last") for run in (one, other))
        assert arrays.keys() == expected.keys()
        for name in arrays:
            assert arrays[name].tobytes() == expected[name].tobytes(), name


def joined(run: Run) -> list[list[str]]:
    return [event["versions"] for event in run.events() if event["kind"] == "opponent"]


def test_two_halves_are_the_whole(tmp_path):
    rival = saved(tmp_path / "rival", 1.5)
    settings = TINY | {"opponents.drivers": [str(rival), "self"]}

    train(None, settings | {"train.steps": 2048}, out=tmp_path / "halves")
    halves = train(None, {"train.steps": 4096}, resume=tmp_path / "halves")
    once = train(None, settings | {"train.steps": 4096}, out=tmp_path / "once")

    same_end(halves, once)
    assert joined(halves) == joined(once)
    assert len(joined(once)) == 7
    assert [len(names) for names in joined(once)][-1] == 3


def test_it_goes_on_without_the_runs_of_its_opponents(tmp_path):
    rival = saved(tmp_path / "rival", 1.5)
    settings = TINY | {"opponents.drivers": [str(rival), "self"]}
    train(None, settings | {"train.steps": 1024}, out=tmp_path / "halves")
    once = train(None, settings | {"train.steps": 2048}, out=tmp_path / "once")
    shutil.rmtree(rival)

    halves = train(None, {"train.steps": 2048}, resume=tmp_path / "halves")

    same_end(halves, once)


def test_killed_in_the_middle_it_ends_as_if_never_killed(tmp_path):
    settings = TINY | {"train.steps": 6400}
    words = [f"{name}={json.dumps(v)}" for name, v in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-c", "from hotlap.cli import main; main()", "train", *words,
         "train.checkpoint_seconds=0.03", "--out", str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    until, metrics = time.monotonic() + 60, tmp_path / "killed" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 8:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)

    process.kill()
    process.communicate()
    left = Run.open(tmp_path / "killed").read_state("last")[0]["steps"]
    killed = train(None, {"train.checkpoint_seconds": 20}, resume=tmp_path / "killed")

    assert 0 < left < 6400
    same_end(killed, train(None, settings, out=tmp_path / "once"))


def test_past_versions_are_who_they_claim(tmp_path):
    """Every checkpoint is kept: a version's policy is that of the checkpoint of its steps."""
    settings = TINY | {
        "opponents.leaves": "oldest",
        "opponents.every": 512,
        "train.checkpoint_seconds": 1e-6,
        "train.keep": 99,
        "train.steps": 2048,
    }

    run = train(None, settings, out=tmp_path / "run")

    assert joined(run)[-1] == ["self@512", "self@1024", "self@1536"]
    _, arrays = run.read_state("last")
    prefix = "runner.simulator.crew."
    document = json.loads(arrays[f"{prefix}document"].tobytes())
    named = {saved["name"]: saved for saved in document["drivers"]}
    assert set(named) >= {"self@512", "self@1024", "self@1536"}
    for name in joined(run)[-1]:
        description, kept = run.read_policy(int(name.removeprefix("self@")))
        own = f"{prefix}driver{named[name]['number']}."
        found = {k.removeprefix(own): v for k, v in arrays.items() if k.startswith(own)}
        assert found.keys() == kept.keys()
        for key in kept:
            assert found[key].tobytes() == kept[key].tobytes(), (name, key)
        NumpyPolicy(description, found)
    heads = [arrays[f"{prefix}driver{n['number']}.head.weight"] for n in named.values()]
    assert len(np.unique(heads, axis=0)) == len(heads)


def test_nothing_is_learned_from_what_opponents_do(tmp_path):
    """Steps count the learning cars; an opponent that is not there leaves their batch as it is."""
    run = train(None, TINY | {"train.steps": 512}, out=tmp_path / "run")

    assert [row["steps"] for row in run.metrics_rows()] == [256, 512]


def test_a_driver_that_raced_is_evaluated_alone(tmp_path):
    run = train(None, TINY | {"train.steps": 256}, out=tmp_path / "run")

    report = importlib.import_module("hotlap.evaluate").evaluate(run, trials=2, laps=1)

    assert report.trials == 2
    assert report.crashes == 0
    # it looks out for others as it learned to, but there is nobody
    assert run.read_policy("last")[0]["plan"]["vectors"] == {"state": 27 + 16}


def test_a_run_that_is_not_there_is_said_before_work_starts(tmp_path):
    with pytest.raises(RunError, match="no such directory"):
        train(None, TINY | {"opponents.drivers": ["runs/none"]}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

    with pytest.raises(ConfigError, match=r"opponents\.share: .*less than or equal to 1"):
        train(None, TINY | {"opponents.share": 1.5}, out=tmp_path / "run")


def test_a_new_training_from_its_driver_races_as_it_did(tmp_path):
    first = train(None, TINY | {"train.steps": 256}, out=tmp_path / "first")

    second = train(
        None, {"train.steps": 256, "train.seconds": 0}, weights_from=first.path, out=tmp_path / "b"
    )

    _, arrays = second.read_state("last")
    weight = arrays["runner.simulator.crew.driver0.head.weight"]
    assert weight.tobytes() == first.read_policy("best")[1]["head.weight"].tobytes()
