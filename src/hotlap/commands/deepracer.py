"""The commands of `hotlap deepracer`: action spaces for a `model_metadata.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hotlap.commands.console import Json, say, show
from hotlap.errors import ConfigError

if TYPE_CHECKING:
    from hotlap.deepracer.actions import Needs
    from hotlap.vehicle import Vehicle

__all__ = ["app"]

app = typer.Typer(
    help="What DeepRacer's racers do by hand: action spaces.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_actions = typer.Typer(
    help="Make the action space of a model_metadata.json.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(_actions, name="actions")

_OUT = Path("model_metadata.json")
Out = Annotated[Path, typer.Option(metavar="FILE", help="File to write.")]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Put the actions into a file that is there; keep its rest."),
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Picture to write, a .png.")]
VehicleOption = Annotated[str, typer.Option(help="Parameter set of the car.")]


@_actions.command("grid")
def actions_grid(
    steering_max: Annotated[float, typer.Option(help="Steering to each side [degrees].")] = 30.0,
    steering_min: Annotated[
        float | None, typer.Option(help="Furthest right, if not as far as left [degrees].")
    ] = None,
    steering_granularity: Annotated[
        int | None, typer.Option(help="How many angles, evenly from right to left.")
    ] = None,
    steering_interval: Annotated[
        float | None, typer.Option(help="Step from angle to angle [degrees], from the right.")
    ] = None,
    speed_max: Annotated[float, typer.Option(help="Fastest speed [m/s].")] = 2.0,
    speed_min: Annotated[
        float | None, typer.Option(help="Slowest speed [m/s], with --speed-interval.")
    ] = None,
    speed_granularity: Annotated[
        int | None, typer.Option(help="How many speeds, evenly up to the fastest.")
    ] = None,
    speed_interval: Annotated[
        float | None, typer.Option(help="Step from speed to speed [m/s], from the slowest.")
    ] = None,
    grip: Annotated[
        float | None,
        typer.Option(
            help="Steer less at speed: as much as this share of the car's friction can follow."
        ),
    ] = None,
    vehicle: VehicleOption = "deepracer",
    out: Out = _OUT,
    replace: Replace = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Combine steering angles with speeds: by number, as DeepRacer's console, or by interval.

    Without any of them it is 5 angles and 2 speeds.
    """
    from hotlap.deepracer.actions import grid, scale, speed_scale, steering_limit, steering_scale
    from hotlap.vehicle import load_vehicle

    _one_of("steering", steering_granularity, steering_interval)
    _one_of("speed", speed_granularity, speed_interval)
    if grip is not None and not 0 < grip <= 2:
        raise ConfigError(f"--grip: must be above 0 and at most 2 (got {grip:g})")
    if steering_interval is not None:
        low = -steering_max if steering_min is None else steering_min
        angles = scale(low, steering_max, steering_interval)
    elif steering_min is not None:
        raise ConfigError("--steering-min: needs --steering-interval; a number of angles is even")
    else:
        angles = steering_scale(
            steering_max, 5 if steering_granularity is None else steering_granularity
        )
    if speed_interval is not None:
        speeds = scale(
            speed_interval if speed_min is None else speed_min, speed_max, speed_interval
        )
    elif speed_min is not None:
        raise ConfigError(
            "--speed-min: needs --speed-interval; a number of speeds begins at one step"
        )
    else:
        speeds = speed_scale(speed_max, 2 if speed_granularity is None else speed_granularity)
    car = load_vehicle(vehicle)
    limit: Callable[[float], float] | None = None
    if grip is not None:
        share = grip

        def limit(speed: float) -> float:
            return float(steering_limit(speed, car, share=share))

    found = grid(angles, speeds, limit)
    _tell(found, None, car, out, replace, plot, as_json, "a grid")


@_actions.command("line")
def actions_line(
    track: Annotated[
        str | None,
        typer.Argument(metavar="[TRACK]", help="Name or file; its fastest line is computed."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many actions.")] = 9,
    line: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take this line: a .npy or .csv of x, y and, if you have them, speeds.",
        ),
    ] = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="As many to the left as to the right.")
    ] = False,
    margin: Annotated[
        float, typer.Option(help="Share by which to steer more than the line itself.")
    ] = 0.1,
    pace: Annotated[float, typer.Option(help="Share of the line's speed to drive.")] = 0.9,
    vehicle: VehicleOption = "deepracer",
    rule: Annotated[
        str, typer.Option(help="What must leave the road: all_wheels, any_wheel or centre.")
    ] = "all_wheels",
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Drive against the order of the file.")
    ] = False,
    out: Out = _OUT,
    replace: Replace = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Choose the actions that a racing line needs: its steering and speed, in clusters.

    Of a track the line of the fastest lap that physics allows is taken, which needs hotlap[limit].
    """
    from hotlap.deepracer.actions import line_actions, line_needs, read_line, speed_profile
    from hotlap.vehicle import load_vehicle

    if (track is None) == (line is None):
        raise ConfigError("name a track, or a racing line with --line FILE: one of them")
    car = load_vehicle(vehicle)
    if line is not None:
        points, speed, closed = read_line(line)
        if reverse:
            points, speed = points[::-1], None if speed is None else speed[::-1]
        if speed is None:
            speed = speed_profile(points, car, closed=closed)
        title = line.name
    else:
        from hotlap.limit import Rule, fastest_lap
        from hotlap.track import load_track

        course = load_track(track or "")
        course = course.reversed() if reverse else course
        lap = fastest_lap(course, car, rule=cast(Rule, rule))
        import numpy as np

        points, speed, closed = np.stack([lap.x, lap.y], axis=1), lap.speed, lap.closed
        if closed:  # its last row is its first one again
            points, speed = points[:-1], speed[:-1]
        title = f"{course.name}, {lap.lap_s:.2f} s"
    needs = line_needs(points, speed, car, closed=closed, margin=margin, pace=pace)
    found = line_actions(needs, count, mirrored=mirrored)
    _tell(found, needs, car, out, replace, plot, as_json, title)


def _one_of(what: str, granularity: int | None, interval: float | None) -> None:
    if granularity is not None and interval is not None:
        raise ConfigError(f"--{what}-granularity or --{what}-interval: one of them")


def _tell(
    found: Sequence[tuple[float, float]],
    needs: Needs | None,
    car: Vehicle,
    out: Path,
    replace: bool,
    plot: Path | None,
    as_json: bool,
    title: str,
) -> None:
    """Write the file and the picture, and print the table or the document."""
    from hotlap.deepracer.actions import coverage, steering_limit, write_metadata

    if plot is not None and plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot: end its name in .png (got {plot})")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: {out.parent} is no folder; make it first")
    covered = None if needs is None else coverage(needs, found)
    file = write_metadata(out, found, again=replace)
    facts: dict[str, Any] = {
        "file": str(file),
        "vehicle": car.name,
        "actions": [{"steering_angle": angle, "speed": speed} for angle, speed in found],
    }
    if covered is not None:
        facts["coverage"] = {
            "worst": round(covered.worst, 4),
            "mean": round(covered.mean, 4),
            "worst_steering_deg": round(covered.steering, 2),
            "worst_speed": round(covered.speed, 3),
            "shares": [round(share, 4) for share in covered.shares],
        }
    if plot is not None:
        from hotlap import plot as pictures

        figure = pictures.actions_picture(
            found,
            lambda speed: steering_limit(speed, car),
            None if needs is None else (needs.steering, needs.speed),
            f"{len(found)} actions · {title} · {car.name}",
        )
        facts["picture"] = str(pictures.save(figure, plot))
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    share_head = "" if covered is None else "  of the lap"
    show(f"{'':>3}  {'steering deg':>12}  {'speed m/s':>9}{share_head}")
    for i, (angle, speed) in enumerate(found):
        share = "" if covered is None else f"  {covered.shares[i]:>10.0%}"
        show(f"{i:>3}  {angle:>12.1f}  {speed:>9.2f}{share}")
    if covered is not None:
        show(f"furthest from an action: {covered.steering:.1f} degrees and {covered.speed:.2f} m/s")
    sliding = [speed for angle, speed in found if abs(angle) > steering_limit(speed, car) + 0.05]
    if sliding and needs is None:
        say(
            f"{len(sliding)} of them steer more than the car's tyres can follow at their speed; "
            "--grip 1 draws them in"
        )
    show(f"actions: {facts['file']}")
    if "picture" in facts:
        show(f"plot: {facts['picture']}")
