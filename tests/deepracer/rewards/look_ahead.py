"""Compiled: a target some waypoints ahead, with tuples unpacked and a modulo."""
from math import atan2, degrees, hypot

AHEAD = 7


def angle_to(x, y, target):
    tx, ty = target
    return degrees(atan2(ty - y, tx - x))


def wrapped(angle):
    while angle > 180:
        angle -= 360
    while angle < -180:
        angle += 360
    return angle


def reward_function(params):
    points = params['waypoints']
    x, y = params['x'], params['y']
    goal = points[(params['closest_waypoints'][1] + AHEAD) % len(points)]
    wanted = wrapped(angle_to(x, y, goal) - params['heading'])
    error = abs(wanted - params['steering_angle']) / 60
    far = hypot(goal[0] - x, goal[1] - y)
    score = 1.0 - min(error, 1.0)
    return max(score, 0.01) + 0.01 * far
