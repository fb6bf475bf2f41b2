"""A training that stopped, however it stopped, goes on as if it never had."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hotlap.errors import ConfigError, RewardError, RunError, SimulationError, TrackError
from hotlap.plan import continued
from hotlap.runs import Run
from hotlap.track import load_track

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
train = module.train

TINY = {
    "track": "oval",
    "algorithm.network.mlp": [8],
    "train.cars": 16,  # of 16 steps each: 256 steps an iteration
    "train.seconds": 0,
    "evaluation.every": 3,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}
CAMERA = {
    "observation.actor": ["camera"],
    "observation.camera.width": 32,
    "observation.camera.height": 24,
    "actions": "grid",
    "train.cars": 8,
    "algorithm.horizon": 8,
}
DISTILL = {
    **{name: value for name, value in CAMERA.items() if name.startswith("observation")},
    "algorithm.kind": "distill",
    "algorithm.practice.network.mlp": [8],
    # 256 steps of the teacher and 64 of its check, then the student; finetune from 64 frames on
    "algorithm.patience": 320,
    "algorithm.check": 8,
    "algorithm.finetune": 64,
    "algorithm.horizon": 4,
    "algorithm.practice.horizon": 16,
    "train.cars": 8,
}
REWARD = "def reward_function(params):\n    return params['progress'] / max(1, params['steps'])\n"


@pytest.fixture(autouse=True)
def no_outcome(monkeypatch):
    """Leave plots and film away: they are tested where they are made."""
    monkeypatch.setattr(module, "write_outcome", lambda run: {})


@pytest.fixture
def settings(request, tmp_path):
    (tmp_path / "reward.py").write_text(REWARD)
    tiny = TINY
    if getattr(request, "param", "state") == "distill":
        tiny = {k: v for k, v in TINY.items() if k != "algorithm.network.mlp"}
    return (
        tiny
        | {
            "state": {},
            "camera": CAMERA,
            "file": {"reward": str(tmp_path / "reward.py")},
            "distill": DISTILL,
        }[getattr(request, "param", "state")]
    )


def same_training(one: Run, other: Run) -> None:
    """Check that two Runs ended with the same bits and logged the same rows."""
    for read in ("read_policy", "read_state"):
        (said, arrays), (said_too, expected) = (getattr(r, read)("last") for r in (one, other))
        assert arrays.keys() == expected.keys()
        for name in arrays:
            assert arrays[name].dtype == expected[name].dtype
            if name == "runner.recorder.clock":  # of the wall
                continue
            assert arrays[name].tobytes() == expected[name].tobytes(), name
        # What was best depends on how often it was tried: the end of each budget is one more.
        for document in (said, said_too):
            document.pop("seconds", None), document.pop("best", None), document.pop("clean", None)
            document.pop("simtrace", None)
        assert said == said_too
    assert rows(one) == rows(other)


def rows(run: Run) -> list[dict]:
    timed = re.compile("seconds|steps_per_second|time/.*")
    return [{k: v for k, v in r.items() if not timed.fullmatch(k)} for r in run.metrics_rows()]


@pytest.mark.parametrize("settings", ["state", "camera", "file", "distill"], indirect=True)
def test_two_halves_are_the_whole(settings, tmp_path):
    whole = 16 * settings.get("algorithm.horizon", 16) * settings["train.cars"]

    train(None, settings | {"train.steps": whole // 2}, out=tmp_path / "halves")
    halves = train(None, {"train.steps": whole}, resume=tmp_path / "halves")
    once = train(None, settings | {"train.steps": whole}, out=tmp_path / "once")

    assert len(once.metrics_rows()) == (9 if "algorithm.kind" in settings else 16)
    same_training(halves, once)


def test_two_halves_of_episodes_and_random_actions_are_the_whole(tmp_path):
    settings = TINY | {"actions.kind": "grid", "rules.time_limit": 0.8, "algorithm.episodes": 6}
    settings |= {"algorithm.epsilon_start": 0.9, "algorithm.epsilon_end": 0.1}
    settings |= {"algorithm.epsilon_steps": 900}

    first = train(None, settings | {"train.steps": 500}, out=tmp_path / "halves")
    count = len(first.metrics_rows())
    halves = train(None, {"train.steps": 1500}, resume=tmp_path / "halves")
    once = train(None, settings | {"train.steps": 1500}, out=tmp_path / "once")

    assert 2 <= count < len(once.metrics_rows())
    assert {0.9, 0.1} <= {round(row["epsilon"], 6) for row in once.metrics_rows()}
    same_training(halves, once)


def test_the_best_lap_outlives_a_resume(tmp_path):
    run = train(None, TINY | {"train.steps": 256}, out=tmp_path / "run")
    saved = run.path / "checkpoints" / "000000000256" / "state.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"best_lap": 1.25}))

    run = train(None, {"train.steps": 512}, resume=run.path)

    assert [row["best_lap"] for row in run.metrics_rows()] == [None, 1.25]


def test_evaluations_leave_the_training_as_it_is(tmp_path):
    budget = {"train.steps": 2048}

    often = train(None, TINY | budget | {"evaluation.every": 1}, out=tmp_path / "often")
    never = train(None, TINY | budget | {"evaluation.every": 99}, out=tmp_path / "never")

    assert len([e for e in often.events() if e["kind"] == "evaluation"]) == 9
    for name, array in never.read_state("last")[1].items():
        assert array.tobytes() == often.read_state("last")[1][name].tobytes(), name


def start(out: Path, settings: dict) -> subprocess.Popen[str]:
    words = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    code = "from hotlap.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", *words, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(process: subprocess.Popen[str], run: Path, count: int) -> None:
    until = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


def test_killed_in_the_middle_it_ends_as_if_never_killed(tmp_path):
    settings = TINY | {"train.steps": 6400}
    process = start(tmp_path / "killed", settings | {"train.checkpoint_seconds": 0.03})
    wait_for_rows(process, tmp_path / "killed", 6)

    process.kill()
    process.communicate()
    left = Run.open(tmp_path / "killed").read_state("last")[0]["steps"]
    killed = train(None, {"train.checkpoint_seconds": 20}, resume=tmp_path / "killed")

    assert 0 < left < 6400
    same_training(killed, train(None, settings, out=tmp_path / "once"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_how_to_go_on_and_does(number, tmp_path):
    out = tmp_path / "run"
    process = start(out, TINY)  # without a limit: it would never end
    wait_for_rows(process, out, 5)

    process.send_signal(number)
    printed, said = process.communicate(timeout=30)

    assert process.returncode == 128 + number
    assert printed == f"run: {out}\n"
    assert f"hotlap train --resume {out}" in said.splitlines()[-1]
    assert "Traceback" not in said
    last = Run.open(out).metrics_rows()[-1]["steps"]
    assert Run.open(out).checkpoints()[-1] == last  # nothing learned is lost
    onward = train(None, {"train.steps": last + 512}, resume=out)
    assert [row["steps"] for row in onward.metrics_rows()[-2:]] == [last + 256, last + 512]


def raise_at(monkeypatch, iteration: int, times: int) -> None:
    """Let Ctrl-C come during an iteration, so many times."""
    from hotlap.algorithms.ppo import PPO

    update, calls = PPO.update, []

    def counted(self, *args, **named):
        calls.append(None)
        if len(calls) == iteration:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return update(self, *args, **named)

    monkeypatch.setattr(PPO, "update", counted)


@pytest.mark.parametrize(("times", "steps"), [(1, 1280), (2, 768)])
def test_the_second_ctrl_c_does_not_wait_and_harms_nothing(times, steps, monkeypatch, tmp_path):
    # Iteration 3 ends with an evaluation, the first and so the best, and a checkpoint of 768 steps.
    # Ctrl-C comes in iteration 5; what comes once still keeps its 1280 steps.
    raise_at(monkeypatch, 5, times)
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(module.Stopped) as stop:
        train(None, TINY, out=tmp_path / "run")

    assert stop.value.exit_code == 130
    assert f"hotlap train --resume {tmp_path / 'run'}" in str(stop.value)
    assert stop.value.run.checkpoints()[-1] == steps
    assert signal.getsignal(signal.SIGINT) is before
    assert train(None, {"train.steps": 2048}, resume=tmp_path / "run").checkpoints()[-1] == 2048


def test_a_budget_given_at_a_resume_is_remembered(monkeypatch, tmp_path):
    train(None, TINY | {"train.steps": 512}, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        raise_at(patch, 1, 1)
        with pytest.raises(module.Stopped):
            train(None, {"train.steps": 1280}, resume=tmp_path / "run")

    run = train(None, resume=tmp_path / "run")

    assert run.checkpoints()[-1] == 1280


def test_a_budget_set_back_to_the_first_one_is_remembered(monkeypatch, tmp_path):
    words = {"out": tmp_path / "run"}
    for steps in (1280, 2560, 1280):
        settings = (TINY if "out" in words else {}) | {"train.steps": steps}
        with monkeypatch.context() as patch:
            raise_at(patch, 1, 1)
            with pytest.raises(module.Stopped):
                train(None, settings, **words)
        words = {"resume": tmp_path / "run"}

    assert continued(Run.open(tmp_path / "run"), {}).train.steps == 1280


def test_a_run_that_was_killed_before_its_report_gets_it(tmp_path, monkeypatch):
    settings = TINY | {"train.steps": 512}
    once, killed = (train(None, settings, out=tmp_path / name) for name in ("once", "killed"))
    once.write_report({})
    monkeypatch.setattr(module, "write_outcome", lambda run: run.write_report({"laps": 3}))

    run = train(None, resume=killed.path)

    assert run.report() == {"laps": 3}
    assert run.is_reported
    same_training(run, once)


def test_a_run_that_is_done_says_how_to_add(tmp_path):
    run = train(None, TINY | {"train.steps": 512}, out=tmp_path / "run")
    run.write_report({})
    before = sorted(run.path.rglob("*"))

    with pytest.raises(RunError) as told:
        train(None, resume=run.path)

    assert "spent its budget of train.steps=512" in str(told.value)
    assert f"hotlap train --resume {run.path} train.steps=1024" in str(told.value)
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"algorithm.clip": 0.1},
        {"train.cars": 8},
        {"train": {"cars": 8}},
        {"reward": "centre"},
    ],
)
def test_only_the_budget_may_be_changed(changed, tmp_path):
    train(None, TINY | {"train.steps": 256}, out=tmp_path / "run")

    with pytest.raises(ConfigError) as told:
        train(None, {"train.steps": 512, **changed}, resume=tmp_path / "run")

    assert re.match(r"(seed|algorithm.clip|train.cars|reward): --resume continues", str(told.value))
    assert "hotlap train --from" in str(told.value)


@pytest.mark.parametrize(
    "more", [{"source": "configs/state.toml"}, {"out": "x"}, {"weights_from": "y"}]
)
def test_a_resume_takes_nothing_else(more, tmp_path):
    with pytest.raises(ConfigError, match="--resume continues a run as it is"):
        train(**more, resume=tmp_path)


@pytest.mark.parametrize(
    ("setting", "name", "error"),
    [("reward", "mine.py", RewardError), ("track", "own.npy", TrackError)],
)
def test_a_file_that_moved_is_named(setting, name, error, tmp_path):
    file = tmp_path / name
    file.write_text(REWARD)
    if name == "own.npy":
        np.save(file, load_track("oval").waypoints)
    train(None, TINY | {setting: str(file), "train.steps": 256}, out=tmp_path / "run")
    file.rename(tmp_path / "elsewhere")

    with pytest.raises(error, match=re.escape(str(file))):
        train(None, {"train.steps": 512}, resume=tmp_path / "run")

    (tmp_path / "elsewhere").rename(file)
    again = train(None, {"train.steps": 512}, resume=tmp_path / "run")
    assert again.checkpoints()[-1] == 512


def test_a_run_being_written_is_left_alone(tmp_path):
    run = train(None, TINY | {"train.steps": 256}, out=tmp_path / "run")
    with Run.open(run.path) as other:
        other.claim()

        with pytest.raises(RunError, match=f"being written by process {os.getpid()}"):
            train(None, {"train.steps": 512}, resume=run.path)

    assert run.checkpoints() == [256]


def test_a_reward_that_fails_in_mid_run_costs_one_iteration(tmp_path, capsys):
    # Each of the two cars counts for itself, a call a step; the check makes fewer calls than that.
    file = tmp_path / "reward.py"
    file.write_text(
        "calls = 0\n"
        "def reward_function(params):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    return 1.0 / (calls != 1500)\n"
    )
    settings = TINY | {"reward": str(file), "train.steps": 4096, "train.checkpoint_seconds": 1e-6}
    settings |= {"train.cars": 2, "algorithm.horizon": 256, "algorithm.minibatch": 128}

    with pytest.raises(RewardError) as told:
        train(None, settings, out=tmp_path / "run")

    assert told.value.exit_code == 1
    assert f"{file}:5" in str(told.value)
    run = Run.open(tmp_path / "run")
    last = run.metrics_rows()[-1]["steps"]
    assert told.value.__notes__ == [
        f"Continue from its checkpoint of {last:,} steps with: hotlap train --resume {run.path}"
    ]
    # 1500 calls are 5.9 iterations; the first step of an episode is not rewarded, which adds some.
    assert 5 * 512 <= last <= 7 * 512
    file.write_text(REWARD)
    assert train(None, resume=tmp_path / "run", quiet=False).checkpoints()[-1] == 4096
    assert f"reward {file}: changed since {run.path} began" in capsys.readouterr().err


def test_a_policy_that_diverges_fails_the_run(tmp_path):
    wild = {"algorithm.learning_rate": 1e30, "algorithm.schedule": "constant"}

    with pytest.raises(SimulationError) as told:
        train(None, TINY | wild, out=tmp_path / "run")

    assert told.value.exit_code == 1
    assert "learning_rate" in str(told.value) or "learning rate" in str(told.value)
    assert told.value.__notes__


def test_a_full_disk_leaves_what_was_written(monkeypatch, tmp_path):
    write, left = os.write, [400_000]

    def full(file, content):
        left[0] -= len(content)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunError) as told:
            train(None, TINY | {"train.checkpoint_seconds": 1e-6}, out=tmp_path / "run")

    assert told.value.exit_code == 1
    assert "the disk is full" in str(told.value)
    reached = Run.open(tmp_path / "run").checkpoints()[-1]
    assert f"{reached:,} steps with: hotlap train --resume" in told.value.__notes__[0]
    settings = TINY | {"train.steps": reached + 512}
    onward = train(None, {"train.steps": reached + 512}, resume=tmp_path / "run")
    same_training(onward, train(None, settings, out=tmp_path / "once"))


def memory_of(run: Run) -> dict[str, np.ndarray]:
    """Join the segments that the last checkpoint of a Run names."""
    names = run.read_state("last")[0]["segments"]
    found = [run.read_segment(first) for first in names]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


REPLAY = {
    "algorithm.network.mlp": [8],
    "algorithm.warmup": 128,
    "algorithm.minibatch": 32,
    "algorithm.capacity": 3000,
}


@pytest.mark.parametrize("kind", ["td3", "qr_sac"])
def test_a_replay_is_whole_after_two_halves(kind, tmp_path):
    settings = TINY | {"algorithm.kind": kind} | REPLAY

    train(None, settings | {"train.steps": 2048}, out=tmp_path / "halves")
    halves = train(None, {"train.steps": 4096}, resume=tmp_path / "halves")
    once = train(None, settings | {"train.steps": 4096}, out=tmp_path / "once")

    assert len(halves.read_state("last")[0]["segments"]) > 1
    for (_, arrays), (_, expected) in [
        (getattr(run, read)("last") for run in (halves, once))
        for read in ("read_policy", "read_state")
    ]:
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.tobytes() == expected[name].tobytes(), name
    assert rows(halves) == rows(once)
    one, other = memory_of(halves), memory_of(once)
    for name, array in one.items():  # segments begin elsewhere; what both hold is the same
        least = min(len(array), len(other[name]))
        assert array[-least:].tobytes() == other[name][-least:].tobytes(), name


def test_killed_in_the_middle_a_replay_goes_on_as_if_never_killed(tmp_path):
    settings = TINY | {"algorithm.kind": "td3"} | REPLAY | {"train.steps": 8_000}
    process = start(tmp_path / "killed", settings | {"train.checkpoint_seconds": 0.01})
    wait_for_rows(process, tmp_path / "killed", 40)

    process.kill()
    process.communicate()
    left = Run.open(tmp_path / "killed").read_state("last")[0]["steps"]
    killed = train(None, {"train.checkpoint_seconds": 20}, resume=tmp_path / "killed")

    assert 0 < left < 8_000
    once = train(None, settings, out=tmp_path / "once")
    for name, array in once.read_state("last")[1].items():
        assert array.tobytes() == killed.read_state("last")[1][name].tobytes(), name
    assert rows(killed) == rows(once)
    assert memory_of(killed)["step.reward"].size < 2 * 3000  # no more than a segment is not needed
    files = {int(f.stem) for f in (killed.path / "replay").iterdir()}
    assert files == set(killed.read_state("last")[0]["segments"])


def test_a_lost_piece_of_the_replay_is_told_in_a_sentence(tmp_path):
    settings = TINY | {"algorithm.kind": "td3"} | REPLAY
    run = train(None, settings | {"train.steps": 512}, out=tmp_path / "run")
    piece = next((run.path / "replay").iterdir())
    piece.write_bytes(piece.read_bytes()[:-100])

    with pytest.raises(RunError, match=r"missing or damaged.*--from") as caught:
        train(None, {"train.steps": 1024}, resume=run.path)

    assert "\n" not in str(caught.value)
