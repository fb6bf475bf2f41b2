"""Worlds in which only who remembers can do better than chance."""

import numpy as np
import pytest
from anchors import learn

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.learner import Remembering, make_learner
from hotlap.algorithms.settings import (
    DDPGSettings,
    NetworkSettings,
    PPOSettings,
    RDPGSettings,
    RecurrentNetworkSettings,
)


class Cue:
    """Shows -1 or 1 at the first step, asks for it after `wait` more, and shows nothing between.

    Discrete: a point for the right one of two choices, so chance is 1/2. Continuous: minus the
    square of how far the answer is from 0.7 times the cue; the best blind answer is 0, and its
    worth -0.49. Every other episode is cut off instead of ending.
    """

    def __init__(self, rows, kind, wait, seed=0):
        self.rows, self.wait, self.rng = rows, wait, np.random.default_rng(seed)
        self.action = ActionSpec(kind, 2 if kind == "discrete" else 1)
        self.observation = {"state": ObservationSpec((2,), "float32")}

    def reset(self):
        self.clock = np.arange(self.rows) % (self.wait + 1)  # rows are not in step
        self.cue = self.rng.integers(0, 2, self.rows)
        self.odd = self.rng.random(self.rows) < 0.5
        return self.seen()

    def seen(self):
        sign = np.where(self.clock == 0, 2.0 * self.cue - 1.0, 0.0)
        return {"state": np.stack([sign, self.clock == self.wait], axis=1).astype(np.float32)}

    def step(self, action):
        asked = self.clock == self.wait
        if self.action.kind == "discrete":
            good = (action == self.cue).astype(np.float32)
        else:
            good = -np.square(action[:, 0] - 0.7 * (2.0 * self.cue - 1.0)).astype(np.float32)
        reward = np.where(asked, good, np.float32(0))
        self.clock += 1
        reached = {"state": np.zeros((self.rows, 2), np.float32)}
        if not asked.all():
            reached = self.seen()
        self.clock[asked] = 0
        self.cue[asked] = self.rng.integers(0, 2, int(asked.sum()))
        cut = asked & self.odd
        self.odd = np.where(asked, ~self.odd, self.odd)
        return self.seen(), reward, asked & ~cut, cut, reached


def score(world, learner):
    """Return the mean reward of an answer, of greedy episodes from their beginning."""
    world.clock[:] = 0
    seen, total = world.seen(), 0.0
    if isinstance(learner, Remembering):
        learner.begin()
    for _ in range(world.wait + 1):
        seen, reward, *_ = world.step(learner.greedy(seen))
        total += reward.mean()
    return total


def made(world, settings, seed):
    names = tuple(world.observation)
    return make_learner(
        settings, world.observation, world.action, names, names, seed=seed, device="cpu"
    )


def ppo(memory, **settings):
    defaults = {"horizon": 16, "minibatch": 256, "learning_rate": 5e-3, "gamma": 0.9}
    network = NetworkSettings(mlp=(16,), memory=memory)
    return PPOSettings(**(defaults | {"network": network, "threads": 1} | settings))


def replay(settings, network, **more):
    defaults = {
        "warmup": 512, "update_ratio": 0.03, "gamma": 0.9, "n_step": 1, "horizon": 4,
        "learning_rate": 2e-3, "critic_learning_rate": 2e-3, "normalize_rewards": False,
    }  # fmt: skip
    return settings(**(defaults | {"network": network} | more))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_units_recall_what_was_seen_two_steps_before(cell):
    world = Cue(64, "discrete", wait=2)
    network = NetworkSettings(mlp=(16,), memory=8, memory_cell=cell)
    ours = made(world, ppo(8, network=network), 0)

    learn(world, ours, steps=64 * 16 * 16, seed=0)

    assert score(world, ours) > 0.95


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_rdpg_s_units_recall_what_was_seen_two_steps_before(cell):
    world = Cue(32, "continuous", wait=2)
    network = RecurrentNetworkSettings(mlp=(16,), memory=8, memory_cell=cell, previous_action=False)
    settings = replay(RDPGSettings, network, sequence=6, burn_in=3, minibatch=192)
    ours = made(world, settings, 0)

    learn(world, ours, steps=32 * 400, seed=0)

    assert score(world, ours) > -0.2  # the best blind answer: -0.49


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_recurrent_ppo_recalls_what_it_saw(seed):
    world = Cue(64, "discrete", wait=5, seed=seed)
    ours = made(world, ppo(16), seed)

    learn(world, ours, steps=64 * 16 * 40, seed=seed)

    assert score(world, ours) > 0.95


def test_ppo_without_a_memory_stays_at_chance():
    world = Cue(64, "discrete", wait=5)
    ours = made(world, ppo(0), 0)

    learn(world, ours, steps=64 * 16 * 40, seed=0)

    world.reset()
    scores = [score(world, ours) for _ in range(20)]
    # 1280 coins: five deviations of their mean are 5 * 0.5 / sqrt(1280) = 0.07
    assert abs(np.mean(scores) - 0.5) < 0.07


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rdpg_recalls_what_it_saw(seed):
    world = Cue(32, "continuous", wait=5, seed=seed)
    network = RecurrentNetworkSettings(mlp=(16,), memory=16, previous_action=False)
    settings = replay(RDPGSettings, network, sequence=12, burn_in=6, minibatch=384)
    ours = made(world, settings, seed)

    learn(world, ours, steps=32 * 600, seed=seed)

    assert score(world, ours) > -0.1  # the best blind answer: -0.49


def test_ddpg_stays_at_the_best_blind_answer():
    world = Cue(32, "continuous", wait=5)
    ours = made(world, replay(DDPGSettings, NetworkSettings(mlp=(16,))), 0)

    learn(world, ours, steps=32 * 600, seed=0)

    world.reset()
    assert np.mean([score(world, ours) for _ in range(20)]) < -0.4
