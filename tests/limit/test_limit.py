"""A Limit is kept by content, survives a damaged cache, and is read like a Report's trace."""

import builtins
import json
import math
from dataclasses import fields

import numpy as np
import pytest

import hotlap.limit as module
from hotlap.errors import ConfigError, MissingExtraError
from hotlap.limit import Limit, action_list, fastest_lap, lap_bound
from hotlap.runs.traces import lap_times
from hotlap.track import load_track
from hotlap.vehicle import VEHICLES

CAR = VEHICLES["deepracer"]
OVAL = load_track("oval")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of this test alone."""
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path))
    return tmp_path


def made(rows=101, seconds=4.0, **changes):
    """A lap of a circle of 4 m at 1 m/s, as a Limit."""
    t = np.linspace(0, seconds, rows)
    turn = math.tau * t / seconds
    radius = 4 / math.tau
    known = {
        "track": "circle",
        "vehicle": "deepracer",
        "rule": "centre",
        "model": "point",
        "lap_s": seconds,
        "coarse_s": seconds,
        "length": 4.0,
        "closed": True,
        "iterations": 1,
        "message": "",
        "t": t,
        "x": radius * np.cos(turn),
        "y": radius * np.sin(turn),
        "yaw": turn + math.pi / 2,
        "speed": np.ones(rows),
        "vx": np.ones(rows),
        "vy": np.zeros(rows),
        "yaw_rate": np.full(rows, math.tau / seconds),
        "reference": np.ones(rows),
        "steering": np.full(rows, 0.1),
        "command_speed": np.ones(rows),
        "command_steering": np.full(rows, 0.1),
        "s": 4.0 * np.append(t[:-1], 0.0) / seconds,
        "n": np.zeros(rows),
        "travelled": 4.0 * t / seconds,
    }
    return Limit(**{**known, **changes})


def counted(monkeypatch, answer=None):
    """Replace the solver; return the list of its calls."""
    calls = []

    def solve(track, vehicle, rule, seconds=0.0):
        calls.append((track.name, vehicle.name, rule))
        return answer or made()

    monkeypatch.setattr(module, "_solve", solve)
    return calls


def same(one, other):
    for field in fields(Limit):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    limit = made()

    same(Limit.load(limit.save(tmp_path / "a" / "limit.npz")), limit)

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["limit.npz"]


def test_the_second_question_is_answered_from_the_cache(monkeypatch):
    calls = counted(monkeypatch)

    first = fastest_lap(OVAL, CAR)

    same(fastest_lap(OVAL, CAR), first)
    assert len(calls) == 1
    renamed = CAR.model_copy(update={"name": "twin", "source": "elsewhere"})
    fastest_lap(OVAL, renamed)  # another name, the same car
    assert len(calls) == 1


def test_whatever_the_answer_depends_on_asks_the_solver_again(monkeypatch):
    calls = counted(monkeypatch)
    fastest_lap(OVAL, CAR)

    fastest_lap(OVAL.reversed(), CAR)
    fastest_lap(OVAL, CAR.model_copy(update={"friction": 0.71}))
    fastest_lap(OVAL, CAR, rule="centre")
    fastest_lap(OVAL, CAR, cache=False)

    assert len(calls) == 5


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", "half", "foreign"])
def test_a_damaged_file_in_the_cache_is_computed_again(monkeypatch, home, damage):
    calls = counted(monkeypatch)
    fastest_lap(OVAL, CAR)
    (file,) = (home / "limits").iterdir()
    if damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "foreign":
        np.savez(file, facts=np.array(json.dumps({"lap_s": 1.0})))
    else:
        file.write_bytes(damage)

    fastest_lap(OVAL, CAR)
    fastest_lap(OVAL, CAR)

    assert len(calls) == 2


def test_what_a_killed_process_left_behind_is_not_met(monkeypatch, home):
    calls = counted(monkeypatch)
    fastest_lap(OVAL, CAR)
    (file,) = (home / "limits").iterdir()
    file.rename(file.with_name(f".{file.name}.4711"))  # killed between writing and renaming

    fastest_lap(OVAL, CAR)

    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(monkeypatch, home):
    counted(monkeypatch)
    (home / "limits").write_text("a file where the folder should be")

    assert fastest_lap(OVAL, CAR).lap_s == 4.0


def test_a_file_that_is_no_limit_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nonsense")

    for name in ("x.npz", "absent.npz"):
        with pytest.raises(ConfigError, match="is no saved limit"):
            Limit.load(tmp_path / name)


def test_without_casadi_the_install_line_is_named_and_reports_go_without(monkeypatch):
    find = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "casadi" else find(name)
    )

    with pytest.raises(MissingExtraError, match=r"pip install 'hotlap\[limit\]'"):
        fastest_lap(OVAL, CAR)
    assert lap_bound(OVAL, CAR, "all_wheels") is None


def test_importing_the_limit_does_not_import_casadi(monkeypatch):
    import importlib
    import sys

    real = builtins.__import__

    def guarded(name, *args, **kwargs):
        assert not name.startswith("casadi")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    for name in [name for name in sys.modules if name.startswith("hotlap.limit")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("hotlap.limit")


def test_a_report_does_not_wait_for_a_course_of_many_gates(monkeypatch):
    calls = counted(monkeypatch)
    monkeypatch.setattr(module, "_QUICK_GATES", 100)

    assert lap_bound(OVAL, CAR, "all_wheels") is None
    assert calls == []
    fastest_lap(OVAL, CAR)  # once somebody has asked for it, it costs nothing

    assert lap_bound(OVAL, CAR, "all_wheels").lap_s == 4.0


def test_a_trace_has_a_row_every_step_and_its_lap_takes_the_limits_time():
    limit = made(seconds=4.01)

    trace = limit.trace(dt=0.1)

    assert len(trace["t"]) == 42  # 0, 0.1 ... 4.1: the first row beyond the lap
    np.testing.assert_allclose(np.diff(trace["t"]), 0.1, rtol=1e-4)
    assert lap_times(trace, 4.0).tolist() == pytest.approx([4.01], abs=1e-3)
    assert {column.dtype for name, column in trace.items() if name != "lap"} == {np.dtype("f4")}
    radius = np.hypot(trace["x"], trace["y"])
    np.testing.assert_allclose(radius, 4 / math.tau, rtol=1e-3)
    assert (np.abs(trace["yaw"]) <= np.float32(math.pi)).all()


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_it_passes_every_place_when_its_motion_says_so(first):
    """Twice as fast on the second half: 2 m in 2 s, then 2 m in 1 s; wherever its rows begin."""
    far = np.arange(5.0)
    s = (first + far) % 4.0
    pace = np.where(s[:-1] < 2, 1.0, 0.5)
    limit = made(
        rows=5, seconds=3.0, t=np.append(0, np.cumsum(pace)), s=s, travelled=far,
        n=0.1 * s,
    )  # fmt: skip

    seconds, beside = limit.passing([0.0, 0.5, 2.0, 3.0, 4.0])

    np.testing.assert_allclose(seconds, [0, 0.5, 2, 2.5, 3], atol=1e-9)
    np.testing.assert_allclose(beside, [0, 0.05, 0.2, 0.3, 0], atol=1e-9)


def test_actions_are_the_clusters_of_what_the_lap_commands():
    # Three kinds of moments: straight at 4, left 0.3 rad = 17.2 degrees at 2, right at 1 m/s.
    kind = np.repeat([0, 1, 2], 100)
    speed, steering = np.choose(kind, [4.0, 2.0, 1.0]), np.choose(kind, [0.0, 0.3, -0.3])
    limit = made(rows=300, command_speed=speed, command_steering=steering)

    found = action_list(limit, 3)

    expected = [(-17.2, 1.0), (0.0, 4.0), (17.2, 2.0)]
    np.testing.assert_allclose(found, expected, atol=0.15)
    assert action_list(limit, 3) == found


@pytest.mark.parametrize("count", [0, 1, 2])
def test_more_actions_than_there_are_moments_are_refused(count):
    with pytest.raises(ConfigError, match=rf"actions: .* \(got {count}\)"):
        action_list(made(), count)
