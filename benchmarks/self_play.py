"""Self-play against training alone: who passes a slower car, and at what price?

    python benchmarks/self_play.py [--seeds 0 1 2] [--steps 200000]

For each seed three drivers learn from the same number of steps of their own, on the oval, from the
state: `alone`, on an empty road; `self_play`, whose worlds are shared with one past version of
itself, of which all are kept; and `mixed`, which also meets a saved driver that may drive 2.5 m/s.
They race two held-out drivers that none of them has met, which learned alone: `slow` may drive
2 m/s at most, `equal` as fast as they can. Appends one JSON line a seed and driver to
results/self_play.jsonl; no seed is dropped. (Its lines of 300000 steps are of a pool that kept 8
versions.)
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

from hotlap.bench import append, machine, stamp
from hotlap.evaluate import evaluate
from hotlap.racing.race import race
from hotlap.runs import Run
from hotlap.train import train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "self_play.jsonl"
BASE: dict[str, Any] = {
    "track": "oval",
    "train.cars": 64,
    "train.seconds": 0,
    "evaluation.laps": 1,
    "evaluation.share": 0.02,
}
DRIVERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "self_play": {"opponents.drivers": ["self"], "opponents.keep": 16},
    "mixed": {"opponents.drivers": ["self", "steady"], "opponents.keep": 16},
}
STEADY: dict[str, Any] = {"seed": 102, "actions.speed_high": 2.5}
HELD_OUT: dict[str, dict[str, Any]] = {
    "slow": {"seed": 100, "actions.speed_high": 2.0},
    "equal": {"seed": 101},
}


def learn(out: Path, settings: dict[str, Any], steps: int) -> tuple[Run, float]:
    began = time.perf_counter()
    run = train(None, BASE | settings | {"train.steps": steps}, out=out)
    return run, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--laps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    # films and plots of drivers that are thrown away
    importlib.import_module("hotlap.train").write_outcome = lambda run: {}  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        held = {
            name: learn(Path(folder) / name, settings, given.steps // 2)[0]
            for name, settings in HELD_OUT.items()
        }
        steady, _ = learn(Path(folder) / "steady", STEADY, given.steps // 2)
        for seed in given.seeds:
            for name, settings in DRIVERS.items():
                own = settings | {"seed": seed}
                if settings:
                    met = [
                        str(steady.path) if d == "steady" else d for d in own["opponents.drivers"]
                    ]
                    own |= {"opponents.drivers": met, "opponents.every": given.steps // 16}
                run, seconds = learn(Path(folder) / f"{name}{seed}", own, given.steps)
                lonely = evaluate(run, trials=5, laps=3, checkpoint="last")
                row: dict[str, Any] = {
                    "driver": name,
                    "seed": seed,
                    "steps": given.steps,
                    "settings": settings,
                    "seconds": round(seconds, 1),
                    "alone": {
                        "completion": lonely.completion,
                        "mean_lap_s": lonely.mean_lap_s,
                        "best_lap_s": lonely.best_lap_s,
                    },
                }
                for other, rival in held.items():
                    found = race(
                        [run, rival], laps=given.laps, trials=20, checkpoint="last", seed=1
                    )
                    mine = next(r for r in found.racers if r.name == run.name)
                    theirs = next(r for r in found.racers if r.name != run.name)
                    row[other] = {
                        "races": found.trials,
                        "wins": mine.wins,
                        "finished": mine.finished,
                        "overtakes": mine.overtakes,
                        "overtaken": mine.overtaken,
                        "contacts": mine.contacts,
                        "ran_into": mine.ran_into,
                        "off_tracks": mine.off_tracks,
                        "stuck": mine.stuck,
                        "mean_lap_s": mine.mean_lap_s,
                        "its_ran_into": theirs.ran_into,
                        "its_off_tracks": theirs.off_tracks,
                        "its_mean_lap_s": theirs.mean_lap_s,
                    }
                append(given.out, {**stamp(), "machine": machine(), **row})
                print(row, flush=True)


if __name__ == "__main__":
    main()
