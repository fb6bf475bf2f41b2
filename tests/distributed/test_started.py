"""A Ray started here: for this process alone, as asked for, and gone when its driver is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotlap.distributed.cluster import Cluster, connected, nodes
from hotlap.errors import ClusterError, RewardError

ray = pytest.importorskip("ray")

DRIVER = """
import json, os, sys, time
from pathlib import Path
from hotlap.distributed.cluster import connected
with connected() as cluster:
    import ray
    folder = str(Path(ray._private.worker._global_node.get_session_dir_path()).parents[1])
    said = {"folder": folder, "address": cluster.address, "pid": os.getpid(),
            "mode": oct(os.stat(folder).st_mode & 0o777)}
    print(json.dumps(said), flush=True)
    time.sleep(60)
"""


def users_of(folder: str) -> list[str]:
    """Return the processes that have a file of `folder` open or name it."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if folder in words or any(link.startswith(folder) for link in links):
            found.append(words.replace("\0", " ")[:80])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(signal.SIGINT, id="ctrl-c", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, id="kill -9"),
    ],
)
def test_nothing_is_left_of_ray_however_its_driver_ends(way):
    """Ctrl-C reaches the whole process group, as in a terminal; kill -9 the driver alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    busy = len(users_of(said["folder"]))

    if way == signal.SIGINT:
        os.killpg(process.pid, way)
    else:
        process.send_signal(way)
    process.wait(20)

    limit = time.monotonic() + 20
    while time.monotonic() < limit and (users_of(said["folder"]) or Path(said["folder"]).exists()):
        time.sleep(0.1)
    assert busy >= 5  # gcs_server, raylet, two agents, the monitor, ...
    assert users_of(said["folder"]) == []
    assert not Path(said["folder"]).exists()
    assert said["address"].startswith("127.0.0.1:")
    assert said["mode"] == "0o700"
    process.stdout.close()


STORE = 80 * 2**20


@pytest.fixture(scope="module")
def here() -> Iterator[Cluster]:
    with connected(store=STORE) as found:
        yield found


def test_it_has_the_cpus_and_the_store_that_were_asked_for(here):
    (node,) = nodes()

    assert (node.address, node.alive, node.head, node.cpus) == ("127.0.0.1", True, True, 1.0)
    assert node.store == STORE
    assert node.memory > 2**28
    assert here.nodes == (node,)
    assert here.started
    assert here.warnings == ()


def test_who_is_connected_already_stays_so(here):
    with connected(store=STORE) as again:
        assert again.address == here.address
        assert not again.started

    assert ray.is_initialized()


def test_too_few_cpus_for_the_workers_are_counted(here):
    with pytest.raises(ClusterError, match=r"room for 1 \(CPUs of its nodes: 127.0.0.1: 1\)"):
        connected(workers=2, store=STORE).__enter__()


def test_a_worker_larger_than_every_node_is_refused(here):
    with pytest.raises(ClusterError, match=r"no node of the cluster has 3 CPUs for a worker"):
        connected(threads=3, store=STORE).__enter__()


def test_an_object_store_that_is_too_small_is_said(here):
    with pytest.raises(ClusterError, match=r"has 80 MiB, the training needs 100 MiB"):
        connected(store=100 * 2**20).__enter__()


def test_an_error_of_ours_in_a_task_comes_as_it_is(here):
    @ray.remote(max_retries=0)
    def broken() -> None:
        raise RewardError("reward.py returns None")

    with pytest.raises(RewardError, match=r"^reward\.py returns None$"), connected(store=STORE):
        ray.get(broken.remote())


def test_what_ray_raises_comes_in_words(here):
    with pytest.raises(ClusterError, match="the object store is full"), connected(store=STORE):
        raise ray.exceptions.ObjectStoreFullError("plasma: 12345")


def test_another_program_without_the_token_is_refused(here):
    probe = Path(sys.modules[Cluster.__module__].__file__ or "").with_name("probe.py")
    environment = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}

    done = subprocess.run(
        [sys.executable, "-P", str(probe), here.address],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == {"failure": "token"}
