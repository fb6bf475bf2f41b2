"""Weights that are taken by name, and weights that do not move."""

import numpy as np
import pytest
from worlds import OBSERVATION, driven, look

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.settings import (
    DDPGSettings,
    DistillSettings,
    DQNSettings,
    NetworkSettings,
    PPOSettings,
    PQNSettings,
    QRSACSettings,
    RDPGSettings,
    SACSettings,
    TD3Settings,
)
from hotlap.algorithms.transfer import Transfer, frozen_weights
from hotlap.errors import ConfigError, RunError

SMALL = {"network": NetworkSettings(mlp=(16, 16)), "precision": "float32"}
QUICK = {"minibatch": 16, "warmup": 0, "update_ratio": 0.125, "capacity": 400}
PRACTICE = PPOSettings(**SMALL, minibatch=16, threads=1, freeze=())
LEARNERS = {
    "ppo": ("discrete", PPOSettings, SMALL | {"minibatch": 16, "epochs": 2, "threads": 1}),
    "ppo, numbers": ("continuous", PPOSettings, SMALL | {"minibatch": 16, "threads": 1}),
    "ddpg": ("continuous", DDPGSettings, SMALL | QUICK),
    "td3": ("continuous", TD3Settings, SMALL | QUICK),
    "sac": ("continuous", SACSettings, SMALL | QUICK),
    "sac, choices": ("discrete", SACSettings, SMALL | QUICK),
    "qr_sac": ("continuous", QRSACSettings, SMALL | QUICK),
    "dqn": ("discrete", DQNSettings, SMALL | QUICK | {"target_every": 2}),
    "dueling c51": ("discrete", DQNSettings, SMALL | QUICK | {"dueling": True, "head": "c51"}),
    "pqn": ("discrete", PQNSettings, SMALL | {"minibatch": 16}),
    "distill": (
        "continuous",
        DistillSettings,
        {"practice": PRACTICE, "minibatch": 16, "teacher": "a run"},
    ),
}
EVERY = pytest.mark.parametrize("name", LEARNERS)
SIZES = {"discrete": 3, "continuous": 2}


def learner(name, *, seed=7, actor=("camera", "state"), actions=None, **changes):
    kind, settings, given = LEARNERS[name]
    action = ActionSpec(kind, actions or SIZES[kind])
    made = settings(**(given | changes))
    made = make_learner(made, OBSERVATION, action, actor, actor, seed=seed, device="cpu")
    if name == "distill":  # a driver of PPO's teaches, so that the student learns at once
        ppo = make_learner(PRACTICE, OBSERVATION, action, actor, actor, seed=3, device="cpu")
        made.take_teacher(*ppo.policy_state())
    return made


def update(ours, seed, *, numbers=2, steps=8, rows=4):
    """Let a learner act on what is drawn at random, and learn from it."""
    rng = np.random.default_rng(seed)
    seen = look(rng, steps, rows)
    acts = []
    for t in range(steps):
        now = {name: values[t] for name, values in seen.items()}
        uniform = rng.uniform(0.01, 0.99, (rows, numbers)).astype(np.float32)
        acts.append(ours.act(now, uniform, np.zeros(rows, bool)))
    action, log_prob = map(np.stack, zip(*acts, strict=True))
    ended = rng.random((2, steps, rows)) < 0.1
    reward = rng.normal(size=(steps, rows)).astype(np.float32)
    batch = driven(rng, seen, action, log_prob, reward, ended)
    return ours.update(batch, progress=0.0)


def weights(ours):
    """Return what a learner saves of its weights, without what only its optimiser knows."""
    no = ("adam.", "target.", "last.", "normalizer.", "reward.", "practice.", "memory.", "walk",
          "teacher.")  # fmt: skip
    saved = {k.removeprefix("student."): v for k, v in ours.save()[1].items()}
    return {k: v for k, v in saved.items() if not k.startswith(no) and k != "log_temperature"}


@EVERY
def test_frozen_layers_keep_their_bytes_and_the_others_move(name):
    ours = learner(name, freeze=("camera.conv*",))
    before = weights(ours)

    for seed in range(3):
        update(ours, seed)

    after = weights(ours)
    frozen = [k for k in before if "camera.conv" in k]
    assert len(frozen) >= 4  # kernels and biases of two convolutions
    for key, value in before.items():
        moved = value.tobytes() != after[key].tobytes()
        assert moved == (key not in frozen), key


@EVERY
def test_what_is_frozen_continues_to_the_same_bytes(name):
    through, other = (learner(name, freeze="camera.conv0") for _ in range(2))
    update(other, 5)
    update(through, 0)
    meta, arrays = through.save()

    other.restore(meta, arrays)
    if through.replay is None:
        update(other, 1)
        update(through, 1)

    for key, value in through.save()[1].items():
        np.testing.assert_array_equal(value, other.save()[1][key], err_msg=key)


def test_a_frozen_camera_costs_no_gradient():
    ours = learner("dqn", freeze=("camera.*",))

    update(ours, 0)

    assert not any("camera" in key for key in ours.save()[1] if key.startswith("adam."))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("camera.conv*",), {"actor.camera.conv0.weight", "critic.camera.conv0.weight"}),
        (("actor.camera.conv0",), {"actor.camera.conv0.weight"}),
        (("head.bias",), {"actor.head.bias"}),
        (("hidden0", "head.bias"), {"actor.hidden0.weight", "actor.head.bias"}),
    ],
)
def test_patterns_name_layers_or_weights_of_one_network_or_of_both(patterns, expected):
    names = ["actor.camera.conv0.weight", "actor.hidden0.weight", "actor.head.weight"]
    names += ["actor.head.bias", "critic.camera.conv0.weight", "critic.head.weight"]

    assert frozen_weights(patterns, names) == expected


def test_a_pattern_that_names_nothing_tells_what_there_is():
    with pytest.raises(
        ConfigError,
        match=r"algorithm.freeze: 'camera.cnn\*' matches no .* camera.conv0, camera.conv1, hidden0",
    ):
        learner("ppo", freeze=("camera.cnn*",))


@pytest.mark.parametrize("name", ["ppo", "sac", "dqn", "pqn", "distill"])
def test_freezing_everything_is_refused(name):
    with pytest.raises(ConfigError, match=r"'\*' would freeze all of the \w+, .* leave out one of"):
        learner(name, freeze=("*",))


def test_freezing_a_whole_critic_is_refused():
    with pytest.raises(ConfigError, match="would freeze all of the critic"):
        learner("ppo", freeze=("critic.*",))


def test_spaces_between_names_are_no_part_of_them():
    settings = PPOSettings(freeze="hidden0, log_std,")

    assert settings.freeze == ("hidden0", "log_std")


def test_what_a_teacher_cannot_freeze_is_told_with_its_own_setting():
    practice = PPOSettings(freeze=("cnn",))

    with pytest.raises(ConfigError, match=r"^algorithm\.practice\.freeze: 'cnn' matches no weight"):
        numbers(DistillSettings(practice=practice))


# --- taken by name ---


@pytest.mark.parametrize("name", ["dqn", "pqn"])
def test_the_epsilon_that_is_logged_is_the_one_that_drives(name):
    old, new = learner(name), learner(name, seed=9, epsilon_start=0.9, epsilon_end=0.1)

    new.adopt(*old.save(), old.policy_state())

    assert update(new, 0)["epsilon"] == pytest.approx(0.1)


def test_the_epsilon_of_random_driving_is_one():
    ours = learner("dqn", warmup=1000, epsilon_start=0.5)

    assert update(ours, 0)["epsilon"] == 1.0


@EVERY
def test_another_head_leaves_the_rest_as_it_was(name):
    old = learner(name)
    update(old, 0)
    there = weights(old)
    new = learner(name, seed=9, actions=6)

    transfer = new.adopt(*old.save())

    here = weights(new)
    heads = [k for k in here if there[k].shape != here[k].shape]
    assert 1 <= len(heads) <= 8
    layers = {k.rpartition(".")[0] for k in heads}  # a kernel does not come without its bias
    for key, value in here.items():
        same = np.array_equal(value, there[key])
        assert same == (key.rpartition(".")[0] not in layers and key not in heads), key
    assert "camera.conv0" in {k.split("actor.")[-1].split("critic.")[-1] for k in transfer.loaded}
    assert all(" here " in why for why in transfer.skipped.values())
    update(new, 1, numbers=6)


def test_a_renamed_layer_begins_anew_and_is_told():
    old, new = learner("pqn"), learner("pqn", seed=9)
    meta, arrays = old.save()
    arrays = {k.replace("hidden0", "first"): v for k, v in arrays.items()}
    fresh = weights(new)

    transfer = new.adopt(meta, arrays)

    assert transfer.skipped == {"hidden0": "it has no such layer"}
    assert transfer.loaded == ("camera.conv0", "camera.conv1", "head")
    np.testing.assert_array_equal(weights(new)["hidden0.weight"], fresh["hidden0.weight"])
    np.testing.assert_array_equal(weights(new)["head.weight"], arrays["head.weight"])
    assert new.save()[0]["adam_steps"] == 0
    assert not new.save()[0]["adopted"]  # it cannot drive yet, and explores from the beginning


def test_targets_follow_what_was_taken():
    old, new = learner("dqn"), learner("dqn", seed=9, actions=6)
    for seed in range(3):
        update(old, seed)

    new.adopt(*old.save())

    saved = new.save()[1]
    there = old.save()[1]
    np.testing.assert_array_equal(saved["target.hidden0.weight"], there["target.hidden0.weight"])
    np.testing.assert_array_equal(saved["target.head.weight"], saved["head.weight"])


def test_nothing_that_fits_is_an_error():
    old = learner("ppo", actor=("state",))
    new = learner("ppo", actor=("camera",), actions=6)

    with pytest.raises(RunError, match=r"none of its layers fits here; .*: it has no such layer"):
        new.adopt(*old.save())


@pytest.mark.parametrize("name", ["dqn", "ppo", "pqn"])
def test_a_student_s_eyes_begin_another_learner_s(name):
    old = learner("distill")
    update(old, 0)
    driver = old.policy_state()
    new = learner(name, seed=9, freeze=("camera.conv*",))

    transfer = new.adopt(*old.save(), driver)
    for seed in range(2):
        update(new, seed)

    seen = {k: v for k, v in weights(new).items() if "camera.conv" in k}
    assert len(seen) >= 4
    for key, value in seen.items():  # also the critic's, of PPO
        bare = key.removeprefix("actor.").removeprefix("critic.")
        np.testing.assert_array_equal(value, driver[1][bare], err_msg=key)
    assert set(transfer.frozen) == {k.rpartition(".")[0] for k in seen}
    if name != "ppo":
        assert transfer.skipped["head"].startswith(("its outputs", "weight"))


def test_a_whole_driver_of_another_learner_drives_alike():
    old = learner("ppo, numbers")
    update(old, 0)
    new = learner("distill", seed=9)

    transfer = new.adopt(*old.save(), old.policy_state())

    assert transfer.skipped == {}
    seen = look(np.random.default_rng(5), 20)
    np.testing.assert_allclose(new.greedy(seen), old.greedy(seen), atol=1e-6)


def test_layers_that_compute_in_another_way_are_not_taken():
    old, new = learner("ppo", actor=("state",)), learner("pqn", actor=("state",))

    with pytest.raises(RunError, match="its layers compute in another way"):  # tanh, and relu
        new.adopt(*old.save(), old.policy_state())


def test_the_report_has_a_line_for_each_layer():
    transfer = Transfer(("conv0", "hidden0"), {"head": "weight 5x64, here 7x64"}, ("conv0",))

    assert transfer.summary == "2 layers taken, 1 begin anew, 1 frozen"
    assert transfer.table() == [
        "conv0    taken, frozen",
        "hidden0  taken",
        "head     anew: weight 5x64, here 7x64",
    ]


def test_a_student_s_frozen_eyes_are_those_that_drove():
    # what drives is the running average, which lags behind the weights that learn
    old = learner("distill")
    for seed in range(3):
        update(old, seed)
    driver = old.policy_state()[1]
    new = learner("distill", seed=9, freeze=("camera.conv*",))

    new.adopt(*old.save())
    update(new, 5)

    here = new.policy_state()[1]
    np.testing.assert_array_equal(here["camera.conv0.weight"], driver["camera.conv0.weight"])
    assert not np.array_equal(here["head.weight"], driver["head.weight"])


def test_layers_of_its_own_kind_that_compute_in_another_way_are_not_taken_either():
    old = learner("pqn", actor=("state",), layer_norm=False)
    new = learner("pqn", actor=("state",), seed=9, layer_norm=True, freeze=("head",))
    fresh = weights(new)

    transfer = new.adopt(*old.save(), old.policy_state())

    other = "its layers compute in another way"
    assert transfer.skipped == {"hidden0": other, "hidden1": other}
    assert transfer.loaded == ("head",)
    np.testing.assert_array_equal(weights(new)["hidden0.weight"], fresh["hidden0.weight"])


def numbers(settings, *, seed=7, actions=("continuous", 2), actor=("state",), critic=("state",)):
    return make_learner(
        settings, OBSERVATION, ActionSpec(*actions), actor, critic, seed=seed, device="cpu"
    )


def plain(*mlp, **changes):
    return NetworkSettings(mlp=mlp or (16, 16), **changes)


@pytest.mark.parametrize("driver", [True, False])
@pytest.mark.parametrize(
    ("there", "here", "why"),
    [
        (plain(memory=16), plain(), "it read what a memory held"),
        (plain(), plain(memory=16), "it read no memory"),
        (plain(16, 16), plain(16), "it came after 2 hidden layers, here 1"),
    ],
)
def test_a_head_that_read_another_layer_is_not_taken(there, here, why, driver):
    old, new = numbers(PPOSettings(network=there)), numbers(PPOSettings(network=here), seed=9)

    transfer = new.adopt(*old.save(), old.policy_state() if driver else None)

    for name in ("actor.head", "actor.log_std", "critic.head"):
        assert transfer.skipped[name] == why
    assert {"actor.hidden0", "critic.hidden0"} <= set(transfer.loaded)


def test_a_head_that_read_a_memory_does_not_drive_another_learner():
    old = numbers(RDPGSettings(network={"mlp": (16, 16), "memory": 16}, capacity=400))
    new = numbers(DDPGSettings(network=plain(), capacity=400), seed=9)

    transfer = new.adopt(*old.save(), old.policy_state())

    assert transfer.skipped["actor.head"] == "it read what a memory held"
    assert not new.save()[0]["adopted"]


@pytest.mark.parametrize("driver", [True, False])
def test_rectified_critics_do_not_begin_those_of_tangents(driver):
    old = numbers(PPOSettings(network=NetworkSettings(numbers="robotini")))
    new = numbers(PPOSettings(network=plain(512, 256)), seed=9)

    transfer = new.adopt(*old.save(), old.policy_state() if driver else None)

    layers = [f"{network}.hidden{i}" for network in ("actor", "critic") for i in (0, 1)]
    layers.append("actor.log_std")
    assert transfer.skipped == dict.fromkeys(layers, "its layers compute in another way")


def test_a_critic_is_compared_with_a_critic_not_with_the_driver():
    # the driver sees a camera (rectified) where it saw numbers (tangents); the critic is the same
    old = numbers(PPOSettings(network=plain()))
    new = numbers(PPOSettings(network=plain()), seed=9, actor=("camera",))

    transfer = new.adopt(*old.save(), old.policy_state())

    assert {"critic.hidden0", "critic.hidden1", "critic.head"} <= set(transfer.loaded)


def test_a_critic_saved_by_an_older_hotlap_is_taken_for_one_like_its_driver():
    old = numbers(PPOSettings(network=plain(memory=16)))
    new = numbers(PPOSettings(network=plain()), seed=9)
    meta, arrays = old.save()
    del meta["plans"]

    transfer = new.adopt(meta, arrays, old.policy_state())

    assert transfer.skipped["critic.head"] == "it read what a memory held"


def test_critics_that_shared_a_memory_do_not_begin_those_without():
    # 16 units there, 16 numbers of the lidar here: the shapes agree
    seen = {"lidar": ObservationSpec((16,), "float32")}
    old, new = (
        make_learner(
            RDPGSettings(network={"mlp": (16,), "memory": 16, "critic_memory": memory}),
            seen, ActionSpec("continuous", 2), ("lidar",), ("lidar",), seed=7, device="cpu",
        )
        for memory in (True, False)
    )  # fmt: skip

    transfer = new.adopt(*old.save(), old.policy_state())

    why = "it read what a memory held"
    assert transfer.skipped == {"critic.layer0": why, "critic.layer1": why}


def test_critics_whose_layers_were_normalised_do_not_begin_others():
    old = numbers(SACSettings(network=plain(), capacity=400, layer_norm=True))
    new = numbers(SACSettings(network=plain(), capacity=400, layer_norm=False), seed=9)

    transfer = new.adopt(*old.save(), old.policy_state())

    other = "its layers compute in another way"
    assert transfer.skipped == {"critic.layer0": other, "critic.layer1": other}


def test_dueling_heads_for_another_range_of_values_are_not_taken():
    old, new = learner("dueling c51"), learner("dueling c51", seed=9, value_high=77.0)

    transfer = new.adopt(*old.save(), old.policy_state())

    other = "its outputs mean something else"
    assert transfer.skipped == {"advantage": other, "value": other}


def test_a_driver_described_by_an_older_hotlap_is_taken():
    old, new = learner("ppo"), learner("sac, choices", seed=9)
    update(old, 0)
    description, arrays = old.policy_state()
    for word in ("linear", "layer_norm"):
        del description["plan"][word]

    transfer = new.adopt(*old.save(), (description, arrays))

    assert all(name.startswith("critic.layer") for name in transfer.skipped)
    assert new.save()[0]["adopted"]  # the whole driver came: logits are logits
    seen = look(np.random.default_rng(5), 20)
    np.testing.assert_array_equal(new.greedy(seen), old.greedy(seen))
