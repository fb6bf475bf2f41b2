"""JPEG against another program's: Pillow's libjpeg, and the standard's own numbers."""

import io

import numpy as np
import pytest
from PIL import Image

from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.jpeg import compress, quantisers
from hotlap.track import load_track


def squeezed(picture, quality, first=0, colours=None):
    height, width, channels = picture.shape
    flat = picture.copy().reshape(-1)
    scratch = np.empty((3, height, width), np.float32), np.empty((2, 1024), np.float32)
    compress(
        flat, height, width, channels, first, colours or channels, quantisers()[quality], *scratch
    )
    return flat.reshape(picture.shape)


def by_pillow(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(picture.shape)


def scene(color, width=160, height=120):
    track = load_track("reinvent_like")
    line, zero = track.stations, np.zeros(1, np.int32)
    camera = Camera(CameraSettings(color=color, width=width, height=height), [track])
    return camera.render(line.x[40:41], line.y[40:41], line.heading[40:41] + 0.2, zero, zero)[0]


def test_steps_are_those_that_pillow_writes():
    for quality in (1, 10, 40, 50, 75, 95, 100):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization

        for which in (0, 1):
            np.testing.assert_array_equal(quantisers()[quality, which], tables[which])


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
@pytest.mark.parametrize("size", [(160, 120), (48, 32), (50, 37)])
@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_pictures_are_those_of_libjpeg(color, size, quality):
    picture = scene(color, *size)

    ours = squeezed(picture, quality).astype(float)

    theirs = by_pillow(picture, quality)
    lost = np.sqrt(np.mean((theirs - picture.astype(float)) ** 2))
    # libjpeg computes cosines in integers, so that now and then a step falls to the other side.
    assert np.abs(ours - theirs).mean() < 0.5
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.2 * lost + 0.4


def test_noise_keeps_the_error_that_libjpeg_has():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).astype(np.uint8)

    ours, theirs = squeezed(picture, 50).astype(float), by_pillow(picture, 50).astype(float)

    assert np.abs(ours - theirs).mean() < 0.6


def test_each_picture_of_a_pair_is_compressed_alone():
    picture = scene("rgb", 48, 32)
    pair = np.concatenate([picture, 255 - picture], axis=2)

    left = squeezed(pair, 60, first=0, colours=3)
    both = squeezed(left, 60, first=3, colours=3)

    np.testing.assert_array_equal(both[..., :3], squeezed(picture, 60))
    np.testing.assert_array_equal(left[..., 3:], pair[..., 3:])
    np.testing.assert_array_equal(both[..., 3:], squeezed(255 - picture, 60))
