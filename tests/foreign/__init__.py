"""Other people's programs, each in an environment of its own: what they read proves our files."""

from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / ".foreign"


def python_of(name: str) -> Path:
    """Return the interpreter that has NAME of `tests/foreign/NAME.txt`, or skip the test."""
    python = PLACE / name / "bin" / "python"
    if not (PLACE / name / "installed").exists():
        pytest.skip(f"{name} is not installed: run `make foreign`")
    return python
