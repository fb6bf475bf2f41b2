"""What a world and a task are made of, and what does not fit together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, PositiveFloat

from hotlap.config import Settings
from hotlap.deepracer.files.metadata import Continuous, Metadata
from hotlap.errors import ConfigError
from hotlap.opponents import OpponentSettings
from hotlap.sim.bands import ColorBandsSettings
from hotlap.sim.camera import CameraSettings
from hotlap.sim.domain import RandomizeSettings
from hotlap.sim.inertial import ImuSettings, OdometrySettings
from hotlap.sim.lidar import LidarSettings, RangeLidar
from hotlap.sim.look import Look, LookSettings
from hotlap.sim.relief import DepthSettings, SegmentationSettings
from hotlap.sim.traffic import TrafficSettings
from hotlap.starts import StartSettings
from hotlap.tasks.actions import (
    ActionSettings,
    ContinuousActions,
    GridActions,
    ListActions,
    MetadataActions,
)
from hotlap.tasks.observation import StateSettings
from hotlap.tasks.rewards import ProgressReward, RewardSettings
from hotlap.tasks.rules import RulesSettings
from hotlap.track import DEFAULT_TRACK, Track, load_track, split_names

__all__ = [
    "IMAGES",
    "PICTURES",
    "SENSORS",
    "EnvSettings",
    "ObservationSettings",
    "check_walls",
    "is_discrete",
    "plain_actions",
]

Sensor: TypeAlias = Literal[
    "state", "camera", "lidar", "odometry", "imu", "color_bands", "depth", "segmentation"
]
SENSORS = get_args(Sensor)
PICTURES = frozenset({"camera", "depth", "segmentation"})
"""Observations that are images."""
IMAGES = PICTURES | {"color_bands"}
"""Observations that are made from the camera."""


def _words(given: Any) -> Any:
    """Let `camera,state` on the command line stand for a list."""
    return tuple(given.split(",")) if isinstance(given, str) else given


class ObservationSettings(Settings):
    """What the driver sees, and what the critic sees that judges it in training."""

    actor: Annotated[tuple[Sensor, ...], BeforeValidator(_words)] = Field(("state",), min_length=1)
    """Observations of the policy."""
    critic: Annotated[tuple[Sensor, ...], BeforeValidator(_words)] = Field(("state",), min_length=1)
    """Observations of the value estimate: it exists only in training, so it may see the state."""
    state: StateSettings = StateSettings()
    """What the state observation looks at."""
    camera: CameraSettings = CameraSettings()
    """What the camera is."""
    color_bands: ColorBandsSettings = ColorBandsSettings()
    """How Robotini's colours are read from the camera."""
    lidar: LidarSettings = RangeLidar()
    """What the LIDAR is."""
    depth: DepthSettings = DepthSettings()
    """How far the camera's pixels reach; its size, lens and place are the camera's."""
    segmentation: SegmentationSettings = SegmentationSettings()
    """What the camera's pixels show."""
    odometry: OdometrySettings = OdometrySettings()
    """What wheels and gyroscope tell."""
    imu: ImuSettings = ImuSettings()
    """What accelerometers and gyroscope tell."""


class EnvSettings(Settings):
    """A world and a task."""

    track: str = DEFAULT_TRACK
    """A track's name or file, or generated:100 for a hundred generated ones; several, separated by
    commas, take turns over the cars."""
    vehicle: str = "deepracer"
    """Parameter set of the car, or a TOML file that describes one."""
    control_rate: PositiveFloat = 15.0
    """Control steps in a second [Hz]."""
    actions: ActionSettings = ContinuousActions()
    """What the policy's numbers mean."""
    observation: ObservationSettings = ObservationSettings()
    """What is seen."""
    reward: RewardSettings = ProgressReward()
    """What is rewarded."""
    rules: RulesSettings = RulesSettings()
    """What ends an episode."""
    start: StartSettings = StartSettings()
    """Where episodes begin."""
    look: LookSettings = Look()
    """Colours and widths that the camera sees."""
    randomize: RandomizeSettings = RandomizeSettings()
    """What differs from episode to episode; nothing does in an evaluation."""
    traffic: TrafficSettings = TrafficSettings()
    """What shares the road."""
    opponents: OpponentSettings = OpponentSettings()
    """Which saved drivers share the road."""

    @property
    def shared(self) -> bool:
        """Whether anything shares the road with a car, so that its driver looks out for it."""
        return self.traffic.boxes > 0 or bool(self.opponents.drivers)

    def track_names(self) -> list[str]:
        """Return the names or files of the courses, one by one."""
        names = split_names(self.track)
        if not names:
            raise ConfigError("track: no track given; `hotlap tracks list` shows what there is")
        return names

    def tracks(self) -> tuple[Track, ...]:
        """Load the courses in the driving directions asked for."""
        named = [load_track(name) for name in self.track_names()]
        turned = [track.reversed() for track in named]
        by_direction = {"forward": named, "reversed": turned, "alternate": [*named, *turned]}
        return tuple(by_direction[self.start.direction])


def check_walls(settings: EnvSettings) -> None:
    """Refuse walls that camera and LIDAR would have in different places."""
    seen, look = settings.observation, settings.look
    names = {*seen.actor, *seen.critic}
    both = "lidar" in names and bool(names & IMAGES) and look.wall_height > 0 and seen.lidar.walls
    if both and look.wall_offset != seen.lidar.wall_offset:
        raise ConfigError(
            f"look.wall_offset is {look.wall_offset:g} and observation.lidar.wall_offset "
            f"{seen.lidar.wall_offset:g}: camera and LIDAR would have the walls in different "
            "places; give both the same"
        )


def plain_actions(settings: Any) -> ContinuousActions | GridActions | ListActions:
    """Return actions as they are; those of DeepRacer's file are read."""
    if not isinstance(settings, MetadataActions):
        return settings  # type: ignore[no-any-return]
    space = Metadata.read(settings.path).actions
    if isinstance(space, Continuous):
        return ContinuousActions(
            steering_low_deg=space.steering_low,
            steering_high_deg=space.steering_high,
            speed_low=space.speed_low,
            speed_high=space.speed_high,
        )
    return ListActions(list=space)


def is_discrete(settings: EnvSettings) -> bool:
    """Tell whether a driver chooses among actions, or answers with numbers."""
    return not isinstance(plain_actions(settings.actions), ContinuousActions)
