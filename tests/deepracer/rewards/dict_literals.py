"""Compiled: settings in dicts, inside and outside of the function."""

SPEEDS = {"slow": 1.0, "fast": 3.0}
BY_WAYPOINT = {0: 4.0, 1: 4.0, 2: 3.5, 10: 1.5, 11: 1.2, 12: 1.2}


def reward_function(params):
    weights = {"speed": 0.4, "centre": params["track_width"]}
    here = params["closest_waypoints"][0]
    best = BY_WAYPOINT.get(here, SPEEDS["fast"])
    if here in BY_WAYPOINT:
        best = BY_WAYPOINT[here]
    return weights["speed"] * min(params["speed"], best) + weights["centre"]
