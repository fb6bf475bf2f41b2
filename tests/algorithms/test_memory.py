"""The recurrent units against hand, torch and slow twins; PPO with a memory."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from worlds import OBSERVATION, assert_same, driven, look

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.learner import Remembering, make_learner
from hotlap.algorithms.networks import forward, initial_weights, recall, remember, remember_cells
from hotlap.algorithms.normalizer import normalize
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import NumpyPolicy, Plan
from hotlap.algorithms.recurrent_ppo import actions_before
from hotlap.algorithms.returns import gae
from hotlap.algorithms.settings import DistillSettings, NetworkSettings, PPOSettings, TD3Settings
from hotlap.errors import ConfigError, RunError


def learner(kind="continuous", actor=("state",), critic=("state",), network=None, **settings):
    layers = {"mlp": (16,), "memory": 8, "previous_action": True} | (network or {})
    defaults = {"minibatch": 64, "threads": 1, "network": NetworkSettings(**layers)}
    made = PPOSettings(**(defaults | settings))
    action = ActionSpec(kind, 3)
    return make_learner(made, OBSERVATION, action, actor, critic, seed=7, device="cpu")


def drive(ours, *, seed=0, steps=12, rows=16, ends=0.1, fresh=None):
    """Let a learner drive through random worlds; reward small first numbers."""
    rng = np.random.default_rng(seed)
    seen = look(rng, steps, rows)
    ended = rng.random((2, steps, rows)) < ends
    fresh = np.zeros(rows, bool) if fresh is None else fresh
    actions, log_probs = [], []
    for t in range(steps):
        now = {name: values[t] for name, values in seen.items()}
        action, log_prob = ours.act(now, rng.uniform(0.001, 0.999, (rows, 3)), fresh)
        actions.append(action)
        log_probs.append(log_prob)
        fresh = ended[:, t].any(axis=0)
    action = np.stack(actions)
    size = np.abs(action if action.ndim == 2 else action[:, :, 0])
    return driven(rng, seen, action, np.stack(log_probs), -size.astype(np.float32), ended)


def stirred(ours):
    """Move all weights and scales far from where they start."""
    meta, arrays = ours.save()
    rng = np.random.default_rng(2)
    for name, array in arrays.items():
        if name.startswith(("actor.", "critic.")) and not name.endswith("log_std"):
            fan_in = np.prod(array.shape[1:])
            deviation = 0.2 if array.ndim == 1 else 2.0 * fan_in**-0.5
            arrays[name] = rng.normal(0, deviation, array.shape).astype(np.float32)
        if name.startswith("normalizer."):
            arrays[name] = rng.uniform(1.0, 2.0, array.shape)
    ours.restore(meta, arrays)
    return ours


# --- the units ---


def test_a_step_of_the_units_by_hand():
    # One unit, h = 0.5, i = (0, ln 3, 0.2), W = (0, 0, 2), b = (0, 0, 0.4):
    # k_n = 2 * 0.5 + 0.4 = 1.4       r = sigmoid(0) = 1/2        z = sigmoid(ln 3) = 3/4
    # n = tanh(0.2 + 1.4 / 2) = tanh(0.9) = 0.71629787
    # h' = n + 3/4 (h - n) = 0.25 * 0.71629787 + 0.75 * 0.5 = 0.55407447
    gates = torch.tensor([[[0.0, np.log(3.0), 0.2]]], dtype=torch.float32)

    found = remember(
        gates,
        torch.tensor([[0.0], [0.0], [2.0]]),
        torch.tensor([0.0, 0.0, 0.4]),
        torch.tensor([[0.5]]),
        None,
    )

    np.testing.assert_allclose(found, [[[0.55407447]]], rtol=1e-6)


def units(seed=0, *, inputs=4, size=6, dtype=torch.float32):
    torch.manual_seed(seed)
    gru = nn.GRU(inputs, size).to(dtype)
    return gru, (gru.weight_ih_l0, gru.bias_ih_l0, gru.weight_hh_l0, gru.bias_hh_l0)


def ours(x_TBI, parameters, hidden, fresh):
    weight, bias, inner, inner_bias = parameters
    return remember(x_TBI @ weight.t() + bias, inner, inner_bias, hidden, fresh)


def test_the_units_and_their_gradients_are_torch_s():
    gru, parameters = units()
    x = torch.randn(7, 3, 4, requires_grad=True)
    hidden = torch.randn(3, 6, requires_grad=True)
    wanted = torch.randn(7, 3, 6)

    found, expected = ours(x, parameters, hidden, None), gru(x, hidden[None])[0]

    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)
    each = (x, hidden, *parameters)
    one = torch.autograd.grad((found * wanted).sum(), each)
    other = torch.autograd.grad((expected * wanted).sum(), each)
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)


def test_a_step_of_the_cells_by_hand():
    # One unit, h = 0.5, c = 2, W = (0, 0, 2, 0), b = 0, i = (0, ln 3, -0.6, 0), so that
    # n = tanh(2 * 0.5 - 0.6) = tanh(0.4) = 0.37994896; sigmoid(ln 3) = 3/4
    # c' = 3/4 * 2 + 1/2 * 0.37994896 = 1.68997448;   h' = 1/2 * 0.93414396 = 0.46707198
    gates = torch.tensor([[[0.0, np.log(3.0), -0.6, 0.0]]], dtype=torch.float32)
    weight = torch.tensor([[0.0], [0.0], [2.0], [0.0]])

    found = remember_cells(gates, weight, torch.zeros(4), torch.tensor([[0.5, 2.0]]), None)

    np.testing.assert_allclose(found, [[[0.46707198, 1.68997448]]], rtol=1e-6)


def test_the_cells_and_their_gradients_are_torch_s_and_forget_where_an_episode_begins():
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 6)
    weight, inner, bias, inner_bias = lstm.parameters()
    x, state = torch.randn(9, 3, 4, requires_grad=True), torch.randn(3, 12, requires_grad=True)
    wanted = torch.randn(9, 3, 6)
    fresh = torch.zeros(9, 3, dtype=torch.bool)
    fresh[5] = True

    found = remember_cells(x @ weight.t() + bias, inner, inner_bias, state, fresh)[..., :6]

    begun = tuple(part[None].contiguous() for part in state.chunk(2, dim=1))
    expected = torch.cat([lstm(x[:5], begun)[0], lstm(x[5:])[0]])
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)
    each = (x, state, weight, inner, bias, inner_bias)
    one = torch.autograd.grad((found * wanted).sum(), each)
    other = torch.autograd.grad((expected * wanted).sum(), each)
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)


def test_an_lstm_begins_with_open_forget_gates():
    plan = Plan(
        images={}, vectors={"x": 2}, hidden=(), activation="tanh", outputs=1, memory=3, cell="lstm"
    )

    drawn = initial_weights(plan, 1.0, np.random.default_rng(0))

    assert drawn["memory.hidden.bias"].tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    assert (plan.carried, plan.shapes()["memory.input.weight"]) == (6, (12, 2))


def test_robotini_s_actor_has_its_numbers_of_weights():
    network = NetworkSettings(numbers="robotini", memory=256, memory_cell="lstm")

    plan = make_plan(network, {"b": ObservationSpec((8, 3), "float32")}, ["b"], 2, actions=2)

    counts = {name: int(np.prod(shape)) for name, shape in plan.shapes().items()}
    layers = dict.fromkeys(("hidden0", "hidden1", "memory", "head"), 0)
    for name, count in counts.items():
        layers[name.partition(".")[0]] += count
    # as its trainer printed them; torch's units have a second bias of 4 * 256
    assert layers == {"hidden0": 12800, "hidden1": 131328, "memory": 525312 + 1024, "head": 514}


def test_a_cell_without_units_is_refused():
    with pytest.raises(ConfigError, match=r"memory_cell: without algorithm\.network\.memory"):
        learner(network={"memory": 0, "memory_cell": "lstm"})


def test_an_episode_that_begins_forgets_and_its_gradient_stops_there():
    # the twin: torch's units over each stretch of each row alone, from zero where it begins
    gru, parameters = units()
    x = torch.randn(9, 4, 4, requires_grad=True)
    hidden, wanted = torch.randn(4, 6), torch.randn(9, 4, 6)
    fresh = torch.zeros(9, 4, dtype=torch.bool)
    fresh[0, 0] = fresh[3, 1] = fresh[4, 1] = fresh[8, 2] = True

    found = ours(x, parameters, hidden, fresh)

    stretches = []
    for row in range(4):
        state, parts = hidden[row], []
        for t in range(9):
            state = torch.zeros(6) if fresh[t, row] else state
            state = gru(x[t, row][None, None], state[None, None])[1][0, 0]
            parts.append(state)
        stretches.append(torch.stack(parts))
    expected = torch.stack(stretches, dim=1)
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)
    one = torch.autograd.grad((found * wanted).sum(), (x, *parameters))
    other = torch.autograd.grad((expected * wanted).sum(), (x, *parameters))
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)


def test_first_gates_keep_lengths():
    settings = NetworkSettings(mlp=(16,), memory=8)
    plan = make_plan(settings, OBSERVATION, ("state",), 2, actions=3)

    weights = initial_weights(plan, 1.0, np.random.default_rng(0))

    for gate in np.split(weights["memory.hidden.weight"], 3):
        np.testing.assert_allclose(gate @ gate.T, np.eye(8), atol=1e-5)
    for gate in np.split(weights["memory.input.weight"], 3):
        np.testing.assert_allclose(gate @ gate.T, np.eye(8), atol=1e-5)


def test_the_action_before_joins_the_inputs():
    settings = NetworkSettings(mlp=(16,), previous_action=True)
    plan = make_plan(settings, OBSERVATION, ("state",), 2, actions=3)
    drawn = initial_weights(plan, 1.0, np.random.default_rng(0))
    weights = {name: torch.from_numpy(value) for name, value in drawn.items()}

    def answer(action):
        inputs = {"state": torch.zeros(1, 5), "previous_action": torch.tensor([action])}
        return forward(plan, weights, inputs, bfloat16=False)

    assert plan.shapes()["hidden0.weight"] == (16, 8)
    assert plan.carried == 3
    assert (answer([1.0, 0.0, 0.0]) - answer([0.0, 0.0, 1.0])).abs().max() > 0.1


# --- the driver in NumPy ---


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("names", [("state",), ("camera", "state")])
@pytest.mark.parametrize(
    "network",
    [{}, {"previous_action": False}, {"memory": 0}, {"memory_cell": "lstm"}],
    ids=["both", "units", "action", "cells"],
)
def test_numpy_drives_as_torch_does_over_episodes(kind, names, network):
    made = stirred(learner(kind, names, names, network))
    rng = np.random.default_rng(0)
    description, arrays = made.policy_state()
    greedy = NumpyPolicy(json.loads(json.dumps(description)), arrays)
    sampling = NumpyPolicy(description, arrays)
    fresh = np.ones(6, bool)
    differences = []

    for _ in range(12):
        seen, uniform = look(rng, 6), rng.uniform(0.01, 0.99, (6, 3)).astype(np.float32)
        if fresh.any():
            made.begin(np.flatnonzero(fresh))
            greedy.begin(fresh)
            sampling.begin(np.flatnonzero(fresh))
        best, sampled = made.greedy(seen), made.act(seen, uniform, fresh)[0]
        np.testing.assert_allclose(greedy.act(seen), best, atol=2e-4)
        np.testing.assert_allclose(sampling.act(seen, uniform), sampled.clip(-1, 1)
                                   if kind == "continuous" else sampled, atol=2e-4)  # fmt: skip
        differences.append(np.abs(NumpyPolicy(description, arrays).act(seen) - best).max())
        fresh = rng.random(6) < 0.3

    assert np.max(differences[1:]) > 1e-2  # what is remembered changes what is done


def test_who_keeps_the_memory_himself_drives_the_same():
    made = stirred(learner())
    kept, own = (NumpyPolicy(*made.policy_state()) for _ in range(2))
    rng = np.random.default_rng(1)
    memory = np.zeros((4, kept.memory), np.float32)

    for _ in range(5):
        seen = look(rng, 4)
        action, memory = kept.step(seen, memory)
        np.testing.assert_array_equal(action, own.act(seen))

    assert kept.memory == 8 + 3
    np.testing.assert_array_equal(memory[:, 8:], action)


def test_rows_that_were_not_announced_are_refused():
    policy = NumpyPolicy(*learner().policy_state())
    policy.act(look(np.random.default_rng(0), 4))

    with pytest.raises(RunError, match=r"remembers 4 rows, but was given 3; call begin\(\)"):
        policy.act(look(np.random.default_rng(0), 3))
    policy.begin()

    assert policy.act(look(np.random.default_rng(0), 3)).shape == (3, 3)


def test_a_description_whose_action_before_has_another_size_is_refused():
    description, arrays = learner(network={"previous_action": False}).policy_state()
    description["plan"]["previous_action"] = 2

    with pytest.raises(RunError, match="previous_action is 2, but its actions have 3"):
        NumpyPolicy(description, arrays)


# --- PPO ---


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("network", [{}, {"memory": 0}, {"previous_action": False}])
def test_a_policy_that_stays_has_no_kl(kind, network):
    # the sequences of an update are what was driven, episode by episode: every ratio is 1
    made = stirred(
        learner(
            kind, network=network, learning_rate=1e-12, schedule="constant",
            normalize_observations=False,
        )
    )  # fmt: skip

    for seed in range(2):  # the second begins in the middle of episodes
        metrics = made.update(drive(made, seed=seed, ends=0.15), progress=0.0)

        assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["clip_fraction"] == 0.0


def test_values_and_advantages_are_a_slow_twin_s():
    """Walk through every row step by step, with torch's own GRU cell."""
    made = stirred(
        learner(
            normalize_observations=False, normalize_rewards=False, learning_rate=1e-12,
            schedule="constant",
        )
    )  # fmt: skip
    earlier = drive(made, seed=3)
    made.update(earlier, progress=0.0)
    arrays, scale = made.save()[1], made._scales.normalizers["state"]
    batch = drive(made, seed=4, ends=0.15, fresh=earlier.ended[-1])
    w = {k.removeprefix("critic."): torch.from_numpy(v) for k, v in arrays.items()
         if k.startswith("critic.")}  # fmt: skip

    def value(seen, before, state):
        seen = normalize(seen[None], scale.mean, scale.std)[0]
        x = torch.cat([torch.from_numpy(seen), torch.from_numpy(before)])[None]
        x = torch.tanh(x @ w["hidden0.weight"].t() + w["hidden0.bias"])
        state = torch.gru_cell(
            x, state, w["memory.input.weight"], w["memory.hidden.weight"],
            w["memory.input.bias"], w["memory.hidden.bias"],
        )  # fmt: skip
        return (state @ w["head.weight"].t() + w["head.bias"]).item(), state

    steps, rows = batch.reward.shape
    values, following = np.zeros((2, steps, rows), np.float32)
    reached = iter(batch.reached["state"])
    ends = {(t, n): next(reached) for t, n in zip(*np.nonzero(batch.ended), strict=True)}
    for n in range(rows):
        state, before = torch.zeros(1, 8), np.zeros(3, np.float32)
        for t in range(steps):  # what it remembers from the update before
            _, state = value(earlier.observation["state"][t, n], before, state)
            before = earlier.action[t, n].clip(-1, 1)
            if earlier.ended[t, n]:
                state, before = torch.zeros(1, 8), np.zeros(3, np.float32)
        for t in range(steps):
            values[t, n], state = value(batch.observation["state"][t, n], before, state)
            before = batch.action[t, n].clip(-1, 1)
            after = batch.last_observation["state"][n]
            if (t, n) in ends:
                following[t, n], _ = value(ends[t, n], before, state)
                state, before = torch.zeros_like(state), np.zeros(3, np.float32)
                continue
            if t + 1 < steps:
                after = batch.observation["state"][t + 1, n]
            following[t, n], _ = value(after, before, state)

    inputs = made._scales.inputs({"state": batch.observation["state"].reshape(-1, 5)}, ("state",))
    inputs |= made._remembered(batch)
    found, advantage = made._advantages(batch, inputs)

    np.testing.assert_allclose(found, values, atol=1e-4)
    expected = gae(
        batch.reward, values, following, batch.terminated, batch.truncated, gamma=0.95, lam=0.95
    )
    np.testing.assert_allclose(advantage, expected, atol=5e-4)


def test_the_action_before_is_nothing_in_a_new_episode():
    made = learner()
    batch = drive(made, ends=0.3)
    first = np.full((16, 3), 0.5, np.float32)

    before = actions_before(batch, first, 3)

    np.testing.assert_array_equal(before[0], first)
    for t in range(1, batch.steps):
        for n in range(batch.rows):
            wanted = 0.0 if batch.ended[t - 1, n] else batch.action[t - 1, n].clip(-1, 1)
            np.testing.assert_array_equal(before[t, n], np.broadcast_to(wanted, 3))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize(("actor", "critic"), [(("state",),) * 2, (("camera",), ("state",))])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_saved_and_restored_it_goes_on_to_the_same_bytes(kind, actor, critic, cell):
    straight, resumed = (learner(kind, actor, critic, {"memory_cell": cell}) for _ in range(2))
    for seed in range(2):
        straight.update(drive(straight, seed=seed), progress=0.0)
    straight.greedy(look(np.random.default_rng(0), 3))  # a trial is no part of the training
    meta, arrays = straight.save()
    resumed.restore(json.loads(json.dumps(meta)), {k: v.copy() for k, v in arrays.items()})

    for made in (straight, resumed):
        for seed in range(2, 4):
            made.update(drive(made, seed=seed), progress=0.5)

    assert_same(straight, resumed)
    assert np.abs(arrays["memory.actor"]).max() > 0.0
    carried = 16 if cell == "lstm" else 8
    assert arrays["memory.critic"].shape == (16, carried if critic == actor else 0)


def test_threads_do_not_change_the_bytes():
    alone, together = (learner(minibatch=4096, threads=threads) for threads in (1, 3))

    for made in (alone, together):
        made.update(drive(made, steps=40, rows=64), progress=0.0)

    assert_same(alone, together)


def test_cutting_a_minibatch_into_shards_changes_only_the_last_bits():
    whole, cut = (stirred(learner(epochs=1, minibatch=192)) for _ in range(2))
    cut._shard = 60  # five sequences of twelve steps

    found = [made.update(drive(made), progress=0.0) for made in (whole, cut)]

    assert found[0] == pytest.approx(found[1], abs=1e-5)
    one, other = (made.save()[1]["actor.memory.hidden.weight"] for made in (whole, cut))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("actor", "critic", "wish", "size"),
    [
        (("state",), ("state",), None, 8),
        (("camera",), ("state",), None, 0),
        (("camera",), ("state",), True, 8),
        (("state",), ("state",), False, 0),
    ],
)
def test_the_critic_remembers_where_it_sees_no_more_than_the_actor(actor, critic, wish, size):
    made = learner(actor=actor, critic=critic, network={"critic_memory": wish})

    metrics = made.update(drive(made), progress=0.0)

    assert made._critic.memory == size
    assert np.isfinite(metrics["value_loss"])


def test_an_adopted_driver_drives_alike_and_begins_anew():
    old, new = learner(), learner(learning_rate=1e-4)
    old.update(drive(old), progress=0.0)
    meta, arrays = old.save()

    new.adopt(meta, arrays)

    assert new.save()[1]["memory.actor"].size == 0
    assert old.save()[1]["memory.actor"].size > 0
    seen = look(np.random.default_rng(0), 5)
    for _ in range(3):
        np.testing.assert_array_equal(old.greedy(seen), new.greedy(seen))
    new.update(drive(new), progress=0.0)


def test_trials_leave_the_training_alone():
    plain, tried = learner(), learner()
    batch = drive(plain)
    again = drive(tried)
    tried.begin()
    tried.greedy(look(np.random.default_rng(9), 7))

    for made, one in ((plain, batch), (tried, again)):
        made.update(one, progress=0.0)
        made.update(drive(made, seed=1), progress=0.0)

    assert_same(plain, tried)


def test_a_batch_that_somebody_else_drove_is_refused():
    made, other = learner(), learner()
    batch = drive(other)

    with pytest.raises(ValueError, match=r"given 16 rows, and act\(\) drove 0"):
        made.update(batch, progress=0.0)


def test_a_driver_with_another_memory_is_refused():
    meta, arrays = learner().save()

    with pytest.raises(RunError, match=r"actor\.hidden0\.weight has shape|also has actor\.memory"):
        learner(network={"memory": 0, "previous_action": False}).restore(meta, arrays)
    with pytest.raises(RunError, match=r"memory\.input\.weight has shape \(24, 16\)"):
        learner(network={"memory": 5}).restore(meta, arrays)


def test_a_driver_that_remembers_is_not_taken_for_one_that_does_not():
    # as wide as the layer before it, so that only its own arrays tell
    meta, arrays = learner(network={"memory": 16, "previous_action": False}).save()

    with pytest.raises(RunError, match=r"also has actor\.memory\.input\.weight"):
        learner(network={"memory": 0, "previous_action": False}).restore(meta, arrays)


@pytest.mark.parametrize(
    "settings",
    [
        TD3Settings(network=NetworkSettings(memory=8)),
        TD3Settings(network=NetworkSettings(previous_action=True)),
        DistillSettings(practice=PPOSettings(network=NetworkSettings(memory=8))),
    ],
)
def test_learners_without_a_memory_say_so(settings):
    with pytest.raises(ConfigError, match=r"algorithm\.network\.memory .*only ppo and rdpg"):
        make_learner(
            settings, OBSERVATION, ActionSpec("continuous", 3), ("state",), ("state",),
            seed=0, device="cpu",
        )  # fmt: skip


def test_a_critic_s_memory_alone_is_refused():
    with pytest.raises(ConfigError, match=r"network\.critic_memory: without .*memory nothing"):
        learner(network={"memory": 0, "previous_action": False, "critic_memory": True})


def test_a_teacher_with_a_memory_is_refused():
    made = make_learner(
        DistillSettings(), OBSERVATION, ActionSpec("continuous", 3), ("camera",), ("state",),
        seed=0, device="cpu",
    )  # fmt: skip

    with pytest.raises(ConfigError, match="has a memory, and a teacher is asked about single"):
        made.take_teacher(*learner().policy_state())


def test_only_who_remembers_wants_to_hear_of_episodes():
    assert isinstance(learner(), Remembering)
    assert not isinstance(learner(network={"memory": 0, "previous_action": False}), Remembering)


def test_the_units_read_the_plan_s_layers():
    plan = Plan(images={}, vectors={"x": 2}, hidden=(), activation="tanh", outputs=1, memory=3)
    drawn = initial_weights(plan, 1.0, np.random.default_rng(0))
    weights = {name: torch.from_numpy(value) for name, value in drawn.items()}
    x, hidden = torch.randn(8, 2), torch.randn(4, 3)

    found = recall(plan, weights, {"x": x}, hidden, None, bfloat16=False)

    gru = nn.GRU(2, 3)
    gru.load_state_dict(
        {
            "weight_ih_l0": weights["memory.input.weight"],
            "bias_ih_l0": weights["memory.input.bias"],
            "weight_hh_l0": weights["memory.hidden.weight"],
            "bias_hh_l0": weights["memory.hidden.bias"],
        }
    )
    expected = gru(x.reshape(2, 4, 2), hidden[None])[0]
    np.testing.assert_allclose(found, expected.detach(), atol=1e-6)
