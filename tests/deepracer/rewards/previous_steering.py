"""Compiled: steering of the step before in a global."""

prev_steering = 0.0


def reward_function(params):
    global prev_steering
    change = abs(params["steering_angle"] - prev_steering)
    prev_steering = params["steering_angle"]
    reward = 1.0
    if change > 10:
        reward *= 0.7
    if params["steps"] <= 2:
        reward = 1.0
    return reward
