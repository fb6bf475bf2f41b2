"""Learner: the contract of every algorithm, and which settings make which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, runtime_checkable

from pydantic import Field

from hotlap.algorithms.batch import ActionSpec, Batch, ObservationSpec
from hotlap.algorithms.ppo import is_compiled, make_ppo
from hotlap.algorithms.replay import Replay
from hotlap.algorithms.settings import (
    DDPGSettings,
    DistillSettings,
    DQNSettings,
    PPOSettings,
    PQNSettings,
    QRSACSettings,
    RDPGSettings,
    SACSettings,
    TD3Settings,
)
from hotlap.algorithms.transfer import Saved, Transfer
from hotlap.types import Array, Float32

if TYPE_CHECKING:
    from hotlap.algorithms.peers import Peers
    from hotlap.algorithms.scales import Scales

__all__ = [
    "AlgorithmSettings",
    "Divisible",
    "Learner",
    "Phase",
    "Phased",
    "Remembering",
    "learns_compiled",
    "make_learner",
]

AlgorithmSettings: TypeAlias = Annotated[
    PPOSettings
    | DDPGSettings
    | TD3Settings
    | SACSettings
    | QRSACSettings
    | RDPGSettings
    | DQNSettings
    | PQNSettings
    | DistillSettings,
    Field(discriminator="kind"),
]
"""The settings of any algorithm; `kind` says which."""


class Learner(Protocol):
    """Turns experience into a better driver; owns its weights, optimisers and all it remembers.

    Only its owner, the training loop, calls it; it is not safe between threads.
    """

    @property
    def replay(self) -> Replay | None:
        """What it remembers of all experience; None if it learns from the present batch alone.

        `save` leaves it to the training, which writes it piece by piece, and restores it.
        """

    def act(
        self, observation: Mapping[str, Array], uniform: Array, fresh: Array
    ) -> tuple[Array, Float32]:
        """Choose actions to learn from, for N rows.

        Args:
            observation: by name, (N, ...).
            uniform: numbers in (0, 1) that decide the choice: (N, A) for continuous actions, (N, 1)
                for discrete ones.
            fresh: (N,) bool, the rows that begin an episode: what is remembered of them is void.

        Returns:
            (N, A) float32 that the task clips to [-1, 1], or (N,) int64; and the log-probability
            (N,) of the choice, 0 where the algorithm does not use it.
        """

    def greedy(self, observation: Mapping[str, Array]) -> Array:
        """Return the best action for N rows: (N,) int64, or (N, A) float32 inside [-1, 1]."""

    def update(self, batch: Batch, *, progress: float) -> dict[str, float]:
        """Learn from a batch; return metrics.

        Args:
            batch: what `act` led to since the last update.
            progress: share of the budget that is spent, 0 to 1.

        Raises:
            SimulationError: rewards are not finite.
            DivergedError: gradients are not finite; this learner is of no use any more.
        """

    def join(self, peers: Peers) -> None:
        """Learn together with others from now on, from rows that are part of all.

        Each has the same weights and counters; all call `update` as often, each with its own batch.

        Raises:
            ConfigError: this algorithm cannot.
        """

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return all of itself but the replay: a JSON-able dictionary, and arrays by name."""

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue exactly from what `save` returned, given the same settings and shapes.

        Raises:
            RunError: it was saved by another algorithm, version, network or observation.
        """

    def adopt(
        self, meta: Mapping[str, Any], arrays: Mapping[str, Array], driver: Saved | None = None
    ) -> Transfer:
        """Begin a training of its own with what another one saved, before any update.

        Layers are taken by name where their shapes agree; the others begin anew.

        Args:
            meta: what the other one's `save` returned.
            arrays: what the other one's `save` returned.
            driver: what its `policy_state` returned; all that counts of another algorithm.

        Returns:
            What became of every layer.

        Raises:
            RunError: no layer fits.
        """

    def policy_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `hotlap.algorithms.policy.NumpyPolicy` drives from."""


@dataclass(frozen=True)
class Phase:
    """What a learner wants to be collected next."""

    name: str
    """What it does now, in a word that is shown and logged."""
    steps: int
    """Control steps of every car."""
    names: tuple[str, ...]
    """The observations it reads; the others need not be made."""
    margin: float = 0.0
    """Share of each half of the road, next to its border, that counts as beside it."""
    ready: bool = True
    """Whether its driver is worth an evaluation."""
    episodes: int = 0
    """Episodes of all cars after which it has enough before those steps are over; 0: never."""


@runtime_checkable
class Phased(Protocol):
    """A learner that learns in phases."""

    @property
    def phase(self) -> Phase:
        """What it wants now; may change with each `update`."""


@runtime_checkable
class Remembering(Protocol):
    """A learner whose `greedy` may remember what it saw before."""

    def begin(self, rows: Array | None = None) -> None:
        """Forget what `greedy` remembers of some rows, by index, as their episodes begin.

        None: of all of them, and how many there were.
        """


@runtime_checkable
class Divisible(Protocol):
    """A learner of which another process may have a copy, to drive or to learn on from."""

    @property
    def scales(self) -> Scales:
        """The running scales of what it sees and of its rewards."""

    def vector(self) -> Float32:
        """Return all of its weights as one vector, frozen ones too."""

    def assign(self, values: Float32) -> None:
        """Set all of its weights to a vector's values."""

    def counters(self) -> dict[str, Any]:
        """Return what it counts, JSON-able: how much it explores may depend on it."""

    def count(self, counted: Mapping[str, Any]) -> None:
        """Go on counting from what `counters` returned."""


@runtime_checkable
class Taught(Protocol):
    """A learner that may be given a driver to learn from."""

    def take_teacher(
        self,
        description: Mapping[str, Any],
        arrays: Mapping[str, Array],
        saved: Saved | None = None,
    ) -> bool:
        """Learn from this driver, which another learner's `policy_state` returned.

        Args:
            description: of the driver.
            arrays: its weights.
            saved: what that learner's `save` returned, where its critic values what is paid here.

        Returns:
            Whether that critic is of use.

        Raises:
            ConfigError: it reads or answers something else.
        """


def learns_compiled(
    settings: AlgorithmSettings,
    observation: Mapping[str, ObservationSpec],
    actor: Sequence[str],
    critic: Sequence[str],
    actions: int = 2,
) -> bool:
    """Return whether a learner does without torch on the processor; see `make_learner`.

    `actions` counts the numbers or the choices of an action.
    """
    if isinstance(settings, DistillSettings):
        practice = settings.practice
        parts = ((critic, critic), (actor, critic))  # of the teacher, and of the student at last
        return all(is_compiled(practice, observation, *part, actions) for part in parts)
    return isinstance(settings, PPOSettings) and is_compiled(
        settings, observation, actor, critic, actions
    )


def make_learner(
    settings: AlgorithmSettings,
    observation: Mapping[str, ObservationSpec],
    action: ActionSpec,
    actor: tuple[str, ...],
    critic: tuple[str, ...],
    *,
    seed: int,
    device: str,
) -> Learner:
    """Make the learner that some settings describe; torch is imported here, if it is needed.

    Args:
        settings: how to learn.
        observation: what there is to see, by name.
        action: what to answer.
        actor: names of the observations that the driver sees.
        critic: names of the observations that the value estimate sees, often more.
        seed: of the first weights and of every draw.
        device: torch's name for where to compute.

    Raises:
        ConfigError: the settings do not fit what is observed or answered.
    """
    if isinstance(settings, DistillSettings):
        from hotlap.algorithms.distill import Distill

        return Distill(settings, observation, action, actor, critic, seed=seed, device=device)
    if isinstance(settings, PPOSettings):
        return make_ppo(settings, observation, action, actor, critic, seed=seed, device=device)
    if isinstance(settings, DQNSettings):
        from hotlap.algorithms.q_learning import DQN

        return DQN(settings, observation, action, actor, critic, seed=seed, device=device)
    if isinstance(settings, PQNSettings):
        from hotlap.algorithms.q_learning import PQN

        return PQN(settings, observation, action, actor, critic, seed=seed, device=device)
    if isinstance(settings, RDPGSettings):
        from hotlap.algorithms.rdpg import RDPG

        return RDPG(settings, observation, action, actor, critic, seed=seed, device=device)
    from hotlap.algorithms.actor_critic import ActorCritic

    return ActorCritic(settings, observation, action, actor, critic, seed=seed, device=device)
