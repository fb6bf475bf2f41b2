"""Ray, started here or joined where it runs: failures in one sentence each, nothing left over."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotlap.distributed.nodes import MiB, Node, differences, nodes, room
from hotlap.errors import ClusterError, HotlapError, MissingExtraError
from hotlap.threads import available

__all__ = ["HEALTH", "Cluster", "Node", "connected", "nodes"]

HEALTH: Mapping[str, int] = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""Ray's `_system_config` by which a node that went silent is given up after 5 s, not 16 s.

For `ray start` the same as variables of the head: `RAY_health_check_period_ms=1000` and so on.
"""

STORE = 200 * MiB
"""Bytes of the object store of a Ray started here: weights and batches, not images, lie in it."""

STORE_MIN = 80 * MiB
"""Ray takes no less than 75 MiB."""

_MOST = 8
"""Workers that may share a CPU of this machine: more only wait for each other."""

REACH = 5.0
"""Seconds until a head that does not answer counts as out of reach."""

PROBE = 20.0
"""Seconds for a head that did answer to say who it is."""

FREE = 10.0
"""Seconds for CPUs to become free that others have."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports to its makers unless told not to
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ half writes on the driver's terminal
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # says in advance what a later version will do
}


@dataclass(frozen=True)
class Cluster:
    """What this process is connected to."""

    address: str
    """host:port of its head."""

    started: bool
    """Whether it was started here, and ends with us."""

    nodes: tuple[Node, ...]
    """Its machines that were alive when we came, the head first."""

    warnings: tuple[str, ...]
    """What a user should know before he waits: nodes that may give other bits, an open door."""


@contextlib.contextmanager
def connected(
    address: str = "", *, workers: int = 1, threads: int = 1, store: int = STORE
) -> Iterator[Cluster]:
    """Connect this process to Ray while the block runs, and leave nothing behind.

    A process that is connected already stays so, and stays connected afterwards.

    Args:
        address: "" is what `RAY_ADDRESS` says, and without it starts Ray on this machine, for this
            process alone: on the loopback interface, behind a token of its own, in a folder that
            nobody else can read, whatever other cluster runs here. "auto" joins the cluster of
            `RAY_ADDRESS` or, without it, the one that this user started on this machine.
            "host:port" joins that one. A machine that joins has to be one of the cluster's nodes,
            because Ray wants that of drivers.
        workers: how many processes shall compute, none on two nodes.
        threads: CPUs that each of them takes.
        store: bytes that have to fit into the object store of each node.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the head is out of reach or wants another token, a node has other versions,
            there are too few CPUs, or an object store is too small. Also what Ray raises in the
            block is turned into this one; an error of ours that a task raised comes as it is.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("training with several workers", "ray", "distributed")
    address = address or os.environ.get("RAY_ADDRESS", "")
    address = "" if address == "local" else address  # Ray's word for one started here
    ray = _loaded()
    if ray is not None and ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        with _in_words():
            yield _checked(ray, here, False, workers, threads, store)
        return
    with _in_words(), contextlib.ExitStack() as stack:
        if address:
            where = _joined(address, stack)
            ray = importlib.import_module("ray")
            _await_free(ray, workers, threads)
        else:
            where = _started(workers, threads, store, stack)
            ray = importlib.import_module("ray")
        yield _checked(ray, where, not address, workers, threads, store)


def _loaded() -> Any:
    return sys.modules.get("ray")


def _checked(
    ray: Any, address: str, started: bool, workers: int, threads: int, store: int
) -> Cluster:
    """Raise what forbids the training; return the cluster with what the user should know."""
    found = nodes()
    places = room(found, threads)
    alive = tuple(node for node in found if node.alive)
    if places < workers:
        has = ", ".join(f"{node.address}: {node.cpus:.0f}" for node in alive)
        raise ClusterError(
            f"{_workers(workers, threads)} do not fit: the cluster has room for {places} "
            f"(CPUs of its nodes: {has}). Take --workers {places}, or add a node: "
            f"ray start --address={address}"
            if places
            else f"no node of the cluster has {threads} CPUs for a worker (CPUs: {has}). "
            "Set distributed.threads to less, or add a larger node."
        )
    for node in alive:
        if node.store < store and node.cpus >= threads:
            raise ClusterError(
                f"the object store of node {node.address} has {node.store / MiB:.0f} MiB, the "
                f"training needs {store / MiB:.0f} MiB. Start Ray there with "
                f"--object-store-memory={store}; it lies in /dev/shm, which a container gets "
                "larger by docker run --shm-size=1g."
            )
    warnings: tuple[str, ...] = ()
    if not started:
        warnings = (*_open_door(address), *differences(alive))
    elif workers * threads > available():
        warnings = (f"{_workers(workers, threads)} share the {available()} CPUs of this machine",)
    return Cluster(address=address, started=started, nodes=alive, warnings=warnings)


def _await_free(ray: Any, workers: int, threads: int) -> None:
    """Raise if others have the CPUs; a training that has just ended gives back its own."""
    wanted = min(workers, room(nodes(), threads)) * threads
    limit = time.monotonic() + FREE
    while True:
        free = int(ray.available_resources().get("CPU", 0))
        if free >= wanted:
            return
        if time.monotonic() > limit:
            raise ClusterError(
                f"{_workers(workers, threads)} need {wanted} CPUs, and others of the cluster "
                f"leave {free} free. Wait for them (ray status), take fewer, or add a node."
            )
        time.sleep(0.2)


def _workers(workers: int, threads: int) -> str:
    noun = "worker" if workers == 1 else "workers"
    return f"{workers} {noun} of {threads} CPU{'s' if threads > 1 else ''}"


# ------------------------------------------------------------------ started here


def _started(workers: int, threads: int, store: int, stack: contextlib.ExitStack) -> str:
    """Start Ray for this process alone; `stack` ends it."""
    if workers * threads > _MOST * available():
        raise ClusterError(
            f"{_workers(workers, threads)} need {workers * threads} CPUs, and this machine has "
            f"{available()}. Take fewer, or join a cluster: --address HOST:PORT."
        )
    # Ray's folder holds Unix sockets, whose paths may have 107 characters: not in a long TMPDIR.
    parent = "/tmp" if len(tempfile.gettempdir()) > 20 and Path("/tmp").is_dir() else None
    private = tempfile.mkdtemp(prefix="hotlap-", dir=parent)
    stack.callback(shutil.rmtree, private, ignore_errors=True)
    folder = str(Path(private, "ray"))  # Ray opens its folder to all; nobody else comes this far
    words = {
        **QUIET,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: the loopback interface only
    }
    stack.enter_context(_environment(words))
    ray = importlib.import_module("ray")
    stack.enter_context(_guarded(private, ray))
    _refresh(ray, on_network=False)
    stack.callback(ray.shutdown)
    with _signals(), _hushed(private), _in_words("Ray could not start here"):
        context = ray.init(
            address="local",
            num_cpus=workers * threads,
            object_store_memory=max(store, STORE_MIN),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="CRITICAL",
            _temp_dir=folder,
            _system_config=dict(HEALTH),
        )
    return str(context.address_info["gcs_address"])


@contextlib.contextmanager
def _guarded(folder: str, ray: Any) -> Iterator[None]:
    """Let a small process end Ray should this one be killed."""
    if not hasattr(os, "getppid") or sys.platform == "win32":
        yield
        return
    script = Path(__file__).with_name("guardian.py")
    psutil = Path(ray.__file__).parent / "thirdparty_files"
    guardian = subprocess.Popen(
        [sys.executable, "-P", str(script), folder, str(psutil)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C and a hang-up are for the driver
    )
    try:
        yield
    finally:
        guardian.kill()
        guardian.communicate()


@contextlib.contextmanager
def _environment(words: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Ray's processes inherit; put back what was."""
    before = {name: os.environ.get(name) for name in words}
    os.environ.update(words)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refresh(ray: Any, on_network: bool) -> None:
    """Make a Ray that was imported before read the variables anew: it keeps them otherwise."""
    inside = ray._raylet
    if hasattr(inside, "AuthenticationTokenLoader"):  # since 2.52
        inside.Config.initialize("")
        inside.AuthenticationTokenLoader.instance().reset_cache()
    constants: Any = importlib.import_module("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = on_network
    # What befalls a node Ray prints on standard output, where --json puts one document; whom it
    # concerns hears of it by an exception.
    driver: Any = importlib.import_module("ray._private.worker")
    driver.print_to_stdstream = lambda *_, **__: None


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Keep the handlers that this program has set: Ray puts its own in their place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


@contextlib.contextmanager
def _hushed(folder: str | None) -> Iterator[None]:
    """Keep from the terminal what Ray's C++ half says of its own logging as it starts."""
    try:
        terminal = os.dup(2)
    except OSError:  # there is none
        yield
        return
    elsewhere = str(Path(folder, "driver.err")) if folder else os.devnull
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    aside = os.open(elsewhere, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(aside, 2)
    os.close(aside)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


# ------------------------------------------------------------------ joined


def _joined(address: str, stack: contextlib.ExitStack) -> str:
    """Join the cluster at `address`, having asked it who it is; `stack` leaves it."""
    where = _resolved(address)
    _reach(where)
    token = _token()
    words = {**QUIET, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    if token is not None:
        words["RAY_AUTH_MODE"] = "token"
    stack.enter_context(_environment(words))
    said = _ask(where, token)
    if said["open"]:
        stack.enter_context(_environment({"RAY_AUTH_MODE": "disabled"}))
    ray = importlib.import_module("ray")
    _refresh(ray, on_network=not said["loopback"])
    stack.callback(ray.shutdown)
    with _signals(), _hushed(None), _in_words(f"the cluster at {where} could not be joined"):
        ray.init(address=where, log_to_driver=False, logging_level="CRITICAL")
    return where


def _resolved(address: str) -> str:
    """Return host:port for what the user gave."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "") or _own_cluster()
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterError(
            f"distributed.address: {address!r} is no address of a Ray cluster. Give host:port of "
            "its head, as in 192.168.1.10:6379; or auto for the cluster of this machine; or "
            'leave it empty ("") to start Ray here.'
        )
    return address


def _own_cluster() -> str:
    """Return the address of the cluster that this user started on this machine."""
    base = os.environ.get("RAY_TMPDIR", "") or ("/tmp" if os.name == "posix" else "")
    note = Path(base or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    advice = (
        "Start one (ray start --head), give its address (--address HOST:PORT), or leave the "
        "address empty to start Ray here for this training alone."
    )
    try:
        owner, address = note.stat().st_uid, note.read_text().strip()
    except OSError as error:
        raise ClusterError(f"auto found no Ray cluster on this machine. {advice}") from error
    if hasattr(os, "getuid") and owner != os.getuid():
        raise ClusterError(
            f"the Ray cluster of this machine ({address}) belongs to another user. If you mean "
            f"it, say so: --address {address}. {advice}"
        )
    return address


def _reach(where: str) -> None:
    """Raise unless something listens at `where`."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except socket.gaierror as error:
        raise ClusterError(
            f"no machine is called {host!r} (of distributed.address={where}). Give the head's "
            "number, which `ray start --head` printed there."
        ) from error
    except OSError as error:
        silent = isinstance(error, TimeoutError)
        why = f"no answer for {REACH:.0f} s" if silent else error.strerror or str(error)
        raise ClusterError(
            f"the head of the cluster at {where} is out of reach ({why}). "
            f"Is it running there (ray status), is {port} its port, and does the firewall let "
            "this machine in?"
        ) from error


def _token() -> str | None:
    """Return where the token of the cluster lies, if there is one."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if file.is_file():
        return str(file)
    if named or mode == "token":
        raise ClusterError(
            f"there is no token of the cluster in {file}. Copy it from the head "
            f"(ray get-auth-token there), then: chmod 600 {file}"
        )
    return None


def _ask(where: str, token: str | None) -> dict[str, Any]:
    """Return what the head at `where` says of its cluster; see `probe`.

    Raises unless it speaks our versions, takes our token and knows us.
    """
    script = Path(__file__).with_name("probe.py")
    command = [sys.executable, "-P", str(script), where]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE, check=False)
        said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"something listens at {where} but does not answer as the head of a Ray cluster "
            f"(waited {PROBE:.0f} s). Is that the port of `ray start --head` (6379 unless told "
            "otherwise), and not of the dashboard (8265) or of Ray's client (10001)?"
        ) from error
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ClusterError(f"the head of the cluster at {where} did not answer: {last}") from error
    if said.get("failure") == "token":
        raise ClusterError(
            f"the cluster at {where} does not take the token in {token}. Copy the head's (ray "
            "get-auth-token there): a token that was made here is another one."
            if token
            else f"the cluster at {where} wants a token, and there is none here. Put the head's "
            "(ray get-auth-token there) into ~/.ray/auth_token, then chmod 600 ~/.ray/auth_token; "
            "or into the variable RAY_AUTH_TOKEN."
        )
    if "failure" in said:
        raise ClusterError(f"the head of the cluster at {where} did not answer: {said['failure']}")
    ours = {"ray": importlib.metadata.version("ray"), "python": platform.python_version()}
    for name, version in ours.items():
        if said[name] not in (None, version):
            raise ClusterError(
                f"the cluster at {where} runs {name} {said[name]}, this machine has {version}. "
                "All nodes need the same: install it here or there, and restart Ray."
            )
    if not said["member"]:
        raise ClusterError(
            f"this machine is no node of the cluster at {where}, and a training has to be started "
            f"on one. Join first: ray start --address={where}; it may offer no CPUs: --num-cpus=0."
        )
    return said


def _open_door(address: str) -> tuple[str, ...]:
    """Return what is wrong with the door of a cluster that was joined."""
    token = _token()
    if token is None:
        return (
            f"the cluster at {address} has no token: whoever reaches it can run programs on all "
            "its machines. docs/cluster.md says how to give it one.",
        )
    file = Path(token)
    if os.name == "posix" and file.is_file() and file.stat().st_mode & 0o077:
        return (f"others on this machine can read the token of the cluster: chmod 600 {file}",)
    return ()


@contextlib.contextmanager
def _in_words(start: str = "the cluster failed") -> Iterator[None]:
    """Turn what Ray raises into one sentence; errors of ours come out of their wrapping."""
    try:
        yield
    except Exception as error:
        ray = _loaded()
        if ray is None:
            raise
        known = ray.exceptions
        if isinstance(error, known.RayTaskError):  # and also of the type that the task raised
            if isinstance(error.cause, HotlapError):
                raise error.cause from error
            raise
        if isinstance(error, HotlapError):
            raise
        for kind, sentence in _SENTENCES.items():
            if isinstance(error, getattr(known, kind, ())):
                raise ClusterError(f"{start}: {sentence}") from error
        if isinstance(error, known.RayError) or start != "the cluster failed":
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ClusterError(f"{start}: {first}") from error
        raise


_SENTENCES = {
    "ObjectStoreFullError": (
        "the object store is full. Start Ray with a larger --object-store-memory, or give the "
        "container a larger /dev/shm (docker run --shm-size=1g)."
    ),
    "OutOfDiskError": (
        "the object store is full, and so is the disk to which Ray moves what does not fit. Make "
        "room in its temporary folder (ray start --temp-dir)."
    ),
    "OutOfMemoryError": (
        "a node ran out of memory and Ray ended a worker there. Take fewer workers a node, or "
        "fewer cars (train.cars)."
    ),
    "RuntimeEnvSetupError": "a node could not prepare the environment of a worker.",
    "NodeDiedError": "the node that computed it went away.",
    "ActorDiedError": "a worker died and was not replaced.",
}
