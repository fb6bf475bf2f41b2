"""A DeepRacer folder as settings of ours: whatever is read is applied, what has no effect is said.

It holds `reward_function.py` and may hold `model_metadata.json`, `hyperparameters.json` and files
of variables, as racers keep them for DeepRacer-for-Cloud, as its bucket does, or as a RoboMaker
sample.

Source: aws-deepracer-community/deepracer-for-cloud, defaults/ and scripts/training, read for the
names and defaults.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hotlap.deepracer.files.documents import Document, is_there, near
from hotlap.deepracer.files.environment import Environment, read_environment
from hotlap.deepracer.files.findings import Findings
from hotlap.deepracer.files.hyperparameters import read_hyperparameters
from hotlap.deepracer.files.metadata import KEYS, LIDARS, STEREO_BASELINE, Continuous, Metadata
from hotlap.deepracer.files.values import choice, truth
from hotlap.deepracer.files.variables import apply_variables
from hotlap.errors import ConfigError, RewardError

__all__ = ["FolderPlan", "find_run", "read_folder"]

CARS, SECONDS = 32, 180
"""Cars at once, and seconds of training: what suits a 160x120 network on a laptop. With twice the
cars, and so half as many updates, it took longer to the first clean laps."""

SAC_CAPACITY, SAC_RATIO = 50_000, 0.125
"""Images that SAC remembers, 1 GB of them at 160x120, and gradient steps for each."""

STEPS_A_SECOND = 15
STEPS_MOST = 10_000
"""DeepRacer ends an episode after this many steps."""

_PLACES = (".", "custom_files", "model", "ip")
"""Where the files lie: as DeepRacer-for-Cloud keeps them, or as its bucket does."""
_FILES = {
    "reward_function.py": ("LOCAL_S3_REWARD_KEY", "REWARD_FILE_S3_KEY"),
    "model_metadata.json": ("LOCAL_S3_MODEL_METADATA_KEY", "MODEL_METADATA_FILE_S3_KEY"),
    "hyperparameters.json": ("LOCAL_S3_HYPERPARAMETERS_KEY",),
}
"""The files, and the variables that may name another one."""


@dataclass(frozen=True)
class FolderPlan:
    """What a folder asks for."""

    settings: dict[str, Any]
    """Dotted names of our settings and their values."""
    notes: list[str]
    """A sentence for everything that was read: where it went, or why it has no effect."""
    name: str = ""
    """What the model is to be called, if that is said."""
    weights_from: Path | None = None
    """The Run whose driver it is to start from,"""
    checkpoint: Literal["best", "last"] = "best"
    """and which of its drivers."""


def read_folder(path: str | Path, *, track: str | None = None) -> FolderPlan:
    """Read a DeepRacer folder. Nothing in it is executed; the reward file is only found.

    Args:
        path: the folder.
        track: a track that was asked for elsewhere; the folder's world is then not looked up.

    Raises:
        RewardError: there is no `reward_function.py`.
        ConfigError: a file is broken or a value is not allowed; the message names file and line.
        TrackError: the world is not known here.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise ConfigError(f"{path}: no such folder")
    variables = Findings()
    environment = read_environment(folder, variables, os.environ)
    reading = _Reading(folder, environment)
    reading.reward()
    metadata = reading.metadata()
    sac = metadata.algorithm == "sac"
    reading.hyperparameters(sac=sac, discrete=not isinstance(metadata.actions, Continuous))
    findings = reading.findings
    findings.notes += variables.notes
    name, weights_from, checkpoint = reading.model()
    apply_variables(folder, environment, findings, track=track)
    return FolderPlan(
        settings=findings.settings,
        notes=[*findings.notes, *findings.doubts],
        name=name,
        weights_from=weights_from,
        checkpoint=checkpoint,
    )


def find_run(folder: Path, name: str) -> Path | None:
    """Find the Run of a model by its prefix: in runs/, here, in the folder or beside it."""
    near_by = (Path("runs"), Path(), folder, folder / "runs", folder.parent)
    places = [place / word for place in near_by for word in (name, _file_name(name)) if word]
    return next((place for place in places if (place / "meta.json").is_file()), None)


class _Reading:
    """Reads one folder, a method a file."""

    def __init__(self, folder: Path, environment: Environment) -> None:
        self._folder, self._environment = folder, environment
        self.findings = Findings(
            settings={
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
            },
            notes=[
                f"{CARS} cars drive at once (train.cars) for {SECONDS} s (train.seconds); settings "
                "given on the command line win over all that the folder says"
            ],
        )

    def reward(self) -> None:
        """Find the reward function."""
        path = self._find("reward_function.py")
        if path is None:
            sample = (self._folder / "simulation_ws").is_dir()
            hint = " (the sample's is the method of that name in deepracer_env.py)" * sample
            raise RewardError(
                f"{self._folder}: has no reward_function.py, nor has its custom_files/; "
                f"write one with `def reward_function(params):` that returns a number{hint}"
            )
        self.findings.settings |= {
            "reward.kind": "file",
            "reward.path": str(path),
            "reward.timing": "deepracer",
        }
        self.findings.note(
            f"{self._name(path)}: rewards the state before its action, as DeepRacer does"
        )

    def metadata(self) -> Metadata:
        """Read what the driver can do, sees and learns with."""
        path, findings = self._find("model_metadata.json"), self.findings
        if path is None:
            found, name = Metadata(), "default action space"
            findings.note("model_metadata.json is absent: DeepRacer's default of 5 actions is used")
        else:
            found, name = Metadata.read(path), self._name(path)
        self._actions(name, found)
        findings.apply(f"{name}: neural_network = {found.network}", found.layers())
        for sensor in found.sensors:
            if sensor in LIDARS:
                findings.settings["observation.actor"] = ["camera", "lidar"]
                findings.apply(f"{name}: sensor {sensor}", found.scans())
            elif sensor == "STEREO_CAMERAS":
                findings.settings["observation.camera.stereo_baseline"] = STEREO_BASELINE
                findings.note(f"{name}: sensor {sensor}: a pair of grey cameras of 160x120 pixels")
            else:
                findings.note(f"{name}: sensor {sensor}: one grey camera of 160x120 pixels")
        if found.algorithm == "sac":
            of_sac = {"algorithm.capacity": SAC_CAPACITY, "algorithm.update_ratio": SAC_RATIO}
            findings.settings |= {"algorithm.kind": "sac", **of_sac}
            ranges = isinstance(found.actions, Continuous)
            also = "" if ranges else ", among choices, which DeepRacer cannot"
            findings.note(f"{name}: training_algorithm = sac: SAC{also}; {findings.shown(*of_sac)}")
        else:
            findings.note(f"{name}: training_algorithm = {found.algorithm}: PPO, clipped")
        if "version" in found.given:
            same = "version 5 and 6" if found.version >= 5 else "version 5, which differs"
            findings.nothing(f"{name}: version = {found.version}", f"the car is that of {same}")
        if "lidar_config" in found.given and "DISCRETIZED_SECTOR_LIDAR" not in found.sensors:
            why = "only DISCRETIZED_SECTOR_LIDAR has one"
            findings.nothing(f"{name}: lidar_config", why)
        for key in found.unknown:
            findings.nothing(f"{name}: {key}", f"it is not a key of DeepRacer's{near(key, KEYS)}")
            if near(key, KEYS):
                findings.doubts.append(findings.notes.pop())
        return found

    def _actions(self, name: str, found: Metadata) -> None:
        actions = found.actions
        if isinstance(actions, Continuous):
            angles = [actions.steering_low, actions.steering_high]
            speeds = [actions.speed_low, actions.speed_high]
            what = "continuous actions"
            self.findings.settings |= {
                "actions.kind": "continuous",
                "actions.steering_low_deg": actions.steering_low,
                "actions.steering_high_deg": actions.steering_high,
                "actions.speed_low": actions.speed_low,
                "actions.speed_high": actions.speed_high,
            }
        else:
            angles, speeds = ([action[i] for action in actions] for i in (0, 1))
            what = f"{len(actions)} actions"
            self.findings.settings |= {
                "actions.kind": "list",
                "actions.list": [list(action) for action in actions],
            }
        self.findings.note(
            f"{name}: {what}, steering {min(angles):g} to {max(angles):g} degrees, "
            f"speed {min(speeds):g} to {max(speeds):g} m/s"
        )
        if min(speeds) < 0.1 or max(speeds) > 4 or max(map(abs, angles)) > 30:
            self.findings.note(
                f"{name}: the car obeys -30 to 30 degrees and 0.1 to 4 m/s; the "
                "reward function sees what was asked"
            )

    def hyperparameters(self, *, sac: bool, discrete: bool) -> None:
        """Read how to learn."""
        path = self._find("hyperparameters.json")
        if path is None:
            self.findings.note(
                "hyperparameters.json is absent: hotlap's own learning settings are used"
            )
            return
        document = Document.of_json(path)
        read_hyperparameters(document, self._name(path), self.findings, sac=sac, discrete=discrete)

    def model(self) -> tuple[str, Path | None, Literal["best", "last"]]:
        """Read what the model is called, and the one that it is to start from."""
        found, findings = self._environment.variables, self.findings
        name = found.get("LOCAL_S3_MODEL_PREFIX")
        called = _file_name(name.text) if name is not None else ""
        if name is not None and called:
            del found["LOCAL_S3_MODEL_PREFIX"]
            findings.note(f"{name.said}: the run is runs/{called}, or the next free name after it")
        asked = found.get("LOCAL_S3_PRETRAINED")
        if asked is None or not asked.text or not truth(asked.at, asked.text):
            return called, None, "best"
        del found["LOCAL_S3_PRETRAINED"]
        prefix = found.pop("LOCAL_S3_PRETRAINED_PREFIX", None)
        which = found.pop("LOCAL_S3_PRETRAINED_CHECKPOINT", None)
        checkpoint: Literal["best", "last"] = "last"  # as DeepRacer-for-Cloud assumes
        if which is not None and which.text:
            known = {"best": "best", "last": "last"}
            checkpoint = "best" if choice(known)(which.at, which.text) == "best" else "last"
        if prefix is None or not prefix.text:
            raise ConfigError(
                f"{asked.at}: {asked.text}, but DR_LOCAL_S3_PRETRAINED_PREFIX does not say from "
                "which model; name a Run there, or use hotlap train FOLDER --from RUN"
            )
        run = find_run(self._folder, prefix.text)
        if run is None:
            findings.doubts.append(
                f"{prefix.said} has no effect: no Run of that name is in runs/ or beside the "
                "folder. If you have the model: hotlap import MODEL --out RUN, then hotlap train "
                "FOLDER --from RUN"
            )
            return called, None, "best"
        findings.note(f"{prefix.said}: starts from the {checkpoint} driver of {run}")
        return called, run, checkpoint

    def _find(self, name: str) -> Path | None:
        """Find a file: the one that a variable names, or the first of its name."""
        places = [self._folder / place / name for place in _PLACES]
        usual = next((place for place in places if is_there(place)), None)
        found = self._environment.variables
        for key in _FILES[name]:
            variable = found.pop(key, None)
            if variable is None or not variable.text:
                continue
            roots = (self._folder, self._folder / "data" / "minio" / "bucket")
            named = next((r / variable.text for r in roots if is_there(r / variable.text)), None)
            if named is not None and self._folder in named.resolve().parents:
                self.findings.note(f"{variable.said}: that file is read")
                return named.resolve()
            instead = f", so that {self._name(usual)} is read" if usual is not None else ""
            self.findings.nothing(variable.said, f"that file is not in this folder{instead}")
        return usual

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _file_name(prefix: str) -> str:
    """Return the name of a directory for a prefix of a bucket."""
    return re.sub(r"[^\w.-]+", "-", prefix).strip("-.")
