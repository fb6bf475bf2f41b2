"""Depth and segmentation through any lens: against rays cast one by one, in float64."""

import math

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lens import Mounting, MountingRanges, random_mountings
from hotlap.sim.lidar import track_walls
from hotlap.sim.look import Look
from hotlap.sim.relief import Class
from hotlap.track import load_track

TRACK = load_track("hairpins")
FAR = 12.0
SIZE = {"width": 80, "height": 60}
LENSES = {
    "straight": {},
    "straight, aside": {"yaw_deg": -40.0, "pitch_deg": 30.0},
    "straight, 120 degrees": {"fov_deg": 120.0},
    "rolled": {"roll_deg": 12.0, "yaw_deg": 5.0},
    "barrel": {"fov_deg": 90.0, "distortion": (-0.18, 0.02)},
    "pincushion": {"distortion": (0.3, 0.0)},
    "fisheye, 120 degrees": {"lens": "fisheye", "fov_deg": 120.0, "pitch_deg": -5.0},
    "fisheye, 160 degrees": {"lens": "fisheye", "fov_deg": 160.0, "distortion": (-0.02, 0.001)},
    "fisheye, 200 degrees": {"lens": "fisheye", "fov_deg": 200.0, "roll_deg": 3.0},
    "askew": {"lens": "fisheye", "fov_deg": 200.0, "pitch_deg": 60.0, "yaw_deg": 140.0,
              "roll_deg": 100.0},
}  # fmt: skip
WALLS = {"high": Look(wall_height=0.3), "low": Look(wall_height=0.05, wall_offset=0.1)}


def turned(axis, angle):
    """The matrix that turns (right, down, ahead) about one of them."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(
        {
            "ahead": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
            "right": [[1, 0, 0], [0, c, s], [0, -s, c]],
            "down": [[c, 0, -s], [0, 1, 0], [s, 0, c]],
        }[axis]
    )


def lens_of(settings, mounting):
    """(H, W, 3) unit rays through the pixels' centres: forward, left, up of the car; and the axis.

    The equation of the lens is solved by bisection.
    """
    half = math.radians(settings.fov_deg * mounting.fov) / 2
    fisheye = settings.lens == "fisheye"
    focal = settings.width / 2 / (half if fisheye else math.tan(half))
    x, y = np.meshgrid(
        (np.arange(settings.width) + 0.5 - settings.width / 2) / focal,
        (np.arange(settings.height) + 0.5 - settings.height / 2) / focal,
    )
    k1, k2 = (k * mounting.distortion for k in settings.distortion)
    distance = np.hypot(x, y)
    low, high = np.zeros_like(x), np.full_like(x, 2.5)
    if k1 < 0:  # up to where the lens would bend back
        roots = np.roots([5 * k2, 3 * k1, 1]) if k2 else np.array([-1 / (3 * k1)])
        real = np.sqrt(roots[(abs(roots.imag) < 1e-9) & (roots.real > 0)].real)
        high[:] = min(2.5, *real) if len(real) else 2.5
    for _ in range(60):
        middle = (low + high) / 2
        over = middle * (1 + k1 * middle**2 + k2 * middle**4) > distance
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    angle = low if fisheye else np.arctan(low)
    ray = np.stack([np.sin(angle) * x / distance, np.sin(angle) * y / distance, np.cos(angle)], -1)
    turn = (
        turned("down", math.radians(settings.yaw_deg) + mounting.yaw)
        @ turned("right", math.radians(settings.pitch_deg) + mounting.pitch)
        @ turned("ahead", math.radians(settings.roll_deg) + mounting.roll)
    )
    to_car = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # forward, left, up
    return ray @ (to_car @ turn).T, to_car @ turn @ [0, 0, 1]


def cast(settings, mounting, pose, look, boxes):
    """Depths and classes (H, W) of one pixel after the other's ray; the ground is not painted."""
    rays, axis = lens_of(settings, mounting)
    x, y, yaw = pose
    c, s = math.cos(yaw), math.sin(yaw)
    to_world = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rays, axis = rays @ to_world.T, to_world @ axis
    lens = np.array([x + c * settings.mount_forward, y + s * settings.mount_forward,
                     settings.mount_height + mounting.height])  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.where(rays[..., 2] < 0, -lens[2] / rays[..., 2], np.inf)
        kind = np.where(np.isfinite(away), Class.GROUND, Class.SKY)
        met = [(walls_met(rays, lens, look), Class.WALL)]
        met += [(box_met(rays, lens, box), Class.OBSTACLE + int(box[7])) for box in boxes]
        for distance, what in met:
            kind = np.where(distance < away, what, kind)
            away = np.minimum(distance, away)
        depth = np.clip(np.where(np.isfinite(away), away * (rays @ axis), FAR), 0, FAR)
    return depth, kind


def walls_met(rays, lens, look):
    """How far along each ray the nearest wall is: all segments are asked, one after the other.

    A camera sees no more than six walls behind each other, as docs/looks.md says.
    """
    away, up = [], rays[..., 2]
    for chain in track_walls(TRACK, look.wall_offset):
        for a, b in zip(chain[:-1] - lens[:2], chain[1:] - lens[:2], strict=True):
            e = b - a
            across = rays[..., 0] * e[1] - rays[..., 1] * e[0]
            t = (a[0] * e[1] - a[1] * e[0]) / across
            w = (a[0] * rays[..., 1] - a[1] * rays[..., 0]) / across
            away.append(np.where((t > 0) & (w >= 0) & (w <= 1), t, np.inf))
    away = np.partition(np.array(away), 5, axis=0)[:6]
    height = lens[2] + np.where(np.isfinite(away), away, 0) * up
    return np.where((height >= 0) & (height <= look.wall_height), away, np.inf).min(axis=0)


def box_met(rays, lens, box):
    """How far along each ray the nearest of a box's six faces is."""
    turn = np.array([[box[2], box[3], 0], [-box[3], box[2], 0], [0, 0, 1]], float)
    ray, start = rays @ turn.T, turn @ (lens - [box[0], box[1], box[6] / 2])
    half = np.array([box[4], box[5], box[6] / 2], float)
    away = np.full(rays.shape[:2], np.inf)
    for k in range(3):
        for side in (-half[k], half[k]):
            t = (side - start[k]) / ray[..., k]
            at = start + t[..., None] * ray
            others = [i for i in range(3) if i != k]
            hit = (t > 0) & (abs(at[..., others]) <= half[others]).all(axis=-1)
            away = np.where(hit, np.minimum(away, t), away)
    return away


def poses(count):
    """x, y, yaw of cars along the lap, not all of them along the road."""
    s = np.linspace(0, TRACK.length, count, endpoint=False)
    ahead = TRACK.locate(s + 0.01, 0 * s) - TRACK.locate(s, 0 * s)
    x, y = TRACK.locate(s, 0.05 + 0 * s).T
    return [a.astype(np.float32) for a in (x, y, np.arctan2(ahead[:, 1], ahead[:, 0]) + 0.3 * s)]


def around(x, y, yaw):
    """An obstacle and a car before each car, and one to the left, behind and near."""
    boxes = np.zeros((len(x), 4, 8), np.float32)
    places = ((0.7, 0.1, 0.4, 0), (1.3, -0.2, 1.0, 1), (0.2, 0.6, 0.2, 1), (-0.5, -0.2, 0.9, 0))
    for k, (far, aside, turn, kind) in enumerate(places):
        boxes[:, k, 0] = x + far * np.cos(yaw) - aside * np.sin(yaw)
        boxes[:, k, 1] = y + far * np.sin(yaw) + aside * np.cos(yaw)
        boxes[:, k, 2], boxes[:, k, 3] = np.cos(yaw + turn), np.sin(yaw + turn)
        boxes[:, k, 4:] = 0.08, 0.06, (0.2, 0.1)[k % 2], kind
    return boxes


def seen(camera, x, y, yaw, boxes, mounting=None):
    """Depths and classes (M, H, W); what is painted on the ground is ground."""
    zero = np.zeros(len(x), np.int32)
    call, more = (x, y, yaw, zero, zero), {"boxes": boxes, "mounting": mounting}
    depth = camera.depth(*call, range_max=FAR, **more)[..., 0]
    kind = camera.segmentation(*call, **more)[..., 0]
    painted = (kind >= Class.GROUND) & (kind <= Class.DASH)
    return depth, np.where(painted, Class.GROUND, kind)


def check(camera, mountings, look, which):
    """Compare what cars see, each with one of the mountings, with rays cast one by one."""
    x, y, yaw = poses(len(which))
    boxes = around(x, y, yaw)

    depth, kind = seen(camera, x, y, yaw, boxes, np.array(which))

    expected = [
        cast(camera.settings, mountings[m], tuple(map(float, pose)), look, mine.astype(float))
        for m, pose, mine in zip(which, zip(x, y, yaw, strict=True), boxes, strict=True)
    ]
    depths, kinds = (np.stack(found) for found in zip(*expected, strict=True))
    assert {Class.GROUND, Class.WALL} <= set(np.unique(kinds))
    assert (kinds >= Class.OBSTACLE).mean() > 0.0005
    # Walls are met in columns half a pixel wide, so at their corners a ray may meet the next one.
    assert (kind != kinds).mean() < 0.0003
    error = abs(depth - depths)[kind == kinds] / np.maximum(depths, 0.01)[kind == kinds]
    assert np.median(error) < 1e-6
    assert np.quantile(error, 0.99) < 5e-6
    assert (error > 1e-3).mean() < 0.001


@pytest.mark.parametrize(
    ("name", "walls"),
    [*((name, "high") for name in LENSES),
     *((name, "low") for name in ("straight", "barrel", "fisheye, 160 degrees", "askew"))],
)  # fmt: skip
def test_every_pixel_is_what_its_ray_meets(name, walls):
    camera = Camera(CameraSettings(**SIZE, **LENSES[name]), [TRACK], (WALLS[walls],))

    check(camera, [Mounting()], WALLS[walls], [0, 0, 0])


@pytest.mark.parametrize("name", ["straight", "barrel", "fisheye, 160 degrees"])
def test_every_pixel_is_what_its_ray_meets_however_the_camera_is_mounted(name):
    ranges = MountingRanges(stock=8, height=0.02, pitch_deg=5, yaw_deg=6, fov=0.05, distortion=0.2)
    if name != "straight":
        ranges = ranges.model_copy(update={"roll_deg": 8.0})
    stock = random_mountings(ranges, 5)
    settings = CameraSettings(**SIZE, **LENSES[name])

    camera = Camera(settings, [TRACK], (WALLS["high"],), mountings=stock)

    check(camera, stock, WALLS["high"], [7, 1, 4, 0, 6])


def test_depth_is_along_the_axis_also_where_the_lens_bends():
    # A level fisheye 0.2 m high, 160 degrees over 160 columns: one degree a pixel. The pixel whose
    # centre is 30.5 below the middle looks 30.5 degrees down (and half a degree aside): the ground
    # is 0.2 / tan 30.5 = 0.3395 m ahead, however far along the ray.
    settings = CameraSettings(
        lens="fisheye", fov_deg=160, pitch_deg=0, mount_height=0.2, mount_forward=0
    )
    zero = [np.zeros(1)] * 5

    depth = Camera(settings, [TRACK]).depth(*zero, range_max=9)[0, :, :, 0]

    assert depth[60 + 30, 80] == pytest.approx(0.2 / math.tan(math.radians(30.5)), rel=2e-4)
    # 60 degrees aside and 30.5 down of the middle: 67.5 from the axis, so cos 67.5 along it for
    # each metre, of which sin 67.5 * 30.5 / 67.5 is down.
    far = math.hypot(60.5, 30.5)
    down = math.sin(math.radians(far)) * 30.5 / far
    expected = 0.2 * math.cos(math.radians(far)) / down
    assert depth[90, 80 + 60] == pytest.approx(expected, rel=1e-5)


def test_what_is_not_before_a_wide_lens_has_no_depth_and_is_named_all_the_same():
    # 200 degrees over 160 columns, 1.25 a pixel: the corners look 124 degrees from the axis.
    settings = CameraSettings(lens="fisheye", fov_deg=200, pitch_deg=0)
    camera, zero = Camera(settings, [TRACK]), [np.zeros(1)] * 5

    depth = camera.depth(*zero, range_max=9)[0, :, :, 0]
    kind = camera.segmentation(*zero)[0, :, :, 0]

    assert depth[119, 0] == depth[119, 159] == 0
    assert kind[119, 0] != Class.SKY
    assert depth[0, 0] == depth[0, 159] == 9
    assert kind[0, 0] == Class.SKY


@pytest.mark.parametrize("name", ["rolled", "fisheye, 200 degrees"])
def test_threads_and_neighbours_change_nothing(name):
    x, y, yaw = poses(11)
    boxes, which = around(x, y, yaw), np.arange(11) % 3
    settings = CameraSettings(width=50, height=33, **LENSES[name])  # not of whole tiles
    stock = (Mounting(), Mounting(roll=0.1, fov=1.02), Mounting(pitch=0.1, height=0.02))
    one, two = (
        Camera(settings, [TRACK], (WALLS["low"],), threads=n, mountings=stock) for n in (1, 2)
    )

    together = seen(two, x, y, yaw, boxes, which)

    for mine, theirs in zip(seen(one, x, y, yaw, boxes, which), together, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    alone = seen(one, x[4:5], y[4:5], yaw[4:5], boxes[4:5], which[4:5])
    for mine, theirs in zip(alone, together, strict=True):
        np.testing.assert_array_equal(mine[0], theirs[4])


BENT = {
    "fisheye": {"observation.camera.lens": "fisheye", "observation.camera.fov_deg": 160},
    "distorted": {"observation.camera.distortion": [-0.1, 0.0]},
    "rolled": {"observation.camera.roll_deg": 3.0},
    "mounted": {"randomize.mounting.stock": 4, "randomize.mounting.roll_deg": 2.0,
                "randomize.mounting.height": 0.02},
}  # fmt: skip


@pytest.mark.parametrize("bent", BENT)
def test_an_environment_sees_depth_and_classes_through_any_lens(bent):
    settings = resolve(
        EnvSettings,
        {"track": "oval", "observation.actor": "depth,segmentation,camera",
         "observation.camera.width": 40, "observation.camera.height": 30,
         "look.wall_height": 0.2, "traffic.obstacles": 2} | BENT[bent],
    )  # fmt: skip
    env = VectorEnv(settings, 4, seed=0)

    shown = env.begin()

    for name, space in env.spaces.items():
        assert all(space.contains(one) for one in shown[name]), name
    assert {Class.ROAD, Class.WALL} <= set(np.unique(shown["segmentation"]))
    assert len(np.unique(shown["depth"].reshape(4, -1), axis=0)) == 4
    for name in ("depth", "segmentation"):
        alone = env.simulator.sense(name, np.array([2]))[0]
        np.testing.assert_array_equal(alone, shown[name][2])
