"""Attention agrees with torch's gradients, lies where it must, and is what covering up shows."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from hotlap.algorithms.attention import attend, over_pixels
from hotlap.algorithms.policy import ImagePlan, NumpyPolicy, Plan

SMALL = ((8, 6, 4), (12, 3, 2))
SHALLOW = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def image(shape=(32, 48, 1), conv=SMALL, dense=(), **more):
    return {
        "shape": shape,
        "scale": 2 / 255,
        "offset": -1.0,
        "conv": conv,
        "dense": dense,
    } | more


def described(images, outputs=4, action="discrete", plan=None, **more):
    base = {"vectors": {}, "hidden": (16,), "activation": "relu", "outputs": outputs}
    layers = base | {"images": images} | (plan or {})
    return {"format": 1, "action": action, "plan": layers} | more


def weights(description, seed=1):
    rng = np.random.default_rng(seed)
    plan = Plan.model_validate(description["plan"])
    found = {
        name: rng.normal(0, np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2, shape)
        for name, shape in plan.shapes().items()
    }
    found |= {f"normalizer.{name}.mean": rng.normal(size=n) for name, n in plan.vectors.items()}
    found |= {f"normalizer.{name}.std": np.full(n, 2.0) for name, n in plan.vectors.items()}
    return found | {"log_std": np.array([-1.0, 0.0])}


CAMERA = {"camera": image()}
LSTM = {"memory": 6, "cell": "lstm"}
CASES = {
    "choices": described(CAMERA),
    "steering": described(CAMERA, 2, "continuous"),
    "steering by a squash of a sum": described(CAMERA, 4, "continuous", squash="sample"),
    "tanh": described(CAMERA, plan={"activation": "tanh"}),
    "numbers beside it": described(CAMERA, plan={"vectors": {"imu": 3}}),
    "numbers with layers of their own": described(
        CAMERA | {"depth": image((24, 30, 2))},
        plan={"vectors": {"imu": 3, "lidar": 5}, "own": {"lidar": (6, 4)}},
    ),
    "two cameras": described(CAMERA | {"depth": image((24, 30, 2))}, plan={"vectors": {"imu": 3}}),
    "layers of its own": described({"camera": image(dense=(10, 9))}, plan={"hidden": (8, 7)}),
    "padded, pooled, linear": described(
        {"camera": image((29, 43, 3), ((5, 3, 1), (6, 3, 1)), padded=True, pool=2)},
        plan={"linear": True},
    ),
    "normalised": described(CAMERA, plan={"layer_norm": True, "hidden": (16, 9)}),
    "atoms": described(CAMERA, 15, worths=True, atoms=(-2.0, 3.0, 5)),
    "a GRU": described(CAMERA, plan={"memory": 6}),
    "an LSTM": described(CAMERA, 2, "continuous", plan=LSTM),
    "an LSTM and its action": described(
        CAMERA, plan=LSTM | {"previous_action": 4, "vectors": {"imu": 3}}
    ),
    "DeepRacer's": described({"camera": image((120, 160, 1), SHALLOW)}, plan={"hidden": (64,)}),
}


def seen(plan, rows=3, seed=4):
    rng = np.random.default_rng(seed)
    found = {
        name: rng.integers(0, 256, (rows, *one.shape), dtype=np.uint8)
        for name, one in plan.images.items()
    }
    vectors = {name: rng.normal(size=(rows, n)) for name, n in plan.vectors.items()}
    return found | {name: x.astype(np.float32) for name, x in vectors.items()}


def torch_heat(description, arrays, observation, memory, how):
    """Heat as the papers have it, with torch's layers, cells and gradients, in float64."""
    plan = Plan.model_validate(description["plan"])
    w = {name: torch.tensor(array, dtype=torch.float64) for name, array in arrays.items()}
    act = torch.tanh if plan.activation == "tanh" else torch.relu
    parts, maps = [], {}
    for name, one in plan.images.items():
        x = torch.tensor(observation[name], dtype=torch.float64) * one.scale + one.offset
        x = x.permute(0, 3, 1, 2)
        for i, (_, kernel, stride) in enumerate(one.conv):
            layer = w[f"{name}.conv{i}.weight"], w[f"{name}.conv{i}.bias"]
            around = kernel // 2 if one.padded else 0
            maps[name] = act(functional.conv2d(x, *layer, stride, around)).requires_grad_()
            maps[name].retain_grad()
            x = functional.max_pool2d(maps[name], one.pool)
        x = x.permute(0, 2, 3, 1).flatten(1)
        for i in range(len(one.dense)):
            x = act(x @ w[f"{name}.dense{i}.weight"].T + w[f"{name}.dense{i}.bias"])
        parts.append(x)
    for name in plan.vectors:
        there = torch.tensor(observation[name], dtype=torch.float64)
        x = (there - w[f"normalizer.{name}.mean"]) / w[f"normalizer.{name}.std"]
        for i in range(len(plan.own.get(name, ()))):
            x = act(x @ w[f"{name}.dense{i}.weight"].T + w[f"{name}.dense{i}.bias"])
        parts.append(x)
    state = torch.tensor(memory, dtype=torch.float64)
    x = torch.cat([*parts, state[:, plan.state :]], dim=1)
    for i, width in enumerate(plan.hidden):
        x = x @ w[f"hidden{i}.weight"].T + w[f"hidden{i}.bias"]
        if plan.layer_norm:
            scale = w[f"hidden{i}.scale"], w[f"hidden{i}.shift"]
            x = functional.layer_norm(x, (width,), *scale)
        x = x if plan.linear else act(x)
    if plan.memory:
        kind = torch.nn.LSTMCell if plan.cell == "lstm" else torch.nn.GRUCell
        cell = kind(x.shape[1], plan.memory, dtype=torch.float64)
        names = ("input.weight", "hidden.weight", "input.bias", "hidden.bias")
        for own, name in zip(cell.parameters(), names, strict=True):
            own.data = w[f"memory.{name}"]
        before = state[:, : plan.memory]
        lstm = plan.cell == "lstm"
        x = cell(x, (before, state[:, plan.memory : plan.state]))[0] if lstm else cell(x, before)
    head = x @ w["head.weight"].T + w["head.bias"]
    if description["action"] == "continuous":
        value = head[:, 0].abs()
    elif "atoms" in description:
        low, high, count = description["atoms"]
        scale = torch.linspace(low, high, count, dtype=torch.float64)
        value = (head.reshape(len(head), -1, count).softmax(2) @ scale).amax(dim=1)
    else:
        value = head.amax(dim=1)
    value.sum().backward()
    by_place = {name: x.grad for name, x in maps.items()}
    if how == "gradcam":
        by_place = {name: grad.mean((2, 3), keepdim=True) for name, grad in by_place.items()}
    return {
        name: torch.relu((by_place[name] * x).sum(1)).detach().numpy() for name, x in maps.items()
    }


@pytest.mark.parametrize("how", ["gradcam", "hirescam"])
@pytest.mark.parametrize("case", CASES)
def test_heat_is_what_torch_s_gradients_make_it(case, how):
    description = CASES[case]
    arrays = weights(description)
    policy = NumpyPolicy(description, arrays)
    plan = policy.description.plan
    observation = seen(plan)
    memory = np.random.default_rng(9).uniform(-1, 1, (3, policy.memory)).astype(np.float32)

    found = attend(policy, observation, memory, how)

    wanted = torch_heat(description, arrays, observation, memory, how)
    assert list(found.heat) == list(wanted)
    for name, heat in wanted.items():
        assert heat.max() > 1e-3
        np.testing.assert_allclose(found.heat[name], heat, atol=1e-5 * heat.max())


def detector(conv=SHALLOW, shape=(120, 160, 1), bias=(0.0, 0.0)):
    """A driver made by hand: it counts bright spots for choice 0 and dark ones for choice 1.

    The first layer has a filter for each, brighter or darker than grey by a tenth, and all further
    layers take the mean of their own filter.
    """
    filters = tuple((2, kernel, stride) for _, kernel, stride in conv)
    camera = image(shape, filters)
    plan = described({"camera": camera}, 2, plan={"hidden": ()})
    arrays = {}
    for i, (_, kernel, _) in enumerate(filters):
        weight = np.zeros((2, 2 if i else 1, kernel, kernel))
        for k, sign in enumerate((1, -1)):
            weight[k, k if i else 0] = (1 if i else sign) / kernel**2
        arrays |= {f"camera.conv{i}.weight": weight, f"camera.conv{i}.bias": np.zeros(2)}
    arrays["camera.conv0.bias"] -= 0.1
    height, width, _ = ImagePlan(**camera).grid()
    arrays["head.weight"] = np.eye(2)[:, None, :].repeat(height * width, 1).reshape(2, -1)
    arrays["head.bias"] = np.array(bias)
    return NumpyPolicy(plan, arrays)


def spotted(*spots, shape=(120, 160)):
    """A grey picture with square spots: (row, column, half its side, brightness)."""
    picture = np.full((1, *shape, 1), 128, np.uint8)
    for row, column, half, bright in spots:
        picture[0, row - half : row + half, column - half : column + half] = bright
    return {"camera": picture}


@pytest.mark.parametrize(("choice", "row", "column"), [(0, 42, 130), (1, 90, 34)])
def test_heat_lies_on_what_the_choice_is_made_for(choice, row, column):
    """One bright spot and one dark; the driver says which of them it went by.

    What a place sees lies around pixels 17.5 + 8 k, so that both spots are in the middle of one.
    """
    policy = detector(bias=np.eye(2)[choice] * 100)

    found = attend(policy, spotted((42, 130, 8, 255), (90, 34, 8, 0)))

    assert found.chosen == choice
    heat = over_pixels(found.heat["camera"][0], policy.description.plan.images["camera"])
    assert heat.shape == (120, 160)
    top, left = np.unravel_index(heat.argmax(), heat.shape)
    assert (abs(top - row), abs(left - column)) <= (1, 1)
    assert heat[row - 8 : row + 8, column - 8 : column + 8].mean() > 3 * heat.mean()


def test_a_map_lies_on_the_middles_of_what_its_places_see():
    # by hand: 3 pixels wide, every second one, around a border of 1: middles 0, 2, 4, 6. A pool of
    # 2 sees middles 1 and 5, the second layer again 3 of these, with a border of 1: 1 and 5.
    plan = ImagePlan(**image((8, 8, 1), ((1, 3, 2), (1, 3, 1)), padded=True, pool=2))

    heat = over_pixels(np.array([[0.0, 4.0], [0.0, 4.0]]), plan)

    np.testing.assert_allclose(heat[3], [0, 0, 1, 2, 3, 4, 4, 4])
    np.testing.assert_allclose(heat, heat[[0] * 8])


def test_covering_up_what_is_hot_takes_the_most_away():
    """Occlusion: the logit without a square, over nine spots of nine brightnesses."""
    rng = np.random.default_rng(5)
    places = [(row, column) for row in (25, 60, 95) for column in (30, 80, 130)]
    bright = 140 + 12 * rng.permutation(9)
    policy = detector(bias=(100, 0))
    observation = spotted(*((r, c, 8, b) for (r, c), b in zip(places, bright, strict=True)))

    heat = attend(policy, observation).heat["camera"][0]

    heat = over_pixels(heat, policy.description.plan.images["camera"])
    hot, lost = [], []
    for row, column in places:
        part = slice(row - 10, row + 10), slice(column - 10, column + 10)
        covered = observation["camera"].copy()
        covered[0][part] = 128
        lost.append(policy.output(observation)[0, 0] - policy.output({"camera": covered})[0, 0])
        hot.append(heat[part].sum())
    assert np.ptp(lost) > 0.1
    assert spearmanr(hot, lost).statistic > 0.95


def test_hirescam_knows_on_which_side_of_the_picture_a_spot_speaks_for_it():
    """Choice 0 is for bright spots on the left alone; one on the right speaks against it."""
    policy = detector(bias=(100, 0))
    _, height, width = attend(policy, spotted()).heat["camera"].shape
    arrays = dict(policy.weights)
    head = arrays["head.weight"].reshape(2, height, width, 2).copy()
    head[0, :, width // 2 :] *= -1
    description = policy.description.model_dump(mode="json")
    sided = NumpyPolicy(description, arrays | {"head.weight": head.reshape(2, -1)})
    two = spotted((60, 30, 8, 255), (60, 130, 8, 255))

    heat = attend(sided, two, heat="hirescam").heat["camera"][0]

    assert heat[:, : width // 2].max() > 0.1
    assert heat[:, width // 2 :].max() == 0


def test_nothing_is_hot_where_nothing_speaks_for_the_choice():
    # all that it sees is dark, which speaks for choice 1; choice 0 wins by its bias alone
    found = attend(detector(bias=(100, 0)), spotted((60, 80, 20, 0)))

    assert found.chosen == 0
    assert found.heat["camera"].max() == 0


def test_steering_to_the_right_is_explained_too():
    description = CASES["steering"]
    arrays = weights(description)
    arrays["head.bias"] = np.array([-50.0, 0.0])
    policy = NumpyPolicy(description, arrays)

    found = attend(policy, seen(policy.description.plan))

    arrays["head.weight"] *= -1
    arrays["head.bias"] *= -1
    mirrored = attend(NumpyPolicy(description, arrays), seen(policy.description.plan))
    assert (found.chosen[:, 0] < 0).all()
    np.testing.assert_array_equal(found.heat["camera"], mirrored.heat["camera"])


def test_the_distribution_is_the_driver_s():
    choices = NumpyPolicy(CASES["choices"], weights(CASES["choices"]))
    observation = seen(choices.description.plan)
    steers = NumpyPolicy(CASES["steering"], weights(CASES["steering"]))

    found, spread = attend(choices, observation), attend(steers, observation)

    np.testing.assert_allclose(found.distribution, choices.probabilities(observation), rtol=1e-6)
    np.testing.assert_array_equal(found.chosen, choices.act(observation))
    np.testing.assert_array_equal(spread.distribution[:, :, 1], steers.act(observation))
    # one deviation is exp(log_std): exp(-1) and exp(0) of [-1, 1], cut off at the ends
    middle = spread.distribution[:, 0, 1]
    np.testing.assert_allclose(
        spread.distribution[:, 0, 2], np.minimum(middle + np.exp(-1), 1), rtol=1e-6
    )


def test_looking_leaves_the_memory_alone():
    policy = NumpyPolicy(CASES["a GRU"], weights(CASES["a GRU"]))
    observation = seen(policy.description.plan)
    policy.act(observation)
    before = policy.carried(3).copy()

    attend(policy, observation, policy.carried(3))

    np.testing.assert_array_equal(policy.carried(3), before)
    assert np.abs(before).max() > 0.01
