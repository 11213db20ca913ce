"""Agents. Importing this package registers them, and imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rrl.agents import settings
from rrl.registry import implementation

if TYPE_CHECKING:
    from rrl.agents.base import Agent as Agent
    from rrl.agents.dagger import DAgger as DAgger
    from rrl.agents.ferm import FERM as FERM
    from rrl.agents.frozen import FrozenAgent as FrozenAgent
    from rrl.agents.npg import BC as BC
    from rrl.agents.npg import DAPG as DAPG
    from rrl.agents.npg import NPG as NPG
    from rrl.agents.off_policy import OffPolicyAgent as OffPolicyAgent
    from rrl.agents.rad import CURL as CURL
    from rrl.agents.rad import RAD as RAD
    from rrl.agents.rad import SACAE as SACAE
    from rrl.agents.rlpd import RLPD as RLPD
    from rrl.agents.sac import SAC as SAC

__all__ = settings.__all__


def __getattr__(name: str) -> Any:
    """Its classes, which need torch, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return implementation(getattr(settings, name))
