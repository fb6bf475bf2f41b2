"""What lens and sensor do to pictures: against the formulas, in slow NumPy, and other programs."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.optics import PARTS, Optics, OpticsRanges, OpticsSettings
from hotlap.track import load_track

SHAPE = (32, 48, 1)


def noise_picture(count=1, shape=SHAPE):
    return np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8)


def develop(pictures, *, ranges=None, threads=1, turn=0.0, step=0, eyes=1, focal=100.0, **given):
    count = len(pictures)
    optics = Optics(
        OpticsSettings(**given), ranges or OpticsRanges(), count, pictures.shape[1:],
        eyes=eyes, focal=focal, threads=threads,
    )  # fmt: skip
    rows = np.arange(count)
    optics.begin(rows, 0, rows, rows * 0, 1.0)
    return optics.develop(
        pictures.copy(), rows, seed=0, ids=rows, episode=rows * 0, steps=rows * 0 + step,
        yaw_rate=np.full(count, turn, np.float32),
    )  # fmt: skip


def tone(value, exposure=1.0, gamma=1.0, contrast=1.0):
    light = np.minimum(exposure * value / 255, 1) ** gamma
    return 255 * np.clip(0.5 + contrast * (light - 0.5), 0, 1)


def test_a_perfect_camera_changes_nothing():
    picture = noise_picture()

    np.testing.assert_array_equal(develop(picture), picture)


@pytest.mark.parametrize(
    "given",
    [{"exposure": 1.8}, {"exposure": 0.5}, {"gamma": 0.7}, {"gamma": 1.4}, {"contrast": 0.6},
     {"contrast": 1.4}, {"exposure": 1.3, "gamma": 0.8, "contrast": 1.2}],
)  # fmt: skip
def test_tones_follow_their_formula(given):
    picture = np.arange(256, dtype=np.uint8).reshape(1, 8, 32, 1)

    found = develop(picture, **given)

    assert abs(found - tone(picture.astype(float), **given)).max() <= 0.501


def test_exposure_by_hand():
    # 100 * 1.8 = 180; 200 * 1.8 = 360, cut off at 255; gamma 2: 255 * (51 / 255)^2 = 10.2
    picture = np.array([100, 200], np.uint8).reshape(1, 1, 2, 1)
    assert develop(picture, exposure=1.8).ravel().tolist() == [180, 255]
    assert develop(np.full((1, 1, 1, 1), 51, np.uint8), gamma=2.0).item() == 10


def test_white_balance_scales_the_colours_and_a_grey_camera_their_mean():
    picture = np.full((1, 2, 16, 3), 100, np.uint8)

    rgb = develop(picture, white_balance=(1.1, 1.0, 0.8))
    grey = develop(picture[..., :1].copy(), white_balance=(1.1, 1.0, 0.8))

    assert rgb[0, 1, 7].tolist() == [110, 100, 80]
    # 100 * (0.299 * 1.1 + 0.587 + 0.114 * 0.8) = 100.71
    assert (grey == 101).all()


def test_vignetting_takes_its_share_in_the_corners_and_nothing_in_the_middle():
    picture = np.full((1, 60, 80, 1), 200, np.uint8)

    found = develop(picture, vignetting=0.5)[0, :, :, 0].astype(float)

    # corner pixel: (39.5^2 + 29.5^2) / (40^2 + 30^2) = 0.972; right edge's middle: 39.5^2 / 50^2
    assert found[0, 0] == pytest.approx(200 * (1 - 0.5 * 0.9722), abs=0.5)
    assert found[30, 79] == pytest.approx(200 * (1 - 0.5 * 0.6242), abs=0.5)
    assert found[30, 40] == 200
    np.testing.assert_array_equal(found, found[::-1, ::-1])


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_blur_is_scipys_gaussian(sigma, channels):
    picture = noise_picture(shape=(32, 48, channels))

    found = develop(picture, blur=sigma)

    expected = picture[0].astype(float)
    for axis in (0, 1):
        radius = int(np.ceil(3 * sigma))
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="nearest", radius=radius)
    assert abs(found[0] - expected).max() < 0.9  # two roundings: to a quarter, and to a level


@pytest.mark.parametrize(("turn", "length"), [(3.0, 6.0), (-3.0, 6.0), (0.7, 1.4), (0.0, 0.0)])
def test_turning_smears_by_yaw_rate_shutter_and_focal_length(turn, length):
    picture = np.zeros((1, 9, 64, 1), np.uint8)
    picture[0, :, 32:] = 240  # an edge

    found = develop(picture, shutter=0.02, focal=100.0, turn=turn)[0, 4, :, 0] / 240

    # 3 rad/s * 0.02 s * 100 pixels/rad = 6 pixels: the edge becomes a ramp of that length.
    ramp = np.clip((np.arange(64) - 31.5) / max(length, 1e-9) + 0.5, 0, 1)
    assert found.sum() == pytest.approx(32, abs=0.05)
    assert abs(found - ramp).max() < (0.1 if length else 0.001)
    assert ((found > 0.01) & (found < 0.99)).sum() == pytest.approx(length, abs=1)


def test_noise_has_its_size_and_differs_from_step_to_step_and_car_to_car():
    picture = np.full((2, 120, 160, 1), 128, np.uint8)

    now, again = develop(picture, noise=6.0), develop(picture, noise=6.0)
    later = develop(picture, noise=6.0, step=1)

    assert now.std() == pytest.approx(6, rel=0.02)
    assert now.mean() == pytest.approx(128, abs=0.15)
    np.testing.assert_array_equal(now, again)
    assert (now != later).mean() > 0.9
    assert (now[0] != now[1]).mean() > 0.9


def test_jpeg_comes_last_and_is_that_of_pillow():
    track, zero = load_track("oval"), np.zeros(1, np.int32)
    line = track.stations
    camera = Camera(CameraSettings(), [track])
    picture = camera.render(line.x[:1], line.y[:1], line.heading[:1], zero, zero)

    found = develop(picture, exposure=1.5, quality=60)
    exposed = develop(picture, exposure=1.5)[0, :, :, 0]

    file = io.BytesIO()
    Image.fromarray(exposed).save(file, "JPEG", quality=60)
    assert abs(found[0, :, :, 0].astype(float) - np.asarray(Image.open(file))).mean() < 0.3


EVERYTHING = OpticsRanges(
    exposure=(0.5, 1.8), contrast=(0.6, 1.4), gamma=(0.7, 1.4), white_balance=0.15,
    vignetting=0.4, blur=0.8, shutter=0.02, noise=8, quality=40,
)  # fmt: skip


@pytest.mark.parametrize(("channels", "eyes"), [(1, 1), (3, 1), (2, 2), (6, 2)])
def test_the_bytes_do_not_depend_on_threads_or_company(channels, eyes):
    pictures = noise_picture(count=7, shape=(32, 48, channels))
    given = {"ranges": EVERYTHING, "turn": 2.0, "eyes": eyes}

    one, two = develop(pictures, **given), develop(pictures, **given, threads=2)

    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[:3], develop(pictures[:3], **given))


def test_episodes_draw_from_the_ranges_and_no_farther_than_the_breadth():
    rows = np.arange(3000)
    optics = Optics(OpticsSettings(noise=1, quality=90), EVERYTHING, 3000, (8, 16, 3))
    column = {name: k for k, name in enumerate(PARTS)}

    bounds = {
        "exposure": (0.5, 1.8), "contrast": (0.6, 1.4), "gamma": (0.7, 1.4), "red": (0.85, 1.15),
        "blue": (0.85, 1.15), "vignetting": (0, 0.4), "blur": (0, 0.8), "shutter": (0, 0.02),
        "noise": (1, 9), "quality": (40, 95),
    }  # fmt: skip
    optics.begin(rows, 0, rows, rows * 0, 1.0)
    wide = optics.drawn
    optics.begin(rows, 0, rows, rows * 0, 0.25)
    narrow = optics.drawn
    for name, (low, high) in bounds.items():
        found = wide[:, column[name]]
        assert found.min() == pytest.approx(low, abs=0.02 * (high - low)), name
        assert found.max() == pytest.approx(high, abs=0.02 * (high - low)), name
        assert np.ptp(narrow[:, column[name]]) < 0.36 * (high - low), name
    others = np.corrcoef(wide.T)
    assert abs(others - np.eye(len(PARTS))).max() < 0.08  # each part has draws of its own


def env(rows=6, **given):
    base = {"track": "oval", "observation.actor": "camera", "observation.camera.width": 48,
            "observation.camera.height": 32}  # fmt: skip
    return VectorEnv(resolve(EnvSettings, base | given), rows, seed=3, threads=1)


def test_an_environment_shows_what_the_optics_made_and_continues_exactly():
    given = {"randomize.optics.exposure": [0.4, 2], "observation.camera.optics.noise": 4}
    plain, world = env(), env(**given)
    sharp, seen = plain.begin()["camera"], world.begin()["camera"]
    assert np.abs(sharp.astype(float) - seen).mean(axis=(1, 2, 3)).min() > 2

    arrays = world.save()
    ahead = [world.advance(np.zeros((6, 2))).observation["camera"] for _ in range(3)]
    other = env(**given)
    other.begin()
    other.restore(arrays)

    for expected in ahead:
        found = other.advance(np.zeros((6, 2))).observation["camera"]
        np.testing.assert_array_equal(found, expected)


def test_without_optics_none_are_computed():
    assert env().simulator.optics is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"observation.camera.optics.quality": 101}, "observation.camera.optics.quality: .* 100"),
        ({"observation.camera.optics.exposure": 0}, "observation.camera.optics.exposure"),
        ({"observation.camera.optics.gama": 2}, "did you mean gamma"),
        ({"randomize.optics.gamma": [1.4, 0.7]}, "gamma: the first is the smaller one"),
        ({"randomize.optics.blur": 4}, "randomize.optics.blur: .* 3"),
    ],
)
def test_what_cannot_be_is_said(given, says):
    with pytest.raises(ConfigError, match=says):
        resolve(EnvSettings, given)
