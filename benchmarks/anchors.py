"""Our learners against published returns on Gymnasium's classic worlds, and on two of MuJoCo's.

    python benchmarks/anchors.py [--seeds 5] [--anchors CartPole-v1/ppo ...] [--long]

Appends one JSON line a seed to benchmarks/results/anchors.jsonl: the mean return of 100 greedy
episodes after training (10 on MuJoCo), beside what others published (`published`, `source`): by the
Zoo of Stable-Baselines3, greedy, one run each; by CleanRL, sampled actions, after 500,000 steps but
1,000,000 on MuJoCo.
`--long` adds those of MuJoCo, which take minutes to an hour a seed; `--steps` trains for fewer, to
see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.learner import AlgorithmSettings, Learner, make_learner
from hotlap.algorithms.settings import (
    DDPGSettings,
    DQNSettings,
    NetworkSettings,
    PPOSettings,
    PQNSettings,
    SACSettings,
    TD3Settings,
)

RESULTS = Path(__file__).parent / "results" / "anchors.jsonl"

Seen = dict[str, np.ndarray]


class Rows(Protocol):
    """N rows that restart within a step."""

    observation: dict[str, ObservationSpec]
    action: ActionSpec

    def reset(self) -> Seen: ...

    def step(self, action: np.ndarray) -> tuple[Seen, np.ndarray, np.ndarray, np.ndarray, Seen]:
        """Return what is seen next, reward, terminated, truncated and what was reached (N, ...)."""


class GymRows:
    """Gymnasium's copies of one of its environments."""

    def __init__(self, task: str, rows: int, seed: int) -> None:
        self._envs = gymnasium.make_vec(
            task,
            rows,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
        self._seed = seed
        self.observation = {
            "state": ObservationSpec(self._envs.single_observation_space.shape, "float32")
        }
        space = self._envs.single_action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            self.action = ActionSpec("discrete", int(space.n))
        else:
            self.action = ActionSpec("continuous", space.shape[0])
            self._low, self._high = space.low, space.high

    def reset(self) -> Seen:
        return {"state": self._envs.reset(seed=self._seed)[0]}

    def step(self, action: np.ndarray) -> tuple[Seen, np.ndarray, np.ndarray, np.ndarray, Seen]:
        if self.action.kind == "continuous":
            share = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
            action = (self._low + share * (self._high - self._low)).astype(np.float32)
        seen, reward, terminated, truncated, info = self._envs.step(action)
        reached = seen.copy()
        for row in np.flatnonzero(terminated | truncated):
            reached[row] = info["final_obs"][row]
        return {"state": seen}, reward, terminated, truncated, {"state": reached}

    def close(self) -> None:
        self._envs.close()


def collect(
    rows: Rows,
    learner: Learner,
    seen: Seen,
    fresh: np.ndarray,
    horizon: int,
    rng: np.random.Generator,
) -> tuple[Batch, Seen, np.ndarray]:
    """Drive `horizon` steps; return them, what is seen afterwards and which rows begin anew."""
    steps: list[tuple[Any, ...]] = []
    reached: list[Seen] = []
    count = len(next(iter(seen.values())))
    for _ in range(horizon):
        uniform = rng.uniform(1e-6, 1 - 1e-6, (count, rows.action.size))
        action, log_prob = learner.act(seen, uniform, fresh)
        after, reward, terminated, truncated, ends = rows.step(action)
        steps.append((seen, action, log_prob, reward, terminated, truncated))
        ended = terminated | truncated
        reached.append({name: values[ended] for name, values in ends.items()})
        seen, fresh = after, ended
    observations, action, log_prob, reward, terminated, truncated = zip(*steps, strict=True)
    batch = Batch(
        observation={name: np.stack([o[name] for o in observations]) for name in seen},
        last_observation=seen,
        action=np.stack(action),
        log_prob=np.stack(log_prob),
        reward=np.stack(reward).astype(np.float32),
        terminated=np.stack(terminated),
        truncated=np.stack(truncated),
        reached={name: np.concatenate([r[name] for r in reached]) for name in seen},
    )
    return batch, seen, fresh


def learn(
    rows: Rows, learner: Learner, *, steps: int, seed: int, horizon: int | None = None
) -> dict[str, float]:
    """Train for so many steps of all rows together; return the last update's metrics."""
    rng = np.random.default_rng(seed)
    seen = rows.reset()
    count = len(next(iter(seen.values())))
    horizon = horizon or learner.settings.horizon
    updates, fresh = steps // (horizon * count), np.ones(count, bool)
    metrics: dict[str, float] = {}
    for update in range(updates):
        batch, seen, fresh = collect(rows, learner, seen, fresh, horizon, rng)
        metrics = learner.update(batch, progress=update / updates)
    return metrics


def evaluate(task: str, learner: Learner, *, episodes: int, seed: int) -> np.ndarray:
    """Return the greedy returns of the first episode of so many rows."""
    rows = GymRows(task, episodes, seed)
    seen, total, running = rows.reset(), np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        seen, reward, terminated, truncated, _ = rows.step(learner.greedy(seen))
        total += reward * running
        running &= ~(terminated | truncated)
    rows.close()
    return total


@dataclass(frozen=True)
class Anchor:
    """A task, how we train on it, and what others reached."""

    rows: int
    steps: int
    settings: AlgorithmSettings
    published: float
    at_least: float
    source: str
    episodes: int = 100
    long: bool = False
    """Whether it needs MuJoCo, and minutes to an hour."""


# Steps are those after which others published; 8 cars and a quarter of their gradient steps, as a
# batched world wants it.
_PENDULUM = {
    "horizon": 1,
    "update_ratio": 0.25,
    "warmup": 1000,
    "capacity": 20_000,
    "gamma": 0.98,
    "n_step": 1,
    "network": NetworkSettings(mlp=(64, 64)),
}

_20 = "Zoo, 20,000 steps, 90 from episode to episode"
_MOUNTAIN = {
    "horizon": 1,
    "update_ratio": 0.125,
    "warmup": 4000,
    "capacity": 100_000,
    "gamma": 0.99,
    "n_step": 10,
    "network": NetworkSettings(mlp=(64, 64)),
}

ANCHORS = {
    "CartPole-v1/ppo": Anchor(
        rows=16,
        steps=100_000,
        settings=PPOSettings(
            horizon=64,
            minibatch=256,
            epochs=10,
            learning_rate=1e-3,
            schedule="linear",
            gamma=0.98,
            lam=0.8,
            threads=1,
        ),
        published=500.0,
        at_least=475.0,
        source="Zoo, 100,000 steps",
    ),
    "Pendulum-v1/ppo": Anchor(
        rows=16,
        steps=100_000,
        settings=PPOSettings(
            horizon=64,
            minibatch=128,
            epochs=10,
            learning_rate=1e-3,
            schedule="linear",
            gamma=0.9,
            lam=0.95,
            initial_std=1.0,
            threads=1,
        ),
        published=-172.2,
        at_least=-300.0,
        source="Zoo, 100,000 steps",
    ),
    "Pendulum-v1/ddpg": Anchor(
        8, 20_000, DDPGSettings(**_PENDULUM, noise_min=0.1, noise_max=0.3), -152.1, -220.0, _20
    ),
    "Pendulum-v1/td3": Anchor(
        8, 20_000, TD3Settings(**_PENDULUM, noise_min=0.1, noise_max=0.3), -151.9, -220.0, _20
    ),
    "Pendulum-v1/sac": Anchor(8, 20_000, SACSettings(**_PENDULUM), -157.0, -220.0, _20),
    "CartPole-v1/dqn": Anchor(
        8,
        50_000,
        DQNSettings(
            horizon=4, warmup=1000, update_ratio=0.25, minibatch=64, capacity=50_000, gamma=0.99,
            n_step=3, target_every=100, learning_rate=5e-4, epsilon_steps=8000, epsilon_end=0.04,
        ),
        500.0,
        450.0,
        "Zoo, 50,000 steps; CleanRL 488.7 +- 16",
    ),
    "CartPole-v1/pqn": Anchor(
        4,
        500_000,
        PQNSettings(
            horizon=128, minibatch=128, epochs=4, gamma=0.99, lam=0.65, learning_rate=2.5e-4,
            schedule="linear", epsilon_steps=250_000, epsilon_end=0.05,
            network=NetworkSettings(mlp=(120, 84)),
        ),
        495.1,
        450.0,
        "CleanRL, 500,000 steps, +- 7",
    ),
    "Acrobot-v1/dqn": Anchor(
        8,
        100_000,
        DQNSettings(
            horizon=4, warmup=1000, update_ratio=0.125, minibatch=64, capacity=50_000, gamma=0.99,
            n_step=3, target_every=100, learning_rate=5e-4, epsilon_steps=10_000, epsilon_end=0.05,
        ),
        -76.6,
        -100.0,
        "Zoo, 100,000 steps, 12 from episode to episode; CleanRL -91.5 +- 7",
    ),
    "Acrobot-v1/pqn": Anchor(
        32,
        300_000,
        PQNSettings(
            horizon=32, minibatch=256, epochs=4, gamma=0.99, lam=0.95, learning_rate=1e-3,
            schedule="linear", epsilon_steps=50_000, epsilon_end=0.05,
        ),
        -91.5,
        -100.0,
        "CleanRL's DQN, +- 7; of PQN none is published",
    ),
    # Its reward is found by chance alone. Noise that lasts finds it; actions drawn anew each step
    # reach it in one episode of a thousand, so that SAC as we have it stays at 0 (Zoo, with noise
    # that depends on the state and lasts: 94.7 after 50,000 steps).
    "MountainCarContinuous-v0/ddpg": Anchor(
        8,
        100_000,
        DDPGSettings(**_MOUNTAIN, noise="ornstein_uhlenbeck", noise_min=0.3, noise_max=0.9),
        93.5,
        85.0,
        "Zoo, 300,000 steps",
    ),
    "Hopper-v5/ppo": Anchor(
        8,
        1_000_000,
        PPOSettings(
            horizon=256, minibatch=64, epochs=10, learning_rate=3e-4, schedule="linear",
            gamma=0.99, lam=0.95, max_grad_norm=0.5, initial_std=1.0, threads=1,
        ),
        2382.9,
        1800.0,
        "CleanRL, Hopper-v4, 1,000,000 steps, +- 272; Zoo, Hopper-v3, 2410 in one run",
        episodes=10,
        long=True,
    ),
    "HalfCheetah-v5/sac": Anchor(
        8,
        1_000_000,
        SACSettings(
            horizon=1, update_ratio=0.5, warmup=10_000, minibatch=256, capacity=1_000_000,
            gamma=0.99, n_step=1, tau=0.005, learning_rate=3e-4, layer_norm=False,
            normalize_observations=False, normalize_rewards=False,
            network=NetworkSettings(mlp=(256, 256)),
        ),
        9535.5,
        8000.0,
        "Zoo, HalfCheetah-v3, 1,000,000 steps; CleanRL 9634.9 +- 1424 (v2, sampled)",
        episodes=10,
        long=True,
    ),
}  # fmt: skip


def run(name: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one seed, for so many steps if not those of the anchor, and say what it reached."""
    anchor, (task, algorithm) = ANCHORS[name], name.split("/")
    rows = GymRows(task, anchor.rows, seed)
    see = ("state",)
    learner = make_learner(
        anchor.settings, rows.observation, rows.action, see, see, seed=seed, device="cpu"
    )
    start, cpu = time.perf_counter(), time.process_time()
    steps = steps or anchor.steps
    learn(rows, learner, steps=steps, seed=seed)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    rows.close()
    found = evaluate(task, learner, episodes=anchor.episodes, seed=10_000 + seed)
    return {
        "task": task,
        "algorithm": algorithm,
        "seed": seed,
        "steps": steps,
        "return_mean": round(float(found.mean()), 2),
        "return_std": round(float(found.std()), 2),
        "published": anchor.published,
        "source": anchor.source,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--anchors", nargs="+", choices=list(ANCHORS))
    parser.add_argument("--long", action="store_true", help="also MuJoCo's worlds")
    parser.add_argument("--steps", type=int, help="of every training, in the place of its own")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    arguments = parser.parse_args()
    wanted = [name for name, one in ANCHORS.items() if arguments.long or not one.long]
    words = sys.argv[1:]
    if "--out" in words:  # where the rows of one machine went is of no use to another
        del words[(at := words.index("--out")) : at + 2]
    for name in arguments.anchors or wanted:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            line = run(name, seed, arguments.steps) | {
                "command": " ".join(["python", "benchmarks/anchors.py", *words]),
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "versions": {one: version(one) for one in ("torch", "numpy", "gymnasium")},
                "settings": ANCHORS[name].settings.model_dump(mode="json"),
            }
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print({k: v for k, v in line.items() if k not in ("settings", "command")}, flush=True)


if __name__ == "__main__":
    main()
