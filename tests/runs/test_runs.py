"""A Run survives whatever stops its writer, and says in one sentence what it is not."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest

from hotlap.errors import RunError
from hotlap.runs import Run, default_directory, list_runs
from hotlap.runs.traces import lap_times

POLICY = ({"kind": "mlp"}, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
STATE = ({"iteration": 1}, {"n": np.array(7, np.int64)})


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", "seed = 1\n", {"seed": 1}) as run:
        yield run


def checkpoint(run, steps, *, best=False, keep=3):
    run.write_checkpoint(
        steps,
        policy=({"steps": steps}, {"w": np.full(50, steps, np.float32)}),
        state=({"steps": steps}, {"m": np.full(50, steps, np.int64)}),
        best=best,
        keep=keep,
    )


def checkpoint_files(run):
    return sorted(entry.name for entry in (run.path / "checkpoints").iterdir())


def in_child(code, *words, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_a_new_run_can_be_opened_and_says_what_made_it(run):
    found = Run.open(run.path)

    assert found.config_toml == "seed = 1\n"
    assert found.meta["seed"] == 1
    assert found.meta["format"] == 1
    assert found.meta["versions"]["numpy"] == np.__version__
    assert found.meta["command"] == sys.argv
    assert found.name == "run"


def test_a_directory_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(RunError, match=r"is not empty \(it holds notes\.txt\).*--out.*--resume"):
        Run.create(tmp_path, "", {})

    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "config.toml").exists()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (None, "no such directory"),
        ({}, "has no config.toml"),
        ({"config.toml": ""}, "has no meta.json"),
        ({"config.toml": "", "meta.json": '{"format": '}, "meta.json is damaged: not JSON"),
        ({"config.toml": "", "meta.json": "[1]"}, "not a JSON object"),
        ({"config.toml": "", "meta.json": "{}"}, "no format version"),
        ({"config.toml": "", "meta.json": '{"format": 2}'}, "made by a newer hotlap"),
    ],
)
def test_what_is_not_a_run_is_named_in_one_sentence(tmp_path, files, says):
    path = tmp_path / "thing"
    if files is not None:
        path.mkdir()
        for name, content in files.items():
            (path / name).write_text(content)

    with pytest.raises(RunError) as caught:
        Run.open(path)

    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_is_no_run(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("")

    with pytest.raises(RunError, match="is a file; a Run is a directory"):
        Run.open(path)
    with pytest.raises(RunError, match="is a file"):
        Run.create(path, "", {})


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0]], np.float32),
        np.array([[1, 2, 3], [4, 5, 6]], np.int64).T,  # not contiguous
        np.array([True, False]),
        np.array(3.0),  # a scalar stays one
        np.zeros((0, 4), np.uint8),
        np.array(2**63, np.uint64),
        np.array([np.nan, np.inf], np.float16),
    ],
)
def test_arrays_come_back_bit_for_bit(run, array):
    run.write_checkpoint(5, policy=({}, {"any name/of. it": array}), state=STATE, best=False)

    found = run.read_policy("last")[1]["any name/of. it"]

    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_documents_come_back_with_the_whole_of_a_generators_state(run):
    state = np.random.default_rng(3).bit_generator.state

    run.write_checkpoint(
        1, policy=POLICY, state=({"rng": state, "f": np.float32(0.5)}, {}), best=False
    )

    assert run.read_state() == ({"rng": state, "f": 0.5}, {})


def test_what_json_cannot_hold_is_named_and_nothing_stays_behind(run):
    checkpoint(run, 1)

    with pytest.raises(RunError, match=r"laps\.best is inf"):
        run.write_checkpoint(2, policy=POLICY, state=({"laps": {"best": np.inf}}, {}), best=True)
    with pytest.raises(RunError, match="arrays of numbers"):
        run.write_checkpoint(2, policy=({}, {"w": np.array(["a"])}), state=STATE, best=True)

    assert checkpoint_files(run) == ["000000000001", "last"]


def test_best_and_last_name_their_checkpoints(run):
    checkpoint(run, 10)
    assert run.read_policy("best")[0] == {"steps": 10}  # none was called best: the last

    checkpoint(run, 20, best=True)
    checkpoint(run, 30)

    assert run.read_policy()[0] == {"steps": 20}
    assert run.read_policy("last")[0] == {"steps": 30}
    assert run.read_policy(10)[0] == {"steps": 10}
    assert run.read_state()[1]["m"][0] == 30
    assert json.loads((run.path / "checkpoints" / "best").read_text()) == {
        "steps": 20,
        "checkpoint": "000000000020",
    }


def test_the_newest_and_the_best_are_kept(run):
    for steps in range(1, 9):
        checkpoint(run, steps, best=steps == 2)

    assert run.checkpoints() == [2, 6, 7, 8]


def test_a_missing_checkpoint_is_answered_with_those_there_are(run):
    with pytest.raises(RunError, match="has no checkpoint yet"):
        run.read_policy()
    checkpoint(run, 10)

    with pytest.raises(RunError, match=r"no checkpoint 11: choose best, last or one of 10"):
        run.read_policy(11)
    with pytest.raises(RunError, match="choose best, last or a number"):
        run.read_policy("newest")


def test_a_damaged_checkpoint_is_named(run):
    checkpoint(run, 10)
    file = run.path / "checkpoints" / "000000000010" / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-8])

    with pytest.raises(RunError, match=r"000000000010 is damaged \(.*--checkpoint"):
        run.read_policy()


def test_a_checkpoint_of_the_same_steps_is_replaced(run):
    checkpoint(run, 10)

    run.write_checkpoint(10, policy=({"again": True}, {}), state=STATE, best=False)

    assert run.read_policy()[0] == {"again": True}
    assert checkpoint_files(run) == ["000000000010", "last"]


# Kills itself before the k-th call into the operating system of a checkpoint, for each k there is.
KILLED_EVERYWHERE = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from hotlap.runs import Run

    def write(run, steps, mark, best):
        run.write_checkpoint(
            steps, policy=({"mark": mark}, {"w": np.full(500, mark, np.float32)}),
            state=({"mark": mark}, {"m": np.full(500, mark)}), best=best, keep=1)

    def kill_at(count):
        def look(frame, event, what):
            nonlocal count
            if event == "c_call" and what.__module__ == "posix":
                count -= 1
                if count == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return look

    again = int(sys.argv[2])  # 1: the killed checkpoint replaces the only one
    k, survived = 0, False
    while not survived:
        k += 1
        path = Path(sys.argv[1]) / str(k)
        with Run.create(path, "", {}) as run:
            write(run, 10, 1, best=True)
        child = os.fork()
        if child == 0:
            run = Run.open(path)
            sys.setprofile(kill_at(k))
            write(run, 10 if again else 20, 2, best=True)
            sys.setprofile(None)
            os._exit(0)
        survived = os.waitpid(child, 0)[1] == 0
        marks = []
        for turn in ("as it is", "after the next writer"):
            run = Run.open(path)
            if turn != "as it is":
                run.claim()
                names = set(os.listdir(path / "checkpoints"))
                left = {n for n in names if not n.isdigit()} - {"last", "best"}
                assert not left, (k, left)
            for which in ("last", "best"):
                (pm, pa), (sm, sa) = run.read_policy(which), run.read_state(which)
                assert pm["mark"] == sm["mark"] in (1, 2), (k, which, turn)
                assert len(pa["w"]) == 500 and (pa["w"] == pm["mark"]).all(), (k, which, turn)
                assert (sa["m"] == pm["mark"]).all(), (k, which, turn)
                marks.append(pm["mark"])
            for steps in run.checkpoints():  # and so is each that is offered
                assert run.read_policy(steps)[0] == run.read_state(steps)[0], (k, steps, turn)
        assert not survived or marks == [2, 2, 2, 2], marks
        write(run, 30, 3, best=False)
        assert run.read_policy("last")[0] == {"mark": 3}
        run.close()
    print(k)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked writers")
@pytest.mark.parametrize("again", [0, 1])
def test_a_writer_killed_anywhere_in_a_checkpoint_leaves_complete_ones(again):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # spares the disk
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = in_child(KILLED_EVERYWHERE, folder, again)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30  # as many moments were tried


def test_a_line_cut_short_is_passed_over_and_the_next_one_is_whole(run):
    run.log_metrics({"iteration": 1, "reward": 2.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 2, "rew')

    assert Run.open(run.path).metrics_rows() == [{"iteration": 1, "reward": 2.0}]
    run.close()
    resumed = Run.open(run.path)
    resumed.log_metrics({"iteration": 2, "reward": 3.0})

    assert [row["iteration"] for row in resumed.metrics_rows()] == [1, 2]
    resumed.close()


def test_iterations_logged_again_after_a_resume_replace_the_lost_ones(run):
    for iteration, reward in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (2, 20.0), (3, 30.0)]:
        run.log_metrics({"iteration": iteration, "reward": reward})

    # 4 was reached by the killed process only: it is no longer part of this training.
    np.testing.assert_array_equal(run.metrics()["iteration"], [1, 2, 3])
    np.testing.assert_array_equal(run.metrics()["reward"], [1, 20, 30])


def test_numbers_that_are_none_become_null_and_read_as_nan(run):
    run.log_metrics({"iteration": 0, "lap": float("nan"), "kl": np.float32(0.5), "note": "a"})
    run.log_metrics({"iteration": 1, "lap": np.inf})

    text = (run.path / "metrics.jsonl").read_text()
    columns = run.metrics()

    assert "NaN" not in text
    assert "Infinity" not in text
    assert run.metrics_rows()[1] == {"iteration": 1, "lap": None}
    np.testing.assert_array_equal(columns["kl"], [0.5, np.nan])
    assert np.isnan(columns["lap"]).all()
    assert "note" not in columns


def test_events_keep_their_order_and_time(run):
    run.log_event("best_lap", seconds=12.5)
    run.log_event("checkpoint", steps=10)

    first, second = run.events()

    assert (first["kind"], first["seconds"]) == ("best_lap", 12.5)
    assert (second["kind"], second["steps"]) == ("checkpoint", 10)
    assert first["time"] <= second["time"]


def test_a_report_is_replaced_and_read_back(run):
    assert run.report() is None

    run.write_report({"best_lap_s": 12.5})
    run.write_report({"best_lap_s": np.float64(12.25), "laps": (1, 2)})

    assert run.report() == {"best_lap_s": 12.25, "laps": [1, 2]}


def test_two_writers_are_kept_apart_and_readers_are_not(run):
    other = Run.open(run.path)
    assert other.metrics_rows() == []

    with pytest.raises(RunError, match=rf"is being written by process {os.getpid()}:"):
        other.log_metrics({"iteration": 1})
    run.close()
    other.log_metrics({"iteration": 1})

    assert len(run.metrics_rows()) == 1
    other.close()


def test_the_lock_falls_with_a_killed_writer(tmp_path):
    code = """
        import os, signal, sys
        from hotlap.runs import Run
        run = Run.create(sys.argv[1], "", {})
        run.log_event("start")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = in_child(code, tmp_path / "run")
    assert done.returncode == -signal.SIGKILL

    with Run.open(tmp_path / "run") as run:
        run.log_event("resume")

    assert [event["kind"] for event in run.events()] == ["start", "resume"]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_and_harms_nothing(small_disk):
    with Run.create(small_disk / "run", "", {}) as run:
        checkpoint(run, 10, best=True)
        run.log_metrics({"iteration": 1})
        large = {"w": np.zeros(100_000)}  # 800 kB on a disk of 256

        with pytest.raises(RunError, match=r"policy\.safetensors: the disk is full") as caught:
            run.write_checkpoint(20, policy=({}, large), state=STATE, best=True)
        with pytest.raises(RunError, match=r"metrics\.jsonl: the disk is full"):
            run.log_metrics({"iteration": 2, "note": "x" * 400_000})
        run.log_metrics({"iteration": 3})

        assert caught.value.exit_code == 1
        assert run.checkpoints() == [10]
        assert run.read_policy("best")[0] == {"steps": 10}
        assert run.metrics_rows() == [{"iteration": 1}, {"iteration": 3}]
        assert checkpoint_files(run) == ["000000000010", "best", "last"]


def test_a_write_that_finds_the_disk_full_halfway_leaves_no_half_line(run, monkeypatch):
    run.log_metrics({"iteration": 1})
    write = os.write

    def half(file, content):
        if len(content) <= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(RunError, match="the disk is full"):
            run.log_metrics({"iteration": 2})
        with pytest.raises(RunError, match="the disk is full"):
            checkpoint(run, 20)

    assert (run.path / "metrics.jsonl").read_text() == '{"iteration": 1}\n'
    assert run.checkpoints() == []


def scalars(run, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's reader
def test_tensorboard_reads_each_row_once_also_after_a_resume(run):
    pytest.importorskip("tensorboard")
    run.log_metrics({"iteration": 1, "steps": 100, "reward": 0.5, "lap": None})
    run.sync_tensorboard()
    run.log_metrics({"iteration": 2, "steps": 200, "reward": 1.5, "lap": 12.0})
    run.log_metrics({"iteration": 3, "steps": 300, "reward": 2.5})
    run.sync_tensorboard()
    run.sync_tensorboard()

    assert scalars(run, "reward") == [(100, 0.5), (200, 1.5), (300, 2.5)]
    assert scalars(run, "lap") == [(200, 12.0)]

    run.close()
    with Run.open(run.path) as resumed:
        resumed.log_metrics({"iteration": 2, "steps": 200, "reward": 7.0})
        resumed.sync_tensorboard()

    assert scalars(run, "reward") == [(100, 0.5), (200, 7.0)]


def test_event_files_carry_the_published_checksum(run):
    pytest.importorskip("tensorboard")
    run.log_metrics({"iteration": 1, "steps": 100, "reward": 0.5})
    run.sync_tensorboard()

    (file,) = (run.path / "tensorboard").glob("*tfevents*")
    length, checksum = struct.unpack("<QI", file.read_bytes()[:12])

    # RFC 3720, B.4: CRC-32C of 32 zeros is 8a9136aa. Ours is tested through tensorboard's own.
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c, masked_crc32c

    assert crc32c(bytes(32)) == 0x8A9136AA
    assert checksum == masked_crc32c(struct.pack("<Q", length))


def test_without_tensorboard_one_event_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    run.log_metrics({"iteration": 1})

    run.sync_tensorboard()
    run.sync_tensorboard()

    assert [event["kind"] for event in run.events()] == ["no_tensorboard"]


def test_a_run_is_written_without_torch_or_tensorflow(tmp_path):
    code = """
        import sys
        import hotlap.runs
        from hotlap.runs import Run
        import numpy as np
        with Run.create(sys.argv[1], "", {}) as run:
            run.log_metrics({"iteration": 1, "reward": 1.0})
            run.write_checkpoint(1, policy=({}, {"w": np.zeros(2)}), state=({}, {}), best=True)
            run.sync_tensorboard()
        print({"torch", "ray", "tensorflow", "fsspec"} & set(sys.modules))
    """

    done = in_child(code, tmp_path / "run")

    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("start", [0.0, 4.0])
def test_lap_times_are_exact_between_the_rows(start):
    # 10 m around. After 2 s 2 m are missing, a second later 2 m too many were driven: the lap ended
    # at 2.5 s. The next rows are 1 m before and 3 m after its end: 4.25 s, which is 1.75 s later.
    trace = {
        "t": np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], np.float32),
        "s": np.float32((np.array([0.0, 4.0, 8.0, 12.0, 19.0, 23.0]) + start) % 10.0),
        "lap": np.array([0, 0, 0, 1, 1, 2], np.int32),
    }

    np.testing.assert_allclose(lap_times(trace, 10.0), [2.5, 1.75], rtol=1e-6)
    np.testing.assert_allclose(lap_times(trace, None), [3.0, 2.0])  # open: the row is the end


def test_the_next_free_directory_follows_the_highest_number(tmp_path):
    assert default_directory("oval", "ppo", tmp_path) == tmp_path / "oval-ppo-1"

    for name in ("oval-ppo-1", "oval-ppo-7", "oval-sac-9", "oval-ppo-x", "12"):
        (tmp_path / name).mkdir()

    assert default_directory("oval", "ppo", tmp_path) == tmp_path / "oval-ppo-8"
    assert default_directory("/data/my track.npy", "ppo", tmp_path).name == "my-track-ppo-1"


def test_runs_are_listed_oldest_first_and_latest_is_the_newest(tmp_path):
    with pytest.raises(RunError, match="holds no Run yet"):
        Run.open(tmp_path / "latest")
    for name, created in [("b", "2026-01-01"), ("a", "2026-01-03"), ("c", "2026-01-02")]:
        Run.create(tmp_path / name, "", {"created": created}).close()
    (tmp_path / "not-a-run").mkdir()

    assert [run.name for run in list_runs(tmp_path)] == ["b", "c", "a"]
    assert Run.open(tmp_path / "latest").name == "a"
    assert list_runs(tmp_path / "missing") == []


def segment(first):
    return {"x": np.arange(first, first + 4)}


def segment_files(run):
    return sorted(int(entry.stem) for entry in (run.path / "replay").iterdir())


def test_segments_live_as_long_as_the_last_checkpoint_needs_them(run):
    for first, needed in ((0, [0]), (4, [0, 4]), (8, [4, 8])):
        run.write_segment(first, segment(first))
        run.write_checkpoint(first, policy=POLICY, state=STATE, best=first == 0, segments=needed)

    assert segment_files(run) == [4, 8]
    assert run.read_state("last")[0]["segments"] == [4, 8]
    np.testing.assert_array_equal(run.read_segment(8)["x"], [8, 9, 10, 11])


def test_a_segment_that_no_checkpoint_names_is_cleared_by_the_next_writer(run):
    run.write_segment(0, segment(0))
    run.write_checkpoint(1, policy=POLICY, state=STATE, best=False, segments=[0])
    run.write_segment(4, segment(4))  # and killed before its checkpoint
    run.close()

    run.claim()

    assert segment_files(run) == [0]


def test_segments_before_the_first_checkpoint_are_cleared_by_the_next_writer(run):
    run.write_segment(0, segment(0))
    run.close()

    run.claim()

    assert segment_files(run) == []


@pytest.mark.parametrize("harm", [lambda f: f.unlink(), lambda f: f.write_bytes(b"not one")])
def test_a_harmed_segment_is_told_in_one_sentence(run, harm):
    run.write_segment(0, segment(0))
    harm(run.path / "replay" / "000000000000.safetensors")

    with pytest.raises(RunError, match=r"missing or damaged.*hotlap train --from") as caught:
        run.read_segment(0)

    assert "\n" not in str(caught.value)
