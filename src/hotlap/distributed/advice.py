"""Advice: what forecasts say about how many workers to take, and what would move the bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hotlap.distributed.calibration import Calibration
from hotlap.distributed.sizing import PARTS, Forecast, Layout, Share, forecast

__all__ = ["advice", "designs", "forecasts", "speed_up"]

_WORTH = 0.5
"""Share of a worker's work alone that one of many should do, or it is dear."""

_REMEDIES = {
    "collecting": "more workers help",
    "learning": "more workers help",
    "stragglers": "take machines of one kind, or do not wait (distributed.synchronous=false with "
    "weights or experience)",
    "latency": "exchange less often: distributed.share=weights, or a larger algorithm.minibatch",
    "line": "a faster network, distributed.share=weights, or a smaller algorithm.network",
    "server": "exchange less often: distributed.share=weights, or a larger algorithm.minibatch",
    "calls": "give each worker more to do in a round: more train.cars, a longer algorithm.horizon",
}
_OF_EXPERIENCE = {
    "learning": "the learner is one process, so that more workers do not help: share gradients or "
    "weights, or lower algorithm.update_ratio or algorithm.epochs",
    "line": "a faster network, or distributed.share=weights",
}
_OF_WEIGHTS = {
    "latency": "give each worker more to do in a round: more train.cars, a longer "
    "algorithm.horizon",
    "line": "a faster network, a smaller algorithm.network, or more to do in a round",
    "server": "give each worker more to do in a round: more train.cars, a longer algorithm.horizon",
}


def forecasts(
    found: Calibration, layout: Layout, *, local: bool, synchronous: bool
) -> list[Forecast]:
    """Return what every way and size that was measured would do.

    Args:
        found: what was measured.
        layout: of the cluster.
        local: whether all workers are on one machine.
        synchronous: whether all wait for the slowest.
    """
    return [
        forecast(
            share,
            work,
            found.link,
            replace(layout, per_node=n) if local else replace(layout, per_node=_near(layout, n)),
            synchronous=synchronous,
            server=found.server,
            learner=found.learner,
        )
        for share, works in found.works.items()
        for n, work in works.items()
    ]


def _near(layout: Layout, workers: int) -> int:
    return min(layout.per_node, workers)


def speed_up(row: Forecast, rows: Sequence[Forecast]) -> float:
    """Return how many times as fast one of the forecasts is as its way with fewest workers.

    Counted for each of those fewest.
    """
    first = min((one for one in rows if one.share == row.share), key=lambda one: one.workers)
    return first.workers * row.steps_per_second / first.steps_per_second


def advice(rows: Sequence[Forecast]) -> str:
    """Return in one sentence how many workers to take, what limits them, and what to do."""
    best = max(rows, key=_counted)
    # Of those that are about as fast the one with fewest workers.
    enough = [one for one in rows if _counted(one) >= 0.97 * _counted(best)]
    best = min(enough, key=lambda one: (one.workers, -_counted(one)))
    mine = [one for one in rows if one.share == best.share]
    paid = [one for one in mine if speed_up(one, rows) >= _WORTH * one.workers]
    knee = max((one.workers for one in paid), default=mine[0].workers)
    # What keeps the next larger team from being faster.
    larger = next((one for one in sorted(mine, key=_size) if one.workers > best.workers), best)
    part = larger.bottleneck
    remedies = _REMEDIES
    if best.share != "gradients":
        remedies = remedies | (_OF_WEIGHTS if best.share == "weights" else _OF_EXPERIENCE)
    if (larger is not best or knee < best.workers) and best.share != "experience":
        few = "few cars take a worker hardly less time than many: more train.cars, or --cars-each"
        remedies = remedies | {"collecting": few, "learning": few}
    said = f"Fastest: {best.share} by {_workers(best)}, {best.steps_per_second:,.0f} steps/s"
    if best.late >= 0.05:
        said += f", of whose changes {best.late:.0%} come too late to count"
    if knee < best.workers:
        said += f"; beyond {knee} each further one does less than half of what one alone does"
    where = "" if larger is best else f"with {_workers(larger)} "
    return (
        f"{said}; {where}most time goes to {PARTS[part]} ({larger.saved[part]:.0%}): "
        f"{remedies[part]}."
    )


def _size(row: Forecast) -> int:
    return row.workers


def _workers(row: Forecast) -> str:
    return f"{row.workers} worker{'s' if row.workers > 1 else ''}"


def _counted(row: Forecast) -> float:
    return row.steps_per_second * (1.0 - row.late)


def designs(
    found: Calibration, layout: Layout, rows: Sequence[Forecast], *, local: bool
) -> list[Mapping[str, object]]:
    """Return what other ways to sum would bring, at the largest size.

    Where gradients travel, as these are summed most often.
    """
    works = found.works.get("gradients", {})
    n = max(works, default=1)
    if n < 4:
        return []
    placed = replace(layout, per_node=n if local else _near(layout, n))
    branches = math.ceil(math.sqrt(n))
    served = replace(placed, ring=False)
    plans = {
        "one server": served,
        "4 servers, each with a quarter of the vector": replace(served, servers=4),
        "16 servers, each with a sixteenth": replace(served, servers=16),
        f"a tree: a server for {branches} workers each, and one above": replace(
            served, branches=branches
        ),
    }
    if any(one.what == "ring" for one in works[n].exchanges):
        plans = {"in a ring, as it is": placed, **plans}
    built: list[tuple[str, Forecast]] = [
        (name, forecast("gradients", works[n], found.link, plan)) for name, plan in plans.items()
    ]
    names: dict[Share, str] = {
        "weights": "distributed.share=weights: one exchange a round",
        "experience": "distributed.share=experience: no server",
    }
    for share, name in names.items():
        built += [(name, one) for one in rows if (one.share, one.workers) == (share, n)]
    return [
        {
            "workers": n,
            "design": name,
            "steps_per_second": round(one.steps_per_second, 1),
            "bottleneck": one.bottleneck,
            "saved": round(one.saved[one.bottleneck], 3),
        }
        for name, one in built
    ]
