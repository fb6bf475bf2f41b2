"""A driver as an ONNX file, which ONNX Runtime and most inference engines run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotlap.errors import MissingExtraError
from hotlap.export.layers import Binary, Network, Unary, lay_out
from hotlap.types import Array, Float32

__all__ = ["onnx_model"]

_OPSET, _IR = 17, 8
"""Versions of the operators and of the file: old enough for runtimes of 2022 and later."""
_UNARY = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
_BINARY = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div"}


def onnx_model(
    network: Network,
    bytes_seen: Sequence[str],
    commands: Float32,
    about: Mapping[str, str],
) -> bytes:
    """Write a driver as an ONNX model.

    Inputs are the observations by name, (N, ...) as the environment gives them, and `memory`
    (N, carried) of a driver that has one, 0 where an episode begins. Outputs are `action`, what
    `policy.act` returns; `command`, (N, 2) steering [rad, positive left] and speed [m/s]; and
    `memory_next`, the memory for the next step.

    Args:
        network: the driver.
        bytes_seen: observations that are uint8; the others are float32.
        commands: what actions mean: (A, 2) of each choice; or (2, 2), the middle of the ranges of
            steering and speed and then half of each range.
        about: what else the file shall say of itself.

    Raises:
        MissingExtraError: the onnx package is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("hotlap export --to onnx", "onnx", "export") from None
    proto = onnx.TensorProto
    nodes, plan = _OnnxNodes(onnx), network.plan
    shapes = {name: list(image.shape) for name, image in plan.images.items()}
    shapes |= {name: [size] for name, size in plan.vectors.items()}
    seen, inputs = {}, []
    rows: list[Any] = ["N"]
    for name, shape in shapes.items():
        kind = proto.UINT8 if name in bytes_seen else proto.FLOAT
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, [*rows, *shape]))
        seen[name] = nodes.add("Cast", [name], to=proto.FLOAT) if name in bytes_seen else name
    memory = "memory" if plan.carried else None
    if memory:
        inputs.append(
            onnx.helper.make_tensor_value_info(memory, proto.FLOAT, [*rows, plan.carried])
        )
    answer, units = lay_out(network, nodes, seen, memory)
    if network.action == "discrete":
        nodes.add("ArgMax", [answer], out="action", axis=1, keepdims=0)
        nodes.add("Gather", [nodes.constant(commands), "action"], out="command", axis=0)
        kind, shape = proto.INT64, rows
    else:
        nodes.clip(answer, -1.0, 1.0, out="action")
        turned = nodes.binary("multiply", "action", commands[1])
        nodes.add("Add", [turned, nodes.constant(commands[0])], out="command")
        kind, shape = proto.FLOAT, [*rows, network.size]
    outputs = [
        onnx.helper.make_tensor_value_info("action", kind, shape),
        onnx.helper.make_tensor_value_info("command", proto.FLOAT, [*rows, 2]),
    ]
    if memory:
        _carry_on(network, nodes, units)
        info = onnx.helper.make_tensor_value_info("memory_next", proto.FLOAT, [*rows, plan.carried])
        outputs.append(info)
    graph = onnx.helper.make_graph(nodes.nodes, "driver", inputs, outputs, nodes.constants)
    model = onnx.helper.make_model(
        graph,
        producer_name="hotlap",
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _carry_on(network: Network, nodes: _OnnxNodes, units: str | None) -> None:
    """Join what the units hold and the action that was chosen, for the next step."""
    parts = [units] if units else []
    if network.plan.previous_action:
        done = "action"
        if network.action == "discrete":
            table = np.eye(network.size, dtype=np.float32)
            done = nodes.add("Gather", [nodes.constant(table), "action"], axis=0)
        parts.append(done)
    nodes.add("Concat", parts, out="memory_next", axis=1)


class _OnnxNodes:
    """Nodes in ONNX's words, which has channels before height and width."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], *, out: str = "", **attributes: Any) -> str:
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [out], out, **attributes))
        return out

    def constant(self, value: Array, name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def conv(
        self, x: str, layer: str, weight: Float32, bias: Float32, stride: int, border: int
    ) -> str:
        given = [self.add("Transpose", [x], perm=[0, 3, 1, 2]), *self._layer(layer, weight, bias)]
        x = self.add("Conv", given, strides=[stride] * 2, pads=[border] * 4)
        return self.add("Transpose", [x], perm=[0, 2, 3, 1])

    def dense(self, x: str, layer: str, weight: Float32, bias: Float32) -> str:
        return self.add("Gemm", [x, *self._layer(layer, weight, bias)], transB=1)

    def _layer(self, layer: str, weight: Float32, bias: Float32) -> tuple[str, str]:
        return self.constant(weight, f"{layer}.weight"), self.constant(bias, f"{layer}.bias")

    def pool(self, x: str, size: int) -> str:
        x = self.add("Transpose", [x], perm=[0, 3, 1, 2])
        x = self.add("MaxPool", [x], kernel_shape=[size] * 2, strides=[size] * 2)
        return self.add("Transpose", [x], perm=[0, 2, 3, 1])

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", [x, self.constant(np.array([-1, *shape], np.int64))])

    def unary(self, kind: Unary, x: str) -> str:
        return self.add(_UNARY[kind], [x])

    def binary(self, kind: Binary, x: str, y: str | Float32, name: str = "") -> str:
        return self.add(_BINARY[kind], [x, y if isinstance(y, str) else self.constant(y)])

    def clip(self, x: str, low: float, high: float, out: str = "") -> str:
        bounds = [self.constant(np.array(bound, np.float32)) for bound in (low, high)]
        return self.add("Clip", [x, *bounds], out=out)

    def standardize(self, x: str, epsilon: float) -> str:
        mean = self.add("ReduceMean", [x], axes=[-1])
        x = self.add("Sub", [x, mean])
        variance = self.add("ReduceMean", [self.add("Mul", [x, x])], axes=[-1])
        eased = self.binary("add", variance, np.array([epsilon], np.float32))
        return self.add("Div", [x, self.add("Sqrt", [eased])])

    def total(self, x: str) -> str:
        axis = self.constant(np.array([-1], np.int64))
        return self.add("ReduceSum", [x, axis], keepdims=0)

    def concat(self, parts: Sequence[str]) -> str:
        return self.add("Concat", parts, axis=-1)

    def columns(self, x: str, start: int, stop: int) -> str:
        ends = [self.constant(np.array([i], np.int64)) for i in (start, stop, -1)]
        return self.add("Slice", [x, *ends])
