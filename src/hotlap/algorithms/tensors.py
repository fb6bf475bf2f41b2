"""Tensors: the way from arrays into torch and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.peers import ALONE, Joining, Peers
from hotlap.algorithms.scales import Scales
from hotlap.algorithms.settings import PPOSettings, PQNSettings, ReplaySettings
from hotlap.types import Array, Float32

__all__ = ["JoiningTensors", "TensorScales", "numpy_of", "summed"]


class TensorScales(Scales):
    """Running scales of observations and rewards, and tensors on these scales.

    Args:
        settings: what is to be normalised.
        observation: what a network reads, by name.
        device: where tensors go.
    """

    def __init__(
        self,
        settings: PPOSettings | ReplaySettings | PQNSettings,
        observation: Mapping[str, ObservationSpec],
        device: torch.device,
    ) -> None:
        super().__init__(settings, observation)
        self._device = device

    def inputs(
        self, observation: Mapping[str, Array], names: Sequence[str] | Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Normalise vectors, leave images as they are, and move both to the device."""
        found = self.normalized(observation, names)
        return {name: self.tensor(values) for name, values in found.items()}

    def tensor(self, values: Array) -> Tensor:
        """Copy an array to the device.

        In torch's own memory its alignment, and so the last bit of a sum, is always the same.
        """
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, copy=True)


class JoiningTensors(Joining):
    """The side of a learner in torch that others learn along with, or are copies of."""

    _scales: TensorScales
    _weights: dict[str, Tensor]

    def weights(self) -> dict[str, Tensor]:
        """Return all of its weights, by name."""
        return dict(self._weights)

    def vector(self) -> Float32:
        """Return all of its weights as one vector."""
        return numpy_of(
            torch.cat([weight.detach().reshape(-1) for weight in self.weights().values()])
        )

    def assign(self, values: Float32) -> None:
        """Set all of its weights to a vector's values."""
        weights = list(self.weights().values())
        parts = torch.split(torch.from_numpy(np.array(values, np.float32)),
                            [weight.numel() for weight in weights])  # fmt: skip
        with torch.no_grad():
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part.reshape(weight.shape))


def summed(peers: Peers, tensors: Sequence[Tensor], weight: float = 1.0) -> list[Tensor]:
    """Return the sum over all peers of some tensors, each peer's times its weight."""
    if peers is ALONE:
        return list(tensors)
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors]) * weight
    total = torch.from_numpy(np.array(peers.sum(flat.cpu().numpy()))).to(flat.device)
    parts = torch.split(total, [tensor.numel() for tensor in tensors])
    return [part.reshape(one.shape).to(one.dtype) for part, one in zip(parts, tensors, strict=True)]


def numpy_of(tensor: Tensor) -> Float32:
    """Copy a tensor into an array."""
    return np.array(tensor.detach().cpu().numpy())
