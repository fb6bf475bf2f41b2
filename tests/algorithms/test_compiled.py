"""Compiled networks of any widths against torch: outputs and gradients."""

import numpy as np
import pytest
import torch

from hotlap.algorithms.compiled import cost_of, fits, net_of, outputs, read
from hotlap.algorithms.compiled_steps import LANES, Weights, adam_step, add_up, imitation_gradients
from hotlap.algorithms.policy import ImagePlan, Plan

ROWS = 75  # more than two blocks, and no multiple of anything


def image(*conv):
    return ImagePlan(shape=(17, 23, 3), scale=1 / 128, offset=-1.0, conv=conv, dense=())


def plan(*conv, numbers=0, hidden=(19,)):
    images = {"camera": image(*conv)} if conv else {}
    return Plan(
        images=images,
        vectors={"state": numbers} if numbers else {},
        hidden=hidden,
        activation="relu" if conv else "tanh",
        outputs=2,
    )


PLANS = {
    "numbers": plan(numbers=5),
    "numbers, no layer": plan(numbers=33, hidden=()),
    "one convolution": plan((5, 4, 3)),
    "few filters": plan((5, 4, 2), (7, 3, 1), (18, 2, 2), hidden=(33, 17)),
    "picture and numbers": plan((17, 5, 2), (3, 3, 2), numbers=4),
    "picture, no layer": plan((4, 6, 4), hidden=()),
}


@pytest.fixture(params=PLANS)
def plan_(request):
    return PLANS[request.param]


@pytest.fixture
def seen(plan_):
    rng = np.random.default_rng(0)
    found = {}
    if plan_.images:
        found["camera"] = rng.integers(0, 256, (ROWS, 17, 23, 3)).astype(np.uint8)
    if plan_.vectors:
        found["state"] = rng.normal(size=(ROWS, plan_.vectors["state"])).astype(np.float32)
    return found


@pytest.fixture
def weights(plan_):
    rng = np.random.default_rng(1)
    return {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in plan_.shapes().items()}


def vector(plan_, weights, first=7):
    """Return the network, its weights behind some others, and where they end."""
    net, where, end = net_of(plan_, first)
    return net, Weights(weights, where, end, ())


def as_torch(plan_, weights, seen):
    """Return torch's weights, and what its own functions answer."""
    tensors = {k: torch.from_numpy(v).requires_grad_() for k, v in weights.items()}
    layers = [(tensors[k], tensors[k[:-6] + "bias"]) for k in tensors if k.endswith("weight")]
    parts = []
    for one in plan_.images.values():
        x = torch.from_numpy(seen["camera"]).float().permute(0, 3, 1, 2) * one.scale + one.offset
        for _, _, stride in one.conv:
            x = torch.relu(torch.nn.functional.conv2d(x, *layers.pop(0), stride=stride))
        parts.append(x.permute(0, 2, 3, 1).flatten(1))
    parts += [torch.from_numpy(seen[name]) for name in plan_.vectors]
    x = torch.cat(parts, dim=1)
    for layer in layers[:-1]:
        x = getattr(torch, plan_.activation)(torch.nn.functional.linear(x, *layer))
    return tensors, torch.nn.functional.linear(x, *layers[-1])


def test_it_answers_what_torch_answers(plan_, weights, seen):
    net, kept = vector(plan_, weights)
    out = np.empty((ROWS, 2), np.float32)

    assert fits(plan_)
    for start, stop in ((0, 32), (32, ROWS)):
        outputs(start, stop, out, kept.theta, net, *read(plan_, seen))

    _, expected = as_torch(plan_, weights, seen)
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_its_gradients_are_torch_s(plan_, weights, seen):
    net, kept = vector(plan_, weights)
    label = np.random.default_rng(2).uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    found, sums = np.full((LANES, len(kept.theta)), np.nan, np.float32), np.empty(LANES)
    gradient = np.empty_like(kept.theta)

    given = (kept.theta, net, *read(plan_, seen), label, False)
    for start, stop in ((0, 3), (3, LANES)):
        imitation_gradients(start, stop, found, sums, *given)
    add_up(gradient, found, kept.still)

    tensors, answer = as_torch(plan_, weights, seen)
    loss = torch.nn.functional.mse_loss(answer, torch.from_numpy(label))
    loss.backward()
    loss = float(loss.detach())
    assert sums.sum() / ROWS == pytest.approx(loss, rel=1e-5)
    for name, mine in kept.named(gradient).items():
        expected = tensors[name].grad.numpy()
        assert np.abs(mine - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max()), name
    assert np.count_nonzero(gradient) <= sum(array.size for array in weights.values())


def test_what_is_kept_by_name_is_what_was_given(plan_, weights):
    _, kept = vector(plan_, weights)

    for name, array in kept.named(kept.theta).items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    assert np.count_nonzero(kept.theta) == sum(array.size for array in weights.values())


def test_what_a_row_costs_is_counted_by_hand():
    # 5 x 7 places of 4 * 4 * 3 terms, then 35 * 5 numbers, then 19; 16, 32 and 16 columns
    net, _, _ = net_of(plan((5, 4, 3)), 0)

    assert cost_of(net) == 35 * 48 * 16 + 175 * 32 + 19 * 16


def test_a_picture_without_convolutions_is_not_ours():
    bare = PLANS["one convolution"].model_copy(update={"images": {"camera": image()}})

    assert not fits(bare)


def test_a_gradient_that_is_not_finite_moves_nothing():
    theta, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    gradient = np.array([1, np.nan, 1], np.float32)

    length = adam_step(
        theta, gradient, zeros.copy(), zeros.copy(), np.array([3]), np.array([0.1]),
        np.array([1]), 1e-5, 1.0,
    )  # fmt: skip

    assert np.isnan(length)
    assert theta.tolist() == [1, 1, 1]
