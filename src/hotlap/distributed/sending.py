"""Sending: keeps a sweep at a URL up to date while it goes on here.

Its trainings send their own Runs (see `mirror`); this sends what lies around them, in an order in
which whatever is named is there before it is named. It holds a claim, as a training does, so that
two never write one sweep.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from hotlap.errors import RunError
from hotlap.files import TEMPORARY
from hotlap.runs.mirror import BEAT, Claim
from hotlap.runs.storage import INDEX, Index, Storage, identity, is_transient, problem

__all__ = ["Sender"]

PATIENCE = 120.0
"""Seconds that the end of a sweep waits for an outage."""


class Sender:
    """Sends the folder of a sweep, from its entry to its exit.

    Args:
        storage: the sweep's folder.
        say: tells a user what goes wrong.

    Raises:
        RunError: on entry, if another sweep writes there, or the URL cannot be written.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        self._storage, self._say = storage, say
        self._claim = Claim(storage, say)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="hotlap-sender")
        self._lost = ""
        self._away = False

    def __enter__(self) -> Self:
        self._claim.take()
        index = Index.read(self._storage.local)
        index.token, index.unsent = self._claim.token, True
        index.write(self._storage.local)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ends.set()
        self._thread.join()
        until = time.monotonic() + PATIENCE
        while not self._sent(last=True) and not self._lost and time.monotonic() < until:
            time.sleep(1.0)
        if self._lost or self._away:
            self._say(
                f"{self._lost or f'{self._storage.url} does not answer'}. What was not sent is in "
                f"{self._storage.local}"
            )
        else:
            self._claim.release()

    def _go_on(self) -> None:
        while not self._ends.wait(BEAT) and not self._lost:
            self._sent()

    def _sent(self, *, last: bool = False) -> bool:
        """Send what is new; return whether all of it arrived."""
        try:
            self._claim.hold(sign=True)
            self._send(last=last)
        except RunError as error:
            self._lost = str(error).rstrip(".")
        except Exception as error:  # each file system has errors of its own
            if not is_transient(error):
                self._lost = str(problem(self._storage.url, error, "be written")).rstrip(".")
            elif not self._away:
                self._away = True
                self._say(
                    f"{self._storage.url} does not answer; the sweep goes on, and tries again"
                )
            return False
        else:
            self._away = False
        return not self._lost

    def _send(self, *, last: bool) -> None:
        storage, local = self._storage, self._storage.local
        index = Index.read(local)
        there = set()
        for path in sorted(_files(local), key=_turn):
            name = path.relative_to(local).as_posix()
            there.add(name)
            if index.same(name, path):
                continue
            try:
                before = path.stat()
                storage.put(name, path)
                index.note(name, path, identity(storage.fs.info(storage.at(name))))
                changed = path.stat().st_mtime_ns != before.st_mtime_ns
            except FileNotFoundError:
                if path.exists():  # so it is the other side that has no such place
                    raise
                there.discard(name)
                continue
            if changed:  # on its way: once more in the next round
                del index.files[name]
        for name in [one for one in index.files if one not in there and _is_ours(one)]:
            with contextlib.suppress(FileNotFoundError):
                storage.fs.rm_file(storage.at(name))
            del index.files[name]
        index.unsent = not last
        index.write(local)


def _files(folder: Path) -> Iterator[Path]:
    """List what is to be sent: not the Runs of trainings, which send themselves."""
    for place, _, names in os.walk(folder):  # which takes no offence at what vanishes meanwhile
        for path in (Path(place, name) for name in names):
            if _is_ours(path.relative_to(folder).as_posix()) and not path.is_symlink():
                yield path


def _is_ours(name: str) -> bool:
    first, slash, _ = name.partition("/")
    own = first in ("tune", "lineage") if slash else name not in (INDEX, "lock")
    return own and TEMPORARY not in name


def _turn(path: Path) -> tuple[int, str]:
    """Tell when a file's turn is: drivers, then what names them, then what names that."""
    names = ("config.toml", "sweep.toml", "results.json", "results.csv", "trials.json")
    last = names.index(path.name) + 2 if path.name in names else 0
    return last or int(path.name.startswith("trial")), str(path)
