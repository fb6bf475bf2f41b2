"""Evaluations in a process of their own, beside evaluations in the loop: does it pay?

    python benchmarks/examiner.py {state,camera,deepracer} [--seeds 0 1] [--seconds 20]

Trains the same four ways, each in a fresh process: `none` never evaluates while it learns; `loop`
evaluates as `hotlap train` does; `process` hands each driver to an Examiner, as often as the loop
would; `always` gives the Examiner the next driver as soon as it has answered, and does not let it
stand back. Appends one JSON line each to results/examiner.jsonl, with the cores that other programs
took meanwhile: above 0.2 a line is not worth much.

An Examiner is told the weights of a moment and what was decided until then, and keeps nothing from
one driver to the next: the same weights and decisions give the same answer, whenever it comes. Here
the checkpoint that is then called best is of a few updates later, which does not matter for times.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import queue
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hotlap import training
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.bench import append
from hotlap.config import resolve
from hotlap.deepracer.recorder import Episode
from hotlap.errors import HotlapError, RunError
from hotlap.evaluate import Report
from hotlap.machine import machine, stamp
from hotlap.plan import TrainConfig
from hotlap.runs import Run
from hotlap.trials import Trial, Trials
from hotlap.types import Array

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "examiner.jsonl"
TASKS = {"state": "configs/state.toml", "camera": "configs/camera.toml",
         "deepracer": "examples/deepracer"}  # fmt: skip
MODES = ("none", "loop", "process", "always")
_SIZES = struct.Struct("<QQ")
"""Before each message: the bytes of its JSON document, and of the arrays after it."""
_GRACE = 10.0


@dataclass(frozen=True)
class Answer:
    """What became of a driver that was tried."""

    steps: int
    """Of training, when its weights were given."""
    trial: Trial
    decided: Mapping[str, Any]
    """What `Trials.restore` takes: the best score so far, and whether any driver was clean."""
    seconds: float
    """That the trial took."""


class Examiner:
    """Tries one driver after the other in a process of its own. Its owner is the training.

    Args:
        config: of the training.
        recorded: whether reports shall hold the episodes as DeepRacer logs them.
        kind: how much its process stands back where the cores are few; see nice(2).
    """

    def __init__(self, config: TrainConfig, *, recorded: bool = False, kind: int = 10) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(kind)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOTLAP_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the training, whose end it follows
        )
        self._said: queue.SimpleQueue[tuple[dict[str, Any], dict[str, Array]] | None]
        self._said = queue.SimpleQueue()
        self.busy = False
        tree = config.model_dump(mode="json", exclude_none=True)
        self._send({"config": tree, "recorded": recorded}, {})
        self._listener = threading.Thread(target=self._listen, daemon=True, name="examiner")
        self._listener.start()

    busy: bool
    """Whether a driver is being tried whose answer was not taken yet."""

    def ask(
        self, policy: tuple[Mapping[str, Any], Mapping[str, Array]], steps: int,
        decided: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Give it a driver to try: description and arrays, and what was decided until now."""
        assert not self.busy
        self.busy = True
        description, arrays = policy
        self._send({"policy": dict(description), "steps": steps, **decided}, arrays)

    def take(self, *, wait: bool = False) -> Report | Answer | None:
        """Return what it says next: the answer; or, before it, a training's first clean report.

        Args:
            wait: for it; else there may be nothing to say yet, which is None.

        Raises:
            RunError: its process has ended, or failed.
        """
        try:
            said = self._said.get(block=wait)
        except queue.Empty:
            return None
        if said is None:
            raise RunError(
                "the process that tries the drivers has ended "
                f"(status {self._process.wait()}); --resume goes on from the last checkpoint"
            )
        document, arrays = said
        if "error" in document:
            raise RunError(f"the process that tries the drivers: {document['error']}")
        report = _report(document["report"], arrays)
        if document["kind"] == "clean":
            return report
        self.busy = False
        again = document["again"] and _report(document["again"], {})
        trial = Trial(report, again, document["is_best"], document["first_clean"])
        decided = {key: document[key] for key in ("best", "clean")}
        return Answer(document["steps"], trial, decided, document["seconds"])

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(0.0 if self.busy else _GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, document, arrays)
        except OSError:
            self._said.put(None)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while True:
            said = _read(self._process.stdout)
            self._said.put(said)
            if said is None:
                return


def serve(kind: int) -> None:
    """Be the process: read from standard input, answer on standard output, until it is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a reward function prints is no answer
    questions = sys.stdin.buffer
    with suppress(OSError):
        os.nice(kind)
    try:
        first = _read(questions)
        if first is None:
            return
        config = resolve(TrainConfig, first[0]["config"])
        trials = Trials(config, config.evaluation, recorded=first[0]["recorded"])
        while (asked := _read(questions)) is not None:
            _try(trials, *asked, answers)
    except HotlapError as error:
        _write(answers, {"error": str(error)}, {})


def _try(
    trials: Trials, asked: Mapping[str, Any], arrays: Mapping[str, Array], answers: BinaryIO
) -> None:
    began = time.perf_counter()
    policy = NumpyPolicy(asked["policy"], arrays)
    trials.restore(asked)

    def clean(report: Report) -> None:
        _write(answers, {"kind": "clean", "report": report.as_dict()}, {})

    trial = trials.run(policy.act, asked["steps"], policy.begin, clean)
    document = {
        "kind": "answer",
        "steps": asked["steps"],
        "report": trial.report.as_dict(),
        "again": None if trial.again is None else trial.again.as_dict(),
        "is_best": trial.best,
        "first_clean": trial.first_clean,
        "seconds": time.perf_counter() - began,
        **trials.save(),
    }
    driven = enumerate(trial.report.episodes)
    episodes = {f"{k}.{one.car}.{one.track}": one.rows for k, one in driven}
    _write(answers, document, episodes)


def _report(document: Mapping[str, Any], arrays: Mapping[str, Array]) -> Report:
    """Return a report without its traces."""
    known = {field.name for field in fields(Report)}
    found = {key: _tuples(value) for key, value in document.items() if key in known}
    episodes = []
    for name, rows in arrays.items():
        _, car, track = map(int, name.split("."))
        episodes.append(Episode(car, track, rows))
    return Report(**found, episodes=tuple(episodes))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _write(pipe: BinaryIO, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a message: a JSON document, and arrays as they lie in memory."""
    packed = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [[name, array.dtype.str, array.shape] for name, array in packed.items()]
    head = json.dumps({"document": document, "arrays": listed}).encode()
    pipe.write(_SIZES.pack(len(head), sum(array.nbytes for array in packed.values())))
    pipe.write(head)
    for array in packed.values():
        pipe.write(array.tobytes())
    pipe.flush()


def _read(pipe: BinaryIO) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Read a message; None where the pipe was closed."""
    sizes = pipe.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    head_size, size = _SIZES.unpack(sizes)
    head, body = pipe.read(head_size), pipe.read(size)
    if len(head) + len(body) < head_size + size:
        return None
    found = json.loads(head)
    arrays, at = {}, 0
    for name, dtype, shape in found["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += arrays[name].nbytes
    return found["document"], arrays


# --- trainings, and what comes of them ---


class Examined(training.Training):
    """A training whose drivers are tried in one of the MODES."""

    mode = "loop"

    def loop(self, run: Run) -> None:
        if self.mode == "loop":
            super().loop(run)
            return
        self._due, self._took = self.trials.due, self.trials.took
        self._examiner: Examiner | None = None
        self._said: Report | Answer | None = None
        self.trials.took = lambda seconds, ended: None  # type: ignore[method-assign]
        self.trials.due = self._is_due  # type: ignore[method-assign]
        if self.mode != "none":
            kind = 0 if self.mode == "always" else 10
            recorded = self.practice.simtrace is not None
            self._examiner = Examiner(self.config, recorded=recorded, kind=kind)
        try:
            super().loop(run)
        finally:
            if self._examiner is not None:
                self._examiner.close()

    def _is_due(self, iteration: int, seconds: float, *, lapped: bool) -> bool:
        examiner = self._examiner
        if examiner is None:
            return False
        self._said = examiner.take() if examiner.busy else None
        if not examiner.busy and self._said is None:
            if self._due(iteration, seconds, lapped=lapped):
                self.practice.catch_up()
                examiner.ask(self.learner.policy_state(), self.steps, self.trials.save())
            return False
        return self._said is not None

    def _try(self) -> Trial:
        examiner = getattr(self, "_examiner", None)
        if examiner is None or self.is_over or self.stopped_by:
            return super()._try()
        said = self._said
        if isinstance(said, Report):
            self._announce(said)
            said = examiner.take(wait=True)
        assert isinstance(said, Answer)
        self._took(0.0 if self.mode == "always" else said.seconds, time.perf_counter())
        self.trials.restore(said.decided)
        trial = said.trial
        if self.practice.simtrace is not None:
            self.practice.simtrace.evaluated(trial.report)
        self.run.log_event("evaluation", steps=said.steps, best=trial.best, seconds=said.seconds)
        return trial


def train(mode: str, words: list[str]) -> None:
    """Train with evaluations in one of the modes; no plots and no film."""
    from hotlap import cli

    verb = importlib.import_module("hotlap.train")
    Examined.mode = mode
    verb.Training = Examined  # type: ignore[attr-defined]
    verb.write_outcome = lambda run: {}  # type: ignore[attr-defined]
    sys.argv = ["hotlap", "train", *words]
    cli.main()


def _used() -> tuple[float, float]:
    """Return core seconds of the machine, and of what we started."""
    fields_ = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]))
    busy = sum(fields_[k] for k in (0, 1, 2, 6, 7)) / os.sysconf("SC_CLK_TCK")
    mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy, sum(one.ru_utime + one.ru_stime for one in mine)


def measure(task: str, mode: str, seed: int, seconds: float) -> dict[str, Any]:
    """Train once, and say how fast and when it lapped."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [TASKS[task], f"train.seconds={seconds:g}", "--seed", str(seed), "--out", str(out)]
        busy, mine = _used()
        began = time.monotonic()
        said = subprocess.run(
            [sys.executable, __file__, "train", mode, *words, "--quiet"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        ).stderr  # fmt: skip
        later, own = _used()
        others = (later - busy - (own - mine)) / (time.monotonic() - began)
        run = Run.open(out)
        rows, events = run.metrics_rows(), run.events()
    if len(rows) < 2:
        sys.exit(f"{task}, {mode}: no two updates in {seconds:g} s: {said.decode()[-300:]}")
    first, last = rows[0], rows[-1]
    window = last["seconds"] - first["seconds"]
    tried = [event for event in events if event["kind"] == "evaluation"]
    took = [event["seconds"] for event in tried if "seconds" in event]
    if mode == "loop":
        took = [row["time/evaluate"] for row in rows if "evaluation/completion" in row]
    clean = [event["seconds"] for event in events if event["kind"] == "clean_laps"]
    return {
        "kind": "examiner", "task": task, "mode": mode, "seed": seed,
        "steps_per_second": round((last["steps"] - first["steps"]) / window, 1),
        "first_update_s": first["seconds"],
        "evaluations": len(took),
        "evaluation_s": round(statistics.median(took), 3) if took else None,
        "first_clean_s": clean[0] if clean else None,
        "others": round(others, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    given = parser.parse_args()
    for seed in given.seeds:
        for mode in given.modes:
            found = measure(given.task, mode, seed, given.seconds)
            append(RESULTS, {**found, **stamp(), "machine": machine()})
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    elif sys.argv[1:2] == ["train"]:
        train(sys.argv[2], sys.argv[3:])
    else:
        main()
