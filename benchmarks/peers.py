"""Other libraries' PPO and SAC beside ours, in our environment, at equal settings and budget.

    python benchmarks/peers.py [--algorithms ppo sac] [--seeds 0 1 2 3 4] [--steps N]

The others are Stable-Baselines3 and TorchRL (`pip install torchrl`), which is left out where it is
not installed.

All train in `hotlap/TimeTrial-v0`, 16 cars at once through its vector entry point, for the same
steps, with the same networks, step sizes, minibatches, discounts and scaling of what is seen and
paid, on one thread. What they do otherwise is theirs: first weights, clipping of gradients apart or
together, the loss of the value, the first temperature; SAC's actors are rectified, ours is of
hyperbolic tangents. Time is that of learning alone, without
imports. Afterwards each drives greedily from the same 20 starts, three laps from each: the mean
return, and the share that finished. Appends one JSON line a library, algorithm and seed to
benchmarks/results/peers.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.settings import NetworkSettings, PPOSettings, SACSettings
from hotlap.bench import append
from hotlap.env import VectorEnv
from hotlap.evaluate import evaluate_policy, evaluation_env
from hotlap.kernels import compile_for
from hotlap.machine import machine, stamp
from hotlap.population import spread
from hotlap.runner import Runner, action_spec, observation_specs

try:
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize
except ImportError:
    sys.exit("Stable-Baselines3 is not installed: pip install -e '.[train,dev]'")

RESULTS = Path(__file__).parent / "results" / "peers.jsonl"
CARS = 16
TRIALS = 20
STEPS = {"ppo": 200_000, "sac": 30_000}
OURS = {
    "ppo": PPOSettings(
        horizon=64, epochs=4, minibatch=256, learning_rate=1e-3, schedule="constant", gamma=0.95,
        lam=0.95, clip=0.2, entropy=0.0, max_grad_norm=0.5, initial_std=0.5,
        network=NetworkSettings(mlp=(64, 64)), threads=1,
    ),
    "sac": SACSettings(
        horizon=4, update_ratio=0.25, minibatch=128, warmup=320, capacity=100_000, n_step=1,
        gamma=0.95, tau=0.01, learning_rate=1e-3, critic_learning_rate=1e-3, layer_norm=False,
        network=NetworkSettings(mlp=(64, 64)),
    ),
}  # fmt: skip

Act = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def cars(seed: int) -> VectorEnv:
    """Return the environment in which all learn."""
    made = gymnasium.make_vec(
        "hotlap/TimeTrial-v0",
        CARS,
        vectorization_mode="vector_entry_point",
        track="reinvent_like",
        seed=seed,
        **{"rules.time_limit": 20.0},
    )
    env = made.unwrapped
    assert isinstance(env, VectorEnv)
    return env


class Copies(VecEnv):
    """Our rows as Stable-Baselines3 wants them."""

    render_mode = None

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._env = env

    def reset(self) -> np.ndarray:
        return self._env.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        seen, reward, terminated, truncated, info = self._env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated | truncated):
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return seen, reward, terminated | truncated, infos

    def close(self) -> None:
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self._env, attr_name, value)  # all rows have it in common

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **named: Any) -> Any:
        found = getattr(self._env, method_name)(*args, **named)
        return [found] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def ours(algorithm: str, seed: int, steps: int) -> tuple[Act, float]:
    """Train ours; return the greedy driver and the seconds that it took."""
    env, settings = cars(seed), OURS[algorithm]
    see = ("state",)
    learner = make_learner(
        settings, observation_specs(env), action_spec(env), see, see, seed=seed, device="cpu"
    )
    runner = Runner(env, seed=seed)
    begun, batch = time.perf_counter(), settings.horizon * CARS
    for done in range(0, steps, batch):
        experience, _ = runner.collect(learner, settings.horizon)
        learner.update(experience, progress=done / steps)
    return learner.greedy, time.perf_counter() - begun


def theirs(algorithm: str, seed: int, steps: int) -> tuple[Act, float]:
    """Train Stable-Baselines3's; return the greedy driver and the seconds that it took."""
    mine = OURS[algorithm]
    env = VecNormalize(Copies(cars(seed)), gamma=mine.gamma)
    same: dict[str, Any] = {
        "learning_rate": mine.learning_rate, "batch_size": mine.minibatch, "gamma": mine.gamma,
        "seed": seed, "device": "cpu",
    }  # fmt: skip
    layers = list(mine.network.mlp)
    model: PPO | SAC
    if isinstance(mine, PPOSettings):
        model = PPO(
            "MlpPolicy", env, **same,
            n_steps=mine.horizon, n_epochs=mine.epochs, gae_lambda=mine.lam, clip_range=mine.clip,
            ent_coef=mine.entropy, max_grad_norm=mine.max_grad_norm,
            policy_kwargs={"net_arch": layers, "log_std_init": float(np.log(mine.initial_std))},
        )  # fmt: skip
    else:
        model = SAC(
            "MlpPolicy", env, **same,
            buffer_size=mine.capacity, learning_starts=mine.warmup, tau=mine.tau,
            train_freq=mine.horizon, policy_kwargs={"net_arch": layers},
            gradient_steps=int(mine.horizon * CARS * mine.update_ratio),
        )  # fmt: skip
    begun = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - begun
    env.training = False

    def act(seen: Mapping[str, np.ndarray]) -> np.ndarray:
        answer, _ = model.predict(env.normalize_obs(seen["state"]), deterministic=True)
        return np.asarray(answer, np.float32)

    return act, seconds


def torchrl(algorithm: str, seed: int, steps: int) -> tuple[Act, float]:
    """Train TorchRL's; return the greedy driver and the seconds that it took."""
    from peer_torchrl import train

    return train(cars(seed), OURS[algorithm], seed, steps)


LIBRARIES = {"hotlap": ours, "stable-baselines3": theirs}
if find_spec("torchrl"):
    LIBRARIES["torchrl"] = torchrl


def measure(library: str, algorithm: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one seed and let it drive."""
    act, seconds = LIBRARIES[library](algorithm, seed, steps)
    settings = cars(0).settings
    env = evaluation_env(settings, trials=TRIALS, laps=settings.rules.laps, rewarded=True)
    report = evaluate_policy(env, act, rewarded=True)
    return {
        "return_mean": round(report.mean_reward or 0.0, 3),
        "completion": report.completion,
        "mean_lap_s": report.mean_lap_s,
        "train_seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of each training; 200,000 of PPO, 30,000 of SAC")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    if asked.steps is not None and asked.steps < 1:
        parser.error("--steps: give at least 1")
    if "torchrl" not in LIBRARIES:
        print("TorchRL is not installed and left out: pip install torchrl")
    torch.set_num_threads(1)
    compile_for(cars(0).settings)
    facts = {k: v for k, v in machine().items() if k != "kernels"}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for algorithm in asked.algorithms:
        steps = asked.steps or STEPS[algorithm]
        for seed in asked.seeds:
            for library in LIBRARIES:  # in turns, so that a machine that slows down slows all
                row = measure(library, algorithm, seed, steps)
                found.setdefault((algorithm, library), []).append(row)
                about = {"kind": "peers", "library": library, "algorithm": algorithm, "seed": seed}
                line = about | {"steps": steps, "cars": CARS} | row
                line |= {
                    "version": version(library),
                    "settings": OURS[algorithm].model_dump(mode="json"),
                }
                line |= {**stamp(), "machine": facts, "command": " ".join(sys.argv)}
                append(asked.out, line)
                print(about | row, flush=True)
    titles = (
        f"{'return':>8}  {'95 % of its middle':>18}{'completion':>12}{'lap s':>8}{'seconds':>9}"
    )
    print(" " * 24 + titles)
    for (algorithm, library), rows in found.items():
        returns = spread([row["return_mean"] for row in rows])
        low, high = returns.interval
        done, seconds = (
            float(np.median([row[name] for row in rows]))
            for name in ("completion", "train_seconds")
        )
        laps = [row["mean_lap_s"] for row in rows if row["mean_lap_s"] is not None]
        lap = f"{np.median(laps):.2f}" if laps else "-"
        print(
            f"{library + ' ' + algorithm:<24}{returns.iqm:>8.2f}  {f'{low:.2f} - {high:.2f}':>18}"
            f"{done:>12.0%}{lap:>8}{seconds:>9.1f}"
        )


if __name__ == "__main__":
    main()
