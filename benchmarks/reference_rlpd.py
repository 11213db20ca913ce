"""The plain RLPD that `rrl bench updates` measures against: a list of critics, torch's own layers and optimisers.

The same mathematics as `RLPD`'s update without a clone, as one would write it down: every critic is a network of its
own, called in a loop, with an Adam for all. Nothing here comes from `rrl`.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus


def mlp(sizes: tuple[int, ...], *, norm: bool) -> nn.Sequential:
    """Linear layers of these sizes with ReLU, and LayerNorm before it, between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers[: -3 if norm else -1], *(layers[-3:-2] if norm else []))


class Plain:
    """Actor, critics and temperature; discount 0.99, targets by 0.005, rates 3e-4."""

    def __init__(self, size: int, action_dim: int, critics: int, hidden: tuple[int, ...]) -> None:
        self.action_dim = action_dim
        self.actor = mlp((size, *hidden, 2 * action_dim), norm=False)
        self.critics = nn.ModuleList(mlp((size + action_dim, *hidden, 1), norm=True) for _ in range(critics))
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.optimisers = {
            "actor": torch.optim.Adam(self.actor.parameters(), 3e-4),
            "critic": torch.optim.Adam(self.critics.parameters(), 3e-4),
            "alpha": torch.optim.Adam([self.log_alpha], 3e-4),
        }

    def sample(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log probabilities."""
        mu, raw = self.actor(x).chunk(2, dim=-1)
        log_std = -5 + 3.5 * (torch.tanh(raw) + 1)
        before = mu + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - before - softplus(-2 * before))
        return torch.tanh(before), (normal - slope).sum(-1)

    def step(self, loss: Tensor, name: str) -> None:
        """One of an optimiser."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def update(
        self,
        now: Tensor,
        actions: Tensor,
        rewards: Tensor,
        not_done: Tensor,
        after: Tensor,
        noises: tuple[Tensor, Tensor],
        chosen: list[int],
        *,
        actor: bool,
    ) -> None:
        """Of the critics and, if so, of actor and temperature; then the targets move."""
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            following, _ = self.sample(after, noises[0])
            both = torch.cat((after, following), dim=1)
            value = torch.stack([self.targets[i](both)[:, 0] for i in chosen]).amin(0)
            y = rewards + 0.99 * not_done * value
        both = torch.cat((now, actions), dim=1)
        self.step(torch.stack([mse_loss(critic(both)[:, 0], y) for critic in self.critics]).sum(), "critic")
        if actor:
            own, log_prob = self.sample(now, noises[1])
            both = torch.cat((now, own), dim=1)
            q = torch.stack([critic(both)[:, 0] for critic in self.critics]).mean(0)
            self.step((alpha * log_prob - q).mean(), "actor")
            entropy = -log_prob.detach().mean()
            self.step(self.log_alpha.exp() * (entropy + self.action_dim / 2), "alpha")
        with torch.no_grad():
            for ours, theirs in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                ours.lerp_(theirs, 0.005)
