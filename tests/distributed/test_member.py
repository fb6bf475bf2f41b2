"""Members without Ray: threads in place of processes, and the real server between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.distributed.member import Member, copied, part_settings, shared_out
from hotlap.distributed.ring import Circle, available
from hotlap.distributed.server import Server
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig
from hotlap.practice import Practice

SMALL = {
    "seed": 5,
    "train.cars": 12,
    "algorithm.horizon": 8,
    "algorithm.minibatch": 32,
    "algorithm.epochs": 2,
    "algorithm.network.mlp": [16],
    "distributed.workers": 3,
}


NEEDS_GLOO = pytest.mark.skipif(not available(), reason="this PyTorch has no Gloo")


def settings(share: str, **changed: object) -> TrainConfig:
    return resolve(TrainConfig, {**SMALL, "distributed.share": share, **changed})


@contextmanager
def meeting_place() -> Iterator[tuple[Server, Callable[..., object]]]:
    """Run a server in a thread; yield it and the function that members meet by."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Server()

    def meet(*given: object) -> object:
        return asyncio.run_coroutine_threadsafe(server.meet(*given), loop).result(30)

    try:
        yield server, meet
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def rounds(config: TrainConfig, count: int, *, circle: bool = False) -> list[Member]:
    """Let members do some rounds together; they sum in a circle, or the server does."""
    parts = shared_out(config.train.cars, config.distributed.workers, 1)
    with meeting_place() as (server, meet), ThreadPoolExecutor(len(parts)) as pool:
        members = [Member(config, part, meet) for part in parts]
        for number in range(1, count + 1):
            list(pool.map(lambda one: one.collect(0), members))
            server.begin(number, range(len(parts)))
            around = Circle(0, tuple(range(len(parts)))) if circle else None
            learnt = pool.map(lambda one, n=number, c=around: one.learn(n, 0.0, c), members)
            ((_, sums, size),) = {(one.met, one.sums, one.bytes) for one in learnt}
            whole = 4 * (members[0].learner.vector().size + 5)  # and five sums for the metrics
            assert size == sums * whole
            assert (sums > 0) == circle
    return members


def alone(config: TrainConfig, count: int) -> Practice:
    practice = Practice(config)
    for _ in range(count):
        practice.round(0, 0.0)
    return practice


@pytest.mark.parametrize("circle", [False, pytest.param(True, marks=NEEDS_GLOO)])
def test_members_that_share_gradients_learn_what_one_does_with_all_cars(circle):
    config = settings("gradients")
    wanted = alone(config, 4).learner.save()[1]
    members = rounds(config, 4, circle=circle)
    for member in members:
        found = member.learner.save()[1]
        for name, value in wanted.items():
            if name != "reward.return":  # of its own cars
                np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    first = members[0].learner.vector()
    for member in members[1:]:
        np.testing.assert_array_equal(member.learner.vector(), first)


def test_members_drive_the_very_rows_that_one_would():
    config = settings("experience")
    practice = Practice(config)
    members = [Member(config, part, lambda *_: None) for part in shared_out(12, 3, 1)]
    for _ in range(3):
        driver = copied(practice.learner)
        batch, _ = practice.runner.collect(practice.learner, 8)
        found = [member.collect(0, None, driver).batch for member in members]
        for name in ("reward", "action", "log_prob", "terminated"):
            joined = np.concatenate([getattr(one, name) for one in found], axis=1)
            np.testing.assert_array_equal(joined, getattr(batch, name))
        practice.learner.update(batch, progress=0.0)


def test_members_explore_as_much_as_their_cars_would():
    """With a ladder every car has its own share of chance, by its number among all."""
    ladder = {"algorithm.kind": "dqn", "actions.kind": "grid", "algorithm.epsilon_ladder": True}
    config = resolve(TrainConfig, {
        **ladder, "train.cars": 12, "algorithm.warmup": 0, "distributed.share": "experience",
        "distributed.workers": 3, "algorithm.horizon": 8,
    })  # fmt: skip
    practice = Practice(config)
    batch, _ = practice.runner.collect(practice.learner, 8)
    members = [Member(config, part, lambda *_: None) for part in shared_out(12, 3, 1)]
    found = [member.collect(0, None, copied(practice.learner)).batch for member in members]
    joined = np.concatenate([one.action for one in found], axis=1)
    np.testing.assert_array_equal(joined, batch.action)


def test_who_becomes_another_keeps_what_is_of_its_own_cars():
    first, second = rounds(settings("gradients", **{"distributed.workers": 2}), 2)
    own = second.learner.save()[1]["reward.return"].copy()
    second.become(*first.state())
    np.testing.assert_array_equal(second.learner.vector(), first.learner.vector())
    np.testing.assert_array_equal(second.learner.save()[1]["reward.return"], own)
    assert not np.array_equal(own, first.learner.save()[1]["reward.return"])


def test_members_that_share_weights_go_on_from_the_mean():
    config = settings("weights")
    before = Practice(config).learner.vector()
    members = rounds(config, 1)
    apart = []
    for part in shared_out(12, 3, 1):
        own = Member(config, part, lambda *_: None)
        own.collect(0)
        own.learner.update(own._batch, progress=0.0)
        apart.append(own.learner.vector() - before)
    for member in members:
        np.testing.assert_allclose(
            member.learner.vector(), before + np.mean(apart, axis=0), rtol=1e-5, atol=1e-7
        )
    # and all see by the same scales, which are those of all cars
    whole = alone(config, 1).learner.scales.normalizers["state"]
    for member in members:
        mine = member.learner.scales.normalizers["state"]
        np.testing.assert_allclose(mine.mean, whole.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mine.variance, whole.variance, rtol=1e-6, atol=1e-9)


def test_a_part_takes_as_many_gradient_steps_with_its_share_of_samples():
    dqn = {"algorithm.kind": "dqn", "actions.kind": "grid", "algorithm.minibatch": 96}
    config = resolve(TrainConfig, {**dqn, "algorithm.warmup": 3000, "algorithm.update_ratio": 0.02})
    mine = part_settings(config, 3).algorithm
    assert (mine.minibatch, mine.warmup) == (32, 1000)
    # of 9000 steps of all, 3000 are its own: as many steps from both counts
    assert mine.update_ratio * (3000 - mine.warmup) == pytest.approx(0.02 * (9000 - 3000))


@pytest.mark.parametrize(("cars", "members", "together"), [(128, 3, 1), (12, 2, 4), (7, 7, 1)])
def test_cars_are_shared_out_evenly_and_whole_races_stay_together(cars, members, together):
    parts = shared_out(cars, members, together)
    assert sum(part.rows for part in parts) == cars
    assert [part.first for part in parts] == [
        sum(p.rows for p in parts[:i]) for i in range(members)
    ]
    assert all(part.first % together == 0 == part.rows % together for part in parts)
    assert max(p.rows for p in parts) - min(p.rows for p in parts) <= together


def test_more_workers_than_cars_are_refused():
    with pytest.raises(ConfigError, match=r"train.cars at least 16"):
        shared_out(12, 4, 4)
