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

from rrl.agents.adam import Adam

_where_positive = torch.ops.aten.threshold_backward.grad_input
"""(d, h, 0, grad_input=d): d <- d where h > 0 and 0 elsewhere, in one pass: ReLU's backward pass."""


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
        return (obs - self.in_shift).div_(self.in_scale + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """`standardise`d observations [N, n] -> mean actions [N, m]."""
        return self.out_scale * self.mlp(x) + self.out_shift  # type: ignore[no-any-return]

    def log_prob(self, mean: Tensor, actions: Tensor, log_std: Tensor | None = None) -> Tensor:
        """log pi(a|o) of actions [N, m] under mean actions [N, m] -> [N]; `log_std` [m]: its own if None."""
        log_std = self.log_std if log_std is None else log_std
        z = (actions - mean) / log_std.exp()
        m = actions.shape[-1]
        return -0.5 * z.square().sum(-1) - log_std.sum() - 0.5 * m * math.log(2 * math.pi)

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
        n = obs.shape[1]
        features = obs.new_empty(len(obs), n + 4)
        torch.clamp(obs, -10, 10, out=features[:, :n]).div_(10)  # in place: a batch has 100 MB and more
        features[:, n:] = torch.as_tensor((t[:, None] / 1000.0) ** np.arange(1, 5))
        return features

    def forward(self, features: Tensor) -> Tensor:
        """`features` [N, n + 4] -> values [N], in units of discounted return."""
        return self.mlp(features).squeeze(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor, batches: Tensor, optimiser: Adam) -> None:
        """One step of `optimiser`, an Adam of `self.parameters()`, for each row of `batches` [K, size], on
        the mean squared error of these samples: `features` [N, n + 4], `targets` [N].

        Forward and backward pass are written out: with batches this small, autograd's bookkeeping takes as
        long as the arithmetic.
        """
        layers = [layer for layer in self.mlp if isinstance(layer, nn.Linear)]
        gradients = [torch.empty_like(p) for p in optimiser.parameters]
        d_weights, d_biases = gradients[::2], gradients[1::2]
        size = batches.shape[1]
        widths = [features.shape[1], *(layer.out_features for layer in layers)]
        outputs, d = ([features.new_empty(size, width) for width in widths] for _ in range(2))
        for batch in batches:
            torch.index_select(features, 0, batch, out=outputs[0])
            for i, layer in enumerate(layers):
                torch.addmm(layer.bias, outputs[i], layer.weight.t(), out=outputs[i + 1])
                if i + 1 < len(layers):
                    outputs[i + 1].relu_()
            torch.sub(outputs[-1][:, 0], targets[batch], out=d[-1][:, 0]).mul_(2 / size)
            for i, layer in reversed(list(enumerate(layers))):
                torch.mm(d[i + 1].t(), outputs[i], out=d_weights[i])
                torch.sum(d[i + 1], 0, out=d_biases[i])
                if i > 0:
                    torch.mm(d[i + 1], layer.weight, out=d[i])
                    _where_positive(d[i], outputs[i], 0, grad_input=d[i])
            optimiser.step(gradients)


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these sizes with `activation` between them; weights and biases U(+-1/sqrt(fan_in)).

    torch's global generator, from which `nn.Linear` draws weights of its own, stays as it is.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        with torch.random.fork_rng(devices=()):
            linear = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def orthogonal_mlp(sizes: Sequence[int], generator: torch.Generator, *, norm: bool = False) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; orthogonal weights, biases 0 (SAC's networks). `norm`:
    LayerNorm before each ReLU."""
    layers: list[nn.Module] = []
    for layer in mlp(sizes, nn.ReLU, generator):
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        elif norm:
            layers.append(nn.LayerNorm(layers[-1].out_features))
        layers.append(layer)
    return nn.Sequential(*layers)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One float64 vector of all entries: sums over it lose nothing to rounding."""
    return torch.cat([t.detach().reshape(-1).double() for t in tensors])
