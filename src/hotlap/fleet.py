"""Trainings side by side: a process each, as many at once as there are cores.

A process is the ordinary command `hotlap train`. What it does is read from the files of its Run; it
hears of the end of this process by its standard input, which nothing is ever written to, and stops
then as if it had been asked to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hotlap.errors import RunError
from hotlap.files import explained, json_lines
from hotlap.population import Population
from hotlap.progress import Board
from hotlap.signals import heard
from hotlap.threads import available

__all__ = ["Child", "Fleet", "State", "Tail", "follow", "train_fleet"]

State: TypeAlias = Literal["waiting", "running", "done", "stopped", "failed"]

_PROGRAM = (
    sys.executable,
    "-P",  # a file of the user's in this folder hides no module; sys.path is handed on instead
    "-c",
    "from hotlap.fleet import follow; follow(); from hotlap.cli import main; main()",
)
_LOOK, _GRACE = 0.1, 30.0


def train_fleet(
    population: Population,
    words: Mapping[int, Sequence[str]],
    *,
    budget: tuple[float | None, int | None],
    plain: bool = False,
    quiet: bool = True,
    program: Sequence[str] = _PROGRAM,
) -> tuple[Population, int]:
    """Train seeds of a population, each by a command of its own; one that fails stops no other.

    Ctrl-C or SIGTERM in the main thread asks each to stop after its update, a second one to stop
    at once.

    Args:
        population: whose seeds they are.
        words: what follows `hotlap` on the command line of each seed.
        budget: seconds and steps of each, for the display.
        plain: print plain lines in place of the live table.
        quiet: print nothing.
        program: what stands for `hotlap`; for tests.

    Returns:
        The population with what failed, and the number of the signal that ended it, or 0.
    """
    seeds = {population.place(seed): seed for seed in words}
    fleet = Fleet({place: words[seed] for place, seed in seeds.items()}, program=program)
    names = [child.name for child in fleet.children.values()]
    board = Board(names, *budget, plain=plain, quiet=quiet)
    with ExitStack() as stack:
        signals: list[int] = []
        stack.enter_context(heard(signals.append))
        stack.enter_context(board)
        stack.callback(fleet.stop)
        asked = 0
        board.event(
            f"{len(words)} seeds, {fleet.together} at once with {fleet.threads} "
            f"{'thread' if fleet.threads == 1 else 'threads'} each"
        )
        while True:
            if len(signals) > asked:
                asked = len(signals)
                if asked == 1:
                    board.event("stopping each after its update; Ctrl-C again stops at once")
                fleet.ask(signals[-1] if asked < 3 else signal.SIGKILL)
            for child in fleet.tend():
                board.state(child.name, child.state)
                if child.state == "running":
                    continue
                child.show(board)
                if child.state == "failed":
                    board.event(f"{child.name} failed: {child.failure}")
                elif child.state == "done":
                    board.event(f"{child.name} is done")
            if not fleet.active:
                break
            for child in fleet.children.values():
                if child.state == "running":
                    child.show(board)
            board.tick()
            time.sleep(_LOOK)
    failures = {seeds[place]: said for place, said in fleet.failures.items()}
    return replace(population, failures=failures), signals[0] if signals else 0


class Fleet:
    """Commands that train, side by side: a process each, as many at once as there are cores.

    One that fails stops no other. Nothing happens but in `tend`, which the owner calls again and
    again; `ask` and `stop` may be called from another thread.

    Args:
        words: by the directory of each Run, what follows `hotlap` on its command line.
        threads: by directory, the most that a Run may use; all have their share of the cores.
        program: what stands for `hotlap`; for tests.
    """

    def __init__(
        self,
        words: Mapping[Path, Sequence[str]],
        *,
        threads: Mapping[Path, int] | None = None,
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.together = min(len(words), available())
        self.threads = max(1, available() // max(1, self.together))
        self.children = {place: Child(place) for place in words}
        self._commands = {place: [*program, *said] for place, said in words.items()}
        self._most = threads or {}
        self._asked: set[int] = set()
        self._lock = threading.RLock()

    @property
    def active(self) -> bool:
        """Whether any runs, or waits for its turn."""
        return any(child.state in ("waiting", "running") for child in self.children.values())

    @property
    def failures(self) -> dict[Path, str]:
        """What ended those that did not come to their end, by directory."""
        return {at: child.failure for at, child in self.children.items() if child.failure}

    def tend(self) -> list[Child]:
        """Start what has its turn, and note what has ended; return those of a new state."""
        with self._lock:
            changed = [child for child in self.children.values() if self._ended(child)]
            running = sum(child.state == "running" for child in self.children.values())
            for place, child in self.children.items():
                if child.state == "waiting" and running < self.together:
                    count = min(self.threads, self._most.get(place, self.threads))
                    share = {"HOTLAP_THREADS": str(max(1, count))}
                    share["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
                    child.start(self._commands[place], share)
                    changed.append(child)
                    running += 1
            return changed

    def _ended(self, child: Child) -> bool:
        status = child.poll() if child.state == "running" else None
        if status is None:
            return False
        if status in (128 + number for number in self._asked):
            child.state = "stopped"
        elif status:
            child.state, child.failure = "failed", child.said(status)
        else:
            child.state = "done"
        return True

    def ask(self, number: int, places: Iterable[Path] | None = None) -> None:
        """Send a signal to those that run, of some or of all; those that wait do not begin."""
        with self._lock:
            if number != signal.SIGKILL:  # who dies of that has written nothing
                self._asked.add(number)
            for place in self.children if places is None else places:
                child = self.children[place]
                if child.state == "running":
                    child.ask(number)
                elif child.state == "waiting":
                    child.state = "stopped"

    def stop(self, places: Iterable[Path] | None = None) -> None:
        """Stop some, or all: each after its update, and after 30 s at once.

        When this returns no process of them is left.
        """
        with self._lock:
            chosen = list(self.children if places is None else places)
            self.ask(signal.SIGTERM, chosen)
            until = time.monotonic() + _GRACE
            for place in chosen:
                child = self.children[place]
                if child.process is None:
                    continue
                try:
                    child.process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()
                self._ended(child)


def follow() -> None:
    """Ask this process to stop when the one that holds its standard input has ended."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="follow").start()


class Child:
    """The process that trains a Run, and what was read of it so far. Its owner is the fleet."""

    def __init__(self, run: Path) -> None:
        self.name = run.name
        self.state: State = "waiting"
        self.failure = ""
        """What it ended with, where it did not come to its end."""
        self.process: subprocess.Popen[bytes] | None = None
        self._log = run.with_name(f"{run.name}.log")
        self._tails = {name: Tail(run / f"{name}.jsonl") for name in ("metrics", "events")}
        self._clean = False

    def start(self, command: Sequence[str], share: Mapping[str, str]) -> None:
        """Start the process; `share` is what its environment has besides ours."""
        for tail in self._tails.values():
            tail.skip()
        try:
            with explained(self._log), self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env={**os.environ, **share},
                    start_new_session=True,  # Ctrl-C is for us: we ask each, once
                )
        except OSError as error:
            raise RunError(f"{command[0]}: cannot be started ({error.strerror})") from None
        self.state = "running"

    def ask(self, number: int) -> None:
        """Send a signal to the process."""
        if self.process is not None:
            self.process.send_signal(number)

    def poll(self) -> int | None:
        """Return the exit status once it has ended; that of a killed one is 128 and the signal."""
        assert self.process is not None
        status = self.process.poll()
        if status is None:
            return None
        self.close()
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        """Let go of a process that has ended; a log without a word is deleted."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
        with suppress(OSError):
            if not self._log.stat().st_size:
                self._log.unlink()

    def show(self, board: Board) -> None:
        """Show what the Run says that it had not said before."""
        for row in self._tails["metrics"].read():
            board.update(self.name, row)
        for event in self._tails["events"].read():
            if event.get("kind") == "clean_laps" and not self._clean:
                self._clean = True
                seconds, laps = event["seconds"], event["laps"]
                board.update(self.name, {"first_clean": seconds})
                board.event(
                    f"{self.name}: {laps} clean {'lap' if laps == 1 else 'laps in a row'} from "
                    f"every start after {seconds:.1f} s, {event['steps']:,} steps"
                )

    def said(self, status: int) -> str:
        """Return the sentence that a failed process ended with."""
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").splitlines()
            ours = [line.removeprefix("hotlap: ") for line in lines if line.startswith("hotlap: ")]
            if ours:
                return " ".join(ours)
        if status > 128:
            with suppress(ValueError):
                return f"its process was killed ({signal.Signals(status - 128).name})"
        return f"its process ended with status {status}; {self._log} holds what it said"


class Tail:
    """What is appended to a file of JSON lines from now on."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def skip(self) -> None:
        """Pass over what is there."""
        with suppress(OSError):
            self._offset = self._path.stat().st_size

    def read(self) -> list[dict[str, Any]]:
        """Return the whole lines that came since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError:
            return []
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(fresh)
        return list(json_lines(fresh))
