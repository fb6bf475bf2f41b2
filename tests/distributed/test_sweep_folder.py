"""What a sweep's folder says: its axes, its trials, and which of them was the best."""

import csv
import json

import pytest

from hotlap.distributed.axes import Choices, Range
from hotlap.distributed.sweep_folder import Facts, Generation, Search, Sweep, Trial, mode_of
from hotlap.errors import ConfigError, RunError
from hotlap.runs import Run

AXES = (Choices("track", ("oval", "oval,hard")), Range("algorithm.learning_rate", 1e-4, 1e-2, True))


@pytest.fixture
def sweep(tmp_path):
    search = Search(AXES, search="random", trials=3, metric="best_lap_s", mode="min", part=0.25)
    return Sweep.create(tmp_path / "s", "seed = 0\n", search, {"train.seconds": 5}, "/runs/a")


def add(sweep, name, rate, report=None, state="done", **more):
    """Let a trial have come to something."""
    book = sweep.book()
    sweep.write_book(book | {name: {"key": name, "state": state}})
    values = {"track": "oval,hard", "algorithm.learning_rate": rate}
    sweep.write_trial(Trial(name, (Generation(name, values),), **more))
    with Run.create(sweep.path / name, "seed = 0\n", {}) as run:
        run.log_metrics({"iteration": 1, "steps": 50, "seconds": 2.5, "reward": 7.0})
        if report:
            run.log_event("evaluation", steps=50, best=True, **report)


def test_a_sweep_is_read_back_as_it_was_made(sweep):
    again = Sweep.open(sweep.path)

    assert again == sweep
    assert (again.limits["seconds"], again.limits["steps"]) == (5.0, 0.0)


def test_what_is_no_sweep_is_refused(tmp_path, sweep):
    (tmp_path / "other").mkdir()

    with pytest.raises(RunError, match=r"other is no sweep: it has no sweep\.toml"):
        Sweep.open(tmp_path / "other")
    with pytest.raises(RunError, match="not empty: choose another directory with --out"):
        Sweep.create(sweep.path, "", sweep.search, {})
    (sweep.path / "sweep.toml").write_text("format = 1\n")
    with pytest.raises(RunError, match=r"sweep\.toml is damaged"):
        Sweep.open(sweep.path)


def test_the_best_comes_first_and_who_has_no_value_last(sweep):
    slow = {"completion": 1.0, "progress": 1.0, "best_lap_s": 6.0, "mean_lap_s": 6.5}
    add(sweep, "trial0", 1e-3, slow)
    add(sweep, "trial1", 2e-3)
    add(sweep, "trial2", 3e-3, slow | {"best_lap_s": 5.0})

    found = sweep.write_results()

    assert [row["trial"] for row in found["trials"]] == ["trial2", "trial0", "trial1"]
    assert found["run"] == str(sweep.path / "trial2")
    assert [row["value"] for row in found["trials"]] == [5.0, 6.0, None]
    assert json.loads((sweep.path / "results.json").read_text()) == found
    table = list(csv.DictReader((sweep.path / "results.csv").read_text().splitlines()))
    assert [row["algorithm.learning_rate"] for row in table] == ["0.003", "0.001", "0.002"]
    assert table[0]["track"] == "oval,hard"
    assert table[2]["best_lap_s"] == ""


def test_failures_and_lineage_are_in_the_results(sweep):
    add(sweep, "trial0", 1e-3, state="failed", failures=("the disk is full", "it is full"))
    trial = sweep.trial("trial0")
    sweep.write_trial(trial.taking({"x": 1}, HANDED))

    (row,) = sweep.results()["trials"]

    assert row["failures"] == ["the disk is full", "it is full"]
    assert row["lineage"] == ["trial1"]


HANDED = {
    "trial": "trial1",
    "run": "trial1",
    "steps": 900,
    "before": 0.4,
    "snapshot": "lineage/trial1-after-900",
}


def test_a_trial_goes_on_with_its_run_while_nothing_changes():
    trial = Trial("trial0").taking({"x": 1}, {})

    own = {**HANDED, "trial": "trial0"}
    assert trial.generations == (Generation("trial0", {"x": 1}),)
    assert trial.taking({"x": 1}, {}) is trial
    assert trial.taking({"x": 1}, own) is trial


def test_the_driver_of_another_makes_a_second_run_once():
    trial = Trial("trial0").taking({"x": 1}, {})

    second = trial.taking({"x": 2}, HANDED)

    assert second.generations[1] == Generation(
        "trial0-2", {"x": 2}, 0.4, "trial1", 900, "lineage/trial1-after-900"
    )
    assert second.taking({"x": 2}, HANDED) is second  # its process was started anew
    third = second.taking({"x": 2}, {**HANDED, "snapshot": "lineage/trial1-after-1200"})
    assert third.generations[2].run == "trial0-3"


def test_other_settings_without_a_driver_begin_from_nothing():
    trial = Trial("trial0").taking({"x": 1}, {}).taking({"x": 2}, {})

    assert trial.generations[1] == Generation("trial0-2", {"x": 2})


def test_score_ranks_completion_before_lap_times():
    def score(completion, progress, lap=None):
        facts = Facts()
        facts.report({"completion": completion, "progress": progress, "mean_lap_s": lap})
        return facts.value("score")

    # 2 of 5 trials finished, and on the mean 0.7 of the way: (0.4 + 0.7) / 2
    assert score(0.4, 0.7, 8.0) == pytest.approx(0.55)
    assert score(1.0, 1.0, 8.0) == pytest.approx(1.125)  # 1 + 1/8
    assert score(0, 0.1) < score(0, 0.9) < score(0.8, 0.9, 3.0) < score(1, 1, 9.0) < score(1, 1, 8)


def test_the_cars_on_the_road_tell_of_a_driver_that_was_not_tried_lately():
    facts = Facts()
    assert facts.value("score") is None
    facts.log({"completion": 0.3})
    assert facts.value("score") == 0.15
    facts.note({"kind": "evaluation", "best": True, "completion": 0.4, "progress": 0.6})
    assert facts.value("score") == 0.5
    facts.report({"completion": 0.0, "progress": 0.1})
    assert facts.value("score") == 0.05  # at the end the last word is the evaluation's


def test_evaluations_go_before_what_was_logged_while_training():
    facts = Facts()
    facts.log({"completion": 0.3, "reward": 5.0, "lap_time": None})
    facts.note({"kind": "clean_laps", "seconds": 6.5})
    facts.note({"kind": "evaluation", "best": True, "completion": 0.8, "progress": 0.9})
    facts.note({"kind": "evaluation", "best": False, "completion": 0.2, "progress": 0.9})

    assert facts.value("completion") == 0.8
    assert facts.value("reward") == 5.0
    assert facts.value("first_clean_s") == 6.5
    assert facts.value("lap_time") is None


def test_the_nearest_limit_tells_what_is_spent():
    facts = Facts()
    facts.log({"seconds": 3.0, "steps": 800})

    assert facts.spent({"seconds": 10.0, "steps": 1000.0, "episodes": 0.0}) == 0.8
    assert facts.spent({"seconds": 2.0, "steps": 0.0, "episodes": 0.0}) == 1.0


def test_a_metric_has_its_better_end_or_it_must_be_said():
    assert mode_of("best_lap_s", None) == "min"
    assert mode_of("score", None) == "max"
    assert mode_of("entropy", "min") == "min"
    with pytest.raises(ConfigError, match=r"--metric best_laps: did you mean best_lap"):
        mode_of("best_laps", None)
    with pytest.raises(ConfigError, match=r"--metric entropy: say with --mode min or --mode max"):
        mode_of("entropy", None)
    with pytest.raises(ConfigError, match=r"--mode: choose from min, max \(got up\)"):
        mode_of("score", "up")
