"""A reward file tried in a process of its own, which can be ended and whose memory is limited.

The parent samples states and sends them as JSON; the child loads the file, calls the function on
all of them, and answers with one JSON object. The child is limited by the operating system where
that can be done without special rights: time, memory, and on Unix no growing files; see
`confinement` for what else is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotlap.deepracer.rewards import file as reward_file
from hotlap.deepracer.rewards.confinement import confined, limit_process, refusal
from hotlap.deepracer.rewards.file import LINES_SHOWN, RewardFile, first_lines, within
from hotlap.errors import RewardError

if TYPE_CHECKING:
    from hotlap.track import Track

__all__ = ["serve", "try_file"]

MEMORY = 8 * 2**30
"""Address space of the child [bytes]."""
START_SECONDS = 30.0
"""Longest time that an interpreter may need to start."""
_PROGRAM = "from hotlap.deepracer.rewards.trial import serve; serve()"


def try_file(
    path: Path, track: Track, *, obstacles: int = 0, cars: int = 0, allow: Collection[str] = ()
) -> list[str]:
    """Call the file's function on sampled states, in another process.

    Args:
        path: the file.
        track: where the states are.
        obstacles: how many boxes `params` speaks of,
        cars: and how many other cars.
        allow: what the code may do besides computing; see `confinement.ALLOWANCES`.

    Returns:
        Notes for the user: what it printed and how much of it was left out, and what was refused.

    Raises:
        RewardError: the file cannot be loaded, or the function fails, hangs, takes too much memory,
            or returns no number in the allowed range.
    """
    from hotlap.deepracer.rewards.samples import sample_columns

    columns, params = sample_columns(track, obstacles, cars)
    rows = list(params.rows(columns))
    for row, course in zip(rows, columns.track.tolist(), strict=True):
        row["waypoints"] = course
    request = {
        "path": str(path),
        "allow": list(allow),
        "seconds": (reward_file.LOAD_SECONDS, reward_file.CALL_SECONDS, reward_file.CHECK_SECONDS),
        "waypoints": [points.tolist() for points in params.waypoint_arrays()],
        "rows": rows,
    }
    answer = _ask(path, request)
    sys.stderr.write("".join(answer.get("shown", ())))
    if "error" in answer:
        raise RewardError(answer["error"])
    notes = []
    if answer["lines"] > LINES_SHOWN:
        notes.append(
            f"{path.name} prints: {answer['lines']} lines in {answer['count']} calls of the check, "
            f"{LINES_SHOWN} of them shown; printing slows training"
        )
    if answer["refused"]:
        notes.append(f"{path.name} tried what it may not: {answer['refused']}")
    return notes


def _ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run the child and return its answer."""
    seconds = START_SECONDS + sum(request["seconds"][:2])
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",  # each thread's stack counts as address space
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=surroundings,
        start_new_session=True,
    ) as child:
        try:
            answer, _ = child.communicate(json.dumps(request).encode(), seconds)
        except subprocess.TimeoutExpired:
            raise RewardError(
                f"{path}: trying it took longer than {seconds:g} s; look for a loop that does not "
                "end"
            ) from None
        finally:
            _end(child)
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        number = -(child.returncode or 0)
        how = signal.Signals(number).name if number > 0 else f"exit status {child.returncode}"
        raise RewardError(
            f"{path}: the process that tried it ended by {how}; look for a loop that does not end, "
            "or that collects memory without end"
        ) from None
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and what it may have started."""
    if child.poll() is None or os.name == "posix":
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()


def serve() -> None:
    """Answer one request from standard input, as the child."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what C code prints is no answer
    request = json.loads(sys.stdin.buffer.read())
    load, call, _ = request["seconds"]
    limit_process(load + call + START_SECONDS, MEMORY, write="write" in request["allow"])
    try:
        answer = _tried(request)
    except RewardError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"{request['path']}: it needs more memory than a reward may have"}
    os.write(answers, json.dumps(answer).encode())
    os._exit(0)  # a function that hangs is left behind


def _tried(request: dict[str, Any]) -> dict[str, Any]:
    reward_file.LOAD_SECONDS = request["seconds"][0]
    _, call, content = request["seconds"]
    allow = request["allow"]
    waypoints = [[tuple(point) for point in points] for points in request["waypoints"]]
    done = threading.Event()
    with first_lines() as printed:
        try:
            reward = RewardFile(Path(request["path"]), allow)

            def call_all() -> tuple[int, str | None]:
                begin = time.monotonic()
                with confined(allow):
                    for count, row in enumerate(request["rows"]):
                        if done.is_set() or (count and time.monotonic() - begin > content):
                            return count, refusal()
                        row["waypoints"] = list(waypoints[row["waypoints"]])
                        reward.try_once(row)
                return len(request["rows"]), refusal()

            count, refused = within(call, call_all, f"{reward.place}: {reward_file.NAME}")
        except RewardError as error:
            return {"error": str(error), "shown": printed.shown}
        finally:
            done.set()
    shown = printed.shown if printed.lines else []
    return {"count": count, "lines": printed.lines, "shown": shown, "refused": refused}
