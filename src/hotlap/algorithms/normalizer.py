"""Running mean and variance, to bring observations to unit scale and rewards to unit returns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit

from hotlap.types import Array, Float32, Float64

__all__ = ["ReturnScaler", "RunningNormalizer", "moments", "normalize"]

CLIP = np.float32(10.0)
"""No normalised number is larger: one broken reading must not drown the others."""


_compiled = njit(cache=True, nogil=True, error_model="numpy")


def normalize(value_BO: Array, mean: Float32, std: Float32) -> Float32:
    """Return (value - mean) / std as float32, inside [-10, 10]; what is no number stays none.

    Raises:
        ValueError: there is not one mean for each column.
    """
    if value_BO.shape[1:] != mean.shape:
        raise ValueError(f"values are {value_BO.shape} and means {mean.shape}")
    found = np.empty(value_BO.shape, np.float32)
    _normalize(np.ascontiguousarray(value_BO, np.float32), mean, np.float32(1.0) / std, found)
    return found


@_compiled
def _normalize(value_BO, mean, inverse, found_BO):  # type: ignore[no-untyped-def]
    for row in range(len(value_BO)):
        for k in range(len(mean)):
            scaled = (value_BO[row, k] - mean[k]) * inverse[k]
            scaled = CLIP if scaled > CLIP else scaled
            found_BO[row, k] = -CLIP if scaled < -CLIP else scaled


def moments(value_BO: Array) -> Float64:
    """Return (3, O): how many rows there are, their mean, and the sum of squares around it."""
    found = np.zeros((3, value_BO.shape[1]))
    if len(value_BO):
        found[0] = len(value_BO)
        _moments(np.ascontiguousarray(value_BO), found[1], found[2])
    return found


@_compiled
def _moments(value_BO, mean, squares):  # type: ignore[no-untyped-def]
    for row in range(len(value_BO)):
        for k in range(len(mean)):
            mean[k] += value_BO[row, k]
    mean /= len(value_BO)
    for row in range(len(value_BO)):
        for k in range(len(mean)):
            apart = value_BO[row, k] - mean[k]
            squares[k] += apart * apart


class RunningNormalizer:
    """Mean and variance of everything seen so far, a feature each; float64 inside.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances", eq. 2.1 (merging two sets).
    """

    def __init__(self, size: int) -> None:
        self._count = 0.0
        self._mean: Float64 = np.zeros(size)
        self._squares: Float64 = np.zeros(size)

    def update(self, value_BO: Array) -> None:
        """Take in B more rows."""
        self.merge(moments(value_BO))

    def merge(self, moments_3O: Float64) -> None:
        """Take in more rows by their `moments`."""
        count, mean, squares = float(moments_3O[0, 0]), moments_3O[1], moments_3O[2]
        if not count:
            return
        total = self._count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + squares + delta**2 * (self._count * count / total)
        self._count = total

    def since(self, before: Mapping[str, Array]) -> Float64:
        """Return the `moments` of the rows that were taken in since `save` returned `before`."""
        first, count = float(before["count"]), self._count - float(before["count"])
        found = np.zeros((3, len(self._mean)))
        if count:
            # Chan's merge, solved for the part that came later
            mean = (self._count * self._mean - first * before["mean"]) / count
            apart = (mean - before["mean"]) ** 2 * (first * count / self._count)
            squares = np.maximum(self._squares - before["squares"] - apart, 0.0)
            found[:] = np.stack([np.full_like(mean, count), mean, squares])
        return found

    @property
    def mean(self) -> Float32:
        """(O,) mean; zero before anything was seen."""
        return self._mean.astype(np.float32)

    @property
    def variance(self) -> Float64:
        """(O,) population variance; zero before anything was seen."""
        return self._squares / max(self._count, 1.0)

    @property
    def std(self) -> Float32:
        """(O,) standard deviation; one for a feature that never changed, which is left as it is."""
        std = np.sqrt(self.variance).astype(np.float32)
        return np.where(std > 1e-4, std, np.float32(1.0))

    def save(self) -> dict[str, Array]:
        """Return everything it knows as arrays."""
        return {"count": np.array(self._count), "mean": self._mean, "squares": self._squares}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._count = float(arrays["count"])
        self._mean = np.array(arrays["mean"], np.float64)
        self._squares = np.array(arrays["squares"], np.float64)


class ReturnScaler:
    """Divides rewards by the running standard deviation of the discounted return.

    Rewards are scaled, never shifted: a shift would change what an episode's end is worth.

    Source: Engstrom et al. 2020, arXiv:2005.12729, sec. 3 ("reward scaling"); here an episode's end
    also ends its return, and the rows' returns survive from one batch to the next.
    """

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._return: Float64 = np.zeros(0)
        self.statistics = RunningNormalizer(1)
        """Of the returns."""

    def follow(self, reward_TN: Float32, ended_TN: Array) -> Float64:
        """Return the `moments` of the returns that the rewards of N rows led to.

        They are not taken in: `merge` does that. A different N starts the rows' returns anew.
        """
        if len(self._return) != reward_TN.shape[1]:
            self._return = np.zeros(reward_TN.shape[1])
        return_TN = np.empty(reward_TN.shape)
        for t in range(len(reward_TN)):
            return_TN[t] = self._return = self._gamma * self._return + reward_TN[t]
            self._return = np.where(ended_TN[t], 0.0, self._return)
        return moments(return_TN.reshape(-1, 1))

    def merge(self, moments_31: Float64) -> None:
        """Take in returns by their moments."""
        self.statistics.merge(moments_31)

    def update(self, reward_TN: Float32, ended_TN: Array) -> None:
        """Take in the rewards of N rows."""
        self.merge(self.follow(reward_TN, ended_TN))

    @property
    def scale(self) -> float:
        """What rewards are divided by; one while all returns were equal."""
        return float(self.statistics.std[0])

    def save(self) -> dict[str, Array]:
        """Return everything it knows as arrays."""
        return {"return": self._return, **self.statistics.save()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._return = np.array(arrays["return"], np.float64)
        self.statistics.restore(arrays)
