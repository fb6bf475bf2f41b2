"""Plain (keeps state in `state`): state in a dict."""

state = {"prev_progress": 0.0, "steps": 0}


def reward_function(params):
    reward = params["progress"] - state["prev_progress"]
    state["prev_progress"] = params["progress"]
    state["steps"] += 1
    return float(max(-10, min(10, reward)))
