"""League: races and time trials kept in one file, and the leaderboards that follow from them.

The file holds facts, one line of JSON a command; ratings and ranks are computed when it is read. So
nothing in it is ever changed, and two writers or a killed one cannot spoil it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.errors import ConfigError, RunError
from hotlap.files import append_line
from hotlap.racing.leaderboard import Board, Score, boards, is_whole
from hotlap.types import Array, Float64

__all__ = ["Entry", "League", "ratings"]

FORMAT = 2
"""The newest version of a line; a reader refuses a newer one. Races are of version 1."""
AVERAGE = 1500.0
"""Rating of a driver that is as good as the others on average."""
_SCALE = 400.0
"""Rating points that make a driver win ten races for each that it loses."""
_KEPT = ("name", "fingerprint", "vehicle", "finished", "wins", "laps_completed", "best_lap_s",
         "mean_lap_s", "overtakes", "contacts", "ran_into", "off_tracks", "stuck")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One driver of a leaderboard."""

    name: str
    fingerprint: str
    """Of its policy; a driver that has trained on is another one."""
    vehicle: str
    rating: float
    """Strength on the scale of Elo; see `ratings`."""
    races: int
    wins: int
    finished: int
    """Races in which it drove every lap."""
    best_laps_s: Mapping[str, float] = field(default_factory=dict)
    """By track."""


class League:
    """A leaderboard in a file, which need not exist yet.

    Args:
        path: the file, in a folder that exists.

    Raises:
        ConfigError: there is something else in the file, or no such folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ConfigError(f"league: {self.path.parent} is no folder; make it first")
        if self.path.is_dir():
            raise ConfigError(f"league: {self.path} is a folder; name a file, such as league.jsonl")
        self._rows()

    def add(self, standings: Mapping[str, Any]) -> None:
        """Append races: what `Standings.as_dict()` returned. It is on the disk, or an error.

        Raises:
            RunError: the disk is full or the like; what was in the file is as it was.
        """
        row = {
            "league": 1,
            "time": _now(),
            **{key: standings[key] for key in ("track", "laps", "trials", "beaten")},
            "racers": [{key: racer[key] for key in _KEPT} for racer in standings["racers"]],
        }
        self._append(row, "The races are not in the league")

    def add_trials(
        self,
        report: Mapping[str, Any],
        *,
        name: str,
        fingerprint: str,
        direction: str = "forward",
        penalties: Mapping[str, float] | None = None,
    ) -> None:
        """Append time trials: what `Report.as_dict()` returned, of one driver.

        Args:
            report: its trials; with the nominal car and look, or they are not comparable.
            name: what the driver is called.
            fingerprint: tells its policy apart.
            direction: which way it drove.
            penalties: what a stumble cost; None: it ended the trial.

        Raises:
            RunError: the disk is full or the like; what was in the file is as it was.
        """
        per_trial = zip(
            report["tracks"],
            report["lap_times_s"],
            report["finished"],
            report["trial_resets"],
            strict=True,
        )
        row = {
            "league": 2,
            "time": _now(),
            "driver": {"name": name, "fingerprint": fingerprint, "vehicle": report["vehicle"]},
            "direction": direction,
            "penalties": None if penalties is None else dict(penalties),
            "laps": report["laps_per_trial"],
            "trials": [
                {
                    "track": track,
                    "lap_times_s": list(laps),
                    "finished": finished,
                    "resets": resets,
                }
                for track, laps, finished, resets in per_trial
            ],
        }
        self._append(row, "The trials are not in the league")

    def _append(self, row: Mapping[str, Any], lost: str) -> None:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                append_line(file, json.dumps(row, allow_nan=False).encode(), alone=True)
            finally:
                os.close(file)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else f"cannot be written ({error.strerror})"
            problem = RunError(f"{self.path}: {why}. {lost}; what was in it is unharmed")
            problem.exit_code = 1
            raise problem from error

    def lines(self) -> list[dict[str, Any]]:
        """Read all races, oldest first; a line that a killed writer left half done is passed over.

        Raises:
            ConfigError: this is no league, or one of a newer hotlap.
        """
        return [row for row in self._rows() if "driver" not in row]

    def trials(self) -> list[dict[str, Any]]:
        """Read all time trials, as `lines` does."""
        return [row for row in self._rows() if "driver" in row]

    def boards(
        self, score: Score = "total", laps: int = 3, resets: int | None = None
    ) -> list[Board]:
        """Return the leaderboards of the time trials; see `leaderboard.boards`."""
        return boards(self.trials(), score, laps, resets)

    def _rows(self) -> list[dict[str, Any]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"league: {self.path} cannot be read ({error.strerror})") from None
        found = []
        for number, line in enumerate(content.splitlines(), 1):
            row: Any = None
            with contextlib.suppress(ValueError):
                row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("league"), int):
                if row["league"] > FORMAT:
                    raise ConfigError(
                        f"league: {self.path} was written by a newer hotlap; install that"
                    )
                whole = is_whole(row) if "driver" in row else _is_whole(row)
                if not whole:
                    raise ConfigError(
                        f"league: line {number} of {self.path} has been changed and is no set of "
                        "races any more; repair or delete that line"
                    )
                found.append(row)
        if content.strip() and not found:
            raise ConfigError(f"league: {self.path} holds something else; name another file")
        return found

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the leaderboard ready for JSON."""
        return [asdict(entry) for entry in self.table()]

    def table(self) -> list[Entry]:
        """Return the leaderboard, the strongest first."""
        lines = self.lines()
        last = {racer["fingerprint"]: racer for line in lines for racer in line["racers"]}
        who = {fingerprint: k for k, fingerprint in enumerate(last)}
        beaten = np.zeros((len(who), len(who)))
        sums = {name: np.zeros(len(who), int) for name in ("races", "wins", "finished")}
        best: list[dict[str, float]] = [{} for _ in who]
        for line in lines:
            rows = [who[racer["fingerprint"]] for racer in line["racers"]]
            for i, a in enumerate(rows):
                for j, b in enumerate(rows):
                    beaten[a, b] += line["beaten"][i][j] if a != b else 0
                racer, track = line["racers"][i], line["track"]
                sums["races"][a] += line["trials"]
                sums["wins"][a] += racer["wins"]
                sums["finished"][a] += racer["finished"]
                if racer["best_lap_s"] is not None:
                    best[a][track] = min(best[a].get(track, np.inf), racer["best_lap_s"])
        entries = [
            Entry(
                name=last[fingerprint]["name"],
                fingerprint=fingerprint,
                vehicle=last[fingerprint]["vehicle"],
                rating=float(rating),
                races=int(sums["races"][k]),
                wins=int(sums["wins"][k]),
                finished=int(sums["finished"][k]),
                best_laps_s=best[k],
            )
            for (fingerprint, k), rating in zip(who.items(), ratings(beaten), strict=True)
        ]
        return sorted(entries, key=lambda entry: (-entry.rating, entry.name))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def ratings(beaten: Array | Sequence[Sequence[float]]) -> Float64:
    """Rate K drivers by who came in before whom, whatever the order of the races.

    The strengths p under which the results are most likely if i comes in before j with probability
    p_i / (p_i + p_j), on the scale of Elo: 400 points are odds of ten to one, 1500 the average.
    Each driver is also given a draw against an average one, so that who has won every race is not
    infinitely good.

    Args:
        beaten: (K, K) in how many races i came in before j; one half for a tie.

    Source: the model of Bradley and Terry 1952, "Rank analysis of incomplete block designs"; the
    iteration of Hunter 2004, "MM algorithms for generalized Bradley-Terry models", eq. 3; the scale
    of Elo 1978, "The rating of chessplayers", sec. 1.4.
    """
    wins = np.asarray(beaten, np.float64)
    games = wins + wins.T
    np.fill_diagonal(games, 0)
    won = wins.sum(axis=1) - np.diagonal(wins) + 0.5
    strength = np.ones(len(wins))
    for _ in range(100_000):
        meetings = (games / (strength[:, None] + strength[None, :])).sum(axis=1)
        better = won / (meetings + 1 / (strength + 1))
        change = np.abs(np.log(better / strength)).max(initial=0)
        strength = better
        if change < 1e-10:
            break
    return np.asarray(AVERAGE + _SCALE * np.log10(strength), np.float64)


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Tell whether a line has what a table reads of it."""
    try:
        racers, beaten = row["racers"], np.array(row["beaten"], np.float64)
        shapes = beaten.shape == (len(racers), len(racers)) and np.isfinite(beaten).all()
        counts = [row["trials"], *(racer[key] for racer in racers for key in ("wins", "finished"))]
        words = [row["track"], *(racer[key] for racer in racers for key in _KEPT[:3])]
        laps = [racer["best_lap_s"] for racer in racers]
    except (KeyError, TypeError, ValueError):
        return False
    typed = all(isinstance(n, int) for n in counts) and all(isinstance(w, str) for w in words)
    return bool(shapes and typed and all(isinstance(lap, int | float | None) for lap in laps))
