import numpy as np
import pytest
import torch
from torch import nn

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.critics import Critics
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.networks import forward, initial_weights
from hotlap.algorithms.plans import joined, make_plan
from hotlap.algorithms.settings import DDPGSettings, NetworkSettings, SACSettings
from hotlap.errors import ConfigError

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


def test_deepracer_s_network_for_a_pair_of_cameras_and_a_lidar_has_its_sizes():
    # 120x160 -> 118x158 -> 58x78 -> 56x76 -> 27x37 -> 25x35, times 128 filters = 112,000;
    # 64 distances -> 256 -> 256; 112,256 numbers join
    observation = {
        "camera": ObservationSpec((120, 160, 2), "uint8"),
        "lidar": ObservationSpec((64,), "float32"),
    }
    words = {"cnn": "deepracer_stereo", "beside": (256, 256), "joint": (256, 128)}

    plan = make_plan(NetworkSettings(**words), observation, ("camera", "lidar"), 5)

    assert plan.images["camera"].grid() == (25, 35, 128)
    shapes = plan.shapes()
    assert shapes["lidar.dense0.weight"] == (256, 64)
    assert shapes["lidar.dense1.weight"] == (256, 256)
    assert shapes["hidden0.weight"] == (256, 112_256)
    assert shapes["hidden1.weight"] == (128, 256)
    assert shapes["head.weight"] == (5, 128)


class _Apart(nn.Module):
    """A camera of ours and numbers through layers of their own, then both together."""

    def __init__(self):
        super().__init__()
        self.camera = nn.Sequential(
            nn.Conv2d(3, 16, 6, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), _RowsFirst()
        )
        self.numbers = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU())
        # 32x48 -> 7x11 -> 3x5, times 32 = 480, and 7
        self.both = nn.Sequential(nn.Linear(487, 12), nn.ReLU(), nn.Linear(12, 2))

    def forward(self, pixels, numbers):
        x = self.camera(pixels.permute(0, 3, 1, 2) * (2 / 255) - 1)
        return self.both(torch.cat([x, self.numbers(numbers)], dim=1))


def test_numbers_pass_their_own_layers_and_so_do_their_gradients():
    plan, weights = network("camera", "lidar", beside=(9, 7), joint=(12,))
    pixels = torch.randint(0, 256, (6, 32, 48, 3), dtype=torch.uint8)
    numbers = torch.randn(6, 4)
    apart = _Apart()
    filled(apart.modules(), weights)

    output = forward(plan, weights, {"camera": pixels, "lidar": numbers}, bfloat16=False)

    assert_same_gradients(output, apart(pixels.float(), numbers), weights, apart)


def test_critics_share_the_layers_of_what_is_beside_a_camera():
    words = {"cnn": "small", "beside": (9, 7), "joint": (12,)}
    settings = SACSettings(network=NetworkSettings(**words), warmup=0, minibatch=8, update_ratio=1)
    names, action = ("camera", "lidar"), ActionSpec("continuous", 2)
    ours = make_learner(settings, OBSERVATION, action, names, names, seed=0, device="cpu")
    before = ours.save()[1]
    rng = np.random.default_rng(0)
    seen = {"lidar": rng.normal(size=(10, 2, 4)).astype(np.float32),
            "camera": rng.integers(0, 256, (10, 2, 32, 48, 3), dtype=np.uint8)}  # fmt: skip
    flat, no = np.ones((10, 2), np.float32), np.zeros((10, 2), bool)
    acts = rng.uniform(-1, 1, (10, 2, 2)).astype(np.float32)
    last, none = ({k: v[0] if n else v[0, :0] for k, v in seen.items()} for n in (1, 0))

    ours.update(Batch(seen, last, acts, flat, flat * acts[:, :, 0], no, no, none), progress=0.0)

    after = ours.save()[1]
    assert before["critic.lidar.dense0.weight"].shape == (9, 4)  # one for all critics
    assert before["critic.layer0.weight"].shape == (2, 480 + 7 + 2, 12)  # and the action
    for name in ("actor.lidar.dense1.weight", "critic.lidar.dense0.weight"):
        assert not np.array_equal(before[name], after[name])


def test_without_a_camera_there_is_nothing_beside_it():
    words = {"beside": (5,), "joint": (6,), "mlp": (7,)}

    plan = make_plan(NetworkSettings(**words), OBSERVATION, ("state",), 5)

    assert list(plan.shapes()) == ["hidden0.weight", "hidden0.bias", "head.weight", "head.bias"]
    assert plan.hidden == (7,)


def test_the_camera_memory_is_not_written_to():
    plan, weights = network("camera")
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    before = pixels.clone()

    forward(plan, weights, {"camera": pixels}, bfloat16=False)

    np.testing.assert_array_equal(pixels, before)


def test_the_cookbook_s_network_has_its_layers_and_numbers_of_weights():
    # Keras' summary in RunModel.ipynb: 3x3 kernels, `same`, each followed by a 2x2 maximum:
    # 59x255 -> 29x127 -> 14x63 -> 7x31, times 32 = 6944 numbers
    observation = {"camera": ObservationSpec((59, 255, 3), "uint8")}

    plan = make_plan(NetworkSettings(cnn="airsim"), observation, ("camera",), 5)

    assert plan.images["camera"].grid() == (7, 31, 32)
    sizes = {name: int(np.prod(shape)) for name, shape in plan.shapes().items()}
    layers = ["camera.conv0", "camera.conv1", "camera.conv2", "hidden0", "head"]
    assert [sizes[f"{layer}.weight"] + sizes[f"{layer}.bias"] for layer in layers] == [
        448,  # (3 3 3 + 1) 16
        4_640,  # (3 3 16 + 1) 32
        9_248,  # (3 3 32 + 1) 32
        888_960,  # (6944 + 1) 128
        645,  # (128 + 1) 5
    ]
    assert sum(sizes.values()) == 903_941


def test_the_cookbook_s_network_computes_what_torch_s_layers_do():
    # 20x30 -> 10x15 -> 5x7 -> 2x3, 32 filters: 192 numbers, and 5 of the state
    observation = OBSERVATION | {"camera": ObservationSpec((20, 30, 3), "uint8")}
    plan = make_plan(NetworkSettings(cnn="airsim"), observation, ("camera",), 5)
    rng = np.random.default_rng(0)
    weights = {k: torch.from_numpy(v) for k, v in initial_weights(plan, 1.0, rng).items()}
    weights = {k: (v + 0.05 * torch.randn_like(v)).requires_grad_() for k, v in weights.items()}
    pixels = torch.randint(0, 256, (6, 20, 30, 3), dtype=torch.uint8)
    blocks = [
        layer
        for inside, out in ((3, 16), (16, 32), (32, 32))
        for layer in (nn.Conv2d(inside, out, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2))
    ]
    dense = (_RowsFirst(), nn.Linear(192, 128), nn.Linear(128, 5))  # no activation between them
    reference = filled(nn.Sequential(*blocks, *dense), weights)

    output = forward(plan, weights, {"camera": pixels}, bfloat16=False)

    expected = reference(pixels.permute(0, 3, 1, 2).float() / 255)
    assert_same_gradients(output, expected, weights, reference)


def test_the_smallest_image_of_a_padded_network_is_told():
    # three times halved: 8 pixels
    observation = {"camera": ObservationSpec((7, 40, 3), "uint8")}

    with pytest.raises(ConfigError, match="'airsim' needs an image of at least 8x8 pixels"):
        make_plan(NetworkSettings(cnn="airsim"), observation, ("camera",), 5)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("DEEP_CONVOLUTIONAL_NETWORK_SHALLOW", "deepracer_shallow"),
        ("SHALLOW", "deepracer_shallow"),
        ("Deep_Convolutional_Network", "deepracer"),
        ("DEEP", "deepracer_deep"),
        ("small", "small"),
    ],
)
def test_a_network_is_known_by_deepracer_s_words_too(word, name):
    assert NetworkSettings(cnn=word).cnn == name


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="cnn"):
        NetworkSettings(cnn="medium")


def test_robotini_s_actor_has_its_layers_but_for_its_lstm():
    # eight colours of three numbers; 669,954 weights of which the LSTM has 4 (256 + 256 + 1) 256
    observation = {"color_bands": ObservationSpec((8, 3), "float32")}

    plan = make_plan(NetworkSettings(numbers="robotini"), observation, ("color_bands",), 2)

    sizes = {name: int(np.prod(shape)) for name, shape in plan.shapes().items()}
    layers = ["hidden0", "hidden1", "head"]
    assert [sizes[f"{layer}.weight"] + sizes[f"{layer}.bias"] for layer in layers] == [
        12_800,  # (24 + 1) 512
        131_328,  # (512 + 1) 256
        514,  # (256 + 1) 2
    ]
    assert sum(sizes.values()) == 669_954 - 4 * 513 * 256
    assert plan.activation == "relu"


def test_robotini_s_critic_sees_state_and_action_apart():
    # 933,889 weights, of which its LSTM has 525,312
    observation = {"color_bands": ObservationSpec((8, 3), "float32")}
    settings = NetworkSettings(numbers="robotini")
    plan = make_plan(settings, observation, ("color_bands",), 1)
    critics = Critics(plan, 2, 1, joint=joined(settings), layer_norm=False, bfloat16=False)
    rng = np.random.default_rng(0)

    first = critics.initial(rng)

    sizes = {name: value.size for name, value in first.items()}
    layers = ["seen0", "seen1", "action0", "action1", "layer0", "layer1"]
    assert [sizes[f"{layer}.weight"] + sizes[f"{layer}.bias"] for layer in layers] == [
        12_800,  # (24 + 1) 512
        131_328,  # (512 + 1) 256
        1_536,  # (2 + 1) 512
        131_328,
        131_328,  # (256 + 256 + 1) 256
        257,  # (256 + 1) 1
    ]
    assert sum(sizes.values()) == 933_889 - 525_312

    seen, action = torch.randn(5, 24), torch.randn(5, 2)
    weights = {k: torch.from_numpy(v) for k, v in first.items()}
    parts = []
    for chain, x in (("seen", seen), ("action", action)):
        for i in range(2):
            x = nn.functional.relu(x @ weights[f"{chain}{i}.weight"][0])
        parts.append(x)
    x = nn.functional.relu(torch.cat(parts, dim=1) @ weights["layer0.weight"][0])
    expected = x @ weights["layer1.weight"][0]
    np.testing.assert_allclose(critics(weights, seen, action)[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddpg", "sac"])
def test_a_learner_learns_with_robotini_s_layers(kind):
    settings = {"ddpg": DDPGSettings, "sac": SACSettings}[kind](
        network=NetworkSettings(numbers="robotini"), warmup=0, minibatch=8, update_ratio=0.1
    )
    names, action = ("state",), ActionSpec("continuous", 2)
    ours = make_learner(settings, OBSERVATION, action, names, names, seed=0, device="cpu")
    before = ours.save()[1]
    seen = np.random.default_rng(0).normal(size=(10, 2, 5)).astype(np.float32)
    flat, no = np.ones((10, 2), np.float32), np.zeros((10, 2), bool)
    acts = np.random.default_rng(1).uniform(-1, 1, (10, 2, 2)).astype(np.float32)

    ours.update(
        Batch({"state": seen}, {"state": seen[0]}, acts, flat, flat * acts[:, :, 0], no, no,
              {"state": seen[0, :0]}),
        progress=0.0,
    )  # fmt: skip

    after = ours.save()[1]
    for name in ("critic.seen0.weight", "critic.action0.weight", "critic.layer0.weight"):
        assert not np.array_equal(before[name], after[name])


def test_first_weights_do_not_tell_how_many_threads_there_are():
    seen = {"state": ObservationSpec((300,), "float32", 1.0)}
    plan = make_plan(NetworkSettings(mlp=[512, 512]), seen, ("state",), 2)
    threads = torch.get_num_threads()

    def drawn(count):
        torch.set_num_threads(count)
        found = initial_weights(plan, 1.0, np.random.default_rng(0))
        assert torch.get_num_threads() == count
        return found

    try:
        one, three = drawn(1), drawn(3)
    finally:
        torch.set_num_threads(threads)

    for name, value in one.items():
        np.testing.assert_array_equal(value, three[name])
