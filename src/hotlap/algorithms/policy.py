"""A saved policy that drives in NumPy alone: description and arrays in, actions out, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from hotlap.algorithms.batch import ActionSpec
from hotlap.algorithms.normalizer import normalize
from hotlap.config import Settings
from hotlap.draws import normal_quantile
from hotlap.errors import MissingFieldError, RunError
from hotlap.types import Array, Float32

__all__ = [
    "LOG_STD",
    "ImagePlan",
    "NumpyPolicy",
    "Plan",
    "choose",
    "complete",
]


LOG_STD = (-5.0, 2.0)
"""Deviations before a squash lie between the exponentials of these."""


class ImagePlan(Settings):
    """The layers that one camera passes before it joins the other inputs."""

    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Height, width, channels."""
    scale: float
    """Pixels are multiplied by this,"""
    offset: float
    """and then this is added."""
    conv: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...]
    """Filters, kernel, stride of each convolution."""
    dense: tuple[PositiveInt, ...]
    """Widths of the camera's own dense layers."""
    padded: bool = False
    """Whether half a kernel of zeros lies around what a convolution sees."""
    pool: PositiveInt = 1
    """After each convolution the greatest of so many by so many; what is left over falls away."""

    def grid(self) -> tuple[int, int, int]:
        """Return height, width and channels after the convolutions; below 1 if they do not fit."""
        height, width, channels = self.shape
        for filters, kernel, stride in self.conv:
            around = 2 * self.border(kernel) - kernel
            height, width = (height + around) // stride + 1, (width + around) // stride + 1
            height, width, channels = height // self.pool, width // self.pool, filters
        return height, width, channels

    def border(self, kernel: int) -> int:
        """Return how many zeros lie at each border of what a convolution sees."""
        return kernel // 2 if self.padded else 0


class Plan(Settings):
    """The layers of a network: cameras through convolutions, then all inputs through dense layers.

    An image is flattened in (height, width, channel) order. With `memory`, recurrent units
    stand between the dense layers and the head.
    """

    images: dict[str, ImagePlan]
    """By observation name, in the order in which they are joined; before the vectors."""
    vectors: dict[str, PositiveInt]
    """Sizes by observation name, in the order in which they are joined."""
    own: dict[str, tuple[PositiveInt, ...]] = Field(default_factory=dict)
    """Widths of the dense layers that a vector passes before it joins the others, by name."""
    hidden: tuple[PositiveInt, ...]
    """Widths of the dense layers after the joint."""
    activation: Literal["tanh", "relu"]
    """After every layer but the last."""
    outputs: PositiveInt
    """Width of the last layer, called `head`."""
    layer_norm: bool = False
    """Whether hidden layers are normalised before their activation."""
    linear: bool = False
    """Whether hidden layers have no activation."""
    memory: NonNegativeInt = 0
    """Recurrent units, before the head; 0: none."""
    cell: Literal["gru", "lstm"] = "gru"
    """Their kind."""
    previous_action: NonNegativeInt = 0
    """Numbers of the action before, which join the inputs after the vectors; 0: it is not seen."""

    @property
    def names(self) -> tuple[str, ...]:
        """The observations it reads."""
        return (*self.images, *self.vectors)

    @property
    def carried(self) -> int:
        """Numbers that it carries from one step of a row to the next: its units, then the action.

        All are 0 where an episode begins.
        """
        return self.state + self.previous_action

    @property
    def state(self) -> int:
        """Numbers that its units carry: what they reach, and with an LSTM then their cells."""
        return self.memory * (2 if self.cell == "lstm" else 1)

    @property
    def gates(self) -> int:
        """Gates of a unit, the candidate among them."""
        return 4 if self.cell == "lstm" else 3

    def widths(self) -> dict[str, int]:
        """Return how many numbers of each observation are joined, by name, in their order."""
        found = {}
        for name, image in self.images.items():
            found[name] = image.dense[-1] if image.dense else int(np.prod(image.grid()))
        for name, size in self.vectors.items():
            found[name] = (size, *self.own.get(name, ()))[-1]
        return found

    def columns(self, order: Sequence[str]) -> Array:
        """Return which number of ours each number is, were the observations joined in an order.

        Args:
            order: all of their names.
        """
        ends, begin = {}, 0
        for name, width in self.widths().items():
            ends[name] = np.arange(begin, begin + width)
            begin += width
        after = np.arange(begin, begin + self.previous_action)
        return np.concatenate([*(ends[name] for name in order), after])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight and bias by name, in the order of the layers.

        Dense weights are (out, in), convolutions (filters, channels, kernel, kernel). Those of the
        recurrent units have their gates one below the other: reset, update, candidate; with an LSTM
        input, forget, candidate, output.
        """
        found: dict[str, tuple[int, ...]] = {}

        def layer(name: str, weight: tuple[int, ...]) -> None:
            found[f"{name}.weight"] = weight
            found[f"{name}.bias"] = weight[:1]

        for name, image in self.images.items():
            channels = image.shape[2]
            for i, (filters, kernel, _) in enumerate(image.conv):
                layer(f"{name}.conv{i}", (filters, channels, kernel, kernel))
                channels = filters
            size = int(np.prod(image.grid()))
            for i, out in enumerate(image.dense):
                layer(f"{name}.dense{i}", (out, size))
                size = out
        for name, widths in self.own.items():
            size = self.vectors[name]
            for i, out in enumerate(widths):
                layer(f"{name}.dense{i}", (out, size))
                size = out
        width = sum(self.widths().values()) + self.previous_action
        for i, out in enumerate(self.hidden):
            layer(f"hidden{i}", (out, width))
            if self.layer_norm:
                found[f"hidden{i}.scale"] = found[f"hidden{i}.shift"] = (out,)
            width = out
        if self.memory:
            layer("memory.input", (self.gates * self.memory, width))
            layer("memory.hidden", (self.gates * self.memory, self.memory))
            width = self.memory
        layer("head", (self.outputs, width))
        return found


class PolicyDescription(Settings):
    """What a policy's arrays mean; see `NumpyPolicy`."""

    format: Literal[1]
    plan: Plan
    action: Literal["discrete", "continuous"]
    squash: Literal["none", "mean", "sample"] = "none"
    atoms: tuple[float, float, PositiveInt] | None = None
    worths: bool = False

    @property
    def size(self) -> int:
        """How many choices, or numbers, it answers with."""
        parts = 2 if self.squash == "sample" else self.atoms[2] if self.atoms else 1
        return self.plan.outputs // parts


class NumpyPolicy:
    """Drives from what a learner's `policy_state()` returned.

    A continuous action is the output plus noise; with `squash` "mean" the hyperbolic tangent of the
    output, plus noise; with "sample" the tangent of a sum, of the first half of the outputs and of
    noise whose logarithmic deviation is the second half. With `atoms` (low, high, count) a choice
    has so many outputs: logits of what it is worth, on an even scale from low to high. With
    `worths` a choice's output is what it is worth, else the logit of its probability.

    A policy with a memory keeps what it carries of each row from one `act` to the next: say
    `begin` where episodes begin. `step` is the same for who keeps it himself.

    Args:
        description: JSON-able; the layers, the kind of action, `squash`, `atoms` and `worths`.
        arrays: float32 by name: weights, `normalizer.NAME.mean` and `.std`, and `log_std` for
            continuous actions.

    Raises:
        RunError: the description is not one, or the arrays do not fit it.
    """

    def __init__(self, description: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        self._saved = _validated(description)
        plan = self._saved.plan
        wanted = plan.shapes()
        if self._saved.action == "continuous" and self._saved.squash != "sample":
            wanted["log_std"] = (plan.outputs,)
        for name, size in plan.vectors.items():
            wanted[f"normalizer.{name}.mean"] = wanted[f"normalizer.{name}.std"] = (size,)
        if plan.previous_action not in (0, self._saved.size):
            raise RunError(
                f"plan.previous_action is {plan.previous_action}, but its actions have "
                f"{self._saved.size} numbers; give what policy_state() returned"
            )
        for name, shape in wanted.items():
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "nothing"
                raise RunError(
                    f"the policy's array {name!r} must have shape {shape}, found {found}; "
                    "the description and the arrays are not of the same policy"
                )
        self._arrays = {name: np.asarray(arrays[name], np.float32) for name in wanted}
        self._carried: Float32 | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The observations it reads."""
        return self._saved.plan.names

    @property
    def action(self) -> ActionSpec:
        """What it answers."""
        return ActionSpec(self._saved.action, self._saved.size)

    @property
    def memory(self) -> int:
        """Numbers that it carries from one step of a row to the next; 0: it has no memory."""
        return self._saved.plan.carried

    @property
    def description(self) -> PolicyDescription:
        """Its layers and the kind of its answers."""
        return self._saved

    @property
    def weights(self) -> Mapping[str, Float32]:
        """Its arrays by name, as `Plan.shapes` has them."""
        return self._arrays

    def carried(self, rows: int) -> Float32:
        """Return what `act` remembers of `rows` rows: (rows, `self.memory`)."""
        if self._carried is None:
            return np.zeros((rows, self.memory), np.float32)
        return self._carried

    def begin(self, rows: Array | None = None) -> None:
        """Forget what `act` remembers of some rows, by index or mask, as their episodes begin.

        None: of all of them, and how many there were.
        """
        if rows is None or self._carried is None:
            self._carried = None
        else:
            self._carried[rows] = 0.0

    def act(self, observation: Mapping[str, Array], uniform: Array | None = None) -> Array:
        """Choose actions for N rows.

        Args:
            observation: by name, (N, ...); names it does not read are ignored.
            uniform: None for the best action. Else numbers in (0, 1) that decide the sample:
                (N, A) for continuous actions, (N, 1 or more) for discrete ones. Who knows worths
                always answers the best.

        Returns:
            (N,) int64 choices, or (N, A) float32 inside [-1, 1].

        Raises:
            MissingFieldError: an observation it reads is not there.
            RunError: it remembers another number of rows.
        """
        if not self.memory:
            return self._choose(self.output(observation), uniform)
        self._check(observation)
        count = len(observation[self.names[0]])
        if self._carried is None:
            self._carried = np.zeros((count, self.memory), np.float32)
        if len(self._carried) != count:
            raise RunError(
                f"the policy remembers {len(self._carried)} rows, but was given {count}; "
                "call begin() before it drives others"
            )
        action, self._carried = self.step(observation, self._carried, uniform)
        return action

    def step(
        self, observation: Mapping[str, Array], memory: Float32, uniform: Array | None = None
    ) -> tuple[Array, Float32]:
        """Choose actions for N rows; see `act`, whose own memory is left alone.

        Args:
            observation: by name, (N, ...).
            memory: (N, `self.memory`), what the step before returned; 0 where an episode begins.
            uniform: what decides the sample, or None.

        Returns:
            The actions, and what to give to the next step.
        """
        output, hidden = self.run(observation, memory)
        action = self._choose(output, uniform)
        if not self._saved.plan.previous_action:
            return action, hidden
        done = action
        if self._saved.action == "discrete":
            done = np.eye(self._saved.size, dtype=np.float32)[action]
        return action, np.concatenate([hidden, done], axis=1)

    def answer(self, output: Float32) -> Array:
        """Return the best action that an output of `run` means, (N,) or (N, A)."""
        return self._choose(output.copy(), None)

    def _choose(self, output: Float32, uniform: Array | None) -> Array:
        if self._saved.action == "discrete":
            if uniform is None or self._saved.worths:
                return np.asarray(output.argmax(axis=1))
            return choose(output, uniform)
        noise = None if uniform is None else normal_quantile(uniform).astype(np.float32)
        if self._saved.squash == "sample":
            mean, log_std = np.split(output, 2, axis=1)
            if noise is not None:
                mean += np.exp(np.clip(log_std, *LOG_STD)) * noise
            return np.asarray(np.tanh(mean))
        if self._saved.squash == "mean":
            output = np.tanh(output, out=output)
        if noise is not None:
            output += np.exp(self._arrays["log_std"]) * noise
        return np.clip(output, np.float32(-1.0), np.float32(1.0))

    def probabilities(self, observation: Mapping[str, Array]) -> Float32:
        """Return the probability of each choice, (N, A); discrete actions only.

        Who knows what choices are worth takes the best one: its probability is 1.
        """
        if self._saved.action != "discrete":
            raise ValueError("a continuous policy has no probabilities; read act() instead")
        output = self.output(observation)
        if self._saved.worths:
            best = output.argmax(axis=1, keepdims=True)
            return np.asarray(np.arange(output.shape[1]) == best, np.float32)
        return _softmax(output)

    def output(self, observation: Mapping[str, Array]) -> Float32:
        """Run the network: (N, A) logits or worths of the choices, or numbers not yet an action.

        A memory answers as at the beginning of an episode.
        """
        self._check(observation)
        rows = len(observation[self.names[0]])
        return self.run(observation, np.zeros((rows, self.memory), np.float32))[0]

    def _check(self, observation: Mapping[str, Array]) -> None:
        missing = sorted(set(self.names) - set(observation))
        if missing:
            raise MissingFieldError(
                f"the policy reads {', '.join(missing)}, but was given only "
                f"{', '.join(sorted(observation)) or 'nothing'}; drive it with the observation "
                "it was trained on"
            )

    def run(
        self,
        observation: Mapping[str, Array],
        memory: Float32,
        tape: dict[str, Float32] | None = None,
    ) -> tuple[Float32, Float32]:
        """Run the network, as `output` and `step` do.

        Args:
            observation: by name, (N, ...).
            memory: (N, `self.memory`), what the step before returned; 0 where an episode begins.
            tape: filled with what each layer gave, by the layer's name: after its activation, a
                camera's last convolution before it is pooled, `NAME.before` a layer before it is
                normalised, and the head before its atoms are one number.

        Returns:
            (N, A) logits or worths of the choices, or numbers not yet an action; and what the
            recurrent units carry on, (N, units).
        """
        plan = self._saved.plan
        self._check(observation)
        parts = [self._see(name, observation[name], tape) for name in plan.images]
        for name, size in plan.vectors.items():
            mean, std = (self._arrays[f"normalizer.{name}.{what}"] for what in ("mean", "std"))
            x = normalize(observation[name].reshape(-1, size), mean, std)
            for i in range(len(plan.own.get(name, ()))):
                x = self._activate(self._dense(f"{name}.dense{i}", x))
                _note(tape, f"{name}.dense{i}", x)
            parts.append(x)
        hidden, previous = memory[:, : plan.state], memory[:, plan.state :]
        if plan.previous_action:
            parts.append(previous)
        features = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        for i in range(len(plan.hidden)):
            features = self._dense(f"hidden{i}", features)
            if plan.layer_norm:
                _note(tape, f"hidden{i}.before", features)
                features = self._normalize(f"hidden{i}", features)
            features = features if plan.linear else self._activate(features)
            _note(tape, f"hidden{i}", features)
        if plan.memory:
            hidden = self._remember(features, hidden, tape)
            features = hidden[:, : plan.memory]
        output = self._dense("head", features)
        _note(tape, "head", output)
        if self._saved.atoms is None:
            return output, hidden
        low, high, count = self._saved.atoms
        probability = _softmax(output.reshape(-1, count))
        scale = np.linspace(low, high, count, dtype=np.float32)
        return np.asarray((probability @ scale).reshape(len(output), -1)), hidden

    def _remember(
        self, features: Float32, hidden: Float32, tape: dict[str, Float32] | None
    ) -> Float32:
        """Advance the recurrent units by a step; see `networks.remember`."""
        units = self._saved.plan.memory
        fresh = self._dense("memory.input", features)
        kept = self._dense("memory.hidden", hidden[:, :units])
        _note(tape, "memory.input", fresh)
        _note(tape, "memory.hidden", kept)
        if self._saved.plan.cell == "lstm":
            gates = fresh + kept
            take, keep, show = (sigmoid(gates[:, k * units : (k + 1) * units]) for k in (0, 1, 3))
            cell = keep * hidden[:, units:] + take * np.tanh(gates[:, 2 * units : 3 * units])
            return np.concatenate([show * np.tanh(cell), cell], axis=1)
        gates = sigmoid(fresh[:, : 2 * units] + kept[:, : 2 * units])
        reset, update = gates[:, :units], gates[:, units:]
        candidate = np.tanh(fresh[:, 2 * units :] + reset * kept[:, 2 * units :])
        return np.asarray(candidate + update * (hidden - candidate))

    def _see(self, name: str, pixels: Array, tape: dict[str, Float32] | None) -> Float32:
        image = self._saved.plan.images[name]
        features: Array = pixels.reshape(-1, *image.shape)
        if image.padded:  # zeros belong around what is scaled
            features = features * np.float32(image.scale) + np.float32(image.offset)
        for i, (filters, kernel, stride) in enumerate(image.conv):
            weight, bias = self._layer(f"{name}.conv{i}")
            if image.padded:
                border = (image.border(kernel),) * 2
                features = np.pad(features, ((0, 0), border, border, (0, 0)))
            elif i == 0:  # the pixels' scale and offset move into the layer: patches stay uint8
                bias = bias + np.float32(image.offset) * weight.sum(axis=(1, 2, 3))
                weight = weight * np.float32(image.scale)
            window = np.lib.stride_tricks.sliding_window_view(features, (kernel, kernel), (1, 2))
            patch = window[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
            rows, height, width = patch.shape[:3]
            flat = patch.reshape(rows * height * width, -1).astype(np.float32, copy=False)
            out = flat @ weight.transpose(2, 3, 1, 0).reshape(-1, filters) + bias
            features = self._activate(out).reshape(rows, height, width, filters)
            _note(tape, f"{name}.conv{i}", features)
            if image.pool > 1:
                features = _pooled(features, image.pool)
        features = features.reshape(len(features), -1)
        for i in range(len(image.dense)):
            features = self._activate(self._dense(f"{name}.dense{i}", features))
            _note(tape, f"{name}.dense{i}", features)
        return features

    def _layer(self, name: str) -> tuple[Float32, Float32]:
        return self._arrays[f"{name}.weight"], self._arrays[f"{name}.bias"]

    def _dense(self, name: str, features: Float32) -> Float32:
        weight, bias = self._layer(name)
        return np.asarray(features @ weight.T + bias)

    def _normalize(self, name: str, features: Float32) -> Float32:
        scale, shift = self._arrays[f"{name}.scale"], self._arrays[f"{name}.shift"]
        features = features - features.mean(axis=1, keepdims=True)
        variance = np.square(features).mean(axis=1, keepdims=True)
        return np.asarray(features / np.sqrt(variance + np.float32(1e-5)) * scale + shift)

    def _activate(self, features: Float32) -> Float32:
        if self._saved.plan.activation == "tanh":
            return np.tanh(features, out=features)
        return np.maximum(features, np.float32(0.0), out=features)


def _note(tape: dict[str, Float32] | None, name: str, given: Array) -> None:
    if tape is not None:
        tape[name] = given


def _pooled(features_BHWC: Float32, size: int) -> Float32:
    """Return the greatest number of each `size` by `size` square."""
    rows, height, width, channels = features_BHWC.shape
    height, width = height // size, width // size
    whole = features_BHWC[:, : height * size, : width * size]
    squares = whole.reshape(rows, height, size, width, size, channels)
    return np.asarray(squares.max(axis=(2, 4)))


def complete(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a policy with everything filled in that it leaves out.

    Raises:
        RunError: it is not one.
    """
    return _validated(description).model_dump(mode="json")


def _validated(description: Mapping[str, Any]) -> PolicyDescription:
    try:
        return PolicyDescription.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(
            f"not the description of a policy: {where}: {first['msg']}; "
            "give what policy_state() returned"
        ) from None


def choose(logits_NA: Float32, uniform: Array) -> Array:
    """Sample N choices by inverting their cumulative distribution at `uniform[:, 0]`."""
    cumulative = np.cumsum(_softmax(logits_NA).astype(np.float64), axis=1)
    below = cumulative < uniform[:, :1] * cumulative[:, -1:]
    return np.asarray(np.minimum(below.sum(axis=1), logits_NA.shape[1] - 1))


def sigmoid(x: Float32) -> Float32:
    # by the tangent, which does not overflow
    return np.asarray(np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1.0)))


def _softmax(logits_NA: Float32) -> Float32:
    weight = np.exp(logits_NA - logits_NA.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
