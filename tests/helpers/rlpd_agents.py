"""Small RLPD agents and their demonstrations."""

import numpy as np

from helpers.sac_agents import make, rollout_of, some_obs
from rrl.agents.rlpd import RLPD

SMALL = {"critics": 3, "updates_per_step": 2, "actor_every": 2, "policy_hidden": (8,), "bc_batch": 4}


def small(encoder=None, **settings):
    return make(RLPD, encoder=encoder, **(SMALL | settings))


def demonstrations(agent, seed=3):
    rng = np.random.default_rng(seed)
    obs, final = agent.observe_demo(some_obs(agent, 10, rng)), agent.observe_demo(some_obs(agent, 2, rng))
    return rollout_of(obs, final, [5, 5], rewards=100 + np.arange(10), rng=rng)
