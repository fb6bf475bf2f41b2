"""Console: where commands print, and the tables that they print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

__all__ = [
    "Json",
    "print_boards",
    "print_league",
    "print_population",
    "print_report",
    "print_standings",
    "print_sweep",
    "say",
    "show",
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def show(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def say(text: str) -> None:
    """Print what is no result, on standard error."""
    typer.echo(text, err=True)


def print_report(report: dict[str, Any]) -> None:
    """Print a report in words."""
    trials, laps, resets = report["trials"], report["laps_per_trial"], report.get("resets", 0)
    tracks = dict.fromkeys(report["tracks"])
    place = report["track"] if len(tracks) <= 3 else f"{len(tracks)} tracks"
    show(
        f"{place}, {report['vehicle']}: {report['completion']:.0%} of {trials} trials "
        f"finished {laps} {'' if resets else 'clean '}lap{'s' if laps > 1 else ''}"
    )
    if report["best_lap_s"] is not None:
        show(f"best lap {report['best_lap_s']:.3f} s, mean lap {report['mean_lap_s']:.3f} s")
        if report.get("limit_ratio") is not None:
            show(
                f"{report['limit_ratio']:.3f} times the {report['limit_s']:.3f} s that no driver "
                "can beat"
            )
    else:
        show(f"no lap completed; the mean trial drove {report['progress']:.0%} of its laps")
    trouble = {
        "left the track": report["off_tracks"],
        "stood still": report["immobilized"],
        "went back": report["reversed"],
        "hit something": report["crashes"],
        "ran out of time": report["timed_out"],
    }
    said = ", ".join(f"{count} {what}" for what, count in trouble.items() if count)
    if resets:
        times = "once" if resets == 1 else f"{resets} times"
        show(f"put back on the road {times}, for {report['penalties_s']:g} s of penalties: {said}")
    elif said:
        show(f"trials that ended early: {said}")
    tried = zip(report["tracks"], report["finished"], strict=True)
    failed = list(dict.fromkeys(name for name, finished in tried if not finished))
    if failed and len(tracks) > 1:
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        show(f"not finished: {', '.join(failed[:5])}{more}")


def print_population(facts: dict[str, Any], as_json: bool) -> None:
    """Print what each seed came to, and how that spreads."""
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    digits = {"first_clean_s": 1, "best_lap_s": 3, "mean_lap_s": 3}

    def cell(name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.{digits[name]}f}" if name in digits else f"{value:.0%}"

    def line(title: str, cells: Sequence[str]) -> None:
        show(f"{title:<13} {cells[0]:>18}" + "".join(f"{one:>14}" for one in cells[1:]))

    names = (*digits, "completion")
    line("", ("first clean laps s", "best lap s", "mean lap s", "completion"))
    for row in facts["seeds"]:
        best = " *" if row["run"] == facts["run"] else ""
        line(f"seed{row['seed']}{best}", [cell(name, row[name]) for name in names])
    spread = facts["spread"]
    ends = {"median": "median", "low": "min", "high": "max", "iqm": "middle half"}
    for key, title in ends.items() if spread else ():
        line(title, [cell(name, spread[name][key]) for name in names])
    if spread:
        bounds = ([cell(n, end) for end in spread[n]["interval"]] for n in names)
        line("its 95 %", [f"{low} - {high}" for low, high in bounds])
    for seed, said in facts["failures"].items():
        say(f"hotlap: seed{seed} failed, and is in no figure: {said}")
    show(f"population: {facts['population']}")
    if facts["run"] is not None:
        show(f"run: {facts['run']}")


def print_sweep(facts: dict[str, Any], as_json: bool) -> None:
    """Print what each trial of a sweep came to, the best one first."""
    if as_json:
        show(json.dumps(facts, indent=2))
        return
    metric, axes = facts["metric"], facts["axes"]
    digits = {"best_lap_s": ".3f", "mean_lap_s": ".3f", "first_clean_s": ".1f", "completion": ".0%"}
    figures = {"best_lap_s": "best lap s", "mean_lap_s": "mean lap s", "completion": "completion",
               "first_clean_s": "first clean s"}  # fmt: skip
    figures = {name: title for name, title in figures.items() if name != metric}

    def cell(value: Any, form: str = ".4g") -> str:
        if value is None:
            return "-"
        return f"{value:{form}}" if isinstance(value, float) else str(value)

    rows = [["", "", *(name.rpartition(".")[2] for name in axes), metric, *figures.values()]]
    for row in facts["trials"]:
        star = " *" if row["run"] is not None and row["run"] == facts["run"] else ""
        values = [cell(row["values"].get(name)) for name in axes]
        said = [cell(row[name], digits[name]) for name in figures]
        score = cell(row["value"], digits.get(metric, ".4g"))
        rows.append([row["trial"] + star, row["state"], *values, score, *said])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for one in rows:
        first = [f"{text:<{width}}" for text, width in zip(one[:2], widths, strict=False)]
        rest = [f"{text:>{width}}" for text, width in zip(one[2:], widths[2:], strict=True)]
        show("  ".join([*first, *rest]).rstrip())
    for row in facts["trials"]:
        if row["lineage"]:
            chain = " < ".join(reversed(row["lineage"]))
            show(f"{row['trial']} began with the driver of {chain}")
        if row["failures"]:
            end = "and was given up" if row["state"] == "failed" else "and went on"
            say(f"hotlap: {row['trial']} failed {len(row['failures'])} times {end}: "
                f"{row['failures'][-1]}")  # fmt: skip
    show(f"sweep: {facts['sweep']}")
    if facts["run"] is not None:
        show(f"run: {facts['run']}")


def print_standings(facts: dict[str, Any]) -> None:
    """Print the table of a race."""
    trials, laps = facts["trials"], facts["laps"]
    show(
        f"{facts['track']}: {trials} race{'s' if trials > 1 else ''} of "
        f"{laps} lap{'s' if laps > 1 else ''}"
    )
    show(
        f"{'':>2}  {'driver':<24} {'place':>5} {'wins':>4} {'finished':>8} {'best lap s':>10} "
        f"{'gap s':>6} {'passed':>6} {'contacts':>8} {'ran into':>8} {'off track':>9} {'stuck':>5}"
        + (f" {'penalties s':>11}" if facts.get("rules") == "deepracer" else "")
    )
    for place, racer in enumerate(facts["racers"], 1):
        gaps = [gap for gap in racer["gaps_s"] if gap is not None]
        gap = f"{sum(gaps) / len(gaps):.2f}" if gaps else "-"
        best = "-" if racer["best_lap_s"] is None else f"{racer['best_lap_s']:.3f}"
        show(
            f"{place:>2}  {racer['name'][:24]:<24} {racer['mean_place']:>5.2f} {racer['wins']:>4} "
            f"{racer['finished']:>8} {best:>10} {gap:>6} {racer['overtakes']:>6} "
            f"{racer['contacts']:>8} {racer['ran_into']:>8} {racer['off_tracks']:>9} "
            f"{racer['stuck']:>5}"
            + (f" {racer['penalties_s']:>11.1f}" if facts.get("rules") == "deepracer" else "")
        )


def print_boards(boards: list[dict[str, Any]]) -> None:
    """Print the leaderboards of time trials."""
    for board in boards:
        way = " reversed" if board["direction"] == "reversed" else ""
        laps = "" if board["score"] == "best" else f" of {board['laps']} laps"
        if board["score"] == "best":
            laps = " lap" + (f", trials of {board['laps']} or more" if board["laps"] > 1 else "")
        most = board["resets"]
        allowed = "" if most is None else f", at most {most} reset{'' if most == 1 else 's'}"
        fines = board["penalties"]
        rules = "a stumble ends a trial"
        if fines is not None:
            rules = (
                f"penalties {fines['off_track']:g} s off track, {fines['collision']:g} s crash, "
                f"{fines['stuck']:g} s stuck"
            )
        show(f"{board['track']}{way}: {board['score']}{laps}{allowed}; {rules}")
        head = f"{'policy':<8} {'car':<14} {'seconds':>8} {'resets':>6} {'trials':>7}"
        show(f"{'':>2}  {'driver':<24} {head}")
        for place, entry in enumerate(board["entries"], 1):
            missing = entry["seconds"] is None
            seconds = "-" if missing else f"{entry['seconds']:.3f}"
            resets = "-" if missing else str(entry["resets"])
            trials = f"{entry['trials']}/{entry['tried']}"
            show(
                f"{'' if missing else place:>2}  {entry['name'][:24]:<24} "
                f"{entry['fingerprint']:<8} {entry['vehicle'][:14]:<14} {seconds:>8} {resets:>6} "
                f"{trials:>7}"
            )


def print_league(entries: list[dict[str, Any]], track: str | None) -> None:
    """Print a leaderboard; of the laps, those on `track` where there are some."""
    if not entries:
        show("the league has no races yet")
        return
    show(f"{'':>2}  {'league':<24} {'policy':<8} {'rating':>6} {'races':>5} {'wins':>4}  best laps")
    for place, entry in enumerate(entries, 1):
        laps = entry["best_laps_s"]
        shown = {track: laps[track]} if track in laps else laps
        best = ", ".join(f"{name} {lap:.3f} s" for name, lap in shown.items())
        show(
            f"{place:>2}  {entry['name'][:24]:<24} {entry['fingerprint']:<8} "
            f"{entry['rating']:>6.0f} {entry['races']:>5} {entry['wins']:>4}  {best or '-'}"
        )
