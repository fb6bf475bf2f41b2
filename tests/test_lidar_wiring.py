"""The LIDAR as an observation: of environments, of PPO's network, together with other sensors."""

import numpy as np
import pytest

from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.ppo import make_ppo
from hotlap.algorithms.settings import PPOSettings
from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.runner import Runner, action_spec, observation_specs

SMALL = {"observation.camera.width": 32, "observation.camera.height": 24}


def settings(**given):
    return resolve(EnvSettings, {k.replace("__", "."): v for k, v in given.items()})


def env(rows=3, seed=0, **given):
    return VectorEnv(settings(**given), rows, seed=seed)


def test_an_environment_gives_scans_of_its_track():
    seen = env(rows=4, observation__actor=["lidar"], observation__critic=["lidar"])

    scan = seen.begin()["lidar"]

    assert scan.shape == (4, 64)
    assert seen.single_observation_space.contains(scan[0])
    state = seen.state
    direct = seen.simulator.lidar.scan(state.x, state.y, state.yaw, state.track)
    np.testing.assert_array_equal(scan, direct)
    assert (scan.min(axis=1) <= np.minimum(state.left - state.n, state.right + state.n) * 1.2).all()


def test_the_lidar_stands_beside_state_and_camera():
    names = ["lidar", "camera", "state"]

    first = env(observation__actor=names, **SMALL).begin()

    assert list(first) == ["state", "camera", "lidar"]


@pytest.mark.parametrize(
    ("kind", "size", "values"),
    [("deepracer", 64, (0.15, 1)), ("deepracer_sectors", 8, (0, 1)),
     ("deepracer_discretized", 64, (0, 1))],
)  # fmt: skip
def test_deepracer_lidars_see_other_cars(kind, size, values):
    given = {"observation__lidar__kind": kind, "traffic__cars": 2, "start__kind": "line"}
    crowd = env(rows=2, observation__actor=["lidar"], **given)
    alone = env(rows=2, observation__actor=["lidar"], observation__lidar__kind=kind)

    here, nothing = crowd.begin()["lidar"], alone.begin()["lidar"]

    assert here.shape == (2, size)
    assert values[0] <= here.min() <= here.max() <= values[1]
    # Row 1 has been put ahead of row 0, 1 m between the two: the LIDAR looks back, so row 1 sees
    # row 0 and is not seen by it. What is near for sectors is 0.5 m.
    seen = (here != nothing).any(axis=1)
    assert seen.tolist() == [False, kind != "deepracer_sectors"]
    assert np.unique(nothing).tolist() == ([1.0] if kind == "deepracer" else [0.0])


def test_noise_has_its_size_and_is_the_same_again():
    noise = {"observation__lidar__noise": 0.05, "observation__lidar__range_max": 30}
    noisy, again, other = (
        env(rows=200, seed=seed, observation__actor=["lidar"], start__kind="line", **noise)
        for seed in (0, 0, 1)
    )
    clean = env(rows=200, observation__actor=["lidar"], start__kind="line",
                observation__lidar__range_max=30)  # fmt: skip

    error = noisy.begin()["lidar"] - clean.begin()["lidar"]

    # 12,800 draws: the deviation is known to 0.6 %, the mean to 0.0004
    assert error.std() == pytest.approx(0.05, rel=0.03)
    assert abs(error.mean()) < 0.002
    np.testing.assert_array_equal(again.begin()["lidar"], noisy.observe()["lidar"])
    assert (other.begin()["lidar"] != noisy.observe()["lidar"]).mean() > 0.99


def test_what_is_saved_continues_with_the_same_noise():
    noise = {"observation__lidar__noise": 0.05, "observation__actor": ["lidar"]}
    one, two = env(seed=7, **noise), env(seed=8, **noise)
    one.begin()
    two.begin()
    one.advance(np.zeros((3, 2)))
    two.restore(one.save())

    first, second = (world.advance(np.zeros((3, 2))).observation["lidar"] for world in (one, two))

    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("actor", [["lidar"], ["lidar", "state"], ["camera", "lidar"]], ids=str)
def test_ppo_learns_from_scans_and_its_driver_drives(actor):
    world = env(rows=8, observation__actor=actor, observation__critic=["lidar", "state"], **SMALL)
    runner = Runner(world, seed=0)
    learner = make_ppo(
        PPOSettings(epochs=2, minibatch=64), observation_specs(world), action_spec(world),
        actor=tuple(actor), critic=("lidar", "state"), seed=0,
    )  # fmt: skip
    before = {k: v.copy() for k, v in learner.policy_state()[1].items()}

    for _ in range(3):
        metrics = learner.update(runner.collect(learner, 16)[0], progress=0.0)

    assert np.isfinite(list(metrics.values())).all()
    description, after = learner.policy_state()
    assert any((after[k] != before[k]).any() for k in after if k.startswith("hidden0"))
    assert after["normalizer.lidar.mean"].shape == (64,)
    driven = NumpyPolicy(description, after).act(world.observe())
    assert driven.shape == (8, 2)


@pytest.mark.parametrize("name", ["state", "camera", "lidar"])
def test_a_late_sensor_shows_what_was_there_so_many_steps_ago(name):
    now = env(rows=3, observation__actor=[name], observation__critic=[name], **SMALL)
    clock = {f"observation.{name}.clock.latency": 2 / 15}
    late = env(rows=3, observation__actor=[name], observation__critic=[name], **SMALL, **clock)
    action = np.full((3, 2), 0.3)

    seen = [[world.begin()[name]] for world in (now, late)]
    for _ in range(6):
        for world, found in zip((now, late), seen, strict=True):
            found.append(world.advance(action).observation[name])

    for k in range(7):
        np.testing.assert_array_equal(seen[1][k], seen[0][max(k - 2, 0)])
    assert (seen[0][6] != seen[0][4]).any()


def test_what_is_saved_continues_with_what_was_under_way():
    given = {"observation.camera.clock.latency": 0.2, "observation.camera.clock.drop": 0.3}
    one, two = (env(observation__actor=["camera"], **SMALL, **given) for _ in range(2))
    action = np.full((3, 2), 0.2)
    one.begin()
    for _ in range(5):
        one.advance(action)
    two.restore(one.save())

    for _ in range(5):
        here, there = (world.advance(action).observation for world in (one, two))

        np.testing.assert_array_equal(here["camera"], there["camera"])


def test_a_late_sensor_starts_anew_with_each_episode():
    given = {"observation.state.clock.latency": 0.2, "rules.time_limit": 0.4}
    world = env(rows=2, observation__actor=["state"], **given)
    plain = env(rows=2, observation__actor=["state"], **{"rules.time_limit": 0.4})
    world.begin()
    plain.begin()

    ends = 0
    for _ in range(20):
        late, now = (one.advance(np.zeros((2, 2))) for one in (world, plain))
        np.testing.assert_array_equal(late.ended, now.ended)
        if len(late.ended):
            ends += 1
            rows = late.ended
            np.testing.assert_array_equal(
                late.observation["state"][rows], now.observation["state"][rows]
            )
            assert (late.reached["state"] != now.reached["state"]).any()
    assert ends >= 2
