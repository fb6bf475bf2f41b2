"""Compiled: exponentials that overflow at times, within a try."""
import math


def sigmoid(x):
    try:
        return 1 / (1 + math.exp(-x))
    except OverflowError:
        return 0.0


def reward_function(params):
    return sigmoid(params["heading"] * 0.1) + math.log(params["track_width"]) ** 2 + math.tanh(
        params["speed"]
    )
