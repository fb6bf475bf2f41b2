# ruff: noqa: D102, N802 a method for each kind of syntax, named after it
"""Calls, subscripts and loops over things, translated for compiled rewards."""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hotlap.deepracer.rewards import exact
from hotlap.deepracer.rewards.exact import LIBM
from hotlap.deepracer.rewards.expressions import Code, Expressions
from hotlap.deepracer.rewards.kinds import Kind, default, is_number, join, number_as, say

__all__ = ["Calls", "Items"]

_ITEM = "_each"


@dataclass(frozen=True)
class Items:
    """What a loop goes over."""

    count: str
    """Code for how many passes."""
    item: Callable[[str], Code]
    """Code and kind of the item of a pass, given code for its number."""


class Calls(Expressions):
    """Expressions that call, index or go over something."""

    # --- subscripts ---

    def e_Subscript(self, node: ast.Subscript) -> Code:
        code, kind = self.expr(node.value)
        if kind[0] == "o":
            code, kind = f"need({code})", kind[1]
        known = _known(node.slice)
        if kind[0] == "p":
            if not isinstance(known, str):
                raise self.refuse(node, "a key of params that is not written out")
            return self.program.param(self, known, node)
        if kind[0] == "m":
            if known not in kind[1]:
                raise self.refuse(node, f"the key {ast.unparse(node.slice)} of a dict")
            place = kind[1].index(known)
            return f"{code}[{place}]", kind[2][place]
        if kind[0] == "d":
            return self.of_constant(self.program.objects[kind[1]], known, node)
        if isinstance(node.slice, ast.Slice):
            return self.slice(code, kind, node.slice)
        if isinstance(node.slice, ast.Tuple) and kind[0] == "v":
            inner = ast.Subscript(value=node.value, slice=node.slice.elts[0], ctx=ast.Load())
            rest = node.slice.elts[1:]
            chosen = rest[0] if len(rest) == 1 else ast.Tuple(elts=rest, ctx=ast.Load())
            outer = ast.Subscript(value=inner, slice=chosen, ctx=ast.Load())
            return self.expr(ast.fix_missing_locations(ast.copy_location(outer, node)))
        if kind[0] in ("t", "k"):
            count = len(kind) - 1
            if isinstance(known, int):
                if not -count <= known < count:
                    return self.never(node, kind[1] if count else "f")
                return f"{code}[{known}]", kind[1:][known]
            code, kind = self.even(code, kind, node)
            return f"{code}[index({self.whole(node.slice)}, {count})]", kind[1]
        if kind[0] == "l" and kind[1] is not None:
            return f"at({code}, {self.whole(node.slice)})", kind[1]
        if kind[0] == "v":
            row = self.program.row(kind, checked=True)
            return f"{row}({kind[2]}, {code}, {self.whole(node.slice)})", kind[1]
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}` of {say(kind)}")

    def never(self, node: ast.AST, kind: Kind) -> Code:
        """Translate what always fails."""
        self.emit("raise Unsure")
        return default(kind), kind

    def of_constant(self, value: Any, known: Any, node: ast.Subscript) -> Code:
        if known is not None:
            try:
                return self.constant(value[known], node)
            except (KeyError, IndexError, TypeError):
                raise self.refuse(node, f"`{ast.unparse(node)[:40]}` is not there") from None
        if isinstance(value, dict) and all(isinstance(key, int | float) for key in value):
            first, second = self.program.pairs(value, "keys"), self.program.pairs(value, "values")
            if first is not None and second is not None:
                (keys, _), (values, of) = first, second
                row = self.program.row(of, checked=True)
                place = f"find(K, {keys}[0], {keys}[1], {self.real(node.slice)})"
                return f"{row}(K, {values}, {place})", of[1]
        if isinstance(value, dict):
            _, kind = self.expr(node.slice)
            if kind[0] == "s" and kind[1] in value:
                return self.constant(value[kind[1]], node)
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}` of a table of different things")

    def slice(self, code: str, kind: Kind, part: ast.Slice) -> Code:
        if part.step is not None and _known(part.step) != 1:
            raise self.refuse(part, "a slice with a step")
        if kind[0] in ("t", "k"):
            begin, end = (_known(e) if e is not None else None for e in (part.lower, part.upper))
            plain = all(
                e is None or k is not None for e, k in ((part.lower, begin), (part.upper, end))
            )
            if plain:
                rest, code = range(len(kind) - 1)[begin:end], self.once(code)
                return (
                    f"({''.join(f'{code}[{i}], ' for i in rest)})" if len(rest) else "0",
                    (kind[0], *(kind[1 + i] for i in rest)),
                )
        if kind[0] == "v":
            begin = self.whole(part.lower) if part.lower else "0"
            view = self.once(code)
            end = self.whole(part.upper) if part.upper else f"{view}[1]"
            width = 1 if is_number(kind[1]) else len(kind[1]) - 1
            return f"part_of({view}, {begin}, {end}, {width})", kind
        if kind[0] == "l":
            begin = self.whole(part.lower) if part.lower else ""
            end = self.whole(part.upper) if part.upper else ""
            return f"{code}[{begin}:{end}]", kind
        raise self.refuse(part, f"a slice of {say(kind)}")

    def even(self, code: str, kind: Kind, node: ast.AST) -> Code:
        """Give all items of a tuple or short list one kind."""
        inner = None
        for each in kind[1:]:
            inner = self.joined(inner, each, node)
        if inner is None:
            raise self.refuse(node, "an empty list")
        to = (kind[0], *([inner] * (len(kind) - 1)))
        return self.coerce(code, kind, to, node), to

    def as_list(self, code: str, kind: Kind) -> Code:
        """Return a new list of what is in a list."""
        if kind[0] == "l":
            return code, kind
        if kind[0] == "v":
            return f"{self.program.unpacked(kind)}({kind[2]}, {code})", ("l", kind[1])
        inner = None
        for each in kind[1:]:
            inner = join(inner, each)
        to = ("l", inner)
        if inner is None:
            return "0", to
        return f"{self.program.conversion(kind, to)}({code})", to

    # --- going over things ---

    def items(self, node: ast.expr) -> Items:
        """Translate what a loop goes over."""
        if isinstance(node, ast.Call) and not node.keywords:
            for what in (range, enumerate, zip, reversed):
                if self.program.is_builtin(self, node.func, what):
                    return getattr(self, f"over_{what.__name__}")(node)  # type: ignore[no-any-return]
        code, kind = self.expr(node)
        if kind[0] == "d":
            value = self.program.objects[kind[1]]
            if isinstance(value, dict | set | frozenset | range):
                code, kind = self.derived(value, "list", node)
            if kind[0] == "d" and not self.program.objects[kind[1]]:
                return Items("0", lambda i: ("0", "i"))
        if kind[0] == "v":
            view, row = self.temp(code), self.program.row(kind, checked=False)
            return Items(f"{view}[1]", lambda i: (f"{row}({kind[2]}, {view}, {i})", kind[1]))
        if kind[0] == "l" and kind[1] is not None:
            name = self.temp(code)
            return Items(f"len({name})", lambda i: (f"{name}[{i}]", kind[1]))
        if kind[0] in ("t", "k"):
            if len(kind) == 1:
                return Items("0", lambda i: ("0", "i"))
            code, kind = self.even(code, kind, node)
            name = self.temp(code)
            return Items(str(len(kind) - 1), lambda i: (f"{name}[{i}]", kind[1]))
        raise self.refuse(node, f"a loop over {say(kind)}")

    def over_range(self, node: ast.Call) -> Items:
        codes = [self.whole(argument) for argument in node.args]
        known = all(_known(a) is not None or _is_len(a) for a in node.args)
        begin, end, step = "0", "0", "1"
        if len(codes) == 1:
            end = codes[0]
        elif len(codes) in (2, 3):
            begin, end = self.temp(codes[0]), codes[1]
            step = self.temp(codes[2]) if len(codes) == 3 else "1"
        else:
            raise self.refuse(node, "`range` without an end")
        count = self.temp(f"passes({begin}, {end}, {step})")
        if not known:
            self.program.open_ended = True
            self.emit(f"spend(B, {count})")
        return Items(count, lambda i: (f"({begin} + {i} * {step})", "i"))

    def over_enumerate(self, node: ast.Call) -> Items:
        inner = self.items(node.args[0])
        first = self.temp(self.whole(node.args[1])) if len(node.args) > 1 else "0"

        def item(i: str) -> Code:
            code, kind = inner.item(i)
            return f"({first} + {i}, {code})", ("t", "i", kind)

        return Items(inner.count, item)

    def over_zip(self, node: ast.Call) -> Items:
        parts = [self.items(argument) for argument in node.args]
        if not parts:
            raise self.refuse(node, "`zip` of nothing")
        count = parts[0].count
        for part in parts[1:]:
            count = f"min({count}, {part.count})"

        def item(i: str) -> Code:
            found = [part.item(i) for part in parts]
            return f"({''.join(c + ', ' for c, _ in found)})", ("t", *(k for _, k in found))

        return Items(self.temp(count), item)

    def over_reversed(self, node: ast.Call) -> Items:
        inner = self.items(node.args[0])
        count = self.temp(inner.count)
        return Items(count, lambda i: inner.item(f"({count} - 1 - {i})"))

    def e_ListComp(self, node: ast.ListComp) -> Code:
        return self.program.gather(self, "list", node.elt, node.generators, node)

    def reduce(self, word: str, node: ast.Call, key: ast.Lambda | None = None) -> Code:
        """Translate min, max, sum, any, all or sorted over one thing."""
        given = node.args[0]
        if isinstance(given, ast.GeneratorExp | ast.ListComp):
            return self.program.gather(self, word, given.elt, given.generators, node, key)
        over = ast.comprehension(
            target=ast.Name(_ITEM, ast.Store()), iter=given, ifs=[], is_async=0
        )
        element = ast.copy_location(ast.Name(_ITEM, ast.Load()), node)
        return self.program.gather(self, word, element, [over], node, key)

    # --- calls ---

    def e_Call(self, node: ast.Call) -> Code:
        if isinstance(node.func, ast.Attribute):
            code, kind = self.expr(node.func.value)
            method = getattr(self, f"on_{kind[0]}", None)
            if method is not None:
                found: Code = method(code, kind, node.func.attr, node)
                return found
        _, kind = self.expr(node.func)
        if kind[0] == "F":
            return self.program.call(self, kind, node)
        if kind[0] == "M":
            return self.call_object(self.program.objects[kind[1]], node)
        if kind[0] == "C":
            raise self.refuse(node, f"it makes an object of its class {kind[1]}")
        raise self.refuse(node, f"the call `{ast.unparse(node)[:40]}`")

    def call_object(self, what: Any, node: ast.Call) -> Code:
        name = getattr(what, "__name__", str(what))
        for module, prefix in ((builtins, "b"), (math, "m")):
            if getattr(module, name, None) is what:
                if module is math and name in LIBM and len(node.args) == LIBM[name]:
                    given = ", ".join(self.real(a) for a in node.args)
                    return f"m_{name}({given})", "f"
                method = getattr(self, f"{prefix}_{name}", None)
                if method is not None and (not node.keywords or name in ("min", "max", "isclose")):
                    found: Code = method(node)
                    return found
        if what is exact.nearest:
            (view, kind), x, y = self.expr(node.args[0]), node.args[1], node.args[2]
            view = self.temp(view)
            return f"nearest({kind[2]}, {view}[0], {view}[1], {self.real(x)}, {self.real(y)})", "i"
        home = getattr(what, "__module__", None) or ""
        if home.partition(".")[0] == "numpy":
            method = getattr(self, f"n_{name}", None)
            if method is not None and not node.keywords:
                return method(node)  # type: ignore[no-any-return]
            home = "numpy"
        full = f"{home}.{name}" if home not in ("", "builtins") else name
        raise self.refuse(node, f"`{full}` is not translated")

    def b_print(self, node: ast.Call) -> Code:
        raise self.refuse(node, "print within an expression")

    def b_abs(self, node: ast.Call) -> Code:
        code, kind = self.number(*node.args)
        return f"abs({self.coerce(code, kind, join(kind, 'i'), node)})", join(kind, "i")

    def b_float(self, node: ast.Call) -> Code:
        return (self.real(node.args[0]) if node.args else "0.0"), "f"

    def b_int(self, node: ast.Call) -> Code:
        code, kind = self.number(*node.args)
        return (f"to_int({code})" if kind == "f" else number_as(code, kind, "i")), "i"

    def b_bool(self, node: ast.Call) -> Code:
        return self.truth(*node.args), "b"

    def b_round(self, node: ast.Call) -> Code:
        code, kind = self.number(node.args[0])
        if (len(node.args) > 1 and _known(node.args[1]) is not None) or len(node.args) == 1:
            digits = _known(node.args[1]) if len(node.args) > 1 else None
            if kind != "f":
                if digits is None or digits >= 0:
                    return number_as(code, kind, "i"), "i"
            elif digits is None:
                return f"round_whole({code})", "i"
            else:
                return f"round_digits({code}, {digits})", "f"
        return f"round_digits({code}, {self.whole(node.args[1])})", "f"

    def b_pow(self, node: ast.Call) -> Code:
        if len(node.args) != 2:
            raise self.refuse(node, "`pow` with three arguments")
        return self.e_BinOp(
            ast.copy_location(ast.BinOp(node.args[0], ast.Pow(), node.args[1]), node)
        )

    def b_len(self, node: ast.Call) -> Code:
        code, kind = self.expr(*node.args)
        if kind[0] in ("t", "k", "m"):
            return str(len(kind) - 1 if kind[0] != "m" else len(kind[1])), "i"
        if kind[0] == "v":
            return f"{code}[1]", "i"
        if kind[0] == "l":
            return ("0" if kind[1] is None else f"len({code})"), "i"
        if kind[0] in ("d", "s"):
            value = self.program.objects[kind[1]] if kind[0] == "d" else kind[1]
            return str(len(value)), "i"
        raise self.refuse(node, f"the length of {say(kind)}")

    def b_min(self, node: ast.Call) -> Code:
        return self.extreme("min", node)

    def b_max(self, node: ast.Call) -> Code:
        return self.extreme("max", node)

    def extreme(self, word: str, node: ast.Call) -> Code:
        key = None
        for keyword in node.keywords:
            if keyword.arg != "key" or len(node.args) != 1:
                raise self.refuse(node, f"`{keyword.arg}=` of {word}")
            key = self.program.key(self, keyword.value)
        if len(node.args) == 1:
            return self.reduce(word, node, key)
        found, kind = [self.number(a) for a in node.args], None
        for _, each in found:
            kind = join(kind, each)
        codes = [self.coerce(c, k, kind, node) for c, k in found]
        code = codes[0]
        for other in codes[1:]:
            code = f"{'least' if word == 'min' else 'most'}({code}, {other})"
        return code, kind

    def b_sum(self, node: ast.Call) -> Code:
        if len(node.args) != 1:
            raise self.refuse(node, "`sum` with a start")
        return self.reduce("sum", node)

    def b_any(self, node: ast.Call) -> Code:
        return self.reduce("any", node)

    def b_all(self, node: ast.Call) -> Code:
        return self.reduce("all", node)

    def b_sorted(self, node: ast.Call) -> Code:
        code, kind = self.reduce("list", node)
        if not is_number(kind[1]):
            raise self.refuse(node, "`sorted` of other things than numbers")
        return f"in_order({code})", kind

    def b_list(self, node: ast.Call) -> Code:
        if not node.args:
            return "0", ("l", None)
        return self.reduce("list", node)

    def b_tuple(self, node: ast.Call) -> Code:
        code, kind = self.expr(*node.args)
        if kind[0] in ("t", "k"):
            return code, ("t", *kind[1:])
        raise self.refuse(node, f"a tuple of {say(kind)}")

    def b_str(self, node: ast.Call) -> Code:
        for argument in node.args:
            self.said(argument)
        return "0", "x"

    b_repr = b_format = b_str

    def m_floor(self, node: ast.Call) -> Code:
        return self.rounded("m_floor", node)

    def m_ceil(self, node: ast.Call) -> Code:
        return self.rounded("m_ceil", node)

    def m_trunc(self, node: ast.Call) -> Code:
        return self.rounded("to_int", node)

    def rounded(self, word: str, node: ast.Call) -> Code:
        code, kind = self.number(*node.args)
        return (f"{word}({code})" if kind == "f" else number_as(code, kind, "i")), "i"

    def plain(self, word: str, node: ast.Call) -> Code:
        return f"{word}({', '.join(self.real(a) for a in node.args)})", "f"

    def m_sqrt(self, node: ast.Call) -> Code:
        return self.plain("m_sqrt", node)

    def m_degrees(self, node: ast.Call) -> Code:
        return self.plain("m_degrees", node)

    def m_radians(self, node: ast.Call) -> Code:
        return self.plain("m_radians", node)

    def m_fabs(self, node: ast.Call) -> Code:
        return self.plain("math.fabs", node)

    def m_copysign(self, node: ast.Call) -> Code:
        return self.plain("math.copysign", node)

    def m_log(self, node: ast.Call) -> Code:
        if len(node.args) != 2:
            raise self.refuse(node, "`math.log` without a number")
        code, base = self.real(node.args[0]), self.real(node.args[1])
        return f"f_divide(m_log({code}), m_log({base}))", "f"

    def m_isfinite(self, node: ast.Call) -> Code:
        return f"math.isfinite({self.real(*node.args)})", "b"

    def m_isnan(self, node: ast.Call) -> Code:
        return f"math.isnan({self.real(*node.args)})", "b"

    def m_isinf(self, node: ast.Call) -> Code:
        return f"math.isinf({self.real(*node.args)})", "b"

    def m_isclose(self, node: ast.Call) -> Code:
        given = {"rel_tol": "1e-09", "abs_tol": "0.0"}
        for keyword in node.keywords:
            given[str(keyword.arg)] = self.real(keyword.value)
        a, b = (self.real(argument) for argument in node.args)
        return f"m_isclose({a}, {b}, {given['rel_tol']}, {given['abs_tol']})", "b"

    def m_hypot(self, node: ast.Call) -> Code:
        if len(node.args) != 2:
            raise self.refuse(node, "`math.hypot` of other than two numbers")
        self.program.check_hypot()
        return self.plain("hypotenuse", node)

    def m_dist(self, node: ast.Call) -> Code:
        self.program.check_hypot()
        (a, k), (b, m) = (self.expr(argument) for argument in node.args)
        if not (k[0] in ("t", "k") and m[0] in ("t", "k") and len(k) == len(m) == 3):
            raise self.refuse(node, "`math.dist` of other than two points of two numbers")
        a, b = self.temp(a), self.temp(b)
        return f"hypotenuse(float({a}[0] - {b}[0]), float({a}[1] - {b}[1]))", "f"

    def n_sqrt(self, node: ast.Call) -> Code:
        return self.plain("m_sqrt", node)

    def n_fabs(self, node: ast.Call) -> Code:
        return self.plain("math.fabs", node)

    def n_absolute(self, node: ast.Call) -> Code:
        return self.b_abs(node)

    # --- methods ---

    def on_p(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        key = _known(node.args[0]) if node.args else None
        if name != "get" or not isinstance(key, str):
            raise self.refuse(node, f"params.{name}")
        if key in self.program.all_keys:
            return self.program.param(self, key, node)
        return self.expr(node.args[1]) if len(node.args) > 1 else ("0", "n")

    def on_d(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        value = self.program.objects[kind[1]]
        if isinstance(value, dict):
            if name in ("keys", "values", "items"):
                return self.derived(value, name, node)
            if name == "get" and node.args and (known := _known(node.args[0])) is not None:
                if known in value:
                    return self.constant(value[known], node)
                return self.expr(node.args[1]) if len(node.args) > 1 else ("0", "n")
            if (
                name == "get"
                and len(node.args) == 2
                and all(isinstance(key, int | float) for key in value)
            ):
                sub = ast.Subscript(value=node.func.value, slice=node.args[0], ctx=ast.Load())  # type: ignore[attr-defined]
                inside = ast.Compare(left=node.args[0], ops=[ast.In()], comparators=[sub.value])
                chosen = ast.IfExp(test=inside, body=sub, orelse=node.args[1])
                return self.expr(ast.fix_missing_locations(ast.copy_location(chosen, node)))
        raise self.refuse(node, f"`{ast.unparse(node)[:40]}`")

    def on_l(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        if kind[1] is not None:
            if name == "copy":
                return f"{code}[:]", kind
            if name in ("index", "count") and is_number(kind[1]):
                word = "place" if name == "index" else "times"
                return f"{word}({code}, {self.number(*node.args)[0]})", "i"
            if name == "pop" and len(node.args) <= 1:
                self.changes(node)
                where = self.whole(node.args[0]) if node.args else "-1"
                return f"{code}.pop(index({where}, len({code})))", kind[1]
        raise self.refuse(node, f"`{name}` of a list")

    def changes(self, node: ast.Call) -> None:
        """Refuse to change a list that has no name here."""
        assert isinstance(node.func, ast.Attribute)
        if not isinstance(node.func.value, ast.Name):
            raise self.refuse(node, "it changes a list that has no name")

    def on_v(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        if name == "index" and is_number(kind[1]):
            view = self.temp(code)
            return f"find({kind[2]}, {view}[0], {view}[1], {self.real(*node.args)})", "i"
        if name == "copy":
            return self.as_list(code, kind)
        raise self.refuse(node, f"`{name}` of a list that stays")

    def on_k(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        if name in ("index", "count", "copy") and all(is_number(k) for k in kind[1:]):
            found, of = self.as_list(code, kind)
            return self.on_l(found, of, name, node)
        raise self.refuse(node, f"`{name}` of a list that stays")

    def on_m(self, code: str, kind: Kind, name: str, node: ast.Call) -> Code:
        known = _known(node.args[0]) if node.args else None
        if name == "get" and known is not None:
            if known in kind[1]:
                place = kind[1].index(known)
                return f"{code}[{place}]", kind[2][place]
            return self.expr(node.args[1]) if len(node.args) > 1 else ("0", "n")
        raise self.refuse(node, f"`{name}` of a dict")


def _known(node: ast.expr | None) -> Any:
    """Return a number or text that is written out, else None."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _known(node.operand)
        return -inner if isinstance(inner, int | float) else None
    return None


def _is_len(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return all(_is_len(side) or _known(side) is not None for side in (node.left, node.right))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
