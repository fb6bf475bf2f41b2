"""The optimum of the simulator's own car: its equations, its rule, and its drive replayed."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("casadi", reason="needs the extra: pip install 'hotlap[limit]'")

import casadi as ca

from hotlap.errors import ConfigError
from hotlap.limit import fastest_lap
from hotlap.limit.single_track import rates
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.track import load_track
from hotlap.vehicle import VEHICLES

REAL = Path(__file__).parents[3] / "shared/data/tracks"
CAR = VEHICLES["deepracer"]


def placed(track, car, rows, **motion):
    """A simulator of many cars in given motions; fine steps, so that commands change smoothly."""
    sim = NativeSimulator([track], car, rows=rows, dt=1 / 120, threads=1)
    zero = np.zeros(rows, np.float32)
    s, n = track.project(np.stack([motion["x"], motion["y"]], axis=1))
    start = Start(np.zeros(rows, np.int32), s.astype("f4"), n.astype("f4"), zero, zero)
    sim.reset(np.arange(rows), start)
    arrays = sim.save()
    names = ("x", "y", "yaw", "vx", "vy", "yaw_rate", "steering", "reference")
    for row, name in enumerate(names):
        arrays["floats"][row] = motion[name]
    sim.restore(arrays)
    return sim


def replay(track, car, limit, seconds=1.0):
    """Drive the commands from many moments of the lap; return distances and wheels off, (T, N)."""
    start = limit.t[:-1:3]

    def at(name, t):
        lap, within = np.divmod(t, limit.lap_s)
        column = getattr(limit, name)
        return np.interp(within, limit.t, column) + lap * (name == "yaw") * (column[-1] - column[0])

    names = ("x", "y", "yaw", "vx", "vy", "yaw_rate", "steering", "reference")
    motion = {name: at(name, start) for name in names}
    motion["yaw"] = (motion["yaw"] + np.pi) % (2 * np.pi) - np.pi
    sim = placed(track, car, len(start), **motion)
    slope = np.diff(limit.steering) / np.diff(limit.t)
    apart, off = [], []
    for step in range(round(seconds / sim.dt)):
        middle, end = start + (step + 0.5) * sim.dt, start + (step + 1) * sim.dt
        between = np.searchsorted(limit.t, middle % limit.lap_s, side="right") - 1
        # the servo follows a line from gate to gate if it is asked for so much more
        steering = at("steering", middle) + car.steering_lag * slope[between]
        speed = at("command_speed", middle)
        state = sim.step(Command(steering.astype("f4"), speed.astype("f4")))
        apart.append(np.hypot(state.x - at("x", end), state.y - at("y", end)))
        off.append(state.wheels_off)
    return np.array(apart), np.array(off)


def test_its_equations_are_those_of_the_simulator():
    # A step of 1 ms from random motions, with the reference at what is commanded.
    draws = np.random.default_rng(3)
    rows, dt = 200, 1e-3
    motion = {
        "x": np.full(rows, 3.0),
        "y": np.zeros(rows),
        "yaw": draws.uniform(-3, 3, rows),
        "vx": draws.uniform(0.3, 4.0, rows),
        "vy": draws.uniform(-1, 1, rows),
        "yaw_rate": draws.uniform(-4, 4, rows),
        "steering": draws.uniform(-0.3, 0.3, rows),
        "reference": draws.uniform(0.2, 4.1, rows),
    }
    sim = placed(load_track("oval"), CAR, rows, **motion)
    sim.dt, sim._substeps = dt, 1
    turning = draws.uniform(-1, 1, rows)  # 0.2 s of it are asked for
    command = motion["steering"] + 0.2 * turning, motion["reference"] / CAR.speed_gain

    after = sim.step(Command(*(column.astype("f4") for column in command)))

    symbol, turn = ca.SX.sym("motion", 6), ca.SX.sym("turn")
    ours = ca.Function("rates", [symbol, turn], [rates(CAR, symbol, turn)])
    names = ("yaw", "vx", "vy", "yaw_rate", "steering", "reference")
    expected = np.array(ours(np.stack([motion[name] for name in names]), turning[None]))
    for row, (name, close) in enumerate({"vx": 0.15, "vy": 0.6, "yaw_rate": 4.0}.items(), 3):
        change = (getattr(after, name) - motion[name]) / dt
        # within the curvature of a millisecond; the rates themselves reach 10, 60 and 400
        np.testing.assert_allclose(change, expected[row], atol=close, rtol=0.03)


def test_its_lap_is_slower_than_the_bound_and_obeys_the_actuators():
    track = load_track("oval")
    found = fastest_lap(track, CAR, model="single")
    bound = fastest_lap(track, CAR, model="point")

    assert 1.0 < found.lap_s / bound.lap_s < 1.1
    assert found.coarse_s == pytest.approx(found.lap_s, rel=0.005)
    assert np.abs(found.command_steering).max() <= CAR.steering_max + 1e-6
    assert np.abs(np.diff(found.steering) / np.diff(found.t)).max() <= CAR.steering_rate + 1e-3
    assert found.command_speed.max() <= CAR.speed_max + 1e-3


def test_its_commands_replayed_in_the_simulator_stay_on_its_line_and_the_road():
    track = load_track("oval")
    found = fastest_lap(track, CAR, model="single")

    apart, off = replay(track, CAR, found)

    assert apart.max() < 0.05  # after one second, from every third gate
    assert off[:6].max() < 4  # later the distance from its line adds up


@pytest.mark.slow
def test_with_all_wheels_on_the_road_it_is_slower_and_they_are():
    track = load_track("oval")
    loose = fastest_lap(track, CAR, model="single")

    found = fastest_lap(track, CAR, model="single", rule="any_wheel")

    assert found.lap_s > loose.lap_s
    assert replay(track, CAR, found, seconds=1 / 120)[1].max() == 0


@pytest.mark.slow
def test_with_its_middle_on_the_road_it_touches_both_borders_and_passes_none():
    track = load_track("oval")

    found = fastest_lap(track, CAR, model="single", rule="centre")

    assert -0.401 < found.n.min() < -0.35  # the road is 0.8 m wide
    assert 0.35 < found.n.max() < 0.401


def test_an_open_track_has_no_flying_lap():
    with pytest.raises(ConfigError, match="needs a loop, and straight is an open track"):
        fastest_lap(load_track("straight"), CAR, model="single", cache=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["easy", "medium", "reinvent_like", "kart", "reinvent_base"])
def test_on_other_tracks_too_the_replay_stays_within_five_centimetres(name):
    if name == "reinvent_base" and not REAL.is_dir():
        pytest.skip("the real tracks are not beside the repository")
    track = load_track(REAL / f"{name}.npy" if name == "reinvent_base" else name)
    found = fastest_lap(track, CAR, model="single")

    apart, off = replay(track, CAR, found)

    assert apart.max() < 0.05
    assert off[:6].max() < 4  # later the distance from its line adds up
    assert found.lap_s > fastest_lap(track, CAR).lap_s
