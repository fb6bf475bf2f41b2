"""What each variable of a DeepRacer folder is here: settings of ours, or nothing and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotlap.deepracer.files.environment import Environment, Variable
from hotlap.deepracer.files.findings import Findings, Meaning
from hotlap.deepracer.files.race import BOTS, OBSTACLES, read_race
from hotlap.deepracer.files.values import choice, finite, integer, truth, within
from hotlap.deepracer.logs import WORKERS_MOST
from hotlap.errors import ConfigError, TrackError
from hotlap.track import DEFAULT_TRACK, known_name, load_track, split_names, unknown_track

__all__ = ["VARIABLES", "apply_variables", "find_world"]

METRICS = {"progress": "progress", "reward": "reward", "laptime": "lap_time"}
_SAMPLE_WORLDS = {"easy_track": "easy", "medium_track": "medium", "hard_track": "hard"}
"""The RoboMaker sample's worlds, and courses of ours of that difficulty."""

_LIGHTS = {
    "randomize.looks": 256,
    "randomize.brightness": [0.3, 1.0],
    "randomize.white_balance": 0.5,
}
"""What DeepRacer's randomisation changes: the colour and the strength of the light."""

_STARTS: dict[str, tuple[Any, Any, str]] = {
    "CHANGE_START_POSITION": (True, truth, "start.kind"),
    "REVERSE_DIRECTION": (False, truth, "start.direction"),
    "ALTERNATE_DRIVING_DIRECTION": (False, truth, "start.direction"),
    "START_POSITION_OFFSET": (0.0, within(0, 1, open_high=True), "start.offset"),
    "ROUND_ROBIN_ADVANCE_DIST": (0.05, within(0, 1), "start.advance"),
}
"""DeepRacer's default, what is allowed, and the setting; distances are fractions of a lap."""


def _score(at: str, value: Any) -> float | None:
    return None if str(value).strip().lower() == "none" else finite(at, value)


def _workers(at: str, value: Any) -> int:
    return min(integer(at, value), WORKERS_MOST)


def _count(at: str, value: Any) -> int:
    return 0 if str(value).strip() == "0" else integer(at, value)


_SECONDS, _METRES = within(0, 1000), within(0, 100)

VARIABLES: Mapping[str, Meaning] = {
    "MIN_EVAL_TRIALS": Meaning(("evaluation.trials",), integer),
    "BEST_MODEL_METRIC": Meaning(("evaluation.best_by",), choice(METRICS)),
    "TARGET_REWARD_SCORE": Meaning(("train.target_reward",), _score),
    "WORKERS": Meaning(("log.workers",), _workers),
    "JOB_TYPE": Meaning.nothing("to train is what you asked for"),
    "MULTI_CONFIG": Meaning.nothing("all cars drive the same track"),
    "RTF": Meaning.nothing("the simulation always runs as fast as it can"),
    "MARKOV_PRESET_FILE": Meaning.nothing(
        "a preset is Python for another program; hyperparameters.json says the same things"
    ),
    "EVAL_NUMBER_OF_TRIALS": Meaning.nothing(
        "say it when you evaluate: `hotlap evaluate RUN --trials N`"
    ),
    "EVAL_IS_CONTINUOUS": Meaning.nothing(
        "say it when you evaluate: `hotlap evaluate RUN --deepracer` goes on after a stumble"
    ),
    "EVAL_MAX_RESETS": Meaning(("evaluation.penalties.resets",), _count),
    "EVAL_OFF_TRACK_PENALTY": Meaning(("evaluation.penalties.off_track",), _SECONDS),
    "EVAL_COLLISION_PENALTY": Meaning(("evaluation.penalties.collision",), _SECONDS),
    "EVAL_RESET_BEHIND_DIST": Meaning(("evaluation.penalties.behind",), _METRES),
    "ENABLE_MERCY_RESET": Meaning(("evaluation.penalties.mercy",), truth),
    "MAX_RESETS_AFTER_CRASH": Meaning(("evaluation.penalties.mercy_after",), integer),
    "RESET_AHEAD_DIST": Meaning(("evaluation.penalties.ahead",), _METRES),
    "EVAL_CHECKPOINT": Meaning.nothing(
        "say it when you evaluate: `hotlap evaluate RUN --checkpoint best`"
    ),
}
"""Variables by their plain names."""

_GROUPS = (
    ("EVAL_RTF|RTF_OVERRIDE", VARIABLES["RTF"].why),
    ("EVAL_OPP_.*", "it is of a race of two models: hotlap race FOLDER"),
    (".*PRETRAINED.*", "DR_LOCAL_S3_PRETRAINED is not True"),
    (
        "LOCAL_S3_.*|UPLOAD_.*|AWS_.*|ROS_AWS_.*|S3_.*|.*_S3_.*|METRICS_.*|SIMTRACE_.*|MINIO_.*"
        "|REMOTE_MINIO_.*|MODEL_METADATA_FILE_.*|REWARD_FILE_.*",
        "everything stays in files on this machine",
    ),
    ("EVAL_.*", "it is of evaluations: hotlap evaluate RUN --help"),
    (
        "CAR_.*|BODY_SHELL_TYPE|DISPLAY_NAME|RACER_NAME|CAMERA_.*|VIDEO_.*",
        "it only changes what is displayed",
    ),
    ("RUN_ID|EXPERIMENT_NAME|TRAINING_JOB_ARN|DIR|CURRENT_.*", "every run has its own directory"),
    (
        "(DOCKER|SAGEMAKER|ROBOMAKER|GUI|KINESIS|CLOUD|HOST|CLOUDWATCH|TELEGRAF|SIMAPP|DISPLAY"
        "|WEBVIEWER|ANALYSIS|COACH|CUDA|VIEWER|X_|TMPDIR|LOGS_|METRICS).*",
        "nothing of it is used here",
    ),
)
"""Groups of variables without effect, by pattern, and the reason."""
_ELSEWHERE = (
    "WORLD_NAME",
    "RACE_TYPE",
    "ENABLE_DOMAIN_RANDOMIZATION",
    "MAX_STEPS_PER_ITERATION",
    *_STARTS,
    *OBSTACLES,
    *BOTS,
)
"""Names that functions below read."""


def apply_variables(
    folder: Path, environment: Environment, findings: Findings, *, track: str | None
) -> None:
    """Take what the variables of a folder say.

    Args:
        folder: whose own track files are looked for.
        environment: its variables; those that other code has answered are taken out.
        findings: are added to.
        track: a track that was asked for elsewhere; the folder's worlds are then not looked up.

    Raises:
        ConfigError: a value is not allowed; the message names file, line and name.
        TrackError: a world is not known here.
    """
    found = dict(environment.variables)
    job = found.get("JOB_TYPE")
    if job is not None and job.text.upper() == "EVALUATION":
        raise ConfigError(
            f"{job.at}: {job.text} is no training; once there is a driver: hotlap evaluate RUN"
        )
    _read_world(folder, found, environment.workers, findings, track)
    _read_starts(found, findings)
    read_race(found, findings, lambda: _inner_is_left(findings))
    if light := found.pop("ENABLE_DOMAIN_RANDOMIZATION", None):
        if light.text and truth(light.at, light.text):
            findings.apply(light.said, _LIGHTS)
        else:
            findings.note(f"{light.said}: every episode looks the same")
    if most := found.pop("MAX_STEPS_PER_ITERATION", None):
        if "algorithm.episodes" not in findings.settings or not most.text:
            why = (
                "an update has algorithm.horizon steps of every car" if most.text else "it is empty"
            )
            findings.nothing(most.said, why)
        else:
            findings.apply(most.said, {"algorithm.batch_max": integer(most.at, most.text)})
    if environment.workers and "MULTI_CONFIG" in found:
        findings.note(f"{found.pop('MULTI_CONFIG').said}: see the workers")
    _apply(found, findings)
    _compare_workers(environment, findings)


def _apply(variables: Mapping[str, Variable], findings: Findings) -> None:
    """Take variables that are each one line of a table; those of one reason share a sentence."""
    together: dict[tuple[str, str], list[Variable]] = {}
    for name, variable in variables.items():
        meaning = VARIABLES.get(name)
        if not variable.text:
            together.setdefault((variable.file, "empty"), []).append(variable)
        elif meaning is not None and meaning.check is not None:
            value = meaning.check(variable.at, variable.text)
            if value is None:
                findings.note(f"{variable.said}: there is none")
            else:
                findings.apply(variable.said, dict.fromkeys(meaning.settings, value))
        elif meaning is not None:
            findings.nothing(variable.said, meaning.why)
        elif why := _group(name):
            together.setdefault((variable.file, why), []).append(variable)
        else:
            findings.unknown(variable.said, variable.word, _spelt(variable.word))
    for (file, why), several in together.items():
        words = ", ".join(variable.word for variable in several)
        have = "have" if len(several) > 1 else "has"
        findings.note(f"{file}: {words} {have} no effect: {why}")


def _group(name: str) -> str:
    return next((why for pattern, why in _GROUPS if re.fullmatch(pattern, name)), "")


def _spelt(word: str) -> list[str]:
    """Return all names that are known, spelt with prefixes if the given word has one."""
    names = [*VARIABLES, *_ELSEWHERE]
    if not word.upper().startswith("DR_"):
        return names
    of_training = ("MIN_EVAL_TRIALS", "BEST_MODEL_METRIC", "MULTI_CONFIG", "RTF", *_STARTS)
    of_training += ("MAX_STEPS_PER_ITERATION",)
    first = dict.fromkeys(of_training, "DR_TRAIN_")
    first |= dict.fromkeys(OBSTACLES, "DR_OA_") | dict.fromkeys(BOTS, "DR_H2B_")
    return [first.get(name, "DR_") + name for name in names]


def _read_world(
    folder: Path,
    found: dict[str, Variable],
    workers: Mapping[int, Mapping[str, Variable]],
    findings: Findings,
    track: str | None,
) -> None:
    """Set the tracks: the world of run.env, and those of the further workers."""
    given = [found.pop("WORLD_NAME", None)]
    given += [worker.get("WORLD_NAME") or given[0] for worker in workers.values()]
    worlds = [world for world in given if world is not None and world.text]
    if track is not None:
        findings.settings["track"] = track
        for world in worlds:
            findings.nothing(world.said, f"the track {track} was asked for")
        return
    if not worlds:
        findings.note("no DR_WORLD_NAME is given: hotlap's own track is used")
        return
    names = [find_world(folder, world) for world in worlds]
    findings.settings["track"] = ",".join(names)
    shown = findings.shown("track")
    if len(names) > 1:
        shown += f", over which the cars take turns: {len(names)} workers"
    for world, name in dict(zip(worlds, names, strict=True)).items():
        own = name == _SAMPLE_WORLDS.get(world.text)
        why = ", a course of hotlap's own of that difficulty" if own else ""
        findings.note(f"{world.said}: {shown}{why}")


def find_world(folder: Path, world: Variable) -> str:
    """Return the track that a variable calls by its name or id: of the folder, or known here."""
    name = world.text.removesuffix(".npy")
    for place in (folder, folder / "tracks"):
        file = place / f"{name}.npy"
        if re.fullmatch(r"[\w.+-]+", name) and file.is_file():
            return str(file)
    known = known_name(name) or _SAMPLE_WORLDS.get(name)
    if known is None:
        raise TrackError(
            f"{world.at}: {unknown_track(name)} Or put {name}.npy into the folder or its tracks/."
        )
    return known


def _read_starts(found: dict[str, Variable], findings: Findings) -> None:
    """Set where and in which direction episodes start, given or as DeepRacer assumes."""
    values: dict[str, Any] = {}
    given: dict[str, Variable] = {}
    for name, (default, check, _) in _STARTS.items():
        variable = found.pop(name, None)
        values[name] = default
        if variable is not None:
            given[name] = variable
            values[name] = check(variable.at, variable.text) if variable.text else default
    direction = "reversed" if values["REVERSE_DIRECTION"] else "forward"
    if values["ALTERNATE_DRIVING_DIRECTION"]:
        direction = "alternate"
    findings.settings |= {
        "start.kind": "round_robin" if values["CHANGE_START_POSITION"] else "line",
        "start.direction": direction,
        "start.offset": values["START_POSITION_OFFSET"],
        "start.advance": values["ROUND_ROBIN_ADVANCE_DIST"],
    }
    for name, variable in given.items():
        findings.note(f"{variable.said}: {findings.shown(_STARTS[name][2])}")


def _inner_is_left(findings: Findings) -> bool:
    """Tell whether the inner border is on the left of who drives as the settings say."""
    settings = findings.settings
    track = load_track(split_names(settings.get("track", DEFAULT_TRACK))[0])
    (ax, ay), (bx, by) = track.centre[1] - track.centre[0], track.inner[0] - track.centre[0]
    return bool((ax * by - ay * bx > 0) != (settings["start.direction"] == "reversed"))


def _compare_workers(environment: Environment, findings: Findings) -> None:
    """Say of each further worker what it shares with the first, and what cannot differ."""
    first = environment.variables
    for worker in environment.workers.values():
        alike: list[Variable] = []
        others: dict[str, Variable] = {}
        for name, variable in worker.items():
            was = first[name].text if name in first else ""
            if name == "WORLD_NAME":
                continue
            if variable.text.lower() == was.lower():
                alike.append(variable)
            elif name in VARIABLES or name in _ELSEWHERE:
                says = f"says {was}" if was else "leaves it as it is"
                findings.nothing(
                    variable.said, f"only the track can differ by worker, and run.env {says}"
                )
            else:
                others[name] = variable
        if alike:
            words = ", ".join(variable.word for variable in alike)
            findings.note(f"{alike[0].file}: as in run.env: {words}")
        _apply(others, findings)
