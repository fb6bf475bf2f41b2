"""Plan: what is to be trained, read from files, folders and words, and what may change later."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hotlap.algorithms.learner import (
    AlgorithmSettings,
)
from hotlap.algorithms.settings import DistillSettings, PPOSettings, check_actions
from hotlap.config import Settings, read_toml, resolve
from hotlap.crew import Driver
from hotlap.deepracer.files.folder import read_folder
from hotlap.deepracer.recorder import LogSettings
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.settings import ObservationSettings, is_discrete
from hotlap.errors import ConfigError, RunError
from hotlap.inputs import changed_inputs
from hotlap.opponents import SELF
from hotlap.runs import Run
from hotlap.runs.storage import is_url, url_of
from hotlap.tasks.actions import MetadataActions
from hotlap.tasks.rewards import FileReward, FunctionReward
from hotlap.track import whole_names
from hotlap.trials import EvaluationSettings

__all__ = [
    "DistributedSettings",
    "Plan",
    "TrainConfig",
    "TrainSettings",
    "anchored",
    "changeable",
    "changes",
    "check_reward",
    "continued",
    "noticed",
    "read_config",
    "refuse_changes",
]

_CHANGEABLE = tuple(
    f"train.{name}"
    for name in (
        "seconds",
        "steps",
        "episodes",
        "target_reward",
        "checkpoint_seconds",
        "keep",
        "device",
    )
) + tuple(f"distributed.{name}" for name in ("workers", "address", "threads", "staleness"))
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
    target_reward: float | None = None
    """Mean reward of the last 100 episodes at which it ends, whatever is left of the budget; None:
    at no reward."""
    checkpoint_seconds: PositiveFloat = 20.0
    """Time between two checkpoints, besides those of better drivers."""
    keep: PositiveInt = 3
    """How many of the newest checkpoints stay; the best one stays besides."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to learn; auto: on a GPU where there is one."""


class DistributedSettings(Settings):
    """Which processes and machines train together."""

    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """Processes that drive and learn, on this machine or those of a Ray cluster; 0: this one alone.
    The cars are shared out among them."""
    share: Literal["auto", "gradients", "experience", "weights"] = "auto"
    """What travels. `gradients`: of every gradient step, summed, so that n workers learn what one
    would from all cars. `experience`: what the cars saw, to a learner in this process; to the bit
    what no workers give. `weights`: what a worker's own learning changed, once a round. `auto`:
    gradients, but experience where a replay holds numbers and no pictures."""
    synchronous: bool = True
    """Whether all wait for the slowest. Otherwise, with `weights`, each goes on from what the
    parameter server has, and with `experience` the cars drive on while the learner learns."""
    staleness: PositiveInt = 8
    """Versions that what a worker learned from may lie behind the parameter server's before it is
    dropped; where workers do not wait for each other."""
    address: str = ""
    """Of a Ray cluster, host:port or `auto`; empty: Ray starts on this machine for this training.
    The environment variable RAY_ADDRESS stands in for it."""
    threads: NonNegativeInt = 0
    """Processor cores of each worker; 0: this machine's, shared out, or 1 in a cluster."""


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
    log: LogSettings = LogSettings()
    """What is logged in DeepRacer's way."""
    distributed: DistributedSettings = DistributedSettings()
    """Which processes and machines train together."""


@dataclass(frozen=True)
class Plan:
    """A configuration, and what is to be said about where it came from."""

    config: TrainConfig
    notes: tuple[str, ...] = ()
    name: str = ""
    """What the Run is to be called, if that is said."""
    weights_from: Path | None = None
    """The Run whose driver it starts from, if that is said,"""
    checkpoint: Literal["best", "last"] = "best"
    """and which of its drivers."""


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
    if is_url(source):
        raise ConfigError(
            f"{url_of(source)}: a configuration is a file on this machine. To continue a Run: "
            f"hotlap train --resume {url_of(source)}; to start anew from its driver: hotlap train "
            f"--from {url_of(source)}"
        )
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
        found = read_folder(path, track=(overrides or {}).get("track"))
        return Plan(
            resolve(TrainConfig, found.settings, overrides or {}),
            tuple(found.notes),
            found.name,
            found.weights_from,
            found.checkpoint,
        )
    return Plan(resolve(TrainConfig, read_toml(path), overrides or {}))


def anchored(config: TrainConfig) -> TrainConfig:
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
    rivals = [name if name == SELF else Run.open(name).address
              for name in config.opponents.drivers]  # fmt: skip
    changed["opponents"] = config.opponents.model_copy(update={"drivers": tuple(rivals)})
    if isinstance(config.actions, MetadataActions):
        changed["actions"] = config.actions.model_copy(update={"path": whole(config.actions.path)})
    if isinstance(config.algorithm, DistillSettings) and config.algorithm.teacher:
        teacher = Run.open(config.algorithm.teacher).address
        changed["algorithm"] = config.algorithm.model_copy(update={"teacher": teacher})
    return config.model_copy(update=changed)


def check_reward(config: TrainConfig, drivers: Mapping[str, Driver] | None = None) -> list[str]:
    """Let a user's reward judge a step before work begins; return what is to be said about it.

    Args:
        config: what is to be trained.
        drivers: saved opponents by name, where they need not be read from their Runs.

    Raises:
        ConfigError: the reward is wrong; the message names file and line.
    """
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
    from hotlap.deepracer.rewards.batch import prepared_file
    from hotlap.deepracer.rewards.trial import try_file

    others, rivals = config.traffic.bots + config.traffic.cars - 1, config.opponents
    counts = [others + rivals.cars] if rivals.drivers and rivals.share else [others]
    if rivals.drivers and (0 < rivals.share < 1 or SELF in rivals.drivers):
        counts.append(others)  # with empty places, as at the start before there are past versions
    reward, track, notes = config.reward, config.tracks()[0], dict[str, None]()
    boxes = config.traffic.obstacles
    for count in counts:
        found = try_file(Path(reward.path), track, obstacles=boxes, cars=count, allow=reward.allow)
        notes |= dict.fromkeys(found)
    prepared = prepared_file(
        reward.path,
        track,
        allow=reward.allow,
        cars=boxes + others,
        compiled=reward.compiled,
    )
    allowed = f" It may also: {', '.join(reward.allow)}" if reward.allow else ""
    return [
        f"reward: {reward.path} is executed, and passed its check{allowed}",
        f"reward: {prepared.told()}",
        *notes,
    ]


def continued(run: Run, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run with what was changed when it was resumed or rolled back.

    Only its budget may be changed now.
    """
    first = read_toml(run.path / "config.toml")
    kinds = ("resumed", "rolled_back")
    before = [event.get("settings", {}) for event in run.events() if event["kind"] in kinds]
    config = resolve(TrainConfig, first, *before, overrides)
    refuse_changes(changes(resolve(TrainConfig, first, *before), config), run.place)
    return config


def noticed(run: Run, config: TrainConfig) -> Plan:
    """Refuse what has changed since a run began; a reward file may have been mended."""
    if "imported" in run.meta:
        raise RunError(
            f"{run.place} was imported, and holds a driver but no training that could go on. To "
            f"train on from it: hotlap train --from {run.place}"
        )
    changed = changed_inputs(run, config)
    wrong = [name for name in changed if not name.startswith("reward ")]
    if wrong:
        raise RunError(
            f"{', '.join(wrong)}: changed since {run.place} began, so that it cannot continue "
            f"exactly. Put back what was there, or train on with: hotlap train --from {run.place}"
        )
    return Plan(config, tuple(f"{name}: changed since {run.place} began" for name in changed))


def changeable(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some changed settings that leave a continued training what it is."""
    return {name: value for name, value in changed.items() if name in _CHANGEABLE}


def refuse_changes(changed: Mapping[str, Any], place: str) -> None:
    """Refuse settings that would make another training of the one at `place`.

    Raises:
        ConfigError: one of them is more than its budget.
    """
    wrong = [name for name in changed if name not in _CHANGEABLE]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: --resume continues exactly, so that only "
            f"{', '.join(_CHANGEABLE)} may be changed. "
            f"To train on with other settings: hotlap train --from {place}"
        )


def changes(old: Settings, new: Settings, above: str = "") -> dict[str, Any]:
    """Return the settings by dotted name in which `new` differs from `old`."""
    found: dict[str, Any] = {}
    for name, value in new:
        was = getattr(old, name, None)
        if isinstance(value, Settings) and isinstance(was, type(value)):
            found |= changes(was, value, f"{above}{name}.")
        elif value != was:
            found[above + name] = value
    return found
