"""The commands `hotlap export` and `hotlap import`: drivers for others, and DeepRacer's for us."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hotlap.commands.console import say, show
from hotlap.errors import ConfigError

__all__ = ["export_command", "import_command"]


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory or URL of a run.")],
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


def import_command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="model.tar.gz, a .pb file, a checkpoint, or a folder that holds one of them.",
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the run, such as track=oval."),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Track by name or file; several with commas.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory or URL of the new run.")] = None,
) -> None:
    """Make a run of a model that DeepRacer trained, to evaluate it, or to train on from it."""
    from hotlap.config import overrides
    from hotlap.old_models import import_model

    given = overrides(words or [])
    if track is not None:
        given["track"] = track
    run = import_model(model, out, given)
    for event in run.events():
        for note in event.get("notes", ()):
            say(note)
    say(f"to train on with your own reward: hotlap train FOLDER --from {run.place}")
    show(f"run: {run.place}")
