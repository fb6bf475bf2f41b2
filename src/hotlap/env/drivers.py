"""Drivers of Runs, with the task that they were trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from hotlap.config import read_toml, resolve
from hotlap.crew import Driver
from hotlap.env.settings import EnvSettings, check_walls, plain_actions
from hotlap.errors import ConfigError
from hotlap.runs import Run
from hotlap.vehicle import load_vehicle

__all__ = ["check_opponent", "driver_task", "env_settings", "load_driver"]


def driver_task(settings: EnvSettings) -> dict[str, Any]:
    """Return what a driver needs to drive elsewhere as it was trained, ready for JSON.

    It resolves to an EnvSettings: observation, actions, car and rate; files are read into it.
    """
    observation = settings.observation.model_dump(mode="json", exclude_none=True)
    return {
        "control_rate": settings.control_rate,
        "vehicle": settings.vehicle,
        "actions": plain_actions(settings.actions).model_dump(mode="json"),
        "observation": observation | {"critic": observation["actor"]},
        "look": settings.look.model_dump(mode="json"),
        "traffic": {"cars": 2 if settings.shared else 1},
    }


def env_settings(run: Run) -> EnvSettings:
    """Rebuild the environment's settings of a run.

    Raises:
        ConfigError: the run's config.toml does not describe an environment.
    """
    tree = read_toml(run.path / "config.toml")
    return resolve(EnvSettings, {k: v for k, v in tree.items() if k in EnvSettings.model_fields})


def load_driver(path: str | Path, checkpoint: Literal["best", "last"] = "best") -> Driver:
    """Load the driver of a run, with the task that it was trained for.

    Raises:
        RunError: this is not a Run, or it has no checkpoint yet.
    """
    run = Run.open(path)
    return Driver(run.name, driver_task(env_settings(run)), *run.read_policy(checkpoint))


def check_opponent(name: str, driver: Driver, settings: EnvSettings) -> None:
    """Refuse a saved driver that cannot drive in a training's world."""
    if driver.task["control_rate"] != settings.control_rate:
        raise ConfigError(
            f"opponents.drivers: {name} acts {driver.task['control_rate']:g} times a second and "
            f"this training {settings.control_rate:g}; choose another driver or control_rate"
        )
    if load_vehicle(driver.task["vehicle"]) != load_vehicle(settings.vehicle):
        raise ConfigError(
            f"opponents.drivers: {name} drives {driver.task['vehicle']} and this training "
            f"{settings.vehicle}; a training has one kind of car (hotlap race has several)"
        )
    try:
        check_walls(resolve(EnvSettings, driver.task, {"look": settings.look}))
    except ConfigError as error:
        raise ConfigError(f"opponents.drivers: {name} cannot drive here: {error}") from None
