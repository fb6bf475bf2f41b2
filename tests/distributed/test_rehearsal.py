"""What is measured of a worker, and what a message costs."""

import os

import numpy as np
import pytest

from hotlap.config import overrides
from hotlap.env import VectorEnv
from hotlap.plan import read_config

ray = pytest.importorskip("ray")
from hotlap.distributed.calibration import read, write  # noqa: E402
from hotlap.distributed.rehearsal import calibrated, rehearsed  # noqa: E402

SMALL = overrides(
    [
        "train.cars=8",
        "algorithm.horizon=4",
        "algorithm.minibatch=8",
        "algorithm.epochs=3",
        "algorithm.network.mlp=[8]",
    ]
)


def small(share, workers):
    more = {"distributed.share": share, "distributed.workers": workers}
    return read_config(None, {**SMALL, **more}).config


def weights_of(config):
    """Weights of an actor and a critic of 8 units, for steering and speed."""
    seen = VectorEnv(config, 1).begin()["state"].shape[1]
    actor = seen * 8 + 8 + 8 * 2 + 2 + 2  # and the deviations of two actions
    return actor + seen * 8 + 8 + 8 + 1


def test_a_worker_meets_the_others_at_every_gradient_step():
    config = small("gradients", 4)

    work, _ = rehearsed(config, "gradients", 4, 0.0)

    # 8 cars, 4 steps: 32, in minibatches of 8, three times over: 12 gradient steps
    (sums,) = [one for one in work.exchanges if one.what == "ring"]
    assert sums.count == 12
    # four bytes a weight, and five sums for the metrics
    assert sums.size == 4 * (weights_of(config) + 5)
    assert (work.rows, work.steps) == (2, 32)


def test_weights_are_exchanged_once_a_round():
    config = small("weights", 4)

    work, _ = rehearsed(config, "weights", 4, 0.0)

    found = {one.what: one for one in work.exchanges}
    assert {what: one.count for what, one in found.items()} == {"sum": 1, "gather": 1}
    assert found["sum"].size == 4 * weights_of(config)


def test_experience_is_what_was_seen_and_done():
    config = small("experience", 4)

    work, _ = rehearsed(config, "experience", 4, 0.0)

    seen = VectorEnv(config, 1).begin()["state"].nbytes
    assert work.exchanges == ()
    # 2 cars, 4 steps and what comes after them; and beside it actions, rewards and the world
    assert 2 * 5 * seen < work.batch < 2 * 5 * seen + 20_000


def test_one_worker_alone_exchanges_nothing():
    work, _ = rehearsed(small("gradients", 1), "gradients", 1, 0.0)

    assert work.exchanges == ()
    assert work.collecting > 0
    assert work.learning > 0


def test_a_replay_learner_is_measured_while_it_learns():
    config = read_config(
        None,
        overrides(
            [
                "algorithm.kind=sac", "algorithm.warmup=100000", "algorithm.minibatch=8",
                "algorithm.network.mlp=[8]", "algorithm.capacity=1000", "train.cars=4",
                "distributed.workers=2", "distributed.share=gradients",
            ]
        ),
    ).config  # fmt: skip

    work, _ = rehearsed(config, "gradients", 2, 0.0)

    assert any(one.what == "ring" for one in work.exchanges)
    seen = VectorEnv(config, 1).begin()["state"].nbytes
    assert work.replay >= 1000 * seen


@pytest.fixture(scope="module")
def found():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    said = []
    config = small("auto", 0)
    made = calibrated(
        config, ["gradients", "weights", "experience"], [1, 2, 16], seconds=0.02, tell=said.append
    )
    return config, made, said


def test_every_way_is_measured_at_every_size_that_the_cars_allow(found):
    _, made, said = found

    assert {share: list(works) for share, works in made.works.items()} == {
        "gradients": [1, 2],
        "weights": [1, 2],
        "experience": [1, 2],
    }
    assert set(made.refused) == {"gradients at 16", "weights at 16", "experience at 16"}
    assert "16 workers cannot share 8 cars" in made.refused["weights at 16"]
    assert "measuring weights at 2 workers" in said
    assert made.works["experience"][2].learning > 0  # of the learner


def test_messages_cost_what_messages_cost(found):
    _, made, _ = found

    link = made.link
    # A call of an actor takes from a tenth of a millisecond to some, on a machine that is busy.
    assert 1e-5 < link.call < 0.2
    assert 1e-6 < link.routing < 0.05
    for size in link.sizes:
        assert 0 < link.service(size) <= link.seconds(size)
    assert np.all(np.diff(link.alone) >= 0)
    assert np.all(np.diff(link.ring) >= 0)
    assert 0 < link.ring[0] < link.ring[-1]
    # A process with Ray and NumPy
    assert made.server > 30e6
    assert made.crowding >= 1


def test_a_calibration_is_the_same_when_it_is_read(found, tmp_path):
    config, made, _ = found

    write(tmp_path / "here.json", made)

    assert read(tmp_path / "here.json", config, 0) == made


def test_nothing_of_ray_is_left(found):
    assert not ray.is_initialized()
