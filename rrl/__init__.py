"""rrl: visual robot learning as a matter of configuration.

`__all__` holds what other programs may count on, beside the names of the rooms (`rrl.envs`, `rrl.encoders`,
`rrl.agents`, `rrl.demos`, `rrl.evaluators`, `rrl.trackers`). Importing this imports nothing else: neither torch nor
numpy.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrl.encoders.base import Inference as Inference
    from rrl.encoders.observation import EncodedObservation as EncodedObservation
    from rrl.encoders.observation import EncodedVectorObservation as EncodedVectorObservation
    from rrl.registry import UserError as UserError
    from rrl.run.experiment import Experiment as Experiment
    from rrl.run.policies import LoadedPolicy as LoadedPolicy

__version__ = "0.2.0"
__all__ = [
    "EncodedObservation",
    "EncodedVectorObservation",
    "Experiment",
    "Inference",
    "LoadedPolicy",
    "UserError",
    "__version__",
    "load_policy",
    "train",
]
_LIVES_IN = {
    "EncodedObservation": "rrl.encoders.observation",
    "EncodedVectorObservation": "rrl.encoders.observation",
    "Experiment": "rrl.run.experiment",
    "Inference": "rrl.encoders.base",
    "LoadedPolicy": "rrl.run.policies",
    "UserError": "rrl.registry",
}
"""Public names that are imported when they are asked for."""


def load_policy(source: str | Path) -> LoadedPolicy:
    """A trained policy from its file or folder, or a shipped one by name: see `rrl.run.policies.LoadedPolicy`."""
    from rrl.run import policies  # torch: not needed by `rrl --help`

    return policies.load_policy(source)


def train(config: Experiment.Config, name: str | None = None, budget: float | None = None) -> Path:
    """Train what `config` describes, as `rrl run` does with a gin file: in this folder's `runs/`, with a checkpoint
    after each update, for `budget` seconds at most (None: to its end). Returns the run's folder.

    UserError where it can't be done as it is configured; SystemExit where Ctrl-C or another signal stopped it, after
    which `rrl resume` goes on. Workers import the program's main module: call it under `if __name__ == "__main__":`.
    """
    from rrl.run import process

    return process.train(config, name, budget)


def __getattr__(name: str) -> Any:
    if name not in _LIVES_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LIVES_IN[name]), name)
