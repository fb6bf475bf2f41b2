"""The learners' settings, free of torch, so that a configuration is checked before torch loads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from hotlap.config import Settings

__all__ = ["DistillSettings", "NetworkSettings", "PPOSettings"]


class NetworkSettings(Settings):
    """Layers of the actor and, separately, of the critic.

    Who sees a camera goes through `cnn`; who sees only numbers goes through `mlp`.
    """

    mlp: tuple[PositiveInt, ...] = (64, 64)
    """Widths of the tanh layers over numbers."""

    cnn: Literal["small", "deepracer_shallow", "deepracer", "deepracer_deep"] = "small"
    """ReLU layers over a camera: `small` for images of about 48x32 to 64x48, the others as on the
    AWS DeepRacer, for 160x120."""


class PPOSettings(Settings):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    kind: Literal["ppo"] = "ppo"
    """Which algorithm."""

    horizon: PositiveInt = 16
    """Steps of every car between two updates."""

    epochs: PositiveInt = 4
    """How often an update goes through its experience."""

    minibatch: PositiveInt = 512
    """Rows of one gradient step; a batch is cut into equal parts of about this size."""

    learning_rate: PositiveFloat = 2e-3
    """Step size of Adam at the start, and the largest there will be."""

    critic_learning_rate: PositiveFloat | None = None
    """The critic's own step size at the start; the KL schedule leaves it alone. None: the actor's,
    always."""

    schedule: Literal["kl", "linear", "constant"] = "kl"
    """How the step size changes: `kl` brakes when the policy moves too far and lets go again,
    `linear` falls to zero over the budget, `constant` stays."""

    target_kl: PositiveFloat = 0.03
    """Change of the policy in one update [nat]: above twice this the `kl` schedule brakes, below
    half of it it lets go."""

    gamma: float = Field(0.95, ge=0, lt=1)
    """Discount of one step."""

    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of the advantage estimate: 0 trusts the critic, 1 the rewards."""

    clip: float = Field(0.2, gt=0, lt=1)
    """Half-width of the allowed probability ratio, eq. 7."""

    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy bonus."""

    value_loss: Literal["mse", "huber"] = "mse"
    """Error of the value estimate: squared, or squared near and linear from 1 on (Huber 1964)."""

    value_coef: PositiveFloat = 0.5
    """Weight of the value loss where both losses share one gradient norm."""

    value_clip: PositiveFloat | None = None
    """How far a value may move in one update before its loss stops to fall; None: no limit."""

    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients, of actor and critic together, are shortened to this."""

    initial_std: PositiveFloat = 0.5
    """Standard deviation of continuous actions at the start."""

    min_std: PositiveFloat = 0.05
    """It never falls below this,"""

    max_std: PositiveFloat = 1.0
    """nor rises above this."""

    normalize_observations: bool = True
    """Whether numbers (not images) are brought to mean 0 and deviation 1 as seen so far."""

    normalize_rewards: bool = True
    """Whether rewards are divided by the deviation of the return as seen so far."""

    normalize_advantages: bool = True
    """Whether each minibatch's advantages are brought to mean 0 and deviation 1."""

    network: NetworkSettings = NetworkSettings()
    """Layers of the actor and of the critic."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the layers. `auto`: bfloat16 for cameras where the processor has it."""

    threads: int = Field(0, ge=0)
    """Threads that share a minibatch of images, or of over 1024 rows; 0: one a core. The result
    does not depend on it."""


class DistillSettings(Settings):
    """A teacher that sees the state shows a student how (Ross et al. 2011, arXiv:1011.0686)."""

    kind: Literal["distill"] = "distill"
    """Which algorithm."""

    teacher: str = ""
    """A Run whose driver teaches, and sees no more than `observation.critic`. Empty: a teacher of
    our own learns first."""

    practice: PPOSettings = PPOSettings(gamma=0.9, learning_rate=3e-3, target_kl=0.05)
    """How a teacher of our own learns, and the layers, arithmetic and threads of the student."""

    margin: float = Field(0.25, ge=0, lt=1)
    """Share of each half of the road, next to its border, that is closed while the teacher
    learns: the student, who follows it with errors, has that much room."""

    check: PositiveInt = 64
    """Steps that all cars have to drive by the teacher without a failure before it may teach."""

    patience: PositiveInt = 1_000_000
    """Steps over all cars after which it teaches, whether it has passed the check or not."""

    horizon: PositiveInt = 2
    """Steps of every car in a round of the student."""

    handover: PositiveInt = 16
    """Steps of every car over which the share of actions that are the teacher's falls from one to
    nothing."""

    noisy: float = Field(0.3, ge=0, le=1)
    """Share of the cars that are pushed about, so that there are errors to recover from."""

    noise: float = Field(0.2, ge=0)
    """How they are pushed: standard deviation that is added to continuous actions, probability of
    another choice among discrete ones."""

    updates: PositiveInt = 4
    """Minibatches after each round of the student."""

    minibatch: PositiveInt = 128
    """Frames of one of them."""

    memory: PositiveInt = 16_384
    """Newest frames to learn from; they are part of every checkpoint."""

    learning_rate: PositiveFloat = 3e-3
    """Step size of Adam at the start of the student,"""

    decay: NonNegativeInt = 500
    """which falls with the root of the minibatches beyond so many; 0: it stays."""

    averaging: float = Field(0.97, ge=0, lt=1)
    """Share that a minibatch leaves of the running average of the weights. The average drives: the
    weights themselves swerve with every minibatch."""

    shift: NonNegativeInt = 0
    """Pixels by which an image is shifted at random to any side whenever it is learned from."""

    finetune: NonNegativeInt = 0
    """Frames after which the student, once its cars do not fail, goes on by PPO, with a critic that
    sees `observation.critic`; 0: never."""

    finetune_rate: PositiveFloat = 1e-3
    """Step size of its PPO; the rest of its settings are those of `practice`."""

    finetune_std: PositiveFloat = 0.3
    """Standard deviation of its continuous actions at the start."""
