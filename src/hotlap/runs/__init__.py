"""Run: the directory of one training, written by append or by rename and readable without us.

```
config.toml          the complete settings            meta.json   versions, machine, command, seed
metrics.jsonl        one line an iteration            events.jsonl   what happened, and when
checkpoints/<steps>/ policy.safetensors policy.json state.safetensors state.json
checkpoints/last     checkpoints/best                 tiny JSON files that name one of them
replay/<first>.safetensors                            what a learner remembers, a piece each
tensorboard/         event files                      traces/ films/ plots/ report.json
```

A reader may look at any time. Whenever the writer is killed, the Run opens with a complete
checkpoint: a checkpoint is made under another name, forced to the disk, and then renamed.

A Run may be at a URL: then the directory is its copy on this machine. See storage.py.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np

from hotlap.errors import RunError
from hotlap.files import append_line, explained
from hotlap.runs.checkpoints import Checkpoints, Part
from hotlap.runs.documents import document, entries, lines, plain, put, read, read_document
from hotlap.runs.mirror import Claim, Mirror
from hotlap.runs.storage import INDEX, Storage, is_url, url_of
from hotlap.runs.surroundings import now, surroundings
from hotlap.runs.tensorboard import EventFiles
from hotlap.types import Array, Float64

try:
    import fcntl
except ImportError:  # Windows: two writers are then not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FORMAT",
    "Run",
    "check_vacant",
    "default_directory",
    "list_runs",
    "names_in",
]

FORMAT = 1
"""The version of the layout; a reader refuses a newer one."""

_LOCK = "lock"
_POPULATION = "population.json"  # makes a folder one of several Runs; see population.py


class Run:
    """The directory of one training. One process writes it; any number may read it.

    `create` and `claim` make this object the writer, `close` (or leaving the `with` block) ends it.
    The lock falls with the process, however that ends.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], storage: Storage | None = None) -> None:
        self.path = path
        """The directory; of a Run at a URL, its copy on this machine."""
        self.meta = meta
        self.listener: Callable[[str], None] = _say
        """Is told what a user should hear of the place where the Run is; by the writer's thread."""
        self._storage = storage
        self._mirror: Mirror | None = None
        self._lock: BinaryIO | None = None
        self._appending: dict[str, int] = {}
        self._checkpoints = Checkpoints(path, self.place)
        self._events = EventFiles(path / "metrics.jsonl", path / "tensorboard")

    @classmethod
    def create(cls, path: Path | str, config_toml: str, meta: Mapping[str, Any]) -> Self:
        """Make a new Run in an empty or missing directory, and claim it.

        Args:
            path: the Run's own directory, whose parents are made; or a URL.
            config_toml: the complete settings.
            meta: what else to keep, such as seed and device; it wins over what is found here
                (versions, commit, machine, command, time of creation).

        Raises:
            RunError: the directory holds something, is being written, or cannot be written.
        """
        storage = Storage(path) if is_url(path) else None
        path = Path(url_of(path)) if storage is None else storage.local
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file: choose another directory with --out")
        if storage is not None and not storage.is_written():
            check_vacant(storage.url)
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path, plain({"format": FORMAT, **surroundings(), **meta}), storage)
        run._claim(fresh=True)
        found = [name for name in entries(path) if name not in (_LOCK, INDEX)]
        if storage is not None:
            found = sorted(storage.infos(deep=False))
        if found:
            run.close()
            _refuse_content(run.place, found)
        put(path / "config.toml", config_toml.encode())
        put(path / "meta.json", document(run.meta))
        return run

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a Run for reading; `latest`, where no such file is, means the newest Run beside it.

        Raises:
            RunError: `path` is not a Run, or one of a newer hotlap.
        """
        if is_url(path):
            return cls._open_at(url_of(path))
        path = Path(url_of(path))
        if path.name == "latest" and not path.exists():
            runs = list_runs(path.parent)
            if not runs:
                raise RunError(f"{path.parent} holds no Run yet: make one with hotlap train")
            path = runs[-1].path
        if not path.exists():
            raise RunError(
                f"{path}: no such directory{_nearest(path)} (hotlap runs lists the Runs there are)"
            )
        if not path.is_dir():
            hint = "hotlap runs lists them"
            if path.name.endswith((".tar.gz", ".pb", ".ckpt.index")):
                hint = f"DeepRacer's models become one: hotlap import {path}"
            raise RunError(f"{path} is a file; a Run is a directory ({hint})")
        return cls._open(path)

    @classmethod
    def _open_at(cls, url: str) -> Self:
        above, _, name = url.rpartition("/")
        if name == "latest":
            runs = list_runs(above)
            if not runs:
                raise RunError(f"{above} holds no Run yet: make one with hotlap train")
            url = runs[-1].place
        storage = Storage(url)
        storage.fetch("drivers", Claim(storage, _say).newest_token)
        return cls._open(storage.local, storage)

    @classmethod
    def _open(cls, path: Path, storage: Storage | None = None) -> Self:
        shown = path if storage is None else storage.url
        if (path / _POPULATION).is_file():
            some = ", ".join(run.place for run in list_runs(shown)[:3]) or "none has begun yet"
            raise RunError(f"{shown} is a population of Runs: name one of them, such as {some}")
        for name in ("config.toml", "meta.json"):
            if not (path / name).is_file():
                raise RunError(f"{shown} is not a Run: it has no {name} (hotlap runs lists them)")
        meta = read_document(path / "meta.json")
        version = meta.get("format")
        if not isinstance(version, int) or version < 1:
            raise RunError(f"{shown} is not a Run: meta.json has no format version")
        if version > FORMAT:
            raise RunError(
                f"{shown} was made by a newer hotlap (format {version}; this one reads up to "
                f"{FORMAT}): install the newer hotlap"
            )
        return cls(path, meta, storage)

    def claim(self) -> None:
        """Become the one writer, and clear away what a killed writer left half done.

        Raises:
            RunError: another process is writing this Run.
        """
        self._claim(fresh=False)

    def _claim(self, *, fresh: bool) -> None:
        if self._lock is not None:
            return
        claim = None
        if self._storage is not None:
            if self._storage.is_written():
                owner = read(self.path / _LOCK).decode(errors="replace").strip() or "unknown"
                raise RunError(
                    f"{self.place} is being written by process {owner} on this machine: wait "
                    "until it ends, or stop it, or choose another place with --out"
                )
            claim = Claim(self._storage, self.listener)
            before = claim.take()
        try:
            if self._storage is not None and fresh:  # what an earlier Run of that URL left
                self._storage.clear()
                with explained(self.path):
                    self.path.mkdir(parents=True, exist_ok=True)
            elif self._storage is not None:
                self._storage.fetch("all", lambda: before)
            self._take_lock()
            if self._storage is not None and claim is not None:
                self._mirror = Mirror(self._storage, claim)
        except BaseException:
            self.close()
            if claim is not None:
                with contextlib.suppress(Exception):
                    claim.release()
            raise

    def _take_lock(self) -> None:
        with explained(self.path / _LOCK):
            lock = (self.path / _LOCK).open("a+b", buffering=0)
            try:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read().decode(errors="replace").strip() or "unknown"
                lock.close()
                raise RunError(
                    f"{self.path} is being written by process {owner}: wait until it ends, or "
                    "stop it, or choose another directory with --out"
                ) from None
            except OSError:
                pass  # a file system without locks
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                lock.truncate(0)
                lock.write(str(os.getpid()).encode())
        self._lock = lock
        self._checkpoints.clear()

    def close(self) -> None:
        """Stop being the writer. Reading goes on to work.

        Raises:
            RunError: it is at a URL, and what it holds could not be sent there.
        """
        for file in self._appending.values():
            os.close(file)
        self._appending.clear()
        mirror, self._mirror = self._mirror, None
        try:
            if mirror is not None:
                mirror.close(lambda: self._tell(mirror))
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _tell(self, mirror: Mirror) -> None:
        while mirror.words:
            self.listener(mirror.words.popleft())

    def send(self, *files: Path) -> None:
        """Send files of this Run, such as a new film, to its URL; at once, if it has one.

        Raises:
            RunError: they cannot be written there.
        """
        if self._storage is not None and self._mirror is None and files:
            self._storage.send(files)
            for file in files:
                self.listener(f"{file.name} is now {self.place_of(file)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except RunError as unsent:
            if error is None:
                raise
            if unsent is not error:
                error.add_note(str(unsent))

    @property
    def place(self) -> str:
        """Where it is, for people and for other machines: its URL, or its directory."""
        return str(self.path) if self._storage is None else self._storage.url

    @property
    def address(self) -> str:
        """The same, from whatever folder it is read."""
        return str(self.path.resolve()) if self._storage is None else self._storage.url

    def place_of(self, file: Path) -> str:
        """Return where a file of it is; see `place`."""
        if self._storage is None:
            return str(file)
        return self._storage.child(file.relative_to(self.path).as_posix())

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.absolute().name

    @property
    def config_toml(self) -> str:
        """The complete settings, as they were written at the start."""
        return read(self.path / "config.toml").decode(errors="replace")

    def folder(self, name: Literal["traces", "films", "plots"]) -> Path:
        """Return the folder for traces, films or plots, made if missing."""
        folder = self.path / name
        with explained(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row of metrics, one a training iteration; NaN and infinity become null."""
        self._append("metrics.jsonl", plain(row, finite=True))

    def log_event(self, kind: str, **fields: Any) -> None:
        """Append an event, with the time in UTC."""
        row = {"time": now(), "kind": kind, **fields}
        self._append("events.jsonl", plain(row, finite=True))

    def metrics_rows(self) -> list[dict[str, Any]]:
        """Read all rows of metrics; None where a value was NaN or infinite.

        A Run that was killed and resumed logs some iterations twice: a row drops the earlier rows
        of its own and of later iterations, which belong to a past that was lost.
        """
        rows: list[dict[str, Any]] = []
        newest = -math.inf
        for row in lines(self.path / "metrics.jsonl"):
            iteration = row.get("iteration")
            if isinstance(iteration, int | float):
                if iteration <= newest:
                    rows = [r for r in rows if (r.get("iteration") or -math.inf) < iteration]
                newest = iteration
            rows.append(row)
        return rows

    def metrics(self) -> dict[str, Float64]:
        """Read the numeric metrics as columns of one length; NaN where a row lacks a value."""
        rows = self.metrics_rows()
        found = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            column = [row.get(name) for row in rows]
            if all(isinstance(value, int | float | None) for value in column):
                found[name] = np.array([math.nan if v is None else v for v in column], np.float64)
        return found

    def events(self) -> list[dict[str, Any]]:
        """Read all events in the order they were written."""
        return list(lines(self.path / "events.jsonl"))

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write report.json, what evaluation says of this Run; the last one stays."""
        put(self.path / "report.json", document(plain(report, finite=True)))

    def report(self) -> dict[str, Any] | None:
        """Read report.json, None if there is none."""
        path = self.path / "report.json"
        return read_document(path) if path.exists() else None

    @property
    def is_reported(self) -> bool:
        """Whether report.json is younger than the last checkpoint: the training came to its end."""
        with contextlib.suppress(OSError):
            last = (self.path / "checkpoints" / "last").stat().st_mtime_ns
            return (self.path / "report.json").stat().st_mtime_ns >= last
        return False

    def write_segment(self, first: int, arrays: Mapping[str, Array]) -> None:
        """Write a piece of what a learner remembers, forced to the disk before it has its name.

        It stays if the next checkpoint names it, and as long as the last checkpoint does.

        Raises:
            RunError: the disk is full or the like; nothing already written is harmed.
        """
        self.claim()
        self._checkpoints.write_segment(first, arrays)

    def read_segment(self, first: int) -> dict[str, Array]:
        """Read a piece of what a learner remembered.

        Raises:
            RunError: it is missing or damaged.
        """
        return self._checkpoints.read_segment(first)

    def write_checkpoint(
        self,
        steps: int,
        *,
        policy: Part,
        state: Part,
        best: bool,
        keep: int = 3,
        segments: Sequence[int] = (),
    ) -> Path:
        """Write a complete checkpoint, point `last` (and `best`) to it, and delete old ones.

        Args:
            steps: environment steps so far; they name the checkpoint. One of the same name is
                replaced, never half.
            policy: description and arrays that make the driver.
            state: everything else that continuing needs.
            best: whether this is the best driver so far.
            keep: how many of the newest to keep; the best one is kept besides.
            segments: what `write_segment` wrote and continuing from here needs. The others are
                deleted: only from the last checkpoint can a learner with a memory continue.

        Raises:
            RunError: the disk is full or the like; nothing already written is harmed.
        """
        self.claim()
        written = self._checkpoints.write(
            steps, policy=policy, state=state, best=best, keep=keep, segments=segments,
            logs=tuple(self._appending.values()),
        )  # fmt: skip
        if self._mirror is not None:
            self._mirror.wake()
        return written

    def checkpoints(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return self._checkpoints.steps()

    def read_policy(
        self, which: Literal["best", "last"] | int = "best"
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Read the description and the arrays of a driver.

        Args:
            which: `last`, `best` (the last one while none was called best), or the steps of one.

        Raises:
            RunError: there is no such checkpoint, or its files are damaged.
        """
        return self._checkpoints.read("policy", which)

    def read_state(
        self, which: Literal["best", "last"] | int = "last"
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Read what continuing a training needs; see `read_policy`."""
        if self._storage is not None and self._lock is None:
            self._storage.fetch("states", Claim(self._storage, _say).newest_token)
        return self._checkpoints.read("state", which)

    def sync_tensorboard(self) -> None:
        """Write the metrics logged since the last call into TensorBoard event files.

        Without the tensorboard package an event says so, once, and nothing else happens. Costs
        about 0.1 ms a row, and the first call in a process an import of tens of milliseconds.
        """
        self.claim()
        try:
            began = datetime.fromisoformat(self.meta.get("created", now())).timestamp()
            self._events.sync(began)
        except ImportError as error:
            if not any(event["kind"] == "no_tensorboard" for event in self.events()):
                self.log_event("no_tensorboard", reason=str(error))

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self.claim()
        path = self.path / name
        with explained(path):
            if name not in self._appending:
                self._appending[name] = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            line = json.dumps(row, allow_nan=False).encode()
            append_line(self._appending[name], line)
        if self._mirror is not None:
            self._tell(self._mirror)
            self._mirror.check()


def check_vacant(url: Path | str) -> None:
    """Refuse a URL at which something lies already; a directory is looked at when it is made.

    Raises:
        RunError: something does, or it cannot be looked at.
    """
    if is_url(url):
        storage = Storage(url)
        _refuse_content(storage.url, sorted(storage.infos(deep=False)))


def _refuse_content(place: str, found: Sequence[str]) -> None:
    if found:
        raise RunError(
            f"{place} is not empty (it holds {', '.join(found[:3])}"
            f"{' ...' if len(found) > 3 else ''}): choose another directory with --out, or "
            f"continue a Run with --resume {place}"
        )


def _nearest(path: Path) -> str:
    """Return a question that names the Run whose directory is called most alike, if any is."""
    there = {run.place for folder in {path.parent, Path("runs")} for run in list_runs(folder)}
    names = {name: name for name in there} | {Path(name).name: name for name in sorted(there)}
    near = difflib.get_close_matches(str(path), names, n=1)
    near = near or difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""


def default_directory(track: str, algorithm: str, folder: Path | str = "runs") -> Path:
    """Return the next free `runs/<track>-<algorithm>-<n>`; `track` may be a file's path."""
    stem = re.sub(r"[^\w.-]+", "-", f"{Path(track).stem or track}-{algorithm}").strip("-.")
    prefix, names = f"{stem}-", entries(Path(folder))
    taken = [int(n) for name in names if (n := name.removeprefix(prefix)) != name and n.isdigit()]
    return Path(folder) / f"{stem}-{max(taken, default=0) + 1}"


def list_runs(folder: Path | str = "runs") -> list[Run]:
    """Return the Runs that lie in a folder or in its populations, oldest first.

    Other things are passed over. Of those at a URL only report, settings and meta are here at once.
    """
    if is_url(folder):
        return _list_at(url_of(folder))
    folder = Path(url_of(folder))
    runs: list[Run] = []
    for name in entries(folder):
        if (folder / name / _POPULATION).is_file():
            runs += list_runs(folder / name)
            continue
        with contextlib.suppress(RunError):
            runs.append(Run.open(folder / name))
    return sorted(runs, key=lambda run: str(run.meta.get("created", "")))


def names_in(folder: Path | str) -> list[str] | None:
    """Return what lies in a folder or at a URL, by name; None if there is nothing of that name."""
    if is_url(folder):
        return sorted(Storage(folder).infos(deep=False)) or None
    return entries(Path(folder)) if Path(folder).is_dir() else None


def _list_at(url: str) -> list[Run]:
    storage = Storage(url)

    def opened(name: str) -> list[Run]:
        with contextlib.suppress(RunError):
            one = Storage(storage.child(name))
            one.fetch("facts", Claim(one, _say).newest_token)
            if (one.local / _POPULATION).is_file():
                return _list_at(one.url)
            return [Run._open(one.local, one)]
        return []

    with ThreadPoolExecutor(8) as pool:
        found = pool.map(opened, storage.folders())
        runs = [run for some in found for run in some]
    return sorted(runs, key=lambda run: str(run.meta.get("created", "")))


def _say(text: str) -> None:
    sys.stderr.write(f"hotlap: {text}\n")
