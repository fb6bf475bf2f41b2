"""What a run leaves behind for people: report, trace, plots and film of its best driver."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotlap import plot
from hotlap.algorithms.attention import Heat
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.config import read_toml, resolve
from hotlap.env import EnvSettings
from hotlap.env.drivers import driver_task
from hotlap.errors import ConfigError, RunError
from hotlap.evaluate import Report, Trace, env_settings, evaluate
from hotlap.files import explained, whole
from hotlap.film import write_film
from hotlap.gaze import CAMERAS, Gaze
from hotlap.limit import fastest_lap
from hotlap.population import Population
from hotlap.runs import Run
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.relief import depth_picture, segmentation_picture
from hotlap.simtrace import write_evaluation
from hotlap.tasks.actions import Actions, MetadataActions
from hotlap.track import Track, load_track
from hotlap.trials import EvaluationSettings
from hotlap.types import Array
from hotlap.vehicle import load_vehicle

__all__ = ["film_run", "plot_learning", "plot_run", "write_outcome"]

_FILM_SECONDS = 40.0
"""Longest film; a standing and a flying lap of most tracks."""


def write_outcome(run: Run) -> dict[str, Path]:
    """Evaluate a run's best driver and write report, trace, plots and film.

    Args:
        run: the Run, by its writer.

    Returns:
        The written files by what they are.

    Raises:
        RunError: it has no checkpoint yet, or a file cannot be written.
    """
    asked = _asked(run)
    report = evaluate(
        run,
        track=",".join(env_settings(run).track_names()[: asked.trials]),
        trials=asked.trials,
        laps=asked.laps,
        randomized=asked.randomized,
        recorded=None,
    )
    write_evaluation(run, report)
    run.write_report(report.as_dict())
    if asked.randomized or len(set(report.tracks)) > 1:
        report = _drive(run)  # pictures show one track, with the nominal car and look
    trace = report.traces[report.best_trial]
    written = {"trace": run.folder("traces") / "evaluation.npz"}
    with explained(written["trace"]), whole(written["trace"]) as draft, draft.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **trace)
    return written | _plots(run, trace) | {"film": _film(run, trace)}


def film_run(
    path: str | Path, ghost: str | Path | None = None, *, attention: Heat | None = None
) -> Path:
    """Let a run's best driver lap, and film its best trial; the rest of the run stays as it is.

    Args:
        path: the Run.
        ghost: who drives along, seen through: `limit` for the fastest lap that physics allows its
            car, or another Run, whose driver laps the same track in its own car.
        attention: shows what the driver looks at, by this kind of heat, and what it is minded to
            do, in films/attention.mp4; only of one that sees a camera.

    Raises:
        RunError: this is not a Run, it has no checkpoint yet, its ghost does not lap, or the film
            cannot be written.
        ConfigError: attention was asked for, and the driver sees no camera.
        MissingExtraError: the limit was asked for, and CasADi is not installed.
    """
    run = Run.open(path)
    if attention is not None:
        _check_camera(run)
    beside = None if ghost is None else _ghost(run, ghost)
    report = _drive(run)
    trace = report.traces[report.best_trial]
    if attention is None:
        film = _film(run, trace, beside)
        run.send(film)
        return film
    settings, frames = env_settings(run), _frames(run, trace)
    gaze = _watch(run, report.best_trial, frames, attention)[attention]
    scene = {name: column[:frames] for name, column in trace.items()}
    path = run.folder("films") / "attention.mp4"
    rate = round(settings.control_rate)
    film = write_film(path, _course(run), scene, ghost=beside, gaze=gaze, fps=rate)
    run.send(film)
    return film


def plot_run(path: str | Path) -> dict[str, Path]:
    """Let a run's best driver lap, and draw its line, how it learned and what it looks at.

    Raises:
        RunError: this is not a Run, it has no checkpoint yet, or a plot cannot be written.
    """
    run = Run.open(path)
    report = _drive(run)
    trace = report.traces[report.best_trial]
    written = _plots(run, trace)
    if set(CAMERAS) & set(env_settings(run).observation.actor):
        steps = _frames(run, trace)
        gazes = _watch(run, report.best_trial, steps, "gradcam", "hirescam")
        named = {"Grad-CAM": gazes["gradcam"], "HiResCAM": gazes["hirescam"]}
        figure = plot.attention_picture(named, trace, title=run.name)
        written["attention"] = plot.save(figure, run.folder("plots") / "attention.png")
    run.send(*written.values())
    return written


def plot_learning(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Draw how several trainings learned, those that differ only in their seed as one.

    Args:
        paths: Runs, and populations of Runs.
        out: picture to write (PNG).

    Raises:
        RunError: one of them is neither, or has no metrics yet, or the picture cannot be written.
    """
    groups: dict[str, list[tuple[str, Run]]] = {}
    for path in paths:
        if Population.is_at(path):
            population = Population.open(path)
            found = [(population.path.absolute().name, run) for run in population.runs().values()]
        else:
            run = Run.open(path)
            found = [(run.name, run)]
        for name, run in found:
            alike = re.sub(r"^seed = .*$", "", run.config_toml, count=1, flags=re.MULTILINE)
            groups.setdefault(alike, []).append((name, run))
    if not groups:
        raise RunError(f"{', '.join(map(str, paths))}: no training of it has begun yet")
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for members in groups.values():
        names = list(dict.fromkeys(name for name, _ in members))
        label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        label += f" ({len(members)} seeds)" if len(members) > 1 else ""
        if label in curves:  # of another folder
            label = members[0][1].place
        curves[label] = [run.metrics_rows() for _, run in members]
    return plot.save(plot.learning_curves(curves), Path(out))


def _ghost(run: Run, who: str | Path) -> Trace:
    settings, track = env_settings(run), _course(run)
    if str(who) == "limit":
        rule = settings.rules.off_track
        if rule == "never":
            raise ConfigError("--ghost limit: without an off-track rule there is no limit")
        return fastest_lap(track, load_vehicle(settings.vehicle), rule=rule).trace()
    other = Run.open(who)
    ways = [one.start.direction == "reversed" for one in (settings, env_settings(other))]
    if ways[0] != ways[1]:
        way = ["forward", "reversed"]
        raise ConfigError(
            f"--ghost {who}: its driver learned to drive {way[ways[1]]}, and that of {run.place} "
            f"{way[ways[0]]}; choose one of the same direction"
        )
    report = evaluate(other, track=settings.track_names()[0], trials=1, laps=2)
    if not report.laps_completed:
        raise RunError(f"--ghost {who}: its driver does not lap {track.name}; choose another")
    return report.traces[0]


def _drive(run: Run) -> Report:
    asked = _asked(run)
    return evaluate(run, trials=asked.trials, laps=asked.laps)


def _check_camera(run: Run) -> None:
    seen = env_settings(run).observation.actor
    if not set(CAMERAS) & set(seen):
        raise ConfigError(
            f"--attention: the driver of {run.path} sees {', '.join(seen)} and no picture; choose "
            f"a run whose observation.actor has one of {', '.join(CAMERAS)}"
        )


def _watch(run: Run, trial: int, steps: int, *heats: Heat) -> dict[Heat, Gaze]:
    """Let the driver lap once more, the same to the byte, and watch one trial."""
    settings, asked = env_settings(run), _asked(run)
    plain = resolve(EnvSettings, driver_task(settings)).actions
    assert not isinstance(plain, MetadataActions)  # a driver's task has what the file says
    far = settings.observation.depth.range_max
    gazes = {heat: Gaze(trial, steps, Actions(plain), far, heat) for heat in heats}

    def witness(policy: NumpyPolicy, observation: Mapping[str, Array]) -> None:
        for gaze in gazes.values():
            gaze(policy, observation)

    evaluate(run, trials=asked.trials, laps=asked.laps, witness=witness)
    return gazes


def _asked(run: Run) -> EvaluationSettings:
    tree = read_toml(run.path / "config.toml")
    return resolve(EvaluationSettings, tree.get("evaluation", {}))


def _course(run: Run) -> Track:
    settings = env_settings(run)
    track = load_track(settings.track_names()[0])
    return track.reversed() if settings.start.direction == "reversed" else track


def _plots(run: Run, trace: Trace) -> dict[str, Path]:
    written = {}
    folder = run.folder("plots")
    if run.metrics_rows():
        figure = plot.reward_and_completion(run.metrics_rows(), title=run.name)
        written["training"] = plot.save(figure, folder / "training.png")
    written["track"] = plot.save(plot.track_picture(_course(run), trace), folder / "track.png")
    return written


def _frames(run: Run, trace: Trace) -> int:
    """Return how many rows a film shows.

    The standing lap and a flying one: who wants all of it has the trace.
    """
    most = round(_FILM_SECONDS * env_settings(run).control_rate)
    return min(int(np.searchsorted(trace["lap"], 2)) + 1, most, len(trace["t"]))


def _film(run: Run, trace: Trace, ghost: Trace | None = None) -> Path:
    settings, track = env_settings(run), _course(run)
    seen = settings.observation
    sees = {"camera", "depth", "segmentation"} & set(seen.actor)
    camera = seen.camera if sees else CameraSettings(color="rgb")
    camera = camera.model_copy(update={"stereo_baseline": 0.0})  # of a pair, what is between them
    frames = _frames(run, trace)
    scene: dict[str, Array] = {name: column[:frames] for name, column in trace.items()}
    x, y, yaw = (np.ascontiguousarray(scene[name]) for name in ("x", "y", "yaw"))
    which = np.zeros(len(x), np.int32)
    eye, boxes = Camera(camera, (track,), (settings.look,)), scene.get("boxes")
    if "camera" not in seen.actor and "depth" in seen.actor:
        far = seen.depth.range_max
        depth = eye.depth(x, y, yaw, which, which, boxes=boxes, range_max=far)
        view = depth_picture(depth, far)
    elif "camera" not in seen.actor and "segmentation" in seen.actor:
        view = segmentation_picture(eye.segmentation(x, y, yaw, which, which, boxes=boxes))
    else:
        view = eye.render(x, y, yaw, which, which, boxes=boxes)
    path = run.folder("films") / "evaluation.mp4"
    return write_film(
        path, track, scene, camera=view, ghost=ghost, fps=round(settings.control_rate)
    )
