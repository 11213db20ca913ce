"""Soft actor-critic, on a state, on frozen features, or together with an encoder that learns.

Haarnoja et al. 2018 with a learnt temperature, in the forms of pytorch_sac, RAD, CURL and SAC+AE (the
paper's section 5.8 and table 1); `RAD`, `CURL`, `SACAE` are this agent with the published settings. Read
top to bottom: networks, losses; memory, views and targets are `off_policy`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu, softplus

from rrl.agents.adam import Adam
from rrl.agents.networks import orthogonal_mlp
from rrl.agents.off_policy import OffPolicyAgent, Seen
from rrl.agents.settings import sac as settings
from rrl.rollout.data import Rollout


class Actor(nn.Module):
    """A Gaussian squashed by tanh: a = tanh(mu(x) + std(x) * noise)."""

    def __init__(
        self, size: int, action_dim: int, config: settings.SACConfig, generator: torch.Generator, *, norm: bool = False
    ) -> None:
        """`norm`: LayerNorm after each hidden layer, before its ReLU."""
        super().__init__()
        self.config = config
        self.mlp = orthogonal_mlp((size, *config.hidden, 2 * action_dim), generator, norm=norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n] -> (mu, log_std), both [B, m], before the tanh."""
        mu, raw = self.mlp(x).chunk(2, dim=-1)
        low, high = self.config.log_std_min, self.config.log_std_max
        return mu, low + 0.5 * (high - low) * (torch.tanh(raw) + 1)  # bounded smoothly (pytorch_sac), not clipped

    def sample(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(actions [B, m], log pi [B]) for standard normal `noise` [B, m]."""
        # a = tanh(u), u = mu + std * noise: log pi(a) = log N(u) - sum log |da / du| (SAC's appendix C).
        mu, log_std = self(x)
        before = mu + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(before), (normal - log_slope(before, self.config.log_prob)).sum(-1)


def log_slope(before: Tensor, form: Literal["stable", "clipped"]) -> Tensor:
    """log d tanh(u) / du of `before` = u, elementwise, in one of the two published forms."""
    if form == "stable":
        return 2 * (math.log(2) - before - softplus(-2 * before))
    return torch.log(relu(1 - torch.tanh(before).square()) + 1e-6)


class Critic(nn.Module):
    """Two Q networks."""

    def __init__(self, size: int, action_dim: int, config: settings.SACConfig, generator: torch.Generator) -> None:
        super().__init__()
        sizes = size + action_dim, *config.hidden, 1
        self.q1, self.q2 = (orthogonal_mlp(sizes, generator, norm=config.critic_norm) for _ in range(2))

    def forward(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n] and [B, m] -> (Q1, Q2), both [B]."""
        both = torch.cat((x, actions), dim=-1)
        return self.q1(both).squeeze(-1), self.q2(both).squeeze(-1)


class SAC(settings.SAC, OffPolicyAgent):
    """Soft actor-critic: one update per agent step, from a replay memory."""

    tells_bounds: ClassVar[bool] = False
    """Does it watch the range of rewards, even if its targets aren't cut to what that allows?"""
    config: settings.SACConfig
    actor: Actor
    reward_range: Tensor
    """[2]: least and greatest reward that was seen, 0 among them: what comes after a true end."""

    def make_networks(self, size: int) -> tuple[Actor, nn.Module]:
        """Actor and critics, and the temperature."""
        self.make_temperature()
        what = size, self.action_dim, self.config, self.generator
        return Actor(*what), Critic(*what)

    def make_temperature(self) -> None:
        """Learnt as its logarithm. With what bounds the targets."""
        self.log_alpha = nn.Parameter(torch.tensor(math.log(self.config.init_alpha)))
        if self.config.bounded_targets or self.tells_bounds:
            self.register_buffer("reward_range", torch.zeros(2))

    def make_optimisers(self) -> dict[str, Adam]:
        """With one of log alpha."""
        alpha = Adam([self.log_alpha], self.config.alpha_lr, beta=self.config.alpha_beta)
        return super().make_optimisers() | {"alpha": alpha}

    @property
    def alpha(self) -> Tensor:
        """The temperature, without gradient."""
        return self.log_alpha.detach().exp()

    def choose(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """The actor's own."""
        return self.own(x, noise)

    def own(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """tanh(mu + std * noise); None: tanh(mu)."""
        mu, log_std = self.actor(x)
        return torch.tanh(mu if noise is None else mu + log_std.exp() * noise)

    def take(self, rollout: Rollout) -> None:
        """See `OffPolicyAgent`."""
        super().take(rollout)
        self.see(rollout)

    def see(self, rollout: Rollout) -> None:
        """Widen what the targets are bounded by."""
        if self.config.bounded_targets or self.tells_bounds:
            rewards = torch.as_tensor(rollout.rewards, device=self.device)
            self.reward_range[0].clamp_(max=rewards.min())
            self.reward_range[1].clamp_(min=rewards.max())

    @torch.no_grad()
    def targets(self, rewards: Tensor, not_done: Tensor, after: Seen, *draws: Tensor) -> Tensor:
        """y = r + gamma * not_done * V(s'), [B]. A time limit is no end: not_done stays 1 there (Pardo et al. 2018)."""
        y = rewards + self.config.gamma * not_done * self.value_after(after, *draws)
        return self.bounded(y) if self.config.bounded_targets else y

    def bounded(self, y: Tensor) -> Tensor:
        """[B] -> [B], cut to what rewards allow."""
        return y.clamp(*self.bounds())

    def value_after(self, after: Seen, *draws: Tensor) -> Tensor:
        """V(s') = min Q'(s', a') - alpha * log pi(a'|s'), [B]; a' from the actor, with the noise that was drawn."""
        # a' ~ pi(.|s'), from the policy as it is now, not from the memory; Q1', Q2' of the target networks, the smaller
        # one against overestimation (TD3).
        actions, log_prob = self.propose(self.for_actor(after), *draws)
        q1, q2 = self.target["critic"](self.for_critic(after, self.target), actions)
        return torch.minimum(q1, q2) - self.alpha * log_prob

    def propose(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(actions [B, m], log pi [B]) of the actor, for its inputs and standard normal noise [B, m]."""
        return self.actor.sample(x, noise)

    def bounds(self) -> Tensor:
        """[2]: what a policy can have at least and at most: the least and the greatest reward seen, for ever."""
        return self.reward_range / (1 - self.config.gamma)

    def learn_critic(
        self, now: Seen, actions: Tensor, rewards: Tensor, not_done: Tensor, after: Seen, *draws: Tensor
    ) -> dict[str, Tensor]:
        """J_Q = E (Q1(s, a) - y)^2 + E (Q2(s, a) - y)^2: the loss that trains the encoder too."""
        y = self.targets(rewards, not_done, after, *draws)
        qs = self.values(self.for_critic(now, self.online), actions, *draws)
        loss = self.error(qs, y)
        self.step(loss, "critic")
        return {
            "sac/critic_loss": loss.detach(),
            "sac/q": qs[0].detach().mean(),
            "sac/batch_reward": rewards.mean(),
            **self.of_targets(y),
        }

    def values(self, x: Tensor, actions: Tensor, *draws: Tensor) -> Any:
        """Of the critics' inputs [B, n] and actions [B, m], by each critic, as the critics' loss sees them."""
        return self.online["critic"](x, actions)

    def of_targets(self, y: Tensor) -> dict[str, Tensor]:
        """What else to tell of what the critics learn, [B]. As it stands: nothing."""
        return {}

    def error(self, qs: Sequence[Tensor], y: Tensor) -> Tensor:
        """[]: of each critic's [B] the mean squared distance from y [B], summed."""
        return mse_loss(qs[0], y) + mse_loss(qs[1], y)

    def judged(self, qs: Sequence[Tensor]) -> Tensor:
        """[B]: what the actor climbs."""
        return torch.minimum(qs[0], qs[1])

    def learn_actor(self, now: Seen, actions: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """J_pi = E [alpha * log pi(a|s) - min(Q1, Q2)(s, a)], a ~ pi(.|s); then J_alpha."""
        # a is a function of the noise, so gradients go through Q into the actor (reparametrisation); not into the
        # convolutions, which the critics alone train (SAC+AE found this to matter).
        x, for_critic = self.for_both(now)
        chosen, log_prob = self.propose(x, noise)
        q = self.judged(self.online["critic"](for_critic, chosen))
        loss = (self.alpha * log_prob - q).mean()
        self.step(loss + self.imitation(x, actions, q.detach()), "actor")
        return {"sac/actor_loss": loss.detach()} | self.learn_temperature(log_prob.detach())

    def learn_temperature(self, log_prob: Tensor) -> dict[str, Tensor]:
        """A step of log alpha, of the probabilities [B] of what the actor chose. Returns metrics."""
        # J_alpha = E [alpha * (-log pi(a|s) - H)]: the temperature falls while the policy's entropy is above its
        # target H = -m, and rises below. alpha itself and not log alpha stands in the loss, as in all four codes.
        entropy = -log_prob.mean()
        self.step(self.log_alpha.exp() * (entropy - self.target_entropy()), "alpha")
        return {"sac/entropy": entropy, "sac/alpha": self.alpha}

    def target_entropy(self) -> float:
        """In nats."""
        return -self.action_dim if self.config.target_entropy is None else self.config.target_entropy

    def imitation(self, x: Tensor, actions: Tensor, q: Tensor) -> Tensor | float:
        """What else the actor's loss holds, of its inputs [B, n], the actions [B, m] that were taken there and the
        values [B] of its own. As it stands: nothing."""
        return 0.0
