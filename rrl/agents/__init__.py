"""Agents: `NPG`, `DAPG` and `BC` (importing this package registers them)."""

from rrl.agents import npg as npg
from rrl.agents import sac as sac
