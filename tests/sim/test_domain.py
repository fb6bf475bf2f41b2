"""What is randomised: its ranges, its effect on the car and the picture, and that it repeats."""

import numpy as np
import pytest

from hotlap import vehicle
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.domain import CAR, Domain, RandomizeSettings, random_looks
from hotlap.sim.look import Look
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.track import load_track
from hotlap.vehicle import load_vehicle

CARPET = {"friction": (0.6, 1.3)}
DEEPRACER = load_vehicle("deepracer")


def world(rows=64, threads=1, **settings):
    sim = NativeSimulator(
        [load_track("oval")], DEEPRACER, rows=rows, threads=threads,
        randomize=RandomizeSettings(**settings),
    )  # fmt: skip
    sim.reset(np.arange(rows), start(rows))
    return sim


def start(rows, **changes):
    zero = np.zeros(rows, np.float32)
    given = {"s": zero, "n": zero, "heading_error": zero, "speed": zero} | changes
    return Start(track=np.zeros(rows, np.int32), **given)


def drive(sim, steering, speed, steps):
    command = Command(
        steering=np.full(sim.rows, steering, np.float32), speed=np.full(sim.rows, speed, np.float32)
    )
    for _ in range(steps):
        sim.step(command)
    return sim.state


@pytest.mark.parametrize("name", CAR)
def test_factors_fill_their_range_evenly_in_the_logarithm(name):
    settings = RandomizeSettings(**{name: (0.5, 2.0)})
    rows = np.arange(4000)
    domain = Domain(settings, np.tile(DEEPRACER.parameters(), (4000, 1)))

    domain.begin(rows, 0, rows, rows * 0, 1.0)

    logs = np.log2(domain.drawn[:, CAR.index(name)])
    assert -1 <= logs.min() < -0.99
    assert 0.99 < logs.max() <= 1
    assert logs.mean() == pytest.approx(0, abs=3 * np.sqrt(1 / 3 / 4000))
    others = np.delete(domain.drawn[:, :-1], CAR.index(name), axis=1)
    assert (others == 1).all()


@pytest.mark.parametrize(
    ("name", "field"),
    [("friction", "friction"), ("drive", "drive_max"), ("steering_lag", "steering_lag"),
     ("speed_gain", "speed_gain")],
)  # fmt: skip
def test_a_factor_makes_the_car_with_that_parameter(name, field):
    """Each vector is that of a Vehicle built with the changed parameter."""
    domain = Domain(RandomizeSettings(**{name: (0.7, 0.7)}), DEEPRACER.parameters()[None])

    found = domain.begin(np.zeros(1, int), 0, np.zeros(1, int), np.zeros(1, int), 1.0)[0]

    changed = DEEPRACER.model_copy(update={field: 0.7 * getattr(DEEPRACER, field)})
    np.testing.assert_allclose(found, changed.parameters(), rtol=1e-6)


def test_inertia_and_peak_slip_make_those_cars_too():
    settings = RandomizeSettings(inertia=(1.2, 1.2), peak_slip=(0.8, 0.8))
    domain = Domain(settings, DEEPRACER.parameters()[None])

    found = domain.begin(np.zeros(1, int), 0, np.zeros(1, int), np.zeros(1, int), 1.0)[0]

    slips = {
        name: np.arctan(0.8 * np.tan(getattr(DEEPRACER, name)))
        for name in ("front_peak_slip", "rear_peak_slip")
    }
    changed = DEEPRACER.model_copy(
        update={"gyration": DEEPRACER.gyration * np.sqrt(1.2)} | slips
    ).parameters()
    np.testing.assert_allclose(found, changed, rtol=1e-6)


def test_grip_bounds_what_each_car_can_do():
    """On a circle the lateral acceleration settles below friction times gravity, for each car."""
    sim = world(256, **CARPET)
    state = drive(sim, 0.3, 4.0, 60)

    grip = sim._domain.drawn[:, 0] * DEEPRACER.friction * vehicle.GRAVITY
    lateral = np.hypot(state.vx, state.vy) * np.abs(state.yaw_rate)
    held = np.abs(state.vy) < 0.3 * state.vx  # the others spin
    assert held.mean() > 0.9
    assert (lateral < 1.02 * grip)[held].all()
    assert np.corrcoef(lateral[held], grip[held])[0, 1] > 0.95


def test_the_trim_turns_a_car_that_steers_straight():
    sim = world(64, steering_trim_deg=2.0)

    state = drive(sim, 0.0, 1.0, 30)

    trim = sim._domain.trim
    assert np.abs(np.degrees(trim)).max() == pytest.approx(2, abs=0.15)
    np.testing.assert_allclose(state.steering, trim, atol=1e-3)


def test_nothing_randomised_is_the_world_as_it_was():
    plain = NativeSimulator([load_track("oval")], DEEPRACER, rows=8)
    plain.reset(np.arange(8), start(8))

    np.testing.assert_array_equal(drive(world(8), 0.2, 2.0, 20).x, drive(plain, 0.2, 2.0, 20).x)


def test_cars_depend_on_row_and_episode_alone():
    many, few = world(64, threads=2, **CARPET), world(20, **CARPET)
    np.testing.assert_array_equal(drive(many, 0.2, 3.0, 20).x[:20], drive(few, 0.2, 3.0, 20).x)

    first = few._domain.drawn.copy()
    few.reset(np.array([3]), start(1))

    assert (few._domain.drawn != first).any(axis=1).tolist() == [i == 3 for i in range(20)]


def test_a_world_continues_with_the_cars_that_it_had():
    sim, other = world(20, **CARPET), world(20, **CARPET)
    sim.reset(np.arange(20), start(20))
    drive(sim, 0.2, 3.0, 5)

    other.restore(sim.save())

    np.testing.assert_array_equal(drive(sim, 0.2, 3.0, 20).x, drive(other, 0.2, 3.0, 20).x)


def test_looks_differ_as_far_as_they_may():
    settings = RandomizeSettings(looks=200, brightness=(0.5, 1.8), line_width=(0.7, 1.4))

    looks = random_looks(Look(), settings, seed=0)

    assert looks[0] == Look()
    road = np.array([look.road for look in looks]) / np.array(Look().road)
    assert road.min() == pytest.approx(0.5, abs=0.03)
    assert road.max() == pytest.approx(1.8, abs=0.05)
    width = np.array([look.border_width for look in looks]) / Look().border_width
    assert 0.7 <= width.min() < 0.72
    assert 1.38 < width.max() <= 1.4
    assert looks == random_looks(Look(), settings, seed=0)
    assert looks != random_looks(Look(), settings, seed=1)


@pytest.mark.parametrize(
    ("setting", "unlike"),
    [({"hue": 0.2}, "hue"), ({"white_balance": 0.2}, "balance"), ({"contrast": (0.5, 1.5)}, "all")],
)
def test_every_setting_of_looks_changes_colours(setting, unlike):
    looks = random_looks(Look(), RandomizeSettings(looks=50, **setting), seed=0)

    ground = np.array([look.ground for look in looks], float)
    assert ground.std(axis=0).max() > 5, unlike


def test_each_episode_takes_a_look_and_the_picture_shows_it():
    given = {
        "observation.actor": ["camera"],
        "randomize.looks": 8,
        "randomize.brightness": [0.3, 2],
    }
    env = VectorEnv(resolve(EnvSettings, {"track": "oval"}, given), 64)

    seen = env.begin()["camera"].astype(float).mean(axis=(1, 2, 3))

    assert len(np.unique(env.simulator._look)) == 8
    assert seen.std() > 10


def test_ranges_widen_while_enough_episodes_end_well():
    settings = RandomizeSettings(**CARPET, success=0.8)

    assert settings.widen(0.5, good=4, bad=1) == pytest.approx(0.5)  # exactly as wanted
    assert settings.widen(0.5, good=5, bad=0) > 0.5
    assert settings.widen(0.5, good=3, bad=2) < 0.5
    assert settings.widen(1.0, good=9, bad=0) == 1
    assert RandomizeSettings(**CARPET).widen(1.0, good=0, bad=9) == 1


def test_an_environment_begins_narrow_where_success_is_asked_for():
    given = {"track": "oval", "randomize": {"friction": [0.5, 2.0], "success": 0.5}}
    env = VectorEnv(resolve(EnvSettings, given), 32)
    env.begin()

    assert env.breadth == 0
    assert (env.simulator._domain.drawn[:, 0] == 1).all()
    env.breadth = 0.5
    env.begin()
    drawn = env.simulator._domain.drawn[:, 0]
    assert 0.7 < drawn.min() < 0.8
    assert env.save()["breadth"] == 0.5


@pytest.mark.parametrize(
    ("rules", "after"),
    [
        # All 32 episodes are over at the third step, and each counts for 1/400.
        ({"time_limit": 0.2}, 0.5 + 32 / 400),
        ({"immobilized_steps": 3, "immobilized_distance": 1.0}, 0.5 - 32 / 400),
    ],
)
def test_episodes_that_the_clock_ends_widen_the_ranges_and_stumbles_narrow_them(rules, after):
    given = {"track": "oval", "start": "line", "randomize": {"friction": [0.5, 2], "success": 0.5}}
    env = VectorEnv(resolve(EnvSettings, {**given, "rules": rules}), 32)
    env.begin()
    env.breadth = 0.5

    ended = [len(env.advance(np.zeros((32, 2), np.float32)).ended) for _ in range(3)]

    assert ended == [0, 0, 32]
    assert env.breadth == pytest.approx(after)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"friction": [1.2, 0.8]}, "friction: the first is the smaller one"),
        ({"friction": [0, 1]}, "randomize.friction"),
        ({"brightness": [0.5, 1.8]}, "brightness need looks to differ in"),
        ({"frction": [0.5, 1.8]}, "did you mean"),
    ],
)
def test_what_cannot_be_is_said(given, says):
    with pytest.raises(ConfigError, match=says):
        resolve(EnvSettings, {"randomize": given})
