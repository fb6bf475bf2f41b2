"""The command line: parse, call a verb, print results on standard output, the rest on error."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast

import typer

from hotlap.commands import deepracer as deepracer_commands
from hotlap.commands import models, races, sizing, sweeps, tracks, vehicles
from hotlap.commands.console import (
    Json,
    print_boards,
    print_league,
    print_population,
    print_report,
    print_standings,
    say,
    show,
)
from hotlap.errors import ConfigError, HotlapError

if TYPE_CHECKING:
    from hotlap.evaluate import Report
    from hotlap.penalties import PenaltySettings
    from hotlap.racing.league import League
    from hotlap.runs import Run

__all__ = ["app", "main"]

_EPILOG = """\b
Examples:
  hotlap train                           the quick start, about a minute
  hotlap train examples/deepracer        a DeepRacer folder, as it is
  hotlap train configs/camera.toml track=hard train.seconds=120
  hotlap evaluate runs/latest --track oval --json
  hotlap train --out s3://bucket/runs/a  anywhere else: hotlap evaluate s3://bucket/runs/a
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
app.add_typer(tracks.app, name="tracks")
app.add_typer(vehicles.app, name="vehicle")
app.add_typer(deepracer_commands.app, name="deepracer")
app.command("export")(models.export_command)
app.command("import")(models.import_command)
app.command("plan")(sizing.plan_command)
app.command("sweep")(sweeps.sweep_command)

TrackOption = Annotated[
    str | None, typer.Option("--track", help="Track by name or file; several with commas.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Directory or URL of a run.")]


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


def _which(checkpoint: str) -> Literal["best", "last"]:
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"--checkpoint: choose from best, last (got {checkpoint})")
    return "best" if checkpoint == "best" else "last"


def _complain(error: Exception, text: str) -> None:
    for line in (*text.splitlines(), *getattr(error, "__notes__", ())):
        say(f"hotlap: {line}")


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
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that share the cars, over Ray; 0: none."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Ray cluster that the workers are on; auto: the one here."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|LIST",
            help="Train several seeds side by side: how many from --seed on, or which, as 0,3,7 "
            "or 3-6.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the new run, or its URL, such as s3://bucket/runs/a."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue a run, or all seeds of a population, exactly."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Start from the driver of another run."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Which driver of that run: best or last.")
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
    if checkpoint is not None and from_ is None:
        raise ConfigError(
            "--checkpoint says which driver of a run to start from: name it by --from"
        )
    which = _which(checkpoint or "best")
    changes: dict[str, Any] = overrides([word for word in given if _is_setting(word)])
    asked = {
        "track": track,
        "vehicle": vehicle,
        "seed": seed,
        "distributed.workers": workers,
        "distributed.address": address,
    }
    for name, value in asked.items():
        if value is not None:
            changes[name] = value
    with _uncollected():
        from hotlap.kernels import compile_for
        from hotlap.plan import read_config
        from hotlap.population import Population, read_seeds
        from hotlap.practice import needs_torch
        from hotlap.runs import Run, check_vacant
        from hotlap.train import Stopped
        from hotlap.train import train as verb

    # A mistake shows before the kernels compile.
    if out is not None:
        check_vacant(out)
    before = resume or (from_ if source is None else None)
    if resume is not None and Population.is_at(resume):
        seeds, before = seeds or "all", Population.open(resume).path
    elif before is not None:
        before = Run.open(before).path
    plan = read_config(source if before is None else before / "config.toml", changes)
    if before is None:
        plan.config.tracks()
    if resume is None and seeds is not None:
        chosen = read_seeds(seeds, plan.config.seed)
        plan = replace(plan, notes=(*plan.notes, f"seeds: {', '.join(map(str, chosen))}"))
    if dry_run:
        for note in plan.notes:
            say(note)
        show(to_toml(plan.config))
        return
    if seeds is None:  # else the verb compiles, once for all of them
        compile_for(plan.config)
        if needs_torch(plan.config):
            with _uncollected(), contextlib.suppress(ImportError):
                import torch  # noqa: F401
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
                checkpoint=which,
                plain=plain,
                quiet=quiet,
                began=time.perf_counter() - _process_age(),
            )
    except Stopped as stop:
        say(f"hotlap: {stop}")
        if isinstance(stop.run, Population):
            print_population(stop.run.as_dict(), as_json)
        else:
            facts = {"run": stop.run.place, "report": None}
            show(json.dumps(facts, indent=2) if as_json else f"run: {facts['run']}")
        raise typer.Exit(stop.exit_code) from None
    if isinstance(run, Population):
        for number, one in run.runs().items():
            _warn(one.report() or {}, f"seed{number}: ")
        print_population(run.as_dict(), as_json)
        raise typer.Exit(1 if run.failures else 0)
    report = run.report() or {}
    _warn(report)
    if as_json:
        show(json.dumps({"run": run.place, "report": report}, indent=2))
        return
    print_report(report)
    for folder, what in (("plots", "plots"), ("films", "film"), ("traces", "trace")):
        for file in sorted((run.path / folder).glob("*")):
            show(f"{what}: {run.place_of(file)}")
    show(f"run: {run.place}")


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Directory or URL of a run, or of a population.")
    ],
    track: Annotated[
        str | None,
        typer.Option(
            help="Track by name or file, or several with commas; the run's first if not given."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Starts to try; 5 if not given, or one a track if these are more."
        ),
    ] = None,
    laps: Annotated[int, typer.Option(min=1, max=100, help="Laps of each trial.")] = 3,
    checkpoint: Annotated[str, typer.Option(help="Which driver: best or last.")] = "best",
    randomized: Annotated[
        bool, typer.Option("--randomized", help="A car and a look of its own for each trial.")
    ] = False,
    deepracer: Annotated[
        bool,
        typer.Option(
            "--deepracer",
            help="A stumble does not end a trial but costs the run's evaluation.penalties.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starts.")] = 0,
    league: Annotated[
        Path | None, typer.Option(help="File whose leaderboard the trials enter.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a run's driver lap, alone and greedy, and report how it did."""
    from hotlap.evaluate import evaluate as verb
    from hotlap.trials import penalties_of

    which = _which(checkpoint)
    from hotlap.population import Population

    how: dict[str, Any] = {"track": track, "trials": trials, "laps": laps, "checkpoint": which}
    how |= {"randomized": randomized, "seed": seed}
    if league is not None and randomized:
        raise ConfigError(
            "--league: cars that differ from trial to trial cannot be compared; leave --randomized "
            "away"
        )
    if Population.is_at(run):
        if league is not None:
            raise ConfigError(f"--league: {run} holds several runs; name one, {run}/seed0 say")
        population = Population.open(run)
        drivers = {number: one for number, one in population.runs().items() if one.checkpoints()}
        if not drivers:
            raise ConfigError(f"{run}: no seed of it has a checkpoint yet; train longer")
        facts = {
            number: verb(one, **how, penalties=penalties_of(one) if deepracer else None).as_dict()
            for number, one in drivers.items()
        }
        for number, said in facts.items():
            _warn(said, f"seed{number}: ")
        print_population(population.as_dict(facts) | {"reports": facts}, as_json)
        return
    from hotlap.runs import Run
    from hotlap.simtrace import write_evaluation

    board = None
    if league is not None:  # a mistake in it shows before the drive
        from hotlap.racing.league import League

        board = League(league)
    opened = Run.open(run)
    how["penalties"] = penalties_of(opened) if deepracer else None
    report = verb(opened, **how, recorded=None)
    said = report.as_dict()
    _warn(said)
    failures: list[HotlapError] = []
    if board is not None:
        with _later(failures):
            _enter(board, opened, which, report, how["penalties"])
            found = board.boards(laps=min(3, report.laps_per_trial))
            said["boards"] = [asdict(one) for one in found if one.track in report.tracks]
    if as_json:
        show(json.dumps(said, indent=2))
    else:
        print_report(said)
        print_boards(said.get("boards", []))
    written = write_evaluation(opened, report)
    opened.send(*written)
    for file in written:
        say(f"DeepRacer's log: {opened.place_of(file)}")
    if failures:
        raise failures[0]


def _enter(
    board: League,
    run: Run,
    checkpoint: Literal["best", "last"],
    report: Report,
    penalties: PenaltySettings | None,
) -> None:
    """Put the trials of a run's driver into a league."""
    from hotlap.env.drivers import env_settings, load_driver

    driver = load_driver(run.path, checkpoint)
    way = env_settings(run).start.direction
    board.add_trials(
        report.as_dict(),
        name=driver.name,
        fingerprint=driver.fingerprint,
        direction="reversed" if way == "reversed" else "forward",
        penalties=None if penalties is None else penalties.model_dump(),
    )


@app.command()
def race(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN...",
            help="Directories or URLs of the runs whose drivers race, or a DeepRacer folder whose "
            "run.env names two models.",
        ),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Track by name or file; the first run's if not given.")
    ] = None,
    laps: Annotated[int, typer.Option(min=1, max=100, help="Laps of a race.")] = 3,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Races; a multiple of the drivers, twice them if not given. With --deepracer any "
            "number, 1 if not given.",
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Which drivers: best or last.")] = "best",
    deepracer: Annotated[
        bool,
        typer.Option(
            "--deepracer",
            help="DeepRacer's rules of head-to-model, with the first run's evaluation.penalties; "
            "a DeepRacer folder always races by them.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starts.")] = 0,
    league: Annotated[
        Path | None,
        typer.Option(help="File that keeps the leaderboard; without runs it is only shown."),
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            metavar="total|average|best", help="What the league's time trials are ranked by,"
        ),
    ] = "total",
    over: Annotated[int, typer.Option(min=1, max=100, help="of how many laps,")] = 3,
    resets: Annotated[
        int | None, typer.Option(min=0, help="and with how many resets at most; any if not given.")
    ] = None,
    film: Annotated[Path | None, typer.Option(help="Film of the first race to write.")] = None,
    as_json: Json = False,
) -> None:
    """Let the drivers of several runs race against each other on one road."""
    from hotlap.racing.league import League

    which = _which(checkpoint)
    if film is not None and film.suffix.lower() not in (".mp4", ".gif"):
        raise ConfigError(f"--film: end its name in .mp4 or .gif (got {film})")
    if film is not None and not film.parent.is_dir():
        raise ConfigError(f"--film: {film.parent} is no folder; make it first")
    if score not in ("total", "average", "best"):
        raise ConfigError(f"--score: choose total, average or best (got {score})")
    ranked = [name for name in ("score", "over", "resets")
              if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]  # fmt: skip
    if ranked and league is None:
        raise ConfigError(f"--{ranked[0]}: ranks the time trials of a league; give --league FILE")
    words = ("film", "track", "laps", "trials", "checkpoint", "seed", "deepracer")
    asked = [name for name in words
             if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]  # fmt: skip
    if asked and league is not None and not runs:
        raise ConfigError(f"--{asked[0]}: speaks of a race; name the runs that race")
    board = None if league is None else League(league)
    facts: dict[str, Any] = {}
    failures: list[HotlapError] = []
    if runs or board is None:
        from hotlap.racing.race import race as verb

        how: dict[str, Any] = {"track": track, "laps": laps, "trials": trials}
        how |= {"checkpoint": which, "penalties": None}
        runs = races.by_deepracers_rules(runs or [], how, asked, deepracer=deepracer)
        standings = verb(runs, **how, seed=seed)
        facts = standings.as_dict()
        # What was driven is printed, whatever becomes of the files.
        with _later(failures):
            if board is not None:
                board.add(facts)
        with _later(failures):
            if film is not None:
                from hotlap.racing.film import film_race

                facts["film"] = str(film_race(film, standings))
        if how["penalties"] is not None:
            with _later(failures):
                races.write_logs(runs, standings)
    if board is not None and not failures:
        facts["league"] = board.as_dicts()
        by = cast(Literal["total", "average", "best"], score)
        facts["boards"] = [asdict(one) for one in board.boards(by, over, resets)]
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
        show(json.dumps(facts, indent=2))
        return
    if "racers" in facts:
        print_standings(facts)
    if "film" in facts:
        show(f"film: {facts['film']}")
    if "league" in facts:
        if facts["league"] or not facts["boards"]:
            print_league(facts["league"], facts.get("track"))
        print_boards(facts["boards"])


@app.command()
def film(
    run: RunArgument,
    ghost: Annotated[
        str | None,
        typer.Option(help="Who drives along, seen through: limit, or another run."),
    ] = None,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention", help="Show what a camera driver looks at, and what it is minded to do."
        ),
    ] = False,
    heat: Annotated[
        str | None,
        typer.Option(
            metavar="gradcam|hirescam", help="How --attention finds it; gradcam if not given."
        ),
    ] = None,
) -> None:
    """Let a run's driver lap, and film its best trial."""
    from hotlap.outcome import film_run

    if heat is not None and not attention:
        raise ConfigError("--heat: says how --attention finds what is looked at; give that too")
    if heat not in (None, "gradcam", "hirescam"):
        raise ConfigError(f"--heat: choose gradcam or hirescam (got {heat})")
    how = cast(Literal["gradcam", "hirescam"], heat or "gradcam") if attention else None
    show(f"film: {film_run(run, ghost, attention=how)}")


@app.command()
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Directory or URL of a run; or several, or populations."
        ),
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
        if out is None and len(runs) == 1:
            population = Population.open(runs[0])
            file = plot_learning(runs, population.path / "learning.png")
            population.send(file)
        else:
            file = plot_learning(runs, out or Path("learning.png"))
        show(f"plot: {file}")
        return
    if out is not None:
        raise ConfigError("--out: the plots of one run are in it; name several, or a population")
    for file in plot_run(runs[0]).values():
        show(f"plot: {file}")


@app.command()
def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder or URL that holds runs; runs/ if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs with their best laps."""
    from hotlap.runs import list_runs, names_in
    from hotlap.runs.storage import url_of

    place = url_of(folder or "runs")
    there = names_in(place)
    if folder is not None and there is None:
        raise ConfigError(f"{place}: no such folder; name one that holds runs, such as runs")
    if folder is not None and "meta.json" in (there or ()):
        raise ConfigError(f"{place} is a run itself: hotlap evaluate {place}, or name its folder")
    found = [{"run": run.place, **_brief(run.report() or {})} for run in list_runs(place)]
    if as_json:
        show(json.dumps(found, indent=2))
        return
    if not found:
        show(f"no runs in {place}; start one with: hotlap train")
        return
    show(f"{'run':<40} {'track':<20} {'completion':>10} {'best lap s':>10}")
    for row in found:
        best = "-" if row["best_lap_s"] is None else f"{row['best_lap_s']:.2f}"
        share = "-" if row["completion"] is None else f"{row['completion']:.0%}"
        show(f"{row['run']:<40} {row['track']!s:<20} {share:>10} {best:>10}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, for a bug report; compile the kernels if they are not yet."""
    from hotlap.kernels import folders
    from hotlap.machine import machine

    facts = {**machine(), "kernel_cache": ", ".join(folders())}
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        show(f"- {key}: {value}")


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
    show(json.dumps(result, indent=2) if as_json else table(result))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without looking for garbage, and never look through what was imported.

    torch and numba make half a million objects that live as long as the process: half a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


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


def _warn(report: dict[str, Any], whose: str = "") -> None:
    """Say on standard error what is odd about a report."""
    if report.get("changed"):
        names = whose + ", ".join(report["changed"])
        say(f"hotlap: {names}: changed since the training; the driver learned on what was there")
    if report.get("alarm"):
        say(f"hotlap: {whose}alarm: {report['alarm']}")


def _brief(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report.get(key) for key in ("track", "completion", "best_lap_s", "mean_lap_s")}
