"""Pictures of a Run: how it learned, and the line it drives. By matplotlib, without a display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hotlap.errors import RunError
from hotlap.files import explained, whole
from hotlap.gaze import HEAT, Gaze, sided
from hotlap.runs.traces import lap_times
from hotlap.track import Track
from hotlap.types import Array, Float64

if TYPE_CHECKING:  # loaded when the first figure is made: half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hotlap.proving import Limits

__all__ = [
    "actions_picture",
    "attention_picture",
    "axes_picture",
    "episodes_picture",
    "learning_curves",
    "line_and_speed",
    "reward_and_completion",
    "save",
    "track_picture",
    "vehicle_picture",
]

_SIZE, _DPI = (12.0, 7.0), 100
# Okabe and Ito's colours, which colour-blind readers tell apart.
_BLUE, _VERMILION, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#6B7280"
_CYCLE = (_BLUE, _VERMILION, _GREEN, "#CC79A7", "#E69F00", "#56B4E9")
_INK, _PAPER, _ROAD, _GRID = "#1F2430", "#FFFFFF", "#E4E6EA", "#E5E7EB"
_OBSTACLE = "#C49A62"
_ACROSS = 5
"""Moments beside each other in a picture of attention."""


def reward_and_completion(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw how a training went: reward, completed laps and lap times over environment steps.

    Args:
        rows: metrics of the iterations, as `Run.metrics_rows` gives them; reads steps, seconds,
            reward, completion, lap_time, best_lap, evaluation/completion and
            evaluation/lap_time, any of which may be missing or None.
        title: what stands above; usually the Run's name.

    Raises:
        RunError: no row has steps.
    """
    x, table = _table(rows)
    figure = _figure(title)
    unit, name = _unit(float(x.max()))
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(5, 4, 4))
    _line(top, x / unit, table["reward"], _BLUE, "episode reward")
    top.set_ylabel("episode reward")
    completion = 100.0 * table["completion"]
    _line(middle, x / unit, completion, _GREEN, "training")
    _dots(middle, x / unit, 100.0 * table["evaluation/completion"], "evaluation")
    middle.set_ylabel("completion [%]")
    middle.set_ylim(-4, 104)
    _line(bottom, x / unit, table["lap_time"], _BLUE, "mean lap")
    best = table["best_lap"]
    bottom.step(x / unit, best, where="post", color=_VERMILION, label="best lap so far", lw=2)
    _dots(bottom, x / unit, table["evaluation/lap_time"], "evaluation")
    bottom.set_ylabel("lap time [s]")
    shown = np.concatenate([table["lap_time"], best, table["evaluation/lap_time"]])
    if np.isfinite(best).any():
        last = float(best[np.isfinite(best)][-1])
        bottom.annotate(
            f"{last:.2f} s",
            (float(x[-1]) / unit, last),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=_VERMILION,
            weight="bold",
            annotation_clip=False,
        )
    if np.isfinite(shown).any():
        # The first laps are slow; without a limit they would flatten all that follows.
        low, high = np.nanmin(shown), np.nanquantile(shown, 0.97)
        bottom.set_ylim(low - 0.08 * (high - low) - 0.05, high + 0.08 * (high - low) + 0.05)
    bottom.set_xlabel(f"environment steps [{name}]")
    bottom.set_xlim(0, max(float(x.max()), 1.0) / unit)
    for axes in (top, middle, bottom):
        handles, _ = axes.get_legend_handles_labels()
        if len(handles) > 1:
            axes.legend(loc="best", frameon=False, ncols=3, fontsize=10)
    _seconds_above(top, x / unit, table["seconds"])
    return figure


def learning_curves(
    groups: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], title: str = ""
) -> Figure:
    """Draw how groups of trainings learned: reward, completed laps and lap times over steps.

    A group is one line, the median of its trainings, in a band from the lowest to the highest; from
    four on the middle half is darker. It goes as far as the shortest of them, and beyond that
    each training has its faint line. A lap time is drawn once half of them have lapped.

    Args:
        groups: by the name that the legend shows, the rows of metrics of each training.
        title: what stands above.

    Raises:
        RunError: a training has no rows.
    """
    tables = {name: [_table(rows) for rows in runs] for name, runs in groups.items()}
    highest = max(float(x.max()) for runs in tables.values() for x, _ in runs)
    unit, word = _unit(highest)
    figure = _figure(title)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(5, 4, 4))
    drawn = (
        ("reward", "episode reward", 1.0),
        ("completion", "completion [%]", 100.0),
        ("lap_time", "lap time [s]", 1.0),
    )
    for axes, (metric, label, scale) in zip(panels, drawn, strict=True):
        for i, (name, runs) in enumerate(tables.items()):
            # More groups than colours: the dashes tell them apart.
            colour, style = _CYCLE[i % len(_CYCLE)], ("-", "--", ":", "-.")[i // len(_CYCLE) % 4]
            curves = [(x / unit, scale * table[metric]) for x, table in runs]
            _band(axes, curves, colour, style, name)
        axes.set_ylabel(label)
        _tidy(axes)
    panels[1].set_ylim(-4, 104)
    many: dict[str, Any] = {"fontsize": 8.5, "ncols": 3} if len(tables) > 6 else {}
    panels[0].legend(loc="best", frameon=False, **many)
    panels[2].set_xlabel(f"environment steps [{word}]")
    panels[2].set_xlim(0, max(highest, 1.0) / unit)
    return figure


def episodes_picture(groups: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> Figure:
    """Draw reward and completion over episodes side by side, a line for each training.

    Args:
        groups: by the name that the legend shows, the rows of metrics of each training; one that
            has none yet is in the legend alone.
        title: what stands above.
    """
    figure = _figure(title)
    figure.set_size_inches(_SIZE[0], 4.8)
    panels = figure.subplots(1, 2)
    for axes, metric, label, scale in (
        (panels[0], "reward", "reward of an episode", 1.0),
        (panels[1], "completion", "completion of the track [%]", 100.0),
    ):
        for i, (name, rows) in enumerate(groups.items()):
            colour, style = _CYCLE[i % len(_CYCLE)], ("-", "--", ":", "-.")[i // len(_CYCLE) % 4]
            table = _Columns(rows)
            x, y = table["episodes"], scale * table[metric]
            there = np.isfinite(x) & np.isfinite(y)
            x, y = x[there], y[there]
            smooth = _smooth(y) if len(y) else y
            if smooth is not y:
                axes.plot(x, y, color=colour, lw=0.8, alpha=0.28)
            axes.plot(x, smooth, color=colour, lw=2.2, linestyle=style, label=name)
        axes.set_xlabel("episodes")
        axes.set_ylabel(label)
        axes.set_xlim(left=0)
        _tidy(axes)
    panels[1].set_ylim(-4, 104)
    panels[0].legend(loc="best", frameon=False, fontsize=10)
    return figure


def axes_picture(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str, title: str = ""
) -> Figure:
    """Draw what trainings came to over each setting in which they differ, a dot for each.

    Args:
        rows: a training each, the best one first, with its `values` by name and its `value`.
        names: of the settings.
        metric: what `value` is.
        title: what stands above.
    """
    figure = _figure(title)
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure.set_size_inches(_SIZE[0], max(4.8, 3.6 * lines))
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    heights = np.array([row["value"] for row in rows], np.float64)
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.set_visible(False)
            continue
        _draw_axis(axes, [row["values"].get(names[i]) for row in rows], heights)
        axes.set_xlabel(names[i])
        _tidy(axes)
        if i % columns == 0:
            axes.set_ylabel(metric)
    return figure


def _draw_axis(axes: Axes, values: Sequence[Any], heights: Float64) -> None:
    """Draw dots over the values of one setting: along its scale, or side by side."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers:
        x = np.array(values, np.float64)
        if x.min() > 0 and x.max() / x.min() >= 10:
            axes.set_xscale("log")
    else:
        labels = [str(v).replace(",", ",\n") for v in values]
        order = sorted(set(labels))
        x = np.array([order.index(v) for v in labels], np.float64)
        axes.set_xticks(range(len(order)), order)
        axes.set_xlim(-0.5, len(order) - 0.5)
    places = np.unique(x)
    if 1 < len(places) < len(x):
        middle = [float(np.median(heights[x == place])) for place in places]
        axes.plot(places, middle, color=_BLUE, lw=1.5, alpha=0.5, label="median")
    axes.plot(x[1:], heights[1:], "o", ms=8, mfc=_BLUE, mec=_PAPER, alpha=0.75, zorder=3)
    axes.plot(x[:1], heights[:1], "o", ms=11, mfc=_VERMILION, mec=_PAPER, zorder=4, label="best")
    axes.legend(loc="best", frameon=False, fontsize=10)


def _band(
    axes: Axes, curves: Sequence[tuple[Float64, Float64]], colour: str, style: str, label: str
) -> None:
    """Draw the median of noisy curves, the band that they fill, and each of them faintly."""
    grid = np.linspace(0, min(float(x.max()) for x, _ in curves), 300)
    rows = np.full((len(curves), len(grid)), np.inf)
    for row, (x, y) in zip(rows, curves, strict=True):
        there = np.isfinite(y)
        if not there.any():
            continue
        x, y = x[there], _smooth(y[there])
        if len(curves) > 1:
            axes.plot(x, y, color=colour, lw=0.8, alpha=0.35)
        # Before the first value there is none: that of a lap time is later than all others.
        row[grid >= x[0]] = np.interp(grid[grid >= x[0]], x, y)
    rows.sort(axis=0)
    bands = [(0.0, 1.0, 0.12), (0.25, 0.75, 0.22)] if len(curves) > 3 else [(0.0, 1.0, 0.15)]
    for low, high, opacity in bands if len(curves) > 1 else ():
        below, above = (_between(rows, q) for q in (low, high))
        there = np.isfinite(above)
        axes.fill_between(
            grid[there], below[there], above[there], color=colour, alpha=opacity, lw=0
        )
    middle = _between(rows, 0.5)
    there = np.isfinite(middle)
    axes.plot(grid[there], middle[there], color=colour, lw=2.4, linestyle=style, label=label)


def _between(rows: Float64, share: float) -> Float64:
    """Return a quantile of each sorted column; infinite where one that it needs is."""
    at = share * (len(rows) - 1)
    low, part = int(at), at - int(at)
    if not part:
        return np.asarray(rows[low], np.float64)
    above = rows[low + 1]
    there = np.isfinite(above)
    mixed = np.full(len(above), np.inf)
    mixed[there] = (1 - part) * rows[low][there] + part * above[there]
    return mixed


def track_picture(
    track: Track, trace: Mapping[str, Array] | None = None, title: str = ""
) -> Figure:
    """Draw a track from above and, with a trace, the driven line coloured by speed.

    The best lap is in front; the others stay faint behind it.

    Args:
        track: the course.
        trace: (T,) arrays t, x, y, speed, s and lap, as traces/<name>.npz holds them.
        title: what stands above; the track's name, and its length or the best lap, if empty.
    """
    figure = _figure("")
    _draw_course(figure, figure.subplots(), track, trace, title)
    return figure


def line_and_speed(track: Track, trace: Mapping[str, Array], title: str = "") -> Figure:
    """Draw a driven line from above and, below it, its speed over the way along the centre line.

    Args:
        track: the course.
        trace: (T,) arrays t, x, y, speed, s, travelled and lap of one lap.
        title: what stands above.
    """
    figure = _figure("")
    figure.set_size_inches(_SIZE[0], 9.5)
    above, below = figure.subplots(2, 1, height_ratios=(5, 2))
    _draw_course(figure, above, track, trace, title)
    figure.set_size_inches(_SIZE[0], 9.5 if figure.get_figheight() > 5 else 6.5)
    start = float(trace["s"][0])
    start -= track.length if start > track.length / 2 else 0.0  # just before the start line
    far = start + trace["travelled"]
    below.plot(far, trace["speed"], color=_BLUE, lw=2.2)
    below.set_xlabel("way along the centre line [m]")
    below.set_ylabel("speed [m/s]")
    below.set_xlim(start, start + track.length)
    below.set_ylim(0, 1.08 * float(trace["speed"].max()))
    _tidy(below)
    return figure


def _draw_course(
    figure: Figure, axes: Axes, track: Track, trace: Mapping[str, Array] | None, title: str
) -> None:
    """Draw a track and a line on it; a nearly straight one makes the figure flat."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import Normalize

    inner, outer = track.inner, track.outer
    if track.closed:
        inner, outer = (np.concatenate([border, border[:1]]) for border in (inner, outer))
    pieces = np.stack([inner[:-1], inner[1:], outer[1:], outer[:-1]], axis=1)
    axes.add_collection(
        PolyCollection(list(pieces), facecolor=_ROAD, edgecolor=_ROAD, lw=0.5, zorder=1)
    )
    for border in (inner, outer):
        axes.plot(border[:, 0], border[:, 1], color=_INK, lw=1.6, zorder=3)
    stations = track.stations
    axes.plot(stations.x, stations.y, color=_GREY, lw=1.0, dashes=(7, 7), zorder=2)
    _draw_start(axes, track)
    low, high = (f(np.concatenate([inner, outer]), axis=0) for f in (np.min, np.max))
    low, high = low - 0.7 * track.width, high + 0.7 * track.width  # room for the arrow
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    flat = (high[1] - low[1]) / (high[0] - low[0]) < 1 / 3
    if flat:  # nearly straight: no paper for empty sky
        figure.set_size_inches(_SIZE[0], 4.2)
    if trace is not None and "boxes" in trace:
        still = [b for b in trace["boxes"][0] if b[6] > 0 and b[7] == 0]
        half = [b[[2, 3]] * b[4] for b in still], [b[[3, 2]] * [-b[5], b[5]] for b in still]
        corners = [
            [b[:2] + i * a + j * c for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
            for b, a, c in zip(still, *half, strict=True)
        ]
        axes.add_collection(PolyCollection(corners, facecolor=_OBSTACLE, edgecolor=_INK, zorder=5))
    laps = np.empty(0)
    if trace is not None and len(trace["x"]) > 1:
        laps = lap_times(trace, track.length if track.closed else None)
        points = np.stack([trace["x"], trace["y"]], axis=1).astype(np.float64)
        parts = np.stack([points[:-1], points[1:]], axis=1)
        stretch = np.hypot(*(points[1:] - points[:-1]).T)
        # A car that was put back somewhere else drove no line on the way there.
        there = stretch < 2.0 * trace["speed"][1:] * np.diff(trace["t"]) + 0.25 * track.width
        done = trace["lap"][1:] - trace["lap"][0]
        front = done == np.argmin(laps) if len(laps) else np.ones(len(there), bool)
        speed = trace["speed"][1:]
        for chosen, width, opacity in ((~front, 1.2, 0.35), (front, 3.4, 1.0)):
            line = LineCollection(
                parts[there & chosen],
                cmap="plasma",
                norm=Normalize(float(speed.min()), float(speed.max())),
                linewidths=width,
                alpha=opacity,
                zorder=4,
                capstyle="round",
            )
            line.set_array(speed[there & chosen])
            axes.add_collection(line)
        where, aspect = ("bottom", 50) if flat else ("right", 20)
        bar = figure.colorbar(line, ax=axes, shrink=0.75, pad=0.02, aspect=aspect, location=where)
        bar.set_label("speed [m/s]", fontsize=12)
        bar.outline.set_visible(False)
    if not title:
        title = f"{track.name} · {track.length:.1f} m"
        if len(laps):
            title += f" · best of {len(laps)} laps" if len(laps) > 1 else " · lap"
            title += f" {laps.min():.2f} s"
    axes.set_title(title, loc="left", fontsize=15, weight="bold", color=_INK, pad=12)
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    _tidy(axes)
    axes.grid(visible=False)


def vehicle_picture(name: str, limits: Limits) -> Figure:
    """Draw what a car can do over its speed: circle, lateral acceleration, braking, starting."""
    figure = _figure(f"{name} · {limits.speed_top:.1f} m/s · {limits.lateral:.1f} m/s² in turns")
    (left, right), (below, beside) = figure.subplots(2, 2, sharex=True)
    for axes, y, colour, label in (
        (left, limits.radius, _BLUE, "tightest radius [m]"),
        (right, limits.speed**2 / limits.radius, _VERMILION, "lateral acceleration [m/s²]"),
        (below, limits.stopping, _GREEN, f"way to brake to {limits.slow:.1f} m/s [m]"),
        (beside, limits.reached, _GREY, "time from rest [s]"),
    ):
        axes.plot(limits.speed, y, color=colour, lw=2.2, marker="o", ms=4)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        _tidy(axes)
    for axes in (below, beside):
        axes.set_xlabel("speed [m/s]")
        axes.set_xlim(left=0)
    return figure


def actions_picture(
    actions: Sequence[tuple[float, float]],
    limit: Callable[[Float64], Float64],
    needs: tuple[Float64, Float64] | None = None,
    title: str = "",
) -> Figure:
    """Draw actions over steering and speed, and what a racing line asks for.

    Args:
        actions: (steering [degrees], speed [m/s])
        limit: greatest steering [degrees] that the tyres can follow at some speeds [m/s].
        needs: steering [degrees] and speed [m/s] along a line, in order.
        title: what stands above.
    """
    figure = _figure(title)
    axes = figure.subplots()
    angles, speeds = np.array(actions, np.float64).T
    top = max(float(speeds.max()), 0.0 if needs is None else float(needs[1].max()))
    speed = np.linspace(0.0, 1.15 * top, 200)
    most = limit(speed)
    end = 1.12 * max(30.0, float(np.abs(angles).max()))
    for side in (-1.0, 1.0):
        axes.fill_betweenx(speed, side * most, side * end, color=_ROAD, lw=0, zorder=1)
    axes.plot([], [], color=_ROAD, lw=8, label="more than the tyres can follow")
    if needs is not None:
        axes.plot(*needs, color=_BLUE, lw=1.2, alpha=0.45, zorder=2)
        axes.plot(*needs, "o", ms=3.5, color=_BLUE, alpha=0.6, zorder=3, label="the line")
    axes.plot(angles, speeds, "o", ms=13, mfc=_VERMILION, mec=_PAPER, mew=1.5, zorder=4,
              label="actions")  # fmt: skip
    axes.set_xlabel("steering [degrees]")
    axes.set_ylabel("speed [m/s]")
    axes.set_xlim(end, -end)  # left is left
    axes.set_ylim(0, 1.15 * top)
    _tidy(axes)
    axes.legend(loc="lower center", frameon=False, ncols=3)
    return figure


def attention_picture(
    gazes: Mapping[str, Gaze], trace: Mapping[str, Array], title: str = ""
) -> Figure:
    """Draw what a driver looked at and was minded to do, at five moments of its last whole lap.

    Args:
        gazes: by the name of the heat, one for each row of the trace, as far as they go; each has a
            row of pictures.
        trace: (T,) arrays t, s, steering, speed and lap.
        title: what stands above.

    Raises:
        RunError: nothing was watched.
    """
    gaze = next(iter(gazes.values()), None)
    if gaze is None or not len(gaze):
        raise RunError("nothing was watched, so there is no attention to draw")
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    lap = trace["lap"][: len(gaze)]
    complete = np.flatnonzero(lap < lap[-1])  # the last one may be cut off
    last = lap[complete[-1]] if len(complete) else lap[-1]
    rows = np.flatnonzero(lap == last)
    shown = rows[np.linspace(0, len(rows) - 1, _ACROSS + 1).astype(int)[:-1]]
    figure = _figure(title)
    height, width = gaze.picture(0).shape[:2]
    tall = 2.2 * height / width
    figure.set_size_inches(_SIZE[0], 1.6 + len(gazes) * (tall + 0.15) + 1.0)
    ratios = [tall] * len(gazes) + [0.9]
    grid = figure.subplots(len(ratios), _ACROSS, height_ratios=ratios, squeeze=False)
    for k, step in enumerate(map(int, shown)):
        for axes, one in zip(grid[:, k], gazes.values(), strict=False):
            axes.imshow(one.painted(step), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        side = sided(float(np.degrees(trace["steering"][step])))
        said = f"{trace['s'][step]:.1f} m · {trace['speed'][step]:.1f} m/s · {side}"
        grid[0, k].set_title(said, fontsize=10, color=_INK)
        _draw_mind(grid[-1, k], gaze, step)
    for axes, name in zip(grid[:, 0], gazes, strict=False):
        axes.set_ylabel(name, fontsize=12, color=_INK)
    colours = LinearSegmentedColormap.from_list("heat", HEAT / 255)
    mappable = ScalarMappable(Normalize(0, 1), colours)
    bar = figure.colorbar(mappable, ax=list(grid[:-1].flat), shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("speaks for what is done", fontsize=11)
    bar.set_ticks([0, 1], labels=["not", "most"])
    bar.outline.set_visible(False)
    return figure


def _draw_mind(axes: Axes, gaze: Gaze, step: int) -> None:
    """Draw how likely each choice was, or which steering and speed were."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.set_yticks([])
    if gaze.discrete:
        shares, chosen = gaze.shares(step)
        colours = [_VERMILION if k == chosen else _GREY for k in range(len(shares))]
        axes.bar(range(len(shares)), shares, color=colours, width=0.85)
        axes.set_ylim(0, 1)
        axes.set_xticks([chosen], [gaze.label(gaze.order[chosen])])
        axes.set_xlim(-0.6, len(shares) - 0.4)
        return
    axes.spines["bottom"].set_visible(False)
    for row, (low, middle, high) in enumerate(gaze.spans(step)):
        least, most = gaze.ranges[row]
        ends = (np.array([low, middle, high]) - least) / (most - least)
        ends = 1 - ends if row == 0 else ends  # left is left
        y = 1 - row
        axes.barh(y, 1, 0.42, color=_ROAD)
        axes.barh(y, abs(ends[2] - ends[0]), 0.42, min(ends[0], ends[2]), color=_GREY)
        axes.plot([ends[1]] * 2, [y - 0.32, y + 0.32], color=_VERMILION, lw=4, clip_on=False)
        words = [sided(most), sided(least)] if row == 0 else [f"{x:.3g} m/s" for x in (least, most)]
        for x, word in enumerate(words):
            axes.text(x, y - 0.36, word, ha=("left", "right")[x], va="top", fontsize=8.5,
                      color=_GREY)  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.75, 1.25)
    axes.set_xticks([])


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG, 1200 by 700 pixels; nobody meets half of the file.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path)
    with explained(path, "the picture"), whole(path) as draft:
        figure.savefig(draft, format="png", dpi=_DPI)
    return path


class _Columns(dict[str, Float64]):
    """Columns by name; one that no row has is all NaN."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows

    def __missing__(self, name: str) -> Float64:
        values = [row.get(name) for row in self._rows]
        column = [v if isinstance(v, int | float) else np.nan for v in values]
        self[name] = np.array(column, np.float64)
        return self[name]


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[Float64, _Columns]:
    kept = [row for row in rows if isinstance(row.get("steps"), int | float)]
    if not kept:
        raise RunError("there are no metrics to draw yet: train for an iteration at least")
    table = _Columns(kept)
    return table["steps"], table


def _figure(title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout=layout, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, weight="bold", color=_INK)
    return figure


def _line(axes: Axes, x: Float64, y: Float64, colour: str, label: str) -> None:
    """Draw a noisy curve: the values faint, their running mean in front."""
    there = np.isfinite(y)
    x, y = x[there], y[there]
    smooth = _smooth(y)
    if smooth is not y:
        axes.plot(x, y, color=colour, lw=1.0, alpha=0.28)
    y = smooth
    axes.plot(x, y, color=colour, lw=2.2, label=label)
    _tidy(axes)


def _smooth(y: Float64) -> Float64:
    """Return the running mean over a twelfth of the values; a few values as they are."""
    width = max(1, len(y) // 25)
    if width == 1:
        return y
    weights = np.ones(2 * width + 1)
    # At the ends fewer values are there to be averaged.
    counts = np.convolve(np.ones_like(y), weights)[width:-width]
    return np.asarray(np.convolve(y, weights)[width:-width] / counts, np.float64)


def _dots(axes: Axes, x: Array, y: Array, label: str) -> None:
    there = np.isfinite(y)
    if there.any():
        axes.plot(
            x[there],
            y[there],
            "o",
            ms=6,
            mfc=_PAPER,
            mec=_INK,
            mew=1.5,
            label=label,
            zorder=5,
            clip_on=False,
        )


def _tidy(axes: Axes) -> None:
    axes.grid(color=_GRID, lw=0.9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=10.5)
    axes.xaxis.label.set_fontsize(12)
    axes.yaxis.label.set_fontsize(12)


def _unit(highest: float) -> tuple[float, str]:
    for unit, name in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
        if highest >= unit:
            return unit, name
    return 1.0, "1"


def _seconds_above(axes: Axes, x: Array, seconds: Array) -> None:
    """Say above how long it took to get there."""
    there = np.isfinite(seconds)
    if there.sum() < 2:
        return
    x, seconds = x[there], seconds[there]
    from matplotlib.ticker import MaxNLocator

    wanted = MaxNLocator(8, steps=[1, 2, 3, 5, 6, 10]).tick_values(0.0, float(seconds[-1]))
    wanted = wanted[(wanted >= seconds[0]) & (wanted <= seconds[-1])]
    above = axes.secondary_xaxis("top")
    above.set_in_layout(False)  # the layout engine cannot place it and gives up with a warning
    above.set_xticks(np.interp(wanted, seconds, x), [f"{tick:g}" for tick in wanted])
    above.set_xlabel("seconds", fontsize=11, color=_GREY)
    above.tick_params(colors=_GREY, labelsize=10)
    above.spines["top"].set_visible(False)


def _draw_start(axes: Axes, track: Track) -> None:
    stations = track.stations
    place = np.array([stations.x[0], stations.y[0]], np.float64)
    along = np.array([stations.tx[0], stations.ty[0]], np.float64)
    left = np.array([-along[1], along[0]])
    ends = np.stack([place + left * stations.left[0], place - left * stations.right[0]])
    axes.plot(ends[:, 0], ends[:, 1], color=_VERMILION, lw=3.5, zorder=6, solid_capstyle="butt")
    # Beside the road, so that it hides no line.
    tail = place + left * (stations.left[0] + 0.3 * track.width)
    axes.annotate(
        "",
        tail + along * track.width,
        tail,
        arrowprops={"arrowstyle": "-|>", "color": _VERMILION, "lw": 2, "mutation_scale": 18},
        zorder=6,
    )
    axes.annotate(
        "start ", tail, color=_VERMILION, ha="right", va="center", fontsize=11, weight="bold"
    )
