"""Leaderboards of time trials: by total, average or best of some laps, as DeepRacer's races had."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Board", "Score", "Timed", "boards", "is_whole", "laps_score"]

Score: TypeAlias = Literal["total", "average", "best"]
"""What is compared; see `laps_score`."""


@dataclass(frozen=True)
class Timed:
    """One driver of a leaderboard."""

    name: str
    fingerprint: str
    """Of its policy; a driver that has trained on is another one."""
    vehicle: str
    seconds: float | None
    """Its score in its best trial; None if no trial counts."""
    resets: int | None
    """How often it was put back on the road in that trial."""
    trials: int
    """Trials that count."""
    tried: int
    """All its trials."""


@dataclass(frozen=True)
class Board:
    """The drivers that were timed on one track under the same rules, the fastest first."""

    track: str
    direction: str
    """`forward` or `reversed`."""
    penalties: Mapping[str, float] | None
    """What a stumble cost, by `evaluation.penalties`; None: it ended the trial."""
    score: Score
    laps: int
    resets: int | None
    """How many a trial may have; None: any number."""
    entries: tuple[Timed, ...]


def laps_score(lap_times_s: Sequence[float], score: Score, laps: int) -> float | None:
    """Return what a trial is worth [s], from its laps in order; None if it has fewer than `laps`.

    `total` is the time of its first laps, the standing start included; `average` the mean of those
    consecutive ones that are fastest together; `best` its fastest single lap. Lap times contain
    what was waited for penalties.
    """
    if len(lap_times_s) < laps:
        return None
    if score == "total":
        return sum(lap_times_s[:laps])
    if score == "average":
        ends = range(laps, len(lap_times_s) + 1)
        return min(sum(lap_times_s[end - laps : end]) for end in ends) / laps
    return min(lap_times_s)


def boards(
    rows: Sequence[Mapping[str, Any]],
    score: Score = "total",
    laps: int = 3,
    resets: int | None = None,
) -> list[Board]:
    """Rank drivers by time trials: a board for each track, direction and kind of penalties.

    A driver's best trial counts. Who has none comes last; of equal scores fewer resets win, then
    who was there first.

    Args:
        rows: what `League.trials` returned.
        score: what is compared; see `laps_score`.
        laps: how many laps it is of.
        resets: trials with more do not count; None: all do.
    """
    grouped: dict[tuple[str, str, str], dict[str, list[tuple[Mapping[str, Any], Any]]]] = {}
    for row in rows:
        for trial in row["trials"]:
            key = (trial["track"], row["direction"], json.dumps(row["penalties"], sort_keys=True))
            drivers = grouped.setdefault(key, {})
            drivers.setdefault(row["driver"]["fingerprint"], []).append((row["driver"], trial))
    found = []
    for (track, direction, penalties), drivers in grouped.items():
        entries = [_timed(tried, score, laps, resets) for tried in drivers.values()]
        entries.sort(key=lambda one: (one.seconds is None, one.seconds or 0.0, one.resets or 0))
        found.append(
            Board(track, direction, json.loads(penalties), score, laps, resets, tuple(entries))
        )
    return found


def _timed(
    tried: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    score: Score,
    laps: int,
    resets: int | None,
) -> Timed:
    counted = []
    for _, trial in tried:
        seconds = laps_score(trial["lap_times_s"], score, laps)
        if seconds is not None and (resets is None or trial["resets"] <= resets):
            counted.append((seconds, int(trial["resets"])))
    best = min(counted, default=(None, None))
    driver = tried[-1][0]  # as it was called last
    return Timed(
        name=driver["name"],
        fingerprint=driver["fingerprint"],
        vehicle=driver["vehicle"],
        seconds=best[0],
        resets=best[1],
        trials=len(counted),
        tried=len(tried),
    )


def is_whole(row: Mapping[str, Any]) -> bool:
    """Tell whether a line of time trials has what a board reads of it."""
    try:
        driver, trials, penalties = row["driver"], row["trials"], row["penalties"]
        words = [driver[key] for key in ("name", "fingerprint", "vehicle")]
        words += [row["direction"], *(trial["track"] for trial in trials)]
        counts = [trial["resets"] for trial in trials]
        laps = [lap for trial in trials for lap in trial["lap_times_s"]]
        costs = list((penalties or {}).values())
    except (AttributeError, KeyError, TypeError):
        return False
    return (
        all(isinstance(word, str) for word in words)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(lap, int | float) and 0 < lap < float("inf") for lap in laps)
        and all(isinstance(cost, int | float) for cost in costs)
    )
