"""Films of driving: the track from above, the car with its trail, its camera and its gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hotlap.errors import RunError
from hotlap.files import explained, whole
from hotlap.gaze import Gaze, sided
from hotlap.runs.traces import lap_times
from hotlap.track import Track
from hotlap.types import Array, Float64

__all__ = ["write_film"]

Colour: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[int, int, int, int]

SIZE = (960, 540)
VIEW = (720, 540)
"""The part that shows the track; the rest is the panel with the camera and the gauges."""
_MARGIN, _HEADER = 24, 26
_FINE = 2
"""Drawn this many times larger and averaged, as Pillow's lines have hard edges."""
_GIF_SIZE, _GIF_FPS = (640, 360), 10

_GROUND: Colour = (20, 23, 29)
_ROAD: Colour = (52, 57, 66)
_LINE: Colour = (226, 229, 234)
_DASH: Colour = (134, 125, 92)
PANEL: Colour = (30, 34, 42)
TEXT: Colour = (236, 238, 241)
FAINT: Colour = (150, 157, 168)
_CAR: Colour = (230, 92, 30)
_GLASS: Colour = (25, 28, 34)
_OBSTACLE: Colour = (196, 154, 98)
_OTHER: Colour = (96, 156, 230)
_GHOST: Colour = (214, 190, 255)
_SPEEDS = np.array(
    [(65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (253, 231, 37)], np.float64
)
"""Slow to fast: the upper part of viridis, which is told apart by any eye on a dark road."""


def write_film(
    path: Path | str,
    track: Track,
    trace: Mapping[str, Array],
    *,
    camera: Array | None = None,
    ghost: Mapping[str, Array] | None = None,
    gaze: Gaze | None = None,
    fps: int = 15,
    caption: str = "",
) -> Path:
    """Film a driven trace in real time, 960 by 540.

    Writes MP4 (H.264, yuv420p, the index first so that browsers start at once) by PyAV. Without
    PyAV, or when `path` ends in .gif, writes a smaller animated GIF instead. Costs about 6 ms a
    frame.

    Args:
        path: where to; its parents must exist.
        track: the course that was driven.
        trace: (T,) arrays t, x, y, yaw, speed, steering, s, lap, as traces/<name>.npz holds them;
            with `boxes` (T, K, 8) obstacles and other cars are shown.
        camera: (T, H, W, C) uint8, grey or RGB; `trace["camera"]` if not given.
        ghost: another trace of the course. Its fastest lap is driven along in each flying lap, and
            the panel says how far behind it the car is.
        gaze: what the driver looked at in each row; shown in place of `camera`, with what it was
            minded to do below the gauges.
        fps: frames a second; rows of the trace are repeated or passed over to keep real time.
        caption: one line in the top left corner; the track's name if empty.

    Returns:
        The path really written, which ends in .mp4 or .gif.

    Raises:
        RunError: the trace is empty or lacks an array, or the film cannot be written.
    """
    lacking = sorted({"t", "x", "y", "yaw", "speed", "steering", "s", "lap"} - set(trace))
    if lacking or not len(trace["t"]):
        what = f"lacks {', '.join(lacking)}" if lacking else "is empty"
        raise RunError(f"{path}: the trace {what}, so there is nothing to film")
    camera = trace.get("camera") if camera is None else camera
    if camera is not None and (camera.ndim != 4 or camera.shape[3] not in (1, 3)):
        raise RunError(
            f"{path}: camera frames must have shape (T, H, W, 1 or 3), not {camera.shape}"
        )
    shadow = None if ghost is None else _Ghost(track, ghost, float(trace["s"][0]))
    path = Path(path)
    return encode(
        path, lambda rate: _frames(track, trace, camera, rate, caption, shadow, gaze), fps
    )


def encode(path: Path, frames: Callable[[int], Iterator[Array]], fps: int) -> Path:
    """Write a film of the frames that `frames` draws at a rate; return where it really is.

    Raises:
        RunError: it cannot be written.
    """
    video = path.suffix.lower() != ".gif" and _can_encode()
    with explained(path, "the film"):
        path = path.with_suffix(".mp4" if video else ".gif")
        with whole(path) as draft:
            if video:
                _write_mp4(draft, frames(fps), fps)
            else:
                rate = min(fps, _GIF_FPS)
                _write_gif(draft, frames(rate), rate)
    return path


def _can_encode() -> bool:
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def _write_mp4(path: Path, frames: Iterator[Array], fps: int) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "veryfast", "crf": "21"}
        )
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_numpy_buffer(frame, format="rgb24")  # copies nothing
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: Iterator[Array], fps: int) -> None:
    way = Image.Resampling.BILINEAR
    small = (Image.fromarray(frame).resize(_GIF_SIZE, way) for frame in frames)
    first = next(small).quantize(128)
    rest = (frame.quantize(palette=first, dither=Image.Dither.NONE) for frame in small)
    first.save(
        path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0
    )


def _frames(
    track: Track,
    trace: Mapping[str, Array],
    camera: Array | None,
    fps: int,
    caption: str,
    ghost: _Ghost | None = None,
    gaze: Gaze | None = None,
) -> Iterator[Array]:
    """Draw the film's frames, (540, 960, 3) uint8, each into the same array.

    Only what changes is drawn anew: a segment of trail, the car and the panel.
    """
    screen = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    view = View(track, caption or track.name, screen[:, : VIEW[0]])
    panel = _Panel(track, trace, camera is not None or gaze is not None, ghost, gaze)
    t = trace["t"].astype(np.float64)
    rows = rows_of(t, fps)
    pixels = view.pixels(np.stack([trace["x"], trace["y"]], axis=1))
    colours = _colours(trace["speed"], *panel.range)
    # A car that was put back somewhere else leaves no trail on the way there.
    stretch = np.hypot(np.diff(trace["x"]), np.diff(trace["y"]))
    driven = stretch < np.maximum(2.0 * trace["speed"][1:] * np.diff(t), 0.0) + 0.25 * track.width
    drawn = 0
    for row in rows:
        for k in range(drawn + 1, row + 1):
            if trace["lap"][k] > trace["lap"][k - 1]:
                view.fade()
            if driven[k - 1]:
                view.trail(pixels[k - 1], pixels[k], tuple(colours[k]))
        drawn = row
        view.put_car(pixels[row], float(trace["yaw"][row]))
        if "boxes" in trace:
            view.put_boxes(trace["boxes"][row])
        if ghost is not None and (clock := panel.clock(row)) is not None:
            view.put_ghost(*ghost.at(clock))
        picture: Array | None
        if gaze is not None:
            picture = gaze.painted(min(row, len(gaze) - 1))
        else:
            picture = None if camera is None else camera[min(row, len(camera) - 1)]
        screen[:, VIEW[0] :] = np.asarray(panel.draw(row, picture))
        yield screen


def rows_of(t: Float64, fps: int) -> Array:
    """Return which row of a trace with times `t` each frame shows."""
    moments = t[0] + np.arange(max(1, round((t[-1] - t[0]) * fps) + 1)) / fps
    rows = np.clip(np.searchsorted(t, moments - 1e-6), 0, len(t) - 1)
    # Sooner the row before, where that is nearer.
    rows -= (rows > 0) & (moments - t[np.maximum(rows - 1, 0)] < t[rows] - moments)
    return np.asarray(rows)


def _colours(speed: Array, slow: float, fast: float) -> Array:
    """(T, 3) colours of (T,) speeds."""
    part = np.clip((speed - slow) / (fast - slow), 0.0, 1.0) * (len(_SPEEDS) - 1)
    columns = [np.interp(part, np.arange(len(_SPEEDS)), _SPEEDS[:, i]) for i in range(3)]
    return np.stack(columns, axis=1).astype(int)


class View:
    """The track from above: a large canvas that gathers the trail, its reduced copy, the screen."""

    def __init__(self, track: Track, caption: str, screen: Array) -> None:
        self._screen = screen
        border = np.concatenate([track.inner, track.outer])
        low, high = border.min(axis=0), border.max(axis=0)
        room = np.array(VIEW) - 2 * _MARGIN - [0, _HEADER]
        self._scale = float((room / np.maximum(high - low, 1e-6)).min()) * _FINE
        self._middle = (low + high) / 2
        self._car = max(0.45 * track.width * self._scale, 17.0 * _FINE)
        self._large = Image.new("RGB", (VIEW[0] * _FINE, VIEW[1] * _FINE), _GROUND)
        self._pen = ImageDraw.Draw(self._large)
        self._draw_track(track)
        font = ImageFont.load_default(17 * _FINE)
        self._pen.text((16 * _FINE, 12 * _FINE), caption, TEXT, font)
        self._bare = self._large.copy()
        self._small = np.array(self._large.reduce(_FINE))
        self._bodies_at: list[Box] = [(0, 0, *VIEW)]

    def pixels(self, xy: Array) -> Float64:
        """(N, 2) places on the large canvas; y grows upwards in the world, downwards here."""
        centred = (xy - self._middle) * self._scale * [1, -1]
        return np.asarray(centred + np.array([VIEW[0], VIEW[1] + _HEADER]) * _FINE / 2, np.float64)

    def _draw_track(self, track: Track) -> None:
        inner, outer = self.pixels(track.inner), self.pixels(track.outer)
        count = len(inner)
        for i in range(count if track.closed else count - 1):
            j = (i + 1) % count
            corners = np.concatenate([inner[[i, j]], outer[[j, i]]])
            self._pen.polygon([tuple(c) for c in corners], _ROAD, _ROAD, 2)
        stations = track.stations
        centre = self.pixels(np.stack([stations.x, stations.y], axis=1))
        dash = max(2, round(0.25 * track.width / stations.spacing))
        for i in range(0, stations.count - dash, 2 * dash):
            points = [tuple(p) for p in centre[i : i + dash + 1]]
            self._pen.line(points, _DASH, 2 * _FINE, joint="curve")
        for line in (inner, outer):
            closing = line[:1] if track.closed else line[:0]
            points = [tuple(p) for p in np.concatenate([line, closing])]
            self._pen.line(points, _LINE, 2 * _FINE, joint="curve")
        ends = [tuple(inner[0]), tuple(outer[0])]
        self._pen.line(ends, _LINE, 4 * _FINE)
        # An arrow beside the start, in the driving direction.
        along = np.array([stations.tx[0], -stations.ty[0]])
        across = np.array([along[1], -along[0]])
        size = max(0.2 * track.width * self._scale, 8.0 * _FINE)
        tip = centre[0] + along * size * 2.2
        back = tip - along * size
        self._pen.polygon(
            [tuple(tip), tuple(back + across * size * 0.6), tuple(back - across * size * 0.6)],
            _LINE,
        )

    def trail(self, start: Array, end: Array, colour: Colour) -> None:
        """Add a piece of trail."""
        width = 3 * _FINE
        self._pen.line([tuple(start), tuple(end)], colour, width)
        radius = width / 2 - 0.5
        self._pen.ellipse([*(end - radius), *(end + radius)], colour)
        box = self._box(np.stack([start, end]), width)
        _put(self._small, box, self._large.crop(_large(box)).reduce(_FINE))
        _put(self._screen, box, _cut(self._small, box))

    def fade(self) -> None:
        """Let the laps so far step back behind the next one."""
        self._large.paste(Image.blend(self._bare, self._large, 0.3))
        self._small[:] = self._large.reduce(_FINE)
        self._screen[:] = self._small

    def clear(self) -> None:
        """Take away the cars and what else stands on the road."""
        for box in self._bodies_at:
            _put(self._screen, box, _cut(self._small, box))
        self._bodies_at = []

    def put_car(self, place: Array, yaw: float) -> None:
        """Move the car on the screen, and take away what else stood there."""
        self.clear()
        box = self._box(place[None], self._car)
        self._draw_car(box, self._large.crop(_large(box)), place, yaw, _CAR)

    def add_car(self, place: Array, yaw: float, colour: Colour) -> None:
        """Put one more car on the screen, over what stands there."""
        box = self._box(place[None], self._car)
        seen = Image.fromarray(_cut(self._screen, box))
        size = (seen.width * _FINE, seen.height * _FINE)
        patch = seen.resize(size, Image.Resampling.BILINEAR)
        self._draw_car(box, patch, place, yaw, colour)

    def _draw_car(
        self, box: Box, patch: Image.Image, place: Array, yaw: float, colour: Colour
    ) -> None:
        along = np.array([np.cos(yaw), -np.sin(yaw)]) * self._car / 2
        across = np.array([-np.sin(yaw), -np.cos(yaw)]) * self._car * 0.27
        centre = place - np.array(box[:2]) * _FINE
        pen = ImageDraw.Draw(patch)

        def part(front: float, rear: float, half: float, colour: Colour) -> None:
            corners = [(front, half), (front, -half), (rear, -half), (rear, half)]
            pen.polygon([tuple(centre + a * along + b * across) for a, b in corners], colour)

        part(1.12, -1.12, 1.24, TEXT)
        part(1.0, -1.0, 1.0, colour)
        part(0.45, 0.05, 0.8, _GLASS)
        _put(self._screen, box, patch.reduce(_FINE))
        self._bodies_at.append(box)

    def put_boxes(self, boxes: Array) -> None:
        """Put obstacles and other cars (K, 8) on the screen, by `simulator.BOX_FIELDS`."""
        for x, y, cosine, sine, length, width, height, kind in boxes:
            if height <= 0:
                continue
            along, across = np.array([cosine, sine]) * length, np.array([-sine, cosine]) * width
            sides = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
            corners = self.pixels(np.array([[x, y] + a * along + b * across for a, b in sides]))
            self._blend(corners, _OTHER if kind else _OBSTACLE, 1.0)

    def put_ghost(self, place: Array, yaw: float) -> None:
        """Put a car that can be seen through on the screen, at a place (2,) of the world."""
        along = np.array([np.cos(yaw), -np.sin(yaw)]) * self._car / 2
        across = np.array([-np.sin(yaw), -np.cos(yaw)]) * self._car * 0.27
        middle = self.pixels(place[None])[0]
        sides = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
        self._blend(np.array([middle + a * along + b * across for a, b in sides]), _GHOST, 0.6)

    def _blend(self, corners: Array, colour: Colour, strength: float) -> None:
        """Paint a polygon of the large canvas onto the screen, until the car moves."""
        box = self._box(corners, _FINE)
        stencil = Image.new("L", (_large(box)[2] - _large(box)[0], _large(box)[3] - _large(box)[1]))
        ImageDraw.Draw(stencil).polygon(
            [tuple(corner - np.array(box[:2]) * _FINE) for corner in corners], 255
        )
        share = strength * np.asarray(stencil.reduce(_FINE))[:, :, None] / 255
        under = _cut(self._screen, box)
        under[:] = under * (1 - share) + np.array(colour) * share
        self._bodies_at.append(box)

    def _box(self, points: Array, around: float) -> Box:
        """The box of the screen about points of the large canvas; at its edge if they lie outside.

        It holds a pixel at least, as an image of none cannot be reduced.
        """
        low = np.floor((points.min(axis=0) - around) / _FINE).astype(int)
        high = np.ceil((points.max(axis=0) + around) / _FINE).astype(int)
        low = np.clip(low, 0, np.array(VIEW) - 1)
        high = np.maximum(np.minimum(high, VIEW), low + 1)
        return (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _large(box: Box) -> Box:
    return (box[0] * _FINE, box[1] * _FINE, box[2] * _FINE, box[3] * _FINE)


def _cut(pixels: Array, box: Box) -> Array:
    return pixels[box[1] : box[3], box[0] : box[2]]


def _put(pixels: Array, box: Box, picture: Image.Image | Array) -> None:
    _cut(pixels, box)[:] = picture


class _Ghost:
    """The fastest lap of another trace, driven from where this one's laps begin."""

    def __init__(self, track: Track, trace: Mapping[str, Array], start: float) -> None:
        length = track.length if track.closed else None
        laps = lap_times(trace, length)
        if not len(laps):
            raise RunError("the ghost's trace holds no whole lap; take one that does")
        best = int(laps.argmin())
        self._lap_s = float(laps[best])
        t = trace["t"].astype(np.float64)
        self._time = np.linspace(0.0, self._lap_s, 1 + int(np.ceil(100 * self._lap_s)))
        moments = t[0] + laps[:best].sum() + self._time
        self._x, self._y, self._yaw = (
            np.interp(moments, t, column)
            for column in (trace["x"], trace["y"], np.unwrap(trace["yaw"]))
        )
        s = trace["s"].astype(np.float64)
        self._period = length
        if length is not None:
            s = np.unwrap(s, period=length)
        far = np.maximum.accumulate(np.interp(moments, t, s))
        self._far = far - far[0]
        self._origin = float(far[0])
        self._ahead = self._when(start)

    def _when(self, s: float) -> float:
        """Return when it passes a place of the centre line, of its own lap [s]."""
        gone = s - self._origin
        return float(np.interp(gone if self._period is None else gone % self._period,
                               self._far, self._time))  # fmt: skip

    def at(self, clock: float) -> tuple[Float64, float]:
        """Return place (2,) and heading after so many seconds of a lap."""
        now = self._ahead + clock
        now = min(now, self._lap_s) if self._period is None else now % self._lap_s
        x, y, yaw = (float(np.interp(now, self._time, c)) for c in (self._x, self._y, self._yaw))
        return np.array([x, y]), yaw

    def gap(self, clock: float, s: float) -> float:
        """Return by how many seconds it passed a place earlier than a car that is there now."""
        needed = self._when(s) - self._ahead
        if self._period is None:
            return clock - needed
        gap = clock - needed % self._lap_s
        return gap + self._lap_s if gap < -self._lap_s / 2 else gap


class _Panel:
    """The column on the right: camera, lap, clock, speed and steering."""

    def __init__(
        self,
        track: Track,
        trace: Mapping[str, Array],
        has_camera: bool,
        ghost: _Ghost | None,
        gaze: Gaze | None = None,
    ) -> None:
        self._trace, self._ghost, self._closed = trace, ghost, track.closed
        self._gaze = gaze
        speed = trace["speed"]
        self.range = (float(min(speed.min(), 0.0)), float(max(speed.max(), 0.1)))
        self._steering_max = max(0.1, float(np.abs(trace["steering"]).max()))
        self._laps = lap_times(trace, track.length if track.closed else None)
        self._starts = np.concatenate([[0.0], np.cumsum(self._laps)]) + float(trace["t"][0])
        self._large, self._medium, self._little = map(ImageFont.load_default, (40, 20, 14))
        self._tiny = ImageFont.load_default(11)
        self._left, self._width = 16, SIZE[0] - VIEW[0] - 32
        top = 186 if has_camera else 24
        self._lap_y, self._speed_y, self._steering_y = top, top + 108, top + 196
        self._mind_y = top + 266
        self._ramp = Image.fromarray(
            np.tile(_colours(np.linspace(0, 1, self._width), 0, 1), (8, 1, 1)).astype(np.uint8)
        )
        self._image = Image.new("RGB", (SIZE[0] - VIEW[0], SIZE[1]))
        self._pen = ImageDraw.Draw(self._image)
        self._lap, self._still = -1, self._image
        self._written: dict[str, Image.Image] = {}

    def clock(self, row: int) -> float | None:
        """Return how long ago the flying lap of a row began [s]; None in a standing one."""
        lap = min(int(self._trace["lap"][row] - self._trace["lap"][0]), len(self._laps))
        if self._closed and not lap:
            return None
        return max(0.0, float(self._trace["t"][row] - self._starts[lap]))

    def draw(self, row: int, picture: Array | None) -> Image.Image:
        """Draw the panel of one row; the same image each time."""
        speed, steering = float(self._trace["speed"][row]), float(self._trace["steering"][row])
        lap = min(int(self._trace["lap"][row] - self._trace["lap"][0]), len(self._laps))
        if lap != self._lap:
            self._lap, self._still = lap, self._draw_still(lap)
        self._image.paste(self._still)
        if picture is not None:
            self._draw_camera(picture)
        left, width, pen = self._left, self._width, self._pen
        clock = max(0.0, float(self._trace["t"][row] - self._starts[lap]))
        pen.text((left, self._lap_y + 22), f"{clock:.2f} s", TEXT, self._large)
        since = self.clock(row)
        if self._ghost is not None and since is not None:
            gap = self._ghost.gap(since, float(self._trace["s"][row]))
            pen.text((left + width, self._lap_y), f"{gap:+.2f} s", _GHOST, self._medium, "ra")
        y = self._speed_y
        self._write(left, y + 14, f"{speed:.1f} m/s")
        slow, fast = self.range
        self._image.paste(
            self._ramp.crop((0, 0, round(width * (speed - slow) / (fast - slow)), 8)),
            (left, y + 42),
        )
        y = self._steering_y
        self._write(left, y + 14, sided(float(np.degrees(steering))))
        middle = left + width // 2
        end = middle - round(width / 2 * steering / self._steering_max)  # left is positive
        pen.rectangle([min(middle, end), y + 42, max(middle, end), y + 49], _CAR)
        pen.line([middle, y + 38, middle, y + 53], TEXT, 2)
        if self._gaze is not None:
            self._draw_mind(self._gaze, min(row, len(self._gaze) - 1))
        return self._image

    def _draw_mind(self, gaze: Gaze, step: int) -> None:
        """Draw what the driver was minded to do: choices, or ranges of steering and speed."""
        pen, left, width, top = self._pen, self._left, self._width, self._mind_y
        if gaze.discrete:
            shares, chosen = gaze.shares(step)
            floor, high = top + 76, 56
            edges = left + np.round(np.linspace(0, width, len(shares) + 1)).astype(int)
            gap = 2 if len(shares) < width // 6 else 0
            for k, share in enumerate(shares):
                colour = _CAR if k == chosen else FAINT
                tip = floor - max(1, round(float(share) * high))
                pen.rectangle([edges[k], tip, max(edges[k], edges[k + 1] - 1 - gap), floor], colour)
            said = gaze.label(gaze.order[chosen])
            pen.text((left + width, top), said, TEXT, self._little, "ra")
            return
        for row, (low, middle, high_) in enumerate(gaze.spans(step)):
            least, most = gaze.ranges[row]
            ends = [(x - least) / (most - least) for x in (low, middle, high_)]
            if row == 0:  # left is left
                ends = [1 - x for x in reversed(ends)]
            places = [left + round(x * (width - 1)) for x in ends]
            y = top + 24 + 32 * row
            pen.rectangle([left, y, left + width - 1, y + 7], _ROAD)
            pen.rectangle([places[0], y, places[2], y + 7], FAINT)
            pen.rectangle([places[1] - 2, y - 3, places[1] + 2, y + 10], _CAR)

    def _write(self, left: int, top: int, words: str) -> None:
        """Write words that come again: drawn once, then copied."""
        if words not in self._written:
            image = Image.new("RGB", (self._width, 24), PANEL)
            ImageDraw.Draw(image).text((0, -4), words, TEXT, self._medium)
            self._written[words] = image
        self._image.paste(self._written[words], (left, top + 4))

    def _draw_still(self, lap: int) -> Image.Image:
        """Draw what stays the same for a lap."""
        image = Image.new("RGB", self._image.size, PANEL)
        pen = ImageDraw.Draw(image)
        left, right, little = self._left, self._left + self._width, self._little
        pen.text((left, self._lap_y), f"lap {lap + 1}", FAINT, self._medium)
        if lap:
            text = f"last {self._laps[lap - 1]:.2f} s    best {self._laps[:lap].min():.2f} s"
            pen.text((left, self._lap_y + 74), text, FAINT, little)
        for name, y in (("speed", self._speed_y), ("steering", self._steering_y)):
            pen.text((left, y), name, FAINT, little)
            pen.rectangle([left, y + 42, right - 1, y + 49], _ROAD)
        pen.text((left, self._speed_y + 53), f"{self.range[0]:.0f}", FAINT, little)
        pen.text((right, self._speed_y + 53), f"{self.range[1]:.1f}", FAINT, little, anchor="ra")
        if self._gaze is not None:
            self._label_mind(pen, self._gaze)
        return image

    def _label_mind(self, pen: ImageDraw.ImageDraw, gaze: Gaze) -> None:
        """Say what the lowest part of the panel means, and what is hot in the picture."""
        left, right, top = self._left, self._left + self._width, self._mind_y
        pen.text((left, top), "chooses" if gaze.discrete else "is minded to", FAINT, self._little)
        if gaze.discrete:
            pen.line([left, top + 77, right - 1, top + 77], _ROAD)
            return
        (low, high), (slow, fast) = gaze.ranges
        for y, words in ((34, (sided(high), sided(low))),
                         (66, (f"{slow:.1f}", f"{fast:.1f} m/s"))):  # fmt: skip
            pen.text((left, top + y), words[0], FAINT, self._tiny)
            pen.text((right, top + y), words[1], FAINT, self._tiny, "ra")

    def _draw_camera(self, picture: Array) -> None:
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        scale = min(self._width / image.width, 156 / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        way = Image.Resampling.NEAREST if scale > 3 else Image.Resampling.BILINEAR
        left = self._left + (self._width - size[0]) // 2
        self._image.paste(image.resize(size, way).convert("RGB"), (left, 16))
