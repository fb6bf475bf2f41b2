"""Models that TensorFlow trained, named as DeepRacer names them, drive here as they did there."""

import io
import json
import shutil
import sys
import tarfile

import numpy as np
import pytest

import hotlap
from foreign import python_of
from hotlap.cli import main
from hotlap.config import resolve
from hotlap.deepracer.files.folder import read_folder
from hotlap.deepracer.models.checkpoint import read_checkpoint
from hotlap.deepracer.models.frozen import FrozenGraph, read_constants
from hotlap.errors import HotlapError
from hotlap.export import export
from hotlap.old_models import import_model
from hotlap.plan import TrainConfig, read_config
from hotlap.progress import Progress
from hotlap.training import Training
from random_drivers import CAR, FIVE, frames, random_run
from test_car_model import BESIDE, DEEP, tensorflow

SHALLOW = {"conv": [(32, 8, 4), (64, 4, 2), (64, 3, 1)], "dense": [], "middleware": [512]}
MIDDLE = {"conv": [(32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1)], "dense": [64],
          "middleware": [512]}  # fmt: skip
CHOICES = [{"steering_angle": a, "speed": 0.6} for a in (-30, -15, 0, 15, 30)]
RANGES = {"steering_angle": {"low": -30, "high": 30}, "speed": {"low": 1, "high": 2}}
SHALLOW_CALLED, MIDDLE_CALLED = (
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW", "DEEP_CONVOLUTIONAL_NETWORK"
)  # fmt: skip
DEEP_CALLED = "DEEP_CONVOLUTIONAL_NETWORK_DEEP"
DEEPEST = {"conv": [(32, 8, 4), (32, 4, 2), (64, 4, 2), (64, 3, 1)], "dense": [512, 512],
           "middleware": [256, 128]}  # fmt: skip
PAIR = {"conv": [(32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)], "dense": [],
        "middleware": [256, 128]}  # fmt: skip
FRONT, STEREO = "FRONT_FACING_CAMERA", "STEREO_CAMERAS"
MODELS = {
    "choices": ([FRONT], SHALLOW, CHOICES, SHALLOW_CALLED),
    "numbers": (["observation"], SHALLOW, RANGES, SHALLOW_CALLED),
    "middle": ([FRONT], MIDDLE, CHOICES, MIDDLE_CALLED),
    "deep": ([FRONT], DEEPEST, CHOICES, DEEP_CALLED),
    "lidar": ([FRONT, "LIDAR"], DEEPEST, RANGES, DEEP_CALLED),
    "left sectors": (["LEFT_CAMERA", "SECTOR_LIDAR"], DEEPEST, CHOICES, DEEP_CALLED),
    "steps": (["DISCRETIZED_SECTOR_LIDAR", FRONT], DEEPEST, CHOICES, DEEP_CALLED),
    "soft": ([FRONT, "LIDAR"], DEEPEST, RANGES, DEEP_CALLED),
    "soft shallow pair": ([STEREO, "LIDAR"], SHALLOW, RANGES, SHALLOW_CALLED),
}
STEREO_BESIDE = {**BESIDE, "observation.camera.stereo_baseline": 0.06}
SIZES = {"LIDAR": 64, "SECTOR_LIDAR": 8, "DISCRETIZED_SECTOR_LIDAR": 12}
STEPS = {"num_sectors": 4, "num_values_per_sector": 3, "clipping_dist": 2.0}


def tar(path, files):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def metadata(sensors, actions, network, **more):
    kind = "discrete" if isinstance(actions, list) else "continuous"
    said = {"action_space": actions, "action_space_type": kind, "sensor": sensors,
            "neural_network": network, "version": "5", **more}  # fmt: skip
    return json.dumps(said).encode()


def look(sensors, rows=6):
    """Return what sensors give: pixels that differ in brightness, and distances."""
    rng, found = np.random.default_rng(3), {}
    for sensor in sensors:
        if sensor in SIZES:
            found[sensor] = rng.uniform(0, 1, (rows, SIZES[sensor])).astype(np.float32)
        else:
            bright = np.linspace(40, 255, rows)[:, None, None, None]
            pixels = rng.uniform(0, 1, (rows, 120, 160, 2 if sensor == STEREO else 1))
            found[sensor] = (pixels * bright).astype(np.uint8)
    return found


def job_of(place, name, sensors, layers, actions, seen, **more):
    np.savez(place / f"{name}.npz", **seen)
    return {"kind": "train", "folder": str(place / name), "frames": str(place / f"{name}.npz"),
            "sensors": {k: x.shape[1:] for k, x in seen.items()}, "layers": layers, "seed": 5,
            "algorithm": "sac" if "soft" in name else "clipped_ppo",
            "discrete": actions is CHOICES, "actions": 2 if actions is RANGES else 5,
            **more}  # fmt: skip


def ours_of(seen):
    """Return frames under our names."""
    return {"lidar" if sensor in SIZES else "camera": x for sensor, x in seen.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Let TensorFlow make all models; return their folders and frames."""
    place, jobs, found = tmp_path_factory.mktemp("old"), [], {}
    python_of("tensorflow")
    for name, (sensors, layers, actions, _) in MODELS.items():
        seen = look(sensors)
        more = {"numbered": 7} if name == "soft" else {}
        jobs.append(job_of(place, name, sensors, layers, actions, seen, **more))
        found[name] = (place / name, ours_of(seen))
    tensorflow(place, jobs)
    for name, (sensors, _, actions, network) in MODELS.items():
        folder = found[name][0]
        more = {"lidar_config": STEPS} if name == "steps" else {}
        more |= {"training_algorithm": "sac"} if "soft" in name else {}
        said = metadata(sensors, actions, network, **more)
        (folder / "model_metadata.json").write_bytes(said)
        files = {"agent/model.pb": (folder / "model.pb").read_bytes(),
                 "model_metadata.json": said}  # fmt: skip
        tar(folder / "car.tar.gz", files)
    return found


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A model.pb of ours, and its metadata: what follows needs no TensorFlow."""
    place = tmp_path_factory.mktemp("ours")
    random_run(place / "run", {**DEEP, **FIVE})
    with tarfile.open(export(place / "run", "deepracer", out=place / "m.tar.gz")) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def answers(folder):
    return np.load(folder / "answer.npy")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("source", ["car.tar.gz", "model.pb", "7_Step-321.ckpt.index", "."])
def test_an_old_model_drives_as_tensorflow_says(trained, tmp_path, name, source):
    folder, seen = trained[name]

    run = import_model(folder / source, tmp_path / "run", {"track": "oval"})

    policy, expected = hotlap.load_policy(run.path), answers(folder)
    if "soft" in name:  # DeepRacer's simulator drives by the tangent of the mean
        np.testing.assert_allclose(policy.act(seen), np.tanh(expected), atol=1e-4)
    elif MODELS[name][2] is RANGES:
        np.testing.assert_allclose(policy.act(seen), expected.clip(-1, 1), atol=1e-4)
    else:
        np.testing.assert_allclose(policy.probabilities(seen), expected, atol=1e-4)
        assert (policy.act(seen) == expected.argmax(axis=1)).all()
    assert np.abs(expected - expected[0]).max() > 1e-3  # it does see


def test_a_checkpoint_is_read_as_tensorflow_wrote_it(trained):
    folder = trained["numbers"][0]

    found = read_checkpoint(folder / "7_Step-321.ckpt")

    with np.load(folder / "variables.npz") as expected:
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_a_checkpoint_brings_its_deviations_and_its_critic(trained, tmp_path):
    run = import_model(trained["numbers"][0], tmp_path / "run", {"track": "oval"})

    # what the child wrote for policy_log_std
    np.testing.assert_allclose(run.read_policy()[1]["log_std"], [-0.7, 0.2], atol=1e-7)
    learner = run.read_state()[1]
    with np.load(trained["numbers"][0] / "variables.npz") as theirs:
        kernel = theirs[
            "main_level/agent/main/online/network_0/middleware_fc_embedder/Dense_0/kernel"
        ]
        np.testing.assert_array_equal(learner["learner.critic.hidden0.weight"], kernel.T)
    assert "learner.critic.head.weight" not in learner


def test_a_checkpoint_of_sac_brings_its_deviations_and_what_its_critics_look_with(
    trained, tmp_path
):
    folder, seen = trained["soft shallow pair"]

    run = import_model(folder, tmp_path / "run", {"track": "oval"})

    output = hotlap.load_policy(run.path).output(seen)
    np.testing.assert_allclose(output[:, :2], answers(folder), atol=1e-4)
    np.testing.assert_allclose(output[:, 2:], np.load(folder / "spread.npy"), atol=1e-4)
    learner = run.read_state()[1]
    with np.load(folder / "variables.npz") as theirs:
        start = "main_level/agent/q/online/network_0"
        np.testing.assert_array_equal(
            learner["learner.critic.camera.conv2.weight"],
            theirs[f"{start}/STEREO_CAMERAS/Conv2d_4/kernel"].transpose(3, 2, 0, 1),
        )
        np.testing.assert_array_equal(
            learner["learner.critic.lidar.dense1.weight"],
            theirs[f"{start}/LIDAR/Dense_2/kernel"].T,
        )
    assert not any("critic.hidden" in name for name in learner)


def test_a_frozen_sac_explores_by_the_setting(trained, tmp_path):
    folder, seen = trained["soft"]
    words = {"track": "oval", "algorithm.initial_std": 0.2}

    run = import_model(folder / "model.pb", tmp_path / "run", words)

    output = hotlap.load_policy(run.path).output(seen)
    np.testing.assert_allclose(np.exp(output[:, 2:]), 0.2, rtol=1e-6)


def test_a_value_network_that_reads_a_lidar_first_comes_in_our_order(trained, tmp_path):
    folder, _ = trained["steps"]

    run = import_model(folder, tmp_path / "run", {"track": "oval"})

    # theirs joins 256 of DISCRETIZED_SECTOR_LIDAR, then 512 of the camera; ours the camera first
    ours = run.read_state()[1]["learner.critic.hidden0.weight"]
    with np.load(folder / "variables.npz") as theirs:
        start = "main_level/agent/main/online/network_0"
        kernel = theirs[f"{start}/middleware_fc_embedder/Dense_0/kernel"]
    np.testing.assert_array_equal(ours[:, :512], kernel[256:].T)
    np.testing.assert_array_equal(ours[:, 512:], kernel[:256].T)
    assert "steps = 3" in run.config_toml
    assert "sectors = 4" in run.config_toml


@pytest.mark.slow
def test_the_deepest_network_for_a_pair_of_cameras_drives_as_tensorflow_says(tmp_path):
    seen = look([STEREO], rows=2)  # 28.7 million weights join: the file has 115 MB
    job = job_of(tmp_path, "pair", [STEREO], PAIR, CHOICES, seen, frozen_only=True)
    tensorflow(tmp_path, [job])
    said = metadata([STEREO], CHOICES, DEEP_CALLED)
    (tmp_path / "pair" / "model_metadata.json").write_bytes(said)

    run = import_model(tmp_path / "pair", tmp_path / "run", {"track": "oval"})

    assert 'cnn = "deepracer_stereo"' in run.config_toml
    np.testing.assert_allclose(
        hotlap.load_policy(run.path).probabilities(ours_of(seen)),
        answers(tmp_path / "pair"),
        atol=1e-4,
    )


def test_the_checkpoint_that_deepracer_called_best_is_taken(trained, tmp_path):
    folder, seen = trained["choices"]
    model = tmp_path / "old" / "model"
    model.mkdir(parents=True)
    for name in ("3_Step-9", "12_Step-99"):  # the last one knows nothing: all zero
        for end in ("index", "data-00000-of-00001"):
            shutil.copy(folder / f"7_Step-321.ckpt.{end}", model / f"{name}.ckpt.{end}")
    empty = model / "12_Step-99.ckpt.data-00000-of-00001"
    empty.write_bytes(bytes(empty.stat().st_size))
    shutil.copy(folder / "model_metadata.json", model)

    def answer(out):
        run = import_model(tmp_path / "old", tmp_path / out, {"track": "oval"})
        return hotlap.load_policy(run.path).probabilities(seen)

    np.testing.assert_allclose(answer("last"), 0.2, atol=1e-6)  # five choices alike
    (model / ".coach_checkpoint").write_text("3_Step-9.ckpt\n")
    np.testing.assert_allclose(answer("coach"), answers(folder), atol=1e-4)
    best = {"best_checkpoint": {"name": "12_Step-99.ckpt"},
            "last_checkpoint": {"name": "3_Step-9.ckpt"}}  # fmt: skip
    (model / "deepracer_checkpoints.json").write_text(json.dumps(best))
    np.testing.assert_allclose(answer("best"), 0.2, atol=1e-6)


def test_continuing_an_imported_run_is_refused_with_the_way_out(ours, tmp_path):
    run = import_model(tar(tmp_path / "m.tar.gz", ours), tmp_path / "run", {"track": "oval"})

    with pytest.raises(HotlapError, match=f"hotlap train --from {run.path}"):
        hotlap.train(resume=run.path)


def test_the_task_is_the_models(trained, tmp_path):
    run = import_model(trained["numbers"][0] / "car.tar.gz", tmp_path / "run")

    assert 'cnn = "deepracer_shallow"' in run.config_toml
    assert "speed_low = 1.0" in run.config_toml
    assert "speed_high = 2.0" in run.config_toml


COMING_BACK = {
    "choices": ({**CAR, **FIVE}, {}),
    "numbers": (DEEP, {}),
    "ours": ({**CAR, **FIVE, "algorithm.network.cnn": "small"}, {}),
    "lidar as theirs": ({**DEEP, **FIVE, **BESIDE, "algorithm.network.beside": [256, 256]}, {}),
    "lidar at once": ({**DEEP, **FIVE, **BESIDE, "algorithm.network.beside": []}, {}),
    "pair and sectors": ({**DEEP, **FIVE, **STEREO_BESIDE}, {}),
    "soft": ({**DEEP, "algorithm.kind": "sac"}, {"squash": "sample"}),
    "soft as theirs": (
        {**DEEP, "algorithm.kind": "sac", "algorithm.network.joint": [256, 128, 256]},
        {"squash": "sample"},
    ),
    "soft, small, with a lidar": (
        {**CAR, "algorithm.kind": "sac", "algorithm.network.cnn": "small", **BESIDE},
        {"squash": "sample"},
    ),
    "squashed": ({**DEEP, "algorithm.kind": "td3"}, {"squash": "mean"}),
}


@pytest.mark.parametrize("name", COMING_BACK)
def test_what_was_exported_comes_back_to_the_bit(tmp_path, name):
    settings, extra = COMING_BACK[name]
    outputs = 4 if extra.get("squash") == "sample" else None
    there = random_run(tmp_path / "before", settings, extra=extra, outputs=outputs)
    before = hotlap.Run.open(there).read_policy()[1]
    file = export(there, "deepracer", out=tmp_path / "model.tar.gz")

    run = import_model(file, tmp_path / "after", {"track": "oval"})

    after = run.read_policy()[1]
    before.pop("log_std", None)  # of exploration: a car does not explore, its file has none
    after.pop("log_std", None)
    for part in ("weight", "bias"):  # nor has it the second half of SAC's head
        before[f"head.{part}"] = before[f"head.{part}"][: 2 if extra else None]
        after[f"head.{part}"] = after[f"head.{part}"][: 2 if extra else None]
    assert set(before) == set(after)
    for array in before:
        np.testing.assert_array_equal(before[array], after[array])
    seen = frames(there)
    # a head of two rows and one of four are summed in another order
    np.testing.assert_allclose(
        hotlap.load_policy(there).act(seen), hotlap.load_policy(run.path).act(seen), atol=1e-6
    )


def test_an_imported_run_laps(ours, tmp_path):
    file = tar(tmp_path / "model.tar.gz", ours)

    report = hotlap.evaluate(
        import_model(file, tmp_path / "run", {"track": "oval"}), trials=1, laps=1
    )

    assert (report.trials, report.track) == (1, "oval")


@pytest.mark.parametrize("critic", ["state", "camera"])
def test_a_training_begins_with_the_old_driver(trained, tmp_path, critic):
    run = import_model(trained["choices"][0], tmp_path / "run", {"track": "oval"})
    changes = {"train.cars": 2, "observation.critic": [critic]}
    config = read_config(run.path / "config.toml", changes).config
    training = Training(config, 0.0, Progress(0, 0, quiet=True))

    transfer = training.take_weights(run, by_name=False)

    for name, array in training.learner.policy_state()[1].items():
        np.testing.assert_array_equal(array, run.read_policy()[1][name])
    anew = {name for name in transfer.skipped if name != "critic.head"}
    assert not any(name.startswith("actor.") for name in anew)
    # the old critic saw the camera; its last layer counted other rewards
    assert ("critic.hidden0" in anew) == (critic == "state")
    assert "critic.head" in transfer.skipped


def test_a_training_by_sac_begins_with_the_old_driver_and_leaves_its_lidar_as_it_was(
    trained, tmp_path
):
    run = import_model(trained["soft"][0], tmp_path / "run", {"track": "oval"})
    changes = {"train.cars": 2, "observation.critic": ["camera", "lidar"],
               "algorithm.capacity": 100}  # fmt: skip
    config = read_config(run.path / "config.toml", changes).config
    training = Training(config, 0.0, Progress(0, 0, quiet=True))

    transfer = training.take_weights(run, by_name=False)

    mine = training.learner.policy_state()[1]
    for name, array in run.read_policy()[1].items():
        np.testing.assert_array_equal(mine[name], array)
    assert {"critic.camera.conv0", "critic.lidar.dense1"} <= set(transfer.loaded)
    assert not any(name.startswith("actor.") for name in transfer.skipped)
    learner = training.learner
    assert learner.save()[0]["adopted"]  # it drives from the start, and not at random
    # a million readings of 0.9 m move the scale by less than the distances are rounded
    normalizer = learner._scales.normalizers["lidar"]
    normalizer.merge(np.stack([np.full(64, x) for x in (1e6, 0.9, 1e4)]))
    np.testing.assert_allclose(normalizer.mean, 0, atol=1e-6)
    np.testing.assert_allclose(normalizer.std, 1, atol=1e-6)


def test_a_folder_with_the_models_files_has_its_network(trained, tmp_path):
    for name in ("soft shallow pair", "lidar", "steps"):
        folder = trained[name][0]
        run = import_model(folder, tmp_path / name, {"track": "oval"})
        (folder / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
        asked = read_folder(folder).settings

        config = read_config(run.path / "config.toml", {}).config
        said = resolve(TrainConfig, {k: v for k, v in asked.items() if k.startswith(
            ("algorithm", "observation", "actions"))})  # fmt: skip

        assert said.algorithm.network == config.algorithm.network
        assert said.observation.lidar == config.observation.lidar
        assert said.observation.actor == config.observation.actor


@pytest.mark.slow
def test_an_imported_run_is_trained_on(ours, tmp_path):
    run = import_model(tar(tmp_path / "model.tar.gz", ours), tmp_path / "run", {"track": "oval"})
    short = {"train.cars": 4, "train.steps": 64, "train.seconds": 0, "algorithm.horizon": 16,
             "algorithm.epochs": 1, "algorithm.learning_rate": 1e-9}  # fmt: skip

    after = hotlap.train(run.path / "config.toml", short, weights_from=run.path,
                         out=tmp_path / "more")  # fmt: skip

    # with next to no step size it is the same driver still
    seen = frames(run.path)
    np.testing.assert_allclose(
        hotlap.load_policy(after.path, "last").output(seen),
        hotlap.load_policy(run.path).output(seen),
        atol=1e-3,
    )


def broken(place, ours):
    """Return what may be wrong with a model: the file or folder, and what is said."""
    graph, said = ours["agent/model.pb"], ours["model_metadata.json"]
    folder = place / "folder"
    (folder / "model").mkdir(parents=True)
    (place / "text.tar.gz").write_text("not an archive")
    whole = tar(place / "whole.tar.gz", ours).read_bytes()
    (place / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (place / "alone.pb").write_bytes(graph)
    (place / "cut").mkdir()
    (place / "cut" / "model.pb").write_bytes(graph[: len(graph) // 2])
    (place / "cut" / "model_metadata.json").write_bytes(said)
    for name, change in (
        ("shallow", {"neural_network": "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"}),
        ("left", {"sensor": ["LEFT_CAMERA"]}),
        ("lidar", {"sensor": ["FRONT_FACING_CAMERA", "LIDAR"]}),
        ("sac", {"training_algorithm": "sac"}),
        ("pair", {"sensor": ["STEREO_CAMERAS"]}),
        ("six", {"action_space": [*json.loads(said)["action_space"], {"steering_angle": 1,
                                                                      "speed": 1}]}),
    ):  # fmt: skip
        changed = json.dumps(json.loads(said) | change).encode()
        tar(place / f"{name}.tar.gz", {"agent/model.pb": graph, "model_metadata.json": changed})
    tar(place / "empty.tar.gz", {"model_metadata.json": said})
    tar(place / "nameless.tar.gz", {"agent/model.pb": graph})
    tar(place / "bad.tar.gz", {"agent/model.pb": graph, "model_metadata.json": b"{"})
    tar(place / "climbs.tar.gz", {"../evil.pb": graph, "model_metadata.json": said})
    tar(place / "text.pb.tar.gz", {"agent/model.pb": b"hello" * 9, "model_metadata.json": said})
    other = graph.replace(b"main_level/agent", b"else_level/agent")
    tar(place / "other.tar.gz", {"agent/model.pb": other, "model_metadata.json": said})
    (folder / "model" / "1_Step-5.ckpt.index").write_bytes(b"x" * 100)
    (folder / "model" / "1_Step-5.ckpt.data-00000-of-00001").write_bytes(b"x")
    (place / "half").mkdir()
    soft = FrozenGraph({"mean": "main_level/agent/policy/online/network_0/sac_policy_head_0/mean"})
    soft.dense(soft.placeholder("x", [2]), "mean", np.ones((2, 2), np.float32), np.ones(2))
    for name, change in (
        ("soft", {}),
        ("soft choices", {"training_algorithm": "sac"}),
        ("soft numbers", {"training_algorithm": "sac", "action_space": RANGES,
                          "action_space_type": "continuous"}),
    ):  # fmt: skip
        changed = json.dumps(json.loads(said) | change).encode()
        files = {"agent/model.pb": soft.serialize(), "model_metadata.json": changed}
        tar(place / f"{name}.tar.gz", files)
    name = b"network_1/ppo_head_0/policy_fc/bias"
    at = graph.index(b"\x22\x14", graph.index(name))  # the field of its five numbers
    failed = graph[: at + 2] + np.full(5, np.nan, "<f4").tobytes() + graph[at + 22 :]
    tar(place / "failed.tar.gz", {"agent/model.pb": failed, "model_metadata.json": said})
    (place / "half" / "1_Step-5.ckpt.index").write_bytes(b"x" * 100)
    return {
        "no.tar.gz": "no such file or folder",
        "text.tar.gz": "not a tar archive, or cut off",
        "cut.tar.gz": "not a tar archive, or cut off",
        "alone.pb": "there is no model_metadata.json beside it",
        "cut": "not a frozen TensorFlow graph, or cut off",
        "shallow.tar.gz": "check neural_network (DEEP_CONVOLUTIONAL_NETWORK_SHALLOW)",
        "left.tar.gz": "online/network_1/LEFT_CAMERA/Conv2d_0/kernel; check neural_network",
        "lidar.tar.gz": "the model has no main_level/agent/main/online/network_1/LIDAR/Dense_0/",
        "sac.tar.gz": "its weights are those of clipped_ppo, but training_algorithm in its "
        "model_metadata.json is sac; give it the file that belongs to it",
        "pair.tar.gz": "the model has no main_level/agent/main/online/network_1/STEREO_CAMERAS/",
        "six.tar.gz": "policy_fc/kernel is 128x5, not 128x6",
        "empty.tar.gz": "holds no agent/model.pb (it holds model_metadata.json)",
        "nameless.tar.gz": "holds no model_metadata.json",
        "bad.tar.gz": "bad.tar.gz: model_metadata.json:1: not valid JSON",
        "climbs.tar.gz": "holds no agent/model.pb",
        "text.pb.tar.gz": "agent/model.pb: not a frozen TensorFlow graph",
        "other.tar.gz": "not DeepRacer's network: its weights are called else_level/agent",
        "soft.tar.gz": "its weights are those of sac, but training_algorithm in its",
        "soft choices.tar.gz": "it learned by sac, which answers with numbers, but action_space in",
        "soft numbers.tar.gz": "the model has no main_level/agent/policy/online/network_0/FRONT_",
        "failed.tar.gz": "policy_fc/bias is not finite: the training had failed by then",
        "folder": "not a TensorFlow checkpoint, or cut off",
        "half": "1_Step-5.ckpt.data-00000-of-00001: no such file",
        ".": "no model in it",
    }


def test_each_kind_of_damage_is_one_sentence(ours, tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    cases = broken(place, ours)
    (place / "none").mkdir()
    before = sorted(p for p in tmp_path.rglob("*"))

    for name, said in cases.items():
        given = place / ("none" if name == "." else name)
        with pytest.raises(HotlapError) as error:
            import_model(given, tmp_path / "run")
        assert said in str(error.value), name
        assert "\n" not in str(error.value)

    assert sorted(p for p in tmp_path.rglob("*")) == before  # nothing was unpacked or written


def test_a_graph_that_is_cut_anywhere_is_told(ours, tmp_path):
    graph = ours["agent/model.pb"]

    for share in np.linspace(0.02, 0.98, 9):
        with pytest.raises(HotlapError):
            read_constants(graph[: int(len(graph) * share)], "model.pb")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"observation.camera.width": 64}, "observation.camera.width: the model has its own"),
        ({"actions.kind": "grid"}, "actions: the model has its own"),
        ({"algorithm.network.cnn": "small"}, "algorithm.network.cnn: the model has its own"),
        ({"algorithm.kind": "sac"}, "algorithm.kind: the model learned by PPO"),
        ({"algorithm.network.beside": [5]}, "algorithm.network.beside: the model has its own"),
    ],
)
def test_what_is_the_models_cannot_be_set(ours, tmp_path, words, said):
    with pytest.raises(HotlapError, match=said):
        import_model(tar(tmp_path / "m.tar.gz", ours), tmp_path / "run", words)

    assert not (tmp_path / "run").exists()


def test_the_command_says_where_the_run_is(ours, tmp_path, monkeypatch, capsys):
    tar(tmp_path / "model.tar.gz", ours)
    words = ["import", str(tmp_path / "model.tar.gz"), "--track", "oval", "--out", "new"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hotlap", *words])

    with pytest.raises(SystemExit) as stop:
        main()

    assert stop.value.code in (0, None)
    assert capsys.readouterr().out == "run: new\n"
    assert hotlap.Run.open("new").checkpoints() == [0]
    shutil.rmtree("new")
