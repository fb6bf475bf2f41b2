"""Compiled: texts for a debug print that is switched off."""

DEBUG = False


def reward_function(params):
    message = f"x {params['x']:.2f}"
    message += " y " + str(params["y"])
    if DEBUG:
        print(message)
    return round(params["speed"], 1) * 2
