"""What the tests of the Adroit environments share."""

import numpy as np

from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest

TASKS = ("pen", "door", "hammer", "relocate")
SMALL = FrameRequest(64, 64)


def make(task, frames=None, **settings):
    return Adroit(Adroit.Config(task=task, **settings)).make_one(frames)


def actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.2, 1.2, (steps, *env.action_space.shape)).astype(np.float32)
