"""Compiled networks: small ones, their outputs and their gradients.

A gradient step over a few hundred rows of 64 units is a fraction of a millisecond of arithmetic.
As a graph of tensors it takes ten times as long, for each of its sixty operations is called from
Python. Here a step is one call.

A network is convolutions over one camera, if it sees one, and then dense layers over what they give
and numbers: rectified behind a camera, else tanh. Its weights lie in a vector: of each layer a
matrix (in, out) and then a row for the bias, both filled up with zeros to a multiple of 16 columns.

Every layer, and every gradient of one, is a sum of products, and one function does them all:
`_products`. Tables tell where its factors lie, and a convolution has other ones than a dense
layer: a picture is read where it is, and no patches are cut. Rows are cut into blocks that fit the
cache.
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from hotlap.algorithms.policy import ImagePlan, Plan
from hotlap.series import prefer_512_bits, tanh
from hotlap.types import Array, Float32

__all__ = [
    "BLOCK",
    "MATH",
    "Net",
    "backward",
    "cost_of",
    "desk_of",
    "fits",
    "forward",
    "net_of",
    "orthonormal",
    "outputs",
    "read",
    "slopes",
    "threads_for",
]

BLOCK = 32
"""Rows that pass the layers together."""
_LANE = 16
"""Widths are filled up with zeros to a multiple of so many units, as many as AVX-512 multiplies."""
_MOST_WEIGHTS = 1 << 20
"""With several times as many, reading weights and adding gradients up costs more than it saves."""
_WORTH = 30_000_000
"""Multiplications, about half a millisecond, for which another thread is woken: that takes up to a
third of one."""

# NaN has to pass: no "nnan" and "ninf", which would let LLVM take what is broken for a number.
MATH = {"reassoc", "contract", "arcp", "nsz"}
_compiled = njit(cache=True, nogil=True, fastmath=MATH, error_model="numpy")
_inline: Any = njit(fastmath=MATH, error_model="numpy", forceinline=True)
_intrinsic: Any = intrinsic
_llvm: Any = cgutils
_f4, _u8 = np.float32, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)

Net = namedtuple("Net", "layers tables light seeing outputs sizes zeros")
"""A network as kernels read it.

layers: (L,) what `_LAYER` says of each, convolutions first.
tables: the tables that they speak of, one after the other; the first counts 0, 1, 2, ...
light: (2,) what pixels are multiplied by, and what is then added.
seeing: how many of them are convolutions.
outputs: width of the last.
sizes: (3,) of a desk's matrices, of what passes the layers, of the gradients of that.
zeros: where a table of zeros begins.
"""

# A layer's product has `rows` rows: the places where a filter is applied to one picture, or the
# rows of a block. It reads `terms` numbers a row and gives `given`, filled up to `wide`.
#
# theta: where its matrix begins in the vector of all weights.
# kept: where it begins, turned to (given, broad), in the desk: by it gradients go back.
# source, out: where what it reads and what it gives begin in what passes a block of rows;
# source_step, out_step: how far further on that is for the next picture.
# slope, slope_source: where their gradients begin, of which those of one picture are held;
# slope_step: or how far further on those of the next picture are.
# The rest are places in `tables`. For each row: `places`, from where on it reads; `lines`, from
# where on it gives. For each term: `steps`, how far on it is read; `columns`, where its row of the
# matrix begins; `cells`, which column of `kept` it is. For each sixteen columns of `kept`:
# `blocks`, where in the source they belong.
_LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "rows", "terms", "given", "wide", "broad", "theta", "kept", "source", "source_step",
            "out", "out_step", "slope", "slope_step", "slope_source",
            "places", "lines", "steps", "columns", "cells", "blocks",
        )
    ]
)  # fmt: skip

# What a thread works with: turned matrices, what passes the layers for a block of rows, the
# gradients of that, and the number 1.
_Desk = namedtuple("_Desk", "kept passed slope one")


def fits(plan: Plan) -> bool:
    """Return whether kernels can run a network, and fast."""
    one = next(iter(plan.images.values()), None)
    plain = one is None or (one.conv and not (one.dense or one.padded or one.pool > 1))
    return bool(
        plain
        and len(plan.images) <= 1
        and plan.activation == ("relu" if plan.images else "tanh")
        and not (plan.own or plan.linear or plan.layer_norm or plan.memory or plan.previous_action)
        and sum(math.prod(shape) for shape in plan.shapes().values()) <= _MOST_WEIGHTS
    )


class _Product(NamedTuple):
    """The product of a layer, as tables; see `_LAYER`."""

    places: Array
    steps: Array
    order: Array
    """Which of a filter's weights each term is."""
    cells: Array
    blocks: Array
    broad: int


def _convolution(image: ImagePlan, at: int) -> _Product:
    """Return the product of a picture's convolution; all but pixels lies filled up."""
    height, width, channels = image.model_copy(update={"conv": image.conv[:at]}).grid()
    _, kernel, stride = image.conv[at]
    pitch = _filled(channels) if at else channels
    down = np.arange(0, height - kernel + 1, stride)
    across = np.arange(0, width - kernel + 1, stride)
    square = np.arange(kernel * kernel)[:, None]
    window, channel = square // kernel * width + square % kernel, np.arange(channels)
    return _Product(
        places=(down[:, None] * width + across) * pitch,
        steps=window * pitch + channel,
        order=channel * kernel * kernel + square,
        cells=square * _filled(channels) + channel,
        blocks=window * pitch + np.arange(0, _filled(channels), _LANE),
        broad=kernel * kernel * _filled(channels),
    )


def _dense(steps: Array, pitch: int) -> _Product:
    """Return the product of a layer that reads at `steps`, in each row `pitch` further on."""
    return _Product(
        places=np.arange(BLOCK) * pitch,
        steps=steps,
        order=np.arange(steps.size),
        cells=steps,
        blocks=np.arange(0, pitch, _LANE),
        broad=pitch,
    )


def net_of(plan: Plan, first: int) -> tuple[Net, dict[str, Array], int]:
    """Lay out a network for the kernels.

    Args:
        plan: which `fits`.
        first: where its weights begin in the vector.

    Returns:
        The network; where in the vector each number of its weights is, by name, in the order of
        `Plan.shapes`; and where they end.
    """
    image = next(iter(plan.images.values()), None)
    conv, numbers = image.conv if image else (), sum(plan.vectors.values())
    # What convolutions gave lies before the numbers, as they gave it.
    spots, given = (math.prod(image.grid()[:2]), image.grid()[2]) if image else (0, 0)
    joint = spots * _filled(given)
    steps = np.arange(spots)[:, None] * _filled(given) + np.arange(given)
    steps = np.concatenate([steps.ravel(), joint + np.arange(numbers)])
    joint += _filled(numbers)
    products = [_convolution(image, at) for at in range(len(conv))] if image else []
    products.append(_dense(steps, joint))
    products += [_dense(np.arange(width), _filled(width)) for width in plan.hidden]
    gives = [*(filters for filters, _, _ in conv), *plan.hidden, plan.outputs]

    shapes, where = list(plan.shapes().items()), dict[str, Array]()
    longest = max([*gives, BLOCK, *(product.places.size for product in products)])
    tables: list[Array] = [np.arange(longest), np.zeros(longest)]
    layers = np.zeros(len(gives), _LAYER)
    theta, kept, source, source_step, slope_source = first, 0, 0, 0, 0
    passed, slope = (math.prod(image.shape), 0) if image else (BLOCK * joint, BLOCK * joint)
    for at, (layer, product, given) in enumerate(zip(layers, products, gives, strict=True)):
        rows, terms, wide = product.places.size, product.steps.size, _filled(given)
        sees, joins = at < len(conv), at == len(conv) - 1
        out_step = joint if joins else rows * wide
        named = {
            **product._asdict(),
            "lines": np.arange(rows) * wide,
            "columns": np.arange(terms) * wide,
            "rows": rows, "terms": terms, "given": given, "wide": wide, "theta": theta,
            "kept": kept, "source": source, "source_step": source_step, "out": passed,
            "out_step": out_step, "slope": slope, "slope_step": joint if joins else 0,
            "slope_source": slope_source,
        }  # fmt: skip
        order = named.pop("order").ravel()
        for name, value in named.items():
            if isinstance(value, np.ndarray):
                layer[name] = sum(table.size for table in tables)
                tables.append(value.ravel())
            else:
                layer[name] = value
        (name, shape), (bias, _) = shapes[2 * at : 2 * at + 2]
        filters = np.empty((given, terms), np.int64)
        filters[:, order] = theta + np.arange(terms) * wide + np.arange(given)[:, None]
        where[name], where[bias] = filters.reshape(shape), theta + terms * wide + np.arange(given)
        source, source_step, slope_source = passed, out_step, slope
        theta, kept = theta + (terms + 1) * wide, kept + given * product.broad
        passed += BLOCK * out_step if sees else out_step
        slope += BLOCK * out_step if joins else out_step
    light = (image.scale, image.offset) if image else (1.0, 0.0)
    net = Net(
        layers, np.concatenate(tables).astype(np.int64), np.array(light, np.float32), len(conv),
        plan.outputs, np.array([kept, passed, slope]), longest,
    )  # fmt: skip
    return net, where, theta


def threads_for(multiplications: float, threads: int) -> int:
    """Return how many of the threads are worth waking."""
    return threads if multiplications > _WORTH else 1


def cost_of(net: Net) -> int:
    """Return how many multiplications a row costs; its gradients cost twice as many besides."""
    layers, dense = net.layers, np.arange(len(net.layers)) >= net.seeing
    rows = np.where(dense, 1, layers["rows"])
    return int((rows * layers["terms"] * layers["wide"]).sum())


def _filled(width: int) -> int:
    return -(-width // _LANE) * _LANE


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
    desk, index = desk_of(net, theta, False), np.arange(stop)
    for begin in range(start, stop, BLOCK):
        rows = min(BLOCK, stop - begin)
        found = forward(net, desk, theta, pixels, numbers, index, begin, rows)
        for r in range(rows):
            for o in range(net.outputs):
                out[begin + r, o] = found[r, o]


@_compiled
def desk_of(net, theta, learns):  # type: ignore[no-untyped-def]
    """Lay out what a thread works with."""
    sizes = net.sizes
    kept = np.zeros(sizes[0] if learns else 0, np.float32)
    if learns:
        for at in range(1, len(net.layers)):
            layer = net.layers[at]
            for t in range(layer.terms):
                own, cell = layer.theta + t * layer.wide, net.tables[layer.cells + t]
                for o in range(layer.given):
                    kept[_u8(layer.kept + o * layer.broad + cell)] = theta[_u8(own + o)]
    slope = np.zeros(sizes[2] if learns else 0, np.float32)
    return _Desk(kept, np.zeros(sizes[1], np.float32), slope, np.ones(1, np.float32))


@_inline
def slopes(net, desk):  # type: ignore[no-untyped-def]
    """Return where the gradients of a network's outputs belong, (BLOCK, ...)."""
    last = net.layers[len(net.layers) - 1]
    return desk.slope[last.slope :].reshape((BLOCK, last.wide))


@_compiled
def forward(net, desk, theta, pixels, numbers, index, begin, rows):  # type: ignore[no-untyped-def]
    """Let rows index[begin:begin + rows] pass a network; return what it gives, (BLOCK, ...)."""
    passed, deep, joint = desk.passed, len(net.layers), net.layers[net.seeing]
    count = numbers.shape[1]
    first = joint.terms - count  # of the numbers
    for r in range(rows):
        i = index[begin + r]
        if net.seeing:
            _see(net, pixels[i], passed)
            for at in range(net.seeing):
                _pass(net, desk, theta, at, r, net.layers[at].rows)
        if count:
            x = joint.source + r * joint.broad + net.tables[joint.steps + first]
            for k in range(count):
                passed[_u8(x + k)] = numbers[i, k]
    for at in range(net.seeing, deep):
        _pass(net, desk, theta, at, 0, rows)
    last = net.layers[deep - 1]
    return passed[last.out :].reshape((BLOCK, last.wide))


@_inline
def _see(net, image, passed):  # type: ignore[no-untyped-def]
    """Write an image (H, W, C) down as the numbers that the first convolution reads."""
    scale, offset, flat = net.light[0], net.light[1], image.ravel()
    for k in range(len(flat)):
        passed[_u8(k)] = _f4(flat[_u8(k)]) * scale + offset


@_compiled
def _pass(net, desk, theta, at, r, rows):  # type: ignore[no-untyped-def]
    """Let what the layer before gave pass a layer: a block of rows, or picture r of one."""
    layer, passed = net.layers[at], desk.passed
    source, out = layer.source + r * layer.source_step, layer.out + r * layer.out_step
    wide, bias = layer.wide, layer.theta + layer.terms * layer.wide
    for o in range(0, wide, _LANE):
        _products(
            net.tables, passed, source, layer.places, layer.steps, theta, layer.theta + o, wide,
            theta, bias + o, net.zeros, passed, out + o, layer.lines, rows, layer.terms,
        )  # fmt: skip
    if net.seeing and at < len(net.layers) - 1:
        for k in range(rows * wide):
            held = passed[_u8(out + k)]
            # Exact, and what is no number stays none; a choice would be a branch for each number.
            passed[_u8(out + k)] = _HALF * (held + abs(held))
    elif at < len(net.layers) - 1:
        for k in range(rows * wide):
            passed[_u8(out + k)] = tanh(passed[_u8(out + k)])


@_compiled
def backward(net, desk, gradient, pixels, index, begin, rows):  # type: ignore[no-untyped-def]
    """Add the gradient of a network's weights, given those of its outputs; see `slopes`."""
    deep = len(net.layers)
    for step in range(deep - net.seeing):
        at = deep - 1 - step
        if step:
            _straighten(net, desk, at, 0, rows)
        _learn(net, desk, gradient, at, 0, rows)
        if at:
            _send_back(net, desk, at, 0, rows, rows * net.layers[at].broad)
    if net.seeing:
        for r in range(rows):
            _see(net, pixels[index[begin + r]], desk.passed)
            for step in range(net.seeing):
                at = net.seeing - 1 - step
                layer = net.layers[at]
                _straighten(net, desk, at, r, layer.rows)
                _learn(net, desk, gradient, at, r, layer.rows)
                if at:
                    _send_back(net, desk, at, r, layer.rows, net.layers[at - 1].out_step)


@_inline
def _straighten(net, desk, at, r, rows):  # type: ignore[no-untyped-def]
    """Turn gradients of what a layer's activation gave into those of what it was given."""
    layer, passed, slope = net.layers[at], desk.passed, desk.slope
    out, to = layer.out + r * layer.out_step, layer.slope + r * layer.slope_step
    if net.seeing:
        for k in range(rows * layer.wide):
            held = passed[_u8(out + k)]
            slope[_u8(to + k)] = _ZERO if held <= _ZERO else slope[_u8(to + k)]
    else:
        for k in range(rows * layer.wide):
            held = passed[_u8(out + k)]
            slope[_u8(to + k)] *= _ONE - held * held  # d tanh = 1 - tanh^2


@_compiled
def _learn(net, desk, gradient, at, r, rows):  # type: ignore[no-untyped-def]
    """Add the gradient of a layer's weights."""
    layer, tables, slope = net.layers[at], net.tables, desk.slope
    source, wide = layer.source + r * layer.source_step, layer.wide
    own, bias = layer.slope + r * layer.slope_step, layer.theta + layer.terms * wide
    for o in range(0, wide, _LANE):
        to = layer.theta + o
        _products(
            tables, desk.passed, source, layer.steps, layer.places, slope, own + o, wide,
            gradient, to, layer.columns, gradient, to, layer.columns, layer.terms, rows,
        )  # fmt: skip
        _products(
            tables, desk.one, 0, net.zeros, net.zeros, slope, own + o, wide,
            gradient, bias + o, 0, gradient, bias + o, 0, 1, rows,
        )  # fmt: skip


@_compiled
def _send_back(net, desk, at, r, rows, size):  # type: ignore[no-untyped-def]
    """Write the gradients of what a layer read, `size` numbers."""
    layer, tables, slope = net.layers[at], net.tables, desk.slope
    own, back = layer.slope + r * layer.slope_step, layer.slope_source
    for k in range(size):
        slope[_u8(back + k)] = _ZERO
    for k in range(layer.broad // _LANE):
        to = back + tables[layer.blocks + k]
        _products(
            tables, slope, own, layer.lines, 0, desk.kept, layer.kept + k * _LANE, layer.broad,
            slope, to, layer.places, slope, to, layer.places, rows, layer.given,
        )  # fmt: skip


def _tile(count: int) -> Any:
    """Return what adds up sixteen columns of so many rows of products; see `_products`.

    Written in LLVM's language, as the sums have to stay in vector registers for all terms, which
    LLVM does not find out by itself.
    """

    @_intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typingctx, tables, a, a_at, a_rows, a_terms, b, b_at, step, c, c_at, c_rows, y, y_at,
        y_rows, terms,
    ):  # fmt: skip
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            def data(k: int) -> Any:
                return context.make_array(signature.args[k])(context, builder, arguments[k]).data

            def number(base: Any, *places: Any) -> Any:
                place = functools.reduce(builder.add, places)
                return builder.load(builder.gep(base, [place]))

            def lanes(base: Any, place: Any) -> Any:
                return builder.bitcast(builder.gep(base, [place]), vector.as_pointer())

            (_, _, a_at, a_rows, a_terms, _, b_at, step, _, c_at, c_rows) = arguments[:11]
            _, y_at, y_rows, terms = arguments[11:]
            places, a, b, c, y = data(0), data(1), data(5), data(8), data(11)
            vector = ir.VectorType(ir.FloatType(), _LANE)
            nothing, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
            all_first = ir.Constant(ir.VectorType(ir.IntType(32), _LANE), [0] * _LANE)
            each = [ir.Constant(a_at.type, i) for i in range(count)]
            begins = [builder.add(a_at, number(places, a_rows, i)) for i in each]
            targets = [lanes(y, builder.add(y_at, number(places, y_rows, i))) for i in each]
            firsts = [lanes(c, builder.add(c_at, number(places, c_rows, i))) for i in each]
            sums = [
                _llvm.alloca_once_value(builder, builder.load(first, align=4)) for first in firsts
            ]
            with _llvm.for_range(builder, terms) as loop:
                weights = lanes(b, builder.add(b_at, builder.mul(loop.index, step)))
                weights = builder.load(weights, align=4)
                way = number(places, a_terms, loop.index)
                for begin, total in zip(begins, sums, strict=True):
                    one = builder.insert_element(nothing, number(a, begin, way), first)
                    one = builder.shuffle_vector(one, nothing, all_first)
                    product = builder.fmul(one, weights, flags=("contract",))
                    product = builder.fadd(builder.load(total), product, flags=("contract",))
                    builder.store(product, total)
            for target, total in zip(targets, sums, strict=True):
                builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        return types.void(
            tables, a, a_at, a_rows, a_terms, b, b_at, step, c, c_at, c_rows, y, y_at, y_rows, terms
        ), generate  # fmt: skip

    return tile


_one, _two, _three, _four, _five, _six = (_tile(count) for count in range(1, 7))


@_compiled
def _products(  # type: ignore[no-untyped-def]
    tables, a, a_at, a_rows, a_terms, b, b_at, step, c, c_at, c_rows, y, y_at, y_rows, rows, terms
):
    """Write sums of products, sixteen columns of them, to y.

    Row i: y[y_at + tables[y_rows + i]] = c[c_at + tables[c_rows + i]], and the sum over the terms k
    of a[a_at + tables[a_rows + i] + tables[a_terms + k]] * b[b_at + k step]; so for the fifteen
    numbers after those in y, b and c. Six rows at once keep a core's multipliers busy: twelve sums
    fit the registers of AVX2. Those that are left go together too, for one row waits as long.
    """
    i = 0
    while i + 6 <= rows:
        _six(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
             y_rows + i, terms)  # fmt: skip
        i += 6
    left = rows - i
    if left == 5:
        _five(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
              y_rows + i, terms)  # fmt: skip
    elif left == 4:
        _four(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
              y_rows + i, terms)  # fmt: skip
    elif left == 3:
        _three(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
               y_rows + i, terms)  # fmt: skip
    elif left == 2:
        _two(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
             y_rows + i, terms)  # fmt: skip
    elif left == 1:
        _one(tables, a, a_at, a_rows + i, a_terms, b, b_at, step, c, c_at, c_rows + i, y, y_at,
             y_rows + i, terms)  # fmt: skip
