"""Training from Python: what it logs, what it calls best, and what it hands over."""

import importlib
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hotlap
from hotlap.env import Episodes
from hotlap.errors import (
    ConfigError,
    DivergedError,
    MissingExtraError,
    RunError,
    SimulationError,
)
from hotlap.plan import read_config
from hotlap.practice import Practice, Round
from hotlap.runs import Run
from hotlap.track import load_track

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb
ROOT = Path(__file__).parent.parent

TINY = {
    "track": "oval",
    "algorithm.network.mlp": [8],
    "train.cars": 16,  # of 16 steps each: 256 steps an iteration
    "train.seconds": 0,
    "train.steps": 1024,
    "evaluation.every": 2,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}


@pytest.fixture
def no_outcome(monkeypatch):
    monkeypatch.setattr(module, "write_outcome", lambda run: {})


def test_the_three_lines_of_the_readme_work(tmp_path):
    del_none = {k: v for k, v in TINY.items() if k != "track"}

    run = hotlap.train(ROOT / "configs" / "state.toml", del_none, out=tmp_path / "run")
    report = hotlap.evaluate(run, track="hard", trials=2, laps=1)
    policy = hotlap.load_policy(run.path)

    assert isinstance(run, Run)
    assert run.report()["track"] == "reinvent_like"
    assert (report.track, report.trials) == ("hard", 2)
    size = policy._saved.plan.vectors["state"]
    action = policy.act({"state": np.zeros((3, size), np.float32)})
    assert action.shape == (3, 2)
    for name in ("plots/training.png", "plots/track.png", "traces/evaluation.npz", "report.json"):
        assert (run.path / name).stat().st_size > 100
    trace = np.load(run.path / "traces" / "evaluation.npz")
    assert set(trace) >= {
        *("t", "x", "y", "yaw", "speed", "steering", "s", "n", "lap"),
        *("command_speed", "command_steering"),
    }
    assert not list(run.path.rglob(".tmp*"))


def test_a_learner_gives_what_the_saved_driver_gives(no_outcome, tmp_path):
    # The last evaluation was driven by torch, this one by NumPy from the checkpoint.
    run = hotlap.train(None, TINY, out=tmp_path / "run")

    report = hotlap.evaluate(run, trials=2, laps=1, checkpoint="last")

    said = [event for event in run.events() if event["kind"] == "evaluation"][-1]
    assert report.progress == pytest.approx(said["progress"], rel=1e-3)
    assert report.off_tracks == said["off_tracks"]


def test_it_trains_in_another_thread(no_outcome, tmp_path):
    runs = []

    thread = threading.Thread(
        target=lambda: runs.append(hotlap.train(None, TINY, out=tmp_path / "run"))
    )
    thread.start()
    thread.join(60)

    assert runs[0].checkpoints()[-1] == 1024


def test_rows_hold_what_is_documented_and_add_up(no_outcome, tmp_path):
    began = time.perf_counter()
    run = hotlap.train(None, TINY, out=tmp_path / "run")
    took = time.perf_counter() - began

    rows = run.metrics_rows()
    assert [row["steps"] for row in rows] == [256, 512, 768, 1024]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert ["evaluation/completion" in row for row in rows] == [False, True, False, True]
    spent = [row[f"time/{name}"] for row in rows for name in ("collect", "learn", "evaluate")]
    assert all(seconds >= 0 for seconds in spent)
    assert 0 < sum(spent) < took
    assert all(row["time/evaluate"] < row["time/collect"] for row in (rows[0], rows[2]))
    # What passes between the clock's readings can only lower it; not in every row, though.
    speeds = [256 / (row["time/collect"] + row["time/learn"]) for row in rows]
    ratios = [row["steps_per_second"] / speed for row, speed in zip(rows, speeds, strict=True)]
    assert max(ratios) == pytest.approx(1, rel=1e-2)
    text = (ROOT / "docs" / "runs.md").read_text().split("## The metrics")[1].split("\n## ")[0]
    documented = set(re.findall(r"`([\w/]+)`", text))
    assert documented <= {name for row in rows for name in row} | {"best_lap", "lap_time"}
    assert {"best_lap", "lap_time"} <= rows[0].keys()


def done(episodes):
    """Return a round in which these episodes ended."""
    return Round(
        phase=None,
        steps=0,
        episodes=episodes,
        metrics={},
        collecting=0.0,
        learning=0.0,
        fastest=np.inf,
        breadth=0.0,
    )


def test_the_metrics_speak_of_the_last_hundred_episodes():
    training = object.__new__(importlib.import_module("hotlap.training").Training)
    training.episodes, training.best_lap = 0, None
    training.recent = np.empty((0, 4), np.float32)
    env = type("Env", (), {"dt": 0.1})
    training.practice = type("Practice", (), {"env": env, "simtrace": None})
    ended = Episodes(
        rows=np.arange(90),
        status=np.ones(90),
        reward=np.full(90, 2.0, np.float32),
        steps=np.full(90, 50),
        completion=np.full(90, 3.0, np.float32),  # laps; only the first one counts
        lap_time=np.full(90, 6.0, np.float32),
    )
    training.steps = training.iteration = 0
    training._count(done(ended))
    slower = np.full(90, np.inf, np.float32)
    slower[:2] = 7.0
    training._count(done(replace(ended, reward=np.full(90, 4.0, np.float32), lap_time=slower)))
    logged = {}
    training.run = type("Run", (), {"log_metrics": staticmethod(logged.update)})
    training.progress = type("Progress", (), {"update": staticmethod(lambda row: None)})
    training.iteration = training.steps = training.began = 0

    training._log({}, None)

    # Of the first 90 the last 10 are left, with laps of 6 s; of the second 90 two have laps.
    assert logged["reward"] == pytest.approx((10 * 2 + 90 * 4) / 100)
    assert logged["lap_time"] == pytest.approx((10 * 6 + 2 * 7) / 12)
    assert (logged["best_lap"], logged["completion"], logged["episodes"]) == (6.0, 1.0, 180)
    assert logged["episode_seconds"] == pytest.approx(5.0)


def test_seconds_count_from_where_they_are_told_to(no_outcome, tmp_path):
    settings = TINY | {"train.seconds": 50, "train.steps": 0}

    spent = hotlap.train(None, settings, out=tmp_path / "a", began=time.perf_counter() - 50)
    fresh = hotlap.train(None, settings | {"train.seconds": 0.5}, out=tmp_path / "b")

    # a budget that is spent before it begins still buys one update
    assert [row["iteration"] for row in spent.metrics_rows()] == [1]
    # its end, which may lie an evaluation behind its last update
    assert 0.5 <= fresh.read_state("last")[0]["seconds"] < 5


def test_an_untrained_run_has_an_outcome_too(tmp_path):
    run = hotlap.train(
        None, TINY | {"train.seconds": 1}, out=tmp_path / "run", began=time.perf_counter() - 9
    )

    assert run.report()["trials"] == 2
    assert (run.path / "plots" / "track.png").exists()


def test_the_report_is_on_all_tracks_and_the_film_on_the_first(tmp_path):
    changes = {"track": "oval,easy,kart", "evaluation.trials": 4, "train.steps": 256}
    changes |= {"randomize.friction": [0.8, 1.2], "evaluation.randomized": True}

    run = hotlap.train(None, TINY | changes, out=tmp_path / "run")

    assert run.report()["tracks"] == ["oval", "easy", "kart", "oval"]
    with np.load(run.path / "traces" / "evaluation.npz") as trace:
        assert np.abs(trace["s"]).max() <= load_track("oval").length


def test_a_budget_in_episodes_ends_it(no_outcome, tmp_path):
    run = hotlap.train(None, TINY | {"train.steps": 0, "train.episodes": 30}, out=tmp_path / "run")

    counts = [row["episodes"] for row in run.metrics_rows()]
    assert counts[-1] >= 30
    assert all(count < 30 for count in counts[:-1])


def test_best_by_reward_evaluates_the_reward(no_outcome, tmp_path):
    run = hotlap.train(None, TINY | {"evaluation.best_by": "reward"}, out=tmp_path / "run")

    said = [event["mean_reward"] for event in run.events() if event["kind"] == "evaluation"]
    assert all(isinstance(reward, float) for reward in said)
    assert len(set(said)) > 1


def test_another_runs_driver_is_the_start(no_outcome, monkeypatch, tmp_path):
    from hotlap.algorithms.ppo import PPO

    first = hotlap.train(None, TINY, out=tmp_path / "first")
    taken = []
    restore = PPO.restore
    monkeypatch.setattr(
        PPO, "restore", lambda self, *parts: (taken.append(parts), restore(self, *parts))
    )
    own = TINY | {
        "track": "hard",
        "algorithm.learning_rate": 1e-9,
        "algorithm.schedule": "constant",
    }

    second = hotlap.train(None, own, out=tmp_path / "second", weights_from=first.path)

    assert [e["run"] for e in second.events() if e["kind"] == "weights_from"] == [str(first.path)]
    assert second.metrics_rows()[0]["learning_rate"] == 1e-9  # its own, not the other's
    assert second.metrics_rows()[0]["steps"] == 256
    assert len(taken[0][1]["reward.return"]) == 0  # no car is in the middle of an episode
    weights, before = second.read_policy("last")[1], first.read_policy("best")[1]
    np.testing.assert_allclose(weights["hidden0.weight"], before["hidden0.weight"], atol=1e-6)


def test_a_driver_that_is_of_no_use_is_told_how_to_be_used(tmp_path):
    first = hotlap.train(None, TINY, out=tmp_path / "first")

    with pytest.raises(RunError, match=r"none of its layers fits here; .* algorithm\.teacher="):
        hotlap.train(
            None,
            {"track": "oval", "algorithm": "dqn", "actions": "grid"},
            out=tmp_path / "run",
            weights_from=first.path,
        )

    assert not (tmp_path / "run").exists()


def test_what_became_of_each_layer_is_said_and_kept(no_outcome, tmp_path, capsys):
    first = hotlap.train(None, TINY, out=tmp_path / "first")
    own = TINY | {"actions": "grid", "algorithm.freeze": ["actor.hidden0"]}

    second = hotlap.train(
        None, own, out=tmp_path / "second", weights_from=first.path, plain=True, quiet=False
    )

    said = capsys.readouterr().err
    (kept,) = [event for event in second.events() if event["kind"] == "weights_from"]
    assert kept["loaded"] == ["actor.hidden0", "critic.hidden0", "critic.head"]
    # 5 by 5 choices where there were two numbers
    assert kept["skipped"] == {"actor.head": "its outputs mean something else"}
    assert kept["frozen"] == ["actor.hidden0"]
    assert "3 layers taken, 1 begin anew, 1 frozen" in said
    assert re.search(r"actor\.hidden0 +taken, frozen\n", said)
    assert re.search(r"actor\.head +anew: its outputs mean something else\n", said)
    weights, before = second.read_policy("last")[1], first.read_policy("best")[1]
    np.testing.assert_array_equal(weights["hidden0.weight"], before["hidden0.weight"])


def test_nothing_is_begun_where_the_driver_cannot_be_taken(tmp_path):
    with pytest.raises(RunError, match="no such directory"):
        hotlap.train(None, TINY, out=tmp_path / "run", weights_from=tmp_path / "nowhere")

    assert not (tmp_path / "run").exists()


def test_a_configuration_object_may_be_changed_too():
    config = read_config(None, {"seed": 3, "track": "hard"}).config

    plan = read_config(config, {"track": "oval"})

    assert (plan.config.seed, plan.config.track) == (3, "oval")


def test_a_gpu_that_is_not_there_is_said():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")

    with pytest.raises(ConfigError, match=r"train\.device: cuda was asked for, but torch finds no"):
        hotlap.train(None, TINY | {"train.device": "cuda"})


def test_without_torch_the_install_line_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "hotlap.algorithms.actor_critic", raising=False)

    with pytest.raises(MissingExtraError, match=r"pip install 'hotlap\[train\]'"):
        hotlap.train(None, TINY | {"algorithm.kind": "sac"})


def test_what_is_executed_is_said(no_outcome, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def reward_function(params):\n    return 1.0\n")

    hotlap.train(
        None, TINY | {"reward": str(tmp_path / "mine.py")}, out=tmp_path / "run", quiet=False
    )

    out, err = capsys.readouterr()
    assert out == ""
    assert f"reward: {tmp_path / 'mine.py'} is executed, and passed its check" in err


def test_old_checkpoints_go_and_the_best_stays(no_outcome, tmp_path):
    run = hotlap.train(
        None,
        TINY | {"train.steps": 2560, "train.checkpoint_seconds": 1e-6, "train.keep": 2},
        out=tmp_path / "run",
    )

    kept = run.checkpoints()
    assert {2304, 2560} <= set(kept)
    assert len(kept) <= 3
    best = [event["steps"] for event in run.events() if event.get("best")][-1]
    assert best in kept


# --- gradients that are no numbers ---


def poison(monkeypatch, *updates):
    """Let some updates of PPO, counted over all learners, find weights that are no numbers."""
    from hotlap.algorithms.ppo import PPO

    update, calls = PPO.update, []

    def poisoned(self, batch, *, progress):
        calls.append(self.settings.learning_rate)
        if len(calls) in updates:
            self.assign(np.full_like(self.vector(), np.nan))
        return update(self, batch, progress=progress)

    monkeypatch.setattr(PPO, "update", poisoned)
    return calls


def test_a_training_that_diverged_goes_back_and_on_with_half_the_step(
    no_outcome, monkeypatch, tmp_path, capsys
):
    # checkpoints: after the first of four updates, and at the end; the third one diverges
    rates = poison(monkeypatch, 3)
    rate = {"algorithm.learning_rate": 0.004, "algorithm.schedule": "constant"}
    rate["evaluation.every"] = 99  # a better driver would have a checkpoint of its own

    run = hotlap.train(None, TINY | rate, out=tmp_path / "run", quiet=False)

    assert rates == [0.004] * 3 + [0.002] * 3  # 1, 2, 3; then from checkpoint 1 on: 2, 3, 4
    assert [row["steps"] for row in run.metrics_rows()] == [256, 512, 768, 1024]
    assert [row["learning_rate"] for row in run.metrics_rows()] == [0.004] + [0.002] * 3
    (back,) = [event for event in run.events() if event["kind"] == "rolled_back"]
    assert back["steps"] == 256
    assert back["settings"] == {"algorithm.learning_rate": 0.002}
    assert "gradients of update 3 are not finite" in back["reason"]
    assert "Back to the checkpoint of 256 steps (from 512), with half" in capsys.readouterr().err
    assert all(np.isfinite(array).all() for array in run.read_policy("last")[1].values())


def test_after_three_returns_it_gives_up(no_outcome, monkeypatch, tmp_path):
    rates = poison(monkeypatch, 2, 3, 4, 5)

    with pytest.raises(DivergedError, match="not finite") as told:
        hotlap.train(None, TINY | {"algorithm.learning_rate": 0.008}, out=tmp_path / "run")

    assert told.value.exit_code == 1
    assert rates == [0.008, 0.008, 0.004, 0.002, 0.001]


def test_a_training_that_diverges_at_once_has_nowhere_to_go_back_to(
    no_outcome, monkeypatch, tmp_path
):
    poison(monkeypatch, 1)

    with pytest.raises(DivergedError, match="gradients of update 1 are not finite"):
        hotlap.train(None, TINY, out=tmp_path / "run")


def test_a_rolled_back_training_resumes_with_the_step_it_had(no_outcome, monkeypatch, tmp_path):
    rates = poison(monkeypatch, 2)
    rate = {"algorithm.learning_rate": 0.004}
    run = hotlap.train(None, TINY | rate | {"train.steps": 512}, out=tmp_path / "run")

    hotlap.train(None, {"train.steps": 768}, resume=run.path)

    assert rates == [0.004, 0.004, 0.002, 0.002]
    with pytest.raises(ConfigError, match=r"algorithm\.learning_rate: --resume continues exactly"):
        hotlap.train(None, {"algorithm.learning_rate": 0.004}, resume=run.path)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"kind": "td3", "warmup": 32, "capacity": 512},
        {"kind": "dqn", "warmup": 32, "capacity": 512, "priority": 0.6},
        {"kind": "rdpg", "warmup": 32, "sequence": 4, "burn_in": 2, "capacity": 512},
        {"kind": "distill", "patience": 64, "memory": 128, "finetune": 96},
        {"kind": "ppo", "network.memory": 4, "horizon": 4},
    ],
    ids=lambda settings: settings["kind"],
)
def test_what_every_learner_remembers_goes_back_with_it(
    algorithm, no_outcome, monkeypatch, tmp_path
):
    settings = {f"algorithm.{name}": value for name, value in algorithm.items()}
    if algorithm["kind"] == "dqn":
        settings["actions"] = "grid"
    settings |= {"track": "oval", "train.cars": 4, "train.seconds": 0, "train.steps": 640}
    settings |= {"evaluation.every": 10, "evaluation.trials": 1, "evaluation.laps": 1}
    whole, rounds, learners = Practice.round, [], []

    def broken(self, steps, progress):
        rounds.append(steps)
        learners.append(self.learner)
        if len(rounds) == 13:
            raise DivergedError("the gradients are not finite; look")
        return whole(self, steps, progress)

    monkeypatch.setattr(Practice, "round", broken)

    run = hotlap.train(None, settings, out=tmp_path / "run")

    (back,) = [event for event in run.events() if event["kind"] == "rolled_back"]
    assert rounds[13] == back["steps"] < rounds[12]
    assert learners[12] is not learners[13]
    steps = [row["steps"] for row in run.metrics_rows()]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 640
    assert all(np.isfinite(array).all() for array in run.read_policy("last")[1].values())


def test_a_gpu_that_is_full_is_said_in_words(no_outcome, monkeypatch, tmp_path):
    class OutOfMemoryError(RuntimeError):
        """What torch raises, which may not be there."""

    def full(self, batch, *, progress):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("hotlap.algorithms.ppo.PPO.update", full)

    with pytest.raises(ConfigError, match=r"algorithm\.minibatch: the memory of the GPU is full"):
        hotlap.train(None, TINY, out=tmp_path / "run")


def test_a_step_size_that_falls_over_no_budget_is_noticed(no_outcome, tmp_path, capsys):
    endless = {"train.steps": 0, "train.target_reward": -1e9, "algorithm.schedule": "linear"}

    run = hotlap.train(None, TINY | endless, out=tmp_path / "run", quiet=False)

    assert "falls over a budget, and there is none" in capsys.readouterr().err
    assert {row["learning_rate"] for row in run.metrics_rows()} == {2e-3}


def test_rewards_that_are_no_numbers_are_not_tried_again(no_outcome, monkeypatch, tmp_path):
    from hotlap.algorithms.ppo import PPO

    update, calls = PPO.update, []

    def broken(self, batch, *, progress):
        calls.append(1)
        if len(calls) == 2:
            batch.reward[0, 0] = np.nan
        return update(self, batch, progress=progress)

    monkeypatch.setattr(PPO, "update", broken)

    with pytest.raises(SimulationError, match="rewards are not finite"):
        hotlap.train(None, TINY, out=tmp_path / "run")
    assert len(calls) == 2


def test_updates_come_after_episodes_where_that_is_asked_for(no_outcome, tmp_path):
    settings = TINY | {"algorithm.episodes": 8, "rules.time_limit": 1.0}

    run = hotlap.train(None, settings, out=tmp_path / "run")

    rows = run.metrics_rows()
    ended = np.diff([0, *(row["episodes"] for row in rows)])
    assert (ended >= 8).all()
    # of 16 cars none can end twice in the step that makes them enough
    assert (ended < 8 + 16).all()
    assert len({row["steps"] for row in rows}) > 1


def test_an_update_waits_for_no_more_transitions_than_it_may(no_outcome, tmp_path):
    settings = TINY | {"algorithm.episodes": 10**6, "algorithm.batch_max": 330}

    run = hotlap.train(None, settings, out=tmp_path / "run")

    # 330 transitions of 16 cars: 20 steps, 320 transitions
    assert [row["steps"] for row in run.metrics_rows()] == [320, 640, 960, 1280]


def test_a_reward_that_was_aimed_at_ends_it(no_outcome, tmp_path):
    settings = TINY | {"train.steps": 100_000, "train.target_reward": -50.0}
    settings |= {"rules.time_limit": 0.5}  # 16 cars, 7 steps an episode: 100 of them soon

    run = hotlap.train(None, settings, out=tmp_path / "run")

    rows = run.metrics_rows()
    assert rows[-1]["episodes"] >= 100
    assert all(row["episodes"] < 100 for row in rows[:-1])
    event = next(event for event in run.events() if event["kind"] == "target_reward")
    assert event["reward"] == pytest.approx(rows[-1]["reward"], rel=1e-5)
    run.write_report({"track": "oval"})
    with pytest.raises(RunError, match=r"has reached its train.target_reward of -50"):
        hotlap.train(resume=run.path)
    longer = hotlap.train(None, {"train.target_reward": 1e9, "train.steps": 2560}, resume=run.path)
    assert longer.metrics_rows()[-1]["steps"] == 2560


@pytest.fixture
def racer(tmp_path, monkeypatch):
    """A DeepRacer folder with a name for its model."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "racer"
    place.mkdir()
    (place / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
    env = "DR_WORLD_NAME=oval\nDR_LOCAL_S3_MODEL_PREFIX=my/first\n"
    (place / "run.env").write_text(env)
    return place


QUICK = TINY | {"observation.actor": ["state"], "train.steps": 256, "evaluation.every": 0}


def test_a_folder_names_its_run_and_the_one_it_starts_from(no_outcome, racer, monkeypatch):
    read, asked = Run.read_state, []
    monkeypatch.setattr(
        Run, "read_state", lambda run, which: asked.append((run.name, which)) or read(run, which)
    )
    env = (racer / "run.env").read_text()

    first = hotlap.train(racer, QUICK)
    again = hotlap.train(racer, QUICK)
    more = "DR_LOCAL_S3_PRETRAINED=True\nDR_LOCAL_S3_PRETRAINED_PREFIX=my/first\n"
    (racer / "run.env").write_text(env.replace("first", "second") + more)
    second = hotlap.train(racer, QUICK)

    places = [str(run.path) for run in (first, again, second)]
    assert places == ["runs/my-first", "runs/my-first-2", "runs/my-second"]
    assert asked == [("my-first", "last")]  # as DeepRacer-for-Cloud assumes
    event = next(event for event in second.events() if event["kind"] == "weights_from")
    assert (event["run"], event["checkpoint"]) == ("runs/my-first", "last")


def test_from_wins_over_what_a_folder_names(no_outcome, racer, capsys):
    first = hotlap.train(racer, QUICK)
    with (racer / "run.env").open("a") as file:
        file.write("DR_LOCAL_S3_PRETRAINED=1\nDR_LOCAL_S3_PRETRAINED_PREFIX=my/first\n")

    run = hotlap.train(
        racer,
        QUICK,
        weights_from=first.path,
        checkpoint="best",
        out="other",
        quiet=False,
        plain=True,
    )

    event = next(event for event in run.events() if event["kind"] == "weights_from")
    assert event["checkpoint"] == "best"
    assert "wins over runs/my-first, which the folder names" in capsys.readouterr().err


def test_workers_without_ray_are_refused_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hotlap\[distributed\]'"):
        hotlap.train(None, {"distributed.workers": 2}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
