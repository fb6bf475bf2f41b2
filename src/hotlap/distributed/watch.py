"""Watch: what a sweep shows while it goes, and what it notes of it. Reads the files of the Runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotlap.distributed.axes import label
from hotlap.distributed.sweep_folder import Facts, Sweep
from hotlap.errors import HotlapError
from hotlap.fleet import Tail
from hotlap.progress import Board
from hotlap.runs import Run

__all__ = ["Watch", "shown"]

_LOOK = 0.2


class Watch:
    """Keeps the book of a sweep and fills its table. Its owner is the process that leads the sweep.

    Args:
        sweep: which.
        board: where it is shown.
    """

    def __init__(self, sweep: Sweep, board: Board) -> None:
        self.sweep = sweep
        self.board = board
        self.problem: str = ""
        """Why the sweep cannot come to anything, once that is known."""
        self._book = {name: dict(said) for name, said in sweep.book().items()}
        self._told = {name: len(sweep.trial(name).failures) for name in self._book}
        self._runs: dict[str, str] = {}
        self._tails: dict[str, tuple[Tail, Tail]] = {}
        self._clean = set[str]()
        self._due = 0.0
        self._lost: list[str] | None = None
        for name, said in self._book.items():
            board.note(name, shown(sweep.trial(name).values))
            if said["state"] in ("done", "cut", "failed"):
                board.state(name, said["state"])

    def forget(self) -> None:
        """Begin the book anew, where Ray Tune remembers nothing."""
        self._book.clear()

    def present(self, keys: set[str]) -> None:
        """Hear, at the start, which trials Ray Tune remembers; the others' names are free again."""
        if self._lost is None:
            self._lost = [name for name, said in self._book.items() if said["key"] not in keys]

    def name_of(self, key: str) -> str:
        """Return the name of the trial that Ray Tune knows as `key`, the next one if it is new."""
        for name, said in self._book.items():
            if said["key"] == key:
                return name
        name = self._lost.pop(0) if self._lost else f"trial{len(self._book)}"
        self._book[name] = {"key": key, "state": "waiting"}
        self.sweep.write_book(self._book)
        return name

    def state(self, name: str, word: str) -> None:
        """Note what a trial does."""
        if self._book[name]["state"] == word:
            return
        self._book[name]["state"] = word
        self.sweep.write_book(self._book)
        self.board.state(name, word)

    def began(self, name: str) -> None:
        """Note that a trial is at work."""
        self.state(name, "running")

    def stopped(self) -> None:
        """Note that the sweep is over before its trials are."""
        for name, said in self._book.items():
            if said["state"] == "running":
                self.show(name)
                self.state(name, "stopped")

    def ended(self, name: str, *, failed: bool = False) -> None:
        """Note that a trial is over, and write down what all came to so far."""
        self.show(name)
        trial = self.sweep.trial(name)
        run = self.sweep.path / trial.generations[-1].run if trial.generations else None
        done = False
        with contextlib.suppress(HotlapError):
            done = run is not None and Run.open(run).is_reported
        if failed:
            self.state(name, "failed")
            self.failed(name, "It is given up")
        elif done:
            self.state(name, "done")
            self._told_result(name, Facts.of(Run.open(run or Path())))
        else:
            self.state(name, "cut")
            self.board.event(f"{name} is cut: others were better at this point")
        self.sweep.write_results()

    def _told_result(self, name: str, facts: Facts) -> None:
        metric = self.sweep.search.metric
        value = facts.value(metric)
        if value is not None:
            self.board.event(f"{name} is done: {metric} {value:.4g}")
            return
        self.board.event(f"{name} is done; it has no {metric}")
        if metric not in facts.names() and not self.problem:
            self.problem = f"{metric}: {name} came to its end and never said it"

    def failed(self, name: str, then: str = "It goes on from its checkpoint") -> None:
        """Tell why a trial failed, once for each failure."""
        failures = self.sweep.trial(name).failures
        fresh = failures[self._told.get(name, 0) :] or ("its process or its machine was lost",)
        self._told[name] = len(failures)
        self.board.event(f"{name} failed: {fresh[-1].rstrip('.')}. {then}")

    def tick(self) -> None:
        """Show what is new, a few times a second at most."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _LOOK
        for name, said in self._book.items():
            if said["state"] == "running":
                self.show(name)
        self.board.tick()

    def show(self, name: str) -> None:
        """Show what a trial's Run says that it had not said before."""
        trial = self.sweep.trial(name)
        if not trial.generations:
            return
        now = trial.generations[-1]
        place = self.sweep.path / now.run
        if self._runs.get(name) != now.run:
            self._runs[name] = now.run
            self._tails[name] = Tail(place / "metrics.jsonl"), Tail(place / "events.jsonl")
            self.board.note(name, shown(now.values))
            if now.parent:
                self.board.event(
                    f"{name} begins with the driver of {now.parent} after {now.steps:,} steps: "
                    f"{shown(now.values)}"
                )
        metrics, events = self._tails[name]
        for row in metrics.read():
            self.board.update(name, row)
        for event in events.read():
            if event.get("kind") == "clean_laps" and name not in self._clean:
                self._clean.add(name)
                self.board.update(name, {"first_clean": event["seconds"]})


def shown(values: Mapping[str, Any]) -> str:
    """Write settings for people, by the last part of their names.

    >>> shown({"algorithm.learning_rate": 0.00031234, "track": "oval"})
    'learning_rate=0.000312 track=oval'
    """
    parts = []
    for name, value in values.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(label(value))
        parts.append(f"{name.removesuffix('.kind').rpartition('.')[2]}={text}")
    return " ".join(parts)
