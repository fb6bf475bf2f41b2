"""The parameters of DeepRacer's Custom Framework, as a folder of files and settings of ours.

Source: DeepRacer-Framework (2020), its README and src/core/DeepRacerEngine.py, read for the names,
the defaults and how its grid counts.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotlap.config import read_toml
from hotlap.deepracer.actions import grid, scale
from hotlap.deepracer.files.documents import Document, brief
from hotlap.deepracer.files.metadata import Metadata, number
from hotlap.deepracer.files.values import integer, truth, within
from hotlap.errors import ConfigError
from hotlap.files import explained, replace
from hotlap.track import track_names

__all__ = ["DEFAULTS", "GRID", "TRACKS", "Job", "read_params"]

DEFAULTS: Mapping[str, Any] = {
    "instance_type": "ml.c4.2xlarge",
    "instance_pool_count": 1,
    "job_duration": 3600,
    "track_name": "reinvent_base",
    "racetrack_env": "src/markov/environments/deepracer_racetrack_env.py",
    "reward_policy": "src/markov/rewards/reward_estimator_optimal_path.py",
    "meta_file": "src/markov/actions/model_metadata_10_state.json",
    "presets": "src/markov/presets/default.py",
    "custom_action_space": False,
    "learning_rate": 3e-4,
    "batch_size": 64,
    "optimizer_epsilon": 1e-5,
    "optimization_epochs": 10,
    "discount_factor": 0.999,
    "beta_entropy": 0.01,
    "evaluation_trials": 5,
}
"""Beside `job_name`, which must be given, and those of `GRID`."""

GRID: Mapping[str, float | None] = {
    "min_speed": None,
    "max_speed": None,
    "min_steering_angle": None,
    "max_steering_angle": None,
    "speed_interval": 1.0,
    "steering_angle_interval": 5.0,
}
"""What `custom_action_space` is made of; None must be given."""

TRACKS: Mapping[str, str] = {
    "reinvent_base": "reinvent_like",
    "reinvent_carpet": "reinvent_like",
    "reinvent_concrete": "reinvent_like",
    "reinvent_wood": "reinvent_like",
    "AWS_track": "generated:seed=1:difficulty=0.5:length=69.25:width=0.838",
    "Bowtie_track": "generated:seed=2:difficulty=0.5:length=17.43:width=0.724",
    "Oval_track": "oval",
    "Straight_track": "straight",
}
"""The Framework's tracks, and what stands in for one whose array is not here."""

_CARS = 32
"""Cars of one instance; what `read_folder` takes for DeepRacer's camera and network."""

_TEN_ACTIONS = tuple((angle, v) for v in (0.4, 0.8) for angle in (-30.0, -15.0, 0.0, 15.0, 30.0))
"""Those of model_metadata_10_state.json: the old console's first choice."""

_SIZES = {"medium": 1, "large": 2, "xlarge": 4}
"""Cores of SageMaker's instances; an Nxlarge has 4 N."""

_RATE = within(0, 1, open_low=True)
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "instance_pool_count": integer,
    "job_duration": within(1, 1e7),
    "custom_action_space": truth,
    "learning_rate": _RATE,
    "batch_size": integer,
    "optimizer_epsilon": _RATE,
    "optimization_epochs": integer,
    "discount_factor": within(0, 1, open_high=True),
    "beta_entropy": within(0, 1),
    "evaluation_trials": integer,
    "min_speed": within(0.1, 4),
    "max_speed": within(0.1, 4),
    "min_steering_angle": within(-30, 30),
    "max_steering_angle": within(-30, 30),
    "speed_interval": within(0, 4, open_low=True),
    "steering_angle_interval": within(0, 60, open_low=True),
}

_LEARNING: Mapping[str, tuple[str, str | None]] = {
    "learning_rate": ("algorithm.learning_rate", "lr"),
    "batch_size": ("algorithm.minibatch", "batch_size"),
    "optimizer_epsilon": ("algorithm.adam_epsilon", None),
    "optimization_epochs": ("algorithm.epochs", "num_epochs"),
    "discount_factor": ("algorithm.gamma", "discount_factor"),
    "beta_entropy": ("algorithm.entropy", "beta_entropy"),
}
"""Our setting of each hyperparameter, and its name in hyperparameters.json."""

_PRESETS: Mapping[str, tuple[str, Callable[[str, Any], Any]]] = {
    name: (_LEARNING[own][0], _CHECKS[own])
    for names, own in (
        (("learning_rate", "lr"), "learning_rate"),
        (("batch_size",), "batch_size"),
        (("optimizer_epsilon",), "optimizer_epsilon"),
        (("optimization_epochs", "num_epochs"), "optimization_epochs"),
        (("discount", "discount_factor"), "discount_factor"),
        (("beta_entropy",), "beta_entropy"),
    )
    for name in names
} | {
    "clip_likelihood_ratio_using_epsilon": (
        "algorithm.clip",
        within(0, 1, open_low=True, open_high=True),
    ),
    "gae_lambda": ("algorithm.lam", within(0, 1)),
}
"""What a presets file may say: the names of the Framework's and of DeepRacer's own."""

REWARD = '''"""For an engine without a reward_policy: near the centre, aimed along it, and fast."""

import math


def reward_function(params):
    if params["is_offtrack"]:
        return 1e-3
    half = params["track_width"] / 2
    near = math.exp(-2.3 * (params["distance_from_center"] / half) ** 2)
    waypoints = params["waypoints"]
    x, y = waypoints[(params["closest_waypoints"][1] + 4) % len(waypoints)]
    ahead = math.degrees(math.atan2(y - params["y"], x - params["x"]))
    turn = abs(ahead - params["heading"]) % 360
    aimed = max(0.0, 1 - min(turn, 360 - turn) / 60)
    return float(near * aimed * (0.5 + params["speed"]))
'''


@dataclass(frozen=True)
class Job:
    """One training that the Framework's parameters ask for."""

    name: str
    params: Mapping[str, Any]
    """All of them, checked, with the defaults filled in."""
    given: Mapping[str, Any]
    """Those that were given."""
    files: Mapping[str, str]
    """The DeepRacer folder: name and text of each file."""
    settings: Mapping[str, Any]
    """Settings of ours by dotted name, which win over what the folder says."""
    threads: int | None
    """The most that the training may use; None for all there are."""
    notes: tuple[str, ...]
    """A sentence for every parameter: where it went."""

    def write(self, folder: Path) -> Path:
        """Write the folder; what is in it of the same name is replaced.

        Raises:
            RunError: it cannot be written.
        """
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in self.files.items():
                replace(folder / name, text.encode())
        return folder


def read_params(params: Mapping[str, Any]) -> Job:
    """Read the dict that a DeepRacerEngine is made from. Nothing is executed.

    A file that the Framework had as its default and that is not here is stood in for; any other
    file must be there.

    Raises:
        ConfigError: a name is unknown, a value is not allowed, or a file is missing or broken.
    """
    return _Reader(params).job()


class _Reader:
    """Collects files, settings and notes, a method for what belongs together."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        if not isinstance(params, Mapping):
            raise ConfigError(f"params: must be a dict with a job_name (got {brief(params)})")
        known = ("job_name", *DEFAULTS, *GRID)
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ConfigError(f"{name}: is no parameter{hint}; there are {', '.join(known)}")
        self._given = {name: value for name, value in params.items() if value is not None}
        self._all = {**DEFAULTS, **self._given}
        for name, check in _CHECKS.items():
            if name in self._all:
                self._all[name] = check(name, self._all[name])
        self.files: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self.notes: list[str] = []

    def job(self) -> Job:
        name = self._name()
        threads = self._machine()
        self._world()
        self._reward()
        self._actions()
        self._learning()
        self._track()
        self._budget()
        shown = {"job_name": name, **self._all}
        notes = tuple(self.notes)
        return Job(name, shown, self._given, self.files, self.settings, threads, notes)

    def _name(self) -> str:
        name = self._given.get("job_name", "")
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+-]{0,99}", name):
            raise ConfigError(
                "job_name: must be given: letters, digits, and . + - _ between them "
                f"(got {brief(name)})"
            )
        return name

    def _note(self, name: str, what: str) -> None:
        self.notes.append(f"{name} = {self._all[name]}: {what}")

    def _set(self, setting: str, value: Any) -> str:
        self.settings[setting] = value
        return f"{setting} = {value}"

    def _machine(self) -> int | None:
        """Read how many cores there are to be, and how many machines."""
        count = self._all["instance_pool_count"]
        cars = self._set("train.cars", _CARS * count)
        self._note("instance_pool_count", f"{cars}, {_CARS} for each")
        kind = str(self._all["instance_type"]).strip()
        if kind == "local":
            self._note("instance_type", "all cores of this machine")
            return None
        match = re.fullmatch(r"(?:ml\.)?[a-z]+\d+[a-z]*\.(?:(\d*)(xlarge)|(medium|large))", kind)
        if match is None:
            raise ConfigError(
                f"instance_type: must be one of SageMaker's, such as {DEFAULTS['instance_type']}, "
                f"or local, for all cores (got {brief(kind)})"
            )
        cores = int(match[1] or 1) * _SIZES["xlarge"] if match[2] else _SIZES[match[3]]
        self._note(
            "instance_type", f"at most its {cores} threads; a GPU is used where there is one"
        )
        return cores

    def _world(self) -> None:
        """Read settings of ours, where the Framework had Python of its own."""
        for name, what in (("racetrack_env", "DeepRacer's world"), ("presets", "PPO, clipped")):
            path = Path(str(self._all[name]))
            if path.suffix == ".toml":
                own = _flat(read_toml(path))
                self.settings |= own
                self._note(name, ", ".join(own) or "it is empty")
            elif name == "presets" and path.suffix == ".json":
                self._read_presets(path)
            elif path == Path(DEFAULTS[name]):
                self._note(name, what)
            else:
                more = ", or a .json of hyperparameters" if name == "presets" else ""
                raise ConfigError(
                    f"{name}: must be a .toml of settings (docs/configuration.md){more}; Python "
                    f"for the old simulator has nothing to run in here (got {path})"
                )

    def _read_presets(self, path: Path) -> None:
        found = dict(Document.of_json(path).values)
        self._note("presets", f"hyperparameters: {', '.join(found) or 'none'}")
        for key, value in found.items():
            if key in _PRESETS:
                setting, check = _PRESETS[key]
                said = self._set(setting, check(f"{path}: {key}", value))
                self.notes.append(f"{path.name}: {key}: {said}")
            else:
                allowed = ", ".join(_PRESETS)
                raise ConfigError(f"{path}: {key}: is not known; there are {allowed}")

    def _reward(self) -> None:
        path = Path(str(self._all["reward_policy"]))
        if not path.is_file() and path == Path(DEFAULTS["reward_policy"]):
            self.files["reward_function.py"] = REWARD
            self._note("reward_policy", "is not here; near the centre, aimed along it, and fast")
            return
        try:
            self.files["reward_function.py"] = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"reward_policy: {path}: {why}") from None
        self._note("reward_policy", "the reward function, as it is")

    def _actions(self) -> None:
        """Read the action space: of the meta file, or of the grid."""
        path = Path(str(self._all["meta_file"]))
        if not path.is_file() and path == Path(DEFAULTS["meta_file"]):
            document: dict[str, Any] = {
                "sensor": ["FRONT_FACING_CAMERA"],
                "version": "5",
                "action_space": _listed(_TEN_ACTIONS),
            }
            self._note("meta_file", "is not here; its 10 actions, 5 angles at 0.4 and 0.8 m/s")
        else:
            Metadata.read(path)
            document = dict(Document.of_json(path).values)
            self._note("meta_file", "actions, sensors and network, as it is")
        given = [name for name in GRID if name in self._given]
        if self._all["custom_action_space"]:
            missing = [n for n, value in GRID.items() if value is None and n not in self._given]
            if missing:
                raise ConfigError(
                    f"custom_action_space: also needs {', '.join(missing)}; or set it to False"
                )
            values = {name: self._all.get(name, default) for name, default in GRID.items()}
            actions = _framework_grid(values)
            document |= {"action_space": _listed(actions), "action_space_type": "discrete"}
            self._all |= values
            self._note("custom_action_space", f"{len(actions)} actions in place of the file's")
            self.notes += [f"{name} = {values[name]:g}: of the grid of actions" for name in GRID]
        elif given:
            raise ConfigError(
                f"{given[0]}: is of the custom action space; set custom_action_space to True"
            )
        else:
            self._note("custom_action_space", "the actions are those of meta_file")
        self.files["model_metadata.json"] = json.dumps(document, indent=2)

    def _learning(self) -> None:
        document = {}
        for name, (setting, key) in _LEARNING.items():
            if key is not None:
                document[key] = self._all[name]
            if name in self._given:
                self._note(name, self._set(setting, self._all[name]))
            elif setting in self.settings:
                self._note(name, f"a file says {setting} = {self.settings[setting]}")
            else:
                self._note(name, f"{setting} = {self._all[name]}")
        self.files["hyperparameters.json"] = json.dumps(document, indent=2)

    def _track(self) -> None:
        """Find the track: the user's array, or what stands in for it."""
        name = str(self._all["track_name"])
        if "track_name" not in self._given and "track" in self.settings:
            self._note("track_name", f"a file says track = {self.settings['track']}")
            return
        here = [place / f"{name}.npy" for place in (Path(), Path("tracks"))]
        files = [file for file in here if re.fullmatch(r"[\w.+-]+", name) and file.is_file()]
        if files:
            self._note("track_name", self._set("track", str(files[0].resolve())))
        elif name in track_names():
            self._note("track_name", self._set("track", name))
        elif name in TRACKS:
            said = self._set("track", TRACKS[name])
            self._note("track_name", f"{said} stands in; hotlap tracks add {name}.npy brings it")
        elif Path(name).is_file() or name.partition(":")[0] == "generated":
            self._note("track_name", self._set("track", name))
        else:
            known = dict.fromkeys([*TRACKS, *track_names()])
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(
                f"track_name: {name} is not known{hint}. Put {name}.npy here, or bring it with "
                f"hotlap tracks add FILE. Known: {', '.join(known)}"
            )

    def _budget(self) -> None:
        self._note("job_duration", self._set("train.seconds", self._all["job_duration"]))
        trials = self._set("evaluation.trials", self._all["evaluation_trials"])
        self._note("evaluation_trials", f"{trials}, and as many in an evaluation")


def _framework_grid(values: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    for low, high in (("min_speed", "max_speed"), ("min_steering_angle", "max_steering_angle")):
        if number(values[low]) > number(values[high]):
            got = f"{values[low]:g} and {values[high]:g}"
            raise ConfigError(f"{low}: must not be above {high} (got {got})")
    return grid(
        scale(
            values["min_steering_angle"],
            values["max_steering_angle"],
            values["steering_angle_interval"],
        ),
        scale(values["min_speed"], values["max_speed"], values["speed_interval"]),
    )


def _listed(actions: tuple[tuple[float, float], ...]) -> list[dict[str, float]]:
    return [
        {"steering_angle": angle, "speed": speed, "index": i}
        for i, (angle, speed) in enumerate(actions)
    ]


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested tables as dotted names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found
