"""Threads of our own over kernels that release the GIL.

OpenMP threads spin while they wait, and collapse by a factor of fifty when another process takes a
core; ours sleep. The caller does the first share itself, so one thread means no thread at all, and
then those that no other thread has begun: where a core is busy or sleeps, nobody waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

__all__ = ["available", "spread"]


def available() -> int:
    """Return how many cores this process may use; `HOTLAP_THREADS` lowers it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = os.environ.get("HOTLAP_THREADS", "")
    return max(1, min(int(wanted), cores or 1) if wanted.isdigit() and int(wanted) else cores or 1)


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, thread_name_prefix="hotlap")


def spread(
    kernel: Callable[..., None], count: int, *arguments: Any, block: int, threads: int
) -> None:
    """Call `kernel(start, stop, *arguments)` on shares of range(count).

    Shares begin at multiples of `block`; the result may not depend on where they begin. A share
    that raises stops the others no earlier than at their end, and is raised here.
    """
    blocks = -(-count // block)
    shares = min(threads, blocks)
    if shares <= 1:
        if count:
            kernel(0, count, *arguments)
        return
    edges = [min(count, blocks * i // shares * block) for i in range(shares + 1)]
    others = [
        _pool(threads - 1).submit(kernel, edges[i], edges[i + 1], *arguments)
        for i in range(1, shares)
    ]
    kernel(edges[0], edges[1], *arguments)
    for i, other in enumerate(others, 1):
        if other.cancel():  # its thread has not woken up yet: the caller is there sooner
            kernel(edges[i], edges[i + 1], *arguments)
        else:
            other.result()
