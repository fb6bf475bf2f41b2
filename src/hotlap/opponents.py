"""Opponents: a world in which saved drivers share the road with the cars that learn.

To the environment it is a world like any other, of the learning cars alone: opponents are a part of
it, as bots are. So nothing that an opponent does is learned from, and whatever stands on an
environment needs to know nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PositiveInt

from hotlap.config import Settings
from hotlap.crew import NOBODY, Crew, Driver, saved_drivers
from hotlap.draws import Purpose, uniform
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import ROW_FIELDS, SURROUNDINGS, Command, Start, State, Surroundings
from hotlap.starts import Starts
from hotlap.tasks.rules import Rules
from hotlap.track import Track
from hotlap.types import Array

__all__ = ["SELF", "OpponentSettings", "Opponents", "saved_rivals"]

SELF = "self"
"""In `opponents.drivers`: past versions of the driver in training."""


def _names(given: Any) -> Any:
    """Let `runs/a,self` on the command line stand for a list."""
    if not isinstance(given, str):
        return given
    return tuple(word.strip() for word in given.split(",") if word.strip())


class OpponentSettings(Settings):
    """Saved drivers on the road, which race against the cars that learn."""

    drivers: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Directories of runs, and `self` for past versions of this training. Each episode of an
    opponent draws one of them, all equally often, and `self` one of its versions."""
    cars: PositiveInt = Field(1, le=31)
    """How many opponents share the road with the `traffic.cars` learning cars of a world."""
    share: float = Field(1.0, ge=0, le=1)
    """Share of its episodes that an opponent drives; in the others its place stays empty."""
    every: PositiveInt = 100_000
    """Steps of training after which the present driver joins the past versions."""
    keep: PositiveInt = Field(8, le=64)
    """How many past versions there are at most."""
    leaves: Literal["oldest", "weakest"] = "oldest"
    """Which version makes room for the next: the oldest, or the one whose episodes went least far
    in this training."""


class Opponents:
    """The rows that learn of a world, whose other rows saved drivers drive.

    Args:
        settings: who, and how many.
        world: all cars; the learning ones take turns over the places of their worlds.
        crew: who drives the others.
        starts: where all rows begin.
        rules: when the episodes of all rows end; an empty place ends by their time limit.
        learners: how many cars of each world learn.
        drivers: the saved ones, for each entry of `settings.drivers` that is not `self`.
    """

    def __init__(
        self,
        settings: OpponentSettings,
        world: NativeSimulator,
        crew: Crew,
        starts: Starts,
        rules: Rules,
        *,
        learners: int,
        drivers: Sequence[Driver],
    ) -> None:
        self.settings, self.crew = settings, crew
        self._world, self._starts, self._rules = world, starts, rules
        cars, ids = learners + settings.cars, world.state.row
        team, place = np.divmod(ids, cars)
        # Who starts in front changes from world to world, on every course alike.
        learns = (place - team // len(world.tracks)) % cars < learners
        self.learning, self.opposing = np.flatnonzero(learns), np.flatnonzero(~learns)
        self._patience = max(1, round(rules.settings.time_limit / world.dt))
        self._saved = [crew.add(driver) for driver in drivers]
        self._versions: list[int] = []
        self._join_at = 0
        self._tally: dict[int, tuple[int, float]] = {}
        self._due, self._waiting = self.opposing, np.zeros(world.rows, bool)
        self._seed, self._breadth = 0, 1.0
        self._state = self._own(world.state)

    learning: Array
    """(M,) the world's rows that learn."""
    opposing: Array
    """The world's other rows."""

    # --- the contract of a simulator, for the rows that learn ---

    @property
    def rows(self) -> int:
        """How many cars learn."""
        return len(self.learning)

    @property
    def dt(self) -> float:
        """Seconds between two control steps."""
        return self._world.dt

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The courses that rows drive on."""
        return self._world.tracks

    @property
    def provides(self) -> frozenset[str]:
        """Names of the State fields and sensors that it fills."""
        return self._world.provides

    @property
    def state(self) -> State:
        """The state of the learning cars after the last `reset`, `step` or `restart`."""
        return self._state

    @property
    def everyone(self) -> State:
        """The state of all cars."""
        return self._world.state

    def reset(self, rows: Array, start: Start) -> State:
        """Begin a new episode in the given rows, and leave the others alone."""
        self._seed, self._breadth = start.seed, start.breadth
        if len(rows) == self.rows:
            self._due = self.opposing
        self._state = self._own(self._world.reset(self.learning[rows], start))
        return self._state

    def step(self, command: Command) -> State:
        """Advance every car by `dt`; opponents that are done stay where they are until `restart`.

        Raises:
            SimulationError: a command is not finite.
        """
        wanted = self.crew.command()
        wanted.steering[self.learning] = command.steering
        wanted.speed[self.learning] = command.speed
        before = self._world.state
        after = self._world.step(wanted)
        self.crew.look_on()
        over = self._rules.judge(before, after).status != 0
        empty = self.crew.seat == NOBODY
        over = np.where(empty, after.steps >= self._patience, over)
        self._due = self.opposing[over[self.opposing]]
        for row in self._due[~empty[self._due]]:
            episodes, metres = self._tally.get(number := int(self.crew.seat[row]), (0, 0.0))
            self._tally[number] = episodes + 1, metres + float(after.travelled[row])
        self._state = self._own(after)
        return self._state

    def sense(self, sensor: str, rows: Array | None = None) -> Array:
        """Read a sensor of the given rows (all if None)."""
        return self._world.sense(sensor, self.learning if rows is None else self.learning[rows])

    def _own(self, state: State) -> State:
        around = None
        if state.around is not None:
            seen = {name: getattr(state.around, name)[self.learning] for name in SURROUNDINGS}
            around = Surroundings(**seen)
        fields = {name: getattr(state, name)[self.learning] for name in ROW_FIELDS}
        return State(**fields, around=around)

    # --- the opponents ---

    def restart(self) -> None:
        """Begin a new episode for every opponent that is done, with a driver that it draws."""
        rows = self._due
        if self._waiting.any() and self._versions:
            rows = np.union1d(rows, np.flatnonzero(self._waiting))
        if not len(rows):
            return
        ids, episode = self._world.state.row[rows], self._world.state.episode[rows] + 1
        start, _ = self._starts.draw(rows, ids, episode, seed=self._seed, breadth=self._breadth)
        self._world.reset(rows, start)
        self._rules.begin(rows)
        who = self._draw(rows, ids, episode)
        self._world.withdraw(rows[who == NOBODY], True)
        self.crew.take(rows, who)
        self._due = rows[:0]
        self._state = self._own(self._world.state)
        self._tidy()

    def _draw(self, rows: Array, ids: Array, episode: Array) -> Array:
        """Return (M,) who drives, NOBODY for an empty place; by row and episode alone."""
        step = np.zeros(len(rows), np.int64)
        drives, entry, version = uniform(
            self._seed, ids, episode, step, Purpose.OPPONENT, 3
        ).T.astype(np.float64)
        saved = iter(self._saved)
        named = [NOBODY if n == SELF else next(saved) for n in self.settings.drivers]
        chosen = (entry * len(named)).astype(int)
        who = np.array(named)[chosen]
        past = np.array([name == SELF for name in self.settings.drivers])[chosen]
        if self._versions:
            drawn = np.array(self._versions)[(version * len(self._versions)).astype(int)]
            who = np.where(past, drawn, who)
        off = drives >= self.settings.share
        self._waiting = self._waiting.copy()
        self._waiting[rows] = past & ~off & (not self._versions)
        return np.where(off, NOBODY, who).astype(np.int32)

    def due(self, steps: int) -> bool:
        """Say whether it is time for the driver in training to join, after so many steps of it."""
        return SELF in self.settings.drivers and steps >= self._join_at

    def admit(self, driver: Driver, steps: int) -> None:
        """Let the driver in training join its past versions; one leaves if there are too many.

        Who drives now is not changed by it: an episode keeps its driver to its end.
        """
        self._join_at = (steps // self.settings.every + 1) * self.settings.every
        if len(self._versions) == self.settings.keep:
            leaver = self._versions[0]
            if self.settings.leaves == "weakest":
                leaver = min(self._versions, key=self._went)
            self._versions.remove(leaver)
        self._versions.append(self.crew.add(driver))
        self._tidy()

    def _went(self, number: int) -> float:
        """Return how far an episode of a driver went in the mean [m]; far if none has ended yet."""
        episodes, metres = self._tally.get(number, (0, 0.0))
        return metres / episodes if episodes else np.inf

    def _tidy(self) -> None:
        """Let go of past versions that have left and whose last episode is over."""
        kept = {*self._saved, *self._versions, *np.unique(self.crew.seat).tolist()}
        for number in [n for n in self.crew.drivers if n not in kept]:
            self.crew.dismiss(number)
            self._tally.pop(number, None)

    @property
    def versions(self) -> list[Driver]:
        """The past versions that may be drawn, oldest first."""
        return [self.crew.drivers[number] for number in self._versions]

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, drivers included, as named arrays."""
        parts = {"world": self._world.save(), "crew": self.crew.save(), "rules": self._rules.save()}
        arrays = {f"{part}.{k}": v for part, found in parts.items() for k, v in found.items()}
        document = {
            "saved": self._saved,
            "versions": self._versions,
            "join_at": self._join_at,
            "tally": list(self._tally.items()),
            "seed": self._seed,
            "breadth": self._breadth,
        }
        written = np.frombuffer(json.dumps(document).encode(), np.uint8)
        return arrays | {
            "document": written.copy(),
            "due": self._due.copy(),
            "waiting": self._waiting.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""

        def part(name: str) -> dict[str, Array]:
            return {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{name}.")}

        self._world.restore(part("world"))
        self._rules.restore(part("rules"))
        self.crew.restore(part("crew"))
        document = json.loads(arrays["document"].tobytes())
        self._saved, self._versions = document["saved"], document["versions"]
        self._join_at, self._seed = document["join_at"], document["seed"]
        self._breadth = document["breadth"]
        self._tally = {number: tuple(found) for number, found in document["tally"]}
        self._due, self._waiting = arrays["due"].copy(), arrays["waiting"].copy()
        self._state = self._own(self._world.state)


def saved_rivals(settings: OpponentSettings, arrays: Mapping[str, Array]) -> dict[str, Driver]:
    """Return the drivers of `settings.drivers`, by the name there, that a training was saved with.

    Args:
        settings: of that training.
        arrays: what its environment returned when it was saved.
    """
    marker = "crew.document"
    prefix = next((k.removesuffix(marker) for k in arrays if k.endswith(marker)), None)
    if prefix is None:
        return {}
    own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    crew = {k.removeprefix("crew."): v for k, v in own.items() if k.startswith("crew.")}
    there = saved_drivers(crew)
    numbers = json.loads(own["document"].tobytes())["saved"]
    names = [name for name in settings.drivers if name != SELF]
    return {name: there[number] for name, number in zip(names, numbers, strict=True)}
