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
from pydantic import Field, PositiveFloat, model_validator

from hotlap.clock import ClockSettings
from hotlap.config import Settings
from hotlap.errors import ConfigError, SimulationError
from hotlap.sim.field import survey
from hotlap.sim.floor import floors, paint_floor
from hotlap.sim.lens import Mounting, Warp, focal_length
from hotlap.sim.look import Look
from hotlap.sim.objects import draw_boxes, shades
from hotlap.sim.optics import Optics, OpticsRanges, OpticsSettings
from hotlap.sim.road import CHUNK, cut_rows, ground_rows, paint_road
from hotlap.sim.sight import Sight
from hotlap.sim.walls import Walls, level_rows
from hotlap.simulator import BOX_FIELDS
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32, Int32

__all__ = ["Camera", "CameraSettings"]

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey. Source: ITU-R BT.601-7, sec. 2.5.1."""

_f4 = np.float32
_ONE = _f4(1)


class CameraSettings(Settings):
    """One camera, fixed to the car. The defaults are DeepRacer's."""

    width: int = Field(160, ge=CHUNK, le=4096)
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
        tables = [ground_rows(view) for view in views]
        self._rows, self._sky = (np.stack(table) for table in zip(*tables, strict=True))
        cut = [cut_rows(rows, views[0].width) for rows in self._rows]
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
        self._field, self._frames, self._sizes = survey(tracks)
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
        met = self._walls.meet(x, y, yaw, track, look, view)
        cover = np.zeros((len(met), height, -(-width // CHUNK)), np.uint8)
        judged = self._walls.judge(cover, look, view, met)
        call = (flat, width, channels, x, y, yaw, track, look, view, self._rows, self._sky)
        course = (self._field, self._frames, self._sizes)
        if any(self._plain):
            spread(
                paint_road,
                len(x),
                *call,
                *(cover, self._edges, self._chunks, self._spots, self._looks, *course),
                block=1,
                threads=self._threads,
            )
        if not all(self._plain):
            spread(
                paint_floor,
                len(x),
                *call,
                *(cover, self._looks, self._floors, *course),
                block=1,
                threads=self._threads,
            )
        self._walls.paint(flat, width, channels, cover, judged, look, view, met)
        if boxes is not None and boxes.size:
            spread(
                draw_boxes,
                len(x),
                *(flat, height, width, channels, x, y, yaw, look, view, boxes),
                *(self._shades, self._lens, met, judged[0], self._level, self._beams),
                self._walls.heights,
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


def _paint(look: Look, color: str) -> Float32:
    """Return (10, 3): six colours as channels, then four lengths; grey has one channel in use."""
    colours = np.array(
        [look.road, look.ground, look.border, look.dash, look.sky_top, look.sky_horizon], float
    )
    if color == "grey":
        colours[:, 0] = colours @ LUMINANCE
    lengths = [look.border_width, look.dash_width, look.dash_length, look.dash_gap]
    return np.vstack([colours, np.repeat(lengths, 3).reshape(4, 3)]).astype(np.float32)
