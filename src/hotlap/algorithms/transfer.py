"""Transfer: which weights of another driver a network begins with, and which of its own stay.

Weights are taken by name, a layer at a time, where all shapes of the layer agree. What is not
there, or has another shape, begins anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeAlias

import numpy as np

from hotlap.algorithms.policy import complete
from hotlap.errors import ConfigError, RunError
from hotlap.types import Array

__all__ = ["Saved", "Transfer", "begin_with", "carry", "frozen_weights"]

Saved: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Array]]
"""A JSON-able dictionary and arrays by name, as `save` and `policy_state` return them."""

_NETWORKS = ("actor.", "critic.")
_FORMATS = ("action", "squash", "atoms", "worths")
"""What tells what the outputs of a network mean."""
_LAYERS = ("activation", "layer_norm", "linear")
"""What tells how its hidden layers compute."""
_HEADS = ("head", "advantage", "value")
_STACKS = ("layer", "seen", "action")
"""How layers of critics that learn from a replay are called, before their number."""
_ANOTHER_WAY = "its layers compute in another way"


@dataclass(frozen=True)
class Transfer:
    """What became of every layer of a network that began with another's."""

    loaded: tuple[str, ...] = ()
    """Layers whose weights were taken."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Layers that begin anew, and why."""
    frozen: tuple[str, ...] = ()
    """Layers that will not move."""

    @property
    def summary(self) -> str:
        """One line: how many layers were taken, begin anew, are frozen."""
        said = f"{len(self.loaded)} layers taken, {len(self.skipped)} begin anew"
        return said + (f", {len(self.frozen)} frozen" if self.frozen else "")

    def table(self) -> list[str]:
        """Return a line for every layer: its name, and what became of it."""
        names = [*self.loaded, *self.skipped]
        names += [name for name in self.frozen if name not in names]
        width = max(map(len, names), default=0)
        lines = []
        for name in names:
            said = f"anew: {self.skipped[name]}" if name in self.skipped else "taken"
            lines.append(f"{name:<{width}}  {said}{', frozen' if name in self.frozen else ''}")
        return lines

    def below(self, prefix: str) -> Transfer:
        """Return the same with a prefix before every name."""
        return Transfer(
            tuple(prefix + name for name in self.loaded),
            {prefix + name: why for name, why in self.skipped.items()},
            tuple(prefix + name for name in self.frozen),
        )

    def __add__(self, other: Transfer) -> Transfer:
        return Transfer(
            self.loaded + other.loaded,
            {**self.skipped, **other.skipped},
            self.frozen + other.frozen,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as an event keeps it."""
        return {"loaded": self.loaded, "skipped": dict(self.skipped), "frozen": self.frozen}


def frozen_weights(
    patterns: Sequence[str], names: Iterable[str], setting: str = "algorithm.freeze"
) -> frozenset[str]:
    """Return the weights that shall not move.

    Args:
        patterns: with `*` for anything, such as `camera.conv*`; of a layer or one of its weights,
            with or without the network (`actor.`, `critic.`) before it.
        names: of all weights.
        setting: where the patterns were given, for messages.

    Raises:
        ConfigError: a pattern matches nothing, or nothing of a network is left to learn.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if _matches(name, pattern)}
        if not matched:
            raise ConfigError(
                f"{setting}: {pattern!r} matches no weight of the network; there are "
                f"{', '.join(_layers(map(_bare, names)))}"
            )
        found |= matched
    for network in dict.fromkeys(_network(name) for name in names):
        mine = {name for name in names if _network(name) == network}
        if mine <= found:
            raise ConfigError(
                f"{setting}: {', '.join(map(repr, patterns))} would freeze all of the "
                f"{network[:-1] or 'network'}, so that nothing is left to learn; leave out one of "
                f"{', '.join(_layers(map(_bare, sorted(mine))))}"
            )
    return frozenset(found)


class _Adopter(Protocol):
    """What takes weights: a learner."""

    def save(self) -> Saved: ...
    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None: ...
    def policy_state(self) -> Saved: ...


def begin_with(
    learner: _Adopter,
    saved: Saved,
    *,
    weights: Collection[str],
    frozen: Collection[str],
    driver: Saved | None,
) -> Transfer:
    """Let a learner begin with another's weights; see `carry`."""
    description = learner.policy_state()[0]
    own, mine, transfer = carry(
        learner.save(), saved,
        weights=weights, frozen=frozen, description=description, driver=driver,
    )  # fmt: skip
    learner.restore(own, mine)
    return transfer


def carry(
    own: Saved,
    saved: Saved,
    *,
    weights: Collection[str],
    frozen: Collection[str] = (),
    description: Mapping[str, Any],
    driver: Saved | None = None,
) -> tuple[dict[str, Any], dict[str, Array], Transfer]:
    """Put together the state of a learner that begins with another's weights.

    Where all layers are taken, so are the optimiser's means and its steps, and the temperature;
    else these begin anew. Counters begin anew in any case. Scales of observations and rewards come
    along where they have the right size. From a learner of another kind come only the layers of its
    driver, and these only where they compute and mean the same; the layers that a camera passes
    then also begin the critic's.

    Args:
        own: what the learner saves before it has learned anything.
        saved: what the other one saved.
        weights: names of the learner's weights.
        frozen: which of them will not move.
        description: of the learner's own driver.
        driver: the other's `policy_state`, where it may be of another kind.

    Returns:
        What the learner has to restore, and what became of each layer.

    Raises:
        RunError: no layer fits.
    """
    meta, mine = own
    why: dict[str, str] = {}
    theirs = saved[1]
    alike = saved[0].get("kind") == meta.get("kind")
    if not alike:
        if driver is None:
            raise RunError(f"it learned by {saved[0].get('kind')!r}, not by {meta.get('kind')}")
        theirs, why = _translated(weights, description, driver, saved[1])
    else:
        given = None if driver is None else driver[0]
        why = _unlike(weights, description, given, meta.get("plans", {}), saved[0].get("plans", {}))
    layers: dict[str, list[str]] = {}
    for name in weights:
        layers.setdefault(_layer(name), []).append(name)
    skipped: dict[str, str] = {}
    for layer, names in layers.items():
        for name in names:
            if reason := why.get(name) or _misfit(name, mine, theirs):
                skipped.setdefault(layer, reason)
        if any(_layer(name) == layer and name not in mine for name in theirs):
            skipped.setdefault(layer, _ANOTHER_WAY)  # it was normalised, and is not here
    loaded = tuple(layer for layer in layers if layer not in skipped)
    if not loaded:
        layer, reason = next(iter(skipped.items()))
        raise RunError(f"none of its layers fits here; {layer}: {reason}")
    taken = {name for layer in loaded for name in layers[layer]}
    whole = alike and not skipped and not any(
        _misfit(name, mine, theirs) for name in mine if name.startswith("adam.")
    )  # fmt: skip

    def scales(group: str) -> bool:
        parts = ("count", "mean", "squares")
        return not any(_misfit(f"{group}.{part}", mine, theirs) for part in parts)

    found = dict(mine)
    for name in mine:
        kind, _, base = name.partition(".")
        group = name.rpartition(".")[0]
        if name in taken or (whole and (kind == "adam" or name == "log_temperature")):
            found[name] = theirs.get(name, mine[name])
        elif kind in ("target", "last") and base in taken:
            found[name] = theirs[base] if _misfit(name, mine, theirs) else theirs[name]
        elif (kind == "normalizer" and scales(group)) or (
            kind == "reward" and base != "return" and name in theirs
        ):
            found[name] = theirs[name]
    if "reward.return" in mine:
        found["reward.return"] = np.zeros(0)
    for name in frozen:  # what drives is what stays
        if f"last.{name}" in found:
            found[f"last.{name}"] = found[name]
    begun = dict(meta)
    if whole:
        begun["adam_steps"] = saved[0].get("adam_steps", meta.get("adam_steps"))
    if "adopted" in meta:  # whether it can drive, and need not begin at random
        begun["adopted"] = not any(_network(name) != "critic." for name in skipped)
    still = tuple(layer for layer, names in layers.items() if set(names) <= set(frozen))
    return begun, found, Transfer(loaded, skipped, still)


def _translated(
    weights: Collection[str],
    description: Mapping[str, Any],
    driver: Saved,
    saved: Mapping[str, Array],
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return another kind's driver under our names, and why some of it is of no use."""
    theirs, arrays = driver
    found: dict[str, Array] = {}
    why: dict[str, str] = {}
    for name in weights:
        bare = _bare(name)
        part, plan = bare.partition(".")[0], description["plan"]
        sees = part in plan["images"] or part in plan["own"]  # before all inputs join
        mute = bare == "log_std" or (_network(name) == "critic." and not sees)
        if mute or bare not in arrays:
            continue
        found[name] = arrays[bare]
        if reason := _strange(bare, description, theirs):
            why[name] = reason
    for prefix in ("", "student.", "fine."):  # the last one that there is, is the driver's
        start = f"{prefix}normalizer."
        found |= {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(start)}
    return found, why


def _unlike(
    weights: Collection[str],
    description: Mapping[str, Any],
    driver: Mapping[str, Any] | None,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
) -> dict[str, str]:
    """Say why some weights of a learner of the same kind are of no use, by name.

    Args:
        weights: names of all.
        description: of our driver.
        driver: the description of the other one, where it is known.
        mine: our plans by network, where a learner saves them.
        theirs: those of the other one; a critic without a plan is taken for one like its driver.
    """
    if driver is None and "actor" in theirs:
        driver = {**description, "plan": theirs["actor"]}
    found: dict[str, str] = {}
    for name in weights:
        ours, other, known = description, driver, True
        if _network(name) == "critic.":  # its outputs mean the same, whatever the actions
            known = "critic" in mine and "critic" in theirs
            if known:
                ours = {**description, "plan": mine["critic"]}
                other = {**description, "plan": theirs["critic"]}
            elif driver is not None:
                other = {**description, "plan": driver["plan"]}
        if other is not None:
            found[name] = _strange(_bare(name), ours, other, reading=known)
    return found


def _strange(
    bare: str, description: Mapping[str, Any], theirs: Mapping[str, Any], *, reading: bool = True
) -> str:
    """Say why a layer of a driver would be of no use though its shapes agree; nothing if it is.

    `reading`: whether the descriptions tell what its network reads.
    """
    description, theirs = complete(description), complete(theirs)
    ours, other = description["plan"], theirs["plan"]
    part = bare.partition(".")[0]
    if part in ours["images"]:
        there, here = other["images"].get(part, ours["images"][part]), ours["images"][part]
        alike = all(there[what] == here[what] for what in ("scale", "offset"))
        return "" if alike else "it saw pixels on another scale"
    if part in _HEADS and any(theirs[what] != description[what] for what in _FORMATS):
        return "its outputs mean something else"
    stacked = part.rstrip("0123456789") in _STACKS
    last = part in _HEADS or part == "log_std"  # a new head shall explore as one
    if (last or stacked) and bool(other["memory"]) != bool(ours["memory"]):
        return "it read what a memory held" if other["memory"] else "it read no memory"
    if (last or stacked) and ours["memory"] and other["cell"] != ours["cell"]:
        return f"it read units of the kind {other['cell']}, here {ours['cell']}"
    if (last or part == "memory") and len(other["hidden"]) != len(ours["hidden"]):
        return f"it came after {len(other['hidden'])} hidden layers, here {len(ours['hidden'])}"
    if reading and part in _first(ours) and (read := _reads(other)) != _reads(ours):
        return f"it read {', '.join(read)}, here {', '.join(_reads(ours))}"
    if part in _HEADS:
        return ""
    ways = ("linear",) if stacked else _LAYERS  # a stack is rectified, or has no activation
    return "" if all(other[what] == ours[what] for what in ways) else _ANOTHER_WAY


def _first(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the layer that reads the observations may be called."""
    if plan["hidden"]:
        return ("hidden0",) if plan["memory"] else ("hidden0", "layer0", "seen0")
    return ("memory",) if plan["memory"] else ("head", "layer0", "seen0")


def _reads(plan: Mapping[str, Any]) -> list[str]:
    """Return what that layer reads, in the order of its weights."""
    last = ["previous_action"] if plan["previous_action"] else []
    ways = {k: f" through {'-'.join(map(str, widths))}" for k, widths in plan["own"].items()}
    return [*plan["images"], *(name + ways.get(name, "") for name in plan["vectors"]), *last]


def _misfit(name: str, mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> str:
    """Say why an array cannot be taken; nothing if it can."""
    if name not in theirs:
        return "it has no such layer"
    there, here = theirs[name].shape, mine[name].shape
    return (
        "" if there == here else f"{name.rpartition('.')[2]} {_shape(there)}, here {_shape(here)}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _matches(name: str, pattern: str) -> bool:
    spellings = (name, _bare(name))
    return any(fnmatchcase(s, p) for s in spellings for p in (pattern, f"{pattern}.*"))


def _network(name: str) -> str:
    return next((network for network in _NETWORKS if name.startswith(network)), "")


def _bare(name: str) -> str:
    return name.removeprefix(_network(name))


def _layer(name: str) -> str:
    """Return the layer that a weight belongs to: `actor.head` of `actor.head.bias`."""
    layer, _, last = name.rpartition(".")
    return layer if last in ("weight", "bias", "scale", "shift") else name


def _layers(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(_layer, names)))
