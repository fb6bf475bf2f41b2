"""Several seeds: which they are, where they lie, and what they say together."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import trim_mean

from drivers import saved
from hotlap.errors import ConfigError, RunError
from hotlap.population import Population, Result, read_seeds, spread
from hotlap.runs import Run, list_runs


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", (7, 8, 9)),
        (3, (7, 8, 9)),
        ("0,3,7", (0, 3, 7)),
        ("5,", None),
        ("3-6", (3, 4, 5, 6)),
        ("1,4-6", (1, 4, 5, 6)),
        ([4, 2], (4, 2)),
        ("0", None),
        ("-3", None),
        ("6-3", None),
        ("1,1", None),
        ("many", None),
        ("1001", None),
        ("0-99999999", None),
        ([], None),
        ([-1], None),
    ],
)
def test_seeds_are_a_number_a_list_or_a_range(text, seeds):
    if seeds is None:
        with pytest.raises(ConfigError, match="seeds: "):
            read_seeds(text, 7)
    else:
        assert read_seeds(text, 7) == seeds


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 12])
def test_the_middle_half_is_that_of_scipy(count):
    values = np.random.default_rng(count).normal(5, 2, count).tolist()

    found = spread(values)

    assert found.iqm == pytest.approx(trim_mean(values, 0.25))  # as Agarwal et al. compute it
    assert found.median == pytest.approx(np.median(values))
    assert (found.low, found.high) == (min(values), max(values))


def test_the_interval_is_that_of_the_mean_of_normal_values():
    # Of a mean of 400 values the interval is +-1.96 sd / sqrt(400); the middle half is a little
    # wider: for normal values its variance is 1.19 that of the mean (Huber 1981, trimmed 25 %).
    values = np.random.default_rng(0).normal(10, 1, 400)

    low, high = spread(values.tolist()).interval

    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1.19 / 400), rel=0.15)
    assert low < 10 < high


def test_a_seed_that_never_laps_is_not_left_out():
    found = spread([4.0, None, 5.0, 6.0])

    assert (found.low, found.median, found.high) == (4.0, 5.5, math.inf)
    assert found.iqm == 5.5  # of 5 and 6
    assert found.interval[1] == math.inf
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.as_dict()["high"] is None


def report(completion, mean_lap):
    return {"completion": completion, "mean_lap_s": mean_lap, "best_lap_s": mean_lap}


@pytest.fixture
def population(tmp_path):
    """Make three seeds: one that is quick and crashes, one clean, and one clean and quicker."""
    made = Population.create(tmp_path / "pop", "seed = 3\n", (3, 4, 5))
    for seed, facts in ((3, (0.8, 4.0)), (4, (1.0, 5.0)), (5, (1.0, 4.5))):
        with Run.open(saved(made.place(seed), 2.0)) as run:
            run.log_event("clean_laps", seconds=10.0 + seed, steps=9, laps=3)
            run.log_event("clean_laps", seconds=1.0, steps=9, laps=3)
            run.write_report(report(*facts))
    return made


def test_it_is_read_back_with_its_results(population):
    found = Population.open(population.path)

    assert found == population
    assert [result.seed for result in found.results()] == [3, 4, 5]
    assert [result.first_clean_s for result in found.results()] == [13.0, 14.0, 15.0]
    assert found.spreads()["mean_lap_s"].median == 4.5
    assert found.best().seed == 5  # the quicker of the two that always finish
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert facts["run"] == str(population.place(5))


def test_a_failed_seed_is_in_no_figure(population):
    found = replace(population, failures={3: "the disk is full"})

    assert found.spreads()["completion"].low == 1.0
    assert found.as_dict()["failures"] == {"3": "the disk is full"}


def test_before_the_report_the_best_evaluation_counts(tmp_path):
    made = Population.create(tmp_path / "pop", "", (0, 1))
    with Run.open(saved(made.place(0), 2.0)) as run:
        run.log_event("evaluation", best=True, **report(0.5, 7.0))
        run.log_event("evaluation", best=False, **report(0.2, 6.0))

    (found,) = made.results()

    assert (found.completion, found.mean_lap_s, found.done) == (0.5, 7.0, False)
    assert made.best() == found


def test_without_an_evaluation_there_is_nothing_to_say(tmp_path):
    made = Population.create(tmp_path / "pop", "", (0, 1))
    saved(made.place(0), 2.0)

    assert (made.best(), made.spreads(), made.as_dict()["run"]) == (None, {}, None)
    assert made.results() == [Result(0, made.place(0), 1, None, None, None, None, False)]


def test_its_runs_are_listed_and_it_is_no_run_itself(population):
    assert {run.name for run in list_runs(population.path.parent)} == {"seed3", "seed4", "seed5"}
    with pytest.raises(RunError, match=r"a population of Runs: name one of them, such as .*seed"):
        Run.open(population.path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "seeds": ["a"]}'])
def test_a_damaged_one_is_a_sentence(content, tmp_path):
    (tmp_path / "population.json").write_text(content)

    with pytest.raises(RunError, match="is damaged"):
        Population.open(tmp_path)


def test_nothing_is_written_over(tmp_path, population):
    with pytest.raises(RunError, match=r"not empty: choose another directory with --out"):
        Population.create(population.path, "", (0,))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"is a file"):
        Population.create(tmp_path / "file", "", (0,))
    with pytest.raises(RunError, match="is no population"):
        Population.open(tmp_path)
