"""Compiled: centre line, and less for turning the wheel far."""


def reward_function(params):
    ABS_STEERING_THRESHOLD = 15
    reward = max(1 - (params["distance_from_center"] / (params["track_width"] / 2)) ** 0.4, 1e-3)
    if abs(params["steering_angle"]) > ABS_STEERING_THRESHOLD:
        reward *= 0.8
    return reward
