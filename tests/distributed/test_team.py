"""A team over Ray: what it learns is what one process would, and little travels."""

from __future__ import annotations

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.errors import ClusterError
from hotlap.plan import TrainConfig
from hotlap.practice import Practice
from hotlap.runs import Run

ray = pytest.importorskip("ray")

from hotlap.distributed.member import Part  # noqa: E402
from hotlap.distributed.team import Team  # noqa: E402
from hotlap.distributed.worker import Worker  # noqa: E402

PPO = {
    "seed": 5,
    "train.cars": 12,
    "algorithm.horizon": 8,
    "algorithm.minibatch": 32,
    "algorithm.epochs": 2,
    "algorithm.network.mlp": [64, 64],
    "distributed.workers": 2,
    "distributed.threads": 1,
}
DQN = {
    **{name: value for name, value in PPO.items() if name != "algorithm.epochs"},
    "algorithm.kind": "dqn",
    "actions.kind": "grid",
    "algorithm.warmup": 96,
    "algorithm.update_ratio": 0.05,
    "algorithm.capacity": 600,
}


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """Start Ray once for all of these."""
    from hotlap.distributed.cluster import connected

    with connected("", workers=4, threads=1):
        yield


def settings(given, **changed) -> TrainConfig:
    return resolve(TrainConfig, {**given, **{k.replace("__", "."): v for k, v in changed.items()}})


def run_rounds(practice, count):
    steps = 0
    for _ in range(count):
        steps += practice.round(steps, 0.0).steps
    practice.catch_up()
    return steps


def assert_same(found, wanted, **tolerance):
    for name, value in wanted.learner.save()[1].items():
        if name.startswith("reward.return"):
            continue
        mine = found.learner.save()[1][name]
        if tolerance:
            np.testing.assert_allclose(mine, value, err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(mine, value, err_msg=name)


@pytest.fixture
def team():
    made = []

    def make(config, begin=lambda learner: None):
        made.append(Team(config))
        begin(made[-1].learner)
        made[-1].open(None)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("given", [pytest.param(PPO, id="ppo"), pytest.param(DQN, id="dqn")])
@pytest.mark.slow  # test_faults.py asks the same of one whose workers are killed
def test_experience_gives_what_no_workers_give_to_the_bit(team, given):
    config = settings(given, distributed__share="experience")
    one, many = Practice(config), team(config)
    assert run_rounds(one, 4) == run_rounds(many, 4) == 4 * 96
    assert_same(many, one)


def test_gradients_give_what_no_workers_give_and_travel_as_one_vector(team):
    config = settings(PPO, distributed__share="gradients")
    one, many = Practice(config), team(config)
    run_rounds(one, 3)
    run_rounds(many, 3)
    assert_same(many, one, rtol=2e-3, atol=2e-5)
    seen = many.traffic()
    assert seen["exchanges"] == 3 * 2 * 3 * 2  # rounds, epochs, minibatches of 96 steps, workers
    parameters = len(many.learner.vector())
    assert seen["exchanged"] / seen["exchanges"] == pytest.approx(4 * parameters, rel=0.05)


@pytest.mark.parametrize(
    "share",
    [
        "gradients",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("weights", "experience")),
    ],
)
def test_a_checkpoint_continues_exactly(team, share, tmp_path):
    config = settings(DQN, distributed__share=share)
    first = team(config)
    steps = run_rounds(first, 3)
    with Run.create(tmp_path / "run", "", {}) as run:
        for count in (steps, steps + 96):  # twice, so that the replay has more than one piece
            kept = first.keep(run)
            run.write_checkpoint(
                count,
                policy=first.learner.policy_state(),
                state=(dict(kept.state), dict(kept.arrays)),
                best=False,
                segments=kept.segments,
            )
            run_rounds(first, 1)
        second = team(config)
        assert second.restore(run, *run.read_state("last")) == []
    run_rounds(second, 1)
    run_rounds(first, 1)
    run_rounds(second, 1)
    assert_same(second, first)


@pytest.mark.parametrize(
    ("share", "waits"),
    [("gradients", True), ("weights", True), ("weights", False), ("experience", True)],
)
def test_workers_begin_with_the_driver_that_the_training_begins_with(team, share, waits):
    config = settings(
        PPO,
        algorithm__freeze=["actor.hidden0"],
        algorithm__learning_rate=1e-12,
        distributed__share=share,
        distributed__synchronous=waits,
    )
    other = Practice(settings(PPO, seed=6)).learner
    many = team(config, lambda learner: learner.adopt(*other.save()))

    run_rounds(many, 1)

    wanted = {k: v for k, v in other.save()[1].items() if k.startswith("actor.")}
    assert wanted
    for seat in many._seats:
        found = ray.get(seat.actor.state.remote())[1]
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_workers_learn_from_the_teacher_that_the_training_was_given(team):
    given = {k: v for k, v in PPO.items() if k.startswith(("seed", "train", "distributed"))}
    kind = {"algorithm.kind": "distill", "algorithm.teacher": "read by who trains"}
    taught = Practice(settings(PPO, seed=6)).learner.policy_state()
    config = settings({**given, **kind, "algorithm.minibatch": 32})

    many = team(config, lambda learner: learner.take_teacher(*taught))

    found = many.round(0, 0.0)
    assert found.phase.name == "student"
    assert found.metrics["imitation_loss"] > 0


def test_who_does_not_wait_learns_too(team):
    config = settings(PPO, distributed__share="weights", distributed__synchronous=False)
    many = team(config)
    before = many.learner.vector()
    assert run_rounds(many, 6) == 6 * 48  # each worker's round counts on its own
    assert not np.array_equal(many.learner.vector(), before)
    assert many.learner.scales.normalizers["state"]._count >= 6 * 48
    assert many.traffic()["dropped"] == 0


def test_a_worker_with_another_reward_file_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_THREADS", "1")  # which a worker sets for its own process
    file = tmp_path / "reward.py"
    file.write_text("def reward_function(params):\n    return 1.0\n")
    words = settings(PPO, reward=str(file)).model_dump(mode="json", exclude_none=True)
    marks = {f"reward {file}": "of another file"}
    worker = Worker(words, marks, Part(1, 6, 6, 12, 2), None, None, [], threads=1)
    with pytest.raises(ClusterError, match=r"worker 1 on .* has another reward .*copy it to every"):
        worker.hello()
