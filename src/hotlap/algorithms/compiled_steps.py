"""Gradient steps of compiled networks: the losses, their gradients, and Adam."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numba import njit

from hotlap.algorithms.compiled import BLOCK, MATH, backward, desk_of, forward, slopes
from hotlap.series import prefer_512_bits
from hotlap.types import Array, Float32

__all__ = [
    "LANES",
    "SUMS",
    "Weights",
    "adam_step",
    "add_up",
    "imitation_gradients",
    "ppo_gradients",
]

LANES = 8
"""Parts into which the rows of a gradient step are cut, whatever the number of threads: sums must
not depend on it."""
SUMS = 5
"""What PPO's step sums up besides: loss of the policy, of the values, entropy, KL, clipped."""

_compiled = njit(cache=True, nogil=True, fastmath=MATH, error_model="numpy")
_inline: Any = njit(fastmath=MATH, error_model="numpy", forceinline=True)
_f4, _u8 = np.float32, np.uint64
_ZERO, _ONE = _f4(0), _f4(1)


class Weights:
    """Named weights in one vector, and what Adam remembers of them.

    Args:
        first: the weights by name.
        where: where in the vector each of their numbers is.
        length: of the vector.
        frozen: names of those that do not move.
    """

    def __init__(
        self,
        first: Mapping[str, Float32],
        where: Mapping[str, Array],
        length: int,
        frozen: Collection[str],
    ) -> None:
        self._where, self._length = where, length
        self._moving = [name for name in where if name not in frozen]
        self.theta = self.flat(first)
        self.mean, self.square = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.places = np.concatenate([place.ravel() for place in where.values()])
        """Places of all weights, in the order of the names,"""
        self.moves = np.concatenate([where[name].ravel() for name in self._moving])
        """and of what gradient steps move."""
        self.still = np.ones(length, bool)
        """(G,) what they do not move."""
        self.still[self.moves] = False

    def named(self, vector: Float32) -> dict[str, Float32]:
        """Return copies of the parts of a vector like `theta`, by name."""
        return {name: vector[place] for name, place in self._where.items()}

    def flat(self, named: Mapping[str, Array]) -> Float32:
        """Return the vector of which `named` would return these parts."""
        vector = np.zeros(self._length, np.float32)
        for name, place in self._where.items():
            vector[place] = named[name]
        return vector

    def moments(self) -> dict[str, Float32]:
        """Return copies of what Adam remembers of weights that move: `adam.mean.NAME`, ..."""
        kinds = (("mean", self.mean), ("square", self.square))
        return {
            f"adam.{kind}.{name}": vector[self._where[name]]
            for kind, vector in kinds
            for name in self._moving
        }

    def take(self, arrays: Mapping[str, Array]) -> None:
        """Become what `named(theta)` and `moments` returned."""
        self.theta[:] = self.flat(arrays)
        for name in self._moving:
            self.mean[self._where[name]] = arrays[f"adam.mean.{name}"]
            self.square[self._where[name]] = arrays[f"adam.square.{name}"]


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
    size, many = actor.outputs, len(index)
    drawn = len(choice) == 0
    answering, valuing = desk_of(actor, theta, True), desk_of(critic, theta, True)
    own, probability, narrow = np.zeros(size), np.zeros(size), np.zeros(size)
    share, narrower = 1.0 / count, 1.0 / scale
    for a in range(size if drawn else 0):
        narrow[a] = math.exp(-np.float64(theta[spot + a]))
    for lane in range(start, stop):
        begin, end = lane * many // LANES, (lane + 1) * many // LANES
        gradient = found[lane]
        gradient[:], own[:] = _ZERO, 0.0
        loss, errors, entropies, divergence, clipped = 0.0, 0.0, 0.0, 0.0, 0.0
        for block in range(begin, end, BLOCK):
            rows = min(BLOCK, end - block)
            answer = forward(actor, answering, theta, seen[0], seen[1], index, block, rows)
            worth = forward(critic, valuing, theta, state[0], state[1], index, block, rows)
            slope, pulls = slopes(actor, answering), slopes(critic, valuing)
            for r in range(rows):
                i = index[block + r]
                if drawn:
                    now, spread = _normal(theta, spot, narrow, answer, r, action, i)
                else:
                    now, spread = _mixture(answer, r, size, choice[i], epsilon, probability)
                change = now - log_prob[i]
                ratio = math.exp(change)
                better = (advantage[i] - centre) * narrower
                free = ratio * better
                held = min(max(ratio, 1.0 - clip), 1.0 + clip) * better
                # The gradient of the smaller one; that of a ratio held back is 0.
                push = -free * share if free <= held else 0.0
                if drawn:
                    _push_normal(narrow, answer, r, action, i, push, entropy * share, slope, own)
                else:
                    _push_mixture(probability, size, choice[i], epsilon, push, entropy * share,
                                  slope, r)  # fmt: skip
                said = worth[r, 0]
                error, pull = _error(said - target[i], huber)
                moved = min(max(said - value[i], -value_clip), value_clip)
                late, drag = _error(value[i] + moved - target[i], huber)
                if late > error:
                    error, pull = late, drag if abs(said - value[i]) < value_clip else 0.0
                pulls[r, 0] = _f4(value_coef * pull * share)
                loss -= free if free <= held else held
                errors += error
                entropies += spread
                # unbiased, never negative: Schulman 2020, "Approximating KL divergence", k3
                divergence += ratio - 1.0 - change
                clipped += 1.0 if abs(ratio - 1.0) > clip else 0.0
            backward(actor, answering, gradient, seen[0], index, block, rows)
            backward(critic, valuing, gradient, state[0], index, block, rows)
        sums[lane, 0], sums[lane, 1], sums[lane, 2] = loss, errors, entropies
        sums[lane, 3], sums[lane, 4] = divergence, clipped
        if drawn:
            for a in range(size):
                gradient[spot + a] = _f4(own[a])


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
    size, many = net.outputs, len(label)
    desk, index, probability = desk_of(net, theta, True), np.arange(many), np.zeros(size)
    for lane in range(start, stop):
        begin, end = lane * many // LANES, (lane + 1) * many // LANES
        gradient = found[lane]
        gradient[:], sums[lane] = _ZERO, 0.0
        for block in range(begin, end, BLOCK):
            rows = min(BLOCK, end - block)
            answer = forward(net, desk, theta, pixels, numbers, index, block, rows)
            slope = slopes(net, desk)
            for r in range(rows):
                wanted = label[block + r]
                if discrete:
                    _mixture(answer, r, size, 0, 0.0, probability)
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
            backward(net, desk, gradient, pixels, index, block, rows)


@_compiled
def add_up(gradient, found, still):  # type: ignore[no-untyped-def]
    """Add up the gradients of the parts.

    Args:
        gradient: (G,) their sum, written to.
        found: (LANES, G) those of the parts, in whose order they are added.
        still: (G,) where it is 0, as nothing moves.
    """
    prefer_512_bits()
    size = _u8(len(gradient))
    for i in range(size):
        gradient[_u8(i)] = found[0, _u8(i)]
    for lane in range(1, len(found)):
        own = found[lane]
        for i in range(size):
            gradient[_u8(i)] += own[_u8(i)]
    for i in range(size):
        gradient[_u8(i)] = _ZERO if still[_u8(i)] else gradient[_u8(i)]


@_compiled
def adam_step(  # type: ignore[no-untyped-def]
    theta, gradient, mean, square, parts, rates, steps, epsilon, longest
):
    """Take a step of Adam, unless the gradient is not finite; return its length.

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
    if not math.isfinite(length):
        return length
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


_HALF_LOG_TURN = 0.5 * math.log(2.0 * math.pi)


@_inline
def _normal(theta, spot, narrow, output, r, action, i):  # type: ignore[no-untyped-def]
    """Return the log-probability of action i around output r, and the entropy."""
    now, spread = 0.0, 0.0
    for a in range(action.shape[1]):
        log_std = np.float64(theta[_u8(spot + a)])
        z = (action[i, a] - output[r, a]) * narrow[a]
        now -= 0.5 * z * z + log_std + _HALF_LOG_TURN
        spread += log_std + 0.5 + _HALF_LOG_TURN
    return now, spread


@_inline
def _push_normal(  # type: ignore[no-untyped-def]
    narrow, output, r, action, i, push, open_, slope, own
):
    """Write the gradient of output r, and add that of the deviations."""
    for a in range(action.shape[1]):
        z = (action[i, a] - output[r, a]) * narrow[a]
        slope[r, a] = _f4(push * z * narrow[a])
        own[a] += push * (z * z - 1.0) - open_


@_inline
def _mixture(output, r, size, choice, epsilon, probability):  # type: ignore[no-untyped-def]
    """Return a choice's log-probability by output r and the entropy; fill in the own shares."""
    highest = np.float64(output[r, 0])
    for a in range(size):
        highest = max(highest, np.float64(output[r, a]))
    total = 0.0
    for a in range(size):
        probability[a] = math.exp(output[r, a] - highest)
        total += probability[a]
    spread = 0.0
    for a in range(size):
        probability[a] /= total
        mixed = (1.0 - epsilon) * probability[a] + epsilon / size
        spread -= mixed * math.log(mixed) if mixed > 0.0 else 0.0
    return math.log((1.0 - epsilon) * probability[choice] + epsilon / size), spread


@_inline
def _push_mixture(  # type: ignore[no-untyped-def]
    probability, size, choice, epsilon, push, open_, slope, r
):
    """Write the gradient of output r: the log-probability's times `push`, less the entropy's."""
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
        slope[r, a] = _f4(push * of_choice - open_ * of_entropy)


@_inline
def _error(difference, huber):  # type: ignore[no-untyped-def]
    """Return the loss of a value that is off by `difference`, and its derivative."""
    if not huber:
        return difference * difference, 2.0 * difference
    size = abs(difference)
    if size < 1.0:
        return 0.5 * difference * difference, difference
    return size - 0.5, math.copysign(1.0, difference)
