"""RLPD's networks: what narrows and scales its inputs, the actor behind it, the ensemble of critics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from rrl.agents.networks import orthogonal_mlp
from rrl.agents.sac import Actor

CUT = 10.0
"""Of standardised inputs: what hardly varies in the demonstrations may vary anywhere else."""


class Trunk(nn.Module):
    """Features through a linear layer, LayerNorm and tanh; what else the input holds beside them, as it is."""

    def __init__(self, features: int, row: int, stack: int, width: int, generator: torch.Generator) -> None:
        """For `stack` rows, each of so many `features` and what stands beside them."""
        super().__init__()
        self.features, self.row, self.stack = features, row, stack
        (self.linear,) = orthogonal_mlp((stack * features, width), generator)
        self.norm = nn.LayerNorm(width)
        self.narrower = stack * features - width
        """By how much the output is narrower than the input."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, stack * row + any] -> [B, width + stack * (row - features) + any]."""
        rows, beside = x[:, : self.stack * self.row].view(len(x), self.stack, self.row), x[:, self.stack * self.row :]
        seen = torch.tanh(self.norm(self.linear(rows[..., : self.features].flatten(1))))
        return torch.cat((seen, rows[..., self.features :].flatten(1), beside), dim=1)


class Standardised(nn.Module):
    """Inputs as they vary in the demonstrations: mean 0, std 1, cut at 10; what stands beside the rows, as it is."""

    shift: Tensor
    scale: Tensor

    def __init__(self, row: int, stack: int) -> None:
        """The identity on `stack` rows, but for the cut, until `fit`."""
        super().__init__()
        self.stack = stack
        self.register_buffer("shift", torch.zeros(row))
        self.register_buffer("scale", torch.ones(row))

    def fit(self, rows: NDArray[np.float32], floor: float) -> None:
        """To rows [T, n]; no scale is below `floor` of their mean."""
        mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
        self.shift.copy_(torch.as_tensor(mean))
        self.scale.copy_(torch.as_tensor(std.clip(max(floor * std.mean(), 1e-8))))

    def forward(self, x: Tensor) -> Tensor:
        """[B, stack * row + any] -> the same shape."""
        size = self.stack * len(self.shift)
        rows = (x[:, :size].view(len(x), self.stack, -1) - self.shift) / self.scale
        return torch.cat((rows.clamp(-CUT, CUT).flatten(1), x[:, size:]), dim=1)


class Principal(nn.Module):
    """Features [T, n] -> their leading principal components in the demonstrations [T, width], of std 1 there."""

    shift: Tensor
    project: Tensor
    fitted: Tensor

    def __init__(self, features: int, width: int) -> None:
        """Zeros until `fit`."""
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("project", torch.zeros(features, width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(self, features: Tensor, floor: float) -> None:
        """Of standardised features [T, n], none divided by less than `floor` of the mean std; components that hardly
        vary (a millionth of the first one's variance) stay 0."""
        x = features.double()
        shift, std = x.mean(0), x.std(0, correction=0)
        scale = std.clamp(min=max(floor * float(std.mean()), 1e-8))
        x = (x - shift) / scale
        variances, axes = torch.linalg.eigh(x.T @ x / len(x))
        variances, axes = (t.flip(-1)[..., : self.project.shape[1]] for t in (variances, axes))
        whitened = torch.where(variances > 1e-6 * variances[0], variances.clamp(min=1e-30).rsqrt(), 0)
        self.shift.copy_(shift)
        self.project.copy_(axes * whitened / scale[:, None])
        self.fitted.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        """[T, n] -> [T, width]."""
        return (features - self.shift) @ self.project


class Privileged(nn.Module):
    """Of rows, what critics alone may see, or all but that (asymmetric actor-critic, Pinto et al. 2018)."""

    def __init__(self, row: int, stack: int, first: int, end: int, *, shown: bool) -> None:
        """It stands from `first` to `end` in each of `stack` rows."""
        super().__init__()
        self.row, self.stack, self.first, self.end, self.shown = row, stack, first, end, shown

    def forward(self, x: Tensor) -> Tensor:
        """[B, stack * row + any] -> [B, stack * (end - first)], or [B, stack * (row - end + first) + any]."""
        size = self.stack * self.row
        rows = x[:, :size].view(len(x), self.stack, self.row)
        if self.shown:
            return rows[..., self.first : self.end].flatten(1)
        public = torch.cat((rows[..., : self.first], rows[..., self.end :]), dim=-1)
        return torch.cat((public.flatten(1), x[:, size:]), dim=1)


class TrunkActor(Actor):
    """SAC's actor behind a trunk."""

    trunk: nn.Module

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Actor`'s, of inputs as they come."""
        return super().forward(self.trunk(x))


class Ensemble(nn.Module):
    """E critics behind one trunk: every layer is one batched product."""

    mixed = False
    """Compute the hidden layers in bf16; weights, and what the last layer makes of it all, are float32."""

    def __init__(
        self, size: int, action_dim: int, hidden: Sequence[int], critics: int, norm: bool, generator: torch.Generator
    ) -> None:
        """For inputs of so many numbers; `norm`: LayerNorm before each ReLU."""
        super().__init__()
        self.norm = norm
        self.trunk: nn.Module = nn.Identity()
        sizes = size + action_dim, *hidden, 1
        # Weights as of so many separate networks, [E, in, out] and [E, 1, out].
        apart = [[m for m in orthogonal_mlp(sizes, generator) if isinstance(m, nn.Linear)] for _ in range(critics)]
        layers = list(zip(*apart, strict=True))
        self.weights = nn.ParameterList(torch.stack([m.weight.detach().t() for m in layer]) for layer in layers)
        self.biases = nn.ParameterList(torch.stack([m.bias.detach()[None] for m in layer]) for layer in layers)
        normed = list(self.biases[:-1]) if norm else []
        self.scales = nn.ParameterList(torch.ones_like(bias) for bias in normed)
        self.shifts = nn.ParameterList(torch.zeros_like(bias) for bias in normed)

    def forward(
        self,
        x: Tensor,
        actions: Tensor,
        chosen: Tensor | None = None,
        keep: Sequence[Tensor] | None = None,
        hidden: list[Tensor] | None = None,
    ) -> Tensor:
        """[B, n] and [B, m] -> Q [E, B]; of the `chosen` critics alone, if indices are given. `keep` says what dropout
        leaves of each hidden layer, [E, B, units] each, already divided by its share; `hidden` takes in what the
        hidden layers give, of the same shapes."""

        def of(parameters: nn.ParameterList) -> list[Tensor]:
            return list(parameters) if chosen is None else [p.index_select(0, chosen) for p in parameters]

        kind = torch.bfloat16 if self.mixed else x.dtype
        h = torch.cat((self.trunk(x), actions), dim=1).to(kind)
        h = h.expand(len(self.weights[0] if chosen is None else chosen), -1, -1)
        *inner, (last, bias) = zip(of(self.weights), of(self.biases), strict=True)
        scales, shifts = of(self.scales), of(self.shifts)
        for i, (weight, b) in enumerate(inner):
            h = torch.baddbmm(b.to(kind), h, weight.to(kind))
            if keep is not None:
                h = h * keep[i].to(kind)
            if self.norm:
                h = torch.addcmul(shifts[i].to(kind), layer_norm(h, h.shape[-1:]), scales[i].to(kind))
            h = torch.relu(h)
            if hidden is not None:
                hidden.append(h)
        return torch.baddbmm(bias, h.to(x.dtype), last).squeeze(-1)
