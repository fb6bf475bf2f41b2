"""The command line: parse, call a verb, print results on standard output, the rest on error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from hotlap.errors import ConfigError, HotlapError

__all__ = ["app", "main"]

_EPILOG = """\b
Examples:
  hotlap train                           the quick start, about a minute
  hotlap train examples/deepracer        a DeepRacer folder, as it is
  hotlap train configs/camera.toml track=hard train.seconds=120
  hotlap evaluate runs/latest --track oval --json
  hotlap race runs/a runs/b --track oval --film race.mp4
  hotlap tracks show reinvent_like

\b
Exit status: 0 success, 1 the run failed, 2 the command line or a file it names is wrong,
130 or 143 you (Ctrl-C) or the system (SIGTERM) stopped it.
"""

app = typer.Typer(
    name="hotlap",
    help="Train cars to race: a track, a car and a reward function in, a driver that laps out.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tracks_app = typer.Typer(help="List, draw, generate, add and measure tracks.", no_args_is_help=True)
app.add_typer(tracks_app, name="tracks")
vehicle_app = typer.Typer(help="List cars and say what they can do.", no_args_is_help=True)
app.add_typer(vehicle_app, name="vehicle")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TrackOption = Annotated[
    str | None, typer.Option("--track", help="Track by name or file; several with commas.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]


def main() -> NoReturn:
    """Run the command line; user mistakes end in a sentence, never in a traceback."""
    status = 1
    _hold_streams()
    try:
        app()
    except HotlapError as error:
        _complain(error, str(error))
        status = error.exit_code
    except OSError as error:
        if os.environ.get("HOTLAP_DEBUG"):
            raise
        place = f"{error.filename}: " if error.filename else ""
        _complain(error, f"{place}{error.strerror or error}")
    except Exception as error:
        if os.environ.get("HOTLAP_DEBUG"):
            raise
        _complain(
            error,
            f"internal error: {type(error).__name__}: {error}. Nothing already written is "
            "harmed. HOTLAP_DEBUG=1 shows the traceback; please report it.",
        )
    raise SystemExit(status)


def _hold_streams() -> None:
    """Let nothing that is opened later take the place of a standard stream that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


def _complain(error: Exception, text: str) -> None:
    for line in (*text.splitlines(), *getattr(error, "__notes__", ())):
        _say(f"hotlap: {line}")


@app.command()
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.toml | FOLDER] [KEY=VALUE]...",
            help="A TOML file or a DeepRacer folder (nothing: the quick start), then settings "
            "such as train.seconds=120 algorithm.learning_rate=1e-3.",
        ),
    ] = None,
    track: TrackOption = None,
    vehicle: Annotated[str | None, typer.Option(help="Parameter set of the car.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random draws.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|LIST",
            help="Train several seeds side by side: how many from --seed on, or which, as 0,3,7 "
            "or 3-6.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the new run.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue a run exactly.")
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Start from the driver of another run."),
    ] = None,
    plain: Annotated[bool, typer.Option(help="Plain lines, no live display.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the complete settings and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a driver; ends with its evaluation, plots and a film."""
    from hotlap.config import overrides, to_toml

    given = list(words or [])
    sources = [word for word in given if not _is_setting(word)]
    if len(sources) > 1:
        raise ConfigError(
            f"{sources[1]}: one configuration file or folder is enough, {sources[0]} is given. "
            "Settings are written section.field=value."
        )
    source = sources[0] if sources else None
    changes: dict[str, Any] = overrides([word for word in given if _is_setting(word)])
    for name, value in (("track", track), ("vehicle", vehicle), ("seed", seed)):
        if value is not None:
            changes[name] = value
    from hotlap.kernels import is_warm, parts_of, warm
    from hotlap.population import Population
    from hotlap.runs import Run
    from hotlap.train import Stopped, read_config
    from hotlap.train import train as verb

    # A mistake shows before the kernels compile.
    before = resume or (from_ if source is None else None)
    if resume is not None and Population.is_at(resume):
        seeds = seeds or "all"
    elif before is not None:
        before = Run.open(before).path
    plan = read_config(source if before is None else before / "config.toml", changes)
    if before is None:
        plan.config.tracks()
    if dry_run:
        for note in plan.notes:
            _say(note)
        _print(to_toml(plan.config))
        return
    parts = parts_of(plan.config)
    if not is_warm(parts):
        warm(parts)
    try:
        # What a reward function prints is no result of ours.
        with contextlib.redirect_stdout(sys.stderr):
            run: Run | Population = verb(
                source,
                changes,
                seeds=seeds,
                out=out,
                resume=resume,
                weights_from=from_,
                plain=plain,
                quiet=quiet,
                began=time.perf_counter() - _process_age(),
            )
    except Stopped as stop:
        _say(f"hotlap: {stop}")
        if isinstance(stop.run, Population):
            _print_population(stop.run.as_dict(), as_json)
        else:
            facts = {"run": str(stop.run.path), "report": None}
            _print(json.dumps(facts, indent=2) if as_json else f"run: {facts['run']}")
        raise typer.Exit(stop.exit_code) from None
    if isinstance(run, Population):
        _print_population(run.as_dict(), as_json)
        raise typer.Exit(1 if run.failures else 0)
    report = run.report() or {}
    _warn(report)
    if as_json:
        _print(json.dumps({"run": str(run.path), "report": report}, indent=2))
        return
    _print_report(report)
    for folder, what in (("plots", "plots"), ("films", "film"), ("traces", "trace")):
        for file in sorted((run.path / folder).glob("*")):
            _print(f"{what}: {file}")
    _print(f"run: {run.path}")


@app.command()
def evaluate(
    run: RunArgument,
    track: Annotated[
        str | None, typer.Option(help="Track by name or file; the run's first if not given.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=1000, help="Starts to try.")] = 5,
    laps: Annotated[int, typer.Option(min=1, max=100, help="Laps of each trial.")] = 3,
    checkpoint: Annotated[str, typer.Option(help="Which driver: best or last.")] = "best",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starts.")] = 0,
    as_json: Json = False,
) -> None:
    """Let a run's driver lap, alone and greedy, and report how it did."""
    from hotlap.evaluate import evaluate as verb

    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint: choose from best, last (got {checkpoint})")
    which: Literal["best", "last"] = "best" if checkpoint == "best" else "last"
    from hotlap.population import Population

    if Population.is_at(run):
        population = Population.open(run)
        drivers = {seed: one for seed, one in population.runs().items() if one.checkpoints()}
        if not drivers:
            raise ConfigError(f"{run}: no seed of it has a checkpoint yet; train longer")
        reports = {
            number: verb(one, track=track, trials=trials, laps=laps, checkpoint=which, seed=seed)
            for number, one in drivers.items()
        }
        facts = {number: report.as_dict() for number, report in reports.items()}
        _warn(next(iter(facts.values())))
        _print_population(population.as_dict(facts) | {"reports": facts}, as_json)
        return
    report = verb(run, track=track, trials=trials, laps=laps, checkpoint=which, seed=seed)
    _warn(report.as_dict())
    if as_json:
        _print(json.dumps(report.as_dict(), indent=2))
    else:
        _print_report(report.as_dict())


@app.command()
def race(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Directories of the runs whose drivers race."),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Track by name or file; the first run's if not given.")
    ] = None,
    laps: Annotated[int, typer.Option(min=1, max=100, help="Laps of a race.")] = 3,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Races; a multiple of the drivers, twice them if not given."
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Which drivers: best or last.")] = "best",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starts.")] = 0,
    league: Annotated[
        Path | None,
        typer.Option(help="File that keeps the leaderboard; without runs it is only shown."),
    ] = None,
    film: Annotated[Path | None, typer.Option(help="Film of the first race to write.")] = None,
    as_json: Json = False,
) -> None:
    """Let the drivers of several runs race against each other on one road."""
    from hotlap.league import League

    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint: choose from best, last (got {checkpoint})")
    if film is not None and film.suffix.lower() not in (".mp4", ".gif"):
        raise ConfigError(f"--film: end its name in .mp4 or .gif (got {film})")
    if film is not None and not film.parent.is_dir():
        raise ConfigError(f"--film: {film.parent} is no folder; make it first")
    asked = [name for name in ("film", "track", "laps", "trials", "checkpoint", "seed")
             if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]  # fmt: skip
    if asked and league is not None and not runs:
        raise ConfigError(f"--{asked[0]}: speaks of a race; name the runs that race")
    board = None if league is None else League(league)
    facts: dict[str, Any] = {}
    failures: list[HotlapError] = []
    if runs or board is None:
        from hotlap.race import race as verb

        which: Literal["best", "last"] = "best" if checkpoint == "best" else "last"
        standings = verb(
            runs or [], track=track, laps=laps, trials=trials, checkpoint=which, seed=seed
        )
        facts = standings.as_dict()
        # What was driven is printed, whatever becomes of the files.
        with _later(failures):
            if board is not None:
                board.add(facts)
        with _later(failures):
            if film is not None:
                from hotlap.race_film import film_race

                facts["film"] = str(film_race(film, standings))
    if board is not None and not failures:
        facts["league"] = board.as_dicts()
    _print_race(facts, as_json)
    if failures:
        for error in failures[1:]:
            failures[0].add_note(str(error))
        raise failures[0]


@contextlib.contextmanager
def _later(failures: list[HotlapError]) -> Iterator[None]:
    try:
        yield
    except HotlapError as error:
        failures.append(error)


def _print_race(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print(json.dumps(facts, indent=2))
        return
    if "racers" in facts:
        _print_standings(facts)
    if "film" in facts:
        _print(f"film: {facts['film']}")
    if "league" in facts:
        _print_league(facts["league"], facts.get("track"))


def _print_standings(facts: dict[str, Any]) -> None:
    trials, laps = facts["trials"], facts["laps"]
    _print(
        f"{facts['track']}: {trials} race{'s' if trials > 1 else ''} of "
        f"{laps} lap{'s' if laps > 1 else ''}"
    )
    _print(
        f"{'':>2}  {'driver':<24} {'place':>5} {'wins':>4} {'finished':>8} {'best lap s':>10} "
        f"{'gap s':>6} {'passed':>6} {'contacts':>8} {'ran into':>8} {'off track':>9} {'stuck':>5}"
    )
    for place, racer in enumerate(facts["racers"], 1):
        gaps = [gap for gap in racer["gaps_s"] if gap is not None]
        gap = f"{sum(gaps) / len(gaps):.2f}" if gaps else "-"
        best = "-" if racer["best_lap_s"] is None else f"{racer['best_lap_s']:.3f}"
        _print(
            f"{place:>2}  {racer['name'][:24]:<24} {racer['mean_place']:>5.2f} {racer['wins']:>4} "
            f"{racer['finished']:>8} {best:>10} {gap:>6} {racer['overtakes']:>6} "
            f"{racer['contacts']:>8} {racer['ran_into']:>8} {racer['off_tracks']:>9} "
            f"{racer['stuck']:>5}"
        )


def _print_league(entries: list[dict[str, Any]], track: str | None) -> None:
    if not entries:
        _print("the league has no races yet")
        return
    _print(
        f"{'':>2}  {'league':<24} {'policy':<8} {'rating':>6} {'races':>5} {'wins':>4}  best laps"
    )
    for place, entry in enumerate(entries, 1):
        laps = entry["best_laps_s"]
        shown = {track: laps[track]} if track in laps else laps
        best = ", ".join(f"{name} {lap:.3f} s" for name, lap in shown.items())
        _print(
            f"{place:>2}  {entry['name'][:24]:<24} {entry['fingerprint']:<8} "
            f"{entry['rating']:>6.0f} {entry['races']:>5} {entry['wins']:>4}  {best or '-'}"
        )


@tracks_app.command("list")
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
        _print(json.dumps(rows, indent=2))
        return
    _print(f"{'name':<22} {'length m':>9} {'width m':>8} {'tightest m':>11}  attribution")
    for row in rows:
        radius = row["tightest_radius_m"]
        _print(
            f"{row['name']:<22} {row['length_m']:>9} {row['width_m']:>8} "
            f"{radius or '-':>11}  {row['attribution']}"
        )


@tracks_app.command("show")
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
    from hotlap.certificate import certify
    from hotlap.track import load_track
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
        _print(json.dumps(facts, indent=2))
        return
    found = facts.pop("certificate")
    for key, value in facts.items():
        _print(f"{key}: {value}")
    for key in ("vehicle", "radius_min", "border_radius_min", "gap_min", "turns", "lap", "label"):
        value = found[key]
        _print(f"{key}: {round(value, 2) if isinstance(value, float) else value}")
    for problem in found["problems"]:
        _print(f"problem: {problem}")


@tracks_app.command("generate")
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
    from hotlap.certificate import certify
    from hotlap.collection import save_track
    from hotlap.track import load_track, split_names
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
            _print(
                f"{rows[-1]['file']}: {found.label}, {found.length:.1f} m long, "
                f"{found.width_min:.2f} m wide, {found.turns} turns, tightest "
                f"{found.radius_min:.2f} m, lap about {found.lap:.1f} s"
            )
            for problem in found.problems:
                _say(f"{one}: {problem}")
    if as_json:
        _print(json.dumps(rows, indent=2))


@tracks_app.command("add")
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
    from hotlap.collection import add_track, add_tracks, add_url

    path = Path(source)
    if path.is_dir():
        if name is not None:
            raise ConfigError(f"--name: {source} is a folder, whose tracks keep their own names")
        added, refused = add_tracks(path, attribution)
        for one, error in refused:
            _say(f"{one}: refused: {error}")
        _print(f"added {len(added)}: {', '.join(added)}" if added else "added none")
        if not added:
            raise typer.Exit(2)
        return
    fetched = source.startswith(("http://", "https://"))
    track = (add_url if fetched else add_track)(source, name, attribution)
    _print(f"added {track.name}: {track.length:.2f} m long, {track.width:.3f} m wide")
    if not track.attribution:
        _say("whose work it is was not found; --attribution keeps that with it")


@vehicle_app.command("list")
def vehicle_list(as_json: Json = False) -> None:
    """List the cars that can be named, and where their numbers come from."""
    from hotlap.vehicle import VEHICLES

    rows = [
        {
            "name": car.name,
            "wheelbase_m": round(car.front_axle + car.rear_axle, 3),
            "speed_max": round(car.speed_max * car.speed_gain, 2),
            "friction": car.friction,
            "steering_lag_s": car.steering_lag,
            "speed_lag_s": round(1 / car.motor_gain + car.motor_lag, 3),
            "source": car.source,
        }
        for car in VEHICLES.values()
    ]
    if as_json:
        _print(json.dumps(rows, indent=2))
        return
    _print(
        f"{'name':<13} {'wheelbase m':>11} {'top m/s':>8} {'friction':>8} {'steering lag s':>14} "
        f"{'speed lag s':>11}"
    )
    for row in rows:
        _print(
            f"{row['name']:<13} {row['wheelbase_m']:>11} {row['speed_max']:>8} "
            f"{row['friction']:>8} {row['steering_lag_s']:>14} {row['speed_lag_s']:>11}"
        )
    _print("hotlap vehicle show NAME tells what one can do, and where its numbers come from")


@vehicle_app.command("show")
def vehicle_show(
    name: Annotated[str, typer.Argument(metavar="VEHICLE", help="Name or TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write (PNG).")] = None,
    as_json: Json = False,
) -> None:
    """Drive a car to its limits: top speed, tightest turns, braking, starting."""
    from hotlap.proving import advice, limits
    from hotlap.vehicle import load_vehicle

    car = load_vehicle(name)
    found = limits(car)
    table = [
        {
            "speed": round(float(v), 3),
            "radius_m": _rounded(r),
            "lateral": _rounded(v * v / r),
            "stopping_m": _rounded(way),
            "from_rest_s": _rounded(t),
        }
        for v, r, way, t in zip(
            found.speed, found.radius, found.stopping, found.reached, strict=True
        )
    ]
    facts: dict[str, Any] = {
        "name": car.name,
        "source": car.source,
        "top_speed": round(found.speed_top, 3),
        "lateral_max": round(found.lateral, 3),
        "radius_min_m": round(car.radius_min, 3),
        "braked_to": round(found.slow, 3),
        "advice": advice(car, found),
    }
    if out is not None:
        from hotlap import plot

        facts["picture"] = str(plot.save(plot.vehicle_picture(car.name, found), out))
    if as_json:
        parameters = car.model_dump(exclude={"name", "source"})
        _print(json.dumps({**facts, "at": table, "parameters": parameters}, indent=2))
        return
    _print(f"{car.name}: {car.source}")
    _print(
        f"top speed {facts['top_speed']} m/s, {facts['lateral_max']} m/s^2 in turns, tightest "
        f"turn {facts['radius_min_m']} m at walking pace"
    )
    _print(
        f"{'at m/s':>8} {'tightest turn m':>16} {'lateral m/s^2':>14} "
        f"{f'braked to {found.slow:.1f} m/s m':>21} {'from rest s':>12}"
    )
    for row in table:
        cells = ("-" if value is None else value for value in row.values())
        _print("{:>8} {:>16} {:>14} {:>21} {:>12}".format(*cells))
    for sentence in facts["advice"]:
        _print(f"note: {sentence}")
    if out is not None:
        _print(f"picture: {facts['picture']}")


@vehicle_app.command("identify")
def vehicle_identify(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG.csv",
            help="Columns t, x, y, yaw, steering_command, speed_command (SI units), if known "
            "speed and episode; or a simtrace of DeepRacer.",
        ),
    ],
    base: Annotated[str, typer.Option(help="Set that the car is most like.")] = "deepracer",
    out: Annotated[Path | None, typer.Option(help="TOML file of the car to write.")] = None,
    point: Annotated[
        float | None,
        typer.Option(
            help="How far the logged point is ahead of the centre of gravity [m]; 0 if not given, "
            "0.14 for a simtrace."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a car's lags, gains, friction and wheelbase from a log of its driving."""
    from hotlap.identify import identify, read_log
    from hotlap.vehicle import VEHICLES

    if base not in VEHICLES:
        raise ConfigError(f"--base: choose from {', '.join(VEHICLES)} (got {base})")
    if out is not None and out.suffix != ".toml":
        raise ConfigError(f"--out: a car's file ends in .toml (got {out})")
    found = identify(read_log(log, point), VEHICLES[base])
    if out is not None:
        out.write_text(found.to_toml())
    if as_json:
        facts = {
            name: {
                "value": _rounded(f.value, 5),
                "base": _rounded(f.base, 5),
                "uncertainty": _rounded(f.uncertainty, 5),
                "seen": f.seen,
            }
            for name, f in found.findings.items()
        }
        left = {
            "position_error_m": _rounded(found.position_error, 5),
            "yaw_error_deg": _rounded(math.degrees(found.yaw_error), 4),
            "windows": found.windows,
            "vehicle": None if out is None else str(out),
        }
        _print(json.dumps({"base": base, "parameters": facts, **left}, indent=2))
        return
    _print(f"{'parameter':<13} {'value':>9} {'+-':>7} {base:>13}")
    for name, f in found.findings.items():
        said = f"{f.value:>9.4g} {f.uncertainty:>7.1%}" if f.seen else f"{'not shown':>9} {'':>7}"
        _print(f"{name:<13} {said} {f.base:>13.4g}")
    _print(
        f"{found.windows} windows of 1 s; left: {1000 * found.position_error:.1f} mm, "
        f"{math.degrees(found.yaw_error):.2f} degrees"
    )
    if out is not None:
        _print(f"vehicle: {out}")


@tracks_app.command("limit")
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
        _print(json.dumps({"action_space": listed}, indent=2))
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
        _print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        _print(f"{key}: {value}")


@app.command()
def film(
    run: RunArgument,
    ghost: Annotated[
        str | None,
        typer.Option(help="Who drives along, seen through: limit, or another run."),
    ] = None,
) -> None:
    """Let a run's driver lap, and film its best trial."""
    from hotlap.outcome import film_run

    _print(f"film: {film_run(run, ghost)}")


@app.command()
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Directory of a run; or several, or populations."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture of how several learned; learning.png if not given."),
    ] = None,
) -> None:
    """Let a run's driver lap, and draw its line and how it learned; or how several learned."""
    from hotlap.outcome import plot_learning, plot_run
    from hotlap.population import Population

    if len(runs) > 1 or Population.is_at(runs[0]):
        if out is not None and out.suffix.lower() != ".png":
            raise ConfigError(f"--out: end its name in .png (got {out})")
        home = runs[0] if len(runs) == 1 else Path()
        _print(f"plot: {plot_learning(runs, out or home / 'learning.png')}")
        return
    if out is not None:
        raise ConfigError("--out: the plots of one run are in it; name several, or a population")
    for file in plot_run(runs[0]).values():
        _print(f"plot: {file}")


@app.command()
def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder that holds runs; runs/ if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs with their best laps."""
    from hotlap.runs import list_runs

    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name one that holds runs, such as runs")
    if folder is not None and (folder / "meta.json").is_file():
        raise ConfigError(f"{folder} is a run itself: hotlap evaluate {folder}, or name its folder")
    folder = folder or Path("runs")
    found = [{"run": str(run.path), **_brief(run.report() or {})} for run in list_runs(folder)]
    if as_json:
        _print(json.dumps(found, indent=2))
        return
    if not found:
        _print(f"no runs in {folder}; start one with: hotlap train")
        return
    _print(f"{'run':<40} {'track':<20} {'completion':>10} {'best lap s':>10}")
    for row in found:
        best = "-" if row["best_lap_s"] is None else f"{row['best_lap_s']:.2f}"
        share = "-" if row["completion"] is None else f"{row['completion']:.0%}"
        _print(f"{row['run']:<40} {row['track']!s:<20} {share:>10} {best:>10}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, for a bug report; compile the kernels if they are not yet."""
    from hotlap.machine import machine

    facts = machine()
    if as_json:
        _print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        _print(f"- {key}: {value}")


@app.command()
def bench(
    seconds: Annotated[float, typer.Option(min=0.05, help="Time for each figure.")] = 1.0,
    peers: Annotated[
        bool, typer.Option(help="Measure other simulators that are installed.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="JSON lines file to append the result to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine: simulator, camera, environment, beside the peers that are installed."""
    from hotlap.bench import measure, table

    result = measure(seconds=seconds, peers=peers, out=out)
    _print(json.dumps(result, indent=2) if as_json else table(result))


def _rounded(value: float, digits: int = 3) -> float | None:
    """Round; None, which JSON knows, for what is not a number."""
    return round(float(value), digits) if math.isfinite(value) else None


def _is_setting(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _process_age() -> float:
    """Seconds since this process started; 0 where the system does not say."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


def _print_population(facts: dict[str, Any], as_json: bool) -> None:
    """Print what each seed came to, and how that spreads."""
    if as_json:
        _print(json.dumps(facts, indent=2))
        return
    digits = {"first_clean_s": 1, "best_lap_s": 3, "mean_lap_s": 3}

    def cell(name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.{digits[name]}f}" if name in digits else f"{value:.0%}"

    def line(title: str, cells: Sequence[str]) -> None:
        _print(f"{title:<13} {cells[0]:>18}" + "".join(f"{one:>14}" for one in cells[1:]))

    names = (*digits, "completion")
    line("", ("first clean laps s", "best lap s", "mean lap s", "completion"))
    for row in facts["seeds"]:
        best = " *" if row["run"] == facts["run"] else ""
        line(f"seed{row['seed']}{best}", [cell(name, row[name]) for name in names])
    spread = facts["spread"]
    ends = {"median": "median", "low": "min", "high": "max", "iqm": "middle half"}
    for key, title in ends.items() if spread else ():
        line(title, [cell(name, spread[name][key]) for name in names])
    if spread:
        bounds = ([cell(n, end) for end in spread[n]["interval"]] for n in names)
        line("its 95 %", [f"{low} - {high}" for low, high in bounds])
    for seed, said in facts["failures"].items():
        _say(f"hotlap: seed{seed} failed, and is in no figure: {said}")
    _print(f"population: {facts['population']}")
    if facts["run"] is not None:
        _print(f"run: {facts['run']}")


def _warn(report: dict[str, Any]) -> None:
    """Say on standard error what is odd about a report."""
    if report.get("changed"):
        names = ", ".join(report["changed"])
        _say(f"hotlap: {names}: changed since the training; the driver learned on what was there")
    if report.get("alarm"):
        _say(f"hotlap: alarm: {report['alarm']}")


def _brief(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report.get(key) for key in ("track", "completion", "best_lap_s", "mean_lap_s")}


def _print_report(report: dict[str, Any]) -> None:
    trials, laps = report["trials"], report["laps_per_trial"]
    _print(
        f"{report['track']}, {report['vehicle']}: {report['completion']:.0%} of {trials} trials "
        f"finished {laps} clean lap{'s' if laps > 1 else ''}"
    )
    if report["best_lap_s"] is not None:
        _print(f"best lap {report['best_lap_s']:.3f} s, mean lap {report['mean_lap_s']:.3f} s")
        if report.get("limit_ratio") is not None:
            _print(
                f"{report['limit_ratio']:.3f} times the {report['limit_s']:.3f} s that no driver "
                "can beat"
            )
    else:
        _print(f"no lap completed; the mean trial drove {report['progress']:.0%} of its laps")
    trouble = {
        "left the track": report["off_tracks"],
        "stood still": report["immobilized"],
        "went back": report["reversed"],
        "hit something": report["crashes"],
        "ran out of time": report["timed_out"],
    }
    said = ", ".join(f"{count} {what}" for what, count in trouble.items() if count)
    if said:
        _print(f"trials that ended early: {said}")


def _print(text: str) -> None:
    typer.echo(text)


def _say(text: str) -> None:
    typer.echo(text, err=True)
