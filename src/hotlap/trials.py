"""Trials: the evaluations of a driver while it learns, and which driver was the best so far.

An evaluation of few starts, repeated often, calls a lucky driver the best sooner or later: of many
drivers the fastest is the one that risks most. So a driver that finishes every trial is tried
again, from many other starts, before it may take the place of the best one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from hotlap.config import Settings, read_toml, resolve
from hotlap.env import EnvSettings
from hotlap.env.settings import PICTURES
from hotlap.evaluate import Report, evaluate_policy, evaluation_env
from hotlap.penalties import PenaltySettings
from hotlap.runs import Run
from hotlap.types import Array

__all__ = ["EvaluationSettings", "Trial", "Trials", "penalties_of"]

_CONFIRM = 4
"""A driver that finished every trial is tried again from so many times as many starts,"""
_SURE = 80
"""and from so many at least, where that costs little:"""
_SMALL = 64 * 48
"""without a camera, or with pictures of so few pixels."""
_RELIABLE = 1 - 1 / 40
"""Share of its trials that a driver has to finish to be compared by lap time at all: of eighty a
fast one fails one now and then. What that costs it is `caution`."""
_HOPELESS = 5
"""Until a car has lapped in training, evaluations come so many times more seldom."""


class EvaluationSettings(Settings):
    """How the driver is tried while it learns and when it is done."""

    trials: PositiveInt = 5
    """Starts of an evaluation, which take turns over the tracks; with fewer starts the first tracks
    are tried. A driver that finishes all of them has to prove it, from at least 80 other starts (4
    times as many, where pictures are large): one in forty may fail, if it is to be the best."""
    laps: PositiveInt = 3
    """Laps of each trial."""
    randomized: bool = False
    """Whether each trial has a car and a look of its own, from the whole ranges of `randomize`;
    else all have the nominal ones."""
    best_by: Literal["lap_time", "progress", "reward"] = "lap_time"
    """What makes a driver the best: completion, then mean lap time; progress; or reward."""
    caution: NonNegativeFloat = 20.0
    """What a failed start costs where drivers are compared by lap time: the mean lap counts as 1 +
    `caution` times the share of starts that failed as long. 20: one failure in eighty is worth a
    quarter of the lap; 0: the fastest wins, though one start in forty may fail."""
    share: float = Field(0.15, gt=0, le=1)
    """Share of the time that evaluations during training may take."""
    penalties: PenaltySettings = PenaltySettings()
    """What a stumble costs in `hotlap evaluate --deepracer`."""
    every: NonNegativeInt = 0
    """Updates between two evaluations; 0: as often as `share` allows."""


@dataclass(frozen=True)
class Trial:
    """One evaluation of the present driver."""

    report: Report
    again: Report | None
    """From the other starts; None where the first starts were enough to know."""
    best: bool
    """Whether this driver is now the best one."""
    first_clean: bool
    """Whether no driver of this training had finished every trial before."""


class Trials:
    """Tries drivers, and remembers the score of the best. Its owner is the training.

    Args:
        settings: the world and the task.
        evaluation: how to try.
        recorded: whether reports shall hold the episodes as DeepRacer logs them, with rewards.
    """

    def __init__(
        self, settings: EnvSettings, evaluation: EvaluationSettings, *, recorded: bool = False
    ) -> None:
        self._settings = evaluation
        self._recorded = recorded
        self._rewarded = evaluation.best_by == "reward" or recorded
        self._env, self._again = (
            evaluation_env(
                settings,
                trials=trials,
                laps=evaluation.laps,
                rewarded=self._rewarded,
                randomized=evaluation.randomized,
            )
            for trials in (evaluation.trials, _confirmations(settings, evaluation.trials))
        )
        self.best: tuple[float, ...] | None = None
        self.clean = False
        self._ended, self._cost = -float("inf"), 0.0

    def due(self, iteration: int, seconds: float, *, lapped: bool) -> bool:
        """Say whether it is time for an evaluation.

        Args:
            iteration: updates so far.
            seconds: of the training's clock.
            lapped: whether any car has lapped in training; before that a greedy one hardly will.
        """
        if self._settings.every:
            return iteration % self._settings.every == 0
        share = self._settings.share / (1 if lapped else _HOPELESS)
        return seconds - self._ended >= self._cost / share

    def took(self, seconds: float, ended: float) -> None:
        """Note what an evaluation cost, and when it ended by the training's clock [s]."""
        self._cost, self._ended = seconds, ended

    def run(
        self,
        act: Callable[[Mapping[str, Array]], Array],
        steps: int,
        begin: Callable[[Array | None], None] | None = None,
        first: Callable[[Report], None] = lambda report: None,
    ) -> Trial:
        """Evaluate a driver.

        Args:
            act: chooses the actions of all rows.
            steps: of training so far; they decide about the other starts.
            begin: told the rows whose episodes begin; see `evaluate_policy`.
            first: told at once when a driver of this training finishes every trial for the first
                time; it is tried from the other starts afterwards.
        """
        rewarded = self._rewarded
        report = evaluate_policy(
            self._env, act, begin=begin, rewarded=rewarded, recorded=self._recorded
        )
        again = None
        score = self._score(report)
        first_clean = report.completion == 1 and not self.clean
        if first_clean:
            self.clean = True
            first(report)
        better = self.best is None or score >= self.best
        if better and report.completion == 1:
            again = evaluate_policy(self._again, act, begin=begin, seed=steps, rewarded=rewarded)
            score = self._score(report, again)
            better = self.best is None or score >= self.best
        if better:
            self.best = score
        return Trial(report, again, better, first_clean)

    def _score(self, *reports: Report) -> tuple[float, ...]:
        """Return what is compared: over all trials of the reports, greater is better."""

        def mean(values: list[float | None]) -> float:
            weighted = zip(values, (report.trials for report in reports), strict=True)
            return sum((value or 0.0) * weight for value, weight in weighted) / trials

        trials = sum(report.trials for report in reports)
        progress = mean([report.progress for report in reports])
        if self._settings.best_by == "reward":
            return (mean([report.mean_reward for report in reports]),)
        if self._settings.best_by == "progress":
            return (progress,)
        laps = [report.mean_lap_s for report in reports]
        slow = -1e9 if None in laps else -mean(laps)
        completion = mean([report.completion for report in reports])
        if len(reports) > 1 and completion >= _RELIABLE:
            return (1.0, 1.0, slow * (1.0 + self._settings.caution * (1.0 - completion)))
        return (completion, progress, slow)

    def save(self) -> dict[str, Any]:
        """Return what continuing needs, ready for JSON."""
        return {"best": self.best, "clean": self.clean}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `save` returned."""
        self.best = None if saved["best"] is None else tuple(saved["best"])
        self.clean = saved["clean"]


def _confirmations(settings: EnvSettings, trials: int) -> int:
    """Return from how many starts a driver is tried again."""
    seen, camera = settings.observation.actor, settings.observation.camera
    pixels = camera.width * camera.height if PICTURES & set(seen) else 0
    return max(_CONFIRM * trials, _SURE if pixels <= _SMALL else 0)


def penalties_of(run: Run) -> PenaltySettings:
    """Return what a stumble costs in a run's evaluations with penalties.

    Raises:
        ConfigError: the run's config.toml has something else there.
    """
    tree = read_toml(run.path / "config.toml").get("evaluation", {})
    return resolve(EvaluationSettings, tree).penalties
