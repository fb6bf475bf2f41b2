"""The arithmetic of compiled rewards is Python's, to the bit; where not sure it says so."""

import math
import random
import struct

import pytest

from hotlap.deepracer.rewards import exact
from hotlap.deepracer.rewards.exact import Unsure

DRAWS = random.Random(3)
WIDE = [DRAWS.uniform(-1, 1) * 10 ** DRAWS.uniform(-12, 12) for _ in range(4000)]
NEAR = [DRAWS.uniform(-10, 10) for _ in range(4000)]
ODD = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 2.675, 1e-320, 1e300, -1e300, 0.1, 0.3, 1 / 3, 8.5, 1e16]


def bits(x: float) -> bytes:
    return struct.pack("d", x)


def agree(ours, pythons, *arguments) -> bool:
    """The same bits, or Python has to be asked."""
    try:
        found = ours(*arguments)
    except Unsure:
        return True
    wanted = pythons(*arguments)
    return type(wanted) is not complex and bits(float(found)) == bits(float(wanted))


ONE = {
    "f_square": lambda x: x**2,
    "f_root": lambda x: x**0.5,
    "round_whole": round,
    "m_floor": math.floor,
    "m_ceil": math.ceil,
    "to_int": int,
    "m_sin": math.sin,
    "m_exp": math.exp,
    "m_log": math.log,
    "m_degrees": math.degrees,
    "m_radians": math.radians,
    "m_sqrt": math.sqrt,
    "m_tanh": math.tanh,
}
TWO = {
    "f_power": lambda x, y: x**y,
    "f_modulo": lambda x, y: x % y,
    "f_floor_divide": lambda x, y: x // y,
    "f_divide": lambda x, y: x / y,
    "m_atan2": math.atan2,
    "m_fmod": math.fmod,
    "least": min,
    "most": max,
}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_number(name):
    assert [x for x in WIDE + NEAR + ODD if not agree(getattr(exact, name), ONE[name], x)] == []


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_numbers(name):
    pairs = [*zip(WIDE, NEAR, strict=True), *zip(NEAR, reversed(NEAR), strict=True)]
    pairs += [(x, y) for x in ODD for y in ODD]

    assert [p for p in pairs if not agree(getattr(exact, name), TWO[name], *p)] == []


@pytest.mark.parametrize("digits", [0, 1, 2, 5, 12])
def test_rounding_to_digits(digits):
    numbers = [*WIDE, *NEAR, *ODD, *(k / 8 for k in range(-99, 99)), *(k / 200 for k in range(999))]

    def ours(x: float) -> float:
        return exact.round_digits(x, digits)

    wrong = [x for x in numbers if not agree(ours, lambda x: round(x, digits), x)]

    assert wrong == []
    assert exact.round_digits(2.675, 2) == 2.67  # its binary value lies below the half
    assert bits(exact.round_digits(-0.001, 2)) == bits(-0.0)


def test_most_numbers_are_answered():
    answered = 0
    for x in NEAR:
        assert exact.f_square(x) == x**2
        answered += exact.round_digits(x, 2) == round(x, 2)

    assert answered == len(NEAR)


@pytest.mark.skipif(exact.COMPENSATED, reason="CPython 3.12 computes math.hypot otherwise")
def test_the_hypotenuse():
    pairs = [*zip(NEAR, reversed(NEAR), strict=True), *zip(WIDE, NEAR, strict=True), (3.0, 4.0)]

    assert [p for p in pairs if not agree(exact.hypotenuse, math.hypot, *p)] == []


def test_what_python_fails_at_is_left_to_it():
    for call in (
        lambda: exact.f_divide(1.0, 0.0),
        lambda: exact.f_power(-8.0, 0.5),
        lambda: exact.f_power(0.0, -1.0),
        lambda: exact.m_exp(1000.0),
        lambda: exact.m_log(-1.0),
        lambda: exact.m_sqrt(-1.0),
        lambda: exact.i_modulo(3, 0),
        lambda: exact.i_times(2**40, 2**40),
        lambda: exact.to_int(math.nan),
        lambda: exact.index(3, 3),
    ):
        with pytest.raises(Unsure):
            call()
