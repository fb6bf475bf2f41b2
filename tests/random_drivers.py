"""Drivers whose weights are drawn at random, in runs of their own: what a file of them is worth."""

from pathlib import Path

import numpy as np

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.plans import make_plan
from hotlap.config import resolve, to_toml
from hotlap.env.drivers import env_settings
from hotlap.plan import TrainConfig
from hotlap.runs import Run
from hotlap.tasks.actions import Actions

STATE = 27
FIVE = {"actions.kind": "list", "actions.list": [[a, 1.0] for a in (-30, -15, 0, 15, 30)]}
CAR = {"observation.actor": ["camera"], "algorithm.network.cnn": "deepracer_shallow"}
STEREO = {**CAR, "observation.camera.stereo_baseline": 0.06}
LIDAR = {**CAR, "observation.actor": ["camera", "lidar"], "observation.lidar.kind": "deepracer"}


def specs(config):
    """Return what each sensor gives one row."""
    seen = config.observation
    shapes = {
        "state": (STATE,), "lidar": (seen.lidar.size,), "color_bands": (1, 4, 9), "imu": (6,),
        "camera": seen.camera.shape, "depth": (*seen.camera.shape[:2], 1),
    }  # fmt: skip
    return {
        name: ObservationSpec(shape, "uint8" if name == "camera" else "float32")
        for name, shape in shapes.items()
    }


def random_run(path: Path, settings, *, extra=None, outputs=None) -> Path:
    """Write a run with a driver of random weights.

    Args:
        path: of the run.
        settings: of the training.
        extra: what the policy's description says beside plan and action; and `plan` changes of it.
        outputs: width of the head; one for each number of an action if None.
    """
    config = resolve(TrainConfig, {"track": "oval"}, settings)
    actions, network = Actions(config.actions), config.algorithm.network
    remembers = actions.size if network.memory or network.previous_action else None
    plan = make_plan(
        network, specs(config), config.observation.actor, outputs or actions.size, actions=remembers
    )
    extra = dict(extra or {})
    plan = plan.model_copy(update=extra.pop("plan", {}))
    rng = np.random.default_rng(len(path.name))
    arrays = {}
    for name, shape in plan.shapes().items():
        size = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        arrays[name] = rng.normal(0, size, shape).astype(np.float32)
    for name, size in plan.vectors.items():
        arrays[f"normalizer.{name}.mean"] = rng.normal(0, 1, size).astype(np.float32)
        arrays[f"normalizer.{name}.std"] = rng.uniform(0.1, 2, size).astype(np.float32)
    if not actions.discrete and extra.get("squash") != "sample":
        arrays["log_std"] = np.full(actions.size, -1, np.float32)
    kind = "discrete" if actions.discrete else "continuous"
    description = {"format": 1, "plan": plan.model_dump(mode="json"), "action": kind, **extra}
    with Run.create(path, to_toml(config), {"seed": 0}) as run:
        run.write_checkpoint(1, policy=(description, arrays), state=({}, {}), best=True)
    return path


def frames(path: Path, rows=6):
    """Return observations that differ in brightness, for all that a run's driver may read."""
    settings = env_settings(Run.open(path))
    rng = np.random.default_rng(7)
    found = {}
    for name in settings.observation.actor:
        spec = specs(settings)[name]
        if spec.dtype == "uint8":
            bright = np.linspace(40, 255, rows)[:, None, None, None]
            found[name] = (rng.uniform(0, 1, (rows, *spec.shape)) * bright).astype(np.uint8)
        else:
            found[name] = rng.normal(0, 2, (rows, *spec.shape)).astype(np.float32)
    return found
