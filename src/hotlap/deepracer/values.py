"""Checks of the values in DeepRacer's files; every complaint names file and key.

A check takes where the value stands and the value, and returns it as what it means.

Raises:
    ConfigError: from each of them, with what is allowed and what was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hotlap.deepracer.documents import brief, near
from hotlap.deepracer.metadata import number
from hotlap.errors import ConfigError

__all__ = ["choice", "finite", "integer", "truth", "within"]


def within(
    low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> Callable[[str, Any], float]:
    """Return a check that a value is a number between two bounds."""

    def check(at: str, value: Any) -> float:
        given = number(value)
        inside = low <= given <= high
        if not inside or (open_low and given == low) or (open_high and given == high):
            first = f"more than {low:g}" if open_low else f"{low:g}"
            bounds = f"{first} to {'less than ' if open_high else ''}{high:g}"
            raise ConfigError(f"{at}: must be {bounds} (got {brief(value)})")
        return given

    return check


def finite(at: str, value: Any) -> float:
    """Return any number."""
    given = number(value)
    if not math.isfinite(given):
        raise ConfigError(f"{at}: must be a number (got {brief(value)})")
    return given


def integer(at: str, value: Any) -> int:
    """Return a whole number of at least 1."""
    given = within(1, 2**31)(at, value)
    if given != int(given):
        raise ConfigError(f"{at}: must be a whole number (got {brief(value)})")
    return int(given)


def truth(at: str, value: Any) -> bool:
    """Return a truth value, written in any of the usual ways."""
    word = str(value).strip().lower()
    if word not in ("true", "false", "yes", "no", "1", "0", "t", "f", "y", "n"):
        raise ConfigError(f"{at}: must be True or False (got {brief(value)})")
    return word in ("true", "yes", "1", "t", "y")


def choice(known: Mapping[str, str]) -> Callable[[str, Any], str]:
    """Return a check that a word is known; it answers with our word for it."""

    def check(at: str, value: Any) -> str:
        word = str(value).strip().lower()
        if word not in known:
            guess = near(word, known)
            raise ConfigError(f"{at}: choose from {', '.join(known)} (got {brief(value)}){guess}")
        return known[word]

    return check
