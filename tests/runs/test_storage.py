"""A Run at a URL is the Run it would be in a directory, for whoever reads it."""

import json
import shutil
import sys
import uuid
from pathlib import Path

import fsspec
import pytest

from buckets import BUCKET, point_to, s3_server
from drivers import command, saved
from hotlap.errors import MissingExtraError, RunError
from hotlap.evaluate import load_policy
from hotlap.population import Population
from hotlap.runs import Run, list_runs
from hotlap.runs import storage as module
from hotlap.runs.storage import Storage, is_url, url_of


@pytest.fixture
def folder(bucket, port, monkeypatch, tmp_path):
    """Return the name of an empty folder in the bucket, seen from an empty machine."""
    point_to(monkeypatch, port, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    return f"runs-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Return what makes this another machine."""
    return lambda name="elsewhere": monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / name))


@pytest.mark.parametrize(
    ("given", "there", "meant"),
    [
        ("s3://b/r", True, "s3://b/r"),
        (Path("s3://b/r/"), True, "s3://b/r"),  # pathlib makes it s3:/b/r
        ("S3://b/R", True, "s3://b/R"),
        ("memory://r", True, "memory://r"),
        ("s3:", True, "s3://"),
        (Path("file:///tmp/r"), False, "/tmp/r"),
        ("runs/latest", False, "runs/latest"),
        ("/tmp/a:b", False, "/tmp/a:b"),
        (r"C:\runs\a", False, r"C:\runs\a"),
        ("C:/runs/a", False, "C:/runs/a"),
    ],
)
def test_urls_are_told_from_paths(given, there, meant):
    assert (is_url(given), url_of(given)) == (there, meant)


def test_what_lies_in_the_bucket_are_the_files_of_the_directory(bucket, folder):
    run = Run.open(saved(f"s3://{BUCKET}/{folder}/a", 2.0))
    here = saved(Path("b"), 2.0)

    theirs = {str(file.relative_to(here)) for file in here.rglob("*") if file.is_file()}
    assert bucket.names(f"{folder}/a") - {"claims/000001.json"} == theirs - {"lock"}
    assert bucket.read(f"{folder}/a/config.toml") == (here / "config.toml").read_bytes()
    assert run.place == run.address == f"s3://{BUCKET}/{folder}/a"
    assert run.name == "a"


def test_another_machine_reads_all_of_it(folder, elsewhere):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    here = Run.open(url)
    elsewhere()

    there = Run.open(Path(url))  # as the command line has it

    assert there.path != here.path
    assert there.config_toml == here.config_toml
    assert there.meta == here.meta
    assert there.read_policy()[1]["head.weight"].tobytes() == (
        here.read_policy()[1]["head.weight"].tobytes()
    )
    assert there.read_state()[0] == {}
    assert load_policy(url).names == ("state",)


def test_who_only_drives_fetches_no_state_and_no_film(folder, elsewhere):
    url = f"s3://{BUCKET}/{folder}/a"
    with Run.open(saved(url, 2.0)) as run:
        run.claim()
        (run.folder("films") / "a.mp4").write_bytes(b"film")
    elsewhere()

    there = Run.open(url)

    names = {file.name for file in there.path.rglob("*") if file.is_file()}
    assert {"policy.safetensors", "config.toml"} <= names
    assert names.isdisjoint({"state.safetensors", "a.mp4"})
    there.read_state()
    assert (there.path / "checkpoints/000000000001/state.safetensors").exists()


def test_what_has_not_changed_is_not_fetched_again(folder, elsewhere, monkeypatch):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    elsewhere()
    fetched = []
    get = Storage._get
    monkeypatch.setattr(Storage, "_get", lambda *a: (fetched.append(a[1]), get(*a))[1])

    Run.open(url)
    first = set(fetched)
    fetched.clear()
    Run.open(url)

    assert "checkpoints/000000000001/policy.safetensors" in first
    assert fetched == []


def test_what_changed_there_or_was_spoilt_here_is_fetched_again(bucket, folder, elsewhere):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    elsewhere()
    run = Run.open(url)
    bucket.write(f"{folder}/a/events.jsonl", b'{"kind": "new"}\n')
    (run.path / "config.toml").write_text("spoilt")

    again = Run.open(url)

    assert [event["kind"] for event in again.events()] == ["new"]
    assert "spoilt" not in again.config_toml


def test_what_is_gone_there_is_forgotten_here(folder, elsewhere):
    url = f"s3://{BUCKET}/{folder}/a"
    saved(url, 2.0)
    elsewhere()
    assert Run.open(url).checkpoints() == [1]
    elsewhere("home")
    with Run.open(url) as run:
        policy = run.read_policy()
        for steps in (2, 3):
            run.write_checkpoint(steps, policy=policy, state=({}, {}), best=True, keep=1)
    elsewhere()

    assert Run.open(url).checkpoints() == [3]
    assert not list((Run.open(url).path / "checkpoints").glob("*1"))


def test_a_pointer_that_is_ahead_of_the_listing_is_waited_for(folder, elsewhere, monkeypatch):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    elsewhere()
    asked, infos = [], Storage.infos

    def late(self, *, deep=True):
        """Show the first listing without the checkpoint that `last` names."""
        found = infos(self, deep=deep)
        if deep:
            asked.append(1)
        if len(asked) == 1:
            found = {name: info for name, info in found.items() if "/policy" not in name}
        return found

    monkeypatch.setattr(Storage, "infos", late)

    assert Run.open(url).checkpoints() == [1]
    assert len(asked) == 2


def test_a_film_made_elsewhere_comes_to_the_url(bucket, folder, elsewhere, capsys):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    elsewhere()
    run = Run.open(url)
    film = run.folder("films") / "evaluation.gif"
    film.write_bytes(b"film")

    run.send(film)

    assert bucket.read(f"{folder}/a/films/evaluation.gif") == b"film"
    assert f"evaluation.gif is now {url}/films/evaluation.gif" in capsys.readouterr().err


def test_no_name_leads_out_of_the_copy(bucket, folder, elsewhere, tmp_path):
    url = saved(f"s3://{BUCKET}/{folder}/a", 2.0)
    for name in ("../../evil", "traces/../../../evil", "traces//evil", "fine"):
        bucket.write(f"{folder}/a/{name}", b"x")
    elsewhere()

    with Run.open(url) as run:
        run.claim()

    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "fine" in found
    assert "evil" not in found


def test_large_files_come_whole(folder, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "_LARGE", 1000)
    url = f"s3://{BUCKET}/{folder}/a"
    content = bytes(range(256)) * 40
    with Run.open(saved(url, 2.0)) as run:
        run.claim()
        (run.folder("traces") / "big").write_bytes(content)
    elsewhere()

    with Run.open(url) as run:
        run.claim()
        assert (run.path / "traces" / "big").read_bytes() == content


def test_the_commands_take_urls(bucket, folder, elsewhere):
    url = f"s3://{BUCKET}/{folder}"
    saved(f"{url}/a", 2.0, settings={"track": "oval"})
    elsewhere()

    status, out, _ = command("evaluate", f"{url}/latest", "--trials", 1, "--laps", 1, "--json")
    assert (status, json.loads(out)["track"]) == (0, "oval")
    status, out, _ = command("runs", url, "--json")
    assert [row["run"] for row in json.loads(out)] == [f"{url}/a"]
    status, out, _ = command("race", f"{url}/a", f"{url}/a", "--trials", 2, "--laps", 1, "--json")
    assert json.loads(out)["trials"] == 2
    status, out, err = command("plot", f"{url}/a")
    assert "plots/track.png" in bucket.names(f"{folder}/a")
    assert f"track.png is now {url}/a/plots/track.png" in err
    assert {"metrics", "oval"}.isdisjoint(path.name for path in Path().iterdir())


def test_populations_are_read_and_listed_at_a_url(folder, elsewhere):
    url = f"s3://{BUCKET}/{folder}/many"
    text = Path(saved(Path("one"), 2.0) / "config.toml").read_text()
    made = Population.create(url, text, (3, 4))
    for seed in made.seeds:
        saved(made.address_of(seed), 1.0 + seed)
    elsewhere()

    found = Population.open(url)

    assert Population.is_at(url)
    assert not Population.is_at(made.address_of(3))
    assert (found.seeds, found.address) == ((3, 4), url)
    assert {seed: run.place for seed, run in found.runs().items()} == {
        3: f"{url}/seed3",
        4: f"{url}/seed4",
    }
    assert [run.place for run in list_runs(f"s3://{BUCKET}/{folder}")] == [
        f"{url}/seed3",
        f"{url}/seed4",
    ]
    with pytest.raises(RunError, match=f"{url} is a population of Runs.*{url}/seed3"):
        Run.open(url)
    with pytest.raises(RunError, match=r"many is not empty \(it holds config.toml, population"):
        Population.create(url, text, (1,))


def test_a_run_of_this_process_only(folder):
    url = f"memory://{folder}/a"
    saved(url, 2.0)

    assert Run.open(url).checkpoints() == [1]
    assert fsspec.filesystem("memory").exists(f"/{folder}/a/config.toml")
    assert [run.place for run in list_runs(f"memory://{folder}")] == [url]


def test_file_urls_are_directories(folder, tmp_path):
    saved(f"file://{tmp_path}/a", 2.0)

    assert Run.open(f"file://{tmp_path}/a").path == tmp_path / "a"
    assert [run.place for run in list_runs(f"file://{tmp_path}")] == [str(tmp_path / "a")]


def test_what_is_left_of_a_deleted_run_makes_room(bucket, folder):
    url = f"s3://{BUCKET}/{folder}/a"
    old = Run.open(saved(url, 2.0))
    for name in bucket.names(f"{folder}/a"):
        bucket.client.delete_object(Bucket=BUCKET, Key=f"{folder}/a/{name}")

    with Run.create(url, "", {"seed": 7}) as run:
        assert run.path == old.path
        assert run.checkpoints() == []
    assert "checkpoints/last" not in bucket.names(f"{folder}/a")


def test_words_for_what_is_not_there(bucket, folder):
    url = f"s3://{BUCKET}/{folder}"
    saved(f"{url}/fast", 2.0)
    bucket.write(f"{folder}/photos/a.jpg", b"")

    for given, said in {
        f"{url}/fasd": f"nothing of that name; did you mean {url}/fast?",
        f"{url}/photos": "is not a Run: it has no config.toml",
        f"s3://not-{BUCKET}/a": "no such bucket: correct its name, or make it",
        "s3://": "name a folder, such as s3://bucket/runs/a",
        "s4://b/r": "s4:// is no kind of place that fsspec knows; did you mean s3://",
        f"{url}/../x": "no part . or ..",
    }.items():
        status, _, err = command("evaluate", given)
        assert (status, said in err) == (2, True), err
        assert len(err.splitlines()) == 1


def test_words_for_a_place_that_is_taken(bucket, folder):
    url = f"s3://{BUCKET}/{folder}"
    bucket.write(f"{folder}/photos/a.jpg", b"")

    status, _, err = command("train", "--out", f"{url}/photos", "train.steps=1")

    assert status == 2
    assert f"{url}/photos is not empty (it holds a.jpg): choose another" in err
    assert bucket.names(f"{folder}/photos") == {"a.jpg"}
    status, _, err = command("train", url)
    assert f"To continue a Run: hotlap train --resume {url}" in err
    status, _, err = command("runs", f"{url}/none")
    assert f"{url}/none: no such folder" in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials found: set"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "half of the credentials is missing"),
        ({"AWS_PROFILE": "nobody", "AWS_ACCESS_KEY_ID": None}, "no such profile"),
    ],
)
def test_words_for_credentials_that_are_missing(folder, monkeypatch, change, said):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in change.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)

    status, _, err = command("evaluate", f"s3://{BUCKET}/{folder}")

    assert (status, said in err) == (2, True), err


def test_words_for_a_server_that_is_not_there(folder, monkeypatch, port):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    status, _, err = command("evaluate", f"s3://{BUCKET}/{folder}")

    assert (status, "cannot be reached: check the network" in err) == (1, True), err


def test_words_for_an_answer_of_the_server():
    class ClientError(Exception):
        response: dict

    for code, said in {
        "ExpiredToken": "the session token has expired",
        "InvalidToken": "the session token is wrong",
        "SignatureDoesNotMatch": "the secret is not that of the access key",
        "RequestTimeTooSkewed": "the clock of this machine is wrong",
        "AccessDenied": "you have no permission for that: it takes s3:ListBucket",
        "403": "you have no permission for that",
        "SlowDown": "cannot be read (SlowDown!)",
    }.items():
        error = PermissionError("SlowDown!") if code != "SlowDown" else OSError("SlowDown!")
        error.__cause__ = ClientError()
        error.__cause__.response = {"Error": {"Code": code}}

        assert said in str(module.problem("s3://b/r", error, "be read"))


@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_words_for_what_is_not_installed(monkeypatch, folder, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)

    with pytest.raises(MissingExtraError, match=rf"needs {missing}.*'hotlap\[storage\]'"):
        Run.open(f"s3://{BUCKET}/{folder}")


def test_the_access_key_is_checked(monkeypatch, tmp_path):
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        point_to(monkeypatch, strict, tmp_path)

        status, _, err = command("evaluate", f"s3://{BUCKET}/a")

        assert (status, "the access key is not known there" in err) == (2, True), err


def test_a_copy_may_be_deleted(folder):
    run = Run.open(saved(f"s3://{BUCKET}/{folder}/a", 2.0))
    shutil.rmtree(run.path)

    assert Run.open(run.place).checkpoints() == [1]
