"""What is said about the machine is true, and so is the warning that it is busy."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hotlap import machine


@pytest.mark.parametrize(("load", "busy"), [(1.0, False), (1.2, True)])
def test_a_load_of_more_than_half_a_core_is_called_busy(monkeypatch, load, busy):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(machine, "available", lambda: 2)

    conditions = machine.stamp()["conditions"]

    assert (conditions["warning"] is not None) == busy
    assert conditions["load_per_core"] == load / 2


def test_the_commit_is_the_one_that_git_names():
    root = Path(machine.__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout

    commit = machine.stamp()["commit"]

    assert head.startswith(commit.removesuffix("-changed"))


def test_the_machine_is_described_in_plain_words():
    facts = machine.machine()

    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cores"].endswith(f"of {os.cpu_count()}")
    for name in ("hotlap", "cpu", "vectors", "memory", "gpu", "kernels"):
        assert facts[name], name


def test_an_extra_that_is_missing_is_named_with_its_install_line():
    assert machine.version("no-such-package", "train") == (
        "not installed: pip install 'hotlap[train]'"
    )


def test_no_driver_means_no_gpu_without_asking_torch(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))

    assert machine._gpu(tmp_path / "nvidia") == "none"


def test_a_gpu_that_torch_cannot_use_is_said(monkeypatch, tmp_path):
    blind = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setattr(importlib, "import_module", lambda name: blind)
    monkeypatch.setattr(machine, "version", lambda package, extra: "2.0+cpu")

    assert machine._gpu(tmp_path) == "an NVIDIA driver is there, but torch 2.0+cpu cannot use it"


def test_the_gpu_is_named_where_torch_finds_it(monkeypatch, tmp_path):
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda i: f"Card {i}")
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(machine, "version", lambda package, extra: "2.0")

    assert machine._gpu(tmp_path) == "Card 0"
