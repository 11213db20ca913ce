"""Natural policy gradient (`NPG`), the same with demonstrations (`DAPG`), and behaviour cloning alone (`BC`).

Paper section 3 and its table of hyperparameters; where the paper is silent, the authors' released code.
Read top to bottom: settings, mathematics, the three agents.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.functional import mse_loss

from rrl.agents.base import Agent, Episodes, Metrics
from rrl.agents.networks import GaussianPolicy, ValueNet, flatten
from rrl.encoders.base import Encoder, Precision
from rrl.registry import Component, UserError, register
from rrl.rollout import Obs, Rollout

CHUNK = 4096
"""Samples per gradient or Fisher product: bounds the memory for activations; sums run over chunks."""


# --- settings ---------------------------------------------------------------------------------------


class PolicyConfig(Agent.Config):
    """Settings of the Gaussian policy."""

    policy_hidden: tuple[PositiveInt, ...] = (256, 256)
    """Units in each hidden tanh layer of the policy (paper; the authors' relocate logs: 512, 512)."""
    min_log_std: float = -3.0
    """Lower bound of the log exploration std, per action dimension (authors' code)."""
    init_std_factor: PositiveFloat = 1.0
    """Factor on the initial exploration std, after cloning has set it; `min_log_std` still holds
    (our choice; 1 = faithful)."""


class CloningConfig(PolicyConfig):
    """Settings of behaviour cloning."""

    bc_epochs: NonNegativeInt = 5
    """Passes over the demonstrations, of floor(steps / bc_batch) batches each (paper)."""
    bc_lr: PositiveFloat = 1e-3
    """Adam's learning rate in cloning (paper)."""
    bc_batch: PositiveInt = 32
    """Demonstration steps per batch, drawn with replacement (paper)."""
    in_scale_floor: NonNegativeFloat = 1e-3
    """Lower bound of the policy's input scales, as a fraction of their mean: a feature that hardly varies
    in the demonstrations would blow up outside them (our choice; 0 = faithful: no bound)."""


class NPGConfig(PolicyConfig):
    """Settings of the natural policy gradient and of the value network."""

    trajectories: PositiveInt = 200
    """Episodes per iteration (paper: 200; pen 400)."""
    step_size: PositiveFloat = 0.05
    """Normalised step size delta: twice the KL divergence of a step, in nats (paper)."""
    gamma: float = Field(0.995, gt=0, le=1)
    """Discount per environment step (paper)."""
    gae_lambda: float = Field(0.97, ge=0, le=1)
    """Lambda of generalised advantage estimation (paper)."""
    cg_iterations: PositiveInt = 10
    """Conjugate-gradient iterations for the natural gradient (authors' code)."""
    damping: NonNegativeFloat = 1e-4
    """Added to the Fisher matrix's diagonal (authors' code)."""
    terminal_at_horizon: bool = True
    """True: nothing is earned after the horizon, as in the authors' code (the value network knows the time).
    False: the final observation's value is, if the episode was only truncated; so in value targets too."""
    value_hidden: tuple[PositiveInt, ...] = (128, 128)
    """Units in each hidden ReLU layer of the value network (authors' code)."""
    value_lr: PositiveFloat = 1e-3
    """Adam's learning rate for the value network (paper)."""
    value_epochs: NonNegativeInt = 2
    """Passes over the iteration's samples, of floor(samples / value_batch) - 1 batches each (paper)."""
    value_batch: PositiveInt = 64
    """Samples per batch of the value fit (paper)."""
    value_weight_decay: NonNegativeFloat = 1e-3
    """Coupled L2 weight decay of the value network's Adam (authors' code)."""


# --- mathematics ------------------------------------------------------------------------------------


def discounted_sums(x: NDArray[np.float64], factor: float, last: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[T] -> [T]: sum_l factor^l x_{t+l} within each episode; `last` marks each episode's last step."""
    sums = np.empty(len(x))
    running = 0.0
    for i in reversed(range(len(x))):
        running = x[i] if last[i] else x[i] + factor * running
        sums[i] = running
    return sums


def whiten(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and population std 1 over the whole batch."""
    return (x - x.mean()) / (x.std() + 1e-6)  # type: ignore[no-any-return]


def kl_divergence(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) of diagonal Gaussians in nats, mean over states: means [N, m], log_stds [m] -> []."""
    variance_old, variance = (2 * log_std_old).exp(), (2 * log_std).exp()
    spread = ((mean_old - mean).square() + variance_old - variance) / (2 * variance + 1e-8)
    return (spread + log_std - log_std_old).sum(-1).mean()


def policy_gradient(policy: GaussianPolicy, x: Tensor, actions: Tensor, weights: Tensor) -> Tensor:
    """Flat float64 gradient of sum_i weights_i log pi(a_i|x_i), x standardised.

    With weights = advantages / N it is the gradient of the surrogate mean(ratio * advantages) at the
    current parameters, where every likelihood ratio is 1.
    """
    gradient = torch.zeros_like(policy.flat())
    for start in range(0, len(x), CHUNK):
        chunk = slice(start, start + CHUNK)
        objective = weights[chunk].to(x.dtype) @ policy.log_prob(policy(x[chunk]), actions[chunk])
        gradient += flatten(torch.autograd.grad(objective, policy.trainable()))
    return gradient


def fisher_product(policy: GaussianPolicy, x: Tensor, vector: Tensor, damping: float) -> Tensor:
    """(F + damping I) vector, F the Hessian of the mean KL divergence over standardised states x [N, n].

    For a Gaussian, F = mean J^T diag(1/std^2) J for the network's weights and 2 I for log_std, without
    cross terms.
    """
    *tangents, log_std_vector = policy.split(vector)
    product = torch.zeros_like(vector[: -log_std_vector.numel()])
    for chunk in torch.split(x, CHUNK):
        product += _gauss_newton_product(policy, chunk, tangents)
    return torch.cat((product / len(x), 2 * log_std_vector.double())) + damping * vector


def _gauss_newton_product(policy: GaussianPolicy, x: Tensor, tangents: list[Tensor]) -> Tensor:
    """Sum over x of J^T diag(1/std^2) J tangents: J by forward mode, J^T by reverse mode, in one go."""
    names, weights = zip(*policy.mlp.named_parameters(prefix="mlp"), strict=True)

    def mean(*weights: Tensor) -> Any:
        return functional_call(policy, dict(zip(names, weights, strict=True)), (x,))

    def mean_and_push(*weights: Tensor) -> Any:
        return jvp(mean, weights, tuple(tangents))

    with warnings.catch_warnings():  # torch's first jvp loads a part of torch that torch itself deprecates
        warnings.simplefilter("ignore", FutureWarning)
        pulled: Any = vjp(mean_and_push, *weights, has_aux=True)
    _, pull, push = pulled
    return flatten(pull(push * (-2 * policy.log_std.detach()).exp()))


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


def clone(
    policy: GaussianPolicy, demos: Rollout, config: CloningConfig, generator: torch.Generator
) -> Metrics:
    """Behaviour cloning: transforms and std from the demonstrations, then the mean fitted to their actions.

    The loss is the squared error in raw action units, mean over batch and dimensions; log_std keeps the
    std of the demonstrated actions, as nothing in the loss moves it.
    """
    n, m = len(policy.in_shift), len(policy.out_shift)
    if demos.obs.shape[1:] != (n,) or demos.actions.shape[1:] != (m,):
        raise UserError(
            f"the demonstrations have {demos.obs.shape[-1]} observation and {demos.actions.shape[-1]} action "
            f"dimensions, but this agent needs {n} and {m}; make them for this encoder, environment and state"
        )
    if len(demos.obs) < config.bc_batch:
        raise UserError(
            f"cloning needs at least bc_batch = {config.bc_batch} demonstration steps, got {len(demos.obs)}; "
            "give more demonstrations or lower bc_batch"
        )

    device = policy.log_std.device
    in_shift, in_scale = (x.to(device) for x in _mean_and_std(demos.obs))
    out_shift, out_scale = (x.to(device) for x in _mean_and_std(demos.actions))
    policy.in_shift.copy_(in_shift)
    policy.in_scale.copy_(in_scale.clamp(min=config.in_scale_floor * float(in_scale.mean())))
    policy.out_shift.copy_(out_shift)
    policy.out_scale.copy_(out_scale)
    policy.set_std(out_scale, config.init_std_factor)

    x = policy.standardise(torch.as_tensor(demos.obs, device=device))
    actions = torch.as_tensor(demos.actions, device=device)
    with torch.no_grad():
        before = mse_loss(policy(x), actions).item()
    optimiser = torch.optim.Adam(policy.mlp.parameters(), lr=config.bc_lr, fused=True)
    steps = config.bc_epochs * (len(x) // config.bc_batch)
    batches = torch.randint(len(x), (steps, config.bc_batch), generator=generator).to(device)
    with _one_thread():
        for batch in batches:
            loss = mse_loss(policy(x[batch]), actions[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    policy.zero_grad()
    with torch.no_grad():
        after = mse_loss(policy(x), actions).item()
    return {"bc/loss_before": before, "bc/loss_after": after}


def _mean_and_std(x: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    return torch.as_tensor(mean).float(), torch.as_tensor(std).float()


@contextmanager
def _one_thread() -> Iterator[None]:
    """For loops of tiny steps: threads gain little there, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- agents -----------------------------------------------------------------------------------------


class GaussianAgent(Agent):
    """A Gaussian policy on frozen features; the base of the three agents."""

    config: PolicyConfig
    policy: GaussianPolicy

    def __init__(
        self,
        config: Component.Config,
        *,
        encoder: Encoder,
        state_dim: int,
        action_dim: int,
        seed: int,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        nn.Module.__init__(self)
        if encoder.learns:
            raise UserError(
                f"{type(self).__name__} needs a frozen encoder, but {type(encoder).__name__} learns: cloning "
                "and the natural gradient move the policy alone, so the encoder would never be trained; take "
                "a frozen, pretrained encoder (such as ResNet), or an agent that trains its encoder"
            )
        assert isinstance(config, PolicyConfig)
        self.config = config
        self.device = device
        self.features_dim = encoder.dim
        self.obs_dim = encoder.dim + state_dim
        encode = encoder.inference(precision, device)
        # In a lambda, as a module would join this agent's parameters and checkpoints.
        self._encode: Callable[[Tensor], Tensor] = lambda frames: encode(frames)
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = GaussianPolicy(
            self.obs_dim, action_dim, config.policy_hidden, config.min_log_std, self.generator
        )
        self.policy.set_std(torch.ones(action_dim), config.init_std_factor)
        self.policy.to(device)

    @torch.no_grad()
    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """[features, state] of a batch, float32 [N, n]; the state alone if the encoder gives no features."""
        if self.features_dim == 0:
            return np.array(obs.state, np.float32)
        if obs.frames is None:
            raise ValueError("the encoder needs frames, but the environment rendered none")
        features = self._encode(torch.as_tensor(obs.frames)).cpu().numpy()
        return np.concatenate((features, obs.state), axis=1, dtype=np.float32)

    @torch.no_grad()
    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """mean(observed) + exp(log_std) * noise, [N, m], not clipped; None: the mean."""
        actions = self.policy.mean(self._tensor(observed))
        if noise is not None:
            actions = actions + self.policy.log_std.exp() * self._tensor(noise)
        return actions.cpu().numpy()

    def remember(self, demos: Rollout) -> None:
        """Nothing: later updates don't need the demonstrations."""

    def policy_state(self) -> dict[str, Tensor]:
        """The policy's weights, log_std and transforms, as fresh CPU tensors."""
        return {name: _cpu_copy(t) for name, t in self.policy.state_dict().items()}

    def load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo of `policy_state`, for the same hidden sizes."""
        self.policy.load_state_dict(tensors)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Weights, transforms and the random generator's state, as fresh CPU tensors."""
        tensors = {name: _cpu_copy(t) for name, t in self.state_dict().items()}
        return tensors | {"generator": self.generator.get_state()}, {}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        self.generator.set_state(tensors["generator"])
        self.load_state_dict({name: tensors[name] for name in self.state_dict()})

    def _tensor(self, x: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(x, device=self.device)


@register
class BC(GaussianAgent):
    """Behaviour cloning alone: everything is learnt in `warm_start`."""

    class Config(CloningConfig):
        """Settings of behaviour cloning."""

    config: BC.Config
    wants = Episodes(0)
    demos: ClassVar[Literal["none", "required"]] = "required"
    needs_rollouts: ClassVar[bool] = False

    def warm_start(self, demos: Rollout | None) -> Metrics:
        """Clone the demonstrations. Returns the loss before and after, in squared action units."""
        return clone(self.policy, _required(demos, "BC"), self.config, self.generator)

    def update(self, rollout: Rollout) -> Metrics:
        """Refused: BC learns nothing from rollouts."""
        raise UserError(
            "BC learns from demonstrations only, before the first iteration; "
            "set Experiment.iterations = 0, or take DAPG"
        )


@register
class NPG(GaussianAgent):
    """Natural policy gradient with a learnt value baseline; no demonstrations, no line search."""

    class Config(NPGConfig):
        """Settings of NPG."""

    config: NPGConfig

    def __init__(self, config: Component.Config, **context: Any) -> None:
        """`context` is what every agent takes: encoder, state_dim, action_dim, seed, device, precision."""
        super().__init__(config, **context)
        self.wants = Episodes(self.config.trajectories)
        self.value = ValueNet(self.obs_dim, self.config.value_hidden, self.generator).to(self.device)
        self.value_optimiser = torch.optim.Adam(
            self.value.parameters(),
            lr=self.config.value_lr,
            weight_decay=self.config.value_weight_decay,
            fused=True,  # one call per step: the steps are many and tiny
        )
        self.updates = 0

    def warm_start(self, demos: Rollout | None) -> Metrics:
        """Nothing to do, and refused with demonstrations: NPG would ignore them."""
        if demos is not None:
            raise UserError(
                "NPG learns without demonstrations; set Experiment.demos = None, or take DAPG "
                "(DAPG.lam_0 = 0: clone them, then plain NPG)"
            )
        return {}

    def update(self, rollout: Rollout) -> Metrics:
        """One iteration: advantages from the value network as it was, a policy step, then the value fit.

        Returns `policy/*`, `value/*` and `time/*` (seconds). KL is KL(old || new) in nats, mean over the
        rollout's states; errors are sum (R - V)^2 / sum R^2; `policy/std` is the mean exploration std.
        """
        start = time.perf_counter()
        obs = self._tensor(rollout.obs)
        features = ValueNet.features(obs, rollout.t)
        returns, advantages = self.returns_and_advantages(rollout, features)
        metrics = self._step_policy(obs, self._tensor(rollout.actions), whiten(advantages))
        stepped = time.perf_counter()
        metrics |= self._fit_value(features, self._tensor(returns.astype(np.float32)))
        self.updates += 1
        times = {"time/policy_update": stepped - start, "time/value_fit": time.perf_counter() - stepped}
        return metrics | times

    @torch.no_grad()
    def returns_and_advantages(
        self, rollout: Rollout, features: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Discounted returns [T] and GAE advantages [T], not whitened; `features` are `ValueNet.features`."""
        gamma = self.config.gamma
        last = np.append(np.diff(rollout.episode) != 0, True)
        beyond = np.zeros(rollout.episodes)  # value of what follows each episode
        if not self.config.terminal_at_horizon:
            final = ValueNet.features(self._tensor(rollout.final_obs), rollout.t[last] + 1)
            beyond = np.where(rollout.terminated[last], 0.0, self.value(final).double().cpu().numpy())
        values = self.value(features).double().cpu().numpy()
        following = np.append(values[1:], 0.0)
        following[last] = beyond

        rewards = rollout.rewards.copy()
        rewards[last] += gamma * beyond
        returns = discounted_sums(rewards, gamma, last)
        deltas = rollout.rewards + gamma * following - values
        return returns, discounted_sums(deltas, gamma * self.config.gae_lambda, last)

    def surrogate_gradient(self, x: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        """Flat gradient of mean(ratio * advantages) at the current policy, where ratio = 1."""
        return policy_gradient(self.policy, x, actions, advantages / len(x))

    def _step_policy(self, obs: Tensor, actions: Tensor, whitened: NDArray[np.float64]) -> Metrics:
        """theta <- theta + alpha F^-1 g, alpha = sqrt(delta / (g . F^-1 g)): the KL is about delta / 2."""
        config, policy = self.config, self.policy
        x = policy.standardise(obs)
        advantages = torch.as_tensor(whitened, device=self.device)
        with torch.no_grad():
            mean_old, log_std_old = policy(x), policy.log_std.clone()
            log_prob_old = policy.log_prob(mean_old, actions)

        gradient = self.surrogate_gradient(x, actions, advantages)
        direction = conjugate_gradient(
            lambda v: fisher_product(policy, x, v, config.damping), gradient, config.cg_iterations
        )
        g_dot_x = (gradient @ direction).item()
        if not math.isfinite(g_dot_x):
            raise FloatingPointError(
                "the policy gradient is not finite: nan or inf in the rollout or the policy"
            )
        alpha = 0.0
        if g_dot_x > 0:
            alpha = math.sqrt(config.step_size / (g_dot_x + 1e-20))
            policy.set_flat(policy.flat() + alpha * direction)
        else:
            warnings.warn(f"no policy step: g . F^-1 g = {g_dot_x:g} is not positive", stacklevel=3)

        with torch.no_grad():
            mean = policy(x)
            ratio = (policy.log_prob(mean, actions) - log_prob_old).exp().double()
            return {
                "policy/kl": kl_divergence(mean_old, log_std_old, mean, policy.log_std).item(),
                "policy/alpha": alpha,
                "policy/g_dot_x": g_dot_x,
                "policy/surrogate_improvement": ((ratio - 1) @ advantages / len(x)).item(),
                "policy/std": policy.log_std.exp().mean().item(),
            }

    def _fit_value(self, features: Tensor, returns: Tensor) -> Metrics:
        """Adam on the squared error; like the authors' code, it leaves out each epoch's last full batch."""
        size = self.config.value_batch
        batches = max(len(features) // size - 1, 0)
        if batches == 0:
            warnings.warn(
                f"no value fit: {len(features)} samples are not two batches of {size}", stacklevel=3
            )
        before = self._value_error(features, returns)
        for _ in range(self.config.value_epochs):
            order = torch.randperm(len(features), generator=self.generator).to(self.device)
            with _one_thread():
                for batch in order[: batches * size].view(batches, size):
                    loss = mse_loss(self.value(features[batch]), returns[batch])
                    self.value_optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    self.value_optimiser.step()
        return {"value/error_before": before, "value/error_after": self._value_error(features, returns)}

    @torch.no_grad()
    def _value_error(self, features: Tensor, returns: Tensor) -> float:
        error = (returns - self.value(features)).double().square().sum()
        return float(error / (returns.double().square().sum() + 1e-8))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """As the base's, with the value network's Adam state and the number of updates."""
        tensors, values = super().snapshot()
        for i, state in self.value_optimiser.state_dict()["state"].items():
            for name, t in state.items():
                tensors[f"value_optimiser.{i}.{name}"] = _cpu_copy(t)
        return tensors, values | {"updates": self.updates}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        super().restore(tensors, values)
        state: dict[int, dict[str, Tensor]] = {}
        for key, t in tensors.items():
            if key.startswith("value_optimiser."):
                _, i, name = key.split(".")
                state.setdefault(int(i), {})[name] = t.clone()  # the optimiser keeps it and writes into it
        groups = self.value_optimiser.state_dict()["param_groups"]
        self.value_optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.updates = int(str(values["updates"]))


@register
class DAPG(NPG):
    """NPG after cloning, with the demonstrations' likelihood in the gradient, weighted w_k = lam_0 * lam_1^k.

    As in the authors' code, the paper's factor max(advantage) is absent and demonstrations are summed over
    but divided by the number of rollout samples. They never enter the Fisher matrix, the whitening, the
    logged KL or the value fit, and their rewards are not used. `lam_0 = 0` is "BC, then NPG".
    """

    class Config(NPGConfig, CloningConfig):
        """Settings of DAPG."""

        lam_0: NonNegativeFloat = 0.01
        """Weight of the demonstrations in the first update (paper); 0: cloning, then plain NPG."""
        lam_1: float = Field(0.95, ge=0, le=1)
        """Factor on that weight per update (paper)."""

    config: DAPG.Config
    demos: ClassVar[Literal["none", "required"]] = "required"

    demo_obs: Tensor | None = None
    demo_actions: Tensor | None = None

    @property
    def demo_weight(self) -> float:
        """w_k of the next update."""
        return self.config.lam_0 * self.config.lam_1**self.updates

    def warm_start(self, demos: Rollout | None) -> Metrics:
        """Clone the demonstrations and keep them for the updates. Returns cloning's loss before and after."""
        demos = _required(demos, "DAPG")
        self.remember(demos)
        return clone(self.policy, demos, self.config, self.generator)

    def remember(self, demos: Rollout) -> None:
        """Keep the demonstrations for the updates (unless they carry no weight); not part of a snapshot."""
        if self.config.lam_0 > 0:
            self.demo_obs, self.demo_actions = self._tensor(demos.obs), self._tensor(demos.actions)

    def update(self, rollout: Rollout) -> Metrics:
        """As NPG's, with the metric `demos/weight` = w_k."""
        weight = self.demo_weight
        return super().update(rollout) | {"demos/weight": weight}

    def surrogate_gradient(self, x: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        """(0.01 / N) * (sum over rollouts of A grad log pi + w_k * sum over demos of grad log pi)."""
        if self.config.lam_0 == 0:
            return super().surrogate_gradient(x, actions, advantages)
        if self.demo_obs is None or self.demo_actions is None:
            raise UserError(
                "DAPG needs its demonstrations to update: call warm_start(demos) or remember(demos)"
            )
        advantages = advantages / (advantages.std(correction=0) + 1e-8)
        demo_weights = torch.full((len(self.demo_obs),), 0.01 * self.demo_weight / len(x), device=self.device)
        return policy_gradient(self.policy, x, actions, 0.01 * advantages / len(x)) + policy_gradient(
            self.policy, self.policy.standardise(self.demo_obs), self.demo_actions, demo_weights
        )


def _required(demos: Rollout | None, agent: str) -> Rollout:
    if demos is None:
        raise UserError(
            f"{agent} needs demonstrations, but there are none; set Experiment.demos, or take NPG"
        )
    return demos


def _cpu_copy(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True).contiguous()
