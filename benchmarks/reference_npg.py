"""The plain policy step and value fit that `rrl bench updates` measures against, and that tests compare with.

Written as the authors' released code computes them, without any optimisation: Fisher-vector products by
differentiating the mean KL divergence twice, its graph rebuilt for each product over all samples at once,
float32 throughout; the value network by torch's ordinary loop over batches of 64. Nothing here comes from
`rrl` but the objects it is handed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal


def policy_step(
    policy: Any, obs: Tensor, actions: Tensor, advantages: Tensor, step_size: float = 0.05
) -> tuple[float, float]:
    """Move `policy` by one natural-gradient step: sqrt(step_size / (gradient . direction)) * direction.

    Observations [N, n], actions [N, m], whitened advantages [N]. `policy.standardise(obs)` is what
    `policy(x)` turns into mean actions; `policy.log_std` [m] is beside them; `policy.trainable()` moves.
    Returns what the authors' code logs: KL(old || new) in nats and the surrogate's improvement.
    """
    x = policy.standardise(obs)
    gradient, direction = directions(policy, x, actions, advantages)
    with torch.no_grad():
        old = Normal(policy(x), policy.log_std.exp())
        alpha = math.sqrt(abs(step_size / (gradient @ direction + 1e-20)))
        start = 0
        for parameter in policy.trainable():
            step = direction[start : start + parameter.numel()]
            parameter += alpha * step.view_as(parameter)
            start += parameter.numel()
        policy.log_std.clamp_(min=policy.min_log_std)
        new = Normal(policy(x), policy.log_std.exp())
        ratio = (new.log_prob(actions).sum(-1) - old.log_prob(actions).sum(-1)).exp()
        return _mean_kl(old, new.mean, policy.log_std).item(), ((ratio - 1) * advantages).mean().item()


def directions(policy: Any, x: Tensor, actions: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient g of the surrogate, F^-1 g by conjugate gradient), both flat."""
    with torch.no_grad():
        old = Normal(policy(x), policy.log_std.exp())
        log_prob_old = old.log_prob(actions).sum(-1)
    gradient = surrogate_gradient(policy, x, actions, advantages, log_prob_old)
    return gradient, conjugate_gradient(policy, x, old, gradient)


def surrogate_gradient(policy: Any, x: Tensor, actions: Tensor, advantages: Tensor, log_prob_old: Tensor) -> Tensor:
    """Gradient of mean(exp(log pi_new - log pi_old) * advantages)."""
    log_prob = Normal(policy(x), policy.log_std.exp()).log_prob(actions).sum(-1)
    surrogate = ((log_prob - log_prob_old).exp() * advantages).mean()
    return _flat(torch.autograd.grad(surrogate, policy.trainable()))


def fisher_product(policy: Any, x: Tensor, old: Normal, vector: Tensor, damping: float = 1e-4) -> Tensor:
    """(Hessian of the mean KL(old || new)) vector + damping * vector, by double backprop."""
    kl = _mean_kl(old, policy(x), policy.log_std)
    gradient = _flat(torch.autograd.grad(kl, policy.trainable(), create_graph=True))
    return _flat(torch.autograd.grad(gradient @ vector, policy.trainable())) + damping * vector


def conjugate_gradient(policy: Any, x: Tensor, old: Normal, b: Tensor, iterations: int = 10) -> Tensor:
    """Approximate F^-1 b."""
    solution = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(iterations):
        product = fisher_product(policy, x, old, direction)
        length = squared / (direction @ product)
        solution += length * direction
        residual -= length * product
        squared, before = residual @ residual, squared
        if squared < 1e-10:
            break
        direction = residual + squared / before * direction
    return solution


def fit_value(
    value: nn.Module, features: Tensor, returns: Tensor, orders: Iterable[Tensor], batch: int = 64
) -> tuple[float, float]:
    """Adam (lr 1e-3, coupled weight decay 1e-3) on the squared error; one epoch per permutation in `orders`,
    each of floor(N / batch) - 1 batches. Returns sum (R - V)^2 / sum R^2 before and after.
    """
    before = _error(value, features, returns)
    optimiser = torch.optim.Adam(value.parameters(), lr=1e-3, weight_decay=1e-3)
    for order in orders:
        for i in range(len(features) // batch - 1):
            rows = order[i * batch : (i + 1) * batch]
            loss = (value(features[rows]) - returns[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return before, _error(value, features, returns)


@torch.no_grad()
def _error(value: nn.Module, features: Tensor, returns: Tensor) -> float:
    return ((returns - value(features)).square().sum() / (returns.square().sum() + 1e-8)).item()


def _mean_kl(old: Normal, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) in nats, mean over states."""
    variance = log_std.exp().square()
    spread = ((old.mean - mean).square() + old.variance - variance) / (2 * variance + 1e-8)
    return (spread + log_std - old.stddev.log()).sum(-1).mean()


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
