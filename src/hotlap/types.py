"""The array type, and the legend of the shape letters that names carry in dense maths.

`T` time steps · `N` rows (a row is a car) · `A` action dimensions · `O` observation features ·
`H W C` image height, width, channels · `B` minibatch · `S` stations of a track · `K` look-ahead
points. `reward_TN` is an array of shape (T, N).

Units are SI: metres, seconds, radians, m/s. Angles grow counter-clockwise, steering is positive to
the left, the lateral offset `n` is positive to the left of the centre line.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Float32", "Float64", "Int32"]

Array: TypeAlias = NDArray[Any]
Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Int32: TypeAlias = NDArray[np.int32]
