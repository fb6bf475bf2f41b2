"""Matched manoeuvres in MuJoCo: rigid body, sprung wheels and contact friction, none of them ours.

One thing is fitted: the slip angle of the tyres' peak, 0.10 rad in place of 0.23 and 0.21, because
MuJoCo's soft contact is stiffer; it depends on the speed of slip, so the fit holds at 2 to 3 m/s.
All else are the parameters of the set `deepracer`. Tolerances: 5 % below 0.7 mu g, 15 % at the
limit. What a MuJoCo car has and ours has not: roll, wheel inertia, four separate contacts.
"""

import importlib.util
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hotlap.identify import Log, identify
from hotlap.proving import place
from hotlap.simulator import Command
from hotlap.vehicle import GRAVITY, VEHICLES

pytest.importorskip("mujoco", reason="mujoco is not installed: pip install -e '.[dev]'")
DT = 1 / 60
CAR = VEHICLES["deepracer"].model_copy(update={"front_peak_slip": 0.10, "rear_peak_slip": 0.10})
CREST = CAR.friction * GRAVITY


@cache
def theirs():
    file = Path(__file__).parents[2] / "benchmarks" / "sim_to_sim.py"
    spec = importlib.util.spec_from_file_location("sim_to_sim", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def both(speed, steering, wanted, seconds):
    """(T + 1, 6, N) x, y, yaw, vx, vy, yaw rate in our world and in theirs.

    `steering` and `wanted` are functions of time, or constants, for N cars that roll at `speed`.
    """
    speed = np.atleast_1d(np.float32(speed))
    traces = []
    for simulator in (place(CAR, len(speed), speed=speed, dt=DT), theirs().on_flat(CAR, speed, DT)):
        trace = []
        for k in range(round(seconds / DT) + 1):
            state = simulator.state
            trace.append([state.x, state.y, state.yaw, state.vx, state.vy, state.yaw_rate])
            row = [f(k * DT) if callable(f) else f for f in (steering, wanted)]
            simulator.step(
                Command(*(np.broadcast_to(np.float32(a), len(speed)).copy() for a in row))
            )
        traces.append(np.array(trace, np.float64))
    return traces


def settled(trace):
    """(N,) yaw rate, speed and lateral acceleration of the last half second."""
    last = trace[-30:]
    speed = np.hypot(last[:, 3], last[:, 4])
    return last[:, 5].mean(0), speed.mean(0), (speed * last[:, 5]).mean(0)


def way(trace):
    return np.hypot(*np.diff(trace[:, :2], axis=0).transpose(1, 0, 2)).sum(0)


@pytest.mark.parametrize("steering", [0.05, -0.1, 0.15])
def test_step_steer_below_the_limit(steering):
    speed = np.array([1.0, 2.0, 2.5])

    ours, mujoco = both(speed, steering, speed, 2.0)

    (rate, *_), (other, _, lateral) = settled(ours), settled(mujoco)
    below = np.abs(lateral) < 0.7 * CREST
    assert below.sum() >= 2
    np.testing.assert_allclose(rate[below], other[below], rtol=0.05)
    assert np.sign(rate).tolist() == [math.copysign(1, steering)] * 3
    rise = [
        np.argmax(np.abs(t[:, 5]) > 0.63 * np.abs(settled(t)[0]), axis=0) for t in (ours, mujoco)
    ]
    assert np.abs(rise[0] - rise[1]).max() <= 2  # 63 % of the turn within two frames of 1/60 s


def test_a_ramp_of_steering_meets_the_same_limit():
    speed = np.array([2.0, 2.5, 3.0, 3.5])

    ours, mujoco = both(speed, lambda t: min(0.5, 0.125 * t), speed, 4.0)

    most = []
    for trace in (ours, mujoco):
        lateral = np.hypot(trace[:, 3], trace[:, 4]) * trace[:, 5]
        most.append(
            np.stack([lateral[k : k + 12].mean(0) for k in range(len(lateral) - 12)]).max(0)
        )
    np.testing.assert_allclose(most[0], most[1], rtol=0.15)
    assert (most[1] > 0.85 * CREST).all()


def test_it_brakes_within_the_same_distance():
    ours, mujoco = both([2.0, 3.0, 4.0], 0.0, 0.1, 2.0)

    for k in range(3):
        until = [np.argmax(trace[:, 3, k] < 0.3) for trace in (ours, mujoco)]
        distance = [way(t[: n + 1])[k] for t, n in zip((ours, mujoco), until, strict=True)]
        assert distance[0] == pytest.approx(distance[1], rel=0.05)


def test_it_gathers_speed_alike():
    ours, mujoco = both(0.0, 0.0, 3.0, 1.5)

    np.testing.assert_allclose(ours[:, 3], mujoco[:, 3], atol=0.05 * 3)
    assert ours[-1, 3, 0] == pytest.approx(mujoco[-1, 3, 0], rel=0.01)


def test_braking_in_a_turn_leads_to_the_same_place():
    def wanted(t):
        return 2.5 if t < 1.2 else 1.0

    ours, mujoco = both(2.5, 0.12, wanted, 2.0)

    driven = way(mujoco)[0]
    assert driven > 3
    assert way(ours)[0] == pytest.approx(driven, rel=0.05)
    assert math.dist(ours[-1, :2, 0], mujoco[-1, :2, 0]) < 0.08 * driven
    turned = [np.unwrap(trace[:, 2, 0])[-1] for trace in (ours, mujoco)]
    assert turned[0] == pytest.approx(turned[1], rel=0.15)


def test_a_log_of_the_mujoco_car_tells_its_grip_lag_and_wheelbase():
    # The base is wrong in all of them: friction 0.55, lag 0.12 s, wheelbase 0.20 m, gain 0.9.
    wrong = {
        "friction": 0.55, "steering_lag": 0.12, "speed_gain": 0.9, "motor_gain": 9.0,
        "front_axle": 0.10, "rear_axle": 0.10,
    }  # fmt: skip
    random = np.random.default_rng(1)
    steering = np.repeat(random.uniform(-0.5, 0.5, 100), 6)
    speed = np.repeat(random.uniform(0.8, 3.5, 67), 9)[:600]
    simulator = theirs().on_flat(CAR, np.float32([1.0]), 1 / 15)
    pose = []
    for row in np.stack([steering, speed], 1).astype(np.float32):
        state = simulator.state
        pose.append([state.x[0], state.y[0], state.yaw[0]])
        simulator.step(Command(steering=row[:1], speed=row[1:]))
    pose = np.array(pose, np.float64)
    pose[:, 2] = np.unwrap(pose[:, 2])
    log = Log(np.arange(600) / 15, pose, None, np.stack([steering, speed], 1))

    found = identify([log], CAR.model_copy(update=wrong)).findings

    # Measured: 3, 2, 5 and 1 % off; the stated deviations, near 1 %, know nothing of the model's
    # own error.
    for name, value, share in (
        ("friction", 0.70, 0.06), ("steering_lag", 0.20, 0.08), ("wheelbase", 0.24, 0.08),
        ("speed_gain", 1.028, 0.03),
    ):  # fmt: skip
        assert found[name].value == pytest.approx(value, rel=share), name
