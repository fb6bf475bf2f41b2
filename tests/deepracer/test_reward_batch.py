"""A user's reward for many cars: state for each car, saved and restored, and the fallback."""

import dataclasses

import numpy as np
import pytest

from hotlap.deepracer.rewards import confinement
from hotlap.deepracer.rewards.batch import RewardBatch, prepare
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.deepracer.rewards.samples import sample_columns
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import RewardError
from hotlap.tasks.rewards import FileReward
from hotlap.track import load_track

COUNTING = """
count = 0
last = None


def reward_function(params):
    global count, last
    count += 1
    same = last is not None and last == params["x"]
    last = params["x"]
    return count + (0.5 if same else 0.0)
"""
LISTING = """
seen = []


def reward_function(params):
    seen.append(params["x"])
    return float(len(seen))
"""


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTLAP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def states():
    return sample_columns(load_track("oval"), 0, 0, 40)


@pytest.fixture
def make(tmp_path, states):
    def make(text: str, *, compiled: bool = True, allow=()) -> RewardBatch:
        path = tmp_path / "reward_function.py"
        path.write_text(text)
        prepared = prepare(RewardFile(path, allow), load_track("oval"), compiled=compiled)
        return RewardBatch(prepared, states[1], threads=1)

    return make


@pytest.mark.parametrize("text", [COUNTING, LISTING], ids=["numbers", "list"])
@pytest.mark.parametrize("compiled", [True, False])
def test_each_car_has_globals_of_its_own(make, states, text, compiled):
    batch = make(text, compiled=compiled)
    plain = batch.prepared.translation is None
    assert plain == (not compiled or text is LISTING), batch.prepared.told()

    first, second = batch(states[0]), batch(states[0])

    # one call each, not 40 after one another; then the second, for the same x
    assert set(first.tolist()) == {1.0}
    assert set(second.tolist()) == {2.5 if text is COUNTING else 2.0}


@pytest.mark.parametrize("text", [COUNTING, LISTING], ids=["numbers", "list"])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_cars_keep_is_saved_and_restored(make, states, text, compiled):
    batch, other = make(text, compiled=compiled), make(text, compiled=compiled)
    batch(states[0])

    other.restore(batch.save())

    np.testing.assert_array_equal(other(states[0]), batch(states[0]))
    assert other(states[0])[0] == (3.5 if text is COUNTING else 3.0)


def test_what_compiled_cars_kept_goes_on_in_plain_python(make, states):
    batch, other = make(COUNTING), make(COUNTING, compiled=False)
    batch(states[0])

    other.restore(batch.save())

    np.testing.assert_array_equal(other(states[0]), batch(states[0]))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_car_that_is_not_wanted_is_not_called(make, states, compiled):
    batch = make(COUNTING, compiled=compiled)
    wanted = np.arange(40) % 2 == 0

    first, second = batch(states[0], wanted), batch(states[0])

    np.testing.assert_array_equal(first, np.where(wanted, 1.0, 0.0))
    np.testing.assert_array_equal(second, np.where(wanted, 2.5, 1.0))


SOMETIMES = """
calls = 0


def reward_function(params):
    global calls
    calls += 1
    if params["steering_angle"] == 0.0:
        print("straight", calls)
    return calls
"""


def test_python_does_single_calls_of_a_compiled_function(make, states, capsys):
    batch = make(SOMETIMES)
    straight = int((states[0].steering_angle == 0.0).sum())

    batch(states[0])
    capsys.readouterr()
    rewards = batch(states[0])

    assert batch.prepared.translation is not None, batch.prepared.told()
    assert straight >= 10
    assert capsys.readouterr().out == "straight 2\n" * straight
    assert set(rewards.tolist()) == {2.0}


def test_files_that_load_slowly_are_compiled_too(make, states, monkeypatch):
    monkeypatch.setattr("hotlap.deepracer.rewards.batch.PROOF_SECONDS", 0.2)

    batch = make("import time\ntime.sleep(0.002)\n" + COUNTING)

    assert batch.prepared.translation is not None, batch.prepared.told()


def test_a_failing_call_is_the_runs_failure_and_names_the_line(make, states):
    batch = make("def reward_function(params):\n    return 1 / (params['steps'] - 2)\n")

    with pytest.raises(RewardError, match=r"py:2 `return 1 / .*ZeroDivisionError.*steps = 2") as c:
        batch(states[0])

    assert c.value.exit_code == 1


@pytest.mark.parametrize(
    "text",
    [
        "def reward_function(params):\n    params['waypoints'].clear()\n    return 1.0\n",
        "def take(w):\n    w.pop()\n\n\ndef reward_function(p):\n    take(p['waypoints'])\n"
        "    return 1.0\n",
        "def reward_function(p):\n    a = p['waypoints']\n    b = a\n    b += [(0, 0)]\n"
        "    return 1.0\n",
    ],
)
def test_waypoints_that_are_changed_are_whole_again_for_the_next_car(make, states, text):
    batch = make(text + "\n\ndef tail():\n    pass\n")
    before = [points.copy() for points in states[1].waypoint_arrays()]

    batch(states[0])

    for points, old in zip(states[1].waypoint_arrays(), before, strict=True):
        np.testing.assert_array_equal(points, old)


def test_rewards_do_not_depend_on_the_number_of_threads(make, states):
    columns = states[0]
    fields = [f.name for f in dataclasses.fields(columns) if f.name != "objects"]
    many = dataclasses.replace(
        columns, **{n: np.concatenate([getattr(columns, n)] * 40) for n in fields}
    )
    one = make("def reward_function(p):\n    return p['x'] ** 2 + p['speed'] ** 0.3\n")
    four = RewardBatch(one.prepared, states[1], threads=4)

    np.testing.assert_array_equal(one(many), four(many))


def test_a_call_that_does_not_end_is_ended(make, states, monkeypatch):
    monkeypatch.setattr(confinement, "CALL_SECONDS", 0.3)
    text = "def reward_function(p):\n    while p['steps'] > 2:\n        pass\n    return 1.0\n"
    batch = make(text, compiled=False)

    with pytest.raises(RewardError, match=r"took longer than 0.3 s for one call"):
        batch(states[0])


def test_memory_that_calls_keep_is_counted(make, states, monkeypatch):
    if confinement.resident() == 0:
        pytest.skip("memory is counted on Linux")
    monkeypatch.setattr(confinement, "CALL_MEMORY", 2**26)
    batch = make(
        "kept = []\n\n\ndef reward_function(p):\n    kept.append(b'1' * 2**18)\n    return 1.0\n",
        compiled=False,
    )

    with pytest.raises(RewardError, match=r"have kept 0.1 GiB; look for a list|MemoryError"):
        [batch(states[0]) for _ in range(200)]  # each keeps 10 MiB, at first where memory is free


def test_one_call_cannot_take_all_memory(make, states):
    if confinement.resource is None or confinement.sys.platform != "linux":
        pytest.skip("address space is limited on Linux")
    batch = make(
        "def reward_function(p):\n    return float(len(bytearray(2**34)))\n", compiled=False
    )

    with pytest.raises(RewardError, match="MemoryError"):
        batch(states[0])


@pytest.mark.parametrize("timing", ["deepracer", "modern"])
def test_an_environment_rewards_the_same_compiled_plain_and_resumed(tmp_path, timing):
    path = tmp_path / "reward_function.py"
    path.write_text(COUNTING)

    def drive(compiled: bool, *, resumed: bool) -> np.ndarray:
        reward = FileReward(path=str(path), timing=timing, compiled=compiled)
        env = VectorEnv(EnvSettings(track="oval", reward=reward), 6, seed=3)
        env.begin()
        found = []
        for step in range(12):
            if resumed and step == 5:
                saved = env.save()
                env = VectorEnv(EnvSettings(track="oval", reward=reward), 6, seed=3)
                env.begin()
                env.restore(saved)
            found.append(env.advance(np.full((6, 2), 0.3)).reward)
        return np.array(found)

    rewards = drive(True, resumed=False)

    # twelve calls, but DeepRacer's timing does not call at the first step of an episode
    assert int(rewards[-1, 0]) == (11 if timing == "deepracer" else 12)
    np.testing.assert_array_equal(drive(False, resumed=False), rewards)
    np.testing.assert_array_equal(drive(True, resumed=True), rewards)
    np.testing.assert_array_equal(drive(False, resumed=True), rewards)
