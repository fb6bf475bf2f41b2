"""Simtrace: a Run's folder `deepracer`, in the layout of DeepRacer-for-Cloud's bucket.

```
training-simtrace/K-iteration.csv       what the followed cars did; with several workers W/...
metrics/TrainingMetrics.json            an entry an episode; TrainingMetrics_W.json of worker W > 0
evaluation-<14 digits>/...              simtrace of an evaluation or a race; metrics/evaluation/
                                        its result; logs/evaluation/ lines of a race
logs/training/training-<14 digits>-robomaker.log      the same episodes as SIM_TRACE_LOG lines
model/  ip/  training_params.yaml  reward_function.py         what was trained, in its words
```

Readers count on equally many episodes in every iteration, so an iteration is so many episodes in
the order in which they ended, whenever the policy was updated.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.algorithms.settings import DEEPRACER_CNNS
from hotlap.deepracer import logs
from hotlap.deepracer.files.metadata import LIDAR_KINDS
from hotlap.deepracer.logs import FOLDER
from hotlap.deepracer.recorder import Episode, Recorder
from hotlap.env import VectorEnv
from hotlap.evaluate import Report
from hotlap.files import append_line, explained, replace
from hotlap.plan import TrainConfig
from hotlap.racing.contest import Standings
from hotlap.runs import Run
from hotlap.tasks.actions import ContinuousActions
from hotlap.tasks.rewards import FileReward
from hotlap.types import Array

__all__ = ["Simtrace", "is_logged", "write_evaluation", "write_race"]

_METRICS = {"progress": "progress", "reward": "reward", "lap_time": "laptime"}
_NO_LAP = 999999
"""DeepRacer's lap time of a lap that was not finished [ms]."""


def is_logged(config: TrainConfig) -> bool:
    """Tell whether a training writes DeepRacer's logs."""
    reward = config.reward
    late = isinstance(reward, FileReward) and reward.timing == "deepracer"
    return late if config.log.deepracer is None else config.log.deepracer


class Simtrace:
    """Writes the logs of a training, episode by episode. Its owner is the training.

    Args:
        config: what is trained.
        env: its cars.
    """

    recorder: Recorder
    """To be told every step."""

    def __init__(self, config: TrainConfig, env: VectorEnv) -> None:
        self._config, settings = config, config.log
        team = np.arange(env.rows) // config.traffic.cars
        named = len(config.track_names())
        self._workers = min(settings.workers or min(named, logs.WORKERS_MOST), int(team[-1]) + 1)
        cars = np.arange(min(env.rows, max(settings.cars, self._workers * config.traffic.cars)))
        self._worker = team[cars] % self._workers
        self._actions = env.actions.settings
        self.recorder = Recorder(env.simulator.tracks, cars, dt=env.dt, late=env.late)
        share, more = divmod(settings.episodes, self._workers)
        self._quota = [max(1, share + (w < more)) for w in range(self._workers)]
        self._best: dict[str, Any] | None = None
        self._metric: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._done = [0] * self._workers
        self._entries: list[list[str]] = [[] for _ in range(self._workers)]
        self._held: list[Episode] = []

    # --- files ---

    def open(self, run: Run) -> None:
        """Write what is known before the first episode."""
        self._folder, self._log = run.path / FOLDER, self._log_file(run)
        metadata, parameters = self._metadata(), self._hyperparameters()
        files = {
            "model/model_metadata.json": _pretty(metadata),
            "ip/hyperparameters.json": _pretty(parameters),
            "training_params.yaml": self._parameters().encode(),
        }
        reward = self._config.reward
        if isinstance(reward, FileReward):
            with contextlib.suppress(OSError):  # it was read before; another one may be there now
                files["reward_function.py"] = Path(reward.path).read_bytes()
        for name, content in files.items():
            self._replace(name, content)
        world = ",".join(self._config.track_names())
        if self._config.log.lines:
            self._append(self._log, logs.header_lines(parameters, metadata, world))

    def _log_file(self, run: Run) -> str:
        began = "".join(c for c in str(run.meta.get("created", "")) if c.isdigit())[:14]
        return f"logs/training/training-{began or '0' * 14}-robomaker.log"

    def _replace(self, name: str, content: bytes) -> None:
        path = self._folder / name
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, content)

    def _append(self, name: str, text: str) -> None:
        path = self._folder / name
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                append_line(file, text.rstrip("\n").encode())
            finally:
                os.close(file)

    # --- what happens ---

    def collected(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Write the episodes that ended before an update, and what the update said."""
        self._held += self.recorder.episodes()
        traces: dict[str, list[str]] = {}
        lines: list[str] = []
        held = []
        for episode in self._held:
            worker = int(self._worker[episode.car])
            if self._done[worker] >= self._quota[worker] and not self._are_complete():
                held.append(episode)
                continue
            self._write(episode, worker, traces, lines)
        self._held = held
        for name, parts in traces.items():
            fresh = not (self._folder / name).exists()
            self._append(name, (logs.HEADER if fresh else "") + "".join(parts))
        if self._config.log.lines:
            epochs = int(getattr(self._config.algorithm, "epochs", 1))
            lines.append(logs.update_line(metrics, epochs))
            if text := "".join(lines):
                self._append(self._log, text)

    def _are_complete(self) -> bool:
        """Whether all workers have their first iteration: by it readers count the others."""
        return all(done >= quota for done, quota in zip(self._done, self._quota, strict=True))

    def _write(
        self, episode: Episode, worker: int, traces: dict[str, list[str]], lines: list[str]
    ) -> None:
        number = self._done[worker]
        iteration, trial = divmod(number, self._quota[worker])
        self._done[worker] += 1
        name = logs.simtrace_path(iteration, worker if self._workers > 1 else None)
        traces.setdefault(name, []).append(logs.csv_rows(episode.rows, number))
        if worker:  # of the other workers DeepRacer counts on
            trial = number
        entry = logs.training_entry(episode.rows, number + 1, trial + 1)
        self._entries[worker].append(json.dumps(entry))
        if self._config.log.lines:
            # one file of all workers, as if they were one
            lines.append(logs.trace_lines(episode.rows, sum(self._done) - 1))
            lines.append(logs.summary_line(episode.rows, sum(self._done), worker, iteration))

    def evaluated(self, report: Report) -> None:
        """Note an evaluation, among the metrics of the first worker."""
        best_by = self._config.evaluation.best_by
        self._metric = {
            "progress": 100 * report.progress,
            "reward": report.mean_reward,
            "lap_time": _NO_LAP if report.mean_lap_s is None else 1000 * report.mean_lap_s,
        }[best_by]
        for trial, episode in enumerate(report.episodes):
            # Readers take the greatest trial for the number of episodes of an iteration.
            number, place = max(1, self._done[0]), trial % self._quota[0] + 1
            entry = logs.training_entry(episode.rows, number, place) | {"phase": "evaluation"}
            self._entries[0].append(json.dumps(entry))

    def checkpoint(self, iteration: int, steps: int, *, best: bool) -> dict[str, Any]:
        """Bring everything on the disk up to date; return what continuing needs, ready for JSON."""
        best_by = _METRICS[self._config.evaluation.best_by]
        for worker, entries in enumerate(self._entries):
            self._replace(_metrics_name(worker), logs.metrics_document(entries, best_by))
        last = {"iteration": iteration, "steps": steps, "metric": self._metric, "time": time.time()}
        if best or self._best is None:
            self._best = last
        self._replace("model/deepracer_checkpoints.json", logs.checkpoint_note(self._best, last))
        names = [self._log] if self._config.log.lines else []
        for worker, (done, quota) in enumerate(zip(self._done, self._quota, strict=True)):
            if done:
                iteration = (done - 1) // quota
                names.append(logs.simtrace_path(iteration, worker if self._workers > 1 else None))
        return {
            "done": self._done,
            "entries": [len(entries) for entries in self._entries],
            "sizes": {
                name: (self._folder / name).stat().st_size
                for name in names
                if (self._folder / name).exists()
            },
            "best": self._best,
            "metric": self._metric,
        }

    def arrays(self) -> dict[str, Array]:
        """Return the episodes that wait to be written, as named arrays."""
        held = {f"held{k}": one.rows for k, one in enumerate(self._held)}
        return held | {"held": np.array([[one.car, one.track] for one in self._held], np.int64)}

    def restore(self, run: Run, saved: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue from what `checkpoint` and `arrays` returned: forget what was written since."""
        self._folder, self._log = run.path / FOLDER, self._log_file(run)
        self._begin()
        self._done, self._best, self._metric = list(saved["done"]), saved["best"], saved["metric"]
        self._held = [
            Episode(int(car), int(track), arrays[f"held{k}"])
            for k, (car, track) in enumerate(arrays["held"].reshape(-1, 2))
        ]
        for worker, count in enumerate(saved["entries"]):
            self._entries[worker] = _entries(self._folder / _metrics_name(worker))[:count]
        sizes = saved["sizes"]
        for name in sizes:
            path = self._folder / name
            with explained(path), contextlib.suppress(FileNotFoundError):
                os.truncate(path, min(sizes[name], path.stat().st_size))
        for worker, (done, quota) in enumerate(zip(self._done, self._quota, strict=True)):
            iteration = (done - 1) // quota + 1  # 0 where nothing was done
            while True:
                which = worker if self._workers > 1 else None
                path = self._folder / logs.simtrace_path(iteration, which)
                with explained(path):
                    if not path.exists():
                        break
                    path.unlink()
                iteration += 1

    # --- what was trained, in DeepRacer's words ---

    def _metadata(self) -> dict[str, Any]:
        """Return a `model_metadata.json`; what DeepRacer has no word for has ours."""
        config, actions = self._config, self._actions
        space: Any
        if isinstance(actions, ContinuousActions):
            space = {
                "steering_angle": {
                    "high": actions.steering_high_deg,
                    "low": actions.steering_low_deg,
                },
                "speed": {"high": actions.speed_high, "low": actions.speed_low},
            }
        else:
            space = [
                {"steering_angle": angle, "speed": speed, "index": k}
                for k, (angle, speed) in enumerate(actions.pairs)
            ]
        seen = config.observation
        camera = "STEREO_CAMERAS" if seen.camera.stereo_baseline else "FRONT_FACING_CAMERA"
        lidars = {ours: theirs for theirs, ours in LIDAR_KINDS.items()}
        words = {"camera": camera, "lidar": lidars.get(seen.lidar.kind, "LIDAR")}
        network = getattr(config.algorithm, "network", None)
        networks = {ours: theirs for theirs, ours in DEEPRACER_CNNS.items()}
        cnn = getattr(network, "cnn", "none")
        if network is not None and cnn == "deepracer_stereo":  # of the two, one has 512 after it
            cnn = "deepracer_deep" if network.joint[:2] == (256, 128) else "deepracer"
        found = {
            "action_space": space,
            "sensor": [words.get(name, name) for name in seen.actor],
            "neural_network": networks.get(cnn, cnn),
            "version": "5",
            "training_algorithm": {"ppo": "clipped_ppo"}.get(
                config.algorithm.kind, config.algorithm.kind
            ),
            "action_space_type": "discrete" if isinstance(space, list) else "continuous",
        }
        if seen.lidar.kind == "deepracer_discretized" and "lidar" in seen.actor:
            found["lidar_config"] = {
                "num_sectors": seen.lidar.sectors,
                "num_values_per_sector": seen.lidar.steps,
                "clipping_dist": seen.lidar.clip,
            }
        return found

    def _hyperparameters(self) -> dict[str, Any]:
        """Return a `hyperparameters.json` of what the algorithm has."""
        algorithm, budget = self._config.algorithm, self._config.train
        losses = {"mse": "mean squared error", "huber": "huber"}
        given = {
            "batch_size": getattr(algorithm, "minibatch", None),
            "beta_entropy": getattr(algorithm, "entropy", None),
            "discount_factor": getattr(algorithm, "gamma", None),
            "loss_type": losses.get(getattr(algorithm, "value_loss", "")),
            "lr": getattr(algorithm, "learning_rate", None),
            "num_epochs": getattr(algorithm, "epochs", None),
            "sac_alpha": getattr(algorithm, "temperature", None),
            "num_episodes_between_training": self._config.log.episodes,
            "term_cond_max_episodes": budget.episodes or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _parameters(self) -> str:
        """Return a `training_params.yaml` of what is the same in both."""
        config = self._config
        kind, start = config.traffic, config.start
        race = "OBJECT_AVOIDANCE" if kind.obstacles else "TIME_TRIAL"
        race = "HEAD_TO_BOT" if kind.bots else race
        given = {
            "WORLD_NAME": ",".join(config.track_names()),
            "RACE_TYPE": race,
            "NUM_WORKERS": self._workers,
            "CHANGE_START_POSITION": start.kind == "round_robin",
            "ROUND_ROBIN_ADVANCE_DIST": start.advance,
            "START_POSITION_OFFSET": start.offset,
            "REVERSE_DIR": start.direction == "reversed",
            "ALTERNATE_DRIVING_DIRECTION": start.direction == "alternate",
            "MIN_EVAL_TRIALS": config.evaluation.trials,
            "BEST_MODEL_METRIC": _METRICS[config.evaluation.best_by],
            "NUMBER_OF_OBSTACLES": kind.obstacles,
            "NUMBER_OF_BOT_CARS": kind.bots,
        }
        return "".join(f"{name}: {json.dumps(str(value))}\n" for name, value in given.items())


def write_evaluation(run: Run, report: Report) -> tuple[Path, ...]:
    """Write simtrace and metrics of an evaluation into the Run's folder of DeepRacer's logs.

    Returns:
        The files; none where the Run has no such folder or the report no episodes.

    Raises:
        RunError: they cannot be written.
    """
    return _write_episodes(run, report.episodes, world=report.track, lines=False)


def write_race(runs: Sequence[Run], standings: Standings) -> tuple[Path, ...]:
    """Write what each driver of a race did into its own Run's folder of DeepRacer's logs.

    Simtrace and metrics are those of an evaluation; SIM_TRACE_LOG lines are written beside them.

    Args:
        runs: of the drivers, in the order in which they were named.
        standings: of a race by DeepRacer's rules.

    Returns:
        The files; none of a Run without such a folder.

    Raises:
        RunError: they cannot be written.
    """
    files: list[Path] = []
    for racer, episodes in zip(standings.racers, standings.episodes, strict=True):
        run = runs[racer.number]
        files += _write_episodes(run, episodes, world=standings.track, lines=True)
    return tuple(files)


def _write_episodes(
    run: Run, episodes: Sequence[Episode], *, world: str, lines: bool
) -> tuple[Path, ...]:
    folder = run.path / FOLDER
    if not folder.is_dir() or not episodes:
        return ()
    moment = time.time()
    while True:  # two evaluations in one second
        names = logs.evaluation_paths(logs.stamp(moment))
        with explained(folder / names[0]), contextlib.suppress(FileExistsError):
            (folder / names[0]).parent.parent.mkdir(parents=True)
            break
        moment += 1
    numbered = list(enumerate(episodes))
    entries = [json.dumps(logs.evaluation_entry(one.rows, k + 1)) for k, one in numbered]
    rows = [logs.csv_rows(one.rows, k) for k, one in numbered]
    contents = {
        names[0]: (logs.HEADER + "".join(rows)).encode(),
        names[1]: logs.metrics_document(entries, None),
    }
    if lines:
        said = [_document(folder / name) for name in _TRAINED]
        head = logs.header_lines(said[0], said[1], world) if all(said) else ""
        text = head + "".join(logs.trace_lines(one.rows, k) for k, one in numbered)
        contents[logs.race_log(logs.stamp(moment))] = text.encode()
    for name, content in contents.items():
        file = folder / name
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, content)
    return tuple(folder / name for name in contents)


_TRAINED = ("ip/hyperparameters.json", "model/model_metadata.json")
"""What was trained, in DeepRacer's words; a racer may have taken it away."""


def _document(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _metrics_name(worker: int) -> str:
    return f"metrics/TrainingMetrics{f'_{worker}' if worker else ''}.json"


def _entries(path: Path) -> list[str]:
    """Read the entries of a metrics file that we wrote."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [json.dumps(entry) for entry in json.loads(path.read_bytes())["metrics"]]
    return []


def _pretty(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
