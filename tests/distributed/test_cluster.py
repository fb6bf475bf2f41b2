"""Connecting to Ray: what goes wrong is said in words, and what was started here is gone after."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hotlap.distributed import cluster
from hotlap.distributed.cluster import Node, connected
from hotlap.distributed.nodes import ALIKE, SAME, facts, room, unlike
from hotlap.errors import ClusterError, MissingExtraError
from hotlap.threads import available

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def a_home_without_ray(tmp_path, monkeypatch) -> Iterator[None]:
    """Give each test a home and a temporary folder of its own, and no variable of Ray."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    yield
    assert not ray.is_initialized()


def node(**given: object) -> Node:
    usual = {"id": "a", "address": "10.0.0.1", "alive": True, "head": False}
    return Node(**{**usual, "cpus": 4.0, "memory": 2**33, "store": 2**30, **given})  # type: ignore[arg-type]


def refused(address: str, **given: object) -> str:
    with pytest.raises(ClusterError) as caught, connected(address, **given):  # type: ignore[arg-type]
        pass
    return str(caught.value)


@pytest.fixture
def listener() -> Iterator[str]:
    """Something that listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# ------------------------------------------------------------------ what is refused before Ray


@pytest.mark.parametrize(
    "address",
    ["head", "6379", "head:", ":6379", "head:port", "head:0", "head:70000", "ray://a:10001"],
)
def test_an_address_that_is_none_is_named(address):
    said = refused(address)

    assert repr(address) in said
    assert "host:port" in said


def test_a_port_where_nothing_listens_is_said_at_once():
    port = closed_port()
    began = time.monotonic()

    said = refused(f"127.0.0.1:{port}")

    assert f"127.0.0.1:{port} is out of reach (Connection refused)" in said
    assert time.monotonic() - began < 4  # who is silent is waited for for 5 s


def test_a_machine_that_does_not_exist_is_named():
    assert "no machine is called 'nowhere.invalid'" in refused("nowhere.invalid:6379")


def test_a_port_that_is_not_rays_is_said_within_the_limit(listener, monkeypatch):
    monkeypatch.setattr(cluster, "PROBE", 3.0)

    said = refused(listener)

    assert f"something listens at {listener} but does not answer" in said
    assert "waited 3 s" in said


def test_auto_without_a_cluster_says_how_to_start_one():
    assert "ray start --head" in refused("auto")


@pytest.mark.parametrize("given", ["", "auto"])
def test_the_address_of_the_variable_is_taken(given, monkeypatch):
    port = closed_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")

    assert f"127.0.0.1:{port} is out of reach" in refused(given)


def test_auto_does_not_join_another_users_cluster(tmp_path, monkeypatch):
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text("192.0.2.1:6379")
    monkeypatch.setattr(os, "getuid", lambda: note.stat().st_uid + 1)

    said = refused("auto")

    assert "(192.0.2.1:6379) belongs to another user" in said
    assert "--address 192.0.2.1:6379" in said


def test_a_token_that_should_be_there_is_missed(listener, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    said = refused(listener)

    assert str(tmp_path / ".ray" / "auth_token") in said
    assert "chmod 600" in said


def test_many_more_workers_than_cores_are_refused_with_the_number_of_cores():
    cores = available()

    said = refused("", workers=8 * cores + 1)

    assert f"need {8 * cores + 1} CPUs, and this machine has {cores}" in said


def test_without_ray_the_line_that_installs_it_is_given(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)

    with (
        pytest.raises(MissingExtraError, match=r"pip install 'hotlap\[distributed\]'"),
        connected(),
    ):
        pass


def says(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    """Let the head answer so when it is asked who it is; test_hosts.py asks real ones."""
    version = ".".join(map(str, sys.version_info[:3]))
    said = json.dumps({"ray": ray.__version__, "python": version, "member": True, **facts})
    done = subprocess.CompletedProcess([], 0, stdout=f"{said}\n", stderr="")
    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: done)


def test_a_cluster_that_wants_a_token_says_where_to_put_it(listener, monkeypatch):
    says(monkeypatch, failure="token")

    said = refused(listener)

    assert "wants a token, and there is none here" in said
    assert "~/.ray/auth_token" in said


def test_a_token_that_is_not_taken_is_named(listener, monkeypatch):
    says(monkeypatch, failure="token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)

    assert f"the cluster at {listener} does not take the token in RAY_AUTH_TOKEN" in refused(
        listener
    )


@pytest.mark.parametrize("name", ["ray", "python"])
def test_a_head_of_another_version_is_said(name, listener, monkeypatch):
    says(monkeypatch, **{name: "2.0.1"})

    assert f"the cluster at {listener} runs {name} 2.0.1, this machine has" in refused(listener)


def test_a_machine_that_is_no_node_is_told_to_join(listener, monkeypatch):
    says(monkeypatch, member=False)

    assert f"Join first: ray start --address={listener}" in refused(listener)


def test_a_head_that_says_nothing_of_use_is_quoted(listener, monkeypatch):
    done = subprocess.CompletedProcess([], 1, stdout="", stderr="a\nImportError: libray\n")
    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: done)

    assert "did not answer: ImportError: libray" in refused(listener)


# ------------------------------------------------------------------ nodes


def test_no_worker_spans_two_nodes():
    # 4 // 3 = 1 on each of the two; together they have 8 CPUs, which would be two of 3 and a rest.
    # The dead one has room for none.
    found = [node(), node(id="b"), node(id="c", cpus=300.0, alive=False)]

    assert room(found, threads=3) == 2
    assert room(found, threads=2) == 4
    assert room(found, threads=5) == 0


@pytest.mark.parametrize("name", SAME)
def test_another_version_is_refused_and_says_which(name):
    here = facts()()
    there = {**here, name: "0.0.1"}

    (sentence,) = unlike(here, there, "10.0.0.7", SAME)

    assert "10.0.0.7" in sentence
    assert "0.0.1" in sentence
    assert here[name] in sentence
    assert unlike(here, there, "10.0.0.7", ALIKE) == []


@pytest.mark.parametrize("name", ALIKE)
def test_what_may_change_bits_is_only_said(name):
    here = facts()()
    there = {**here, name: "0.0.1"}

    (sentence,) = unlike(here, there, "10.0.0.7", ALIKE)

    assert "same seed" in sentence
    assert unlike(here, there, "10.0.0.7", SAME) == []


def test_the_facts_are_of_this_machine():
    said = facts()()

    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    assert said["ray"] == ray.__version__
    assert len(said["source"]) == 12
