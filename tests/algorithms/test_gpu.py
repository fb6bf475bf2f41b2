"""Every learner on a GPU, where there is one; else the same on the processor, twice."""

import numpy as np
import pytest
import torch
from worlds import OBSERVATION, driven, look

from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.settings import (
    DDPGSettings,
    DistillSettings,
    DQNSettings,
    PPOSettings,
    PQNSettings,
    QRSACSettings,
    RDPGSettings,
    RecurrentNetworkSettings,
    SACSettings,
    TD3Settings,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, STEPS = 4, 8
REPLAY = {"warmup": 0, "minibatch": 16, "capacity": 256, "precision": "float32"}
MEMORY = RecurrentNetworkSettings(memory=8)
LEARNERS = {
    "ppo": PPOSettings(precision="float32"),
    "ppo in bfloat16": PPOSettings(precision="bfloat16"),
    "ppo among choices": PPOSettings(precision="float32"),
    "recurrent ppo": PPOSettings(precision="float32", network=MEMORY),
    "lstm": PPOSettings(
        precision="float32", network=RecurrentNetworkSettings(memory=8, memory_cell="lstm")
    ),
    "distill": DistillSettings(teacher="given below", memory=256, minibatch=16),
    "ddpg": DDPGSettings(**REPLAY),
    "td3": TD3Settings(**REPLAY),
    "sac": SACSettings(**REPLAY),
    "sac among choices": SACSettings(**REPLAY),
    "qr_sac": QRSACSettings(**REPLAY),
    "rdpg": RDPGSettings(**REPLAY, sequence=2, burn_in=1, network=MEMORY),
    "dqn": DQNSettings(**REPLAY, priority=0.5),
    "dueling c51": DQNSettings(**REPLAY, dueling=True, head="c51"),
    "quantiles": DQNSettings(**REPLAY, head="quantile"),
    "pqn": PQNSettings(precision="float32"),
}
CHOOSE = ("ppo among choices", "sac among choices", "dqn", "dueling c51", "quantiles", "pqn")


def experience(learner, seed, discrete):
    """Let a learner act for some steps in a world that is drawn at random."""
    rng = np.random.default_rng(seed)
    seen = [look(rng, ROWS) for _ in range(STEPS)]
    for step, one in enumerate(seen):
        _, log_prob = learner.act(one, rng.uniform(0.01, 0.99, (ROWS, 2)), np.full(ROWS, not step))
        assert np.isfinite(log_prob).all()
    if discrete:
        actions = rng.integers(0, 3, (STEPS, ROWS))
    else:
        actions = rng.uniform(-1, 1, (STEPS, ROWS, 2)).astype(np.float32)
    log_prob = np.full((STEPS, ROWS), -1.0, np.float32)
    reward = rng.normal(size=(STEPS, ROWS)).astype(np.float32)
    ended = np.zeros((2, STEPS, ROWS), bool)
    ended[0, 3, 1] = ended[1, 5, 2] = True
    stacked = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
    return driven(rng, stacked, actions, log_prob, reward, ended)


@pytest.mark.parametrize("sees", [("state",), ("camera",), ("camera", "state")], ids="+".join)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_of_a_gpu_is_that_of_the_processor(name, sees):
    discrete = name in CHOOSE
    action = ActionSpec("discrete", 3) if discrete else ActionSpec("continuous", 2)
    there, here, copy = (
        make_learner(LEARNERS[name], OBSERVATION, action, sees, ("state",), seed=3, device=device)
        for device in (DEVICE, "cpu", "cpu")
    )

    if name == "distill":
        state = OBSERVATION, action, ("state",), ("state",)
        taught = make_learner(PPOSettings(), *state, seed=4, device="cpu").policy_state()
        for learner in (there, here):
            learner.take_teacher(*taught)

    for learner in (there, here):
        for seed in range(2):
            metrics = learner.update(experience(learner, seed, discrete), progress=0.1 * seed)
            assert all(np.isfinite(value) for value in metrics.values())

    weights = [learner.policy_state()[1] for learner in (there, here)]
    assert weights[0].keys() == weights[1].keys()
    for key, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][key], rtol=0.01, atol=0.01, err_msg=key)

    meta, arrays = there.save()
    if there.replay is not None:
        copy.replay.restore(*there.replay.save(), [(0, there.replay.segment(0))])
    copy.restore(meta, arrays)
    seen = look(np.random.default_rng(9), 16)
    if not discrete:
        np.testing.assert_allclose(copy.greedy(seen), there.greedy(seen), atol=1e-3)
    for learner in (there, copy):
        found = learner.update(experience(learner, 7, discrete), progress=0.5)
        assert all(np.isfinite(value) for value in found.values())
