"""What a cluster would do: cases computed by hand, and laws."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hotlap.distributed.sizing import (
    Exchange,
    Layout,
    Link,
    Network,
    Work,
    forecast,
    queue,
    read_network,
    read_sizes,
)
from hotlap.errors import ConfigError

FREE = Link((0, 1_000_000), (0.0, 0.0), (0.0, 0.0), call=0.0, routing=0.0, joining=0.0)
REAL = Link((1_000, 100_000), (2e-3, 4e-3), (6e-4, 2e-3), call=1e-3, routing=2e-4, joining=1e-9)
LAN = Network(bandwidth=125e6, ping=5e-4)


def work(workers=1, *, collecting=1.0, learning=0.5, exchanges=(), batch=0):
    return Work(
        workers=workers, rows=64 // workers, steps=1000, collecting=collecting, learning=learning,
        exchanges=exchanges, batch=batch, weights=0, memory=1, replay=0,
    )  # fmt: skip


def shared_out(workers, share):
    """64 cars and their gradients shared out among some workers."""
    sums = (Exchange("sum", 50_000, 16), Exchange("gather", 8_000 // workers, 1))
    return work(
        workers,
        collecting=0.8 / workers,
        learning=1.6 if share == "experience" else 1.6 / workers,
        exchanges=() if workers == 1 or share == "experience" else sums,
        batch=400_000 // workers,
    )


def seconds(share, given, link=FREE, layout=Layout(), **how):  # noqa: B008
    return given.steps / forecast(share, given, link, layout, **how).steps_per_second


def test_a_queue_serves_one_after_the_other_whoever_came_first():
    # c comes at 0 and is served till 2, a comes at 1 and waits till 4, b comes at 9: 11
    found = queue(np.array([1.0, 9.0, 0.0]), 2.0)

    np.testing.assert_allclose(found, [4.0, 11.0, 2.0])


def test_one_worker_collects_and_then_learns():
    assert seconds("gradients", work(1)) == pytest.approx(1.5)


def test_two_workers_meet_once():
    link = Link((0, 1000), (0.003, 0.003), (0.002, 0.002), call=0.0, routing=0.0, joining=0.0)
    layout = Layout(Network(bandwidth=1e6, ping=0.01))

    found = seconds(
        "gradients",
        work(2, collecting=1.0, learning=0.4, exchanges=(Exchange("sum", 1000, 1),)),
        link,
        layout,
    )

    # told 5 ms, collect 1 s, said 5 ms, the server told 10 ms, workers told 5 ms        1.0250
    # learn half                                                                          1.2250
    # pack 0.5 ms, way 5 ms; line 1 ms each: 1.2315 and 1.2325; server 1 ms each:         1.2335
    # handed out 1 ms each: 1.2345, 1.2355; line 1 ms each: 1.2355, 1.2365; 5.5 ms:       1.2420
    # learn the other half 0.2, said 5 ms                                                 1.4470
    assert found == pytest.approx(1.447)


def test_a_vector_out_of_shared_memory_takes_two_round_trips_more():
    ping = Layout(Network(ping=0.01))
    small, large = (work(2, exchanges=(Exchange("sum", size, 1),)) for size in (500_000, 2_000_000))

    more = seconds("weights", large, FREE, ping) - seconds("weights", small, FREE, ping)

    # the server asks for what is given, and the worker for what it is told of
    assert more == pytest.approx(0.02)


def test_what_many_gave_takes_a_round_trip_more_where_it_is_large():
    ping = Layout(Network(ping=0.01))
    few, many = (work(n, exchanges=(Exchange("gather", 60_000, 1),)) for n in (1, 2))

    more = seconds("gradients", many, FREE, ping) - seconds("gradients", few, FREE, ping)

    # 120 kB do not travel inside of an answer
    assert more == pytest.approx(0.01)


def test_a_gathering_sends_everything_to_everyone():
    layout = Layout(Network(bandwidth=1e6, ping=0.0))
    given = work(4, exchanges=(Exchange("gather", 1000, 1),))

    found = seconds("gradients", given, FREE, layout)

    # 4 times 1 kB in: 4 ms; 4 times 4 kB out: 16 ms
    assert found == pytest.approx(1.5 + 0.020)


def test_the_server_has_one_processor():
    busy = Link((0, 1000), (0.01, 0.01), (0.01, 0.01), call=0.0, routing=0.0, joining=0.0)
    given = work(8, collecting=0.0, learning=0.0, exchanges=(Exchange("sum", 1000, 10),))

    # Ten times eight messages of 10 ms: who is answered early cannot give anything earlier.
    assert seconds("gradients", given, busy) == pytest.approx(0.8)


def test_workers_that_do_not_wait_queue_at_the_server_once():
    link = Link((0, 1000), (0.1, 0.1), (0.1, 0.1), call=0.0, routing=0.0, joining=0.0)
    given = work(2, collecting=0.6, learning=0.4, exchanges=(Exchange("sum", 1000, 1),))

    found = forecast("weights", given, link, Layout(staleness=0), synchronous=False)

    # One is served at 1.1, 2.2, 3.3 ... 26.4; the other at 1.2, 2.3, 3.4 ... 26.5.
    rate = (24 / 26.4 + 24 / 26.5) / 2
    assert given.steps / found.steps_per_second == pytest.approx(1 / rate)
    # The other always has what was before the one's last change.
    assert found.late == 0.5


def test_the_learner_collects_and_learns_in_turns_or_at_once():
    given = work(1, collecting=1.0, learning=2.0)

    assert seconds("experience", given) == pytest.approx(3.0)
    # 1 s until there is something, then 24 times 2 s
    assert seconds("experience", given, synchronous=False) == pytest.approx(49 / 24)


def test_experience_comes_over_the_learners_line():
    layout = Layout(Network(bandwidth=1e6, ping=0.0))

    found = seconds("experience", work(4, batch=250_000), FREE, layout)

    assert found == pytest.approx(1.0 + 4 * 0.25 + 0.5)


def test_workers_on_a_full_node_hinder_each_other():
    crowded = Layout(per_node=2, threads=1, cores=2, crowding=1.2)

    assert seconds("gradients", work(2), FREE, crowded) == pytest.approx(1.5 * 1.2)
    # four on two cores: each gets half of one
    assert seconds("gradients", work(4), FREE, replace(crowded, per_node=4)) == pytest.approx(3.6)


def test_the_slowest_is_waited_for():
    # The greater of two normal numbers is 1 / sqrt(pi) = 0.564 deviations above the mean.
    found = seconds("gradients", work(2), FREE, Layout(spread=0.01))

    assert found == pytest.approx(1.5 * (1 + 0.01 / math.sqrt(math.pi)), rel=0.003)


WAYS = [
    ("gradients", True),
    ("weights", True),
    ("weights", False),
    ("experience", True),
    ("experience", False),
]


@pytest.mark.parametrize(("share", "synchronous"), WAYS)
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_no_cluster_is_faster_than_so_many_times_one(share, synchronous, spread):
    layout = Layout(LAN, spread=spread)
    one = forecast(share, shared_out(1, share), REAL, layout, synchronous=synchronous)

    for workers in (2, 3, 8, 64):
        given = shared_out(workers, share)
        many = forecast(share, given, REAL, layout, synchronous=synchronous)

        assert many.steps_per_second <= workers * one.steps_per_second


@pytest.mark.parametrize(("share", "synchronous"), WAYS)
def test_a_slower_network_never_trains_faster(share, synchronous):
    given = shared_out(8, share)
    pings = [0.0, 1e-4, 1e-3, 1e-2, 0.1]
    lines = [math.inf, 1e9, 1e8, 1e7, 1e6]

    by_ping = [
        forecast(share, given, REAL, Layout(Network(1e9, p), spread=0.1), synchronous=synchronous)
        for p in pings
    ]
    by_line = [
        forecast(share, given, REAL, Layout(Network(b, 1e-4), spread=0.1), synchronous=synchronous)
        for b in lines
    ]

    for found in (by_ping, by_line):
        rates = [one.steps_per_second for one in found]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] > rates[-1]


def test_what_costs_most_is_what_is_named():
    given = shared_out(8, "gradients")

    def bottleneck(link, network, spread=0.0):
        return forecast("gradients", given, link, Layout(network, spread=spread)).bottleneck

    assert bottleneck(FREE, Network()) == "learning"  # 0.2 s, and collecting 0.1 s
    assert bottleneck(FREE, Network(ping=0.1)) == "latency"
    assert bottleneck(FREE, Network(bandwidth=1e6)) == "line"
    assert bottleneck(FREE, Network(), spread=3.0) == "stragglers"
    busy = replace(FREE, alone=(0.05, 0.05), server=(0.05, 0.05))
    assert bottleneck(busy, Network()) == "server"
    assert bottleneck(replace(FREE, routing=0.1), Network()) == "calls"


def test_pieces_and_branches_relieve_the_server():
    busy = Link((0, 100_000), (2e-3, 12e-3), (0.0, 10e-3), call=0.0, routing=0.0, joining=0.0)
    given = work(64, collecting=0.0, learning=0.0, exchanges=(Exchange("sum", 50_000, 1),))

    # 64 messages of 5 ms
    assert seconds("gradients", given, busy) == pytest.approx(64 * 0.005 + 0.002)
    # of 1.25 ms, and each worker packs four
    four = Layout(servers=4)
    assert seconds("gradients", given, busy, four) == pytest.approx(64 * 0.00125 + 4 * 0.002)
    # 8 of 5 ms twice
    tree = Layout(branches=8)
    assert seconds("gradients", given, busy, tree) == pytest.approx(2 * (8 * 0.005 + 0.002))


def test_traffic_is_bytes_by_seconds():
    given = work(4, exchanges=(Exchange("sum", 1000, 3), Exchange("gather", 100, 1)))

    found = forecast("gradients", given, FREE, Layout())

    # each gives 3100 bytes and gets 3 * 1000 + 4 * 100, in 1.5 s
    assert found.received == pytest.approx(4 * 3100 / 1.5)
    assert found.sent == pytest.approx(4 * 3400 / 1.5)
    assert found.worker == pytest.approx(6500 / 1.5)
    assert (found.exchange, found.exchanges) == (1000, 4)


def test_in_a_ring_each_gives_pieces_to_the_next():
    link = replace(FREE, ring=(0.0, 1.0))  # two take a microsecond for a byte
    given = work(4, exchanges=(Exchange("ring", 1000, 2),))
    network = Network(bandwidth=1e6, ping=0.01)

    def more(layout):
        return seconds("gradients", given, link, layout) - seconds(
            "gradients", work(4), link, layout
        )

    # Six times 250 bytes, where two give 500 twice: 3 * 0.5 ms; twice a round
    assert more(Layout(network, per_node=4)) == pytest.approx(2 * 0.0015)
    # and between nodes half a round trip and 0.25 ms each time
    assert more(Layout(network)) == pytest.approx(2 * (0.0015 + 6 * (0.005 + 0.00025)))
    # Without Gloo it is the server's: 4 ms in, 4 ms out; then, as who has his sum gives the next,
    # 1 ms in after the last, 4 ms out; and a round trip each time
    served = Layout(network, ring=False)
    assert more(served) == pytest.approx(0.008 + 0.005 + 2 * 0.01)


def test_what_goes_around_does_not_pass_the_server():
    given = work(4, exchanges=(Exchange("ring", 1000, 3), Exchange("gather", 100, 1)))

    found = forecast("gradients", given, replace(FREE, ring=(0.0, 0.0)), Layout())

    # each gives 100 bytes and gets 400; and 6 quarters of 3000 bytes go out, and come in
    assert found.received == pytest.approx(4 * 100 / 1.5)
    assert found.sent == pytest.approx(4 * 400 / 1.5)
    assert found.worker == pytest.approx((500 + 2 * 4500) / 1.5)
    assert (found.exchange, found.exchanges) == (1000, 4)


@pytest.mark.parametrize(
    ("words", "bandwidth", "ping"),
    [
        ("1Gbit,0.5ms", 125e6, 5e-4),
        ("200us, 25 Gbit/s", 25e9 / 8, 2e-4),
        ("local", math.inf, 0.0),
        ("100mbit,0s", 12.5e6, 0.0),
    ],
)
def test_a_network_is_read(words, bandwidth, ping):
    assert read_network(words) == Network(bandwidth, pytest.approx(ping))


@pytest.mark.parametrize(
    "words", ["", "fast", "1Gbit", "0.5ms", "1GB,1ms", "-1Gbit,1ms", "1Gbit,1ms,2ms", "nanGbit,1ms"]
)
def test_another_network_is_refused_in_words(words):
    with pytest.raises(ConfigError, match="such as 1Gbit"):
        read_network(words)


def test_sizes_are_read():
    assert read_sizes("1..256") == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert read_sizes("3..10") == [3, 6, 10]
    assert read_sizes("8,2,2") == [2, 8]
    assert read_sizes("5") == [5]


@pytest.mark.parametrize("words", ["", "0", "8..2", "two", "1...4", "-1", "9999", "1,"])
def test_other_sizes_are_refused_in_words(words):
    with pytest.raises(ConfigError, match="1,2,8"):
        read_sizes(words)
