"""Look: the colours and markings of a course, as the camera sees it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from hotlap.config import Settings

__all__ = ["AirsimLook", "Band", "Colour", "Look", "LookSettings", "RobotiniLook"]

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]
"""Red, green, blue, each 0..255."""

Share = Annotated[float, Field(ge=0, le=1)]
Band = tuple[Share, Share, Colour]
"""From and to, as shares of the road's width from its left border, and its colour."""


class Look(Settings):
    """How road, markings, ground and sky are painted; these are a DeepRacer track's."""

    kind: Literal["deepracer"] = "deepracer"
    """Which look; each of its colours and sizes can be changed."""

    road: Colour = (62, 62, 66)
    """The asphalt between the border lines."""

    ground: Colour = (44, 112, 52)
    """Everything off the road."""

    border: Colour = (240, 240, 240)
    """The solid line along the inside of each border."""

    border_width: NonNegativeFloat = 0.03
    """Width of the border lines [m]; 0 paints none. Never more than the half road is painted."""

    dash: Colour = (240, 168, 32)
    """The dashes on the centre line."""

    dash_width: NonNegativeFloat = 0.025
    """Width of the dashes [m]; 0 paints none."""

    dash_length: PositiveFloat = 0.1
    """Length of a dash [m]. Dash and gap are stretched together so that they divide the course."""

    dash_gap: NonNegativeFloat = 0.1
    """Gap between two dashes [m]; 0 paints a solid line."""

    obstacle: Colour = (196, 154, 98)
    """The obstacles; their sides are darker than their tops."""

    car: Colour = (186, 40, 36)
    """Bots and other cars."""

    sky_top: Colour = (140, 172, 206)
    """The sky straight ahead at 45 degrees and above; it blends to `sky_horizon` below."""

    sky_horizon: Colour = (214, 224, 232)
    """The sky where it meets the ground."""

    wall: Colour = (150, 152, 158)
    """The walls beside the road; brighter or darker by how they face the light."""

    wall_height: NonNegativeFloat = 0.0
    """Height of walls beside the road [m]; 0: there are none."""

    wall_offset: NonNegativeFloat = 0.0
    """How far outside of the borders the walls stand [m]."""

    bands: tuple[Band, ...] = ()
    """Stripes along the road, each [from, to, colour]: shares of the width, 0 the left border, 0.5
    the centre line, 1 the right border. Between them `road` is seen."""

    kerb: Colour = (168, 164, 156)
    """The kerbs outside of the borders."""

    kerb_width: NonNegativeFloat = 0.0
    """Width of the kerbs [m]; 0: there are none."""

    wear: Share = 0.0
    """How much of the paint of border lines and dashes is gone, in spots; 1: nearly all of it."""

    light: Share = 0.0
    """How bright reflections on the floor are; 1: white in their middle."""

    shade: Share = 0.0
    """How dark shadows on the floor are; 1: black in their middle."""

    patch_size: PositiveFloat = 0.5
    """Size of reflections and shadows [m]."""

    pattern: int = Field(0, ge=0)
    """Where worn spots, reflections and shadows lie: each number is another pattern."""

    @model_validator(mode="after")
    def _in_order(self) -> Look:
        at = 0.0
        for start, stop, _ in self.bands:
            if start < at or stop <= start:
                raise ValueError(
                    f"bands: from the left border to the right one, each [from, to, colour] with "
                    f"from < to and none over another (got {start:g} to {stop:g} after {at:g})"
                )
            at = stop
        return self

    @property
    def plain(self) -> bool:
        """Whether road, lines, dashes and ground are all that there is on the floor."""
        return not (self.bands or self.kerb_width or self.wear or self.light or self.shade)


class RobotiniLook(Look):
    """The Robotini simulator's floor, red, blue and green from left to right between black walls.

    Source: its track texture, 256 pixels across a floor of 0.9 m. Ground and sky are ours.
    """

    kind: Literal["robotini"] = "robotini"  # type: ignore[assignment]
    """Which look; each of its colours and sizes can be changed."""
    road: Colour = (0, 0, 0)
    """The floor between the bands."""
    bands: tuple[Band, ...] = (
        (15 / 256, 80 / 256, (221, 69, 103)),
        (86 / 256, 170 / 256, (48, 97, 159)),
        (177 / 256, 241 / 256, (26, 174, 142)),
    )
    """Stripes along the road, each [from, to, colour]: red, blue, green."""
    ground: Colour = (96, 96, 100)
    """Everything off the road."""
    border_width: NonNegativeFloat = 0.0
    """Width of the border lines [m]; it has none."""
    dash_width: NonNegativeFloat = 0.0
    """Width of the dashes [m]; it has none."""
    wall: Colour = (12, 12, 14)
    """The walls at the edges of the floor."""
    wall_height: NonNegativeFloat = 0.15
    """Height of the walls [m]."""


class AirsimLook(Look):
    """A street as in AirSim's neighbourhood: worn lines, kerbs, grass, the shadows of trees.

    For roads of full size: lanes of 3 to 4 m. Colours and widths are ours, widths those of streets.
    """

    kind: Literal["airsim"] = "airsim"  # type: ignore[assignment]
    """Which look; each of its colours and sizes can be changed."""
    road: Colour = (96, 96, 98)
    """The asphalt between the border lines."""
    ground: Colour = (92, 112, 58)
    """The grass off the road."""
    border: Colour = (214, 214, 208)
    """The solid line along the inside of each border."""
    border_width: NonNegativeFloat = 0.12
    """Width of the border lines [m]."""
    dash: Colour = (214, 180, 62)
    """The dashes on the centre line."""
    dash_width: NonNegativeFloat = 0.12
    """Width of the dashes [m]."""
    dash_length: PositiveFloat = 3.0
    """Length of a dash [m]."""
    dash_gap: NonNegativeFloat = 4.5
    """Gap between two dashes [m]."""
    sky_top: Colour = (104, 152, 214)
    """The sky straight ahead at 45 degrees and above."""
    sky_horizon: Colour = (206, 220, 234)
    """The sky where it meets the ground."""
    kerb_width: NonNegativeFloat = 0.3
    """Width of the kerbs [m]."""
    wear: Share = 0.3
    """How much of the paint is gone, in spots."""
    shade: Share = 0.4
    """How dark the shadows on the street are."""
    patch_size: PositiveFloat = 5.0
    """Size of the shadows [m]."""


LookSettings: TypeAlias = Annotated[Look | RobotiniLook | AirsimLook, Field(discriminator="kind")]
