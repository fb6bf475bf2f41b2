"""What Stable-Baselines3 is given of our environment, for the comparison."""

import numpy as np
import pytest

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
def test_both_learn_and_drive(library, algorithm):
    found = peers.measure(library, algorithm, seed=0, steps=1024)

    assert found["return_mean"] > 0  # some of the road is behind it
    assert found["train_seconds"] > 0
