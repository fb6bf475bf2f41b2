"""Rows cut into parts, and memory that stays when tensors are freed."""

import os
import platform
import subprocess
import sys

import pytest

from hotlap.algorithms.shards import cut

FAULTS = """
import resource, sys, torch
from hotlap.algorithms.shards import settle

def faults(rounds):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        kept = [torch.ones(1 << 20) for _ in range(3)]  # 4 MiB each
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

if sys.argv[1] == "settled":
    settle()
faults(3)
print(faults(50))
"""


@pytest.mark.parametrize(
    ("rows", "most", "ends"),
    [
        (32, 64, [16, 32]),
        (20, 64, [16, 20]),
        (16, 64, [16]),
        (5, 64, [5]),
        (300, 64, [64, 128, 192, 256, 300]),
        (100, 64, [50, 100]),
        (300, 0, [300]),
        (0, 0, [0]),
        (0, 64, [0]),
    ],
)
def test_rows_are_cut_into_two_parts_at_least(rows, most, ends):
    parts = cut(rows, most)

    assert [part.stop for part in parts] == ends
    assert [part.start for part in parts] == [0, *ends[:-1]]


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they will"
)
def test_freed_tensors_are_not_fetched_from_the_system_anew():
    def faults(word, **asked):
        call = [sys.executable, "-c", FAULTS, word]
        env = os.environ | asked
        done = subprocess.run(call, capture_output=True, text=True, check=True, env=env)
        return int(done.stdout)

    # Left alone, the library learns to keep what lies on top of its heap, or does not, by chance.
    alone = faults("as it was", MALLOC_MMAP_THRESHOLD_="131072")
    assert faults("settled") < 1000 < alone  # 50 rounds of 3 times 1,024 pages
