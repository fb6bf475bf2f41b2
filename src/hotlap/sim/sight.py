"""Sight: what each pixel of a camera meets first, how far away, by the ray through its centre.

A ray goes where the lens bends it, so one way serves straight pictures and bent ones. Pixels are
asked in tiles of so many that the loops over them are vectorised, and so few that most tiles have
nothing to do with a box. Walls are met as in the pictures, once for each column of a level image; a
bent picture has up to four of these, to all sides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from hotlap.series import prefer_512_bits
from hotlap.sim.lens import Mounting, focal_length, rays
from hotlap.sim.relief import Class
from hotlap.sim.walls import Walls, level_rows
from hotlap.simulator import BOX_FIELDS
from hotlap.threads import spread
from hotlap.types import Array, Float32, Float64, Int32

if TYPE_CHECKING:
    from hotlap.sim.camera import CameraSettings

__all__ = ["Sight"]

_ACROSS, _DOWN = 16, 8
"""Columns and rows of a tile. No picture is smaller."""
_TILE = _ACROSS * _DOWN
# Parts of the scratch, of a tile's numbers each. Of each ray, which is no unit: how far it goes
# ahead, to the right and down; the inverse of how many rays away it meets something, and what.
_AHEAD, _RIGHT, _FALL, _INVERSE, _KIND = (k * _TILE for k in range(5))
# Of where it meets the ground: the place in a texel. In a level image: how far it goes ahead and
# up, its distance from a column; the inverse of the distance of the wall there, and its slope.
_U, _V, _TOWARD, _UP, _OFF, _NEAR_BY, _SLOPE = (k * _TILE for k in range(5, 12))
_SCRATCH = _SLOPE + _TILE
_SEEN = 14
"""What is kept of a box in sight, see `_list`."""
_FACES = 4
_TAPS = 2
"""Columns of a level image for each pixel of a bent picture."""
_BEAMS_MAX = 16
"""Most columns of a level image, in columns of the picture."""
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
"""For tiles: to hand over an array costs as much as ten pixels."""
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)
_NEAR = _f4(0.02)
"""Nothing nearer to the lens than this is met [m]; as in the pictures."""
_LEAST_AHEAD = _f4(0.08)
"""Rays of straight pictures that go ahead by less meet no walls; as in the pictures."""
_SKY, _GROUND, _ROAD, _BORDER, _DASH, _WALL, _OBSTACLE = (_f4(one) for one in list(Class)[:7])


class Sight:
    """What a camera sees with, in each of its mountings.

    Args:
        settings: the camera.
        mountings: K of them.
        straight: whether no lens bends the picture and no mounting rolls it.
        walls: those that its pictures show.
        ground: looks, floors, field, frames and sizes, as for `camera.Camera` and `floor.floors`.
        threads: how many threads share the work; the result does not depend on it.

    Costs 12 bytes for each pixel and mounting where the picture is not straight.
    """

    def __init__(
        self,
        settings: CameraSettings,
        mountings: tuple[Mounting, ...],
        *,
        straight: bool,
        walls: Walls,
        ground: tuple[Float32, Float32, Array, Float32, Array],
        threads: int,
    ) -> None:
        self._settings, self._walls, self._ground = settings, walls, ground
        self._threads = threads
        pitches = [math.radians(settings.pitch_deg) + one.pitch for one in mountings]
        focals = [focal_length(settings, one) for one in mountings]
        tall = [settings.mount_height + one.height for one in mountings]
        self._aside = np.array([math.radians(settings.yaw_deg) + m.yaw for m in mountings], _f4)
        # The last one is how far ahead of its pose the lens is: it is the pose here.
        columns = [focals, np.sin(pitches), np.cos(pitches), tall, np.zeros(len(tall))]
        self._lenses = np.ascontiguousarray(np.array(columns).T, _f4)
        self._slots = np.zeros(_FACES, np.int32)
        self._turns = np.zeros(1, np.float32)
        cut = [_tiles(rays(settings, one)) for one in mountings]
        self._cones = np.stack([_cones(one) for one in cut])
        if straight:
            self._rays = np.empty((0, 0, 0), np.float32)
            size = settings.width, settings.height
            spans = [level_rows(*size, f, p)[1] for f, p in zip(focals, pitches, strict=True)]
            self._spans = np.stack(spans)
            return
        self._rays = np.stack(cut).astype(np.float32).reshape(len(cut), -1, 3 * _TILE)
        used, self._spans = _level(self._rays, settings.width)
        self._turns = (math.pi / 2 * used).astype(np.float32)
        self._slots[used] = np.arange(len(used))

    def depth(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, mount: Array,
        boxes: Array | None, range_max: float,
    ) -> Float32:  # fmt: skip
        """Return (M, H, W, 1) as `camera.Camera.depth` says, whose arguments these are."""
        depth = np.empty((len(x), self._settings.height, self._settings.width, 1), np.float32)
        kind = np.empty(0, np.uint8)
        self._look(depth.reshape(-1), kind, x, y, yaw, track, look, mount, boxes, range_max)
        return depth

    def classes(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, mount: Array,
        boxes: Array | None,
    ) -> Array:  # fmt: skip
        """Return (M, H, W, 1) as `camera.Camera.segmentation` says, whose arguments these are."""
        kind = np.empty((len(x), self._settings.height, self._settings.width, 1), np.uint8)
        depth = np.empty(0, np.float32)
        self._look(depth, kind.reshape(-1), x, y, yaw, track, look, mount, boxes, 1.0)
        return kind

    def _look(
        self, depth: Float32, kind: Array, x: Array, y: Array, yaw: Array, track: Array,
        look: Array, mount: Array, boxes: Array | None, range_max: float,
    ) -> None:  # fmt: skip
        forward = _f4(self._settings.mount_forward)
        x, y = x + forward * np.cos(yaw), y + forward * np.sin(yaw)
        yaw = yaw + self._aside[mount]
        if boxes is None:
            boxes = np.empty((len(x), 0, len(BOX_FIELDS)), np.float32)
        faces = len(self._turns)
        turned = (yaw[:, None] + self._turns).reshape(-1)
        there = [np.repeat(one, faces) for one in (track, look, mount)]
        through = self._lenses, self._spans
        met = self._walls.meet(
            np.repeat(x, faces), np.repeat(y, faces), turned, *there, through=through
        )
        spread(
            _look,
            len(x),
            *(depth, kind, self._settings.height, self._settings.width, _f4(range_max)),
            *(x, y, yaw, track, look, mount, self._lenses, self._rays, self._cones),
            *(met, faces, self._spans, self._slots, self._walls.heights, boxes, *self._ground),
            block=1,
            threads=self._threads,
        )


def _tiles(one: Float64) -> Float64:
    """Cut (H, W, 3) rays, as `lens.rays` gives them, into (tiles, 3, 128): ahead, right, down."""
    height, width = one.shape[:2]
    top = np.minimum(np.arange(0, height, _DOWN), height - _DOWN)
    left = np.minimum(np.arange(0, width, _ACROSS), width - _ACROSS)
    row = (top[:, None] + np.arange(_DOWN))[:, None, :, None]
    column = (left[:, None] + np.arange(_ACROSS))[None, :, None, :]
    tiles = one[row, column].reshape(-1, _TILE, 3)[..., [2, 0, 1]]
    return np.asarray(tiles.transpose(0, 2, 1))


def _cones(tiles: Float64) -> Float32:
    """Return (tiles + 1, 5), the last for all: middle of the rays, sine and cosine about it.

    A cone that is wider than a half space is the whole space: no middle, 0 and -1.
    """
    groups = [*tiles, tiles.transpose(1, 0, 2).reshape(3, -1)]
    found = np.zeros((len(groups), 5))
    for cone, group in zip(found, groups, strict=True):
        middle = group.sum(axis=1)
        middle /= max(float(np.linalg.norm(middle)), 1e-9)
        least = float((middle @ group).min())
        cone[:] = [*middle, math.sqrt(max(1 - least**2, 0)), least] if least > 0 else _WHOLE
    return found.astype(np.float32)


_WHOLE = (0, 0, 0, 0, -1)


def _level(sight: Float32, width: int) -> tuple[Int32, Float32]:
    """Return to which sides rays go, and the columns of their level images.

    Returns:
        (F,) quarter turns to the left.
        (K, 4) for each mounting, all the same: see `walls.level_rows`.
    """
    ahead, right, down = sight.reshape(*sight.shape[:2], 3, _TILE).transpose(2, 0, 1, 3)
    side = np.abs(right) > np.abs(ahead)
    face = np.where(side, np.where(right > 0, 3, 1), np.where(ahead < 0, 2, 0))
    toward = np.where(side, np.abs(right), np.abs(ahead))
    aside = np.where(side, np.abs(ahead), np.abs(right))
    tile = np.stack([ahead, right, down]).reshape(3, -1, _DOWN, _ACROSS).astype(float)
    steps = [np.linalg.norm(np.diff(tile, axis=axis), axis=0).ravel() for axis in (2, 3)]
    step = float(np.quantile(np.concatenate(steps), 0.1)) / _TAPS
    reach = float((aside / np.maximum(toward, _f4(1e-6))).max()) + step
    step = max(step, 2 * reach / (_BEAMS_MAX * width))
    span = [math.ceil(2 * reach / step) + 1, -reach, 1 / step, step]
    return np.unique(face).astype(np.int32), np.tile(np.array(span, _f4), (len(sight), 1))


@_compiled
def _look(  # type: ignore[no-untyped-def]
    start, stop, depth, kind, height, width, far, x, y, yaw, track, look, mount,
    lenses, sight, cones, met, faces, spans, slots, heights, boxes, looks, floors,
    field, frames, sizes,
):  # fmt: skip
    """Fill the pictures start..stop of `depth` or of `kind`, flat; the other one is empty."""
    prefer_512_bits()
    across, tiles = -(-width // _ACROSS), cones.shape[1] - 1
    # Always _ACROSS; but a loop known to be short is unrolled before it can be vectorised.
    lanes = min(width, _ACROSS)
    m = np.zeros(_SCRATCH, np.float32)
    where, low = np.empty(_TILE, np.int32), np.empty(_TILE, np.int32)
    high = np.empty(_TILE, np.int32)
    seen = np.empty((boxes.shape[1], _SEEN), np.float32)
    for image in range(start, stop):
        lens, cone, which = lenses[mount[image]], cones[mount[image]], look[image]
        span, tall, above = spans[mount[image]], lens[3], heights[which] - lens[3]
        frame, size, paint = frames[track[image]], sizes[track[image]], looks[which]
        c, s = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        many = _list(boxes[image], x[image], y[image], c, s, tall, cone[tiles], seen)
        nearest = _ZERO
        if len(met) > 0 and heights[which] > _ZERO:
            nearest = _bound(met, image * faces, faces, _i8(span[0]), span[3])
        for tile in range(tiles):
            top = min(tile // across * _DOWN, height - _DOWN)
            left = min(tile % across * _ACROSS, width - _ACROSS)
            if len(sight) > 0:
                _take(m, sight, mount[image], tile)
            else:
                _aim(m, lens, left, top, width, height, lanes)
            if _stand(m, tall) and len(kind) > 0:
                _find(m, where, x[image], y[image], c, s, tall, frame, size)
                _fetch(where, field, size[0], low, high)
                _name(m, low, high, paint, floors[which, 1, 0], frame)
            if nearest > _ZERO:
                walled = _aside(m, where, span, slots, met, len(sight) == 0, nearest, above, tall)
                layer = 0 if walled else met.shape[2]
                while layer < met.shape[2] and _fetch_walls(m, where, met, image * faces, layer):
                    _raise(m, above, tall)
                    layer += 1
            for box in range(many):
                if _is_in_sight(seen[box], cone[tile]):
                    _put(m, seen[box])
            o = (image * height + top) * width + left
            if len(kind) > 0:
                _write_kind(m, kind, o, width, lanes)
            else:
                _write_depth(m, depth, o, width, lens, far, lanes)


@_compiled
def _list(boxes, x, y, c, s, tall, cone, seen):  # type: ignore[no-untyped-def]
    """List the boxes that may be in sight; return how many there are.

    `seen`, of each: cosine and sine of the angle from it to the direction of view; the lens in its
    frame; its half sizes [m]; its class; the direction of its middle from the lens, as rays go; and
    sine and cosine of the angle about it that a sphere around it takes.
    """
    many = 0
    for k in range(boxes.shape[0]):
        box = boxes[k]
        if box[6] <= _ZERO:
            continue
        one = seen[many]
        dx, dy, half = x - box[0], y - box[1], _HALF * box[6]
        one[0], one[1] = box[2] * c + box[3] * s, box[2] * s - box[3] * c
        one[2], one[3] = box[2] * dx + box[3] * dy, box[2] * dy - box[3] * dx
        one[4] = tall - half
        one[5], one[6], one[7] = box[4], box[5], half
        one[8] = _OBSTACLE + box[7]
        ahead, right, down = -(c * dx + s * dy), c * dy - s * dx, tall - half
        away = math.sqrt(ahead * ahead + right * right + down * down)
        around = math.sqrt(box[4] * box[4] + box[5] * box[5] + half * half)
        inverse = _ONE / away if away > around else _ZERO  # the lens is in the sphere: to all sides
        one[9], one[10], one[11] = ahead * inverse, right * inverse, down * inverse
        one[12] = min(around * inverse, _ONE) if away > around else _ONE
        one[13] = math.sqrt(_ONE - one[12] * one[12])
        many += 1 if _is_in_sight(one, cone) else 0
    return many


@_inline
def _is_in_sight(box, cone):  # type: ignore[no-untyped-def]
    """Tell whether the sphere around a box and a cone of rays meet."""
    along = cone[0] * box[9] + cone[1] * box[10] + cone[2] * box[11]
    return along >= cone[4] * box[13] - cone[3] * box[12] - _f4(1e-4)


@_compiled
def _bound(met, first, faces, columns, step):  # type: ignore[no-untyped-def]
    """Return the greatest inverse distance of the walls of a picture [1/m]."""
    nearest = _ZERO
    for face in range(first, first + faces):
        for k in range(columns):
            half = _HALF * step * abs(met[face, 1, 0, k])
            nearest = max(nearest, met[face, 0, 0, k] + half)
    return nearest


@_inline
def _take(m, sight, which, tile):  # type: ignore[no-untyped-def]
    """Take the rays of a tile of a bent picture."""
    prefer_512_bits()
    for j in range(3 * _TILE):
        m[_u8(j)] = sight[which, tile, _u8(j)]


@_inline
def _aim(m, lens, left, top, width, height, lanes):  # type: ignore[no-untyped-def]
    """Aim the rays of a tile of a straight picture: each goes 1 m along the axis."""
    prefer_512_bits()
    step = _ONE / lens[0]
    u = (_f4(left) + _HALF - _HALF * _f4(width)) * step
    for row in range(_DOWN):
        v = (_f4(top + row) + _HALF - _HALF * _f4(height)) * step
        ahead, fall = lens[2] - v * lens[1], lens[1] + v * lens[2]
        for j in range(lanes):
            m[_u8(_AHEAD + row * _ACROSS + j)] = ahead
            m[_u8(_RIGHT + row * _ACROSS + j)] = u + step * _f4(_i4(j))
            m[_u8(_FALL + row * _ACROSS + j)] = fall


@_inline
def _stand(m, tall):  # type: ignore[no-untyped-def]
    """Let rays meet the ground or the sky; tell whether any meets the ground."""
    prefer_512_bits()
    # Sums, as LLVM does not vectorise the greatest of many.
    inverse, total = _ONE / tall, _ZERO
    for j in range(_TILE):
        fall = max(m[_u8(_FALL + j)], _ZERO)
        m[_u8(_INVERSE + j)] = fall * inverse
        m[_u8(_KIND + j)] = _GROUND if fall > _ZERO else _SKY
        total += fall
    return total > _ZERO


@_inline
def _find(m, where, x, y, c, s, tall, frame, size):  # type: ignore[no-untyped-def]
    """Find the texels in which rays meet the ground, and where in them."""
    prefer_512_bits()
    right, top, columns = _f4(size[1] - 1), _f4(size[2] - 1), _i4(size[1])
    x, y = (x - frame[0]) * frame[2], (y - frame[1]) * frame[2]
    c, s = c * frame[2], s * frame[2]
    for j in range(_TILE):
        away = tall / max(m[_u8(_FALL + j)], _f4(1e-9))
        ahead, aside = m[_u8(_AHEAD + j)] * away, m[_u8(_RIGHT + j)] * away
        u, v = x + c * ahead + s * aside, y + s * ahead - c * aside
        column, row = _i4(min(max(u, _ZERO), right)), _i4(min(max(v, _ZERO), top))
        where[_u8(j)] = row * columns + column
        m[_u8(_U + j)], m[_u8(_V + j)] = u - _f4(column) - _HALF, v - _f4(row) - _HALF


@_inline
def _fetch(where, field, first, low, high):  # type: ignore[no-untyped-def]
    prefer_512_bits()
    for j in range(_TILE):
        word = field[_u8(first + where[_u8(j)])]
        low[_u8(j)], high[_u8(j)] = _i4(word), _i4(word >> 32)


@_inline
def _name(m, low, high, paint, kerb, frame):  # type: ignore[no-untyped-def]
    """Name what is painted on the ground that rays meet."""
    prefer_512_bits()
    reach, step_d, step_w, step_s = _ONE / (frame[2] * _f4(127)), frame[3], frame[4], frame[5]
    border, middle = paint[6, 0], paint[7, 0] * _HALF
    period = paint[8, 0] + paint[9, 0]
    duty = paint[8, 0] / period
    # As many periods as fit best, so that the pattern closes after a lap.
    frequency = max(np.floor(frame[6] / period + _HALF), _ONE) / frame[6]
    for j in range(_TILE):
        a, b = low[_u8(j)], high[_u8(j)]
        u, v = m[_u8(_U + j)], m[_u8(_V + j)]
        nx, ny = _f4(_i4(_i4(a << 16) >> 24)), _f4(_i4(_i4(a << 24) >> 24))
        d = _f4(_i4(a >> 16)) * step_d + (u * nx + v * ny) * reach
        half = _f4(_i4((b >> 8) & 0xFF)) * step_w
        s = _f4(_i4((b >> 16) & 0xFFFF)) * step_s + (u * ny - v * nx) * reach
        offset = half + d if (b & 1) != 0 else abs(d)
        turn = s * frequency
        found = _BORDER if offset > half - border else _ROAD
        found = _DASH if (offset < middle) & (turn - np.floor(turn) < duty) else found
        found = found if offset < half else (_BORDER if offset < half + kerb else _GROUND)
        m[_u8(_KIND + j)] = found if m[_u8(_FALL + j)] > _ZERO else _SKY


@_inline
def _aside(m, where, span, slots, met, straight, nearest, above, low):  # type: ignore[no-untyped-def]
    """Find the columns of the level images in which rays go; tell whether any may meet a wall."""
    prefer_512_bits()
    part = _i4(met.shape[2] * met.shape[3])
    last, begin, per_step, step = span[0] - _ONE, span[1], span[2], span[3]
    front, left, back, right = slots[0], slots[1], slots[2], slots[3]
    total, highest, lowest = _ZERO, max(above, _ZERO) * nearest, -low * nearest
    for j in range(_TILE):
        ahead, aside = m[_u8(_AHEAD + j)], m[_u8(_RIGHT + j)]
        toward, slot, off = ahead, front, aside
        if straight:
            up = -m[_u8(_FALL + j)] / max(ahead, _LEAST_AHEAD)
            up = up if ahead > _LEAST_AHEAD else _f4(1e9)
            toward = max(ahead, _LEAST_AHEAD)
        else:
            side = abs(aside) > abs(ahead)
            slot = right if aside > _ZERO else left
            slot = slot if side else (front if ahead >= _ZERO else back)
            toward = max(abs(aside) if side else abs(ahead), _f4(1e-6))
            # a quarter turn to the right, to the left, or half a turn
            off = -ahead if aside > _ZERO else ahead
            off = off if side else (aside if ahead >= _ZERO else -aside)
            up = -m[_u8(_FALL + j)] / toward
        t = off / toward - begin
        column = _i4(min(max(t * per_step + _HALF, _ZERO), last))
        where[_u8(j)] = slot * _i4(3) * part + column
        m[_u8(_TOWARD + j)], m[_u8(_UP + j)] = toward, up
        m[_u8(_OFF + j)] = t - _f4(column) * step
        total += _ONE if (up <= highest) & (up >= lowest) else _ZERO
    return total > _ZERO


@_inline
def _fetch_walls(m, where, met, first, layer):  # type: ignore[no-untyped-def]
    """Fetch the walls of a layer; tell whether there are any."""
    prefer_512_bits()
    table, total = met[first:].reshape(-1), _ZERO
    begin, slope = layer * met.shape[3], met.shape[2] * met.shape[3]
    for j in range(_TILE):
        at = begin + where[_u8(j)]
        m[_u8(_NEAR_BY + j)], m[_u8(_SLOPE + j)] = table[_u8(at)], table[_u8(at + slope)]
    for j in range(_TILE):
        total += m[_u8(_NEAR_BY + j)]
    return total > _ZERO


@_inline
def _raise(m, above, low):  # type: ignore[no-untyped-def]
    """Let rays meet the walls that were fetched, where these are nearer than what they met."""
    prefer_512_bits()
    for j in range(_TILE):
        up = m[_u8(_UP + j)]
        q = m[_u8(_NEAR_BY + j)] + m[_u8(_SLOPE + j)] * m[_u8(_OFF + j)]
        near = q * m[_u8(_TOWARD + j)]
        held = m[_u8(_INVERSE + j)]
        met = (up >= -low * q) & (up <= above * q) & (near > held)
        m[_u8(_INVERSE + j)] = near if met else held
        m[_u8(_KIND + j)] = _WALL if met else m[_u8(_KIND + j)]


@_inline
def _put(m, box):  # type: ignore[no-untyped-def]
    """Let rays meet a box, where it is nearer than what they met.

    They enter it where they have entered between all three pairs of faces, unless they have left
    one by then. Source: Kay and Kajiya 1986, "Ray tracing complex scenes", sec. 4.
    """
    prefer_512_bits()
    cosine, sine, x, y, z = box[0], box[1], box[2], box[3], box[4]
    long, wide, high, kind = box[5], box[6], box[7], box[8]
    for j in range(_TILE):
        ahead, right = m[_u8(_AHEAD + j)], m[_u8(_RIGHT + j)]
        a, b = cosine * ahead + sine * right, sine * ahead - cosine * right
        c = -m[_u8(_FALL + j)]
        a = _ONE / (a if abs(a) > _f4(1e-9) else _f4(1e-9))
        b = _ONE / (b if abs(b) > _f4(1e-9) else _f4(1e-9))
        c = _ONE / (c if abs(c) > _f4(1e-9) else _f4(1e-9))
        enters = max(max(-x * a - long * abs(a), -y * b - wide * abs(b)), -z * c - high * abs(c))
        leaves = min(min(-x * a + long * abs(a), -y * b + wide * abs(b)), -z * c + high * abs(c))
        held = m[_u8(_INVERSE + j)]
        met = (enters <= leaves) & (enters > _NEAR) & (enters * held < _ONE)
        m[_u8(_INVERSE + j)] = _ONE / max(enters, _NEAR) if met else held
        m[_u8(_KIND + j)] = kind if met else m[_u8(_KIND + j)]


@_inline
def _write_kind(m, kind, o, width, lanes):  # type: ignore[no-untyped-def]
    prefer_512_bits()
    for row in range(_DOWN):
        for j in range(lanes):
            found = m[_u8(_KIND + row * _ACROSS + j)]
            kind[_u8(o + row * width + j)] = np.uint8(_i4(found))


@_inline
def _write_depth(m, depth, o, width, lens, far, lanes):  # type: ignore[no-untyped-def]
    """Write how far along the axis what rays meet is; 0 where that is beside or behind the lens."""
    prefer_512_bits()
    sine, cosine = lens[1], lens[2]
    for j in range(_TILE):
        along = cosine * m[_u8(_AHEAD + j)] + sine * m[_u8(_FALL + j)]
        inverse = m[_u8(_INVERSE + j)]
        away = min(max(along, _ZERO) / max(inverse, _f4(1e-9)), far)
        m[_u8(_U + j)] = away if inverse > _ZERO else far
    for row in range(_DOWN):
        for j in range(lanes):
            depth[_u8(o + row * width + j)] = m[_u8(_U + row * _ACROSS + j)]
