"""Compiled: a name that is not set on every way."""


def reward_function(params):
    if params["speed"] > 0.3:
        reward = params["speed"]
    if params["is_offtrack"]:
        reward = 0.001
    return reward
