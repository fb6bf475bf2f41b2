"""Tuning: how a sweep is put to Ray Tune, which schedules, searches, retries and goes on."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import ray
from ray import tune

from hotlap.distributed.attempt import Attempt
from hotlap.distributed.axes import Axis, Choices, label
from hotlap.distributed.cluster import STORE_MIN, connected
from hotlap.distributed.sweep_folder import Search, Sweep
from hotlap.distributed.watch import Watch
from hotlap.errors import HotlapError, MissingExtraError, RunError
from hotlap.runs import Run
from hotlap.signals import heard
from hotlap.threads import available

__all__ = ["run_sweep"]

_RETRIES = 2
_CUT = 3
"""Of so many trials one goes on at each cut of ASHA."""
_PATIENCE = 45.0
"""Seconds for the trainings to stop, each after its update."""
_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the Runs hold all of it
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours is the one; see _signals
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_THRESHOLD_S": "10",
}

_watch: Watch | None = None
"""The one of this process. Tune pickles what it is given, and a terminal cannot be pickled."""


def run_sweep(sweep: Sweep, watch: Watch, *, resume: bool, address: str = "") -> int:
    """Let Ray Tune run a sweep to its end, or go on with one.

    Args:
        sweep: which.
        watch: told what happens.
        resume: whether to go on from what Tune wrote into its folder.
        address: of a Ray cluster, or `auto`; a Ray of our own on this machine if empty.

    Returns:
        The number of the signal that ended it, or 0.

    Raises:
        ClusterError: the cluster does not answer, or there is no room for so many trials.
        RunError: what Tune wrote is damaged.
        MissingExtraError: Optuna was asked for and is not installed.
    """
    global _watch
    os.environ.update({name: os.environ.get(name, value) for name, value in _TUNE.items()})
    # A Ray of our own is as large as the trials need; a cluster has what it has.
    together = sweep.search.together or available()
    size = (1, 1) if address else (together, max(1, available() // together))
    with (
        connected(address, workers=size[0], threads=size[1], store=STORE_MIN) as cluster,
        _signals(watch) as signals,
        warnings.catch_warnings(),
    ):
        for warning in () if cluster.started else cluster.warnings:
            watch.board.event(warning)
        for name in ("ray", "ray.tune"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="ray")  # advice on what we do on purpose
        _watch = watch
        try:
            again = resume and tune.Tuner.can_restore(str(sweep.path / "tune"))
            if not again:
                watch.forget()
            _tuner(sweep, again).fit()
        except HotlapError:
            raise
        except (tune.TuneError, RuntimeError, ValueError, OSError) as problem:
            raise RunError(f"{sweep.place}: Ray Tune gave up ({problem})") from problem
        finally:
            _watch = None
            _settle(sweep)
            watch.stopped()
    return signals[0] if signals else 0


def _tuner(sweep: Sweep, resume: bool) -> tune.Tuner:
    search = sweep.search
    share, threads, together = _shares(search)
    trainable = tune.with_resources(Attempt, tune.PlacementGroupFactory([share]))
    if resume:
        folder = str(sweep.path / "tune")
        return tune.Tuner.restore(folder, trainable, resume_unfinished=True, resume_errored=True)
    random.seed(search.seed)  # Tune's population based training draws from these
    np.random.seed(search.seed)  # noqa: NPY002
    scheduler, algorithm = _scheduler(search), _algorithm(search)
    limited = search.search == "optuna"  # a suggestion shall know what came of those before
    return tune.Tuner(
        trainable,
        param_space={"sweep": str(sweep.path), "threads": threads}
        | {axis.name: _domain(axis, grid=search.search == "grid") for axis in search.axes},
        tune_config=tune.TuneConfig(
            metric="value",
            mode=search.mode,
            search_alg=algorithm,
            scheduler=scheduler,
            num_samples=1 if search.search == "grid" else search.trials,
            max_concurrent_trials=together if limited else None,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(sweep.path),
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            callbacks=[_Bell()],
            verbose=0,
        ),
    )


def _shares(search: Search) -> tuple[dict[str, float], int, int]:
    """Return what a trial takes of Ray's resources, its threads, and how many run at once."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    cores = there.get("CPU", 1.0)
    largest = max(node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"])
    together = search.together or max(1, int(cores))
    share = min(cores / together, largest)
    share = float(int(share)) if share >= 1 else max(0.01, int(100 * share) / 100)
    taken = {"CPU": share}
    chips = there.get("GPU", 0.0)
    if chips:
        part = chips / together
        taken["GPU"] = float(int(part)) if part >= 1 else max(0.01, int(100 * part) / 100)
    return taken, max(1, int(share)), together


def _domain(axis: Axis, *, grid: bool) -> Any:
    """Return an axis as Tune knows it."""
    if isinstance(axis, Choices):
        labels = [label(value) for value in axis.values]
        return tune.grid_search(labels) if grid else tune.choice(labels)
    if axis.whole:  # their upper end is not included
        draw = tune.lograndint if axis.log else tune.randint
        return draw(int(axis.low), int(axis.high) + 1)
    return (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)


def _algorithm(search: Search) -> Any:
    if search.search == "optuna":
        try:
            import optuna
        except ImportError:
            raise MissingExtraError(
                "hotlap sweep --search optuna", "optuna", "distributed"
            ) from None
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return OptunaSearch(metric="value", mode=search.mode, seed=search.seed)
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=search.seed)


def _scheduler(search: Search) -> Any:
    if search.scheduler == "asha":
        from ray.tune.schedulers import ASHAScheduler

        when: dict[str, Any] = {"max_t": 1.0, "grace_period": search.part}
        # The budget itself ends a trial; Tune would do so before the last evaluation.
        return ASHAScheduler(
            time_attr="spent", **when, reduction_factor=_CUT, stop_last_trials=False
        )
    if search.scheduler == "pbt":
        from ray.tune.schedulers import PopulationBasedTraining

        return PopulationBasedTraining(
            time_attr="spent",
            perturbation_interval=search.part,
            hyperparam_mutations={
                axis.name: [label(value) for value in axis.values]
                if isinstance(axis, Choices)
                else _domain(axis, grid=False)
                for axis in search.axes
            },
            custom_explore_fn=partial(_within, search.axes),
            log_config=False,  # the trials' own files say it
        )
    return None


def _within(axes: tuple[Axis, ...], config: dict[str, Any]) -> dict[str, Any]:
    """Bring what a perturbation led out of its range back to the end of it."""
    for axis in axes:
        if not isinstance(axis, Choices):
            config[axis.name] = axis.clip(config[axis.name])
    return config


def _name(trial: Any) -> str:
    assert _watch is not None
    return _watch.name_of(trial.trial_id)


class _Bell(tune.Callback):
    """Tells the watch of this process what Tune does."""

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if _watch is not None:
            _watch.present({trial.trial_id for trial in trials})

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if _watch is not None:
            _watch.tick()
            if _watch.problem and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGUSR1)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if _watch is not None:
            _watch.began(str(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if _watch is not None:
            _watch.ended(str(trial))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if _watch is not None:
            _watch.failed(str(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if _watch is not None:
            _watch.ended(str(trial), failed=True)


@contextmanager
def _signals(watch: Watch) -> Iterator[list[int]]:
    """Let the first Ctrl-C or SIGTERM end the sweep in order, the second at once."""
    got: list[int] = []

    def note(number: int) -> None:
        got.append(number)
        if len(got) > 1 or not hasattr(signal, "SIGUSR1"):
            raise KeyboardInterrupt
        with suppress(RuntimeError):  # it may have come in the middle of a line
            watch.board.event("stopping each after its update; Ctrl-C again stops at once")
        signal.raise_signal(signal.SIGUSR1)  # which Tune takes as the wish to stop and write

    with heard(note):
        yield got


def _settle(sweep: Sweep) -> None:
    """Wait until no training writes any more; one that does not stop falls with Ray."""
    until = time.monotonic() + _PATIENCE
    for name in sweep.book():
        trial = sweep.trial(name)
        place = sweep.path / trial.generations[-1].run if trial.generations else None
        while place is not None and (place / "meta.json").is_file() and time.monotonic() < until:
            try:
                with Run.open(place) as run:
                    run.claim()
                break
            except RunError:
                time.sleep(0.1)
