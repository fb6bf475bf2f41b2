"""The commands `hotlap vehicle ...`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from hotlap.commands.console import Json, show
from hotlap.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(help="List cars and say what they can do.", no_args_is_help=True)


@app.command("list")
def vehicle_list(as_json: Json = False) -> None:
    """List the cars that can be named, and where their numbers come from."""
    from hotlap.vehicle import VEHICLES

    rows = [
        {
            "name": car.name,
            "wheelbase_m": round(car.front_axle + car.rear_axle, 3),
            "speed_max": round(car.speed_max * car.speed_gain, 2),
            "friction": car.friction,
            "steering_lag_s": car.steering_lag,
            "speed_lag_s": round(1 / car.motor_gain + car.motor_lag, 3),
            "source": car.source,
        }
        for car in VEHICLES.values()
    ]
    if as_json:
        show(json.dumps(rows, indent=2))
        return
    show(
        f"{'name':<13} {'wheelbase m':>11} {'top m/s':>8} {'friction':>8} {'steering lag s':>14} "
        f"{'speed lag s':>11}"
    )
    for row in rows:
        show(
            f"{row['name']:<13} {row['wheelbase_m']:>11} {row['speed_max']:>8} "
            f"{row['friction']:>8} {row['steering_lag_s']:>14} {row['speed_lag_s']:>11}"
        )
    show("hotlap vehicle show NAME tells what one can do, and where its numbers come from")


@app.command("show")
def vehicle_show(
    name: Annotated[str, typer.Argument(metavar="VEHICLE", help="Name or TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write (PNG).")] = None,
    as_json: Json = False,
) -> None:
    """Drive a car to its limits: top speed, tightest turns, braking, starting."""
    from hotlap.proving import advice, limits
    from hotlap.vehicle import load_vehicle

    car = load_vehicle(name)
    found = limits(car)
    table = [
        {
            "speed": round(float(v), 3),
            "radius_m": _rounded(r),
            "lateral": _rounded(v * v / r),
            "stopping_m": _rounded(way),
            "from_rest_s": _rounded(t),
        }
        for v, r, way, t in zip(
            found.speed, found.radius, found.stopping, found.reached, strict=True
        )
    ]
    facts: dict[str, Any] = {
        "name": car.name,
        "source": car.source,
        "top_speed": round(found.speed_top, 3),
        "lateral_max": round(found.lateral, 3),
        "radius_min_m": round(car.radius_min, 3),
        "braked_to": round(found.slow, 3),
        "advice": advice(car, found),
    }
    if out is not None:
        from hotlap import plot

        facts["picture"] = str(plot.save(plot.vehicle_picture(car.name, found), out))
    if as_json:
        parameters = car.model_dump(exclude={"name", "source"})
        show(json.dumps({**facts, "at": table, "parameters": parameters}, indent=2))
        return
    show(f"{car.name}: {car.source}")
    show(
        f"top speed {facts['top_speed']} m/s, {facts['lateral_max']} m/s^2 in turns, tightest "
        f"turn {facts['radius_min_m']} m at walking pace"
    )
    show(
        f"{'at m/s':>8} {'tightest turn m':>16} {'lateral m/s^2':>14} "
        f"{f'braked to {found.slow:.1f} m/s m':>21} {'from rest s':>12}"
    )
    for row in table:
        cells = ("-" if value is None else value for value in row.values())
        show("{:>8} {:>16} {:>14} {:>21} {:>12}".format(*cells))
    for sentence in facts["advice"]:
        show(f"note: {sentence}")
    if out is not None:
        show(f"picture: {facts['picture']}")


@app.command("identify")
def vehicle_identify(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG.csv",
            help="Columns t, x, y, yaw, steering_command, speed_command (SI units), if known "
            "speed and episode; or a simtrace of DeepRacer.",
        ),
    ],
    base: Annotated[str, typer.Option(help="Set that the car is most like.")] = "deepracer",
    out: Annotated[Path | None, typer.Option(help="TOML file of the car to write.")] = None,
    point: Annotated[
        float | None,
        typer.Option(
            help="How far the logged point is ahead of the centre of gravity [m]; 0 if not given, "
            "0.14 for a simtrace."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a car's lags, gains, friction and wheelbase from a log of its driving."""
    from hotlap.identify import identify, read_log
    from hotlap.vehicle import VEHICLES

    if base not in VEHICLES:
        raise ConfigError(f"--base: choose from {', '.join(VEHICLES)} (got {base})")
    if out is not None and out.suffix != ".toml":
        raise ConfigError(f"--out: a car's file ends in .toml (got {out})")
    found = identify(read_log(log, point), VEHICLES[base])
    if out is not None:
        out.write_text(found.to_toml())
    if as_json:
        facts = {
            name: {
                "value": _rounded(f.value, 5),
                "base": _rounded(f.base, 5),
                "uncertainty": _rounded(f.uncertainty, 5),
                "seen": f.seen,
            }
            for name, f in found.findings.items()
        }
        left = {
            "position_error_m": _rounded(found.position_error, 5),
            "yaw_error_deg": _rounded(math.degrees(found.yaw_error), 4),
            "windows": found.windows,
            "vehicle": None if out is None else str(out),
        }
        show(json.dumps({"base": base, "parameters": facts, **left}, indent=2))
        return
    show(f"{'parameter':<13} {'value':>9} {'+-':>7} {base:>13}")
    for name, f in found.findings.items():
        said = f"{f.value:>9.4g} {f.uncertainty:>7.1%}" if f.seen else f"{'not shown':>9} {'':>7}"
        show(f"{name:<13} {said} {f.base:>13.4g}")
    show(
        f"{found.windows} windows of 1 s; left: {1000 * found.position_error:.1f} mm, "
        f"{math.degrees(found.yaw_error):.2f} degrees"
    )
    if out is not None:
        show(f"vehicle: {out}")


def _rounded(value: float, digits: int = 3) -> float | None:
    """Round; None, which JSON knows, for what is not a number."""
    return round(float(value), digits) if math.isfinite(value) else None
