"""Saved drivers beside the cars that learn: who drives what, and that nobody else notices."""

from dataclasses import replace

import numpy as np
import pytest

from drivers import driver, follower, saved
from hotlap.config import resolve
from hotlap.crew import NOBODY, Driver
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.drivers import driver_task
from hotlap.errors import ConfigError, RunError
from hotlap.simulator import Start

STILL = {
    "track": "oval",
    "start.kind": "line",
    "rules.immobilized_steps": 0,
    "rules.reversed_steps": 0,
    "actions.speed_low": 0.0,
}


def world(rows, drivers, seed=0, **settings):
    named = {"opponents.drivers": [str(name) for name in drivers]}
    env = VectorEnv(resolve(EnvSettings, STILL, named, settings), rows, seed=seed)
    env.begin()
    return env


def stand(env):
    """Let the learning cars stand where they are."""
    return np.tile(np.float32([0, -1]), (env.rows, 1))


def others(env):
    """Return who drives each row that does not learn."""
    return env.opponents.crew.seat[env.opponents.opposing]


def test_an_opponent_drives_as_it_does_alone_when_nobody_is_near(tmp_path):
    name = saved(tmp_path / "a", 2.0)
    # The learning car stays behind; alone, the same driver starts from the same place.
    env = world(2, [name], **{"rules.time_limit": 3.0, "rules.crash": False})
    own = {key: value for key, value in STILL.items() if not key.startswith("actions")}
    alone = VectorEnv(resolve(EnvSettings, own), 1)
    alone.begin()
    row = env.opponents.opposing[1]  # in world 1 it is ahead of the learning car
    start = Start.on_line(1, s=env.opponents.everyone.s[row])
    alone.simulator.reset(np.array([0]), replace(start, n=env.opponents.everyone.n[[row]]))
    lonely = driver("a", 2.0)

    for step in range(40):
        alone.advance(lonely.act(alone.observe()))
        env.advance(stand(env))

        everyone = env.opponents.everyone
        for field in ("x", "y", "yaw", "vx", "vy", "steering", "travelled"):
            one, other = getattr(everyone, field)[row], getattr(alone.state, field)[0]
            assert one.tobytes() == other.tobytes(), (step, field)
    assert everyone.travelled[row] > 4


def test_what_a_driver_answers_does_not_depend_on_who_else_is_asked():
    one = driver("a", 2.0)
    seen = np.random.default_rng(0).normal(size=(70, 27)).astype(np.float32)

    every = one.act({"state": seen})

    for rows in ([0], [69], [3, 1, 2], range(5, 70)):
        assert one.act({"state": seen[list(rows)]}).tobytes() == every[list(rows)].tobytes()
    np.testing.assert_allclose(every, one.policy.act({"state": seen}), atol=1e-6)


def test_the_learning_cars_take_turns_in_front():
    env = world(4, ["self"], **{"opponents.cars": 2, "traffic.cars": 2})

    # worlds of four: two learn. In world 0 places 0 and 1, in world 1 places 1 and 2
    assert env.opponents.learning.tolist() == [0, 1, 5, 6]
    assert env.opponents.opposing.tolist() == [2, 3, 4, 7]
    assert env.state.world.tolist() == [0, 0, 1, 1]


def test_the_environment_is_of_the_learning_cars_alone(tmp_path):
    env = world(6, [saved(tmp_path / "a", 2.0)], **{"opponents.cars": 2})

    step = env.advance(stand(env))

    assert env.observation_space.shape == step.observation["state"].shape == (6, 27 + 16)
    assert step.reward.shape == step.terminated.shape == env.state.x.shape == (6,)
    assert env.state.around.boxes.shape == (6, 2, 8)
    # the row's own state, not that of a neighbour
    np.testing.assert_array_equal(env.state.row, env.opponents.learning)
    np.testing.assert_array_equal(step.observation["state"][:, 5], env.state.n)
    assert len(env.opponents.everyone.x) == 18


def test_each_entry_is_drawn_equally_often_by_row_and_episode_alone(tmp_path):
    names = [saved(tmp_path / "a", 1.0), saved(tmp_path / "b", 2.0)]
    some = {"opponents.share": 0.5}
    env, wide = world(400, names, **some), world(600, names, **some)

    seat = others(env)

    # 400 draws of 1/2 nobody, 1/4 each: a deviation of 10 and 8.7
    counts = [(seat == who).sum() for who in (NOBODY, 0, 1)]
    assert abs(counts[0] - 200) < 40
    assert abs(counts[1] - 100) < 35
    assert abs(counts[2] - 100) < 35
    np.testing.assert_array_equal(others(wide)[:400], seat)
    assert (others(world(400, names, seed=1, **some)) != seat).any()


def test_each_car_is_driven_by_the_driver_in_its_seat(tmp_path):
    names = [saved(tmp_path / "a", 1.0), saved(tmp_path / "b", 2.0)]
    env = world(8, names, **{"opponents.share": 0.7, "rules.crash": False})
    assert set(others(env)) == {NOBODY, 0, 1}

    for _ in range(30):
        env.advance(stand(env))

    # after two seconds each has its driver's speed; a car never stops quite
    speed = env.opponents.everyone.vx[env.opponents.opposing]
    wanted = {NOBODY: 0.1, 0: 1.0, 1: 2.0}
    np.testing.assert_allclose(speed, [wanted[who] for who in others(env)], atol=0.06)


def test_an_empty_place_is_neither_seen_nor_touched(tmp_path):
    name = saved(tmp_path / "a", 1.0)
    env = world(8, [name], **{"opponents.share": 0.5})
    empty = np.zeros(8, bool)
    empty[env.opponents.everyone.world[env.opponents.opposing[others(env) == NOBODY]]] = True
    assert 0 < empty.sum() < 8

    for _ in range(20):
        step = env.advance(np.tile(np.float32([0, 0.2]), (8, 1)))
        if _ == 0:
            first = step.observation["state"]

    # without a box on the road there is nothing in front: the range, and zeros
    nothing = np.tile(np.float32([5, 0, 0, 0]), 4)
    np.testing.assert_array_equal(first[empty, 27:], np.tile(nothing, (empty.sum(), 1)))
    assert (env.state.around.boxes[empty, 0, 6] == 0).all()
    assert (env.state.around.boxes[~empty, 0, 6] > 0).all()
    assert (env.state.around.contact[empty] == -1).all()


def test_an_empty_place_stays_empty_until_the_time_limit():
    """Its car rolls off the road, which nobody sees and which ends nothing."""
    rolls = {"start.kind": "random", "start.heading_deg": 90.0, "start.lateral": 1.0}
    env = world(40, ["self"], **rolls, **{"rules.time_limit": 2.0, "opponents.share": 1e-9})

    off = np.zeros(40, bool)
    for _ in range(59):
        env.advance(stand(env))
        off |= env.opponents.everyone.wheels_off[env.opponents.opposing] == 4

    # 30 steps an episode: in the second one
    assert off.sum() > 5
    assert (env.opponents.everyone.episode[env.opponents.opposing] == 1).all()


def test_a_learning_car_sees_from_its_own_place(tmp_path):
    see = {"observation.actor": ["camera"], "observation.camera.width": 32,
           "observation.camera.height": 24, "opponents.cars": 2}  # fmt: skip
    env = world(4, [saved(tmp_path / "a", 1.5)], **see)
    step = env.advance(stand(env))

    native, rows = env.opponents._world, env.opponents.learning
    np.testing.assert_array_equal(step.observation["camera"], native.sense("camera", rows))
    np.testing.assert_array_equal(
        env.observe(np.array([2]))["camera"], native.sense("camera", rows[[2]])
    )
    assert (native.sense("camera", rows) != native.sense("camera")[:4]).any()


@pytest.mark.parametrize("way", [{"threads": 2}, {"first_row": 4}], ids=["threads", "workers"])
def test_neither_threads_nor_workers_change_a_race(way, tmp_path):
    """The same worlds on two threads, or the second half of them in an environment of its own."""
    runs = [str(saved(tmp_path / name, v)) for name, v in (("a", 1.0), ("b", 2.0))]
    named = {"opponents.drivers": runs}
    settings = resolve(EnvSettings, STILL, named, {"opponents.cars": 2, "traffic.cars": 2})
    first = way.get("first_row", 0)
    whole = VectorEnv(settings, 600, threads=1)
    part = VectorEnv(settings, 600 - first, **({"threads": 1} | way))
    same = slice(2 * first, None)  # as many opponents as learning cars

    for env in (whole, part):
        env.begin()
        for _ in range(12):
            step = env.advance(np.tile(np.float32([0, -0.5]), (env.rows, 1)))
        env.seen = step.observation["state"]

    np.testing.assert_array_equal(whole.seen[first:], part.seen)
    np.testing.assert_array_equal(whole.opponents.crew.seat[same], part.opponents.crew.seat)
    for field in ("x", "yaw", "vx", "row", "episode"):
        one, other = (getattr(env.opponents.everyone, field) for env in (whole, part))
        np.testing.assert_array_equal(one[same], other)


@pytest.mark.parametrize(
    ("drivers", "changes", "said"),
    [
        (["a"], {"vehicle": "f1tenth"}, "drives deepracer and this training f1tenth"),
        (["a"], {"control_rate": 30.0}, "acts 15 times a second and this training 30"),
        (["a", "b"], {}, "no such directory"),
        (["a"], {"start.direction": "alternate"}, "drive the same way"),
        (["a"], {"traffic.cars": 3}, "a multiple of 3 cars"),
        (["a"], {"opponents.cars": 31}, "need 32 m of road"),
    ],
)
def test_what_cannot_race_is_said_before_it_starts(drivers, changes, said, tmp_path):
    saved(tmp_path / "a", 1.0)

    with pytest.raises((ConfigError, RunError), match=said):
        world(4, [tmp_path / name for name in drivers], **changes)


def test_walls_that_an_opponent_would_see_in_two_places_are_said(tmp_path):
    both = {"observation.actor": ["state", "camera", "lidar"]}
    name = saved(tmp_path / "a", 1.0, settings=both)

    with pytest.raises(ConfigError, match=r"drivers: .*/a cannot drive here: look\.wall_offset is"):
        world(2, [name], **{"look.wall_height": 0.2, "look.wall_offset": 0.3})


def test_names_with_commas_are_a_list_and_no_names_are_nobody():
    def listed(words):
        return resolve(EnvSettings, {"opponents.drivers": words}).opponents.drivers

    assert listed("runs/a, self,") == ("runs/a", "self")
    assert listed("") == ()


# --- past versions ---


def admit(env, *speeds):
    for number, speed in enumerate(speeds):
        steps = 100 * number
        assert env.opponents.due(steps)
        task = {"actions.speed_low": 0.0}
        env.opponents.admit(driver(f"v{number}", speed, settings=task), steps)
        env.opponents.restart()


def pool(env):
    return [one.name for one in env.opponents.versions]


def test_a_place_without_a_version_yet_is_filled_as_soon_as_there_is_one():
    env = world(4, ["self"], **{"opponents.every": 100})
    assert (others(env) == NOBODY).all()
    env.advance(stand(env))

    admit(env, 1.0)
    assert not env.opponents.due(99)
    assert env.opponents.due(100)
    env.advance(stand(env))

    assert (others(env) == 0).all()
    assert (env.opponents.everyone.vx[env.opponents.opposing] > 0).all()


def test_the_oldest_version_makes_room():
    env = world(4, ["self"], **{"opponents.keep": 2, "opponents.every": 100})

    admit(env, 1.0, 1.5, 2.0)

    assert pool(env) == ["v1", "v2"]


def test_the_weakest_version_makes_room():
    # one second at about 1, 0.5 and 2 m/s, against episodes that nobody else has driven yet
    env = world(
        40, ["self"], **{"opponents.leaves": "weakest", "opponents.keep": 3,
        "opponents.every": 100, "rules.time_limit": 1.0, "rules.crash": False}
    )  # fmt: skip
    admit(env, 1.0, 0.5, 2.0)
    for _ in range(60):
        env.advance(stand(env))

    env.opponents.admit(driver("new", 3.0, settings={"actions.speed_low": 0.0}), 300)

    assert pool(env) == ["v0", "v2", "new"]


def test_an_episode_keeps_its_driver_to_its_end():
    env = world(4, ["self"], **{"opponents.keep": 1, "opponents.every": 100})
    admit(env, 1.0, 2.0)
    assert (others(env) == 0).all()
    assert [one.name for one in env.opponents.crew.drivers.values()] == ["v0", "v1"]

    for _ in range(20):
        env.advance(stand(env))
    slow = env.opponents.everyone.vx[env.opponents.opposing]
    for _ in range(1000):
        env.advance(stand(env))

    np.testing.assert_allclose(slow, 1.0, atol=0.06)
    assert (others(env) == 1).all()
    assert [one.name for one in env.opponents.crew.drivers.values()] == ["v1"]


def test_a_version_does_not_learn_on_when_the_learner_does():
    description, arrays = follower(1.0)
    version = Driver("v", driver("v", 1.0).task, description, arrays)
    seen = {"state": np.ones((1, 27), np.float32)}
    before, mark = version.act(seen), version.fingerprint

    for array in arrays.values():
        array += 1  # as an optimiser does, in place

    np.testing.assert_array_equal(version.act(seen), before)
    assert version.fingerprint == mark


# --- other senses ---

SENSES = {
    "camera": {
        "observation.actor": ["camera"],
        "observation.camera.width": 16,
        "observation.camera.height": 12,
        "observation.camera.clock.latency": 0.2,
    },
    "lidar": {"observation.actor": ["lidar"], "observation.lidar.clock.noise": 0.01},
    "odometry": {"observation.actor": ["odometry"]},
    "objects": {"traffic.cars": 3, "observation.state.objects": 1},
}


@pytest.mark.parametrize("settings", SENSES.values(), ids=SENSES)
def test_an_opponent_sees_what_it_would_see_at_the_wheel_of_a_learning_car(settings):
    """One world's opponent looks; in another world the same car learns, and observes the same."""
    calm = {"rules.crash": False, "rules.time_limit": 2.0, "rules.off_track": "never"}
    task = driver_task(resolve(EnvSettings, STILL, settings))
    learner = VectorEnv(resolve(EnvSettings, STILL, calm, settings, {"traffic.cars": 2}), 4, seed=3)
    learner.begin()
    native = learner.simulator
    looker = VectorEnv(resolve(EnvSettings, task), 4, world=native)
    looker.sit(np.arange(4))
    rng = np.random.default_rng(0)
    name = settings.get("observation.actor", ["state"])[0]

    for _ in range(45):  # past the end of an episode
        found = looker.observe()
        np.testing.assert_array_equal(found[name], learner.observe()[name])
        begun = native.state.episode.copy()
        native_step = native.step

        def step(command, native_step=native_step):
            after = native_step(command)
            looker.look_on()
            return after

        native.step = step
        learner.advance(rng.uniform(-1, 1, (4, 2)).astype(np.float32))
        native.step = native_step
        looker.sit(np.flatnonzero(native.state.episode != begun))
    assert native.state.episode.min() > 0
    if name in ("camera", "lidar"):
        assert len(np.unique(found[name])) > 5


def test_drivers_of_one_task_look_through_the_same_eyes_and_others_do_not(tmp_path):
    other = saved(tmp_path / "b", 1.0, settings={"observation.state.lookahead": [0.1] * 8})
    env = world(4, [saved(tmp_path / "a", 1.0), other, saved(tmp_path / "c", 2.0)])

    assert len(env.opponents.crew._eyes) == 2


def test_an_opponent_sees_by_a_camera_without_the_learners_errors(tmp_path):
    small = {"width": 16, "height": 8, "pitch_deg": 25.0}
    seeing = {"observation.actor": ["state", "depth"], "observation.camera": small}
    name = saved(tmp_path / "a", 2.0, settings=seeing)

    # of a camera that is rolled there is no depth
    env = world(2, [name], **{"randomize.mounting.stock": 4, "randomize.mounting.roll_deg": 2.0})
    env.advance(stand(env))

    assert env.opponents.everyone.steps.max() == 1
