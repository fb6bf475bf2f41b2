"""Compiled: walks the waypoints until they are two metres ahead."""
import math


def reward_function(params):
    points = params["waypoints"]
    i = params["closest_waypoints"][1]
    way = 0.0
    n = 0
    while way < 2.0 and n < 1000:
        a, b = points[i % len(points)], points[(i + 1) % len(points)]
        way += math.dist(a, b)
        i += 1
        n += 1
    goal = points[i % len(points)]
    angle = math.degrees(math.atan2(goal[1] - params["y"], goal[0] - params["x"]))
    off = abs((angle - params["heading"] + 180) % 360 - 180)
    return math.exp(-off / 30)
