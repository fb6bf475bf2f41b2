"""The terminal shows the numbers it was given, and its end does not end the training."""

import io
import os
import re
import subprocess
import sys
import textwrap

import pytest

from hotlap.progress import Board, Progress

ROW = {
    "iteration": 75,
    "steps": 1_840_000,
    "seconds": 92.5,
    "steps_per_second": 12480.4,
    "reward": 41.23,
    "completion": 0.941,
    "best_lap": 12.612,
    "entropy": 0.7,
    "kl": None,
    "time/collect": 3.0,
    "time/learn": 1.0,
}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_plain_line_says_it_all():
    # 92.5 of 250 s are 37 %, 1.84 of 5 M steps 36.8 %; left are 157.5 s by the clock, and
    # (5 - 1.84) M / 12480.4 = 253 s by the steps: the clock ends it, after 2:37.
    progress = Progress(250, 5_000_000, stream=io.StringIO(), clock=Clock())

    progress.update(ROW)

    assert progress.line() == (
        "1.84M steps  37%  12480/s  reward 41.2  completion 94%  best lap 12.61 s  eta 2:37"
    )


def test_the_budget_that_is_spent_first_counts():
    # Of the time 10 s of 100 are gone, of the steps 30 of 40: 75 %; 10 steps at 5/s are 2 s.
    progress = Progress(100, 40, stream=io.StringIO(), clock=Clock())

    progress.update({"steps": 30, "seconds": 10.0, "steps_per_second": 5})

    assert progress.line() == "30 steps  75%  5/s  eta 0:02"


def test_without_a_budget_or_laps_nothing_is_made_up():
    progress = Progress(None, None, stream=io.StringIO(), clock=Clock())

    progress.update({"steps": 950, "best_lap": None, "reward": float("nan")})

    assert progress.line() == "950 steps"


def test_plain_lines_come_after_two_seconds_and_then_every_ten():
    stream, clock = io.StringIO(), Clock()
    printed = []

    with Progress(None, None, stream=stream, clock=clock) as progress:
        for second in range(30):
            clock.now = 100.0 + second
            before = stream.tell()
            progress.update({"steps": second})
            if stream.tell() > before:
                printed.append(second)

    assert printed == [2, 12, 22]
    assert stream.getvalue().splitlines()[-1] == "29 steps"  # the end is said too


@pytest.mark.parametrize("how", ["plain", "NO_COLOR", "CI", "TERM"])
def test_who_asks_for_plain_gets_no_escape_codes(monkeypatch, how):
    if how != "plain":
        monkeypatch.setenv(how, "dumb")
    stream = Terminal()

    with Progress(10, None, plain=how == "plain", stream=stream) as progress:
        progress.update(ROW)
        progress.event("new best lap")

    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[0].endswith("  new best lap")


def test_a_terminal_gets_the_block_under_the_events():
    stream = Terminal()

    with Progress(250, None, stream=stream, title="oval-ppo-17") as progress:
        progress.update(ROW)
        progress.update({"reward": 50.0, "evaluation/lap_time": 12.5, "time/learn": 2.0})
        progress.event("new best lap [12.61 s]")

    shown = stream.getvalue()
    block = shown[shown.rindex("oval-ppo-17") :]
    for text in ("37 %", "1.84M steps", "12 480", "50.0", "▁█", "12.61 s", "94 % of laps"):
        assert text in block
    assert "evaluated 12.50 s" in block
    assert "collect 50 %  learn 50 %" in block
    assert len(block.strip().splitlines()) <= 6
    assert "new best lap [12.61 s]" in shown[: shown.rindex("oval-ppo-17")]


def test_quiet_says_nothing():
    stream = Terminal()

    with Progress(10, None, quiet=True, stream=stream) as progress:
        progress.update(ROW)
        progress.event("new best lap")

    assert stream.getvalue() == ""


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_closed_stream_does_not_stop_the_training(kind):
    stream, clock = kind(), Clock()
    with Progress(10, None, stream=stream, clock=clock) as progress:
        progress.update(ROW)
        stream.close()
        clock.now += 60

        progress.update(ROW)
        progress.event("still here")


def test_a_broken_pipe_does_not_stop_the_training():
    code = """
        import sys, time
        from hotlap.progress import Board, Progress
        sys.stdin.readline()  # until the reader is gone
        clock = iter(range(10**6))
        with Progress(10, None, clock=lambda: next(clock)) as progress:
            for steps in range(100):
                progress.update({"steps": steps})
                progress.event("new best lap " + "x" * 100_000)
        print("trained")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stderr.close()

    out, _ = process.communicate(b"\n", timeout=30)

    assert out.decode().strip() == "trained"
    assert process.returncode == 0


def test_a_poor_encoding_gets_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    Progress(None, None, stream=stream).event("new best lap → saved")

    assert raw.getvalue().decode().endswith(f"new best lap ? saved{os.linesep}")


def test_rich_is_left_alone_where_nobody_watches():
    code = """
        import sys
        from hotlap.progress import Board, Progress
        with Progress(10, None) as progress:
            progress.update({"steps": 1})
        print({"rich", "torch"} & set(sys.modules))
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"


def test_a_board_has_a_plain_line_for_each_that_runs():
    stream, clock = io.StringIO(), Clock()
    with Board(["seed0", "seed12", "seed3"], 250, None, stream=stream, clock=clock) as board:
        board.update("seed0", ROW)
        board.update("seed12", {"steps": 950, "seconds": 1.0})
        board.state("seed0", "running")
        board.state("seed12", "running")
        board.tick()
        clock.now += 3
        board.tick()
        board.tick()
        board.state("seed0", "done")

    said = stream.getvalue().splitlines()
    assert said == [
        # 92.5 + 3 of 250 s are 38 %; 154.5 s are left; 1 + 3 s are 2 %, and 246 s are left
        "seed0   1.84M steps  38%  12480/s  reward 41.2  completion 94%  best lap 12.61 s  "
        "eta 2:34",
        "seed12  950 steps  2%  eta 4:06",
        "seed12  950 steps  2%  eta 4:06",  # at the end
    ]


def test_a_board_is_a_table_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()

    with Board(["seed0", "seed1", "seed2"], 250, None, stream=stream, clock=Clock()) as board:
        board.state("seed0", "running")
        board.state("seed2", "failed")
        board.update("seed0", ROW | {"first_clean": 6.25})
        board.event("seed2 failed: the disk is full")

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    table = shown[shown.rindex("first clean") :].splitlines()
    for text in ("━━━━━━─", "1.84M", "41.2", "94 %", "12.61 s", "6.2 s", "2:37"):
        assert text in table[1], text
    assert "waiting" in table[2]
    assert "failed" in table[3]
    assert "1 running, 1 waiting, 1 failed" in table[4]
    assert "the disk is full" in shown[: shown.rindex("first clean")]


def test_a_note_stands_behind_the_name_of_a_training():
    stream, clock = io.StringIO(), Clock()
    with Board(["a", "b"], None, None, stream=stream, clock=clock) as board:
        board.note("a", "rate=1")
        for name in ("a", "b"):
            board.state(name, "running")
            board.update(name, {"steps": 5})

    assert stream.getvalue().splitlines() == ["a rate=1  5 steps", "b         5 steps"]


def test_a_low_terminal_shows_those_that_run(monkeypatch):
    monkeypatch.setenv("LINES", "8")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()

    with Board([f"seed{i}" for i in range(50)], 250, None, stream=stream) as board:
        board.state("seed7", "running")

    block = stream.getvalue()[stream.getvalue().rindex("first clean") :]
    assert "seed7" in block
    assert "seed8" not in block
    assert "49 waiting, 1 running" in block
