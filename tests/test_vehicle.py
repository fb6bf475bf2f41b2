"""The parameter sets, and cars that a user describes in a file."""

import math
import sys

import numpy as np
import pytest

from hotlap.config import read_toml
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.starts import StartSettings
from hotlap.train import train
from hotlap.vehicle import PARAMETERS, VEHICLES, load_vehicle

TINY = {"observation.actor": ["state"], "train.steps": 64, "train.cars": 2}


@pytest.fixture
def write(tmp_path):
    def write(text, name="mycar.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_the_sets_of_the_design_are_there_each_with_its_source():
    assert list(VEHICLES) == [
        "deepracer", "deepracer-v4", "f1tenth", "robotini", "donkey", "sedan",
    ]  # fmt: skip
    for name, car in VEHICLES.items():
        assert car.name == name
        assert len(car.source) > 60
        assert car.parameters().shape == (PARAMETERS,)
        assert np.isfinite(car.parameters()).all()


@pytest.mark.parametrize("car", VEHICLES.values(), ids=VEHICLES)
def test_the_tyres_decide_before_the_tightest_turn_would_slide(car):
    # Where the blend ends, the tightest turn must ask for more than the tyres have, or else for
    # no more than 1.6 times as much: else the kinematic model would drive what no tyre can.
    asked = car.blend_high**2 / car.radius_min

    assert asked < 1.6 * car.friction * 9.81


@pytest.mark.parametrize("car", VEHICLES.values(), ids=VEHICLES)
def test_the_wheels_are_inside_of_the_body(car):
    assert car.wheel_front <= car.body_length / 2 + 0.01
    assert -car.wheel_rear <= car.body_length / 2
    assert car.wheel_side <= car.body_width / 2


def test_the_tightest_turn_by_hand():
    # 0.24 m / tan 30 deg = 0.4157 m; f1tenth: 0.307 / tan 24 deg = 0.307 / 0.4452 = 0.6896 m
    assert VEHICLES["deepracer"].radius_min == pytest.approx(0.4157, abs=1e-4)
    assert VEHICLES["f1tenth"].radius_min == pytest.approx(0.6896, abs=1e-3)


def test_figures_that_the_sources_publish():
    # ForzaETH: m 3.54 kg, Iz 0.05797; CommonRoad: m 1093.3, Iz 1791.6, tyre -21.92 / 1.3507.
    assert 3.54 * VEHICLES["f1tenth"].gyration ** 2 == pytest.approx(0.05797, rel=0.01)
    assert 1093.3 * VEHICLES["sedan"].gyration ** 2 == pytest.approx(1791.6, rel=0.01)
    shape = 2 - 2 / math.pi * math.asin(1 - VEHICLES["sedan"].slide_loss)
    assert shape == pytest.approx(1.3507, abs=2e-3)
    stiff = math.tan(math.pi / 2 / shape) / math.tan(VEHICLES["sedan"].front_peak_slip)
    assert shape * stiff * 1.0489 == pytest.approx(21.92, rel=0.02)


# --- a user's own car ---


def test_a_file_changes_what_it_names_and_keeps_the_rest_of_its_base(write):
    car = load_vehicle(write('base = "deepracer"\nfriction = 0.55\nsteering_lag = 0.1\n'))

    changed = {"name": "mycar", "friction": 0.55, "steering_lag": 0.1, "source": car.source}
    assert car == VEHICLES["deepracer"].model_copy(update=changed)
    assert "mycar.toml" in car.source


def test_a_complete_file_needs_no_base(write):
    whole = VEHICLES["donkey"].model_dump(exclude={"name", "source"})

    car = load_vehicle(write("".join(f"{key} = {value}\n" for key, value in whole.items())))

    assert car.model_dump(exclude={"name", "source"}) == whole


def test_a_car_from_a_file_drives_as_its_file_says(write):
    file = write('base = "deepracer"\nspeed_gain = 0.5\n')
    speed = []
    for vehicle in (file, "deepracer"):
        env = VectorEnv(
            EnvSettings(track="oval", vehicle=vehicle, start=StartSettings(kind="line")), 1, seed=3
        )
        env.reset()
        for _ in range(15):
            env.step(np.array([[0.0, 1.0]], np.float32))
        speed.append(float(env.simulator.state.vx[0]))

    assert speed[0] < 0.7 * speed[1]


def test_a_run_remembers_the_whole_path_of_its_car(write, tmp_path, monkeypatch):
    file = write('base = "deepracer"\nfriction = 0.55\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["hotlap.train"], "write_outcome", lambda run: {})

    run = train(None, {"vehicle": "mycar.toml", **TINY}, out=tmp_path / "run")

    assert read_toml(run.path / "config.toml")["vehicle"] == file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'base = "deepracer"\nfricton = 1.0\n',
            r"fricton: unknown setting \(did you mean friction",
        ),
        ('base = "deepracer"\nfriction = -1.0\n', r"friction: .*greater than 0"),
        ('base = "deepraser"\n', r"base: choose from deepracer"),
        ("base = 3\n", r"base: choose from deepracer.*got 3"),
        ('base = "deepracer"\nblend_low = 2.5\n', r"blend_high must be above blend_low"),
        ("friction = 1.0\n", r'front_axle: is missing(.|\n)*base = "deepracer"'),
        ("friction = \n", r"not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence_that_names_it(write, text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_vehicle(write(text))

    assert all("mycar.toml" in line for line in str(caught.value).splitlines())


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere.toml: no such file"):
        load_vehicle("nowhere.toml")


def test_an_unknown_set_is_named_with_the_nearest_and_the_known_ones():
    with pytest.raises(ConfigError, match=r"'deepraser' \(did you mean deepracer\?\); choose from"):
        load_vehicle("deepraser")
