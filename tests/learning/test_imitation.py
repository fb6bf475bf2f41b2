"""The comparison of students compares what it says."""

import imitation
import pytest

from hotlap.plan import read_config

SMALL = {
    "train.cars": 8,
    "algorithm.patience": 64,
    "algorithm.minibatch": 16,
    "evaluation.laps": 1,
    "rules.time_limit": 2.0,
}


@pytest.fixture
def config():
    return read_config(imitation.ROOT / "configs" / "distill.toml", SMALL).config


@pytest.mark.parametrize("name", imitation.STUDENTS)
def test_only_one_of_them_drives_itself(name, config):
    runner, learner = imitation.begin(config, 0, imitation.STUDENTS[name])
    shares = []
    while learner._frames < 400:
        drives = learner.phase.name == "student"
        imitation.collect(runner, learner)
        if drives:
            shares.append(max(0.0, 1.0 - learner._acts / learner.settings.handover))

    assert (min(shares) == 0.0) == (name == "dagger")
    assert (min(shares) > 0.999) == (name == "cloning")


def test_both_are_tried_after_the_same_frames(config):
    found = imitation.compare(config, 0, [64, 32])

    seen = [(row["student"], row["frames"]) for row in found]
    assert seen == [("dagger", 32), ("dagger", 64), ("cloning", 32), ("cloning", 64)]


def test_a_configuration_without_a_student_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["imitation.py", str(imitation.ROOT / "configs/state.toml")])
    with pytest.raises(SystemExit) as end:
        imitation.main()

    assert end.value.code == 2
    assert "its algorithm is ppo; give one of distill" in capsys.readouterr().err
