"""MyAgent: REINFORCE (Williams 1992), the plainest policy gradient, to begin from."""

from typing import ClassVar

import numpy as np
import torch

from rrl.agents.adam import Adam
from rrl.agents.base import Agent, Episodes
from rrl.agents.frozen import FrozenAgent
from rrl.agents.networks import GaussianPolicy
from rrl.registry import Count, Positive, Width, register


@register
class MyAgent(FrozenAgent):
    """Log-likelihoods of actions, weighted by what was earned after them."""

    class Config(Agent.Config):
        """Settings of MyAgent."""

        trajectories: Count = 20
        """Episodes per update."""
        lr: Positive = 3e-3
        """Adam's learning rate."""
        hidden: tuple[Width, ...] = (64, 64)
        """Units in each hidden tanh layer of the policy."""

        def wants(self):
            """Whole episodes."""
            return Episodes(self.trajectories)

    metrics: ClassVar = {"my_agent/std": "std {:.2f}"}
    """Shown in the line of an update."""
    step_sizes = ("lr",)
    """Settings to lower when it diverges: the error proposes them."""
    speed_ignores = frozenset({"lr"})
    """Settings that change no cost: estimates measure once."""

    def __init__(self, config, **context):
        super().__init__(config, **context)
        self.policy = GaussianPolicy(self.obs_dim, self.action_dim, self.config.hidden, -3.0, self.generator)
        self.to(self.device)
        self.optimisers["policy"] = Adam(self.policy.trainable(), self.config.lr)

    @torch.no_grad()
    def act(self, observed, noise):
        """Rows [N, n], standard normal noise [N, m] or None -> actions [N, m]; None: the mean action."""
        actions = self.policy.mean(torch.as_tensor(observed, device=self.device))
        if noise is not None:
            actions += self.policy.log_std.exp() * torch.as_tensor(noise, device=self.device)
        return actions.cpu().numpy()

    def update(self, rollout):
        """One step up on E log pi(a|o) * (G - mean of G at that time step)."""
        earned = np.zeros((rollout.episodes, rollout.t.max() + 1))
        earned[rollout.episode, rollout.t] = rollout.rewards
        to_go = earned[:, ::-1].cumsum(1)[:, ::-1]  # G, undiscounted
        weights = (to_go - to_go.mean(0))[rollout.episode, rollout.t]
        weights = torch.as_tensor(weights / (weights.std() + 1e-8), dtype=torch.float32, device=self.device)
        obs, actions = (torch.as_tensor(x, device=self.device) for x in (rollout.obs, rollout.actions))
        loss = -(self.policy.log_prob(self.policy.mean(obs), actions) * weights).mean()
        self.optimisers["policy"].step(torch.autograd.grad(loss, self.policy.trainable()))
        self.updates += 1
        return {"my_agent/std": self.policy.log_std.exp().mean().item()}
