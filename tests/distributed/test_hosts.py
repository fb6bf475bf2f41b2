"""A cluster of hosts with their own addresses, as docs/cluster.md sets it up: two commands each."""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import Host, Network, network

import hotlap
from hotlap.distributed.cluster import HEALTH
from hotlap.plan import read_config
from hotlap.runs import Run

pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # test_nodes.py trains on several addresses without these rights

ROOT = Path(__file__).parents[2]
HOTLAP = (sys.executable, "-c", "from hotlap.cli import main; main()")
TOKEN = "5e" * 32
STORE = 210_000_000
FAST = {f"RAY_{name}": str(value) for name, value in HEALTH.items()}

DRIVER = f"""
import sys
from hotlap.distributed.cluster import connected
from hotlap.errors import HotlapError
try:
    with connected(sys.argv[1] if sys.argv[1:] else "auto", workers=2, store={STORE}) as cluster:
        print(*cluster.warnings, sep=chr(10))
        TASK
except HotlapError as error:
    sys.exit(str(error))
"""

NAMES = """
        import ray, socket
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
        name = ray.remote(num_cpus=0)(lambda: socket.gethostname())
        for node in cluster.nodes:
            there = name.options(scheduling_strategy=On(node.id, soft=False))
            print(node.address, node.cpus, ray.get(there.remote()))
"""

WATCH = """
        import time
        from hotlap.distributed.cluster import nodes
        print("watching", flush=True)
        while not any(node.address == "UNLUCKY" and not node.alive for node in nodes()):
            time.sleep(0.1)
        print("given up")
"""


@dataclass
class Lan:
    wire: Network
    head: Host
    worker: Host

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"


def join(host: Host, address: str, **environment: str) -> None:
    host.ray(
        *f"start --address={address} --num-cpus=1 --object-store-memory={STORE}".split(),
        **environment,
    )


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with network() as wire:
        head, worker = wire.host("pit"), wire.host("garage")
        head.token(TOKEN)
        worker.token(TOKEN)
        start = f"start --head --node-ip-address={head.address} --port=6379 --num-cpus=1"
        head.ray(
            *start.split(), "--include-dashboard=false", f"--object-store-memory={STORE}", **FAST
        )
        join(worker, f"{head.address}:6379")
        yield Lan(wire, head, worker)


def refused(host: Host, address: str, **environment: str) -> str:
    """Return what a driver that cannot join says; that has to be one line."""
    program = DRIVER.replace("TASK", "pass")
    process = host.start(sys.executable, "-c", program, address, **environment)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert len(said.splitlines()) == 1, said
    return said


def test_workers_compute_on_hosts_with_their_own_addresses(lan):
    said = lan.head.python(DRIVER.replace("TASK", NAMES.strip()))

    assert said.split("\n")[1:3] == [
        f"{lan.head.address} 1.0 pit",
        f"{lan.worker.address} 1.0 garage",
    ]


def test_a_wrong_token_is_said(lan):
    said = refused(lan.worker, lan.address, RAY_AUTH_TOKEN="0" * 64)

    assert "does not take the token in RAY_AUTH_TOKEN" in said


def test_a_missing_token_is_said(lan):
    empty = lan.wire.folder / "empty"
    empty.mkdir(exist_ok=True)

    said = refused(lan.worker, lan.address, HOME=str(empty))

    assert f"the cluster at {lan.address} wants a token, and there is none here" in said


def test_a_host_that_has_not_joined_is_told_how_to(lan):
    outsider = lan.wire.host("outsider")
    outsider.token(TOKEN)

    said = refused(outsider, lan.address)

    assert f"Join first: ray start --address={lan.address}" in said


def test_an_address_where_nobody_is_takes_five_seconds(lan):
    began = time.monotonic()

    said = refused(lan.worker, "10.77.0.250:6379")

    assert "10.77.0.250:6379 is out of reach" in said
    assert time.monotonic() - began < 20  # 5 s, and the start of Python; the system's own: minutes


def test_a_token_that_others_can_read_is_said(lan):
    file = lan.head.home / ".ray" / "auth_token"
    file.chmod(0o644)

    said = lan.head.python(DRIVER.replace("TASK", "pass"))

    file.chmod(0o600)
    assert f"others on this machine can read the token of the cluster: chmod 600 {file}" in said


def test_a_host_with_other_files_of_hotlap_is_refused(lan):
    other = lan.wire.host("other")
    other.token(TOKEN)
    package = Path(str(hotlap.__file__)).parent
    copy = other.home / "src" / "hotlap"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "types.py").write_text((copy / "types.py").read_text() + "\n# another\n")
    join(other, lan.address, PYTHONPATH=str(copy.parent))

    said = refused(lan.head, lan.address)

    other.switch_off()
    time.sleep(8)  # until it is given up, and no other test asks it
    assert f"node {other.address} has hotlap {hotlap.__version__} too, but not the same" in said


def test_a_host_that_loses_power_is_given_up_within_ten_seconds(lan):
    unlucky = lan.wire.host("unlucky")
    unlucky.token(TOKEN)
    join(unlucky, lan.address)
    program = DRIVER.replace("TASK", WATCH.strip()).replace("UNLUCKY", unlucky.address)
    watcher = lan.head.start(sys.executable, "-u", "-c", program)
    assert watcher.stdout is not None
    while "watching" not in watcher.stdout.readline():
        assert watcher.poll() is None

    unlucky.switch_off()
    began = time.monotonic()

    said, _ = watcher.communicate(timeout=60)
    took = time.monotonic() - began
    assert said == "given up\n"
    assert took < 10  # 5 s by the settings; Ray's own take 16 s and more


def test_hosts_train_a_driver_together(lan):
    """The command of the handbook, and what it leaves: a Run like any other."""
    out = lan.head.home / "run"
    settings = ["train.steps=40000", "train.seconds=0", "train.cars=64", "evaluation.trials=1"]
    command = f"train {ROOT / 'configs' / 'state.toml'} --workers 2 --address {lan.address} --plain"

    said = lan.head.run(*HOTLAP, *command.split(), "--out", str(out), *settings, limit=200)

    run = Run.open(out)
    assert f"run: {out}" in said
    assert f"on {lan.address}" in said
    assert run.metrics_rows()[-1]["steps"] >= 40_000
    assert run.report() is not None
    assert read_config(out / "config.toml").config.distributed.workers == 2


def test_cpus_that_others_have_are_said(lan):
    busy = """
import ray, time
ray.init("auto", logging_level="ERROR", log_to_driver=False)
ray.remote(num_cpus=1)(lambda: time.sleep(60)).remote()
while ray.available_resources().get("CPU", 0) > 1:
    time.sleep(0.1)
print("busy", flush=True)
time.sleep(60)
"""
    other = lan.head.start(sys.executable, "-c", busy)
    assert other.stdout is not None
    while "busy" not in other.stdout.readline():
        assert other.poll() is None

    said = refused(lan.worker, lan.address)

    other.kill()
    other.communicate()
    assert "2 workers of 1 CPU need 2 CPUs, and others of the cluster leave 1 free" in said
