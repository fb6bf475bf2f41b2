"""A translated reward function, compiled and called for many cars at once.

The code is kept in the user's cache under its content, so that it is compiled once a machine. For
each car it says the reward, or that Python has to: then nothing of what the car keeps has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.deepracer.params import Columns, Params
from hotlap.deepracer.rewards import exact
from hotlap.deepracer.rewards.keys import BOOLS, FLOATS, LISTS, PAIRS
from hotlap.deepracer.rewards.kinds import is_number
from hotlap.deepracer.rewards.translation import CODES, Translation
from hotlap.files import replace, user_folder
from hotlap.threads import spread
from hotlap.types import Array, Float64

__all__ = ["Compiled"]

BLOCK = 256
"""Cars a thread takes at least."""


class Compiled:
    """A compiled reward function for the tracks of one world."""

    def __init__(self, translation: Translation, params: Params, threads: int) -> None:
        """Compile it, or read it from the cache; a second or two when it is new.

        Raises:
            Exception: numba cannot compile it; which one depends on numba.
        """
        self.translation, self._threads = translation, threads
        self._drive = _load(_text(translation))
        lists = params.waypoint_arrays()
        flat = [np.asarray(points, np.float64).ravel() for points in lists]
        self._constants = np.concatenate([translation.constants, *flat])
        lengths = np.array([0, *(len(points) for points in flat)])[:-1]
        self._places = (len(translation.constants) + np.cumsum(lengths)).astype(np.int64)
        self._counts = np.array([len(points) for points in lists], np.int64)

    def first_state(self, cars: int) -> Float64:
        """Return what each of so many cars keeps before the first call."""
        row: list[float] = []
        for _, value in self.translation.state:
            row += to_slot(value)
        return np.tile(np.array(row or [0.0]), (cars, 1))

    def __call__(self, columns: Columns, state: Float64, out: Float64, left: Array) -> None:
        """Fill `out` with rewards, and `left` with whether Python has to say it instead.

        Args:
            columns: params of N cars.
            state: (N, ...) what they keep; changed in place, where `left` is False.
            out: (N,) float64.
            left: (N,) bool.
        """
        given: dict[str, Array] = {}
        around = columns.around()
        for key in self.translation.keys:
            if key in FLOATS:
                given[key] = np.ascontiguousarray(getattr(columns, key), np.float64)
            elif key in BOOLS or key in PAIRS:
                found = getattr(columns, key) if hasattr(columns, key) else getattr(around, key)
                given[key] = np.ascontiguousarray(found, bool if key in BOOLS else np.int64)
        lists = [key for key in self.translation.keys if key in LISTS]
        parts = [np.asarray(getattr(around, key), np.float64).ravel() for key in lists]
        places = np.zeros(len(lists) + 1, np.int64)
        places[1:] = np.cumsum([len(part) for part in parts])
        objects = np.concatenate([*parts, np.zeros(1)])
        spread(
            self._drive,
            len(out),
            out,
            left,
            self._constants,
            self._places,
            self._counts,
            columns.track,
            state,
            objects,
            places,
            around.count,
            around.most,
            *given.values(),
            block=BLOCK,
            threads=self._threads,
        )


def to_slot(value: float | None) -> list[float]:
    """Return a kept value as the two numbers that stand for it."""
    if value is None:
        return [0.0, CODES["n"]]
    kind = "b" if isinstance(value, bool) else "i" if isinstance(value, int) else "f"
    return [float(value), CODES[kind]]


def from_slot(value: float, code: float) -> float | None:
    """Return the kept value that two numbers stand for."""
    if code == CODES["n"]:
        return None
    if code == CODES["b"]:
        return bool(value)
    return int(value) if code == CODES["i"] else float(value)


def _text(made: Translation) -> str:
    """Write the module that is compiled."""
    arguments = ["K"]
    arguments += ["S"] if made.state else []
    arguments += ["B"] if made.open_ended else []
    lists = [key for key in made.keys if key in LISTS]
    arguments += ["O"] if lists else []
    plain = []
    body = []
    for key in made.keys:
        value = f"c_{key}[row]"
        if key in PAIRS:
            value = f"(c_{key}[row, 0], c_{key}[row, 1])"
        elif key in LISTS:
            width = 1 if is_number(LISTS[key]) else len(LISTS[key]) - 1
            value = f"(places[{lists.index(key)}] + row * most * {width}, count[row])"
        elif key == "waypoints":
            value = "(starts[track[row]], points[track[row]])"
        if key in FLOATS or key in BOOLS or key in PAIRS:
            plain.append(f"c_{key}")
        arguments.append(f"p_{key}")
        body.append(f"p_{key} = {value}")
    used = [name for name in dir(exact) if re.search(rf"\b{name}\b", made.text)]
    wide = max(1, 2 * len(made.state))
    lines = [
        '"""Written by hotlap from a reward function; may be deleted."""',
        "import math",
        "import numpy as np",
        "from numba import njit",
        "from hotlap.deepracer.rewards.exact import Unsure",
        *(f"from hotlap.deepracer.rewards.exact import {name}" for name in used if name != "math"),
        "",
        made.text,
        "",
        *(f'{n} = njit(nogil=True, error_model="python")({n})' for n in made.names),
        "",
        '@njit(nogil=True, cache=True, error_model="python")',
        "def drive(start, stop, out, left, K, starts, points, track, state, O, places, count, most"
        + "".join(f", {name}" for name in plain)
        + "):",
        f"    S, B = np.zeros({wide}), np.zeros(1, np.int64)",
        "    for row in range(start, stop):",
        *(f"        {line}" for line in body),
        f"        B[0] = {exact.BUDGET}",
        *(f"        S[{i}] = state[row, {i}]" for i in range(2 * len(made.state))),
        "        left[row] = True",
        "        try:",
        f"            value = float(entry({', '.join(arguments)}, 0))",
        "            if -100000.0 <= value <= 100000.0:",
        "                out[row] = value",
        "                left[row] = False",
        "        except Exception:",
        "            pass",
        *(["        if not left[row]:"] if made.state else []),
        *(f"            state[row, {i}] = S[{i}]" for i in range(2 * len(made.state))),
    ]
    return "\n".join(lines) + "\n"


def _load(text: str) -> Any:
    """Return the compiled `drive` of a text, by way of the cache where there can be one."""
    source = Path(exact.__file__).read_bytes()
    digest = hashlib.sha256(source + text.encode()).hexdigest()[:20]
    name = f"hotlap_reward_{digest}"
    known = sys.modules.get(name)
    if known is not None:
        return known.drive
    path = user_folder("rewards", "cache") / f"{name}.py"
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, text.encode())
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except OSError:  # no place to keep it: compiled each time
        module = types.ModuleType(name)
        exec(text.replace(", cache=True", ""), module.__dict__)
    sys.modules[name] = module
    return module.drive
