"""Races of saved drivers: several at once on one road; the result is a Standings.

By hotlap's own rules, who leaves the road, stands still, drives back or runs into the car ahead is
taken off the road and, after a penalty, put back at rest where that happened; after a contact on
the other lane. Cars that touch side by side push each other and drive on. With penalties the rules
are DeepRacer's: see `head_to_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hotlap.crew import Driver
from hotlap.env.drivers import env_settings, load_driver
from hotlap.errors import ConfigError
from hotlap.penalties import PenaltySettings
from hotlap.racing.contest import Contest, Racer, Standings
from hotlap.racing.head_to_model import HeadToModel
from hotlap.runs import Run
from hotlap.simulator import Start, State
from hotlap.tasks.rules import Status
from hotlap.track import Track, load_track
from hotlap.types import Array

__all__ = ["Racer", "Standings", "race", "race_drivers"]

PENALTY = 2.0
"""Seconds off the road after leaving it and the like."""
_APART = 0.5
"""Seconds without touching after which two cars that touch again have another contact."""
_WARNING = 1.0
"""Nobody is put back within so many seconds of a car that comes from behind."""
_STUMBLES = (Status.OFF_TRACK, Status.IMMOBILIZED, Status.REVERSED)


def race(
    runs: Sequence[Run | str | Path],
    *,
    track: str | None = None,
    laps: int = 3,
    trials: int | None = None,
    checkpoint: Literal["best", "last"] = "best",
    penalties: PenaltySettings | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Standings:
    """Let the drivers of several runs race against each other.

    Each drives its own car, with the observation and the actions it was trained with.

    Args:
        runs: Runs or their directories; one may be named twice, and races against itself.
        track: name or file of the track; the first one of the first run if None.
        laps: of each race; on an open track it is once to its end.
        trials: how many races; each driver starts equally often from each place of the grid, so it
            is a multiple of their number; twice their number if None. With penalties any number,
            and 1 if None: in it the first run starts in front.
        checkpoint: which driver of the runs.
        penalties: race by DeepRacer's rules of head-to-model, with what a stumble costs; None: by
            hotlap's own rules.
        seed: of small differences of the starts; the first race from each place has none.
        threads: how many threads the world uses.

    Raises:
        ConfigError: there is only one driver, or they cannot race against each other.
        RunError: one is not a Run, or it has no such checkpoint.
        TrackError: there is no such track.
    """
    opened = [one if isinstance(one, Run) else Run.open(one) for one in runs]
    drivers = [load_driver(run.place, checkpoint) for run in opened]
    direction = "forward"
    if track is None and opened:
        settings = env_settings(opened[0])
        track, direction = settings.track_names()[0], settings.start.direction
    if track is not None and "," in track:
        raise ConfigError(f"track: a race is on one track (got {track})")
    course = load_track(track or "reinvent_like")
    course = course.reversed() if direction == "reversed" else course
    return race_drivers(
        drivers, course, laps=laps, trials=trials, penalties=penalties, seed=seed, threads=threads
    )


def race_drivers(
    drivers: Sequence[Driver],
    track: Track,
    *,
    laps: int = 3,
    trials: int | None = None,
    penalties: PenaltySettings | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Standings:
    """Let drivers race against each other on a track; see `race`."""
    count = len(drivers)
    if not 2 <= count <= 32:
        raise ConfigError(f"race: 2 to 32 drivers can race against each other (got {count})")
    if trials is None:
        trials = 2 * count if penalties is None else 1
    if trials < 1:
        raise ConfigError(f"trials: there is one race at least (got {trials})")
    if penalties is None and trials % count:
        raise ConfigError(
            f"trials: {count} drivers start equally often from each place of the grid if the races "
            f"are a multiple of {count} (got {trials}): try {max(1, -(-trials // count)) * count}"
        )
    if laps < 1:
        raise ConfigError(f"laps: a race has one lap at least (got {laps})")
    rates = sorted({driver.task["control_rate"] for driver in drivers})
    if len(rates) > 1:
        raise ConfigError(
            f"race: drivers that act {' and '.join(f'{rate:g}' for rate in rates)} times a second "
            "cannot share a world; train them with one control_rate"
        )
    laps = laps if track.closed else 1
    if penalties is not None:
        return HeadToModel(drivers, track, laps, trials, seed, threads, penalties).standings()
    return _Races(drivers, track, laps, trials, seed, threads).standings()


class _Races(Contest):
    """Hotlap's own rules: who stumbles is off the road for a while."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._back_at = np.full(self._world.rows, -1)
        self._left_at, self._left_n = np.zeros((2, self._world.rows), np.float32)

    def _judge(self, step: int, before: State, after: State) -> None:
        self._meet(step, before, after)
        self._pass()
        self._lap(step, after)
        self._stumble(step, before, after)
        self._put_back(step)

    @property
    def _present(self) -> Array:
        return np.asarray(self._running & (self._back_at < 0))

    def _meet(self, step: int, before: State, after: State) -> None:
        """Count the contacts that begin, and whose they are to avoid."""
        assert after.around is not None
        _, count = self._shape
        rows = np.flatnonzero((after.around.contact >= 0) & self._present)
        pairs = set()
        for row in rows:
            world, car = divmod(int(row), count)
            box = int(after.around.contact[row])
            other = box + (box >= car)  # the boxes of a car leave itself out
            if self._present[world * count + other]:
                pairs.add((world, min(car, other), max(car, other)))
        length, fresh = self._track.length, round(_APART / self._dt)
        for world, i, j in sorted(pairs):
            if step - self._touched[world, i, j] > fresh:
                a, b = world * count + i, world * count + j
                self._counts["contacts"][[a, b]] += 1
                lead = float(before.s[a] - before.s[b])
                if self._track.closed:  # cars a lap apart meet as well
                    lead = (lead + length / 2) % length - length / 2
                if abs(lead) > self._lengths[[i, j]].mean() / 2:
                    first, last = (a, b) if lead > 0 else (b, a)
                    self._penalise(last, "ran_into", step, after)
                    # on the other lane, so that it can pass
                    half = min(float(after.left[last]), float(after.right[last]))
                    self._left_n[last] = -0.5 * half if after.n[first] > 0 else 0.5 * half
            self._touched[world, i, j] = step

    def _stumble(self, step: int, before: State, after: State) -> None:
        """Take those off the road who have left it, stand, or drive back."""
        status = self._rules.judge(before, after).status
        for row in np.flatnonzero(self._present & np.isin(status, _STUMBLES)).tolist():
            name = "off_tracks" if status[row] == Status.OFF_TRACK else "stuck"
            self._penalise(row, name, step, after)

    def _penalise(self, row: int, name: str, step: int, after: State) -> None:
        self._counts[name][row] += 1
        self._left_at[row], self._left_n[row] = after.s[row], 0
        self._back_at[row] = step + round(PENALTY / self._dt)
        self._leave(row)

    def _put_back(self, step: int) -> None:
        """Put those back whose penalty is over, as soon as there is room where they left."""
        _, count = self._shape
        length = self._track.length
        for row in np.flatnonzero((self._back_at >= 0) & (self._back_at <= step)):
            state, spot = self._world.state, self._left_at[[row]]
            world = np.arange(row // count * count, row // count * count + count)
            others = world[self._present[world]]
            behind = spot - state.s[others]
            if self._track.closed:
                behind = (behind + length / 2) % length - length / 2
            # Nobody shall find a standing car that it cannot avoid any more.
            need = self._gap + np.where(behind > 0, _WARNING * np.maximum(state.vx[others], 0), 0)
            if (np.abs(behind) < need).any():
                continue
            rows = np.array([row])
            self._world.reset(rows, replace(Start.on_line(1), s=spot, n=self._left_n[rows]))
            self._rules.begin(rows)
            self._crew.take(rows, self._numbers[rows % count])
            self._base[row], self._back_at[row] = self._ahead[row], -1
