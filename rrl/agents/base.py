"""The interface of agents: what data they want, how they act, how they learn."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rrl.agents.replay import Replay
from rrl.encoders.base import Encoder, Inference
from rrl.registry import Component, Mistake, Parts, proposals
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


Wants = Episodes | AgentSteps


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
    trains_encoder: ClassVar[bool] = False
    """Can it train an encoder? All others take frozen ones."""
    metrics: ClassVar[Mapping[str, str]] = {}
    """What the line of an update shows: a metric's name, and how it is written, as in {"policy/kl": "KL {:.4f}"}."""
    speed_ignores: ClassVar[frozenset[str]] = frozenset()
    """Settings that change what is learnt but not what it costs: estimates measure such runs once."""

    class Config(Component.Config):
        """Settings shared by all agents: none."""

        @abc.abstractmethod
        def wants(self) -> Wants:
            """What is collected before each update."""

        def memory(self, steps: int) -> int:
            """Observations that it keeps after so many agent steps, of all environments together, in memory and on
            disk; 0: none beyond the update's own."""
            return 0

        def at_once(self) -> Agent.Config:
            """The same agent, learning from its first step on: what measures the cost of an update."""
            return self

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """Demonstrations, an encoder or a number of updates that it can't do with, or can't do without."""
            agent, name = self.component, self.component.__name__
            assert issubclass(agent, Agent)
            if run.encoder.component.trainable and not agent.trains_encoder:
                yield Mistake(
                    "encoder",
                    f"{name} needs a frozen encoder, but {run.encoder.component.__name__} learns: nothing would train "
                    "it",
                    "take a frozen, pretrained encoder, or an agent that trains its encoder",
                )
            if agent.demos == "none" and run.demos is not None:
                yield Mistake(
                    "demos",
                    f"{name} takes no demonstrations, but Experiment.demos is set",
                    f"set `Experiment.demos = None`, or take one that does: {proposals('agent', demos='required')}",
                )
            if agent.demos == "required" and run.demos is None:
                yield Mistake(
                    "agent",
                    f"{name} learns from demonstrations, but Experiment.demos is not set",
                    f"add `Experiment.demos = {proposals('demos')}`",
                )
            if not agent.needs_rollouts and run.iterations > 0:
                yield Mistake(
                    "iterations",
                    f"{name} learns from demonstrations only, but Experiment.iterations is {run.iterations}",
                    "set `Experiment.iterations = 0`",
                )

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
