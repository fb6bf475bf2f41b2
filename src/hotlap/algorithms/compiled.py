"""Perceptrons: small tanh networks compiled, their outputs and PPO's gradients.

A gradient step over a few hundred rows of 64 units is a fraction of a millisecond of arithmetic.
As a graph of tensors it takes ten times as long, for each of its sixty operations is called from
Python. Here a step is one call.

All weights of an actor and a critic lie in one vector: of each network, layer by layer, a matrix
(out, in) and a bias (out,); between the networks, for continuous actions, the logarithms of the
deviations. Rows are cut into blocks that fit the cache, and loops run over units innermost, so that
LLVM handles 8 or 16 of them in one instruction.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits, tanh
from hotlap.types import Float32

__all__ = ["LANES", "SUMS", "adam_step", "gradients", "orthonormal", "outputs"]

LANES = 8
"""Parts into which the rows of a gradient step are cut, whatever the number of threads: sums must
not depend on it."""
SUMS = 5
"""What a gradient step sums up besides: loss of the policy, of the values, entropy, KL, clipped."""
_BLOCK = 64
"""Rows that pass the layers together."""
_LANE = 16
"""Widths are filled up with zeros to a multiple of so many units."""

# NaN has to pass: no "nnan" and "ninf", which would let LLVM take what is broken for a number.
_MATH = {"reassoc", "contract", "arcp", "nsz"}
_compiled = njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
_inline: Any = njit(fastmath=_MATH, error_model="numpy", forceinline=True)
_f4, _i8, _u8 = np.float32, np.int64, np.uint64
_ZERO, _ONE = _f4(0), _f4(1)
_NARROW = 4
"""Outputs up to which a layer is computed by one product after the other."""


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
def outputs(start, stop, out, theta, first, widths, seen):  # type: ignore[no-untyped-def]
    """Run a network on the rows start..stop.

    Args:
        start: the first row,
        stop: and where they end.
        out: (B, outputs) float32, written to.
        theta: (G,) all weights.
        first: where those of the network begin.
        widths: (layers + 1,) of its inputs and of what each layer gives.
        seen: (B, inputs) float32.
    """
    prefer_512_bits()
    layers, most = len(widths) - 1, _most(widths, widths)
    turned = np.zeros((layers, most, most), np.float32)
    kept = np.zeros((layers, most, most), np.float32)
    passed = np.zeros((layers + 1, _BLOCK, most), np.float32)
    _turn(theta, first, widths, turned, kept)
    for begin in range(start, stop, _BLOCK):
        rows = min(_BLOCK, stop - begin)
        for r in range(rows):
            for k in range(widths[0]):
                passed[0, r, k] = seen[begin + r, k]
        _forward(theta, first, widths, turned, kept, passed, rows)
        for r in range(rows):
            for o in range(widths[layers]):
                out[begin + r, o] = passed[layers, r, o]


@_compiled
def gradients(  # type: ignore[no-untyped-def]
    start, stop, found, sums, theta, actor, critic, seen, state, action, choice, log_prob, value,
    target, advantage, index, centre, scale, clip, value_coef, entropy, huber, value_clip, epsilon,
    count,
):  # fmt: skip
    """Compute what the parts start..stop of a minibatch add to PPO's gradient.

    Args:
        start: the first part,
        stop: and where they end.
        found: (LANES, G) float32, the gradient of each part, written to.
        sums: (LANES, SUMS) float64, of each part, written to.
        theta: (G,) all weights.
        actor: widths of the actor's layers, from its inputs on.
        critic: those of the critic's.
        seen: (B, inputs) float32 what the actor sees.
        state: (B, inputs) float32 what the critic sees.
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
    deep, high = len(actor) - 1, len(critic) - 1
    size, many = actor[deep], len(index)
    middle = _length(actor)
    drawn = len(choice) == 0
    second = middle + size if drawn else middle
    most = _most(actor, critic)
    turned_a = np.zeros((deep, most, most), np.float32)
    kept_a, sums_a = np.zeros_like(turned_a), np.zeros_like(turned_a)
    turned_c = np.zeros((high, most, most), np.float32)
    kept_c, sums_c = np.zeros_like(turned_c), np.zeros_like(turned_c)
    bias_a, bias_c = np.zeros((deep, most), np.float32), np.zeros((high, most), np.float32)
    passed_a = np.zeros((deep + 1, _BLOCK, most), np.float32)
    passed_c = np.zeros((high + 1, _BLOCK, most), np.float32)
    slope_a, slope_c = np.zeros_like(passed_a), np.zeros_like(passed_c)
    own, probability = np.zeros(size), np.zeros(size)
    _turn(theta, 0, actor, turned_a, kept_a)
    _turn(theta, second, critic, turned_c, kept_c)
    for lane in range(start, stop):
        begin, end = lane * many // LANES, (lane + 1) * many // LANES
        sums_a[:], sums_c[:], bias_a[:], bias_c[:] = _ZERO, _ZERO, _ZERO, _ZERO
        own[:], sums[lane] = 0.0, 0.0
        for block in range(begin, end, _BLOCK):
            rows = min(_BLOCK, end - block)
            for r in range(rows):
                i = index[block + r]
                for k in range(actor[0]):
                    passed_a[0, r, k] = seen[i, k]
                for k in range(critic[0]):
                    passed_c[0, r, k] = state[i, k]
            _forward(theta, 0, actor, turned_a, kept_a, passed_a, rows)
            _forward(theta, second, critic, turned_c, kept_c, passed_c, rows)
            for r in range(rows):
                i = index[block + r]
                if drawn:
                    now, spread = _normal(theta, middle, passed_a[deep, r], action[i])
                else:
                    now, spread = _mixture(passed_a[deep, r], size, choice[i], epsilon, probability)
                change = now - log_prob[i]
                ratio = math.exp(change)
                better = (advantage[i] - centre) / scale
                free = ratio * better
                held = min(max(ratio, 1.0 - clip), 1.0 + clip) * better
                # The gradient of the smaller one; that of a ratio held back is 0.
                push = -free / count if free <= held else 0.0
                if drawn:
                    _push_normal(theta, middle, passed_a[deep, r], action[i], push,
                                 entropy / count, slope_a[deep, r], own)  # fmt: skip
                else:
                    _push_mixture(probability, size, choice[i], epsilon, push, entropy / count,
                                  slope_a[deep, r])  # fmt: skip
                said = passed_c[high, r, 0]
                error, pull = _error(said - target[i], huber)
                moved = min(max(said - value[i], -value_clip), value_clip)
                late, drag = _error(value[i] + moved - target[i], huber)
                if late > error:
                    error, pull = late, drag if abs(said - value[i]) < value_clip else 0.0
                slope_c[high, r, 0] = _f4(value_coef * pull / count)
                # unbiased, never negative: Schulman 2020, "Approximating KL divergence", k3
                sums[lane, 0] -= free if free <= held else held
                sums[lane, 1] += error
                sums[lane, 2] += spread
                sums[lane, 3] += ratio - 1.0 - change
                sums[lane, 4] += 1.0 if abs(ratio - 1.0) > clip else 0.0
            _backward(actor, kept_a, passed_a, slope_a, sums_a, bias_a, rows)
            _backward(critic, kept_c, passed_c, slope_c, sums_c, bias_c, rows)
        _write(found[lane], 0, actor, sums_a, bias_a)
        _write(found[lane], second, critic, sums_c, bias_c)
        for a in range(second - middle):
            found[lane, middle + a] = _f4(own[a])


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
def _most(actor, critic):  # type: ignore[no-untyped-def]
    """Return the width of the widest layer, filled up."""
    most = 0
    for width in actor:
        most = max(most, width)
    for width in critic:
        most = max(most, width)
    return (most + _LANE - 1) // _LANE * _LANE


@_inline
def _filled(width):  # type: ignore[no-untyped-def]
    return (width + _LANE - 1) // _LANE * _LANE


@_inline
def _length(widths):  # type: ignore[no-untyped-def]
    """Return how many weights a network has."""
    total = 0
    for layer in range(len(widths) - 1):
        total += (widths[layer] + 1) * widths[layer + 1]
    return total


@_compiled
def _turn(theta, first, widths, turned, kept):  # type: ignore[no-untyped-def]
    """Write the matrices of a network apart, turned (in, out) and as they are (out, in)."""
    at = first
    for layer in range(len(widths) - 1):
        inner, width = widths[layer], widths[layer + 1]
        for o in range(width):
            for k in range(inner):
                weight = theta[_u8(at + o * inner + k)]
                turned[layer, k, o] = weight
                kept[layer, o, k] = weight
        at += (inner + 1) * width


@_compiled
def _forward(theta, first, widths, turned, kept, passed, rows):  # type: ignore[no-untyped-def]
    """Let rows pass the layers; `passed` (layers + 1, rows, width) begins with the inputs."""
    at, last = first, len(widths) - 2
    for layer in range(len(widths) - 1):
        inner, width = widths[layer], widths[layer + 1]
        bias = at + inner * width
        x, y = passed[layer], passed[layer + 1]
        for r in range(rows):
            for o in range(width):
                y[r, o] = theta[bias + o]
        if width <= _NARROW:
            _products(x, kept[layer], y, rows, inner, width)
        else:
            _multiply(x, turned[layer], y, rows, inner, _filled(width))
        if layer < last:
            for r in range(rows):
                for o in range(_filled(width)):
                    y[_u8(r), _u8(o)] = tanh(y[_u8(r), _u8(o)])
        at = bias + width


@_compiled
def _backward(widths, kept, passed, slope, sums, bias, rows):  # type: ignore[no-untyped-def]
    """Add up the gradients of a network's weights, given those of its outputs in `slope`."""
    for step in range(len(widths) - 1):
        layer = len(widths) - 2 - step
        inner, width = widths[layer], widths[layer + 1]
        x, s = passed[layer], slope[layer + 1]
        _gather(s, x, sums[layer], rows, width, _filled(inner))
        for r in range(rows):
            for o in range(width):
                bias[layer, o] += s[r, o]
        if layer > 0:
            before = slope[layer]
            for r in range(rows):
                for k in range(_filled(inner)):
                    before[_u8(r), _u8(k)] = _ZERO
            _multiply(s, kept[layer], before, rows, width, _filled(inner))
            for r in range(rows):
                for k in range(_filled(inner)):
                    held = x[_u8(r), _u8(k)]
                    before[_u8(r), _u8(k)] *= _ONE - held * held  # d tanh = 1 - tanh^2


@_compiled
def _write(found, first, widths, sums, bias):  # type: ignore[no-untyped-def]
    """Write the gradients of a network's weights into the vector of all."""
    at = first
    for layer in range(len(widths) - 1):
        inner, width = widths[layer], widths[layer + 1]
        for o in range(width):
            for k in range(inner):
                found[_u8(at + o * inner + k)] = sums[layer, o, k]
        at += inner * width
        for o in range(width):
            found[_u8(at + o)] = bias[layer, o]
        at += width


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
