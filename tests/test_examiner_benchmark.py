"""The examiner that benchmarks/examiner.py measures decides as the loop does."""

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from drivers import follower
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.config import resolve
from hotlap.plan import TrainConfig
from hotlap.trials import Trials

FILE = Path(__file__).parents[1] / "benchmarks" / "examiner.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("examiner", FILE)
    found = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "examiner", found)
        spec.loader.exec_module(found)
        yield found


def plain(report):
    return asdict(replace(report, traces=(), episodes=()))


def test_it_answers_what_the_loop_would_have_said(module):
    settings = {"track": "oval", "evaluation.trials": 2, "evaluation.laps": 1}
    config = resolve(TrainConfig, settings)
    trials = Trials(config, config.evaluation, recorded=True)
    examiner = module.Examiner(config, recorded=True)
    drivers = [follower(1.2), follower(1.6), follower(0.9)]  # the second is better, the third not
    best = []

    for steps, (description, arrays) in enumerate(drivers):
        decided = trials.save()
        policy = NumpyPolicy(description, arrays)
        expected = trials.run(policy.act, steps, policy.begin)
        examiner.ask((description, arrays), steps, decided)
        said = examiner.take(wait=True)
        if expected.first_clean:  # it is told at once
            assert plain(said) == plain(expected.report)
            said = examiner.take(wait=True)
        assert said.steps == steps
        assert plain(said.trial.report) == plain(expected.report)
        assert plain(said.trial.again or expected.report) == plain(
            expected.again or expected.report
        )
        assert (said.trial.best, said.trial.first_clean) == (expected.best, expected.first_clean)
        assert resolve_decided(said.decided) == resolve_decided(trials.save())
        for one, other in zip(said.trial.report.episodes, expected.report.episodes, strict=True):
            np.testing.assert_array_equal(one.rows[:, :-1], other.rows[:, :-1])
        best.append(said.trial.best)
    examiner.close()

    assert best == [True, True, False]
    assert examiner._process.returncode == 0


def resolve_decided(decided):
    return tuple(decided["best"]), decided["clean"]


def test_a_process_that_ends_is_said(module):
    config = resolve(TrainConfig, {"track": "oval"})
    examiner = module.Examiner(config)
    examiner._process.kill()

    with pytest.raises(module.RunError, match="has ended"):
        examiner.take(wait=True)
    examiner.close()
