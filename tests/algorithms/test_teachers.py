"""Drivers of every learner as teachers: what they say is what they do."""

import numpy as np
import pytest

from hotlap.algorithms.actor_critic import ActorCritic
from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.distill import Distill
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.q_learning import DQN, PQN
from hotlap.algorithms.settings import (
    DistillSettings,
    DQNSettings,
    NetworkSettings,
    PQNSettings,
    QRSACSettings,
    SACSettings,
    TD3Settings,
)

OBSERVATION = {"state": ObservationSpec((5,), "float32")}
SMALL = {"network": NetworkSettings(mlp=(8,))}
LEARNERS = {
    "td3": (ActorCritic, TD3Settings(**SMALL)),
    "sac": (ActorCritic, SACSettings(**SMALL)),
    "qr_sac": (ActorCritic, QRSACSettings(**SMALL)),
    "dqn": (DQN, DQNSettings(**SMALL)),
    "c51": (DQN, DQNSettings(**SMALL, head="c51", atoms=5)),
    "pqn": (PQN, PQNSettings(**SMALL)),
}


def saved(name):
    """Return action and driver of a learner that has an opinion: its last layer is large."""
    kind, settings = LEARNERS[name]
    action = ActionSpec(*(("continuous", 2) if kind is ActorCritic else ("discrete", 3)))
    learner = kind(settings, OBSERVATION, action, ("state",), ("state",), seed=3, device="cpu")
    description, arrays = learner.policy_state()
    draws = np.random.default_rng(0).normal(size=arrays["head.weight"].shape)
    return action, description, arrays | {"head.weight": draws.astype(np.float32)}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_teacher_drives_before_its_student_as_it_drives_alone(name):
    action, description, arrays = saved(name)
    settings = DistillSettings(teacher="somebody", noisy=0.0)
    names = ("state",), ("state",)
    distill = Distill(settings, OBSERVATION, action, *names, seed=0, device="cpu")
    distill.take_teacher(description, arrays)
    seen = {"state": np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)}

    first, _ = distill.act(seen, np.full((40, 2), 0.5))

    alone = NumpyPolicy(description, arrays).act(seen)
    np.testing.assert_allclose(first, alone, atol=1e-6)
    assert np.abs(alone).max() > 0.5


@pytest.mark.parametrize("name", ["dqn", "c51", "pqn"])
def test_who_knows_worths_takes_the_best_choice_for_certain(name):
    _, description, arrays = saved(name)
    policy = NumpyPolicy(description, arrays)
    seen = {"state": np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)}

    chance = policy.probabilities(seen)

    np.testing.assert_array_equal(chance.argmax(axis=1), policy.act(seen))
    np.testing.assert_array_equal(np.sort(chance, axis=1), np.tile([0, 0, 1], (40, 1)))
    np.testing.assert_array_equal(policy.act(seen, np.full((40, 1), 0.999)), policy.act(seen))
