"""What a network learns and answers a second: python benchmarks/networks.py [--out FILE]

Ours is a student as distillation has it (`configs/distill.toml`): from pixels or numbers as the
world gives them to a gradient step of Adam and a running average, or to answers. Beside it stands
torch's own limit: the same layers as torch's modules, fed with tensors that are ready, forward,
backward and a fused Adam, in the fastest of its ways: one thread or one for each core, and pictures
with their channels first or last.

Every round gives each figure its turn; a figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import NetworkSettings, PPOSettings
from hotlap.algorithms.student import make_student
from hotlap.bench import append
from hotlap.machine import machine, stamp
from hotlap.threads import available

ACTION = ActionSpec("continuous", 2)
# name, what it sees, network, rows of a gradient step and of an answer
CASES: tuple[tuple[str, ObservationSpec, NetworkSettings, int, int], ...] = (
    ("27 numbers, 64 64", ObservationSpec((27,), "float32"), NetworkSettings(), 256, 1024),
    (
        "27 numbers, 256 256",
        ObservationSpec((27,), "float32"),
        NetworkSettings(mlp=(256, 256)),
        256,
        1024,
    ),
    ("48x32 grey, small", ObservationSpec((32, 48, 1), "uint8"), NetworkSettings(), 256, 1024),
    ("64x48 grey, small", ObservationSpec((48, 64, 1), "uint8"), NetworkSettings(), 256, 1024),
    ("160x120 grey, small", ObservationSpec((120, 160, 1), "uint8"), NetworkSettings(), 256, 256),
    (
        "160x120 grey, deepracer_shallow",
        ObservationSpec((120, 160, 1), "uint8"),
        NetworkSettings(cnn="deepracer_shallow"),
        128,
        128,
    ),
)

Work = Callable[[], object]


def ours(
    spec: ObservationSpec, network: NetworkSettings, rows: int, answers: int, device: str
) -> tuple[Work, Work]:
    """Return what takes a gradient step, and what answers."""
    rng = np.random.default_rng(0)
    seen = {"seen": spec}
    student = make_student(
        PPOSettings(network=network), seen, ACTION, ("seen",), averaging=0.99, seed=0, device=device
    )

    def frames(count: int) -> dict[str, np.ndarray]:
        if spec.dtype == "uint8":
            return {"seen": rng.integers(0, 256, (count, *spec.shape)).astype(np.uint8)}
        return {"seen": rng.normal(size=(count, *spec.shape)).astype(np.float32)}

    shown, asked = frames(rows), frames(answers)
    label = rng.uniform(-1, 1, (rows, ACTION.size)).astype(np.float32)
    student.see(shown)

    def learn() -> None:
        torch.set_num_threads(1)  # as in a training: its shards are threads themselves
        student.learn(shown, label, 1e-3)

    def answer() -> None:
        torch.set_num_threads(1)
        student.output(asked)

    return learn, answer


def bare(
    spec: ObservationSpec, network: NetworkSettings, rows: int, answers: int, device: str,
    *, last: bool, threads: int,
) -> tuple[Work, Work]:  # fmt: skip
    """Return the same of torch's own modules; `last` tells where pictures have their channels."""
    plan = make_plan(network, {"seen": spec}, ("seen",), ACTION.size)
    module = modules(plan).to(device)
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (spec.shape[2], *spec.shape[:2]) if plan.images else spec.shape
    shown, asked = (torch.randn(count, *shape, device=device) for count in (rows, answers))
    if plan.images:
        module = module.to(memory_format=layout)
        shown, asked = (one.contiguous(memory_format=layout) for one in (shown, asked))
    label = torch.rand(rows, ACTION.size, device=device) * 2 - 1
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def learn() -> None:
        torch.set_num_threads(threads)
        adam.zero_grad(set_to_none=True)
        nn.functional.mse_loss(module(shown), label).backward()
        adam.step()
        waited(device)

    def answer() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            module(asked)
        waited(device)

    return learn, answer


def waited(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def modules(plan: Plan) -> nn.Sequential:
    """Return a plan's layers as torch's modules."""
    layers: list[nn.Module] = []
    width = sum(plan.vectors.values())
    active = nn.ReLU if plan.activation == "relu" else nn.Tanh
    for image in plan.images.values():
        channels = image.shape[2]
        for filters, kernel, stride in image.conv:
            layers += [nn.Conv2d(channels, filters, kernel, stride), active()]
            channels = filters
        layers.append(nn.Flatten())
        width = int(np.prod(image.grid()))
    for given in plan.hidden:
        layers += [nn.Linear(width, given), active()]
        width = given
    return nn.Sequential(*layers, nn.Linear(width, plan.outputs))


def rate(work: Work, units: int, seconds: float) -> float:
    """Return how many units a second it does."""
    work()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count * units / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one figure in one round")
    parser.add_argument("--device", default="cpu", help="torch's name of it: cpu, cuda")
    parser.add_argument("--out", type=Path, help="append the results as one line of JSON")
    asked = parser.parse_args()
    begun, rows = stamp(), []
    for name, spec, network, learnt, answered in CASES:
        given = (spec, network, learnt, answered, asked.device)
        ways = {"ours": ours(*given)}
        for threads in sorted({1, available()}):
            for last in (True, False) if spec.dtype == "uint8" else (True,):
                way = f"torch {threads} {last}"
                ways[way] = bare(*given, last=last, threads=threads)
        found: dict[tuple[str, int], list[float]] = {}
        for _ in range(asked.rounds):
            for way, works in ways.items():
                for kind, units in enumerate((learnt, answered)):
                    value = rate(works[kind], units, asked.seconds)
                    found.setdefault((way, kind), []).append(value)
        for kind, word in enumerate(("training", "inference")):
            values = {way: statistics.median(found[way, kind]) for way in ways}
            mine = found["ours", kind]
            limit = max(value for way, value in values.items() if way != "ours")
            rows.append({
                "name": name, "kind": word, "rows": (learnt, answered)[kind],
                "value": round(values["ours"]), "spread": [round(min(mine)), round(max(mine))],
                "torch": round(limit), "unit": "rows/s",
            })  # fmt: skip
            print(
                f"{name:34s}{word:10s}{values['ours']:12,.0f} rows/s  torch's limit {limit:10,.0f}"
                f"  {values['ours'] / limit:5.2f} times"
            )
    if asked.out:
        facts: dict[str, Any] = {"kind": "networks", "device": asked.device, **begun}
        append(asked.out, {**facts, "threads": available(), "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
