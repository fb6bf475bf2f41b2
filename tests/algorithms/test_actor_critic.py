"""DDPG, TD3, SAC and QR-SAC against slow twins, and as learners that stop and go on."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from worlds import OBSERVATION, assert_same, driven, look

from hotlap.algorithms.actor_critic import ActorCritic, squashed_log_prob
from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.critics import Critics, quantile_huber, squared_error
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import LOG_STD, NumpyPolicy
from hotlap.algorithms.settings import (
    DDPGSettings,
    NetworkSettings,
    QRSACSettings,
    SACSettings,
    TD3Settings,
)
from hotlap.config import resolve
from hotlap.errors import ConfigError, RunError, SimulationError
from hotlap.plan import TrainConfig

SETTINGS = {
    "ddpg": DDPGSettings,
    "td3": TD3Settings,
    "sac": SACSettings,
    "qr_sac": QRSACSettings,
}
FAST = {
    "network": NetworkSettings(mlp=(16, 16)),
    "minibatch": 16,
    "warmup": 0,
    "update_ratio": 0.125,
    "capacity": 200,
}
EVERY = pytest.mark.parametrize("kind", SETTINGS)


def learner(kind, actor=("state",), critic=("state",), seed=7, **settings):
    chosen = SETTINGS[kind](**(FAST | settings))
    return ActorCritic(chosen, OBSERVATION, ActionSpec("continuous", 2), actor, critic, seed=seed)


def make_batch(seed=0, steps=8, rows=4):
    rng = np.random.default_rng(seed)
    ended = rng.random((2, steps, rows)) < 0.1
    action = rng.uniform(-1, 1, (steps, rows, 2)).astype(np.float32)
    reward = rng.normal(size=(steps, rows)).astype(np.float32)
    return driven(rng, look(rng, steps, rows), action, np.zeros_like(reward), reward, ended)


def chance(rows, seed=0):
    return np.random.default_rng(seed).uniform(0.001, 0.999, (rows, 2)).astype(np.float32)


def test_quantile_loss_by_hand():
    # One critic, one row, quantiles 0 and 2 at shares 1/4 and 3/4, one sample 1:
    # from 0: off by  1 (sample above): share |1/4 - 0| = 1/4, huber(1)  = 1/2  -> 1/8
    # from 2: off by -1 (sample below): share |3/4 - 1| = 1/4, huber(-1) = 1/2  -> 1/8
    loss, error = quantile_huber(
        torch.tensor([[[0.0, 2.0]]]), torch.tensor([[1.0]]), torch.tensor([1.0])
    )

    assert loss.item() == pytest.approx(0.25)
    assert error.item() == pytest.approx(0.0)  # the mean, 1, is right


def test_quantile_loss_is_the_sum_written_out():
    rng = np.random.default_rng(0)
    value, target = rng.normal(size=(2, 3, 4)), 2 * rng.normal(size=(3, 5))
    weight = rng.random(3)

    loss, error = quantile_huber(*map(torch.from_numpy, (value, target, weight)))

    slow = 0.0
    for e in range(2):
        for b in range(3):
            for k in range(4):
                for j in range(5):
                    off = target[b, j] - value[e, b, k]
                    huber = 0.5 * off**2 if abs(off) < 1 else abs(off) - 0.5
                    share = abs((k + 0.5) / 4 - (off < 0))
                    slow += weight[b] * share * huber / 5 / 3
    assert loss.item() == pytest.approx(slow)
    expected = np.abs(target.mean(axis=1) - value.mean(axis=2)).mean(axis=0)
    np.testing.assert_allclose(error, expected)


def test_squared_loss_by_hand():
    # critics say 1 and 2 of row 0 (target 4, weight 1), 0 and 0 of row 1 (target 1, weight 1/2):
    # (9 + 0.5) / 2 + (4 + 0.5) / 2 = 7
    loss, error = squared_error(
        torch.tensor([[[1.0], [0.0]], [[2.0], [0.0]]]),
        torch.tensor([[4.0], [1.0]]),
        torch.tensor([1.0, 0.5]),
    )

    assert loss.item() == pytest.approx(7.0)
    np.testing.assert_allclose(error, [2.5, 1.0])


def test_the_squashed_log_probability_is_that_of_torch():
    rng = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(100, 2, generator=rng) for _ in range(3))
    raw = mean + log_std.exp() * noise

    found = squashed_log_prob(raw, log_std, noise)

    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    squash = torch.distributions.TanhTransform(cache_size=1)
    squashed = torch.distributions.TransformedDistribution(normal, squash)
    expected = squashed.log_prob(squash(raw.double())).sum(dim=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_stack_is_so_many_lone_networks(layer_norm):
    plan = make_plan(NetworkSettings(mlp=(8, 6)), OBSERVATION, ("state",), 3)
    critics = Critics(plan, 2, 4, layer_norm=layer_norm, bfloat16=False)
    rng = np.random.default_rng(0)
    weights = {k: torch.from_numpy(v) for k, v in critics.initial(rng).items()}
    for name, weight in weights.items():  # scales and shifts that matter
        weight.add_(0.1 * torch.from_numpy(rng.normal(size=weight.shape).astype(np.float32)))
        assert weight.shape[0] == 4, name
    seen, action = torch.randn(7, 5), torch.randn(7, 2)

    found = critics(weights, critics.encode(weights, {"state": seen}), action)

    for e in range(4):
        x = torch.cat([seen, action], dim=1)
        for i in range(3):
            x = x @ weights[f"layer{i}.weight"][e] + weights[f"layer{i}.bias"][e]
            if i < 2 and layer_norm:
                x = (x - x.mean(dim=1, keepdim=True)) / (
                    x.var(dim=1, keepdim=True, correction=0) + 1e-5
                ).sqrt()
                x = x * weights[f"layer{i}.scale"][e] + weights[f"layer{i}.shift"][e]
            x = x.clamp(min=0) if i < 2 else x
        np.testing.assert_allclose(found[e], x, atol=1e-5)
    one = critics(weights, seen, action, first=1)
    np.testing.assert_allclose(one, found[:1], atol=1e-6)


@EVERY
def test_the_target_is_the_formula(kind):
    ours = learner(kind, critics=2, normalize_rewards=False)
    ours.update(make_batch(), progress=0.0)
    minibatch = next(iter(ours._experience._draw(1, 1.0)))

    target = ours._target(minibatch)

    reached, noise = minibatch.reached["state"], minibatch.noise[1]
    side = ours._weights if kind.endswith("sac") else ours._targets
    weights = {k.removeprefix("actor."): v for k, v in side.items() if k.startswith("actor.")}
    x = reached
    for i in range(2):
        x = torch.tanh(x @ weights[f"hidden{i}.weight"].T + weights[f"hidden{i}.bias"])
    output = x @ weights["head.weight"].T + weights["head.bias"]
    soft = torch.zeros(16)
    if kind.endswith("sac"):
        mean, std = output[:, :2], output[:, 2:].exp()
        normal = torch.distributions.Normal(mean, std)
        raw = mean + std * noise
        action = raw.tanh()
        log_prob = (normal.log_prob(raw) - torch.log(1 - action.square())).sum(dim=1)
        soft = ours._log_temperature.exp() * log_prob
    else:
        action = output.tanh()
        if kind == "td3":
            action = (action + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
    worth = ours._worth(ours._targets, minibatch.reached, action).detach()
    for b in range(16):
        least = min(range(2), key=lambda e: float(worth[e, b].mean()))
        expected = minibatch.reward[b] + minibatch.discount[b] * (worth[least, b] - soft[b])
        np.testing.assert_allclose(target[b].detach(), expected.detach(), atol=1e-4)


@EVERY
def test_a_target_is_not_learned_through(kind):
    ours = learner(kind)
    ours.replay.add(make_batch())
    before = {k: v.clone() for k, v in ours._targets.items()}
    minibatch = next(iter(ours._experience._draw(1, 1.0)))

    for weight in ours._targets.values():
        weight.requires_grad_()  # so that a graph which reaches them would show
    with pytest.MonkeyPatch.context() as patch:
        targets, found = ours._target, []
        patch.setattr(ours, "_target", lambda one: found.append(targets(one)) or found[-1])
        ours._critic_step(minibatch)
        ours._actor_step(minibatch)

    assert found
    assert not any(target.requires_grad for target in found)
    for name, value in ours._targets.items():
        assert torch.equal(value, before[name])


def test_targets_follow_by_their_share():
    ours = learner("td3", tau=0.25)
    start = {k: v.clone() for k, v in ours._targets.items()}
    with torch.no_grad():
        for weight in ours._weights.values():
            weight.add_(1.0)

    ours._follow()

    for name, value in ours._targets.items():
        np.testing.assert_allclose(value, start[name] + 0.25, atol=1e-6)


@pytest.mark.parametrize(("delay", "moves"), [(1, 4), (2, 2), (3, 1)])
def test_the_actor_moves_at_every_so_many_th_step(delay, moves):
    ours = learner("td3", actor_delay=delay)

    ours.update(make_batch(), progress=0.0)  # 32 transitions / 8 = 4 gradient steps

    assert ours.save()[0]["adam_steps"] == {"actor": moves, "critic": 4}


@pytest.mark.parametrize(
    ("ratio", "counts"), [(0.125, [2, 6, 10]), (0.01, [0, 0, 0]), (0.3, [4, 14, 24])]
)
def test_gradient_steps_are_so_many_for_a_transition(ratio, counts):
    # 32 transitions a batch, of which the first 16 are driven at random: 16, 48, 80 times ratio
    ours = learner("td3", update_ratio=ratio, warmup=16)

    found = [ours.update(make_batch(seed), progress=0.0)["gradient_steps"] for seed in range(3)]

    assert found == counts


@EVERY
def test_it_drives_at_random_until_the_replay_is_warm(kind):
    ours = learner(kind, warmup=40)
    seen, uniform = look(np.random.default_rng(0), 50), chance(50)

    first = ours.act(seen, uniform, np.zeros(50, bool))[0]
    ours.update(make_batch(0), progress=0.0)
    ours.update(make_batch(1), progress=0.0)
    then = ours.act(seen, uniform, np.zeros(50, bool))[0]

    np.testing.assert_allclose(first, 2 * uniform - 1)
    assert np.abs(then - first).mean() > 0.1


@EVERY
def test_actions_stay_inside_and_greedy_ones_are_their_middle(kind):
    ours = learner(kind)
    seen = look(np.random.default_rng(0), 2001)
    seen = {name: np.repeat(values[:1], 2001, axis=0) for name, values in seen.items()}
    uniform = np.tile(((np.arange(2001) + 0.5) / 2001).astype(np.float32)[:, None], (1, 2))

    action = ours.act(seen, uniform, np.ones(2001, bool))[0]

    assert action.dtype == np.float32
    assert np.abs(action).max() <= 1.0
    np.testing.assert_allclose(np.median(action, axis=0), ours.greedy(seen)[0], atol=1e-4)


def test_the_first_cars_explore_less_than_the_last():
    ours = learner("td3", noise_min=0.1, noise_max=0.3)
    rows = 3000
    seen = {k: np.repeat(v, rows, axis=0) for k, v in look(np.random.default_rng(0), 1).items()}

    away = ours.act(seen, chance(rows), np.zeros(rows, bool))[0] - ours.greedy(seen)

    # evenly from 0.1 to 0.3: the first tenth has a root mean square of about 0.11, the last 0.29
    assert away[:300].std() == pytest.approx(0.11, rel=0.1)
    assert away[-300:].std() == pytest.approx(0.29, rel=0.1)


def test_the_ornstein_uhlenbeck_walk_by_hand():
    ours = learner("ddpg", noise="ornstein_uhlenbeck", noise_min=0.01, noise_max=0.01, ou_theta=0.5)
    seen = look(np.random.default_rng(0), 2)
    up = np.full((2, 2), 0.841344746, np.float32)  # one deviation above the mean

    fresh = [[True, True], [False, False], [False, True]]
    walks = [
        (ours.act(seen, up, np.array(which))[0] - ours.greedy(seen))[:, 0] / 0.01 for which in fresh
    ]

    # 0 + 1 = 1; 1 / 2 + 1 = 1.5; then 1.75, and 1 in the row that began anew
    np.testing.assert_allclose(walks, [[1, 1], [1.5, 1.5], [1.75, 1]], atol=1e-3)


@EVERY
@pytest.mark.parametrize(("actor", "critic"), [(("state",),) * 2, (("camera",), ("state",))])
def test_saved_and_restored_it_goes_on_to_the_same_bytes(kind, actor, critic):
    straight = learner(kind, actor, critic)
    for seed in range(3):
        straight.update(make_batch(seed), progress=0.0)
    resumed = learner(kind, actor, critic)
    meta, arrays = straight.save()
    resumed.restore(json.loads(json.dumps(meta)), arrays)
    kept, own = straight.replay.save()
    oldest = straight.replay.oldest
    resumed.replay.restore(kept, own, [(oldest, straight.replay.segment(oldest))])

    for ours in (straight, resumed):
        for seed in range(3, 6):
            found = ours.update(make_batch(seed), progress=0.0)

    assert found["gradient_steps"] == 6 * 4
    assert_same(straight, resumed)


@EVERY
@pytest.mark.parametrize("actor", [("state",), ("camera",), ("camera", "state")])
def test_the_saved_driver_drives_without_torch_as_it_did(kind, actor):
    ours = (
        learner(kind, actor, precision="float32", noise_min=0.2, noise_max=0.2)
        if kind
        in (
            "ddpg",
            "td3",
        )
        else learner(kind, actor, precision="float32")
    )
    ours.update(make_batch(), progress=0.0)
    seen, uniform = look(np.random.default_rng(3), 20), chance(20)

    driver = NumpyPolicy(*ours.policy_state())

    assert driver.action == ActionSpec("continuous", 2)
    np.testing.assert_allclose(driver.act(seen), ours.greedy(seen), atol=1e-5)
    expected = ours.act(seen, uniform, np.ones(20, bool))[0]
    np.testing.assert_allclose(driver.act(seen, uniform), expected, atol=1e-5)


@EVERY
def test_a_driver_is_adopted_with_its_critics_but_without_its_past(kind):
    old = learner(kind)
    for seed in range(3):
        old.update(make_batch(seed), progress=0.0)
    new = learner(kind, seed=1, warmup=64)

    new.adopt(*old.save())

    seen = look(np.random.default_rng(3), 20)
    np.testing.assert_array_equal(new.greedy(seen), old.greedy(seen))
    np.testing.assert_array_equal(
        new.value(seen, new.greedy(seen)), old.value(seen, new.greedy(seen))
    )
    assert len(new.replay) == 0
    assert new.save()[0]["transitions"] == 0
    # it drives itself while the replay fills
    action = new.act(seen, np.full((20, 2), 0.5, np.float32), np.zeros(20, bool))[0]
    np.testing.assert_allclose(action, new.greedy(seen), atol=1e-6)


def test_the_critics_alone_see_what_only_they_may_see():
    ours = learner("sac", ("camera",), ("state",))
    ours.update(make_batch(), progress=0.0)
    seen, other = look(np.random.default_rng(0), 4), look(np.random.default_rng(1), 4)
    swapped = {"camera": seen["camera"], "state": other["state"]}
    action = ours.greedy(seen)

    np.testing.assert_array_equal(action, ours.greedy(swapped))
    assert np.abs(ours.value(seen, action) - ours.value(swapped, action)).max() > 1e-4
    assert NumpyPolicy(*ours.policy_state()).names == ("camera",)


def test_a_fixed_temperature_stays_and_a_free_one_seeks_its_entropy():
    fixed = learner("sac", temperature=0.02)
    free = [learner("sac", target_entropy=wish, learning_rate=1e-2) for wish in (-20.0, 5.0)]
    for ours in (fixed, *free):
        for seed in range(5):
            found = ours.update(make_batch(seed), progress=0.0)
        ours.last = found["temperature"]

    assert fixed.last == pytest.approx(0.02)
    assert free[0].last < 0.1 < free[1].last  # too much entropy is cheap, too little is dear


@pytest.mark.parametrize("kind", ["ddpg", "td3", "qr_sac"])
def test_discrete_actions_are_refused_and_told_who_can(kind):
    with pytest.raises(ConfigError, match=f"{kind} answers with numbers.*ppo, sac, dqn or pqn"):
        ActorCritic(
            SETTINGS[kind](),
            OBSERVATION,
            ActionSpec("discrete", 3),
            ("state",),
            ("state",),
            seed=0,
        )


@pytest.mark.parametrize("std", [0.005, 8.0])
def test_a_deviation_that_its_bounds_would_hold_for_ever_is_refused(std):
    assert LOG_STD[0] < math.log(0.01) < math.log(7) < LOG_STD[1]
    with pytest.raises(ConfigError, match=r"algorithm\.initial_std.*(0\.01|7)"):
        resolve(TrainConfig, {"algorithm.kind": "sac", "algorithm.initial_std": std})


@EVERY
def test_another_s_checkpoint_is_refused(kind):
    ours = learner(kind)
    meta, arrays = ours.save()

    with pytest.raises(RunError, match=f"of kind 'ppo', format 1; this is {kind}"):
        ours.restore(meta | {"kind": "ppo"}, arrays)
    with pytest.raises(RunError, match="lacks critic"):
        ours.restore(meta, {k: v for k, v in arrays.items() if "critic.layer1" not in k})
    with pytest.raises(RunError, match="keep the settings and observations"):
        learner(kind, network=NetworkSettings(mlp=(8, 8))).restore(meta, arrays)


def test_rewards_that_are_no_numbers_stop_the_run():
    batch = make_batch()
    batch.reward[3, 2] = np.nan

    with pytest.raises(SimulationError, match="1 of 32 rewards are not finite"):
        learner("td3").update(batch, progress=0.0)


def test_gradients_that_are_no_numbers_stop_the_run():
    ours = learner("td3")
    with torch.no_grad():
        ours._weights["critic.layer0.weight"].fill_(math.inf)

    with pytest.raises(SimulationError, match=r"not finite.*algorithm\.critic_learning_rate"):
        ours.update(make_batch(), progress=0.0)


# --- SAC among choices ---


def chooser(actor=("state",), critic=("state",), seed=7, **settings):
    chosen = SACSettings(**(FAST | settings))
    return ActorCritic(chosen, OBSERVATION, ActionSpec("discrete", 3), actor, critic, seed=seed)


def choice_batch(seed=0, steps=8, rows=4):
    batch = make_batch(seed, steps, rows)
    action = np.random.default_rng(seed).integers(0, 3, (steps, rows))
    return dataclasses.replace(batch, action=action)


def drawn(ours, batch):
    """Fill a chooser's replay, and return one minibatch."""
    ours._experience.add(batch)
    return next(ours._experience.minibatches())


def by_hand(ours, weights, seen, row, network):
    """Return one row's numbers, from the weights alone: of the actor, or of every critic."""
    x = seen["state"][row]
    if network == "actor":
        for i in range(2):
            x = torch.tanh(
                weights[f"actor.hidden{i}.weight"] @ x + weights[f"actor.hidden{i}.bias"]
            )
        return weights["actor.head.weight"] @ x + weights["actor.head.bias"]
    found = []
    for e in range(2):
        y = x
        for i in range(3):
            y = y @ weights[f"critic.layer{i}.weight"][e] + weights[f"critic.layer{i}.bias"][e, 0]
            if i < 2:
                y = torch.relu(y)
        found.append(y)
    return torch.stack(found)


def test_losses_among_choices_are_the_sums_written_out():
    ours = chooser(layer_norm=False, initial_temperature=0.3)
    with torch.no_grad():
        for weight in ours._weights.values():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        for weight in ours._targets.values():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    minibatch = drawn(ours, choice_batch())
    weights = {k: v.detach().clone() for k, v in ours._weights.items()}
    targets = ours._targets
    critic_loss = actor_loss = entropy = 0.0
    for b in range(16):
        logits = by_hand(ours, weights, minibatch.reached, b, "actor")
        p = torch.exp(logits) / torch.exp(logits).sum()
        q = by_hand(ours, targets, minibatch.reached, b, "critic").min(dim=0).values
        ahead = sum(p[a] * (q[a] - 0.3 * torch.log(p[a])) for a in range(3))
        y = minibatch.reward[b] + minibatch.discount[b] * ahead
        said = by_hand(ours, weights, minibatch.observation, b, "critic")
        critic_loss += sum((said[e, minibatch.action[b]] - y) ** 2 for e in range(2)) / 16
        logits = by_hand(ours, weights, minibatch.observation, b, "actor")
        p = torch.exp(logits) / torch.exp(logits).sum()
        least = said.min(dim=0).values
        actor_loss += sum(p[a] * (0.3 * torch.log(p[a]) - least[a]) for a in range(3)) / 16
        entropy -= sum(p[a] * torch.log(p[a]) for a in range(3)) / 16

    start = ours.save()
    actor = ours._actor_step(minibatch)
    ours.restore(*start)
    critic = ours._critic_step(minibatch)

    assert actor["actor_loss"].item() == pytest.approx(float(actor_loss), rel=1e-4)
    assert actor["entropy"].item() == pytest.approx(float(entropy), rel=1e-4)
    assert critic["critic_loss"].item() == pytest.approx(float(critic_loss), rel=1e-4)


def test_the_temperature_of_choices_seeks_half_of_the_greatest_entropy():
    # three choices that begin nearly alike have log 3 = 1.0986; half of it is wanted
    ours = chooser(learning_rate=1e-2)

    seen = ours.update(choice_batch(), progress=0.0)

    assert seen["entropy"] == pytest.approx(math.log(3), abs=0.02)
    assert ours._temperature().item() < 0.1  # too much entropy: it becomes cheaper


@pytest.mark.parametrize("actor", [("state",), ("camera", "state")])
def test_a_saved_chooser_drives_without_torch_as_it_did(actor):
    ours = chooser(actor, precision="float32", learning_rate=3e-2)
    for seed in range(4):
        ours.update(choice_batch(seed), progress=0.0)
    seen = look(np.random.default_rng(3), 60)
    uniform = np.random.default_rng(4).uniform(0.001, 0.999, (60, 1)).astype(np.float32)

    driver = NumpyPolicy(*ours.policy_state())

    assert driver.action == ActionSpec("discrete", 3)
    np.testing.assert_array_equal(driver.act(seen), ours.greedy(seen))
    expected = ours.act(seen, uniform, np.ones(60, bool))[0]
    np.testing.assert_array_equal(driver.act(seen, uniform), expected)
    assert len(set(expected.tolist())) == 3


def test_a_chooser_stopped_and_restored_learns_on_to_the_same_bytes():
    through, other = chooser(), chooser()
    through.update(choice_batch(0), progress=0.0)
    saved, replay = through.save(), through.replay.save()
    segment = through.replay.segment(0)

    other.restore(*saved)
    other.replay.restore(*replay, [(0, segment)])

    for one in (through, other):
        one.update(choice_batch(1), progress=0.0)
    assert_same(through, other)


def test_choices_are_all_alike_until_the_replay_is_warm():
    ours = chooser(warmup=100)
    uniform = ((np.arange(30) + 0.5) / 30).reshape(-1, 1).astype(np.float32)

    action = ours.act(look(np.random.default_rng(0), 30), uniform, np.ones(30, bool))[0]

    np.testing.assert_array_equal(np.bincount(action), [10, 10, 10])


def test_choices_from_pictures_alone_are_learned_in_bfloat16_too():
    ours = chooser(("camera",), ("camera",), precision="bfloat16")

    metrics = ours.update(choice_batch(), progress=0.0)

    assert all(np.isfinite(value) for value in metrics.values())
