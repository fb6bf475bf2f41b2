"""Population: the folder of trainings that differ in their seed, and what they say together.

```
config.toml        the settings of all; the seed in it is the first one's
population.json    the seeds, and whose driver they start from
seed0/ seed1/ ...  a Run each, like any other
seed0.log          what its process said, if it said anything
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from hotlap.errors import ConfigError, RunError
from hotlap.files import explained, replace
from hotlap.runs import Run
from hotlap.runs.storage import Storage, is_url, url_of, vacant
from hotlap.types import Array

__all__ = ["FIGURES", "Population", "Result", "Spread", "read_seeds", "spread"]

FORMAT = 1
_FILE = "population.json"
_SEEDS_MAX = 1000
_RESAMPLES = 2000

FIGURES = ("first_clean_s", "best_lap_s", "mean_lap_s", "completion")
"""What is compared over seeds; of a Result."""


@dataclass(frozen=True)
class Result:
    """What one training came to; None where there is nothing to say."""

    seed: int
    run: Path | str
    """Its directory, or its URL."""
    steps: int
    first_clean_s: float | None
    """Seconds of training until a driver first finished every trial."""
    best_lap_s: float | None
    """Of the best driver's evaluation, as the next two."""
    mean_lap_s: float | None
    completion: float | None
    done: bool
    """Whether it has its report; what is said of the others is the best so far."""

    @property
    def _rank(self) -> tuple[float, float]:
        return self.completion or 0.0, -math.inf if self.mean_lap_s is None else -self.mean_lap_s


@dataclass(frozen=True)
class Spread:
    """One figure over the seeds. Infinite where a seed has none: a lap never driven is no lap."""

    median: float
    low: float
    high: float
    iqm: float
    """Interquartile mean: of the middle half of the values."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the interquartile mean; with few seeds it is too narrow."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON, which knows no infinity."""
        facts = asdict(self) | {"interval": list(self.interval)}
        return {k: _finite(v) for k, v in facts.items()}


@dataclass(frozen=True)
class Population:
    """Several trainings of one configuration; a directory."""

    path: Path
    """The folder; of one at a URL, its copy on this machine."""
    seeds: tuple[int, ...]
    weights_from: str | None = None
    """The Run whose driver all start from,"""
    checkpoint: str = "best"
    """and which of its drivers."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """What ended a training that did not come to its end, by seed; of this session."""
    storage: Storage | None = field(default=None, compare=False)
    """Where it is, if that is elsewhere."""

    @classmethod
    def create(
        cls,
        path: Path | str,
        config_toml: str,
        seeds: Sequence[int],
        weights_from: str | None = None,
        checkpoint: str = "best",
    ) -> Self:
        """Make the folder of a new population.

        Raises:
            RunError: the folder holds something, or cannot be written.
        """
        path, storage = vacant(path, "a population with --resume")
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            replace(path / "config.toml", config_toml.encode())
            facts = {"format": FORMAT, "seeds": list(seeds), "weights_from": weights_from}
            facts |= {"checkpoint": checkpoint}
            replace(path / _FILE, json.dumps(facts).encode())
        if storage is not None:
            storage.send([path / "config.toml", path / _FILE])
        return cls(path, tuple(seeds), weights_from, checkpoint, storage=storage)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a population for reading.

        Raises:
            RunError: `path` is none, or one of a newer hotlap.
        """
        storage = Storage(path) if is_url(path) else None
        if storage is not None:
            storage.fetch("facts")
            path = storage.local
        path = Path(url_of(path))
        try:
            found = json.loads((path / _FILE).read_bytes())
            version, seeds = found["format"], found["seeds"]
            if not isinstance(version, int) or not all(isinstance(s, int) for s in seeds):
                raise TypeError
        except OSError:
            place = path if storage is None else storage.url
            raise RunError(f"{place} is no population: it has no {_FILE}") from None
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path / _FILE} is damaged: write the seeds into it again") from None
        if version > FORMAT:
            raise RunError(f"{path} was made by a newer hotlap: install the newer hotlap")
        which = str(found.get("checkpoint", "best"))
        return cls(path, tuple(seeds), found.get("weights_from"), which, storage=storage)

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Say whether a path is the folder of a population."""
        if is_url(path):
            return _FILE in Storage(path).infos(deep=False)
        return (Path(url_of(path)) / _FILE).is_file()

    @property
    def address(self) -> str:
        """Where it is, for people: its URL, or its folder."""
        return str(self.path) if self.storage is None else self.storage.url

    def address_of(self, seed: int) -> str:
        """Return the URL or the directory of a seed's Run, which need not exist yet."""
        place = self.place(seed)
        return str(place) if self.storage is None else self.storage.child(place.name)

    def send(self, file: Path) -> None:
        """Send a file of the folder to its URL, if it has one.

        Raises:
            RunError: it cannot be written there.
        """
        if self.storage is not None:
            self.storage.send([file])

    def place(self, seed: int) -> Path:
        """Return the directory of a seed's Run, or of its copy, which need not exist yet."""
        return self.path / f"seed{seed}"

    def runs(self) -> dict[int, Run]:
        """Open the Runs that have begun, by seed."""
        if self.storage is not None:
            there = {seed: f"{self.place(seed).name}/meta.json" for seed in self.seeds}
            begun = [seed for seed, name in there.items() if self.storage.exists(name)]
        else:
            begun = [seed for seed in self.seeds if (self.place(seed) / "meta.json").is_file()]
        return {seed: Run.open(self.address_of(seed)) for seed in begun}

    def results(self) -> list[Result]:
        """Read what each training came to, or has come to so far."""
        return [_result(seed, run) for seed, run in self.runs().items()]

    def best(self) -> Result | None:
        """Return the training with the best driver: completion, then mean lap; None without any."""
        return _best(self.results())

    def spreads(self) -> dict[str, Spread]:
        """Return how the figures spread over the seeds that have been evaluated; {} if none."""
        return self._spreads(self.results())

    def _spreads(self, results: Sequence[Result]) -> dict[str, Spread]:
        rows = [r for r in results if r.completion is not None and r.seed not in self.failures]
        if not rows:
            return {}
        return {name: spread([getattr(row, name) for row in rows]) for name in FIGURES}

    def as_dict(self, reports: Mapping[int, Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Return all of it ready for JSON.

        Args:
            reports: what other evaluations said of the drivers, by seed; only those seeds are told.
        """
        runs = self.runs()
        if reports is None:
            results = self.results()
        else:
            results = [_result(seed, runs[seed], reports[seed]) for seed in reports]
        best = _best(results)
        rows = [asdict(result) | {"run": str(result.run)} for result in results]
        return {
            "population": self.address,
            "run": None if best is None else str(best.run),
            "seeds": rows,
            "spread": {name: value.as_dict() for name, value in self._spreads(results).items()},
            "failures": {str(seed): said for seed, said in self.failures.items()},
        }


def read_seeds(text: str | int | Sequence[int], first: int = 0) -> tuple[int, ...]:
    """Read the seeds of a population: a number of them, a list such as 0,3,7, or a range 3-6.

    Args:
        text: what was asked for.
        first: the first seed, where only their number is given.

    Raises:
        ConfigError: it is none of these, a seed comes twice, or there are more than 1000.
    """
    allowed = f"give their number, as 5, a list, as 0,3,7, or a range, as 3-6; {_SEEDS_MAX} at most"
    try:
        if isinstance(text, int) or (isinstance(text, str) and text.strip().isdigit()):
            count = int(text)
            found = range(first, first + min(count, _SEEDS_MAX + 1))
        elif isinstance(text, str):
            found = [seed for part in text.split(",") for seed in _from_to(part)]  # type: ignore[assignment]
        else:
            found = [int(seed) for seed in text]  # type: ignore[assignment]
    except (ValueError, TypeError):
        raise ConfigError(f"seeds: {allowed} (got {text})") from None
    if not 1 <= len(found) <= _SEEDS_MAX or min(found) < 0:
        raise ConfigError(f"seeds: {allowed} (got {text})")
    if len(set(found)) < len(found):
        raise ConfigError(f"seeds: each once, for equal seeds train equally (got {text})")
    return tuple(found)


def _from_to(part: str) -> range:
    first, dash, last = part.partition("-")
    low, high = int(first), int(last if dash else first)
    if high - low > _SEEDS_MAX:
        raise ValueError
    return range(low, high + 1)


def spread(values: Sequence[float | None]) -> Spread:
    """Summarise a figure over seeds; None counts as infinite, so that no failure flatters.

    Source: the interquartile mean and its percentile bootstrap of Agarwal et al. 2021, "Deep
    reinforcement learning at the edge of the statistical precipice" (arXiv:2108.13264), sec. 4.3
    and 4.1, for the seeds of one task.
    """
    sorted_ = np.sort([math.inf if value is None else value for value in values])
    draws = np.random.default_rng(0).integers(len(sorted_), size=(_RESAMPLES, len(sorted_)))
    again = np.sort(_middle(np.sort(sorted_[draws], axis=1)))
    # Not between two of them: of an infinite one and a finite one there is no mean.
    low, high = (float(np.quantile(again, q, method="nearest")) for q in (0.025, 0.975))
    half = len(sorted_) // 2
    median = sorted_[half] if len(sorted_) % 2 else sorted_[half - 1 : half + 1].mean()
    return Spread(
        median=float(median),
        low=float(sorted_[0]),
        high=float(sorted_[-1]),
        iqm=float(_middle(sorted_[None])[0]),
        interval=(low, high),
    )


def _middle(rows: Array) -> Array:
    """Return the mean of the middle half of each sorted row."""
    cut = rows.shape[1] // 4
    return np.asarray(rows[:, cut : rows.shape[1] - cut].mean(axis=1))


def _best(results: Sequence[Result]) -> Result | None:
    tried = [result for result in results if result.completion is not None]
    return max(tried, key=lambda result: result._rank, default=None)


def _result(seed: int, run: Run, report: Mapping[str, Any] | None = None) -> Result:
    events = run.events()
    if report is None and run.is_reported:  # one of before it went on says nothing of it now
        report = run.report()
    clean = [event.get("seconds") for event in events if event.get("kind") == "clean_laps"]
    tried = [event for event in events if event.get("kind") == "evaluation"]
    best = [event for event in tried if event.get("best")]
    facts: Mapping[str, Any] = report or (best[-1] if best else {})
    kept = run.checkpoints()
    return Result(
        seed=seed,
        run=run.place if is_url(run.place) else run.path,
        steps=kept[-1] if kept else 0,
        first_clean_s=clean[0] if clean else None,
        best_lap_s=facts.get("best_lap_s"),
        mean_lap_s=facts.get("mean_lap_s"),
        completion=facts.get("completion"),
        done=report is not None,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
