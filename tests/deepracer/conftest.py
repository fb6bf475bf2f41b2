"""What tests of reward files need: a track, and a file."""

import pytest

from hotlap.track import load_track


@pytest.fixture(scope="module")
def track():
    return load_track("oval")


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "reward_function.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
