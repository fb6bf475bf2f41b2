"""hotlap trains cars to race: a track, a car and a reward function in, a driver that laps out."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from hotlap.distributed.sweep import sweep as sweep
    from hotlap.distributed.sweep_folder import Sweep as Sweep
    from hotlap.env import EnvSettings as EnvSettings
    from hotlap.env import VectorEnv as VectorEnv
    from hotlap.errors import HotlapError as HotlapError
    from hotlap.evaluate import Report as Report
    from hotlap.evaluate import evaluate as evaluate
    from hotlap.evaluate import load_policy as load_policy
    from hotlap.population import Population as Population
    from hotlap.racing.race import Standings as Standings
    from hotlap.racing.race import race as race
    from hotlap.runs import Run as Run
    from hotlap.track import Track as Track
    from hotlap.track import load_track as load_track
    from hotlap.train import train as train

__version__ = "0.1.0"

_PLACES = {
    "EnvSettings": "env",
    "HotlapError": "errors",
    "Population": "population",
    "Report": "evaluate",
    "Run": "runs",
    "Standings": "racing.race",
    "Sweep": "distributed.sweep_folder",
    "Track": "track",
    "VectorEnv": "env",
    "evaluate": "evaluate",
    "load_policy": "evaluate",
    "load_track": "track",
    "race": "racing.race",
    "sweep": "distributed.sweep",
    "train": "train",
}

__all__ = list(_PLACES)

_TASKS: dict[str, dict[str, Any]] = {
    "hotlap/TimeTrial-v0": {},
    "hotlap/ObjectAvoidance-v0": {"traffic.obstacles": 3},
    "hotlap/HeadToBot-v0": {"traffic.bots": 3},
    "hotlap/HeadToModel-v0": {"opponents.cars": 1},
}
for _id, _settings in _TASKS.items():
    register(
        id=_id,
        entry_point="hotlap.gym:make_env",
        vector_entry_point="hotlap.gym:make_vector_env",
        kwargs=_settings,
    )


class _Package(ModuleType):
    """The package itself: loads a public name when it is used, so that `import hotlap` is quick.

    `hotlap.train` is the verb, not the module of that name: importing a submodule would bind it
    over the function, so those bindings are ignored.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in _PLACES:
            return getattr(import_module(f"hotlap.{_PLACES[name]}"), name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PLACES:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
