"""FERM: RAD that starts from demonstrations and a contrastively trained encoder (Zhan et al. 2020).

The paper's baseline of figure 4. Demonstrations fill the replay memory first, where they age like everything
else; the encoder is trained on them by CURL's loss; then RAD learns online. `bc_epochs` gives what the same
demonstrations reach by cloning alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Metrics, Progress
from rrl.agents.rad import PixelSACConfig
from rrl.agents.replay import Batch, Replay
from rrl.agents.sac import SAC, SACConfig
from rrl.registry import CountOrZero, PositiveOrZero, mistake, register
from rrl.rollout.data import Rollout


@register
class FERM(SAC):
    """SAC from cropped pictures with demonstrations in its memory and a warm-started encoder."""

    class Config(PixelSACConfig):
        """FERM's settings: RAD's, and the warm start's; the last three are not FERM's own (docs/results.md)."""

        later: ClassVar[frozenset[str]] = SACConfig.later | {"offline_updates", "demo_share", "bc_weight"}

        encoder_loss: Literal["never", "warm_start", "always"] = "warm_start"
        """When the encoder is trained on its own loss (FERM: in the warm start; online by critics alone)."""
        warm_start_updates: CountOrZero = 1_600
        """Contrastive updates on the demonstrations before learning online."""
        bc_epochs: CountOrZero = 0
        """Passes over the demonstrations in which the actor is cloned; 0: none. FERM's BC-only mode is 100 passes with
        warm_start_updates = 0 and Experiment.iterations = 0 (and FERM.init_steps = 0, or sampled actions are random).
        Its batches come in the memory's order, ours are drawn."""
        bc_convolutions: bool = True
        """Does cloning train the convolutions too, at the actor's learning rate? FERM's does: its actor's Adam holds
        them, and cloning's is the one loss of the actor that reaches them (`train_bc`). False: the actor and its head
        alone, on what the warm start made; so cloned all runs from before there was this setting."""

        offline_updates: CountOrZero = 0
        """Updates on the demonstrations alone, after cloning and before learning online. Of actor and critics: the
        critics move the convolutions, and an actor that stands still loses what it cloned on them."""
        demo_share: float | None = Field(None, gt=0, lt=1)
        """Share of an update's transitions that are the demonstrations', which then stay for good (RLPD: 0.5). None:
        they lie in the memory and age like everything else."""
        bc_weight: PositiveOrZero = 0.0
        """Cloning's error on the demonstrations' share of a batch in the actor's loss online, times this and the
        batch's mean |Q| (TD3+BC's normalisation)."""

        @model_validator(mode="before")
        @classmethod
        def _cloned_before(cls, given: Any) -> Any:
            """A run's record states every setting: one without this one is of an actor cloned alone."""
            recorded = isinstance(given, dict) and {"replay", "hidden", "log_prob", "alpha_beta"} <= given.keys()
            return {"bc_convolutions": False, **given} if recorded else given

        @model_validator(mode="after")
        def _shared_out(self) -> FERM.Config:
            if self.demo_share is not None and not 0 < self.held() < self.batch:
                raise mistake(
                    "demo_share",
                    f"FERM.demo_share {self.demo_share:g} of a batch of {self.batch} is {self.held()} transitions",
                    "choose a share that leaves one or more to the demonstrations and to the run's own steps",
                )
            if self.bc_weight and self.demo_share is None:
                raise mistake(
                    "bc_weight",
                    "FERM.bc_weight needs demonstrations in every batch, and FERM.demo_share is None",
                    "set FERM.demo_share, such as 0.5",
                )
            return self

        def held(self) -> int:
            """Transitions of a batch that are the demonstrations'."""
            return round((self.demo_share or 0) * self.batch)

    config: FERM.Config
    demos: ClassVar[Literal["none", "required"]] = "required"
    demo_rewards: ClassVar[bool] = True
    needs_loss = True
    demos_memory: Replay | None = None
    """The demonstrations, if they are to stay."""

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Fill the memory with the demonstrations, each cut at the horizon; train the encoder; clone, if
        asked for. Returns the last losses."""
        demos = cut(self.required(demos))
        self.remember(demos)
        self.see(demos)
        if self.demos_memory is None:  # then the memory begins with them, and they age in it
            self.replay.add(demos, slots=self.slots)
        metrics: Metrics = {"demos/steps": float(len(demos.t))}
        # The encoder is trained on them by its own loss alone; the target encoder, whose codes are the contrastive
        # keys, follows.
        if self.config.encoder_loss != "never":
            progress.phase("warm start: encoder", self.config.warm_start_updates)
            for update in range(1, self.config.warm_start_updates + 1):
                batch = self.draw()
                raw = self.split(batch.rows[:, :-1])
                (now,) = self.augmented(raw)
                when = f"in the warm start, update {update:,} of {self.config.warm_start_updates:,} of the encoder"
                metrics |= self.learn_encoder(now, raw, when)
                self.move_targets()
                progress.advance(1)
        # FERM's BC-only mode; else the actor learns online alone.
        cloning = self.config.bc_epochs * len(demos.t) // self.config.batch
        progress.phase("warm start: cloning", cloning)
        for update in range(1, cloning + 1):
            metrics |= (losses := self._clone())
            self.check(losses, f"in the warm start, step {update:,} of {cloning:,} of cloning")
            progress.advance(1)
        # Cloning's gradients are far smaller than the actor's: with their squares in its Adam, the first steps online
        # were thirty times too long and undid what was cloned.
        self.optimisers["actor"].reset()
        if self.config.offline_updates:
            progress.phase("warm start: offline", self.config.offline_updates)
        for _ in range(self.config.offline_updates):
            metrics |= self.learn(self.draw())
            progress.advance(1)
        return metrics | self.moved()

    def remember(self, demos: Rollout) -> None:
        """Keep the demonstrations for good, where they have a share of every batch."""
        if self.config.demo_share is None:
            return
        kind = np.float32 if self.pixels is None else np.uint8
        self.demos_memory = Replay(len(demos.t) + 2 * demos.episodes, self.row, kind, self.action_dim, self.stack)
        self.demos_memory.add(cut(demos), slots=1)

    def draw(self) -> Batch:
        """The demonstrations' share first, or nothing else while there is nothing else."""
        if self.demos_memory is None:
            return super().draw()
        held = self.config.held() if self.replay.head.any() else self.config.batch
        demos = self.demos_memory.draw(held, self.generator)
        if held == self.config.batch:
            return demos
        own = self.replay.draw(self.config.batch - held, self.generator)
        return Batch(
            np.concatenate((demos.rows, own.rows)),
            *(torch.cat(pair) for pair in zip(demos[1:], own[1:], strict=True)),
        )

    def imitation(self, x: Tensor, actions: Tensor, q: Tensor) -> Tensor | float:
        """Cloning's error on the demonstrations, as much as `bc_weight` says."""
        if not self.config.bc_weight:
            return 0.0
        held = self.config.held()
        mu, _ = self.actor(x[:held])
        return self.config.bc_weight * q.abs().mean() * mse_loss(torch.tanh(mu), actions[:held])

    def make_optimisers(self) -> dict[str, Adam]:
        """With the convolutions' where cloning trains them: it and the actor's move what FERM's one Adam does."""
        made, config = super().make_optimisers(), self.config
        if config.bc_epochs and config.bc_convolutions and self.pixels is not None:
            made["convolutions"] = Adam(self.pixels.trunk_parameters(), config.actor_lr, beta=config.beta)
        return made

    def _clone(self) -> Metrics:
        """One step of the actor, and of the convolutions if they are to learn, on the squared error of tanh(mu)."""
        batch = self.draw()
        (seen,) = self.augmented(self.split(batch.rows[:, :-1]))
        through = "convolutions" in self.optimisers
        mu, _ = self.actor(self.for_actor(seen, learns=through))
        loss = mse_loss(torch.tanh(mu), batch.actions.to(self.device))
        self.step(loss, "actor", *(["convolutions"] if through else []))
        if through:
            self.move_targets()  # the target encoder follows, as in the contrastive updates
        return {"bc/loss": loss.item()}


def cut(demos: Rollout) -> Rollout:
    """Every episode up to where the environment ended or truncated it, its actions clipped to [-1, 1]."""
    over = demos.terminated | demos.truncated
    keep = np.ones(len(over), bool)
    final = demos.final_obs.copy()
    truncated = demos.truncated.copy()
    for e in range(demos.episodes):
        rows = np.flatnonzero(demos.episode == e)
        ends = np.flatnonzero(over[rows])
        last = rows[ends[0]] if len(ends) else rows[-1]
        if last < rows[-1]:
            keep[last + 1 : rows[-1] + 1] = False
            final[e] = demos.obs[last + 1]
        truncated[last] |= not demos.terminated[last]
    return replace(
        demos,
        obs=demos.obs[keep],
        actions=np.clip(demos.actions[keep], -1, 1),
        rewards=demos.rewards[keep],
        flags={name: values[keep] for name, values in demos.flags.items()},
        episode=demos.episode[keep],
        t=demos.t[keep],
        terminated=demos.terminated[keep],
        truncated=truncated[keep],
        final_obs=final,
    )
