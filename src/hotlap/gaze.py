"""Gaze: what the driver of one car looked at, and what it was minded to do, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from hotlap.algorithms.attention import Attention, Heat, attend, over_pixels
from hotlap.algorithms.policy import ImagePlan, NumpyPolicy
from hotlap.sim.relief import depth_picture, segmentation_picture
from hotlap.tasks.actions import Actions
from hotlap.types import Array, Float32, Float64

__all__ = ["CAMERAS", "HEAT", "Gaze", "coloured", "sided"]

CAMERAS = ("camera", "depth", "segmentation")
"""Observations that are pictures; the first of them that a driver sees is shown."""
HEAT = np.array(
    [(20, 11, 53), (101, 21, 110), (187, 55, 84), (243, 120, 25), (252, 255, 164)], np.float64
)
"""Cold to hot: inferno, whose order is seen by any eye."""
_OPAQUE = 0.8
"""How much of the picture the hottest place hides."""
_FAINT = 0.2
"""A picture whose hottest place is below this share of the usual one is shown colder."""


class Gaze:
    """Watches one car; give it to `evaluate` as the witness.

    Args:
        row: which car.
        steps: how many of its steps to keep.
        actions: what the driver's answers mean.
        range_max: how far its depth camera reaches [m].
        heat: how its heat is computed.
    """

    def __init__(
        self,
        row: int,
        steps: int,
        actions: Actions,
        range_max: float = 10.0,
        heat: Heat = "gradcam",
    ) -> None:
        self._how: Heat = heat
        self._row, self._most, self._actions, self._far = row, steps, actions, range_max
        self._pictures: list[Array] = []
        self._found: list[Attention] = []
        self._image: ImagePlan | None = None
        self._name, self._worths = "", False

    def __call__(self, policy: NumpyPolicy, observation: Mapping[str, Array]) -> None:
        """See what the drivers of all cars see before they act."""
        if len(self) == self._most:
            return
        images = policy.description.plan.images
        self._name = next(name for name in CAMERAS if name in images)
        self._image = images[self._name]
        self._worths = policy.description.worths
        own = slice(self._row, self._row + 1)
        memory = policy.carried(len(observation[self._name]))[own]
        alone = {name: observation[name][own] for name in policy.names}
        self._pictures.append(self._shown(alone[self._name][0]))
        self._found.append(attend(policy, alone, memory, self._how))

    def __len__(self) -> int:
        """Steps so far."""
        return len(self._found)

    def _shown(self, seen: Array) -> Array:
        """Return a picture (H, W, 3) of what is seen, of a pair of cameras the left one's."""
        if self._name == "segmentation":
            return segmentation_picture(seen)
        seen = depth_picture(seen, self._far) if self._name == "depth" else seen
        channels = 3 if seen.shape[2] in (3, 6) else 1
        return np.array(np.broadcast_to(seen[:, :, :channels], (*seen.shape[:2], 3)))

    @cached_property
    def _usual(self) -> float:
        tops = [float(one.heat[self._name].max()) for one in self._found]
        return float(np.median([top for top in tops if top > 0] or [1.0]))

    def picture(self, step: int) -> Array:
        """Return what it saw, (H, W, 3) uint8."""
        return self._pictures[step]

    def heat(self, step: int) -> Float32:
        """Return where it looked, (H, W): 1 is the hottest place of this picture, 0 is nothing.

        Pictures that hardly mattered stay below 1: those less than a fifth as hot as is usual.
        """
        heat = self._found[step].heat[self._name][0]
        assert self._image is not None  # there is a step
        spread = over_pixels(heat, self._image)
        return np.asarray(spread / np.float32(max(float(heat.max()), _FAINT * self._usual)))

    def painted(self, step: int) -> Array:
        """Return what it saw with its heat over it, (H, W, 3) uint8."""
        heat = self.heat(step)[:, :, None]
        cover = _OPAQUE * np.sqrt(heat)
        mixed = self.picture(step) * (1 - cover) + coloured(heat[:, :, 0]) * cover
        return np.asarray(mixed + 0.5, np.uint8)

    @property
    def discrete(self) -> bool:
        """Whether it chooses from a list."""
        return self._actions.discrete

    @cached_property
    def _table(self) -> Float64:
        """(A, 2) steering [degrees] and speed [m/s] of each choice."""
        command = self._actions.decode(np.arange(self._actions.size))
        return np.stack([np.degrees(command.steering), command.speed], axis=1).astype(np.float64)

    @cached_property
    def order(self) -> Sequence[int]:
        """The choices from the left to the right, and of one steering the slow ones first."""
        table = self._table.round(3)
        return [int(k) for k in np.lexsort([table[:, 1], -table[:, 0]])]

    def label(self, choice: int) -> str:
        """Return what a choice does, in words."""
        angle, speed = self._table[choice]
        return f"{sided(angle)}, {speed:.1f} m/s"

    def shares(self, step: int) -> tuple[Float32, int]:
        """Return how likely each choice is, (A,) from the left to the right, and who is chosen.

        Who knows what choices are worth is not of two minds: from the worst, 0, to the best, 1.
        """
        found = self._found[step]
        share = found.distribution[0]
        if self._worths:
            share = (share - share.min()) / max(float(np.ptp(share)), 1e-12)
        return share[self.order], self.order.index(int(found.chosen[0]))

    def spans(self, step: int) -> Float64:
        """Return steering [degrees, left positive] and speed [m/s] of continuous actions, (2, 3).

        One deviation less, the middle, which is driven, and one deviation more.
        """
        command = self._actions.decode(self._found[step].distribution[0].T)
        return np.stack([np.degrees(command.steering), command.speed]).astype(np.float64)

    @cached_property
    def ranges(self) -> Float64:
        """(2, 2) least and greatest steering [degrees] and speed [m/s]."""
        if self.discrete:
            return np.stack([self._table.min(axis=0), self._table.max(axis=0)], axis=1)
        ends = self._actions.decode(np.array([[-1.0, -1.0], [1.0, 1.0]]))
        return np.stack([np.degrees(ends.steering), ends.speed]).astype(np.float64)


def sided(angle: float) -> str:
    """Return steering [degrees, left positive] in words."""
    degrees = round(angle)
    return f"{abs(degrees)}° {'left' if degrees > 0 else 'right'}" if degrees else "straight"


def coloured(heat: Array) -> Array:
    """Return the colours (..., 3), 0 to 255, of heat between 0 and 1."""
    at = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(heat, at, HEAT[:, i]) for i in range(3)], axis=-1)
