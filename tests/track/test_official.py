"""Official tracks: every id and name of the league leads to a copy, or to how to get one."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from hotlap.deepracer.files.folder import read_folder
from hotlap.errors import TrackError
from hotlap.track import known_name, load_track
from hotlap.track.collection import add_tracks
from hotlap.track.official import _RACES, _TITLES, OFFICIAL, official_id

REAL = Path(__file__).parents[3] / "shared" / "data" / "tracks"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the simulator application, as far as tracks go: the oval under every id."""
    routes = tmp_path / "simapp" / "bundle" / "deepracer_simulation_environment" / "share"
    routes = routes / "deepracer_simulation_environment" / "routes"
    routes.mkdir(parents=True)
    for name in OFFICIAL:
        np.save(routes / f"{name}.npy", load_track("oval").waypoints)
    (tmp_path / "simapp" / "LICENSE").write_text("Apache License\n")
    (tmp_path / "simapp" / "tracks.csv").write_text("name,length\nreinvent_base,17.71\n")
    (tmp_path / "simapp" / "config.yaml").write_text("image: none\n")
    return tmp_path / "simapp"


def test_the_table_has_as_many_files_and_names_as_the_simulator_and_the_console():
    # simapp 6.0.5 has 127 routes; the console's list had 62 tracks
    assert len(OFFICIAL) - len(_RACES) == 127
    assert sum(bool(title) for title, _ in _TITLES.values()) == 62


def test_a_checkout_brings_every_id_and_name(checkout):
    added, refused = add_tracks(checkout)

    assert not refused  # neither its tables nor its settings were taken for tracks
    assert set(added) == set(OFFICIAL)
    for name, title in OFFICIAL.items():
        assert known_name(name) == name
        if name in _TITLES and title:
            assert known_name(title) == name
    assert load_track("Monaco").attribution == "from simapp, LICENSE: Apache License"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("re:Invent 2018", "reinvent_base"),
        ("Reinvent Base", "reinvent_base"),
        ("reinvent_base.npy", "reinvent_base"),
        ("OVAL_TRACK", "Oval_track"),
        ("2022 re:Invent Championship", "2022_reinvent_champ_ccw"),
        ("2022_reinvent_champ", "2022_reinvent_champ_ccw"),
        ("2022_reinvent_champ_cw", "2022_reinvent_champ_cw"),
        ("Asia Pacific Bay Loop - Buildings", "Singapore_building"),
        ("reInvent2019_wide_ccw", "reInvent2019_wide_ccw"),
        ("oval", None),  # a course of our own
        ("", None),
    ],
)
def test_an_id_and_a_name_are_known_in_any_spelling(word, name):
    assert official_id(word) == name


@pytest.mark.skipif(not REAL.is_dir(), reason="needs DeepRacer's arrays, which are not ours")
@pytest.mark.parametrize(
    ("word", "length"),
    # lengths of the polylines in the files, as the reference of this project measured them
    [("reinvent_base", 17.71), ("re:Invent 2018", 17.71), ("Oval Track", 19.55), ("albert", 51.39)],
)
def test_real_arrays_are_found_by_their_names(word, length, tmp_path):
    routes = tmp_path / "simapp" / "bundle" / "routes"
    shutil.copytree(REAL, routes, ignore=lambda _, names: [n for n in names if "json" in n])

    add_tracks(tmp_path / "simapp")

    assert load_track(word).length == pytest.approx(length, rel=2e-3)


def test_an_official_track_that_is_not_there_is_told_how_to_come_by():
    with pytest.raises(TrackError) as caught:
        load_track("re:Invent 2018")

    said = str(caught.value)
    assert "official track reinvent_base (re:Invent 2018)" in said
    assert "hotlap tracks add CHECKOUT" in said


def test_of_a_variant_that_is_not_there_the_other_one_is_offered(tmp_path):
    np.save(tmp_path / "Vegas_track.npy", load_track("oval").waypoints)
    np.save(tmp_path / "arctic_open.npy", load_track("oval").waypoints)
    add_tracks(tmp_path)

    with pytest.raises(
        TrackError, match=r"You have arctic_open, the same course; start\.direction"
    ):
        load_track("arctic_open_cw")
    with pytest.raises(TrackError, match=r"reinvent_wood: (?!.*You have)"):
        load_track("reinvent_wood")


def test_a_folder_s_world_may_be_called_as_the_console_called_it(tmp_path):
    np.save(tmp_path / "reinvent_base.npy", load_track("oval").waypoints)
    add_tracks(tmp_path)
    place = tmp_path / "racer"
    place.mkdir()
    (place / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
    (place / "run.env").write_text('DR_WORLD_NAME="re:Invent 2018"\n')

    assert read_folder(place).settings["track"] == "reinvent_base"


def test_a_race_that_no_simulator_had_is_said_to_be_one():
    with pytest.raises(TrackError, match="no simulator application had it"):
        load_track("H_track")
