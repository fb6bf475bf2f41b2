"""Our threads over parts of a minibatch, instead of torch's inside a layer.

Torch's own threads spin while they wait, which stalls them for seconds when another process holds
a core; ours sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from hotlap.threads import available

__all__ = ["Shards"]

X = TypeVar("X")
Y = TypeVar("Y")

_CORES = torch.get_num_threads()
"""Torch's own count, read before we lower it: physical cores, or OMP_NUM_THREADS."""


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
        torch.set_num_threads(1)
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
