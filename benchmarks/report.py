"""Writes the newest results of benchmarks/results/*.jsonl into the README's tables.

    python benchmarks/report.py            rewrites README.md between its markers
    python benchmarks/report.py --check    changes nothing; exit status 1 where README.md differs

The markers are `<!-- results:speed -->` to `<!-- /results:speed -->`, and the same for `learning`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OTHERS = 0.2
"""Share of the cores that other processes may have had; see first_laps.py."""
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"

Row = Mapping[str, Any]
_SEEDS = 3
"""Fewer are a trial, and not shown beside others."""


@dataclass(frozen=True)
class Speed:
    """A line of the speed table; the last row whose name begins so: the one with all threads."""

    group: str
    begins: str
    says: str
    target: float | None
    elsewhere: str


SPEEDS = (
    Speed("world", "kernel, 16,384 cars", "full physics, nothing seen, 16,384 cars", 12e6, ""),
    Speed("world", "kernel, 256 cars", "the same, 256 cars", None, ""),
    Speed(
        "environment",
        "state, 16,384 cars",
        "environment from state: observation, reward, rules, restarts, 16,384 cars",
        4e6,
        "690,000 [deepracer-genesis][genesis], RTX 4060 Ti; 6,360 [F1TENTH gym][f1tenth]",
    ),
    Speed("environment", "state, 256 cars", "the same, 256 cars", None, ""),
    Speed("environment", "camera", "environment from the camera, 96x96 rgb, 256 cars", None, ""),
    Speed(
        "camera",
        "160x120 grey, 256",
        "camera 160x120 grey, filtered",
        None,
        "52,800 [deepracer-genesis][genesis], RTX 4060 Ti",
    ),
    Speed("camera", "160x120 grey, walls", "the same, with walls and four obstacles", 100e3, ""),
    Speed("camera", "160x120 rgb", "camera 160x120 rgb, filtered", 50e3, ""),
    Speed("camera", "48x32 grey", "camera 48x32 grey, filtered", 500e3, ""),
    Speed(
        "reward",
        "user's Python",
        "environment with a user's reward function, compiled, 256 cars, one thread",
        None,
        "",
    ),
    Speed("policy", "NumPy", "saved driver, 2 x 64, without PyTorch", None, ""),
)


@dataclass(frozen=True)
class Network:
    """A line of the speed table: what a network of benchmarks/networks.py does."""

    name: str
    kind: str
    says: str
    target: float | None


NETWORKS = (
    Network("64x48 grey, small", "training", "camera network 64x48, training", 40e3),
    Network("64x48 grey, small", "inference", "the same, inference", 150e3),
    Network("27 numbers, 64 64", "training", "27 numbers and two layers of 64, training", None),
)

LOOPS = (
    (
        "state, as it ships",
        "PPO from state, driving and learning in four epochs, as it ships",
        None,
    ),
    ("state, 2,048 cars", "the same, 2,048 cars, minibatches of 16,384", None),
    (
        "state, 8,192 cars, layers of 32",
        "the same, 8,192 cars for 8 steps, minibatches of 32,768, two layers of 32",
        300e3,
    ),
    ("camera, as it ships", "PPO from camera pixels, driving and learning, as it ships", None),
)
"""Lines of the speed table: a name in benchmarks/loop.py, what it says, the target."""

LINKS = (
    "[genesis]: https://github.com/Luna-v0/deepracer-genesis",
    "[f1tenth]: https://github.com/f1tenth/f1tenth_gym",
)


@dataclass(frozen=True)
class Learning:
    """A line of the learning table."""

    task: str
    says: str
    target: float | None
    elsewhere: str


LEARNINGS = (
    Learning(
        "state", "from state", 3.0, "about 15 min to a first lap, AWS DeepRacer at re:Invent 2018"
    ),
    Learning("first", "the same, every file read from the disk for the first time", 8.0, ""),
    Learning(
        "distill",
        "from camera pixels, by teacher and student",
        6.0,
        "20 h robotini-ddpg; 6 h to 5 days AirSim cookbook (their own READMEs)",
    ),
    Learning("camera", "from camera pixels, by PPO alone", 12.0, ""),
    Learning("sac", "SAC from state", 20.0, ""),
    Learning("td3", "TD3 from state", 20.0, ""),
    Learning("dqn", "DQN from state", 10.0, ""),
    Learning("pqn", "PQN from state", 10.0, ""),
    Learning("distill_deepracer", "from 160x120 pixels, DeepRacer's shallow network", 20.0, ""),
    Learning("rdpg", "RDPG from Robotini's eight colours", 180.0, "20 h robotini-ddpg"),
    Learning("cookbook", "the AirSim cookbook's lesson, by DQN", 120.0, "days (its README)"),
    Learning("transfer", "the same, from the driver of another track", 40.0, "hours (its README)"),
    Learning("deepracer", "a DeepRacer folder, unmodified", None, ""),
)


@dataclass(frozen=True)
class Ratio:
    """A line of the table of how good drivers become: best lap over the physical bound."""

    config: str
    track: str
    says: str
    target: float


RATIOS = tuple(
    Ratio(config, track, f"best lap over the physical bound, `{track}`, {says}", target)
    for config, says, target in (
        ("configs/fast_state.toml", "from state, 2 minutes", 1.03),
        ("configs/fast_camera.toml", "from camera, speed and yaw rate, within 10 minutes", 1.06),
    )
    for track in ("reinvent_like", "hard")
)

GENERALISTS = (
    (
        "camera",
        "laps of 50 courses never seen, from the camera alone, 40 to 120 ms late; car, camera and "
        "look at random; after ten minutes",
        97,
    ),
    ("lidar", "the same, from LIDAR alone", 99),
    ("state", "the same, from state", 99),
)
"""Lines of that table: what benchmarks/generalist.py lets a driver see, and the target [%]."""


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all result lines, oldest first; a half line that a killed writer left is passed over."""
    rows = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                print(f"{file}: passed over what is no JSON: {line[:40]}", file=sys.stderr)
    return sorted(rows, key=lambda row: row["date"])


def speed(rows: Sequence[Row]) -> str:
    """Write the speed table of the newest measurement."""
    found = [row for row in rows if row.get("kind") == "speed"]
    if not found:
        return "not measured yet: `make bench`, then `python benchmarks/report.py`"
    newest = found[-1]
    figures = newest["rows"]
    peers = {row["name"]: row for row in figures if row["group"] == "peers"}
    table = [
        "| a second, on this machine | target | measured | times the peers, same run | elsewhere |",
        "|---|---:|---:|---|---|",
    ]
    for asked in SPEEDS:
        named = [
            row
            for row in figures
            if row["group"] == asked.group and row["name"].startswith(asked.begins)
        ]
        if not named:
            continue
        row = named[-1]
        target = "" if asked.target is None else f"{asked.target:,.0f}"
        measured = f"**{figure(row['value'])}** {row['unit'].removesuffix('/s')}"
        cells = (asked.says, target, measured, ", ".join(ratios(row, peers)), asked.elsewhere)
        table.append(f"| {' | '.join(cells)} |")
    table += networks(rows) + loops(rows)
    for row in peers.values():
        measured = "not installed here" if row["value"] is None else f"{figure(row['value'])} steps"
        table.append(f"| {row['name']}: {row['note']} | | {measured} | | |")
    facts = newest["machine"]
    table += [
        "",
        f"Medians of {figures[0]['repeats']} rounds, {newest['date'][:10]}, "
        f"commit {newest['commit'] or 'unknown'}, {where(facts)}, numba {facts['numba']}. "
        "Each peer is one copy on one thread and simulates something else: ratios count steps, "
        "to MuJoCo and PyBullet simulated seconds. Reproduce every row: `hotlap bench`.",
    ]
    if newest["conditions"]["warning"]:
        table.append(f"**{newest['conditions']['warning']}**")
    return "\n".join([*table, "", *LINKS])


def networks(rows: Sequence[Row]) -> list[str]:
    """Write what networks do, of the newest measurement on a processor."""
    found = [row for row in rows if row.get("kind") == "networks" and row["device"] == "cpu"]
    lines = []
    for asked in NETWORKS if found else ():
        (row,) = (
            row
            for row in found[-1]["rows"]
            if (row["name"], row["kind"]) == (asked.name, asked.kind)
        )
        target = "" if asked.target is None else f"{asked.target:,.0f}"
        times = f"{figure(row['value'] / row['torch'], 2)} torch's own limit"
        lines.append(f"| {asked.says} | {target} | **{figure(row['value'])}** rows | {times} |  |")
    return lines


def loops(rows: Sequence[Row]) -> list[str]:
    """Write what whole training loops do, of the newest measurement."""
    found = [row for row in rows if row.get("kind") == "loop"]
    figures = {row["name"]: row["value"] for row in found[-1]["rows"]} if found else {}
    return [
        f"| {says} | {'' if target is None else f'{target:,.0f}'} "
        f"| **{figure(figures[name])}** steps |  |  |"
        for name, says, target in (LOOPS if found else ())
    ]


def ratios(row: Row, peers: Mapping[str, Row]) -> list[str]:
    """Say how many times a peer's rate this is."""
    said = []
    for name in row.get("beside", ()):
        peer = peers.get(name)
        if peer is not None and peer["value"] is not None:
            key = "value" if peer["ratio_by"] == "steps" else "simulated_seconds_per_second"
            said.append(f"{figure(row[key] / peer[key], 2)} {name}")
    return said


def learning(rows: Sequence[Row]) -> str:
    """Write the learning table: of each task its newest session."""
    table, notes = [], []
    for asked in LEARNINGS:
        runs = [r for r in rows if r.get("kind") == "first_laps" and r["task"] == asked.task]
        target = "" if asked.target is None else f"{asked.target:g} s"
        if not runs:
            cells = (asked.says, target, "not measured yet", "", asked.elsewhere, "")
            table.append(f"| {' | '.join(cells)} |")
            continue
        session = [row for row in runs if row["session"] == runs[-1]["session"]]
        last = session[-1]
        by_seed = {row["seed"]: row for row in session}
        times = [by_seed[seed]["seconds"] if seed in by_seed else None for seed in last["seeds"]]
        laps = [
            (by_seed[s]["report"] or {}).get("best_lap_s") for s in last["seeds"] if s in by_seed
        ]
        each = ", ".join("never" if time is None else f"{time:.2f}" for time in times)
        measured = f"**{seconds(median(times))}** ({each})"
        when = f"{last['date'][:10]}, {last['commit'] or 'unknown commit'}: `{last['script']}`"
        lap = median(laps) if laps else None
        best = "none" if lap is None else seconds(lap)
        table.append(
            f"| {asked.says} | {target} | {measured} | {best} | {asked.elsewhere} | {when} |"
        )
        note = f"on {where(last['machine'])}, PyTorch {last['machine']['torch']}"
        notes += [note] if note not in notes else []
        notes += [f"**{asked.task}: {doubt}**" for doubt in doubts(session)]
    head = [
        "| first clean laps | target | median (each seed) | best lap | elsewhere | measured |",
        "|---|---:|---:|---:|---|---|",
    ]
    below = ["", f"Measured {'; '.join(notes)}."] if notes else []
    return "\n".join([*head, *table, *below, *quality(rows), *beside(rows), *anchors(rows)])


def quality(rows: Sequence[Row]) -> list[str]:
    """Write how good drivers become: of each task its newest row of each seed."""
    lines = []
    for asked in RATIOS:
        session: dict[int, Row] = {}
        for row in rows:
            given = [row.get(name) for name in ("kind", "config", "track")]
            if given == ["fastest", asked.config, asked.track]:
                session[row["seed"]] = row
        if session:
            each = [row["ratio"] for _, row in sorted(session.items())]
            middle, last = median(each), list(session.values())[-1]
            said = ", ".join("none" if one is None else f"{one:.3f}" for one in each)
            found = "none" if middle is None else f"{middle:.3f}"
            lines.append(
                f"| {asked.says} | at most {asked.target:g} | **{found}** ({said}) "
                f"| {last['date'][:10]}, {last['commit']}: `{last['command']}` |"
            )
    for sees, says, target in GENERALISTS:
        newest = {
            row["seed"]: row
            for row in rows
            if row.get("kind") == "generalist" and row.get("sees", "camera") == sees
        }
        if newest:
            each = [newest[seed]["randomized 0-0.5"] for seed in sorted(newest)]
            last = list(newest.values())[-1]
            lines.append(
                f"| {says} | at least {target} % "
                f"| **{statistics.median(each):.0%}** ({', '.join(f'{one:.0%}' for one in each)}) "
                f"| {last['date'][:10]}, {last['commit']}: "
                f"`python benchmarks/generalist.py --sees {sees}` |"
            )
    if not lines:
        return []
    head = [
        "",
        "How good they become:",
        "",
        "| what | target | median (each seed) | measured |",
        "|---|---:|---:|---|",
    ]
    return head + lines


def doubts(session: Sequence[Row]) -> list[str]:
    """Say why these times are not to be trusted."""
    said = []
    if any(row["conditions"]["warning"] for row in session):
        said.append("the machine was busy before the start")
    if any((row["others"] or 0) > OTHERS for row in session):
        said.append("other processes took a good part of the cores")
    if any(row["honest"] is False for row in session):
        said.append("the run's own clock differs from ours")
    return said


def beside(rows: Sequence[Row]) -> list[str]:
    """Write what other libraries' learners reach in our environment, next to ours."""
    newest = {
        (row["algorithm"], row["steps"], row["library"], row["seed"]): row
        for row in rows
        if row.get("kind") == "peers"
    }
    lines = []
    for algorithm, steps in dict.fromkeys(key[:2] for key in newest):
        of = [row for key, row in newest.items() if key[:2] == (algorithm, steps)]
        libraries = dict.fromkeys(row["library"] for row in of)
        if any(sum(row["library"] == one for row in of) < _SEEDS for one in libraries):
            continue  # tried, not measured
        for library in libraries:
            ours = [row for row in of if row["library"] == library]
            each = ", ".join(f"{row['completion']:.0%}" for row in ours)
            lines.append(
                f"| {algorithm.upper()}, {steps:,} steps | {library} {ours[-1]['version']} "
                f"| {statistics.median(row['return_mean'] for row in ours):.1f} "
                f"| **{statistics.median(row['completion'] for row in ours):.0%}** ({each}) "
                f"| **{statistics.median(row['train_seconds'] for row in ours):.1f} s** |"
            )
    if not lines:
        return []
    last = list(newest.values())[-1]
    head = [
        "",
        "Other libraries in our environment, with equal settings and steps, each on one core; the "
        "greedy driver from 20 starts, three laps from each:",
        "",
        "| learner | library | median return | finished: median (each seed) | median time |",
        "|---|---|---:|---:|---:|",
    ]
    busy = "; **other work ran beside it**" if last["conditions"]["warning"] else ""
    when = f"{last['date'][:10]}, {last['commit']}: `python {last['command']}`{busy}"
    return [*head, *lines, "", f"Measured {when}."]


def anchors(rows: Sequence[Row]) -> list[str]:
    """Write how our learners do on the tasks of others, next to what they publish."""
    found = [row for row in rows if "published" in row]
    lines = []
    for task, algorithm in dict.fromkeys((row["task"], row["algorithm"]) for row in found):
        groups: dict[str, dict[int, Row]] = {}
        for row in found:
            if (row["task"], row["algorithm"]) == (task, algorithm):
                alike = json.dumps([row["steps"], row["settings"]])
                groups.setdefault(alike, {})[row["seed"]] = row
        # the settings that most seeds were tried with, the newest of such
        newest = max(reversed(groups.values()), key=len)
        each = ", ".join(f"{newest[seed]['return_mean']:.0f}" for seed in sorted(newest))
        middle = statistics.median(row["return_mean"] for row in newest.values())
        last = list(newest.values())[-1]
        source = last.get("source", "Zoo of Stable-Baselines3")
        lines.append(
            f"| {task} | {algorithm.upper()} | {last['published']:g} ({source}) "
            f"| **{middle:.1f}** ({each}) | {last['steps']:,} | {last['date']} |"
        )
    if not lines:
        return []
    head = [
        "",
        "The same learners elsewhere, greedy return of 100 episodes (10 on MuJoCo), "
        "`python benchmarks/anchors.py --long`:",
        "",
        "| task | learner | published | median (each seed) | steps | measured |",
        "|---|---|---:|---:|---:|---|",
    ]
    return head + lines


def median(values: Sequence[float | None]) -> float | None:
    """Return the median where None is longer than anything; None if that is the median."""
    middle = statistics.median(math.inf if value is None else value for value in values)
    return middle if math.isfinite(middle) else None


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def where(facts: Row) -> str:
    """Say on what machine."""
    return f"{facts['cpu']}, {facts['cores'].split()[0]} cores, {facts['memory']}"


def figure(value: float, digits: int = 3) -> str:
    """Round to significant digits and group the thousands."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:,g}"


def rewrite(text: str, tables: Mapping[str, str]) -> str:
    """Put each table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    for name, table in tables.items():
        opening, closing = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        before, found, rest = text.partition(opening)
        _, found_end, after = rest.partition(closing)
        if not found or not found_end:
            raise ValueError(f"{opening} ... {closing} are missing")
        text = f"{before}{opening}\n{table}\n{closing}{after}"
    return text


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, compare")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of .jsonl files")
    asked = parser.parse_args(words)
    rows = read(asked.results)
    text = asked.readme.read_text(encoding="utf-8")
    try:
        written = rewrite(text, {"speed": speed(rows), "learning": learning(rows)})
    except ValueError as error:
        parser.error(f"{asked.readme}: {error}")
    if written == text:
        return 0
    if asked.check:
        print(
            f"{asked.readme} differs from the results: python benchmarks/report.py", file=sys.stderr
        )
        return 1
    asked.readme.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
