"""The car's model, asked by TensorFlow: the same frames, the same answers."""

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

import hotlap
from foreign import python_of
from hotlap.algorithms.settings import DEEPRACER_CNNS
from hotlap.config import resolve
from hotlap.deepracer.files.metadata import Metadata
from hotlap.env import EnvSettings
from hotlap.env.drivers import load_driver
from hotlap.export import export
from hotlap.export.car import free_graph
from hotlap.export.layers import Network
from random_drivers import CAR, FIVE, LIDAR, STEREO, frames, random_run

CHILD = Path(__file__).parent / "foreign" / "drive_by_tensorflow.py"
INPUT = "main_level/agent/main/online/network_0/{0}/{0}"
OUTPUT = "main_level/agent/main/online/network_1/ppo_head_0/policy"  # what the car asks for
SOFT_INPUT = "main_level/agent/policy/online/network_0/{0}/{0}"
SOFT_OUTPUT = "main_level/agent/policy/online/network_0/sac_policy_head_0/policy"
SLIM = {"algorithm.network.cnn": "deepracer_deep"}  # a tenth of the numbers of the shallow one
DEEP = {**CAR, **SLIM}
SECTORS = {**LIDAR, "observation.lidar.kind": "deepracer_sectors"}
SECTORS["algorithm.network.cnn"] = "small"
BESIDE = {
    "observation.actor": ["camera", "lidar"], "observation.lidar.kind": "deepracer_sectors",
    "algorithm.network.beside": [9, 7],
}  # fmt: skip
SQUASHED = ("soft actor critic", "soft as theirs", "numbers squashed")
CASES = {
    "shallow choices": ({**CAR, **FIVE}, {}, None),
    "shallow numbers": (CAR, {}, None),
    "middle choices": ({**CAR, **FIVE, "algorithm.network.cnn": "deepracer"}, {}, None),
    "deep choices": ({**DEEP, **FIVE}, {}, None),
    "deep numbers": (DEEP, {}, None),
    "stereo": ({**STEREO, **FIVE, **SLIM}, {}, None),
    "lidar": ({**LIDAR, **FIVE, **SLIM}, {}, None),
    "sectors": (SECTORS, {}, None),
    "ours": ({**CAR, **FIVE, "algorithm.network.cnn": "small"}, {}, None),
    "soft actor critic": ({**CAR, "algorithm.network.cnn": "small"}, {"squash": "sample"}, 4),
    "soft as theirs": (
        {**DEEP, **BESIDE, "algorithm.network.joint": [256, 128, 256]},
        {"squash": "sample"},
        4,
    ),
    "numbers squashed": (DEEP, {"squash": "mean"}, None),
    "a pair after sectors": ({**SECTORS, **STEREO, **BESIDE, **SLIM, **FIVE}, {}, None),
    "worths": ({**DEEP, **FIVE}, {"atoms": (-2.0, 3.0, 7), "worths": True}, 35),
}
FREE = {
    "state": ({}, {"plan": {"layer_norm": True}}, None),
    "padded and pooled": (
        {"observation.actor": ["camera"], "algorithm.network.cnn": "airsim", **FIVE,
         "observation.camera.width": 64, "observation.camera.height": 48}, {}, None,
    ),
}  # fmt: skip
LITE = ("lidar",)


def tensorflow(place, jobs):
    """Let TensorFlow do jobs; see its script. Returns what it says of each."""
    (place / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [python_of("tensorflow"), CHILD, place / "jobs.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def output(name):
    if name in FREE:
        return "policy"
    return SOFT_OUTPUT if name in SQUASHED else OUTPUT


def members(file):
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Export every case, and let TensorFlow drive all of them at once."""
    place = tmp_path_factory.mktemp("car")
    python, found, jobs = python_of("tensorflow"), {}, []
    for name, (settings, extra, outputs) in (CASES | FREE).items():
        run = random_run(place / name, settings, extra=extra, outputs=outputs)
        seen, own = frames(run, rows=4), {**CASES, **FREE}[name][0]
        sectors = own.get("observation.lidar.kind") == "deepracer_sectors"
        pair = "observation.camera.stereo_baseline" in own
        sensors = {
            "camera": "STEREO_CAMERAS" if pair else "FRONT_FACING_CAMERA",
            "lidar": "SECTOR_LIDAR" if sectors else "LIDAR",
        }
        given = SOFT_INPUT if name in SQUASHED else INPUT
        called = {k: k if name in FREE else given.format(sensors[k]) for k in seen}
        np.savez(place / f"{name}.npz", **{called[k]: v for k, v in seen.items()})
        job = {"frames": str(place / f"{name}.npz"), "out": str(place / f"{name}.npy")}
        job |= {"kind": "frozen", "graph": str(place / f"{name}.pb")}
        if name in ("shallow choices", "lidar"):  # as the car gets it
            file = export(run, "deepracer", out=place / f"{name}.tar.gz")
            graph = members(file)["agent/model.pb"]
        else:  # the same without the archive, which takes a second
            driver = load_driver(run)
            network = Network.read(driver.description, driver.arrays)
            graph = free_graph(network, resolve(EnvSettings, driver.task)).graph
        job["output"] = output(name)
        Path(job["graph"]).write_bytes(graph)
        jobs.append(job)
        if name in LITE:
            file = export(run, "tflite", out=place / f"{name}.tflite", python=python)
            job = {**job, "kind": "tflite", "graph": str(file)}
            job["out"] = str(place / f"{name} tflite.npy")
            jobs.append(job)
        found[name] = (run, seen)
    said = tensorflow(place, jobs)
    return place, found, {Path(job["out"]).stem: s for job, s in zip(jobs, said, strict=True)}


def agree(answer, run, seen):
    """Compare what TensorFlow answers with the driver, as the car reads it."""
    policy = hotlap.load_policy(run)
    expected = policy.act(seen)
    if policy.action.kind == "discrete":
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
        assert (answer.argmax(axis=1) == expected).all()
        if not policy._saved.worths:
            np.testing.assert_allclose(answer, policy.probabilities(seen), atol=1e-4)
    else:
        np.testing.assert_allclose(np.clip(answer, -1, 1), expected, atol=1e-4)
    assert np.abs(answer - answer[0]).max() > 1e-3  # it does see


@pytest.mark.parametrize("name", CASES | FREE)
def test_tensorflow_drives_with_the_cars_graph_as_the_driver_does(asked, name):
    place, found, said = asked

    agree(np.load(place / f"{name}.npy"), *found[name])

    # one thing to be read: some converters take all leaves
    assert said[name]["leaves"] == [output(name)]


@pytest.mark.parametrize("name", LITE)
def test_tensorflow_lite_drives_as_the_driver_does(asked, name):
    place, found, said = asked

    agree(np.load(place / f"{name} tflite.npy"), *found[name])

    assert said[f"{name} tflite"]["output"].startswith(OUTPUT)


def test_inputs_have_the_shapes_that_the_car_feeds(asked):
    said = asked[2]

    assert said["shallow choices"]["inputs"] == {
        INPUT.format("FRONT_FACING_CAMERA"): [None, 120, 160, 1]
    }
    assert said["stereo"]["inputs"] == {INPUT.format("STEREO_CAMERAS"): [None, 120, 160, 2]}
    assert said["sectors"]["inputs"][INPUT.format("SECTOR_LIDAR")] == [None, 8]
    assert said["lidar tflite"]["inputs"] == {
        INPUT.format("FRONT_FACING_CAMERA"): [1, 120, 160, 1],
        INPUT.format("LIDAR"): [1, 64],
    }


def test_the_archive_holds_what_the_car_looks_for(tmp_path):
    run = random_run(tmp_path / "run", {**LIDAR, **FIVE})

    inside = members(export(run, "deepracer", out=tmp_path / "fast.tar.gz"))

    assert list(inside) == ["agent/model.pb", "model_metadata.json"]
    # where deepracer-utils draws its heat maps from
    assert b"network_1/FRONT_FACING_CAMERA/Conv2d_4/Conv2D" in inside["agent/model.pb"]
    (tmp_path / "model_metadata.json").write_bytes(inside["model_metadata.json"])
    read = Metadata.read(tmp_path / "model_metadata.json")
    assert read.actions == ((-30, 1), (-15, 1), (0, 1), (15, 1), (30, 1))
    assert read.sensors == ("FRONT_FACING_CAMERA", "LIDAR")
    assert read.network == "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"
    assert (read.algorithm, read.version, read.unknown) == ("clipped_ppo", 5, ())


@pytest.mark.parametrize("called", DEEPRACER_CNNS)
def test_the_network_is_called_as_in_the_file_that_asked_for_it(tmp_path, called):
    run = random_run(tmp_path / "run", {**CAR, "algorithm.network.cnn": DEEPRACER_CNNS[called]})

    inside = members(export(run, "deepracer", out=tmp_path / "a.tar.gz"))

    assert json.loads(inside["model_metadata.json"])["neural_network"] == called


def test_a_network_of_ours_is_called_nothing(tmp_path):
    run = random_run(tmp_path / "run", {**CAR, "algorithm.network.cnn": "small"})

    inside = members(export(run, "deepracer", out=tmp_path / "a.tar.gz"))

    assert "neural_network" not in json.loads(inside["model_metadata.json"])


def test_ranges_are_told_to_the_car(tmp_path):
    ranges = {"actions.steering_high_deg": 20.0, "actions.speed_low": 1.5}
    run = random_run(tmp_path / "run", {**DEEP, **ranges})

    inside = members(export(run, "deepracer", out=tmp_path / "a.tar.gz"))

    said = json.loads(inside["model_metadata.json"])
    assert said["action_space_type"] == "continuous"
    assert said["action_space"] == {
        "steering_angle": {"high": 20.0, "low": -30.0}, "speed": {"high": 4.0, "low": 1.5},
    }  # fmt: skip
    assert said["neural_network"] == "DEEP_CONVOLUTIONAL_NETWORK_DEEP"


def test_the_cars_own_way_of_unpacking_works(tmp_path):
    # It is unzipped to a file, which is then read as a plain tar; names must be relative.
    run = random_run(tmp_path / "run", {**CAR, **FIVE})
    file = export(run, "deepracer", out=tmp_path / "fast.tar.gz")

    with tarfile.TarFile(fileobj=io.BytesIO(gzip.decompress(file.read_bytes()))) as archive:
        graph = archive.getmember("agent/model.pb")

    assert graph.size > 20_000_000
