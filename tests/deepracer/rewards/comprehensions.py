"""Compiled: comprehensions with conditions, any, all, sum and sorted."""


def reward_function(params):
    points = params["waypoints"][2:12]
    xs = [p[0] for p in points if p[0] > 0]
    total = sum(p[1] for p in points)
    mean = sum(xs) / len(xs) if xs else 0.0
    high = any(p[1] > 1 for p in points)
    low = all(p[1] < 1 for p in points)
    middle = sorted([abs(mean), abs(total), params["speed"]])[1]
    return abs(middle) + (1 if high else 0) + (2 if low else 0)
