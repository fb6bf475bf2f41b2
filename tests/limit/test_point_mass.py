"""The bound against laps that can be written down, other people's figures, and our simulator."""

import math
from pathlib import Path

import numpy as np
import pytest
import shapely

pytest.importorskip("casadi", reason="needs the extra: pip install 'hotlap[limit]'")

from hotlap.errors import ConfigError
from hotlap.limit import corridor, fastest_lap
from hotlap.limit.corridor import gates
from hotlap.limit.point_mass import grip
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, Start
from hotlap.track import Track, load_track
from hotlap.track.courses import COURSES
from hotlap.vehicle import VEHICLES

REAL = Path(__file__).parents[3] / "shared/data/tracks"
CAR = VEHICLES["deepracer"]


def ring(radius=2.0, half=0.3, rows=90):
    turn = np.linspace(0, 2 * np.pi, rows + 1)
    turn[-1] = 0  # so that the last row repeats the first exactly
    unit = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return Track.from_waypoints(
        np.hstack([radius * unit, (radius - half) * unit, (radius + half) * unit]), name="ring"
    )


def road(length=8.0, half=0.4, rows=41):
    x = np.linspace(0, length, rows)
    beside = half * np.ones(rows)
    return Track.from_waypoints(np.stack([x, 0 * x, x, beside, x, -beside], axis=1), name="road")


def mirrored(track):
    return Track.from_waypoints(track.waypoints * np.array([1, -1] * 3), name=track.name)


def narrower(track, by):
    """The same road with both borders moved inwards."""
    rows = track.waypoints.copy()
    for i in (2, 4):
        out = rows[:, i : i + 2] - rows[:, :2]
        size = np.hypot(*out.T)[:, None]
        rows[:, i : i + 2] = rows[:, :2] + out * (size - by) / size
    return Track.from_waypoints(rows, name=track.name)


def plain(**changes):
    """A car of which only grip, motor and top speed are left."""
    return CAR.model_copy(update={"rolling": 0.0, "drag": 0.0, "speed_gain": 1.0, **changes})


def test_on_a_ring_the_inner_border_at_the_limit_of_grip_is_fastest():
    # v^2 / r = mu g and T = 2 pi r / v = 2 pi sqrt(r / mu g), least where r is: 2 - 0.3 = 1.7 m.
    expected = 2 * math.pi * math.sqrt(1.7 / (0.7 * 9.81))

    found = fastest_lap(ring(), CAR, rule="centre", cache=False)

    assert found.lap_s == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(found.n, 0.3, atol=2e-3)
    np.testing.assert_allclose(found.speed, math.sqrt(0.7 * 9.81 * 1.7), rtol=2e-3)


def test_from_rest_it_pulls_as_hard_as_the_motor_and_then_keeps_its_top_speed():
    # 5 m/s^2 to 4 m/s: 0.8 s and 1.6 m; the other 6.4 m take 1.6 s.
    found = fastest_lap(road(8.0), plain(), rule="centre", cache=False)

    assert found.lap_s == pytest.approx(2.4, rel=2e-3)
    assert found.speed[-1] == pytest.approx(4.0, rel=1e-3)


def test_resistance_slows_it_by_as_much_as_the_motor_lacks():
    # 0.5 m/s^2 less: 4.5 m/s^2 to 4 m/s take 0.889 s and 1.778 m; 6.222 m more take 1.556 s.
    found = fastest_lap(road(8.0), plain(rolling=0.5), rule="centre", cache=False)

    assert found.lap_s == pytest.approx(0.889 + 1.556, rel=3e-3)


def test_the_whole_weight_grips_and_no_more():
    assert grip(CAR) == pytest.approx(0.7 * 9.81)
    # All 20 m/s^2 at the rear: sqrt(20^2 + 0.04 D^2) there, and the front's own share.
    strong = CAR.model_copy(update={"drive_max": 20.0, "front_drive": 0.0, "cg_height": 0.0})
    half = 0.35 * 9.81
    assert grip(strong) == pytest.approx(half + math.hypot(20, 0.2 * half))


def test_on_a_straight_road_the_rule_widens_the_corridor_by_the_wheels():
    st = road().stations

    for rule, beyond in (
        ("centre", 0.0),
        # one wheel still on the road: the diagonal from the middle to it
        ("all_wheels", math.hypot(0.0823, 0.080)),
        # all wheels on the road: they are 0.080 m beside the middle when the car is straight
        ("any_wheel", -0.080),
    ):
        right, left = corridor(road(), CAR, rule)
        np.testing.assert_allclose(right, st.right + beyond, atol=1e-4)
        np.testing.assert_allclose(left, st.left + beyond, atol=1e-4)


@pytest.mark.parametrize(("rule", "most"), [("all_wheels", 4), ("any_wheel", 1)])
@pytest.mark.parametrize("name", ["reinvent_like", "hard"])
def test_the_simulator_lets_no_car_be_outside_of_the_corridor(name, rule, most):
    track = load_track(name)
    st = track.stations
    stations = np.arange(0, st.count, max(1, st.count // 20))
    yaw = np.radians(np.arange(-180, 180, 6.0)).astype(np.float32)
    right, left = corridor(track, CAR, rule)

    def off(offset):
        """Return whether each yaw at each station breaks the rule."""
        s = np.repeat(st.spacing * stations, len(yaw)).astype(np.float32)
        sim = NativeSimulator([track], CAR, rows=len(s), dt=1e-4, threads=1)
        zero = np.zeros(len(s), np.float32)
        start = Start(
            track=np.zeros(len(s), np.int32),
            s=s,
            n=np.repeat(offset, len(yaw)).astype(np.float32),
            heading_error=np.tile(yaw, len(stations)),
            speed=zero,
        )
        sim.reset(np.arange(len(s)), start)
        state = sim.step(Command(steering=zero, speed=zero))
        return (state.wheels_off >= most).reshape(len(stations), -1)

    for sign, edge in ((1, left[stations]), (-1, right[stations])):
        assert off(sign * (edge + 0.003)).all()
        assert not off(sign * (edge - 0.003)).all(axis=1).any()


def test_a_wider_corridor_more_grip_and_a_stronger_motor_are_faster():
    track = load_track("oval")
    base = fastest_lap(track, CAR, rule="centre").lap_s

    assert fastest_lap(track, CAR, rule="any_wheel").lap_s > base
    assert fastest_lap(track, CAR, rule="all_wheels").lap_s < base
    for change in ({"friction": 0.8}, {"drive_max": 6.0}, {"speed_max": 5.0}):
        assert fastest_lap(track, CAR.model_copy(update=change), rule="centre").lap_s < base


def test_left_and_right_are_the_same_to_it():
    track = load_track("reinvent_like")

    one, other = (fastest_lap(t, CAR) for t in (track, mirrored(track)))

    assert other.lap_s == pytest.approx(one.lap_s, rel=2e-4)
    np.testing.assert_allclose(other.n, -one.n, atol=0.03)


def test_its_answer_stays_within_the_corridor_and_the_circle_of_friction():
    track = load_track("reinvent_like")

    found = fastest_lap(track, CAR)

    right, left = corridor(track, CAR, "all_wheels")
    at = np.arange(track.stations.count) * track.stations.spacing
    for side, edge in ((found.n, left), (-found.n, right)):
        assert (side < np.interp(found.s, at, edge, period=track.length) + 0.01).all()
    step = np.diff(found.t)[:, None]
    velocity = found.speed[:, None] * np.stack([np.cos(found.yaw), np.sin(found.yaw)], axis=1)
    force = np.diff(velocity, axis=0) / step
    size = np.hypot(*force.T)
    # resistance brakes as well: 0.1 + 0.005 v^2
    assert size.max() <= 0.7 * 9.81 + 0.1 + 0.005 * 4.2**2
    assert size.max() > 0.99 * 0.7 * 9.81
    moved = np.diff(np.stack([found.x, found.y], axis=1), axis=0)
    np.testing.assert_allclose(moved, step * (velocity[1:] + velocity[:-1]) / 2, atol=1e-5)


def box_road(side=3.0, radius=0.3, half=0.25):
    """A square with round corners: their centre is nearer to the border than the wheels reach."""
    turn = np.linspace(0, np.pi / 2, 12)
    arc = np.stack([radius * np.sin(turn), radius * (1 - np.cos(turn))], axis=1)
    leg = np.concatenate([np.linspace([radius - side, 0], [0, 0], 20, endpoint=False), arc])
    normal = np.concatenate([0 * turn[:1].repeat(20), turn])
    left = half * np.stack([-np.sin(normal), np.cos(normal)], axis=1)
    rows, place, heading = [], np.zeros(2), 0.0
    for _ in range(4):
        turned = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
        centre, beside = place + (leg - leg[0]) @ turned, left @ turned
        rows.append(np.hstack([centre, centre + beside, centre - beside])[:-1])
        place, heading = centre[-1], heading + np.pi / 2
    every = np.concatenate(rows)
    return Track.from_waypoints(np.concatenate([every, every[:1]]), name="box")


@pytest.mark.parametrize("name", ["box", "hairpins", "2022_reinvent_champ_ccw"])
def test_gates_hold_all_of_the_corridor_even_where_it_folds(name):
    if name == "box":
        track = box_road()
    elif name in COURSES:
        track = load_track(name)
    elif REAL.is_dir():
        track = load_track(REAL / f"{name}.npy")
    else:
        pytest.skip("the real tracks are not beside the repository")
    right, left = corridor(track, CAR, "all_wheels")
    st = track.stations
    folds = max((left * st.curvature).max(), (-right * st.curvature).max()) > 1
    assert folds == (name != "hairpins")

    found = gates(track, CAR, "all_wheels", track.width / 12)

    ends = [found.at + w[:, None] * found.across for w in (found.low, found.high)]
    pieces = np.stack([ends[0], np.roll(ends[0], -1, 0), np.roll(ends[1], -1, 0), ends[1]], axis=1)
    area = shapely.union_all([shapely.Polygon(piece).buffer(0) for piece in pieces])
    for share in np.linspace(-1, 1, 9):
        n = share * (left if share > 0 else right)
        places = shapely.points(track.locate(st.spacing * np.arange(st.count), n))
        assert shapely.distance(area, places).max() < 0.01
    ahead = np.stack([found.across[:, 1], -found.across[:, 0]], axis=1)
    for end in ends:
        assert ((np.roll(end, -1, axis=0) - end) * ahead).sum(1).min() > 0  # they do not cross


def test_an_unknown_rule_says_which_there_are():
    with pytest.raises(ConfigError, match=r"all_wheels, any_wheel, centre \(got never\)"):
        fastest_lap(load_track("oval"), CAR, rule="never", cache=False)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real tracks are not beside the repository")
@pytest.mark.parametrize(
    ("name", "inside", "seconds"),
    [  # computed before hotlap, with CasADi in curvilinear coordinates: friction 0.5, 4 m/s,
        # no resistance; the middle of the car at least so far inside the border
        ("reinvent_base", 0.0, 4.907),
        ("2022_summit_speedway", 0.1, 6.62),
        ("2022_reinvent_champ_ccw", 0.1, 9.87),
        ("Albert", 0.1, 12.13),
    ],
)
def test_it_meets_the_figures_of_an_independent_solver(name, inside, seconds):
    track = load_track(REAL / f"{name}.npy")
    track = narrower(track, inside) if inside else track
    # A motor just below the grip: beyond it the model's axles pull more than they grip.
    car = plain(friction=0.5, drive_max=0.97 * 0.5 * 9.81, cg_height=0.0)

    found = fastest_lap(track, car, rule="centre", cache=False)

    # Folds of the real files' tight corners are treated differently: 1.2 % at most.
    assert found.lap_s == pytest.approx(seconds, rel=0.015)
    assert found.coarse_s == pytest.approx(found.lap_s, rel=0.01)


def test_the_same_question_has_the_same_answer_to_the_last_bit():
    one, other = (fastest_lap(load_track("oval"), CAR, cache=False) for _ in range(2))

    assert one.lap_s == other.lap_s
    np.testing.assert_array_equal(one.n, other.n)
