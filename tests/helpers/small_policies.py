"""Policy files of untrained agents on small encoders: enough for whatever reads a policy."""

from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.registry import build
from rrl.run import policies

PIXELS = """
include 'method/npg.gin'
include 'env/adroit_door.gin'
Experiment.encoder = @{encoder}()
Experiment.evaluators = ({evaluators})
Adroit.look = 'fast'
Adroit.horizon = 6
NPG.policy_hidden = (8,)
"""
"""A run of six steps, without demonstrations."""


def saved(path, text, state_dim, action_dim):
    """Write the policy file of the run that a gin file's text describes, before any training; returns the agent."""
    config = ginfile.loads(text, "run.gin")
    encoder = build(config.encoder, cameras=len(build(config.env).cameras))
    sizes = {"state_dim": state_dim, "action_dim": action_dim}
    agent = build(config.agent, encoder=encoder, seed=1, inference=Inference(), **sizes)
    policies.save(path, agent, config, {**encoder.identity(), **sizes, "iteration": 0})
    return agent
