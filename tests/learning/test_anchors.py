"""PPO against published returns; the five seeds we publish come from benchmarks/anchors.py."""

import pytest
from anchors import ANCHORS, run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
@pytest.mark.parametrize("task", ANCHORS)
def test_it_reaches_what_others_published(task, seed):
    assert run(task, seed)["return_mean"] >= ANCHORS[task].at_least
