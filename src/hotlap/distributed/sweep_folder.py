"""Sweep: the folder of trainings that differ in some settings, and what they came to.

```
sweep.toml         the axes, how they are searched, and by what the trials are compared
config.toml        the settings of all, without the axes
trial0/ trial1/    a Run each; trial1-2 is the second Run of a trial that changed its settings
trial0.json        its settings, its Runs, and whose driver each began with
trial0.log         what its process said, if it said anything
trials.json        what each trial does
lineage/           drivers that others began with, a Run each (population-based training)
results.json       results.csv  learning.png  axes.png
tune/              what Ray Tune needs to go on
```
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import tomli_w

from hotlap.config import read_toml
from hotlap.distributed.axes import Axis, Choices, Range, label
from hotlap.errors import ConfigError, RunError
from hotlap.files import explained, replace
from hotlap.runs import Run
from hotlap.runs.mirror import Claim
from hotlap.runs.storage import Storage, is_url, url_of, vacant

__all__ = ["LIMITS", "MODES", "Facts", "Generation", "Search", "Sweep", "Trial", "mode_of"]

FORMAT = 1
_FILE, _RESULTS, _BOOK = "sweep.toml", "results.json", "trials.json"

LIMITS = ("seconds", "steps", "episodes")
"""Settings of `train` that end a training."""

Mode: TypeAlias = Literal["min", "max"]

MODES: dict[str, Mode] = {
    "score": "max",
    "completion": "max",
    "progress": "max",
    "best_lap_s": "min",
    "mean_lap_s": "min",
    "limit_ratio": "min",
    "first_clean_s": "min",
    "mean_reward": "max",
    "reward": "max",
    "lap_time": "min",
    "best_lap": "min",
    "episode_seconds": "max",
    "steps_per_second": "max",
}
"""What is often compared, and whether less or more of it is better."""


@dataclass(frozen=True)
class Search:
    """How the combinations are searched, and by what trials are compared."""

    axes: tuple[Axis, ...]
    search: Literal["grid", "random", "optuna"] = "grid"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    trials: int = 1
    metric: str = "score"
    mode: Mode = "max"
    part: float = 0.2
    """Share of a trial's budget until the first cut (asha), or between two exchanges (pbt)."""
    together: int = 0
    """Trials at once; 0: one a core."""
    seed: int = 0
    """Of what the search draws."""

    def better(self, value: float | None) -> float:
        """Return what sorts trials, the best one first; those without a value come last."""
        if value is None:
            return math.inf
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class Generation:
    """One Run of a trial. A trial of a grid has one; in a population each exchange begins one."""

    run: str
    """Name of its directory in the sweep's."""
    values: Mapping[str, Any]
    """The settings that make the trial what it is, by dotted name."""
    before: float = 0.0
    """Share of the budget that had been spent on its driver before."""
    parent: str | None = None
    """The Run whose driver it began with,"""
    steps: int = 0
    """after so many of its environment steps,"""
    snapshot: str | None = None
    """which is kept here, in the sweep's directory."""


@dataclass(frozen=True)
class Trial:
    """One combination of a sweep."""

    name: str
    generations: tuple[Generation, ...] = ()
    """The last one is the present one; none if it has not begun."""
    failures: tuple[str, ...] = ()
    """What its process ended with, each time that it failed."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Its settings by dotted name."""
        return self.generations[-1].values if self.generations else {}

    def taking(self, values: Mapping[str, Any], inherited: Mapping[str, Any]) -> Trial:
        """Return this trial as it is to go on: with its present Run, or with another one.

        Args:
            values: the settings that it shall have.
            inherited: whose driver Ray Tune handed to it: `trial`, `run`, `steps`, `before` and
                `snapshot`; empty if no one's.
        """
        now = self.generations[-1] if self.generations else None
        foreign = bool(inherited) and inherited["trial"] != self.name
        taken = foreign and now is not None and now.snapshot == inherited["snapshot"]
        if now is not None and now.values == values and (taken or not foreign):
            return self
        number = len(self.generations) + 1
        fresh = Generation(self.name if number == 1 else f"{self.name}-{number}", values)
        if inherited.get("snapshot"):
            fresh = replace_fields(
                fresh,
                before=inherited["before"],
                parent=inherited["run"],
                steps=inherited["steps"],
                snapshot=inherited["snapshot"],
            )
        return replace_fields(self, generations=(*self.generations, fresh))


class Facts:
    """What a training came to, by name: of its evaluations first, else of its metrics.

    `score` is 1 + 1 / mean lap [1/s] of a driver that finished every trial, and below 1 of another:
    half the share of trials that it finished and half the share of the way that it came. While it
    learns, evaluations are seldom, so that it is no less than half the way that the cars come.
    """

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}
        self._tried: dict[str, float] = {}
        self._ended = False

    @classmethod
    def of(cls, run: Run) -> Self:
        """Read all that a Run says."""
        facts = cls()
        for row in run.metrics_rows():
            facts.log(row)
        for event in run.events():
            facts.note(event)
        if run.is_reported:
            facts.report(run.report() or {})
        return facts

    def log(self, row: Mapping[str, Any]) -> None:
        """Take in a row of metrics."""
        self._logged |= _numbers(row)

    def note(self, event: Mapping[str, Any]) -> None:
        """Take in an event."""
        if event.get("kind") == "clean_laps":
            self._tried.setdefault("first_clean_s", float(event["seconds"]))
        elif event.get("kind") == "evaluation" and event.get("best"):
            self._try(event)

    def report(self, facts: Mapping[str, Any]) -> None:
        """Take in the evaluation at the end."""
        self._try(facts)
        self._ended = True

    def _try(self, facts: Mapping[str, Any]) -> None:
        kept = {k: v for k, v in self._tried.items() if k == "first_clean_s"}
        self._tried = _numbers(facts) | kept
        lap, share = self._tried.get("mean_lap_s"), self._tried.get("completion", 0.0)
        way = self._tried.get("progress", share)
        self._tried["score"] = 1 + 1 / lap if share == 1 and lap else (share + way) / 2

    def value(self, name: str) -> float | None:
        """Return one of them; None if nothing was said of it."""
        found = self._tried.get(name, self._logged.get(name))
        if name == "score" and not self._ended and "completion" in self._logged:
            return max(found or 0.0, self._logged["completion"] / 2)
        return found

    def names(self) -> list[str]:
        """List what was said."""
        return sorted({*self._logged, *self._tried})

    def spent(self, limits: Mapping[str, float]) -> float:
        """Return the share of a budget that is spent, whichever limit is nearest: 0 to 1."""
        parts = [self._logged.get(name, 0.0) / limit for name, limit in limits.items() if limit]
        return min(1.0, max(parts, default=0.0))


@dataclass(frozen=True)
class Sweep:
    """Trainings that differ in some settings; a directory."""

    path: Path
    """The folder; of one at a URL, its copy on this machine."""
    search: Search
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that were given beside the axes."""
    home: Path = field(default_factory=Path)
    """The folder that relative names of files in settings are meant from."""
    weights_from: str | None = None
    """The Run whose driver all start from."""
    made: Path = field(default_factory=Path)
    """Where the folder was when it was made."""
    storage: Storage | None = field(default=None, compare=False)
    """Where it is, if that is elsewhere."""

    @property
    def place(self) -> str:
        """Where it is, for people: its URL, or its folder."""
        return str(self.path) if self.storage is None else self.storage.url

    def at(self, name: str) -> str:
        """Return the path or the URL of what lies in it, or will."""
        return str(self.path / name) if self.storage is None else self.storage.child(name)

    @classmethod
    def create(
        cls,
        path: Path | str,
        config_toml: str,
        search: Search,
        fixed: Mapping[str, Any],
        weights_from: str | None = None,
    ) -> Self:
        """Make the folder of a new sweep.

        Raises:
            RunError: the folder holds something, or cannot be written.
        """
        directory, storage = vacant(path, "a sweep with hotlap sweep --resume")
        path = directory.absolute()
        home = Path.cwd()
        facts: dict[str, Any] = {"format": FORMAT, "home": str(home), "path": str(path)}
        if weights_from:
            facts["weights_from"] = weights_from
        if storage is not None:
            facts["url"] = storage.url
        how = asdict(search)
        facts |= {"search": {name: how[name] for name in how if name != "axes"}}
        facts |= {"fixed": dict(fixed), "axes": [_axis_facts(axis) for axis in search.axes]}
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            replace(path / "config.toml", config_toml.encode())
            replace(path / _FILE, tomli_w.dumps(facts).encode())
        if storage is not None:
            storage.send([path / "config.toml", path / _FILE])
        return cls(path, search, dict(fixed), home, weights_from, path, storage)

    @classmethod
    def open(cls, path: Path | str, say: Callable[[str], None] = lambda said: None) -> Self:
        """Open a sweep for reading.

        Args:
            path: its directory or URL.
            say: tells a user what is waited for, where it is elsewhere.

        Raises:
            RunError: `path` is none, is damaged, or is one of a newer hotlap.
        """
        if is_url(path):
            storage = Storage(path)
            storage.fetch("all", Claim(storage, say).newest_token)
            if not (storage.local / _FILE).is_file():
                raise RunError(f"{storage.url} is no sweep: it has no {_FILE}")
            path = storage.local
        path = Path(url_of(path))
        if not (path / _FILE).is_file():
            raise RunError(f"{path} is no sweep: it has no {_FILE}")
        try:
            found = read_toml(path / _FILE)
            version = found["format"]
            if version > FORMAT:
                raise RunError(f"{path} was made by a newer hotlap: install the newer hotlap")
            axes = tuple(_axis(facts) for facts in found["axes"])
            search = Search(axes=axes, **found["search"])
            home, at = Path(found["home"]), Path(found["path"])
            start = found.get("weights_from")
            url = found.get("url")
            elsewhere = None if url is None else Storage(url)
            return cls(path.absolute(), search, found["fixed"], home, start, at, elsewhere)
        except (KeyError, TypeError, ConfigError) as problem:
            raise RunError(f"{path / _FILE} is damaged ({problem})") from None

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Say whether a path is the folder of a sweep on this machine."""
        return (Path(path) / _FILE).is_file()

    @property
    def limits(self) -> dict[str, float]:
        """Return the budget that is the same for all trials: seconds, steps and episodes."""
        train = read_toml(self.path / "config.toml").get("train", {})
        train |= {k.removeprefix("train."): v for k, v in self.fixed.items()}
        return {name: float(train.get(name) or 0) for name in LIMITS}

    def trial(self, name: str) -> Trial:
        """Read one trial; one that has not begun has no generation.

        Raises:
            RunError: its file is damaged.
        """
        file = self.path / f"{name}.json"
        try:
            found = json.loads(file.read_bytes())
            made = tuple(Generation(**one) for one in found["generations"])
            return Trial(name, made, tuple(found["failures"]))
        except OSError:
            return Trial(name)
        except (ValueError, TypeError, KeyError) as problem:
            raise RunError(
                f"{file} is damaged ({problem}): delete it, and the trial begins anew"
            ) from None

    def write_trial(self, trial: Trial) -> None:
        """Write one trial; only its process may."""
        file, facts = self.path / f"{trial.name}.json", asdict(trial)
        facts.pop("name")
        with explained(file):
            replace(file, json.dumps(facts, indent=1, default=str).encode())

    def book(self) -> dict[str, dict[str, str]]:
        """Read what each trial does, and by what name Ray Tune knows it, in their order."""
        with suppress(OSError, ValueError):
            found: dict[str, dict[str, str]] = json.loads((self.path / _BOOK).read_bytes())
            return found
        return {}

    def write_book(self, book: Mapping[str, Mapping[str, str]]) -> None:
        """Write what `book` reads; only the process that leads the sweep may."""
        with explained(self.path / _BOOK):
            replace(self.path / _BOOK, json.dumps(book, indent=1).encode())

    def results(self) -> dict[str, Any]:
        """Return what all came to, the best trial first, ready for JSON."""
        rows = [self._row(self.trial(name), said["state"]) for name, said in self.book().items()]
        rows.sort(key=lambda row: self.search.better(row["value"]))
        best = next((row["run"] for row in rows if row["value"] is not None), None)
        return {
            "sweep": self.place,
            "run": best,
            "metric": self.search.metric,
            "mode": self.search.mode,
            "axes": [axis.name for axis in self.search.axes],
            "trials": rows,
        }

    def _row(self, trial: Trial, state: str) -> dict[str, Any]:
        now = trial.generations[-1] if trial.generations else None
        row: dict[str, Any] = {"trial": trial.name, "run": None, "state": state}
        row |= {"values": dict(trial.values), "value": None, "failures": list(trial.failures)}
        names = ("score", "completion", "best_lap_s", "mean_lap_s", "first_clean_s")
        row |= dict.fromkeys((*names, "steps", "seconds"))
        row["lineage"] = [one.parent for one in trial.generations if one.parent]
        if now is None or not (self.path / now.run / "meta.json").is_file():
            return row
        facts = Facts.of(Run.open(self.path / now.run))
        row["run"] = self.at(now.run)
        row["value"] = facts.value(self.search.metric)
        return row | {name: facts.value(name) for name in (*names, "steps", "seconds")}

    def write_results(self) -> dict[str, Any]:
        """Write results.json and results.csv, and return what is in them.

        Raises:
            RunError: they cannot be written.
        """
        found = self.results()
        with explained(self.path):
            replace(self.path / _RESULTS, json.dumps(found, indent=1).encode())
            replace(self.path / "results.csv", _csv(found).encode())
        return found


def mode_of(metric: str, asked: str | None) -> Mode:
    """Return whether less or more of a metric is better.

    Raises:
        ConfigError: it is not known, and was not said.
    """
    if asked not in (None, "min", "max"):
        raise ConfigError(f"--mode: choose from min, max (got {asked})")
    if metric not in MODES:
        near = difflib.get_close_matches(metric, MODES, n=1)
        if near:
            raise ConfigError(f"--metric {metric}: did you mean {near[0]}?")
        if asked is None:
            raise ConfigError(
                f"--metric {metric}: say with --mode min or --mode max which is better. Known are "
                f"{', '.join(MODES)}; any other column of a Run's metrics.jsonl may be named too"
            )
    return MODES[metric] if asked is None else asked  # type: ignore[return-value]


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in facts.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _axis_facts(axis: Axis) -> dict[str, Any]:
    if isinstance(axis, Choices):
        return {"name": axis.name, "values": list(axis.values)}
    return asdict(axis)


def _axis(facts: Mapping[str, Any]) -> Axis:
    if "values" in facts:
        return Choices(facts["name"], tuple(facts["values"]))
    return Range(**facts)


def _csv(found: Mapping[str, Any]) -> str:
    """Return the rows as a table, with a column for each axis."""
    text = io.StringIO()
    lists = ("values", "lineage", "failures")
    plain = [name for name in (found["trials"] or [{}])[0] if name not in lists]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain[:3], *found["axes"], *plain[3:], "lineage", "failures"])
    for row in found["trials"]:
        cells = [row["values"].get(name) for name in found["axes"]]
        shown = ["" if cell is None else label(cell) for cell in cells]
        said = [" < ".join(reversed(row["lineage"])), "; ".join(row["failures"])]
        first, last = [row[n] for n in plain[:3]], [row[n] for n in plain[3:]]
        writer.writerow([*first, *shown, *last, *said])
    return text.getvalue()
