"""Series: sines, tangents and roots of float32, for many numbers in one instruction.

The C library takes one number at a time. These are polynomials without branches, which LLVM runs
for 8 or 16 cars at once, and which are faster for one car too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "PI",
    "atan_positive",
    "cos_small",
    "prefer_512_bits",
    "root",
    "sin_cos",
    "sin_quarter",
    "tanh",
    "wrap",
]

_intrinsic: Any = intrinsic
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
# Without the promise that everything is a finite number.
_whole: Any = njit(
    fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy", forceinline=True
)

PI = np.float32(math.pi)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_TWO_PI, _HALF_PI = np.float32(2 * math.pi), np.float32(math.pi / 2)
_TURNS = np.float32(1 / (2 * math.pi))
_TINY = np.float32(1e-30)

# Minimax fits by Lawson's iteration in float64: sine on [0, pi/2], cosine on [0, 1.3], arctangent
# on [0, 1], each with its leading terms fixed, so that small angles stay exact.
_S3, _S5, _S7, _S9 = (
    np.float32(c) for c in (-1.66666571e-01, 8.33301729e-03, -1.98066151e-04, 2.60005465e-06)
)
_C2, _C4, _C6, _C8 = (
    np.float32(c) for c in (-4.99999849e-01, 4.16657935e-02, -1.38732225e-03, 2.36901069e-05)
)
_A3, _A5, _A7, _A9, _A11, _A13 = (
    np.float32(c)
    for c in (-0.33325395, 0.19861856, -0.13398801, 0.08216779, -0.03551991, 0.00737401)
)

# Odd over even polynomial of the hyperbolic tangent on [0, 9], fitted by the same iteration.
_T1, _T3, _T5, _T7, _T9 = (
    np.float32(c)
    for c in (9.99999906e-01, 1.33731976e-01, 3.48658176e-03, 2.04718266e-05, 1.31842149e-08)
)
_U2, _U4, _U6, _U8 = (
    np.float32(c) for c in (4.67064945e-01, 2.58419788e-02, 3.27138509e-04, 7.70266056e-07)
)
_FLAT = np.float32(9)
"""From here on the hyperbolic tangent of a float32 is 1."""


@_inline
def sin_quarter(angle):  # type: ignore[no-untyped-def]
    """Sine inside +-pi/2, error below 2e-7."""
    q = angle * angle
    return angle + angle * q * (_S3 + q * (_S5 + q * (_S7 + q * _S9)))


@_inline
def cos_small(angle):  # type: ignore[no-untyped-def]
    """Cosine inside +-1.3 rad, error below 2e-7."""
    q = angle * angle
    return _ONE + q * (_C2 + q * (_C4 + q * (_C6 + q * _C8)))


@_inline
def sin_cos(angle):  # type: ignore[no-untyped-def]
    """Sine and cosine inside +-pi, error below 3e-7."""
    size = abs(angle)
    sine = sin_quarter(min(size, PI - size))
    return (sine if angle > _ZERO else -sine), sin_quarter(_HALF_PI - size)


@_inline
def root(square):  # type: ignore[no-untyped-def]
    """Square root of a number from 0 to 1e30, relative error below 3e-7.

    The machine estimates an inverse square root in a sixth of the time that it takes a square root.
    """
    return square / math.sqrt(square + _TINY)


@_inline
def atan_positive(ratio):  # type: ignore[no-untyped-def]
    """Arctangent of a ratio that is not negative, error below 6e-7 rad."""
    z = min(ratio, _ONE) / max(ratio, _ONE)
    q = z * z
    p = _A3 + q * (_A5 + q * (_A7 + q * (_A9 + q * (_A11 + q * _A13))))
    angle = z + z * q * p
    return _HALF_PI - angle if ratio > _ONE else angle


@_whole
def tanh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic tangent, error below 3e-7; of what is no number it is none either."""
    x = _FLAT if x > _FLAT else (-_FLAT if x < -_FLAT else x)
    q = x * x
    over = x * (_T1 + q * (_T3 + q * (_T5 + q * (_T7 + q * _T9))))
    return over / (_ONE + q * (_U2 + q * (_U4 + q * (_U6 + q * _U8))))


@_inline
def wrap(angle):  # type: ignore[no-untyped-def]
    """Bring an angle into [-pi, pi)."""
    return angle - _TWO_PI * np.floor(angle * _TURNS + _HALF)


@_intrinsic
def prefer_512_bits(typingctx):  # type: ignore[no-untyped-def]
    """Let LLVM use the widest vectors in the kernel that calls this; alone it stops at 256 bits."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # llvmlite's own `add` knows no attributes with values.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
