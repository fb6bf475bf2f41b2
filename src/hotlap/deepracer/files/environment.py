"""Environment: the variables of a DeepRacer folder, from every file that may hold some.

`run.env` and `system.env` of DeepRacer-for-Cloud, the `training_params.yaml` that it writes from
them, the `worker-N.env` of its further workers, and what a RoboMaker sample is told.

Source: aws-deepracer-community/deepracer-for-cloud, defaults/ and scripts/training, and
amazon-archives/aws-robomaker-sample-application-deepracer, read for names and defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hotlap.deepracer.files.documents import Document, is_there
from hotlap.deepracer.files.findings import Findings
from hotlap.deepracer.files.values import integer, truth

__all__ = ["Environment", "Variable", "plain_name", "read_environment"]

_ENVS = ("run.env", "system.env")
"""The first one that says something wins; and so below."""
_YAMLS = ("training_params.yaml", "training-params.yaml")
_EVALUATIONS = ("eval_params.yaml", "eval-params.yaml", "evaluation_params.yaml")
_SETTINGS = "roboMakerSettings.json"
_ROBOMAKER = (
    "WORLD_NAME",
    "MARKOV_PRESET_FILE",
    "MODEL_S3_BUCKET",
    "MODEL_S3_PREFIX",
    "ROS_AWS_REGION",
    "NUMBER_OF_ROLLOUT_WORKERS",
)
"""Variables that a RoboMaker sample's launch files read."""
_ALIASES = {
    "REVERSE_DIR": "REVERSE_DIRECTION",
    "NUM_WORKERS": "WORKERS",
    "NUMBER_OF_ROLLOUT_WORKERS": "WORKERS",
    "PENALTY_SECONDS": "BOT_CAR_PENALTY",
    "SAGEMAKER_SHARED_S3_PREFIX": "LOCAL_S3_MODEL_PREFIX",
    "MODEL_S3_PREFIX": "LOCAL_S3_MODEL_PREFIX",
}
_SECRET = re.compile(r".*(SECRET|TOKEN|PASSWORD|ACCESS_KEY).*")


@dataclass(frozen=True)
class Variable:
    """A variable as it was written."""

    word: str
    """Its name, prefixes and all."""
    text: str
    """Its value; of a list all values, with `;` between."""
    file: str
    """What the file is called in what is said."""
    at: str
    """Where it stands, as a message says it: `path:line: word`."""

    @property
    def said(self) -> str:
        """The variable as a note says it; a secret without its value."""
        shown = "" if _SECRET.fullmatch(self.word.upper()) else f" = {self.text}"
        return f"{self.file}: {self.word}{shown}"


@dataclass(frozen=True)
class Environment:
    """All variables of a folder, by their plain names."""

    variables: dict[str, Variable]
    workers: dict[int, dict[str, Variable]] = field(default_factory=dict)
    """Those of the second and further workers, where they have settings of their own."""


def plain_name(word: str) -> str:
    """Return what a variable is called in every file: `DR_TRAIN_X` and `X` are the same."""
    name = word.upper().removeprefix("DR_").removeprefix("TRAIN_")
    name = name.removeprefix("OA_").removeprefix("H2B_")
    return _ALIASES.get(name, name)


def read_environment(
    folder: Path,
    findings: Findings,
    process: Mapping[str, str] | None = None,
    *,
    evaluation: bool = False,
) -> Environment:
    """Read the variables of a folder, and say which files are absent or overruled.

    Args:
        folder: the folder.
        findings: are added to.
        process: variables of this process, which count where the folder is a RoboMaker sample.
        evaluation: whether it is for an evaluation; then `eval_params.yaml` counts, first of all,
            and what only trainings are told does not.

    Raises:
        ConfigError: a file is broken; the message names file and line.
    """
    if evaluation:
        documents = [Document.of_yaml(path) for path in _present(folder, _EVALUATIONS)]
        documents += [Document.of_variables(path) for path in _present(folder, _ENVS)]
        return Environment(_first(documents, findings))
    documents = [Document.of_variables(p) for p in _present(folder, _ENVS)]
    documents += [Document.of_yaml(p) for p in _present(folder, _YAMLS)]
    is_sample = (folder / _SETTINGS).exists() or (folder / "simulation_ws").is_dir()
    if is_sample:
        outside = {name: value for name in _ROBOMAKER if (value := (process or {}).get(name))}
        documents.insert(0, Document(Path("environment"), outside))
        documents += [_launched(p) for p in _present(folder, (_SETTINGS,))]
    for document in documents:
        if not document.values and document.path.name in _ENVS:
            findings.note(f"{document.path.name} holds no variable")
    if not any(document.path.name == "run.env" for document in documents):
        findings.note(
            "run.env is absent: as in DeepRacer, each episode starts 0.05 of a lap further"
        )
    found = _first(documents, findings)
    for path in _present(folder, _EVALUATIONS):
        _say_evaluation(Document.of_yaml(path), findings)
    return Environment(found, _workers(folder, found, findings))


def _first(documents: Iterable[Document], findings: Findings) -> dict[str, Variable]:
    """Return the variables of several files; the first file that says something wins."""
    found: dict[str, Variable] = {}
    for document in documents:
        for name, variable in _variables(document).items():
            if name not in found:
                found[name] = variable
            elif found[name].text != variable.text:
                findings.nothing(variable.said, f"{found[name].file} says {found[name].text}")
    return found


def _present(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if is_there(folder / name)]


def _variables(document: Document) -> dict[str, Variable]:
    file = document.path.name
    return {
        plain_name(word): Variable(word, _written(value), file, document.at(word))
        for word, value in document.values.items()
    }


def _written(value: Any) -> str:
    """Write a value of YAML as run.env has it."""
    if isinstance(value, list):
        return ";".join(map(_written, value))
    return "" if value is None else str(value).strip()


def _launched(path: Path) -> Document:
    """Find the variables of a RoboMaker sample's first simulation that is no evaluation."""
    whole = Document.of_json(path)
    todo: list[Any] = [whole.values]
    found: Mapping[str, Any] = {}
    while todo and not found:
        one = todo.pop(0)
        todo += one if isinstance(one, list) else []
        if isinstance(one, dict):
            given = one.get("environmentVariables")
            if isinstance(given, dict) and "eval" not in str(one.get("launchFile", "")):
                found = given
            todo += one.values()
    return Document(path, {str(name): value for name, value in found.items()})


def _workers(
    folder: Path, found: Mapping[str, Variable], findings: Findings
) -> dict[int, dict[str, Variable]]:
    """Read what the second and further workers are told, where each has settings of its own."""
    envs = {int(m[1]): p for p in folder.iterdir() if (m := _WORKER.fullmatch(p.name))}
    yamls = {int(m[1]): p for p in folder.iterdir() if (m := _NUMBERED.fullmatch(p.name))}
    several = found.get("MULTI_CONFIG")
    if several is not None and several.text:
        apart = truth(several.at, several.text)
    else:
        apart = bool(yamls) and not envs
    count = max([1, *envs, *yamls])
    if "WORKERS" in found and found["WORKERS"].text and several is not None:
        count = integer(found["WORKERS"].at, found["WORKERS"].text)
    workers = {}
    for number in sorted({*envs, *yamls, *(range(2, count + 1) if apart else ())}):
        path = envs.get(number) or yamls.get(number)
        if path is None:
            findings.note(f"worker-{number}.env is absent: that worker would drive as the first")
        elif not apart:
            findings.nothing(path.name, "DR_TRAIN_MULTI_CONFIG is not True")
        elif number == 1:
            findings.nothing(path.name, "the first worker drives as run.env says")
        elif number > count:
            findings.nothing(path.name, f"{found['WORKERS'].said}")
        elif is_there(path):
            read = Document.of_variables if path.suffix == ".env" else Document.of_yaml
            workers[number] = _variables(read(path))
    return workers


_WORKER = re.compile(r"worker-(\d+)\.env")
_NUMBERED = re.compile(r"training[_-]params_(\d+)\.yaml")


def _say_evaluation(document: Document, findings: Findings) -> None:
    """Say how to ask for the evaluation that a file describes."""
    given = {name: variable.text for name, variable in _variables(document).items()}
    words = [
        f"{option} {given[name]}"
        for name, option in (
            ("WORLD_NAME", "--track"),
            ("NUMBER_OF_TRIALS", "--trials"),
            ("EVAL_CHECKPOINT", "--checkpoint"),
        )
        if given.get(name)
    ]
    command = " ".join(["hotlap evaluate RUN", *words])
    findings.nothing(
        document.path.name, f"it is of an evaluation; once there is a driver: {command}"
    )
