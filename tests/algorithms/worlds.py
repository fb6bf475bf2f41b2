"""What learners are tested on: worlds drawn at random, and two learners told apart."""

import numpy as np

from hotlap.algorithms.batch import Batch, ObservationSpec

OBSERVATION = {
    "camera": ObservationSpec((24, 32, 1), "uint8"),
    "state": ObservationSpec((5,), "float32"),
}


def look(rng, *shape):
    return {
        "camera": rng.integers(0, 256, (*shape, 24, 32, 1)).astype(np.uint8),
        "state": rng.normal(1.0, 2.0, (*shape, 5)).astype(np.float32),
    }


def driven(rng, seen, action, log_prob, reward, ended) -> Batch:
    """Return what was driven as a batch; `ended`: where it terminated, and where it was cut off."""
    terminated, truncated = ended
    return Batch(
        observation=seen,
        last_observation=look(rng, reward.shape[1]),
        action=action,
        log_prob=log_prob,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        reached=look(rng, int((terminated | truncated).sum())),
    )


def assert_same(one, other):
    (meta, arrays), (other_meta, other_arrays) = one.save(), other.save()
    assert meta == other_meta
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)
