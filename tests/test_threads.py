"""Threads of our own: the shares of a range, the errors of a share, the number of cores."""

import os
import threading

import numpy as np
import pytest

from hotlap import threads
from hotlap.threads import available, spread


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_every_item_is_done_once_whatever_the_number_of_threads(threads, count):
    done = np.zeros(count, int)

    def kernel(start, stop, array):
        array[start:stop] += 1

    spread(kernel, count, done, block=64, threads=threads)

    assert (done == 1).all()


def test_shares_begin_at_multiples_of_the_block_and_are_nearly_equal():
    # 1000 items are 16 blocks of 64, the last one short: 16 / 3 gives 5, 5 and 6 blocks.
    shares = []

    spread(lambda start, stop: shares.append((start, stop)), 1000, block=64, threads=3)

    assert sorted(shares) == [(0, 320), (320, 640), (640, 1000)]


def test_one_thread_is_the_callers_own():
    seen = []

    spread(lambda start, stop: seen.append(threading.get_ident()), 1000, block=64, threads=1)

    assert seen == [threading.get_ident()]


def test_no_more_shares_than_blocks():
    shares = []

    spread(lambda start, stop: shares.append((start, stop)), 65, block=64, threads=8)

    assert sorted(shares) == [(0, 64), (64, 65)]


def test_a_share_that_its_thread_has_not_begun_is_done_by_the_caller():
    busy, seen = threading.Event(), []
    threads._pool(1).submit(busy.wait, 10)

    spread(
        lambda start, stop: seen.append((start, threading.get_ident())), 128, block=64, threads=2
    )

    busy.set()
    here = threading.get_ident()
    assert seen == [(0, here), (64, here)]


@pytest.mark.parametrize("failing", [0, 64])
def test_an_error_in_any_share_reaches_the_caller(failing):
    def kernel(start, stop):
        if start == failing:
            raise ArithmeticError(f"share {start}")

    with pytest.raises(ArithmeticError, match=f"share {failing}"):
        spread(kernel, 128, block=64, threads=2)


@pytest.mark.parametrize(("wish", "most"), [("1", 1), ("0", None), ("many", None), ("", None)])
def test_a_wish_for_fewer_threads_is_heard_and_nonsense_is_not(monkeypatch, wish, most):
    monkeypatch.delenv("HOTLAP_THREADS", raising=False)
    cores = available()
    monkeypatch.setenv("HOTLAP_THREADS", wish)

    assert available() == (most or cores)
    assert 1 <= cores <= (os.cpu_count() or 1)


def test_a_wish_for_more_threads_than_cores_is_cut(monkeypatch):
    monkeypatch.setenv("HOTLAP_THREADS", "100000")

    assert available() <= (os.cpu_count() or 1)
