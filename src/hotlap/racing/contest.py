"""Contest: saved drivers on one road, several races at once; the result is a Standings.

What all rules share: the world and who drives in it, the grid, laps, who passes whom, and what is
told afterwards. What becomes of a car that stumbles is for each of them to say, in a class of its
own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from hotlap.config import resolve
from hotlap.crew import NOBODY, Crew, Driver
from hotlap.deepracer.recorder import Episode
from hotlap.draws import Purpose, uniform
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.native import NativeSimulator
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import Command, Start, State
from hotlap.starts import GRID
from hotlap.tasks.rules import Rules, RulesSettings
from hotlap.track import Track
from hotlap.types import Array, Float32, Float64
from hotlap.vehicle import load_vehicle

__all__ = ["Contest", "Racer", "Standings"]

_SECONDS_PER_METRE = 2.0
"""A driver slower than this does not finish."""
_ROOM = 1.5
"""Two places of the grid are so many lengths of the longest car apart, and GRID at least."""


@dataclass(frozen=True)
class Racer:
    """How one driver did, over all races. Times in seconds; None where there is nothing to say."""

    name: str
    fingerprint: str
    """Of its policy: two drivers of one name are told apart by it."""
    vehicle: str
    places: tuple[int, ...]
    """In each race, 1 the best; those who finish together share a place."""
    mean_place: float
    wins: int
    finished: int
    """Races in which it drove every lap."""
    race_times_s: tuple[float | None, ...]
    """From the start to the end of the last lap; None where it did not finish."""
    gaps_s: tuple[float | None, ...]
    """To the winner of each race; None where it did not finish."""
    laps_completed: int
    best_lap_s: float | None
    mean_lap_s: float | None
    """Of all completed laps; the first one of a race begins at rest on the grid."""
    overtakes: int
    """How often it passed a car that was driving."""
    overtaken: int
    contacts: int
    """Contacts with other cars; one that goes on is one."""
    ran_into: int
    """Those of them in which it was the car behind, by more than half a length, which costs the
    penalty: by the custom of racing it is the one behind that has to avoid a contact. Side by side
    it is nobody."""
    off_tracks: int
    stuck: int
    """How often it stood still or drove back until it was put back on the road."""
    resets: int = 0
    """By DeepRacer's rules: how often it waited and was put back; else 0."""
    penalties_s: float = 0.0
    """What it waited for that, in all; it is part of its times."""
    number: int = 0
    """Its number among those that were named, from 0."""


@dataclass(frozen=True)
class Standings:
    """How several drivers raced, the best first."""

    track: str
    laps: int
    trials: int
    racers: tuple[Racer, ...]
    beaten: tuple[tuple[float, ...], ...]
    """`beaten[i][j]`: in how many races racer i came in before racer j; one half for a tie."""
    rules: str = "hotlap"
    """Whose: "hotlap", or "deepracer"."""
    traces: tuple[Mapping[str, Array], ...] = field(default=(), repr=False, compare=False)
    """What each race looked like: (T,) t, and (T, K) x, y, yaw, speed, steering, distance, present
    and lap of the racers in the order of `racers`; by DeepRacer's rules also waiting: on the road,
    for a penalty."""

    course: Track | None = field(default=None, repr=False, compare=False)
    """The track in the direction in which it was driven."""
    episodes: tuple[tuple[Episode, ...], ...] = field(default=(), repr=False, compare=False)
    """By DeepRacer's rules: what each of `racers` drove, race by race and lap by lap, as DeepRacer
    logs it."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything but what was driven, ready for JSON."""
        plain = asdict(replace(self, traces=(), course=None, episodes=()))
        return {k: v for k, v in plain.items() if k not in ("traces", "course", "episodes")}


class Contest(ABC):
    """All races of a Standings at once: trial w is world w, and driver d its d-th car.

    `ahead` counts metres of race from the line: a car on the grid begins a little below zero.
    """

    rules = "hotlap"
    """What `Standings.rules` says."""
    first_side = 1.0
    """On which side of the centre line the first place of the grid is: 1 left, -1 right."""

    def __init__(
        self,
        drivers: Sequence[Driver],
        track: Track,
        laps: int,
        trials: int,
        seed: int,
        threads: int | None,
    ) -> None:
        self._drivers, self._track, self._laps = drivers, track, laps
        self._cars = [load_vehicle(driver.task["vehicle"]) for driver in drivers]
        self._shape = trials, len(drivers)
        self._dt = 1 / drivers[0].task["control_rate"]
        self._lengths = np.array([car.body_length for car in self._cars], np.float32)
        spacing = max(GRID, _ROOM * float(self._lengths.max()))
        self._gap = 0.6 * spacing
        rows = trials * len(drivers)
        need = spacing * len(drivers)
        if need > track.length / 2:
            raise ConfigError(
                f"race: a grid of {len(drivers)} such cars is {need:.1f} m long, and {track.name} "
                f"has {track.length:.1f} m; race fewer, or on a longer track"
            )
        self._world = NativeSimulator(
            (track,),
            [self._cars[row % len(drivers)] for row in range(rows)],
            rows=rows,
            dt=self._dt,
            traffic=TrafficSettings(cars=len(drivers), gap=self._gap),
            threads=threads,
        )

        def open_eyes(task: Mapping[str, Any]) -> VectorEnv:
            settings = resolve(EnvSettings, task)
            return VectorEnv(settings, rows, seed=seed, world=self._world, threads=threads)

        self._crew = Crew(rows, open_eyes)
        self._numbers = np.array([self._crew.add(driver) for driver in drivers], np.int32)
        limit = max(30.0, track.length * laps * _SECONDS_PER_METRE) + self._patience()
        self._steps_max = round(limit / self._dt)
        rules = RulesSettings(time_limit=2 * limit, crash=False)
        closed, length = np.array([track.closed]), np.array([track.length], np.float32)
        self._rules = Rules(rules, length, closed, rows=rows, dt=self._dt)
        self._line_up(seed, spacing)

    def _patience(self) -> float:
        """Return the seconds that the rules may keep a car waiting in a race."""
        return 0.0

    def _line_up(self, seed: int, spacing: float) -> None:
        """Put all cars on the grid, each driver one place further than in the race before."""
        trials, count = self._shape
        rows = np.arange(trials * count)
        trial, driver = np.divmod(rows, count)
        turn, place = trial // count, (driver + trial) % count
        draws = uniform(seed, place, turn, np.zeros(len(rows), np.int64), Purpose.RACE, 3)
        little = (2 * draws - 1) * (turn > 0)[:, None]
        back = (place + 0.25 * np.abs(little[:, 0])) * spacing
        length, st = self._track.length, self._track.stations
        s = -back if self._track.closed else (count - 1) * spacing - back
        k = (s % length / length * st.count).astype(int) % st.count
        half = np.minimum(st.left, st.right)[k]
        side = self.first_side * (0.5 - place % 2)
        start = Start(
            track=np.zeros(len(rows), np.int32),
            s=(s % length).astype(np.float32),
            n=((side + 0.1 * little[:, 1]) * half).astype(np.float32),
            heading_error=(np.radians(5) * little[:, 2]).astype(np.float32),
            speed=np.zeros(len(rows), np.float32),
            seed=seed,
        )
        state = self._world.reset(rows, start)
        self._rules.begin(rows)
        self._crew.take(rows, np.tile(self._numbers, trials))
        self._base: Float64 = state.s.astype(np.float64)
        if self._track.closed:
            self._base -= length * (self._base > length / 2)
        size = len(rows)
        self._ahead = self._base.copy()
        self._running = np.ones(size, bool)
        self._laps_done, self._lap_start = np.zeros(size, int), np.zeros(size)
        self._time = np.full(size, np.inf)
        self._lap_times: list[list[float]] = [[] for _ in rows]
        self._counts = {
            name: np.zeros(size, int)
            for name in ("overtakes", "overtaken", "contacts", "ran_into", "off_tracks", "stuck")
        }
        self._order = np.sign(self._between(self._ahead))
        self._touched = np.full(self._order.shape, -(10**9))
        self._log: list[tuple[State, Array, Array, Array]] = []

    def _drive(self) -> None:
        self._remember(self._world.state)
        for step in range(1, self._steps_max + 1):
            before = self._world.state
            after = self._world.step(self._command())
            self._crew.look_on()
            present = self._present
            along = self._base + after.travelled if self._track.closed else after.s
            self._ahead[present] = along[present]
            self._judge(step, before, after)
            self._remember(after)
            if not self._running.any():
                break

    def _command(self) -> Command:
        """Return what the cars are made to do."""
        return self._crew.command()

    @abstractmethod
    def _judge(self, step: int, before: State, after: State) -> None:
        """Apply the rules to a step; `step` counts from 1."""

    @property
    @abstractmethod
    def _present(self) -> Array:
        """(N,) who drives: neither done, nor waiting."""

    def _remember(self, state: State) -> None:
        self._log.append((state, self._ahead.copy(), self._present, self._laps_done.copy()))

    # --- what can happen in a step ---

    def _between(self, ahead: Array) -> Array:
        """Return (W, K, K) how far car i of each world is ahead of car j [m]."""
        each = ahead.reshape(self._shape)
        return np.asarray(each[:, :, None] - each[:, None, :])

    def _pass(self) -> None:
        """Count who passed whom: by half a length, both of them on the road."""
        _, count = self._shape
        lead = self._between(self._ahead)
        half = (self._lengths[:, None] + self._lengths[None, :]) / 4
        now = np.where(np.abs(lead) > half, np.sign(lead), self._order)
        for world, i, j in np.argwhere((now > 0) & (self._order < 0)):
            a, b = world * count + i, world * count + j
            if self._present[a] and self._present[b]:
                self._counts["overtakes"][a] += 1
                self._counts["overtaken"][b] += 1
        self._order = now

    def _lap(self, step: int, after: State) -> None:
        """Take the time of those that cross the line, and take those off the road that finish."""
        length = self._track.length if self._track.closed else 0.9999 * self._track.length
        goal = (self._laps_done + 1) * length
        for row in np.flatnonzero(self._present & (self._ahead >= goal)).tolist():
            over = (self._ahead[row] - goal[row]) / max(float(after.advance[row]), 1e-6)
            at = (step - min(over, 1.0)) * self._dt
            self._lap_times[row].append(at - self._lap_start[row])
            self._lap_start[row] = at
            self._laps_done[row] += 1
            if self._laps_done[row] == self._laps:
                self._time[row], self._running[row] = at, False
                self._leave(row)

    def _leave(self, row: int) -> None:
        rows = np.array([row])
        self._world.withdraw(rows, True)
        self._crew.take(rows, np.array([NOBODY], np.int32))

    # --- what comes of it ---

    def standings(self) -> Standings:
        """Drive all races to their ends, and say how they went."""
        self._drive()
        trials, count = self._shape
        time = np.where(np.isfinite(self._time), self._time, np.inf).reshape(self._shape)
        # Who does not finish comes after those who do, in the order of how far they came.
        score = np.where(np.isfinite(time), -time, self._ahead.reshape(self._shape) - 1e9)
        better = score[:, :, None] > score[:, None, :]
        places = 1 + better.sum(axis=1)
        beaten = better.sum(axis=0) + 0.5 * (score[:, :, None] == score[:, None, :]).sum(axis=0)
        gaps = np.where(np.isfinite(time), time - time.min(axis=1, keepdims=True, initial=1e9), 0)
        mean_gap = gaps.mean(axis=0)
        ranking = sorted(range(count), key=lambda d: (places[:, d].mean(), mean_gap[d], d))
        racers = [self._racer(d, places[:, d], time[:, d], gaps[:, d]) for d in ranking]
        matrix = tuple(
            tuple(0.0 if i == j else float(beaten[i, j]) for j in ranking) for i in ranking
        )
        return Standings(
            track=self._track.name,
            laps=self._laps,
            trials=trials,
            racers=tuple(racers),
            beaten=matrix,
            rules=self.rules,
            traces=self._traces(ranking),
            course=self._track,
        )

    def _racer(self, d: int, places: Array, time: Float64, gaps: Float64) -> Racer:
        trials, count = self._shape
        rows = d + count * np.arange(trials)
        laps = [float(t) for row in rows for t in self._lap_times[row]]
        done = np.isfinite(time)
        same = [driver.name for driver in self._drivers[:d]].count(self._drivers[d].name)
        again = f" ({same + 1})" if same else ""
        return Racer(
            name=self._drivers[d].name + again,
            fingerprint=self._drivers[d].fingerprint,
            vehicle=self._cars[d].name,
            places=tuple(places.tolist()),
            mean_place=float(places.mean()),
            wins=int((places == 1).sum()),
            finished=int(done.sum()),
            race_times_s=tuple(float(t) if ok else None for t, ok in zip(time, done, strict=True)),
            gaps_s=tuple(float(g) if ok else None for g, ok in zip(gaps, done, strict=True)),
            laps_completed=len(laps),
            best_lap_s=min(laps, default=None),
            mean_lap_s=float(np.mean(laps)) if laps else None,
            number=d,
            **{name: int(column[rows].sum()) for name, column in self._counts.items()},
        )

    def _traces(self, ranking: Sequence[int]) -> tuple[dict[str, Array], ...]:
        trials, count = self._shape
        states = [state for state, _, _, _ in self._log]
        columns: dict[str, Array] = {
            name: np.stack([getattr(state, name) for state in states])
            for name in ("x", "y", "yaw", "steering")
        }
        columns["speed"] = np.stack([np.hypot(state.vx, state.vy) for state in states])
        columns["distance"] = np.stack([ahead for _, ahead, _, _ in self._log])
        columns["present"] = np.stack([present for _, _, present, _ in self._log])
        columns["lap"] = np.stack([laps for _, _, _, laps in self._log])
        t: Float32 = (np.arange(len(states)) * self._dt).astype(np.float32)
        found = []
        for world in range(trials):
            rows = world * count + np.array(ranking)
            last = np.flatnonzero(columns["present"][:, rows].any(axis=1))[-1] + 2
            trace = {name: column[:last, rows] for name, column in columns.items()}
            found.append({"t": t[:last], **trace})
        return tuple(found)
