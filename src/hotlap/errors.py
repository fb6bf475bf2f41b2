"""What can go wrong, by name: every error says what was given, what is allowed, what to do.

The command line prints the message of a `HotlapError` and nothing else, and exits with its
`exit_code`. Anything that reaches the user as another exception is a defect of ours.
"""

from __future__ import annotations

__all__ = [
    "ClusterError",
    "ConfigError",
    "DivergedError",
    "HotlapError",
    "MissingExtraError",
    "MissingFieldError",
    "RewardError",
    "RunError",
    "SimulationError",
    "TrackError",
]


class HotlapError(Exception):
    """The base of every error that hotlap raises on purpose."""

    exit_code = 2
    """2: the command line or a file it names is wrong. 1: the run itself failed."""


class ConfigError(HotlapError, ValueError):
    """A setting is unknown, has the wrong type or lies outside its range."""


class TrackError(HotlapError, ValueError):
    """A track file or array does not describe a drivable course."""


class RewardError(HotlapError, ValueError):
    """A reward function is missing, has the wrong signature, raises or returns no finite number."""


class RunError(HotlapError, ValueError):
    """A directory is not a Run, or a Run lacks what was asked of it."""


class MissingFieldError(HotlapError, ValueError):
    """A task reads something that the simulator does not provide."""


class MissingExtraError(HotlapError, ImportError):
    """A verb needs an optional dependency; the message names the exact install line."""

    def __init__(self, verb: str, package: str, extra: str) -> None:
        super().__init__(
            f"{verb} needs {package}, which is not installed. "
            f"Install it with: pip install 'hotlap[{extra}]'"
        )


class ClusterError(HotlapError, ConnectionError):
    """A cluster cannot be reached or joined, its nodes differ, or it has too little room."""


class SimulationError(HotlapError, RuntimeError):
    """The world produced a state that cannot be, such as NaN; the run has failed."""

    exit_code = 1


class DivergedError(SimulationError):
    """Learning went astray: what a gradient step would have to follow is no number."""
