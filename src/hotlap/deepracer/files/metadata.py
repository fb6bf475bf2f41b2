"""DeepRacer's `model_metadata.json`: what the driver can do, sees and learns with.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/boto/s3/files, read for the
facts: the fields, what is assumed when one is absent, and which combinations are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hotlap.algorithms.settings import DEEPRACER_CNNS
from hotlap.deepracer.files.documents import Document, brief, near
from hotlap.errors import ConfigError

__all__ = [
    "CAMERAS",
    "DEFAULT_ACTIONS",
    "LIDARS",
    "LIDAR_KINDS",
    "STEREO_BASELINE",
    "Continuous",
    "Metadata",
    "number",
]

CAMERAS = ("observation", "FRONT_FACING_CAMERA", "LEFT_CAMERA", "STEREO_CAMERAS")
STEREO_BASELINE = 0.06
"""Distance between the lenses of STEREO_CAMERAS [m]. Source: the sample simulator's car, +-0.03."""
LIDARS = ("LIDAR", "SECTOR_LIDAR", "DISCRETIZED_SECTOR_LIDAR")
NETWORKS = (
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW",
    "DEEP_CONVOLUTIONAL_NETWORK",
    "DEEP_CONVOLUTIONAL_NETWORK_DEEP",
)
ALGORITHMS = ("clipped_ppo", "sac")
VERSIONS = (1, 2, 3, 4, 5, 6)
KEYS = (
    "action_space",
    "sensor",
    "neural_network",
    "version",
    "training_algorithm",
    "action_space_type",
    "lidar_config",
)

STEERING_MOST, SPEED_MOST = 60.0, 10.0
"""Beyond these [degrees, m/s] an action is a mistake. What the car obeys is less: 30 and 4."""

DEFAULT_ACTIONS = tuple((steering, 0.6) for steering in (-30.0, -15.0, 0.0, 15.0, 30.0))
"""What DeepRacer's community setup ships: (steering [degrees], speed [m/s])."""


LIDAR_KINDS = dict(
    zip(LIDARS, ("deepracer", "deepracer_sectors", "deepracer_discretized"), strict=True)
)
"""Our name of each of DeepRacer's LIDARs."""
_BESIDE = (256, 256)
"""Dense layers that a LIDAR passes by itself. Source: deepracer-simapp, markov/sensors/utils.py."""
_JOINT = {NETWORKS[2]: (256, 128)}
"""Dense layers after all inputs have joined, where they are not one of 512."""
_SOFT = 256
"""One more, in the head of SAC's policy. Source: the same, multi_agent_coach, `SACPolicyHead`."""


@dataclass(frozen=True)
class Continuous:
    """Actions anywhere within ranges."""

    steering_low: float
    """[degrees], positive left; and so the next."""
    steering_high: float
    speed_low: float
    """[m/s]; and so the next."""
    speed_high: float


@dataclass(frozen=True)
class Metadata:
    """The contents of a `model_metadata.json`, with DeepRacer's assumptions filled in."""

    actions: tuple[tuple[float, float], ...] | Continuous = DEFAULT_ACTIONS
    """A list of (steering [degrees], speed [m/s]) in the file's order, or ranges."""
    sensors: tuple[str, ...] = ("FRONT_FACING_CAMERA",)
    """Exactly one of `CAMERAS` and at most one of `LIDARS`."""
    network: str = NETWORKS[0]
    algorithm: str = ALGORITHMS[0]
    version: int = 5
    lidar: tuple[int, int, float] = (8, 8, 2.0)
    """Of `lidar_config`: sectors, values of a sector, range that these divide [m]."""
    given: tuple[str, ...] = field(default=(), compare=False)
    """Keys that the file has,"""
    unknown: tuple[str, ...] = ()
    """and those of them that mean nothing."""

    @property
    def camera(self) -> str:
        """Its camera, by DeepRacer's name."""
        return next(sensor for sensor in self.sensors if sensor in CAMERAS)

    @property
    def scanner(self) -> str | None:
        """Its LIDAR, by DeepRacer's name."""
        return next((sensor for sensor in self.sensors if sensor in LIDARS), None)

    def layers(self) -> dict[str, Any]:
        """Return our settings of the network that it asks for."""
        cnn, joint = DEEPRACER_CNNS[self.network], _JOINT.get(self.network, (512,))
        usual = joint
        if self.camera == "STEREO_CAMERAS" and self.network != NETWORKS[0]:
            cnn, usual = "deepracer_stereo", (512,)
        if self.algorithm == "sac":
            joint = (*joint, _SOFT)
        found: dict[str, Any] = {"algorithm.network.cnn": cnn}
        if joint != usual:
            found["algorithm.network.joint"] = list(joint)
        if self.scanner:
            found["algorithm.network.beside"] = list(_BESIDE)
        return found

    def scans(self) -> dict[str, Any]:
        """Return our settings of its LIDAR, if it has one."""
        if self.scanner is None:
            return {}
        found: dict[str, Any] = {"observation.lidar.kind": LIDAR_KINDS[self.scanner]}
        if self.scanner == "DISCRETIZED_SECTOR_LIDAR":
            for setting, value in zip(("sectors", "steps", "clip"), self.lidar, strict=True):
                found[f"observation.lidar.{setting}"] = value
        return found

    @classmethod
    def read(cls, path: str | Path) -> Metadata:
        """Read a file.

        Raises:
            ConfigError: it is missing, not JSON, or a value is not allowed; one sentence.
        """
        return _Reader(Path(path)).metadata()


def number(value: object) -> float:
    """Return a number or a numeral as a float, NaN for anything else: DeepRacer takes both."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


class _Reader:
    """Checks one file's values; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self._document = Document.of_json(path)
        self._data = self._document.values

    def metadata(self) -> Metadata:
        if "action_space" not in self._data:
            other = near("action_space", sorted(set(self._data) - set(KEYS)))
            self._fail(
                "action_space",
                f"is missing{other}; "
                'give a list of {"steering_angle": degrees, "speed": m/s}, or ranges '
                '{"steering_angle": {"low", "high"}, "speed": {"low", "high"}}',
            )
        sensors = self._sensors()
        return Metadata(
            actions=self._actions(),
            sensors=sensors,
            lidar=self._lidar(),
            network=self._one_of("neural_network", NETWORKS, NETWORKS[0]),
            algorithm=self._one_of("training_algorithm", ALGORITHMS, ALGORITHMS[0], fold=True),
            version=self._version(2 if "sensor" in self._data else 1),
            given=tuple(self._data),
            unknown=tuple(sorted(set(self._data) - set(KEYS))),
        )

    def _actions(self) -> tuple[tuple[float, float], ...] | Continuous:
        space = self._data["action_space"]
        if not isinstance(space, list | dict):
            self._fail("action_space", f"must be a list or an object, not {brief(space)}")
        kind = "discrete" if isinstance(space, list) else "continuous"
        said = self._one_of("action_space_type", ("discrete", "continuous"), kind, fold=True)
        if said != kind:
            self._fail("action_space_type", f"is {said!r}, but action_space is {kind}")
        if isinstance(space, dict):
            return Continuous(*self._range(space, "steering_angle"), *self._range(space, "speed"))
        if not space:
            self._fail("action_space", "is empty; list at least one action")
        return tuple(
            (
                self._number(action, "steering_angle", f"action_space[{i}]"),
                self._number(action, "speed", f"action_space[{i}]"),
            )
            for i, action in enumerate(space)
        )

    def _range(self, space: dict[str, Any], name: str) -> tuple[float, float]:
        at = f"action_space.{name}"
        ends = space.get(name)
        if not isinstance(ends, dict):
            self._fail(at, f'must be {{"low": ..., "high": ...}}, not {brief(ends)}')
        low = self._number(ends, "low", at, name)
        high = self._number(ends, "high", at, name)
        if low >= high:
            self._fail(at, f"low must be less than high (got {low:g} and {high:g})")
        return low, high

    def _number(self, owner: Any, key: str, at: str, quantity: str = "") -> float:
        if not isinstance(owner, dict):
            self._fail(at, f'must be {{"steering_angle": ..., "speed": ...}}, not {brief(owner)}')
        if key not in owner:
            self._fail(at, f"lacks {key}; it has {', '.join(owner) or 'nothing'}")
        value = number(owner[key])
        at = f"{at}.{key}"
        if not math.isfinite(value):
            self._fail(at, f"must be a number (got {brief(owner[key])})")
        if (quantity or key) == "speed":
            if not 0 <= value <= SPEED_MOST:
                self._fail(at, f"must be 0 to {SPEED_MOST:g} m/s (got {value:g})")
        elif abs(value) > STEERING_MOST:
            bounds = f"-{STEERING_MOST:g} to {STEERING_MOST:g} degrees"
            self._fail(at, f"must be {bounds} (got {value:g})")
        return value

    def _sensors(self) -> tuple[str, ...]:
        sensors = self._data.get("sensor", ["observation"])
        known = CAMERAS + LIDARS
        if isinstance(sensors, str):
            sensors = [sensors]
        if not isinstance(sensors, list):
            self._fail("sensor", f"must be a list, not {brief(sensors)}")
        for sensor in sensors:
            if sensor not in known:
                self._fail("sensor", f"{brief(sensor)} is unknown{_near(sensor, known)}")
        for kind, members, least in (("camera", CAMERAS, 1), ("LIDAR", LIDARS, 0)):
            count = sum(sensor in members for sensor in sensors)
            if not least <= count <= 1:
                rule = "exactly one" if least else "at most one"
                self._fail(
                    "sensor", f"must name {rule} {kind} of {', '.join(members)} (got {count})"
                )
        return tuple(sensors)

    def _lidar(self) -> tuple[int, int, float]:
        data = self._data.get("lidar_config", {})
        if not isinstance(data, dict):
            self._fail("lidar_config", f"must be an object (got {brief(data)})")
        found = []
        for key, default, rule in (
            ("num_sectors", 8.0, "1, 2, 4, 8, 16, 32 or 64"),
            ("num_values_per_sector", 8.0, "a whole number from 1"),
            ("clipping_dist", 2.0, "0.15 to 12 m"),
        ):
            value = number(data.get(key, default))
            fits = {
                "num_sectors": value in (1, 2, 4, 8, 16, 32, 64),
                "num_values_per_sector": 1 <= value < 1e6 and value == round(value),
                "clipping_dist": 0.15 <= value <= 12,
            }
            if not fits[key]:
                self._fail(f"lidar_config.{key}", f"must be {rule} (got {brief(data[key])})")
            found.append(value)
        return int(found[0]), int(found[1]), found[2]

    def _version(self, default: int) -> int:
        value = self._data.get("version", default)
        version = number(value)
        if version not in VERSIONS:
            self._fail("version", f"must be 1 to 6 (got {brief(value)})")
        return int(version)

    def _one_of(self, key: str, known: tuple[str, ...], default: str, *, fold: bool = False) -> str:
        value = self._data.get(key, default)
        word = value.strip().lower() if fold and isinstance(value, str) else value
        if word not in known:
            self._fail(key, f"{brief(value)} is unknown{_near(value, known)}")
        return str(word)

    def _fail(self, key: str, problem: str) -> NoReturn:
        top = re.split(r"[.\[]", key)[0]
        line = self._document.lines.get(top)
        raise ConfigError(f"{self._document.path}{f':{line}' if line else ''}: {key}: {problem}")


def _near(value: object, known: Iterable[str]) -> str:
    return f"{near(value, known)}; choose from {', '.join(known)}"
