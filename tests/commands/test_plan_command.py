"""`hotlap plan`: from a file of measurements, without Ray."""

import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from hotlap.cli import app
from hotlap.distributed.calibration import Calibration, as_measured, write
from hotlap.distributed.sizing import Exchange, Link, Work
from hotlap.plan import anchored, read_config


def work(n, share):
    sums = (Exchange("sum", 50_000, 16),) if share == "gradients" else (Exchange("sum", 48_000, 1),)
    away = share == "experience"
    return Work(
        workers=n, rows=128 // n, steps=2048,
        collecting=0.06 / n, learning=0.08 if away else 0.08 / n,
        exchanges=() if away or n == 1 else sums, batch=300_000 // n if away else 0,
        weights=48_000, memory=500_000_000, replay=0,
    )  # fmt: skip


def calibration(config, sizes=(1, 2, 64)):
    return Calibration(
        format=2,
        made=(datetime.now(UTC) - timedelta(hours=3)).isoformat(),
        machine="a processor",
        cores=2,
        settings=as_measured(config, 0),
        each=0,
        threads=1,
        link=Link((4, 100_000), (2e-3, 4e-3), (5e-4, 2e-3), 1e-3, 2e-4, 1e-10),
        crowding=1.1,
        spread=0.0,
        server=200_000_000,
        learner=600_000_000,
        works={share: {n: work(n, share) for n in sizes}
               for share in ("gradients", "weights", "experience")},
        refused={"gradients at 256": "256 workers cannot share 128 cars"},
    )  # fmt: skip


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    path = tmp_path / "here.json"
    write(path, calibration(anchored(read_config(None).config)))
    return path


def said(*words, status=0):
    result = CliRunner().invoke(app, ["plan", *map(str, words)])
    if status:
        assert result.exception is not None
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_one_worker_does_what_its_times_say(file):
    facts = json.loads(
        said("--calibration", file, "--workers", "1", "--network", "local", "--json")
    )

    by_share = {row["share"]: row for row in facts["forecasts"]}
    # collect 60 ms, learn 80 ms; calls: two of 1 ms and twice 0.2 ms to send and to take in, and
    # 1 ms to tell the server
    assert by_share["gradients"]["steps_per_second"] == pytest.approx(2048 / 0.1438, rel=1e-3)
    assert by_share["gradients"]["speed_up"] == 1.0
    assert facts["measured"]["machine"] == "a processor"


def test_time_and_cost_follow_from_steps_and_price(file):
    words = ("--calibration", file, "--workers", "2", "--share", "weights", "--json")
    (row,) = json.loads(said(*words, "--steps", "1000000", "--price", "0.5"))["forecasts"]

    # evaluations take 15 % more; two workers and the server have a core each
    seconds = 1e6 / row["steps_per_second"] * 1.15
    assert row["seconds"] == pytest.approx(seconds, abs=0.1)
    assert row["cores"] == 3
    assert row["cost"] == pytest.approx(0.5 * 3 * seconds / 3600, rel=1e-3)
    (row,) = json.loads(said(*words))["forecasts"]
    assert (row["cost"], row["seconds"], row["cost_per_million_steps"]) == (None, None, None)


def test_gradients_of_64_workers_wait_for_the_server_and_weights_do_not(file):
    facts = json.loads(said("--calibration", file, "--workers", "64", "--json"))

    rows = {row["share"]: row for row in facts["forecasts"]}
    assert rows["gradients"]["bottleneck"] == "server"
    assert rows["weights"]["steps_per_second"] > 3 * rows["gradients"]["steps_per_second"]
    designs = {one["design"].split(",")[0]: one["steps_per_second"] for one in facts["designs"]}
    assert designs["one server"] == rows["gradients"]["steps_per_second"]
    assert designs["4 servers"] > designs["one server"]
    assert designs["a tree: a server for 8 workers each"] > 1.8 * designs["one server"]


def test_the_tables_say_age_bottleneck_and_advice(file):
    text = said("--calibration", file, "--workers", "1,2,64", "--price", "0.1")

    assert "measured on a processor; 3 hours old" in text
    (line,) = [one for one in text.splitlines() if one.split()[:2] == ["gradients", "64"]]
    assert line.split()[5] == "server"
    assert "Fastest: weights by" in text
    assert "cost a million" in text
    assert max(map(len, text.splitlines()[:-1])) <= 130


def test_how_many_times_one_is_counted_from_the_fewest(file):
    facts = json.loads(said("--calibration", file, "--workers", "2,64", "--json"))

    times = {(row["share"], row["workers"]): row["speed_up"] for row in facts["forecasts"]}
    rates = {(row["share"], row["workers"]): row["steps_per_second"] for row in facts["forecasts"]}
    assert times["weights", 2] == 2.0  # of two, each counts as one
    ratio = rates["weights", 64] / rates["weights", 2]
    assert times["weights", 64] == pytest.approx(2 * ratio, rel=1e-3)


def test_what_cannot_be_shared_is_said(file):
    reason = "256 workers cannot share 128 cars"
    words = ("--calibration", file, "--share", "gradients", "--workers")

    assert reason in said(*words, "256", status=2)
    assert f"not gradients at 256: {reason}" in said(*words, "2,256")


def test_changes_that_come_too_late_are_told(file):
    config = anchored(read_config(None, {"distributed.synchronous": False}).config)
    write(file, calibration(config))

    facts = json.loads(
        said(
            "distributed.synchronous=false",
            "--calibration",
            file,
            "--workers",
            "64",
            "--share",
            "weights",
            "--json",
        )
    )

    # Between two of its own come those of 63 others, and 8 versions are allowed.
    (row,) = facts["forecasts"]
    assert 0.8 < row["late"] < 0.95


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--workers", "none"], "--workers: 'none' is not understood"),
        (["--network", "fast"], "--network: 'fast' is not understood"),
        (["--share", "pictures"], "choose from gradients, weights, experience, all"),
        (["--network", "local", "--per-node", "2"], "all workers are on this machine"),
        (["--price", "inf"], "--price: give a number"),
        (["--workers", "3"], "no measurements of gradients at 3"),
        (["--cars-each", "4"], "train.cars shared out (--cars-each)"),
        (["train.cars=64"], "another train.cars"),
        (["no.toml"], "no.toml: no such file"),
        (["trane.cars=64"], "trane"),
    ],
)
def test_bad_input_is_answered_in_words(file, words, sentence):
    given = ["--workers", "1,2"] if "--workers" not in words else []

    assert sentence in said(*given, *words, "--calibration", file, status=2)


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"format": 1}'])
def test_a_file_that_is_no_calibration_is_said_so(file, content):
    file.write_text(content)

    assert "holds no calibration" in said("--calibration", file, status=2)


def test_a_calibration_of_another_format_is_said_so(file):
    found = calibration(read_config(None).config)
    file.write_text(json.dumps(asdict(replace(found, format=3))))

    assert "format 3, and this hotlap reads 2" in said("--calibration", file, status=2)


def test_without_ray_and_measurements_the_install_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "ray" or None)

    assert "pip install 'hotlap[distributed]'" in said("--workers", "2", status=2)
