"""A file is there whole or not at all."""

import errno
import os

import pytest

from hotlap.errors import RunError
from hotlap.files import append_line, explained, json_lines, replace, whole


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a long old content")

    replace(path, b"new")

    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_until_it_is_whole_a_reader_sees_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    with whole(path) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_what_fails_halfway_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    with pytest.raises(ZeroDivisionError), whole(path) as draft:  # noqa: PT012
        draft.write_bytes(b"half")
        raise ZeroDivisionError

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_line_after_a_killed_writers_half_line_stands_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2')
    file = os.open(path, os.O_RDWR | os.O_APPEND)

    append_line(file, b'{"n": 3}', alone=True)
    append_line(file, b'{"n": 4}')
    os.close(file)

    assert path.read_bytes() == b'{"n": 1}\n{"n": 2\n{"n": 3}\n{"n": 4}\n'
    assert [row["n"] for row in json_lines(path.read_bytes())] == [1, 3, 4]


def test_a_line_that_does_not_fit_leaves_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"first\n")
    file, write = os.open(path, os.O_RDWR | os.O_APPEND), os.write

    def full(file, content):
        if len(content) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append_line(file, b"second")
    os.close(file)

    assert path.read_bytes() == b"first\n"


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [
        (errno.ENOSPC, "", "x: the disk is full. Nothing already written is harmed: free some "),
        (errno.EACCES, "", "x: cannot be written (denied)"),
        (errno.EACCES, "the film", "x: the film cannot be written (denied)"),
        (errno.ENOSPC, "the film", "x: the film cannot be written (denied)"),
    ],
)
def test_what_the_system_says_becomes_a_sentence(number, what, said):
    with pytest.raises(RunError) as told, explained("x", what):
        raise OSError(number, "denied")

    assert str(told.value).startswith(said)
    assert told.value.exit_code == 1
