import json
import subprocess
import sys

import numpy as np
import pytest

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.policy import NumpyPolicy, choose
from hotlap.algorithms.settings import NetworkSettings, PPOSettings
from hotlap.algorithms.torch_ppo import TorchPPO
from hotlap.errors import MissingFieldError, RunError

STATE = {"state": ObservationSpec((11,), "float32")}
SMALL = {"camera": ObservationSpec((32, 48, 1), "uint8")}
COLOUR = {"camera": ObservationSpec((48, 64, 3), "uint8")}
LARGE = {"camera": ObservationSpec((60, 80, 1), "uint8")}
CASES = {
    "numbers": (STATE, "small"),
    "two kinds of numbers": (STATE | {"lidar": ObservationSpec((3, 4), "float32")}, "small"),
    "small": (SMALL, "small"),
    "small, colour and numbers": (COLOUR | STATE, "small"),
    "shallow": (LARGE | STATE, "deepracer_shallow"),
    "deepracer": (LARGE | STATE, "deepracer"),
    "airsim": (COLOUR, "airsim"),
    "airsim, odd sizes and numbers": (
        {"camera": ObservationSpec((29, 43, 3), "uint8")} | STATE,
        "airsim",
    ),
    "numbers through layers of their own": (
        SMALL | STATE | {"lidar": ObservationSpec((4,), "float32")},
        {"cnn": "small", "beside": (9, 7), "joint": (12, 10)},
    ),
    "deep": ({"camera": ObservationSpec((120, 160, 1), "uint8")} | STATE, "deepracer_deep"),
}


def look(observation, rows, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, (rows, *spec.shape)).astype(np.uint8)
        if spec.dtype == "uint8"
        else rng.normal(2.0, 3.0, (rows, *spec.shape)).astype(np.float32)
        for name, spec in observation.items()
    }


def stirred(observation, cnn, kind):
    """A learner whose weights and normalisers are all far from where they start."""
    names = tuple(observation)
    words = {"cnn": cnn} if isinstance(cnn, str) else cnn
    settings = PPOSettings(network=NetworkSettings(**words, mlp=(16, 8)), threads=1)
    ppo = TorchPPO(settings, observation, ActionSpec(kind, 3), names, names, seed=1)
    meta, arrays = ppo.save()
    rng = np.random.default_rng(2)
    for name, array in arrays.items():
        if name.startswith("actor."):
            fan_in = np.prod(array.shape[1:])
            arrays[name] = rng.normal(0, fan_in**-0.5, array.shape).astype(np.float32) / 2
        if name.startswith("normalizer."):
            arrays[name] = rng.uniform(1.0, 2.0, array.shape)
    ppo.restore(meta, arrays)
    return ppo


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("case", CASES)
def test_numpy_drives_as_torch_does(case, kind):
    observation, cnn = CASES[case]
    ppo = stirred(observation, cnn, kind)
    seen = look(observation, rows=5)
    description, arrays = ppo.policy_state()

    policy = NumpyPolicy(json.loads(json.dumps(description)), arrays)

    uniform = np.random.default_rng(3).uniform(0.01, 0.99, (5, 3)).astype(np.float32)
    sampled, log_prob = ppo.act(seen, uniform)
    if kind == "discrete":
        chosen = policy.probabilities(seen)[np.arange(5), sampled]
        np.testing.assert_allclose(np.log(chosen), log_prob, atol=1e-5)
        np.testing.assert_array_equal(policy.act(seen, uniform), sampled)
    else:
        assert np.ptp(policy.output(seen), axis=0).max() > 1e-3  # the rows do not all look alike
        np.testing.assert_allclose(policy.act(seen, uniform), sampled.clip(-1, 1), atol=1e-5)
    np.testing.assert_allclose(policy.act(seen), ppo.greedy(seen), atol=1e-5)


def test_choices_come_as_often_as_they_are_likely():
    probability = np.array([0.1, 0.0, 0.6, 0.3])
    uniform = ((np.arange(1000) + 0.5) / 1000).reshape(-1, 1)
    with np.errstate(divide="ignore"):
        logits = np.log(np.tile(probability, (1000, 1))).astype(np.float32)

    counts = np.bincount(choose(logits, uniform), minlength=4)

    np.testing.assert_allclose(counts / 1000, probability, atol=0.0011)


def test_the_best_action_is_inside_the_range_and_needs_no_draw():
    policy = NumpyPolicy(
        {
            "format": 1,
            "action": "continuous",
            "plan": {
                "images": {},
                "vectors": {"state": 1},
                "hidden": [],
                "activation": "tanh",
                "outputs": 2,
            },
        },
        {
            "head.weight": np.array([[0.5], [4.0]]),
            "head.bias": np.array([0.25, 0.0]),
            "log_std": np.zeros(2),
            "normalizer.state.mean": np.array([1.0]),
            "normalizer.state.std": np.array([2.0]),
        },
    )

    # (3 - 1) / 2 = 1;  0.5 * 1 + 0.25 = 0.75;  4 * 1 = 4, clipped to 1
    np.testing.assert_allclose(policy.act({"state": np.array([[3.0]])}), [[0.75, 1.0]])


def test_a_missing_observation_is_named():
    policy = NumpyPolicy(*stirred(*CASES["numbers"], "continuous").policy_state())

    with pytest.raises(MissingFieldError, match="reads state, but was given only camera"):
        policy.act({"camera": np.zeros((1, 4, 4, 1), np.uint8)})


def test_arrays_of_another_network_are_refused():
    description, arrays = stirred(*CASES["numbers"], "continuous").policy_state()
    arrays["head.weight"] = arrays["head.weight"][:, 1:]

    with pytest.raises(RunError, match=r"'head.weight' must have shape \(3, 8\), found \(3, 7\)"):
        NumpyPolicy(description, arrays)


def test_a_broken_description_is_refused_by_name():
    description, arrays = stirred(*CASES["numbers"], "continuous").policy_state()
    del description["plan"]["hidden"]

    with pytest.raises(RunError, match=r"plan\.hidden"):
        NumpyPolicy(description, arrays)


def test_a_batch_knows_how_many_steps_ended():
    no, one = np.zeros((2, 1), bool), np.array([[True], [False]])
    number = np.zeros((2, 1), np.float32)

    with pytest.raises(ValueError, match=r"reached\['state'\] has 2 rows, but 1 steps ended"):
        Batch({}, {}, number, number, number, one, no, {"state": np.zeros((2, 3))})


def test_driving_does_not_import_torch():
    code = (
        "import sys, hotlap.algorithms, hotlap.algorithms.batch, hotlap.algorithms.returns, "
        "hotlap.algorithms.normalizer, hotlap.algorithms.policy; print('torch' in sys.modules)"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"
