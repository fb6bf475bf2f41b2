"""Settings: closed pydantic models, TOML files and `section.field=value` words.

One spelling everywhere, in TOML files, on the command line and in Python. Settings stand beside
the code they configure. Variants of a section (PPO, SAC) are told apart by their `kind`; no value
of one variant survives the change to another.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
import json
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hotlap.errors import ConfigError

__all__ = ["Settings", "overrides", "read_toml", "resolve", "to_toml"]


class Settings(BaseModel):
    """Base of every group of settings: frozen, closed, each field described by its docstring."""

    # Not use_attribute_docstrings: every start of a command would parse all our sources for them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_word(cls, word: str) -> dict[str, str]:
        """Read `section=word` for a section with variants: the word is the kind."""
        return {"kind": word}

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Read the docstrings under the fields, the inherited ones too; takes milliseconds once."""
        found: dict[str, str] = {}
        for owner in reversed(cls.__mro__):
            if issubclass(owner, Settings) and owner is not Settings:
                found |= _docstrings(owner)
        return found

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        fields = handler.resolve_ref_schema(schema)["properties"]
        for name, meaning in cls.meanings().items():
            fields[name]["description"] = meaning
        return schema


@functools.cache
def _docstrings(owner: type[Settings]) -> dict[str, str]:
    """Return the strings that stand right under the fields of one class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(under.value.value)
        for field, under in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(under, ast.Expr)
        and isinstance(under.value, ast.Constant)
        and isinstance(under.value.value, str)
    }


Model = TypeVar("Model", bound=Settings)


def overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read `section.field=value` words: TOML, numbers with commas between, or a bare string.

    >>> overrides(["algorithm.learning_rate=1e-3", "track=oval", "observation.actor=camera,state"])
    {'algorithm.learning_rate': 0.001, 'track': 'oval', 'observation.actor': 'camera,state'}
    >>> overrides(["traffic.bot_speed=0.5,1"])
    {'traffic.bot_speed': [0.5, 1]}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"{word!r} is not a setting: write section.field=value, such as "
                "algorithm.learning_rate=1e-3"
            )
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    for guess in (text, f"[{text}]") if "," in text else (text,):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            return tomllib.loads(f"value = {guess}")["value"]
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises:
        ConfigError: the file is missing, unreadable or not TOML; the message names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors may put a mark first
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def to_toml(settings: Settings) -> str:
    """Write complete settings as TOML; fields that are None are left out, as TOML has no null."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def resolve(model: type[Model], *layers: Mapping[str, Any]) -> Model:
    """Build settings from layers, later ones winning.

    Args:
        model: the settings to build.
        layers: nested mappings, or flat ones with dotted names, or a mix.

    Raises:
        ConfigError: with one line for each mistake, in the spelling the user typed.
    """
    tree: dict[str, Any] = {}
    for layer in layers:
        for name in sorted(layer, key=_depth):
            _merge(model, tree, name.split("."), layer[name], name)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(model, error, tree))) from None


def _depth(name: str) -> int:
    """Order the names of a layer: a section and its kind come before what is inside of it."""
    return name.removesuffix(".kind").count(".")


def _merge(
    model: type[Settings], tree: dict[str, Any], path: list[str], value: Any, spelled: str
) -> None:
    """Put one value into the tree; a new `kind` throws away what the old kind had been given."""
    name, rest = path[0], path[1:]
    variants = _variants(model, name)
    if rest:
        if not variants:
            known = ", ".join(model.model_fields)
            if name in model.model_fields:
                raise ConfigError(f"{spelled}: {name} is a single value, not a section")
            raise ConfigError(f"{spelled}: unknown setting{_nearest(name, model)}; known: {known}")
        value = {".".join(rest): value}
    elif isinstance(value, str) and variants and "kind" in variants[0].model_fields:
        value = variants[0].from_word(value)
    elif isinstance(value, Settings):
        value = value.model_dump()
    if not (isinstance(value, Mapping) and variants):
        tree[name] = value
        return
    default = model.model_fields[name].get_default(call_default_factory=True)
    branch = tree.setdefault(name, {"kind": default.kind} if hasattr(default, "kind") else {})
    if not isinstance(branch, dict):
        return  # an earlier word put something else in its place, which the check will name
    if "kind" in value and value["kind"] != branch.get("kind"):
        if len(variants) > 1:
            branch.clear()
        branch["kind"] = value["kind"]
    chosen = next((v for v in variants if _kind(v) == branch.get("kind")), variants[0])
    for key in sorted(value, key=_depth):
        _merge(chosen, branch, key.split("."), value[key], f"{name}.{key}")


def _variants(model: type[Settings], name: str) -> list[type[Settings]]:
    """Return the settings classes that a field may hold; none if it is a plain value."""
    field = model.model_fields.get(name)
    return [] if field is None else _classes(field.annotation)


def _classes(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [found for part in get_args(annotation) for found in _classes(part)]
    return []


def _kind(variant: type[Settings]) -> Any:
    field = variant.model_fields.get("kind")
    return None if field is None else field.default


def _nearest(name: str, model: type[Settings]) -> str:
    near = difflib.get_close_matches(name, model.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _sentences(model: type[Settings], error: ValidationError, tree: dict[str, Any]) -> list[str]:
    lines = []
    problems = error.errors()
    for problem in problems:
        place = problem["loc"]
        deeper = any(p["loc"][: len(place)] == place != p["loc"] for p in problems)
        if problem["type"] == "too_short" and deeper:
            continue  # pydantic does not count the entries that are wrong
        owner, words, chosen = model, list[str](), False
        for part in place:
            if chosen and part == _kind(owner):  # pydantic names the variant, as a step of the path
                chosen = False
                continue
            words.append(str(part))
            variants = _variants(owner, str(part))
            if variants:
                kind = _branch(tree, words).get("kind")
                owner = next((v for v in variants if _kind(v) == kind), variants[0])
            chosen = len(variants) > 1
        spelled = ".".join(words)
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(owner.model_fields)
            near = _nearest(words[-1], owner)
            lines.append(f"{spelled}: unknown setting{near}; allowed here: {allowed}")
        elif problem["type"].startswith("union_tag"):
            kinds = ", ".join(str(_kind(v)) for v in variants)
            given = _branch(tree, words).get("kind")
            lines.append(f"{spelled}.kind: choose from {kinds} (got {json.dumps(given)})")
        elif problem["type"] == "missing":
            lines.append(f"{spelled}: is missing; give it a value")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            given = json.dumps(problem["input"], default=str)
            lines.append(f"{spelled}: {message} (got {given})")
    return lines


def _branch(tree: Mapping[str, Any], words: Sequence[str]) -> Mapping[str, Any]:
    for word in words:
        below = tree.get(word)
        if not isinstance(below, Mapping):
            return {}
        tree = below
    return tree
