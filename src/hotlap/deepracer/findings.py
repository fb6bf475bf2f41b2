"""Findings: the settings that a folder's files come to, and a sentence for every name in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hotlap.deepracer.documents import near

__all__ = ["Check", "Findings", "Meaning"]

Check: TypeAlias = Callable[[str, Any], Any]
"""Takes where a value stands and the value; returns what it means, or raises a ConfigError."""


@dataclass(frozen=True)
class Meaning:
    """What a name of DeepRacer's is here: settings of ours with its value, or nothing and why."""

    settings: tuple[str, ...]
    check: Check | None = None
    why: str = ""

    @classmethod
    def nothing(cls, why: str) -> Meaning:
        """Return the meaning of a name without effect."""
        return cls((), None, why)


@dataclass
class Findings:
    """Collects settings by dotted name and what is to be said; filled by who reads a file."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Of the notes those that ask whether a name is misspelt."""

    def note(self, text: str) -> None:
        """Say something."""
        self.notes.append(text)

    def apply(self, said: str, settings: Mapping[str, Any]) -> None:
        """Take settings, and say what they come from."""
        self.settings |= settings
        self.note(f"{said}: {self.shown(*settings)}")

    def nothing(self, said: str, why: str) -> None:
        """Say that something has no effect."""
        self.note(f"{said} has no effect: {why}")

    def unknown(self, said: str, name: str, known: Iterable[str]) -> None:
        """Say that a name is not known, and which one may have been meant."""
        guess = near(name, known)
        self.nothing(said, f"it is not known{guess}")
        if guess:
            self.doubts.append(self.notes.pop())

    def shown(self, *names: str) -> str:
        """Return settings as they are said."""
        return ", ".join(f"{name} = {json.dumps(self.settings[name])}" for name in names)
