"""The user's own collection: tracks that were added, and whose work they are."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np

from hotlap.courses import COURSES
from hotlap.errors import TrackError
from hotlap.track import NAME, Track, attribution_of, collection_folder, read_track

__all__ = ["add_track", "add_tracks", "save_track"]


def add_track(path: str | Path, name: str | None = None, attribution: str = "") -> Track:
    """Check a file of waypoints and copy it into the user's collection.

    The collection is the folder `tracks` in `$HOTLAP_HOME`. Adding the same course twice under one
    name changes nothing but its attribution.

    Args:
        path: the file.
        name: what to call the track; the file's own name without its ending if None.
        attribution: who made it and under which licence; kept in a `.json` beside the copy.

    Raises:
        TrackError: the file is no track, the name cannot be used, or it is taken.
    """
    path = Path(path)
    name = path.stem if name is None else name
    if not NAME.fullmatch(name):
        raise TrackError(
            f"{name!r} cannot be the name of a track; allowed are letters, digits, '_', '-' and "
            "'.', with a letter or digit first. Choose another name."
        )
    if name in COURSES or name == "generated":
        raise TrackError(
            f"{path}: {name!r} is a built-in track, which cannot be replaced. Choose another name."
        )
    track = read_track(path, name, attribution or attribution_of(path))
    own = collection_folder() / f"{name}.npy"
    if own.exists() and read_track(own, name, "").fingerprint != track.fingerprint:
        raise TrackError(
            f"{path}: another track called {name!r} was added before ({own}); choose another name, "
            "or delete that file first."
        )
    save_track(track, own, source=path.name)
    return track


def add_tracks(
    folder: str | Path, attribution: str = ""
) -> tuple[list[str], list[tuple[Path, TrackError]]]:
    """Add every `.npy` file of a folder; return the names added, and the files refused and why.

    Raises:
        TrackError: there is no such folder, or no `.npy` file in it.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if not paths:
        found = "has no .npy file in it" if folder.is_dir() else "is not a folder"
        raise TrackError(f"{folder}: {found}; give a folder with a .npy file for each track.")
    added: list[str] = []
    refused: list[tuple[Path, TrackError]] = []
    for path in paths:
        try:
            added.append(add_track(path, attribution=attribution).name)
        except TrackError as error:
            refused.append((path, error))
    return added, refused


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
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise TrackError(
            f"{path}: cannot be written ({error.strerror}). Make the folder writable, or choose "
            "another; your collection is in HOTLAP_HOME."
        ) from None
