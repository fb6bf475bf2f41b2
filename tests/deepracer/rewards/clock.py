"""Plain (time): asks for the time."""
import time


def reward_function(params):
    return params["speed"] + 0 * time.time()
