"""Drive near the centre line, look where the road goes, and hurry.

Distances are in metres, angles in degrees (positive to the left), speed in metres per second.
"""

import math

LOOK_AHEAD = 4
"""How many waypoints ahead the car should point."""


def reward_function(params):
    if params["is_offtrack"]:
        return 1e-3

    # 1 on the centre line, falling smoothly to about 0.1 at the border
    half_width = params["track_width"] / 2
    near_centre = math.exp(-2.3 * (params["distance_from_center"] / half_width) ** 2)

    # 1 when the car points at the waypoint ahead, 0 when it points 60 degrees away or more
    error = angle_between(heading_to_waypoint(params, LOOK_AHEAD), params["heading"])
    well_aimed = max(0.0, 1 - error / 60)

    # fast is good, but only for a car that is well placed and well aimed
    return float(near_centre * well_aimed * (0.5 + params["speed"]))


def heading_to_waypoint(params, ahead):
    """Return the direction from the car to a waypoint further on."""
    waypoints = params["waypoints"][:-1]  # the last one repeats the first
    x, y = waypoints[(params["closest_waypoints"][1] + ahead) % len(waypoints)]
    return math.degrees(math.atan2(y - params["y"], x - params["x"]))


def angle_between(one, other):
    """Return the angle between two headings, from 0 to 180."""
    turn = abs(one - other) % 360
    return min(turn, 360 - turn)
