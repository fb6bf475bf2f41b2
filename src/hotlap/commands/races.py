"""What `hotlap race` does by DeepRacer's rules: read a folder that asks for it, write its logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotlap.commands.console import say

if TYPE_CHECKING:
    from hotlap.racing.contest import Standings

__all__ = ["by_deepracers_rules", "write_logs"]

_FILES = ("run.env", "system.env", "eval_params.yaml", "eval-params.yaml", "evaluation_params.yaml")
"""One of them makes a folder DeepRacer's."""


def by_deepracers_rules(
    runs: Sequence[Path], how: dict[str, Any], asked: Sequence[str], *, deepracer: bool
) -> list[Path]:
    """Fill in the penalties of a race by DeepRacer's rules, and return whose drivers race.

    Args:
        runs: directories of runs, or one DeepRacer folder that names two models.
        how: what the race is told by name; changed. What a folder says counts where the command
            line is silent.
        asked: the options that were given on the command line.
        deepracer: whether these rules were asked for; a folder always has them.
    """
    if len(runs) == 1 and _is_folder(runs[0]):
        return _race_of_folder(runs[0], how, asked)
    if deepracer and runs:
        from hotlap.runs import Run
        from hotlap.trials import penalties_of

        how["penalties"] = penalties_of(Run.open(runs[0]))
    return list(runs)


def _is_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in _FILES) and not (path / "meta.json").is_file()


def _race_of_folder(folder: Path, how: dict[str, Any], asked: Sequence[str]) -> list[Path]:
    from hotlap.deepracer.files.head_to_model import read_head_to_model
    from hotlap.penalties import PenaltySettings

    plan = read_head_to_model(folder, track=how["track"])
    for note in plan.notes:
        say(note)
    found = {"track": plan.track, "laps": plan.laps, "trials": plan.trials}
    found |= {"checkpoint": plan.checkpoint}
    how |= {name: value for name, value in found.items() if name not in asked}
    how["penalties"] = PenaltySettings(**plan.penalties)
    return list(plan.runs)


def write_logs(runs: Sequence[Path], standings: Standings) -> None:
    """Write DeepRacer's logs of a race, and say where they are, or of whom there are none."""
    from hotlap.runs import Run
    from hotlap.simtrace import write_race

    opened = [Run.open(path) for path in runs]
    files = write_race(opened, standings)
    for file in files:
        say(f"DeepRacer's log: {file}")
    for run in dict.fromkeys(one.path for one in opened):
        if not any(run in file.parents for file in files):
            say(f"{run} keeps no logs of DeepRacer's: train with log.deepracer=true to have them")
