"""The verb `sweep`: many trainings that differ in some settings, searched by Ray Tune."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from dataclasses import replace as changed
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from hotlap import plot
from hotlap.config import resolve, to_toml
from hotlap.distributed.axes import (
    Axis,
    Choices,
    Range,
    combinations,
    read_axes,
    sizes,
)
from hotlap.distributed.sending import Sender
from hotlap.distributed.sweep_folder import Facts, Search, Sweep, mode_of
from hotlap.distributed.watch import Watch, shown
from hotlap.errors import ConfigError, HotlapError, MissingExtraError, RunError
from hotlap.kernels import compile_for, parts_of
from hotlap.plan import TrainConfig, anchored, check_reward, read_config
from hotlap.progress import Board
from hotlap.runs import Run, default_directory

__all__ = ["Outline", "SweepStopped", "outline", "sweep"]

_TRIALS_MAX = 1000
_CHECKED_MAX = 2000
"""Combinations that are checked before a sweep begins; of more, each value once."""
_TRIALS = 10
"""Combinations that a random search draws if nothing was said."""
_CURVES_MAX = 12
_CHECKPOINTS = 4
"""Of a member of a population in the time between two exchanges."""


class SweepStopped(KeyboardInterrupt):
    """The user ended a sweep with Ctrl-C, or the system with SIGTERM; it can go on."""

    def __init__(self, sweep: Sweep, number: int, said: str) -> None:
        super().__init__(said)
        self.sweep = sweep
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Outline:
    """What a sweep is to be, checked, before anything begins."""

    config: TrainConfig
    """The settings of all; of each axis there is some value in them."""
    fixed: Mapping[str, Any]
    search: Search
    notes: tuple[str, ...]
    weights_from: str | None
    name: str

    @property
    def count(self) -> int:
        """How many trials there will be."""
        return sizes(self.search.axes) if self.search.search == "grid" else self.search.trials


def sweep(
    source: str | Path | TrainConfig | None = None,
    axes: Mapping[str, Any] | Sequence[str] = (),
    *,
    search: str | None = None,
    scheduler: str = "none",
    trials: int | None = None,
    metric: str = "score",
    mode: str | None = None,
    part: float | None = None,
    together: int = 0,
    seed: int = 0,
    weights_from: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str = "",
    plain: bool = False,
    quiet: bool = True,
) -> Sweep:
    """Train with each of several settings, or search among them, and say which was the best.

    Args:
        source: TOML file, DeepRacer folder or TrainConfig; None for the quick start.
        axes: settings by dotted name: a list is an axis, so is text like "1e-4..1e-2:log", anything
            else is fixed; or the words of the command line.
        search: grid (every combination), random or optuna; grid if None, random where an axis is a
            range of numbers between which there are others.
        scheduler: none; asha, which cuts trials that fall behind; pbt, in which those that fall
            behind begin anew with the driver and nearly the settings of one of the best.
        trials: combinations to draw; 10 if None. A grid has them all.
        metric: what trials are compared by; see `Facts` for `score`.
        mode: min or max, whichever is better; None where that is known of the metric.
        part: share of the budget until the first cut (asha) or between exchanges (pbt).
        together: trials at once; 0 for one a core.
        seed: of what the search draws.
        weights_from: a Run whose driver all trials start from.
        out: directory or URL of the new sweep; the next free one under runs/ if None.
        resume: a sweep to go on with, as it is: what failed is tried again too.
        address: of a Ray cluster, or `auto`; a Ray of our own on this machine if empty.
        plain: print plain lines in place of the live table.
        quiet: print nothing.

    Returns:
        The sweep; `results()` says what came of it.

    Raises:
        HotlapError: a setting, a file or the sweep itself is wrong; the message says what to do.
        SweepStopped: by Ctrl-C, in the main thread; it goes on with `resume`.
    """
    if resume is not None:
        if source is not None or axes or out is not None:
            raise ConfigError(
                "--resume goes on with a sweep as it is and where it is: leave file, settings and "
                "--out away"
            )
        return _resume(resume, address=address, plain=plain, quiet=quiet)
    planned = outline(
        source,
        axes,
        search=search,
        scheduler=scheduler,
        trials=trials,
        metric=metric,
        mode=mode,
        part=part,
        together=together,
        seed=seed,
        weights_from=weights_from,
    )
    _need_ray()
    where = out or _place(planned)
    made = Sweep.create(
        where, to_toml(planned.config), planned.search, planned.fixed, planned.weights_from
    )
    if not quiet:
        for note in planned.notes:
            sys.stderr.write(f"{note}\n")
    try:
        return _run(made, planned.count, resume=False, address=address, plain=plain, quiet=quiet)
    except HotlapError:
        if not made.book():  # nothing began: Ray was out of reach, or the like
            if made.storage is not None:
                made.storage.delete()
            shutil.rmtree(made.path, ignore_errors=True)
        raise


def _resume(path: str | Path, *, address: str, plain: bool, quiet: bool) -> Sweep:
    """Go on with a sweep that was stopped or killed, and try again what failed."""
    found = Sweep.open(path, _say)
    if found.made != found.path and not (found.made.exists() and found.made.samefile(found.path)):
        raise RunError(
            f"{found.path} was {found.made} when it was made; put it back there, or make a link"
        )
    found = changed(found, path=found.made)
    if not found.home.is_dir():
        raise RunError(f"{found.home}: names of files are meant from here, and it is gone")
    _need_ray()
    book = found.book()
    count = sizes(found.search.axes) if found.search.search == "grid" else found.search.trials
    states = [said["state"] for said in book.values()]
    if len(states) >= count and set(states) <= {"done", "cut"}:
        raise RunError(
            f"{found.place}: all {count} trials came to their end. For more, start another sweep; "
            "to train one of them on: hotlap train --resume RUN train.seconds=..."
        )
    return _run(found, count, resume=bool(book), address=address, plain=plain, quiet=quiet)


def _run(made: Sweep, count: int, *, resume: bool, address: str, plain: bool, quiet: bool) -> Sweep:
    from hotlap.distributed.tuning import run_sweep

    names = list(dict.fromkeys([*(f"trial{number}" for number in range(count)), *made.book()]))
    limits = made.limits
    board = Board(
        names, limits["seconds"] or None, int(limits["steps"]) or None, plain=plain, quiet=quiet
    )
    watch = Watch(made, board)
    with Sender(made.storage, _say) if made.storage is not None else nullcontext():
        with board:
            number = run_sweep(made, watch, resume=resume, address=address)
        found = made.write_results()
        _draw(made, found)
        if not number:
            _forget_drivers(made)
    if watch.problem:
        raise RunError(f"--metric {watch.problem}. Known here: {_known(made)}")
    if number:
        raise SweepStopped(
            made, number, f"stopped. Continue with: hotlap sweep --resume {made.place}"
        )
    if found["trials"] and all(row["state"] == "failed" for row in found["trials"]):
        row = found["trials"][0]
        said = row["failures"][-1] if row["failures"] else "their processes were lost"
        problem = RunError(f"{made.place}: every trial failed. {row['trial']}: {said}")
        problem.exit_code = 1
        raise problem
    return made


def outline(
    source: str | Path | TrainConfig | None,
    axes: Mapping[str, Any] | Sequence[str],
    *,
    search: str | None = None,
    scheduler: str = "none",
    trials: int | None = None,
    metric: str = "score",
    mode: str | None = None,
    part: float | None = None,
    together: int = 0,
    seed: int = 0,
    weights_from: str | Path | None = None,
) -> Outline:
    """Check all that a sweep was asked for; see `sweep` for the arguments.

    Raises:
        ConfigError: something is wrong; every mistake in a sentence of its own.
    """
    fixed, found = read_axes(axes)
    _choice("--search", search, ("grid", "random", "optuna"))
    _choice("--scheduler", scheduler, ("none", "asha", "pbt"))
    if not found:
        raise ConfigError(
            "nothing to sweep: each setting has one value. Write several with commas between, as "
            "algorithm.learning_rate=1e-3,3e-4, or a range, as algorithm.learning_rate=1e-4..1e-2;"
            " or train the one: hotlap train"
        )
    how = _how(search, scheduler, trials, found)
    if how == "grid":
        found = tuple(axis.spelled() if isinstance(axis, Range) else axis for axis in found)
    count = sizes(found) if how == "grid" else trials or _TRIALS
    if not 1 <= count <= _TRIALS_MAX:
        raise ConfigError(
            f"{count:,} trials: a sweep has {_TRIALS_MAX} at most; take fewer values, or draw some "
            "of the combinations with --search random --trials N"
        )
    if scheduler == "pbt" and count < 2:
        raise ConfigError(f"--scheduler pbt: {count} trial is no population; give it 4 or more")
    if scheduler != "pbt" and part is not None and scheduler != "asha":
        raise ConfigError("--part: is of a scheduler; choose --scheduler asha or pbt, or leave it")
    if part is not None and not 0 < part < 1:
        raise ConfigError(f"--part: a share of the budget, above 0 and below 1 (got {part:g})")
    if together < 0:
        raise ConfigError(f"--together: 1 or more, or 0 for one a core (got {together})")
    config, plan_notes, start, name = _check(source, fixed, found)
    _check_budget(config, scheduler, found)
    if weights_from is not None:
        start = str(Run.open(weights_from).path.resolve())
    part = part or (0.2 if scheduler == "pbt" else 1 / 9)
    said = Search(
        axes=found,
        search=how,
        scheduler=scheduler,  # type: ignore[arg-type]
        trials=count,
        metric=metric,
        mode=mode_of(metric, mode),
        part=part,
        together=together,
        seed=seed,
    )
    config = _ready(config, said)
    notes = (*plan_notes, *_notes(said, found))
    return Outline(config, fixed, said, notes, start, name)


def _choice(option: str, given: str | None, allowed: tuple[str, ...]) -> None:
    if given is not None and given not in allowed:
        raise ConfigError(f"{option}: choose from {', '.join(allowed)} (got {given})")


def _how(
    search: str | None, scheduler: str, trials: int | None, axes: Sequence[Axis]
) -> Literal["grid", "random", "optuna"]:
    """Return how combinations are chosen, where that was not said."""
    if search == "optuna":
        if scheduler == "pbt":
            raise ConfigError(
                "--scheduler pbt changes the settings itself; choose --search random or grid"
            )
        if find_spec("optuna") is None:
            raise MissingExtraError("hotlap sweep --search optuna", "optuna", "distributed")
        return "optuna"
    if search == "grid" and trials is not None:
        raise ConfigError("--trials: a grid tries each combination once; choose --search random")
    between = any(isinstance(axis, Range) and not axis.whole for axis in axes)
    if search == "random" or (search is None and (between or trials is not None)):
        return "random"
    return "grid"


def _check(
    source: str | Path | TrainConfig | None, fixed: Mapping[str, Any], axes: Sequence[Axis]
) -> tuple[TrainConfig, tuple[str, ...], str | None, str]:
    """Resolve the combinations, and say all that is wrong with any of them."""
    some = list(islice(combinations(axes), _CHECKED_MAX))
    if sizes(axes) > _CHECKED_MAX:
        first = {axis.name: axis.valid()[0] for axis in axes}
        some = [first | {axis.name: value} for axis in axes for value in axis.valid()]
    try:
        plan = read_config(source, fixed)
    except ConfigError:  # an axis may bring what is missing
        plan = read_config(source, {**fixed, **some[0]})
    base = anchored(plan.config)
    mistakes, configs = dict[str, None](), dict[str, TrainConfig]()
    checked = set[str]()
    for values in some:
        try:
            config = read_config(base, {**fixed, **values}).config
            courses = f"{config.track} {config.start.direction}"
            if courses not in checked:
                checked.add(courses)
                config.tracks()
            configs.setdefault(config.reward.model_dump_json(), config)
        except HotlapError as mistake:
            mistakes |= dict.fromkeys(str(mistake).splitlines())
    notes = list(plan.notes)
    for config in configs.values():
        try:
            notes += check_reward(config)
        except HotlapError as mistake:
            mistakes |= dict.fromkeys(str(mistake).splitlines())
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    _compile(base, fixed, some)
    start = None if plan.weights_from is None else str(Run.open(plan.weights_from).path.resolve())
    return base, tuple(dict.fromkeys(notes)), start, plan.name


def _compile(
    base: TrainConfig, fixed: Mapping[str, Any], some: Sequence[Mapping[str, Any]]
) -> None:
    """Compile once, and not in each trial, what any of them calls."""
    done = set[str]()
    for values in some:
        config = resolve(
            TrainConfig, base.model_dump(mode="json", exclude_none=True), {**fixed, **values}
        )
        parts = set(parts_of(config))
        if not parts <= done:
            compile_for(config)
            done |= parts


def _check_budget(config: TrainConfig, scheduler: str, axes: Sequence[Axis]) -> None:
    budget = config.train
    if config.distributed.workers or any(axis.name.startswith("distributed.") for axis in axes):
        raise ConfigError(
            "distributed.workers: a trial of a sweep trains in one process; leave it 0, and say "
            "with --together how many trials train at once"
        )
    if not (budget.seconds or budget.steps or budget.episodes):
        raise ConfigError(
            "train: without a budget no trial ever ends; set train.seconds or train.steps"
        )
    shared = [axis.name for axis in axes
              if axis.name in ("train.seconds", "train.steps", "train.episodes")]  # fmt: skip
    if shared and scheduler != "none":
        raise ConfigError(
            f"{shared[0]}: {scheduler} compares trials at the same share of one budget; give it "
            "one value, or leave --scheduler away"
        )


def _ready(config: TrainConfig, search: Search) -> TrainConfig:
    """Have checkpoints written often enough for others to begin with them."""
    if search.scheduler != "pbt" or not config.train.seconds:
        return config
    often = max(1.0, search.part * config.train.seconds / _CHECKPOINTS)
    train = config.train.model_copy(
        update={"checkpoint_seconds": min(config.train.checkpoint_seconds, often)}
    )
    return config.model_copy(update={"train": train})


def _notes(search: Search, axes: Sequence[Axis]) -> list[str]:
    sized = " x ".join(
        f"{len(axis.values)} {axis.name}"
        if isinstance(axis, Choices)
        else f"{axis.name} {axis.low:g} to {axis.high:g}{' (log)' if axis.log else ''}"
        for axis in axes
    )
    together = f"{search.together}" if search.together else "one a core"
    found = [f"{search.trials} trials, {together} at once, {search.search}: {sized}"]
    if search.scheduler == "asha":
        found.append(
            f"asha: one trial in three goes on after {search.part:.0%} of its budget, and after "
            "three and nine times that"
        )
    if search.scheduler == "pbt":
        found.append(
            f"pbt: after every {search.part:.0%} of the budget the worst quarter begins anew with "
            "the drivers of the best"
        )
    if search.search == "grid" and search.trials > 100:
        found.append("that is much: --search random --trials 30 finds as good a setting sooner")
    tracks = next((axis for axis in axes if axis.name == "track"), None)
    if tracks is not None and search.metric in ("score", "mean_lap_s", "best_lap_s", "lap_time"):
        found.append(
            f"{search.metric}: a lap of one track is compared with a lap of another; "
            "completion compares them fairly"
        )
        if search.scheduler != "none":
            found.append(f"{search.scheduler} will prefer the short tracks")
    return found


def _place(planned: Outline) -> Path:
    name = planned.name or Path(planned.config.track.split(",")[0]).stem
    return default_directory(name, "sweep")


def _say(said: str) -> None:
    sys.stderr.write(f"{said}\n")


def _need_ray() -> None:
    if find_spec("ray") is None or find_spec("ray.tune") is None:
        raise MissingExtraError("hotlap sweep", "ray", "distributed")


def _known(made: Sweep) -> str:
    found = set[str]()
    for name in made.book():
        trial = made.trial(name)
        if trial.generations and (made.path / trial.generations[-1].run / "meta.json").is_file():
            found |= set(Facts.of(Run.open(made.path / trial.generations[-1].run)).names())
    return ", ".join(sorted(found)) or "nothing, for no trial trained"


def _draw(made: Sweep, found: Mapping[str, Any]) -> None:
    """Draw how the trials learned, those that differ in their seed alone as one; and the axes."""
    groups: dict[str, list[list[dict[str, Any]]]] = {}
    for row in found["trials"]:  # the best ones come first
        if row["run"] is None:
            continue
        rows = Run.open(made.path / Path(row["run"]).name).metrics_rows()
        if not rows:
            continue
        name = shown({k: v for k, v in row["values"].items() if k != "seed"}) or "all"
        if name in groups or len(groups) < _CURVES_MAX:
            groups.setdefault(name, []).append(rows)
    if not groups:
        return
    named = {
        f"{name} ({len(runs)} seeds)" if len(runs) > 1 else name: runs
        for name, runs in groups.items()
    }
    plot.save(plot.learning_curves(named, title=made.path.name), made.path / "learning.png")
    rows = [row for row in found["trials"] if row["value"] is not None]
    if rows:
        figure = plot.axes_picture(rows, found["axes"], found["metric"], title=made.path.name)
        plot.save(figure, made.path / "axes.png")


def _forget_drivers(made: Sweep) -> None:
    """Delete the kept drivers that nobody began with."""
    needed = {
        one.snapshot for name in made.book() for one in made.trial(name).generations if one.snapshot
    }
    for folder in (made.path / "lineage").glob("*"):
        if f"lineage/{folder.name}" not in needed:
            shutil.rmtree(folder, ignore_errors=True)
