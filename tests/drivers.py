"""Drivers made by hand, and the runs they are kept in: no training is needed to test a race.

And who gives a command: a whole one, in this process.
"""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np

from hotlap import cli
from hotlap.config import resolve, to_toml
from hotlap.crew import Driver
from hotlap.env.drivers import driver_task
from hotlap.plan import TrainConfig
from hotlap.runs import Run

N, SIN_HEADING, CURVATURE = 5, 6, 10  # of the state observation
HALF = np.radians(30)  # of the steering range

LOGGED = {
    "actions.kind": "list",
    "actions.list": [[-30.0, 1.0], [0.0, 1.0], [30.0, 1.0]],
    "algorithm.network.mlp": [8],
    "rules.laps": 1,
    "train.cars": 4,
    "train.seconds": 0,
    "train.steps": 1600,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
    "log.episodes": 5,
}
"""A short training whose logs have several iterations."""


def follower(speed, *, lane=0.0, settings=None):
    """Return description and arrays of a driver that follows a line beside the centre.

    A linear policy: steering = -1.5 (n - lane) - 1.2 sin(heading error) + 0.24 curvature [rad].
    """
    settings = resolve(TrainConfig, settings or {})
    size = 11 + 16 + (4 * settings.observation.state.objects if settings.shared else 0)
    low, high = settings.actions.speed_low, settings.actions.speed_high
    weight, bias = np.zeros((2, size), np.float32), np.zeros(2, np.float32)
    weight[0, [N, SIN_HEADING, CURVATURE]] = np.array([-1.5, -1.2, 0.24]) / HALF
    bias[:] = 1.5 * lane / HALF, 2 * (speed - low) / (high - low) - 1
    plan = {
        "images": {},
        "vectors": {"state": size},
        "hidden": [],
        "activation": "tanh",
        "outputs": 2,
    }
    arrays = {
        "head.weight": weight,
        "head.bias": bias,
        "log_std": np.full(2, -1, np.float32),
        "normalizer.state.mean": np.zeros(size, np.float32),
        "normalizer.state.std": np.ones(size, np.float32),
    }
    return {"format": 1, "plan": plan, "action": "continuous"}, arrays


def driver(name, speed, *, lane=0.0, settings=None) -> Driver:
    task = driver_task(resolve(TrainConfig, settings or {}))
    return Driver(name, task, *follower(speed, lane=lane, settings=settings))


def saved(path: Path, speed, *, lane=0.0, settings=None) -> Path:
    """Write a run whose driver follows a line."""
    config = resolve(TrainConfig, {"track": "oval"}, settings or {})
    with Run.create(path, to_toml(config), {"seed": 0}) as run:
        policy = follower(speed, lane=lane, settings=settings)
        run.write_checkpoint(1, policy=policy, state=({}, {}), best=True)
    return path


def command(*words) -> tuple[int, str, str]:
    """Run a whole command in this process; return status, output and what was said."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["hotlap", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return end.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
