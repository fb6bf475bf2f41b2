"""Compiled: constants and a static method in a class."""


class Settings:
    SPEED = 2.5
    WEIGHTS = [0.5, 0.25, 0.25]

    @staticmethod
    def capped(value):
        return value if value < 1 else 1


def reward_function(params):
    w = Settings.WEIGHTS
    return w[0] * Settings.capped(params["speed"] / Settings.SPEED) + w[1] + w[2] * 2
