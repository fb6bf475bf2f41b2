"""What a training writes comes to its URL, whatever happens to it, to the network, or beside it."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from buckets import BUCKET, Network, point_to, wait_for
from drivers import follower
from hotlap.errors import RunError
from hotlap.runs import Run, mirror
from hotlap.runs.storage import Index, Storage
from test_resume import same_training

module = importlib.import_module("hotlap.train")  # `hotlap.train` itself is the verb

SETTINGS = {
    "track": "oval",
    "algorithm.network.mlp": [8],
    "train.cars": 16,
    "train.seconds": 0,
    "train.checkpoint_seconds": 0.05,
    "evaluation.every": 40,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}


@pytest.fixture
def network(port):
    network = Network(port)
    yield network
    network.close()


@pytest.fixture
def name(bucket, network, monkeypatch, tmp_path):
    """Return the name of an empty place in the bucket, seen from an empty machine."""
    point_to(monkeypatch, network.port, tmp_path / "home")
    monkeypatch.setattr(module, "write_outcome", lambda run: {})
    for constant, value in {"BEAT": 0.2, "LEASE": 1.5, "PERIOD": 0.2}.items():
        monkeypatch.setattr(mirror, constant, value)
    return f"run-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Return what makes this another machine."""

    def move(name="elsewhere"):
        monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / name))
        monkeypatch.setattr(mirror, "_machine", lambda: name)

    return move


def url(name):
    return f"s3://{BUCKET}/{name}"


def checkpoint(run, steps, **options):
    run.write_checkpoint(steps, policy=follower(2.0), state=({}, {}), **({"best": False} | options))


def last(bucket, name):
    content = bucket.read(f"{name}/checkpoints/last")
    return json.loads(content)["steps"] if content else 0


def holder(**facts):
    there = {"token": "theirs", "host": "far", "pid": 1, "machine": "far", "beats": 0}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({**there, "time": now, "released": False, **facts}).encode()


def test_what_is_written_comes_while_it_goes_on(bucket, name):
    with Run.create(url(name), "a = 1\n", {}) as run:
        run.log_metrics({"iteration": 1})
        checkpoint(run, 5)

        wait_for(lambda: last(bucket, name) == 5)
        run.log_metrics({"iteration": 2})
        wait_for(lambda: b'"iteration": 2' in bucket.read(f"{name}/metrics.jsonl"))

        (claim,) = bucket.claims(name).values()
        assert (claim["pid"], claim["released"]) == (os.getpid(), False)
    (claim,) = bucket.claims(name).values()
    assert claim["released"]


def test_the_run_is_complete_in_the_bucket_after_every_object(name, monkeypatch):
    seen, put = [], Storage.put

    def looked_at(self, what, path):
        put(self, what, path)
        there = {one.removeprefix(f"{self.root}/") for one in self.fs.find(self.root)}
        for which in ("best", "last"):
            content = self.read(f"checkpoints/{which}")
            if content:
                folder = f"checkpoints/{json.loads(content)['checkpoint']}"
                for part in ("policy", "state"):
                    assert {f"{folder}/{part}.json", f"{folder}/{part}.safetensors"} <= there
                if which == "last":
                    needed = json.loads(self.read(f"{folder}/state.json"))["segments"]
                    assert {f"replay/{first:012d}.safetensors" for first in needed} <= there
                    rows = self.read("metrics.jsonl").splitlines()
                    assert json.loads(rows[-1])["steps"] >= json.loads(content)["steps"]
        seen.append(what)

    trouble = []

    def careful(self, what, path):
        try:
            looked_at(self, what, path)
        except BaseException as error:
            trouble.append(f"{what}: {error!r}")
            raise

    monkeypatch.setattr(Storage, "put", careful)
    with Run.create(url(name), "", {}) as run:
        for steps in range(1, 40):
            run.log_metrics({"iteration": steps, "steps": steps})
            run.write_segment(steps, {"x": np.full(2, steps)})
            checkpoint(
                run, steps, best=steps % 7 == 0, segments=range(max(1, steps - 2), steps + 1)
            )
            time.sleep(0.01)

    assert trouble == []
    assert seen.count("checkpoints/last") > 1
    assert "checkpoints/000000000039/state.safetensors" in seen


def test_what_the_training_forgot_is_deleted(bucket, name):
    with Run.create(url(name), "", {}) as run:
        for steps in (1, 2, 3):
            checkpoint(run, steps, keep=1)
            wait_for(lambda steps=steps: last(bucket, name) == steps)

    folders = {one.split("/")[1] for one in bucket.names(name) if one.startswith("checkpoints/0")}
    assert folders == {"000000000003"}


def test_a_second_writer_is_refused_in_words(name, elsewhere, bucket):
    with Run.create(url(name), "", {}) as run:
        checkpoint(run, 1)
        wait_for(lambda: last(bucket, name) == 1)
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on .*stop"):
            Run.open(url(name)).claim()
        elsewhere()
        other = Run.open(url(name))
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on .*stop"):
            other.claim()  # from a machine on which that number says nothing

        run.log_event("unharmed")
    with other:
        other.claim()
        assert [event["kind"] for event in other.events()] == ["unharmed"]


def test_a_late_sign_of_life_does_not_take_a_release_back(name, bucket):
    claim = mirror.Claim(Storage(url(name)), lambda text: None)
    claim.take()
    claim.release()

    claim.hold(sign=True)  # as by the thread of signs, which had waited for the lock

    (there,) = bucket.claims(name).values()
    assert there["released"]


def test_of_many_who_want_a_place_at_once_one_gets_it(name, monkeypatch, tmp_path):
    got, refused, gate = [], [], threading.Barrier(6)

    def create(number):
        storage = Storage(url(name))
        claim = mirror.Claim(storage, lambda text: None)
        gate.wait()
        try:
            claim.take()
            got.append(number)
        except RunError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(got), len(refused)) == (1, 5)
    assert all("is being written by process" in said for said in refused)


@pytest.mark.parametrize(
    ("facts", "waits"),
    [
        ({"released": True}, False),
        ({"time": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}, False),
        ({}, True),
    ],
    ids=["released", "an hour ago", "just now"],
)
def test_who_is_dead_is_followed(bucket, name, facts, waits, capsys):
    bucket.write(f"{name}/claims/000007.json", holder(**facts))
    start = time.monotonic()

    with Run.create(url(name), "", {}):
        took = time.monotonic() - start
        assert list(bucket.claims(name)) == ["claims/000008.json"]

    assert (took > mirror.LEASE) == waits
    said = capsys.readouterr().err
    assert ("process 1 on far wrote there, and did not say that it has ended" in said) == waits


def test_who_lives_is_not_followed(bucket, name):
    bucket.write(f"{name}/claims/000007.json", holder())
    stop = threading.Event()

    def live():
        beats = 0
        while not stop.wait(0.3):
            beats += 1
            bucket.write(f"{name}/claims/000007.json", holder(beats=beats))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(RunError, match="is being written by process 1 on far"):
            Run.create(url(name), "", {})
    finally:
        stop.set()
        thread.join()
    assert list(bucket.claims(name)) == ["claims/000007.json"]


def test_who_was_taken_over_writes_no_more_and_says_so(bucket, name, monkeypatch):
    monkeypatch.setattr(mirror, "BEAT", 1000.0)  # as one that slept
    run = Run.create(url(name), "", {})
    checkpoint(run, 1)
    wait_for(lambda: last(bucket, name) == 1)

    bucket.write(f"{name}/claims/000002.json", holder())
    before = {one: bucket.read(f"{name}/{one}") for one in bucket.names(name)}
    monkeypatch.setattr(mirror, "BEAT", 0.0)
    checkpoint(run, 2)
    wait_for(lambda: run._mirror._failure)

    said = "process 1 on far has taken this Run over; this one ends. What it did"
    with pytest.raises(RunError, match=said) as problem:
        run.log_metrics({"iteration": 1})
    assert problem.value.exit_code == 1
    with pytest.raises(RunError, match=said):
        run.close()
    assert {one: bucket.read(f"{name}/{one}") for one in bucket.names(name)} == before
    # What it did stays on its machine, beside what the other does.
    assert Run.open(url(name)).checkpoints() == [1]
    assert Run.open(f"{run.path}.unsent-1").checkpoints() == [1, 2]


def test_an_outage_neither_stops_nor_loses_the_training(bucket, name, network):
    said = []
    with Run.create(url(name), "", {}) as run:
        run.listener = said.append
        checkpoint(run, 1)
        wait_for(lambda: last(bucket, name) == 1)

        network.cut()
        checkpoint(run, 2)
        wait_for(lambda: run._mirror.words)
        checkpoint(run, 3)
        run.log_metrics({"iteration": 3})
        assert last(bucket, name) == 1
        network.mend()
        wait_for(lambda: last(bucket, name) == 3)
        wait_for(lambda: run._mirror.words)
        run.log_event("after")

    assert len(said) == 2
    assert f"{url(name)}: cannot be reached: check the network" in said[0]
    assert f"The training goes on, and {run.path} keeps what is to be sent" in said[0]
    assert f"{url(name)} is there again after" in said[1]
    assert b'"after"' in bucket.read(f"{name}/events.jsonl")


def test_an_outage_at_the_end_is_waited_for(bucket, name, network):
    run = Run.create(url(name), "", {})
    network.cut()
    checkpoint(run, 1)
    threading.Timer(1.5, network.mend).start()

    run.close()

    assert last(bucket, name) == 1


def test_what_could_not_be_sent_is_sent_by_the_next_writer(bucket, name, network, monkeypatch):
    monkeypatch.setattr(mirror, "PATIENCE", 0.2)
    run = Run.create(url(name), "", {})
    checkpoint(run, 1)
    wait_for(lambda: last(bucket, name) == 1)
    network.cut()
    checkpoint(run, 2)
    again = f"whole in {run.path}; to send the rest: hotlap train --resume {url(name)}"

    with pytest.raises(RunError, match=again) as problem:
        run.close()

    assert problem.value.exit_code == 1
    assert last(bucket, name) == 1
    network.mend()
    monkeypatch.setattr(mirror, "_machine", lambda: "this")  # its claim was not released
    assert Run.open(url(name)).checkpoints() == [1, 2]  # here there is more than there
    with Run.open(url(name)) as run:
        run.claim()
    assert last(bucket, name) == 2
    assert all(claim["released"] for claim in bucket.claims(name).values())


def test_a_bucket_that_is_gone_is_not_waited_for_at_the_end(bucket, name, monkeypatch):
    monkeypatch.setattr(mirror, "BEAT", 1000.0)
    other = f"gone-{uuid.uuid4().hex[:8]}"
    bucket.client.create_bucket(Bucket=other)
    run = Run.create(f"s3://{other}/a", "", {})
    wait_for(lambda: Index.read(run.path).files)  # after a whole round
    for key in bucket.client.list_objects_v2(Bucket=other)["Contents"]:
        bucket.client.delete_object(Bucket=other, Key=key["Key"])
    bucket.client.delete_bucket(Bucket=other)
    run.log_event("late")

    with pytest.raises(RunError, match="not all of the Run could be sent: there is no such bucket"):
        run.close()


def test_what_ends_a_training_is_not_hidden_by_what_ends_its_mirror(name, network, monkeypatch):
    monkeypatch.setattr(mirror, "PATIENCE", 0.2)

    def fail():
        with Run.create(url(name), "", {}):
            network.cut()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as problem:
        fail()

    assert "not all of the Run could be sent" in problem.value.__notes__[0]


def start(name, settings):
    """Start a training by the command line, in a process of its own."""
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    program = "from hotlap.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", "--out", url(name), "--plain", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )


def test_killed_and_resumed_on_another_machine_is_as_if_never_killed(
    bucket, name, elsewhere, tmp_path
):
    process = start(name, SETTINGS | {"train.steps": 10_000_000})
    steps = wait_for(lambda: process.poll() is not None or last(bucket, name) > 500, 120)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert steps
    reached = last(bucket, name)
    budget = {"train.steps": reached + 2560}  # ten iterations more
    elsewhere()

    resumed = module.train(None, budget, resume=url(name))

    once = module.train(None, SETTINGS | budget, out=tmp_path / "once")
    assert once.checkpoints()[-1] == resumed.checkpoints()[-1] == reached + 2560
    (event,) = [event for event in resumed.events() if event["kind"] == "resumed"]
    assert event["steps"] == reached
    same_training(resumed, once)
    elsewhere("third")
    same_training(Run.open(url(name)), once)


@pytest.mark.slow
def test_a_training_through_an_outage_and_a_rival_ends_as_one_alone(
    bucket, name, network, tmp_path, monkeypatch
):
    longer = SETTINGS | {"train.steps": 51_200}
    process = start(name, longer)
    wait_for(lambda: process.poll() is not None or last(bucket, name) > 500, 120)
    monkeypatch.setattr(mirror, "LEASE", 45.0)  # that process shows life every ten seconds
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "other"))
    with pytest.raises(RunError, match=f"is being written by process {process.pid} on"):
        Run.open(url(name)).claim()
    network.cut()
    time.sleep(5)
    network.mend()
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 0, said
    assert f"run: {url(name)}" in said
    once = module.train(None, longer, out=tmp_path / "once")
    same_training(Run.open(url(name)), once)
