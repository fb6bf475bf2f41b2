"""Our threads over parts of a minibatch, instead of torch's inside a layer.

Torch's own threads spin while they wait, which stalls them for seconds when another process holds
a core; ours sleep.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from hotlap.threads import available

__all__ = ["Shards", "cut", "settle"]

X = TypeVar("X")
Y = TypeVar("Y")

_CORES = torch.get_num_threads()
"""Torch's own count, read before we lower it: physical cores, or OMP_NUM_THREADS."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of what the GNU C library can be told about its memory, from its malloc.h."""


def settle() -> None:
    """Prepare torch for learning on the processor: one thread of its own, and memory that stays.

    Tensors of pictures are larger than what the C library keeps of freed memory. Each would be
    fetched anew from the system, page by page, which takes as long as what is computed with it.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # Other C libraries lack it, and keep what they will.
        tell = getattr(ctypes.CDLL(None), "mallopt", lambda name, value: 0)
        tell(_TRIM_THRESHOLD, 2**31 - 1)
        tell(_MMAP_THRESHOLD, 2**25)  # the most that it takes


_FEW = 16
"""Rows below which a second thread costs more than it saves."""


def cut(rows: int, most: int) -> list[slice]:
    """Cut rows into what is computed side by side, whatever the number of threads.

    Two parts at least, if there are that many rows: large networks learn from few at a time.

    Args:
        rows: how many there are.
        most: of a part; 0: they stay together.
    """
    size = max(1, min(most, max(_FEW, -(-rows // 2))) if most else rows)
    return [slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), size)]


class Shards:
    """Calls a function on each of several parts, side by side where the processor computes.

    Args:
        device: where the function computes; elsewhere than on the processor, in turn.
        threads: threads to use; 0: one per core.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if device.type != "cpu":
            return
        settle()
        count = threads or min(_CORES, available())
        if count > 1:
            # OpenMP counts its threads for each of ours apart. With more than one, a layer is cut
            # otherwise, and the last bit of its sums would tell how many threads there were.
            self._pool = ThreadPoolExecutor(count, "shard", torch.set_num_threads, (1,))

    def map(self, function: Callable[[X], Y], parts: Sequence[X]) -> list[Y]:
        """Return what the function makes of each part, in their order."""
        if self._pool is None or len(parts) == 1:
            return [function(part) for part in parts]
        return list(self._pool.map(function, parts))
