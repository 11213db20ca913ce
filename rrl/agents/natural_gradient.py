"""The natural gradient of a Gaussian policy: gradient, Fisher-vector products, conjugate gradient.

Paper section 3; where the paper is silent, the authors' released code. For a Gaussian policy the Hessian of
the mean KL divergence is the Gauss-Newton matrix of its mean, J^T diag(1 / std^2) J averaged over states,
and 2 I for log_std, without cross terms: nothing has to be differentiated twice. A product with it is a
forward pass of tangents and a backward pass, written out as the matrix products that take all of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from rrl.agents.networks import GaussianPolicy

CHUNK = 4096
"""Samples at a time on a CPU: few enough to stay in its cache, enough to keep its threads busy."""
KEEP = 512 * 2**20
"""Most bytes of hidden activations kept during a step (40k samples of (256, 256) need 82 MB). Where it takes
more, every product computes them again and is about a third slower; the bits are the same."""

_times_tanh_slope = torch.ops.aten.tanh_backward.grad_input
"""(d, h, grad_input=d): d <- d * (1 - h^2) in one pass, without a temporary."""


class Linearised:
    """A policy at its current weights on standardised states x [N, n]: the mean, and its derivatives.

    The hidden activations are computed once. Valid until the weights change. Products are summed in float32
    within a chunk of samples and in float64 over chunks; the same inputs and thread count give the same bits.
    """

    @torch.no_grad()
    def __init__(self, policy: GaussianPolicy, x: Tensor) -> None:
        self.policy, self.x = policy, x
        layers = [layer for layer in policy.mlp if isinstance(layer, nn.Linear)]
        self._weights = [layer.weight.detach() for layer in layers]
        self._biases = [layer.bias.detach() for layer in layers]
        self._std = policy.log_std.detach().exp()

        # A GPU is fastest with everything in one go.
        self._chunk = min(CHUNK, len(x)) if x.device.type == "cpu" else len(x)
        widths = [len(bias) for bias in self._biases]
        self._kept = len(x) * sum(widths[:-1]) * x.element_size() <= KEEP
        height = len(x) if self._kept else self._chunk
        self._hidden = [x.new_empty(height, width) for width in widths[:-1]]
        self._tangents = [x.new_empty(self._chunk, width) for width in widths]
        # One chunk's sum, flat, with a view for each parameter of the network.
        sizes = [p.numel() for p in policy.mlp.parameters()]
        self._sum = x.new_empty(sum(sizes))
        pieces = zip(torch.split(self._sum, sizes), policy.mlp.parameters(), strict=True)
        self._sums = [piece.view_as(p) for piece, p in pieces]

        self.mean = x.new_empty(len(x), widths[-1])
        """Mean actions [N, m]."""
        for rows in self._chunks():
            last = self._activate(rows)[-1]
            mean = torch.addmm(self._biases[-1], last, self._weights[-1].t(), out=self.mean[rows])
            mean.mul_(policy.out_scale).add_(policy.out_shift)

    @torch.no_grad()
    def policy_gradient(self, actions: Tensor, weights: Tensor) -> Tensor:
        """Flat float64 gradient of sum_i weights_i log pi(a_i|x_i): actions [N, m], weights [N].

        With weights = advantages / N it is the gradient of the surrogate mean(ratio * advantages) at the
        current parameters, where every likelihood ratio is 1.
        """
        log_std = torch.zeros_like(self._std, dtype=torch.float64)
        network = torch.zeros_like(self._sum, dtype=torch.float64)
        for rows in self._chunks():
            weight = weights[rows, None].to(self.x.dtype)
            z = (actions[rows] - self.mean[rows]) / self._std
            log_std += (weight * (z.square() - 1)).sum(0)
            network += self._pull(self._inputs(rows), weight * z * (self.policy.out_scale / self._std))
        return torch.cat((network, log_std))

    @torch.no_grad()
    def fisher_product(self, vector: Tensor, damping: float) -> Tensor:
        """(F + damping I) vector, F the Hessian of the mean KL divergence over the states; float64 [P]."""
        *tangents, log_std = self.policy.split(vector)
        network = torch.zeros_like(self._sum, dtype=torch.float64)
        precision = (self.policy.out_scale / self._std).square()
        for rows in self._chunks():
            inputs = self._inputs(rows)
            network += self._pull(inputs, self._push(inputs, tangents).mul_(precision))
        return torch.cat((network / len(self.x), 2 * log_std.double())) + damping * vector

    def _push(self, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
        """Forward mode: how the last layer's outputs [k, m] move with parameters that move by `tangents`."""
        moved = [buffer[: len(inputs[0])] for buffer in self._tangents]
        for i, weight in enumerate(self._weights):
            torch.addmm(tangents[2 * i + 1], inputs[i], tangents[2 * i].t(), out=moved[i])
            if i > 0:
                moved[i].addmm_(moved[i - 1], weight.t())
            if i + 1 < len(inputs):
                _times_tanh_slope(moved[i], inputs[i + 1], grad_input=moved[i])
        return moved[-1]

    def _pull(self, inputs: Sequence[Tensor], d: Tensor) -> Tensor:
        """Reverse mode: flat J^T d for cotangents d [k, m] of the last layer's outputs, summed over k.

        The next call writes into the same memory.
        """
        for i in reversed(range(len(inputs))):
            torch.mm(d.t(), inputs[i], out=self._sums[2 * i])
            torch.sum(d, 0, out=self._sums[2 * i + 1])
            if i > 0:
                d = torch.mm(d, self._weights[i], out=self._tangents[i - 1][: len(d)])
                _times_tanh_slope(d, inputs[i], grad_input=d)
        return self._sum

    def _inputs(self, rows: slice) -> list[Tensor]:
        """The inputs of every layer, [k, width] each: x and the hidden activations."""
        if self._kept:
            return [self.x[rows], *(h[rows] for h in self._hidden)]
        return self._activate(rows)

    def _activate(self, rows: slice) -> list[Tensor]:
        """`_inputs`, computed."""
        inputs = [self.x[rows]]
        layers = zip(self._hidden, self._weights[:-1], self._biases[:-1], strict=True)
        for buffer, weight, bias in layers:
            h = buffer[rows] if self._kept else buffer[: len(inputs[0])]
            inputs.append(torch.addmm(bias, inputs[-1], weight.t(), out=h).tanh_())
        return inputs

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.x), self._chunk):
            yield slice(start, start + self._chunk)


def kl_divergence(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) of diagonal Gaussians in nats, mean over states: means [N, m], log_stds [m] -> []."""
    variance_old, variance = (2 * log_std_old).exp(), (2 * log_std).exp()
    spread = ((mean_old - mean).square() + variance_old - variance) / (2 * variance + 1e-8)
    return (spread + log_std - log_std_old).sum(-1).mean()


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Approximate x with product(x) = b, from x = 0; stops once |b - product(x)|^2 < `tolerance`.

    It also stops where rounding makes a direction's curvature non-positive: a step along it means nothing.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(iterations):
        z = product(direction)
        curvature = direction @ z
        if curvature <= 0:
            break
        length = squared / curvature
        x += length * direction
        residual -= length * z
        squared, before = residual @ residual, squared
        if squared < tolerance:
            break
        direction = residual + squared / before * direction
    return x
