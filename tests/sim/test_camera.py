"""The camera against similar triangles, symmetry, and a slow picture of the exact geometry."""

import math
import platform
import re

import numpy as np
import pytest
from numba import njit
from scipy.spatial import cKDTree

from hotlap.errors import ConfigError, SimulationError
from hotlap.sim import road
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import Look
from hotlap.track import Track, load_track

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
BARE = Look(border_width=0, dash_width=0)


def straight(length=12.0, left=0.4, right=0.4):
    """An open road along +x, from x = 0; `inner` is its left border."""
    x = np.linspace(0, length, 121)
    rows = [x, 0 * x, x, 0 * x + left, x, 0 * x - right]
    return Track.from_waypoints(np.stack(rows, axis=1), name="straight")


def kidney(*, mirrored=False):
    """A closed road of 0.6 m with turns both ways, y -> -y if mirrored."""
    turn = np.linspace(0, 2 * np.pi, 241)
    radius = 2 + 0.6 * np.cos(2 * turn + 0.4)
    slope = -1.2 * np.sin(2 * turn + 0.4)
    centre = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    tangent = np.stack(
        [
            slope * np.cos(turn) - radius * np.sin(turn),
            slope * np.sin(turn) + radius * np.cos(turn),
        ],
        axis=1,
    )
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.hypot(*tangent.T)[:, None]
    rows = np.hstack([centre, centre + 0.3 * normal, centre - 0.3 * normal])
    rows[-1] = rows[0]
    return Track.from_waypoints(rows * np.tile([1, -1 if mirrored else 1], 3), name="kidney")


def on(track, s, n=0.0, turned=0.0):
    """Poses at arc lengths s: x, y, yaw."""
    s = np.asarray(s, float)
    x, y = track.locate(s, np.zeros_like(s) + n).T
    ahead = track.locate(s + 0.01, np.zeros_like(s)) - track.locate(s, np.zeros_like(s))
    return x, y, np.arctan2(ahead[:, 1], ahead[:, 0]) + turned


def draw(camera, x, y, yaw, track=0, look=0, out=None):
    rows = np.ones(len(x), np.int32)
    return camera.render(x, y, yaw, rows * track, rows * look, out)


@pytest.mark.parametrize("row", [45, 60, 80, 119])
@pytest.mark.parametrize(("left", "right"), [(0.4, 0.4), (0.2, 0.35)])
def test_borders_of_a_straight_lie_where_similar_triangles_put_them(row, left, right):
    settings = CameraSettings()
    look = Look(road=(0, 0, 0), ground=(250, 250, 250), border_width=0, dash_width=0)
    camera = Camera(settings, [straight(left=left, right=right)], [look])
    image = draw(camera, [2.0], [0.0], [0.0])

    # Turned down by p, the ray of row r points v = (r + 1/2 - 60) / f below the axis. It falls by
    # sin p + v cos p a focal length, so h of height take it h / (sin p + v cos p) focal lengths
    # away, where one pixel is that / f wide; the border is left / that pixels beside the middle.
    focal = 80 / math.tan(math.radians(64.74 / 2))
    pitch = math.radians(15)
    pixel = 0.1303 / (math.sin(pitch) + (row + 0.5 - 60) / focal * math.cos(pitch)) / focal
    share = image[0, row, :, 0] / 250
    for painted, expected in ((share[79::-1], left / pixel), (share[80:], right / pixel)):
        assert (1 - painted).sum() == pytest.approx(min(expected, 80), abs=0.1)


def test_the_horizon_row_is_the_share_of_sky_and_ground_in_it():
    image = draw(Camera(CameraSettings(), [straight()], [BARE]), [2.0], [0.0], [np.pi / 2])

    # f = 80 / tan(32.37 deg) = 126.2; the horizon is f tan(15 deg) = 33.8 rows above the middle
    focal = 80 / math.tan(math.radians(64.74 / 2))
    horizon = 60 - focal * math.tan(math.radians(15))
    row, share = int(horizon), 1 - horizon % 1
    assert (row, round(share, 2)) == (26, 0.82)
    sky, ground = (np.dot(c, LUMINANCE) for c in (BARE.sky_horizon, BARE.ground))
    assert np.all(abs(image[0, row, :, 0] - (share * ground + (1 - share) * sky)) <= 1.5)
    assert np.all(abs(image[0, row + 1, :, 0] - ground) <= 0.51)
    assert np.all(abs(image[0, row - 1, :, 0] - sky) <= 1.5)
    # the ray of row 0 rises 25.2 - 15 = 10.2 of 45 degrees
    top = np.dot(BARE.sky_top, LUMINANCE)
    rise = (math.degrees(math.atan(59.5 / focal)) - 15) / 45
    assert np.all(abs(image[0, 0, :, 0] - (sky + rise * (top - sky))) <= 0.51)


def test_dashes_divide_a_lap_and_cover_their_share_of_the_line():
    track = kidney()
    look = Look(dash_length=0.2, dash_gap=0.1, border_width=0)
    settings = CameraSettings(width=32, height=16, pitch_deg=80, fov_deg=5, mount_forward=0)
    s = np.arange(3000) * track.length / 3000

    images = draw(Camera(settings, [track], [look]), *on(track, s))

    painted = (
        images[:, 8, 16, 0] > (np.dot(look.dash, LUMINANCE) + np.dot(look.road, LUMINANCE)) / 2
    )
    starts = np.count_nonzero(painted & ~np.roll(painted, 1))
    assert starts == round(track.length / 0.3)
    assert painted.mean() == pytest.approx(0.2 / 0.3, abs=0.02)


def test_a_mirrored_course_gives_mirrored_images():
    there, mirrored = kidney(), kidney(mirrored=True)
    x, y, yaw = on(there, np.linspace(0, there.length, 12, endpoint=False), n=0.1, turned=0.2)

    images = draw(Camera(CameraSettings(), [there]), x, y, yaw)
    others = draw(Camera(CameraSettings(), [mirrored]), x, -y, -yaw)

    difference = abs(images.astype(int) - others[:, :, ::-1])
    assert np.ptp(images) > 150
    assert difference.mean() < 0.05
    assert np.quantile(difference, 0.999) <= 8


@pytest.mark.parametrize("color", ["grey", "rgb"])
@pytest.mark.parametrize("size", [(160, 120), (50, 33)])
def test_rows_threads_and_buffers_do_not_change_a_byte(color, size):
    settings = CameraSettings(width=size[0], height=size[1], color=color)
    tracks, looks = [kidney(), straight()], [Look(), Look(road=(10, 20, 30), dash_gap=0)]
    x, y, yaw = on(tracks[0], np.linspace(0, tracks[0].length, 20, endpoint=False))
    which = np.arange(20, dtype=np.int32)
    one = Camera(settings, tracks, looks)
    two = Camera(settings, tracks, looks, threads=2)

    together = one.render(x, y, yaw, which % 2, which // 2 % 2)

    chosen = [3, 11, 16]
    alone = one.render(x[chosen], y[chosen], yaw[chosen], which[chosen] % 2, which[chosen] // 2 % 2)
    np.testing.assert_array_equal(alone, together[chosen])
    out = np.full((20, *one.shape), 77, np.uint8)
    assert two.render(x, y, yaw, which % 2, which // 2 % 2, out) is out
    np.testing.assert_array_equal(out, together)
    assert together.shape == (20, size[1], size[0], 3 if color == "rgb" else 1)


def test_grey_is_the_luminance_of_rgb():
    track = kidney()
    poses = on(track, np.linspace(0, track.length, 10, endpoint=False), turned=0.1)

    grey = draw(Camera(CameraSettings(), [track]), *poses)
    rgb = draw(Camera(CameraSettings(color="rgb"), [track]), *poses)

    assert np.ptp(rgb[..., 0] - rgb[..., 2].astype(int)) > 100
    assert abs(grey[..., 0] - rgb @ np.array(LUMINANCE)).max() <= 1


def test_each_row_wears_its_own_look():
    plain = {"border_width": 0, "dash_width": 0}
    looks = [Look(road=(200, 10, 10), **plain), Look(road=(10, 10, 200), **plain)]
    camera = Camera(CameraSettings(color="rgb"), [straight()], looks)

    images = camera.render([2, 2], [0, 0], [0, 0], [0, 0], [1, 0])

    np.testing.assert_array_equal(images[0, 110, 80], [10, 10, 200])
    np.testing.assert_array_equal(images[1, 110, 80], [200, 10, 10])


def test_an_open_course_ends():
    camera = Camera(CameraSettings(), [straight(length=3.0)], [BARE])

    inside, beyond = draw(camera, [1.0, 3.2], [0.0, 0.0], [0.0, 0.0])[..., 0]

    road, ground = (round(np.dot(c, LUMINANCE)) for c in (BARE.road, BARE.ground))
    assert inside[119, 80] == road
    assert np.all(beyond[27:] == ground)
    # 3 - 1 - 0.1453 = 1.855 m ahead: the ray falls 0.1303 in 1.855, 4.02 degrees, so 10.98 degrees
    # above the axis: row 60 - 126.2 tan(10.98 deg) = 35.5
    column = (inside[:, 80].astype(float) - ground) / (road - ground)
    assert 120 - column[27:].sum() == pytest.approx(35.5, abs=0.3)


@pytest.mark.parametrize("name", ["oval", "reinvent_like", "hairpins", "hard"])
def test_the_field_of_a_small_course_fits_the_second_cache(name):
    camera = Camera(CameraSettings(width=16, height=8), [load_track(name)])

    assert camera._field.nbytes < 2**20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track": 1}, "track must be in 0..0, got 1..1"),
        ({"look": -1}, "look must be in 0..0, got -1..-1"),
        ({"out": np.empty((1, 8, 16, 3), np.uint8)}, r"out must be .* \(1, 8, 16, 1\), got uint8"),
        ({"x": [0.0, 1.0]}, r"one shape \(M,\), got \(2,\), \(1,\)"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    camera = Camera(CameraSettings(width=16, height=8), [straight()])
    call = {"x": [0.0], "y": [0.0], "yaw": [0.0], "track": [0], "look": [0], **change}

    for name in ("track", "look"):
        call[name] = np.broadcast_to(call[name], 1)
    with pytest.raises(ConfigError, match=message):
        camera.render(**call)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pose_that_is_not_finite_is_named(bad):
    camera = Camera(CameraSettings(width=16, height=8), [straight()])

    with pytest.raises(SimulationError, match=rf"y={bad}, yaw=0.0 \(row 1\)"):
        draw(camera, [0.0, 0.0], [0.0, bad], [0.0, 0.0])


def test_a_camera_needs_a_track_and_a_look():
    with pytest.raises(ConfigError, match="at least one track and one look, got 0 and 1"):
        Camera(CameraSettings(), [])


def reference(track, look, settings, x, y, yaw, taps):
    """Grey image of the exact geometry, each pixel the mean of taps x taps points. Slow."""
    line = track.stations
    fine = np.arange(0, track.length, 0.004)
    centre = track.locate(fine, np.zeros_like(fine))
    tangent = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    tangent /= np.hypot(*tangent.T)[:, None]
    index = fine / line.spacing
    left, right = (
        np.interp(index, np.arange(line.count + 1), np.append(a, a[0]))
        for a in (line.left, line.right)
    )
    tree = cKDTree(centre)
    grey = {name: np.dot(getattr(look, name), LUMINANCE) for name in ("road", "ground", "border")}
    grey |= {name: np.dot(getattr(look, name), LUMINANCE) for name in ("dash", "sky_horizon")}
    focal = settings.width / 2 / math.tan(math.radians(settings.fov_deg) / 2)
    pitch = math.radians(settings.pitch_deg)
    row = (np.arange(settings.height * taps) + 0.5) / taps - settings.height / 2
    column = (np.arange(settings.width * taps) + 0.5) / taps - settings.width / 2
    v, u = np.meshgrid(row / focal, column / focal, indexing="ij")
    fall = np.sin(pitch) + v * np.cos(pitch)
    image = np.full(fall.shape, grey["sky_horizon"])
    below = fall > 1e-6
    depth = settings.mount_height / fall[below]
    ahead = depth * (np.cos(pitch) - v[below] * np.sin(pitch)) + settings.mount_forward
    aside = -depth * u[below]
    point = np.stack(
        [
            x + np.cos(yaw) * ahead - np.sin(yaw) * aside,
            y + np.sin(yaw) * ahead + np.cos(yaw) * aside,
        ],
        axis=1,
    )
    near = tree.query(point)[1]
    off = point - centre[near]
    n = tangent[near, 0] * off[:, 1] - tangent[near, 1] * off[:, 0]
    s = fine[near] + (off * tangent[near]).sum(axis=1)
    half = np.where(n > 0, left[near], right[near])
    period = track.length / round(track.length / (look.dash_length + look.dash_gap))
    duty = look.dash_length / (look.dash_length + look.dash_gap)
    shade = np.where(abs(n) > half, grey["ground"], grey["road"])
    shade[(abs(n) < half) & (abs(n) > half - look.border_width)] = grey["border"]
    shade[(abs(n) < look.dash_width / 2) & ((s / period) % 1 < duty)] = grey["dash"]
    image[below] = shade
    return image.reshape(settings.height, taps, settings.width, taps).mean(axis=(1, 3))


def test_images_are_near_the_mean_of_many_points_of_the_exact_course():
    track = load_track("reinvent_like")
    settings, look = CameraSettings(width=80, height=60), Look(sky_top=Look().sky_horizon)
    x, y, yaw = on(track, np.array([1.0, 6.5, 11.0]), n=0.1, turned=0.15)

    images = draw(Camera(settings, [track], [look]), x, y, yaw)[..., 0].astype(float)

    exact = [
        reference(track, look, settings, *pose, taps=8) for pose in zip(x, y, yaw, strict=True)
    ]
    assert math.sqrt(np.mean((images - exact) ** 2)) < 2.5
    assert abs(np.mean(images - exact)) < 0.5


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 code")
@pytest.mark.parametrize(("kernel", "roots"), [(road._shade, 2), (road._shade_lines, 1)])
def test_the_inner_loops_are_vectorised(kernel, roots):
    fresh = njit(nogil=True, fastmath=True, error_model="numpy")(kernel.py_func)
    camera = Camera(CameraSettings(), [kidney()])
    one, texels = np.float32(1), np.zeros(1 << 14, np.int32)
    mixed, cover = np.zeros(9, np.int32), np.zeros(48, np.float32)
    out, mix = np.zeros(19200, np.uint8), np.zeros((120, 1, 4), np.float32)
    course = camera._frames[0], camera._sizes[0], camera._looks[0]

    tables = camera._chunks.reshape(2, -1), camera._rows[0]
    fresh(
        *(out, 0, 160, 0, mixed, *tables, one, one, one, one, *course),
        *(texels, texels, cover, mix),
    )

    (code,) = fresh.inspect_asm().values()
    loop = max(re.findall(r"(?s)%[yz]mm.*?\n\s+j", code), key=len)  # the longest straight run
    assert len(re.findall("%[yz]mm", loop)) > 100
    assert len(re.findall("v?rsqrt(?:14)?ps|vsqrtps", code)) >= roots
