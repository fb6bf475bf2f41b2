"""The real deepracer-utils reads our folders as its own; `make foreign` installs it."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from drivers import LOGGED
from foreign import python_of
from hotlap.evaluate import evaluate
from hotlap.penalties import PenaltySettings
from hotlap.racing.race import race
from hotlap.simtrace import write_evaluation, write_race

module = importlib.import_module("hotlap.train")

READ = """
import json, os, sys
os.environ["MPLBACKEND"] = "agg"
from deepracer.logs import AnalysisUtils, DeepRacerLog, LogType, TrainingMetrics

folder, console = sys.argv[1:]
log = DeepRacerLog(folder)
log.load()
df = log.dataframe()
stability = log.stability.analyze()
found = {
    "type": log.fh.type.name,
    "columns": list(df.columns),
    "rows": len(df),
    "episodes": int(df["unique_episode"].nunique()),
    "workers": sorted(df["worker"].unique().tolist()),
    "missing": int(df.drop(columns="action").isna().sum().sum()),
    "actions": sorted(df["action"].unique().tolist()),
    "step_ms": float(stability["avg_ms"].mean()),
    "iterations": int(df["iteration"].nunique()),
    "timed": len(stability),
    "hyperparameters": log.hyperparameters(),
    "action_space": log.action_space(),
    "network": log.agent_and_network(),
}
agg = AnalysisUtils.simulation_agg(df, secondgroup="unique_episode")
found["agg"] = agg[["steps", "time", "progress", "reward", "complete"]].to_dict("list")

log = DeepRacerLog(folder)
log.load_evaluation_trace()
found["evaluation_rows"] = len(log.dataframe())
found["evaluation_columns"] = len(log.dataframe().columns)
found["evaluation_step_ms"] = float(log.stability.analyze()["avg_ms"].mean())
agg = AnalysisUtils.simulation_agg(log.dataframe(), firstgroup="stream", is_eval=True)
found["evaluation"] = agg[["steps", "time", "off_track", "complete"]].to_dict("list")

metrics = TrainingMetrics(None, fname=folder + "/metrics/TrainingMetrics.json", region="none-1")
if os.path.exists(folder + "/metrics/TrainingMetrics_1.json"):
    metrics.addRound("m", fname=folder + "/metrics/TrainingMetrics_1.json", training_round=1,
                     worker=1)
training = metrics.getTraining()
found["metrics"] = training[["iteration", "episode", "reward", "time", "worker"]].to_dict("list")
found["metrics_evaluations"] = len(metrics.getEvaluation())
found["summary"] = len(metrics.getSummary())

log = DeepRacerLog(console)
log.load_robomaker_logs(LogType.TRAINING)
found["console_rows"] = len(log.dataframe())
found["console_world"] = log.agent_and_network()
print("FOUND" + json.dumps(found, default=float))
"""

READ_RACE = """
import json, sys
from deepracer.logs import AnalysisUtils, DeepRacerLog, LogType

folder, console = sys.argv[1:]
log = DeepRacerLog(folder)
log.load_evaluation_trace()
df = log.dataframe()
columns = len(df.columns)
agg = AnalysisUtils.simulation_agg(df, firstgroup="stream", is_eval=True)
found = {
    "rows": len(df),
    "columns": columns,
    "missing": int(df.drop(columns="action").isna().sum().sum()),
    "step_ms": float(log.stability.analyze()["avg_ms"].mean()),
    "streams": int(df["stream"].nunique()),
    "agg": agg[["steps", "time", "crashed", "off_track", "complete"]].to_dict("list"),
}
log = DeepRacerLog(console)
log.load_robomaker_logs(LogType.EVALUATION)
found["lines"] = len(log.dataframe())
print("FOUND" + json.dumps(found, default=float))
"""

SETTINGS = LOGGED | {"evaluation.every": 10, "log.deepracer": True}


@pytest.fixture(scope="module", params=["oval", "oval,reinvent_like"])
def read(request, tmp_path_factory):
    """Return a Run, the report of its evaluation, and what deepracer-utils found in its folder."""
    python = python_of("deepracer-utils")
    place = tmp_path_factory.mktemp("read")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_outcome", lambda run: {})
        run = module.train(None, SETTINGS | {"track": request.param}, out=place / "run")
    penalties = PenaltySettings(resets=2, off_track=1.0)
    report = evaluate(run, track="oval", trials=3, laps=2, penalties=penalties, recorded=True)
    assert write_evaluation(run, report)
    folder, console = run.path / "deepracer", place / "console"
    # the console's archive has the same files in other folders
    traces = next(folder.rglob("training-simtrace"))
    shutil.copytree(traces, console / "sim-trace" / "training" / "training-simtrace")
    shutil.copytree(folder / "logs", console / "logs")
    code = [python, "-c", READ, folder, console]
    said = subprocess.run(code, capture_output=True, text=True, check=False, timeout=120)
    assert said.returncode == 0, said.stderr
    return run, report, json.loads(said.stdout.partition("FOUND")[2])


def lines_of(folder: Path, pattern: str) -> int:
    return sum(len(p.read_text().splitlines()) - 1 for p in folder.glob(pattern))


def test_the_training_has_all_rows_and_columns(read):
    run, _, found = read
    folder = run.path / "deepracer"

    several = found["type"] == "DRFC_MODEL_MULTIPLE_WORKERS"

    pattern = "?/training-simtrace/*.csv" if several else "training-simtrace/*.csv"
    assert several == ("," in "".join(run.config_toml.split("vehicle")[0]))
    assert found["type"].startswith("DRFC_MODEL_")
    assert found["rows"] == lines_of(folder, pattern) > 500
    assert len(found["columns"]) == 21
    assert found["missing"] == 0
    assert found["actions"] == [0, 1, 2]
    assert found["workers"] == ([0, 1] if several else [0])


def test_every_episode_is_told_apart(read):
    run, _, found = read
    folder = run.path / "deepracer"

    episodes = sum(
        line.startswith("Training>")
        for log in folder.glob("logs/training/*.log")
        for line in log.read_text().splitlines()
    )

    assert found["episodes"] == episodes
    # a row is one step at 15 Hz, and the first one is where the car is put down
    times, steps = found["agg"]["time"], found["agg"]["steps"]
    assert len(times) == episodes
    assert times == pytest.approx([(n - 1) / 15 for n in steps], abs=1e-4)


def test_steps_take_a_fifteenth_of_a_second(read):
    run, _, found = read
    files = list((run.path / "deepracer").rglob("training-simtrace/*.csv"))

    assert found["step_ms"] == pytest.approx(1000 / 15, abs=0.01)
    assert found["evaluation_step_ms"] == pytest.approx(1000 / 15, abs=0.01)
    assert found["timed"] == len(files) >= found["iterations"]


def test_the_evaluation_is_read_lap_by_lap(read):
    _, report, found = read

    assert found["evaluation_columns"] == 21  # the stream in place of unique_episode
    assert found["evaluation_rows"] == sum(len(one.rows) for one in report.episodes)
    assert sum(found["evaluation"]["complete"]) == report.laps_completed
    assert sum(found["evaluation"]["off_track"]) == report.off_tracks


def test_metrics_are_read_by_worker_and_iteration(read):
    run, _, found = read

    metrics = found["metrics"]

    assert len(metrics["episode"]) == found["episodes"]
    share = {0: 5} if len(found["workers"]) == 1 else {0: 3}
    expected = [(episode - 1) // share[0] for episode, worker in
                zip(metrics["episode"], metrics["worker"], strict=True) if worker == 0]  # fmt: skip
    mine = [it for it, worker in zip(metrics["iteration"], metrics["worker"], strict=True)
            if worker == 0]  # fmt: skip
    assert mine == expected
    tried = sum(event["trials"] for event in run.events() if event["kind"] == "evaluation")
    assert found["metrics_evaluations"] == tried
    assert found["summary"] > 0


def test_what_was_trained_is_read(read):
    _, _, found = read

    assert found["action_space"][0] == {"steering_angle": -30.0, "speed": 1.0, "index": 0}
    assert found["hyperparameters"]["num_episodes_between_training"] == 5
    assert found["network"]["sensor_list"] == ["state"]


def test_the_log_of_lines_is_read(read):
    _, _, found = read

    assert found["console_rows"] == found["rows"]
    assert found["console_world"]["world"].startswith("oval")
    assert found["console_world"]["simapp_version"] == "5.0"


def test_a_race_of_models_is_read(tmp_path):
    python = python_of("deepracer-utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_outcome", lambda run: {})
        run = module.train(None, SETTINGS | {"track": "oval"}, out=tmp_path / "run")
    folder, console = run.path / "deepracer", tmp_path / "console"
    penalties = PenaltySettings(resets=3, off_track=1.0)
    found = race([run, run], laps=2, trials=2, penalties=penalties)
    assert len(write_race([run, run], found)) == 6
    shutil.copytree(folder / "logs", console / "logs")
    shutil.copytree(folder / "training-simtrace", console / "sim-trace/training/training-simtrace")

    code = [python, "-c", READ_RACE, folder, console]
    said = subprocess.run(code, capture_output=True, text=True, check=False, timeout=120)

    assert said.returncode == 0, said.stderr
    read = json.loads(said.stdout.partition("FOUND")[2])
    every = [one.rows for episodes in found.episodes for one in episodes]
    assert read["rows"] == read["lines"] == sum(map(len, every))
    assert (read["columns"], read["missing"], read["streams"]) == (21, 0, 2)
    assert read["step_ms"] == pytest.approx(1000 / 15, abs=0.01)
    agg = read["agg"]
    assert sorted(agg["steps"]) == sorted(map(len, every))
    assert sorted(agg["time"]) == pytest.approx(sorted((len(r) - 1) / 15 for r in every), abs=1e-4)
    assert sum(agg["complete"]) == sum(racer.laps_completed for racer in found.racers)
    assert sum(agg["off_track"]) == sum(racer.off_tracks for racer in found.racers)
    assert sum(agg["crashed"]) == sum(racer.ran_into for racer in found.racers)
