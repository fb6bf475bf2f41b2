"""A Run's DeepRacer logs: complete, in equal iterations, and the same after a kill."""

import csv
import importlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from drivers import LOGGED, saved
from hotlap.config import resolve
from hotlap.deepracer.logs import COLUMNS
from hotlap.errors import ConfigError, RunError
from hotlap.evaluate import evaluate
from hotlap.kernels import parts_of
from hotlap.penalties import PenaltySettings
from hotlap.plan import TrainConfig
from hotlap.racing.race import race
from hotlap.runs import Run
from hotlap.simtrace import write_evaluation, write_race

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
train = module.train

TINY = LOGGED | {"track": "oval", "evaluation.every": 20, "log.cars": 3}
REWARD = "def reward_function(params):\n    return params['progress'] / params['steps']\n"


@pytest.fixture(autouse=True, scope="module")
def _no_outcome():
    """Leave plots and film away: they are tested where they are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_outcome", lambda run: {})
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("reward") / "reward.py"
    file.write_text(REWARD)
    return TINY | {"reward": str(file)}


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """Return a training that only reads may touch."""
    return train(None, settings, out=tmp_path_factory.mktemp("run") / "run")


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert tuple(rows[0]) == COLUMNS
    return rows


def traces(run: Run, below: str = "") -> dict[int, list[dict[str, str]]]:
    folder = run.path / "deepracer" / below / "training-simtrace"
    found = {int(p.name.partition("-")[0]): table(p) for p in folder.glob("*-iteration.csv")}
    return dict(sorted(found.items()))


def metrics(run: Run, suffix: str = "") -> list[dict]:
    file = run.path / "deepracer" / "metrics" / f"TrainingMetrics{suffix}.json"
    return json.loads(file.read_text())["metrics"]


def unclocked(run: Run) -> dict[str, str]:
    """Return the log files without the clock on the wall and what updates said."""
    found = {}
    for path in (run.path / "deepracer").rglob("*"):
        if path.suffix == ".csv":
            lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
            found[str(path.relative_to(run.path))] = "\n".join(lines)
        elif path.suffix == ".log":
            lines = path.read_text().splitlines()
            kept = [line.rpartition(",")[0] for line in lines if "SIM_TRACE_LOG" in line]
            found["log"] = "\n".join(kept)
    return found


def test_a_folder_training_writes_them_and_another_only_if_asked(settings, tmp_path):
    few = {"train.steps": 64}
    default = train(None, settings | few, out=tmp_path / "default")
    refused = train(None, settings | few | {"log.deepracer": False}, out=tmp_path / "refused")
    plain = {k: v for k, v in settings.items() if k != "reward"} | few
    other = train(None, plain, out=tmp_path / "other")
    asked = train(None, plain | {"log.deepracer": True}, out=tmp_path / "asked")

    there = {run.name: (run.path / "deepracer").is_dir() for run in
             (default, refused, other, asked)}  # fmt: skip
    assert there == {"default": True, "refused": False, "other": False, "asked": True}


def test_iterations_hold_equally_many_whole_episodes(run):

    files = traces(run)

    assert len(files) >= 3
    assert list(files) == list(range(len(files)))
    for iteration, rows in files.items():
        numbers = list(dict.fromkeys(int(row["episode"]) for row in rows))
        expected = list(range(5 * iteration, 5 * iteration + 5))
        assert numbers == expected[: len(numbers)]
        assert len(numbers) == 5 or iteration == len(files) - 1
        for number in numbers:
            mine = [row for row in rows if int(row["episode"]) == number]
            assert mine[0]["episode_status"] == "prepare"
            assert [row["done"] for row in mine] == ["False"] * (len(mine) - 1) + ["True"]


def test_metrics_say_what_the_traces_say(run):
    rows = [row for file in traces(run).values() for row in file]

    entries = [entry for entry in metrics(run) if entry["phase"] == "training"]

    rewards: Counter = Counter()
    for row in rows:
        rewards[int(row["episode"])] += float(row["reward"])
    assert [entry["episode"] for entry in entries] == [number + 1 for number in rewards]
    assert [entry["trial"] for entry in entries] == [number % 5 + 1 for number in rewards]
    for entry, (number, reward) in zip(entries, rewards.items(), strict=True):
        assert abs(entry["reward_score"] - reward) <= 0.501, number
        steps = sum(int(row["episode"]) == number for row in rows)
        milliseconds = (steps - 1) * 1000 / 15  # of simulation, at 15 Hz
        assert abs(entry["elapsed_time_in_milliseconds"] - milliseconds) <= 1


def test_evaluations_while_it_learns_are_in_the_metrics(run):

    entries = [entry for entry in metrics(run) if entry["phase"] == "evaluation"]

    tried = sum(event["trials"] for event in run.events() if event["kind"] == "evaluation")
    assert len(entries) == tried > 0
    assert max(entry["trial"] for entry in metrics(run)) == 5  # readers divide by it


def test_the_lines_are_the_same_episodes(run):
    rows = [row for file in traces(run).values() for row in file]

    (log,) = (run.path / "deepracer" / "logs" / "training").glob("training-*-robomaker.log")

    lines = [line for line in log.read_text().splitlines() if "SIM_TRACE_LOG" in line]
    assert len(lines) == len(rows)
    assert lines[7].startswith(f"SIM_TRACE_LOG:{rows[7]['episode']},8,")
    assert all(line.count(",") == 18 for line in lines)


def test_what_was_trained_is_there_in_their_words(run):
    folder = run.path / "deepracer"

    metadata = json.loads((folder / "model" / "model_metadata.json").read_text())
    hyperparameters = json.loads((folder / "ip" / "hyperparameters.json").read_text())
    checkpoints = json.loads((folder / "model" / "deepracer_checkpoints.json").read_text())

    assert metadata["action_space"][2] == {"steering_angle": 30.0, "speed": 1.0, "index": 2}
    assert hyperparameters["num_episodes_between_training"] == 5
    assert hyperparameters["lr"] == 2e-3
    assert checkpoints["last_checkpoint"]["name"].endswith("_Step-1600.ckpt")
    assert (folder / "reward_function.py").read_text() == REWARD
    assert 'WORLD_NAME: "oval"' in (folder / "training_params.yaml").read_text()


@pytest.mark.parametrize("tracks", ["oval", "oval,reinvent_like"])
def test_a_resumed_training_writes_nothing_twice(settings, tmp_path, tracks):
    settings = settings | {"track": tracks}
    first = train(None, settings | {"train.steps": 832}, out=tmp_path / "halves")
    # a killed writer's: what came after the checkpoint, and half a row
    for folder in (first.path / "deepracer").rglob("training-simtrace"):
        count = len(list(folder.iterdir()))
        with (folder / f"{count - 1}-iteration.csv").open("a") as out:
            out.write("99,1.0,0.5,0.5\n99,2.0,0.3")
        (folder / f"{count}-iteration.csv").write_text("of a past that was lost\n")

    halves = train(None, {"train.steps": 1600}, resume=first.path)
    once = train(None, settings, out=tmp_path / "once")

    ours, whole = unclocked(halves), unclocked(once)
    assert ours.keys() == whole.keys()
    for name, text in whole.items():
        assert ours[name] == text, name
    training = [[e for e in metrics(run) if e["phase"] == "training"] for run in (halves, once)]
    assert training[0] == training[1]


def test_each_track_has_a_worker_of_its_own(settings, tmp_path):
    run = train(None, settings | {"track": "oval,reinvent_like"}, out=tmp_path / "run")

    lengths = [
        {row["track_len"] for file in traces(run, str(worker)).values() for row in file}
        for worker in range(2)
    ]

    assert [len(found) for found in lengths] == [1, 1]
    assert lengths[0] != lengths[1]
    # 5 episodes of an iteration: 3 of the first worker and 2 of the second
    assert {int(row["episode"]) for row in traces(run, "0")[0]} == {0, 1, 2}
    assert {int(row["episode"]) for row in traces(run, "1")[0]} == {0, 1}
    assert len(metrics(run, "_1")) == metrics(run, "_1")[-1]["trial"]


def test_workers_can_be_asked_for(settings, tmp_path):
    few = {"log.workers": 3, "log.cars": 1, "log.lines": False, "train.steps": 800}
    run = train(None, settings | few, out=tmp_path / "run")

    assert not (run.path / "deepracer" / "logs").exists()
    assert all(traces(run, str(worker)) for worker in range(3))
    assert not (run.path / "deepracer" / "training-simtrace").exists()


def test_more_workers_than_readers_know_are_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"log\.workers.*less than or equal to 10"):
        train(None, settings | {"log.workers": 11}, out=tmp_path / "run")


def test_an_evaluation_has_its_folder_and_its_result(run):
    report = evaluate(run, trials=3, laps=1, recorded=True)

    simtrace, result = write_evaluation(run, report)
    again, _ = write_evaluation(run, report)

    assert simtrace.parent.parent != again.parent.parent
    assert len(simtrace.parent.parent.name) == len("evaluation-") + 14
    rows = table(simtrace)
    assert {int(row["episode"]) for row in rows} == {0, 1, 2}
    entries = json.loads(result.read_text())["metrics"]
    assert [entry["trial"] for entry in entries] == [1, 2, 3]
    assert sum(entry["off_track_count"] for entry in entries) == report.off_tracks
    steps = [len(trace["t"]) for trace in report.traces]  # with its start, as prepare
    np.testing.assert_allclose([e["elapsed_time_in_milliseconds"] for e in entries],
                               [(n - 1) * 1000 / 15 for n in steps], atol=1)  # fmt: skip


def test_a_race_is_in_the_folder_of_each_driver(run, tmp_path):
    quiet = saved(tmp_path / "quiet", 1.0)  # a run without such a folder

    found = race([run, run, quiet], laps=1, trials=2, penalties=PenaltySettings(resets=1))
    files = write_race([run, run, Run.open(quiet)], found)

    assert len(files) == 6  # of the two of one run, each its own
    assert all(run.path in file.parents for file in files)
    for racer, (simtrace, result, lines) in zip(
        [one for one in found.racers if one.number < 2], (files[:3], files[3:]), strict=True
    ):
        rows = table(simtrace)
        entries = json.loads(result.read_text())["metrics"]
        assert {int(row["episode"]) for row in rows} == {0, 1}  # a race each
        assert [entry["trial"] for entry in entries] == [1, 2]
        assert sum(entry["off_track_count"] for entry in entries) == racer.off_tracks
        assert sum(entry["crash_count"] for entry in entries) == racer.ran_into
        assert sum(row["episode_status"] == "prepare" for row in rows) == 2
        assert {row["action"] for row in rows} <= {"0", "1", "2"}
        text = lines.read_text()
        assert text.startswith(" * /WORLD_NAME: oval\nSensor list ['state']")
        assert text.count("SIM_TRACE_LOG:") == len(rows)


def test_without_a_folder_or_episodes_nothing_is_written(run, tmp_path):
    report, plain = (evaluate(run, trials=1, laps=1, recorded=how) for how in (True, False))

    assert write_evaluation(Run(tmp_path, {}), report) == ()
    assert write_evaluation(run, plain) == ()


def test_a_folder_that_cannot_be_written_is_one_sentence(settings, tmp_path):
    run = train(None, settings | {"train.steps": 64}, out=tmp_path / "run")
    report = evaluate(run, trials=1, laps=1, recorded=True)
    metrics_folder = run.path / "deepracer" / "metrics" / "evaluation"
    metrics_folder.write_text("in the way")

    with pytest.raises(RunError, match="cannot be written"):
        write_evaluation(run, report)


def test_their_kernels_are_compiled_ahead():
    asked = resolve(TrainConfig, {"log.deepracer": True})

    assert "params" in parts_of(asked)
    assert "params" not in parts_of(resolve(TrainConfig, {}))
