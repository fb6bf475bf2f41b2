"""What the tests of sweeps train, and what they read of it."""

from hotlap.runs import Run

SMALL = {
    "track": "oval",
    "algorithm.network.mlp": (8,),
    "rules.laps": 1,
    "train.cars": 4,
    "train.seconds": 0,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}


def kinds(run):
    """Return the kinds of a Run's events."""
    return [event["kind"] for event in Run.open(run).events()]
