"""What rrl counts on: it improves, and goes on bit for bit from what it saved."""

from pathlib import Path

import numpy as np
import torch
from my_agent import MyAgent

from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.encoders.state import State
from rrl.rollout.data import Rollout

GOAL = 0.5
"""The best action of the tiny task."""


def made(**settings):
    encoder, config = State(State.Config()), MyAgent.Config(**settings)
    return MyAgent(config, encoder=encoder, state_dim=3, action_dim=1, seed=0, inference=Inference())


def collected(agent, seed, count=64):
    """Episodes of one step: the nearer the action is to the goal, the better."""
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((count, 3)).astype(np.float32)
    actions = agent.act(obs, rng.standard_normal((count, 1)).astype(np.float32))
    return Rollout(
        obs=obs,
        actions=actions,
        rewards=-np.square(actions[:, 0] - GOAL).astype(np.float64),
        flags={},
        episode=np.arange(count, dtype=np.int32),
        t=np.zeros(count, np.int32),
        terminated=np.ones(count, bool),
        truncated=np.zeros(count, bool),
        final_obs=obs,
    )


def away(agent):
    """The mean action's distance from the goal."""
    obs = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    return float(np.abs(agent.act(obs, None) - GOAL).mean())


def test_it_improves():
    agent = made(lr=1e-2)
    before = away(agent)
    for seed in range(150):
        metrics = agent.update(collected(agent, seed))
    assert all(np.isfinite(value) for value in metrics.values())
    assert before > 0.4
    assert away(agent) < 0.2


def test_it_goes_on_bit_for_bit():
    one, two = made(), made()
    one.update(collected(one, 0))
    two.restore(*one.snapshot())
    for agent in (one, two):
        agent.update(collected(agent, 1))
    assert one.updates == two.updates
    assert all(torch.equal(one.policy_state()[name], tensor) for name, tensor in two.policy_state().items())


def test_its_gin_file_is_a_run():
    config = ginfile.load(Path(__file__).with_name("my_agent.gin"))
    assert isinstance(config.agent, MyAgent.Config)
