"""Compiled: a mode as text in the file."""

MODE = "careful"


def reward_function(params):
    limit = 2.0 if MODE == "careful" else 4.0
    if MODE in ("wild", "wilder"):
        limit *= 2
    return min(params["speed"], limit)
