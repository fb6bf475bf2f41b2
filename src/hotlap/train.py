"""Training: collect, update, log, evaluate, checkpoint, until the budget is spent."""

from __future__ import annotations

import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hotlap.algorithms.settings import PPOSettings
from hotlap.config import Settings, read_toml, resolve, to_toml
from hotlap.deepracer.folder import read_folder
from hotlap.env import EnvSettings, Episodes, VectorEnv
from hotlap.errors import ConfigError, MissingExtraError, RunError
from hotlap.evaluate import Report, evaluate, evaluate_policy, evaluation_env
from hotlap.progress import Progress
from hotlap.runner import Runner, action_spec, observation_specs
from hotlap.runs import Run, default_directory
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.tasks.rewards import FileReward, FunctionReward
from hotlap.track import load_track
from hotlap.types import Array

__all__ = [
    "EvaluationSettings",
    "TrainConfig",
    "TrainSettings",
    "read_config",
    "train",
    "write_outcome",
]

AlgorithmSettings: TypeAlias = PPOSettings

_FILM_SECONDS = 40.0
"""Longest film; a standing and a flying lap of most tracks."""


class TrainSettings(Settings):
    """How long to train, and on how many cars."""

    cars: PositiveInt = 128
    """Cars that drive at once."""
    seconds: NonNegativeFloat = 60.0
    """Wall-clock budget [s], counted from the start of the process; 0: no limit."""
    steps: NonNegativeInt = 0
    """Budget in control steps over all cars; 0: no limit."""
    episodes: NonNegativeInt = 0
    """Budget in episodes over all cars; 0: no limit. Whichever limit comes first ends it."""
    checkpoint_seconds: PositiveFloat = 20.0
    """Time between two checkpoints, besides those of better drivers."""
    keep: PositiveInt = 3
    """How many of the newest checkpoints stay; the best one stays besides."""
    device: str = "auto"
    """Where to learn: cpu, cuda, or auto for a GPU where there is one."""


class EvaluationSettings(Settings):
    """How the driver is tried while it learns and when it is done."""

    trials: PositiveInt = 5
    """Starts of an evaluation."""
    laps: PositiveInt = 3
    """Laps of each trial."""
    best_by: Literal["lap_time", "progress", "reward"] = "lap_time"
    """What makes a driver the best: completion, then mean lap time; progress; or reward."""
    share: float = Field(0.1, gt=0, le=1)
    """Share of the time that evaluations during training may take."""
    every: NonNegativeInt = 0
    """Updates between two evaluations; 0: as often as `share` allows."""


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


def read_config(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Read a configuration: a TOML file, a DeepRacer folder, or nothing for the quick start.

    Raises:
        ConfigError: the file or a setting is wrong; every mistake in a sentence of its own.
    """
    if source is None:
        return Plan(resolve(TrainConfig, overrides or {}))
    path = Path(source)
    if path.is_dir():
        if (path / "meta.json").exists():
            raise ConfigError(
                f"{path} is a Run. To continue it: hotlap train --resume {path}; "
                f"to start anew from its driver: hotlap train --from {path}"
            )
        plan = read_folder(path, track=(overrides or {}).get("track"))
        return Plan(resolve(TrainConfig, plan.settings, overrides or {}), tuple(plan.notes))
    return Plan(resolve(TrainConfig, read_toml(path), overrides or {}))


def train(
    source: str | Path | TrainConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights_from: str | Path | None = None,
    plain: bool = False,
    quiet: bool = True,
) -> Run:
    """Train a driver.

    Args:
        source: TOML file, DeepRacer folder or TrainConfig; None for the quick start.
        overrides: settings by dotted name, such as {"train.steps": 200_000}.
        out: directory of the new Run; the next free one under runs/ if None.
        resume: a Run to continue exactly; only the budget may be changed with it.
        weights_from: a Run whose driver the new one starts from.
        plain: print plain lines in place of the live display.
        quiet: print nothing.

    Returns:
        The Run, with its report, plots and film written.

    Raises:
        HotlapError: a setting, a file or the run itself is wrong; the message says what to do.
    """
    if resume is not None:
        run = Run.open(resume)
        run.claim()
        config = resolve(TrainConfig, tomllib.loads(run.config_toml), _budget_only(overrides))
        notes: tuple[str, ...] = ()
    else:
        plan = Plan(source) if isinstance(source, TrainConfig) else read_config(source, overrides)
        config, notes = plan.config, plan.notes
    if isinstance(config.reward, FunctionReward):
        notes = (*notes, f"reward: {config.reward.function} is executed")
    if isinstance(config.reward, FileReward):
        notes = (*notes, *_check_reward(config))
    training = _Training(config, run if resume is not None else None, plain=plain, quiet=quiet)
    for note in notes:
        training.progress.event(note)
    if resume is None:
        where = Path(out) if out else default_directory(config.tracks()[0].name, "ppo")
        meta = {"seed": config.seed, "command": sys.argv, "torch": training.versions()}
        training.run = Run.create(where, to_toml(config), meta)
    with training.run:
        if resume is not None:
            training.restore()
        elif weights_from is not None:
            training.take_weights(Run.open(weights_from))
        training.loop()
        write_outcome(training.run)
        training.run.sync_tensorboard()
    return training.run


def _budget_only(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    changed = dict(overrides or {})
    wrong = [name for name in changed if not name.startswith("train.")]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: --resume continues exactly, so only train.* may be changed. "
            "To train on with other settings: hotlap train --from RUN"
        )
    return changed


def _check_reward(config: TrainConfig) -> list[str]:
    from hotlap.deepracer.reward_file import RewardFile

    assert isinstance(config.reward, FileReward)
    notes = RewardFile(config.reward.path).check(config.tracks()[0])
    return [f"reward: {config.reward.path} is executed, and passed its check", *notes]


class _Training:
    """One training in progress. Its owner is `train`."""

    run: Run

    def __init__(self, config: TrainConfig, run: Run | None, *, plain: bool, quiet: bool) -> None:
        try:
            from hotlap.algorithms.ppo import PPO
        except ImportError as error:
            if "torch" not in str(error):
                raise
            raise MissingExtraError("hotlap train", "torch", "train") from None
        self.config = config
        if run is not None:
            self.run = run
        self.began = time.perf_counter() - _process_age()
        self.env = VectorEnv(config, config.train.cars, seed=config.seed, desynchronize=True)
        observation = config.observation
        self.device = _device(config.train.device)
        self.learner = PPO(
            config.algorithm,
            observation_specs(self.env),
            action_spec(self.env),
            observation.actor,
            observation.critic,
            seed=config.seed,
            device=self.device,
        )
        self.runner = Runner(self.env, seed=config.seed)
        self.trial_env = evaluation_env(
            config,
            trials=config.evaluation.trials,
            laps=config.evaluation.laps,
            rewarded=config.evaluation.best_by == "reward",
        )
        self.iteration = self.steps = self.episodes = 0
        self.seconds_before = 0.0
        self.best: tuple[float, ...] | None = None
        self.clean = False
        self.recent: list[Episodes] = []
        self.spent = {"collect": 0.0, "learn": 0.0, "evaluate": 0.0}
        self.stop_asked = False
        self.report: Report | None = None
        self.progress = Progress(config.train.seconds, config.train.steps, plain=plain, quiet=quiet)

    def versions(self) -> str:
        """Return the version of the learner's library."""
        import torch

        return str(torch.__version__)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, over all sessions of the run."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def spent_share(self) -> float:
        """Share of the budget that is spent; whichever limit comes first."""
        budget = self.config.train
        parts = (
            (self.seconds, budget.seconds),
            (self.steps, budget.steps),
            (self.episodes, budget.episodes),
        )
        return max((spent / limit for spent, limit in parts if limit), default=0.0)

    def loop(self) -> None:
        """Train until the budget is spent or the user asks to stop."""
        config = self.config
        last_checkpoint = last_trial = time.perf_counter()
        trial_cost = 0.0
        with self.progress, _stop_on_interrupt(self):
            while self.spent_share < 1 and not self.stop_asked:
                start = time.perf_counter()
                batch, episodes = self.runner.collect(self.learner, config.algorithm.horizon)
                collected = time.perf_counter()
                metrics = self.learner.update(batch, progress=min(1.0, self.spent_share))
                learnt = time.perf_counter()
                self.spent["collect"] += collected - start
                self.spent["learn"] += learnt - collected
                self.iteration += 1
                self.steps += batch.reward.size
                self.episodes += len(episodes.rows)
                self._log(metrics, episodes, learnt - start, batch.reward.size)

                every = config.evaluation.every
                due = learnt - last_trial >= trial_cost / config.evaluation.share
                if self.iteration % every == 0 if every else due:
                    better = self._try()
                    last_trial = time.perf_counter()
                    trial_cost = last_trial - learnt
                    self.spent["evaluate"] += trial_cost
                    if better:
                        self._checkpoint(best=True)
                        last_checkpoint = last_trial
                if time.perf_counter() - last_checkpoint > config.train.checkpoint_seconds:
                    self._checkpoint(best=False)
                    last_checkpoint = time.perf_counter()
            self._checkpoint(best=self._try())

    def _log(
        self, metrics: Mapping[str, float], episodes: Episodes, seconds: float, steps: int
    ) -> None:
        if len(episodes.rows):
            self.recent = [*self.recent, episodes][-20:]
        recent = self.recent
        best_lap = min((float(np.min(e.lap_time)) for e in recent), default=np.inf)
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "episodes": self.episodes,
            "steps_per_second": round(steps / seconds, 1),
            "reward": _mean([e.reward for e in recent]),
            "completion": _mean([np.minimum(e.completion, 1) for e in recent]),
            "episode_seconds": _mean([e.steps * self.env.dt for e in recent]),
            "lap_time": best_lap if np.isfinite(best_lap) else None,
            **metrics,
            **{f"time/{name}": round(spent, 3) for name, spent in self.spent.items()},
        }
        if self.report is not None:
            row["evaluation/completion"] = self.report.completion
            row["evaluation/lap_time"] = self.report.mean_lap_s
            row["evaluation/best_lap"] = self.report.best_lap_s
        self.run.log_metrics(row)
        self.progress.update(row)

    def _try(self) -> bool:
        """Evaluate the present driver; return whether it is the best so far."""
        self.report = report = evaluate_policy(self.trial_env, self.learner.greedy)
        if report.completion == 1 and not self.clean:
            self.clean = True
            self.run.log_event(
                "clean_laps",
                seconds=round(self.seconds, 3),
                steps=self.steps,
                laps=report.laps_per_trial,
                mean_lap_s=report.mean_lap_s,
            )
            self.progress.event(
                f"{report.laps_per_trial} clean laps in a row from every start after "
                f"{self.seconds:.1f} s, {self.steps:,} steps"
            )
        if self.config.evaluation.best_by == "reward":
            score: tuple[float, ...] = (report.mean_reward or 0.0,)
        elif self.config.evaluation.best_by == "progress":
            score = (report.progress,)
        else:
            score = (report.completion, report.progress, -(report.mean_lap_s or 1e9))
        better = self.best is None or score >= self.best
        if better:
            if report.best_lap_s and report.completion == 1:
                self.progress.event(
                    f"best driver so far: mean lap {report.mean_lap_s:.2f} s, "
                    f"best {report.best_lap_s:.2f} s, at {self.steps:,} steps"
                )
            self.best = score
        self.run.log_event("evaluation", steps=self.steps, best=better, **report.as_dict())
        return better

    def _checkpoint(self, *, best: bool) -> None:
        meta, arrays = self.learner.save()
        state = {
            "iteration": self.iteration,
            "steps": self.steps,
            "episodes": self.episodes,
            "seconds": self.seconds,
            "best": self.best,
            "clean": self.clean,
            "spent": self.spent,
            "learner": meta,
        }
        packed = {f"learner.{k}": v for k, v in arrays.items()}
        packed |= {f"runner.{k}": v for k, v in self.runner.save().items()}
        self.run.write_checkpoint(
            self.steps,
            policy=self.learner.policy_state(),
            state=(state, packed),
            best=best,
            keep=self.config.train.keep,
        )
        self.run.sync_tensorboard()

    def restore(self) -> None:
        """Continue from the run's last checkpoint."""
        state, arrays = self.run.read_state("last")
        try:
            self.learner.restore(state["learner"], _part(arrays, "learner."))
            self.runner.restore(_part(arrays, "runner."))
            self.iteration, self.steps = state["iteration"], state["steps"]
            self.episodes, self.clean = state["episodes"], state["clean"]
            self.seconds_before = state["seconds"] - (time.perf_counter() - self.began)
            self.best = None if state["best"] is None else tuple(state["best"])
            self.spent = state["spent"]
        except KeyError as error:
            raise RunError(
                f"{self.run.path}: the checkpoint lacks {error}; it was written by another "
                "version of hotlap. Start anew from its driver with --from."
            ) from None
        self.run.log_event("resumed", steps=self.steps)
        self.progress.event(f"resumed at {self.steps:,} steps")

    def take_weights(self, other: Run) -> None:
        """Start from another run's driver."""
        state, arrays = other.read_state("best")
        self.learner.restore(state["learner"], _part(arrays, "learner."))
        self.run.log_event("weights_from", run=str(other.path))
        self.progress.event(f"starts from the driver of {other.path}")


def write_outcome(run: Run | str | Path) -> dict[str, Path]:
    """Evaluate a run's best driver and write report, plots, trace and film.

    Returns:
        The written files by what they are.

    Raises:
        RunError: this is not a Run, or it has no checkpoint yet.
    """
    from hotlap import plot
    from hotlap.film import write_film

    opened = run if isinstance(run, Run) else Run.open(run)
    config = resolve(TrainConfig, tomllib.loads(opened.config_toml))
    asked = config.evaluation
    report = evaluate(opened, trials=asked.trials, laps=asked.laps)
    opened.write_report(report.as_dict())
    track = load_track(config.track.split(",")[0])
    track = track.reversed() if config.start.direction == "reversed" else track
    trace = report.traces[report.best_trial]
    written = {"trace": opened.folder("traces") / "evaluation.npz"}
    np.savez_compressed(written["trace"], allow_pickle=False, **trace)
    if opened.metrics_rows():
        figure = plot.reward_and_completion(opened.metrics_rows(), title=opened.name)
        written["training"] = plot.save(figure, opened.folder("plots") / "training.png")
    figure = plot.track_picture(track, trace)
    written["track"] = plot.save(figure, opened.folder("plots") / "track.png")
    seen = config.observation
    settings = seen.camera if "camera" in seen.actor else CameraSettings(color="rgb")
    # the standing lap and a flying one: who wants all of it has the trace
    frames = min(
        int(np.searchsorted(trace["lap"], 2)) + 1, round(_FILM_SECONDS * config.control_rate)
    )
    scene = {name: column[:frames] for name, column in trace.items()}
    x, y, yaw = (np.ascontiguousarray(scene[name]) for name in ("x", "y", "yaw"))
    which = np.zeros(len(x), np.int32)
    view = Camera(settings, (track,), (config.look,)).render(x, y, yaw, which, which)
    film = opened.folder("films") / "evaluation.mp4"
    rate = round(config.control_rate)
    written["film"] = write_film(film, track, scene, camera=view, fps=rate)
    return written


def _mean(parts: list[Array]) -> float | None:
    return float(np.mean(np.concatenate(parts))) if parts else None


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _process_age() -> float:
    """Seconds since this process started; 0 where the system does not say."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


@contextmanager
def _stop_on_interrupt(training: _Training) -> Iterator[None]:
    """Let the first Ctrl-C end the training after its iteration, the second one at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if training.stop_asked:
            raise KeyboardInterrupt
        training.stop_asked = True
        training.progress.event("stopping after this update; Ctrl-C again stops at once")

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: its owner decides about Ctrl-C
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
