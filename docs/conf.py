"""How the pages are built; the lists of settings and of commands are written from the code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from hotlap import __version__

project = "hotlap"
author = "the hotlap authors"
release = version = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"hotlap {release}"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"source_edit_link": "", "top_of_page_buttons": []}


def settings_reference() -> str:
    """Write every setting of a training: name, meaning, default and what is allowed."""
    from hotlap.plan import TrainConfig

    schema = TrainConfig.model_json_schema()
    return "\n".join(_section(schema, schema["$defs"], ()))


def _section(model: dict[str, Any], groups: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the table of one group of settings, then the groups below it."""
    below: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    rows = []
    for name, field in model["properties"].items():
        dotted = ".".join((*path, name))
        meaning = _cell(field.get("description", ""))
        if "$ref" in field:
            group = groups[field["$ref"].rpartition("/")[2]]
            below.append((group, (*path, name)))
            meaning = meaning or _cell(group.get("description", ""))  # pydantic drops equal ones
            rows.append(f"| `{dotted}` | {meaning} | | a section, below |")
        elif "discriminator" in field:
            kinds = field["discriminator"]["mapping"]
            below += [(groups[ref.rpartition("/")[2]], (*path, name)) for ref in kinds.values()]
            kind = field["default"]["kind"]
            rows.append(f"| `{dotted}` | {meaning} | `{kind}` | {_words(kinds)} |")
        else:
            default = "required" if "default" not in field else f"`{_value(field['default'])}`"
            allowed = _allowed(field, groups)
            rows.append(f"| `{dotted}` | {meaning} | {default} | {allowed} |")
    if path:
        kind = model["properties"].get("kind", {}).get("const")
        name = ".".join(path)
        yield f"\n## `{name}`" + (f", kind `{kind}`\n" if kind else "\n")
        yield f"{model.get('description', '')}\n"
    yield "| setting | meaning | default | allowed |\n|---|---|---|---|"
    yield from rows
    for group, where in below:
        yield from _section(group, groups, where)


def _allowed(field: dict[str, Any], groups: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "$ref" in field:
        return _allowed(groups[field["$ref"].rpartition("/")[2]], groups)
    if "anyOf" in field:
        return ", or ".join(_allowed(option, groups) for option in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return _words(field["enum"])
    if field["type"] == "array":
        if "prefixItems" in field:
            parts = [_allowed(item, groups) for item in field["prefixItems"]]
            same = len(set(parts)) == 1
            return f"{len(parts)} times: {parts[0]}" if same else f"list: {'; '.join(parts)}"
        least = f" of at least {field['minItems']}" if "minItems" in field else ""
        return f"list{least}, each: {_allowed(field['items'], groups)}"
    words = {"number": "number", "integer": "whole number", "string": "text", "null": "none"}
    said = words.get(field["type"], "`true`, `false`")
    signs = {
        "exclusiveMinimum": "above",
        "minimum": "from",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {field[key]:g}" for key, word in signs.items() if key in field]
    pattern = f" like `{_cell(field['pattern'])}`" if "pattern" in field else ""
    return " ".join([said, *bounds]) + pattern


def _words(values: Any) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _value(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def command_reference() -> str:
    """Write the help of every command."""
    import typer

    from hotlap.cli import app

    # Typer measures the terminal; the pages shall not depend on who builds them.
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        return "\n".join(_help(typer.main.get_command(app), "hotlap", None))
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _help(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    yield f"\n## {context.command_path}\n\n```\n{command.get_help(context).strip()}\n```"
    for verb, below in getattr(command, "commands", {}).items():
        yield from _help(below, verb, context)


_WRITTEN = {"<!-- settings -->": settings_reference, "<!-- commands -->": command_reference}


def _write_references(app: Any, name: str, source: list[str]) -> None:
    for marker, write in _WRITTEN.items():
        if marker in source[0]:
            source[0] = source[0].replace(marker, write())


def setup(app: Any) -> None:
    """Have the references written where the pages ask for them."""
    app.connect("source-read", _write_references)
