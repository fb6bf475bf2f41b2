"""What a person reads says what the code does: links, commands, settings, examples."""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from hotlap.algorithms.settings import PPOSettings
from hotlap.cli import app
from hotlap.config import Settings, overrides, resolve
from hotlap.plan import TrainConfig, read_config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def command_lines() -> list[str]:
    """Return every `hotlap ...` line in a shell block of a page, without its comment."""
    lines = [
        line
        for page in PAGES
        for text in (*blocks(page, "sh"), *blocks(page, ""))
        for line in text.splitlines()
        if line.startswith("hotlap ") and "[" not in line.split("'")[0]
    ]
    return sorted({" ".join(line.split("#")[0].split()) for line in lines})


def python_blocks() -> list[object]:
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{i}")
        for page in PAGES
        for i, text in enumerate(blocks(page, "python"))
    ]


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def groups(model: type[Settings], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Walk the models themselves: the dotted name and the docstring of every setting."""
    for name, field in model.model_fields.items():
        yield ".".join((*path, name)), model.meanings().get(name, "")
        for below in settings_in(field.annotation):
            yield from groups(below, (*path, name))


def settings_in(annotation: object) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    parts = getattr(annotation, "__args__", ())
    return [found for part in parts for found in settings_in(part)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    text = FENCE.sub("", page.read_text())
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]

    broken = [target for target in targets if target and not (page.parent / target).exists()]

    assert broken == []


def test_every_page_is_in_the_table_of_contents():
    listed = "\n".join(blocks(ROOT / "docs" / "index.md", "{toctree}")).splitlines()

    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        covered = "adr/*" if name.startswith("adr/") else name
        assert name == "index" or covered in listed or "_build" in page.parts


def test_decisions_are_numbered_without_gaps_and_say_what_they_must():
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))

    for number, page in enumerate(decisions, 1):
        text = page.read_text()
        assert page.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        assert re.search(r"^Date: \d{4}-\d\d-\d\d · Status: (accepted|superseded)", text, re.M)
        found = re.findall(r"^## (.*)$", text, re.M)
        assert found == ["Context", "Decision", "Consequences"]


def test_the_readme_shows_commands():
    assert len(command_lines()) > 20


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_that_is_shown_is_understood(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    context = command.make_context("hotlap", list(words), resilient_parsing=False)
    if words[0] == "--install-completion":  # it acts while it is parsed
        return
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
        context = command.make_context(command.name, list(words), parent=context)

    if command.name == "train":
        given = list(context.params["words"] or [])
        source = given.pop(0) if given and "=" not in given[0] else None
        resolve(TrainConfig, overrides(given))
        if source is not None and source.split("/")[0] in ("configs", "examples"):
            read_config(ROOT / source, overrides(given))


@pytest.mark.parametrize("text", python_blocks())
def test_every_python_example_compiles_and_its_imports_exist(text):
    tree = ast.parse(text)

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/environments.md"])
def test_the_gymnasium_examples_run(page):
    examples = [text for text in blocks(ROOT / page, "python") if "import gymnasium" in text]

    for text in examples:
        exec(compile(text, page, "exec"), {})

    assert examples


def test_every_hotlap_name_in_an_example_exists():
    import hotlap

    shown = {
        name
        for page in PAGES
        for text in blocks(page, "python")
        for name in re.findall(r"\bhotlap\.([A-Za-z_]+)\(", text)
    }

    assert {"train", "evaluate", "load_policy"} <= shown
    assert [name for name in shown if not hasattr(hotlap, name)] == []


def test_the_settings_reference_has_every_setting_with_its_meaning(conf):
    assert "<!-- settings -->" in (ROOT / "docs" / "configuration.md").read_text()
    written = conf.settings_reference()

    found = dict(groups(TrainConfig))
    assert {"train.cars", "algorithm.network.cnn", "reward.jerk_fine", "track"} <= found.keys()
    for name, meaning in found.items():
        assert f"| `{name}` |" in written, name
        assert meaning, f"{name} has no docstring"
        assert " ".join(meaning.split()).replace("|", "\\|") in written, name


def test_the_settings_reference_says_defaults_and_ranges(conf):
    row = r"^\| `([\w.]+)` \| .* \| (.*? \| .*) \|$"
    rows = dict(re.findall(row, conf.settings_reference(), re.M))

    assert rows["algorithm.clip"] == "`0.2` | number above 0 below 1"
    assert rows["train.cars"] == "`128` | whole number above 0"
    assert rows["track"] == '`"reinvent_like"` | text'
    assert rows["start.direction"] == '`"forward"` | `forward`, `reversed`, `alternate`'
    assert rows["train.steps"] == "`0` | whole number from 0"
    assert rows["look.car"] == "`[186, 40, 36]` | 3 times: whole number from 0 to 255"


def test_the_command_reference_has_every_command_and_option(conf):
    assert "<!-- commands -->" in (ROOT / "docs" / "command-line.md").read_text()
    written = conf.command_reference()

    ahead = [("hotlap", typer.main.get_command(app))]
    while ahead:
        path, command = ahead.pop()
        _, _, after = written.partition(f"\n## {path}\n")
        own = after.split("\n## ")[0]
        assert own, path
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else []:
                assert option in own, f"{path} {option}"
        ahead += [(f"{path} {k}", below) for k, below in getattr(command, "commands", {}).items()]


def test_figures_come_from_scripts():
    text = (ROOT / "README.md").read_text()

    for name in ("speed", "learning"):
        inside = text.split(f"<!-- results:{name} -->")[1].split(f"<!-- /results:{name} -->")[0]
        assert inside.strip()


def test_the_changelog_tells_of_this_version():
    import hotlap

    text = (ROOT / "CHANGELOG.md").read_text()

    assert re.search(rf"^## \[?(Unreleased|{re.escape(hotlap.__version__)})\b", text, re.M)
    assert re.search(r"^### Added$", text, re.M)


LEARNERS = {
    "ppo": ({"kind": "ppo"}, "algorithms/ppo"),
    "memory": ({"kind": "ppo", "network.memory": 4}, "algorithms/recurrent-ppo"),
    "ddpg": ({"kind": "ddpg", "warmup": 32}, "algorithms/actor-critic"),
    "sac": ({"kind": "sac", "warmup": 32}, "algorithms/actor-critic"),
    "rdpg": ({"kind": "rdpg", "warmup": 32, "sequence": 4, "burn_in": 2}, "algorithms/rdpg"),
    "dqn": ({"kind": "dqn", "warmup": 32}, "algorithms/q-learning"),
    "pqn": ({"kind": "pqn"}, "algorithms/q-learning"),
    "distill": ({"kind": "distill", "patience": 128, "handover": 4}, "distill"),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_metric_of_a_learner_is_on_its_page(name, monkeypatch, tmp_path):
    train = importlib.import_module("hotlap.train")
    monkeypatch.setattr(train, "write_outcome", lambda run: {})
    settings, page = LEARNERS[name]
    given = {f"algorithm.{key}": value for key, value in settings.items()}
    given |= {"track": "oval", "train.cars": 4, "train.seconds": 0, "train.steps": 256}
    given |= {"evaluation.every": 1000, "evaluation.trials": 1, "evaluation.laps": 1}
    if settings["kind"] in ("dqn", "pqn"):
        given["actions"] = "grid"

    rows = train.train(None, given, out=tmp_path / "run").metrics_rows()

    everywhere = (ROOT / "docs" / "runs.md").read_text()
    text = (ROOT / "docs" / f"{page}.md").read_text()
    if name == "distill":  # says that PPO's are there too
        text += (ROOT / "docs" / "algorithms" / "ppo.md").read_text()
    own = {key for row in rows for key in row if f"`{key}`" not in everywhere}
    own = {key for key in own if not key.startswith(("time/", "evaluation/"))}
    assert own
    assert not {key for key in own if f"`{key}`" not in text}


def test_the_table_of_ppo_has_every_setting_and_its_default():
    text = (ROOT / "docs" / "algorithms" / "ppo.md").read_text()
    section = text.partition("## Settings")[2].partition("\n\n| `network.cnn` | convolutions")[0]
    said: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", section, re.MULTILINE):
        keys, each = names.replace("`", "").split(", "), values.strip().strip("`").split(", ")
        said |= dict(zip(keys, each * len(keys) if len(each) == 1 else each, strict=False))

    def shown(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return "none" if value in (None, ()) else str(value)

    def number(word: str) -> str:
        try:
            return f"{float(word):g}"
        except ValueError:
            return word

    own = {
        key: value for key, value in dict(PPOSettings()).items() if key not in ("kind", "network")
    }
    assert set(own) <= set(said)
    assert {k: number(said[k]) for k in own} == {k: number(shown(own[k])) for k in own}
