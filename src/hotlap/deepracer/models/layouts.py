"""What DeepRacer's agents call the layers of their networks, and in which order these are joined.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/sensors/utils.py,
markov/multi_agent_coach and markov/boto/s3/constants.py, and IntelLabs/coach,
rl_coach/architectures/tensorflow_components, read for the names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hotlap.algorithms.policy import Plan
from hotlap.types import Array

__all__ = [
    "CHOICES",
    "NUMBERS",
    "SOFT",
    "SOFT_CRITIC",
    "VALUE",
    "Layout",
    "input_name",
    "joined_widths",
    "layer_names",
    "order",
    "own_widths",
]

_AGENT = "main_level/agent/{}/online/network_{}"
_MIDDLE = "middleware_fc_embedder"


@dataclass(frozen=True)
class Layout:
    """A network of an agent: where it stands in the graph, and what it ends in."""

    place: str
    """What its layers stand under."""
    inputs: str
    """What its inputs stand under: its own place, or that of a network that shares them."""
    head: str
    """Its last layer."""
    output: str
    """The node that answers."""
    inner: str = ""
    """A dense layer of the head before the last one, if it has such."""


_POLICY, _VALUES = _AGENT.format("main", 1), _AGENT.format("main", 0)
CHOICES = Layout(
    _POLICY, _VALUES, f"{_POLICY}/ppo_head_0/policy_fc", f"{_POLICY}/ppo_head_0/policy"
)
"""PPO's policy over choices: it answers with their probabilities."""
NUMBERS = Layout(
    _POLICY, _VALUES, f"{_POLICY}/ppo_head_0/policy_mean", f"{_POLICY}/ppo_head_0/policy"
)
"""PPO's policy over steering and speed: -1 to 1 over their ranges, once clipped."""
VALUE = Layout(_VALUES, _VALUES, f"{_VALUES}/v_values_head_0/output", "")
"""What PPO thinks a state is worth."""
_SOFT = _AGENT.format("policy", 0)
SOFT = Layout(
    _SOFT,
    _SOFT,
    f"{_SOFT}/sac_policy_head_0/policy_mean",
    f"{_SOFT}/sac_policy_head_0/policy",
    f"{_SOFT}/sac_policy_head_0/dense",
)
"""SAC's policy: the hyperbolic tangent of its mean is steering and speed, -1 to 1. Its head has a
dense layer of 256, and beside `policy_mean` one for the logarithmic deviation, which have no names
of their own: TensorFlow numbers them."""
_CRITIC = _AGENT.format("q", 0)
SOFT_CRITIC = Layout(_CRITIC, _CRITIC, "", "")
"""What SAC thinks an action is worth. What comes after its inputs' own layers is another shape than
ours: the action joins at once."""


def input_name(layout: Layout, sensor: str) -> str:
    """Return the input of a sensor."""
    return f"{layout.inputs}/{sensor}/{sensor}"


def layer_names(
    plan: Plan, sensors: Mapping[str, str], layout: Layout, *, inner: str = ""
) -> dict[str, str]:
    """Return what DeepRacer calls the layers of a network, by our names.

    Theirs count activations as layers, so that every second number is left out. `NAME.mean` and
    `NAME.std` are ours: by what we normalise numbers, which they do not.

    Args:
        plan: the layers.
        sensors: DeepRacer's name of each observation.
        layout: the network.
        inner: their name of the last layer before the head; nothing if it is as the others.
    """
    found = {"head": layout.head}
    for name in plan.names:
        at = f"{layout.place}/{sensors[name]}"
        convs, dense = 0, plan.own.get(name, ())
        if name in plan.images:
            convs, dense = len(plan.images[name].conv), plan.images[name].dense
        else:
            found |= {f"{name}.{part}": f"{at}/{part}" for part in ("mean", "std")}
        found |= {f"{name}.conv{i}": f"{at}/Conv2d_{2 * i}" for i in range(convs)}
        found |= {f"{name}.dense{i}": f"{at}/Dense_{2 * (convs + i)}" for i in range(len(dense))}
    at = f"{layout.place}/{_MIDDLE}"
    found |= {f"hidden{i}": f"{at}/Dense_{2 * i}" for i in range(len(plan.hidden))}
    return found | ({f"hidden{len(plan.hidden) - 1}": inner} if inner else {})


def order(sensors: Mapping[str, str]) -> list[str]:
    """Return our names of the observations, in the order in which DeepRacer joins its sensors.

    That is the order of the alphabet, capitals first.
    """
    return sorted(sensors, key=lambda name: sensors[name])


def own_widths(weights: Mapping[str, Array], layout: Layout, sensor: str) -> tuple[int, ...]:
    """Return the widths of the dense layers that a vector passes by itself, in a file."""
    return _widths(weights, f"{layout.place}/{sensor}")


def joined_widths(weights: Mapping[str, Array], layout: Layout) -> tuple[int, ...]:
    """Return the widths of the dense layers after all inputs have joined, in a file."""
    return _widths(weights, f"{layout.place}/{_MIDDLE}")


def _widths(weights: Mapping[str, Array], at: str) -> tuple[int, ...]:
    found: list[int] = []
    while (kernel := weights.get(f"{at}/Dense_{2 * len(found)}/kernel")) is not None:
        if kernel.ndim != 2:
            break
        found.append(kernel.shape[1])
    return tuple(found)
