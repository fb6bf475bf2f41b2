"""What `params` says of objects, against shapely, which DeepRacer uses, and by hand."""

import bisect
import math

import numpy as np
import pytest
from shapely import LinearRing, Point, Polygon

from hotlap.config import resolve
from hotlap.deepracer.params import KEYS, Params
from hotlap.deepracer.rewards.file import RewardFile
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import RewardError
from hotlap.simulator import BOX_FIELDS, ROW_FIELDS, Command, State, Surroundings
from hotlap.track import load_track


def told(track, x, y, yaw, boxes, *, speed=0.0, contact=-1):
    """The params of one car with boxes around it, each by BOX_FIELDS."""
    values = {name: np.zeros(1, np.float32) for name in ROW_FIELDS}
    values |= {"x": np.float32([x]), "y": np.float32([y]), "yaw": np.float32([yaw])}
    values["track"] = np.zeros(1, np.int32)
    count = len(boxes)
    around = Surroundings(
        boxes=np.array([boxes], np.float32).reshape(1, count, len(BOX_FIELDS)),
        s=np.zeros((1, count), np.float32),
        n=np.zeros((1, count), np.float32),
        speed=np.full((1, count), speed, np.float32),
        contact=np.array([contact], np.int32),
    )
    state = State(**values, around=around)
    params = Params([track])
    params.begin(np.arange(1), state)
    command = Command(np.zeros(1, np.float32), np.ones(1, np.float32))
    return params.row(params.compute(state, command, np.array([2])), 0)


def box(x, y, *, yaw=0.0, half=(0.15, 0.2), height=0.25, kind=0):
    return [x, y, math.cos(yaw), math.sin(yaw), *half, height, kind]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["oval", "reinvent_like", "hard"])
def test_every_key_is_what_shapely_says(name, reverse):
    track = load_track(name)
    track = track.reversed() if reverse else track
    centre, inner = LinearRing(track.centre), Polygon(track.centre, [track.inner])
    random = np.random.default_rng(2)
    for _ in range(20):
        points = random.integers(0, len(track.centre), 5)
        side = random.uniform(0.2, 0.8, (5, 1)) * random.choice([-1, 1], (5, 1))
        border = np.where(side > 0, track.inner[points], track.outer[points])
        middle = track.centre[points]
        spots = (middle + np.abs(side) * (border - middle)).astype(np.float32).astype(float)
        i = int(random.integers(0, len(track.centre)))
        x, y = track.centre[i]
        nose = Point(float(np.float32(x)) + 0.14, float(np.float32(y)))

        got = told(track, x, y, 0.0, [box(*spot) for spot in spots])

        places = [centre.project(Point(spot)) for spot in spots]
        order = np.argsort(places)
        after = bisect.bisect_right([places[k] for k in order], centre.project(nose))
        assert got["closest_objects"] == [order[after - 1], order[after % 5]]
        assert got["objects_distance"] == pytest.approx(places, abs=1e-5)
        assert got["objects_location"] == spots.tolist()
        away = [centre.distance(Point(spot)) for spot in spots]
        assert got["objects_distance_from_center"] == pytest.approx(away, abs=1e-5)
        leftward = centre.is_ccw
        left = [inner.contains(Point(spot)) ^ (not leftward) for spot in spots]
        assert got["objects_left_of_center"] == left


def test_a_box_ahead_by_hand():
    """Its near edge is 0.65 m ahead of the lens, which looks down by 15 degrees from 0.13 m."""
    track = load_track("oval")
    x, y = track.centre[0]
    heading = math.atan2(*(track.centre[1] - track.centre[0])[::-1])
    c, s = math.cos(heading), math.sin(heading)

    def at(ahead, aside=0.0, **more):
        there = x + c * ahead - s * aside, y + s * ahead + c * aside
        return told(track, x, y, heading, [box(*there, yaw=heading)], **more)

    seen = at(0.145 + 0.65 + 0.15)
    assert set(seen) == set(KEYS)
    assert seen["object_in_camera"]
    assert seen["objects_heading"] == [0.0]  # of boxes always, whatever way they stand
    assert seen["objects_speed"] == [0.0]
    assert not seen["is_crashed"]
    assert at(0.5, contact=0)["is_crashed"]
    # 32.4 degrees to each side: at 0.65 m 0.41 m of the floor, and the box is half 0.4 m wide
    assert not at(-0.8)["object_in_camera"]
    assert at(0.945, 0.7)["object_in_camera"]
    assert not at(0.945, 0.95)["object_in_camera"]


def test_cars_have_their_heading_in_radians_and_what_does_not_exist_is_left_out():
    track = load_track("oval")
    x, y = track.centre[0]
    car = box(x + 1, y, yaw=2.0, kind=1)
    nothing = box(x + 2, y, height=0.0)

    got = told(track, x, y, 0.0, [nothing, box(x, y + 1), car], speed=0.2)

    assert got["objects_heading"] == pytest.approx([0.0, 2.0], abs=1e-6)
    assert got["objects_speed"] == [0.2, 0.2]
    assert len(got["objects_location"]) == 2
    empty = told(track, x, y, 0.0, [nothing])
    assert empty["objects_location"] == []
    assert empty["closest_objects"] == [0, 0]


REWARD = '''
import math

def reward_function(params):
    """Stay on the other lane when an object is near."""
    _, ahead = params["closest_objects"]
    gap = params["objects_distance"][ahead] - params["projection_distance"]
    if gap < 0:
        gap += params["track_length"]
    same = params["objects_left_of_center"][ahead] == params["is_left_of_center"]
    if params["is_crashed"] or (same and gap < 0.5):
        return 1e-3
    return 1.0 + math.exp(-params["distance_from_center"])
'''


def test_a_reward_that_reads_objects_is_checked_with_them_and_paid_for_them(tmp_path):
    file = tmp_path / "reward_function.py"
    file.write_text(REWARD)
    with pytest.raises(RewardError, match="IndexError"):  # where there is none it is a mistake
        RewardFile(file).check(load_track("oval"))

    assert RewardFile(file).check(load_track("oval"), obstacles=2, cars=1) == []

    settings = {"track": "oval", "reward": str(file), "traffic.obstacles": 6, "traffic.gap": 0.5}
    env = VectorEnv(resolve(EnvSettings, settings), 16)
    env.begin()
    paid = [env.advance(np.full((16, 2), [0.0, -0.9], np.float32)).reward for _ in range(60)]
    assert {round(float(value), 3) for value in np.ravel(paid)} >= {0.001}
    assert np.max(paid) > 1
