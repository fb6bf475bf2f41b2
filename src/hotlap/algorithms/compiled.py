"""Compiled networks: small ones, their outputs and their gradients.

A gradient step over a few hundred rows of 64 units is a fraction of a millisecond of arithmetic.
As a graph of tensors it takes ten times as long, for each of its sixty operations is called from
Python. Here a step is one call.

A network is convolutions over one camera, if it sees one, and then dense layers over what they give
and numbers: rectified behind a camera, else tanh. Its weights lie in a vector, in the order of
`Plan.shapes`: of each layer a matrix (out, in) and a bias (out,). Rows are cut into blocks that fit
the cache, a convolution is a product with patches of its image, and loops run over units innermost,
so that LLVM handles 8 or 16 of them in one instruction.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numba import njit

from hotlap.algorithms.policy import Plan
from hotlap.series import prefer_512_bits, tanh
from hotlap.types import Array, Float32

__all__ = [
    "LANES",
    "SUMS",
    "Net",
    "Weights",
    "adam_step",
    "fits",
    "imitation_gradients",
    "net_of",
    "orthonormal",
    "outputs",
    "ppo_gradients",
    "read",
]

LANES = 8
"""Parts into which the rows of a gradient step are cut, whatever the number of threads: sums must
not depend on it."""
SUMS = 5
"""What PPO's step sums up besides: loss of the policy, of the values, entropy, KL, clipped."""
_BLOCK = 32
"""Rows that pass the layers together."""
_LANE = 16
"""Widths are filled up with zeros to a multiple of so many units."""
_NARROW = 4
"""Outputs up to which a layer is computed by one product after the other."""
_MOST_WEIGHTS = 1 << 17
"""More of them leave the core's cache, and then torch is as fast."""

# NaN has to pass: no "nnan" and "ninf", which would let LLVM take what is broken for a number.
_MATH = {"reassoc", "contract", "arcp", "nsz"}
_compiled = njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
_inline: Any = njit(fastmath=_MATH, error_model="numpy", forceinline=True)
_f4, _i8, _u8 = np.float32, np.int64, np.uint64
_ZERO, _ONE = _f4(0), _f4(1)

Net = namedtuple("Net", "first grid kernels light widths")
"""A network as kernels read it.

first: where its weights begin in the vector of all.
grid: (convolutions + 1, 3) height, width and channels of the image and of what each one gives.
kernels: (convolutions, 2) their kernels and strides.
light: (2,) what pixels are multiplied by, and what is then added.
widths: (dense layers + 1,) numbers that they read, and that each one gives.
"""

# What a thread works with. Of dense layers, one after the other: matrices (in, out) and (out, in)
# whose rows are filled up, sums of gradients as these, sums of the biases'; what passes them for a
# block of rows, and the gradients of that. Of convolutions the same, then what each gives for each
# row of the block, the gradients of that for one row, and the patches that one reads.
_Desk = namedtuple(
    "_Desk",
    "turned kept sums bias passed slope turned_c kept_c sums_c bias_c maps drops patches",
)


class Weights:
    """Named weights in one vector, and what Adam remembers of them.

    Args:
        first: the weights by name, in the order of the vector.
        frozen: names of those that do not move.
    """

    def __init__(self, first: Mapping[str, Float32], frozen: Collection[str]) -> None:
        self.theta: Float32 = np.concatenate([array.ravel() for array in first.values()])
        self.mean, self.square = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.moves = np.ones(len(self.theta), bool)
        """(G,) which of them gradient steps move."""
        self.places: dict[str, slice] = {}
        """Where each of them lies."""
        self._shapes = {name: array.shape for name, array in first.items()}
        self._frozen, at = frozen, 0
        for name, array in first.items():
            self.places[name] = slice(at, at + array.size)
            self.moves[at : at + array.size] = name not in frozen
            at += array.size

    def named(self, vector: Float32) -> dict[str, Float32]:
        """Return copies of the parts of a vector like `theta`, by name."""
        return {
            name: vector[place].reshape(self._shapes[name]).copy()
            for name, place in self.places.items()
        }

    def flat(self, named: Mapping[str, Array]) -> Float32:
        """Return the vector of which `named` would return these parts."""
        return np.concatenate([named[name].ravel() for name in self.places]).astype(np.float32)

    def moments(self) -> dict[str, Float32]:
        """Return copies of what Adam remembers of weights that move: `adam.mean.NAME`, ..."""
        found: dict[str, Float32] = {}
        for kind, vector in (("mean", self.mean), ("square", self.square)):
            named = self.named(vector)
            found |= {f"adam.{kind}.{k}": v for k, v in named.items() if k not in self._frozen}
        return found

    def take(self, arrays: Mapping[str, Array]) -> None:
        """Become what `named(theta)` and `moments` returned."""
        self.theta[:] = self.flat(arrays)
        for name, place in self.places.items():
            if name not in self._frozen:
                self.mean[place] = arrays[f"adam.mean.{name}"].ravel()
                self.square[place] = arrays[f"adam.square.{name}"].ravel()


def fits(plan: Plan) -> bool:
    """Return whether kernels can run a network, and fast."""
    one = next(iter(plan.images.values()), None)
    plain = one is None or not (one.dense or one.padded or one.pool > 1)
    return (
        plain
        and len(plan.images) <= 1
        and plan.activation == ("relu" if plan.images else "tanh")
        and not (plan.own or plan.linear or plan.layer_norm or plan.memory or plan.previous_action)
        and sum(math.prod(shape) for shape in plan.shapes().values()) <= _MOST_WEIGHTS
    )


def net_of(plan: Plan, first: int) -> Net:
    """Return a network for the kernels; its weights begin at `first`."""
    grid, kernels, light = np.zeros((1, 3), np.int64), np.zeros((0, 2), np.int64), (1.0, 0.0)
    seen = sum(plan.vectors.values())
    for image in plan.images.values():
        parts = [
            image.model_copy(update={"conv": image.conv[:n]}) for n in range(len(image.conv) + 1)
        ]
        grid = np.array([part.grid() for part in parts])
        kernels = np.array([conv[1:] for conv in image.conv])
        light = (image.scale, image.offset)
        seen += math.prod(image.grid())
    return Net(
        first, grid, kernels, np.array(light, np.float32),
        np.array([seen, *plan.hidden, plan.outputs]),
    )  # fmt: skip


def read(plan: Plan, seen: Mapping[str, Array]) -> tuple[Array, Float32]:
    """Return what kernels read of normalised observations: pixels and numbers, a row a row."""
    rows = len(next(iter(seen.values())))
    pixels: Array = np.zeros((rows, 0, 0, 0), np.uint8)
    for name, image in plan.images.items():
        pixels = np.ascontiguousarray(seen[name].reshape(rows, *image.shape))
    numbers = [seen[name] for name in plan.vectors] or [np.zeros((rows, 0), np.float32)]
    whole = np.concatenate(numbers, axis=1) if numbers[1:] else numbers[0]
    return pixels, np.ascontiguousarray(whole)


def orthonormal(columns: Float32) -> Float32:
    """Make columns orthonormal from the first on, by Gram and Schmidt, twice.

    Once would leave them askew by rounding, and a third time changes nothing.

    Source: Giraud, Langou and Rozloznik 2005, "The loss of orthogonality in the Gram-Schmidt
    orthogonalization process".
    """
    found = columns.astype(np.float64)
    for k in range(found.shape[1]):
        column, before = found[:, k], found[:, :k]
        for _ in range(2):  # einsum: BLAS would wake threads that spin
            along = np.einsum("ij,i->j", before, column)
            column -= np.einsum("ij,j->i", before, along)
        column /= math.sqrt(float(np.einsum("i,i->", column, column)))
    return found.astype(np.float32)


@_compiled
def outputs(start, stop, out, theta, net, pixels, numbers):  # type: ignore[no-untyped-def]
    """Run a network on the rows start..stop.

    Args:
        start: the first row,
        stop: and where they end.
        out: (B, outputs) float32, written to.
        theta: (G,) the vector of weights.
        net: the network.
        pixels: (B, H, W, C) uint8, of no height where it sees no camera.
        numbers: (B, N) float32.
    """
    prefer_512_bits()
    desk, index = _desk(net, theta, False), np.arange(stop)
    size = net.widths[len(net.widths) - 1]
    for begin in range(start, stop, _BLOCK):
        rows = min(_BLOCK, stop - begin)
        found = _forward(net, desk, theta, pixels, numbers, index, begin, rows)
        for r in range(rows):
            for o in range(size):
                out[begin + r, o] = found[r, o]


@_compiled
def ppo_gradients(  # type: ignore[no-untyped-def]
    start, stop, found, sums, theta, actor, critic, seen, state, spot, action, choice, log_prob,
    value, target, advantage, index, centre, scale, clip, value_coef, entropy, huber, value_clip,
    epsilon, count,
):  # fmt: skip
    """Compute what the parts start..stop of a minibatch add to PPO's gradient.

    Args:
        start: the first part,
        stop: and where they end.
        found: (LANES, G) float32, the gradient of each part, written to.
        sums: (LANES, SUMS) float64, of each part, written to.
        theta: (G,) the vector of weights.
        actor: the network that answers.
        critic: the network that values.
        seen: pixels and numbers that the actor sees.
        state: pixels and numbers that the critic sees.
        spot: where the logarithms of the deviations are in the vector.
        action: (B, A) float32 continuous actions, or no rows.
        choice: (B,) int64 discrete ones, or none.
        log_prob: (B,) of them, when they were taken.
        value: (B,) what the critic said then.
        target: (B,) what it should have said.
        advantage: (B,) of the actions.
        index: rows of the minibatch.
        centre: mean of its advantages,
        scale: and their deviation.
        clip: half-width of the allowed ratio.
        value_coef: weight of the value loss.
        entropy: weight of the entropy bonus.
        huber: whether large errors of the values count linearly.
        value_clip: how far values may move.
        epsilon: share of discrete actions that were drawn from all alike.
        count: rows of the minibatch, those of all peers.
    """
    prefer_512_bits()
    size, many = actor.widths[len(actor.widths) - 1], len(index)
    drawn = len(choice) == 0
    answering, valuing = _desk(actor, theta, True), _desk(critic, theta, True)
    own, probability = np.zeros(size), np.zeros(size)
    for lane in range(start, stop):
        begin, end = lane * many // LANES, (lane + 1) * many // LANES
        _clear(answering)
        _clear(valuing)
        own[:], sums[lane] = 0.0, 0.0
        for block in range(begin, end, _BLOCK):
            rows = min(_BLOCK, end - block)
            answer = _forward(actor, answering, theta, seen[0], seen[1], index, block, rows)
            worth = _forward(critic, valuing, theta, state[0], state[1], index, block, rows)
            slope, pulls = _last(actor, answering), _last(critic, valuing)
            for r in range(rows):
                i = index[block + r]
                if drawn:
                    now, spread = _normal(theta, spot, answer[r], action[i])
                else:
                    now, spread = _mixture(answer[r], size, choice[i], epsilon, probability)
                change = now - log_prob[i]
                ratio = math.exp(change)
                better = (advantage[i] - centre) / scale
                free = ratio * better
                held = min(max(ratio, 1.0 - clip), 1.0 + clip) * better
                # The gradient of the smaller one; that of a ratio held back is 0.
                push = -free / count if free <= held else 0.0
                if drawn:
                    _push_normal(theta, spot, answer[r], action[i], push, entropy / count,
                                 slope[r], own)  # fmt: skip
                else:
                    _push_mixture(probability, size, choice[i], epsilon, push, entropy / count,
                                  slope[r])  # fmt: skip
                said = worth[r, 0]
                error, pull = _error(said - target[i], huber)
                moved = min(max(said - value[i], -value_clip), value_clip)
                late, drag = _error(value[i] + moved - target[i], huber)
                if late > error:
                    error, pull = late, drag if abs(said - value[i]) < value_clip else 0.0
                pulls[r, 0] = _f4(value_coef * pull / count)
                # unbiased, never negative: Schulman 2020, "Approximating KL divergence", k3
                sums[lane, 0] -= free if free <= held else held
                sums[lane, 1] += error
                sums[lane, 2] += spread
                sums[lane, 3] += ratio - 1.0 - change
                sums[lane, 4] += 1.0 if abs(ratio - 1.0) > clip else 0.0
            _backward(actor, answering, seen[0], index, block, rows)
            _backward(critic, valuing, state[0], index, block, rows)
        _write(found[lane], actor, answering)
        _write(found[lane], critic, valuing)
        if drawn:
            for a in range(size):
                found[lane, spot + a] = _f4(own[a])


@_compiled
def imitation_gradients(  # type: ignore[no-untyped-def]
    start, stop, found, sums, theta, net, pixels, numbers, label, discrete
):
    """Compute what the parts start..stop of a minibatch add to the gradient of an imitation.

    Args:
        start: the first part,
        stop: and where they end.
        found: (LANES, G) float32, the gradient of each part, written to.
        sums: (LANES,) float64 the loss of each part, written to.
        theta: (G,) the vector of weights.
        net: the network.
        pixels: (B, H, W, C) uint8, of no height where it sees no camera.
        numbers: (B, N) float32.
        label: (B, A) float32 actions, or probabilities of the choices.
        discrete: whether they are those.
    """
    prefer_512_bits()
    size, many = net.widths[len(net.widths) - 1], len(label)
    desk, index, probability = _desk(net, theta, True), np.arange(many), np.zeros(size)
    for lane in range(start, stop):
        begin, end = lane * many // LANES, (lane + 1) * many // LANES
        _clear(desk)
        sums[lane] = 0.0
        for block in range(begin, end, _BLOCK):
            rows = min(_BLOCK, end - block)
            answer = _forward(net, desk, theta, pixels, numbers, index, block, rows)
            slope = _last(net, desk)
            for r in range(rows):
                wanted = label[block + r]
                if discrete:
                    _mixture(answer[r], size, 0, 0.0, probability)
                    whole = 0.0
                    for a in range(size):
                        whole += wanted[a]
                    for a in range(size):
                        sums[lane] -= wanted[a] * math.log(max(probability[a], 1e-300))
                        slope[r, a] = _f4((whole * probability[a] - wanted[a]) / many)
                else:
                    for a in range(size):
                        off = np.float64(answer[r, a]) - wanted[a]
                        sums[lane] += off * off / size
                        slope[r, a] = _f4(2.0 * off / (size * many))
            _backward(net, desk, pixels, index, block, rows)
        _write(found[lane], net, desk)


@_compiled
def adam_step(  # type: ignore[no-untyped-def]
    theta, gradient, mean, square, parts, rates, steps, epsilon, longest
):
    """Take a step of Adam; return the length of the gradient.

    Args:
        theta: (G,) weights, changed.
        gradient: (G,); if it is longer than `longest`, it counts as so long.
        mean: (G,) running mean of the gradients, changed.
        square: (G,) running mean of their squares, changed.
        parts: where each part of the weights ends.
        rates: step size of each part.
        steps: taken of each part, this one included.
        epsilon: added to the roots of the squares.
        longest: length of the longest gradient.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    prefer_512_bits()
    length = 0.0
    for i in range(len(gradient)):
        length += np.float64(gradient[i]) * np.float64(gradient[i])
    length = math.sqrt(length)
    inverse = _f4(1.0 / max((length + 1e-6) / longest, 1.0))
    keep_mean, keep_square = _f4(0.9), _f4(0.999)
    begin = 0
    for part in range(len(parts)):
        rate = _f4(rates[part] / (1.0 - 0.9 ** steps[part]))
        root = _f4(1.0 / math.sqrt(1.0 - 0.999 ** steps[part]))
        least = _f4(epsilon)
        for i in range(begin, parts[part]):
            slope = gradient[_u8(i)] * inverse
            one = mean[_u8(i)] + (_ONE - keep_mean) * (slope - mean[_u8(i)])
            two = keep_square * square[_u8(i)] + (_ONE - keep_square) * slope * slope
            mean[_u8(i)], square[_u8(i)] = one, two
            theta[_u8(i)] -= rate * one / (np.sqrt(two) * root + least)
        begin = parts[part]
    return length


@_inline
def _filled(width):  # type: ignore[no-untyped-def]
    return (width + _LANE - 1) // _LANE * _LANE


@_compiled
def _table(flat, at, rows, columns):  # type: ignore[no-untyped-def]
    """Return a part of a flat array as a table."""
    return flat[at : at + rows * columns].reshape((rows, columns))


@_compiled
def _desk(net, theta, learns):  # type: ignore[no-untyped-def]
    """Lay out what a thread works with, and write the matrices of a network there."""
    grid, kernels, widths = net.grid, net.kernels, net.widths
    deep, seeing = len(widths) - 1, len(kernels)
    turns = keeps = passes = most = 0
    passes = _BLOCK * _filled(widths[0])
    for layer in range(deep):
        turns += widths[layer] * _filled(widths[layer + 1])
        keeps += widths[layer + 1] * _filled(widths[layer])
        passes += _BLOCK * _filled(widths[layer + 1])
        most = max(most, widths[layer + 1])
    turned, kept = np.zeros(turns, np.float32), np.zeros(keeps, np.float32)
    passed = np.zeros(passes, np.float32)
    turns_c = keeps_c = spots = drops = patches = filters = 0
    for layer in range(seeing):
        terms = kernels[layer, 0] * kernels[layer, 0] * grid[layer, 2]
        spot, given = grid[layer + 1, 0] * grid[layer + 1, 1], grid[layer + 1, 2]
        turns_c += terms * _filled(given)
        keeps_c += given * _filled(terms)
        spots += _BLOCK * spot * _filled(given)
        drops += spot * _filled(given)
        patches, filters = max(patches, spot * _filled(terms)), max(filters, given)
    turned_c, kept_c = np.zeros(turns_c, np.float32), np.zeros(keeps_c, np.float32)
    at, turns, keeps = net.first, 0, 0
    for layer in range(seeing):
        kernel, channels, given = kernels[layer, 0], grid[layer, 2], grid[layer + 1, 2]
        terms = kernel * kernel * channels
        one = _table(turned_c, turns, terms, _filled(given))
        other = _table(kept_c, keeps, given, _filled(terms))
        for o in range(given):
            for c in range(channels):
                for k in range(kernel * kernel):
                    weight = theta[at + (o * channels + c) * kernel * kernel + k]
                    one[k * channels + c, o], other[o, k * channels + c] = weight, weight
        at += (terms + 1) * given
        turns += terms * _filled(given)
        keeps += given * _filled(terms)
    turns = keeps = 0
    for layer in range(deep):
        inner, width = widths[layer], widths[layer + 1]
        one = _table(turned, turns, inner, _filled(width))
        other = _table(kept, keeps, width, _filled(inner))
        for o in range(width):
            for k in range(inner):
                weight = theta[at + o * inner + k]
                one[k, o], other[o, k] = weight, weight
        at += (inner + 1) * width
        turns += inner * _filled(width)
        keeps += width * _filled(inner)
    if not learns:
        keeps = keeps_c = passes = drops = most = filters = 0
    return _Desk(
        turned, kept, np.zeros(keeps, np.float32), np.zeros((deep, most), np.float32),
        passed, np.zeros(passes, np.float32), turned_c, kept_c, np.zeros(keeps_c, np.float32),
        np.zeros((seeing, filters), np.float32), np.zeros(spots, np.float32),
        np.zeros(drops, np.float32), np.zeros(patches, np.float32),
    )  # fmt: skip


@_inline
def _clear(desk):  # type: ignore[no-untyped-def]
    """Begin to add gradients up."""
    desk.sums[:], desk.bias[:], desk.sums_c[:], desk.bias_c[:] = _ZERO, _ZERO, _ZERO, _ZERO


@_inline
def _last(net, desk):  # type: ignore[no-untyped-def]
    """Return where the gradients of a network's outputs belong."""
    at, deep = 0, len(net.widths) - 1
    for layer in range(deep):
        at += _BLOCK * _filled(net.widths[layer])
    return _table(desk.slope, at, _BLOCK, _filled(net.widths[deep]))


@_compiled
def _forward(net, desk, theta, pixels, numbers, index, begin, rows):  # type: ignore[no-untyped-def]
    """Let rows index[begin:begin + rows] pass a network; return what it gives, (rows, ...)."""
    grid, kernels, widths = net.grid, net.kernels, net.widths
    deep, seeing = len(widths) - 1, len(kernels)
    x = _table(desk.passed, 0, _BLOCK, _filled(widths[0]))
    flat = 0
    if seeing:
        flat = grid[seeing, 0] * grid[seeing, 1] * grid[seeing, 2]
        _look(net, desk, theta, pixels, index, begin, rows, x)
    for r in range(rows):
        i = index[begin + r]
        for k in range(widths[0] - flat):
            x[r, flat + k] = numbers[i, k]
    at = net.first
    for layer in range(seeing):
        at += (kernels[layer, 0] * kernels[layer, 0] * grid[layer, 2] + 1) * grid[layer + 1, 2]
    turns = keeps = 0
    passes = _BLOCK * _filled(widths[0])
    for layer in range(deep):
        inner, width = widths[layer], widths[layer + 1]
        bias = at + inner * width
        y = _table(desk.passed, passes, _BLOCK, _filled(width))
        for r in range(rows):
            for o in range(width):
                y[r, o] = theta[bias + o]
        if width <= _NARROW:
            _products(x, _table(desk.kept, keeps, width, _filled(inner)), y, rows, inner, width)
        else:
            w = _table(desk.turned, turns, inner, _filled(width))
            _multiply(x, w, y, rows, inner, _filled(width))
        if layer < deep - 1:
            _bend(y, rows, _filled(width), seeing > 0)
        turns += inner * _filled(width)
        keeps += width * _filled(inner)
        passes += _BLOCK * _filled(width)
        at = bias + width
        x = y
    return x


@_compiled
def _look(net, desk, theta, pixels, index, begin, rows, x):  # type: ignore[no-untyped-def]
    """Let images pass the convolutions; write what the last one gives into x (rows, ...)."""
    grid, kernels = net.grid, net.kernels
    seeing = len(kernels)
    for r in range(rows):
        at, turns, maps, before = net.first, 0, 0, 0
        for layer in range(seeing):
            kernel, given = kernels[layer, 0], grid[layer + 1, 2]
            terms, spots = kernel * kernel * grid[layer, 2], grid[layer + 1, 0] * grid[layer + 1, 1]
            wide = _filled(given)
            patches = _table(desk.patches, 0, spots, _filled(terms))
            if layer == 0:
                _cut_pixels(net, pixels[index[begin + r]], patches)
            else:
                _cut(net, layer, _spots(net, desk, layer - 1, before, r), patches)
            y = _spots(net, desk, layer, maps, r)
            bias = at + terms * given
            for p in range(spots):
                for o in range(given):
                    y[p, o] = theta[bias + o]
            _multiply(patches, _table(desk.turned_c, turns, terms, wide), y, spots, terms, wide)
            _bend(y, spots, wide, True)
            before, maps = maps, maps + _BLOCK * spots * wide
            turns += terms * wide
            at = bias + given
        y = _spots(net, desk, seeing - 1, before, r)
        given = grid[seeing, 2]
        for p in range(grid[seeing, 0] * grid[seeing, 1]):
            for o in range(given):
                x[r, p * given + o] = y[p, o]


@_inline
def _spots(net, desk, layer, maps, r):  # type: ignore[no-untyped-def]
    """Return what a convolution gives for a row of the block, (spots, filters)."""
    spots, wide = net.grid[layer + 1, 0] * net.grid[layer + 1, 1], _filled(net.grid[layer + 1, 2])
    return _table(desk.maps, maps + r * spots * wide, spots, wide)


@_inline
def _cut_pixels(net, image, patches):  # type: ignore[no-untyped-def]
    """Cut an image (H, W, C) into the patches that the first convolution reads."""
    kernel, stride, channels = net.kernels[0, 0], net.kernels[0, 1], net.grid[0, 2]
    scale, offset, across = net.light[0], net.light[1], net.grid[1, 1]
    for p in range(net.grid[1, 0] * across):
        top, left = p // across * stride, p % across * stride
        for down in range(kernel):
            for k in range(kernel):
                for c in range(channels):
                    seen = _f4(image[top + down, left + k, c]) * scale + offset
                    patches[p, (down * kernel + k) * channels + c] = seen


@_inline
def _cut(net, layer, before, patches):  # type: ignore[no-untyped-def]
    """Cut what a convolution gave, (spots, filters), into the patches that the next one reads."""
    kernel, stride, channels = net.kernels[layer, 0], net.kernels[layer, 1], net.grid[layer, 2]
    row, across = net.grid[layer, 1], net.grid[layer + 1, 1]
    for p in range(net.grid[layer + 1, 0] * across):
        top, left = p // across * stride, p % across * stride
        for down in range(kernel):
            for k in range(kernel):
                q, to = (top + down) * row + left + k, (down * kernel + k) * channels
                for c in range(channels):
                    patches[_u8(p), _u8(to + c)] = before[_u8(q), _u8(c)]


@_inline
def _bend(y, rows, width, rectified):  # type: ignore[no-untyped-def]
    """Apply the activation."""
    if rectified:
        for r in range(rows):
            for o in range(width):
                held = y[_u8(r), _u8(o)]
                # so that what is no number stays none
                y[_u8(r), _u8(o)] = _ZERO if held < _ZERO else held
    else:
        for r in range(rows):
            for o in range(width):
                y[_u8(r), _u8(o)] = tanh(y[_u8(r), _u8(o)])


@_inline
def _straighten(slope, y, rows, width, rectified):  # type: ignore[no-untyped-def]
    """Turn gradients of what an activation gave, `y`, into those of what it was given."""
    if rectified:
        for r in range(rows):
            for o in range(width):
                held = y[_u8(r), _u8(o)]
                slope[_u8(r), _u8(o)] = _ZERO if held <= _ZERO else slope[_u8(r), _u8(o)]
    else:
        for r in range(rows):
            for o in range(width):
                held = y[_u8(r), _u8(o)]
                slope[_u8(r), _u8(o)] *= _ONE - held * held  # d tanh = 1 - tanh^2


@_compiled
def _backward(net, desk, pixels, index, begin, rows):  # type: ignore[no-untyped-def]
    """Add up the gradients of a network's weights, given those of its outputs; see `_last`."""
    widths, seeing = net.widths, len(net.kernels)
    deep = len(widths) - 1
    keeps, passes = len(desk.kept), len(desk.passed)
    s = _last(net, desk)
    passes -= _BLOCK * _filled(widths[deep])
    for step in range(deep):
        layer = deep - 1 - step
        inner, width = widths[layer], widths[layer + 1]
        wide = _filled(inner)
        keeps -= width * wide
        passes -= _BLOCK * wide
        x, before = (
            _table(desk.passed, passes, _BLOCK, wide),
            _table(desk.slope, passes, _BLOCK, wide),
        )
        _gather(s, x, _table(desk.sums, keeps, width, wide), rows, width, wide)
        for r in range(rows):
            for o in range(width):
                desk.bias[layer, o] += s[r, o]
        if layer or seeing:
            for r in range(rows):
                for k in range(wide):
                    before[_u8(r), _u8(k)] = _ZERO
            _multiply(s, _table(desk.kept, keeps, width, wide), before, rows, width, wide)
            if layer:
                _straighten(before, x, rows, wide, seeing > 0)
        s = before
    if seeing:
        _look_back(net, desk, pixels, index, begin, rows, s)


@_compiled
def _look_back(net, desk, pixels, index, begin, rows, slope):  # type: ignore[no-untyped-def]
    """Add up the gradients of the convolutions, given those of what the last one gave."""
    grid, kernels = net.grid, net.kernels
    seeing = len(kernels)
    for r in range(rows):
        keeps, maps, drops = len(desk.kept_c), len(desk.maps), len(desk.drops)
        for step in range(seeing):
            layer = seeing - 1 - step
            kernel, channels, given = kernels[layer, 0], grid[layer, 2], grid[layer + 1, 2]
            terms, spots = kernel * kernel * channels, grid[layer + 1, 0] * grid[layer + 1, 1]
            wide, long = _filled(given), _filled(terms)
            keeps -= given * long
            maps -= _BLOCK * spots * wide
            drops -= spots * wide
            y, s = _spots(net, desk, layer, maps, r), _table(desk.drops, drops, spots, wide)
            if step == 0:
                for p in range(spots):
                    for o in range(given):
                        s[p, o] = slope[r, p * given + o]
            _straighten(s, y, spots, wide, True)
            patches = _table(desk.patches, 0, spots, long)
            if layer == 0:
                _cut_pixels(net, pixels[index[begin + r]], patches)
            else:
                less = grid[layer, 0] * grid[layer, 1] * _filled(channels)
                _cut(net, layer, _spots(net, desk, layer - 1, maps - _BLOCK * less, r), patches)
            _gather(s, patches, _table(desk.sums_c, keeps, given, long), spots, given, long)
            for p in range(spots):
                for o in range(given):
                    desk.bias_c[layer, o] += s[p, o]
            if layer:
                for p in range(spots):
                    for k in range(long):
                        patches[_u8(p), _u8(k)] = _ZERO
                _multiply(s, _table(desk.kept_c, keeps, given, long), patches, spots, given, long)
                broad = _filled(channels)
                before = _table(desk.drops, drops - less, less // broad, broad)
                _join(net, layer, patches, before)


@_inline
def _join(net, layer, patches, before):  # type: ignore[no-untyped-def]
    """Add patches up to gradients of what the convolution before gave; see `_cut`."""
    kernel, stride, channels = net.kernels[layer, 0], net.kernels[layer, 1], net.grid[layer, 2]
    row, across = net.grid[layer, 1], net.grid[layer + 1, 1]
    before[:] = _ZERO
    for p in range(net.grid[layer + 1, 0] * across):
        top, left = p // across * stride, p % across * stride
        for down in range(kernel):
            for k in range(kernel):
                q, of = (top + down) * row + left + k, (down * kernel + k) * channels
                for c in range(channels):
                    before[_u8(q), _u8(c)] += patches[_u8(p), _u8(of + c)]


@_compiled
def _write(found, net, desk):  # type: ignore[no-untyped-def]
    """Write the gradients of a network's weights into the vector of all."""
    grid, kernels, widths = net.grid, net.kernels, net.widths
    at, keeps = net.first, 0
    for layer in range(len(kernels)):
        channels, given = grid[layer, 2], grid[layer + 1, 2]
        square = kernels[layer, 0] * kernels[layer, 0]
        sums = _table(desk.sums_c, keeps, given, _filled(square * channels))
        for o in range(given):
            for c in range(channels):
                for k in range(square):
                    found[at + (o * channels + c) * square + k] = sums[o, k * channels + c]
        at += square * channels * given
        for o in range(given):
            found[at + o] = desk.bias_c[layer, o]
        at += given
        keeps += given * _filled(square * channels)
    keeps = 0
    for layer in range(len(widths) - 1):
        inner, width = widths[layer], widths[layer + 1]
        sums = _table(desk.sums, keeps, width, _filled(inner))
        for o in range(width):
            for k in range(inner):
                found[_u8(at + o * inner + k)] = sums[o, k]
        at += inner * width
        for o in range(width):
            found[_u8(at + o)] = desk.bias[layer, o]
        at += width
        keeps += width * _filled(inner)


@_compiled
def _multiply(x, w, y, rows, inner, width):  # type: ignore[no-untyped-def]
    """Add the product of x (rows, inner) and w (inner, width) to y.

    Two rows by four terms at once: what is read is used twice, what is written only a fourth time.
    """
    whole = inner // 4 * 4
    for r in range(0, rows - 1, 2):
        s = r + 1
        for k in range(0, whole, 4):
            a0, a1, a2, a3 = x[r, k], x[r, k + 1], x[r, k + 2], x[r, k + 3]
            b0, b1, b2, b3 = x[s, k], x[s, k + 1], x[s, k + 2], x[s, k + 3]
            for o in range(width):
                w0, w1 = w[_u8(k), _u8(o)], w[_u8(k + 1), _u8(o)]
                w2, w3 = w[_u8(k + 2), _u8(o)], w[_u8(k + 3), _u8(o)]
                y[_u8(r), _u8(o)] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                y[_u8(s), _u8(o)] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
        for k in range(whole, inner):
            a0, b0 = x[r, k], x[s, k]
            for o in range(width):
                y[_u8(r), _u8(o)] += a0 * w[_u8(k), _u8(o)]
                y[_u8(s), _u8(o)] += b0 * w[_u8(k), _u8(o)]
    if rows % 2:
        r = rows - 1
        for k in range(inner):
            a0 = x[r, k]
            for o in range(width):
                y[_u8(r), _u8(o)] += a0 * w[_u8(k), _u8(o)]


@_compiled
def _products(x, w, y, rows, inner, width):  # type: ignore[no-untyped-def]
    """Add the product of x (rows, inner) and w (width, inner), turned, to y."""
    for r in range(rows):
        for o in range(width):
            total = _ZERO
            for k in range(inner):
                total += x[_u8(r), _u8(k)] * w[_u8(o), _u8(k)]
            y[r, o] += total


@_compiled
def _gather(s, x, sums, rows, outs, width):  # type: ignore[no-untyped-def]
    """Add the product of s (rows, outs), turned, and x (rows, width) to `sums`."""
    whole = rows // 4 * 4
    for o in range(0, outs - 1, 2):
        p = o + 1
        for r in range(0, whole, 4):
            a0, a1, a2, a3 = s[r, o], s[r + 1, o], s[r + 2, o], s[r + 3, o]
            b0, b1, b2, b3 = s[r, p], s[r + 1, p], s[r + 2, p], s[r + 3, p]
            for k in range(width):
                x0, x1 = x[_u8(r), _u8(k)], x[_u8(r + 1), _u8(k)]
                x2, x3 = x[_u8(r + 2), _u8(k)], x[_u8(r + 3), _u8(k)]
                sums[_u8(o), _u8(k)] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                sums[_u8(p), _u8(k)] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        for r in range(whole, rows):
            a0, b0 = s[r, o], s[r, p]
            for k in range(width):
                sums[_u8(o), _u8(k)] += a0 * x[_u8(r), _u8(k)]
                sums[_u8(p), _u8(k)] += b0 * x[_u8(r), _u8(k)]
    if outs % 2:
        o = outs - 1
        for r in range(rows):
            a0 = s[r, o]
            for k in range(width):
                sums[_u8(o), _u8(k)] += a0 * x[_u8(r), _u8(k)]


_HALF_LOG_TURN = 0.5 * math.log(2.0 * math.pi)


@_inline
def _normal(theta, middle, output, action):  # type: ignore[no-untyped-def]
    """Return the log-probability of an action around an output, and the entropy."""
    now, spread = 0.0, 0.0
    for a in range(len(action)):
        log_std = np.float64(theta[middle + a])
        z = (action[a] - output[a]) * math.exp(-log_std)
        now -= 0.5 * z * z + log_std + _HALF_LOG_TURN
        spread += log_std + 0.5 + _HALF_LOG_TURN
    return now, spread


@_inline
def _push_normal(theta, middle, output, action, push, open_, slope, own):  # type: ignore[no-untyped-def]
    """Write the gradient of the outputs, and add that of the deviations."""
    for a in range(len(action)):
        narrow = math.exp(-np.float64(theta[middle + a]))
        z = (action[a] - output[a]) * narrow
        slope[a] = _f4(push * z * narrow)
        own[a] += push * (z * z - 1.0) - open_


@_inline
def _mixture(output, size, choice, epsilon, probability):  # type: ignore[no-untyped-def]
    """Return the log-probability of a choice and the entropy; fill in the policy's own shares."""
    highest = np.float64(output[0])
    for a in range(size):
        highest = max(highest, np.float64(output[a]))
    total = 0.0
    for a in range(size):
        probability[a] = math.exp(output[a] - highest)
        total += probability[a]
    spread = 0.0
    for a in range(size):
        probability[a] /= total
        mixed = (1.0 - epsilon) * probability[a] + epsilon / size
        spread -= mixed * math.log(mixed) if mixed > 0.0 else 0.0
    return math.log((1.0 - epsilon) * probability[choice] + epsilon / size), spread


@_inline
def _push_mixture(probability, size, choice, epsilon, push, open_, slope):  # type: ignore[no-untyped-def]
    """Write the gradient of the outputs: the log-probability's times `push`, less the entropy's."""
    ours, spread = 1.0 - epsilon, 0.0
    for a in range(size):
        mixed = ours * probability[a] + epsilon / size
        spread += probability[a] * math.log(mixed) if mixed > 0.0 else 0.0
    taken = ours * probability[choice] / (ours * probability[choice] + epsilon / size)
    for a in range(size):
        mixed = ours * probability[a] + epsilon / size
        surprise = math.log(mixed) if mixed > 0.0 else 0.0
        hit = 1.0 if a == choice else 0.0
        # d mixed_b / d output_a = ours p_b ([a = b] - p_a)
        of_choice = taken * (hit - probability[a])
        of_entropy = -ours * probability[a] * (surprise - spread)
        slope[a] = _f4(push * of_choice - open_ * of_entropy)


@_inline
def _error(difference, huber):  # type: ignore[no-untyped-def]
    """Return the loss of a value that is off by `difference`, and its derivative."""
    if not huber:
        return difference * difference, 2.0 * difference
    size = abs(difference)
    if size < 1.0:
        return 0.5 * difference * difference, difference
    return size - 0.5, math.copysign(1.0, difference)
