"""Natural policy gradient (`NPG`), the same with demonstrations (`DAPG`), and behaviour cloning alone (`BC`).

Paper section 3 and its table of hyperparameters; where the paper is silent, the authors' released code.
Read top to bottom: returns and cloning, the three agents; what a natural-gradient step is made of stands in
`natural_gradient`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Metrics, Progress, cpu_copy, diverged
from rrl.agents.frozen import FrozenAgent
from rrl.agents.natural_gradient import Linearised, conjugate_gradient, kl_divergence
from rrl.agents.networks import GaussianPolicy, ValueNet
from rrl.agents.settings import npg as settings
from rrl.registry import (
    Component,
    UserError,
)
from rrl.rollout.data import Rollout

CHUNK = 4096
"""Samples per forward pass over a whole batch: bounds the memory for activations."""


# --- returns and cloning ----------------------------------------------------------------------------


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


def clone(
    policy: GaussianPolicy,
    demos: Rollout,
    config: settings.CloningConfig,
    generator: torch.Generator,
    progress: Progress = SILENCE,
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

    # The demonstrations' mean and std are the policy's transforms, and their actions' std is where log_std begins.
    device = policy.log_std.device
    in_shift, in_scale = (x.to(device) for x in _mean_and_std(demos.obs))
    out_shift, out_scale = (x.to(device) for x in _mean_and_std(demos.actions))
    policy.in_shift.copy_(in_shift)
    policy.in_scale.copy_(in_scale.clamp(min=config.in_scale_floor * float(in_scale.mean())))
    policy.out_shift.copy_(out_shift)
    policy.out_scale.copy_(out_scale)
    policy.set_std(out_scale, config.init_std_factor)

    # Minimise the mean of |mean(s) - a|^2 over theta (authors' code; the paper says likelihood: the same for a fixed
    # std), in batches drawn with replacement.
    x = policy.standardise(torch.as_tensor(demos.obs, device=device))
    actions = torch.as_tensor(demos.actions, device=device)
    with torch.no_grad():
        before = mse_loss(policy(x), actions).item()
    optimiser = Adam(policy.mlp.parameters(), config.bc_lr)
    steps = config.bc_epochs * (len(x) // config.bc_batch)
    batches = torch.randint(len(x), (steps, config.bc_batch), generator=generator).to(device)
    progress.phase("warm start: cloning", steps)
    losses = x.new_empty(steps)
    with one_thread():
        for step, batch in enumerate(batches):
            seen = x[batch]
            if config.bc_noise:
                seen = seen + config.bc_noise * torch.randn(seen.shape, generator=generator).to(device)
            loss = mse_loss(policy(seen), actions[batch])
            optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
            losses[step] = loss.detach()
            progress.advance(1)
    if len(bad := (~losses.isfinite()).nonzero()):  # looked at in the end: a GPU need not wait for each
        step = int(bad[0])
        epoch = step // (steps // config.bc_epochs) + 1
        when = f"in the warm start, step {step + 1:,} of {steps:,} (epoch {epoch} of {config.bc_epochs})"
        raise diverged(config, when, f"cloning's loss is {losses[step]:g}", ["bc_lr"])
    with torch.no_grad():
        after = mse_loss(policy(x), actions).item()
    return {"bc/loss_before": before, "bc/loss_after": after}


def _mean_and_std(x: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    return torch.as_tensor(mean).float(), torch.as_tensor(std).float()


@contextmanager
def one_thread() -> Iterator[None]:
    """For loops of tiny steps: threads gain little there, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- agents -----------------------------------------------------------------------------------------


class GaussianAgent(settings.GaussianAgent, FrozenAgent):
    """A Gaussian policy on frozen features; the base of these three agents and of DAgger."""

    config: settings.PolicyConfig

    def __init__(self, config: Component.Config, **context: Any) -> None:
        """`context` is what every agent takes: encoder, state_dim, action_dim, seed, inference."""
        super().__init__(config, **context)
        m, hidden, least = self.action_dim, self.config.policy_hidden, self.config.min_log_std
        self.policy_dim = self.obs_dim - self.privileged
        """Length of what the policy sees of a row."""
        self.policy = GaussianPolicy(self.policy_dim, m, hidden, least, self.generator)
        self.policy.set_std(torch.ones(m), self.config.init_std_factor)
        self.policy.to(self.device)

    @torch.no_grad()
    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """mean(observed) + exp(log_std) * noise, [N, m], not clipped; None: the mean."""
        actions = self.mean_action(self._tensor(observed))
        if noise is not None:
            actions = actions + self.policy.log_std.exp() * self._tensor(noise)
        return actions.cpu().numpy()

    def mean_action(self, row: Tensor) -> Tensor:
        """The policy network's output."""
        return self.policy.mean(row[:, : self.policy_dim])

    def policy_state(self) -> dict[str, Tensor]:
        """The policy's weights, log_std and transforms, as fresh CPU tensors."""
        return {name: cpu_copy(t) for name, t in self.policy.state_dict().items()}

    def load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo of `policy_state`, for the same hidden sizes."""
        self.policy.load_state_dict(tensors)

    def _tensor(self, x: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(x, device=self.device)


class BC(settings.BC, GaussianAgent):
    """Behaviour cloning alone: everything is learnt in `warm_start`."""

    config: settings.BC.Config

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Clone the demonstrations. Returns the loss before and after, in squared action units."""
        return clone(self.policy, self.required(demos), self.config, self.generator, progress)

    def update(self, rollout: Rollout) -> Metrics:
        """Refused: BC learns nothing from rollouts."""
        raise UserError("BC learns from demonstrations only, in its warm start: set `Experiment.iterations = 0`")


class NPG(settings.NPG, GaussianAgent):
    """Natural policy gradient with a learnt value baseline; no demonstrations, no line search."""

    config: settings.NPGConfig

    def __init__(self, config: Component.Config, **context: Any) -> None:
        """`context` is what every agent takes: encoder, state_dim, action_dim, seed, inference."""
        super().__init__(config, **context)
        self.value = ValueNet(self.obs_dim, self.config.value_hidden, self.generator).to(self.device)
        self.value_optimiser = Adam(
            self.value.parameters(), self.config.value_lr, weight_decay=self.config.value_weight_decay
        )

    def update(self, rollout: Rollout) -> Metrics:
        """One iteration: advantages from the value network as it was, a policy step, then the value fit.

        Returns `policy/*`, `value/*` and `time/*` (seconds). KL is KL(old || new) in nats, mean over the
        rollout's states; errors are sum (R - V)^2 / sum R^2; `policy/std` is the mean exploration std.
        """
        start = time.perf_counter()
        obs = self._tensor(rollout.obs)
        # 1. R_t and A_t by V_k, the value network of the last iteration (authors' code: it is fitted afterwards).
        returns, advantages = self.returns_and_advantages(rollout)
        # 2. theta_k -> theta_k+1 by one natural-gradient step on whitened advantages.
        metrics = self.step_policy(obs, self._tensor(rollout.actions), whiten(advantages))
        stepped = time.perf_counter()
        # 3. V_k -> V_k+1, fitted to R_t.
        features = ValueNet.features(obs, rollout.t)  # again: as large as obs, so not kept during the step
        metrics |= self.fit_value(features, self._tensor(returns.astype(np.float32)))
        self.updates += 1
        times = {"time/policy_update": stepped - start, "time/value_fit": time.perf_counter() - stepped}
        return metrics | times

    @torch.no_grad()
    def returns_and_advantages(self, rollout: Rollout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Discounted returns [T] and GAE advantages [T] (Schulman et al. 2016), not whitened."""
        gamma = self.config.gamma
        last = np.append(np.diff(rollout.episode) != 0, True)
        # V(s_T) of what follows each episode: 0 in the authors' code, see `terminal_at_horizon`.
        beyond = np.zeros(rollout.episodes)
        if not self.config.terminal_at_horizon:
            final = ValueNet.features(self._tensor(rollout.final_obs), rollout.t[last] + 1)
            beyond = np.where(rollout.terminated[last], 0.0, self.value(final).double().cpu().numpy())
        features = ValueNet.features(self._tensor(rollout.obs), rollout.t)
        values = self._values(features).double().cpu().numpy()
        following = np.append(values[1:], 0.0)
        following[last] = beyond

        # R_t = r_t + gamma R_t+1, ending in V(s_T): what V is fitted to.
        rewards = rollout.rewards.copy()
        rewards[last] += gamma * beyond
        returns = discounted_sums(rewards, gamma, last)
        # delta_t = r_t + gamma V(s_t+1) - V(s_t) and A_t = sum_l (gamma lambda)^l delta_t+l.
        deltas = rollout.rewards + gamma * following - values
        return returns, discounted_sums(deltas, gamma * self.config.gae_lambda, last)

    def surrogate_gradient(self, here: Linearised, actions: Tensor, advantages: Tensor) -> Tensor:
        """g = 1/N sum_i A_i grad log pi(a_i|s_i), flat: the gradient of mean(ratio * A) where every ratio is 1."""
        return here.policy_gradient(actions, advantages / len(actions))

    def step_policy(self, obs: Tensor, actions: Tensor, whitened: NDArray[np.float64]) -> Metrics:
        """theta <- theta + alpha F^-1 g, alpha = sqrt(delta / (g . F^-1 g)): the KL is about delta / 2.

        `obs` [N, n], `actions` [N, m] and whitened advantages [N]. Returns `policy/*`, see `update`.
        """
        config, policy = self.config, self.policy
        x = policy.standardise(obs)
        advantages = torch.as_tensor(whitened, device=self.device)
        here, log_std_old = Linearised(policy, x), policy.log_std.detach().clone()

        # g, the policy gradient; and x = F^-1 g by conjugate gradient, with F + damping I (authors' code).
        g = self.surrogate_gradient(here, actions, advantages)
        direction = conjugate_gradient(lambda v: here.fisher_product(v, config.damping), g, config.cg_iterations)
        g_dot_x = (g @ direction).item()
        if not math.isfinite(g_dot_x):
            raise diverged(config, f"in update {self.updates + 1}", f"the policy gradient is not finite ({g_dot_x:g})")
        # theta <- theta + alpha x. A step of length alpha changes the KL by alpha^2 / 2 x . F x = alpha^2 / 2 g . x:
        # delta / 2 with this alpha (paper section 3). One step, without TRPO's line search.
        alpha = 0.0
        if g_dot_x > 0:
            alpha = math.sqrt(config.step_size / (g_dot_x + 1e-20))
            policy.set_flat(policy.flat() + alpha * direction)
        else:
            warnings.warn(f"no policy step: g . F^-1 g = {g_dot_x:g} is not positive", stacklevel=3)

        # What the step did, on the very samples that it was made from; nothing below changes anything.
        with torch.no_grad():
            log_prob_old = policy.log_prob(here.mean, actions, log_std_old)
            mean = torch.cat([policy(chunk) for chunk in torch.split(x, CHUNK)])
            ratio = (policy.log_prob(mean, actions) - log_prob_old).exp().double()
            return {
                "policy/kl": kl_divergence(here.mean, log_std_old, mean, policy.log_std).item(),
                "policy/alpha": alpha,
                "policy/g_dot_x": g_dot_x,
                "policy/surrogate_improvement": ((ratio - 1) @ advantages / len(x)).item(),
                "policy/std": policy.log_std.exp().mean().item(),
            }

    def fit_value(self, features: Tensor, returns: Tensor) -> Metrics:
        """Adam on the squared error; like the authors' code, it leaves out each epoch's last full batch.

        `features` [N, n + 4] and discounted returns [N]. Returns `value/*`, see `update`.
        """
        size = self.config.value_batch
        batches = max(len(features) // size - 1, 0)
        if batches == 0:
            warnings.warn(f"no value fit: {len(features)} samples are not two batches of {size}", stacklevel=3)
        before = self._value_error(features, returns)
        for _ in range(self.config.value_epochs):
            order = torch.randperm(len(features), generator=self.generator).to(self.device)
            rows = order[: batches * size].view(batches, size)
            with one_thread():
                self.value.fit(features, returns, rows, self.value_optimiser)
        return {"value/error_before": before, "value/error_after": self._value_error(features, returns)}

    @torch.no_grad()
    def _values(self, features: Tensor) -> Tensor:
        return torch.cat([self.value(chunk) for chunk in torch.split(features, CHUNK)])

    def _value_error(self, features: Tensor, returns: Tensor) -> float:
        error = (returns - self._values(features)).double().square().sum()
        return float(error / (returns.double().square().sum() + 1e-8))

    def saved_optimisers(self) -> dict[str, Adam]:
        """The value network's."""
        return {"value_optimiser": self.value_optimiser}


class DAPG(settings.DAPG, NPG):
    """NPG after cloning, with the demonstrations' likelihood in the gradient, weighted w_k = lam_0 * lam_1^k.

    As in the authors' code, the paper's factor max(advantage) is absent and demonstrations are summed over
    but divided by the number of rollout samples. They never enter the Fisher matrix, the whitening, the
    logged KL or the value fit, and their rewards are not used. `lam_0 = 0` is "BC, then NPG".
    """

    config: settings.DAPG.Config

    demo_obs: Tensor | None = None
    demo_actions: Tensor | None = None

    @property
    def demo_weight(self) -> float:
        """w_k of the next update."""
        return self.config.lam_0 * self.config.lam_1**self.updates

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Clone the demonstrations and keep them for the updates. Returns cloning's loss before and after."""
        demos = self.required(demos)
        self.remember(demos)
        return clone(self.policy, demos, self.config, self.generator, progress)

    def remember(self, demos: Rollout) -> None:
        """Keep the demonstrations for the updates (unless they carry no weight); not part of a snapshot."""
        if self.config.lam_0 > 0:
            self.demo_obs, self.demo_actions = self._tensor(demos.obs), self._tensor(demos.actions)

    def update(self, rollout: Rollout) -> Metrics:
        """As NPG's, with the metric `demos/weight` = w_k."""
        weight = self.demo_weight
        return super().update(rollout) | {"demos/weight": weight}

    def surrogate_gradient(self, here: Linearised, actions: Tensor, advantages: Tensor) -> Tensor:
        """(0.01 / N) * (sum over rollouts of A grad log pi + w_k * sum over demos of grad log pi)."""
        if self.config.lam_0 == 0:
            return super().surrogate_gradient(here, actions, advantages)
        if self.demo_obs is None or self.demo_actions is None:
            raise UserError("no demonstrations to update with: call warm_start(demos) or remember(demos) first")
        # The authors' code standardises once more here, and scales both terms by 0.01: the natural gradient's
        # normalised step doesn't see the scale, but conjugate gradient's tolerance does.
        advantages = advantages / (advantages.std(correction=0) + 1e-8)
        # g = 1/N (sum over rollouts of A grad log pi + sum over demonstrations of w_k grad log pi)
        samples, demos = len(actions), len(self.demo_actions)
        demo_weights = torch.full((demos,), 0.01 * self.demo_weight / samples, device=self.device)
        at_demos = Linearised(self.policy, self.policy.standardise(self.demo_obs))
        return here.policy_gradient(actions, 0.01 * advantages / samples) + at_demos.policy_gradient(
            self.demo_actions, demo_weights
        )
