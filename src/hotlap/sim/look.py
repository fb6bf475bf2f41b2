"""Look: the colours and markings of a course, as the camera sees it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from hotlap.config import Settings

__all__ = ["Colour", "Look"]

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]
"""Red, green, blue, each 0..255."""


class Look(Settings):
    """How road, markings, ground and sky are painted. Every row of a batch may have its own."""

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
