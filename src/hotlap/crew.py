"""Crew: saved drivers at the wheel of some of the cars of one world, each seeing in its own way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from hotlap.algorithms.batch import below
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.simulator import Command
from hotlap.types import Array, Float32

__all__ = ["NOBODY", "Crew", "Driver", "Eyes", "saved_drivers"]

NOBODY = -1
"""In `Crew.seat`: no driver of the crew drives this car."""
_BLOCK = 32
"""Rows that a policy is asked about at once, filled up: a matrix product of another shape may round
otherwise, and what a driver does must not depend on how many other cars it drives."""


class Eyes(Protocol):
    """A task on a world that others step: what a driver sees, and what its answers mean."""

    def observe(self, rows: Array | None = None) -> dict[str, Array]:
        """Return the observations of the given rows, by name."""

    def decode(self, action: Array) -> Command:
        """Turn the answers of M drivers into commands."""

    def look_on(self) -> None:
        """Take in the step that the world has just made."""

    def sit(self, rows: Array) -> None:
        """Begin an episode in rows that the world has just put on the road."""

    def save_senses(self) -> dict[str, Array]:
        """Return what looking on needs to continue exactly."""

    def restore_senses(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save_senses` returned."""


class Driver:
    """A saved driver: a policy, and the task it was trained for.

    Args:
        name: what people call it.
        task: its settings of an environment, complete and ready for JSON.
        description: of its policy.
        arrays: of its policy; copied, as a learner goes on to change its own.

    Raises:
        RunError: the description is not one, or the arrays do not fit it.
    """

    def __init__(
        self,
        name: str,
        task: Mapping[str, Any],
        description: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> None:
        self.name = name
        self.task = dict(task)
        self.description = dict(description)
        self.arrays = {key: np.array(value) for key, value in arrays.items()}
        self.policy = NumpyPolicy(self.description, self.arrays)
        self.task_key = json.dumps(self.task, sort_keys=True)

    task_key: str
    """Equal for drivers that see alike and act alike."""

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that tell policies apart, whatever they are called."""
        found = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode())
        for key in sorted(self.arrays):
            found.update(key.encode() + np.ascontiguousarray(self.arrays[key]).tobytes())
        return found.hexdigest()[:8]

    def act(self, observation: Mapping[str, Array]) -> Array:
        """Choose the best action for each of M rows, which all begin an episode; see `step`."""
        rows = len(next(iter(observation.values()))) if observation else 0
        return self.step(observation, np.zeros((rows, self.policy.memory), np.float32))[0]

    def step(self, observation: Mapping[str, Array], memory: Float32) -> tuple[Array, Float32]:
        """Choose the best action for each of M rows; an answer depends on its own row alone.

        Args:
            observation: by name, (M, ...).
            memory: (M, `policy.memory`), what the step before returned; 0 where an episode begins.

        Returns:
            The actions, and what to give to the next step.
        """
        seen = {name: observation[name] for name in self.policy.names if name in observation}
        rows = len(next(iter(seen.values()))) if seen else 0
        if not rows:
            return self.policy.step(observation, memory)
        padded = -(-rows // _BLOCK) * _BLOCK
        for name, found in {**seen, "": memory}.items():
            room = np.zeros((padded, *found.shape[1:]), found.dtype)
            room[:rows] = found
            seen[name] = room
        carried = seen.pop("")
        blocks = [
            self.policy.step(
                {name: found[at : at + _BLOCK] for name, found in seen.items()},
                carried[at : at + _BLOCK],
            )
            for at in range(0, padded, _BLOCK)
        ]
        action, after = (np.concatenate(parts)[:rows] for parts in zip(*blocks, strict=True))
        return action, after


class Crew:
    """Who drives which row of a world, and what all of them do next.

    Drivers of the same task look through the same eyes, so that a row is observed once; each policy
    runs once a step, on all the rows that it drives. Its owner is whoever steps the world.

    Args:
        rows: how many cars the world has.
        open_eyes: makes the eyes of a task on that world.
    """

    def __init__(self, rows: int, open_eyes: Callable[[Mapping[str, Any]], Eyes]) -> None:
        self.seat = np.full(rows, NOBODY, np.int32)
        self.drivers: dict[int, Driver] = {}
        self._open = open_eyes
        self._eyes: dict[str, Eyes] = {}
        self._next = 0
        self._groups: list[tuple[Eyes, list[int]]] = []
        self.chosen = np.full(rows, -1)
        self._memory: dict[int, Float32] = {}  # (N, carried) by driver, of those that remember

    seat: Array
    """(N,) number of the driver of each row, or NOBODY."""
    drivers: dict[int, Driver]
    """By number; a number is given once."""
    chosen: Array
    """(N,) number of the action that each row's driver chose last; -1 where they have none."""

    def add(self, driver: Driver) -> int:
        """Take a driver in, and return its number."""
        number, self._next = self._next, self._next + 1
        self.drivers[number] = driver
        if driver.policy.memory:
            self._memory[number] = np.zeros((len(self.seat), driver.policy.memory), np.float32)
        self._group()
        return number

    def dismiss(self, number: int) -> None:
        """Let go of a driver that drives nothing."""
        assert not (self.seat == number).any()
        del self.drivers[number]
        self._memory.pop(number, None)
        self._group()

    def take(self, rows: Array, who: Array) -> None:
        """Put drivers (M,) into rows (M,) whose episodes have just begun; NOBODY empties a seat."""
        self.seat = self.seat.copy()
        self.seat[rows] = who
        for memory in self._memory.values():
            memory[rows] = 0.0
        for eyes, numbers in self._groups:
            mine = rows[np.isin(who, numbers)]
            if len(mine):
                eyes.sit(mine)

    def look_on(self) -> None:
        """Take in the step that the world has just made, before anybody begins anew."""
        for eyes in self._eyes.values():
            eyes.look_on()

    def command(self) -> Command:
        """Return what the drivers ask of their cars; zeros for the cars of others."""
        steering, speed = np.zeros((2, len(self.seat)), np.float32)
        for eyes, numbers in self._groups:
            rows = np.flatnonzero(np.isin(self.seat, numbers))
            if not len(rows):
                continue
            seen, seat = eyes.observe(rows), self.seat[rows]
            action: Array | None = None
            for number in numbers:
                mine = np.flatnonzero(seat == number)
                if len(mine):
                    part = {k: v[mine] for k, v in seen.items()}
                    chosen = self._ask(number, rows[mine], part)
                    if action is None:
                        action = np.empty((len(rows), *chosen.shape[1:]), chosen.dtype)
                    action[mine] = chosen
                    if chosen.dtype.kind in "iu":
                        self.chosen[rows[mine]] = chosen
            assert action is not None
            wanted = eyes.decode(action)
            steering[rows], speed[rows] = wanted.steering, wanted.speed
        return Command(steering=steering, speed=speed)

    def _ask(self, number: int, rows: Array, seen: Mapping[str, Array]) -> Array:
        """Return what a driver does in its rows, and remember what it carries on."""
        memory = self._memory.get(number)
        if memory is None:
            return self.drivers[number].act(seen)
        action, memory[rows] = self.drivers[number].step(seen, memory[rows])
        return action

    def _group(self) -> None:
        """Give each task its eyes, and note who looks through them."""
        groups: dict[str, list[int]] = {}
        for number, driver in self.drivers.items():
            groups.setdefault(driver.task_key, []).append(number)
        self._eyes = {
            key: self._eyes.get(key) or self._open(self.drivers[numbers[0]].task)
            for key, numbers in groups.items()
        }
        self._groups = [(self._eyes[key], numbers) for key, numbers in groups.items()]

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, drivers included, as named arrays."""
        listed = [
            {"number": n, "name": d.name, "task": d.task, "description": d.description}
            for n, d in self.drivers.items()
        ]
        document = json.dumps({"next": self._next, "drivers": listed}).encode()
        arrays: dict[str, Array] = {
            "seat": self.seat.copy(),
            "document": np.frombuffer(document, np.uint8).copy(),
        }
        for number, driver in self.drivers.items():
            arrays |= {f"driver{number}.{k}": v.copy() for k, v in driver.arrays.items()}
        arrays |= {f"memory{number}": memory.copy() for number, memory in self._memory.items()}
        for eyes, numbers in self._groups:
            saved = eyes.save_senses()
            arrays |= {f"eyes{numbers[0]}.{k}": v for k, v in saved.items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned; the world has to be restored before."""
        document = json.loads(arrays["document"].tobytes())
        self.drivers, self._eyes, self._next = saved_drivers(arrays), {}, document["next"]
        self._memory = {
            number: np.array(arrays[f"memory{number}"], np.float32)
            for number, driver in self.drivers.items()
            if driver.policy.memory
        }
        self._group()
        self.seat = np.asarray(arrays["seat"]).copy()
        for eyes, numbers in self._groups:
            eyes.restore_senses(below(arrays, f"eyes{numbers[0]}."))


def saved_drivers(arrays: Mapping[str, Array]) -> dict[int, Driver]:
    """Return the drivers in what `Crew.save` returned, by number."""
    document = json.loads(arrays["document"].tobytes())
    return {
        saved["number"]: Driver(
            saved["name"],
            saved["task"],
            saved["description"],
            below(arrays, f"driver{saved['number']}."),
        )
        for saved in document["drivers"]
    }
