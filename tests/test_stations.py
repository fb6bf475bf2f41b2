"""The station table, against the tracks' own float64 geometry."""

from functools import cache

import numpy as np
import pytest

from hotlap.simulator import Start
from hotlap.stations import PLACED, StationTable
from hotlap.track import Track, load_track


@cache
def tracks():
    x = np.linspace(0, 6, 31)
    lane = np.hstack([np.stack([x, 0 * x + y], 1) for y in (0.0, 0.4, -0.6)])
    return (load_track("oval"), Track.from_waypoints(lane, name="lane"), load_track("hairpins"))


def starts(rows, seed=0):
    random = np.random.default_rng(seed)
    track = random.integers(0, 3, rows).astype(np.int32)
    length = np.array([t.length for t in tracks()])[track]
    return Start(
        track=track,
        s=(random.uniform(0, 1, rows) * length * (1 - 1e-6)).astype(np.float32),
        n=random.uniform(-0.3, 0.3, rows).astype(np.float32),
        heading_error=random.uniform(-3, 3, rows).astype(np.float32),
        speed=random.uniform(0, 3, rows).astype(np.float32),
    )


def place(start):
    fields, station = StationTable(tracks()).place(start)
    return dict(zip(PLACED, fields, strict=True)) | {"station": station}


def test_cars_are_placed_where_the_track_says():
    start = starts(300)

    placed = place(start)

    for i, track in enumerate(tracks()):
        mine = start.track == i
        xy = track.locate(start.s[mine], start.n[mine])
        np.testing.assert_allclose(placed["x"][mine], xy[:, 0], atol=2e-5)
        np.testing.assert_allclose(placed["y"][mine], xy[:, 1], atol=2e-5)


def test_the_heading_is_the_direction_in_which_the_line_goes_on():
    start = starts(300)

    placed = place(start)

    for i, track in enumerate(tracks()):
        mine = (start.track == i) & (start.s > 0.01) & (start.s < track.length - 0.01)
        here = track.locate(start.s[mine] - 0.005, 0.0)
        there = track.locate(start.s[mine] + 0.005, 0.0)
        way = np.arctan2(*(there - here).T[::-1])
        turned = placed["yaw"][mine] - way - start.heading_error[mine]
        np.testing.assert_allclose(np.sin(turned), 0, atol=0.05)
        np.testing.assert_allclose(np.cos(turned), 1, atol=0.01)
    assert (np.abs(placed["yaw"]) <= np.float32(np.pi)).all()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_borders_and_curvature_at_a_station_are_the_stations_own(which):
    stations = tracks()[which].stations
    k = 17
    start = Start.on_line(1, s=k * stations.spacing, track=which)

    placed = place(start)

    for name in ("left", "right", "curvature"):
        np.testing.assert_allclose(placed[name], getattr(stations, name)[k], atol=1e-4)
    assert placed["vx"] == placed["n"] == 0
    assert abs(int(placed["station"][0]) - k) <= 1


def test_a_loop_repeats_its_first_station_and_an_open_track_does_not():
    table = StationTable(tracks())

    counts = [track.stations.count for track in tracks()]
    assert table.segments.tolist() == [counts[0], counts[1] - 1, counts[2]]
    assert table.first.tolist() == [0, counts[0] + 1, counts[0] + 1 + counts[1]]
    assert len(table.stations) == counts[0] + 1 + counts[1] + counts[2] + 1
    assert table.closed.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(table.stations[counts[0]], table.stations[0])


def test_the_ends_of_an_open_track_are_places_too():
    lane = tracks()[1]
    ends = Start(
        track=np.int32([1, 1]),
        s=np.float32([0.0, lane.length]),
        n=np.zeros(2, np.float32),
        heading_error=np.zeros(2, np.float32),
        speed=np.zeros(2, np.float32),
    )

    placed = place(ends)

    np.testing.assert_allclose(placed["x"], [0, 6], atol=1e-5)
    assert placed["station"].tolist() == [0, lane.stations.count - 2]
