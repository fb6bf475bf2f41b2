"""Compiled: tells only completed laps, so Python does only those."""


def reward_function(params):
    reward = 1 + params["progress"] / 100
    if params["progress"] == 100 and params["steps"] < 100:
        print(f"lap in {params['steps']:.0f} steps, {reward=}")
        reward += 10
    return reward
