"""Soft actor-critic, on a state, on frozen features, or together with an encoder that learns.

Haarnoja et al. 2018 with a learnt temperature, in the forms of pytorch_sac, RAD, CURL and SAC+AE (the
paper's section 5.8 and table 1); `RAD`, `CURL`, `SACAE` are this agent with the published settings. Read
top to bottom: settings, networks, the agent (acting, learning, files).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu, softplus

from rrl.agents.adam import Adam, laid_out
from rrl.agents.base import SILENCE, Agent, AgentSteps, Metrics, Progress
from rrl.agents.networks import orthogonal_mlp
from rrl.agents.replay import Batch, Replay
from rrl.encoders.base import Encoder, Inference, warn_of_emulation
from rrl.encoders.pixel import PixelEncoder
from rrl.machine.cuda_graphs import Replayed
from rrl.registry import Component, Mistake, Parts, UserError, mistake, proposals, register
from rrl.rollout.data import Obs, Rollout


class SACConfig(Agent.Config):
    """Settings of soft actor-critic; the defaults are pytorch_sac's for states."""

    replay: PositiveInt = 1_000_000
    """Observations in the replay memory (state: 1M; RAD, CURL, RRL_SAC: 100k)."""
    init_steps: NonNegativeInt = 5_000
    """Agent steps of uniformly random actions before the first update."""
    catch_up: bool = False
    """Make `init_steps` updates at once when learning begins (SAC+AE)."""
    updates_per_step: PositiveInt = 1
    """Gradient updates for each agent step of each environment."""
    batch: PositiveInt = 1024
    """Transitions per update."""
    hidden: tuple[PositiveInt, ...] = (1024, 1024)
    """Units in each hidden ReLU layer of actor and critics."""
    stack: PositiveInt = 1
    """Latest feature vectors that a frozen encoder's policy sees (RRL_SAC: 3); an encoder that learns has a
    stack of its own."""
    actor_lr: PositiveFloat = 1e-4
    """Adam's learning rate of the actor."""
    critic_lr: PositiveFloat = 1e-4
    """Adam's learning rate of the critics, and of the encoder's part in the critics' loss."""
    beta: float = Field(0.9, ge=0, lt=1)
    """Adam's beta1 of actor and critics."""
    actor_every: PositiveInt = 1
    """Updates between steps of actor and temperature."""
    target_every: PositiveInt = 2
    """Updates between moves of the target networks."""
    critic_tau: float = Field(0.005, gt=0, le=1)
    """How far the target critics move towards the critics."""
    encoder_tau: float = Field(0.05, gt=0, le=1)
    """How far the target encoder moves (RAD, CURL, SAC+AE: 0.05)."""
    encoder_loss: Literal["never", "warm_start", "always"] = "always"
    """When an encoder with an objective of its own (CURL, SAC+AE) is trained on it; `warm_start`: FERM's."""
    log_std_min: float = -5.0
    """Lower bound of the log exploration std before the tanh (pixels: -10)."""
    log_std_max: float = 2.0
    """Upper bound of it."""
    log_prob: Literal["stable", "clipped"] = "stable"
    """Form of the tanh's correction: log(1 - a^2) computed stably (pytorch_sac), or of the clipped 1 - a^2,
    plus 1e-6 (RAD, CURL, SAC+AE)."""
    init_alpha: PositiveFloat = 0.1
    """Temperature at the start."""
    alpha_lr: PositiveFloat = 1e-4
    """Adam's learning rate of log alpha."""
    alpha_beta: float = Field(0.9, ge=0, lt=1)
    """Adam's beta1 of it (pixels: 0.5)."""
    gamma: float = Field(0.99, gt=0, le=1)
    """Discount per agent step."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> SACConfig:
        if self.log_std_min >= self.log_std_max:
            name = self.component.__name__
            raise mistake(
                "log_std_min",
                f"{name}.log_std_min is {self.log_std_min:g}, not below log_std_max, {self.log_std_max:g}",
                f"choose {name}.log_std_min < {name}.log_std_max",
            )
        return self

    def wants(self) -> AgentSteps:
        """One step of every environment."""
        return AgentSteps(1)

    def memory(self, steps: int) -> int:
        """The latest `replay` observations."""
        return min(self.replay, steps)

    def at_once(self) -> SACConfig:
        """Without random steps before the first update."""
        return self.model_copy(update={"init_steps": 1, "catch_up": False})

    def misfit(self, run: Parts) -> Iterable[Mistake]:
        """Nothing to train the encoder on, or no warm start to train it in."""
        yield from super().misfit(run)
        yield from self.untrainable(run.encoder)

    def untrainable(self, encoder: Encoder.Config) -> Iterable[Mistake]:
        """What keeps this agent from training an encoder on the encoder's own loss, where it is to."""
        agent, kind = self.component, encoder.component
        assert issubclass(agent, SAC) and issubclass(kind, Encoder)
        name = agent.__name__
        if self.encoder_loss == "warm_start" and agent.demos == "none":
            yield Mistake(
                "encoder",
                f"{name} has no warm start to train the encoder in",
                f"set `{name}.encoder_loss` to 'always' or 'never', or take an agent with a warm start: "
                f"{proposals('agent', demos='required', trains_encoder=True)}",
            )
        elif agent.needs_loss and self.encoder_loss != "never" and not kind.has_loss:
            yield Mistake(
                "encoder",
                f"{name} trains its encoder on a loss of the encoder's own, and {kind.__name__} has none",
                f"take one that has: {proposals('encoder', has_loss=True)}; or set `{name}.encoder_loss = 'never'` to "
                "go without",
            )


# --- networks ---------------------------------------------------------------------------------------


class Actor(nn.Module):
    """A Gaussian squashed by tanh: a = tanh(mu(x) + std(x) * noise)."""

    def __init__(self, size: int, action_dim: int, config: SACConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.mlp = orthogonal_mlp((size, *config.hidden, 2 * action_dim), generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n] -> (mu, log_std), both [B, m], before the tanh."""
        mu, raw = self.mlp(x).chunk(2, dim=-1)
        low, high = self.config.log_std_min, self.config.log_std_max
        return mu, low + 0.5 * (high - low) * (torch.tanh(raw) + 1)

    def sample(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(actions [B, m], log pi [B]) for standard normal `noise` [B, m]."""
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

    def __init__(self, size: int, action_dim: int, config: SACConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.q1, self.q2 = (orthogonal_mlp((size + action_dim, *config.hidden, 1), generator) for _ in range(2))

    def forward(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n] and [B, m] -> (Q1, Q2), both [B]."""
        both = torch.cat((x, actions), dim=-1)
        return self.q1(both).squeeze(-1), self.q2(both).squeeze(-1)


# --- the agent --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A batch of what the policy chooses actions from."""

    frames: Tensor | None
    """uint8 [B, H, W, C], stacked, as the environment rendered them, while the encoder learns; else None."""
    vector: Tensor
    """float32 [B, p]: features and state of a frozen encoder, stacked; beside pictures the state alone."""


@register
class SAC(Agent):
    """Soft actor-critic: one update per agent step, from a replay memory."""

    class Config(SACConfig):
        """Settings of SAC."""

    trains_encoder = True
    metrics = {"sac/alpha": "temperature {:.3f}", "encoder/loss": "encoder loss {:.3f}"}  # noqa: RUF012
    speed_ignores = frozenset({"gamma"})
    needs_loss: ClassVar[bool] = False
    """Is the encoder's own loss part of the method? Then an encoder without one is refused."""
    config: SACConfig
    replay: Replay
    seen: Tensor

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
        assert isinstance(config, SACConfig) and isinstance(encoder.config, Encoder.Config)
        for mistake_ in config.untrainable(encoder.config):
            raise UserError(f"{mistake_.message}: {mistake_.hint}")
        self.config, self.device = config, inference.device
        self.slots = slots
        self.action_dim, self.state_dim = action_dim, state_dim
        self.generator = torch.Generator().manual_seed(seed)
        learnt: dict[str, nn.Module] = {}
        self.actor_head: nn.Module | None = None
        if not isinstance(encoder, PixelEncoder):
            if encoder.learns:
                raise UserError(f"{type(self).__name__} can't train {type(encoder).__name__}: take a PixelEncoder")
            self.stack = config.stack
            self.row = encoder.dim + state_dim
            size = self.stack * self.row
            encode = encoder.inference(inference)
            # In a lambda, as a module would join this agent's parameters and checkpoints.
            self._encode: Callable[[Tensor], Tensor] = lambda pictures: encode(pictures)
            self.features_dim = encoder.dim
        else:
            encoder.mixed = inference.precision == "bf16"
            warn_of_emulation(inference)
            frames = encoder.config.frames()
            self.stack = frames.stack
            self.picture = (frames.size, frames.size, 3 * encoder.cameras)
            self.row = int(np.prod(self.picture)) + 4 * state_dim
            size = encoder.code_dim + state_dim
            encoder.initialise(self.generator)
            learnt = {"encoder": encoder, "head": encoder.head(self.generator)}
            self.actor_head = encoder.head(self.generator)
        self.actor = Actor(size, action_dim, config, self.generator)
        learnt["critic"] = Critic(size, action_dim, config, self.generator)
        self.online = nn.ModuleDict(learnt)
        """What the critics' loss moves: `critic` and, while the encoder learns, `encoder` and `head`."""
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.init_alpha)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.to(self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.start = [p.detach().clone() for p in self._trunk()]
        self.updates = 0
        kind = np.float32 if self.pixels is None else np.uint8
        self.replay = Replay(config.replay, self.row, kind, action_dim, self.stack)
        self.optimisers = self._make_optimisers()
        self._replayed = Replayed(graphs=self.device.type == "cuda")

    @property
    def pixels(self) -> PixelEncoder | None:
        """The encoder, while it learns."""
        encoder = dict(self.online.items()).get("encoder")
        assert encoder is None or isinstance(encoder, PixelEncoder)
        return encoder

    def _trunk(self) -> list[nn.Parameter]:
        return [] if self.pixels is None else self.pixels.trunk_parameters()

    def _make_optimisers(self) -> dict[str, Adam]:
        config = self.config
        shared = [*self._trunk(), *(self.online["head"].parameters() if "head" in self.online else [])]
        head = [] if self.actor_head is None else list(self.actor_head.parameters())
        made = {
            "critic": Adam([*shared, *self.online["critic"].parameters()], config.critic_lr, beta=config.beta),
            "actor": Adam([*head, *self.actor.parameters()], config.actor_lr, beta=config.beta),
            "alpha": Adam([self.log_alpha], config.alpha_lr, beta=config.alpha_beta),
        }
        if self.pixels is not None and self.pixels.own_parameters() and config.encoder_loss != "never":
            # On its own loss, an encoder has optimisers of its own (CURL: both hold the encoder).
            own = self.pixels.own_parameters() + (shared if self.pixels.doubled else [])
            lr = self.pixels.config.own_learning_rate
            made |= {
                "encoder": Adam(shared, lr),
                "own": Adam(own, lr, weight_decay=self.pixels.own_weight_decay),
            }
        return made

    # Acting

    @torch.no_grad()
    def observe(self, obs: Obs) -> NDArray[Any]:
        """A row for each observation: [features, state] float32 of a frozen encoder; while the encoder
        learns, uint8: the newest picture's bytes, then the bytes of the state."""
        state = np.asarray(obs.state, np.float32)
        if self.pixels is None and self.features_dim == 0:
            return state.copy()
        if obs.frames is None:
            raise ValueError("the encoder needs frames, but the environment rendered none")
        if self.pixels is None:
            features = self._encode(torch.as_tensor(obs.frames)).cpu().numpy()
            return np.concatenate((features, state), axis=1, dtype=np.float32)
        newest = obs.frames[..., -self.picture[2] :].reshape(len(state), -1)
        return np.concatenate((newest, np.ascontiguousarray(state).view(np.uint8)), axis=1)

    @torch.no_grad()
    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """tanh(mu + std * noise), [N, m] in [-1, 1]; None: tanh(mu). Until `init_steps` agent steps were
        seen, actions with noise are uniform, in evaluations too: the noise's own quantiles."""
        if noise is not None and self.seen < self.config.init_steps:
            return torch.erf(torch.as_tensor(noise) / math.sqrt(2)).numpy()
        seen = self.split(observed.reshape(len(observed), self.stack, self.row))
        if self.pixels is not None and seen.frames is not None:
            seen = Seen(self.pixels.view(seen.frames), seen.vector)
        mu, log_std = self.actor(self.for_actor(seen))
        if noise is not None:
            mu = mu + log_std.exp() * torch.as_tensor(noise, device=self.device)
        return torch.tanh(mu).cpu().numpy()

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

    def for_actor(self, seen: Seen) -> Tensor:
        """The actor's input [B, n] of *views*. The actor never trains the convolutions."""
        return self._codes(seen, self.actor_head)[0]

    def _codes(self, seen: Seen, *heads: nn.Module | None) -> list[Tensor]:
        """An input [B, n] by each head, from one pass through the convolutions that doesn't train them."""
        if seen.frames is None or self.pixels is None:
            return [seen.vector for _ in heads]
        with torch.no_grad():
            shared = self.pixels.trunk(seen.frames)
        return [torch.cat((head(shared), seen.vector), dim=1) for head in heads if head is not None]

    def _for_critic(self, seen: Seen, modules: nn.ModuleDict) -> Tensor:
        """The critics' input [B, n] of views, by the networks themselves or by their targets."""
        if seen.frames is None:
            return seen.vector
        return torch.cat((self._code(seen.frames, modules), seen.vector), dim=1)

    def _code(self, views: Tensor, modules: nn.ModuleDict) -> Tensor:
        return modules["head"](modules["encoder"].trunk(views))  # type: ignore[no-any-return, operator]

    # Learning

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Nothing to do, and refused with demonstrations: SAC would ignore them."""
        if demos is not None:
            raise UserError(
                f"{type(self).__name__} learns without demonstrations; set Experiment.demos = None, or take FERM"
            )
        return {}

    def remember(self, demos: Rollout) -> None:
        """Nothing: demonstrations are in the replay memory, which is part of a run's folder."""

    def update(self, rollout: Rollout) -> Metrics:
        """Take in the steps; from `init_steps` on, `updates_per_step` updates for each. Returns the last
        update's `sac/*` and `encoder/*`: losses, entropy in nats, how far the convolutions moved."""
        self.replay.add(rollout)
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
            metrics |= self.learn(self.replay.draw(self.config.batch, self.generator), whole=catching_up)
        return metrics | self.moved()

    def learn(self, batch: Batch, *, whole: bool = False) -> Metrics:
        """One update from a batch of transitions; see `update` for what it returns. `whole`: of actor and
        targets too, whatever their periods."""
        rows = torch.as_tensor(batch.rows, device=self.device)
        raw, following = self.split(rows[:, :-1]), self.split(rows[:, 1:])
        now, after = self.augmented(raw, following)
        actor = whole or self.updates % self.config.actor_every == 0
        targets = whole or self.updates % self.config.target_every == 0
        told = self._replayed(
            (actor, targets),
            partial(self._learn_networks, actor, targets),
            *(now.frames, now.vector, after.frames, after.vector),
            *(x.to(self.device) for x in (batch.actions, batch.rewards, batch.not_done)),
            *(self._noise(len(batch.rewards)) for _ in range(1 + actor)),
        )
        metrics = dict(zip(told, torch.stack(list(told.values())).tolist(), strict=True))
        if self.config.encoder_loss == "always":
            metrics |= self.learn_encoder(now, raw)
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
        *noise: Tensor,
    ) -> dict[str, Tensor]:
        """The critics' step and, if so, the actor's and the targets'; see `Replayed` for what it may do."""
        now, after = Seen(frames, vector), Seen(frames_after, vector_after)
        told = self._learn_critic(now, actions, rewards, not_done, after, noise[0])
        if actor:
            told |= self._learn_actor(now, noise[1])
        if targets:
            self.move_targets()
        return told

    def augmented(self, *raw: Seen) -> tuple[Seen, ...]:
        """Training views of the pictures: each moment's own, or one for all, as the encoder says."""
        stacks = [seen.frames for seen in raw if seen.frames is not None]
        if self.pixels is None or not stacks:
            return raw
        views = self.pixels.augment(*stacks, generator=self.generator)
        return tuple(Seen(view, seen.vector) for view, seen in zip(views, raw, strict=True))

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.action_dim, generator=self.generator).to(self.device)

    @property
    def alpha(self) -> Tensor:
        """The temperature, without gradient."""
        return self.log_alpha.detach().exp()

    @torch.no_grad()
    def targets(self, rewards: Tensor, not_done: Tensor, after: Seen, noise: Tensor) -> Tensor:
        """y = r + gamma * not_done * (min Q'(s', a') - alpha * log pi(a'|s')), [B]; a' from the actor."""
        actions, log_prob = self.actor.sample(self.for_actor(after), noise)
        q1, q2 = self.target["critic"](self._for_critic(after, self.target), actions)
        return rewards + self.config.gamma * not_done * (torch.minimum(q1, q2) - self.alpha * log_prob)

    def _learn_critic(
        self, now: Seen, actions: Tensor, rewards: Tensor, not_done: Tensor, after: Seen, noise: Tensor
    ) -> dict[str, Tensor]:
        y = self.targets(rewards, not_done, after, noise)
        q1, q2 = self.online["critic"](self._for_critic(now, self.online), actions)
        loss = mse_loss(q1, y) + mse_loss(q2, y)
        self.step(loss, "critic")
        return {
            "sac/critic_loss": loss.detach(),
            "sac/q": q1.detach().mean(),
            "sac/batch_reward": rewards.mean(),
        }

    def _learn_actor(self, now: Seen, noise: Tensor) -> dict[str, Tensor]:
        x, for_critic = self._codes(now, self.actor_head, dict(self.online.items()).get("head"))
        actions, log_prob = self.actor.sample(x, noise)
        q1, q2 = self.online["critic"](for_critic.detach(), actions)
        loss = (self.alpha * log_prob - torch.minimum(q1, q2)).mean()
        self.step(loss, "actor")
        entropy = -log_prob.detach().mean()
        # The temperature falls while the policy's entropy is above its target, -m.
        self.step(self.log_alpha.exp() * (entropy + self.action_dim), "alpha")
        return {"sac/actor_loss": loss.detach(), "sac/entropy": entropy, "sac/alpha": self.alpha}

    def learn_encoder(self, now: Seen, raw: Seen) -> Metrics:
        """One step on the encoder's own loss, if it has one, at the views `now` of the pictures `raw`."""
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
        return {"encoder/loss": loss.item()}

    def moved(self) -> Metrics:
        """|weights - first weights| / |first weights| of the convolutions; UserError if they diverged."""
        if not self.start:
            return {}
        pairs = list(zip(self._trunk(), self.start, strict=True))
        moved = sum(float((p.detach() - s).square().sum()) for p, s in pairs)
        if not math.isfinite(moved):  # in bf16 nothing else would show it: its ReLU makes zeros of NaNs
            name = type(self).__name__
            raise UserError(
                f"{name} diverged: the encoder's weights aren't finite any more\n  lower {name}.critic_lr "
                f"(it is {self.config.critic_lr:g}), or try Experiment.precision = 'fp32'"
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
        """target <- target + tau * (network - target)."""
        for name, module in self.online.items():
            tau = self.config.critic_tau if name == "critic" else self.config.encoder_tau
            targets: list[Tensor] = list(self.target[name].parameters())
            torch._foreach_lerp_(targets, [p.detach() for p in module.parameters()], tau)

    # Files

    def policy_state(self) -> dict[str, Tensor]:
        """Actor, its head, the convolutions that learn, and the count of steps seen, as fresh CPU tensors."""
        trunk = {id(p) for p in self._trunk()}
        kept = {name for name, p in self.named_parameters() if id(p) in trunk} | {"seen"}
        return {
            name: _cpu_copy(t)
            for name, t in self.state_dict().items()
            if name in kept or name.startswith(("actor.", "actor_head."))
        }

    def load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo of `policy_state`, for the same networks; UserError for others."""
        ours, theirs = ({(name, *t.shape) for name, t in s.items()} for s in (self.policy_state(), tensors))
        if ours != theirs:
            names = sorted({name for name, *_ in ours ^ theirs})
            raise UserError(f"this policy is of other networks: {', '.join(names)} differ or are missing")
        self.load_state_dict({**self.state_dict(), **tensors})

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Networks, optimisers, random generator and counters; the replay memory writes itself."""
        tensors = {name: _cpu_copy(t) for name, t in self.state_dict().items()}
        tensors |= {f"start.{i}": _cpu_copy(t) for i, t in enumerate(self.start)}
        for name, optimiser in self.optimisers.items():
            tensors |= {f"optimiser.{name}.{key}": t for key, t in optimiser.state().items()}
        return tensors | {"generator": self.generator.get_state()}, {"updates": self.updates}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        self.load_state_dict({name: tensors[name] for name in self.state_dict()})
        # Laid out as the weights are, or sums over both would have another order.
        self.start = [laid_out(tensors[f"start.{i}"], p) for i, p in enumerate(self._trunk())]
        for name, optimiser in self.optimisers.items():
            begin = f"optimiser.{name}."
            optimiser.load_state({key.removeprefix(begin): t for key, t in tensors.items() if key.startswith(begin)})
        self._replayed.forget()
        self.generator.set_state(tensors["generator"])
        self.updates = int(str(values["updates"]))


def _cpu_copy(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True).contiguous()
