# ruff: noqa: D102, N802, SIM102 a method for each kind of syntax, named after it
"""Expressions of a user's reward function, translated into what numba compiles to the same values.

Each method takes a piece of syntax and returns code and kind. Kinds are known before the code runs,
so every operator becomes the one that Python would choose; what has no exact equal is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from hotlap.deepracer.rewards.kinds import (
    Kind,
    Refused,
    default,
    is_number,
    join,
    number_as,
    say,
)

if TYPE_CHECKING:
    from hotlap.deepracer.rewards.translation import Program

__all__ = ["Code", "Expressions", "Unknown"]

Code: TypeAlias = tuple[str, Kind]

_COMPARE = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_BITS = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"}
_CHAIN = "_e"
_TEXTS = ("str", "repr", "format", "type", "round")


class Unknown(Exception):  # noqa: N818 it may be known in the next pass
    """A name has no value that the translation has seen yet."""


class Expressions:
    """The expressions of one function; `Body` adds its statements."""

    program: Program
    lines: list[str]
    depth: int
    vars: dict[str, Kind]
    bound: set[str] | None
    """Names that certainly have a value here; None where nothing comes to."""
    flags: set[str]
    """Names that may be read before they have a value."""
    nested: dict[str, Any]
    imports: dict[str, Any]
    parent: Expressions | None
    used: set[str]
    """Names of the parent's that are read."""
    local: set[str]
    writes: bool
    """Whether it changes what is kept."""
    orders: bool
    """Whether what the statement calls does."""

    if TYPE_CHECKING:

        def as_list(self, code: str, kind: Kind) -> Code: ...

    # --- the small things ---

    def refuse(self, node: ast.AST, why: str) -> Refused:
        return Refused(f"line {getattr(node, 'lineno', '?')}: {why}")

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def temp(self, code: str) -> str:
        name = f"t_{self.program.count()}"
        self.emit(f"{name} = {code}")
        return name

    def once(self, code: str) -> str:
        """Return code that may be written twice."""
        return code if code.isidentifier() else self.temp(code)

    def expr(self, node: ast.expr) -> Code:
        """Translate any expression."""
        method = getattr(self, f"e_{type(node).__name__}", None)
        if method is None:
            raise self.refuse(node, f"`{ast.unparse(node)[:40]}` is not translated")
        found: Code = method(node)
        return found

    def number(self, node: ast.expr) -> Code:
        """Translate what has to be a number."""
        return self.as_number(*self.expr(node), node)

    def as_number(self, code: str, kind: Kind, node: ast.expr) -> Code:
        if is_number(kind):
            return code, kind
        if kind[0] == "o" and is_number(kind[1]):
            return f"need({code})", kind[1]
        if kind == "n":  # Python fails too
            raise Unknown("None")
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}` is {say(kind)}, not a number")

    def real(self, node: ast.expr) -> str:
        """Translate a number to a float64."""
        return self.coerce(*self.number(node), "f", node)

    def whole(self, node: ast.expr) -> str:
        """Translate what has to be an int."""
        code, kind = self.number(node)
        if kind == "f":
            raise self.refuse(node, f"`{ast.unparse(node)[:40]}` has to be an int")
        return self.coerce(code, kind, "i", node)

    def coerce(self, code: str, kind: Kind, to: Kind, node: ast.AST) -> str:
        """Return code for the same value as another kind that holds it."""
        if kind == to or to is None:
            return code
        if is_number(kind) and is_number(to):
            return number_as(code, kind, to)
        if to[0] == "o":
            if kind == "n":
                return default(to)
            if kind[0] != "o":
                return f"(True, {self.coerce(code, kind, to[1], node)})"
        if to == "x":
            return "0"
        if to[0] == "l" and kind[0] in ("k", "l") and not isinstance(node, ast.List | ast.ListComp):
            if kind[0] == "l" and kind[1] is None:
                raise self.refuse(node, "an empty list under two names")
            raise self.refuse(node, "a list under two names, one of which changes it")
        return f"{self.program.conversion(kind, to)}({code})"

    def truth(self, node: ast.expr) -> str:
        """Translate a condition."""
        if isinstance(node, ast.BoolOp):
            word = " and " if isinstance(node.op, ast.And) else " or "
            return f"({word.join(self.truth(value) for value in node.values)})"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return f"(not {self.truth(node.operand)})"
        code, kind = self.expr(node)
        if kind == "b":
            return code
        if is_number(kind):
            return f"({code} != 0)"
        if kind == "n":
            return "False"
        if kind[0] == "o" and is_number(kind[1]):
            return f"true_value({code})"
        if kind[0] == "l":
            return f"(len({code}) > 0)"
        if kind[0] == "v":
            return f"({code}[1] > 0)"
        if kind[0] in ("t", "k", "m"):
            return repr(len(kind) > 1)
        if kind[0] in ("s", "d"):
            return repr(bool(kind[1] if kind[0] == "s" else self.program.objects[kind[1]]))
        if kind[0] in ("I", "p"):
            return "True"
        raise self.refuse(node, f"the truth of `{ast.unparse(node)[:40]}`")

    # --- values ---

    def e_Constant(self, node: ast.Constant) -> Code:
        return self.constant(node.value, node)

    def constant(self, value: Any, node: ast.AST) -> Code:
        try:
            return self.program.constant(value)
        except Refused as error:
            raise self.refuse(node, str(error)) from None

    def derived(self, value: Any, what: str, node: ast.AST) -> Code:
        """Translate the items of a constant."""
        made = self.program.derived
        if (id(value), what) not in made:
            made[id(value), what] = list(value if what == "list" else getattr(value, what)())
        return self.constant(made[id(value), what], node)

    def e_Name(self, node: ast.Name) -> Code:
        name = node.id
        if name in self.nested:
            if self.bound is not None and name not in self.bound:
                raise self.refuse(node, f"{name} is used before it is defined")
            return "0", self.program.function(self.nested[name], self)
        if name in self.imports:
            return self.program.value(self.imports[name], node, self)
        if name in self.local:
            if name not in self.vars:
                if self.bound is not None and name not in self.bound:
                    self.flags.add(name)
                raise Unknown(name)
            if self.bound is not None and name not in self.bound:
                self.flags.add(name)
                self.emit(f"if not s_{name}:")
                self.emit("    raise Unsure")
            return f"u_{name}", self.vars[name]
        if self.parent is not None and self.parent.knows(name):
            kind = self.parent.expr(node)[1]
            if not (isinstance(kind, tuple) and kind[0] == "F"):
                self.used.add(name)
            return f"u_{name}", kind
        return self.program.name(self, node)

    def knows(self, name: str) -> bool:
        """Tell whether a name is one of this function or of those around it."""
        if name in self.local or name in self.nested:
            return True
        return self.parent is not None and self.parent.knows(name)

    def e_Attribute(self, node: ast.Attribute) -> Code:
        _, kind = self.expr(node.value)
        if kind[0] in ("I", "C", "M"):
            return self.program.attribute(self, kind, node)
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}` is not translated")

    def e_Tuple(self, node: ast.Tuple) -> Code:
        return self.several("t", node.elts)

    def e_List(self, node: ast.List) -> Code:
        table = self.program.table(node)
        if table is not None:
            return table
        if not node.elts:
            return "0", ("l", None)
        code, kind = self.several("k", node.elts)
        return code, kind

    def several(self, word: str, nodes: Sequence[ast.expr]) -> Code:
        found = [self.expr(node) for node in nodes]
        for node, (_, kind) in zip(nodes, found, strict=True):
            if isinstance(node, ast.Starred) or kind[0] in ("p", "I", "F"):
                raise self.refuse(node, f"{say(kind)} within a list or tuple")
        if not found:
            return "0", (word,)
        return f"({''.join(code + ', ' for code, _ in found)})", (word, *(k for _, k in found))

    def e_Dict(self, node: ast.Dict) -> Code:
        value = self.program.written(node)
        if value is not None:
            return self.constant(value, node)
        keys = []
        for key in node.keys:
            if not isinstance(key, ast.Constant):
                raise self.refuse(node, "a dict whose keys are not written out")
            keys.append(key.value)
        if len(set(keys)) < len(keys):
            raise self.refuse(node, "a dict with a key twice")
        code, kind = self.several("t", node.values)
        return code, ("m", tuple(keys), kind[1:])

    def e_Set(self, node: ast.Set) -> Code:
        value = self.program.written(node)
        if value is None:
            raise self.refuse(node, "a set whose items are not written out")
        return self.constant(value, node)

    def e_JoinedStr(self, node: ast.JoinedStr) -> Code:
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.said(value.value)
        return "0", "x"

    def said(self, node: ast.expr) -> None:
        """Translate what is only made into text, as it may fail."""
        before, self.orders = self.orders, False
        code, kind = self.expr(node)
        if self.orders:
            raise self.refuse(node, "a text from a function that keeps state")
        self.orders = before
        if is_number(kind) and not code.isidentifier():
            self.temp(code)

    # --- operators ---

    def e_UnaryOp(self, node: ast.UnaryOp) -> Code:
        if isinstance(node.op, ast.Not):
            return f"(not {self.truth(node.operand)})", "b"
        if isinstance(node.operand, ast.Constant) and isinstance(node.op, ast.USub):
            value = node.operand.value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return self.constant(-value, node)
        code, kind = self.number(node.operand)
        if kind == "b":
            code, kind = number_as(code, kind, "i"), "i"
        if isinstance(node.op, ast.USub):
            return f"(-{code})", kind
        if isinstance(node.op, ast.UAdd):
            return code, kind
        raise self.refuse(node, "`~`")

    def e_BinOp(self, node: ast.BinOp) -> Code:
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant | ast.JoinedStr):
            if not isinstance(getattr(node.left, "value", ""), str):
                return self.binary(node.op, self.expr(node.left), self.expr(node.right), node)
            parts = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            for part in parts:
                self.said(part)
            return "0", "x"
        return self.binary(node.op, self.expr(node.left), self.expr(node.right), node)

    def binary(self, op: ast.operator, left: Code, right: Code, node: ast.AST) -> Code:
        kinds = left[1][0], right[1][0]
        if isinstance(op, ast.Add):
            if {*kinds} <= {"s", "x"}:
                return "0", "x"
            if kinds == ("t", "t"):
                return f"({left[0]} + {right[0]})", ("t", *left[1][1:], *right[1][1:])
            if {*kinds} <= {"k", "l", "v"}:
                code_a, a = self.as_list(*left)
                code_b, b = self.as_list(*right)
                kind = join(a, b)
                if kind != a or kind != b:
                    raise self.refuse(node, "the sum of two lists of different kinds")
                return f"({code_a} + {code_b})", kind
        if isinstance(op, ast.Mult) and kinds[0] == "k" and len(left[1]) == 2:
            if right[1] in ("i", "b"):
                return f"[{left[0]}[0] for _ in range({right[0]})]", ("l", left[1][1])
        (a, k), (b, m) = (
            self.as_number(*side, node) if isinstance(node, ast.expr) else side
            for side in (left, right)
        )
        if not (is_number(k) and is_number(m)):
            raise self.refuse(node, f"{say(k)} and {say(m)} in a sum or product")
        kind = join(join(k, m), "i")
        if type(op) in _BITS and k != "f" and m != "f":
            if k == m == "b":
                return f"({a} {_BITS[type(op)]} {b})", "b"
            return f"(int({a}) {_BITS[type(op)]} int({b}))", "i"
        a, b = self.coerce(a, k, kind, node), self.coerce(b, m, kind, node)
        if isinstance(op, ast.Add | ast.Sub):
            sign = "+" if isinstance(op, ast.Add) else "-"
            plain = f"({a} {sign} {b})"
            return (plain if kind == "f" else f"i_whole{plain}"), kind
        if isinstance(op, ast.Mult):
            return (f"({a} * {b})" if kind == "f" else f"i_times({a}, {b})"), kind
        if isinstance(op, ast.Div):
            return f"f_divide({self.coerce(a, kind, 'f', node)}, float({b}))", "f"
        if isinstance(op, ast.FloorDiv | ast.Mod):
            word = "floor_divide" if isinstance(op, ast.FloorDiv) else "modulo"
            return f"{kind}_{word}({a}, {b})", kind
        if isinstance(op, ast.Pow):
            if kind == "f":
                known = getattr(getattr(node, "right", None), "value", None)
                if type(known) in (int, float) and known in (2, 0.5):
                    return f"{'f_square' if known == 2 else 'f_root'}({a})", "f"
                return f"f_power({a}, {b})", "f"
            exponent = b.strip("()")
            if exponent.isdigit() and int(exponent) < 64:
                return f"i_power({a}, {b})", "i"
            if exponent.startswith("-") and exponent[1:].isdigit():
                return f"f_power(float({a}), float({b}))", "f"
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}` of whole numbers")

    def e_BoolOp(self, node: ast.BoolOp) -> Code:
        found = [self.expr(value) for value in node.values]
        kinds = [kind for _, kind in found]
        if all(kind == "b" for kind in kinds):
            word = " and " if isinstance(node.op, ast.And) else " or "
            return f"({word.join(code for code, _ in found)})", "b"
        if not all(is_number(kind) for kind in kinds):
            raise self.refuse(node, "`and` or `or` of other things than numbers")
        kind = None
        for each in kinds:
            kind = join(kind, each)
        word = " and " if isinstance(node.op, ast.And) else " or "
        return f"({word.join(self.coerce(c, k, kind, node) for c, k in found)})", kind

    def e_IfExp(self, node: ast.IfExp) -> Code:
        (a, k), (b, m) = self.expr(node.body), self.expr(node.orelse)
        kind = self.joined(k, m, node)
        a, b = self.coerce(a, k, kind, node.body), self.coerce(b, m, kind, node.orelse)
        return f"({a} if {self.truth(node.test)} else {b})", kind

    def joined(self, a: Kind, b: Kind, node: ast.AST) -> Kind:
        try:
            return join(a, b)
        except Refused as error:
            raise self.refuse(node, str(error)) from None

    def e_Compare(self, node: ast.Compare) -> Code:
        sides = [node.left, *node.comparators]
        if len(node.ops) == 1:
            return self.compare(node, node.left, node.ops[0], node.comparators[0])
        if not all(type(op) in _COMPARE for op in node.ops):
            parts = [
                self.compare(node, a, op, b)[0]
                for a, op, b in zip(sides, node.ops, sides[1:], strict=False)
            ]  # whatever stands in the middle is named twice, so it has to be simple
            if not all(isinstance(side, ast.Name | ast.Constant) for side in sides[1:-1]):
                raise self.refuse(node, "this chain of comparisons")
            return f"({' and '.join(parts)})", "b"
        codes = [self.number(side)[0] for side in sides]
        chain = codes[0]
        for op, code in zip(node.ops, codes[1:], strict=True):
            chain += f" {_COMPARE[type(op)]} {code}"
        return f"({chain})", "b"

    def compare(self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Code:
        if isinstance(op, ast.In | ast.NotIn):
            code = self.contains(node, left, right)
            return (code if isinstance(op, ast.In) else f"(not {code})"), "b"
        (a, k), (b, m) = self.expr(left), self.expr(right)
        if isinstance(op, ast.Is | ast.IsNot):
            if "n" not in (k, m):
                raise self.refuse(node, "`is`")
            code, kind = (a, k) if m == "n" else (b, m)
            is_none = f"(not {code}[0])" if kind[0] == "o" else repr(kind == "n")
            return (is_none if isinstance(op, ast.Is) else f"(not {is_none})"), "b"
        word = _COMPARE[type(op)]
        equality = word in ("==", "!=")
        if equality and k[0] == m[0] == "s":
            return repr((k[1] == m[1]) == (word == "==")), "b"
        if equality and k[0] == m[0] and k[0] in ("t", "k"):
            numbers = all(is_number(kind) for kind in (*k[1:], *m[1:]))
            if numbers and len(k) == len(m):
                kind = join(k, m)
                a, b = self.coerce(a, k, kind, left), self.coerce(b, m, kind, right)
                return f"({a} {word} {b})", "b"
        if equality and ((is_number(k) and m == "n") or (k == "n" and is_number(m))):
            return repr(word == "!="), "b"
        if equality and "o" in (k[0], m[0]):
            (c, of), (other, what) = ((a, k), (b, m)) if k[0] == "o" else ((b, m), (a, k))
            if is_number(of[1]) and is_number(what):
                code = f"same({c}, {other})"
                return (code if word == "==" else f"(not {code})"), "b"
            raise self.refuse(node, "== with what may be None")
        (a, _), (b, _) = self.as_number(a, k, left), self.as_number(b, m, right)
        return f"({a} {word} {b})", "b"

    def contains(self, node: ast.Compare, left: ast.expr, right: ast.expr) -> str:
        if isinstance(right, ast.Call) and self.program.is_builtin(self, right.func, range):
            if len(right.args) in (1, 2) and not right.keywords:
                begin = self.whole(right.args[0]) if len(right.args) == 2 else "0"
                return f"in_range({self.real(left)}, {begin}, {self.whole(right.args[-1])})"
        code, kind = self.expr(right)
        if kind[0] == "p" and isinstance(left, ast.Constant):
            return repr(left.value in self.program.all_keys)
        if kind[0] == "d":
            value = self.program.objects[kind[1]]
            item, what = self.expr(left)
            if what[0] == "s" and isinstance(value, dict | list | tuple | set | frozenset):
                return repr(what[1] in value)
            if isinstance(value, dict | set | frozenset | range):
                code, kind = self.derived(value, "list", node)
            if kind[0] == "d" and not self.program.objects[kind[1]]:
                return "False"
            left_code = self.as_number(item, what, left)[0]
        else:
            left_code, what = self.expr(left)
            if what[0] == "s" and kind[0] in ("t", "k") and all(k[0] == "s" for k in kind[1:]):
                return repr(what in kind[1:])
            left_code = self.as_number(left_code, what, left)[0]
        if kind[0] == "v" and is_number(kind[1]):
            base = kind[2]
            view = self.once(code)
            return f"has({base}, {view}[0], {view}[1], float({left_code}))"
        if kind[0] in ("t", "k") and all(is_number(k) for k in kind[1:]):
            code, left_code = self.once(code), self.once(left_code)
            parts = [f"{code}[{i}] == {left_code}" for i in range(len(kind) - 1)]
            return f"({' or '.join(parts)})" if parts else "False"
        if kind[0] == "l" and is_number(kind[1]):
            return f"among({code}, {left_code})"
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}`")
