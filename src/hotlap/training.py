"""Training: collect, update, log, evaluate, checkpoint, until the budget is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from hotlap.algorithms.batch import below
from hotlap.algorithms.learner import Learner, Remembering, Taught
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.settings import DistillSettings
from hotlap.algorithms.transfer import Transfer
from hotlap.config import Settings, resolve
from hotlap.crew import Driver
from hotlap.errors import ConfigError, DivergedError, RunError
from hotlap.evaluate import Report, env_settings
from hotlap.plan import TrainConfig, changes, continued
from hotlap.practice import Practice, Practising, Round
from hotlap.progress import Progress
from hotlap.runs import Run
from hotlap.signals import heard
from hotlap.trials import Trial, Trials
from hotlap.types import Array

__all__ = ["Training", "has_reached"]

_RECENT = 100
"""The metrics speak of so many episodes, the last that ended."""
_RESCUES = 3
"""Times that a training goes back to its last checkpoint because its gradients were no numbers."""


class Training:
    """One training in progress. Its owner is `train`."""

    run: Run

    def __init__(
        self,
        config: TrainConfig,
        began: float,
        progress: Progress,
        rivals: Mapping[str, Driver] | None = None,
        practice: Practising | None = None,
    ) -> None:
        self.config = config
        self.began = began
        self.progress = progress
        self.practice = practice or Practice(config, rivals)
        recorded = self.practice.simtrace is not None
        self.trials = Trials(config, config.evaluation, recorded=recorded)
        self.iteration = self.steps = self.episodes = 0
        self.recent = np.empty((0, 4), np.float32)
        self.best_lap: float | None = None
        self.stopped_by = 0

    @property
    def learner(self) -> Learner:
        """The one whose driver is evaluated and saved."""
        return self.practice.learner

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

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent or the goal is reached; after one update at the soonest."""
        goal = has_reached(self.recent, self.config.train.target_reward)
        return bool(self.iteration) and (self.share >= 1 or goal)

    def loop(self, run: Run) -> None:
        """Train until the budget is spent or somebody asks to stop."""
        self.run = run
        config = self.config
        if not run.checkpoints():
            self.practice.open(run)
        last_checkpoint = -math.inf
        with self.progress, heard(self._asked_to_stop):
            while not self.stopped_by and not self.is_over:
                start = time.perf_counter()
                try:
                    done = self.practice.round(self.steps, min(1.0, self.share))
                except DivergedError as error:
                    self._roll_back(error)
                    continue
                learnt = time.perf_counter()
                self.iteration += 1
                self._count(done)
                trial = None
                lapped = self.best_lap is not None
                ready = self.practice.phase.ready
                if ready and self.trials.due(self.iteration, learnt, lapped=lapped):
                    trial = self._try()
                    self.trials.took(time.perf_counter() - learnt, time.perf_counter())
                tried = time.perf_counter()
                times: dict[str, float | str] = {
                    "steps_per_second": round(done.steps / (learnt - start), 1),
                    "time/collect": round(done.collecting, 6),
                    "time/learn": round(done.learning, 6),
                    "time/evaluate": round(tried - learnt, 6),
                }
                if done.phase.name:
                    times["phase"] = done.phase.name
                if config.randomize.success:
                    times["breadth"] = round(done.breadth, 4)
                self._log({**done.metrics, **times}, trial)
                better = trial is not None and trial.best
                if better or tried - last_checkpoint >= config.train.checkpoint_seconds:
                    self._checkpoint(best=better)
                    last_checkpoint = time.perf_counter()
            if has_reached(self.recent, config.train.target_reward):
                mean = float(self.recent[:, 0].mean())
                self.run.log_event("target_reward", steps=self.steps, reward=mean)
                self.progress.event(
                    f"the last {_RECENT} episodes have a mean reward of {mean:g}, as "
                    f"train.target_reward asks, after {self.steps:,} steps"
                )
            if traffic := self.practice.traffic():
                self.run.log_event("traffic", steps=self.steps, **traffic)
            self._checkpoint(best=not self.stopped_by and self._try().best)

    def _asked_to_stop(self, number: int) -> None:
        """End after this round, or when asked again at once."""
        if self.stopped_by:
            raise KeyboardInterrupt
        self.stopped_by = number
        with suppress(RuntimeError):  # it may have come in the middle of a line
            self.progress.event("stopping after this update; Ctrl-C again stops at once")

    def _count(self, done: Round) -> None:
        """Count a round, and remember its episodes: reward, completion, seconds, fastest lap."""
        episodes = done.episodes
        if done.admitted:
            self.run.log_event("opponent", steps=self.steps, versions=list(done.admitted))
        self.steps += done.steps
        self.episodes += len(episodes.rows)
        completion = np.minimum(episodes.completion, 1)
        seconds = episodes.steps * self.practice.env.dt
        fresh = np.stack([episodes.reward, completion, seconds, episodes.lap_time], axis=1)
        self.recent = np.concatenate([self.recent, fresh])[-_RECENT:].astype(np.float32)
        best = min([done.fastest, *episodes.lap_time.tolist(), self.best_lap or math.inf])
        self.best_lap = best if math.isfinite(best) else None
        if self.practice.simtrace is not None:
            self.practice.simtrace.collected(self.iteration, done.metrics)

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
        self.practice.catch_up()
        begin = self.learner.begin if isinstance(self.learner, Remembering) else None
        trial = self.trials.run(self.learner.greedy, self.steps, begin, self._announce)
        report = trial.report
        if self.practice.simtrace is not None:
            self.practice.simtrace.evaluated(report)
        if trial.best and report.best_lap_s and report.completion == 1:
            self.progress.event(
                f"best driver so far: mean lap {report.mean_lap_s:.2f} s, "
                f"best {report.best_lap_s:.2f} s, at {self.steps:,} steps"
            )
        again = {} if trial.again is None else {"again": trial.again.completion}
        facts = report.as_dict() | again
        self.run.log_event("evaluation", steps=self.steps, best=trial.best, **facts)
        return trial

    def _announce(self, report: Report) -> None:
        """Say that a driver finished every trial for the first time."""
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

    def _checkpoint(self, *, best: bool) -> None:
        self.practice.catch_up()
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "steps": self.steps,
            "episodes": self.episodes,
            "seconds": self.seconds,
            "best_lap": self.best_lap,
            **self.trials.save(),
        }
        simtrace = self.practice.simtrace
        if simtrace is not None:
            state["simtrace"] = simtrace.checkpoint(self.iteration, self.steps, best=best)
        kept = self.practice.keep(self.run)
        self.run.write_checkpoint(
            self.steps,
            policy=self.learner.policy_state(),
            state=({**state, **kept.state}, {**kept.arrays, "recent": self.recent}),
            best=best,
            keep=self.config.train.keep,
            segments=kept.segments,
        )
        self.run.sync_tensorboard()

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
        lost = self.steps
        self.practice.renew(self.config)
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
                    f"{run.place} has spent its budget of {name}={limit:g}. Give it more, such as "
                    f"hotlap train --resume {run.place} {name}={2 * limit:g}"
                )
        target = self.config.train.target_reward
        if has_reached(self.recent, target) and run.is_reported:
            raise RunError(
                f"{run.place} has reached its train.target_reward of {target:g}. Ask for more "
                f"with: hotlap train --resume {run.place} train.target_reward=..."
            )
        changed = changes(continued(run, {}), self.config)
        run.log_event("resumed", steps=self.steps, settings=changed)
        self.progress.event(f"resumed at {self.steps:,} steps")

    def _return_to_checkpoint(self, run: Run) -> float:
        """Become what a run's last checkpoint holds; return its seconds of training."""
        state, arrays = run.read_state("last")
        try:
            self.recent = arrays["recent"]
            self.iteration, self.steps = state["iteration"], state["steps"]
            self.episodes, self.best_lap = state["episodes"], state["best_lap"]
            self.trials.restore(state)
            for note in self.practice.restore(run, state, arrays):
                self.progress.event(note)
            return float(state["seconds"])
        except KeyError as error:
            raise RunError(
                f"{run.place}: the checkpoint lacks {error}; it was written by another version of "
                f"hotlap. Start anew from its driver with: hotlap train --from {run.place}"
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
        its, own = theirs.observation, ours.observation
        alike = {"actions": theirs.actions == ours.actions} | {
            f"observation.{name}": getattr(its, name) == getattr(own, name)
            for name in NumpyPolicy(*policy).names
        }
        wrong = [name for name, same in alike.items() if not same]
        if wrong:
            raise ConfigError(
                f"algorithm.teacher: {run.place} was trained with another {', '.join(wrong)}; "
                "teacher and student need the same: copy it from the teacher's config.toml"
            )
        saved = None
        judged_alike = theirs.reward == ours.reward and all(
            getattr(its, name) == getattr(own, name) for name in own.critic
        )
        if algorithm.finetune and judged_alike:
            state, arrays = run.read_state("best")
            saved = (state["learner"], below(arrays, "learner."))
        critic = self.learner.take_teacher(*policy, saved)
        said = f"the driver of {run.place} teaches"
        if algorithm.finetune:
            said += ", its critic judges" if critic else "; a critic begins anew"
        self.progress.event(said)

    def take_weights(
        self, other: Run, checkpoint: Literal["best", "last"] = "best", *, by_name: bool
    ) -> Transfer:
        """Start from another run's driver, with our own step size and with episodes of our own.

        Args:
            other: the run.
            checkpoint: which of its drivers.
            by_name: whether to say of every layer what became of it; else only of those that begin
                anew.
        """
        state, arrays = other.read_state(checkpoint)
        try:
            learner, own = state["learner"], below(arrays, "learner.")
            found = self.learner.adopt(learner, own, other.read_policy(checkpoint))
        except (RunError, KeyError) as error:
            raise RunError(
                f"--from {other.place}: {error}; keep the observations, actions and network of its "
                f"config.toml, or let it teach: algorithm=distill algorithm.teacher={other.place}"
            ) from None
        whose = f"the {checkpoint} driver of {other.place}"
        self.progress.event(f"starts from {whose}: {found.summary}")
        for line in found.table():
            if by_name or "  anew: " in line:
                self.progress.event(f"  {line}")
        random = [name for name in found.frozen if name in found.skipped]
        if random:
            self.progress.event(f"  frozen as they were drawn at random: {', '.join(random)}")
        return found


def has_reached(recent: Array, target: float | None) -> bool:
    """Say whether the last 100 episodes, whose rewards come first, reach a mean reward."""
    return target is not None and len(recent) >= _RECENT and float(recent[:, 0].mean()) >= target


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
