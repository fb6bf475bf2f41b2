"""Plain (calls itself): a power by recursion."""


def power(x, n):
    if n == 0:
        return 1.0
    return x * power(x, n - 1)


def reward_function(params):
    return power(params["speed"], 3) / 64
