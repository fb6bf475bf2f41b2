"""Compiled: one expression of conditions, and chained comparisons."""


def reward_function(p):
    return (
        1e-3 if p["is_offtrack"] else
        (2.0 if 0.5 < p["speed"] <= 2.5 <= 3 and not p["is_reversed"] else 1)
        + (0 if p["is_left_of_center"] else 0.5)
    )
