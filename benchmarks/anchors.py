"""Our PPO against published returns on CartPole-v1 and Pendulum-v1.

    python benchmarks/anchors.py [--seeds 5] [--tasks CartPole-v1 Pendulum-v1]

Appends one JSON line a seed to benchmarks/results/anchors.jsonl: the mean return of 100 greedy
episodes after training. Published (Stable-Baselines3 Zoo, one run, greedy): CartPole-v1 500 after
100,000 steps, Pendulum-v1 -172.2 after 100,000. CleanRL, sampled actions: CartPole-v1 490 +- 6
after 500,000.
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
from hotlap.algorithms.ppo import PPO
from hotlap.algorithms.settings import PPOSettings

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
    rows: Rows, ppo: PPO, seen: Seen, horizon: int, rng: np.random.Generator
) -> tuple[Batch, Seen]:
    """Drive `horizon` steps and return them with what is seen afterwards."""
    steps: list[tuple[Any, ...]] = []
    reached: list[Seen] = []
    count = len(next(iter(seen.values())))
    for _ in range(horizon):
        uniform = rng.uniform(1e-6, 1 - 1e-6, (count, rows.action.size))
        action, log_prob = ppo.act(seen, uniform)
        after, reward, terminated, truncated, ends = rows.step(action)
        steps.append((seen, action, log_prob, reward, terminated, truncated))
        ended = terminated | truncated
        reached.append({name: values[ended] for name, values in ends.items()})
        seen = after
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
    return batch, seen


def learn(rows: Rows, ppo: PPO, *, steps: int, seed: int) -> dict[str, float]:
    """Train for so many steps of all rows together; return the last update's metrics."""
    rng = np.random.default_rng(seed)
    seen = rows.reset()
    per_update = ppo.settings.horizon * len(next(iter(seen.values())))
    updates = steps // per_update
    metrics: dict[str, float] = {}
    for update in range(updates):
        batch, seen = collect(rows, ppo, seen, ppo.settings.horizon, rng)
        metrics = ppo.update(batch, progress=update / updates)
    return metrics


def evaluate(task: str, ppo: PPO, *, episodes: int, seed: int) -> np.ndarray:
    """Return the greedy returns of the first episode of so many rows."""
    rows = GymRows(task, episodes, seed)
    seen, total, running = rows.reset(), np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        seen, reward, terminated, truncated, _ = rows.step(ppo.greedy(seen))
        total += reward * running
        running &= ~(terminated | truncated)
    rows.close()
    return total


@dataclass(frozen=True)
class Anchor:
    """A task, how we train on it, and what others reached."""

    rows: int
    steps: int
    settings: PPOSettings
    published: float
    at_least: float


ANCHORS = {
    "CartPole-v1": Anchor(
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
    ),
    "Pendulum-v1": Anchor(
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
    ),
}


def run(task: str, seed: int) -> dict[str, Any]:
    """Train one seed and say what it reached."""
    anchor = ANCHORS[task]
    rows = GymRows(task, anchor.rows, seed)
    ppo = PPO(anchor.settings, rows.observation, rows.action, ("state",), ("state",), seed=seed)
    start, cpu = time.perf_counter(), time.process_time()
    learn(rows, ppo, steps=anchor.steps, seed=seed)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    rows.close()
    found = evaluate(task, ppo, episodes=100, seed=10_000 + seed)
    return {
        "task": task,
        "algorithm": "ppo",
        "seed": seed,
        "steps": anchor.steps,
        "return_mean": round(float(found.mean()), 2),
        "return_std": round(float(found.std()), 2),
        "published": anchor.published,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=list(ANCHORS), choices=list(ANCHORS))
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        for seed in range(arguments.seeds):
            line = run(task, seed) | {
                "command": " ".join(["python", "benchmarks/anchors.py", *sys.argv[1:]]),
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "versions": {name: version(name) for name in ("torch", "numpy", "gymnasium")},
                "settings": ANCHORS[task].settings.model_dump(mode="json"),
            }
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print({k: v for k, v in line.items() if k not in ("settings", "command")}, flush=True)


if __name__ == "__main__":
    main()
