"""Returns: how much better an action was than expected, from what followed."""

from __future__ import annotations

from typing import Any

from hotlap.types import Array

__all__ = ["gae", "n_step", "q_lambda"]


def gae(
    reward_TN: Array,
    value_TN: Array,
    next_value_TN: Array,
    terminated_TN: Array,
    truncated_TN: Array,
    *,
    gamma: float,
    lam: float,
) -> Array:
    """Estimate generalised advantages.

    A crash is worth nothing afterwards; a lap cut off by the clock is still worth its value.
    Confusing the two teaches the car that time limits are walls.

    Args:
        reward_TN: rewards.
        value_TN: V of the state that step t started from.
        next_value_TN: V of the state that step t *reached*, taken before any reset.
        terminated_TN: bool, the episode ended there.
        truncated_TN: bool, the episode was cut off there.
        gamma: discount of one step.
        lam: 0 trusts the values, 1 trusts the rewards.

    Returns:
        Advantages, (T, N). NumPy arrays and torch tensors both work, and are not written to.

    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    # delta_t, which the loop turns into the advantage from the last step backwards
    advantage_TN = reward_TN + gamma * next_value_TN * ~terminated_TN - value_TN
    carry_TN = gamma * lam * ~(terminated_TN | truncated_TN)
    for t in reversed(range(len(advantage_TN) - 1)):
        advantage_TN[t] += carry_TN[t] * advantage_TN[t + 1]
    return advantage_TN


def n_step(
    reward_TN: Any,
    next_value_TN: Any,
    terminated_TN: Any,
    ended_TN: Any,
    *,
    steps: int,
    gamma: float,
) -> Any:
    """Return what each step led to, (T, N): the rewards of some steps, then a value.

    So many steps, or fewer where the episode ends or the sequence does. NumPy arrays and torch
    tensors both work, and are not written to.

    Args:
        reward_TN: rewards.
        next_value_TN: value of the state that step t *reached*, taken before any reset.
        terminated_TN: bool, the episode ended there, and nothing follows.
        ended_TN: bool, the episode ended or was cut off there.
        steps: n.
        gamma: discount of one step.

    Source: Sutton and Barto 2018, eq. 7.1.
    """
    reached_TN = next_value_TN * ~terminated_TN
    return_TN = reward_TN + gamma * reached_TN
    for _ in range(1, steps):
        # of n steps: one reward, then what n - 1 steps from the next one on return
        on = ~ended_TN[:-1]
        following = reached_TN[:-1] * ended_TN[:-1] + return_TN[1:] * on
        return_TN[:-1] = reward_TN[:-1] + gamma * following
    return return_TN


def q_lambda(
    reward_TN: Array,
    next_value_TN: Array,
    terminated_TN: Array,
    truncated_TN: Array,
    *,
    gamma: float,
    lam: float,
) -> Array:
    """Return Peng's Q(lambda), (T, N): what each step led to, trusting rewards for a while.

    G_t = r_t + gamma ((1 - lam) V(s_{t+1}) + lam G_{t+1}), and V(s_{t+1}) alone at a cut and at the
    end of the batch; nothing at all after a crash.

    Args:
        reward_TN: rewards.
        next_value_TN: the best Q of the state that step t *reached*, taken before any reset.
        terminated_TN: bool, the episode ended there.
        truncated_TN: bool, the episode was cut off there.
        gamma: discount of one step.
        lam: 0 trusts the values, 1 trusts the rewards.

    Source: Peng and Williams 1996, "Incremental multi-step Q-learning"; Gallici et al. 2024,
    arXiv:2407.04811, algorithm 1.
    """
    next_TN = next_value_TN * ~terminated_TN
    return_TN = reward_TN + gamma * next_TN
    carry_TN = gamma * lam * ~(terminated_TN | truncated_TN)
    for t in reversed(range(len(return_TN) - 1)):
        return_TN[t] += carry_TN[t] * (return_TN[t + 1] - next_TN[t])
    return return_TN
