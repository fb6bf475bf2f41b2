"""Distill: a teacher that sees the state learns to drive, and shows a student that sees less how.

Imitation by data set aggregation: the student drives more and more itself, and the teacher says of
every state that is visited what it would do there.

Source: Ross, Gordon and Bagnell 2011, arXiv:1011.0686, algorithm 3.1. What is changed is in
docs/distill.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec, below
from hotlap.algorithms.learner import Phase
from hotlap.algorithms.peers import ALONE, Peers
from hotlap.algorithms.policy import NumpyPolicy
from hotlap.algorithms.ppo import PPO, is_compiled, make_ppo
from hotlap.algorithms.scales import match
from hotlap.algorithms.settings import DistillSettings
from hotlap.algorithms.student import make_student, shifted
from hotlap.algorithms.transfer import Saved, Transfer, carry
from hotlap.draws import generator, normal_quantile
from hotlap.errors import ConfigError
from hotlap.types import Array, Float32

__all__ = ["Distill", "Memory"]

Name: TypeAlias = Literal["teacher", "check", "student", "finetune"]

_TOLERATED = 0.01
"""Share of the cars that may fail in a check: a random start can be beyond help."""
_BLOCK = 64
"""Rows that the teacher labels at once: NumPy multiplies so small matrices on one thread."""
_STREAM = 0xD157
"""Keeps our draws apart from those of PPO, which has the same seed."""
_STEADY = 16
"""Steps that the student's cars drive without a failure before it is worth an evaluation,"""
_LONG = 32_768
"""or so many frames, whatever they do."""
_MANY = 44
"""Cars that tell enough: a step of fewer counts for as much less."""
_HOPEFUL = 2.0
"""Failures of a car in the time of a check, with noise, below which the teacher may pass it."""


class Memory:
    """The newest frames and what the teacher said of them: a ring of fixed size.

    Args:
        capacity: the most frames it holds.
        specs: what a frame has, by name.
    """

    def __init__(self, capacity: int, specs: Mapping[str, ObservationSpec]) -> None:
        self.count = self._at = 0
        self._arrays = {k: np.empty((capacity, *s.shape), s.dtype) for k, s in specs.items()}
        self._capacity = capacity

    def append(self, frames: Mapping[str, Array]) -> None:
        """Take in B frames; the oldest make room."""
        fresh = len(next(iter(frames.values())))
        at = (self._at + np.arange(fresh)) % self._capacity
        for name, array in self._arrays.items():
            array[at[-self._capacity :]] = frames[name][-self._capacity :]
        self._at = (self._at + fresh) % self._capacity
        self.count = min(self.count + fresh, self._capacity)

    def take(self, chosen: Array) -> dict[str, Array]:
        """Return the chosen frames, (B, ...) by name."""
        return {name: array[chosen] for name, array in self._arrays.items()}

    def save(self) -> dict[str, Array]:
        """Return everything it holds as arrays."""
        held = {f"frame.{name}": array[: self.count] for name, array in self._arrays.items()}
        return {"at": np.array(self._at), "count": np.array(self.count), **held}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""
        self._at, self.count = int(arrays["at"]), int(arrays["count"])
        for name, array in self._arrays.items():
            array[: self.count] = arrays[f"frame.{name}"]


class Distill:
    """Learns in phases: a teacher, its check, the student, and if wished the student by PPO.

    Only its owner, the training loop, may call it; it is not safe between threads.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations the student sees.
        critic: names of the observations the teacher sees.
        seed: of the first weights and of every draw.
        device: torch's name for where to compute.

    Raises:
        ConfigError: a name is not observed, or an image is too small.
    """

    replay: None = None
    """What it saw goes into its checkpoints."""

    def __init__(
        self,
        settings: DistillSettings,
        observation: Mapping[str, ObservationSpec],
        action: ActionSpec,
        actor: tuple[str, ...],
        critic: tuple[str, ...],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.settings = settings
        self._longest = settings.teacher_steps + settings.patience
        self._observation, self._action = observation, action
        self._actor, self._critic = actor, critic
        self._seed, self._device = seed, device
        self._peers = ALONE
        self._name: Name = "student" if settings.teacher else "teacher"
        # Small networks learn faster in kernels on the processor than on any GPU.
        small = is_compiled(settings.practice, observation, critic, critic, action.size)
        self._practice = make_ppo(
            settings.practice, observation, action, critic, critic, seed=seed,
            device="cpu" if small else device, where="algorithm.practice",
        )  # fmt: skip
        self._student = make_student(
            settings.practice, observation, action, actor,
            averaging=settings.averaging, freeze=settings.freeze, seed=seed, device=device,
        )  # fmt: skip
        self._fine: PPO | None = None
        self._teacher: NumpyPolicy | None = None
        self._given: tuple[dict[str, Any], dict[str, Array]] | None = None
        names = dict.fromkeys((*actor, *critic))
        self._memory = Memory(settings.memory, {name: observation[name] for name in names})
        self._names = tuple(names)
        self._practised = self._acts = self._frames = 0
        self._drove: Array | None = None
        self._calm = 0.0

    def join(self, peers: Peers) -> None:
        """Learn together with others from now on; see `Learner.join`.

        Frames stay where they were seen: each peer labels its own, and draws from them.
        """
        self._peers = peers
        self._practice.join(peers)
        if self._fine is not None:
            self._fine.join(peers)

    @property
    def phase(self) -> Phase:
        """What it wants to be collected next."""
        settings = self.settings
        if self._name == "student":
            return Phase("student", settings.horizon, self._names, ready=self._ready)
        if self._name == "finetune":
            return Phase("finetune", settings.practice.horizon, self._names)
        steps = settings.check if self._name == "check" else settings.practice.horizon
        return Phase(
            "check" if self._name == "check" else "teacher",
            steps,
            self._critic,
            margin=settings.margin,
            ready=False,
        )

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array | None = None
    ) -> tuple[Array, Float32]:
        """Choose actions for N rows; which driver does depends on the phase.

        Args:
            observation: by name, (N, ...).
            uniform: numbers in (0, 1) that decide: (N, A) for continuous actions, (N, 1 or more)
                for discrete ones.
            fresh: not used, as nobody remembers anything between steps.

        Returns:
            Actions, and their log-probability (N,), 0 where nothing is learned from it.
        """
        if self._name == "finetune":
            assert self._fine is not None
            return self._fine.act(observation, uniform)
        if self._name == "teacher":
            return self._practice.act(observation, uniform)
        rows = len(uniform)
        none = np.zeros(rows, np.float32)
        if self._name == "check":
            return self._answer(self._label(observation)), none
        return self._mixed(observation, uniform), none

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the student's answer for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""
        if self._fine is not None:
            return self._fine.greedy(observation)
        return self._answer(self._student.output(observation))

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Learn from a batch; return metrics, which are those of the phase.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite.
        """
        if self._name == "finetune":
            assert self._fine is not None
            return self._fine.update(batch, progress=progress)
        if self._name == "check":
            return self._checked(batch)
        if self._name == "teacher":
            return self._practiced(batch, progress)
        return self._imitated(batch)

    # --- the teacher ---

    def take_teacher(
        self,
        description: Mapping[str, Any],
        arrays: Mapping[str, Array],
        saved: Saved | None = None,
    ) -> bool:
        """Let this driver teach; see `Taught`.

        The critic of one that learned by PPO comes along, if its discount and network are ours.

        Raises:
            ConfigError: it reads what is not observed, or answers something else.
        """
        teacher = NumpyPolicy(description, arrays)
        unseen = sorted(set(teacher.names) - set(self._critic))
        if unseen:
            raise ConfigError(
                f"algorithm.teacher: its driver sees {', '.join(unseen)}, but observation.critic "
                f"names only {', '.join(self._critic)}; let the critic see it too"
            )
        if teacher.action != self._action:
            raise ConfigError(
                f"algorithm.teacher: its driver answers {teacher.action.size} "
                f"{teacher.action.kind} numbers, here it is {self._action.size} "
                f"{self._action.kind}; give both the same actions"
            )
        if teacher.memory:
            raise ConfigError(
                "algorithm.teacher: its driver has a memory, and a teacher is asked about single "
                "frames; choose a Run with algorithm.network.memory=0 and previous_action=false"
            )
        self._given = dict(description), dict(arrays)
        self._teacher = teacher
        return saved is not None and self._take_critic(*saved)

    def _take_critic(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> bool:
        """Take another PPO's critic, or that of another's teacher, if all of it fits."""
        if meta["kind"] == "distill":
            part = "practice" if meta["fine"] is None else "fine"
            meta, arrays = meta[part], below(arrays, f"{part}.")
        plans, own = meta.get("plans", {}), self._practice.save()
        worth = meta.get("gamma") == own[0]["gamma"]
        if not worth or plans.get("critic") != own[0]["plans"]["critic"]:
            return False
        parts = ("critic.", "reward.", "normalizer.")
        theirs = {k: v for k, v in arrays.items() if k.startswith(parts) and k in own[1]}
        theirs["reward.return"] = np.zeros(0)  # no episode of theirs goes on here
        self._practice.restore(own[0], {**own[1], **theirs})
        return True

    def _label(self, observation: Mapping[str, Array]) -> Float32:
        """Return what the teacher does in B states: actions in [-1, 1], or probabilities."""
        teacher = self._teacher
        assert teacher is not None
        rows = len(next(iter(observation.values())))
        found = np.empty((rows, self._action.size), np.float32)
        for start in range(0, rows, _BLOCK):
            part = {k: observation[k][start : start + _BLOCK] for k in teacher.names}
            if self._action.kind == "continuous":
                answer = teacher.act(part)
            elif self._given is None:
                answer = teacher.probabilities(part)
            else:  # it may know what choices are worth, which are no probabilities
                answer = np.eye(self._action.size, dtype=np.float32)[teacher.act(part)]
            found[start : start + _BLOCK] = answer
        return found

    def _answer(self, output_NA: Float32) -> Array:
        """Return the best action of an answer: (N,) int64, or (N, A) float32 inside [-1, 1]."""
        if self._action.kind == "discrete":
            return np.asarray(output_NA.argmax(axis=1))
        return np.asarray(np.clip(output_NA, np.float32(-1), np.float32(1)))

    def _practiced(self, batch: Batch, progress: float) -> dict[str, float]:
        """Let the teacher learn from its own driving; decide whether it is worth a check."""
        metrics = self._practice.update(batch, progress=progress)
        count, failed = self._counted(_failed(batch))
        self._practised += count
        failing = failed / count
        if self._practised >= self._longest:
            self._graduate()
        elif (
            self._practised >= self.settings.teacher_steps
            and failing * self.settings.check < _HOPEFUL
        ):
            self._name = "check"
            self._teacher = NumpyPolicy(*self._practice.policy_state())
        return metrics | {"failing": failing}

    def _checked(self, batch: Batch) -> dict[str, float]:
        """Let the teacher teach if no car failed; else it learns on."""
        # What the noise before had already brought about does not count.
        late = np.asarray(_failed(batch)[len(batch.reward) // 4 :].any(axis=0))
        cars, failed = self._counted(late)
        failing = failed / cars
        self._practised += cars * batch.steps
        if failing <= _TOLERATED or self._practised >= self._longest:
            self._graduate()
        else:
            self._name = "teacher"
        return {"failing": failing}

    def _graduate(self) -> None:
        self._name = "student"
        self._teacher = NumpyPolicy(*self._practice.policy_state())

    # --- the student ---

    def _mixed(self, observation: Mapping[str, Array], uniform: Array) -> Array:
        """Let teacher and student drive; push some of the cars about."""
        settings, rows = self.settings, len(uniform)
        rng, everyone = self._draws(0, self._acts), self._peers.all(rows)
        share = max(0.0, 1.0 - self._acts / settings.handover)
        student = self._peers.spread(rng.random(everyone), rows) >= share
        noisy: Array = np.diff(np.floor(np.arange(everyone + 1) * settings.noisy)) > 0
        noisy = self._peers.spread(noisy, rows)
        self._acts += 1
        if student.all():
            action = self._answer(self._student.output(observation))
        else:
            action = self._answer(self._label(observation))
            seen = {name: observation[name][student] for name in self._actor}
            if student.any():
                action[student] = self._answer(self._student.output(seen))
        drove = student & ~noisy
        self._drove = drove if self._drove is None else self._drove & drove
        if self._action.kind == "discrete":
            wild = noisy & (self._peers.spread(rng.random(everyone), rows) < settings.noise)
            choice = rng.integers(0, self._action.size, everyone)
            return np.where(wild, self._peers.spread(choice, rows), action)
        push = np.float32(settings.noise) * normal_quantile(uniform).astype(np.float32)
        return np.asarray(action + push * noisy[:, None])

    def _imitated(self, batch: Batch) -> dict[str, float]:
        """Remember what was visited, and take gradient steps towards the teacher's answers."""
        settings = self.settings
        frames = {
            name: batch.observation[name].reshape(-1, *batch.observation[name].shape[2:])
            for name in self._names
        }
        self._memory.append(frames)
        self._student.see(frames, self._peers)
        found = []
        size = self._peers.share(settings.minibatch, batch.rows)
        for _ in range(settings.updates):
            rng = self._draws(1, self._student.steps, own=True)
            chosen = self._memory.take(rng.integers(0, self._memory.count, size))
            label = self._label(chosen)
            seen = {name: self._moved(chosen[name], rng) for name in self._actor}
            part = size / settings.minibatch
            found.append(self._student.learn(seen, label, self._learning_rate, self._peers, part))
        self._frames += self._counted(batch.reward)[0]
        assert self._drove is not None
        cars, failed = self._counted(np.asarray(_failed(batch).any(axis=0))[self._drove])
        good = cars > 0 and not failed
        self._calm = self._calm + batch.steps * min(1.0, cars / _MANY) if good else 0.0
        self._drove = None
        metrics = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        if settings.finetune and self._frames >= settings.finetune and self._ready:
            self._begin_finetune()
        return metrics | {
            "frames": float(self._frames),
            "teacher_share": max(0.0, 1.0 - self._acts / settings.handover),
            "failing": failed / cars if cars else 0.0,
            "learning_rate": self._learning_rate,
        }

    @property
    def _ready(self) -> bool:
        """Whether an evaluation would tell more than that the student cannot drive yet."""
        return self._calm >= _STEADY or self._frames >= _LONG

    @property
    def _learning_rate(self) -> float:
        settings, steps = self.settings, self._student.steps
        fall = settings.decay / max(steps, 1) if settings.decay else 1.0
        return settings.learning_rate * math.sqrt(min(1.0, fall))

    def _moved(self, seen_B: Array, rng: np.random.Generator) -> Array:
        if not self.settings.shift or seen_B.ndim != 4:
            return seen_B
        far = self.settings.shift
        return shifted(seen_B, *rng.integers(-far, far + 1, (2, len(seen_B))))

    def _draws(self, purpose: int, count: int, *, own: bool = False) -> np.random.Generator:
        """Return a stream of draws: the same one for all peers, or each its own."""
        seed = self._seed + (self._peers.first << 32) if own else self._seed
        return generator(seed, (_STREAM << 1 | purpose) << 34 | count)

    def _counted(self, own: Array) -> tuple[int, float]:
        """Return how many numbers all peers have here, and their sum."""
        parts, _ = self._peers.gather(np.array([own.size, own.sum(dtype=np.float64)]))
        return int(sum(part[0] for part in parts)), float(sum(part[1] for part in parts))

    def _begin_finetune(self) -> None:
        """Make the student an actor of PPO, and the teacher's critic its critic."""
        self._fine = self._make_fine()
        self._fine.join(self._peers)
        meta, arrays = self._fine.save()
        practised = self._practice.save()[1]
        learned = {k: v for k, v in practised.items() if k.startswith(("critic.", "reward."))}
        learned |= {k: v for k, v in practised.items() if k.startswith("normalizer.")}
        for name, array in self._student.save().items():
            if not name.startswith("adam."):
                learned[name if name.startswith("normalizer.") else f"actor.{name}"] = array
        self._fine.restore(meta, arrays | {k: v for k, v in learned.items() if k in arrays})
        self._name = "finetune"

    def _make_fine(self) -> PPO:
        settings, practice = self.settings, self.settings.practice
        changes = {
            "learning_rate": settings.finetune_rate,
            "critic_learning_rate": practice.learning_rate,
            "initial_std": settings.finetune_std,
            "min_std": min(settings.finetune_std, practice.min_std),
            "max_std": max(settings.finetune_std, practice.max_std),
            "minibatch": settings.minibatch,
            "freeze": tuple(f"actor.{pattern}" for pattern in settings.freeze),
        }
        return make_ppo(
            practice.model_copy(update=changes), self._observation, self._action,
            self._actor, self._critic, seed=self._seed, device=self._device,
        )  # fmt: skip

    # --- checkpoints ---

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself: a JSON-able dictionary, and arrays by name."""
        practice, practised = self._practice.save()
        fine, fined = (None, {}) if self._fine is None else self._fine.save()
        given, taught = (None, {}) if self._given is None else self._given
        meta = {
            "format": 1,
            "kind": "distill",
            "phase": self._name,
            **{name: getattr(self, f"_{name}") for name in _COUNTS},
            "student_steps": self._student.steps,
            "practice": practice,
            "fine": fine,
            "teacher": given,
        }
        parts = {
            "practice": practised,
            "student": self._student.save(),
            "memory": self._memory.save(),
            "fine": fined,
            "teacher": taught,
        }
        return meta, {f"{part}.{k}": v for part, found in parts.items() for k, v in found.items()}

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """
        match("distill", {}, meta, arrays)
        self._practice.restore(meta["practice"], below(arrays, "practice."))
        self._student.restore(below(arrays, "student."), int(meta["student_steps"]))
        self._memory.restore(below(arrays, "memory."))
        self._fine = None
        if meta["fine"] is not None:
            self._fine = self._make_fine()
            self._fine.join(self._peers)
            self._fine.restore(meta["fine"], below(arrays, "fine."))
        if meta["teacher"] is not None:
            self.take_teacher(meta["teacher"], below(arrays, "teacher."))
        elif meta["phase"] != "teacher":
            self._teacher = NumpyPolicy(*self._practice.policy_state())
        self._name = meta["phase"]
        for name in _COUNTS:
            setattr(self, f"_{name}", meta[name])

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved; see `Learner.adopt`.

        Of another distillation both come, the teacher and the student; of any other learner the
        driver, who becomes the student.
        """
        if meta.get("kind") == "distill":
            transfer = self._practice.adopt(meta["practice"], below(arrays, "practice."))
            student, fine = below(arrays, "student."), below(arrays, "fine.")
            for name in student:
                key = name if name.startswith("normalizer.") else f"actor.{name}"
                student[name] = fine.get(key, student[name])
                if name.startswith("last.") and fine:
                    student[name] = fine[f"actor.{name.removeprefix('last.')}"]
            saved, transfer = ({"kind": "distill"}, student), transfer.below("practice.")
        else:
            saved, transfer = (dict(meta), dict(arrays)), Transfer()
        _, mine, taught = carry(
            ({"kind": "distill"}, self._student.save()), saved,
            weights=self._student.weights, frozen=self._student.frozen,
            description=self._student.policy_state()[0], driver=driver,
        )  # fmt: skip
        keep = {k: np.zeros_like(v) for k, v in mine.items() if k.startswith("adam.")}
        self._student.restore({**mine, **keep}, 0)
        return taught + transfer

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from: the student."""
        return (self._student if self._fine is None else self._fine).policy_state()


_COUNTS = ("practised", "acts", "frames", "calm")


def _failed(batch: Batch) -> Array:
    return np.asarray(batch.terminated if batch.failed is None else batch.failed)
