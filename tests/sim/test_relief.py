"""Depth and segmentation: rays by hand, the LIDAR, and the picture itself."""

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lidar import Lidar, RangeLidar
from hotlap.sim.look import Look
from hotlap.sim.relief import Class, depth_picture, segmentation_picture
from hotlap.track import load_track

TRACK = load_track("hairpins")
LEVEL = CameraSettings(pitch_deg=0, mount_height=0.1, mount_forward=0)
FOCAL = 80 / np.tan(np.radians(64.74) / 2)
WALLED = Look(wall_height=0.3)


def poses(count=12, n=0.05, turned=0.1):
    """x, y, yaw, track, look of cars along the lap."""
    s = np.linspace(0, TRACK.length, count, endpoint=False)
    ahead = TRACK.locate(s + 0.01, 0 * s) - TRACK.locate(s, 0 * s)
    x, y = TRACK.locate(s, 0 * s + n).T
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0]) + turned
    return x, y, yaw, np.zeros(count, np.int32), np.zeros(count, np.int32)


def around(x, y, yaw, distance=0.7):
    """A box before each car, turned, and a car a little farther on."""
    boxes = np.zeros((len(x), 2, 8), np.float32)
    for k, (far, aside) in enumerate(((distance, 0.1), (distance + 0.5, -0.15))):
        boxes[:, k, 0] = x + far * np.cos(yaw) - aside * np.sin(yaw)
        boxes[:, k, 1] = y + far * np.sin(yaw) + aside * np.cos(yaw)
        boxes[:, k, 2], boxes[:, k, 3] = np.cos(yaw + 0.4), np.sin(yaw + 0.4)
        boxes[:, k, 4:] = 0.08, 0.06, 0.2, k
    return boxes


def test_the_ground_is_as_far_as_the_pinhole_law_says():
    camera = Camera(CameraSettings(), [TRACK])

    depth = camera.depth(*poses(1), range_max=9.0)[0, :, :, 0]

    # The ray of row r falls by sin 15 + (r + 1/2 - 60) / f cos 15 for each metre along the axis,
    # and the lens is 0.1303 m high.
    fall = np.sin(np.radians(15)) + (np.arange(120) + 0.5 - 60) / FOCAL * np.cos(np.radians(15))
    expected = np.where(fall > 0, np.minimum(0.1303 / np.where(fall > 0, fall, 1), 9.0), 9.0)
    np.testing.assert_allclose(depth, np.broadcast_to(expected[:, None], (120, 160)), rtol=1e-5)


def test_a_box_is_as_far_away_as_its_face():
    """Faces 1 m and 2 m ahead, seen along the axis of a level lens and 15 degrees off it."""
    boxes = np.array([[[1.1, 0, 1, 0, 0.1, 0.3, 0.4, 0], [2.1, 0.6, 1, 0, 0.1, 0.3, 0.4, 1]]])
    zero, which = np.zeros(1), np.zeros(1, np.int32)
    camera = Camera(LEVEL, [TRACK])

    depth = camera.depth(zero, zero, zero, which, which, boxes=boxes, range_max=9)[0, :, :, 0]
    kind = camera.segmentation(zero, zero, zero, which, which, boxes=boxes)[0, :, :, 0]

    assert depth[59, 80] == pytest.approx(1, abs=1e-5)
    assert depth[59, 80 - int(FOCAL * 0.29)] == pytest.approx(1, abs=1e-5)
    # 0.7 m to the left at 2 m is f 0.35 columns to the left
    assert depth[59, 80 - int(FOCAL * 0.35)] == pytest.approx(2, abs=1e-5)
    assert (kind == Class.OBSTACLE).sum() == pytest.approx(
        FOCAL * 0.6 * min(FOCAL * 0.4, FOCAL * 0.1 + 60), rel=0.02
    )
    assert kind[59, 80 - int(FOCAL * 0.35)] == Class.CAR


@pytest.mark.parametrize("pitch", [0.0, 15.0, -10.0])
def test_depth_is_what_a_lidar_measures_in_the_same_directions(pitch):
    settings = CameraSettings(pitch_deg=pitch, mount_height=0.1, mount_forward=0)
    camera = Camera(settings, [TRACK], (WALLED,))
    x, y, yaw, track, look = poses()
    boxes = around(x, y, yaw)

    depth = camera.depth(x, y, yaw, track, look, boxes=boxes, range_max=50.0)[..., 0]

    # Of the row about the horizon, the ray of column u goes cos p - v sin p ahead, u aside.
    v = -np.tan(np.radians(pitch))
    row = int(60 + FOCAL * v)
    v = (row + 0.5 - 60) / FOCAL
    ahead = np.cos(np.radians(pitch)) - v * np.sin(np.radians(pitch))
    column = np.arange(10, 150)
    u = (column + 0.5 - 80) / FOCAL
    close = []
    for k in range(len(column)):
        angle = -np.degrees(np.arctan2(u[k], ahead))
        lidar = Lidar(RangeLidar(beams=1, facing_deg=float(angle), range_max=50.0), [TRACK])
        ranges = lidar.scan(x, y, yaw, track, boxes)[:, 0]
        found = depth[:, row, column[k]] * np.hypot(u[k], ahead)
        close.append(np.isclose(found, ranges, atol=1e-3, rtol=2e-5))
    # Walls are met in columns up to a quarter of a pixel beside: their corners lie there.
    assert np.mean(close) > 0.99


LENSES = {
    "straight": {},
    "rolled": {"roll_deg": 8.0},
    "distorted": {"distortion": (-0.18, 0.02), "fov_deg": 90},
    "fisheye": {"lens": "fisheye", "fov_deg": 170},
}


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("look", [Look(), WALLED, Look(wall_height=0.05, wall_offset=0.1)])
def test_each_class_is_where_its_colour_is(look, lens):
    colours = {
        Class.SKY: (0, 0, 250), Class.GROUND: (0, 120, 0), Class.ROAD: (0, 0, 0),
        Class.BORDER: (250, 250, 250), Class.DASH: (250, 250, 0), Class.WALL: (250, 0, 250),
        Class.OBSTACLE: (0, 250, 250), Class.CAR: (250, 0, 0),
    }  # fmt: skip
    names = {Class.OBSTACLE: "obstacle", Class.CAR: "car", Class.SKY: "sky_top"}
    painted = {names.get(c, c.name.lower()): colour for c, colour in colours.items()}
    look = look.model_copy(update=painted | {"sky_horizon": (0, 0, 250)})
    camera = Camera(CameraSettings(color="rgb", **LENSES[lens]), [TRACK], (look,))
    x, y, yaw, track, which = poses()
    call, boxes = (x, y, yaw, track, which), around(x, y, yaw)

    image = camera.render(*call, boxes=boxes).astype(float)
    kind = camera.segmentation(*call, boxes=boxes)[..., 0]

    table = np.array([colours[c] for c in Class], float)
    away = np.linalg.norm(image[..., None, :] - table, axis=-1)
    # Walls and boxes are shaded: only the ratio of their channels is theirs.
    lit = (image.max(axis=-1) > 100) & (image.min(axis=-1) < 5)
    direction = image / np.maximum(image.max(axis=-1), 1)[..., None]
    ratio = np.linalg.norm(
        direction[..., None, :] - table / np.maximum(table.max(axis=1), 1)[:, None], axis=-1
    )
    upright = np.array([c >= Class.WALL for c in Class])
    score = np.where(upright & lit[..., None], 120 * ratio, away)
    clear = np.sort(score, axis=-1)
    clear = (clear[..., 0] < 25) & (clear[..., 1] > 60)  # pixels of one colour alone
    assert clear.mean() > 0.85
    assert (score.argmin(axis=-1) == kind)[clear].mean() > 0.999
    # what is not of one colour is of two, and the class is one of them: nothing else is there
    assert (score.argmin(axis=-1) == kind).mean() > 0.96


def test_the_middle_of_a_pair_is_what_a_single_camera_sees():
    x, y, yaw, track, look = poses(3)
    pair = Camera(CameraSettings(stereo_baseline=0.06), [TRACK], (WALLED,))
    single = Camera(CameraSettings(), [TRACK], (WALLED,))

    for name, extra in (("depth", {"range_max": 5.0}), ("segmentation", {})):
        seen = getattr(pair, name)(x, y, yaw, track, look, **extra)
        assert seen.shape == (3, 120, 160, 1)
        np.testing.assert_array_equal(seen, getattr(single, name)(x, y, yaw, track, look, **extra))


def test_threads_and_neighbours_change_nothing():
    x, y, yaw, track, look = poses(20)
    boxes = around(x, y, yaw)
    one, two = (Camera(CameraSettings(), [TRACK], (WALLED,), threads=t) for t in (1, 2))

    for name, extra in (("depth", {"range_max": 5.0}), ("segmentation", {})):
        together = getattr(two, name)(x, y, yaw, track, look, boxes=boxes, **extra)
        alone = getattr(one, name)(x, y, yaw, track, look, boxes=boxes, **extra)
        np.testing.assert_array_equal(together, alone)
        few = [a[5:6] for a in (x, y, yaw, track, look)]
        row = getattr(one, name)(*few, boxes=boxes[5:6], **extra)
        np.testing.assert_array_equal(row[0], together[5])


def test_an_environment_gives_what_its_spaces_promise():
    settings = resolve(
        EnvSettings,
        {"track": "oval", "observation.actor": "depth,segmentation,camera",
         "observation.camera.width": 40, "observation.camera.height": 30,
         "observation.depth.range_max": 3.0, "look.wall_height": 0.2, "traffic.obstacles": 2},
    )  # fmt: skip
    env = VectorEnv(settings, 4, seed=0)

    seen = env.begin()

    assert seen["depth"].shape == (4, 30, 40, 1)
    assert seen["depth"].dtype == np.float32
    assert seen["depth"].max() == 3.0
    assert set(np.unique(seen["segmentation"])) <= set(Class)
    for name, space in env.spaces.items():
        assert all(space.contains(one) for one in seen[name]), name
    # a row that is asked for alone sees the same
    for name in ("depth", "segmentation"):
        np.testing.assert_array_equal(env.simulator.sense(name, np.array([2]))[0], seen[name][2])


def test_classes_are_not_made_noisy():
    with pytest.raises(ConfigError, match=r"observation\.segmentation.*classes are not amounts"):
        resolve(EnvSettings, {"observation.segmentation.clock.noise": 1.0})


def test_pictures_of_depth_are_bright_where_it_is_near():
    np.testing.assert_array_equal(
        depth_picture(np.array([[[0.0], [2.5], [5.0], [9.0]]]), 5.0)[0, :, 0], [255, 128, 0, 0]
    )
    colours = segmentation_picture(np.arange(8, dtype=np.uint8)[None, :, None])
    assert colours.shape == (1, 8, 3)
    assert len(np.unique(colours[0], axis=0)) == 8
