"""Compiled: a negative number to a broken power, which Python makes complex."""


def reward_function(params):
    share = 1 - params["distance_from_center"] / (0.1 + params["track_width"] / 2)
    return abs(share ** 0.4)
