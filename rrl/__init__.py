"""rrl: visual robot learning as a matter of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrl.run.policies import LoadedPolicy

__version__ = "0.2.0"


def load_policy(source: str | Path) -> LoadedPolicy:
    """A trained policy from its file, or a shipped one by name: see `rrl.run.policies.LoadedPolicy`."""
    from rrl.run import policies  # torch: not needed by `rrl --help`

    return policies.load_policy(source)
