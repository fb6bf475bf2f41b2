"""Our equations beside CommonRoad's, written by others: where they must agree, and where not.

Althoff, Koschi and Manzinger 2017, CommonRoad (IEEE IV); commonroad-vehicle-models 3.0.2: ST, a
single track with linear tyres, and STD, one with the Magic Formula and turning wheels.
"""

import math
from functools import cache

import numpy as np
import pytest

from hotlap.proving import place
from hotlap.simulator import Command
from hotlap.vehicle import VEHICLES

models = pytest.importorskip(
    "vehiclemodels", reason="commonroad-vehicle-models is not installed: pip install -e '.[dev]'"
)
SPEED, SECONDS, DT = 20.0, 3.0, 0.01
CREST = 1.0489 * 9.81  # p_dy1 g: what the tyres of both hold [m/s^2]


@cache
def theirs():
    from vehiclemodels.parameters_vehicle2 import parameters_vehicle2

    return parameters_vehicle2()


@cache
def ours():
    """The set `sedan`, with every other number of CommonRoad's vehicle 2 and no resistance."""
    p = theirs()
    shape = p.tire.p_cy1
    peak = math.tan(math.pi / 2 / shape) * shape * p.tire.p_dy1 / -p.tire.p_ky1
    changed = {
        "front_axle": p.a,
        "rear_axle": p.b,
        "cg_height": p.h_s,
        "gyration": math.sqrt(p.I_z / p.m),
        "friction": p.tire.p_dy1,
        "front_peak_slip": math.atan(peak),
        "rear_peak_slip": math.atan(peak),
        "slide_loss": 1 - math.sin(shape * math.pi / 2),
        "front_drive": 0.0,
        "rolling": 0.0,
        "drag": 0.0,
    }
    return type(VEHICLES["sedan"]).model_validate(VEHICLES["sedan"].model_dump() | changed)


def drive_ours(steering):
    """(T, 3) yaw rate, side slip and speed of our car after a step of the steering command."""
    simulator = place(ours(), 1, speed=SPEED, dt=DT)
    rows = []
    for _ in range(round(SECONDS / DT)):
        state = simulator.step(Command(*np.float32([[steering], [SPEED]])))
        beta = math.atan2(state.vy[0], state.vx[0])
        rows.append([state.yaw_rate[0], beta, math.hypot(state.vx[0], state.vy[0])])
    return np.array(rows, np.float64)


def drive_theirs(model, steering):
    """(T, 3) of the same by RK4 on their right-hand side, with our servo and our motor."""
    from vehiclemodels.vehicle_dynamics_st import vehicle_dynamics_st
    from vehiclemodels.vehicle_dynamics_std import vehicle_dynamics_std

    car = ours()
    rates = {"st": vehicle_dynamics_st, "std": vehicle_dynamics_std}[model]
    wheels = [SPEED / theirs().R_w] * 2 if model == "std" else []
    state = np.array([0, 0, 0, SPEED, 0, 0, 0, *wheels], float)

    def slope(x):
        servo = np.clip((steering - x[2]) / car.steering_lag, -car.steering_rate, car.steering_rate)
        asked = car.motor_gain * (SPEED - x[3] * math.cos(x[6]))
        drive = asked / math.sqrt(1 + (asked / car.drive_max) ** 2)
        return np.array(rates(list(x), [servo, drive], theirs()))

    rows = []
    for _ in range(round(SECONDS / DT)):
        h = DT / 4  # their wheels are stiff
        for _ in range(4):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        rows.append(state[[5, 6, 3]])
    return np.array(rows)


@pytest.mark.parametrize("model", ["st", "std"])
@pytest.mark.parametrize("steering", [0.005, -0.01])
def test_at_small_slip_yaw_and_side_slip_are_theirs(model, steering):
    mine, other = drive_ours(steering), drive_theirs(model, steering)

    assert 0.05 < SPEED * np.abs(other[-1, 0]) / CREST < 0.3
    # Measured: 0.3 % of the greatest yaw rate at every moment; side slip of 0.1 mrad.
    assert np.abs(mine[:, 0] - other[:, 0]).max() < 0.005 * np.abs(other[:, 0]).max()
    assert np.abs(mine[:, 1] - other[:, 1]).max() < 2e-4


@pytest.mark.parametrize("steering", [0.02, 0.03, 0.04, 0.06])
def test_up_to_the_limit_the_turn_is_that_of_their_magic_formula(steering):
    mine, other = drive_ours(steering), drive_theirs("std", steering)

    # Measured: yaw rate 0.14 %, side slip 0.7 %, speed 0.003 % at every moment, to 0.81 mu g.
    limit = np.abs(other).max(0) * [0.003, 0.015, 0.0005]
    assert (np.abs(mine - other).max(0) < limit).all()


def test_far_beyond_the_limit_it_stays_near_their_magic_formula():
    # Six times the steering that the tyres can follow: they combine slips by another law.
    mine, other = drive_ours(0.15), drive_theirs("std", 0.15)

    assert np.abs(mine[:, 0] - other[:, 0]).max() < 0.05 * np.abs(other[:, 0]).max()
    assert np.abs(mine[:, 1] - other[:, 1]).max() < 0.02


def test_beyond_the_limit_ours_saturates_and_linear_tyres_do_not():
    mine, linear = drive_ours(0.15), drive_theirs("st", 0.15)

    lateral = [np.abs(rows[-50:, 0] * rows[-50:, 2]).max() / CREST for rows in (mine, linear)]
    assert lateral[0] < 1.05
    assert lateral[1] > 1.3
