"""Distill: the teacher says what it would do in every state that is visited; the student learns."""

import math

import numpy as np
import pytest
import torch

from hotlap.algorithms import distill as module
from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.compiled_student import CompiledStudent
from hotlap.algorithms.distill import Distill, Memory
from hotlap.algorithms.peers import Peers
from hotlap.algorithms.settings import DistillSettings, NetworkSettings, PPOSettings
from hotlap.algorithms.shards import cut
from hotlap.algorithms.student import make_student, shifted
from hotlap.algorithms.torch_student import TorchStudent, imitation_error
from hotlap.errors import ConfigError, RunError, SimulationError

WIDTH = 24
SPECS = {
    "camera": ObservationSpec((14, WIDTH, 1), "uint8"),
    "state": ObservationSpec((2,), "float32"),
}
STEER = ActionSpec("continuous", 1)
TURN = ActionSpec("discrete", 3)
CAMERA, STATE = ("camera",), ("state",)


@pytest.fixture(autouse=True)
def few_cars(monkeypatch):
    """Let 16 cars, of which 11 are not pushed, tell as much as many."""
    monkeypatch.setattr("hotlap.algorithms.distill._MANY", 11)


class Lane:
    """A car that leaves the middle of its lane ever faster unless it is steered back.

    Its camera shows where it is as one bright column, and nothing more; its state is the offset and
    a constant. Ends at an offset of 1.
    """

    def __init__(self, rows, seed=0, *, start=0.1, blank=False):
        self.rng = np.random.default_rng(seed)
        self.start, self.blank = start, blank
        self.offset = self.rng.uniform(-start, start, rows)

    def see(self):
        rows = len(self.offset)
        image = np.zeros((rows, 14, WIDTH, 1), np.uint8)
        column = np.clip((self.offset + 1) / 2 * WIDTH, 0, WIDTH - 1).astype(int)
        if not self.blank:
            image[np.arange(rows), :, column] = 255
        state = np.stack([self.offset, np.ones(rows)], axis=1).astype(np.float32)
        return {"camera": image, "state": state}

    def step(self, action):
        steer = action[:, 0] if action.ndim == 2 else (action - 1) / 2
        self.offset = 1.3 * self.offset + 0.4 * np.clip(steer, -1, 1)
        lost = np.abs(self.offset) >= 1
        self.offset[lost] = self.rng.uniform(-self.start, self.start, lost.sum())
        return lost


def teacher(action=STEER):
    """A linear teacher: steers back three times the offset, or chooses the side by logits."""
    weight = np.float32([[-3.0, 0.0]])
    bias = np.zeros(1, np.float32)
    if action.kind == "discrete":
        weight, bias = np.float32([[20, 0], [0, 0], [-20, 0]]), np.float32([0, 1, 0])
    plan = {
        "images": {}, "vectors": {"state": 2}, "hidden": (), "activation": "tanh",
        "outputs": action.size,
    }  # fmt: skip
    arrays = {"head.weight": weight, "head.bias": bias, "log_std": np.zeros(1, np.float32)}
    arrays |= {"normalizer.state.mean": np.zeros(2, np.float32)}
    arrays |= {"normalizer.state.std": np.ones(2, np.float32)}
    return {"format": 1, "plan": plan, "action": action.kind}, arrays


def learner(action=STEER, *, actor=CAMERA, seed=0, **given):
    given = {"teacher": "given", "memory": 4096, "minibatch": 64, "decay": 0} | given
    made = Distill(DistillSettings(**given), SPECS, action, actor, STATE, seed=seed)
    if given["teacher"]:
        made.take_teacher(*teacher(action))
    return made


def drive(made, lane, rounds, rng):
    """Collect as the runner does; return the metrics of each round."""
    found = []
    for _ in range(rounds):
        phase = made.phase
        columns = {name: [] for name in ("seen", "action", "log_prob", "lost")}
        for _ in range(phase.steps):
            seen = lane.see()
            uniform = rng.uniform(0.01, 0.99, (len(lane.offset), 1))
            action, log_prob = made.act({n: seen[n] for n in phase.names}, uniform, None)
            lost = lane.step(action)
            for name, value in zip(columns, (seen, action, log_prob, lost), strict=True):
                columns[name].append(value)
        lost = np.stack(columns["lost"])
        last = lane.see()
        batch = Batch(
            observation={n: np.stack([s[n] for s in columns["seen"]]) for n in phase.names},
            last_observation={n: last[n] for n in phase.names},
            action=np.stack(columns["action"]),
            log_prob=np.stack(columns["log_prob"]).astype(np.float32),
            reward=np.where(lost, -1.0, 0.1).astype(np.float32),
            terminated=lost,
            truncated=np.zeros_like(lost),
            reached={n: last[n][np.zeros(lost.sum(), int)] for n in phase.names},
        )
        found.append(made.update(batch, progress=0.0) | {"phase": phase.name})
    return found


def survival(made, *, blank=False, start=0.6):
    """Share of 64 cars that the greedy student keeps in the lane for 40 steps."""
    lane = Lane(64, seed=99, start=start, blank=blank)
    alive = np.ones(64, bool)
    for _ in range(40):
        alive &= ~lane.step(made.greedy(lane.see()))
    return alive.mean()


# --- the loss ---


def test_the_error_of_continuous_actions_by_hand():
    # ((0.5 - 0.1)^2 + (-1 - 1)^2) / 2 = (0.16 + 4) / 2 = 2.08;   (0 + 0.04) / 2 = 0.02
    output, label = torch.tensor([[0.5, -1.0], [0.3, 0.2]]), torch.tensor([[0.1, 1.0], [0.3, 0.0]])

    found = imitation_error(output, label, ActionSpec("continuous", 2))

    np.testing.assert_allclose(found, [2.08, 0.02], rtol=1e-6)


def test_the_error_of_choices_by_hand():
    # logits (ln 1, ln 3) are probabilities 1/4 and 3/4
    # label (0.5, 0.5): -(ln 0.25 + ln 0.75) / 2 = 0.83698;   label (0, 1): -ln 0.75 = 0.28768
    output = torch.log(torch.tensor([[1.0, 3.0], [2.0, 6.0]]))

    found = imitation_error(output, torch.tensor([[0.5, 0.5], [0.0, 1.0]]), TURN)

    expected = [-(math.log(0.25) + math.log(0.75)) / 2, -math.log(0.75)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_shift_moves_the_picture_and_repeats_its_border():
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)  # 0 1 2 / 3 4 5

    down, left = (shifted(image, *np.array(by)[:, None])[0, :, :, 0] for by in ((1, 0), (0, -1)))

    assert down.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert left.tolist() == [[1, 2, 2], [4, 5, 5]]


@pytest.mark.parametrize(
    ("cnn", "rows", "parts"), [("small", 300, None), ("airsim", 300, 3), ("airsim", 41, 2)]
)
def test_a_step_moves_the_answers_towards_the_labels_whatever_the_threads(
    cnn, rows, parts, monkeypatch
):
    monkeypatch.setattr("hotlap.algorithms.compiled._WORTH", 0)
    lane = Lane(rows, start=0.9)
    frames = lane.see()
    label = np.clip(-3 * frames["state"][:, :1], -1, 1)
    made = [
        make_student(
            PPOSettings(threads=threads, network=NetworkSettings(cnn=cnn)),
            SPECS, STEER, CAMERA, averaging=0.5, seed=1,
        )
        for threads in (1, 3)
    ]  # fmt: skip
    assert isinstance(made[0], CompiledStudent if parts is None else TorchStudent)
    assert parts is None or len(cut(rows, made[0]._most)) == parts

    losses = [[s.learn(frames, label, 3e-3)["imitation_loss"] for _ in range(40)] for s in made]

    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(float((label**2).mean()), rel=0.05)  # it began at zero
    assert losses[0][-1] < 0.1 * losses[0][0]
    for student in made:  # more rows than a shard: each row has its answer
        off = ((student.output(frames) - label) ** 2).mean()
        assert off < 0.2 * losses[0][0]


def test_the_average_lags_behind_the_weights():
    # after the first of n steps the average keeps min(a, n / (n + 9)) of what it was
    frames, label = Lane(64, start=0.9).see(), np.ones((64, 1), np.float32)
    student = make_student(PPOSettings(), SPECS, STEER, CAMERA, averaging=0.05, seed=1)
    before = student.save()["head.bias"]

    student.learn(frames, label, 1e-2)

    saved = student.save()
    expected = 0.05 * before + 0.95 * saved["last.head.bias"]  # 1 / 10 is more than 0.05
    np.testing.assert_allclose(saved["head.bias"], expected, rtol=1e-5)
    assert saved["last.head.bias"][0] == pytest.approx(1e-2, rel=1e-2)  # Adam's first step


# --- the data ---


def test_the_memory_keeps_the_newest():
    memory, everything = Memory(10, {"state": SPECS["state"]}), []
    for count in (3, 4, 5, 12, 1):
        fresh = np.arange(2 * count, dtype=np.float32).reshape(count, 2) + 100 * len(everything)
        everything += list(fresh)
        memory.append({"state": fresh})

        held = memory.take(np.arange(memory.count))["state"]

        assert memory.count == min(10, len(everything))
        assert sorted(held.tolist()) == sorted(np.array(everything[-10:]).tolist())


@pytest.mark.parametrize("action", [STEER, TURN])
def test_every_label_is_the_teacher_s_word_about_the_very_state_of_the_frame(action, monkeypatch):
    taught = []

    def learn(self, frames, label, learning_rate, *peers):
        taught.append((frames["camera"], label))
        return {"imitation_loss": 0.0, "grad_norm": 0.0}

    monkeypatch.setattr(CompiledStudent, "learn", learn)
    made = learner(action, noise=0.5, noisy=1.0)

    drive(made, Lane(40, start=0.9), 20, np.random.default_rng(0))

    # The bright column tells the offset to half a column, 1 / 24; the teacher's word follows.
    frames, labels = (np.concatenate(part) for part in zip(*taught, strict=True))
    offset = (frames[:, 0, :, 0].argmax(axis=1) + 0.5) * 2 / WIDTH - 1
    assert len(np.unique(offset)) > 12
    if action.kind == "continuous":
        low, high = (np.clip(-3 * (offset + by / WIDTH), -1, 1) for by in (1, -1))
        assert ((labels[:, 0] >= low - 1e-5) & (labels[:, 0] <= high + 1e-5)).all()
        return
    # The best of 20 n, 1 and -20 n; where the half column does not decide it, it is not asked.
    logits = np.stack([20 * offset, np.ones(len(offset)), -20 * offset], axis=1)
    sure = np.abs(np.abs(offset) - 1 / 20) > 1 / WIDTH
    np.testing.assert_array_equal(labels[sure], np.eye(3)[logits[sure].argmax(axis=1)])


def test_a_teacher_of_our_own_teaches_its_probabilities(monkeypatch):
    taught = []

    def learn(self, frames, label, learning_rate, *peers):
        taught.append(label)
        return {"imitation_loss": 0.0, "grad_norm": 0.0}

    monkeypatch.setattr(CompiledStudent, "learn", learn)
    made = learner(TURN, teacher="", patience=1, practice=PPOSettings(horizon=4))

    drive(made, Lane(16, start=0.3), 4, np.random.default_rng(0))

    # After one update it still hesitates: every choice has about a third.
    labels = np.concatenate(taught)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
    assert 0.05 < labels.min() < labels.max() < 0.9


# --- what comes of it ---


@pytest.mark.parametrize("action", [STEER, TURN])
def test_a_student_learns_to_stay_in_its_lane(action):
    made = learner(action)

    metrics = drive(made, Lane(64, start=0.6), 40, np.random.default_rng(0))

    assert survival(made) == 1
    assert metrics[-1]["imitation_loss"] < 0.8 * metrics[0]["imitation_loss"]
    assert metrics[-1]["frames"] == 40 * 2 * 64
    assert metrics[-1]["teacher_share"] == 0


def test_a_student_that_cannot_see_learns_nothing():
    made = learner()

    metrics = drive(made, Lane(64, start=0.6, blank=True), 40, np.random.default_rng(0))

    assert survival(made, blank=True) < 0.2
    assert metrics[-1]["imitation_loss"] > 0.3  # a constant is all that can be said


def test_the_teacher_hands_over_step_by_step():
    made = learner(handover=8, noisy=0.0, horizon=1)
    rng = np.random.default_rng(0)
    lane = Lane(2000, start=0.9)
    shares = []
    for _ in range(10):
        seen = lane.see()
        action, _ = made.act(seen, rng.uniform(0.01, 0.99, (2000, 1)))
        # an untrained student answers nearly zero; the teacher is far from it off the middle
        far = np.abs(seen["state"][:, 0]) > 0.1
        shares.append(float((np.abs(action[far, 0]) > 0.2).mean()))

    np.testing.assert_allclose(shares, [1 - t / 8 for t in range(8)] + [0, 0], atol=0.05)


def test_only_so_many_cars_are_pushed_and_so_much():
    made = learner(handover=1, noisy=0.25, noise=0.5)
    rng = np.random.default_rng(0)
    seen = Lane(2000).see()
    made.act(seen, rng.uniform(0.01, 0.99, (2000, 1)))

    action, _ = made.act(seen, rng.uniform(0.01, 0.99, (2000, 1)))

    push = action[:, 0] - made.greedy(seen)[:, 0]
    pushed = np.abs(push) > 1e-6
    assert pushed.sum() == 500
    assert push[pushed].std() == pytest.approx(0.5, rel=0.1)


# --- phases ---


OWN = {
    "teacher": "", "check": 8, "patience": 1024,
    "practice": PPOSettings(horizon=8, minibatch=128),
}  # fmt: skip


def test_the_phases_follow_each_other():
    made = learner(finetune=300, **OWN)

    metrics = drive(made, Lane(16, start=0.3), 45, np.random.default_rng(0))

    phases = [row["phase"] for row in metrics]
    assert phases == sorted(phases, key=["teacher", "check", "student", "finetune"].index) or (
        "teacher" in phases[phases.index("check") :]  # a check was not passed
    )
    assert {"teacher", "student", "finetune"} <= set(phases)
    assert phases[-1] == "finetune"
    assert all("value_loss" in r for r in metrics if r["phase"] in ("teacher", "finetune"))


def test_a_teacher_learns_as_long_as_it_is_told():
    for least in (0, 16 * 8 * 12):
        made = learner(**OWN | {"patience": 10_000, "teacher_steps": least})
        metrics = drive(made, Lane(16, start=0.0), 16, np.random.default_rng(0))
        phases = [row["phase"] for row in metrics]
        assert phases.count("check") > 0
        assert (phases.index("check") > 11) == bool(least)  # 16 cars, 8 steps an update


def test_only_the_student_s_phase_asks_for_images():
    made = learner(finetune=300, margin=0.4, **OWN)
    wants = {}
    rng, lane = np.random.default_rng(0), Lane(16, start=0.3)
    for _ in range(45):
        wants[made.phase.name] = made.phase
        drive(made, lane, 1, rng)

    assert set(wants["teacher"].names) == {"state"}
    assert set(wants["student"].names) == set(wants["finetune"].names) == {"camera", "state"}
    assert wants["teacher"].margin == 0.4
    assert wants["student"].margin == wants["finetune"].margin == 0
    assert not wants["teacher"].ready


def test_the_finetuned_driver_begins_as_the_student():
    made = learner(finetune=300, **OWN)
    rng, lane, seen = np.random.default_rng(0), Lane(16, start=0.3), Lane(50, start=0.9).see()
    while made.phase.name != "finetune":
        drive(made, lane, 1, rng)
    student = made._student.output(seen)

    begun = made.greedy(seen)

    np.testing.assert_allclose(begun, np.clip(student, -1, 1), atol=1e-6)
    assert np.abs(begun).max() > 0.05


@pytest.mark.parametrize("whose", ["ppo", "a student", "a tuned student"])
def test_the_critic_of_a_run_that_teaches_judges_the_student(whose):
    other = learner(finetune=300 if whose == "a tuned student" else 0, seed=3, **OWN)
    drive(other, Lane(16, start=0.3), 60, np.random.default_rng(0))
    owner = other._fine if whose == "a tuned student" else other._practice
    made = learner(finetune=300, **OWN | {"teacher": "given"})
    saved = owner.save() if whose == "ppo" else other.save()
    assert made.take_teacher(*teacher(STEER), saved)

    while made.phase.name != "finetune":
        drive(made, Lane(16, start=0.1), 1, np.random.default_rng(0))

    seen = Lane(50, start=0.9).see()
    np.testing.assert_allclose(made._fine.value(seen), owner.value(seen), rtol=1e-5, atol=1e-6)
    assert np.ptp(made._fine.value(seen)) > 0.1


def test_a_restored_student_goes_on_learning_by_ppo_with_its_peers():
    made, restored, peers = learner(finetune=300, **OWN), learner(finetune=300, **OWN), Peers()
    while made.phase.name != "finetune":
        drive(made, Lane(16, start=0.1), 1, np.random.default_rng(0))
    restored.join(peers)

    restored.restore(*made.save())

    assert restored._fine._peers is peers


@pytest.mark.parametrize("other", ["another network", "another learner", "another discount"])
def test_a_critic_that_does_not_fit_begins_anew(other):
    size = (8,) if other == "another network" else (16, 16)
    gamma = 0.5 if other == "another discount" else 0.9
    own = PPOSettings(network={"mlp": size}, gamma=gamma)
    meta, arrays = learner(practice=own, seed=3)._practice.save()
    given = PPOSettings(network={"mlp": (16, 16)}, gamma=0.9)
    made, alone = (learner(practice=given) for _ in range(2))

    saved = ({"kind": "sac"} if other == "another learner" else meta, arrays)
    assert not made.take_teacher(*teacher(STEER), saved)

    got, drawn = made._practice.save()[1], alone._practice.save()[1]
    critics = [name for name in drawn if name.startswith("critic.")]
    assert len(critics) == 6
    for name in critics:
        np.testing.assert_array_equal(got[name], drawn[name], err_msg=name)


@pytest.mark.parametrize("cut", [1, 14, 30, 42])
def test_a_restored_learner_goes_on_bit_by_bit_in_every_phase(cut):
    once, before, after = (learner(finetune=300, **OWN) for _ in range(3))
    rngs, lanes = [np.random.default_rng(0) for _ in "ab"], [Lane(16, start=0.3) for _ in "ab"]

    whole = drive(once, lanes[0], 45, rngs[0])
    first = drive(before, lanes[1], cut, rngs[1])
    after.restore(*before.save())
    second = drive(after, lanes[1], 45 - cut, rngs[1])

    assert first + second == whole
    assert {"teacher", "student", "finetune"} <= {row["phase"] for row in whole}
    for one, other in zip(once.save(), after.save(), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_given_teacher_is_part_of_the_checkpoint():
    made, other = learner(), learner(seed=5)
    other.take_teacher(*teacher(STEER))
    other._teacher = None

    other.restore(*made.save())

    seen = Lane(9, start=0.9).see()
    expected = np.clip(-3 * seen["state"][:, :1], -1, 1)
    np.testing.assert_allclose(other._label(seen), expected, atol=1e-6)


def test_another_training_takes_teacher_and_student_and_begins_with_the_teacher():
    made, other = learner(finetune=300, **OWN), learner(seed=5, **OWN)
    drive(made, Lane(16, start=0.3), 60, np.random.default_rng(0))

    other.adopt(*made.save())

    seen = Lane(50, start=0.9).see()
    np.testing.assert_allclose(other.greedy(seen), made.greedy(seen), atol=1e-6)
    assert other.phase.name == "teacher"
    drive(other, Lane(16, start=0.3), 3, np.random.default_rng(0))


# --- what is refused ---


def test_a_checkpoint_of_another_algorithm_is_refused():
    with pytest.raises(RunError, match="kind 'ppo', format 1; this is distill"):
        learner().restore({"kind": "ppo", "format": 1}, {})


def test_a_checkpoint_of_another_network_is_refused():
    wide = learner(practice=PPOSettings(network={"mlp": (16,)}), actor=STATE)
    narrow = learner(practice=PPOSettings(network={"mlp": (8,)}), actor=STATE)

    with pytest.raises(RunError, match="keep the settings and observations"):
        narrow.restore(*wide.save())


def test_a_teacher_that_sees_or_answers_something_else_is_refused():
    blind = Distill(DistillSettings(teacher="x"), SPECS, STEER, CAMERA, CAMERA, seed=0)
    with pytest.raises(ConfigError, match=r"sees state, but observation\.critic names only camera"):
        blind.take_teacher(*teacher(STEER))

    with pytest.raises(ConfigError, match="answers 3 discrete numbers, here it is 1 continuous"):
        learner().take_teacher(*teacher(TURN))


def test_labels_that_are_no_numbers_end_the_training_with_a_sentence():
    student = make_student(PPOSettings(), SPECS, STEER, CAMERA, averaging=0.9, seed=0)

    with pytest.raises(SimulationError, match="gradients of the student's minibatch 1"):
        student.learn(Lane(8).see(), np.full((8, 1), np.nan, np.float32), 1e-3)


@pytest.mark.parametrize(("units", "device"), [(64, "cpu"), (2048, "cuda")])
def test_beside_a_gpu_a_small_teacher_stays_on_the_processor(units, device, monkeypatch):
    asked = []

    def made(*given, device, **named):
        asked.append(device)
        raise KeyboardInterrupt  # a GPU may not be there

    monkeypatch.setattr(module, "make_ppo", made)
    practice = PPOSettings(network=NetworkSettings(mlp=(units, units)))

    with pytest.raises(KeyboardInterrupt):
        Distill(
            DistillSettings(practice=practice), SPECS, STEER, CAMERA, STATE, seed=0, device="cuda"
        )

    assert asked == [device]
