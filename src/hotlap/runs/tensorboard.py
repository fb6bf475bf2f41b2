"""EventFiles: rows of metrics as TensorBoard reads them. Writing needs its package."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

from hotlap.files import explained, json_lines, replace

__all__ = ["EventFiles"]


class EventFiles:
    """The folder of event files of one file of JSON lines. One process writes it.

    Args:
        rows: the file of metrics, a row a line.
        folder: of the event files; made if missing.
    """

    def __init__(self, rows: Path, folder: Path) -> None:
        self._rows, self._folder = rows, folder
        self._file: Path | None = None

    def sync(self, began: float) -> None:
        """Write the rows that came since the last call.

        Args:
            began: when `seconds` of the rows was 0, in seconds since 1970.

        Raises:
            ImportError: the tensorboard package is missing, or at odds with the installed protobuf.
            RunError: the disk is full or the like.
        """
        try:
            from tensorboard.compat.proto import (  # type: ignore[import-untyped]
                event_pb2,
                summary_pb2,
            )
        except Exception as error:
            raise ImportError(str(error)) from error
        folder = self._folder
        with explained(folder):
            folder.mkdir(exist_ok=True)
        synced = folder / "synced.json"
        offset = _offset(synced)
        try:
            with self._rows.open("rb") as file:
                file.seek(offset)
                fresh = file.read()
        except FileNotFoundError:
            return
        fresh = fresh[: fresh.rfind(b"\n") + 1]
        if not fresh:
            return
        records: list[Any] = []
        if self._file is None:
            number = sum("tfevents" in entry.name for entry in folder.iterdir())
            self._file = folder / f"events.out.tfevents.{int(time.time()):010d}.{number:04d}.hotlap"
            records.append(event_pb2.Event(wall_time=began, file_version="brain.Event:2"))
        first = len(records) == 1 and offset > 0
        for row in json_lines(fresh):
            steps = int(row.get("steps", row.get("iteration", 0)))
            wall = began + (row.get("seconds") or 0.0)
            if first:  # a resumed Run: TensorBoard forgets the points from here on
                log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                records.append(event_pb2.Event(wall_time=wall, step=steps, session_log=log))
                first = False
            values = [
                summary_pb2.Summary.Value(tag=tag, simple_value=value)
                for tag, value in row.items()
                if isinstance(value, int | float) and tag not in ("steps", "iteration")
            ]
            summary = summary_pb2.Summary(value=values)
            records.append(event_pb2.Event(wall_time=wall, step=steps, summary=summary))
        with explained(self._file), self._file.open("ab") as file:
            file.write(b"".join(_record(record.SerializeToString()) for record in records))
        with explained(synced):
            replace(synced, json.dumps({"offset": offset + len(fresh)}).encode())


def _offset(synced: Path) -> int:
    """Return how many bytes of the rows are written; a damaged note means none, and all again."""
    try:
        return int(json.loads(synced.read_bytes())["offset"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC = _crc_table()


def _checksum(content: bytes) -> bytes:
    """CRC-32C, turned and shifted as TensorFlow's record files want it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(content: bytes) -> bytes:
    """Frame one record; by hand, as tensorboard's own writer looks for TensorFlow first."""
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)
