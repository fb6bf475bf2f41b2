"""A driver as a TFLite file. TensorFlow converts it, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hotlap.errors import ConfigError, MissingExtraError, RunError
from hotlap.export.car import Frozen

__all__ = ["tflite_model"]

_SECONDS = 300


def tflite_model(frozen: Frozen, python: str | Path | None = None) -> bytes:
    """Convert a frozen graph: one row, float32 as it is. Costs about ten seconds.

    Args:
        frozen: the graph.
        python: an interpreter that has TensorFlow; this one if None.

    Raises:
        MissingExtraError: this interpreter has no TensorFlow.
        ConfigError: `python` is no interpreter, or has no TensorFlow.
        RunError: TensorFlow cannot convert the graph.
    """
    if python is None and importlib.util.find_spec("tensorflow") is None:
        error = MissingExtraError("hotlap export --to tflite", "TensorFlow", "tensorflow")
        error.add_note("Or name an interpreter that has it: --python PATH")
        raise error
    chosen = str(python or sys.executable)
    script = Path(__file__).with_name("convert.py")
    with tempfile.TemporaryDirectory() as folder:
        graph, out = Path(folder, "model.pb"), Path(folder, "model.tflite")
        graph.write_bytes(frozen.graph)
        shapes = json.dumps({name: [1, *shape] for name, shape in frozen.inputs.items()})
        words = [chosen, "-I", str(script), str(graph), str(out), shapes, frozen.output]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS)
        except OSError as error:
            raise ConfigError(
                f"--python: {chosen} cannot be run ({error.strerror}); give the path of a Python "
                "interpreter that has TensorFlow"
            ) from None
        except subprocess.TimeoutExpired:
            raise RunError(
                f"TensorFlow did not convert the graph within {_SECONDS} s; try again, or take "
                "--to deepracer: the car converts it itself"
            ) from None
        if done.returncode == 3:
            raise ConfigError(
                f"--python: {chosen} has no TensorFlow; install it there with: "
                f"{chosen} -m pip install tensorflow"
            )
        if done.returncode or not out.is_file():
            said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise RunError(f"TensorFlow could not convert the graph: {said[0]}")
        return out.read_bytes()
