"""Footprint: about how much memory a training will need, known before it begins."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from hotlap.algorithms.batch import ObservationSpec, shard_rows
from hotlap.algorithms.settings import (
    DistillSettings,
    DQNSettings,
    NetworkSettings,
    PPOSettings,
    PQNSettings,
    ReplaySettings,
)
from hotlap.errors import ConfigError
from hotlap.threads import available

__all__ = ["AT_ONCE", "check", "footprint", "free_memory"]

AT_ONCE = 16
"""Minibatches that are drawn together from a replay; one call of NumPy costs as much as many."""
_PASSES = 3
"""Numbers kept for each one that a layer passes on: it, its gradient, its copy in other digits."""

_STORED = ("algorithm.capacity", "algorithm.memory")
"""What stays in this machine's memory wherever it is learned from."""

AnySettings = PPOSettings | ReplaySettings | PQNSettings | DistillSettings


def check(
    settings: AnySettings,
    observation: Mapping[str, ObservationSpec],
    names: Sequence[str],
    cars: int,
    device: str = "cpu",
) -> None:
    """Refuse a training that cannot fit into the memory that is free, here or on the GPU.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        names: of what the networks read.
        cars: that drive at once.
        device: torch's name for where it learns; a GPU holds batches, and no replay.

    Raises:
        ConfigError: it needs more; the message names the setting that needs most.
    """
    _compare(footprint(settings, observation, names, cars), free_memory(), "memory")
    if device == "cuda":
        parts = footprint(settings, observation, names, cars, shards=False)
        kept = {k: v for k, v in parts.items() if k not in _STORED}
        _compare(kept, _free_memory_of_gpu(), "the GPU's memory")


def _compare(parts: Mapping[str, float], free: float, which: str) -> None:
    if (whole := sum(parts.values())) > free:
        most = max(parts, key=lambda name: parts[name])
        raise ConfigError(
            f"{most}: needs about {parts[most] / 1e9:,.1f} GB of {which} (the whole training "
            f"{whole / 1e9:,.1f} GB), and {free / 1e9:,.1f} GB are free; "
            "lower it, or observe less"
        )


def footprint(
    settings: AnySettings,
    observation: Mapping[str, ObservationSpec],
    names: Sequence[str],
    cars: int,
    *,
    shards: bool = True,
) -> dict[str, float]:
    """Return about how many bytes a training needs, by the setting that decides it.

    Without `shards`, PPO and a student learn from a whole minibatch at once, as on a GPU.
    """
    seen = [observation[name] for name in dict.fromkeys(names)]
    frame = sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in seen)
    if isinstance(settings, DistillSettings):
        practice = footprint(settings.practice, observation, names, cars, shards=shards)
        parts = {k.replace("algorithm.", "algorithm.practice."): v for k, v in practice.items()}
        student = settings.minibatch
        if shards:
            student = min(student, _together(settings.practice, seen))
        student *= _passed(settings.practice.network, seen)
        labels = settings.minibatch * frame * 2
        return parts | {
            "algorithm.memory": float(settings.memory * frame),
            "algorithm.minibatch": float(student + labels),
        }
    # what is collected, and the tensors that are made of it
    batch, most = cars * settings.horizon, "train.cars times algorithm.horizon"
    if isinstance(settings, PPOSettings) and settings.episodes:
        batch, most = max(cars, settings.batch_max), "algorithm.batch_max"
    parts = {most: 2.0 * batch * frame}
    if isinstance(settings, ReplaySettings):
        rows, copies = settings.minibatch, 4 * AT_ONCE
        parts["algorithm.capacity"] = float(settings.capacity * frame)
    else:
        rows, copies = min(settings.minibatch, batch), 1
        if isinstance(settings, PPOSettings) and shards:
            rows = min(rows, _together(settings, seen))
    networks = 1 if isinstance(settings, DQNSettings | PQNSettings) else 2
    parts["algorithm.minibatch"] = float(
        rows * (copies * frame + networks * _passed(settings.network, seen))
    )
    return parts


def _together(settings: PPOSettings, seen: Sequence[ObservationSpec]) -> int:
    """Return how many rows PPO or a student learns from at once, on all threads."""
    images = [math.prod(spec.shape) for spec in seen if spec.is_image]
    return shard_rows(images) * (settings.threads or available())


def _passed(network: NetworkSettings, seen: Sequence[ObservationSpec]) -> int:
    """Return about how many bytes the layers of one network keep of a row that they learn from."""
    images = [math.prod(spec.shape) for spec in seen if spec.is_image]
    if not images:
        return 4 * _PASSES * max(1024, sum(network.mlp))
    # The first convolution passes on most: filters over stride squared, numbers for a pixel; all
    # further layers together as much again at the most.
    first = {"small": 16 / 16, "deepracer": 32 / 4, "airsim": 16, "deepracer_stereo": 32 / 2}.get(
        network.cnn, 32 / 16
    )
    return int(4 * _PASSES * sum(images) * (1 + 2 * first))


def free_memory() -> float:
    """Return how many bytes are free, also of what a container may use; infinite where unknown."""
    found = [math.inf]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024.0 * int(line.split()[1]))
    with suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(facts["inactive_file"]) + int(facts["active_file"])  # given up when needed
        found.append(float(most - max(0, used - cached)))
    if len(found) == 1:
        with suppress(AttributeError, OSError, ValueError):
            found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(found)


def _free_memory_of_gpu() -> float:
    """Return how many bytes are free on the GPU that torch would take."""
    import torch

    return float(torch.cuda.mem_get_info()[0])
