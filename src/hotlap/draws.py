"""Random draws by counter: the number depends on who asks, when and for what, and on nothing else.

A draw is a pure function of (seed, row, episode, step, purpose, index). So the same row gets the
same draws on any number of threads, workers and machines, in any order, and after any interruption;
adding rows does not change the others.

Source: the mixing function is the 64-bit finaliser of SplitMix (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), applied once for each part of the key.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit

from hotlap.types import Array, Float32

__all__ = ["Purpose", "generator", "keys", "normal", "uniform"]

_u8, _f4 = np.uint64, np.float32
_GOLDEN = _u8(0x9E3779B97F4A7C15)
_MIX_1 = _u8(0xBF58476D1CE4E5B9)
_MIX_2 = _u8(0x94D049BB133111EB)
_MASK = 0xFFFFFFFFFFFFFFFF
_inline: Any = njit(error_model="numpy", forceinline=True)


class Purpose(IntEnum):
    """What a draw is for; two purposes never share a stream."""

    ACTION = 1
    START = 2
    CHECK = 3
    TRAFFIC = 4
    DOMAIN = 5
    SENSOR = 6
    CLOCK = 7
    NOISE = 8
    ODOMETRY = 9
    ODOMETRY_START = 10
    ODOMETRY_DRIFT = 11
    IMU = 12
    IMU_START = 13
    IMU_DRIFT = 14
    OPTICS = 15
    COURSE = 20
    OPPONENT = 30
    RACE = 31


def uniform(
    seed: int, row: Array, episode: Array, step: Array, purpose: Purpose, count: int
) -> Float32:
    """Draw uniform numbers for N rows.

    Args:
        seed: the run's seed.
        row: (N,) global ids of the rows.
        episode: (N,) episode number of each row.
        step: (N,) control step within the episode of each row.
        purpose: what the draws are for.
        count: how many numbers a row gets.

    Returns:
        (N, count) float32 inside the open interval (0, 1): 23 random bits, never 0 and never 1.
    """
    key = keys(seed, row, episode, step, purpose)
    out = np.empty((len(key), count), np.float32)
    _draw(key, out)
    return out


def keys(seed: int, row: Array, episode: Array, step: Array, purpose: Purpose) -> Array:
    """Return (N,) uint64 keys, from which alone the draws of `uniform` and `grain` follow."""
    key = np.asarray(row).astype(np.uint64)
    then = np.asarray(episode).astype(np.uint64), np.asarray(step).astype(np.uint64)
    _fold(_u8(seed & _MASK), *then, _u8(purpose), key)
    return key


def normal(
    seed: int, row: Array, episode: Array, step: Array, purpose: Purpose, count: int
) -> Float32:
    """Draw normal numbers of mean 0 and deviation 1 for N rows; arguments as for `uniform`.

    Returns:
        (N, count) float32 in (-5.8, 5.8).

    Source: Box and Muller 1958, "A note on the generation of random normal deviates".
    """
    half = (count + 1) // 2
    draws = uniform(seed, row, episode, step, purpose, 2 * half)
    size = np.sqrt(np.float32(-2.0) * np.log(draws[:, :half]))
    turn = np.float32(2.0 * np.pi) * draws[:, half:]
    return np.concatenate([size * np.cos(turn), size * np.sin(turn)], axis=1)[:, :count]


def generator(seed: int, count: int | None = None) -> np.random.Generator:
    """Return a stream of NumPy's, for draws of no row: a learner's first weights and shuffles.

    Args:
        seed: the run's seed.
        count: which of the seed's streams, from 0; None: one beside all of these.
    """
    if count is None:
        return np.random.Generator(np.random.Philox(seed & _MASK))
    # As a list NumPy would make floats of seeds from 2**63 on, and drop their last digits.
    return np.random.Generator(np.random.Philox(key=np.array([seed & _MASK, count], np.uint64)))


@_inline
def _mix(key):  # type: ignore[no-untyped-def]
    key = key + _GOLDEN
    key = (key ^ (key >> _u8(30))) * _MIX_1
    key = (key ^ (key >> _u8(27))) * _MIX_2
    return key ^ (key >> _u8(31))


@njit(cache=True, nogil=True, error_model="numpy")
def _fold(seed, episode, step, purpose, key):  # type: ignore[no-untyped-def]
    """Make the keys, in place of the rows."""
    first = _mix(seed + _GOLDEN)
    for i in range(len(key)):
        each = _mix(_mix(_mix(first ^ key[i]) ^ episode[i]) ^ step[i])
        key[i] = _mix(each ^ purpose)


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(key, out):  # type: ignore[no-untyped-def]
    """Write the numbers that follow from the keys."""
    for i in range(len(key)):
        for k in range(out.shape[1]):
            bits = _mix(key[i] + _GOLDEN * _u8(k + 1)) >> _u8(41)
            # 23 bits and a half: the middle of 2**23 equal bins, so that 0 and 1 cannot occur in
            # float32.
            out[i, k] = (_f4(bits) + _f4(0.5)) * _f4(2.0**-23)
