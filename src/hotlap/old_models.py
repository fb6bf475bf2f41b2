"""Old models: networks that DeepRacer trained, as Runs that are evaluated and trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import NetworkSettings, PPOSettings, SACSettings
from hotlap.config import resolve, to_toml
from hotlap.deepracer.files.folder import SAC_CAPACITY, SAC_RATIO
from hotlap.deepracer.files.metadata import STEREO_BASELINE, Continuous, Metadata
from hotlap.deepracer.models.archive import OldModel, read_model
from hotlap.deepracer.models.layouts import (
    CHOICES,
    NUMBERS,
    SOFT,
    SOFT_CRITIC,
    VALUE,
    Layout,
    joined_widths,
    layer_names,
    order,
    own_widths,
)
from hotlap.errors import ConfigError, RunError
from hotlap.inputs import fingerprints
from hotlap.plan import TrainConfig, anchored, changes
from hotlap.runs import Run, default_directory
from hotlap.types import Array

__all__ = ["import_model"]

_PLACE = re.compile(
    r"main_level/(?P<agent>[^/]+)/(?P<part>main|policy)/(?P<which>online|global)/network_\d+/"
)
_OWN = (
    "actions",
    "algorithm.network",
    "observation.actor",
    *(f"observation.camera.{name}" for name in ("width", "height", "color", "stereo_baseline")),
    *(f"observation.lidar.{name}" for name in ("kind", "beams", "sectors", "steps", "clip")),
)
"""Settings that are what the model was made for."""
_DEVIATION = (-20.0, 3.0)
"""DeepRacer clips PPO's logarithmic deviations to these."""
_HELD = 1e12
"""Readings that the scale of numbers counts as seen: theirs went in as they were measured, and a
training that goes on shall not move that under the driver."""


@dataclass(frozen=True)
class _Source:
    """A model that is read: its weights under the names of a single agent, and what it sees."""

    path: str
    weights: Mapping[str, Array]
    metadata: Metadata
    layout: Layout
    """Of its policy."""

    @property
    def sensors(self) -> dict[str, str]:
        """DeepRacer's name of each observation."""
        found = {"camera": self.metadata.camera}
        return found | ({"lidar": self.metadata.scanner} if self.metadata.scanner else {})

    @property
    def remedy(self) -> str:
        """What to look into where its layers are others."""
        said, sees = self.metadata, ", ".join(self.metadata.sensors)
        return (
            f"check neural_network ({said.network}), sensor ({sees}) and action_space in its "
            "model_metadata.json"
        )


def import_model(
    source: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Make a Run of a model that DeepRacer trained, by PPO or by SAC.

    The Run has the model's sensors, actions and network, its algorithm, and our own reward. It is
    evaluated, filmed and raced as any other; `hotlap train --from RUN` trains on. A checkpoint also
    gives PPO's value network, but for its last layer, and of SAC's critics what looks at the
    camera: `observation.critic=camera` makes use of both. What a frozen graph does not hold, how
    far a driver explores, begins at `algorithm.initial_std`.

    Args:
        source: `model.tar.gz`, a `.pb` file, a checkpoint, or a folder that holds one of them.
        out: directory of the Run; the next free one under runs/ if None.
        overrides: settings by dotted name, such as {"track": "mine.npy"}.

    Raises:
        RunError: the model is damaged, or of a kind that hotlap has no layers for.
        ConfigError: its metadata are missing or wrong, or a setting is.
        MissingExtraError: tensorboard is not installed.
    """
    model = read_model(source)
    read = _source(model, str(source))
    own = _settings(read)
    config = anchored(resolve(TrainConfig, own, overrides or {}))
    settings = config.algorithm
    if settings.kind != own["algorithm.kind"] or not isinstance(
        settings, PPOSettings | SACSettings
    ):
        raise ConfigError(
            f"algorithm.kind: the model learned by {own['algorithm.kind'].upper()}, and so does "
            f"its Run (got {settings.kind}); choose another one when you train on from it"
        )
    changed = changes(resolve(TrainConfig, own), config)
    if wrong := [name for name in changed if name.startswith(_OWN)]:
        raise ConfigError(
            f"{', '.join(wrong)}: the model has its own, which it cannot drive without; leave it "
            "away here, and change it when you train on: hotlap train --from RUN"
        )
    specs = {"camera": ObservationSpec(config.observation.camera.shape, "uint8")}
    specs["lidar"] = ObservationSpec((config.observation.lidar.size,), "float32")
    shown = {name: specs[name] for name in read.sensors}
    size = 2 if read.layout is not CHOICES else len(own["actions.list"])
    plan, critic_plan = (_plan(settings.network, shown, outputs) for outputs in (size, 1))
    description: dict[str, Any] = {"format": 1, "action": "continuous"}
    if read.layout is CHOICES:
        description["action"] = "discrete"
    arrays = _taken(plan, read, layer_names(plan, read.sensors, read.layout, inner=_inner(read)))
    if read.layout is NUMBERS:
        arrays["log_std"] = _deviations(read.weights, settings.initial_std)
    elif read.layout is SOFT:
        arrays = _with_deviations(arrays, read, settings.initial_std)
        plan = plan.model_copy(update={"outputs": 2 * size})
        description["squash"] = "sample"
    scales = _scales(plan, read)
    critic = _critic(critic_plan, read)
    plans = {"actor": plan.model_dump(mode="json")}
    if critic:
        plans["critic"] = critic_plan.model_dump(mode="json")
    packed = {f"learner.actor.{name}": array for name, array in arrays.items()}
    packed |= {f"learner.critic.{name}": array for name, array in critic.items()}
    packed |= {f"learner.normalizer.{name}": array for name, array in _held(scales).items()}
    arrays |= {f"normalizer.{name}": array for name, array in scales.items()}
    track = config.tracks()[0].name
    where = out if out else default_directory(track, "imported")
    meta = {"seed": config.seed, "inputs": fingerprints(config), "imported": str(source)}
    description["plan"] = plans["actor"]
    learner = {"kind": settings.kind, "format": 1, "plans": plans}
    with Run.create(where, to_toml(config), meta) as run:
        run.log_event("imported", source=str(source), notes=model.notes, critic=bool(critic))
        run.write_checkpoint(
            0, policy=(description, arrays), state=({"learner": learner}, packed), best=True
        )
    return run


def _source(model: OldModel, path: str) -> _Source:
    """Find out whose weights these are; give them the names of a single agent that drives."""
    metadata = model.metadata
    places = [match for name in model.weights if (match := _PLACE.match(name))]
    if not places:
        first = next(iter(model.weights), "nothing")
        raise RunError(
            f"{path}: not DeepRacer's network: its weights are called {first} and the like, not "
            "main_level/agent/main/online/network_1/... or, of SAC, main_level/agent/policy/...; "
            "give a model.pb or a checkpoint of DeepRacer"
        )
    # a folder may hold the networks of a head-to-head race; who learned is the first
    agent = min(match["agent"] for match in places)
    mine = [match for match in places if match["agent"] == agent]
    taught = "sac" if any(match["part"] == "policy" for match in mine) else "clipped_ppo"
    if taught != metadata.algorithm:
        raise RunError(
            f"{path}: its weights are those of {taught}, but training_algorithm in its "
            f"model_metadata.json is {metadata.algorithm}; give it the file that belongs to it"
        )
    continuous = isinstance(metadata.actions, Continuous)
    if taught == "sac" and not continuous:
        raise RunError(
            f"{path}: it learned by sac, which answers with numbers, but action_space in its "
            "model_metadata.json is a list; give it the file that belongs to it"
        )
    which = "online" if any(match["which"] == "online" for match in mine) else "global"
    weights: dict[str, Array] = {}
    for part in ("main", "policy", "q"):
        start = f"main_level/{agent}/{part}/{which}/"
        weights |= {
            f"main_level/agent/{part}/online/{name.removeprefix(start)}": array
            for name, array in model.weights.items()
            if name.startswith(start)
        }
    layout = SOFT if taught == "sac" else NUMBERS if continuous else CHOICES
    return _Source(path, weights, metadata, layout)


def _settings(read: _Source) -> dict[str, Any]:
    """Return our settings of what a model sees and does, and how it learned."""
    found: dict[str, Any] = {
        "vehicle": "deepracer",
        "observation.actor": list(read.sensors),
        "observation.camera.width": 160,
        "observation.camera.height": 120,
        "observation.camera.color": "grey",
        "rules.off_track": "all_wheels",
        "train.cars": 32,
        "algorithm.kind": "ppo",
        **read.metadata.scans(),
        **_layers(read),
    }
    if read.layout is SOFT:
        found |= {
            "algorithm.kind": "sac",
            "algorithm.capacity": SAC_CAPACITY,
            "algorithm.update_ratio": SAC_RATIO,
        }
    if read.metadata.camera == "STEREO_CAMERAS":
        found["observation.camera.stereo_baseline"] = STEREO_BASELINE
    actions = read.metadata.actions
    if isinstance(actions, Continuous):
        return found | {
            "actions.kind": "continuous",
            "actions.steering_low_deg": actions.steering_low,
            "actions.steering_high_deg": actions.steering_high,
            "actions.speed_low": actions.speed_low,
            "actions.speed_high": actions.speed_high,
        }
    return found | {"actions.kind": "list", "actions.list": [list(pair) for pair in actions]}


def _layers(read: _Source) -> dict[str, Any]:
    """Return our settings of a model's network: what the metadata name, as wide as the file is."""
    found = read.metadata.layers()
    if "neural_network" not in read.metadata.given:  # one of ours, exported, has no such name
        found["algorithm.network.cnn"] = _recognised(read) or found["algorithm.network.cnn"]
    usual = _plan(
        NetworkSettings(cnn=found["algorithm.network.cnn"]), {"camera": _spec(read)}, 1
    ).hidden
    joint = joined_widths(read.weights, read.layout)
    if inner := _inner(read):
        joint = (*joint, read.weights[f"{inner}/kernel"].shape[1])
    found.pop("algorithm.network.joint", None)
    if joint not in ((), usual):
        found["algorithm.network.joint"] = list(joint)
    if scanner := read.metadata.scanner:
        own, at = own_widths(read.weights, read.layout, scanner), f"{read.layout.place}/{scanner}"
        if not own and f"{at}/std" not in read.weights:
            raise RunError(f"{read.path}: the model has no {at}/Dense_0/kernel; {read.remedy}")
        found["algorithm.network.beside"] = list(own)
    return found


def _recognised(read: _Source) -> str:
    """Return which of our networks looks at the camera, by the shapes of its layers."""
    at = f"{read.layout.place}/{read.metadata.camera}/"
    there = {
        k: v.shape for k, v in read.weights.items() if k.startswith(at) and k.endswith("kernel")
    }
    for cnn in get_args(NetworkSettings.model_fields["cnn"].annotation):
        plan = _plan(NetworkSettings(cnn=cnn), {"camera": _spec(read)}, 1)
        names = layer_names(plan, {"camera": read.metadata.camera}, read.layout)
        wanted = {
            f"{names[layer.removesuffix('.weight')]}/kernel": _turned_back(shape)
            for layer, shape in plan.shapes().items()
            if layer.startswith("camera.") and layer.endswith(".weight")
        }
        if wanted == there:
            return str(cnn)
    return ""


def _spec(read: _Source) -> ObservationSpec:
    """Return what the model's camera gives."""
    channels = 2 if read.metadata.camera == "STEREO_CAMERAS" else 1
    return ObservationSpec((120, 160, channels), "uint8")


def _plan(network: NetworkSettings, shown: Mapping[str, ObservationSpec], outputs: int) -> Plan:
    return make_plan(network, shown, tuple(shown), outputs)


def _inner(read: _Source) -> str:
    """Return what the dense layer in the head of SAC's policy is called, if it has one."""
    return next((name for name, same in _beside_mean(read).items() if not same), "")


def _beside_mean(read: _Source) -> dict[str, bool]:
    """Return the layers of SAC's head that TensorFlow named: does each have the mean's shape?"""
    mean = read.weights.get(f"{read.layout.head}/kernel")
    if read.layout is not SOFT or mean is None:
        return {}
    head = read.layout.head.rpartition("/")[0]
    dense = re.compile(rf"{head}/dense(_\d+)?/kernel")
    kernels = {name: array for name, array in read.weights.items() if dense.fullmatch(name)}
    return {
        name.removesuffix("/kernel"): array.shape == mean.shape
        for name, array in kernels.items()
        if array.shape == mean.shape or array.shape[1:] == mean.shape[:1]
    }


def _taken(plan: Plan, read: _Source, names: Mapping[str, str]) -> dict[str, Array]:
    """Return the arrays of a driver from DeepRacer's, which have other axes."""
    found = {}
    for name, shape in plan.shapes().items():
        layer, _, part = name.rpartition(".")
        called = f"{names[layer]}/{'kernel' if part == 'weight' else 'bias'}"
        if called not in read.weights:
            raise RunError(f"{read.path}: the model has no {called}; {read.remedy}")
        array = _turned(read.weights[called])
        if array.shape != shape:
            there = "x".join(map(str, read.weights[called].shape))
            wanted = "x".join(map(str, _turned_back(shape)))
            raise RunError(f"{read.path}: {called} is {there}, not {wanted}; {read.remedy}")
        found[name] = _ordered(_finite(array, called, read), name, plan, read)
    layers = {*(f"{called}/kernel" for called in names.values())}
    layers |= {f"{name}/kernel" for name, same in _beside_mean(read).items() if same}
    start = f"{read.layout.place}/"
    more = {n for n in read.weights if n.startswith(start) and n.endswith("/kernel")} - layers
    if more:
        raise RunError(f"{read.path}: the model also has {min(more)}; {read.remedy}")
    return found


def _finite(array: Array, called: str, read: _Source) -> Array:
    if not np.isfinite(array).all():
        raise RunError(f"{read.path}: {called} is not finite: the training had failed by then")
    return array


def _ordered(array: Array, name: str, plan: Plan, read: _Source) -> Array:
    """Put what DeepRacer's first joint layer reads into our order; leave all other layers alone."""
    if name != "hidden0.weight" or len(read.sensors) == 1:
        return array
    found = np.empty_like(array)
    found[:, plan.columns(order(read.sensors))] = array
    return found


def _turned(array: Array) -> Array:
    """Put outputs first, and channels before height and width, as our layers have them."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array, np.float32)


def _turned_back(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[2], shape[3], shape[1], shape[0])
    return shape[::-1]


def _deviations(weights: Mapping[str, Array], initial: float) -> Array:
    """Return PPO's logarithmic deviations of steering and speed; a frozen graph has none."""
    for name, array in weights.items():
        if name.endswith("ppo_head_0/policy_log_std") and array.size == 2:
            return np.clip(array.reshape(2), *_DEVIATION).astype(np.float32)
    return np.full(2, math.log(initial), np.float32)


def _with_deviations(
    arrays: Mapping[str, Array], read: _Source, initial: float
) -> dict[str, Array]:
    """Return a driver of means with SAC's logarithmic deviations after them.

    A frozen graph has none: there they are the same whatever it sees.
    """
    weight, bias = arrays["head.weight"], arrays["head.bias"]
    further, level = np.zeros_like(weight), np.full_like(bias, math.log(initial))
    name = next((name for name, same in _beside_mean(read).items() if same), "")
    if name and (there := read.weights.get(f"{name}/bias")) is not None:
        further = _finite(_turned(read.weights[f"{name}/kernel"]), f"{name}/kernel", read)
        level = _finite(there, f"{name}/bias", read)
    return {
        **arrays,
        "head.weight": np.concatenate([weight, further]),
        "head.bias": np.concatenate([bias, level]).astype(np.float32),
    }


def _scales(plan: Plan, read: _Source) -> dict[str, Array]:
    """Return by what numbers are normalised: nothing, but in a file that hotlap wrote."""
    found = {}
    for name, size in plan.vectors.items():
        at = f"{read.layout.place}/{read.sensors[name]}"
        for part, usual in (("mean", 0.0), ("std", 1.0)):
            there = read.weights.get(f"{at}/{part}")
            if there is None or there.shape != (size,):
                there = np.full(size, usual, np.float32)
            found[f"{name}.{part}"] = there
    return found


def _held(scales: Mapping[str, Array]) -> dict[str, Array]:
    """Return what a learner saves of such scales, so that they stay."""
    found: dict[str, Array] = {}
    for key, array in scales.items():
        name, _, part = key.rpartition(".")
        found[f"{name}.count"] = np.array(_HELD)
        exact = array.astype(np.float64)
        found[f"{name}.{'mean' if part == 'mean' else 'squares'}"] = (
            exact if part == "mean" else exact**2 * _HELD
        )
    return found


def _critic(plan: Plan, read: _Source) -> dict[str, Array]:
    """Return the layers that are there of PPO's value network, or of SAC's critics.

    The last layer of the one is left out: it speaks of rewards on another scale than ours. Of the
    others those are taken that come before all inputs join.
    """
    soft = read.layout is SOFT
    names = layer_names(plan, read.sensors, SOFT_CRITIC if soft else VALUE)
    found = {}
    for name, shape in plan.shapes().items():
        layer, _, part = name.rpartition(".")
        called = f"{names[layer]}/{'kernel' if part == 'weight' else 'bias'}"
        left = layer.startswith("hidden") if soft else False
        if layer != "head" and not left and called in read.weights:
            array = _turned(read.weights[called])
            if array.shape == shape and np.isfinite(array).all():
                found[name] = _ordered(array, name, plan, read)
    return found
