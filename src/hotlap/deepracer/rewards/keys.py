"""The names that DeepRacer gives to what a reward function is told."""

from __future__ import annotations

__all__ = ["KEYS", "POSITIONAL"]

KEYS = (
    "all_wheels_on_track",
    "closest_objects",
    "closest_waypoints",
    "distance_from_center",
    "heading",
    "is_crashed",
    "is_left_of_center",
    "is_offtrack",
    "is_reversed",
    "object_in_camera",
    "objects_distance",
    "objects_distance_from_center",
    "objects_heading",
    "objects_left_of_center",
    "objects_location",
    "objects_speed",
    "progress",
    "projection_distance",
    "sim_time",
    "speed",
    "steering_angle",
    "steps",
    "track_length",
    "track_width",
    "waypoints",
    "x",
    "y",
)
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
