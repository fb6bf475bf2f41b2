"""A user's reward function, translated into code that numba compiles to exactly the same values.

Functions are translated for the kinds of their arguments, params become plain arguments, tables of
numbers one array, and what the file keeps from call to call a row of numbers a car. The translation
refuses what it does not understand, with the line; `exact` says how the arithmetic stays Python's.
"""

from __future__ import annotations

import ast
import builtins
import math
import random
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hotlap.deepracer.rewards import exact
from hotlap.deepracer.rewards.calls import Calls
from hotlap.deepracer.rewards.expressions import Code, Expressions, Unknown
from hotlap.deepracer.rewards.keys import BOOLS, FLOATS, LISTS, PAIRS
from hotlap.deepracer.rewards.kinds import (
    Kind,
    Refused,
    cells,
    default,
    is_number,
    join,
    literal,
    number_as,
    say,
)
from hotlap.deepracer.rewards.statements import Body, is_plain

__all__ = ["CODES", "Translation", "translate"]

CODES = {"n": 0, "b": 1, "i": 2, "f": 3}
"""What stands beside a number that is kept from call to call: which type Python gave it."""

PARAM_KINDS: dict[str, Kind] = (
    dict.fromkeys(FLOATS, "f")
    | dict.fromkeys(BOOLS, "b")
    | dict.fromkeys(PAIRS, ("k", "i", "i"))
    | {key: ("v", kind, "O") for key, kind in LISTS.items()}
    | {"waypoints": ("v", ("t", "f", "f"), "K")}
)
SMALL = 8
"""Lists of up to so many numbers stay tuples in registers."""
_ROUNDS = 6
_PLAIN = (bool, int, float, str, list, tuple, dict, set, frozenset, range, type(None))


@dataclass(frozen=True)
class Translation:
    """Code, and what it needs."""

    text: str
    """Functions without decorators; `entry` is the reward's."""
    names: tuple[str, ...]
    """Of the functions, in the text's order."""
    constants: np.ndarray[Any, Any]
    """The numbers of all tables."""
    keys: tuple[str, ...]
    """Which of params it reads."""
    state: tuple[tuple[str, Any], ...]
    """What it keeps: its names, as `global` or `object.attribute`, and its first values."""
    open_ended: bool
    """Whether it has loops without a bound that is known before."""
    prints: tuple[int, ...]
    """Lines that print; Python does those calls."""


def translate(
    tree: ast.Module,
    module: types.ModuleType,
    function: str,
    positional: tuple[str, ...] = (),
    changed: frozenset[str] = frozenset(),
    attributes: frozenset[str] = frozenset(),
) -> Translation:
    """Translate a function of a module.

    Args:
        tree: the module's source.
        module: the same, loaded, before any call.
        function: which of its functions.
        positional: the names of its arguments where it has the older form, else empty.
        changed: names of globals that some function may change.
        attributes: names of attributes that some function may change.

    Raises:
        Refused: something in it has no exact translation; the message names the line.
    """
    program = Program(tree, module, changed, attributes)
    if function not in program.defined:
        raise Refused(f"{function} is not defined by `def` at the top of the file")
    named = {a.arg for a in program.defined[function].args.args} if positional else set()
    return program.run(function, positional, named == set(positional))


class Program:
    """What the functions of one file have in common while they are translated."""

    def __init__(
        self,
        tree: ast.Module,
        module: types.ModuleType,
        changed: frozenset[str],
        attributes: frozenset[str],
    ) -> None:
        self.module, self.changed, self.attributes = module, changed, attributes
        self.defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
        self.all_keys = frozenset(PARAM_KINDS)
        self.constants: list[float] = []
        self.views: dict[Any, Code] = {}
        self.objects: list[Any] = []
        self.derived: dict[Any, list[Any]] = {}
        self.literals: dict[Any, Any] = {}
        self.kept: dict[str, Kind] = {}
        self.first: dict[str, Any] = {}
        self.keys: set[str] = set()
        self.prints: set[int] = set()
        self.open_ended = self.hypot = False
        self.functions: list[tuple[Any, Body | None, str | None]] = []
        self.begin()

    def begin(self) -> None:
        """Begin another round."""
        self.texts: dict[str, str] = {}
        self.helpers: dict[Any, tuple[str, str]] = {}
        self.known: dict[Any, Body] = {}
        self.running: list[int] = []
        self.counter = 0
        self.numbers: dict[Any, int] = {}
        self.functions.clear()

    def count(self) -> int:
        self.counter += 1
        return self.counter

    def run(self, function: str, positional: tuple[str, ...], by_name: bool) -> Translation:
        node = ast.parse(_entry(function, positional, by_name)).body[0]
        assert isinstance(node, ast.FunctionDef)
        for _ in range(_ROUNDS):
            before = dict(self.kept)
            self.begin()
            body = Body(self, "entry", {"params": ("p",)}, node.body)
            body.translate()
            if self.kept == before:
                break
        else:
            raise Refused("the kinds of what it keeps do not settle")
        if self.prints and not is_number((body.returns or "n")[-1]):
            raise Refused(f"it prints at line {min(self.prints)}, in every call")
        if body.returns is None or not (
            is_number(body.returns) or (body.returns[0] == "o" and is_number(body.returns[1]))
        ):
            raise Refused(f"it returns {say(body.returns or 'n')}")
        if body.returns[0] in ("o", "b"):
            value = "need(given(@C u_params))"
            if body.returns == "b":
                value = "1.0 if given(@C u_params) else 0.0"
            self.texts["given"] = self.texts.pop("entry").replace("def entry(", "def given(")
            self.texts["entry"] = f"def entry(@C u_params):\n    return {value}"
        return self.finish()

    def finish(self) -> Translation:
        """Keep what is reached, and put the common arguments in."""
        keys = tuple(sorted(self.keys))
        common = [*(f"p_{key}" for key in keys)]
        texts = self.texts | dict(self.helpers.values())
        reached, waiting = ["entry"], ["entry"]
        while waiting:
            for name in re.findall(r"\b[a-z]+_?\d*\b", texts[waiting.pop()].replace("@C", " ")):
                if name in texts and name not in reached:
                    reached.append(name)
                    waiting.append(name)
        every = "K, " + "".join(
            f"{name}, "
            for name, wanted in (("S", self.kept), ("B", self.open_ended), ("O", self.objects_used))
            if wanted
        )
        every += "".join(f"{name}, " for name in common)
        text = "\n\n\n".join(texts[name].replace("@C", every) for name in reversed(reached))
        return Translation(
            text=text,
            names=tuple(reversed(reached)),
            constants=np.array(self.constants or [0.0]),
            keys=keys,
            state=tuple((name, self.first[name]) for name in self.kept),
            open_ended=self.open_ended,
            prints=tuple(sorted(self.prints)),
        )

    @property
    def objects_used(self) -> bool:
        return any(key in LISTS for key in self.keys)

    # --- names and constants ---

    def name(self, body: Expressions, node: ast.Name) -> Code:
        """Translate a name of the module or of Python."""
        name = node.id
        if name in vars(self.module):
            value = vars(self.module)[name]
            if name in self.changed and not self._is_own(value):
                if not isinstance(value, bool | int | float | None):
                    raise body.refuse(node, f"it keeps state in `{name}`")
                return self.state(name, value)
            return self.value(value, node, body, name)
        if name in self.changed:
            raise body.refuse(node, f"the global `{name}` has no value at first")
        if name in _SPECIAL:
            return "0", self.object("M", _SPECIAL[name])
        if hasattr(builtins, name):
            return self.value(getattr(builtins, name), node, body, name)
        raise Unknown(name)

    def _is_own(self, value: Any) -> bool:
        """Tell whether it is an object of one of the file's classes."""
        kind = type(value)
        return kind.__module__ == self.module.__name__ and kind.__name__ in self.classes

    def value(self, value: Any, node: ast.AST, body: Expressions, name: str = "") -> Code:
        """Translate a value that nothing changes."""
        if self._is_own(value):
            if type(value).__bases__ != (object,) or not name:
                raise body.refuse(node, f"`{name}` is an object of a class with a base")
            return "0", ("I", name)
        if isinstance(value, types.FunctionType):
            found = self.defined.get(value.__name__)
            if value.__module__ == self.module.__name__:
                same = found is not None and value.__code__.co_firstlineno == found.lineno
                if found is None or not same or name not in ("", found.name):
                    raise body.refuse(node, f"the function `{name}`")
                return "0", self.function(found, None)
        if isinstance(value, type) and value.__module__ == self.module.__name__:
            return "0", ("C", value.__name__)
        if isinstance(value, _PLAIN):
            return body.constant(value, node)
        if isinstance(value, np.ndarray):
            raise body.refuse(node, "an array of numpy")
        return "0", self.object("M", value)

    def object(self, word: str, value: Any) -> Kind:
        """Give a Python value a number."""
        for number, known in enumerate(self.objects):
            if known is value:
                return (word, number)
        self.objects.append(value)
        return (word, len(self.objects) - 1)

    def constant(self, value: Any) -> Code:
        """Translate a Python value that stays."""
        if value is None:
            return "0", "n"
        if isinstance(value, str):
            return "0", ("s", value)
        if isinstance(value, bool | int | float):
            return literal(value)
        if isinstance(value, list | tuple) and value:
            if all(isinstance(v, bool | int | float) for v in value) and len(value) <= SMALL:
                found = [literal(v) for v in value]
                word = "t" if isinstance(value, tuple) else "k"
                return f"({''.join(c + ', ' for c, _ in found)})", (word, *(k for _, k in found))
            view = self.view(value)
            if view is not None:
                return view
        if isinstance(value, list | tuple | dict | set | frozenset | range):
            return "0", self.object("d", value)
        raise Refused(f"a value of type {type(value).__name__}")

    def view(self, value: list[Any] | tuple[Any, ...]) -> Code | None:
        """Put a table of numbers among the constants, if it is one."""
        mark = id(value)
        if mark not in self.views:
            made = self._view(value)
            if made is None:
                return None
            self.views[mark] = made
            self.objects.append(value)  # so that nothing else gets its id
        return self.views[mark]

    def pairs(self, value: dict[Any, Any], what: str) -> Code | None:
        """Put the keys or values of a dict among the constants, if they are numbers or rows."""
        made = self.derived.setdefault((id(value), what), list(getattr(value, what)()))
        return self.view(made) if made else None

    def _view(self, value: list[Any] | tuple[Any, ...]) -> Code | None:
        number = bool | int | float
        word = "t" if isinstance(value[0], tuple) else "k"
        rows: Sequence[Any]
        if all(isinstance(v, number) for v in value):
            rows, kind = [[v] for v in value], None
        elif all(isinstance(v, list | tuple) and v for v in value):
            if {type(v) for v in value} not in ({list}, {tuple}) or len(
                {len(v) for v in value}
            ) > 1:
                return None
            if not all(isinstance(x, number) for v in value for x in v):
                return None
            rows, kind = value, word
        else:
            return None
        columns: list[Kind] = []
        for column in zip(*rows, strict=True):
            of = None
            for each in {type(x) for x in column}:
                of = join(of, {bool: "b", int: "i"}.get(each, "f"))
            columns.append(of)
        place = len(self.constants)
        for row in rows:
            for x in row:
                literal(x)
                self.constants.append(float(x))
        row_kind = columns[0] if kind is None else (kind, *columns)
        return f"({place}, {len(rows)})", ("v", row_kind, "K")

    def written(self, node: ast.expr) -> Any:
        """Return the value of a dict or set that is written out, else None."""
        mark = (node.lineno, node.col_offset)
        if mark not in self.literals:
            try:
                self.literals[mark] = ast.literal_eval(node)
            except ValueError:
                self.literals[mark] = None
        return self.literals[mark]

    def table(self, node: ast.List) -> Code | None:
        """Translate a list of numbers that is written out and long, or one of rows."""
        if len(node.elts) <= SMALL and not all(
            isinstance(e, ast.List | ast.Tuple) for e in node.elts
        ):
            return None
        if not node.elts:
            return None
        try:
            value = ast.literal_eval(node)
        except ValueError:
            return None
        mark = ("table", node.lineno, node.col_offset)
        if mark not in self.views:
            made = self._view(value)
            if made is None:
                return None
            self.views[mark] = made
        return self.views[mark]

    def attribute(self, body: Expressions, kind: Kind, node: ast.Attribute) -> Code:
        """Translate an attribute of a module, a class or an object."""
        if kind[0] == "M":
            owner = self.objects[kind[1]]
            if not isinstance(owner, types.ModuleType) or not hasattr(owner, node.attr):
                raise body.refuse(node, f"`{ast.unparse(node)[:40]}`")
            home = owner.__name__.partition(".")[0]
            if home not in ("math", "numpy", "builtins"):
                raise body.refuse(node, f"it uses {owner.__name__}.{node.attr}")
            return self.value(getattr(owner, node.attr), node, body)
        owner = vars(self.module)[kind[1]]
        if kind[0] == "I" and node.attr in self.attributes:
            value = vars(owner).get(node.attr, getattr(type(owner), node.attr, self))
            if not isinstance(value, bool | int | float | None):
                raise body.refuse(node, f"it keeps state in `{kind[1]}.{node.attr}`")
            return self.state(f"{kind[1]}.{node.attr}", value)
        found = getattr(owner, node.attr, self)
        if found is self or node.attr in self.attributes or isinstance(found, property):
            raise body.refuse(node, f"the attribute `{kind[1]}.{node.attr}`")
        method = getattr(found, "__func__", found)
        if isinstance(method, types.FunctionType):
            return "0", self.method(kind, node.attr, body, node)
        return self.value(found, node, body)

    def method(self, kind: Kind, name: str, body: Expressions, node: ast.AST) -> Kind:
        """Find a method of an object, or a static one of a class."""
        owner = vars(self.module)[kind[1]]
        of = type(owner).__name__ if kind[0] == "I" else kind[1]
        for part in self.classes[of].body:
            found = getattr(getattr(owner, name), "__code__", None)
            if isinstance(part, ast.FunctionDef) and part.name == name and found is not None:
                if found.co_firstlineno not in (
                    part.lineno,
                    part.lineno - len(part.decorator_list),
                ):
                    continue
                static = [ast.unparse(d) for d in part.decorator_list]
                if static == ["staticmethod"]:
                    return self.function(part, None)
                if not static and kind[0] == "I":
                    return self.function(part, None, kind[1])
        raise body.refuse(node, f"the method `{name}`")

    def function(self, node: Any, definer: Any, owner: str | None = None) -> Kind:
        """Give a function a number; `owner` is the object whose method it is."""
        mark = (id(node), id(definer), owner)
        if mark not in self.numbers:
            self.numbers[mark] = len(self.functions)
            self.functions.append((node, definer, owner))
        return ("F", self.numbers[mark])

    def is_builtin(self, body: Expressions, node: ast.expr, what: Any) -> bool:
        """Tell whether a piece of syntax names this builtin."""
        return (
            isinstance(node, ast.Name)
            and node.id == what.__name__
            and not body.knows(node.id)
            and node.id not in vars(self.module)
        )

    def param(self, body: Expressions, key: str, node: ast.expr) -> Code:
        """Translate params[key]."""
        if key not in PARAM_KINDS:
            raise Unknown(key)
        self.keys.add(key)
        return f"p_{key}", PARAM_KINDS[key]

    def key(self, body: Expressions, node: ast.expr) -> ast.Lambda:
        """Return the `key=` of min and max."""
        if not isinstance(node, ast.Lambda) or len(node.args.args) != 1 or node.args.defaults:
            raise body.refuse(node, "a `key=` that is no lambda of one argument")
        return node

    def check_hypot(self) -> None:
        """Refuse math.hypot where this Python computes it otherwise."""
        if self.hypot:
            return
        draws, ours = random.Random(0), cast("Any", exact.hypotenuse).py_func
        for _ in range(300):
            x, y = draws.uniform(-9, 9), draws.uniform(-9, 9) * 10 ** draws.uniform(-3, 1)
            if ours(x, y) != math.hypot(x, y):
                raise Refused("`math.hypot` of this Python is not translated")
        self.hypot = True

    # --- state ---

    def state(self, name: str, value: Any) -> Code:
        """Read what is kept."""
        kind = literal(value)[1] if value is not None else "n"
        if name not in self.kept:
            self.kept[name], self.first[name] = kind, value
        place, kind = 2 * list(self.kept).index(name), self.kept[name]
        if kind == "n":
            return "0", "n"
        inner = kind[1] if kind[0] == "o" else kind
        code = {"f": f"S[{place}]", "i": f"int(S[{place}])", "b": f"(S[{place}] != 0.0)"}[inner]
        if kind[0] == "o":
            code = f"(S[{place + 1}] != 0.0, {code})"
        return code, kind

    def slot(self, body: Expressions, node: ast.Attribute) -> str:
        """Return the name of an attribute that is kept."""
        _, kind = body.expr(node.value)
        if kind[0] != "I":
            raise body.refuse(node, f"it changes `{ast.unparse(node)[:40]}`")
        self.attribute(body, kind, ast.Attribute(node.value, node.attr, ast.Load()))
        return f"{kind[1]}.{node.attr}"

    def keep(self, body: Body, name: str, code: str, kind: Kind, node: ast.AST) -> None:
        """Write what is kept."""
        if not is_plain(kind):
            raise body.refuse(node, f"it keeps {say(kind)} in `{name}`")
        if name not in self.kept:
            if name not in vars(self.module):
                raise body.refuse(node, f"the global `{name}` has no value at first")
            value = vars(self.module)[name]
            if not isinstance(value, bool | int | float | None):
                raise body.refuse(node, f"it keeps state in `{name}`")
            self.state(name, value)
        body.writes = True
        self.kept[name] = body.joined(self.kept[name], kind, node)
        place = 2 * list(self.kept).index(name)
        if kind[0] == "o":
            value = body.temp(code)
            body.hoisted = False
            body.emit(f"S[{place}] = float({value}[1])")
            body.emit(f"S[{place + 1}] = {CODES[kind[1]]}.0 if {value}[0] else 0.0")
        else:
            body.emit(f"S[{place}] = {'0.0' if kind == 'n' else number_as(code, kind, 'f')}")
            body.emit(f"S[{place + 1}] = {CODES[kind]}.0")

    # --- functions ---

    def call(self, body: Calls, kind: Kind, node: ast.Call) -> Code:
        """Translate a call of one of the user's functions."""
        function, definer, owner = self.functions[kind[1]]
        given = self._given(body, function, definer, owner, node)
        kinds = {name: each for name, (_, each) in given.items()}
        mark = (id(function), owner, tuple(kinds.items()))
        callee = self.known.get(mark) if definer is None else None
        if callee is None:
            if id(function) in self.running:
                raise body.refuse(node, f"`{ast.unparse(node.func)}` calls itself")
            inside = (
                [ast.copy_location(ast.Return(function.body), function.body)]
                if isinstance(function, ast.Lambda)
                else function.body
            )
            callee = Body(self, f"f_{self.count()}", kinds, inside, definer)
            self.running.append(id(function))
            callee.translate()
            self.running.pop()
            if definer is None:
                self.known[mark] = callee
        codes = [code for code, _ in given.values()]
        for name in sorted(callee.used):
            codes.append(body.expr(ast.copy_location(ast.Name(name, ast.Load()), node))[0])
        body.writes |= callee.writes
        body.orders |= callee.writes
        return f"{callee.name}(@C{', '.join(codes)})", callee.returns or "n"

    def _given(
        self, body: Expressions, function: Any, definer: Any, owner: str | None, node: ast.Call
    ) -> dict[str, Code]:
        """Match the arguments of a call with the names of the function."""
        wanted = function.args
        if wanted.vararg or wanted.kwarg or wanted.kwonlyargs:
            raise body.refuse(node, "a function with * or ** arguments")
        names = [argument.arg for argument in (*wanted.posonlyargs, *wanted.args)]
        found: dict[str, Code] = {}
        places = list(names)
        if owner is not None:
            found[places.pop(0)] = ("0", ("I", owner))
        if len(node.args) > len(places):
            raise body.refuse(node, "a call with too many arguments")
        for name, argument in zip(places, node.args, strict=False):
            found[name] = body.expr(argument)
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in places or keyword.arg in found:
                raise body.refuse(node, f"the argument {keyword.arg}")
            found[keyword.arg] = body.expr(keyword.value)
        for name, value in zip(names[::-1], wanted.defaults[::-1], strict=False):
            if name not in found:
                if not isinstance(value, ast.Constant | ast.UnaryOp):
                    raise body.refuse(value, "a default that is not written out")
                found[name] = body.expr(value)
        if set(found) != set(names):
            raise body.refuse(node, "a call with too few arguments")
        for name, (_, kind) in found.items():
            if kind == ("l", None):
                raise body.refuse(node, f"an empty list as {name}")
        return {name: found[name] for name in names}

    def gather(
        self,
        body: Calls,
        word: str,
        element: ast.expr,
        generators: list[ast.comprehension],
        node: ast.expr,
        key: ast.Lambda | None = None,
    ) -> Code:
        """Translate a comprehension, or what is made of one, as a function of its own."""
        loop = Body(self, f"g_{self.count()}", {}, [], body)
        for generator in generators:
            loop.local |= {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
        if key is not None:
            loop.local.add(key.args.args[0].arg)
        for _ in range(_ROUNDS):
            before = dict(loop.vars)
            loop.reset()
            kind = self._gather(loop, word, element, generators, node, key)
            if loop.vars == before:
                break
        if loop.writes:
            raise body.refuse(node, "a comprehension of a function that keeps state")
        loop.write()
        names = ", ".join(
            body.expr(ast.copy_location(ast.Name(name, ast.Load()), node))[0]
            for name in sorted(loop.used)
        )
        return f"{loop.name}(@C{names})", kind

    def _gather(
        self,
        loop: Body,
        word: str,
        element: ast.expr,
        generators: list[ast.comprehension],
        node: ast.expr,
        key: ast.Lambda | None,
    ) -> Kind:
        for generator in generators:
            items = loop.items(generator.iter)
            number = f"i_{self.count()}"
            loop.emit(f"for {number} in range({items.count}):")
            loop.depth += 1
            loop.store(generator.target, *items.item(number), generator.iter)
            for condition in generator.ifs:
                loop.emit(f"if not {loop.truth(condition)}:")
                loop.emit("    continue")
        if word in ("any", "all"):
            truth = loop.truth(element)
            loop.emit(f"if {truth if word == 'any' else f'not {truth}'}:")
            loop.emit(f"    return {word == 'any'}")
            loop.depth = 1
            loop.emit(f"return {word == 'all'}")
            return "b"
        code, kind = loop.expr(element)
        if word == "list":
            if kind[0] == "l" or (default(kind) == "0" and kind != "i"):
                raise loop.refuse(node, f"a list of {say(kind)}s")
            loop.emit(f"a_0.append({code})")
            loop.lines.insert(0, f"    a_0 = [{default(kind)} for _ in range(0)]")
            loop.depth = 1
            loop.emit("return a_0")
            return ("l", kind)
        if word == "sum":
            code, of = loop.as_number(code, kind, node)
            kind = join(of, "i")
            code = number_as(code, of, kind)
            if kind == "i":
                loop.emit(f"a_0 = i_whole(a_0 + {code})")
            elif exact.COMPENSATED:
                loop.emit(f"a_0, a_1 = sum_step(a_0, a_1, {code})")
            else:
                loop.emit(f"a_0 += {code}")
            loop.lines.insert(0, f"    a_0 = {default(kind)}")
            loop.lines.insert(0, "    a_1 = 0.0")
            loop.depth = 1
            end = "sum_end(a_0, a_1)" if kind == "f" and exact.COMPENSATED else "a_0"
            loop.emit(f"return {end}")
            return kind
        return self._best(loop, word, code, kind, node, key)

    def _best(
        self, loop: Body, word: str, code: str, kind: Kind, node: ast.expr, key: ast.Lambda | None
    ) -> Kind:
        """Finish min and max."""
        name = loop.temp(code)
        ranked, of = name, kind
        if key is not None:
            argument = ast.Name(key.args.args[0].arg, ast.Store())
            loop.store(ast.copy_location(argument, node), name, kind, node)
            ranked, of = loop.expr(key.body)
        ranked, of = loop.as_number(ranked, of, node)
        rank = loop.temp(ranked)
        loop.emit(f"if a_2 or {rank} {'<' if word == 'min' else '>'} a_1:")
        loop.emit(f"    a_0, a_1, a_2 = {name}, {rank}, False")
        loop.lines.insert(0, f"    a_0, a_1, a_2 = {default(kind)}, {default(of)}, True")
        loop.depth = 1
        loop.emit("if a_2:")
        loop.emit("    raise Unsure")
        loop.emit("return a_0")
        return kind

    # --- helpers, written once for each kind ---

    def helper(self, mark: Any, write: Callable[[str], str]) -> str:
        if mark not in self.helpers:
            name = f"h_{len(self.helpers)}"
            self.helpers[mark] = (name, write(name))
        return self.helpers[mark][0]

    def conversion(self, kind: Kind, to: Kind) -> str:
        """Return the name of a function from one kind to a wider one."""
        code = _converted("x", kind, to)
        return self.helper(("to", kind, to), lambda name: f"def {name}(x):\n    return {code}")

    def row(self, kind: Kind, *, checked: bool) -> str:
        """Return the name of a function (array, view, index) to a row of a table."""
        inner, width = kind[1], len(cells(kind[1]))
        read = {"f": "T[p + {}]", "i": "int(T[p + {}])", "b": "(T[p + {}] != 0.0)"}
        parts = [read[cell].format(i) for i, cell in enumerate(cells(inner))]
        value = parts[0] if is_number(inner) else f"({''.join(p + ', ' for p in parts)})"
        check = "    i = index(i, view[1])\n" if checked else ""
        return self.helper(
            ("row", inner, checked),
            lambda name: (
                f"def {name}(T, view, i):\n{check}    p = view[0] + i * {width}\n    return {value}"
            ),
        )

    def unpacked(self, kind: Kind) -> str:
        """Return the name of a function (array, view) to a new list of its rows."""
        row = self.row(kind, checked=False)
        return self.helper(
            ("list", kind[1]),
            lambda name: (
                f"def {name}(T, view):\n    return [{row}(T, view, i) for i in range(view[1])]"
            ),
        )


def _converted(code: str, kind: Kind, to: Kind) -> str:
    if kind == to:
        return code
    if is_number(kind) and is_number(to):
        return number_as(code, kind, to)
    if to[0] == "o":
        if kind == "n":
            return default(to)
        if kind[0] == "o":
            return f"({code}[0], {_converted(f'{code}[1]', kind[1], to[1])})"
        return f"(True, {_converted(code, kind, to[1])})"
    if kind[0] == to[0] and kind[0] in ("t", "k") and len(kind) == len(to):
        parts = [
            _converted(f"{code}[{i}]", a, b)
            for i, (a, b) in enumerate(zip(kind[1:], to[1:], strict=True))
        ]
        return f"({''.join(part + ', ' for part in parts)})"
    if kind[0] == "k" and to[0] == "l":
        if len(kind) == 1:
            return default(to)
        parts = [_converted(f"{code}[{i}]", a, to[1]) for i, a in enumerate(kind[1:])]
        return f"[{', '.join(parts)}]"
    raise Refused(f"{say(kind)} as {say(to)}")


_SPECIAL = {"_hotlap_radians": math.radians, "_hotlap_nearest": exact.nearest}


def _entry(function: str, positional: tuple[str, ...], by_name: bool) -> str:
    """Write a function of params that calls the user's."""
    given = "params"
    if positional:
        given = ", ".join(f"{name}={OLDER[name]}" for name in positional)
        if not by_name:
            given = ", ".join(OLDER[name] for name in positional)
    return f"def entry(params):\n    return {function}({given})\n"


OLDER: Mapping[str, str] = {
    "on_track": "not params['is_offtrack']",
    "x": "params['x']",
    "y": "params['y']",
    "distance_from_center": "params['distance_from_center']",
    "car_orientation": "_hotlap_radians(params['heading'])",
    "progress": "params['progress']",
    "steps": "int(params['steps'])",
    "throttle": "params['speed'] / 4.0",
    "steering": "params['steering_angle'] / 30.0",
    "track_width": "params['track_width']",
    "waypoints": "params['waypoints']",
    "closest_waypoints": "_hotlap_nearest(params['waypoints'], params['x'], params['y'])",
}
