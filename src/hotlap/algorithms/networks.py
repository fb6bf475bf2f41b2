"""Networks in torch: how they start, how they run, and how Adam moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hotlap.algorithms.plans import draw_weights
from hotlap.algorithms.policy import Plan
from hotlap.types import Float32

__all__ = [
    "Adam",
    "encode",
    "forward",
    "initial_weights",
    "recall",
    "remember",
    "remember_cells",
    "uses_bfloat16",
]

# Convolutions in float32 are what they are called on a GPU too: NVIDIA's own shortcut has 10 bits.
torch.backends.cudnn.allow_tf32 = False


def uses_bfloat16(wish: str, device: torch.device, *plans: Plan) -> bool:
    """Return whether networks compute in bfloat16, as settings' `precision` wishes.

    `auto`: where one of them sees a camera and the processor itself has it; emulation is slow.
    """
    if wish != "auto":
        return wish == "bfloat16"
    if not any(plan.images for plan in plans):
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def initial_weights(plan: Plan, gain: float, rng: np.random.Generator) -> dict[str, Float32]:
    """Draw the first weights; see `plans.draw_weights`.

    NumPy draws them, so that torch's global stream is left alone. Torch decomposes them: NumPy's
    QR spins on all cores, ten times slower when another process runs. It does so on one thread, for
    the last bits would tell how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return draw_weights(plan, gain, rng, _orthonormal)
    finally:
        torch.set_num_threads(threads)


def _orthonormal(columns: Float32) -> Float32:
    q, r = torch.linalg.qr(torch.from_numpy(columns))
    found: Tensor = q * r.diagonal().sign()  # else the draw is not uniform over rotations
    return np.asarray(found.numpy())


def forward(
    plan: Plan, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], *, bfloat16: bool
) -> Tensor:
    """Run a network without recurrent units on B rows.

    Args:
        plan: its layers.
        weights: named as `plan.shapes()` says.
        inputs: by name: images (B, H, W, C) as the camera gave them, vectors (B, size) float32,
            already normalised; `previous_action` (B, A) where the plan has it.
        bfloat16: whether all layers but the head compute in bfloat16.

    Returns:
        (B, outputs) float32.
    """
    return _layers(plan, weights, inputs, "head", bfloat16=bfloat16)


def recall(
    plan: Plan,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    hidden_BH: Tensor,
    fresh_TB: Tensor | None,
    *,
    bfloat16: bool,
) -> Tensor:
    """Run a network up to its recurrent units, over T steps of B rows.

    Args:
        plan: its layers.
        weights: named as `plan.shapes()` says.
        inputs: as for `forward`, of T B rows: the B rows of the first step, then of the second.
        hidden_BH: what the units carried into the first step, (B, state).
        fresh_TB: bool, the steps at which a row begins an episode: what was before is forgotten.
            None: there is none.
        bfloat16: whether the layers before the units compute in bfloat16.

    Returns:
        (T, B, state) what the units reach, which `head` reads; with an LSTM then their cells.
    """
    gates = _layers(plan, weights, inputs, "memory.input", bfloat16=bfloat16)
    steps = (
        -1 if len(hidden_BH) or fresh_TB is None else len(fresh_TB)
    )  # of no rows nobody can tell
    gates = gates.reshape(steps, *hidden_BH.shape[:-1], plan.gates * plan.memory)
    weight, bias = weights["memory.hidden.weight"], weights["memory.hidden.bias"]
    if plan.cell == "lstm":
        return remember_cells(gates, weight, bias, hidden_BH, fresh_TB)
    return remember(gates, weight, bias, hidden_BH, fresh_TB)


def remember(
    gates_TBG: Tensor, weight_GH: Tensor, bias_G: Tensor, hidden_BH: Tensor, fresh_TB: Tensor | None
) -> Tensor:
    """Advance gated recurrent units over T steps; return what they reach, (T, B, H).

    With i = gates and k = W h + b, each cut into three: r = sigmoid(i_r + k_r),
    z = sigmoid(i_z + k_z), n = tanh(i_n + r k_n), h' = n + z (h - n).

    Source: Cho et al. 2014, arXiv:1406.1078, eqs. 5 to 8, with the reset after the product and z
    in the place of 1 - z, as torch.nn.GRU has them.
    """
    keep = None
    if fresh_TB is not None and fresh_TB.any():
        keep = (~fresh_TB).to(gates_TBG.dtype)[..., None]
    found: tuple[Tensor, ...] = _Remember.apply(  # type: ignore[no-untyped-call]
        gates_TBG, weight_GH, bias_G, hidden_BH, keep
    )
    return found[0]


def remember_cells(
    gates_TBG: Tensor, weight_GH: Tensor, bias_G: Tensor, state_BS: Tensor, fresh_TB: Tensor | None
) -> Tensor:
    """Advance LSTM units over T steps; return what they reach and their cells, (T, B, 2 H).

    With i + W h + b cut into four, i, f, n and o: c' = sigmoid(f) c + sigmoid(i) tanh(n) and
    h' = sigmoid(o) tanh(c').

    Source: Hochreiter and Schmidhuber 1997 with the forget gate of Gers, Schmidhuber and Cummins
    2000; the order of the gates is that of torch.nn.LSTM.
    """
    found = []
    for t, gates in enumerate(gates_TBG.unbind()):
        if fresh_TB is not None:
            state_BS = state_BS * (~fresh_TB[t])[:, None]
        hidden, cell = state_BS.chunk(2, dim=-1)
        take, keep, new, show = torch.addmm(bias_G + gates, hidden, weight_GH.t()).chunk(4, dim=-1)
        cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
        state_BS = torch.cat([show.sigmoid() * cell.tanh(), cell], dim=-1)
        found.append(state_BS)
    return torch.stack(found)


def _layers(
    plan: Plan,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    last: str,
    *,
    bfloat16: bool,
) -> Tensor:
    """Run the layers up to a linear one, which computes in float32."""
    if plan.activation == "tanh" and not (plan.images or plan.layer_norm or bfloat16):
        x = encode(plan, weights, inputs, bfloat16=False)
        return _tanh_layers(x, weights, plan.hidden, last)
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
    return dense(last, x.to(torch.float32))


def encode(
    plan: Plan, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], *, bfloat16: bool
) -> Tensor:
    """Return what the hidden layers read: cameras after their own layers, vectors, the action."""
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
        for name in plan.vectors:
            x = inputs[name]
            for i in range(len(plan.own.get(name, ()))):
                x = activate(dense(f"{name}.dense{i}", x))
            parts.append(x)
    if plan.previous_action:
        parts.append(inputs["previous_action"])
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


def _tanh_layers(
    x: Tensor, weights: Mapping[str, Tensor], hidden: Sequence[int], last: str
) -> Tensor:
    names = [*(f"hidden{i}" for i in range(len(hidden))), last]
    layers = [weights[f"{name}.{part}"] for name in names for part in ("weight", "bias")]
    found: tuple[Tensor, ...] = _TanhLayers.apply(x, *layers)  # type: ignore[no-untyped-call]
    return found[0]


class _Remember(torch.autograd.Function):
    """The loop of `remember` as one step of the graph, with its gradient by hand.

    A graph of single operations has fifteen nodes a step; most of the time would go into them.
    """

    @staticmethod
    def forward(
        gates: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return what the units reach; then both gates, candidates, k_n, and what was kept."""
        steps, (rows, units) = len(gates), hidden.shape
        reached, candidate = gates.new_empty(2, steps, rows, units)
        both = gates.new_empty(steps, rows, 2 * units)
        inner = torch.empty_like(gates)
        kept, turned, first = inner.unbind(), weight.t(), hidden
        # views cost as much as sums of so few numbers: they are made for all steps at once
        loop = zip(
            _parts(gates, units), _parts(inner, units), _parts(both, units), kept, both.unbind(),
            candidate.unbind(), reached.unbind(), keep.unbind() if keep is not None else kept,
            strict=True,
        )  # fmt: skip
        for (i_rz, i_n), (k_rz, k_n), (r, z), k, rz, n, after, on in loop:
            if keep is not None:
                hidden = hidden * on
            torch.addmm(bias, hidden, turned, out=k)
            torch.add(i_rz, k_rz, out=rz).sigmoid_()
            torch.addcmul(i_n, r, k_n, out=n).tanh_()
            hidden = torch.lerp(n, hidden, z, out=after)
        before = torch.cat([first[None], reached[:-1]])
        if keep is not None:
            before *= keep
        return reached, both, candidate, inner[..., 2 * units :], before

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, _, _, keep = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, *output[1:], *([keep] if keep is not None else []))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        weight, both, candidate, product, before, *rest = ctx.saved_tensors
        units = candidate.shape[2]
        reset, update = both[..., :units], both[..., units:]
        # what a slope of the state is to that of each gate before its squash
        to_update = (before - candidate) * update * (1.0 - update)
        to_new = (1.0 - update) * (1.0 - candidate.square())
        to_reset = product * reset * (1.0 - reset)  # of the candidate's
        slope = both.new_empty(*both.shape[:2], 3 * units)
        inner = torch.empty_like(slope)  # of W h + b: as the gates', but n's goes through r
        back = torch.zeros_like(candidate[0])
        keeps = rest[0].unbind() if rest else update.unbind()
        loop = zip(
            gradient.unbind(), to_update.unbind(), to_new.unbind(), to_reset.unbind(),
            reset.unbind(), update.unbind(), slope[..., 2 * units :].unbind(), inner.unbind(),
            inner[..., :units].unbind(), inner[..., units : 2 * units].unbind(),
            inner[..., 2 * units :].unbind(), keeps, strict=True,
        )  # fmt: skip
        for g, u_z, u_n, u_r, r, z, new, k, k_r, k_z, k_n, on in reversed(list(loop)):
            back = back + g
            torch.mul(back, u_z, out=k_z)
            torch.mul(back, u_n, out=new)
            torch.mul(new, u_r, out=k_r)
            torch.mul(new, r, out=k_n)
            back = torch.addmm(back * z, k, weight)
            if rest:
                back *= on
        slope[..., : 2 * units] = inner[..., : 2 * units]
        flat = inner.flatten(0, 1)
        return slope, flat.t() @ before.flatten(0, 1), flat.sum(dim=0), back, None


def _parts(gates_TBG: Tensor, units: int) -> list[tuple[Tensor, Tensor]]:
    """Return the gates of each step, cut before the last of them."""
    last = gates_TBG.shape[2] - units
    return list(zip(gates_TBG[..., :last].unbind(), gates_TBG[..., last:].unbind(), strict=True))


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
        # The operator that torch.optim.Adam(fused=True) calls: one pass over memory, not seven. It
        # goes by memory alone, and convolutions over pictures give gradients in another order.
        inorder = [gradient.contiguous() for gradient in gradients]
        steps = torch.full((), float(self.steps), device=self._tensors[0].device)
        torch._fused_adam_(
            self._tensors, inorder, self.means, self.squares, [],
            [steps] * len(self._tensors),
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self._epsilon,
            amsgrad=False, maximize=False, grad_scale=divisor,
        )  # fmt: skip
