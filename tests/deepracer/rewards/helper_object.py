"""Plain (an object of its class): makes an object in every call."""


class Car:
    def __init__(self, params):
        self.speed = params["speed"]
        self.near = params["distance_from_center"] < 0.2

    def score(self):
        return self.speed * (2 if self.near else 1)


def reward_function(params):
    return Car(params).score()
