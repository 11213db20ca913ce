"""PPO as a plugin: proximal policy optimisation (Schulman et al. 2017) in one file, as a newcomer would write it.

Settings and order of an update as in cleanrl's `ppo_continuous_action.py`; see `PPO.update`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from rrl.agents.adam import Adam
from rrl.agents.base import Agent, AgentSteps, Metrics, cpu_copy
from rrl.agents.frozen import FrozenAgent
from rrl.agents.networks import GaussianPolicy, mlp
from rrl.registry import Component, Count, Positive, PositiveOrZero, Samples, Width, register
from rrl.rollout.data import Rollout


@register
class PPO(FrozenAgent):
    """Clipped policy steps on features and state, several passes over the latest steps."""

    class Config(Agent.Config):
        """Settings of PPO."""

        steps: Count = 256
        """Agent steps of every environment before each update: with eight environments 2,048 in all (paper)."""
        epochs: Count = 10
        """Passes over an update's steps (paper)."""
        batch: Samples = 64
        """Steps per gradient step (paper)."""
        lr: Positive = 3e-4
        """Adam's learning rate (paper)."""
        gamma: float = Field(default=0.99, gt=0, le=1)
        """Discount per agent step (paper)."""
        gae_lambda: float = Field(default=0.95, ge=0, le=1)
        """Lambda of generalised advantage estimation (paper)."""
        clip: Positive = 0.2
        """epsilon: how far the ratio of likelihoods may go from 1 (paper)."""
        value_weight: PositiveOrZero = 0.5
        """c1: weight of the value loss (cleanrl)."""
        entropy_weight: PositiveOrZero = 0.0
        """c2: weight of the entropy bonus, per nat (paper: 0 for continuous actions)."""
        max_norm: Positive = 0.5
        """Largest norm of a gradient (cleanrl)."""
        hidden: tuple[Width, ...] = (64, 64)
        """Units in each hidden tanh layer of policy and value network (paper)."""

        def wants(self) -> AgentSteps:
            """`steps` of every environment, whatever number of them there is."""
            return AgentSteps(self.steps)

    metrics = {"ppo/kl": "KL {:.4f}", "ppo/clipped": "clipped {:.2f}"}  # noqa: RUF012
    speed_ignores = frozenset({"lr", "gamma", "gae_lambda", "clip", "value_weight", "entropy_weight", "max_norm"})
    step_sizes = ("lr",)
    config: Config
    count: Tensor

    def __init__(self, config: Component.Config, **context: Any) -> None:
        super().__init__(config, **context)
        hidden = self.config.hidden
        self.policy = GaussianPolicy(self.obs_dim, self.action_dim, hidden, min_log_std=-5.0, generator=self.generator)
        self.value = mlp((self.obs_dim, *hidden, 1), nn.Tanh, self.generator)
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.to(self.device)
        self.trained = [*self.policy.trainable(), *self.value.parameters()]
        self.optimisers["all"] = Adam(self.trained, self.config.lr)

    @torch.no_grad()
    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """mean + std * noise, [N, m], not clipped (the environment does it); None: the mean."""
        actions = self.policy.mean(self._tensor(observed))
        if noise is not None:
            actions = actions + self.policy.log_std.exp() * self._tensor(noise)
        return actions.cpu().numpy()

    def update(self, rollout: Rollout) -> Metrics:
        """`epochs` passes of clipped steps. Returns `ppo/*`: KL(old || new) in nats and the share of clipped ratios
        (means of the last pass), the value loss in squared units of return, the policy's std."""
        config = self.config
        x, actions = self.policy.standardise(self._tensor(rollout.obs)), self._tensor(rollout.actions)
        with torch.no_grad():
            log_prob_old = self.policy.log_prob(self.policy(x), actions)
            values = self.value(x).squeeze(-1)
            final = self.value(self.policy.standardise(self._tensor(rollout.final_obs))).squeeze(-1)
        advantages, returns = (self._tensor(a) for a in self.advantages(rollout, values, final))
        metrics: list[dict[str, float]] = []
        for _ in range(config.epochs):
            order = torch.randperm(len(x), generator=self.generator).to(self.device)
            metrics = [
                self.learn(x[rows], actions[rows], log_prob_old[rows], advantages[rows], returns[rows])
                for rows in order.split(config.batch)
            ]
        # Last, so that the next rollout is collected and learnt from with the same mean and std.
        self.standardise_by(self._tensor(rollout.obs))
        self.updates += 1
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        return means | {"ppo/std": self.policy.log_std.exp().mean().item()}

    def advantages(
        self, rollout: Rollout, values: Tensor, final: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """GAE advantages and the value network's targets, [T] each, for values [T] and those of `final_obs` [E].

        A piece that was cut, by the end of the collection or at the horizon, is worth what follows it; one that truly
        ended is not.
        """
        gamma, decay = self.config.gamma, self.config.gamma * self.config.gae_lambda
        v = values.double().cpu().numpy()
        last = np.append(np.diff(rollout.episode) != 0, True)
        following = np.append(v[1:], 0.0)
        following[last] = np.where(rollout.terminated[last], 0.0, final.double().cpu().numpy())
        # delta_t = r_t + gamma V(s_t+1) - V(s_t);  A_t = delta_t + gamma lambda A_t+1 within a piece.
        deltas = rollout.rewards + gamma * following - v
        advantages = np.zeros(len(v))
        running = 0.0
        for t in reversed(range(len(v))):
            running = advantages[t] = deltas[t] + (0.0 if last[t] else decay * running)
        return advantages.astype(np.float32), (advantages + v).astype(np.float32)

    def learn(
        self, x: Tensor, actions: Tensor, log_prob_old: Tensor, advantages: Tensor, returns: Tensor
    ) -> dict[str, float]:
        """One gradient step on a minibatch."""
        config, policy = self.config, self.policy
        # L_clip: mean of min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A), A whitened per minibatch (cleanrl).
        log_ratio = policy.log_prob(policy(x), actions) - log_prob_old
        ratio = log_ratio.exp()
        a = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        surrogate = torch.minimum(ratio * a, ratio.clamp(1 - config.clip, 1 + config.clip) * a).mean()
        # L_value, not clipped (Andrychowicz et al. 2021 found no gain), and the entropy of a Gaussian up to a constant.
        value_loss = 0.5 * (self.value(x).squeeze(-1) - returns).square().mean()
        loss = -surrogate + config.value_weight * value_loss - config.entropy_weight * policy.log_std.sum()
        gradients = torch.autograd.grad(loss, self.trained)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        scale = (config.max_norm / (norm + 1e-6)).clamp(max=1.0)
        self.optimisers["all"].step([g * scale for g in gradients])
        return {
            "ppo/kl": (ratio.detach() - 1 - log_ratio.detach()).mean().item(),  # http://joschu.net/blog/kl-approx.html
            "ppo/clipped": ((ratio - 1).abs() > config.clip).float().mean().item(),
            "ppo/value_loss": value_loss.item(),
        }

    @torch.no_grad()
    def standardise_by(self, obs: Tensor) -> None:
        """Take observations [T, n] into the mean and std of all so far (Chan et al. 1979)."""
        shift, scale = self.policy.in_shift, self.policy.in_scale
        before, new = float(self.count), len(obs)
        weight = new / (before + new)
        moved = obs.mean(0) - shift
        variance = (1 - weight) * (before > 0) * scale.square() + weight * obs.var(0, correction=0)
        variance += (before > 0) * weight * (1 - weight) * moved.square()
        shift.add_(moved * weight)
        scale.copy_(variance.sqrt().clamp(min=1e-3))
        self.count += new

    def policy_state(self) -> dict[str, Tensor]:
        """The policy without the value network."""
        return {name: cpu_copy(t) for name, t in self.state_dict().items() if name.startswith("policy.")}

    def _tensor(self, x: NDArray[Any]) -> Tensor:
        return torch.as_tensor(x, device=self.device)
