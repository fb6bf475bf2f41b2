"""What others build on: names, commands, environments, and what they do not load."""

import importlib
import json
import subprocess
import sys

import gymnasium
import pytest
import typer
from typer.testing import CliRunner

import hotlap
from hotlap.cli import app

VERBS = ("train", "evaluate", "race", "tracks", "film", "plot", "runs", "doctor", "bench")
VERBS += ("export", "import", "plan")
HEAVY = ("torch", "ray", "matplotlib", "tensorboard", "av")


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter; return which of HEAVY, numba and pydantic it loaded."""
    ask = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return {*HEAVY, "numba", "pydantic"} & set(json.loads(run.stderr.splitlines()[-1]))


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command, () for `hotlap` itself."""
    found, ahead = [], [((), typer.main.get_command(app))]
    while ahead:
        path, command = ahead.pop()
        found.append(path)
        ahead += [((*path, k), below) for k, below in getattr(command, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("name", hotlap.__all__)
def test_every_public_name_is_there_under_its_own_name(name):
    found = getattr(hotlap, name)

    assert found.__name__ == name
    assert found.__module__.startswith("hotlap.")


def test_the_public_names_are_these():
    # Taking one away breaks others' programs: say so in CHANGELOG.md and an ADR.
    assert set(hotlap.__all__) >= {
        "EnvSettings",
        "HotlapError",
        "Population",
        "Report",
        "Run",
        "Standings",
        "Track",
        "VectorEnv",
        "evaluate",
        "load_policy",
        "load_track",
        "race",
        "train",
    }


@pytest.mark.parametrize(
    ("name", "place"), [("train", "train"), ("evaluate", "evaluate"), ("race", "racing.race")]
)
def test_a_verb_stays_a_verb_after_its_module_was_imported(name, place):
    module = importlib.import_module(f"hotlap.{place}")

    assert getattr(hotlap, name) is getattr(module, name)


def test_importing_hotlap_is_light():
    assert loaded_by("import hotlap") == set()


@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium, hotlap; gymnasium.make('hotlap/TimeTrial-v0', track='oval').reset()",
        "from hotlap.plan import TrainConfig; TrainConfig()",
        "import hotlap; hotlap.evaluate, hotlap.load_policy, hotlap.load_track('oval')",
        "import hotlap; hotlap.race, hotlap.Standings",
    ],
)
def test_only_learning_needs_torch(code):
    assert "torch" not in loaded_by(code)


def test_the_commands_are_these():
    # Taking one away breaks others' scripts: say so in CHANGELOG.md and an ADR.
    assert {path[0] for path in commands() if path} >= set(VERBS)


@pytest.mark.parametrize("path", commands(), ids=lambda path: " ".join(("hotlap", *path)))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_helps(path, flag):
    result = CliRunner().invoke(app, [*path, flag])

    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_help_loads_nothing_heavy():
    helps = "\n".join(
        f"CliRunner().invoke(app, {[*path, '--help']!r}, catch_exceptions=False)"
        for path in commands()
    )

    loaded = loaded_by(f"from typer.testing import CliRunner\nfrom hotlap.cli import app\n{helps}")

    assert loaded <= {"pydantic"}


def test_a_mistake_of_the_user_is_a_sentence_and_exit_status_2():
    run = subprocess.run(
        [sys.executable, "-c", "from hotlap.cli import main; main()", "evaluate", "no/such/run"],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("hotlap: ")
    assert "Traceback" not in run.stderr


def test_the_time_trial_is_registered():
    assert "hotlap/TimeTrial-v0" in gymnasium.registry


def test_both_ways_to_make_the_environment_agree_on_one_row():
    one = gymnasium.make("hotlap/TimeTrial-v0", track="oval")
    many = gymnasium.make_vec(
        "hotlap/TimeTrial-v0", num_envs=3, vectorization_mode="vector_entry_point", track="oval"
    )

    assert one.observation_space == many.unwrapped.single_observation_space
    assert one.action_space == many.unwrapped.single_action_space
    assert many.reset(seed=0)[0].shape == (3, *one.observation_space.shape)
