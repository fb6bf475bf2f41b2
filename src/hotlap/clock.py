"""The clock of a sensor: its own rate, latency, jitter, lost readings and noise, for N cars.

A driver acts at control steps. Between what a sensor could measure now and what the driver knows of
it lies the clock: a reading is taken when the sensor's period has passed, it may get lost, and it
arrives some time later. Until a newer one arrives, the driver sees the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field, NonNegativeFloat

from hotlap.config import Settings
from hotlap.draws import Purpose, keys, normal, uniform
from hotlap.errors import ConfigError
from hotlap.grain import add_grain
from hotlap.types import Array

__all__ = ["Clock", "ClockSettings"]

_STREAMS = 16
"""Clocks of one car that may draw independently."""
_ROUNDING = 1e-6
"""Steps by which sums of times may miss a whole step."""
_LONGEST = 1000
"""Most steps that a reading may be under way."""


class ClockSettings(Settings):
    """When a sensor measures, when the driver hears of it, and how exactly. All off by default."""

    rate: NonNegativeFloat = 0.0
    """Readings in a second [Hz], each at the first control step after its time; 0: every step."""
    latency: NonNegativeFloat = 0.0
    """From a reading to the driver [s], rounded up to whole control steps."""
    jitter: NonNegativeFloat = 0.0
    """Greatest further delay of a reading [s]; each draws its own, evenly between 0 and this."""
    drop: float = Field(0.0, ge=0, le=1)
    """Share of the readings that never arrive; the first of an episode always does."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation that each number of a reading has, in its own unit."""
    noise_share: NonNegativeFloat = 0.0
    """Standard deviation that each number has, as a share of itself."""

    @property
    def perfect(self) -> bool:
        """Whether the driver sees everything at once and as it is."""
        return self == ClockSettings() or not any(self.model_dump().values())


class Clock:
    """Remembers what N cars' sensor has measured, and tells what their drivers see of it.

    It must be asked at each control step; asked again at the same step it answers the same. What it
    draws depends on seed, row, episode and step alone. Only its owner may call it.

    Args:
        settings: when and how exactly.
        rows: how many cars.
        dt: seconds between control steps.
        stream: 0 to 15; clocks of the same cars draw independently if their streams differ.

    Raises:
        ConfigError: a reading would be under way for more than 1000 control steps.
    """

    def __init__(self, settings: ClockSettings, rows: int, *, dt: float, stream: int = 0) -> None:
        self.settings = settings
        self._rows, self._dt, self._stream = rows, dt, stream
        self._latency, self._jitter = settings.latency / dt, settings.jitter / dt
        self._rate = min(settings.rate * dt, 1.0) if settings.rate else 1.0
        longest = math.ceil(self._latency + self._jitter - _ROUNDING)
        if longest > _LONGEST:
            raise ConfigError(
                f"clock: latency {settings.latency:g} s and jitter {settings.jitter:g} s make "
                f"{longest} control steps of {dt:g} s; at most {_LONGEST} are remembered"
            )
        # Under way at once, then the one that is seen, then the newest.
        self._slots = math.ceil(longest * self._rate) + 2
        self._taken = np.full((rows, self._slots), -1, np.int32)
        self._arrives = np.full((rows, self._slots), -1, np.int32)
        self._asked = np.full((2, rows), -1, np.int32)  # episode and step
        self._readings: Array | None = None

    def see(
        self,
        read: Callable[[Array], Array],
        rows: Array,
        *,
        seed: int,
        row: Array,
        episode: Array,
        steps: Array,
    ) -> Array:
        """Return what the drivers of M cars see now.

        Args:
            read: measures the given rows (an index array, L of them): (L, ...), always of the same
                shape and dtype. It is called for those rows only whose sensor takes a reading now
                that will arrive, and not at all if there are none: what nobody sees is not drawn.
            rows: (M,) which cars, no one twice.
            seed: of the draws.
            row: (M,) their global ids.
            episode: (M,) their episodes.
            steps: (M,) control steps since the start of their episodes; at 0 all is forgotten.

        Returns:
            (M, ...) a new array of the sensor's dtype.
        """
        key = np.stack([episode, steps]).astype(np.int32)
        fresh = (key != self._asked[:, rows]).any(axis=0)
        begins = fresh & ((self._asked[0, rows] != key[0]) | (steps == 0))
        started = rows[begins]
        self._taken[started] = self._arrives[started] = -1
        self._asked[:, rows] = key

        k = steps.astype(np.float64)
        count = np.floor(k * self._rate + _ROUNDING)
        due = fresh & (begins | (count > np.floor((k - 1) * self._rate + _ROUNDING)))
        delay = np.full(len(rows), self._latency)
        if self.settings.drop or self.settings.jitter:
            draws = uniform(seed, row, episode, self._counter(steps), Purpose.CLOCK, 2)
            due &= begins | (draws[:, 0] >= self.settings.drop)
            delay = delay + self._jitter * draws[:, 1]
        if due.any():
            self._remember(read, rows, np.flatnonzero(due), seed, row, episode, steps)
            late = np.where(begins, 0, np.ceil(delay - _ROUNDING)).astype(np.int32)
            slot = self._newest(rows[due])
            self._arrives[rows[due], slot] = (steps + late)[due]
        assert self._readings is not None  # a car that is asked for the first time takes a reading
        there = (self._taken[rows] >= 0) & (self._arrives[rows] <= np.asarray(steps)[:, None])
        shown = np.where(there, self._taken[rows], -1).argmax(axis=1)
        seen: Array = self._readings[rows, shown]
        return seen

    def _counter(self, steps: Array) -> Array:
        return np.asarray(steps, np.int64) * _STREAMS + self._stream

    def _newest(self, rows: Array) -> Array:
        return np.asarray(self._taken[rows].argmax(axis=1))

    def _remember(
        self,
        read: Callable[[Array], Array],
        rows: Array,
        due: Array,
        seed: int,
        row: Array,
        episode: Array,
        steps: Array,
    ) -> None:
        """Take readings in place of the oldest ones, which nobody will see any more."""
        found = np.asarray(read(rows[due]))
        if self.settings.noise or self.settings.noise_share:
            found = self._noisy(found, seed, (row[due], episode[due], self._counter(steps)[due]))
        if self._readings is None:
            shape = (self._rows, self._slots, *found.shape[1:])
            self._readings = np.zeros(shape, found.dtype)
        oldest = self._taken[rows[due]].argmin(axis=1)
        self._readings[rows[due], oldest] = found
        self._taken[rows[due], oldest] = steps[due]

    def forget(self) -> None:
        """Begin anew: every car takes a reading when it is asked next, and sees it at once."""
        self._asked[:] = -1

    def _noisy(self, found: Array, seed: int, which: tuple[Array, Array, Array]) -> Array:
        size, noise = math.prod(found.shape[1:]), np.float32(self.settings.noise)
        if found.dtype == np.uint8:  # an image: so many numbers want cheaper draws
            found = np.array(found)
            share = np.float32(self.settings.noise_share) * np.arange(256, dtype=np.float32)
            key = keys(seed, *which, Purpose.NOISE)
            add_grain(0, len(found), found.reshape(-1), size, key, np.hypot(noise, share))
            return found
        draws = normal(seed, *which, Purpose.NOISE, size).reshape(found.shape)
        share = np.float32(self.settings.noise_share) * np.abs(found)
        noisy = found + np.hypot(noise, share).astype(np.float32) * draws
        if np.issubdtype(found.dtype, np.integer):
            limits = np.iinfo(found.dtype)
            noisy = np.clip(np.rint(noisy), limits.min, limits.max)
        return np.asarray(noisy.astype(found.dtype))

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        arrays = {"taken": self._taken, "arrives": self._arrives, "asked": self._asked}
        if self._readings is not None:
            arrays["readings"] = self._readings
        return {name: array.copy() for name, array in arrays.items()}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._taken, self._arrives = arrays["taken"].copy(), arrays["arrives"].copy()
        self._asked = arrays["asked"].copy()
        self._readings = arrays["readings"].copy() if "readings" in arrays else None
