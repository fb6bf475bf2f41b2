"""The command `hotlap sweep`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hotlap.commands.console import Json, print_sweep, say, show
from hotlap.errors import ConfigError

__all__ = ["sweep_command"]


def sweep_command(
    context: typer.Context,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.toml | FOLDER] [KEY=VALUE,VALUE | KEY=LOW..HIGH[:log]]...",
            help="A TOML file or a DeepRacer folder (nothing: the quick start), then settings. "
            "With several values, or a range, a setting is an axis. Brackets hold together what "
            "is one value: 'track=[oval,hard],reinvent_like' is two, the first of two tracks.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            help="grid: every combination; random; or optuna, which learns where to look. Grid if "
            "not given, random where a range needs it."
        ),
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(
            help="none; asha: cut what falls behind; pbt: let what falls behind begin anew with "
            "driver and settings of one of the best."
        ),
    ] = "none",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Combinations to draw; 10 if not given.")
    ] = None,
    together: Annotated[
        int, typer.Option(min=0, help="Trials at once; one a core if not given.")
    ] = 0,
    metric: Annotated[
        str,
        typer.Option(
            help="What trials are compared by: score (completion, then lap time), completion, "
            "best_lap_s, mean_lap_s, first_clean_s, reward, or any column of metrics.jsonl."
        ),
    ] = "score",
    mode: Annotated[
        str | None, typer.Option(help="Which is better, min or max, where that is not known.")
    ] = None,
    part: Annotated[
        float | None,
        typer.Option(
            help="Share of the budget until the first cut (asha; 1/9 if not given) or between "
            "two exchanges (pbt; 1/5)."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the search; that of the trainings is seed=.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Directory or URL of the new sweep.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="SWEEP", help="Go on with a sweep, and try again what failed."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Start all from the driver of a run."),
    ] = None,
    address: Annotated[
        str,
        typer.Option(help="Ray cluster to use, as HOST:PORT or auto; this machine if not given."),
    ] = "",
    plain: Annotated[bool, typer.Option(help="Plain lines, no live display.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials there would be and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train with several settings, or search for good ones, and say which was the best."""
    words = list(given or [])
    sources = [word for word in words if "=" not in word or Path(word).exists()]
    if len(sources) > 1:
        raise ConfigError(
            f"{sources[1]}: one configuration file or folder is enough, {sources[0]} is given. "
            "Settings are written section.field=value,value."
        )
    settings = [word for word in words if word not in sources]
    from hotlap.distributed import sweep as verbs

    if resume is not None:
        allowed = {"resume", "address", "plain", "quiet", "as_json"}
        named = [name for name in context.params if name not in allowed
                 and str(context.get_parameter_source(name)).endswith("COMMANDLINE")]  # fmt: skip
        if named:
            raise ConfigError(
                "--resume goes on with a sweep as it is: leave all but --address, --plain, --quiet "
                "and --json away"
            )
    how: dict[str, Any] = {"search": search, "scheduler": scheduler, "trials": trials}
    how |= {"metric": metric}
    how |= {"mode": mode, "part": part, "together": together, "seed": seed, "weights_from": from_}
    source = sources[0] if sources else None
    if dry_run:
        _print_outline(verbs.outline(source, settings, **how), as_json)
        return
    try:
        # What a reward function prints is no result of ours.
        with contextlib.redirect_stdout(sys.stderr):
            if resume is not None:
                made = verbs.sweep(resume=resume, address=address, plain=plain, quiet=quiet)
            else:
                made = verbs.sweep(
                    source,
                    settings,
                    **how,
                    out=out,
                    address=address,
                    plain=plain,
                    quiet=quiet,
                )
    except verbs.SweepStopped as stop:
        say(f"hotlap: {stop}")
        print_sweep(stop.sweep.results(), as_json)
        raise typer.Exit(stop.exit_code) from None
    facts = made.results()
    print_sweep(facts, as_json)
    if not as_json:
        for file in sorted(made.path.glob("*.png")):
            show(f"plot: {made.at(file.name)}")
    raise typer.Exit(1 if any(row["state"] == "failed" for row in facts["trials"]) else 0)


def _print_outline(planned: object, as_json: bool) -> None:
    """Print the trials of a grid, or what others are drawn from."""
    from hotlap.distributed.axes import combinations
    from hotlap.distributed.sweep import Outline

    assert isinstance(planned, Outline)
    search = planned.search
    grid = list(combinations(search.axes)) if search.search == "grid" else []
    facts = {
        "search": search.search,
        "scheduler": search.scheduler,
        "metric": search.metric,
        "mode": search.mode,
        "trials": grid or search.trials,
        "fixed": dict(planned.fixed),
    }
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    for note in planned.notes:
        say(note)
    for number, values in enumerate(grid):
        show(f"trial{number}  " + " ".join(f"{name}={value}" for name, value in values.items()))
