"""The contract of a world: rows of cars that are put on a track, commanded and observed.

A row is one car. Every array has one entry a row; `State.world` says who shares a track.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from hotlap.track import Track
from hotlap.types import Array, Float32, Int32

__all__ = [
    "BOX_FIELDS",
    "ROW_FIELDS",
    "SURROUNDINGS",
    "Command",
    "Simulator",
    "Start",
    "State",
    "Surroundings",
]

BOX_FIELDS = ("x", "y", "cos", "sin", "half_length", "half_width", "height", "kind")
"""Columns of an array of boxes (M, K, 8), float32: what stands or drives around M cars, at most K
around each. Centre [m], direction of its length, half sizes [m], height [m]; a height of 0 means
that there is no box. Kinds: 0 an obstacle, 1 a car. Camera, LIDAR and collision read the same."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is around N cars: obstacles first, then bots, then the other cars of the world."""

    boxes: Float32
    """(N, K, 8) by `BOX_FIELDS`."""
    s: Float32
    """(N, K) arc length of each box [m]."""
    n: Float32
    """(N, K) its offset from the centre line [m]."""
    speed: Float32
    """(N, K) its speed [m/s]."""
    contact: Int32
    """(N,) index of the box that the car touches, the deepest of several; -1 if none."""


@dataclass(frozen=True, eq=False)
class State:
    """What is true of N cars at one moment. SI units, float32 unless said; NaN where unknown."""

    x: Float32
    """(N,) centre of gravity [m]."""
    y: Float32
    """(N,) centre of gravity [m]."""
    yaw: Float32
    """(N,) heading of the body [rad], in [-pi, pi), 0 along +x, counter-clockwise."""
    vx: Float32
    """(N,) forward speed of the centre of gravity in the body's frame [m/s]."""
    vy: Float32
    """(N,) speed to the left in the body's frame [m/s]."""
    yaw_rate: Float32
    """(N,) [rad/s], counter-clockwise."""
    steering: Float32
    """(N,) angle the front wheels have reached [rad], positive left."""
    reference: Float32
    """(N,) speed that the motor controller aims at after its lag [m/s]."""
    drive: Float32
    """(N,) longitudinal force of the motor over the mass [m/s^2], negative when it brakes."""
    station: Int32
    """(N,) index of the track station behind the car, within the row's own track."""
    s: Float32
    """(N,) arc length along the centre line [m], in [0, track length)."""
    n: Float32
    """(N,) offset from the centre line [m], positive to the left of the driving direction."""
    heading_error: Float32
    """(N,) yaw minus the heading of the centre line [rad], in [-pi, pi)."""
    curvature: Float32
    """(N,) of the centre line at `s` [1/m], positive in a left turn."""
    left: Float32
    """(N,) distance from the centre line to the left border at `s` [m]."""
    right: Float32
    """(N,) distance from the centre line to the right border at `s` [m]."""
    advance: Float32
    """(N,) centre-line metres won in the last step; negative when the car went back."""
    travelled: Float32
    """(N,) sum of `advance` since the start of the episode [m]; a lap is one track length."""
    wheels_off: Int32
    """(N,) how many of the four wheels are outside the borders, 0..4."""
    steps: Int32
    """(N,) control steps since the start of the episode."""
    episode: Int32
    """(N,) which episode of its row this is, from 0."""
    row: Array
    """(N,) int64 global id of the row; the random draws of a row depend on it."""
    track: Int32
    """(N,) index into `Simulator.tracks`."""
    world: Int32
    """(N,) rows with the same number share one track and meet each other."""
    around: Surroundings | None = None
    """What else is on the road; None where every car is alone."""


SURROUNDINGS = tuple(field.name for field in fields(Surroundings))
"""The arrays of Surroundings."""
ROW_FIELDS = tuple(field.name for field in fields(State) if field.name != "around")
"""The fields of a State that are arrays with one entry a row."""


@dataclass(frozen=True, eq=False)
class Command:
    """What the driver asks of N cars until the next control step."""

    steering: Float32
    """(N,) wanted angle of the front wheels [rad], positive left."""
    speed: Float32
    """(N,) wanted forward speed [m/s]."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where M rows begin an episode."""

    track: Int32
    """(M,) index into `Simulator.tracks`."""
    s: Float32
    """(M,) arc length [m]."""
    n: Float32
    """(M,) lateral offset [m]."""
    heading_error: Float32
    """(M,) [rad]."""
    speed: Float32
    """(M,) forward speed [m/s], rolling without slip."""
    seed: int = 0
    """Of what the world itself draws for these episodes, such as where obstacles stand."""
    breadth: float = 1.0
    """How much of the ranges of what is randomised the world draws from, in [0, 1]."""

    @classmethod
    def on_line(cls, rows: int, *, s: float = 0.0, track: int = 0) -> Start:
        """Place cars at rest on the centre line, aligned with it."""
        zero = np.zeros(rows, np.float32)
        return cls(
            track=np.full(rows, track, np.int32),
            s=np.full(rows, s, np.float32),
            n=zero,
            heading_error=zero,
            speed=zero,
        )


class Simulator(Protocol):
    """A world of N cars, native or bridged.

    Only its owner (a VectorEnv) may call `reset` and `step`. The arrays of a returned State belong
    to the caller: the simulator never writes to them again.
    """

    @property
    def rows(self) -> int:
        """How many cars there are."""

    @property
    def dt(self) -> float:
        """Seconds between two control steps."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The courses that rows drive on."""

    @property
    def provides(self) -> frozenset[str]:
        """Names of the State fields and sensors that it fills."""

    @property
    def state(self) -> State:
        """The state after the last `reset` or `step`."""

    def reset(self, rows: Array, start: Start) -> State:
        """Begin a new episode in the given rows (an index array) and leave the others alone."""

    def step(self, command: Command) -> State:
        """Advance every car by `dt`."""

    def sense(self, sensor: str, rows: Array | None = None) -> Array:
        """Read a sensor of the given rows (all if None): (M, ...) in the order of `rows`.

        Only what is asked for is computed.
        """

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
