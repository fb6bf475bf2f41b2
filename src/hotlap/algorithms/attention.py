"""Attention: which places of a camera's picture made a driver do what it does, by NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from hotlap.algorithms.policy import LOG_STD, ImagePlan, NumpyPolicy, Plan, sigmoid
from hotlap.types import Array, Float32, Float64

__all__ = ["Attention", "Heat", "attend", "over_pixels"]

Heat: TypeAlias = Literal["gradcam", "hirescam"]
"""How heat is computed; see `attend`."""


@dataclass(frozen=True)
class Attention:
    """What N rows looked at, and what they were minded to do."""

    heat: Mapping[str, Float32]
    """By camera, (N, h, w): how much each place of its last convolution spoke for what is done, in
    units of the logit, worth or steering; never below 0. See `over_pixels`."""
    chosen: Array
    """(N,) the choice, or (N, A) numbers in [-1, 1]."""
    distribution: Float32
    """(N, A) the probability of each choice, or what it is worth; of continuous actions (N, A, 3)
    the middle of the distribution between one deviation less and one more, in [-1, 1]."""


def attend(
    policy: NumpyPolicy,
    observation: Mapping[str, Array],
    memory: Float32 | None = None,
    heat: Heat = "gradcam",
) -> Attention:
    """Find what a driver looks at, by its gradients at the last convolution of each camera.

    What is explained is the number that decided: the logit of the best choice (before the softmax),
    or what that choice is worth; of continuous actions the steering before it is squashed or cut
    off, towards the side it goes to, so that heat is what pulls the car there. What the memory
    holds is taken as given. Costs about one and a half times as much as driving.

    Args:
        policy: who drives; what it remembers is left alone.
        observation: by name, (N, ...).
        memory: what `policy.carried` says; as at the beginning of an episode if None.
        heat: `gradcam` weighs each feature by its mean gradient over the picture, and so asks which
            features speak for what is done, and then where they are. `hirescam` weighs it place by
            place, and so knows that the same line means another thing on the other side.

    Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
    gradient-based localization", arXiv:1610.02391, eq. 1 and 2; Draelos and Carin 2020, "Use
    HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv:2011.08891, with the rectifier here too. The maps are those after the activation and
    before a pooling.
    """
    rows = len(observation[policy.names[0]])
    carried = np.zeros((rows, policy.memory), np.float32) if memory is None else memory
    tape: dict[str, Float32] = {}
    output, _ = policy.run(observation, carried, tape)
    chosen = policy.answer(output)
    parts = _gradient(policy, tape, carried, _of_head(policy, tape["head"], output))
    found = {}
    for name, image in policy.description.plan.images.items():
        if image.conv:
            maps = tape[f"{name}.conv{len(image.conv) - 1}"]
            gradient = _unpooled(maps, parts[name].reshape(rows, *image.grid()), image.pool)
            if heat == "gradcam":
                gradient = gradient.mean(axis=(1, 2), keepdims=True)
            found[name] = np.maximum((maps * gradient).sum(axis=3), np.float32(0))
    return Attention(found, chosen, _distribution(policy, output))


def over_pixels(heat: Array, image: ImagePlan) -> Float32:
    """Spread heat (h, w) over the picture (H, W) that the convolutions saw.

    Each place of the last convolution lies on the middle of the pixels that it sees, and between
    them heat is linear. To stretch the map over the whole picture, as is often done, would move its
    edges outwards by half of what a place sees: 12 of 160 pixels with DeepRacer's network.
    """
    start, step = 0.0, 1.0
    for i, (_, kernel, stride) in enumerate(image.conv):
        if i and image.pool > 1:
            start += step * (image.pool - 1) / 2
            step *= image.pool
        start += step * ((kernel - 1) / 2 - image.border(kernel))
        step *= stride
    weights = [
        _between(pixels, start + step * np.arange(places))
        for pixels, places in zip(image.shape, heat.shape, strict=False)
    ]
    return np.asarray(weights[0] @ heat @ weights[1].T, np.float32)


def _between(pixels: int, middles: Float64) -> Float64:
    """Return (pixels, places): how much each place counts for a pixel; they add up to 1."""
    return np.stack(
        [np.interp(np.arange(pixels), middles, row) for row in np.eye(len(middles))], axis=1
    )


def _of_head(policy: NumpyPolicy, head: Float32, output: Float32) -> Float32:
    """Return the gradient of what is explained by what the last layer gave."""
    said = policy.description
    rows = np.arange(len(output))
    gradient = np.zeros_like(head)
    if said.action == "continuous":
        gradient[:, 0] = np.where(output[:, 0] < 0, -1, 1)
        return gradient
    best = output.argmax(axis=1)
    if said.atoms is None:
        gradient[rows, best] = 1
        return gradient
    # a worth is the mean of a scale z under a softmax p: its gradient is p (z - worth)
    low, high, count = said.atoms
    logits = head.reshape(len(head), -1, count)[rows, best]
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    scale = np.linspace(low, high, count, dtype=np.float32)
    columns = gradient.reshape(len(head), -1, count)  # a view
    columns[rows, best] = share * (scale - (share @ scale)[:, None])
    return gradient


def _gradient(
    policy: NumpyPolicy, tape: Mapping[str, Float32], carried: Float32, gradient: Float32
) -> dict[str, Float32]:
    """Take a gradient from the head back to what each camera's convolutions gave, flat."""
    plan, weights = policy.description.plan, policy.weights
    gradient = gradient @ weights["head.weight"]
    if plan.memory:
        gradient = _through_memory(plan, tape, carried[:, : plan.state], gradient)
        gradient = gradient @ weights["memory.input.weight"]
    for i in reversed(range(len(plan.hidden))):
        layer = f"hidden{i}"
        if not plan.linear:
            gradient = gradient * _slope(plan, tape[layer])
        if plan.layer_norm:
            gradient = _through_norm(tape[f"{layer}.before"], gradient * weights[f"{layer}.scale"])
        gradient = gradient @ weights[f"{layer}.weight"]
    found: dict[str, Array] = {}
    begin = 0
    for name, image in plan.images.items():  # in the order in which they were joined
        width = plan.widths()[name]
        part: Array = gradient[:, begin : begin + width]
        begin += width
        for i in reversed(range(len(image.dense))):
            layer = f"{name}.dense{i}"
            part = (part * _slope(plan, tape[layer])) @ weights[f"{layer}.weight"]
        found[name] = part
    return found


def _unpooled(maps: Float32, gradient: Float32, pool: int) -> Array:
    """Take a gradient from the greatest of each square to where that is."""
    if pool == 1:
        return gradient
    height, width = (pool * size for size in gradient.shape[1:3])
    squares = maps[:, :height, :width].reshape(
        len(maps), height // pool, pool, width // pool, pool, -1
    )
    top = squares == squares.max(axis=(2, 4), keepdims=True)
    # where several are equal, as zeros are, each has its share
    share = gradient[:, :, None, :, None] * (top / top.sum(axis=(2, 4), keepdims=True))
    found = np.zeros_like(maps)
    found[:, :height, :width] = share.reshape(len(maps), height, width, -1)
    return found


def _slope(plan: Plan, given: Float32) -> Float32:
    """Return the derivative of the activation, from what it gave."""
    if plan.activation == "tanh":
        return np.asarray(1 - given * given)
    return (given > 0).astype(np.float32)


def _through_norm(before: Float32, gradient: Float32) -> Float32:
    """Take a gradient back through a row's own mean and deviation."""
    off = before - before.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(off).mean(axis=1, keepdims=True) + np.float32(1e-5))
    even = off / deviation
    along = (gradient * even).mean(axis=1, keepdims=True)
    return np.asarray((gradient - gradient.mean(axis=1, keepdims=True) - even * along) / deviation)


def _through_memory(
    plan: Plan, tape: Mapping[str, Float32], state: Float32, gradient: Float32
) -> Float32:
    """Take a gradient by what the units give back to what they were given, gate by gate."""
    units, fresh, kept = plan.memory, tape["memory.input"], tape["memory.hidden"]
    gates = range(0, plan.gates * units, units)
    if plan.cell == "lstm":
        at = [(fresh + kept)[:, k : k + units] for k in gates]
        take, keep, show = (sigmoid(at[k]) for k in (0, 1, 3))
        candidate, before = np.tanh(at[2]), state[:, units:]
        cell = np.tanh(keep * before + take * candidate)
        by_cell = gradient * show * (1 - cell * cell)
        parts = [
            by_cell * candidate * take * (1 - take),
            by_cell * before * keep * (1 - keep),
            by_cell * take * (1 - candidate * candidate),
            gradient * cell * show * (1 - show),
        ]
        return np.concatenate(parts, axis=1)
    new, old = ([x[:, k : k + units] for k in gates] for x in (fresh, kept))
    reset, update = sigmoid(new[0] + old[0]), sigmoid(new[1] + old[1])
    candidate = np.tanh(new[2] + reset * old[2])
    inner = gradient * (1 - update) * (1 - candidate * candidate)
    by_update = gradient * (state - candidate) * update * (1 - update)
    return np.concatenate([inner * old[2] * reset * (1 - reset), by_update, inner], axis=1)


def _distribution(policy: NumpyPolicy, output: Float32) -> Float32:
    said = policy.description
    if said.action == "discrete":
        if said.worths:
            return output
        share = np.exp(output - output.max(axis=1, keepdims=True))
        return np.asarray(share / share.sum(axis=1, keepdims=True))
    if said.squash == "sample":
        mean, log_std = np.split(output, 2, axis=1)
        std = np.exp(np.clip(log_std, *LOG_STD))
        return np.tanh(np.stack([mean - std, mean, mean + std], axis=2))
    mean = np.tanh(output) if said.squash == "mean" else output
    std = np.exp(policy.weights["log_std"])
    return np.clip(np.stack([mean - std, mean, mean + std], axis=2), -1, 1)
