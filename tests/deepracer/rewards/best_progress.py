"""Compiled: state that is None at first, and a count."""

last = None
count = 0


def reward_function(params):
    global last, count
    if params["steps"] <= 2:
        last = None
    gained = 0.0
    if last is not None:
        gained = params["progress"] - last
    last = params["progress"]
    count += 1
    return 0.1 + max(0.0, gained) + 1e-4 * min(count, 50)
