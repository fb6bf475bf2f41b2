"""Walls in the camera's image: the pinhole law, a picture traced ray by ray, and the LIDAR."""

import numpy as np
import pytest

from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lidar import Lidar, RangeLidar, track_walls
from hotlap.sim.look import Look, RobotiniLook
from hotlap.track import Track, load_track

GREY = (90, 90, 90)
FLAT = {"road": GREY, "ground": GREY, "border": GREY, "dash": GREY, "sky_top": GREY,
        "sky_horizon": GREY, "wall": (200, 200, 200), "obstacle": (250, 250, 250)}  # fmt: skip
LEVEL = CameraSettings(pitch_deg=0, mount_height=0.2, mount_forward=0)
FOCAL = 80 / np.tan(np.radians(64.74) / 2)
TOP, END, FLANK = 250, 195, 150  # 1, 0.78, 0.6 of the obstacles' colour


def straight(width=0.8):
    """An open road along +x, from x = 0 to 12."""
    x = np.linspace(0, 12, 121)
    rows = [x, 0 * x, x, 0 * x + width / 2, x, 0 * x - width / 2]
    return Track.from_waypoints(np.stack(rows, axis=1), name="straight")


def brightness(normal):
    """Of a wall whose normal to the lens is that: 0.76, and 0.2 more towards the light at 0.6."""
    return 0.76 + 0.2 * (normal @ np.array([np.cos(0.6), np.sin(0.6)]))


def box(x, y, *, turn=0.0, size=(0.15, 0.2, 0.2)):
    return [x, y, np.cos(turn), np.sin(turn), size[0] / 2, size[1] / 2, size[2], 0]


def draw(track, look, pose, settings=LEVEL, boxes=None, threads=1):
    """The view of cars at poses (M, 3)."""
    pose = np.atleast_2d(pose)
    which = np.zeros(len(pose), np.int32)
    boxes = None if boxes is None else np.asarray(boxes, np.float32)
    camera = Camera(settings, [track], (look,), threads=threads)
    return camera.render(*pose.T, which, which, boxes=boxes)


def places(track, s, n=0.0, turned=0.0):
    """Poses (M, 3) at arc lengths s."""
    s = np.asarray(s, float)
    ahead = track.locate(s + 0.01, 0 * s) - track.locate(s, 0 * s)
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0]) + turned
    return np.column_stack([track.locate(s, 0 * s + n), yaw])


def test_a_wall_is_as_high_as_the_pinhole_law_says():
    """Looked at squarely from 0.4 m; 0.3 m high, seen from 0.2 m above the ground."""
    look = Look(wall_height=0.3, **FLAT)
    image = draw(straight(), look, [5.0, 0.0, np.pi / 2])[0, :, :, 0].astype(float)

    # The left border runs along +x, so the normal to the lens is -y: 0.76 - 0.2 sin 0.6 = 0.647.
    lit = image[60, 80]
    assert lit == round(200 * (0.76 - 0.2 * np.sin(0.6)))
    part = (image - 90) / (lit - 90)
    for column in (10, 80, 150):
        # 0.1 m above the lens and 0.2 m below it, at 0.4 m: f / 4 and f / 2 (cut off at 60) rows
        assert part[:, column].sum() == pytest.approx(FOCAL / 4 + 60, abs=0.05)
    assert FOCAL / 2 > 60


def test_the_foot_of_a_wall_is_on_the_border():
    look = Look(wall_height=0.05, **FLAT)
    image = draw(straight(), look, [5.0, -0.6, np.pi / 2])[0, :, 80, 0].astype(float)

    # From y = -0.6 the walls are 0.2 m and 1 m ahead. Feet: f 0.2 / 0.2 and f 0.2 / 1 rows below
    # the middle, tops: f 0.15 / 0.2 and f 0.15 / 1; the near one is below the image.
    part = (image - 90) / (image.max() - 90)
    assert part.sum() == pytest.approx(FOCAL * 0.05, abs=0.05)
    middle = (part * (np.arange(120) + 0.5)).sum() / part.sum()
    assert middle == pytest.approx(60 + FOCAL * 0.175, abs=0.05)


def traced(track, look, settings, pose, boxes=(), fine=16):
    """Grey levels by rays, `fine` x `fine` a pixel: each wall piece and each box, in float64."""
    height, width = settings.height * fine, settings.width * fine
    focal = width / 2 / np.tan(np.radians(settings.fov_deg) / 2)
    pitch, tall = np.radians(settings.pitch_deg), look.wall_height
    v, u = np.meshgrid(
        (np.arange(height) + 0.5 - height / 2) / focal,
        (np.arange(width) + 0.5 - width / 2) / focal,
        indexing="ij",
    )
    ahead, right, up = np.cos(pitch) - v * np.sin(pitch), u, -np.sin(pitch) - v * np.cos(pitch)
    x, y, yaw = pose
    c, s = np.cos(yaw), np.sin(yaw)
    ray = np.stack([c * ahead + s * right, s * ahead - c * right, up], axis=-1)
    lens = np.array([x + c * settings.mount_forward, y + s * settings.mount_forward,
                     settings.mount_height])  # fmt: skip
    nearest, seen = np.full(v.shape, np.inf), np.full(v.shape, 90.0)

    def put(distance, hit, value):
        hit &= (distance > 0) & (distance < nearest)
        nearest[hit], seen[hit] = distance[hit], np.broadcast_to(value, v.shape)[hit]

    azimuth = right / ahead
    for chain in track_walls(track, look.wall_offset):
        for a, b in zip(chain[:-1] - lens[:2], chain[1:] - lens[:2], strict=True):
            e = b - a
            ends = np.array([[c * p[0] + s * p[1], s * p[0] - c * p[1]] for p in (a, b)])
            if ends[:, 0].max() <= 0:
                continue
            span = slice(None)
            if ends[:, 0].min() > 0.02:  # only the columns where it can be
                low, high = np.sort(ends[:, 1] / ends[:, 0])
                columns = np.nonzero(((azimuth >= low) & (azimuth <= high)).any(axis=0))[0]
                if not len(columns):
                    continue
                span = slice(columns[0], columns[-1] + 1)
            way = ray[:, span]
            across = way[..., 0] * e[1] - way[..., 1] * e[0]
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = (a[0] * e[1] - a[1] * e[0]) / across
                share = (a[0] * way[..., 1] - a[1] * way[..., 0]) / across
            z = lens[2] + distance * way[..., 2]
            hit = (share >= 0) & (share < 1) & (z >= 0) & (z <= tall)
            normal = np.array([-e[1], e[0]]) / np.hypot(*e)
            normal *= -np.sign(normal @ a)
            full = np.zeros(v.shape, bool)
            far = np.full(v.shape, np.inf)
            full[:, span], far[:, span] = hit, distance
            put(far, full, look.wall[0] * brightness(normal))
    for bx, by, bc, bs, half_length, half_width, up_to, _ in boxes:
        turned = np.array([[bc, bs, 0], [-bs, bc, 0], [0, 0, 1]])
        start, way = turned @ (lens - [bx, by, up_to / 2]), ray @ turned.T
        half = np.array([half_length, half_width, up_to / 2])
        with np.errstate(divide="ignore"):
            enter = (-np.sign(way) * half - start) / way
            leave = ((np.sign(way) * half - start) / way).min(axis=-1)
        shade = np.array([END, FLANK, TOP], float)[enter.argmax(axis=-1)]
        put(enter.max(axis=-1), enter.max(axis=-1) < leave, shade)
    return seen.reshape(settings.height, fine, settings.width, fine).mean(axis=(1, 3))


SMALL = CameraSettings(width=80, height=60)
SCENES = {
    "walls": ({"wall_height": 0.3}, SMALL, 1.0, 0.1, 0.1),
    "walls farther out": ({"wall_height": 0.25, "wall_offset": 0.15}, SMALL, 9.0, -0.1, -0.3),
    "low walls": ({"wall_height": 0.06, "wall_offset": 0.1}, SMALL, 12.0, 0.0, 0.2),
    "level": (
        {"wall_height": 0.2},
        SMALL.model_copy(update={"pitch_deg": 0.0}), 6.5, 0.0, 0.8,
    ),
    "steep": (
        {"wall_height": 0.4},
        SMALL.model_copy(update={"pitch_deg": 35.0, "mount_height": 0.3}), 3.0, 0.0, 0.3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_walls_and_boxes_are_what_rays_meet(name):
    changes, settings, s, n, turned = SCENES[name]
    track, look = load_track("reinvent_like"), Look(**FLAT, **changes)
    (pose,) = places(track, [s], n, turned)
    spots = places(track, (s + np.array([0.5, 1.1, 2.2, 4.0])) % track.length, 0.1)
    boxes = [box(x, y, turn=t) for x, y, t in spots]

    image = draw(track, look, pose, settings, [boxes])[0, :, :, 0].astype(float)

    error = image - traced(track, look, settings, pose, boxes)
    assert np.sqrt((error**2).mean()) < 1.5
    assert np.ptp(image) > 100


def test_a_wall_hides_the_box_behind_it_and_no_other():
    look = Look(wall_height=0.3, **FLAT)
    before, behind = box(5.0, 0.2, turn=np.pi / 2), box(5.0, 0.9)

    bare = draw(straight(), look, [5.0, -0.3, np.pi / 2])

    np.testing.assert_array_equal(
        draw(straight(), look, [5.0, -0.3, np.pi / 2], boxes=[[behind]]), bare
    )
    seen = draw(straight(), look, [5.0, -0.3, np.pi / 2], boxes=[[before]])
    assert seen[0, 70, 80, 0] == END


def test_a_box_that_is_higher_than_the_wall_before_it_shows_over_it():
    look = Look(wall_height=0.3, **FLAT)
    behind = box(5.0, 0.9, size=(0.15, 0.2, 0.6))

    column = draw(straight(), look, [5.0, -0.3, np.pi / 2], boxes=[[behind]])[0, :, 80, 0]

    # Above the lens, 0.4 m of the box at 1.1 m and 0.1 m of the wall at 0.7 m.
    seen = np.count_nonzero(column == FLANK)
    assert seen == pytest.approx(FOCAL * (0.4 / 1.1 - 0.1 / 0.7), abs=2)


def test_a_wide_picture_is_painted_in_parts_that_fit():
    look = Look(wall_height=0.3, **FLAT)
    settings = LEVEL.model_copy(update={"width": 1100, "fov_deg": 150})

    image = draw(straight(), look, [5.0, 0.0, np.pi / 2], settings)[0, :, :, 0].astype(int)

    # Looked at squarely, an upright wall is the same in all columns.
    assert np.ptp(image[:, 0]) > 30
    assert abs(image - image[:, :1]).max() <= 1


def test_walls_stand_where_the_lidar_meets_them():
    track, look = load_track("hairpins"), Look(wall_height=0.2, wall_offset=0.1, **FLAT)
    settings = LEVEL.model_copy(update={"mount_height": 0.1})
    beams = 2 * np.arctan(79.5 / FOCAL)
    poses = places(track, np.linspace(0, track.length, 12, endpoint=False), 0.05)
    lidar = Lidar(RangeLidar(beams=2, fov_deg=float(np.degrees(beams)), wall_offset=0.1), [track])

    images = draw(track, look, poses, settings)[..., 0].astype(float)

    # The first beam goes through the last column. A wall as high above the lens as below it covers
    # 2 f 0.1 / (r cos a) rows.
    ranges = lidar.scan(*poses.T, np.zeros(len(poses)))
    for beam, column in ((0, 159), (1, 0)):
        rows = np.minimum(2 * FOCAL * 0.1 / (ranges[:, beam] * np.cos(beams / 2)), 120)
        wall = images[:, :, column]
        covered = (abs(wall - 90) / abs(wall[:, 60:61] - 90)).sum(axis=1)
        steady = abs(np.diff(images[:, 60, max(column - 2, 0) : column + 3])).max(axis=1) < 1
        assert steady.sum() > 6
        np.testing.assert_allclose(covered[steady], rows[steady], atol=0.6, rtol=0.02)


def test_a_look_without_walls_and_one_with_can_be_mixed():
    track = load_track("oval")
    looks = (Look(), Look(wall_height=0.3), Look(wall_height=0.1, wall_offset=0.2))
    camera = Camera(SMALL, [track], looks)
    x, y, yaw = places(track, [1.0, 1.0, 1.0]).T

    images = camera.render(x, y, yaw, np.zeros(3), np.arange(3))

    for image, look in zip(images, looks, strict=True):
        np.testing.assert_array_equal(image, draw(track, look, [x[0], y[0], yaw[0]], SMALL)[0])


@pytest.mark.parametrize("color", ["grey", "rgb"])
@pytest.mark.parametrize("width", [80, 83])
def test_threads_and_neighbours_change_nothing(color, width):
    track, look = load_track("oval"), Look(wall_height=0.1, wall_offset=0.05)
    settings = CameraSettings(width=width, height=60, color=color)
    poses = places(track, np.linspace(0, track.length, 30, endpoint=False), 0.1)
    boxes = np.array([[box(x + 0.5, y)] for x, y, _ in poses], np.float32)

    together = draw(track, look, poses, settings, boxes, threads=2)

    np.testing.assert_array_equal(together, draw(track, look, poses, settings, boxes, threads=1))
    alone = draw(track, look, poses[17], settings, boxes[17:18])[0]
    np.testing.assert_array_equal(together[17], alone)


def test_grey_is_the_luminance_of_rgb():
    track = load_track("oval")
    look = Look(wall_height=0.3, wall=(200, 90, 30))
    poses = places(track, np.linspace(0, track.length, 8, endpoint=False))

    grey = draw(track, look, poses, SMALL)[..., 0]
    rgb = draw(track, look, poses, SMALL.model_copy(update={"color": "rgb"}))

    assert abs(grey - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1.5


def test_an_eye_of_a_pair_sees_what_a_camera_there_sees():
    track, look = load_track("oval"), Look(wall_height=0.3)
    (pose,) = places(track, [1.0])
    pair = SMALL.model_copy(update={"stereo_baseline": 0.06})
    aside = 0.03 * np.array([-np.sin(pose[2]), np.cos(pose[2]), 0])

    both = draw(track, look, pose, pair)

    np.testing.assert_array_equal(both[..., :1], draw(track, look, pose + aside, SMALL))
    np.testing.assert_array_equal(both[..., 1:], draw(track, look, pose - aside, SMALL))


@pytest.mark.parametrize("width", [80, 83])
@pytest.mark.parametrize(
    "look",
    [Look(wall_height=0.3), Look(wall_height=0.06, wall_offset=0.1), RobotiniLook()],
    ids=["high", "low", "rich floor"],
)
def test_nothing_that_was_in_the_buffer_shines_through(look, width):
    """Floors are not painted where walls hide them."""
    track = load_track("oval")
    poses = places(track, np.linspace(0, track.length, 20, endpoint=False), 0.1, 0.4)
    boxes = np.array([[box(x + 0.4, y, turn=t)] for x, y, t in poses], np.float32)
    camera = Camera(SMALL.model_copy(update={"width": width}), [track], [look])
    which = np.zeros(len(poses), np.int32)
    black, white = (
        np.zeros((20, 60, width, 1), np.uint8),
        np.full((20, 60, width, 1), 255, np.uint8),
    )

    for out in (black, white):
        camera.render(*poses.T, which, which, out, boxes=boxes)

    np.testing.assert_array_equal(black, white)
