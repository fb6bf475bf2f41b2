"""Plain (is not translated): state in an attribute of the function."""


def reward_function(params):
    before = reward_function.before
    reward_function.before = params["speed"]
    return abs(params["speed"] - before)


reward_function.before = 0.0
