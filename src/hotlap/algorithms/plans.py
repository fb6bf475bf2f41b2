"""Which layers networks have, by their settings, and which weights they begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.policy import ImagePlan, Plan
from hotlap.algorithms.settings import NetworkSettings
from hotlap.errors import ConfigError
from hotlap.types import Float32

__all__ = ["draw_weights", "joined", "make_plan", "make_plans"]


@dataclass(frozen=True)
class _Cnn:
    conv: tuple[tuple[int, int, int], ...]
    own: tuple[int, ...]
    joint: tuple[int, ...]
    centred: bool = False
    padded: bool = False
    pool: int = 1
    linear: bool = False


_CNNS = {
    # Big strides: most of a small network's time goes into its first layer's output.
    "small": _Cnn(((16, 6, 4), (32, 3, 2)), (), (64,), centred=True),
    # AWS DeepRacer's tables: pixels in [0, 1], other inputs join before the last column.
    "deepracer_shallow": _Cnn(((32, 8, 4), (64, 4, 2), (64, 3, 1)), (), (512,)),
    "deepracer": _Cnn(((32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1)), (64,), (512,)),
    "deepracer_deep": _Cnn(
        ((32, 8, 4), (32, 4, 2), (64, 4, 2), (64, 3, 1)), (512, 512), (256, 128)
    ),
    # What its two deeper networks have for a pair of cameras; the deepest then has 256 and 128.
    "deepracer_stereo": _Cnn(
        ((32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)), (), (512,)
    ),
    # The Autonomous Driving Cookbook's: `rl_dense` has no activation. Ours sees pixels in [0, 1],
    # as its supervised twin did, where theirs saw 0 to 255; and it drops nothing out.
    "airsim": _Cnn(
        ((16, 3, 1), (32, 3, 1), (32, 3, 1)), (), (128,), padded=True, pool=2, linear=True
    ),
}


_NUMBERS = {"robotini": ((512, 256), (256,))}
"""Rectified layers by name, and those of a critic after state and action have joined."""


def joined(settings: NetworkSettings) -> tuple[int, ...]:
    """Return a critic's layers after state and action joined; none if they join at the start."""
    return _NUMBERS[settings.numbers][1] if settings.numbers in _NUMBERS else ()


def make_plan(
    settings: NetworkSettings,
    observation: Mapping[str, ObservationSpec],
    names: Sequence[str],
    outputs: int,
    *,
    actions: int | None = None,
    remembers: bool = True,
) -> Plan:
    """Lay out a network that reads the named observations.

    Args:
        settings: its layers.
        observation: what there is to see, by name.
        names: what it sees of it.
        outputs: width of its head.
        actions: numbers or choices of an action, which it may see too; None: its learner is not
            made for networks with a memory.
        remembers: whether this network has the memory that the settings ask for.

    Raises:
        ConfigError: a name is not observed, a camera is too small for the convolutions, or a memory
            is asked for where none can be.
    """
    if actions is None and (settings.memory or settings.previous_action):
        raise ConfigError(
            "algorithm.network.memory and algorithm.network.previous_action: only ppo and rdpg "
            "remember; choose one of them as algorithm, or memory=0 and previous_action=false"
        )
    if settings.critic_memory is not None and not (settings.memory or settings.previous_action):
        raise ConfigError(
            "algorithm.network.critic_memory: without algorithm.network.memory nothing is "
            "remembered; set that too (ppo and rdpg have one), or leave critic_memory away"
        )
    if settings.memory_cell != "gru" and not settings.memory:
        raise ConfigError(
            "algorithm.network.memory_cell: without algorithm.network.memory there are no units; "
            "set that too (ppo and rdpg have one), or leave memory_cell away"
        )
    unknown = [name for name in names if name not in observation]
    if unknown or not names:
        raise ConfigError(
            f"a network was asked to read {', '.join(unknown) or 'nothing'}; "
            f"choose from {', '.join(observation)}"
        )
    cnn = _CNNS[settings.cnn]
    images: dict[str, ImagePlan] = {}
    vectors: dict[str, int] = {}
    for name in names:
        spec = observation[name]
        if not spec.is_image:
            vectors[name] = int(np.prod(spec.shape))
            continue
        height, width, channels = spec.shape
        scale, offset = (2.0 / spec.high, -1.0) if cnn.centred else (1.0 / spec.high, 0.0)
        images[name] = ImagePlan(
            shape=(height, width, channels),
            scale=scale,
            offset=offset,
            conv=cnn.conv,
            dense=cnn.own,
            padded=cnn.padded,
            pool=cnn.pool,
        )
        if min(images[name].grid()) < 1:
            least = _least(cnn)
            raise ConfigError(
                f"network.cnn {settings.cnn!r} needs an image of at least {least}x{least} pixels, "
                f"{name} has {width}x{height}; choose a larger image or another network"
            )
    named = settings.numbers in _NUMBERS
    mlp = _NUMBERS[settings.numbers][0] if named else settings.mlp
    return Plan(
        images=images,
        vectors=vectors,
        own=dict.fromkeys(vectors, settings.beside) if images and settings.beside else {},
        hidden=(settings.joint or cnn.joint) if images else mlp,
        activation="relu" if images or named else "tanh",
        outputs=outputs,
        linear=bool(images) and cnn.linear,
        memory=settings.memory if remembers else 0,
        cell=settings.memory_cell if remembers else "gru",
        previous_action=(actions or 0) if remembers and settings.previous_action else 0,
    )


def make_plans(
    settings: NetworkSettings,
    observation: Mapping[str, ObservationSpec],
    actor: Sequence[str],
    critic: Sequence[str],
    outputs: tuple[int, int],
    *,
    actions: int | None = None,
) -> tuple[Plan, Plan]:
    """Lay out an actor and a critic, which see these names and have such heads; see `make_plan`."""
    remembers = settings.critic_memory
    if remembers is None:
        remembers = set(critic) <= set(actor)
    return (
        make_plan(settings, observation, actor, outputs[0], actions=actions),
        make_plan(settings, observation, critic, outputs[1], actions=actions, remembers=remembers),
    )


def _least(cnn: _Cnn) -> int:
    size = 1
    for _, kernel, stride in reversed(cnn.conv):
        size = (size * cnn.pool - 1) * stride + kernel - (2 * (kernel // 2) if cnn.padded else 0)
    return size


def draw_weights(
    plan: Plan,
    gain: float,
    rng: np.random.Generator,
    orthonormal: Callable[[Float32], Float32],
) -> dict[str, Float32]:
    """Draw orthogonal weights (gain sqrt 2 inside, `gain` at the head), zero biases, unit scales.

    Each gate of the recurrent units is a matrix of its own, of gain 1. An LSTM's forget gate has a
    bias of 1 (Jozefowicz, Zaremba and Sutskever 2015).

    Args:
        plan: the layers.
        gain: of the head.
        rng: where the weights come from.
        orthonormal: makes the columns of a matrix, no more than its rows, orthogonal and of length
            1, from the first on: the Q of its QR decomposition whose R has a positive diagonal.

    Source: Saxe, McClelland and Ganguli 2014, arXiv:1312.6120.
    """

    def block(out: int, size: int) -> Float32:
        draw = rng.standard_normal((max(out, size), min(out, size)), dtype=np.float32)
        found = orthonormal(draw)
        return found.T if out < size else found

    found = {}
    for name, shape in plan.shapes().items():
        if not name.endswith(".weight"):
            found[name] = np.full(shape, name.endswith(".scale"), np.float32)
            continue
        gates = plan.gates if name.startswith("memory.") else 1
        out, size = shape[0] // gates, int(np.prod(shape[1:]))
        scale = np.float32(gain if name == "head.weight" else 1.0 if gates > 1 else 2.0**0.5)
        blocks = [block(out, size) * scale for _ in range(gates)]
        found[name] = np.ascontiguousarray(np.concatenate(blocks).reshape(shape))
    if plan.memory and plan.cell == "lstm":
        found["memory.hidden.bias"][plan.memory : 2 * plan.memory] = 1.0
    return found
