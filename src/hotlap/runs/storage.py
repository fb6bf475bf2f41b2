"""Storage: a folder at a URL such as s3://bucket/runs/a, and its copy on this machine.

What lies at the URL are the files of the folder, under the same names. Programs work on the copy: a
training writes it and a `Mirror` sends it, everyone else fetches what they need of it. A file is
fetched again only if it is another one there, which its ETag or the like says.

```
<copy>/.storage.json     what of the copy is the same at the URL, and who wrote it
<URL>/claims/<n>.json    who writes there; see mirror.py
```
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from hotlap.errors import HotlapError, MissingExtraError, RunError
from hotlap.files import TEMPORARY, explained, replace, user_folder, whole

try:
    import fcntl
except ImportError:  # Windows: two writers of a copy are then not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CLAIMS",
    "INDEX",
    "Depth",
    "Index",
    "Storage",
    "is_transient",
    "is_url",
    "problem",
    "url_of",
    "vacant",
]

Depth: TypeAlias = Literal["facts", "drivers", "states", "all"]
"""How much of a Run is fetched: what lists it, what drives, what others start from, all of it."""

INDEX, CLAIMS = ".storage.json", "claims"
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(?:/+(.*))?$", re.DOTALL)
_LOCAL = ("file", "local")
_FACTS = re.compile(r"(config\.toml|meta\.json|report\.json|population\.json)")
_DRIVERS = re.compile(r"(metrics|events)\.jsonl|checkpoints/(last|best|\d+/policy\.\w+)")
_STATES = re.compile(r"checkpoints/\d+/state\.\w+")
_POINTERS = ("checkpoints/best", "checkpoints/last")
_LARGE = 8 << 20
_TRIES = 5


def is_url(path: Path | str) -> bool:
    """Say whether a path names a place elsewhere; one that pathlib took a slash from, too."""
    found = _URL.match(str(path))
    return found is not None and found[1].lower() not in _LOCAL


def url_of(path: Path | str) -> str:
    """Return a URL as it was before pathlib took a slash from it; a path as it is.

    `file://` is the path that it names.
    """
    found = _URL.match(str(path))
    if found is None:
        return str(path)
    protocol, rest = found[1].lower(), (found[2] or "").rstrip("/")
    return f"/{rest}" if protocol in _LOCAL else f"{protocol}://{rest}"


@dataclass
class Index:
    """What is known of the copy on this machine."""

    files: dict[str, tuple[str | None, int, int]] = field(default_factory=dict)
    """By name: what identifies it at the URL, if known, and size and time of change of the copy."""
    token: str = ""
    """Of the claim under which this machine last wrote the copy, if it did."""
    unsent: bool = False
    """Whether the copy may hold what is not at the URL yet."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read that of a copy; a missing or damaged one knows nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((folder / INDEX).read_bytes())
            files = {str(k): (v[0], int(v[1]), int(v[2])) for k, v in found["files"].items()}
            return cls(files, str(found["token"]), bool(found["unsent"]))
        return cls()

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        content = {"files": self.files, "token": self.token, "unsent": self.unsent}
        with explained(folder / INDEX):
            folder.mkdir(parents=True, exist_ok=True)
            replace(folder / INDEX, json.dumps(content).encode())

    def same(self, name: str, path: Path) -> bool:
        """Say whether the copy's file is as it was when it was fetched or sent."""
        with contextlib.suppress(OSError):
            stat = path.stat()
            return self.files.get(name, (None, -1, -1))[1:] == (stat.st_size, stat.st_mtime_ns)
        return False

    def note(self, name: str, path: Path, identity: str | None) -> None:
        """Remember that a file is the same in both places."""
        stat = path.stat()
        self.files[name] = (identity, stat.st_size, stat.st_mtime_ns)


class Storage:
    """A folder at a URL, with its copy on this machine.

    Args:
        url: any that fsspec knows.

    Raises:
        MissingExtraError: fsspec, or what it needs for such a URL, is not installed.
        RunError: there are no such URLs.
    """

    def __init__(self, url: Path | str) -> None:
        self.url = url_of(url)
        protocol, _, rest = self.url.partition("://")
        parts = [part for part in rest.split("/") if part]
        if not parts:
            raise RunError(f"{self.url}: name a folder, such as {protocol}://bucket/runs/a")
        if any(part in (".", "..") or part.startswith(TEMPORARY) for part in parts):
            raise RunError(f"{self.url}: a folder at a URL has no part . or .. in its name")
        self.local = user_folder("storage", "data").joinpath(protocol, *parts)
        self.fs, self.root = _file_system(self.url)

    def child(self, name: str) -> str:
        """Return the URL of what lies in the folder."""
        return f"{self.url}/{name}"

    def at(self, name: str) -> str:
        """Return how the file system calls a file of the folder."""
        return f"{self.root}/{name}"

    @contextlib.contextmanager
    def explained(self, doing: str = "be read") -> Iterator[None]:
        """Turn what the other side says into our sentence.

        Raises:
            RunError: with exit status 1 if the other side cannot be reached, else 2.
        """
        try:
            yield
        except HotlapError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise problem(self.url, error, doing) from error

    def folders(self) -> list[str]:
        """Return the names of the folders in the folder."""
        infos = self.infos(deep=False)
        return sorted(name for name, info in infos.items() if info["type"] == "directory")

    def infos(self, *, deep: bool = True) -> dict[str, Mapping[str, Any]]:
        """Return what is said of each file of the folder, by name; {} if there is no such folder.

        Those of the claims are left out.

        Args:
            deep: those of the folders in it, too; else what is said of the folders.
        """
        with self.explained("be listed"):
            if deep:
                found = self.fs.find(self.root, detail=True)
            else:
                try:
                    listed = self.fs.ls(self.root, detail=True)
                except FileNotFoundError as error:
                    if _code(error):
                        raise
                    listed = []
                found = {entry["name"].rstrip("/"): entry for entry in listed}
        base = self.root.rstrip("/") + "/"
        names = {path[len(base) :]: info for path, info in found.items() if path.startswith(base)}
        return {name: info for name, info in names.items() if _is_inside(name)}

    def exists(self, name: str) -> bool:
        """Say whether there is such a file in the folder."""
        return self.read(name) is not None

    def read(self, name: str) -> bytes | None:
        """Read a small file; None if there is none."""
        with self.explained():
            try:
                return bytes(self.fs.cat_file(self.at(name)))
            except FileNotFoundError as error:
                if _code(error):
                    raise
                return None

    def put(self, name: str, path: Path) -> None:
        """Write a file of the copy to the URL: there it is whole or not at all.

        Raises:
            Exception: what the file system says; `problem` explains it.
        """
        if path.stat().st_size < _LARGE:
            self.fs.pipe_file(self.at(name), path.read_bytes())
        else:
            self.fs.put_file(str(path), self.at(name))

    def send(self, files: Sequence[Path]) -> None:
        """Write files of the copy, such as a film, to the URL, unless a training here sends all.

        Raises:
            RunError: they cannot be written there.
        """
        if self.is_written():
            return
        with self.explained("be written"), self._alone():
            index = Index.read(self.local)
            for path in files:
                name = path.relative_to(self.local).as_posix()
                self.put(name, path)
                index.note(name, path, identity(self.fs.info(self.at(name))))
            index.write(self.local)

    def delete(self) -> None:
        """Delete the folder at the URL, and its copy.

        Raises:
            RunError: it cannot be deleted.
        """
        with self.explained("be deleted"), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.root, recursive=True)
        with explained(self.local):
            shutil.rmtree(self.local, ignore_errors=True)

    def fetch(self, depth: Depth, newest: Callable[[], str] = str) -> None:
        """Bring the copy up to date, so far as `depth` needs it.

        A copy that a training on this machine writes, or wrote last and has not wholly sent, is
        newer than what is at the URL, and stays.

        Args:
            depth: how much is needed.
            newest: tells the token of the newest claim there, "" if there is none.

        Raises:
            RunError: nothing is there, or it cannot be reached, or the copy cannot be written.
        """
        if self.is_written():
            return
        with self._alone():
            index = Index.read(self.local)
            if index.unsent:
                if index.token == newest():
                    return
                self._set_aside()
                index = Index()
            for trial in range(_TRIES):
                if self._fetch(index, depth):
                    return
                time.sleep(0.2 * trial)  # its writer was faster
        raise RunError(f"{self.url} changes faster than it can be fetched: try again later")

    def _fetch(self, index: Index, depth: Depth) -> bool:
        """Fetch once; False if what was listed is no longer there."""
        wanted = _wanted(depth)
        infos = self.infos(deep=False)
        if not infos:
            raise RunError(
                f"{self.url}: there is nothing of that name{self._nearest()} (hotlap runs lists "
                "the Runs of a folder)"
            )
        if "config.toml" not in infos:
            raise RunError(
                f"{self.url} is not a Run: it has no config.toml (hotlap runs lists them)"
            )
        pointers: dict[str, bytes | None] = {}
        if depth != "facts":  # pointers first: whatever they name is complete before they are
            pointers = {name: self.read(name) for name in _POINTERS}
            infos = self.infos()
        there = {name: info for name, info in infos.items() if wanted(name)}
        for content in pointers.values():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                folder = json.loads(content or b"{}")["checkpoint"]
                if f"checkpoints/{folder}/policy.json" not in infos:
                    return False
        for name in infos:  # a folder that is there is there, if empty
            if "/" in name:
                with explained(self.local):
                    (self.local / name.split("/")[0]).mkdir(parents=True, exist_ok=True)
        fresh = [
            name
            for name, info in there.items()
            if index.files.get(name, ("",))[0] != identity(info)
            or not index.same(name, self.local / name)
        ]
        try:
            with ThreadPoolExecutor(8) as pool:
                got = [name for name in fresh if name not in _POINTERS]
                list(pool.map(lambda name: self._get(name, None, there[name]), got))
            for name in (name for name in _POINTERS if name in fresh):
                self._get(name, pointers[name], there[name])
            for name in fresh:
                index.note(name, self.local / name, identity(there[name]))
        except _GoneError:
            return False
        for name in [name for name in index.files if name not in infos and wanted(name)]:
            with contextlib.suppress(OSError):
                (self.local / name).unlink()
            with contextlib.suppress(OSError):  # the last of a checkpoint
                (self.local / name).parent.rmdir()
            del index.files[name]
        index.write(self.local)
        return True

    def _get(self, name: str, content: bytes | None, info: Mapping[str, Any]) -> None:
        target = self.local / name
        with explained(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        # What the other side says, and what this disk says, are not the same trouble.
        with explained(target), whole(target) as draft:
            try:
                if content is None and int(info["size"]) < _LARGE:
                    content = bytes(self.fs.cat_file(self.at(name)))
                elif content is None:
                    self.fs.get_file(self.at(name), str(draft))
            except FileNotFoundError as error:
                if _code(error):
                    raise problem(self.url, error, "be read") from error
                raise _GoneError from error
            except Exception as error:
                raise problem(self.url, error, "be read") from error
            if content is not None:
                draft.write_bytes(content)
            if (changed := _changed(info)) is not None:
                os.utime(draft, (changed, changed))

    def _nearest(self) -> str:
        above, _, name = self.url.rpartition("/")
        with contextlib.suppress(HotlapError):
            if not above.endswith("/"):
                near = difflib.get_close_matches(name, Storage(above).folders(), n=1)
                return f"; did you mean {above}/{near[0]}?" if near else ""
        return ""

    def is_written(self) -> bool:
        """Say whether a training on this machine writes the copy now."""
        if fcntl is None:
            return False
        try:
            with (self.local / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def clear(self) -> None:
        """Make room for a new copy: one that was wholly sent is deleted, another is kept aside."""
        if self.local.exists() and any(self.local.iterdir()):
            if Index.read(self.local).unsent:
                self._set_aside()
            else:
                with explained(self.local):
                    shutil.rmtree(self.local)

    def _set_aside(self) -> None:
        """Rename a copy that holds what was never sent, and that somebody else has overtaken."""
        number = 1
        while (aside := self.local.with_name(f"{self.local.name}.unsent-{number}")).exists():
            number += 1
        with explained(self.local):
            self.local.rename(aside)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process or thread at a time change the copy's index."""
        if fcntl is None:
            yield
            return
        beside = self.local.with_name(f".{self.local.name}.lock")
        with explained(self.local):
            beside.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def vacant(path: Path | str, resume: str) -> tuple[Path, Storage | None]:
    """Return the directory to make something new in, of one at a URL its copy, and its storage.

    Args:
        path: directory or URL.
        resume: words that go on with what may be there, as in "a sweep with hotlap sweep --resume".

    Raises:
        RunError: something is there.
    """
    storage = Storage(path) if is_url(path) else None
    if storage is not None:
        if held := storage.infos(deep=False):
            raise RunError(
                f"{storage.url} is not empty (it holds {', '.join(sorted(held)[:3])}): choose "
                f"another place with --out, or continue {resume} {storage.url}"
            )
        storage.clear()
        path = storage.local
    path = Path(url_of(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} is {'not empty' if path.is_dir() else 'a file'}: choose another directory "
            f"with --out, or continue {resume} {path}"
        )
    return path, storage


class _GoneError(Exception):
    """What was listed is not there any more."""


def _is_inside(name: str) -> bool:
    """Say whether a name stays inside the copy; an object may be called ../anything."""
    parts = name.split("/")
    strange = "\\:" if os.name == "nt" else ""
    return CLAIMS not in parts and not any(
        part in ("", ".", "..") or any(letter in part for letter in strange) for part in parts
    )


def _wanted(depth: Depth) -> Callable[[str], bool]:
    depths: Sequence[Depth] = ("facts", "drivers", "states")
    if depth == "all":
        return lambda name: name != INDEX and name != "lock" and TEMPORARY not in name
    patterns = (_FACTS, _DRIVERS, _STATES)[: depths.index(depth) + 1]
    return lambda name: any(pattern.fullmatch(name) for pattern in patterns)


def identity(info: Mapping[str, Any]) -> str:
    """Return what differs between two contents of one name."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "sha256"):
        if info.get(key):
            return str(info[key])
    return f"{info.get('size')} {_changed(info)}"


def _changed(info: Mapping[str, Any]) -> float | None:
    """Return when a file was last changed, in seconds since 1970, if that is said."""
    for key in ("LastModified", "last_modified", "updated", "modified", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
    return None


def _file_system(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(url, "fsspec", "storage") from None
    from fsspec.registry import known_implementations

    if protocol not in fsspec.available_protocols():
        near = difflib.get_close_matches(protocol, fsspec.available_protocols(), n=1, cutoff=0.5)
        raise RunError(
            f"{url}: {protocol}:// is no kind of place that fsspec knows"
            f"{f'; did you mean {near[0]}://?' if near else ''}"
        )
    try:
        fs, root = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError:
        if protocol in ("s3", "s3a"):
            raise MissingExtraError(url, "s3fs", "storage") from None
        needs = known_implementations.get(protocol, {}).get("err", "see the pages of fsspec")
        raise RunError(f"{url}: something is not installed that fsspec needs: {needs}") from None
    except Exception as error:  # an option or a part of the URL that it does not take
        raise problem(url, error, "be opened") from error
    return fs, str(root).rstrip("/")


_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or aws sso login"
_WORDS = {
    "NoSuchBucket": "there is no such bucket: correct its name, or make it (aws s3 mb s3://NAME)",
    "InvalidBucketName": "that is no name of a bucket: small letters, digits, dots and dashes",
    "InvalidAccessKeyId": "the access key is not known there: check AWS_ACCESS_KEY_ID, or "
    "AWS_PROFILE, and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret is not that of the access key: check "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "InvalidToken": "the session token is wrong: check AWS_SESSION_TOKEN, or get a new one",
    "ExpiredToken": "the session token has expired: get a new one (aws sso login)",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    "AccessDenied": "you have no permission for that: it takes s3:ListBucket, s3:GetObject, "
    "s3:PutObject and s3:DeleteObject",
    "NoCredentialsError": f"no credentials found: set {_CREDENTIALS}",
    "PartialCredentialsError": f"half of the credentials is missing: set {_CREDENTIALS}",
    "ProfileNotFound": "there is no such profile: check AWS_PROFILE",
    "EndpointConnectionError": "cannot be reached: check the network, and AWS_ENDPOINT_URL if the "
    "bucket is not one of Amazon's",
}
_SAME = {
    "InvalidClientTokenId": "InvalidAccessKeyId",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "ParamValidationError": "InvalidBucketName",
    "ConnectTimeoutError": "EndpointConnectionError",
    "ReadTimeoutError": "EndpointConnectionError",
    "ConnectionClosedError": "EndpointConnectionError",
    "ConnectionError": "EndpointConnectionError",
    "ConnectionRefusedError": "EndpointConnectionError",
    "ConnectionResetError": "EndpointConnectionError",
    "TimeoutError": "EndpointConnectionError",
    "FSTimeoutError": "EndpointConnectionError",
    "ClientConnectorError": "EndpointConnectionError",
}


def _code(error: BaseException) -> str:
    """Return what S3, or the library that speaks to it, calls an error; "" if that is not known."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        said = response.get("Error", {}).get("Code", "") if isinstance(response, Mapping) else ""
        for code in (str(said), type(cause).__name__):
            code = _SAME.get(code, code)
            if code in _WORDS:
                return code
        cause = cause.__cause__ or cause.__context__
    return "AccessDenied" if isinstance(error, PermissionError) else ""


def is_transient(error: BaseException) -> bool:
    """Say whether an error may be over in a while, as an outage of the network is."""
    return _code(error) in ("", "EndpointConnectionError", "ExpiredToken")


def problem(url: str, error: BaseException, doing: str) -> RunError:
    """Say in a sentence what another side's error means for a user.

    Args:
        url: what was asked for.
        error: the file system's.
        doing: what could not be done, such as "be read".
    """
    code = _code(error)
    said = " ".join(str(error).split()) or type(error).__name__
    found = RunError(f"{url}: {_WORDS[code] if code else f'cannot {doing} ({said})'}")
    if code in ("", "EndpointConnectionError"):
        found.exit_code = 1
    return found
