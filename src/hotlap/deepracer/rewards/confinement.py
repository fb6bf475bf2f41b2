"""What a user's reward code may do besides computing: by default nothing but read files.

While it is loaded and called, a hook of Python's own auditing refuses to write or delete files, to
open sockets and to start processes and threads, unless the user allowed it; a watching thread ends
calls that take too long or collect too much memory. This stops mistakes and careless code. It is no
prison: code that is written to break out of its interpreter, for example by way of `ctypes` that it
finds already imported, can do so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["ALLOWANCES", "Overdue", "confined", "limit_process", "refusal"]

ALLOWANCES = ("write", "network", "processes")
"""What a user can allow."""

CALL_SECONDS = 5.0
"""Longest time of one call while training [s]."""
CALL_MEMORY = 4 * 2**30
"""Most memory that calls may ask for at once, or keep in the course of a training [bytes]."""
LOOK_SECONDS = 0.25
"""How often the watching thread looks [s]."""

_NETWORK = (
    "socket.",
    "urllib.",
    "ftplib.",
    "http.client.",
    "smtplib.",
    "imaplib.",
    "poplib.",
    "nntplib.",
    "telnetlib.",
    "webbrowser.",
)
_PROCESSES = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.startfile",
    "os.kill",
    "pty.",
    "_thread.start",
    "signal.pthread_kill",
    "ctypes.",
    "winreg.",
    "_winapi.",
    "sys.addaudithook",
    "os.killpg",
)
_WRITING = (
    "os.remove",
    "os.unlink",
    "os.rename",
    "os.replace",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.utime",
    "os.chflags",
    "os.setxattr",
    "os.removexattr",
    "os.mkfifo",
    "os.mknod",
    "shutil.",
    "tempfile.",
    "sqlite3.connect",
    "os.putenv",
    "os.unsetenv",
)
_DOING = {
    "write": "write, move or delete a file",
    "network": "use the network",
    "processes": "start a process or a thread",
}


class Overdue(BaseException):
    """A call took too long or too much; not an Exception, so that users do not catch it."""


class _Here(threading.local):
    allowed: Collection[str] | None = None
    """What the code that runs in this thread may do; None where it is ours."""
    refused: str | None = None


_here = _Here()
_installed = False


def _kind(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return which allowance an audited event needs, if any."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writing = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if isinstance(flags, int):
            ways = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            writing = writing or bool(flags & ways)
        return "write" if writing and arguments[0] != os.devnull else None
    if event.startswith(_NETWORK):
        return None if event == "socket.gethostname" else "network"
    if event.startswith(_PROCESSES):
        loading = event == "ctypes.dlopen" and _importing()
        return None if loading else "processes"
    return "write" if event.startswith(_WRITING) else None


def _importing() -> bool:
    """Tell whether an import is going on, as numpy and others load libraries then."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    allowed = _here.allowed
    if allowed is None:
        return
    kind = _kind(event, arguments)
    if kind is not None and kind not in allowed:
        what = f" ({arguments[0]})" if event == "open" else f" ({event})"
        _here.refused = (
            f"it may not {_DOING[kind]}{what}; allow it with reward.allow={kind}, if you trust it"
        )
        raise PermissionError(_here.refused)


def _install() -> None:
    """Add the hook; it stays, and costs nothing worth measuring while no reward code runs."""
    global _installed
    if _installed:
        return
    _installed = True
    start = threading._start_new_thread  # type: ignore[attr-defined]

    def guarded(*given: Any) -> Any:
        _hook("_thread.start_new_thread", given)
        return start(*given)

    if sys.version_info < (3, 13):  # audited by Python itself only later
        threading._start_new_thread = guarded  # type: ignore[attr-defined]
    sys.addaudithook(_hook)


def refusal() -> str | None:
    """Return what was refused last in this thread, and forget it."""
    said, _here.refused = _here.refused, None
    return said


class _Watch:
    """The thread that looks after calls; one for the whole process."""

    def __init__(self) -> None:
        self.calls: dict[int, list[Any]] = {}
        """By thread: number of the call, seconds allowed, seen number, since when, memory."""
        self._work = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, beat: list[int], seconds: float) -> int:
        me = threading.get_ident()
        self.calls[me] = [beat, seconds, beat[0], time.monotonic(), 0]
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, daemon=True, name="hotlap-watch")
            self._thread.start()
        self._work.set()
        return me

    def end(self, me: int) -> None:
        self.calls.pop(me, None)

    def _look(self) -> None:
        while True:
            if not self.calls:
                self._work.clear()
                if not self.calls:
                    self._work.wait()
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            for thread, entry in list(self.calls.items()):
                beat, seconds, seen, since, times = entry
                if beat[0] != seen:
                    entry[2], entry[3] = beat[0], now
                elif now - since > seconds and self.calls.get(thread) is entry:
                    entry[3], entry[4] = now, times + 1
                    if times >= 2:  # it sleeps within C, where no exception arrives
                        said = f"hotlap: a call of the reward took longer than {seconds:g} s\n"
                        with contextlib.suppress(OSError):
                            os.write(2, said.encode())
                        os._exit(1)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(Overdue)
                    )


_watch = _Watch()
_lock = threading.Lock()
_lowered: list[Any] = [0, None]
"""How many blocks have the memory limited, and the limits before."""


@contextlib.contextmanager
def confined(
    allowed: Collection[str] = (), beat: list[int] | None = None, seconds: float = 0.0
) -> Iterator[None]:
    """Confine what this thread runs within the block.

    Args:
        allowed: some of `ALLOWANCES`.
        beat: holds a number that the block changes with every call, if calls are to be watched.
        seconds: how long one call may take; `CALL_SECONDS` if 0.

    Raises:
        Overdue: within the block, when a call takes longer.
    """
    _install()
    if beat is not None:
        with _lock:
            if not _lowered[0]:
                _lowered[1] = _lower_memory()
            _lowered[0] += 1
    me = _watch.begin(beat, seconds or CALL_SECONDS) if beat is not None else 0
    before, _here.allowed = _here.allowed, frozenset(allowed)
    try:
        yield
    finally:
        if beat is not None:
            _watch.end(me)
            with _lock:
                _lowered[0] -= 1
                if not _lowered[0] and _lowered[1] is not None:
                    resource.setrlimit(resource.RLIMIT_AS, _lowered[1])
        _here.allowed = before


def _lower_memory() -> tuple[int, int] | None:
    """Let this process ask for `CALL_MEMORY` more than it has; return the limits before."""
    if resource is None or sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, ValueError):
        limits = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 a thousand times a second
            size = int(file.read().split(maxsplit=1)[0]) * resource.getpagesize()
        most = size + CALL_MEMORY
        if limits[0] in (resource.RLIM_INFINITY, -1) or limits[0] > most:
            resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
            return limits
    return None


def resident() -> int:
    """Return how much memory this process holds [bytes]; 0 where that cannot be read cheaply."""
    if sys.platform != "linux" or resource is None:
        return 0
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split(maxsplit=2)[1]) * resource.getpagesize()


def limit_process(seconds: float, memory: int, *, write: bool) -> None:
    """Limit this whole process, which then runs nothing but a user's code.

    Args:
        seconds: of computing.
        memory: address space [bytes].
        write: whether files may grow.
    """
    if resource is None:
        return
    wanted = {
        "RLIMIT_CPU": int(seconds) + 1,
        "RLIMIT_AS": memory,
        "RLIMIT_CORE": 0,
        **({} if write else {"RLIMIT_FSIZE": 0}),
    }
    for name, value in wanted.items():
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(getattr(resource, name))
            if hard != resource.RLIM_INFINITY:
                value = min(value, hard)
            resource.setrlimit(getattr(resource, name), (value, value))
