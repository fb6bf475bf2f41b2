"""A reward file that hangs, collects memory, writes files or calls the network is stopped."""

import time

import pytest

from hotlap.deepracer.rewards import file as reward_file
from hotlap.deepracer.rewards import trial as reward_trial
from hotlap.deepracer.rewards.confinement import confined
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.errors import RewardError

WRITES = "def reward_function(p):\n    open({path!r}, 'w').write('x')\n    return 1.0\n"
CALLS_OUT = (
    "import socket\ndef reward_function(p):\n    socket.create_connection(('127.0.0.1', 9))\n"
    "    return 1.0\n"
)
STARTS = (
    "import subprocess\ndef reward_function(p):\n    subprocess.run(['true'])\n    return 1.0\n"
)
THREADS = (
    "import threading\ndef reward_function(p):\n    threading.Thread(target=print).start()\n"
    "    return 1.0\n"
)


def test_a_file_is_not_written(write, tmp_path, track):
    target = tmp_path / "loot.txt"
    path = write(WRITES.format(path=str(target)))

    with pytest.raises(RewardError, match=r"may not write.*loot.txt.*reward.allow=write"):
        reward_trial.try_file(path, track)
    reward = RewardFile(path).function
    with confined(), pytest.raises(PermissionError, match=r"allow it with reward\.allow=write"):
        reward({})

    assert not target.exists()


def test_a_file_is_not_written_while_the_reward_is_loaded_either(write, tmp_path):
    target = tmp_path / "loot.txt"
    path = write(f"import pathlib\npathlib.Path({str(target)!r}).touch()\n")

    with pytest.raises(RewardError, match=r"py:2 .*may not write, move or delete a file"):
        RewardFile(path)

    assert not target.exists()


def test_a_file_is_written_where_the_user_allows_it(write, tmp_path, track):
    target = tmp_path / "log.txt"
    path = write(WRITES.format(path=str(target)))

    assert reward_trial.try_file(path, track, allow=["write"]) == []

    assert target.read_text() == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CALLS_OUT, r"may not use the network.*reward.allow=network"),
        (STARTS, r"may not start a process or a thread.*reward.allow=processes"),
        (THREADS, r"may not start a process or a thread"),
        ("import os\ndef reward_function(p):\n    os.system('true')\n    return 1.0\n", "may not"),
        ("import os\ndef reward_function(p):\n    os.remove(__file__)\n    return 1.0\n", "delete"),
    ],
    ids=["network", "process", "thread", "shell", "delete"],
)
def test_network_and_processes_are_refused(write, track, text, said):
    path = write(text)

    with pytest.raises(RewardError, match=said):
        reward_trial.try_file(path, track)

    assert path.exists()


def test_what_is_refused_is_said_even_if_the_file_hides_it(write, track):
    path = write(
        "def reward_function(p):\n    try:\n        open('loot', 'w')\n    except Exception:\n"
        "        pass\n    return 1.0\n"
    )

    notes = reward_trial.try_file(path, track)

    assert len(notes) == 1
    assert "tried what it may not: it may not write" in notes[0]


def test_a_file_may_be_read(write, tmp_path, track):
    (tmp_path / "line.csv").write_text("1.5\n")
    path = write(
        "import pathlib\nV = float((pathlib.Path(__file__).parent / 'line.csv').read_text())\n"
        "def reward_function(p):\n    return V\n"
    )

    assert reward_trial.try_file(path, track) == []
    assert RewardFile(path)({}) == 1.5


@pytest.mark.parametrize(
    "text",
    [
        "def reward_function(p):\n    a = []\n    while 1:\n        a.append(bytearray(2**26))\n",
        pytest.param(
            "a = [bytearray(2**30) for _ in range(99)]\ndef reward_function(p):\n    return 1.0\n",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["call", "load"],
)
def test_memory_without_end_is_refused(write, track, text, monkeypatch):
    if reward_trial.sys.platform != "linux":
        pytest.skip("address space is limited on Linux")
    with pytest.raises(RewardError, match=r"MemoryError|memory"):
        reward_trial.try_file(write(text), track)


def test_c_code_that_holds_the_interpreter_is_ended(write, track, monkeypatch):
    monkeypatch.setattr(reward_file, "LOAD_SECONDS", 0.5)
    monkeypatch.setattr(reward_file, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(reward_trial, "START_SECONDS", 4.0)
    path = write("def reward_function(p):\n    return float(len(str(7 ** 7 ** 9)))\n")
    begin = time.monotonic()

    with pytest.raises(RewardError, match=r"longer than|ended by SIG"):
        reward_trial.try_file(path, track)

    assert time.monotonic() - begin < 20


def test_our_own_code_is_free_again_afterwards(write, tmp_path):
    path = write("def reward_function(p):\n    return 1.0\n")
    RewardFile(path)({})

    (tmp_path / "ours.txt").write_text("free")

    assert (tmp_path / "ours.txt").read_text() == "free"
