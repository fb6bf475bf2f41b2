"""DeepRacer's logs, letter by letter: simtrace rows, SIM_TRACE_LOG lines, metrics and file names.

Nothing here reads a clock or writes a file. An episode is an array with one row a control step and
the columns of `FIELDS`, in DeepRacer's units, as `recorder.py` makes it.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/metrics and boto/s3, read for
the fields, formats and names; what readers need besides was measured with deepracer-utils 1.5.6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hotlap.tasks.rules import Status
from hotlap.types import Array, Float64

__all__ = [
    "COLUMNS",
    "FIELDS",
    "FOLDER",
    "HEADER",
    "PAUSED",
    "PREPARE",
    "WORKERS_MOST",
    "checkpoint_note",
    "csv_rows",
    "evaluation_entry",
    "evaluation_paths",
    "header_lines",
    "label",
    "metrics_document",
    "race_log",
    "simtrace_path",
    "stamp",
    "summary_line",
    "trace_lines",
    "training_entry",
    "update_line",
]

COLUMNS = (
    "episode",
    "steps",
    "X",
    "Y",
    "yaw",
    "steer",
    "throttle",
    "action",
    "reward",
    "done",
    "all_wheels_on_track",
    "progress",
    "closest_waypoint",
    "track_len",
    "tstamp",
    "episode_status",
    "pause_duration",
    "obstacle_crash_counter",
    "wall_clock",
)
"""Columns of a simtrace file, and fields of a SIM_TRACE_LOG line."""
FOLDER = "deepracer"
"""Name of a Run's folder with these logs."""
HEADER = ",".join(COLUMNS) + "\n"

FIELDS = tuple(name for name in COLUMNS if name not in ("episode", "done"))
"""Columns of an episode's array. x, y and lengths in metres, yaw and steer in degrees, throttle in
m/s, tstamp in seconds of simulation, wall_clock in seconds since 1970; `episode_status` is a
`Status`, `PREPARE` or `PAUSED`; `action` is an index, -1 where actions are continuous."""

PREPARE, PAUSED = 100, 101
"""DeepRacer's further states: the first row of an episode, and a car that waits for its penalty."""
_WORDS = {
    Status.IN_PROGRESS: "in_progress",
    Status.LAP_COMPLETE: "lap_complete",
    Status.OFF_TRACK: "off_track",
    Status.IMMOBILIZED: "immobilized",
    Status.REVERSED: "reversed",
    Status.TIME_UP: "time_up",
    Status.CRASHED: "crashed",
    PREPARE: "prepare",
    PAUSED: "pause",
}
_AT = {name: column for column, name in enumerate(FIELDS)}
_DECIMALS = 6
"""Of every number in a simtrace file: a micrometre."""
WORKERS_MOST = 10
"""Readers take the one character before `training-simtrace` for the worker's number."""


def _values(episode: Float64, number: int) -> list[tuple[Any, ...]]:
    """Return the 19 values of each row, action and status as words."""
    last = len(episode) - 1
    found = []
    for k, row in enumerate(np.round(episode, _DECIMALS).tolist()):
        (steps, x, y, yaw, steer, throttle, action, reward, wheels, progress, waypoint, length,
         tstamp, status, pause, crashes, wall) = row  # fmt: skip
        chosen = int(action) if action >= 0 else f"[{steer} {throttle}]"
        found.append(
            (number, steps, x, y, yaw, steer, throttle, chosen, reward, k == last, wheels > 0,
             progress, int(waypoint), length, tstamp, _WORDS[int(status)], pause, int(crashes),
             wall)
        )  # fmt: skip
    return found


def csv_rows(episode: Float64, number: int) -> str:
    """Write an episode as rows of a simtrace file, each ended by a newline.

    Args:
        episode: (T, F) by `FIELDS`.
        number: of the episode, from 0, in its worker.
    """
    return "".join([_CSV % row for row in _values(episode, number)])


def trace_lines(episode: Float64, number: int) -> str:
    """Write an episode as SIM_TRACE_LOG lines, each ended by a newline; see `csv_rows`."""
    return "".join([_LINE % row for row in _values(episode, number)])


_CSV = ",".join(["%s"] * len(COLUMNS)) + "\n"
_LINE = (
    "SIM_TRACE_LOG:%d,%d,%.4f,%.4f,%.4f,%.2f,%.2f,%s,%.4f,%s,%s,%.4f,%d,%.2f,%s,%s,%.2f,%d,%.4f\n"
)


def label(status: int) -> str:
    """Return what metrics call a state: `off_track` is "Off track" there."""
    if status == Status.TIME_UP:
        return "Time Up"
    return _WORDS[status].replace("_", " ").capitalize()


def training_entry(episode: Float64, number: int, trial: int) -> dict[str, Any]:
    """Describe a training episode as metrics do.

    Args:
        episode: (T, F) by `FIELDS`.
        number: of the episode, from 1, in its worker.
        trial: of its iteration, from 1.
    """
    reward = float(episode[:, _AT["reward"]].sum())
    first, last = episode[0], episode[-1]
    start, end = (round(1000 * float(row[_AT["tstamp"]])) for row in (first, last))
    return {
        "reward_score": round(reward),
        "metric_time": end,
        "start_time": start,
        "elapsed_time_in_milliseconds": end - start,
        "episode": number,
        "trial": trial,
        "phase": "training",
        "completion_percentage": int(last[_AT["progress"]]),
        "episode_status": label(int(last[_AT["episode_status"]])),
    }


def evaluation_entry(episode: Float64, trial: int) -> dict[str, Any]:
    """Describe a trial of an evaluation as metrics do.

    Args:
        episode: (T, F) by `FIELDS`; rows in which the car waits belong to its time.
        trial: from 1.
    """
    status = episode[:, _AT["episode_status"]].astype(int)
    counted = {
        f"{name}_count": int((status == which).sum())
        for name, which in (
            ("crash", Status.CRASHED),
            ("immobilized", Status.IMMOBILIZED),
            ("off_track", Status.OFF_TRACK),
            ("reversed", Status.REVERSED),
        )
    }
    last = episode[-1]
    start, end = (round(1000 * float(row[_AT["tstamp"]])) for row in (episode[0], last))
    return {
        "completion_percentage": int(last[_AT["progress"]]),
        "metric_time": end,
        "start_time": start,
        "elapsed_time_in_milliseconds": end - start,
        "episode_status": label(status[-1]),
        **counted,
        "reset_count": sum(counted.values()),
        "trial": trial,
    }


def metrics_document(entries: Sequence[str], best_by: str | None) -> bytes:
    """Write a metrics file.

    Args:
        entries: JSON of each entry.
        best_by: what makes a checkpoint the best in training; None for an evaluation, whose file
            does not say.
    """
    end = "" if best_by is None else f', "version": 2.0, "best_model_metric": "{best_by}"'
    return ('{"metrics": [' + ",\n".join(entries) + "]" + end + "}\n").encode()


def checkpoint_note(best: Mapping[str, Any], last: Mapping[str, Any]) -> bytes:
    """Write `deepracer_checkpoints.json`; each with `iteration`, `steps`, `metric` and `time`."""
    found = {
        f"{name}_checkpoint": {
            "name": f"{one['iteration']}_Step-{one['steps']}.ckpt",
            "avg_eval_metric": one["metric"],
            "time_stamp": one["time"],
        }
        for name, one in (("best", best), ("last", last))
    }
    return json.dumps(found).encode() + b"\n"


def summary_line(episode: Float64, number: int, worker: int, iteration: int) -> str:
    """Write what DeepRacer's trainer prints of an episode, which metrics are picked from."""
    reward = float(episode[:, _AT["reward"]].sum())
    steps = int(episode[-1, _AT["steps"]])
    return (
        f"Training> Name=main_level/agent, Worker={worker}, Episode={number}, "
        f"Total reward={round(reward, 2)}, Steps={steps}, Training iteration={iteration}\n"
    )


def update_line(metrics: Mapping[str, Any], epochs: int) -> str:
    """Write what DeepRacer's trainer prints of an update; nothing where it was not by PPO."""
    names = ("policy_loss", "kl", "entropy", "learning_rate")
    if any(name not in metrics for name in names):
        return ""
    loss, kl, entropy, rate = (float(metrics[name]) for name in names)
    return (
        f"Policy training> Surrogate loss={loss:.6g}, KL divergence={kl:.6g}, "
        f"Entropy={entropy:.6g}, training epoch={epochs - 1}, learning_rate={rate:.6g}\n"
    )


def header_lines(
    hyperparameters: Mapping[str, Any], metadata: Mapping[str, Any], world: str
) -> str:
    """Write the beginning of a simulator's log: what readers look for before the first episode."""
    actions = str(metadata["action_space"])
    said = {
        "network": metadata["neural_network"],
        "simapp_version": f"{float(metadata['version']):.1f}",
        "training_algorithm": metadata["training_algorithm"],
        "action_space_type": metadata["action_space_type"],
    }
    words = ", ".join(f"{name} {value}" for name, value in said.items())
    return (
        f" * /WORLD_NAME: {world}\n"
        f"Sensor list {list(metadata['sensor'])!r}, {words} lidar_config "
        f"{dict(metadata.get('lidar_config', {}))!r}\n"
        f"Action space from file: {actions}\n"
        f"Using the following hyper-parameters\n{json.dumps(hyperparameters, indent=2)}\n"
    )


def simtrace_path(iteration: int, worker: int | None) -> str:
    """Return where a training's simtrace goes; a `worker` of None is the only one."""
    folder = "" if worker is None else f"{worker}/"
    return f"{folder}training-simtrace/{iteration}-iteration.csv"


def stamp(seconds: float) -> str:
    """Return the 14 digits by which an evaluation is called, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d%H%M%S")


def evaluation_paths(name: str) -> tuple[str, str]:
    """Return where simtrace and metrics of the evaluation called `name` (14 digits) go."""
    return (
        f"evaluation-{name}/evaluation-simtrace/0-iteration.csv",
        f"metrics/evaluation/evaluation-{name}.json",
    )


def race_log(name: str) -> str:
    """Return where the lines of the race called `name` (14 digits) go; readers want four parts."""
    return f"logs/evaluation/evaluation-{name}-race-robomaker.log"


def nearer(waypoints: Float64, closest: Array, x: Array, y: Array) -> Array:
    """Return which of the two closest waypoints is the nearer one, (N,).

    Args:
        waypoints: (P, 2) of the track, in driving order.
        closest: (N, 2) the ones behind and ahead.
        x: (N,) [m].
        y: (N,) [m].
    """
    point = np.stack([x, y], axis=1)[:, None]
    apart = np.hypot(*np.moveaxis(waypoints[closest] - point, 2, 0))
    return np.take_along_axis(closest, apart.argmin(axis=1)[:, None], axis=1)[:, 0]
