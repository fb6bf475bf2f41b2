"""What a reward file may change is found in its source, on the safe side."""

import pytest

from hotlap.deepracer.rewards.file import RewardFile

KEEPS = {
    "global": "n = 0\ndef reward_function(p):\n    global n\n    n += 1\n    return n\n",
    "append": "seen = []\ndef reward_function(p):\n    seen.append(1)\n    return 1\n",
    "alias": "A = [[0]]\ndef reward_function(p):\n    row = A[0]\n    row[0] = 2\n    return 1\n",
    "loop": "A = [[0]]\ndef reward_function(p):\n    for r in A:\n        r.pop()\n    return 1\n",
    "argument": (
        "A = [0]\ndef put(x):\n    x[0] = 1\ndef reward_function(p):\n    put(A)\n    return 1\n"
    ),
    "returned": (
        "A = [0]\ndef get():\n    return A\ndef reward_function(p):\n    get().append(1)\n"
        "    return 1\n"
    ),
    "handler": (
        "A = []\ndef reward_function(p):\n    try:\n        1 / 0\n    except Exception:\n"
        "        A.append(1)\n    return 1\n"
    ),
    "within another": (
        "A = [1]\nB = {}\ndef reward_function(p):\n    B['x'] = A\n    return len(B)\n"
    ),
    "unknown": "import json\nA = [1]\ndef reward_function(p):\n    json.dump(A)\n    return 1\n",
    "globals()": "n = 0\ndef reward_function(p):\n    globals()['n'] = 2\n    return 1\n",
    "next": "A = iter([1, 2])\ndef reward_function(p):\n    return next(A)\n",
    "function": "def reward_function(p):\n    reward_function.n = 1\n    return 1\n",
    "default": "def reward_function(p, seen=[]):\n    seen.append(1)\n    return 1\n",
    "object": (
        "class A:\n    def go(self):\n        self.x = 1\n        return 1\na = A()\n"
        "def reward_function(p):\n    return a.go()\n"
    ),
    "object's list": (
        "class A:\n    def __init__(self):\n        self.x = []\n    def go(self):\n"
        "        self.x.append(1)\n        return 1\na = A()\ndef reward_function(p):\n"
        "    return a.go()\n"
    ),
    "cache": (
        "import functools\n@functools.cache\ndef f(x):\n    return x\n"
        "def reward_function(p):\n    return f(1)\n"
    ),
    "nonlocal": (
        "def make():\n    n = 0\n    def inner(p):\n        nonlocal n\n        n += 1\n"
        "        return n\n    return inner\nreward_function = make()\n"
    ),
}
LEAVES = {
    "table": "A = [[1, 2], [3, 4]]\ndef reward_function(p):\n    return sum(r[0] for r in A)\n",
    "copy": (
        "A = [1, 2]\ndef reward_function(p):\n    b = list(range(3))\n    b.append(A[0])\n"
        "    return 1\n"
    ),
    "number from it": (
        "A = [[1.0]]\ndef reward_function(p):\n    r = A[0][0]\n    r += 1\n    return r\n"
    ),
    "made at load": (
        "A = []\nfor i in range(9):\n    A.append(i)\ndef reward_function(p):\n    return A[0]\n"
    ),
    "object": (
        "class A:\n    def __init__(self):\n        self.x = [1]\n    def go(self):\n"
        "        return self.x[0]\na = A()\ndef reward_function(p):\n    return a.go()\n"
    ),
}


@pytest.fixture
def effects(tmp_path):
    def effects(text: str):
        path = tmp_path / "reward_function.py"
        path.write_text(text)
        return RewardFile(path).effects

    return effects


@pytest.mark.parametrize("name", KEEPS)
def test_what_keeps_something_is_found(effects, name):
    assert effects(KEEPS[name]).stateful


@pytest.mark.parametrize("name", LEAVES)
def test_what_keeps_nothing_is_shared(effects, name):
    assert not effects(LEAVES[name]).stateful


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ("return p['speed'] + p.get('x', 0)", {"speed", "x"}),
        ("q = p\n    return q['y']", {"y"}),
        ("return helper(p)", {"heading"}),
        ("return 1.0 if 'speed' in p else 0.0", {"speed"}),
        ("return len(p)", None),
        ("return sum(v for v in p.values() if v is True)", None),
        ("return p['spe' + 'ed']", None),
        ("print(p)\n    return 1", None),
        ("kept = [p]\n    return 1", None),
        ("return p.pop('speed')", None),
    ],
)
def test_only_the_keys_that_can_be_read_are_given(effects, body, keys):
    text = (
        f"def helper(params):\n    return params['heading']\ndef reward_function(p):\n    {body}\n"
    )

    found = effects(text).keys

    # 'heading' is named in every one of these files
    assert (None if found is None else set(found) - {"heading"}) == (
        None if keys is None else keys - {"heading"}
    )


@pytest.mark.parametrize(
    ("body", "copies"),
    [
        ("return p['waypoints'][0][0]", False),
        ("w = p['waypoints']\n    return len(w) + w[-1][1]", False),
        ("for x, y in p['waypoints']:\n        pass\n    return 1", False),
        ("w = p['waypoints']\n    w.append((1, 2))\n    return 1", True),
        ("p['waypoints'].reverse()\n    return 1", True),
        ("w = p['waypoints']\n    v = w\n    v[0] = (1, 2)\n    return 1", True),
        ("return cut(p['waypoints'])", True),
        ("box = {'w': p['waypoints']}\n    box['w'].clear()\n    return 1", True),
    ],
)
def test_waypoints_are_copied_where_they_may_be_changed(effects, body, copies):
    text = (
        f"def cut(given):\n    del given[3:]\n    return 1\ndef reward_function(p):\n    {body}\n"
    )

    assert effects(text).copies is copies
