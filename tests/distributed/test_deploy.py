"""The files of examples/cluster: what reads them takes them, and their doors are shut."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from hotlap.cli import app
from hotlap.distributed.cluster import HEALTH

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "cluster"
LOCKED = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
CLOUDS = ["aws.yaml", "gcp.yaml"]
PODS = ["kuberay.yaml", "kuberay-job.yaml"]
FILES = [*CLOUDS, *PODS, "slurm.sh", "Dockerfile"]


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def cluster_of(name: str) -> Any:
    spec = read(name)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", CLOUDS)
def test_no_part_of_the_package_stays_behind(name):
    folders = {path.name for path in (ROOT / "src").rglob("*") if path.is_dir()}

    anywhere = {one.removeprefix("**/") for one in read(name)["rsync_exclude"] if one[:3] == "**/"}

    assert anywhere >= {".git", ".venv"}
    assert not anywhere & folders


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_launcher_takes_the_file(name, monkeypatch):
    util = pytest.importorskip("ray.autoscaler._private.util")
    monkeypatch.chdir(FOLDER)

    filled = util.prepare_config(read(name))

    util.validate_config(filled)
    worker = filled["available_node_types"]["worker"]
    assert worker["min_workers"] == worker["max_workers"] == filled["max_workers"] == 8
    assert (FOLDER / filled["file_mounts"]["/home/ray/hotlap"] / "pyproject.toml").is_file()


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_lets_in_nobody_but_ssh_and_holders_of_the_token(name):
    config = read(name)

    options = " ".join(config["docker"]["run_options"])
    group = config["provider"].get("security_group", {})
    assert "--env RAY_AUTH_MODE=token" in options
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    assert "IpPermissions" not in group  # Ray opens SSH, and AWS refuses the same rule twice


@pytest.mark.parametrize("name", PODS)
def test_pods_hold_a_token_and_a_shared_memory_that_is_large_enough(name):
    cluster = cluster_of(name)

    pods = [group["template"]["spec"] for group in cluster["workerGroupSpecs"]]
    for pod in (cluster["headGroupSpec"]["template"]["spec"], *pods):
        (container,) = pod["containers"]
        (volume,) = pod["volumes"]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", FILES)
def test_every_file_names_the_ray_of_the_lock_file(name):
    assert LOCKED is not None
    text = (FOLDER / name).read_text()

    named = re.findall(r"rayproject/ray:([\d.]+)|rayVersion: ([\d.]+)", text)

    assert {version for pair in named for version in pair if version} <= {LOCKED[1]}
    assert named or name == "slurm.sh"


@pytest.mark.parametrize("name", [*CLOUDS, *PODS, "slurm.sh"])
def test_every_head_gives_up_silent_nodes_as_fast_as_we_do(name):
    text = (FOLDER / name).read_text()

    for setting, value in HEALTH.items():
        assert re.search(rf'RAY_{setting}(=|, value: "){value}\b', text), setting


@pytest.mark.parametrize("name", FILES)
def test_the_commands_of_a_file_are_ours(name):
    text = re.sub(r"\\\n#\s*|\n\s+(?=--)", " ", (FOLDER / name).read_text())
    train = typer.main.get_command(app).get_command(None, "train")  # type: ignore[attr-defined]
    known = {option for parameter in train.params for option in parameter.opts}

    for line in re.findall(r"hotlap train ([^'\n]*)", text):
        given = {word for word in shlex.split(line.replace('"$@"', "")) if word.startswith("--")}
        assert {"--workers", "--address"} <= given <= known


def test_the_script_for_slurm_is_one():
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)
    shellcheck = shutil.which("shellcheck")
    if shellcheck:
        subprocess.run([shellcheck, str(FOLDER / "slurm.sh")], check=True)


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


@pytest.mark.slow
def test_the_script_for_slurm_trains_and_leaves_nothing(tmp_path):
    """Slurm itself is played by two small scripts; the node is this machine."""
    pytest.importorskip("ray")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho here\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text(f"PATH={tools}:{bin_}:{Path(sys.executable).parent}:$PATH\n")
    hotlap = f"#!/bin/sh\nexec {sys.executable} -c 'from hotlap.cli import main; main()' \"$@\"\n"
    (bin_ / "hotlap").write_text(hotlap)
    (bin_ / "hotlap").chmod(stat.S_IRWXU)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": str(os.getpid() % 20000)}
    job |= {"SLURM_JOB_NODELIST": "here", "SLURM_CPUS_PER_TASK": "1"}
    settings = [
        "--out",
        str(tmp_path / "run"),
        "train.steps=20000",
        "train.seconds=0",
        "train.cars=32",
        "evaluation.trials=1",
    ]

    done = subprocess.run(
        ["bash", *map(str, (FOLDER / "slurm.sh", ROOT / "configs" / "state.toml")), *settings],
        env={**kept, **job, "HOME": str(tmp_path), "HOTLAP_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"run: {tmp_path / 'run'}" in done.stdout
    assert not list(tmp_path.glob(".ray-*"))
    assert not Path(f"/tmp/ray-{job['SLURM_JOB_ID']}").exists()
