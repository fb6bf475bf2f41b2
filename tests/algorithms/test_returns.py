import numpy as np
import pytest
import torch

from hotlap.algorithms.returns import gae


def column(*values):
    return np.array(values).reshape(-1, 1)


def test_gae_by_hand():
    # last step:  d1 = 3 + 0.5 * 4 - 2 = 3            A1 = 3
    # first step: d0 = 1 + 0.5 * 2 - 1 = 1            A0 = 1 + 0.5 * 0.8 * 3 = 2.2
    advantage = gae(
        reward_TN=column(1.0, 3.0),
        value_TN=column(1.0, 2.0),
        next_value_TN=column(2.0, 4.0),
        terminated_TN=column(False, False),
        truncated_TN=column(False, False),
        gamma=0.5,
        lam=0.8,
    )

    np.testing.assert_allclose(advantage, column(2.2, 3.0))


def test_a_crash_is_worth_nothing_after_and_a_timeout_is_worth_its_value():
    # crash:   A = 1 + 0 - 2 = -1;   timeout: A = 1 + 0.5 * 4 - 2 = 1; neither sees the next episode
    ends = {
        "terminated_TN": np.array([[True, False], [False, False]]),
        "truncated_TN": np.array([[False, True], [False, False]]),
    }

    advantage = gae(
        np.array([[1.0, 1.0], [7.0, 7.0]]),
        np.array([[2.0, 2.0], [5.0, 5.0]]),
        np.array([[4.0, 4.0], [6.0, 6.0]]),
        **ends,
        gamma=0.5,
        lam=0.8,
    )

    np.testing.assert_allclose(advantage[0], [-1.0, 1.0])


def slow_gae(reward, value, next_value, terminated, truncated, gamma, lam):
    """Eq. 16 written out: the sum of later errors, until the episode ends."""
    advantage = np.zeros_like(reward)
    for t, n in np.ndindex(reward.shape):
        weight = 1.0
        for k in range(t, len(reward)):
            after = 0.0 if terminated[k, n] else gamma * next_value[k, n]
            advantage[t, n] += weight * (reward[k, n] + after - value[k, n])
            if terminated[k, n] or truncated[k, n]:
                break
            weight *= gamma * lam
    return advantage


@pytest.fixture
def random_batch():
    rng = np.random.default_rng(3)
    reward, value, next_value = rng.standard_normal((3, 40, 7))
    terminated, truncated = rng.random((2, 40, 7)) < 0.1
    return reward, value, next_value, terminated, truncated


def test_gae_is_the_sum_written_out(random_batch):
    advantage = gae(*random_batch, gamma=0.9, lam=0.7)

    np.testing.assert_allclose(advantage, slow_gae(*random_batch, 0.9, 0.7), atol=1e-12)


def test_gae_takes_torch_tensors_too_and_writes_to_neither(random_batch):
    tensors = [torch.from_numpy(array.copy()) for array in random_batch]

    advantage = gae(*tensors, gamma=0.9, lam=0.7)

    np.testing.assert_allclose(advantage, gae(*random_batch, gamma=0.9, lam=0.7), atol=1e-6)
    for tensor, array in zip(tensors, random_batch, strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_gae_agrees_with_stable_baselines3():
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    from gymnasium import spaces

    rng = np.random.default_rng(5)
    steps, rows = 30, 6
    box = spaces.Box(-1.0, 1.0, (1,))
    theirs = buffers.RolloutBuffer(
        steps, box, box, device="cpu", gae_lambda=0.8, gamma=0.95, n_envs=rows
    )
    reward, value = rng.standard_normal((2, steps, rows)).astype(np.float32)
    last = rng.standard_normal(rows).astype(np.float32)
    terminated = rng.random((steps, rows)) < 0.15
    starts = np.concatenate([np.zeros((1, rows), bool), terminated])
    for t in range(steps):
        theirs.add(
            np.zeros((rows, 1)),
            np.zeros((rows, 1)),
            reward[t],
            starts[t],
            torch.from_numpy(value[t]),
            torch.zeros(rows),
        )
    theirs.compute_returns_and_advantage(torch.from_numpy(last), starts[-1])

    ours = gae(
        reward,
        value,
        np.concatenate([value[1:], last[None]]),
        terminated,
        np.zeros_like(terminated),
        gamma=0.95,
        lam=0.8,
    )

    np.testing.assert_allclose(ours, theirs.advantages, atol=1e-5)
