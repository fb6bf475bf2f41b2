"""Stretches of a replay and the losses of RDPG, against slow twins."""

import json

import numpy as np
import pytest
import torch
from test_memory import drive, stirred
from worlds import OBSERVATION, assert_same, look

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.returns import n_step
from hotlap.algorithms.settings import RDPGSettings, RecurrentNetworkSettings
from hotlap.config import resolve
from hotlap.errors import ConfigError, RunError
from hotlap.plan import TrainConfig

SMALL = {
    "sequence": 5,
    "burn_in": 3,
    "minibatch": 20,
    "warmup": 0,
    "update_ratio": 0.02,
    "capacity": 4000,
    "normalize_rewards": False,
}


def learner(actor=("state",), critic=("state",), network=None, **settings):
    layers = {"mlp": (16, 12), "memory": 8} | (network or {})
    made = RDPGSettings(**(SMALL | {"network": RecurrentNetworkSettings(**layers)} | settings))
    action = ActionSpec("continuous", 3)
    return make_learner(made, OBSERVATION, action, actor, critic, seed=7, device="cpu")


# --- stretches ---


@pytest.mark.parametrize("ends", [0.0, 0.3])
@pytest.mark.parametrize("lengths", [[12], [9] * 5, [40]])
def test_stretches_are_what_happened(ends, lengths):
    """Every number that is drawn is told apart: 1000 row + step, and reached ones by a half."""
    rng, rows, total = np.random.default_rng(0), 3, 0
    memory = Replay(
        {"s": ObservationSpec((1,), "float32")}, ActionSpec("continuous", 1), capacity=60
    )
    over = np.zeros((0, rows), bool)
    for length in lengths:
        step = np.arange(total, total + length)[:, None] + 1000.0 * np.arange(rows)
        ended = rng.random((length, rows)) < ends
        terminated = ended & (rng.random((length, rows)) < 0.5)
        memory.add(batch_of(step, (step[-1] + 1), ended, terminated, reached=step[ended] + 0.5))
        total, over = total + length, np.concatenate([over, ended])

    drawn = memory.windows(300, np.random.default_rng(1), 7)

    seen = drawn.observation["s"][..., 0].astype(int)
    row, first = np.divmod(seen[0], 1000)
    oldest = max(0, total - 20)
    assert first.min() == oldest + (oldest > 0)  # the action before the oldest is not known
    assert first.max() == total - 7
    np.testing.assert_array_equal(seen, seen[0] + np.arange(8)[:, None])
    np.testing.assert_array_equal(drawn.action[..., 0], seen[:-1] + 0.25)
    np.testing.assert_array_equal(drawn.reward, seen[:-1] + 0.125)
    t = first + np.arange(7)[:, None]
    np.testing.assert_array_equal(drawn.ended, over[t, row])
    np.testing.assert_array_equal(drawn.begins, np.where(first, over[first - 1, row], True))
    known = first > 0
    np.testing.assert_array_equal(drawn.before[known, 0], seen[0][known] - 0.75)
    np.testing.assert_array_equal(drawn.reached["s"][:, 0], seen[:-1][drawn.ended] + 0.5)


def batch_of(step, last, ended, terminated, reached):
    return Batch(
        observation={"s": step[..., None].astype(np.float32)},
        last_observation={"s": last[..., None].astype(np.float32)},
        action=(step[..., None] + 0.25).astype(np.float32),
        log_prob=np.zeros(step.shape, np.float32),
        reward=(step + 0.125).astype(np.float32),
        terminated=terminated,
        truncated=ended & ~terminated,
        reached={"s": reached[:, None].astype(np.float32)},
    )


def test_returns_of_some_steps_by_hand():
    # gamma 1/2; values of what was reached 8, 16, 32, 64; rewards 1, 2, 4, 8
    # n = 2: 1 + 2/2 + 16/4 = 6        2 + 4/2 + 32/4 = 12    4 + 8/2 + 64/4 = 24    8 + 64/2 = 40
    # a cut after the second step:     2 + 16/2 = 10; the first stays 1 + 2/2 + 16/4 = 6
    # a crash there:                   2; the first 1 + 2/2 = 2
    reward = np.array([[1.0, 1, 1], [2, 2, 2], [4, 4, 4], [8, 8, 8]])
    value = np.array([[8.0, 8, 8], [16, 16, 16], [32, 32, 32], [64, 64, 64]])
    terminated, ended = np.zeros((4, 3), bool), np.zeros((4, 3), bool)
    ended[1, 1:] = terminated[1, 2] = True

    found = n_step(reward, value, terminated, ended, steps=2, gamma=0.5)

    np.testing.assert_allclose(found, [[6, 6, 2], [12, 10, 2], [24, 24, 24], [40, 40, 40]])


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_returns_of_some_steps_are_a_loop_s(steps):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 9, 5))
    ended = rng.random((9, 5)) < 0.3
    terminated = ended & (rng.random((9, 5)) < 0.5)
    expected = np.zeros((9, 5))
    for t in range(9):
        for n in range(5):
            factor = 1.0
            for k in range(t, min(9, t + steps)):
                expected[t, n] += factor * reward[k, n]
                factor *= 0.9
                if ended[k, n] or k == min(9, t + steps) - 1:
                    expected[t, n] += 0.0 if terminated[k, n] else factor * value[k, n]
                    break

    found = n_step(
        *(torch.from_numpy(a) for a in (reward, value, terminated, ended)), steps=steps, gamma=0.9
    )

    np.testing.assert_allclose(found, expected, atol=1e-12)


# --- the losses ---


class Twin:
    """Both networks over one stretch of one row, step by step, with torch's own GRU cell."""

    def __init__(self, made, weights, prefix):
        self.made, self.prefix = made, prefix
        self.w = {
            k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(prefix)
        }

    def step(self, seen, before, state):
        w = self.w
        x = torch.cat([seen, before])[None]
        for i in range(2):
            x = torch.tanh(x @ w[f"hidden{i}.weight"].t() + w[f"hidden{i}.bias"])
        return torch.gru_cell(
            x, state, w["memory.input.weight"], w["memory.hidden.weight"],
            w["memory.input.bias"], w["memory.hidden.bias"],
        )  # fmt: skip

    def act(self, state):
        return torch.tanh(state @ self.w["head.weight"].t() + self.w["head.bias"])

    def worths(self, state, action):
        """Of all critics: one layer, normalised, rectified, and a head."""
        found = []
        for i in range(2):
            x = torch.cat([state, action], dim=1) @ self.w["layer0.weight"][i]
            x = torch.nn.functional.layer_norm(x + self.w["layer0.bias"][i], (12,))
            x = torch.relu(x * self.w["layer0.scale"][i] + self.w["layer0.shift"][i])
            found.append((x @ self.w["layer1.weight"][i] + self.w["layer1.bias"][i])[0, 0])
        return torch.stack(found)


def walk(twin, seen, actions, begins, before, ended, *, burn_in=0):
    """Yield the state after each step of a row, and what the next would start from."""
    state, done = torch.zeros(1, 8), torch.zeros(3) if begins else before
    states = []
    for t in range(len(seen)):
        state = twin.step(seen[t], done, state)
        states.append(state)
        if t + 1 == burn_in:
            state = state.detach()
        if t < len(actions):
            done = torch.zeros(3) if ended[t] else actions[t]
            state = torch.zeros(1, 8) if ended[t] else state
    return states


def ready(**settings):
    """Return a learner with far weights, a stretch that has ends, and what is descended."""
    made = stirred(learner(**settings))
    made._targets = {k: v.detach() * 0.8 for k, v in made._weights.items()}
    batch = drive(made, steps=40, rows=4, ends=0.12)
    made._experience.add(batch)
    drawn = made.replay.windows(6, np.random.default_rng(4), 8)
    assert drawn.ended.any()
    assert (drawn.terminated != drawn.ended).any()
    assert drawn.terminated.any()
    captured = {}

    def capture(part, loss, learning_rate):
        captured[part] = loss, torch.autograd.grad(loss, list(made._learned[part].values()))
        return loss.detach()

    made._descend = capture
    return made, drawn, made._stretch(drawn), captured


def rows_of(made, drawn):
    """Yield each row of a stretch as tensors: seen, actions, and the arrays of its steps."""
    scale = made._scales.inputs({"state": drawn.observation["state"].reshape(-1, 5)}, ("state",))
    seen = scale["state"].reshape(*drawn.observation["state"].shape)
    reached = made._scales.inputs(drawn.reached, ("state",))["state"]
    ends = {tuple(at): reached[k] for k, at in enumerate(np.argwhere(drawn.ended))}
    for b in range(seen.shape[1]):
        own = {t: ends[t, b] for t in range(8) if (t, b) in ends}
        actions = torch.from_numpy(drawn.action[:, b])
        yield b, seen[:, b], actions, torch.from_numpy(drawn.before[b]), own


def test_targets_are_a_slow_twin_s():
    made, drawn, stretch, _ = ready(n_step=3, gamma=0.9, critics=2)
    actor, critic = (Twin(made, made._targets, part) for part in ("actor", "critic"))
    following = np.zeros((8, 6))
    for b, seen, actions, before, ends in rows_of(made, drawn):
        given = seen, actions, drawn.begins[b], before, drawn.ended[:, b]
        states, judged = walk(actor, *given), walk(critic, *given)
        for t in range(8):
            state, judge = states[t + 1], judged[t + 1]
            if t in ends:
                state = actor.step(ends[t], actions[t], states[t])
                judge = critic.step(ends[t], actions[t], judged[t])
            following[t, b] = critic.worths(judge, actor.act(state)).min().item()
    expected = n_step(drawn.reward, following, drawn.terminated, drawn.ended, steps=3, gamma=0.9)

    found = made._target(stretch)

    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_losses_and_gradients_are_a_slow_twin_s():
    made, drawn, stretch, captured = ready(critics=2)
    target = made._target(stretch)
    made._critic_step(stretch)
    made._actor_step(stretch)
    actor, critic = (Twin(made, made._weights, part) for part in ("actor", "critic"))
    wrong, worth = [], []
    for b, seen, actions, before, _ in rows_of(made, drawn):
        given = seen[:8], actions, drawn.begins[b], before, drawn.ended[:, b]
        states, judged = (walk(twin, *given, burn_in=3) for twin in (actor, critic))
        for t in range(3, 8):
            wrong.append((critic.worths(judged[t], actions[t][None]) - target[t, b]).square())
            worth.append(critic.worths(judged[t].detach(), actor.act(states[t]))[0])
    expected = {
        "critic": torch.stack(wrong).mean(dim=0).sum(),
        "actor": -torch.stack(worth).mean(),
    }

    for part, (loss, gradients) in captured.items():
        np.testing.assert_allclose(loss.detach(), expected[part].detach(), rtol=1e-4)
        its = torch.autograd.grad(expected[part], list(made._learned[part].values()))
        for mine, one in zip(gradients, its, strict=True):
            np.testing.assert_allclose(mine, one, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("critic", ["state", "camera"])
def test_stretches_without_an_end_are_learned_from(critic):
    made = learner(actor=("camera",), critic=(critic,))

    metrics = made.update(drive(made, steps=40, ends=0.0), progress=0.0)

    assert np.isfinite(metrics["critic_loss"])


def test_a_critic_that_sees_the_state_needs_no_memory():
    made = learner(actor=("camera",), critic=("state",))

    metrics = made.update(drive(made, steps=40), progress=0.0)

    assert made._judge.memory == 0
    assert np.isfinite(metrics["critic_loss"])
    assert not [name for name in made.save()[1] if name.startswith("critic.memory")]


# --- driving, saving ---


def test_it_explores_around_the_best_and_remembers_in_the_warmup_too():
    warm, cold = learner(warmup=0, noise_min=0.0, noise_max=0.0), learner(warmup=10**6)
    uniform, fresh = np.full((6, 3), 0.75, np.float32), np.zeros(6, bool)
    for t in range(4):
        seen = look(np.random.default_rng(t), 6)
        best, action = warm.greedy(seen), warm.act(seen, uniform, fresh)[0]
        np.testing.assert_allclose(action, best, atol=1e-6)
        np.testing.assert_allclose(cold.act(seen, uniform, fresh)[0], 0.5)

    assert np.abs(cold._now[:, :8]).max() > 0.0
    np.testing.assert_allclose(cold._now[:, 8:], 0.5)


def test_numpy_drives_as_torch_does():
    made = stirred(learner(("camera", "state")))
    policy = NumpyPolicy(*made.policy_state())
    for t in range(6):
        if t == 3:
            made.begin(np.array([1, 2]))
            policy.begin(np.array([1, 2]))
        seen = look(np.random.default_rng(t), 5)
        np.testing.assert_allclose(policy.act(seen), made.greedy(seen), atol=2e-4)


@pytest.mark.parametrize(("actor", "critic"), [(("state",),) * 2, (("camera",), ("state",))])
def test_saved_and_restored_it_goes_on_to_the_same_bytes(actor, critic):
    straight, resumed = (
        learner(actor, critic, noise="ornstein_uhlenbeck", capacity=800) for _ in range(2)
    )
    for seed in range(3):
        straight.update(drive(straight, seed=seed, steps=20), progress=0.0)
    straight.greedy(look(np.random.default_rng(0), 3))
    meta, arrays = straight.save()
    kept, last = straight.replay.save()
    resumed.restore(json.loads(json.dumps(meta)), {k: v.copy() for k, v in arrays.items()})
    oldest = straight.replay.oldest
    resumed.replay.restore(kept, last, [(oldest, straight.replay.segment(oldest))])

    for made in (straight, resumed):
        for seed in range(3, 5):
            made.update(drive(made, seed=seed, steps=20), progress=0.5)

    assert straight._experience.gradient_steps > 20
    assert_same(straight, resumed)


def test_an_adopted_driver_drives_alike_and_begins_anew():
    old, new = learner(), learner(warmup=10**6)
    old.update(drive(old, steps=40), progress=0.0)

    new.adopt(*old.save())

    seen, uniform = look(np.random.default_rng(0), 5), np.full((5, 3), 0.5)
    np.testing.assert_array_equal(old.greedy(seen), new.greedy(seen))
    assert new.save()[1]["memory.actor"].size == 0
    begun = np.ones(5, bool)  # it drives in its warm-up, with exploration whose middle it is
    np.testing.assert_allclose(new.act(seen, uniform, begun)[0], old.act(seen, uniform, begun)[0])


def test_too_small_a_memory_is_refused_by_name():
    made = learner(capacity=150)

    with pytest.raises(ConfigError, match=r"algorithm\.capacity: .*of 16 cars, need 160 trans"):
        made.update(drive(made), progress=0.0)


def test_without_a_memory_it_is_refused():
    with pytest.raises(ConfigError, match=r"algorithm\.network\.memory: .*greater than 0 \(got 0"):
        resolve(TrainConfig, {"algorithm": "rdpg", "algorithm.network.memory": 0})


def test_discrete_actions_are_refused():
    with pytest.raises(ConfigError, match="rdpg answers with numbers"):
        make_learner(
            RDPGSettings(), OBSERVATION, ActionSpec("discrete", 3), ("state",), ("state",),
            seed=0, device="cpu",
        )  # fmt: skip


def test_another_memory_s_checkpoint_is_refused():
    meta, arrays = learner().save()

    with pytest.raises(RunError, match=r"memory\.input\.weight has shape \(24, 12\)"):
        learner(network={"memory": 5}).restore(meta, arrays)
