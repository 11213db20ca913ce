"""RLPD: SAC on frozen features with demonstrations in half of every batch, many critics and many updates a step.

Ball et al. 2023, with what others found to help beside it, each a field: several-step returns (VRL3, ResFiT), a trunk
on the features (DrQ-v2, VRL3), a warm-up by a clone (WSRL), and that clone as a reference to choose from (IBRL) or to
correct (ResFiT). The networks: `rlpd_networks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Metrics, Progress, cpu_copy
from rrl.agents.demonstrated import DemonstratedSAC, cut
from rrl.agents.networks import GaussianPolicy
from rrl.agents.npg import clone
from rrl.agents.off_policy import Seen
from rrl.agents.replay import LAST, Batch, Replay
from rrl.agents.rlpd_networks import Ensemble, Principal, Privileged, Standardised, Trunk, TrunkActor
from rrl.agents.sac import Actor
from rrl.agents.settings import rlpd as settings
from rrl.registry import UserError
from rrl.rollout.data import Obs, Rollout

NOISE_CLIP = 0.3
"""Of fixed noise in actions (DrQ-v2, VRL3, IBRL)."""


class RLPD(settings.RLPD, DemonstratedSAC):
    """SAC with a normalised ensemble of critics, from demonstrations and its own steps in equal shares."""

    tells_bounds = True
    config: settings.RLPD.Config

    def make_networks(self, size: int) -> tuple[Actor, Ensemble]:
        """With the clone, if one is needed, and trunks on features."""
        config, g = self.config, self.generator
        self.make_temperature()
        self.raw_demos: Rollout | None = None
        """A resumed run's demonstrations until `restore` tells how to condense them."""
        width, features = config.principal or 0, self.feature_dim
        if features and width > features:
            raise UserError(f"RLPD.principal is {width}, but the encoder has {features} features")
        self.principal = Principal(features, width) if self.condenses() else None
        if config.clones():
            sees = features + self.state_dim - self.privileged
            self.clone = GaussianPolicy(sees, self.action_dim, config.policy_hidden, config.min_log_std, g)
        hidden = self.stack * self.privileged
        trunks = self.make_trunk(), None if hidden else self.make_trunk()
        seen = size - hidden if trunks[0] is None else size - hidden - trunks[0].narrower
        beside = self.action_dim if config.reference == "correct" and not self.principal else 0
        actor = TrunkActor(seen + beside, self.action_dim, config, g, norm=config.actor_norm)
        critic = Ensemble(hidden or seen, self.action_dim, config.hidden, config.critics, config.critic_norm, g)
        critic.mixed = self.mixed
        if config.reference == "correct":
            with torch.no_grad():  # begin near the clone, whatever the observation
                for parameter in actor.mlp[-1].parameters():
                    parameter.mul_(0.01)
        frozen = size == self.stack * self.row  # an encoder that learns has codes instead
        for network, trunk in zip((actor, critic), trunks, strict=True):
            network.trunk = nn.Sequential(
                *([Standardised(self.row, self.stack)] if config.standardise and frozen else []),
                *([Privileged(self.row, self.stack, *self.private, shown=network is critic)] if hidden else []),
                *([trunk] if trunk else []),
            )
        return actor, critic

    @property
    def private(self) -> tuple[int, int]:
        """Where a row holds what critics alone see."""
        end = self.row - self.action_dim * (self.condenses() and self.config.clones())
        return end - self.privileged, end

    def public(self, rows: Tensor) -> Tensor:
        """[T, features and state] without what critics alone see."""
        return rows[:, : rows.shape[1] - self.privileged]

    def fit_inputs(self, rows: NDArray[np.float32]) -> None:
        """Set what standardises inputs, in all networks, to the demonstrations' rows."""
        for module in self.modules():
            if isinstance(module, Standardised):
                module.fit(rows, self.config.in_scale_floor)

    def make_trunk(self) -> Trunk | None:
        """If the settings ask for one and there are features."""
        width, features = self.config.trunk, self.feature_dim
        if not (width and features):
            return None
        return Trunk(features, self.row - self.privileged, self.stack, width, self.generator)

    def target_entropy(self) -> float:
        """In nats."""
        return -self.action_dim / 2 if self.config.target_entropy is None else self.config.target_entropy

    # Rows: features and state, or what is needed of them

    def condenses(self) -> bool:
        """Are features kept as principal components, with the clone's action beside them?"""
        return self.config.principal is not None and self.feature_dim > 0

    def row_size(self) -> int:
        """Of [components, state, the clone's action if there is a clone], or as ever."""
        if not self.condenses():
            return super().row_size()
        return self.features_kept() + self.state_dim + self.action_dim * self.config.clones()

    def features_kept(self) -> int:
        """Of a view."""
        return self.config.principal or 0 if self.condenses() else self.feature_dim

    def kept_size(self) -> int:
        """Every view's features and clone's action, and the state once."""
        return self.state_dim + self.views * (self.row - self.state_dim) if self.pixels is None else self.row

    def one_view(self, rows: NDArray[Any], *, drawn: bool = False) -> NDArray[Any]:
        """See `OffPolicyAgent`."""
        if rows.shape[-1] == self.row:  # one is all there is
            return rows
        shape, features = rows.shape[:-1], self.features_kept()
        seen, state, base = np.split(rows, np.cumsum((self.views * features, self.state_dim)), axis=-1)
        # One for all rows of a transition, which share a stack's pictures.
        each = (*shape[:-1], 1) if len(shape) > 1 else shape
        chosen = torch.randint(self.views, each, generator=self.generator).numpy() if drawn else np.zeros(each, int)
        chosen = np.broadcast_to(chosen, shape)

        def of(parts: NDArray[Any], width: int) -> NDArray[Any]:
            apart = parts.reshape(*shape, self.views, width)
            return np.take_along_axis(apart, chosen[..., None, None], axis=-2)[..., 0, :]

        return np.concatenate((of(seen, features), state, of(base, base.shape[-1] // self.views)), axis=-1)

    def observe(self, obs: Obs) -> NDArray[Any]:
        """As it is kept."""
        rows = self.observe_demo(obs)
        return rows if self.principal is None else self.condensed(rows)

    def observe_demo(self, obs: Obs) -> NDArray[Any]:
        """With all features, which the warm start needs."""
        return super().observe(obs)

    @torch.no_grad()
    def condensed(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """[T, features of all views, and state] -> [T, kept_size]."""
        return self.condense(torch.as_tensor(rows, device=self.device)).cpu().numpy()

    def condense(self, rows: Tensor) -> Tensor:
        """[T, features of some views, and state] -> of each view the components, the state, the clone's actions."""
        assert self.principal is not None
        end = rows.shape[1] - self.state_dim
        views, state = [rows[:, i : i + self.feature_dim] for i in range(0, end, self.feature_dim)], rows[:, end:]
        bases = [
            self.clone.mean(torch.cat((view, self.public(state)), dim=1)).clamp(-1, 1)
            for view in views * self.config.clones()
        ]
        return torch.cat([*map(self.principal, views), state, *bases], dim=1)

    def condensed_demos(self, demos: Rollout) -> Rollout:
        """Of an agent that condenses."""
        return replace(demos, obs=self.condensed(demos.obs), final_obs=self.condensed(demos.final_obs))

    def apart(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """[T, features of all views, and state] -> [views * T, features and state], the pictures as they are first."""
        *views, state = np.split(rows, [v * self.feature_dim for v in range(1, self.views + 1)], axis=1)
        return np.concatenate([np.concatenate((view, state), axis=1) for view in views])

    def column(self, i: int) -> str:
        """Of what is kept."""
        return super().column(i) if self.principal is None else f"number {i} of RLPD's condensed features"

    def demo_column(self, i: int) -> str:
        """Of all features."""
        return super().column(i)

    def mean_action(self, row: Tensor) -> Tensor:
        """Of one frozen feature vector and state, whatever is kept of them."""
        return super().mean_action(row if self.principal is None else self.condense(row))

    def remember(self, demos: Rollout) -> None:
        """Keep the demonstrations, condensed; a resumed run's when `restore` has told how."""
        if self.principal is None:
            super().remember(demos)
        elif self.principal.fitted:
            super().remember(self.condensed_demos(demos))
        else:
            self.raw_demos = demos

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """With the demonstrations that waited for it."""
        super().restore(tensors, values)
        if self.raw_demos is not None:
            super().remember(self.condensed_demos(self.raw_demos))
            self.raw_demos = None

    # Acting

    def load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        """As every agent's; a policy from a file needs no views but the first."""
        super().load_policy_state(tensors)
        if self.pixels is None:
            self.features.views = 1

    @contextmanager
    def acting(self) -> Iterator[None]:
        """With one view of each picture."""
        if self.pixels is not None:
            yield
            return
        before, self.features.views = self.features.views, 1
        try:
            yield
        finally:
            self.features.views = before

    def noisy(self, actions: Tensor, noise: Tensor | None) -> Tensor:
        """[B, m] with noise of `exploration_std`, cut to what an action may be."""
        std = self.config.exploration_std
        if noise is None or std is None:
            return actions
        return (actions + (std * noise).clamp(-NOISE_CLIP, NOISE_CLIP)).clamp(-1, 1)

    def base(self, x: Tensor) -> Tensor:
        """The clone's action [B, m] for the actor's inputs: kept there, or of the newest row."""
        if self.principal is not None:
            return x[:, -self.action_dim :]
        with torch.set_grad_enabled(x.requires_grad and torch.is_grad_enabled()):
            return self.clone.mean(self.public(x[:, -self.row :])).clamp(-1, 1)

    def beside(self, x: Tensor, base: Tensor) -> Tensor:
        """The inputs of an actor that corrects: with the clone's action, which condensed rows hold already."""
        return x if self.principal is not None else torch.cat((x, base), dim=1)

    def propose(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The actor's, or the clone's with its correction; the probability is of what the actor chose, and 1 where
        its noise is fixed."""
        if self.config.exploration_std is not None:
            return self.own(x, noise), x.new_zeros(len(x))
        if self.config.reference != "correct":
            return super().propose(x, noise)
        base = self.base(x)
        correction, log_prob = self.actor.sample(self.beside(x, base), noise)
        return self.corrected(base, correction), log_prob

    def own(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """As `propose`, or without noise."""
        learnt = noise if self.config.exploration_std is None else None
        if self.config.reference != "correct":
            return self.noisy(super().own(x, learnt), noise)
        base = self.base(x)
        return self.noisy(self.corrected(base, super().own(self.beside(x, base), learnt)), noise)

    def corrections(self, x: Tensor) -> Tensor:
        """What the actor would add at its inputs, without noise, in units of the largest: [B, m]."""
        return super().own(self.beside(x, self.base(x)), None)

    def corrected(self, base: Tensor, correction: Tensor) -> Tensor:
        """[B, m] of both, cut to what an action may be."""
        return (base + self.config.correction * correction).clamp(-1, 1)

    def choose(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """The actor's action; of it and the clone's the better one; before the first update the clone's, if it acts
        then."""
        if self.config.warm_up == "clone" and int(self.seen) < self.config.init_steps:
            return self.base(x)
        own = self.own(x, noise)
        if self.config.reference != "choose":
            return own
        # By all target critics, the least of them: what is known from demonstrations is doubted less than what is new.
        base, critic = self.base(x), self.target["critic"]
        better = critic(x, own).amin(0) > critic(x, base).amin(0)
        return torch.where(better[:, None], own, base)

    def first(self, observed: NDArray[Any], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Uniform actions, or the clone's with noise."""
        if self.config.warm_up == "random":
            return super().first(observed, noise)
        drawn = torch.as_tensor(noise, device=self.device)
        newest = self.one_view(observed.reshape(len(observed), self.stack, -1))[:, -1]
        base = self.base(torch.as_tensor(newest, device=self.device))
        return (base + self.config.warm_up_noise * drawn).clamp(-1, 1).cpu().numpy()

    # Learning

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Keep the demonstrations, whole: their values know no horizon; clone them, if a clone is needed; update on
        them alone, if that is asked for. Returns the last losses."""
        demos = self.required(demos)
        metrics: Metrics = {}
        apart = demos.obs if self.pixels is not None else self.apart(demos.obs)
        if self.config.clones():
            all_views = replace(
                demos, obs=apart[:, : apart.shape[1] - self.privileged], actions=np.tile(demos.actions, (self.views, 1))
            )
            metrics |= clone(self.clone, all_views, self.config, self.generator, progress)
        if self.principal is not None:
            features = torch.as_tensor(apart[:, : self.feature_dim], device=self.device)
            self.principal.fit(features, self.config.in_scale_floor)
        self.remember(demos)
        self.see(self.kept(demos))
        self.fit_inputs(apart if self.principal is None else self.condensed(apart))
        if self.config.start == "clone":
            metrics |= self.fit_actor(progress)
        assert self.demos_memory is not None
        kept = float((self.demos_memory.kind != LAST).sum())
        return metrics | {"demos/steps": kept} | self.learn_offline(progress)

    def kept(self, demos: Rollout) -> Rollout:
        """Beyond the horizon too, where people took longer: what follows is worth what it is."""
        return cut(demos, horizon=False)

    def fit_actor(self, progress: Progress) -> Metrics:
        """The actor's mean action to the demonstrations', in as many steps as the clone; returns the last loss."""
        assert self.demos_memory is not None
        config, optimiser = self.config, Adam(self.actor.parameters(), self.config.bc_lr, beta=self.config.beta)
        steps = config.bc_epochs * (int(self.demos_memory.head.sum()) // config.bc_batch)
        progress.phase("warm start: fitting the actor", steps)
        loss = torch.zeros(())
        for _ in range(steps):
            batch = self.seen_anew(self.demos_memory.draw(config.bc_batch, self.generator))
            (seen,) = self.augmented(self.split(batch.rows[:, : self.stack]))
            loss = mse_loss(self.own(self.for_actor(seen), None), batch.actions.to(self.device))
            optimiser.step(torch.autograd.grad(loss, optimiser.parameters, allow_unused=True, materialize_grads=True))
            progress.advance(1)
        self.check(said := {"bc/actor_loss": loss.item()}, "while the actor was fitted to the demonstrations")
        return said

    def update(self, rollout: Rollout) -> Metrics:
        """As the base's; when learning begins, the critics' own updates come first. With how the critics do, at the
        episodes that ended."""
        before = int(self.seen)
        metrics: Metrics = {}
        if before < max(self.config.init_steps, 1) <= before + len(rollout.rewards):
            if self.config.critics_first:
                self.progress.line(f"{self.config.critics_first:,} updates of the critics alone first")
            for _ in range(self.config.critics_first):
                metrics |= self.learn(self.draw(), actor=False)
        metrics |= super().update(rollout)
        ended = np.flatnonzero(rollout.terminated | rollout.truncated)
        if self.updates and len(ended):
            pieces = np.unique(rollout.episode[ended])
            slots = [int(e) % self.replay.slots if rollout.slots is None else int(rollout.slots[e]) for e in pieces]
            told = [self.diagnose(episode) for slot in slots if (episode := self.replay.latest(slot)) is not None]
            metrics |= {name: float(np.mean([each[name] for each in told])) for name in (told[0] if told else ())}
        return metrics

    @torch.no_grad()
    def diagnose(self, episode: Batch) -> Metrics:
        """Of an episode's steps: by how much the critics' mean value lies above what was earned from there on,
        discounted and with their value of its last observation, in units of scaled rewards; the share of the critics'
        hidden units that are 0 at all of its steps; and how large corrections are (rms), in units of the largest."""
        rows = self.one_view(episode.rows)
        now, after = (
            seen if seen.frames is None or self.pixels is None else Seen(self.pixels.view(seen.frames), seen.vector)
            for seen in (self.split(rows[:, : self.stack]), self.split(rows[-1:, -self.stack :]))
        )
        critic, hidden = self.online["critic"], list[Tensor]()
        qs = critic(self.for_critic(now, self.online), episode.actions.to(self.device), hidden=hidden).mean(0)
        last = critic(self.for_critic(after, self.online), self.own(self.for_actor(after), None)).mean()
        earned = float(last * episode.not_done[-1])
        returns = np.empty(len(qs))
        for t in reversed(range(len(qs))):
            earned = float(episode.rewards[t]) * self.config.reward_scale + self.config.gamma * earned
            returns[t] = earned
        dead = torch.cat([(h == 0).all(1).flatten() for h in hidden])
        told = {"critics/gap": float(qs.mean()) - returns.mean(), "critics/dead_units": float(dead.float().mean())}
        if self.config.reference == "correct":
            told["actor/correction"] = float(self.corrections(self.for_actor(now)).square().mean().sqrt())
        return told

    def bounds(self) -> Tensor:
        """With the rewards' scale."""
        return super().bounds() * self.config.reward_scale

    def sample(self, memory: Replay, count: int) -> Batch:
        """Returns of several steps, scaled."""
        batch = self.seen_anew(memory.draw(count, self.generator, self.config.n_step, self.config.gamma))
        return batch._replace(rewards=batch.rewards * self.config.reward_scale)

    def draws(self, count: int) -> tuple[Tensor, ...]:
        """The next actions' noise, which critics the target is of, and what dropout keeps of each hidden layer, of the
        critics and of those chosen."""
        chosen = torch.randperm(self.config.critics, generator=self.generator)[: self.config.subset]
        kept = [self.keep(e, count) for e in (self.config.critics, self.config.subset)] if self.config.dropout else []
        return (self.noise(count), chosen.to(self.device), *(mask for masks in kept for mask in masks))

    def keep(self, critics: int, count: int) -> list[Tensor]:
        """For each hidden layer [E, B, units]: 0 with the probability `dropout`, else what keeps the mean."""
        share = 1 - self.config.dropout
        shapes = [(critics, count, units) for units in self.config.hidden]
        return [(torch.rand(shape, generator=self.generator) < share).to(self.device) / share for shape in shapes]

    def values(self, x: Tensor, actions: Tensor, *draws: Tensor) -> Tensor:
        """With dropout."""
        return self.online["critic"](x, actions, keep=self.kept_units(draws)[0])  # type: ignore[no-any-return]

    def kept_units(self, draws: Sequence[Tensor]) -> tuple[Sequence[Tensor] | None, Sequence[Tensor] | None]:
        """Of `draws` those of the critics and of the chosen targets."""
        layers = len(self.config.hidden)
        return (draws[2 : 2 + layers], draws[2 + layers :]) if self.config.dropout else (None, None)

    def bounded(self, y: Tensor) -> Tensor:
        """Cut, or softly from above."""
        if not self.config.soft_bound:
            return super().bounded(y)
        least, most = self.bounds()
        return torch.where(y > most + 1, most + (y - most).clamp(min=1).sqrt(), y.clamp(min=least))

    def of_targets(self, y: Tensor) -> dict[str, Tensor]:
        """The share that lies at or above what rewards allow."""
        return {"critics/impossible": (y >= self.bounds()[1]).float().mean()}

    def value_after(self, after: Seen, *draws: Tensor) -> Tensor:
        """The least of the chosen critics' values, without the entropy if the settings say so; with a clone to choose,
        of the better action."""
        noise, chosen, keep = *draws[:2], self.kept_units(draws)[1]
        x, for_critic, critic = self.for_actor(after), self.for_critic(after, self.target), self.target["critic"]
        actions, log_prob = self.propose(x, noise)
        value = critic(for_critic, actions, chosen, keep).amin(0)
        if self.config.entropy_backup:
            value = value - self.alpha * log_prob
        if self.config.reference == "choose":
            value = torch.maximum(value, critic(for_critic, self.base(x), chosen, keep).amin(0))
        return value  # type: ignore[no-any-return]

    def imitation(self, x: Tensor, actions: Tensor, q: Tensor) -> Tensor | float:
        """With the penalty on corrections."""
        penalty: Tensor | float = 0.0
        if self.config.correction_weight:
            penalty = self.config.correction_weight * q.abs().mean() * self.corrections(x).square().mean()
        return super().imitation(x, actions, q) + penalty

    def learn_temperature(self, log_prob: Tensor) -> dict[str, Tensor]:
        """SAC's; none where the noise is fixed."""
        return super().learn_temperature(log_prob) if self.config.exploration_std is None else {}

    def error(self, qs: Sequence[Tensor], y: Tensor) -> Tensor:
        """Summed over critics: each learns as if alone."""
        assert isinstance(qs, Tensor)
        return mse_loss(qs, y.expand_as(qs)) * len(qs)

    def judged(self, qs: Sequence[Tensor]) -> Tensor:
        """The mean of all critics (RLPD)."""
        assert isinstance(qs, Tensor)
        return qs.mean(0)

    def policy_state(self) -> dict[str, Tensor]:
        """With the clone and the critics that choose, where they act."""
        clone = self.config.reference != "none" or (self.principal is not None and self.config.clones())
        names = ["principal.", *["clone."] * clone, *["target.critic."] * (self.config.reference == "choose")]
        acting = {n: cpu_copy(t) for n, t in self.state_dict().items() if n.startswith(tuple(names))}
        return super().policy_state() | acting
