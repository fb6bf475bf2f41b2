"""Training: collect, update, log, evaluate, checkpoint, until the budget is spent."""

from __future__ import annotations

import difflib
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, overload

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hotlap.algorithms import footprint
from hotlap.algorithms.learner import (
    AlgorithmSettings,
    Learner,
    Phase,
    Phased,
    Remembering,
    Taught,
    make_learner,
)
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.settings import DistillSettings, PPOSettings, check_actions
from hotlap.algorithms.transfer import Transfer
from hotlap.config import Settings, read_toml, resolve, to_toml
from hotlap.crew import Driver
from hotlap.deepracer.folder import read_folder
from hotlap.env import (
    EnvSettings,
    Episodes,
    ObservationSettings,
    VectorEnv,
    driver_task,
    is_discrete,
)
from hotlap.errors import ConfigError, DivergedError, HotlapError, MissingExtraError, RunError
from hotlap.evaluate import env_settings
from hotlap.files import explained, replace
from hotlap.fleet import train_fleet
from hotlap.inputs import changed_inputs, fingerprints
from hotlap.kernels import is_warm, parts_of, warm
from hotlap.opponents import SELF, saved_rivals
from hotlap.outcome import write_outcome
from hotlap.population import Population, read_seeds
from hotlap.progress import Progress
from hotlap.runner import Runner, action_spec, observation_specs
from hotlap.runs import Run, default_directory
from hotlap.tasks.actions import MetadataActions
from hotlap.tasks.rewards import FileReward, FunctionReward
from hotlap.threads import available
from hotlap.track import whole_names
from hotlap.trials import EvaluationSettings, Trial, Trials
from hotlap.types import Array

__all__ = [
    "Stopped",
    "TrainConfig",
    "TrainSettings",
    "read_config",
    "train",
]

_RECENT = 100
"""The metrics speak of so many episodes, the last that ended."""
_RESCUES = 3
"""Times that a training goes back to its last checkpoint because its gradients were no numbers."""
_CHANGEABLE = tuple(
    f"train.{name}"
    for name in ("seconds", "steps", "episodes", "checkpoint_seconds", "keep", "device")
)
"""Settings that leave a continued training what it is."""


class TrainSettings(Settings):
    """How long to train, and on how many cars."""

    cars: PositiveInt = 128
    """Cars that drive at once."""
    seconds: NonNegativeFloat = 60.0
    """Wall-clock budget [s]; on the command line counted from the start of the process; 0: no
    limit."""
    steps: NonNegativeInt = 0
    """Budget in control steps over all cars; 0: no limit."""
    episodes: NonNegativeInt = 0
    """Budget in episodes over all cars; 0: no limit. Whichever limit comes first ends it."""
    checkpoint_seconds: PositiveFloat = 20.0
    """Time between two checkpoints, besides those of better drivers."""
    keep: PositiveInt = 3
    """How many of the newest checkpoints stay; the best one stays besides."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to learn; auto: on a GPU where there is one."""


class TrainConfig(EnvSettings):
    """Everything that a training is."""

    seed: NonNegativeInt = 0
    """Of all random draws."""
    algorithm: AlgorithmSettings = PPOSettings()
    """How to learn."""
    train: TrainSettings = TrainSettings()
    """How long to train."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How to try the driver."""


@dataclass(frozen=True)
class Plan:
    """A configuration, and what is to be said about where it came from."""

    config: TrainConfig
    notes: tuple[str, ...] = ()


class Stopped(KeyboardInterrupt):
    """The user ended a training with Ctrl-C, or the system with SIGTERM; the Run can go on."""

    def __init__(self, run: Run | Population, number: int, said: str) -> None:
        super().__init__(said)
        self.run = run
        self.exit_code = 128 + number


def read_config(
    source: str | Path | TrainConfig | None, overrides: Mapping[str, Any] | None = None
) -> Plan:
    """Read a configuration: a TOML file, a DeepRacer folder, or nothing for the quick start.

    Raises:
        ConfigError: the file or a setting is wrong; every mistake in a sentence of its own.
    """
    plan = _read(source, overrides)
    check_actions(plan.config.algorithm, discrete=is_discrete(plan.config))
    return plan


def _read(source: str | Path | TrainConfig | None, overrides: Mapping[str, Any] | None) -> Plan:
    if source is None:
        return Plan(resolve(TrainConfig, overrides or {}))
    if isinstance(source, TrainConfig):
        given = source.model_dump(mode="json", exclude_none=True)
        return Plan(resolve(TrainConfig, given, overrides or {}))
    path = Path(source)
    if path.suffix == ".npy":
        raise ConfigError(f"{path} is a track: hotlap train --track {path}")
    if not path.exists():
        here = [*Path().glob("*.toml"), *Path().glob("*/*.toml")]
        here += [file.parent for file in Path().glob("*/*/reward_function.py")]
        near = difflib.get_close_matches(str(path), map(str, here), n=1)
        raise ConfigError(
            f"{path}: no such file or folder{f'; did you mean {near[0]}?' if near else '.'} "
            "Settings are written section.field=value; shipped configurations are in configs/."
        )
    if path.is_dir():
        if (path / "meta.json").exists():
            raise ConfigError(
                f"{path} is a Run. To continue it: hotlap train --resume {path}; "
                f"to start anew from its driver: hotlap train --from {path}"
            )
        plan = read_folder(path, track=(overrides or {}).get("track"))
        return Plan(resolve(TrainConfig, plan.settings, overrides or {}), tuple(plan.notes))
    return Plan(resolve(TrainConfig, read_toml(path), overrides or {}))


@overload
def train(
    source: str | Path | TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    seeds: None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights_from: str | Path | None = None,
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
        weights_from: a Run whose driver the new one starts from.
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
        return _train_seeds(source, overrides or {}, seeds, out, resume, weights_from, plain, quiet)
    began = time.perf_counter() if began is None else began
    if resume is None:
        if source is None and weights_from is not None:  # what its driver was trained for
            source = Run.open(weights_from).path / "config.toml"
        plan = read_config(source, overrides)
        plan = Plan(_anchored(plan.config), plan.notes)
        name = plan.config.tracks()[0].name
        where = Path(out) if out else default_directory(name, plan.config.algorithm.kind)
    elif source is None and out is None and weights_from is None:
        old = Run.open(resume)
        plan = _noticed(old, _continued(old, overrides or {}))
        where = old.path
    else:
        raise ConfigError(
            "--resume continues a run as it is and where it is: leave file, folder, --out and "
            "--from away"
        )
    config, rivals = plan.config, dict[str, Driver]()
    if resume is not None and any(name != SELF for name in config.opponents.drivers):
        rivals = saved_rivals(config.opponents, Run.open(where).read_state("last")[1])
    notes = (*plan.notes, *_check_reward(config, rivals))
    budget = (config.train.seconds, config.train.steps)
    progress = Progress(*budget, plain=plain, quiet=quiet, title=where.name)
    training = _Training(config, began, progress, rivals)
    for note in notes:
        progress.event(note)
    if resume is not None:
        run = Run.open(where)
    else:
        training.take_teacher()
        if weights_from is not None:
            transfer = training.take_weights(Run.open(weights_from), by_name=plain)
        inputs = fingerprints(config)
        meta = {"seed": config.seed, "device": training.device, "inputs": inputs}
        run = Run.create(where, to_toml(config), meta)
    with run:
        if resume is not None:
            training.restore(run)
        elif weights_from is not None:
            run.log_event("weights_from", run=str(weights_from), **transfer.as_dict())
        advice = ""
        try:
            training.loop(run)
            if training.stopped_by:
                raise KeyboardInterrupt
            advice = f"The training is complete: hotlap film {run.path} writes film and plots"
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
    weights_from: str | Path | None,
    plain: bool,
    quiet: bool,
) -> Population:
    """Train a population; see `train`. Each of its seeds is a process of its own."""
    if resume is not None:
        if not (source is None and out is None and weights_from is None and seeds == "all"):
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
                f"{population.path}: all {len(population.seeds)} seeds have spent their budget. "
                f"Give them more, such as hotlap train --resume {population.path} {more}"
            )
    else:
        if source is None and weights_from is not None:
            source = Run.open(weights_from).path / "config.toml"
        plan = read_config(source, overrides)
        config = _anchored(plan.config)
        chosen = read_seeds(seeds, config.seed)
        config = config.model_copy(update={"seed": chosen[0]})
        budget = config.train
        if not (budget.seconds or budget.steps or budget.episodes) and len(chosen) > available():
            raise ConfigError(
                f"train: without a budget the first {available()} seeds never end, and the others "
                "never begin; set train.seconds or train.steps"
            )
        name = config.tracks()[0].name
        where = Path(out) if out else default_directory(name, config.algorithm.kind)
        said = [*plan.notes, *_check_reward(config)]
        teacher = None if weights_from is None else str(Run.open(weights_from).path.resolve())
        population = Population.create(where, to_toml(config), chosen, teacher)
        words = {seed: _anew(population, seed) for seed in chosen}
        if not quiet:
            for note in said:
                sys.stderr.write(f"{note}\n")
    parts = parts_of(config)
    if not is_warm(parts):
        warm(parts)  # once, and not in each of them
    limits = (config.train.seconds, config.train.steps)
    done, number = train_fleet(population, words, budget=limits, plain=plain, quiet=quiet)
    if number:
        said_how = f"Continue with: hotlap train --resume {population.path}"
        raise Stopped(done, number, f"stopped. {said_how}")
    if len(done.failures) == len(words):
        problem = RunError(f"every seed failed. {next(iter(done.failures.values()))}")
        problem.exit_code = 1
        raise problem
    return done


def _anew(population: Population, seed: int) -> list[str]:
    """Return the words that train a seed from its start; what may be there of it is deleted."""
    where = population.place(seed)
    if where.exists():  # it was killed before its first checkpoint
        with Run.open(where) as run:
            run.claim()
        with explained(where):
            shutil.rmtree(where)
    words = ["train", str(population.path / "config.toml"), "--seed", str(seed), "--quiet"]
    words += ["--out", str(where)]
    return [*words, "--from", population.weights_from] if population.weights_from else words


def _continued_seeds(
    population: Population, overrides: Mapping[str, Any]
) -> tuple[TrainConfig, dict[int, list[str]]]:
    """Return the settings of a population with its budget changed, and the words of who goes on."""
    file = population.path / "config.toml"
    before = resolve(TrainConfig, read_toml(file))
    config = resolve(TrainConfig, read_toml(file), overrides)
    _refuse_changes(_changes(before, config), population.path)
    if config != before:
        with explained(file):
            replace(file, to_toml(config).encode())
    runs, words = population.runs(), dict[int, list[str]]()
    for seed in population.seeds:
        if seed not in runs or not runs[seed].checkpoints():
            words[seed] = _anew(population, seed)
            continue
        run = runs[seed]
        own = config.model_copy(update={"seed": seed})
        changed = _changes(resolve(TrainConfig, read_toml(run.path / "config.toml")), own)
        if _is_spent(run, own) and run.is_reported:
            continue
        given = [f"{name}={json.dumps(value)}" for name, value in changed.items()]
        words[seed] = ["train", "--resume", str(run.path), "--quiet", *given]
    return config, words


def _is_spent(run: Run, config: TrainConfig) -> bool:
    state, budget = run.read_state("last")[0], config.train
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
        return f"{run.path} has no checkpoint yet: start anew"
    return (
        f"Continue from its checkpoint of {kept[-1]:,} steps with: hotlap train --resume {run.path}"
    )


def _continued(run: Run, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run with what was changed when it was resumed or rolled back.

    Only its budget may be changed now.
    """
    first = read_toml(run.path / "config.toml")
    kinds = ("resumed", "rolled_back")
    before = [event.get("settings", {}) for event in run.events() if event["kind"] in kinds]
    config = resolve(TrainConfig, first, *before, overrides)
    _refuse_changes(_changes(resolve(TrainConfig, first, *before), config), run.path)
    return config


def _refuse_changes(changed: Mapping[str, Any], path: Path) -> None:
    wrong = [name for name in changed if name not in _CHANGEABLE]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: --resume continues exactly, so that only "
            f"{', '.join(_CHANGEABLE)} may be changed. "
            f"To train on with other settings: hotlap train --from {path}"
        )


def _noticed(run: Run, config: TrainConfig) -> Plan:
    """Refuse what has changed since a run began; a reward file may have been mended."""
    changed = changed_inputs(run, config)
    wrong = [name for name in changed if not name.startswith("reward ")]
    if wrong:
        raise RunError(
            f"{', '.join(wrong)}: changed since {run.path} began, so that it cannot continue "
            f"exactly. Put back what was there, or train on with: hotlap train --from {run.path}"
        )
    return Plan(config, tuple(f"{name}: changed since {run.path} began" for name in changed))


def _changes(old: Settings, new: Settings, above: str = "") -> dict[str, Any]:
    """Return the settings by dotted name in which `new` differs from `old`."""
    found: dict[str, Any] = {}
    for name, value in new:
        was = getattr(old, name, None)
        if isinstance(value, Settings) and isinstance(was, type(value)):
            found |= _changes(was, value, f"{above}{name}.")
        elif value != was:
            found[above + name] = value
    return found


def _anchored(config: TrainConfig) -> TrainConfig:
    """Name files by their whole path, so that the Run can be used from any folder."""

    def whole(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).is_file() else name

    changed: dict[str, Any] = {"track": whole_names(config.track)}
    if config.vehicle.endswith(".toml"):
        changed["vehicle"] = whole(config.vehicle)
    if isinstance(config.reward, FileReward):
        changed["reward"] = config.reward.model_copy(update={"path": whole(config.reward.path)})
    elif isinstance(config.reward, FunctionReward):
        place, _, name = config.reward.function.rpartition(":")
        function = f"{whole(place)}:{name}"
        changed["reward"] = config.reward.model_copy(update={"function": function})
    rivals = [name if name == SELF else str(Run.open(name).path.resolve())
              for name in config.opponents.drivers]  # fmt: skip
    changed["opponents"] = config.opponents.model_copy(update={"drivers": tuple(rivals)})
    if isinstance(config.actions, MetadataActions):
        changed["actions"] = config.actions.model_copy(update={"path": whole(config.actions.path)})
    if isinstance(config.algorithm, DistillSettings) and config.algorithm.teacher:
        teacher = str(Run.open(config.algorithm.teacher).path.resolve())
        changed["algorithm"] = config.algorithm.model_copy(update={"teacher": teacher})
    return config.model_copy(update=changed)


def _check_reward(config: TrainConfig, drivers: Mapping[str, Driver] | None = None) -> list[str]:
    if isinstance(config.reward, FunctionReward):
        # One step of two cars or more that see the state: a mistake shows before work starts.
        rows = max(2, config.traffic.cars)
        seen = config.model_copy(update={"observation": ObservationSettings()})
        env = VectorEnv(seen, rows, rivals=drivers)
        env.begin()
        still = np.zeros(rows, int) if env.actions.discrete else np.zeros((rows, env.actions.size))
        env.advance(still)
        return [f"reward: {config.reward.function} is executed"]
    if not isinstance(config.reward, FileReward):
        return []
    from hotlap.deepracer.reward_file import RewardFile

    others, rivals = config.traffic.bots + config.traffic.cars - 1, config.opponents
    counts = [others + rivals.cars] if rivals.drivers and rivals.share else [others]
    if rivals.drivers and (0 < rivals.share < 1 or SELF in rivals.drivers):
        counts.append(others)  # with empty places, as at the start before there are past versions
    file, track, notes = RewardFile(config.reward.path), config.tracks()[0], dict[str, None]()
    for count in counts:
        found = file.check(track, obstacles=config.traffic.obstacles, cars=count)
        notes |= dict.fromkeys(found)
    return [f"reward: {config.reward.path} is executed, and passed its check", *notes]


class _Training:
    """One training in progress. Its owner is `train`."""

    run: Run

    def __init__(
        self,
        config: TrainConfig,
        began: float,
        progress: Progress,
        rivals: Mapping[str, Driver] | None = None,
    ) -> None:
        self.config = config
        self.began = began
        self.progress = progress
        self.device = _device(config.train.device)
        try:
            self.env = VectorEnv(
                config, config.train.cars, seed=config.seed, desynchronize=True, rivals=rivals
            )
        except MemoryError:
            raise ConfigError(
                f"train.cars: {config.train.cars:,} cars do not fit into the memory of this "
                "machine; let fewer drive at once"
            ) from None
        self.learner = self._make_learner()
        self.runner = Runner(self.env, seed=config.seed)
        self.trials = Trials(config, config.evaluation)
        self.iteration = self.steps = self.episodes = 0
        self.segments: list[int] = []
        self.written = 0
        self.recent = np.empty((0, 4), np.float32)
        self.best_lap: float | None = None
        self.stopped_by = 0

    def _make_learner(self) -> Learner:
        config, observation = self.config, observation_specs(self.env)
        names = (*config.observation.actor, *config.observation.critic)
        footprint.check(config.algorithm, observation, names, config.train.cars)
        return make_learner(
            config.algorithm,
            observation,
            action_spec(self.env),
            config.observation.actor,
            config.observation.critic,
            seed=config.seed,
            device=self.device,
        )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, over all sessions of the run."""
        return time.perf_counter() - self.began

    def spent(self) -> dict[str, tuple[float, float]]:
        """Return what is spent and what there is, of each part of the budget that has a limit."""
        budget = self.config.train
        parts = {
            "train.seconds": (self.seconds, budget.seconds),
            "train.steps": (self.steps, budget.steps),
            "train.episodes": (self.episodes, budget.episodes),
        }
        return {name: (spent, limit) for name, (spent, limit) in parts.items() if limit}

    @property
    def share(self) -> float:
        """Share of the budget that is spent; whichever limit comes first."""
        return max((spent / limit for spent, limit in self.spent().values()), default=0.0)

    def phase(self) -> Phase:
        """Return what the learner wants to be collected next."""
        if isinstance(self.learner, Phased):
            return self.learner.phase
        return Phase("", self.config.algorithm.horizon, self.env.names)

    def loop(self, run: Run) -> None:
        """Train until the budget is spent or somebody asks to stop."""
        self.run = run
        config = self.config
        last_checkpoint = -math.inf
        with self.progress, _stop_on_signal(self):
            while (self.share < 1 or not self.iteration) and not self.stopped_by:
                start = time.perf_counter()
                self._admit_itself()
                phase = self.phase()
                self.env.margin = phase.margin
                batch, episodes = self.runner.collect(self.learner, phase.steps, phase.names)
                collected = time.perf_counter()
                try:
                    metrics = self.learner.update(batch, progress=min(1.0, self.share))
                except DivergedError as error:
                    self._roll_back(error)
                    continue
                learnt = time.perf_counter()
                self.iteration += 1
                self.steps += batch.reward.size
                self._count(episodes)

                trial = None
                lapped = self.best_lap is not None
                if self.phase().ready and self.trials.due(self.iteration, learnt, lapped=lapped):
                    trial = self._try()
                    self.trials.took(time.perf_counter() - learnt, time.perf_counter())
                tried = time.perf_counter()
                times: dict[str, float | str] = {
                    "steps_per_second": round(batch.reward.size / (learnt - start), 1),
                    "time/collect": round(collected - start, 6),
                    "time/learn": round(learnt - collected, 6),
                    "time/evaluate": round(tried - learnt, 6),
                }
                if phase.name:
                    times["phase"] = phase.name
                if config.randomize.success:
                    times["breadth"] = round(self.env.breadth, 4)
                self._log({**metrics, **times}, trial)
                better = trial is not None and trial.best
                if better or tried - last_checkpoint >= config.train.checkpoint_seconds:
                    self._checkpoint(best=better)
                    last_checkpoint = time.perf_counter()
            self._checkpoint(best=not self.stopped_by and self._try().best)

    def _admit_itself(self) -> None:
        """Let the present driver join the opponents, where its time has come."""
        opponents = self.env.opponents
        if opponents is not None and opponents.due(self.steps):
            task, name = driver_task(self.config), f"{SELF}@{self.steps}"
            opponents.admit(Driver(name, task, *self.learner.policy_state()), self.steps)
            names = [driver.name for driver in opponents.versions]
            self.run.log_event("opponent", steps=self.steps, versions=names)

    def _count(self, episodes: Episodes) -> None:
        """Remember the episodes that ended: reward, completion, seconds, fastest lap."""
        self.episodes += len(episodes.rows)
        completion = np.minimum(episodes.completion, 1)
        seconds = episodes.steps * self.env.dt
        fresh = np.stack([episodes.reward, completion, seconds, episodes.lap_time], axis=1)
        self.recent = np.concatenate([self.recent, fresh])[-_RECENT:].astype(np.float32)
        best = min([self.env.lap_best, *episodes.lap_time.tolist(), self.best_lap or math.inf])
        self.best_lap = best if math.isfinite(best) else None

    def _log(self, metrics: Mapping[str, float | str], trial: Trial | None) -> None:
        reward, completion, seconds, lap = self.recent.T
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "episodes": self.episodes,
            "reward": _mean(reward),
            "completion": _mean(completion),
            "episode_seconds": _mean(seconds),
            "lap_time": _mean(lap[np.isfinite(lap)]),
            "best_lap": self.best_lap,
            **metrics,
        }
        if trial is not None:
            row["evaluation/completion"] = trial.report.completion
            row["evaluation/lap_time"] = trial.report.mean_lap_s
            row["evaluation/best_lap"] = trial.report.best_lap_s
        self.run.log_metrics(row)
        self.progress.update(row)

    def _try(self) -> Trial:
        """Evaluate the present driver, and say what is new about it."""
        begin = self.learner.begin if isinstance(self.learner, Remembering) else None
        trial = self.trials.run(self.learner.greedy, self.steps, begin)
        report = trial.report
        if trial.first_clean:
            self.run.log_event(
                "clean_laps",
                seconds=round(self.seconds, 3),
                steps=self.steps,
                laps=report.laps_per_trial,
                mean_lap_s=report.mean_lap_s,
            )
            laps = "clean laps in a row" if report.laps_per_trial > 1 else "clean lap"
            self.progress.event(
                f"{report.laps_per_trial} {laps} from every start after "
                f"{self.seconds:.1f} s, {self.steps:,} steps"
            )
        if trial.best and report.best_lap_s and report.completion == 1:
            self.progress.event(
                f"best driver so far: mean lap {report.mean_lap_s:.2f} s, "
                f"best {report.best_lap_s:.2f} s, at {self.steps:,} steps"
            )
        again = {} if trial.again is None else {"again": trial.again.completion}
        facts = report.as_dict() | again
        self.run.log_event("evaluation", steps=self.steps, best=trial.best, **facts)
        return trial

    def _checkpoint(self, *, best: bool) -> None:
        meta, arrays = self.learner.save()
        state = {
            "iteration": self.iteration,
            "steps": self.steps,
            "episodes": self.episodes,
            "seconds": self.seconds,
            "best_lap": self.best_lap,
            **self.trials.save(),
            "learner": meta,
        }
        packed = {f"learner.{k}": v for k, v in arrays.items()}
        packed |= {f"runner.{k}": v for k, v in self.runner.save().items()}
        packed["recent"] = self.recent
        if self.learner.replay is not None:
            state["replay"], arrays = self._write_replay(self.learner.replay)
            packed |= {f"replay.{k}": v for k, v in arrays.items()}
        self.run.write_checkpoint(
            self.steps,
            policy=self.learner.policy_state(),
            state=(state, packed),
            best=best,
            keep=self.config.train.keep,
            segments=self.segments,
        )
        self.run.sync_tensorboard()

    def _write_replay(self, replay: Replay) -> tuple[dict[str, Any], dict[str, Array]]:
        """Write what the replay took in since the last time; return what else it consists of."""
        first = max(self.written, replay.oldest)
        if replay.head > first:
            self.run.write_segment(first, replay.segment(first))
            self.segments.append(first)
            self.written = replay.head
        ends = [*self.segments[1:], self.written]
        pairs = zip(self.segments, ends, strict=True)
        self.segments = [first for first, end in pairs if end > replay.oldest]
        return replay.save()

    def _roll_back(self, error: DivergedError) -> None:
        """Go back to the last checkpoint with half the step size; give up after three times.

        The time that was lost stays spent.
        """
        tried = sum(event["kind"] == "rolled_back" for event in self.run.events())
        if tried >= _RESCUES or not self.run.checkpoints():
            raise error
        halved = {f"algorithm.{k}": v / 2 for k, v in _rates(self.config.algorithm).items()}
        self.config = resolve(
            TrainConfig, self.config.model_dump(mode="json", exclude_none=True), halved
        )
        self.learner, lost = self._make_learner(), self.steps
        self._return_to_checkpoint(self.run)
        self.run.log_event("rolled_back", steps=self.steps, settings=halved, reason=str(error))
        reason = str(error).partition(";")[0]
        rates = ", ".join(f"{name}={rate:g}" for name, rate in halved.items())
        self.progress.event(
            f"{reason}. Back to the checkpoint of {self.steps:,} steps (from {lost:,}), with half "
            f"the step size: {rates}"
        )

    def restore(self, run: Run) -> None:
        """Continue from a run's last checkpoint, as its writer."""
        run.claim()
        self.began = time.perf_counter() - self._return_to_checkpoint(run)
        for name, (spent, limit) in self.spent().items():
            if spent >= limit and run.is_reported:
                raise RunError(
                    f"{run.path} has spent its budget of {name}={limit:g}. Give it more, such as "
                    f"hotlap train --resume {run.path} {name}={2 * limit:g}"
                )
        first = resolve(TrainConfig, read_toml(run.path / "config.toml"))
        changed = _changes(first, self.config)
        run.log_event("resumed", steps=self.steps, settings=changed)
        self.progress.event(f"resumed at {self.steps:,} steps")

    def _return_to_checkpoint(self, run: Run) -> float:
        """Become what a run's last checkpoint holds; return its seconds of training."""
        state, arrays = run.read_state("last")
        try:
            self.learner.restore(state["learner"], _part(arrays, "learner."))
            self.runner.restore(_part(arrays, "runner."))
            if self.learner.replay is not None:
                self.segments, self.written = state.get("segments", []), state["replay"]["head"]
                pieces = ((first, run.read_segment(first)) for first in self.segments)
                own = _part(arrays, "replay.")
                self.learner.replay.restore(state["replay"], own, pieces)
            self.recent = arrays["recent"]
            self.iteration, self.steps = state["iteration"], state["steps"]
            self.episodes, self.best_lap = state["episodes"], state["best_lap"]
            self.trials.restore(state)
            return float(state["seconds"])
        except KeyError as error:
            raise RunError(
                f"{run.path}: the checkpoint lacks {error}; it was written by another version of "
                f"hotlap. Start anew from its driver with: hotlap train --from {run.path}"
            ) from None

    def take_teacher(self) -> None:
        """Read the driver that teaches, where the settings name a Run."""
        algorithm = self.config.algorithm
        if not isinstance(self.learner, Taught) or not getattr(algorithm, "teacher", ""):
            return
        assert isinstance(algorithm, DistillSettings)
        run = Run.open(algorithm.teacher)
        policy = run.read_policy("best")
        theirs, ours = env_settings(run), self.config
        sensors = NumpyPolicy(*policy).names
        alike = {"actions": (theirs.actions, ours.actions)} | {
            f"observation.{name}": (
                getattr(theirs.observation, name),
                getattr(ours.observation, name),
            )
            for name in sensors
        }
        wrong = [name for name, (its, own) in alike.items() if its != own]
        if wrong:
            raise ConfigError(
                f"algorithm.teacher: {run.path} was trained with another {', '.join(wrong)}; "
                "teacher and student need the same: copy it from the teacher's config.toml"
            )
        self.learner.take_teacher(*policy)
        self.progress.event(f"the driver of {run.path} teaches")

    def take_weights(self, other: Run, *, by_name: bool) -> Transfer:
        """Start from another run's driver, with our own step size and with episodes of our own.

        Args:
            other: the run.
            by_name: whether to say of every layer what became of it; else only of those that begin
                anew.
        """
        state, arrays = other.read_state("best")
        try:
            learner, own = state["learner"], _part(arrays, "learner.")
            found = self.learner.adopt(learner, own, other.read_policy("best"))
        except (RunError, KeyError) as error:
            raise RunError(
                f"--from {other.path}: {error}; keep the observations, actions and network of its "
                f"config.toml, or let it teach: algorithm=distill algorithm.teacher={other.path}"
            ) from None
        self.progress.event(f"starts from the driver of {other.path}: {found.summary}")
        for line in found.table():
            if by_name or "  anew: " in line:
                self.progress.event(f"  {line}")
        random = [name for name in found.frozen if name in found.skipped]
        if random:
            self.progress.event(f"  frozen as they were drawn at random: {', '.join(random)}")
        return found


def _rates(settings: Settings, above: str = "") -> dict[str, float]:
    """Return every step size of a learner by dotted name."""
    found: dict[str, float] = {}
    for name, value in settings:
        if isinstance(value, Settings):
            found |= _rates(value, f"{above}{name}.")
        elif name in ("learning_rate", "critic_learning_rate", "finetune_rate") and value:
            found[above + name] = value
    return found


def _mean(column: Array) -> float | None:
    return float(column.mean(dtype=np.float64)) if len(column) else None


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _device(wanted: str) -> str:
    try:
        import torch
    except ImportError as error:
        if "torch" not in str(error):
            raise
        raise MissingExtraError("hotlap train", "torch", "train") from None

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError(
            "train.device: cuda was asked for, but torch finds no GPU here; choose cpu or auto"
        )
    return "cuda" if there and wanted != "cpu" else "cpu"


@contextmanager
def _stop_on_signal(training: _Training) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the training after its iteration, the second at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if training.stopped_by:
            raise KeyboardInterrupt
        training.stopped_by = number
        with suppress(RuntimeError):  # it may have come in the middle of a line
            training.progress.event("stopping after this update; Ctrl-C again stops at once")

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: its owner decides about Ctrl-C
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
