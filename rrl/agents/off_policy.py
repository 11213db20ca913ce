"""What off-policy actor-critics share, whatever their losses: rows, views, replay memory, targets, the update loop.

An agent (`rrl.agents.sac`) adds its networks and its losses: `make_networks`, `choose`, `learn_critic`,
`learn_actor`. Its encoder is frozen, or a `PixelEncoder` that it trains: with the critics' loss, and on the encoder's
own one if it has one, never with the actor's (but for FERM's cloning).
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrl.agents.adam import Adam, laid_out
from rrl.agents.base import Agent, Metrics, beginning, cpu_copy, diverged
from rrl.agents.frozen import Features
from rrl.agents.replay import Batch, Replay
from rrl.agents.settings import off_policy as settings
from rrl.agents.settings.off_policy import OffPolicyConfig as OffPolicyConfig
from rrl.encoders.base import Encoder, Inference, warn_of_emulation
from rrl.encoders.pixel import PixelEncoder
from rrl.machine.cuda_graphs import Replayed
from rrl.registry import (
    Component,
    UserError,
)
from rrl.rollout.data import Obs, Rollout


@dataclass(frozen=True)
class Seen:
    """A batch of what the policy chooses actions from."""

    frames: Tensor | None
    """uint8 [B, H, W, C], stacked, as the environment rendered them, while the encoder learns; else None."""
    vector: Tensor
    """float32 [B, p]: features and state of a frozen encoder, stacked; beside pictures the state alone."""


class OffPolicyAgent(settings.OffPolicyAgent, Agent):
    """An actor and critics that learn from a replay memory, one update per agent step."""

    config: settings.OffPolicyConfig
    actor: nn.Module
    replay: Replay
    seen: Tensor
    """[]: agent steps so far, of all environments."""

    # To write

    @abstractmethod
    def make_networks(self, size: int) -> tuple[nn.Module, nn.Module]:
        """(actor, critic) for inputs [B, size], with weights drawn from `generator`."""

    @abstractmethod
    def choose(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Actions [N, m] in [-1, 1] for the actor's inputs [N, size] and standard normal noise; None: the mean ones."""

    @abstractmethod
    def learn_critic(
        self, now: Seen, actions: Tensor, rewards: Tensor, not_done: Tensor, after: Seen, *draws: Tensor
    ) -> dict[str, Tensor]:
        """A step of the critics on transitions, with what `draws` drew for it. Returns metrics, scalars.
        May not look at numbers (`item`) nor draw any: see `Replayed`."""

    @abstractmethod
    def learn_actor(self, now: Seen, actions: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """A step of the actor; `actions` [B, m] are those that were taken. As `learn_critic`."""

    # Networks

    def __init__(
        self, config: Component.Config, *, encoder: Encoder, inference: Inference, slots: int = 1, **context: Any
    ) -> None:
        """`context` is what every agent takes beside them: state_dim, action_dim, seed."""
        super().__init__(config, encoder=encoder, inference=inference, slots=slots, **context)
        config = self.config
        assert isinstance(encoder.config, Encoder.Config)
        for mistake in config.untrainable(encoder.config):
            raise UserError(f"{mistake.message}: {mistake.hint}")
        learnt: dict[str, nn.Module] = {}
        self.mixed = inference.precision == "bf16"
        self.views = 1 if isinstance(encoder, PixelEncoder) or not encoder.dim else config.kept_views()
        self.actor_head: nn.Module | None = None
        self.feature_dim = 0 if isinstance(encoder, PixelEncoder) else encoder.dim
        """Features of a frozen encoder in a row."""
        if isinstance(encoder, PixelEncoder):
            encoder.mixed = self.mixed
            warn_of_emulation(inference)
            frames = encoder.config.frames()
            self.stack = frames.stack
            self.picture = (frames.size, frames.size, 3 * encoder.cameras)
            self.row = int(np.prod(self.picture)) + 4 * self.state_dim
            size = encoder.code_dim + self.state_dim
            encoder.initialise(self.generator)
            learnt = {"encoder": encoder, "head": encoder.head(self.generator)}
            self.actor_head = encoder.head(self.generator)
        else:
            self.features = Features(encoder, inference, type(self).__name__, self.views)
            self.stack, self.row = config.stack, self.row_size()
            size = self.stack * self.row
        self.actor, learnt["critic"] = self.make_networks(size)
        self.online = nn.ModuleDict(learnt)
        """What the critics' loss moves: `critic` and, while the encoder learns, `encoder` and `head`."""
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.start = [p.detach().clone() for p in self._trunk()]
        kind = np.float32 if self.pixels is None else np.uint8
        self.replay = Replay(config.replay, self.kept_size(), kind, self.action_dim, self.stack)
        self.optimisers = self.make_optimisers()
        self._replayed = Replayed(graphs=self.device.type == "cuda")

    def row_size(self) -> int:
        """Numbers of an observation that networks see while the encoder is frozen: features and state."""
        return self.feature_dim + self.state_dim

    def kept_size(self) -> int:
        """Numbers of an observation that the memory keeps: as many, where there is one view."""
        return self.row

    def one_view(self, rows: NDArray[Any], *, drawn: bool = False) -> NDArray[Any]:
        """Rows as kept [..., kept_size] -> as networks see them [..., row]: the picture as it is, or a view that is
        `drawn` for each."""
        return rows

    @property
    def pixels(self) -> PixelEncoder | None:
        """The encoder, while it learns."""
        encoder = dict(self.online.items()).get("encoder")
        assert encoder is None or isinstance(encoder, PixelEncoder)
        return encoder

    def _trunk(self) -> list[nn.Parameter]:
        return [] if self.pixels is None else self.pixels.trunk_parameters()

    def make_optimisers(self) -> dict[str, Adam]:
        """By the names that `step` takes: `critic`, which moves the encoder too, and `actor`; `encoder` and `own` for
        an encoder with a loss of its own."""
        config = self.config
        shared = [*self._trunk(), *(self.online["head"].parameters() if "head" in self.online else [])]
        head = [] if self.actor_head is None else list(self.actor_head.parameters())
        optimisers = {
            "critic": Adam([*shared, *self.online["critic"].parameters()], config.critic_lr, beta=config.beta),
            "actor": Adam([*head, *self.actor.parameters()], config.actor_lr, beta=config.beta),
        }
        if self.pixels is not None and self.pixels.own_parameters() and config.encoder_loss != "never":
            # On its own loss, an encoder has optimisers of its own (CURL: both hold the encoder).
            own = self.pixels.own_parameters() + (shared if self.pixels.doubled else [])
            lr = self.pixels.config.own_learning_rate
            optimisers |= {
                "encoder": Adam(shared, lr),
                "own": Adam(own, lr, weight_decay=self.pixels.own_weight_decay),
            }
        return optimisers

    # Acting

    @torch.no_grad()
    def observe(self, obs: Obs) -> NDArray[Any]:
        """A row for each observation: [features, state] float32 of a frozen encoder; while the encoder
        learns, uint8: the newest picture's bytes, then the bytes of the state."""
        if self.pixels is None:
            return self.features(obs)
        if obs.frames is None:
            raise ValueError("the encoder needs frames, but the environment rendered none")
        state = np.ascontiguousarray(obs.state, np.float32)
        newest = obs.frames[..., -self.picture[2] :].reshape(len(state), -1)
        return np.concatenate((newest, state.view(np.uint8)), axis=1)

    @torch.no_grad()
    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """What the actor chooses, [N, m] in [-1, 1]; with noise it sees pictures as it does while it collects. Until
        `init_steps` agent steps were seen, actions with noise are uniform, in evaluations too: the noise's own
        quantiles."""
        if noise is not None and self.seen < self.config.init_steps:
            return self.first(observed, noise)
        seen = self.split(self.one_view(observed.reshape(len(observed), self.stack, -1)))
        if self.pixels is not None and seen.frames is not None:
            seen = Seen(self.pixels.view(seen.frames, exploring=noise is not None), seen.vector)
        drawn = None if noise is None else torch.as_tensor(noise, device=self.device)
        return self.choose(self.for_actor(seen), drawn).cpu().numpy()

    def first(self, observed: NDArray[Any], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions of the first `init_steps` agent steps: uniform, the noise's own quantiles."""
        return torch.erf(torch.as_tensor(noise) / math.sqrt(2)).numpy()

    def mean_action(self, row: Tensor) -> Tensor:
        """What the actor chooses, of one frozen feature vector and state; UserError of several, or of pictures."""
        name = type(self).__name__
        if self.pixels is not None:
            raise UserError(f"{name} chooses from pictures whose encoder it trained, not from features and state")
        if self.stack > 1:
            raise UserError(f"{name} chooses from the last {self.stack} feature vectors, not from one")
        return self.choose(row, None)

    def split(self, rows: NDArray[Any] | Tensor) -> Seen:
        """[B, stack, n] rows -> what they hold, on the agent's device."""
        rows = torch.as_tensor(rows, device=self.device)
        if self.pixels is None:
            return Seen(None, rows.reshape(len(rows), -1))
        size = math.prod(self.picture)
        pictures = rows[:, :, :size].reshape(len(rows), self.stack, *self.picture)
        # By torch, on a GPU there: for 128 stacks of three pictures numpy took 28 ms, torch on the CPU 13.
        stacked = torch.cat(pictures.unbind(1), dim=-1)
        state = rows[:, -1, size:].flatten().clone().view(torch.float32)  # where numbers of 4 bytes can lie
        return Seen(stacked, state.view(len(rows), self.state_dim))

    def column(self, i: int) -> str:
        """As `FrozenAgent.column`, for errors: of rows that hold numbers, not bytes."""
        return self.features.column(i)

    # What the networks see, of views

    def augmented(self, *raw: Seen) -> tuple[Seen, ...]:
        """Training views of the pictures: each moment's own, or one for all, as the encoder says."""
        stacks = [seen.frames for seen in raw if seen.frames is not None]
        if self.pixels is None or not stacks:
            return raw
        views = self.pixels.augment(*stacks, generator=self.generator)
        return tuple(Seen(view, seen.vector) for view, seen in zip(views, raw, strict=True))

    def for_actor(self, seen: Seen, *, learns: bool = False) -> Tensor:
        """The actor's input [B, size]. The actor doesn't train the convolutions, unless the encoder `learns` from it:
        in FERM's cloning."""
        return self._codes(seen, self.actor_head, learns=learns)[0]

    def for_both(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The actor's input and the critics', [B, size] each, for the actor's step: from one pass through the
        convolutions, which it doesn't train; nor the critics' head."""
        x, for_critic = self._codes(seen, self.actor_head, dict(self.online.items()).get("head"))
        return x, for_critic.detach()

    def for_critic(self, seen: Seen, modules: nn.ModuleDict) -> Tensor:
        """The critics' input [B, size], by the networks (`online`) or by their targets (`target`)."""
        if seen.frames is None:
            return seen.vector
        return torch.cat((self._code(seen.frames, modules), seen.vector), dim=1)

    def _codes(self, seen: Seen, *heads: nn.Module | None, learns: bool = False) -> list[Tensor]:
        if seen.frames is None or self.pixels is None:
            return [seen.vector for _ in heads]
        with torch.set_grad_enabled(learns):
            shared = self.pixels.trunk(seen.frames)
        return [torch.cat((head(shared), seen.vector), dim=1) for head in heads if head is not None]

    def _code(self, views: Tensor, modules: nn.ModuleDict) -> Tensor:
        return modules["head"](modules["encoder"].trunk(views))  # type: ignore[no-any-return, operator]

    # Learning

    def update(self, rollout: Rollout) -> Metrics:
        """Take in the steps; from `init_steps` on, `updates_per_step` updates for each. Returns the last
        update's metrics and `encoder/*`: losses, how far the convolutions moved."""
        self.take(rollout)
        before = int(self.seen)
        self.seen += len(rollout.rewards)
        count = len(rollout.rewards) * self.config.updates_per_step
        if int(self.seen) < max(self.config.init_steps, 1):
            return {}
        catching_up = self.config.catch_up and before < self.config.init_steps
        if catching_up:
            count = self.config.init_steps
        metrics: Metrics = {}
        for _ in range(count):
            # SAC+AE's authors count the periods in steps, which stand still at an even number meanwhile.
            metrics |= self.learn(self.draw(), whole=catching_up)
        return metrics | self.moved()

    def take(self, rollout: Rollout) -> None:
        """Put steps into the memory."""
        self.replay.add(rollout)

    def draw(self) -> Batch:
        """The transitions of an update."""
        return self.sample(self.replay, self.config.batch)

    def sample(self, memory: Replay, count: int) -> Batch:
        """So many transitions of a memory."""
        return self.seen_anew(memory.draw(count, self.generator))

    def seen_anew(self, batch: Batch) -> Batch:
        """Rows as networks see them, a view drawn for each."""
        return batch._replace(rows=self.one_view(batch.rows, drawn=True))

    def learn(self, batch: Batch, *, whole: bool = False, actor: bool | None = None) -> Metrics:
        """One update from a batch of transitions; see `update` for what it returns. `whole`: of actor and
        targets too, whatever their periods; `actor`: of it or not, whatever its own."""
        rows = torch.as_tensor(batch.rows, device=self.device)
        raw, following = self.split(rows[:, : self.stack]), self.split(rows[:, -self.stack :])
        now, after = self.augmented(raw, following)
        if actor is None:
            actor = whole or self.updates % self.config.actor_every == 0
        targets = whole or self.updates % self.config.target_every == 0
        scalars = self._replayed(
            (actor, targets),
            partial(self._learn_networks, actor, targets),
            *(now.frames, now.vector, after.frames, after.vector),
            *(x.to(self.device) for x in (batch.actions, batch.rewards, batch.not_done)),
            *self.draws(len(batch.rewards)),
            *([self.noise(len(batch.rewards))] if actor else []),
        )
        metrics = dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
        self.check(metrics, when := f"in gradient update {self.updates + 1:,}")
        if self.config.encoder_loss == "always":
            metrics |= self.learn_encoder(now, raw, when)
        self.updates += 1
        if self.updates % 100 == 0:
            for optimiser in self.optimisers.values():
                optimiser.drop_denormals()
        return metrics

    def _learn_networks(
        self,
        actor: bool,
        targets: bool,
        frames: Tensor | None,
        vector: Tensor,
        frames_after: Tensor | None,
        vector_after: Tensor,
        actions: Tensor,
        rewards: Tensor,
        not_done: Tensor,
        *draws: Tensor,
    ) -> dict[str, Tensor]:
        """The critics' step and, if so, the actor's and the targets'; see `Replayed` for what it may do."""
        now, after = Seen(frames, vector), Seen(frames_after, vector_after)
        scalars = self.learn_critic(now, actions, rewards, not_done, after, *(draws[:-1] if actor else draws))
        if actor:
            scalars |= self.learn_actor(now, actions, draws[-1])
        if targets:
            self.move_targets()
        return scalars

    def check(self, losses: Metrics, when: str) -> None:
        """UserError if a loss isn't finite: its step has made NaNs of the weights."""
        for name, value in losses.items():
            if not math.isfinite(value):
                raise diverged(self.config, when, f"{name} is {value:g}")

    def draws(self, count: int) -> tuple[Tensor, ...]:
        """All that is random in a step of the critics on so many transitions: the noise of the next actions [B, m]."""
        return (self.noise(count),)

    def noise(self, count: int) -> Tensor:
        """Standard normal [count, m] from the agent's generator."""
        return torch.randn(count, self.action_dim, generator=self.generator).to(self.device)

    def learn_encoder(self, now: Seen, raw: Seen, when: str) -> Metrics:
        """One step on the encoder's own loss, if it has one, at the views `now` of the pictures `raw`. UserError if
        the loss isn't finite; `when` says in which update."""
        if "own" not in self.optimisers or self.pixels is None or now.frames is None or raw.frames is None:
            return {}

        def target_code(views: Tensor) -> Tensor:
            with torch.no_grad():
                return self._code(views, self.target)

        loss = self.pixels.loss(
            lambda views: self._code(views, self.online), target_code, now.frames, raw.frames, self.generator
        )
        assert loss is not None
        self.step(loss, "encoder", "own")
        if not math.isfinite(value := loss.item()):
            raise diverged(self.pixels.config, when, f"its own loss is {value:g}", ["own_learning_rate"])
        return {"encoder/loss": value}

    def moved(self) -> Metrics:
        """|weights - first weights| / |first weights| of the convolutions; UserError if they diverged."""
        if not self.start:
            return {}
        pairs = list(zip(self._trunk(), self.start, strict=True))
        moved = sum(float((p.detach() - s).square().sum()) for p, s in pairs)
        if not math.isfinite(moved):  # in bf16 nothing else would show it: its ReLU makes zeros of NaNs
            raise diverged(
                self.config,
                f"after {self.updates:,} gradient updates",
                "the encoder's weights aren't finite any more (in bf16? Experiment.precision = 'fp32' reaches further)",
            )
        return {"encoder/moved": math.sqrt(moved / sum(float(s.square().sum()) for _, s in pairs))}

    def step(self, loss: Tensor, *names: str) -> None:
        """A step of the named optimisers on `loss`; nothing else than their parameters gets a gradient."""
        optimisers = [self.optimisers[name] for name in names]
        parameters = list(dict.fromkeys(p for optimiser in optimisers for p in optimiser.parameters))
        gradients = dict(zip(parameters, torch.autograd.grad(loss, parameters), strict=True))
        for optimiser in optimisers:
            optimiser.step([gradients[p] for p in optimiser.parameters])

    @torch.no_grad()
    def move_targets(self) -> None:
        """theta' <- theta' + tau (theta - theta'): Polyak averages, the encoder's faster than the critics' (SAC+AE)."""
        for name, module in self.online.items():
            tau = self.config.critic_tau if name == "critic" else self.config.encoder_tau
            targets: list[Tensor] = list(self.target[name].parameters())
            torch._foreach_lerp_(targets, [p.detach() for p in module.parameters()], tau)

    # Files

    def policy_state(self) -> dict[str, Tensor]:
        """Actor, its head, the convolutions that learn, and the count of steps seen, as fresh CPU tensors."""
        trunk = {id(p) for p in self._trunk()}
        names = {name for name, p in self.named_parameters() if id(p) in trunk} | {"seen"}
        return {
            name: cpu_copy(t)
            for name, t in self.state_dict().items()
            if name in names or name.startswith(("actor.", "actor_head."))
        }

    @classmethod
    def encoder_state(cls, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The encoder and the critics' head, if the encoder learnt."""
        parts = {name: beginning(tensors, f"online.{name}.") for name in ("encoder", "head")}
        return {name: part for name, part in parts.items() if part}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """As the base's, with the convolutions as they were in the beginning; the replay memory writes itself."""
        tensors, values = super().snapshot()
        return tensors | {f"start.{i}": cpu_copy(t) for i, t in enumerate(self.start)}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        super().restore(tensors, values)
        # Laid out as the weights are, or sums over both would have another order.
        self.start = [laid_out(tensors[f"start.{i}"], p) for i, p in enumerate(self._trunk())]
        self._replayed.forget()
