"""A sweep at a URL: it is there whole, and goes on from there when this machine is gone."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from sweeps import SMALL, kinds

import hotlap
from buckets import BUCKET, point_to, wait_for
from hotlap.distributed.sending import Sender
from hotlap.distributed.sweep_folder import Sweep
from hotlap.runs.storage import Storage

ray = pytest.importorskip("ray")

AROUND = {"config.toml", "sweep.toml", "trials.json", "results.json", "results.csv", "learning.png"}


@pytest.fixture
def home(monkeypatch, port, tmp_path):
    """Make this an empty machine, and return where it keeps its copies."""
    point_to(monkeypatch, port, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def storage(bucket, home):
    """Return an empty folder at a URL, with a little sweep's files in its copy."""
    made = Storage(f"s3://{BUCKET}/{home.parent.name}")
    (made.local / "lineage" / "a").mkdir(parents=True)
    (made.local / "trial0").mkdir()
    for name in ("sweep.toml", "trial0.json", "lineage/a/meta.json", "trial0/meta.json"):
        (made.local / name).write_text("1")
    return made


@pytest.mark.slow
def test_it_is_there_whole_and_read_from_an_empty_machine(bucket, home):
    url = f"s3://{BUCKET}/whole"

    made = hotlap.sweep(None, {**SMALL, "train.steps": 1600, "seed": [3, 4]}, together=2, out=url)

    found = made.results()
    assert found["sweep"] == url
    assert {row["run"] for row in found["trials"]} == {f"{url}/trial0", f"{url}/trial1"}
    names = bucket.names("whole")
    assert names >= AROUND
    assert {"trial0/report.json", "trial1/checkpoints/best", "trial0.json"} <= names
    assert json.loads(bucket.read("whole/results.json")) == found
    (claim,) = bucket.claims("whole").values()
    assert claim["released"]
    with pytest.raises(hotlap.HotlapError, match=r"is not empty .*hotlap sweep --resume s3://"):
        hotlap.sweep(None, {**SMALL, "train.steps": 1600, "seed": [3, 4]}, out=url)
    shutil.rmtree(home)
    assert Sweep.open(url).results() == found
    with pytest.raises(hotlap.HotlapError, match="whole: all 2 trials came to their end"):
        hotlap.sweep(resume=url)


@pytest.mark.slow
def test_it_goes_on_where_its_machine_was_lost(bucket, home):
    url = f"s3://{BUCKET}/lost"
    given = {**SMALL, "train.seconds": 25, "train.checkpoint_seconds": 0.5}
    words = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    command = [sys.executable, "-c", "from hotlap.cli import main; main()", "sweep", *words]
    command += ["seed=0..2", "--together", "2", "--out", url, "--plain"]
    leader = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    needed = {"trial0/checkpoints/last", "trial0.json", "trials.json"}
    wait_for(lambda: needed <= bucket.names("lost"), 180)
    wait_for(lambda: any(name.startswith("tune/") for name in bucket.names("lost")), 60)
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    time.sleep(5)  # its trainings end by themselves
    shutil.rmtree(home)

    made = hotlap.sweep(resume=url)

    rows = made.results()["trials"]
    assert {row["trial"]: row["state"] for row in rows} == {f"trial{i}": "done" for i in range(3)}
    resumed = [row["trial"] for row in rows if "resumed" in kinds(row["run"])]
    assert "trial0" in resumed
    assert "trial2" not in resumed
    assert bucket.names("lost") >= AROUND


def test_what_is_named_is_sent_before_what_names_it_and_what_is_gone_is_deleted(
    bucket, storage, monkeypatch
):
    prefix, order = storage.url.rpartition("/")[2], []
    put = storage.put
    monkeypatch.setattr(storage, "put", lambda name, path: (order.append(name), put(name, path)))

    with Sender(storage, print) as sender:
        sender._sent()
        assert order == ["lineage/a/meta.json", "trial0.json", "sweep.toml"]  # no Run's
        (storage.local / "lineage" / "a" / "meta.json").unlink()
        (storage.local / "trial0.json").write_text("22")
    assert order[3:] == ["trial0.json"]
    assert bucket.names(prefix) - {"claims/000001.json"} == {"sweep.toml", "trial0.json"}
    assert bucket.read(f"{prefix}/trial0.json") == b"22"


def test_what_vanishes_on_its_way_is_left_out_and_a_place_that_is_none_is_said(
    storage, monkeypatch
):
    monkeypatch.setattr("hotlap.distributed.sending.PATIENCE", 0)
    put, said = storage.put, []

    def put_too_late(name, path):
        if name == "trial0.json":
            path.unlink()
        put(name, path)

    monkeypatch.setattr(storage, "put", put_too_late)
    with Sender(storage, said.append) as sender:
        assert sender._sent()
        assert said == []

        def no_place(name, path):
            raise FileNotFoundError("the bucket is gone")

        monkeypatch.setattr(storage, "put", no_place)
        (storage.local / "sweep.toml").write_text("22")
        assert not sender._sent()
    assert "What was not sent is in" in said[-1]


def test_two_do_not_write_one_sweep(storage):
    with (
        Sender(storage, print),
        pytest.raises(hotlap.HotlapError, match="is being written by"),
        Sender(Storage(storage.url), print),
    ):
        pass


def test_an_outage_is_waited_for_and_said(storage, monkeypatch):
    said, put, broken = [], storage.put, [True]

    def put_or_fail(name, path):
        if broken[0]:
            raise ConnectionError("away")
        put(name, path)

    monkeypatch.setattr(storage, "put", put_or_fail)
    with Sender(storage, said.append) as sender:
        assert not sender._sent()
        assert not sender._sent()
        broken[0] = False

    assert said == [f"{storage.url} does not answer; the sweep goes on, and tries again"]
    assert storage.read("sweep.toml") == b"1"
