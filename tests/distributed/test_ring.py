"""Sums in a ring are those of NumPy, the same to the bit for all, and end when somebody is lost."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hotlap.distributed.ring import Circle, Gather, Ring, available
from hotlap.types import Array

pytestmark = pytest.mark.skipif(not available(), reason="this PyTorch has no Gloo")


class Table:
    """Where members lay what they give, and wait for the others."""

    def __init__(self, members: int) -> None:
        self.given: dict[int, Array] = {}
        self.all = threading.Barrier(members, timeout=10)

    def gather(self, place: int) -> Gather:
        def gather(own: Array) -> Mapping[int, Array]:
            self.given[place] = own
            self.all.wait()
            return self.given

        return gather


def rings(places: tuple[int, ...]) -> list[Ring]:
    circle, table = Circle(0, places), Table(len(places))
    with ThreadPoolExecutor(len(places)) as pool:
        return list(
            pool.map(lambda place: Ring(circle, place, "127.0.0.1", table.gather(place)), places)
        )


@pytest.mark.parametrize("places", [(0, 1), (1, 2, 5), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("size", [1, 7, 42_165])
def test_all_have_the_sum_of_all(places, size):
    draw = np.random.default_rng(size)
    given = [draw.standard_normal(size).astype(np.float32) for _ in places]
    made = rings(places)

    with ThreadPoolExecutor(len(places)) as pool:
        for _ in range(3):
            found = list(pool.map(lambda one: one[0].sum(one[1]), zip(made, given, strict=True)))

    np.testing.assert_allclose(found[0], np.sum(given, axis=0, dtype=np.float64), atol=1e-5)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_who_is_lost_is_missed_at_once():
    first, second, third = rings((0, 1, 2))
    own = np.ones(1000, np.float32)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(first.sum, own)
        time.sleep(0.2)
        start = time.monotonic()
        del third, second

        with pytest.raises(RuntimeError):
            waiting.result()

    assert time.monotonic() - start < 5  # and not after the silence of 15 s


def test_who_says_nothing_is_missed_after_a_while(monkeypatch):
    monkeypatch.setattr("hotlap.distributed.ring.SILENCE", 0.5)
    first, _second = rings((0, 1))

    with pytest.raises(RuntimeError):
        first.sum(np.ones(10, np.float32))


def test_without_one_of_them_there_is_no_ring():
    def gather(own: Array) -> Mapping[int, Array]:
        return {0: own}

    with pytest.raises((RuntimeError, KeyError)):
        Ring(Circle(0, (0, 1)), 0, "127.0.0.1", gather)
