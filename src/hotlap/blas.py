"""BLAS: numba looks for one when the first kernel is called, and no kernel of ours needs it."""

from __future__ import annotations

import importlib
import sys

__all__ = ["leave_out_blas"]

_WHERE = "scipy.linalg"
"""What numba imports to see whether there is a BLAS; it takes a third of a second."""


def leave_out_blas() -> None:
    """Let numba find no BLAS where SciPy happens to be installed; to be called before any kernel.

    Other kernels in this process can still multiply matrices, for which numba looks anew; only
    `np.convolve` and `np.correlate` do without. Whoever needs SciPy imports it as ever.
    """
    if _WHERE in sys.modules:
        return
    sys.modules[_WHERE] = None  # type: ignore[assignment]  # Python's way to say: there is none
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[_WHERE]
