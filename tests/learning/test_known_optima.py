"""PPO on worlds whose best return is known on paper."""

import numpy as np
import pytest
from anchors import learn

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.ppo import PPO
from hotlap.algorithms.settings import NetworkSettings, PPOSettings


class Echo:
    """Reward for answering what is seen; every step is an episode."""

    def __init__(self, rows, kind, seed):
        self.rows, self.rng = rows, np.random.default_rng(seed)
        self.observation = {"state": ObservationSpec((4,), "float32")}
        self.action = ActionSpec(kind, 4 if kind == "discrete" else 2)

    def reset(self):
        if self.action.kind == "discrete":
            self.shown = self.rng.integers(0, 4, self.rows)
            return {"state": np.eye(4, dtype=np.float32)[self.shown]}
        self.shown = self.rng.uniform(-0.8, 0.8, (self.rows, 4)).astype(np.float32)
        return {"state": self.shown}

    def step(self, action):
        if self.action.kind == "discrete":
            reward = (action == self.shown).astype(np.float32)
        else:
            reward = -np.square(action - self.shown[:, :2]).sum(axis=1)
        seen = self.reset()
        over, no = np.ones(self.rows, bool), np.zeros(self.rows, bool)
        return seen, reward, over, no, seen


class Clockwork:
    """One point a step for ever, whatever one does; the clock or a crash ends an episode."""

    def __init__(self, rows, limit, *, crash):
        self.rows, self.limit, self.crash = rows, limit, crash
        self.action = ActionSpec("continuous", 1)
        self.observation = {"state": ObservationSpec((1,), "float32")}

    def reset(self):
        self.clock = np.arange(self.rows) % self.limit
        return {"state": np.zeros((self.rows, 1), np.float32)}

    def step(self, action):
        self.clock += 1
        over = self.clock >= self.limit
        self.clock[over] = 0
        seen = {"state": np.zeros((self.rows, 1), np.float32)}
        no = np.zeros(self.rows, bool)
        ends = (over, no) if self.crash else (no, over)
        return seen, np.ones(self.rows, np.float32), *ends, seen


class Corridor:
    """Half of the rows walk from the start to the end, worth nothing, and are cut off there.

    The others begin at the end, where every step is worth one, and are cut off by the clock.
    """

    def __init__(self, rows):
        self.walks = np.arange(rows) % 2 == 0
        self.action = ActionSpec("continuous", 1)
        self.observation = {"state": ObservationSpec((1,), "float32")}

    def reset(self):
        self.clock = np.zeros(len(self.walks), int)
        return {"state": np.where(self.walks, 0.0, 1.0).astype(np.float32)[:, None]}

    def step(self, action):
        self.clock += 1
        over = self.walks | (self.clock >= 5)
        self.clock[over] = 0
        reached = {"state": np.ones((len(over), 1), np.float32)}
        seen = {"state": np.where(self.walks, 0.0, 1.0).astype(np.float32)[:, None]}
        reward = np.where(self.walks, 0.0, 1.0).astype(np.float32)
        return seen, reward, np.zeros(len(over), bool), over, reached


class Regulator:
    """x' = A x + B u, cost x Q x + u R u, cut off after some steps: the linear regulator."""

    A = np.array([[0.95, 0.2], [0.0, 0.9]])
    B = np.array([[0.0], [0.5]])
    Q, R = np.diag([1.0, 0.1]), np.array([[0.3]])
    limit = 30

    def __init__(self, rows, seed):
        self.rows, self.rng = rows, np.random.default_rng(seed)
        self.action = ActionSpec("continuous", 1)
        self.observation = {"state": ObservationSpec((2,), "float32")}

    def fresh(self, count):
        return self.rng.uniform(-1.0, 1.0, (count, 2)) * [0.8, 0.4]

    def reset(self):
        self.x, self.clock = self.fresh(self.rows), self.rng.integers(0, self.limit, self.rows)
        return {"state": self.x.astype(np.float32)}

    def cost(self, x, u):
        return np.einsum("ni,ij,nj->n", x, self.Q, x) + np.einsum("ni,ij,nj->n", u, self.R, u)

    def step(self, action):
        u = np.clip(action, -1.0, 1.0)
        reward = -self.cost(self.x, u)
        self.x = self.x @ self.A.T + u @ self.B.T
        reached = {"state": self.x.astype(np.float32)}
        self.clock += 1
        over = self.clock >= self.limit
        self.x[over], self.clock[over] = self.fresh(int(over.sum())), 0
        return (
            {"state": self.x.astype(np.float32)},
            reward.astype(np.float32),
            np.zeros(self.rows, bool),
            over,
            reached,
        )

    def best_gain(self, gamma):
        """Iterate the discounted Riccati equation: u = -K x."""
        P = self.Q
        for _ in range(2000):
            K = np.linalg.solve(
                self.R + gamma * self.B.T @ P @ self.B, gamma * self.B.T @ P @ self.A
            )
            P = self.Q + gamma * self.A.T @ P @ (self.A - self.B @ K)
        return K

    def total(self, act, gamma, x):
        """Return the mean discounted cost of driving with `act` from `x`."""
        cost = 0.0
        for t in range(300):
            u = np.clip(act(x), -1.0, 1.0)
            cost += gamma**t * self.cost(x, u).mean()
            x = x @ self.A.T + u @ self.B.T
        return cost


def learner(rows, seed=0, **settings):
    names = tuple(rows.observation)
    defaults = {"network": NetworkSettings(mlp=(32, 32)), "threads": 1, "minibatch": 256}
    return PPO(
        PPOSettings(**(defaults | settings)),
        rows.observation,
        rows.action,
        names,
        names,
        seed=seed,
    )


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_it_learns_to_answer_what_it_sees(kind):
    rows = Echo(64, kind, seed=0)
    ppo = learner(rows, horizon=4, gamma=0.0, learning_rate=5e-3, schedule="constant")

    learn(rows, ppo, steps=64 * 4 * 80, seed=0)

    seen = rows.reset()
    answer = ppo.greedy(seen)
    if kind == "discrete":
        assert (answer == rows.shown).mean() == 1.0
    else:
        assert np.abs(answer - rows.shown[:, :2]).mean() < 0.1  # chance: 0.4


@pytest.mark.parametrize(("crash", "low", "high"), [(False, 9.5, 10.5), (True, 2.0, 4.0)])
def test_time_limits_cost_nothing_and_crashes_everything_after(crash, low, high):
    # For ever: V = 1 / (1 - 0.9) = 10. Five steps to the crash: V = 1 .. 4.1, on average
    # sum of (1 - 0.9^k) / 0.1 for k = 1..5 over 5 = 2.63.
    rows = Clockwork(20, 5, crash=crash)
    ppo = learner(rows, horizon=10, gamma=0.9, learning_rate=1e-2, schedule="constant")

    learn(rows, ppo, steps=20 * 10 * 100, seed=0)

    assert low < ppo.value(rows.reset())[0] < high


def test_a_cut_off_episode_is_worth_what_it_reached_and_not_what_comes_next():
    # V(end) = 1 / (1 - 0.9) = 10, V(start) = 0 + 0.9 * 10 = 9
    rows = Corridor(20)
    ppo = learner(rows, horizon=10, gamma=0.9, learning_rate=1e-2, schedule="constant")

    learn(rows, ppo, steps=20 * 10 * 100, seed=0)

    start, end = ppo.value({"state": np.array([[0.0], [1.0]], np.float32)})
    assert end == pytest.approx(10.0, abs=0.7)
    assert start == pytest.approx(9.0, abs=0.7)


@pytest.mark.slow
def test_it_drives_the_linear_regulator_within_five_percent_of_riccati():
    rows, gamma = Regulator(64, seed=0), 0.95
    ppo = learner(rows, horizon=16, gamma=gamma, minibatch=512, min_std=0.02)

    learn(rows, ppo, steps=64 * 16 * 100, seed=0)

    x = np.random.default_rng(9).uniform(-1.0, 1.0, (500, 2)) * [0.8, 0.4]
    K = rows.best_gain(gamma)
    best = rows.total(lambda x: -x @ K.T, gamma, x)
    ours = rows.total(lambda x: ppo.greedy({"state": x.astype(np.float32)}), gamma, x)
    assert best <= ours < 1.05 * best
