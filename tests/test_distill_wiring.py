"""A training by teacher and student: who is asked, what is drawn, what is said."""

import importlib
import shutil

import numpy as np
import pytest

from hotlap.errors import ConfigError, RunError
from hotlap.runner import Runner
from hotlap.sim.camera import Camera

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
train = module.train

WORLD = {
    "track": "oval",
    "train.cars": 8,
    "train.seconds": 0,
    "evaluation.every": 99,
    "evaluation.trials": 1,
    "evaluation.laps": 1,
}
SEES = {
    "observation.actor": ["camera"],
    "observation.camera.width": 32,
    "observation.camera.height": 24,
}
STUDENT = WORLD | SEES | {"algorithm.kind": "distill", "train.steps": 96}


@pytest.fixture(autouse=True)
def no_outcome(monkeypatch):
    """Leave plots and film away: they are tested where they are made."""
    monkeypatch.setattr(module, "write_outcome", lambda run: {})


@pytest.fixture
def teacher(tmp_path):
    return train(None, WORLD | {"train.steps": 256}, out=tmp_path / "teacher")


def test_a_run_teaches_and_is_not_needed_any_more(teacher, tmp_path):
    given = STUDENT | {"algorithm.teacher": str(teacher.path)}

    run = train(None, given, out=tmp_path / "run")
    shutil.rmtree(teacher.path)
    run = train(None, {"train.steps": 160}, resume=run.path)

    assert [row["phase"] for row in run.metrics_rows()] == ["student"] * 10
    assert "camera" in run.read_policy("last")[0]["plan"]["images"]


@pytest.mark.parametrize(
    ("changed", "brings"),
    [
        ({}, False),
        ({"algorithm.finetune": 64}, True),
        ({"algorithm.finetune": 64, "reward.off_track_fine": 3}, False),
        ({"algorithm.finetune": 64, "observation.critic": ["state", "odometry"]}, False),
    ],
)
def test_a_run_that_teaches_brings_its_critic_if_it_can_judge(teacher, tmp_path, changed, brings):
    gamma = teacher.read_state("best")[0]["learner"]["gamma"]
    given = STUDENT | {"algorithm.teacher": str(teacher.path), "algorithm.practice.gamma": gamma}

    run = train(None, given | changed | {"train.steps": 16}, out=tmp_path / "run")

    name = "critic.hidden0.weight"
    got = run.read_state("last")[1][f"learner.practice.{name}"]
    brought = np.array_equal(got, teacher.read_state("best")[1][f"learner.{name}"])
    assert brought == brings


def test_a_teacher_of_other_actions_is_refused(teacher, tmp_path):
    given = STUDENT | {"algorithm.teacher": str(teacher.path), "actions.speed_high": 3.0}

    with pytest.raises(ConfigError, match="was trained with another actions"):
        train(None, given, out=tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such directory"):
        train(None, STUDENT | {"algorithm.teacher": str(tmp_path / "nobody")}, out=tmp_path / "run")


def test_nothing_is_drawn_while_the_teacher_learns(monkeypatch, tmp_path):
    drawn, render = [], Camera.render

    def counted(self, x, *rest, **named):
        drawn.append(len(x))
        return render(self, x, *rest, **named)

    monkeypatch.setattr(Camera, "render", counted)

    train(None, STUDENT | {"train.steps": 4 * 128}, out=tmp_path / "run")

    # 8 cars as the world begins; the others are of the evaluation at the end, which has 1 and then,
    # were it to finish, 2 of them
    assert drawn.count(8) == 1
    assert set(drawn) <= {8, 2, 1, 0}


@pytest.mark.parametrize("closed", [0.0, 0.1])
def test_the_road_is_whole_again_for_the_student_but_for_what_the_rules_close(
    closed, monkeypatch, tmp_path
):
    margins, collect = [], Runner.collect

    def watched(self, policy, *how):
        margins.append((policy.phase.name, self.env.margin))
        return collect(self, policy, *how)

    monkeypatch.setattr(Runner, "collect", watched)

    settings = {"algorithm.patience": 128, "algorithm.margin": 0.35, "rules.margin": closed}
    train(None, STUDENT | settings | {"train.steps": 256}, out=tmp_path / "run")

    assert set(margins) == {("teacher", 0.35), ("student", closed)}


def test_the_phase_is_said_when_it_changes(capfd, tmp_path):
    settings = {"algorithm.patience": 128, "train.steps": 256}

    train(None, STUDENT | settings, out=tmp_path / "run", plain=True, quiet=False)

    said = [line for line in capfd.readouterr().err.splitlines() if "phase:" in line]
    assert ["teacher" in said[0], "student" in said[1], len(said)] == [True, True, 2]
