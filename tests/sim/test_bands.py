"""Robotini's colour bands against its seven steps in plain NumPy, and by hand."""

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.bands import ColorBandsSettings, color_bands
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import Look
from hotlap.track import load_track

ROBOTINI = ColorBandsSettings()


def seven_steps(frames):
    """The reference's steps on the frames that wait, (F, 80, 128, 3) uint8 -> (8, 3)."""
    merged = frames.max(axis=0)  # 1: the union of several moments
    picture = merged[20:].astype(np.float32)  # 2: the top 20 rows are cut off
    picture[picture < picture.max(axis=-1, keepdims=True)] = 0  # 3: one pure colour, or black
    picture = np.where(picture > 100, np.float32(255), np.float32(0))
    x, y = picture.mean(axis=0), picture.mean(axis=1)  # 4

    def scaled(values):  # 5: each triple to 0..1, as sklearn's minmax_scale: an even one is 0
        low = values.min(axis=-1, keepdims=True)
        span = values.max(axis=-1, keepdims=True) - low
        return (values - low) / np.where(span == 0, 1, span)

    x, y = scaled(x).reshape(4, 32, 3).mean(axis=1), scaled(y).reshape(4, 15, 3).mean(axis=1)  # 6
    return np.concatenate([x, y])  # 7


def pictures():
    """Noise, smooth ramps with ties, drawn road, and flat colours."""
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (4, 80, 128, 3))
    coarse = draws.integers(0, 4, (4, 80, 128, 3)) * 80  # many ties
    flat = np.broadcast_to(
        np.array([[255, 0, 0], [101, 101, 3], [90, 80, 70], [255, 255, 255]])[:, None, None],
        (4, 80, 128, 3),
    )
    track = load_track("reinvent_like")
    line, some = track.stations, np.arange(4) * 60 + 5
    look = Look(road=(48, 97, 159), ground=(221, 69, 103), border=(26, 174, 142), border_width=0.2)
    camera = Camera(CameraSettings(width=128, height=80, color="rgb"), [track], [look])
    zero = np.zeros(4, np.int32)
    drawn = camera.render(line.x[some], line.y[some], line.heading[some] + 0.2, zero, zero)
    return np.concatenate([noise, coarse, flat, drawn]).astype(np.uint8)


def test_bands_are_the_seven_steps():
    images = pictures()

    found = color_bands(images, ROBOTINI)

    expected = np.stack([seven_steps(image[None]) for image in images])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert found[-4:].std() > 0.2  # the drawn road has colours


def test_bands_by_hand():
    # left half red, right half green below the middle; blue above, of which 20 rows are cut
    image = np.zeros((80, 128, 3), np.uint8)
    image[:40] = 0, 0, 200
    image[40:, :64] = 150, 100, 0
    image[40:, 64:] = 0, 101, 50

    bands = color_bands(image[None], ROBOTINI)[0]

    # A left column has 20 blue rows and 40 red ones: blue (20 - 0) / (40 - 0) = 0.5, red 1.
    # Rows 0..14 of 60 are blue; 15..29 hold 5 blue ones, then ten of half red, half green.
    np.testing.assert_allclose(
        bands,
        [[1, 0, 0.5], [1, 0, 0.5], [0, 1, 0.5], [0, 1, 0.5],
         [0, 0, 1], [10 / 15, 10 / 15, 5 / 15], [1, 1, 0], [1, 1, 0]],
        atol=1e-6,
    )  # fmt: skip


def test_grey_and_dark_pixels_count_for_nothing():
    even = np.full((1, 80, 128, 3), 200, np.uint8)
    dark = np.zeros((1, 80, 128, 3), np.uint8)
    dark[..., 0] = 100  # not above the threshold

    assert (color_bands(even, ROBOTINI) == 0).all()
    assert (color_bands(dark, ROBOTINI) == 0).all()
    assert color_bands(dark, ColorBandsSettings(threshold=99))[0, 0].tolist() == [1, 0, 0]


def test_any_size_will_do():
    # 6 columns: groups of 1, 2, 1, 2; 5 rows, none cut: 1, 1, 1, 2
    image = np.zeros((1, 5, 6, 3), np.uint8)
    image[0, :, 0, 0] = image[0, :, 1:3, 1] = image[0, :, 3:, 2] = 255
    image[0, 4] = 0

    bands = color_bands(image, ColorBandsSettings(cut=0))[0]

    assert bands[:4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    # a row has 1 red, 2 green, 3 blue pixels: 0, 1/2, 1; the last row is black
    np.testing.assert_allclose(bands[4:], [[0, 0.5, 1]] * 3 + [[0, 0.25, 0.5]], atol=1e-6)


def test_the_bytes_do_not_depend_on_threads():
    images = pictures()

    one, two = (color_bands(images, ROBOTINI, threads=n) for n in (1, 2))

    np.testing.assert_array_equal(one, two)


def env(rows=4, **given):
    base = {"track": "oval", "observation.actor": "color_bands", "observation.camera.color": "rgb",
            "observation.camera.width": 128, "observation.camera.height": 80}  # fmt: skip
    return VectorEnv(resolve(EnvSettings, base | given), rows, seed=1, threads=1)


def test_an_environment_shows_the_bands_of_its_camera():
    world = env(**{"observation.actor": ["camera", "color_bands"]})

    seen = world.begin()

    assert world.spaces["color_bands"].shape == (8, 3)
    assert seen["color_bands"].dtype == world.spaces["color_bands"].dtype == np.float32
    np.testing.assert_array_equal(
        seen["color_bands"], color_bands(seen["camera"], ColorBandsSettings())
    )


def test_bands_have_a_clock():
    plain, late = env(), env(**{"observation.color_bands.clock.latency": 2 / 15})
    action = np.tile([0.6, 1.0], (4, 1))

    seen = [plain.begin()] + [plain.advance(action).observation for _ in range(6)]
    delayed = [late.begin()] + [late.advance(action).observation for _ in range(6)]

    np.testing.assert_array_equal(delayed[6]["color_bands"], seen[4]["color_bands"])
    assert (seen[6]["color_bands"] != seen[4]["color_bands"]).any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"observation.camera.color": "grey"}, "need one camera in colours"),
        ({"observation.camera.stereo_baseline": 0.06}, "need one camera in colours"),
        ({"observation.camera.height": 8, "observation.color_bands.cut": 0.8}, "leaves 2 rows"),
        ({"observation.color_bands.treshold": 3}, "did you mean threshold"),
        ({"observation.actor": "colour_bands"}, "observation.actor"),
    ],
)
def test_what_cannot_be_is_said(given, says):
    with pytest.raises(ConfigError, match=says):
        env(**given)


def test_wrong_images_are_refused():
    with pytest.raises(ConfigError, match=r"must be \(M, H, W, 3\) uint8, got float32"):
        color_bands(np.zeros((1, 80, 128, 3), np.float32), ROBOTINI)
