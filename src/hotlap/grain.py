"""Grain: the noise of images, a hash for each pixel.

An image has so many numbers that those of `draws.normal` would cost more than its picture.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["add_grain", "grain"]

_u4, _i4, _f4, _u8 = np.uint32, np.int32, np.float32, np.uint64


@njit(nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def grain(index, low, high):  # type: ignore[no-untyped-def]
    """Draw one nearly normal number for pixel `index` of an image whose key has two halves.

    It is the sum of the four bytes of a hash: mean 0, deviation 1, in +-3.46, in steps of 0.0068;
    excess kurtosis -0.3. It costs a tenth of `draws.normal`.

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
        key: (N,) uint64, from `draws.keys`.
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
