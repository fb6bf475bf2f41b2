"""The bench measures what it says, says when not to trust it, and keeps what it measured.

So do the scripts of benchmarks/, which are loaded from their files.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import pytest

from hotlap import bench
from hotlap.errors import ConfigError


class Clock:
    """Time that passes only when told."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "MANY", 512)
        return bench.measure(0.01, peers=False)


@pytest.fixture
def one_case(monkeypatch):
    """Let there be one figure to measure, of four steps of a quarter second each."""
    case = bench._Case("world", "ours", "steps/s", "a step", lambda: bench._Loop(lambda: 4), 0.25)
    monkeypatch.setattr(bench, "_cases", lambda: [case])
    monkeypatch.setattr(bench, "machine", lambda: MACHINE)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


MACHINE = {
    "hotlap": "9.9",
    "cpu": "Abacus",
    "vectors": "beads",
    "cores": "2 usable of 2",
    "memory": "1 GiB",
}


def peer(begin, modules=("json",), **options):
    return bench._Peer("theirs", modules, "theirs-package", "a step", begin, 0.5, **options)


def row(name, group, value, pace, **more):
    spread = None if value is None else [0.9 * value, 1.1 * value]
    return {
        "group": group,
        "name": name,
        "value": value,
        "unit": "steps/s",
        "repeats": 5,
        "spread": spread,
        "note": f"what {name} is",
        "simulated_seconds_per_second": pace,
        **more,
    }


def described(rows, warning=None):
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc1234",
        "machine": MACHINE,
        "conditions": {"load_before": 0.1, "load_per_core": 0.05, "warning": warning},
        "rows": rows,
    }


def test_every_figure_is_a_median_inside_its_spread(result):
    names = [row["name"] for row in result["rows"]]

    assert len(set(names)) == len(names) >= 10
    for found in result["rows"]:
        low, high = found["spread"]
        assert 0 < low <= found["value"] <= high, found
        assert found["repeats"] == 5
        assert found["note"]


def test_simulated_time_is_a_fifteenth_of_a_second_for_each_step(result):
    simulated = {
        row["name"]: row["value"] / row["simulated_seconds_per_second"]
        for row in result["rows"]
        if row["simulated_seconds_per_second"] is not None
    }

    assert {name.split(",")[0] for name in simulated} == {"kernel", "state", "camera 96x96 rgb"}
    assert list(simulated.values()) == pytest.approx([15.0] * len(simulated))


def test_a_result_is_plain_json_and_names_no_place_of_this_machine(result):
    text = json.dumps(result, allow_nan=False)

    assert str(Path(bench.__file__).parent) not in text


def test_the_table_of_a_real_result_has_every_row(result):
    text = bench.table(result)

    for found in result["rows"]:
        assert found["name"] in text
    assert result["machine"]["cpu"] in text


def test_only_the_work_is_timed_not_its_preparation(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)

    def work():
        clock.now += 0.5
        return 10

    def prepare():
        clock.now += 100

    # three blocks of half a second fill 1.2 s: 30 units in 1.5 s
    assert bench._rate(bench._Loop(work, prepare), 1.2) == pytest.approx(20.0)


def test_the_figure_is_the_median_of_the_rounds(one_case, monkeypatch):
    rates = iter([1.0, 5.0, 9.0, 2.0, 3.0, 100.0])  # the first one only warms up
    monkeypatch.setattr(bench, "_rate", lambda loop, seconds: next(rates))

    found = bench.measure(1.0, peers=False)["rows"][0]

    assert found["value"] == 5.0
    assert found["spread"] == [2.0, 100.0]
    assert found["simulated_seconds_per_second"] == 5.0 * 0.25


def test_every_figure_gets_its_turn_in_every_round(one_case, monkeypatch):
    turns = []
    peers = (peer(lambda: bench._Loop(lambda: 1)),)
    monkeypatch.setattr(bench, "PEERS", peers)
    monkeypatch.setattr(bench, "_rate", lambda loop, s: turns.append((loop.run(), s)) or 1.0)

    bench.measure(2.0)

    assert turns == [(4, 0), (1, 0)] + 5 * [(4, 0.4), (1, 0.4)]


def test_a_peer_that_is_not_there_is_named_with_its_install_line(one_case, monkeypatch):
    monkeypatch.setattr(bench, "PEERS", (peer(None, modules=("no_such_module",)),))

    found = bench.measure(0.01)

    assert found["rows"][1]["value"] is None
    assert found["rows"][1]["missing"] == "not installed: pip install theirs-package"
    assert "not installed: pip install theirs-package" in bench.table(found)


@pytest.mark.parametrize("fails", ["begin", "run"])
def test_a_broken_peer_costs_only_its_own_figure(one_case, monkeypatch, fails):
    def fail():
        raise RuntimeError("no display\nand much more")

    begin = fail if fails == "begin" else lambda: bench._Loop(fail)
    monkeypatch.setattr(bench, "PEERS", (peer(begin),))

    ours, theirs = bench.measure(0.01)["rows"]

    assert ours["value"] > 0
    assert theirs["missing"] == "does not start: RuntimeError: no display"


def test_what_a_peer_prints_stays_out_of_the_result(one_case, monkeypatch, capfd):
    def begin():
        os.write(1, b"hello from C\n")
        return bench._Loop(lambda: 1)

    monkeypatch.setattr(bench, "PEERS", (peer(begin),))

    bench.measure(0.01)

    out, err = capfd.readouterr()
    assert out == ""
    assert "hello from C" in err


@pytest.mark.parametrize(("name", "module"), [("CarRacing-v3", None), ("racetrack-v0", "highway")])
@pytest.mark.filterwarnings("ignore")
def test_gymnasium_peers_step(name, module):
    pytest.importorskip("highway_env" if module else "Box2D")

    loop = bench._gymnasium(name, "highway_env" if module else None)

    assert [loop.run() for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(("module", "begin"), [("mujoco", "_mujoco"), ("pybullet", "_pybullet")])
@pytest.mark.filterwarnings("ignore")
def test_physics_peers_step(module, begin):
    pytest.importorskip(module)

    assert getattr(bench, begin)(steps=3).run() == 3


def test_ratios_count_steps_of_environments_and_simulated_seconds_of_physics():
    ours = row("ours", "world", 15_000.0, 1000.0, beside=["toy", "physics", "absent"])
    rows = [
        ours,
        row("toy", "peers", 46.9, 0.94, ratio_by="steps"),  # 15,000 / 46.9 = 319.8
        row("physics", "peers", 500.0, 1.0, ratio_by="simulated seconds"),  # 1000 / 1
        row("absent", "peers", None, None, ratio_by="steps", missing="not installed: pip x"),
    ]

    text = bench.table(described(rows))

    line = next(line for line in text.splitlines() if line.startswith("  ours"))
    assert " ".join(line.split()) == (
        "ours 15,000 steps/s 13,500 to 16,500 1,000 x 320 toy, x 1,000 physics"
    )
    assert "what physics is" in text.partition("What is compared:")[2]


@pytest.mark.parametrize(
    ("value", "text"),
    [(12_345_678.0, "12,300,000"), (999.6, "1,000"), (180.4, "180"), (21.74, "21.7"), (0.5, "0.5")],
)
def test_figures_have_three_digits(value, text):
    assert bench._figure(value) == text


def test_the_table_begins_with_the_warning():
    text = bench.table(described([row("ours", "world", 1.0, None)], warning="much is going on"))

    assert text.splitlines()[2] == "WARNING: much is going on"
    assert "WARNING" not in bench.table(described([row("ours", "world", 1.0, None)]))


def test_results_are_appended_one_line_each(one_case, tmp_path):
    out = tmp_path / "results" / "bench.jsonl"

    first, second = (bench.measure(0.01, peers=False, out=out) for _ in range(2))

    assert [json.loads(line) for line in out.read_text().splitlines()] == [first, second]


def test_a_line_that_a_killed_writer_left_half_done_spoils_no_other(tmp_path):
    out = tmp_path / "bench.jsonl"
    out.write_text('{"a": 1}\n{"b"')

    bench.append(out, {"c": 3})

    assert out.read_text() == '{"a": 1}\n{"b"\n{"c": 3}\n'


def test_a_file_that_cannot_be_written_is_refused_before_the_work(one_case, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "_rate", lambda *_: pytest.fail("it measured first"))

    with pytest.raises(OSError, match="directory"):
        bench.measure(0.01, out=tmp_path)


def test_no_time_to_measure_is_refused():
    with pytest.raises(ConfigError, match=r"seconds: must be more than 0 \(got 0\)"):
        bench.measure(0)


def script(name):
    file = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


first_laps = script("first_laps")
report = script("report")

PROGRAM = """
import json, pathlib, sys, time
verb, *words = sys.argv[1:]
if verb == "evaluate":
    print(json.dumps({{"completion": {second}}}))
    sys.exit()
run = pathlib.Path(words[words.index("--out") + 1])
run.mkdir()
event = {{"kind": "clean_laps", "seconds": {clock}, "steps": 640, "mean_lap_s": 8.0}}
lines = [{{"kind": "evaluation"}}] + [event] * {laps}
(run / "events.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
report = {{"track": "t", "completion": {final}, "best_lap_s": 7.5, "mean_lap_s": 8.0}}
(run / "report.json").write_text(json.dumps({{**report, "lap_times_s": [[7.5, 8.5]]}}))
{more}
"""


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Measure a training by a program that only writes what a run would hold."""

    def measured(*, clock="0.1", laps=1, final=1.0, second=1.0, more="", limit=60.0, task="state"):
        file = tmp_path / "program.py"
        written = PROGRAM.format(clock=clock, laps=laps, final=final, second=second, more=more)
        file.write_text(written)
        monkeypatch.setattr(first_laps, "hotlap", lambda: [sys.executable, str(file)])
        return first_laps.measure(task, 0, None, limit)

    return measured


def test_clean_laps_are_timed_from_outside(train):
    start = time.monotonic()
    found = train()
    wall = time.monotonic() - start

    assert found["outcome"] == "clean"
    assert 0 < found["seconds"] <= found["wall_seconds"] < wall
    assert found["steps"] == 640
    assert found["report"]["best_lap_s"] == 7.5


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        ({"laps": 0}, "no clean laps"),
        ({"final": 0.8}, "the saved driver does not finish every lap"),
        ({"second": 0.8}, "the saved driver does not finish every lap"),
        ({"more": "sys.exit('hotlap: it broke')"}, "failed: hotlap: it broke"),
        ({"more": "time.sleep(60)", "limit": 0.5}, "ended at the limit of 0.5 s"),
    ],
)
def test_a_training_without_a_proven_clean_driver_is_kept_as_null(train, run, outcome):
    found = train(**run)

    assert found["outcome"] == outcome
    assert found["seconds"] is None


@pytest.mark.parametrize(("clock", "honest"), [("time.process_time()", True), ("-3.0", False)])
def test_a_run_whose_clock_differs_from_ours_is_called_dishonest(train, monkeypatch, clock, honest):
    monkeypatch.setattr(first_laps, "HONEST", 2.9)

    assert train(clock=clock)["honest"] is honest


def test_other_processes_have_what_the_machine_spent_besides_us(monkeypatch):
    monkeypatch.setattr(first_laps, "available", lambda: 2)

    # in 10 s on two cores the machine spent 12 s, we 7 s of them: others had 5 of 20
    assert first_laps.share_of_others((100.0, 1.0), (112.0, 8.0), 10.0) == 0.25
    assert first_laps.share_of_others(None, (1.0, 1.0), 10.0) is None


@pytest.mark.parametrize("module", [first_laps, report])
@pytest.mark.parametrize(
    ("times", "middle"), [([4, None, 2], 4), ([None, None, 2], None), ([3, 4], 3.5)]
)
def test_a_seed_that_never_laps_is_slower_than_any_other(module, times, middle):
    assert module.median(times) == middle


README = "# before\n{}\nbetween\n{}\nafter\n".format(
    *(f"<!-- results:{name} -->\nold\n<!-- /results:{name} -->" for name in ("speed", "learning"))
)


def laps_line(seed, seconds, *, session="2026-01-01T00:00:00", seeds=(0, 1), warning=None, **more):
    return {
        "kind": "first_laps",
        "task": "state",
        "seed": seed,
        "seeds": list(seeds),
        "session": session,
        "date": session,
        "commit": "abc1234",
        "conditions": {"warning": warning},
        "script": "python benchmarks/first_laps.py state --seeds 0 1",
        "machine": {**MACHINE, "torch": "2.0"},
        "seconds": seconds,
        "honest": True,
        "others": 0.0,
        "report": {"best_lap_s": 7.5},
        **more,
    }


@pytest.fixture
def write(tmp_path):
    """Write results and a README, and return a function that runs the script on them."""

    def run(lines, *words, text=README):
        (tmp_path / "results").mkdir(exist_ok=True)
        kept = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "results" / "some.jsonl").write_text(kept)
        file = tmp_path / "README.md"
        if not file.exists():
            file.write_text(text)
        places = ["--readme", str(file), "--results", str(tmp_path / "results")]
        return report.main([*places, *words]), file.read_text()

    return run


def test_the_readme_is_written_between_its_markers_and_checked(write):
    lines = [laps_line(0, 2.5)]

    assert write(lines, "--check") == (1, README)
    status, text = write(lines)

    assert status == 0
    assert "\nold\n" not in text
    kept = [line for line in text.splitlines() if line in ("# before", "between", "after")]
    assert kept == ["# before", "between", "after"]
    assert write(lines, "--check") == (0, text)
    assert write([laps_line(0, 2.6)], "--check") == (1, text)


def test_the_newest_session_counts_with_every_seed_it_was_asked_for(write):
    lines = [
        laps_line(0, 3.5, session="2026-02-01T00:00:00", seeds=[0, 1, 2]),
        laps_line(1, None, session="2026-02-01T00:00:00", seeds=[0, 1, 2]),
        laps_line(0, 1.0),
    ]

    _, text = write(lines)

    line = next(line for line in text.splitlines() if line.startswith("| from state"))
    assert "| **never** (3.50, never, never) |" in line
    assert "2026-02-01, abc1234: `python benchmarks/first_laps.py state --seeds 0 1`" in line


@pytest.mark.parametrize(
    ("line", "doubt"),
    [
        ({"warning": "busy"}, "state: the machine was busy before the start"),
        ({"others": 0.3}, "state: other processes took a good part of the cores"),
        ({"honest": False}, "state: the run's own clock differs from ours"),
    ],
)
def test_doubts_about_a_time_stand_below_it(write, line, doubt):
    _, text = write([laps_line(0, 2.5, **line)])

    assert f"**{doubt}**" in text
    assert "**state:" not in report.learning([laps_line(0, 2.5)])


def test_how_good_drivers_become_is_the_newest_row_of_each_seed(write):
    facts = {"kind": "fastest", "config": "configs/fast_state.toml", "track": "hard"}
    facts |= {"commit": "abc1234", "command": "hotlap train it"}
    rows = [
        facts | {"seed": 0, "ratio": 1.5, "date": "2026-01-01"},
        facts | {"seed": 0, "ratio": 1.02, "date": "2026-01-02"},
        facts | {"seed": 1, "ratio": 1.04, "date": "2026-01-03"},
        facts | {"seed": 2, "ratio": None, "date": "2026-01-04"},
        {"kind": "generalist", "seed": 3, "randomized 0-0.5": 0.98, "date": "2026-01-05",
         "commit": "def5678"},
    ]  # fmt: skip

    _, text = write(rows)

    assert (
        "| at most 1.03 | **1.040** (1.020, 1.040, none) | 2026-01-04, abc1234: `hotlap train it` |"
        in text
    )
    assert "| at least 97 % | **98%** (98%) | 2026-01-05, def5678: `" in text
    assert "How good" not in report.learning([laps_line(0, 2.5)])


def test_networks_stand_beside_torch_s_limit():
    figures = [
        {"name": one.name, "kind": one.kind, "value": 300.0, "torch": 200.0}
        for one in report.NETWORKS
    ]
    on = [{"kind": "networks", "device": d, "rows": figures} for d in ("cpu", "cuda")]

    found = report.networks([on[0], {**on[1], "rows": []}])

    assert "| camera network 64x48, training | 40,000 | **300** rows | 1.5 torch" in found[0]
    assert len(found) == len(report.NETWORKS)
    assert report.networks([on[1]]) == []
    assert {one.name for one in report.NETWORKS} <= {case[0] for case in script("networks").CASES}


def test_whole_loops_are_those_of_the_newest_measurement():
    script_rows = [{"name": name, "value": 300.0} for name, *_ in report.LOOPS]
    older = {"kind": "loop", "rows": []}

    found = report.loops([older, {"kind": "loop", "rows": script_rows}])

    says = report.LOOPS[2][1]
    assert found[2] == f"| {says} | 300,000 | **300** steps |  |  |"
    assert report.loops([{"kind": "speed"}]) == []
    assert [name for name, *_ in report.LOOPS] == [name for name, *_ in script("loop").CASES]


def test_a_task_that_takes_another_run_is_told_of_it():
    plain = first_laps.words("cookbook", 3, "RUN", 40)
    taking = first_laps.words("transfer", 3, "RUN", 40, "BEFORE")

    assert set(first_laps.BEFORE) <= set(first_laps.TASKS)
    assert set(taking) - set(plain) == {"--from", "BEFORE"}


def test_the_first_run_finds_no_file_read_before(train, monkeypatch, tmp_path):
    monkeypatch.setattr(first_laps, "CACHES", tmp_path / "drop_caches")

    train()
    assert not (tmp_path / "drop_caches").exists()
    train(task="first")
    assert (tmp_path / "drop_caches").read_text() == "3"

    monkeypatch.setattr(first_laps, "CACHES", tmp_path / "nowhere" / "drop_caches")
    with pytest.raises(SystemExit, match="the task 'first' needs root and Linux"):
        train(task="first")


def test_the_speed_table_takes_the_newest_line_and_all_threads(write):
    rows = [
        row(f"kernel, 16,384 cars, {n} threads", "world", 1e6 * n, None, beside=["toy"])
        for n in (1, 2)
    ]
    rows.append(row("toy", "peers", 1e3, None, ratio_by="steps"))
    newest = {**described(rows), "kind": "speed"}
    newest["machine"] = {**MACHINE, "numba": "0.1"}
    older = {**newest, "date": "2020-01-01", "commit": "0000000"}

    _, text = write([newest, older])

    line = next(line for line in text.splitlines() if line.startswith("| full physics"))
    assert "| 12,000,000 | **2,000,000** steps | 2,000 toy |" in line
    assert "commit abc1234" in text
    assert "0000000" not in text


def test_every_line_of_the_speed_table_finds_its_row():
    rows = [bench._row(case) | {"value": 1.0} for case in bench._cases()]

    for asked in report.SPEEDS:
        found = [
            r for r in rows if r["group"] == asked.group and r["name"].startswith(asked.begins)
        ]
        assert found, asked


def test_a_readme_without_markers_is_refused(write, capsys):
    with pytest.raises(SystemExit):
        write([], text="# nothing here\n")

    assert (
        "<!-- results:speed --> ... <!-- /results:speed --> are missing" in capsys.readouterr().err
    )
