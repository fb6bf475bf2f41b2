"""Workers, server and driver are killed while they train: it goes on, and the count is right."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hotlap.algorithms.settings import DQNSettings, NetworkSettings, PPOSettings, SACSettings
from hotlap.distributed.cluster import STORE_MIN, connected
from hotlap.plan import TrainConfig, read_config
from hotlap.practice import Practice, Practising, Round

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9")

SMALL = NetworkSettings(mlp=(16,))
PPO = PPOSettings(horizon=8, epochs=2, minibatch=16, network=SMALL)
DQN = DQNSettings(horizon=4, minibatch=16, warmup=32, update_ratio=0.25, network=SMALL)
SAC = SACSettings(horizon=4, minibatch=16, warmup=32, update_ratio=0.25, network=SMALL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(workers=2, store=STORE_MIN):
        yield


def plan(algorithm: Any, share: str = "gradients", **more: Any) -> TrainConfig:
    """Return a training of two workers with four cars each."""
    given = {"train.cars": 8, "track": "reinvent_like", "distributed.workers": 2}
    if algorithm.kind == "dqn":
        more["actions"] = {"kind": "grid"}
    config = read_config(None, {**given, "distributed.share": share, **more}).config
    return config.model_copy(update={"algorithm": algorithm})


@contextmanager
def team(config: TrainConfig) -> Iterator[Any]:
    """Open a team that keeps what it tells."""
    from hotlap.distributed.team import Team

    said: list[str] = []
    opened: Any = Team(config, "cpu", tell=said.append)
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


def test_who_is_killed_while_it_drives_is_left_out_and_taken_back(summing):
    (done,) = within(process(summing, 1), lambda: rounds(summing, 1))
    alone = until_back(summing)

    assert done.steps == 4 * 8  # of the four cars of the other
    assert all(one.steps == 4 * 8 for one in alone[:-1])
    assert rounds(summing, 1)[0].steps == 8 * 8
    assert "worker 1 is lost; Ray starts it anew" in summing.said
    assert any(line.startswith("worker 1 is back after") for line in summing.said)
    assert_all_alike(summing)


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
    number, serve = process(summing, 1), summing._serve

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
    assert "policy_loss" in done.metrics  # and the other learned from its half
    rounds(summing, 1)
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
