"""Compiled: helpers with defaults and keywords."""


def score(value, low=0.0, high=4.0, power=2):
    share = (value - low) / (high - low)
    return share ** power


def reward_function(params):
    return score(params["speed"]) + score(params["heading"], -180.0, power=3, high=180)
