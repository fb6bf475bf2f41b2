"""Compiled: nearest waypoint by a key, and a lambda with a name."""


def reward_function(params):
    x, y = params["x"], params["y"]
    points = params["waypoints"]
    square = lambda p: (p[0] - x) ** 2 + (p[1] - y) ** 2
    near = min(range(len(points)), key=lambda i: square(points[i]))
    return 1 / (1 + square(points[near])) + near * 1e-3
