"""What DeepRacer's car can drive with: a network as TensorFlow nodes, what it sees and does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hotlap.algorithms.policy import Plan
from hotlap.deepracer.models.archive import action_space, pack
from hotlap.deepracer.models.frozen import FrozenGraph
from hotlap.deepracer.models.layouts import (
    CHOICES,
    NUMBERS,
    SOFT,
    Layout,
    input_name,
    layer_names,
    order,
)
from hotlap.env import EnvSettings
from hotlap.errors import ConfigError
from hotlap.export.layers import Network, lay_out
from hotlap.tasks.actions import ContinuousActions, GridActions, ListActions

__all__ = ["Frozen", "car_model", "free_graph"]

_HEIGHT, _WIDTH = 120, 160
_LIDARS = {"deepracer": ("LIDAR", 64, 1.0), "deepracer_sectors": ("SECTOR_LIDAR", 8, 0.5)}
"""By our kind: DeepRacer's name, how many numbers the car gives its network, and how far it
looks [m]."""
_LAYERS = {
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], [], [512]),
    "DEEP_CONVOLUTIONAL_NETWORK": (
        [(32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1)], [64], [512]
    ),
    "DEEP_CONVOLUTIONAL_NETWORK_DEEP": (
        [(32, 8, 4), (32, 4, 2), (64, 4, 2), (64, 3, 1)], [512, 512], [256, 128]
    ),
}  # fmt: skip
"""Convolutions, dense layers of the camera, and dense layers after these, of each network."""
_PAIR = [(32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1)]
_STEREO = {
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW": _LAYERS["DEEP_CONVOLUTIONAL_NETWORK_SHALLOW"],
    "DEEP_CONVOLUTIONAL_NETWORK": (_PAIR, [], [512]),
    "DEEP_CONVOLUTIONAL_NETWORK_DEEP": (_PAIR, [], [256, 128]),
}
"""The same for a pair of cameras."""
_INNER = 256
"""The dense layer in the head of SAC's policy."""


@dataclass(frozen=True)
class Frozen:
    """A frozen graph, and what is fed to it and read from it."""

    graph: bytes
    inputs: Mapping[str, tuple[int, ...]]
    """The shape of each input, without rows, by the input's name."""
    output: str


def car_model(network: Network, settings: EnvSettings) -> bytes:
    """Return the `model.tar.gz` of a driver.

    Raises:
        ConfigError: the car could not feed it.
    """
    sensors = _sensors(network, settings)
    if isinstance(sensors, str):
        raise ConfigError(f"--to deepracer: {sensors}")
    return pack(_frozen(network, sensors).graph, _metadata(network, settings, sensors))


def free_graph(network: Network, settings: EnvSettings) -> Frozen:
    """Return a driver's graph: the car's, if the car could feed it, else with names of ours.

    Raises:
        ConfigError: it has a memory.
    """
    if network.plan.carried:
        raise ConfigError(f"--to tflite: {_MEMORY}")
    sensors = _sensors(network, settings)
    return _frozen(network, {} if isinstance(sensors, str) else sensors)


_MEMORY = (
    "the driver has a memory, which such a file cannot keep between two images; export it with "
    "--to onnx, or train without algorithm.network.memory and algorithm.network.previous_action"
)


def _frozen(network: Network, sensors: Mapping[str, str]) -> Frozen:
    plan = network.plan
    layout, names = _layout(network), {}
    if sensors:
        inner = layout.inner if _called(plan, layout)[1] else ""
        names = layer_names(plan, sensors, layout, inner=inner)
    graph = FrozenGraph(names, layout.output.rpartition("/")[0] if sensors else "hotlap")
    shapes: dict[str, tuple[int, ...]] = {k: image.shape for k, image in plan.images.items()}
    shapes |= {name: (size,) for name, size in plan.vectors.items()}
    called = {name: input_name(layout, sensors[name]) if sensors else name for name in shapes}
    inputs = {name: graph.placeholder(called[name], shape) for name, shape in shapes.items()}
    answer, _ = lay_out(network, graph, inputs, order=order(sensors))
    output = layout.output if sensors else "policy"
    if network.action == "discrete":
        graph.softmax(answer, output)
    else:
        graph.identity(graph.clip(answer, -1.0, 1.0), output)
    return Frozen(
        graph.serialize(), {called[name]: shape for name, shape in shapes.items()}, output
    )


def _sensors(network: Network, settings: EnvSettings) -> dict[str, str] | str:
    """Return DeepRacer's name of each observation; or why the car cannot feed the driver."""
    plan, seen = network.plan, settings.observation
    if plan.carried:
        return _MEMORY
    others = [name for name in plan.names if name not in ("camera", "lidar")]
    if others or "camera" not in plan.images:
        return (
            f"the driver sees {', '.join(plan.names)}, and the car has one grey camera, a pair of "
            "them, or one of these and a LIDAR; train with observation.actor=camera, or let this "
            "driver teach one that sees (algorithm=distill)"
        )
    height, width, channels = plan.images["camera"].shape
    if (height, width) != (_HEIGHT, _WIDTH) or seen.camera.color != "grey":
        return (
            f"the driver sees {seen.camera.color} images of {width}x{height}, the car takes grey "
            f"ones of {_WIDTH}x{_HEIGHT}; train with observation.camera.width={_WIDTH} "
            f"observation.camera.height={_HEIGHT} observation.camera.color=grey"
        )
    found = {"camera": "STEREO_CAMERAS" if channels == 2 else "FRONT_FACING_CAMERA"}
    if "lidar" in plan.names:
        name, size, clip = _LIDARS.get(seen.lidar.kind, ("", 0, 0.0))
        far = getattr(seen.lidar, "clip", seen.lidar.range_max)
        if (size, clip) != (seen.lidar.size, far):
            return (
                f"the driver sees a LIDAR of kind {seen.lidar.kind} with {seen.lidar.size} "
                f"numbers up to {far:g} m; the car has LIDAR of 64 numbers up to 1 m and "
                "SECTOR_LIDAR of 8 up to 0.5 m; train with observation.lidar.kind=deepracer or "
                "deepracer_sectors, and what they are by default"
            )
        found["lidar"] = name
    return found


def _metadata(
    network: Network, settings: EnvSettings, sensors: Mapping[str, str]
) -> dict[str, Any]:
    """Return what `model_metadata.json` says of a driver."""
    actions, ranges = settings.actions, (0.0, 0.0, 0.0, 0.0)
    pairs = None
    if isinstance(actions, ContinuousActions):
        ranges = (actions.steering_low_deg, actions.steering_high_deg,
                  actions.speed_low, actions.speed_high)  # fmt: skip
    else:
        assert isinstance(actions, GridActions | ListActions)  # see driver_task
        pairs = actions.pairs
    found: dict[str, Any] = action_space(pairs, ranges)
    found["sensor"] = list(sensors.values())
    layout = _layout(network)
    if name := _called(network.plan, layout)[0]:
        found["neural_network"] = name
    # whatever taught it, this is how the graph is laid out
    taught = "sac" if layout is SOFT else "clipped_ppo"
    return found | {"training_algorithm": taught, "version": "5"}


def _layout(network: Network) -> Layout:
    """Return whose graph a driver's is: SAC's if its numbers pass a hyperbolic tangent."""
    if network.action == "discrete":
        return CHOICES
    return NUMBERS if network.squash == "none" else SOFT


def _called(plan: Plan, layout: Layout) -> tuple[str, bool]:
    """Return DeepRacer's name of a network, and whether its last layer is one of SAC's head."""
    image, hidden = plan.images["camera"], list(plan.hidden)
    plain = not (image.padded or image.pool > 1 or plan.linear or image.offset)
    known = _STEREO if image.shape[2] == 2 else _LAYERS
    for name, (conv, dense, joint) in known.items():
        if (list(image.conv), list(image.dense)) != (conv, dense) or not plain:
            continue
        if plan.activation == "relu" and hidden == joint:
            return name, False
        if plan.activation == "relu" and layout is SOFT and hidden == [*joint, _INNER]:
            return name, True
    return "", False
