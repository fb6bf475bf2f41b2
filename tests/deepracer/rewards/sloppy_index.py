"""Compiled: looks two waypoints beyond the end at times, within a try."""


def reward_function(params):
    points = params["waypoints"]
    try:
        ahead = points[params["closest_waypoints"][1] + 2]
        bonus = 1.0 if ahead[0] > params["x"] else 0.5
    except IndexError:
        bonus = 0.25
    return bonus
