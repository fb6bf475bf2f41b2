"""The native world: cars on tracks, against the tracks' own float64 projection and shapely."""

import re
from dataclasses import replace
from functools import cache

import llvmlite.binding
import numpy as np
import pytest
import shapely
from numba import njit

from hotlap.errors import SimulationError
from hotlap.sim.native import BLOCK, NativeSimulator, _step
from hotlap.simulator import ROW_FIELDS, Command, Start
from hotlap.track import Track, load_track
from hotlap.vehicle import VEHICLES

CAR = VEHICLES["deepracer"]


@cache
def course(name):
    return load_track(name)


@cache
def hairpin():
    """Two straights of 4 m, 0.9 m apart, joined by half circles; the road is 0.6 m wide."""
    ahead = np.linspace(0, 4, 41)[:-1]
    turn = np.linspace(-np.pi / 2, np.pi / 2, 16)[:-1]

    def line(radius):
        right = np.stack([4 + radius * np.cos(turn), 0.45 + radius * np.sin(turn)], 1)
        left = np.stack([-radius * np.cos(turn), 0.45 - radius * np.sin(turn)], 1)
        bottom = np.stack([ahead, 0.45 - radius + 0 * ahead], 1)
        top = np.stack([4 - ahead, 0.45 + radius + 0 * ahead], 1)
        loop = np.concatenate([bottom, right, top, left])
        return np.concatenate([loop, loop[:1]])

    return Track.from_waypoints(np.hstack([line(0.45), line(0.15), line(0.75)]), name="hairpin")


@cache
def lane():
    """An open track: 6 m straight on, 1 m wide."""
    x = np.linspace(0, 6, 31)
    rows = [np.stack([x, 0 * x + y], 1) for y in (0.0, 0.5, -0.5)]
    return Track.from_waypoints(np.hstack(rows), name="lane")


def world(tracks, rows, *, seed=0, **options):
    """Cars at rest at random places on the road, dealt out to the tracks in turn."""
    random = np.random.default_rng(seed)
    track = (np.arange(rows) % len(tracks)).astype(np.int32)
    length = np.array([t.length for t in tracks])[track]
    sim = NativeSimulator(tracks, CAR, rows=rows, **options)
    start = Start(
        track=track,
        s=(random.uniform(0.0, 0.98, rows) * length).astype(np.float32),
        n=random.uniform(-0.2, 0.2, rows).astype(np.float32),
        heading_error=random.uniform(-0.5, 0.5, rows).astype(np.float32),
        speed=random.uniform(0.0, 2.0, rows).astype(np.float32),
    )
    sim.reset(np.arange(rows), start)
    return sim


def follow(state, speed, aside=0.0):
    """A driver that keeps cars near a line `aside` of the centre."""
    steering = -2.0 * (state.n - aside) - 1.2 * state.heading_error
    steering = steering + np.arctan(0.24 * state.curvature)
    full = np.ones_like(state.x)
    return Command(steering=(full * steering).astype(np.float32), speed=full * np.float32(speed))


def wander(rows, steps, seed=1):
    """Commands that change a little each step."""
    random = np.random.default_rng(seed)
    return random.normal(0, 0.15, (steps, rows)).astype(np.float32)


def same(one, other, rows=slice(None)):
    for name in ROW_FIELDS:
        a, b = getattr(one, name)[rows], getattr(other, name)[rows]
        np.testing.assert_array_equal(a, b, err_msg=name)


# --- projection ---


@pytest.mark.parametrize("name", ["reinvent_like", "hard"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_place_on_the_track_is_the_tracks_own_projection(name, backwards):
    track = course(name).reversed() if backwards else course(name)
    sim = world([track], 300)
    inside = 0

    for noise in wander(300, 60):
        command = follow(sim.state, 1.5)
        state = sim.step(replace(command, steering=command.steering + noise))
        s, n = track.project(np.stack([state.x, state.y], 1), near=state.station)
        on_road = (n < state.left) & (n > -state.right)
        inside += on_road.sum()
        gap = np.abs(state.s - s)
        gap = np.minimum(gap, track.length - gap)
        assert gap[on_road].max() < 1e-4
        assert np.abs(state.n - n)[on_road].max() < 1e-4
        ahead = track.locate(s + 1e-4, n * 0) - track.locate(s - 1e-4, n * 0)
        # The chord of the polyline is not the interpolated tangent, but not far from it.
        error = state.yaw - np.arctan2(ahead[:, 1], ahead[:, 0])
        error = (error - state.heading_error + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(error[on_road]).max() < 0.12

    assert inside > 0.8 * 300 * 60


def test_heading_error_is_measured_from_the_interpolated_tangent():
    track = course("hard")
    sim = world([track], 300)
    every_way = np.linspace(-3.1, 3.1, 300, dtype=np.float32)
    sim.reset(np.arange(300), replace(Start.on_line(300, s=2.0), heading_error=every_way))
    state = sim.step(follow(sim.state, 1.5))
    table = track.stations

    k, t = np.divmod(state.s.astype(np.float64) / table.spacing, 1)
    k = k.astype(int)
    after = (k + 1) % table.count
    heading = np.arctan2(
        (1 - t) * table.ty[k] + t * table.ty[after], (1 - t) * table.tx[k] + t * table.tx[after]
    )
    error = (state.yaw - heading - state.heading_error + np.pi) % (2 * np.pi) - np.pi
    # A tenth of a millimetre of arc at the sharpest place of the course is 3e-4 rad.
    assert np.abs(error).max() < 3e-4


@pytest.mark.parametrize("name", ["reinvent_like", "hard"])
def test_advances_of_a_lap_sum_to_the_length_of_the_track(name):
    track = course(name)
    sim = NativeSimulator([track], CAR, rows=1)
    sim.reset(np.array([0]), Start.on_line(1))
    total, last = 0.0, sim.state

    while last.s[0] <= sim.state.s[0] or sim.state.steps[0] < 20:
        last = sim.state
        total += float(sim.step(follow(last, 1.0)).advance[0])

    state = sim.state
    assert total - float(state.s[0]) == pytest.approx(track.length, abs=1e-3)
    assert float(state.travelled[0]) == pytest.approx(total, abs=1e-3)


def test_driving_backwards_loses_what_driving_forwards_wins():
    track = course("reinvent_like")
    sim = NativeSimulator([track], CAR, rows=1)
    turned = replace(Start.on_line(1, s=0.5), heading_error=np.float32([np.pi]))
    sim.reset(np.array([0]), turned)

    for _ in range(15):
        state = sim.step(Command(*np.float32([[0], [1]])))
        assert state.advance[0] < 1e-6

    # It crossed the line against the direction: s is near the end, the distance is negative.
    assert state.s[0] > track.length - 1
    assert float(state.travelled[0]) == pytest.approx(state.s[0] - track.length - 0.5, abs=1e-3)


def test_a_car_that_cuts_beside_the_other_leg_stays_on_its_own():
    track = hairpin()
    sim = NativeSimulator([track], CAR, rows=9)
    start = Start.on_line(9, s=1.5)
    sim.reset(
        np.arange(9), replace(start, heading_error=np.linspace(0.3, 1.2, 9, dtype=np.float32))
    )

    for _ in range(12):
        state = sim.step(
            Command(steering=np.full(9, 0.2, np.float32), speed=np.ones(9, np.float32))
        )

    # They have crossed the gap of 0.3 m and stand on the other leg, which runs the other way and is
    # 4 m + of driving further on; none was given that distance.
    assert (state.y > 0.45).sum() >= 6
    assert state.travelled.max() < 2.0
    assert state.wheels_off[state.y > 0.6].min() == 4


def test_beyond_the_end_of_an_open_track_a_car_keeps_its_last_place():
    track = lane()
    sim = NativeSimulator([track], CAR, rows=2)
    start = replace(Start.on_line(2, s=5.0), heading_error=np.float32([0, np.pi]))
    sim.reset(np.arange(2), start)

    for _ in range(120):
        state = sim.step(Command(*np.float32([[0, 0], [2, 2]])))

    assert state.x[0] > 6.5
    assert state.s[0] == pytest.approx(6.0, abs=1e-5)
    assert float(state.travelled[0]) == pytest.approx(1.0, abs=1e-4)
    assert state.x[1] < -0.5
    assert state.s[1] == pytest.approx(0.0, abs=1e-5)
    assert float(state.travelled[1]) == pytest.approx(-5.0, abs=1e-4)


def test_far_off_the_road_everything_stays_finite():
    sim = world([course("hard"), hairpin()], 64)

    for _ in range(150):
        state = sim.step(
            Command(steering=np.zeros(64, np.float32), speed=np.full(64, 4, np.float32))
        )

    assert np.hypot(state.x, state.y).max() > 15
    for name in ROW_FIELDS:
        assert np.isfinite(getattr(state, name)).all(), name


# --- off track ---


@pytest.mark.parametrize("name", ["reinvent_like", "hard"])
def test_wheels_off_agrees_with_exact_polygons_but_for_five_millimetres(name):
    track = course(name)
    rows = 4000
    random = np.random.default_rng(3)
    sim = NativeSimulator([track], CAR, rows=rows)
    half = track.width / 2
    start = Start(
        track=np.zeros(rows, np.int32),
        s=random.uniform(0, track.length, rows).astype(np.float32),
        n=random.uniform(-half, half, rows).astype(np.float32),
        heading_error=random.uniform(-1.0, 1.0, rows).astype(np.float32),
        speed=np.zeros(rows, np.float32),
    )
    sim.reset(np.arange(rows), start)

    state = sim.step(Command(*np.zeros((2, rows), np.float32)))

    road = shapely.Polygon(track.outer).symmetric_difference(shapely.Polygon(track.inner))
    off, nearest = np.zeros(rows, int), np.full(rows, np.inf)
    c, s = np.cos(state.yaw.astype(float)), np.sin(state.yaw.astype(float))
    for ahead in (CAR.wheel_front, CAR.wheel_rear):
        for side in (CAR.wheel_side, -CAR.wheel_side):
            wheel = shapely.points(state.x + ahead * c - side * s, state.y + ahead * s + side * c)
            off += ~shapely.contains(road, wheel)
            nearest = np.minimum(nearest, shapely.distance(road.boundary, wheel))
    differs = off != state.wheels_off
    assert 0.1 < np.mean(off > 0) < 0.9
    # Between stations the borders are straight across the strip, which cuts the polygons' corners.
    assert differs.mean() < 0.01
    assert nearest[differs].max() < 5e-3


# --- speed ---


def test_the_kernel_runs_many_cars_in_one_instruction(monkeypatch):
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("avx2") and features.get("fma")):
        pytest.skip("this CPU has no AVX2 with FMA, so there is no wide multiply-add to look for")
    # Compile afresh: code that comes from the cache cannot be inspected.
    kernel = njit(nogil=True, fastmath=True, error_model="numpy")(_step.py_func)
    monkeypatch.setattr("hotlap.sim.native._step", kernel)
    world([lane()], 1).step(Command(*np.zeros((2, 1), np.float32)))

    (assembly,) = kernel.inspect_asm().values()

    lines = [line.split() for line in assembly.splitlines() if "vfm" in line or "vfnm" in line]
    wide = sum(line[0].endswith("ps") and ("%ymm" in line[-1]) for line in lines)
    wider = sum(line[0].endswith("ps") and ("%zmm" in line[-1]) for line in lines)
    single = sum(line[0].endswith("ss") for line in lines)
    # Measured with AVX-512: 328 on zmm and a handful on single numbers (the search for stations).
    assert wide + wider > 200
    assert single < 0.3 * (wide + wider)
    if features.get("avx512f") and features.get("avx512vl"):
        assert wider > 200
    # Gathers and scatters are what a loop over cars becomes if its rows do not lie side by side.
    assert not re.search("vp?scatter|vgather", assembly)


# --- rows ---


def test_each_row_drives_on_its_own_track():
    tracks = [course("reinvent_like"), lane(), course("hard")]
    mixed = world(tracks, 9)
    alone = {}
    for i, track in enumerate(tracks):
        start = mixed.state
        rows = np.flatnonzero(start.track == i)
        alone[i] = NativeSimulator([track], CAR, rows=len(rows))
        begin = Start(np.zeros(3, np.int32), start.s[rows], start.n[rows],
                      start.heading_error[rows], start.vx[rows])  # fmt: skip
        alone[i].reset(np.arange(3), begin)

    for noise in wander(9, 30):
        command = Command(steering=noise, speed=np.full(9, 1.5, np.float32))
        together = mixed.step(command)
        for i, sim in alone.items():
            rows = np.flatnonzero(together.track == i)
            state = sim.step(Command(noise[rows], command.speed[rows]))
            for name in ("x", "y", "yaw", "vx", "s", "n", "station", "travelled", "wheels_off"):
                one, other = getattr(state, name), getattr(together, name)[rows]
                np.testing.assert_array_equal(one, other, err_msg=name)


def test_a_car_alone_drives_as_in_company():
    many = world([course("hard")], 3 * BLOCK + 5)
    state = many.state
    row = 2 * BLOCK + 7
    one = NativeSimulator([course("hard")], CAR, rows=1)
    begin = [np.array([getattr(state, k)[row]]) for k in ("track", "s", "n", "heading_error", "vx")]
    one.reset(np.array([0]), Start(*begin))

    for noise in wander(many.rows, 40):
        together = many.step(Command(noise, np.full(many.rows, 2, np.float32)))
        alone = one.step(Command(noise[row : row + 1], np.float32([2])))

    for name in ("x", "y", "yaw", "vx", "vy", "yaw_rate", "s", "n", "travelled"):
        assert getattr(alone, name)[0] == getattr(together, name)[row], name


def test_two_threads_change_no_bit():
    rows = 80 * BLOCK + 3  # enough for two threads
    one = world([course("hard")], rows, threads=1)
    two = world([course("hard")], rows, threads=2)

    for noise in wander(rows, 10):
        command = Command(noise, np.full(rows, 2, np.float32))
        same(one.step(command), two.step(command))


def test_reset_leaves_the_other_rows_alone_and_old_states_untouched():
    sim = world([course("hard")], 10)
    before = sim.step(Command(*np.ones((2, 10), np.float32)))
    copies = {name: getattr(before, name).copy() for name in ROW_FIELDS}

    after = sim.reset(np.array([3, 7]), Start.on_line(2, s=1.0))
    sim.step(Command(*np.ones((2, 10), np.float32)))

    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(before, name), copy, err_msg=name)
    same(before, after, np.array([0, 1, 2, 4, 5, 6, 8, 9]))
    assert after.episode.tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(after.s[[3, 7]], 1.0)
    np.testing.assert_array_equal(after.travelled[[3, 7]], 0.0)
    np.testing.assert_array_equal(after.steps[[3, 7]], 0)


def test_a_start_is_where_it_says():
    track = course("hard")
    state = world([track], 500).state

    xy = track.locate(state.s, state.n)

    np.testing.assert_allclose(np.stack([state.x, state.y], 1), xy, atol=2e-6)
    assert (state.wheels_off == 0).all()
    assert (state.steps == 0).all()


def test_restoring_continues_bit_for_bit():
    sim = world([course("hard")], 70)
    noises = wander(70, 20)
    speed = np.full(70, 2, np.float32)
    for noise in noises[:10]:
        sim.step(Command(noise, speed))
    saved = sim.save()
    for noise in noises[10:]:
        end = sim.step(Command(noise, speed))

    other = world([course("hard")], 70, seed=9)
    other.restore(saved)
    for noise in noises[10:]:
        again = other.step(Command(noise, speed))

    same(end, again)


def test_a_saved_world_is_no_view_of_the_running_one():
    sim = world([course("hard")], 4)
    saved = sim.save()
    copies = {k: v.copy() for k, v in saved.items()}

    sim.step(Command(*np.ones((2, 4), np.float32)))
    sim.reset(np.arange(4), Start.on_line(4))

    for name, copy in copies.items():
        np.testing.assert_array_equal(saved[name], copy)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_command_that_is_no_number_is_an_error_that_names_the_row(bad):
    sim = world([course("hard")], 4)
    speed = np.float32([1, 1, bad, 1])

    with pytest.raises(SimulationError, match="row 2"):
        sim.step(Command(np.zeros(4, np.float32), speed))


def test_it_fills_what_it_says_it_fills():
    sim = world([course("hard")], 4)

    filled = {name for name in ROW_FIELDS if np.isfinite(getattr(sim.state, name)).all()}

    assert filled == sim.provides


def test_global_row_ids_count_from_the_first_row():
    sim = NativeSimulator([course("hard")], CAR, rows=3, first_row=100)

    assert sim.state.row.tolist() == [100, 101, 102]
