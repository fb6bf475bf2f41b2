"""Compiled: an object that remembers numbers, with two methods."""


class Memory:
    GAIN = 0.25

    def __init__(self):
        self.speed = 0.0
        self.smooth = 0
        self.seen = False

    def update(self, params):
        if params["steps"] <= 2 or not self.seen:
            self.reset(params["speed"])
        self.smooth += self.GAIN * (params["speed"] - self.smooth)
        self.speed = params["speed"]

    def reset(self, speed):
        self.seen = True
        self.smooth = speed


memory = Memory()


def reward_function(params):
    memory.update(params)
    return 1 - min(1, abs(memory.smooth - memory.speed))
