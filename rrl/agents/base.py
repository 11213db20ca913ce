"""The interface of agents: what data they want, how they act, how they learn."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rrl.agents.replay import Replay
from rrl.encoders.base import Encoder, Inference
from rrl.registry import Component
from rrl.rollout.data import Obs, Rollout

Metrics = dict[str, float]


@dataclass(frozen=True)
class Episodes:
    """The agent wants this many whole episodes before each update."""

    count: int


@dataclass(frozen=True)
class AgentSteps:
    """The agent wants this many steps of every environment before each update, episodes going on from
    one update to the next."""

    count: int


class Progress(Protocol):
    """Where long work says how far it is (`rrl.machine.console.Display`)."""

    def phase(self, name: str, steps: int) -> None:
        """Begin to count `steps` steps of what `name` says."""

    def advance(self, steps: int) -> None:
        """So many steps were made."""


class Silence:
    """Progress that nobody sees."""

    def phase(self, name: str, steps: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


SILENCE = Silence()


class Agent(nn.Module, Component, abc.ABC):
    """Acts on what `observe` keeps of an observation and learns from rollouts and demonstrations.

    `snapshot()` is all that decides the agent's future; a frozen encoder is not
    part of it (its weights' checksum is a tag of the run).
    """

    kind: ClassVar[str] = "agent"
    wants: Episodes | AgentSteps
    stack: int = 1
    """How many of the latest rows that `observe` kept `act` wants to see."""
    replay: Replay | None = None
    """What the agent draws from, if it does; it writes itself to a run's folder."""
    demos: ClassVar[Literal["none", "required"]] = "none"
    """Whether `warm_start` takes demonstrations."""
    demo_rewards: ClassVar[bool] = False
    """Whether it learns from their rewards and ends too, not from observations and actions alone."""
    needs_rollouts: ClassVar[bool] = True
    """False: everything is learnt in `warm_start`."""

    class Config(Component.Config):
        """Settings shared by all agents: none."""

        def misfit(self, encoder: Encoder.Config) -> tuple[str, str] | None:
            """(what is wrong, what to do) if the agent can't learn so with this encoder. Pure: evaluated
            while validating."""
            return None

    @abc.abstractmethod
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
        """`state_dim` numbers stand beside the `encoder.dim` features. `seed` decides the initial weights and
        every later random choice of the agent (exploration noise comes from outside, see `act`).
        `inference` says how the encoder computes, and on which device the agent does; `slots` environments
        are stepped together."""

    @abc.abstractmethod
    def observe(self, obs: Obs) -> NDArray[Any]:
        """What to keep of a batch of observations, a row each, [N, n]: for a frozen encoder [features,
        state], float32; while the encoder learns, pictures."""

    @abc.abstractmethod
    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Unclipped actions [N, m] for the latest `stack` rows of each, [N, stack * n]; `noise` [N, m] is
        standard normal, None: the mean action."""

    @abc.abstractmethod
    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Learn from demonstrations before the first rollout, if the agent does; `progress` is told of what
        takes minutes."""

    @abc.abstractmethod
    def update(self, rollout: Rollout) -> Metrics:
        """Learn from what the agent `wants`: one iteration's episodes, or a few steps."""

    @abc.abstractmethod
    def remember(self, demos: Rollout) -> None:
        """Keep what updates need of the demonstrations: `warm_start` does, and so does a resumed run before
        `restore` (checkpoints don't hold them)."""

    @abc.abstractmethod
    def policy_state(self) -> dict[str, torch.Tensor]:
        """What acting needs beside the encoder, as fresh CPU tensors: what a policy file holds."""

    @abc.abstractmethod
    def load_policy_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Undo of `policy_state`."""

    @abc.abstractmethod
    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        """(tensors, JSON-able values) from which `restore` continues bit for bit: weights, RNG, ..."""

    @abc.abstractmethod
    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`."""
