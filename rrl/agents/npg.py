"""Natural policy gradient (`NPG`), the same with demonstrations (`DAPG`), and behaviour cloning alone (`BC`).

Paper section 3 and its table of hyperparameters; where the paper is silent, the authors' released code.
Read top to bottom: settings, returns and cloning, the three agents; what a natural-gradient step is made of
stands in `natural_gradient`.
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
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Agent, Episodes, Metrics, Progress
from rrl.agents.natural_gradient import Linearised, conjugate_gradient, kl_divergence
from rrl.agents.networks import GaussianPolicy, ValueNet
from rrl.encoders.base import Encoder, Inference
from rrl.registry import Component, UserError, register
from rrl.rollout.data import Obs, Rollout

CHUNK = 4096
"""Samples per forward pass over a whole batch: bounds the memory for activations."""


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

    def wants(self) -> Episodes:
        """`trajectories` whole episodes."""
        return Episodes(self.trajectories)


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


def clone(policy: GaussianPolicy, demos: Rollout, config: CloningConfig, generator: torch.Generator) -> Metrics:
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
    optimiser = Adam(policy.mlp.parameters(), config.bc_lr)
    steps = config.bc_epochs * (len(x) // config.bc_batch)
    batches = torch.randint(len(x), (steps, config.bc_batch), generator=generator).to(device)
    with _one_thread():
        for batch in batches:
            loss = mse_loss(policy(x[batch]), actions[batch])
            optimiser.step(torch.autograd.grad(loss, optimiser.parameters))
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

    speed_ignores = frozenset(
        {"bc_epochs", "bc_lr", "bc_batch", "lam_0", "lam_1", "step_size", "gamma", "gae_lambda", "trajectories"}
    )
    metrics = {"policy/kl": "KL {:.4f}"}  # noqa: RUF012
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
        inference: Inference,
        slots: int = 1,
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
        self.device = inference.device
        self.features_dim = encoder.dim
        self.obs_dim = encoder.dim + state_dim
        encode = encoder.inference(inference)
        # In a lambda, as a module would join this agent's parameters and checkpoints.
        self._encode: Callable[[Tensor], Tensor] = lambda frames: encode(frames)
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = GaussianPolicy(self.obs_dim, action_dim, config.policy_hidden, config.min_log_std, self.generator)
        self.policy.set_std(torch.ones(action_dim), config.init_std_factor)
        self.policy.to(self.device)

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

        def wants(self) -> Episodes:
            """Nothing: it learns from demonstrations alone."""
            return Episodes(0)

    config: BC.Config
    demos: ClassVar[Literal["none", "required"]] = "required"
    needs_rollouts: ClassVar[bool] = False

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
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
        """`context` is what every agent takes: encoder, state_dim, action_dim, seed, inference."""
        super().__init__(config, **context)
        self.value = ValueNet(self.obs_dim, self.config.value_hidden, self.generator).to(self.device)
        self.value_optimiser = Adam(
            self.value.parameters(), self.config.value_lr, weight_decay=self.config.value_weight_decay
        )
        self.updates = 0

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
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
        returns, advantages = self.returns_and_advantages(rollout)
        metrics = self.step_policy(obs, self._tensor(rollout.actions), whiten(advantages))
        stepped = time.perf_counter()
        features = ValueNet.features(obs, rollout.t)  # again: as large as obs, so not kept during the step
        metrics |= self.fit_value(features, self._tensor(returns.astype(np.float32)))
        self.updates += 1
        times = {"time/policy_update": stepped - start, "time/value_fit": time.perf_counter() - stepped}
        return metrics | times

    @torch.no_grad()
    def returns_and_advantages(self, rollout: Rollout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Discounted returns [T] and GAE advantages [T], not whitened."""
        gamma = self.config.gamma
        last = np.append(np.diff(rollout.episode) != 0, True)
        beyond = np.zeros(rollout.episodes)  # value of what follows each episode
        if not self.config.terminal_at_horizon:
            final = ValueNet.features(self._tensor(rollout.final_obs), rollout.t[last] + 1)
            beyond = np.where(rollout.terminated[last], 0.0, self.value(final).double().cpu().numpy())
        features = ValueNet.features(self._tensor(rollout.obs), rollout.t)
        values = self._values(features).double().cpu().numpy()
        following = np.append(values[1:], 0.0)
        following[last] = beyond

        rewards = rollout.rewards.copy()
        rewards[last] += gamma * beyond
        returns = discounted_sums(rewards, gamma, last)
        deltas = rollout.rewards + gamma * following - values
        return returns, discounted_sums(deltas, gamma * self.config.gae_lambda, last)

    def surrogate_gradient(self, here: Linearised, actions: Tensor, advantages: Tensor) -> Tensor:
        """Flat gradient of mean(ratio * advantages) at the current policy, where ratio = 1."""
        return here.policy_gradient(actions, advantages / len(actions))

    def step_policy(self, obs: Tensor, actions: Tensor, whitened: NDArray[np.float64]) -> Metrics:
        """theta <- theta + alpha F^-1 g, alpha = sqrt(delta / (g . F^-1 g)): the KL is about delta / 2.

        `obs` [N, n], `actions` [N, m] and whitened advantages [N]. Returns `policy/*`, see `update`.
        """
        config, policy = self.config, self.policy
        x = policy.standardise(obs)
        advantages = torch.as_tensor(whitened, device=self.device)
        here, log_std_old = Linearised(policy, x), policy.log_std.detach().clone()

        gradient = self.surrogate_gradient(here, actions, advantages)
        direction = conjugate_gradient(lambda v: here.fisher_product(v, config.damping), gradient, config.cg_iterations)
        g_dot_x = (gradient @ direction).item()
        if not math.isfinite(g_dot_x):
            raise FloatingPointError("the policy gradient is not finite: nan or inf in the rollout or the policy")
        alpha = 0.0
        if g_dot_x > 0:
            alpha = math.sqrt(config.step_size / (g_dot_x + 1e-20))
            policy.set_flat(policy.flat() + alpha * direction)
        else:
            warnings.warn(f"no policy step: g . F^-1 g = {g_dot_x:g} is not positive", stacklevel=3)

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
            with _one_thread():
                self.value.fit(features, returns, rows, self.value_optimiser)
        return {"value/error_before": before, "value/error_after": self._value_error(features, returns)}

    @torch.no_grad()
    def _values(self, features: Tensor) -> Tensor:
        return torch.cat([self.value(chunk) for chunk in torch.split(features, CHUNK)])

    def _value_error(self, features: Tensor, returns: Tensor) -> float:
        error = (returns - self._values(features)).double().square().sum()
        return float(error / (returns.double().square().sum() + 1e-8))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """As the base's, with the value network's Adam state and the number of updates."""
        tensors, values = super().snapshot()
        tensors |= {f"value_optimiser.{key}": t for key, t in self.value_optimiser.state().items()}
        return tensors, values | {"updates": self.updates}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        super().restore(tensors, values)
        begin = "value_optimiser."
        found = {key.removeprefix(begin): t for key, t in tensors.items() if key.startswith(begin)}
        self.value_optimiser.load_state(found)
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

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
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

    def surrogate_gradient(self, here: Linearised, actions: Tensor, advantages: Tensor) -> Tensor:
        """(0.01 / N) * (sum over rollouts of A grad log pi + w_k * sum over demos of grad log pi)."""
        if self.config.lam_0 == 0:
            return super().surrogate_gradient(here, actions, advantages)
        if self.demo_obs is None or self.demo_actions is None:
            raise UserError("DAPG needs its demonstrations to update: call warm_start(demos) or remember(demos)")
        advantages = advantages / (advantages.std(correction=0) + 1e-8)
        samples, demos = len(actions), len(self.demo_actions)
        demo_weights = torch.full((demos,), 0.01 * self.demo_weight / samples, device=self.device)
        at_demos = Linearised(self.policy, self.policy.standardise(self.demo_obs))
        return here.policy_gradient(actions, 0.01 * advantages / samples) + at_demos.policy_gradient(
            self.demo_actions, demo_weights
        )


def _required(demos: Rollout | None, agent: str) -> Rollout:
    if demos is None:
        raise UserError(f"{agent} needs demonstrations, but there are none; set Experiment.demos, or take NPG")
    return demos


def _cpu_copy(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True).contiguous()
