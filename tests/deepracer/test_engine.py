"""The engine: trainings start, are drawn, are evaluated and really end."""

import functools
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hotlap.deepracer
from hotlap.deepracer import DeepRacerEngine, engine
from hotlap.errors import ConfigError, RunError
from hotlap.fleet import Fleet
from hotlap.runs import Run

# Stands for `hotlap train CONFIG --quiet --out RUN`: makes a Run that stays until it is asked.
PLAY = """
import json, os, signal, sys, time
config, run = sys.argv[2], sys.argv[5]
os.makedirs(run)
text = open(config).read()
open(run + "/config.toml", "w").write(text)
with open(run + "/metrics.jsonl", "w") as file:
    for i in range(1, 5):
        row = dict(iteration=i, steps=512 * i, episodes=20 * i, reward=2.0 * i, completion=0.2 * i)
        file.write(json.dumps(row) + "\\n")
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
meta = dict(format=1, threads=os.environ["HOTLAP_THREADS"])
open(run + "/meta.json.tmp", "w").write(json.dumps(meta))
os.rename(run + "/meta.json.tmp", run + "/meta.json")
if "seconds = 1.0" in text:
    sys.exit(0)
if "seconds = 2.0" in text:
    print("hotlap: the disk is full", file=sys.stderr)
    sys.exit(1)
while True:
    time.sleep(0.02)
"""


# deepracer.md 8.1, as they are spelt there
METHODS = [
    "create_hyperparams", "create_actionspace", "configure_environment",
    "start_training_testing_process", "start_model_evaluation", "configure_s3_bucket",
    "create_iam_role", "build_docker_container", "configure_vpc", "create_routing_tables",
    "upload_environments_and_rewards_to_s3", "configure_metrics", "configure_estimator",
    "configure_kinesis_stream", "start_robo_maker", "create_simulation_application",
    "start_simulation_job", "stop_training", "clean_up_simualtion_environmnet",
    "plot_training_output", "start_evaluation_process", "plot_evaluation_output",
    "param_gen_batch_sizes", "param_gen_tracks", "start_multi_model_simulations",
    "start_multi_model_evaluation", "plot_multi_model_runs_output",
    "plot_multi_model_evaluation", "check_if_simulation_active", "delete_all_simulations",
    "delete_s3_simulation_resources",
]  # fmt: skip


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state.toml").write_text('[observation]\nactor = ["state"]\ncritic = ["state"]\n')


@pytest.fixture
def play(monkeypatch):
    """Let a program of ours stand for training, on four cores, with nothing compiled."""
    program = (sys.executable, "-S", "-c", PLAY)
    monkeypatch.setattr(engine, "Fleet", functools.partial(Fleet, program=program))
    monkeypatch.setattr("hotlap.fleet.available", lambda: 4)
    monkeypatch.setattr(engine, "check_reward", lambda config: [])
    monkeypatch.setattr(engine, "is_warm", lambda parts: True)


def make(name="Foo", **params):
    given = {"job_name": name, "track_name": "Oval_track", "racetrack_env": "state.toml"}
    return DeepRacerEngine({**given, **params})


def wait(until):
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_begun(one):
    return (one.run_path / "meta.json").exists()


def pids(*engines):
    children = [e._crew.fleet.children[e.run_path] for e in engines]
    return [child.process.pid for child in children if child.process is not None]


def are_gone(found):
    for pid in found:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return True


def test_the_methods_of_the_framework_are_all_there():
    assert [name for name in METHODS if not callable(getattr(DeepRacerEngine, name, None))] == []
    assert all(getattr(DeepRacerEngine, name).__doc__ for name in METHODS)
    first = list(inspect.signature(DeepRacerEngine.param_gen_batch_sizes).parameters.values())[1:3]
    assert [(p.name, p.default) for p in first] == [("min_batch", 64), ("max_batch", 512)]


def test_importing_the_engine_loads_neither_torch_nor_pandas():
    code = "import sys; from hotlap.deepracer import DeepRacerEngine; " \
        "print({'torch', 'pandas', 'IPython'} & set(sys.modules))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="has no attribute 'Engine'"):
        hotlap.deepracer.Engine  # noqa: B018


def test_one_model_is_started_drawn_stopped_and_leaves_no_process(play):
    one = make()
    assert not one.check_if_simulation_active()

    path = one.start_training_testing_process()
    wait(lambda: has_begun(one))

    assert path == Path("runs/Foo-deepracer-1").resolve()
    assert one.check_if_simulation_active()
    figure = one.plot_training_output(follow=False)
    assert "running" in figure.get_suptitle()
    reward, completion = figure.axes
    assert reward.lines[0].get_xdata().tolist() == [20, 40, 60, 80]
    assert reward.lines[0].get_ydata().tolist() == [2, 4, 6, 8]
    assert completion.lines[0].get_ydata() == pytest.approx([20, 40, 60, 80])
    running = pids(one)
    one.stop_training()
    assert are_gone(running)
    assert one.status == "stopped"
    assert isinstance(one.run, Run)
    with pytest.raises(RunError, match="has been started already"):
        one.start_training_testing_process()


def test_looking_waits_until_the_training_is_done(play):
    one = make(job_duration=1)
    one.start_training_testing_process()

    figure = one.plot_training_output(refresh=0.1)

    assert one.status == "done"
    assert "done" in figure.get_suptitle()


def test_what_ended_a_training_is_said(play, capsys):
    one = make(job_duration=2)
    one.start_training_testing_process()

    one.plot_training_output(refresh=0.1)

    assert one.status == "failed"
    assert "Foo failed: the disk is full" in capsys.readouterr().out


def test_several_batch_sizes_train_side_by_side_and_are_cleaned_up(play):
    one = make(instance_type="ml.m5.large", job_duration=50)
    params = one.param_gen_batch_sizes()
    assert [p["batch_size"] for p in params] == [64, 128, 256, 512]
    assert params[0]["job_name"] == "Foo-batchsize-64"
    assert {p["job_duration"] for p in params} == {50}

    engines = one.start_multi_model_simulations(params)
    wait(lambda: all(map(has_begun, engines.values())))

    sizes = [e.run.config_toml.split("minibatch = ")[1].split("\n")[0] for e in engines.values()]
    assert sizes == ["64", "128", "256", "512"]
    # four cores for four models: one each, although the instance has two
    assert {Run.open(e.run_path).meta["threads"] for e in engines.values()} == {"1"}
    figure = one.plot_multi_model_runs_output(engines, follow=False)
    legend = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == list(engines)
    assert one.check_if_simulation_active()
    running = pids(*engines.values())
    assert len(running) == 4
    one.clean_up_simualtion_environmnet()
    assert are_gone(running)
    assert not one.check_if_simulation_active()
    assert all(has_begun(e) for e in engines.values())  # the Runs stay
    one.delete_s3_simulation_resources()
    assert list(Path("runs").iterdir()) == []


def test_several_tracks_wait_for_their_turn(play, monkeypatch):
    monkeypatch.setattr("hotlap.fleet.available", lambda: 2)
    one = make()

    engines = one.start_multi_model_simulations(one.param_gen_tracks())
    states = [e.status for e in engines.values()]

    assert list(engines) == ["Foo-track-reinvent-base", "Foo-track-Oval-track",
                             "Foo-track-Bowtie-track"]  # fmt: skip
    assert states == ["running", "running", "waiting"]
    assert len({e.config.track for e in engines.values()}) == 3
    engines["Foo-track-Oval-track"].stop_training()
    wait(lambda: engines["Foo-track-Bowtie-track"].status == "running")
    one.delete_all_simulations()


def test_any_parameter_can_be_an_axis():
    found = make().param_gen("discount_factor", [0.9, 0.99], job_name_prefix="gamma", batch_size=32)

    assert [(p["job_name"], p["discount_factor"], p["batch_size"]) for p in found] == [
        ("gamma-discount-factor-0.9", 0.9, 32),
        ("gamma-discount-factor-0.99", 0.99, 32),
    ]
    with pytest.raises(ConfigError, match="discount_factor: must be"):
        make().param_gen("discount_factor", [2])


def test_names_that_are_taken_get_a_number(play):
    first, second = make(job_duration=1), make(job_duration=1)

    places = [one.start_training_testing_process().name for one in (first, second)]

    assert places == ["Foo-deepracer-1", "Foo-deepracer-2"]
    for one in (first, second):
        one.plot_training_output(refresh=0.1)


def test_what_cannot_be_is_said_before_anything_starts(play):
    one = make()

    with pytest.raises(RunError, match="has not been started"):
        one.plot_training_output()
    with pytest.raises(RunError, match="has not been started"):
        one.start_model_evaluation()
    with pytest.raises(ConfigError, match="each with a job_name of its own"):
        one.start_multi_model_simulations([{"job_name": "a"}, {"job_name": "a"}])
    with pytest.raises(ConfigError, match="min_batch: must be"):
        one.param_gen_batch_sizes(128, 64)
    assert not Path("runs").exists()


def test_a_reward_that_is_wrong_is_refused_before_anything_starts(monkeypatch):
    Path("bad.py").write_text("def reward_function(params):\n    return params['sped']\n")
    one = make(reward_policy="bad.py")

    with pytest.raises(Exception, match=r"line 2|:2"):
        one.start_training_testing_process()

    assert one.status == "new"


def test_the_names_and_tables_come_back(play):
    one = make()

    assert one.create_hyperparams()["batch_size"] == 64
    assert one.create_hyperparams({"batch_size": 128})["batch_size"] == 128
    assert one.config.algorithm.minibatch == 128
    grid = {"min_speed": 1, "max_speed": 1, "min_steering_angle": -5, "max_steering_angle": 0}
    assert [a["steering_angle"] for a in one.create_actionspace(grid)] == [-5, 0]
    assert len(one.configure_environment().actions.list) == 2
    assert {row["Name"]: row["Column"] for row in one.configure_metrics()}["reward-training"]


def test_the_cloud_s_steps_say_what_is_there_instead(play, capsys):
    one = make()

    for name in ("configure_s3_bucket", "create_iam_role", "build_docker_container",
                 "configure_vpc", "create_routing_tables", "configure_kinesis_stream",
                 "start_robo_maker"):  # fmt: skip
        getattr(one, name)()

        assert capsys.readouterr().out.startswith(f"{name}: ")


class Report:
    """Two trials on the oval: one lap of 9 s; and 4 of its 16 m in 3 s."""

    tracks, finished, lap_times_s = ("oval", "oval"), (True, False), ((9.0,), ())
    traces = ({"t": [0.0, 9.1], "travelled": [0.0, 16.0]}, {"t": [0.0, 3.0], "travelled": [0, 4.0]})


@pytest.mark.parametrize("installed", [True, False])
def test_the_table_has_a_row_for_each_trial(play, monkeypatch, installed):
    if installed:
        pytest.importorskip("pandas")
    else:
        monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    one = make()
    monkeypatch.setattr(engine, "evaluate", lambda run, **how: Report)
    monkeypatch.setattr(DeepRacerEngine, "run", None)

    table, many = one.start_model_evaluation(), one.plot_multi_model_evaluation({"Foo": one})

    expected = [
        {"trial": 1, "completion_percentage": 100.0, "elapsed_time": 9.0},
        {"trial": 2, "completion_percentage": 25.0, "elapsed_time": 3.0},
    ]
    assert (table.to_dict("records") if installed else table) == expected
    rows = many.to_dict("records") if installed else many
    assert rows == [{"job": "Foo", **row} for row in expected]


def test_a_notebook_shows_a_picture_that_changes(play, monkeypatch):
    shown = []

    class Handle:
        def update(self, image):
            shown.append(("update", image))
            one.stop_training()

    class Display:
        Image = staticmethod(lambda data: data[:4])

        @staticmethod
        def display(image, display_id):
            shown.append(("display", image))
            return Handle()

    monkeypatch.setattr(engine, "_in_notebook", lambda: True)
    monkeypatch.setitem(sys.modules, "IPython.display", Display)
    one = make()
    one.start_training_testing_process()
    one.plot_training_output(refresh=0.1)

    assert shown[0] == ("display", b"\x89PNG")
    assert {kind for kind, _ in shown[1:]} == {"update"}
