"""The `params` of DeepRacer's reward function, computed for all cars at once.

Their conventions are not ours: degrees, percent, the raw centre line as straight pieces between
the points of the track file instead of our smooth one, and a point 0.14 m ahead of the car for all
positions. Every conversion is here and nowhere else. The world's own (s, n) is not used, because
users' rewards depend on DeepRacer's numbers to the digit.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/agent_ctrl and track_geom,
read for the facts. The origin of that car lies between its axles; ours is the centre of gravity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hotlap.deepracer.objects import Around, ObjectColumns, object_columns
from hotlap.deepracer.rewards.keys import KEYS
from hotlap.simulator import Command, State
from hotlap.track import Track
from hotlap.types import Array, Float64

__all__ = ["KEYS", "Columns", "Params"]

NOSE = 0.14
"""Distance of the point that DeepRacer calls the car's position ahead of the car's origin [m]."""

FRONT, REAR = 0.082311, -0.081663
FRONT_HALF, REAR_HALF = 0.0795, 0.081
"""Wheel origins: x of the axles and half the distance between their wheels [m]."""

CELL = 0.25
"""Side of a cell of the search grid [m]; larger on courses that would need over `CELLS` of them."""
CELLS = 60_000


@dataclass(frozen=True, eq=False)
class Columns:
    """The params of N cars, one array a key, in DeepRacer's units; float64, bool or int64."""

    track: Array
    """(N,) which of the tracks; not a key, but `waypoints` and `track_length` follow from it."""
    x: Array
    y: Array
    heading: Array
    """(N,) [degrees], -180..180."""
    distance_from_center: Array
    projection_distance: Array
    """(N,) arc length along the raw centre line [m], from its first waypoint."""
    progress: Array
    """(N,) percent of the lap since the episode's start; may be negative, at most 100."""
    steps: Array
    speed: Array
    """(N,) commanded [m/s]."""
    steering_angle: Array
    """(N,) commanded [degrees], positive left."""
    track_width: Array
    track_length: Array
    closest_waypoints: Array
    """(N, 2) indices of the waypoints behind and ahead."""
    all_wheels_on_track: Array
    is_left_of_center: Array
    is_offtrack: Array
    is_reversed: Array
    """(N,) whether the course is driven against its file's order; not where the car points."""
    sim_time: Array
    """(N,) [s] since the first episode of the row."""
    objects: ObjectColumns | None
    """What they are told of objects; None where nothing shares the road."""

    def around(self) -> Around:
        """Return the keys that speak of objects, as arrays."""
        if self.objects is None:
            return Around.nothing(len(self.x))
        return Around.of(self.objects, self.projection_distance)


_OWN = tuple(field.name for field in fields(Columns) if field.name != "objects")


class Params:
    """DeepRacer's params for the rows of one simulator.

    It remembers two numbers a row for `progress` (where the episode started, and the last value)
    and a clock. Only its owner calls `begin` and `compute`, `compute` once a control step.
    """

    def __init__(self, tracks: Sequence[Track], *, dt: float = 1 / 15) -> None:
        self._tables, self._waypoints = _tables(tracks)
        self._reversed = np.array([track.reverse_direction for track in tracks], bool)
        self._dt = dt
        self._start = np.empty(0)
        self._previous = np.empty(0)
        self._goal = np.empty(0)
        self._lengths = np.array([track.length for track in tracks])
        self._closed = np.array([track.closed for track in tracks])
        self._clock = np.empty(0, np.int64)

    def begin(self, rows: Array, state: State, *, on_line: bool = False) -> None:
        """Start episodes in the given rows (an index array) of the state.

        The start is where the car's origin projects to, so a car that has not moved has already
        progressed by its nose. With `on_line` it is the start line instead, as in a race: who
        stands behind it on the grid has a progress below zero.
        """
        count = len(state.x)
        if len(self._start) != count:
            self._start = np.full(count, np.nan)
            self._previous = np.zeros(count)
            self._goal = np.zeros(count)
            self._clock = np.zeros(count, np.int64)
        nothing = np.zeros(len(rows))
        track = state.track[rows]
        pose = state.x[rows], state.y[rows], state.yaw[rows], track
        self._start[rows] = self._locate(*pose, nothing, nothing, nose=0.0).place
        self._start[rows] /= self._tables.length[track]
        self._previous[rows] = 0.0
        self._goal[rows] = self._lengths[track]
        if on_line:
            beyond = self._start[rows] - self._closed[track] * (self._start[rows] > 0.5)
            self._goal[rows] -= beyond * self._lengths[track]
            self._start[rows] = 0.0

    def compute(self, state: State, command: Command, steps: Array) -> Columns:
        """Compute the params of all rows.

        Args:
            state: the cars before the command is obeyed (DeepRacer's timing) or after it.
            command: what the driver asks for; reported unclipped.
            steps: (N,) the number of the step that the reward is for; DeepRacer's first is 2.
        """
        if len(self._start) != len(state.x):
            raise ValueError(f"begin() was given {len(self._start)} rows, not {len(state.x)}")
        pose = state.x, state.y, state.yaw, state.track
        at = self._locate(*pose, self._start, self._previous, nose=NOSE)
        # The nose is over the line a few steps before the car: 100 is said once, for the state
        # that completes the lap and ends a DeepRacer episode.
        full = at.progress == 100.0
        lap = full & (state.travelled >= self._goal)
        progress = np.where(full & ~lap, np.nextafter(100.0, 0.0), at.progress)
        self._previous = np.where(lap, 0.0, progress)  # a new lap from zero
        self._goal = self._goal + lap * self._lengths[state.track]
        self._clock += 1
        # A command of 15 degrees reaches us as a float32 in radians. Users compare with ==.
        steering = np.degrees(command.steering.astype(np.float64))
        return Columns(
            track=state.track.astype(np.int64),
            x=at.x,
            y=at.y,
            heading=at.heading,
            distance_from_center=at.distance,
            projection_distance=at.place,
            progress=progress,
            steps=np.asarray(steps).astype(np.float64),
            speed=np.round(command.speed.astype(np.float64), 6),
            steering_angle=np.round(steering, 5),
            track_width=at.width,
            track_length=self._tables.length[state.track],
            closest_waypoints=at.waypoints,
            all_wheels_on_track=at.wheels == 4,
            is_left_of_center=at.left,
            is_offtrack=at.wheels == 0,
            is_reversed=self._reversed[state.track],
            sim_time=self._clock * self._dt,
            objects=self._objects(state),
        )

    def waypoint_arrays(self) -> list[Float64]:
        """Return each track's waypoints, (P, 2), in driving order."""
        return [np.array(points) for points in self._waypoints]

    def rows(
        self,
        columns: Columns,
        keys: Sequence[str] | None = None,
        *,
        copies: bool = True,
        chosen: Array | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield one fresh dict a car, in order; the user may change anything in it.

        Args:
            columns: the params of N cars.
            keys: those that matter; all of them if None.
            copies: whether each dict gets a list of waypoints of its own, as in DeepRacer.
            chosen: (N,) which cars; all of them if None.
        """
        names = KEYS if keys is None else tuple(keys)
        given = [key for key in names if key in _OWN]
        some = slice(None) if chosen is None else chosen
        values = [getattr(columns, key)[some].tolist() for key in given]
        if "waypoints" in names:
            given.append("waypoints")
            values.append([self._waypoints[t] for t in columns.track[some].tolist()])
        if not values:
            values = [columns.track[some].tolist()]
        made = _builder(names, tuple(given), copies)(zip(*values, strict=True))
        if columns.objects is None or not set(names) & _OF_OBJECTS:
            yield from made
            return
        places = columns.projection_distance
        for i, params in zip(np.arange(len(places))[some].tolist(), made, strict=True):
            found = columns.objects.keys(i, places[i])
            params |= found if keys is None else {k: found[k] for k in names if k in found}
            yield params

    def row(self, columns: Columns, i: int) -> dict[str, Any]:
        """Return the fresh dict of one car."""
        return next(self.rows(columns, chosen=np.arange(len(columns.x)) == i))

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        return {
            "start": self._start.copy(),
            "previous": self._previous.copy(),
            "goal": self._goal.copy(),
            "clock": self._clock.copy(),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._start = np.array(arrays["start"], np.float64)
        self._previous = np.array(arrays["previous"], np.float64)
        self._goal = np.array(arrays["goal"], np.float64)
        self._clock = np.array(arrays["clock"], np.int64)

    def _objects(self, state: State) -> ObjectColumns | None:
        around = state.around
        if around is None or not around.boxes.shape[1]:
            return None
        rows, count = around.boxes.shape[:2]
        x, y = (np.ascontiguousarray(around.boxes[:, :, i]).reshape(-1) for i in (0, 1))
        zero = np.zeros(len(x))
        track = np.repeat(state.track, count)
        at = self._locate(x, y, zero.astype(np.float32), track, zero, zero, nose=0.0)
        place, beside, left = (a.reshape(rows, count) for a in (at.place, at.distance, at.left))
        return object_columns(state, around, place, beside, left)

    def _locate(
        self,
        x: Array,
        y: Array,
        yaw: Array,
        track: Array,
        start: Array,
        previous: Array,
        *,
        nose: float,
    ) -> _Place:
        count = len(x)
        arrays: list[Array] = [np.empty(count) for _ in range(7)]
        arrays += [np.empty((count, 2), np.int64), np.empty(count, np.int64), np.empty(count, bool)]
        at = _Place(*arrays)
        _locate(self._tables, x, y, yaw, track, start, previous, nose, at)
        return at


_ABSENT = {
    "closest_objects": "[0, 0]",
    "is_crashed": "False",
    "object_in_camera": "False",
} | {key: "[]" for key in KEYS if key.startswith("objects_")}
"""What is said of objects where there are none, as source."""
_OF_OBJECTS = frozenset(_ABSENT)


@cache
def _builder(
    names: tuple[str, ...], given: tuple[str, ...], copies: bool
) -> Callable[[Iterator[tuple[Any, ...]]], Iterator[dict[str, Any]]]:
    """Make the generator of params from rows of values, in the order of `given`.

    Written as source, as one dict display is several times faster than filling a dict.
    """
    parts = []
    for key in names:
        value = _ABSENT.get(key) or f"v_{key}"
        parts.append(f"{key!r}: {value}{'.copy()' if key == 'waypoints' and copies else ''}")
    row = "".join(f"v_{key}, " for key in given) or "_, "
    source = f"lambda values: ({{{', '.join(parts)}}} for {row} in values)"
    return eval(source)  # type: ignore[no-any-return]  # of our own names only


class _Place(NamedTuple):
    """Where N cars are: what the kernel writes."""

    x: Array
    y: Array
    heading: Array
    distance: Array
    place: Array
    progress: Array
    width: Array
    waypoints: Array
    wheels: Array
    left: Array


class _Tables(NamedTuple):
    """All tracks' lines and search lists, one after the other.

    Points of track t are `first[t]` to `first[t + 1]`; a closed line repeats its first point, so
    piece i joins points i and i + 1 of a line. List number i is `items[starts[i] : starts[i + 1]]`,
    in ascending order.
    """

    first: Array
    centre: Array
    """(points, 2), and so the next two."""
    inner: Array
    outer: Array
    along: Array
    """(points,) arc length of the centre line."""
    near_starts: Array
    """Lists, one a cell: the centre pieces that can be nearest to a point of the cell."""
    near_items: Array
    inner_starts: Array
    """Lists, one a centre piece: the inner pieces that can be nearest to a point of it."""
    inner_items: Array
    outer_starts: Array
    outer_items: Array
    edges: Array
    """(edges, 4) x, y, x, y of the road's boundary."""
    edge_starts: Array
    """Lists, one a cell: the edges that touch it."""
    edge_items: Array
    inside: Array
    """(cells,) whether the middle of the cell is on the road."""
    cell: Array
    """(tracks,) the first cell of each."""
    shape: Array
    """(tracks, 2) cells along x and along y; cell (i, j) is number i * shape[1] + j."""
    corner: Array
    """(tracks, 2) least x and y of the grid."""
    side: Array
    """(tracks,) of a cell."""
    length: Array
    leftward: Array
    """(tracks,) whether the course as driven is counter-clockwise; an open one: as in its file."""


def _tables(tracks: Sequence[Track]) -> tuple[_Tables, list[list[tuple[float, float]]]]:
    """Build the search lists of all tracks, and their waypoints as DeepRacer lists them.

    A piece can be nearest to some point of a disc only if it is no further from the middle than
    the nearest piece plus the disc's diameter, so the lists hold all that matter and few more.
    """
    parts: dict[str, list[Array]] = {name: [] for name in _Tables._fields}
    lists = {"near": 0, "inner": 0, "outer": 0, "edge": 0}
    points = edges_before = cells = 0
    waypoints = []
    for track in tracks:
        centre, inner, outer = (
            _line(a, track.closed) for a in (track.centre, track.inner, track.outer)
        )
        waypoints.append([(x, y) for x, y in centre.tolist()])
        if track.closed:
            edges = np.concatenate([_pieces(inner), _pieces(outer)])
        else:
            edges = _pieces(np.concatenate([outer, inner[::-1], outer[:1]]))
        low = np.min(edges.reshape(-1, 2), axis=0) - 2 * CELL
        size = np.max(edges.reshape(-1, 2), axis=0) + 2 * CELL - low
        side = max(CELL, math.sqrt(size[0] * size[1] / CELLS))
        shape = np.ceil(size / side).astype(np.int64)
        i, j = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
        middle = low + side * (np.stack([i, j], axis=1) + 0.5)
        reach = np.full(len(middle), side * math.sqrt(0.5) + 1e-9)

        ways = _pieces(centre)
        half = np.hypot(ways[:, 2] - ways[:, 0], ways[:, 3] - ways[:, 1]) / 2 + 1e-9
        between = (ways[:, :2] + ways[:, 2:]) / 2
        found = {
            "near": _lists(middle, 2 * reach, True, ways),
            "inner": _lists(between, 2 * half, True, _pieces(inner)),
            "outer": _lists(between, 2 * half, True, _pieces(outer)),
            "edge": _lists(middle, reach, False, edges),
        }
        for name, (starts, items) in found.items():
            parts[f"{name}_starts"].append(starts[:-1] + lists[name])
            parts[f"{name}_items"].append(items + (edges_before if name == "edge" else points))
            lists[name] += len(items)
            if name in ("inner", "outer"):  # a line of P points has P - 1 pieces
                parts[f"{name}_starts"].append(np.array([lists[name]]))
        along = np.zeros(len(centre))
        along[1:] = np.cumsum(np.hypot(*np.diff(centre, axis=0).T))
        area = np.sum(centre[:-1, 0] * centre[1:, 1] - centre[1:, 0] * centre[:-1, 1])
        new = {
            "first": np.array([points]),
            "centre": centre,
            "inner": inner,
            "outer": outer,
            "along": along,
            "edges": edges,
            "inside": _even_odd(middle, edges),
            "cell": np.array([cells]),
            "shape": shape[None],
            "corner": low[None],
            "side": np.array([side]),
            "length": along[-1:],
            "leftward": np.array([area > 0 if track.closed else not track.reverse_direction]),
        }
        for name, array in new.items():
            parts[name].append(array)
        points += len(centre)
        edges_before += len(edges)
        cells += len(middle)
    parts["first"].append(np.array([points]))
    for name, count in lists.items():
        parts[f"{name}_starts"].append(np.array([count]))
    return _Tables(**{name: np.concatenate(arrays) for name, arrays in parts.items()}), waypoints


def _line(points: Array, closed: bool) -> Float64:
    points = np.asarray(points, np.float64)
    return np.concatenate([points, points[:1]]) if closed else points


def _pieces(line: Float64) -> Float64:
    return np.concatenate([line[:-1], line[1:]], axis=1)


@njit(cache=True, nogil=True, error_model="numpy")
def _reach(px, py, ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Return the squared distance from p to the piece a-b, and where on it (0..1) the nearest is.

    At the ends the point itself is used, so that neighbouring pieces tie exactly.
    """
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy
    t = ((px - ax) * dx + (py - ay) * dy) / square if square > 0.0 else 0.0
    if t <= 0.0:
        return (px - ax) ** 2 + (py - ay) ** 2, 0.0
    if t >= 1.0:
        return (px - bx) ** 2 + (py - by) ** 2, 1.0
    return (px - ax - t * dx) ** 2 + (py - ay - t * dy) ** 2, t


@njit(cache=True, nogil=True, error_model="numpy")
def _lists(middle, reach, beyond_nearest, pieces):  # type: ignore[no-untyped-def]
    """List for every middle the pieces within reach, or within reach beyond the nearest piece."""
    starts = np.empty(len(middle) + 1, np.int64)
    items = np.empty(16 * len(middle), np.int64)
    distance = np.empty(len(pieces))
    count = 0
    for q in range(len(middle)):
        starts[q] = count
        least = np.inf
        for i in range(len(pieces)):
            ax, ay, bx, by = pieces[i, 0], pieces[i, 1], pieces[i, 2], pieces[i, 3]
            square, _ = _reach(middle[q, 0], middle[q, 1], ax, ay, bx, by)
            distance[i] = math.sqrt(square)
            least = min(least, distance[i])
        limit = reach[q] + (least if beyond_nearest else 0.0)
        if count + len(pieces) > len(items):
            items = np.concatenate((items, np.empty(len(items) + len(pieces), np.int64)))
        for i in range(len(pieces)):
            if distance[i] <= limit:
                items[count] = i
                count += 1
    starts[-1] = count
    return starts, items[:count].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def _even_odd(points, edges):  # type: ignore[no-untyped-def]
    """Tell which points are inside the area that the edges enclose."""
    inside = np.empty(len(points), np.bool_)
    for q in range(len(points)):
        x, y = points[q, 0], points[q, 1]
        odd = False
        for i in range(len(edges)):
            ax, ay, bx, by = edges[i, 0], edges[i, 1], edges[i, 2], edges[i, 3]
            if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
                odd = not odd
        inside[q] = odd
    return inside


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(x, y, left, low, side, columns, rows):  # type: ignore[no-untyped-def]
    """Return the number of the grid's cell that holds the point, or -1 outside (and for NaN)."""
    i, j = (x - left) / side, (y - low) / side
    if not (0.0 <= i < columns and 0.0 <= j < rows):
        return -1
    return int(i) * rows + int(j)


@njit(cache=True, nogil=True, error_model="numpy")
def _odd(x, y, mx, my, edges, items, begin, end):  # type: ignore[no-untyped-def]
    """Tell whether the way from m to (x, y) crosses an odd number of the listed edges."""
    wx, wy = x - mx, y - my
    odd = False
    for item in range(begin, end):
        e = items[item]
        ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        a = wx * (ay - my) - wy * (ax - mx) > 0.0
        b = wx * (by - my) - wy * (bx - mx) > 0.0
        if a != b:
            here = (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0.0
            there = (bx - ax) * (my - ay) - (by - ay) * (mx - ax) > 0.0
            odd ^= here != there
    return odd


@njit(cache=True, nogil=True, error_model="numpy")
def _closest(line, items, begin, end, x, y):  # type: ignore[no-untyped-def]
    """Return the nearest point of the listed pieces of a line."""
    best, nx, ny = np.inf, np.nan, np.nan
    for item in range(begin, end):
        i = items[item]
        ax, ay, bx, by = line[i, 0], line[i, 1], line[i + 1, 0], line[i + 1, 1]
        square, t = _reach(x, y, ax, ay, bx, by)
        if square < best:
            best, nx, ny = square, ax + t * (bx - ax), ay + t * (by - ay)
    return nx, ny


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(tables, x, y, yaw, track, start, previous, nose, at):  # type: ignore[no-untyped-def]
    """Fill `at` for every row, from poses, the episode's start (a fraction) and last progress."""
    # Handing the whole tables to a function counts the references of every array: 50 times slower.
    centre, along, inner, outer = tables.centre, tables.along, tables.inner, tables.outer
    near_starts, near_items = tables.near_starts, tables.near_items
    inner_starts, inner_items = tables.inner_starts, tables.inner_items
    outer_starts, outer_items = tables.outer_starts, tables.outer_items
    edges, edge_starts, edge_items = tables.edges, tables.edge_starts, tables.edge_items
    for row in range(len(x)):
        t = track[row]
        c, s = math.cos(np.float64(yaw[row])), math.sin(np.float64(yaw[row]))
        ox, oy = np.float64(x[row]), np.float64(y[row])
        px, py = ox + nose * c, oy + nose * s
        at.x[row], at.y[row] = px, py
        at.heading[row] = min(max(math.degrees(np.float64(yaw[row])), -180.0), 180.0)

        left, low, side = tables.corner[t, 0], tables.corner[t, 1], tables.side[t]
        columns, rows = tables.shape[t, 0], tables.shape[t, 1]
        first, last = tables.first[t], tables.first[t + 1] - 1
        cell = _cell(px, py, left, low, side, columns, rows)
        begin, end = 0, last - first
        if cell >= 0:
            cell += tables.cell[t]
            begin, end = near_starts[cell], near_starts[cell + 1]
        best, piece, part = np.inf, first, 0.0
        for item in range(begin, end):
            i = near_items[item] if cell >= 0 else first + item
            square, u = _reach(
                px, py, centre[i, 0], centre[i, 1], centre[i + 1, 0], centre[i + 1, 1]
            )
            if square < best:  # of two equal ones the first, as shapely does
                best, piece, part = square, i, u
        place = along[piece] + part * (along[piece + 1] - along[piece])
        if part == 1.0:
            place = along[piece + 1]
        at.distance[row], at.place[row] = math.sqrt(best), place

        behind = piece
        while behind < last and along[behind + 1] <= place:
            behind += 1
        at.waypoints[row, 0] = behind - first
        at.waypoints[row, 1] = behind + 1 - first if behind < last else 0

        cx = centre[piece, 0] + part * (centre[piece + 1, 0] - centre[piece, 0])
        cy = centre[piece, 1] + part * (centre[piece + 1, 1] - centre[piece, 1])
        begin, end = inner_starts[piece], inner_starts[piece + 1]
        ix, iy = _closest(inner, inner_items, begin, end, cx, cy)
        begin, end = outer_starts[piece], outer_starts[piece + 1]
        ux, uy = _closest(outer, outer_items, begin, end, cx, cy)
        at.width[row] = math.hypot(ix - ux, iy - uy)
        near_inner = (px - ix) ** 2 + (py - iy) ** 2 < (px - ux) ** 2 + (py - uy) ** 2
        at.left[row] = near_inner == tables.leftward[t]

        progress = 100.0 * (place / tables.length[t] - start[row])
        if progress <= 0.0:
            progress += 100.0
        if previous[row] > progress + 50.0:  # over the finish line
            progress += 100.0
        if progress > previous[row] + 50.0:  # over it backwards
            progress -= 100.0
        at.progress[row] = min(progress, 100.0)

        wheels = 0
        for wheel in range(4):
            ahead, aside = (FRONT, FRONT_HALF) if wheel < 2 else (REAR, REAR_HALF)
            if wheel % 2:
                aside = -aside
            wx, wy = ox + ahead * c - aside * s, oy + ahead * s + aside * c
            cell = _cell(wx, wy, left, low, side, columns, rows)
            if cell >= 0:
                mx, my = left + side * (cell // rows + 0.5), low + side * (cell % rows + 0.5)
                cell += tables.cell[t]
                begin, end = edge_starts[cell], edge_starts[cell + 1]
                on_road = tables.inside[cell]
                if begin < end:
                    on_road ^= _odd(wx, wy, mx, my, edges, edge_items, begin, end)
                wheels += on_road
        at.wheels[row] = wheels
