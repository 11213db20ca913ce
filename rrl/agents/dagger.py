"""DAgger: what a policy of the state would do, learnt from pictures where the learner itself gets to.

Ross et al. 2011, with a teacher that sees more than its pupil (Chen et al. 2019, "Learning by cheating"). No method of
RRL's paper: the teacher's state is known in training alone, as to RLPD's asymmetric critics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss

from rrl.agents.adam import Adam
from rrl.agents.base import SILENCE, Metrics, Progress, diverged
from rrl.agents.npg import GaussianAgent, clone, one_thread
from rrl.agents.replay import Replay
from rrl.agents.settings import dagger as settings
from rrl.registry import Component, UserError
from rrl.rollout.data import Rollout


class DAgger(settings.DAgger, GaussianAgent):
    """A policy of pictures that imitates one of the task's state on its own steps (dataset aggregation)."""

    config: settings.DAgger.Config
    replay: Replay

    def __init__(self, config: Component.Config, **context: Any) -> None:
        """`context` is what every agent takes: encoder, state_dim, action_dim, seed, inference."""
        super().__init__(config, **context)
        self.replay = Replay(self.config.replay, self.policy_dim, np.float16, self.action_dim)
        self.optimisers = {"policy": Adam(self.policy.mlp.parameters(), self.config.lr)}
        self.demo_obs, self.demo_actions = torch.zeros(0, self.policy_dim), torch.zeros(0, self.action_dim)

    @torch.no_grad()
    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """The mean, with noise of `exploration_std`."""
        mean = super().act(observed, None)
        return mean if noise is None else mean + np.float32(self.config.exploration_std) * noise

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Clone the demonstrations' own actions. Returns cloning's loss before and after."""
        demos = self.required(demos)
        self.remember(demos)
        public = replace(demos, obs=demos.obs[:, : self.policy_dim])
        return clone(self.policy, public, self.config, self.generator, progress)

    def remember(self, demos: Rollout) -> None:
        """Keep them for the updates; not part of a snapshot."""
        self.demo_obs = self._tensor(demos.obs[:, : self.policy_dim])
        self.demo_actions = self._tensor(demos.actions).clamp(-1, 1)

    def update(self, rollout: Rollout) -> Metrics:
        """Put own episodes, with the teacher's actions, to those before; fit the mean action to all of them.

        Returns `dagger/error`, the mean square of what the policy did less what the teacher would have done, in action
        units, before it learnt from it; `dagger/loss` of the last hundred updates; `dagger/steps`, how many are kept.
        """
        if self.teacher is None:
            raise UserError(f"{type(self).__name__} has nobody to learn from: training gives it its `teacher`")
        # D <- D + {(s, teacher's action)} over the steps that the policy itself made (Ross et al., algorithm 3.1;
        # its mixture with the teacher's own steps is the demonstrations).
        actions = self.teacher(rollout.obs[:, self.policy_dim :]).clip(-1, 1)
        error = float(np.square(rollout.actions.clip(-1, 1) - actions).mean())
        kept = replace(rollout, obs=self.kept(rollout.obs), final_obs=self.kept(rollout.final_obs), actions=actions)
        self.replay.add(kept, self.config.trajectories)
        losses = []
        with one_thread():
            for _ in range(max(1, round(self.config.updates_per_step * len(actions)))):
                x, wanted = self.draw()
                noise = torch.randn(x.shape, generator=self.generator).to(self.device)
                loss = mse_loss(self.policy(x + self.config.input_noise * noise), wanted)
                self.optimisers["policy"].step(torch.autograd.grad(loss, self.optimisers["policy"].parameters))
                losses.append(loss.detach())
        self.updates += 1
        loss = torch.stack(losses[-100:]).mean()
        if not loss.isfinite():
            raise diverged(self.config, f"in update {self.updates}", f"the loss is {loss:g}", self.step_sizes)
        return {"dagger/error": error, "dagger/loss": loss.item(), "dagger/steps": float(self.own_steps())}

    @torch.no_grad()
    def kept(self, rows: NDArray[np.float32]) -> NDArray[np.float16]:
        """[T, n] -> what the policy sees of them, standardised: then float16 has digits enough."""
        most = float(np.finfo(np.float16).max)
        return self.policy.standardise(self._tensor(rows[:, : self.policy_dim])).clamp(-most, most).half().cpu().numpy()

    def own_steps(self) -> int:
        """Own steps that are kept, an observation after each episode's last among them."""
        return int(np.minimum(self.replay.head, self.replay.size).sum())

    def draw(self) -> tuple[Tensor, Tensor]:
        """Standardised inputs [B, n] and the actions that are wanted there [B, m], of demonstrations and own steps
        alike."""
        count, own = len(self.demo_obs), self.own_steps()
        picked = torch.randint(count + own, (self.config.batch,), generator=self.generator)
        demos = picked[picked < count].to(self.device)
        x, actions = self.policy.standardise(self.demo_obs[demos]), self.demo_actions[demos]
        if not (others := self.config.batch - len(demos)):
            return x, actions
        batch = self.replay.draw(others, self.generator)
        rows = torch.as_tensor(batch.rows[:, 0], device=self.device).float()
        return torch.cat((x, rows)), torch.cat((actions, batch.actions.to(self.device)))
