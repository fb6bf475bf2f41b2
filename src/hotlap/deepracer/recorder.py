"""Recorder: follows some cars step by step and hands over whole episodes as DeepRacer logs them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, PositiveInt

from hotlap.config import Settings
from hotlap.deepracer.logs import FIELDS, PREPARE, WORKERS_MOST, nearer
from hotlap.deepracer.params import Columns, Params
from hotlap.simulator import ROW_FIELDS, Command, State
from hotlap.tasks.rules import Status
from hotlap.track import Track
from hotlap.types import Array, Float64

__all__ = ["Episode", "LogSettings", "Recorder"]


class LogSettings(Settings):
    """DeepRacer's logs, in the folder `deepracer` of the Run."""

    deepracer: bool | None = None
    """Whether they are written; if not given, where the reward has DeepRacer's timing."""
    cars: PositiveInt = Field(4, le=1000)
    """How many of the cars are followed, the first ones; at least one for each worker."""
    workers: int = Field(0, ge=0, le=WORKERS_MOST)
    """Among how many workers' folders the cars are divided; 0: one for each track, up to 10."""
    episodes: PositiveInt = 20
    """Episodes of an iteration, over all workers: DeepRacer's `num_episodes_between_training`."""
    lines: bool = True
    """Whether SIM_TRACE_LOG lines are written besides the simtrace files."""


@dataclass(frozen=True, eq=False)
class Episode:
    """What one car did from its start, or from the line, to the end of its lap or episode."""

    car: int
    """Row of the world."""
    track: int
    """Index into the world's tracks."""
    rows: Float64
    """(T, F) by `logs.FIELDS`; the first row puts the car down."""


class Recorder:
    """Keeps what some cars of a world do until their episodes are over.

    An episode of several laps is handed over lap by lap, as DeepRacer's has one at most.
    DeepRacer's row i holds a state, the action chosen in it, and their reward. A reward that is
    paid for what the action led to stands in the row of the state that it led to, with that action.

    Args:
        tracks: the world's courses.
        cars: (M,) which rows are followed.
        dt: seconds between two steps.
        late: whether rewards are DeepRacer's: of the state before the action.
    """

    def __init__(self, tracks: Sequence[Track], cars: Array, *, dt: float, late: bool) -> None:
        self._cars = np.asarray(cars)
        self._dt, self._late = dt, late
        self._params, self._standing = Params(tracks, dt=dt), Params(tracks, dt=dt)
        # Drawn as the users' waypoints are: a closed line repeats its first point.
        self._waypoints = [
            np.concatenate([t.centre, t.centre[:1]]) if t.closed else t.centre for t in tracks
        ]
        self._steps = 0
        self._rows: list[list[Float64]] = [[] for _ in self._cars]
        self._tracks = np.zeros(len(self._cars), np.int64)
        self._followed = np.ones(len(self._cars), bool)
        self._done: list[Episode] = []

    def begin(self, state: State, *, midway: bool = False, on_line: bool = False) -> None:
        """Start following: from the episodes that begin in `state`, or if `midway` from the next.

        Those that run already are then not handed over, as their beginning is not known. With
        `on_line` laps count from the start line, wherever the cars stand.
        """
        self._start(np.arange(len(self._cars)), _part(state, self._cars), on_line=on_line)
        self._followed[:] = not midway

    def take(
        self,
        before: State,
        command: Command,
        action: Array,
        after: State,
        reward: Array,
        status: Array,
        over: Array,
        now: State,
        pauses: Array | None = None,
    ) -> None:
        """Note a step of all rows of the world.

        Args:
            before: what was driven from.
            command: what was commanded.
            action: (N,) integers, or (N, 2) floats.
            after: what was reached.
            reward: (N,) of the step.
            status: (N,) Status after it, or PAUSED.
            over: (N,) whether the episode has ended.
            now: `after`, but for the rows whose episode has ended and whose next one has begun.
            pauses: (N,) the penalty of those who wait [s]; None: nobody ever does.
        """
        who = self._cars
        start, command = _part(before, who), Command(command.steering[who], command.speed[who])
        seen = start if self._late else _part(after, who)
        columns = self._params.compute(seen, command, seen.steps + 1)
        chosen = action[who] if action.ndim == 1 else np.full(len(who), -1)
        moment = self._steps * self._dt, time.time()
        self._steps += 1
        fresh = start.steps == 0
        if self._late:
            rows = self._table(columns, chosen, reward[who], status[who], moment)
            rows[fresh, _STATUS], rows[fresh, _REWARD] = PREPARE, 0
        else:
            first = np.flatnonzero(fresh)
            if len(first):
                still = self._standing.compute(start, command, start.steps + 1)
                nothing = np.full(len(who), PREPARE)
                rows = self._table(still, chosen, np.zeros(len(who)), nothing, moment)
                for i in first.tolist():
                    self._rows[i].append(rows[i])
            later = moment[0] + self._dt, moment[1]
            rows = self._table(columns, chosen, reward[who], status[who], later)
        if pauses is not None:
            rows[:, _PAUSE] = pauses[who]
        for i, row in enumerate(rows):
            self._rows[i].append(row)
        ended = np.flatnonzero(over[who])
        for car in ended.tolist():
            self._finish(car)
        if len(ended):
            self._start(ended, _part(now, who))

    def episodes(self) -> list[Episode]:
        """Return the episodes that ended since the last call, in that order."""
        done, self._done = self._done, []
        return done

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays; after `episodes`."""
        rows = [np.stack(one) if one else np.empty((0, _WIDTH)) for one in self._rows]
        joined = np.concatenate(rows)
        clock = joined[:, _WALL].copy()  # apart: all else is the same whenever it is trained
        joined[:, _WALL] = 0
        arrays = {
            "rows": joined,
            "clock": clock,
            "lengths": np.array([len(one) for one in rows], np.int64),
            "tracks": self._tracks.copy(),
            "followed": self._followed.copy(),
            "steps": np.array(self._steps, np.int64),
        }
        for name, params in (("params", self._params), ("standing", self._standing)):
            arrays |= {f"{name}.{key}": array for key, array in params.save().items()}
        return arrays

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        ends = np.cumsum(arrays["lengths"])
        joined = arrays["rows"].copy()
        joined[:, _WALL] = arrays["clock"]
        pieces = np.split(joined, ends[:-1])
        self._rows = [list(piece) for piece in pieces]
        self._tracks, self._steps = arrays["tracks"].copy(), int(arrays["steps"])
        self._followed, self._done = arrays["followed"].copy(), []
        for name, params in (("params", self._params), ("standing", self._standing)):
            start = f"{name}."
            params.restore({k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)})

    def _start(self, which: Array, state: State, *, on_line: bool = False) -> None:
        self._params.begin(which, state, on_line=on_line)
        self._standing.begin(which, state, on_line=on_line)
        self._tracks[which] = state.track[which]

    def _finish(self, i: int) -> None:
        found, self._rows[i] = self._rows[i], []
        if self._followed[i]:
            rows, track = np.stack(found), int(self._tracks[i])
            pair = rows[:, [_WAYPOINT, -1]].astype(np.int64)
            rows[:, _WAYPOINT] = nearer(self._waypoints[track], pair, rows[:, _X], rows[:, _Y])
            car = int(self._cars[i])
            rows[:, _CRASHES] = np.cumsum(rows[:, _CRASHES])
            self._done += [Episode(car, track, lap) for lap in _laps(rows[:, :-1])]
        self._followed[i] = True

    def _table(
        self,
        columns: Columns,
        action: Array,
        reward: Array,
        status: Array,
        moment: tuple[float, float],
    ) -> Float64:
        """Return (M, F + 1) rows by FIELDS; the last column is the waypoint ahead."""
        table = np.empty((_WIDTH, len(self._cars)))
        behind, ahead = columns.closest_waypoints.T
        for k, value in enumerate(
            (columns.steps, columns.x, columns.y, columns.heading, columns.steering_angle,
             columns.speed, action, reward, columns.all_wheels_on_track, columns.progress, behind,
             columns.track_length, moment[0], status, 0, status == Status.CRASHED, moment[1], ahead)
        ):  # fmt: skip
            table[k] = value
        return table.T


_STEPS, _STATUS, _REWARD = (FIELDS.index(name) for name in ("steps", "episode_status", "reward"))
_WAYPOINT, _X, _Y = (FIELDS.index(name) for name in ("closest_waypoint", "X", "Y"))
_PAUSE, _CRASHES = FIELDS.index("pause_duration"), FIELDS.index("obstacle_crash_counter")
_PROGRESS, _WALL = FIELDS.index("progress"), FIELDS.index("wall_clock")
_WIDTH = len(FIELDS) + 1
"""While an episode runs, its rows also have the waypoint ahead."""


def _laps(rows: Float64) -> list[Float64]:
    """Cut an episode at the line: one of DeepRacer's has a lap at most.

    The row that completes a lap is also the one that puts the car down for the next.
    """
    cuts = [k for k in np.flatnonzero(rows[:, _PROGRESS] == 100).tolist() if k < len(rows) - 1]
    laps = []
    for first, last in zip([0, *cuts], [*cuts, len(rows) - 1], strict=True):
        lap = rows[first : last + 1].copy()
        lap[:, _STEPS] = np.arange(1, len(lap) + 1)
        if first:
            lap[0, [_STATUS, _REWARD, _PROGRESS]] = PREPARE, 0, 0
        if last in cuts:
            lap[-1, _STATUS] = Status.LAP_COMPLETE
        laps.append(lap)
    return laps


def _part(state: State, rows: Array) -> State:
    """Return the state of some rows, without what is around them."""
    return State(**{name: getattr(state, name)[rows] for name in ROW_FIELDS})
