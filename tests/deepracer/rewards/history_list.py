"""Plain (keeps state in `history`): the last speeds in a list."""

history = []


def reward_function(params):
    if params["steps"] <= 2:
        history.clear()
    history.append(params["speed"])
    if len(history) > 5:
        history.pop(0)
    return sum(history) / len(history)
