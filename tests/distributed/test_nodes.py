"""Workers on nodes with addresses of their own train together; no rights are needed for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotlap.distributed.cluster import HEALTH
from hotlap.runs import Run

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
HOTLAP = (sys.executable, "-c", "from hotlap.cli import main; main()")
LINUX = sys.platform == "linux"  # where all of 127.0.0.0/8 is this machine
ADDRESSES = ("127.0.0.2", "127.0.0.3") if LINUX else ("127.0.0.1", "127.0.0.1")
CLUSTER = f"""
import os, sys
os.environ |= {{"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}}
from ray.cluster_utils import Cluster
node = {{"object_store_memory": 210_000_000, "include_dashboard": False}}
head = {{"num_cpus": 0, "node_ip_address": "127.0.0.1",
        "_system_config": {dict(HEALTH)!r}, **node}}
cluster = Cluster(initialize_head=True, head_node_args=head)
for address in {ADDRESSES!r}:
    cluster.add_node(num_cpus=1, node_ip_address=address, **node)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def address() -> Iterator[str]:
    """Start a head without CPUs and two nodes with one each; yield where they are."""
    there = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert there.stdout is not None
    try:
        line = there.stdout.readline().split()
        assert line[:1] == ["address"], there.stderr and there.stderr.read()
        yield line[1]
    finally:
        try:
            there.communicate("", timeout=30)
        except subprocess.TimeoutExpired:
            there.kill()
            there.communicate()


def test_two_nodes_train_a_driver_together(address, tmp_path):
    """Each has one CPU, so that two workers are on both of them or nowhere.

    The token that lies here is that of another cluster; this one wants none.
    """
    out = tmp_path / "run"
    token = tmp_path / "token"
    token.write_text("0" * 64)
    command = f"train {ROOT / 'configs' / 'state.toml'} --workers 2 --address {address} --plain"
    settings = ["train.steps=8192", "train.seconds=0", "train.cars=64", "evaluation.trials=1"]

    done = subprocess.run(
        [*HOTLAP, *command.split(), "--out", str(out), *settings],
        env={**os.environ, "RAY_AUTH_TOKEN_PATH": str(token)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "has no token: whoever reaches it" in done.stdout + done.stderr
    assert f"2 workers share gradients, with 1 core each, on {address}" in done.stdout + done.stderr
    run = Run.open(out)
    assert run.metrics_rows()[-1]["steps"] >= 8192
    events = [event for event in run.events() if event["kind"] == "traffic"]
    assert events[-1]["exchanges"] > 0
    assert run.report() is not None
