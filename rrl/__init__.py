"""rrl: visual robot learning as a matter of configuration."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrl.encoders.base import Inference as Inference
    from rrl.encoders.observation import EncodedObservation as EncodedObservation
    from rrl.encoders.observation import EncodedVectorObservation as EncodedVectorObservation
    from rrl.run.policies import LoadedPolicy

__version__ = "0.2.0"
_LIVES_IN = {
    "EncodedObservation": "rrl.encoders.observation",
    "EncodedVectorObservation": "rrl.encoders.observation",
    "Inference": "rrl.encoders.base",
}
"""Public names that need torch, imported when they are asked for."""


def load_policy(source: str | Path) -> LoadedPolicy:
    """A trained policy from its file or folder, or a shipped one by name: see `rrl.run.policies.LoadedPolicy`."""
    from rrl.run import policies  # torch: not needed by `rrl --help`

    return policies.load_policy(source)


def __getattr__(name: str) -> Any:
    if name not in _LIVES_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LIVES_IN[name]), name)
