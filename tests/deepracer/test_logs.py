"""DeepRacer's logs to the letter: expected lines are from logs that deepracer-utils ships."""

import json
import re

import numpy as np
import pytest

from hotlap.deepracer import logs
from hotlap.deepracer.logs import FIELDS, PAUSED, PREPARE
from hotlap.tasks.rules import Status


def episode(*rows):
    """Build an episode; each row says what differs from an ordinary one."""
    plain = {
        "X": 0.2078,
        "Y": -2.173,
        "yaw": 179.9865,
        "steer": 15.0,
        "throttle": 1.5,
        "action": 8,
        "reward": 0.0,
        "all_wheels_on_track": 1,
        "progress": 0.2333,
        "closest_waypoint": 0,
        "track_len": 60.0,
        "pause_duration": 0,
        "obstacle_crash_counter": 0,
        "episode_status": Status.IN_PROGRESS,
    }
    return np.array([[(plain | row)[name] for name in FIELDS] for row in rows], np.float64)


# The first two lines of a DRFC log of version 6 (deepracer-utils, tests, sample logs).
REAL = (
    "SIM_TRACE_LOG:0,1,0.2078,-2.1730,179.9865,15.00,1.50,8,0.0000,False,True,0.2333,0,60.00,"
    "36.721000000000004,prepare,0.00,0,1772822267.7927\n"
    "SIM_TRACE_LOG:0,2,0.2078,-2.1730,179.9865,20.00,1.25,9,0.2333,False,True,0.2333,0,60.00,"
    "36.75,in_progress,0.00,0,1772822267.8575\n"
)


def lap():
    """Return those two rows and a third one that ends the lap."""
    return episode(
        {"steps": 1, "tstamp": 36.721000000000004, "episode_status": PREPARE,
         "wall_clock": 1772822267.7927},
        {"steps": 2, "steer": 20, "throttle": 1.25, "action": 9, "reward": 0.2333, "tstamp": 36.75,
         "wall_clock": 1772822267.8575},
        {"steps": 3, "reward": 2.5, "progress": 100, "tstamp": 36.82, "wall_clock": 1772822267.9,
         "episode_status": Status.LAP_COMPLETE},
    )  # fmt: skip


def test_lines_are_those_of_a_real_log():
    lines = logs.trace_lines(lap(), 0)

    # They print the time as it is; ours is to the microsecond.
    assert lines.startswith(REAL.replace("36.721000000000004", "36.721"))


def test_a_row_of_continuous_actions_says_angle_and_speed():
    # of a real simtrace file: "[4.987387227077111 2.0]", no comma inside
    rows = episode({"steps": 2, "action": -1, "steer": 4.987387, "throttle": 2, "tstamp": 36.231,
                    "wall_clock": 0})  # fmt: skip

    line = logs.csv_rows(rows, 7)

    fields = line.rstrip("\n").split(",")
    assert len(fields) == 19
    assert fields[0] == "7"
    assert fields[5:8] == ["4.987387", "2.0", "[4.987387 2.0]"]


def test_header_and_rows_have_the_nineteen_columns():
    assert logs.HEADER == (
        "episode,steps,X,Y,yaw,steer,throttle,action,reward,done,all_wheels_on_track,progress,"
        "closest_waypoint,track_len,tstamp,episode_status,pause_duration,obstacle_crash_counter,"
        "wall_clock\n"
    )
    for line in logs.csv_rows(lap(), 3).splitlines():
        assert line.count(",") == 18


def test_only_the_last_row_is_done():
    rows = [line.split(",") for line in logs.csv_rows(lap(), 0).splitlines()]

    assert [row[9] for row in rows] == ["False", "False", "True"]
    assert [row[15] for row in rows] == ["prepare", "in_progress", "lap_complete"]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (Status.LAP_COMPLETE, "Lap complete"),
        (Status.CRASHED, "Crashed"),
        (Status.OFF_TRACK, "Off track"),
        (Status.IN_PROGRESS, "In progress"),
        (Status.IMMOBILIZED, "Immobilized"),
        (Status.TIME_UP, "Time Up"),
        (Status.REVERSED, "Reversed"),
        (PAUSED, "Pause"),
        (PREPARE, "Prepare"),
    ],
)
def test_labels_are_those_of_the_metrics(status, word):
    assert logs.label(status) == word


def test_every_status_has_a_word():
    assert all(logs.label(status) for status in Status)


def test_a_training_entry_by_hand():
    # 36.721 s to 36.82 s are 99 ms; 0.2333 + 2.5 rounds to 3
    assert logs.training_entry(lap(), 21, 1) == {
        "reward_score": 3,
        "metric_time": 36820,
        "start_time": 36721,
        "elapsed_time_in_milliseconds": 99,
        "episode": 21,
        "trial": 1,
        "phase": "training",
        "completion_percentage": 100,
        "episode_status": "Lap complete",
    }


def test_an_evaluation_entry_counts_what_cost_a_penalty():
    rows = episode(
        {"steps": 1, "tstamp": 0, "wall_clock": 0, "episode_status": PREPARE},
        {"steps": 2, "tstamp": 1, "wall_clock": 0, "episode_status": Status.OFF_TRACK},
        {"steps": 3, "tstamp": 6, "wall_clock": 0, "episode_status": PAUSED},
        {"steps": 4, "tstamp": 7, "wall_clock": 0, "episode_status": Status.CRASHED},
        {"steps": 5, "tstamp": 9.5, "wall_clock": 0, "episode_status": Status.LAP_COMPLETE,
         "progress": 100},
    )  # fmt: skip

    entry = logs.evaluation_entry(rows, 2)

    assert entry["elapsed_time_in_milliseconds"] == 9500
    assert (entry["off_track_count"], entry["crash_count"]) == (1, 1)
    assert (entry["immobilized_count"], entry["reversed_count"]) == (0, 0)
    assert entry["reset_count"] == 2
    assert entry["trial"] == 2
    assert entry["completion_percentage"] == 100


def test_metrics_are_json_of_version_two_with_their_metric():
    text = logs.metrics_document(['{"a": 1}', '{"a": 2}'], "progress")

    found = json.loads(text)

    assert found == {"metrics": [{"a": 1}, {"a": 2}], "version": 2.0,
                     "best_model_metric": "progress"}  # fmt: skip
    assert json.loads(logs.metrics_document([], None)) == {"metrics": []}


def test_lines_match_what_the_predecessor_picked_its_metrics_by():
    # regular expressions of the predecessor's DeepRacerEngine
    episode_line = logs.summary_line(lap(), 1, 0, 0)
    seen = {"policy_loss": -0.0228, "kl": 1.1e-05, "entropy": 2.837, "learning_rate": 0.0003}
    update_line = logs.update_line(seen, epochs=1)

    assert re.search(r"^Training>.*Total reward=(.*?),", episode_line)[1] == "2.73"
    assert re.search(r"^Policy training>.*Surrogate loss=(.*?),", update_line)[1] == "-0.0228"
    assert re.search(r"^Policy training>.*Entropy=(.*?),", update_line)[1] == "2.837"
    assert logs.update_line({"critic_loss": 1}, epochs=1) == ""


def test_the_nearer_of_two_waypoints():
    waypoints = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    closest = np.array([[0, 1], [0, 1], [1, 2]])

    found = logs.nearer(waypoints, closest, np.array([0.4, 0.6, 1.1]), np.array([0.3, 0.3, 5.0]))

    assert found.tolist() == [0, 1, 1]


def test_checkpoints_are_named_by_iteration_and_steps():
    best = {"iteration": 319, "steps": 43282, "metric": 100.0, "time": 1657397212.4}
    last = {"iteration": 320, "steps": 43482, "metric": 98.6, "time": 1657397334.1}

    found = json.loads(logs.checkpoint_note(best, last))

    # the example of the facts' section 4.4
    assert found == {
        "best_checkpoint": {"name": "319_Step-43282.ckpt", "avg_eval_metric": 100.0,
                            "time_stamp": 1657397212.4},
        "last_checkpoint": {"name": "320_Step-43482.ckpt", "avg_eval_metric": 98.6,
                            "time_stamp": 1657397334.1},
    }  # fmt: skip


def test_names_of_files():
    assert logs.simtrace_path(12, None) == "training-simtrace/12-iteration.csv"
    assert logs.simtrace_path(12, 3) == "3/training-simtrace/12-iteration.csv"
    name = logs.stamp(0.0)
    assert name == "19700101000000"
    assert logs.evaluation_paths(name) == (
        "evaluation-19700101000000/evaluation-simtrace/0-iteration.csv",
        "metrics/evaluation/evaluation-19700101000000.json",
    )
