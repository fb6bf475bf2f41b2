"""Films of races: the track from above, every car in its colour, and the order beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hotlap import film
from hotlap.racing.race import Standings
from hotlap.track import Track
from hotlap.types import Array

__all__ = ["COLOURS", "film_race", "write_race_film"]

COLOURS: tuple[film.Colour, ...] = (
    (230, 92, 30), (86, 180, 233), (0, 178, 125), (240, 228, 66),
    (204, 121, 167), (150, 110, 240), (200, 200, 200), (160, 120, 70),
)  # fmt: skip
"""Of the racers in their order, again from the first after the last; told apart by any eye."""
_ROW = 44
"""Height of a racer's line in the panel."""
_BLINK = 1.0
"""Seconds from one blink to the next of a car that waits on the road."""
_SHOWN = 10
"""Racers that have room in the panel."""


def film_race(path: Path | str, standings: Standings, *, trial: int = 0) -> Path:
    """Film one of the races of a Standings; see `write_race_film`."""
    assert standings.course is not None
    trace = standings.traces[trial]
    names = [racer.name for racer in standings.racers]
    fps = round(1 / float(trace["t"][1] - trace["t"][0]))
    return write_race_film(path, standings.course, trace, names, laps=standings.laps, fps=fps)


def write_race_film(
    path: Path | str,
    track: Track,
    trace: Mapping[str, Array],
    names: Sequence[str],
    *,
    laps: int,
    fps: int = 15,
    caption: str = "",
) -> Path:
    """Film a race in real time, 960 by 540, as `film.write_film` films a lap.

    Args:
        path: where to; its parents must exist. MP4, or where that cannot be written a GIF.
        track: the course that was driven.
        trace: of one race, as `Standings.traces` holds them.
        names: of the racers, in the order of the trace.
        laps: of the race.
        fps: frames a second.
        caption: one line in the top left corner; the track's name if empty.

    Returns:
        The path really written, which ends in .mp4 or .gif.

    Raises:
        RunError: the film cannot be written.
    """

    def frames(rate: int) -> Iterator[Array]:
        return _frames(track, trace, names, laps, rate, caption)

    return film.encode(Path(path), frames, fps)


def _frames(
    track: Track,
    trace: Mapping[str, Array],
    names: Sequence[str],
    laps: int,
    fps: int,
    caption: str,
) -> Iterator[Array]:
    """Draw the film's frames, each into the same array."""
    width, height = film.SIZE
    screen = np.empty((height, width, 3), np.uint8)
    view = film.View(track, caption or track.name, screen[:, : film.VIEW[0]])
    panel = _Panel(trace, names, laps)
    t = trace["t"].astype(np.float64)
    rows = film.rows_of(t, fps)
    xy = np.stack([trace["x"], trace["y"]], axis=2)
    pixels = view.pixels(xy.reshape(-1, 2)).reshape(xy.shape)
    present = trace["present"].astype(bool)
    blinking = trace.get("waiting", np.zeros_like(present)) & (t[:, None] % _BLINK < _BLINK / 2)
    leader_lap = trace["lap"].max(axis=1)
    drawn = 0
    for row in rows:
        for k in range(drawn + 1, row + 1):
            if leader_lap[k] > leader_lap[k - 1]:
                view.fade()
            for car in np.flatnonzero(present[k] & present[k - 1]).tolist():
                view.trail(pixels[k - 1, car], pixels[k, car], _colour(car))
        drawn = row
        view.clear()
        order = panel.order(row)
        for car in reversed(order):  # the leader on top
            if present[row, car] or blinking[row, car]:
                view.add_car(pixels[row, car], float(trace["yaw"][row, car]), _colour(car))
        screen[:, film.VIEW[0] :] = np.asarray(panel.draw(row, order))
        yield screen


def _colour(car: int) -> film.Colour:
    return COLOURS[car % len(COLOURS)]


class _Panel:
    """The column on the right: clock, lap, and the racers in the order of the race."""

    def __init__(self, trace: Mapping[str, Array], names: Sequence[str], laps: int) -> None:
        self._trace, self._names, self._laps = trace, names, laps
        self._large, self._medium, self._little = map(ImageFont.load_default, (40, 18, 14))
        self._image = Image.new("RGB", (film.SIZE[0] - film.VIEW[0], film.SIZE[1]))
        self._pen = ImageDraw.Draw(self._image)
        lap = trace["lap"]
        done = lap >= laps
        self._finish = np.where(done.any(axis=0), done.argmax(axis=0), len(lap) + 1)

    def order(self, row: int) -> list[int]:
        """Return the racers, the leader first."""
        ahead = self._trace["distance"][row]
        over = self._finish <= row
        return sorted(
            range(len(ahead)),
            key=lambda car: (not over[car], self._finish[car] if over[car] else -ahead[car], car),
        )

    def draw(self, row: int, order: Sequence[int]) -> Image.Image:
        """Draw the panel of one row; the same image each time."""
        trace, pen = self._trace, self._pen
        pen.rectangle((0, 0, *self._image.size), film.PANEL)
        lap = min(int(trace["lap"][row].max()) + 1, self._laps)
        pen.text((16, 22), f"lap {lap} of {self._laps}", film.FAINT, self._medium)
        pen.text((16, 44), f"{float(trace['t'][row]):.1f} s", film.TEXT, self._large)
        for place, car in enumerate(order[:_SHOWN]):
            y = 112 + place * _ROW
            pen.rectangle((16, y + 2, 28, y + 34), _colour(car))
            pen.text((38, y), f"{place + 1}  {_short(self._names[car])}", film.TEXT, self._medium)
            pen.text((38, y + 20), self._says(row, car, order[0]), film.FAINT, self._little)
        return self._image

    def _says(self, row: int, car: int, leader: int) -> str:
        trace = self._trace
        if self._finish[car] <= row:
            return f"finished {float(trace['t'][self._finish[car]]):.1f} s"
        if not trace["present"][row, car]:
            return "penalty"
        if car == leader:
            return f"leads, {float(trace['speed'][row, car]):.1f} m/s"
        # when the leader was where this one is now
        there = trace["distance"][: row + 1, leader] >= trace["distance"][row, car]
        since = float(trace["t"][row] - trace["t"][there.argmax()])
        return f"+{since:.1f} s, {float(trace['speed'][row, car]):.1f} m/s"


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
