"""Files as editors, other systems and accidents leave them: read where it is clear, else named.

Each file that a folder may have is damaged in each way.
"""

import json

import pytest

from hotlap.deepracer.folder import read_folder
from hotlap.errors import ConfigError, HotlapError

GOOD = {
    "model_metadata.json": json.dumps(
        {"action_space": [{"steering_angle": 0, "speed": 1.5}], "version": "5"}, indent=2
    ),
    "hyperparameters.json": json.dumps({"lr": 0.0004, "batch_size": 32}, indent=2),
    "run.env": "# Straßen\nDR_WORLD_NAME=oval\nDR_TRAIN_START_POSITION_OFFSET=0.25\n",
    "system.env": "DR_WORKERS=2\nDR_TRAIN_ROUND_ROBIN_ADVANCE_DIST=0.1\n",
    "worker-2.env": "DR_WORLD_NAME=easy\nDR_CAR_COLOR=Blue\n",
    "training_params.yaml": "---\n'MIN_EVAL_TRIALS': '7'\n'JOB_TYPE': 'TRAINING'\n",
}
"""Every file that is read, and below what it comes to."""
READ = {
    "actions.list": [[0, 1.5]],
    "algorithm.learning_rate": 0.0004,
    "algorithm.minibatch": 32,
    "track": "oval,easy",
    "start.offset": 0.25,
    "start.advance": 0.1,
    "evaluation.trials": 7,
}
HARMLESS = {
    "a byte-order mark": lambda text: text.encode("utf-8-sig"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac line ends": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, the other way round": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "no newline at the end": lambda text: text.rstrip("\n").encode(),
    "blanks at the ends of lines": lambda text: text.replace("\n", "  \n").encode(),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "reward_function.py").write_text("def reward_function(params):\n    return 1.0\n")
    for name, text in GOOD.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    run = tmp_path / "run.env"
    run.write_text(run.read_text(encoding="utf-8") + "DR_TRAIN_MULTI_CONFIG=True\n", "utf-8")
    return tmp_path


def refusal(folder):
    with pytest.raises(HotlapError) as caught:
        read_folder(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert caught.value.exit_code == 2
    return said


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("damage", HARMLESS)
def test_what_an_editor_does_to_a_file_changes_nothing(name, damage, folder):
    text = (folder / name).read_text(encoding="utf-8")

    (folder / name).write_bytes(HARMLESS[damage](text))

    settings = read_folder(folder).settings
    assert {key: settings[key] for key in READ} == READ


@pytest.mark.parametrize("name", GOOD)
def test_a_folder_in_the_place_of_a_file_is_named(name, folder):
    (folder / name).unlink()
    (folder / name).mkdir()

    assert f"{folder / name}: is a folder where a file belongs; move it away" in refusal(folder)


@pytest.mark.parametrize("name", GOOD)
def test_a_link_to_nothing_is_no_absent_file(name, folder):
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "gone")

    assert f"{folder / name}: is a link to a file that is not there" in refusal(folder)


@pytest.mark.parametrize("name", GOOD)
def test_an_unreadable_file_is_named(name, folder, monkeypatch):
    from pathlib import Path

    read = Path.read_bytes

    def refuse(path):
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)

    assert refusal(folder) == f"{folder / name}: cannot be read (Permission denied)"


@pytest.mark.parametrize("name", GOOD)
def test_a_file_that_is_neither_utf_8_nor_utf_16_names_its_line(name, folder):
    text = (folder / name).read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")

    (folder / name).write_bytes(f"{first}\n".encode() + b"\xe4\n" + rest.encode())

    assert f"{name}:2: is neither UTF-8 nor UTF-16 from here on; save it" in refusal(folder)


@pytest.mark.parametrize("name", [name for name in GOOD if not name.endswith(".env")])
@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 64])
def test_an_empty_file_is_named(name, content, folder):
    (folder / name).write_bytes(content)

    assert f"{name}: is empty; delete it, or copy it again" in refusal(folder)


def test_an_empty_run_env_says_that_it_holds_nothing(folder):
    (folder / "run.env").write_text("\n# nothing yet\n")

    plan = read_folder(folder)

    assert "run.env holds no variable" in plan.notes
    assert plan.settings["start.offset"] == 0


TRUNCATED = {
    "model_metadata.json": (30, "model_metadata.json:4: not valid JSON: it ends too soon; copy it"),
    "hyperparameters.json": (20, "hyperparameters.json:3: not valid JSON: it ends too soon; copy"),
    "run.env": (
        18,
        "run.env:2: must be KEY=VALUE, with quotes around a value that has spaces (got",
    ),
    "system.env": (20, "system.env:2: must be KEY=VALUE"),
    "worker-2.env": (5, "worker-2.env:1: must be KEY=VALUE"),
    "training_params.yaml": (9, "training_params.yaml:2: not valid YAML: found unexpected end"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_file_is_named_with_its_line(name, folder):
    count, said = TRUNCATED[name]
    text = (folder / name).read_text(encoding="utf-8")

    (folder / name).write_text(text[:count], encoding="utf-8")

    assert said in refusal(folder)


MISSPELT = [
    ("hyperparameters.json", '{"lr": 1e-4,\n\n"num_epoch": 5}', ":3: num_epoch", "num_epochs"),
    ("model_metadata.json", None, "neural_netwrok", "neural_network"),
    ("run.env", "DR_WORLD_NAEM=oval", "DR_WORLD_NAEM", "DR_WORLD_NAME"),
    ("run.env", "DR_TRAIN_MIN_EVAL_TRAILS=3", "EVAL_TRAILS", "DR_TRAIN_MIN_EVAL_TRIALS"),
    ("run.env", "DR_OA_NUMBER_OF_OBSTACLS=3", "OBSTACLS", "DR_OA_NUMBER_OF_OBSTACLES"),
    ("training_params.yaml", "ROUND_ROBIN_ADVANCE_DISTANCE: 1", "DIS", "ROUND_ROBIN_ADVANCE_DIST"),
]


@pytest.mark.parametrize(("name", "text", "key", "meant"), MISSPELT)
def test_a_misspelt_name_is_told_the_nearest_one_at_the_end(name, text, key, meant, folder):
    if text is None:
        text = json.dumps(json.loads(GOOD[name]) | {key: "x"})
    (folder / name).write_text(text)

    last = read_folder(folder).notes[-1]

    assert name in last
    assert key in last
    assert f"not {'a key of DeepRacer' if 'model' in name else 'known'}" in last
    assert last.endswith(f"(did you mean {meant}?)")


def test_a_hyperparameter_is_known_however_it_is_spelt(folder):
    (folder / "hyperparameters.json").write_text(
        '{"Batch Size": 32, "numEpochs": 3, "discount-factor": 0.9, "LR": 1e-4, "lr": 1e-3}'
    )

    plan = read_folder(folder)

    assert plan.settings["algorithm.minibatch"] == 32
    assert plan.settings["algorithm.epochs"] == 3
    assert plan.settings["algorithm.gamma"] == 0.9
    assert plan.settings["algorithm.learning_rate"] == 1e-3  # the right spelling wins
    assert any("Batch Size is read as batch_size" in note for note in plan.notes)


WRONG = [
    ("model_metadata.json", '{"action_spaces": []}', "action_space: is missing (did you mean"),
    (
        "model_metadata.json",
        '{\n"version": "7",\n"action_space": [{"steering_angle": 0, "speed": 1}]}',
        "model_metadata.json:2: version: must be 1 to 6",
    ),
    (
        "model_metadata.json",
        '{"action_space": [{"steering": 0, "speed": 1}]}',
        "action_space[0]: lacks steering_angle; it has steering, speed",
    ),
    (
        "model_metadata.json",
        '{"action_space": [],\n"neural_network": "DEEP_CONVOLUTIONAL_NETWORK_DEEPER"}',
        "is empty",
    ),
    ("hyperparameters.json", '{\n"lr": "fast"\n}', "hyperparameters.json:2: lr: must be more than"),
    ("hyperparameters.json", '{\n\n"loss_type": "hubber"}', ":3: loss_type: choose from mean"),
    ("hyperparameters.json", '{"loss_type": "hubber"}', "(did you mean huber?)"),
    ("hyperparameters.json", "[1]", "must hold a JSON object"),
    ("hyperparameters.json", '{"lr": 1,}', "hyperparameters.json:1: not valid JSON"),
    ("hyperparameters.json", '{"lr": ' + "[" * 100_000, "nested too deeply"),
    ("hyperparameters.json", '{"lr": "' + "x" * 5 * 2**20 + '"}', "is larger than 4 MiB"),
    ("run.env", "\n\nDR_TRAIN_MIN_EVAL_TRIALS=x", "run.env:3: DR_TRAIN_MIN_EVAL_TRIALS: must be"),
    ("run.env", "DR_RACE_TYPE=OBJECT_AVOIDENCE", "(did you mean OBJECT_AVOIDANCE?)"),
    ("run.env", "DR_TRAIN_BEST_MODEL_METRIC=reword", "(did you mean reward?)"),
    ("run.env", "DR_TRAIN_MULTI_CONFIG=perhaps", "run.env:1: DR_TRAIN_MULTI_CONFIG: must be True"),
    ("training_params.yaml", "WORLD_NAME: [a: b]", "yaml:1: WORLD_NAME: must be a value or a list"),
    ("training_params.yaml", "- a\n- b", "must hold lines of NAME: value"),
    ("training_params.yaml", "WORLD_NAME: 'a\nRACE_TYPE: b", "not valid YAML"),
    ("training_params.yaml", "\tWORLD_NAME: a", "training_params.yaml:1: not valid YAML"),
    ("training_params.yaml", "A: !!python/object:os.system x", "not valid YAML"),
    ("training_params.yaml", "A: \x01", "not valid YAML"),
    ("training_params.yaml", "a: " + "[" * 3000, "nested too deeply"),
    ("training_params.yaml", "JOB_TYPE: EVALUATION", "yaml:1: JOB_TYPE: EVALUATION is no training"),
    ("worker-2.env", "\nDR_WORLD_NAME=atlantis", "worker-2.env:2: DR_WORLD_NAME: unknown track"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_a_mistake_is_one_sentence_with_file_line_and_remedy(name, text, said, folder):
    (folder / name).write_text(text)

    assert said in refusal(folder)


def test_a_file_that_is_not_there_is_said_once():
    with pytest.raises(ConfigError, match="no such folder"):
        read_folder("/nowhere/at/all")
