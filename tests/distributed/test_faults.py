"""Workers, server and driver are killed while they train: it goes on, and the count is right."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hotlap.algorithms.settings import DQNSettings, NetworkSettings, PPOSettings, SACSettings
from hotlap.config import to_toml
from hotlap.distributed.cluster import connected
from hotlap.plan import TrainConfig, read_config
from hotlap.practice import Practice, Practising, Round
from hotlap.runs import Run

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9")

SMALL = NetworkSettings(mlp=(16,))
PPO = PPOSettings(horizon=8, epochs=2, minibatch=16, network=SMALL)
DQN = DQNSettings(horizon=4, minibatch=16, warmup=32, update_ratio=0.25, network=SMALL)
SAC = SACSettings(horizon=4, minibatch=16, warmup=32, update_ratio=0.25, network=SMALL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(workers=4):  # two trainings may be there at once
        yield


def plan(algorithm: Any, share: str = "gradients", **more: Any) -> TrainConfig:
    """Return a training of two workers with four cars each."""
    given = {"train.cars": 8, "track": "reinvent_like", "distributed.workers": 2}
    if algorithm.kind == "dqn":
        more["actions.kind"] = "grid"
    config = read_config(None, {**given, "distributed.share": share, **more}).config
    return config.model_copy(update={"algorithm": algorithm})


@contextmanager
def team(config: TrainConfig) -> Iterator[Any]:
    """Open a team that keeps what it tells."""
    from hotlap.distributed.team import Team

    said: list[str] = []
    opened: Any = Team(config, tell=said.append)
    opened.open(None)
    opened.said = said
    try:
        yield opened
    finally:
        opened.close()


def process(team: Any, place: int) -> int:
    """Return the number of a worker's process."""
    return int(ray.get(team._seats[place].actor.hello.remote(), timeout=60))


def within(number: int, call: Callable[[], Any]) -> Any:
    """Stop a process, let `call` wait for it, and kill it then."""
    os.kill(number, signal.SIGSTOP)
    killing = threading.Timer(0.3, os.kill, (number, signal.SIGKILL))
    killing.start()
    try:
        return call()
    finally:
        killing.join()


def rounds(practice: Practising, count: int, before: int = 0) -> list[Round]:
    """Let a practice collect and learn some times."""
    found: list[Round] = []
    for _ in range(count):
        steps = before + sum(one.steps for one in found)
        found.append(practice.round(steps, 0.1))
    return found


def until_back(team: Any, limit: float = 60.0) -> list[Round]:
    """Let a team go on until nobody is missing; fail where it takes too long."""
    found, start = [], time.monotonic()
    while len(team._present()) < len(team._seats):
        assert time.monotonic() - start < limit, team.said
        found.append(team.round(0, 0.1))
        time.sleep(0.05)
    return found


def learned(practice: Practising) -> dict[str, Any]:
    """Return all that a practice has learned, but not where its cars are."""
    practice.catch_up()
    arrays = practice.learner.save()[1]
    return {k: v for k, v in arrays.items() if not k.endswith("reward.return")}


def assert_all_alike(team: Any) -> None:
    """Every worker has to have the weights of all others, to the bit."""
    states = [ray.get(seat.actor.state.remote())[1] for seat in team._seats]
    for other in states[1:]:
        for name, array in states[0].items():
            if not name.endswith("reward.return"):
                np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.fixture(scope="module")
def summing(cluster) -> Iterator[Any]:
    """Two workers that sum their gradients."""
    with team(plan(PPO)) as opened:
        rounds(opened, 1)
        yield opened


@pytest.mark.slow
def test_who_is_killed_while_it_drives_is_left_out_and_taken_back(summing):
    (done,) = within(process(summing, 1), lambda: rounds(summing, 1))
    alone = until_back(summing)

    assert done.steps == 4 * 8  # of the four cars of the other
    assert all(one.steps == 4 * 8 for one in alone[:-1])
    assert rounds(summing, 1)[0].steps == 8 * 8
    assert "worker 1 is lost; Ray starts it anew" in summing.said
    assert any(line.startswith("worker 1 is back after") for line in summing.said)
    assert_all_alike(summing)


@pytest.mark.slow
def test_who_is_killed_while_nobody_looks_is_missed(summing):
    number = process(summing, 0)
    os.kill(number, signal.SIGKILL)
    while True:  # until its place is taken by one who knows nothing
        try:
            ray.get(summing._seats[0].actor.copy.remote())
        except ray.exceptions.RayActorError:
            time.sleep(0.1)
        except Exception:
            break
    rounds(summing, 1)
    until_back(summing)

    assert rounds(summing, 1)[0].steps == 8 * 8
    assert_all_alike(summing)


def test_who_is_killed_while_all_learn_is_not_waited_for(summing, monkeypatch):
    number, serve, before = process(summing, 1), summing._serve, len(summing.said)

    def stop_then(method: str, *given: Any) -> Any:
        found = serve(method, *given)
        if method == "begin":
            os.kill(number, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (number, signal.SIGKILL)).start()
        return found

    monkeypatch.setattr(summing, "_serve", stop_then)
    (done,) = rounds(summing, 1)
    monkeypatch.undo()
    until_back(summing)

    assert done.steps == 8 * 8  # all had driven
    assert done.metrics == {}  # and the learning of the round ended there
    assert not any("the server was lost" in line for line in summing.said[before:])
    (done,) = rounds(summing, 1)
    assert "policy_loss" in done.metrics
    assert_all_alike(summing)


def test_a_server_that_is_killed_is_replaced(summing, monkeypatch):
    before, serve = learned(summing), summing._serve
    number = ray.get(summing._server.process.remote())

    def stop_then(method: str, *given: Any) -> Any:
        found = serve(method, *given)
        os.kill(number, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (number, signal.SIGKILL)).start()
        return found

    monkeypatch.setattr(summing, "_serve", stop_then)
    (broken,) = rounds(summing, 1)
    monkeypatch.undo()
    (done,) = rounds(summing, 1)

    assert (broken.steps, broken.metrics) == (8 * 8, {})
    assert done.steps == 8 * 8
    assert "policy_loss" in done.metrics
    assert len(summing._present()) == 2
    assert_all_alike(summing)
    after = learned(summing)
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_from_experience_it_learns_the_same_to_the_bit_whoever_is_killed(cluster):
    config = plan(DQN, "experience", seed=3)
    alone = Practice(config)
    wanted = rounds(alone, 8)

    with team(config) as found:
        got = within(process(found, 1), lambda: rounds(found, 1))  # before any round counted
        got += rounds(found, 3, 32)
        os.kill(process(found, 0), signal.SIGKILL)  # while nobody looks
        got += rounds(found, 4, 128)
        said, ours, theirs = found.said, learned(found), learned(alone)

    assert sum("is lost" in line for line in said) == sum("is back" in line for line in said) == 2
    assert [one.steps for one in got] == [32] * 8
    for mine, one in zip(got, wanted, strict=True):
        assert mine.metrics == one.metrics
        # Those of a worker stand together, whose rows it counts from 0.
        np.testing.assert_array_equal(np.sort(mine.episodes.reward), np.sort(one.episodes.reward))
    assert wanted[-1].metrics["gradient_steps"] == (8 * 32 - 32) / 4
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.slow
def test_who_does_not_wait_goes_on_without_worker_and_server(cluster):
    config = plan(PPO, "weights", **{"distributed.synchronous": False})
    with team(config) as found:
        rounds(found, 2)
        os.kill(process(found, 0), signal.SIGKILL)
        done = until_back(found) + rounds(found, 4)
        os.kill(ray.get(found._server.process.remote()), signal.SIGKILL)
        until = time.monotonic() + 60
        while not any("the server was lost" in line for line in found.said):
            assert time.monotonic() < until, found.said
            done += rounds(found, 1)
        done += rounds(found, 6)
        news = ray.get(found._server.pull.remote(0))

        assert {one.steps for one in done} == {4 * 8}
        assert sum("is lost; Ray" in line for line in found.said) == 1  # not for the server's sake
        assert news.version > 4
        before = learned(found)
        rounds(found, 4)
        after = learned(found)
        assert any(not np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_all_workers_and_the_server_may_die_at_once(cluster):
    config = plan(PPO, "weights", **{"distributed.synchronous": False})
    with team(config) as found:
        rounds(found, 2)
        numbers = [process(found, place) for place in (0, 1)]
        for number in (*numbers, ray.get(found._server.process.remote())):
            os.kill(number, signal.SIGKILL)
        while sum("is lost; Ray" in line for line in found.said) < 2:
            rounds(found, 1)
        until_back(found)

        assert {one.steps for one in rounds(found, 4)} == {4 * 8}
        assert len(found._present()) == 2


RUN = {
    "train.seconds": 0,
    "train.checkpoint_seconds": 0.001,  # after every round
    "evaluation.every": 3,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}


def rows(run: Run) -> list[dict[str, Any]]:
    """Return the rows of a Run's metrics, without what the clock says."""
    timed = re.compile("seconds|steps_per_second|time/.*|evaluation/.*")
    return [{k: v for k, v in r.items() if not timed.fullmatch(k)} for r in run.metrics_rows()]


@pytest.mark.parametrize(
    ("algorithm", "share"),
    [
        pytest.param(PPO, "gradients", id="ppo", marks=pytest.mark.slow),
        pytest.param(DQN, "gradients", id="dqn", marks=pytest.mark.slow),
        pytest.param(SAC, "gradients", id="sac", marks=pytest.mark.slow),
        pytest.param(DQN, "experience", id="experience", marks=pytest.mark.slow),
        pytest.param(PPO, "weights", id="weights", marks=pytest.mark.slow),
    ],
)
def test_a_driver_that_is_killed_resumes_to_the_bit(
    cluster, algorithm, share, tmp_path, monkeypatch
):
    module = importlib.import_module("hotlap.train")
    monkeypatch.setattr(module, "write_outcome", lambda run: {})
    config = plan(algorithm, share, **RUN, **{"train.steps": 64 * 12})
    (tmp_path / "config.toml").write_text(to_toml(config))
    words = ["train", str(tmp_path / "config.toml"), "--out", str(tmp_path / "killed"), "--plain"]
    driver = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOTLAP_TEST_ROWS": "5"},
    )
    said = driver.communicate(timeout=120)[1].decode()
    assert driver.returncode == -signal.SIGKILL, said
    left = len(Run.open(tmp_path / "killed").metrics_rows())

    resumed = module.train(resume=tmp_path / "killed")
    whole = module.train(config, out=tmp_path / "whole")

    assert left == 5
    assert rows(resumed) == rows(whole)
    assert [row["steps"] for row in rows(whole)][-1] == 64 * 12
    (said_of_one, ours), (said_of_other, theirs) = (r.read_state("last") for r in (resumed, whole))
    assert said_of_one["steps"] == said_of_other["steps"]
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


KILLED = """
import os, signal, sys
from hotlap.runs import Run
log = Run.log_metrics
def log_then_die(self, row):
    log(self, row)
    if row["iteration"] == int(os.environ["HOTLAP_TEST_ROWS"]):
        os.kill(os.getpid(), signal.SIGKILL)
Run.log_metrics = log_then_die
from hotlap.cli import main
main()
"""
"""A training that is killed with its fifth row written, and that round in no checkpoint."""
