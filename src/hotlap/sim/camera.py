"""Camera: grey or RGB images of the course from N cars, filtered, without a 3-D engine.

The ground is flat, so a pixel's point on it is a constant in the car's frame. A coarse field of the
course says, for the texel under that point, where the nearest line is; road, lines and dashes are
then painted by formula, each covering as much of the pixel as the pixel's outline on the ground
says. So images are sharp near by and do not flicker far away, whatever the size of the texels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numba import njit
from pydantic import Field, PositiveFloat, model_validator

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.errors import ConfigError, SimulationError
from hotlap.series import prefer_512_bits
from hotlap.sim.floor import floors, paint_floor
from hotlap.sim.lens import Mounting, Warp, focal_length
from hotlap.sim.look import Look
from hotlap.sim.objects import draw_boxes, shades
from hotlap.sim.optics import Optics, OpticsRanges, OpticsSettings
from hotlap.sim.sight import Sight
from hotlap.sim.walls import Walls, level_rows
from hotlap.simulator import BOX_FIELDS
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32, Int32

__all__ = ["Camera", "CameraSettings"]

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey. Source: ITU-R BT.601-7, sec. 2.5.1."""

_MARGIN = 0.5
"""Field beyond the borders, in road widths; farther out, distances are extrapolated linearly."""
_TEXELS_ACROSS = 16
"""Texels over the mean road width: 3 to 7 cm on a 1/18 course, so that a field fits the L2."""
_TEXELS_MAX = 1 << 24
_TILE = 16
_CHUNK = 16
"""Pixels painted together. With 8, LLVM unrolls the loop over them and does not vectorise it."""
_MIXED, _ROAD, _GROUND = 0, 1, 2
_compiled = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64
_ZERO, _HALF, _ONE = _f4(0), _f4(0.5), _f4(1)


class CameraSettings(Settings):
    """One camera, fixed to the car. The defaults are DeepRacer's."""

    width: int = Field(160, ge=_CHUNK, le=4096)
    """Columns of the image."""

    height: int = Field(120, ge=8, le=4096)
    """Rows of the image."""

    color: Literal["grey", "rgb"] = "grey"
    """One channel of luminance, or three channels."""

    fov_deg: float = Field(64.74, ge=5, le=220)
    """Horizontal field of view [degrees] without distortion; pixels are square. A pinhole sees at
    most 170. DeepRacer: 1.13 rad."""

    lens: Literal["pinhole", "fisheye"] = "pinhole"
    """What the distance from the middle of the image stands for: the tangent of the angle to the
    axis, or the angle itself."""

    distortion: tuple[float, float] = (0.0, 0.0)
    """k1 and k2, as a calibration by OpenCV gives them: that distance r becomes
    r (1 + k1 r^2 + k2 r^4). Barrel-shaped images have k1 < 0."""

    pitch_deg: float = Field(15.0, ge=-80, le=80)
    """How far the camera looks down [degrees]."""

    yaw_deg: float = Field(0.0, ge=-180, le=180)
    """How far it looks to the left [degrees]."""

    roll_deg: float = Field(0.0, ge=-180, le=180)
    """How far its right side is down [degrees]."""

    mount_height: PositiveFloat = 0.1303
    """Height of the lens above the ground [m]."""

    mount_forward: float = 0.1453
    """Where the lens is, ahead of the point that `render` is given [m]."""

    stereo_baseline: float = Field(0.0, ge=0, le=1)
    """Distance between the lenses of a pair [m], whose images are the channels of one, the left
    lens first; 0: one lens. DeepRacer's pair: 0.06."""

    optics: OpticsSettings = OpticsSettings()
    """How the images differ from perfect ones."""

    clock: ClockSettings = ClockSettings()
    """When images are taken and reach the driver, and how noisy they are."""

    @model_validator(mode="after")
    def _check(self) -> CameraSettings:
        if self.lens == "pinhole" and self.fov_deg > 170:
            raise ValueError(
                f"fov_deg: a pinhole sees at most 170 degrees (got {self.fov_deg:g}); wider is a "
                'lens = "fisheye"'
            )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        channels = 3 if self.color == "rgb" else 1
        return self.height, self.width, 2 * channels if self.stereo_baseline else channels


class Camera:
    """Draws what M cars see. The image is a pure function of pose, track and look.

    Cost: 8 bytes for each texel of the tracks, 0.2 to 0.8 MB for a course of 20 to 40 m.
    """

    shape: tuple[int, int, int]
    """(H, W, C) of one image."""

    def __init__(
        self,
        settings: CameraSettings,
        tracks: Sequence[Track],
        looks: Sequence[Look] = (Look(),),
        *,
        threads: int = 1,
        mountings: Sequence[Mounting] = (Mounting(),),
    ) -> None:
        if not tracks or not looks:
            raise ConfigError(
                f"a camera needs at least one track and one look, got {len(tracks)} and "
                f"{len(looks)}; pass the tracks of the simulator and, say, (Look(),)"
            )
        self.settings = settings
        self._eyes = 2 if settings.stereo_baseline else 1
        self.shape = settings.shape
        self._channels = self.shape[2] // self._eyes
        self._threads = threads
        self._mountings = tuple(mountings)
        straight = settings.lens == "pinhole" and settings.distortion == (0, 0)
        straight &= not (settings.roll_deg or any(m.roll for m in mountings))
        self._warp = None if straight else Warp(settings, self._mountings)
        views = _views(settings, self._mountings, self._warp)
        self._aside = np.array([math.radians(view.yaw_deg) for view in views], np.float32)
        tables = [_rows(view) for view in views]
        self._rows, self._sky = (np.stack(table) for table in zip(*tables, strict=True))
        cut = [_chunks(rows, views[0].width) for rows in self._rows]
        if self._warp is not None:
            self._sky[:] = 0
        self._edges = np.cumsum([0, *(spots.shape[1] for _, spots in cut)])
        self._chunks = np.concatenate([chunks.ravel() for chunks, _ in cut])
        self._spots = np.concatenate([spots.ravel() for _, spots in cut])
        self._looks = np.stack([_paint(look, settings.color) for look in looks])
        weights = LUMINANCE if settings.color == "grey" else None
        self._shades = np.stack([shades(look, weights) for look in looks])
        self._plain = [look.plain for look in looks]
        self._floors = floors(looks, weights)
        self._lens = np.array(
            [
                [
                    focal_length(view, Mounting()),
                    math.sin(math.radians(view.pitch_deg)),
                    math.cos(math.radians(view.pitch_deg)),
                    *(view.mount_height, view.mount_forward),
                ]
                for view in views
            ],
            np.float32,
        )
        self._field, self._frames, self._sizes = _field(tracks)
        levels = [
            level_rows(view.width, view.height, float(lens[0]), math.radians(view.pitch_deg))
            for view, lens in zip(views, self._lens, strict=True)
        ]
        self._level, self._beams = (np.stack(table) for table in zip(*levels, strict=True))
        self._walls = Walls(
            tracks, looks, weights, self._lens, self._level, self._beams, threads=threads
        )

    def optics(self, ranges: OpticsRanges, rows: int) -> Optics | None:
        """Return what becomes of the images of N cars that differ by `ranges`; None if nothing."""
        if self.settings.optics.perfect and not ranges.any:
            return None
        return Optics(
            self.settings.optics,
            ranges,
            rows,
            self.shape,
            eyes=self._eyes,
            focal=focal_length(self.settings, Mounting()),
            threads=self._threads,
        )

    def render(
        self,
        x: Array,
        y: Array,
        yaw: Array,
        track: Array,
        look: Array,
        out: Array | None = None,
        *,
        boxes: Array | None = None,
        mounting: Array | None = None,
    ) -> Array:
        """Draw the view of M cars.

        Args:
            x: (M,) position of the cars [m].
            y: (M,) position of the cars [m].
            yaw: (M,) heading [rad].
            track: (M,) index into the tracks.
            look: (M,) index into the looks.
            out: where to write, (M, H, W, C) uint8 and C-contiguous; a new array if None.
            boxes: (M, K, 8) what stands around each car, by `simulator.BOX_FIELDS`; none if None.
            mounting: (M,) index into the mountings; the first if None.

        Returns:
            (M, H, W, C) uint8, `out` if it was given.

        Raises:
            ConfigError: shapes disagree, or a track, look or mounting does not exist.
            SimulationError: a pose is not finite.
        """
        x, y, yaw, track, look, mount, boxes = self._checked(
            x, y, yaw, track, look, mounting, boxes
        )
        count = len(x)
        if out is None:
            out = np.empty((count, *self.shape), np.uint8)
        elif (
            out.shape != (count, *self.shape) or out.dtype != np.uint8 or not out.flags.c_contiguous
        ):
            raise ConfigError(
                f"out must be C-contiguous uint8 of shape {(count, *self.shape)}, "
                f"got {out.dtype} {out.shape}"
            )
        if self._eyes == 1:
            self._see(out, x, y, yaw, track, look, mount, boxes)
            return out
        half = _f4(self.settings.stereo_baseline / 2)
        aside = half * np.cos(yaw), half * np.sin(yaw)
        for eye, side in enumerate((_ONE, -_ONE)):
            picture = np.empty((*out.shape[:3], self._channels), np.uint8)
            there = x - side * aside[1], y + side * aside[0]
            self._see(picture, *there, yaw, track, look, mount, boxes)
            out[..., eye * self._channels : (eye + 1) * self._channels] = picture
        return out

    def depth(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, *,
        range_max: float, boxes: Array | None = None, mounting: Array | None = None,
    ) -> Float32:  # fmt: skip
        """Measure how far away what M cars see is; arguments and errors as for `render`.

        Of a pair of lenses, from between them.

        Returns:
            (M, H, W, 1) distance along the axis of the lens at each pixel's centre [m], at most
            `range_max`, which is also what the sky says; 0 for what a wide lens sees 90 degrees
            and more from its axis, which is not before it.
        """
        given = self._checked(x, y, yaw, track, look, mounting, boxes)
        return self._sight.depth(*given, range_max)

    def segmentation(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, *,
        boxes: Array | None = None, mounting: Array | None = None,
    ) -> Array:  # fmt: skip
        """Tell what M cars see; arguments and errors as for `render`.

        Of a pair of lenses, from between them.

        Returns:
            (M, H, W, 1) uint8 `relief.Class` at each pixel's centre.
        """
        return self._sight.classes(*self._checked(x, y, yaw, track, look, mounting, boxes))

    @functools.cached_property
    def _sight(self) -> Sight:
        return Sight(
            self.settings,
            self._mountings,
            straight=self._warp is None,
            walls=self._walls,
            ground=(self._looks, self._floors, self._field, self._frames, self._sizes),
            threads=self._threads,
        )

    def _checked(
        self, x: Array, y: Array, yaw: Array, track: Array, look: Array, mounting: Array | None,
        boxes: Array | None,
    ) -> tuple[Float32, Float32, Float32, Int32, Int32, Int32, Float32 | None]:  # fmt: skip
        """Return what a kernel may be given."""
        x, y, yaw = (np.ascontiguousarray(a, np.float32) for a in (x, y, yaw))
        track, look = (np.ascontiguousarray(a, np.int32) for a in (track, look))
        count = len(x)
        mount = np.zeros(count, np.int32) if mounting is None else mounting.astype(np.int32)
        if any(a.shape != (count,) for a in (x, y, yaw, track, look)):
            shapes = ", ".join(str(a.shape) for a in (x, y, yaw, track, look))
            raise ConfigError(f"x, y, yaw, track and look must share one shape (M,), got {shapes}")
        for name, index, size in (
            ("track", track, len(self._sizes)),
            ("look", look, len(self._looks)),
            ("mounting", mount, len(self._mountings)),
        ):
            if count and not 0 <= index.min() <= index.max() < size:
                raise ConfigError(
                    f"{name} must be in 0..{size - 1}, got {index.min()}..{index.max()}"
                )
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(yaw)
        if not finite.all():  # the kernel would read beyond the field
            row = int(np.argmin(finite))
            raise SimulationError(
                f"a camera cannot look from x={x[row]}, y={y[row]}, yaw={yaw[row]} (row {row}); "
                "reset cars whose state is not finite before they are drawn"
            )
        if boxes is not None and boxes.shape[::2] != (count, len(BOX_FIELDS)):
            raise ConfigError(f"boxes must have shape ({count}, K, {len(BOX_FIELDS)}), "
                              f"got {boxes.shape}")  # fmt: skip
        if boxes is not None:
            boxes = np.ascontiguousarray(boxes, np.float32)
        return x, y, yaw, track, look, mount, boxes

    def _see(
        self, out: Array, x: Array, y: Array, yaw: Array, track: Array, look: Array, mount: Array,
        boxes: Array | None,
    ) -> None:  # fmt: skip
        """Draw what lenses see: as it is, or bent from straight views."""
        warp = self._warp
        if warp is None:
            self._draw(out, x, y, yaw, track, look, mount, boxes)
            return
        many = len(warp.axes)
        view = (np.repeat(mount, many) * many + np.tile(np.arange(many), len(x))).astype(np.int32)
        views = np.empty((len(view), warp.height, warp.width, out.shape[3]), np.uint8)
        own = look
        x, y, yaw, track, look = (np.repeat(one, many) for one in (x, y, yaw, track, look))
        around = None if boxes is None else np.repeat(boxes, many, axis=0)
        self._draw(views, x, y, yaw, track, look, view, around)
        warp.bend(views, out, mount, own, np.ascontiguousarray(self._looks[:, 4:6]), self._threads)

    def _turned(self, x: Array, y: Array, yaw: Array, view: Array) -> tuple[Array, Array, Array]:
        """Return poses that look where the views look."""
        if not self._aside.any():
            return x, y, yaw
        forward, ahead = _f4(self.settings.mount_forward), yaw
        yaw = yaw + self._aside[view]
        # The kernels put the lens ahead in the direction of view, not in the car's.
        return (
            x + forward * (np.cos(ahead) - np.cos(yaw)),
            y + forward * (np.sin(ahead) - np.sin(yaw)),
            yaw,
        )

    def _draw(
        self, out: Array, x: Array, y: Array, yaw: Array, track: Array, look: Array, view: Array,
        boxes: Array | None,
    ) -> None:  # fmt: skip
        """Draw the course, then the walls beside it and the boxes on it."""
        height, width, channels = out.shape[1:]
        flat = out.reshape(-1)
        x, y, yaw = self._turned(x, y, yaw, view)
        call = (flat, width, channels, x, y, yaw, track, look, view, self._rows, self._sky)
        course = (self._field, self._frames, self._sizes)
        if any(self._plain):
            spread(
                _render,
                len(x),
                *call,
                *(self._edges, self._chunks, self._spots, self._looks, *course),
                block=1,
                threads=self._threads,
            )
        if not all(self._plain):
            spread(
                paint_floor,
                len(x),
                *call,
                *(self._looks, self._floors, *course),
                block=1,
                threads=self._threads,
            )
        met = self._walls.meet(x, y, yaw, track, look, view)
        self._walls.paint(flat, (height, width, channels), look, view, met)
        if boxes is not None and boxes.size:
            spread(
                draw_boxes,
                len(x),
                *(flat, height, width, channels, x, y, yaw, look, view, boxes),
                *(self._shades, self._lens, met, self._level, self._beams, self._walls.heights),
                block=1,
                threads=self._threads,
            )


def _views(
    settings: CameraSettings, mountings: Sequence[Mounting], warp: Warp | None
) -> list[CameraSettings]:
    """Return the straight cameras that are drawn: those of each mounting after each other."""
    size = {} if warp is None else {"width": warp.width, "height": warp.height}
    axes = warp.axes if warp else ((0.0, 0.0),)
    low = settings.mount_height + min(m.height for m in mountings)
    wide = settings.fov_deg * max(m.fov for m in mountings)
    if low < 0.005 or (settings.lens == "pinhole" and wide > 170):
        raise ConfigError(
            f"randomize.mounting: the camera's lens would be {low:.3g} m above the ground and see "
            f"{wide:.3g} degrees; it must be above 0.005 m and see at most 170, or be a fisheye"
        )
    return [
        settings.model_copy(
            update={
                **size,
                "lens": "pinhole",
                "distortion": (0.0, 0.0),
                "roll_deg": 0.0,
                "fov_deg": warp.fov_deg if warp else settings.fov_deg * mounting.fov,
                "pitch_deg": settings.pitch_deg + math.degrees(mounting.pitch + down),
                "yaw_deg": settings.yaw_deg + math.degrees(mounting.yaw + left),
                "mount_height": settings.mount_height + mounting.height,
            }
        )
        for mounting in mountings
        for down, left in axes
    ]


def _rows(settings: CameraSettings) -> tuple[Float32, Float32]:
    """Return what is constant along each image row.

    With the pitch p and v the tangent of a row's angle below the optical axis, the ray of the row
    falls at sin p + v cos p and meets the ground after h / (sin p + v cos p) focal lengths.

    Returns:
        (H, 8): distance ahead of the lens of the row's ground points [m]; how far to the right the
        first column's is [m]; from column to column [m]; how far a pixel reaches ahead [m]; share
        of ground in the pixels; then, the same for all rows, cos p times the tangent of the first
        column's angle to the right, and from column to column; distance of the lens ahead of the
        car's origin [m].
        (H,) where the sky's colour lies between horizon (0) and top (1).
    """
    width, height = settings.width, settings.height
    focal = width / 2 / math.tan(math.radians(settings.fov_deg) / 2)
    pitch = math.radians(settings.pitch_deg)
    sine, cosine = math.sin(pitch), math.cos(pitch)
    edge = (np.arange(height + 1) - height / 2) / focal
    horizon = -math.tan(pitch)
    top, bottom = np.maximum(edge[:-1], horizon), np.maximum(edge[1:], horizon)
    share = np.round((bottom - top) * focal, 6)
    middle = np.where(share > 0, (top + bottom) / 2, horizon + 1.0)
    fall = sine + middle * cosine
    depth = settings.mount_height / fall
    first = (0.5 - width / 2) / focal
    rows = np.zeros((height, 8))
    rows[:, 0] = depth * (cosine - middle * sine)
    rows[:, 1] = depth * first
    rows[:, 2] = depth / focal
    # Twice the way to the pixel's near edge: next to the horizon its far edge is without end.
    near = settings.mount_height / np.where(share > 0, sine + bottom * cosine, 1.0)
    rows[:, 3] = 2 * (rows[:, 0] - near * (cosine - bottom * sine))
    rows[:, 4] = share
    rows[:, 5] = cosine * first
    rows[:, 6] = cosine / focal
    rows[:, 7] = settings.mount_forward
    up = np.arctan(-(edge[:-1] + edge[1:]) / 2) - pitch
    return rows.astype(np.float32), np.clip(up / math.radians(45), 0, 1).astype(np.float32)


def _chunks(rows: Float32, width: int) -> tuple[Int32, Float32]:
    """Cut the rows with ground into chunks of `_CHUNK` pixels; the last may overlap the one before.

    Returns:
        (2, chunks) int32: row and first column.
        (3, chunks) float32: distance ahead of the lens and to the right of the chunk's middle on
        the ground [m]; the radius about it in which the outlines of all its pixels lie [m].
    """
    columns = np.minimum(np.arange(0, width, _CHUNK), width - _CHUNK)
    row, column = (
        a.ravel() for a in np.meshgrid(np.nonzero(rows[:, 4])[0], columns, indexing="ij")
    )
    ahead, lateral, step, long, share, tangent = rows[row, :6].T.astype(float)
    outline = np.hypot(step, long * np.hypot(1, tangent)) / 2
    # 1.1: across a change of the road's width the stored distance is not quite Euclidean.
    radius = 1.1 * step * _CHUNK / 2 + outline + 0.002
    radius[share < 1] = 1e9
    lateral += step * (column + (_CHUNK - 1) / 2)
    spots = np.stack([ahead, lateral, radius]).astype(np.float32)
    return np.stack([row, column]).astype(np.int32), spots


def _paint(look: Look, color: str) -> Float32:
    """Return (10, 3): six colours as channels, then four lengths; grey has one channel in use."""
    colours = np.array(
        [look.road, look.ground, look.border, look.dash, look.sky_top, look.sky_horizon], float
    )
    if color == "grey":
        colours[:, 0] = colours @ LUMINANCE
    lengths = [look.border_width, look.dash_width, look.dash_length, look.dash_gap]
    return np.vstack([colours, np.repeat(lengths, 3).reshape(4, 3)]).astype(np.float32)


def _field(tracks: Sequence[Track]) -> tuple[Array, Float32, Array]:
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


@_compiled
def _render(  # type: ignore[no-untyped-def]
    start, stop, out, width, channels, x, y, yaw, track, look, view,
    all_rows, skies, edges, all_chunks, all_spots, looks, field, frames, sizes,
):  # fmt: skip
    """Draw the images start..stop: all chunks in one colour, then those with a line in them."""
    height = all_rows.shape[1]
    count = 0
    for k in range(len(edges) - 1):
        count = max(count, edges[k + 1] - edges[k])
    low = np.empty(count * _CHUNK, np.int32)
    high = np.empty(count * _CHUNK, np.int32)
    index = np.empty(count * _CHUNK, np.int32)
    mixed = np.empty(count, np.int32)
    kind = np.empty(count, np.int32)
    cover = np.empty(3 * _CHUNK, np.float32)
    mix = np.empty((height, channels, 4), np.float32)
    for image in range(start, stop):
        frame, size, paint = frames[track[image]], sizes[track[image]], looks[look[image]]
        rows, sky = all_rows[view[image]], skies[view[image]]
        a, b = edges[view[image]], edges[view[image] + 1]
        count = b - a
        chunks = all_chunks[2 * a : 2 * b].reshape(2, count)
        spots = all_spots[3 * a : 3 * b].reshape(3, count)
        cosine, sine = _f4(math.cos(yaw[image])), _f4(math.sin(yaw[image]))
        lens_x = (x[image] + cosine * rows[0, 7] - frame[0]) * frame[2]
        lens_y = (y[image] + sine * rows[0, 7] - frame[1]) * frame[2]
        ex, ey = cosine * frame[2], sine * frame[2]
        first = image * height * width * channels
        _palette(paint, rows, sky, mix)
        _look_at_chunks(lens_x, lens_y, ex, ey, spots, size, index)
        _fetch(count, index, field, size, low, high)
        _classify(lens_x, lens_y, ex, ey, spots, frame, size, paint, low, high, kind)
        many = _flood(out, first, width, mix, rows, chunks, kind, mixed)
        _look_at_pixels(many, mixed, chunks, rows, lens_x, lens_y, ex, ey, size, index)
        _fetch(many * _CHUNK, index, field, size, low, high)
        _shade(
            out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size,
            paint, low, high, cover, mix,
        )  # fmt: skip


@_compiled
def _palette(paint, rows, sky, mix):  # type: ignore[no-untyped-def]
    """Compute what each row adds to a channel: base, line over ground, road over line, dash."""
    for row in range(mix.shape[0]):
        share = rows[row, 4]
        for c in range(mix.shape[1]):
            above = paint[5, c] + (paint[4, c] - paint[5, c]) * sky[row]
            mix[row, c, 0] = above * (_ONE - share) + paint[1, c] * share + _HALF
            mix[row, c, 1] = (paint[2, c] - paint[1, c]) * share
            mix[row, c, 2] = (paint[0, c] - paint[2, c]) * share
            mix[row, c, 3] = (paint[3, c] - paint[0, c]) * share


@_compiled
def _look_at_chunks(lens_x, lens_y, ex, ey, spots, size, index):  # type: ignore[no-untyped-def]
    """Find the texels under the middles of all chunks."""
    prefer_512_bits()
    columns, right, top = _i4(size[1]), _f4(size[1] - 1), _f4(size[2] - 1)
    for i in range(spots.shape[1]):
        u = lens_x + ex * spots[0, i] + ey * spots[1, i]
        v = lens_y + ey * spots[0, i] - ex * spots[1, i]
        index[i] = _i4(min(max(v, _ZERO), top)) * columns + _i4(min(max(u, _ZERO), right))


@_compiled
def _fetch(count, index, field, size, low, high):  # type: ignore[no-untyped-def]
    first = size[0]
    for i in range(count):
        word = field[_u8(first + index[i])]
        low[i] = _i4(word)
        high[i] = _i4(word >> 32)


@_compiled
def _classify(  # type: ignore[no-untyped-def]
    lens_x, lens_y, ex, ey, spots, frame, size, paint, low, high, kind
):
    """Tell which chunks are all road, all ground or perhaps neither.

    The distance to the nearest line grows by no more than the way walked, so one texel will do.
    """
    prefer_512_bits()
    right, top = _f4(size[1] - 1), _f4(size[2] - 1)
    step_d, reach = frame[3], _ONE / (frame[2] * _f4(127))
    border, dash = paint[6, 0], paint[7, 0] * _HALF
    for i in range(spots.shape[1]):
        u = lens_x + ex * spots[0, i] + ey * spots[1, i]
        v = lens_y + ey * spots[0, i] - ex * spots[1, i]
        u -= _f4(_i4(min(max(u, _ZERO), right))) + _HALF
        v -= _f4(_i4(min(max(v, _ZERO), top))) + _HALF
        a, flag = low[i], high[i] & 1
        d = _f4(_i4(a >> 16)) * step_d
        d += (u * _f4(_i4(_i4(a << 16) >> 24)) + v * _f4(_i4(_i4(a << 24) >> 24))) * reach
        clear = spots[2, i]
        ground = _i4(_GROUND) if (flag != 0) & (d > clear) else _i4(_MIXED)
        inside = abs(d) if flag == 0 else -d
        clear += border if flag != 0 else dash
        kind[i] = _i4(_ROAD) if inside > clear else ground


@_compiled
def _flood(out, first, width, mix, rows, chunks, kind, mixed):  # type: ignore[no-untyped-def]
    """Paint sky and all chunks in one colour; list the chunks that need more."""
    height, channels = mix.shape[0], mix.shape[1]
    for row in range(height):
        if rows[row, 4] <= _ZERO:
            a, b, c = _pattern(mix[row], _ZERO)
            for column in range(0, width, _CHUNK):
                o = first + (row * width + min(column, width - _CHUNK)) * channels
                _stamp(out, _u8(o), channels, a, b, c)
    a0, b0, c0 = _pattern(mix[height - 1], _ZERO)
    a1, b1, c1 = _pattern(mix[height - 1], _ONE)
    many = 0
    for i in range(chunks.shape[1]):
        o = first + (chunks[0, i] * width + chunks[1, i]) * channels
        mixed[many] = i
        many += 1 if kind[i] == _MIXED else 0
        road = kind[i] == _ROAD
        _stamp(out, _u8(o), channels, a1 if road else a0, b1 if road else b0, c1 if road else c0)
    return many


@_compiled
def _pattern(mix, road):  # type: ignore[no-untyped-def]
    """Return three words of eight bytes that repeat the colour of road (1), ground or sky (0)."""
    r = _u8(_i4(mix[0, 0] + road * (mix[0, 1] + mix[0, 2])))
    if mix.shape[0] == 1:
        a = r * _u8(0x0101010101010101)
        return a, a, a
    g = _u8(_i4(mix[1, 0] + road * (mix[1, 1] + mix[1, 2])))
    b = _u8(_i4(mix[2, 0] + road * (mix[2, 1] + mix[2, 2])))
    p = r | (g << _u8(8)) | (b << _u8(16))
    return (
        p | (p << _u8(24)) | (p << _u8(48)),
        (p >> _u8(16)) | (p << _u8(8)) | (p << _u8(32)) | (p << _u8(56)),
        (p >> _u8(8)) | (p << _u8(16)) | (p << _u8(40)),
    )


@_compiled
def _stamp(out, o, channels, a, b, c):  # type: ignore[no-untyped-def]
    """Write a chunk of one colour; LLVM joins eight shifted bytes to one store."""
    for k in range(8):
        out[o + _u8(k)] = np.uint8(a >> _u8(8 * k))
    for k in range(8):
        out[o + _u8(8 + k)] = np.uint8(b >> _u8(8 * k))
    if channels == 3:
        for k in range(8):
            out[o + _u8(16 + k)] = np.uint8(c >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(24 + k)] = np.uint8(a >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(32 + k)] = np.uint8(b >> _u8(8 * k))
        for k in range(8):
            out[o + _u8(40 + k)] = np.uint8(c >> _u8(8 * k))


@_compiled
def _look_at_pixels(  # type: ignore[no-untyped-def]
    many, mixed, chunks, rows, lens_x, lens_y, ex, ey, size, index
):
    """Find the texels under the pixels of the listed chunks."""
    prefer_512_bits()
    columns, right, top = _i4(size[1]), _f4(size[1] - 1), _f4(size[2] - 1)
    for i in range(many):
        row, left = chunks[0, mixed[i]], _f4(chunks[1, mixed[i]])
        ahead, lateral, step = rows[row, 0], rows[row, 1], rows[row, 2]
        u0, v0 = lens_x + ex * ahead + ey * lateral, lens_y + ey * ahead - ex * lateral
        du, dv = ey * step, -ex * step
        k = _u8(i * _CHUNK)
        for j in range(_CHUNK):
            fj = left + _f4(_i4(j))
            u = min(max(u0 + du * fj, _ZERO), right)
            v = min(max(v0 + dv * fj, _ZERO), top)
            index[k + _u8(j)] = _i4(v) * columns + _i4(u)


@_compiled
def _shade(  # type: ignore[no-untyped-def]
    out, first, width, many, mixed, chunks, rows, lens_x, lens_y, ex, ey, frame, size, paint,
    low, high, cover, mix,
):  # fmt: skip
    """Paint the listed chunks by how much of each pixel is inside a border, a line or a dash."""
    prefer_512_bits()
    channels = mix.shape[1]
    # Always _CHUNK; but a loop known to be short is unrolled before it can be vectorised.
    lanes = min(width, _CHUNK)
    right, top = _f4(size[1] - 1), _f4(size[2] - 1)
    step_d, step_w, step_s = frame[3], frame[4], frame[5]
    reach = _ONE / (frame[2] * _f4(127))
    cosine, sine = ex * reach, ey * reach
    border, dash_width = paint[6, 0], paint[7, 0] * _HALF
    period = paint[8, 0] + paint[9, 0]
    duty = paint[8, 0] / period
    # As many periods as fit best, so that the pattern closes after a lap.
    frequency = max(np.floor(frame[6] / period + _HALF), _ONE) / frame[6]
    for i in range(many):
        row, column = chunks[0, mixed[i]], chunks[1, mixed[i]]
        left = _f4(column)
        ahead, lateral, step, long = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        tangent, tangent_step = rows[row, 5], rows[row, 6]
        u0, v0 = lens_x + ex * ahead + ey * lateral, lens_y + ey * ahead - ex * lateral
        du, dv = ey * step, -ex * step
        t = _u8(i * _CHUNK)
        for j in range(_CHUNK):
            fj = left + _f4(_i4(j))
            u = u0 + du * fj
            v = v0 + dv * fj
            u -= _f4(_i4(min(max(u, _ZERO), right))) + _HALF
            v -= _f4(_i4(min(max(v, _ZERO), top))) + _HALF
            a, b = low[t + _u8(j)], high[t + _u8(j)]
            d = _f4(_i4(a >> 16)) * step_d
            nx = _f4(_i4(_i4(a << 16) >> 24))
            ny = _f4(_i4(_i4(a << 24) >> 24))
            s = _f4(_i4((b >> 16) & 0xFFFF)) * step_s
            half = _f4(_i4((b >> 8) & 0xFF)) * step_w
            d += (u * nx + v * ny) * reach
            s += (u * ny - v * nx) * reach
            offset = half + d if (b & 1) != 0 else abs(d)
            # The pixel's outline on the ground, across and along the line.
            toward = cosine * nx + sine * ny
            aside = sine * nx - cosine * ny
            tilt = tangent + tangent_step * fj
            p, q = step * aside, long * (toward + tilt * aside)
            inverse = _ONE / math.sqrt(p * p + q * q + _f4(1e-12))
            p, q = step * toward, long * (aside - tilt * toward)
            wide = math.sqrt(p * p + q * q + _f4(1e-12)) * frequency
            offset *= inverse
            half *= inverse
            edge = offset - half
            line = border * inverse
            middle = dash_width * inverse
            c0 = min(max(_HALF - edge, _ZERO), _ONE) + min(offset + half, _HALF) - _HALF
            c1 = min(max(_HALF - edge - line, _ZERO), _ONE)
            c1 += min(offset + half - line, _HALF) - _HALF
            c2 = min(max(middle - offset, -_HALF), _HALF) + min(middle + offset, _HALF)
            rear = s * frequency - wide * _HALF
            fore = rear + wide
            b0, b1 = np.floor(rear), np.floor(fore)
            painted = (b1 - b0) * duty + min(fore - b1, duty) - min(rear - b0, duty)
            cover[_u8(j)] = c0
            cover[_u8(j + _CHUNK)] = c1
            cover[_u8(j + 2 * _CHUNK)] = c2 * painted / wide
        o = first + (row * width + column) * channels
        if channels == 1:
            m0, m1, m2, m3 = mix[row, 0, 0], mix[row, 0, 1], mix[row, 0, 2], mix[row, 0, 3]
            for j in range(lanes):
                value = m0 + m1 * cover[_u8(j)] + m2 * cover[_u8(j + _CHUNK)]
                out[_u8(o + j)] = np.uint8(_i4(value + m3 * cover[_u8(j + 2 * _CHUNK)]))
        else:
            r0, r1, r2, r3 = mix[row, 0, 0], mix[row, 0, 1], mix[row, 0, 2], mix[row, 0, 3]
            g0, g1, g2, g3 = mix[row, 1, 0], mix[row, 1, 1], mix[row, 1, 2], mix[row, 1, 3]
            h0, h1, h2, h3 = mix[row, 2, 0], mix[row, 2, 1], mix[row, 2, 2], mix[row, 2, 3]
            for j in range(lanes):
                f0, f1 = cover[_u8(j)], cover[_u8(j + _CHUNK)]
                f2 = cover[_u8(j + 2 * _CHUNK)]
                k = o + 3 * j
                out[_u8(k)] = np.uint8(_i4(r0 + r1 * f0 + r2 * f1 + r3 * f2))
                out[_u8(k + 1)] = np.uint8(_i4(g0 + g1 * f0 + g2 * f1 + g3 * f2))
                out[_u8(k + 2)] = np.uint8(_i4(h0 + h1 * f0 + h2 * f1 + h3 * f2))
