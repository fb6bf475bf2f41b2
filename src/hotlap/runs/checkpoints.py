"""Checkpoints: what a training can stop at and go on from, whenever it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.numpy import load_file

from hotlap.errors import RunError
from hotlap.files import TEMPORARY, explained, sync, write
from hotlap.runs.documents import document, entries, plain, put, tensors
from hotlap.types import Array

__all__ = ["Checkpoints", "Part"]

Part: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Array]]
"""A JSON document and named arrays: all that a policy or a training state is on disk."""

_ASIDE = ".old-"


class Checkpoints:
    """The checkpoints of a Run, and the pieces of replay that the last one needs.

    A checkpoint is made under another name, forced to the disk, and then renamed. Whoever writes
    has claimed the Run before.

    Args:
        path: the Run's directory.
        place: how people call it.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._place = place
        self._folder, self._replay = path / "checkpoints", path / "replay"

    def write_segment(self, first: int, arrays: Mapping[str, Array]) -> None:
        """Write a piece of what a learner remembers; see `Run.write_segment`."""
        with explained(self._replay):
            self._replay.mkdir(exist_ok=True)
        put(self._replay / f"{first:012d}.safetensors", tensors("replay", arrays))

    def read_segment(self, first: int) -> dict[str, Array]:
        """Read a piece of what a learner remembered; see `Run.read_segment`."""
        path = self._replay / f"{first:012d}.safetensors"
        try:
            return load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise RunError(
                f"{path} is missing or damaged ({error}): the training cannot continue exactly. "
                f"Start anew from its driver with: hotlap train --from {self._place}"
            ) from None

    def write(
        self,
        steps: int,
        *,
        policy: Part,
        state: Part,
        best: bool,
        keep: int,
        segments: Sequence[int],
        logs: Sequence[int],
    ) -> Path:
        """Write a complete one and delete old ones; see `Run.write_checkpoint`.

        `logs` are the files, by their numbers, whose lines have to be on the disk before it.
        """
        target = self._folder / f"{steps:012d}"
        temporary = self._folder / f"{TEMPORARY}{target.name}"
        # From the large to the small: what can fail fails before anything is replaced.
        try:
            with explained(temporary):
                temporary.mkdir(parents=True)
            if segments:
                state = ({**state[0], "segments": list(segments)}, state[1])
            for name, (facts, arrays) in (("policy", policy), ("state", state)):
                for ending, content in (
                    ("safetensors", tensors(name, arrays)),
                    ("json", document(plain(facts))),
                ):
                    file = temporary / f"{name}.{ending}"
                    with explained(file):
                        write(file, content)
            with explained(temporary):
                sync(temporary)
                for opened in logs:
                    os.fsync(opened)
                if target.exists():
                    aside = self._folder / f"{_ASIDE}{target.name}"
                    shutil.rmtree(aside, ignore_errors=True)
                    target.rename(aside)
                temporary.rename(target)
                sync(self._folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            self.clear()
            raise
        # `last` comes after `best`: killed between them, the Run resumes from the checkpoint
        # before, reaches this one again and calls it best again.
        pointer = document({"steps": steps, "checkpoint": target.name})
        if best:
            put(self._folder / "best", pointer)
        put(self._folder / "last", pointer)
        self._forget_segments(segments)
        spared = {*self.steps()[-keep:], self._pointed("best"), self._pointed("last")}
        for old in set(self.steps()) - spared:
            # Out of sight in one move, so that no reader meets half a checkpoint.
            gone = self._folder / f"{TEMPORARY}{old:012d}"
            with contextlib.suppress(OSError):
                (self._folder / f"{old:012d}").rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        shutil.rmtree(self._folder / f"{_ASIDE}{target.name}", ignore_errors=True)
        return target

    def steps(self) -> list[int]:
        """Return the steps of the complete ones, oldest first."""
        # An aside copy counts: the writer was killed while it replaced a checkpoint.
        names = {name.removeprefix(_ASIDE) for name in entries(self._folder)}
        return sorted(int(name) for name in names if name.isdigit())

    def read(self, name: str, which: str | int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Read a part, `policy` or `state`, of one; see `Run.read_policy`."""
        for _ in range(8):  # the writer may delete a checkpoint between the look and the read
            folder = self._find(which)
            try:
                return (
                    json.loads((folder / f"{name}.json").read_bytes()),
                    load_file(folder / f"{name}.safetensors"),
                )
            except FileNotFoundError:
                time.sleep(0.01)
            except (OSError, ValueError, SafetensorError) as error:
                raise RunError(
                    f"{folder} is damaged ({error}): choose another with --checkpoint; there are "
                    f"{', '.join(map(str, self.steps()))}"
                ) from None
        raise RunError(f"{folder} lacks {name}.json or {name}.safetensors")

    def clear(self) -> None:
        """Undo what a killed writer left: temporaries, half a replacement, what came after last."""
        last = self._pointed("last")
        if last is None:
            self._forget_segments(())
        if not self._folder.is_dir():
            return
        for entry in list(self._folder.iterdir()):
            steps = int(entry.name) if entry.name.isdigit() else -1
            if entry.name.startswith(_ASIDE):
                target = self._folder / entry.name.removeprefix(_ASIDE)
                if not target.exists():
                    entry.rename(target)
                    continue
            elif not entry.name.startswith(TEMPORARY) and (
                last is None or steps <= last or steps == self._pointed("best")
            ):
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if last is not None and self._replay.is_dir():
            with contextlib.suppress(OSError, ValueError):  # a damaged one is told when it is read
                facts = json.loads((self._find("last") / "state.json").read_bytes())
                self._forget_segments(facts.get("segments", ()))

    def _find(self, which: str | int) -> Path:
        there = self.steps()
        if not there:
            raise RunError(
                f"{self._place} has no checkpoint yet: wait for the first, or train longer"
            )
        steps = self._pointed(which) if isinstance(which, str) else which
        if which == "best" and steps is None:
            steps = self._pointed("last")
        if isinstance(which, str) and steps not in there:
            steps = there[-1]
        if steps not in there:
            raise RunError(
                f"{self._place} has no checkpoint {which!r}: choose best, last or one of "
                f"{', '.join(map(str, there))}"
            )
        folder = self._folder / f"{steps:012d}"
        return folder if folder.exists() else folder.with_name(f"{_ASIDE}{folder.name}")

    def _pointed(self, which: str) -> int | None:
        if which not in ("best", "last"):
            raise RunError(f"no checkpoint {which!r}: choose best, last or a number of steps")
        try:
            steps = json.loads((self._folder / which).read_bytes())["steps"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return steps if isinstance(steps, int) else None

    def _forget_segments(self, needed: Sequence[int]) -> None:
        names = {f"{first:012d}.safetensors" for first in needed}
        for name in set(entries(self._replay)) - names:
            with contextlib.suppress(OSError):
                (self._replay / name).unlink()
