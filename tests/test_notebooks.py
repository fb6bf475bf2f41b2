"""The notebooks are stripped, and their cells run in order."""

import json
import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_holds_no_outputs(path):
    book = json.loads(path.read_text())

    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    assert path.stat().st_size < 20_000
    for number, text in enumerate(code_cells(path)):
        compile(text, f"{path.name}[{number}]", "exec")


@pytest.mark.slow
def test_the_three_scenarios_of_the_framework_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOTLAP_HOME", str(tmp_path / "home"))
    (path,) = (path for path in NOTEBOOKS if path.stem == "deepracer_framework")
    seconds = os.environ.get("HOTLAP_NOTEBOOK_SECONDS", "4")
    names = {}

    for number, text in enumerate(code_cells(path)):
        short = text.replace("SECONDS = 30 ", f"SECONDS = {seconds} ")
        assert (short != text) == (number == 0)
        exec(compile(short, f"{path.name}[{number}]", "exec"), names)

    runs = sorted(run.name for run in (tmp_path / "runs").iterdir() if run.suffix != ".files")
    assert len(runs) == 1 + 3 + 3
    assert all((tmp_path / "runs" / run / "report.json").exists() for run in runs)
    engines = names["engines"]
    assert {engine.status for engine in engines.values()} == {"done"}
    rows = names["engine"].plot_multi_model_evaluation(engines)
    assert len(rows) == 3 * 5
    assert len(names["figure"].axes[0].get_legend().get_texts()) == 3
