"""The LIDAR against geometry by hand and shapely's intersections."""

import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from shapely import LineString, MultiLineString, STRtree
from shapely.geometry import Point, Polygon

from hotlap.errors import ConfigError, SimulationError
from hotlap.sim.lidar import (
    DeepRacerLidar,
    DeepRacerSectorLidar,
    DeepRacerSectorsOneHot,
    Lidar,
    LidarSettings,
    RangeLidar,
    track_walls,
)
from hotlap.track import Track, load_track

REAL = Path(__file__).parents[3] / "shared/data/tracks"


def straight(length=12.0, left=0.5, right=0.3):
    """An open road along +x, from x = 0; `inner` is its left border."""
    x = np.linspace(0, length, 121)
    rows = [x, 0 * x, x, 0 * x + left, x, 0 * x - right]
    return Track.from_waypoints(np.stack(rows, axis=1), name="straight")


def box(x, y, turned=0.0, long=0.4, wide=0.2, height=0.25):
    return [x, y, math.cos(turned), math.sin(turned), long / 2, wide / 2, height, 0.0]


def look(lidar, x, y, yaw=0.0, boxes=None, track=0):
    """Scan from one pose."""
    one = np.ones(1)
    found = None if boxes is None else np.array([boxes], np.float32).reshape(1, -1, 8)
    return lidar.scan(x * one, y * one, yaw * one, (track * one).astype(int), found)[0]


def poses(track, count, seed=0):
    """Poses on the road, anywhere and in any direction: x, y, yaw, track."""
    draws = np.random.default_rng(seed)
    s = draws.uniform(0, track.length, count)
    half = float(min(track.stations.left.min(), track.stations.right.min()))
    x, y = track.locate(s, draws.uniform(-0.9, 0.9, count) * half).T
    return x, y, draws.uniform(-np.pi, np.pi, count), np.zeros(count, int)


def around(track, x, y, seed=0):
    """Three boxes about each pose, one of which does not exist; none holds the LIDAR."""
    draws = np.random.default_rng(seed)
    angle, far = draws.uniform(-np.pi, np.pi, (2, len(x), 3)), draws.uniform(0.4, 3, (len(x), 3))
    boxes = np.zeros((len(x), 3, 8), np.float32)
    boxes[..., 0] = x[:, None] + far * np.cos(angle[0])
    boxes[..., 1] = y[:, None] + far * np.sin(angle[0])
    boxes[..., 2], boxes[..., 3] = np.cos(angle[1]), np.sin(angle[1])
    boxes[..., 4:] = 0.2, 0.1, 0.25, 0.0
    boxes[:, 2, 6] = 0.0
    return boxes


def cast(lines, x, y, angle, reach):
    """Distance along a ray by shapely; `reach` where there is nothing."""
    here = Point(x, y)
    ray = LineString([(x, y), (x + reach * math.cos(angle), y + reach * math.sin(angle))])
    hits = [ray.intersection(lines.geometries[k]) for k in lines.query(ray, "intersects")]
    return min((here.distance(hit) for hit in hits), default=reach)


def outline(one):
    x, y, c, s, a, b = one[:6]
    corners = [(a, b), (-a, b), (-a, -b), (a, -b)]
    return Polygon([(x + c * u - s * v, y + s * u + c * v) for u, v in corners])


def pieces(chains):
    return [LineString(chain[i : i + 2]) for chain in chains for i in range(len(chain) - 1)]


def compare(lidar, track, count, seed=0, offset=0.0):
    """Errors of all beams: (against the same ray, against rays 2e-5 rad beside it too)."""
    x, y, yaw, index = poses(track, count, seed)
    boxes = around(track, x, y, seed)
    walls = pieces(track_walls(track, offset)) if lidar.settings.walls else []
    found = lidar.scan(x, y, yaw, index, boxes)
    reach, error = lidar.settings.range_max, np.empty_like(found)
    ahead = lidar.settings.mount_forward
    for i in range(count):
        tree = STRtree(walls + [outline(one).exterior for one in boxes[i] if one[6] > 0])
        sx, sy = x[i] + ahead * np.cos(yaw[i]), y[i] + ahead * np.sin(yaw[i])
        inside = any(outline(one).contains(Point(sx, sy)) for one in boxes[i] if one[6] > 0)
        for k, angle in enumerate(lidar.angles):
            # Three rays: at the edge of a thing, rounding decides whether it is met.
            rays = [cast(tree, sx, sy, yaw[i] + angle + by, reach) for by in (0, -2e-5, 2e-5)]
            wanted = np.zeros(3) if inside else np.array(rays)
            wanted = np.maximum(wanted, lidar.settings.range_min)
            low, high = wanted.min() * (1 - 1e-4) - 1e-4, wanted.max() * (1 + 1e-4) + 1e-4
            error[i, k] = max(low - found[i, k], found[i, k] - high, 0)
    return error


def test_distances_on_a_straight_road_by_hand():
    lidar = Lidar(RangeLidar(beams=5, fov_deg=240, range_max=4), [straight()])

    found = look(lidar, 6.0, 0.0)

    # -120, -60, 0, 60, 120 degrees; borders 0.3 m to the right and 0.5 m to the left
    sine = math.sin(math.radians(60))
    np.testing.assert_allclose(found, [0.3 / sine, 0.3 / sine, 4, 0.5 / sine, 0.5 / sine], 1e-5)


def test_a_box_ahead_is_met_on_its_face_and_hides_the_walls():
    lidar = Lidar(RangeLidar(beams=3, fov_deg=20, mount_forward=0.1), [straight()])

    found = look(lidar, 1.0, 0.0, boxes=[box(3.0, 0.0, long=0.4, wide=0.6)])

    # the LIDAR is at 1.1 m, the face at 2.8 m; beams at -10, 0, 10 degrees
    aside = 0.3 / math.sin(math.radians(10))  # the right border is met just before the box
    np.testing.assert_allclose(found, [min(aside, 1.7 / math.cos(math.radians(10))), 1.7,
                                       1.7 / math.cos(math.radians(10))], 1e-5)  # fmt: skip


def test_boxes_that_do_not_exist_are_not_met():
    lidar = Lidar(RangeLidar(beams=1), [straight()])

    found = look(lidar, 1.0, 0.0, boxes=[box(3.0, 0.0, height=0.0)])

    assert found == [10.0]


def test_a_beam_that_starts_inside_of_a_box_measures_the_least():
    lidar = Lidar(RangeLidar(beams=8, fov_deg=360, range_min=0.05), [straight()])

    found = look(lidar, 3.05, 0.02, boxes=[box(3.0, 0.0)])

    np.testing.assert_array_equal(found, np.full(8, np.float32(0.05)))


def test_an_open_track_has_no_walls_at_its_ends():
    lidar = Lidar(RangeLidar(beams=2, fov_deg=180, facing_deg=90, range_max=8), [straight()])

    found = look(lidar, 11.0, 0.0)

    np.testing.assert_array_equal(found, [8, 8])


@pytest.mark.parametrize("name", ["reinvent_like", "hairpins", "straight"])
@pytest.mark.parametrize(
    "settings",
    [
        RangeLidar(beams=40, fov_deg=270, range_max=6, mount_forward=0.1),
        RangeLidar(beams=36, fov_deg=360, facing_deg=130, range_max=30),
        DeepRacerLidar(walls=True),
    ],
    ids=["ahead", "circle", "deepracer"],
)
def test_every_beam_agrees_with_shapely(name, settings):
    track = load_track(name)

    error = compare(Lidar(settings, [track]), track, 12)

    assert error.max() == 0


@pytest.mark.parametrize("name", ["reinvent_base", "Bowtie_track", "2022_summit_speedway"])
def test_every_beam_agrees_with_shapely_on_real_tracks(name):
    path = REAL / f"{name}.npy"
    if not path.exists():
        pytest.skip("the real tracks are not here")
    track = load_track(str(path))

    error = compare(Lidar(RangeLidar(beams=50, range_max=12), [track]), track, 12, seed=1)

    assert error.max() == 0


def test_a_neighbouring_leg_of_a_hairpin_is_seen_through_a_gap():
    # Two straight roads side by side would be hidden by walls; without a left wall nothing is.
    track = load_track("hairpins")
    x, y, yaw, index = poses(track, 64, seed=3)
    near = Lidar(RangeLidar(beams=72, fov_deg=360, range_max=1.0), [track]).scan(x, y, yaw, index)
    far = Lidar(RangeLidar(beams=72, fov_deg=360, range_max=20), [track]).scan(x, y, yaw, index)

    np.testing.assert_allclose(np.minimum(far, 1.0), near, rtol=1e-5)
    assert (far < 20).all()  # a closed road hides the rest of the world


@pytest.mark.parametrize("name", ["oval", "hairpins", "kart"])
def test_walls_lie_on_the_borders(name):
    track = load_track(name)

    walls = track_walls(track)

    for border in (track.inner, track.outer):
        off = [MultiLineString(pieces(walls)).distance(Point(p)) for p in border]
        assert max(off) < 6e-4


@pytest.mark.parametrize("offset", [0.1, 0.4])
def test_walls_beside_the_road_keep_their_distance(offset):
    track = load_track("hairpins")
    roads = MultiLineString([LineString(np.vstack([b, b[:1]])) for b in (track.inner, track.outer)])

    walls = track_walls(track, offset)

    gaps = np.array([roads.distance(Point(p)) for wall in walls for p in wall])
    assert gaps.max() < 1.02 * offset + 1e-3
    assert gaps.min() > 0.7 * offset
    # where two legs are nearer than two offsets there is no wall
    length = sum(LineString(wall).length for wall in walls)
    assert 0.5 * roads.length < length < 1.2 * roads.length


def test_a_beam_sees_the_offset_wall():
    lidar = Lidar(RangeLidar(beams=1, facing_deg=90, wall_offset=0.25), [straight()])

    assert look(lidar, 6.0, 0.0) == pytest.approx(0.75, abs=1e-3)


def test_rows_alone_and_on_two_threads_are_the_rows_together():
    tracks = [load_track("hairpins"), load_track("oval")]
    x, y, yaw, index = poses(tracks[0], 100, seed=5)
    index = np.arange(100) % 2
    boxes = around(tracks[0], x, y)
    one, two = (Lidar(RangeLidar(), tracks, threads=threads) for threads in (1, 2))

    together = two.scan(x, y, yaw, index, boxes)

    alone = [
        one.scan(x[i : i + 1], y[i : i + 1], yaw[i : i + 1], index[i : i + 1], boxes[i : i + 1])[0]
        for i in range(100)
    ]
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together[:, 32])) > 60


def test_a_turn_of_the_car_by_a_beam_shifts_the_scan():
    track = load_track("kart")
    lidar = Lidar(RangeLidar(beams=60, fov_deg=360), [track])
    x, y, yaw, index = poses(track, 20, seed=7)

    turned = lidar.scan(x, y, yaw + 2 * np.pi / 60, index)

    np.testing.assert_allclose(turned, np.roll(lidar.scan(x, y, yaw, index), -1, axis=1), 2e-3)


def test_wrong_input_is_named():
    lidar = Lidar(RangeLidar(), [straight()])
    one = np.ones(1)

    with pytest.raises(ConfigError, match=r"track must be in 0\.\.0, got 1\.\.1"):
        lidar.scan(one, one, one, one.astype(int))
    with pytest.raises(ConfigError, match=r"boxes must be \(M, B, 8\), got \(2, 1, 8\)"):
        lidar.scan(one, one, one, 0 * one.astype(int), np.zeros((2, 1, 8)))
    with pytest.raises(SimulationError, match="row 0"):
        lidar.scan(one * np.nan, one, one, 0 * one.astype(int))
    with pytest.raises(ConfigError, match="at least one track"):
        Lidar(RangeLidar(), [])
    with pytest.raises(ValidationError, match="range_min 5 must lie below range_max 2"):
        RangeLidar(range_min=5, range_max=2)


def test_deepracer_lidars_say_what_deepracer_says():
    # two sectors of two beams; steps of 0.5 m
    far = np.array([[0.1, 0.49, 0.5, 5.0], [0.9, 2.3, 1.99, 12.0]])
    given = {"beams": 4, "sectors": 2}
    track = [straight()]

    plain = Lidar(DeepRacerLidar(beams=4), track).reading(far)
    binary = Lidar(DeepRacerSectorLidar(**given), track).reading(far)
    hot = Lidar(DeepRacerSectorsOneHot(**given, steps=4), track).reading(far)
    nothing = Lidar(DeepRacerSectorsOneHot(**given, steps=4), track).reading(far * 0 + 2.0)

    np.testing.assert_allclose(plain, [[0.15, 0.49, 0.5, 1.0], [0.9, 1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(binary, [[1, 0], [0, 0]])
    # nearest of the sectors: 0.15 and 0.5, then 0.9 and 1.99; in steps 0 and 1, then 1 and 3
    np.testing.assert_array_equal(hot, [[1, 0, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0, 1]])
    assert not nothing.any()


def test_deepracer_looks_back_over_300_degrees():
    lidar = Lidar(DeepRacerLidar(), [straight()])

    found = look(lidar, 5.0, 0.0, boxes=[box(4.0, 0.0)])
    ahead = look(lidar, 5.0, 0.0, boxes=[box(6.0, 0.0)])

    # beams at 30 to 330 degrees; the LIDAR at 5.029, the box ends at 4.2; walls are not seen
    np.testing.assert_allclose(np.degrees(lidar.angles[[0, -1]]), [30, 330], atol=1e-3)
    assert found[31] == pytest.approx(0.829 / math.cos(math.radians(300 / 63 / 2)), rel=1e-3)
    assert (found < 12).sum() > 1
    assert (ahead == 12).all()


def test_settings_name_their_kind_and_bounds():
    made = TypeAdapter(LidarSettings).validate_python({"kind": "deepracer_discretized"})

    assert (made.size, made.sectors, made.steps, made.clip) == (64, 8, 8, 2.0)
    with pytest.raises(ValidationError, match="sectors must divide the 64 beams"):
        DeepRacerSectorLidar(sectors=7)
    with pytest.raises(ValidationError, match="clip"):
        DeepRacerSectorsOneHot(clip=13)
