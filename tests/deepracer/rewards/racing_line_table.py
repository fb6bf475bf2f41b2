"""Compiled: a racing line of 3000 points with speed and time, in the file."""
import math

RACING = [
    [round(3.0 * math.cos(0.0021 * i), 5), round(2.0 * math.sin(0.0021 * i), 5),
     round(2.0 + math.sin(0.01 * i), 3), 0.01 * i]
    for i in range(3000)
]


def closest(x, y):
    best, found = 999.0, 0
    for i, (px, py, _, _) in enumerate(RACING):
        d = (px - x) ** 2 + (py - y) ** 2
        if d < best:
            best, found = d, i
    return found, math.sqrt(best)


def reward_function(params):
    i, away = closest(params["x"], params["y"])
    speed_wanted = RACING[i][2]
    reward = max(1e-3, 1 - away / (params["track_width"] * 0.5))
    reward += 1 - abs(params["speed"] - speed_wanted) / 4
    reward += 0.1 * (RACING[-1][3] - RACING[i][3]) / RACING[-1][3]
    return reward
