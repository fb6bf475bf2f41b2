"""Files that are there whole or not at all, and what is said when they cannot be written.

A reader sees the old file or the new one, and a crash leaves either: the new one is made under
another name beside it, forced to the disk, and then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from hotlap.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: two writers are then not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "TEMPORARY",
    "append_line",
    "explained",
    "json_lines",
    "replace",
    "sync",
    "user_folder",
    "whole",
    "write",
]

TEMPORARY = ".tmp-"
"""Names that begin so are of files in the making; one of a killed writer may be deleted."""


@contextlib.contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Give the name to write a file under; it takes its own name if the block ends without error.

    Raises:
        OSError: what the operating system says.
    """
    path = Path(path)
    draft = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        yield draft
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def replace(path: Path | str, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: what the operating system says.
    """
    with whole(path) as draft:
        _write(draft, content)


def write(path: Path, content: bytes) -> None:
    """Write a new file that nobody looks for yet, and force it to the disk.

    Raises:
        OSError: what the operating system says.
    """
    _write(path, content)
    sync(path)


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _write_all(file, content)
    finally:
        os.close(file)


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def append_line(file: int, line: bytes, *, alone: bool = False) -> None:
    """Append a line to an open file; what cannot be written whole leaves no trace.

    Args:
        file: its descriptor, open for reading and appending.
        line: without the byte that ends it.
        alone: wait for other processes that append, and force the line to the disk.

    Raises:
        OSError: what the operating system says.
    """
    if alone and fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
    size = os.fstat(file).st_size
    os.lseek(file, max(0, size - 1), os.SEEK_SET)
    half = size and os.read(file, 1) != b"\n"  # a killed writer's line
    try:
        _write_all(file, (b"\n" if half else b"") + line + b"\n")
        if alone:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def json_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects, a line each; a line cut short by a killed writer is passed over."""
    for line in content.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):  # Windows cannot
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def explained(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn what the operating system says while `path` is written into our sentence.

    Args:
        path: what is written.
        what: what it is, where the name does not tell, such as "the film".

    Raises:
        RunError: with exit status 1, for the command line was right.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        subject = f"{path}: {what} " if what else f"{path}: "
        problem = RunError(
            f"{path}: the disk is full. Nothing already written is harmed: free some space and "
            "continue with --resume"
            if full and not what
            else f"{subject}cannot be written ({error.strerror or error})"
        )
        problem.exit_code = 1
        raise problem from error


def user_folder(name: str, kind: Literal["data", "cache"]) -> Path:
    """Return where files of this user are kept, which need not exist.

    That is in HOTLAP_HOME if it is set, else where the system keeps what was given (`data`), or
    what can be made again (`cache`).
    """
    if home := os.environ.get("HOTLAP_HOME"):
        return Path(home).expanduser() / name
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / {"data": "Application Support", "cache": "Caches"}[kind]
    elif kind == "data":
        base = Path.home() / ".local/share"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "hotlap" / name
