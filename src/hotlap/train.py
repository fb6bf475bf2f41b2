"""The verb `train`: one training from its plan to its outcome, or several side by side."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, overload

from hotlap.config import read_toml, resolve, to_toml
from hotlap.crew import Driver
from hotlap.errors import ConfigError, HotlapError, MissingExtraError, RunError
from hotlap.files import explained
from hotlap.files import replace as replace_file
from hotlap.fleet import train_fleet
from hotlap.inputs import fingerprints
from hotlap.kernels import compile_for
from hotlap.opponents import SELF, saved_rivals
from hotlap.outcome import write_outcome
from hotlap.plan import (
    Plan,
    TrainConfig,
    anchored,
    changeable,
    changes,
    check_reward,
    continued,
    noticed,
    read_config,
    refuse_changes,
)
from hotlap.population import Population, read_seeds
from hotlap.progress import Progress
from hotlap.runs import Run, default_directory
from hotlap.runs.storage import Storage, url_of
from hotlap.threads import available
from hotlap.training import Training, has_reached

__all__ = ["Stopped", "train"]


class Stopped(KeyboardInterrupt):
    """The user ended a training with Ctrl-C, or the system with SIGTERM; the Run can go on."""

    def __init__(self, run: Run | Population, number: int, said: str) -> None:
        super().__init__(said)
        self.run = run
        self.exit_code = 128 + number


@overload
def train(
    source: str | Path | TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    seeds: None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights_from: str | Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    plain: bool = False,
    quiet: bool = True,
    began: float | None = None,
) -> Run: ...


@overload
def train(
    source: str | Path | TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    seeds: int | str | Sequence[int],
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights_from: str | Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    plain: bool = False,
    quiet: bool = True,
    began: float | None = None,
) -> Population: ...


def train(
    source: str | Path | TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    seeds: int | str | Sequence[int] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights_from: str | Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    plain: bool = False,
    quiet: bool = True,
    began: float | None = None,
) -> Run | Population:
    """Train a driver, or with `seeds` one for each of them, side by side.

    Args:
        source: TOML file, DeepRacer folder or TrainConfig; None for the quick start.
        overrides: settings by dotted name, such as {"train.steps": 200_000}.
        seeds: how many seeds from `seed` on, or which; or "all", to continue a population. Each
            counts its own time, from the start of its own process.
        out: directory of the new Run; the next free one under runs/ if None.
        resume: a Run, or with seeds="all" a population, to continue exactly; only the budget may be
            changed with it.
        weights_from: a Run whose driver the new one starts from; a DeepRacer folder may name one.
        checkpoint: which driver of that Run.
        plain: print plain lines in place of the live display.
        quiet: print nothing.
        began: when `train.seconds` begins to count, by time.perf_counter(); now if None.

    Returns:
        The Run, with its report, plots and film written; or the population of Runs. What ended a
        seed that failed is in its `failures`; if all fail, that is raised.

    Raises:
        HotlapError: a setting, a file or the run itself is wrong; the message says what to do.
        Stopped: by Ctrl-C, in the main thread; the Run holds a checkpoint to continue from.
    """
    if seeds is not None:
        teacher = None if weights_from is None else (str(weights_from), checkpoint)
        return _train_seeds(source, overrides or {}, seeds, out, resume, teacher, plain, quiet)
    began = time.perf_counter() if began is None else began
    if resume is None:
        if source is None and weights_from is not None:  # what its driver was trained for
            source = Run.open(weights_from).path / "config.toml"
        plan = read_config(source, overrides)
        plan = replace(plan, config=anchored(plan.config))
        if weights_from is None:
            weights_from, checkpoint = plan.weights_from, plan.checkpoint
        elif plan.weights_from is not None:
            plan = _overruled(plan, weights_from)
        where = _place(out, plan)
    elif source is None and out is None and weights_from is None:
        old = Run.open(resume)
        plan = noticed(old, continued(old, overrides or {}))
        where = old.place
    else:
        raise ConfigError(
            "--resume continues a run as it is and where it is: leave file, folder, --out and "
            "--from away"
        )
    config, rivals = plan.config, dict[str, Driver]()
    if resume is not None and any(name != SELF for name in config.opponents.drivers):
        rivals = saved_rivals(config.opponents, old.read_state("last")[1])
    notes = [*plan.notes, *check_reward(config, rivals)]
    budget = (config.train.seconds, config.train.steps)
    endless = not any((*budget, config.train.episodes))
    if endless and getattr(config.algorithm, "schedule", "") == "linear":
        notes.append(
            "algorithm.schedule=linear falls over a budget, and there is none: the step size "
            "stays. Give train.seconds, train.steps or train.episodes"
        )
    progress = Progress(*budget, plain=plain, quiet=quiet, title=Path(where).name)
    practice = None
    if config.distributed.workers:
        if find_spec("ray") is None:
            raise MissingExtraError("hotlap train --workers", "ray", "distributed")
        from hotlap.distributed.team import Team

        practice = Team(config, rivals, progress.event)
    training = Training(config, began, progress, rivals, practice)
    with closing(training.practice):
        for note in notes:
            progress.event(note)
        if resume is not None:
            run = old
        else:
            training.take_teacher()
            if weights_from is not None:
                transfer = training.take_weights(Run.open(weights_from), checkpoint, by_name=plain)
            inputs = fingerprints(config)
            meta = {"seed": config.seed, "device": training.practice.device, "inputs": inputs}
            run = Run.create(where, to_toml(config), meta)
        run.listener = progress.event
        with run:
            if resume is not None:
                training.restore(run)
            elif weights_from is not None:
                facts = {"run": url_of(weights_from), "checkpoint": checkpoint}
                run.log_event("weights_from", **facts, **transfer.as_dict())
            advice = ""
            try:
                training.loop(run)
                if training.stopped_by:
                    raise KeyboardInterrupt
                advice = f"The training is complete: hotlap film {run.place} writes film and plots"
                progress.event("the best driver laps for the report, the plots and the film")
                write_outcome(run)
                run.sync_tensorboard()
            except KeyboardInterrupt:
                said = f"stopped after {training.steps:,} steps. {advice or _how_to_go_on(run)}"
                raise Stopped(run, training.stopped_by or signal.SIGINT, said) from None
            except Exception as error:
                if isinstance(error, HotlapError):
                    error.exit_code = 1  # whatever is wrong, it was not the command line
                error.add_note(advice or _how_to_go_on(run))
                raise
        return run


def _train_seeds(
    source: str | Path | TrainConfig | None,
    overrides: Mapping[str, Any],
    seeds: int | str | Sequence[int],
    out: str | Path | None,
    resume: str | Path | None,
    teacher: tuple[str, Literal["best", "last"]] | None,
    plain: bool,
    quiet: bool,
) -> Population:
    """Train a population; see `train`. Each of its seeds is a process of its own."""
    if resume is not None:
        if not (source is None and out is None and teacher is None and seeds == "all"):
            raise ConfigError(
                "--resume continues all seeds as they are and where they are: leave file, folder, "
                '--out, --from and --seeds away (in Python: seeds="all")'
            )
        population = Population.open(resume)
        config, words = _continued_seeds(population, overrides)
        if not words:
            steps, seconds = config.train.steps, config.train.seconds
            more = f"train.seconds={2 * seconds:g}" if seconds else f"train.steps={2 * steps}"
            raise RunError(
                f"{population.address}: all {len(population.seeds)} seeds have spent their budget. "
                f"Give them more, such as hotlap train --resume {population.address} {more}"
            )
    else:
        if source is None and teacher is not None:
            source = Run.open(teacher[0]).path / "config.toml"
        plan = read_config(source, overrides)
        if teacher is None and plan.weights_from is not None:
            teacher = str(plan.weights_from), plan.checkpoint
        elif teacher is not None and plan.weights_from is not None:
            plan = _overruled(plan, teacher[0])
        config = anchored(plan.config)
        chosen = read_seeds(seeds, config.seed)
        config = config.model_copy(update={"seed": chosen[0]})
        budget = config.train
        if not (budget.seconds or budget.steps or budget.episodes) and len(chosen) > available():
            raise ConfigError(
                f"train: without a budget the first {available()} seeds never end, and the others "
                "never begin; set train.seconds or train.steps"
            )
        where = _place(out, plan)
        said = [*plan.notes, *check_reward(config)]
        driver = None if teacher is None else Run.open(teacher[0]).address
        which = "best" if teacher is None else teacher[1]
        population = Population.create(where, to_toml(config), chosen, driver, which)
        words = {seed: _anew(population, seed) for seed in chosen}
        if not quiet:
            for note in said:
                sys.stderr.write(f"{note}\n")
    compile_for(config)  # once, and not in each of them
    limits = (config.train.seconds, config.train.steps)
    done, number = train_fleet(population, words, budget=limits, plain=plain, quiet=quiet)
    if number:
        said_how = f"Continue with: hotlap train --resume {population.address}"
        raise Stopped(done, number, f"stopped. {said_how}")
    if len(done.failures) == len(population.seeds):
        problem = RunError(f"every seed failed. {next(iter(done.failures.values()))}")
        problem.exit_code = 1
        raise problem
    return done


def _anew(population: Population, seed: int) -> list[str]:
    """Return the words that train a seed from its start; what may be there of it is deleted."""
    where = population.place(seed)
    if population.storage is not None:
        place = Storage(population.address_of(seed))
        if place.exists("meta.json"):
            with Run.open(place.url) as run:
                run.claim()
        place.delete()
    elif where.exists():  # it was killed before its first checkpoint
        if (where / "meta.json").exists():
            with Run.open(where) as run:
                run.claim()
        with explained(where):
            shutil.rmtree(where)
    words = ["train", str(population.path / "config.toml"), "--seed", str(seed), "--quiet"]
    words += ["--out", population.address_of(seed)]
    if population.weights_from:
        words += ["--from", population.weights_from, "--checkpoint", population.checkpoint]
    return words


def _place(out: str | Path | None, plan: Plan) -> str:
    """Return the directory of a new Run or population: as asked, by its model's name, or free."""
    if out:
        return url_of(out)
    if not plan.name:
        config = plan.config
        return str(default_directory(config.tracks()[0].name, config.algorithm.kind))
    place, number = Path("runs") / plan.name, 1
    while place.exists():
        number += 1
        place = Path("runs") / f"{plan.name}-{number}"
    return str(place)


def _overruled(plan: Plan, given: str | Path) -> Plan:
    note = f"--from {given} wins over {plan.weights_from}, which the folder names"
    return replace(plan, notes=(*plan.notes, note))


def _continued_seeds(
    population: Population, overrides: Mapping[str, Any]
) -> tuple[TrainConfig, dict[int, list[str]]]:
    """Return the settings of a population with its budget changed, and the words of who goes on."""
    file = population.path / "config.toml"
    before = resolve(TrainConfig, read_toml(file))
    config = resolve(TrainConfig, read_toml(file), overrides)
    refuse_changes(changes(before, config), population.address)
    if config != before:
        with explained(file):
            replace_file(file, to_toml(config).encode())
        population.send(file)
    runs, words = population.runs(), dict[int, list[str]]()
    for seed in population.seeds:
        if seed not in runs or not runs[seed].checkpoints():
            words[seed] = _anew(population, seed)
            continue
        run = runs[seed]
        own = config.model_copy(update={"seed": seed})
        if _is_spent(run, own) and run.is_reported:
            continue
        # Its step size may be another one by now: see Training.
        changed = changeable(changes(continued(run, {}), own))
        given = [f"{name}={json.dumps(value)}" for name, value in changed.items()]
        words[seed] = ["train", "--resume", run.place, "--quiet", *given]
    return config, words


def _is_spent(run: Run, config: TrainConfig) -> bool:
    (state, arrays), budget = run.read_state("last"), config.train
    if budget.target_reward is not None and has_reached(arrays["recent"], budget.target_reward):
        return True
    return any(
        limit and state.get(name, 0) >= limit
        for name, limit in (
            ("seconds", budget.seconds),
            ("steps", budget.steps),
            ("episodes", budget.episodes),
        )
    )


def _how_to_go_on(run: Run) -> str:
    kept = run.checkpoints()
    if not kept:
        return f"{run.place} has no checkpoint yet: start anew"
    go_on = f"hotlap train --resume {run.place}"
    return f"Continue from its checkpoint of {kept[-1]:,} steps with: {go_on}"
