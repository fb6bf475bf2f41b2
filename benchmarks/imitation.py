"""A student that drives itself while it learns, and one that only watches its teacher drive.

    python benchmarks/imitation.py [CONFIG.toml] [--frames 2048 4096 8192 16384] [--seeds 0 1 2]

For each seed one teacher learns as `algorithm=distill` has it. Then two students learn from it,
from the same beginning and with the same minibatches for each frame: `dagger` as the configuration
has it, and `cloning`, which sees the teacher's own drives alone (no `handover`, `noisy=0`). After
so many frames each drives greedily from 20 starts: the share that finished the laps of
`evaluation`, and how far they came. Appends one JSON line a student, seed and number of frames to
benchmarks/results/imitation.jsonl.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.algorithms.distill import Distill
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.settings import DistillSettings
from hotlap.bench import append
from hotlap.env import VectorEnv
from hotlap.errors import HotlapError
from hotlap.evaluate import evaluate_policy, evaluation_env
from hotlap.kernels import compile_for
from hotlap.machine import machine, stamp
from hotlap.plan import TrainConfig, read_config
from hotlap.runner import Runner, action_spec, observation_specs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "imitation.jsonl"
TRIALS = 20
NEVER = 1_000_000_000
"""Steps after which a student that only watches would drive."""
STUDENTS: dict[str, dict[str, Any]] = {
    "dagger": {"finetune": 0},
    "cloning": {"finetune": 0, "handover": NEVER, "noisy": 0.0},
}


def begin(config: TrainConfig, seed: int, changes: dict[str, Any]) -> tuple[Runner, Distill]:
    """Return a learner that has not learned yet, and its cars."""
    env = VectorEnv(config, config.train.cars, seed=seed, desynchronize=True)
    settings = config.algorithm.model_copy(update=changes)
    see = config.observation
    learner = make_learner(
        settings, observation_specs(env), action_spec(env), see.actor, see.critic,
        seed=seed, device="cpu",
    )  # fmt: skip
    assert isinstance(learner, Distill)
    return Runner(env, seed=seed), learner


def collect(runner: Runner, learner: Distill) -> None:
    """Let it drive and learn as it wants next."""
    phase = learner.phase
    runner.env.margin = phase.margin
    batch, _ = runner.collect(learner, phase.steps, phase.names)
    learner.update(batch, progress=0.0)


def compare(config: TrainConfig, seed: int, frames: list[int]) -> list[dict[str, Any]]:
    """Teach both students of one teacher; return how each drove after so many frames."""
    settings = config.algorithm
    assert isinstance(settings, DistillSettings)
    runner, learner = begin(config, seed, {})
    while learner.phase.name in ("teacher", "check"):
        collect(runner, learner)
    cars, taught = runner.save(), learner.save()
    track = evaluation_env(config, trials=TRIALS, laps=config.evaluation.laps)
    found = []
    for name, changes in STUDENTS.items():
        runner, learner = begin(config, seed, changes)
        runner.restore(cars)
        learner.restore(*taught)
        seen = 0
        for wanted in sorted(frames):
            while seen < wanted:
                seen += learner.phase.steps * config.train.cars
                collect(runner, learner)
            report = evaluate_policy(track, learner.greedy)
            found.append(
                {
                    "student": name,
                    "seed": seed,
                    "frames": seen,
                    "completion": report.completion,
                    "progress": round(report.progress, 4),
                    "mean_lap_s": report.mean_lap_s,
                }
            )
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", type=Path, default=ROOT / "configs" / "distill.toml")
    parser.add_argument("--frames", type=int, nargs="+", default=[2048, 4096, 8192, 16_384])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    if min(asked.frames) < 1:
        parser.error("--frames: give at least 1")
    try:
        config = read_config(asked.config).config
    except HotlapError as error:
        parser.error(str(error))
    if not isinstance(config.algorithm, DistillSettings):
        parser.error(
            f"{asked.config}: its algorithm is {config.algorithm.kind}; give one of distill"
        )
    compile_for(config)
    rows = []
    facts = {k: v for k, v in machine().items() if k != "kernels"}
    for seed in asked.seeds:
        for row in compare(config, seed, asked.frames):
            about = {"kind": "imitation", **row, **stamp(), "machine": facts}
            append(asked.out, about | {"command": " ".join(sys.argv)})
            rows.append(row)
    print(f"{'frames':<9}" + "".join(f"{name + ': finished, came':>28}" for name in STUDENTS))
    for frames in dict.fromkeys(row["frames"] for row in rows):
        cells = []
        for name in STUDENTS:
            mine = [row for row in rows if (row["frames"], row["student"]) == (frames, name)]
            share, came = (np.mean([row[k] for row in mine]) for k in ("completion", "progress"))
            cells.append(f"{share:>20.0%}{came:>8.0%}")
        print(f"{frames:<9}" + "".join(cells))


if __name__ == "__main__":
    main()
