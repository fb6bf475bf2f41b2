"""Compiled: params.get with defaults, and a key that is not there."""


def reward_function(params):
    speed = params.get("speed", 0.0)
    extra = params.get("lidar", 2.0)
    return speed * extra if "speed" in params else 0.0
