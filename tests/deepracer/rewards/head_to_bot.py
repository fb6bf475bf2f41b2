"""Compiled: bots that are slower, seen by the camera, in a loop with zip."""


def reward_function(params):
    reward = params["speed"]
    length = params["track_length"]
    mine = params["projection_distance"]
    for distance, speed in zip(params["objects_distance"], params["objects_speed"]):
        gap = (distance - mine) % length
        if gap < 1.5 and params["object_in_camera"] and speed < params["speed"]:
            reward -= 0.5 * (1.5 - gap)
    return max(reward, 0.01)
