"""What a training will need is known before it begins."""

import math

import pytest

from hotlap.algorithms import footprint as module
from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.footprint import check, footprint, free_memory
from hotlap.algorithms.settings import (
    DistillSettings,
    DQNSettings,
    NetworkSettings,
    PPOSettings,
    SACSettings,
)
from hotlap.errors import ConfigError

OBSERVATION = {
    "camera": ObservationSpec((120, 160, 1), "uint8"),  # 19,200 bytes
    "state": ObservationSpec((20,), "float32"),  # 80 bytes
}
BOTH = ("camera", "state")


def test_what_is_collected_is_counted_twice():
    # 64 cars, 16 steps, 19,280 bytes, and the tensors made of them
    parts = footprint(PPOSettings(), OBSERVATION, BOTH, cars=64)

    assert parts["train.cars times algorithm.horizon"] == 64 * 16 * 19_280 * 2


def test_a_replay_and_a_student_s_memory_are_counted_once():
    replay = footprint(SACSettings(capacity=50_000), OBSERVATION, BOTH, cars=8)
    student = footprint(DistillSettings(memory=1000), OBSERVATION, ("camera",), cars=8)

    assert replay["algorithm.capacity"] == 50_000 * 19_280
    assert student["algorithm.memory"] == 1000 * 19_200


def test_a_teacher_s_share_has_its_own_settings_beside_the_student_s():
    practice = PPOSettings(horizon=7, minibatch=64)
    alone = footprint(practice, OBSERVATION, BOTH, cars=8)

    parts = footprint(DistillSettings(practice=practice), OBSERVATION, BOTH, cars=8)

    for name in ("minibatch", "horizon"):
        (key,) = (key for key in alone if key.endswith(f"algorithm.{name}"))
        assert parts[key.replace("algorithm.", "algorithm.practice.")] == alone[key]
    assert {"algorithm.minibatch", "algorithm.memory"} <= set(parts)
    assert len(parts) == len(alone) + 2


def test_the_layers_of_a_minibatch_are_estimated_from_above():
    # the cookbook's network: 59 x 255 x 16 numbers after its first layer, and smaller ones
    seen = {"camera": ObservationSpec((59, 255, 3), "uint8")}
    settings = DQNSettings(minibatch=32, network=NetworkSettings(cnn="airsim"))

    needed = footprint(settings, seen, ("camera",), cars=1)["algorithm.minibatch"]

    numbers = 59 * 255 * 16 + 29 * 127 * (16 + 32) + 14 * 63 * (32 + 32) + 7 * 31 * 32
    assert 32 * numbers * 4 <= needed <= 32 * numbers * 4 * 12


def test_of_a_minibatch_ppo_holds_only_what_its_threads_compute():
    # images of 160x120 are computed 64 at a time on each thread
    seen = {"camera": ObservationSpec((120, 160, 3), "uint8")}
    parts = [
        footprint(PPOSettings(minibatch=rows, threads=2), seen, ("camera",), cars=64)
        for rows in (128, 512)
    ]

    assert parts[0]["algorithm.minibatch"] == parts[1]["algorithm.minibatch"]


@pytest.mark.parametrize(
    ("settings", "cars", "said"),
    [
        (PPOSettings(), 1_000_000, r"train\.cars times algorithm\.horizon: needs about 617.0 GB"),
        (SACSettings(capacity=10**8), 4, r"algorithm\.capacity: needs about 1,928.0 GB"),
        (DQNSettings(minibatch=10**7), 4, r"algorithm\.minibatch: needs about"),
    ],
)
def test_more_than_there_is_names_the_setting_to_lower(settings, cars, said, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 20e9)

    with pytest.raises(ConfigError, match=f"{said}.*and 20.0 GB are free; lower it"):
        check(settings, OBSERVATION, BOTH, cars)


def test_a_gpu_holds_whole_minibatches_and_no_replay(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 200e9)
    monkeypatch.setattr(module, "_free_memory_of_gpu", lambda: 2e9)
    seen = {"camera": ObservationSpec((120, 160, 1), "uint8")}
    large = PPOSettings(minibatch=16_384, horizon=64, threads=2)

    check(DQNSettings(capacity=10**6), seen, ("camera",), 8, "cuda")
    check(large, seen, ("camera",), 256)
    with pytest.raises(ConfigError, match=r"minibatch: needs .* of the GPU's memory .*2\.0 GB are"):
        check(large, seen, ("camera",), 256, "cuda")


def test_what_ships_fits_into_a_small_machine(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 6e9)
    large = NetworkSettings(cnn="deepracer_deep")

    check(PPOSettings(network=large), OBSERVATION, BOTH, cars=64)
    check(SACSettings(network=large), OBSERVATION, BOTH, cars=64)


def test_this_machine_has_memory():
    assert 1e8 < free_memory() < math.inf
