"""NPG's mathematics against independent references: closed forms, double backprop, finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call, jacrev

from rrl.agents import npg
from rrl.agents.networks import GaussianPolicy


def make_policy(n: int = 3, m: int = 2, hidden: Sequence[int] = (4, 3), seed: int = 0) -> GaussianPolicy:
    """A policy with nothing at its default: large last layer, own stds and transforms."""
    g = torch.Generator().manual_seed(seed)
    policy = GaussianPolicy(n, m, hidden, -3.0, g)
    with torch.no_grad():
        policy.set_flat(policy.flat() + 0.3 * torch.randn(policy.flat().shape, generator=g))
        for name in ("in_shift", "out_shift"):
            getattr(policy, name).normal_(generator=g)
        for name in ("in_scale", "out_scale"):
            getattr(policy, name).uniform_(0.5, 2, generator=g)
    return policy


def normal(policy: GaussianPolicy, theta: Tensor, x: Tensor) -> Normal:
    """The policy's distribution as a differentiable function of the flat vector."""
    names = [*(f"mlp.{k}" for k, _ in policy.mlp.named_parameters()), "log_std"]
    shapes = [p.shape for p in policy.trainable()]
    pieces = [p.view(s) for p, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
    weights = dict(zip(names, pieces, strict=True))
    return Normal(functional_call(policy, weights, (x,)), weights["log_std"].exp())


def test_fisher_product_equals_closed_form_and_double_backprop(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, x = make_policy(), torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    size = policy.flat().numel()
    monkeypatch.setattr(npg, "CHUNK", 7)  # 20 samples in uneven chunks
    columns = [npg.fisher_product(policy, x, v, 0.0) for v in torch.eye(size, dtype=torch.float64)]
    product = torch.stack(columns, dim=1)

    exact, x64 = make_policy().double(), x.double()
    theta = exact.flat()
    jacobian = jacrev(lambda th: normal(exact, th, x64).mean)(theta)  # [N, m, P]
    closed = torch.einsum("nap,a,naq->pq", jacobian, (-2 * exact.log_std).exp(), jacobian) / len(x)
    closed[-2:, -2:] += 2 * torch.eye(2, dtype=torch.float64)

    old = Normal(exact(x64).detach(), exact.log_std.detach().exp())
    hessian = torch.autograd.functional.hessian(
        lambda th: kl_divergence(old, normal(exact, th, x64)).sum(-1).mean(), theta
    )
    assert (product - closed).norm() < 1e-4 * closed.norm()
    assert (product - hessian).norm() < 1e-4 * hessian.norm()
    v = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    damped = npg.fisher_product(policy, x, v, 0.5)
    torch.testing.assert_close(damped, closed @ v + 0.5 * v, rtol=1e-4, atol=1e-5)


def test_conjugate_gradient_solves_spd_systems() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    matrix, b = root @ root.T + np.eye(12), rng.standard_normal(12)
    x = npg.conjugate_gradient(lambda v: torch.as_tensor(matrix) @ v, torch.as_tensor(b), 100, 1e-20)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(matrix, b), rtol=1e-6)


def test_conjugate_gradient_stops_at_tolerance_iterations_and_bad_curvature() -> None:
    calls = 0

    def counted(factor: Tensor) -> Callable[[Tensor], Tensor]:
        def product(v: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return factor * v

        return product

    b = torch.ones(4, dtype=torch.float64)
    npg.conjugate_gradient(counted(torch.tensor(3.0)), b, 10)  # exact after one product
    assert calls == 1
    npg.conjugate_gradient(counted(torch.arange(1.0, 5.0)), b, 2)
    assert calls == 3
    x = npg.conjugate_gradient(counted(torch.tensor(-1.0)), b, 10)
    assert calls == 4
    assert not x.any()


@pytest.mark.parametrize("chunk", [5, 4096])
def test_surrogate_gradient_equals_finite_differences(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(npg, "CHUNK", chunk)
    g = torch.Generator().manual_seed(3)
    policy = make_policy().double()
    x, actions, advantages = (torch.randn(12, *s, generator=g, dtype=torch.float64) for s in [(3,), (2,), ()])
    gradient = npg.policy_gradient(policy, x, actions, advantages / len(x))
    theta = policy.flat()

    def surrogate(th: Tensor) -> float:
        new, old = (normal(policy, p, x).log_prob(actions).sum(-1) for p in (th, theta))
        return ((new - old).exp() * advantages).mean().item()

    step = 1e-5
    numeric = [
        (surrogate(theta + step * e) - surrogate(theta - step * e)) / (2 * step)
        for e in torch.eye(len(theta), dtype=torch.float64)
    ]
    torch.testing.assert_close(gradient, torch.tensor(numeric, dtype=torch.float64), rtol=1e-6, atol=1e-8)


def test_log_prob_and_kl_equal_torch_distributions() -> None:
    g = torch.Generator().manual_seed(4)
    old, new = make_policy(seed=1).double(), make_policy(seed=2).double()
    obs, actions = torch.randn(9, 3, generator=g).double(), torch.randn(9, 2, generator=g).double()
    p = Normal(old.mean(obs), old.log_std.exp())
    q = Normal(new.mean(obs), new.log_std.exp())
    torch.testing.assert_close(old.log_prob(old.mean(obs), actions), p.log_prob(actions).sum(-1))
    kl = npg.kl_divergence(p.mean, old.log_std, q.mean, new.log_std)
    torch.testing.assert_close(kl, kl_divergence(p, q).sum(-1).mean(), rtol=1e-6, atol=0)
    assert npg.kl_divergence(p.mean, old.log_std, p.mean, old.log_std) == 0


def test_whitening_uses_the_population_std_of_the_whole_batch() -> None:
    np.testing.assert_allclose(npg.whiten(np.array([1.0, 3.0])), [-1, 1], rtol=2e-6)
    assert not npg.whiten(np.full(3, 7.0)).any()


def test_flat_order_is_w1_b1_w2_b2_w3_b3_log_std() -> None:
    policy = make_policy(n=3, m=2, hidden=(5, 4))
    w1, w2, w3 = (policy.mlp[i] for i in (0, 2, 4))
    layers = [w1.weight, w1.bias, w2.weight, w2.bias, w3.weight, w3.bias, policy.log_std]
    expected = torch.cat([p.detach().reshape(-1) for p in layers])  # type: ignore[union-attr]
    assert torch.equal(policy.flat(), expected.double())
    assert torch.equal(torch.cat([p.reshape(-1) for p in policy.split(policy.flat())]), expected)


def test_log_std_is_clamped_from_below_only() -> None:
    policy = make_policy()
    theta = policy.flat()
    theta[-2:] = torch.tensor([-7.0, 2.0])
    policy.set_flat(theta)
    assert policy.log_std.tolist() == [-3, 2]
    assert torch.equal(policy.flat()[:-2], theta[:-2])


def test_initial_policy_is_near_zero_with_unit_std_and_default_linear_init() -> None:
    policy = GaussianPolicy(400, 3, (100, 50), -3.0, torch.Generator().manual_seed(0))
    assert not policy.log_std.any()
    for i, fan_in in ((0, 400), (2, 100)):
        weight, bias = policy.mlp[i].parameters()
        assert 0 < bias.abs().max() <= fan_in**-0.5
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)
    for parameter in policy.mlp[4].parameters():
        assert 0 < parameter.abs().max() <= 0.01 * 50**-0.5
