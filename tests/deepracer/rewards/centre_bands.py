"""Compiled: three bands around the centre line."""


def reward_function(params):
    width = params["track_width"]
    away = params["distance_from_center"]
    if away <= 0.1 * width:
        reward = 1.0
    elif away <= 0.25 * width:
        reward = 0.5
    elif away <= 0.5 * width:
        reward = 0.1
    else:
        reward = 1e-3
    return float(reward)
