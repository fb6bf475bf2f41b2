"""A user's reward file: both forms, and one sentence for every mistake."""

import random
import sys
import time

import numpy as np
import pytest

from hotlap.deepracer.rewards import file as reward_file
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.errors import RewardError

PARAMS = {
    "all_wheels_on_track": True,
    "is_offtrack": False,
    "x": 1.0,
    "y": 0.2,
    "distance_from_center": 0.2,
    "heading": 90.0,
    "progress": 12.5,
    "steps": 7.0,
    "speed": 2.0,
    "steering_angle": -15.0,
    "track_width": 0.8,
    "waypoints": [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)],
    "closest_waypoints": [1, 2],
}
OLDER = (
    "on_track, x, y, distance_from_center, car_orientation, progress, steps, throttle, steering, "
    "track_width, waypoints, closest_waypoints"
)


def test_the_function_gets_the_params_and_its_globals_last(write):
    reward = RewardFile(
        write(
            "calls = 0\ndef reward_function(params):\n    global calls\n    calls += 1\n"
            "    return params['speed'] + calls\n"
        )
    )

    assert reward.style == "params"
    assert [reward(dict(PARAMS)), reward(dict(PARAMS))] == [3.0, 4.0]


def test_each_load_has_its_own_globals_and_the_check_has_too(write, track):
    path = write(
        "seen = []\ndef reward_function(params):\n    seen.append(1)\n    return len(seen)\n"
    )
    first, second = RewardFile(path), RewardFile(path)

    first.check(track)

    assert [first({}), first({}), second({})] == [1.0, 2.0, 1.0]


def test_the_file_is_compiled_as_it_would_be_alone(write):
    # our own `from __future__ import annotations` would make this the text "int"
    reward = RewardFile(write("def reward_function(params: int):\n    return 1\n"))

    assert reward.function.__annotations__ == {"params": int}


def test_modules_beside_the_file_are_found_and_not_shared(tmp_path):
    found = []
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        (folder / "shaping.py").write_text(f"VALUE = {value}\n")
        (folder / "reward_function.py").write_text(
            "import shaping\ndef reward_function(params):\n    return shaping.VALUE\n"
        )
        found.append(RewardFile(folder / "reward_function.py"))

    assert [reward({}) for reward in found] == [1.0, 2.0]
    assert "shaping" not in sys.modules
    assert str(tmp_path / "1") not in sys.path


def test_a_module_of_ours_with_the_same_name_survives(tmp_path, monkeypatch):
    theirs = type(sys)("shaping")
    monkeypatch.setitem(sys.modules, "shaping", theirs)
    (tmp_path / "shaping.py").write_text("VALUE = 3\n")
    (tmp_path / "r.py").write_text(
        "from shaping import VALUE\ndef reward_function(p): return VALUE\n"
    )

    assert RewardFile(tmp_path / "r.py")({}) == 3.0

    assert sys.modules["shaping"] is theirs


@pytest.mark.parametrize(
    ("arguments", "by"),
    [
        (OLDER, "name"),
        ("a, b, c, d, e, f, g, h, i, j, k, l", "place"),
        (", ".join(reversed(OLDER.split(", "))), "name, in another order"),
    ],
    ids=lambda v: v if len(v) < 30 else "",
)
def test_the_older_form(write, arguments, by):
    names = arguments.split(", ")
    known = names if by.startswith("name") else OLDER.split(", ")
    got = ", ".join(f"{key!r}: {name}" for key, name in zip(known, names, strict=True))
    text = f"got = {{}}\ndef reward_function({arguments}):\n    got.update({{{got}}})\n    return 1"
    reward = RewardFile(write(text))

    assert reward.style == "positional"
    assert reward(dict(PARAMS)) == 1.0
    # heading 90 degrees, speed 2 of 4 m/s, -15 of 30 degrees; (1, 0.2) is nearest to waypoint 1
    assert reward.function.__globals__["got"] == {
        "on_track": True,
        "x": 1.0,
        "y": 0.2,
        "distance_from_center": 0.2,
        "car_orientation": pytest.approx(np.pi / 2),
        "progress": 12.5,
        "steps": 7,
        "throttle": 0.5,
        "steering": -0.5,
        "track_width": 0.8,
        "waypoints": PARAMS["waypoints"],
        "closest_waypoints": 1,
    }


@pytest.mark.parametrize(
    "value", ["True", "3", "2.5", "np.float32(0.5)", "np.int64(4)", "np.bool_(1)"]
)
def test_numbers_are_rewards(write, track, value):
    reward = RewardFile(
        write(f"import numpy as np\ndef reward_function(params):\n    return {value}\n")
    )

    assert reward.check(track) == []
    assert reward({}) == float(eval(value))


MISTAKES = {
    "syntax": ("x = 1\ndef reward_function(params)\n    return 1\n", "py:2: not valid Python"),
    "import": (
        "import numpie\n",
        "py:1 `import numpie`: ModuleNotFoundError: No module named 'num",
    ),
    "top level": ("a = 1\nb = a / 0\n", "py:2 `b = a / 0`: ZeroDivisionError"),
    "exits": ("import sys\nsys.exit()\n", "py:2 `sys.exit()`: SystemExit"),
    "no function": (
        "def reward_func(params):\n    return 1\n",
        "it defines reward_func; rename reward_func to",
    ),
    "empty": ("", "has no function reward_function; it defines no function"),
    "not a function": ("reward_function = 3\n", "reward_function is 3 (int), not a function"),
    "none": ("\ndef reward_function():\n    return 1\n", "py:2: reward_function takes 0 param"),
    "two": (
        "def reward_function(params, b):\n    return 1\n",
        "takes 2 parameters; allowed are one",
    ),
    "eleven": (
        "def reward_function(a,b,c,d,e,f,g,h,i,j,k):\n    return 1\n",
        "takes 11 parameters",
    ),
    "raises": (
        "def half(p):\n    return 1 / (p['progress'] - 100)\n\ndef reward_function(params):\n"
        "    return half(params)\n",
        "py:2 `return 1 / (p['progress'] - 100)`: reward_function failed: ZeroDivisionError: float "
        "division by zero, for progress = 100",
    ),
    "no such key": (
        "def reward_function(params):\n    return params['stering_angle']\n",
        "KeyError: 'stering_angle', for steps = 2, ",
    ),
    "nan": (
        "def reward_function(params):\n    return float('nan')\n",
        "py:1: reward_function returned nan",
    ),
    "inf": ("def reward_function(params):\n    return 1e999\n", "returned inf"),
    "nothing": (
        "def reward_function(params):\n    if params['speed'] > 2:\n        return 1\n",
        "returned None for speed = ",
    ),
    "text": ("def reward_function(params):\n    return '1'\n", "returned '1' (str)"),
    "array": ("import numpy as np\ndef reward_function(p):\n    return np.ones(1)\n", "(ndarray)"),
    "large": ("def reward_function(params):\n    return 100001\n", "allowed are -100000 to 100000"),
    "too large": ("def reward_function(params):\n    return 10 ** 400\n", "returned inf"),
    "only off the track": (
        "def reward_function(params):\n    return 1 if not params['is_offtrack'] else None\n",
        "returned None for is_offtrack = True",
    ),
    "only reversed": (
        "def reward_function(params):\n    return 'a' if params['is_reversed'] else 1\n",
        "for is_reversed = True",
    ),
    "only at first": (
        "def reward_function(params):\n    return 'a' if params['steps'] <= 2 else 1\n",
        "for steps = 2",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_its_place(write, track, mistake):
    text, said = MISTAKES[mistake]

    with pytest.raises(RewardError) as caught:
        RewardFile(write(text)).check(track)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RewardError, match=r"nowhere.py: no such file; give the path"):
        RewardFile(tmp_path / "nowhere.py")


def test_a_key_that_nearly_exists_is_suggested(write, track):
    path = write("def reward_function(params):\n    return params['stering_angle']\n")

    with pytest.raises(
        RewardError, match=r"did you mean 'steering_angle'\? Keys of params: all_wh"
    ):
        RewardFile(path).check(track)


def test_a_function_that_hangs_is_given_up(write, track, monkeypatch):
    monkeypatch.setattr(reward_file, "CALL_SECONDS", 0.2)
    reward = RewardFile(
        write(
            "import time\ndef reward_function(params):\n    while True:\n        time.sleep(0.01)\n"
        )
    )

    with pytest.raises(RewardError, match=r"py:2: reward_function took longer than 0.2 s"):
        reward.check(track)


def test_a_slow_function_is_checked_on_fewer_states(write, track, monkeypatch):
    monkeypatch.setattr(reward_file, "CHECK_SECONDS", 0.1)
    reward = RewardFile(
        write("import time\ndef reward_function(params):\n    time.sleep(0.02)\n    return 1\n")
    )
    begin = time.monotonic()

    assert reward.check(track) == []

    assert time.monotonic() - begin < 5  # all states would take 8 s


def test_prints_of_the_check_are_shortened(write, track, capsys):
    reward = RewardFile(write("def reward_function(params):\n    print('hello')\n    return 1\n"))

    notes = reward.check(track)

    assert capsys.readouterr() == ("", "hello\n" * 3)
    assert len(notes) == 1
    assert "prints: 400 lines in 400 calls of the check, 3 of them shown" in notes[0]


def test_the_random_states_are_left_alone(write, track):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    RewardFile(
        write(
            "import random, numpy as np\nrandom.seed(1)\nnp.random.seed(1)\n"
            "def reward_function(params):\n    return random.random() + np.random.rand()\n"
        )
    ).check(track)

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_a_failure_in_the_middle_of_a_run_is_the_runs_failure(write):
    reward = RewardFile(
        write("def reward_function(p):\n    a = p['speed']\n    return a / p['steps']\n")
    )

    with pytest.raises(RewardError, match=r"py:3 `return a / p\['steps'\]`.*steps = 0") as caught:
        reward({**PARAMS, "steps": 0.0})

    assert caught.value.exit_code == 1


def test_a_wrong_value_in_the_middle_of_a_run_is_the_runs_failure(write):
    reward = RewardFile(write("def reward_function(params):\n    return -1.0 * params['speed']\n"))

    assert reward({"speed": 1e5}) == -1e5
    with pytest.raises(RewardError, match="returned -100001") as caught:
        reward({"speed": 100001.0})
    assert caught.value.exit_code == 1
