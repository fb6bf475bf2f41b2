"""Gymnasium's entry points: one car without autoreset, and N cars, for every registered id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from hotlap.config import resolve
from hotlap.env import EnvSettings, VectorEnv
from hotlap.errors import ConfigError
from hotlap.opponents import SELF
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.simulator import State
from hotlap.tasks.rules import Status

__all__ = ["SingleEnv", "make_env", "make_vector_env"]


class SingleEnv(gymnasium.Env[Any, Any]):
    """One car, without autoreset."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, settings: EnvSettings, *, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode: choose None or 'rgb_array' (got {render_mode!r})")
        self._env = VectorEnv(settings, 1, threads=1)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(settings.control_rate)}
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._eye: Camera | None = None
        self._next: Any = None
        self._seeded = False

    @property
    def state(self) -> State:
        """The state of the car, arrays of length 1; after an episode's end the last it reached."""
        return self._env.state if self._next is None else self._env.previous

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed gives the same episodes."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        self._seeded = True
        # The vector has already begun the next episode: beginning once more would skip it.
        ready, self._next = self._next, None
        if ready is None or seed is not None:
            ready, _ = self._env.reset(seed=seed)
        return self._first(ready), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Drive one control step."""
        t = self._env.advance(np.asarray(action)[None])
        if len(t.ended):
            self._next = self._env.unnamed(t.observation)
            seen = self._env.unnamed({k: v[0] for k, v in t.reached.items()})
            info = self._info() | {
                "status": Status(int(t.episodes.status[0])).name.lower(),
                "completion": float(t.episodes.completion[0]),
                "lap_time": float(t.episodes.lap_time[0]),
            }
        else:
            self._next = None
            seen, info = self._first(self._env.unnamed(t.observation)), self._info()
        return seen, float(t.reward[0]), bool(t.terminated[0]), bool(t.truncated[0]), info

    def render(self) -> Any:
        """Return what the car's camera sees: (120, 160, 3) uint8."""
        if self.render_mode is None:
            return None
        state = self.state
        if self._eye is None:
            rgb = CameraSettings(color="rgb")
            self._eye = Camera(rgb, self._env.simulator.tracks, (self._env.settings.look,))
        look = np.zeros(1, np.int32)
        boxes = None if state.around is None else state.around.boxes
        return self._eye.render(state.x, state.y, state.yaw, state.track, look, boxes=boxes)[0]

    def _first(self, observation: Any) -> Any:
        if isinstance(observation, dict):
            return {name: seen[0] for name, seen in observation.items()}
        return observation[0]

    def _info(self) -> dict[str, Any]:
        state = self.state
        return {
            "s": float(state.s[0]),
            "n": float(state.n[0]),
            "speed": float(np.hypot(state.vx[0], state.vy[0])),
            "travelled": float(state.travelled[0]),
        }


def make_env(render_mode: str | None = None, **settings: Any) -> SingleEnv:
    """Build one car for `gymnasium.make`; keywords are settings (see `make_vector_env`)."""
    return SingleEnv(_task_settings(settings), render_mode=render_mode)


def make_vector_env(num_envs: int = 1, seed: int = 0, **settings: Any) -> VectorEnv:
    """Build N cars for `gymnasium.make_vec`.

    Keywords are settings by section or dotted name: `track="oval"`, `observation="camera"`,
    `reward="racing"`, `**{"rules.time_limit": 20}`.
    """
    settings.pop("render_mode", None)
    return VectorEnv(_task_settings(settings), num_envs, seed=seed)


def _task_settings(settings: Mapping[str, Any]) -> EnvSettings:
    named: dict[str, Any] = dict(settings)
    seen = named.pop("observation", None)
    if isinstance(seen, str | tuple | list):
        names = [seen] if isinstance(seen, str) else list(seen)
        named["observation"] = {"actor": names, "critic": names}
    elif isinstance(seen, Mapping):
        named["observation"] = {"critic": seen.get("actor", ("state",)), **seen}
    elif "observation.actor" in named:
        named.setdefault("observation.critic", named["observation.actor"])
    found = resolve(EnvSettings, {"rules.laps": 3}, named)
    opposed = any(name.startswith("opponents") for name in named)
    if opposed and (not found.opponents.drivers or SELF in found.opponents.drivers):
        raise ConfigError(
            "opponents.drivers: name the runs whose drivers are on the road, as in "
            '**{"opponents.drivers": "runs/oval-ppo-1"}; `self` exists in a training only '
            f"(got {', '.join(found.opponents.drivers) or 'none'})"
        )
    return found
