"""Compiled: helpers that are never called and do what cannot be compiled."""
import json


def dump(params):
    with open("log.json", "w") as file:
        json.dump(params, file)


def reward_function(params):
    return params["speed"] / 4
