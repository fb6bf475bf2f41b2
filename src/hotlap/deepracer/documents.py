"""Documents: DeepRacer's text files as named values, each with the line it stands on.

Whatever an editor or another system made of them is read: byte-order marks, UTF-16, any line ends.
"""

from __future__ import annotations

import codecs
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hotlap.errors import ConfigError

__all__ = ["Document", "brief", "is_there", "near"]

_BYTES_MAX = 4 * 2**20
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Document:
    """A file's values by name, in its order."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    """On which line a name stands, where that is known."""

    def at(self, name: str) -> str:
        """Return where a name stands, as a message says it: `path:line: name`."""
        line = self.lines.get(name)
        return f"{self.path}{f':{line}' if line else ''}: {name}"

    @classmethod
    def of_json(cls, path: Path) -> Document:
        """Read a JSON object.

        Raises:
            ConfigError: it cannot be read, or is none; one sentence with file, line and remedy.
        """
        text = _text(path)
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            cut = not text[error.pos :].strip()
            what = "it ends too soon" if cut else f"{error.msg} (column {error.colno})"
            how = "copy it again, whole" if cut else "mend that place"
            raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {what}; {how}") from None
        except RecursionError:
            raise ConfigError(f"{path}: not valid JSON: nested too deeply") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: must hold a JSON object, {{...}}, not {brief(found)}")
        lines = {}
        for name in found:
            spelt = re.escape(json.dumps(name, ensure_ascii=False))
            place = re.search(rf"{spelt}\s*:", text)
            if place is not None:
                lines[name] = text.count("\n", 0, place.start()) + 1
        return cls(path, found, lines)

    @classmethod
    def of_yaml(cls, path: Path) -> Document:
        """Read a YAML mapping of names to texts, numbers, truths or lists of these.

        Raises:
            ConfigError: it cannot be read, or is none; one sentence with file, line and remedy.
        """
        import yaml  # few folders have such a file

        text = _text(path)
        try:
            node, found = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark is not None else ""
            what = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{path}{where}: not valid YAML: {what}; mend that place") from None
        except RecursionError:
            raise ConfigError(f"{path}: not valid YAML: nested too deeply") from None
        if not isinstance(found, dict) or not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}: must hold lines of NAME: value, not {brief(found)}")
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
        document = cls(path, {str(name): value for name, value in found.items()}, lines)
        for name, value in document.values.items():
            items = value if isinstance(value, list) else [value]
            if any(isinstance(item, list | dict) for item in items):
                raise ConfigError(
                    f"{document.at(name)}: must be a value or a list of values (got {brief(value)})"
                )
        return document

    @classmethod
    def of_variables(cls, path: Path) -> Document:
        """Read lines of KEY=VALUE as a shell does: quotes, comments, `export`, `$KEY` of above.

        The last one of a name wins. A file without any is a document without values.

        Raises:
            ConfigError: it cannot be read, or a line is none; one sentence with file and line.
        """
        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        for row, line in enumerate(_text(path, empty=True).splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise ConfigError(
                    f"{path}:{row}: must be KEY=VALUE, with quotes around a value that has spaces "
                    f"(got {line.strip()[:60]})"
                )
            name, value = match["name"], match["value"]
            if value[:1] == "'":
                value = value[1:-1]
            else:
                value = value[1:-1] if value[:1] == '"' else value
                value = _NAMED.sub(lambda m: values.get(m[1] or m[2], m[0]), value)
            values[name], lines[name] = value, row
        return cls(path, values, lines)


_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)=(?P<value>'[^']*'|"[^"]*"|[^\s'"]*)\s*(?:\s\#.*)?"""
)
"""KEY=VALUE, perhaps quoted, perhaps with a comment."""
_NAMED = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def is_there(path: Path) -> bool:
    """Tell whether a file of that name is there; what is in its place is not passed over.

    Raises:
        ConfigError: it is a folder, or a link to nothing.
    """
    if path.is_file():
        return True
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder where a file belongs; move it away")
    if path.is_symlink():
        raise ConfigError(f"{path}: is a link to a file that is not there; mend or delete it")
    return False


def _text(path: Path, *, empty: bool = False) -> str:
    """Return what a file says, with lines that end in a newline alone."""
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise ConfigError(f"{path}: is larger than {_BYTES_MAX >> 20} MiB, so no such file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    coding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    if coding == "utf-8" and b"\0" in data[:2]:  # UTF-16 of Latin letters, without its mark
        coding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(coding)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{row}: is neither UTF-8 nor UTF-16 from here on; save it as UTF-8, whole"
        ) from None
    if not empty and not text.strip("\0 \t\r\n"):
        raise ConfigError(f"{path}: is empty; delete it, or copy it again")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def brief(value: object) -> str:
    """Return a value as a message shows it: JSON, not too long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def near(word: object, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` where a known word is near, else nothing."""
    spelt = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), spelt, n=1, cutoff=0.7)
    return f" (did you mean {spelt[found[0]]}?)" if found else ""
