"""Figures of the pages that a benchmark keeps: they are those of its newest rows."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| ([\d,]+) \| (\d+) % \| (\d+) % \| (\d+) % \| (\d+) % \|$", re.MULTILINE)


def kept(name: str) -> list[dict]:
    """Return what a benchmark wrote."""
    lines = (ROOT / "benchmarks" / "results" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_table_of_students_is_the_mean_of_its_rows():
    newest = {(row["frames"], row["student"], row["seed"]): row for row in kept("imitation")}
    frames = sorted({key[0] for key in newest})
    wanted = [
        (
            f"{count:,}",
            *(
                f"{np.mean([r[what] for k, r in newest.items() if k[:2] == (count, who)]):.0%}"
                for who in ("dagger", "cloning")
                for what in ("completion", "progress")
            ),
        )
        for count in frames
    ]

    said = ROW.findall((ROOT / "docs" / "distill.md").read_text())

    assert [(count, *(f"{x}%" for x in shares)) for count, *shares in said] == wanted
    assert {key[2] for key in newest} == {0, 1, 2}


@pytest.mark.parametrize(
    ("task", "called"), [("deepracer", "examples/deepracer"), ("state", "configs/state.toml")]
)
def test_what_logs_cost_is_what_was_measured(task, called):
    row = next(row for row in reversed(kept("logs")) if row["task"] == task)

    page = (ROOT / "docs" / "deepracer-logs.md").read_text()

    (said,) = re.findall(rf"^\| `{called}`[^|]*\| (.*) \|$", page, re.MULTILINE)
    assert said.split(" | ") == [
        f"{row['followed']} of {row['cars']}",
        f"{100 * row['cost']:.1f} %",
        f"{row['bytes_a_row_csv']:.0f} bytes as CSV, {row['bytes_a_row_lines']:.0f} as a line",
        f"{row['bytes_a_thousand_steps'] / 1000:.0f} kB",
    ]


@pytest.mark.parametrize(
    ("page", "called", "task"),
    [
        ("distill", "`configs/distill.toml`", "distill"),
        ("distill", "`configs/distill_deepracer.toml`", "distill_deepracer"),
        ("distill", "`configs/camera.toml` (PPO alone)", "camera"),
        ("transfer", "from scratch", "cookbook"),
        ("transfer", "from a driver that had 60 s on `easy`", "transfer"),
    ],
)
def test_first_laps_of_the_pages_are_those_of_the_newest_session(page, called, task):
    rows = [row for row in kept("first_laps") if row["task"] == task]
    session = [row for row in rows if row["session"] == rows[-1]["session"]]
    times = [row["seconds"] for row in sorted(session, key=lambda row: row["seed"])]

    text = (ROOT / "docs" / f"{page}.md").read_text()

    each = ", ".join("never" if one is None else f"{one:.1f}" for one in times)
    middle = np.median([np.inf if one is None else one for one in times])
    (said,) = re.findall(rf"^\| {re.escape(called)} \| (.*) \|$", text, re.MULTILINE)
    assert said == f"{each} s | {middle:.1f} s"
    assert len(times) == 5


@pytest.mark.parametrize(("called", "task"), [("SAC", "sac"), ("TD3", "td3"), ("PPO", "state")])
def test_what_learners_with_a_replay_save_is_what_was_measured(called, task):
    rows = [row for row in kept("first_laps") if row["task"] == task]
    session = [row for row in rows if row["session"] == rows[-1]["session"]]
    seconds, steps = ([row[name] for row in session] for name in ("seconds", "steps"))

    text = (ROOT / "docs" / "algorithms" / "actor-critic.md").read_text()

    (said,) = re.findall(rf"^\| {called} \| (.* to .*) \|$", text, re.MULTILINE)
    assert said == (
        f"{np.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f}) "
        f"| {np.median(steps):,.0f} ({min(steps):,} to {max(steps):,})"
    )
