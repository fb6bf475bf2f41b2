"""The main job, end to end: configurations that ship become drivers that lap. Minutes, so slow."""

from pathlib import Path

import pytest

from hotlap.evaluate import evaluate
from hotlap.train import train

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("configs/state.toml", 80_000),
        ("configs/camera.toml", 120_000),
        ("configs/sac.toml", 12_000),
        ("configs/td3.toml", 12_000),
        ("configs/dqn.toml", 40_000),
        ("configs/pqn.toml", 400_000),
    ],
)
def test_a_shipped_configuration_becomes_a_driver_that_laps(tmp_path, source, steps, seed):
    budget = {"train.steps": steps, "train.seconds": 0, "seed": seed}

    run = train(ROOT / source, budget, out=tmp_path / "run")

    report = evaluate(run, trials=5, laps=3, seed=99)
    assert report.completion == 1.0, report
    # 17.6 m: faster than the car's top speed of 4 m/s times its gain would be a bug in the world,
    # slower than a walk would be no driver
    assert 17.6 * 0.85 / (4.0 * 1.028) < report.best_lap_s < 17.6


def test_the_sample_deepracer_folder_becomes_a_driver_that_laps(tmp_path):
    budget = {"train.steps": 16_384, "train.seconds": 0}

    run = train(ROOT / "examples/deepracer", budget, out=tmp_path / "run")

    assert evaluate(run, trials=5, laps=3).completion >= 0.8
