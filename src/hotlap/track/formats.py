"""Tracks as others keep them: TUM and F1TENTH tables, and maps as F1TENTH and ROS draw them.

Each reader returns waypoints (N, 6) of centre, inner and outer border x, y in metres.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from hotlap.errors import MissingExtraError, TrackError
from hotlap.types import Array, Float64

__all__ = ["MAPS", "TABLES", "is_map", "read_map", "read_table"]

TABLES = (".csv", ".txt")
MAPS = (".yaml", ".yml")
_WIDTHS = ("x_m", "y_m", "w_tr_right_m", "w_tr_left_m")
_PIXELS_MAX = 40_000_000
"""Things on the road of less than this share of the infield are not part of the course."""


def read_table(text: str, source: str) -> Float64:
    """Read a table of a centre line and its widths, or of waypoints.

    Columns are told apart by the names in a header that begins with `#`, else by their number:
    4 are x, y, width to the right and to the left; 6 are waypoints. Commas, semicolons and blanks
    separate. A loop need not repeat its first row.

    Raises:
        TrackError: the table is none of these; the message says what is missing.

    Source: the tables of the TUM racetrack database and of f1tenth_racetracks.
    """
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    heads = [_cells(line.lstrip("# ")) for line in lines if _is_head(line)]
    body = [_cells(line) for line in lines if not _is_head(line)]
    want = (
        "a table of a track has the columns x_m, y_m, w_tr_right_m, w_tr_left_m, or six of "
        "waypoints"
    )
    names = [cell.lower() for cell in heads[-1]] if heads else []
    widths = {len(row) for row in body}
    if len(widths) != 1:
        what = f"has rows of {sorted(widths)} cells" if widths else "holds no row of numbers"
        raise TrackError(f"{source}: {what}; {want}. Export it again.")
    try:
        table = np.array(body, np.float64)
    except ValueError:
        bad = next(cell for row in body for cell in row if not _is_number(cell))
        raise TrackError(f"{source}: {bad!r} is no number; {want}. Mend the file.") from None
    columns = table.shape[1]
    if set(_WIDTHS) <= set(names) and len(names) == columns:
        table = table[:, [names.index(name) for name in _WIDTHS]]
    elif "s_m" in names or "kappa_radpm" in names:
        raise TrackError(
            f"{source}: is a racing line, which has no borders; {want}. Give the table of the "
            "centre line that belongs to it."
        )
    elif columns == 6:
        return table
    elif columns != 4:
        raise TrackError(f"{source}: has {columns} columns; {want}. Add the widths.")
    if not np.isfinite(table).all() or (table[:, 2:] <= 0).any() or len(table) < 4:
        raise TrackError(
            f"{source}: has widths that are not positive, values that are not finite, or fewer "
            f"than 4 rows; {want}. Mend the file."
        )
    centre = table[:, :2]
    step = np.hypot(*np.diff(centre, axis=0).T)
    ends = float(np.hypot(*(centre[0] - centre[-1])))
    if ends <= 1e-6 * step.sum():
        table, closed = table[:-1], True
    else:
        closed = ends <= 2 * float(step.max())
    return _bordered(table[:, :2], table[:, 3], table[:, 2], closed=closed)


def is_map(path: Path) -> bool:
    """Say whether a YAML file describes a map."""
    try:
        return re.search(r"^image\s*:", path.read_text(encoding="utf-8"), re.M) is not None
    except (OSError, UnicodeDecodeError):
        return False


def read_map(path: Path) -> Float64:
    """Read a map image by its YAML file, and return the ring of free ground in it as a course.

    The centre line is where the infield is as far as the outside, found between pixels and
    smoothed over half the road; it begins nearest to (0, 0), where F1TENTH starts, and runs
    counter-clockwise.

    Raises:
        TrackError: the YAML lacks what a map needs, or no ring of free ground is in the image.
        MissingExtraError: SciPy is not installed.

    Source: the fields are those of the ROS map_server: a pixel is free if its occupancy, 0 for
    white and 1 for black, or the other way round with negate, is below free_thresh.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingExtraError("reading a map", "SciPy", "maps") from None
    free, resolution, origin = _free(path)
    marks, count = ndimage.label(free)
    outer = set(np.unique(np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]])))
    best, hole, beyond, most = None, None, None, 0
    sizes = np.bincount(marks.ravel())
    for mark in sorted(set(range(1, count + 1)) - outer, key=lambda m: -sizes[m])[:20]:
        rest, holes = ndimage.label(marks != mark, structure=np.ones((3, 3)))
        areas = np.bincount(rest.ravel())
        inside = [h for h in range(1, holes + 1) if h != rest[0, 0]]
        largest = max(inside, key=lambda h: areas[h], default=0)
        if largest and areas[largest] > max(most, 0.05 * sizes[mark]):
            most, best, hole, beyond = areas[largest], mark, rest == largest, rest == rest[0, 0]
    if best is None or hole is None or beyond is None:
        raise TrackError(
            f"{path}: no ring of free ground is in its image; a map of a track is a closed road "
            "in white between walls in black that it does not touch. Check free_thresh and negate."
        )
    inner, outside = (ndimage.distance_transform_edt(~part) - 0.5 for part in (hole, beyond))
    return _middle(inner, outside, resolution, origin)


def _is_head(line: str) -> bool:
    return line.startswith("#") or not _is_number(_cells(line)[0])


def _cells(line: str) -> list[str]:
    return [cell for cell in re.split(r"\s*[;,]\s*|\s+", line.strip().rstrip(",;")) if cell] or [""]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _bordered(centre: Float64, left: Float64, right: Float64, *, closed: bool) -> Float64:
    """Return waypoints from a centre line and the distances of its borders."""
    ahead = np.roll(centre, -1, axis=0) - np.roll(centre, 1, axis=0)
    if not closed:
        ahead[0], ahead[-1] = centre[1] - centre[0], centre[-1] - centre[-2]
    normal = ahead[:, ::-1] * [-1.0, 1.0] / np.maximum(np.hypot(*ahead.T), 1e-12)[:, None]
    borders = [centre + normal * left[:, None], centre - normal * right[:, None]]
    x, y = centre.T
    clockwise = float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) < 0
    rows = np.hstack([centre, *(borders[::-1] if clockwise and closed else borders)])
    return np.vstack([rows, rows[:1]]) if closed else rows


def _free(path: Path) -> tuple[Array, float, tuple[float, float, float]]:
    """Return the free pixels, the metres of a pixel and the pose of the lower left corner."""
    from PIL import Image, UnidentifiedImageError

    text = path.read_text(encoding="utf-8", errors="replace")
    found = dict(re.findall(r"^(\w+)\s*:\s*(.*?)\s*(?:#.*)?$", text, re.M))
    if missing := [key for key in ("image", "resolution", "origin") if not found.get(key)]:
        raise TrackError(
            f"{path}: lacks {', '.join(missing)}; a map's file says image, resolution and origin. "
            "Add them."
        )
    try:
        resolution = float(found["resolution"])
        origin = [float(cell) for cell in found["origin"].strip("[] ").split(",")]
        limit = float(found.get("free_thresh") or 0.196)
        negate = bool(int(found.get("negate") or 0))
    except ValueError as error:
        raise TrackError(f"{path}: is no map's file ({error}). Mend that value.") from None
    if not (resolution > 0 and math.isfinite(resolution) and len(origin) in (2, 3)):
        raise TrackError(
            f"{path}: has resolution {found['resolution']} and origin {found['origin']}; a map has "
            "metres for a pixel above 0 and x, y, yaw of its lower left corner. Mend them."
        )
    file = path.parent / found["image"].strip("'\"")
    try:
        with Image.open(file) as image:
            if image.width * image.height > _PIXELS_MAX:
                raise TrackError(
                    f"{file}: has {image.width}x{image.height} pixels, at most "
                    f"{_PIXELS_MAX // 10**6} million are read. Halve it, and double the resolution."
                )
            grey = np.asarray(image.convert("L"), np.float64) / 255
    except FileNotFoundError:
        raise TrackError(f"{path}: its image {file} does not exist. Put it there.") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise TrackError(f"{file}: is no image that can be read ({error}).") from None
    occupied = grey if negate else 1 - grey
    return occupied < limit, resolution, (origin[0], origin[1], (*origin, 0.0)[2])


def _middle(
    inner: Float64, outside: Float64, resolution: float, origin: tuple[float, float, float]
) -> Float64:
    """Return waypoints along the line that is as far from the infield as from the outside."""
    from contourpy import contour_generator

    lines = contour_generator(z=inner - outside).lines(0.0)
    line = max((np.asarray(one, np.float64) for one in lines), key=len)
    step = np.hypot(*np.diff(line, axis=0).T)
    arc = np.concatenate([[0.0], np.cumsum(step)])
    count = max(16, round(arc[-1]))
    even = np.linspace(0, arc[-1], count, endpoint=False)
    line = np.stack([np.interp(even, arc, column) for column in line.T], axis=1)
    row, column = (
        np.clip(line[:, i].round().astype(int), 0, inner.shape[1 - i] - 1) for i in (1, 0)
    )
    half = np.stack([inner[row, column], outside[row, column]], axis=1)
    blur = max(1.0, 0.25 * float(np.median(half.sum(axis=1))))
    line, half = _smooth(line, blur), _smooth(half, blur)
    x, y = (line[:, 0] + 0.5) * resolution, (inner.shape[0] - 0.5 - line[:, 1]) * resolution
    cos, sin = math.cos(origin[2]), math.sin(origin[2])
    centre = np.stack([origin[0] + cos * x - sin * y, origin[1] + sin * x + cos * y], axis=1)
    if float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) < 0:
        centre, half = centre[::-1], half[::-1]
    begin = int(np.argmin(np.hypot(*centre.T)))
    every = max(1, round(0.15 * float(np.median(half.sum(axis=1)))))
    centre, half = (np.roll(a, -begin, axis=0)[::every] for a in (centre, half * resolution))
    return _bordered(centre, half[:, 0], half[:, 1], closed=True)


def _smooth(loop: Float64, deviation: float) -> Float64:
    """Blur the columns of a loop with a Gaussian of that many rows."""
    wave = np.fft.rfftfreq(len(loop))
    damp = np.exp(-2 * (math.pi * deviation * wave) ** 2)[:, None]
    return np.asarray(np.fft.irfft(np.fft.rfft(loop, axis=0) * damp, len(loop), axis=0))
