"""The command `hotlap export`: drivers for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hotlap.console import show
from hotlap.errors import ConfigError

__all__ = ["export_command"]


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT", help="onnx, tflite, or deepracer: the model.tar.gz of the car."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; NAME.onnx, NAME.tflite or NAME.tar.gz if not given."),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Which driver: best or last.")] = "best",
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON", help="Interpreter that has TensorFlow, for tflite; this one if not."
        ),
    ] = None,
) -> None:
    """Write a run's driver as a file that other programs, or the car, drive with."""
    from hotlap.export import ENDINGS, export

    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint: choose from best, last (got {checkpoint})")
    if to not in ENDINGS:
        raise ConfigError(f"--to: choose from {', '.join(ENDINGS)} (got {to})")
    if python is not None and to != "tflite":
        raise ConfigError(f"--python: only --to tflite needs TensorFlow (got --to {to})")
    file = export(run, to, out=out, checkpoint=checkpoint, python=python)  # type: ignore[arg-type]
    show(f"model: {file}")
