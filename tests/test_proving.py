"""What cars can do, beside sums by hand."""

import json
import math
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from hotlap.cli import app
from hotlap.proving import advice, limits
from hotlap.vehicle import VEHICLES

CAR = VEHICLES["deepracer"]


@pytest.fixture(scope="module")
def found():
    return limits(CAR, [0.9, 2.0, 3.0, 4.0, 9.0])


def test_the_top_speed_by_hand(found):
    # 1.028 * 4 = 4.112 m/s, less what holds it back: (0.1 + 0.005 * 16.9) / 17 = 0.011 m/s.
    assert found.speed_top == pytest.approx(4.101, abs=2e-3)


@pytest.mark.parametrize("car", VEHICLES.values(), ids=VEHICLES)
def test_no_car_turns_harder_than_its_tyres_hold(car):
    # Peak friction times gravity; what the steered front wheels pull adds a little.
    measured = limits(car)

    assert 0.9 < measured.lateral / (car.friction * 9.81) < 1.03


def test_the_tightest_turn_at_walking_pace_is_the_kinematic_one(found):
    # Rear axle on 0.24 / tan 30 deg = 0.4157 m, centre of gravity 0.12 m beside: hypot = 0.4327 m.
    assert found.radius[0] == pytest.approx(0.4327, rel=0.01)


def test_fast_turns_are_as_tight_as_friction_allows(found):
    # v^2 / (0.7 * 9.81): 3 m/s: 1.31 m, 4 m/s: 2.33 m. Slip and pulling cost up to 12 %.
    assert 1.31 < found.radius[2] < 1.12 * 1.31
    assert 2.33 < found.radius[3] < 1.15 * 2.33


def test_the_stopping_distance_by_hand(found):
    # From 3 m/s with 5 + 0.1 m/s^2 to about 0.5 m/s: (9 - 0.25) / 10.2 = 0.86 m; the rest decays.
    assert found.stopping[2] == pytest.approx(0.88, rel=0.06)
    assert found.slow == pytest.approx(0.2028, abs=1e-4)  # 1.028 * 0.1 + 0.1


def test_the_time_from_rest_by_hand(found):
    # 3 m/s at 5 m/s^2: 0.60 s; resistance of 0.1 m/s^2 and the smooth limit add a few per cent.
    assert 0.60 < found.reached[2] < 0.64


def test_what_a_car_cannot_reach_is_not_a_number(found):
    assert np.isnan([found.radius[4], found.stopping[4], found.reached[4]]).all()


def test_a_car_that_turns_harder_than_its_friction_is_told_what_to_change():
    # Half the friction: in the blend, up to 1.8 m/s, it would still turn with more than 0.35 g.
    slippery = CAR.model_copy(update={"friction": 0.35})
    (sentence,) = advice(slippery, limits(slippery))
    high, low = (float(word) for word in re.findall(r"blend_\w+ = ([\d.]+)", sentence))

    mended = slippery.model_copy(update={"blend_high": high, "blend_low": low})

    assert advice(mended, limits(mended)) == []
    assert all(advice(car, limits(car)) == [] for car in VEHICLES.values())


def test_less_grip_turns_wider_and_less_force_brakes_longer(found):
    worse = CAR.model_copy(update={"friction": 0.5, "drive_max": 3.0})

    there = limits(worse, [3.0])

    assert there.radius[0] == pytest.approx(found.radius[2] * 0.7 / 0.5, rel=0.05)
    assert there.stopping[0] == pytest.approx(found.stopping[2] * 5.1 / 3.1, rel=0.05)


# --- on the command line ---


def call(*words):
    result = CliRunner().invoke(app, ["vehicle", *words])
    assert result.exception is None, result.exception
    return result.stdout


def test_the_list_names_every_set():
    assert [row["name"] for row in json.loads(call("list", "--json"))] == list(VEHICLES)
    assert all(name in call("list") for name in VEHICLES)


def test_show_tells_the_limits_as_json_and_as_a_table(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "deepracer"\nspeed_max = 2.0\n')

    facts = json.loads(call("show", str(file), "--json", "--out", str(tmp_path / "mine.png")))

    assert facts["top_speed"] == pytest.approx(2.049, abs=2e-3)  # 2.056 - 0.12 / 17
    assert facts["parameters"]["speed_max"] == 2.0
    assert [row["speed"] for row in facts["at"]] == [
        0.2,
        0.4,
        0.6,
        0.8,
        1.0,
        1.2,
        1.4,
        1.6,
        1.8,
        2.0,
    ]
    assert math.isclose(facts["at"][4]["stopping_m"], (1 - 0.04) / 10.2 + 0.01, rel_tol=0.2)
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    assert "top speed 2.049 m/s" in call("show", str(file))
