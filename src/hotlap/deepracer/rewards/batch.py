"""A user's reward for a batch of cars: compiled where that is proven equal, else plain Python.

Each car is to the function what it was on a DeepRacer worker that trains one car: what the file
keeps in globals or in objects is kept for each car apart.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import types
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hotlap.deepracer.params import Columns, Params
from hotlap.deepracer.rewards import confinement
from hotlap.deepracer.rewards.confinement import Overdue, confined
from hotlap.deepracer.rewards.file import LIMIT, NAME, RewardFile, random_states_kept
from hotlap.deepracer.rewards.kinds import Refused
from hotlap.deepracer.rewards.samples import sample_columns
from hotlap.errors import RewardError
from hotlap.types import Array, Float64

if TYPE_CHECKING:
    from hotlap.deepracer.rewards.compiled import Compiled
    from hotlap.deepracer.rewards.translation import Translation
    from hotlap.track import Track

__all__ = ["Prepared", "RewardBatch", "prepare", "prepared_file"]

PROOF_STATES = 1024
"""Sampled states on which compiled and plain values must be the same bits."""
PROOF_SECONDS, PROOF_LEAST = 2.0, 64
"""How long plain Python may take for one round of them, and how many it has to do."""
LEFT_SHARE = 0.9
"""A compiled function that leaves more of the calls than this to Python is not used."""


class Prepared:
    """A file, and its translation if that may be used; shared by all worlds of a process."""

    def __init__(self, file: RewardFile, translation: Translation | None, why: str) -> None:
        self.file, self.translation, self.why = file, translation, why

    def told(self) -> str:
        """Say in a few words how the function runs."""
        if self.translation is not None:
            state = ", its state kept for each car" if self.translation.state else ""
            return f"compiled for all cars at once{state}"
        state = ", its state kept for each car" if self.file.effects.stateful else ""
        return f"called in plain Python{state}: {self.why}"


def prepare(
    file: RewardFile, track: Track, *, obstacles: int = 0, cars: int = 0, compiled: bool = True
) -> Prepared:
    """Compile a file's function and compare it with plain Python, call by call.

    Args:
        file: loaded, and tried before.
        track: where the states for the comparison are.
        obstacles: how many boxes `params` speaks of,
        cars: and how many other cars.
        compiled: whether to compile at all.
    """
    if not compiled:
        return Prepared(file, None, "reward.compiled is false")
    from hotlap.deepracer.rewards.translation import translate

    effects = file.effects
    positional = file.arguments if file.style == "positional" else ()
    try:
        made = translate(
            file.tree, file.module, NAME, positional, effects.changed, effects.attributes
        )
    except Refused as error:
        return Prepared(file, None, str(error))
    except RecursionError:
        return Prepared(file, None, "it is nested too deeply")
    why = _disproof(file, made, track, obstacles, cars)
    return Prepared(file, None if why else made, why)


_KNOWN: dict[tuple[Any, ...], Prepared] = {}


def prepared_file(
    path: str | Path,
    track: Track,
    *,
    allow: Collection[str] = (),
    obstacles: int = 0,
    cars: int = 0,
    compiled: bool = True,
) -> Prepared:
    """Return what `prepare` says of a file, once for each content in a process.

    Raises:
        RewardError: the file is missing, cannot be loaded or has no usable function.
    """
    place = Path(path).resolve()
    content = place.read_bytes() if place.is_file() else b""
    beside = tuple((p.name, p.stat().st_mtime_ns) for p in sorted(place.parent.glob("*.py")))
    shared = bool(obstacles + cars)
    mark = (place, content, beside, tuple(allow), shared, compiled)
    if mark not in _KNOWN:
        file = RewardFile(path, allow)
        _KNOWN[mark] = prepare(file, track, obstacles=obstacles, cars=cars, compiled=compiled)
    return _KNOWN[mark]


def _disproof(file: RewardFile, made: Translation, track: Track, obstacles: int, cars: int) -> str:
    """Say why a translation is not to be used; empty if nothing speaks against it."""
    rounds = 4 if made.state else 1  # each car that keeps something costs a module
    columns, params = sample_columns(track, obstacles, cars, PROOF_STATES // rounds)
    logging.getLogger("numba").setLevel(logging.WARNING)
    plain = RewardBatch(Prepared(file, None, ""), params, threads=1)
    try:
        fast = RewardBatch(Prepared(file, made, ""), params, threads=1)
        for _ in range(rounds):  # from the second on with what they keep
            expected, failed = plain.tried(columns)
            if len(expected) < PROOF_LEAST:
                return (
                    f"it is too slow to be compared: {len(expected)} calls in {PROOF_SECONDS:g} s"
                )
            found, left = fast.tried_fast(columns)
            found, left = found[: len(expected)], left[: len(expected)]
            if left.mean() > LEFT_SHARE:
                where = f" (it prints at line {made.prints[0]})" if made.prints else ""
                return f"{left.mean():.0%} of its calls need Python itself{where}"
            # What fails must be left to Python; what is left keeps its state as Python leaves it.
            same = expected.view(np.int64) == found.view(np.int64)
            wrong = ~left & (failed | ~same)
            if wrong.any():
                i = int(np.flatnonzero(wrong)[0])
                return (
                    f"compiled it gave {found[i]!r} for a state where Python gives {expected[i]!r}"
                )
            if made.state:
                if not fast.keeps_as(plain, ~left):
                    return "compiled it kept other values than Python"
                fast.take_from(plain, left)
    except RewardError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith(("Failed", "During", "File"))]
        said = (telling or lines or [""])[0][:100]
        return f"numba could not compile it ({type(error).__name__}: {said})"
    return ""


class RewardBatch:
    """The reward of N cars in one world; remembers what the file keeps for each of them."""

    def __init__(self, prepared: Prepared, params: Params, threads: int) -> None:
        self.prepared, self.file, self._params = prepared, prepared.file, params
        effects = self.file.effects
        self._stateful = effects.stateful
        older = self.file.style == "positional"
        self._keys = None if older or effects.keys is None else effects.keys
        self._copies = effects.copies or older
        self._cars: list[types.ModuleType] = []
        self._functions: list[Callable[..., Any]] = []
        self._state: Float64 | None = None
        self._pending: list[Any] | None = None
        self._grown = 0
        self._fast: Compiled | None = None
        if prepared.translation is not None:
            from hotlap.deepracer.rewards.compiled import Compiled

            self._fast = Compiled(prepared.translation, params, threads)

    def __call__(self, columns: Columns, wanted: Array | None = None) -> Float64:
        """Return the rewards of N cars, 0 for those that are not wanted.

        Raises:
            RewardError: the function fails, takes too long or returns no number in range.
        """
        out = np.zeros(len(columns.x))
        rows = None if wanted is None or wanted.all() else wanted
        if self._fast is None:
            self._plain(columns, out, rows)
            return out
        state = self._kept(len(out))
        before = state.copy() if rows is not None and self._stateful else None
        left = np.empty(len(out), bool)
        self._fast(columns, state, out, left)
        if rows is not None:
            out[~rows], left = 0.0, left & rows
            if before is not None:
                state[~rows] = before[~rows]
        if left.any():
            self._plain(columns, out, left)
        return out

    # --- plain Python ---

    def _plain(self, columns: Columns, out: Float64, rows: Array | None) -> None:
        function, call = self._function(0), self.file.call
        beat, params = [-1], dict[str, Any]()
        dictionaries = self._params.rows(columns, self._keys, copies=self._copies, chosen=rows)
        numbers = range(len(out)) if rows is None else np.flatnonzero(rows).tolist()
        straight = self.file.style == "params"
        apart, slots = self._stateful, self._fast is not None and self._state is not None
        before = confinement.resident()
        if apart:
            self._function(0 if slots else max(numbers, default=0))  # loads what is missing
        try:
            with confined(self.file.allow, beat):
                if straight and not apart and rows is None:
                    values = out.tolist()
                    for i, params in enumerate(dictionaries):
                        beat[0] = i
                        value = function(params)
                        if type(value) is float and -LIMIT <= value <= LIMIT:
                            values[i] = value
                        else:
                            values[i] = self.file.number(value, params)
                    out[:] = values
                    numbers = range(0)
                for i, params in zip(numbers, dictionaries, strict=True):
                    beat[0] += 1
                    if apart and not slots:
                        function = self._function(i)
                    elif apart:
                        self._load_slots(i)
                    value = function(params) if straight else call(params, function)
                    if apart and slots:
                        self._store_slots(i)
                    if type(value) is float and -LIMIT <= value <= LIMIT:
                        out[i] = value
                    else:
                        out[i] = self.file.number(value, params)
        except RewardError as error:
            error.exit_code = 1
            raise
        except Overdue:
            failure = RewardError(
                f"{self.file.place}: {NAME} took longer than {confinement.CALL_SECONDS:g} s for "
                "one call; look for a loop that does not end"
            )
            failure.exit_code = 1
            raise failure from None
        except (Exception, SystemExit) as error:
            failure = RewardError(self.file.failed(error, params))
            failure.exit_code = 1
            raise failure from error
        self._grown += confinement.resident() - before
        if self._grown > confinement.CALL_MEMORY:
            failure = RewardError(
                f"{self.file.path}: calls of {NAME} have kept {self._grown / 2**30:.1f} GiB; look "
                "for a list in a global that only grows"
            )
            failure.exit_code = 1
            raise failure

    def _function(self, car: int) -> Callable[..., Any]:
        if not self._stateful:
            return self.file.function
        while len(self._cars) <= car:
            module = self.file.another()
            self._cars.append(module)
            self._functions.append(vars(module)[NAME])
            if self._pending is not None and len(self._cars) <= len(self._pending):
                _put(module, self._pending[len(self._cars) - 1])
        return self._functions[car]

    # --- what is kept ---

    def _kept(self, cars: int) -> Float64:
        """Return the numbers that compiled cars keep."""
        assert self._fast is not None
        if self._state is None or len(self._state) != cars:
            self._state = self._fast.first_state(cars)
            if self._pending is not None:
                for i, values in enumerate(self._pending[:cars]):
                    self._to_slots(i, values)
        return self._state

    def _to_slots(self, i: int, values: dict[str, Any]) -> None:
        from hotlap.deepracer.rewards.compiled import to_slot

        assert self._state is not None
        assert self.prepared.translation is not None
        for k, (name, _) in enumerate(self.prepared.translation.state):
            if name in values and isinstance(values[name], bool | int | float | None):
                self._state[i, 2 * k : 2 * k + 2] = to_slot(values[name])

    def _from_slots(self, i: int) -> dict[str, Any]:
        from hotlap.deepracer.rewards.compiled import from_slot

        assert self._state is not None
        assert self.prepared.translation is not None
        return {
            name: from_slot(*self._state[i, 2 * k : 2 * k + 2].tolist())
            for k, (name, _) in enumerate(self.prepared.translation.state)
        }

    def _load_slots(self, i: int) -> None:
        """Give the one plain module what car i keeps."""
        self._function(0)
        _put_names(self._cars[0], self._from_slots(i))

    def _store_slots(self, i: int) -> None:
        assert self.prepared.translation is not None
        names = [name for name, _ in self.prepared.translation.state]
        self._to_slots(i, {name: _read(self._cars[0], name) for name in names})

    def save(self) -> dict[str, Array]:
        """Return what the cars keep, as named arrays; nothing where they keep nothing."""
        if not self._stateful:
            return {}
        if self._fast is not None:
            if self._state is None:
                return {}
            kept: list[Any] = [self._from_slots(i) for i in range(len(self._state))]
        else:
            kept = [_taken(module, self.file) for module in self._cars]
        text = json.dumps(kept)
        return {"kept": np.frombuffer(text.encode(), np.uint8).copy()}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Continue from what `save` returned; what could not be kept begins anew."""
        self._cars, self._functions, self._state = [], [], None
        self._pending = None
        if "kept" in arrays:
            self._pending = json.loads(bytes(np.asarray(arrays["kept"], np.uint8)).decode())

    # --- the proof ---

    def tried(self, columns: Columns) -> tuple[Float64, Array]:
        """Return plain rewards and which calls failed, of as many as can be done in time."""
        out, failed = np.zeros(len(columns.x)), np.zeros(len(columns.x), bool)
        rows = self._params.rows(columns, self._keys, copies=self._copies)
        beat = [0]
        self._function(len(out) - 1)
        end = time.monotonic() + PROOF_SECONDS  # of calls: loading is not what is asked
        silent = contextlib.redirect_stdout(None)
        with random_states_kept(), silent, confined(self.file.allow, beat):
            for i, params in enumerate(rows):
                beat[0] += 1
                try:
                    value = self.file.call(params, self._function(i))
                    out[i] = self.file.number(value, params)
                except (Exception, SystemExit):
                    failed[i] = True
                if time.monotonic() > end:
                    return out[: i + 1], failed[: i + 1]
        return out, failed

    def tried_fast(self, columns: Columns) -> tuple[Float64, Array]:
        """Return compiled rewards, and which calls are left to Python."""
        assert self._fast is not None
        out, left = np.zeros(len(columns.x)), np.zeros(len(columns.x), bool)
        self._fast(columns, self._kept(len(out)), out, left)
        return out, left

    def take_from(self, plain: RewardBatch, rows: Array) -> None:
        """Give compiled cars what plain ones keep."""
        assert self.prepared.translation is not None
        for i in np.flatnonzero(rows).tolist():
            names = [name for name, _ in self.prepared.translation.state]
            self._to_slots(i, {name: _read(plain._cars[i], name) for name in names})

    def keeps_as(self, plain: RewardBatch, rows: Array) -> bool:
        """Tell whether compiled cars keep what plain ones keep."""
        for i in np.flatnonzero(rows).tolist():
            for name, value in self._from_slots(i).items():
                other = _read(plain._cars[i], name)
                if repr(value) != repr(other) and value != other:
                    return False
        return True


# --- the globals of one car ---


def _read(module: types.ModuleType, name: str) -> Any:
    owner, _, attribute = name.partition(".")
    value = vars(module)[owner]
    return getattr(value, attribute) if attribute else value


def _put_names(module: types.ModuleType, values: dict[str, Any]) -> None:
    for name, value in values.items():
        owner, _, attribute = name.partition(".")
        if attribute and owner in vars(module):
            setattr(vars(module)[owner], attribute, value)
        elif not attribute:
            setattr(module, owner, value)


def _taken(module: types.ModuleType, file: RewardFile) -> dict[str, Any]:
    """Return what one plain car keeps; {} if it is not only numbers, texts, lists and dicts."""
    kept: dict[str, Any] = {}
    try:
        for name, value in vars(module).items():
            own = type(value).__module__ == module.__name__
            if name in file.effects.changed and not own:
                kept[name] = _plainly(value)
            elif own:
                for attribute, each in vars(value).items():
                    kept[f"{name}.{attribute}"] = _plainly(each)
    except TypeError:
        return {}
    return kept


def _plainly(value: Any) -> Any:
    """Return a value as JSON can hold it, with tuples told apart from lists."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple, set):
        return {type(value).__name__: [_plainly(v) for v in value]}
    if type(value) is dict:
        return {"dict": [[_plainly(k), _plainly(v)] for k, v in value.items()]}
    raise TypeError(f"{type(value).__name__} is not kept")


def _again(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((word, items),) = value.items()
    if word == "dict":
        return {_again(k): _again(v) for k, v in items}
    return {"list": list, "tuple": tuple, "set": set}[word](_again(v) for v in items)


def _put(module: types.ModuleType, kept: dict[str, Any]) -> None:
    _put_names(module, {name: _again(value) for name, value in kept.items()})
