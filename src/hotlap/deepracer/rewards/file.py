"""A user's reward file: found, loaded apart from everything else, checked before training.

Two forms are understood: DeepRacer's `reward_function(params)` and the twelve arguments of the
older RoboMaker sample. The file is the only data of the user that is executed.

Source of the older form: the RoboMaker Deep Racer sample, deepracer_env.py, read for the facts.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import inspect
import io
import itertools
import math
import numbers
import random
import reprlib
import sys
import threading
import traceback
import types
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from hotlap.deepracer.rewards.confinement import confined
from hotlap.deepracer.rewards.effects import Effects
from hotlap.deepracer.rewards.keys import KEYS, POSITIONAL
from hotlap.errors import RewardError

if TYPE_CHECKING:
    from hotlap.track import Track

__all__ = ["LIMIT", "POSITIONAL", "RewardFile"]

LIMIT = 1e5
"""A reward lies in [-LIMIT, LIMIT]."""

FULL_SPEED, FULL_LOCK = 4.0, 30.0
"""What the older form's throttle 1 [m/s] and steering 1 [degrees] mean here."""

LOAD_SECONDS, CALL_SECONDS, CHECK_SECONDS = 20.0, 5.0, 1.0
"""Time to load the file, time for the check before it gives up, and when it is content."""
LINES_SHOWN = 3
"""How many lines that the function prints during the check are shown."""

NAME = "reward_function"
_SERIAL = itertools.count()
_Result = TypeVar("_Result")


class RewardFile:
    """A reward function from a file, with its own module: its globals last from call to call."""

    path: Path
    function: Callable[..., Any]
    style: Literal["params", "positional"]
    """How the function wants its arguments: one dict, or the twelve of `POSITIONAL`."""

    def __init__(self, path: str | Path, allow: Collection[str] = ()) -> None:
        """Load the file, and let it do nothing but compute and read.

        While it loads, its folder is importable; what it imports from there is its own.

        Args:
            path: the file.
            allow: what else its code may do; see `confinement.ALLOWANCES`.

        Raises:
            RewardError: the file is missing, cannot be loaded or has no usable function.
        """
        self.path, self.allow = Path(path).resolve(), tuple(allow)
        if not self.path.is_file():
            raise RewardError(
                f"{path}: no such file; give the path of a Python file with "
                f"`def {NAME}(params):` that returns a number"
            )
        try:
            self._source = self.path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RewardError(f"{path}: cannot be read as UTF-8 text ({error})") from None
        self._code = self._compiled()
        self.module = self._fresh()
        self.function = self._find(self.module)
        self._line = getattr(getattr(self.function, "__code__", None), "co_firstlineno", 1)
        self.place = f"{self.path}:{self._line}"
        self.style, self._by_name = self._form()

    @cached_property
    def tree(self) -> ast.Module:
        """The file's source, parsed."""
        return ast.parse(self._source)

    @cached_property
    def effects(self) -> Effects:
        """What the file may change while it runs."""
        return Effects(self.tree, self.module, self.path.parent, KEYS)

    def another(self) -> types.ModuleType:
        """Load the file once more, for another car: with globals of its own.

        Globals that nothing changes are shared with the first, so that tables exist once.
        """
        module = self._fresh(quiet=True)
        first, changed = vars(self.module), self.effects.changed
        for name, value in vars(module).items():
            same = type(first.get(name)) is type(value) and not name.startswith("__")
            if same and isinstance(value, list | tuple | dict | set) and name not in changed:
                setattr(module, name, first[name])
        sys.modules.pop(module.__name__, None)
        return module

    def _fresh(self, *, quiet: bool = False) -> types.ModuleType:
        def load() -> types.ModuleType:
            with confined(self.allow):
                return self._load()

        silence = contextlib.redirect_stdout(None) if quiet else contextlib.nullcontext()
        with random_states_kept(), silence:
            return within(LOAD_SECONDS, load, f"{self.path}: loading the file")

    def _compiled(self) -> types.CodeType:
        try:
            return compile(self._source, str(self.path), "exec", dont_inherit=True)
        except SyntaxError as error:
            text = f": {error.text.strip()}" if error.text else ""
            raise RewardError(
                f"{self.path}:{error.lineno or 1}: not valid Python: {error.msg}{text}"
            ) from None
        except ValueError as error:
            raise RewardError(f"{self.path}: not valid Python: {error}") from None

    def __call__(self, params: dict[str, Any]) -> float:
        """Return the reward; `params` belongs to the function from now on.

        Raises:
            RewardError: the function fails or returns no number in the allowed range.
        """
        try:
            value = self.call(params)
        except (Exception, SystemExit) as error:
            failure = RewardError(self.failed(error, params))
            failure.exit_code = 1
            raise failure from error
        if type(value) is float and -LIMIT <= value <= LIMIT:
            return value
        try:
            return self.number(value, params)
        except RewardError as error:
            error.exit_code = 1
            raise

    def check(self, track: Track, *, obstacles: int = 0, cars: int = 0) -> list[str]:
        """Call a copy of the function in another process on sampled states: mistakes show at once.

        The states are on the line and off the track, in both directions, at the first step, within
        the lap and at its end, with slow, fast, straight and turning commands. About a second.

        Args:
            track: where.
            obstacles: how many boxes `params` speaks of,
            cars: and how many other cars.

        Returns:
            Notes for the user: what it printed and how much of it was left out.

        Raises:
            RewardError: the function fails, hangs, or returns no number in the allowed range.
        """
        from hotlap.deepracer.rewards.trial import try_file

        return try_file(self.path, track, obstacles=obstacles, cars=cars, allow=self.allow)

    def try_once(self, params: dict[str, Any]) -> None:
        """Call the function before a training.

        Raises:
            RewardError: it fails or returns no number in the allowed range.
        """
        given = params.copy()
        try:
            value = self.call(params)
        except BaseException as error:
            raise RewardError(self.failed(error, given)) from error
        self.number(value, given)

    def _load(self) -> types.ModuleType:
        name = f"hotlap_reward_{next(_SERIAL)}"
        module = types.ModuleType(name)
        module.__file__ = str(self.path)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            with _importable(self.path.parent):
                exec(self._code, module.__dict__)
        except BaseException as error:
            del sys.modules[name]
            hint = ""
            if isinstance(error, ImportError):
                hint = ". Install the package, or put the module beside the file"
            raise RewardError(f"{self._where(error)}: {_said(error)}{hint}") from error
        return module

    def _find(self, module: types.ModuleType) -> Callable[..., Any]:
        found = getattr(module, NAME, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
        if found is not None:
            raise RewardError(f"{self.path}: {NAME} is {_shown(found)}, not a function")
        defined = [
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        near = difflib.get_close_matches(NAME, defined, n=1)
        has = f"it defines {', '.join(defined)}" if defined else "it defines no function"
        rename = f"; rename {near[0]} to {NAME}" if near else ""
        raise RewardError(
            f"{self.path}:1: has no function {NAME}; {has}{rename}. "
            f"Write `def {NAME}(params):` and return a number"
        )

    def _form(self) -> tuple[Literal["params", "positional"], bool]:
        """Tell the form, and whether the older one's arguments go by name."""
        kinds = inspect.Parameter
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            return "params", False
        places = [
            p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        ]
        required = [p for p in places if p.default is kinds.empty]
        demanded = [
            p for p in parameters if p.kind is kinds.KEYWORD_ONLY and p.default is kinds.empty
        ]
        any_number = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
        if not demanded:
            if {p.name for p in places} == set(POSITIONAL):
                return "positional", True
            if len(required) == len(POSITIONAL):
                return "positional", False
            if len(required) <= 1 and (places or any_number):
                return "params", False
        raise RewardError(
            f"{self.path}:{self._line}: {NAME} takes {len(required) + len(demanded)} parameters; "
            f"allowed are one, `{NAME}(params)`, or the {len(POSITIONAL)} of the older form: "
            f"{', '.join(POSITIONAL)}"
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The twelve of the older form, in the order in which the function takes them."""
        return POSITIONAL

    def call(self, params: dict[str, Any], function: Callable[..., Any] | None = None) -> Any:
        """Call the function, or that of another car, and return whatever it returns."""
        function = function or self.function
        if self.style == "params":
            return function(params)
        older = _older(params)
        return function(**older) if self._by_name else function(*older.values())

    def number(self, value: Any, params: dict[str, Any]) -> float:
        """Return what the function returned as a reward.

        Raises:
            RewardError: it is no number in the allowed range.
        """
        at = f"{self.path}:{self._line}: {NAME} returned"
        if not isinstance(value, numbers.Real | np.bool_):
            called = f" for {self._told(params)}"
            rule = "it must return one number"
            if value is None:
                rule += "; a way through it lacks `return`"
            raise RewardError(f"{at} {_shown(value)}{called}; {rule}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and abs(number) <= LIMIT:
            return number
        called = f" for {self._told(params)}"
        if not math.isfinite(number):
            raise RewardError(f"{at} {number}{called}; a reward must be finite")
        raise RewardError(f"{at} {number:g}{called}; allowed are -100000 to 100000")

    def failed(self, error: BaseException, params: dict[str, Any]) -> str:
        """Say in one sentence where and for what params a call failed."""
        hint = ""
        if isinstance(error, KeyError) and error.args and error.args[0] not in KEYS:
            near = difflib.get_close_matches(str(error.args[0]), KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            hint += f" Keys of params: {', '.join(KEYS)}" if self.style == "params" else ""
        return (
            f"{self._where(error)}: {NAME} failed: {_said(error)}, for {self._told(params)}{hint}"
        )

    def _where(self, error: BaseException) -> str:
        """Return file:line of the last statement in the user's folder, and the statement."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename == str(self.path)]
        near = [f for f in frames if Path(f.filename).parent == self.path.parent]
        if not (own or near):
            return str(self.path)
        frame = (near or own)[-1]
        text = f" `{frame.line}`" if frame.line else ""
        return f"{frame.filename}:{frame.lineno}{text}"

    def _told(self, params: dict[str, Any]) -> str:
        """Say the params that the source mentions, or the common ones."""
        given = params if self.style == "params" else _older(params)
        named = [key for key in given if key in self._source and len(key) > 1]
        common = ["steps", "progress", "speed", "steering_angle", "distance_from_center"]
        chosen = [key for key in named or common if key in given and key != "waypoints"]
        return ", ".join(f"{key} = {_brief(given[key])}" for key in chosen[:8])


def _square(x: float) -> float:
    return x * x


def _older(params: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the older form, in its order and units."""
    x, y, waypoints = params["x"], params["y"], params["waypoints"]
    near = min(
        range(len(waypoints)),
        key=lambda i: _square(waypoints[i][0] - x) + _square(waypoints[i][1] - y),
        default=0,
    )
    return {
        "on_track": not params["is_offtrack"],
        "x": x,
        "y": y,
        "distance_from_center": params["distance_from_center"],
        "car_orientation": math.radians(params["heading"]),
        "progress": params["progress"],
        "steps": int(params["steps"]),
        "throttle": params["speed"] / FULL_SPEED,
        "steering": params["steering_angle"] / FULL_LOCK,
        "track_width": params["track_width"],
        "waypoints": waypoints,
        "closest_waypoints": near,
    }


def within(seconds: float, work: Callable[[], _Result], what: str) -> _Result:
    """Run work in a thread that can be left behind, as a hanging function cannot be stopped."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="hotlap-reward")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise RewardError(
            f"{what} took longer than {seconds:g} s; look for a loop that does not end"
        )
    return results[0]


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a folder's modules be imported, and forget them afterwards: folders can differ."""
    own = {path.stem for path in folder.glob("*.py")}
    own |= {path.parent.name for path in folder.glob("*/__init__.py")}
    own -= sys.stdlib_module_names
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in own and not _lies_in(module, folder)
    }
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], folder):
                del sys.modules[name]
        sys.modules.update(hidden)


def _lies_in(module: types.ModuleType | None, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Leave Python's and numpy's random numbers as they are."""
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 the user's, not ours
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


class FirstLines(io.TextIOBase):
    """A stream that keeps the first lines and counts the rest."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.lines = 0

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            if self.lines < LINES_SHOWN:
                self.shown.append(line)
            self.lines += line.endswith("\n")
        return len(text)


@contextlib.contextmanager
def first_lines() -> Iterator[FirstLines]:
    """Keep the first lines of what is printed within the block."""
    printed = FirstLines()
    with contextlib.redirect_stdout(printed):
        yield printed


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _shown(value: object) -> str:
    return "None" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"


def _brief(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else reprlib.repr(value)
