"""Boxes in the camera's image, against similar triangles and a picture traced ray by ray."""

import numpy as np
import pytest

from hotlap.errors import ConfigError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import Look
from hotlap.track import load_track

SKY = (90, 90, 90)
EMPTY = Look(
    road=SKY, ground=SKY, border=SKY, dash=SKY, sky_top=SKY, sky_horizon=SKY,
    obstacle=(200, 200, 200), car=(250, 20, 20),
)  # fmt: skip
LEVEL = CameraSettings(pitch_deg=0, mount_height=0.2, mount_forward=0)
FOCAL = 80 / np.tan(np.radians(64.74) / 2)
TRACK = load_track("oval")
TOP, END, FLANK = 200, 156, 120  # 1, 0.78, 0.6 of the obstacles' colour


def box(x, y, *, turn=0.0, size=(0.3, 0.4, 0.25), kind=0):
    return [x, y, np.cos(turn), np.sin(turn), size[0] / 2, size[1] / 2, size[2], kind]


def draw(boxes, settings=LEVEL, *, yaw=0.0, look=EMPTY, rows=1, threads=1):
    """The view of cars that all stand in the origin."""
    zero, which = np.zeros(rows), np.zeros(rows, np.int32)
    boxes = np.array(boxes, np.float32)
    boxes = np.broadcast_to(boxes, (rows, *boxes.shape[-2:]))
    camera = Camera(settings, [TRACK], (look,), threads=threads)
    return camera.render(zero, zero, zero + yaw, which, which, boxes=boxes)


def traced(boxes, settings, *, fine=8):
    """Grey levels by rays, `fine` x `fine` a pixel, against the slabs of each box."""
    height, width = settings.height * fine, settings.width * fine
    focal = width / 2 / np.tan(np.radians(settings.fov_deg) / 2)
    pitch = np.radians(settings.pitch_deg)
    right = (np.arange(width) + 0.5 - width / 2) / focal
    down = ((np.arange(height) + 0.5 - height / 2) / focal)[:, None]
    ray = np.stack(
        np.broadcast_arrays(
            np.cos(pitch) - down * np.sin(pitch), -right, -np.sin(pitch) - down * np.cos(pitch)
        ),
        axis=-1,
    )
    lens = np.array([settings.mount_forward, 0, settings.mount_height])
    nearest = np.full((height, width), np.inf)
    seen = np.full((height, width), float(SKY[0]))
    for x, y, c, s, half_length, half_width, tall, _ in boxes:
        turned = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        start, way = turned @ (lens - [x, y, tall / 2]), ray @ turned.T
        half = np.array([half_length, half_width, tall / 2])
        with np.errstate(divide="ignore"):
            low = (-np.sign(way) * half - start) / way
            high = (np.sign(way) * half - start) / way
        enter, leave = low.max(axis=-1), high.min(axis=-1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit] = enter[hit]
        seen[hit] = np.array([END, FLANK, TOP], float)[low.argmax(axis=-1)][hit]
    return seen.reshape(settings.height, fine, settings.width, fine).mean(axis=(1, 3))


def test_a_box_covers_what_similar_triangles_say():
    """A face 0.4 m wide and 0.25 m high, 1.85 m away, seen from 0.2 m above the ground."""
    image = draw([[box(2.0, 0.0)]])[0, :, :, 0].astype(float)

    part = (image - SKY[0]) / (END - SKY[0])
    assert part.max() == 1
    assert part[:, 80].sum() == pytest.approx(FOCAL * 0.25 / 1.85, abs=0.03)
    assert part[60, :].sum() == pytest.approx(FOCAL * 0.4 / 1.85, abs=0.03)
    rows = np.nonzero(part[:, 80] == 1)[0]
    assert rows[0] == np.ceil(60 - FOCAL * 0.05 / 1.85)
    assert rows[-1] == np.floor(60 + FOCAL * 0.2 / 1.85) - 1


@pytest.mark.parametrize(
    ("settings", "boxes"),
    [
        (LEVEL, [box(1.2, 0.2, turn=0.5), box(1.9, -0.1), box(4.0, 0.3, turn=-1)]),
        (CameraSettings(), [box(1.0, 0.1, turn=0.3), box(1.4, 0.2, turn=2.0)]),
        (CameraSettings(mount_height=0.6, pitch_deg=30), [box(0.8, -0.1, turn=0.7), box(1.4, 0)]),
        (CameraSettings(), [box(0.3, 0.3, size=(0.6, 0.4, 0.1)), box(1.5, 0, turn=0.2)]),
        (CameraSettings(width=64, height=48), [box(6.0, 0.5, turn=0.4), box(9.0, -1, turn=1)]),
    ],
    ids=["level", "DeepRacer's", "from above", "cut by the near plane", "far away"],
)
def test_boxes_are_what_rays_meet(settings, boxes):
    image = draw([boxes], settings)[0, :, :, 0].astype(float)

    error = image - traced(boxes, settings)

    assert np.sqrt((error**2).mean()) < 1.0
    assert np.abs(error).max() < 45  # the corner of three faces, of 110 levels


def test_the_nearer_box_hides_the_farther_one_whatever_their_order():
    near, far = box(1.0, 0.0, size=(0.2, 0.5, 0.5)), box(2.0, 0.0, kind=1)

    alone = draw([[near]])

    np.testing.assert_array_equal(draw([[near, far]]), alone)
    np.testing.assert_array_equal(draw([[far, near]]), alone)


@pytest.mark.parametrize(
    "unseen", [box(-1.0, 0.0), box(0.5, 9.0), box(2.0, 0.0, size=(0.3, 0.4, 0))],
    ids=["behind", "aside", "no box"],
)  # fmt: skip
def test_what_is_out_of_sight_is_not_drawn(unseen):
    np.testing.assert_array_equal(draw([[unseen]]), draw(np.zeros((1, 0, 8))))


def test_a_car_shows_its_own_colour():
    image = draw([[box(1.0, 0.0, kind=1)]], CameraSettings(color="rgb", pitch_deg=0))

    assert tuple(image[0, 60, 80]) == tuple(round(0.78 * c) for c in (250, 20, 20))


def test_a_mirrored_scene_is_the_mirrored_image():
    left = draw([[box(1.1, 0.25, turn=0.4), box(2.0, -0.3)]])
    right = draw([[box(1.1, -0.25, turn=-0.4), box(2.0, 0.3)]])

    assert np.abs(left[:, :, ::-1].astype(int) - right).max() <= 1


def test_threads_and_neighbours_change_nothing():
    boxes = np.array([[box(1 + 0.02 * i, 0.1, turn=0.1 * i)] for i in range(40)], np.float32)

    together = draw(boxes, rows=40, threads=2)

    np.testing.assert_array_equal(together, draw(boxes, rows=40, threads=1))
    np.testing.assert_array_equal(together[17], draw(boxes[17:18])[0])


def test_disparity_is_focal_length_times_baseline_over_distance():
    pair = LEVEL.model_copy(update={"stereo_baseline": 0.06})
    image = draw([[box(1.15, 0.0)]], pair)[0].astype(float)

    part = (image[60] - SKY[0]) / (END - SKY[0])
    middle = (part * np.arange(160)[:, None]).sum(axis=0) / part.sum(axis=0)

    assert image.shape == (120, 160, 2)
    assert middle[0] - middle[1] == pytest.approx(FOCAL * 0.06 / 1.0, abs=0.05)


def test_an_eye_of_a_pair_sees_what_a_camera_there_sees():
    pair = CameraSettings(stereo_baseline=0.06, color="rgb")
    x, y = TRACK.locate(np.array([1.0]), np.array([0.03]))[0]
    yaw, one = np.zeros(1), np.zeros(1, np.int32)
    camera = Camera(pair, [TRACK])
    left = Camera(pair.model_copy(update={"stereo_baseline": 0.0}), [TRACK])

    both = camera.render(np.array([x]), np.array([y]) - 0.03, yaw, one, one)

    seen = left.render(np.array([x]), np.array([y]), yaw, one, one)
    assert both.shape == (1, 120, 160, 6)
    np.testing.assert_array_equal(both[..., :3], seen)


def test_boxes_of_a_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match=r"boxes must have shape \(1, K, 8\), got \(1, 2, 7\)"):
        draw(np.zeros((1, 2, 7)))
