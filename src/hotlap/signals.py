"""Ctrl-C and SIGTERM, heard in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["heard"]


@contextmanager
def heard(told: Callable[[int], None]) -> Iterator[None]:
    """Call `told` with the number of each Ctrl-C or SIGTERM while the block runs.

    Only the main thread hears them; the owner of another one decides about Ctrl-C.
    """
    before = {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda number, frame: told(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
