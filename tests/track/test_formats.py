"""Tracks in the formats of others: what is read is the course that was written."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from shapely import LinearRing

from hotlap.errors import TrackError
from hotlap.track import load_track
from hotlap.track.collection import add_track, add_tracks, add_url
from hotlap.track.formats import read_table

ANGLE = np.arange(0, 2 * np.pi, 2 * np.pi / 90)
RING = 10.0 * np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1)
TUM = "# x_m,y_m,w_tr_right_m,w_tr_left_m\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "tracks"


def table(points=RING, right=1.5, left=1.0, head=TUM, by=","):
    return head + "".join(by.join(map(str, (x, y, right, left))) + "\n" for x, y in points)


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def map_of(folder, *, negate=False, gap=0, name="room_map", extra=""):
    """Draw a ring of 10 m, 2 m wide, at 5 cm a pixel, its middle at (2, 2)."""
    size, resolution = 500, 0.05
    row, column = np.mgrid[:size, :size]
    away = np.hypot(column + 0.5 - 250, row + 0.5 - 230) * resolution
    road = (away > 9) & (away < 11)
    if gap:
        road &= ~((column > 250) & (abs(row - 230) < gap))
    wall = (abs(away - 9) < 0.15) | (abs(away - 11) < 0.15)
    grey = np.where(road, 255, np.where(wall, 0, 205)).astype(np.uint8)
    Image.fromarray(255 - grey if negate else grey).save(folder / f"{name}.png")
    return written(
        folder / f"{name}.yaml",
        f"image: {name}.png\nresolution: {resolution}\norigin: [-10.5, -11.5, 0.0]\n"
        f"negate: {int(negate)}\noccupied_thresh: 0.65\nfree_thresh: 0.196\n{extra}",
    )


@pytest.mark.parametrize("by", [",", "; ", " "])
def test_widths_of_a_table_lie_to_the_right_and_to_the_left(tmp_path, by):
    track = load_track(written(tmp_path / "ring.csv", table(by=by)))

    assert track.closed
    assert track.length == pytest.approx(2 * np.pi * 10, rel=1e-3)
    np.testing.assert_allclose(track.stations.left, 1.0, rtol=0.01)
    np.testing.assert_allclose(track.stations.right, 1.5, rtol=0.01)
    # Counter-clockwise, left is the inside.
    np.testing.assert_allclose(np.hypot(*track.inner.T), 9.0, rtol=1e-3)


def test_a_clockwise_table_has_its_inner_border_on_the_right(tmp_path):
    track = load_track(written(tmp_path / "ring.csv", table(RING[::-1])))

    np.testing.assert_allclose(track.stations.left, 1.0, rtol=0.01)
    np.testing.assert_allclose(np.hypot(*track.inner.T), 8.5, rtol=1e-3)
    np.testing.assert_allclose(np.hypot(*track.outer.T), 11.0, rtol=1e-3)


def test_columns_are_found_by_their_names():
    swapped = "# w_tr_left_m, w_tr_right_m, x_m, y_m\n" + "".join(
        f"1.0, 1.5, {x}, {y}\n" for x, y in RING
    )

    np.testing.assert_allclose(read_table(swapped, "a"), read_table(table(), "a"), atol=1e-9)


def test_a_table_whose_ends_lie_apart_is_an_open_road(tmp_path):
    track = load_track(written(tmp_path / "half.csv", table(RING[:45])))

    assert not track.closed
    assert track.length == pytest.approx(np.pi * 10 * 44 / 45, rel=1e-3)


def test_six_columns_are_waypoints(tmp_path):
    rows = load_track("oval").waypoints
    path = written(tmp_path / "oval2.csv", "\n".join(",".join(map(repr, r)) for r in rows.tolist()))

    assert load_track(path).fingerprint == load_track("oval").fingerprint


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("# x_m,y_m\n1,2\n3,4\n", "has 2 columns.*Add the widths"),
        ("# s_m; x_m; y_m; psi_rad; kappa_radpm; vx_mps; ax_mps2\n1;2;3;4;5;6;7\n", "racing line"),
        (table(right=-1), "widths that are not positive"),
        (TUM + "1,2,3,4\n1,2,3\n", "rows of .3, 4. cells"),
        (TUM + "1,2,x,4\n", "'x' is no number"),
        ("<html><body>not found</body></html>", "holds no row of numbers"),
    ],
)
def test_a_table_that_is_no_track_is_refused_with_a_sentence(tmp_path, text, sentence):
    with pytest.raises(TrackError, match=sentence):
        load_track(written(tmp_path / "bad.csv", text))


@pytest.mark.parametrize("negate", [False, True])
def test_the_road_of_a_map_is_where_it_was_drawn(tmp_path, negate):
    track = load_track(map_of(tmp_path, negate=negate))

    # A ring of 10 m, 2 m wide, about (-10.5 + 12.5, -11.5 + 13.5) = (2, 2). Half a pixel is
    # 2.5 cm.
    away = np.hypot(*(track.centre - [2.0, 2.0]).T)
    np.testing.assert_allclose(away, 10.0, atol=0.05)
    np.testing.assert_allclose(track.stations.left, 1.0, atol=0.026)
    np.testing.assert_allclose(track.stations.right, 1.0, atol=0.026)
    assert track.length == pytest.approx(2 * np.pi * 10, rel=5e-3)
    assert LinearRing(track.centre).is_ccw
    # It begins nearest to (0, 0): from (2, 2) towards it, ten metres out.
    np.testing.assert_allclose(track.centre[0], [2 - 10 / 2**0.5, 2 - 10 / 2**0.5], atol=0.2)


def test_images_that_are_no_maps_are_refused_with_a_sentence(tmp_path):
    broken = map_of(tmp_path, gap=10, name="broken")
    with pytest.raises(TrackError, match="no ring of free ground"):
        load_track(broken)
    with pytest.raises(TrackError, match="lacks image, resolution, origin"):
        load_track(written(tmp_path / "other.yaml", "name: value\n"))
    with pytest.raises(TrackError, match=r"image .*none\.png does not exist"):
        load_track(
            written(tmp_path / "a.yaml", "image: none.png\nresolution: 0.1\norigin: [0, 0, 0]\n")
        )
    with pytest.raises(TrackError, match="resolution 0 and origin"):
        load_track(
            written(tmp_path / "b.yaml", "image: none.png\nresolution: 0\norigin: [0, 0, 0]\n")
        )
    written(tmp_path / "text.png", "hello")
    with pytest.raises(TrackError, match="is no image that can be read"):
        load_track(
            written(tmp_path / "c.yaml", "image: text.png\nresolution: 1\norigin: [0, 0, 0]\n")
        )
    with pytest.raises(TrackError, match=r"is an image; give the \.yaml"):
        load_track(tmp_path / "broken.png")


def test_a_folder_is_searched_and_whose_work_it_is_is_kept(tmp_path, home):
    data = tmp_path / "database"
    written(data / "LICENSE", "\n  GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3\n")
    written(data / "tracks" / "Monza.csv", table())
    written(data / "maps" / "Spa" / "Spa_centerline.csv", table(head=""))
    written(data / "maps" / "Spa" / "Spa_raceline.csv", "# s_m;x_m\n1;2\n")
    written(data / "maps" / "config.yaml", "name: value\n")
    map_of(data / "maps" / "Spa", name="Spa_map")
    written(data / "tracks" / "bad.csv", "1,2\n")
    np.save(data / "mine.npy", load_track("oval").waypoints)

    added, refused = add_tracks(data)

    assert sorted(added) == ["Monza", "Spa", "mine"]
    assert [path.name for path, _ in refused] == ["bad.csv"]
    assert load_track("Monza").attribution == (
        "from database, LICENSE: GNU LESSER GENERAL PUBLIC LICENSE"
    )
    about = json.loads((home / "Spa.json").read_text())
    assert about["source"] == "Spa_centerline.csv"


def test_a_map_is_added_as_waypoints(tmp_path):
    add_track(map_of(tmp_path), attribution="me")

    assert load_track("room").attribution == "me"
    assert load_track("room").length == pytest.approx(62.8, abs=0.4)


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"/a/Monza.csv?raw=1": table(), "/page.csv": "<html></html>"}.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_an_address_is_fetched_and_kept(server, home):
    url = f"{server}/a/Monza.csv?raw=1"

    track = add_url(url)

    assert track.name == "Monza"
    about = json.loads((home / "Monza.json").read_text())
    assert (about["source"], about["attribution"]) == (url, f"from {url}")


def test_an_address_without_a_track_is_refused_with_a_sentence(server):
    with pytest.raises(TrackError, match=r"nothing\.csv: cannot be fetched \(Not Found"):
        add_url(f"{server}/nothing.csv")
    with pytest.raises(TrackError, match=rf"^{server}/page.csv: holds no row of numbers"):
        add_url(f"{server}/page.csv")
    with pytest.raises(TrackError, match=r"ends in no \.npy or \.csv file"):
        add_url(f"{server}/repository")
    with pytest.raises(TrackError, match="cannot be fetched"):
        add_url("http://127.0.0.1:9/a.csv")


def test_an_address_that_holds_too_much_is_refused(server, monkeypatch):
    monkeypatch.setattr("hotlap.track.collection._BYTES_MAX", 2**10)

    with pytest.raises(TrackError, match="holds more than 0 MiB"):
        add_url(f"{server}/a/Monza.csv?raw=1")
