"""Environments. Importing this package registers them; it imports neither MuJoCo nor gymnasium."""

from rrl.envs import adroit as adroit
from rrl.envs import dmcontrol as dmcontrol
