"""Evaluation says what a driver did: against drivers and courses whose laps are known."""

import importlib
import math
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError, RunError, TrackError
from hotlap.runs import Run
from hotlap.tasks.rules import RulesSettings
from hotlap.track import load_track

module = importlib.import_module("hotlap.evaluate")  # `hotlap.evaluate` itself is the verb

SETTINGS = {
    "track": "oval",
    "actions.steering_low_deg": -30,
    "actions.steering_high_deg": 30,
    "actions.speed_low": 0.0,
    "actions.speed_high": 4.0,
}


def evaluation(trials=3, laps=2, **more):
    settings = resolve(EnvSettings, SETTINGS, more)
    return module.evaluation_env(settings, trials=trials, laps=laps, threads=1)


def follower(env, speed=1.5):
    """Drive along the centre line: the curve's own steering, corrected by offset and heading."""

    def act(observation):
        state = env.state
        angle = 0.17 * state.curvature - 2.0 * state.n - 1.0 * state.heading_error
        steer = np.clip(np.degrees(angle) / 30, -1, 1)
        return np.stack([steer, np.full(env.rows, speed / 4 * 2 - 1)], axis=1).astype(np.float32)

    return act


def still(env, steer=0.0, speed=-1.0):
    return lambda observation: np.tile(np.float32([steer, speed]), (env.rows, 1))


def test_a_flying_lap_takes_length_over_speed():
    env = evaluation(laps=3)
    track = env.simulator.tracks[0]

    report = module.evaluate_policy(env, follower(env))

    assert (report.completion, report.progress, report.laps_completed) == (1.0, 1.0, 9)
    assert [len(times) for times in report.lap_times_s] == [3, 3, 3]
    for (first, second, third), trace in zip(report.lap_times_s, report.traces, strict=True):
        flying = trace["speed"][trace["lap"] == 1].mean()
        assert second == pytest.approx(track.length / flying, rel=0.01)
        assert third == pytest.approx(second, rel=0.005)
        assert first > second  # it starts at rest
    every = [t for times in report.lap_times_s for t in times]
    assert report.best_lap_s == min(every)
    assert report.mean_lap_s == pytest.approx(sum(every) / 9)
    assert report.best_lap_s == min(report.lap_times_s[report.best_trial])


def test_a_report_stands_beside_the_bound_of_its_own_track_car_and_rule(monkeypatch):
    asked = []

    def bound(track, vehicle, rule):
        asked.append((track.name, vehicle.name, rule))
        return SimpleNamespace(lap_s=5.0)

    monkeypatch.setattr(module, "lap_bound", bound)
    env = evaluation(laps=1, **{"rules.off_track": "centre"})
    report = module.evaluate_policy(env, follower(env))
    assert (report.limit_s, report.limit_ratio) == (None, None)

    found = module._with_limit(report, env)

    assert asked == [("oval", "deepracer", "centre")]
    assert (found.limit_s, found.alarm) == (5.0, None)
    assert found.limit_ratio == pytest.approx(report.best_lap_s / 5.0)


def test_the_whole_road_is_open_to_an_evaluation():
    env, near = evaluation(**{"rules.margin": 0.5}), RulesSettings(margin=0.5)

    assert env.margin == 0
    assert VectorEnv(env.settings.model_copy(update={"rules": near}), 1).margin == 0.5


def test_no_lap_and_no_bound_leave_the_ratio_open(monkeypatch):
    env = evaluation(**{"rules.immobilized_distance": 0.02})
    report = module.evaluate_policy(env, still(env))

    monkeypatch.setattr(module, "lap_bound", lambda *asked: SimpleNamespace(lap_s=5.0))
    assert module._with_limit(report, env).limit_ratio is None
    assert module._with_limit(report, env).limit_s == 5.0

    monkeypatch.setattr(module, "lap_bound", lambda *asked: None)
    assert module._with_limit(report, env) == report


def test_a_car_that_hardly_moves_is_immobilized_after_fifteen_steps():
    # At the car's slowest, 0.1 m/s, a step is 7 mm long.
    env = evaluation(**{"rules.immobilized_distance": 0.02})

    report = module.evaluate_policy(env, still(env))

    assert (report.immobilized, report.off_tracks, report.laps_completed) == (3, 0, 0)
    assert (report.completion, report.best_lap_s, report.mean_lap_s) == (0.0, None, None)
    assert [len(trace["t"]) for trace in report.traces] == [16, 16, 16]


def test_a_car_that_goes_straight_on_leaves_the_track():
    env = evaluation()

    report = module.evaluate_policy(env, still(env, speed=1.0))

    assert (report.off_tracks, report.immobilized, report.completion) == (3, 0, 0.0)
    assert 0 < report.progress < 0.5


def test_trials_are_counted_each():
    env = evaluation(trials=2)
    drive = follower(env)

    report = module.evaluate_policy(env, lambda seen: drive(seen) * np.float32([[1, 1], [0, 1]]))

    assert (report.completion, report.off_tracks) == (0.5, 1)
    assert report.best_trial == 0
    assert report.lap_times_s[1] == ()


def test_every_evaluation_has_the_same_starts():
    env = evaluation()

    first, second = (module.evaluate_policy(env, follower(env)) for _ in range(2))
    other = module.evaluate_policy(env, follower(env), seed=1)

    assert first == second
    for one, same, apart in zip(first.traces, second.traces, other.traces, strict=True):
        np.testing.assert_array_equal(one["x"], same["x"])
        assert (one["n"][0] == apart["n"][0]) == (one["n"][0] == 0)
    assert first.traces[0]["n"][0] == first.traces[0]["s"][0] == first.traces[0]["speed"][0] == 0
    length = env.simulator.tracks[0].length
    starts = [float(trace["s"][0]) for trace in first.traces]
    np.testing.assert_allclose(starts, np.arange(3) * length / 3, rtol=1e-5, atol=1e-5)


def test_a_trace_is_what_was_driven():
    env = evaluation(trials=1)

    report = module.evaluate_policy(env, follower(env))

    trace = report.traces[0]
    np.testing.assert_allclose(np.diff(trace["t"]), 1 / 15, rtol=1e-3)
    driven = np.hypot(np.diff(trace["x"]), np.diff(trace["y"])).sum()
    assert driven == pytest.approx(2 * env.simulator.tracks[0].length, rel=0.02)
    np.testing.assert_allclose(trace["command_speed"], 1.5, rtol=1e-6)
    assert (trace["lap"][0], trace["lap"][-1]) == (0, 2)


@pytest.fixture
def straight(tmp_path):
    x = np.linspace(0, 12, 40)
    rows = np.stack([x, 0 * x, x, 0 * x + 0.4, x, 0 * x - 0.4], axis=1)
    np.save(tmp_path / "straight.npy", rows)
    return tmp_path / "straight.npy"


def test_an_open_track_is_driven_once_to_its_end(straight):
    env = evaluation(trials=4, laps=3, track=str(straight))

    report = module.evaluate_policy(env, follower(env))

    assert (report.laps_per_trial, report.completion, report.laps_completed) == (1, 1.0, 4)
    assert [float(trace["s"][0]) for trace in report.traces] == [0.0] * 4
    # 12 m at 1.5 m/s are 8 s; the start at rest costs a little, the speed's overshoot less.
    assert report.best_lap_s == pytest.approx(8.0, abs=0.3)


def test_it_has_no_say_in_what_is_random_or_reversed():
    settings = resolve(
        EnvSettings, SETTINGS, {"start.kind": "random", "start.direction": "alternate"}
    )

    env = module.evaluation_env(settings, trials=2, laps=1)

    assert len(env.simulator.tracks) == 1
    assert not env.simulator.tracks[0].reverse_direction
    settings = resolve(EnvSettings, SETTINGS, {"start.direction": "reversed"})
    env = module.evaluation_env(settings, trials=2, laps=1)
    assert env.simulator.tracks[0].reverse_direction


def test_the_reward_is_told_only_where_it_was_computed():
    # A reward of one a step: the mean over the trials is their mean number of steps.
    env = module.evaluation_env(
        resolve(EnvSettings, SETTINGS, {"reward.kind": "centre", "reward.off_track_fine": 0}),
        trials=2,
        laps=1,
        rewarded=True,
    )

    report = module.evaluate_policy(env, follower(env), rewarded=True)

    steps = np.mean([len(trace["t"]) - 1 for trace in report.traces])
    assert 0.5 * steps < report.mean_reward < steps
    assert module.evaluate_policy(env, follower(env)).mean_reward is None


def test_trials_take_turns_over_several_tracks():
    # At 1.5 m/s each trial's flying lap takes the length of its own track over 1.5 m/s.
    env = evaluation(trials=4, laps=2, track="oval,easy,kart")

    report = module.evaluate_policy(env, follower(env))

    assert report.tracks == ("oval", "easy", "kart", "oval")
    assert report.track == "oval,easy,kart"
    assert report.finished == (True,) * 4
    assert report.laps_completed == 8
    for name, times in zip(report.tracks, report.lap_times_s, strict=True):
        assert times[1] == pytest.approx(load_track(name).length / 1.5, rel=0.08)


def test_fewer_trials_than_tracks_are_on_the_first_ones():
    env = evaluation(trials=2, laps=1, track="oval,easy,medium")

    assert [track.name for track in env.simulator.tracks] == ["oval", "easy"]


def test_cars_are_nominal_unless_asked_otherwise():
    # Speeds settle at 0.8 of what is asked for, so a lap takes 1 / 0.8 as long.
    settings = resolve(
        EnvSettings, SETTINGS, {"randomize.speed_gain": [0.8, 0.8], "randomize.success": 0.9}
    )
    laps = {}
    for randomized in (False, True):
        env = module.evaluation_env(settings, trials=1, laps=2, randomized=randomized)
        laps[randomized] = module.evaluate_policy(env, follower(env)).best_lap_s

    assert laps[False] == pytest.approx(env.simulator.tracks[0].length / 1.5, rel=0.03)
    assert laps[True] == pytest.approx(laps[False] / 0.8, rel=0.02)


def test_the_dictionary_holds_what_others_build_on():
    env = evaluation(trials=1, laps=1)

    found = module.evaluate_policy(env, follower(env)).as_dict()

    assert set(found) >= {
        *("track", "vehicle", "trials", "laps_completed", "completion", "lap_times_s"),
        *("best_lap_s", "mean_lap_s", "off_tracks", "crashes", "limit_s", "limit_ratio"),
    }
    assert "traces" not in found
    assert {field.name for field in fields(module.Report)} - set(found) == {"traces", "episodes"}
    assert (found["track"], found["vehicle"], found["trials"]) == ("oval", "deepracer", 1)


def steering_run(path, steering=0.0, settings=""):
    """Write a Run whose driver answers one action whatever it sees."""
    run = Run.create(path, f'track = "oval"\n{settings}', {})
    with run:
        env = module.evaluation_env(module.env_settings(run), trials=1, laps=1)
        size = env.spaces["state"].shape[0]
        plan = {"images": {}, "vectors": {"state": size}, "hidden": [], "activation": "tanh"}
        arrays = {
            "head.weight": np.zeros((2, size), np.float32),
            "head.bias": np.float32([steering, 1.0]),
            "log_std": np.zeros(2, np.float32),
            "normalizer.state.mean": np.zeros(size, np.float32),
            "normalizer.state.std": np.ones(size, np.float32),
        }
        said = {"format": 1, "plan": plan | {"outputs": 2}, "action": "continuous"}
        run.write_checkpoint(0, policy=(said, arrays), state=({}, {}), best=True)
    return run


def test_a_run_is_evaluated_by_object_or_directory(tmp_path):
    run = steering_run(tmp_path / "run")

    reports = [module.evaluate(one, trials=2, laps=1) for one in (run, run.path, str(run.path))]

    assert reports[0] == reports[1] == reports[2]
    assert reports[0].off_tracks == 2
    assert module.evaluate(run, track="hard", trials=1).track == "hard"
    each = module.evaluate(run, track="generated:7:difficulty=0.1", laps=1)
    assert (each.trials, len(set(each.tracks)), each.limit_s) == (7, 7, None)


def test_randomised_cars_have_no_common_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "lap_bound", lambda *asked: SimpleNamespace(lap_s=2.5))
    run = steering_run(tmp_path / "run")

    limits = [module.evaluate(run, trials=1, randomized=way).limit_s for way in (False, True)]

    assert limits == [2.5, None]


def test_a_saved_policy_acts(tmp_path):
    run = steering_run(tmp_path / "run", steering=0.25)
    policy = module.load_policy(run.path)
    size = policy._saved.plan.vectors["state"]

    action = policy.act({"state": np.ones((3, size), np.float32)})

    np.testing.assert_array_equal(action, np.tile(np.float32([0.25, 1.0]), (3, 1)))


def test_what_cannot_be_evaluated_is_said(tmp_path):
    run = steering_run(tmp_path / "run")

    with pytest.raises(ConfigError, match="3 tracks need as many starts"):
        module.evaluate(run, track="oval,hard,easy", trials=2)
    with pytest.raises(TrackError, match="did you mean oval"):
        module.evaluate(run, track="ovl")
    with pytest.raises(RunError, match="no such directory"):
        module.evaluate(tmp_path / "nowhere")
    (run.path / "config.toml").write_text('track = "oval"\n[actions]\nkind = "grid"\n')
    with pytest.raises(RunError, match=r"config\.toml describes .* changed after training"):
        module.evaluate(run)
    (run.path / "config.toml").write_text("track = oval")
    with pytest.raises(ConfigError, match=r"config\.toml: not valid TOML"):
        module.evaluate(run)


def test_limits_of_time_leave_a_slow_driver_room():
    # At 0.6 m/s a lap of L m takes L / 0.6 s, below the 2 s a metre that are allowed.
    env = evaluation(trials=1, laps=1)

    report = module.evaluate_policy(env, follower(env, 0.6))

    assert report.completion == 1
    assert math.isclose(report.best_lap_s, env.simulator.tracks[0].length / 0.6, rel_tol=0.03)
