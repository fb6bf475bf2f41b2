"""The learners' settings, free of torch, so that a configuration is checked before torch loads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from hotlap.config import Settings
from hotlap.errors import ConfigError

__all__ = [
    "DEEPRACER_CNNS",
    "ActorCriticSettings",
    "DDPGSettings",
    "DQNSettings",
    "DistillSettings",
    "NetworkSettings",
    "PPOSettings",
    "PQNSettings",
    "QRSACSettings",
    "RDPGSettings",
    "ReplaySettings",
    "SACSettings",
    "TD3Settings",
    "check_actions",
    "check_capacity",
]

DEEPRACER_CNNS = {
    "DEEP_CONVOLUTIONAL_NETWORK_SHALLOW": "deepracer_shallow",
    "DEEP_CONVOLUTIONAL_NETWORK": "deepracer",
    "DEEP_CONVOLUTIONAL_NETWORK_DEEP": "deepracer_deep",
}
"""Our names of the networks that a `model_metadata.json` may ask for."""


class NetworkSettings(Settings):
    """Layers of the actor and, separately, of the critic.

    Who sees a camera goes through `cnn`; who sees only numbers goes through `mlp`.
    """

    mlp: tuple[PositiveInt, ...] = (64, 64)
    """Widths of the tanh layers over numbers."""

    numbers: Literal["mlp", "robotini"] = "mlp"
    """Layers over numbers: those of `mlp`, or `robotini`, the rectified ones of its racers, 512 and
    256; their LSTM is `memory=256` with `memory_cell="lstm"`. A critic of DDPG's family then sees
    state and action apart, joined by 256 more (`robotini_ddpg/agent.py`)."""

    cnn: Literal[
        "small", "deepracer_shallow", "deepracer", "deepracer_deep", "deepracer_stereo", "airsim"
    ] = "small"
    """ReLU layers over a camera: `small` for images of about 48x32 to 64x48; `deepracer...` as on
    the AWS DeepRacer, for 160x120, whose own words for them are read too (`deepracer_stereo`: what
    its two deeper networks have for a pair of cameras); `airsim` as in the Autonomous Driving
    Cookbook, for 255x59 pixels (Spryn et al. 2018, `rl_model.py`)."""

    beside: tuple[PositiveInt, ...] = ()
    """Widths of the ReLU layers that numbers beside a camera, such as a LIDAR's, pass by
    themselves before they join it; DeepRacer's are 256 and 256. Empty: none."""

    joint: tuple[PositiveInt, ...] = ()
    """Widths of the ReLU layers after a camera and what is beside it have joined; empty: those that
    belong to its `cnn`."""

    @field_validator("cnn", mode="before")
    @classmethod
    def _read_deepracer_s_words(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        word = given.upper()
        whole = f"DEEP_CONVOLUTIONAL_NETWORK_{word}"
        return DEEPRACER_CNNS.get(word) or DEEPRACER_CNNS.get(whole, given)

    memory: NonNegativeInt = 0
    """Recurrent units after those layers, which remember what was seen in an episode (`ppo`
    and `rdpg`); 0: it sees the present alone."""

    memory_cell: Literal["gru", "lstm"] = "gru"
    """Kind of these units: gated recurrent ones, or long short-term memory, as Robotini's racers
    had, with twice the numbers to carry (Hochreiter and Schmidhuber 1997)."""

    previous_action: bool = False
    """Whether it also sees its action of the step before (`ppo` and `rdpg`)."""

    critic_memory: bool | None = None
    """Whether the critic has units of its own too; None: where it sees nothing but what the actor
    sees."""


class _Freezing(Settings):
    freeze: tuple[str, ...] = ()
    """Layers that do not move, by name, with `*` for anything: `camera.conv*`, `actor.hidden0`."""

    @field_validator("freeze", mode="before")
    @classmethod
    def _split_names(cls, given: object) -> object:
        if not isinstance(given, str):
            return given or ()
        return tuple(word.strip() for word in given.split(",") if word.strip())


class PPOSettings(_Freezing):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    kind: Literal["ppo"] = "ppo"
    """Which algorithm."""

    horizon: PositiveInt = 16
    """Steps of every car between two updates."""

    episodes: NonNegativeInt = 0
    """Episodes, of all cars together, that end between two updates, as DeepRacer counts; 0: updates
    come every `horizon` steps."""

    batch_max: PositiveInt = 10_000
    """Transitions, of all cars together, after which an update waits for no more `episodes`."""

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

    adam_epsilon: PositiveFloat = 1e-5
    """What Adam adds to the root of a gradient's mean square before it divides by it."""

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

    epsilon_start: float = Field(0.0, ge=0, le=1)
    """Share of discrete actions that are drawn from all alike, whatever the policy says, at the
    start,"""

    epsilon_end: float = Field(0.0, ge=0, le=1)
    """and from `epsilon_steps` on; between them it falls evenly."""

    epsilon_steps: PositiveInt = 10_000
    """Transitions, over all cars, until then."""

    normalize_observations: bool = True
    """Whether numbers (not images) are brought to mean 0 and deviation 1 as seen so far."""

    normalize_rewards: bool = True
    """Whether rewards are divided by the deviation of the return as seen so far."""

    normalize_advantages: bool = True
    """Whether each minibatch's advantages are brought to mean 0 and deviation 1."""

    network: NetworkSettings = NetworkSettings()
    """Layers of the actor and of the critic."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the layers. `auto`: bfloat16 for cameras where torch computes them and the
    processor has it; small networks are computed without torch, in float32."""

    threads: int = Field(0, ge=0)
    """Threads that share a minibatch of some hundred rows; 0: one a core. The result does not
    depend on it."""

    @model_validator(mode="after")
    def _remembers(self) -> Self:
        if self.network.memory and not self.episodes and self.horizon < 2:
            raise ValueError(
                "horizon: of a single step a network.memory learns nothing; make it 2 or more"
            )
        return self


class ReplaySettings(_Freezing):
    """What all learners from a replay have."""

    horizon: PositiveInt = 4
    """Steps of every car between two updates."""

    capacity: PositiveInt = 200_000
    """Transitions that the replay keeps, over all cars."""

    warmup: NonNegativeInt = 320
    """Transitions that are driven at random before learning begins."""

    minibatch: PositiveInt = 128
    """Transitions of one gradient step."""

    update_ratio: PositiveFloat = 0.25
    """Gradient steps for each transition that was driven; the papers of their time have 1."""

    n_step: PositiveInt = 3
    """Steps of which a target adds up the rewards before it asks the critic."""

    gamma: float = Field(0.95, ge=0, lt=1)
    """Discount of one step."""

    max_grad_norm: PositiveFloat = 10.0
    """Longer gradients are shortened to this, those of actor and critics apart."""

    normalize_observations: bool = True
    """Whether numbers (not images) are brought to mean 0 and deviation 1 as seen so far."""

    normalize_rewards: bool = True
    """Whether rewards are divided by the deviation of the return as seen so far."""

    network: NetworkSettings = NetworkSettings()
    """Layers of the actor and of the critics, or of the Q network."""

    layer_norm: bool = True
    """Whether layers over numbers that estimate values are normalised (Ba, Kiros and Hinton 2016,
    arXiv:1607.06450)."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the layers over cameras. `auto`: bfloat16 where the processor has it."""


class ActorCriticSettings(ReplaySettings):
    """What DDPG, TD3, SAC and QR-SAC have in common."""

    learning_rate: PositiveFloat = 1e-3
    """Step size of Adam for the actor, and for the temperature where there is one."""

    critic_learning_rate: PositiveFloat = 1e-3
    """Step size of Adam for the critics."""

    tau: float = Field(0.01, gt=0, le=1)
    """Share by which the target networks follow at each gradient step."""

    critics: PositiveInt = 2
    """How many critics there are, of which the most pessimistic is believed."""

    actor_delay: PositiveInt = 2
    """Gradient steps of the critics for one of the actor."""


class _Noisy(ActorCriticSettings):
    noise: Literal["gaussian", "ornstein_uhlenbeck"] = "gaussian"
    """Exploration: anew each step, or a walk that returns (Uhlenbeck and Ornstein 1930)."""

    noise_min: NonNegativeFloat = 0.1
    """Deviation of the exploration of the first car;"""

    noise_max: NonNegativeFloat = 0.4
    """and of the last. The others lie evenly between."""

    ou_theta: float = Field(0.15, gt=0, le=1)
    """Share by which the walk returns in a step."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.noise_min > self.noise_max:
            raise ValueError(
                f"noise_min is {self.noise_min:g} and must not be above noise_max, which is "
                f"{self.noise_max:g}"
            )
        return self


class DDPGSettings(_Noisy):
    """Deep deterministic policy gradients (Lillicrap et al. 2016, arXiv:1509.02971)."""

    kind: Literal["ddpg"] = "ddpg"
    """Which algorithm."""

    critics: PositiveInt = 1
    """How many critics there are, of which the most pessimistic is believed."""

    actor_delay: PositiveInt = 1
    """Gradient steps of the critics for one of the actor."""


class TD3Settings(_Noisy):
    """Twin delayed DDPG (Fujimoto, van Hoof and Meger 2018, arXiv:1802.09477)."""

    kind: Literal["td3"] = "td3"
    """Which algorithm."""

    target_noise: NonNegativeFloat = 0.2
    """Deviation of the noise on the actions that targets are computed for;"""

    target_noise_clip: PositiveFloat = 0.5
    """it never exceeds this."""


class RecurrentNetworkSettings(NetworkSettings):
    """Layers of an actor that remembers, and of its critic."""

    memory: PositiveInt = 64
    """Recurrent units after those layers, which remember what was seen in an episode."""

    previous_action: bool = True
    """Whether it also sees its action of the step before."""


class RDPGSettings(_Noisy):
    """Recurrent deterministic policy gradients (Heess et al. 2015, arXiv:1512.04455)."""

    kind: Literal["rdpg"] = "rdpg"
    """Which algorithm."""

    minibatch: PositiveInt = 512
    """Transitions of one gradient step; so many `sequence`s as that makes."""

    sequence: PositiveInt = 16
    """Steps of a sequence that are learned from."""

    burn_in: NonNegativeInt = 8
    """Steps before them from which the units only remember (Kapturowski et al. 2019)."""

    network: RecurrentNetworkSettings = RecurrentNetworkSettings()
    """Layers of the actor and of the critics."""

    @model_validator(mode="after")
    def _remembers(self) -> Self:
        if self.burn_in + self.sequence < 2:
            raise ValueError(
                "sequence: of a single step nothing is remembered; make sequence or burn_in longer"
            )
        return self


class _Soft(ActorCriticSettings):
    actor_delay: PositiveInt = 1
    """Gradient steps of the critics for one of the actor."""

    temperature: NonNegativeFloat | None = None
    """Worth of a nat of entropy, in units of scaled reward; None: found so that the entropy is
    `target_entropy`."""

    initial_temperature: PositiveFloat = 0.1
    """Where that search begins."""

    target_entropy: float | None = None
    """Entropy to hold [nat]; None: minus the number of numbers that an action has, or half of the
    greatest that choices can have."""

    initial_std: float = Field(0.5, ge=0.01, le=7.0)
    """Standard deviation of actions at the start, before they are squashed."""


class SACSettings(_Soft):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905).

    For discrete actions as in Christodoulou 2019, arXiv:1910.07207.
    """

    kind: Literal["sac"] = "sac"
    """Which algorithm."""


class QRSACSettings(_Soft):
    """SAC with quantile critics, as in Gran Turismo Sophy (Wurman et al. 2022, Nature 602)."""

    kind: Literal["qr_sac"] = "qr_sac"
    """Which algorithm."""

    n_step: PositiveInt = 5
    """Steps of which a target adds up the rewards before it asks the critic."""

    quantiles: PositiveInt = 32
    """Quantiles of the return that a critic estimates."""


class _Epsilon(Settings):
    epsilon_start: float = Field(1.0, ge=0, le=1)
    """Share of actions that are drawn at random at the start,"""

    epsilon_end: float = Field(0.02, ge=0, le=1)
    """and from `epsilon_steps` on; between them it falls evenly."""

    epsilon_steps: PositiveInt = 2000
    """Transitions, over all cars, until then."""

    epsilon_ladder: bool = False
    """Whether each car has a share of its own instead, always the same: 0.4 for the first, falling
    to 0.4^8 for the last (Horgan et al. 2018, arXiv:1803.00933)."""


class DQNSettings(ReplaySettings, _Epsilon):
    """Deep Q-learning (Mnih et al. 2015, Nature 518), and what was added to it since."""

    kind: Literal["dqn"] = "dqn"
    """Which algorithm."""

    learning_rate: PositiveFloat = 1e-3
    """Step size of Adam."""

    target_every: PositiveInt = 100
    """Gradient steps between two copies of the network into the target network."""

    double: bool = True
    """Whether the network itself picks the action that the target network values (van Hasselt et
    al. 2016, arXiv:1509.06461)."""

    dueling: bool = False
    """Whether a stream of its own says what the state is worth (Wang et al. 2016,
    arXiv:1511.06581)."""

    head: Literal["mean", "c51", "quantile"] = "mean"
    """What is estimated of the return: its mean; probabilities of fixed values (Bellemare et al.
    2017, arXiv:1707.06887); or quantiles (Dabney et al. 2018, arXiv:1710.10044)."""

    atoms: int = Field(51, ge=2)
    """Values or quantiles, where `head` has such."""

    value_low: float = -10.0
    """Lowest return that `c51` tells apart, in units of scaled reward;"""

    value_high: float = 10.0
    """and the highest."""

    priority: float = Field(0.0, ge=0, le=1)
    """Power of the priorities by which transitions are drawn; 0: all alike (Schaul et al. 2016,
    arXiv:1511.05952)."""

    priority_beta: float = Field(0.4, ge=0, le=1)
    """How far weights make up for priorities at the start; wholly when the budget is spent."""


class PQNSettings(_Epsilon, _Freezing):
    """Q-learning without a replay or a target network (Gallici et al. 2024, arXiv:2407.04811)."""

    epsilon_steps: PositiveInt = 8000
    """Transitions, over all cars, until then."""

    kind: Literal["pqn"] = "pqn"
    """Which algorithm."""

    horizon: PositiveInt = 16
    """Steps of every car between two updates."""

    epochs: PositiveInt = 2
    """How often an update goes through its experience."""

    minibatch: PositiveInt = 256
    """Rows of one gradient step; a batch is cut into equal parts of about this size."""

    learning_rate: PositiveFloat = 1e-3
    """Step size of Adam at the start."""

    schedule: Literal["linear", "constant"] = "constant"
    """How the step size changes: `linear` falls to zero over the budget, `constant` stays."""

    gamma: float = Field(0.95, ge=0, lt=1)
    """Discount of one step."""

    lam: float = Field(0.7, ge=0, le=1)
    """Lambda of the targets: 0 trusts the network, 1 the rewards."""

    max_grad_norm: PositiveFloat = 10.0
    """Longer gradients are shortened to this."""

    normalize_observations: bool = True
    """Whether numbers (not images) are brought to mean 0 and deviation 1 as seen so far."""

    normalize_rewards: bool = True
    """Whether rewards are divided by the deviation of the return as seen so far."""

    network: NetworkSettings = NetworkSettings()
    """Layers of the Q network."""

    layer_norm: bool = True
    """Whether layers are normalised, which is what keeps it stable without a target network."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the layers over cameras. `auto`: bfloat16 where the processor has it."""


class DistillSettings(_Freezing):
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

    teacher_steps: NonNegativeInt = 0
    """Steps over all cars that it learns at least: after a million it drives faster than when it
    first passed, and so will the student."""

    patience: PositiveInt = 1_000_000
    """Steps over all cars, beyond those, after which it teaches, whether it has passed the check
    or not."""

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

    @model_validator(mode="after")
    def _by_steps(self) -> Self:
        if self.practice.episodes:
            raise ValueError(
                "practice.episodes: a teacher's updates come every practice.horizon steps; leave "
                "it at 0"
            )
        return self


def check_capacity(settings: Settings, rows: int) -> None:
    """Check that a replay holds the sequences that are learned from.

    Raises:
        ConfigError: it is too small for so many cars.
    """
    if not isinstance(settings, RDPGSettings):
        return
    need = (settings.burn_in + settings.sequence + 2) * rows
    if settings.capacity < need:
        raise ConfigError(
            f"algorithm.capacity: sequences of {settings.sequence} steps and "
            f"{settings.burn_in} before them, of {rows} cars, need {need:,} transitions "
            f"(got {settings.capacity:,}); keep more, or drive fewer cars"
        )


def check_actions(settings: Settings, *, discrete: bool) -> None:
    """Check that an algorithm can give the actions that are asked for.

    Raises:
        ConfigError: it cannot; the message names those that can.
    """
    kind = getattr(settings, "kind", "")
    numbers = isinstance(settings, ActorCriticSettings) and not isinstance(settings, SACSettings)
    if discrete and numbers:
        raise ConfigError(
            f"algorithm.kind: {kind} answers with numbers, and the actions are "
            "discrete; choose actions=continuous, or algorithm=ppo, sac, dqn or pqn"
        )
    if not discrete and isinstance(settings, DQNSettings | PQNSettings):
        raise ConfigError(
            f"algorithm.kind: {kind} chooses among discrete actions, and these are "
            "continuous; choose actions=grid, or algorithm=ppo, ddpg, rdpg, td3, sac or qr_sac"
        )
