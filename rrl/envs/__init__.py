"""Environments. Importing this package registers them, with gymnasium too; it imports no simulator."""

from rrl.envs.adroit import Adroit
from rrl.envs.any_gym import Gymnasium
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.dmcontrol import DMControl
from rrl.envs.gym_ids import register_ids
from rrl.envs.mjrl import MJRL

__all__ = ["MJRL", "Adroit", "DMControl", "EnvFactory", "FrameRequest", "Gymnasium"]

register_ids()
