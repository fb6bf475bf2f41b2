"""Random draws by counter: the number depends on who asks, when and for what, and on nothing else.

A draw is a pure function of (seed, row, episode, step, purpose, index). So the same row gets the
same draws on any number of threads, workers and machines, in any order, and after any interruption;
adding rows does not change the others.

Source: the mixing function is the 64-bit finaliser of SplitMix (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators"), applied once for each part of the key.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit

from hotlap.types import Array, Float32, Float64

__all__ = ["Purpose", "generator", "keys", "normal", "normal_quantile", "uniform"]

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


def normal_quantile(uniform: Array) -> Float64:
    """Return the standard normal number below which a share of `uniform`, in (0, 1), lies.

    Source: Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution",
    PPND16; relative error about 1e-16.
    """
    shares = np.ascontiguousarray(uniform, np.float64)
    found = np.empty_like(shares)
    _quantiles(shares.ravel(), found.ravel())
    return found


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


# The polynomials of AS 241: around the middle, towards the tails, and far out.
# fmt: off
_A = (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
      4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
      1.3314166789178437745e2, 3.3871328727963666080e0)
_B = (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
      2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
      4.2313330701600911252e1, 1.0)
_C = (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
      1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
      4.63033784615654529590e0, 1.42343711074968357734e0)
_D = (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
      1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
      2.05319162663775882187e0, 1.0)
_E = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
      2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
      5.46378491116411436990e0, 6.65790464350110377720e0)
_F = (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
      7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
      5.99832206555887937690e-1, 1.0)
# fmt: on


@_inline
def _series(terms, x):  # type: ignore[no-untyped-def]
    """Evaluate a polynomial, the highest power first."""
    total = 0.0
    for k in range(len(terms)):
        total = total * x + terms[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _quantiles(share, out):  # type: ignore[no-untyped-def]
    """Write the normal numbers below which shares lie."""
    for i in range(len(share)):
        p = share[i]
        q = p - 0.5
        if abs(q) <= 0.425:
            near = 0.180625 - q * q
            out[i] = q * _series(_A, near) / _series(_B, near)
        else:
            tail = math.sqrt(-math.log(min(p, 1.0 - p)))
            if tail <= 5.0:
                size = _series(_C, tail - 1.6) / _series(_D, tail - 1.6)
            else:
                size = _series(_E, tail - 5.0) / _series(_F, tail - 5.0)
            out[i] = math.copysign(size, q)
