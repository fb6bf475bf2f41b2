"""The server: sums and gathers once all have given, waits for nobody who is lost, keeps weights."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from hotlap.distributed.server import Server


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def numbers(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_all_get_the_sum_once_all_have_given():
    async def work():
        server = Server()
        server.begin(1, [0, 1, 2])
        given = [server.meet(1, 1, place, numbers(place, 10 * place), "sum") for place in range(3)]
        return await asyncio.gather(*given)

    for found in run(work()):
        np.testing.assert_array_equal(found, [3, 30])


def test_a_sum_does_not_tell_who_was_first():
    values = {0: numbers(1e8), 1: numbers(1.0), 2: numbers(-1e8)}

    async def work(order):
        server = Server()
        server.begin(1, [0, 1, 2])
        given = [server.meet(1, 1, place, values[place], "sum") for place in order]
        return (await asyncio.gather(*given))[0]

    # by place: (1e8 + 1) - 1e8 = 0 in float32; by arrival it would be 1 where the ones cancel first
    assert run(work([0, 1, 2])) == run(work([2, 0, 1])) == 0


def test_gathered_arrays_come_by_place():
    async def work():
        server = Server()
        server.begin(4, [0, 2])
        later = server.meet(4, 1, 2, numbers(2, 2), "gather")
        return await asyncio.gather(later, server.meet(4, 1, 0, numbers(0), "gather"))

    for found in run(work()):
        assert list(found) == [0, 2]
        assert found[2].shape == (2,)


def test_nobody_waits_for_one_that_is_lost():
    async def work():
        server = Server()
        server.begin(1, [0, 1, 2])
        given = [
            asyncio.create_task(server.meet(1, 1, place, numbers(5), "sum")) for place in (0, 2)
        ]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in given)
        server.leave(1, 1)
        return await asyncio.gather(*given)

    assert [float(found[0]) for found in run(work())] == [10, 10]


def test_who_belongs_to_an_older_round_or_to_none_is_sent_home():
    async def work():
        server = Server()
        server.begin(1, [0, 1])
        waiting = asyncio.create_task(server.meet(1, 1, 0, numbers(5), "sum"))
        await asyncio.sleep(0.01)
        server.begin(2, [0, 1])
        return (
            await waiting,
            await server.meet(1, 2, 0, numbers(1), "sum"),
            await server.meet(2, 1, 7, numbers(1), "sum"),
        )

    assert run(work()) == (None, None, None)


def test_who_leaves_a_round_that_is_over_is_still_waited_for_in_the_next():
    async def work():
        server = Server()
        server.begin(2, [0, 1])
        waiting = asyncio.create_task(server.meet(2, 1, 0, numbers(5), "sum"))
        server.leave(1, 1)  # it was said in round 1, and came late
        await asyncio.sleep(0.01)
        assert not waiting.done()
        return await asyncio.gather(waiting, server.meet(2, 1, 1, numbers(2), "sum"))

    assert [float(found[0]) for found in run(work())] == [7, 7]


def test_what_large_arrays_are_handed_out_as_is_made_once_for_all():
    made = []

    def hand_out(array):
        made.append(array)
        return "there"

    async def work():
        server = Server(hand_out)
        server.begin(1, [0, 1])
        return await asyncio.gather(
            *(server.meet(1, 1, place, numbers(1), "sum") for place in (0, 1))
        )

    assert run(work()) == ["there", "there"]
    assert len(made) == 1


def test_changes_are_applied_by_version_and_dropped_when_too_old():
    server = Server()
    version = server.keep(numbers(1, 2))
    first = server.push(0, version, numbers(1, 0), {}, 0.5, 1)
    np.testing.assert_array_equal(first.weights, [1.5, 2])
    second = server.push(1, version, numbers(0, 4), {}, 0.5, 1)  # one version behind: it counts
    np.testing.assert_array_equal(second.weights, [1.5, 4])
    third = server.push(2, version, numbers(9, 9), {}, 0.5, 1)  # two behind: it does not
    np.testing.assert_array_equal(third.weights, [1.5, 4])
    assert (first.version, second.version, third.version) == (version + 1, version + 2, version + 2)
    assert server.seen()["dropped"] == 1
    np.testing.assert_array_equal(first.weights, [1.5, 2])  # what was handed out does not change


def test_each_hears_once_what_others_saw():
    server = Server()
    version = server.keep(numbers(0))
    for place in range(3):
        server.pull(place)
    seen = {place: {"state": numbers(place)} for place in range(3)}
    for place in (0, 1, 2, 1):
        server.push(place, version, numbers(0), seen[place], 1, 9)
    others = server.pull(0).others
    assert [one["state"][0] for one in others] == [1, 2, 1]
    assert server.pull(0).others == []
    assert [one["state"][0] for one in server.pull(2).others] == [1]
    server.pull(1)
    assert server._seen == []  # nothing is kept that all have heard


def test_a_server_that_began_anew_says_so():
    with pytest.raises(LookupError, match="began anew"):
        Server().pull(0)
