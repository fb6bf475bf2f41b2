# ruff: noqa: SIM102 one condition a line says what is looked for
"""What a user's reward file may change while it runs, read from its source.

Everything is judged by name and on the safe side: what is not certainly left alone counts as
changed. Three things follow. Globals that may be changed are kept for each car apart; tables that
are not may be shared and compiled; and params need to hold only the keys that the file names.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Effects"]

_LOOKS = frozenset(
    [
        "get",
        "keys",
        "values",
        "items",
        "index",
        "count",
        "copy",
        "join",
        "format",
        "split",
        "strip",
        "startswith",
        "endswith",
        "lower",
        "upper",
        "mean",
        "sum",
        "min",
        "max",
        "argmin",
        "argmax",
        "tolist",
        "astype",
        "dot",
        "transpose",
        "flatten",
        "round",
        "any",
        "all",
        "std",
        "norm",
        "is_integer",
    ]
)
"""Methods that leave their object alone, whatever it is."""
_GIVES = frozenset(
    [
        "sorted",
        "list",
        "reversed",
        "zip",
        "enumerate",
        "min",
        "max",
        "filter",
        "iter",
        "tuple",
        "dict",
        "set",
        "frozenset",
        "copy",
        "asarray",
        "array",
        "map",
    ]
)
"""Functions whose result may hold what they were given."""
_TAKES = frozenset(
    [
        "len",
        "sum",
        "abs",
        "float",
        "int",
        "bool",
        "round",
        "print",
        "str",
        "repr",
        "range",
        "any",
        "all",
        "isinstance",
        "type",
        "id",
        "hash",
        "pow",
        "divmod",
        "format",
        "ascii",
        "deepcopy",
    ]
)
"""Functions that leave what they are given alone, and return something else."""
_OPAQUE = frozenset(
    ["globals", "locals", "vars", "setattr", "delattr", "exec", "eval", "compile", "__import__"]
)
_PLAIN_MODULES = ("math", "numpy", "random", "cmath", "statistics", "np")
_DEEP = 9


class Effects:
    """What one file may change."""

    changed: frozenset[str]
    """Names of globals whose value, or something in it, may change."""
    attributes: frozenset[str]
    """Names of attributes, of whatever object, that may change after it was made."""
    keys: tuple[str, ...] | None
    """The keys of params that the file can read; None if that is not known."""
    copies: bool
    """Whether the list of waypoints may be changed."""
    stateful: bool
    """Whether a call may leave something behind for the next."""

    def __init__(
        self, tree: ast.Module, module: types.ModuleType, folder: Path, keys: tuple[str, ...] = ()
    ) -> None:
        self._tree = tree
        self._functions: dict[str, list[Any]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self._functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                inits = [
                    n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"
                ]
                self._functions.setdefault(node.name, []).extend(inits)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._functions.setdefault(target.id, []).append(node.value)
        inside = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)]
        self._inside = {id(part) for function in inside for part in _body(function)}
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        opaque = bool(names & _OPAQUE) or any(
            (isinstance(n, ast.Attribute) and n.attr.startswith("__") and n.attr != "__init__")
            or (isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names))
            for n in ast.walk(tree)
        )
        defined = {k: v for k, v in vars(module).items() if not k.startswith("__")}
        changed = {name for n in ast.walk(tree) if isinstance(n, ast.Global) for name in n.names}
        for name, value in defined.items():
            depth = _depth(value)
            if depth and (opaque or self._touched({name: depth})):
                changed.add(name)
        self.changed = frozenset(changed)
        self.attributes = frozenset(self._attributes())
        beside = [v for v in defined.values() if _is_beside(v, folder)]
        nested = any(isinstance(n, ast.Nonlocal) for n in ast.walk(tree))
        self.stateful = (
            opaque
            or bool(self.changed or self.attributes)
            or nested
            or self._decorated()
            or self._defaults()
            or any(_keeps(part, folder) for part in beside)
        )
        self.keys, self.copies = None, True
        functions = [
            n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "reward_function"
        ]
        arguments = functions[0].args.args if len(functions) == 1 else []
        if len(arguments) == 1 and not opaque and not beside:
            self._params(arguments[0].arg, keys)

    # --- what happens to params ---

    def _params(self, name: str, keys: tuple[str, ...]) -> None:
        """Find the keys that are read, if params go nowhere unseen."""
        found = self._aliases({name: _DEEP}, whole=True)
        if found is None:
            return
        texts = {n.value for n in ast.walk(self._tree) if isinstance(n, ast.Constant)}
        self.keys = tuple(key for key in keys if key in texts)
        readers = self._waypoint_names(found)
        self.copies = readers is None or self._touched(dict.fromkeys(readers, 1))

    def _waypoint_names(self, params: set[str]) -> set[str] | None:
        """Return the names that waypoints get straight from params; None if not only names."""
        names: set[str] = set()
        allowed: set[int] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    pairs = [(target, node.value)]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = list(zip(target.elts, node.value.elts, strict=False))
                    for to, value in pairs:
                        if self._is_waypoints(value, params) and isinstance(to, ast.Name):
                            names.add(to.id)
                            allowed.add(id(value))
            elif isinstance(node, ast.Subscript):
                if self._is_waypoints(node.value, params) and isinstance(node.ctx, ast.Load):
                    allowed.add(id(node.value))
            elif isinstance(node, ast.For | ast.comprehension):
                allowed.add(id(node.iter))
            elif isinstance(node, ast.Call):
                known = isinstance(node.func, ast.Name) and node.func.id in _TAKES | _GIVES
                for i, argument in enumerate(node.args):
                    if known:
                        allowed.add(id(argument))
                    elif self._is_waypoints(argument, params):
                        targets = self._parameters(node.func, i)
                        if not targets:
                            return None
                        names |= targets
                        allowed.add(id(argument))
        for node in ast.walk(self._tree):
            if self._is_waypoints(node, params) and id(node) not in allowed:
                return None
        return names

    @staticmethod
    def _is_waypoints(node: ast.AST, params: set[str]) -> bool:
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            of, key = node.value, node.slice.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            of, key = node.func.value, getattr(node.args[0], "value", None)
        else:
            return False
        return isinstance(of, ast.Name) and of.id in params and key == "waypoints"

    def _aliases(self, roots: dict[str, int], *, whole: bool) -> set[str] | None:
        """Return the names under which params go; None if they are used as a whole."""
        names, grown = set(roots), True
        while grown:
            grown = False
            allowed: set[int] = set()
            for node in ast.walk(self._tree):
                if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                    if isinstance(node.slice, ast.Constant):
                        allowed.add(id(node.value))
                elif isinstance(node, ast.Call):
                    of = node.func
                    if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name):
                        constant = node.args and isinstance(node.args[0], ast.Constant)
                        if of.attr == "get" and constant:
                            allowed.add(id(of.value))
                    for i, argument in enumerate(node.args):
                        if isinstance(argument, ast.Name) and argument.id in names:
                            targets = self._parameters(of, i)
                            if targets:
                                allowed.add(id(argument))
                                grown |= not targets <= names
                                names |= targets
                elif isinstance(node, ast.Compare):
                    for side in node.comparators:
                        if isinstance(node.left, ast.Constant):
                            allowed.add(id(side))
                elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                    if node.value.id in names and isinstance(node.targets[0], ast.Name):
                        allowed.add(id(node.value))
                        grown |= node.targets[0].id not in names
                        names.add(node.targets[0].id)
            if not whole:
                return names
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id in names and id(node) not in allowed:
                if isinstance(node.ctx, ast.Load):
                    return None
        return names

    def _parameters(self, function: ast.expr, place: int) -> set[str]:
        """Return the names that an argument gets in the functions that may be meant."""
        method = isinstance(function, ast.Attribute)
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        found = set()
        for node in self._functions.get(name, []):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            is_method = bool(names) and names[0] == "self"
            at = place + (is_method and (method or isinstance(function, ast.Name)))
            if at < len(names):
                found.add(names[at])
                if method and not is_method and at + 1 < len(names):  # Class.f(object, ...)
                    found.add(names[at + 1])
        return found

    # --- what happens to globals ---

    def _touched(self, depth: dict[str, int]) -> bool:
        """Tell whether what goes under these names may be changed within a function."""
        for _ in range(20):
            before = dict(depth)
            for node in ast.walk(self._tree):
                if self._bind(node, depth) or (
                    id(node) in self._inside and _hurts(node, depth, self)
                ):
                    return True
            if depth == before:
                return False
        return True

    def _bind(self, node: ast.AST, depth: dict[str, int]) -> bool:
        """Follow aliases through one statement; True if they go where nobody can follow."""
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            value = node.value
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return value is not None and any(self._put(t, value, depth) for t in targets)
        if isinstance(node, ast.For | ast.comprehension):
            return _name(node.target, self._of(node.iter, depth) - 1, depth)
        if isinstance(node, ast.Return) and node.value is not None:
            reach = self._of(node.value, depth)
            if reach > 0:
                depth["()"] = max(depth.get("()", 0), reach)
        if isinstance(node, ast.Yield | ast.YieldFrom | ast.With | ast.Starred):
            return any(self._of(n, depth) > 0 for n in ast.walk(node) if isinstance(n, ast.Name))
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            given = node.args
            names = [*given.posonlyargs, *given.args]
            for argument, value in zip(names[::-1], given.defaults[::-1], strict=False):
                _name(ast.Name(argument.arg, ast.Store()), self._of(value, depth), depth)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        return False

    def _put(self, target: ast.expr, value: ast.expr, depth: dict[str, int]) -> bool:
        if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            if len(target.elts) == len(value.elts):
                return any(
                    self._put(t, v, depth) for t, v in zip(target.elts, value.elts, strict=True)
                )
        return _name(target, self._of(value, depth), depth)

    def _call(self, node: ast.Call, depth: dict[str, int]) -> bool:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        home = node.func.value if isinstance(node.func, ast.Attribute) else None
        plain = isinstance(home, ast.Name) and home.id in _PLAIN_MODULES and name != "shuffle"
        for i, argument in enumerate([*node.args, *(k.value for k in node.keywords)]):
            reach = self._of(argument, depth)
            if reach <= 0:
                continue
            if plain or name in _TAKES or name in _GIVES or name in _LOOKS:
                continue
            if i >= len(node.args):
                word = node.keywords[i - len(node.args)].arg
                targets = {str(word)} if name in self._functions else set()
            else:
                targets = self._parameters(node.func, i)
            if name in ("append", "extend", "insert", "add", "update") and home is not None:
                if _name(home, reach + 1, depth):
                    return True
                continue
            if not targets:
                return True
            for each in targets:
                depth[each] = max(depth.get(each, 0), reach)
        return False

    def _of(self, node: ast.AST | None, depth: dict[str, int]) -> int:
        """Return how many layers of changeable things an expression may lead to."""
        if isinstance(node, ast.Name):
            return depth.get(node.id, 0)
        if isinstance(node, ast.Attribute):
            return max(self._of(node.value, depth), depth.get(f".{node.attr}", 0))
        if isinstance(node, ast.Subscript):
            reach = self._of(node.value, depth)
            return reach if isinstance(node.slice, ast.Slice) else reach - 1
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            own = name in self._functions
            of = [depth.get("()", 0) if own else 0]
            if isinstance(node.func, ast.Attribute):
                of.append(self._of(node.func.value, depth))
            if name in _GIVES or own:
                of += [self._of(a, depth) for a in node.args]
            return max(of)
        if isinstance(node, ast.IfExp):
            return max(self._of(node.body, depth), self._of(node.orelse, depth))
        if isinstance(node, ast.BoolOp):
            return max(self._of(v, depth) for v in node.values)
        if isinstance(node, ast.BinOp):
            return max(self._of(node.left, depth), self._of(node.right, depth))
        if isinstance(node, ast.NamedExpr | ast.Starred):
            return self._of(node.value, depth)
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            inner = max((self._of(e, depth) for e in node.elts), default=0)
            return inner + (inner > 0)
        if isinstance(node, ast.Dict):
            inner = max((self._of(e, depth) for e in node.values), default=0)
            return inner + (inner > 0)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            inner = self._of(node.elt, depth)
            return inner + (inner > 0)
        if isinstance(node, ast.DictComp):
            inner = self._of(node.value, depth)
            return inner + (inner > 0)
        return 0

    def _attributes(self) -> Iterator[str]:
        """Yield the attributes that are set outside `__init__`, or changed anywhere."""
        setting = {
            id(part)
            for functions in self._functions.values()
            for function in functions
            if getattr(function, "name", "") == "__init__"
            for part in _body(function)
            if isinstance(part, ast.Attribute)
            and isinstance(part.value, ast.Name)
            and part.value.id == "self"
        }
        names = {n.attr for n in ast.walk(self._tree) if isinstance(n, ast.Attribute)}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                if id(node) in self._inside and id(node) not in setting:
                    yield node.attr
        for name in names - _LOOKS - {"append"}:
            if self._touched({f".{name}": _DEEP}):
                yield name

    def _decorated(self) -> bool:
        plain = {"staticmethod", "classmethod", "property"}
        return any(
            ast.unparse(decorator) not in plain
            for functions in self._functions.values()
            for function in functions
            for decorator in getattr(function, "decorator_list", [])
        )

    def _defaults(self) -> bool:
        """Tell whether an argument's default may change."""
        for functions in self._functions.values():
            for function in functions:
                given = function.args
                names = [*given.posonlyargs, *given.args]
                for argument, value in zip(names[::-1], given.defaults[::-1], strict=False):
                    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.Call):
                        if self._touched({argument.arg: _DEEP}):
                            return True
        return False


def _hurts(node: ast.AST, depth: dict[str, int], effects: Effects) -> bool:
    """Tell whether one piece of syntax changes what goes under the names."""
    of = effects._of
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return of(node.value, depth) > 0 and isinstance(node, ast.Subscript)
    if isinstance(node, ast.AugAssign):
        target = node.target
        return of(target, depth) > 0
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", "")
        if name == "next" and node.args:
            return of(node.args[0], depth) > 0
        if isinstance(node.func, ast.Attribute) and node.func.attr not in _LOOKS:
            home = node.func.value
            if isinstance(home, ast.Name) and home.id in ("self", *_PLAIN_MODULES):
                return False
            if node.func.attr in effects._functions:
                return False
            return of(home, depth) > 0
    return False


def _name(target: ast.expr, reach: int, depth: dict[str, int]) -> bool:
    """Note that a target holds what reaches so deep; True if it cannot be followed."""
    if reach <= 0:
        return False
    if isinstance(target, ast.Name):
        depth[target.id] = max(depth.get(target.id, 0), reach)
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            _name(part, reach - 1, depth)
    elif isinstance(target, ast.Attribute):
        depth[f".{target.attr}"] = max(depth.get(f".{target.attr}", 0), reach)
    elif isinstance(target, ast.Subscript):
        return _name(target.value, reach + 1, depth)
    else:
        return True
    return False


def _body(function: ast.AST) -> Iterator[ast.AST]:
    body = getattr(function, "body", [])
    for part in body if isinstance(body, list) else [body]:
        yield from ast.walk(part)


def _depth(value: Any) -> int:
    """Return how many layers of changeable things a value has; 0 if nothing can change in it."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | range):
        return 0
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type | types.ModuleType):
        return 0
    if isinstance(value, list | tuple | set | frozenset):
        inner = max((_depth(v) for v in value), default=0)
        fixed = isinstance(value, tuple | frozenset)
        return 0 if fixed and not inner else inner + 1
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in value.values()), default=0)
    if type(value).__module__ == "numpy" and not hasattr(value, "__len__"):
        return 0
    return _DEEP


def _is_beside(value: Any, folder: Path) -> bool:
    home = getattr(value, "__file__", None) if isinstance(value, types.ModuleType) else None
    if home is None and isinstance(value, types.FunctionType | type):
        code = getattr(value, "__code__", None)
        home = code.co_filename if code is not None else None
        if home is not None and not Path(home).is_relative_to(folder):
            return False
        return home is not None and getattr(value, "__module__", "").partition("_")[0] != "hotlap"
    return home is not None and Path(home).is_relative_to(folder)


def _keeps(value: Any, folder: Path) -> bool:
    """Tell whether a module beside the file, or one that a function is from, may keep state."""
    if not isinstance(value, types.ModuleType):
        return True
    try:
        tree = ast.parse(Path(str(value.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    return Effects(tree, value, folder).stateful
