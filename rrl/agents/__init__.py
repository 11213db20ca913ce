"""Agents: importing this package registers them."""

from rrl.agents import ferm as ferm
from rrl.agents import npg as npg
from rrl.agents import rad as rad
from rrl.agents import sac as sac
