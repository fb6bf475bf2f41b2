"""Head-to-model: a race of saved drivers by DeepRacer's own rules.

Who leaves the road, stands still, drives back or touches the car ahead waits for a penalty in the
time of the race, and drives on: after a contact from exactly where it waits, else from the middle
of the half of the road that it was nearer to. Of two cars that touch it is the one behind along the
road that pays, however little it is behind. Cars do not push each other; who waits is seen, and
nobody touches it. The race ends when every car has driven its laps, or has stumbled once too often.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov: agent_ctrl, reset, track_geom
and evaluation_worker, and deepracer-for-cloud, scripts/evaluation and docs/head-to-head.md, read
for rules and defaults. What is mended is listed in docs/deepracer-logs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hotlap.crew import Driver
from hotlap.deepracer.logs import PAUSED
from hotlap.deepracer.recorder import Episode, Recorder
from hotlap.penalties import Penalties, PenaltySettings
from hotlap.racing.contest import Contest, Racer, Standings
from hotlap.simulator import Command, State
from hotlap.tasks.rules import Ended, Status
from hotlap.track import Track
from hotlap.track.courses import side
from hotlap.types import Array, Float64

__all__ = ["HeadToModel"]

_APART = 0.5
"""Seconds without touching after which two cars that touch again have another contact."""
_COUNTED = {
    Status.OFF_TRACK: "off_tracks",
    Status.CRASHED: "ran_into",
    Status.IMMOBILIZED: "stuck",
    Status.REVERSED: "stuck",
}


class HeadToModel(Contest):
    """All races of a Standings at once, by DeepRacer's rules; see `Contest`.

    The first place of the grid is on the start line in the outer lane, the next one GRID behind it
    in the inner lane, and so on. In the first race the drivers stand as they are named.

    Args:
        drivers: who races.
        track: on which course, in the direction in which it is driven.
        laps: of a race.
        trials: how many races; in each the drivers stand one place further than in the one before.
        seed: of small differences of the starts, once every driver has had every place.
        threads: how many threads the world uses.
        penalties: what a stumble costs.
    """

    rules = "deepracer"

    def __init__(
        self,
        drivers: Sequence[Driver],
        track: Track,
        laps: int,
        trials: int,
        seed: int,
        threads: int | None,
        penalties: PenaltySettings,
    ) -> None:
        self._penalties = penalties
        inner = side(track.centre, track.inner, track.closed) > 0
        self.first_side = -1.0 if inner else 1.0
        super().__init__(drivers, track, laps, trials, seed, threads)
        rows = np.arange(self._world.rows)
        self._world.fade(rows, True)  # who touches whom is found here: nobody is pushed
        self._fines = Penalties(penalties, self._world, hidden=False)
        self._recorder = Recorder(self._world.tracks, rows, dt=self._dt, late=False)
        self._recorder.begin(self._world.state, on_line=True)
        self._episodes: list[Episode] = []
        self._waited: list[Array] = []
        sizes = [(car.body_length / 2, car.body_width / 2) for car in self._cars]
        self._half: Float64 = np.array(sizes)

    def _patience(self) -> float:
        return self._penalties.resets * self._penalties.longest

    def _command(self) -> Command:
        self._asked = self._crew.command()
        return self._fines.hold(self._asked)

    @property
    def _present(self) -> Array:
        return np.asarray(self._running & ~self._fines.waiting)

    def _judge(self, step: int, before: State, after: State) -> None:
        driving, running = self._present, self._running.copy()
        status = np.where(driving, self._rules.judge(before, after).status, 0)
        status[status == Status.LAP_COMPLETE] = 0  # of an open track; laps are counted below
        behind = self._touch(step, after, driving)
        status[behind] = Status.CRASHED
        self._pass()
        self._lap(step, after)  # who finishes in the moment of a contact has finished
        status[running & ~self._running] = Status.LAP_COMPLETE
        ended = self._fines.judge(Ended(status.astype(np.int32)), after, stay=behind).status
        if step == self._steps_max:
            ended = np.where(self._running & (ended == 0), Status.TIME_UP, ended)
        self._settle(before, after, status, ended.astype(np.int32), running)

    def _settle(
        self, before: State, after: State, status: Array, ended: Array, running: Array
    ) -> None:
        """Count the stumbles, take those off the road whose race is over, and note the step."""
        for which, name in _COUNTED.items():
            self._counts[name][status == which] += 1
        over = running & (ended != 0)
        self._running &= ~over
        for row in np.flatnonzero(over & (ended != Status.LAP_COMPLETE)).tolist():
            self._leave(row)
        fell = np.flatnonzero(self._running & (status != 0))
        if len(fell):  # it stands somewhere else now
            self._crew.take(fell, self._numbers[fell % self._shape[1]])
        self._rules.forgive(np.flatnonzero(self._fines.waiting | (self._fines.status == PAUSED)))
        self._rules.forgive(fell)
        noted = np.where(over, ended, self._fines.status)
        nothing = np.zeros(len(ended), np.float32)
        self._recorder.take(
            before, self._asked, self._crew.chosen, after, nothing, noted, over,
            self._world.state, pauses=self._fines.pauses,
        )  # fmt: skip
        self._episodes += [one for one in self._recorder.episodes() if running[one.car]]

    def _touch(self, step: int, after: State, driving: Array) -> Array:
        """Return who touches a car ahead (N,), and count the contacts that begin.

        Two cars touch if a corner of one is in the other.
        """
        shape = self._shape
        centre = np.stack([after.x, after.y], axis=1).astype(np.float64).reshape(*shape, 2)
        yaw = after.yaw.astype(np.float64).reshape(shape)
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        left = np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
        signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        long, wide = (signs * self._half[:, None]).transpose(2, 0, 1)
        corners = (
            centre[:, :, None]
            + long[None, :, :, None] * ahead[:, :, None]
            + wide[None, :, :, None] * left[:, :, None]
        )
        # (W, i, j, 4): where the corners of car i are, seen from car j
        from_j = corners[:, :, None] - centre[:, None, :, None]
        along = np.abs((from_j * ahead[:, None, :, None]).sum(axis=-1))
        across = np.abs((from_j * left[:, None, :, None]).sum(axis=-1))
        half_long, half_wide = (self._half[None, None, :, None, k] for k in (0, 1))
        inside = ((along < half_long) & (across < half_wide)).any(axis=-1)
        here = driving.reshape(shape)
        touch = (inside | inside.transpose(0, 2, 1)) & here[:, :, None] & here[:, None, :]
        touch[:, range(shape[1]), range(shape[1])] = False
        fresh = step - self._touched > round(_APART / self._dt)
        self._counts["contacts"] += (touch & fresh).sum(axis=2).reshape(-1)
        self._touched[touch] = step
        lead = self._between(after.s.astype(np.float64))
        if self._track.closed:  # the shorter way round: also over the line, and of cars a lap apart
            length = self._track.length
            lead = (lead + length / 2) % length - length / 2
        return np.asarray((touch & (lead < 0)).any(axis=2).reshape(-1))

    # --- what comes of it ---

    def standings(self) -> Standings:
        """Drive all races to their ends, and say how they went."""
        found = super().standings()
        count = self._shape[1]
        by_race = sorted(self._episodes, key=lambda one: one.car)
        episodes = tuple(
            tuple(one for one in by_race if one.car % count == racer.number)
            for racer in found.racers
        )
        return replace(found, episodes=episodes)

    def _remember(self, state: State) -> None:
        super()._remember(state)
        self._waited.append(self._fines.waiting)

    def _traces(self, ranking: Sequence[int]) -> tuple[dict[str, Array], ...]:
        waited, count = np.stack(self._waited), self._shape[1]
        found = super()._traces(ranking)
        for world, trace in enumerate(found):
            rows = world * count + np.array(ranking)
            trace["waiting"] = waited[: len(trace["t"]), rows]
        return found

    def _racer(self, d: int, places: Array, time: Float64, gaps: Float64) -> Racer:
        mine = np.arange(d, self._world.rows, self._shape[1])
        paid = round(float(self._fines.paid[mine].sum()), 6)
        resets = int(self._fines.resets[mine].sum())
        return replace(super()._racer(d, places, time, gaps), resets=resets, penalties_s=paid)
