"""Traffic: obstacles, bot cars, and the cars that share a track; who sees and who touches whom.

Rows of the same world share a track. All that is around a row becomes boxes, in one array that
camera, LIDAR, observation and contact read alike. Contact is found once a control step, by the
rectangles of the bodies; the push it gives acts at the beginning of the next step.

Source: separating axes of two rectangles (Gottschalk, Lin and Manocha 1996, sec. 4); impulse of a
contact with restitution and Coulomb friction (Baraff 1997, "Rigid body simulation II", sec. 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numba import njit
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hotlap.config import Settings
from hotlap.draws import Purpose, uniform
from hotlap.errors import ConfigError
from hotlap.simulator import BOX_FIELDS, SURROUNDINGS, Start, Surroundings
from hotlap.stations import StationTable
from hotlap.threads import spread
from hotlap.track import Track
from hotlap.types import Array, Float32
from hotlap.vehicle import Vehicle

__all__ = ["Traffic", "TrafficSettings"]


class TrafficSettings(Settings):
    """What shares the road with a car."""

    cars: PositiveInt = Field(1, le=32)
    """Learning cars on one track, which see and touch each other."""
    obstacles: NonNegativeInt = Field(0, le=32)
    """Boxes that stand on the road."""
    bots: NonNegativeInt = Field(0, le=32)
    """Cars that follow a lane whatever comes."""
    place: Literal["random", "even"] = "random"
    """Where obstacles and bots are: drawn for each episode; or evenly over the lap, left and right
    in turn. In a world of several cars they are placed once."""
    positions: tuple[tuple[float, float], ...] = ()
    """Places of the first of them in place of drawn ones: share of the lap in [0, 1), and side from
    -1 (right border) to 1 (left border)."""
    gap: PositiveFloat = 1.0
    """Least distance along the road between two of them, and to a car that starts [m]."""
    lane: float = Field(0.5, ge=0, le=1)
    """Where the two lanes run, as a share of the half road."""
    bot_speed: tuple[NonNegativeFloat, NonNegativeFloat] = (0.2, 0.2)
    """Slowest and fastest bot [m/s]; each draws its own."""
    lane_change: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0)
    """Shortest and longest time between two lane changes of a bot [s]; 0 0: it keeps its lane."""
    lane_change_distance: PositiveFloat = 1.0
    """Length of road on which a bot changes its lane [m]."""
    obstacle_size: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.3, 0.4, 0.25)
    """Length along the road, width and height of an obstacle [m]."""
    restitution: float = Field(0.2, ge=0, le=1)
    """Share of the speed of approach that two bodies keep after a contact."""
    contact_friction: NonNegativeFloat = 0.3
    """Coulomb friction between two bodies."""

    @property
    def bodies(self) -> int:
        """How many obstacles and bots a world has."""
        return self.obstacles + self.bots

    @property
    def boxes(self) -> int:
        """How many boxes there are around each car."""
        return self.bodies + self.cars - 1


class Traffic:
    """The obstacles and bots of many worlds, and the contacts of their cars.

    Args:
        settings: what there is.
        tracks: the courses of the simulator.
        vehicles: the car of each row.
        first_row: global id of row 0; a multiple of `settings.cars`.
        threads: how many threads share the work; the result does not depend on it.

    Raises:
        ConfigError: it does not fit onto a track, or the rows do not fill whole worlds.
    """

    def __init__(
        self,
        settings: TrafficSettings,
        tracks: Sequence[Track],
        vehicles: Sequence[Vehicle],
        *,
        first_row: int = 0,
        threads: int = 1,
    ) -> None:
        self.settings = settings
        rows, cars = len(vehicles), settings.cars
        if rows % cars or first_row % cars:
            raise ConfigError(
                f"traffic.cars: worlds of {cars} cars need a multiple of {cars} cars in all "
                f"(got {rows}); change train.cars or traffic.cars"
            )
        for share, side in settings.positions:
            if not (0 <= share < 1 and -1 <= side <= 1):
                raise ConfigError(
                    "traffic.positions: each is a share of the lap in [0, 1) and a side from -1 "
                    f"(right border) to 1 (left border) (got {share:g}, {side:g})"
                )
        if len(settings.positions) > settings.bodies:
            raise ConfigError(
                f"traffic.positions: {len(settings.positions)} are given for "
                f"{settings.bodies} obstacles and bots"
            )
        for name, (low, high) in (
            ("bot_speed", settings.bot_speed),
            ("lane_change", settings.lane_change),
        ):
            if low > high:
                raise ConfigError(
                    f"traffic.{name}: the first is the smaller one (got {low}, {high})"
                )
        for track in tracks:
            need = (settings.bodies + cars) * settings.gap
            if need > track.length:
                raise ConfigError(
                    f"traffic: {settings.bodies} obstacles and bots and {cars} cars, "
                    f"{settings.gap:g} m apart, need {need:g} m of road; {track.name} has "
                    f"{track.length:.1f} m. Lower their number or traffic.gap"
                )
        self._bank = StationTable(tracks)
        self._length = np.array([track.length for track in tracks], np.float32)
        self._threads = threads
        self._worlds = rows // cars
        self._track = np.zeros(self._worlds, np.int32)
        self._bodies = np.zeros((self._worlds, settings.bodies, _BODY), np.float32)
        self._placed = np.zeros(self._worlds, bool)
        self._push = np.zeros((rows, _PUSH), np.float32)
        self._absent = np.zeros(rows, bool)
        self._cars = np.array(
            [(v.body_length / 2, v.body_width / 2, _TALL * v.body_width, v.gyration**2, 0)
             for v in vehicles],
            np.float32,
        )  # fmt: skip
        length, width, height = settings.obstacle_size
        self._sizes = np.array(
            [
                *(length / 2, width / 2, height),
                *self._cars[0, :3],
                *(settings.lane, settings.lane_change_distance),
                *(settings.restitution, settings.contact_friction),
            ],
            np.float32,
        )

    def begin(
        self, start: Start, rows: Array, *, ids: Array, episode: Array, others: Array
    ) -> Float32:
        """Place obstacles and bots for rows that start an episode.

        Args:
            start: where they would start; all rows of a world on the same track.
            rows: (M,) which rows.
            ids: (M,) their global ids.
            episode: (M,) their episodes.
            others: (N,) where all cars are [m], NaN for those that are not on the road yet.

        Returns:
            (M,) where they start [m], moved forward where the place was taken.
        """
        settings, world = self.settings, rows // self.settings.cars
        fresh = np.unique(world[(settings.cars == 1) | ~self._placed[world]], return_index=True)
        which, first = fresh[0], np.searchsorted(world, fresh[0])
        self._bodies, self._track = self._bodies.copy(), self._track.copy()
        self._track[world] = start.track
        self._placed[which] = True
        if settings.bodies and len(which):
            self._place(start, first, which, ids[first], episode[first])
        self._push[rows] = 0
        self.withdraw(rows, False)
        others = np.where(self._absent, np.nan, others)
        others[rows] = np.nan
        closed, spot = self._bank.closed, np.array(start.s, np.float32)
        _make_room(
            rows.astype(np.int64), spot, self._track, self._bodies, others.astype(np.float32),
            self._length, closed, np.float32(settings.gap), settings.cars,
        )  # fmt: skip
        return spot

    def _place(self, start: Start, first: Array, worlds: Array, ids: Array, episode: Array) -> None:
        """Draw places: one in each of equal parts of the lap, `gap` apart at least."""
        settings, bodies = self.settings, self.settings.bodies
        step = np.zeros(len(worlds), np.int64)
        draws = uniform(start.seed, ids, episode, step, Purpose.TRAFFIC, 4 * bodies)
        draws = draws.reshape(len(worlds), bodies, 4)
        track = start.track[first]
        length = self._length[track][:, None]
        part = (length - settings.gap) / bodies  # as much as the start itself takes is left out
        order = np.arange(bodies, dtype=np.float32)
        even = settings.place == "even"
        share = np.full_like(draws[:, :, 0], 0.5) if even else draws[:, :, 0]
        lane = np.where(order % 2 == 0 if even else draws[:, :, 1] < 0.5, 1.0, -1.0)
        free = np.maximum(part - settings.gap, 0)
        s = start.s[first][:, None] + settings.gap + part * order + free * share
        if settings.obstacles and settings.bots:
            # obstacles and bots mixed along the road, not one kind after the other
            turn = np.argsort((order * 0.6180339887) % 1, kind="stable")
            s = s[:, turn]
        s = np.where(
            self._bank.closed[track][:, None] == 1, s % length, np.minimum(s, length * 0.999)
        )
        lane = np.broadcast_to(lane, s.shape).copy()
        for k, (at, side) in enumerate(settings.positions):
            s[:, k] = at * length[:, 0]
            lane[:, k] = side / max(settings.lane, 1e-6)
        slow, fast = settings.bot_speed
        soon, late = settings.lane_change
        is_bot = order >= settings.obstacles
        period = (soon + (late - soon) * draws[:, :, 3]) * is_bot
        placed = np.zeros((len(worlds), bodies, _BODY), np.float32)
        placed[:, :, _S], placed[:, :, _LANE], placed[:, :, _AIM] = s, lane, lane
        placed[:, :, _SPEED] = (slow + (fast - slow) * draws[:, :, 2]) * is_bot
        placed[:, :, _PERIOD] = period
        placed[:, :, _CLOCK] = period * draws[:, :, 0]
        self._bodies[worlds] = placed

    def withdraw(self, rows: Array, absent: Array | bool) -> None:
        """Say of rows whether their cars are off the road: then nobody sees or touches them.

        It counts from the next look on; `begin` puts a car on the road again.
        """
        self._absent = self._absent.copy()
        self._absent[rows] = absent

    def fade(self, rows: Array, faded: Array | bool) -> None:
        """Say of rows whether others see their cars but nobody touches them.

        It counts from the next look on, until it is said otherwise. It is not saved: who wants it
        says so again.
        """
        self._cars = self._cars.copy()
        self._cars[rows, _FADED] = faded

    def nothing(self) -> Surroundings:
        """Return what is around cars that are not on the road yet: boxes without height."""
        rows, boxes = len(self._push), self.settings.boxes
        s, n, speed = np.zeros((3, rows, boxes), np.float32)
        blank = np.zeros((rows, boxes, len(BOX_FIELDS)), np.float32)
        return Surroundings(blank, s, n, speed, np.full(rows, -1, np.int32))

    def pushed(self, floats: Array, index: dict[str, int]) -> Array:
        """Return the state rows with the pushes of the last contacts, which are then used up."""
        if self._push.any():
            floats = floats.copy()
            here = floats[:, : len(self._push)]
            dx, dy, dvx, dvy, spin = self._push.T
            yaw = here[index["yaw"]]
            c, s = np.cos(yaw), np.sin(yaw)
            here[index["x"]] += dx
            here[index["y"]] += dy
            here[index["vx"]] += c * dvx + s * dvy
            here[index["vy"]] += c * dvy - s * dvx
            here[index["yaw_rate"]] += spin
            self._push = np.zeros_like(self._push)
        return floats

    def drive(self, floats: Array, index: dict[str, int], dt: float) -> Surroundings:
        """Move the bots by `dt`, and find what is around every car and what it touches."""
        self._bodies, self._push = self._bodies.copy(), np.zeros_like(self._push)
        return self._look(floats, index, dt, np.arange(self._worlds), self.nothing())

    def look(
        self, floats: Array, index: dict[str, int], rows: Array, around: Surroundings
    ) -> Surroundings:
        """Look anew around the cars in whose worlds some of `rows` were put; nobody moves."""
        kept = self._push.copy()  # who was pushed is still pushed, also if the other one is gone
        kept[rows] = 0
        copies = {name: getattr(around, name).copy() for name in SURROUNDINGS}
        worlds = np.unique(rows // self.settings.cars)
        found = self._look(floats, index, 0.0, worlds, Surroundings(**copies))
        self._push = kept
        return found

    def _look(
        self, floats: Array, index: dict[str, int], dt: float, worlds: Array, out: Surroundings
    ) -> Surroundings:
        names = ("x", "y", "yaw", "vx", "vy", "yaw_rate", "s", "n")
        state = np.stack([floats[index[name], : len(self._push)] for name in names])
        bank, cars = self._bank, self._cars
        if self._absent.any():  # out of reach, and without height, which says: no box
            away = np.flatnonzero(self._absent)
            state[0, away] = _AWAY * (1 + away)
            cars = cars.copy()
            cars[away, 2] = 0
        spread(
            _meet, len(worlds), worlds, self.settings.cars, self.settings.obstacles, np.float32(dt),
            self._bodies, self._track, state, cars, self._sizes, bank.stations, bank.first,
            bank.segments, bank.spacing, bank.closed, out.boxes, out.s, out.n, out.speed,
            out.contact, self._push,
            block=256, threads=self._threads,
        )  # fmt: skip
        return out

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        return {
            "bodies": self._bodies.copy(),
            "body_track": self._track.copy(),
            "placed": self._placed.copy(),
            "push": self._push.copy(),
            "absent": self._absent.copy(),
        }

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._bodies, self._track = arrays["bodies"].copy(), arrays["body_track"].copy()
        self._placed, self._push = arrays["placed"].copy(), arrays["push"].copy()
        self._absent = arrays["absent"].copy()


# What is known of an obstacle or a bot: arc length, lane it is on (1 left, -1 right, between them
# while it changes), lane it makes for, speed, time between two changes, time since the last one,
# and how far it moves aside for each metre ahead.
_S, _LANE, _AIM, _SPEED, _PERIOD, _CLOCK, _SWAY = range(7)
_BODY = 7
_PUSH = 5
"""x, y [m], speed in x and y of the world [m/s], yaw rate [rad/s]."""
_FADED = 4
"""Column of the cars' sizes: 1 where nobody touches the car."""
_TALL = 0.65
"""Height of a car over its width."""
_AWAY = 1e5
"""How far from the world, and from each other, cars are that are off the road [m]."""
_STEP = 0.1
"""Distance between two places that are tried for a start [m]."""
_inline: Any = njit(fastmath=True, error_model="numpy", forceinline=True)
_F0, _F1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@njit(cache=True, nogil=True, error_model="numpy")
def _make_room(rows, spot, track, bodies, others, length, closed, gap, cars):  # type: ignore[no-untyped-def]
    """Move starts forward to the first place with `gap` around it, or to the freest one."""
    for k in range(len(rows)):
        world = rows[k] // cars
        which = track[world]
        total = length[which]
        tries = np.int64(total / _STEP)
        best, room = spot[k], np.float32(-1)
        for attempt in range(tries):
            at = spot[k] + np.float32(attempt * _STEP)
            if at >= total:
                if closed[which] == 0:
                    break
                at -= total
            free = total
            for b in range(bodies.shape[1]):
                free = min(free, _apart(at, bodies[world, b, 0], total, closed[which]))
            for other in range(world * cars, world * cars + cars):
                if other != rows[k] and not math.isnan(others[other]):
                    free = min(free, _apart(at, others[other], total, closed[which]))
            if free > room:
                best, room = at, free
            if free >= gap:
                break
        spot[k] = best
        others[rows[k]] = best


@_inline
def _apart(a, b, total, closed):  # type: ignore[no-untyped-def]
    far = abs(a - b)
    return min(far, total - far) if closed == 1 else far


@_inline
def _pose(s, lane, share, origin, count, gap, stations):  # type: ignore[no-untyped-def]
    """Position, direction of the road, offset and curvature at arc length s on a lane."""
    at = s / gap
    k = min(max(np.int64(at), np.int64(0)), np.int64(count - 1))
    t = np.float32(at - k)
    a, b = origin + k, origin + k + 1
    x = stations[a, 0] + t * (stations[b, 0] - stations[a, 0])
    y = stations[a, 1] + t * (stations[b, 1] - stations[a, 1])
    tx = stations[a, 2] + t * (stations[b, 2] - stations[a, 2])
    ty = stations[a, 3] + t * (stations[b, 3] - stations[a, 3])
    bend = stations[a, 4] + t * (stations[b, 4] - stations[a, 4])
    left = stations[a, 5] + t * (stations[b, 5] - stations[a, 5])
    right = stations[a, 6] + t * (stations[b, 6] - stations[a, 6])
    size = math.sqrt(tx * tx + ty * ty)
    tx, ty = tx / size, ty / size
    n = lane * share * (left if lane > _F0 else right)
    return x - n * ty, y + n * tx, tx, ty, n, bend


@njit(cache=True, nogil=True, error_model="numpy")
def _meet(  # type: ignore[no-untyped-def]
    start, stop, worlds, cars, obstacles, dt, bodies, track, state, size, sizes,
    stations, first, segments, spacing, closed, boxes, place, offset, pace, contact, push,
):  # fmt: skip
    """Move bots, fill in the boxes around cars, find contacts, in worlds[start:stop]."""
    count = bodies.shape[1]
    share, change = sizes[6], sizes[7]
    bounce, rub = sizes[8], sizes[9]
    for index in range(start, stop):
        world = worlds[index]
        which = track[world]
        origin, stretch, gap = first[which], segments[which], spacing[which]
        total = stretch * gap
        base = world * cars
        for b in range(count):
            body = bodies[world, b]
            speed = body[3]
            if b >= obstacles and dt > _F0:
                body[5] += dt
                if body[4] > _F0 and body[5] >= body[4]:
                    body[5] -= body[4]
                    body[2] = -body[2]
                _, _, _, _, n, bend = _pose(body[0], body[1], share, origin, stretch, gap, stations)
                at = body[0] + speed * dt / max(_F1 - n * bend, np.float32(0.2))
                if at >= total:
                    at = at - total if closed[which] == 1 else total - gap * np.float32(0.01)
                most = 2 * speed * dt / change
                moved = min(max(body[2] - body[1], -most), most)
                body[0], body[1] = at, body[1] + moved
                k = origin + min(np.int64(at / gap), np.int64(stretch - 1))
                half = _HALF * (stations[k, 5] + stations[k, 6])
                body[6] = moved * share * half / max(speed * dt, np.float32(1e-6))
            sway = body[6]
            x, y, tx, ty, n, bend = _pose(body[0], body[1], share, origin, stretch, gap, stations)
            turn = _F1 / math.sqrt(_F1 + sway * sway)
            c, s = (tx - sway * ty) * turn, (ty + sway * tx) * turn
            kind = 3 if b >= obstacles else 0
            for car in range(base, base + cars):
                box = boxes[car, b]
                box[0], box[1], box[2], box[3] = x, y, c, s
                box[4], box[5], box[6] = sizes[kind], sizes[kind + 1], sizes[kind + 2]
                box[7] = _F1 if kind == 3 else _F0
                place[car, b], offset[car, b], pace[car, b] = body[0], n, speed
        for car in range(base, base + cars):
            k = count
            for other in range(base, base + cars):
                if other == car:
                    continue
                box = boxes[car, k]
                box[0], box[1] = state[0, other], state[1, other]
                box[2], box[3] = math.cos(state[2, other]), math.sin(state[2, other])
                box[4], box[5], box[6], box[7] = size[other, 0], size[other, 1], size[other, 2], _F1
                place[car, k], offset[car, k] = state[6, other], state[7, other]
                pace[car, k] = math.sqrt(state[3, other] ** 2 + state[4, other] ** 2)
                k += 1
        for car in range(base, base + cars):
            deepest = _F0
            contact[car] = -1
            if size[car, 4] > _F0:
                continue
            c, s = math.cos(state[2, car]), math.sin(state[2, car])
            for k in range(boxes.shape[1]):
                other = base + (k - count)
                other = other + 1 if other >= car else other
                if k >= count and size[other, 4] > _F0:
                    continue
                box = boxes[car, k]
                dx, dy = box[0] - state[0, car], box[1] - state[1, car]
                reach = size[car, 0] + size[car, 1] + box[4] + box[5]
                if dx * dx + dy * dy > reach * reach:
                    continue
                depth, nx, ny = _overlap(dx, dy, c, s, size[car, 0], size[car, 1], box)
                if depth <= _F0:
                    continue
                if depth > deepest:
                    deepest = depth
                    contact[car] = k
                px, py = _touching(dx, dy, c, s, size[car, 0], size[car, 1], box)
                # velocity of the other body at the point of contact, and its mobility
                rx, ry = px - dx, py - dy
                if k >= count:
                    ovx = box[2] * state[3, other] - box[3] * state[4, other]
                    ovy = box[3] * state[3, other] + box[2] * state[4, other]
                    spin, mobile, turns = state[5, other], _F1, _F1 / size[other, 3]
                else:
                    ovx, ovy = pace[car, k] * box[2], pace[car, k] * box[3]
                    spin, mobile, turns = _F0, _F0, _F0
                vx = c * state[3, car] - s * state[4, car] - state[5, car] * py
                vy = s * state[3, car] + c * state[4, car] + state[5, car] * px
                rvx, rvy = ovx - spin * ry - vx, ovy + spin * rx - vy
                inverse = _F1 / size[car, 3]
                share_of = _HALF if mobile > _F0 else _F1
                push[car, 0] -= nx * depth * share_of
                push[car, 1] -= ny * depth * share_of
                approach = rvx * nx + rvy * ny
                if approach >= _F0:
                    continue
                arm, other_arm = px * ny - py * nx, rx * ny - ry * nx
                hard = -(_F1 + bounce) * approach
                hard /= _F1 + mobile + arm * arm * inverse + other_arm * other_arm * turns
                # along the border of the two bodies: at most Coulomb's share of it
                qx, qy = -ny, nx
                arm_q, other_q = px * qy - py * qx, rx * qy - ry * qx
                along = -(rvx * qx + rvy * qy)
                along /= _F1 + mobile + arm_q * arm_q * inverse + other_q * other_q * turns
                along = min(max(along, -rub * hard), rub * hard)
                jx, jy = hard * nx + along * qx, hard * ny + along * qy
                push[car, 2] -= jx
                push[car, 3] -= jy
                push[car, 4] -= (px * jy - py * jx) * inverse


@_inline
def _overlap(dx, dy, c, s, half_length, half_width, box):  # type: ignore[no-untyped-def]
    """How deep a box is in a car, and the direction from car to box in which that is least."""
    deep, nx, ny = np.float32(1e30), _F0, _F0
    for axis in range(4):
        if axis == 0:
            ux, uy = c, s
        elif axis == 1:
            ux, uy = -s, c
        elif axis == 2:
            ux, uy = box[2], box[3]
        else:
            ux, uy = -box[3], box[2]
        between = dx * ux + dy * uy
        mine = half_length * abs(ux * c + uy * s) + half_width * abs(uy * c - ux * s)
        its = box[4] * abs(ux * box[2] + uy * box[3]) + box[5] * abs(uy * box[2] - ux * box[3])
        depth = mine + its - abs(between)
        if depth < deep:
            deep = depth
            sign = _F1 if between >= _F0 else -_F1
            nx, ny = ux * sign, uy * sign
    return deep, nx, ny


@_inline
def _touching(dx, dy, c, s, half_length, half_width, box):  # type: ignore[no-untyped-def]
    """Where they touch, from the car's centre: the mean of the corners inside the other one."""
    sx, sy, inside = _F0, _F0, 0
    for corner in range(4):
        a = _F1 if corner & 1 else -_F1
        b = _F1 if corner & 2 else -_F1
        # a corner of the box, in the car
        px = dx + a * box[4] * box[2] - b * box[5] * box[3]
        py = dy + a * box[4] * box[3] + b * box[5] * box[2]
        if abs(px * c + py * s) <= half_length and abs(py * c - px * s) <= half_width:
            sx, sy, inside = sx + px, sy + py, inside + 1
        # a corner of the car, in the box
        px = a * half_length * c - b * half_width * s
        py = a * half_length * s + b * half_width * c
        qx, qy = px - dx, py - dy
        if abs(qx * box[2] + qy * box[3]) <= box[4] and abs(qy * box[2] - qx * box[3]) <= box[5]:
            sx, sy, inside = sx + px, sy + py, inside + 1
    if inside == 0:  # they cross like a plus
        return _HALF * dx, _HALF * dy
    return sx / inside, sy / inside
