"""A DeepRacer folder as settings of ours: whatever is read is applied, what has no effect is said.

It holds `reward_function.py` and may hold `model_metadata.json`, `hyperparameters.json` (each also
looked up in `custom_files/`) and `run.env`, as racers keep them for DeepRacer-for-Cloud.

Source: aws-deepracer-community/deepracer-for-cloud, defaults/ and scripts/training, read for the
names and defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotlap.algorithms.settings import DEEPRACER_CNNS
from hotlap.deepracer.metadata import (
    LIDARS,
    STEREO_BASELINE,
    Continuous,
    Metadata,
    read_json,
)
from hotlap.deepracer.race import read_race
from hotlap.deepracer.values import choice, integer, truth, within
from hotlap.errors import ConfigError, RewardError, TrackError
from hotlap.track import DEFAULT_TRACK, load_track, split_names, track_names

__all__ = ["FolderPlan", "read_folder"]

CARS, SECONDS = 32, 180
"""Cars at once, and seconds of training: what suits a 160x120 network on a laptop. With twice the
cars, and so half as many updates, it took longer to the first clean laps."""

SAC_CAPACITY, SAC_RATIO = 50_000, 0.125
"""Images that SAC remembers, 1 GB of them at 160x120, and gradient steps for each."""

STEPS_A_SECOND = 15
STEPS_MOST = 10_000
"""DeepRacer ends an episode after this many steps."""

LOSSES = {"mean squared error": "mse", "mean_squared_error": "mse", "huber": "huber"}
METRICS = {"progress": "progress", "reward": "reward", "laptime": "lap_time"}
LIDAR_KINDS = dict(
    zip(LIDARS, ("deepracer", "deepracer_sectors", "deepracer_discretized"), strict=True)
)
"""Our name of each of DeepRacer's LIDARs."""


@dataclass(frozen=True)
class FolderPlan:
    """What a folder asks for."""

    settings: dict[str, Any]
    """Dotted names of our settings and their values."""
    notes: list[str]
    """A sentence for everything that was read: where it went, or why it has no effect."""


def read_folder(path: str | Path, *, track: str | None = None) -> FolderPlan:
    """Read a DeepRacer folder. Nothing in it is executed; the reward file is only found.

    Args:
        path: the folder.
        track: a track that was asked for elsewhere; the folder's world is then not looked up.

    Raises:
        RewardError: there is no `reward_function.py`.
        ConfigError: a file is broken or a value is not allowed; the message names file and key.
        TrackError: the world is not known here.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise ConfigError(f"{path}: no such folder")
    plan = _Plan(folder)
    plan.read_reward()
    plan.read_metadata()
    plan.read_hyperparameters()
    plan.read_environment(track)
    return FolderPlan(settings=plan.settings, notes=plan.notes)


class _Plan:
    """Collects settings and notes, one method a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = [folder, folder / "custom_files"]
        self._by_sac = False
        self.notes: list[str] = []
        self.settings: dict[str, Any] = {
            "vehicle": "deepracer",
            "observation.actor": ["camera"],
            "observation.camera.width": 160,
            "observation.camera.height": 120,
            "observation.camera.color": "grey",
            "rules.off_track": "all_wheels",
            "rules.reversed_steps": 15,
            "rules.immobilized_steps": 15,
            "rules.laps": 1,
            "rules.time_limit": round(STEPS_MOST / STEPS_A_SECOND, 1),
            "train.cars": CARS,
            "train.seconds": SECONDS,
        }
        self.notes.append(
            f"{CARS} cars drive at once (train.cars) for {SECONDS} s (train.seconds); settings "
            "given on the command line win over all that the folder says"
        )

    def read_reward(self) -> None:
        path = self._find("reward_function.py")
        if path is None:
            raise RewardError(
                f"{self._folder}: has no reward_function.py, nor has its custom_files/; "
                "write one with `def reward_function(params):` that returns a number"
            )
        self.settings |= {
            "reward.kind": "file",
            "reward.path": str(path),
            "reward.timing": "deepracer",
        }
        self._note(f"{self._name(path)}: rewards the state before its action, as DeepRacer does")

    def read_metadata(self) -> None:
        path = self._find("model_metadata.json")
        if path is None:
            found = Metadata()
            name = "default action space"
            self._note("model_metadata.json is absent: DeepRacer's default of 5 actions is used")
        else:
            found = Metadata.read(path)
            name = self._name(path)
        if isinstance(found.actions, Continuous):
            self.settings |= {
                "actions.kind": "continuous",
                "actions.steering_low_deg": found.actions.steering_low,
                "actions.steering_high_deg": found.actions.steering_high,
                "actions.speed_low": found.actions.speed_low,
                "actions.speed_high": found.actions.speed_high,
            }
            actions = "continuous actions"
            speeds = [found.actions.speed_low, found.actions.speed_high]
            angles = [found.actions.steering_low, found.actions.steering_high]
        else:
            self.settings |= {
                "actions.kind": "list",
                "actions.list": [list(action) for action in found.actions],
            }
            actions = f"{len(found.actions)} actions"
            angles, speeds = ([action[i] for action in found.actions] for i in (0, 1))
        self._note(
            f"{name}: {actions}, steering {min(angles):g} to {max(angles):g} degrees, "
            f"speed {min(speeds):g} to {max(speeds):g} m/s"
        )
        if min(speeds) < 0.1 or max(speeds) > 4 or max(map(abs, angles)) > 30:
            self._note(
                f"{name}: the car obeys -30 to 30 degrees and 0.1 to 4 m/s; the "
                "reward function sees what was asked"
            )
        self.settings["algorithm.network.cnn"] = DEEPRACER_CNNS[found.network]
        self._note(
            f"{name}: neural_network = {found.network}: {self._set('algorithm.network.cnn')}"
        )
        for sensor in found.sensors:
            if sensor in LIDARS:
                self._see_by_lidar(name, sensor, found.lidar)
            elif sensor == "STEREO_CAMERAS":
                self.settings["observation.camera.stereo_baseline"] = STEREO_BASELINE
                self._note(f"{name}: sensor {sensor}: a pair of grey cameras of 160x120 pixels")
            else:
                self._note(f"{name}: sensor {sensor}: one grey camera of 160x120 pixels")
        if found.algorithm == "sac":
            self._by_sac = True
            self.settings |= {
                "algorithm.kind": "sac",
                "algorithm.capacity": SAC_CAPACITY,
                "algorithm.update_ratio": SAC_RATIO,
            }
            also = ", among choices, which DeepRacer cannot"
            self._note(
                f"{name}: training_algorithm = sac: SAC"
                f"{'' if isinstance(found.actions, Continuous) else also}; "
                f"{self._set('algorithm.capacity')}, {self._set('algorithm.update_ratio')}"
            )
        else:
            self._note(f"{name}: training_algorithm = {found.algorithm}: PPO, clipped")
        if path is not None:
            data = read_json(path)
            if "version" in data:
                same = "version 5 and 6" if found.version >= 5 else "version 5, which differs"
                self._nothing(name, f"version = {found.version}", f"the car is that of {same}")
            if "lidar_config" in data and "DISCRETIZED_SECTOR_LIDAR" not in found.sensors:
                self._nothing(name, "lidar_config", "only DISCRETIZED_SECTOR_LIDAR has one")
        for key in found.unknown:
            self._nothing(name, key, "it is not a key of DeepRacer's")

    def _see_by_lidar(self, name: str, sensor: str, config: tuple[int, int, float]) -> None:
        self.settings |= {
            "observation.actor": ["camera", "lidar"],
            "observation.lidar.kind": LIDAR_KINDS[sensor],
        }
        said = self._set("observation.lidar.kind")
        if sensor == "DISCRETIZED_SECTOR_LIDAR":
            for setting, value in zip(("sectors", "steps", "clip"), config, strict=True):
                self.settings[f"observation.lidar.{setting}"] = value
                said += f", {self._set(f'observation.lidar.{setting}')}"
        self._note(f"{name}: sensor {sensor}: {said}")

    def read_hyperparameters(self) -> None:
        path = self._find("hyperparameters.json")
        if path is None:
            self._note("hyperparameters.json is absent: hotlap's own learning settings are used")
            return
        name = self._name(path)
        plain, without = (_SAC, _NOT_SAC) if self._by_sac else (_PLAIN, _NOT_PPO)
        for key, value in read_json(path).items():
            at = f"{path}: {key}"
            if key in plain:
                settings, check = plain[key]
                self.settings |= {setting: check(at, value) for setting in settings}
                if key == "lr" and not self._by_sac:
                    self.settings["algorithm.schedule"] = "constant"
                    settings = (*settings, "algorithm.schedule")
                self._note(f"{name}: {key}: {', '.join(self._set(s) for s in settings)}")
            elif key == "exploration_type":
                why = "actions are drawn from the policy's own distribution"
                if choice({"categorical": "own", "e-greedy": "random"})(at, value) == "random":
                    self._nothing(name, f"{key} = {value}", f"there is no e-greedy yet; {why}")
                else:
                    self._note(f"{name}: {key} = {value}: {why}")
            else:
                why = without.get(key) or _HYPERPARAMETERS.get(key, "it is not known")
                self._nothing(name, key, why)

    def read_environment(self, track: str | None) -> None:
        path = self._folder / "run.env"
        found: dict[str, tuple[str, str]] = {}
        if path.is_file():
            found = _environment(path)
        else:
            self._note(
                "run.env is absent: as in DeepRacer, each episode starts 0.05 of a lap further"
            )
        word, world = found.pop("WORLD_NAME", ("", ""))
        if track is not None:
            self.settings["track"] = track
            if world:
                self._nothing("run.env", f"{word} = {world}", f"the track {track} was asked for")
        elif world:
            self._read_world(word, world)
        else:
            self._note("no DR_WORLD_NAME is given: hotlap's own track is used")
        self._read_starts(path, found)
        self._read_race(path, found)
        for key, (word, value) in found.items():
            self._read_variable(path, key, word, value)

    def _read_world(self, word: str, world: str) -> None:
        for place in (self._folder, self._folder / "tracks"):
            file = place / f"{world}.npy"
            if re.fullmatch(r"[\w.+-]+", world) and file.is_file():
                self.settings["track"] = str(file)
                break
        else:
            if world not in track_names():
                raise TrackError(
                    f"{self._folder / 'run.env'}: {word}: world {world!r} is not known here. Put "
                    f"{world}.npy into the folder or its tracks/, or add it for good with "
                    f"`hotlap tracks add {world}.npy`. Known: {', '.join(track_names())}"
                )
            self.settings["track"] = world
        self._note(f"run.env: {word} = {world}: {self._set('track')}")

    def _read_starts(self, path: Path, found: dict[str, tuple[str, str]]) -> None:
        """Set where and in which direction episodes start, given or as DeepRacer assumes."""
        values: dict[str, Any] = {}
        for key, (default, check) in _STARTS.items():
            word, text = found.get(key, ("", ""))
            values[key] = check(f"{path}: {word}", text) if text else default
        direction = "reversed" if values["REVERSE_DIRECTION"] else "forward"
        if values["ALTERNATE_DRIVING_DIRECTION"]:
            direction = "alternate"
        self.settings |= {
            "start.kind": "round_robin" if values["CHANGE_START_POSITION"] else "line",
            "start.direction": direction,
            "start.offset": values["START_POSITION_OFFSET"],
            "start.advance": values["ROUND_ROBIN_ADVANCE_DIST"],
        }
        targets = {
            "CHANGE_START_POSITION": "start.kind",
            "REVERSE_DIRECTION": "start.direction",
            "ALTERNATE_DRIVING_DIRECTION": "start.direction",
            "START_POSITION_OFFSET": "start.offset",
            "ROUND_ROBIN_ADVANCE_DIST": "start.advance",
        }
        for key, target in targets.items():
            if key in found:
                word, text = found.pop(key)
                self._note(f"run.env: {word} = {text}: {self._set(target)}")

    def _read_race(self, path: Path, found: dict[str, tuple[str, str]]) -> None:
        """Set what shares the road, and whether it looks the same every time."""
        settings, notes = read_race(path, found, self._inner_is_left)
        self.settings |= settings
        self.notes += notes
        if "ENABLE_DOMAIN_RANDOMIZATION" in found:
            word, text = found.pop("ENABLE_DOMAIN_RANDOMIZATION")
            if text and truth(f"{path}: {word}", text):
                self.settings |= _LIGHTS
                lights = ", ".join(self._set(name) for name in _LIGHTS)
                self._note(f"run.env: {word} = {text}: {lights}")
            else:
                self._note(f"run.env: {word} = {text}: every episode looks the same")

    def _inner_is_left(self) -> bool:
        """Tell whether the inner border is on the left of who drives as the settings say."""
        track = load_track(split_names(self.settings.get("track", DEFAULT_TRACK))[0])
        (ax, ay), (bx, by) = track.centre[1] - track.centre[0], track.inner[0] - track.centre[0]
        return bool((ax * by - ay * bx > 0) != (self.settings["start.direction"] == "reversed"))

    def _read_variable(self, path: Path, key: str, word: str, value: str) -> None:
        at = f"{path}: {word}"
        if not value:
            self._nothing("run.env", word, "it is empty")
        elif key == "MIN_EVAL_TRIALS":
            self.settings["evaluation.trials"] = integer(at, value)
            self._note(f"run.env: {word} = {value}: {self._set('evaluation.trials')}")
        elif key == "BEST_MODEL_METRIC":
            self.settings["evaluation.best_by"] = choice(METRICS)(at, value)
            self._note(f"run.env: {word} = {value}: {self._set('evaluation.best_by')}")
        else:
            why = next(
                (why for pattern, why in _VARIABLES if re.fullmatch(pattern, key)),
                "it is not known",
            )
            self._nothing("run.env", f"{word} = {value}", why)

    def _find(self, name: str) -> Path | None:
        return next((place / name for place in self._places if (place / name).is_file()), None)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _set(self, setting: str) -> str:
        return f"{setting} = {json.dumps(self.settings[setting])}"

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _nothing(self, file: str, what: str, why: str) -> None:
        self.notes.append(f"{file}: {what} has no effect: {why}")


def _environment(path: Path) -> dict[str, tuple[str, str]]:
    """Read shell-style KEY=VALUE lines: plain key -> (as written, value); the last one wins."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    found = {}
    for row, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{path}:{row}: must be KEY=VALUE, with quotes around a value that has spaces "
                f"(got {line.strip()})"
            )
        word, value = match["key"], match["value"]
        if value[:1] in ("'", '"'):
            value = value[1:-1]
        key = word.upper().removeprefix("DR_").removeprefix("TRAIN_")
        found[_ALIASES.get(key, key)] = word, value
    return found


_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<key>[A-Za-z_]\w*)=(?P<value>'[^']*'|"[^"]*"|[^\s'"]*)\s*(?:\s\#.*)?"""
)
"""KEY=VALUE, perhaps quoted, perhaps with a comment."""

_PLAIN: dict[str, tuple[tuple[str, ...], Callable[[str, Any], Any]]] = {
    "batch_size": (("algorithm.minibatch",), integer),
    "lr": (("algorithm.learning_rate",), within(0, 1, open_low=True)),
    "num_epochs": (("algorithm.epochs",), integer),
    "discount_factor": (("algorithm.gamma",), within(0, 1, open_high=True)),
    "beta_entropy": (("algorithm.entropy",), within(0, 1)),
    "loss_type": (("algorithm.value_loss",), choice(LOSSES)),
    "term_cond_max_episodes": (("train.episodes",), integer),
}
"""Hyperparameters of PPO that are settings of ours under another name."""

_SAC: dict[str, tuple[tuple[str, ...], Callable[[str, Any], Any]]] = {
    "batch_size": _PLAIN["batch_size"],
    "lr": (("algorithm.learning_rate", "algorithm.critic_learning_rate"), _PLAIN["lr"][1]),
    "discount_factor": _PLAIN["discount_factor"],
    "sac_alpha": (("algorithm.temperature",), within(0, 1)),
    "term_cond_max_episodes": _PLAIN["term_cond_max_episodes"],
}
"""The same of SAC."""

_NOT_PPO = {"sac_alpha": "it is of SAC, and training_algorithm asks for PPO"}
_NOT_SAC = dict.fromkeys(
    ("num_epochs", "beta_entropy", "loss_type"), "it is of PPO, and training_algorithm asks for SAC"
)

_HYPERPARAMETERS = {
    "num_episodes_between_training": "many cars drive at once, and the policy is updated whenever "
    "each has driven algorithm.horizon steps, not after whole episodes",
    "e_greedy_value": "actions are drawn from the policy's own distribution",
    "epsilon_steps": "actions are drawn from the policy's own distribution",
    "stack_size": "DeepRacer reads it and then stacks nothing either",
    "term_cond_avg_score": "training stops by train.episodes, train.steps or train.seconds",
}

_LIGHTS = {
    "randomize.looks": 256,
    "randomize.brightness": [0.3, 1.0],
    "randomize.white_balance": 0.5,
}
"""What DeepRacer's randomisation changes: the colour and the strength of the light."""

_STARTS: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "CHANGE_START_POSITION": (True, truth),
    "REVERSE_DIRECTION": (False, truth),
    "ALTERNATE_DRIVING_DIRECTION": (False, truth),
    "START_POSITION_OFFSET": (0.0, within(0, 1, open_high=True)),
    "ROUND_ROBIN_ADVANCE_DIST": (0.05, within(0, 1)),
}
"""DeepRacer's defaults and what is allowed; distances are fractions of a lap."""

_ALIASES = {"REVERSE_DIR": "REVERSE_DIRECTION", "NUM_WORKERS": "WORKERS"}

_VARIABLES = (
    ("WORKERS", "one process drives all cars, as many as the settings say"),
    ("RTF|EVAL_RTF|RTF_OVERRIDE", "the simulation always runs as fast as it can"),
    ("MAX_STEPS_PER_ITERATION", "an update has algorithm.horizon steps of every car"),
    ("MULTI_CONFIG", "all cars drive the same track; worker-N.env files are not read"),
    (
        ".*PRETRAINED.*",
        "models of DeepRacer are not read; `hotlap train FOLDER --from RUN` takes one of ours",
    ),
    ("LOCAL_S3_.*|UPLOAD_.*|AWS_.*|S3_.*|.*_S3_.*", "everything stays in files on this machine"),
    ("EVAL_NUMBER_OF_TRIALS", "say it when you evaluate: `hotlap evaluate RUN --trials N`"),
    ("EVAL_CHECKPOINT", "say it when you evaluate: `hotlap evaluate RUN --checkpoint best`"),
    ("EVAL_.*", "an evaluation of ours ends a trial at the end of the lap or off the track"),
    ("CAR_.*|BODY_SHELL_TYPE|DISPLAY_NAME|RACER_NAME", "it only changes what is displayed"),
    ("RUN_ID|EXPERIMENT_NAME", "every run has a directory of its own"),
    ("TARGET_REWARD_SCORE", "training stops by train.episodes, train.steps or train.seconds"),
    (
        "(DOCKER|SAGEMAKER|ROBOMAKER|GUI|KINESIS|CLOUD|HOST|CLOUDWATCH|TELEGRAF).*",
        "nothing of it is used here",
    ),
)
"""Variables without effect, by pattern, and the reason."""
