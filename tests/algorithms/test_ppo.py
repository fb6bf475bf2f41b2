import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from worlds import OBSERVATION, assert_same, driven, look

from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.compiled_ppo import CompiledPPO
from hotlap.algorithms.networks import Adam, initial_weights
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.settings import NetworkSettings, PPOSettings
from hotlap.algorithms.torch_ppo import TorchPPO, clipped_objective, value_error
from hotlap.config import resolve
from hotlap.errors import ConfigError, RunError, SimulationError

FAST = {"minibatch": 64, "network": NetworkSettings(mlp=(16, 16)), "threads": 1}


KINDS = {"torch": TorchPPO, "compiled": CompiledPPO}


def made(runs, kind="continuous", actor=("state",), critic=("state",), seed=7, **settings):
    """A learner whose networks run in one of the two ways."""
    given = PPOSettings(**(FAST | settings))
    return KINDS[runs](given, OBSERVATION, ActionSpec(kind, 3), actor, critic, seed=seed)


@pytest.fixture(params=KINDS)
def learner(request):
    return partial(made, request.param)


def make_batch(ppo, *, seed=0, steps=12, rows=16, ends=0.1, sign=-1.0):
    """Random worlds: rewards that prefer small first actions (sign -1), ends at random."""
    rng = np.random.default_rng(seed)
    seen = look(rng, steps, rows)
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in seen.items()}
    action, log_prob = ppo.act(flat, rng.uniform(0.001, 0.999, (steps * rows, 3)))
    reward = sign * np.abs(action if action.ndim == 1 else action[:, 0]).astype(np.float32)
    ended = rng.random((2, steps, rows)) < ends
    shape = (steps, rows)
    action = action.reshape(*shape, *action.shape[1:])
    return driven(rng, seen, action, log_prob.reshape(shape), reward.reshape(shape), ended)


def test_the_log_probability_is_that_of_the_unclipped_normal_action(learner):
    ppo = learner(initial_std=0.9)
    seen = look(np.random.default_rng(0), 50)
    uniform = np.random.default_rng(1).uniform(0.001, 0.999, (50, 3))

    action, log_prob = ppo.act(seen, uniform)

    mean = torch.from_numpy(NumpyPolicy(*ppo.policy_state()).output(seen))
    normal = torch.distributions.Normal(mean, 0.9)
    assert np.abs(action).max() > 1.5
    expected = normal.log_prob(torch.from_numpy(action)).sum(dim=1)
    np.testing.assert_allclose(log_prob, expected, atol=1e-5)
    np.testing.assert_allclose(normal.cdf(torch.from_numpy(action)), uniform, atol=1e-5)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_entropy_is_the_distribution_s(learner, kind):
    ppo = learner(kind, learning_rate=1e-12, schedule="constant", initial_std=0.7)
    batch = make_batch(ppo)

    metrics = ppo.update(batch, progress=0.0)

    if kind == "continuous":
        expected = 3 * torch.distributions.Normal(0.0, 0.7).entropy().item()
    else:
        flat = {name: v.reshape(-1, *v.shape[2:]) for name, v in batch.observation.items()}
        logits = torch.from_numpy(NumpyPolicy(*ppo.policy_state()).output(flat))
        expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    assert metrics["entropy"] == pytest.approx(expected, abs=1e-5)


def test_the_clipped_objective_by_hand():
    # ratio 1.5, advantage +2: min(3.0, 1.2 * 2)  = 2.4    the gain is capped
    # ratio 1.5, advantage -2: min(-3.0, -2.4)    = -3.0   the harm is not
    # ratio 0.5, advantage +2: min(1.0, 1.6)      = 1.0
    # ratio 0.5, advantage -2: min(-1.0, -1.6)    = -1.6
    # ratio 1.1, advantage +2: inside             = 2.2
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])

    found, outside = clipped_objective(ratio.log(), torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0]), 0.2)

    np.testing.assert_allclose(found, [2.4, -3.0, 1.0, -1.6, 2.2], rtol=1e-6)
    assert outside.tolist() == [True, True, True, True, False]


def test_adam_is_torch_s_adam():
    rng = torch.Generator().manual_seed(0)
    # a convolution over pictures gives its gradient with the channels last in memory
    shapes = ((4, 3), (5,), (4, 3, 2, 2))
    start = [torch.randn(shape, generator=rng) for shape in shapes]
    ours, theirs = [w.clone() for w in start], [w.clone().requires_grad_() for w in start]
    adam, reference = Adam(ours), torch.optim.Adam(theirs, lr=0.0, eps=1e-5)

    for step in range(50):
        gradients = [torch.randn(w.shape, generator=rng) * 10.0 ** (step % 7 - 5) for w in start]
        gradients[2] = gradients[2].to(memory_format=torch.channels_last)
        adam.step(gradients, 0.01 / (step + 1))
        reference.param_groups[0]["lr"] = 0.01 / (step + 1)
        for weight, gradient in zip(theirs, gradients, strict=True):
            weight.grad = gradient
        reference.step()

    for mine, his in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, his.detach(), atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 5), (3, 16), (8, 4, 3, 3)])
def test_first_weights_keep_lengths(shape):
    plan = make_plan(NetworkSettings(mlp=(16, 3)), OBSERVATION, ("state",), 1)
    cnn = make_plan(NetworkSettings(), OBSERVATION, ("camera",), 1)
    rng = np.random.default_rng(0)
    weights = initial_weights(plan, 0.01, rng) | initial_weights(cnn, 0.01, rng)
    names = {(16, 5): "hidden0", (3, 16): "hidden1", (8, 4, 3, 3): "camera.conv1"}

    matrix = weights[f"{names[shape]}.weight"].reshape(weights[f"{names[shape]}.bias"].size, -1)

    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 2.0 * np.eye(len(gram)), atol=1e-5)
    assert np.linalg.norm(weights["head.weight"]) == pytest.approx(0.01, rel=1e-5)


def test_a_policy_that_stays_has_no_kl_and_clips_nothing(learner):
    ppo = learner(learning_rate=1e-12, schedule="constant", normalize_observations=False)

    metrics = ppo.update(make_batch(ppo), progress=0.0)

    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0.0
    assert metrics["policy_loss"] == pytest.approx(0.0, abs=1e-3)


def test_an_update_makes_rewarded_actions_likelier(learner):
    ppo = learner(learning_rate=3e-3, schedule="constant")
    batch = make_batch(ppo, steps=30, ends=1.0)  # one-step worlds: reward = -|first action|

    first = np.abs(ppo.act(look(np.random.default_rng(5), 200), _draws(200))[0][:, 0]).mean()
    for _ in range(5):
        ppo.update(batch, progress=0.0)

    after = np.abs(ppo.act(look(np.random.default_rng(5), 200), _draws(200))[0][:, 0]).mean()
    assert after < 0.95 * first


def _draws(rows):
    return np.random.default_rng(6).uniform(0.001, 0.999, (rows, 3))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize(("actor", "critic"), [(("state",),) * 2, (("camera",), ("state",))])
def test_saved_and_restored_it_goes_on_to_the_same_bytes(learner, kind, actor, critic):
    straight = learner(kind, actor, critic)
    for seed in range(2):
        straight.update(make_batch(straight, seed=seed), progress=0.0)
    meta, arrays = straight.save()
    resumed = learner(kind, actor, critic)
    resumed.restore(json.loads(json.dumps(meta)), arrays)

    for ppo in (straight, resumed):
        for seed in range(2, 4):
            ppo.update(make_batch(ppo, seed=seed), progress=0.5)

    assert_same(straight, resumed)


RESUME = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_ppo import made, make_batch
ppo = made(sys.argv[3])
saved = dict(np.load(sys.argv[2]))
ppo.restore(json.loads(str(saved.pop("meta"))), saved)
for seed in range(2, 4):
    ppo.update(make_batch(ppo, seed=seed), progress=0.0)
meta, arrays = ppo.save()
np.savez(sys.argv[2], meta=json.dumps(meta), **arrays)
"""


def test_a_new_process_goes_on_to_the_same_bytes(learner, tmp_path, request):
    straight = learner()
    for seed in range(2):
        straight.update(make_batch(straight, seed=seed), progress=0.0)
    meta, arrays = straight.save()
    path = tmp_path / "learner.npz"
    np.savez(path, meta=json.dumps(meta), **arrays)
    for seed in range(2, 4):
        straight.update(make_batch(straight, seed=seed), progress=0.0)

    runs = {kind: name for name, kind in KINDS.items()}[type(straight)]
    folder = str(request.path.parent)
    subprocess.run([sys.executable, "-c", RESUME, folder, str(path), runs], check=True)

    resumed = learner()
    saved = dict(np.load(path))
    resumed.restore(json.loads(str(saved.pop("meta"))), saved)
    assert_same(straight, resumed)


def test_saving_takes_a_copy(learner):
    ppo = learner()
    ppo.update(make_batch(ppo), progress=0.0)
    before = {name: array.copy() for name, array in ppo.save()[1].items()}
    saved = ppo.save()[1]

    ppo.update(make_batch(ppo, seed=1), progress=0.0)

    for name, array in saved.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_half_the_step_size_halves_what_the_schedule_made_of_it(learner):
    ppo, half = learner(learning_rate=4e-4), learner(learning_rate=2e-4)
    meta, arrays = ppo.save()

    half.restore(meta | {"learning_rate": 1e-4}, arrays)  # the KL had braked it to a quarter

    assert half.save()[0]["learning_rate"] == pytest.approx(0.5e-4)


def test_threads_do_not_change_the_bytes(learner, monkeypatch):
    monkeypatch.setattr("hotlap.algorithms.compiled._WORTH", 0)
    alone, together = (
        learner(actor=("camera",), minibatch=512, threads=threads) for threads in (1, 3)
    )

    for ppo in (alone, together):
        ppo.update(make_batch(ppo, steps=40), progress=0.0)

    assert_same(alone, together)


def test_cutting_a_minibatch_into_shards_changes_only_the_last_bits():
    whole, cut = (made("torch", epochs=1, minibatch=192) for _ in range(2))
    assert whole._shard >= 192  # it is one
    cut._shard = 50

    found = [ppo.update(make_batch(ppo), progress=0.0) for ppo in (whole, cut)]

    assert found[0] == pytest.approx(found[1], abs=1e-5)
    before = made("torch").save()[1]["actor.hidden0.weight"]
    one, other = (ppo.save()[1]["actor.hidden0.weight"] for ppo in (whole, cut))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one - before).max() > 1e-3


def test_the_critic_alone_sees_what_only_it_may_see(learner):
    ppo = learner(actor=("camera",), critic=("state",))
    ppo.update(make_batch(ppo), progress=0.0)
    seen, other = look(np.random.default_rng(0), 4), look(np.random.default_rng(1), 4)
    swapped = {"camera": seen["camera"], "state": other["state"]}

    np.testing.assert_array_equal(ppo.greedy(seen), ppo.greedy(swapped))
    assert np.abs(ppo.value(seen) - ppo.value(swapped)).max() > 1e-3
    assert NumpyPolicy(*ppo.policy_state()).names == ("camera",)


def test_rewards_in_another_unit_teach_the_same(learner):
    one, thousand = learner(), learner()
    for ppo, unit in ((one, 1.0), (thousand, 1000.0)):
        for seed in range(3):
            batch = make_batch(ppo, seed=seed)
            batch.reward[:] *= unit
            ppo.update(batch, progress=0.0)
    seen = look(np.random.default_rng(0), 6)

    np.testing.assert_allclose(one.greedy(seen), thousand.greedy(seen), atol=1e-4)
    np.testing.assert_allclose(1000 * one.value(seen), thousand.value(seen), rtol=1e-2, atol=1e-1)


def test_the_linear_schedule_follows_progress(learner):
    ppo = learner(learning_rate=1e-3, schedule="linear")
    batch = make_batch(ppo)

    rates = [ppo.update(batch, progress=p)["learning_rate"] for p in (0.0, 0.75, 1.0)]

    np.testing.assert_allclose(rates, [1e-3, 0.25e-3, 0.0])


@pytest.mark.parametrize(
    ("target", "start", "end"),
    [(1e-9, 1e-3, 1e-3 / 1.5**2), (1e9, 1e-4, 1e-4 * 1.5**2), (1e9, 0.9e-3, 1e-3)],
)
def test_the_kl_schedule_brakes_and_lets_go_after_every_minibatch_but_the_first(
    learner, target, start, end
):
    # 12 * 16 rows in minibatches of 64, one epoch: 3 minibatches, 2 changes
    ppo = learner(learning_rate=1e-3, epochs=1, target_kl=target)
    meta, arrays = ppo.save()
    ppo.restore(meta | {"learning_rate": start}, arrays)

    rate = ppo.update(make_batch(ppo), progress=0.0)["learning_rate"]

    assert rate == pytest.approx(end)


def test_the_critic_s_own_step_size_moves_only_the_critic(learner):
    ppo = learner(learning_rate=1e-9, critic_learning_rate=1e-2, schedule="constant")
    before = ppo.save()[1]

    ppo.update(make_batch(ppo), progress=0.0)

    after = ppo.save()[1]
    np.testing.assert_allclose(after["actor.head.weight"], before["actor.head.weight"], atol=1e-6)
    assert np.abs(after["critic.head.weight"] - before["critic.head.weight"]).max() > 1e-3


def test_a_large_epsilon_of_adam_shortens_every_step(learner):
    # A step is lr m / (sqrt(v) + epsilon): with 1e6 it is a millionth of the gradient's part.
    def moved(**settings):
        ppo = learner(seed=3, **settings)
        before = ppo.save()[1]
        ppo.update(make_batch(ppo), progress=0.0)
        after = ppo.save()[1]
        names = [n for n in after if n.endswith(".weight") and not n.startswith("adam")]
        assert names
        return max(np.abs(after[name] - before[name]).max() for name in names)

    assert moved() > 1e-4
    assert moved(adam_epsilon=1e6) < 1e-6


def test_the_entropy_bonus_keeps_choices_open(learner):
    plain, open_minded = learner("discrete"), learner("discrete", entropy=0.5)
    entropies = []
    for ppo in (plain, open_minded):
        for seed in range(12):
            metrics = ppo.update(make_batch(ppo, seed=seed, ends=1.0), progress=0.0)
        entropies.append(metrics["entropy"])

    assert entropies[1] > entropies[0] + 0.05


@pytest.mark.parametrize(("name", "bound"), [("min_std", 0.495), ("max_std", 0.505)])
def test_the_deviation_stays_between_its_bounds(learner, name, bound):
    ppo = learner(learning_rate=1e-2, schedule="constant", **{name: bound})
    gap, sign = [], 1.0 if name == "max_std" else -1.0
    for seed in range(6):
        ppo.update(make_batch(ppo, seed=seed, ends=1.0, sign=sign), progress=0.0)
        std = np.exp(ppo.save()[1]["actor.log_std"])
        gap.append(std - bound if name == "min_std" else bound - std)

    assert np.min(gap) >= -1e-6
    assert np.min(gap) < 1e-6  # the bound was reached


def test_a_value_clip_holds_the_values_back(learner):
    moves = []
    for clip in (None, 0.01):
        ppo = learner(
            learning_rate=1e-3,
            schedule="constant",
            value_clip=clip,
            epochs=20,
            normalize_observations=False,
            normalize_rewards=False,
        )
        batch = make_batch(ppo, ends=1.0)
        seen = {name: values[0] for name, values in batch.observation.items()}
        before = ppo.value(seen)
        ppo.update(batch, progress=0.0)
        moves.append(np.abs(ppo.value(seen) - before).mean())

    assert moves[1] < 0.5 * moves[0]


def test_long_gradients_are_shortened(learner):
    free, held = learner(max_grad_norm=1e9), learner(max_grad_norm=1e-12)
    for ppo in (free, held):
        ppo.update(make_batch(ppo), progress=0.0)

    # Adam's epsilon, 1e-5, hides a gradient of 1e-12: the held weights cannot have moved.
    start = learner().save()[1]
    assert np.abs(free.save()[1]["actor.head.weight"] - start["actor.head.weight"]).max() > 1e-4
    np.testing.assert_allclose(
        held.save()[1]["actor.head.weight"], start["actor.head.weight"], atol=1e-7
    )


def test_bfloat16_answers_almost_as_float32():
    seen = look(np.random.default_rng(0), 8)
    one, other = (made("torch", actor=("camera",), precision=p) for p in ("float32", "bfloat16"))
    for ppo in (one, other):
        meta, arrays = ppo.save()
        arrays["actor.head.weight"] *= 100.0
        ppo.restore(meta, arrays)

    gap = np.abs(one.greedy(seen) - other.greedy(seen)).max()

    assert 0.0 < gap < 0.05


def test_rewards_that_are_no_numbers_stop_the_run(learner):
    ppo = learner()
    batch = make_batch(ppo)
    batch.reward[3, 4] = np.nan

    with pytest.raises(SimulationError, match="1 of 192 rewards are not finite"):
        ppo.update(batch, progress=0.0)


def test_observations_that_are_no_numbers_stop_the_run(learner):
    ppo = learner()
    batch = make_batch(ppo)
    batch.observation["state"][3, 4, 0] = np.nan

    with pytest.raises(SimulationError, match="gradients of update 1 are not finite"):
        ppo.update(batch, progress=0.0)


def test_another_network_s_checkpoint_is_refused(learner):
    meta, arrays = learner(network=NetworkSettings(mlp=(16, 8))).save()

    with pytest.raises(RunError, match=r"actor\.hidden1\.weight has shape \(8, 16\)"):
        learner().restore(meta, arrays)


def test_another_algorithm_s_checkpoint_is_refused(learner):
    with pytest.raises(RunError, match="kind 'sac'"):
        learner().restore({"kind": "sac", "format": 1}, {})


def test_an_image_too_small_for_its_network_is_refused(learner):
    with pytest.raises(ConfigError, match="at least 36x36 pixels, camera has 32x24"):
        learner(actor=("camera",), network=NetworkSettings(cnn="deepracer_shallow"))


def test_an_unknown_observation_is_refused(learner):
    with pytest.raises(ConfigError, match="asked to read lidar; choose from camera, state"):
        learner(actor=("lidar",))


def test_crossed_deviations_are_refused(learner):
    with pytest.raises(ConfigError, match=r"initial_std: must lie between min_std \(0.05\)"):
        learner(initial_std=2.0)


def test_settings_come_from_the_command_line_s_spelling():
    settings = resolve(PPOSettings, {"clip": 0.1, "network.mlp": [32], "network.cnn": "deepracer"})

    assert settings.network == NetworkSettings(mlp=(32,), cnn="deepracer")
    with pytest.raises(ConfigError, match="less than 1"):
        resolve(PPOSettings, {"clip": 1.2})


def test_the_huber_loss_is_squared_near_zero_and_linear_far_away():
    off = torch.tensor([0.5, -3.0])

    # Huber with threshold 1: 0.5 * 0.5^2 = 0.125 near; 3 - 0.5 = 2.5 far
    assert value_error(off, "huber").tolist() == [0.125, 2.5]
    assert value_error(off, "mse").tolist() == [0.25, 9.0]


def test_with_epsilon_the_mixture_drives_and_is_what_the_log_probability_is_of(learner):
    ppo = learner("discrete", epsilon_start=0.6, epsilon_end=0.6)
    meta, arrays = ppo.save()
    arrays["actor.head.bias"] = np.array([0.0, 2.0, -1.0], np.float32)
    ppo.restore(meta, arrays)
    seen = look(np.random.default_rng(0), 20_000)
    uniform = np.random.default_rng(1).uniform(size=(20_000, 1))

    action, log_prob = ppo.act(seen, uniform)

    # 0.4 of the policy, 0.6 / 3 = 0.2 for each of three choices
    mixture = 0.4 * NumpyPolicy(*ppo.policy_state()).probabilities(seen) + 0.2
    np.testing.assert_allclose(np.exp(log_prob), mixture[np.arange(len(action)), action], rtol=1e-4)
    # three standard deviations of a share of 20,000: at most 0.0106
    np.testing.assert_allclose(np.bincount(action) / 20_000, mixture.mean(axis=0), atol=0.011)


def test_a_policy_that_stays_has_no_kl_with_epsilon_either(learner):
    ppo = learner("discrete", epsilon_start=1.0, epsilon_end=0.3, epsilon_steps=300, epochs=1,
                  learning_rate=1e-12, schedule="constant")  # fmt: skip
    first = ppo.update(make_batch(ppo, steps=12, rows=16), progress=0)  # 192 transitions

    second = ppo.update(make_batch(ppo, seed=1), progress=0)
    third = ppo.update(make_batch(ppo, seed=2), progress=0)

    # from 1 it falls by 0.7 in 300: 1 - 0.7 * 192 / 300 = 0.552, then it stays at 0.3
    assert [m["epsilon"] for m in (first, second, third)] == pytest.approx([1, 0.552, 0.3])
    for metrics in (first, second, third):
        assert abs(metrics["kl"]) < 1e-6
        assert metrics["clip_fraction"] == 0


def test_actions_drawn_from_all_alike_still_teach_which_are_better(learner):
    # the reward is minus the index of the choice, so that the first is the best
    ppo = learner("discrete", epsilon_start=0.8, epsilon_end=0.8, learning_rate=0.01)
    seen = look(np.random.default_rng(5), 40)

    for k in range(15):
        ppo.update(make_batch(ppo, seed=k), progress=0)

    assert NumpyPolicy(*ppo.policy_state()).probabilities(seen)[:, 0].min() > 0.8


def test_epsilon_goes_on_where_it_was_saved(learner):
    settings = {"epsilon_start": 1.0, "epsilon_end": 0.1, "epsilon_steps": 500}
    ppo, other = (learner("discrete", **settings) for _ in range(2))
    ppo.update(make_batch(ppo), progress=0)

    other.restore(*ppo.save())

    batch = make_batch(ppo, seed=1)
    ppo.update(batch, progress=0)
    other.update(batch, progress=0)
    assert_same(ppo, other)


def test_continuous_actions_have_no_epsilon(learner):
    with pytest.raises(ConfigError, match=r"algorithm\.epsilon_start and epsilon_end: only discre"):
        learner("continuous", epsilon_end=0.1)
