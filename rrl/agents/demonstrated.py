"""SAC with demonstrations in every batch: what FERM and RLPD share beside their losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from rrl.agents.base import Metrics, Progress
from rrl.agents.replay import Batch, Replay
from rrl.agents.sac import SAC
from rrl.agents.settings import demonstrated as settings
from rrl.rollout.data import Rollout


class DemonstratedSAC(settings.DemonstratedSAC, SAC):
    """SAC that draws from demonstrations too."""

    config: settings.DemonstratedConfig
    demos_memory: Replay | None = None
    """The demonstrations, if they are to stay."""

    def remember(self, demos: Rollout) -> None:
        """Keep the demonstrations for good, where they have a share of every batch."""
        if self.config.demo_share is None:
            return
        kind = np.float32 if self.pixels is None else np.uint8
        self.demos_memory = Replay(
            len(demos.t) + 2 * demos.episodes, self.kept_size(), kind, self.action_dim, self.stack
        )
        self.demos_memory.add(self.kept(demos), slots=1)

    def kept(self, demos: Rollout) -> Rollout:
        """What is kept of the demonstrations: each up to the horizon."""
        return cut(demos)

    def draw(self) -> Batch:
        """The demonstrations' share first, or nothing else while there is nothing else."""
        if self.demos_memory is None:
            return super().draw()
        held = self.config.held() if self.replay.head.any() else self.config.batch
        demos = self.sample(self.demos_memory, held)
        if held == self.config.batch:
            return demos
        own = self.sample(self.replay, self.config.batch - held)
        return Batch(
            np.concatenate((demos.rows, own.rows)),
            *(torch.cat(pair) for pair in zip(demos[1:], own[1:], strict=True)),
        )

    def imitation(self, x: Tensor, actions: Tensor, q: Tensor) -> Tensor | float:
        """Cloning's error on the demonstrations, as much as `bc_weight` says."""
        if not self.config.bc_weight:
            return 0.0
        held = self.config.held()
        return self.config.bc_weight * q.abs().mean() * mse_loss(self.own(x[:held], None), actions[:held])

    def learn_offline(self, progress: Progress) -> Metrics:
        """The `offline_updates`, on the demonstrations. Returns the last one's losses."""
        metrics: Metrics = {}
        if self.config.offline_updates:
            progress.phase("warm start: offline", self.config.offline_updates)
        for _ in range(self.config.offline_updates):
            metrics |= self.learn(self.draw())
            progress.advance(1)
        return metrics


def cut(demos: Rollout, *, horizon: bool = True) -> Rollout:
    """Every episode up to where the environment ended or, at the `horizon`, truncated it; its actions clipped to
    [-1, 1]."""
    over = demos.terminated | demos.truncated if horizon else demos.terminated
    keep = np.ones(len(over), bool)
    final = demos.final_obs.copy()
    truncated = np.zeros(len(over), bool)
    for e in range(demos.episodes):
        rows = np.flatnonzero(demos.episode == e)
        ends = np.flatnonzero(over[rows])
        last = rows[ends[0]] if len(ends) else rows[-1]
        if last < rows[-1]:
            keep[last + 1 : rows[-1] + 1] = False
            final[e] = demos.obs[last + 1]
        truncated[last] = not demos.terminated[last]
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
