"""TensorFlow checkpoints, read without TensorFlow: `NAME.index`, a sorted table, and raw numbers.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/format (a LevelDB table),
read for the layout: blocks of entries whose keys share what they have in common with the one
before; a footer says where the block is that lists the others; values are `BundleEntryProto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hotlap.errors import RunError
from hotlap.types import Array

__all__ = ["read_checkpoint"]

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5
_FLOAT = 1


def read_checkpoint(prefix: Path) -> dict[str, Array]:
    """Read the float32 variables of a checkpoint, by name.

    Args:
        prefix: its files are `prefix.index` and `prefix.data-00000-of-00001`.

    Raises:
        RunError: a file is missing, is cut off, or is something else.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    for file in (index, data):
        if not file.is_file():
            raise RunError(f"{file}: no such file; a checkpoint is this file and its .index")
    numbers = data.read_bytes()
    found = {}
    try:
        for key, value in _table(index.read_bytes()):
            if not key:  # the header of all
                if _fields(value).get(1, [1])[-1] != 1:
                    raise RunError(f"{prefix}: in several pieces; only checkpoints of one are read")
                continue
            entry = _fields(value)
            if entry.get(1, [0])[-1] != _FLOAT or 7 in entry:
                continue
            shape = _shape(entry.get(2, [b""])[-1])
            at, size = (int(entry.get(field, [0])[-1]) for field in (4, 5))
            if size != 4 * int(np.prod(shape)) or at + size > len(numbers):
                raise ValueError(key)
            tensor = np.frombuffer(numbers, "<f4", size // 4, at)
            found[key.decode()] = tensor.astype(np.float32).reshape(shape)
    except (ValueError, IndexError, TypeError, struct.error):
        raise RunError(
            f"{prefix}: not a TensorFlow checkpoint, or cut off; copy {index.name} and {data.name} "
            "again"
        ) from None
    return found


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a sorted table."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise ValueError("no table")
    at = len(content) - _FOOTER
    for _ in range(2):  # where the block of blocks about it is: not needed
        _, at = _varint(content, at)
    start, at = _varint(content, at)
    size, at = _varint(content, at)
    for _, handle in _block(content, start, size):
        place, at = _varint(handle, 0)
        length, _ = _varint(handle, at)
        yield from _block(content, place, length)


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if start + size + _TRAILER > len(content) or content[start + size] != 0:
        raise ValueError("beyond the end, or compressed")
    block = content[start : start + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end, at, key = size - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte; return it, and where the next thing begins."""
    found = shift = 0
    while True:
        byte = content[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return found, at
        if shift > 63:
            raise ValueError("no number")


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Read the fields of a protobuf message by number."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        elif tag & 7 == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("no message")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _shape(message: int | bytes) -> tuple[int, ...]:
    if not isinstance(message, bytes):
        raise ValueError("no shape")
    sizes = []
    for dim in _fields(message).get(2, []):
        if not isinstance(dim, bytes):
            raise ValueError("no shape")
        size = _fields(dim).get(1, [0])[-1]
        sizes.append(int(size))
    return tuple(sizes)
