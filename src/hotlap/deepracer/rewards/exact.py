# ruff: noqa: RUF046, SIM110 numba reads it
"""Python's own arithmetic for compiled rewards: the same bits as CPython, or an error.

Every function here either returns exactly what Python returns for the same numbers or raises
`Unsure`; the caller then asks Python itself. So what Python answers with an exception, a complex
number or a whole number beyond 2**53 never needs to be imitated. Functions of the C library are
called at the address that CPython calls, because compilers turn pow(x, 2) into x * x, which
differs in the last bit now and then.

Source: CPython 3.11 and 3.12, Objects/floatobject.c, Modules/mathmodule.c and Python/bltinmodule.c,
read for the facts.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import sys

import llvmlite.binding as llvm
import numpy as np
from numba import njit, types

__all__ = ["AVAILABLE", "BUDGET", "COMPENSATED", "LIBM", "WHOLE", "Unsure"]

WHOLE = 2**53
"""Whole numbers up to here are told apart by float64."""

BUDGET = 10_000_000
"""Passes of open-ended loops that a call may take; beyond, Python does it, and can be stopped."""


COMPENSATED = sys.version_info >= (3, 12)
"""Whether `sum` of floats carries what rounding loses."""


class Unsure(Exception):  # noqa: N818 it is no mistake
    """Python has to answer this one."""


def _library() -> ctypes.CDLL | None:
    names = [None, ctypes.util.find_library("m")]
    if sys.platform == "win32":
        names = ["ucrtbase"]
    for name in names:
        try:
            library = ctypes.CDLL(name)
            library.pow  # noqa: B018 is it there?
        except (OSError, AttributeError):
            continue
        return library
    return None


_LIBRARY = _library()
AVAILABLE = _LIBRARY is not None
"""Whether the C library's functions were found."""

LIBM = dict.fromkeys(
    [
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "exp",
        "expm1",
        "log",
        "log10",
        "log2",
        "log1p",
    ],
    1,
) | {"atan2": 2, "pow": 2, "fmod": 2}
"""Functions of `math` that are the C library's, and how many arguments they take."""


def _external(name: str, count: int) -> types.ExternalFunction:
    symbol = f"hotlap_libm_{name}"
    if _LIBRARY is not None:
        address = ctypes.cast(getattr(_LIBRARY, name), ctypes.c_void_p).value
        llvm.add_symbol(symbol, address)
    return types.ExternalFunction(symbol, types.float64(*[types.float64] * count))


_jit = njit(nogil=True, error_model="python")

for _name, _count in LIBM.items():
    globals()[f"_c_{_name}"] = _external(_name, _count)
    _given = "x" if _count == 1 else "x, y"
    exec(
        f"def m_{_name}({_given}):\n"
        f"    found = _c_{_name}({_given})\n"
        "    if not math.isfinite(found):\n"
        "        raise Unsure\n"
        "    return found\n"
    )
    globals()[f"m_{_name}"] = _jit(globals()[f"m_{_name}"])


@_jit
def f_power(x, y):  # type: ignore[no-untyped-def]
    """X ** y of floats; complex results and zero to a negative power are Python's."""
    if x < 0.0 and y != np.floor(y):
        raise Unsure
    found = _c_pow(x, y)  # type: ignore[name-defined]  # noqa: F821
    if not math.isfinite(found):
        raise Unsure
    return found


@_jit
def f_square(x):  # type: ignore[no-untyped-def]
    """Return x ** 2 as the C library's pow says it.

    That is within 0.55 units in the last place (glibc: 0.52), so it is the correctly rounded x * x
    wherever the exact square is not close to half-way between two floats; else pow is asked.
    """
    found = x * x
    if 1e-250 < found < 1e250:
        c = 134217729.0 * x
        high = c - (c - x)
        low = x - high
        error = ((high * high - found) + 2.0 * high * low) + low * low
        if found + 1.1 * error == found:
            return found
    return f_power(x, 2.0)


@_jit
def f_root(x):  # type: ignore[no-untyped-def]
    """Return x ** 0.5 as the C library's pow says it, in the same way."""
    if 1e-250 < x < 1e250:
        found = math.sqrt(x)
        square = found * found
        c = 134217729.0 * found
        high = c - (c - found)
        low = found - high
        error = ((high * high - square) + 2.0 * high * low) + low * low
        if found + 1.1 * (((x - square) - error) / (2.0 * found)) == found:
            return found
    return f_power(x, 0.5)


@_jit
def same(optional, x):  # type: ignore[no-untyped-def]
    """What may be None == x."""
    return optional[0] and optional[1] == x


@_jit
def i_power(x, y):  # type: ignore[no-untyped-def]
    """X ** y of whole numbers, y not negative."""
    found = 1
    for _ in range(y):
        found *= x
        if found > WHOLE or found < -WHOLE:
            raise Unsure
    return found


@_jit
def i_whole(x):  # type: ignore[no-untyped-def]
    """The result of a sum or product of whole numbers below 2**53, if it is one too."""
    if x > WHOLE or x < -WHOLE:
        raise Unsure
    return x


@_jit
def i_times(x, y):  # type: ignore[no-untyped-def]
    found = float(x) * float(y)
    if found > 9007199254740991.0 or found < -9007199254740991.0:
        raise Unsure
    return x * y


@_jit
def f_divide(x, y):  # type: ignore[no-untyped-def]
    if y == 0.0:
        raise Unsure
    return x / y


@_jit
def f_modulo(x, y):  # type: ignore[no-untyped-def]
    if y == 0.0:
        raise Unsure
    rest = _c_fmod(x, y)  # type: ignore[name-defined]  # noqa: F821
    if rest != 0.0:
        if (y < 0.0) != (rest < 0.0):
            rest += y
    else:
        rest = math.copysign(0.0, y)
    return rest


@_jit
def f_floor_divide(x, y):  # type: ignore[no-untyped-def]
    if y == 0.0:
        raise Unsure
    rest = _c_fmod(x, y)  # type: ignore[name-defined]  # noqa: F821
    share = (x - rest) / y
    if rest != 0.0 and (y < 0.0) != (rest < 0.0):
        share -= 1.0
    if share == 0.0:
        return math.copysign(0.0, x / y)
    floor = np.floor(share)
    if not math.isfinite(floor):
        raise Unsure
    if share - floor > 0.5:
        floor += 1.0
    return floor


@_jit
def i_modulo(x, y):  # type: ignore[no-untyped-def]
    if y == 0:
        raise Unsure
    return x % y


@_jit
def i_floor_divide(x, y):  # type: ignore[no-untyped-def]
    if y == 0:
        raise Unsure
    return x // y


@_jit
def to_int(x):  # type: ignore[no-untyped-def]
    """int(x) of a float."""
    if not (-9007199254740991.0 < x < 9007199254740991.0):
        raise Unsure
    return int(x)


@_jit
def m_floor(x):  # type: ignore[no-untyped-def]
    if not (-9007199254740991.0 < x < 9007199254740991.0):
        raise Unsure
    return int(math.floor(x))


@_jit
def m_ceil(x):  # type: ignore[no-untyped-def]
    if not (-9007199254740991.0 < x < 9007199254740991.0):
        raise Unsure
    return int(math.ceil(x))


@_jit
def m_sqrt(x):  # type: ignore[no-untyped-def]
    if not 0.0 <= x < math.inf:
        raise Unsure
    return math.sqrt(x)


@_jit
def m_degrees(x):  # type: ignore[no-untyped-def]
    return x * (180.0 / math.pi)


@_jit
def m_radians(x):  # type: ignore[no-untyped-def]
    return x * (math.pi / 180.0)


@_jit
def m_isclose(x, y, relative, absolute):  # type: ignore[no-untyped-def]
    if x == y:
        return True
    if math.isinf(x) or math.isinf(y):
        return False
    gap = math.fabs(y - x)
    return (gap <= math.fabs(relative * y) or gap <= math.fabs(relative * x)) or gap <= absolute


@_jit
def round_whole(x):  # type: ignore[no-untyped-def]
    """round(x): half to even."""
    if not (-9007199254740991.0 < x < 9007199254740991.0):
        raise Unsure
    return int(np.rint(x))


@_jit
def round_digits(x, digits):  # type: ignore[no-untyped-def]
    """round(x, digits), which rounds the exact binary value of x as a decimal, half to even."""
    if digits < 0 or digits > 15 or not math.isfinite(x):
        raise Unsure
    scale = 1.0
    for _ in range(digits):
        scale *= 10.0
    scaled = x * scale
    if math.fabs(scaled) > 1e15:
        raise Unsure
    # The error of that product, exactly (Dekker 1971): both factors in halves of 26 bits.
    c = 134217729.0 * x
    xh = c - (c - x)
    xl = x - xh
    c = 134217729.0 * scale
    sh = c - (c - scale)
    sl = scale - sh
    error = ((xh * sh - scaled) + xh * sl + xl * sh) + xl * sl
    whole = np.rint(scaled)
    rest = scaled - whole
    # On the half, rint has taken the even one; the error says on which side the truth lies.
    if rest == 0.5 and error > 0.0:
        whole += 1.0
    if rest == -0.5 and error < 0.0:
        whole -= 1.0
    return math.copysign(whole / scale, x)


@_jit
def index(i, count):  # type: ignore[no-untyped-def]
    """The place of index i in a list."""
    if i < 0:
        i += count
    if i < 0 or i >= count:
        raise Unsure
    return i


@_jit
def bound(i, count):  # type: ignore[no-untyped-def]
    """The place of a slice's end."""
    if i < 0:
        i += count
    return min(max(i, 0), count)


@_jit
def passes(begin, end, step):  # type: ignore[no-untyped-def]
    """len(range(begin, end, step))."""
    if step == 0:
        raise Unsure
    if step > 0:
        return max(0, (end - begin + step - 1) // step)
    return max(0, (begin - end - step - 1) // -step)


@_jit
def spend(left, count):  # type: ignore[no-untyped-def]
    """Take passes from what a call may take."""
    left[0] -= count
    if left[0] < 0:
        raise Unsure


@_jit
def has(table, place, count, value):  # type: ignore[no-untyped-def]
    """Value in a list of numbers."""
    for i in range(place, place + count):
        if table[i] == value:
            return True
    return False


@_jit
def find(table, place, count, value):  # type: ignore[no-untyped-def]
    """The index of the first number in a list that is equal."""
    for i in range(count):
        if table[place + i] == value:
            return i
    raise Unsure


@_jit
def need(optional):  # type: ignore[no-untyped-def]
    """The value of what may be None."""
    if not optional[0]:
        raise Unsure
    return optional[1]


@_jit
def nearest(table, place, count, x, y):  # type: ignore[no-untyped-def]
    """The index of the waypoint nearest to (x, y), as in the older form of reward functions."""
    best, found = math.inf, 0
    for i in range(count):
        dx, dy = table[place + 2 * i] - x, table[place + 2 * i + 1] - y
        if dx * dx + dy * dy < best:
            best, found = dx * dx + dy * dy, i
    return found


@_jit
def sum_step(total, lost, x):  # type: ignore[no-untyped-def]
    """Add x to a sum that carries what rounding loses (Neumaier 1974), as CPython 3.12 does."""
    new = total + x
    if math.fabs(total) >= math.fabs(x):
        lost += (total - new) + x
    else:
        lost += (x - new) + total
    return new, lost


@_jit
def sum_end(total, lost):  # type: ignore[no-untyped-def]
    if lost != 0.0 and math.isfinite(lost):
        return total + lost
    return total


@_jit
def hypotenuse(x, y):  # type: ignore[no-untyped-def]
    """math.hypot(x, y) of CPython 3.10 and 3.11: scaled, squared in halves, corrected once."""
    x, y = math.fabs(x), math.fabs(y)
    largest = max(x, y)
    if not (1e-150 < largest < 1e150):
        if x == 0.0 and y == 0.0:
            return 0.0
        raise Unsure
    _, exponent = math.frexp(largest)
    scale = math.ldexp(1.0, -exponent)
    total, first, second, third = 1.0, 0.0, 0.0, 0.0
    for side in (x, y):
        a = side * scale
        t = a * 134217729.0
        high = t - (t - a)
        low = a - high
        a = high * high
        old = total
        total += a
        first += (old - total) + a
        a = 2.0 * high * low
        old = total
        total += a
        second += (old - total) + a
        third += low * low
    h = math.sqrt(total - 1.0 + (first + second + third))
    t = h * 134217729.0
    high = t - (t - h)
    low = h - high
    a = -high * high
    old = total
    total += a
    first += (old - total) + a
    a = -2.0 * high * low
    old = total
    total += a
    second += (old - total) + a
    a = -low * low
    old = total
    total += a
    third += (old - total) + a
    a = total - 1.0 + (first + second + third)
    return (h + a / (2.0 * h)) / scale


@_jit
def in_range(x, begin, end):  # type: ignore[no-untyped-def]
    """X in range(begin, end)."""
    return begin <= x < end and x == np.floor(x)


@_jit
def among(values, x):  # type: ignore[no-untyped-def]
    """X in a list of numbers."""
    for value in values:
        if value == x:
            return True
    return False


@_jit
def at(values, i):  # type: ignore[no-untyped-def]
    return values[index(i, len(values))]


@_jit
def part_of(view, begin, end, width):  # type: ignore[no-untyped-def]
    """view[begin:end]."""
    first, last = bound(begin, view[1]), bound(end, view[1])
    return (view[0] + first * width, max(last - first, 0))


@_jit
def place(values, x):  # type: ignore[no-untyped-def]
    """values.index(x)."""
    for i in range(len(values)):
        if values[i] == x:
            return i
    raise Unsure


@_jit
def times(values, x):  # type: ignore[no-untyped-def]
    """values.count(x)."""
    found = 0
    for value in values:
        if value == x:
            found += 1
    return found


@_jit
def least(a, b):  # type: ignore[no-untyped-def]
    """min(a, b): the first of two equal ones."""
    return b if b < a else a


@_jit
def most(a, b):  # type: ignore[no-untyped-def]
    return b if b > a else a


@_jit
def true_value(optional):  # type: ignore[no-untyped-def]
    """The truth of what may be None."""
    return optional[0] and optional[1] != 0


@_jit
def in_order(values):  # type: ignore[no-untyped-def]
    """sorted(values): equal ones stay in order; a list with nan is Python's."""
    found = values[:]
    for i in range(1, len(found)):
        x = found[i]
        if x != x:
            raise Unsure
        j = i
        while j > 0 and x < found[j - 1]:
            found[j] = found[j - 1]
            j -= 1
        found[j] = x
    return found
