"""Depth, segmentation and walls as a user meets them: networks, saved drivers, films, mistakes."""

import numpy as np
import pytest
import torch

from hotlap.algorithms.networks import forward, initial_weights
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.settings import NetworkSettings
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.runner import observation_specs

SEEN = {
    "track": "oval", "observation.camera.width": 40, "observation.camera.height": 32,
    "observation.depth.range_max": 4.0, "look.wall_height": 0.2,
}  # fmt: skip


def env(names, **more):
    given = SEEN | {"observation.actor": names, "observation.critic": names} | more
    return VectorEnv(resolve(EnvSettings, given), 3)


@pytest.mark.parametrize("cnn", ["small", "deepracer_shallow"])
def test_networks_read_depth_and_classes_by_their_range_and_leave_them_as_they_are(cnn):
    world = env("depth,segmentation", **{"observation.camera.height": 40})
    seen = world.begin()
    plan = make_plan(NetworkSettings(cnn=cnn), observation_specs(world), world.names, 2)
    weights = initial_weights(plan, 1.0, np.random.default_rng(0))
    inputs = {name: torch.from_numpy(value.copy()) for name, value in seen.items()}

    output = forward(plan, {k: torch.from_numpy(v) for k, v in weights.items()}, inputs,
                     bfloat16=False)  # fmt: skip

    # in [-1, 1] where the network is centred, in [0, 1] where it is not
    low = -1 if cnn == "small" else 0
    for name, most in (("depth", 4), ("segmentation", 7)):
        image = plan.images[name]
        assert image.scale * most + image.offset == pytest.approx(1)
        assert image.offset == low
        np.testing.assert_array_equal(inputs[name].numpy(), seen[name])
    description = {"format": 1, "plan": plan.model_dump(), "action": "discrete"}
    driver = NumpyPolicy(description, weights)
    np.testing.assert_allclose(driver.output(seen), output.numpy(), atol=1e-4)


def test_walls_in_two_places_are_refused():
    names = {"observation.actor": "camera,lidar", "look.wall_offset": 0.1}

    with pytest.raises(ConfigError, match=r"look\.wall_offset is 0\.1 and .* give both the same"):
        env("camera,lidar", **{"look.wall_offset": 0.1})

    env("camera,lidar", **(names | {"observation.lidar.wall_offset": 0.1}))
    env("camera,lidar", **{"look.wall_offset": 0.1, "observation.lidar.kind": "deepracer"})


def test_a_clock_makes_depth_noisy_and_late():
    clean = env("depth")
    noisy = env("depth", **{"observation.depth.clock.noise_share": 0.05})
    image, other = clean.begin()["depth"], noisy.begin()["depth"]

    ratio = other / image
    assert other.dtype == np.float32
    assert ratio.std() == pytest.approx(0.05, rel=0.05)


def test_an_unknown_observation_names_those_that_are():
    with pytest.raises(ConfigError, match=r"observation\.actor.*'depth'.*'segmentation'"):
        env("dept")
