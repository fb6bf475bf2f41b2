"""Inputs: the fingerprints of the tracks and files that a run was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from hotlap.env import EnvSettings
from hotlap.runs import Run
from hotlap.tasks.actions import MetadataActions
from hotlap.tasks.rewards import FileReward, FunctionReward
from hotlap.track import load_track

__all__ = ["changed_inputs", "fingerprints"]

_TRACKS_MAX = 64


def fingerprints(settings: EnvSettings) -> dict[str, str]:
    """Return a digest of every track and file that settings name, by what it is and its name.

    Of more than 64 tracks only the first; a generated one follows from its name.
    """
    names = [name for name in settings.track_names() if not name.startswith("generated")]
    found = {f"track {name}": load_track(name).fingerprint for name in names[:_TRACKS_MAX]}
    files = {"vehicle": settings.vehicle if settings.vehicle.endswith(".toml") else ""}
    if isinstance(settings.reward, FileReward):
        files["reward"] = settings.reward.path
    elif isinstance(settings.reward, FunctionReward):
        files["reward"] = settings.reward.function.rpartition(":")[0]
    if isinstance(settings.actions, MetadataActions):
        files["actions"] = settings.actions.path
    for what, name in files.items():
        if Path(name).is_file():
            found[f"{what} {name}"] = hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    return found


def changed_inputs(run: Run, settings: EnvSettings) -> list[str]:
    """List the inputs, such as `track mine.npy`, that are not what they were when a run began.

    What the run did not use, or did not note, is not listed.
    """
    noted = run.meta.get("inputs", {})
    if not isinstance(noted, Mapping):
        return []
    now = fingerprints(settings)
    return [name for name, digest in now.items() if noted.get(name, digest) != digest]
