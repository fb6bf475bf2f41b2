"""Compiled: it divides by what is zero at times, and Python says so."""


def reward_function(params):
    share = params["progress"] / params["steps"]
    late = 1 / (params["progress"] - 100) if params["steps"] > 300 else 0
    return share - 0.001 * late
