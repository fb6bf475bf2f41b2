"""Random draws by counter: the number depends on who asks, when and for what, and on nothing else.

A draw is a pure function of (seed, row, episode, step, purpose, index). So the same row gets the
same draws on any number of threads, workers and machines, in any order, and after any interruption;
adding rows does not change the others.

Source: the mixing function is the 64-bit finaliser of SplitMix (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), applied once for each part of the key.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numba import njit

from hotlap.types import Array, Float32

__all__ = ["Purpose", "add_grain", "generator", "grain", "keys", "normal", "uniform"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = 0xFFFFFFFFFFFFFFFF


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
    with np.errstate(over="ignore"):
        key = keys(seed, row, episode, step, purpose)
        bits = _mix(key[..., None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    # 23 bits and a half: the middle of 2**23 equal bins, so that 0 and 1 cannot occur in float32.
    return ((bits >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)


def keys(seed: int, row: Array, episode: Array, step: Array, purpose: Purpose) -> Array:
    """Return (N,) uint64 keys, from which alone the draws of `uniform` and `grain` follow."""
    with np.errstate(over="ignore"):
        key = _mix(np.asarray(seed & _MASK, np.uint64) + _GOLDEN)
        key = _mix(key ^ np.asarray(row).astype(np.uint64))
        key = _mix(key ^ np.asarray(episode).astype(np.uint64))
        key = _mix(key ^ np.asarray(step).astype(np.uint64))
        return _mix(key ^ np.uint64(purpose))


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


def _mix(key: Array) -> Array:
    key = key + _GOLDEN
    key = (key ^ (key >> np.uint64(30))) * _MIX_1
    key = (key ^ (key >> np.uint64(27))) * _MIX_2
    return np.asarray(key ^ (key >> np.uint64(31)), dtype=np.uint64)


_u4, _i4, _f4, _u8 = np.uint32, np.int32, np.float32, np.uint64


@njit(nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def grain(index, low, high):  # type: ignore[no-untyped-def]
    """Draw one nearly normal number for pixel `index` of an image whose key has two halves.

    It is the sum of the four bytes of a hash: mean 0, deviation 1, in +-3.46, in steps of 0.0068;
    excess kurtosis -0.3. It costs a tenth of `normal`.

    Source: the hash is of the kind found by Wellons 2018, "Prospecting for hash functions", with
    half of the key before and half of it between its rounds.
    """
    h = _u4(_u4(index * _u4(0x9E3779B9)) + low)
    h = _u4(_u4(h ^ (h >> _u4(16))) * _u4(0x21F0AAAD))
    h = _u4(_u4(h ^ (h >> _u4(15))) + high)
    h = _u4(_u4(h ^ (h >> _u4(16))) * _u4(0x735A2D97))
    h = _u4(h ^ (h >> _u4(15)))
    total = (h & _u4(255)) + ((h >> _u4(8)) & _u4(255)) + ((h >> _u4(16)) & _u4(255))
    # four bytes: mean 4 * 127.5, variance 4 * (256**2 - 1) / 12
    return (_f4(_i4(_u4(total + (h >> _u4(24))))) - _f4(510)) * _f4(1 / 147.80054)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def add_grain(start, stop, images, size, key, deviation):  # type: ignore[no-untyped-def]
    """Add to the images start..stop, in place, `grain` of deviation[pixel value] each.

    Args:
        start: first image.
        stop: behind the last one.
        images: (N * size,) uint8.
        size: pixels times channels of an image.
        key: (N,) uint64, from `keys`.
        deviation: (256,) float32, in grey levels.
    """
    z = np.empty(size, np.float32)
    for image in range(start, stop):
        low, high = _u4(key[image]), _u4(key[image] >> _u8(32))
        first = _u8(image * size)
        for i in range(size):
            z[i] = grain(_u4(i), low, high)
        for i in range(size):  # apart from the others: LLVM does not vectorise a table's look-up
            value = images[first + _u8(i)]
            z[i] = _f4(value) + deviation[value] * z[i] + _f4(0.5)
        for i in range(size):
            images[first + _u8(i)] = np.uint8(_i4(min(max(z[i], _f4(0)), _f4(255))))
