"""Lenses and mountings: against OpenCV's formulas, hand, and slow pictures of the true lens."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lens import Mounting, MountingRanges, random_mountings, ray_angle
from hotlap.sim.look import Look
from hotlap.track import load_track

LUMINANCE = (0.299, 0.587, 0.114)
EVEN = Look(sky_top=Look().sky_horizon)


def directions(settings, taps):
    """(H * taps, W * taps, 3) ahead, left, up in the car's frame, by the true lens."""
    half = math.radians(settings.fov_deg) / 2
    fisheye = settings.lens == "fisheye"
    focal = settings.width / 2 / (half if fisheye else math.tan(half))
    row = (np.arange(settings.height * taps) + 0.5) / taps - settings.height / 2
    column = (np.arange(settings.width * taps) + 0.5) / taps - settings.width / 2
    y, x = np.meshgrid(row / focal, column / focal, indexing="ij")
    k1, k2 = settings.distortion
    r = np.linspace(0, 2.5, 200_001)
    bent = r * (1 + k1 * r**2 + k2 * r**4)
    end = np.argmax(bent) + 1
    distance = np.hypot(x, y)
    true = np.interp(distance, bent[:end], r[:end])
    angle = true if fisheye else np.arctan(true)
    # one after the other: roll about the axis, pitch about the right, yaw about the vertical
    p = np.stack([np.sin(angle) * x / distance, np.sin(angle) * y / distance, np.cos(angle)])
    roll, pitch, yaw = (
        math.radians(d) for d in (settings.roll_deg, settings.pitch_deg, settings.yaw_deg)
    )
    c, s = math.cos(roll), math.sin(roll)
    p = np.tensordot([[c, -s, 0], [s, c, 0], [0, 0, 1]], p, 1)
    c, s = math.cos(pitch), math.sin(pitch)
    p = np.tensordot([[1, 0, 0], [0, c, s], [0, -s, c]], p, 1)
    c, s = math.cos(yaw), math.sin(yaw)
    right, down, ahead = p
    return np.stack([c * ahead + s * right, s * ahead - c * right, -down], axis=-1)


def reference(track, look, settings, x, y, yaw, taps, box=None):
    """Grey image of the exact geometry and lens, each pixel the mean of taps x taps points."""
    ray = directions(settings, taps)
    c, s = math.cos(yaw), math.sin(yaw)
    ray = ray @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    lens = np.array([x + c * settings.mount_forward, y + s * settings.mount_forward,
                     settings.mount_height])  # fmt: skip
    colours = ("road", "ground", "border", "dash", "sky_top", "sky_horizon", "obstacle", "car")
    grey = {name: np.dot(getattr(look, name), LUMINANCE) for name in colours}
    share = np.clip(np.arcsin(ray[..., 2]) / math.radians(45), 0, 1)
    image = grey["sky_horizon"] + (grey["sky_top"] - grey["sky_horizon"]) * share
    below = ray[..., 2] < -1e-6
    point = lens[:2] - ray[below][:, :2] * (lens[2] / ray[below][:, 2:])
    line = track.stations
    fine = np.arange(0, track.length, 0.004)
    centre = track.locate(fine, np.zeros_like(fine))
    tangent = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    tangent /= np.hypot(*tangent.T)[:, None]
    left, right = (
        np.interp(fine / line.spacing, np.arange(line.count + 1), np.append(a, a[0]))
        for a in (line.left, line.right)
    )
    near = cKDTree(centre).query(point)[1]
    off = point - centre[near]
    n = tangent[near, 0] * off[:, 1] - tangent[near, 1] * off[:, 0]
    at = fine[near] + (off * tangent[near]).sum(axis=1)
    half = np.where(n > 0, left[near], right[near])
    period = track.length / round(track.length / (look.dash_length + look.dash_gap))
    duty = look.dash_length / (look.dash_length + look.dash_gap)
    shade = np.where(abs(n) > half, grey["ground"], grey["road"])
    shade[(abs(n) < half) & (abs(n) > half - look.border_width)] = grey["border"]
    shade[(abs(n) < look.dash_width / 2) & ((at / period) % 1 < duty)] = grey["dash"]
    image[below] = shade
    if box is not None:
        _put(image, ray, lens, box, grey["obstacle"])
    return image.reshape(settings.height, taps, settings.width, taps).mean(axis=(1, 3))


def _put(image, ray, lens, box, grey):
    """Paint a box where rays enter it: its top in full light, ends and flanks darker."""
    cosine, sine = box[2], box[3]
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    size = np.array([box[4], box[5], box[6] / 2])
    start = (lens - [box[0], box[1], box[6] / 2]) @ turn
    with np.errstate(divide="ignore", invalid="ignore"):
        into = (-np.sign(ray @ turn) * size - start) / (ray @ turn)
        out = (np.sign(ray @ turn) * size - start) / (ray @ turn)
    enters = into.max(axis=-1)
    hit = (enters < out.min(axis=-1)) & (enters > 0)
    light = np.array([0.78, 0.6, 1.0])[into.argmax(axis=-1)]
    image[hit] = (grey * light)[hit]


CASES = {
    "rolled": {"roll_deg": 12.0, "yaw_deg": 5.0},
    "barrel": {"fov_deg": 90, "distortion": (-0.18, 0.02)},
    "pincushion": {"distortion": (0.3, 0.0)},
    "fisheye 120": {"lens": "fisheye", "fov_deg": 120},
    "fisheye 160": {"lens": "fisheye", "fov_deg": 160, "distortion": (-0.02, 0.001)},
    "fisheye 180": {"lens": "fisheye", "fov_deg": 180, "roll_deg": 3.0},
    "fisheye 180, also behind": {"lens": "fisheye", "fov_deg": 180, "pitch_deg": 60,
                                 "roll_deg": 100.0},
}  # fmt: skip


def pose(track, s, n=0.1, turned=0.15):
    x, y = track.locate([s], [n])[0]
    (dx, dy) = (track.locate([s + 0.01], [0.0]) - track.locate([s], [0.0]))[0]
    return float(x), float(y), math.atan2(dy, dx) + turned


def draw(camera, poses, boxes=None, **more):
    x, y, yaw = np.array(poses).T
    zero = np.zeros(len(x), np.int32)
    return camera.render(x, y, yaw, zero, zero, boxes=boxes, **more)


def check_against_the_true_lens(settings, look, taps, least):
    track = load_track("reinvent_like")
    camera, places = Camera(settings, [track], [look]), [pose(track, 1.0), pose(track, 6.5)]
    boxes = np.zeros((2, 1, 8), np.float32)
    for k, (x, y, yaw) in enumerate(places):
        ahead = x + math.cos(yaw - 0.2) * 0.9, y + math.sin(yaw - 0.2) * 0.9
        boxes[k, 0] = [*ahead, math.cos(yaw + 0.5), math.sin(yaw + 0.5), 0.16, 0.1, 0.2, 0]

    images = draw(camera, places, boxes)[..., 0].astype(float)

    for image, place, box in zip(images, places, boxes, strict=True):
        exact = reference(track, look, settings, *place, taps, box[0].astype(float))
        error = image - exact
        assert math.sqrt(np.mean(error**2)) < least
        assert abs(error.mean()) < 0.5


@pytest.mark.parametrize("look", [EVEN, Look()], ids=["even sky", "sky"])
@pytest.mark.parametrize("name", CASES)
def test_pictures_are_those_of_the_true_lens(name, look):
    settings = CameraSettings(width=80, height=60, **CASES[name])

    check_against_the_true_lens(settings, look, taps=8, least=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_pictures_are_those_of_the_true_lens_by_256_points_a_pixel(name):
    settings = CameraSettings(width=80, height=60, **CASES[name])

    check_against_the_true_lens(settings, Look(), taps=16, least=4)


@pytest.mark.parametrize("lens", ["pinhole", "fisheye"])
@pytest.mark.parametrize("distortion", [(0, 0), (-0.2, 0.03), (0.2, 0), (-0.1, 0.0)])
def test_a_pixels_direction_solves_the_lens_equation(lens, distortion):
    settings = CameraSettings(lens=lens, distortion=distortion)
    k1, k2 = distortion

    for distance in (0.0, 0.1, 0.5, 0.9):
        r = brentq(lambda r, d: r * (1 + k1 * r**2 + k2 * r**4) - d, 0, 1.2, args=(distance,))
        expected = r if lens == "fisheye" else math.atan(r)
        assert ray_angle(np.array([distance]), settings)[0] == pytest.approx(expected, abs=1e-9)


def test_a_fisheyes_rows_by_hand():
    # 180 degrees over 160 columns: 1.125 degrees a pixel. Level, the horizon is in the middle, and
    # the road's border, 0.4 m aside of a lens 0.2 m high, is seen beside the car (90 degrees to the
    # right) at atan(0.2 / 0.4) = 26.57 degrees below it: on the unit sphere, (cos, sin) of that to
    # the right and down, 90 degrees from the axis: 80 pixels from the middle in that direction.
    from test_camera import straight

    settings = CameraSettings(
        width=160, height=120, lens="fisheye", fov_deg=180, pitch_deg=0, mount_height=0.2,
        mount_forward=0,
    )  # fmt: skip
    look = Look(road=(0, 0, 0), ground=(250, 250, 250), border_width=0, dash_width=0,
                sky_top=(0, 0, 0), sky_horizon=(0, 0, 0))  # fmt: skip
    image = draw(Camera(settings, [straight()], [look]), [(6.0, 0.0, 0.0)])[0, :, :, 0] / 250.0

    column, row = 80 * math.cos(math.radians(26.57)), 80 * math.sin(math.radians(26.57))
    # just above the border's direction is ground (white), just below it road (black)
    above = image[round(60 + row - 4), round(80 + column * 0.98)]
    below = image[round(60 + row + 4), round(80 + column * 0.98)]
    assert above == pytest.approx(1, abs=0.05)
    assert below == pytest.approx(0, abs=0.05)


def test_a_rolled_camera_sees_the_horizon_tilted():
    from test_camera import straight

    settings = CameraSettings(width=160, height=120, pitch_deg=0, roll_deg=10)
    look = Look(road=(0, 0, 0), ground=(0, 0, 0), border_width=0, dash_width=0,
                sky_top=(250, 250, 250), sky_horizon=(250, 250, 250))  # fmt: skip
    image = draw(Camera(settings, [straight()], [look]), [(6.0, 0.0, 0.0)])[0, :, :, 0] / 250.0

    sky = image.sum(axis=0)  # rows of sky in each column
    # The right side is down, so the horizon rises to the right: tan(10 degrees) a column.
    slope = np.polyfit(np.arange(160), sky, 1)[0]
    assert slope == pytest.approx(-math.tan(math.radians(10)), abs=0.002)
    assert sky[79:81].mean() == pytest.approx(60, abs=0.1)


def test_a_camera_that_looks_left_stays_where_it_is():
    track = load_track("reinvent_like")
    x, y, yaw = pose(track, 3.0)
    aside = CameraSettings(width=48, height=32, yaw_deg=30)
    plain = CameraSettings(width=48, height=32)

    turned = draw(Camera(aside, [track]), [(x, y, yaw)])
    # the same from a car that heads there, moved so that its lens is in the same place
    forward, there = plain.mount_forward, yaw + math.radians(30)
    x += forward * (math.cos(yaw) - math.cos(there))
    y += forward * (math.sin(yaw) - math.sin(there))
    expected = draw(Camera(plain, [track]), [(x, y, there)])

    assert abs(turned.astype(int) - expected).max() <= 1


MOVED = Mounting(height=0.01, pitch=0.04, yaw=-0.03, fov=1.05)


def test_a_mounting_is_what_the_settings_would_say():
    track = load_track("reinvent_like")
    settings = CameraSettings(width=64, height=48)
    camera = Camera(settings, [track], mountings=(Mounting(), MOVED))
    places = [pose(track, s) for s in (1.0, 2.0, 3.0)]

    both = [draw(camera, places, mounting=np.array(m)) for m in ((0, 0, 0), (1, 1, 1))]
    mixed = draw(camera, places, mounting=np.array([0, 1, 0]))

    said = settings.model_copy(
        update={
            "mount_height": settings.mount_height + 0.01,
            "pitch_deg": settings.pitch_deg + math.degrees(0.04),
            "yaw_deg": math.degrees(-0.03),
            "fov_deg": settings.fov_deg * 1.05,
        }
    )
    np.testing.assert_array_equal(both[0], draw(Camera(settings, [track]), places))
    np.testing.assert_array_equal(both[1], draw(Camera(said, [track]), places))
    np.testing.assert_array_equal(mixed, np.stack([both[0][0], both[1][1], both[0][2]]))


@pytest.mark.parametrize("given", [{"lens": "fisheye", "fov_deg": 170}, {"roll_deg": 2}, {}])
@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_the_bytes_do_not_depend_on_threads_or_company(given, color):
    track = load_track("reinvent_like")
    settings = CameraSettings(width=48, height=32, color=color, stereo_baseline=0.05, **given)
    mountings = (Mounting(), MOVED)
    places, which = [pose(track, s) for s in np.arange(7.0)], np.array([0, 1, 1, 0, 1, 0, 1])
    one, two = (Camera(settings, [track], threads=n, mountings=mountings) for n in (1, 2))

    images = draw(one, places, mounting=which)

    np.testing.assert_array_equal(images, draw(two, places, mounting=which))
    np.testing.assert_array_equal(images[4:6], draw(one, places[4:6], mounting=which[4:6]))


def test_a_hundredth_of_a_degree_of_roll_is_nearly_none():
    track = load_track("reinvent_like")
    places = [pose(track, s) for s in (1.0, 5.0)]

    bent = draw(Camera(CameraSettings(roll_deg=0.01), [track]), places).astype(float)
    straight = draw(Camera(CameraSettings(), [track]), places).astype(float)

    assert math.sqrt(np.mean((bent - straight) ** 2)) < 2.5


RANGES = {"height": 0.01, "pitch_deg": 3, "yaw_deg": 2, "roll_deg": 1.5, "fov": 0.05,
          "distortion": 0.2}  # fmt: skip


def test_mountings_fill_their_ranges_and_grow():
    stock = random_mountings(MountingRanges(stock=1000, **RANGES), 0)

    values = np.array([[m.height, m.pitch, m.yaw, m.roll, m.fov - 1, m.distortion - 1]
                       for m in stock])  # fmt: skip
    bounds = np.array([0.01, *np.radians([3, 2, 1.5]), 0.05, 0.2])
    assert stock[0] == Mounting()
    assert (abs(values) <= bounds).all()
    assert (abs(values).max(axis=0) > 0.98 * bounds).all()
    spread = abs(values / bounds).mean(axis=1)
    assert spread[1:100].mean() < 0.7 * spread[-100:].mean()
    assert stock == random_mountings(MountingRanges(stock=1000, **RANGES), 0)
    assert stock != random_mountings(MountingRanges(stock=1000, **RANGES), 1)


def env(rows=16, **given):
    base = {"track": "oval", "observation.actor": "camera", "observation.camera.width": 48,
            "observation.camera.height": 32, "start.kind": "line"}  # fmt: skip
    return VectorEnv(resolve(EnvSettings, base | given), rows, seed=3, threads=1)


def test_each_episode_takes_a_mounting_and_a_resumed_run_the_same():
    given = {"randomize.mounting.stock": 8, "randomize.mounting.pitch_deg": 5}
    world = env(**given)
    seen = world.begin()["camera"]
    assert len(np.unique(seen.reshape(16, -1), axis=0)) > 4

    other = env(**given)
    other.begin()
    other.begin()  # other episodes, other mountings
    assert (other.observe()["camera"] != seen).any()
    other.restore(world.save())
    np.testing.assert_array_equal(other.observe()["camera"], seen)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"observation.camera.fov_deg": 175}, "a pinhole sees at most 170"),
        ({"observation.camera.lens": "wide"}, "observation.camera.lens: .*pinhole"),
        ({"randomize.mounting.pitch_deg": 3}, "pitch_deg need cameras to differ in: stock=64"),
        ({"observation.camera.distortion": [-0.9, 0]}, "no direction is seen in the corners"),
        ({"observation.camera.lens": "fisheye", "observation.camera.fov_deg": 220,
          "observation.camera.height": 160}, "no direction is seen in the corners"),
        ({"randomize.mounting.stock": 9, "randomize.mounting.height": 0.2}, "above 0.005 m"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(given, says):
    with pytest.raises(ConfigError, match=says):
        env(**given)


def test_a_mounting_that_does_not_exist_is_refused():
    camera = Camera(CameraSettings(width=16, height=8), [load_track("oval")])

    with pytest.raises(ConfigError, match=r"mounting must be in 0\.\.0, got 3\.\.3"):
        draw(camera, [(0.0, 0.0, 0.0)], mounting=np.array([3]))
