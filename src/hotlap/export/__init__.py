"""Export: a run's driver as a file that others drive with: ONNX, TFLite, DeepRacer's car."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from hotlap.config import resolve
from hotlap.env import EnvSettings
from hotlap.env.drivers import load_driver
from hotlap.errors import ConfigError
from hotlap.export.car import car_model, free_graph
from hotlap.export.layers import Network
from hotlap.export.onnx_graph import onnx_model
from hotlap.export.tflite import tflite_model
from hotlap.files import explained, replace
from hotlap.tasks.actions import Actions, ContinuousActions, GridActions, ListActions
from hotlap.types import Array, Float32

__all__ = ["ENDINGS", "Format", "export"]

Format: TypeAlias = Literal["onnx", "tflite", "deepracer"]
ENDINGS: dict[str, str] = {"onnx": ".onnx", "tflite": ".tflite", "deepracer": ".tar.gz"}
"""What a file of each format is called at its end."""
_BYTES = ("camera", "segmentation")
"""Observations that are uint8; the others are float32."""


def export(
    run: str | Path,
    to: Format,
    *,
    out: str | Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    python: str | Path | None = None,
) -> Path:
    """Write a run's driver as a file for other programs.

    `onnx` takes any driver. Inputs are its observations by name, as the environment gives them, and
    `memory` of a driver that has one; outputs are `action`, what `policy.act` returns, `command`,
    (N, 2) steering [rad, positive left] and speed [m/s], and `memory_next`. `deepracer` is the
    `model.tar.gz` that the car loads: a frozen TensorFlow graph and `model_metadata.json`; `tflite`
    the same network as the car's own software would convert it. A driver that the car could not
    feed becomes a TFLite file whose inputs have the names of its observations.

    Args:
        run: directory of the run.
        to: the format.
        out: the file; NAME.onnx, NAME.tflite or NAME.tar.gz in the working directory if None, of
            the run's name.
        checkpoint: which driver.
        python: an interpreter that has TensorFlow, for `tflite`; this one if None.

    Returns:
        The file.

    Raises:
        ConfigError: the format cannot hold this driver, or `out` has another ending.
        RunError: this is not a Run, or it has no such checkpoint.
        MissingExtraError: a package that the format needs is not installed.
    """
    if to not in ENDINGS:
        raise ConfigError(f"--to: choose from {', '.join(ENDINGS)} (got {to})")
    driver = load_driver(run, checkpoint)
    path = Path(f"{driver.name}{ENDINGS[to]}") if out is None else Path(out)
    if not path.name.endswith(ENDINGS[to]):
        raise ConfigError(f"--out: end its name in {ENDINGS[to]} (got {path})")
    if not path.parent.is_dir():
        raise ConfigError(f"--out: {path.parent} is no folder; make it first")
    network = Network.read(driver.description, driver.arrays)
    settings = resolve(EnvSettings, driver.task)
    write: dict[str, Callable[[], bytes]] = {
        "onnx": lambda: onnx_model(
            network,
            _BYTES,
            _commands(settings),
            {"hotlap.run": driver.name, "hotlap.driver": driver.fingerprint},
        ),
        "tflite": lambda: tflite_model(free_graph(network, settings), python),
        "deepracer": lambda: car_model(network, settings),
    }
    content = write[to]()
    with explained(path):
        replace(path, content)
    return path


def _commands(settings: EnvSettings) -> Float32:
    """Return what actions mean; see `onnx_model`."""
    plain = settings.actions
    assert isinstance(plain, ContinuousActions | GridActions | ListActions)  # see driver_task
    actions = Actions(plain)
    asked: Array = (
        np.arange(actions.size) if actions.discrete else np.array([[0, 0], [1, 1]], np.float32)
    )
    found = actions.decode(asked)
    commands = np.stack([found.steering, found.speed], axis=1)
    if not actions.discrete:
        commands[1] -= commands[0]
    return np.asarray(commands, np.float32)
