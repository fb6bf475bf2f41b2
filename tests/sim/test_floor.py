"""Floors with bands, kerbs, wear, light and shade, against many points of each pixel."""

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from hotlap.config import resolve
from hotlap.env import EnvSettings
from hotlap.errors import ConfigError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.domain import RandomizeSettings, random_looks
from hotlap.sim.look import AirsimLook, Look, RobotiniLook
from hotlap.track import Track, load_track

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
SMALL = CameraSettings(width=80, height=60)
RED, BLUE, GREEN = (221, 69, 103), (48, 97, 159), (26, 174, 142)


def straight(width=0.9):
    x = np.linspace(0, 12, 121)
    rows = [x, 0 * x, x, 0 * x + width / 2, x, 0 * x - width / 2]
    return Track.from_waypoints(np.stack(rows, axis=1), name="straight")


def on(track, s, n=0.0, turned=0.0):
    """x, y, yaw, track, look of cars at arc lengths s."""
    s = np.asarray(s, float)
    ahead = track.locate(s + 0.01, 0 * s) - track.locate(s, 0 * s)
    x, y = track.locate(s, 0 * s + n).T
    zero = np.zeros(len(s), np.int32)
    return x, y, np.arctan2(ahead[:, 1], ahead[:, 0]) + turned, zero, zero


def number(ix, iy, seed):
    """The number at a whole place, in [0, 1]: 32 bits, mixed."""
    u4 = np.uint32
    with np.errstate(over="ignore"):
        h = ix.astype(u4) * u4(0x9E3779B1) + iy.astype(u4) * u4(0x85EBCA77)
        h = h + u4(seed) * u4(0xC2B2AE3D)
        h = (h ^ (h >> u4(15))) * u4(0x2C1B3C6D)
        h = (h ^ (h >> u4(12))) * u4(0x297A2D39)
    return ((h ^ (h >> u4(15))) & u4(0xFFFF)) / 65535


def noise(x, y, seed):
    ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    u, v = x - ix, y - iy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    low = (1 - u) * number(ix, iy, seed) + u * number(ix + 1, iy, seed)
    high = (1 - u) * number(ix, iy + 1, seed) + u * number(ix + 1, iy + 1, seed)
    return (1 - v) * low + v * high


def reference(track, look, settings, pose, corner, taps=16):
    """Grey image of the exact geometry, each pixel the mean of taps x taps points. Slow."""
    line = track.stations
    fine = np.arange(0, track.length, 0.004)
    centre = track.locate(fine, np.zeros_like(fine))
    tangent = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    tangent /= np.hypot(*tangent.T)[:, None]
    at = np.arange(line.count + 1)
    left, right = (
        np.interp(fine / line.spacing, at, np.append(a, a[0])) for a in (line.left, line.right)
    )
    focal = settings.width / 2 / math.tan(math.radians(settings.fov_deg) / 2)
    pitch = math.radians(settings.pitch_deg)
    row = (np.arange(settings.height * taps) + 0.5) / taps - settings.height / 2
    column = (np.arange(settings.width * taps) + 0.5) / taps - settings.width / 2
    v, u = np.meshgrid(row / focal, column / focal, indexing="ij")
    fall = np.sin(pitch) + v * np.cos(pitch)
    below = fall > 1e-6
    depth = settings.mount_height / fall[below]
    ahead = depth * (np.cos(pitch) - v[below] * np.sin(pitch)) + settings.mount_forward
    aside = -depth * u[below]
    x, y, yaw = pose
    point = np.stack(
        [
            x + np.cos(yaw) * ahead - np.sin(yaw) * aside,
            y + np.sin(yaw) * ahead + np.cos(yaw) * aside,
        ],
        axis=1,
    )
    near = cKDTree(centre).query(point)[1]
    off = point - centre[near]
    n = tangent[near, 0] * off[:, 1] - tangent[near, 1] * off[:, 0]
    s = fine[near] + (off * tangent[near]).sum(axis=1)
    half = np.where(n > 0, left[near], right[near])

    def grey(colour):
        return float(np.dot(colour, LUMINANCE))

    shade = np.full(len(n), grey(look.road))
    for start, stop, colour in look.bands:
        shade[(n / half < 1 - 2 * start) & (n / half > 1 - 2 * stop)] = grey(colour)
    place = point - corner
    grain = 0.7 * max(look.border_width, look.dash_width, 1e-3)
    spots = noise(*(place / grain).T, look.pattern) - 0.5
    paint = np.clip(1 - look.wear - 2 * look.wear * spots, 0, 1)
    period = track.length / round(track.length / (look.dash_length + look.dash_gap))
    duty = look.dash_length / (look.dash_length + look.dash_gap)
    dash = (abs(n) < look.dash_width / 2) & ((s / period) % 1 < duty)
    shade = np.where(dash, shade + paint * (grey(look.dash) - shade), shade)
    line = abs(n) > half - look.border_width
    shade = np.where(line, shade + paint * (grey(look.border) - shade), shade)
    shade[abs(n) > half] = grey(look.kerb)
    shade[abs(n) > half + look.kerb_width] = grey(look.ground)
    patch = 4 * (noise(*(place / look.patch_size).T, look.pattern + 1) - 0.5)
    shade *= 1 - look.shade * np.clip(-patch - 0.4, 0, 1)
    shade += look.light * np.clip(patch - 0.4, 0, 1) * (255 - shade)
    image = np.full(fall.shape, grey(look.sky_horizon))
    image[below] = shade
    return image.reshape(settings.height, taps, settings.width, taps).mean(axis=(1, 3))


SKY = {"sky_top": (200, 210, 220), "sky_horizon": (200, 210, 220)}
FLOORS = {
    "bands": RobotiniLook(wall_height=0, **SKY),
    "kerbs": Look(kerb_width=0.04, kerb=(200, 30, 30), **SKY),
    "bands, lines and kerbs": RobotiniLook(
        wall_height=0, border_width=0.02, dash_width=0.03, kerb_width=0.06, **SKY
    ),
    "worn": Look(wear=0.5, pattern=3, **SKY),
    "light and shade": Look(light=0.6, shade=0.5, **SKY),
}


@pytest.mark.parametrize("name", FLOORS)
def test_floors_are_near_the_mean_of_many_points_of_the_exact_course(name):
    track, look = load_track("reinvent_like"), FLOORS[name]
    camera = Camera(SMALL, [track], [look])
    call = on(track, [1.0, 6.5], n=0.1, turned=0.15)

    images = camera.render(*call)[..., 0].astype(float)

    corner = camera._frames[0, :2]
    exact = [reference(track, look, SMALL, pose, corner) for pose in zip(*call[:3], strict=True)]
    assert math.sqrt(np.mean((images - exact) ** 2)) < 3.5
    assert abs(np.mean(images - exact)) < 0.6


def test_a_plain_floor_is_the_same_on_both_ways():
    track = load_track("hairpins")
    camera = Camera(CameraSettings(color="rgb"), [track])
    call = on(track, np.linspace(0, track.length, 10, endpoint=False), n=0.1, turned=0.2)
    plain = camera.render(*call).astype(int)

    camera._plain, camera._floors[0, 3, 2] = [False], 1
    other = camera.render(*call)

    assert abs(plain - other).max() <= 4
    assert abs(plain - other).mean() < 0.02


def test_robotini_s_bands_lie_where_its_texture_has_them():
    """Straight down on a road of 0.9 m from 1 m: the texture's 256 pixels are 0.9 m wide."""
    settings = CameraSettings(
        width=256, height=16, color="rgb", pitch_deg=80, mount_height=1.0, mount_forward=0,
        fov_deg=60,
    )  # fmt: skip
    camera = Camera(settings, [straight()], [RobotiniLook(wall_height=0)])
    image = camera.render([5.0], [0.0], [0.0], [0], [0])[0, 8].astype(int)

    # Row 8 looks 80 degrees down and a bit, so its ground is 1 / sin 80.1 m along the ray.
    focal = 128 / math.tan(math.radians(30))
    fall = math.sin(math.radians(80)) + 0.5 / focal * math.cos(math.radians(80))
    metre = focal * fall
    for colour, start, stop in ((RED, 15, 80), (BLUE, 86, 170), (GREEN, 177, 241)):
        columns = np.nonzero((abs(image - colour) <= 2).all(axis=1))[0]
        first, last = (128 + metre * 0.9 * (edge / 256 - 0.5) for edge in (start, stop))
        assert columns[0] == pytest.approx(first, abs=1.5)
        assert columns[-1] + 1 == pytest.approx(last, abs=1.5)


def test_a_look_is_chosen_by_name_and_changed_in_part():
    plain = resolve(EnvSettings, {"look": "robotini", "look.road": [9, 9, 9]}).look
    changed = resolve(EnvSettings, {"look": "robotini", "look.dash": [1, 2, 3]}, {"look": "airsim"})

    assert plain == RobotiniLook(road=(9, 9, 9))
    assert changed.look == AirsimLook()
    assert resolve(EnvSettings, {"look.dash_gap": 0.3}).look == Look(dash_gap=0.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"look": "moon"}, r"look\.kind: choose from deepracer, robotini, airsim \(got \"moon\"\)"),
        ({"look.wear": 2}, r"look\.wear: .*less than or equal to 1 \(got 2\)"),
        ({"look.wall_height": -1}, r"look\.wall_height: .*greater than or equal to 0"),
        ({"look.bands": [[0.5, 0.2, [1, 2, 3]]]}, r"look: bands: .*got 0\.5 to 0\.2 after 0"),
        ({"look.bands": [[0, 0.5, [1, 2, 3]], [0.4, 0.6, [1, 2, 3]]]}, r"0\.4 to 0\.6 after 0\.5"),
        (
            {"look.kerb_widht": 1},
            r"look\.kerb_widht: unknown setting \(did you mean kerb_width\?\)",
        ),
    ],
)
def test_a_look_that_cannot_be_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        resolve(EnvSettings, given)


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_looks_of_all_kinds_share_a_batch_on_any_number_of_threads(color):
    track = load_track("oval")
    looks = [Look(), RobotiniLook(), Look(wear=0.5, light=0.3), Look(kerb_width=0.1)]
    settings = CameraSettings(width=83, height=60, color=color)
    one, two = (Camera(settings, [track], looks, threads=t) for t in (1, 2))
    x, y, yaw, zero, _ = on(track, np.linspace(0, track.length, 24, endpoint=False))
    which = np.arange(24) % 4

    together = two.render(x, y, yaw, zero, which)

    np.testing.assert_array_equal(together, one.render(x, y, yaw, zero, which))
    for look in range(4):
        alone = Camera(settings, [track], [looks[look]])
        rows = which == look
        seen = alone.render(x[rows], y[rows], yaw[rows], zero[rows], zero[rows])
        np.testing.assert_array_equal(seen, together[rows])


def test_patterns_differ_and_grey_is_the_luminance_of_rgb():
    track = load_track("oval")
    call = on(track, [1.0, 5.0])
    looks = [Look(wear=0.6, light=0.5, shade=0.5, pattern=k) for k in (0, 1)]

    first, second = (Camera(SMALL, [track], [look]).render(*call)[..., 0] for look in looks)
    rgb = SMALL.model_copy(update={"color": "rgb"})
    colours = Camera(rgb, [track], looks[:1]).render(*call)

    assert abs(first.astype(int) - second).mean() > 3
    assert abs(first - colours @ np.array(LUMINANCE)).max() <= 1.5


def test_drawn_looks_wear_differently_and_keep_their_bands():
    settings = RandomizeSettings(looks=50, wear=0.6, light=0.4, shade=0.5, brightness=(0.5, 1.5))

    looks = random_looks(RobotiniLook(), settings, seed=0)

    assert looks[0] == RobotiniLook()
    assert len({look.pattern for look in looks}) == 50
    for name, most in (("wear", 0.6), ("light", 0.4), ("shade", 0.5)):
        drawn = np.array([getattr(look, name) for look in looks[1:]])
        assert 0 <= drawn.min() < 0.1 * most
        assert 0.9 * most < drawn.max() <= most
    red = np.array([look.bands[0][2][0] for look in looks]) / 221
    assert red.min() < 0.55
    assert red.max() > 1.1
    assert all(look.bands[0][:2] == looks[0].bands[0][:2] for look in looks)
    assert len({look.wall for look in looks}) > 5
    with pytest.raises(ValueError, match="wear need looks to differ in"):
        RandomizeSettings(wear=0.5)
