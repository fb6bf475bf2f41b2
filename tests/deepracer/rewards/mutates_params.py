"""Plain (changes params): writes into params."""


def reward_function(params):
    params["speed"] = params["speed"] ** 2
    params["waypoints"].append((0.0, 0.0))
    return params["speed"] + len(params["waypoints"]) * 1e-3
