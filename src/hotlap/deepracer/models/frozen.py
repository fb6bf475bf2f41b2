"""Frozen TensorFlow graphs, written and read without TensorFlow: nodes, and their constants.

The messages are TensorBoard's copy of TensorFlow's; a file of them is what TensorFlow 1 and 2 load
as a `GraphDef`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotlap.errors import MissingExtraError, RunError
from hotlap.types import Array, Float32

__all__ = ["FrozenGraph", "read_constants"]

_PRODUCER = 27
"""Version of the format: TensorFlow 1.12, which trained the first of these cars."""
_UNARY = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
_BINARY = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "RealDiv"}
_FLOAT, _INT = 1, 3
"""TensorFlow's numbers of float32 and int32."""


def _messages() -> Any:
    try:
        from tensorboard.compat.proto import graph_pb2  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("a DeepRacer model", "tensorboard", "export") from None
    return graph_pb2


class FrozenGraph:
    """A graph that grows; speaks `hotlap.export.layers.Nodes`.

    Args:
        names: what layers are called here, such as {"hidden0": "net/middleware/Dense_0"}; the
            others keep their names.
        scope: what all other nodes stand under.
    """

    def __init__(self, names: Mapping[str, str], scope: str = "hotlap") -> None:
        self._graph = _messages().GraphDef()
        self._graph.versions.producer = _PRODUCER
        self._names = names
        self._scope = scope

    def serialize(self) -> bytes:
        """Return the contents of a `.pb` file."""
        return bytes(self._graph.SerializeToString(deterministic=True))

    def placeholder(self, name: str, shape: Sequence[int]) -> str:
        """Add an input, (N, *shape) float32."""
        node = self._add("Placeholder", [], name)
        node.attr["dtype"].type = _FLOAT
        for size in (-1, *shape):
            node.attr["shape"].shape.dim.add(size=size)
        return name

    def identity(self, x: str, name: str) -> str:
        """Give a node another name."""
        return self._of_floats("Identity", [x], name)

    def softmax(self, x: str, name: str) -> str:
        """Turn logits into probabilities."""
        return self._of_floats("Softmax", [x], name)

    def conv(
        self, x: str, layer: str, weight: Float32, bias: Float32, stride: int, border: int
    ) -> str:
        """Convolve; see `Nodes`."""
        place = self._names.get(layer, layer)
        if border:
            around = np.array([[0, 0], [border] * 2, [border] * 2, [0, 0]], np.int32)
            x = self._of_floats("Pad", [x, self._constant(around)])
            self._last.attr["Tpaddings"].type = _INT
        # TensorFlow wants (height, width, channels, filters)
        kernel = self._constant(weight.transpose(2, 3, 1, 0), f"{place}/kernel")
        x = self._of_floats("Conv2D", [x, kernel], f"{place}/Conv2D")
        self._window("strides", stride)
        self._window("dilations", 1)
        self._last.attr["padding"].s = b"VALID"
        self._last.attr["data_format"].s = b"NHWC"
        self._last.attr["use_cudnn_on_gpu"].b = True
        return self._biased(x, place, bias)

    def dense(self, x: str, layer: str, weight: Float32, bias: Float32) -> str:
        """Multiply and add; see `Nodes`."""
        place = self._names.get(layer, layer)
        x = self._of_floats(
            "MatMul", [x, self._constant(weight.T, f"{place}/kernel")], f"{place}/MatMul"
        )
        for side in ("transpose_a", "transpose_b"):
            self._last.attr[side].b = False
        return self._biased(x, place, bias)

    def _biased(self, x: str, place: str, bias: Float32) -> str:
        x = self._of_floats("BiasAdd", [x, self._constant(bias, f"{place}/bias")],
                            f"{place}/BiasAdd")  # fmt: skip
        self._last.attr["data_format"].s = b"NHWC"
        return x

    def pool(self, x: str, size: int) -> str:
        """Take the greatest of each square; see `Nodes`."""
        x = self._of_floats("MaxPool", [x])
        self._window("ksize", size)
        self._window("strides", size)
        self._last.attr["padding"].s = b"VALID"
        self._last.attr["data_format"].s = b"NHWC"
        return x

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Give each row another shape; see `Nodes`."""
        x = self._of_floats("Reshape", [x, self._constant(np.array([-1, *shape], np.int32))])
        self._last.attr["Tshape"].type = _INT
        return x

    def unary(self, kind: str, x: str) -> str:
        """Apply a function; see `Nodes`."""
        return self._of_floats(_UNARY[kind], [x])

    def binary(self, kind: str, x: str, y: str | Float32, name: str = "") -> str:
        """Combine; see `Nodes`."""
        other = y if isinstance(y, str) else self._constant(y, self._names.get(name, ""))
        return self._of_floats(_BINARY[kind], [x, other])

    def clip(self, x: str, low: float, high: float) -> str:
        """Bring numbers between two bounds; see `Nodes`."""
        x = self._of_floats("Maximum", [x, self._constant(np.array(low, np.float32))])
        return self._of_floats("Minimum", [x, self._constant(np.array(high, np.float32))])

    def standardize(self, x: str, epsilon: float) -> str:
        """Bring each row to mean 0 and variance 1; see `Nodes`."""
        x = self._of_floats("Sub", [x, self._along("Mean", x, keep=True)])
        variance = self._along("Mean", self._of_floats("Mul", [x, x]), keep=True)
        eased = self.binary("add", variance, np.array([epsilon], np.float32))
        return self._of_floats("Mul", [x, self._of_floats("Rsqrt", [eased])])

    def total(self, x: str) -> str:
        """Sum along the last axis; see `Nodes`."""
        return self._along("Sum", x, keep=False)

    def _along(self, kind: str, x: str, *, keep: bool) -> str:
        x = self._of_floats(kind, [x, self._constant(np.array([-1], np.int32))])
        self._last.attr["Tidx"].type = _INT
        self._last.attr["keep_dims"].b = keep
        return x

    def concat(self, parts: Sequence[str]) -> str:
        """Join along the last axis; see `Nodes`."""
        x = self._of_floats("ConcatV2", [*parts, self._constant(np.array(-1, np.int32))])
        self._last.attr["N"].i = len(parts)
        self._last.attr["Tidx"].type = _INT
        return x

    def columns(self, x: str, start: int, stop: int) -> str:
        """Cut out of the last axis of (N, size); see `Nodes`."""
        ends = ([0, start], [-1, stop - start])
        x = self._of_floats("Slice", [x, *(self._constant(np.array(e, np.int32)) for e in ends)])
        self._last.attr["Index"].type = _INT
        return x

    def _window(self, name: str, size: int) -> None:
        self._last.attr[name].list.i.extend([1, size, size, 1])

    def _of_floats(self, kind: str, inputs: Sequence[str], name: str = "") -> str:
        self._add(kind, inputs, name).attr["T"].type = _FLOAT
        return str(self._last.name)

    def _constant(self, value: Array, name: str = "") -> str:
        kind = _INT if value.dtype == np.int32 else _FLOAT
        node = self._add("Const", [], name)
        node.attr["dtype"].type = kind
        tensor = node.attr["value"].tensor
        tensor.dtype = kind
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        little = np.dtype("<i4" if kind == _INT else "<f4")
        tensor.tensor_content = np.ascontiguousarray(value, little).tobytes()
        return str(node.name)

    def _add(self, kind: str, inputs: Sequence[str], name: str = "") -> Any:
        node = self._last = self._graph.node.add()
        node.op, node.name = kind, name or f"{self._scope}/{kind}_{len(self._graph.node)}"
        node.input.extend(inputs)
        return node


def read_constants(content: bytes, said: str) -> dict[str, Array]:
    """Read the float32 constants of a frozen graph, by name.

    Args:
        content: of the `.pb` file.
        said: what the file is called, for messages.

    Raises:
        RunError: it is not a frozen graph, or it is cut off.
        MissingExtraError: tensorboard is not installed.
    """
    graph = _messages().GraphDef()
    try:
        graph.ParseFromString(content)
    except Exception:  # protobuf's errors are private to it
        graph.Clear()
    if not graph.node or not all(node.op for node in graph.node):
        raise RunError(
            f"{said}: not a frozen TensorFlow graph, or cut off; copy it again, or export the "
            "model again from where it was trained"
        )
    found = {}
    for node in graph.node:
        if node.op != "Const" or node.attr["dtype"].type != _FLOAT:
            continue
        tensor = node.attr["value"].tensor
        shape = [dim.size for dim in tensor.tensor_shape.dim]
        given: Array = np.frombuffer(tensor.tensor_content, "<f4")
        if not tensor.tensor_content:  # small ones are listed; the last number repeats
            given = np.array(tensor.float_val, np.float32)
        count = int(np.prod(shape))
        if min(shape, default=1) < 0 or not 0 < len(given) <= max(count, 1):
            if not count:
                continue
            raise RunError(
                f"{said}: {node.name} has {len(given)} numbers for {shape}; it is cut off"
            )
        whole = np.concatenate([given, np.full(count - len(given), given[-1])])
        found[node.name] = whole.astype(np.float32).reshape(shape)
    return found
