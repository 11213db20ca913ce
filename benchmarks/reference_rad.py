"""The plain RAD that `rrl bench sac` measures against: stored stacks, a loop of crops, torch's own layers.

Written as the methods' released code does it, without any optimisation: the memory holds the stack before and
the stack after each step, channels first; each picture of a batch is cropped by itself; critics, actor and
temperature have ordinary Adams. Nothing here comes from `rrl`.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu


class Memory:
    """`capacity` transitions of stacks [channels, side, side] in uint8."""

    def __init__(self, capacity: int, channels: int, side: int, action_dim: int) -> None:
        self.before = np.empty((capacity, channels, side, side), np.uint8)
        self.after = np.empty((capacity, channels, side, side), np.uint8)
        self.actions = np.empty((capacity, action_dim), np.float32)
        self.rewards = np.empty(capacity, np.float32)

    def fill(self, rng: np.random.Generator) -> None:
        """Random pictures: what is in them costs no time."""
        for array in (self.before, self.after):
            array[:] = rng.integers(0, 256, array.shape, np.uint8)
        self.actions[:] = rng.uniform(-1, 1, self.actions.shape)
        self.rewards[:] = rng.uniform(0, 1, self.rewards.shape)


def crop(pictures: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """[B, C, side, side] -> [B, C, size, size], one random offset for each."""
    count, channels, side, _ = pictures.shape
    out = np.empty((count, channels, size, size), np.uint8)
    rows, columns = (rng.integers(0, side - size + 1, count) for _ in range(2))
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        out[i] = pictures[i, :, row : row + size, column : column + size]
    return out


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Encoder(nn.Module):
    """Four convolutions, a linear layer to 50 numbers, LayerNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, 32, 3, stride=2)])
        self.convolutions.extend(nn.Conv2d(32, 32, 3) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(35 * 35 * 32, 50), nn.LayerNorm(50))

    def forward(self, x: Tensor, detach: bool = False) -> Tensor:
        x = x / 255.0
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        x = x.flatten(1)
        return self.head(x.detach() if detach else x)  # type: ignore[no-any-return]


class Critic(nn.Module):
    """Two Q networks on one encoder."""

    def __init__(self, channels: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(channels)
        self.q1, self.q2 = (mlp((50 + action_dim, hidden, hidden, 1)) for _ in range(2))

    def forward(self, x: Tensor, actions: Tensor, detach: bool = False) -> tuple[Tensor, Tensor]:
        both = torch.cat((self.encoder(x, detach), actions), dim=1)
        return self.q1(both), self.q2(both)


class Actor(nn.Module):
    """A squashed Gaussian on the critics' convolutions and a head of its own."""

    def __init__(self, encoder: Encoder, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.encoder.convolutions = encoder.convolutions  # shared with the critics
        self.mlp = mlp((50, hidden, hidden, 2 * action_dim))

    def forward(self, x: Tensor, detach: bool = False) -> tuple[Tensor, Tensor]:
        mu, raw = self.mlp(self.encoder(x, detach)).chunk(2, dim=1)
        log_std = -10 + 6 * (torch.tanh(raw) + 1)
        noise = torch.randn_like(mu)
        actions = torch.tanh(mu + log_std.exp() * noise)
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return actions, (normal - torch.log(relu(1 - actions.square()) + 1e-6)).sum(1, keepdim=True)


class Plain:
    """RAD with crops of 84 pixels: `update` is one gradient update."""

    def __init__(self, memory: Memory, batch: int = 128, hidden: int = 1024) -> None:
        channels, action_dim = memory.before.shape[1], memory.actions.shape[1]
        self.memory, self.batch, self.action_dim = memory, batch, action_dim
        self.critic = Critic(channels, action_dim, hidden)
        self.target = copy.deepcopy(self.critic)
        self.actor = Actor(self.critic.encoder, action_dim, hidden)
        self.log_alpha = torch.tensor(math.log(0.1), requires_grad=True)
        own = [*self.actor.encoder.head.parameters(), *self.actor.mlp.parameters()]
        self.adams: dict[str, Any] = {
            "critic": torch.optim.Adam(self.critic.parameters(), lr=1e-3),
            "actor": torch.optim.Adam(own, lr=1e-3),
            "alpha": torch.optim.Adam([self.log_alpha], lr=1e-4, betas=(0.5, 0.999)),
        }
        self.updates = 0
        self.rng = np.random.default_rng(0)

    def update(self) -> float:
        """One update; returns the critics' loss."""
        index = self.rng.integers(0, len(self.memory.rewards), self.batch)
        before = torch.as_tensor(crop(self.memory.before[index], 84, self.rng)).float()
        after = torch.as_tensor(crop(self.memory.after[index], 84, self.rng)).float()
        actions = torch.as_tensor(self.memory.actions[index])
        rewards = torch.as_tensor(self.memory.rewards[index])[:, None]
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            chosen, log_prob = self.actor(after)
            y = rewards + 0.99 * (torch.minimum(*self.target(after, chosen)) - alpha * log_prob)
        q1, q2 = self.critic(before, actions)
        loss = mse_loss(q1, y) + mse_loss(q2, y)
        self._step("critic", loss)
        if self.updates % 2 == 0:
            chosen, log_prob = self.actor(before, detach=True)
            q = torch.minimum(*self.critic(before, chosen, detach=True))
            self._step("actor", (alpha * log_prob - q).mean())
            self._step("alpha", (self.log_alpha.exp() * (-log_prob + self.action_dim).detach()).mean())
            for mine, other in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                mine.data.copy_(0.99 * mine.data + 0.01 * other.data)
        self.updates += 1
        return loss.item()

    def _step(self, name: str, loss: Tensor) -> None:
        self.adams[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adams[name].step()
