"""Field: for each texel of a course, where the nearest of its lines is; what painters look up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from hotlap.track import Track
from hotlap.types import Array, Float32

__all__ = ["survey"]

_MARGIN = 0.5
"""Field beyond the borders, in road widths; farther out, distances are extrapolated linearly."""
_TEXELS_ACROSS = 16
"""Texels over the mean road width: 3 to 7 cm on a 1/18 course, so that a field fits the L2."""
_TEXELS_MAX = 1 << 24
_TILE = 16
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_f4, _i8 = np.float32, np.int64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)


def survey(tracks: Sequence[Track]) -> tuple[Array, Float32, Array]:
    """Survey the tracks.

    Returns:
        (texels,) int64, packed: see `_survey`.
        (tracks, 7) float32: x and y of the field's corner [m], texels per metre, metres per step
        of the line distance, of the half width, of the arc length, length of the course [m].
        (tracks, 3) int64: first texel, columns, rows.
    """
    frames, sizes, first = [], [], 0
    for track in tracks:
        line = track.stations
        reach = max(float(line.left.max()), float(line.right.max()))
        width = float((line.left + line.right).mean())
        grow = reach + _MARGIN * width
        corners = np.array([[line.x.min(), line.y.min()], [line.x.max(), line.y.max()]], float)
        span = corners[1] - corners[0] + 2 * grow
        texel = max(width / _TEXELS_ACROSS, math.sqrt(span[0] * span[1] / _TEXELS_MAX))
        columns, rows = (int(n) for n in np.ceil(span / texel))
        # Centred, so that the field of a mirrored course is the mirrored field.
        low = corners.mean(axis=0) - texel / 2 * np.array([columns, rows])
        frames.append([*low, 1 / texel, 8 * width / 32767, reach / 255, track.length / 65535])
        frames[-1].append(track.length)
        sizes.append([first, columns, rows])
        first += columns * rows
    field = np.empty(first, np.int64)
    frame, size = np.array(frames, np.float32), np.array(sizes, np.int64)
    for index, track in enumerate(tracks):
        line = track.stations
        _survey(
            field,
            frame[index],
            size[index],
            np.stack([line.x, line.y, line.tx, line.ty, line.curvature, line.left, line.right]),
            _f4(line.spacing),
            bool(line.closed),
        )
    return field, frame, size


@_compiled
def _survey(field, frame, size, line, spacing, closed):  # type: ignore[no-untyped-def]
    """Fill one track's texels with the nearest line at their centres.

    A texel is, from its highest bits: 16 arc length, 8 half width of the road on this side, 8 flag,
    16 signed distance d to the nearest line, 8 + 8 the normal along which d grows. The lowest bit
    of the flag says which line is meant: the centre line (then d is the offset to the left) or the
    border (then d is how far outside); the next one is 1 to the right of the centre line.
    """
    stations = line.shape[1]
    columns, rows = size[1], size[2]
    texel = _ONE / frame[2]
    near = np.empty(stations, np.float32)
    chosen = np.empty(stations, np.int64)
    radius = texel * _f4(_TILE * 0.7072)
    last = _f4(stations - 1) * spacing
    for tile_row in range(0, rows, _TILE):
        for tile_column in range(0, columns, _TILE):
            # Only stations this near the tile can be the nearest of one of its texels.
            px = frame[0] + texel * _f4(tile_column + _TILE // 2)
            py = frame[1] + texel * _f4(tile_row + _TILE // 2)
            best = _f4(1e30)
            for k in range(stations):
                near[k] = (line[0, k] - px) ** 2 + (line[1, k] - py) ** 2
                best = min(best, near[k])
            limit = (math.sqrt(best) + _f4(2) * radius) ** 2
            count = 0
            for k in range(stations):
                if near[k] <= limit:
                    chosen[count] = k
                    count += 1
            for row in range(tile_row, min(tile_row + _TILE, rows)):
                for column in range(tile_column, min(tile_column + _TILE, columns)):
                    px = frame[0] + texel * (_f4(column) + _HALF)
                    py = frame[1] + texel * (_f4(row) + _HALF)
                    k = 0
                    best = _f4(1e30)
                    for c in range(count):
                        d2 = (line[0, chosen[c]] - px) ** 2 + (line[1, chosen[c]] - py) ** 2
                        if d2 < best:
                            best = d2
                            k = chosen[c]
                    tx, ty, bend = line[2, k], line[3, k], line[4, k]
                    along = tx * (px - line[0, k]) + ty * (py - line[1, k])
                    across = tx * (py - line[1, k]) - ty * (px - line[0, k])
                    # About the station the centre line is an arc: offset and turn are exact on it.
                    inside = max(_ONE - bend * across, _f4(0.05))
                    n = _f4(2) * across - bend * (along * along + across * across)
                    n /= _ONE + math.sqrt(inside * inside + (bend * along) ** 2)
                    turn = math.atan(bend * along / inside)
                    ahead = turn / bend if abs(bend) > _f4(1e-4) else along / inside
                    cosine, sine = math.cos(turn), math.sin(turn)
                    tx, ty = tx * cosine - ty * sine, ty * cosine + tx * sine
                    s = _f4(k) * spacing + ahead
                    other = k + 1 if ahead > _ZERO else k - 1
                    if closed:
                        other = (other + stations) % stations
                        s += last + spacing if s < _ZERO else _ZERO
                        s -= last + spacing if s >= last + spacing else _ZERO
                    else:
                        other = min(max(other, 0), stations - 1)
                    side = _ONE if n >= _ZERO else -_ONE
                    edge = 5 if n >= _ZERO else 6
                    slope = (line[edge, other] - line[edge, k]) / spacing
                    half = line[edge, k] + slope * abs(ahead)
                    slope = slope if ahead > _ZERO else -slope
                    tilt = slope / max(_ONE - bend * side * half, _f4(0.05))
                    level = _ONE / math.sqrt(_ONE + tilt * tilt)
                    offset = side * n
                    outside = (offset - half) * level
                    fx = (-ty * side - tilt * tx) * level
                    fy = (tx * side - tilt * ty) * level
                    over = _f4(-1e30) if closed else max(-s, s - last)
                    forth = -_ONE if s < last * _HALF else _ONE
                    gx, gy = tx * forth, ty * forth
                    flag = 1
                    if over > _ZERO and outside > _ZERO:  # about the corner of an open course
                        d = _f4(math.sqrt(over * over + outside * outside))
                        nx = (fx * outside + gx * over) / d
                        ny = (fy * outside + gy * over) / d
                    elif over > max(outside, -half * _HALF):  # at the end of an open course
                        d, nx, ny = _f4(over), gx, gy
                    elif offset > _HALF * half:
                        d, nx, ny = outside, fx, fy
                    else:
                        flag, d, nx, ny = 0, n, -ty, tx
                    word = _i8(min(max(s / frame[5], _ZERO), _f4(65535)))
                    word = (word << 8) | _i8(min(max(half / frame[4] + _HALF, _ZERO), _f4(255)))
                    word = (word << 8) | _i8(flag if n >= _ZERO else flag | 2)
                    d = min(max(d / frame[3], _f4(-32767)), _f4(32767))
                    word = (word << 16) | (_i8(np.floor(d + _HALF)) & 0xFFFF)
                    word = (word << 8) | (_i8(np.floor(nx * _f4(127) + _HALF)) & 0xFF)
                    word = (word << 8) | (_i8(np.floor(ny * _f4(127) + _HALF)) & 0xFF)
                    field[size[0] + row * columns + column] = word
