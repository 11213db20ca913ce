"""FERM: RAD that starts from demonstrations and a contrastively trained encoder (Zhan et al. 2020).

The paper's baseline of figure 4. Demonstrations fill the replay memory first, where they age like everything
else; the encoder is trained on them by CURL's loss; then RAD learns online. `bc_epochs` gives what the same
demonstrations reach by cloning alone.
"""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Metrics, Progress
from rrl.agents.demonstrated import DemonstratedSAC, cut
from rrl.agents.settings import ferm as settings
from rrl.rollout.data import Rollout


class FERM(settings.FERM, DemonstratedSAC):
    """SAC from cropped pictures with demonstrations in its memory and a warm-started encoder."""

    config: settings.FERM.Config

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
                raw = self.split(batch.rows[:, : self.stack])
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
        return metrics | self.learn_offline(progress) | self.moved()

    def make_optimisers(self) -> dict[str, Adam]:
        """With the convolutions' where cloning trains them: it and the actor's move what FERM's one Adam does."""
        made, config = super().make_optimisers(), self.config
        if config.bc_epochs and config.bc_convolutions and self.pixels is not None:
            made["convolutions"] = Adam(self.pixels.trunk_parameters(), config.actor_lr, beta=config.beta)
        return made

    def _clone(self) -> Metrics:
        """One step of the actor, and of the convolutions if they are to learn, on the squared error of tanh(mu)."""
        batch = self.draw()
        (seen,) = self.augmented(self.split(batch.rows[:, : self.stack]))
        through = "convolutions" in self.optimisers
        mu, _ = self.actor(self.for_actor(seen, learns=through))
        loss = mse_loss(torch.tanh(mu), batch.actions.to(self.device))
        self.step(loss, "actor", *(["convolutions"] if through else []))
        if through:
            self.move_targets()  # the target encoder follows, as in the contrastive updates
        return {"bc/loss": loss.item()}
