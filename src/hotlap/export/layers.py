"""A driver's network as a graph: its layers said once, in words that several file formats have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from hotlap.algorithms.normalizer import CLIP
from hotlap.algorithms.policy import NumpyPolicy, Plan, complete
from hotlap.types import Array, Float32

__all__ = ["Network", "Nodes", "lay_out"]

Unary = Literal["relu", "tanh", "sigmoid", "softmax"]
Binary = Literal["add", "subtract", "multiply", "divide"]
_EPSILON = 1e-5
"""Of layer normalisation."""


class Nodes(Protocol):
    """A graph that grows; a name stands for the float32 array that a node will compute.

    Images are (N, H, W, C), everything else (N, size) unless said otherwise.
    """

    def conv(
        self, x: str, layer: str, weight: Float32, bias: Float32, stride: int, border: int
    ) -> str:
        """Convolve: `weight` is (filters, channels, kernel, kernel), `border` zeros lie around."""

    def dense(self, x: str, layer: str, weight: Float32, bias: Float32) -> str:
        """Multiply by `weight` (out, in) and add `bias`."""

    def pool(self, x: str, size: int) -> str:
        """Take the greatest of each square; what is left over falls away."""

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Give each of N rows another shape, in (height, width, channel) order."""

    def unary(self, kind: Unary, x: str) -> str:
        """Apply a function; softmax goes along the last axis."""

    def binary(self, kind: Binary, x: str, y: str | Float32, name: str = "") -> str:
        """Combine with a node of the same shape, or with an array along the last axis.

        `name` is what an array is called here, where that matters.
        """

    def clip(self, x: str, low: float, high: float) -> str:
        """Bring numbers between two bounds."""

    def standardize(self, x: str, epsilon: float) -> str:
        """Bring each row to mean 0 and variance 1."""

    def total(self, x: str) -> str:
        """Sum along the last axis, which disappears."""

    def concat(self, parts: Sequence[str]) -> str:
        """Join along the last axis."""

    def columns(self, x: str, start: int, stop: int) -> str:
        """Cut out of the last axis."""


@dataclass(frozen=True)
class Network:
    """A saved policy, checked, as `policy_state()` described it."""

    plan: Plan
    action: Literal["discrete", "continuous"]
    squash: Literal["none", "mean", "sample"]
    atoms: tuple[float, float, int] | None
    size: int
    """How many choices, or numbers, it answers with."""
    arrays: Mapping[str, Array]

    @classmethod
    def read(cls, description: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        """Check a description and its arrays.

        Raises:
            RunError: the description is not one, or the arrays do not fit it.
        """
        size = NumpyPolicy(description, arrays).action.size
        whole = complete(description)
        return cls(
            Plan.model_validate(whole["plan"]),
            whole["action"],
            whole["squash"],
            None if whole["atoms"] is None else tuple(whole["atoms"]),
            size,
            {name: np.asarray(array, np.float32) for name, array in arrays.items()},
        )


def lay_out(
    network: Network,
    nodes: Nodes,
    inputs: Mapping[str, str],
    memory: str | None = None,
    order: Sequence[str] = (),
) -> tuple[str, str | None]:
    """Add all layers to a graph.

    Args:
        network: what to add.
        nodes: the graph.
        inputs: the node of each observation: images as the camera gave them, vectors (N, size).
        memory: the node of what is carried, (N, units and previous action); None without a memory.
        order: in which the observations are joined, by name; as the driver has them if empty.

    Returns:
        The node of the answer: (N, A) logits or worths of the choices, or numbers that are an
        action when clipped to [-1, 1]; and that of what the units carry on, (N, state).
    """
    plan, arrays = network.plan, network.arrays
    first = "hidden0" if plan.hidden else "memory.input" if plan.memory else "head"

    def layer(name: str) -> tuple[Float32, Float32]:
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        return (weight[:, plan.columns(order)] if order and name == first else weight), bias

    parts = {}
    for name, image in plan.images.items():
        x = nodes.binary("multiply", inputs[name], np.array([image.scale], np.float32))
        if image.offset:
            x = nodes.binary("add", x, np.array([image.offset], np.float32))
        for i, (_, kernel, stride) in enumerate(image.conv):
            key = f"{name}.conv{i}"
            x = nodes.conv(x, key, *layer(key), stride, image.border(kernel))
            x = nodes.unary(plan.activation, x)
            x = nodes.pool(x, image.pool) if image.pool > 1 else x
        x = nodes.reshape(x, [int(np.prod(image.grid()))])
        for i in range(len(image.dense)):
            x = nodes.unary(plan.activation, nodes.dense(x, f"{name}.dense{i}",
                                                         *layer(f"{name}.dense{i}")))  # fmt: skip
        parts[name] = x
    for name in plan.vectors:
        mean, std = (arrays[f"normalizer.{name}.{what}"] for what in ("mean", "std"))
        x = nodes.binary("subtract", inputs[name], mean, f"{name}.mean")
        x = nodes.binary("divide", x, std, f"{name}.std")
        x = nodes.clip(x, -float(CLIP), float(CLIP))
        for i in range(len(plan.own.get(name, ()))):
            key = f"{name}.dense{i}"
            x = nodes.unary(plan.activation, nodes.dense(x, key, *layer(key)))
        parts[name] = x
    joined = [parts[name] for name in order or plan.names]
    if plan.previous_action and memory is not None:
        joined.append(nodes.columns(memory, plan.state, plan.carried))
    x = nodes.concat(joined) if len(joined) > 1 else joined[0]
    for i in range(len(plan.hidden)):
        x = nodes.dense(x, f"hidden{i}", *layer(f"hidden{i}"))
        if plan.layer_norm:
            x = nodes.standardize(x, _EPSILON)
            x = nodes.binary("multiply", x, arrays[f"hidden{i}.scale"])
            x = nodes.binary("add", x, arrays[f"hidden{i}.shift"])
        x = x if plan.linear else nodes.unary(plan.activation, x)
    state = None
    if plan.memory and memory is not None and plan.cell == "lstm":
        x, cell = _remember_cells(plan.memory, nodes, x, memory, layer)
        state = nodes.concat([x, cell])
    elif plan.memory and memory is not None:
        x = state = _remember(plan.memory, nodes, x, memory, layer)
    weight, bias = layer("head")
    if network.squash == "sample":  # what follows the means are deviations
        weight, bias = weight[: network.size], bias[: network.size]
    return _answer(network, nodes, nodes.dense(x, "head", weight, bias)), state


def _remember_cells(units: int, nodes: Nodes, x: str, memory: str, layer: Any) -> tuple[str, str]:
    """Advance LSTM units by a step: what they reach, and cells; see `networks.remember_cells`."""
    fresh = nodes.dense(x, "memory.input", *layer("memory.input"))
    kept = nodes.dense(nodes.columns(memory, 0, units), "memory.hidden", *layer("memory.hidden"))
    gates = nodes.binary("add", fresh, kept)

    def gate(i: int, kind: Unary) -> str:
        return nodes.unary(kind, nodes.columns(gates, i * units, (i + 1) * units))

    before = nodes.columns(memory, units, 2 * units)
    held = nodes.binary("multiply", gate(1, "sigmoid"), before)
    taken = nodes.binary("multiply", gate(0, "sigmoid"), gate(2, "tanh"))
    cell = nodes.binary("add", held, taken)
    return nodes.binary("multiply", gate(3, "sigmoid"), nodes.unary("tanh", cell)), cell


def _remember(units: int, nodes: Nodes, x: str, memory: str, layer: Any) -> str:
    """Advance the gated recurrent units by a step; see `networks.remember`."""
    hidden = nodes.columns(memory, 0, units)
    fresh = nodes.dense(x, "memory.input", *layer("memory.input"))
    kept = nodes.dense(hidden, "memory.hidden", *layer("memory.hidden"))

    def third(of: str, i: int) -> str:
        return nodes.columns(of, i * units, (i + 1) * units)

    reset, update = (
        nodes.unary("sigmoid", nodes.binary("add", third(fresh, i), third(kept, i))) for i in (0, 1)
    )
    inner = nodes.binary("multiply", reset, third(kept, 2))
    candidate = nodes.unary("tanh", nodes.binary("add", third(fresh, 2), inner))
    # h' = n + z (h - n)
    step = nodes.binary("multiply", update, nodes.binary("subtract", hidden, candidate))
    return nodes.binary("add", candidate, step)


def _answer(network: Network, nodes: Nodes, output: str) -> str:
    if network.atoms is not None:
        low, high, count = network.atoms
        share = nodes.unary("softmax", nodes.reshape(output, [network.size, count]))
        scale = np.linspace(low, high, count, dtype=np.float32)
        return nodes.total(nodes.binary("multiply", share, scale))
    return output if network.squash == "none" else nodes.unary("tanh", output)
