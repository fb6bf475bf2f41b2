"""Reward functions as people write them: compiled or refused for a reason, never another value.

Each file of `rewards/` says in its first line what is expected of it.
"""

import ast
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hotlap.deepracer.params import Params
from hotlap.deepracer.rewards.batch import Prepared, RewardBatch, prepare
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.deepracer.rewards.samples import sample_columns
from hotlap.track import load_track

FILES = sorted((Path(__file__).parent / "rewards").glob("*.py"))
SHARED = ("objects_avoidance", "head_to_bot")
STATES = 600


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTLAP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@cache
def states(objects: int):
    """Columns and Params of other states than those of the proof."""
    return sample_columns(load_track("hairpins"), 2 * objects, objects, STATES)


def expected(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]


def called(path: Path, columns, params: Params) -> list[float | str]:
    """Plain Python, car by car: every call on a module of its own, as on a DeepRacer worker."""
    file = RewardFile(path)
    modules = [file.another() for _ in range(STATES)] if file.effects.stateful else None
    found: list[float | str] = []
    for i, row in enumerate(params.rows(columns)):
        function = None if modules is None else modules[i].reward_function
        try:
            found.append(file.number(file.call(row, function), row))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def check(path: Path) -> None:
    objects = 2 if path.stem in SHARED else 0
    columns, params = states(objects)
    wanted = called(path, columns, params)
    prepared = prepare(RewardFile(path), load_track("oval"), obstacles=objects, cars=objects)

    said = expected(path)
    if said.startswith("Compiled"):
        assert prepared.why == ""
        batch = RewardBatch(prepared, params, threads=2)
        found, left = batch.tried_fast(columns)
        same = [
            np.float64(w).tobytes() == f.tobytes()
            for w, f in zip(wanted, found, strict=True)
            if not isinstance(w, str)
        ]
        took = [not at for at, w in zip(left, wanted, strict=True) if not isinstance(w, str)]
        assert all(s or not t for s, t in zip(same, took, strict=True))
        assert all(at for at, w in zip(left, wanted, strict=True) if isinstance(w, str))
        assert sum(took) > 100
    else:
        reason = said.partition("(")[2].partition(")")[0]
        assert prepared.translation is None
        assert reason in prepared.why
        random.seed(1)
        failed = np.array([isinstance(w, str) for w in wanted])
        assert not failed.any()
        if path.stem not in ("random_noise", "clock", "prints_always"):
            found = RewardBatch(Prepared(prepared.file, None, ""), params, threads=1)(columns)
            assert found.tolist() == wanted


FAST = (
    "centre_bands",
    "previous_steering",
    "history_list",
    "dict_state",
    "mutates_params",
    "function_state",
    "numpy_norm",
    "recursion",
    "prints_always",
    "helper_object",
    "clock",
    "random_noise",
)


@pytest.mark.parametrize("name", FAST)
def test_a_reward_is_compiled_or_refused_as_it_says(name, capsys):
    check(Path(__file__).parent / "rewards" / f"{name}.py")


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in FAST], ids=lambda p: p.stem)
def test_every_other_reward_too(path, capsys):
    check(path)


def test_at_least_nine_of_ten_are_compiled_or_refused_and_there_are_thirty():
    said = [expected(path).partition(" ")[0] for path in FILES]

    assert len(said) >= 30
    assert all(word in ("Compiled:", "Plain") for word in said)
    assert said.count("Compiled:") >= 0.6 * len(said)
