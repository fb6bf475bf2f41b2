"""DeepRacer's conventions: its reward params and its files, read unchanged, and its engine."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["DeepRacerEngine"]


def __getattr__(name: str) -> Any:
    """Load the engine when it is used: it trains, so it stands above all that is imported here."""
    if name == "DeepRacerEngine":
        return import_module("hotlap.deepracer.engine").DeepRacerEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
