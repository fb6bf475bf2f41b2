"""Compiled: waypoints in bands of speed, by lists, a set and a range."""

FAST = [0, 1, 2, 3, 4, 5, 6, 40, 41, 42, 43, 44, 45, 46, 47]
SLOW = {12, 13, 14, 15, 30, 31}
MIDDLE = range(20, 29)


def reward_function(params):
    here = params["closest_waypoints"][1]
    speed = params["speed"]
    if here in FAST:
        best = 4.0
    elif here in SLOW:
        best = 1.5
    elif here in MIDDLE or here in (16, 17):
        best = 2.5
    else:
        best = 3
    error = (speed - best) ** 2
    if not params["all_wheels_on_track"] or params["is_offtrack"]:
        return 1e-3
    return 1.0 / (1.0 + error)
