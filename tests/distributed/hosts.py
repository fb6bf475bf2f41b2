"""Several hosts on one machine: each with its own address, processes, name and home.

Linux namespaces, with a bridge between them: nothing outside sees them, and they see nothing
outside. The processes of a host are gone when it is switched off, and all hosts when the test ends,
even by kill -9.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NET = "10.77.0"
INIT = ["bash", "-c", "sleep infinity & wait"]
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "bash")


@dataclass
class Host:
    """A machine of its own, as far as its programs can tell."""

    name: str
    address: str
    home: Path
    holder: "subprocess.Popen[bytes]"
    pid: int

    def command(self, *words: str) -> list[str]:
        entry = ["nsenter", "--target", str(self.pid), "--user", "--net", "--pid", "--mount"]
        return [*entry, "--uts", "--preserve-credentials", *words]

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a login there would have: its home, a Ray without memories."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"HOME": str(self.home), "RAY_TMPDIR": str(self.home), "HOTLAP_THREADS": "1"}
        return {**kept, **own, "RAY_USAGE_STATS_ENABLED": "0", **more}

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*words),
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, limit: float = 60, **environment: str) -> str:
        """Return what a command prints; it has to succeed."""
        process = self.start(*words, **environment)
        said, _ = process.communicate(timeout=limit)
        assert process.returncode == 0, said
        return said

    def python(self, program: str, limit: float = 60, **environment: str) -> str:
        return self.run(sys.executable, "-c", program, limit=limit, **environment)

    def ray(self, *words: str, **environment: str) -> str:
        """Run `ray` there."""
        program = str(Path(sys.executable).with_name("ray"))
        mode = {"RAY_AUTH_MODE": "token", **environment}  # `ray start --address` does not guess it
        return self.run(program, *words, limit=60, **mode)

    def token(self, token: str) -> None:
        """Put the token of the cluster where docs/cluster.md says."""
        file = self.home / ".ray" / "auth_token"
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(token)

    def switch_off(self) -> None:
        """As if somebody pulled the power cord."""
        self.holder.kill()
        self.holder.wait()


@dataclass
class Network:
    """Hosts on one wire."""

    pid: int
    folder: Path
    hosts: list[Host]

    def host(self, name: str) -> Host:
        """Return a new host, switched on."""
        number = len(self.hosts) + 2
        home = self.folder / str(number)
        home.mkdir()
        inside = ["nsenter", "--target", str(self.pid), "--user", "--net", "--preserve-credentials"]
        holder, pid = _held(*inside, *_unshare("--net", "--mount", "--uts"))
        host = Host(name, f"{NET}.{number}", home, holder, pid)
        _done(*inside, *f"ip link add v{number} type veth peer name eth0 netns {pid}".split())
        _done(*inside, *f"ip link set v{number} master wire up".split())
        setup = f"hostname {name}; ip link set lo up; ip addr add {host.address}/24 dev eth0"
        _done(*host.command("bash", "-c", f"set -e; {setup}; ip link set eth0 up"))
        self.hosts.append(host)
        return host


def _unshare(*what: str) -> list[str]:
    return ["unshare", *what, "--pid", "--fork", "--kill-child", "--mount-proc", *INIT]


def _held(*words: str) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a namespace that dies with this process; return its holder and its first process."""
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert holder.stderr is not None
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    while holder.poll() is None:
        found = children.read_text().split()
        if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "bash":
            return holder, int(found[0])
    raise OSError(holder.stderr.read().decode())


def _done(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)


@contextmanager
def network() -> Iterator[Network]:
    """Give a wire without hosts; all that hung on it is gone afterwards.

    Raises:
        OSError: this machine does not allow namespaces, or has not the tools for them.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise OSError(f"{', '.join(missing)} not installed")
    folder = Path(tempfile.mkdtemp(prefix="hosts", dir="/tmp"))  # Ray's sockets want short paths
    holder, pid = _held(*_unshare("--user", "--map-root-user", "--net", "--mount"))
    found = Network(pid, folder, [])
    try:
        inside = ["nsenter", "--target", str(pid), "--user", "--net", "--preserve-credentials"]
        try:
            _done(*inside, *["ip", "link", "add", "wire", "type", "bridge"])
            _done(*inside, *["ip", "link", "set", "wire", "up"])
        except subprocess.CalledProcessError as error:
            raise OSError(error.stderr.decode()) from error
        yield found
    finally:
        for one in (*(host.holder for host in found.hosts), holder):
            one.kill()
            one.wait()
            assert one.stderr is not None
            one.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)
