"""NPG's mathematics against independent references: closed forms, double backprop, finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call, jacrev

from rrl.agents import natural_gradient, npg
from rrl.agents.adam import Adam
from rrl.agents.natural_gradient import Linearised, conjugate_gradient
from rrl.agents.networks import GaussianPolicy, ValueNet
from rrl.bench import measure


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


def dense_fisher(policy: GaussianPolicy, x: Tensor) -> Tensor:
    """The Gauss-Newton matrix of the mean KL divergence, [P, P], from the Jacobian of the means."""
    theta, m = policy.flat(), len(policy.log_std)
    jacobian = jacrev(lambda th: normal(policy, th, x).mean)(theta)  # [N, m, P]
    matrix = torch.einsum("nap,a,naq->pq", jacobian, (-2 * policy.log_std.detach()).exp(), jacobian) / len(x)
    matrix[-m:, -m:] += 2 * torch.eye(m, dtype=matrix.dtype)
    return matrix


@pytest.mark.parametrize("hidden", [(4, 3), (5,), (), (3, 4, 2)])
@pytest.mark.parametrize("keep", [True, False])
def test_fisher_product_equals_closed_form_and_double_backprop(
    monkeypatch: pytest.MonkeyPatch, hidden: tuple[int, ...], keep: bool
) -> None:
    monkeypatch.setattr(natural_gradient, "CHUNK", 7)  # 20 samples in uneven chunks
    monkeypatch.setattr(natural_gradient, "KEEP", 2**20 if keep else 0)
    policy = make_policy(hidden=hidden).double()
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    size = policy.flat().numel()
    here = Linearised(policy, x)
    torch.testing.assert_close(here.mean, policy(x), rtol=1e-12, atol=1e-12)
    product = torch.stack([here.fisher_product(v, 0.0) for v in torch.eye(size, dtype=torch.float64)], dim=1)
    closed = dense_fisher(policy, x)
    torch.testing.assert_close(product, closed, rtol=1e-10, atol=1e-12)

    old = Normal(policy(x).detach(), policy.log_std.detach().exp())
    hessian = torch.autograd.functional.hessian(
        lambda th: kl_divergence(old, normal(policy, th, x)).sum(-1).mean(), policy.flat()
    )
    torch.testing.assert_close(product, hessian, rtol=1e-10, atol=1e-12)

    v = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    single = Linearised(make_policy(hidden=hidden), x.float())
    torch.testing.assert_close(single.fisher_product(v, 0.5), closed @ v + 0.5 * v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "samples", "n", "m", "hidden", "tolerance"),
    [
        (torch.float32, 4200, 536, 28, (256, 256), 1e-3),
        (torch.float64, 1000, 60, 6, (32, 16), 1e-4),  # the plain KL divergence has 1e-8 in its denominator
    ],
)
def test_the_step_equals_the_plain_references(
    dtype: torch.dtype, samples: int, n: int, m: int, hidden: tuple[int, ...], tolerance: float
) -> None:
    """Double backprop over all samples, as in `benchmarks/reference_npg.py`.

    On small policies, ten iterations in float32 can be so sensitive to rounding that the plain computation
    misses its own float64 result by 10 %. At the size of a real policy they agree to about 1e-5.
    """
    policy, g = make_policy(n, m, hidden).to(dtype), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in (policy.mlp[0], policy.mlp[2]):
            layer.weight.mul_(0.2)
    x = torch.randn(samples, n, generator=g, dtype=dtype)
    noise = torch.randn(samples, m, generator=g, dtype=dtype)
    actions = (policy(x) + policy.log_std.exp() * noise).detach()
    advantages = torch.randn(samples, generator=g, dtype=dtype)
    here = Linearised(policy, x)
    gradient = here.policy_gradient(actions, advantages / samples)
    direction = conjugate_gradient(lambda v: here.fisher_product(v, 1e-4), gradient, 10)

    reference = measure.reference("reference_npg")
    expected = reference.directions(policy, x, actions, advantages)
    for got, plain in zip((gradient, direction), expected, strict=True):
        assert (got - plain).norm() < tolerance * plain.norm()


def test_conjugate_gradient_on_products_comes_to_the_exact_natural_gradient() -> None:
    policy, g = make_policy(n=4, m=2, hidden=(3,)), torch.Generator().manual_seed(6)
    x, actions = torch.randn(300, 4, generator=g), torch.randn(300, 2, generator=g)
    here = Linearised(policy, x)
    gradient = here.policy_gradient(actions, torch.randn(300, generator=g) / 300)
    direction = conjugate_gradient(lambda v: here.fisher_product(v, 0.1), gradient, 30)
    exact = make_policy(n=4, m=2, hidden=(3,)).double()
    matrix = dense_fisher(exact, x.double())
    expected = torch.linalg.solve(matrix + 0.1 * torch.eye(len(matrix), dtype=torch.float64), gradient)
    assert (direction - expected).norm() < 1e-3 * expected.norm()


def test_products_repeat_bit_for_bit_and_do_not_depend_on_what_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(natural_gradient, "CHUNK", 64)
    policy, g = make_policy(n=30, m=4, hidden=(16, 16)), torch.Generator().manual_seed(7)
    x, actions, weights = (torch.randn(200, *s, generator=g) for s in [(30,), (4,), ()])
    v = torch.randn(policy.flat().shape, generator=g, dtype=torch.float64)
    results = []
    for keep in (2**20, 2**20, 0):
        monkeypatch.setattr(natural_gradient, "KEEP", keep)
        here = Linearised(policy, x)
        results.append((here.fisher_product(v, 0.1), here.policy_gradient(actions, weights)))
        assert torch.equal(here.fisher_product(v, 0.1), results[0][0])
    for product, gradient in results:
        assert torch.equal(product, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_conjugate_gradient_solves_spd_systems() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    matrix, b = root @ root.T + np.eye(12), rng.standard_normal(12)
    x = conjugate_gradient(lambda v: torch.as_tensor(matrix) @ v, torch.as_tensor(b), 100, 1e-20)
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
    conjugate_gradient(counted(torch.tensor(3.0)), b, 10)  # exact after one product
    assert calls == 1
    conjugate_gradient(counted(torch.arange(1.0, 5.0)), b, 2)
    assert calls == 3
    x = conjugate_gradient(counted(torch.tensor(-1.0)), b, 10)
    assert calls == 4
    assert not x.any()


@pytest.mark.parametrize("chunk", [5, 4096])
def test_surrogate_gradient_equals_finite_differences(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(natural_gradient, "CHUNK", chunk)
    g = torch.Generator().manual_seed(3)
    policy = make_policy().double()
    x, actions, advantages = (torch.randn(12, *s, generator=g, dtype=torch.float64) for s in [(3,), (2,), ()])
    gradient = Linearised(policy, x).policy_gradient(actions, advantages / len(x))
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
    kl = natural_gradient.kl_divergence(p.mean, old.log_std, q.mean, new.log_std)
    torch.testing.assert_close(kl, kl_divergence(p, q).sum(-1).mean(), rtol=1e-6, atol=0)
    assert natural_gradient.kl_divergence(p.mean, old.log_std, p.mean, old.log_std) == 0


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


@pytest.mark.parametrize("hidden", [(24, 12), (8,), ()])
def test_the_value_fit_equals_the_plain_references(hidden: tuple[int, ...]) -> None:
    """Autograd and torch's unfused Adam, as in `benchmarks/reference_npg.py`."""
    g = torch.Generator().manual_seed(8)
    features = torch.randn(64 * 20 + 10, 14, generator=g)
    returns = 10 * features[:, :5].square().sum(1)
    value = ValueNet(10, hidden, g)
    plain = copy.deepcopy(value)
    before = [p.detach().clone() for p in value.parameters()]
    orders = [torch.randperm(len(features), generator=g) for _ in range(2)]
    optimiser = Adam(value.parameters(), 1e-3, weight_decay=1e-3)
    for order in orders:  # as the agent does: the state goes on from one epoch to the next
        value.fit(features, returns, order[: 19 * 64].view(19, 64), optimiser)
    measure.reference("reference_npg").fit_value(plain, features, returns, orders)
    for p, expected, start in zip(value.parameters(), plain.parameters(), before, strict=True):
        assert (p - expected).norm() < 1e-3 * (expected - start).norm()
    assert all(step == 38 for step in optimiser.steps)
