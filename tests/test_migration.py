"""The migration page names commands, settings, files and methods that there are."""

import re
from pathlib import Path

import typer

from hotlap.algorithms.settings import DQNSettings, RDPGSettings
from hotlap.cli import app
from hotlap.config import Settings
from hotlap.deepracer import DeepRacerEngine
from hotlap.deepracer.parameters import DEFAULTS, GRID
from hotlap.plan import TrainConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "migration.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", TEXT)


def settings_of(model, above=""):
    for name, field in model.model_fields.items():
        yield above + name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            parts = getattr(part, "__args__", (part,))
            for below in parts:
                if isinstance(below, type) and issubclass(below, Settings):
                    yield from settings_of(below, f"{above}{name}.")


def test_every_command_exists_with_its_options():
    lines = [code.split()[1:] for code in CODE if code.startswith("hotlap ")]
    assert len(lines) > 25
    for words in lines:
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        assert not hasattr(command, "commands") or command.name == "runs", words
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_every_setting_exists():
    known = set(settings_of(TrainConfig))
    known |= {
        f"algorithm.{name}" for one in (DQNSettings, RDPGSettings) for name in settings_of(one)
    }
    groups = "train|algorithm|evaluation|rules|observation|actions|reward|look|start|traffic"
    named = {code.split("=")[0] for code in CODE if re.match(rf"({groups})\.\w+", code)}
    named -= {"evaluation.launch", "train.bat"}  # files of others

    assert len(named) > 20
    assert sorted(named - known) == []


def test_every_file_of_ours_exists():
    ours = [code for code in CODE if code.startswith(("configs/", "notebooks/"))]
    shown = [word for code in CODE for word in code.split() if word.startswith("configs/")]

    assert [name for name in (*ours, *shown) if not (ROOT / name).exists()] == []


def test_every_parameter_and_method_of_the_framework_has_its_row():
    rows = "\n".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))
    methods = [name for name in vars(DeepRacerEngine) if not name.startswith("_")
               and callable(getattr(DeepRacerEngine, name))]  # fmt: skip
    own = {"param_gen", "clean_up_simulation_environment"}

    missing = [name for name in ("job_name", *DEFAULTS, *GRID, *methods) if f"`{name}`" not in rows]
    assert set(missing) == own


def test_every_predecessor_has_its_part_and_what_is_missing_is_said():
    parts = re.findall(r"^## (.*)$", TEXT, re.M)

    assert parts == ["DeepRacer", "The Custom Framework", "The RoboMaker sample",
                     "The AirSim cookbook", "Robotini"]  # fmt: skip
    for command in ("train", "evaluate", "race", "film", "plot", "runs"):
        assert f"`hotlap {command}" in TEXT
    assert TEXT.count("not yet") > 8
