"""What the files of a Run hold: JSON without NaN, and arrays as safetensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from hotlap.errors import RunError
from hotlap.files import explained, json_lines, replace
from hotlap.types import Array

__all__ = ["document", "entries", "lines", "plain", "put", "read", "read_document", "tensors"]


def put(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; errors say which."""
    with explained(path):
        replace(path, content)


def entries(folder: Path) -> list[str]:
    """Return what lies in a folder, by name; nothing if there is none."""
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def read(path: Path) -> bytes:
    """Read a file; errors say which."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        found = json.loads(read(path))
    except ValueError as error:
        raise RunError(f"{path} is damaged: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: not a JSON object")
    return found


def document(value: Any) -> bytes:
    """Return plain values as a JSON document."""
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def plain(value: Any, *, finite: bool = False, where: str = "") -> Any:
    """Make a value JSON can hold. Where it is not `finite`, a number JSON lacks is an error."""
    if isinstance(value, Mapping):
        return {str(k): plain(v, finite=finite, where=f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), finite=finite, where=where)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(v, finite=finite, where=f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if finite:
            return None
        raise RunError(f"{where.lstrip('.')} is {value}, which JSON cannot hold: store None")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise RunError(f"{where.lstrip('.')} is a {type(value).__name__}, which JSON cannot hold")


def tensors(name: str, arrays: Mapping[str, Array]) -> bytes:
    """Return arrays as the content of a safetensors file of that name."""
    try:  # asarray, for ascontiguousarray would make a scalar a vector of one
        return save({key: np.asarray(value, order="C") for key, value in arrays.items()})
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{name}.safetensors can hold arrays of numbers and truth values only ({error})"
        ) from None


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of JSON lines, which may be missing."""
    return json_lines(read(path)) if path.exists() else iter(())
