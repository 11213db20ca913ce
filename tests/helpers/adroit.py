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


SHORT_RUN = (
    "Experiment.num_envs = 2",
    "Experiment.groups = 1",
    "Experiment.threads = 1",
    "Experiment.device = 'cpu'",
    "Experiment.evaluators = ()",
    "Adroit.horizon = 5",
    "DAPG.trajectories = 2",
    "DAPG.value_batch = 4",
    "DAPG.policy_hidden = (8,)",
    "DAPG.bc_epochs = 1",
    "DemoSet.episodes = 1",
)
"""What makes a run of DAPG from the state one of seconds."""
