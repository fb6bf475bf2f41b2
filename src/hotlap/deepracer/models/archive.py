"""The files that DeepRacer's models come in: archives, folders, frozen graphs, checkpoints.

Source: aws-deepracer-community/deepracer-custom-car, model_loader_node.py and
model_optimizer_pkg/constants.py, read for what the car accepts; deepracer-simapp,
markov/boto/s3/constants.py, for where a training keeps them.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hotlap.deepracer.files.documents import Document
from hotlap.deepracer.files.metadata import Metadata
from hotlap.deepracer.models.checkpoint import read_checkpoint
from hotlap.deepracer.models.frozen import read_constants
from hotlap.errors import ConfigError, RunError
from hotlap.types import Array

__all__ = [
    "METADATA",
    "OldModel",
    "action_space",
    "pack",
    "read_model",
]

METADATA = "model_metadata.json"
_MEMBER = "agent/model.pb"
_LARGEST = 1 << 29
"""A network of more bytes is none of theirs."""


@dataclass(frozen=True)
class OldModel:
    """A model that DeepRacer trained."""

    weights: Mapping[str, Array]
    """By TensorFlow's names."""
    metadata: Metadata
    notes: tuple[str, ...]
    """What was read, a sentence each."""


def action_space(
    pairs: Sequence[tuple[float, float]] | None, ranges: tuple[float, float, float, float]
) -> dict[str, Any]:
    """Return what `model_metadata.json` says of actions.

    Args:
        pairs: (steering [degrees], speed [m/s]) of each choice; None for continuous actions.
        ranges: of these: least and greatest steering [degrees], then least and greatest speed.
    """
    if pairs is None:
        low, high, slow, fast = ranges
        space: Any = {
            "steering_angle": {"high": high, "low": low},
            "speed": {"high": fast, "low": slow},
        }
        return {"action_space": space, "action_space_type": "continuous"}
    space = [
        {"steering_angle": angle, "speed": speed, "index": i}
        for i, (angle, speed) in enumerate(pairs)
    ]
    return {"action_space": space, "action_space_type": "discrete"}


def pack(graph: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Return the `model.tar.gz` that the car loads; the same contents make the same bytes."""
    unzipped = io.BytesIO()
    with tarfile.open(fileobj=unzipped, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        text = (json.dumps(metadata, indent=2) + "\n").encode()
        for name, content in ((_MEMBER, graph), (METADATA, text)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(unzipped.getvalue(), 1, mtime=0)  # weights hardly shrink


def read_model(path: str | Path) -> OldModel:
    """Read a model: `model.tar.gz`, a `.pb` file, a checkpoint, or a folder that holds one of them.

    Nothing is unpacked onto the disk. In a folder a checkpoint is preferred to a `.pb`, as it also
    holds the value network; the one that DeepRacer called best, else the last one.

    Raises:
        RunError: there is no model, it is damaged, or it is not DeepRacer's.
        ConfigError: its `model_metadata.json` is missing or wrong.
        MissingExtraError: tensorboard is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if path.name.endswith(".ckpt") or path.suffix == ".index" or ".ckpt." in path.name:
        return _from_checkpoint(path, path.parent)
    if not path.is_file():
        raise RunError(
            f"{path}: no such file or folder; give a model.tar.gz, a .pb file, a checkpoint "
            "(NAME.ckpt.index), or the folder of a model"
        )
    if path.suffix == ".pb":
        weights = read_constants(_content(path), str(path))
        return OldModel(weights, _metadata_near(path.parent, path), (f"weights: {path}",))
    return _from_archive(path)


def _from_archive(path: Path) -> OldModel:
    with _archive(path) as members:
        graphs = [name for name in members if name.endswith(".pb")]
        chosen = _MEMBER if _MEMBER in graphs else graphs[0] if len(graphs) == 1 else None
        if chosen is None:
            inside = ", ".join(sorted(members)[:5]) or "nothing"
            raise RunError(
                f"{path}: holds no {_MEMBER} (it holds {inside}); download the car's model once "
                "more, or unpack the archive and give the folder with the checkpoint"
            )
        documents = [name for name in members if PurePosixPath(name).name == METADATA]
        if not documents:
            raise ConfigError(
                f"{path}: holds no {METADATA}, which says what the car sees and does; put it "
                f"beside the model in a folder, and give the folder"
            )
        weights = read_constants(members[chosen](), f"{path}: {chosen}")
        metadata = _parsed(members[documents[0]](), f"{path}: {documents[0]}")
    return OldModel(weights, metadata, (f"weights: {path}: {chosen}",))


@contextmanager
def _archive(path: Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Open a tar file; yield how to read each file in it, by name."""
    try:
        with tarfile.open(path) as archive:
            found: dict[str, Callable[[], bytes]] = {}
            for member in archive:
                name = str(PurePosixPath(member.name))
                if member.isfile() and ".." not in PurePosixPath(name).parts:
                    if member.size > _LARGEST:
                        raise RunError(
                            f"{path}: {name} has {member.size:,} bytes; a DeepRacer model has a "
                            "few million, so this is another archive"
                        )
                    found[name] = lambda member=member: _extracted(archive, member)  # type: ignore[misc]
            yield found
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        why = str(error).splitlines()[0].rstrip(":")  # some name every format that it is not
        raise RunError(f"{path}: not a tar archive, or cut off ({why}); copy it again") from None


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # it is a file
    return file.read()


def _from_folder(folder: Path) -> OldModel:
    if (folder / "meta.json").is_file() and (folder / "config.toml").is_file():
        raise RunError(f"{folder} is a Run of hotlap already; use it as it is")
    for place in (folder, folder / "model"):
        named = _named_checkpoint(place)
        if named is not None:
            return _from_checkpoint(place / named, folder)
    graphs = [folder / _MEMBER, folder / "model.pb", folder / "model" / "model.pb"]
    graphs = [graph for graph in graphs if graph.is_file()]
    if not graphs:
        numbered = [*folder.glob("model_*.pb"), *folder.glob("model/model_*.pb")]
        graphs = sorted(numbered, key=lambda graph: _number(graph.stem), reverse=True)
    if graphs:
        weights = read_constants(_content(graphs[0]), str(graphs[0]))
        return OldModel(weights, _metadata_near(folder, graphs[0]), (f"weights: {graphs[0]}",))
    archives = sorted(folder.glob("*.tar.gz"))
    if len(archives) == 1:
        return _from_archive(archives[0])
    raise RunError(
        f"{folder}: no model in it: neither a checkpoint (NAME.ckpt.index and .data-...), nor "
        f"{_MEMBER}, model.pb or model_N.pb, nor one .tar.gz"
    )


def _named_checkpoint(place: Path) -> str | None:
    """Return the name of a folder's best checkpoint, if it has any."""
    there = {file.name.removesuffix(".index") for file in place.glob("*.ckpt.index")}
    if not there:
        return None
    if (place / "deepracer_checkpoints.json").is_file():
        said = Document.of_json(place / "deepracer_checkpoints.json").values
        for which in ("best_checkpoint", "last_checkpoint"):
            entry = said.get(which)
            if isinstance(entry, dict) and entry.get("name") in there:
                return str(entry["name"])
    if (place / ".coach_checkpoint").is_file():
        name = (place / ".coach_checkpoint").read_text(errors="replace").strip()
        if name in there:
            return name
    return max(there, key=_number)


def _number(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[0]) if numbers else -1


def _from_checkpoint(path: Path, folder: Path) -> OldModel:
    name = re.sub(r"\.ckpt\..*$", ".ckpt", path.name)
    prefix = path.with_name(name.removesuffix(".index"))
    weights = read_checkpoint(prefix)
    return OldModel(weights, _metadata_near(folder, prefix), (f"weights: {prefix}",))


def _metadata_near(folder: Path, model: Path) -> Metadata:
    """Read the metadata that belong to a model in a folder."""
    near = (folder, model.parent, folder / "model", folder.parent, folder / "custom_files")
    for place in near:
        if (place / METADATA).is_file():
            return Metadata.read(place / METADATA)
    raise ConfigError(
        f"{model}: there is no {METADATA} beside it, which says what the car sees and does; put "
        f"the model's own {METADATA} into {folder}"
    )


def _parsed(content: bytes, said: str) -> Metadata:
    """Read metadata that are not a file of their own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / METADATA
        place.write_bytes(content)
        try:
            return Metadata.read(place)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(place), said)) from None


def _content(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST:
        raise RunError(f"{path}: has {path.stat().st_size:,} bytes; a DeepRacer model has fewer")
    return path.read_bytes()
