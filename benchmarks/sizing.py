"""What `hotlap plan` predicts beside what trains here, by one worker and by two.

    python benchmarks/sizing.py [CONFIG.toml ...] [--shares gradients weights experience]

Measures the parts, predicts this machine (`--network local`), and then trains with real workers, in
rounds, without evaluations: steps/s predicted and measured. Workers have one core each. Appends one
JSON line a configuration, way and number of workers to benchmarks/results/sizing.jsonl; a machine
that is busy meanwhile tells nothing about either.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from hotlap.bench import append
from hotlap.distributed.advice import forecasts
from hotlap.distributed.calibration import Calibration
from hotlap.distributed.cluster import connected
from hotlap.distributed.rehearsal import calibrated
from hotlap.distributed.sizing import Layout, Share
from hotlap.distributed.team import Team
from hotlap.kernels import compile_for
from hotlap.machine import cpu, stamp, version
from hotlap.plan import TrainConfig, read_config
from hotlap.threads import available
from hotlap.training import device_for

RESULTS = Path(__file__).parent / "results" / "sizing.jsonl"


def trained(config: TrainConfig, share: Share, workers: int, wait: bool, seconds: float) -> float:
    """Train for a while with real workers; return steps/s."""
    changed = {"workers": workers, "share": share, "threads": 1, "synchronous": wait}
    given = config.model_copy(update={"distributed": config.distributed.model_copy(update=changed)})
    team = Team(given, device_for(given))
    try:
        steps = 0
        for _ in range(3 * workers):  # the first rounds warm everything up
            steps += team.round(steps, 0.0).steps
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            done += team.round(steps + done, 0.0).steps
        return done / (time.perf_counter() - start)
    finally:
        team.close()


def predicted(
    found: Calibration, config: TrainConfig, *, wait: bool
) -> dict[tuple[str, int], float]:
    """Return steps/s by way and number of workers, for this machine."""
    layout = Layout(
        threads=found.threads,
        cores=found.cores,
        crowding=found.crowding,
        spread=found.spread,
        staleness=config.distributed.staleness,
    )
    rows = forecasts(found, layout, local=True, synchronous=wait)
    return {(row.share, row.workers): row.steps_per_second for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = ("gradients", "weights", "experience")
    parser.add_argument("configs", nargs="*", default=["configs/state.toml"])
    parser.add_argument("--shares", nargs="+", default=list(ways), choices=ways)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="how many")
    parser.add_argument("--apart", action="store_true", help="workers do not wait for each other")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each training")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines file to append to")
    asked = parser.parse_args()
    facts: dict[str, Any] = {
        "cpu": cpu(), "cores": available(), "torch": version("torch", "train"),
        "ray": version("ray", "distributed"),
    }  # fmt: skip
    for name in asked.configs:
        config = read_config(name, {"algorithm.warmup": 64} if _remembers(name) else {}).config
        compile_for(config)
        before = stamp()
        with connected(workers=available()):
            found = calibrated(config, asked.shares, asked.workers, seconds=0.4)
            said = predicted(found, config, wait=not asked.apart)
            for share in asked.shares:
                for workers in asked.workers:
                    measured = trained(config, share, workers, not asked.apart, asked.seconds)
                    expected = said[share, workers]
                    row = {
                        "kind": "sizing",
                        "config": name,
                        "share": share,
                        "synchronous": not asked.apart,
                        "workers": workers,
                        "predicted": round(expected, 1),
                        "measured": round(measured, 1),
                        "error": round(expected / measured - 1, 3),
                    }
                    line = row | {"crowding": found.crowding, "spread": found.spread}
                    append(
                        asked.out, line | before | {"machine": facts, "command": " ".join(sys.argv)}
                    )
                    print(row, flush=True)


def _remembers(name: str) -> bool:
    return hasattr(read_config(name).config.algorithm, "warmup")


if __name__ == "__main__":
    main()
