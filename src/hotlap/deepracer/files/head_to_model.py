"""A DeepRacer folder that asks for a race of two models, as `hotlap race FOLDER` needs it.

Source: aws-deepracer-community/deepracer-for-cloud, scripts/evaluation, defaults/ and
docs/head-to-head.md, and deepracer-simapp 6.0.5, bundle/markov/evaluation_worker.py, read for names
and defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hotlap.deepracer.files.documents import near
from hotlap.deepracer.files.environment import Variable, read_environment
from hotlap.deepracer.files.findings import Check, Findings
from hotlap.deepracer.files.folder import find_run
from hotlap.deepracer.files.values import choice, integer, truth, within
from hotlap.deepracer.files.variables import find_world
from hotlap.errors import ConfigError

__all__ = ["HeadToModelPlan", "read_head_to_model"]

_PREFIXES = ("LOCAL_S3_MODEL_PREFIX", "OPP_S3_MODEL_PREFIX")
_PENALTIES = {
    "MAX_RESETS": "resets",
    "NUMBER_OF_RESETS": "resets",
    "OFF_TRACK_PENALTY": "off_track",
    "COLLISION_PENALTY": "collision",
}
_SECONDS = within(0, 1000)
_WHY = (
    ("START_POS_OFFSET", "the second car starts 0.75 m behind the first, as DeepRacer assumes"),
    ("DONE_CONDITION", "a race ends when both are done"),
    ("RESET_BEHIND_DIST", "nothing stands on the road of such a race"),
    ("REVERSE_DIRECTION", "a race is driven as the track's file is, or as the first run learned"),
    ("SAVE_MP4", "say --film FILE"),
)
"""What a race does not take, and why; what is in none of the tables is not of races at all."""


@dataclass(frozen=True)
class HeadToModelPlan:
    """A race of two models."""

    runs: tuple[Path, Path]
    """The Runs of both; the first one starts in front."""
    track: str | None
    """Its name or file; None: the first run's."""
    laps: int
    """Of a race."""
    trials: int
    """How many races."""
    checkpoint: Literal["best", "last"]
    penalties: dict[str, float]
    """Settings of penalties by name."""
    notes: list[str]
    """A sentence for everything that was read."""


def read_head_to_model(path: str | Path, *, track: str | None = None) -> HeadToModelPlan:
    """Read a folder's `run.env`, `system.env` and `eval_params.yaml`. Nothing is executed.

    Args:
        path: the folder.
        track: a track that was asked for elsewhere; the folder's world is then not looked up.

    Raises:
        ConfigError: it asks for no such race, a value is not allowed, or a model has no Run; the
            message names file and line.
        TrackError: the world is not known here.
    """
    folder = Path(path).resolve()
    findings = Findings()
    given = read_environment(folder, findings, evaluation=True).variables
    found = {name: one for name, one in given.items() if not name.startswith("EVAL_")}
    found |= {n.removeprefix("EVAL_"): one for n, one in given.items() if n.startswith("EVAL_")}
    race = found.pop("RACE_TYPE", None)
    if race is None or race.text.upper() != "HEAD_TO_MODEL":
        at = f"{path}" if race is None else race.at
        what = "no DR_RACE_TYPE is given" if race is None else f"{race.text} is no race of models"
        raise ConfigError(
            f"{at}: {what}; set DR_RACE_TYPE=HEAD_TO_MODEL and the second model's "
            "DR_EVAL_OPP_S3_MODEL_PREFIX, or name the runs: hotlap race RUN RUN --deepracer"
        )
    reading = _Reading(folder, found, findings)
    runs = reading.runs(str(path))
    laps, trials = reading.length()
    penalties = reading.penalties()
    known = {"best": "best", "last": "last"}
    which = reading.take("CHECKPOINT", choice(known), "last", lambda word: f"--checkpoint {word}")
    world = found.pop("WORLD_NAME", None)
    if world is not None and world.text:
        if track is None:
            track = find_world(folder, world)
            findings.note(f"{world.said}: --track {track}")
        else:
            findings.nothing(world.said, f"the track {track} was asked for")
    reading.rest()
    return HeadToModelPlan(
        runs=runs,
        track=track,
        laps=laps,
        trials=trials,
        checkpoint="best" if which == "best" else "last",
        penalties=penalties,
        notes=[*findings.notes, *findings.doubts],
    )


def _resets(at: str, value: Any) -> int:
    return 0 if within(0, 2**31)(at, value) == 0 else integer(at, value)


class _Reading:
    """Takes variables out of `found`, and notes what became of each."""

    def __init__(self, folder: Path, found: dict[str, Variable], findings: Findings) -> None:
        self._folder, self._found, self._findings = folder, found, findings

    def take(self, name: str, check: Check, default: Any, means: Callable[[Any], str] = str) -> Any:
        """Return what a variable says, or the default where it says nothing; note what it means."""
        variable = self._found.pop(name, None)
        if variable is None or not variable.text:
            return default
        value = check(variable.at, variable.text)
        self._findings.note(f"{variable.said}: {means(value)}")
        return value

    def runs(self, path: str) -> tuple[Path, Path]:
        """Find the Runs of both models."""
        variables = [self._found.pop(name, None) for name in _PREFIXES]
        first = variables[0]
        if first is not None and ";" in first.text:  # eval_params.yaml has both in one list
            words = [word.strip() for word in first.text.split(";")]
            named = [(first, word) for word in words]
        else:
            named = [(one, one.text) for one in variables if one is not None and one.text]
        if len(named) != 2:
            raise ConfigError(
                f"{path}: DR_LOCAL_S3_MODEL_PREFIX and DR_EVAL_OPP_S3_MODEL_PREFIX name the two "
                f"models that race (got {len(named)} of them)"
            )
        runs = []
        for variable, word in named:
            run = find_run(self._folder, word)
            if run is None:
                raise ConfigError(
                    f"{variable.at}: no Run called {word} is in runs/ or beside the folder. Train "
                    "it, or if you have the model: hotlap import MODEL --out RUN; or name the "
                    "runs: hotlap race RUN RUN --deepracer"
                )
            runs.append(run)
        for (variable, word), run in zip(named, runs, strict=True):
            self._findings.note(f"{variable.file}: {variable.word} = {word}: the driver of {run}")
        return runs[0], runs[1]

    def length(self) -> tuple[int, int]:
        """Return laps and races: a race of N laps, or N races of a lap that go on one by one."""
        at_once = {True: "one race of all laps", False: "races of one lap each"}
        whole = self.take("IS_CONTINUOUS", truth, True, at_once.__getitem__)
        count = self.take(
            "NUMBER_OF_TRIALS", integer, 3, lambda n: f"--{'laps' if whole else 'trials'} {n}"
        )
        return (count, 1) if whole else (1, count)

    def penalties(self) -> dict[str, float]:
        """Return what a stumble costs: what is given, and DeepRacer's defaults."""
        costs: dict[str, float] = {"resets": 100, "off_track": 5.0, "collision": 5.0}
        for name, ours in _PENALTIES.items():

            def means(value: float, ours: str = ours) -> str:
                return f"penalties.{ours} = {value:g}"

            check = _resets if ours == "resets" else _SECONDS
            costs[ours] = self.take(name, check, costs[ours], means)
        return costs

    def rest(self) -> None:
        """Say of all that is left why it has no effect."""
        others: dict[str, list[str]] = {}
        known = [*_PREFIXES, *_PENALTIES, "NUMBER_OF_TRIALS", "IS_CONTINUOUS", "CHECKPOINT"]
        for name, variable in self._found.items():
            why = next((why for word, why in _WHY if word == name), "")
            if not variable.text or (why and variable.text.lower() == "false"):
                continue
            guess = near(f"EVAL_{name}", [f"EVAL_{one}" for one in known])
            if why:
                self._findings.nothing(variable.said, why)
            elif re.match(r"(DR_)?EVAL_", variable.word.upper()) and guess:
                self._findings.unknown(
                    variable.said, variable.word, [f"DR_EVAL_{k}" for k in known]
                )
            else:
                others.setdefault(variable.file, []).append(variable.word)
        for file, words in others.items():
            self._findings.note(f"{file}: not of a race: {', '.join(words)}")
