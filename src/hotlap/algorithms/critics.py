"""Critics: several estimates of what an action is worth, computed together as one stack."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.networks import encode, initial_weights
from hotlap.algorithms.policy import Plan
from hotlap.types import Float32

__all__ = ["Critics", "quantile_huber", "squared_error"]


class Critics:
    """E networks over what is seen and an action, of one shape, with K outputs each.

    Cameras pass convolutions that all share, as numbers do their own layers; from there on the
    weights of the E networks are stacked, so that a layer is one batched product. Layers are
    normalised if asked for, then rectified, unless the plan says that they are linear.

    Args:
        plan: what is seen, and the widths of the layers; its head has K outputs.
        actions: how many numbers an action has.
        count: E.
        layer_norm: whether layers are normalised.
        joint: widths of layers after state and action have passed the plan's layers apart; none:
            they join before the first.
        bfloat16: whether convolutions compute in bfloat16.
    """

    def __init__(
        self,
        plan: Plan,
        actions: int,
        count: int,
        *,
        layer_norm: bool,
        bfloat16: bool,
        joint: tuple[int, ...] = (),
    ) -> None:
        self.plan = plan
        self.count = count
        self._bfloat16 = bfloat16
        self._layer_norm = layer_norm
        shapes = plan.shapes()
        before = {*plan.images, *plan.own}
        self._shared = [k for k in shapes if k.partition(".")[0] in before]
        first = "hidden0" if plan.hidden else "head"
        seen = shapes[f"{first}.weight"][1]
        # chains of layers: what goes in, and the width of each layer
        self._chains = {"layer": [seen + actions, *plan.hidden, plan.outputs]}
        if joint:
            self._chains = {
                "seen": [seen, *plan.hidden],
                "action": [actions, *plan.hidden],
                "layer": [2 * plan.hidden[-1], *joint, plan.outputs],
            }

    def initial(self, rng: np.random.Generator) -> dict[str, Float32]:
        """Draw first weights: orthogonal, each critic its own, heads at a tenth."""
        drawn = initial_weights(self.plan, 1.0, rng)
        found = {name: drawn[name] for name in self._shared}
        for chain, widths in self._chains.items():
            last = len(widths) - 2 if chain == "layer" else -1
            for i, (size, out) in enumerate(pairwise(widths)):
                lone = Plan(
                    images={}, vectors={"x": size}, hidden=(), activation="relu", outputs=out
                )
                gain = 0.1 if i == last else 2.0**0.5
                each = [initial_weights(lone, gain, rng) for _ in range(self.count)]
                weight = np.stack([one["head.weight"].T for one in each])
                found[f"{chain}{i}.weight"] = np.ascontiguousarray(weight)
                found[f"{chain}{i}.bias"] = np.zeros((self.count, 1, out), np.float32)
                if self._layer_norm and i != last:
                    found[f"{chain}{i}.scale"] = np.ones((self.count, 1, out), np.float32)
                    found[f"{chain}{i}.shift"] = np.zeros((self.count, 1, out), np.float32)
        return found

    def encode(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what the critics see, (B, features) float32, before any action."""
        return encode(self.plan, weights, inputs, bfloat16=self._bfloat16).float()

    def __call__(
        self, weights: Mapping[str, Tensor], features: Tensor, action: Tensor, *, first: int = 0
    ) -> Tensor:
        """Return (E, B, K) estimates; of the `first` critics only, if above 0."""
        count = first or self.count
        if "seen" in self._chains:
            seen = self._pass(weights, "seen", features.expand(count, -1, -1))
            done = self._pass(weights, "action", action.expand(count, -1, -1))
            x = torch.cat([seen, done], dim=2)
        else:
            x = torch.cat([features, action], dim=1).expand(count, -1, -1)
        return self._pass(weights, "layer", x)

    def _pass(self, weights: Mapping[str, Tensor], chain: str, x: Tensor) -> Tensor:
        """Send (E, B, features) through a chain of layers."""
        count, layers = len(x), len(self._chains[chain]) - 1
        for i in range(layers):
            weight, bias = weights[f"{chain}{i}.weight"], weights[f"{chain}{i}.bias"]
            x = torch.baddbmm(bias[:count], x, weight[:count])
            if chain == "layer" and i == layers - 1:
                break
            if self._layer_norm:
                x = functional.layer_norm(x, x.shape[-1:])
                scale, shift = weights[f"{chain}{i}.scale"], weights[f"{chain}{i}.shift"]
                x = torch.addcmul(shift[:count], x, scale[:count])
            x = x if self.plan.linear else torch.relu(x)
        return x


def squared_error(value_EB1: Tensor, target_B1: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss, summed over critics and averaged over rows, and errors by row (B,).

    The error of a row is the mean over the critics of how far they are off.
    """
    difference = value_EB1[..., 0] - target_B1[:, 0]
    loss = (weight_B * difference.square()).mean(dim=1).sum()
    return loss, difference.detach().abs().mean(dim=0)


def quantile_huber(value_EBK: Tensor, target_BJ: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of E sets of K quantiles against J samples of the return, and errors (B,).

    The k-th number estimates the quantile at (k + 1/2) / K. Summed over k and over the critics,
    averaged over the samples and over rows.

    Source: Dabney et al. 2018, arXiv:1710.10044, eq. 10, kappa 1.
    """
    by_row, _ = _QuantileHuber.apply(value_EBK, target_BJ)  # type: ignore[no-untyped-call]
    loss = (weight_B * by_row).mean(dim=1).sum()
    error = target_BJ.mean(dim=1) - value_EBK.detach().mean(dim=2)
    return loss, error.abs().mean(dim=0)


class _QuantileHuber(torch.autograd.Function):
    """The loss by critic and row, (E, B), with its gradient by hand.

    A graph of single operations would keep and go through ten arrays of E B K J numbers.
    """

    @staticmethod
    def forward(value_EBK: Tensor, target_BJ: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, then its slope along each quantile."""
        count = value_EBK.shape[-1]
        middle_K1 = ((torch.arange(count, device=value_EBK.device) + 0.5) / count)[:, None]
        difference = target_BJ[:, None, :] - value_EBK[..., None]  # (E, B, K, J)
        near = difference.clamp(-1.0, 1.0)
        # huber(d) = near (d - near / 2); its slope is near; both by |share - [d < 0]|
        pull = torch.where(difference < 0, (1.0 - middle_K1) * near, middle_K1 * near)
        loss = torch.mul(pull, difference.sub_(near, alpha=0.5)).mean(dim=3).sum(dim=2)
        return loss, pull.mean(dim=3).neg_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient_EB: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient_EB[..., None] * slope, None
