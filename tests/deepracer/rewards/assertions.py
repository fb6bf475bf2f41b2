"""Compiled: asserts and raises for what cannot be."""


def reward_function(params):
    width = params["track_width"]
    assert width > 0, "no track"
    if params["speed"] < 0:
        raise ValueError("backwards")
    return 1 - min(1, params["distance_from_center"] / width)
