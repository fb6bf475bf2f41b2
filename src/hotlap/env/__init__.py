"""VectorEnv: a Simulator and a Task, N cars at once, behind Gymnasium's vector API.

`advance` is the native step: it resets ended rows within the step and also returns what they had
reached, so that a learner can tell a crash from a lap that only the clock cut off. `reset` and
`step` say the same in Gymnasium's words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from hotlap.blas import leave_out_blas
from hotlap.clock import Clock
from hotlap.config import resolve
from hotlap.crew import Crew, Driver
from hotlap.deepracer.logs import PAUSED
from hotlap.env.drivers import check_opponent, load_driver
from hotlap.env.rewards import make_reward
from hotlap.env.settings import (
    IMAGES,
    SENSORS,
    EnvSettings,
    check_walls,
    plain_actions,
)
from hotlap.errors import ConfigError, MissingFieldError
from hotlap.opponents import SELF, Opponents
from hotlap.penalties import Penalties, PenaltySettings
from hotlap.sim.bands import BANDS, check_size
from hotlap.sim.domain import random_looks
from hotlap.sim.inertial import Imu, Odometry
from hotlap.sim.lens import MountingRanges, random_mountings
from hotlap.sim.native import NativeSimulator
from hotlap.sim.optics import OpticsRanges
from hotlap.sim.relief import CLASSES
from hotlap.sim.traffic import TrafficSettings
from hotlap.simulator import Command, Simulator, State
from hotlap.starts import Starts
from hotlap.tasks.actions import Actions
from hotlap.tasks.observation import StateObservation
from hotlap.tasks.rules import Ended, Rules
from hotlap.threads import available
from hotlap.types import Array, Float32
from hotlap.vehicle import load_vehicle

__all__ = ["EnvSettings", "Episodes", "Transition", "VectorEnv"]


@dataclass(frozen=True, eq=False)
class Episodes:
    """The episodes that ended in one step, one entry each."""

    rows: Array
    """(K,) which rows."""
    status: Array
    """(K,) Status."""
    reward: Float32
    """(K,) sum of the rewards."""
    steps: Array
    """(K,) control steps."""
    completion: Float32
    """(K,) laps driven, 1.0 is one lap; of the laps that the rules ask for, at most 1."""
    lap_time: Float32
    """(K,) the episode's fastest lap [s], infinite where there was none."""


@dataclass(frozen=True, eq=False)
class Transition:
    """What one step of N rows brought."""

    observation: dict[str, Array]
    """By name (N, ...): what the policy sees next; after the reset in rows that ended."""
    reward: Float32
    """(N,)."""
    terminated: Array
    """(N,) bool."""
    truncated: Array
    """(N,) bool."""
    ended: Array
    """(K,) the rows whose episode ended, in order."""
    reached: dict[str, Array]
    """By name (K, ...): what those rows had reached before their reset."""
    episodes: Episodes
    """How those episodes went."""


class VectorEnv(gymnasium.vector.VectorEnv):
    """N cars on their task.

    Args:
        settings: the world and the task.
        rows: how many cars.
        seed: of all random draws; row i of two environments with the same seed is the same.
        first_row: global id of row 0, where several workers share one batch.
        total_rows: how many rows they all have; None: these are all.
        threads: how many threads share the work; the result does not depend on it.
        desynchronize: whether first episodes get random clocks, so that not all cars time out
            together; wanted in training, not in tests.
        simulator: a world to use in place of our own.
        world: a world that others step and this environment only looks at, with sensors of its own:
            then nothing but `observe` and what `Eyes` asks for may be called.
        rivals: the saved drivers of `opponents.drivers` that are known, by the name there; the
            others are read from their Runs.
        penalties: what a stumble costs, so that episodes go on after it; None: it ends them. An
            environment with penalties cannot be saved in the middle of an episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        settings: EnvSettings,
        rows: int,
        *,
        seed: int = 0,
        first_row: int = 0,
        total_rows: int | None = None,
        threads: int | None = None,
        desynchronize: bool = False,
        simulator: Simulator | None = None,
        world: NativeSimulator | None = None,
        rivals: Mapping[str, Driver] | None = None,
        penalties: PenaltySettings | None = None,
    ) -> None:
        leave_out_blas()
        opponents = settings.opponents
        opposing = opponents.cars if opponents.drivers and opponents.share and not world else 0
        cars = settings.traffic.cars + opposing
        if cars > 1 and settings.start.direction == "alternate":
            raise ConfigError(
                "start.direction: cars that share a track all drive the same way; choose forward "
                "or reversed, or traffic.cars=1 without opponents"
            )
        check_walls(settings)
        self.settings = settings
        self.rows = self.num_envs = rows
        self.dt = 1 / settings.control_rate
        names = {*settings.observation.actor, *settings.observation.critic}
        self.names = tuple(name for name in SENSORS if name in names)
        if "color_bands" in names:
            check_size(settings.observation.camera.shape, settings.observation.color_bands)
        self._world = world
        native = simulator or NativeSimulator(
            settings.tracks() if world is None else world.tracks,
            load_vehicle(settings.vehicle),
            rows=rows // settings.traffic.cars * cars if opposing else rows,
            dt=self.dt,
            camera=settings.observation.camera if names & IMAGES else None,
            bands=settings.observation.color_bands if "color_bands" in names else None,
            depth=settings.observation.depth,
            lidar=settings.observation.lidar if "lidar" in names else None,
            looks=random_looks(settings.look, settings.randomize, seed),
            mountings=random_mountings(settings.randomize.mounting, seed),
            randomize=settings.randomize if world is None else None,
            traffic=_with_cars(settings, rows, cars) if world is None else None,
            first_row=first_row // settings.traffic.cars * cars if opposing else first_row,
            threads=threads,
        )
        self.opponents: Opponents | None = None
        self.simulator: Simulator = native
        if opposing and isinstance(native, NativeSimulator):
            known = rivals or {}
            self.opponents = self.simulator = self._oppose(native, cars, seed, threads, known)
        missing = names - {"state", "odometry", "imu"} - self.simulator.provides
        if missing:
            raise MissingFieldError(
                f"the task reads {', '.join(sorted(missing))}; this simulator fills only "
                f"{', '.join(sorted(self.simulator.provides))}. Choose another observation.actor."
            )
        tracks = self.simulator.tracks
        self.lengths = np.array([track.length for track in tracks], np.float32)
        self.actions = Actions(plain_actions(settings.actions))
        self._state_features = StateObservation(
            settings.observation.state,
            tracks,
            shared=settings.shared,
            threads=threads or available(),
        )
        closed = np.array([track.closed for track in tracks])
        self._rules = Rules(
            settings.rules,
            self.lengths,
            closed,
            rows=rows,
            dt=self.dt,
            threads=threads or available(),
        )
        self._reward, self._late = make_reward(settings, tracks, self.dt, threads or available())
        self._seed = seed
        self._desynchronize = desynchronize
        together = (
            {"rows": rows} if total_rows is None else {"rows": total_rows, "first": first_row}
        )
        self._starts = Starts(settings.start, tracks, cars=cars, **together)
        self._inertial: dict[str, Odometry | Imu] = {}
        if "odometry" in names:
            self._inertial["odometry"] = Odometry(settings.observation.odometry, rows, dt=self.dt)
        if "imu" in names:
            self._inertial["imu"] = Imu(settings.observation.imu, rows, dt=self.dt)
        clocks = {name: getattr(settings.observation, name).clock for name in self.names}
        self._clocks = {
            name: Clock(clock, rows, dt=self.dt, stream=SENSORS.index(name))
            for name, clock in clocks.items()
            if not clock.perfect
        }
        self._pending = np.zeros(rows, np.int32)
        self._return = np.zeros(rows, np.float32)
        self._laps = np.zeros(rows, np.int32)
        self._lap_start = np.zeros(rows, np.float32)
        self._lap_best = np.full(rows, np.inf, np.float32)
        self._goal = np.full(rows, np.inf, np.float32)  # where the next lap is complete [m]
        self.breadth = 0.0 if settings.randomize.success else 1.0
        self._watched = self.names
        self.penalties: Penalties | None = None
        if penalties is not None and isinstance(native, NativeSimulator):
            self.penalties = Penalties(penalties, native)
        self._blank = self.save()

        self.spaces: dict[str, gymnasium.spaces.Box] = {n: self._space(n) for n in self.names}
        self.single_observation_space = (
            self.spaces[self.names[0]]
            if len(self.spaces) == 1
            else gymnasium.spaces.Dict(dict(self.spaces))
        )
        self.single_action_space = (
            gymnasium.spaces.Discrete(self.actions.size)
            if self.actions.discrete
            else gymnasium.spaces.Box(-1.0, 1.0, (self.actions.size,), np.float32)
        )
        self._unseen = {n: np.empty((0, *s.shape), s.dtype) for n, s in self.spaces.items()}
        self._none = self._episodes(np.zeros(0, np.intp), Ended(self._pending), self.state)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, rows)
        self.action_space = batch(self.single_action_space, rows)

    breadth: float
    """Share of the ranges of `randomize` that new episodes draw from, in [0, 1]."""

    previous: State
    """What the last `advance` reached, before resets."""

    @property
    def late(self) -> bool:
        """Whether the reward of a step is that of the state before it, as DeepRacer's is."""
        return self._late

    @property
    def margin(self) -> float:
        """Share of each half of the road, next to its border, that counts as beside it.

        Never less than `rules.margin`.
        """
        return self._rules.margin

    @margin.setter
    def margin(self, share: float) -> None:
        self._rules.margin = max(share, self.settings.rules.margin)

    @property
    def lap_best(self) -> float:
        """The fastest lap of the episodes that are still running [s]; infinite if there is none."""
        return float(self._lap_best.min())

    @property
    def state(self) -> State:
        """The state of all rows, after resets."""
        return self.simulator.state

    def _oppose(
        self,
        world: NativeSimulator,
        cars: int,
        seed: int,
        threads: int | None,
        known: Mapping[str, Driver],
    ) -> Opponents:
        """Put saved drivers into the cars of a world that do not learn."""
        settings, rows, tracks = self.settings, world.rows, world.tracks

        def open_eyes(task: Mapping[str, Any]) -> VectorEnv:
            # Whatever they were trained to see, they see it in this world's colours, by their own
            # cameras, which have no errors.
            plain = {"mounting": MountingRanges(), "optics": OpticsRanges()}
            varied = settings.randomize.model_copy(update=plain)
            seen = {"look": settings.look, "randomize": varied}
            own = resolve(EnvSettings, task, seen)
            return VectorEnv(own, rows, seed=seed, world=world, threads=threads)

        names = [name for name in settings.opponents.drivers if name != SELF]
        drivers = [known.get(name) or load_driver(name) for name in names]
        for name, driver in zip(names, drivers, strict=True):
            check_opponent(name, driver, settings)
        lengths = np.array([track.length for track in tracks], np.float32)
        closed = np.array([track.closed for track in tracks])
        return Opponents(
            settings.opponents,
            world,
            Crew(rows, open_eyes),
            Starts(settings.start, tracks, cars=cars, rows=rows),
            Rules(settings.rules, lengths, closed, rows=rows, dt=self.dt),
            learners=settings.traffic.cars,
            drivers=drivers,
        )

    def _space(self, name: str) -> gymnasium.spaces.Box:
        if name == "state":
            return gymnasium.spaces.Box(-1e6, 1e6, (self._state_features.size,), np.float32)
        if name in self._inertial:
            return gymnasium.spaces.Box(-1e6, 1e6, (self._inertial[name].size,), np.float32)
        if name == "color_bands":
            return gymnasium.spaces.Box(0, 1, BANDS, np.float32)
        if name == "lidar":
            lidar = self.settings.observation.lidar
            return gymnasium.spaces.Box(0, lidar.longest, (lidar.size,), np.float32)
        camera = self.settings.observation.camera
        if name == "depth":
            far = self.settings.observation.depth.range_max
            return gymnasium.spaces.Box(0, far, (*camera.shape[:2], 1), np.float32)
        if name == "segmentation":
            return gymnasium.spaces.Box(0, CLASSES - 1, (*camera.shape[:2], 1), np.uint8)
        return gymnasium.spaces.Box(0, 255, camera.shape, np.uint8)

    # --- the native interface ---

    def begin(self) -> dict[str, Array]:
        """Start an episode in every row and return the first observation."""
        everyone = np.arange(self.rows)
        self._start(everyone, first=True)
        if self.opponents is not None:
            self.opponents.restart()
        return self.observe()

    def advance(self, action: Array) -> Transition:
        """Drive one control step, and restart the rows whose episode ended.

        Args:
            action: (N,) integers, or (N, 2) floats of which what exceeds [-1, 1] is cut off.
        """
        before = self.simulator.state
        command = self.actions.decode(action)
        if self.penalties is not None:
            command = self.penalties.hold(command)
        after = self.previous = self.simulator.step(command)
        for sensor in self._inertial.values():
            sensor.advance(before, after, seed=self._seed)
        judged = self._rules.judge(before, after)
        if self.penalties is not None:
            judged = self._penalise(self.penalties, judged, after)
        ended = judged
        if self._late:
            # The last state of an episode is rewarded one step later, together with its end.
            ended = Ended(self._pending)
            self._pending = np.where(self._pending == 0, judged.status, 0).astype(np.int32)
        reward = self._reward(before, command, after, ended)
        self._return += reward
        self._count_laps(after)
        rows = ended.rows
        if len(rows):
            episodes = self._episodes(rows, ended, after)
            bad = int(ended.failed.sum())
            self.breadth = self.settings.randomize.widen(self.breadth, len(rows) - bad, bad)
            reached = self.observe(rows)
            self._start(rows)
        else:
            episodes, reached = self._none, {name: self._unseen[name] for name in self._watched}
        if self.opponents is not None:
            self.opponents.restart()
        return Transition(
            self.observe(), reward, ended.terminated, ended.truncated, rows, reached, episodes
        )

    def _penalise(self, penalties: Penalties, judged: Ended, after: State) -> Ended:
        """Put those back on the road who have stumbled and may go on."""
        ended = penalties.judge(judged, after)
        put = np.flatnonzero(penalties.waiting | (penalties.status == PAUSED))
        if len(put):
            self._rules.forgive(put)
            for sensor in self._inertial.values():
                sensor.begin(put, self.simulator.state, seed=self._seed)
        return ended

    def observe(self, rows: Array | None = None) -> dict[str, Array]:
        """Return the observations of the given rows (all if None), by name."""
        if self._world is not None:
            self._shown(self._world)
        return {name: self._see(name, rows) for name in self._watched}

    def watch(self, names: Collection[str]) -> None:
        """Observe only these of `names` from now on: what nobody sees costs nothing.

        A sensor that was not watched for a while takes its first reading at once.
        """
        for name in set(names) - set(self._watched):
            if name in self._clocks:
                self._clocks[name].forget()
        self._watched = tuple(name for name in self.names if name in names)

    def _see(self, name: str, rows: Array | None) -> Array:
        """Return what drivers see by one sensor: what it measures now, unless it has a clock."""
        if name not in self._clocks:
            return self._measure(name, rows)
        state = self.simulator.state
        rows = np.arange(self.rows) if rows is None else rows
        return self._clocks[name].see(
            lambda due: self._measure(name, due),
            rows,
            seed=self._seed,
            row=state.row[rows],
            episode=state.episode[rows],
            steps=state.steps[rows],
        )

    def _measure(self, name: str, rows: Array | None) -> Array:
        if name == "state":
            return self._state_features(self.simulator.state, rows)
        if name in self._inertial:
            return self._inertial[name](rows)
        return self.simulator.sense(name, rows)

    def save(self) -> dict[str, Array]:
        """Return everything needed to continue exactly, as named arrays."""
        parts = {
            "simulator": self.simulator.save(),
            "rules": self._rules.save(),
            "reward": self._reward.save(),
        }
        arrays = {f"{part}.{k}": v for part, found in parts.items() for k, v in found.items()}
        arrays |= self.save_senses()
        for name in ("pending", "return", "laps", "lap_start", "lap_best"):
            arrays[name] = getattr(self, f"_{name}").copy()
        arrays["seed"] = np.array(self._seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
        arrays["breadth"] = np.array(self.breadth)
        arrays["watched"] = np.array([name in self._watched for name in self.names])
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save` returned."""

        def part(name: str) -> dict[str, Array]:
            return {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{name}.")}

        self.simulator.restore(part("simulator"))
        self._rules.restore(part("rules"))
        self._reward.restore(part("reward"))
        self.restore_senses(arrays)
        for name in ("pending", "return", "laps", "lap_start", "lap_best"):
            setattr(self, f"_{name}", arrays[name].copy())
        goal = (self._laps + 1) * self.lengths[self.simulator.state.track]
        self._goal = goal.astype(np.float32)
        self._seed, self.breadth = int(arrays["seed"]), float(arrays["breadth"])
        watched = arrays.get("watched", np.ones(len(self.names), bool))  # version 0.1 lacks it
        self._watched = tuple(n for n, seen in zip(self.names, watched, strict=True) if seen)

    # --- what a driver needs on a world that others step ---

    def decode(self, action: Array) -> Command:
        """Turn actions into commands."""
        return self.actions.decode(action)

    def look_on(self) -> None:
        """Take in the step that the watched world has just made."""
        assert self._world is not None
        before = self._shown().state
        after = self._shown(self._world).state
        for sensor in self._inertial.values():
            sensor.advance(before, after, seed=self._seed)

    def sit(self, rows: Array) -> None:
        """Begin an episode in rows that the watched world has just put on the road."""
        state = self._shown(self._world).state
        for sensor in self._inertial.values():
            sensor.begin(rows, state, seed=self._seed)

    def _shown(self, world: NativeSimulator | None = None) -> NativeSimulator:
        assert isinstance(self.simulator, NativeSimulator)
        if world is not None:
            self.simulator.show(world)
            self._seed = world.seed
        return self.simulator

    def save_senses(self) -> dict[str, Array]:
        """Return what the sensors remember, as named arrays."""
        parts: dict[str, dict[str, Array]] = {
            **{f"inertial_{name}": one.save() for name, one in self._inertial.items()},
            **{f"clock_{name}": clock.save() for name, clock in self._clocks.items()},
        }
        return {f"{part}.{k}": v for part, found in parts.items() for k, v in found.items()}

    def restore_senses(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what `save_senses` returned."""
        for kind, sensors in (("inertial", self._inertial), ("clock", self._clocks)):
            for name, one in sensors.items():
                start = f"{kind}_{name}."
                one.restore({k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)})

    # --- Gymnasium's interface ---

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every row; `seed` changes all random draws from now on."""
        if seed is not None:
            if not isinstance(seed, int | np.integer):
                raise ConfigError("seed: one integer seeds all cars; a list is not understood")
            self.restore(self._blank)
            self._seed = int(seed)
        return self.unnamed(self.begin()), {}

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Drive one step; ended rows restart within it, `info["final_obs"]` keeps what they saw."""
        t = self.advance(np.asarray(actions))
        info: dict[str, Any] = {}
        if len(t.ended):
            final = np.full(self.rows, None, dtype=object)
            for k, row in enumerate(t.ended):
                final[row] = self.unnamed({name: seen[k] for name, seen in t.reached.items()})
            mask = np.zeros(self.rows, bool)
            mask[t.ended] = True
            found = self._final_info(t)
            info = {"final_obs": final, "_final_obs": mask, "final_info": found}
            info["_final_info"] = mask.copy()
        return self.unnamed(t.observation), t.reward, t.terminated, t.truncated, info

    def _final_info(self, t: Transition) -> dict[str, Any]:
        """Episode statistics in the words of Gymnasium's RecordEpisodeStatistics."""
        values = {
            "r": t.episodes.reward,
            "l": t.episodes.steps,
            "status": t.episodes.status,
            "completion": t.episodes.completion,
            "lap_time": t.episodes.lap_time,
        }
        spread: dict[str, Any] = {}
        for name, ended in values.items():
            spread[name] = np.zeros(self.rows, ended.dtype)
            spread[name][t.ended] = ended
            spread[f"_{name}"] = np.isin(np.arange(self.rows), t.ended)
        return {"episode": spread}

    def unnamed(self, observation: dict[str, Array]) -> Any:
        """Return a lone observation without its name, as its space is."""
        return observation[self.names[0]] if len(self.names) == 1 else observation

    # --- inside ---

    def _start(self, rows: Array, *, first: bool = False) -> None:
        state = self.simulator.state
        start, over = self._starts.draw(
            rows,
            state.row[rows],
            state.episode[rows] + 1,
            seed=self._seed,
            breadth=self.breadth,
        )
        state = self.simulator.reset(rows, start)
        clock = over if first and self._desynchronize else None
        self._rules.begin(rows, clock=clock)
        if self.penalties is not None:
            self.penalties.begin(rows)
        self._reward.begin(rows, state)
        for sensor in self._inertial.values():
            sensor.begin(rows, state, seed=self._seed)
        for array, value in (
            (self._pending, 0),
            (self._return, 0),
            (self._laps, 0),
            (self._lap_start, 0),
            (self._lap_best, np.inf),
            (self._goal, self.lengths[state.track[rows]]),
        ):
            array[rows] = value

    def _count_laps(self, after: State) -> None:
        done = (after.travelled >= self._goal).nonzero()[0]
        if not len(done):
            return
        goal = self._goal[done]
        over = (after.travelled[done] - goal) / np.maximum(after.advance[done], 1e-6)
        at = ((after.steps[done] - over) * self.dt).astype(np.float32)
        self._lap_best[done] = np.minimum(self._lap_best[done], at - self._lap_start[done])
        self._lap_start[done] = at
        self._laps[done] += 1
        self._goal[done] = (self._laps[done] + 1) * self.lengths[after.track[done]]

    def _episodes(self, rows: Array, ended: Ended, after: State) -> Episodes:
        goal = max(1, self.settings.rules.laps)
        laps = after.travelled[rows] / self.lengths[after.track[rows]]
        limit = 1.0 if self.settings.rules.laps else np.inf
        return Episodes(
            rows=rows,
            status=ended.status[rows],
            reward=self._return[rows],
            steps=after.steps[rows],
            completion=np.minimum(np.maximum(laps / goal, 0), limit).astype(np.float32),
            lap_time=self._lap_best[rows],
        )


def _with_cars(settings: EnvSettings, rows: int, cars: int) -> TrafficSettings:
    """Return what shares the road, of so many cars a world."""
    learning = settings.traffic.cars
    if rows % learning:
        raise ConfigError(
            f"traffic.cars: worlds of {learning} cars need a multiple of {learning} cars in all "
            f"(got {rows}); change train.cars or traffic.cars"
        )
    return settings.traffic.model_copy(update={"cars": cars})
