"""DeepRacer's `hyperparameters.json`: each key is settings of ours, or has no effect and says why.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/sagemaker_graph_manager.py and
constants.py, read for the keys, what they mean and what is assumed when one is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hotlap.deepracer.documents import Document
from hotlap.deepracer.findings import Findings, Meaning
from hotlap.deepracer.values import choice, finite, integer, within

__all__ = ["read_hyperparameters"]

LOSSES = {"mean squared error": "mse", "mean_squared_error": "mse", "huber": "huber"}
_EXPLORATIONS = {"categorical": "own", "e-greedy": "random", "e_greedy": "random"}
_EPSILON, _EPSILON_STEPS = 0.05, 10_000
"""What DeepRacer assumes; its share of random actions begins at 1."""

_TEMPLATE_SCORE = 350.0


def _score(at: str, value: Any) -> float | None:
    """Return the mean reward that ends a training.

    DeepRacer never acts on it. So the one that DeepRacer-for-Cloud's template happens to hold does
    not end trainings here either, for a reward function of large numbers reaches it at once.
    """
    score = finite(at, value)
    return None if score == _TEMPLATE_SCORE else score


_BATCH = Meaning(("algorithm.minibatch",), integer)
_RATE = within(0, 1, open_low=True)
_DISCOUNT = Meaning(("algorithm.gamma",), within(0, 1, open_high=True))
_COMMON = {
    "batch_size": _BATCH,
    "discount_factor": _DISCOUNT,
    "stack_size": Meaning.nothing("DeepRacer reads it and then stacks nothing either"),
    "term_cond_max_episodes": Meaning(("train.episodes",), integer),
    "term_cond_avg_score": Meaning(("train.target_reward",), _score),
}
_OF_PPO = Meaning.nothing("it is of PPO, and training_algorithm asks for SAC")
_RANDOM = ("exploration_type", "e_greedy_value", "epsilon_steps")
_PPO: Mapping[str, Meaning] = {
    **_COMMON,
    "lr": Meaning(("algorithm.learning_rate",), _RATE),
    "num_epochs": Meaning(("algorithm.epochs",), integer),
    "num_episodes_between_training": Meaning(("algorithm.episodes",), integer),
    "beta_entropy": Meaning(("algorithm.entropy",), within(0, 1)),
    "loss_type": Meaning(("algorithm.value_loss",), choice(LOSSES)),
    "sac_alpha": Meaning.nothing("it is of SAC, and training_algorithm asks for PPO"),
}
_SAC: Mapping[str, Meaning] = {
    **_COMMON,
    "lr": Meaning(("algorithm.learning_rate", "algorithm.critic_learning_rate"), _RATE),
    "sac_alpha": Meaning(("algorithm.temperature",), within(0, 1)),
    "num_epochs": _OF_PPO,
    "beta_entropy": _OF_PPO,
    "loss_type": _OF_PPO,
    "num_episodes_between_training": Meaning.nothing(
        "SAC learns from its memory after every algorithm.horizon steps, in mid-episode too"
    ),
    **dict.fromkeys(_RANDOM, Meaning.nothing("SAC explores by its own entropy")),
}


def read_hyperparameters(
    document: Document, name: str, findings: Findings, *, sac: bool, discrete: bool
) -> None:
    """Take what a `hyperparameters.json` says.

    A key is known in any case and with blanks or hyphens for its underscores.

    Args:
        document: the file.
        name: what it is called in what is said.
        findings: are added to.
        sac: whether SAC learns, and not PPO.
        discrete: whether actions are a list.

    Raises:
        ConfigError: a value is not allowed; the message names file, line and key.
    """
    table = _SAC if sac else _PPO
    known = (*table, *_RANDOM)
    spelt: dict[str, str] = {}
    for key in document.values:
        plain = re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)).lower()
        if plain in known and (plain == key or plain not in document.values):
            spelt[plain] = key
            if plain != key:
                findings.note(f"{name}: {key} is read as {plain}")
    for key, value in document.values.items():
        plain = next((known for known, given in spelt.items() if given == key), "")
        if not plain:
            findings.unknown(f"{name}:{document.lines.get(key, 1)}: {key}", key, known)
        elif plain in table:
            meaning = table[plain]
            if meaning.check is None:
                findings.nothing(f"{name}: {plain}", meaning.why)
                continue
            found = meaning.check(document.at(key), value)
            if found is None:
                findings.nothing(
                    f"{name}: {plain} = {value}",
                    "it is what DeepRacer-for-Cloud's template holds, and DeepRacer never acts on "
                    "it; train.target_reward ends a training at a mean reward",
                )
                continue
            settings = dict.fromkeys(meaning.settings, found)
            if plain == "lr" and not sac:
                settings |= {"algorithm.schedule": "constant"}
            findings.apply(f"{name}: {plain}", settings)
            if "algorithm.episodes" in settings:
                findings.notes[-1] += (
                    "; with algorithm.episodes=0 updates come every algorithm.horizon steps, and "
                    "the first laps sooner"
                )
    if not sac and any(key in spelt for key in _RANDOM):
        _explore(document, name, spelt, findings, discrete=discrete)


def _explore(
    document: Document,
    name: str,
    spelt: Mapping[str, str],
    findings: Findings,
    *,
    discrete: bool,
) -> None:
    """Take the three keys that say how PPO explores."""
    given = {plain: document.values[spelt[plain]] for plain in _RANDOM if plain in spelt}
    at = {plain: document.at(spelt[plain]) for plain in given}
    kind = "own"
    if "exploration_type" in given:
        kind = choice(_EXPLORATIONS)(at["exploration_type"], given["exploration_type"])
    end, steps = _EPSILON, _EPSILON_STEPS
    if "e_greedy_value" in given:
        end = within(0, 1)(at["e_greedy_value"], given["e_greedy_value"])
    if "epsilon_steps" in given:
        steps = integer(at["epsilon_steps"], given["epsilon_steps"])
    if kind == "random" and discrete:
        findings.apply(
            f"{name}: exploration_type = e-greedy",
            {
                "algorithm.epsilon_start": 1.0,
                "algorithm.epsilon_end": end,
                "algorithm.epsilon_steps": steps,
            },
        )
        for key in ("e_greedy_value", "epsilon_steps"):
            if key in given:
                findings.note(f"{name}: {key}: see exploration_type")
        return
    why = "actions are drawn from the policy's own distribution"
    if kind == "random":
        ranges = "action_space has ranges, in which actions are drawn around the policy's"
        findings.nothing(f"{name}: exploration_type = e-greedy", ranges)
    elif "exploration_type" in given:
        findings.note(f"{name}: exploration_type = categorical: {why}")
    for key in ("e_greedy_value", "epsilon_steps"):
        if key in given:
            findings.nothing(f"{name}: {key}", why)
