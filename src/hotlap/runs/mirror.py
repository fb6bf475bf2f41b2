"""Mirror: sends what one training writes on this machine to its URL, while it goes on.

Object stores know no append and no rename, and they are sometimes away. So a training writes its
Run on this machine, and a thread sends what is new. There it becomes visible in an order in which
the Run is complete at any time: arrays, then lines, then `best`, then `last`, then the report.

Who sends holds a claim, `claims/<n>.json`, which exactly one can make, and shows every ten seconds
that it lives. Whoever wants to write makes number n + 1 once number n is released or dead; the
holder of n sees that and sends nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hotlap.errors import RunError
from hotlap.files import TEMPORARY
from hotlap.runs.storage import CLAIMS, INDEX, Index, Storage, identity, is_transient, problem

__all__ = ["Claim", "Mirror"]

BEAT, LEASE, LONG_AGO = 10.0, 45.0, 900.0
"""Seconds between signs of life; how long none makes a claim void to who watches it; and the age at
which nobody needs to watch. S3 refuses clocks that are further apart."""
PERIOD, PATIENCE, SILENCE = 10.0, 600.0, 3.0
"""Seconds between two rounds at most; how long the end of a training waits for an outage; and for
how long it says nothing while it sends."""

_STAGE = f"{TEMPORARY}mirror"
_POINTERS = ("best", "last")


class Claim:
    """The right to write a folder at a URL.

    Args:
        storage: the folder.
        say: tells a user what is waited for.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        self.token = uuid.uuid4().hex
        self._storage, self._say = storage, say
        self._number, self._beats, self._checked = 0, 0, 0.0
        self._released = False
        self._lock = threading.Lock()

    def take(self) -> str:
        """Become the one who may write; return the token of who was it before, "" if nobody.

        Waits up to 45 s where somebody did not say goodbye, to see whether they live.

        Raises:
            RunError: somebody else writes there, or the URL cannot be read or written.
        """
        watched: Mapping[str, Any] | None = None
        since = 0.0
        while True:
            with self._storage.explained("be read"):
                number, holder = self._newest()
            if number and not _is_over(holder):
                if watched is None and not _is_here(holder):
                    watched, since = holder, time.monotonic()
                    self._say(
                        f"{self._storage.url}: {_who(holder)} wrote there, and did not say that it "
                        f"has ended; looking for signs of life, {LEASE:g} s at most"
                    )
                if holder != watched or _is_here(holder):
                    raise RunError(
                        f"{self._storage.url} is being written by {_who(holder)}: wait until it "
                        "ends, or stop it, or choose another place with --out"
                    )
                if time.monotonic() - since < LEASE:
                    time.sleep(min(1.0, LEASE / 5))
                    continue
            self._number, self._released = number + 1, False
            with self._storage.explained("be written"):
                try:
                    self._storage.fs.pipe_file(self._path, self._content(), mode="create")
                except FileExistsError:  # somebody was faster
                    watched = watched or {}
                    continue
                self._checked = time.time()
                self._forget()
            return str(holder.get("token", ""))

    @property
    def _path(self) -> str:
        return self._storage.at(f"{CLAIMS}/{self._number:06d}.json")

    def _content(self, *, released: bool = False) -> bytes:
        facts = {"token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        facts |= {"machine": _machine(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
        return json.dumps({**facts, "beats": self._beats, "released": released}).encode()

    def _numbers(self) -> list[int]:
        try:
            found = self._storage.fs.ls(self._storage.at(CLAIMS), detail=False)
        except FileNotFoundError:
            return []
        names = [str(path).rpartition("/")[2].removesuffix(".json") for path in found]
        return sorted(int(name) for name in names if name.isdigit())

    def _newest(self) -> tuple[int, Mapping[str, Any]]:
        """Return the number and the content of the newest claim; 0 and {} if there is none."""
        number = max(self._numbers(), default=0)
        with contextlib.suppress(FileNotFoundError, ValueError):
            content = self._storage.read(f"{CLAIMS}/{number:06d}.json") if number else None
            found = json.loads(content or b"{}")
            return number, found if isinstance(found, dict) else {}
        return number, {}

    def _forget(self) -> None:
        for number in self._numbers():
            if number < self._number:
                with contextlib.suppress(FileNotFoundError):
                    self._storage.fs.rm_file(self._storage.at(f"{CLAIMS}/{number:06d}.json"))

    def newest_token(self) -> str:
        """Return the token of the newest claim, "" if there is none."""
        with self._storage.explained("be read"):
            return str(self._newest()[1].get("token", ""))

    def hold(self, *, sign: bool = False) -> None:
        """Make sure that nobody has taken over; ask only if that was not seen just now.

        Args:
            sign: show that we live, too.

        Raises:
            RunError: somebody has.
        """
        with self._lock:
            if self._released:  # a sign of life that waited for the lock meanwhile
                return
            # By the wall clock: a machine that slept was away.
            if not sign and abs(time.time() - self._checked) < BEAT:
                return
            if max(self._numbers(), default=0) > self._number:
                _, holder = self._newest()
                raise _TakenOverError(
                    f"{self._storage.url}: {_who(holder)} has taken this Run over; this one ends. "
                    f"What it did since it last sent is in {self._storage.local}"
                )
            if sign:
                self._beats += 1
                self._storage.fs.pipe_file(self._path, self._content())
            self._checked = time.time()

    def release(self) -> None:
        """Say that we write no more."""
        with self._lock:
            self._storage.fs.pipe_file(self._path, self._content(released=True))
            self._released = True


class _TakenOverError(RunError):
    """Somebody else writes now."""

    exit_code = 1


class Mirror:
    """The threads that send the copy of one Run to its URL. Its owner is the Run.

    Nothing that they meet stops the training, but that somebody else has taken over.

    Args:
        storage: the folder at the URL, and its copy.
        claim: ours, taken.
    """

    def __init__(self, storage: Storage, claim: Claim) -> None:
        self.words: deque[str] = deque()
        """What a user should hear; the owner takes it from here."""
        self._storage, self._claim, self._folder = storage, claim, storage.local
        self._index = Index.read(self._folder)
        self._index.token, self._index.unsent = claim.token, True
        self._index.write(self._folder)
        self._changed, self._closing, self._ended = (threading.Event() for _ in range(3))
        self._failure: RunError | None = None
        self._away: float | None = None
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"mirror-{target.__name__}")
            for target in (self._send, self._live)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there is something new that should soon be sent."""
        self._changed.set()

    def check(self) -> None:
        """Raise what ended the sending.

        Raises:
            RunError: somebody else has taken over.
        """
        if self._failure is not None:
            raise self._failure

    def close(self, tell: Callable[[], None]) -> None:
        """Send all that is there, and release the claim.

        Args:
            tell: called while it lasts; passes on `words`.

        Raises:
            RunError: it could not be sent, within ten minutes if it was worth trying again.
        """
        self._closing.set()
        self._changed.set()
        start, said = time.monotonic(), False
        try:
            while not self._ended.wait(0.05):
                tell()
                if not said and time.monotonic() - start > SILENCE:
                    self.words.append(f"sending what is left to {self._storage.url}")
                    said = True
        except KeyboardInterrupt:
            self._failure = self._failure or self._not_sent("you stopped it")
            self._failure.exit_code = 130
        tell()
        self.check()

    def _not_sent(self, why: str) -> RunError:
        failure = RunError(
            f"{self._storage.url}: not all of the Run could be sent: {why}. It is whole in "
            f"{self._folder}; to send the rest: hotlap train --resume {self._storage.url}"
        )
        failure.exit_code = 1
        return failure

    def _live(self) -> None:
        """Show that we live, until the sending ends."""
        while not self._ended.wait(BEAT):
            try:
                self._claim.hold(sign=True)
            except _TakenOverError as error:
                self._failure = error
                self._ended.set()
            except Exception:
                continue  # the sending meets the same, and says so

    def _send(self) -> None:
        """Send what is new, again and again."""
        pause, trouble, began = 0.0, 0, time.monotonic()
        while not self._ended.is_set():
            if not self._closing.is_set():
                self._closing.wait(pause)
                self._changed.wait(max(0.0, PERIOD - pause))
            closing = self._closing.is_set()
            self._changed.clear()
            start = time.monotonic()
            try:
                self._round()
                if closing:
                    self._finish()
                    return
                if self._away is not None:
                    away, self._away = time.monotonic() - self._away, None
                    self.words.append(
                        f"{self._storage.url} is there again after {away:.0f} s; all is sent"
                    )
                # An object store is sent whole files: two thirds of the time it has peace.
                pause, trouble, began = 2 * (time.monotonic() - start), 0, time.monotonic()
            except _TakenOverError as error:
                self._failure = error
                self._ended.set()
            except Exception as error:
                trouble += 1
                why = problem(self._storage.url, error, "be written")
                why_not = str(why).removeprefix(f"{self._storage.url}: ")
                if self._away is None:
                    self._away = began = time.monotonic()
                    self.words.append(
                        f"{why}. The training goes on, and {self._folder} keeps what is to be sent"
                    )
                last = trouble > 2 and not is_transient(error)
                if closing and (last or time.monotonic() - began > PATIENCE):
                    self._failure = self._not_sent(why_not)
                    self._ended.set()
                    return
                pause = min(30.0, 2.0**trouble / 2)
                if closing:
                    self._ended.wait(min(pause, 5.0))

    def _finish(self) -> None:
        """Note that both places hold the same, and release the claim."""
        infos = self._storage.infos()
        for name, (_, size, changed) in self._index.files.items():
            if name in infos:
                self._index.files[name] = (identity(infos[name]), size, changed)
        self._claim.release()
        self._index.unsent = False
        self._index.write(self._folder)
        self._ended.set()

    def _round(self) -> None:
        """Send what is new or has changed, and delete what is gone.

        Raises:
            Exception: what the file system says.
        """
        stage = self._folder / _STAGE
        shutil.rmtree(stage, ignore_errors=True)
        try:
            staged, kept = self._staged(stage)
            files = dict(self._others()) | staged
            self._claim.hold()
            there = {path.relative_to(self._folder).as_posix() for path in _files(self._folder)}
            for name in sorted(files, key=_turn):
                self._put(name, files[name])
            for name in set(self._index.files) - there - kept - set(files):
                self._claim.hold()
                with contextlib.suppress(FileNotFoundError):
                    self._storage.fs.rm_file(self._storage.at(name))
                del self._index.files[name]
            self._index.write(self._folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _put(self, name: str, path: Path) -> None:
        try:
            stat = path.stat()  # before it is read: what is appended meanwhile is news
            if self._index.same(name, path):
                return
            self._claim.hold()
            self._storage.put(name, path)
        except FileNotFoundError:
            if path.exists():
                raise  # it is the bucket that is not there
            return
        self._index.files[name] = (None, stat.st_size, stat.st_mtime_ns)

    def _staged(self, stage: Path) -> tuple[dict[str, Path], set[str]]:
        """Hold fast, by links, the checkpoints that are pointed to, and what they need.

        The training deletes them when it likes; what has a link stays until it is sent.

        Returns:
            What is to be sent, and the names of all that is to stay at the URL.
        """
        folder = self._folder / "checkpoints"
        for _ in range(100):
            held: dict[str, Path] = {}
            kept: set[str] = set()
            with contextlib.suppress(FileNotFoundError):  # deleted while we looked
                pointers = {}
                for which in _POINTERS:
                    if (folder / which).exists():
                        _link(folder / which, stage / which)
                        pointers[which] = (stage / which).read_bytes()
                        held[f"checkpoints/{which}"] = stage / which
                named = {json.loads(content)["checkpoint"] for content in pointers.values()}
                found = [file for name in named for file in (folder / name).iterdir()]
                for path in [*found, *self._segments()]:
                    name = path.relative_to(self._folder).as_posix()
                    kept.add(name)
                    if not self._index.same(name, path):
                        held[name] = stage / name
                        _link(path, stage / name)
                if all(_read(folder / which) == pointers.get(which) for which in _POINTERS):
                    return held, kept
            shutil.rmtree(stage, ignore_errors=True)
            time.sleep(0.05)
        return {}, set(self._index.files)

    def _segments(self) -> list[Path]:
        folder = self._folder / "replay"
        names = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in names if not path.name.startswith(".")]

    def _others(self) -> Iterator[tuple[str, Path]]:
        for path in _files(self._folder):
            name = path.relative_to(self._folder).as_posix()
            if not name.startswith(("checkpoints/", "replay/")):
                yield name, path


def _turn(name: str) -> tuple[int, str]:
    """Order what is sent so that nothing names what is not there yet."""
    last = ("checkpoints/best", "checkpoints/last", "report.json")
    if name in last:
        return 2 + last.index(name), name
    return (0 if name.startswith(("checkpoints/", "replay/")) else 1), name


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a Run; not those in the making, nor what is of this machine only."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name not in (INDEX, "lock"):
                yield Path(place) / name


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copy2(path, target)


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


def _who(holder: Mapping[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"


def _machine() -> str:
    """Return what is the same for two processes that see each other by number, "" if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _age(holder: Mapping[str, Any]) -> float:
    """Return how long ago a claim last showed life [s], by the clocks of two machines."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        written = datetime.fromisoformat(str(holder["time"]))
        return (datetime.now(UTC) - written).total_seconds()
    return 0.0


def _is_seen(holder: Mapping[str, Any]) -> bool | None:
    """Say whether there is a process of a claim's number here; None if it is not from here."""
    machine, pid = _machine(), holder.get("pid")
    if not machine or holder.get("machine") != machine or not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _is_over(holder: Mapping[str, Any]) -> bool:
    """Say whether a claim is void without further watching."""
    return bool(
        not holder or holder.get("released") or _is_seen(holder) is False or _age(holder) > LONG_AGO
    )


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Say whether a claim is alive without further watching; a number is used again, but later."""
    return _is_seen(holder) is True and _age(holder) < LEASE
