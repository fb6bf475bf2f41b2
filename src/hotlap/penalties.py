"""Penalties: a car that stumbles waits, is put back on the road and drives on, as in a race.

DeepRacer's evaluations work so. Leaving the road, a crash, standing still or driving back costs
seconds of the race; then the car stands where it had come to, in the middle of the half of the
road that it was nearer to. After a crash it stands behind what it ran into, on the other half, and
so it does after any stumble close to an obstacle. With mercy it stands ahead of that after a while.

Source: aws-deepracer-community/deepracer-simapp 6.0.5, bundle/markov/reset and agent_ctrl
(rollout_agent_ctrl.py for what is near, and for mercy), and deepracer-for-cloud,
defaults/template-run.env, read for rules and defaults.
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from hotlap.config import Settings
from hotlap.deepracer.logs import PAUSED
from hotlap.sim.native import NativeSimulator
from hotlap.simulator import Command, State
from hotlap.tasks.rules import Ended, Status
from hotlap.types import Array, Float32, Float64, Int32

__all__ = ["Penalties", "PenaltySettings"]

_NEAR = 1.0
"""An obstacle this close along the road decides where a car is put back [m] (CLOSEST_OBJ_GAP)."""
_LANE = 0.5
"""Where a car is put back, as a share of the half road."""


class PenaltySettings(Settings):
    """What a stumble costs where trials go on after it: `hotlap evaluate --deepracer`."""

    resets: NonNegativeInt = 100
    """How often a trial goes on; the next stumble ends it (DR_EVAL_MAX_RESETS)."""
    off_track: NonNegativeFloat = 5.0
    """Wait after leaving the road [s] (DR_EVAL_OFF_TRACK_PENALTY)."""
    collision: NonNegativeFloat = 5.0
    """Wait after a crash [s] (DR_EVAL_COLLISION_PENALTY)."""
    stuck: NonNegativeFloat = 2.0
    """Wait after standing still or driving back [s]."""
    behind: NonNegativeFloat = 1.0
    """Distance behind what it ran into, or an obstacle that is near, at which a car is put back [m]
    (DR_EVAL_RESET_BEHIND_DIST)."""
    mercy: bool = False
    """Whether a car that does not get past an obstacle is put back ahead of it
    (ENABLE_MERCY_RESET)."""
    mercy_after: PositiveInt = 3
    """Which stumble at the same obstacle that is (MAX_RESETS_AFTER_CRASH)."""
    ahead: NonNegativeFloat = 1.0
    """Distance ahead of the obstacle at which mercy puts it [m] (RESET_AHEAD_DIST)."""

    @property
    def longest(self) -> float:
        """The longest wait [s]."""
        return max(self.off_track, self.collision, self.stuck)


class Penalties:
    """Who waits, and what was paid so far, of N rows. Its owner is an environment.

    Args:
        settings: the penalties.
        world: the cars.
        hidden: whether nobody sees those who wait; else it is for the owner to say who is seen.
    """

    status: Int32
    """(N,) how each row stands after the last step: a Status, or PAUSED while it waits."""

    def __init__(
        self, settings: PenaltySettings, world: NativeSimulator, *, hidden: bool = True
    ) -> None:
        self.settings, self._hidden = settings, hidden
        self._world = world
        kinds = {
            Status.OFF_TRACK: settings.off_track,
            Status.CRASHED: settings.collision,
            Status.IMMOBILIZED: settings.stuck,
            Status.REVERSED: settings.stuck,
        }
        self._wait = np.full(len(Status), -1)
        for status, seconds in kinds.items():
            self._wait[status] = round(seconds / world.dt)
        self._lengths = np.array([track.length for track in world.tracks])
        self._closed = np.array([track.closed for track in world.tracks])
        rows = world.rows
        self._left = np.zeros(rows, int)
        self._spot: Float64 = np.zeros((4, rows))
        self._obstacle = np.full(rows, -1)
        self._tries = np.zeros(rows, int)
        self.status = np.zeros(rows, np.int32)
        self.resets = np.zeros(rows, int)
        self.paid: Float64 = np.zeros(rows)
        self.stumbles = np.zeros((rows, len(Status)), int)

    resets: Array
    """(N,) how often each was put back."""
    paid: Float64
    """(N,) what each has to wait for its stumbles, in all [s]."""
    stumbles: Array
    """(N, S) how often each was put back for each Status."""

    def begin(self, rows: Array) -> None:
        """Forget what was in the given rows, whose episodes begin."""
        for array in (self._left, self.status, self.resets, self.paid, self.stumbles):
            array[rows] = 0
        self._obstacle[rows], self._tries[rows] = -1, 0

    @property
    def waiting(self) -> Array:
        """(N,) who waits."""
        return np.asarray(self._left > 0)

    @property
    def pauses(self) -> Float32:
        """(N,) the whole penalty of those who wait [s], 0 of the others."""
        return np.where(self.status == PAUSED, self._spot[2], 0).astype(np.float32)

    def hold(self, command: Command) -> Command:
        """Let those stand who wait, whatever their drivers ask for."""
        held = self.waiting
        zero = np.float32(0)
        return Command(np.where(held, zero, command.steering), np.where(held, zero, command.speed))

    def judge(self, judged: Ended, after: State, stay: Array | None = None) -> Ended:
        """Let those wait who stumbled and may go on; return how the episodes stand then.

        The world puts them where they will drive on. Of those who stumble, who `stay` (N,) wait
        exactly where they are.
        """
        waiting = self.waiting
        status = np.where(waiting, 0, judged.status)
        fallen = (self._wait[status] >= 0) & (self.resets < self.settings.resets)
        self.status = np.where(waiting, PAUSED, status).astype(np.int32)
        self._left = np.maximum(self._left - 1, 0)
        back = np.flatnonzero(waiting & (self._left == 0))
        rows = np.flatnonzero(fallen)
        if len(rows):
            self._fell(rows, status[rows], after)
            if stay is not None:
                kept = rows[stay[rows]]
                self._spot[:2, kept] = after.s[kept], after.n[kept]
                self._spot[3, kept] = after.heading_error[kept]
        held = np.flatnonzero(self.waiting)
        put = np.unique(np.concatenate([rows, held, back]))
        if len(put):
            s, n, _, heading_error = self._spot[:, put]
            self._world.put(put, s, n, after.travelled[put], heading_error)
            if self._hidden:
                self._world.withdraw(held, True)
                self._world.withdraw(back, False)
        return Ended(np.where(fallen, 0, status).astype(np.int32))

    def _fell(self, rows: Array, status: Array, after: State) -> None:
        self.resets[rows] += 1
        self.stumbles[rows, status] += 1
        self._left[rows] = self._wait[status]
        seconds = self._left[rows] * self._world.dt
        self.paid[rows] += seconds
        side = np.where(after.n[rows] < 0, -1.0, 1.0)
        s = after.s[rows].astype(np.float64)
        length = self._lengths[after.track[rows]]
        if after.around is not None:
            box = self._nearest(rows, after, length)
            crashed = status == Status.CRASHED
            box[crashed] = after.around.contact[rows[crashed]]
            by = np.flatnonzero(box >= 0)
            who, box = rows[by], box[by]
            side[by] = np.where(after.around.n[who, box] < 0, 1.0, -1.0)
            spared = self._spare(who, box, after)
            beside = np.where(spared, self.settings.ahead, -self.settings.behind)
            s[by] = after.around.s[who, box] + beside
        s = np.where(self._closed[after.track[rows]], s % length, np.clip(s, 0, length))
        half = np.where(side > 0, after.left[rows], after.right[rows])
        self._spot[:, rows] = s, _LANE * side * half, seconds, np.zeros(len(rows))

    def _nearest(self, rows: Array, after: State, length: Array) -> Array:
        """Return which obstacle is near to where each row is, or -1."""
        assert after.around is not None
        boxes = after.around.boxes[rows]
        if not boxes.shape[1]:
            return np.full(len(rows), -1)
        gap = np.abs(after.around.s[rows] - after.s[rows, None])
        closed = self._closed[after.track[rows], None]
        gap = np.where(closed, np.minimum(gap, length[:, None] - gap), gap)
        gap = np.where((boxes[:, :, 7] == 0) & (boxes[:, :, 6] > 0), gap, np.inf)
        nearest = gap.argmin(axis=1)
        return np.where(gap[np.arange(len(rows)), nearest] < _NEAR, nearest, -1)

    def _spare(self, rows: Array, box: Array, after: State) -> Array:
        """Count stumbles at the same obstacle; return who is put ahead of it out of mercy."""
        assert after.around is not None
        still = after.around.boxes[rows, box, 7] == 0  # a car that is in the way drives on
        again = still & (box == self._obstacle[rows])
        tries = np.where(again, self._tries[rows] + 1, 1)
        spared = still & (tries == self.settings.mercy_after) & self.settings.mercy
        self._obstacle[rows] = np.where(still, box, self._obstacle[rows])
        self._tries[rows] = np.where(still, np.where(spared, 0, tries), self._tries[rows])
        return np.asarray(spared)
