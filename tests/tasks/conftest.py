"""States by hand."""

import numpy as np
import pytest

from hotlap.simulator import ROW_FIELDS, State

WHOLE = ("station", "wheels_off", "steps", "episode", "row", "track", "world")


@pytest.fixture
def state():
    """Build the State of some cars: fields that are not given are 0."""

    def build(rows=1, around=None, **given):
        assert set(given) <= set(ROW_FIELDS)
        kinds = {name: np.int32 if name in WHOLE else np.float32 for name in ROW_FIELDS}
        return State(
            **{
                name: np.full(rows, 0, kind) + np.asarray(given.get(name, 0), kind)
                for name, kind in kinds.items()
            },
            around=around,
        )

    return build
