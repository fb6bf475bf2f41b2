"""JPEG: what its compression does to images, without writing a file.

A decoder's picture is the encoder's, but for what the quantisation of 8x8 blocks of cosines threw
away, so that is all that is computed. Sixteen blocks are transformed side by side.

Source: ITU-T T.81 (1992): transform A.3.3, example tables K.1 and K.2; quality as in libjpeg;
colours as in JFIF 1.02, their planes halved in both directions (4:2:0), as most cameras do.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hotlap.types import Float32

__all__ = ["compress", "quantisers"]

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)  # fmt: skip
_LANES = 16
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline = njit(nogil=True, fastmath=True, error_model="numpy", forceinline=True)
_f4, _i4, _u8 = np.float32, np.int32, np.uint64
_ZERO, _HALF, _MIDDLE, _TOP = _f4(0), _f4(0.5), _f4(128), _f4(255)
_HALF_UP = _f4(0.5001)
"""Ties of even blocks round away from 0 although float32 may fall just short of them."""
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (_f4(math.cos(k * math.pi / 16) / 2) for k in range(1, 8))


def quantisers() -> Float32:
    """Return (101, 2, 64) float32: steps of luminance and chrominance for each quality, row-major.

    Quality 0 is that of 1. Source: `jpeg_quality_scaling` of libjpeg.
    """
    base = np.array([_LUMINANCE, _CHROMINANCE]).reshape(2, 64)
    quality = np.maximum(np.arange(101), 1)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    return np.asarray(np.clip((base * scale + 50) // 100, 1, 255), np.float32)


@_compiled
def compress(  # type: ignore[no-untyped-def]
    image, height, width, channels, first, colours, step, planes, blocks,
):  # fmt: skip
    """Compress one picture in place.

    Args:
        image: (H * W * channels,) uint8.
        height: H.
        width: W.
        channels: of the image; a pair of pictures has those of both.
        first: the picture's first channel.
        colours: 1 grey, 3 red, green and blue.
        step: (2, 64) float32, of `quantisers`.
        planes: (3, H, W) float32 scratch.
        blocks: (2, 64 * 16) float32 scratch.
    """
    pixels = height * width
    y, cb, cr = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    step_of, start = _u8(channels), _u8(first)
    if channels == 1:
        for i in range(pixels):
            y[i] = _f4(image[start + _u8(i)]) - _MIDDLE
        _squeeze(y, height, width, step[0], blocks)
        for i in range(pixels):
            image[start + _u8(i)] = np.uint8(_i4(y[i] + _MIDDLE))
        return
    if colours == 1:
        for i in range(pixels):
            y[i] = _f4(image[start + _u8(i) * step_of]) - _MIDDLE
        _squeeze(y, height, width, step[0], blocks)
        for i in range(pixels):
            image[start + _u8(i) * step_of] = np.uint8(_i4(y[i] + _MIDDLE))
        return
    for i in range(pixels):
        at = start + _u8(i) * step_of
        red, green, blue = _f4(image[at]), _f4(image[at + _u8(1)]), _f4(image[at + _u8(2)])
        grey = _f4(0.299) * red + _f4(0.587) * green + _f4(0.114) * blue
        y[i] = np.floor(grey + _HALF) - _MIDDLE
        cb[i] = np.floor((blue - grey) * _f4(0.5 / 0.886) + _HALF)
        cr[i] = np.floor((red - grey) * _f4(0.5 / 0.701) + _HALF)
    _squeeze(y, height, width, step[0], blocks)
    tall, wide = (height + 1) // 2, (width + 1) // 2
    for plane in (cb, cr):
        _halve(plane, height, width)
        _squeeze(plane, tall, wide, step[1], blocks)
    b, r = np.empty(2 * wide, np.float32), np.empty(2 * wide, np.float32)
    line = np.empty(wide, np.float32)
    for row in range(height):
        far = min(max(row // 2 + (1 if row & 1 else -1), 0), tall - 1)
        _enlarge(cb, row // 2 * wide, far * wide, line, b)
        _enlarge(cr, row // 2 * wide, far * wide, line, r)
        begin = row * width
        for column in range(width):
            grey = y[_u8(begin + column)] + _MIDDLE
            at = start + _u8(begin + column) * step_of
            image[at] = _byte(grey + _f4(1.402) * r[column])
            image[at + _u8(1)] = _byte(grey - _f4(0.344136) * b[column] - _f4(0.714136) * r[column])
            image[at + _u8(2)] = _byte(grey + _f4(1.772) * b[column])


@_inline
def _byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(_i4(min(max(value + _HALF, _ZERO), _TOP)))


@_compiled
def _enlarge(plane, near, far, line, out):  # type: ignore[no-untyped-def]
    """Double a row of a halved plane as decoders do: the nearest sample counts 3 times the next."""
    wide = len(line)
    for j in range(wide):
        line[j] = _f4(3) * plane[_u8(near + j)] + plane[_u8(far + j)]
    for j in range(wide):
        before, after = line[max(j - 1, 0)], line[min(j + 1, wide - 1)]
        out[2 * j] = np.floor((_f4(3) * line[j] + before) * _f4(1 / 16) + _HALF)
        out[2 * j + 1] = np.floor((_f4(3) * line[j] + after) * _f4(1 / 16) + _f4(0.4375))


@_compiled
def _halve(plane, height, width):  # type: ignore[no-untyped-def]
    """Put the means of 2x2 samples to the front of the plane."""
    wide = (width + 1) // 2
    for row in range((height + 1) // 2):
        above = 2 * row * width
        below = min(2 * row + 1, height - 1) * width
        for column in range(wide):
            a, b = 2 * column, min(2 * column + 1, width - 1)
            total = plane[above + a] + plane[above + b] + plane[below + a] + plane[below + b]
            # encoders round halves up in every second column, so that there is no drift
            plane[row * wide + column] = np.floor((total + _f4(1 + (column & 1))) * _f4(0.25))


@_compiled
def _squeeze(plane, height, width, step, blocks):  # type: ignore[no-untyped-def]
    """Quantise the cosines of all 8x8 blocks of a plane about 0, sixteen blocks at a time."""
    across = (width + 7) // 8
    count = across * ((height + 7) // 8)
    a, b = blocks[0], blocks[1]
    # Always _LANES; but a loop known to be short is unrolled before it can be vectorised.
    lanes = min(_LANES, blocks.shape[1] // 64)
    for group in range(0, count, _LANES):
        for lane in range(lanes):
            block = min(group + lane, count - 1)
            top, left = block // across * 8, block % across * 8
            inside = top + 8 <= height and left + 8 <= width
            for row in range(8):
                begin = min(top + row, height - 1) * width
                at = _u8(8 * row * _LANES + lane)
                if inside:
                    for column in range(8):
                        a[at + _u8(column * _LANES)] = plane[_u8(begin + left + column)]
                else:
                    for column in range(8):
                        a[at + _u8(column * _LANES)] = plane[begin + min(left + column, width - 1)]
        for k in range(8):
            _cosines(a, b, 8 * k * _LANES, _LANES, lanes)
        for k in range(8):
            _cosines(b, a, k * _LANES, 8 * _LANES, lanes)
        for k in range(64):
            inverse = _f4(1) / step[k]
            for lane in range(lanes):
                i = k * _LANES + lane
                # halves away from 0, as encoders do
                found = np.floor(abs(a[i]) * inverse + _HALF_UP) * step[k]
                a[i] = found if a[i] > _ZERO else -found
        for k in range(8):
            _levels(a, b, k * _LANES, 8 * _LANES, lanes)
        for k in range(8):
            _levels(b, a, 8 * k * _LANES, _LANES, lanes)
        for i in range(64 * _LANES):
            a[i] = min(max(np.floor(a[i] + _HALF), -_MIDDLE), _TOP - _MIDDLE)
        for lane in range(min(lanes, count - group)):
            top, left = (group + lane) // across * 8, (group + lane) % across * 8
            for row in range(min(8, height - top)):
                begin = (top + row) * width + left
                for column in range(min(8, width - left)):
                    value = a[_u8((8 * row + column) * _LANES + lane)]
                    plane[_u8(begin + column)] = value


@_inline
def _cosines(source, to, begin, stride, lanes):  # type: ignore[no-untyped-def]
    """Transform eight numbers `stride` apart, in all lanes: T.81, A.3.3, in one direction."""
    for lane in range(lanes):
        i = begin + lane
        x0, x1, x2 = source[i], source[i + stride], source[i + 2 * stride]
        x3, x4, x5 = source[i + 3 * stride], source[i + 4 * stride], source[i + 5 * stride]
        x6, x7 = source[i + 6 * stride], source[i + 7 * stride]
        s0, s1, s2, s3 = x0 + x7, x1 + x6, x2 + x5, x3 + x4
        d0, d1, d2, d3 = x0 - x7, x1 - x6, x2 - x5, x3 - x4
        e0, e1, e2, e3 = s0 + s3, s1 + s2, s1 - s2, s0 - s3
        to[i] = (e0 + e1) * _C4
        to[i + stride] = d0 * _C1 + d1 * _C3 + d2 * _C5 + d3 * _C7
        to[i + 2 * stride] = e3 * _C2 + e2 * _C6
        to[i + 3 * stride] = d0 * _C3 - d1 * _C7 - d2 * _C1 - d3 * _C5
        to[i + 4 * stride] = (e0 - e1) * _C4
        to[i + 5 * stride] = d0 * _C5 - d1 * _C1 + d2 * _C7 + d3 * _C3
        to[i + 6 * stride] = e3 * _C6 - e2 * _C2
        to[i + 7 * stride] = d0 * _C7 - d1 * _C5 + d2 * _C3 - d3 * _C1


@_inline
def _levels(source, to, begin, stride, lanes):  # type: ignore[no-untyped-def]
    """Undo `_cosines`."""
    for lane in range(lanes):
        i = begin + lane
        y0, y1, y2 = source[i], source[i + stride], source[i + 2 * stride]
        y3, y4, y5 = source[i + 3 * stride], source[i + 4 * stride], source[i + 5 * stride]
        y6, y7 = source[i + 6 * stride], source[i + 7 * stride]
        e0, e1 = (y0 + y4) * _C4, (y0 - y4) * _C4
        e2, e3 = y2 * _C2 + y6 * _C6, y2 * _C6 - y6 * _C2
        a0, a1, a2, a3 = e0 + e2, e1 + e3, e1 - e3, e0 - e2
        o0 = y1 * _C1 + y3 * _C3 + y5 * _C5 + y7 * _C7
        o1 = y1 * _C3 - y3 * _C7 - y5 * _C1 - y7 * _C5
        o2 = y1 * _C5 - y3 * _C1 + y5 * _C7 + y7 * _C3
        o3 = y1 * _C7 - y3 * _C5 + y5 * _C3 - y7 * _C1
        to[i], to[i + 7 * stride] = a0 + o0, a0 - o0
        to[i + stride], to[i + 6 * stride] = a1 + o1, a1 - o1
        to[i + 2 * stride], to[i + 5 * stride] = a2 + o2, a2 - o2
        to[i + 3 * stride], to[i + 4 * stride] = a3 + o3, a3 - o3
