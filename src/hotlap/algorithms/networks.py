"""Networks in torch: which layers, how they start, how they run, and how Adam moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.policy import ImagePlan, Plan
from hotlap.algorithms.settings import NetworkSettings
from hotlap.errors import ConfigError
from hotlap.types import Float32

__all__ = ["Adam", "encode", "forward", "initial_weights", "joined", "make_plan"]


@dataclass(frozen=True)
class _Cnn:
    conv: tuple[tuple[int, int, int], ...]
    own: tuple[int, ...]
    joint: tuple[int, ...]
    centred: bool = False
    padded: bool = False
    pool: int = 1
    linear: bool = False


_CNNS = {
    # Big strides: most of a small network's time goes into its first layer's output.
    "small": _Cnn(((16, 6, 4), (32, 3, 2)), (), (64,), centred=True),
    # AWS DeepRacer's tables: pixels in [0, 1], other inputs join before the last column.
    "deepracer_shallow": _Cnn(((32, 8, 4), (64, 4, 2), (64, 3, 1)), (), (512,)),
    "deepracer": _Cnn(((32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1)), (64,), (512,)),
    "deepracer_deep": _Cnn(
        ((32, 8, 4), (32, 4, 2), (64, 4, 2), (64, 3, 1)), (512, 512), (256, 128)
    ),
    # The Autonomous Driving Cookbook's: `rl_dense` has no activation. Ours sees pixels in [0, 1],
    # as its supervised twin did, where theirs saw 0 to 255; and it drops nothing out.
    "airsim": _Cnn(
        ((16, 3, 1), (32, 3, 1), (32, 3, 1)), (), (128,), padded=True, pool=2, linear=True
    ),
}


_NUMBERS = {"robotini": ((512, 256), (256,))}
"""Rectified layers by name, and those of a critic after state and action have joined."""


def joined(settings: NetworkSettings) -> tuple[int, ...]:
    """Return a critic's layers after state and action joined; none if they join at the start."""
    return _NUMBERS[settings.numbers][1] if settings.numbers in _NUMBERS else ()


def make_plan(
    settings: NetworkSettings,
    observation: Mapping[str, ObservationSpec],
    names: Sequence[str],
    outputs: int,
) -> Plan:
    """Lay out a network that reads the named observations.

    Raises:
        ConfigError: a name is not observed, or a camera is too small for the convolutions.
    """
    unknown = [name for name in names if name not in observation]
    if unknown or not names:
        raise ConfigError(
            f"a network was asked to read {', '.join(unknown) or 'nothing'}; "
            f"choose from {', '.join(observation)}"
        )
    cnn = _CNNS[settings.cnn]
    images: dict[str, ImagePlan] = {}
    vectors: dict[str, int] = {}
    for name in names:
        spec = observation[name]
        if not spec.is_image:
            vectors[name] = int(np.prod(spec.shape))
            continue
        height, width, channels = spec.shape
        scale, offset = (2.0 / spec.high, -1.0) if cnn.centred else (1.0 / spec.high, 0.0)
        images[name] = ImagePlan(
            shape=(height, width, channels),
            scale=scale,
            offset=offset,
            conv=cnn.conv,
            dense=cnn.own,
            padded=cnn.padded,
            pool=cnn.pool,
        )
        if min(images[name].grid()) < 1:
            least = _least(cnn)
            raise ConfigError(
                f"network.cnn {settings.cnn!r} needs an image of at least {least}x{least} pixels, "
                f"{name} has {width}x{height}; choose a larger image or another network"
            )
    named = settings.numbers in _NUMBERS
    mlp = _NUMBERS[settings.numbers][0] if named else settings.mlp
    return Plan(
        images=images,
        vectors=vectors,
        hidden=cnn.joint if images else mlp,
        activation="relu" if images or named else "tanh",
        outputs=outputs,
        linear=bool(images) and cnn.linear,
    )


def _least(cnn: _Cnn) -> int:
    size = 1
    for _, kernel, stride in reversed(cnn.conv):
        size = (size * cnn.pool - 1) * stride + kernel - (2 * (kernel // 2) if cnn.padded else 0)
    return size


def initial_weights(plan: Plan, gain: float, rng: np.random.Generator) -> dict[str, Float32]:
    """Draw orthogonal weights (gain sqrt 2 inside, `gain` at the head), zero biases, unit scales.

    NumPy draws them, so that torch's global stream is left alone. Torch decomposes them: NumPy's
    QR spins on all cores, ten times slower when another process runs.

    Source: Saxe, McClelland and Ganguli 2014, arXiv:1312.6120.
    """
    found = {}
    for name, shape in plan.shapes().items():
        if not name.endswith(".weight"):
            found[name] = np.full(shape, name.endswith(".scale"), np.float32)
            continue
        out, size = shape[0], int(np.prod(shape[1:]))
        draw = rng.standard_normal((max(out, size), min(out, size)), dtype=np.float32)
        q, r = torch.linalg.qr(torch.from_numpy(draw))
        q = q * r.diagonal().sign()  # without it the draw is not uniform over rotations
        matrix = (q.T if out < size else q) * (gain if name == "head.weight" else 2.0**0.5)
        found[name] = matrix.reshape(shape).contiguous().numpy()
    return found


def forward(
    plan: Plan, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], *, bfloat16: bool
) -> Tensor:
    """Run a network on B rows.

    Args:
        plan: its layers.
        weights: named as `plan.shapes()` says.
        inputs: by name: images (B, H, W, C) as the camera gave them, vectors (B, size) float32,
            already normalised.
        bfloat16: whether all layers but the head compute in bfloat16.

    Returns:
        (B, outputs) float32.
    """
    if plan.activation == "tanh" and not (plan.images or plan.layer_norm or bfloat16):
        return _tanh_layers(encode(plan, weights, inputs, bfloat16=False), weights, plan.hidden)
    activate = torch.tanh if plan.activation == "tanh" else functional.relu

    def dense(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = encode(plan, weights, inputs, bfloat16=bfloat16)
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        for i, width in enumerate(plan.hidden):
            x = dense(f"hidden{i}", x)
            if plan.layer_norm:
                scale, shift = weights[f"hidden{i}.scale"], weights[f"hidden{i}.shift"]
                x = functional.layer_norm(x, (width,), scale, shift)
            x = x if plan.linear else activate(x)
    return dense("head", x.to(torch.float32))


def encode(
    plan: Plan, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], *, bfloat16: bool
) -> Tensor:
    """Return what the hidden layers read: cameras after their own layers, then the vectors."""
    parts = []
    activate = torch.tanh if plan.activation == "tanh" else functional.relu

    def dense(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    device = next(iter(inputs.values())).device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16):
        for name, image in plan.images.items():
            # (B, H, W, C) memory seen as (B, C, H, W) is what torch calls channels_last
            x = inputs[name]
            x = x.to(torch.float32, copy=True).mul_(image.scale).add_(image.offset)
            x = x.permute(0, 3, 1, 2)
            for i, (_, kernel, stride) in enumerate(image.conv):
                weight, bias = weights[f"{name}.conv{i}.weight"], weights[f"{name}.conv{i}.bias"]
                x = activate(functional.conv2d(x, weight, bias, stride, image.border(kernel)))
                x = functional.max_pool2d(x, image.pool) if image.pool > 1 else x
            x = x.permute(0, 2, 3, 1).flatten(1)
            for i in range(len(image.dense)):
                x = activate(dense(f"{name}.dense{i}", x))
            parts.append(x)
    parts += [inputs[name] for name in plan.vectors]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class _TanhLayers(torch.autograd.Function):
    """Dense tanh layers and a linear head as one step of the graph.

    Twice as fast as a graph of single operations at 64 wide: nothing is written twice.
    """

    @staticmethod
    def forward(x: Tensor, *layers: Tensor) -> tuple[Tensor, ...]:
        """Return the head's output, then what each layer passed on."""
        weights, biases = layers[::2], layers[1::2]
        passed = []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.addmm(bias, x, weight.t()).tanh_()
            passed.append(x)
        return torch.addmm(biases[-1], x, weights[-1].t()), *passed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        x, *layers = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, *output[1:], *layers[::2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = len(saved) // 2
        passed, weights = saved[:count], saved[count:]
        found: list[Tensor | None] = []
        for i in reversed(range(count)):
            found += [gradient.sum(dim=0), gradient.t() @ passed[i]]
            if i:
                # d tanh = 1 - tanh^2
                gradient = torch.ops.aten.tanh_backward(gradient @ weights[i], passed[i])
        return None, *reversed(found)


def _tanh_layers(x: Tensor, weights: Mapping[str, Tensor], hidden: Sequence[int]) -> Tensor:
    names = [*(f"hidden{i}" for i in range(len(hidden))), "head"]
    layers = [weights[f"{name}.{part}"] for name in names for part in ("weight", "bias")]
    found: tuple[Tensor, ...] = _TanhLayers.apply(x, *layers)  # type: ignore[no-untyped-call]
    return found[0]


class Adam:
    """Adam over a list of tensors, in a handful of calls for all of them.

    Our own because the first `torch.optim.Adam` of a process costs seconds of imports.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self, tensors: Sequence[Tensor], *, epsilon: float = 1e-5) -> None:
        self._tensors = list(tensors)
        self._epsilon = epsilon
        self.steps = 0
        self.means = [torch.zeros_like(tensor) for tensor in tensors]
        self.squares = [torch.zeros_like(tensor) for tensor in tensors]

    @torch.no_grad()
    def step(
        self, gradients: Sequence[Tensor], learning_rate: float, divisor: Tensor | None = None
    ) -> None:
        """Move the tensors against their gradients, divided by `divisor`, which are used up."""
        self.steps += 1
        # the operator that torch.optim.Adam(fused=True) calls: one pass over memory, not seven
        torch._fused_adam_(
            self._tensors, list(gradients), self.means, self.squares, [],
            [torch.tensor(float(self.steps), device=w.device) for w in self._tensors],
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self._epsilon,
            amsgrad=False, maximize=False, grad_scale=divisor,
        )  # fmt: skip
