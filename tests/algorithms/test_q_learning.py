"""DQN with its options and PQN against slow twins, and as learners that stop and go on."""

import json

import numpy as np
import pytest
import torch
from worlds import OBSERVATION, driven, look

from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.q_learning import DQN, PQN, c51_projection, explore
from hotlap.algorithms.returns import q_lambda
from hotlap.algorithms.settings import DQNSettings, NetworkSettings, PQNSettings
from hotlap.errors import ConfigError, RunError, SimulationError

NETWORK = {"network": NetworkSettings(mlp=(16, 12)), "minibatch": 16}
REPLAY = {"warmup": 0, "update_ratio": 0.125, "capacity": 200, "target_every": 3}
VARIANTS = {
    "plain": {"double": False},
    "double": {},
    "dueling": {"dueling": True},
    "prioritised": {"priority": 0.6},
    "c51": {"head": "c51", "atoms": 11},
    "quantile": {"head": "quantile", "atoms": 7},
    "all": {"dueling": True, "head": "c51", "atoms": 5, "priority": 0.5},
    "all quantiles": {"dueling": True, "head": "quantile", "atoms": 5},
    "pqn": {},
}
EVERY = pytest.mark.parametrize("variant", VARIANTS)
DQNS = pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "pqn"])


def learner(variant, actor=("state",), seed=7, **settings):
    chosen = NETWORK | VARIANTS[variant] | settings
    action = ActionSpec("discrete", 3)
    if variant == "pqn":
        return PQN(PQNSettings(**chosen), OBSERVATION, action, actor, actor, seed=seed)
    return DQN(DQNSettings(**(REPLAY | chosen)), OBSERVATION, action, actor, actor, seed=seed)


def make_batch(seed=0, steps=8, rows=4):
    rng = np.random.default_rng(seed)
    ended = rng.random((2, steps, rows)) < 0.1
    action = rng.integers(0, 3, (steps, rows))
    reward = rng.normal(size=(steps, rows)).astype(np.float32)
    return driven(rng, look(rng, steps, rows), action, np.zeros_like(reward), reward, ended)


def test_q_lambda_by_hand():
    # one row, gamma 1/2, lambda 1/2; V of what was reached: 4, 6, 8; the second step was cut off
    # G3 = 3 + 8 / 2 = 7     G2 = 2 + 6 / 2 = 5     G1 = 1 + (1/2) (4 / 2 + 5 / 2) = 3.25
    column = [np.array(v, float)[:, None] for v in ([1, 2, 3], [4, 6, 8])]
    no, cut = np.zeros((3, 1), bool), np.array([[False], [True], [False]])

    np.testing.assert_allclose(q_lambda(*column, no, cut, gamma=0.5, lam=0.5)[:, 0], [3.25, 5, 7])
    # a crash there instead: G2 = 2, G1 = 1 + (1/2) (2 + 1) = 2.5
    np.testing.assert_allclose(q_lambda(*column, cut, no, gamma=0.5, lam=0.5)[:, 0], [2.5, 2, 7])


def test_q_lambda_is_the_mix_of_n_step_returns():
    # with V at every step: (1 - lam) sum of lam^(n-1) G^(n), the rest on the longest
    rng = np.random.default_rng(0)
    T, gamma, lam = 6, 0.9, 0.7
    reward, value = rng.normal(size=(2, T))
    no = np.zeros((T, 1), bool)

    found = q_lambda(reward[:, None], value[:, None], no, no, gamma=gamma, lam=lam)[:, 0]

    for t in range(T):
        longest = T - t
        returns = [
            sum(gamma**k * reward[t + k] for k in range(n)) + gamma**n * value[t + n - 1]
            for n in range(1, longest + 1)
        ]
        mixed = sum((1 - lam) * lam ** (n - 1) * returns[n - 1] for n in range(1, longest))
        assert found[t] == pytest.approx(mixed + lam ** (longest - 1) * returns[-1])


def test_the_projection_by_hand():
    # values 0, 1, 2. Halved and moved by 0.25: 0.25, 0.75, 1.25 with probabilities 1/2, 1/4, 1/4:
    # 0: 1/2 * 3/4 + 1/4 * 1/4 = 7/16   1: 1/2 * 1/4 + 1/4 * 3/4 + 1/4 * 3/4 = 8/16   2: 1/16
    found = c51_projection(
        torch.tensor([[0.5, 0.25, 0.25]]),
        torch.tensor([0.25]),
        torch.tensor([0.5]),
        torch.tensor([0.0, 1.0, 2.0]),
    )

    np.testing.assert_allclose(found[0], [7 / 16, 8 / 16, 1 / 16])


def test_the_projection_is_the_paper_s_loop():
    rng = np.random.default_rng(0)
    support = np.linspace(-2.0, 3.0, 11)
    chance = rng.dirichlet(np.ones(11), 20)
    reward, discount = rng.normal(size=20), rng.choice([0.0, 0.9], 20)
    reward[0], discount[0] = support[4], 0.0  # exactly on a value

    found = c51_projection(*map(torch.from_numpy, (chance, reward, discount, support)))

    slow = np.zeros((20, 11))
    for b in range(20):
        for j in range(11):
            place = (np.clip(reward[b] + discount[b] * support[j], -2, 3) + 2) / 0.5
            low, high = int(np.floor(place)), int(np.ceil(place))
            if low == high:
                slow[b, low] += chance[b, j]
            else:
                slow[b, low] += chance[b, j] * (high - place)
                slow[b, high] += chance[b, j] * (place - low)
    np.testing.assert_allclose(found, slow, atol=1e-12)
    np.testing.assert_allclose(found.sum(dim=1), 1.0)


def test_one_number_decides_whether_to_explore_and_what():
    uniform = ((np.arange(4000) + 0.5) / 4000)[:, None]
    best, epsilon = np.full(4000, 2), np.full(4000, 0.3)

    found = explore(best, 4, epsilon, uniform)

    # 0.3 / 4 = 0.075 each, and 0.7 more for the best
    np.testing.assert_allclose(np.bincount(found) / 4000, [0.075, 0.075, 0.775, 0.075], atol=1e-3)
    np.testing.assert_array_equal(explore(best, 4, np.zeros(4000), uniform), best)


def slow_output(ours, weights, state):
    """Run the layers one by one; V and A apart where the network duels."""
    plan = ours._network.plan
    x = state
    for i, width in enumerate(plan.hidden):
        x = x @ weights[f"hidden{i}.weight"].T + weights[f"hidden{i}.bias"]
        x = torch.nn.functional.layer_norm(x, (width,))
        x = x * weights[f"hidden{i}.scale"] + weights[f"hidden{i}.shift"]
        x = x.clamp(min=0)
    if not ours._network.dueling:
        out = x @ weights["head.weight"].T + weights["head.bias"]
        return out.reshape(len(x), 3, -1)
    half = x.shape[1] // 2
    value = x[:, :half] @ weights["value.weight"].T + weights["value.bias"]
    more = x[:, half:] @ weights["advantage.weight"].T + weights["advantage.bias"]
    more = more.reshape(len(x), 3, -1)
    return value[:, None] + more - more.mean(dim=1, keepdim=True)


def shaken(ours):
    with torch.no_grad():
        for weight in ours._weights.values():
            weight.add_(torch.randn(weight.shape) * 0.3)
    return ours


@EVERY
def test_the_network_is_what_the_papers_draw(variant):
    torch.manual_seed(0)
    ours = shaken(learner(variant))
    state = torch.randn(9, 5)

    found = ours._network(ours._weights, {"state": state})

    expected = slow_output(ours, ours._weights, state)
    assert found.shape == (9, 3, ours._network.parts)
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-5)


@DQNS
def test_the_loss_is_the_formula_row_by_row(variant):
    torch.manual_seed(0)
    ours = learner(variant, normalize_rewards=False)
    ours.update(make_batch(), progress=0.0)
    shaken(ours)
    minibatch = next(iter(ours._experience._draw(1, 0.5)))
    network = ours._network

    loss, seen = ours._loss(minibatch)

    total, off = 0.0, []
    ahead = network(ours._targets, minibatch.reached).detach()
    judge = ahead if variant == "plain" else network(ours._weights, minibatch.reached).detach()
    said = network(ours._weights, minibatch.observation).detach()
    for b in range(16):
        best = int(network.mean(judge[b : b + 1])[0].argmax())
        mine, next_ = said[b, minibatch.action[b]], ahead[b, best]
        reward, discount = float(minibatch.reward[b]), float(minibatch.discount[b])
        if network.head == "c51":
            args = (next_.softmax(0)[None], *map(torch.tensor, ([reward], [discount])))
            target = c51_projection(*args, network.support)[0]
            row = -(target * mine.log_softmax(0)).sum()
            means = [p.softmax(0) @ network.support for p in (mine, next_)]
        elif network.head == "quantile":
            row = 0.0
            count = len(mine)
            for k in range(count):
                for j in range(count):
                    gap = reward + discount * float(next_[j]) - float(mine[k])
                    huber = 0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5
                    row += abs((k + 0.5) / count - (gap < 0)) * huber / count
            means = [mine.mean(), next_.mean()]
        else:
            gap = reward + discount * float(next_[0]) - float(mine[0])
            row = 0.5 * gap**2 if abs(gap) < 1 else abs(gap) - 0.5
            means = [mine[0], next_[0]]
        total += float(minibatch.weight[b]) * float(row) / 16
        off.append(abs(reward + discount * float(means[1]) - float(means[0])))
    assert loss.item() == pytest.approx(total, rel=1e-4)
    np.testing.assert_allclose(seen["td_error"], off, rtol=1e-3, atol=1e-4)
    assert (minibatch.weight.min() < 1) == (ours.settings.priority > 0 and len(set(off)) > 1)


@DQNS
def test_a_minibatch_of_pictures_in_parts_gives_the_gradient_of_the_whole(variant):
    ours = learner(variant, ("camera", "state"), minibatch=41)
    ours.update(make_batch(steps=16), progress=0.0)
    minibatch = next(iter(ours._experience._draw(1, 0.5)))

    parts = ours._gradients(minibatch)
    ours._most = 0
    whole = ours._gradients(minibatch)

    assert parts[1].item() == pytest.approx(whole[1].item(), rel=1e-5)
    for name, values in whole[2].items():
        torch.testing.assert_close(parts[2][name], values)
    for part, one in zip(parts[0], whole[0], strict=True):
        torch.testing.assert_close(part, one, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(part, one) for part, one in zip(parts[0], whole[0], strict=True))


def test_the_target_network_is_copied_every_so_many_steps():
    ours = learner("double", target_every=4)  # 32 transitions / 8 = 4 gradient steps a batch

    ours.update(make_batch(0), progress=0.0)

    for name, weight in ours._weights.items():
        assert torch.equal(weight, ours._targets[name])
    ours = learner("double", target_every=5)
    first = {k: v.clone() for k, v in ours._targets.items()}
    ours.update(make_batch(0), progress=0.0)
    for name, target in ours._targets.items():
        assert torch.equal(target, first[name])


def test_surprising_transitions_are_drawn_more_often():
    ours = learner("prioritised", update_ratio=0.5)
    ours.update(make_batch(), progress=0.0)
    index = ours.replay.draw(4000, np.random.default_rng(0), steps=1, gamma=0.9).index

    _, counts = np.unique(index, return_counts=True)

    assert counts.max() > 2 * counts.min()


@pytest.mark.parametrize(("transitions", "expected"), [(0, 1.0), (50, 0.6), (100, 0.2), (900, 0.2)])
@pytest.mark.parametrize("variant", ["double", "pqn"])
def test_epsilon_falls_evenly(variant, transitions, expected):
    ours = learner(variant, epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=100)
    meta, arrays = ours.save()
    ours.restore(meta | {"transitions": transitions}, arrays)
    rows = 3000
    seen = {k: np.repeat(v, rows, axis=0) for k, v in look(np.random.default_rng(0), 1).items()}
    uniform = np.random.default_rng(1).uniform(0, 1, (rows, 1))

    best = ours.greedy(seen)
    share = (ours.act(seen, uniform, np.zeros(rows, bool))[0] != best).mean()

    assert share == pytest.approx(expected * 2 / 3, abs=0.03)  # a third of chance is the best


def test_the_ladder_gives_each_car_a_share_of_its_own():
    ours = learner("double", epsilon_ladder=True)
    rows = 5
    seen = {k: np.repeat(v, rows, axis=0) for k, v in look(np.random.default_rng(0), 1).items()}
    best = ours.greedy(seen)
    draws = np.random.default_rng(1).uniform(0, 1, (4000, rows, 1))

    strays = [ours.act(seen, one, np.zeros(rows, bool))[0] != best for one in draws]

    # 0.4, 0.4^2.75, 0.4^4.5, 0.4^6.25, 0.4^8, of which a third is the best by chance
    expected = [0.4 * 2 / 3, 0.0805 * 2 / 3, 0.0162 * 2 / 3, 0.0033 * 2 / 3, 0.0007 * 2 / 3]
    np.testing.assert_allclose(np.mean(strays, axis=0), expected, atol=0.02)


@EVERY
@pytest.mark.parametrize("actor", [("state",), ("camera",)])
def test_saved_and_restored_it_goes_on_to_the_same_bytes(variant, actor):
    straight = learner(variant, actor)
    for seed in range(3):
        straight.update(make_batch(seed), progress=0.25)
    resumed = learner(variant, actor)
    meta, arrays = straight.save()
    resumed.restore(json.loads(json.dumps(meta)), arrays)
    if straight.replay is not None:
        kept, own = straight.replay.save()
        oldest = straight.replay.oldest
        resumed.replay.restore(kept, own, [(oldest, straight.replay.segment(oldest))])

    for ours in (straight, resumed):
        for seed in range(3, 6):
            ours.update(make_batch(seed), progress=0.75)

    (meta, arrays), (other_meta, other_arrays) = straight.save(), resumed.save()
    assert meta == other_meta
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)


@EVERY
@pytest.mark.parametrize("actor", [("state",), ("camera", "state")])
def test_the_saved_driver_values_choices_without_torch_as_it_did(variant, actor):
    torch.manual_seed(0)
    ours = shaken(learner(variant, actor, precision="float32", normalize_rewards=False))
    ours.update(make_batch(), progress=0.0)
    seen = look(np.random.default_rng(3), 30)

    driver = NumpyPolicy(*ours.policy_state())

    assert driver.action == ActionSpec("discrete", 3)
    np.testing.assert_allclose(driver.output(seen), ours.worth(seen), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(driver.act(seen), ours.greedy(seen))


@EVERY
def test_a_driver_is_adopted_without_its_past(variant):
    old = shaken(learner(variant))
    old.update(make_batch(), progress=0.0)
    new = learner(variant, seed=1, epsilon_end=0.0)

    new.adopt(*old.save())

    seen = look(np.random.default_rng(3), 20)
    np.testing.assert_array_equal(new.greedy(seen), old.greedy(seen))
    assert new.save()[0]["transitions"] == 0
    uniform = np.random.default_rng(1).uniform(0, 1, (20, 1))
    action = new.act(seen, uniform, np.zeros(20, bool))[0]
    np.testing.assert_array_equal(action, old.greedy(seen))  # at the last epsilon, 0


@pytest.mark.parametrize("variant", ["double", "pqn"])
def test_continuous_actions_are_refused_and_told_who_can(variant):
    kind, settings = (PQN, PQNSettings()) if variant == "pqn" else (DQN, DQNSettings())

    with pytest.raises(ConfigError, match=r"discrete actions.*ppo, ddpg, rdpg, td3, sac or qr_sac"):
        kind(settings, OBSERVATION, ActionSpec("continuous", 2), ("state",), ("state",), seed=0)


def test_a_range_of_returns_that_is_empty_is_refused():
    with pytest.raises(ConfigError, match=r"value_low: must lie below value_high \(1.0\) \(got 1"):
        learner("c51", value_low=1.0, value_high=1.0)


@EVERY
def test_another_s_checkpoint_is_refused(variant):
    ours = learner(variant)
    meta, arrays = ours.save()

    with pytest.raises(RunError, match="of kind 'ppo', format 1"):
        ours.restore(meta | {"kind": "ppo"}, arrays)
    with pytest.raises(RunError, match="keep the settings and observations"):
        learner(variant, network=NetworkSettings(mlp=(8, 8))).restore(meta, arrays)


@pytest.mark.parametrize("variant", ["double", "pqn"])
def test_what_is_no_number_stops_the_run(variant):
    batch = make_batch()
    batch.reward[3, 2] = np.inf

    with pytest.raises(SimulationError, match="1 of 32 rewards are not finite"):
        learner(variant).update(batch, progress=0.0)
    ours = learner(variant)
    with torch.no_grad():
        ours._weights["hidden0.weight"].fill_(float("nan"))
    with pytest.raises(SimulationError, match=r"not finite.*algorithm\.learning_rate"):
        ours.update(make_batch(), progress=0.0)


def test_the_linear_schedule_of_pqn_follows_progress():
    ours = learner("pqn", learning_rate=1e-3, schedule="linear")

    rates = [ours.update(make_batch(), progress=p)["learning_rate"] for p in (0.0, 0.75, 1.0)]

    np.testing.assert_allclose(rates, [1e-3, 0.25e-3, 0.0])


def test_the_targets_of_pqn_see_what_ended_episodes_reached():
    torch.manual_seed(0)
    ours = shaken(learner("pqn", normalize_rewards=False, lam=0.0, gamma=0.5))
    batch = make_batch()
    inputs = ours._scales.inputs(
        {k: v.reshape(32, *v.shape[2:]) for k, v in batch.observation.items()}, ["state"]
    )

    found = ours._returns(batch, inputs)

    number = 0
    for t in range(8):
        for row in range(4):
            if batch.ended[t, row]:
                after = batch.reached["state"][number]
                number += 1
            else:
                seen = batch.observation["state"]
                after = seen[t + 1, row] if t < 7 else batch.last_observation["state"][row]
            best = 0.0 if batch.terminated[t, row] else ours.worth({"state": after[None]}).max()
            assert found[t, row] == pytest.approx(batch.reward[t, row] + 0.5 * best, abs=1e-4)
    assert number > 2
