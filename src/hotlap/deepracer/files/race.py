"""DeepRacer's race types: what its settings put onto the road beside the car.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/agent_ctrl, and
deepracer-for-cloud, defaults/template-run.env, read for names, defaults and rules. There the least
distance between obstacles is taken as percent of the lap, and shrinks with every episode; here it
is what its documentation says, metres.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hotlap.deepracer.files.documents import near
from hotlap.deepracer.files.environment import Variable
from hotlap.deepracer.files.findings import Findings
from hotlap.deepracer.files.values import integer, truth, within
from hotlap.errors import ConfigError

__all__ = ["BOTS", "OBSTACLES", "read_race"]

_LANE = 0.5
"""DeepRacer's lanes run in the middle of each half of the road."""
_BODIES = 32
"""The most obstacles, and bots, that a world holds."""

_METRES = within(0, 1000, open_low=True)
OBSTACLES = (
    "NUMBER_OF_OBSTACLES",
    "MIN_DISTANCE_BETWEEN_OBSTACLES",
    "RANDOMIZE_OBSTACLE_LOCATIONS",
    "IS_OBSTACLE_BOT_CAR",
    "OBSTACLE_TYPE",
    "OBJECT_POSITIONS",
)
"""Variables that belong to object avoidance."""
BOTS = (
    "NUMBER_OF_BOT_CARS",
    "BOT_CAR_SPEED",
    "IS_LANE_CHANGE",
    "LOWER_LANE_CHANGE_TIME",
    "UPPER_LANE_CHANGE_TIME",
    "LANE_CHANGE_DISTANCE",
    "MIN_DISTANCE_BETWEEN_BOT_CARS",
    "RANDOMIZE_BOT_CAR_LOCATIONS",
    "BOT_CAR_PENALTY",
)
"""And those of head-to-bot."""
_TYPES = {"TIME_TRIAL": (), "OBJECT_AVOIDANCE": OBSTACLES, "HEAD_TO_BOT": BOTS}


def read_race(
    found: dict[str, Variable], findings: Findings, inner_is_left: Callable[[], bool]
) -> None:
    """Read the race type and all that belongs to it, and take them out of `found`.

    Args:
        found: the variables by their plain names.
        findings: are added to.
        inner_is_left: tells on which side of the driver the inner border is.

    Raises:
        ConfigError: a value is not allowed, or it is a race for evaluations alone.
    """
    given = {name: found.pop(name) for name in (*OBSTACLES, *BOTS) if name in found}
    asked = found.pop("RACE_TYPE", None)
    race = (asked.text.upper() if asked else "") or "TIME_TRIAL"
    if asked and race not in _TYPES:
        if race == "HEAD_TO_MODEL":
            why = (
                "two drivers race once they are trained: hotlap race FOLDER, or hotlap race RUN "
                "RUN --deepracer"
            )
        else:
            why = f"choose from {', '.join(_TYPES)}{near(race, _TYPES)}"
        raise ConfigError(f"{asked.at}: {asked.text} is no race to train for; {why}")
    reading = _Race(given, inner_is_left)
    if race == "OBJECT_AVOIDANCE":
        reading.obstacles()
    elif race == "HEAD_TO_BOT":
        reading.bots()
    findings.settings |= reading.settings
    if asked and asked.text:
        kinds = [
            f"{name} = {reading.settings[name]}"
            for name in ("traffic.obstacles", "traffic.bots")
            if name in reading.settings
        ]
        what = ", ".join(kinds) or "one car a world, nothing in its way"
        findings.note(f"{asked.said}: {what}")
    for name, variable in given.items():
        if name not in _TYPES[race]:
            findings.nothing(variable.said, f"the race is {race}")
    findings.notes += reading.notes


class _Race:
    """Collects settings and notes of one race."""

    def __init__(self, given: dict[str, Variable], inner_is_left: Callable[[], bool]) -> None:
        self._given, self._inner_is_left = given, inner_is_left
        self.settings: dict[str, Any] = {}
        self.notes: list[str] = []

    def obstacles(self) -> None:
        """Read what object avoidance is told."""
        standing = self._read("IS_OBSTACLE_BOT_CAR", truth, False)
        body = "traffic.bots" if standing else "traffic.obstacles"
        count = self._read("NUMBER_OF_OBSTACLES", _count, 6)
        placed = self._given.get("OBJECT_POSITIONS")
        if placed is not None and placed.text.strip(" ;"):
            positions = self._read("OBJECT_POSITIONS", self._positions, [])
            self.settings[body] = len(positions)
            self._set("traffic.positions", positions, "OBJECT_POSITIONS")
            if "NUMBER_OF_OBSTACLES" in self._given:
                self._say("NUMBER_OF_OBSTACLES", "has no effect: OBJECT_POSITIONS names them")
        else:
            self._set(body, count, "NUMBER_OF_OBSTACLES")
            if "OBJECT_POSITIONS" in self._given:
                self._say("OBJECT_POSITIONS", "has no effect: it is empty")
        if standing:
            self._set("traffic.bot_speed", [0.0, 0.0], "IS_OBSTACLE_BOT_CAR")
        elif "IS_OBSTACLE_BOT_CAR" in self._given:
            self._say("IS_OBSTACLE_BOT_CAR", "the obstacles are boxes")
        if "MIN_DISTANCE_BETWEEN_OBSTACLES" in self._given:
            gap = self._read("MIN_DISTANCE_BETWEEN_OBSTACLES", _METRES, 2.0)
            self._set("traffic.gap", gap, "MIN_DISTANCE_BETWEEN_OBSTACLES")
        drawn = self._read("RANDOMIZE_OBSTACLE_LOCATIONS", truth, False)
        self._set("traffic.place", "random" if drawn else "even", "RANDOMIZE_OBSTACLE_LOCATIONS")
        if "OBSTACLE_TYPE" in self._given:
            self._say("OBSTACLE_TYPE", "has no effect: every obstacle is a box of 0.3 x 0.4 m")

    def bots(self) -> None:
        """Read what head-to-bot is told."""
        self._set("traffic.bots", self._read("NUMBER_OF_BOT_CARS", _count, 3), "NUMBER_OF_BOT_CARS")
        speed = self._read("BOT_CAR_SPEED", within(0, 12), 0.2)
        self._set("traffic.bot_speed", [speed, speed], "BOT_CAR_SPEED")
        drawn = self._read("RANDOMIZE_BOT_CAR_LOCATIONS", truth, False)
        self._set("traffic.place", "random" if drawn else "even", "RANDOMIZE_BOT_CAR_LOCATIONS")
        if "MIN_DISTANCE_BETWEEN_BOT_CARS" in self._given:
            gap = self._read("MIN_DISTANCE_BETWEEN_BOT_CARS", _METRES, 2.0)
            self._set("traffic.gap", gap, "MIN_DISTANCE_BETWEEN_BOT_CARS")
        times = [
            self._read("LOWER_LANE_CHANGE_TIME", _METRES, 3.0),
            self._read("UPPER_LANE_CHANGE_TIME", _METRES, 5.0),
        ]
        long = self._read("LANE_CHANGE_DISTANCE", _METRES, 1.0)
        if self._read("IS_LANE_CHANGE", truth, False):
            self._set("traffic.lane_change", times, "IS_LANE_CHANGE")
            self._set("traffic.lane_change_distance", long, "LANE_CHANGE_DISTANCE")
            for key in ("LOWER_LANE_CHANGE_TIME", "UPPER_LANE_CHANGE_TIME"):
                if key in self._given:
                    self._say(key, f"traffic.lane_change = {times}")
        else:
            for key in BOTS[2:6]:
                if key in self._given:
                    self._say(key, "bots keep their lanes")
        if "BOT_CAR_PENALTY" in self._given:
            seconds = self._read("BOT_CAR_PENALTY", within(0, 1000), 5.0)
            self._set("evaluation.penalties.collision", seconds, "BOT_CAR_PENALTY")

    def _read(self, key: str, check: Callable[[str, Any], Any], default: Any) -> Any:
        variable = self._given.get(key)
        if variable is None or not variable.text:
            return default
        return check(variable.at, variable.text)

    def _set(self, name: str, value: Any, key: str) -> None:
        self.settings[name] = value
        if key in self._given:
            self._say(key, f"{name} = {value}")

    def _say(self, key: str, what: str) -> None:
        link = " " if what.startswith("has no effect") else ": "
        self.notes.append(f"{self._given[key].said}{link}{what}")

    def _positions(self, at: str, value: Any) -> list[list[float]]:
        """Read `share,lane;share,lane`: lane 1 is the inner one, -1 the outer one."""
        inner = _LANE if self._inner_is_left() else -_LANE
        positions = []
        for pair in re.split(r"[;\s]+", value.strip(" ;")):
            match = re.fullmatch(r"([0-9.eE+-]+),(-?1)(?:\.0*)?", pair)
            if match is None:
                raise ConfigError(
                    f"{at}: must be shares of the lap with a lane, 1 inner or -1 outer, such as "
                    f'"0.23,-1;0.46,1" (got {pair})'
                )
            share = within(0, 1, open_high=True)(at, match[1])
            positions.append([share, inner * int(match[2])])
        if len(positions) > _BODIES:
            raise ConfigError(f"{at}: at most {_BODIES} (got {len(positions)})")
        return positions


def _count(at: str, value: Any) -> int:
    count = 0 if str(value).strip() == "0" else integer(at, value)
    if count > _BODIES:
        raise ConfigError(f"{at}: must be 0 to {_BODIES} (got {value})")
    return count
