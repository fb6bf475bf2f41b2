"""The trainings of a population side by side: a process each, as many at once as there are cores.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from hotlap.errors import RunError
from hotlap.files import explained, json_lines
from hotlap.population import Population
from hotlap.progress import Board
from hotlap.threads import available

__all__ = ["follow", "train_fleet"]

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
    together = min(len(words), available())
    share = {"HOTLAP_THREADS": str(max(1, available() // together))}
    share["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    children = {seed: _Child(population.place(seed), seed) for seed in words}
    waiting, failures = list(words), dict[int, str]()
    board = Board([child.name for child in children.values()], *budget, plain=plain, quiet=quiet)
    with ExitStack() as stack:
        signals = stack.enter_context(_signals())
        stack.enter_context(board)
        stack.callback(lambda: _end([c for c in children.values() if c.process is not None]))
        asked = 0
        board.event(
            f"{len(words)} seeds, {together} at once with {share['HOTLAP_THREADS']} "
            f"{'thread' if share['HOTLAP_THREADS'] == '1' else 'threads'} each"
        )
        while True:
            running = [child for child in children.values() if child.process is not None]
            while waiting and len(running) < together and not signals:
                child = children[waiting.pop(0)]
                child.start([*program, *words[child.seed]], share)
                running.append(child)
                board.state(child.name, "running")
            if not running:
                break
            if len(signals) > asked:
                asked = len(signals)
                if asked == 1:
                    board.event("stopping each after its update; Ctrl-C again stops at once")
                for child in running:
                    child.ask(signals[-1] if asked < 3 else signal.SIGKILL)
            for child in running:
                status = child.poll()
                child.show(board)
                if status is None:
                    continue
                if status in (128 + number for number in signals):
                    board.state(child.name, "stopped")
                elif status:
                    failures[child.seed] = said = child.said(status)
                    board.state(child.name, "failed")
                    board.event(f"{child.name} failed: {said}")
                else:
                    board.state(child.name, "done")
                    board.event(f"{child.name} is done")
            board.tick()
            time.sleep(_LOOK)
    return replace(population, failures=failures), signals[0] if signals else 0


def follow() -> None:
    """Ask this process to stop when the one that holds its standard input has ended."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="follow").start()


class _Child:
    """The process that trains a seed, and what was read of its Run so far."""

    def __init__(self, run: Path, seed: int) -> None:
        self.seed, self.name = seed, run.name
        self.process: subprocess.Popen[bytes] | None = None
        self._log = run.with_name(f"{run.name}.log")
        self._tails = {name: _Tail(run / f"{name}.jsonl") for name in ("metrics", "events")}
        self._clean = False

    def start(self, command: Sequence[str], share: Mapping[str, str]) -> None:
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

    def ask(self, number: int) -> None:
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
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
        with suppress(OSError):
            if not self._log.stat().st_size:
                self._log.unlink()

    def show(self, board: Board) -> None:
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


class _Tail:
    """What is appended to a file of JSON lines from now on."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def skip(self) -> None:
        with suppress(OSError):
            self._offset = self._path.stat().st_size

    def read(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError:
            return []
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(fresh)
        return list(json_lines(fresh))


def _end(children: Sequence[_Child]) -> None:
    """Stop what still runs when this process leaves early, for whatever reason."""
    left = [(child, child.process) for child in children if child.process is not None]
    for _, process in left:
        process.terminate()
    until = time.monotonic() + _GRACE
    for child, process in left:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        child.close()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, in the main thread, where they can be."""
    got: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {}
    with suppress(ValueError):  # another thread's owner decides about Ctrl-C
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
