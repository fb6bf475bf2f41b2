"""What is wrong with a sweep is said before anything begins, all at once."""

import pytest

from hotlap.distributed import sweep as verbs
from hotlap.distributed.axes import Choices
from hotlap.distributed.sweep import outline, sweep
from hotlap.distributed.sweep_folder import Search, Sweep
from hotlap.errors import ConfigError, MissingExtraError, RunError

RATES = "algorithm.learning_rate=1e-3,3e-4"


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch):
    monkeypatch.setattr(verbs, "compile_for", lambda config: None)


def plan(*words, **how):
    return outline(None, ["track=oval", *words], **how)


def test_a_grid_has_every_combination():
    found = plan(RATES, "seed=0..2")

    assert (found.search.search, found.count) == ("grid", 6)
    assert found.search.axes[1] == Choices("seed", (0, 1, 2))
    assert "6 trials" in " ".join(found.notes)


def test_a_range_of_numbers_is_drawn_from():
    found = plan("algorithm.learning_rate=1e-4..1e-2:log")

    assert (found.search.search, found.count) == ("random", 10)
    assert plan(RATES, trials=3).search.search == "random"


def test_a_member_of_a_population_writes_its_checkpoints_in_time():
    # An exchange after every fifth of 40 s, four checkpoints in it: 40 / 5 / 4 = 2 s.
    found = plan(RATES, "train.seconds=40", "seed=0..1", scheduler="pbt")

    assert found.config.train.checkpoint_seconds == 2
    assert plan(RATES, "train.seconds=40").config.train.checkpoint_seconds == 20


def test_settings_of_one_algorithm_do_not_reach_another():
    found = plan("algorithm=ppo,sac", "seed=0,1")

    assert found.count == 4


def test_laps_of_different_tracks_are_told_to_be_different():
    said = " ".join(outline(None, ["track=oval,reinvent_like"]).notes)
    assert "completion compares them fairly" in said
    said = " ".join(outline(None, ["track=oval,reinvent_like"], metric="completion").notes)
    assert "fairly" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algorithm.learningrate=1,2"], "did you mean learning_rate"),
        (["trian.seconds=1,2"], "trian: unknown setting|did you mean train"),
        (["algorithm.clip=0.1,1.5"], r"algorithm\.clip: .*less than 1 \(got 1\.5\)"),
        (["algorithm.clip=0.1..1.5"], r"algorithm\.clip: .*less than 1 \(got 1\.5\)"),
        (["reward=nowhere.py,progress"], r"nowhere\.py"),
        (["algorithm=ppo,sack"], r'algorithm\.kind: choose from .*\(got "sack"\)'),
        ([], "nothing to sweep: each setting has one value"),
        (["seed=1"], "nothing to sweep"),
        (["seed=1,2", "distributed.workers=2"], "a trial of a sweep trains in one process"),
        (["seed=1,2", "train.seconds=0"], "without a budget no trial ever ends"),
        (["seed=0..99", "train.cars=1..99"], "9,900 trials: a sweep has 1000 at most"),
    ],
)
def test_a_wrong_setting_is_named(words, said):
    with pytest.raises(ConfigError, match=said):
        plan(*words)


def test_a_track_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="ovall"):
        outline(None, ["track=ovall,hard"])


def test_all_wrong_values_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        plan("algorithm.clip=0.1,1.5", "algorithm.learning_rate=1e-3,-1", "reward=lost.py,progress")

    said = str(caught.value)
    assert all(word in said for word in ("algorithm.clip", "algorithm.learning_rate", "lost.py"))
    assert len(said.splitlines()) == len(set(said.splitlines())) == 3


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"search": "greed"}, "--search: choose from grid, random, optuna"),
        ({"scheduler": "pbd"}, "--scheduler: choose from none, asha, pbt"),
        ({"search": "grid", "trials": 3}, "--trials: a grid tries each combination once"),
        ({"part": 0.2}, "--part: is of a scheduler"),
        ({"scheduler": "asha", "part": 1.5}, "--part: a share of the budget"),
        ({"scheduler": "pbt", "search": "optuna"}, "--scheduler pbt changes the settings itself"),
        ({"scheduler": "pbt", "trials": 1}, "1 trial is no population"),
        ({"metric": "scores"}, "--metric scores: did you mean score"),
    ],
)
def test_a_wrong_option_is_named(how, said):
    with pytest.raises(ConfigError, match=said):
        plan(RATES, **how)


def test_a_scheduler_needs_one_budget_for_all():
    with pytest.raises(ConfigError, match=r"train\.seconds: asha compares trials"):
        plan("train.seconds=5,9", scheduler="asha")


def test_without_ray_or_optuna_the_install_line_is_said(monkeypatch, tmp_path):
    there = verbs.find_spec
    monkeypatch.setattr(
        verbs, "find_spec", lambda name: None if name in ("ray", "optuna") else there(name)
    )

    with pytest.raises(MissingExtraError, match=r"ray, .*pip install 'hotlap\[distributed\]'"):
        verbs.sweep(None, ["track=oval", RATES], out=tmp_path / "s")
    with pytest.raises(MissingExtraError, match=r"optuna, .*pip install"):
        plan(RATES, search="optuna")
    assert not (tmp_path / "s").exists()


def test_a_sweep_that_is_done_or_moved_is_not_resumed(tmp_path):
    search = Search((Choices("seed", (1,)),), trials=1)
    made = Sweep.create(tmp_path / "s", "", search, {})
    made.write_book({"trial0": {"key": "a", "state": "done"}})

    with pytest.raises(RunError, match="all 1 trials came to their end"):
        sweep(resume=tmp_path / "s")
    made.path.rename(tmp_path / "t")
    with pytest.raises(RunError, match=r"t was .*/s when it was made; put it back"):
        sweep(resume=tmp_path / "t")
