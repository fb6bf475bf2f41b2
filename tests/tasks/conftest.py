"""States by hand."""

from dataclasses import fields

import numpy as np
import pytest

from hotlap.simulator import State

WHOLE = ("station", "wheels_off", "steps", "episode", "row", "track", "world")


@pytest.fixture
def state():
    """Build the State of some cars: fields that are not given are 0."""

    def build(rows=1, **given):
        assert set(given) <= {field.name for field in fields(State)}
        return State(
            **{
                field.name: np.full(rows, 0, np.int32 if field.name in WHOLE else np.float32)
                + np.asarray(
                    given.get(field.name, 0), np.int32 if field.name in WHOLE else np.float32
                )
                for field in fields(State)
            }
        )

    return build
