"""What Stable-Baselines3 and TorchRL are given of our environment, for the comparison."""

import gymnasium
import numpy as np
import pytest

from hotlap.algorithms.normalizer import ReturnScaler, RunningNormalizer
from hotlap.algorithms.returns import gae

pytest.importorskip("stable_baselines3")

import peers


@pytest.mark.sb3
@pytest.mark.filterwarnings("ignore")  # theirs
def test_it_gets_what_our_learners_get_and_what_episodes_reached():
    copies, twin = peers.Copies(peers.cars(3)), peers.cars(3)
    rng, ends = np.random.default_rng(0), 0
    np.testing.assert_array_equal(copies.reset(), twin.reset()[0])

    for _ in range(80):
        action = rng.uniform(-1, 1, (peers.CARS, 2)).astype(np.float32)
        seen, reward, done, infos = copies.step(action)
        t = twin.advance(action)

        np.testing.assert_array_equal(seen, t.observation["state"])
        np.testing.assert_array_equal(reward, t.reward)
        np.testing.assert_array_equal(np.flatnonzero(done), t.ended)
        for k, row in enumerate(t.ended):
            np.testing.assert_array_equal(infos[row]["terminal_observation"], t.reached["state"][k])
            assert infos[row]["TimeLimit.truncated"] == (not t.terminated[row])
        ends += len(t.ended)

    assert ends > 5


@pytest.mark.sb3
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("library", peers.LIBRARIES)
@pytest.mark.parametrize("algorithm", peers.OURS)
def test_all_learn_and_drive(library, algorithm):
    found = peers.measure(library, algorithm, seed=0, steps=1024)

    assert found["return_mean"] > 0  # some of the road is behind it
    assert found["train_seconds"] > 0


@pytest.fixture
def torchrl():
    pytest.importorskip("torchrl")
    import peer_torchrl

    return peer_torchrl


def short(seed):
    """Sixteen cars whose episodes end by themselves, or after a second by the clock."""
    made = gymnasium.make_vec(
        "hotlap/TimeTrial-v0",
        peers.CARS,
        vectorization_mode="vector_entry_point",
        track="reinvent_like",
        seed=seed,
        **{"rules.time_limit": 1.0},
    )
    return made.unwrapped


def driven(torchrl, env, steps):
    """Return what TorchRL's collector makes of random actions, (rows, steps)."""
    collector = torchrl.Collector(
        env, None, frames_per_batch=steps * peers.CARS, total_frames=steps * peers.CARS
    )
    return next(iter(collector))


@pytest.mark.filterwarnings("ignore")  # theirs
def test_torchrl_gets_what_our_learners_get_and_what_episodes_reached(torchrl):
    scales = torchrl.Scales(27, 0.95)
    batch, twin = driven(torchrl, torchrl.Cars(short(3), scales, scaled=False), 64), short(3)
    found, ends = batch.numpy(), [0, 0]
    seen = twin.begin()["state"]

    for i in range(64):
        t = twin.advance(found["action"][:, i])
        reached = t.observation["state"].copy()
        reached[t.ended] = t.reached["state"]

        np.testing.assert_array_equal(found["observation"][:, i], seen)
        np.testing.assert_array_equal(found["next"]["observation"][:, i], reached)
        np.testing.assert_array_equal(found["next"]["reward"][:, i, 0], t.reward)
        np.testing.assert_array_equal(found["next"]["terminated"][:, i, 0], t.terminated)
        np.testing.assert_array_equal(found["next"]["truncated"][:, i, 0], t.truncated)
        np.testing.assert_array_equal(found["next"]["done"][:, i, 0], t.terminated | t.truncated)
        ends[0] += t.terminated.sum()
        ends[1] += t.truncated.sum()
        seen = t.observation["state"]

    assert min(ends) > 5


@pytest.mark.filterwarnings("ignore")  # theirs
def test_torchrl_sees_scaled_numbers_and_its_replay_keeps_them_as_they_are(torchrl):
    plain, now = (torchrl.Scales(27, 0.95) for _ in range(2))
    torchrl.torch.manual_seed(0)
    raw = driven(torchrl, torchrl.Cars(short(3), plain, scaled=False), 64)
    torchrl.torch.manual_seed(0)
    scaled = driven(torchrl, torchrl.Cars(short(3), now, scaled=True), 64)
    seen, returns = RunningNormalizer(27), ReturnScaler(0.95)
    seen.update(raw["observation"][:, 0].numpy())

    for i in range(63):
        seen.update(raw["observation"][:, i + 1].numpy())
        reward, ended = (raw["next", name][:, i, 0].numpy() for name in ("reward", "done"))
        returns.update(reward[None], ended[None])
        reached = (raw["next", "observation"][:, i].numpy() - seen.mean) / seen.std

        np.testing.assert_allclose(
            scaled["next", "observation"][:, i], reached.clip(-10, 10), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(
            scaled["next", "reward"][:, i, 0], reward / returns.scale, rtol=1e-5
        )
    rows = torchrl.TensorDictReplayBuffer(storage=torchrl.LazyTensorStorage(2000), batch_size=256)
    rows.append_transform(plain.remembered)
    rows.extend(raw.reshape(-1))
    drawn, kept = rows.sample(), rows.storage[:]

    np.testing.assert_array_equal(kept["observation"], raw.reshape(-1)["observation"])
    expected = plain.observation(kept["next", "observation"][drawn["index"]])
    np.testing.assert_array_equal(drawn["next", "observation"], expected)


@pytest.mark.filterwarnings("ignore")  # theirs
def test_torchrl_s_advantages_of_our_episodes_are_ours(torchrl):
    batch = driven(torchrl, torchrl.Cars(short(3), torchrl.Scales(27, 0.95), scaled=True), 64)
    critic = torchrl.ValueOperator(torchrl.MLP(27, 1, num_cells=[8]), in_keys=["observation"])

    torchrl.GAE(gamma=0.95, lmbda=0.9, value_network=critic)(batch)

    reward, value, ended, cut = (
        batch["next", name][..., 0].numpy().T
        for name in ("reward", "state_value", "terminated", "truncated")
    )
    ours = gae(
        reward, batch["state_value"][..., 0].numpy().T, value, ended, cut, gamma=0.95, lam=0.9
    )
    np.testing.assert_allclose(batch["advantage"][..., 0].T, ours, rtol=1e-4, atol=1e-4)
    assert ended.sum() > 5
    assert cut.sum() > 5
