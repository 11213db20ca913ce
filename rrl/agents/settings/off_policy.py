"""Settings that off-policy actor-critics share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rrl.agents.settings.base import Agent, AgentSteps
from rrl.encoders.settings.base import Encoder
from rrl.registry import (
    Count,
    CountOrZero,
    Mistake,
    Parts,
    Positive,
    Samples,
    Width,
    proposals,
)

Observations = Annotated[int, Field(gt=0, le=10**8)]
"""A hundred times as many as the largest replay memory in use; what else is kept of each takes 13 GB of Adroit."""


class OffPolicyConfig(Agent.Config):
    """Settings of off-policy actor-critics; the defaults are pytorch_sac's for states."""

    replay: Observations = 1_000_000
    """Observations in the replay memory (state: 1M; RAD, CURL, RRL_SAC: 100k)."""
    init_steps: CountOrZero = 5_000
    """Agent steps of uniformly random actions before the first update."""
    catch_up: bool = False
    """Make `init_steps` updates at once when learning begins (SAC+AE)."""
    updates_per_step: Count = 1
    """Gradient updates for each agent step of each environment."""
    overlap: bool = False
    """Learn while the environments (`Experiment.workers` of 1 and more) make the next step: actions are then chosen by
    weights one round older. A run is still the same at every repetition and resume."""
    batch: Samples = 1024
    """Transitions per update."""
    hidden: tuple[Width, ...] = (1024, 1024)
    """Units in each hidden ReLU layer of actor and critics."""
    stack: Annotated[int, Field(gt=0, le=100)] = 1
    """Latest feature vectors that a frozen encoder's policy sees (RRL_SAC: 3); an encoder that learns has a
    stack of its own."""
    actor_lr: Positive = 1e-4
    """Adam's learning rate of the actor."""
    critic_lr: Positive = 1e-4
    """Adam's learning rate of the critics, and of the encoder's part in the critics' loss."""
    beta: float = Field(default=0.9, ge=0, lt=1)
    """Adam's beta1 of actor and critics."""
    actor_every: Count = 1
    """Updates between steps of actor and temperature."""
    target_every: Count = 2
    """Updates between moves of the target networks."""
    critic_tau: float = Field(default=0.005, gt=0, le=1)
    """How far the target critics move towards the critics."""
    encoder_tau: float = Field(default=0.05, gt=0, le=1)
    """How far the target encoder moves (RAD, CURL, SAC+AE: 0.05)."""
    encoder_loss: Literal["never", "warm_start", "always"] = "always"
    """When an encoder with an objective of its own (CURL, SAC+AE) is trained on it; `warm_start`: FERM's."""

    def wants(self) -> AgentSteps:
        """One step of every environment."""
        return AgentSteps(1, self.overlap)

    def memory(self, steps: int) -> int:
        """The latest `replay` observations."""
        return min(self.replay, steps)

    def kept_views(self) -> int:
        """Of how many views of a picture a frozen encoder's features are kept."""
        return 1

    def watched(self) -> int:
        """The random ones."""
        return self.init_steps

    def at_once(self) -> OffPolicyConfig:
        """Without random steps before the first update."""
        return self.model_copy(update={"init_steps": 1, "catch_up": False})

    def misfit(self, run: Parts) -> Iterable[Mistake]:
        """Nothing to train the encoder on, or no warm start to train it in."""
        yield from super().misfit(run)
        yield from self.untrainable(run.encoder)

    def untrainable(self, encoder: Encoder.Config) -> Iterable[Mistake]:
        """What keeps this agent from training an encoder on the encoder's own loss, where it is to."""
        agent, kind = self.component, encoder.component
        assert issubclass(agent, OffPolicyAgent) and issubclass(kind, Encoder)
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


class OffPolicyAgent(Agent):
    """An actor and critics that learn from a replay memory, one update per agent step."""

    implemented_in = "rrl.agents.off_policy"
    trains_encoder = True
    step_sizes: ClassVar[tuple[str, ...]] = ("critic_lr", "actor_lr")
    needs_loss: ClassVar[bool] = False
    """Is the encoder's own loss part of the method? Then an encoder without one is refused."""
