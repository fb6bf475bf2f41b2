"""Progress on the terminal: a live block or table, or plain lines where nobody watches."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

if TYPE_CHECKING:  # rich loads when a live block is shown
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

__all__ = ["Board", "Progress"]

_PLAIN_FIRST, _PLAIN_EVERY = 2.0, 10.0
_REDRAWS = 4
_CELL = 16
_BARS = "▁▂▃▄▅▆▇█"


class _Screen(ABC):
    """A block that is repainted in place under the events that scroll by, or lines."""

    def __init__(
        self, plain: bool, quiet: bool, stream: TextIO | None, clock: Callable[[], float]
    ) -> None:
        self._redirect = stream is None or stream is sys.stderr
        self._stream = _Calm(sys.stderr if stream is None else stream)
        self._quiet = quiet
        self._clock = clock
        self._due = clock() + _PLAIN_FIRST
        self._live: Live | None = None
        self._plain = plain or not self._stream.is_watched()

    def __enter__(self) -> Self:
        if not self._quiet and not self._plain:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._stream),  # type: ignore[arg-type]
                get_renderable=self._block,
                refresh_per_second=_REDRAWS,
                # What others print meanwhile goes above the block; what is piped stays as it is.
                redirect_stdout=self._redirect and sys.stdout.isatty(),
                redirect_stderr=self._redirect,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            self._write(self._lines())

    def event(self, text: str) -> None:
        """Say what happened; it stays on the screen above the block."""
        stamp = time.strftime("%H:%M:%S")
        if self._live is None:
            self._write([f"{stamp}  {text}"])
        else:
            self._live.console.print(
                f"{stamp}  {text}", markup=False, highlight=False, soft_wrap=True
            )

    def _tick(self) -> None:
        """Write plain lines, where they are due."""
        if self._plain and self._clock() >= self._due:
            self._due = self._clock() + _PLAIN_EVERY
            self._write(self._lines())

    def _write(self, lines: Sequence[str]) -> None:
        if not self._quiet and lines:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()

    @abstractmethod
    def _lines(self) -> list[str]:
        """Return the state as plain lines."""

    @abstractmethod
    def _block(self) -> Group:
        """Return the state as what a terminal repaints."""


class Progress(_Screen):
    """Shows how a training goes, on standard error; never a reason for it to fail.

    A terminal gets a block that is repainted in place four times a second, under the events that
    scroll by. With `plain`, without a terminal, or with NO_COLOR or CI set, it is one line after
    two seconds and then every ten. The rows are those of `Run.log_metrics`.

    Args:
        total_seconds: the budget in seconds, None for none.
        total_steps: the budget in environment steps, None for none.
        plain: lines even on a terminal.
        quiet: say nothing at all.
        stream: where to write; standard error if None.
        title: the name beside the bar.
        clock: tells the seconds; for tests.
    """

    def __init__(
        self,
        total_seconds: float | None,
        total_steps: int | None,
        plain: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
        *,
        title: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(plain, quiet, stream, clock)
        self._total_seconds, self._total_steps = total_seconds, total_steps
        self._title = title
        self._row: dict[str, Any] = {}
        self._rewards: list[float] = []
        self._phase = ""
        self._times: dict[str, float] = {}
        self._seen = clock()

    def update(self, row: Mapping[str, Any]) -> None:
        """Show the metrics of an iteration; a value that is missing keeps what it was."""
        self._seen = self._clock()
        fresh = {name: value for name, value in row.items() if _is_number(value)}
        self._row.update(fresh)
        phase = row.get("phase", "")
        if phase and phase != self._phase:
            self.event(f"phase: {phase}, after {_short(self._row.get('steps', 0))} steps")
        self._phase = phase
        if "reward" in fresh:
            self._rewards.append(float(fresh["reward"]))
        for name, value in fresh.items():
            if name.startswith("time/"):
                self._times[name[5:]] = self._times.get(name[5:], 0.0) + float(value)
        self._tick()

    def _lines(self) -> list[str]:
        return [self.line()] if self._row else []

    def line(self) -> str:
        """Return the state as one plain line; what is not known is left out."""
        row = self._row
        parts = [f"{_short(row.get('steps', 0))} steps"]
        done = self._done()
        if done is not None:
            parts.append(f"{100 * done:.0f}%")
        if self._phase:
            parts.append(self._phase)
        if "steps_per_second" in row:
            parts.append(f"{row['steps_per_second']:.0f}/s")
        if "reward" in row:
            parts.append(f"reward {row['reward']:.1f}")
        if "completion" in row:
            parts.append(f"completion {100 * row['completion']:.0f}%")
        if "best_lap" in row:
            parts.append(f"best lap {row['best_lap']:.2f} s")
        left = self._left()
        if left is not None:
            parts.append(f"eta {_minutes(left)}")
        return "  ".join(parts)

    def _seconds(self) -> float:
        """The training's own seconds, running on between rows."""
        return float(self._row.get("seconds", 0.0)) + self._clock() - self._seen

    def _done(self) -> float | None:
        """The part of the budget that is spent: of time or of steps, whichever ends first."""
        parts = []
        if self._total_seconds:
            parts.append(self._seconds() / self._total_seconds)
        if self._total_steps:
            parts.append(self._row.get("steps", 0) / self._total_steps)
        return min(1.0, max(parts)) if parts else None

    def _left(self) -> float | None:
        ways = []
        if self._total_seconds:
            ways.append(self._total_seconds - self._seconds())
        rate = self._row.get("steps_per_second")
        if self._total_steps and rate:
            ways.append((self._total_steps - self._row.get("steps", 0)) / rate)
        return max(0.0, min(ways)) if ways else None

    def _block(self) -> Group:
        """Build the block, six lines at most; each line is cut at the terminal's width."""
        from rich.console import Group
        from rich.text import Text

        # Copies: the training goes on while the thread that repaints is here.
        row, times, rewards = dict(self._row), dict(self._times), list(self._rewards)
        lines = [self._bar(Text())]

        def add(*fields: tuple[str, str, str]) -> None:
            line = Text(no_wrap=True, overflow="ellipsis")
            for name, value, style in fields:
                if value:
                    line.append(f" {name:<10}", "dim")
                    line.append(f"{value:<27}", style)
            if line.plain:
                line.rstrip()
                lines.append(line)

        def show(name: str, form: str, scale: float = 1.0) -> str:
            return form.format(scale * row[name]) if name in row else ""

        spark = _sparkline(rewards)
        add(
            ("steps/s", show("steps_per_second", "{:,.0f}").replace(",", " "), ""),
            ("reward", show("reward", "{:.1f} ") + spark, "cyan"),
        )
        lap = show("evaluation/best_lap", "{:.2f} s") or show("evaluation/lap_time", "{:.2f} s")
        add(
            (
                "best lap",
                show("best_lap", "{:.2f} s") + (lap and f"  evaluated {lap}"),
                "bold green",
            ),
            ("completed", show("completion", "{:.0f} % of laps", 100.0), ""),
        )
        add(
            ("entropy", show("entropy", "{:.2f}"), "dim"),
            ("kl", show("kl", "{:.4f}"), "dim"),
        )
        total = sum(times.values())
        if total > 0:
            shares = [f"{name} {100 * spent / total:.0f} %" for name, spent in times.items()]
            lines.append(Text(f" {'time':<10}{'  '.join(shares)}", "dim", no_wrap=True))
        return Group(*lines)

    def _cells(self, state: str) -> list[Text]:
        """Return the cells of a row of a Board."""
        from rich.text import Text

        row = dict(self._row)
        running = state == "running"
        first, left = Text(state, "" if running else "dim"), self._left() if running else None
        done = self._done() if running else None
        if done is not None and row:
            filled = round(_CELL * done)
            first = Text("━" * filled, "green").append("─" * (_CELL - filled), "grey50")
        elif running and not row:
            first = Text("starting", "dim")

        def show(name: str, form: str, scale: float = 1.0, style: str = "") -> Text:
            return Text(form.format(scale * row[name]) if name in row else "", style)

        return [
            first,
            Text(_short(row["steps"]) if "steps" in row else ""),
            show("reward", "{:.1f}", style="cyan"),
            show("completion", "{:.0f} %", 100.0),
            show("best_lap", "{:.2f} s", style="bold green"),
            show("first_clean", "{:.1f} s"),
            Text(_minutes(left) if left is not None and row else ""),
        ]

    def _bar(self, line: Text) -> Text:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.append(f" {self._title or 'training'}  ", "bold")
        done, left = self._done(), self._left()
        if done is not None:
            room = self._live.console.width if self._live else 80
            length = min(40, max(8, room - 52 - len(line)))
            filled = round(length * done)
            line.append("━" * filled, "green")
            line.append("─" * (length - filled), "grey50")  # thin: told apart without colour
            line.append(f"  {100 * done:3.0f} %")
        line.append(f"  {_short(self._row.get('steps', 0))}")
        if self._total_steps:
            line.append(f" / {_short(self._total_steps)}")
        line.append(" steps")
        line.append(f"  {_minutes(self._seconds())}", "dim")
        if self._phase:
            line.append(f"  {self._phase}", "bold")
        if left is not None:
            line.append(f"  {_minutes(left)} left", "dim")
        return line


class Board(_Screen):
    """Shows how several trainings go at once: a table with a row each, or plain lines.

    Args:
        names: of the trainings, in the order of the table.
        total_seconds: the budget of each in seconds, None for none.
        total_steps: the budget of each in environment steps, None for none.
        plain: lines even on a terminal.
        quiet: say nothing at all.
        stream: where to write; standard error if None.
        clock: tells the seconds; for tests.
    """

    def __init__(
        self,
        names: Sequence[str],
        total_seconds: float | None,
        total_steps: int | None,
        plain: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(plain, quiet, stream, clock)
        self._rows = {
            name: Progress(total_seconds, total_steps, quiet=True, stream=stream, clock=clock)
            for name in names
        }
        self._states = dict.fromkeys(names, "waiting")
        self._notes: dict[str, str] = {}

    def update(self, name: str, row: Mapping[str, Any]) -> None:
        """Show the metrics of an iteration of one training, and `first_clean` [s] if known."""
        self._rows[name].update(row)

    def state(self, name: str, word: str) -> None:
        """Say what a training does: `waiting`, `running`, or how it ended."""
        self._states[name] = word

    def note(self, name: str, text: str) -> None:
        """Say what makes a training another than the rest; it stands behind its name."""
        self._notes[name] = text

    def tick(self) -> None:
        """Write the plain lines where they are due; to be called now and then."""
        self._tick()

    def _lines(self) -> list[str]:
        width = max((len(self._title(name)) for name in self._rows), default=0)
        return [
            f"{self._title(name):<{width}}  {self._rows[name].line()}"
            for name, state in self._states.items()
            if state == "running" and self._rows[name]._row
        ]

    def _title(self, name: str) -> str:
        note = self._notes.get(name, "")
        return f"{name} {note}" if note else name

    def _block(self) -> Group:
        """Build the table; where the terminal is too low for all, of those that run."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        states = dict(self._states)
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
        for head in ("", " ", "steps", "reward", "completed", "best lap", "first clean", "left"):
            side: Literal["left", "right"] = "right" if head.strip() else "left"
            table.add_column(
                head, justify=side, no_wrap=True, min_width=_CELL if head == " " else None
            )
        room = self._live.console.height - 3 if self._live else len(states)
        for name, state in states.items():
            if len(states) <= room or state == "running":
                cells = self._rows[name]._cells(state)
                title = Text(f" {name}", "bold").append(self._title(name)[len(name) :], "dim")
                table.add_row(title, *cells)
        counts = [f"{list(states.values()).count(s)} {s}" for s in dict.fromkeys(states.values())]
        return Group(table, Text(f" {', '.join(counts)}", "dim"))


class _Calm:
    """A stream that may close, or lack a letter, without anybody hearing of it.

    The block is repainted by a thread of its own, so that its errors cannot be caught elsewhere.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def is_watched(self) -> bool:
        """Whether a person looks at a terminal that can repaint."""
        plain = any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
        return self.isatty() and not plain and os.environ.get("TERM") != "dumb"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(count: float) -> str:
    """Three digits and a unit: 950, 24.6k, 1.84M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            value = count / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{letter}"
    return f"{count:.0f}"


def _minutes(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _sparkline(values: Sequence[float], width: int = 12) -> str:
    """Draw the whole history in a few blocks, each the mean of its share."""
    count = len(values)
    if count < 2:
        return ""
    width = min(width, count)
    edges = [count * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return _BARS[0] * width
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)
