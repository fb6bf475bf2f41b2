"""Starts: where episodes begin, drawn by row and episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat

from hotlap.config import Settings
from hotlap.draws import Purpose, uniform
from hotlap.simulator import Start
from hotlap.track import Track
from hotlap.types import Array, Float32

__all__ = ["GRID", "StartSettings", "Starts"]

GRID = 0.75
"""Metres of road between two cars of a starting grid, as DeepRacer's START_POS_OFFSET."""


class StartSettings(Settings):
    """Where episodes begin."""

    kind: Literal["random", "line", "round_robin", "spread"] = "random"
    """random: anywhere on the course, off the line, rolling. line: at rest on the start line.
    round_robin: at rest on the line, a share of the lap further each time (DeepRacer). spread: at
    rest, the cars evenly over the lap (on an open track at its beginning), the first on the line,
    the others a little off it."""
    offset: float = Field(0.0, ge=0, lt=1)
    """Start line, as a share of the lap; on an open track, of its first half."""
    advance: float = Field(0.05, ge=0, le=1)
    """Share of the lap between two starts of `round_robin`."""
    direction: Literal["forward", "reversed", "alternate"] = "forward"
    """Driving direction; `alternate` changes it each episode."""
    lateral: float = Field(0.5, ge=0, le=1)
    """Greatest offset of a random start, as a share of the half road."""
    heading_deg: NonNegativeFloat = 15.0
    """Greatest heading error of a random start [degrees]."""
    speed: NonNegativeFloat = 2.0
    """Greatest speed of a random start [m/s]; three in ten starts are at rest."""


class Starts:
    """Draws where rows begin their episodes.

    Args:
        settings: where episodes begin.
        tracks: the courses of the simulator; with `alternate` those driven forwards, then the same
            ones driven backwards.
        cars: how many cars share a world; those of a world get the same course.
        rows: how many rows `spread` spreads over the lap.
        first: which of them is the first that is drawn for.
    """

    def __init__(
        self,
        settings: StartSettings,
        tracks: Sequence[Track],
        *,
        cars: int,
        rows: int,
        first: int = 0,
    ) -> None:
        self.settings = settings
        self._heading = np.radians(settings.heading_deg)
        halves = [np.minimum(track.stations.left, track.stations.right) for track in tracks]
        self._halves = np.concatenate(halves).astype(np.float32)
        self._counts = np.array([len(half) for half in halves])
        self._begins = np.cumsum(self._counts) - self._counts  # where in `_halves` a track begins
        self._lengths = np.array([track.length for track in tracks], np.float32)
        self._closed = np.array([track.closed for track in tracks])
        self._named = len(tracks) // (2 if settings.direction == "alternate" else 1)
        self._cars, self._rows, self._first = cars, rows, first

    def draw(
        self, rows: Array, ids: Array, episode: Array, *, seed: int, breadth: float = 1.0
    ) -> tuple[Start, Float32]:
        """Draw the starts of M rows.

        Args:
            rows: (M,) which rows.
            ids: (M,) their global ids.
            episode: (M,) the episodes that begin.
            seed: of the draws.
            breadth: how much of the ranges of what is randomised the world draws from.

        Returns:
            The starts, and (M,) in (0, 1) how much of a first episode's time may be over already.
        """
        settings, at = self.settings, rows + self._first
        share: Array
        zero: Array = np.zeros(len(rows), np.float32)
        draws = uniform(seed, ids, episode, zero.astype(np.int64), Purpose.START, 5)
        team, place = ids // self._cars, ids % self._cars
        track = (team % self._named).astype(np.int32)
        if settings.direction == "alternate":
            track = track + (self._named * (episode % 2)).astype(np.int32)
        length = self._lengths[track]
        if settings.kind == "spread":
            share, speed = np.asarray((settings.offset + at / self._rows) % 1), zero
            heading = np.radians(5) * (2 * draws[:, 2] - 1) * (at > 0)
        elif settings.kind == "random":
            share, speed = draws[:, 0], np.maximum(0, draws[:, 3] * 1.43 - 0.43) * settings.speed
            heading = (2 * draws[:, 2] - 1) * self._heading
        else:
            # each car begins one advance behind the next, so that a batch sees the whole lap
            turn = (episode + team) * settings.advance if settings.kind == "round_robin" else 0
            grid = place * GRID / length
            share, speed, heading = (settings.offset + zero + turn - grid) % 1, zero, zero
        share = np.where(
            self._closed[track], share, 0.0 if settings.kind == "spread" else share * 0.5
        )
        n = zero
        if settings.kind in ("random", "spread"):
            lateral = settings.lateral if settings.kind == "random" else 0.2 * (at > 0)
            n = (2 * draws[:, 1] - 1) * lateral * self.half_road(track, share)
        elif self._cars > 1:  # a grid: left and right in turn
            n = (1 - 2 * (place % 2)) * 0.5 * self.half_road(track, share)
        start = Start(
            track=track,
            s=(share * length * np.float32(1 - 1e-6)).astype(np.float32),
            n=n.astype(np.float32),
            heading_error=heading.astype(np.float32),
            speed=np.asarray(speed, np.float32),
            seed=seed,
            breadth=breadth,
        )
        return start, draws[:, 4]

    def half_road(self, track: Array, share: Array) -> Float32:
        """Return (M,) the smaller distance to a border [m] at shares of the lap."""
        count = self._counts[track]
        k = np.minimum((share * count.astype(share.dtype)).astype(int), count - 1)
        half: Float32 = self._halves[self._begins[track] + k]
        return half
