"""Drivers with a memory where drivers are driven: trainings, trials, evaluations, crews, races."""

import importlib

import numpy as np
import pytest
from typer.testing import CliRunner

import hotlap
from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.learner import make_learner
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.settings import NetworkSettings, PPOSettings
from hotlap.cli import app
from hotlap.config import resolve
from hotlap.crew import NOBODY, Crew, Driver
from hotlap.env import EnvSettings
from hotlap.evaluate import evaluate_policy, evaluation_env
from hotlap.runs import Run
from hotlap.simulator import Command

module = importlib.import_module("hotlap.train")

TINY = {
    "track": "oval",
    "algorithm.network.mlp": [8],
    "algorithm.network.memory": 6,
    "train.seconds": 0,
    "evaluation.every": 3,
    "evaluation.trials": 2,
    "evaluation.laps": 1,
}
PPO = TINY | {"algorithm.network.previous_action": True, "train.cars": 16}
RDPG = TINY | {
    "algorithm.kind": "rdpg",
    "algorithm.capacity": 1500,
    "algorithm.warmup": 256,
    "algorithm.minibatch": 64,
    "algorithm.update_ratio": 0.05,
    "train.cars": 16,
}


@pytest.fixture
def no_outcome(monkeypatch):
    monkeypatch.setattr(module, "write_outcome", lambda run: {})


RIVALS = PPO | {"opponents.drivers": ["self"], "opponents.every": 256}


@pytest.mark.parametrize("settings", [PPO, RDPG, RIVALS], ids=["ppo", "rdpg", "rivals"])
def test_two_halves_are_the_whole(settings, no_outcome, tmp_path):
    hotlap.train(None, settings | {"train.steps": 1024}, out=tmp_path / "halves")
    halves = hotlap.train(None, {"train.steps": 2048}, resume=tmp_path / "halves")
    once = hotlap.train(None, settings | {"train.steps": 2048}, out=tmp_path / "once")

    for read in ("read_policy", "read_state"):
        arrays, expected = (getattr(run, read)("last")[1] for run in (halves, once))
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.tobytes() == expected[name].tobytes(), name
    assert np.abs(once.read_state("last")[1]["learner.memory.actor"]).max() > 0


def test_evaluations_leave_the_training_as_it_is(no_outcome, tmp_path):
    runs = [
        hotlap.train(
            None, PPO | {"train.steps": 1024, "evaluation.every": n}, out=tmp_path / str(n)
        )
        for n in (1, 99)
    ]

    one, other = (run.read_state("last")[1] for run in runs)
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


def policy_state(*, memory=6, previous_action=True, size=4):
    """A driver whose weights are all far from zero."""
    network = NetworkSettings(mlp=(8,), memory=memory, previous_action=previous_action)
    made = make_learner(
        PPOSettings(network=network, threads=1),
        {"state": ObservationSpec((size,), "float32")},
        ActionSpec("continuous", 2),
        ("state",), ("state",), seed=0, device="cpu",
    )  # fmt: skip
    description, arrays = made.policy_state()
    rng = np.random.default_rng(0)
    drawn = {k: rng.normal(0, 0.5, v.shape).astype(np.float32) for k, v in arrays.items()}
    return description, drawn | {k: v for k, v in arrays.items() if k.startswith("normalizer")}


def test_an_evaluation_tells_whose_episodes_begin():
    env = evaluation_env(resolve(EnvSettings, {"track": "oval"}), trials=3, laps=1)
    told, ended = [], []
    advance = env.advance

    def watched(action):
        step = advance(action)
        ended.append(step.ended.tolist())
        return step

    env.advance = watched
    straight = np.tile(np.float32([0.0, 1.0]), (3, 1))

    evaluate_policy(env, lambda seen: straight, begin=told.append)

    assert told[0] is None
    assert [rows.tolist() for rows in told[1:]] == [rows for rows in ended if rows]
    assert len(told) > 1


class Eyes:
    """Looks at a random number for each row, and passes answers on."""

    def __init__(self, rows):
        self.rng, self.rows = np.random.default_rng(3), rows
        self.seen = self.rng.normal(size=(rows, 4)).astype(np.float32)

    def observe(self, rows=None):
        return {"state": self.seen[rows]}

    def decode(self, action):
        return Command(steering=action[:, 0], speed=action[:, 1])

    def look_on(self):
        self.seen = self.rng.normal(size=(self.rows, 4)).astype(np.float32)

    def sit(self, rows):
        pass

    def save_senses(self):
        return {}

    def restore_senses(self, arrays):
        pass


def test_each_car_of_a_crew_has_a_memory_of_its_own():
    eyes = Eyes(5)
    crew = Crew(5, lambda task: eyes)
    forgets = crew.add(Driver("forgets", {}, *policy_state(memory=0, previous_action=False)))
    knows = crew.add(Driver("knows", {}, *policy_state()))
    crew.take(np.arange(5), np.array([knows, forgets, knows, NOBODY, knows]))
    alone = {row: NumpyPolicy(*policy_state()) for row in (0, 2, 4)}

    for step in range(8):
        if step == 3:  # row 2 begins anew, row 4 is left and taken again
            crew.take(np.array([2, 4]), np.array([knows, NOBODY]))
            alone[2].begin()
        if step == 5:
            crew.take(np.array([4]), np.array([knows]))
            alone[4].begin()
        command = crew.command()
        for row, policy in alone.items():
            if crew.seat[row] == NOBODY:
                continue
            expected = policy.act({"state": eyes.seen[[row]]})[0]
            found = command.steering[row], command.speed[row]
            np.testing.assert_allclose(found, expected, atol=1e-6)
        crew.look_on()


def test_a_crew_goes_on_with_what_it_remembers():
    eyes = Eyes(3)
    crew, other = Crew(3, lambda task: eyes), Crew(3, lambda task: eyes)
    number = crew.add(Driver("knows", {}, *policy_state()))
    crew.take(np.arange(3), np.full(3, number))
    for _ in range(4):
        crew.command()
        eyes.look_on()

    other.restore({name: array.copy() for name, array in crew.save().items()})

    np.testing.assert_array_equal(other.command().steering, crew.command().steering)
    np.testing.assert_array_equal(other.save()[f"memory{number}"], crew.save()[f"memory{number}"])
    assert np.abs(crew.save()[f"memory{number}"]).max() > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "remembers"
    steps = {"train.steps": 512, "evaluation.every": 9}
    return hotlap.train(None, PPO | steps, out=out)


def test_a_saved_driver_laps_as_its_learner_did(run):
    settings = resolve(EnvSettings, {"track": "oval"})
    policy = hotlap.load_policy(run.path)
    env = evaluation_env(settings, trials=2, laps=1)

    expected = evaluate_policy(env, policy.act, begin=policy.begin)
    report = hotlap.evaluate(run.path, trials=2, laps=1)
    deaf = evaluate_policy(env, _deaf(policy))

    assert report.progress == expected.progress
    assert policy.memory == 8
    assert not np.array_equal(deaf.traces[0]["x"], expected.traces[0]["x"])


def _deaf(policy):
    """The same driver, made to forget at every step."""

    def act(seen):
        policy.begin()
        return policy.act(seen)

    return act


def test_it_races_and_is_filmed(run):
    ran = CliRunner()

    raced = ran.invoke(app, ["race", str(run.path), str(run.path), "--laps", "1", "--trials", "2"])
    filmed = ran.invoke(app, ["film", str(run.path)])

    assert raced.exit_code == 0, raced.output
    assert filmed.exit_code == 0, filmed.output
    assert list((Run.open(run.path).path / "films").iterdir())
