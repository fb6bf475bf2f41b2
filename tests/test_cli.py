"""The command line: results on standard output, all else on standard error, and a status."""

import importlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from drivers import command as hotlap
from drivers import saved
from hotlap import cli
from hotlap.commands import console
from hotlap.config import resolve
from hotlap.plan import TrainConfig
from hotlap.runs import Run

HOTLAP = [sys.executable, "-c", "from hotlap.cli import main; main()"]
SHORT = (
    *("track=oval", "train.seconds=0", "train.steps=256", "train.cars=8"),
    *("algorithm.network.mlp=[4]", "evaluation.laps=1", "evaluation.trials=2"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once; return the Run's directory and what the command returned."""
    path = tmp_path_factory.mktemp("runs") / "oval-ppo-1"
    return path, hotlap("train", *SHORT, "--out", path)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HOTLAP_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)


def test_train_ends_with_the_result_its_files_and_the_run(trained):
    path, (status, out, err) = trained

    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("oval, deepracer: ")
    assert lines[-1] == f"run: {path}"
    files = [line.split(": ")[1] for line in lines if ": /" in line][:-1]
    names = sorted(Path(file).stem for file in files)  # a film is .mp4, or .gif without PyAV
    assert names == ["evaluation", "evaluation", "track", "training"]
    assert all(Path(file).stat().st_size > 1000 for file in files)
    assert "256 steps  100%" in err
    assert "\x1b" not in err


def test_train_json_is_one_document_even_if_the_reward_prints(tmp_path):
    reward = tmp_path / "mine.py"
    reward.write_text("def reward_function(params):\n    print('{hello}')\n    return 1.0\n")

    status, out, err = hotlap("train", *SHORT, f"reward={reward}", "--json", "--out", "run")

    assert status == 0
    found = json.loads(out)
    assert found["run"] == "run"
    assert found["report"]["trials"] == 2
    assert "{hello}" in err


def test_quiet_leaves_only_the_result(tmp_path):
    status, out, err = hotlap("train", *SHORT, "-q")

    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "run: runs/oval-ppo-1"


def test_evaluate_json_holds_what_others_build_on(trained):
    status, out, err = hotlap("evaluate", trained[0], "--trials", 3, "--laps", 1, "--json")

    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found.keys() >= {
        *("track", "vehicle", "trials", "laps_completed", "completion", "lap_times_s"),
        *("best_lap_s", "mean_lap_s", "off_tracks", "crashes", "limit_s", "limit_ratio"),
    }
    assert (found["track"], found["trials"], found["laps_per_trial"]) == ("oval", 3, 1)
    assert len(found["lap_times_s"]) == 3


def test_a_lap_faster_than_physics_allows_is_an_alarm(trained, monkeypatch):
    module = importlib.import_module("hotlap.evaluate")
    drive = module.evaluate_policy

    def quick(*args, **kwargs):
        return replace(drive(*args, **kwargs), best_lap_s=2.0, mean_lap_s=2.0)

    monkeypatch.setattr(module, "evaluate_policy", quick)
    monkeypatch.setattr(module, "lap_bound", lambda *asked: SimpleNamespace(lap_s=2.5))

    status, out, err = hotlap("evaluate", trained[0], "--trials", 1, "--laps", 1, "--json")

    found = json.loads(out)
    assert (status, found["limit_s"], found["limit_ratio"]) == (0, 2.5, 0.8)
    assert err == f"hotlap: alarm: {found['alarm']}\n"
    assert "2.000 s is faster than physics allows (2.500 s for deepracer on oval)" in err


def test_evaluate_says_it_in_words(trained):
    status, out, _ = hotlap("evaluate", trained[0], "--track", "hard", "--checkpoint", "last")

    assert status == 0
    assert out.startswith("hard, deepracer: 0% of 5 trials finished 3 clean laps\n")
    assert "trials that ended early: " in out


REPORT = {
    "track": "oval",
    "tracks": ("oval",) * 4,
    "finished": (True, True, True, False),
    "vehicle": "deepracer",
    "trials": 4,
    "laps_per_trial": 1,
    "completion": 0.75,
    "progress": 0.9,
    "best_lap_s": 6.25,
    "mean_lap_s": 6.5,
    "off_tracks": 1,
    "immobilized": 0,
    "reversed": 0,
    "crashes": 0,
    "timed_out": 0,
}


def test_a_report_in_words(capsys):
    console.print_report(REPORT)

    assert capsys.readouterr().out == (
        "oval, deepracer: 75% of 4 trials finished 1 clean lap\n"
        "best lap 6.250 s, mean lap 6.500 s\n"
        "trials that ended early: 1 left the track\n"
    )


def test_a_report_in_words_compares_with_the_limit(capsys):
    console.print_report(REPORT | {"limit_s": 5.0, "limit_ratio": 1.25, "alarm": None})

    line = "1.250 times the 5.000 s that no driver can beat"
    assert capsys.readouterr().out.splitlines()[2] == line


def test_a_report_without_a_lap_says_how_far_it_came(capsys):
    console.print_report(REPORT | {"best_lap_s": None, "mean_lap_s": None, "off_tracks": 0})

    assert capsys.readouterr().out.splitlines()[1:] == [
        "no lap completed; the mean trial drove 90% of its laps"
    ]


def test_a_report_on_several_tracks_names_those_not_finished(capsys):
    several = {"tracks": ("a", "b", "c", "d"), "finished": (True, False, False, True)}

    console.print_report(REPORT | {"track": "a,b,c,d"} | several)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 tracks, deepracer: 75% of 4 trials")
    assert lines[-1] == "not finished: b, c"


@pytest.mark.parametrize(("verb", "folder", "files"), [("film", "films", 1), ("plot", "plots", 2)])
def test_film_and_plot_write_their_files_again(verb, folder, files, trained):
    for file in (trained[0] / folder).iterdir():
        file.unlink()

    status, out, _ = hotlap(verb, trained[0])

    assert status == 0
    written = [line.removeprefix(f"{verb}: ") for line in out.splitlines()]
    assert len(written) == files
    assert all(Path(file).stat().st_size > 1000 for file in written)


def test_runs_lists_runs(trained):
    status, out, _ = hotlap("runs", trained[0].parent, "--json")
    _, words, _ = hotlap("runs", trained[0].parent)
    _, none, _ = hotlap("runs")

    assert status == 0
    assert [row["run"] for row in json.loads(out)] == [str(trained[0])]
    assert str(trained[0]) in words.splitlines()[1]
    assert none == "no runs in runs; start one with: hotlap train\n"


def test_a_run_is_no_folder_of_runs(trained):
    status, out, err = hotlap("runs", trained[0])

    assert (status, out) == (2, "")
    assert f"{trained[0]} is a run itself: hotlap evaluate {trained[0]}" in err


def test_a_run_that_is_not_there_gets_the_nearest_name(tmp_path):
    saved(tmp_path / "runs" / "oval-ppo-12", 2.0)
    saved(tmp_path / "runs" / "hard-sac-1", 2.0)

    for word in ("runs/oval-ppo-21", "oval-ppo12", "runs/oval-pp-12/"):
        status, _, err = hotlap("evaluate", word)
        assert status == 2
        assert "; did you mean runs/oval-ppo-12? (hotlap runs" in err
    assert "did you mean" not in hotlap("evaluate", "xyz")[2]


def test_a_track_that_changed_after_the_training_is_told(tmp_path):
    import numpy as np

    from hotlap.track import load_track

    points = load_track("oval").waypoints
    np.save(tmp_path / "mine.npy", points)
    assert hotlap("train", *SHORT, f"track={tmp_path / 'mine.npy'}", "--out", "run", "-q")[0] == 0
    before = hotlap("evaluate", "run", "--trials", 1, "--laps", 1, "--json")
    np.save(tmp_path / "mine.npy", 1.02 * points)

    status, out, err = hotlap("evaluate", "run", "--trials", 1, "--laps", 1, "--json")
    other = hotlap("evaluate", "run", "--trials", 1, "--laps", 1, "--track", "oval")
    resumed = hotlap("train", "--resume", "run", "train.steps=512")

    assert (before[0], before[2], status) == (0, "", 0)
    assert json.loads(out)["changed"] == [f"track {tmp_path / 'mine.npy'}"]
    assert f"hotlap: track {tmp_path / 'mine.npy'}: changed since the training" in err
    assert "changed" not in other[2]
    assert resumed[0] == 2
    assert "it cannot continue exactly. Put back what was there, or train on with" in resumed[2]


def test_closed_streams_are_no_error(tmp_path):
    # Whatever opens next would get the numbers 1 and 2: a file of the run, say.
    line = shlex.join([*HOTLAP, "train", *SHORT, "--out", "run"])

    done = subprocess.run(["sh", "-c", f"{line} <&- >&- 2>&-"], timeout=120)

    assert done.returncode == 0
    assert Run.open("run").report()["trials"] == 2


def test_tracks_are_listed_shown_and_added(tmp_path):
    import numpy as np

    from hotlap.track import load_track

    np.save(tmp_path / "mine.npy", load_track("oval").waypoints)

    assert hotlap("tracks", "add", "mine.npy")[1] == "added mine: 16.00 m long, 0.800 m wide\n"

    listed = json.loads(hotlap("tracks", "list", "--json")[1])
    assert {"oval", "mine", "reinvent_like"} <= {row["name"] for row in listed}
    assert "mine" in hotlap("tracks", "list")[1]
    shown = json.loads(hotlap("tracks", "show", "mine", "--json")[1])
    assert shown["closed"]
    assert Path(shown["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_limit_of_a_track_is_printed_and_drawn(tmp_path):
    pytest.importorskip("casadi")
    status, out, err = hotlap("tracks", "limit", "oval", "--out", "limit.png")
    again = hotlap("tracks", "limit", "oval", "--out", "limit.png", "--json")

    assert (status, err) == (0, "")
    facts = json.loads(again[1])
    assert f"lap_s: {facts['lap_s']}" in out.splitlines()
    # 16 m at 4.11 m/s would be 3.89 s; the corridor lets the car cut that by a little.
    assert 3.5 < facts["lap_s"] < 3.9
    assert (facts["rule"], facts["vehicle"]) == ("all_wheels", "deepracer")
    assert (tmp_path / "limit.png").stat().st_size > 10_000
    assert len(list((tmp_path / "home" / "limits").iterdir())) == 1


def test_actions_of_a_limit_are_read_by_model_metadata(tmp_path):
    pytest.importorskip("casadi")
    from hotlap.deepracer.files.metadata import Metadata

    _, out, _ = hotlap("tracks", "limit", "oval", "--actions", "5")

    (tmp_path / "model_metadata.json").write_text(out)
    actions = Metadata.read(tmp_path / "model_metadata.json").actions
    assert len(actions) == 5
    assert max(speed for _, speed in actions) == pytest.approx(4.0, abs=0.05)
    assert max(steering for steering, _ in actions) > 10  # every corner is a left one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rule", "never"], "rule: choose from all_wheels, any_wheel, centre (got never)"),
        (["--vehicle", "x"], "vehicle: no set 'x'"),
        (["--model", "x"], "model: choose from point, single (got x)"),
        (["--actions", "1"], "actions: must be 2 to"),
    ],
)
def test_a_limit_that_cannot_be_asked_for_is_refused(words, said):
    pytest.importorskip("casadi")

    status, out, err = hotlap("tracks", "limit", "oval", *words)

    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--from", "--resume"])
def test_dry_run_of_a_run_prints_its_settings(option, tmp_path):
    run = saved(tmp_path / "a", 2.0, settings={"track": "hard", "train.steps": 7})

    status, out, _ = hotlap("train", option, run, "train.steps=9", "--dry-run")

    assert status == 0
    found = tomllib.loads(out)
    assert (found["track"], found["train"]["steps"]) == ("hard", 9)


def test_dry_run_prints_the_complete_settings():
    status, out, _ = hotlap("train", "--dry-run", "--track", "hard", "--seed", 3, "train.steps=7")

    said = resolve(TrainConfig, tomllib.loads(out))
    assert status == 0
    assert said == resolve(TrainConfig, {"track": "hard", "seed": 3, "train.steps": 7})
    assert not Path("runs").exists()


def test_a_configuration_may_stand_anywhere_among_the_settings(tmp_path):
    Path("own.toml").write_text("seed = 5\ntrack = 'hard'\n")

    _, out, _ = hotlap("train", "train.steps=7", "own.toml", "track=oval", "--dry-run")

    said = tomllib.loads(out)
    assert (said["seed"], said["track"], said["train"]["steps"]) == (5, "oval", 7)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "-x"], "No such option: -x"),
        (["train", "--tarck", "oval"], "--track"),
        (["train", "trak=oval"], "did you mean track?"),
        (["train", "track=ovall"], "did you mean oval"),
        (["train", "confgs/state.toml"], "no such file or folder"),
        (["evaluate"], "Missing argument 'RUN'"),
        (["evaluate", "nowhere"], "nowhere: no such directory"),
        (["evaluate", "nowhere", "--trials", "0"], "--trials"),
        (["evaluate", "nowhere", "--checkpoint", "first"], "best, last"),
        (["tracks", "show", "nope"], "unknown track 'nope'"),
        (["runs", "nowhere"], "nowhere: no such folder"),
        (
            ["train", "algorithm.kind=ddpg", "algorithm.noise_min=0.5"],
            "must not be above noise_max, which is 0.4",
        ),
        (["train", "algorithm.kind=td3", "actions=grid"], "choose actions=continuous"),
        (["train", "algorithm.kind=dqn"], "choose actions=grid, or"),
        (["train", "algorithm.kind=dqn", "--dry-run"], "choose actions=grid, or"),
        (["tracks", "shwo"], "Did you mean 'show'?"),
        (["tracks", "add", "nope.npy"], "nope.npy"),
    ],
)
def test_a_typing_mistake_gets_help_and_status_two(words, fragment):
    status, out, err = hotlap(*words)

    assert (status, out) == (2, "")
    assert fragment in err
    assert "Traceback" not in err


def test_a_stopped_training_names_its_run(monkeypatch):
    module = importlib.import_module("hotlap.train")
    stopped = module.Stopped(Run(Path("runs/x"), {}), 15, "stopped after 9 steps. Go on.")

    def stop(*args, **named):
        raise stopped

    monkeypatch.setattr(module, "train", stop)

    assert hotlap("train") == (143, "run: runs/x\n", "hotlap: stopped after 9 steps. Go on.\n")
    assert json.loads(hotlap("train", "--json")[1]) == {"run": "runs/x", "report": None}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("oops"), "hotlap: internal error: ZeroDivisionError: oops. Nothing al"),
        (OSError(28, "No space left on device", "a/b"), "hotlap: a/b: No space left on device\n"),
        (OSError("odd"), "hotlap: odd\n"),
    ],
)
def test_what_we_did_not_foresee_is_a_sentence_too(error, said, monkeypatch, tmp_path):
    with Run.create(tmp_path / "run", "", {}):
        pass

    def fail(*args, **named):
        raise error

    error.add_note("Go on like this.")
    monkeypatch.setattr(importlib.import_module("hotlap.evaluate"), "evaluate", fail)

    status, out, err = hotlap("evaluate", tmp_path / "run")

    assert (status, out) == (1, "")
    assert err.startswith(said)
    assert err.splitlines()[-1] == "hotlap: Go on like this."
    monkeypatch.setenv("HOTLAP_DEBUG", "1")
    with pytest.raises(type(error)):
        hotlap("evaluate", tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says it")
def test_the_budget_counts_from_the_start_of_the_process():
    ps = ["ps", "-o", "etimes=", "-p", str(os.getpid())]
    seconds = int(subprocess.run(ps, capture_output=True, check=True).stdout)

    assert seconds - 1 <= cli._process_age() <= seconds + 2


@pytest.mark.parametrize("words", ["tracks list", "--help", "tracks list --json"])
def test_a_reader_that_leaves_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [*HOTLAP, *words.split()], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )

    os.close(writing)
    assert done.stderr == b""


def test_help_says_what_the_exit_status_means():
    status, out, _ = hotlap("--help")

    assert status == 0
    assert "0 success, 1 the run failed, 2 the command line" in out
