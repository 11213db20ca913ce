"""The policy and the value network of NPG, DAPG and BC, as in the authors' released code.

Initial weights come from the generator that the caller passes, never from torch's global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class GaussianPolicy(nn.Module):
    """pi(a|o) = Normal(mean(o), exp(log_std)) with a tanh network for the mean and a state-independent std.

    mean(o) = out_scale * mlp((o - in_shift) / (in_scale + 1e-8)) + out_shift. The four transforms are
    the identity until behaviour cloning sets them from demonstrations, and stay fixed afterwards.
    Nothing is squashed or clipped: the environment clips actions.
    """

    in_shift: Tensor
    in_scale: Tensor
    out_shift: Tensor
    out_scale: Tensor

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        min_log_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.min_log_std = min_log_std
        self.mlp = mlp((obs_dim, *hidden, action_dim), nn.Tanh, generator)
        self.log_std = nn.Parameter(torch.zeros(action_dim))
        self.register_buffer("in_shift", torch.zeros(obs_dim))
        self.register_buffer("in_scale", torch.ones(obs_dim))
        self.register_buffer("out_shift", torch.zeros(action_dim))
        self.register_buffer("out_scale", torch.ones(action_dim))
        with torch.no_grad():  # begin near the mean action, whatever the observation
            for parameter in self.mlp[-1].parameters():
                parameter.mul_(0.01)

    def mean(self, obs: Tensor) -> Tensor:
        """Observations [N, n] -> mean actions [N, m]."""
        return self(self.standardise(obs))  # type: ignore[no-any-return]

    def standardise(self, obs: Tensor) -> Tensor:
        """The input transform alone: [N, n] -> [N, n]. Training computes it once per batch."""
        return (obs - self.in_shift) / (self.in_scale + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """`standardise`d observations [N, n] -> mean actions [N, m]."""
        return self.out_scale * self.mlp(x) + self.out_shift  # type: ignore[no-any-return]

    def log_prob(self, mean: Tensor, actions: Tensor) -> Tensor:
        """log pi(a|o) of actions [N, m] under mean actions [N, m] -> [N]."""
        z = (actions - mean) / self.log_std.exp()
        m = actions.shape[-1]
        return -0.5 * z.square().sum(-1) - self.log_std.sum() - 0.5 * m * math.log(2 * math.pi)

    def trainable(self) -> list[nn.Parameter]:
        """What the natural gradient moves, in the order of the flat vector: W1, b1, W2, b2, ..., log_std."""
        return [*self.mlp.parameters(), self.log_std]

    def flat(self) -> Tensor:
        """All of `trainable()` as one float64 vector (a copy)."""
        return flatten(self.trainable())

    def split(self, vector: Tensor) -> list[Tensor]:
        """A flat vector cut into the shapes (and cast to the dtype) of `trainable()`."""
        parameters = self.trainable()
        pieces = torch.split(vector, [p.numel() for p in parameters])
        return [piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, parameters, strict=True)]

    @torch.no_grad()
    def set_flat(self, vector: Tensor) -> None:
        """Set all of `trainable()` from one vector; log_std is clamped from below at `min_log_std`."""
        for parameter, value in zip(self.trainable(), self.split(vector), strict=True):
            parameter.copy_(value)
        self.log_std.clamp_(min=self.min_log_std)

    @torch.no_grad()
    def set_std(self, std: Tensor, factor: float) -> None:
        """Set the exploration std to `std` [m] times `factor`; neither falls below exp(`min_log_std`)."""
        self.log_std.copy_(std.log()).clamp_(min=self.min_log_std)
        self.log_std.add_(math.log(factor)).clamp_(min=self.min_log_std)


class ValueNet(nn.Module):
    """Estimates the discounted return from observation and step index (the authors' "MLP baseline")."""

    def __init__(self, obs_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = mlp((obs_dim + 4, *hidden, 1), nn.ReLU, generator)

    @staticmethod
    def features(obs: Tensor, t: NDArray[np.integer]) -> Tensor:
        """[N, n] and step indices [N] -> [N, n + 4]: clip(o, -10, 10) / 10 and (t / 1000)^1..4."""
        powers = torch.as_tensor((t[:, None] / 1000.0) ** np.arange(1, 5), dtype=obs.dtype, device=obs.device)
        return torch.cat((obs.clamp(-10, 10) / 10, powers), dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """`features` [N, n + 4] -> values [N], in units of discounted return."""
        return self.mlp(features).squeeze(-1)  # type: ignore[no-any-return]


def mlp(
    sizes: Sequence[int], activation: Callable[[], nn.Module], generator: torch.Generator
) -> nn.Sequential:
    """Linear layers of these sizes with `activation` between them; weights and biases U(+-1/sqrt(fan_in)).

    `nn.Linear` would draw its initial weights from torch's global generator: it is made without them.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One float64 vector of all entries: sums over it lose nothing to rounding."""
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])
