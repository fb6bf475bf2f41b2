"""What travels between workers: chosen, and refused at once where it cannot."""

from __future__ import annotations

import pytest

from hotlap.config import resolve
from hotlap.distributed.share import chosen_share
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig

PPO = {"train.cars": 12, "algorithm.minibatch": 32, "distributed.workers": 2}


@pytest.mark.parametrize(
    ("given", "changed", "said"),
    [
        (PPO, {"algorithm.episodes": 7}, "algorithm.episodes: 7 episodes an update"),
        (PPO, {"distributed.share": "gradients", "distributed.synchronous": False}, "wait for"),
        (PPO, {"algorithm.network.memory": 4, "distributed.share": "experience"}, "memory"),
        (PPO, {"algorithm.minibatch": 1}, "too few for 2 workers"),
        ({"distributed.workers": 48}, {"algorithm.kind": "rdpg", "train.cars": 48,
          "observation.actor": ["camera"]},
         "samples in sequences of .* leave none to some of 48 workers.* at least "),
        ({"distributed.workers": 2}, {"algorithm.kind": "distill", "distributed.share": "weights"},
         "can only share gradients"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused_at_once(given, changed, said):
    with pytest.raises(ConfigError, match=said):
        chosen_share(resolve(TrainConfig, {**given, **changed}))


@pytest.mark.parametrize(
    ("changed", "share"),
    [({}, "gradients"), ({"algorithm.kind": "sac"}, "experience"),
     ({"algorithm.kind": "sac", "observation.actor": ["camera"]}, "gradients"),
     ({"distributed.synchronous": False}, "weights")],
)  # fmt: skip
def test_what_travels_is_chosen_by_what_it_weighs(changed, share):
    config = resolve(TrainConfig, {"distributed.workers": 2, **changed})
    assert chosen_share(config).distributed.share == share
