"""Kinds: what a value of a user's reward function is, as far as the translation must know.

`"b"`, `"i"`, `"f"`: bool, int, float. `"n"`: None. `("o", kind)`: that or None. `("s", text)`: a
text that is known. `"x"`: a text that is not, good for printing only. `("t", kinds...)`: a tuple.
`("k", kinds...)`: a list that nobody changes. `("l", kind)`: a list that may be changed.
`("v", kind, base)`: a table of the array `base`, in code as (place, rows); its rows are numbers,
tuples or lists of them. `("d", number)`: a constant that exists while translating only.
`("m", keys, kinds)`: a dict with known keys. `("p",)`: params. `("I", name)`, `("C", name)`,
`("F", number)`, `("M", number)`: an object, a class, a function and any other Python object.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

__all__ = [
    "Kind",
    "Refused",
    "cells",
    "default",
    "is_number",
    "join",
    "literal",
    "number_as",
    "say",
]

Kind: TypeAlias = Any

_RANK = {"b": 0, "i": 1, "f": 2}


class Refused(Exception):  # noqa: N818 it is an answer
    """The translation does not understand this; the message says what and where."""


def is_number(kind: Kind) -> bool:
    """Tell whether it is a bool, an int or a float."""
    return kind in ("b", "i", "f")


def say(kind: Kind) -> str:
    """Return the words for a kind."""
    plain = {"b": "a bool", "i": "an int", "f": "a float", "n": "None", "x": "a text"}
    if isinstance(kind, str):
        return plain[kind]
    words = {
        "o": "a value or None",
        "s": "a text",
        "t": "a tuple",
        "k": "a list",
        "l": "a list",
        "v": "a list",
        "d": "a table",
        "m": "a dict",
        "p": "params",
        "I": "an object",
        "C": "a class",
        "F": "a function",
        "M": "a Python object",
    }
    return words[kind[0]]


def join(a: Kind | None, b: Kind | None) -> Kind:
    """Return the kind that holds both.

    Raises:
        Refused: there is none.
    """
    if a is None or a == b:
        return b
    if b is None:
        return a
    if is_number(a) and is_number(b):
        return a if _RANK[a] > _RANK[b] else b
    if a == "n" or b == "n":
        other = b if a == "n" else a
        if other[0] == "o":
            return other
        if is_number(other) or other[0] in ("t", "k", "v"):
            return ("o", other)
    elif a[0] == "o" or b[0] == "o":
        return ("o", join(a[1] if a[0] == "o" else a, b[1] if b[0] == "o" else b))
    elif a[0] in ("s", "x") and b[0] in ("s", "x"):
        return "x"
    elif a[0] in ("t", "k") and a[0] == b[0] and len(a) == len(b):
        return (a[0], *(join(x, y) for x, y in zip(a[1:], b[1:], strict=True)))
    elif a[0] in ("k", "l") and b[0] in ("k", "l"):
        inner = None
        for kind in (*a[1:], *b[1:]):
            inner = join(inner, kind)
        return ("l", inner)
    raise Refused(f"{say(a)} and {say(b)} under one name")


def cells(kind: Kind) -> tuple[Kind, ...]:
    """Return the kinds of the numbers in one row of a table."""
    return (kind,) if is_number(kind) else tuple(kind[1:])


def default(kind: Kind) -> str:
    """Return code for any value of a kind."""
    if is_number(kind):
        return {"b": "False", "i": "0", "f": "0.0"}[kind]
    if kind[0] == "o":
        return f"(False, {default(kind[1])})"
    if kind[0] in ("t", "k"):
        return f"({''.join(default(k) + ', ' for k in kind[1:])})" if len(kind) > 1 else "0"
    if kind[0] == "m":
        return f"({''.join(default(k) + ', ' for k in kind[2])})" if kind[2] else "0"
    if kind[0] == "l":
        return f"[{default(kind[1] or 'f')} for _ in range(0)]"
    return "(0, 0)" if kind[0] == "v" else "0"


def number_as(code: str, kind: Kind, to: Kind) -> str:
    """Return code for a number as a wider kind."""
    if kind == "b" and to != "b":  # numba does not take float(True)
        return f"({'1.0' if to == 'f' else '1'} if {code} else {'0.0' if to == 'f' else '0'})"
    return code if kind == to else f"{'float' if to == 'f' else 'int'}({code})"


def literal(value: float) -> tuple[str, Kind]:
    """Return code and kind of a number.

    Raises:
        Refused: it is a whole number that a float64 cannot tell from its neighbours.
    """
    if isinstance(value, bool):
        return repr(value), "b"
    if isinstance(value, int):
        if abs(value) >= 2**53:
            raise Refused(f"the whole number {value} is too large")
        return (f"({value})" if value < 0 else repr(value)), "i"
    value = float(value)
    if math.isnan(value):
        return "math.nan", "f"
    if math.isinf(value):
        return ("math.inf" if value > 0 else "(-math.inf)"), "f"
    return (f"({value!r})" if value < 0 or str(value)[0] == "-" else repr(value)), "f"
