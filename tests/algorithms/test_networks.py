import numpy as np
import pytest
import torch
from torch import nn

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.networks import forward, initial_weights, make_plan
from hotlap.algorithms.settings import NetworkSettings

OBSERVATION = {
    "camera": ObservationSpec((32, 48, 3), "uint8"),
    "state": ObservationSpec((5,), "float32"),
    "lidar": ObservationSpec((4,), "float32"),
}


def network(*names, **settings):
    plan = make_plan(NetworkSettings(**settings), OBSERVATION, names, 2)
    rng = np.random.default_rng(0)
    weights = {
        name: torch.from_numpy(value + 0.1 * rng.standard_normal(value.shape).astype(np.float32))
        for name, value in initial_weights(plan, 1.0, rng).items()
    }
    return plan, {name: value.requires_grad_() for name, value in weights.items()}


def filled(layers, weights):
    """Give torch's own layers our weights."""
    named = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d)]
    keys = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    for module, key in zip(named, keys, strict=True):
        module.load_state_dict({p: weights[f"{key}.{p}"].detach() for p in ("weight", "bias")})
    return layers


def assert_same_gradients(output, expected, weights, layers):
    np.testing.assert_allclose(output.detach(), expected.detach(), atol=1e-5)
    target = torch.linspace(-1.0, 1.0, output.numel()).reshape(output.shape)
    ours = torch.autograd.grad((output - target).square().sum(), list(weights.values()))
    theirs = torch.autograd.grad((expected - target).square().sum(), list(layers.parameters()))
    for name, one, other in zip(weights, ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("widths", [(), (7,), (16, 8, 6)])
def test_dense_layers_and_their_gradients_are_torch_s(widths):
    plan, weights = network("state", "lidar", mlp=widths)
    state, lidar = torch.randn(9, 5), torch.randn(9, 4)
    layers, size = [], 9
    for width in widths:
        layers += [nn.Linear(size, width), nn.Tanh()]
        size = width
    reference = filled(nn.Sequential(*layers, nn.Linear(size, 2)), weights)

    output = forward(plan, weights, {"state": state, "lidar": lidar}, bfloat16=False)

    expected = reference(torch.cat([state, lidar], dim=1))
    assert_same_gradients(output, expected, weights, reference)


def test_convolutions_and_their_gradients_are_torch_s():
    # 32x48 -> (32-6)/4+1 = 7 x 11 -> (7-3)/2+1 = 3 x 5, 32 filters: 480 numbers
    plan, weights = network("camera")
    pixels = torch.randint(0, 256, (6, 32, 48, 3), dtype=torch.uint8)
    reference = nn.Sequential(
        nn.Conv2d(3, 16, 6, 4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2),
        nn.ReLU(),
        _RowsFirst(),
        nn.Linear(480, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )
    filled(reference, weights)

    output = forward(plan, weights, {"camera": pixels}, bfloat16=False)

    expected = reference((pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    assert_same_gradients(output, expected, weights, reference)


class _RowsFirst(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def test_the_deepracer_network_has_the_car_s_sizes():
    # 120x160 -> 29x39x32 -> 13x18x64 -> 11x16x64 = 11264 -> 512, as on the AWS DeepRacer
    observation = {"camera": ObservationSpec((120, 160, 1), "uint8")}
    plan = make_plan(NetworkSettings(cnn="deepracer_shallow"), observation, ("camera",), 5)

    assert plan.images["camera"].grid() == (11, 16, 64)
    assert plan.shapes()["hidden0.weight"] == (512, 11264)


def test_the_camera_memory_is_not_written_to():
    plan, weights = network("camera")
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    before = pixels.clone()

    forward(plan, weights, {"camera": pixels}, bfloat16=False)

    np.testing.assert_array_equal(pixels, before)
