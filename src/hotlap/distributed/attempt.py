"""Attempt: one trial of a sweep at work, as Ray Tune knows it.

What trains is the ordinary command `hotlap train` in a process of its own. It outlives neither this
actor nor the machine's patience: it hears of the end by its standard input, stops after its update,
and its Run holds a checkpoint. So whatever Tune restarts goes on from the Run, not from what Tune
remembers.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from hotlap.config import read_toml
from hotlap.distributed.axes import Choices, label, words
from hotlap.distributed.sweep_folder import LIMITS, Facts, Generation, Sweep
from hotlap.errors import RunError
from hotlap.files import explained
from hotlap.fleet import Fleet, Tail
from hotlap.runs import Run
from hotlap.runs.storage import Storage

__all__ = ["NOTHING", "Attempt", "values_of"]

NOTHING = 1e9
"""What is reported of a metric that has no value yet, or its opposite: worse than any."""
_LOOK, _PAUSE = 1.0, 0.05
_PATIENCE = 60.0
"""Seconds until another process lets go of a Run."""
_SHORTEST = 0.02
"""Share of the budget that a driver of another trial has at least, to show what it can."""
_MEMORY = "attempt.json"


class Attempt(tune.Trainable):
    """Trains a trial, tells Tune how it goes, and hands its driver to others.

    Its configuration holds the sweep's folder as `sweep`, `threads`, and a value for each axis.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the sweep's folder; the training begins with the first step."""
        folder = Path(config["sweep"])
        if not Sweep.is_at(folder):
            raise RunError(
                f"{folder} is not there on {platform.node()}: a sweep over several machines needs "
                "a folder that all of them share"
            )
        self.sweep = Sweep.open(folder)
        self.trial = self.sweep.trial(self.trial_name)
        self.inherited: dict[str, Any] = {}
        self.fleet: Fleet | None = None
        self.facts = Facts()
        self.tails: tuple[Tail, Tail] | None = None

    @property
    def now(self) -> Generation:
        """What is being trained."""
        return self.trial.generations[-1]

    @property
    def place(self) -> Path:
        """The directory of its Run."""
        return self.sweep.path / self.now.run

    def step(self) -> dict[str, Any]:
        """Wait a second or for the end, and say what the training has come to."""
        if self.fleet is None:
            self._begin()
        until = time.monotonic() + _LOOK
        state = "running"
        while state in ("waiting", "running") and time.monotonic() < until:
            state = self._tend()
            time.sleep(_PAUSE)
        if state == "failed":
            assert self.fleet is not None
            said = self.fleet.failures[self.place]
            self.trial = replace(self.trial, failures=(*self.trial.failures, said))
            self.sweep.write_trial(self.trial)
            raise RunError(said)
        done = state == "done"
        if done:
            self.facts = Facts.of(Run.open(self.place))
        elif self.tails is not None:
            for row in self.tails[0].read():
                self.facts.log(row)
            for event in self.tails[1].read():
                self.facts.note(event)
        return self._result(done)

    def _tend(self) -> str:
        if self.fleet is None:  # it had ended before this process began
            return "done"
        self.fleet.tend()
        return self.fleet.children[self.place].state

    def _result(self, done: bool) -> dict[str, Any]:
        search = self.sweep.search
        value = self.facts.value(search.metric)
        worst = NOTHING if search.mode == "min" else -NOTHING
        spent = self.facts.spent(self._limits())
        return {
            "value": worst if value is None else value,
            "spent": 1.0 if done else self.now.before + (1 - self.now.before) * spent,
            "done": done,
        }

    def _limits(self) -> dict[str, float]:
        """Return the budget of the present Run."""
        file = self.place / "config.toml"
        train = read_toml(file).get("train", {}) if file.is_file() else {}
        return {name: float(train.get(name, 0)) for name in LIMITS}

    def _begin(self) -> None:
        """Go on with the present Run, or begin another one if settings or driver are others."""
        self.trial = self.trial.taking(values_of(self.sweep, self.config), self.inherited)
        self.sweep.write_trial(self.trial)
        place, said = self.place, self._words()
        self.tails = Tail(place / "metrics.jsonl"), Tail(place / "events.jsonl")
        if not said:
            return
        os.chdir(self.sweep.home)  # what relative names of files are meant from
        threads = {place: int(self.config["threads"])}
        self.fleet = Fleet({place: said}, threads=threads)

    def _words(self) -> list[str]:
        """Return what follows `hotlap`; nothing if the training had come to its end."""
        place, now = self.place, self.now
        if (place / "meta.json").is_file():
            run = _free(place)
            if run.checkpoints():
                resumed = ["train", "--resume", self.sweep.at(now.run), "--quiet"]
                return [] if run.is_reported else resumed
        if place.exists():  # it was killed before its first checkpoint
            if self.sweep.storage is not None:
                Storage(self.sweep.at(now.run)).delete()
            else:
                with explained(place):
                    shutil.rmtree(place)
        given = {**self.sweep.fixed, **now.values}
        if now.before:
            left = max(1 - now.before, _SHORTEST)
            for name, limit in self.sweep.limits.items():
                if limit:
                    part = limit * left
                    given[f"train.{name}"] = part if name == "seconds" else max(1, round(part))
        said = ["train", str(self.sweep.path / "config.toml"), *words(given)]
        said += ["--out", self.sweep.at(now.run), "--quiet"]
        if now.snapshot:
            said += ["--from", str(self.sweep.path / now.snapshot), "--checkpoint", "last"]
        elif self.sweep.weights_from:
            said += ["--from", self.sweep.weights_from]
        return said

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Note who this is, and keep the present driver where another trial may begin with it."""
        facts: dict[str, Any] = {"trial": self.trial.name, "snapshot": None}
        if self.sweep.search.scheduler == "pbt" and self.trial.generations:
            facts |= self._keep_driver()
        Path(checkpoint_dir, _MEMORY).write_text(json.dumps(facts))

    def _keep_driver(self) -> dict[str, Any]:
        """Copy the last checkpoint, for the Run will delete it, into a Run of its own."""
        for _ in range(8):  # the Run's writer may delete it meanwhile
            try:
                run = Run.open(self.place)
                steps = run.checkpoints()[-1]
                policy, state = run.read_policy(steps), run.read_state(steps)
            except (RunError, IndexError):
                time.sleep(_PAUSE)
                continue
            name = f"lineage/{run.name}-after-{steps}"
            spent = Facts()
            spent.log({part: state[0].get(part) for part in LIMITS})
            share = spent.spent(self._limits())
            before = self.now.before + (1 - self.now.before) * share
            if not (self.sweep.path / name / "checkpoints" / "last").is_file():
                shutil.rmtree(self.sweep.path / name, ignore_errors=True)  # half of one
                meta = {"run": str(run.path), "steps": steps, "seed": run.meta.get("seed")}
                with Run.create(self.sweep.path / name, run.config_toml, meta) as copy:
                    copy.write_checkpoint(steps, policy=policy, state=state, best=False)
            return {"run": run.name, "steps": steps, "before": before, "snapshot": name}
        return {}

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Read whose driver to begin with."""
        self.inherited = json.loads(Path(checkpoint_dir, _MEMORY).read_bytes())

    def cleanup(self) -> None:
        """Stop the training after its update; its checkpoint is written then."""
        if self.fleet is not None:
            self.fleet.stop()


def values_of(sweep: Sweep, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that Tune's configuration stands for, by dotted name."""
    found = {}
    for axis in sweep.search.axes:
        value = config[axis.name]
        if isinstance(axis, Choices):
            named = {label(one): one for one in axis.values}
            found[axis.name] = named.get(value, value)
        else:
            found[axis.name] = axis.clip(value)
    return found


def _free(place: Path) -> Run:
    """Open a Run once nobody writes it any more.

    Raises:
        RunError: somebody still does after a minute.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        run = Run.open(place)
        try:
            run.claim()
        except RunError:
            if time.monotonic() > until:
                raise
            time.sleep(10 * _PAUSE)
        else:
            run.close()
            return run
