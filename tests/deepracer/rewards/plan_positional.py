"""Compiled: the older form with twelve arguments."""
import math


def reward_function(on_track, x, y, distance_from_center, car_orientation, progress, steps,
                    throttle, steering, track_width, waypoints, closest_waypoints):
    if not on_track:
        return 0.0
    if distance_from_center > 0.0 and distance_from_center < 0.05:
        reward = 1.0
    else:
        reward = 0.5
    point = waypoints[closest_waypoints]
    reward += 0.1 * math.cos(car_orientation) + throttle + abs(steering)
    reward += math.sqrt((point[0] - x) ** 2 + (point[1] - y) ** 2) * progress / steps
    return reward
