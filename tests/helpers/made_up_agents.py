"""Agents of nobody's, with settings of names that rrl has never heard of: general code must ask them, not guess."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rrl.agents.base import SILENCE, Agent, AgentSteps, Episodes, Metrics, Progress
from rrl.encoders.base import Encoder, Inference
from rrl.registry import Component, register
from rrl.rollout.data import Obs, Rollout

WEIGHTS = 1_000


class Still(Agent):
    """Never moves and learns nothing."""

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
        self.config, self.action_dim, self.updates = config, action_dim, 0
        self.weights = nn.Parameter(torch.zeros(WEIGHTS))
        self.batches: list[int] = []
        """Transitions of each update."""

    def observe(self, obs: Obs) -> NDArray[Any]:
        return obs.state.copy()

    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        return np.zeros((len(observed), self.action_dim), np.float32)

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        return {}

    def update(self, rollout: Rollout) -> Metrics:
        self.batches.append(len(rollout.rewards))
        return {}

    def remember(self, demos: Rollout) -> None:
        pass

    def policy_state(self) -> dict[str, torch.Tensor]:
        return {"weights": self.weights.detach().clone()}

    def load_policy_state(self, tensors: dict[str, torch.Tensor]) -> None:
        self.weights.data.copy_(tensors["weights"])

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        return self.policy_state(), {}

    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, object]) -> None:
        self.load_policy_state(tensors)


@register
class WantsEpisodes(Still):
    """Wants whole episodes."""

    speed_ignores = frozenset({"patience"})

    class Config(Agent.Config):
        """Made up."""

        batch_of_episodes: int = 3
        """How many episodes it wants."""
        patience: int = 1
        """Costs nothing."""
        width: int = 1
        """Costs something."""

        def wants(self) -> Episodes:
            return Episodes(self.batch_of_episodes)


@register
class WantsSteps(Still):
    """Wants 64 steps of every environment, and keeps some of what it saw."""

    class Config(Agent.Config):
        """Made up."""

        album: int = 500
        """Observations that it keeps."""

        def wants(self) -> AgentSteps:
            return AgentSteps(64)

        def memory(self, steps: int) -> int:
            return min(self.album, steps)
