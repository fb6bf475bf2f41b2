"""Old models: networks that DeepRacer trained, as Runs that are evaluated and trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hotlap.algorithms.batch import ObservationSpec
from hotlap.algorithms.policy import Plan
from hotlap.algorithms.settings import DEEPRACER_CNNS, NetworkSettings, PPOSettings
from hotlap.config import resolve, to_toml
from hotlap.deepracer.files.metadata import LIDARS, STEREO_BASELINE, Continuous, Metadata
from hotlap.deepracer.models.archive import VALUE, OldModel, layer_names, read_model
from hotlap.errors import ConfigError, MissingExtraError, RunError
from hotlap.inputs import fingerprints
from hotlap.plan import TrainConfig, anchored, changes
from hotlap.runs import Run, default_directory
from hotlap.types import Array

__all__ = ["import_model"]

_PLACE = re.compile(r"main_level/(?P<agent>[^/]+)/main/(?P<which>online|global)/network_\d+/")
_HEADS = {"discrete": "ppo_head_0/policy_fc", "continuous": "ppo_head_0/policy_mean"}
_OWN = (
    "actions",
    "algorithm.network",
    "observation.actor",
    *(f"observation.camera.{name}" for name in ("width", "height", "color", "stereo_baseline")),
)
"""Settings that are what the model was made for."""
_DEVIATION = (-20.0, 3.0)
"""DeepRacer clips logarithmic deviations to these."""


def import_model(
    source: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Make a Run of a model that DeepRacer trained by PPO, with one camera or a pair of them.

    The Run has the model's camera, actions and network, and our own reward. It is evaluated, filmed
    and raced as any other; `hotlap train --from RUN` trains on. A checkpoint also gives the value
    network, but for its last layer: `observation.critic=camera` makes use of it.

    Args:
        source: `model.tar.gz`, a `.pb` file, a checkpoint, or a folder that holds one of them.
        out: directory of the Run; the next free one under runs/ if None.
        overrides: settings by dotted name, such as {"track": "mine.npy"}.

    Raises:
        RunError: the model is damaged, or of a kind that hotlap has no layers for.
        ConfigError: its metadata are missing or wrong, or a setting is.
        MissingExtraError: torch or tensorboard is not installed.
    """
    model = read_model(source)
    own = _settings(model.metadata, source)
    config = anchored(resolve(TrainConfig, own, overrides or {}))
    if not isinstance(config.algorithm, PPOSettings):
        raise ConfigError(
            f"algorithm.kind: the model learned by PPO, and so does its Run (got "
            f"{config.algorithm.kind}); choose another one when you train on from it"
        )
    changed = changes(resolve(TrainConfig, own), config)
    if wrong := [name for name in changed if name.startswith(_OWN)]:
        raise ConfigError(
            f"{', '.join(wrong)}: the model has its own, which it cannot drive without; leave it "
            "away here, and change it when you train on: hotlap train --from RUN"
        )
    weights = _of_one_agent(model.weights, source)
    kind: Literal["discrete", "continuous"] = "discrete"
    size = 2
    if isinstance(model.metadata.actions, Continuous):
        kind = "continuous"
    else:
        size = len(model.metadata.actions)
    network, camera = config.algorithm.network, config.observation.camera.shape
    plan, value = (_plan(network, camera, outputs) for outputs in (size, 1))
    names = layer_names(plan, {"camera": model.metadata.sensors[0]}, _HEADS[kind])
    arrays = _taken(plan, names, weights, model.metadata, source)
    if kind == "continuous":
        arrays["log_std"] = _deviations(weights, config.algorithm.initial_std)
    critic = _critic(value, weights, model)
    plans = {"actor": plan.model_dump(mode="json")}
    if critic:
        plans["critic"] = value.model_dump(mode="json")
    packed = {f"learner.actor.{name}": array for name, array in arrays.items()}
    packed |= {f"learner.critic.{name}": array for name, array in critic.items()}
    track = config.tracks()[0].name
    where = out if out else default_directory(track, "imported")
    meta = {"seed": config.seed, "inputs": fingerprints(config), "imported": str(source)}
    description = {"format": 1, "plan": plans["actor"], "action": kind}
    learner = {"kind": "ppo", "format": 1, "plans": plans}
    with Run.create(where, to_toml(config), meta) as run:
        run.log_event("imported", source=str(source), notes=model.notes, critic=bool(critic))
        run.write_checkpoint(
            0, policy=(description, arrays), state=({"learner": learner}, packed), best=True
        )
    return run


def _settings(metadata: Metadata, source: str | Path) -> dict[str, Any]:
    """Return our settings of what a model sees and does."""
    if metadata.algorithm != "clipped_ppo":
        raise RunError(
            f"{source}: it learned by {metadata.algorithm}; hotlap reads models of clipped_ppo. "
            "Train anew with its folder: hotlap train FOLDER"
        )
    lidars = [sensor for sensor in metadata.sensors if sensor in LIDARS]
    if lidars:
        raise RunError(
            f"{source}: it sees {lidars[0]} through layers of its own, which hotlap's networks do "
            "not have; hotlap reads models of cameras alone. Train anew with its folder: "
            "hotlap train FOLDER"
        )
    found: dict[str, Any] = {
        "vehicle": "deepracer",
        "observation.actor": ["camera"],
        "observation.camera.width": 160,
        "observation.camera.height": 120,
        "observation.camera.color": "grey",
        "algorithm.network.cnn": DEEPRACER_CNNS[metadata.network],
        "rules.off_track": "all_wheels",
        "train.cars": 32,
    }
    if metadata.sensors[0] == "STEREO_CAMERAS":
        found["observation.camera.stereo_baseline"] = STEREO_BASELINE
    actions = metadata.actions
    if isinstance(actions, Continuous):
        return found | {
            "actions.kind": "continuous",
            "actions.steering_low_deg": actions.steering_low,
            "actions.steering_high_deg": actions.steering_high,
            "actions.speed_low": actions.speed_low,
            "actions.speed_high": actions.speed_high,
        }
    return found | {"actions.kind": "list", "actions.list": [list(pair) for pair in actions]}


def _plan(network: NetworkSettings, shape: tuple[int, int, int], outputs: int) -> Plan:
    try:
        from hotlap.algorithms.networks import make_plan
    except ImportError:
        raise MissingExtraError("hotlap import", "torch", "train") from None
    return make_plan(network, {"camera": ObservationSpec(shape, "uint8")}, ("camera",), outputs)


def _of_one_agent(weights: Mapping[str, Array], source: str | Path) -> dict[str, Array]:
    """Return the weights of the first agent, under the names of a single one that drives."""
    places = {match[0]: match for name in weights if (match := _PLACE.match(name))}
    if not places:
        if any("/sac_policy_head" in name or "/policy/online/" in name for name in weights):
            raise RunError(f"{source}: it learned by SAC; hotlap reads models of clipped_ppo")
        first = next(iter(weights), "nothing")
        raise RunError(
            f"{source}: not DeepRacer's network: its weights are called {first} and the like, not "
            "main_level/agent/main/online/network_1/...; give a model.pb or a checkpoint of "
            "DeepRacer"
        )
    # a folder may hold the networks of a head-to-head race; who learned is the first
    agent = min(match["agent"] for match in places.values())
    which = "online" if any(f"/{agent}/main/online/" in f"/{p}" for p in places) else "global"
    start = f"main_level/{agent}/main/{which}/"
    return {
        f"main_level/agent/main/online/{name.removeprefix(start)}": array
        for name, array in weights.items()
        if name.startswith(start)
    }


def _taken(
    plan: Plan,
    names: Mapping[str, str],
    weights: Mapping[str, Array],
    metadata: Metadata,
    source: str | Path,
) -> dict[str, Array]:
    """Return the arrays of a driver from DeepRacer's, which have other axes."""
    found = {}
    remedy = (
        f"check neural_network ({metadata.network}), sensor ({metadata.sensors[0]}) and "
        "action_space in its model_metadata.json"
    )
    for name, shape in plan.shapes().items():
        layer, _, part = name.rpartition(".")
        called = f"{names[layer]}/{'kernel' if part == 'weight' else 'bias'}"
        if called not in weights:
            raise RunError(f"{source}: the model has no {called}; {remedy}")
        array = _turned(weights[called])
        if array.shape != shape:
            there = "x".join(map(str, weights[called].shape))
            wanted = "x".join(map(str, _turned_back(shape)))
            raise RunError(f"{source}: {called} is {there}, not {wanted}; {remedy}")
        if not np.isfinite(array).all():
            raise RunError(f"{source}: {called} is not finite: the training had failed by then")
        found[name] = array
    layers = {f"{called}/kernel" for called in names.values()}
    start = names["head"].partition("/ppo_head_0/")[0]
    more = [n for n in weights if n.startswith(f"{start}/") and n.endswith("/kernel")]
    if others := sorted(set(more) - layers):
        raise RunError(f"{source}: the model also has {others[0]}; {remedy}")
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
    """Return the logarithmic deviations of steering and speed; a frozen graph has none."""
    for name, array in weights.items():
        if name.endswith("ppo_head_0/policy_log_std") and array.size == 2:
            return np.clip(array.reshape(2), *_DEVIATION).astype(np.float32)
    return np.full(2, math.log(initial), np.float32)


def _critic(plan: Plan, weights: Mapping[str, Array], model: OldModel) -> dict[str, Array]:
    """Return the layers of the value network that are there.

    Its last layer is left out: it speaks of rewards on another scale than ours.
    """
    sensors = {"camera": model.metadata.sensors[0]}
    names = layer_names(plan, sensors, "v_values_head_0/output", VALUE)
    found = {}
    for name, shape in plan.shapes().items():
        layer, _, part = name.rpartition(".")
        called = f"{names[layer]}/{'kernel' if part == 'weight' else 'bias'}"
        if layer != "head" and called in weights:
            array = _turned(weights[called])
            if array.shape == shape and np.isfinite(array).all():
                found[name] = array
    return found
