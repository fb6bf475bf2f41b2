"""Odometry and IMU on circles and straights, where the answer is known."""

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.sim.inertial import Imu, ImuSettings, Odometry, OdometrySettings
from hotlap.simulator import ROW_FIELDS, State

WHOLE = ("station", "wheels_off", "steps", "episode", "row", "track", "world")


def state(rows=1, **given):
    """Build the State of some cars: fields that are not given are 0."""
    zeros = {k: np.zeros(rows, np.int32 if k in WHOLE else np.float32) for k in ROW_FIELDS}
    return State(**{k: zero + np.asarray(given.get(k, 0), zero.dtype) for k, zero in zeros.items()})


QUIET = {name: 0.0 for name in OdometrySettings.model_fields if name != "clock"}
STILL = {name: 0.0 for name in ImuSettings.model_fields if name != "clock"}


def drive(sensor, steps, rows=1, *, seed=0, speed=2.0, turn=0.5, row=None, gain=0.0):
    """Follow cars at constant speed and yaw rate (or gaining speed); return all readings."""
    ids = np.arange(rows) if row is None else row
    before = state(rows, vx=speed, yaw_rate=turn, row=ids)
    sensor.begin(np.arange(rows), before, seed=seed)
    found = [sensor()]
    for k in range(1, steps + 1):
        after = state(rows, vx=speed + gain * k, yaw_rate=turn, row=ids, steps=k)
        sensor.advance(before, after, seed=seed)
        found.append(sensor())
        before = after
    return np.array(found)


def test_dead_reckoning_ends_a_quarter_circle_one_radius_ahead_and_one_to_the_left():
    turn = np.pi / 2 / 3.0
    odometry = Odometry(OdometrySettings(**QUIET), 1, dt=0.1)

    end = drive(odometry, 30, turn=turn)[-1, 0]

    radius = 2.0 / turn
    np.testing.assert_allclose(end, [2, turn, 0, radius, radius, 0, 1], atol=1e-5)


def test_an_imu_feels_the_centripetal_acceleration_and_the_gain_of_speed():
    found = drive(Imu(ImuSettings(**STILL), 1, dt=0.1), 3, turn=-0.5, gain=0.2)

    # at 2.4 to 2.6 m/s: a = 0.2 / 0.1 ahead; v r = -0.5 * 2.5 to the left
    np.testing.assert_allclose(found[3, 0], [2.0, -1.25, -0.5], atol=1e-5)


def test_an_imu_feels_slip():
    imu = Imu(ImuSettings(**STILL), 1, dt=0.1)
    before, after = state(vx=2, vy=0.1, yaw_rate=1), state(vx=2, vy=0.3, yaw_rate=1)

    imu.advance(before, after, seed=0)

    # ahead: - r vy = -0.2; to the left: 0.2 / 0.1 + 1 * 2
    np.testing.assert_allclose(imu()[0], [-0.2, 4.0, 1.0], atol=1e-5)


def test_noise_bias_and_drift_have_their_sizes():
    rows, steps = 4000, 25
    given = {"speed_noise": 0.3, "yaw_rate_bias": 0.2, "yaw_rate_drift": 0.1}
    odometry = Odometry(OdometrySettings(**(QUIET | given)), rows, dt=0.04)

    found = drive(odometry, steps, rows)

    # 4000 cars: deviations are known to 1.1 %; after 25 * 0.04 s = 1 s the drift has its size
    assert (found[:, :, 0] - 2.0).std() == pytest.approx(0.3, rel=0.02)
    assert (found[0, :, 1] - 0.5).std() == pytest.approx(0.2, rel=0.04)
    assert (found[-1, :, 1] - found[0, :, 1]).std() == pytest.approx(0.1, rel=0.04)
    scale = Odometry(OdometrySettings(**(QUIET | {"speed_scale": 0.1})), rows, dt=0.04)
    scaled = drive(scale, 2, rows)
    assert (scaled[0, :, 0] / 2.0).std() == pytest.approx(0.1, rel=0.04)
    np.testing.assert_array_equal(scaled[0, :, 0], scaled[2, :, 0])


def test_imu_noise_and_bias_have_their_sizes():
    given = {"acceleration_noise": 0.3, "acceleration_bias": 0.4, "gyro_noise": 0.05}
    found = drive(Imu(ImuSettings(**(STILL | given)), 4000, dt=0.04), 2, 4000)

    error = found[2] - [0, 1.0, 0.5]

    np.testing.assert_allclose(error.std(axis=0), [0.5, 0.5, 0.05], rtol=0.04)
    assert abs(np.corrcoef(error[:, :2].T)[0, 1]) < 0.06


@pytest.mark.parametrize("kind", [(Odometry, OdometrySettings), (Imu, ImuSettings)])
def test_rows_alone_are_rows_together_and_the_seed_matters(kind):
    make, settings = kind
    together = drive(make(settings(), 3, dt=0.1), 5, 3)

    alone = [drive(make(settings(), 1, dt=0.1), 5, 1, row=[i])[:, 0] for i in range(3)]

    np.testing.assert_array_equal(together.transpose(1, 0, 2), alone)
    assert (drive(make(settings(), 3, dt=0.1), 5, 3, seed=1) != together).any()


def test_an_environment_gives_both_and_continues_exactly():
    words = {"observation.actor": ["odometry", "imu"], "observation.critic": ["state"]}
    one, two = (VectorEnv(resolve(EnvSettings, words), 4, seed=seed) for seed in (3, 4))
    first = one.begin()
    action = np.full((4, 2), 0.4)
    one.advance(action)
    two.restore(one.save())

    here, there = one.advance(action).observation, two.advance(action).observation

    assert list(first) == ["state", "odometry", "imu"]
    assert (first["odometry"].shape, first["imu"].shape) == ((4, 7), (4, 3))
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])
    # the speeds are the cars' own, but for the noise
    np.testing.assert_allclose(here["odometry"][:, 0], one.state.vx, atol=0.2)
    assert (here["odometry"][:, 0] != one.state.vx).all()
