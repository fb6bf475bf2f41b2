"""Calibration: what workers, learner and server of a training cost here, and the file of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hotlap.distributed.sizing import Link, Share, Work
from hotlap.errors import ConfigError
from hotlap.files import explained, replace
from hotlap.plan import TrainConfig

__all__ = ["Calibration", "as_measured", "chosen", "read", "write"]

_FORMAT = 2
_FREE = ("workers", "address", "share", "staleness")
"""Of `distributed`: what a measurement does not depend on."""


@dataclass(frozen=True)
class Calibration:
    """What was measured, and where."""

    format: int
    made: str
    """When: ISO 8601."""
    machine: str
    cores: int
    """That the machine has for us."""
    settings: dict[str, Any]
    """Of the training, as far as they matter."""
    each: int
    """Cars of every worker; 0: `train.cars` are shared out."""
    threads: int
    """Cores of a worker."""
    link: Link
    crowding: float
    """How much longer work takes where all cores work."""
    spread: float
    """Of the time of a round, as a share of it."""
    server: int
    """Bytes of the server's process,"""
    learner: int
    """and of the one that started it."""
    works: dict[Share, dict[int, Work]]
    refused: dict[str, str]
    """By `share at workers`: why not."""

    @property
    def age(self) -> str:
        """How long ago it was made."""
        then = datetime.fromisoformat(self.made)
        seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
        for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
            if seconds >= length:
                count = int(seconds / length)
                return f"{count} {unit}{'s' if count > 1 else ''} old"
        return "just made"


def as_measured(config: TrainConfig, each: int) -> dict[str, Any]:
    """Return the settings that decide what is measured."""
    words: dict[str, Any] = config.model_dump(mode="json", exclude_none=True)
    for name in ("seed", "evaluation", "log"):
        words.pop(name)
    words["train"] = {k: words["train"][k] for k in ("cars", "device")}
    if each:
        words["train"].pop("cars")
    words["distributed"] = {k: v for k, v in words["distributed"].items() if k not in _FREE}
    return words


def write(path: Path, found: Calibration) -> None:
    """Write a calibration, whole or not at all."""
    with explained(path, "--calibration"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(asdict(found), indent=1).encode())


def read(path: Path, config: TrainConfig, each: int) -> Calibration:
    """Read a calibration of this training.

    Raises:
        ConfigError: the file is none, or of another training.
    """
    advice = "Name another file, or delete this one to measure anew"
    with explained(path, "--calibration"):
        text = path.read_bytes()
    try:
        found = TypeAdapter(Calibration).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"--calibration: {path} holds no calibration ({where + ': ' if where else ''}"
            f"{first['msg']}). {advice}"
        ) from None
    if found.format != _FORMAT:
        raise ConfigError(
            f"--calibration: {path} has format {found.format}, and this hotlap reads {_FORMAT}. "
            f"{advice}"
        )
    if found.each != each:
        said = f"{found.each} cars of each worker" if found.each else "train.cars shared out"
        raise ConfigError(f"--calibration: {path} was made with {said} (--cars-each). {advice}")
    if other := _other(found.settings, as_measured(config, each)):
        raise ConfigError(
            f"--calibration: {path} was made with another {', '.join(other[:4])}"
            f"{' and more' if len(other) > 4 else ''}. {advice}"
        )
    return found


def chosen(
    found: Calibration, shares: Sequence[Share], sizes: Sequence[int], path: Path
) -> Calibration:
    """Return what a calibration has of some ways and sizes.

    Raises:
        ConfigError: some of them were not measured.
    """
    asked = [(share, n) for share in shares for n in sizes]
    lacking = [
        f"{share} at {n}"
        for share, n in asked
        if n not in found.works.get(share, {}) and f"{share} at {n}" not in found.refused
    ]
    if lacking:
        raise ConfigError(
            f"--calibration: {path} has no measurements of {', '.join(lacking[:3])}"
            f"{' and more' if len(lacking) > 3 else ''}. Ask for what it has "
            f"({_said(found)}), or name another file to measure anew"
        )
    works = {
        share: {n: work for n, work in found.works.get(share, {}).items() if n in sizes}
        for share in shares
    }
    works = {share: by_size for share, by_size in works.items() if by_size}
    refused = {k: v for k, v in found.refused.items() if k in {f"{s} at {n}" for s, n in asked}}
    if not works:
        raise ConfigError(next(iter(refused.values())))
    return changed(found, works=works, refused=refused)


def _said(found: Calibration) -> str:
    return "; ".join(
        f"{share} at {', '.join(map(str, by_size))}" for share, by_size in found.works.items()
    )


def _other(one: Mapping[str, Any], two: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the names of settings that differ."""
    found = []
    for name in dict.fromkeys([*one, *two]):
        a, b = one.get(name), two.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _other(a, b, f"{above}{name}.")
        elif a != b:
            found.append(above + name)
    return found
