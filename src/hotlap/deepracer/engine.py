"""DeepRacerEngine: the notebook of DeepRacer's Custom Framework, on this machine.

A dict of parameters in, live plots and tables out: one model, several that differ in a
hyperparameter, or several on different tracks. Each is a Run, trained by a process of its own.
Nothing is asked of a cloud; the methods that prepared one say what is there in its place.

Source: DeepRacer-Framework (2020), src/core/DeepRacerEngine.py, read for the names of parameters
and methods. Its parameters that were read and not applied are applied.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hotlap import plot
from hotlap.commands.console import show
from hotlap.config import to_toml
from hotlap.deepracer.parameters import Job, read_params
from hotlap.errors import ConfigError, RunError
from hotlap.evaluate import Report, evaluate
from hotlap.files import explained, replace
from hotlap.fleet import Fleet
from hotlap.kernels import is_warm, parts_of, warm
from hotlap.plan import TrainConfig, anchored, check_reward, read_config
from hotlap.runs import Run, default_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DeepRacerEngine"]

Table: TypeAlias = Any
"""A pandas.DataFrame where pandas is installed, else a list of dicts."""

_LOOK = 0.1
_FILES = ".files"
"""The end of the name of the folder beside a Run that holds what it was made from."""


class DeepRacerEngine:
    """Trains and evaluates DeepRacer models from a dict of parameters.

    Args:
        params: `job_name`, and any of the Framework's other parameters (docs/migration.md).

    Raises:
        ConfigError: a parameter is unknown or wrong, or a file it names is.

    >>> engine = DeepRacerEngine({"job_name": "demo", "track_name": "oval", "job_duration": 60})
    >>> engine.config.train.seconds
    60.0
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.job: Job = read_params(params)
        self.job_name = self.job.name
        self.params = dict(self.job.params)
        self.run_path: Path | None = None
        """The Run, once it was started."""
        self.notes: tuple[str, ...] = self.job.notes
        """What became of each parameter, and of what the files say."""
        self._files: Path | None = None
        self._config: TrainConfig | None = None
        self._crew: _Crew | None = None
        self._group: dict[str, DeepRacerEngine] = {}
        self._report: Report | None = None

    @property
    def config(self) -> TrainConfig:
        """The complete settings of the training; its files are written to read them."""
        if self._config is None:
            return self.configure_estimator()
        return self._config

    @property
    def run(self) -> Run:
        """The Run.

        Raises:
            RunError: it has not begun.
        """
        if self.run_path is None:
            raise RunError(
                f"{self.job_name}: has not been started; call start_training_testing_process()"
            )
        failure = self._crew.fleet.failures.get(self.run_path) if self._crew else None
        if not (self.run_path / "meta.json").exists():
            raise RunError(f"{self.run_path}: {failure or 'its process is still starting'}")
        return Run.open(self.run_path)

    # What it is made of.

    def create_hyperparams(self, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the hyperparameters by the names of `hyperparameters.json`.

        Args:
            kwargs: other parameters to read them from, which replace the engine's own.
        """
        self._change(kwargs)
        found: dict[str, Any] = json.loads(self.job.files["hyperparameters.json"])
        return found

    def create_actionspace(self, kwargs: Mapping[str, Any] | None = None) -> list[dict[str, float]]:
        """Return the actions of `model_metadata.json`, or its ranges; see `create_hyperparams`."""
        if kwargs is not None:
            kwargs = {"custom_action_space": True, **kwargs}
        self._change(kwargs)
        found: list[dict[str, float]] = json.loads(self.job.files["model_metadata.json"])[
            "action_space"
        ]
        return found

    def _change(self, params: Mapping[str, Any] | None) -> None:
        if params is None:
            return
        if self.run_path is not None:
            raise RunError(f"{self.job_name}: has been started; make another engine for others")
        self.job = read_params({**self.job.given, **params})
        self.params, self.notes = dict(self.job.params), self.job.notes
        self._config = None

    def configure_environment(self) -> TrainConfig:
        """Write the files, read them as `hotlap train FOLDER` does, and check the reward function.

        Raises:
            HotlapError: a file or a setting is wrong; nothing has started then.
        """
        self.upload_environments_and_rewards_to_s3()
        return self.configure_estimator()

    def upload_environments_and_rewards_to_s3(self) -> Path:
        """Write the DeepRacer folder that the parameters come to, beside the Run to be."""
        if self._files is None:
            self._files = _reserve(self.job_name)
        return self.job.write(self._files)

    def configure_estimator(self) -> TrainConfig:
        """Return the complete settings of the training, also in `config.toml` of its files."""
        folder = self.upload_environments_and_rewards_to_s3()
        plan = read_config(folder, self.job.settings)
        config = anchored(plan.config)
        said = check_reward(config)
        with explained(folder):
            replace(folder / "config.toml", to_toml(config).encode())
        self._config = config
        self.notes = tuple(dict.fromkeys((*self.job.notes, *plan.notes, *said)))
        return config

    def configure_metrics(self) -> list[dict[str, str]]:
        """Return where the Framework's metrics are found in a Run's `metrics.jsonl`."""
        names = {
            "reward-training": "reward",
            "ppo-surrogate-loss": "policy_loss",
            "ppo-entropy": "entropy",
            "reward-testing": "evaluation/completion",
        }
        return [{"Name": name, "Column": column} for name, column in names.items()]

    def create_simulation_application(self) -> None:
        """Compile the kernels of the simulator that the training needs, once."""
        parts = parts_of(self.config)
        if not is_warm(parts):
            warm(parts)

    def configure_s3_bucket(self) -> Path:
        """Return the folder that stands for the bucket: Runs are directories in it."""
        show("configure_s3_bucket: there is no bucket; Runs are directories in runs/")
        return Path("runs")

    def create_iam_role(self) -> None:
        """Say that no role is needed."""
        show("create_iam_role: no role is needed; everything runs as you, on this machine")

    def build_docker_container(self) -> None:
        """Say that no container is needed."""
        show("build_docker_container: no container is needed; each model is a process")

    def configure_vpc(self) -> None:
        """Say that no network is needed."""
        show("configure_vpc: no network is used")

    def create_routing_tables(self) -> None:
        """Say that no network is needed."""
        show("create_routing_tables: no network is used")

    def configure_kinesis_stream(self) -> None:
        """Say where films are."""
        show("configure_kinesis_stream: there is no stream; films/ of the Run has its film")

    # One model.

    def start_training_testing_process(self) -> Path:
        """Start to train; returns at once. The Run ends with its evaluation, plots and film.

        Returns:
            The directory of the Run.

        Raises:
            HotlapError: something is wrong with what was asked; nothing has started then.
        """
        self._prepare()
        return self.start_simulation_job()

    def start_simulation_job(self) -> Path:
        """Start the process that trains; see `start_training_testing_process`."""
        self._prepare()
        _start([self])
        assert self.run_path is not None
        show(f"{self.job_name}: trains in {self.run_path}")
        return self.run_path

    def start_robo_maker(self) -> None:
        """Say that nothing is to be started: the simulator is part of the training."""
        show("start_robo_maker: the simulator is part of the training's own process")

    def _prepare(self) -> None:
        if self.run_path is not None:
            raise RunError(
                f"{self.job_name}: has been started already, in {self.run_path}; make another "
                "engine to train again"
            )
        if self._config is None:
            self.configure_environment()
        self.create_simulation_application()

    def check_if_simulation_active(self) -> bool:
        """Say whether the model, or any of those started by this engine, trains or waits to."""
        return any(engine._active for engine in (self, *self._group.values()))

    @property
    def _active(self) -> bool:
        return self._crew is not None and self._crew.state(self.run_path) in ("waiting", "running")

    @property
    def status(self) -> str:
        """`new`, `waiting`, `running`, `done`, `stopped` or `failed`."""
        return "new" if self._crew is None else self._crew.state(self.run_path)

    def stop_training(self) -> None:
        """Stop the training after its update, with a checkpoint, and wait for its process's end.

        `hotlap train --resume RUN` continues it.
        """
        if self._crew is not None and self.run_path is not None:
            self._crew.fleet.stop([self.run_path])

    def clean_up_simualtion_environmnet(self) -> None:
        """Stop all that this engine has started; when it returns, no process is left.

        The Runs stay. (The name is the Framework's.)
        """
        self.delete_all_simulations()

    clean_up_simulation_environment = clean_up_simualtion_environmnet

    def delete_all_simulations(self) -> None:
        """Stop this model and those started by this engine; the Runs stay."""
        for engine in (self, *self._group.values()):
            engine.stop_training()

    def delete_s3_simulation_resources(self) -> None:
        """Stop all that this engine has started, and delete its Runs and files."""
        self.delete_all_simulations()
        for engine in (self, *self._group.values()):
            for path in (engine.run_path, engine._files):
                if path is not None and path.exists():
                    with explained(path):
                        shutil.rmtree(path)
            if engine.run_path is not None:
                log = engine.run_path.with_name(f"{engine.run_path.name}.log")
                log.unlink(missing_ok=True)
            engine.run_path = engine._files = engine._config = engine._crew = None
            engine._report = None

    def __enter__(self) -> DeepRacerEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete_all_simulations()

    def plot_training_output(self, *, refresh: float = 5.0, follow: bool = True) -> Figure:
        """Show reward and completion per episode; in a notebook live, until the training ends.

        Args:
            refresh: seconds between two pictures.
            follow: wait for the end of the training; else draw what there is now.

        Returns:
            The last picture. Interrupting the cell returns it too; the training goes on.
        """
        return _follow({self.job_name: self}, refresh, follow)

    def start_evaluation_process(self) -> Report:
        """Let the best driver so far lap `evaluation_trials` times; training need not have ended.

        Raises:
            RunError: there is no driver yet.
        """
        self._report = evaluate(self.run, trials=self.params["evaluation_trials"], laps=1)
        return self._report

    def plot_evaluation_output(self) -> Table:
        """Return a row for each trial: completion in percent, elapsed time in seconds."""
        return _shown([{k: v for k, v in row.items() if k != "job"} for row in self._trials()])

    def start_model_evaluation(self) -> Table:
        """Evaluate, and return the table of trials."""
        self.start_evaluation_process()
        return self.plot_evaluation_output()

    def _trials(self) -> list[dict[str, Any]]:
        report = self._report or self.start_evaluation_process()
        rows = []
        for i, trace in enumerate(report.traces):
            times, done = report.lap_times_s[i], report.finished[i]
            # a trial that ended early drove until its last row
            seconds = sum(times) if done else float(trace["t"][-1])
            length = self._length(report.tracks[i])
            share = 1.0 if done else min(1.0, max(0.0, float(trace["travelled"][-1]) / length))
            rows.append(
                {
                    "job": self.job_name,
                    "trial": i + 1,
                    "completion_percentage": round(100 * share, 1),
                    "elapsed_time": round(seconds, 3),
                }
            )
        return rows

    def _length(self, name: str) -> float:
        return next(t.length for t in self.config.tracks() if t.name == name)

    # Several models.

    def param_gen_batch_sizes(
        self,
        min_batch: int = 64,
        max_batch: int = 512,
        job_duration: float | None = None,
        job_name_prefix: str | None = None,
        track_name: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return parameters of models that differ in their batch size, each twice the one before.

        What is not given is as this engine has it.

        Raises:
            ConfigError: there is none.
        """
        if not 1 <= min_batch <= max_batch:
            raise ConfigError(
                "min_batch: must be at least 1, and at most max_batch "
                f"(got {min_batch} and {max_batch})"
            )
        sizes = [min_batch]
        while 2 * sizes[-1] <= max_batch:
            sizes.append(2 * sizes[-1])
        given = {"job_duration": job_duration, "track_name": track_name}
        return self.param_gen("batch_size", sizes, job_name_prefix=job_name_prefix, **given)

    def param_gen_tracks(
        self,
        job_name_prefix: str | None = None,
        batch_size: int | None = None,
        job_duration: float | None = None,
        track_names: Sequence[str] = ("reinvent_base", "Oval_track", "Bowtie_track"),
    ) -> list[dict[str, Any]]:
        """Return parameters of models on different tracks; see `param_gen_batch_sizes`."""
        given = {"job_duration": job_duration, "batch_size": batch_size}
        return self.param_gen("track_name", track_names, job_name_prefix=job_name_prefix, **given)

    def param_gen(
        self,
        name: str,
        values: Iterable[Any],
        *,
        job_name_prefix: str | None = None,
        **others: Any,
    ) -> list[dict[str, Any]]:
        """Return parameters of models that differ in one parameter, whichever it is.

        Args:
            name: the parameter.
            values: one for each model.
            job_name_prefix: what their names begin with; this engine's job name if None.
            others: parameters that all of them have in place of this engine's own; None leaves it.

        Raises:
            ConfigError: a parameter is unknown, or there is no value.
        """
        plain = dict(self.job.given) | {k: v for k, v in others.items() if v is not None}
        prefix, kind = job_name_prefix or self.job_name, name.replace("_", "-").lower()
        kind = {"batch-size": "batchsize", "track-name": "track"}.get(kind, kind)
        found = []
        for value in values:
            word = "".join(c if c.isalnum() or c in ".-" else "-" for c in str(value)).strip("-.")
            found.append({**plain, name: value, "job_name": f"{prefix}-{kind}-{word}"})
            read_params(found[-1])  # a mistake shows before anything starts
        if not found:
            raise ConfigError(f"{name}: give at least one value")
        return found

    def start_multi_model_simulations(
        self, params: Sequence[Mapping[str, Any]]
    ) -> dict[str, DeepRacerEngine]:
        """Start several models, as many at once as there are cores; returns at once.

        Args:
            params: as `param_gen_batch_sizes` or `param_gen_tracks` return them.

        Returns:
            An engine for each model, by job name.

        Raises:
            HotlapError: something is wrong with one of them; none has started then.
        """
        engines = [DeepRacerEngine(one) for one in params]
        names = [engine.job_name for engine in engines]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"params: must be of one model or more, each with a job_name of its own "
                f"(got {', '.join(names) or 'none'})"
            )
        for engine in engines:
            engine._prepare()
        _start(engines)
        found = dict(zip(names, engines, strict=True))
        self._group |= found
        for name, engine in found.items():
            show(f"{name}: trains in {engine.run_path}")
        return found

    def plot_multi_model_runs_output(
        self,
        drs: Mapping[str, DeepRacerEngine],
        *,
        refresh: float = 5.0,
        follow: bool = True,
    ) -> Figure:
        """Show all of them in one picture, with a legend; see `plot_training_output`."""
        return _follow(drs, refresh, follow)

    def start_multi_model_evaluation(self, drs: Mapping[str, DeepRacerEngine]) -> dict[str, Report]:
        """Evaluate the best driver of each; see `start_evaluation_process`."""
        return {name: engine.start_evaluation_process() for name, engine in drs.items()}

    def plot_multi_model_evaluation(self, drs: Mapping[str, DeepRacerEngine]) -> Table:
        """Return a row for each trial of each model: job, trial, completion, elapsed time."""
        return _shown([row for engine in drs.values() for row in engine._trials()])


class _Crew:
    """A fleet, and the thread that tends it until all have ended."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.problem: Exception | None = None
        fleet.tend()  # what cannot be started is said at once
        threading.Thread(target=self._tend, daemon=True, name="engine").start()

    def _tend(self) -> None:
        while self.fleet.active:
            time.sleep(_LOOK)
            try:
                self.fleet.tend()
            except Exception as error:
                self.problem = error  # raised where somebody looks
                self.fleet.stop()

    def state(self, place: Path | None) -> str:
        if self.problem is not None:
            raise self.problem
        return self.fleet.children[place].state if place is not None else "new"


def _start(engines: Sequence[DeepRacerEngine]) -> None:
    """Start prepared engines as one fleet."""
    words, threads = {}, {}
    for engine in engines:
        assert engine._files is not None
        place = engine._files.with_name(engine._files.name.removesuffix(_FILES))
        words[place] = ["train", str(engine._files / "config.toml"), "--quiet", "--out", str(place)]
        if engine.job.threads is not None:
            threads[place] = engine.job.threads
    crew = _Crew(Fleet(words, threads=threads))
    for engine, place in zip(engines, words, strict=True):
        engine.run_path, engine._crew = place, crew


def _reserve(name: str) -> Path:
    """Make the folder of a job's files; the Run will be beside it, of the same name without end."""
    while True:
        run = default_directory(name.replace(" ", "-"), "deepracer")
        files = run.with_name(run.name + _FILES)
        number = 1
        stem = run.name.rpartition("-")[0]
        while files.exists() or files.with_name(files.name.removesuffix(_FILES)).exists():
            number += 1
            files = run.with_name(f"{stem}-{number}{_FILES}")
        with explained(files):
            try:
                files.mkdir(parents=True)
            except FileExistsError:  # another was quicker
                continue
        return files.resolve()


def _rows(engine: DeepRacerEngine) -> list[dict[str, Any]]:
    if engine.run_path is None or not (engine.run_path / "metrics.jsonl").exists():
        return []
    return Run.open(engine.run_path).metrics_rows()


def _picture(engines: Mapping[str, DeepRacerEngine], began: float) -> Figure:
    if not engines:
        raise ConfigError("drs: give what start_multi_model_simulations returned")
    states = [engine.status for engine in engines.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    title = f"{counts if len(states) > 1 else states[0]} · {time.monotonic() - began:.0f} s"
    return plot.episodes_picture({name: _rows(e) for name, e in engines.items()}, title)


def _follow(engines: Mapping[str, DeepRacerEngine], refresh: float, follow: bool) -> Figure:
    """Draw, and in a notebook show, until all have ended or somebody interrupts."""
    for engine in engines.values():
        if engine.run_path is None:
            raise RunError(f"{engine.job_name}: has not been started, so there is nothing to draw")
    began, window = time.monotonic(), _Window()
    figure = _picture(engines, began)
    try:
        while follow and any(engine._active for engine in engines.values()):
            window.show(figure)
            until = time.monotonic() + max(_LOOK, refresh)
            while time.monotonic() < until and any(e._active for e in engines.values()):
                time.sleep(_LOOK)
            figure = _picture(engines, began)
        figure = _picture(engines, began)  # it may have ended since
    except KeyboardInterrupt:
        show("stopped looking; the training goes on (stop_training() ends it)")
    window.show(figure)
    for engine in engines.values():
        assert engine._crew is not None
        failure = engine._crew.fleet.failures.get(engine.run_path or Path())
        if failure:
            show(f"{engine.job_name} failed: {failure}")
    return figure


class _Window:
    """Where a notebook shows a picture that changes; elsewhere nothing is shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Figure) -> None:
        if not _in_notebook():
            return
        display = importlib.import_module("IPython.display")
        data = io.BytesIO()
        figure.savefig(data, format="png")
        image = display.Image(data.getvalue())
        if self._handle is None:
            self._handle = display.display(image, display_id=True)
        else:
            self._handle.update(image)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


def _shown(rows: list[dict[str, Any]]) -> Table:
    """Return a table, as pandas has it where that is installed."""
    if importlib.util.find_spec("pandas") is None:
        return rows
    return importlib.import_module("pandas").DataFrame(rows)
