"""Axes of a sweep: which settings take several values, and which combinations that makes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

from hotlap.config import overrides
from hotlap.errors import ConfigError

__all__ = ["Axis", "Choices", "Range", "combinations", "label", "read_axes", "sizes", "words"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\.\.({_NUMBER})(?:[: ]\s*(\w+))?\s*")
_SPELLED_MAX = 100
"""Whole numbers that a grid takes out of one range."""
_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True)
class Choices:
    """A setting and the values that it takes."""

    name: str
    values: tuple[Any, ...]

    def valid(self) -> Sequence[Any]:
        """Return the values that stand for all when they are checked."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A setting that takes any number from `low` to `high`, both included; whole if these are."""

    name: str
    low: float
    high: float
    log: bool = False
    """Whether its logarithm is what is spread evenly."""

    @property
    def whole(self) -> bool:
        """Whether it takes whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def valid(self) -> Sequence[Any]:
        """Return the values that stand for all when they are checked: the ends."""
        return (self.low, self.high)

    def clip(self, value: float) -> float:
        """Return the nearest number of the range."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else inside

    def spelled(self) -> Choices:
        """Return its whole numbers one by one.

        Raises:
            ConfigError: they are not whole, or more than 100.
        """
        if not self.whole:
            raise ConfigError(
                f"{self.name}: a grid has no numbers between {self.low:g} and {self.high:g}; write "
                "the values out, with commas, or choose --search random"
            )
        if self.high - self.low >= _SPELLED_MAX:
            raise ConfigError(
                f"{self.name}: {self.low} to {self.high} are {self.high - self.low + 1:g} values, "
                f"and a grid takes {_SPELLED_MAX} of one range at most; choose --search random"
            )
        return Choices(self.name, tuple(range(int(self.low), int(self.high) + 1)))


Axis: TypeAlias = Choices | Range


def read_axes(given: Sequence[str] | Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Axis, ...]]:
    """Tell fixed settings and axes apart.

    A word is `section.field=value`, as for a training, or `section.field=value,value` with a comma
    between the values, or `section.field=low..high`, with `:log` behind it where that is meant.
    Brackets or quotes hold together what is one value: `track=[oval,hard],reinvent_like`.

    Args:
        given: words; or, in Python, values by dotted name, where a list (or a range) is an axis
            and a tuple is one value.

    Returns:
        The fixed settings by dotted name, and the axes in the order they were given.

    Raises:
        ConfigError: a word is no setting, a setting comes twice, or a value is empty or comes
            twice; all such mistakes at once.

    >>> read_axes(["train.seconds=30", "track=[oval,hard],oval", "algorithm.clip=0.1..0.3"])[1]
    (Choices(name='track', values=('oval,hard', 'oval')), \
Range(name='algorithm.clip', low=0.1, high=0.3, log=False))
    """
    fixed, axes, mistakes = dict[str, Any](), list[Axis](), list[str]()
    pairs: list[tuple[str, Any]] = []
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        for word in given:
            name, equals, text = word.partition("=")
            if not equals or not name:
                overrides([word])  # which says what is wrong
            pairs.append((name.strip(), _Text(text)))
    seen = set[str]()
    for name, value in pairs:
        try:
            found = _read(name, value)
        except ConfigError as mistake:
            mistakes.append(str(mistake))
            continue
        if name in seen:
            mistakes.append(f"{name}: is given twice; write all of its values into one word")
        seen.add(name)
        if isinstance(found, Choices | Range):
            axes.append(found)
        else:
            fixed[name] = found[0]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return fixed, tuple(axes)


class _Text(str):
    """What was typed after the sign of equality, and not a value yet."""

    __slots__ = ()


def _read(name: str, value: Any) -> Axis | tuple[Any]:
    """Read an axis, or a single value in a tuple."""
    if isinstance(value, str):
        match = _RANGE.fullmatch(value)
        if match:
            return _range(name, *match.groups())
    if isinstance(value, _Text):
        parts = _parts(name, value)
        values = [_value(part) for part in parts]
        if len(values) == 1:
            return (values[0],)
    elif isinstance(value, list | range):
        values = list(value)
        if not values:
            raise ConfigError(f"{name}: has no value; give it one at least")
    else:
        return (list(value) if isinstance(value, tuple) else value,)
    labels = [label(one) for one in values]
    twice = [one for i, one in enumerate(labels) if one in labels[:i]]
    if twice:
        raise ConfigError(f"{name}: {twice[0]} comes twice; each value once")
    return Choices(name, tuple(values))


def _range(name: str, low: str, high: str, how: str | None) -> Range:
    ends = [int(end) if re.fullmatch(r"[-+]?\d+", end) else float(end) for end in (low, high)]
    if how not in (None, "log"):
        raise ConfigError(f"{name}: after a range stands :log or nothing (got {how})")
    if not ends[0] < ends[1] or not all(map(math.isfinite, ends)):
        raise ConfigError(f"{name}: write the lower end of a range first (got {low}..{high})")
    if how and ends[0] <= 0:
        raise ConfigError(f"{name}: {low} has no logarithm; begin above 0, or leave :log away")
    return Range(name, ends[0], ends[1], log=bool(how))


def _parts(name: str, text: str) -> list[str]:
    """Split at the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "," and not depth:
            parts.append("")
            continue
        depth += 0 if quote else (letter in _OPEN) - (letter in _CLOSE)
        parts[-1] += letter
    if quote or depth:
        missing = quote or "a bracket"
        raise ConfigError(f"{name}: {missing} is opened and not closed, or closed too often")
    parts = [part.strip() for part in parts]
    if "" in parts:
        raise ConfigError(
            f"{name}: a value is missing beside a comma (got {text or 'nothing'}); write {name}=a,b"
        )
    return parts


def _value(text: str) -> Any:
    """Read one value: TOML, or a bare string; of `[oval,hard]` what is in the brackets."""
    value = overrides([f"value={text}"])["value"]
    if isinstance(value, str) and value == text and text[0] == "[" and text[-1] == "]":
        return text[1:-1].strip()
    return value


def label(value: Any) -> str | int | float | bool:
    """Return a value as it is, or, if it is no plain one, as text that stands for it."""
    if isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, default=str)


def words(values: Mapping[str, Any]) -> list[str]:
    """Write settings as words that `hotlap train` reads.

    >>> words({"track": "oval,hard", "algorithm.clip": 0.1})
    ['track="oval,hard"', 'algorithm.clip=0.1']
    """
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]


def sizes(axes: Sequence[Axis]) -> int:
    """Return how many combinations the values that stand for all make."""
    return math.prod(len(axis.valid()) for axis in axes)


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values that stand for all; the last axis changes first."""
    for values in product(*(axis.valid() for axis in axes)):
        yield {axis.name: value for axis, value in zip(axes, values, strict=True)}
