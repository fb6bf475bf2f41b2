"""Evaluation: a driver alone on a track, greedy, from several starts; its result is a Report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from hotlap.algorithms.policy import NumpyPolicy
from hotlap.config import resolve
from hotlap.deepracer.logs import FOLDER
from hotlap.deepracer.recorder import Episode, Recorder
from hotlap.env import EnvSettings, VectorEnv
from hotlap.env.drivers import env_settings
from hotlap.errors import ConfigError, RunError
from hotlap.inputs import changed_inputs
from hotlap.limit import Rule, lap_bound
from hotlap.penalties import PenaltySettings
from hotlap.runner import note_step
from hotlap.runs import Run
from hotlap.runs.traces import lap_times
from hotlap.simulator import State
from hotlap.tasks.rules import Status
from hotlap.track import load_track
from hotlap.types import Array
from hotlap.vehicle import load_vehicle

__all__ = ["Report", "env_settings", "evaluate", "evaluate_policy", "load_policy"]

Trace = dict[str, Array]
"""(T,) arrays t, x, y, yaw, speed, steering, command_speed, command_steering, s, n, lap."""

_LAP_SECONDS_PER_METRE = 2.0
"""A driver slower than this does not finish."""


@dataclass(frozen=True)
class Report:
    """How a driver did. Times in seconds; None where there is nothing to say."""

    track: str
    """Its name; with several, the names with commas between."""
    tracks: tuple[str, ...]
    """Each trial's track."""
    vehicle: str
    trials: int
    laps_per_trial: int
    laps_completed: int
    """Over all trials."""
    completion: float
    """Fraction of trials that finished every lap; without penalties, a stumble ends a trial."""
    progress: float
    """Mean fraction of the laps that a trial drove."""
    finished: tuple[bool, ...]
    """Which trials finished every lap."""
    lap_times_s: tuple[tuple[float, ...], ...]
    """Each trial's laps; the first one starts at rest."""
    best_lap_s: float | None
    mean_lap_s: float | None
    """Over all completed laps."""
    off_tracks: int
    """How often a car left the track, which ends its trial unless there are penalties; and so the
    next three."""
    crashes: int
    """How often one ran into an obstacle or another car."""
    immobilized: int
    reversed: int
    timed_out: int
    """Trials that the clock cut off before their last lap was complete."""
    mean_reward: float | None
    """Of an episode, where the reward was computed."""
    resets: int = 0
    """How often a car was put back on the road."""
    trial_resets: tuple[int, ...] = ()
    """The same for each trial."""
    penalties_s: float = 0.0
    """What the cars waited for that, in all; it is part of the lap times."""
    limit_s: float | None = None
    """Flying lap of a point mass with the car's grip and motor, which no driver can beat; None if
    CasADi is not installed, on several tracks, with randomised cars, or where it takes longer than
    an evaluation should wait: then `hotlap tracks limit` computes and keeps it."""
    limit_ratio: float | None = None
    """`best_lap_s` over `limit_s`."""
    changed: tuple[str, ...] = ()
    """What is not what it was when the driver was trained, of its own track and car."""
    alarm: str | None = None
    """What is wrong if a lap was faster than `limit_s`."""
    traces: tuple[Trace, ...] = field(default=(), repr=False, compare=False)
    """What each trial drove."""
    episodes: tuple[Episode, ...] = field(default=(), repr=False, compare=False)
    """The same as DeepRacer logs it, lap by lap; empty if that was not asked for."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the traces, ready for JSON."""
        plain = asdict(replace(self, traces=(), episodes=()))
        return {k: v for k, v in plain.items() if k not in ("traces", "episodes")}

    @property
    def best_trial(self) -> int:
        """The trial with the fastest complete lap, else the one that came furthest."""
        fastest = [min(times, default=np.inf) for times in self.lap_times_s]
        if np.isfinite(min(fastest, default=np.inf)):
            return int(np.argmin(fastest))
        return int(np.argmax([trace["travelled"][-1] for trace in self.traces]))


def load_policy(path: str | Path, checkpoint: Literal["best", "last"] = "best") -> NumpyPolicy:
    """Load the driver of a run; `policy.act(observation) -> action`. Needs no torch.

    One with a memory wants to hear of each episode that begins: `policy.begin(rows)`.
    """
    return NumpyPolicy(*Run.open(path).read_policy(checkpoint))


def evaluate(
    run: Run | str | Path,
    *,
    track: str | None = None,
    trials: int | None = None,
    laps: int = 3,
    checkpoint: Literal["best", "last"] = "best",
    randomized: bool = False,
    recorded: bool | None = False,
    penalties: PenaltySettings | None = None,
    witness: Callable[[NumpyPolicy, Mapping[str, Array]], None] | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Report:
    """Let a run's driver lap.

    Args:
        run: the Run or its directory.
        track: name or file of another track, or several with commas between, over which the trials
            take turns; the run's first one if None.
        trials: from how many starts; 5 if None, with penalties 1, or as many as there are tracks.
            The first is on the start line, at rest; the others are spread over the lap, and a
            little off the line as `seed` decides.
        laps: how many laps each trial is to finish; on an open track it is once to its end.
        checkpoint: which driver of the run.
        randomized: whether each trial has a car and a look of its own, from the run's whole ranges.
        recorded: whether the report shall hold the episodes as DeepRacer logs them; None: if the
            run keeps such logs. Their rewards are 0, for the run's reward file is not executed.
        penalties: what a stumble costs, where trials go on after it as in DeepRacer's evaluations;
            None: it ends the trial.
        witness: told before each step who drives, with what it remembers, and what all cars see.
        seed: of the starts, cars and looks.
        threads: how many threads the world uses.

    Raises:
        RunError: this is not a Run, or it has no such checkpoint.
        TrackError: there is no such track.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    policy = NumpyPolicy(*opened.read_policy(checkpoint))
    settings = env_settings(opened)
    course = settings.track_names()[0] if track is None else track
    settings = settings.model_copy(update={"track": course})
    count = len(settings.track_names())
    if trials is None:
        trials = max(5 if penalties is None else 1, count)
    elif track is not None and trials < count:
        raise ConfigError(f"trials: {count} tracks need as many starts (got {trials})")
    size = (policy.action.kind == "discrete", policy.action.size)
    env = evaluation_env(
        settings,
        trials=trials,
        laps=laps,
        randomized=randomized,
        penalties=penalties,
        threads=threads,
    )
    if size != (env.actions.discrete, env.actions.size):
        raise RunError(
            f"{opened.path}: the driver answers {policy.action.kind} actions of size "
            f"{policy.action.size}, but config.toml describes {env.actions.size}; "
            "the file was changed after training"
        )
    if recorded is None:
        recorded = (opened.path / FOLDER).is_dir()

    def act(observation: Mapping[str, Array]) -> Array:
        if witness is not None:
            witness(policy, observation)
        return policy.act(observation)

    report = evaluate_policy(env, act, begin=policy.begin, seed=seed, recorded=recorded)
    report = replace(report, changed=tuple(changed_inputs(opened, env.settings)))
    return report if randomized else _with_limit(report, env)  # other cars, other limits


def _with_limit(report: Report, env: VectorEnv) -> Report:
    """Put the best lap beside the bound that no driver can beat; costs up to three seconds once."""
    rule = cast(Rule, env.settings.rules.off_track)
    if len(env.simulator.tracks) > 1:
        return report
    bound = lap_bound(env.simulator.tracks[0], load_vehicle(env.settings.vehicle), rule)
    if bound is None:
        return report
    report = replace(report, limit_s=bound.lap_s)
    if report.best_lap_s is None:
        return report
    ratio, alarm = report.best_lap_s / bound.lap_s, None
    if ratio < 1:
        alarm = (
            f"a lap of {report.best_lap_s:.3f} s is faster than physics allows "
            f"({bound.lap_s:.3f} s for {report.vehicle} on {report.track}): the simulator, the "
            "track or the clock is wrong; please report it"
        )
    return replace(report, limit_ratio=ratio, alarm=alarm)


def evaluation_env(
    settings: EnvSettings,
    *,
    trials: int,
    laps: int,
    rewarded: bool = False,
    randomized: bool = False,
    penalties: PenaltySettings | None = None,
    threads: int | None = None,
) -> VectorEnv:
    """Build the environment that evaluates: spread starts at rest, a number of laps.

    Trials take turns over the tracks. With `rewarded`, the run's own reward is computed too; a
    user's file may be slow. Unless `randomized`, all have the nominal car and look.
    """
    direction = "reversed" if settings.start.direction == "reversed" else "forward"
    changes: dict[str, Any] = {
        "observation.critic": list(settings.observation.actor),
        "start": {"kind": "spread", "direction": direction, "offset": settings.start.offset},
    }
    if not rewarded:
        changes["reward"] = "progress"
    plain = settings.model_dump(
        mode="json", exclude_none=True, include=set(EnvSettings.model_fields)
    )
    if randomized:
        changes["randomize.success"] = 0  # the whole ranges
    else:
        plain.pop("randomize")
    courses = [load_track(name) for name in settings.track_names()[:trials]]
    changes["track"] = ",".join(settings.track_names()[:trials])
    laps = laps if all(course.closed for course in courses) else 1
    longest = max(course.length for course in courses)
    limit = max(30.0, longest * laps * _LAP_SECONDS_PER_METRE)
    if penalties is not None:
        limit += penalties.resets * penalties.longest
    changes |= {"rules.laps": laps, "rules.time_limit": limit, "rules.margin": 0}
    if settings.rules.off_track == "never":  # a lap beside the road is no clean lap
        changes["rules.off_track"] = "all_wheels"
    changes["opponents.share"] = 0  # alone, but it looks out for others as it learned to
    changes["rules.crash"] = True  # nor is one that pushes others away
    rows = trials * settings.traffic.cars  # each car of a world is a trial
    return VectorEnv(
        resolve(EnvSettings, plain, changes), rows, threads=threads, penalties=penalties
    )


def evaluate_policy(
    env: VectorEnv,
    act: Callable[[Mapping[str, Array]], Array],
    *,
    begin: Callable[[Array | None], None] | None = None,
    seed: int = 0,
    rewarded: bool = False,
    recorded: bool = False,
) -> Report:
    """Drive every row of an evaluation environment through one episode.

    Every call with the same `seed` has the same starts, so that its reports can be compared.

    Args:
        env: what `evaluation_env` built.
        act: chooses the actions of all rows.
        begin: told the rows whose episodes begin, so that a driver with a memory forgets; None at
            the start: all of them.
        seed: of the starts.
        rewarded: whether the environment computes the run's own reward.
        recorded: whether the report shall hold the episodes as DeepRacer logs them.
    """
    rows, laps = env.rows, env.settings.rules.laps
    env.reset(seed=seed)
    if begin is not None:
        begin(None)
    observation = env.observe()
    running = np.ones(rows, bool)
    status = np.zeros(rows, np.int32)
    reward = np.zeros(rows, np.float32)
    log: list[tuple[State, Array]] = []
    steps = np.zeros(rows, int)
    first = env.state
    episodes: list[Episode] = []
    if recorded:
        recorder = Recorder(env.simulator.tracks, np.arange(rows), dt=env.dt, late=env.late)
        recorder.begin(first)
    stumbles, resets, paid = np.zeros((rows, len(Status)), int), np.zeros(rows, int), np.zeros(rows)
    while running.any():
        action = act(observation)
        before, fines = env.state, env.penalties
        if fines is not None:  # an episode that ends takes its own along
            stumbles[running], resets[running] = fines.stumbles[running], fines.resets[running]
            paid[running] = fines.paid[running]
        step = env.advance(action)
        if recorded:
            note_step(recorder, env, before, action, step, rewarded=rewarded)
            episodes += [one for one in recorder.episodes() if running[one.car]]
        steps += running
        log.append((env.previous, action))
        for k, row in enumerate(step.ended):
            if running[row]:
                running[row] = False
                status[row] = step.episodes.status[k]
                reward[row] = step.episodes.reward[k]
        if begin is not None and len(step.ended):
            begin(step.ended)
        observation = step.observation
    columns = _columns(env, first, log)
    traces = tuple(
        {name: column[: steps[row] + 1, row] for name, column in columns.items()}
        for row in range(rows)
    )
    tracks = [env.simulator.tracks[i] for i in first.track]
    times = []
    for trace, track in zip(traces, tracks, strict=True):
        trace["lap"] = np.floor(trace["travelled"] / np.float32(track.length)).astype(np.int32)
        length = track.length if track.closed else None
        times.append(tuple(float(t) for t in lap_times(trace, length))[:laps])
    finished = status == Status.LAP_COMPLETE
    every = [t for trial in times for t in trial]
    stumbles[np.arange(rows), status] += 1
    counts = stumbles.sum(axis=0)
    driven = [
        min(1.0, float(trace["travelled"][-1]) / (laps * track.length))
        for trace, track in zip(traces, tracks, strict=True)
    ]
    return Report(
        track=",".join(dict.fromkeys(track.name for track in tracks)),
        tracks=tuple(track.name for track in tracks),
        vehicle=env.settings.vehicle,
        trials=rows,
        laps_per_trial=laps,
        laps_completed=len(every),
        completion=float(finished.mean()),
        progress=float(np.clip(np.mean(driven), 0, 1)),
        finished=tuple(bool(done) for done in finished),
        lap_times_s=tuple(times),
        best_lap_s=min(every, default=None),
        mean_lap_s=float(np.mean(every)) if every else None,
        off_tracks=int(counts[Status.OFF_TRACK]),
        crashes=int(counts[Status.CRASHED]),
        immobilized=int(counts[Status.IMMOBILIZED]),
        reversed=int(counts[Status.REVERSED]),
        timed_out=int(counts[Status.TIME_UP]),
        mean_reward=float(reward.mean()) if rewarded else None,
        resets=int(resets.sum()),
        trial_resets=tuple(int(count) for count in resets),
        penalties_s=round(float(paid.sum()), 6),
        traces=traces,
        episodes=tuple(sorted(episodes, key=lambda one: one.car)),
    )


def _columns(env: VectorEnv, first: State, log: list[tuple[State, Array]]) -> dict[str, Array]:
    """Stack the states of all steps, (T + 1, N) an array; the first row is the start."""
    states = [first, *(state for state, _ in log)]
    names = ("x", "y", "yaw", "steering", "s", "n", "travelled", "vx", "vy")
    # np.stack looks at each of a thousand small arrays by itself: ten times slower
    flat = {name: np.concatenate([getattr(state, name) for state in states]) for name in names}
    flat["speed"] = np.hypot(flat.pop("vx"), flat.pop("vy"))
    wanted = env.decode(np.concatenate([log[0][1], *(action for _, action in log)]))
    flat |= {"command_speed": wanted.speed, "command_steering": wanted.steering}
    found = {name: column.reshape(len(states), -1) for name, column in flat.items()}
    if first.around is not None:
        around = [state.around for state in states if state.around is not None]
        found["boxes"] = np.stack([seen.boxes for seen in around])
    t = (np.arange(len(states)) * env.dt).astype(np.float32)
    found["t"] = np.broadcast_to(t[:, None], found["x"].shape)
    return found
