"""The environment where something shares the road: what is seen, what ends, what is counted."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import hotlap  # registers the environments
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.evaluate import evaluate_policy, evaluation_env
from hotlap.tasks.rules import Status

BASE = {
    "track": "oval",
    "start.kind": "line",
    "rules.immobilized_steps": 0,
    "rules.reversed_steps": 0,
    "actions.speed_low": 0.1,
}


def cars(rows, seed=0, **settings):
    env = VectorEnv(resolve(EnvSettings, BASE, settings), rows, seed=seed)
    env.begin()
    return env


def ahead(env, speed=1.0):
    """Drive along the centre line."""
    state = env.state
    wanted = np.clip(-1.5 * state.n - 1.2 * state.heading_error + 0.24 * state.curvature, -0.5, 0.5)
    low, high = env.settings.actions.speed_low, env.settings.actions.speed_high
    throttle = np.full(env.rows, 2 * (speed - low) / (high - low) - 1, np.float32)
    return np.stack([wanted / np.radians(30), throttle], axis=1).astype(np.float32)


@pytest.mark.parametrize("task", ["ObjectAvoidance", "HeadToBot"])
def test_gymnasium_finds_nothing_wrong_where_others_are_on_the_road(task):
    assert hotlap.VectorEnv is VectorEnv

    env = gymnasium.make(f"hotlap/{task}-v0", track="reinvent_like")

    check_env(env.unwrapped)
    # 11 own features, 8 points, and 4 features of each of 4 objects
    assert env.observation_space.shape == (11 + 16 + 16,)


def test_a_settings_keyword_wins_over_the_task_of_the_id():
    envs = gymnasium.make_vec(
        "hotlap/ObjectAvoidance-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        **{"traffic.obstacles": 5},
    )

    assert envs.unwrapped.simulator.state.around.boxes.shape == (2, 5, 8)


def test_a_car_that_follows_the_line_ends_at_the_obstacle_on_it():
    # the box stands 0.2 of a lap ahead of the line, right on it; the car's nose is 0.16 m ahead of
    # its middle and the box begins 0.15 m before its own
    env = cars(1, **{"traffic.obstacles": 1, "traffic.positions": [(0.2, 0.0)]})
    length = env.lengths[0]

    for _ in range(300):
        step = env.advance(ahead(env))
        if len(step.ended):
            break

    assert step.terminated.tolist() == [True]
    assert step.episodes.status.tolist() == [Status.CRASHED]
    hit = env.previous.s[0]
    assert 0.2 * length - 0.15 - 0.16 < hit < 0.2 * length - 0.15 - 0.16 + 1.1 / 15 + 0.01
    assert step.reward[0] < -0.9  # the fine


def test_cars_that_may_push_go_on_after_a_contact():
    env = cars(
        1,
        **{"traffic.obstacles": 1, "traffic.positions": [(0.2, 0.0)], "rules.crash": False},
    )

    touched = 0
    for _ in range(150):
        step = env.advance(ahead(env))
        assert not len(step.ended)
        touched += env.previous.around.contact[0] >= 0

    assert touched > 5
    assert env.state.s[0] < 0.2 * env.lengths[0]


def test_cars_of_a_world_start_on_a_grid_and_share_its_obstacles():
    env = cars(6, **{"traffic.cars": 3, "traffic.obstacles": 2, "start.offset": 0.5})

    state = env.state
    np.testing.assert_array_equal(state.world, [0, 0, 0, 1, 1, 1])
    middle = 0.5 * env.lengths[0]
    # 0.75 m apart is closer than the least gap of 1 m, so the second and third were moved
    assert (np.abs(state.s[:3] - middle) < 2.5).all()
    assert np.sign(state.n[:3]).tolist() == [1, -1, 1]
    seen = state.around.boxes[:, :2, :2]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[3]).all()


def test_adding_worlds_does_not_change_the_first_ones():
    settings = {"traffic.cars": 2, "traffic.bots": 2, "traffic.lane_change": (1, 2)}
    few, many = cars(4, seed=3, **settings), cars(8, seed=3, **settings)

    for _ in range(120):
        one, other = few.advance(ahead(few, 2.0)), many.advance(ahead(many, 2.0))

    np.testing.assert_array_equal(few.state.x, many.state.x[:4])
    np.testing.assert_array_equal(one.observation["state"], other.observation["state"][:4])


def test_an_interrupted_race_goes_on_as_if_it_had_not_been():
    settings = {"traffic.cars": 2, "traffic.bots": 1, "traffic.obstacles": 1}
    whole, other = cars(4, seed=1, **settings), cars(4, seed=2, **settings)
    for _ in range(30):
        whole.advance(ahead(whole))

    other.restore(whole.save())
    for _ in range(60):
        one, two = whole.advance(ahead(whole)), other.advance(ahead(other))

    np.testing.assert_array_equal(one.observation["state"], two.observation["state"])
    np.testing.assert_array_equal(whole.state.around.boxes, other.state.around.boxes)


def test_cars_that_share_a_track_cannot_alternate_their_direction():
    with pytest.raises(ConfigError, match=r"start\.direction: cars that share a track"):
        cars(2, **{"traffic.cars": 2, "start.direction": "alternate"})


def test_a_report_counts_crashes_and_the_clock():
    settings = resolve(
        EnvSettings, BASE, {"traffic.obstacles": 1, "traffic.positions": [(0.95, 0.0)]}
    )
    env, alone = (evaluation_env(settings, trials=trials, laps=1) for trials in (3, 1))

    crashed = evaluate_policy(env, lambda seen: ahead(env))
    slow = evaluate_policy(alone, lambda seen: ahead(alone, 0.1))

    # every start has to pass the place before its lap is over; at 0.1 m/s nobody gets there
    assert (crashed.crashes, crashed.completion, crashed.timed_out) == (3, 0.0, 0)
    assert (slow.timed_out, slow.crashes) == (1, 0)


def test_every_car_of_a_world_is_a_trial():
    settings = resolve(EnvSettings, BASE, {"traffic.cars": 2})
    env = evaluation_env(settings, trials=2, laps=1)

    report = evaluate_policy(env, lambda seen: ahead(env))

    assert report.trials == 4
    assert report.completion == 1.0


def test_the_camera_sees_what_is_on_the_road():
    seen = {"observation.actor": ["camera"], "traffic.positions": [[0.1, 0]]}
    alone, shared = (
        cars(1, **seen, **{"traffic.bots": 1}),
        cars(1, **seen, **{"traffic.obstacles": 1}),
    )

    there, box = (env.simulator.sense("camera")[0, :, :, 0].astype(int) for env in (alone, shared))
    empty = cars(1, **{"observation.actor": ["camera"]}).simulator.sense("camera")[0, :, :, 0]

    assert (there != empty).sum() > 100
    assert (box != empty).sum() > (there != empty).sum()  # 0.4 x 0.25 m, and a car 0.2 m wide


def test_a_pair_of_cameras_is_an_image_of_two_channels():
    pair = {"observation.actor": ["camera"], "observation.camera.stereo_baseline": 0.06}
    env = cars(2, **pair, **{"traffic.obstacles": 1})

    assert env.observe()["camera"].shape == (2, 120, 160, 2)
    assert env.single_observation_space["camera"].shape == (120, 160, 2)


def test_a_trace_holds_what_stood_where():
    settings = resolve(EnvSettings, BASE, {"traffic.obstacles": 2, "traffic.bots": 1})
    env = evaluation_env(settings, trials=2, laps=1)

    trace = evaluate_policy(env, lambda _: ahead(env)).traces[0]

    boxes = trace["boxes"]
    assert boxes.shape == (len(trace["t"]), 3, 8)
    assert np.ptp(boxes[:, :2, :2], axis=0).max() == 0
    driven = np.hypot(*np.diff(boxes[:, 2, :2], axis=0).T).sum()
    assert driven == pytest.approx(0.2 * trace["t"][-1], rel=0.1)  # on a lane: not quite its length


def test_places_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="1 are given for 0 obstacles and bots"):
        cars(1, **{"traffic.positions": [(0.2, 0.0)]})
