"""`hotlap tracks`: what a user types, and what comes back."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotlap.cli import app
from hotlap.errors import HotlapError
from hotlap.track import load_track


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def hotlap(*words):
    done = CliRunner().invoke(app, ["tracks", *map(str, words)])
    if isinstance(done.exception, HotlapError):
        raise done.exception
    return done.stdout, done.stderr


def test_generate_writes_tracks_with_their_attribution():
    said, _ = hotlap("generate", "--seed", 7, "--count", 2, "--difficulty", 0.3, "--out", "mine")

    files = sorted(Path("mine").glob("*.npy"))
    assert len(files) == len(said.splitlines()) == 2
    for seed, file in zip((7, 8), files, strict=True):
        drawn = load_track(f"generated:seed={seed}:difficulty=0.3")
        assert load_track(file).fingerprint == drawn.fingerprint
        about = json.loads(file.with_suffix(".json").read_text())
        assert about["attribution"] == drawn.attribution
        assert f"seed={seed}" in about["attribution"]


def test_generate_reports_its_certificate_as_json():
    said, _ = hotlap("generate", "--width", 0.6, "--radius", 0.3, "--json")

    (found,) = json.loads(said)
    assert found["track"] == "generated:seed=0:difficulty=0.5:width=0.6:radius=0.3"
    assert found["width_min"] == pytest.approx(0.6, abs=0.01)
    # 0.3 m is tighter than 1.2 times the 0.42 m that DeepRacer turns in.
    assert "too tight" in found["problems"][0]


def test_generate_says_what_cannot_be():
    with pytest.raises(HotlapError, match="length=5 is too short"):
        hotlap("generate", "--length", 5)


def test_show_measures_a_track_for_a_car(tmp_path):
    said, _ = hotlap("show", "generated:seed=3", "--out", "three.png")

    assert "label: " in said
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")


def test_show_refuses_to_write_a_picture_under_another_ending(tmp_path):
    with pytest.raises(HotlapError, match=r"picture\.jpg is no picture.*\.png"):
        hotlap("show", "oval", "--out", "picture.jpg")

    assert not (tmp_path / "picture.jpg").exists()
