"""The names that DeepRacer gives to what a reward function is told."""

from __future__ import annotations

__all__ = ["BOOLS", "FLOATS", "KEYS", "LISTS", "PAIRS", "POSITIONAL"]

FLOATS = [
    "distance_from_center",
    "heading",
    "progress",
    "projection_distance",
    "sim_time",
    "speed",
    "steering_angle",
    "steps",
    "track_length",
    "track_width",
    "x",
    "y",
]
"""Keys that hold one number."""
BOOLS = [
    "all_wheels_on_track",
    "is_crashed",
    "is_left_of_center",
    "is_offtrack",
    "is_reversed",
    "object_in_camera",
]
"""Keys that hold True or False."""
PAIRS = ("closest_waypoints", "closest_objects")
"""Keys that hold two indices."""
LISTS = {
    "objects_distance": "f",
    "objects_distance_from_center": "f",
    "objects_heading": "f",
    "objects_left_of_center": "b",
    "objects_location": ("k", "f", "f"),
    "objects_speed": "f",
}
"""Keys that hold a list, and the kind of what is in it; see `kinds`."""
KEYS = tuple(sorted([*FLOATS, *BOOLS, *PAIRS, *LISTS, "waypoints"]))
"""Every key that a reward function may read."""

POSITIONAL = (
    "on_track",
    "x",
    "y",
    "distance_from_center",
    "car_orientation",
    "progress",
    "steps",
    "throttle",
    "steering",
    "track_width",
    "waypoints",
    "closest_waypoints",
)
"""The arguments of the older form, in its order."""
