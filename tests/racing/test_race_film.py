"""Films of races: cars in their colours, where they are, in the order of the race."""

from itertools import pairwise

import numpy as np
import pytest

from drivers import driver
from hotlap.errors import RunError
from hotlap.racing import film as race_film
from hotlap.racing.film import COLOURS, film_race, write_race_film
from hotlap.racing.race import race_drivers
from hotlap.track import load_track

OVAL = load_track("oval")


@pytest.fixture(scope="module")
def standings():
    drivers = [driver("slow", 1.2, lane=0.25), driver("fast", 1.9, lane=-0.25)]
    return race_drivers(drivers, OVAL, laps=1, trials=2)


def frames_of(standings, trial=0):
    names = [racer.name for racer in standings.racers]
    trace = standings.traces[trial]
    found = race_film._frames(OVAL, trace, names, standings.laps, 15, "")
    return [frame.copy() for frame in found]


def middle_of(frame, colour):
    """Return the middle of what is exactly of one colour on the track, x to the right, y down."""
    rows, columns = np.nonzero((frame[:, :720] == colour).all(axis=2))
    return np.median(columns), np.median(rows)


def test_each_car_is_drawn_in_its_colour_where_it_is(standings):
    trace = standings.traces[0]

    first = frames_of(standings)[0]

    border = np.concatenate([OVAL.inner, OVAL.outer])
    low, high = border.min(axis=0), border.max(axis=0)
    scale = min((720 - 48) / (high - low)[0], (540 - 48 - 26) / (high - low)[1])
    for car in (0, 1):
        x, y = middle_of(first, COLOURS[car])
        where = np.array([trace["x"][0, car], trace["y"][0, car]]) - (low + high) / 2
        assert x == pytest.approx(360 + scale * where[0], abs=6)
        assert y == pytest.approx(270 + 13 - scale * where[1], abs=6)


def test_the_order_is_that_of_the_race_and_the_first_to_finish_stays_first(standings):
    trace = standings.traces[0]  # the fast one, racer 0, starts behind
    panel = race_film._Panel(trace, ["fast", "slow"], 1)
    assert trace["distance"][0, 0] < trace["distance"][0, 1]

    orders = [panel.order(row) for row in range(len(trace["t"]))]

    assert orders[0] == [1, 0]
    assert orders[-1] == [0, 1]
    assert sum(one != other for one, other in pairwise(orders)) == 1
    assert panel._says(0, 1, 1).startswith("leads")
    assert panel._says(len(orders) - 1, 0, 0).startswith("finished")
    # a car that is 0.75 m behind, half a second after a start at rest, has not been there yet
    middle = len(orders) // 2
    gap = float(panel._says(middle, 1, 0).split()[0].removesuffix("s,").lstrip("+"))
    there = np.flatnonzero(trace["distance"][:, 0] >= trace["distance"][middle, 1])[0]
    assert gap == pytest.approx((middle - there) / 15, abs=0.06)


def test_a_car_under_penalty_is_not_on_the_road(standings):
    trace = {name: column.copy() for name, column in standings.traces[0].items()}
    trace["present"][40:] = False

    drawn = race_film._frames(OVAL, trace, ["fast", "slow"], 1, 15, "")
    frames = [frame[:, :720].copy() for frame in drawn]

    assert (frames[38] != frames[39]).any()
    assert (frames[40] != frames[39]).any()
    np.testing.assert_array_equal(frames[40], frames[41])
    assert race_film._Panel(trace, ["fast", "slow"], 1)._says(45, 0, 1) == "penalty"


@pytest.mark.parametrize("name", ["race.mp4", "race.gif"])
def test_a_film_is_written(name, standings, tmp_path):
    path = film_race(tmp_path / name, standings)

    assert path.stat().st_size > 10_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_film_that_cannot_be_written_is_said(standings, tmp_path):
    with pytest.raises(RunError, match="the film cannot be written"):
        write_race_film(tmp_path / "no" / "race.gif", OVAL, standings.traces[0], "ab", laps=1)
