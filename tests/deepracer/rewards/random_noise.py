"""Plain (random): draws random numbers."""
import random


def reward_function(params):
    return params["speed"] + random.uniform(0, 0.01)
