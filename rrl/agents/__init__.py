"""Agents: importing this package registers them."""

from rrl.agents.base import Agent
from rrl.agents.ferm import FERM
from rrl.agents.frozen import FrozenAgent
from rrl.agents.npg import BC, DAPG, NPG
from rrl.agents.off_policy import OffPolicyAgent
from rrl.agents.rad import CURL, RAD, SACAE
from rrl.agents.rlpd import RLPD
from rrl.agents.sac import SAC

__all__ = ["BC", "CURL", "DAPG", "FERM", "NPG", "RAD", "RLPD", "SAC", "SACAE", "Agent", "FrozenAgent", "OffPolicyAgent"]
