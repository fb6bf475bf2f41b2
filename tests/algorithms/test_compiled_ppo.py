"""PPO's compiled networks against those in torch, whose gradients are torch's own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from test_ppo import made, make_batch
from worlds import OBSERVATION, assert_same, look

from hotlap.algorithms.batch import ActionSpec, ObservationSpec
from hotlap.algorithms.compiled import orthonormal
from hotlap.algorithms.compiled_ppo import CompiledPPO
from hotlap.algorithms.compiled_student import CompiledStudent
from hotlap.algorithms.peers import Peers
from hotlap.algorithms.plans import make_plan
from hotlap.algorithms.ppo import make_ppo
from hotlap.algorithms.settings import NetworkSettings, PPOSettings
from hotlap.algorithms.student import make_student
from hotlap.algorithms.torch_ppo import TorchPPO
from hotlap.algorithms.torch_student import TorchStudent
from hotlap.errors import DivergedError

CASES = {
    "plain": {},
    "all losses": {"value_clip": 0.05, "value_loss": "huber", "entropy": 0.3, "max_grad_norm": 0.1},
    "odd widths": {"network": NetworkSettings(mlp=(50, 30, 17)), "minibatch": 37},
    "no hidden layer": {"network": NetworkSettings(mlp=())},
    "frozen": {"freeze": ("actor.hidden0", "critic.head")},
    "own rates": {"critic_learning_rate": 1e-2, "schedule": "linear", "adam_epsilon": 1e-3},
    "as they are": {"normalize_advantages": False, "normalize_rewards": False},
}


def both(kind, **settings):
    """A learner in torch and a compiled one that continues from it."""
    pair = [made(runs, kind, **settings) for runs in ("torch", "compiled")]
    pair[1].restore(*pair[0].save())
    return pair


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("case", CASES)
def test_it_learns_what_torch_learns(case, kind):
    settings = dict(CASES[case])
    if kind == "discrete" and case == "all losses":
        settings |= {"epsilon_start": 0.3, "epsilon_end": 0.3}
    theirs, ours = both(kind, **settings)
    start = theirs.save()[1]

    for seed in range(3):
        batch = make_batch(theirs, seed=seed)
        metrics = [ppo.update(batch, progress=0.1) for ppo in (theirs, ours)]

    # a count: ratios next to the clip may fall on either side of it
    clipped = [one.pop("clip_fraction") for one in metrics]
    assert clipped[0] == pytest.approx(clipped[1], abs=0.01)
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
    (meta, expected), (own, found) = theirs.save(), ours.save()
    assert own == meta | {"learning_rate": pytest.approx(meta["learning_rate"])}
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)
    moved = [np.abs(found[name] - start[name]).max() > 1e-4 for name in start if "head" in name]
    assert any(moved)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_it_drives_as_torch_does(kind):
    theirs, ours = both(kind)
    rng = np.random.default_rng(0)
    seen, uniform = look(rng, 700), rng.uniform(0.001, 0.999, (700, 3))

    np.testing.assert_allclose(ours.greedy(seen), theirs.greedy(seen), atol=1e-6)
    np.testing.assert_allclose(ours.value(seen), theirs.value(seen), atol=1e-5)
    for one, other in zip(ours.act(seen, uniform), theirs.act(seen, uniform), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_it_begins_where_torch_begins():
    (_, theirs), (_, ours) = (made(runs).save() for runs in ("torch", "compiled"))

    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("shape", [(16, 16), (40, 7), (5, 1)])
def test_columns_become_those_of_a_qr_decomposition(shape):
    columns = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    found = orthonormal(columns)

    q, r = torch.linalg.qr(torch.from_numpy(columns).double())
    np.testing.assert_allclose(found, q * r.diagonal().sign(), atol=1e-6)


def test_threads_do_not_change_the_bytes(monkeypatch):
    monkeypatch.setattr("hotlap.algorithms.compiled._WORTH", 0)
    alone, together = (made("compiled", minibatch=512, threads=threads) for threads in (1, 3))

    for ppo in (alone, together):
        for seed in range(2):
            ppo.update(make_batch(ppo, steps=60, seed=seed), progress=0.0)

    assert_same(alone, together)


class _Noted(Peers):
    """Peers that are nobody, and note what is summed."""

    def __init__(self):
        super().__init__()
        self.sums = []

    def sum(self, own):
        self.sums.append(own.copy())
        return own


def test_with_peers_it_gives_what_moves_and_what_is_measured():
    alone, joined = (made("compiled", epochs=1, freeze=("actor.hidden0",)) for _ in range(2))
    peers = _Noted()
    joined.join(peers)

    for ppo in (alone, joined):
        ppo.update(make_batch(ppo), progress=0.0)

    # 12 * 16 rows in minibatches of 64: three sums, of what moves and of five measures
    moves = len(joined._weights.moves)
    assert 0 < moves < len(joined.vector())
    assert [len(one) for one in peers.sums] == [moves + 5] * 3
    np.testing.assert_allclose(joined.vector(), alone.vector(), atol=1e-7)


def test_a_vector_is_what_torch_s_would_be():
    theirs, ours = both("continuous", freeze=("critic.hidden0",))

    np.testing.assert_array_equal(ours.vector(), theirs.vector())
    changed = np.arange(len(ours.vector()), dtype=np.float32)
    for ppo in (ours, theirs):
        ppo.assign(changed)
    for name, array in theirs.save()[1].items():
        np.testing.assert_array_equal(ours.save()[1][name], array, err_msg=name)


SEEN = {
    "camera": ObservationSpec((24, 32, 2), "uint8"),
    "state": ObservationSpec((5,), "float32"),
    "wide": ObservationSpec((20_000,), "float32"),
}


@pytest.mark.parametrize(
    ("settings", "names", "kind"),
    [
        ({}, ("state",), CompiledPPO),
        ({}, ("camera", "state"), CompiledPPO),
        ({"network": NetworkSettings(cnn="deepracer")}, ("state",), CompiledPPO),
        ({"network": NetworkSettings(cnn="deepracer")}, ("camera",), TorchPPO),
        ({"network": NetworkSettings(cnn="airsim")}, ("camera",), TorchPPO),
        ({"network": NetworkSettings(beside=(8,))}, ("camera", "state"), TorchPPO),
        ({}, ("wide",), TorchPPO),
        ({"network": NetworkSettings(mlp=(1024,) * 2)}, ("state",), TorchPPO),
        ({"network": NetworkSettings(numbers="robotini")}, ("state",), TorchPPO),
        ({"precision": "bfloat16"}, ("state",), TorchPPO),
    ],
)
def test_small_networks_on_the_processor_are_compiled(settings, names, kind):
    if kind is TorchPPO and names == ("camera",):
        seen = {"camera": ObservationSpec((120, 160, 1), "uint8")}
    else:
        seen = SEEN
    given, action = PPOSettings(**settings), ActionSpec("discrete", 2)

    learner = make_ppo(given, seen, action, names, names, seed=0)
    student = make_student(given, seen, action, names, averaging=0.5, seed=0)

    assert type(learner) is kind
    assert type(student) is (CompiledStudent if kind is CompiledPPO else TorchStudent)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize(
    ("actor", "critic"), [(("camera",), ("state",)), (("camera", "state"), ("camera",))]
)
def test_it_learns_from_pictures_what_torch_learns(actor, critic, kind):
    given = PPOSettings(minibatch=100, epochs=1, schedule="constant", max_grad_norm=1e9)
    theirs, ours = (
        one(given, OBSERVATION, ActionSpec(kind, 3), actor, critic, seed=7)
        for one in (TorchPPO, CompiledPPO)
    )
    meta, arrays = theirs.save()
    rng = np.random.default_rng(1)
    for name, array in arrays.items():  # so that every layer counts
        if name.endswith(("weight", "bias")) and not name.startswith("adam."):
            arrays[name] = rng.normal(0, 0.1, array.shape).astype(np.float32)
    for ppo in (theirs, ours):
        ppo.restore(meta, arrays)
    batch = make_batch(theirs)

    for ppo in (theirs, ours):
        ppo.update(batch, progress=0.0)

    # Adam's means: gradients, which its steps would bring to one size
    expected, found = theirs.save()[1], ours.save()[1]
    for name in (name for name in expected if name.startswith("adam.mean.")):
        far = np.abs(found[name] - expected[name]).max()
        assert far < 1e-4 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("names", [("camera",), ("camera", "state"), ("state",)])
def test_a_student_learns_what_torch_s_learns(names, kind):
    action, rng = ActionSpec(kind, 3), np.random.default_rng(0)
    plan = make_plan(NetworkSettings(), SEEN, names, 3)
    freeze = ("head",) if names == ("state",) else ()
    given = (PPOSettings(precision="float32"), plan, action, 0.9, freeze, 3)
    theirs, ours = TorchStudent(*given), CompiledStudent(*given)
    start = theirs.save()
    ours.restore(start, 0)
    frames = {
        "camera": rng.integers(0, 256, (100, 24, 32, 2)).astype(np.uint8),
        "state": rng.normal(1, 2, (100, 5)).astype(np.float32),
    }
    label = rng.dirichlet(np.ones(3), 100) if kind == "discrete" else rng.uniform(-1, 1, (100, 3))

    for student in (theirs, ours):
        student.see(frames)
    for _ in range(3):
        found = [student.learn(frames, np.float32(label), 1e-3) for student in (theirs, ours)]
        assert found[1] == pytest.approx(found[0], rel=1e-4)

    assert ours.steps == theirs.steps == 3
    np.testing.assert_allclose(ours.output(frames), theirs.output(frames), atol=1e-4)
    expected, mine = theirs.save(), ours.save()
    assert set(mine) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, atol=1e-4, err_msg=name)
    for name in ("hidden0.weight", "head.weight"):
        moved = np.abs(mine[f"last.{name}"] - start[f"last.{name}"]).max()
        assert (moved == 0) if name == "head.weight" and freeze else (moved > 1e-3)


def test_what_is_no_number_ends_a_student():
    student = make_student(PPOSettings(), SEEN, ActionSpec("continuous", 2), ("state",),
                           averaging=0.5, seed=0)  # fmt: skip
    frames = {"state": np.full((4, 5), np.nan, np.float32)}

    with pytest.raises(DivergedError, match="minibatch 1 are not finite"):
        student.learn(frames, np.zeros((4, 2), np.float32), 1e-3)


def test_a_training_from_state_needs_no_torch(tmp_path):
    code = (
        "import sys, hotlap;"
        "hotlap.train(None, {'train.steps': 512, 'train.cars': 16, 'track': 'oval',"
        f" 'evaluation.trials': 1, 'evaluation.laps': 1}}, out={str(tmp_path / 'run')!r});"
        "print('torch' in sys.modules)"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.split()[-1] == "False"
