"""The user's own collection: tracks that were added, and whose work they are."""

from __future__ import annotations

import io
import json
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import numpy as np

from hotlap.errors import HotlapError, MissingExtraError, TrackError
from hotlap.files import replace
from hotlap.track import NAME, Track, attribution_of, collection_folder, read_track
from hotlap.track.courses import COURSES
from hotlap.track.formats import MAPS, TABLES, is_map
from hotlap.track.official import OFFICIAL

__all__ = ["add_track", "add_tracks", "add_url", "save_track"]

_BYTES_MAX = 64 * 2**20


def add_track(
    path: str | Path, name: str | None = None, attribution: str = "", source: str = ""
) -> Track:
    """Check a file of waypoints, a table or a map, and copy it into the user's collection.

    The collection is the folder `tracks` in `$HOTLAP_HOME`. Adding the same course twice under one
    name changes nothing but its attribution.

    Args:
        path: the file.
        name: what to call the track; the file's own name without its ending if None.
        attribution: who made it and under which licence; kept in a `.json` beside the copy. If
            empty, what is found in a `.json` or in a licence beside the file.
        source: where the file came from; its name if empty.

    Raises:
        TrackError: the file is no track, the name cannot be used, or it is taken.
    """
    path = Path(path)
    name = _name_of(path) if name is None else name
    if not NAME.fullmatch(name):
        raise TrackError(
            f"{name!r} cannot be the name of a track; allowed are letters, digits, '_', '-' and "
            "'.', with a letter or digit first. Choose another name."
        )
    if name in COURSES or name == "generated":
        raise TrackError(
            f"{path}: {name!r} is a built-in track, which cannot be replaced. Choose another name."
        )
    track = read_track(path, name, attribution or attribution_of(path) or _licence(path))
    own = collection_folder() / f"{name}.npy"
    if own.exists() and read_track(own, name, "").fingerprint != track.fingerprint:
        raise TrackError(
            f"{path}: another track called {name!r} was added before ({own}); choose another name, "
            "or delete that file first."
        )
    save_track(track, own, source=source or path.name)
    return track


def add_tracks(
    folder: str | Path, attribution: str = ""
) -> tuple[list[str], list[tuple[Path, HotlapError]]]:
    """Add every track file in a folder and in those below it.

    Racing lines and YAML files that are no maps are passed over, and so is the map of a course
    whose centre line lies beside it as a table; and of DeepRacer's repositories all but the arrays.

    Returns:
        The names added, and the files refused and why.

    Raises:
        TrackError: there is no such folder, or no track file in it.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if _is_candidate(path))
    if any(path.suffix == ".npy" and path.stem in OFFICIAL for path in paths):
        paths = [path for path in paths if path.suffix == ".npy"]
    tables = {(path.parent, _name_of(path)) for path in paths if path.suffix.lower() not in MAPS}
    paths = [
        path
        for path in paths
        if path.suffix.lower() not in MAPS or (path.parent, _name_of(path)) not in tables
    ]
    if not paths:
        found = "has no track in it" if folder.is_dir() else "is not a folder"
        raise TrackError(
            f"{folder}: {found}; give a folder with a .npy, .csv or .yaml file for each track."
        )
    added: list[str] = []
    refused: list[tuple[Path, HotlapError]] = []
    for path in paths:
        try:
            whose = (
                attribution or attribution_of(path) or _licence(path) or _licence(folder / "any")
            )
            added.append(add_track(path, attribution=whose).name)
        except (TrackError, MissingExtraError) as error:
            refused.append((path, error))
    return added, refused


def add_url(url: str, name: str | None = None, attribution: str = "", wait: float = 30.0) -> Track:
    """Fetch a `.npy` or `.csv` file and add it; its address is kept as where it came from.

    Args:
        url: address that begins with http:// or https://.
        name: what to call the track; the file's own name without its ending if None.
        attribution: whose work it is; the address if empty.
        wait: longest silence of the server [s].

    Raises:
        TrackError: the address cannot be read, holds more than 64 MiB, or holds no track.
    """
    file = PurePosixPath(unquote(urlsplit(url).path)).name
    if Path(file).suffix.lower() not in (".npy", *TABLES):
        raise TrackError(
            f"{url}: ends in no .npy or .csv file; give the address of the file itself, or fetch a "
            "folder by other means and add that."
        )
    try:
        with urlopen(Request(url, headers={"User-Agent": "hotlap"}), timeout=wait) as answer:
            data = answer.read(_BYTES_MAX + 1)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TrackError(
            f"{url}: cannot be fetched ({reason}; waited up to {wait:g} s). Check the address and "
            "the network."
        ) from None
    if len(data) > _BYTES_MAX:
        raise TrackError(f"{url}: holds more than {_BYTES_MAX >> 20} MiB, so no track.")
    with TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(data)
        try:
            return add_track(path, name, attribution or f"from {url}", source=url)
        except TrackError as error:
            raise TrackError(str(error).replace(str(path), url)) from None


def _is_candidate(path: Path) -> bool:
    ending = path.suffix.lower()
    if not path.is_file() or path.name.startswith("."):
        return False
    if ending in MAPS:
        return is_map(path)
    return ending == ".npy" or (ending == ".csv" and "raceline" not in path.stem.lower())


def _name_of(path: Path) -> str:
    """Return a track's name: the file's, without what only says which part of a track it is."""
    return re.sub(r"(_centerline|_map)$", "", path.stem)


def _licence(path: Path) -> str:
    """Return the first line of the licence beside a file or up to three folders above it."""
    for folder in list(path.absolute().parents)[:4]:
        for file in sorted([*folder.glob("LICEN[CS]E*"), *folder.glob("COPYING*")]):
            lines = file.read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
            first = next((line.strip() for line in lines if line.strip()), "")
            return f"from {folder.name}, {file.name}: {first[:80]}"
    return ""


def save_track(track: Track, path: str | Path, source: str = "") -> Path:
    """Write a track as a `.npy` file of waypoints, with a `.json` beside it of whose work it is.

    Raises:
        TrackError: the file cannot be written.
    """
    path = Path(path)
    array = io.BytesIO()
    np.lib.format.write_array(array, track.waypoints, allow_pickle=False)
    about = {
        "attribution": track.attribution,
        "source": source or track.name,
        "fingerprint": track.fingerprint,
        "length": round(track.length, 3),
        "width": round(track.width, 3),
    }
    # The array comes last: a track exists once its array does.
    _write(path.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode())
    _write(path, array.getvalue())
    return path


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data)
    except OSError as error:
        raise TrackError(
            f"{path}: cannot be written ({error.strerror}). Make the folder writable, or choose "
            "another; your collection is in HOTLAP_HOME."
        ) from None
