"""Agents before they are made: their settings and what else is to be known of them, without torch.

A module here and the one of the same name in `rrl.agents` are one page: what can be set, and what is done with it.
"""

from rrl.agents.settings.base import Agent, FrozenAgent
from rrl.agents.settings.dagger import DAgger
from rrl.agents.settings.ferm import FERM
from rrl.agents.settings.npg import BC, DAPG, NPG
from rrl.agents.settings.off_policy import OffPolicyAgent
from rrl.agents.settings.rad import CURL, RAD, SACAE
from rrl.agents.settings.rlpd import RLPD
from rrl.agents.settings.sac import SAC

__all__ = [
    "BC",
    "CURL",
    "DAPG",
    "FERM",
    "NPG",
    "RAD",
    "RLPD",
    "SAC",
    "SACAE",
    "Agent",
    "DAgger",
    "FrozenAgent",
    "OffPolicyAgent",
]
