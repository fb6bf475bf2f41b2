"""What workers share: chosen by what it weighs, and checked before anything starts."""

from __future__ import annotations

from itertools import count

from hotlap.algorithms.peers import Peers
from hotlap.algorithms.settings import DistillSettings, RDPGSettings
from hotlap.distributed.member import shared_out
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig

__all__ = ["chosen_share"]


def chosen_share(config: TrainConfig) -> TrainConfig:
    """Return the settings with what travels decided, and checked.

    Raises:
        ConfigError: the algorithm cannot share in that way.
    """
    given, algorithm = config.distributed, config.algorithm
    pictures = {"camera", "stereo", "depth", "segmentation"}
    seen = {*config.observation.actor, *config.observation.critic}
    replay, share = hasattr(algorithm, "capacity"), given.share
    distill = isinstance(algorithm, DistillSettings)
    memory = bool(getattr(getattr(algorithm, "network", None), "memory", 0))
    if share == "auto":
        share = "experience" if replay and not distill and not seen & pictures else "gradients"
        if not given.synchronous and share == "gradients":
            share = "weights"
    if distill and share != "gradients":
        raise ConfigError(
            f"distributed.share={share}: algorithm distill can only share gradients, as the "
            "frames it learns from stay where they were seen; choose gradients or auto"
        )
    if share == "experience" and memory and not replay:
        raise ConfigError(
            "distributed.share=experience: what a driver with a memory remembered is needed where "
            "it learns; choose gradients or weights"
        )
    if share == "gradients" and not given.synchronous:
        raise ConfigError(
            "distributed.synchronous=false: gradients are summed over all workers, who wait for "
            "each other; choose distributed.share=weights, or experience with a replay"
        )
    episodes = getattr(algorithm, "episodes", 0)
    if episodes and episodes % given.workers:
        raise ConfigError(
            f"algorithm.episodes: {episodes} episodes an update cannot be shared evenly by "
            f"{given.workers} workers; choose a multiple of {given.workers}"
        )
    if episodes and (memory or share == "experience"):
        raise ConfigError(
            "algorithm.episodes: workers end their shares of the episodes at different steps, "
            "which a memory, or a learner of experience, cannot put together; leave it 0"
        )
    minibatch = getattr(algorithm, "minibatch", given.workers)
    if minibatch < given.workers:
        raise ConfigError(
            f"algorithm.minibatch: {minibatch} samples are too few for {given.workers} workers"
        )
    if share == "gradients" and (replay or distill):
        _check_samples(config)
    return config.model_copy(update={"distributed": given.model_copy(update={"share": share})})


def _check_samples(config: TrainConfig) -> None:
    """Refuse a minibatch of which a worker, by its share of the cars, would draw nothing."""
    algorithm, cars = config.algorithm, config.train.cars
    length = algorithm.sequence if isinstance(algorithm, RDPGSettings) else 1
    samples = max(1, getattr(algorithm, "minibatch", 1) // length)
    parts = shared_out(cars, config.distributed.workers, config.traffic.cars)

    def enough(size: int) -> bool:
        return all(Peers(part.first, cars).share(size, part.rows) for part in parts)

    if not enough(samples):
        least = next(size for size in count(samples) if enough(size)) * length
        raise ConfigError(
            f"algorithm.minibatch: {algorithm.minibatch} samples"
            f"{f' in sequences of {length}' if length > 1 else ''} leave none to some of "
            f"{len(parts)} workers, who draw by their shares of {cars} cars; give at least "
            f"{least}, or ask for fewer workers"
        )
