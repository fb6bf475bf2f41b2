"""A car's parameters are found again in a log of its driving."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hotlap.cli import app
from hotlap.errors import ConfigError
from hotlap.identify import FITTED, Log, identify, read_log
from hotlap.proving import place
from hotlap.simulator import Command
from hotlap.vehicle import VEHICLES, load_vehicle

DT = 1 / 15
BASE = VEHICLES["deepracer"]
TRUE = {
    "steering_lag": 0.12,
    "speed_gain": 0.95,
    "motor_gain": 10.0,
    "drive_max": 4.0,
    "friction": 0.55,
    "front_axle": 0.10,
    "rear_axle": 0.10,
}
WANTED = {**{name: TRUE[name] for name in FITTED if name in TRUE}, "wheelbase": 0.20}


def drive(car, *, seconds=30, noise=0.005, steering=0.5, speed=(0.8, 3.5), seed=1, point=0.0):
    """Log of a drive with new random commands several times a second, and noise on x, y, yaw."""
    random = np.random.default_rng(seed)
    count = round(seconds / DT)
    turn = np.repeat(random.uniform(-steering, steering, count // 6 + 1), 6)[:count]
    wanted = np.repeat(random.uniform(*speed, count // 9 + 1), 9)[:count]
    simulator = place(car, 1, dt=DT)
    pose = np.empty((count, 3))
    for k, row in enumerate(np.stack([turn, wanted], 1).astype(np.float32)):
        state = simulator.state
        pose[k] = state.x[0], state.y[0], state.yaw[0]
        simulator.step(Command(steering=row[:1], speed=row[1:]))
    pose[:, 2] = np.unwrap(pose[:, 2])
    pose[:, 0] += point * np.cos(pose[:, 2])
    pose[:, 1] += point * np.sin(pose[:, 2])
    pose += random.normal(size=pose.shape) * noise
    return Log(np.arange(count) * DT, pose, None, np.stack([turn, wanted], 1), point)


@pytest.fixture(scope="module")
def log():
    return drive(BASE.model_copy(update=TRUE))


@pytest.fixture(scope="module")
def found(log):
    return identify([log], BASE)


def write(path, names, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def ours(path, log):
    rows = np.column_stack([log.t, log.pose, log.command])
    names = ("t", "x", "y", "yaw", "steering_command", "speed_command")
    return write(path, names, rows.tolist())


@pytest.mark.parametrize(("seed", "noise", "steering"), [(1, 0.02, 0.5), (2, 0.005, 0.02)])
def test_noise_alone_moves_no_friction(seed, noise, steering):
    # At 1 m/s no tyre slides, so only noise could say anything of friction. Without the prior it
    # came out 2.3 times too large, and 8 times too small.
    car = BASE.model_copy(update={"steering_lag": 0.12})
    calm = drive(car, seconds=5, noise=noise, steering=steering, speed=(1.0, 1.0), seed=seed)

    finding = identify([calm], BASE).findings["friction"]

    assert finding.uncertainty > 0.3
    assert finding.value == pytest.approx(finding.base, rel=0.25)


@pytest.mark.parametrize("name", FITTED)
def test_what_was_simulated_is_found_again(found, name):
    # Measured over three seeds: within 0.8 %, which the stated uncertainties explain.
    finding = found.findings[name]

    assert finding.seen
    assert finding.value == pytest.approx(WANTED[name], rel=0.03)
    assert abs(math.log(finding.value / WANTED[name])) < 5 * finding.uncertainty
    assert finding.uncertainty < 0.03


def test_what_is_left_is_the_noise(found):
    # 5 mm in x and y: 7.1 mm; 5 mrad.
    assert found.position_error == pytest.approx(0.0071, rel=0.15)
    assert found.yaw_error == pytest.approx(0.005, rel=0.15)


def test_what_the_log_does_not_show_stays_as_it_was():
    straight = drive(BASE.model_copy(update=TRUE), steering=0.0, seconds=20)

    found = identify([straight], BASE)

    for name in ("friction", "wheelbase", "steering_lag"):
        assert not found.findings[name].seen
    assert found.findings["speed_gain"].value == pytest.approx(0.95, rel=0.02)
    assert found.vehicle.friction == BASE.friction
    assert found.vehicle.speed_gain == pytest.approx(found.findings["speed_gain"].value)


def test_the_car_that_is_written_is_the_car_that_was_found(found, tmp_path):
    file = tmp_path / "found.toml"
    file.write_text(found.to_toml())

    car = load_vehicle(str(file))

    for name in (*FITTED[:5], "front_axle", "rear_axle"):
        assert getattr(car, name) == pytest.approx(getattr(found.vehicle, name), rel=1e-4)
    assert car.cg_height == BASE.cg_height


def test_a_simtrace_in_degrees_is_the_same_log(log, tmp_path):
    degrees = np.degrees(log.pose[:, 2] + math.pi) % 360 - 180
    rows = [
        [0, k + 2, *log.pose[k, :2], degrees[k], math.degrees(log.command[k, 0]),
         log.command[k, 1], log.t[k], "in_progress"]
        for k in range(len(log.t))
    ]  # fmt: skip
    rows.insert(0, [0, 1, 9.0, 9.0, 0.0, 0.0, 1.0, -DT, "prepare"])
    names = ["episode", "steps", "X", "Y", "yaw", "steer", "throttle", "tstamp", "episode_status"]

    (read,) = read_log(write(tmp_path / "0-iteration.csv", names, rows))

    np.testing.assert_allclose(read.t, log.t, atol=1e-9)
    np.testing.assert_allclose(read.pose[:, :2], log.pose[:, :2], atol=1e-9)
    np.testing.assert_allclose(np.diff(read.pose[:, 2]), np.diff(log.pose[:, 2]), atol=1e-9)
    np.testing.assert_allclose(read.command, log.command, atol=1e-9)
    assert read.point == 0.14


def test_a_point_ahead_of_the_car_is_taken_into_account():
    ahead = drive(BASE.model_copy(update=TRUE), seconds=15, point=0.14)

    found = identify([ahead], BASE)

    assert found.findings["wheelbase"].value == pytest.approx(0.20, rel=0.03)
    assert found.position_error < 0.009


def test_rows_that_come_early_or_late_do_no_harm():
    car, fine = BASE.model_copy(update=TRUE), 1 / 240
    random = np.random.default_rng(4)
    gaps = np.maximum(1, np.round((DT + 0.012 * random.normal(size=450)) / fine)).astype(int)
    steering = np.repeat(random.uniform(-0.5, 0.5, 75), 6)
    speed = np.repeat(random.uniform(0.8, 3.5, 50), 9)
    simulator = place(car, 1, dt=fine)
    rows = []
    for k, row in enumerate(np.stack([steering, speed], 1).astype(np.float32)):
        state = simulator.state
        rows.append([state.x[0], state.y[0], state.yaw[0]])
        for _ in range(gaps[k]):
            simulator.step(Command(steering=row[:1], speed=row[1:]))
    pose = np.array(rows, np.float64)
    pose[:, 2] = np.unwrap(pose[:, 2])
    time = np.concatenate([[0], np.cumsum(gaps)[:-1]]) * fine

    found = identify([Log(time, pose, None, np.stack([steering, speed], 1))], BASE)

    for name in ("steering_lag", "friction", "wheelbase", "speed_gain", "drive_max"):
        assert found.findings[name].value == pytest.approx(WANTED[name], rel=0.02), name


def test_a_new_episode_and_a_gap_in_time_begin_a_new_drive(log, tmp_path):
    count = 90
    rows = np.column_stack([log.t, log.pose, log.command, np.zeros(len(log.t))])[:count]
    rows[30:, 6] = 1
    rows[60:, 0] += 5
    names = ("t", "x", "y", "yaw", "steering_command", "speed_command", "episode")

    logs = read_log(write(tmp_path / "log.csv", names, rows.tolist()))

    assert [len(part.t) for part in logs] == [30, 30, 30]


def test_on_the_command_line_a_log_becomes_a_car(log, tmp_path):
    file, car = ours(tmp_path / "log.csv", log), tmp_path / "mine.toml"

    result = CliRunner().invoke(
        app, ["vehicle", "identify", str(file), "--out", str(car), "--json"]
    )

    assert result.exception is None, result.exception
    facts = json.loads(result.stdout)
    assert facts["parameters"]["friction"]["value"] == pytest.approx(0.55, rel=0.03)
    assert load_vehicle(str(car)).friction == pytest.approx(0.55, rel=0.03)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", r"no column t, x, y, yaw, steering_command"),
        ("t,x,y,yaw,steering_command,speed_command\n0,0,0,0,0,fast\n", r"row 1: speed_command"),
        ("t,x,y,yaw,steering_command,speed_command\n0,0,0,0,0,1\n", r"no drive of 1 s"),
        (
            "t,x,y,yaw,steering_command,speed_command\n0,0,0,0,0,1\n0,0,0,0,0,1\n",
            r"row 2: time does not rise",
        ),
        ("", r"no column t"),
    ],
)
def test_a_wrong_log_is_refused_in_a_sentence(tmp_path, text, said):
    file = tmp_path / "log.csv"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said):
        read_log(file)


def test_a_missing_log_is_named():
    with pytest.raises(ConfigError, match=r"nowhere.csv: no such file"):
        read_log(Path("nowhere.csv"))
