"""Identification: a car's parameters from a log of its driving.

The log is cut into windows of a second. Each is driven again by the kernel, from a start that is
fitted too, and the parameters are moved until what was driven and what was logged agree best:
multiple shooting by Levenberg and Marquardt's method.

Source: Bock 1987 (multiple shooting for parameter estimation); Nocedal and Wright, Numerical
Optimization (2006), sec. 10.3; the starts leave the equations by projection (Golub and Pereyra
1973). We changed: windows are not tied together, because the noise of a log is in its positions,
and a weak prior holds what the log does not show at the base car's value.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hotlap.errors import ConfigError
from hotlap.proving import place
from hotlap.simulator import Command
from hotlap.types import Float64
from hotlap.vehicle import LAG_MIN, Vehicle

__all__ = ["FITTED", "Finding", "Identified", "Log", "identify", "read_log"]

FITTED = ("steering_lag", "speed_gain", "motor_gain", "drive_max", "friction", "wheelbase")
"""What is looked for; `wheelbase` stands for both axles, whose ratio stays."""
_PRIOR = math.log(2)
"""Standard deviation of a parameter about its base, as a logarithm."""
_WINDOW = 1.0
"""Length of a window [s]."""
_FINE = 1 / 60
"""Longest step in which a log is driven again [s]."""
_NUDGE = 0.02
_NUDGES = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.1])
"""By how much x, y, yaw, vx, vy and yaw rate of a start are moved to see what it does."""
_GUESS = np.array([0.03, 0.03, 0.03, 0.3, 0.3, 1.0])
"""How far a start may be from what a parabola through the first rows says."""
_NOISE = np.array([0.01, 0.01, 0.01, 0.05])
"""First guess of the noise of x, y [m], yaw [rad] and speed [m/s]."""
_OURS = ("t", "x", "y", "yaw", "steering_command", "speed_command")
_SIMTRACE = ("tstamp", "X", "Y", "yaw", "steer", "throttle")
_SIMTRACE_POINT = 0.14
"""DeepRacer logs a point that lies ahead of the middle of its axles [m]."""


@dataclass(frozen=True, eq=False)
class Log:
    """One drive without a break: K rows, SI units."""

    t: Float64
    """(K,) [s], rising."""
    pose: Float64
    """(K, 3) x, y [m] and yaw [rad], unwrapped."""
    speed: Float64 | None
    """(K,) measured speed [m/s], or None."""
    command: Float64
    """(K, 2) steering [rad] and speed [m/s], each held until the next row."""
    point: float = 0.0
    """How far the logged point is ahead of the centre of gravity [m]."""


@dataclass(frozen=True)
class Finding:
    """What a log says of one parameter."""

    value: float
    base: float
    uncertainty: float
    """Standard deviation over the value."""

    @property
    def seen(self) -> bool:
        """Whether the log says more of it than the prior did."""
        return self.uncertainty < 0.5 * _PRIOR


@dataclass(frozen=True)
class Identified:
    """A car that fits a log."""

    vehicle: Vehicle
    base: str
    findings: dict[str, Finding]
    position_error: float
    """Root mean square of what is left, in position [m]."""
    yaw_error: float
    """The same in yaw [rad]."""
    windows: int

    def to_toml(self) -> str:
        """Write what `load_vehicle` reads; what the log does not show stays with the base."""
        lines = [f'base = "{self.base}"']
        for name, finding in self.findings.items():
            note = f"# +- {100 * finding.uncertainty:.1f} %"
            if not finding.seen:
                lines.append(f"# {name}: the log does not show it; {finding.base:g} of the base")
            elif name == "wheelbase":
                lines.append(f"front_axle = {self.vehicle.front_axle:.5g}  {note}")
                lines.append(f"rear_axle = {self.vehicle.rear_axle:.5g}  {note}")
            else:
                lines.append(f"{name} = {finding.value:.5g}  {note}")
        return "\n".join(lines) + "\n"


def read_log(path: Path, point: float | None = None) -> list[Log]:
    """Read a CSV file with a header: ours or DeepRacer's simtrace.

    Ours has the columns t, x, y, yaw, steering_command, speed_command (SI units, radians), and if
    known speed and episode. A new episode, or a gap in time, begins a new drive.

    Args:
        path: the file.
        point: how far the logged point is ahead of the centre of gravity [m]; by default 0, and
            0.14 for a simtrace.

    Raises:
        ConfigError: the file is missing, or a column or a number in it is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = reader.fieldnames or []
            rows = list(reader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    foreign = set(_SIMTRACE) <= set(names)
    wanted = _SIMTRACE if foreign else _OURS
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}; a log has {', '.join(_OURS)}, or is a "
            "simtrace of DeepRacer"
        )
    if foreign:
        idle = ("prepare", "pause", "park")
        rows = [row for row in rows if row.get("episode_status") not in idle]
    extra = [name for name in ("speed", "episode") if name in names]
    table = np.empty((len(rows), len(wanted) + len(extra)))
    for k, row in enumerate(rows):
        for column, name in enumerate((*wanted, *extra)):
            try:
                table[k, column] = float(row[name])
            except (TypeError, ValueError):
                table[k, column] = np.nan
            if not math.isfinite(table[k, column]):
                raise ConfigError(f"{path}: row {k + 1}: {name}: not a number ({row[name]!r})")
    if foreign:
        table[:, 3:5] = np.radians(table[:, 3:5])
    speed = table[:, len(wanted) + extra.index("speed")] if "speed" in extra else None
    episode = table[:, -1] if "episode" in extra else np.zeros(len(rows))
    if point is None:
        point = _SIMTRACE_POINT if foreign else 0.0
    return _drives(table, speed, episode, point, path)


def _drives(
    table: Float64, speed: Float64 | None, episode: Float64, point: float, path: Path
) -> list[Log]:
    """Cut a table where an episode begins or time leaps."""
    same = np.diff(episode) == 0
    step = np.diff(table[:, 0])
    if (step[same] <= 0).any():
        row = int(np.flatnonzero(same & (step <= 0))[0]) + 2
        raise ConfigError(f"{path}: row {row}: time does not rise within its drive")
    usual = float(np.median(step[same])) if same.any() else 1.0
    cuts = np.flatnonzero(~same | (step > 3 * usual)) + 1
    logs = []
    for part in np.split(np.arange(len(table)), cuts):
        if len(part) < 8 or table[part[-1], 0] - table[part[0], 0] < _WINDOW:
            continue
        pose = table[part, 1:4].copy()
        pose[:, 2] = np.unwrap(pose[:, 2])
        own = None if speed is None else speed[part]
        logs.append(Log(table[part, 0], pose, own, table[part, 4:6], point))
    if not logs:
        raise ConfigError(
            f"{path}: no drive of {_WINDOW:g} s or more in {len(table)} rows; give a longer log"
        )
    return logs


def identify(logs: Sequence[Log], base: Vehicle) -> Identified:
    """Find the parameters of FITTED with which `base` drives as the logs say.

    Raises:
        ConfigError: the logs hold no window to drive.
    """
    fit = _Fit(logs, base)
    theta = np.zeros(len(FITTED))
    damping = 1e-3
    for polish in (False, True):
        residual = fit.residual(theta, fit.start)
        cost = fit.cost(residual, theta)
        for _ in range(25):
            by_theta, by_start = fit.slopes(theta, fit.start, residual)
            matrix, gradient = fit.normal(residual, by_theta, by_start, theta)
            step = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), gradient).clip(
                -0.5, 0.5
            )
            moved = residual - by_theta @ step
            shift = np.stack(
                [np.linalg.lstsq(j, r, rcond=None)[0] for j, r in zip(by_start, moved, strict=True)]
            )
            tried, start = fit.inside(theta + step), fit.start + shift / (1 + damping)
            after = fit.residual(tried, start)
            lower = fit.cost(after, tried)
            if lower < cost:
                small = cost - lower < 1e-4 * cost
                theta, residual, cost, fit.start = tried, after, lower, start
                damping = max(damping / 5, 1e-6)
                if small:
                    break
            elif damping > 1e3:
                break
            else:
                damping *= 10
        if not polish:
            fit.weigh(residual)
            damping = 1e-3
    by_theta, by_start = fit.slopes(theta, fit.start, residual)
    matrix, _ = fit.normal(residual, by_theta, by_start, theta)
    spare = residual.size - len(theta) - 2 * fit.start.size
    scatter = max(1.0, float((residual**2).sum()) / max(spare, 1))
    deviation = np.minimum(np.sqrt(np.diag(np.linalg.inv(matrix)) * scatter), _PRIOR)
    findings = {}
    for k, name in enumerate(FITTED):
        usual = _value(base, name)
        findings[name] = Finding(usual * math.exp(theta[k]), usual, float(deviation[k]))
    shown = np.where([f.seen for f in findings.values()], theta, 0.0)
    left = fit.left(residual) * fit.noise
    return Identified(
        vehicle=_changed(base, shown),
        base=base.name,
        findings=findings,
        position_error=float(np.sqrt((left[..., :2] ** 2).mean() * 2)),
        yaw_error=float(np.sqrt((left[..., 2] ** 2).mean())),
        windows=len(residual),
    )


def _value(car: Vehicle, name: str) -> float:
    return car.front_axle + car.rear_axle if name == "wheelbase" else float(getattr(car, name))


def _changed(base: Vehicle, theta: Float64) -> Vehicle:
    """Return the car whose parameters are exp(theta) times those of `base`."""
    times = dict(zip(FITTED, np.exp(theta), strict=True))
    both = times.pop("wheelbase")
    changed = {name: getattr(base, name) * by for name, by in times.items()}
    changed |= {"front_axle": base.front_axle * both, "rear_axle": base.rear_axle * both}
    return base.model_copy(update={name: float(value) for name, value in changed.items()})


class _Fit:
    """Windows of logs, their starts and the noise; drives them again with other parameters."""

    def __init__(self, logs: Sequence[Log], base: Vehicle) -> None:
        self.base = base
        steps = np.concatenate([np.diff(log.t) for log in logs])
        usual = float(np.median(steps))
        self.dt = usual / max(1, math.ceil(usual / _FINE - 1e-6))
        self.width = max(6, round(_WINDOW / usual) + 1)
        self.channels = 3 if logs[0].speed is None else 4
        self.noise = _NOISE[: self.channels].copy()
        self.point = logs[0].point
        self.windows = [
            (log, k) for log in logs for k in range(0, len(log.t) - self.width + 1, self.width - 1)
        ]
        if not self.windows:
            raise ConfigError(
                f"the log has no {_WINDOW:g} s without a break ({self.width} rows at its rate)"
            )
        self.fine = math.ceil(max(self._times(w)[-1] for w in self.windows) / self.dt) + 1
        self.times = np.stack([self._times(window) for window in self.windows])
        self.seen = np.stack([self._measured(window) for window in self.windows])
        self.start = np.stack([self._guess(window) for window in self.windows])
        self.guess = self.start
        self.commands = np.stack([self._commands(window) for window in self.windows])
        self.logs = list({id(log): log for log, _ in self.windows}.values())

    def _times(self, window: tuple[Log, int]) -> Float64:
        log, k = window
        times: Float64 = log.t[k : k + self.width] - log.t[k]
        return times

    def _measured(self, window: tuple[Log, int]) -> Float64:
        """(K, channels) as seen from the first pose."""
        log, k = window
        pose = log.pose[k : k + self.width]
        move, turn = pose[:, :2] - pose[0, :2], pose[:, 2] - pose[0, 2]
        c, s = math.cos(pose[0, 2]), math.sin(pose[0, 2])
        columns = [c * move[:, 0] + s * move[:, 1], c * move[:, 1] - s * move[:, 0], turn]
        if log.speed is not None:
            columns.append(log.speed[k : k + self.width])
        return np.stack(columns, 1)

    def _guess(self, window: tuple[Log, int]) -> Float64:
        """(6,) state at the start, from parabolas through the first rows."""
        t, seen = self._times(window)[:5], self._measured(window)[:5]
        _, rate, now = np.polyfit(t, seen[:, :3], 2)
        back = -self.point
        return np.array(
            [
                now[0] + back * math.cos(now[2]),
                now[1] + back * math.sin(now[2]),
                now[2],
                rate[0],
                rate[1] + back * rate[2],
                rate[2],
            ]
        )

    def _commands(self, window: tuple[Log, int]) -> Float64:
        """(fine, 2) of what holds in each fine step."""
        log, k = window
        middle = log.t[k] + (np.arange(self.fine) + 0.5) * self.dt
        held: Float64 = log.command[np.searchsorted(log.t, middle, side="right") - 1]
        return held

    def inside(self, theta: Float64) -> Float64:
        """Keep parameters within 8 times their base, and lags where the integrator follows."""
        theta = theta.clip(-math.log(8), math.log(8))
        lag = FITTED.index("steering_lag")
        theta[lag] = max(theta[lag], math.log(LAG_MIN / self.base.steering_lag))
        return theta

    def cost(self, residual: Float64, theta: Float64) -> float:
        """What is minimised: squares of the residuals over their noise, and of the prior."""
        return float((residual**2).sum() + ((theta / _PRIOR) ** 2).sum())

    def weigh(self, residual: Float64) -> None:
        """Take what is left as the noise of each channel from now on."""
        left = self.left(residual)
        spare = 1 - 6 / (self.width * self.channels)
        scale = np.sqrt((left**2).mean((0, 1)) / spare)
        scale[:2] = math.sqrt((scale[:2] ** 2).mean())
        self.noise = np.maximum(self.noise * scale, 1e-4)

    def normal(
        self, residual: Float64, by_theta: Float64, by_start: Float64, theta: Float64
    ) -> tuple[Float64, Float64]:
        """Normal equations of the parameters alone: what a start can explain is projected out."""
        basis = np.linalg.qr(by_start)[0]
        across = basis.transpose(0, 2, 1)
        by_theta = by_theta - basis @ (across @ by_theta)
        residual = residual - (basis @ (across @ residual[..., None]))[..., 0]
        matrix = np.einsum("wmp,wmq->pq", by_theta, by_theta)
        gradient = np.einsum("wmp,wm->p", by_theta, residual)
        prior = 1 / _PRIOR**2
        return matrix + prior * np.eye(len(theta)), gradient - prior * theta

    def residual(self, theta: Float64, start: Float64) -> Float64:
        """(W, M): logged less driven, over the noise; then how far the start is from its guess."""
        driven = self._drive([_changed(self.base, theta)], start[None])[0]
        residual: Float64 = self._over_noise(driven[None], start[None])[0]
        return residual

    def _over_noise(self, driven: Float64, start: Float64) -> Float64:
        left = ((self.seen - driven) / self.noise).reshape(*start.shape[:2], -1)
        return np.concatenate([left, (self.guess - start) / _GUESS], 2)

    def left(self, residual: Float64) -> Float64:
        """(W, K, channels) of what is logged and not driven, over the noise."""
        left: Float64 = residual[:, :-6].reshape(len(residual), -1, self.channels)
        return left

    def slopes(self, theta: Float64, start: Float64, residual: Float64) -> tuple[Float64, Float64]:
        """(W, M, P) and (W, M, 6): what driven becomes with each parameter and each start."""
        moved = [self.inside(theta + _NUDGE * unit) for unit in np.eye(len(theta))]
        cars = [_changed(self.base, other) for other in moved]
        here = _changed(self.base, theta)
        starts = [start] * len(cars) + [start + nudge for nudge in np.diag(_NUDGES)]
        driven = self._drive([*cars, *[here] * 6], np.stack(starts))
        seen = self._over_noise(driven, np.stack(starts))
        sizes = np.concatenate([np.full(len(cars), _NUDGE), _NUDGES])
        slope = (residual - seen) / sizes[:, None, None]
        slope = slope.transpose(1, 2, 0)
        return slope[..., : len(cars)], slope[..., len(cars) :]

    def _drive(self, cars: Sequence[Vehicle], start: Float64) -> Float64:
        """(C, W, K, channels) that each car drives in each window from its starts (C, W, 6)."""
        count, windows = start.shape[:2]
        rows = count * windows
        each = [car for car in cars for _ in range(windows)]
        simulator = place(each, rows, dt=self.dt)
        steering, reference = self._actuators(cars)
        arrays = simulator.save()
        # The motion comes first: x, y, yaw, vx, vy, yaw rate, steering, reference.
        arrays["floats"][:6] = start.reshape(rows, 6).T
        arrays["floats"][6], arrays["floats"][7] = steering.ravel(), reference.ravel()
        simulator.restore(arrays)
        wanted = np.tile(self.commands.astype(np.float32), (count, 1, 1))
        trace = np.empty((self.fine + 1, 4, rows))
        for k in range(self.fine + 1):
            state = simulator.state
            trace[k] = state.x, state.y, state.yaw, np.hypot(state.vx, state.vy)
            if k < self.fine:
                simulator.step(Command(steering=wanted[:, k, 0], speed=wanted[:, k, 1]))
        trace[:, 2] = np.unwrap(trace[:, 2], axis=0)
        trace[:, 0] += self.point * np.cos(trace[:, 2])
        trace[:, 1] += self.point * np.sin(trace[:, 2])
        at = np.tile(self.times / self.dt, (count, 1))
        before = np.minimum(at.astype(np.int64), self.fine - 1)
        share = (at - before)[..., None]
        row = np.arange(rows)[:, None]
        driven = (1 - share) * trace[before, : self.channels, row] + share * trace[
            before + 1, : self.channels, row
        ]
        logged: Float64 = driven.reshape(count, windows, self.width, self.channels)
        return logged

    def _actuators(self, cars: Sequence[Vehicle]) -> tuple[Float64, Float64]:
        """(C, W) angle of the wheels and speed reference at the start of each window."""
        lag = np.array([car.steering_lag for car in cars])
        rate = np.array([car.steering_rate for car in cars])
        gain = np.array([car.speed_gain for car in cars])
        slow = np.array([max(car.motor_lag, 1e-6) for car in cars])
        least, most = self.base.speed_min, self.base.speed_max
        full = self.base.steering_max
        found = {}
        for log in self.logs:
            first = log.command[0]
            angle = np.full(len(cars), np.clip(first[0], -full, full))
            aim = gain * np.clip(first[1], least, most)
            for k, (t, row) in enumerate(zip(log.t, log.command, strict=True)):
                found[id(log), k] = (angle, aim)
                if k + 1 < len(log.t):
                    span = log.t[k + 1] - t
                    miss = np.clip(row[0], -full, full) - angle
                    most_turn = rate * span
                    angle = angle + (miss * -np.expm1(-span / lag)).clip(-most_turn, most_turn)
                    goal = gain * np.clip(row[1], least, most)
                    aim = goal + (aim - goal) * np.exp(-span / slow)
        both = [found[id(log), k] for log, k in self.windows]
        return np.stack([b[0] for b in both], 1), np.stack([b[1] for b in both], 1)
