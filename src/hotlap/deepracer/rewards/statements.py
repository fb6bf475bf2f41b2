# ruff: noqa: D102, N802, N815, SIM102 a method for each kind of syntax, named after it
"""Statements of a user's reward function, translated one function at a time.

A function is translated again and again until the kinds of its names no longer change. What Python
does with an exception is never imitated: wherever one may be raised, and wherever something is
printed, the compiled code gives up this one call and Python does it. So handlers of exceptions are
left out.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotlap.deepracer.rewards.calls import Calls
from hotlap.deepracer.rewards.expressions import Code, Expressions, Unknown
from hotlap.deepracer.rewards.kinds import Kind, Refused, default, is_number, join, say

if TYPE_CHECKING:
    from hotlap.deepracer.rewards.translation import Program

__all__ = ["Body"]

_PASSES = 12
_FRESH = (ast.List, ast.ListComp, ast.BinOp)


class Body(Calls):
    """One function, for arguments of given kinds."""

    def __init__(
        self,
        program: Program,
        name: str,
        arguments: Mapping[str, Kind],
        statements: list[ast.stmt],
        parent: Expressions | None = None,
    ) -> None:
        self.program, self.name, self.parent = program, name, parent
        self.arguments, self.statements = dict(arguments), statements
        self.vars: dict[str, Kind] = dict(arguments)
        self.globals: set[str] = set()
        self.nested: dict[str, Any] = {}
        self.imports: dict[str, Any] = {}
        self.lists: set[str] = set()
        self.flags: set[str] = set()
        self.used: set[str] = set()
        self.writes = self.hoisted = self.orders = False
        self.returns: Kind | None = None
        self.local = set(arguments)
        for statement in statements:
            self._declare(statement)
        self.local -= self.globals | set(self.nested) | set(self.imports)
        self.reset()

    def reset(self) -> None:
        """Begin another pass."""
        self.lines: list[str] = []
        self.depth = 1
        self.bound: set[str] | None = set(self.arguments)

    def _declare(self, node: ast.AST) -> None:
        if isinstance(node, ast.Global):
            self.globals |= set(node.names)
        elif isinstance(node, ast.Nonlocal | ast.ClassDef | ast.NamedExpr):
            raise self.refuse(node, f"`{ast.unparse(node)[:30]}`")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
            return
        elif isinstance(node, ast.FunctionDef):
            self.nested[node.name] = node
            return
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp):
            return
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.nested[node.targets[0].id] = node.value
                return
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.local.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            self.local.add(node.name)
        for child in ast.iter_child_nodes(node):
            self._declare(child)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            home = node.module if isinstance(node, ast.ImportFrom) else alias.name
            if home not in ("math", "numpy") or (isinstance(node, ast.ImportFrom) and node.level):
                raise self.refuse(node, f"`{ast.unparse(node)[:40]}` within a function")
            found = importlib.import_module(home)
            if isinstance(node, ast.ImportFrom):
                found = getattr(found, alias.name)
            self.imports[alias.asname or alias.name] = found

    def translate(self) -> None:
        """Translate until nothing changes; then `text` is complete."""
        for _ in range(_PASSES):
            before = self._state()
            self.reset()
            self.block(self.statements, deeper=False)
            if self.bound is not None:
                self.returned("0", "n", None)
            if self._state() == before:
                break
        else:
            raise Refused(f"the kinds of the names in {self.name} do not settle")
        for name, kind in self.arguments.items():
            if self.vars[name][0] == "l" and kind[0] != "l":
                raise Refused(f"`{name}`, which a function is given, is changed there")
        self.write()

    def _state(self) -> tuple[Any, ...]:
        return (dict(self.vars), self.returns, set(self.flags), set(self.lists), set(self.used))

    def write(self) -> None:
        """Hand the finished text to the program."""
        head = []
        for name, kind in self.arguments.items():
            if self.vars[name] != kind:
                head.append(
                    f"    u_{name} = {self.coerce(f'u_{name}', kind, self.vars[name], ast.Pass())}"
                )
        for name in sorted(self.flags):
            if name in self.vars:
                given = name in self.arguments
                head.append(f"    s_{name} = {given}")
                if not given:
                    head.append(f"    u_{name} = {default(self.vars[name])}")
            else:
                head.append(f"    s_{name} = False")
        names = [*self.arguments, *sorted(self.used)]
        wanted = ", ".join(f"u_{name}" for name in names)
        self.program.texts[self.name] = "\n".join(
            [f"def {self.name}(@C{wanted}):", *head, *(self.lines or ["    pass"])]
        )

    # --- blocks ---

    def block(self, statements: list[ast.stmt], *, deeper: bool = True) -> None:
        self.depth += deeper
        before = len(self.lines)
        for statement in statements:
            if self.bound is None:  # nothing comes here
                break
            self.statement(statement)
        if len(self.lines) == before:
            self.emit("pass")
        self.depth -= deeper

    def statement(self, node: ast.stmt) -> None:
        method = getattr(self, f"s_{type(node).__name__}", None)
        if method is None:
            raise self.refuse(node, f"`{ast.unparse(node).splitlines()[0][:40]}` is not translated")
        self.hoisted = self.orders = False
        try:
            method(node)
        except Unknown:  # what follows is read all the same, as it may tell more
            self.emit("raise Unsure")
        if not isinstance(node, ast.If | ast.For | ast.While | ast.Try):
            self.in_order(node)

    def in_order(self, node: ast.stmt) -> None:
        """Refuse what would be computed before a call that may change it."""
        if self.orders and self.hoisted:
            raise self.refuse(node, "a loop and a function that keeps state in one statement")

    def gives_up(self) -> None:
        """Leave this call to Python."""
        self.emit("raise Unsure")
        self.bound = None

    def temp(self, code: str) -> str:
        self.hoisted = True
        return super().temp(code)

    def s_Pass(self, node: ast.Pass) -> None:
        """Nothing."""

    s_Global = s_Import = s_ImportFrom = s_Pass

    def s_FunctionDef(self, node: ast.FunctionDef) -> None:
        if self.nested.get(node.name) is not node or node.decorator_list:
            raise self.refuse(node, f"the function {node.name}")
        if self.bound is not None:
            self.bound.add(node.name)

    def s_Raise(self, node: ast.Raise) -> None:
        self.gives_up()

    def s_Break(self, node: ast.Break) -> None:
        self.emit("break")
        self.bound = None

    def s_Continue(self, node: ast.Continue) -> None:
        self.emit("continue")
        self.bound = None

    def s_Return(self, node: ast.Return) -> None:
        code, kind = ("0", "n") if node.value is None else self.expr(node.value)
        self.returned(code, kind, node.value)

    def returned(self, code: str, kind: Kind, node: ast.expr | None) -> None:
        self.returns = self.joined(self.returns, kind, node or ast.Pass())
        self.emit(f"return {self.coerce(code, kind, self.returns, node or ast.Pass())}")
        self.bound = None

    def s_Assert(self, node: ast.Assert) -> None:
        self.emit(f"if not {self.truth(node.test)}:")
        self.emit("    raise Unsure")

    def s_Expr(self, node: ast.Expr) -> None:
        value = node.value
        if isinstance(value, ast.Constant):
            return
        if isinstance(value, ast.Call):
            if self.program.is_builtin(self, value.func, print):
                self.program.prints.add(node.lineno)
                self.gives_up()
                return
            function = value.func
            if isinstance(function, ast.Attribute) and function.attr == "append":
                self.append(function.value, value)
                return
        self.emit(self.expr(value)[0])

    def s_Try(self, node: ast.Try) -> None:
        if node.finalbody and any(
            isinstance(part, ast.Return | ast.Break | ast.Continue)
            for statement in node.body
            for part in ast.walk(statement)
        ):
            raise self.refuse(node, "`finally` after a return")
        for part in (node.body, node.orelse, node.finalbody):
            self.block(part, deeper=False)

    def s_If(self, node: ast.If) -> None:
        self.emit(f"if {self.truth(node.test)}:")
        self.in_order(node)
        before = None if self.bound is None else set(self.bound)
        self.block(node.body)
        after, self.bound = self.bound, before
        if node.orelse:
            self.emit("else:")
            self.block(node.orelse)
        if self.bound is None or after is None:
            self.bound = after if self.bound is None else self.bound
        else:
            self.bound &= after

    def s_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.refuse(node, "`while` with `else`")
        self.program.open_ended = True
        before = set(self.bound or ())
        self.emit("while True:")
        self.depth += 1
        self.emit(f"if not {self.truth(node.test)}:")
        self.in_order(node)
        self.emit("    break")
        self.emit("spend(B, 1)")
        self.depth -= 1
        self.block(node.body)
        self.bound = before

    def s_For(self, node: ast.For) -> None:
        if node.orelse:
            raise self.refuse(node, "`for` with `else`")
        names = {n.id for n in ast.walk(node.iter) if isinstance(n, ast.Name)}
        for part in ast.walk(ast.Module(node.body, [])):
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                of = part.func.value
                if part.func.attr in ("append", "pop") and isinstance(of, ast.Name):
                    if of.id in names:
                        raise self.refuse(part, f"`{of.id}` changes while a loop goes over it")
        items = self.items(node.iter)
        self.in_order(node)
        before = set(self.bound or ())
        number = f"i_{self.program.count()}"
        self.emit(f"for {number} in range({items.count}):")
        self.depth += 1
        if items.count == "0":
            self.emit("pass")
            self.depth -= 1
            return
        self.store(node.target, *items.item(number), node.iter)
        self.depth -= 1
        self.block(node.body)
        self.bound = before

    # --- assignments ---

    def s_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Lambda):
            if self.bound is not None and isinstance(node.targets[0], ast.Name):
                self.bound.add(node.targets[0].id)
            return
        if len(node.targets) > 1:
            code, kind = self.expr(node.value)
            if kind[0] in ("k", "l"):
                raise self.refuse(node, "a list under two names")
            name = self.temp(code)
            for target in node.targets:
                self.store(target, name, kind, node.value)
            return
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in self.lists:
            code, kind = self.changing(node.value)
        else:
            code, kind = self.expr(node.value)
        self.store(target, code, kind, node.value)

    def s_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.store(node.target, *self.expr(node.value), node.value)

    def s_AugAssign(self, node: ast.AugAssign) -> None:
        target = node.target
        reading = ast.parse(ast.unparse(target), mode="eval").body
        for part in ast.walk(reading):
            ast.copy_location(part, node)
        left = self.expr(reading)
        if left[1][0] in ("k", "l", "v"):
            raise self.refuse(node, "`+=` on a list")
        code, kind = self.binary(node.op, left, self.expr(node.value), node)
        self.store(target, code, kind, node.value)

    def changing(self, node: ast.expr) -> Code:
        """Translate a list that will be changed under the name that it gets."""
        if isinstance(node, ast.List):
            kind: Kind = ("l", None)
            found = [self.expr(element) for element in node.elts]
            for _, each in found:
                kind = self.joined(kind, ("l", each), node)
            if not found:
                return "0", kind
            inner = ", ".join(
                self.coerce(c, k, kind[1], e) for (c, k), e in zip(found, node.elts, strict=True)
            )
            return f"[{inner}]", kind
        code, kind = self.expr(node)
        if kind[0] not in ("k", "v"):
            return code, kind
        sliced = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice)
        copied = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node, ast.Name) and node.id in self.local and node.id not in self.lists:
            self.lists.add(node.id)
            raise Unknown(node.id)
        if not (isinstance(node, _FRESH) or sliced or copied):
            raise self.refuse(node, "a list under two names, one of which changes it")
        return self.as_list(code, kind)

    def store(self, target: ast.expr, code: str, kind: Kind, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.store_name(target, code, kind, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self.unpack(target, code, kind, value)
        elif isinstance(target, ast.Subscript):
            self.store_item(target, code, kind)
        elif isinstance(target, ast.Attribute):
            slot = self.program.slot(self, target)
            self.program.keep(self, slot, code, kind, target)
        else:
            raise self.refuse(target, f"assigning to `{ast.unparse(target)[:40]}`")

    def store_name(self, target: ast.Name, code: str, kind: Kind, value: ast.expr) -> None:
        name = target.id
        if name in self.globals:
            self.program.keep(self, name, code, kind, target)
            return
        if name in self.nested or name in self.imports:
            raise self.refuse(target, f"`{name}` is a function and something else")
        try:
            to = join(self.vars.get(name), kind)
        except Refused as error:
            raise self.refuse(target, f"`{name}`: {error}") from None
        if to[0] == "l" and kind[0] == "k" and name not in self.lists:
            self.lists.add(name)
            self.vars[name] = ("l", None) if self.vars.get(name, "n")[0] != "l" else self.vars[name]
            raise Unknown(name)
        self.vars[name] = to
        if kind == ("l", None):
            code = default(to) if to[1] is not None else "0"
        elif to != kind:
            code = self.coerce(code, kind, to, value)
        self.emit(f"u_{name} = {code}")
        if name in self.flags:
            self.emit(f"s_{name} = True")
        if self.bound is not None:
            self.bound.add(name)

    def unpack(self, target: ast.Tuple | ast.List, code: str, kind: Kind, value: ast.expr) -> None:
        count = len(target.elts)
        if any(isinstance(part, ast.Starred) for part in target.elts):
            raise self.refuse(target, "`*` in an assignment")
        if kind[0] in ("t", "k"):
            if len(kind) - 1 != count:
                self.gives_up()
                return
            name = self.temp(code) if count else code
            nodes = value.elts if isinstance(value, ast.Tuple | ast.List) else [value] * count
            for i, part in enumerate(target.elts):
                self.store(part, f"{name}[{i}]", kind[1 + i], nodes[i])
        elif kind[0] in ("l", "v") and kind[1] is not None:
            name = self.temp(code)
            length = f"len({name})" if kind[0] == "l" else f"{name}[1]"
            self.emit(f"if {length} != {count}:")
            self.emit("    raise Unsure")
            for i, part in enumerate(target.elts):
                item = f"{name}[{i}]"
                if kind[0] == "v":
                    item = f"{self.program.row(kind, checked=False)}({kind[2]}, {name}, {i})"
                self.store(part, item, kind[1], value)
        else:
            raise self.refuse(target, f"several names for {say(kind)}")

    def changeable(self, node: ast.expr, kind: Kind) -> Kind:
        """Make a name one of a list that changes, and return the list's kind."""
        if not isinstance(node, ast.Name) or node.id not in self.local:
            raise self.refuse(node, f"it changes `{ast.unparse(node)[:30]}`")
        name, had = node.id, self.vars.get(node.id)
        if had is None:
            raise Unknown(name)
        if name in self.arguments and self.arguments[name][0] != "l":
            raise self.refuse(node, f"it changes `{name}`, which it was given")
        if had[0] not in ("k", "l", "v"):
            raise self.refuse(node, f"it changes `{name}`, {say(had)}")
        if had[0] != "l":
            self.lists.add(name)
            self.vars[name] = ("l", None)
            raise Unknown(name)
        joined = self.joined(had, ("l", kind), node)
        if joined != had and name in self.arguments:
            raise self.refuse(node, f"it puts {say(kind)} into `{name}`")
        self.vars[name] = joined
        return joined[1]

    def append(self, node: ast.expr, call: ast.Call) -> None:
        code, kind = self.expr(*call.args)
        inner = self.changeable(node, kind)
        place = self.expr(node)[0]
        self.emit(f"{place}.append({self.coerce(code, kind, inner, call.args[0])})")

    def store_item(self, target: ast.Subscript, code: str, kind: Kind) -> None:
        if self.expr(target.value)[1][0] == "p":
            raise self.refuse(target, "it changes params")
        inner = self.changeable(target.value, kind)
        if isinstance(target.slice, ast.Slice):
            raise self.refuse(target, "it changes a slice")
        place, name = self.whole(target.slice), self.expr(target.value)[0]
        code = self.coerce(code, kind, inner, target)
        self.emit(f"{name}[index({place}, len({name}))] = {code}")


def is_plain(kind: Kind) -> bool:
    """Tell whether it can be kept from call to call."""
    return is_number(kind) or kind == "n" or (kind[0] == "o" and is_number(kind[1]))
