"""Compiled: round with digits, int, floor division and modulo of negatives."""
import math


def reward_function(params):
    a = round(params["heading"], 2) % 7
    b = int(params["x"] * 10) // 3
    c = math.floor(-params["y"]) % 5
    d = round(params["speed"] * 2) / 2
    return float(a + b + c + d + math.ceil(params["progress"]) % 9)
