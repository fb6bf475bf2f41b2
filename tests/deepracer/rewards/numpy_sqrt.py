"""Compiled: numpy for a root and for pi only."""
import numpy as np


def reward_function(params):
    near = 1 - params["distance_from_center"] / params["track_width"]
    turn = abs(params["heading"]) * np.pi / 180
    return float(np.sqrt(abs(near)) + 0.1 * turn)
