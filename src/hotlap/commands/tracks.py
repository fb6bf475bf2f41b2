"""The commands `hotlap tracks ...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hotlap.commands.console import Json, say, show
from hotlap.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(help="List, draw, generate, add and measure tracks.", no_args_is_help=True)


@app.command("list")
def tracks_list(as_json: Json = False) -> None:
    """List the tracks that can be named."""
    from hotlap.track import load_track, track_names

    rows = []
    for name in track_names():
        track = load_track(name)
        tight = abs(track.stations.curvature).max()
        rows.append(
            {
                "name": name,
                "length_m": round(track.length, 2),
                "width_m": round(track.width, 3),
                "tightest_radius_m": round(float(1 / tight), 2) if tight > 1e-3 else None,
                "closed": track.closed,
                "attribution": track.attribution,
            }
        )
    if as_json:
        show(json.dumps(rows, indent=2))
        return
    show(f"{'name':<22} {'length m':>9} {'width m':>8} {'tightest m':>11}  attribution")
    for row in rows:
        radius = row["tightest_radius_m"]
        show(
            f"{row['name']:<22} {row['length_m']:>9} {row['width_m']:>8} "
            f"{radius or '-':>11}  {row['attribution']}"
        )


@app.command("show")
def tracks_show(
    name: Annotated[str, typer.Argument(metavar="TRACK", help="Name or file.")],
    out: Annotated[
        Path | None, typer.Option(help="Picture to write; NAME.png if not given.")
    ] = None,
    vehicle: Annotated[str, typer.Option(help="Car that the certificate is for.")] = "deepracer",
    as_json: Json = False,
) -> None:
    """Draw a track as a picture, and print its measures and what a car cannot drive of it."""
    from hotlap import plot
    from hotlap.track import load_track
    from hotlap.track.certificate import certify
    from hotlap.vehicle import load_vehicle

    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out: {out} is no picture that can be written; end its name in .png")
    track = load_track(name)
    file = plot.save(plot.track_picture(track), out or Path(f"{track.name}.png"))
    facts: dict[str, Any] = {
        "name": track.name,
        "length_m": round(track.length, 3),
        "width_m": round(track.width, 3),
        "closed": track.closed,
        "stations": track.stations.count,
        "fingerprint": track.fingerprint,
        "attribution": track.attribution,
        "picture": str(file),
        "certificate": certify(track, load_vehicle(vehicle)).as_dict(),
    }
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    found = facts.pop("certificate")
    for key, value in facts.items():
        show(f"{key}: {value}")
    for key in ("vehicle", "radius_min", "border_radius_min", "gap_min", "turns", "lap", "label"):
        value = found[key]
        show(f"{key}: {round(value, 2) if isinstance(value, float) else value}")
    for problem in found["problems"]:
        show(f"problem: {problem}")


@app.command("generate")
def tracks_generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("tracks"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first track.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many; seeds follow.")] = 1,
    difficulty: Annotated[
        str, typer.Option(help="From 0 to 1; 0.2-0.8 lets each track draw its own.")
    ] = "0.5",
    length: Annotated[float | None, typer.Option(help="Length of the centre line [m].")] = None,
    width: Annotated[float | None, typer.Option(help="Width of the road [m].")] = None,
    radius: Annotated[float | None, typer.Option(help="Least radius of a border [m].")] = None,
    gap: Annotated[float | None, typer.Option(help="Least distance of two legs [m].")] = None,
    room: Annotated[
        str | None,
        typer.Option(help="Floor to fit into: 6x4, or a .json or .csv file of its corners."),
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Least distance to its walls [m].")] = None,
    vehicle: Annotated[str, typer.Option(help="Car that the certificate is for.")] = "deepracer",
    as_json: Json = False,
) -> None:
    """Draw tracks by seed and difficulty, check them for a car, and write .npy files."""
    from hotlap.track import load_track, split_names
    from hotlap.track.certificate import certify
    from hotlap.track.collection import save_track
    from hotlap.vehicle import load_vehicle

    given = {"length": length, "width": width, "radius": radius, "gap": gap, "margin": margin}
    words = [f"{key}={value:g}" for key, value in given.items() if value is not None]
    words += [f"room={room}"] if room is not None else []
    name = ":".join(["generated", f"seed={seed}-{seed + count - 1}", f"difficulty={difficulty}"])
    car, rows = load_vehicle(vehicle), []
    for one in split_names(":".join([name, *words])):
        track = load_track(one)
        found = certify(track, car, gap=gap)
        rows.append(
            {"track": one, "file": str(save_track(track, out / f"{track.name}.npy", one))}
            | found.as_dict()
        )
        if not as_json:
            show(
                f"{rows[-1]['file']}: {found.label}, {found.length:.1f} m long, "
                f"{found.width_min:.2f} m wide, {found.turns} turns, tightest "
                f"{found.radius_min:.2f} m, lap about {found.lap:.1f} s"
            )
            for problem in found.problems:
                say(f"{one}: {problem}")
    if as_json:
        show(json.dumps(rows, indent=2))


@app.command("add")
def tracks_add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|URL",
            help="A .npy, .csv or .yaml file, a folder that holds some, or the address of one.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name to give it; the file's if not given.")
    ] = None,
    attribution: Annotated[str, typer.Option(help="Whose work it is, kept with it.")] = "",
) -> None:
    """Check tracks and copy them into your collection, so that they can be named."""
    from hotlap.track.collection import add_track, add_tracks, add_url

    path = Path(source)
    if path.is_dir():
        if name is not None:
            raise ConfigError(f"--name: {source} is a folder, whose tracks keep their own names")
        added, refused = add_tracks(path, attribution)
        for one, error in refused:
            say(f"{one}: refused: {error}")
        show(f"added {len(added)}: {', '.join(added)}" if added else "added none")
        if not added:
            raise typer.Exit(2)
        return
    fetched = source.startswith(("http://", "https://"))
    track = (add_url if fetched else add_track)(source, name, attribution)
    show(f"added {track.name}: {track.length:.2f} m long, {track.width:.3f} m wide")
    if not track.attribution:
        say("whose work it is was not found; --attribution keeps that with it")


@app.command("limit")
def tracks_limit(
    name: Annotated[str, typer.Argument(metavar="TRACK", help="Name or file.")],
    vehicle: Annotated[str, typer.Option(help="Parameter set of the car.")] = "deepracer",
    rule: Annotated[
        str, typer.Option(help="What must leave the road: all_wheels, any_wheel or centre.")
    ] = "all_wheels",
    model: Annotated[
        str,
        typer.Option(help="point: no driver can be faster; single: a perfect driver of this car."),
    ] = "point",
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Drive against the order of the file.")
    ] = False,
    actions: Annotated[
        int | None, typer.Option(help="Print so many actions that suit the lap, as JSON.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write; NAME-limit.png if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute the fastest lap that physics allows, and draw its line and speed."""
    from typing import cast

    from hotlap import limit as module
    from hotlap import plot
    from hotlap.track import load_track
    from hotlap.vehicle import load_vehicle

    track = load_track(name)
    track = track.reversed() if reverse else track
    found = module.fastest_lap(
        track,
        load_vehicle(vehicle),
        rule=cast(module.Rule, rule),
        model=cast(module.Model, model),
    )
    if actions is not None:
        listed = [
            {"steering_angle": steering, "speed": speed}
            for steering, speed in module.action_list(found, actions)
        ]
        show(json.dumps({"action_space": listed}, indent=2))
        return
    kind = "no driver can be faster" if found.model == "point" else "a perfect driver"
    title = f"{track.name} · {found.vehicle} · {found.lap_s:.3f} s · {kind}"
    figure = plot.line_and_speed(track, found.trace(found.lap_s / 1000), title)
    facts = {
        "track": found.track,
        "vehicle": found.vehicle,
        "rule": found.rule,
        "model": found.model,
        "lap_s": round(found.lap_s, 4),
        "coarse_s": round(found.coarse_s, 4),
        "speed_min": round(float(found.speed.min()), 3),
        "speed_max": round(float(found.speed.max()), 3),
        "solver": found.message,
        "picture": str(plot.save(figure, out or Path(f"{track.name}-limit.png"))),
    }
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        show(f"{key}: {value}")
