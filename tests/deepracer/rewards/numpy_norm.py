"""Plain (numpy): vectors of numpy."""
import numpy as np


def reward_function(params):
    points = params["waypoints"]
    a, b = params["closest_waypoints"]
    way = np.array(points[b]) - np.array(points[a])
    here = np.array([params["x"], params["y"]]) - np.array(points[a])
    along = np.dot(way, here) / (np.linalg.norm(way) + 1e-9)
    return float(np.clip(along, 0, 1) + params["speed"])
