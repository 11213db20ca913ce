"""What is to be known of an agent before it is made: its settings, what data it wants, what it goes with."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from rrl.registry import Component, Mistake, Parts, build, proposals


@dataclass(frozen=True)
class Episodes:
    """The agent wants this many whole episodes before each update."""

    count: int


@dataclass(frozen=True)
class AgentSteps:
    """The agent wants this many steps of every environment before each update, episodes going on from
    one update to the next: `count * Experiment.num_envs` in all. A run's iteration is as many rounds of steps and one
    update as reach `Experiment.log_every` environment steps, at least one."""

    count: int
    overlap: bool = False
    """Does it learn from a round while the environments make the next one? Then that one's actions are chosen before
    the update, but in an iteration's first round."""


Wants = Episodes | AgentSteps


class Agent(Component):
    """What is to be known of an agent before it is made; what to write of one: `rrl.agents.base.Agent`."""

    implemented_in = "rrl.agents.base"
    kind: ClassVar[str] = "agent"
    demos: ClassVar[Literal["none", "required"]] = "none"
    """Whether `warm_start` takes demonstrations."""
    demo_rewards: ClassVar[bool] = False
    """Whether it learns from their rewards and ends too, not from observations and actions alone."""
    asymmetric: ClassVar[bool] = False
    """Do its critics, or its teacher, see a privileged state that its policy doesn't see?"""
    needs_rollouts: ClassVar[bool] = True
    """False: everything is learnt in `warm_start`."""
    trains_encoder: ClassVar[bool] = False
    """Can it train an encoder? All others take frozen ones."""
    metrics: ClassVar[Mapping[str, str]] = {}
    """What the line of an update shows: a metric's name, and how it is written, as in {"policy/kl": "KL {:.4f}"}."""
    speed_ignores: ClassVar[frozenset[str]] = frozenset()
    """Settings that change what is learnt but not what it costs: estimates measure such runs once."""
    step_sizes: ClassVar[tuple[str, ...]] = ()
    """Settings that say how far an update goes: those to lower when it diverges."""

    class Config(Component.Config):
        """Settings shared by all agents: none."""

        @abc.abstractmethod
        def wants(self) -> Wants:
            """What is collected before each update."""

        def memory(self, steps: int) -> int:
            """Observations that it keeps after so many agent steps, of all environments together, in memory and on
            disk; 0: none beyond the update's own."""
            return 0

        def kept_features(self, features: int) -> int:
            """Numbers that it keeps of a frozen encoder's features of an observation."""
            return features

        def teacher_file(self) -> str | None:
            """The policy file whose actions it learns from, or a shipped policy's name; None: none's."""
            return None

        def watched(self) -> int:
            """Agent steps, of all environments together, before it learns from any."""
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
                    "take a frozen, pretrained encoder, or an agent that trains its encoder: "
                    f"{proposals('agent', trains_encoder=True)}",
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
            if not agent.asymmetric and build(run.env).privileged:
                yield Mistake(
                    "env",
                    f"{run.env.component.__name__} gives a privileged state, but {name} has neither critics nor a "
                    "teacher that see other than its policy",
                    f"leave the privileged state out, or take {proposals('agent', asymmetric=True)}",
                )
            if not agent.needs_rollouts and run.iterations > 0:
                yield Mistake(
                    "iterations",
                    f"{name} learns from demonstrations only, but Experiment.iterations is {run.iterations}",
                    "set `Experiment.iterations = 0`",
                )


class FrozenAgent(Agent):
    """Base of agents that see a frozen encoder's features and the state."""

    implemented_in = "rrl.agents.frozen"
