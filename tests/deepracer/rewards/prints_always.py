"""Plain (prints at line): tells every step."""


def reward_function(params):
    reward = params["speed"] * 0.5
    print("speed", params["speed"], "reward", reward)
    return reward
