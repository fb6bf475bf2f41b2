"""The command `hotlap plan`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hotlap.commands.console import Json, say, show
from hotlap.errors import ConfigError

if TYPE_CHECKING:
    from hotlap.distributed.calibration import Calibration
    from hotlap.distributed.sizing import Forecast, Layout, Network, Share
    from hotlap.plan import TrainConfig

__all__ = ["plan_command"]

_SHARES: tuple[Share, ...] = ("gradients", "weights", "experience")


def plan_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.toml | FOLDER] [KEY=VALUE]...",
            help="What is to be trained, as for hotlap train.",
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|LIST|RANGE", help="How many: 8, or 1,2,6; or 1..64, which doubles."
        ),
    ] = "1..64",
    share: Annotated[
        str, typer.Option(help="What travels: gradients, weights, experience; or all.")
    ] = "all",
    network: Annotated[
        str,
        typer.Option(
            metavar="LINE,PING",
            help="Each node's line and a round trip; or local: all workers on this machine.",
        ),
    ] = "1Gbit,0.5ms",
    per_node: Annotated[int, typer.Option(min=1, max=1024, help="Workers on each node.")] = 1,
    cars_each: Annotated[
        int | None,
        typer.Option(min=1, help="Cars of each worker; train.cars are shared out if not given."),
    ] = None,
    stragglers: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            help="Standard deviation of a worker's time, as a share of it; as measured if not "
            "given.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps to train; tells how long they take.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Of a core for an hour, in your money; tells what it costs."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Measurements to use; if there is no such file, to write."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict how fast a training would be with so many workers, and what it would need.

    Measures one worker, its learner and a server here, and simulates the others.
    """
    from hotlap.config import overrides
    from hotlap.distributed.advice import advice, designs, forecasts
    from hotlap.distributed.sizing import Layout, read_network, read_sizes
    from hotlap.plan import anchored, read_config

    sizes, line = read_sizes(workers), read_network(network)
    local = network.strip().lower() == "local"
    if local and per_node != 1:
        raise ConfigError("--per-node: with --network local all workers are on this machine")
    if share not in ("all", *_SHARES):
        raise ConfigError(f"--share: choose from {', '.join(_SHARES)}, all (got {share})")
    if price is not None and not math.isfinite(price):
        raise ConfigError(f"--price: give a number (got {price})")
    given = list(words or [])
    sources = [word for word in given if "=" not in word or Path(word).exists()]
    if len(sources) > 1:
        raise ConfigError(
            f"{sources[1]}: one configuration file or folder is enough, {sources[0]} is given. "
            "Settings are written section.field=value."
        )
    source = sources[0] if sources else None
    plan = read_config(source, overrides([word for word in given if word != source]))
    plan.config.tracks()
    config = anchored(plan.config)
    shares = _SHARES if share == "all" else tuple(one for one in _SHARES if one == share)
    found = _measured(config, shares, sizes, cars_each or 0, calibration)
    layout = Layout(
        network=line,
        per_node=per_node,
        threads=found.threads,
        cores=found.cores,
        crowding=found.crowding,
        spread=found.spread if stragglers is None else stragglers,
        staleness=config.distributed.staleness,
    )
    synchronous = config.distributed.synchronous
    rows = forecasts(found, layout, local=local, synchronous=synchronous)
    wanted = steps or config.train.steps or None
    facts: dict[str, Any] = {
        "measured": {
            "made": found.made,
            "machine": found.machine,
            "cores": found.cores,
            "crowding": round(found.crowding, 3),
            "spread": round(found.spread, 4),
        },
        "network": {
            "local": local,
            "bandwidth": None if local else line.bandwidth,
            "ping_s": line.ping,
        },
        "per_node": per_node,
        "threads": found.threads,
        "stragglers": layout.spread,
        "synchronous": synchronous,
        "forecasts": [_facts(row, rows, found, config, wanted, price) for row in rows],
        "refused": found.refused,
        "designs": designs(found, layout, rows, local=local),
        "advice": advice(rows),
    }
    if as_json:
        show(json.dumps(facts, indent=2, allow_nan=False))
        return
    _print(facts, found, line, layout, local=local)


def _measured(
    config: TrainConfig,
    shares: tuple[Share, ...],
    sizes: list[int],
    each: int,
    file: Path | None,
) -> Calibration:
    """Read what was measured, or measure it."""
    from hotlap.distributed.calibration import chosen, read, write

    if file is not None and file.exists():
        return chosen(read(file, config, each), shares, sizes, file)
    import importlib.util

    from hotlap.errors import MissingExtraError

    for package, extra in (("torch", "train"), ("ray", "distributed")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("measuring for hotlap plan", package, extra)
    from hotlap.distributed.rehearsal import calibrated
    from hotlap.kernels import compile_for

    compile_for(config)
    found = calibrated(config, shares, sizes, each=each, tell=say)
    if file is not None:
        write(file, found)
        say(f"calibration: {file}")
    return found


def _facts(
    row: Forecast,
    rows: list[Forecast],
    found: Calibration,
    config: TrainConfig,
    steps: int | None,
    price: float | None,
) -> dict[str, Any]:
    """Return a forecast, ready for JSON."""
    from hotlap.distributed.advice import speed_up

    # The learner computes with what this machine has; a server and its driver share a core.
    cores = row.workers * found.threads + (found.cores if row.share == "experience" else 1)
    seconds = None
    if steps is not None:
        seconds = steps / row.steps_per_second * (1.0 + config.evaluation.share)
    hours = None if seconds is None else seconds / 3600
    return {
        "share": row.share,
        "workers": row.workers,
        "cars_each": row.rows,
        "steps_per_second": round(row.steps_per_second, 1),
        "speed_up": round(speed_up(row, rows), 3),
        "bottleneck": row.bottleneck,
        "saved": {part: round(value, 4) for part, value in row.saved.items()},
        "late": round(row.late, 4),
        "exchange_bytes": row.exchange,
        "exchanges_per_round": row.exchanges,
        "server_in_bytes_per_s": round(row.received),
        "server_out_bytes_per_s": round(row.sent),
        "worker_bytes_per_s": round(row.worker),
        "memory_bytes": dict(row.memory),
        "cores": cores,
        "steps": steps,
        "seconds": None if seconds is None else round(seconds, 1),
        "cost": None if hours is None or price is None else round(price * cores * hours, 6),
        "cost_per_million_steps": None
        if price is None
        else round(price * cores / 3600 * 1e6 / row.steps_per_second, 6),
    }


def _print(
    facts: dict[str, Any], found: Calibration, line: Network, layout: Layout, *, local: bool
) -> None:
    """Print the tables."""
    cores = f"{found.threads} core{'s' if found.threads > 1 else ''}"
    where = f"this machine, {found.cores} cores"
    if not local:
        where = (
            f"{layout.per_node} worker{'s' if layout.per_node > 1 else ''} a node, "
            f"{line.bandwidth * 8 / 1e9:g} Gbit/s, ping {line.ping * 1e3:g} ms"
        )
    show(f"workers of {cores}; {where}; their times spread by {layout.spread:.0%}")
    show(f"measured on {found.machine}; {found.age}")
    rows = facts["forecasts"]
    timed = rows[0]["seconds"] is not None
    priced = rows[0]["cost_per_million_steps"] is not None
    title = (
        f"{'share':<11}{'workers':>7}{'cars':>6}{'steps/s':>11}{'times 1':>9}  {'goes most to':<16}"
        f"{'exchange':>9}{'a round':>8}{'server MB/s':>12}{'each MB/s':>10}{'memory GB':>13}"
    )
    if timed:
        title += f"{'time':>10}"
    if priced:
        title += f"{'cost' if timed else 'cost a million':>15}"
    show(title)
    for row in rows:
        memory = row["memory_bytes"]
        head = memory["server"] + memory["learner"]
        learns = row["share"] == "experience"
        head += memory["replay"] if learns else 0
        worker = memory["worker"] + (0 if learns else memory["replay"])
        most = f"{row['bottleneck']} {row['saved'][row['bottleneck']]:.0%}"
        both = row["server_in_bytes_per_s"] + row["server_out_bytes_per_s"]
        text = (
            f"{row['share']:<11}{row['workers']:>7}{row['cars_each']:>6}"
            f"{row['steps_per_second']:>11,.0f}{row['speed_up']:>9.2f}  {most:<16}"
            f"{_size(row['exchange_bytes']):>9}{row['exchanges_per_round']:>8}"
            f"{both / 1e6:>12,.1f}{row['worker_bytes_per_s'] / 1e6:>10,.2f}"
            f"{f'{worker / 1e9:.1f} + {head / 1e9:.1f}':>13}"
        )
        if timed:
            text += f"{_time(row['seconds']):>10}"
        if priced:
            text += f"{row['cost'] if timed else row['cost_per_million_steps']:>15,.4f}"
        show(text)
    show("memory: of a node with workers + of the one with server, driver and learner")
    late = [row for row in rows if row["late"] >= 0.005]
    for row in late:
        show(
            f"{row['share']} by {row['workers']}: {row['late']:.0%} of the changes come too late "
            f"to count (distributed.staleness={layout.staleness})"
        )
    for reason, names in _reasons(facts["refused"]).items():
        show(f"not {', '.join(names)}: {reason}")
    if facts["designs"]:
        count = facts["designs"][0]["workers"]
        show(f"gradients by {count} workers; ways to sum them, of which the first is built:")
        for one in facts["designs"]:
            most = f"{one['bottleneck']} {one['saved']:.0%}"
            show(f"  {one['design']:<58}{one['steps_per_second']:>11,.0f} steps/s  {most}")
    show(facts["advice"])


def _reasons(refused: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in refused.items():
        found.setdefault(reason, []).append(name)
    return found


def _size(count: int) -> str:
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
